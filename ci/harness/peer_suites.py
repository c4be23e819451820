"""The suites that others wrote: which package at which version, how its tests run, and which are left out and why.

It starts no broker. Every test of a package runs, but for those that are named here with a reason.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass

import install
import peer_proxy
import peer_results
import peer_sources
import shell
from paths import INSTALLED, VENV_PYTHON
from peer_results import LeftOut

NO_TLS = "Millrace has no TLS"
NO_SASL = "Millrace has no authentication"
NO_ACLS = "Millrace has no access control lists"
NO_QUOTAS = "Millrace has no quotas"
MORE_BROKERS = "wants a cluster of several brokers"
DOCKER = "works on the brokers of its cluster by Docker"
CALLS_NIL = "calls a function that is nil, whatever the broker"


@dataclass(frozen=True)
class Suite:
    """`run(suite, bootstrap, log)` gives the exit code and the outcomes."""

    name: str
    version: str
    run: Callable
    seconds_max: int
    # In every run, not only with --peers.
    always: bool = False
    left_out: tuple = ()
    # Of the broker.
    options: tuple = ()
    # Of the broker, where the tests know no other than the default one.
    port: int = 0


def kafka_python(broker_version, edits=()):
    """A release of kafka-python; `broker_version` is the newest Kafka it knows, whose requests it then uses.

    `edits` are changes of its files: name, old and new text.
    """

    def run(suite, bootstrap, log):
        install.python()
        folder = peer_sources.lay_out("kafka-python", peer_sources.from_pypi("kafka-python", suite.version))
        for name, old, new in edits:
            edit(folder / name, old, new)
        env = {
            "KAFKA_URI": f"kafka://{bootstrap}",
            "KAFKA_VERSION": broker_version,
            # Where it would look for a broker to start.
            "KAFKA_ROOT": str(folder),
            "PYTHONPATH": str(folder),
        }
        report = log.with_suffix(".xml")
        report.unlink(missing_ok=True)
        limits = ["--timeout=60", "--timeout-method=signal"]
        command = [VENV_PYTHON, "-m", "pytest", "-q", *limits, "-p", "no:cacheprovider", "--junitxml", report]
        code = shell.run([*command, "test/integration"], log, suite.seconds_max, cwd=folder, env=env)
        return code, peer_results.pytest(report)

    return run


def crate(features=(), env=lambda bootstrap: {}, edits=()):
    """A suite of a crate; `edits` are changes of its files: name, old and new text."""

    def run(suite, bootstrap, log):
        install.need("gcc", "g++", "make")
        folder = peer_sources.lay_out(suite.name, peer_sources.from_crates(suite.name, suite.version))
        for name, old, new in edits:
            edit(folder / name, old, new)
        environment = {
            **env(bootstrap),
            # One folder for all that is built over librdkafka: it is built once.
            "CARGO_TARGET_DIR": str(INSTALLED / "rdkafka"),
            "CARGO_PROFILE_DEV_DEBUG": "false",
            "CARGO_TERM_COLOR": "never",
        }
        command = ["cargo", "test", "--locked", "--no-fail-fast", "--test", "*"]
        command += ["--features", ",".join(features)] if features else []
        built = shell.run([*command, "--no-run"], log.with_suffix(".build.log"), 900, cwd=folder, env=environment)
        if built != 0:
            raise shell.CommandFailed(f"{suite.name} was not built:\n{shell.tail(log.with_suffix('.build.log'))}")
        # To these programs every name is a part of one.
        arguments = [part for name in not_started(suite) for part in ("--skip", name.strip("*"))]
        code = shell.run([*command, "--", *arguments], log, suite.seconds_max, cwd=folder, env=environment)
        return code, peer_results.cargo(log.read_text(errors="replace"))

    return run


def go_module(module, packages, env=lambda bootstrap: {}):
    def run(suite, bootstrap, log):
        folder = peer_sources.lay_out(suite.name, peer_sources.from_go(module, suite.version))
        command = ["go", "test", "-json", "-count=1", f"-timeout={suite.seconds_max}s"]
        if names := not_started(suite):
            command += ["-skip", go_names(names)]
        # Of a copy: what its authors' older Go left out of go.mod may be written there.
        writable = {"GOFLAGS": "-mod=mod", **env(bootstrap)}
        code = shell.run([*command, *packages], log, suite.seconds_max + 300, cwd=folder, env=writable)
        return code, peer_results.go(log.read_text(errors="replace"))

    return run


# Where its proxies listen; the first stands before the broker that the tests know as number 1.
PROXIED_PORT = 29091


def sarama(suite, bootstrap, log):
    """It wants a cluster behind proxies that can be cut; here all proxies lead to one broker."""
    folder = peer_sources.lay_out(suite.name, peer_sources.from_go("github.com/IBM/sarama", suite.version))
    tests = []
    for path in folder.glob("functional_*test.go"):
        text = path.read_text()
        tests += re.findall(r"^func (Test\w+)\(t \*testing", text, re.MULTILINE)
        path.write_text(re.sub(r"ReplicationFactor:( *)3,", r"ReplicationFactor:\g<1>1,", text))
    host, port = bootstrap.rsplit(":", 1)
    proxies = peer_proxy.serve((host, int(port)))
    try:
        env = {"TOXIPROXY_ADDR": f"http://127.0.0.1:{proxies.server_address[1]}", "KAFKA_VERSION": "4.0.0"}
        command = ["go", "test", "-json", "-count=1", "-tags=functional", f"-timeout={suite.seconds_max}s"]
        command += ["-run", go_names(tests)]
        if names := not_started(suite):
            command += ["-skip", go_names(names)]
        code = shell.run([*command, "."], log, suite.seconds_max + 300, cwd=folder, env=env)
    finally:
        proxies.shutdown()
    return code, peer_results.go(log.read_text(errors="replace"))


def edit(path, old, new):
    """Of a copy. Its time is that of this file, so that a build sees it once for each change of this table."""
    text = path.read_text()
    if old not in text:
        raise shell.CommandFailed(f"{path} has no {old!r} any more")
    path.write_text(text.replace(old, new))
    changed = os.stat(__file__).st_mtime_ns
    os.utime(path, ns=(changed, changed))


def go_names(names):
    """A regular expression of Go's: one for each level, between slashes."""
    return "|".join(f"^{re.escape(name)}$".replace("/", "$/^").replace(r"\*", ".*") for name in names)


