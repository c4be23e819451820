"""Hostile clients against a real broker: each harms only itself.

Beside each of them a well-behaved client sends and reads back, one request at a time, and every answer it gets must be right.
The broker's memory must stay within its budget and a stated overhead, and when the hostile clients are gone so must be their
connections. Latencies are told, not judged. The attacks are in `attacks.py`.
"""

import argparse
import os
import resource
import sys
import time

import attacks
import broker
import wire
from report_lines import Lines, demand
from watch import MIB, Process
from witness import Witness

SHARDS = 2
MEMORY_BYTES = 256 * MIB
# What a broker has beside its budget: the program itself, its rings and their registered buffers, the heap of its metadata,
# and memory that the allocator keeps for the next ten seconds.
OVERHEAD_BYTES = 96 * MIB
# Of each connection: its task, its read buffer, its place in the lists.
CONNECTION_BYTES = 16 << 10
# What a connection may hold that takes none of its answers, on average: what is read for all of them has a budget, and
# they are closed for taking nothing.
UNREAD_BYTES = MIB // 2
# Record bytes stored before anything else: the cache of recent records is full when the attacks begin.
FILLED_BYTES = 192 * MIB
# How many idle connections are tried, where the limits allow it.
IDLE_CONNECTIONS = 10_000
# Descriptors this process and the broker need for other things.
DESCRIPTORS_SPARE = 1_000
# Segments that are opened meanwhile; connections are counted exactly.
DESCRIPTORS_MORE = 200
FREED_SECONDS_MAX = 20
# The allocator keeps what was freed for ten seconds.
SETTLE_SECONDS_MAX = 30
# How long the broker allows a frame to take (30 s, and one more per 64 KiB), and its looking at that every 5 s.
FRAME_SECONDS_MAX = 30 + 16 + 5 + 10


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broker", default="millrace")
    parser.add_argument("--binary")
    parser.add_argument("--long", action="store_true", help="each attack for half a minute")
    parser.add_argument("--only", action="append", metavar="CASE")
    parser.add_argument(
        "--memory-allowed", type=int, metavar="MIB", help="judge by this much memory instead of budget and overhead"
    )
    return parser.parse_args()


