"""Transactions tortured: several processes copy records exactly once, while they and the broker are killed at random.

A feeder writes to a topic in transactions, of which it aborts some. Copiers, one group of librdkafka's and Java's clients,
copy that to another topic, each transaction with the group's offsets. They are killed, held up until others have their
partitions, and held up until another process has their transactional id and then let go; the broker is killed, too, now and
then while it still starts, and started with another number of shards. In the end the copy must be the source, each record
once and in order, the group's offsets must be in step, and no transaction may be left. The seed is printed first; it fixes
what is chosen, not how the processes interleave.
"""

import argparse
import os
import random
import secrets
import signal
import sys
import time

import broker
import copies
import install
import txns
from child import Child, ChildFailed
from committed import Committed, ends, read_all
from confluent_kafka import Consumer, IsolationLevel, KafkaException, Producer, TopicPartition
from feeder import Feeder
from load import create_topics
from oracle import Plan
from paths import CLIENTS, HARNESS, LOGS, VENV_PYTHON
from report_lines import Lines, demand
from transactional import TRY_SECONDS, Aborted, Fenced, patiently

GROUP = "copiers"
PARTITIONS = 6
SOURCE, TARGET, RANGES = "source", "target", "ranges"
PER_SECOND = 300
# Exit code of a copier whose producer is of no more use.
BEGIN_ANEW = 3
# Past the session of a copier, but not the timeout of its transaction; and past that.
PAST_SESSION_SECONDS, PAST_TIMEOUT_SECONDS = 4.5, 7.5
READY_SECONDS_MAX = 60
# Copied after each thing that happens, before the next.
BETWEEN = 150
PROGRESS_SECONDS_MAX = 90
LEFT_TIMEOUT_MS = 4000
# What copiers say.
READY, HOLDS = "ready\n", "holds\n"


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broker", default="millrace")
    parser.add_argument("--binary")
    parser.add_argument("--long", action="store_true", help="more copiers, and six times as many things that happen")
    parser.add_argument("--seed", default=None)
    return parser.parse_args()


class Copier:
    """A transactional id, and the process that has it."""

    def __init__(self, name, bootstrap, is_java):
        self.name = name
        self.bootstrap = bootstrap
        self.is_java = is_java
        self.starts = 0
        self.child = None

    def start(self):
        self.starts += 1
        seed = f"{self.name}-{self.starts}"
        what = [self.bootstrap, GROUP, SOURCE, TARGET, RANGES, self.name, seed]
        if self.is_java:
            classes = f"{install.JAVA_CLASSES}:{install.JAVA_LIBS}/*"
            java = ["java", "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", classes]
            command = [*java, "Copier", *what]
        else:
            command = [VENV_PYTHON, CLIENTS / "python" / "copier.py", *what]
        # A log for each start, as two may run beside each other.
        log = LOGS / f"torture-{seed}.log"
        self.child = Child(seed, command, log, {"PYTHONPATH": str(HARNESS), "PYTHONDONTWRITEBYTECODE": "1"}).start()

    def kill(self):
        self.tend()
        self.child.kill()
        self.child = None

    def tend(self):
        """Starts it anew where it has asked for that; demands that nothing else ended it but `kill`."""
        if self.child is None or self.child.alive():
            return
        code = self.child.process.returncode
        if code != BEGIN_ANEW:
            raise ChildFailed(f"{self.child.name} ended by itself with {code}: {self.child.output()[-2000:]}")
        self.start()


