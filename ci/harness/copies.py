"""What records are copied, and copies held against them. It knows no client and no process, only keys, values and offsets.

What is judged are lists of (offset, key, value) of each partition, as readers of committed records get them.
"""

import zlib

import oracle
from report_lines import demand

COPY = b"copy of "
# Who records of the source are of, by what becomes of their transaction.
KEPT, DROPPED = "kept", "dropped"
KEYS = 40


def key_of(number):
    return f"key{zlib.crc32(str(number).encode()) % KEYS}".encode()


def partition_of(key, partitions):
    return zlib.crc32(key) % partitions


def number_of(record):
    """Of a record of the target."""
    _, _, value = record
    _, number = oracle.parse(value.removeprefix(COPY))
    return number


def check_source(kept, source):
    """The source has exactly what was committed to it: each record once, in order, none of those that were aborted."""
    for partition, numbers in kept.items():
        found = [oracle.parse(value) for _, _, value in source[partition]]
        where = f"source partition {partition}"
        demand(all(name == KEPT for name, _ in found), f"{where} has records of aborted transactions")
        differ_nowhere(where, [number for _, number in found], numbers)
        for (offset, key, _), (_, number) in zip(source[partition], found, strict=True):
            demand(key == key_of(number), f"{where} has the key {key} at {offset}, not {key_of(number)}")


def check_copy(source, target):
    """Partition by partition the target has the source's records, each once and in order, so each key's, too."""
    for partition, records in source.items():
        wanted = [(key, COPY + value) for _, key, value in records]
        found = [(key, value) for _, key, value in target[partition]]
        differ_nowhere(f"target partition {partition}", found, wanted)


def check_ranges(source, ranges):
    """Transactions say which offsets they are of: each goes on where the one before ended, up to the source's last record."""
    for partition, records in source.items():
        at = copied = 0
        for offset, _, value in ranges[partition]:
            first, end, count = map(int, value.split())
            demand(first == at, f"ranges partition {partition}: what {offset} says begins at {first}, not at {at}")
            at, copied = end, copied + count
        wanted = records[-1][0] + 1 if records else 0
        demand(at == wanted, f"ranges partition {partition} end at {at}, not at {wanted}")
        demand(copied == len(records), f"ranges partition {partition} are of {copied} records, not {len(records)}")


def check_offsets(source, committed):
    """The group has committed what lies behind the source's last record."""
    wanted = {p: records[-1][0] + 1 for p, records in source.items() if records}
    demand(committed == wanted, f"the group has committed {committed}, the source ends at {wanted}")


def differ_nowhere(where, found, wanted):
    if found == wanted:
        return
    n = next((n for n, (a, b) in enumerate(zip(found, wanted, strict=False)) if a != b), min(len(found), len(wanted)))
    told = [shorten(records[n]) if n < len(records) else "nothing" for records in (found, wanted)]
    twice = len(found) - len(set(found))
    lost = len(set(wanted) - set(found))
    raise AssertionError(
        f"{where}: {told[0]} where {told[1]} is due, the {n}th of {len(wanted)}; {twice} twice, {lost} are not there"
    )


def shorten(what):
    text = repr(what)
    return text if len(text) < 120 else f"{text[:120]}..."
