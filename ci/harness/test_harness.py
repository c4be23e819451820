"""Shows that the harness sees what it is there to see: losses, duplicates, wrong counts."""

import unittest
from types import SimpleNamespace

import broker
import copies
import instructions
import oracle
import steps


def reading(partitions):
    """A reader that saw these numbers of producer `p` in each partition."""
    return SimpleNamespace(seen={n: [("p", number) for number in numbers] for n, numbers in enumerate(partitions)})


def sender(partitions=1, sent=4, idempotent=True, acknowledged=None, unplaced=(), problems=()):
    plan = oracle.Plan("p", "t", partitions, idempotent, "none", 1)
    placed = {(0, n): n for n in range(sent)} if acknowledged is None else acknowledged
    return SimpleNamespace(plan=plan, sent=sent, acknowledged=placed, unplaced=list(unplaced), problems=list(problems))


class Oracle(unittest.TestCase):
    def refused(self, what, of, read):
        with self.assertRaisesRegex(AssertionError, what):
            oracle.check_sender(of, reading(read))

    def test_all_there_passes(self):
        oracle.check_sender(sender(), reading([[0, 1, 2, 3]]))
        two = sender(partitions=2, acknowledged={(0, 0): 0, (1, 0): 1, (0, 1): 2, (1, 1): 3})
        oracle.check_sender(two, reading([[0, 2], [1, 3]]))

    def test_a_lost_record_is_seen(self):
        self.refused("ends at 3", sender(), [[0, 1, 2]])
        self.refused("where p:1 was acknowledged", sender(), [[0, 2, 3, 1]])

    def test_a_record_lost_that_had_no_offset_is_seen(self):
        of = sender(acknowledged={(0, 0): 0, (0, 1): 1, (0, 2): 2}, unplaced=[3])
        oracle.check_sender(of, reading([[0, 1, 2, 3]]))
        self.refused("3 different of 4", of, [[0, 1, 2]])

    def test_a_duplicate_is_seen_where_there_may_be_none(self):
        read = [[0, 1, 2, 3, 3]]
        self.refused("1 twice", sender(), read)
        oracle.check_sender(sender(idempotent=False), reading(read))

    def test_disorder_is_seen(self):
        of = sender(acknowledged={(0, 0): 0, (0, 1): 2, (0, 2): 1, (0, 3): 3})
        self.refused("out of order", of, [[0, 2, 1, 3]])

    def test_disorder_is_the_client_s_only_where_it_is_said(self):
        of = sender(idempotent=False, acknowledged={(0, 0): 0, (0, 1): 2, (0, 2): 1, (0, 3): 3})
        oracle.check_sender(of, reading([[0, 2, 1, 3]]), ordered=False)
        with self.assertRaisesRegex(AssertionError, "3 different of 4"):
            oracle.check_sender(sender(acknowledged={(0, 0): 0}, unplaced=[1, 2, 3]), reading([[0, 3, 1]]), ordered=False)

    def test_what_was_given_up_or_never_told_is_seen(self):
        self.refused("problems", sender(problems=["p:1 was given up"]), [[0, 1, 2, 3]])
        self.refused("told of 3 of 4", sender(acknowledged={(0, n): n for n in range(3)}), [[0, 1, 2, 3]])

    def test_changed_bytes_are_seen(self):
        value = oracle.value_of("p", 7)
        self.assertEqual(oracle.parse(value), ("p", 7))
        with self.assertRaisesRegex(AssertionError, "other bytes"):
            oracle.parse(value[:-1] + bytes([value[-1] ^ 1]))


class Copies(unittest.TestCase):
    """One partition whose source has these numbers at offsets with gaps, as markers leave them."""

    KEPT = [5, 6, 9, 12]
    SOURCE = [(n * 2, copies.key_of(number), oracle.value_of(copies.KEPT, number)) for n, number in enumerate(KEPT)]
    TARGET = [(offset + 1, key, copies.COPY + value) for offset, key, value in SOURCE]

    def refused(self, what, call, *arguments):
        with self.assertRaisesRegex(AssertionError, what):
            call(*arguments)

    def test_the_source_has_what_was_committed(self):
        copies.check_source({0: self.KEPT}, {0: self.SOURCE})
        dropped = [*self.SOURCE, (9, copies.key_of(13), oracle.value_of(copies.DROPPED, 13))]
        self.refused("aborted", copies.check_source, {0: self.KEPT}, {0: dropped})
        self.refused("nothing where 12 is due", copies.check_source, {0: self.KEPT}, {0: self.SOURCE[:-1]})
        other = [(0, b"other", self.SOURCE[0][2]), *self.SOURCE[1:]]
        self.refused("other", copies.check_source, {0: self.KEPT}, {0: other})

    def test_a_copy_is_the_source_once_and_in_order(self):
        copies.check_copy({0: self.SOURCE}, {0: self.TARGET})
        for what, target in {
            "nothing where .* 0 twice, 1 are not there": self.TARGET[:-1],
            "where nothing is due.* 1 twice, 0 are not there": [*self.TARGET, self.TARGET[1]],
            "0 twice, 0 are not there": [self.TARGET[1], self.TARGET[0], *self.TARGET[2:]],
        }.items():
            self.refused(what, copies.check_copy, {0: self.SOURCE}, {0: target})

    def test_transactions_go_on_where_others_ended(self):
        def check(*said):
            copies.check_ranges({0: self.SOURCE}, {0: [(n, None, what) for n, what in enumerate(said)]})

        check(b"0 3 2", b"3 7 2")
        self.refused("begins at 0, not at 3", check, b"0 3 2", b"0 3 2", b"3 7 2")
        self.refused("begins at 3, not at 0", check, b"3 7 2")
        self.refused("end at 3, not at 7", check, b"0 3 2")
        self.refused("of 3 records, not 4", check, b"0 3 2", b"3 7 1")

    def test_offsets_are_behind_the_last_record(self):
        copies.check_offsets({0: self.SOURCE, 1: []}, {0: 7})
        self.refused("ends at", copies.check_offsets, {0: self.SOURCE}, {0: 6})


