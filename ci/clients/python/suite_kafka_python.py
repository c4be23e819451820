"""kafka-python against the cases."""

import re
import time

import cases
import runner
from cases import Record
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import KafkaError, OffsetOutOfRangeError
from runner import BrokerError, check, check_equal

WIDE = 10_000_000


def as_broker_error(error):
    code = getattr(error, "errno", None)
    if code is None:
        raise error
    raise BrokerError(code, str(error)) from error


def translated(method):
    def call(*args, **kwargs):
        try:
            return method(*args, **kwargs)
        except KafkaError as error:
            as_broker_error(error)

    return call


class Adapter:
    codecs = ["none", "gzip", "snappy", "lz4", "zstd"]
    features = frozenset(
        "headers idempotent out_of_range validate_only create_partitions describe_configs alter_configs "
        "incremental_alter delete_records describe_cluster log_dirs time_of_offset zero_partitions invalid_record".split()
    )

    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.admin = KafkaAdminClient(bootstrap_servers=bootstrap)

    @translated
    def produce(self, topic, records, acks="all", codec="none", idempotent=False, linger_ms=5):
        producer = KafkaProducer(
            bootstrap_servers=self.bootstrap,
            acks=acks,
            compression_type=None if codec == "none" else codec,
            enable_idempotence=idempotent,
            linger_ms=linger_ms,
            max_request_size=WIDE,
            batch_size=64 * 1024,
        )
        try:
            sent = [
                producer.send(topic, r.value, r.key, list(r.headers), r.partition, r.timestamp) for r in records
            ]
            producer.flush(60)
            return [future.get(30).offset for future in sent]
        finally:
            producer.close(timeout=10)

    def _consumer(self, **settings):
        return KafkaConsumer(
            bootstrap_servers=self.bootstrap, group_id=None, enable_auto_commit=False, **settings
        )

    @translated
    def consume(self, topic, start, count, reset="none", when_idle=None, partition_fetch_bytes=None):
        settings = {"auto_offset_reset": reset}
        if partition_fetch_bytes:
            settings["max_partition_fetch_bytes"] = partition_fetch_bytes
        consumer = self._consumer(**settings)
        try:
            consumer.assign([TopicPartition(topic, p) for p in start])
            for p, at in start.items():
                if at == "earliest":
                    consumer.seek_to_beginning(TopicPartition(topic, p))
                elif at == "latest":
                    consumer.seek_to_end(TopicPartition(topic, p))
                else:
                    consumer.seek(TopicPartition(topic, p), at)
            records = []
            deadline = time.monotonic() + 60
            while len(records) < count:
                check(time.monotonic() < deadline, f"read {len(records)} of {count} records in time")
                if when_idle:
                    check_equal(consumer.poll(2000), {}, "records before any are produced")
                    when_idle()
                    when_idle = None
                for messages in consumer.poll(1000).values():
                    records += map(self._record, messages)
            return records
        except OffsetOutOfRangeError as error:
            raise BrokerError(cases.OFFSET_OUT_OF_RANGE, str(error)) from error
        finally:
            consumer.close(autocommit=False)

    @staticmethod
    def _record(m):
        return Record(m.value, m.key, tuple(m.headers), m.partition, m.timestamp, m.offset)

    def _ask(self, question):
        consumer = self._consumer()
        try:
            return question(consumer)
        finally:
            consumer.close(autocommit=False)

    def beginning_offsets(self, topic, partitions):
        asked = [TopicPartition(topic, p) for p in partitions]
        return {tp.partition: at for tp, at in self._ask(lambda c: c.beginning_offsets(asked)).items()}

    def end_offsets(self, topic, partitions):
        asked = [TopicPartition(topic, p) for p in partitions]
        return {tp.partition: at for tp, at in self._ask(lambda c: c.end_offsets(asked)).items()}

    def offsets_for_times(self, topic, times):
        asked = {TopicPartition(topic, p): at for p, at in times.items()}
        found = self._ask(lambda c: c.offsets_for_times(asked))
        return {tp.partition: at and (at.offset, at.timestamp) for tp, at in found.items()}

    @translated
    def create_topic(self, topic, partitions, config, replication=1, validate_only=False):
        new = {topic: {"num_partitions": partitions, "replication_factor": replication, "configs": config}}
        self.admin.create_topics(new, validate_only=validate_only)

    @translated
    def delete_topic(self, topic):
        self.admin.delete_topics([topic])

    def topics(self):
        return set(self.admin.list_topics())

    def partitions_of(self, topic):
        (found,) = self.admin.describe_topics([topic])
        return {p["partition_index"] for p in found["partitions"]}

    @translated
    def create_partitions(self, topic, total):
        self.admin.create_partitions({topic: total})

    def describe_config(self, topic):
        resource = ConfigResource(ConfigResourceType.TOPIC, topic)
        found = self.admin.describe_configs([resource], config_filter="all")
        return {name: entry["value"] for name, entry in found["topic"][topic].items()}

    def _alter(self, topic, changes, incremental):
        resource = ConfigResource(ConfigResourceType.TOPIC, topic, changes)
        if incremental:
            found = self.admin.alter_configs([resource], raise_on_unknown=False, incremental=True)
        else:
            # The client's call fills in what was set before; its plain request is what is tested here.
            found = self.admin._manager.run(self.admin._send_alter_configs_requests, [resource], False, False)
        result = found["topic"][topic]
        if result != "OK":
            code = re.match(r"\[Error (\d+)\]", result)
            check(code, f"a result of the form '[Error N] ...': {result}")
            raise BrokerError(int(code[1]), result)

    def alter_config(self, topic, config):
        self._alter(topic, config, incremental=False)

    def incremental_alter(self, topic, changes):
        ops = {name: ("DELETE", None) if value is None else ("SET", value) for name, value in changes.items()}
        self._alter(topic, ops, incremental=True)

    @translated
    def delete_records(self, topic, partition, before):
        tp = TopicPartition(topic, partition)
        return self.admin.delete_records({tp: before})[tp]["low_watermark"]

    def describe_cluster(self):
        found = self.admin.describe_cluster()
        return {
            "cluster_id": found["cluster_id"],
            "controller": found["controller_id"],
            "nodes": {node["broker_id"] for node in found["brokers"]},
        }

    def log_dirs(self, topic):
        folders = [d for broker in self.admin.describe_log_dirs([topic]) for d in broker["log_dirs"]]
        found = [p for folder in folders for only in folder["topics"] for p in only["partitions"]]
        check_equal(len({p["partition_index"] for p in found}), len(found), "partitions, each on one broker")
        return {p["partition_index"]: p["partition_size"] for p in found}


