"""confluent-kafka (librdkafka) against the cases."""

import time

import cases
import cases_groups
import runner
from cases import Record
from cases_groups import Crew, Described, check_each_once, partitions_of, produce
from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    OFFSET_INVALID,
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    ElectionType,
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
from runner import BrokerError, CommitRefused, check, check_equal, expect_error, topic_name

NAMED = {"earliest": OFFSET_BEGINNING, "latest": OFFSET_END}
STATES = {
    ConsumerGroupState.PREPARING_REBALANCING: "PreparingRebalance",
    ConsumerGroupState.COMPLETING_REBALANCING: "CompletingRebalance",
    ConsumerGroupState.STABLE: "Stable",
    ConsumerGroupState.EMPTY: "Empty",
    ConsumerGroupState.DEAD: "Dead",
}


def raise_broker_error(error):
    raise BrokerError(error.code(), f"{error.name()}: {error.str()}")


def parts_of(partitions):
    return {(tp.topic, tp.partition) for tp in partitions}


class Member:
    """A consumer of a group, as `cases_groups` drives it."""

    def __init__(self, bootstrap, group, topics, assign, protocol, instance, auto_commit, metadata_max_age_ms):
        self.changes = []
        config = {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "enable.auto.commit": auto_commit,
            "auto.commit.interval.ms": cases_groups.AUTO_COMMIT_MS,
            "auto.offset.reset": "earliest",
            "max.poll.interval.ms": cases_groups.REBALANCE_MS,
            "topic.metadata.refresh.interval.ms": metadata_max_age_ms,
            **protocol,
        }
        if instance is not None:
            config["group.instance.id"] = instance
        self.consumer = Consumer(config)
        if assign is None:
            self.consumer.subscribe(topics, on_assign=self._on("assigned"), on_revoke=self._on("revoked"))
        else:
            self.consumer.assign([TopicPartition(topics[0], p) for p in assign])

    def _on(self, what):
        def changed(_consumer, partitions):
            if partitions:
                self.changes.append((what, parts_of(partitions)))

        return changed

    def poll(self, seconds, count):
        messages = self.consumer.consume(count, seconds)
        for message in messages:
            if message.error():
                raise_broker_error(message.error())
        return [Adapter._record(message) for message in messages]

    def assignment(self):
        return parts_of(self.consumer.assignment())

    def commit(self, offsets=None):
        what = {}
        if offsets is not None:
            what["offsets"] = [TopicPartition(*where, at) for where, at in offsets.items()]
        try:
            done = self.consumer.commit(asynchronous=False, **what)
        except KafkaException as error:
            self._refused(error.args[0])
        for tp in done:
            if tp.error is not None:
                self._refused(tp.error)

    @staticmethod
    def _refused(error):
        if error.code() == KafkaError._FATAL:
            # What a consumer says once it has heard that it is fenced; it has no other error that is fatal.
            raise BrokerError(cases_groups.FENCED_INSTANCE_ID, error.str())
        if error.code() < 0:
            raise CommitRefused(f"{error.name()}: {error.str()}")
        raise_broker_error(error)

    def commit_async(self):
        self.consumer.commit(asynchronous=True)

    def generation(self):
        return None

    def close(self):
        self.consumer.close()


