"""Runs commands with their output in a log file and a limit on their time."""

import os
import signal
import subprocess
from pathlib import Path

TAIL_LINES = 40


class CommandFailed(Exception):
    pass


def run(command, log, seconds_max, cwd=None, env=None):
    """Runs `command` with output in `log`; returns its exit code, or None when it ran out of time."""
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as out:
        out.write(f"$ {' '.join(map(str, command))}\n".encode())
        out.flush()
        # A group of its own, so that on a timeout its children end with it.
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
        try:
            return process.wait(seconds_max)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            out.write(f"not done after {seconds_max} s\n".encode())
            return None
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise


def must_run(command, log, seconds_max, cwd=None, env=None):
    code = run(command, log, seconds_max, cwd, env)
    if code != 0:
        how = "ran out of time" if code is None else f"ended with {code}"
        raise CommandFailed(f"{command[0]} {how}, see {log}:\n{tail(log)}")


def tail(log, lines=TAIL_LINES):
    path = Path(log)
    if not path.exists():
        return "(no log)"
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