def own_cases(suite, adapter):
    def defaults():
        """A producer and a consumer with the client's own defaults; the group is left out."""
        topic = cases.fresh(adapter, "defaults")
        producer = KafkaProducer(
            bootstrap_servers=[adapter.bootstrap], key_serializer=str.encode, value_serializer=str.encode
        )
        for n in range(10):
            producer.send(topic, key=f"key{n}", value=f"value{n}")
        producer.flush()
        producer.close()
        consumer = KafkaConsumer(
            topic, bootstrap_servers=[adapter.bootstrap], auto_offset_reset="earliest", consumer_timeout_ms=5000
        )
        got = [(m.key, m.value) for _, m in zip(range(10), consumer)]
        consumer.close()
        check_equal(got, [(f"key{n}".encode(), f"value{n}".encode()) for n in range(10)], "records")

    def describe_topic_partitions():
        topic = cases.fresh(adapter, "describe", 3)
        found = adapter.admin.describe_topic_partitions([topic])
        (only,) = found["topics"] if isinstance(found, dict) else found
        check_equal((only["name"], len(only["partitions"])), (topic, 3), "name and partitions")

    suite.add("defaults", defaults)
    suite.add("describe_topic_partitions", describe_topic_partitions)


if __name__ == "__main__":
    runner.main(Adapter, own_cases)
