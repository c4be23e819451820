"""What operators do with Apache Kafka's own command-line tools: topics, settings, records, transactions, the cluster itself.

Knows what the tools print, and no broker: each case holds for Apache Kafka, too, unless it says what one node does instead.
"""

import json
import re

from cases import Record, fresh
from confluent_kafka import Producer
from kafka_tools import file_of
from runner import check, check_equal, eventually_equal, topic_name

TOPICS = "TopicCommand"
CONFIGS = "ConfigCommand"
OFFSETS = "GetOffsetShell"
CONSOLE_PRODUCER = "ConsoleProducer"
CONSOLE_CONSUMER = "consumer.ConsoleConsumer"
REASSIGN = "reassign.ReassignPartitionsCommand"
TRANSACTIONS = "TransactionsCommand"
QUORUM = "MetadataQuorumCommand"
FEATURES = "FeatureCommand"


def register(suite, adapter, tools):
    topics(suite, tools)
    settings(suite, adapter, tools)
    records(suite, adapter, tools)
    cluster(suite, adapter, tools)
    moves(suite, adapter, tools)
    loads(suite, adapter, tools)
    transactions(suite, adapter, tools)


def said(lines):
    return " | ".join(lines)


def settings_in(lines):
    """Name and value of each setting that `kafka-configs --describe` prints."""
    found = (re.match(r"\s+([\w.]+)=(.*?) sensitive=", line) for line in lines)
    return {m[1]: m[2] for m in found if m}


def rows(lines):
    """The rows of a table in which no cell but the last is empty or holds blanks."""
    cells = [line.split() for line in lines if not line.startswith("WARN")]
    return [dict(zip(cells[0], row, strict=False)) for row in cells[1:]]


def objects(text):
    """JSON objects one behind the other, on a line or not; what is between them holds no brace."""
    decoder, at = json.JSONDecoder(), text.find("{")
    while at >= 0:
        found, end = decoder.raw_decode(text, at)
        yield found
        at = text.find("{", end)


def topics(suite, tools):
    def topic():
        name = topic_name("tool")
        scope = ("--topic", name)
        tools.at(TOPICS, "--create", *scope, "--partitions", 3, "--config", "retention.ms=1000000")
        again = said(tools.at(TOPICS, "--create", *scope, code=1))
        check("already exists" in again, again)
        tools.at(TOPICS, "--create", *scope, "--if-not-exists")
        check(name in tools.at(TOPICS, "--list"), "it is listed")
        first, *partitions = tools.at(TOPICS, "--describe", *scope)
        for part in ("PartitionCount: 3", "ReplicationFactor: 1", "retention.ms=1000000"):
            check(part in first, f"{part} in {first}")
        check(re.search(r"TopicId: [\w-]{22}", first), first)
        found = [re.search(r"Partition: (\d)\s+Leader: (\d+)\s+Replicas: (\d+)\s+Isr: (\d+)", line) for line in partitions]
        check_equal([m[1] for m in found], ["0", "1", "2"], "partitions")
        check(all(m[2] == m[3] == m[4] for m in found), "one replica, which leads")
        tools.at(TOPICS, "--alter", *scope, "--partitions", 5)
        check_equal(len(tools.at(TOPICS, "--describe", *scope)), 6, "lines after it grew")
        fewer = said(tools.at(TOPICS, "--alter", *scope, "--partitions", 2, code=1))
        check("currently has 5 partition" in fewer, fewer)
        for of in ("--under-replicated-partitions", "--unavailable-partitions", "--at-min-isr-partitions"):
            check_equal(len(tools.at(TOPICS, "--describe", *scope, of)), 5 if "at-min" in of else 0, of)
        tools.at(TOPICS, "--delete", *scope)
        eventually_equal(lambda: name in tools.at(TOPICS, "--list"), False, "it is listed after the deletion")
        gone = said(tools.at(TOPICS, "--delete", *scope, code=1))
        check("does not exist" in gone, gone)

    def refused():
        for options, why in (
            (("--partitions", 1, "--replication-factor", 3), "Unable to replicate the partition 3 time"),
            (("--config", "segment.bytes=1"), "segment.bytes"),
            (("--partitions", 0), "greater than 0"),
        ):
            text = said(tools.at(TOPICS, "--create", "--topic", topic_name("refused"), *options, code=1))
            check(why.lower() in text.lower(), f"{options}: {text}")

    suite.add("tool_topics", topic)
    suite.add("tool_topics_refused", refused)