class Hostile:
    def __init__(self, arguments):
        self.seconds = 30 if arguments.long else 2
        self.memory_allowed = arguments.memory_allowed
        self.nofile = raise_nofile()
        options = ["--memory", str(MEMORY_BYTES), "--shards", str(SHARDS)]
        self.process = broker.Millrace("hostile", arguments.binary, options=options)
        self.process.start()
        self.bootstrap = self.process.bootstrap
        self.watch = Process(self.process.process.pid)
        self.drip = attacks.Drip()
        # Half frames and slow ones stay open until the end, for the broker to close.
        self.lingering = attacks.Crowd(self.bootstrap, "127.0.0.9")
        self.addresses = 10
        self.witness = Witness(self.bootstrap)
        self.fill()
        # Both of the witness' connections are there from here on: the other one made the topic and is gone.
        self.sockets = self.descriptors = 0

    def fill(self):
        with wire.Client(self.bootstrap) as client:
            for topic in (attacks.FILLED, attacks.POLLED, attacks.PLAIN, attacks.SILENT):
                client.create_topic(topic, attacks.PARTITIONS)
            client.create_topic(attacks.KEYED, 1, {"cleanup.policy": "compact"})
            records = wire.batch(wire.record(0, os.urandom(1_000_000)))
            for n in range(FILLED_BYTES // len(records)):
                client.produce(attacks.FILLED, n % attacks.PARTITIONS, records)

    def alone(self):
        """The well-behaved client without anybody else: what to compare with."""
        self.witness.begin()
        time.sleep(self.seconds)
        seen = self.witness.end()
        demand(not seen.problems, f"well-behaved client: {seen.problems[:3]}")
        self.sockets, self.descriptors = self.watch.sockets(), len(self.watch.descriptors())
        resident = self.watch.resident_bytes()
        return f"{resident / MIB:.0f} MiB resident with full caches, {self.sockets} sockets; well-behaved client: {seen.text()}"

    def beside(self, attack, crowd=None, connection_bytes=CONNECTION_BYTES):
        """Runs one attack with the well-behaved client beside it, then demands that nothing of it is left."""
        stays = crowd is not None
        if not stays:
            self.addresses += 1
            crowd = attacks.Crowd(self.bootstrap, f"127.0.0.{self.addresses}")
        self.memory_settles()
        self.watch.forget_peak()
        self.witness.begin()
        try:
            told = attack(crowd, time.monotonic() + self.seconds)
        finally:
            seen = self.witness.end()
            if not stays:
                crowd.drop_all()
        freed = self.connections_freed()
        peak = self.watch.resident_bytes_peak()
        allowed = self.allowed(crowd.most * connection_bytes + len(self.lingering.open) * CONNECTION_BYTES)
        demand(self.process.alive(), "the broker lives")
        demand(not seen.problems, f"well-behaved client: {seen.problems[:3]} ({len(seen.problems)} problems)")
        demand(seen.produce, "the well-behaved client was served")
        demand(
            peak <= allowed, f"{peak / MIB:.0f} MiB resident at the peak, {allowed / MIB:.0f} allowed ({told})"
        )
        return (
            f"{told}; peak {peak / MIB:.0f} of {allowed / MIB:.0f} MiB; well-behaved client: {seen.text()}; "
            f"connections freed after {freed:.1f} s"
        )

    def memory_settles(self):
        """Waits until what an attack before took has been given back."""
        started = time.monotonic()
        while self.watch.resident_bytes() > MEMORY_BYTES + OVERHEAD_BYTES:
            waited = time.monotonic() - started
            demand(waited < SETTLE_SECONDS_MAX, f"{self.watch.resident_bytes() / MIB:.0f} MiB resident {waited:.0f} s later")
            # The allocator looks at what it could give back when it is asked for something.
            broker.answers(self.bootstrap)
            time.sleep(0.05)

    def allowed(self, connections_bytes):
        if self.memory_allowed:
            return self.memory_allowed * MIB
        return MEMORY_BYTES + OVERHEAD_BYTES + connections_bytes

    def connections_freed(self):
        """Waits until no connections are left but those that stay; returns the seconds that took."""
        started = time.monotonic()
        while True:
            open_now = self.watch.sockets()
            # Those that stay may have been closed by the broker meanwhile.
            if open_now <= self.sockets + len(self.lingering.open):
                break
            waited = time.monotonic() - started
            demand(waited < FREED_SECONDS_MAX, f"{open_now} sockets open {waited:.0f} s later, {self.sockets} before")
            time.sleep(0.05)
        more = len(self.watch.descriptors()) - open_now - (self.descriptors - self.sockets)
        demand(more <= DESCRIPTORS_MORE, f"{more} more descriptors than before that are no connections")
        return time.monotonic() - started

    def half_frames(self):
        return self.beside(attacks.half_frames, self.lingering)

    def one_byte_a_second(self):
        return self.beside(lambda crowd, until: attacks.slow_requests(crowd, until, self.drip), self.lingering)

    def idle(self):
        _, broker_hard = self.watch.nofile()
        count = min(IDLE_CONNECTIONS, self.nofile - DESCRIPTORS_SPARE, broker_hard - DESCRIPTORS_SPARE)

        def allow(connections):
            with wire.Client(self.bootstrap) as client:
                for name in ("max.connections", "max.connections.per.ip"):
                    client.set_broker_config(name, str(connections))

        told = self.beside(lambda crowd, until: attacks.idle(crowd, until, count, allow))
        return f"{told}; limit of open files {self.nofile} here, {broker_hard} of the broker"

    def slow_ones_are_closed(self):
        """The broker ends what takes too long, by itself."""
        opened = len(self.lingering.open)
        started = time.monotonic()
        while self.lingering.open:
            for s in list(self.lingering.open):
                if attacks.ended(s):
                    self.lingering.drop(s)
            waited = time.monotonic() - started
            demand(waited < FRAME_SECONDS_MAX, f"{len(self.lingering.open)} of {opened} slow ones are still open")
            time.sleep(0.1)
        self.drip.stop()
        self.connections_freed()
        return f"all {opened}"

    def serves_as_before(self):
        demand(broker.answers(self.bootstrap), "the broker answers")
        self.witness.begin()
        time.sleep(1)
        seen = self.witness.end()
        demand(not seen.problems and seen.produce, f"well-behaved client: {seen.problems[:3]}")
        self.connections_freed()
        demand("panicked" not in self.process.output(), "nothing panicked")
        return f"well-behaved client: {seen.text()}"

    def stops_cleanly(self):
        self.witness.close()
        return f"in {self.process.stop():.2f} s"

    def end(self):
        self.drip.stop()
        self.process.remove()


def raise_nofile():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def main():
    arguments = parse()
    lines = Lines()
    hostile = Hostile(arguments)
    cases = {
        "alone": hostile.alone,
        "half_frames": hostile.half_frames,
        "one_byte_a_second": hostile.one_byte_a_second,
        "garbage": lambda: hostile.beside(attacks.garbage),
        "huge_claims": lambda: hostile.beside(attacks.huge_claims),
        "stored_bombs": lambda: hostile.beside(attacks.stored_bombs),
        "idle_connections": hostile.idle,
        "storm": lambda: hostile.beside(attacks.storm),
        "pipelines": lambda: hostile.beside(attacks.pipelines),
        "opened_bombs": lambda: hostile.beside(attacks.opened_bombs),
        "polls_wake_together": lambda: hostile.beside(attacks.polls_wake_together, connection_bytes=UNREAD_BYTES),
        # Waits for a while anyway, in which the allocator gives back what the one before had.
        "slow_ones_are_closed": hostile.slow_ones_are_closed,
        "never_reads": lambda: hostile.beside(attacks.never_reads, connection_bytes=UNREAD_BYTES),
        "serves_as_before": hostile.serves_as_before,
        "stops_cleanly": hostile.stops_cleanly,
    }
    always = {"alone", "serves_as_before", "stops_cleanly"}
    try:
        for name, call in cases.items():
            if arguments.only is None or name in arguments.only or name in always:
                lines.case(name, call)
    finally:
        hostile.end()
    return lines.finish()


if __name__ == "__main__":
    sys.exit(main())
