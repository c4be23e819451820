"""Kafka Streams on a real broker: words counted exactly once, whatever is killed.

Lines of words are sent all the time. The application (`WordCount.java`, exactly_once_v2, a state store in RocksDB) splits
them, sends the words through a topic of its own to those who count them, and sends each new count out. It is killed, the
broker is killed, both are, always while counts come. Each word's counts as a reader of committed records gets them must be
1, 2, 3 and so on, up to how often it was sent. The seed, printed first, fixes what is chosen, not how processes interleave.
"""

import argparse
import os
import random
import secrets
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import broker
import install
import txns
from child import Child
from committed import Committed, ends, read_all
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType
from load import Sender, create_topics
from oracle import Plan
from paths import LOGS
from report_lines import Lines, demand

NAME, STORE = "wordcount", "words-seen"
WORDS = [f"word{n}" for n in range(60)]
PARTITIONS = 3
LINES = Plan("lines", "lines", PARTITIONS, True, "lz4", 150)
COUNTS = Plan("counts", "counts", PARTITIONS, True, "none", 0)
# Counts seen after one kill and before the next: the application is at work again.
BETWEEN_KILLS = 400
# A start of Java, the session of one that was killed, and what it left to be aborted and restored.
SECONDS_MAX = 120
SETTINGS = {
    "application.id": NAME,
    "processing.guarantee": "exactly_once_v2",
    "num.stream.threads": "2",
    "commit.interval.ms": "100",
    # Each word is a record of its own, none stands for several.
    "statestore.cache.max.bytes": "0",
    # Records of the topic between are deleted soon after they were counted.
    "repartition.purge.interval.ms": "1000",
    "auto.offset.reset": "earliest",
    "session.timeout.ms": "3000",
    "heartbeat.interval.ms": "500",
    "transaction.timeout.ms": "8000",
    "reconnect.backoff.max.ms": "200",
}


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broker", default="millrace")
    parser.add_argument("--binary")
    parser.add_argument("--long", action="store_true", help="two processes of the application, and many more kills")
    parser.add_argument("--seed", default=None)
    return parser.parse_args()


class WordSender(Sender):
    """Sends lines of words; the words follow from the number of the line."""

    def value(self, number):
        return " ".join(words_of(number)).encode()


def words_of(number):
    chance = random.Random(number)
    return [WORDS[min(chance.randrange(60), chance.randrange(60))] for _ in range(chance.randint(1, 9))]


class Application:
    """One process of it, with a folder for its state."""

    def __init__(self, number, bootstrap, folder):
        settings = {**SETTINGS, "bootstrap.servers": bootstrap, "state.dir": folder / f"state-{number}"}
        java = ["java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"]
        classes = f"{install.STREAMS_CLASSES}:{install.STREAMS_LIBS}/*"
        what = ["WordCount", LINES.topic, COUNTS.topic, STORE]
        command = [*java, classes, *what, *[f"{name}={value}" for name, value in settings.items()]]
        self.child = Child(f"{NAME}-{number}", command, LOGS / f"streams-{number}.log")
        self.folder = settings["state.dir"]


