"""Runs the cases of one suite and prints a line for each: what the harness counts.

It knows neither Kafka nor a client. Every case ends: one that hangs is interrupted and fails.
"""

import os
import signal
import sys
import time
import traceback

CASE_SECONDS_MAX = 90


class BrokerError(Exception):
    """An error that the broker answered with, by Kafka's code."""

    def __init__(self, code, text=""):
        super().__init__(f"error {code} {text}".strip())
        self.code = code


class CommitRefused(Exception):
    """The client itself refused to commit, because it is not a member any more or has lost the partition."""


class CheckFailed(Exception):
    pass


class CaseTimeout(BaseException):
    """Not an `Exception`, so that a client's own catch-all cannot swallow it."""


def check(condition, what):
    if not condition:
        raise CheckFailed(f"not so: {what}")


def check_equal(got, want, what):
    if got == want:
        return
    if isinstance(got, list) and isinstance(want, list) and len(got) == len(want) > 5:
        n = next(n for n in range(len(got)) if got[n] != want[n])
        raise CheckFailed(f"{what}: at {n} got {shorten(got[n])}, want {shorten(want[n])}")
    raise CheckFailed(f"{what}: got {shorten(got)}, want {shorten(want)}")


def eventually_equal(call, want, what):
    """For what a broker may carry out behind its answer."""
    deadline = time.monotonic() + 15
    while (got := call()) != want and time.monotonic() < deadline:
        time.sleep(0.1)
    check_equal(got, want, what)


def shorten(value):
    text = repr(value)
    return text if len(text) < 300 else f"{text[:300]}... ({len(text)} characters)"


def expect_error(code, call):
    try:
        result = call()
    except BrokerError as error:
        check_equal(error.code, code, f"error code ({error})")
        return
    raise CheckFailed(f"no error, but {shorten(result)}; want error {code}")


_count = 0


def topic_name(prefix):
    """A name that no other case and no earlier run uses."""
    global _count
    _count += 1
    return f"{prefix}-{os.getpid()}-{int(time.time() * 1000) % 10**8}-{_count}"


class Suite:
    def __init__(self):
        self.cases = []

    def add(self, name, function):
        if any(name == other for other, _ in self.cases):
            raise ValueError(f"two cases are named {name}")
        self.cases.append((name, function))

    def run(self, only=None):
        """Runs the cases (those whose name holds `only`) and returns the exit code."""
        signal.signal(signal.SIGALRM, _interrupt)
        failed = 0
        chosen = [case for case in self.cases if not only or only in case[0]]
        for name, function in chosen:
            started = time.monotonic()
            signal.alarm(CASE_SECONDS_MAX)
            try:
                function()
                print(f"ok {name} ({time.monotonic() - started:.1f} s)", flush=True)
            except (Exception, CaseTimeout) as error:
                failed += 1
                first = f"{type(error).__name__}: {error}".replace("\n", " ")
                print(f"FAIL {name}: {first}", flush=True)
                traceback.print_exc(file=sys.stderr)
            finally:
                signal.alarm(0)
        print(f"ran {len(chosen)}", flush=True)
        return 1 if failed else 0


def _interrupt(_signal, _frame):
    raise CaseTimeout(f"not done after {CASE_SECONDS_MAX} s")


def main(make_adapter, more=None):
    """`SUITE.py HOST:PORT [PART OF A CASE'S NAME]`; `more(suite, adapter)` adds the client's own cases.

    With `--member GROUP TOPIC` it is a member of that group, until it is killed.
    """
    import cases
    import cases_groups

    adapter = make_adapter(sys.argv[1])
    if sys.argv[2:3] == ["--member"]:
        cases_groups.member_until_killed(adapter, *sys.argv[3:])
    suite = Suite()
    cases.register(suite, adapter)
    cases_groups.register(suite, adapter)
    if more:
        more(suite, adapter)
    run_and_exit(suite)


def run_and_exit(suite):
    code = suite.run(sys.argv[2] if len(sys.argv) > 2 else None)
    # Clients leave threads behind that would keep a finished suite alive.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