class Torture:
    def __init__(self, arguments, chance):
        self.chance = chance
        settings = {"group.min.session.timeout.ms": "1000"}
        if arguments.broker == "kafka":
            # Otherwise it looks for transactions that are too old every ten seconds.
            settings["transaction.abort.timed.out.transaction.cleanup.interval.ms"] = "1000"
        self.process = broker.on_a_port("torture", arguments, settings)
        self.shards_max = max(2, len(os.sched_getaffinity(0))) if arguments.broker != "kafka" else 0
        self.plain_options = list(getattr(self.process, "options", []))
        self.start_broker()
        self.bootstrap = self.process.bootstrap
        topics = [Plan(name, name, PARTITIONS, True, "none", 0) for name in (SOURCE, TARGET, RANGES)]
        # Small segments, so that rolling happens between the kills.
        create_topics(self.bootstrap, topics, {"segment.bytes": str(4 << 20)})
        kinds = [False] * 4 + [True] * 2 if arguments.long else [False] * 3 + [True]
        self.copiers = [Copier(f"copier-{n}", self.bootstrap, is_java) for n, is_java in enumerate(kinds)]
        # Processes whose transactional id another has now.
        self.zombies = []
        self.fenced = 0
        self.feeder = Feeder(self.bootstrap, SOURCE, PARTITIONS, PER_SECOND, str(chance.random()))
        self.reader = Committed(self.bootstrap, TARGET, PARTITIONS)
        self.target = {p: [] for p in range(PARTITIONS)}
        self.source = None

    def start_broker(self, wait=True):
        if self.shards_max:
            shards = self.shards_max if self.chance.random() < 0.7 else self.chance.randint(1, self.shards_max)
            self.process.options = [*self.plain_options, "--shards", shards]
        return self.process.start(wait)

    def begin(self):
        self.feeder.start()
        for copier in self.copiers:
            copier.start()
        self.progress()

    def progress(self, more=BETWEEN):
        """Until so many more records are copied: whatever happened, the rest goes on."""
        wanted = sum(map(len, self.target.values())) + more
        deadline = time.monotonic() + PROGRESS_SECONDS_MAX
        while sum(map(len, self.target.values())) < wanted:
            self.read(self.reader.more(0.2))
            self.tend()
            demand(time.monotonic() < deadline, f"fewer than {more} records are copied in {PROGRESS_SECONDS_MAX} s")

    def read(self, messages):
        """What is copied has numbers that rise, as those of the source do."""
        for message in messages:
            records = self.target[message.partition()]
            record = plain(message)
            number, last = copies.number_of(record), copies.number_of(records[-1]) if records else -1
            demand(number > last, f"{TARGET}-{message.partition()}: {number} at {record[0]} is copied after {last}")
            records.append(record)

    def tend(self):
        demand(not self.feeder.problems, f"feeder: {self.feeder.problems}")
        for copier in self.copiers:
            copier.tend()
        for zombie in [z for z in self.zombies if not z.alive()]:
            code = zombie.process.returncode
            demand(code == BEGIN_ANEW, f"{zombie.name} ended by itself with {code}: {zombie.output()[-2000:]}")
            self.zombies.remove(zombie)
            self.fenced += 1

    # What may happen ------------------------------------------------------------------------------------------------

    def kill_copier(self):
        copier = self.chance.choice(self.copiers)
        copier.kill()
        if self.chance.random() < 0.3:
            # Long enough for others to take over.
            self.progress()
        copier.start()
        self.progress()

    def pause_copier(self):
        """At any moment."""
        copier = self.chance.choice(self.copiers)
        copier.tend()
        copier.child.pause()
        time.sleep(self.chance.choice([PAST_SESSION_SECONDS, PAST_TIMEOUT_SECONDS]))
        copier.child.resume()
        self.progress()

    def outlast_copier(self):
        """Others have copied what it has in its transaction, which is still open, when it sends its offsets for that."""
        copier = self.hold()
        time.sleep(PAST_SESSION_SECONDS)
        copier.child.resume()
        self.progress()

    def hold(self):
        """A copier that has stopped itself, its records sent and their offsets not."""
        copier = self.chance.choice([copier for copier in self.copiers if not copier.is_java])
        asked, before = None, 0
        deadline = time.monotonic() + READY_SECONDS_MAX
        while asked is not copier.child or copier.child.output().count(HOLDS) == before:
            demand(time.monotonic() < deadline, f"{copier.child.name} does not hold within {READY_SECONDS_MAX} s")
            self.tend()
            self.read(self.reader.more(0.05))
            output = copier.child.output()
            if asked is not copier.child and READY in output:
                asked, before = copier.child, output.count(HOLDS)
                asked.signal(signal.SIGUSR1)
        return copier

    def replace_copier(self):
        """Another process takes over the transactional id of one that is held up, and then the first goes on."""
        copier = self.hold()
        zombie = copier.child
        self.zombies.append(zombie)
        copier.start()
        deadline = time.monotonic() + READY_SECONDS_MAX
        while READY not in copier.child.output():
            copier.tend()
            demand(time.monotonic() < deadline, f"{copier.child.name} is not ready within {READY_SECONDS_MAX} s")
            time.sleep(0.05)
        time.sleep(self.chance.random())
        zombie.resume()
        self.progress()

    def kill_broker(self):
        self.process.kill()
        if self.chance.random() < 0.3:
            # While it recovers.
            self.start_broker(wait=False)
            time.sleep(self.chance.random() * 0.3)
            self.process.kill()
        time.sleep(self.chance.choice([0, 0, 1]))
        self.start_broker()
        self.progress()

    # In the end -----------------------------------------------------------------------------------------------------

    def finish(self):
        """The feeder stops, and the copiers come to the end of the source."""
        self.feeder.stop()
        records = sum(map(len, self.feeder.kept.values()))
        left = records - sum(map(len, self.target.values()))
        if left > 0:
            self.progress(left)
        self.source = {p: list(map(plain, found)) for p, found in read_all(self.bootstrap, SOURCE, PARTITIONS).items()}
        for copier in self.copiers:
            copier.tend()
            # Java's own code where a signal ended it.
            copier.child.stop(codes=(0, 143) if copier.is_java else (0,))
        for zombie in self.zombies:
            zombie.end()
        return f"{records} records, {self.feeder.aborted} transactions aborted by the feeder, {self.fenced} zombies fenced"

    def output_is_the_input(self):
        self.read(self.reader.rest())
        copies.check_source(self.feeder.kept, self.source)
        copies.check_copy(self.source, self.target)

    def transactions_are_whole(self):
        ranges = read_all(self.bootstrap, RANGES, PARTITIONS)
        copies.check_ranges(self.source, {p: list(map(plain, found)) for p, found in ranges.items()})

    def offsets_are_in_step(self):
        consumer = Consumer(
            {"bootstrap.servers": self.bootstrap, "group.id": GROUP, "isolation.level": "read_committed", "log_level": 2}
        )
        try:
            asked = [TopicPartition(SOURCE, p) for p in range(PARTITIONS)]
            found = patiently(consumer.committed, asked, TRY_SECONDS)
        finally:
            consumer.close()
        copies.check_offsets(self.source, {tp.partition: tp.offset for tp in found if tp.offset >= 0})

    def left_open(self):
        """A transaction that its producer forgets holds readers back until its timeout, and is aborted then."""
        settings = {"transactional.id": "left", "transaction.timeout.ms": LEFT_TIMEOUT_MS, "log_level": 2}
        producer = Producer({"bootstrap.servers": self.bootstrap, **settings})
        patiently(producer.init_transactions, TRY_SECONDS)
        before = ends(self.bootstrap, TARGET, PARTITIONS)
        producer.begin_transaction()
        producer.produce(TARGET, b"left", b"left", 0)
        demand(producer.flush(20) == 0, "the record is sent")
        high = ends(self.bootstrap, TARGET, PARTITIONS, IsolationLevel.READ_UNCOMMITTED)
        demand(high[0] > before[0], f"the record is there: {high[0]} after {before[0]}")
        stable = ends(self.bootstrap, TARGET, PARTITIONS)
        state = txns.described(self.bootstrap, ["left"])["left"].state
        # By now it may have been aborted already, on a machine that is slow enough.
        demand(stable == before or state != "Ongoing", f"its readers are at {stable} of {before} while it is {state}")
        found = txns.wait_until_over(self.bootstrap, ["left"])
        demand(found["left"].state == "CompleteAbort", f"is {found['left'].state}")
        try:
            patiently(producer.commit_transaction, TRY_SECONDS)
        except (Aborted, Fenced, KafkaException):
            return
        raise AssertionError("a transaction that was aborted for its age is committed")

    def nothing_is_left(self):
        names = [copier.name for copier in self.copiers] + [self.feeder.name]
        txns.wait_until_over(self.bootstrap, names)
        for topic in (SOURCE, TARGET, RANGES):
            txns.demand_all_stable(self.bootstrap, topic, PARTITIONS)

    def same_after_a_stop(self):
        self.process.stop()
        self.start_broker()
        again = read_all(self.bootstrap, TARGET, PARTITIONS)
        for partition, records in self.target.items():
            copies.differ_nowhere(f"target partition {partition}", list(map(plain, again[partition])), records)
        self.nothing_is_left()
        self.transactions_are_whole()
        self.offsets_are_in_step()
        self.process.stop()

    def remove(self, keep):
        self.feeder.stopping.set()
        for child in [*self.zombies, *[copier.child for copier in self.copiers if copier.child]]:
            child.end()
        if keep:
            # It is the evidence.
            self.process.end()
            print(f"note data kept in {self.process.data_dir}", flush=True)
        else:
            self.process.remove()


