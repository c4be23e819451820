"""Holds what was acknowledged against what was read. It knows no client and no process, only numbers and offsets.

A record's value tells its producer and number, and the rest of its bytes follow from those, so that every byte that comes
back is checked.
"""

import random
import zlib
from dataclasses import dataclass

from report_lines import demand

NOISE = random.Random("noise").randbytes(64 * 1024)


def value_of(name, number):
    """The whole value of a record: its size and bytes follow from who sent it."""
    head = f"{name}:{number}:".encode()
    mixed = zlib.crc32(head)
    size = 40_000 if mixed % 200 == 0 else mixed % 900
    start = mixed % (len(NOISE) - size)
    return head + NOISE[start : start + size]


@dataclass
class Plan:
    """What one producer sends: its records go to the partitions in turn."""

    name: str
    topic: str
    partitions: int
    idempotent: bool
    codec: str
    per_second: int


def parse(value):
    """(name, number) of a record, its bytes checked."""
    name, number, _ = value.split(b":", 2)
    name, number = name.decode(), int(number)
    want = value_of(name, number)
    demand(value == want, f"{name}:{number} came back with other bytes (crc {zlib.crc32(value)} for {zlib.crc32(want)})")
    return name, number


def check_sender(sender, reader, ordered=True):
    """Acknowledged is a subset of what is read, at the offsets told, in order; with idempotence nothing is there twice.

    Not `ordered`: the client may have sent refused records again behind later ones.
    """
    plan = sender.plan
    demand(not sender.problems, f"{plan.name}: {sender.problems[:3]} ({len(sender.problems)} problems)")
    for (partition, offset), number in sender.acknowledged.items():
        seen = reader.seen[partition]
        demand(
            offset < len(seen),
            f"{plan.topic}-{partition} ends at {len(seen)}, but {plan.name}:{number} was acknowledged at {offset}",
        )
        demand(
            seen[offset] == (plan.name, number),
            f"{plan.topic}-{partition} has {seen[offset]} at {offset}, where {plan.name}:{number} was acknowledged",
        )
    told = len(sender.acknowledged) + len(sender.unplaced)
    demand(told == sender.sent, f"{plan.name} was told of {told} of {sender.sent} records")
    # Everything sent is acknowledged by now, with an offset or without, so everything sent must be there.
    for partition, seen in reader.seen.items():
        mine = [number for name, number in seen if name == plan.name]
        first = list(dict.fromkeys(mine))
        if not ordered:
            first.sort()
        demand(first == sorted(first), f"{plan.topic}-{partition}: {plan.name} is out of order")
        want = list(range(partition, sender.sent, plan.partitions))
        demand(first == want, f"{plan.topic}-{partition}: {plan.name} has {len(first)} different of {len(want)} records")
        if plan.idempotent:
            demand(len(mine) == len(first), f"{plan.topic}-{partition}: {plan.name} has {len(mine) - len(first)} twice")
