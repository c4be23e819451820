"""What the coordinators say of transactions, asked by the plain protocol. It knows no client and no broker process.

Both questions are of the flexible kind: numbers of items are one more than they are, and every struct ends with tags.
"""

import struct
import time
from dataclasses import dataclass

import wire
from confluent_kafka import IsolationLevel
from committed import ends
from report_lines import demand

DESCRIBE, LIST = 65, 66
NO_TAGS = b"\0"
OVER = {"Empty", "CompleteCommit", "CompleteAbort"}
# Longer than the timeout of every transaction of these tests, and twice the time after which Apache Kafka looks for them.
OVER_SECONDS_MAX = 40


@dataclass
class Described:
    error: int
    state: str
    timeout_ms: int
    producer: tuple
    partitions: set


class Fields:
    """Takes the fields of a response one after the other."""

    def __init__(self, data):
        self.data = data
        self.at = 0

    def number(self, form):
        (value,) = struct.unpack_from(f">{form}", self.data, self.at)
        self.at += struct.calcsize(f">{form}")
        return value

    def varint(self):
        value = shift = 0
        while True:
            byte = self.number("B")
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def string(self):
        size = self.varint() - 1
        self.at += size
        return self.data[self.at - size : self.at].decode()

    def items(self, one):
        return [one() for _ in range(self.varint() - 1)]

    def tags(self):
        demand(self.varint() == 0, "a response without tagged fields")


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _call(bootstrap, key, body):
    with wire.Client(bootstrap) as client:
        client.socket.sendall(wire.framed(wire.header(key, version=0) + NO_TAGS + body + NO_TAGS))
        fields = Fields(client.frame())
    demand(fields.number("i") == 1, "the answer to the only request")
    fields.tags()
    fields.number("i")
    return fields


def listed(bootstrap):
    """The state of each transactional id."""
    # No filters, neither by state nor by producer.
    fields = _call(bootstrap, LIST, varint(1) + varint(1))
    error = fields.number("h")
    demand(error == 0, f"ListTransactions: error {error}")
    fields.items(fields.string)

    def one():
        name, _, state = fields.string(), fields.number("q"), fields.string()
        fields.tags()
        return name, state

    return dict(fields.items(one))


def described(bootstrap, names):
    """What is known of each of these transactional ids."""
    texts = [name.encode() for name in names]
    body = varint(len(texts) + 1) + b"".join(varint(len(text) + 1) + text for text in texts)
    fields = _call(bootstrap, DESCRIBE, body)

    def topic():
        name, partitions = fields.string(), fields.items(lambda: fields.number("i"))
        fields.tags()
        return {(name, p) for p in partitions}

    def one():
        error, name, state, timeout_ms = fields.number("h"), fields.string(), fields.string(), fields.number("i")
        fields.number("q")
        producer = (fields.number("q"), fields.number("h"))
        partitions = set().union(*fields.items(topic))
        fields.tags()
        return name, Described(error, state, timeout_ms, producer, partitions)

    return dict(fields.items(one))


def wait_until_over(bootstrap, names):
    """Until no transaction of anybody is open or half ended; returns what is described of `names`."""
    deadline = time.monotonic() + OVER_SECONDS_MAX
    while True:
        states = listed(bootstrap)
        going_on = {name: state for name, state in states.items() if state not in OVER}
        if not going_on:
            break
        demand(time.monotonic() < deadline, f"transactions that do not end: {going_on}")
        time.sleep(0.2)
    absent = set(names) - set(states)
    demand(not absent, f"transactional ids that are not listed: {absent}")
    found = described(bootstrap, names)
    for name, txn in found.items():
        demand(txn.error == 0 and txn.state in OVER and not txn.partitions, f"{name} is described as {txn}")
    return found


def demand_all_stable(bootstrap, topic, partitions):
    """Nothing of a topic is withheld from readers of committed records."""
    stable = ends(bootstrap, topic, partitions)
    high = ends(bootstrap, topic, partitions, IsolationLevel.READ_UNCOMMITTED)
    demand(stable == high, f"{topic}: last stable offsets {stable}, high watermarks {high}")
