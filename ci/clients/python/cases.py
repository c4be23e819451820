"""What every Python client is asked to do; it knows no client, only the adapter's few methods.

An adapter is a module's class with these methods (a client that lacks one leaves it out of `features`):
    produce(topic, records, acks, codec, idempotent, **settings) -> offsets (None or -1 where unknown)
    consume(topic, start, count, **settings) -> records; `start` maps partition to offset, "earliest" or "latest"
    beginning_offsets / end_offsets(topic, partitions) -> {partition: offset}
    offsets_for_times(topic, {partition: ms}) -> {partition: (offset, ms) or None}
    create_topic, delete_topic, topics, partitions_of, create_partitions, describe_config, alter_config,
    incremental_alter, delete_records, describe_cluster, elect_leaders, log_dirs
Errors of the broker surface as `BrokerError` with Kafka's code.
"""

import os
import time
from dataclasses import dataclass

from runner import check, check_equal, eventually_equal, expect_error, topic_name

OFFSET_OUT_OF_RANGE = 1
UNKNOWN_TOPIC_OR_PARTITION = 3
MESSAGE_TOO_LARGE = 10
INVALID_TOPIC = 17
TOPIC_ALREADY_EXISTS = 36
ELECTION_NOT_NEEDED = 84
INVALID_PARTITIONS = 37
INVALID_REPLICATION_FACTOR = 38
INVALID_CONFIG = 40
INVALID_RECORD = 87

# Kafka's default for one batch is 1048588 bytes, so this value fits with its key and headers ...
NEAR_LIMIT = 1_000_000
# ... and this one does not.
OVER_LIMIT = 1_100_000


@dataclass(frozen=True)
class Record:
    """One record as sent or as read; `timestamp` in ms, `offset` only when read."""

    value: bytes | None
    key: bytes | None = None
    headers: tuple = ()
    partition: int = 0
    timestamp: int | None = None
    offset: int | None = None


def numbered(count, partition=0, size=0):
    """`count` different records of one partition, values padded to `size` bytes."""
    return [
        Record(f"value-{n}-".encode().ljust(size, b"x"), f"key-{n}".encode(), partition=partition)
        for n in range(count)
    ]


def content(records):
    return [(r.key, r.value) for r in records]


def fresh(adapter, prefix, partitions=1, config=None):
    topic = topic_name(prefix)
    adapter.create_topic(topic, partitions, config or {})
    # Kafka makes a new topic known behind its answer.
    eventually_equal(lambda: topic in adapter.topics(), True, "the new topic is listed")
    return topic


def register(suite, adapter):
    """Adds every case that the client has the features for."""

    def case(name, *needs):
        def add(function):
            if set(needs) <= adapter.features:
                suite.add(name, function)
            return function

        return add

    register_data(case, suite, adapter)
    register_reading(case, adapter)
    register_sizes(case, adapter)
    register_admin(case, adapter)
    register_errors(case, adapter)


