"""A real broker on small real file systems that run full, fail, or cannot be written any more.

Producers send all the time. What must hold: produces are refused with KAFKA_STORAGE_ERROR before the space is gone, readers
are served, produces go on when there is room again, and whatever was acknowledged is there afterwards, at its offset.
"""

import argparse
import json
import os
import re
import socket
import struct
import subprocess
import threading
import time
import urllib.error
import urllib.request

import broker
import image
from confluent_kafka import KafkaError, Producer
from confluent_kafka.admin import AdminClient
from image import MIB, Image
from load import Reader, Sender, create_topics
from oracle import Plan, check_sender
from report_lines import Lines, demand

RESERVE_MIB = 16
# Room beside the log of the file system, which takes 64 MiB.
XFS_MIB = image.XFS_MIB_MIN + 64
# Two shards, so that they share a disk, with the smallest journals.
OPTIONS = ["--shards", "2", "--memory", "128MiB", "--disk-reserve", f"{RESERVE_MIB}MiB"]
# What a write gets when the space is gone, in whatever words it is told.
NO_SPACE = re.compile(r"No space left|os error 28|StorageFull|cannot extend|cannot flush|cannot move")
PLANS = [
    Plan("idem", "kept", 4, True, "none", 6000),
    Plan("plain", "kept", 4, False, "none", 6000),
]
# Enough for the records that are on their way when a test ends.
SMALL_PLANS = [Plan("idem", "kept", 4, True, "none", 1500), Plan("plain", "kept", 4, False, "lz4", 1500)]


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broker", default="millrace")
    parser.add_argument("--binary")
    parser.add_argument("--only", help="run this case")
    return parser.parse_args()


class Mortal(broker.Millrace):
    """A broker that does not outlive us, or its file system could not go."""

    def command(self):
        return ["setpriv", "--pdeathsig", "KILL", *super().command()]

    def wait_for_end(self, seconds_max=30):
        try:
            return self.process.wait(seconds_max)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still runs after {seconds_max} s") from None


class Watch:
    """The least free space that was ever seen."""

    def __init__(self, disk):
        self.disk = disk
        self.least = disk.free()
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while not self.stopping.wait(0.002):
            try:
                self.least = min(self.least, self.disk.free())
            except FileNotFoundError:
                return  # the test failed

    def stop(self):
        self.stopping.set()
        self.thread.join()
        return self.least


class Case:
    """One broker on one file system."""

    def __init__(self, name, binary, disk):
        self.disk = disk
        port = broker.free_port()
        levels = ["--log-level", "info,millrace_engine::log=debug"]
        options = [*OPTIONS, *levels]
        self.process = Mortal(f"disks-{name}", binary, data_dir=disk.dir / "data", port=port, options=options)
        self.process.admin_port = broker.free_port()
        self.senders = []
        self.reader = None
        self.name = name

    def start(self):
        self.process.start()
        if self.reader is None:
            create_topics(self.bootstrap, PLANS[:1], {"segment.bytes": str(4 * MIB)})
            self.reader = Reader(self.bootstrap, "kept", 4)

    @property
    def bootstrap(self):
        return self.process.bootstrap

    def send(self, plans):
        self.senders += [Sender(plan, self.bootstrap).start() for plan in plans]

    def stop_sending(self):
        for sender in self.senders:
            sender.stopping.set()

    def check(self):
        """Everything sent is acknowledged in the end, and everything acknowledged is there."""
        for sender in self.senders:
            sender.stop(60)
        self.reader.read_on()
        for sender in self.senders:
            # Without idempotence librdkafka sends new records before those that wait to be sent again after a refusal.
            check_sender(sender, self.reader, ordered=sender.plan.idempotent)

    def check_after_restart(self):
        self.process.kill()
        self.process.start()
        self.reader.check_again()
        self.check()
        self.process.stop()
        said = subprocess.run(
            [self.process.binary, "log", "verify", self.process.data_dir], capture_output=True, text=True, check=False
        )
        demand(said.returncode == 0, f"log verify ends with {said.returncode}: {said.stdout}{said.stderr}")

    def acknowledged(self):
        return sum(len(sender.acknowledged) for sender in self.senders)

    def wait(self, what, done, seconds_max=30):
        deadline = time.monotonic() + seconds_max
        while not done():
            demand(self.process.alive(), f"{what}: the broker ended: {self.process.output()[-800:]}")
            demand(time.monotonic() < deadline, f"{what} within {seconds_max} s: {self.process.output()[-800:]}")
            time.sleep(0.02)

    def wait_for_acknowledged(self, more=500):
        wanted = self.acknowledged() + more
        self.wait(f"{more} more records are acknowledged", lambda: self.acknowledged() >= wanted)

    def ask(self, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.process.admin_port}{path}", timeout=10) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as degraded:
            # On a busy machine a shard may take its time.
            return degraded.read().decode()

    def health(self):
        return json.loads(self.ask("/health"))["status"]

    def is_full(self):
        """On every shard: each looks for itself, once a second."""
        return self.health() == "disk full" and len(re.findall(r"millrace_disk_full\{.*\} 1", self.ask("/metrics"))) == 2

    def demand_refused(self):
        """Every partition refuses, with the code that clients try again after."""
        codes = {p: produce_once(self.bootstrap, "kept", p) for p in range(4)}
        demand(set(codes.values()) == {KafkaError.KAFKA_STORAGE_ERROR}, f"produces end with {codes}, not with 56")

    def remove(self):
        self.stop_sending()
        self.process.end()
        self.disk.remove()


