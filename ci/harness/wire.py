"""The Kafka protocol as far as a test needs it to say the wrong things on purpose: requests, batches, one plain client.

It knows no broker process. Versions are fixed ones without flexible fields; nothing here negotiates.
"""

import socket
import struct
import time
from dataclasses import dataclass

PRODUCE, FETCH, LIST_OFFSETS, METADATA, API_VERSIONS = 0, 1, 2, 3, 18
CREATE_TOPICS, DELETE_TOPICS, INCREMENTAL_ALTER_CONFIGS = 19, 20, 44
# The version in which each is spoken here.
VERSIONS = {
    PRODUCE: 7,
    FETCH: 10,
    LIST_OFFSETS: 1,
    METADATA: 1,
    API_VERSIONS: 0,
    CREATE_TOPICS: 2,
    DELETE_TOPICS: 1,
    INCREMENTAL_ALTER_CONFIGS: 0,
}
TOPIC, BROKER = 2, 4
SET = 0
# Linux: the port is chosen at connect, so that one address has all its ports towards every listener.
IP_BIND_ADDRESS_NO_PORT = 24
BATCH_HEADER = struct.Struct(">qiibIhiqqqhii")


def _crc32c_table():
    table = []
    for n in range(256):
        for _ in range(8):
            n = (n >> 1) ^ 0x82F63B78 if n & 1 else n >> 1
        table.append(n)
    return table


CRC32C = _crc32c_table()


def crc32c(data):
    table, crc = CRC32C, 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def zigzag(value):
    value = (value << 1) ^ (value >> 63)
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def record(number, value, key=None):
    """Record `number` of its batch."""
    key = zigzag(-1) if key is None else zigzag(len(key)) + key
    body = b"\0" + zigzag(0) + zigzag(number) + key + zigzag(len(value)) + value + zigzag(0)
    return zigzag(len(body)) + body


def batch(body, count=1, codec=0, timestamp_ms=None, newest_ms=None):
    """A batch of `count` records whose bytes, compressed with `codec` already, are `body`; from now unless said otherwise."""
    timestamp_ms = int(time.time() * 1000) if timestamp_ms is None else timestamp_ms
    newest_ms = timestamp_ms if newest_ms is None else newest_ms
    head = BATCH_HEADER.pack(
        0, 49 + len(body), -1, 2, 0, codec, count - 1, timestamp_ms, newest_ms, -1, -1, -1, count
    )
    crc = crc32c(head[21:] + body)
    return head[:17] + struct.pack(">I", crc) + head[21:] + body


def same_batch(stored, sent):
    """Whether they differ in nothing but what a broker fills in: base offset and leader epoch."""
    return stored[8:12] == sent[8:12] and stored[16:] == sent[16:]


def string(text):
    data = text.encode()
    return struct.pack(">h", len(data)) + data


def array(items):
    return struct.pack(">i", len(items)) + b"".join(items)


def header(key, correlation=1, client="test", version=None):
    version = VERSIONS[key] if version is None else version
    return struct.pack(">hhi", key, version, correlation) + string(client)


def framed(payload):
    return struct.pack(">i", len(payload)) + payload


def request(key, body=b"", correlation=1):
    return framed(header(key, correlation) + body)


def produce(topic, partition, records, acks=-1, timeout_ms=30_000):
    one = struct.pack(">ii", partition, len(records)) + records
    return struct.pack(">hhi", -1, acks, timeout_ms) + array([string(topic) + array([one])])


@dataclass
class Want:
    """What a fetch asks for."""

    max_bytes: int = 1 << 20
    wait_ms: int = 0
    min_bytes: int = 0


def fetch(topic, offsets, want):
    """`offsets` has (partition, offset) pairs; one partition may come again and again."""
    parts = [struct.pack(">iiqqi", p, -1, offset, -1, want.max_bytes) for p, offset in offsets]
    head = struct.pack(">iiiibii", -1, want.wait_ms, want.min_bytes, want.max_bytes, 0, 0, -1)
    return head + array([string(topic) + array(parts)]) + array([])


