"""Sends records in transactions, of which it aborts some, and remembers what it committed. It knows no broker process."""

import random
import threading
import time

from confluent_kafka import KafkaException, Producer
from copies import DROPPED, KEPT, key_of, partition_of
from load import PATIENT
from oracle import value_of
from transactional import TRY_SECONDS, Aborted, Fenced, patiently, send

RECORDS_MAX = 60
ABORTED_SHARE = 0.15
NETWORK = {name: PATIENT[name] for name in PATIENT if name != "message.timeout.ms"}


class Feeder:
    """A transactional producer in a thread. `kept` has the numbers that were committed, by partition and in order."""

    def __init__(self, bootstrap, topic, partitions, per_second, seed, name="feeder"):
        self.bootstrap = bootstrap
        self.topic = topic
        self.kept = {p: [] for p in range(partitions)}
        self.per_second = per_second
        self.chance = random.Random(seed)
        self.name = name
        self.number = 0
        self.aborted = 0
        self.problems = []
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def start(self):
        self.thread.start()
        return self

    def stop(self, seconds_max=120):
        """After the transaction that it is about."""
        self.stopping.set()
        self.thread.join(seconds_max)
        if self.thread.is_alive():
            self.problems.append("its last transaction does not end")

    def _run(self):
        producer = Producer(
            {"bootstrap.servers": self.bootstrap, "transactional.id": self.name, "linger.ms": 2, **NETWORK}
        )
        try:
            patiently(producer.init_transactions, TRY_SECONDS)
            started = time.monotonic()
            while not self.stopping.is_set():
                if self.number < (time.monotonic() - started) * self.per_second:
                    self._transaction(producer)
                else:
                    time.sleep(0.01)
        except (Aborted, Fenced, KafkaException) as error:
            self.problems.append(f"{type(error).__name__}: {error}")

    def _transaction(self, producer):
        numbers = range(self.number, self.number + self.chance.randint(1, RECORDS_MAX))
        self.number = numbers.stop
        aborts = self.chance.random() < ABORTED_SHARE
        patiently(producer.begin_transaction)
        try:
            for number in numbers:
                key = key_of(number)
                value = value_of(DROPPED if aborts else KEPT, number)
                send(producer, self.topic, partition_of(key, len(self.kept)), key, value)
            if aborts:
                patiently(producer.flush, TRY_SECONDS)
                raise Aborted("for no reason")
            patiently(producer.commit_transaction, TRY_SECONDS)
        except Aborted:
            patiently(producer.abort_transaction, TRY_SECONDS)
            self.aborted += 1
            return
        for number in numbers:
            self.kept[partition_of(key_of(number), len(self.kept))].append(number)
