"""The operator's log tools on real files: adopting what Apache Kafka wrote, Kafka's tool on what Millrace wrote, damage.

(a) Kafka writes, stops, is adopted and served: every record comes back as it was. (b) Millrace writes, rolls and compacts:
Kafka's DumpLogSegments and `millrace log dump` agree. (c) Flipped bytes in stopped directories are named by `log verify`,
and `log repair` mends what can be mended.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import broker
import install
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from oracle import value_of
from report_lines import Lines, demand

TOOL_SECONDS_MAX = 120
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
# The smallest that Kafka allows: many segments of few records.
SEGMENT_BYTES = str(1 << 20)


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broker", default="millrace")
    parser.add_argument("--binary")
    return parser.parse_args()


def produce(bootstrap, topic, partitions, numbers, codec, idempotent=True):
    config = {"bootstrap.servers": bootstrap, "enable.idempotence": idempotent, "compression.type": codec, "linger.ms": 5,
              "batch.num.messages": 100, "log_level": 2}  # fmt: skip
    producer = Producer(config)
    failures = []
    for number in numbers:
        while True:
            try:
                producer.produce(
                    topic,
                    value_of(topic, number),
                    key=None if number % 7 == 0 else f"key{number}",
                    partition=number % partitions,
                    headers=[("number", str(number))] if number % 5 == 0 else None,
                    on_delivery=lambda error, _: error and failures.append(error),
                )
                break
            except BufferError:
                producer.poll(0.05)
    demand(producer.flush(60) == 0 and not failures, f"delivered: {failures[:3]}")


def read(bootstrap, topic, partition):
    """(first offset, end offset, records with all that a client sees of them)."""
    config = {"group.id": "assigned", "enable.auto.commit": False, "check.crcs": True, "enable.partition.eof": True}
    consumer = Consumer({"bootstrap.servers": bootstrap, **config})
    try:
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), 20)
        consumer.assign([TopicPartition(topic, partition, low)])
        found = []
        deadline = time.monotonic() + 60
        while True:
            demand(time.monotonic() < deadline, f"{topic}-{partition}: {len(found)} of {high - low} records in time")
            for m in consumer.consume(1000, 0.2):
                # The end, by offset: transaction markers take offsets too, and no client sees them.
                if m.error() and m.error().code() == KafkaError._PARTITION_EOF:
                    return low, high, found
                demand(m.error() is None, f"{topic}-{partition}: {m.error()}")
                found.append((m.offset(), m.timestamp(), m.key(), m.value(), m.headers(), m.leader_epoch()))
    finally:
        consumer.close()


def read_all(bootstrap, topics):
    return {(topic, p): read(bootstrap, topic, p) for topic, partitions in topics.items() for p in range(partitions)}


def create(bootstrap, topics, config):
    admin = AdminClient({"bootstrap.servers": bootstrap})
    wanted = [NewTopic(topic, partitions, 1, config=config) for topic, partitions in topics.items()]
    for future in admin.create_topics(wanted).values():
        future.result(30)


def produce_in_transactions(bootstrap, topic, ends):
    """One transaction for each of `ends`: True commits it, False aborts it."""
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": topic, "log_level": 2})
    producer.init_transactions(60)
    for number, committed in enumerate(ends):
        producer.begin_transaction()
        for n in range(20):
            producer.produce(topic, value_of(topic, number * 20 + n), partition=0)
        producer.flush(30)
        if committed:
            producer.commit_transaction(30)
        else:
            producer.abort_transaction(30)


def commit(bootstrap):
    """Has Kafka keep an offset, so that its internal topic is there."""
    group = Consumer({"bootstrap.servers": bootstrap, "group.id": "some-group"})
    deadline = time.monotonic() + 60
    while True:
        try:
            group.commit(offsets=[TopicPartition("orders", 0, 5)], asynchronous=False)
            return group.close()
        except KafkaException as error:
            demand(time.monotonic() < deadline, f"an offset is committed: {error}")
            time.sleep(0.2)


def flip(path, byte, bit=3):
    with open(path, "r+b") as f:
        f.seek(byte)
        old = f.read(1)[0]
        f.seek(byte)
        f.write(bytes([old ^ (1 << bit)]))


def size(path):
    return Path(path).stat().st_size


class Cases:
    def __init__(self, binary):
        self.binary = binary
        self.folders = []
        self.brokers = []

    def folder(self):
        path = Path(tempfile.mkdtemp(prefix="millrace-logtools-"))
        self.folders.append(path)
        return path

    def broker(self, data_dir=None, options=("--shards", "2")):
        process = broker.Millrace("logtools", self.binary, data_dir=data_dir, options=list(options))
        self.brokers.append(process)
        return process

    def remove_all(self):
        for process in self.brokers:
            process.remove()
        for path in self.folders:
            shutil.rmtree(path, ignore_errors=True)

    def tool(self, *arguments, code=0):
        """Runs a subcommand; returns what it printed."""
        command = [str(self.binary), *map(str, arguments)]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TOOL_SECONDS_MAX, stdin=subprocess.DEVNULL, check=False
        )
        said = done.stdout + done.stderr
        demand("panicked" not in said, f"no panic: {said}")
        demand(done.returncode == code, f"{' '.join(command)} ended with {done.returncode}: {said}")
        return said

    # What Kafka wrote -----------------------------------------------------------------------------------------------

    def adopt(self):
        topics = {"orders": 3, "events.v1": 2, "empty": 1, "committed": 1, "aborted": 1}
        kafka = broker.Kafka("logtools")
        self.brokers.append(kafka)
        kafka.start()
        create(kafka.bootstrap, topics, {"segment.bytes": SEGMENT_BYTES})
        produce_in_transactions(kafka.bootstrap, "committed", [True, True, True])
        produce_in_transactions(kafka.bootstrap, "aborted", [True, False, True])
        for start, codec in enumerate(CODECS):
            # A restart between them: leader epochs grow.
            if codec == "lz4":
                kafka.stop()
                kafka.start()
            for topic in ("orders", "events.v1"):
                first = start * 4000
                produce(kafka.bootstrap, topic, topics[topic], range(first, first + 4000), codec)
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
        for future in admin.delete_records([TopicPartition("orders", 1, 777)]).values():
            future.result(30)
        commit(kafka.bootstrap)
        before = read_all(kafka.bootstrap, topics)
        demand(before["orders", 1][0] == 777, f"log start: {before['orders', 1][:2]}")
        demand(max(r[5] for r in before["orders", 0][2]) > 0, "leader epochs grew")
        demand(before["committed", 0][1] == 63, f"three markers among 60 records: {before['committed', 0][:2]}")
        demand(len(before["aborted", 0][2]) == 40, f"a third is hidden: {len(before['aborted', 0][2])}")
        kafka.stop()
        log = kafka.data_dir / "log"
        segments = list(log.glob("orders-0/*.log"))
        demand(len(segments) > 1, f"Kafka rolled: {segments}")

        self.refuses_unclean(log)
        data = self.folder()
        said = self.tool("adopt", log, "--data-dir", data)
        demand("orders: 3 partitions" in said and "__consumer_offsets" in said, said)
        said = self.tool("adopt", log, "--data-dir", data, code=1)
        demand("already exists" in said, said)
        self.tool("log", "verify", data)
        demand((log / "orders-0").is_dir(), "Kafka's directory is still there")

        process = self.broker(data)
        process.start()
        after = read_all(process.bootstrap, topics)
        for where, (low, high, records) in before.items():
            demand(after[where][:2] == (low, high), f"{where}: offsets {after[where][:2]}, before {(low, high)}")
            for old, new in zip(records, after[where][2], strict=True):
                demand(old == new, f"{where}: {new} where Kafka had {old}")
        # New producers get ids and epochs of their own.
        for topic in topics:
            produce(process.bootstrap, topic, topics[topic], range(100_000, 103_000), "lz4")
        grown = read_all(process.bootstrap, topics)
        process.stop()
        self.tool("log", "verify", data)
        process.options = ["--shards", "1"]
        process.start()
        demand(read_all(process.bootstrap, topics) == grown, "the same after a restart with another number of shards")
        process.stop()
        records = sum(len(r[2]) for r in before.values())
        return f"{records} records in {len(list(log.glob('*/*.log')))} segments of Kafka"

    def refuses_unclean(self, log):
        """Without the mark of a clean stop nothing is taken in."""
        mark = log / ".kafka_cleanshutdown"
        demand(mark.exists(), f"Kafka marks a clean stop: {sorted(p.name for p in log.iterdir())}")
        content = mark.read_bytes()
        mark.unlink()
        data = self.folder()
        said = self.tool("adopt", log, "--data-dir", data, code=1)
        demand("clean" in said and str(log) in said, said)
        demand(not (data / "topics").exists(), "nothing was taken in")
        mark.write_bytes(content)

    # What Millrace wrote --------------------------------------------------------------------------------------------

    def kafkas_tool_reads_ours(self):
        topics = {"rolled": 2}
        process = self.broker()
        process.start()
        create(process.bootstrap, topics, {"segment.bytes": SEGMENT_BYTES, "compression.type": "producer"})
        for start, codec in enumerate(CODECS):
            produce(process.bootstrap, "rolled", 2, range(start * 4000, start * 4000 + 4000), codec, idempotent=codec != "gzip")
        process.stop()
        folders = [process.data_dir / "topics" / f"rolled-{p}" for p in range(2)]
        logs = [log for folder in folders for log in sorted(folder.glob("*.log"))]
        demand(len(logs) > 4, f"rolled: {logs}")
        batches = 0
        for log in logs:
            ours = self.dumped(log)
            theirs = self.dumped_by_kafka(log)
            demand(ours == theirs, f"{log}: DumpLogSegments says {theirs[:2]}, we say {ours[:2]}")
            batches += len(ours)
        for folder in folders:
            for index in [*folder.glob("*.index"), *folder.glob("*.timeindex")]:
                said = self.kafka_dump(index)
                demand("ismatch" not in said and "not found" not in said.lower(), f"{index}: {said[-800:]}")
        return f"{batches} batches in {len(logs)} segments"

    def compacted(self):
        """Compaction goes on until every key has one record; clients read it, and both tools agree on its segments."""
        setting = "log.cleaner.backoff.ms=50"
        process = self.broker(options=["--shards", "1", "--set", setting])
        process.start()
        config = {"cleanup.policy": "compact", "segment.bytes": SEGMENT_BYTES, "min.cleanable.dirty.ratio": "0.01"}
        create(process.bootstrap, {"latest": 1}, config)
        last = {}
        for start, codec in enumerate(CODECS):
            producer = Producer({"bootstrap.servers": process.bootstrap, "compression.type": codec, "linger.ms": 5,
                                 "enable.idempotence": codec != "gzip", "batch.num.messages": 100})  # fmt: skip
            for number in range(start * 4000, start * 4000 + 4000):
                # Of the first keys all are written once only.
                key = f"key{number % 500 if number > 600 else number}".encode()
                last[key] = value_of("latest", number)
                producer.produce("latest", last[key], key=key, partition=0)
            demand(producer.flush(60) == 0, "delivered")
        deadline = time.monotonic() + 120
        while True:
            _, high, records = read(process.bootstrap, "latest", 0)
            offsets = [r[0] for r in records]
            demand(offsets == sorted(set(offsets)), "offsets grow")
            demand({r[2]: r[3] for r in records} == last, "the last record of every key is read")
            if len(records) < high / 4:
                break
            demand(time.monotonic() < deadline, f"{len(records)} records of {high} are left")
        process.stop()
        self.tool("log", "verify", process.data_dir)
        folder = process.data_dir / "topics" / "latest-0"
        batches = 0
        for log in sorted(folder.glob("*.log")):
            ours = self.dumped(log)
            theirs = self.dumped_by_kafka(log)
            demand(ours == theirs, f"{log}: DumpLogSegments says {theirs[:2]}, we say {ours[:2]}")
            batches += len(ours)
        for index in [*folder.glob("*.index"), *folder.glob("*.timeindex")]:
            said = self.kafka_dump(index)
            demand("ismatch" not in said and "not found" not in said.lower(), f"{index}: {said[-800:]}")
        process.start()
        _, _, after = read(process.bootstrap, "latest", 0)
        demand({r[2]: r[3] for r in after} == last, "the same after a restart")
        process.stop()
        return f"{len(after)} records of {high} in {batches} batches"

    def dumped(self, log):
        lines = [json.loads(line) for line in self.tool("log", "dump", "--json", log).splitlines()]
        demand(all(line["crc_fits"] for line in lines), "every CRC fits")
        return [
            (line["base_offset"], line["last_offset"], line["count"], line["base_sequence"], line["producer_id"],
             line["leader_epoch"], line["position"], line["max_timestamp"], line["size"], line["codec"], line["crc"])
            for line in lines
        ]  # fmt: skip

    def kafka_dump(self, path, *options):
        command = ["java", "-Xmx512m", "-cp", f"{install.TOOLS_LIBS}/*", "org.apache.kafka.tools.DumpLogSegments"]
        done = subprocess.run(
            [*command, "--files", str(path), *options],
            capture_output=True, text=True, timeout=TOOL_SECONDS_MAX, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        demand(done.returncode == 0, f"DumpLogSegments ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def dumped_by_kafka(self, log):
        found = []
        for line in self.kafka_dump(log).splitlines():
            if not line.startswith("baseOffset"):
                continue
            fields = dict(re.findall(r"(\w+): (\S+)", line))
            demand(fields["isvalid"] == "true" and fields["magic"] == "2", line)
            numbers = ["baseOffset", "lastOffset", "count", "baseSequence", "producerId", "partitionLeaderEpoch", "position",
                       "CreateTime", "size"]  # fmt: skip
            found.append((*(int(fields[n]) for n in numbers), fields["compresscodec"].lower(), int(fields["crc"])))
        return found

    # Damage ---------------------------------------------------------------------------------------------------------

    def stopped(self, clean=True):
        """A node with a few rolled segments that does not run any more."""
        process = self.broker(options=["--shards", "1"])
        process.start()
        create(process.bootstrap, {"t": 1}, {"segment.bytes": SEGMENT_BYTES})
        produce(process.bootstrap, "t", 1, range(6000), "none")
        self.refuses_running(process)
        if clean:
            process.stop()
        else:
            process.kill()
        return process

    def killed_before_flush(self, commits_min):
        """A node whose journal has commits that no checkpoint covers: a kill right after a flush leaves none."""
        process = self.stopped(clean=False)
        for more in range(6000, 12000, 1000):
            said = self.tool("log", "verify", process.data_dir)
            left = re.search(r"with (\d+) commits? to replay", said)
            if left and int(left[1]) >= commits_min:
                return process
            process.start()
            produce(process.bootstrap, "t", 1, range(more, more + 1000), "none")
            process.kill()
        raise AssertionError(f"no kill left {commits_min} commits to replay: {said}")

    def refuses_running(self, process):
        said = self.tool("log", "verify", process.data_dir, code=1)
        demand(f"in use by process {process.process.pid}" in said, said)
        said = self.tool("log", "repair", process.data_dir, code=1)
        demand("in use" in said, said)

    def verify_names_damage(self):
        process = self.stopped()
        data = process.data_dir
        self.tool("log", "verify", data)
        logs = sorted((data / "topics" / "t-0").glob("*.log"))
        demand(len(logs) > 3, f"rolled: {logs}")
        one = logs[1]
        places = [(one, size(one) // 2), (logs[-1], size(logs[-1]) - 5)]
        places += [(one.with_suffix(suffix), size(one.with_suffix(suffix)) // 2) for suffix in (".sum", ".index", ".timeindex")]
        places += [(one.parent / "partition.metadata", 30), (data / "manifest.json", 40), (data / "meta" / "metadata", 100)]
        places += [(path, size(path) // 2) for path in (data / "checkpoints").iterdir()]
        # Of block checksums only the first ones are in use: the file is whole blocks.
        places[2] = (one.with_suffix(".sum"), 60)
        for path, byte in places:
            flip(path, byte)
            said = self.tool("log", "verify", data, code=1)
            demand(f"DAMAGE: {path}" in said, f"names {path}, byte {byte}: {said}")
            flip(path, byte)
        self.tool("log", "verify", data)
        return f"{len(places)} flips, each named"

    def journal_damage_is_named(self):
        process = self.killed_before_flush(commits_min=5)
        data = process.data_dir
        commits = []
        for journal in sorted((data / "journal").glob("*/*.journal")):
            lines = [json.loads(line) for line in self.tool("log", "dump", "--json", journal).splitlines()]
            commits += [(line["commit"], journal, line["position"]) for line in lines if "commit" in line]
        commits.sort()
        # Far enough from the end that a later commit says it was flushed.
        _, journal, position = commits[-5]
        flip(journal, position + 300)
        said = self.tool("log", "verify", data, code=1)
        demand(f"DAMAGE: {journal}, byte {position}" in said, said)
        lost = re.search(r"t-0 has records from offset (\d+)", said)
        demand(lost, said)
        return self.given_up(process, int(lost[1]))

    def given_up(self, process, offset):
        data = process.data_dir
        before = self.tool("log", "repair", data, code=1)
        demand(f"offset {offset}" in before, f"nothing is cut unasked: {before}")
        self.tool("log", "repair", data, "--partition", "t-0", "--accept-loss-from", offset + 1, code=1)
        said = self.tool("log", "repair", data, "--partition", "t-0", "--accept-loss-from", offset)
        demand((data / "repair-evidence").is_dir() and "repair-evidence" in said, said)
        self.tool("log", "verify", data)
        process.start()
        low, high, records = read(process.bootstrap, "t", 0)
        demand(low == 0 and high == offset == len(records), f"{low}..{high}, {len(records)} records, cut at {offset}")
        for record_offset, _, _, value, *_ in records:
            demand(value == value_of("t", record_offset), f"offset {record_offset} has what was sent")
        produce(process.bootstrap, "t", 1, range(100), "lz4")
        demand(read(process.bootstrap, "t", 0)[1] == offset + 100, "it takes records again")
        process.stop()
        self.tool("log", "verify", data)
        return f"cut at offset {offset}"

    def repair(self):
        process = self.stopped()
        data = process.data_dir
        one = sorted((data / "topics" / "t-0").glob("*.log"))[1]
        derived = [(one.with_suffix(".sum"), 60), (one.with_suffix(".index"), 9), (one.parent / "partition.metadata", 30)]
        for path, byte in derived:
            flip(path, byte)
        said = self.tool("log", "repair", data)
        demand(all(f"repaired: {path}" in said for path, _ in derived), said)
        self.tool("log", "verify", data)
        flip(one, size(one) // 2)
        said = self.tool("log", "verify", data, code=1)
        lost = re.search(r"records from offset (\d+) on may be lost", said)
        demand(lost, said)
        return self.given_up(process, int(lost[1]))


def main():
    arguments = parse()
    install.reference_broker()
    install.reference_tools()
    lines = Lines()
    cases = Cases(arguments.binary)
    try:
        lines.case("adopt", cases.adopt)
        lines.case("kafkas_tool_reads_ours", cases.kafkas_tool_reads_ours)
        lines.case("compacted", cases.compacted)
        lines.case("verify_names_damage", cases.verify_names_damage)
        lines.case("journal_damage_is_named", cases.journal_damage_is_named)
        lines.case("repair", cases.repair)
    finally:
        cases.remove_all()
    os._exit(lines.finish())


if __name__ == "__main__":
    main()