class Listener(unittest.TestCase):
    def check(self, output, want):
        self.assertEqual(broker.parse_listener(output), want)

    def test_it_is_found(self):
        self.check("millrace 0.1.0\nlistening on 127.0.0.1:9092\nadmin on http://127.0.0.1:9644\n", "127.0.0.1:9092")
        self.check("\x1b[32mINFO\x1b[0m Listening on \x1b[1m127.0.0.1:41233\x1b[0m", "127.0.0.1:41233")
        self.check("admin on http://127.0.0.1:9644\nclients: 127.0.0.1:9092\n", "127.0.0.1:9092")

    def test_it_is_not_there_yet(self):
        self.check("", None)
        self.check("admin on http://127.0.0.1:9644\n", None)


class Counting(unittest.TestCase):
    def test_cargo(self):
        text = (
            "test a::b ... ok\ntest c - works (line 3) ... FAILED\n"
            "test result: FAILED. 1 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.00s\n"
            "test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n"
        )
        counted = steps.count_cargo(text)
        self.assertEqual((counted.passed, counted.ignored), (6, 2))
        self.assertEqual(counted.failures, ["c - works (line 3)"])

    def test_what_failed_tests_said_is_found_before_the_output_of_those_after_them(self):
        text = (
            "test a ... FAILED\ntest b ... FAILED\n\nfailures:\n\n"
            "---- a stdout ----\npanicked at x.rs:1:1:\nno answer\n\n---- b stdout ----\nwrong\n\n\n"
            "failures:\n    a\n    b\n\ntest result: FAILED. 0 passed; 2 failed; 0 ignored\n" + "noise\n" * 100
        )
        said = steps.said_by_failures(text)
        self.assertIn("panicked at x.rs:1:1:\nno answer", said)
        self.assertIn("---- b stdout ----\nwrong", said)
        self.assertNotIn("noise", said)
        self.assertNotIn("test result", said)
        self.assertEqual(steps.said_by_failures("test a ... ok\n"), "")

    def test_a_failure_without_a_name_counts(self):
        self.assertEqual(steps.count_cargo("test result: FAILED. 0 passed; 2 failed; 0 ignored;").failures, ["(unnamed)"] * 2)

    def count(self, text, code):
        """Counts (passed, failed) of a program's log."""
        import pathlib
        import tempfile

        report = steps_report()
        with tempfile.TemporaryDirectory() as folder:
            log = pathlib.Path(folder) / "log"
            log.write_text(text)
            steps.Run(report, None).count_lines("x", log, code, None)
        return report.passed, report.failed

    def test_programs(self):
        self.assertEqual(self.count("ok a (0.1 s)\nok b\nran 2\n", 0), (2, 0))
        self.assertEqual(self.count("ok a\nFAIL b: why\nran 2\n", 1), (1, 1))

    def test_a_program_that_did_not_come_to_its_end_fails(self):
        self.assertEqual(self.count("ok a\n", 0), (1, 1))
        self.assertEqual(self.count("ok a\nran 2\n", 0), (1, 1))
        self.assertEqual(self.count("ok a\nran 1\n", None), (1, 1))
        self.assertEqual(self.count("ok a\nran 1\n", -11), (1, 1))
        self.assertEqual(self.count("ran 0\n", 0), (0, 1))


class Instructions(unittest.TestCase):
    PROFILE = "fn=(1) ours\n12 40\n+1 2\ncfn=(2) millrace_engine::rt::sim::poll\ncalls=3 7\n* 900\n-1 8\nfn=(2)\n7 900\nfn=(1)\n1 50\n"

    def test_what_is_called_is_not_counted_twice_and_the_simulator_not_at_all(self):
        costs = instructions.own_costs(self.PROFILE)
        self.assertEqual(costs, {"ours": 100, "millrace_engine::rt::sim::poll": 900})
        self.assertEqual(instructions.counted(costs), 100)

    def test_the_budget_holds_both_ways_for_its_compiler_only(self):
        own = instructions.COMPILER + ".0 (x)"
        for found, compiler, fine in [(1000, own, True), (1029, own, True), (1031, own, False), (969, own, False), (5000, "rustc 1.0", True)]:
            self.assertEqual(instructions.verdict(found, 1000, compiler) is None, fine, found)


def steps_report():
    from report import Report

    quiet = Report()
    quiet.say = quiet.show = lambda _text: None
    return quiet


if __name__ == "__main__":
    unittest.main()
