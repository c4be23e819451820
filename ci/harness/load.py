"""Producers that keep sending and remember what was acknowledged, and the reading back of what they sent.

It knows no broker process and judges nothing (`oracle.py` does); it runs on confluent-kafka in threads.
"""

import threading
import time
from dataclasses import dataclass, field

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from oracle import Plan, parse, value_of
from report_lines import demand

ANSWER_SECONDS_MAX = 30
# Without a record, while there are some to read.
READ_SECONDS_MAX = 120
# Reconnect and send again quickly: the tests restart the broker all the time.
PATIENT = {
    "message.timeout.ms": 300_000,
    "retry.backoff.ms": 50,
    "reconnect.backoff.ms": 20,
    "reconnect.backoff.max.ms": 200,
    "socket.timeout.ms": 10_000,
    "topic.metadata.refresh.interval.ms": 2000,
    # Lost connections are what these tests are about; the client reports each otherwise.
    "log_level": 2,
}
# What a broker answers, or a client makes of no answer, shortly after a start.
TRANSIENT = {
    KafkaError._TRANSPORT,
    KafkaError._TIMED_OUT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
}
READER_SETTINGS = ("reconnect.backoff.ms", "reconnect.backoff.max.ms", "log_level")


@dataclass
class Sender:
    """One producer in a thread of its own. Acknowledged: (partition, offset) to number.

    A duplicate that the broker knew may be acknowledged without an offset: `unplaced` has the numbers of those.
    """

    plan: Plan
    bootstrap: str
    acknowledged: dict = field(default_factory=dict)
    unplaced: list = field(default_factory=list)
    sent: int = 0
    problems: list = field(default_factory=list)
    # The client's own, over those below.
    settings: dict = field(default_factory=dict)

    def __post_init__(self):
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def start(self):
        self.thread.start()
        return self

    def stop(self, seconds_max=120):
        """Stops sending and waits until everything sent is acknowledged."""
        self.stopping.set()
        self.thread.join(seconds_max)
        if self.thread.is_alive():
            self.problems.append("records were still not acknowledged at the end")

    def _run(self):
        plan = self.plan
        config = {
            "bootstrap.servers": self.bootstrap,
            "acks": "all",
            "enable.idempotence": plan.idempotent,
            "compression.type": plan.codec,
            "linger.ms": 2,
            "queue.buffering.max.messages": 20_000,
            # Without idempotence only one request in flight keeps the order when it is sent again.
            "max.in.flight.requests.per.connection": 5 if plan.idempotent else 1,
            "error_cb": self._on_error,
            **PATIENT,
            **self.settings,
        }
        producer = Producer(config)
        started = time.monotonic()
        while not self.stopping.is_set():
            due = int((time.monotonic() - started) * plan.per_second)
            while self.sent < due and not self.stopping.is_set():
                if not self._send(producer, self.sent):
                    break
                self.sent += 1
            producer.poll(0.005)
        while producer.flush(1) > 0 and self.thread.is_alive():
            pass

    def _send(self, producer, number):
        plan = self.plan

        def delivered(error, message):
            if error is not None:
                self.problems.append(f"{plan.name}:{number} was given up: {error}")
                return
            if message.offset() is None or message.offset() < 0:
                self.unplaced.append(number)
                return
            where = (message.partition(), message.offset())
            if where in self.acknowledged:
                self.problems.append(f"{where} was acknowledged for {self.acknowledged[where]} and for {number}")
            self.acknowledged[where] = number

        try:
            producer.produce(plan.topic, self.value(number), partition=number % plan.partitions, on_delivery=delivered)
            return True
        except BufferError:
            return False

    def value(self, number):
        return value_of(self.plan.name, number)

    def _on_error(self, error):
        if error.fatal():
            self.problems.append(f"fatal: {error}")


def create_topics(bootstrap, plans, config=None):
    admin = AdminClient({"bootstrap.servers": bootstrap})
    wanted = [NewTopic(p.topic, p.partitions, 1, config=config or {}) for p in plans]
    for future in admin.create_topics(wanted).values():
        future.result(ANSWER_SECONDS_MAX)


class Reader:
    """Reads each partition of a topic on from where it stopped, and keeps who is at each offset.

    What it has seen once must stay: it keeps (name, number) per offset, and `check_again` compares a second reading.
    """

    def __init__(self, bootstrap, topic, partitions):
        self.bootstrap = bootstrap
        self.topic = topic
        self.seen = {p: [] for p in range(partitions)}

    def read_on(self):
        """Reads to the end as it is now; returns how many records were new."""
        new = 0
        for partition, seen in self.seen.items():
            for offset, who in self._read(partition, len(seen)):
                demand(offset == len(seen), f"{self.topic}-{partition}: offset {offset} follows {len(seen) - 1}")
                seen.append(who)
                new += 1
        return new

    def check_again(self):
        for partition, seen in self.seen.items():
            again = [who for _, who in self._read(partition, 0)]
            demand(again[: len(seen)] == seen, f"{self.topic}-{partition} reads differently the second time")

    def _read(self, partition, start):
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
            end = self._end(consumer, partition)
            consumer.assign([TopicPartition(self.topic, partition, start)])
            found = []
            before, deadline = -1, 0.0
            while start + len(found) < end:
                if len(found) > before:
                    # However much there is: as long as more of it comes, it may take.
                    before, deadline = len(found), time.monotonic() + READ_SECONDS_MAX
                demand(
                    time.monotonic() < deadline,
                    f"{self.topic}-{partition}: nothing comes behind {start + len(found)} of {end} records",
                )
                for message in consumer.consume(min(5000, end - start - len(found)), 1.0):
                    if message.error():
                        raise KafkaException(message.error())
                    found.append((message.offset(), parse(message.value())))
            return found
        finally:
            consumer.close()

    def _end(self, consumer, partition):
        deadline = time.monotonic() + ANSWER_SECONDS_MAX
        while True:
            try:
                low, high = consumer.get_watermark_offsets(TopicPartition(self.topic, partition), 5)
                demand(low == 0, f"{self.topic}-{partition} begins at {low}")
                return high
            except KafkaException as error:
                if error.args[0].code() not in TRANSIENT or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