def plain(message):
    return message.offset(), message.key(), message.value()


def plan(chance, is_long):
    """The names of what happens, in order: each kind of it, and mostly kills."""
    kills = ["kill_copier", "kill_copier", "kill_broker", "kill_broker"]
    one = [*kills, "pause_copier", "outlast_copier", "replace_copier"]
    return [name for _ in range(6 if is_long else 1) for name in chance.sample(one, len(one))]


def main():
    arguments = parse()
    install.java()
    seed = arguments.seed or secrets.token_hex(4)
    print(f"note seed: {seed}", flush=True)
    chance = random.Random(seed)
    lines = Lines()
    torture = Torture(arguments, chance)
    try:
        going = lines.case("copies", torture.begin)
        for n, name in enumerate(plan(chance, arguments.long)):
            going = going and lines.case(f"{name}_{n + 1}", getattr(torture, name))
        if going and lines.case("everything_is_copied", torture.finish):
            lines.case("output_is_the_input_once_and_in_order", torture.output_is_the_input)
            lines.case("transactions_are_whole", torture.transactions_are_whole)
            lines.case("offsets_are_in_step", torture.offsets_are_in_step)
            lines.case("no_transaction_is_left", torture.nothing_is_left)
            lines.case("a_forgotten_transaction_is_aborted", torture.left_open)
            lines.case("the_same_after_a_clean_stop", torture.same_after_a_stop)
    finally:
        print(f"note log: {torture.process.log}, seed {seed}", flush=True)
        torture.remove(keep=lines.failed > 0)
    code = lines.finish()
    # Threads of clients may still be waiting for a broker that is gone.
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
