"""The real process: what it refuses at the start, how it stops, what it keeps, and what it says of itself."""

import argparse
import os
import re
import signal
import socket
import struct
import subprocess
import tempfile
import time
import urllib.request

import broker
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions, ResourceType
from load import Reader, Sender, create_topics
from oracle import Plan, check_sender
from report_lines import Lines, demand

REFUSAL_SECONDS_MAX = 30


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broker", default="millrace")
    parser.add_argument("--binary")
    return parser.parse_args()


class Cases:
    def __init__(self, binary):
        self.binary = binary
        self.brokers = []

    def broker(self, **more):
        process = broker.Millrace("process", self.binary, **more)
        self.brokers.append(process)
        return process

    def remove_all(self):
        for process in self.brokers:
            process.remove()

    def refused(self, *arguments):
        """Runs a `serve` that must be refused; returns what it said."""
        command = [self.binary, "serve", *map(str, arguments)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=REFUSAL_SECONDS_MAX, stdin=subprocess.DEVNULL, check=False
            )
        except subprocess.TimeoutExpired as late:
            raise AssertionError(f"not refused within {REFUSAL_SECONDS_MAX} s: {late.output}") from None
        demand(done.returncode not in (0, None) and done.returncode > 0, f"refused with exit code {done.returncode}")
        return done.stdout + done.stderr

    def second_on_the_same_data(self):
        first = self.broker()
        first.start()
        said = self.refused("--data-dir", first.data_dir, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0")
        demand(str(first.data_dir) in said, f"names the data directory: {said}")
        demand("panicked" not in said, f"is no panic: {said}")
        demand(broker.answers(first.bootstrap), "the first one still serves")
        first.stop()

    def second_on_the_same_port(self):
        first = self.broker()
        first.start()
        other = tempfile.mkdtemp(prefix="millrace-")
        said = self.refused("--data-dir", other, "--listen", first.bootstrap, "--admin-listen", "127.0.0.1:0")
        demand(first.bootstrap.rsplit(":", 1)[1] in said, f"names the port: {said}")
        demand("panicked" not in said, f"is no panic: {said}")
        demand(broker.answers(first.bootstrap), "the first one still serves")
        first.stop()

    def large_groups_are_shared_out(self):
        """Members of both protocols come, leave, come back and vanish; each time every partition gets exactly one."""
        names = ["session.timeout.ms=6000", "min.session.timeout.ms=6000", "heartbeat.interval.ms=500"]
        settings = [f"group.consumer.{name}" for name in [*names, "min.heartbeat.interval.ms=500"]]
        settings.append("group.initial.rebalance.delay.ms=100")
        process = self.broker(options=[word for setting in settings for word in ("--set", setting)])
        process.start()
        size = ["--members", "30", "--movers", "5", "--partitions", "100"]
        timing = ["--session-timeout", "6", "--heartbeat-interval", "0.5", "--timeout", "60"]
        for protocol in ("classic", "consumer"):
            where = ["--bootstrap", process.bootstrap, "--topic", f"of-{protocol}", "--protocol", protocol]
            command = [str(self.binary), "perf", "groups", *where, *size, *timing]
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL, check=False)
            demand(done.returncode == 0, f"{protocol}: {done.stdout}{done.stderr}")
        process.stop()

    def stop_under_load(self, how):
        """The signal while producers send; then everything acknowledged is there."""
        process = self.broker(port=broker.free_port())
        process.start()
        plans = [Plan("one", "load", 3, True, "lz4", 3000), Plan("two", "load", 3, False, "none", 3000)]
        create_topics(process.bootstrap, plans[:1])
        senders = [Sender(plan, process.bootstrap).start() for plan in plans]
        deadline = time.monotonic() + 30
        while any(len(sender.acknowledged) < 500 for sender in senders):
            demand(time.monotonic() < deadline, f"producers get going: {[s.problems[:2] for s in senders]}")
            time.sleep(0.05)
        seconds = process.stop(how)
        again = process.start()
        for sender in senders:
            sender.stop()
        reader = Reader(process.bootstrap, "load", 3)
        reader.read_on()
        for sender in senders:
            check_sender(sender, reader)
        process.stop()
        return f"stopped in {seconds:.2f} s, served again after {again:.2f} s"

    def stop_with_a_waiting_reader(self):
        """A long poll under way does not hold up the stop."""
        process = self.broker()
        process.start()
        create_topics(process.bootstrap, [Plan("none", "waiting", 1, False, "none", 0)])
        with connect(process.bootstrap) as waiting:
            waiting.sendall(fetch_request("waiting", wait_ms=60_000))
            time.sleep(0.5)
            return f"stopped in {process.stop():.2f} s"

    def keeps_everything(self):
        """Topics, partitions, settings, the cluster's id and records outlive a stop, also with another number of shards."""
        process = self.broker(options=["--shards", "2"])
        process.start()
        create_topics(process.bootstrap, [Plan("kept", "kept", 2, True, "none", 0)], {"retention.ms": "7200000"})
        admin = AdminClient({"bootstrap.servers": process.bootstrap})
        for future in admin.create_partitions([NewPartitions("kept", 5)]).values():
            future.result(20)
        produce(process.bootstrap, "kept", [(n % 5, f"{n}".encode()) for n in range(500)])
        before = self.description(process.bootstrap)
        for shards in ("1", "2", "1"):
            process.stop()
            process.options = ["--shards", shards]
            process.start()
            after = self.description(process.bootstrap)
            demand(after == before, f"with {shards} shards: {after}, before {before}")

    @staticmethod
    def description(bootstrap):
        admin = AdminClient({"bootstrap.servers": bootstrap})
        metadata = admin.list_topics(timeout=20)
        (config,) = admin.describe_configs([ConfigResource(ResourceType.TOPIC, "kept")]).values()
        return {
            "cluster": metadata.cluster_id,
            "partitions": sorted(metadata.topics["kept"].partitions),
            "retention": config.result(20)["retention.ms"].value,
            "values": {p: values(bootstrap, "kept", p) for p in range(5)},
        }

    def says_how_it_is(self):
        process = self.broker()
        process.start()
        found = re.search(r"admin\D*(127\.0\.0\.1:\d+)", process.output())
        demand(found, f"says where its admin listener is: {process.output()}")
        for path, part in (("/health", ""), ("/metrics", "# TYPE")):
            with urllib.request.urlopen(f"http://{found[1]}{path}", timeout=10) as answer:
                body = answer.read().decode()
                demand(answer.status == 200 and part in body, f"{path}: {answer.status} {body[:200]}")
        process.stop()

    def outlives_nonsense(self):
        """Bytes that are no request, requests that lie about their size, and half requests end only their connection."""
        process = self.broker()
        process.start()
        lies = [
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            struct.pack(">i", -1) + b"x" * 100,
            struct.pack(">i", 0x7FFFFFFF) + b"x" * 100,
            struct.pack(">ihhi", 8, 3, 1, 1),
            struct.pack(">ihhihi", 14, 0, 3, 1, -1, 0x7FFFFFFF),
            struct.pack(">ihhihhii", 20, 3, 1, 1, -1, 1, 0x7FFFFFFF, 0x7FFFFFFF),
            struct.pack(">ihhi", 100, 999, 0, 1) + b"\0" * 92,
            os.urandom(10_000),
            b"\0\0\0\x64" + os.urandom(10),
        ]
        for lie in lies:
            with connect(process.bootstrap) as s:
                s.sendall(lie)
                s.settimeout(1)
                try:
                    s.recv(1000)
                except OSError:
                    pass
            demand(process.alive() and broker.answers(process.bootstrap), f"serves after {lie[:20]!r}")
        process.stop()

    def check_command(self):
        with tempfile.TemporaryDirectory(prefix="millrace-") as folder:
            done = subprocess.run(
                [self.binary, "check", "--data-dir", folder],
                capture_output=True,
                text=True,
                timeout=60,
                stdin=subprocess.DEVNULL,
                check=False,
            )
        demand(done.returncode == 0, f"exit code {done.returncode}: {done.stdout}{done.stderr}")
        demand("flush" in done.stdout.lower(), f"tells of the flush: {done.stdout}")

    def sleeps_when_idle(self):
        """No spinning: a bound that only a busy loop breaks, not a measurement."""
        process = self.broker()
        process.start()
        time.sleep(2)
        before = cpu_seconds(process.process.pid)
        time.sleep(3)
        used = (cpu_seconds(process.process.pid) - before) / 3
        demand(used < 0.5, f"uses {used:.2f} of a core when idle")
        process.stop()
        return f"{used * 100:.1f} % of a core when idle"


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def connect(bootstrap):
    host, port = bootstrap.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=10)


