"""Starts the brokers that are compared, pinned to one core, each with fresh data. Knows no scenario and no figure."""

import base64
import os
import re
import shutil
import subprocess
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import broker
import install
import shell

SLOW_FLUSH = Path(__file__).resolve().parent / "slow_flush.c"


@dataclass(frozen=True)
class Variant:
    """A way of running a broker."""

    name: str
    label: str
    what: str
    kafka: bool
    topic_configs: tuple = ()


def variants(kafka_version):
    """All of them; those of Kafka only where it is there."""
    found = [
        Variant("millrace", "Millrace", "acknowledges what is on stable storage", False),
        Variant("millrace-cached", "Millrace, write.caching", "acknowledges from memory", False, (("write.caching", "true"),)),
    ]
    if kafka_version:
        kafka = f"Kafka {kafka_version}"
        found += [
            Variant("kafka", kafka, "as it ships: leaves flushing to the kernel", True),
            Variant("kafka-flush", f"{kafka}, flush.messages=1", "flushes each batch", True, (("flush.messages", "1"),)),
        ]
    return found


def kafka_version():
    """Brings in Apache Kafka; its version, or why it is not there."""
    try:
        install.reference_broker()
    except (install.Missing, shell.CommandFailed) as why:
        return None, str(why).splitlines()[0]
    for jar in install.REFERENCE_LIBS.glob("kafka_2.13-*.jar"):
        return re.fullmatch(r"kafka_2\.13-(.+)\.jar", jar.name)[1], None
    return None, f"no kafka_2.13 in {install.REFERENCE_LIBS}"


@dataclass
class Needs:
    """What a scenario wants of the broker."""

    settings: dict = field(default_factory=dict)
    flush_delay_ms: int | None = None


class Pinned(broker.Process):
    """On one core; its data goes with it."""

    def __init__(self, name, folder, cpu, log):
        super().__init__(name, log)
        self.data_dir = Path(folder) / f"data-{name}"
        self.cpu = cpu
        self.wanted = f"127.0.0.1:{broker.free_port()}"

    def find_bootstrap(self, _output):
        return self.wanted

    def pinned(self, *command):
        return ["taskset", "-c", self.cpu, *command]

    def prepare(self):
        """What comes before a start that is timed."""
        shutil.rmtree(self.data_dir, ignore_errors=True)
        self.data_dir.mkdir(parents=True)

    def __enter__(self):
        try:
            self.prepare()
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_):
        self.remove()

    def remove(self):
        self.end()
        set_aside(self.data_dir)


def set_aside(folder):
    """Gives the bytes of a data directory back, and keeps its files until all is over.

    An ext4 without a journal goes past every inode that was deleted in the last minutes when it looks for a free one: a
    thousand partitions of the next broker would pay for those of this one.
    """
    if not folder.exists():
        return
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            os.truncate(path, 0)
    folder.rename(folder.with_name(f"{folder.name}-{uuid.uuid4().hex}"))


class Millrace(Pinned):
    def __init__(self, name, folder, cpu, log, binary, memory, needs=None):
        super().__init__(name, folder, cpu, log)
        self.binary, self.memory, self.needs = binary, memory, needs or Needs()

    def command(self):
        serve = [self.binary, "serve", "--data-dir", self.data_dir, "--shards", 1, "--cpus", self.cpu]
        serve += ["--memory", self.memory, "--listen", self.wanted, "--admin-listen", "127.0.0.1:0"]
        for name, value in self.needs.settings.items():
            serve += ["--set", f"{name}={value}"]
        if self.needs.flush_delay_ms:
            serve += ["--debug-flush-delay-ms", self.needs.flush_delay_ms]
        return self.pinned(*serve)


class Kafka(Pinned):
    def __init__(self, name, folder, cpu, log, needs=None, tools=None):
        super().__init__(name, folder, cpu, log)
        self.needs, self.tools = needs or Needs(), tools
        self.properties = self.data_dir / "server.properties"

    def java(self, *arguments):
        return ["java", "-Xmx1g", "-cp", f"{install.REFERENCE_LIBS}/*", *arguments]

    def prepare(self):
        super().prepare()
        controller = f"127.0.0.1:{broker.free_port()}"
        settings = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.bootstrap.servers": controller,
            "listeners": f"PLAINTEXT://{self.wanted},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{self.wanted}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "log.dirs": self.data_dir / "log",
            "offsets.topic.replication.factor": 1,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            **self.needs.settings,
        }
        self.properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        identity = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        # In one word: an identity may begin with a dash.
        storage = self.java("kafka.tools.StorageTool", "format", "--standalone", f"--cluster-id={identity}")
        shell.must_run([*storage, "-c", self.properties], self.log, 120)

    def command(self):
        command = self.java("kafka.Kafka", self.properties)
        if self.needs.flush_delay_ms:
            library = slow_flush(self.tools)
            command = ["env", f"LD_PRELOAD={library}", f"SLOW_FLUSH_MS={self.needs.flush_delay_ms}", *command]
        return self.pinned(*command)


def slow_flush(folder):
    """The library that makes every flush of a process take longer, built once."""
    library = Path(folder) / "slow_flush.so"
    if not library.exists():
        if shutil.which("gcc") is None:
            raise install.Missing("needs gcc, to make Kafka's flushes slower")
        subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", library, SLOW_FLUSH, "-ldl"], check=True)
    return library


