"""The load of a long run that is not made of senders and followers: bulk writes, a cold reader, topics and settings that change.

Each is a thread that goes on until it is stopped and keeps its problems. None knows the broker process.
"""

import os
import threading
import time

import wire
from confluent_kafka import KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)
from load import ANSWER_SECONDS_MAX
from report_lines import demand

BULK = "bulk"
BULK_PARTITIONS = 4
BULK_BATCH_BYTES = 500_000
OFFSET_OUT_OF_RANGE = "error 1"


class Worker:
    """Calls `once` again and again, `pause` seconds apart."""

    def __init__(self, name, pause):
        self.name = name
        self.pause = pause
        self.rounds = 0
        self.problems = []
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def start(self):
        self.thread.start()
        return self

    def stop(self):
        self.stopping.set()
        self.thread.join(60)
        if self.thread.is_alive():
            self.problems.append(f"{self.name}: does not end")

    def once(self):
        raise NotImplementedError

    def _run(self):
        while not self.stopping.wait(self.pause):
            try:
                self.once()
                self.rounds += 1
            except (KafkaException, OSError, AssertionError, wire.Refused) as error:
                self.problems.append(f"{self.name}, round {self.rounds}: {type(error).__name__}: {error}")
                if len(self.problems) > 20:
                    return


class Bulk(Worker):
    """Large batches, one behind the other, whose offsets must be dense."""

    def __init__(self, bootstrap, bytes_per_second, settings):
        super().__init__("bulk", BULK_BATCH_BYTES / bytes_per_second)
        self.client = wire.Client(bootstrap)
        self.client.create_topic(BULK, BULK_PARTITIONS, settings)
        self.batch = wire.batch(wire.record(0, os.urandom(BULK_BATCH_BYTES)))

    def once(self):
        partition, expected = self.rounds % BULK_PARTITIONS, self.rounds // BULK_PARTITIONS
        offset = self.client.produce(BULK, partition, self.batch)
        demand(offset == expected, f"{BULK}-{partition}: acknowledged at {offset}, not {expected}")


class ColdReader(Worker):
    """Reads the bulk from the oldest that is kept to its end, then begins again: from disk, as the caches are small."""

    def __init__(self, bootstrap, bulk):
        super().__init__("cold reader", 0.05)
        self.client = wire.Client(bootstrap)
        self.admin = AdminClient({"bootstrap.servers": bootstrap})
        self.bulk = bulk
        self.overtaken = 0
        self.bytes = 0

    def once(self):
        for partition in range(BULK_PARTITIONS):
            at, end = (self._offset(partition, spec) for spec in (OffsetSpec.earliest(), OffsetSpec.latest()))
            while at < end and not self.stopping.is_set():
                try:
                    records = self.client.fetch(BULK, partition, at, 4 << 20)
                except wire.Refused as refused:
                    # Retention came by: that is what it is there for.
                    demand(str(refused).endswith(OFFSET_OUT_OF_RANGE), str(refused))
                    self.overtaken += 1
                    at = max(at + 1, self._offset(partition, OffsetSpec.earliest()))
                    continue
                at = self._check(records, partition, at)

    def _check(self, records, partition, at):
        sent = self.bulk.batch
        demand(len(records) >= len(sent), f"{BULK}-{partition} at {at}: {len(records)} bytes")
        for start in range(0, len(records) - len(sent) + 1, len(sent)):
            one = records[start : start + len(sent)]
            offset = int.from_bytes(one[:8], "big")
            demand(offset == at, f"{BULK}-{partition}: offset {offset} where {at} was asked for")
            demand(wire.same_batch(one, sent), f"{BULK}-{partition} at {at}: other bytes than were sent")
            at += 1
            self.bytes += len(sent)
        return at

    def _offset(self, partition, spec):
        where = TopicPartition(BULK, partition)
        return self.admin.list_offsets({where: spec})[where].result(ANSWER_SECONDS_MAX).offset


class Administrator(Worker):
    """Topics that come, are filled, change, and go; settings that are changed and read back; all with clients of their own."""

    # Topics there are at a time.
    KEPT = 3

    def __init__(self, bootstrap, topic, settings):
        """Changes `topic`; those that pass have `settings`."""
        super().__init__("administrator", 1.5)
        self.settings = settings
        self.bootstrap = bootstrap
        self.topic = topic
        self.topics = []

    def once(self):
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        self._create(admin)
        self._alter(admin)
        found = admin.list_topics(timeout=ANSWER_SECONDS_MAX)
        demand(set(self.topics) <= set(found.topics), f"{self.topics} are listed")
        done(admin.describe_cluster())
        if len(self.topics) > self.KEPT:
            done(*admin.delete_topics([self.topics.pop(0)]).values())

    def _create(self, admin):
        name = f"passing-{self.rounds}"
        done(*admin.create_topics([NewTopic(name, 3, 1, config=self.settings)]).values())
        self.topics.append(name)
        done(*admin.create_partitions([NewPartitions(name, 4)]).values())
        failures = []
        producer = Producer({"bootstrap.servers": self.bootstrap, "enable.idempotence": True})
        for n in range(400):
            producer.produce(name, bytes(1000), partition=n % 4, on_delivery=lambda e, _: e and failures.append(e))
        demand(producer.flush(ANSWER_SECONDS_MAX) == 0 and not failures, f"{name} takes records: {failures[:2]}")
        ends = admin.list_offsets({TopicPartition(name, p): OffsetSpec.latest() for p in range(4)})
        demand([f.result(ANSWER_SECONDS_MAX).offset for f in ends.values()] == [100] * 4, f"{name} has its records")
        done(*admin.delete_records([TopicPartition(name, 0, 50)]).values())

    def _alter(self, admin):
        wanted = str(60_000 + self.rounds)
        entry = ConfigEntry("flush.ms", wanted, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, self.topic, incremental_configs=[entry])
        done(*admin.incremental_alter_configs([resource]).values())
        (described,) = admin.describe_configs([ConfigResource(ResourceType.TOPIC, self.topic)]).values()
        shown = described.result(ANSWER_SECONDS_MAX)["flush.ms"].value
        demand(shown == wanted, f"flush.ms of {self.topic} is {shown}, not {wanted}")


def done(*futures):
    for future in futures:
        future.result(ANSWER_SECONDS_MAX)