def register_data(case, suite, adapter):
    def round_trip(codec, acks):
        topic = fresh(adapter, "codec")
        sent = numbered(25, size=200)
        offsets = adapter.produce(topic, sent, acks=acks, codec=codec)
        if acks != 0:
            check_equal(offsets, list(range(25)), "offsets")
        read = adapter.consume(topic, {0: 0}, 25)
        check_equal(content(read), content(sent), "records")
        check_equal([r.offset for r in read], list(range(25)), "offsets read")

    for codec in adapter.codecs:
        for acks in (0, 1, "all"):
            suite.add(f"round_trip_{codec}_acks_{acks}", lambda c=codec, a=acks: round_trip(c, a))

    @case("headers", "headers")
    def headers():
        topic = fresh(adapter, "headers")
        sent = (("a", b"1"), ("b", b""), ("a", b"2"), ("\u00e9", b"\x00\xff"))
        adapter.produce(topic, [Record(b"v", b"k", sent), Record(b"w", b"k")])
        read = adapter.consume(topic, {0: 0}, 2)
        check_equal([tuple(r.headers) for r in read], [sent, ()], "headers")

    @case("nulls_and_empties")
    def nulls():
        topic = fresh(adapter, "nulls")
        sent = [Record(b"v", None), Record(None, b"k"), Record(b"", b""), Record(b"v", b"k")]
        if "null_both" in adapter.features:
            sent.append(Record(None, None))
        adapter.produce(topic, sent)
        check_equal(content(adapter.consume(topic, {0: 0}, len(sent))), content(sent), "records")

    @case("idempotent_producer", "idempotent")
    def idempotent():
        topic = fresh(adapter, "idempotent", 3)
        sent = [r for p in range(3) for r in numbered(200, partition=p)]
        adapter.produce(topic, sent, idempotent=True)
        for p in range(3):
            read = adapter.consume(topic, {p: 0}, 200)
            check_equal(content(read), content(numbered(200)), f"partition {p}")
        check_equal(adapter.end_offsets(topic, [0, 1, 2]), {0: 200, 1: 200, 2: 200}, "end offsets")

    @case("many_partitions")
    def many_partitions():
        topic = fresh(adapter, "many", 48)
        sent = [r for p in range(48) for r in numbered(3, partition=p)]
        # Only an idempotent producer keeps the order when a batch is sent again, as one may be to a new partition.
        adapter.produce(topic, sent, idempotent=True)
        read = adapter.consume(topic, {p: 0 for p in range(48)}, len(sent))
        got = sorted((r.partition, r.offset, r.value) for r in read)
        want = sorted((p, n, numbered(3)[n].value) for p in range(48) for n in range(3))
        check_equal(got, want, "records")

    @case("created_on_first_use")
    def auto_create():
        topic = topic_name("auto")
        adapter.produce(topic, numbered(5))
        check_equal(content(adapter.consume(topic, {0: 0}, 5)), content(numbered(5)), "records")

    @case("volume")
    def volume():
        topic = fresh(adapter, "volume", 4)
        sent = [r for p in range(4) for r in numbered(2500, partition=p, size=400)]
        adapter.produce(topic, sent, idempotent=True)
        read = adapter.consume(topic, {p: 0 for p in range(4)}, len(sent))
        for p in range(4):
            mine = [r for r in read if r.partition == p]
            check_equal([r.offset for r in mine], list(range(2500)), f"offsets of {p}")
            check_equal(content(mine), content(numbered(2500, size=400)), f"records of {p}")

    @case("log_append_time")
    def log_append_time():
        topic = fresh(adapter, "appendtime", 1, {"message.timestamp.type": "LogAppendTime"})
        before = int(time.time() * 1000)
        adapter.produce(topic, [Record(b"v", timestamp=before - 1_000_000)])
        (read,) = adapter.consume(topic, {0: 0}, 1)
        check(before - 5000 <= read.timestamp <= before + 60_000, f"timestamp {read.timestamp}")

    @case("create_time")
    def create_time():
        topic = fresh(adapter, "createtime")
        stamp = int(time.time() * 1000) - 123_456
        adapter.produce(topic, [Record(b"v", timestamp=stamp)])
        (read,) = adapter.consume(topic, {0: 0}, 1)
        check_equal(read.timestamp, stamp, "timestamp")


