"""A long run under mixed load while retention deletes all the time: memory, descriptors, threads and disk must stay flat.

Senders of several kinds, followers at the tail, a reader that begins again and again, topics that come and go. Every record
that was acknowledged must be met by a follower, in order. Prints a table of about twenty rows and writes all samples as JSON.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

import install
import shell
from paths import LOGS, MILLRACE, ROOT, TARGET, VENV_PYTHON

if Path(sys.prefix) != VENV_PYTHON.parents[1]:
    # The client library lives in an environment of its own.
    install.python()
    os.execv(VENV_PYTHON, [str(VENV_PYTHON), *sys.argv])

import broker
import flatness
import wire
from churn import Administrator, Bulk, ColdReader
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from follow import Tail
from load import ANSWER_SECONDS_MAX, Sender, create_topics
from matching import Acknowledged, Matches
from oracle import Plan
from report_lines import Lines, demand
from watch import MIB, Process, bytes_stored
from witness import Witness

MEMORY = "256MiB"
BULK_BYTES_PER_SECOND = 4 * MIB
# Small, so that segments roll and retention deletes from the first minute on.
DELETED_SOON = {"file.delete.delay.ms": "1000"}
RETAINED = {"segment.bytes": str(1 * MIB), "retention.bytes": str(4 * MIB), **DELETED_SOON}
BULK_RETAINED = {"segment.bytes": str(8 * MIB), "retention.bytes": str(24 * MIB), **DELETED_SOON}
# Few bytes, so by time.
PROBE_RETAINED = {"segment.ms": "10000", "retention.ms": "20000", **DELETED_SOON}
PROBE_PAUSE_SECONDS = 0.02
# Before that, what is stored still grows to where retention holds it, which it looks at every 30 seconds.
JUDGED_MINUTES_MIN = 3
# The client's settings of each sender: from single records to large, late batches.
SENDERS = [
    (Plan("idem-lz4", "steady", 4, True, "lz4", 1200), {}),
    (Plan("idem-zstd", "steady", 4, True, "zstd", 1200), {"linger.ms": 200, "batch.size": 1_000_000}),
    (Plan("plain-gzip", "steady", 4, False, "gzip", 300), {"linger.ms": 20}),
    # No more than a request at a time can carry where the disk is slow.
    (Plan("single", "small", 3, False, "none", 20), {"linger.ms": 0, "batch.num.messages": 1}),
    (Plan("snappy", "small", 3, True, "snappy", 600), {"linger.ms": 5, "batch.num.messages": 50}),
]


def parse():
    parser = argparse.ArgumentParser(prog="ci/soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--binary", default=str(MILLRACE), help="another millrace binary (nothing is built then)")
    parser.add_argument("--json", type=Path, default=TARGET / "soak" / "soak.json", help="where the samples go")
    parser.add_argument(
        "--leak", action="store_true", help="keep a connection more open every second: to see that growth is caught"
    )
    return parser.parse_args()


class Soak:
    def __init__(self, arguments):
        self.seconds = arguments.minutes * 60
        self.every = min(5.0, max(1.0, self.seconds / 120))
        self.process = broker.Millrace("soak", arguments.binary, options=["--memory", MEMORY])
        self.process.start()
        self.bootstrap = bootstrap = self.process.bootstrap
        self.watch = Process(self.process.process.pid)
        self.samples = []
        self.leaked = [] if arguments.leak else None
        topics = {plan.topic: plan for plan, _ in SENDERS}
        create_topics(bootstrap, topics.values(), RETAINED)
        self.matches = {topic: Matches() for topic in topics}
        self.senders, self.acknowledged = [], []
        for plan, settings in SENDERS:
            told = Acknowledged(self.matches[plan.topic], plan.name)
            self.acknowledged.append(told)
            self.senders.append(Sender(plan, bootstrap, acknowledged=told, settings=settings))
        plans = {topic: [plan for plan, _ in SENDERS if plan.topic == topic] for topic in topics}
        self.tails = [Tail(bootstrap, topic, plans[topic], self.matches[topic]) for topic in topics]
        # Another one that reads the same and is not needed for the matching.
        self.tails.append(Tail(bootstrap, "steady", plans["steady"]))
        bulk = Bulk(bootstrap, BULK_BYTES_PER_SECOND, BULK_RETAINED)
        self.workers = [bulk, ColdReader(bootstrap, bulk), Administrator(bootstrap, "steady", DELETED_SOON)]
        self.witness = Witness(bootstrap, PROBE_PAUSE_SECONDS, PROBE_RETAINED)
        self.probed = []

    def run(self):
        for one in [*self.tails, *self.senders, *self.workers]:
            one.start()
        started = last = time.monotonic()
        counted = 0
        while last - started < self.seconds:
            self.witness.begin()
            time.sleep(self.every)
            seen = self.witness.end()
            self.probed += seen.problems
            if self.leaked is not None:
                self.leaked.append(wire.Client(self.bootstrap))
            now, acked = time.monotonic(), sum(len(a) for a in self.acknowledged)
            self.samples.append(self.sample(now - started, (acked - counted) / (now - last), seen))
            last, counted = now, acked
            demand(self.process.alive(), "the broker lives")
            if int(now - started) // 60 != int(now - started - self.every) // 60:
                print(f"... {flatness.table(self.samples[-1:])[1]}", flush=True)

    def sample(self, seconds, acked_per_second, seen):
        slowest = sorted(p + f for p, f in zip(seen.produce, seen.fetch)) or [0.0]
        return {
            "seconds": round(seconds, 2),
            "resident_bytes": self.watch.resident_bytes(),
            "descriptors": len(self.watch.descriptors()),
            "threads": self.watch.threads(),
            "stored_bytes": bytes_stored(self.process.data_dir),
            "acked_per_second": round(acked_per_second, 1),
            # Of a produce and the fetch of the same record.
            "probe_ms_p99": round(slowest[min(len(slowest) - 1, len(slowest) * 99 // 100)] * 1000, 2),
            "probe_ms_max": round(slowest[-1] * 1000, 2),
        }

    def records_are_met(self):
        """Stops the senders and lets the followers come to the end; then nothing acknowledged is unmatched."""
        for sender in self.senders:
            sender.stop()
        for worker in self.workers:
            worker.stop()
        for sender, told in zip(self.senders, self.acknowledged):
            name = sender.plan.name
            demand(not sender.problems, f"{name}: {sender.problems[:3]}")
            heard = len(told) + len(sender.unplaced)
            demand(heard == sender.sent, f"{name} was told of {heard} of {sender.sent} records")
        for tail in self.tails:
            ends = self.ends(tail.topic, tail.partitions)
            demand(tail.wait_until(ends, 60), f"{tail.topic} is read up to {ends}, not {tail.order.next_offset}: {tail.problems}")
            tail.stop()
            demand(not tail.problems, f"{tail.topic}: {tail.problems[:3]} ({len(tail.problems)} problems)")
        for topic, matches in self.matches.items():
            demand(not matches.problems, f"{topic}: {matches.problems[:3]}")
            lost = matches.unmatched()
            demand(not lost, f"{topic}: {len(lost)} acknowledged records were not met: {dict(list(lost.items())[:3])}")
        demand(all(tail.count > 0 for tail in self.tails), "every follower read something")
        read = ", ".join(f"{tail.count} of {tail.topic}" for tail in self.tails)
        twice = sum(tail.order.twice for tail in self.tails)
        return f"{sum(m.matched for m in self.matches.values())} records acknowledged and met; read {read}; {twice} twice"

    def ends(self, topic, partitions):
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        asked = admin.list_offsets({TopicPartition(topic, p): OffsetSpec.latest() for p in range(partitions)})
        return {where.partition: future.result(ANSWER_SECONDS_MAX).offset for where, future in asked.items()}

    def others_were_served(self):
        problems = [problem for worker in self.workers for problem in worker.problems] + self.probed
        demand(not problems, f"{problems[:3]} ({len(problems)} problems)")
        demand(all(worker.rounds > 0 for worker in self.workers), "every worker did something")
        bulk, reader, administrator = self.workers
        return (
            f"{bulk.rounds} bulk batches, {reader.rounds} cold readings of {reader.bytes / MIB:.0f} MiB in all "
            f"(overtaken by retention {reader.overtaken} times), {administrator.rounds} topics made and deleted"
        )

    def retention_deleted(self):
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        for topic, plan in {plan.topic: plan for plan, _ in SENDERS}.items():
            asked = admin.list_offsets({TopicPartition(topic, p): OffsetSpec.earliest() for p in range(plan.partitions)})
            starts = [future.result(ANSWER_SECONDS_MAX).offset for future in asked.values()]
            demand(any(starts), f"{topic} begins at {starts}")

    def flat(self, name, verdict):
        said = flatness.sentence(name, verdict)
        demand(verdict["flat"], said)
        return said

    def stops_cleanly(self):
        self.witness.close()
        return f"in {self.process.stop():.2f} s"


def build(binary):
    if binary == str(MILLRACE):
        shell.must_run(["cargo", "build", "--release", "-p", "millrace"], LOGS / "release.log", 1500, cwd=ROOT)


def main():
    arguments = parse()
    build(arguments.binary)
    lines = Lines()
    soak = Soak(arguments)
    verdicts = {}
    try:
        lines.case("runs", soak.run)
        lines.case("records_are_met", soak.records_are_met)
        lines.case("others_were_served", soak.others_were_served)
        lines.case("retention_deleted", soak.retention_deleted)
        lines.case("stops_cleanly", soak.stops_cleanly)
        print("\n".join(flatness.table(soak.samples)), flush=True)
        verdicts = flatness.judge(soak.samples)
        for name, verdict in verdicts.items():
            if arguments.minutes < JUDGED_MINUTES_MIN and not arguments.leak:
                print(f"note {name}, not judged in so short a time: {flatness.sentence(name, verdict)}", flush=True)
            else:
                lines.case(f"flat_{name}", lambda n=name, v=verdict: soak.flat(n, v))
    finally:
        soak.process.remove()
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        written = {"minutes": arguments.minutes, "memory": MEMORY, "verdicts": verdicts, "samples": soak.samples}
        arguments.json.write_text(json.dumps(written, indent=1))
        print(f"note samples: {arguments.json}", flush=True)
    code = lines.finish()
    # Threads of clients may still be waiting for a broker that is gone.
    os._exit(code)


if __name__ == "__main__":
    main()
