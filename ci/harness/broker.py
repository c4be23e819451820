"""Starts, watches and stops one real broker process: Millrace, or Apache Kafka to check the tests themselves.

It knows the command line and the first lines of output, nothing of the protocol but the shortest question.
"""

import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

import install
import shell
from paths import LOGS, MILLRACE

START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 10


class BrokerFailed(Exception):
    pass


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def parse_listener(output):
    """`HOST:PORT` of the Kafka listener in what `millrace serve` prints, or None where it is not there yet."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", output)
    said = re.search(r"listening on\s+(\S+?:\d+)", plain, re.IGNORECASE)
    if said:
        return said[1].removeprefix("kafka://").removeprefix("PLAINTEXT://")
    for line in plain.splitlines():
        address = re.search(r"\b127\.0\.0\.1:([1-9]\d*)\b", line)
        if address and not re.search(r"admin|http|metrics|health", line, re.IGNORECASE):
            return address[0]
    return None


def answers(bootstrap, seconds_max=2):
    """Whether an ApiVersions request is answered."""
    host, port = bootstrap.rsplit(":", 1)
    # Key 18, version 0, correlation 7, client id "t".
    body = struct.pack(">hhih1s", 18, 0, 7, 1, b"t")
    try:
        with socket.create_connection((host, int(port)), timeout=seconds_max) as s:
            s.sendall(struct.pack(">i", len(body)) + body)
            reply = b""
            while len(reply) < 10:
                part = s.recv(64)
                if not part:
                    return False
                reply += part
    except OSError:
        return False
    _, correlation, error = struct.unpack(">iih", reply[:10])
    return correlation == 7 and error == 0


class Process:
    """A broker process. `start` returns the seconds until it served."""

    def __init__(self, name, log=None):
        self.name = name
        self.log = Path(log or LOGS / f"broker-{name}.log")
        self.process = None
        self.bootstrap = None

    def command(self):
        raise NotImplementedError

    def find_bootstrap(self, _output):
        raise NotImplementedError

    def start(self, wait=True):
        self.log.parent.mkdir(parents=True, exist_ok=True)
        command = [str(part) for part in self.command()]
        with open(self.log, "ab") as out:
            out.write(f"$ {' '.join(command)}\n".encode())
            out.flush()
            self._output_from = out.tell()
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )
        self._started = time.monotonic()
        return self.wait_until_ready() if wait else None

    def output(self):
        """What this start of the process has printed so far."""
        with open(self.log, "rb") as f:
            f.seek(self._output_from)
            return f.read().decode(errors="replace")

    def wait_until_ready(self):
        deadline = self._started + START_SECONDS_MAX
        while True:
            if self.process.poll() is not None:
                raise BrokerFailed(f"{self.name} ended with {self.process.returncode}:\n{shell.tail(self.log)}")
            self.bootstrap = self.find_bootstrap(self.output())
            if self.bootstrap and answers(self.bootstrap):
                return time.monotonic() - self._started
            if time.monotonic() > deadline:
                self.kill()
                why = "does not answer" if self.bootstrap else "does not say where it listens"
                raise BrokerFailed(f"{self.name} {why} after {START_SECONDS_MAX} s:\n{shell.tail(self.log)}")
            time.sleep(0.02)

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def kill(self):
        """SIGKILL; demands that it was alive until then."""
        if not self.alive():
            raise BrokerFailed(f"{self.name} had ended by itself:\n{shell.tail(self.log)}")
        self.process.kill()
        self.process.wait()

    def stop(self, how=signal.SIGTERM, codes=(0,)):
        """Stops it cleanly; returns the seconds that took."""
        if not self.alive():
            raise BrokerFailed(f"{self.name} had ended by itself:\n{shell.tail(self.log)}")
        started = time.monotonic()
        self.process.send_signal(how)
        try:
            code = self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise BrokerFailed(f"{self.name} did not stop within {STOP_SECONDS_MAX} s") from None
        if code not in codes:
            raise BrokerFailed(f"{self.name} stopped with {code}:\n{shell.tail(self.log)}")
        return time.monotonic() - started

    def end(self):
        """For cleaning up: ends it however it is."""
        if self.alive():
            self.process.kill()
            self.process.wait()


class Millrace(Process):
    """`millrace serve` on a data directory that outlives the process; removed by `remove`."""

    def __init__(self, name, binary=None, data_dir=None, port=0, options=(), log=None):
        super().__init__(name, log)
        self.binary = Path(binary or MILLRACE)
        self.own_data = data_dir is None
        self.data_dir = Path(data_dir or tempfile.mkdtemp(prefix="millrace-"))
        self.port = port
        self.admin_port = 0
        self.options = list(options)

    def command(self):
        listen = ["--listen", f"127.0.0.1:{self.port}", "--admin-listen", f"127.0.0.1:{self.admin_port}"]
        return [self.binary, "serve", "--data-dir", self.data_dir, *listen, *self.options]

    def find_bootstrap(self, output):
        return f"127.0.0.1:{self.port}" if self.port else parse_listener(output)

    def metric(self, name):
        """Values of one family of /metrics by their labels."""
        admin = re.search(r"admin on (http://\S+)", self.output())[1]
        with urllib.request.urlopen(f"{admin}/metrics", timeout=10) as answer:
            found = re.findall(rf"^{name}(\{{.*\}}) (\S+)$", answer.read().decode(), re.MULTILINE)
        return {labels: float(value) for labels, value in found}

    def remove(self):
        self.end()
        if self.own_data:
            shutil.rmtree(self.data_dir, ignore_errors=True)


class Kafka(Process):
    """Apache Kafka in one process, with a fresh log directory."""

    def __init__(self, name, log=None, settings=None):
        super().__init__(name, log)
        self.settings = settings or {}
        self.data_dir = Path(tempfile.mkdtemp(prefix="reference-"))
        self.properties = self.data_dir / "server.properties"
        self.move_to(f"127.0.0.1:{free_port()}")

    def move_to(self, bootstrap):
        self.bootstrap_wanted = bootstrap
        controller = f"127.0.0.1:{free_port()}"
        self.properties.write_text(
            f"""process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers={controller}