def register_reading(case, adapter):
    @case("seek")
    def seek():
        topic = fresh(adapter, "seek")
        sent = numbered(100)
        adapter.produce(topic, sent)
        for at in (0, 1, 37, 99):
            read = adapter.consume(topic, {0: at}, 100 - at)
            check_equal(content(read), content(sent[at:]), f"from {at}")
            check_equal(read[0].offset, at, "first offset")

    @case("earliest")
    def earliest():
        topic = fresh(adapter, "earliest")
        adapter.produce(topic, numbered(10))
        read = adapter.consume(topic, {0: "earliest"}, 10)
        check_equal(content(read), content(numbered(10)), "records")

    @case("long_poll_wakes")
    def long_poll():
        topic = fresh(adapter, "poll")
        adapter.produce(topic, numbered(3))
        late = [Record(b"late", b"l")]
        read = adapter.consume(
            topic, {0: "latest"}, 1, when_idle=lambda: adapter.produce(topic, late)
        )
        check_equal(content(read), content(late), "records")
        check_equal(read[0].offset, 3, "offset")

    @case("beginning_and_end_offsets")
    def offsets():
        topic = fresh(adapter, "offsets", 2)
        check_equal(adapter.end_offsets(topic, [0, 1]), {0: 0, 1: 0}, "of an empty topic")
        adapter.produce(topic, numbered(7, partition=1))
        check_equal(adapter.beginning_offsets(topic, [0, 1]), {0: 0, 1: 0}, "beginning")
        check_equal(adapter.end_offsets(topic, [0, 1]), {0: 0, 1: 7}, "end")

    @case("offsets_for_times")
    def for_times():
        topic = fresh(adapter, "times")
        base = int(time.time() * 1000) - 600_000
        # Out of order on purpose: the answer is the first offset whose timestamp is at least the one asked for.
        stamps = [base, base + 1000, base + 500, base + 3000]
        for n, stamp in enumerate(stamps):
            adapter.produce(topic, [Record(f"v{n}".encode(), timestamp=stamp)])
        asked = [base - 1, base, base + 1, base + 1000, base + 1001, base + 3000]
        want = [(0, base), (0, base), (1, base + 1000), (1, base + 1000), (3, base + 3000), (3, base + 3000)]
        got = [adapter.offsets_for_times(topic, {0: at})[0] for at in asked]
        if "time_of_offset" not in adapter.features:
            want, got = [w[0] for w in want], [g[0] for g in got]
        check_equal(got, want, "offsets")
        after = adapter.offsets_for_times(topic, {0: base + 3001})[0]
        check(after is None or after[0] in (-1, 4), f"after the last: {after}")

    @case("offsets_for_times_inside_a_batch")
    def inside():
        topic = fresh(adapter, "batchtimes")
        base = int(time.time() * 1000) - 600_000
        codec = "gzip" if "gzip" in adapter.codecs else "none"
        sent = [Record(b"v", timestamp=base + n * 10) for n in range(50)]
        adapter.produce(topic, sent, codec=codec, linger_ms=200)
        got = adapter.offsets_for_times(topic, {0: base + 245})[0]
        check_equal(got[0], 25, "offset")

    @case("out_of_range_is_an_error", "out_of_range")
    def out_of_range():
        topic = fresh(adapter, "range")
        adapter.produce(topic, numbered(3))
        expect_error(OFFSET_OUT_OF_RANGE, lambda: adapter.consume(topic, {0: 100}, 1, reset="none"))

    @case("out_of_range_resets_to_earliest")
    def resets():
        topic = fresh(adapter, "reset")
        adapter.produce(topic, numbered(3))
        read = adapter.consume(topic, {0: 100}, 3, reset="earliest")
        check_equal(content(read), content(numbered(3)), "records")

    @case("two_readers_of_one_partition")
    def two_readers():
        topic = fresh(adapter, "readers")
        adapter.produce(topic, numbered(50))
        first = adapter.consume(topic, {0: 0}, 50)
        second = adapter.consume(topic, {0: 0}, 50)
        check_equal(content(first), content(second), "records")


def register_sizes(case, adapter):
    @case("near_the_size_limit")
    def near():
        topic = fresh(adapter, "near")
        sent = [Record(bytes([n]) * NEAR_LIMIT, b"k") for n in range(3)]
        adapter.produce(topic, sent)
        check_equal(content(adapter.consume(topic, {0: 0}, 3)), content(sent), "records")

    @case("over_the_size_limit")
    def over():
        topic = fresh(adapter, "over")
        big = [Record(b"x" * OVER_LIMIT)]
        expect_error(MESSAGE_TOO_LARGE, lambda: adapter.produce(topic, big))
        adapter.produce(topic, numbered(1))
        check_equal(content(adapter.consume(topic, {0: 0}, 1)), content(numbered(1)), "after it")

    @case("a_topic_raises_the_size_limit")
    def raised():
        topic = fresh(adapter, "raised", 1, {"max.message.bytes": "4000000"})
        sent = [Record(b"x" * 3_500_000, b"k")]
        adapter.produce(topic, sent)
        check_equal(content(adapter.consume(topic, {0: 0}, 1)), content(sent), "records")

    @case("a_small_fetch_limit_makes_progress")
    def small_fetch():
        topic = fresh(adapter, "small")
        sent = [Record(bytes([65 + n]) * 100_000) for n in range(5)]
        for record in sent:
            adapter.produce(topic, [record])
        read = adapter.consume(topic, {0: 0}, 5, partition_fetch_bytes=1000)
        check_equal(content(read), content(sent), "records")