def fetch_request(topic, wait_ms):
    """Fetch version 4 of partition 0 from offset 0: waits for a byte that never comes."""
    name = topic.encode()
    body = struct.pack(">hhih1s", 1, 4, 9, 1, b"t") + struct.pack(">iiiib", -1, wait_ms, 1, 1 << 20, 0)
    body += struct.pack(f">ih{len(name)}s", 1, len(name), name) + struct.pack(">iiqi", 1, 0, 0, 1 << 20)
    return struct.pack(">i", len(body)) + body


def produce(bootstrap, topic, records):
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True})
    failures = []
    for partition, value in records:
        producer.produce(topic, value, partition=partition, on_delivery=lambda e, _: e and failures.append(e))
    demand(producer.flush(30) == 0 and not failures, f"delivered: {failures[:3]}")


def values(bootstrap, topic, partition):
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "assigned", "enable.auto.commit": False})
    try:
        _, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), 20)
        consumer.assign([TopicPartition(topic, partition, 0)])
        found = []
        deadline = time.monotonic() + 30
        while len(found) < end:
            demand(time.monotonic() < deadline, f"{len(found)} of {end} values of {topic}-{partition} in time")
            found += [m.value() for m in consumer.consume(end - len(found), 1.0) if not m.error()]
        return found
    finally:
        consumer.close()


def main():
    arguments = parse()
    lines = Lines()
    cases = Cases(arguments.binary)
    try:
        lines.case("second_on_the_same_data", cases.second_on_the_same_data)
        lines.case("second_on_the_same_port", cases.second_on_the_same_port)
        lines.case("large_groups_are_shared_out", cases.large_groups_are_shared_out)
        lines.case("sigterm_under_load", lambda: cases.stop_under_load(signal.SIGTERM))
        lines.case("sigint_under_load", lambda: cases.stop_under_load(signal.SIGINT))
        lines.case("stop_with_a_waiting_reader", cases.stop_with_a_waiting_reader)
        lines.case("keeps_everything", cases.keeps_everything)
        lines.case("says_how_it_is", cases.says_how_it_is)
        lines.case("outlives_nonsense", cases.outlives_nonsense)
        lines.case("check_command", cases.check_command)
        lines.case("sleeps_when_idle", cases.sleeps_when_idle)
    finally:
        cases.remove_all()
    code = lines.finish()
    # Threads of producers may still be waiting for a broker that is gone.
    os._exit(code)


if __name__ == "__main__":
    main()