def settings(suite, adapter, tools):
    def of_a_topic():
        topic = fresh(adapter, "settings")
        scope = ("--entity-type", "topics", "--entity-name", topic)
        changes = "max.message.bytes=2000000,cleanup.policy=[compact,delete]"
        tools.at(CONFIGS, "--alter", *scope, "--add-config", changes)
        wanted = {"max.message.bytes": "2000000", "cleanup.policy": "compact,delete"}
        eventually_equal(lambda: settings_in(tools.at(CONFIGS, "--describe", *scope)), wanted, "what is set")
        every = tools.at(CONFIGS, "--describe", *scope, "--all")
        values = settings_in(every)
        check(values["retention.ms"] == "604800000" and len(values) > 20, f"all settings: {values}")
        (line,) = [line for line in every if "max.message.bytes=" in line.split("sensitive")[0]]
        synonyms = "DYNAMIC_TOPIC_CONFIG:max.message.bytes=2000000, DEFAULT_CONFIG:message.max.bytes=1048588"
        check(synonyms in line, f"synonyms: {line}")
        tools.at(CONFIGS, "--alter", *scope, "--delete-config", "max.message.bytes,cleanup.policy")
        eventually_equal(lambda: settings_in(tools.at(CONFIGS, "--describe", *scope)), {}, "what is left")
        bad = said(tools.at(CONFIGS, "--alter", *scope, "--add-config", "retention.ms=never", code=1))
        check("InvalidConfigurationException" in bad, bad)

    def of_brokers():
        own, default = ("--entity-name", broker_id(tools)), ("--entity-default",)

        def alter(scope, *change):
            tools.at(CONFIGS, "--alter", "--entity-type", "brokers", *scope, *change)

        def set_to(scope):
            return settings_in(tools.at(CONFIGS, "--describe", "--entity-type", "brokers", *scope)).get("log.retention.ms")

        alter(default, "--add-config", "log.retention.ms=8200000")
        eventually_equal(lambda: set_to(default), "8200000", "of all brokers")
        alter(own, "--add-config", "log.retention.ms=7200000")
        eventually_equal(lambda: set_to(own), "7200000", "of this broker")
        topic = fresh(adapter, "inherits")
        scope = ("--entity-type", "topics", "--entity-name", topic)
        values = settings_in(tools.at(CONFIGS, "--describe", *scope, "--all"))
        check_equal(values["retention.ms"], "7200000", "of a topic without its own")
        for scope in (own, default):
            alter(scope, "--delete-config", "log.retention.ms")
        eventually_equal(lambda: set_to(default), None, "of all brokers, in the end")
        every = settings_in(tools.at(CONFIGS, "--describe", "--entity-type", "brokers", *own, "--all"))
        check(len(every) > 40 and every["num.partitions"] == "1", f"all settings: {every}")
        fixed = tools.at(CONFIGS, "--alter", "--entity-type", "brokers", *own, "--add-config", "node.id=9", code=None)
        check("InvalidRequestException" in said(fixed) or "Cannot update" in said(fixed), said(fixed))

    suite.add("tool_configs_of_a_topic", of_a_topic)
    suite.add("tool_configs_of_brokers", of_brokers)


def broker_id(tools):
    (first, *_) = [line for line in tools.at("BrokerApiVersionsCommand") if "(id: " in line]
    return re.search(r"\(id: (\d+)", first)[1]


