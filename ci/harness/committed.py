"""What a reader of committed records gets of a topic, and where that ends. It judges nothing and knows no broker process."""

import time

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from load import ANSWER_SECONDS_MAX, PATIENT, READ_SECONDS_MAX, READER_SETTINGS, TRANSIENT
from report_lines import demand

OFFSET_BEGINNING = -2


def ends(bootstrap, topic, partitions, isolation=IsolationLevel.READ_COMMITTED):
    """The offset behind the last record of each partition: the last stable offset, or else the high watermark."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 2})
    asked = {TopicPartition(topic, p): OffsetSpec.latest() for p in range(partitions)}
    deadline = time.monotonic() + ANSWER_SECONDS_MAX
    while True:
        try:
            found = admin.list_offsets(asked, isolation_level=isolation, request_timeout=10)
            return {place.partition: future.result(20).offset for place, future in found.items()}
        except KafkaException as error:
            if error.args[0].code() not in TRANSIENT or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


class Committed:
    """Reads all partitions of a topic on from where it stopped, each in order."""

    def __init__(self, bootstrap, topic, partitions):
        self.bootstrap = bootstrap
        self.topic = topic
        # Behind what was read, with the markers and aborted records that were passed over.
        self.at = {p: 0 for p in range(partitions)}
        self.consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "assigned",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
                "check.crcs": True,
                **{name: PATIENT[name] for name in READER_SETTINGS},
            }
        )
        self.consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in self.at])

    def more(self, seconds):
        """The records that come within a time, if any."""
        found = []
        for message in self.consumer.consume(5000, seconds):
            error = message.error()
            if error is None:
                partition, offset = message.partition(), message.offset()
                demand(offset >= self.at[partition], f"{self.topic}-{partition}: offset {offset} behind {self.at[partition]}")
                self.at[partition] = offset + 1
                found.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                self.at[message.partition()] = message.offset()
            elif error.code() not in TRANSIENT:
                raise KafkaException(error)
        return found

    def rest(self):
        """All up to the last stable offset as it is now."""
        wanted = ends(self.bootstrap, self.topic, len(self.at))
        found, deadline = [], time.monotonic() + READ_SECONDS_MAX
        while any(self.at[p] < end for p, end in wanted.items()):
            new = self.more(0.5)
            if new:
                found += new
                deadline = time.monotonic() + READ_SECONDS_MAX
            demand(time.monotonic() < deadline, f"{self.topic}: read to {self.at} of {wanted}, and no further")
        return found

    def close(self):
        self.consumer.close()


def read_all(bootstrap, topic, partitions):
    """The records of each partition from the beginning to the last stable offset."""
    reader = Committed(bootstrap, topic, partitions)
    try:
        found = {p: [] for p in range(partitions)}
        for message in reader.rest():
            found[message.partition()].append(message)
        return found
    finally:
        reader.close()
