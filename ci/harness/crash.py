"""Kills a real broker under load, again and again, and holds it to what it acknowledged.

Several producers send all the time, with and without idempotence. The broker is killed (SIGKILL) at random moments, some of
them while it is still starting, and started on the same data, now and then with another number of shards. After every start
all that is new is read: what was acknowledged must be there, at its offset, in order, and stay. The seed is printed first;
it fixes what is chosen, not how the threads of three processes interleave.
"""

import argparse
import gc
import os
import random
import secrets
import statistics
import sys
import time

import broker
import install
from load import Reader, Sender, create_topics
from oracle import Plan, check_sender
from report_lines import Lines, demand

PLANS = [
    Plan("idem-lz4", "idempotent", 4, True, "lz4", 1500),
    Plan("idem-plain", "idempotent", 4, True, "none", 800),
    Plan("plain-zstd", "plain", 3, False, "zstd", 1000),
    Plan("plain-none", "plain", 3, False, "none", 500),
]


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broker", default="millrace")
    parser.add_argument("--binary")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", default=None)
    return parser.parse_args()


class Crashes:
    def __init__(self, arguments, chance):
        self.chance = chance
        if arguments.broker == "kafka":
            install.reference_broker()
            self.process = broker.Kafka("crash")
        else:
            self.process = broker.Millrace("crash", arguments.binary, port=broker.free_port())
        self.shards_max = max(2, len(os.sched_getaffinity(0)))
        self.shards = self.shards_max
        self.seconds_to_serve = []
        self.start()
        topics = {plan.topic: plan for plan in PLANS}.values()
        # Small segments, so that rolling happens between the kills.
        create_topics(self.process.bootstrap, topics, {"segment.bytes": str(4 << 20)})
        self.readers = {p.topic: Reader(self.process.bootstrap, p.topic, p.partitions) for p in topics}
        self.senders = [Sender(plan, self.process.bootstrap).start() for plan in PLANS]

    def start(self, wait=True):
        self.process.options = ["--shards", str(self.shards)]
        return self.process.start(wait)

    def kill_once(self):
        """One kill, with the restart after it."""
        time.sleep(self.chance.choice([0.02, 0.2, 0.5, 1.0, 1.0, 2.0]) * self.chance.random())
        self.process.kill()
        if self.chance.random() < 0.2:
            self.shards = self.chance.randint(1, self.shards_max)
        if self.chance.random() < 0.15:
            # While it recovers.
            self.start(wait=False)
            time.sleep(self.chance.random() * 0.3)
            self.process.kill()
        self.seconds_to_serve.append(self.start())

    def kill_and_read(self):
        self.kill_once()
        self.read_on()

    def read_on(self):
        for reader in self.readers.values():
            reader.read_on()

    def finish(self):
        for sender in self.senders:
            sender.stop()
        self.read_on()
        for sender in self.senders:
            check_sender(sender, self.readers[sender.plan.topic])

    def reread(self):
        for reader in self.readers.values():
            reader.check_again()


def main():
    arguments = parse()
    # Millions of records are kept, none in a cycle: to look for cycles took nearly half of a long run's time.
    gc.disable()
    seed = arguments.seed or secrets.token_hex(4)
    print(f"note seed: {seed}", flush=True)
    lines = Lines()
    crashes = Crashes(arguments, random.Random(seed))
    try:
        going = True
        for n in range(arguments.kills):
            if going:
                going = lines.case(f"kill_{n + 1}", crashes.kill_and_read)
        if going:
            lines.case("acknowledged_is_there", crashes.finish)
            lines.case("what_was_read_stays", crashes.reread)
            lines.case("clean_stop_and_start", lambda: restart_cleanly(crashes))
            lines.case("still_there_after_a_clean_stop", crashes.reread)
            report(crashes)
    finally:
        print(f"note log: {crashes.process.log}, seed {seed}", flush=True)
        if lines.failed:
            # Kept: it is the evidence.
            crashes.process.end()
            print(f"note data kept in {crashes.process.data_dir}", flush=True)
        else:
            crashes.process.remove()
    code = lines.finish()
    # Threads of producers may still be waiting for a broker that is gone.
    os._exit(code)


def restart_cleanly(crashes):
    seconds = crashes.process.stop()
    served = crashes.start()
    return f"stopped in {seconds:.2f} s, served again after {served:.2f} s"


def report(crashes):
    seconds = sorted(crashes.seconds_to_serve)
    records = sum(len(seen) for reader in crashes.readers.values() for seen in reader.seen.values())
    acknowledged = sum(len(sender.acknowledged) + len(sender.unplaced) for sender in crashes.senders)
    twice = records - sum(sender.sent for sender in crashes.senders)
    demand(records >= acknowledged, "counted more acknowledged than read")
    print(
        f"note {len(seconds)} kills, {acknowledged} records acknowledged, {records} read ({twice} of them twice, without "
        f"idempotence); served again after {seconds[0]:.2f} s at best, {statistics.median(seconds):.2f} s in the middle, "
        f"{seconds[-1]:.2f} s at worst",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
