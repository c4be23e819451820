"""The steps of a run, each by a name that `--only` takes. A step counts into the report and never raises past `run`."""

import re
import sys
import time
from dataclasses import dataclass

import broker
import image
import install
import shell
from paths import CLIENTS, HARNESS, LOGS, MILLRACE, ROOT, VENV_PYTHON


# Histories of every run; `ci/night` runs more, from another seed.
SIM_SEEDS = 2000
# Of each kind of coordinator; `unit` has some hundreds.
COORDINATOR_SEEDS = 1000
# Histories within which each deliberate bug has to be caught.
PLANT_SEEDS = 1000
# Shards that are brokers of their own, in the suite that has them.
CORES = 2
# Kafka's default of 3 s, in which more members may come, is for groups larger than those of the suites.
REBALANCE_DELAY = ["--set", "group.initial.rebalance.delay.ms=100"]


# What the instructions of the produce path are counted of.
EXAMPLE = "produce_path"


@dataclass
class Options:
    broker: str
    binary: str
    kills: int
    seed: str | None


class Run:
    def __init__(self, report, options):
        self.report = report
        self.options = options
        self.built = False

    def harness(self):
        log = LOGS / "harness.log"
        command = [sys.executable, "-m", "unittest", "-v", "test_harness", "test_hostile", "test_peers", "test_bench"]
        env = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(ROOT / "perf" / "bench")}
        code = shell.run(command, log, 60, cwd=HARNESS, env=env)
        text = log.read_text(errors="replace")
        passed = len(re.findall(r" \.\.\. ok$", text, re.MULTILINE))
        self.report.ok(passed)
        self.report.say(f"harness: {passed} passed")
        if code != 0 or passed == 0:
            self.report.fail("harness", f"exit code {code}:\n{shell.tail(log)}")

    # Rust -----------------------------------------------------------------------------------------------------------

    def verify(self):
        log = LOGS / "verify.log"
        code = shell.run(["nice", "ci/verify"], log, 1200, cwd=ROOT)
        self.count_lines("verify", log, code, None)

    def unit(self):
        self.cargo_test("unit", [], {})

    def coordinators(self):
        # The binaries are those of `unit`.
        env = {"COORDINATOR_SEEDS": str(COORDINATOR_SEEDS)}
        self.cargo_test("coordinators", ["--lib", "--", "tests::histories", "tests::consumer_histories"], env)

    def cargo_test(self, name, arguments, env):
        log = LOGS / f"{name}.log"
        command = ["cargo", "test", "--workspace", "--features", "millrace-ci/plants", "--no-fail-fast", *arguments]
        code = shell.run(command, log, 1500, cwd=ROOT, env=env)
        text = log.read_text(errors="replace")
        counted = count_cargo(text)
        self.report.ok(counted.passed)
        for test in counted.failures:
            self.report.fail(f"{name}/{test}")
        if counted.ignored:
            self.report.skip(f"{name}/ignored", f"{counted.ignored} ignored tests", counted.ignored)
        self.report.say(f"{name}: {counted.passed} passed, {len(counted.failures)} failed")
        if counted.failures:
            self.report.show(said_by_failures(text) or shell.tail(log, 80))
        if code != 0 and not counted.failures:
            self.report.fail(name, f"cargo test ended with {code}:\n{shell.tail(log)}")
        if code == 0 and counted.passed == 0:
            self.report.fail(name, "no test was run")

    def sim(self):
        log = LOGS / "sim.log"
        started = time.monotonic()
        code = shell.run(["ci/sim", "--seeds", str(SIM_SEEDS)], log, 1500, cwd=ROOT)
        self.count_histories("sim", log, code, SIM_SEEDS, time.monotonic() - started)

    def plants(self):
        log = LOGS / "plants.log"
        code = shell.run(["ci/sim", "--plants", "--seeds", str(PLANT_SEEDS)], log, 1500, cwd=ROOT)
        text = log.read_text(errors="replace")
        ended = re.search(r"^(\d+) plants, (\d+) escaped$", text, re.MULTILINE)
        if not ended:
            self.report.fail("plants", f"did not come to its end (exit code {code}):\n{shell.tail(log)}")
            return
        plants, escaped = int(ended[1]), int(ended[2])
        self.report.ok(plants - escaped)
        self.report.say(f"plants: {plants - escaped} of {plants} caught")
        if escaped or code != 0 or plants == 0:
            self.report.fail("plants", f"exit code {code}:\n{shell.tail(log)}")

    def count_histories(self, name, log, code, wanted, seconds):
        text = log.read_text(errors="replace")
        ended = re.search(r"^(\d+) histories, (\d+) violations$", text, re.MULTILINE)
        if not ended or int(ended[1]) != wanted:
            self.report.fail(name, f"did not come to its end (exit code {code}):\n{shell.tail(log)}")
            return
        histories, violations = int(ended[1]), int(ended[2])
        self.report.ok(histories - violations)
        for failure in re.findall(r"^(seed \d+: .*)$", text, re.MULTILINE):
            self.report.fail(f"{name}/{failure}")
        self.report.say(f"{name}: {histories} histories, {violations} violations ({seconds:.0f} s)")
        if code != (1 if violations else 0):
            self.report.fail(f"{name}/exit", f"exit code {code}:\n{shell.tail(log)}")

    def release(self):
        if self.built or self.options.broker == "kafka" or self.options.binary != str(MILLRACE):
            return
        log = LOGS / "release.log"
        shell.must_run(["cargo", "build", "--release", "-p", "millrace"], log, 1500, cwd=ROOT)
        self.built = True
        self.report.ok()
        self.report.say("release: built")

    def instructions(self):
        if self.options.broker == "kafka" or self.options.binary != str(MILLRACE):
            return
        install.need("valgrind")
        self.release()
        command = ["cargo", "build", "--release", "-p", "millrace", "--example", EXAMPLE]
        shell.must_run(command, LOGS / "instructions-build.log", 1500, cwd=ROOT)
        log = LOGS / "instructions.log"
        program = ROOT / "target" / "release" / "examples" / EXAMPLE
        code = shell.run([sys.executable, HARNESS / "instructions.py", "--example", program], log, 600)
        self.count_lines("instructions", log, code, None)

    # Clients --------------------------------------------------------------------------------------------------------

    def kafka_python(self):
        self._python_suite("kafka_python")

    def confluent(self):
        """Of the two suites over librdkafka, this one has each shard as a broker of its own."""
        self._python_suite("confluent", CORES)

    def aiokafka(self):
        self._python_suite("aiokafka")

    def _python_suite(self, name, brokers=1):
        install.python()
        self._suite(name, [VENV_PYTHON, CLIENTS / "python" / f"suite_{name}.py"], brokers=brokers)

    def kafkajs(self):
        install.node()
        suite = CLIENTS / "node" / "suite.js"
        self._suite("kafkajs", ["node", suite], env={"NODE_PATH": str(install.NODE / "node_modules")})

    def rdkafka(self):
        self._suite("rdkafka", [install.rdkafka()])

    def java(self):
        install.java()
        classes = f"{install.JAVA_CLASSES}:{install.JAVA_LIBS}/*"
        self._suite("java", ["java", "-Xmx512m", "-cp", classes, "Suite"])

    def kafka_tools(self):
        """Kafka's own command line, all of it in one JVM."""
        install.reference_tools()
        install.python()
        suite = CLIENTS / "python" / "suite_kafka_tools.py"
        env = {"TOOLS_LIBS": str(install.TOOLS_LIBS), "TOOLS_RUNNER": str(CLIENTS / "tools" / "Tools.java")}
        self._suite("kafka-tools", [VENV_PYTHON, suite], env=env)

    def peers(self):
        """The part of `peers-all` that every run has."""
        install.python()
        self._program("peers", 900)

    def peers_all(self):
        install.python()
        self._program("peers", 3600, ["--all"])

    def _suite(self, name, command, env=None, brokers=1):
        """Runs a client suite against a broker of its own, whose clean stop is one more test.

        With more brokers it is one node whose shards are as many; Apache Kafka is always one.
        """
        self.release()
        if self.options.broker == "kafka":
            brokers = 1
        process = self._broker(name, brokers)
        env = {**(env or {}), "BROKERS": str(brokers)}
        log = LOGS / f"suite-{name}.log"
        try:
            process.start()
            started = time.monotonic()
            code = shell.run([*command, process.bootstrap], log, 900, env=env)
            self.count_lines(name, log, code, time.monotonic() - started)
            if brokers > 1:
                self._crossed_none(name, process)
            process.stop()
            self.report.ok()
        except broker.BrokerFailed as error:
            self.report.fail(f"{name}/broker", str(error))
        finally:
            process.remove()

    def _crossed_none(self, name, process):
        """Whoever follows metadata talks to the shard that has the partition, always."""
        counts = process.metric("millrace_requests_crossed_total")
        if not counts or any(counts.values()):
            self.report.fail(f"{name}/crossed", f"requests for another shard: {counts}")
        else:
            self.report.ok()

    def _broker(self, name, brokers=1):
        log = LOGS / f"broker-{name}.log"
        if self.options.broker == "kafka":
            install.reference_broker()
            return broker.Kafka(name, log)
        cores = ["--shards", brokers, "--advertise-cores"] if brokers > 1 else []
        return broker.Millrace(name, self.options.binary, options=[*REBALANCE_DELAY, *cores], log=log)

    # The process ----------------------------------------------------------------------------------------------------

    def seed(self):
        self._program("seed", 300)

    def process(self):
        self._program("process", 600)

    def groups_restart(self):
        """Of the client suites the one that starts and stops its broker itself."""
        install.python()
        if self.options.broker == "kafka":
            install.reference_broker()
        self.release()
        log = LOGS / "groups-restart.log"
        started = time.monotonic()
        options = ["--broker", self.options.broker, "--binary", self.options.binary]
        command = [VENV_PYTHON, CLIENTS / "python" / "suite_restart.py", *options]
        code = shell.run(command, log, 300, env={"PYTHONPATH": str(HARNESS)})
        self.count_lines("groups-restart", log, code, time.monotonic() - started)

    def hostile(self):
        self._program("hostile", 300)

    def hostile_long(self):
        self._program("hostile", 1800, ["--long"])

    def logtools(self):
        # Demands java and mvn before anything is built.
        install.reference_broker()
        install.reference_tools()
        self._program("logtools", 900)

    def disks(self):
        install.loop_devices(image.TOOLS)
        try:
            install.need(*image.XFS_TOOLS)
        except install.Missing as missing:
            # The program says what is left out for want of it.
            self.report.say(f"disks: {missing}")
        self._program("disks", 300)

    def crash(self):
        self._program("crash", 300 + 20 * self.options.kills, ["--kills", str(self.options.kills), *self._seed()])

    def _seed(self):
        return ["--seed", self.options.seed] if self.options.seed else []

    # Transactions, and what is built on them -------------------------------------------------------------------------

    def streams(self):
        install.streams()
        self._program("streams", 600, self._seed())

    def streams_long(self):
        install.streams()
        self._program("streams", 2400, ["--long", *self._seed()])

    def connect(self):
        install.connect()
        self._program("connect", 600)

    def connect_long(self):
        install.connect()
        self._program("connect", 2400, ["--long"])

    def torture(self):
        install.java()
        self._program("torture", 600, self._seed())

    def torture_long(self):
        install.java()
        self._program("torture", 2400, ["--long", *self._seed()])

    def _program(self, name, seconds_max, options=()):
        if self.options.broker == "kafka" and name in ("process", "hostile", "logtools", "disks"):
            self.report.skip(name, "is about Millrace's own process")
            return
        install.python()
        self.release()
        started = time.monotonic()
        log = LOGS / f"{name}.log"
        command = [VENV_PYTHON, HARNESS / f"{name}.py", "--broker", self.options.broker, "--binary", self.options.binary]
        code = shell.run([*command, *options], log, seconds_max)
        self.count_lines(name, log, code, time.monotonic() - started)

    def count_lines(self, name, log, code, seconds):
        """Counts the `ok NAME`, `FAIL NAME: why` and `skip NAME: why` lines of a program's log; `note TEXT` is passed on."""
        text = log.read_text(errors="replace")
        passed = len(re.findall(r"^ok \S", text, re.MULTILINE))
        failures = re.findall(r"^FAIL (.*)$", text, re.MULTILINE)
        for note in re.findall(r"^note (.*)$", text, re.MULTILINE):
            self.report.say(f"{name}: {note}")
        self.report.ok(passed)
        for left_out, why in re.findall(r"^skip (\S+): (.*)$", text, re.MULTILINE):
            self.report.skip(f"{name}/{left_out}", why)
        for failure in failures:
            self.report.fail(f"{name}/{failure}")
        took = f" ({seconds:.0f} s)" if seconds else ""
        self.report.say(f"{name}: {passed} passed, {len(failures)} failed{took}")
        if failures:
            self.report.show(shell.tail(log))
        ran = re.search(r"^ran (\d+)$", text, re.MULTILINE)
        if name != "verify" and not (ran and int(ran[1]) == passed + len(failures)):
            self.report.fail(f"{name}/end", f"did not come to its end (exit code {code}):\n{shell.tail(log)}")
        elif code != (1 if failures else 0):
            self.report.fail(f"{name}/exit", f"exit code {code}:\n{shell.tail(log)}")
        elif passed + len(failures) == 0:
            self.report.fail(f"{name}/empty", "no test was run")

    def run(self, name):
        self.report.say(f"-- {name}")
        try:
            getattr(self, name.replace("-", "_"))()
        except install.Missing as missing:
            self.report.skip(name, str(missing))
        except (shell.CommandFailed, OSError) as error:
            self.report.fail(name, str(error))