def records(suite, adapter, tools):
    def offsets():
        topic = fresh(adapter, "offsets", 2)
        base = 1_700_000_000_000
        # The second is the newest.
        adapter.produce(topic, [Record(b"v", timestamp=base + n) for n in (0, 50, 20)])

        def at(time):
            lines = tools.at(OFFSETS, "--topic", topic, "--time", time)
            return {int(p): at for _, p, at in (line.split(":") for line in lines)}

        check_equal(at("earliest"), {0: "0", 1: "0"}, "earliest")
        check_equal(at("latest"), {0: "3", 1: "0"}, "latest")
        check_equal(at("max-timestamp").get(0), "1", "of the newest record")
        check_equal(at("earliest-local"), {0: "0", 1: "0"}, "earliest on local disks")
        check_equal(at(base + 30).get(0), "1", "at a time")
        for tiered in ("latest-tiered", "earliest-pending-upload"):
            check(not any(at(tiered).values()), f"{tiered}: nothing is tiered")
        tools.run("DeleteRecordsCommand", "--bootstrap-server", tools.bootstrap, code=1)
        wanted = {"partitions": [{"topic": topic, "partition": 0, "offset": 2}], "version": 1}
        with file_of(json.dumps(wanted)) as path:
            lines = tools.at("DeleteRecordsCommand", "--offset-json-file", path)
        check(f"partition: {topic}-0\tlow_watermark: 2" in said(lines), said(lines))
        check_equal(at("earliest"), {0: "2", 1: "0"}, "earliest after the deletion")

    def console():
        topic = fresh(adapter, "console")
        lines = "\n".join(f"h:{n}\tk{n}\tv{n}" for n in range(10))
        parse = ("--reader-property", "parse.key=true", "--reader-property", "parse.headers=true")
        tools.at(CONSOLE_PRODUCER, "--topic", topic, *parse, "--compression-codec", "zstd", stdin=lines)
        show = [f"print.{what}=true" for what in ("key", "headers", "offset", "partition")]
        show = [part for what in show for part in ("--formatter-property", what)]
        read = tools.at(CONSOLE_CONSUMER, "--topic", topic, "--from-beginning", "--max-messages", 10, *show)
        wanted = [f"Partition:0\tOffset:{n}\th:{n}\tk{n}\tv{n}" for n in range(10)]
        check_equal([line for line in read if line.startswith("Partition")], wanted, "records")

    def coordinators_records():
        """What the coordinators write is in Kafka's own formats."""
        topic, group = fresh(adapter, "committed"), topic_name("group")
        adapter.alter_group_offsets(group, {(topic, 0): 7})
        formatter = ("--formatter", "org.apache.kafka.tools.consumer.OffsetsMessageFormatter")
        read = tools.at(
            CONSOLE_CONSUMER, "--topic", "__consumer_offsets", "--from-beginning", "--timeout-ms", 6000, *formatter, code=None
        )
        found = [r for r in objects("".join(line for line in read if line.startswith('{"key"'))) if r["key"]["data"]["group"] == group]
        at = [(r["key"]["data"]["topic"], r["key"]["data"]["partition"], r["value"]["data"]["offset"]) for r in found]
        check_equal(at, [(topic, 0, 7)], "offsets")

    suite.add("tool_get_offsets_and_delete_records", offsets)
    suite.add("tool_console_with_keys_and_headers", console)
    suite.add("tool_reads_the_coordinators_records", coordinators_records)


def cluster(suite, adapter, tools):
    def versions():
        lines = tools.at("BrokerApiVersionsCommand")
        usable = (re.match(r"\s+(\w+)\(\d+\): (?:\d+ to )?(\d+) \[usable", line) for line in lines)
        found = {m[1]: int(m[2]) for m in usable if m}
        newest = {"Produce": 13, "Fetch": 18, "Metadata": 13, "DescribeQuorum": 2, "DescribeProducers": 0}
        check_equal({name: found.get(name) for name in newest}, newest, "newest versions")

    def quorum():
        status = dict(re.split(r":\s+", line, maxsplit=1) for line in tools.at(QUORUM, "describe", "--status"))
        check(int(status["LeaderEpoch"]) > 0 and int(status["HighWatermark"]) > 0, f"{status}")
        check_equal(status["MaxFollowerLag"], "0", "lag")
        check(f'"id": {status["LeaderId"]}' in status["CurrentVoters"], f"{status}")
        (row,) = rows(tools.at(QUORUM, "describe", "--replication"))
        check_equal((row["NodeId"], row["Lag"], row["Status"]), (status["LeaderId"], "0", "Leader"), f"{row}")
        *_, line = tools.run("ClusterTool", "cluster-id", "--bootstrap-server", tools.bootstrap)
        check("Cluster ID: " in line, line)
        check_equal(line.split(": ")[1], status["ClusterId"], "cluster id")

    def features():
        lines = tools.at(FEATURES, "describe")
        (line,) = [line for line in lines if "transaction.version" in line]
        check("SupportedMaxVersion: 2" in line and "FinalizedVersionLevel: 2" in line, line)
        tools.at(FEATURES, "upgrade", "--feature", "transaction.version=2")
        there_is_none = said(tools.at(FEATURES, "upgrade", "--feature", "transaction.version=9", code=1))
        check("InvalidUpdateVersionException" in there_is_none or "Could not upgrade" in there_is_none, there_is_none)

    def brokers():
        at = ("--bootstrap-server", tools.bootstrap)
        unknown = said(tools.run("ClusterTool", "unregister", *at, "--id", 77, code=1))
        check("BrokerIdNotRegisteredException" in unknown, unknown)
        ids = [line.split()[0] for line in tools.run("ClusterTool", "list-endpoints", *at)]
        check_equal(ids[1:], [broker_id(tools)], "brokers")

    def log_dirs():
        topic = fresh(adapter, "dirs", 2)
        adapter.produce(topic, [Record(b"v" * 1000, partition=p) for p in range(2)])
        dirs = described_dirs(tools, topic)
        check_equal(len(dirs), 1, "directories")
        check(dirs[0]["logDir"].startswith("/") and dirs[0]["error"] is None, f"{dirs}")
        sizes = {p["partition"]: p["size"] for p in dirs[0]["partitions"]}
        check_equal(set(sizes), {f"{topic}-0", f"{topic}-1"}, "partitions")
        check(all(size > 1000 for size in sizes.values()), f"{sizes}")

    suite.add("tool_broker_api_versions", versions)
    suite.add("tool_metadata_quorum_and_cluster_id", quorum)
    suite.add("tool_features", features)
    suite.add("tool_cluster_brokers", brokers)
    suite.add("tool_log_dirs", log_dirs)


