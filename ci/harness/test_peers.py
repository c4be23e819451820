"""Shows that no failure of a suite that others wrote gets lost, and that nothing is left out silently."""

import json
import tempfile
import unittest
from pathlib import Path

import peer_results
import peer_suites
from peer_results import FAILED, PASSED, SKIPPED, LeftOut, Outcome


def states(outcomes):
    return {outcome.test: outcome.state for outcome in outcomes}


class Runners(unittest.TestCase):
    def test_pytest(self):
        xml = (
            '<testsuites><testsuite><testcase classname="test.integration.test_a" name="one[gzip]"/>'
            '<testcase classname="test.integration.test_a" name="two"><failure message="why">long</failure></testcase>'
            '<testcase classname="test.integration.test_a" name="two"><error message="cleaning up">long</error></testcase>'
            '<testcase classname="test.integration.test_a" name="three"><skipped message="not here"/></testcase>'
            '<testcase classname="test.integration.test_a" name="four"/>'
            '<testcase classname="test.integration.test_a" name="four"><error message="cleaning up">long</error></testcase>'
            "</testsuite></testsuites>"
        )
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.xml"
            self.assertEqual(peer_results.pytest(report), [])
            report.write_text(xml)
            outcomes = peer_results.pytest(report)
        want = {"test_a.one[gzip]": PASSED, "test_a.two": FAILED, "test_a.three": SKIPPED, "test_a.four": FAILED}
        self.assertEqual(states(outcomes), want)
        self.assertIn(Outcome("test_a.two", FAILED, "why"), outcomes)

    def test_cargo(self):
        text = (
            "     Running tests/test_a.rs (target/debug/deps/test_a-1234)\n\nrunning 4 tests\n"
            "test one ... ok\ntest utils::two ... ignored, has no time\n"
            "test three has been running for over 60 seconds\ntest four ... FAILED\ntest four ... FAILED\n"
            "thread 'four' (77) panicked at tests/test_a.rs:3:5:\nassertion failed\n"
            "     Running unittests src/lib.rs (target/debug/deps/lib-1234)\ntest one ... ok\n"
        )
        outcomes = peer_results.cargo(text)
        want = {"test_a::one": PASSED, "test_a::utils::two": SKIPPED, "test_a::three": FAILED, "test_a::four": FAILED}
        self.assertEqual(states(outcomes), {**want, "lib::one": PASSED})
        self.assertIn(Outcome("test_a::four", FAILED, "tests/test_a.rs:3:5: assertion failed"), outcomes)

    def test_go(self):
        def events(*events):
            return "\n".join(json.dumps({"Action": action, "Test": test, "Output": text}) for action, test, text in events)

        text = events(
            ("run", "TestA", ""), ("run", "TestA/x", ""), ("run", "TestA/y", ""), ("output", "TestA/y", "    why\n"),
            ("output", "TestA/y", "    topic stays\n"), ("output", "TestA/y", "--- FAIL: TestA/y (0.1s)\n"),
            ("fail", "TestA/y", ""), ("pass", "TestA/x", ""),
            ("fail", "TestA", ""), ("run", "TestB", ""), ("run", "TestB/x", ""), ("pass", "TestB/x", ""),
            ("fail", "TestB", ""), ("run", "TestC", ""), ("skip", "TestC", ""), ("run", "TestHangs", ""),
        )
        outcomes = peer_results.go(f"go: downloading\n{text}\n" + json.dumps({"Action": "fail", "Package": "p"}))
        want = {"TestA/x": PASSED, "TestA/y": FAILED, "TestB": FAILED, "TestB/x": PASSED, "TestC": SKIPPED}
        self.assertEqual(states(outcomes), {**want, "TestHangs": FAILED})
        self.assertIn(Outcome("TestA/y", FAILED, "why | topic stays"), outcomes)


class Judging(unittest.TestCase):
    OUTCOMES = [Outcome("a", PASSED), Outcome("b[x]", FAILED, "why"), Outcome("c", SKIPPED, "not here")]

    def judge(self, *left_out):
        judged = peer_results.judge(self.OUTCOMES, left_out)
        self.surprises = [outcome.test for outcome in judged.surprises]
        return [[outcome.test for outcome in kind] for kind in (judged.passed, judged.failed, judged.left_out)]

    def test_what_nobody_left_out_fails_also_where_it_skips_itself(self):
        self.assertEqual(self.judge(), [["a"], ["b[x]", "c"], []])

    def test_what_is_left_out_is_no_failure(self):
        self.assertEqual(self.judge(LeftOut("b*", "no TLS"), LeftOut("c", "no TLS")), [["a"], [], ["b[x]", "c"]])
        self.assertEqual(self.judge(LeftOut("b[x]", "no TLS"), LeftOut("c", "no TLS")), [["a"], [], ["b[x]", "c"]])

    def test_what_need_not_be_left_out_is_seen(self):
        rest = LeftOut("b*", "no TLS"), LeftOut("c", "no TLS")
        self.assertEqual(self.judge(*rest), [["a"], [], ["b[x]", "c"]])
        self.assertEqual(self.surprises, [])
        self.assertEqual(self.judge(LeftOut("a", "no TLS"), *rest), [["a"], [], ["b[x]", "c"]])
        self.assertEqual(self.surprises, ["a"])
        self.assertEqual(self.judge(LeftOut("d", "no TLS"), *rest), [["a"], ["d"], ["b[x]", "c"]])
        self.assertEqual(self.judge(LeftOut("d", "hangs", started=False), *rest), [["a"], [], ["b[x]", "c", "d"]])

    def test_tests_not_started_are_named_as_their_runners_want_it(self):
        entries = [LeftOut("client::*java*", "x", started=False), LeftOut("Test/a", "x", started=False), LeftOut("Test*", "x")]
        suite = peer_suites.Suite("s", "1", None, 1, left_out=entries)
        self.assertEqual(peer_suites.not_started(suite), ["*java*", "Test/a"])
        self.assertEqual(peer_suites.go_names(["Test/a", "Test(*)"]), "^Test$/^a$|^Test\\(.*\\)$")

    def test_every_reason_is_given(self):
        for suite in peer_suites.SUITES:
            for entry in suite.left_out:
                self.assertGreater(len(entry.why), 10, f"{suite.name}: {entry.tests}")


if __name__ == "__main__":
    unittest.main()
