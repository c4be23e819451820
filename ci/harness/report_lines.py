"""How a program of the harness tells its results: the lines that `steps.py` counts."""

import sys
import traceback


class Lines:
    def __init__(self):
        self.ran = self.failed = 0

    def case(self, name, call):
        """Runs one case; an exception is its failure. Returns whether it passed."""
        self.ran += 1
        try:
            note = call()
        except Exception as error:
            self.failed += 1
            print(f"FAIL {name}: {type(error).__name__}: {error}".replace("\n", " | "), flush=True)
            traceback.print_exc(file=sys.stderr)
            return False
        print(f"ok {name}", flush=True)
        if note:
            print(f"note {name}: {note}", flush=True)
        return True

    def finish(self):
        print(f"ran {self.ran}", flush=True)
        return 1 if self.failed else 0


def demand(condition, what):
    if not condition:
        raise AssertionError(what)
