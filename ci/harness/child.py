"""A client's process that a program of the harness starts, and then kills, holds up or stops. It knows nothing of what it does.

It is of its starter's process group, so that it ends with it when that runs out of time.
"""

import os
import signal
import subprocess
import time
from pathlib import Path

import shell


class ChildFailed(Exception):
    pass


class Child:
    def __init__(self, name, command, log, env=None):
        self.name = name
        self.command = [str(part) for part in command]
        self.log = Path(log)
        self.env = env or {}
        self.process = None
        self._output_from = 0

    def start(self):
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "ab") as out:
            out.write(f"$ {' '.join(self.command)}\n".encode())
            out.flush()
            self._output_from = out.tell()
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.env},
            )
        return self

    def output(self):
        """What this start of it has printed so far."""
        with open(self.log, "rb") as f:
            f.seek(self._output_from)
            return f.read().decode(errors="replace")

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def demand_alive(self):
        if not self.alive():
            code = self.process and self.process.returncode
            raise ChildFailed(f"{self.name} ended by itself with {code}:\n{shell.tail(self.log)}")

    def kill(self):
        """SIGKILL; demands that it was alive until then."""
        self.demand_alive()
        self.end()

    def pause(self):
        self.demand_alive()
        self.process.send_signal(signal.SIGSTOP)

    def signal(self, number):
        self.demand_alive()
        self.process.send_signal(number)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def stop(self, seconds_max=40, codes=(0,)):
        """SIGTERM; demands that it ends in time, with one of these codes. Returns the seconds that took."""
        self.demand_alive()
        started = time.monotonic()
        self.process.terminate()
        try:
            code = self.process.wait(seconds_max)
        except subprocess.TimeoutExpired:
            self.end()
            raise ChildFailed(f"{self.name} did not stop within {seconds_max} s:\n{shell.tail(self.log)}") from None
        if code not in codes:
            raise ChildFailed(f"{self.name} stopped with {code}:\n{shell.tail(self.log)}")
        return time.monotonic() - started

    def end(self):
        """For cleaning up: ends it however it is."""
        if self.alive():
            self.process.kill()
            self.process.wait()
