"""Apache Kafka's own tools, as operators use them; what they need besides is done with confluent-kafka.

This module has those of consumer groups, `cases_tools` the others, and `kafka_tools` runs them.
"""

import sys

import cases_tools
import runner
from cases import Record, fresh
from cases_groups import Crew, partitions_of, produce
from kafka_tools import Tools
from runner import check, check_equal, eventually_equal, topic_name
from suite_confluent import Adapter

CONSUMER_GROUPS = "consumer.group.ConsumerGroupCommand"
CONSOLE_CONSUMER = "consumer.ConsoleConsumer"
CONSOLE_PRODUCER = "ConsoleProducer"


def groups(tools, *arguments):
    # What it says counts; the code of refusals differs from one kind to the other.
    return tools.at(CONSUMER_GROUPS, *arguments, code=None)


def table(lines):
    """The rows of a table as dictionaries by the words of its heading, in which no cell is empty."""
    start = next((n for n, line in enumerate(lines) if line.startswith("GROUP ")), None)
    if start is None:
        raise runner.CheckFailed(f"no table: {lines}")
    heading = lines[start].replace("COORDINATOR (ID)", "COORDINATOR ID").split()
    return [dict(zip(heading, line.split(), strict=True)) for line in lines[start + 1 :]]


def progress(tools, group):
    """Current offset and lag of each partition, by what --describe says."""
    rows = table(groups(tools, "--describe", "--group", group))
    return {int(row["PARTITION"]): (row["CURRENT-OFFSET"], row["LAG"]) for row in rows}


def console(suite, adapter, tools):
    def producer_and_consumer():
        """A reader that stops after some messages has committed just those."""
        topic, group = fresh(adapter, "console"), topic_name("group")
        lines = [f"line {n}" for n in range(10)]
        tools.at(CONSOLE_PRODUCER, "--topic", topic, stdin="\n".join(lines))

        def read(count):
            options = ("--topic", topic, "--group", group, "--from-beginning", "--max-messages", count)
            return [line for line in tools.at(CONSOLE_CONSUMER, *options) if line.startswith("line")]

        check_equal(read(4), lines[:4], "what the first reads")
        check_equal(progress(tools, group), {0: ("4", "6")}, "progress")
        check_equal(read(6), lines[4:], "what the second reads")
        check_equal(progress(tools, group), {0: ("10", "0")}, "progress in the end")

    def consumer_is_a_member():
        topic, group = fresh(adapter, "member", 4), topic_name("group")
        options = ("--topic", topic, "--group", group, "--from-beginning", "--command-property", "group.protocol=classic")
        with Crew(adapter, group, [topic]) as crew:
            process = tools.at_now(CONSOLE_CONSUMER, *options)
            try:
                crew.join()
                crew.until("the tool has its part", lambda: len(crew.members[0].assignment()) == 2)
                produce(adapter, topic, 4, range(3))
                crew.until("a half is read here", lambda: len(crew.read()) >= 6)
                here = {record.value.decode() for record in crew.read()}
                there = {process.stdout.readline().rstrip() for _ in range(6)}
                check_equal(here | there, {f"{p}-{n}" for p in range(4) for n in range(3)}, "what both read")
                # It leaves when it is told to stop.
                process.terminate()
                crew.settle(partitions_of(topic, count=4))
            finally:
                process.kill()
                process.wait()

    suite.add("console_producer_and_consumer", producer_and_consumer)
    suite.add("console_consumer_is_a_member", consumer_is_a_member)


