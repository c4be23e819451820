"""Apache Kafka's own command-line tools, all in one JVM: to start one for each takes longer than most of them.

TOOLS_LIBS names the folder of the tools' jars, TOOLS_RUNNER the program that runs them (`tools/Tools.java`). What a tool says
on both of its outputs is what counts: the exit codes of many say nothing.
"""

import contextlib
import os
import subprocess
import tempfile

TOOL_SECONDS_MAX = 60
PACKAGE = "org.apache.kafka.tools."
# A short life is not worth the best code.
JVM = ["java", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]


def java(*arguments):
    return [*JVM, "-cp", f"{os.environ['TOOLS_LIBS']}/*", *map(str, arguments)]


class ToolFailed(Exception):
    pass


class Tools:
    """Runs tools one after the other. A case that is interrupted in the middle of one takes the JVM with it."""

    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.process = None

    def run(self, tool, *arguments, stdin="", code=0):
        """Runs a tool to its end; gives the lines that it printed, without empty ones."""
        got, lines = self._call(PACKAGE + tool, [str(a) for a in arguments], stdin.splitlines())
        if code is not None and got != code:
            raise ToolFailed(f"{tool} ended with {got}: {' | '.join(lines)[:2000]}")
        return [line for line in lines if line.strip()]

    def at(self, tool, *arguments, stdin="", code=0):
        """The same for tools that are told where the broker is in the usual way."""
        return self.run(tool, "--bootstrap-server", self.bootstrap, *arguments, stdin=stdin, code=code)

    def alone(self, tool, *arguments):
        """A tool that does not end without its process; gives the lines that it printed."""
        command = java(PACKAGE + tool, "--bootstrap-server", self.bootstrap, *arguments)
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TOOL_SECONDS_MAX, check=False
        )
        if done.returncode != 0:
            raise ToolFailed(f"{tool} ended with {done.returncode}: {done.stdout} {done.stderr}")
        return [line for line in done.stdout.splitlines() if line.strip()]

    def at_now(self, tool, *arguments):
        """A tool in a process of its own, which the caller ends."""
        return subprocess.Popen(
            java(PACKAGE + tool, "--bootstrap-server", self.bootstrap, *arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def _call(self, tool, arguments, stdin):
        if self.process is None:
            self.process = subprocess.Popen(
                java(os.environ["TOOLS_RUNNER"]), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        process, self.process = self.process, None
        try:
            asked = [len(arguments), tool, *arguments, len(stdin), *stdin]
            process.stdin.write("".join(f"{line}\n" for line in asked))
            process.stdin.flush()
            code = int(process.stdout.readline())
            lines = [process.stdout.readline().rstrip("\n") for _ in range(int(process.stdout.readline()))]
        except BaseException:
            # What it says from now on belongs to no call.
            process.kill()
            process.wait()
            raise
        self.process = process
        return code, lines


@contextlib.contextmanager
def file_of(text):
    """A file for a tool that wants one."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        file.write(text)
        file.flush()
        yield file.name
