"""confluent-kafka (librdkafka) against the cases."""

import time

import cases
import runner
from cases import Record
from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)
from runner import BrokerError, check, check_equal, topic_name

NAMED = {"earliest": OFFSET_BEGINNING, "latest": OFFSET_END}


def raise_broker_error(error):
    raise BrokerError(error.code(), f"{error.name()}: {error.str()}")


class Adapter:
    codecs = ["none", "gzip", "snappy", "lz4", "zstd"]
    features = frozenset(
        "headers null_both idempotent out_of_range validate_only create_partitions describe_configs describe_errors "
        "alter_configs incremental_alter delete_records describe_cluster zero_partitions invalid_record".split()
    )

    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.admin = AdminClient({"bootstrap.servers": bootstrap})

    def produce(self, topic, records, acks="all", codec="none", idempotent=False, linger_ms=5):
        config = {
            "bootstrap.servers": self.bootstrap,
            "acks": acks,
            "compression.type": codec,
            "enable.idempotence": idempotent,
            "linger.ms": linger_ms,
            "message.max.bytes": 10_000_000,
            "message.timeout.ms": 30_000,
        }
        producer = Producer(config)
        reports = [None] * len(records)

        def report_of(n):
            def report(error, message):
                reports[n] = (error, message.offset())

            return report

        for n, r in enumerate(records):
            extra = {"timestamp": r.timestamp} if r.timestamp is not None else {}
            producer.produce(
                topic,
                value=r.value,
                key=r.key,
                partition=r.partition,
                headers=list(r.headers) or None,
                on_delivery=report_of(n),
                **extra,
            )
            producer.poll(0)
        check_equal(producer.flush(60), 0, "messages left after the flush")
        for error, _ in reports:
            if error is not None:
                raise_broker_error(error)
        return [offset for _, offset in reports]

    def consume(self, topic, start, count, reset="none", when_idle=None, partition_fetch_bytes=None):
        config = {
            "bootstrap.servers": self.bootstrap,
            # Needed by the client, never joined: this suite assigns.
            "group.id": "assigned",
            "enable.auto.commit": False,
            "auto.offset.reset": {"none": "error"}.get(reset, reset),
        }
        if partition_fetch_bytes:
            config["max.partition.fetch.bytes"] = partition_fetch_bytes
            config["fetch.max.bytes"] = partition_fetch_bytes
            config["message.max.bytes"] = 1000
        consumer = Consumer(config)
        try:
            offsets = [TopicPartition(topic, p, NAMED.get(at, at)) for p, at in start.items()]
            consumer.assign(offsets)
            records = []
            deadline = time.monotonic() + 60
            while len(records) < count:
                check(time.monotonic() < deadline, f"read {len(records)} of {count} records in time")
                if when_idle and self._settled(consumer, offsets):
                    when_idle()
                    when_idle = None
                for message in consumer.consume(min(1000, count - len(records)), 1.0):
                    if message.error():
                        if message.error().code() == KafkaError._AUTO_OFFSET_RESET:
                            # The client's own error for the broker's answer.
                            raise BrokerError(cases.OFFSET_OUT_OF_RANGE, message.error().str())
                        raise_broker_error(message.error())
                    records.append(self._record(message))
            return records
        finally:
            consumer.close()

    def _settled(self, consumer, offsets):
        """Polls long enough that the fetch waits at the broker."""
        check_equal(consumer.consume(1, 2.0), [], "records before any are produced")
        return True

    @staticmethod
    def _record(message):
        kind, stamp = message.timestamp()
        return Record(
            message.value(),
            message.key(),
            tuple(message.headers() or ()),
            message.partition(),
            None if kind == TIMESTAMP_NOT_AVAILABLE else stamp,
            message.offset(),
        )

    def _watermarks(self, topic, partitions):
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "assigned"})
        try:
            return {p: self._watermarks_of(consumer, topic, p) for p in partitions}
        finally:
            consumer.close()

    @staticmethod
    def _watermarks_of(consumer, topic, partition):
        """This call alone does not retry while a new topic's leader is still being made known."""
        deadline = time.monotonic() + 10
        while True:
            try:
                return consumer.get_watermark_offsets(TopicPartition(topic, partition), 20)
            except KafkaException as error:
                transient = error.args[0].code() == KafkaError.NOT_LEADER_FOR_PARTITION
                if not transient or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def beginning_offsets(self, topic, partitions):
        return {p: low for p, (low, _) in self._watermarks(topic, partitions).items()}

    def end_offsets(self, topic, partitions):
        return {p: high for p, (_, high) in self._watermarks(topic, partitions).items()}

    def offsets_for_times(self, topic, times):
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "assigned"})
        try:
            found = consumer.offsets_for_times([TopicPartition(topic, p, at) for p, at in times.items()], 20)
            return {tp.partition: None if tp.offset < 0 else (tp.offset, None) for tp in found}
        finally:
            consumer.close()

    def _wait(self, futures):
        try:
            (future,) = futures.values()
            return future.result(30)
        except KafkaException as error:
            raise_broker_error(error.args[0])

    def create_topic(self, topic, partitions, config, replication=1, validate_only=False):
        new = NewTopic(topic, num_partitions=partitions, replication_factor=replication, config=config)
        self._wait(self.admin.create_topics([new], validate_only=validate_only))

    def delete_topic(self, topic):
        self._wait(self.admin.delete_topics([topic]))

    def topics(self):
        return set(self.admin.list_topics(timeout=20).topics)

    def partitions_of(self, topic):
        return set(self.admin.list_topics(topic, timeout=20).topics[topic].partitions)

    def create_partitions(self, topic, total):
        self._wait(self.admin.create_partitions([NewPartitions(topic, total)]))

    def describe_config(self, topic):
        found = self._wait(self.admin.describe_configs([ConfigResource(ResourceType.TOPIC, topic)]))
        return {name: entry.value for name, entry in found.items()}

    def alter_config(self, topic, config):
        self._wait(self.admin.alter_configs([ConfigResource(ResourceType.TOPIC, topic, set_config=config)]))

    def incremental_alter(self, topic, changes):
        set_, delete = AlterConfigOpType.SET, AlterConfigOpType.DELETE
        entries = [
            ConfigEntry(name, value, incremental_operation=delete if value is None else set_)
            for name, value in changes.items()
        ]
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
        self._wait(self.admin.incremental_alter_configs([resource]))

    def delete_records(self, topic, partition, before):
        before = OFFSET_END if before == -1 else before
        return self._wait(self.admin.delete_records([TopicPartition(topic, partition, before)])).low_watermark

    def describe_cluster(self):
        found = self.admin.describe_cluster().result(20)
        return {
            "cluster_id": found.cluster_id,
            "controller": found.controller.id,
            "nodes": {node.id for node in found.nodes},
        }