def consumer_groups(suite, adapter, tools):
    def listed_and_described():
        topic, group = fresh(adapter, "describe", 4), topic_name("group")
        with Crew(adapter, group, [topic]) as crew:
            produce(adapter, topic, 4, range(5))
            members = {name: crew.join(instance=name) for name in ("first", "second")}
            crew.settle(partitions_of(topic, count=4))
            crew.until("all is read", lambda: len(crew.read()) >= 20)
            crew.commit()
            produce(adapter, topic, 4, range(5, 7))
            crew.until("the group is stable", crew.described)
            check(group in groups(tools, "--list"), "the group is listed")
            check_equal(progress(tools, group), dict.fromkeys(range(4), ("5", "2")), "progress")
            (state,) = table(groups(tools, "--describe", "--group", group, "--state"))
            check_equal((state["STATE"], state["#MEMBERS"], state["ASSIGNMENT-STRATEGY"]), ("Stable", "2", "range"), "state")
            found = table(groups(tools, "--describe", "--group", group, "--members"))
            names = {row["CONSUMER-ID"]: row["GROUP-INSTANCE-ID"] for row in found}
            check_equal(sorted(names.values()), ["first", "second"], "instance ids")
            check_equal([row["#PARTITIONS"] for row in found], ["2", "2"], "partitions of the members")
            rows = table(groups(tools, "--describe", "--group", group))
            for name, member in members.items():
                own = {(row["TOPIC"], int(row["PARTITION"])) for row in rows if names[row["CONSUMER-ID"]] == name}
                check_equal(own, member.assignment(), f"partitions of {name}")
            check_equal({row["HOST"] for row in rows}, {"/127.0.0.1"}, "hosts")

    def by_state():
        topic, group = fresh(adapter, "states"), topic_name("group")
        adapter.alter_group_offsets(group, {(topic, 0): 0})
        for state, there in (("empty", True), ("stable", False)):
            lines = groups(tools, "--list", "--state", state)
            check_equal(group in {line.split()[0] for line in lines}, there, f"listed as {state}")
        (row,) = table(groups(tools, "--describe", "--group", group, "--state"))
        check_equal((row["STATE"], row["#MEMBERS"]), ("Empty", "0"), "state and members")
        said = " ".join(groups(tools, "--describe", "--group", topic_name("none")))
        check("GroupIdNotFoundException" in said, f"an unknown group is not found: {said}")

    def reset():
        topic, group = fresh(adapter, "reset", 2), topic_name("group")
        base = 1_700_000_000_000
        for p in range(2):
            adapter.produce(topic, [Record(b"v", partition=p, timestamp=base + n * 1000) for n in range(10)])
        adapter.alter_group_offsets(group, {(topic, 0): 5, (topic, 1): 6})

        def reset_to(what, wanted, execute=True):
            scope = ("--reset-offsets", "--group", group, "--topic", topic)
            rows = table(groups(tools, *scope, *what, "--execute" if execute else "--dry-run"))
            check_equal({int(row["PARTITION"]): row["NEW-OFFSET"] for row in rows}, wanted, f"new offsets by {what}")
            if execute:
                committed = {p: str(at) for (_, p), at in adapter.group_offsets(group).items()}
                check_equal(committed, wanted, f"committed after {what}")

        reset_to(("--shift-by", "-2"), {0: "3", 1: "4"}, execute=False)
        check_equal(adapter.group_offsets(group), {(topic, 0): 5, (topic, 1): 6}, "after the dry run")
        reset_to(("--shift-by", "-2"), {0: "3", 1: "4"})
        reset_to(("--to-earliest",), {0: "0", 1: "0"})
        reset_to(("--to-offset", "7"), {0: "7", 1: "7"})
        reset_to(("--to-datetime", "2023-11-14T22:13:24.500+00:00"), {0: "5", 1: "5"})
        reset_to(("--to-latest",), {0: "10", 1: "10"})
        with Crew(adapter, group, [topic]) as crew:
            crew.join()
            crew.settle(partitions_of(topic, count=2))
            scope = ("--reset-offsets", "--group", group, "--topic", topic, "--to-earliest", "--execute")
            said = " ".join(groups(tools, *scope))
            check("can only be reset if the group" in said, f"refused while there are members: {said}")
            check_equal(adapter.group_offsets(group), {(topic, 0): 10, (topic, 1): 10}, "after the refusal")

    def deleted():
        topic, group = fresh(adapter, "delete", 2), topic_name("group")
        produce(adapter, topic, 2, range(5))

        def delete():
            return " ".join(groups(tools, "--delete", "--group", group))

        with Crew(adapter, group, [topic]) as crew:
            crew.join()
            crew.until("everything is read", lambda: len(crew.read()) >= 10)
            crew.commit()
            said = delete()
            check("GroupNotEmptyException" in said, f"a group with members is not deleted: {said}")
        eventually_equal(lambda: adapter.describe_group(group).state, "Empty", "state")
        said = " ".join(groups(tools, "--delete-offsets", "--group", group, "--topic", f"{topic}:0"))
        check("Request succeeded" in said, f"offsets are deleted: {said}")
        check_equal(adapter.group_offsets(group), {(topic, 1): 5}, "offsets that are left")
        said = delete()
        check("was successful" in said, f"the group is deleted: {said}")
        check(group not in groups(tools, "--list"), "the group is not listed")
        said = delete()
        check("GroupIdNotFoundException" in said, f"it is not there any more: {said}")

    suite.add("consumer_groups_list_and_describe", listed_and_described)
    suite.add("consumer_groups_by_state", by_state)
    suite.add("consumer_groups_reset_offsets", reset)
    suite.add("consumer_groups_delete", deleted)


if __name__ == "__main__":
    adapter_ = Adapter(sys.argv[1])
    tools_ = Tools(adapter_.bootstrap)
    suite_ = runner.Suite()
    console(suite_, adapter_, tools_)
    consumer_groups(suite_, adapter_, tools_)
    cases_tools.register(suite_, adapter_, tools_)
    runner.run_and_exit(suite_)