def register_admin(case, adapter):
    @case("create_and_list")
    def create_and_list():
        topic = fresh(adapter, "create", 3)
        eventually_equal(lambda: topic in adapter.topics(), True, "the topic is listed")
        check_equal(adapter.partitions_of(topic), {0, 1, 2}, "partitions")

    @case("validate_only_creates_nothing", "validate_only")
    def validate_only():
        topic = topic_name("validate")
        adapter.create_topic(topic, 1, {}, validate_only=True)
        check(topic not in adapter.topics(), "the topic is not listed")

    @case("create_partitions", "create_partitions")
    def create_partitions():
        topic = fresh(adapter, "grow", 2)
        adapter.produce(topic, numbered(2))
        adapter.create_partitions(topic, 5)
        eventually_equal(lambda: adapter.partitions_of(topic), {0, 1, 2, 3, 4}, "partitions")
        adapter.produce(topic, numbered(2, partition=4))
        check_equal(content(adapter.consume(topic, {4: 0}, 2)), content(numbered(2)), "records")

    @case("describe_configs", "describe_configs")
    def describe():
        topic = fresh(adapter, "describe", 1, {"retention.ms": "3600000"})
        config = adapter.describe_config(topic)
        check_equal(config.get("retention.ms"), "3600000", "retention.ms")
        check_equal(config.get("cleanup.policy"), "delete", "cleanup.policy")
        check_equal(config.get("compression.type"), "producer", "compression.type")
        check_equal(config.get("max.message.bytes"), "1048588", "max.message.bytes")
        check_equal(config.get("min.insync.replicas"), "1", "min.insync.replicas")

    def both_configs(topic, max_bytes, retention):
        def described():
            config = adapter.describe_config(topic)
            return config.get("max.message.bytes"), config.get("retention.ms")

        eventually_equal(described, (max_bytes, retention), "max.message.bytes and retention.ms")

    @case("alter_configs", "alter_configs")
    def alter():
        topic = fresh(adapter, "alter", 1, {"retention.ms": "3600000"})
        adapter.alter_config(topic, {"max.message.bytes": "2000000"})
        # The call that is not incremental replaces everything that was set.
        both_configs(topic, "2000000", "604800000")

    @case("incremental_alter_configs", "incremental_alter")
    def incremental():
        topic = fresh(adapter, "incremental", 1, {"retention.ms": "3600000"})
        adapter.incremental_alter(topic, {"max.message.bytes": "2000000"})
        both_configs(topic, "2000000", "3600000")
        adapter.incremental_alter(topic, {"retention.ms": None})
        both_configs(topic, "2000000", "604800000")

    @case("an_altered_limit_is_in_force", "incremental_alter")
    def in_force():
        topic = fresh(adapter, "force")
        adapter.incremental_alter(topic, {"max.message.bytes": "10000"})
        both_configs(topic, "10000", "604800000")
        big = [Record(bytes(range(256)) * 100)]
        expect_error(MESSAGE_TOO_LARGE, lambda: adapter.produce(topic, big))

    @case("delete_records", "delete_records")
    def delete_records():
        topic = fresh(adapter, "records")
        adapter.produce(topic, numbered(10))
        check_equal(adapter.delete_records(topic, 0, 4), 4, "low watermark")
        check_equal(adapter.beginning_offsets(topic, [0]), {0: 4}, "beginning")
        read = adapter.consume(topic, {0: 0}, 6, reset="earliest")
        check_equal([r.offset for r in read], [4, 5, 6, 7, 8, 9], "offsets read")
        check_equal(adapter.delete_records(topic, 0, -1), 10, "low watermark of all")
        check_equal(adapter.end_offsets(topic, [0]), {0: 10}, "end")

    @case("delete_records_past_the_end", "delete_records")
    def past_the_end():
        topic = fresh(adapter, "past")
        adapter.produce(topic, numbered(3))
        expect_error(OFFSET_OUT_OF_RANGE, lambda: adapter.delete_records(topic, 0, 4))

    @case("describe_cluster", "describe_cluster")
    def describe_cluster():
        cluster = adapter.describe_cluster()
        check(cluster["cluster_id"], "has an id")
        check_equal(len(cluster["nodes"]), int(os.environ.get("BROKERS", "1")), "nodes")
        check(cluster["controller"] in cluster["nodes"], "the controller is a node")
        check_equal(adapter.describe_cluster()["cluster_id"], cluster["cluster_id"], "the id stays")

    @case("elect_leaders", "elect_leaders")
    def elect_leaders():
        topic = fresh(adapter, "led", 2)
        for preferred in (True, False):
            codes = adapter.elect_leaders(topic, [0, 1, 2], preferred)
            wanted = {0: ELECTION_NOT_NEEDED, 1: ELECTION_NOT_NEEDED, 2: UNKNOWN_TOPIC_OR_PARTITION}
            check_equal(codes, wanted, f"preferred: {preferred}")

    @case("log_dirs", "log_dirs")
    def log_dirs():
        topic = fresh(adapter, "dirs", 2)
        adapter.produce(topic, numbered(10, size=1000))
        sizes = adapter.log_dirs(topic)
        check_equal(set(sizes), {0, 1}, "partitions")
        check(sizes[0] >= 10_000, f"bytes of partition 0: {sizes[0]}")

    @case("delete_topic_and_create_again")
    def delete_topic():
        topic = fresh(adapter, "again")
        adapter.produce(topic, numbered(5))
        adapter.delete_topic(topic)
        eventually_equal(lambda: topic in adapter.topics(), False, "the topic is listed")
        recreate(adapter, topic)
        adapter.produce(topic, [Record(b"new", b"k")])
        check_equal(content(adapter.consume(topic, {0: 0}, 1)), [(b"k", b"new")], "records")
        check_equal(adapter.end_offsets(topic, [0]), {0: 1}, "end")


