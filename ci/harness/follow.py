"""Following what producers do while retention deletes behind them: every acknowledged record is met where it was promised.

It keeps only what is not matched yet, so that it may run for hours. It judges records; the broker process it does not know.
"""

import threading
import time

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from load import PATIENT, READER_SETTINGS
from oracle import parse

PROBLEMS_MAX = 50


class Matches:
    """Joins what producers were told with what a consumer sees, record by record.

    A producer's `acknowledged`: it takes (partition, offset) to number. Both sides may come first.
    """

    def __init__(self):
        self.lock = threading.Lock()
        self.told = {}
        self.seen = {}
        self.matched = 0
        self.problems = []

    def problem(self, text):
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(text)

    def tell(self, where, who):
        """A producer was told that its record `who` is at `where`."""
        self._join(where, who, self.told, self.seen)

    def see(self, where, who):
        """A consumer found `who` at `where`."""
        self._join(where, who, self.seen, self.told)

    def _join(self, where, who, mine, others):
        with self.lock:
            if where in mine:
                self.problem(f"{where} is there for {mine[where]} and for {who}")
            other = others.pop(where, None)
            if other is None:
                mine[where] = who
                return
            self.matched += 1
            if other != who:
                self.problem(f"at {where} was {who} on one side and {other} on the other")

    def unmatched(self):
        """Acknowledged and never seen; a record may be seen that nobody was told of, but not the other way round."""
        with self.lock:
            return dict(self.told)


class Acknowledged:
    """What one sender writes into as if it were a dict."""

    def __init__(self, matches, name):
        self.matches = matches
        self.name = name
        self.count = 0

    def __contains__(self, _where):
        # `Matches` notices a place that is told of twice.
        return False

    def __setitem__(self, where, number):
        self.count += 1
        self.matches.tell(where, (self.name, number))

    def __len__(self):
        return self.count


class Order:
    """That the records of each producer come in their order in each partition: offsets dense, numbers ascending."""

    def __init__(self, topic, plans):
        self.topic = topic
        self.plans = {plan.name: plan for plan in plans}
        self.next_offset = {}
        self.last = {}
        self.twice = 0
        self.problems = []

    def see(self, partition, offset, who):
        expected = self.next_offset.get(partition, 0)
        if offset != expected:
            self._problem(f"{self.topic}-{partition}: offset {offset} follows {expected - 1}")
        self.next_offset[partition] = offset + 1
        name, number = who
        plan = self.plans[name]
        last = self.last.get((partition, name), partition - plan.partitions)
        if number == last + plan.partitions:
            self.last[partition, name] = number
        elif number <= last and not plan.idempotent:
            # Sent again by a client that had not heard of its first attempt.
            self.twice += 1
        else:
            self._problem(f"{self.topic}-{partition} at {offset}: {name}:{number} follows {name}:{last}")

    def _problem(self, text):
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(text)


class Tail:
    """A consumer in a thread that reads a topic from its beginning and stays at its end."""

    def __init__(self, bootstrap, topic, plans, matches=None):
        self.bootstrap = bootstrap
        self.topic = topic
        self.partitions = plans[0].partitions
        self.order = Order(topic, plans)
        self.matches = matches
        self.count = 0
        self.problems = self.order.problems
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def start(self):
        self.thread.start()
        return self

    def stop(self):
        self.stopping.set()
        self.thread.join(30)

    def wait_until(self, ends, seconds_max):
        """Waits until it has read up to these offsets, by partition; whether it did."""
        deadline = time.monotonic() + seconds_max
        while any(self.order.next_offset.get(p, 0) < end for p, end in ends.items()):
            if time.monotonic() > deadline or not self.thread.is_alive():
                return False
            time.sleep(0.05)
        return True

    def _run(self):
        config = {
            "bootstrap.servers": self.bootstrap,
            "group.id": "assigned",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "check.crcs": True,
            **{name: PATIENT[name] for name in READER_SETTINGS},
        }
        consumer = Consumer(config)
        try:
            consumer.assign([TopicPartition(self.topic, p, 0) for p in range(self.partitions)])
            while not self.stopping.is_set():
                for message in consumer.consume(2000, 0.2):
                    self._take(message)
        except (KafkaException, AssertionError) as error:
            self.problems.append(f"{self.topic}: {type(error).__name__}: {error}")
        finally:
            consumer.close()

    def _take(self, message):
        error = message.error()
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF or error.retriable():
                return
            raise KafkaException(error)
        who = parse(message.value())
        self.order.see(message.partition(), message.offset(), who)
        if self.matches is not None:
            self.matches.see((message.partition(), message.offset()), who)
        self.count += 1