class Adapter:
    codecs = ["none", "gzip", "snappy", "lz4", "zstd"]
    assignors = ["range", "roundrobin", "cooperative-sticky"]
    committed_at_once = 10
    features = frozenset(
        "headers null_both idempotent out_of_range validate_only create_partitions describe_configs describe_errors "
        "alter_configs incremental_alter delete_records describe_cluster elect_leaders zero_partitions invalid_record "
        "join_errors static fencing alter_group_offsets delete_group".split()
    )
    poll_all = staticmethod(cases_groups.poll_in_turn)

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
            # Needed by the client, never joined: this consumer assigns.
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

    def elect_leaders(self, topic, partitions, preferred):
        kind = ElectionType.PREFERRED if preferred else ElectionType.UNCLEAN
        asked = [TopicPartition(topic, partition) for partition in partitions]
        found = self.admin.elect_leaders(kind, asked).result(20)
        return {of.partition: error.code() if error else 0 for of, error in found.items()}

    def member(
        self,
        group,
        topics,
        assign=None,
        assignor="range",
        instance=None,
        auto_commit=False,
        session_ms=cases_groups.SESSION_MS,
        metadata_max_age_ms=300_000,
        remote_assignor=None,
    ):
        """By the classic protocol, or by the consumer protocol with an assignor of the broker's."""
        protocol = {
            "partition.assignment.strategy": assignor,
            "session.timeout.ms": session_ms,
            "heartbeat.interval.ms": cases_groups.HEARTBEAT_MS,
        }
        if remote_assignor is not None:
            protocol = {"group.protocol": "consumer", "group.remote.assignor": remote_assignor}
        return Member(self.bootstrap, group, topics, assign, protocol, instance, auto_commit, metadata_max_age_ms)

    def list_groups(self):
        found = self.admin.list_consumer_groups().result(30)
        check_equal(found.errors, [], "errors of the list")
        return {group.group_id for group in found.valid}

    def describe_group(self, group):
        found = self._wait(self.admin.describe_consumer_groups([group]))
        members = {member.member_id: parts_of(member.assignment.topic_partitions) for member in found.members}
        return Described(STATES[found.state], found.partition_assignor, members)

    def group_offsets(self, group):
        found = self._wait(self.admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)]))
        for tp in found.topic_partitions:
            if tp.error is not None:
                raise_broker_error(tp.error)
        return {(tp.topic, tp.partition): tp.offset for tp in found.topic_partitions if tp.offset != OFFSET_INVALID}

    def alter_group_offsets(self, group, offsets):
        wanted = [TopicPartition(*where, at) for where, at in offsets.items()]
        found = self._wait(self.admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, wanted)]))
        for tp in found.topic_partitions:
            if tp.error is not None:
                raise_broker_error(tp.error)

    def delete_group(self, group):
        self._wait(self.admin.delete_consumer_groups([group]))


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

    def offsets_with_metadata():
        topic, group = cases.fresh(adapter, "metadata"), topic_name("group")
        with Crew(adapter, group, [topic]) as crew:
            consumer = crew.join(assign=[0]).consumer

            def committed():
                (found,) = consumer.committed([TopicPartition(topic, 0)], 20)
                return found.offset, found.metadata

            check_equal(committed()[0], OFFSET_INVALID, "before any commit")
            consumer.commit(offsets=[TopicPartition(topic, 0, 7, metadata="a note, \u00e9")], asynchronous=False)
            check_equal(committed(), (7, "a note, \u00e9"), "what is committed")

            def too_long():
                try:
                    consumer.commit(offsets=[TopicPartition(topic, 0, 8, metadata="x" * 4097)], asynchronous=False)
                except KafkaException as error:
                    raise_broker_error(error.args[0])

            expect_error(cases_groups.OFFSET_METADATA_TOO_LARGE, too_long)
            check_equal(committed()[0], 7, "after the refusal")

    def groups_by_state():
        topic, empty, stable = cases.fresh(adapter, "states"), topic_name("group"), topic_name("group")
        adapter.alter_group_offsets(empty, {(topic, 0): 0})
        with Crew(adapter, stable, [topic]) as crew:
            crew.join()
            crew.settle(partitions_of(topic, count=1))
            crew.until("the group is stable", crew.described)
            for state, of in ((ConsumerGroupState.EMPTY, empty), (ConsumerGroupState.STABLE, stable)):
                found = adapter.admin.list_consumer_groups(states={state}).result(30).valid
                listed = {group.group_id: group for group in found}
                check_equal({empty, stable} & set(listed), {of}, f"listed as {state}")
                check_equal(listed[of].state, state, "the state that is told")
                check_equal(listed[of].is_simple_consumer_group, of == empty, "whether it never had members")

    def offsets_of_one_partition():
        topic, group = cases.fresh(adapter, "some", 3), topic_name("group")
        adapter.alter_group_offsets(group, {(topic, 0): 5, (topic, 2): 7})
        asked = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 1), TopicPartition(topic, 2)])
        found = adapter._wait(adapter.admin.list_consumer_group_offsets([asked])).topic_partitions
        check_equal([(tp.partition, tp.offset) for tp in found], [(1, OFFSET_INVALID), (2, 7)], "offsets")

    def subscribed_by_pattern():
        """What fits the pattern is found when it is made, too."""
        prefix = topic_name("pattern")
        first, other = f"{prefix}-a", f"{prefix}-b"
        adapter.create_topic(first, 2, {})
        with Crew(adapter, topic_name("group"), [f"^{prefix}-.*"]) as crew:
            crew.join(metadata_max_age_ms=1000)
            crew.settle(partitions_of(first, count=2))
            adapter.create_topic(other, 2, {})
            crew.settle(partitions_of(first, other, count=2))
            produce(adapter, other, 2, range(5))
            crew.until("the new topic is read", lambda: len(crew.read()) >= 10)

    def shared_by_the_consumer_protocol(assignor, first):
        """Members come and go; `first` says how the first one joins, which may be by the classic protocol."""
        topic, group = cases.fresh(adapter, "consumer", 6), topic_name("group")
        everything = partitions_of(topic, count=6)
        produce(adapter, topic, 6, range(10))
        with Crew(adapter, group, [topic]) as crew:
            one = crew.join(**first)
            crew.until("all is read", lambda: len(one.read) >= 60)
            crew.commit()
            crew.join(remote_assignor=assignor)
            crew.settle(everything)
            produce(adapter, topic, 6, range(10, 20))
            crew.until("all is read by both", lambda: len(crew.read()) >= 120)
            crew.commit()
            crew.leave(one)
            crew.settle(everything)
            produce(adapter, topic, 6, range(20, 30))
            crew.until("all is read by the second", lambda: len(crew.read()) >= 180)
            crew.commit()
            check_each_once(crew.read(), 6, range(30), "records of both")
        check_equal(adapter.group_offsets(group), dict.fromkeys(everything, 30), "committed offsets")

    def consumer_protocol_by_pattern():
        """The broker looks for topics that fit, and tells of new ones."""
        prefix = topic_name("remote")
        first, other = f"{prefix}-a", f"{prefix}-b"
        adapter.create_topic(first, 2, {})
        with Crew(adapter, topic_name("group"), [f"^{prefix}-.*"]) as crew:
            crew.join(remote_assignor="uniform")
            crew.settle(partitions_of(first, count=2))
            adapter.create_topic(other, 2, {})
            crew.settle(partitions_of(first, other, count=2))
            produce(adapter, other, 2, range(5))
            crew.until("the new topic is read", lambda: len(crew.read()) >= 10)

    def consumer_protocol_static_member():
        """It keeps its partitions while it is away."""
        topic, group = cases.fresh(adapter, "static", 4), topic_name("group")
        everything = partitions_of(topic, count=4)
        with Crew(adapter, group, [topic]) as crew:
            one = crew.join(remote_assignor="uniform", instance="one")
            crew.join(remote_assignor="uniform", instance="two")
            crew.settle(everything)
            held = one.assignment()
            crew.leave(one)
            back = crew.join(remote_assignor="uniform", instance="one")
            crew.settle(everything)
            check_equal(back.assignment(), held, "partitions of the one that came back")

    def transactional(name):
        config = {"bootstrap.servers": adapter.bootstrap, "transactional.id": name, "log_level": 0}
        producer = Producer(config)
        producer.init_transactions(30)
        return producer

    def committed_values(topic, count):
        """What a reader of committed records gets, and that nothing follows it."""
        config = {"bootstrap.servers": adapter.bootstrap, "group.id": "assigned", "enable.partition.eof": True}
        consumer = Consumer(config | {"isolation.level": "read_committed", "enable.auto.commit": False})
        consumer.assign([TopicPartition(topic, 0, 0)])
        values, ended = [], False
        until = time.monotonic() + 30
        while time.monotonic() < until and not (ended and len(values) >= count):
            message = consumer.poll(1)
            if message is None:
                continue
            if message.error() is None:
                values.append(message.value())
            ended = message.error() is not None and message.error().code() == KafkaError._PARTITION_EOF
        consumer.close()
        return values

    def transactions_commit_and_abort():
        topic = cases.fresh(adapter, "transactions")
        producer = transactional(topic)
        for n in range(6):
            producer.begin_transaction()
            producer.produce(topic, str(n).encode(), partition=0)
            check_equal(producer.flush(20), 0, "messages left after the flush")
            if n % 3 == 1:
                producer.abort_transaction(30)
            else:
                producer.commit_transaction(30)
        check_equal(committed_values(topic, 4), [b"0", b"2", b"3", b"5"], "committed records")

    def transactions_copy_exactly_once():
        source, target, group = cases.fresh(adapter, "source"), cases.fresh(adapter, "target"), topic_name("group")
        adapter.produce(source, [Record(str(n).encode()) for n in range(20)])
        producer = transactional(target)
        config = {"bootstrap.servers": adapter.bootstrap, "group.id": group, "auto.offset.reset": "earliest"}
        consumer = Consumer(config | {"enable.auto.commit": False})
        consumer.subscribe([source])
        copied, aborted = 0, set()
        until = time.monotonic() + 60
        while copied < 20 and time.monotonic() < until:
            message = consumer.poll(1)
            if message is None or message.error() is not None:
                continue
            place = TopicPartition(source, 0, message.offset() + 1)
            producer.begin_transaction()
            producer.produce(target, message.value(), partition=0)
            producer.send_offsets_to_transaction([place], consumer.consumer_group_metadata(), 30)
            if message.offset() % 5 == 2 and message.offset() not in aborted:
                aborted.add(message.offset())
                producer.abort_transaction(30)
                consumer.seek(TopicPartition(source, 0, message.offset()))
                continue
            producer.commit_transaction(30)
            copied += 1
        (committed,) = consumer.committed([TopicPartition(source, 0)], 20)
        consumer.close()
        check_equal(committed.offset, 20, "the committed offset")
        check_equal(committed_values(target, 20), [str(n).encode() for n in range(20)], "copied records")

    def transactions_fence_zombies():
        topic = cases.fresh(adapter, "zombies")
        zombie = transactional(topic)
        zombie.begin_transaction()
        zombie.produce(topic, b"zombie", partition=0)
        check_equal(zombie.flush(20), 0, "messages left after the flush")
        heir = transactional(topic)
        heir.begin_transaction()
        heir.produce(topic, b"heir", partition=0)
        heir.commit_transaction(30)
        try:
            zombie.commit_transaction(30)
        except KafkaException as error:
            check_equal(error.args[0].code(), KafkaError._FENCED, "why the zombie is refused")
        else:
            raise runner.CheckFailed("the zombie committed")
        check_equal(committed_values(topic, 1), [b"heir"], "committed records")

    suite.add("transactions_commit_and_abort", transactions_commit_and_abort)
    suite.add("transactions_copy_exactly_once", transactions_copy_exactly_once)
    suite.add("transactions_fence_zombies", transactions_fence_zombies)
    suite.add("group_offsets_with_metadata", offsets_with_metadata)
    suite.add("group_list_by_state", groups_by_state)
    suite.add("group_offsets_of_some_partitions", offsets_of_one_partition)
    suite.add("group_subscribed_by_pattern", subscribed_by_pattern)
    remote = {assignor: {"remote_assignor": assignor} for assignor in ("range", "uniform")}
    for assignor, first in (*remote.items(), ("uniform", {"assignor": "range"})):
        name = f"group_of_the_consumer_protocol_shares_by_{assignor}"
        name += "" if "remote_assignor" in first else "_with_a_classic_member"
        suite.add(name, lambda a=assignor, f=first: shared_by_the_consumer_protocol(a, f))
    suite.add("group_of_the_consumer_protocol_by_pattern", consumer_protocol_by_pattern)
    suite.add("group_of_the_consumer_protocol_static_member", consumer_protocol_static_member)
    suite.add("many_in_flight", many_in_flight)
    suite.add("unknown_topic_is_not_created_by_reading", unknown_topic_in_metadata)
    suite.add("describe_topics", describe_topics)
    suite.add("list_offsets", list_offsets)


if __name__ == "__main__":
    runner.main(Adapter, own_cases)
