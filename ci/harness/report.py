"""Counts what passed, failed and was skipped, over everything, and prints it. Steps may share it from several threads.

It knows no test. Where CI=true a skip is a failure: there nothing may be left out.
"""

import os
import threading
import time

IN_CI = os.environ.get("CI") == "true"


class Report:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.failures = []
        self.started = time.monotonic()
        self.lock = threading.RLock()

    def say(self, text):
        with self.lock:
            print(f"[{time.monotonic() - self.started:6.1f} s] {text}", flush=True)

    def show(self, text):
        """What a failure printed, set apart from the run's own lines."""
        with self.lock:
            print("".join(f"    | {line}\n" for line in text.splitlines()), end="", flush=True)

    def ok(self, count=1):
        with self.lock:
            self.passed += count

    def fail(self, name, why=""):
        with self.lock:
            self.failed += 1
            self.failures.append(f"{name}: {why}" if why else name)
        self.say(f"FAIL {name}: {why}" if why else f"FAIL {name}")

    def skip(self, name, why, count=1):
        if IN_CI:
            self.fail(name, f"{why}; with CI=true nothing may be skipped")
            return
        with self.lock:
            self.skipped += count
        self.say(f"skip {name}: {why}")

    def finish(self):
        """Prints the summary line last and returns the exit code."""
        if self.passed + self.failed == 0:
            self.fail("nothing was run")
        if self.failures:
            print("\nFailed:")
            for failure in self.failures:
                print(f"  {failure}")
        print(f"\n{self.passed} passed, {self.failed} failed, {self.skipped} skipped", flush=True)
        return 1 if self.failed else 0
