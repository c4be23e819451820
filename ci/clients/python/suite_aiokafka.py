"""aiokafka against the cases, which are not asynchronous: each call runs the loop until it is done."""

import asyncio
import time

import cases
import cases_groups
import runner
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocol
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError, OffsetOutOfRangeError
from cases import Record
from cases_groups import Crew, Described, check_each_once, partitions_of, produce
from runner import BrokerError, CommitRefused, check, check_equal, topic_name

WIDE = 10_000_000
ASSIGNORS = {
    "range": RangePartitionAssignor,
    "roundrobin": RoundRobinPartitionAssignor,
    "sticky": StickyPartitionAssignor,
}


def as_broker_error(error):
    code = getattr(error, "errno", None)
    if code is None:
        raise error
    raise BrokerError(code, str(error)) from error


class Member(ConsumerRebalanceListener):
    """A consumer of a group, as `cases_groups` drives it; what it does by itself it does while the adapter's loop runs."""

    def __init__(self, run):
        self.run = run
        self.changes = []
        self.consumer = None

    async def start(self, bootstrap, group, topics, assign, assignor, instance, auto_commit, session_ms):
        # The sticky assignor keeps what it remembers in its class: each member needs one of its own.
        own = type("Own", (ASSIGNORS[assignor],), {})
        self.consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap,
            group_id=group,
            group_instance_id=instance,
            enable_auto_commit=auto_commit,
            auto_commit_interval_ms=cases_groups.AUTO_COMMIT_MS,
            auto_offset_reset="earliest",
            partition_assignment_strategy=[own],
            session_timeout_ms=session_ms,
            heartbeat_interval_ms=cases_groups.HEARTBEAT_MS,
            rebalance_timeout_ms=cases_groups.REBALANCE_MS,
        )
        await self.consumer.start()
        # Only now: with topics from the beginning the start would wait for the other members.
        if assign is None:
            self.consumer.subscribe(topics, listener=self)
        else:
            self.consumer.assign([TopicPartition(topics[0], p) for p in assign])
        return self

    def on_partitions_assigned(self, assigned):
        self._changed("assigned", assigned)

    def on_partitions_revoked(self, revoked):
        self._changed("revoked", revoked)

    def _changed(self, what, parts):
        if parts:
            self.changes.append((what, {tuple(tp) for tp in parts}))

    def poll(self, seconds, count):
        found = self.run(self.consumer.getmany(timeout_ms=int(seconds * 1000), max_records=count)).values()
        return [Adapter._record(message) for messages in found for message in messages]

    def assignment(self):
        return {tuple(tp) for tp in self.consumer.assignment()}

    def commit(self, offsets=None):
        if offsets is not None:
            offsets = {TopicPartition(*where): at for where, at in offsets.items()}
        try:
            self.run(self.consumer.commit(offsets))
        except (CommitFailedError, IllegalStateError) as error:
            raise CommitRefused(str(error)) from error

    def commit_async(self):
        async def begin():
            # Ends whenever the loop runs next.
            self.committing = asyncio.create_task(self.consumer.commit())

        self.run(begin())

    def generation(self):
        return self.consumer._coordinator.generation

    def close(self):
        self.run(self.consumer.stop())