class Counting:
    def __init__(self, arguments, chance):
        self.chance = chance
        self.process = broker.on_a_port("streams", arguments, {"group.min.session.timeout.ms": "1000"})
        self.process.start()
        self.bootstrap = self.process.bootstrap
        self.folder = Path(tempfile.mkdtemp(prefix="streams-"))
        create_topics(self.bootstrap, [LINES, COUNTS])
        count = 2 if arguments.long else 1
        self.applications = [Application(n, self.bootstrap, self.folder) for n in range(count)]
        self.counts = Committed(self.bootstrap, COUNTS.topic, PARTITIONS)
        self.seen = Counter()
        self.where = {}
        self.sender = WordSender(LINES, self.bootstrap)

    def start(self):
        self.sender.start()
        for application in self.applications:
            application.child.start()
        self.read(BETWEEN_KILLS)

    def read(self, more):
        """Reads until so many more counts came, each one above the last of its word."""
        wanted = self.seen.total() + more
        deadline = time.monotonic() + SECONDS_MAX
        while self.seen.total() < wanted:
            for message in self.counts.more(0.2):
                self.take(message)
            for application in self.applications:
                application.child.demand_alive()
            demand(time.monotonic() < deadline, f"{self.seen.total()} of {wanted} counts after {SECONDS_MAX} s")

    def take(self, message):
        word, count = message.key().decode(), int.from_bytes(message.value(), "big")
        self.seen[word] += 1
        place = f"{COUNTS.topic}-{message.partition()} at {message.offset()}"
        demand(count == self.seen[word], f"{word} is counted {count} in {place}, its {self.seen[word]}th count")
        demand(self.where.setdefault(word, message.partition()) == message.partition(), f"{word} is also in {place}")

    # What may happen ------------------------------------------------------------------------------------------------

    def kill_application(self):
        application = self.chance.choice(self.applications)
        application.child.kill()
        self.chance_to_wait()
        application.child.start()
        self.read(BETWEEN_KILLS)

    def lose_state(self):
        """Killed, and the folder of its state is gone: all comes back from the topic of changes."""
        application = self.chance.choice(self.applications)
        application.child.kill()
        shutil.rmtree(application.folder)
        application.child.start()
        self.read(BETWEEN_KILLS)

    def kill_broker(self):
        self.process.kill()
        self.chance_to_wait()
        self.process.start()
        self.read(BETWEEN_KILLS)

    def kill_both(self):
        application = self.chance.choice(self.applications)
        first, second = self.chance.sample([self.process, application.child], 2)
        first.kill()
        self.chance_to_wait()
        second.kill()
        application.child.start()
        self.process.start()
        self.read(BETWEEN_KILLS)

    def restart_application(self):
        application = self.chance.choice(self.applications)
        # The code of Java where a signal ended it.
        application.child.stop(codes=(143,))
        application.child.start()
        self.read(BETWEEN_KILLS)

    def restart_broker(self):
        self.process.stop()
        self.chance_to_wait()
        self.process.start()
        self.read(BETWEEN_KILLS)

    def chance_to_wait(self):
        time.sleep(self.chance.choice([0, 0, 0.5, 2]))

    # In the end -----------------------------------------------------------------------------------------------------

    def finish(self):
        """Everything that was sent is counted, and nothing besides."""
        self.sender.stop()
        demand(not self.sender.problems, f"sent: {self.sender.problems[:3]}")
        wanted = Counter(word for number in range(self.sender.sent) for word in words_of(number))
        self.read(wanted.total() - self.seen.total())
        for application in self.applications:
            application.child.stop(codes=(143,))
        for message in self.counts.rest():
            self.take(message)
        demand(self.seen == wanted, f"counted too often: {self.seen - wanted}, too rarely: {wanted - self.seen}")
        return f"{self.sender.sent} lines, {wanted.total()} words"

    def check_changes(self):
        """The topic of the store's changes is a compacted one, and has the last count of each word."""
        topic = f"{NAME}-{STORE}-changelog"
        demand(self.setting(topic, "cleanup.policy") == "compact", f"{topic} is compacted")
        last = {}
        for messages in read_all(self.bootstrap, topic, PARTITIONS).values():
            # Behind a timestamp of eight bytes or none, by the kind of store.
            last.update({m.key().decode(): int.from_bytes(m.value()[-8:], "big") for m in messages})
        demand(last == dict(self.seen), f"{topic} has other counts: {last}")

    def check_purged(self):
        """Words that were counted are deleted from the topic between, up to where its group has committed."""
        topic = f"{NAME}-words-repartition"
        begins = 0
        for partition in range(PARTITIONS):
            low, _ = self.counts.consumer.get_watermark_offsets(TopicPartition(topic, partition), 20)
            begins += low
        demand(begins > 0, f"{topic} begins at 0 everywhere")
        return f"{begins} of {sum(ends(self.bootstrap, topic, PARTITIONS).values())} records deleted"

    def check_transactions(self):
        found = txns.listed(self.bootstrap)
        demand(found, "transactions are listed")
        txns.wait_until_over(self.bootstrap, sorted(found))
        for topic in (COUNTS.topic, f"{NAME}-{STORE}-changelog", f"{NAME}-words-repartition"):
            txns.demand_all_stable(self.bootstrap, topic, PARTITIONS)

    def setting(self, topic, name):
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        (config,) = admin.describe_configs([ConfigResource(ResourceType.TOPIC, topic)]).values()
        return config.result(20)[name].value

    def remove(self, keep):
        self.sender.stopping.set()
        for application in self.applications:
            application.child.end()
        if keep:
            # It is the evidence.
            self.process.end()
            print(f"note data kept in {self.process.data_dir} and {self.folder}", flush=True)
        else:
            self.process.remove()
            shutil.rmtree(self.folder, ignore_errors=True)


def plan(chance, is_long):
    """The names of what happens, in order."""
    if not is_long:
        return ["kill_application", "kill_broker"]
    every = ["kill_application", "lose_state", "kill_broker", "kill_both", "restart_application", "restart_broker"]
    return [name for _ in range(5) for name in chance.sample(every, len(every))]


def main():
    arguments = parse()
    install.streams()
    seed = arguments.seed or secrets.token_hex(4)
    print(f"note seed: {seed}", flush=True)
    chance = random.Random(seed)
    lines = Lines()
    counting = Counting(arguments, chance)
    try:
        going = lines.case("counts_words", counting.start)
        for n, name in enumerate(plan(chance, arguments.long)):
            going = going and lines.case(f"{name}_{n + 1}", getattr(counting, name))
        if going and lines.case("every_word_once", counting.finish):
            lines.case("changes_are_compacted", counting.check_changes)
            lines.case("counted_words_are_deleted", counting.check_purged)
            lines.case("no_transaction_is_left", counting.check_transactions)
            lines.case("broker_stops", lambda: counting.process.stop() and None)
    finally:
        print(f"note log: {counting.process.log}, seed {seed}", flush=True)
        counting.remove(keep=lines.failed > 0)
    code = lines.finish()
    # Threads of clients may still be waiting for a broker that is gone.
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
