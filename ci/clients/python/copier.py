"""Copies records to the same partitions of another topic, in transactions with the offsets of its group (confluent-kafka).

Until it is stopped by SIGTERM, or has to begin anew (exit code 3). Arguments: HOST:PORT GROUP SOURCE TARGET RANGES ID SEED.
With the records of each partition one goes to RANGES that says which offsets of the source they are of, so that each
transaction has parts in two topics. A few transactions are aborted for no reason. After SIGUSR1 it stops itself (SIGSTOP) at
the worst moment: when its records are sent, and the offsets that belong to them are not. It needs the harness on PYTHONPATH.
"""

import os
import random
import signal
import sys
import time
from dataclasses import dataclass

from confluent_kafka import Consumer, Producer, TopicPartition
from load import PATIENT
from transactional import TRY_SECONDS, Aborted, Fenced, patiently, send

BEGIN_ANEW = 3
RECORDS_MAX = 200
# Of all transactions.
ABORTED_SHARE = 0.05
# Most of the time a copier is within a transaction, so that what happens to it mostly happens there.
PAUSE_SECONDS_MAX = 0.15
NETWORK = {
    # When no broker is left, this client would dismiss those it knows and begin with the bootstrap address again, but wait
    # forever for the group's coordinator among the dismissed (librdkafka 2.16, in send_offsets_to_transaction).
    "metadata.recovery.strategy": "none",
    **{name: PATIENT[name] for name in ("retry.backoff.ms", "reconnect.backoff.ms", "reconnect.backoff.max.ms", "log_level")},
}


@dataclass
class Arguments:
    bootstrap: str
    group: str
    source: str
    target: str
    ranges: str
    name: str
    seed: str


class Copier:
    def __init__(self, arguments):
        self.arguments = arguments
        self.chance = random.Random(arguments.seed)
        self.stopping = self.holding = False
        # Where the next record of each partition of ours is.
        self.position = {}
        # As what the group knows us that gave us these. Asked for later, a client that has just heard that it is no member
        # any more would give none, and a commit by none is taken.
        self.group = None
        # How often partitions came or went.
        self.moves = 0
        common = {"bootstrap.servers": arguments.bootstrap, **NETWORK}
        self.producer = Producer(
            {**common, "transactional.id": arguments.name, "transaction.timeout.ms": 6000, "linger.ms": 5}
        )
        self.consumer = Consumer(
            {
                **common,
                "group.id": arguments.group,
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "partition.assignment.strategy": "roundrobin",
                "session.timeout.ms": 3000,
                "heartbeat.interval.ms": 500,
                "max.poll.interval.ms": 60_000,
            }
        )

    def stop(self, *_):
        self.stopping = True

    def hold(self, *_):
        self.holding = True

    def run(self):
        patiently(self.producer.init_transactions, TRY_SECONDS)
        print("ready", flush=True)
        self.consumer.subscribe([self.arguments.source], on_assign=self.assigned, on_revoke=self.revoked)
        while not self.stopping:
            moves = self.moves
            messages = self.consumer.consume(self.chance.randint(1, RECORDS_MAX), 0.2)
            for error in [m.error() for m in messages if m.error() is not None]:
                print(f"told {error}", flush=True)
            messages = [m for m in messages if m.error() is None]
            if messages and moves != self.moves:
                # Some may be of partitions that others have now.
                self.place(self.consumer.assignment())
            elif messages:
                self.copy(messages)
        self.consumer.close()

    def assigned(self, consumer, partitions):
        self.moves += 1
        self.group = consumer.consumer_group_metadata()
        self.place(partitions)
        print(f"has {sorted(self.position)}", flush=True)

    def revoked(self, _consumer, _partitions):
        self.moves += 1
        self.position = {}

    def place(self, partitions):
        """Goes on where the group has committed; whatever was read ahead is forgotten."""
        asked = [TopicPartition(self.arguments.source, tp.partition) for tp in partitions]
        found = patiently(self.consumer.committed, asked, TRY_SECONDS) if asked else []
        self.position = {tp.partition: max(tp.offset, 0) for tp in found}
        self.consumer.assign([TopicPartition(self.arguments.source, p, at) for p, at in self.position.items()])

    def copy(self, messages):
        try:
            patiently(self.producer.begin_transaction)
            ends = self.send_all(messages)
            offsets = [TopicPartition(self.arguments.source, p, end) for p, end in ends.items()]
            self.pause()
            if self.holding:
                self.stop_itself()
            patiently(self.producer.send_offsets_to_transaction, offsets, self.group, TRY_SECONDS)
            self.pause()
            if self.chance.random() < ABORTED_SHARE:
                raise Aborted("for no reason")
            patiently(self.producer.commit_transaction, TRY_SECONDS)
            self.position.update(ends)
        except Aborted as why:
            print(f"aborts: {why}", flush=True)
            patiently(self.producer.abort_transaction, TRY_SECONDS)
            self.place(self.consumer.assignment())

    def send_all(self, messages):
        """Returns where each partition goes on behind these."""
        ends, counts = {}, {}
        for message in messages:
            partition = message.partition()
            send(self.producer, self.arguments.target, partition, message.key(), b"copy of " + message.value())
            ends[partition] = message.offset() + 1
            counts[partition] = counts.get(partition, 0) + 1
        for partition, end in ends.items():
            what = f"{self.position[partition]} {end} {counts[partition]}"
            send(self.producer, self.arguments.ranges, partition, None, what.encode())
        return ends

    def stop_itself(self):
        patiently(self.producer.flush, TRY_SECONDS)
        self.holding = False
        print("holds", flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)

    def pause(self):
        if self.chance.random() < 0.5:
            patiently(self.producer.flush, TRY_SECONDS)
        time.sleep(self.chance.random() * PAUSE_SECONDS_MAX)


def main():
    copier = Copier(Arguments(*sys.argv[1:]))
    signal.signal(signal.SIGTERM, copier.stop)
    signal.signal(signal.SIGUSR1, copier.hold)
    try:
        copier.run()
    except Fenced as why:
        print(f"begins anew: {why}", flush=True)
        # Its clients would wait for what cannot be.
        os._exit(BEGIN_ANEW)


if __name__ == "__main__":
    main()