class Adapter:
    codecs = ["none", "gzip", "snappy", "lz4", "zstd"]
    assignors = list(ASSIGNORS)
    committed_at_once = 1
    features = frozenset(
        "headers idempotent out_of_range validate_only create_partitions describe_configs describe_errors "
        "alter_configs delete_records describe_cluster time_of_offset zero_partitions join_errors static".split()
    )
    poll_all = staticmethod(cases_groups.poll_in_turn)

    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.loop = asyncio.new_event_loop()
        self.admin = self.loop.run_until_complete(self._start_admin())

    async def _start_admin(self):
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        return admin

    def _run(self, coroutine):
        try:
            return self.loop.run_until_complete(coroutine)
        except KafkaError as error:
            as_broker_error(error)

    def produce(self, *args, **kwargs):
        return self._run(self._produce(*args, **kwargs))

    async def _produce(self, topic, records, acks="all", codec="none", idempotent=False, linger_ms=5):
        producer = AIOKafkaProducer(
            bootstrap_servers=self.bootstrap,
            acks=acks,
            compression_type=None if codec == "none" else codec,
            enable_idempotence=idempotent,
            linger_ms=linger_ms,
            max_request_size=WIDE,
            max_batch_size=64 * 1024,
        )
        await producer.start()
        try:
            sent = [
                await producer.send(topic, r.value, r.key, r.partition, r.timestamp, list(r.headers))
                for r in records
            ]
            # With acks=0 the client has no offset to give.
            return [getattr(done, "offset", None) for done in await asyncio.gather(*sent)]
        finally:
            await producer.stop()

    def consume(self, *args, **kwargs):
        return self._run(self._consume(*args, **kwargs))

    async def _consume(self, topic, start, count, reset="none", when_idle=None, partition_fetch_bytes=None):
        settings = {"auto_offset_reset": reset}
        if partition_fetch_bytes:
            settings["max_partition_fetch_bytes"] = partition_fetch_bytes
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap, enable_auto_commit=False, **settings)
        await consumer.start()
        try:
            consumer.assign([TopicPartition(topic, p) for p in start])
            for p, at in start.items():
                if at == "earliest":
                    await consumer.seek_to_beginning(TopicPartition(topic, p))
                elif at == "latest":
                    await consumer.seek_to_end(TopicPartition(topic, p))
                else:
                    consumer.seek(TopicPartition(topic, p), at)
            records = []
            deadline = time.monotonic() + 60
            while len(records) < count:
                check(time.monotonic() < deadline, f"read {len(records)} of {count} records in time")
                if when_idle:
                    check_equal(await consumer.getmany(timeout_ms=2000), {}, "records before any are produced")
                    # It runs the loop itself, so not from within it.
                    await asyncio.to_thread(self._in_own_loop, when_idle)
                    when_idle = None
                for messages in (await consumer.getmany(timeout_ms=1000)).values():
                    records += map(self._record, messages)
            return records
        except OffsetOutOfRangeError as error:
            raise BrokerError(cases.OFFSET_OUT_OF_RANGE, str(error)) from error
        finally:
            await consumer.stop()

    def _in_own_loop(self, call):
        outer, self.loop = self.loop, asyncio.new_event_loop()
        try:
            call()
        finally:
            self.loop.close()
            self.loop = outer

    @staticmethod
    def _record(m):
        return Record(m.value, m.key, tuple(m.headers), m.partition, m.timestamp, m.offset)

    async def _ask(self, question):
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap)
        await consumer.start()
        try:
            return await question(consumer)
        finally:
            await consumer.stop()

    def beginning_offsets(self, topic, partitions):
        asked = [TopicPartition(topic, p) for p in partitions]
        found = self._run(self._ask(lambda c: c.beginning_offsets(asked)))
        return {tp.partition: at for tp, at in found.items()}

    def end_offsets(self, topic, partitions):
        asked = [TopicPartition(topic, p) for p in partitions]
        found = self._run(self._ask(lambda c: c.end_offsets(asked)))
        return {tp.partition: at for tp, at in found.items()}

    def offsets_for_times(self, topic, times):
        asked = {TopicPartition(topic, p): at for p, at in times.items()}
        found = self._run(self._ask(lambda c: c.offsets_for_times(asked)))
        return {tp.partition: at and (at.offset, at.timestamp) for tp, at in found.items()}

    @staticmethod
    def _raise_first(results):
        for name, code, *text in results:
            if code:
                raise BrokerError(code, f"{name} {text}")

    def create_topic(self, topic, partitions, config, replication=1, validate_only=False):
        new = NewTopic(topic, partitions, replication, topic_configs=config)
        self._raise_first(self._run(self.admin.create_topics([new], validate_only=validate_only)).topic_errors)

    def delete_topic(self, topic):
        self._raise_first(self._run(self.admin.delete_topics([topic])).topic_error_codes)

    def topics(self):
        return set(self._run(self.admin.list_topics()))

    def partitions_of(self, topic):
        (found,) = self._run(self.admin.describe_topics([topic]))
        return {p["partition"] for p in found["partitions"]}

    def create_partitions(self, topic, total):
        self._run(self.admin.create_partitions({topic: NewPartitions(total)}))

    def describe_config(self, topic):
        resource = ConfigResource(ConfigResourceType.TOPIC, topic)
        ((error, text, _, _, entries),) = self._run(self.admin.describe_configs([resource]))[0].resources
        if error:
            raise BrokerError(error, text)
        return {name: value for name, value, *_ in entries}

    def alter_config(self, topic, config):
        resource = ConfigResource(ConfigResourceType.TOPIC, topic, config)
        ((error, text, *_),) = self._run(self.admin.alter_configs([resource]))[0].resources
        if error:
            raise BrokerError(error, text)

    def delete_records(self, topic, partition, before):
        tp = TopicPartition(topic, partition)
        return self._run(self.admin.delete_records({tp: RecordsToDelete(before)}))[tp]

    def describe_cluster(self):
        found = self._run(self.admin.describe_cluster())
        return {
            "cluster_id": found["cluster_id"],
            "controller": found["controller_id"],
            "nodes": {node["node_id"] for node in found["brokers"]},
        }

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
        settings = (assign, assignor, instance, auto_commit, session_ms)
        return self._run(Member(self._run).start(self.bootstrap, group, topics, *settings))

    def list_groups(self):
        return {name for name, *_ in self._run(self.admin.list_consumer_groups())}

    def describe_group(self, group):
        (answer,) = self._run(self.admin.describe_consumer_groups([group]))
        ((error, _, state, _, assignor, members, *_),) = answer.groups
        if error:
            raise BrokerError(error, group)
        return Described(state, assignor, {id_: self._parts(assignment) for id_, _, _, _, assignment in members})

    @staticmethod
    def _parts(assignment):
        if not assignment:
            return set()
        return {tuple(tp) for tp in ConsumerProtocol.ASSIGNMENT.decode(assignment).partitions()}

    def group_offsets(self, group):
        found = self._run(self.admin.list_consumer_group_offsets(group))
        return {tuple(tp): committed.offset for tp, committed in found.items() if committed.offset >= 0}