listeners=PLAINTEXT://{self.bootstrap_wanted},CONTROLLER://{controller}
advertised.listeners=PLAINTEXT://{self.bootstrap_wanted}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={self.data_dir}/log
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
"""
            + "".join(f"{name}={value}\n" for name, value in self.settings.items())
        )

    def _java(self, *arguments):
        return ["java", "-Xmx512m", "-cp", f"{install.REFERENCE_LIBS}/*", *arguments]

    def command(self):
        return self._java("kafka.Kafka", self.properties)

    def find_bootstrap(self, _output):
        return self.bootstrap_wanted

    def start(self, wait=True):
        if (self.data_dir / "log").exists():
            return super().start(wait)
        # Any 16 bytes in base64 are an id.
        storage = self._java("kafka.tools.StorageTool", "format", "--standalone", "-t", "bWlsbHJhY2UtY2ktaWQtMA")
        shell.must_run([*storage, "-c", self.properties], self.log, 60)
        return super().start(wait)

    def stop(self, how=signal.SIGTERM, codes=(0, 143)):
        return super().stop(how, codes)

    def remove(self):
        self.end()
        shutil.rmtree(self.data_dir, ignore_errors=True)


def on_a_port(name, arguments, settings):
    """The broker that a program's options ask for, on a port that outlives its kills, with these settings of Kafka's."""
    settings = {"group.initial.rebalance.delay.ms": "100", **settings}
    if arguments.broker == "kafka":
        install.reference_broker()
        return Kafka(name, settings=settings)
    options = [part for setting in settings.items() for part in ("--set", "=".join(setting))]
    return Millrace(name, arguments.binary, port=free_port(), options=options)