def recreate(adapter, topic):
    """Deletion may finish behind its answer, on other nodes for example."""
    from runner import BrokerError

    deadline = time.monotonic() + 20
    while True:
        try:
            return adapter.create_topic(topic, 1, {})
        except BrokerError as error:
            if error.code != TOPIC_ALREADY_EXISTS or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def register_errors(case, adapter):
    def refused(name, code, call, *needs):
        case(name, *needs)(lambda: expect_error(code, call))

    def create(name, partitions=1, config=None, **more):
        return lambda: adapter.create_topic(name, partitions, config or {}, **more)

    @case("duplicate_topic")
    def duplicate():
        expect_error(TOPIC_ALREADY_EXISTS, create(fresh(adapter, "duplicate")))

    refused("invalid_topic_name", INVALID_TOPIC, create("no spaces"))
    refused("topic_name_too_long", INVALID_TOPIC, create("x" * 250))
    refused("invalid_partitions", INVALID_PARTITIONS, create(topic_name("zero"), 0), "zero_partitions")
    refused("invalid_replication", INVALID_REPLICATION_FACTOR, create(topic_name("rf"), replication=3))
    refused("unknown_config", INVALID_CONFIG, create(topic_name("cfg"), 1, {"no.such.config": "1"}))
    refused("invalid_config", INVALID_CONFIG, create(topic_name("cfg"), 1, {"retention.ms": "soon"}))
    refused(
        "delete_unknown_topic", UNKNOWN_TOPIC_OR_PARTITION, lambda: adapter.delete_topic(topic_name("none"))
    )

    @case("fewer_partitions", "create_partitions")
    def fewer():
        topic = fresh(adapter, "fewer", 3)
        expect_error(INVALID_PARTITIONS, lambda: adapter.create_partitions(topic, 2))
        expect_error(INVALID_PARTITIONS, lambda: adapter.create_partitions(topic, 3))

    refused(
        "create_partitions_of_unknown_topic",
        UNKNOWN_TOPIC_OR_PARTITION,
        lambda: adapter.create_partitions(topic_name("none"), 2),
        "create_partitions",
    )
    refused(
        "describe_configs_of_unknown_topic",
        UNKNOWN_TOPIC_OR_PARTITION,
        lambda: adapter.describe_config(topic_name("none")),
        "describe_errors",
    )
    refused(
        "alter_configs_of_unknown_topic",
        UNKNOWN_TOPIC_OR_PARTITION,
        lambda: adapter.incremental_alter(topic_name("none"), {"retention.ms": "1000"}),
        "incremental_alter",
    )

    @case("alter_to_an_invalid_config", "incremental_alter")
    def invalid_alter():
        topic = fresh(adapter, "badalter")
        expect_error(INVALID_CONFIG, lambda: adapter.incremental_alter(topic, {"cleanup.policy": "keep"}))
        check_equal(adapter.describe_config(topic).get("cleanup.policy"), "delete", "cleanup.policy")

    @case("compacted_topic_needs_keys", "invalid_record")
    def needs_keys():
        topic = fresh(adapter, "compact", 1, {"cleanup.policy": "compact"})
        expect_error(INVALID_RECORD, lambda: adapter.produce(topic, [Record(b"v", None)]))
        adapter.produce(topic, [Record(b"v", b"k")])
        check_equal(content(adapter.consume(topic, {0: "earliest"}, 1)), [(b"k", b"v")], "records")
