"""A well-behaved client in a process of its own: it produces and fetches, one request at a time, and checks every answer.

It knows nothing of what goes on beside it. Its latencies are told, not judged; a wrong answer or none is a problem.
"""

import multiprocessing
import time
from dataclasses import dataclass, field

import wire
from watch import percentile

TOPIC = "witness"
# Enough that every shard has some.
PARTITIONS = 8
VALUE_BYTES = 500
# Between two rounds, unless told otherwise: it is there to notice others, not to load the broker.
PAUSE_SECONDS = 0.002
ANSWER_SECONDS_MAX = 30


@dataclass
class Seen:
    produce: list = field(default_factory=list)
    fetch: list = field(default_factory=list)
    problems: list = field(default_factory=list)

    def text(self):
        return f"produce {spread(self.produce)}, fetch {spread(self.fetch)} ms ({len(self.produce)} rounds)"


def spread(seconds):
    """p50, p99 and the longest."""
    if not seconds:
        return "-/-/-"
    ordered = sorted(seconds)
    return "/".join(f"{value * 1000:.1f}" for value in (percentile(ordered, 50), percentile(ordered, 99), ordered[-1]))


class Rounds:
    """One connection, and what it did since `begin`."""

    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.client = None
        self.number = 0
        self.seen = Seen()

    def one(self):
        """Sends a record and reads it back."""
        self.number += 1
        partition = self.number % PARTITIONS
        value = f"{self.number}:".encode().ljust(VALUE_BYTES, b".")
        sent = wire.batch(wire.record(0, value))
        try:
            if self.client is None:
                self.client = wire.Client(self.bootstrap, seconds_max=ANSWER_SECONDS_MAX)
            started = time.monotonic()
            offset = self.client.produce(TOPIC, partition, sent)
            between = time.monotonic()
            stored = self.client.fetch(TOPIC, partition, offset)
            ended = time.monotonic()
        except (OSError, wire.Refused) as error:
            self.seen.problems.append(f"round {self.number}: {type(error).__name__}: {error}")
            if self.client is not None:
                self.client.close()
            self.client = None
            return
        self.seen.produce.append(between - started)
        self.seen.fetch.append(ended - between)
        if not wire.same_batch(stored[: len(sent)], sent):
            self.seen.problems.append(f"round {self.number}: another record at offset {offset} than was sent")


def _serve(bootstrap, pause, pipe):
    rounds = Rounds(bootstrap)
    while pipe.recv() == "begin":
        rounds.seen = Seen()
        # One round at least, and the connection of the one before.
        while True:
            rounds.one()
            if pipe.poll(pause):
                break
        pipe.recv()
        pipe.send(rounds.seen)


class Witness:
    """Use: `begin`, let others do their worst, `end`."""

    def __init__(self, bootstrap, pause=PAUSE_SECONDS, settings=None):
        """`settings` are those of its topic."""
        with wire.Client(bootstrap) as client:
            client.create_topic(TOPIC, PARTITIONS, settings)
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(bootstrap, pause, theirs), daemon=True)
        self.process.start()

    def begin(self):
        self.pipe.send("begin")

    def end(self):
        self.pipe.send("end")
        # Its last request may take as long as it waits for an answer.
        if not self.pipe.poll(2 * ANSWER_SECONDS_MAX + 5):
            return Seen(problems=["did not come back"])
        return self.pipe.recv()

    def close(self):
        self.pipe.send("close")
        self.process.join(5)
        self.process.kill()
