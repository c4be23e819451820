"""How a client of librdkafka goes through a transaction whatever happens: what is tried again, aborted, or the end of it.

It knows no topic and no process.
"""

import time

from confluent_kafka import KafkaError, KafkaException
from load import TRANSIENT

# Longer than a broker is ever away in these tests, with everything it has to be asked again.
PATIENCE_SECONDS = 90
# One try.
TRY_SECONDS = 10
AGAIN_SECONDS = 0.05


# What a client's own queues make of a broker that is away.
AGAIN = TRANSIENT | {KafkaError._TIMED_OUT_QUEUE}


class Aborted(Exception):
    """The transaction can only be aborted."""


class Fenced(Exception):
    """The producer is of no more use: somebody else has its transactional id, or its state is lost."""


def refuse(error):
    """Raises what an error of a call in a transaction means, unless it may be tried again."""
    if error.fatal() or error.code() in (KafkaError._FATAL, KafkaError._FENCED):
        raise Fenced(str(error))
    if error.txn_requires_abort():
        raise Aborted(str(error))


def patiently(call, *arguments):
    """Makes a call again until it says what came of it."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return call(*arguments)
        except KafkaException as raised:
            error = raised.args[0]
            refuse(error)
            if not (error.retriable() or error.code() in AGAIN) or time.monotonic() > deadline:
                raise
        time.sleep(AGAIN_SECONDS)


def send(producer, topic, partition, key, value):
    while True:
        try:
            producer.produce(topic, value, key, partition)
            return
        except BufferError:
            producer.poll(AGAIN_SECONDS)
        except KafkaException as raised:
            refuse(raised.args[0])
            # It takes no more records, as the transaction has failed already.
            raise Aborted(str(raised)) from None