def produce_once(bootstrap, topic, partition):
    """The code that one record is answered with; None where it is stored."""
    producer = Producer({"bootstrap.servers": bootstrap, "retries": 0, "message.timeout.ms": 10_000, "log_level": 2})
    errors = []
    producer.produce(topic, b"probe:0:", partition=partition, on_delivery=lambda e, _: errors.append(e))
    demand(producer.flush(15) == 0, "a produce is answered")
    return errors[0] and errors[0].code()


def fetch_code(bootstrap, topic, partition):
    """The error code of a fetch (version 4) from offset 0."""
    host, port = bootstrap.rsplit(":", 1)
    name = topic.encode()
    body = struct.pack(">hhih1s", 1, 4, 9, 1, b"t") + struct.pack(">iiiib", -1, 500, 1, 1 << 20, 0)
    body += struct.pack(f">ih{len(name)}s", 1, len(name), name) + struct.pack(">iiqi", 1, partition, 0, 1 << 20)
    with socket.create_connection((host, int(port)), timeout=20) as s:
        s.sendall(struct.pack(">i", len(body)) + body)
        answer = b""
        # Correlation, throttle time, one topic with its name, one partition with its number: then the code.
        start = 4 + 4 + 4 + 4 + 2 + len(name) + 4 + 4
        while len(answer) < start + 2:
            part = s.recv(65536)
            demand(part, "a fetch is answered")
            answer += part
    return struct.unpack(">h", answer[start : start + 2])[0]