def described_dirs(tools, topic):
    lines = tools.at("LogDirsCommand", "--describe", "--topic-list", topic)
    (found,) = [json.loads(line) for line in lines if line.startswith("{")]
    return found["brokers"][0]["logDirs"]


def moves(suite, adapter, tools):
    def elections():
        topic = fresh(adapter, "elect")
        of_one = ("--topic", topic, "--partition", 0)
        for kind in ("preferred", "unclean"):
            text = said(tools.at("LeaderElectionCommand", "--election-type", kind, *of_one))
            check("Valid replica already elected" in text and topic in text, f"{kind}: {text}")
        tools.at("LeaderElectionCommand", "--election-type", "preferred", "--all-topic-partitions")

    def reassignment():
        topic, broker = fresh(adapter, "move", 2), broker_id(tools)
        with file_of(json.dumps({"topics": [{"topic": topic}], "version": 1})) as path:
            made = ("--generate", "--topics-to-move-json-file", path, "--broker-list", broker)
            *_, plan = [line for line in tools.at(REASSIGN, *made) if line.startswith("{")]
        check_equal({tuple(p["replicas"]) for p in json.loads(plan)["partitions"]}, {(int(broker),)}, plan)
        with file_of(plan) as path:
            text = said(tools.at(REASSIGN, "--execute", "--reassignment-json-file", path))
            check("Successfully started partition reassignments" in text, text)
            text = said(tools.at(REASSIGN, "--verify", "--reassignment-json-file", path))
            check_equal(text.count("is completed"), 2, text)
            text = said(tools.at(REASSIGN, "--cancel", "--reassignment-json-file", path))
            check("None of the specified partition moves are active" in text, text)
        text = said(tools.at(REASSIGN, "--list"))
        check("No partition reassignments found" in text, text)
        # In the one directory, by its path; and to a broker that there is not.
        (found,) = described_dirs(tools, topic)
        here = {"topic": topic, "partition": 0, "replicas": [int(broker)], "log_dirs": [found["logDir"]]}
        with file_of(json.dumps({"partitions": [here], "version": 1})) as path:
            text = said(tools.at(REASSIGN, "--execute", "--reassignment-json-file", path))
            check("Successfully started moving log directory" in text, text)
        here = {"topic": topic, "partition": 0, "replicas": [77]}
        with file_of(json.dumps({"partitions": [here], "version": 1})) as path:
            text = said(tools.at(REASSIGN, "--execute", "--reassignment-json-file", path, code=1))
            check("Unknown broker id 77" in text, text)

    suite.add("tool_leader_election", elections)
    suite.add("tool_reassign_partitions", reassignment)