def not_started(suite):
    """Names and patterns of the tests, without their files."""
    return [entry.tests.split("::")[-1] for entry in suite.left_out if not entry.started]


# As its tests would start a broker themselves.
KAFKA_PYTHON_OPTIONS = ("--node-id", "0", "--set", "num.partitions=4", "--set", "group.min.session.timeout.ms=100")

# Two seconds are too few on a busy machine; the poll ends as soon as there is something.
AS_LONG_AS_IT_TAKES = (
    "test/integration/test_consumer_integration.py",
    "                consumer.poll(timeout_ms=2000)",
    "                consumer.poll(timeout_ms=30000)",
)

# A subscription while the client hears of the cluster for the first time is forgotten until the metadata is old: by
# default for five minutes, whatever the broker.
SUBSCRIBED_AGAIN = (
    "test/integration/conftest.py",
    "            'heartbeat_interval_ms': 500,\n",
    "            'heartbeat_interval_ms': 500,\n            'metadata_max_age_ms': 2000,\n",
)

SUITES = [
    Suite(
        "kafka-python",
        "3.0.12",
        kafka_python("4.3.0", [AS_LONG_AS_IT_TAKES, SUBSCRIBED_AGAIN]),
        300,
        always=True,
        options=KAFKA_PYTHON_OPTIONS,
        left_out=(
            LeftOut("test_admin_integration.test_create_describe_delete_acls", NO_ACLS),
            LeftOut("test_sasl_integration.*", NO_SASL),
            LeftOut("TestSSLConnection.*", NO_TLS),
            LeftOut("test_consumer_integration.test_kafka_consumer_offsets_for_time_old", "is for brokers before 0.10.1"),
        ),
    ),
    Suite(
        "kafka-python-2",
        "2.3.3",
        kafka_python("4.0.0"),
        300,
        options=KAFKA_PYTHON_OPTIONS,
        left_out=(
            LeftOut("test_admin_integration.test_create_describe_delete_acls", NO_ACLS),
            LeftOut("test_sasl_integration.*", NO_SASL),
            LeftOut("test_consumer_integration.test_kafka_consumer_offsets_for_time_old", "is for brokers before 0.10.1"),
            LeftOut("test_consumer_integration.test_kafka_version_infer", "cannot tell brokers so new apart"),
        ),
    ),
    Suite(
        "rdkafka",
        "0.39.0",
        crate(
            ["zstd"],
            lambda bootstrap: {"KAFKA_HOST": bootstrap, "RUST_LOG": "off"},
            # These alone know no other port than the default one.
            [
                ("tests/test_high_producers.rs", '"bootstrap.servers", "localhost")', '"bootstrap.servers", get_bootstrap_server())'),
                ("tests/test_metadata.rs", "port(), 9092", 'port().to_string(), get_bootstrap_server().rsplit(":").next().unwrap()'),
            ],
        ),
        300,
        always=True,
        # As its own brokers are.
        options=("--node-id", "0", "--set", "num.partitions=3"),
        left_out=(
            LeftOut(
                "test_low_producers::test_base_producer_timeout",
                "wants a new topic to take longer than 100 ms",
                started=False,
            ),
            LeftOut(
                "test_low_consumers::test_produce_consume_message_queue_nonempty_callback",
                "counts the client's wake-ups second by second: time decides",
                started=False,
            ),
            LeftOut(
                "test_high_producers::test_future_producer_send_full",
                "measures the client's own time, without a broker",
                started=False,
            ),
        ),
    ),
    Suite(
        "franz-go",
        "v1.22.3",
        go_module(
            "github.com/twmb/franz-go",
            ["./pkg/kgo"],
            lambda bootstrap: {
                "KGO_SEEDS": bootstrap,
                "KGO_TEST_RF": "1",
                "KGO_TEST_RECORDS": "10000",
                "KGO_TEST_MAX_TOPIC_PARTS": "7",
                "KGO_LOG_LEVEL": "none",
            },
        ),
        600,
        left_out=(
            LeftOut("TestSCRAMAuth*", NO_SASL),
            LeftOut("TestOAuthAuth", NO_SASL),
            LeftOut("TestIssueProduceBrokerTooOldFailsRecords", "is for brokers that announce no Produce v2; Apache Kafka does, too"),
        ),
    ),
    Suite(
        "kafka-go",
        "v0.4.51",
        go_module(
            "github.com/segmentio/kafka-go",
            ["."],
            # The newest that its own runs are for.
            lambda _bootstrap: {"KAFKA_VERSION": "3.7.0", "KAFKA_SKIP_NETTEST": "1"},
        ),
        600,
        port=9092,
        options=("--advertise", "localhost:9092", "--set", "message.max.bytes=50331648"),
        left_out=(
            LeftOut("TestClient*ACLs", NO_ACLS),
            LeftOut("TestUnsupportedSASLMechanism", NO_SASL),
            LeftOut("Test*UserScramCredentials", NO_SASL),
            LeftOut("TestClientAlterClientQuotas", NO_QUOTAS),
            LeftOut("TestConn/test_delete_topics*", "asks for metadata so that deleted topics are made again; Millrace's answer has them"),
            LeftOut("TestConn/nettest", "its authors leave it out: it fails now and then"),
            LeftOut("TestReadTruncatedMessages", "its authors leave it out"),
            LeftOut("TestClientAdd*ToTxn", "its authors leave it out: it fails since Kafka 3.0"),
            LeftOut("TestClientInitProducerId", "its authors leave it out: it fails since Kafka 3.0"),
            LeftOut("TestClientTxnOffsetCommit", "its authors leave it out: it fails since Kafka 3.0"),
            LeftOut("TestReaderReadCompactedMessage", "wants segments of 200 bytes, which Apache Kafka refuses, too, since 4.0"),
            LeftOut("TestConsumerGroupWithMissingTopic", "is for brokers that make no topics by themselves"),
            LeftOut("TestWriter/writing_a_message_with_SASL_Plain_authentication", NO_SASL),
            LeftOut("TestReaderConsumerGroup/consumer_group_rebalance", "depends on what runs beside it, as its authors say", started=False),
            # A panic would end all others.
            LeftOut("TestReaderConsumerGroup/verify_offset_committed*", CALLS_NIL, started=False),
            LeftOut("TestReaderConsumerGroup/consumer_group_commits_on_close", CALLS_NIL, started=False),
        ),
    ),
    Suite(
        "sarama",
        "v1.61.1",
        sarama,
        600,
        # As its own brokers are.
        options=("--advertise", f"127.0.0.1:{PROXIED_PORT}", "--set", "auto.create.topics.enable=false"),
        left_out=(
            LeftOut("TestFuncAdminQuotas", NO_QUOTAS),
            LeftOut("TestFuncAdminDescribeLogDirs", MORE_BROKERS),
            LeftOut("TestFuncAdminAlterPartitionReassignments", MORE_BROKERS),
            LeftOut("TestConsumerFetchFollowerFailover", MORE_BROKERS),
            LeftOut("TestFuncAdminListConsumerGroupOffsets", DOCKER, started=False),
            LeftOut("TestFuncTxnProduceWithBrokerFailure", DOCKER, started=False),
            LeftOut("TestFuncIdempotentBufferedSequence", DOCKER, started=False),
            LeftOut("TestFuncJavaInterop*", DOCKER),
            LeftOut("TestJava*", DOCKER),
            LeftOut("TestReadOnlyAndAllCommittedMessages", "its authors leave it out: it fails now and then"),
        ),
    ),
]