class Cases:
    def __init__(self, binary):
        self.binary = binary
        self.cases = []

    def on(self, name, disk):
        case = Case(name, self.binary, disk)
        self.cases.append(case)
        return case

    def remove_all(self):
        for case in self.cases:
            case.remove()
        self.cases = []

    def full_under_load(self, kind="ext4"):
        """Refused before the space is gone; killed while full; a topic is deleted, and it goes on."""
        disk = Image(f"full-{kind}", 256 if kind == "ext4" else XFS_MIB, kind=kind)
        case = self.on(f"full-{kind}", disk)
        case.start()
        # More than can be accepted and still on its way when the disk is found full, the reserve, and what has to be free
        # beyond that for produces to go on.
        fill(case, "victim", 48)
        # What is left takes a few seconds to fill.
        ballast = disk.take("ballast", left=kept(case) + 20 * MIB)
        demand(ballast.stat().st_size > MIB, "the ballast leaves room for the test")
        watch = Watch(disk)
        case.send(PLANS)
        case.wait("the disk is full", case.is_full)
        case.demand_refused()
        before = case.acknowledged()
        case.reader.read_on()
        time.sleep(1.5)
        demand(case.is_full(), "it stays full while nothing is deleted")
        said = case.process.output()
        case.process.kill()
        restarted = case.process.start()
        case.wait("it is full after the restart, too", case.is_full, 5)
        case.demand_refused()
        case.reader.read_on()
        case.stop_sending()
        admin = AdminClient({"bootstrap.servers": case.bootstrap})
        (deleted,) = admin.delete_topics(["victim"]).values()
        deleted.result(20)
        case.wait_for_acknowledged(200)
        # What was already on its way may be more than the topic was.
        ballast.unlink()
        case.check()
        case.wait("it is healthy again", lambda: case.health() == "ok", 5)
        demand(case.acknowledged() > before, "produces went on")
        said += case.process.output()
        case.check_after_restart()
        least = watch.stop()
        bad = NO_SPACE.search(said + case.process.output())
        demand(not bad, f"the broker met the end of the disk: {bad and bad[0]}")
        demand(said.count("the disk is full") == 2, f"says when it begins: {said.count('the disk is full')} times")
        demand("room again" in said, "says when it ends")
        demand(least >= RESERVE_MIB * MIB, f"only {least / MIB:.1f} MiB were free once")
        return f"never less than {least / MIB:.0f} MiB free; served again {restarted:.2f} s after the kill"

    def filled_by_others(self):
        """Somebody else takes all there is, under load; nothing is lost, and it goes on when that is gone."""
        disk = Image("others", 320)
        case = self.on("others", disk)
        case.start()
        case.send(SMALL_PLANS)
        case.wait_for_acknowledged(2000)
        foreign = disk.take("foreign")
        demand(disk.free() == 0, f"{disk.free()} bytes are free")
        case.wait("it sees the full disk", case.is_full, 10)
        case.demand_refused()
        case.reader.read_on()
        foreign.unlink()
        case.wait_for_acknowledged()
        case.wait("it is healthy again", lambda: case.health() == "ok", 5)
        foreign = disk.take("foreign")
        case.wait("it sees the full disk again", case.is_full, 10)
        case.process.kill()
        try:
            case.process.start()
            case.process.kill()
        except broker.BrokerFailed as failed:
            demand("panicked" not in str(failed) and "pace" in str(failed), f"says that there is no space: {failed}")
        foreign.unlink()
        case.process.start()
        case.stop_sending()
        case.check()
        case.check_after_restart()

    def cannot_be_written(self, name, harm):
        """Readers are served; the first produce is not acknowledged, and the broker says why and ends."""
        disk = Image(name, 192)
        case = self.on(name, disk)
        case.start()
        case.send(SMALL_PLANS)
        case.wait_for_acknowledged(1500)
        for sender in case.senders:
            sender.stop()
        # It has nothing left to write.
        time.sleep(0.2)
        harm(disk)
        case.reader.read_on()
        demand(case.process.alive(), "serves readers")
        # Without idempotence: a producer id would have to be stored first.
        later = Plan("later", "kept", 4, False, "none", 500)
        case.send([later])
        code = case.process.wait_for_end()
        said = case.process.output()
        demand(code == 1 and "storage failed" in said and "panicked" not in said, f"ended with {code}: {said[-500:]}")
        demand(case.senders[-1].acknowledged == {}, "nothing is acknowledged that is not stored")
        self.refuses_to_start(case)
        disk.mount_again()
        case.process.start()
        case.wait_for_acknowledged()
        case.check()
        case.check_after_restart()

    @staticmethod
    def refuses_to_start(case):
        try:
            case.process.start()
        except broker.BrokerFailed as failed:
            demand("panicked" not in str(failed), f"refuses to start without a panic: {failed}")
        else:
            raise AssertionError("starts where nothing can be written")

    def fails_under_load(self, kind="ext4"):
        """The device is gone, from one write to the next."""
        disk = Image(f"gone-{kind}", 192 if kind == "ext4" else XFS_MIB, kind=kind)
        case = self.on(f"gone-{kind}", disk)
        case.start()
        case.send(SMALL_PLANS)
        case.wait_for_acknowledged(1500)
        disk.shut_down()
        code = case.process.wait_for_end()
        said = case.process.output()
        demand(code == 1 and "storage failed" in said and "panicked" not in said, f"ended with {code}: {said[-500:]}")
        disk.mount_again()
        case.process.start()
        case.wait_for_acknowledged()
        case.stop_sending()
        case.check()
        case.check_after_restart()

    def promises_too_much(self):
        """A device that has less than it says: writes fail long before the file system is full."""
        disk = Image("thin", 384, thin_mib=64)
        case = self.on("thin", disk)
        case.start()
        case.send(PLANS)
        free = disk.free()
        deadline = time.monotonic() + 40
        while case.process.alive() and "ERROR" not in case.process.output():
            demand(time.monotonic() < deadline, f"writes fail in time; {disk.free() / MIB:.0f} MiB are free")
            time.sleep(0.02)
        demand(free > 100 * MIB, "the file system itself was not full")
        case.stop_sending()
        how = f"ended with {case.process.wait_for_end()}" if settles(case.process) else "waited"
        case.process.end()
        disk.give_more(384)
        disk.mount_again()
        case.process.start()
        case.check()
        case.check_after_restart()
        return how

    def reads_fail(self):
        """What cannot be read fails only the fetches that need it."""
        disk = Image("reads", 192, errors="continue")
        case = self.on("reads", disk)
        case.start()
        topics = [f"t{n}" for n in range(6)]
        for topic in topics:
            fill(case, topic, 2)
        # Cold: from segments, not from memory.
        case.process.stop()
        case.process.start()
        places = {}
        for topic in topics:
            files = (case.process.data_dir / "topics" / f"{topic}-0").glob("*.log")
            found = [where for where in map(disk.stretch, files) if where]
            places[topic] = (min(w[0] for w in found), max(w[1] for w in found))
        lost = max(topics, key=lambda t: places[t][0])
        cut = places[lost][0]
        sound = [t for t in topics if places[t][1] <= cut]
        demand(sound, f"some topics lie before the cut: {places}")
        mend = disk.cut_off(cut)
        try:
            code = fetch_code(case.bootstrap, lost, 0)
            demand(code == KafkaError.KAFKA_STORAGE_ERROR, f"a fetch of what cannot be read ends with {code}, not with 56")
            codes = {t: fetch_code(case.bootstrap, t, 0) for t in sound}
            demand(set(codes.values()) == {0}, f"others end with {codes}")
        finally:
            mend()
        code = fetch_code(case.bootstrap, lost, 0)
        demand(code == 0, f"with the device mended the fetch ends with {code}")
        case.process.stop()
        return f"1 of {len(topics)} topics could not be read, {len(sound)} were"


