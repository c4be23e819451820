"""kafka-python against the cases."""

import re
import time
from concurrent.futures import ThreadPoolExecutor

import cases
import cases_groups
import kafka.errors
import runner
from cases import Record
from cases_groups import Crew, Described, produce
from kafka import (
    ConsumerRebalanceListener,
    KafkaAdminClient,
    KafkaConsumer,
    KafkaProducer,
    OffsetAndMetadata,
    TopicPartition,
)
from kafka.admin import ConfigResource, ConfigResourceType, MemberToRemove, OffsetSpec
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from kafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from kafka.errors import CommitFailedError, KafkaError, OffsetOutOfRangeError
from runner import BrokerError, CommitRefused, check, check_equal, expect_error, topic_name

WIDE = 10_000_000
ASSIGNORS = {
    "range": RangePartitionAssignor,
    "roundrobin": RoundRobinPartitionAssignor,
    "sticky": StickyPartitionAssignor,
    "cooperative-sticky": CooperativeStickyAssignor,
}


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


class Member(ConsumerRebalanceListener):
    """A consumer of a group, as `cases_groups` drives it."""

    def __init__(self, bootstrap, group, topics, assign, assignor, instance, auto_commit, session_ms):
        self.changes = []
        self.consumer = KafkaConsumer(
            bootstrap_servers=bootstrap,
            group_id=group,
            group_instance_id=instance,
            enable_auto_commit=auto_commit,
            auto_commit_interval_ms=cases_groups.AUTO_COMMIT_MS,
            auto_offset_reset="earliest",
            partition_assignment_strategy=[ASSIGNORS[assignor]],
            session_timeout_ms=session_ms,
            heartbeat_interval_ms=cases_groups.HEARTBEAT_MS,
            max_poll_interval_ms=cases_groups.REBALANCE_MS,
            # A subscription while the client hears of the cluster for the first time waits for the next time.
            metadata_max_age_ms=2000,
        )
        if assign is None:
            self.consumer.subscribe(topics, listener=self)
        else:
            self.consumer.assign([TopicPartition(topics[0], p) for p in assign])

    def on_partitions_assigned(self, assigned):
        self._changed("assigned", assigned)

    def on_partitions_revoked(self, revoked):
        self._changed("revoked", revoked)

    def _changed(self, what, parts):
        if parts:
            self.changes.append((what, {tuple(tp) for tp in parts}))

    @translated
    def poll(self, seconds, count):
        found = self.consumer.poll(int(seconds * 1000), max_records=count).values()
        return [Adapter._record(message) for messages in found for message in messages]

    def assignment(self):
        return {tuple(tp) for tp in self.consumer.assignment()}

    @translated
    def commit(self, offsets=None):
        if offsets is not None:
            offsets = {TopicPartition(*where): OffsetAndMetadata(at, "", -1) for where, at in offsets.items()}
        try:
            self.consumer.commit(offsets)
        except CommitFailedError as error:
            raise CommitRefused(str(error)) from error

    def commit_async(self):
        self.consumer.commit_async()

    def generation(self):
        return self.consumer.group_metadata().generation_id

    def close(self):
        self.consumer.close()


class Adapter:
    codecs = ["none", "gzip", "snappy", "lz4", "zstd"]
    assignors = list(ASSIGNORS)
    committed_at_once = 10
    features = frozenset(
        "headers idempotent out_of_range validate_only create_partitions describe_configs alter_configs "
        "incremental_alter delete_records describe_cluster log_dirs time_of_offset zero_partitions invalid_record "
        "join_errors static fencing alter_group_offsets delete_group delete_group_offsets".split()
    )

    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.admin = KafkaAdminClient(bootstrap_servers=bootstrap)
        self.pool = ThreadPoolExecutor(4)

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

    def member(
        self,
        group,
        topics,
        assign=None,
        assignor="range",
        instance=None,
        auto_commit=False,
        session_ms=cases_groups.SESSION_MS,
    ):
        return Member(self.bootstrap, group, topics, assign, assignor, instance, auto_commit, session_ms)

    def poll_all(self, members, count):
        """At the same time: a join that ends while its member is not polled is thrown away and begun again by the client."""
        return zip(members, list(self.pool.map(lambda member: member.poll(0.5, count), members)), strict=True)

    @translated
    def list_groups(self):
        return {found["group_id"] for found in self.admin.list_groups()}

    @translated
    def describe_group(self, group):
        found = self.admin.describe_groups([group])[group]
        if found["error"]:
            code = re.match(r"\[Error (\d+)\]", found["error"])
            check(code, f"an error of the form '[Error N] ...': {found['error']}")
            raise BrokerError(int(code[1]), found["error"])
        members = {
            member["member_id"]: {
                (part["topic"], p)
                for part in (member["member_assignment"] or {"assigned_partitions": []})["assigned_partitions"]
                for p in part["partitions"]
            }
            for member in found["members"]
        }
        return Described(found["group_state"], found["protocol_data"], members)

    @translated
    def group_offsets(self, group):
        found = self.admin.list_group_offsets({group: None})[group]
        return {tuple(tp): committed.offset for tp, committed in found.items() if committed.offset >= 0}

    @translated
    def alter_group_offsets(self, group, offsets):
        wanted = {TopicPartition(*where): OffsetAndMetadata(at, "", -1) for where, at in offsets.items()}
        self._raise_first(self.admin.alter_group_offsets(group, wanted))

    @translated
    def delete_group_offsets(self, group, partitions):
        self._raise_first(self.admin.delete_group_offsets(group, [TopicPartition(*where) for where in partitions]))

    @translated
    def delete_group(self, group):
        result = self.admin.delete_groups([group])[group]
        if result != "OK":
            raise getattr(kafka.errors, result)(group)

    @staticmethod
    def _raise_first(results):
        for where, error in results.items():
            if error.errno:
                raise BrokerError(error.errno, f"{where} {error.__name__}")


