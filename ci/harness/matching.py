"""Joins what producers were told with what consumers see, while retention deletes behind them.

It keeps only what is not matched yet, so that it may run for hours. It knows no client and no process.
"""

import threading

PROBLEMS_MAX = 50


class Matches:
    """Joins what producers were told with what a consumer sees, record by record.

    A producer's `acknowledged`: it takes (partition, offset) to number. Both sides may come first.
    """

    def __init__(self):
        self.lock = threading.Lock()
        self.told = {}
        self.seen = {}
        self.matched = 0
        self.problems = []

    def problem(self, text):
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(text)

    def tell(self, where, who):
        """A producer was told that its record `who` is at `where`."""
        self._join(where, who, self.told, self.seen)

    def see(self, where, who):
        """A consumer found `who` at `where`."""
        self._join(where, who, self.seen, self.told)

    def _join(self, where, who, mine, others):
        with self.lock:
            if where in mine:
                self.problem(f"{where} is there for {mine[where]} and for {who}")
            other = others.pop(where, None)
            if other is None:
                mine[where] = who
                return
            self.matched += 1
            if other != who:
                self.problem(f"at {where} was {who} on one side and {other} on the other")

    def unmatched(self):
        """Acknowledged and never seen; a record may be seen that nobody was told of, but not the other way round."""
        with self.lock:
            return dict(self.told)


class Acknowledged:
    """What one sender writes into as if it were a dict."""

    def __init__(self, matches, name):
        self.matches = matches
        self.name = name
        self.count = 0

    def __contains__(self, _where):
        # `Matches` notices a place that is told of twice.
        return False

    def __setitem__(self, where, number):
        self.count += 1
        self.matches.tell(where, (self.name, number))

    def __len__(self):
        return self.count


class Order:
    """That the records of each producer come in their order in each partition: offsets dense, numbers ascending."""

    def __init__(self, topic, plans):
        self.topic = topic
        self.plans = {plan.name: plan for plan in plans}
        self.next_offset = {}
        self.last = {}
        self.twice = 0
        self.problems = []

    def see(self, partition, offset, who):
        expected = self.next_offset.get(partition, 0)
        if offset != expected:
            self._problem(f"{self.topic}-{partition}: offset {offset} follows {expected - 1}")
        self.next_offset[partition] = offset + 1
        name, number = who
        plan = self.plans[name]
        last = self.last.get((partition, name), partition - plan.partitions)
        if number == last + plan.partitions:
            self.last[partition, name] = number
        elif number <= last and not plan.idempotent:
            # Sent again by a client that had not heard of its first attempt.
            self.twice += 1
        else:
            self._problem(f"{self.topic}-{partition} at {offset}: {name}:{number} follows {name}:{last}")

    def _problem(self, text):
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(text)