def fill(case, topic, mib):
    """A topic with so many MiB, which go at once when it is deleted."""
    plan = Plan(topic, topic, 1, False, "none", 0)
    create_topics(case.bootstrap, [plan], {"file.delete.delay.ms": "0", "segment.bytes": str(4 * MIB)})
    failures = []
    producer = Producer({"bootstrap.servers": case.bootstrap, "linger.ms": 5, "log_level": 2})
    for _ in range(mib * 4):
        producer.produce(topic, os.urandom(MIB // 4), partition=0, on_delivery=lambda e, _: e and failures.append(e))
        producer.poll(0)
    demand(producer.flush(60) == 0 and not failures, f"{topic} is filled: {failures[:2]}")


def kept(case):
    """How much has to stay free, as the broker says."""
    return max(int(float(v)) for v in re.findall(r"millrace_disk_kept_bytes\{[^}]*\} (\S+)", case.ask("/metrics")))


def settles(process):
    """Whether it ends by itself within a second."""
    try:
        process.process.wait(1)
        return True
    except subprocess.TimeoutExpired:
        return False


def main():
    image.enter_namespace()
    arguments = parse()
    lines = Lines()
    cases = Cases(arguments.binary)
    every = {
        "full_under_load": cases.full_under_load,
        "filled_by_others": cases.filled_by_others,
        "read_only": lambda: cases.cannot_be_written("read-only", Image.make_read_only),
        "device_gone": cases.fails_under_load,
        "promises_too_much": cases.promises_too_much,
        "reads_fail": cases.reads_fail,
    }
    without_xfs = image.why_no_xfs()
    if without_xfs:
        print(f"skip xfs: {without_xfs}".replace("\n", " | "), flush=True)
    else:
        every["full_under_load_xfs"] = lambda: cases.full_under_load("xfs")
        every["device_gone_xfs"] = lambda: cases.fails_under_load("xfs")
    for name, case in every.items():
        if arguments.only in (None, name):
            started = time.monotonic()

            def timed(case=case, started=started):
                try:
                    note = case()
                finally:
                    cases.remove_all()
                return f"{time.monotonic() - started:.1f} s{'; ' + note if note else ''}"

            lines.case(name, timed)
    code = lines.finish()
    # Threads of producers may still be waiting for a broker that is gone.
    os._exit(code)


if __name__ == "__main__":
    main()
