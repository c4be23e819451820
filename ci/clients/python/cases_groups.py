"""What every Python client is asked to do in consumer groups; it knows no client, only members and the adapter's calls.

Beside what `cases` wants, an adapter has:
    assignors: the names that `member` takes
    committed_at_once: of how many records it can commit one after the other without a rebalance between them
    member(group, topics, assign=None, assignor="range", instance=None, auto_commit=False, session_ms=...) -> a member
    list_groups() -> names; describe_group(group) -> Described; group_offsets(group) -> {(topic, partition): offset}
    poll_all(members, count): yields each member with the records, at most `count`, that it reads now
    alter_group_offsets, delete_group, delete_group_offsets (a client that lacks one leaves it out of `features`)
A member has poll(seconds, count) -> records; assignment() -> {(topic, partition)}; commit(offsets=None); commit_async();
close(); generation(), None where the client does not tell; and `changes`: the parts that it was told were assigned or
revoked, in turn, but for empty ones.
`assign` are partitions of the first topic that it takes without joining.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass

from cases import Record, fresh
from runner import (
    CASE_SECONDS_MAX,
    BrokerError,
    CommitRefused,
    check,
    check_equal,
    eventually_equal,
    expect_error,
    topic_name,
)

OFFSET_METADATA_TOO_LARGE = 12
ILLEGAL_GENERATION = 22
UNKNOWN_MEMBER_ID = 25
REBALANCE_IN_PROGRESS = 27
NON_EMPTY_GROUP = 68
GROUP_ID_NOT_FOUND = 69
FENCED_INSTANCE_ID = 82
GROUP_SUBSCRIBED_TO_TOPIC = 86

# Longer than a case, so that only a member that leaves is gone ...
SESSION_MS = 120_000
# ... and the shortest that Kafka's defaults allow, for one that is to be lost.
SESSION_MS_MIN = 6_000
# How soon a member that does not consume hears of a rebalance.
HEARTBEAT_MS = 500
REBALANCE_MS = 120_000
# Never within a case: only what else makes a client commit does.
AUTO_COMMIT_MS = 600_000
GROUP_SECONDS_MAX = 60


@dataclass(frozen=True)
class Described:
    """A group as the admin client shows it: the assignment of each member by its id."""

    state: str
    assignor: str
    members: dict


def poll_in_turn(members, count):
    for member in members:
        yield member, member.poll(0.1, count)


class Crew:
    """The members of a group that a case drives. All are polled: one that is not holds up a rebalance."""

    def __init__(self, adapter, group, topics):
        self.adapter = adapter
        self.group = group
        self.topics = topics
        self.members = []
        self.left = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for member in self.members:
            member.close()

    def join(self, **settings):
        member = self.adapter.member(self.group, self.topics, **settings)
        member.read = []
        self.members.append(member)
        return member

    def leave(self, member):
        self.members.remove(member)
        self.left.append(member)
        member.close()

    def until(self, what, holds, count=500):
        """Reads, at most `count` records at once, until it holds."""
        deadline = time.monotonic() + GROUP_SECONDS_MAX
        while not holds():
            if time.monotonic() > deadline:
                parts = [sorted(member.assignment()) for member in self.members]
                raise AssertionError(f"not in time: {what}; {len(self.read())} records read, assigned {parts}")
            for member, records in self.adapter.poll_all(self.members, count):
                member.read += records

    def shared(self, wanted):
        """Every member has a part, the parts are disjoint, and together they are all."""
        parts = [member.assignment() for member in self.members]
        return all(parts) and sum(map(len, parts)) == len(wanted) and set().union(*parts) == wanted

    def settle(self, wanted):
        self.until("the partitions are shared", lambda: self.shared(wanted))

    def read(self):
        return [record for member in self.members + self.left for record in member.read]

    def commit(self):
        for member in self.members:
            member.commit()

    def described(self, state="Stable"):
        found = self.adapter.describe_group(self.group)
        return found.state == state and len(found.members) == (len(self.members) if state == "Stable" else 0)


def partitions_of(*topics, count):
    return {(topic, p) for topic in topics for p in range(count)}


def produce(adapter, topic, partitions, numbers):
    records = [Record(f"{p}-{n}".encode(), partition=p) for p in range(partitions) for n in numbers]
    adapter.produce(topic, records, idempotent=True)


def places(records):
    return [(record.partition, record.offset) for record in records]


def check_each_once(records, partitions, numbers, what):
    check_equal(sorted(places(records)), [(p, n) for p in range(partitions) for n in numbers], what)
    wrong = [record for record in records if record.value != f"{record.partition}-{record.offset}".encode()]
    check_equal(wrong, [], f"{what}: records that are not what was sent")


def is_absent(adapter, group):
    """Versions of DescribeGroups before 6 have no error for it, but call it dead."""
    try:
        return adapter.describe_group(group) == Described("Dead", "", {})
    except BrokerError as error:
        check_equal(error.code, GROUP_ID_NOT_FOUND, f"error code ({error})")
        return True


@contextmanager
def member_of_its_own(adapter, group, topic):
    """The suite in another process, as a member that can be killed."""
    command = [sys.executable, os.path.abspath(sys.argv[0]), adapter.bootstrap, "--member", group, topic]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def member_until_killed(adapter, group, topic):
    # Whatever becomes of the suite.
    signal.alarm(2 * CASE_SECONDS_MAX)
    member = adapter.member(group, [topic], session_ms=SESSION_MS_MIN)
    while True:
        member.poll(0.1, 500)


def register(suite, adapter):
    """Adds every case that the client has the features for."""

    def case(name, *needs):
        def add(function):
            if set(needs) <= adapter.features:
                suite.add(f"group_{name}", function)
            return function

        return add

    register_progress(case, suite, adapter)
    register_sharing(case, adapter)
    register_assignors(case, suite, adapter)
    register_static(case, adapter)
    register_admin(case, adapter)


def register_progress(case, suite, adapter):
    def resumes(how):
        topic, group = fresh(adapter, "resume", 3), topic_name("group")
        produce(adapter, topic, 3, range(30))
        with Crew(adapter, group, [topic]) as crew:
            first = crew.join(auto_commit=how == "close")
            crew.until("the first reads a part", lambda: len(first.read) >= 40, count=7)
            check(len(first.read) < 90, "there is a rest for the second")
            wanted = {(topic, p): sum(record.partition == p for record in first.read) for p in range(3)}
            wanted = {where: count for where, count in wanted.items() if count}

            def committed():
                # Some clients commit a position of 0 for what they have not read.
                return {where: at for where, at in adapter.group_offsets(group).items() if at > 0}

            if how == "sync":
                first.commit()
            elif how == "async":
                first.commit_async()
                eventually_equal(committed, wanted, "committed offsets")
            crew.leave(first)
            check_equal(committed(), wanted, "committed offsets after it left")
            crew.join()
            crew.until("the second reads the rest", lambda: len(crew.read()) >= 90)
            check_each_once(crew.read(), 3, range(30), "records of both")

    for how in ("sync", "async", "close"):
        suite.add(f"group_resumes_after_commit_{how}", lambda h=how: resumes(h))

    @case("independent_groups_each_see_everything")
    def independent():
        topic = fresh(adapter, "independent", 2)
        produce(adapter, topic, 2, range(25))
        crews = [Crew(adapter, topic_name("group"), [topic]) for _ in range(3)]
        for crew in crews:
            with crew:
                crew.join()
                crew.until("everything is read", lambda c=crew: len(c.read()) >= 50)
                crew.commit()
                check_each_once(crew.read(), 2, range(25), "records")
        for crew in crews:
            check_equal(adapter.group_offsets(crew.group), {(topic, 0): 25, (topic, 1): 25}, "committed offsets")

    @case("commits_of_a_consumer_that_assigns")
    def simple():
        topic, group = fresh(adapter, "simple", 2), topic_name("group")
        produce(adapter, topic, 2, range(10))
        with Crew(adapter, group, [topic]) as crew:
            one = crew.join(assign=[0, 1])
            crew.until("everything is read", lambda: len(one.read) >= 20)
            one.commit({(topic, 0): 4, (topic, 1): 10})
            crew.leave(one)
            check_equal(adapter.group_offsets(group), {(topic, 0): 4, (topic, 1): 10}, "committed offsets")
            check(group in adapter.list_groups(), "the group is listed")
            found = adapter.describe_group(group)
            check_equal((found.state, found.members), ("Empty", {}), "state and members")
            two = crew.join(assign=[0, 1])
            produce(adapter, topic, 2, range(10, 12))
            crew.until("the rest is read", lambda: len(two.read) >= 10)
            wanted = [(0, n) for n in range(4, 12)] + [(1, n) for n in range(10, 12)]
            check_equal(sorted(places(two.read)), wanted, "what the second read")

    @case("rebalance_while_consuming_loses_nothing")
    def while_consuming():
        """Each record is committed by itself, so only those whose commit was refused may come again."""
        topic, group = fresh(adapter, "busy", 4), topic_name("group")
        seen, refused = [], set()

        def commit_each(member, records):
            for record in records:
                where = (record.partition, record.offset)
                seen.append(where)
                member.read.append(record)
                try:
                    member.commit({(topic, record.partition): record.offset + 1})
                except CommitRefused:
                    refused.add(where)
                except BrokerError as error:
                    moved_on = (ILLEGAL_GENERATION, UNKNOWN_MEMBER_ID, REBALANCE_IN_PROGRESS)
                    check(error.code in moved_on, f"a commit is refused for the rebalance: {error}")
                    refused.add(where)

        with Crew(adapter, group, [topic]) as crew:
            deadline = time.monotonic() + GROUP_SECONDS_MAX
            sent = 0
            crew.join()
            # There is always more to read, until both have read.
            while len(set(seen)) < 4 * sent or len(crew.members) == 1 or not all(m.read for m in crew.members):
                check(time.monotonic() < deadline, f"{len(set(seen))} of {4 * sent} records, refused {sorted(refused)}")
                if len(set(seen)) == 4 * sent:
                    produce(adapter, topic, 4, range(sent, sent + 20))
                    sent += 20
                if len(crew.members) == 1 and len(seen) > 50:
                    crew.join()
                for member, records in adapter.poll_all(crew.members, adapter.committed_at_once):
                    commit_each(member, records)
            check_equal(sorted(set(seen)), [(p, n) for p in range(4) for n in range(sent)], "records of both")
            again = {where for where in seen if seen.count(where) > 1}
            check(again <= refused, f"read again although committed: {sorted(again - refused)}")
            at_the_end = {(topic, p): sent for p in range(4) if (p, sent - 1) not in refused}
            found = adapter.group_offsets(group)
            check_equal({where: found.get(where) for where in at_the_end}, at_the_end, "committed offsets")


def register_sharing(case, adapter):
    @case("members_share_the_partitions")
    def shares():
        topic, group = fresh(adapter, "share", 6), topic_name("group")
        everything = partitions_of(topic, count=6)

        def round_of(numbers):
            crew.settle(everything)
            for member in crew.members:
                member.read.clear()
            produce(adapter, topic, 6, numbers)
            crew.until("all is read", lambda: sum(len(m.read) for m in crew.members) >= 6 * len(numbers))
            check_each_once([r for m in crew.members for r in m.read], 6, numbers, "records of all members")
            for member in crew.members:
                own = {p for _, p in member.assignment()}
                check({record.partition for record in member.read} == own, f"a member reads its own partitions: {own}")
            crew.commit()

        with Crew(adapter, group, [topic]) as crew:
            crew.join()
            crew.join()
            round_of(range(10))
            crew.join()
            round_of(range(10, 20))
            check_equal([len(member.assignment()) for member in crew.members], [2, 2, 2], "partitions of each")
            crew.leave(crew.members[0])
            round_of(range(20, 30))
            crew.leave(crew.members[0])
            round_of(range(30, 40))
        check_equal(adapter.group_offsets(group), dict.fromkeys(everything, 40), "committed offsets")

    @case("takes_over_from_a_member_that_was_killed")
    def killed():
        topic, group = fresh(adapter, "killed", 4), topic_name("group")
        produce(adapter, topic, 4, range(10))
        with Crew(adapter, group, [topic]) as crew, member_of_its_own(adapter, group, topic) as other:
            left = crew.join()
            crew.until("the other has its part", lambda: len(left.assignment()) == 2)
            other.kill()
            other.wait()
            produce(adapter, topic, 4, range(10, 20))
            crew.settle(partitions_of(topic, count=4))
            # The other has committed nothing, so what it read comes again.
            everything = {(p, n) for p in range(4) for n in range(20)}
            crew.until("all is read", lambda: set(places(left.read)) == everything)


def register_assignors(case, suite, adapter):
    def assigns(name, sizes):
        topics = [fresh(adapter, "assign", 3) for _ in range(2)]
        everything = partitions_of(*topics, count=3)
        with Crew(adapter, topic_name("group"), topics) as crew:
            crew.join(assignor=name)
            crew.join(assignor=name)
            crew.settle(everything)
            check_equal(sorted(len(member.assignment()) for member in crew.members), sizes, "partitions of each")
            crew.until("the group is stable", crew.described)
            check_equal(adapter.describe_group(crew.group).assignor, name, "the protocol of the group")
            before = {member: member.assignment() for member in crew.members}
            crew.join(assignor=name)
            crew.settle(everything)
            if "sticky" in name:
                for member, had in before.items():
                    check(member.assignment() <= had, f"a member keeps of what it had: {member.assignment()}, had {had}")

    # Of two topics with three partitions each, `range` gives the first of two members two each.
    for name in adapter.assignors:
        sizes = [2, 4] if name == "range" else [3, 3]
        suite.add(f"group_assignor_{name.replace('-', '_')}", lambda n=name, s=sizes: assigns(n, s))

    def cooperative():
        topic = fresh(adapter, "cooperative", 6)
        with Crew(adapter, topic_name("group"), [topic]) as crew:
            one = crew.join(assignor="cooperative-sticky")
            crew.settle(partitions_of(topic, count=6))
            check_equal(one.changes, [("assigned", partitions_of(topic, count=6))], "changes while it was alone")
            two = crew.join(assignor="cooperative-sticky")
            crew.settle(partitions_of(topic, count=6))
            check_equal(len(two.assignment()), 3, "partitions of the second")
            moved = set().union(*(parts for what, parts in one.changes if what == "revoked"))
            check_equal(moved, two.assignment(), "what the first had to give up")
            given = [parts for what, parts in one.changes[1:] if what == "assigned"]
            check_equal(given, [], "what the first was given again")

    if "cooperative-sticky" in adapter.assignors:
        suite.add("group_cooperative_members_keep_what_stays", cooperative)

    @case("protocols_that_do_not_fit_are_refused", "join_errors")
    def inconsistent():
        topic = fresh(adapter, "fit", 2)
        with Crew(adapter, topic_name("group"), [topic]) as crew:
            crew.join(assignor="range")
            crew.settle(partitions_of(topic, count=2))
            other = adapter.member(crew.group, [topic], assignor="roundrobin")
            try:
                expect_error(23, lambda: poll_until_it_fails(other))
            finally:
                other.close()


def poll_until_it_fails(member):
    deadline = time.monotonic() + GROUP_SECONDS_MAX
    while time.monotonic() < deadline:
        member.poll(0.1, 1)
    return member.assignment()


def register_static(case, adapter):
    @case("static_member_restarts_without_a_rebalance", "static")
    def restarts():
        topic, group = fresh(adapter, "static", 4), topic_name("group")
        everything = partitions_of(topic, count=4)
        with Crew(adapter, group, [topic]) as crew:
            one = crew.join(instance="one")
            # Alone at first, so that the one that restarts is the leader.
            crew.settle(everything)
            two = crew.join(instance="two")
            crew.settle(everything)
            generation, part, told = two.generation(), one.assignment(), list(two.changes)
            crew.leave(one)
            again = crew.join(instance="one")
            crew.settle(everything)
            check_equal(again.assignment(), part, "its partitions after the restart")
            check_equal(two.changes, told, "what the other was told")
            check_equal((again.generation(), two.generation()), (generation, generation), "generations")
            produce(adapter, topic, 4, range(10))
            crew.until("all is read", lambda: len(again.read) + len(two.read) >= 40)
            check_each_once(again.read + two.read, 4, range(10), "records")
            crew.commit()

    @case("static_member_is_fenced_by_a_second_of_its_name", "fencing")
    def fenced():
        topic, group = fresh(adapter, "fenced", 1), topic_name("group")
        produce(adapter, topic, 1, range(5))
        with Crew(adapter, group, [topic]) as crew:
            first = crew.join(instance="one")
            crew.until("the first reads", lambda: len(first.read) >= 5)
            first.commit()
            # Not polled any more: it may hear of it there.
            crew.members.remove(first)
            try:
                second = crew.join(instance="one")
                crew.settle(partitions_of(topic, count=1))
                expect_error(FENCED_INSTANCE_ID, lambda: first.commit({(topic, 0): 3}))
                second.commit({(topic, 0): 4})
                check_equal(adapter.group_offsets(group), {(topic, 0): 4}, "committed offsets")
            finally:
                first.close()


def register_admin(case, adapter):
    @case("is_listed_and_described")
    def described():
        topic, group = fresh(adapter, "describe", 4), topic_name("group")
        check(group not in adapter.list_groups(), "the group is not there")
        check(is_absent(adapter, group), "the group is not described")
        with Crew(adapter, group, [topic]) as crew:
            members = [crew.join(), crew.join()]
            crew.settle(partitions_of(topic, count=4))
            crew.until("two members are described", crew.described)
            found = adapter.describe_group(group)
            wanted = sorted(sorted(member.assignment()) for member in members)
            check_equal(sorted(sorted(parts) for parts in found.members.values()), wanted, "assignments")
            check(group in adapter.list_groups(), "the group is listed")
            members[0].commit({next(iter(members[0].assignment())): 0})
            crew.leave(members[0])
            crew.until("one member is described", crew.described)
            crew.leave(members[1])
            eventually_equal(lambda: crew.described("Empty"), True, "the group is empty")
            check(group in adapter.list_groups(), "the empty group is listed")

    @case("offsets_of_an_unknown_group_are_none")
    def unknown():
        check_equal(adapter.group_offsets(topic_name("none")), {}, "offsets")

    @case("offsets_are_altered", "alter_group_offsets")
    def altered():
        topic, group = fresh(adapter, "alter", 2), topic_name("group")
        produce(adapter, topic, 2, range(10))
        wanted = {(topic, 0): 3, (topic, 1): 8}
        adapter.alter_group_offsets(group, wanted)
        check_equal(adapter.group_offsets(group), wanted, "offsets")
        with Crew(adapter, group, [topic]) as crew:
            crew.join()
            crew.until("the rest is read", lambda: len(crew.read()) >= 9)
            rest = [(0, n) for n in range(3, 10)] + [(1, 8), (1, 9)]
            check_equal(sorted(places(crew.read())), rest, "what was read")
            # Who commits as nobody in particular is no member of a group that has some.
            expect_error(UNKNOWN_MEMBER_ID, lambda: adapter.alter_group_offsets(group, {(topic, 0): 0}))
            check_equal(adapter.group_offsets(group), wanted, "offsets after the refusal")
        eventually_equal(lambda: adapter.describe_group(group).state, "Empty", "state")
        adapter.alter_group_offsets(group, {(topic, 0): 0})
        check_equal(adapter.group_offsets(group), {**wanted, (topic, 0): 0}, "offsets in the end")

    @case("is_deleted", "delete_group")
    def deleted():
        topic, group = fresh(adapter, "delete", 1), topic_name("group")
        produce(adapter, topic, 1, range(5))
        with Crew(adapter, group, [topic]) as crew:
            crew.join()
            crew.until("everything is read", lambda: len(crew.read()) >= 5)
            crew.commit()
            expect_error(NON_EMPTY_GROUP, lambda: adapter.delete_group(group))
            check_equal(adapter.group_offsets(group), {(topic, 0): 5}, "offsets after the refusal")
        eventually_equal(lambda: adapter.describe_group(group).state, "Empty", "state")
        adapter.delete_group(group)
        check(group not in adapter.list_groups(), "the group is not listed")
        check(is_absent(adapter, group), "the group is not described")
        check_equal(adapter.group_offsets(group), {}, "offsets of a group that is deleted")
        expect_error(GROUP_ID_NOT_FOUND, lambda: adapter.delete_group(group))
        with Crew(adapter, group, [topic]) as crew:
            crew.join()
            crew.until("a new group of the name starts over", lambda: len(crew.read()) >= 5)

    @case("offsets_are_deleted", "delete_group_offsets")
    def offsets_deleted():
        topic, group = fresh(adapter, "forget", 2), topic_name("group")
        produce(adapter, topic, 2, range(5))
        with Crew(adapter, group, [topic]) as crew:
            crew.join()
            crew.until("everything is read", lambda: len(crew.read()) >= 10)
            crew.commit()
            expect_error(GROUP_SUBSCRIBED_TO_TOPIC, lambda: adapter.delete_group_offsets(group, [(topic, 0)]))
        eventually_equal(lambda: adapter.describe_group(group).state, "Empty", "state")
        adapter.delete_group_offsets(group, [(topic, 0)])
        check_equal(adapter.group_offsets(group), {(topic, 1): 5}, "offsets")
        expect_error(GROUP_ID_NOT_FOUND, lambda: adapter.delete_group_offsets(topic_name("none"), [(topic, 0)]))
