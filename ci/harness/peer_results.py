"""What the test runners of other projects report, as one list of outcomes: pytest's XML, cargo's lines, Go's JSON.

It knows no suite. A test that was started and never ended is an outcome, too: it failed.
"""

import json
import re
import xml.etree.ElementTree as ElementTree
from collections import deque
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"


@dataclass(frozen=True)
class Outcome:
    test: str
    state: str
    text: str = ""


@dataclass(frozen=True)
class LeftOut:
    """Tests whose failure says nothing against the broker: `tests` is a pattern as of a shell.

    With `started` they run all the same, so that it is noticed when they pass.
    """

    tests: str
    why: str
    started: bool = True

    def matches(self, test):
        # A pattern means what it says: the brackets of a parametrised test are no set of characters.
        return fnmatchcase(test, self.tests.replace("[", "[[]"))


@dataclass
class Judged:
    passed: list
    failed: list
    left_out: list
    # Of those that passed: what need not be left out any more.
    surprises: list


def pytest(report):
    """Of one `--junitxml` file; a test that fails and whose cleaning up fails is one failure."""
    if not Path(report).exists():
        return []
    worst = {}
    for case in ElementTree.parse(report).iter("testcase"):
        test = f"{case.get('classname', '').split('.')[-1]}.{case.get('name')}"
        state, text = PASSED, ""
        for tag, meaning in (("skipped", SKIPPED), ("failure", FAILED), ("error", FAILED)):
            if (found := case.find(tag)) is not None:
                state, text = meaning, found.get("message") or ""
        if test not in worst or worst[test].state != FAILED:
            worst[test] = Outcome(test, state, text)
    return list(worst.values())


def cargo(text):
    """Of the output of `cargo test`; a test is named with its file. One that hung is there as well."""
    states, texts, file = {}, {}, ""
    lines = text.splitlines()
    for line, following in zip(lines, [*lines[1:], ""]):
        if found := re.match(r"\s*Running (?:unittests )?(\S+)\.rs ", line):
            file = found[1].split("/")[-1]
        elif found := re.match(r"test (\S+)(?: - should panic)? \.\.\. (ok|FAILED|ignored)\b", line):
            states[f"{file}::{found[1]}"] = {"ok": PASSED, "FAILED": FAILED, "ignored": SKIPPED}[found[2]]
        elif found := re.match(r"test (\S+) has been running for over", line):
            states.setdefault(f"{file}::{found[1]}", FAILED)
        elif found := re.match(r"thread '(\S+)'.* panicked at (.*)$", line):
            texts[f"{file}::{found[1]}"] = f"{found[2]} {following}"
    return [Outcome(test, state, texts.get(test, "")) for test, state in states.items()]


def go(text):
    """Of the output of `go test -json`: tests without tests of their own, and those that fail where none of their own does."""
    states, said = {}, {}
    for line in text.splitlines():
        if not line.startswith("{"):
            continue
        event = json.loads(line)
        test, action = event.get("Test"), event["Action"]
        if test is None:
            continue
        if action == "run":
            states.setdefault(test, FAILED)
        elif action in ("pass", "fail", "skip"):
            states[test] = {"pass": PASSED, "fail": FAILED, "skip": SKIPPED}[action]
        elif action == "output" and not event["Output"].startswith(("===", "---", "    ---")):
            said.setdefault(test, deque(maxlen=4)).append(event["Output"].strip())
    # The cause may stand before what cleaning up says.
    texts = {test: " | ".join(filter(None, lines)) for test, lines in said.items()}
    parents = {test.rsplit("/", depth)[0] for test in states for depth in range(1, test.count("/") + 1)}
    failed = {test for test, state in states.items() if state == FAILED}
    outcomes = []
    for test, state in states.items():
        own_failure = state == FAILED and not any(other.startswith(f"{test}/") for other in failed)
        if test not in parents or own_failure:
            outcomes.append(Outcome(test, state, texts.get(test, "")))
    return outcomes


def judge(outcomes, left_out):
    """Holds the outcomes against what is left out. Nothing is left out silently."""
    judged = Judged([], [], [], [])
    used = set()
    for outcome in outcomes:
        entry = next((entry for entry in left_out if entry.matches(outcome.test)), None)
        if entry:
            used.add(entry)
        if outcome.state == PASSED:
            judged.passed.append(outcome)
            if entry:
                judged.surprises.append(Outcome(outcome.test, PASSED, entry.why))
        elif entry is None:
            why = outcome.text if outcome.state == FAILED else f"skips itself: {outcome.text}"
            judged.failed.append(Outcome(outcome.test, FAILED, why))
        else:
            judged.left_out.append(Outcome(outcome.test, SKIPPED, entry.why))
    for entry in left_out:
        if not entry.started and entry not in used:
            judged.left_out.append(Outcome(entry.tests, SKIPPED, entry.why))
        elif entry not in used and outcomes:
            judged.failed.append(Outcome(entry.tests, FAILED, "is left out, but no such test was run"))
    return judged