def own_cases(suite, adapter):
    def concurrent_sends():
        """Many coroutines share one producer."""
        topic = cases.fresh(adapter, "concurrent", 4)

        async def send_all():
            async with AIOKafkaProducer(bootstrap_servers=adapter.bootstrap, acks="all") as producer:
                sends = [producer.send_and_wait(topic, str(n).encode(), partition=n % 4) for n in range(400)]
                return await asyncio.gather(*sends)

        sent = adapter._run(send_all())
        read = adapter.consume(topic, {p: 0 for p in range(4)}, 400)
        at = {(r.partition, r.offset): r.value for r in read}
        check_equal(len(at), 400, "different offsets")
        for n, where in enumerate(sent):
            check_equal(at[where.partition, where.offset], str(n).encode(), f"record {n}")

    def iterates():
        """As most programs read: started with its topics, one record after the other, committed by time."""
        topic, group = cases.fresh(adapter, "iterate", 2), topic_name("group")
        produce(adapter, topic, 2, range(20))

        async def read(count):
            settings = {"group_id": group, "auto_offset_reset": "earliest", "auto_commit_interval_ms": 100}
            async with AIOKafkaConsumer(topic, bootstrap_servers=adapter.bootstrap, **settings) as consumer:
                return [adapter._record(await consumer.getone()) for _ in range(count)]

        read_ = adapter._run(read(13)) + adapter._run(read(27))
        check_each_once(read_, 2, range(20), "records of both")
        check_equal(adapter.group_offsets(group), {(topic, 0): 20, (topic, 1): 20}, "committed offsets")

    def position_and_committed():
        topic, group = cases.fresh(adapter, "metadata"), topic_name("group")
        produce(adapter, topic, 1, range(5))
        with Crew(adapter, group, [topic]) as crew:
            consumer = crew.join().consumer
            crew.settle(partitions_of(topic, count=1))
            where = TopicPartition(topic, 0)
            check_equal(adapter._run(consumer.committed(where)), None, "before any commit")
            adapter._run(consumer.commit({where: (3, "a note, \u00e9")}))
            check_equal(adapter._run(consumer.committed(where)), 3, "what is committed")
            found = adapter._run(adapter.admin.list_consumer_group_offsets(group))[where]
            check_equal((found.offset, found.metadata), (3, "a note, \u00e9"), "what the admin client sees")
            adapter._run(consumer.seek_to_committed())
            check_equal(adapter._run(consumer.position(where)), 3, "position")

    suite.add("group_iterates", iterates)
    suite.add("group_position_and_committed", position_and_committed)
    suite.add("concurrent_sends", concurrent_sends)


if __name__ == "__main__":
    runner.main(Adapter, own_cases)