def own_cases(suite, adapter):
    def defaults():
        """A producer and a consumer with the client's own defaults, which are without a group."""
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

    def offsets_with_metadata():
        topic, group = cases.fresh(adapter, "metadata"), topic_name("group")
        where = TopicPartition(topic, 0)
        with Crew(adapter, group, [topic]) as crew:
            consumer = crew.join(assign=[0]).consumer
            check_equal(consumer.committed(where), None, "before any commit")
            consumer.commit({where: OffsetAndMetadata(7, "a note, \u00e9", 3)})
            check_equal(consumer.committed(where, metadata=True), (7, "a note, \u00e9", 3), "what is committed")
            too_long = translated(lambda: consumer.commit({where: OffsetAndMetadata(8, "x" * 4097, -1)}))
            expect_error(cases_groups.OFFSET_METADATA_TOO_LARGE, too_long)
            check_equal(consumer.committed(where), 7, "after the refusal")

    def removed_member():
        """Who an administrator removed is no member, and cannot commit."""
        topic, group = cases.fresh(adapter, "removed"), topic_name("group")
        produce(adapter, topic, 1, range(5))
        with Crew(adapter, group, [topic]) as crew:
            member = crew.join()
            crew.until("everything is read", lambda: len(member.read) >= 5)
            unknown = adapter.admin.remove_group_members(group, [MemberToRemove(member_id="nobody")])
            check_equal([error.errno for error in unknown.values()], [cases_groups.UNKNOWN_MEMBER_ID], "of nobody")
            (id_,) = adapter.describe_group(group).members
            removed = adapter.admin.remove_group_members(group, [MemberToRemove(member_id=id_)])
            check_equal([error.errno for error in removed.values()], [0], "of the member")
            try:
                member.commit()
            except CommitRefused:
                pass
            else:
                raise runner.CheckFailed("no error, but a commit of a member that was removed")
            # It comes back by itself, and reads again what it did not commit.
            crew.until("it reads again", lambda: len(member.read) >= 10)
            member.commit()

    def reset_offsets():
        topic, group = cases.fresh(adapter, "reset", 2), topic_name("group")
        produce(adapter, topic, 2, range(10))
        parts = [TopicPartition(topic, p) for p in range(2)]
        found = adapter.admin.reset_group_offsets(group, {parts[0]: OffsetSpec.LATEST, parts[1]: 4})
        check_equal([found[part]["error"].errno for part in parts], [0, 0], "errors")
        check_equal(adapter.group_offsets(group), {(topic, 0): 10, (topic, 1): 4}, "offsets")
        adapter.admin.reset_group_offsets(group, {parts[0]: OffsetSpec.EARLIEST})
        check_equal(adapter.group_offsets(group), {(topic, 0): 0, (topic, 1): 4}, "offsets in the end")

    suite.add("group_offsets_with_metadata", offsets_with_metadata)
    suite.add("group_member_that_was_removed", removed_member)
    suite.add("group_offsets_are_reset", reset_offsets)
    suite.add("defaults", defaults)
    suite.add("describe_topic_partitions", describe_topic_partitions)


if __name__ == "__main__":
    runner.main(Adapter, own_cases)
