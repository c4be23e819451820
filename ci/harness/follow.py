"""Consumers that read a topic from its beginning, stay at its end, and hold every record to its place and order.

They judge through `matching.py`; the broker process they do not know.
"""

import threading
import time

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from load import PATIENT, READER_SETTINGS
from matching import Order
from oracle import parse


class Tail:
    """A consumer in a thread that reads a topic from its beginning and stays at its end."""

    def __init__(self, bootstrap, topic, plans, matches=None):
        self.bootstrap = bootstrap
        self.topic = topic
        self.partitions = plans[0].partitions
        self.order = Order(topic, plans)
        self.matches = matches
        self.count = 0
        self.problems = self.order.problems
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def start(self):
        self.thread.start()
        return self

    def stop(self):
        self.stopping.set()
        self.thread.join(30)

    def wait_until(self, ends, seconds_max):
        """Waits until it has read up to these offsets, by partition; whether it did."""
        deadline = time.monotonic() + seconds_max
        while any(self.order.next_offset.get(p, 0) < end for p, end in ends.items()):
            if time.monotonic() > deadline or not self.thread.is_alive():
                return False
            time.sleep(0.05)
        return True

    def _run(self):
        config = {
            "bootstrap.servers": self.bootstrap,
            "group.id": "assigned",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "check.crcs": True,
            **{name: PATIENT[name] for name in READER_SETTINGS},
        }
        consumer = Consumer(config)
        try:
            consumer.assign([TopicPartition(self.topic, p, 0) for p in range(self.partitions)])
            while not self.stopping.is_set():
                for message in consumer.consume(2000, 0.2):
                    self._take(message)
        except (KafkaException, AssertionError) as error:
            self.problems.append(f"{self.topic}: {type(error).__name__}: {error}")
        finally:
            consumer.close()

    def _take(self, message):
        error = message.error()
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF or error.retriable():
                return
            raise KafkaException(error)
        who = parse(message.value())
        self.order.see(message.partition(), message.offset(), who)
        if self.matches is not None:
            self.matches.see((message.partition(), message.offset()), who)
        self.count += 1
