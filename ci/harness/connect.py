"""Kafka Connect on a real broker: the file source and the file sink move files through it, and nothing is changed.

A standalone worker moves a file of texts of every kind. A distributed worker keeps its own state in three compacted topics,
takes its connectors by REST, and goes on where it was after a stop; after a kill a source that is exactly-once has sent each
line once all the same (the file sink is not: it may write lines again).
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import broker
import install
import txns
from child import Child
from committed import read_all
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType
from paths import LOGS
from report_lines import Lines, demand

# A start of Java, of a worker in it, and of its connectors.
SECONDS_MAX = 120
CLASSES = "org.apache.kafka.connect.file.FileStream"
STRINGS = "org.apache.kafka.connect.storage.StringConverter"
JSON = "org.apache.kafka.connect.json.JsonConverter"
GROUP = "workers"
OWN_TOPICS = {"config.storage.topic": "own-configs", "offset.storage.topic": "own-offsets", "status.storage.topic": "own-states"}
# Lines that a source sends together, in one transaction where it is exactly-once. Where a file ends within a few lines behind
# such a batch, the source keeps them to itself until more is written: all counts of lines here are chosen so that it does not.
BATCH = 200
ALPHABETS = ["abc xyz 0189", "äöüß éèà", "日本語 漢字", "\t,;\"'\\{}[]", "🦀🌊 "]


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broker", default="millrace")
    parser.add_argument("--binary")
    parser.add_argument("--long", action="store_true", help="many more kills, of the broker too")
    return parser.parse_args()


def texts(count):
    """Lines of every length and of many alphabets, empty ones among them; the same in every run."""
    chance = random.Random("texts")
    lines = []
    for number in range(count):
        size = 20_000 if number % 500 == 7 else chance.choice([0, 1, 20, 20, 80, 300])
        alphabet = chance.choice(ALPHABETS)
        lines.append("".join(chance.choice(alphabet) for _ in range(size)))
    return lines


def numbered(start, count):
    """Lines that differ. Plain ones: the file source goes on in a file by characters where it means bytes."""
    digest = hashlib.sha256
    return [f"{number} {digest(str(number).encode()).hexdigest()}" for number in range(start, start + count)]


def append(path, lines):
    with open(path, "a", encoding="utf-8", newline="") as out:
        out.writelines(f"{line}\n" for line in lines)


def wait_for(what, condition, child):
    deadline = time.monotonic() + SECONDS_MAX
    while not condition():
        child.demand_alive()
        demand(time.monotonic() < deadline, f"{what} within {SECONDS_MAX} s")
        time.sleep(0.1)


class Worker:
    """A worker's process, with its settings in a file."""

    def __init__(self, name, main, bootstrap, folder, settings, connectors=()):
        self.rest = f"http://127.0.0.1:{broker.free_port()}"
        common = {
            "bootstrap.servers": bootstrap,
            "listeners": self.rest,
            "plugin.discovery": "service_load",
            "offset.flush.interval.ms": "500",
            "reconnect.backoff.max.ms": "200",
        }
        files = [folder / f"{name}.properties"]
        files[0].write_text("".join(f"{key}={value}\n" for key, value in {**common, **settings}.items()))
        for connector in connectors:
            files.append(folder / f"{connector['name']}.properties")
            files[-1].write_text("".join(f"{key}={value}\n" for key, value in connector.items()))
        java = ["java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{install.CONNECT_LIBS}/*"]
        self.child = Child(name, [*java, f"org.apache.kafka.connect.cli.{main}", *files], LOGS / f"connect-{name}.log")

    def ask(self, path, body=None):
        """What the REST interface answers; None while it does not, or not yet."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.rest + path, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            # Still starting, or rebalancing, or not told yet of the connector by its own topic.
            demand(error.code in (404, 409, 503), f"{path}: {error.code} {error.read()[:500]}")
            return None
        except (OSError, ValueError):
            return None

    def start(self):
        self.child.start()
        wait_for("the worker answers", lambda: self.ask("/"), self.child)

    def add(self, connector):
        name = connector["name"]
        wanted = {"name": name, "config": connector}
        wait_for(f"{name} is taken", lambda: self.ask("/connectors", wanted), self.child)
        self.wait_until_running(name)

    def wait_until_running(self, name):
        def running():
            status = self.ask(f"/connectors/{name}/status")
            states = [status["connector"]["state"], *[task["state"] for task in status["tasks"]]] if status else []
            demand("FAILED" not in states, f"{name}: {status}")
            return len(states) == 2 and set(states) == {"RUNNING"}

        wait_for(f"{name} runs", running, self.child)


def source(name, path, topic, **more):
    batch = {"batch.size": str(BATCH), "topic.creation.default.replication.factor": "1"}
    what = {"connector.class": f"{CLASSES}SourceConnector", "tasks.max": "1", "file": str(path), "topic": topic}
    return {"name": name, **what, **batch, "topic.creation.default.partitions": "1", **more}


def sink(name, path, topic):
    what = {"connector.class": f"{CLASSES}SinkConnector", "tasks.max": "1", "file": str(path), "topics": topic}
    reading = {"session.timeout.ms": "3000", "heartbeat.interval.ms": "500", "isolation.level": "read_committed"}
    return {"name": name, **what, **{f"consumer.override.{setting}": value for setting, value in reading.items()}}


class Connect:
    def __init__(self, arguments):
        self.is_long = arguments.long
        self.process = broker.on_a_port("connect", arguments, {"group.min.session.timeout.ms": "1000"})
        self.process.start()
        self.bootstrap = self.process.bootstrap
        self.folder = Path(tempfile.mkdtemp(prefix="connect-"))
        self.workers = []
        self.lines = 0
        # Of the distributed worker.
        self.kills = 0

    def path(self, name):
        return self.folder / name

    def worker(self, *arguments, **more):
        worker = Worker(*arguments, **more)
        self.workers.append(worker)
        return worker

    def standalone(self):
        """Texts of all kinds, byte for byte."""
        append(self.path("texts.in"), texts(3000))
        settings = {
            "key.converter": STRINGS,
            "value.converter": STRINGS,
            "offset.storage.file.filename": self.path("standalone.offsets"),
            "connector.client.config.override.policy": "All",
        }
        connectors = [
            source("texts-in", self.path("texts.in"), "texts", **{"batch.size": "100000"}),
            sink("texts-out", self.path("texts.out"), "texts"),
        ]
        worker = self.worker(
            "standalone", "ConnectStandalone", self.bootstrap, self.folder, settings, connectors=connectors
        )
        worker.child.start()
        self.wait_until_equal(worker, "texts")
        worker.child.stop(codes=(0, 143))
        sent = self.path("texts.in").read_bytes()
        demand(self.path("texts.out").read_bytes() == sent, "the same file after the stop")
        return f"{len(sent)} bytes"

    def wait_until_equal(self, worker, name):
        sent = self.path(f"{name}.in").read_bytes()
        there = self.path(f"{name}.out")

        def equal():
            found = there.read_bytes() if there.exists() else b""
            demand(sent.startswith(found), f"{there} differs within its first {len(found)} bytes")
            return found == sent

        wait_for(f"{there} is whole", equal, worker.child)

    # Distributed ----------------------------------------------------------------------------------------------------

    def distributed(self):
        """A worker makes its topics, takes two connectors by REST, and they move a file."""
        settings = {
            "group.id": GROUP,
            "key.converter": STRINGS,
            "value.converter": JSON,
            "connector.client.config.override.policy": "All",
            "exactly.once.source.support": "enabled",
            "scheduled.rebalance.max.delay.ms": "0",
            "session.timeout.ms": "3000",
            "heartbeat.interval.ms": "500",
            **OWN_TOPICS,
            **{name.replace(".topic", ".replication.factor"): "1" for name in OWN_TOPICS},
        }
        self.distributing = self.worker("distributed", "ConnectDistributed", self.bootstrap, self.folder, settings)
        self.distributing.start()
        self.append(1100)
        self.distributing.add(source("lines-in", self.path("lines.in"), "lines"))
        # By now it has made them.
        for topic in OWN_TOPICS.values():
            policy = self.setting(topic, "cleanup.policy")
            demand(policy == "compact", f"{topic} is made with cleanup.policy={policy}")
        self.distributing.add(sink("lines-out", self.path("lines.out"), "lines"))
        self.wait_until_equal(self.distributing, "lines")

    def append(self, count):
        append(self.path("lines.in"), numbered(self.lines, count))
        self.lines += count

    def restarted(self):
        """Stopped and started, the worker goes on with the connectors it had, where it was."""
        self.distributing.child.stop(codes=(0, 143))
        self.append(1000)
        self.distributing.start()
        self.distributing.wait_until_running("lines-in")
        self.distributing.wait_until_running("lines-out")
        self.wait_until_equal(self.distributing, "lines")

    def killed(self):
        """Killed while it sends: the topic has each line once, and the file has all of them."""
        self.append_at_once(20_000)
        self.wait_until_some_moved()
        self.kills += 1
        self.distributing.child.kill()
        self.distributing.start()
        return self.moved()

    def broker_killed(self):
        self.append_at_once(20_000)
        self.wait_until_some_moved()
        self.process.kill()
        self.process.start()
        return self.moved()

    def append_at_once(self, count):
        """As the source sees it: where it met a part of them, what it forgets at an end could be lines of ours."""
        self.distributing.child.pause()
        self.append(count)
        self.distributing.child.resume()

    def wait_until_some_moved(self):
        there = self.path("lines.out")
        before = there.stat().st_size
        wait_for("some lines are moved", lambda: there.stat().st_size > before, self.distributing.child)

    def moved(self):
        want = numbered(0, self.lines)
        wanted = set(want)

        def whole():
            return wanted <= set(self.path("lines.out").read_text().splitlines())

        wait_for("the file is whole", whole, self.distributing.child)
        messages = read_all(self.bootstrap, "lines", 1)[0]
        sent = [json.loads(message.value())["payload"] for message in messages]
        demand(len(sent) == len(want), f"{len(sent)} lines in the topic of {len(want)}")
        demand(sent == want, "the topic has the lines in order")
        found = self.path("lines.out").read_text().splitlines()
        # The sink writes a line and its end one after the other: a kill between them joins two lines.
        strange = sum(line not in wanted for line in found)
        demand(strange <= self.kills, f"the file has {strange} other lines after {self.kills} kills")
        return f"{len(want)} lines, {len(found) - len(want)} written again by the sink"

    def transactions_are_over(self):
        self.distributing.child.stop(codes=(0, 143))
        names = sorted(txns.listed(self.bootstrap))
        demand(f"{GROUP}-lines-in-0" in names, f"the source's transactional id is listed: {names}")
        txns.wait_until_over(self.bootstrap, names)
        txns.demand_all_stable(self.bootstrap, "lines", 1)

    def setting(self, topic, name):
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        (config,) = admin.describe_configs([ConfigResource(ResourceType.TOPIC, topic)]).values()
        return config.result(20)[name].value

    def remove(self, keep):
        for worker in self.workers:
            worker.child.end()
        if keep:
            # It is the evidence.
            self.process.end()
            print(f"note data kept in {self.process.data_dir} and {self.folder}", flush=True)
        else:
            self.process.remove()
            shutil.rmtree(self.folder, ignore_errors=True)


def main():
    arguments = parse()
    install.connect()
    lines = Lines()
    connect = Connect(arguments)
    try:
        lines.case("standalone_moves_a_file", connect.standalone)
        going = lines.case("distributed_moves_a_file", connect.distributed)
        going = going and lines.case("distributed_goes_on_after_a_stop", connect.restarted)
        for n in range(8 if arguments.long else 1):
            going = going and lines.case(f"distributed_is_killed_{n + 1}", connect.killed)
            if arguments.long:
                going = going and lines.case(f"broker_is_killed_{n + 1}", connect.broker_killed)
        if going:
            lines.case("transactions_are_over", connect.transactions_are_over)
            lines.case("broker_stops", lambda: connect.process.stop() and None)
    finally:
        connect.remove(keep=lines.failed > 0)
    code = lines.finish()
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