def loads(suite, adapter, tools):
    def performance():
        topic = fresh(adapter, "perf", 3)
        scope = ("--topic", topic, "--num-records", 5000)
        lines = tools.at("ProducerPerformance", *scope, "--record-size", 200, "--throughput", -1)
        check("5000 records sent" in lines[-1], said(lines))
        *_, line = tools.at("ConsumerPerformance", *scope)
        check_equal(line.split(", ")[4], "5000", f"messages consumed: {line}")

    def verifiable():
        topic, group = fresh(adapter, "verifiable", 2), topic_name("group")
        lines = [json.loads(line) for line in tools.alone("VerifiableProducer", "--topic", topic, "--max-messages", 200)]
        sent = [line["value"] for line in lines if line["name"] == "producer_send_success"]
        check_equal(sorted(sent, key=int), [str(n) for n in range(200)], "acknowledged")
        options = ("--topic", topic, "--group-id", group, "--max-messages", 200, "--reset-policy", "earliest", "--verbose")
        lines = [json.loads(line) for line in tools.alone("VerifiableConsumer", *options) if line.startswith("{")]
        read = [line["value"] for line in lines if line["name"] == "record_data"]
        check_equal(sorted(read, key=int), sorted(sent, key=int), "read")
        committed = [line for line in lines if line["name"] == "offsets_committed"]
        check(committed and all(line["success"] for line in committed), f"{committed}")

    suite.add("tool_performance_of_producer_and_consumer", performance)
    suite.add("tool_verifiable_producer_and_consumer", verifiable)


def transactions(suite, adapter, tools):
    def open_one():
        topic, name = fresh(adapter, "txn"), topic_name("txn")
        producer = Producer({"bootstrap.servers": adapter.bootstrap, "transactional.id": name})
        producer.init_transactions(30)
        adapter.produce(topic, [Record(b"before")])
        producer.begin_transaction()
        producer.produce(topic, b"open", partition=0)
        check_equal(producer.flush(30), 0, "left to send")
        return topic, name, producer

    def described():
        topic, name, producer = open_one()

        def listed(*options):
            return {row["TransactionalId"]: row["TransactionState"] for row in rows(tools.at(TRANSACTIONS, "list", *options))}

        check_equal(listed().get(name), "Ongoing", "listed")
        check_equal(listed("--transactional-id-pattern", f"{name[:-2]}.*").get(name), "Ongoing", "listed by a pattern")
        check_equal(listed("--transactional-id-pattern", "x"), {}, "listed by another pattern")
        (row,) = rows(tools.at(TRANSACTIONS, "describe", "--transactional-id", name))
        check_equal((row["TransactionState"], row["TopicPartitions"]), ("Ongoing", f"{topic}-0"), "described")
        at = ("--topic", topic, "--partition", 0)
        (found,) = rows(tools.at(TRANSACTIONS, "describe-producers", *at))
        check_equal((found["ProducerId"], found["CurrentTransactionStartOffset"]), (row["ProducerId"], "1"), "producers")
        check_equal(rows(tools.at(TRANSACTIONS, "find-hanging", *at)), [], "nothing hangs")
        producer.commit_transaction(30)
        eventually_equal(lambda: listed().get(name), "CompleteCommit", "listed in the end")
        (found,) = rows(tools.at(TRANSACTIONS, "describe-producers", *at))
        check_equal(found["CurrentTransactionStartOffset"], "None", "nothing is open")

    def aborted_by_hand():
        topic, name, producer = open_one()
        at = ("--topic", topic, "--partition", 0)
        committed = ("--isolation-level", "read_committed", "--from-beginning", "--timeout-ms", 5000)

        def read():
            lines = tools.at(CONSOLE_CONSUMER, "--topic", topic, *committed, code=None)
            return [line for line in lines if line in ("before", "open", "after")]

        tools.at(TRANSACTIONS, "abort", *at, "--start-offset", 1)
        adapter.produce(topic, [Record(b"after")])
        check_equal(read(), ["before", "after"], "what was committed")
        (row,) = rows(tools.at(TRANSACTIONS, "describe-producers", *at))
        check_equal(row["CurrentTransactionStartOffset"], "None", "nothing is open")
        producer.abort_transaction(30)

    def fenced():
        _, name, producer = open_one()
        lines = tools.at(TRANSACTIONS, "forceTerminateTransaction", "--transactionalId", name, code=None)
        eventually_equal(
            lambda: rows(tools.at(TRANSACTIONS, "describe", "--transactional-id", name))[0]["TransactionState"],
            "Empty",
            f"state after {said(lines)}",
        )
        del producer

    suite.add("tool_transactions_are_described", described)
    suite.add("tool_transaction_aborted_by_hand", aborted_by_hand)
    suite.add("tool_transaction_terminated", fenced)
