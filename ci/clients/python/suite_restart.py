"""Consumer groups across restarts of the broker, which this suite starts and stops itself (confluent-kafka).

Options as of the harness's own programs: --broker millrace|kafka, --binary FILE. It needs the harness on PYTHONPATH.
"""

import argparse
import os
import time

import broker
import runner
from cases import fresh
from cases_groups import Crew, partitions_of, places, produce
from confluent_kafka import KafkaException, TopicPartition
from runner import check, check_equal, topic_name
from suite_confluent import Adapter


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broker", default="millrace")
    parser.add_argument("--binary")
    return parser.parse_args()


# Coordinator load in progress, coordinator not available, not coordinator.
NOT_YET = {14, 15, 16}


def committed(adapter, group, topic, partitions):
    """By a consumer: admin calls of this client may crash where the coordinator is still loading."""
    member = adapter.member(group, [topic], assign=[0])
    deadline = time.monotonic() + 30
    try:
        while True:
            try:
                found = member.consumer.committed([TopicPartition(topic, p) for p in range(partitions)], 30)
                return {tp.partition: tp.offset for tp in found}
            except KafkaException as error:
                if error.args[0].code() not in NOT_YET or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
    finally:
        member.close()


class Restarts:
    """A broker on one port, stopped or killed between the halves of a case."""

    def __init__(self, arguments):
        if arguments.broker == "kafka":
            self.process = broker.Kafka("restart")
        else:
            delay = ["--set", "group.initial.rebalance.delay.ms=100"]
            self.process = broker.Millrace("restart", arguments.binary, port=broker.free_port(), options=delay)
        self.process.start()
        self.adapter = Adapter(self.process.bootstrap)

    def restart(self, how):
        if how == "stopped":
            self.process.stop()
        else:
            self.process.kill()
        self.process.start()

    def offsets_are_kept(self, how):
        adapter = self.adapter
        topic, group, gone = fresh(adapter, "kept", 3), topic_name("group"), topic_name("gone")
        produce(adapter, topic, 3, range(20))
        with Crew(adapter, group, [topic]) as crew:
            crew.join()
            crew.until("a part is read", lambda: len(crew.read()) >= 25, count=7)
            first = places(crew.read())
            crew.commit()
        adapter.alter_group_offsets(gone, {(topic, 0): 1})
        adapter.delete_group(gone)
        before = committed(adapter, group, topic, 3)
        self.restart(how)
        check_equal(committed(adapter, group, topic, 3), before, "committed offsets")
        check(group in adapter.list_groups(), "the group is listed")
        check(gone not in adapter.list_groups(), "a deleted group is not")
        with Crew(adapter, group, [topic]) as crew:
            crew.join()
            crew.until("the rest is read", lambda: len(first) + len(crew.read()) >= 60)
            everything = [(p, n) for p in range(3) for n in range(20)]
            check_equal(sorted(first + places(crew.read())), everything, "records before and after")

    def members_go_on(self, how):
        adapter = self.adapter
        topic, group = fresh(adapter, "members", 4), topic_name("group")
        everything = partitions_of(topic, count=4)
        produce(adapter, topic, 4, range(10))
        with Crew(adapter, group, [topic]) as crew:
            crew.join()
            crew.join()
            crew.settle(everything)
            crew.until("all is read", lambda: len(crew.read()) >= 40)
            crew.commit()
            for member in crew.members:
                member.read.clear()
            self.restart(how)
            produce(adapter, topic, 4, range(10, 20))
            new = {(p, n) for p in range(4) for n in range(10, 20)}
            crew.until("what is new is read", lambda: new <= set(places(crew.read())))
            check_equal(set(places(crew.read())), new, "what is read after the restart")
            crew.settle(everything)
            crew.join()
            crew.settle(everything)


def main():
    restarts = Restarts(parse())
    suite = runner.Suite()
    for how in ("stopped", "killed"):
        suite.add(f"offsets_are_kept_{how}", lambda h=how: restarts.offsets_are_kept(h))
        suite.add(f"members_go_on_{how}", lambda h=how: restarts.members_go_on(h))
    try:
        code = suite.run()
        restarts.process.stop()
    finally:
        restarts.process.remove()
    os._exit(code)


if __name__ == "__main__":
    main()
