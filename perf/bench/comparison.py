"""Runs scenarios against brokers in turn, round by round, and gathers what the load generator reports.

Knows the command lines of `millrace` and how brokers are started; figures it takes as they come.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import brokers
import install
import loop_disk
import starts
from broker import BrokerFailed
from shell import CommandFailed

GIB = 1 << 30
# Of a run's time the machine may have stood still for so much. A run with more of it is made again, so many times in all.
STALLED_MAX = 0.01
ATTEMPTS_MAX = 3
# A run is given up after so much longer than it should take.
OVERTIME_SECONDS = 900
# Apache Kafka needs it: until its code is compiled it is another program.
JIT_WARM_UP_SECONDS = 15
# At a rate less of it runs in a second: after 15 its slowest percent still took seconds, which later took milliseconds.
JIT_WARM_UP_SECONDS_AT_A_RATE = 40
# And it makes the files of a partition at its first record: for a thousand, 15 seconds were too few and 75 enough.
WARM_UP_SECONDS_PER_PARTITION = 0.06
JIT_WARM_UP_SECONDS_QUICK = 5
QUICK_SECONDS = 4
# Less, and a thousand new partitions are all that is measured.
QUICK_WARM_UP_SECONDS = 3
QUICK_HISTORY_BYTES = GIB


@dataclass
class Options:
    binary: Path
    folder: Path
    log: Path
    rounds: int
    quick: bool
    broker_cpu: int
    load_cpu: int
    memory: str
    free_gib: float


class Comparison:
    def __init__(self, options, variants):
        self.options = options
        self.variants = variants
        self.failures = []
        self.folder = Path(tempfile.mkdtemp(prefix="compare-", dir=options.folder))

    def remove(self):
        shutil.rmtree(self.folder, ignore_errors=True)

    def say(self, text):
        print(text, file=sys.stderr, flush=True)

    def perf(self, *arguments, seconds_max=OVERTIME_SECONDS):
        """One call of the load generator, on its core; its report, and what it said."""
        out = self.folder / "report.json"
        out.unlink(missing_ok=True)
        # In front: behind the arguments there may be another command.
        command = ["taskset", "-c", self.options.load_cpu, self.options.binary, "perf", "--json", out, *arguments]
        command = [str(part) for part in command]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds_max, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"not done after {seconds_max} s: {' '.join(command)}") from None
        # Where it fails with figures, the report says why they do not count.
        if not out.exists():
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
        return json.loads(out.read_text())

    def limits(self):
        self.say("the machine's own limits")
        seconds = 1 if self.options.quick else 3
        cores = ["--receiver-cpu", self.options.broker_cpu, "--sender-cpu", self.options.load_cpu]
        return self.perf("limits", "--dir", self.folder, "--duration", seconds, *cores)

    def broker(self, variant, folder=None, needs=None):
        """Not started yet; it is within a `with`."""
        o = self.options
        folder = folder or self.folder
        if variant.kafka:
            return brokers.Kafka(variant.name, folder, o.broker_cpu, o.log, needs, self.folder)
        return brokers.Millrace(variant.name, folder, o.broker_cpu, o.log, o.binary, o.memory, needs)

    @contextmanager
    def guarded(self, what):
        """A failure is kept and ends nothing else."""
        try:
            yield
        except (BrokerFailed, CommandFailed, RuntimeError, OSError, AssertionError, install.Missing) as why:
            # A broker's own words follow in more lines; they are in its log.
            said = (str(why) or repr(why)).splitlines()
            more = f" (see {self.options.log})" if len(said) > 1 else ""
            self.failures.append(f"{what}: {said[0]}{more}")
            self.say(f"    FAILED: {said[0]}{more}")

    def enough_room(self):
        free = shutil.disk_usage(self.folder).free / GIB
        if free < self.options.free_gib:
            wanted = f"a run may take {self.options.free_gib:g}"
            raise RuntimeError(f"only {free:.0f} GiB are free in {self.options.folder}, and {wanted}")

    def scenario(self, scenario, report):
        """All rounds of one scenario: A B C D, A B C D, ..."""
        for number in range(self.options.rounds):
            for variant in self.variants:
                what = f"{scenario['name']}, round {number + 1}, {variant.label}"
                self.say(f"  {what}")
                with self.guarded(what):
                    self.enough_room()
                    for run, error in self.run_unstalled(scenario, variant):
                        if run:
                            report["runs"].append({**run, "round": number})
                            self.failures += [f"{what}: {why}" for why in run["failures"]]
                        else:
                            report["errors"].append(error)
                            self.failures.append(f"{what}: {error['error']}")

    def run_unstalled(self, scenario, variant):
        """As `run_once`, again where the machine stood still; where it always does, the figures of the last do not count."""
        for attempt in range(1, ATTEMPTS_MAX + 1):
            found = self.run_once(scenario, variant)
            seconds = sum(stalled_seconds(run) for run, _ in found if run)
            for run, _ in found:
                if run:
                    run["attempts"] = attempt
            if not seconds:
                return found
            self.say(f"    the machine stood still for {seconds:.2f} s of it")
        for run, _ in found:
            if run and stalled_seconds(run):
                run["failures"].append(f"the machine stood still for {stalled_seconds(run):.2f} s of the last of {attempt} runs")
        return found

    def run_once(self, scenario, variant):
        """(run, None) or (None, error) of one scenario on a fresh broker."""
        needs = brokers.Needs(scenario["broker"]["settings"], scenario["broker"]["flush-delay-ms"])
        file_system = scenario["disk"]["file-system"]
        with ExitStack() as stack:
            folder = self.folder
            if file_system:
                loop_disk.demand(file_system)
                size = parse_size(scenario["disk"]["size"] or "8GiB")
                folder = stack.enter_context(loop_disk.LoopDisk(self.folder, file_system, size)).dir
            process = stack.enter_context(self.broker(variant, folder, needs))
            where = f"{variant.name}={process.bootstrap},pid={process.process.pid}"
            arguments = ["run", scenario["origin"], "--against", where, *self.load_options(scenario, variant)]
            for name, value in variant.topic_configs:
                arguments += ["--topic-config", f"{name}={value}"]
            seconds = scenario["duration-seconds"] + scenario["warm-up-seconds"]
            found = self.perf(*arguments, seconds_max=seconds + OVERTIME_SECONDS)["scenarios"][0]
            return [(run, None) for run in found["runs"]] + [(None, error) for error in found["errors"]]

    def load_options(self, scenario, variant):
        o = self.options
        options = ["--cpu", o.load_cpu, "--sink-cpu", o.broker_cpu, "--spin", "--keep-topics"]
        warm_up = scenario["warm-up-seconds"]
        if o.quick:
            options += ["--duration", QUICK_SECONDS, "--history-max", QUICK_HISTORY_BYTES, "--ceiling", 1]
            warm_up = min(warm_up, QUICK_WARM_UP_SECONDS)
        if variant.kafka:
            at_a_rate = scenario["producers"] and scenario["producers"]["rate"] != "maximum"
            least = JIT_WARM_UP_SECONDS_AT_A_RATE if at_a_rate else JIT_WARM_UP_SECONDS
            least = JIT_WARM_UP_SECONDS_QUICK if o.quick else least
            many = 0 if o.quick else scenario["topic"]["partitions"] * WARM_UP_SECONDS_PER_PARTITION
            warm_up = round(max(warm_up, least + many))
        return [*options, "--warm-up", warm_up]

    def others(self, names):
        """The parts that are no scenario; figures by (part, figure), then broker and round."""
        found = {}
        for number in range(self.options.rounds):
            for name in names:
                for variant in self.variants:
                    what = f"{name}, round {number + 1}, {variant.label}"
                    with self.guarded(what):
                        for figure, value in starts.PARTS[name](self, variant):
                            by_broker = found.setdefault((name, figure), {})
                            by_broker.setdefault(variant.name, [None] * self.options.rounds)[number] = value
        return found


def stalled_seconds(run):
    """For how long the machine stood still, where that is too much."""
    result = run["result"]
    # What is read with an end may end early; a sample is of the broker, and so of the window.
    parts = [result[name] for name in ("produced", "consumed", "backfilled") if result[name]]
    window = max((part["seconds"] for part in parts), default=0)
    stalled = (result["stalls"] or {"seconds": 0})["seconds"]
    return stalled if stalled > STALLED_MAX * window else 0


def parse_size(text):
    for unit, shift in [("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0), ("", 0)]:
        if text.endswith(unit):
            return int(text.removesuffix(unit)) << shift
    raise ValueError(text)