STEPS = {
    "harness": "the harness itself: that it sees losses, duplicates and failures",
    "verify": "format, clippy, layering, style (ci/verify)",
    "unit": "the workspace's own tests (cargo test --workspace)",
    "coordinators": "thousands of random histories of groups, transactions and share groups",
    "sim": "histories of a simulated node (ci/sim)",
    "plants": "deliberate bugs, each of which the simulation has to catch (ci/sim --plants)",
    "release": "the release build that the following ones run against",
    "instructions": "instructions of the produce path against their budget (needs valgrind)",
    "seed": "the first example: ten records with the Python client's defaults on port 9092",
    "kafka-python": "client suite",
    "confluent": "client suite (confluent-kafka, librdkafka)",
    "aiokafka": "client suite",
    "kafkajs": "client suite (needs node, npm)",
    "java": "client suite (needs java, mvn)",
    "rdkafka": "client suite (Rust over librdkafka)",
    "kafka-tools": "Kafka's own command-line tools (needs java, mvn)",
    "peers": "the tests that other projects ship in their packages: kafka-python, the crate rdkafka",
    "peers-all": "all of them; also as --peers (needs go)",
    "process": "start, stop, locks, signals of the real process",
    "groups-restart": "offsets and members of consumer groups when the broker stops or is killed",
    "hostile": "garbage, half frames, bombs, ten thousand connections, clients that never read: each harms only itself",
    "hostile-long": "the same, each for half a minute",
    "logtools": "log verify, dump, repair and adopt on real files; Kafka's own dump tool (needs java, mvn)",
    "disks": "disks that run full, fail or cannot be written (needs root and loop devices)",
    "crash": "SIGKILL under load and restart, many times",
    "streams": "Kafka Streams counts words exactly once while it and the broker are killed (needs java, mvn)",
    "streams-long": "the same for several minutes, with two processes",
    "connect": "Kafka Connect moves files, stopped and killed in the middle (needs java, mvn)",
    "connect-long": "the same for several minutes, the broker killed too",
    "torture": "transactions copy records exactly once while clients and the broker are killed (needs java, mvn)",
    "torture-long": "the same for several minutes",
}
# Too long for every run: `ci/night` has them, and `--only`.
AT_NIGHT = {"plants", "hostile-long", "peers-all", "streams-long", "connect-long", "torture-long"}
# What mostly waits for clients and processes leaves the processor to others: these run beside each other, after the rest.
LANES = [
    ["verify", "instructions"],
    ["kafka-python", "confluent", "aiokafka", "kafkajs", "java", "rdkafka", "kafka-tools", "peers"],
    # The first two want the default ports.
    ["seed", "process", "groups-restart", "hostile", "logtools", "disks", "crash"],
    # These wait for sessions that have to end by themselves.
    ["streams", "connect", "torture"],
]


@dataclass
class Counted:
    passed: int
    ignored: int
    failures: list


def said_by_failures(text):
    """What the failed tests in the output of `cargo test` printed, which stands long before its end."""
    said = re.findall(r"^---- .+? stdout ----$.*?(?=^---- .+? stdout ----$|^failures:$|\Z)", text, re.MULTILINE | re.DOTALL)
    return "\n".join("\n".join(one.splitlines()[:shell.TAIL_LINES]) for one in said)


def count_cargo(text):
    """Sums up the results of all test binaries in the output of `cargo test`."""
    results = re.findall(r"^test result: \S+ (\d+) passed; (\d+) failed; (\d+) ignored", text, re.MULTILINE)
    passed, ignored = sum(int(r[0]) for r in results), sum(int(r[2]) for r in results)
    failures = re.findall(r"^test (.+) \.\.\. FAILED$", text, re.MULTILINE)
    # A name may be missing (output torn by threads); the count is not.
    unnamed = sum(int(r[1]) for r in results) - len(failures)
    return Counted(passed, ignored, failures + ["(unnamed)"] * max(0, unnamed))