def own_cases(suite, adapter):
    def many_in_flight():
        """Pipelined idempotent batches of one record, with a partition in each."""
        topic = cases.fresh(adapter, "flight", 2)
        config = {"bootstrap.servers": adapter.bootstrap, "enable.idempotence": True, "linger.ms": 0}
        producer = Producer(config | {"batch.num.messages": 1, "max.in.flight.requests.per.connection": 5})
        for n in range(2000):
            producer.produce(topic, str(n).encode(), partition=n % 2)
        check_equal(producer.flush(60), 0, "messages left after the flush")
        for p in range(2):
            read = adapter.consume(topic, {p: 0}, 1000)
            check_equal([r.value for r in read], [str(n).encode() for n in range(p, 2000, 2)], f"partition {p}")

    def unknown_topic_in_metadata():
        topic = topic_name("unknown")
        found = adapter.admin.list_topics(timeout=20).topics
        check(topic not in found, "the topic is not there")
        consumer = Consumer({"bootstrap.servers": adapter.bootstrap, "group.id": "assigned"})
        try:
            consumer.get_watermark_offsets(TopicPartition(topic, 0), 10)
        except KafkaException as error:
            code = error.args[0].code()
            unknown = {KafkaError._UNKNOWN_PARTITION, KafkaError._UNKNOWN_TOPIC, cases.UNKNOWN_TOPIC_OR_PARTITION}
            check(code in unknown, f"error {error}")
        else:
            raise runner.CheckFailed("no error for an unknown topic")
        finally:
            consumer.close()
        check(topic not in adapter.topics(), "asking does not create it")

    def describe_topics():
        from confluent_kafka import TopicCollection

        topic = cases.fresh(adapter, "describe", 2)
        found = adapter.admin.describe_topics(TopicCollection([topic]))[topic].result(20)
        check_equal((found.name, len(found.partitions)), (topic, 2), "name and partitions")
        for partition in found.partitions:
            check_equal([n.id for n in partition.isr], [partition.leader.id], f"isr of {partition.id}")

    def list_offsets():
        from confluent_kafka.admin import OffsetSpec

        topic = cases.fresh(adapter, "list")
        now = int(time.time() * 1000)
        for stamp in (now - 3000, now, now - 1000):
            adapter.produce(topic, [Record(b"v", timestamp=stamp)])
        wants = [
            (OffsetSpec.earliest(), 0),
            (OffsetSpec.latest(), 3),
            (OffsetSpec.max_timestamp(), 1),
            (OffsetSpec.for_timestamp(now - 1000), 1),
        ]
        for spec, want in wants:
            (future,) = adapter.admin.list_offsets({TopicPartition(topic, 0): spec}).values()
            check_equal(future.result(20).offset, want, f"offset for {spec}")

    suite.add("many_in_flight", many_in_flight)
    suite.add("unknown_topic_is_not_created_by_reading", unknown_topic_in_metadata)
    suite.add("describe_topics", describe_topics)
    suite.add("list_offsets", list_offsets)


if __name__ == "__main__":
    runner.main(Adapter, own_cases)