def list_offsets(topic, times):
    """`times` has (partition, timestamp) pairs."""
    parts = [struct.pack(">iq", p, at) for p, at in times]
    return struct.pack(">i", -1) + array([string(topic) + array(parts)])


def create_topic(topic, partitions, settings=None):
    configs = [string(name) + string(value) for name, value in (settings or {}).items()]
    one = string(topic) + struct.pack(">ih", partitions, 1) + array([]) + array(configs)
    return array([one]) + struct.pack(">ib", 30_000, 0)


def set_broker_config(name, value):
    """For all brokers."""
    one = string(name) + struct.pack(">b", SET) + string(value)
    return array([struct.pack(">b", BROKER) + string("") + array([one])]) + b"\0"


class Refused(Exception):
    """The broker answered with an error code."""


class Client:
    """One connection; a request at a time."""

    def __init__(self, bootstrap, source=None, seconds_max=30):
        self.socket = connect(bootstrap, source, seconds_max)
        self.correlation = 0

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def call(self, key, body=b""):
        """The response's body."""
        self.correlation += 1
        self.socket.sendall(request(key, body, self.correlation))
        answer = self.frame()
        (correlation,) = struct.unpack_from(">i", answer)
        if correlation != self.correlation:
            raise Refused(f"answer {correlation} to request {self.correlation}")
        return answer[4:]

    def frame(self):
        (size,) = struct.unpack(">i", self._exactly(4))
        return self._exactly(size)

    def _exactly(self, count):
        data = bytearray(count)
        view, done = memoryview(data), 0
        while done < count:
            got = self.socket.recv_into(view[done:])
            if got == 0:
                raise ConnectionError(f"closed after {done} of {count} bytes")
            done += got
        return bytes(data)

    def produce(self, topic, partition, records):
        """The base offset."""
        answer = self.call(PRODUCE, produce(topic, partition, records))
        error, offset = struct.unpack_from(">hq", answer, 4 + 2 + len(topic.encode()) + 4 + 4)
        if error:
            raise Refused(f"produce to {topic}-{partition}: error {error}")
        return offset

    def fetch(self, topic, partition, offset, max_bytes=1 << 20):
        """The record bytes of one partition."""
        answer = self.call(FETCH, fetch(topic, [(partition, offset)], Want(max_bytes)))
        at = 4 + 2 + 4 + 4 + 2 + len(topic.encode()) + 4 + 4
        (error,) = struct.unpack_from(">h", answer, at)
        if error:
            raise Refused(f"fetch of {topic}-{partition} at {offset}: error {error}")
        # High watermark, last stable offset, log start.
        at += 2 + 3 * 8
        (aborted,) = struct.unpack_from(">i", answer, at)
        at += 4 + 16 * max(0, aborted)
        (size,) = struct.unpack_from(">i", answer, at)
        return answer[at + 4 : at + 4 + max(0, size)]

    def create_topic(self, topic, partitions, settings=None):
        answer = self.call(CREATE_TOPICS, create_topic(topic, partitions, settings))
        (error,) = struct.unpack_from(">h", answer, 4 + 4 + 2 + len(topic.encode()))
        if error:
            raise Refused(f"create {topic}: error {error}")

    def set_broker_config(self, name, value):
        answer = self.call(INCREMENTAL_ALTER_CONFIGS, set_broker_config(name, value))
        (error,) = struct.unpack_from(">h", answer, 8)
        if error:
            raise Refused(f"set {name}: error {error}")


def connect(bootstrap, source=None, seconds_max=30):
    host, port = bootstrap.rsplit(":", 1)
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        s.settimeout(seconds_max)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if source:
            s.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            s.bind((source, 0))
        s.connect((host, int(port)))
    except BaseException:
        s.close()
        raise
    return s
