"""Runs the tests that come inside the packages of other projects, each suite against a broker of its own.

Prints `ok SUITE/TEST` and `FAIL SUITE/TEST: why` for `steps.py`, and for each suite a line that counts it. It knows no
test. What is left out is printed with its reason, and noted when it passes.
"""

import argparse
import sys
from collections import Counter

import broker
import install
import peer_results
import shell
from paths import LOGS
from peer_suites import SUITES

# Kafka's default of 3 s, in which more members may come, is for groups larger than those of the tests.
OPTIONS = ["--set", "group.initial.rebalance.delay.ms=100"]
TEXT_MAX = 300


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broker", choices=["millrace", "kafka"], default="millrace")
    parser.add_argument("--binary")
    parser.add_argument("--all", action="store_true", help="not only those of every run")
    parser.add_argument("--suite", action="append", choices=[suite.name for suite in SUITES], help="this one (repeatable)")
    return parser.parse_args()


class Peers:
    def __init__(self, arguments):
        self.arguments = arguments
        self.ran = self.failed = 0

    def suite(self, suite):
        log = LOGS / f"peers-{suite.name}.log"
        log.unlink(missing_ok=True)
        process = self.broker(suite)
        try:
            process.start()
            code, outcomes = suite.run(suite, process.bootstrap, log)
            process.stop()
        except install.Missing as missing:
            print(f"skip {suite.name}: {missing}", flush=True)
            return
        except (broker.BrokerFailed, shell.CommandFailed) as error:
            self.fail(f"{suite.name}/broken", str(error))
            return
        finally:
            process.remove()
        judged = peer_results.judge(outcomes, suite.left_out)
        for outcome in judged.passed:
            self.ran += 1
            print(f"ok {suite.name}/{outcome.test}", flush=True)
        for outcome in judged.failed:
            self.fail(f"{suite.name}/{outcome.test}", outcome.text)
        for outcome in judged.left_out:
            print(f"left out {suite.name}/{outcome.test}: {outcome.text}", flush=True)
        for outcome in judged.surprises:
            print(f"note {suite.name}/{outcome.test} passes now, though it is left out: {outcome.text}", flush=True)
        counts = f"{len(judged.passed)} passed, {len(judged.failed)} failed, {len(judged.left_out)} left out"
        reasons = Counter(outcome.text for outcome in judged.left_out)
        why = "".join(f"; {count}: {reason}" for reason, count in reasons.most_common())
        print(f"note {suite.name} {suite.version}: {counts}{why}", flush=True)
        if not judged.passed:
            self.fail(f"{suite.name}/empty", f"nothing passed:\n{shell.tail(log)}")
        any_failed = any(outcome.state == peer_results.FAILED for outcome in outcomes)
        if code is None or (code == 0) == any_failed:
            self.fail(f"{suite.name}/end", f"did not come to its end (exit code {code}):\n{shell.tail(log)}")

    def broker(self, suite):
        log = LOGS / f"broker-peers-{suite.name}.log"
        if self.arguments.broker == "kafka":
            install.reference_broker()
            return broker.Kafka(f"peers-{suite.name}", log)
        options = [*OPTIONS, *suite.options]
        return broker.Millrace(f"peers-{suite.name}", self.arguments.binary, port=suite.port, options=options, log=log)

    def fail(self, name, why):
        self.ran += 1
        self.failed += 1
        line = " | ".join(why.strip().splitlines())
        print(f"FAIL {name}: {line if len(line) <= TEXT_MAX else '... ' + line[-TEXT_MAX:]}", flush=True)


def main():
    arguments = parse()
    peers = Peers(arguments)
    for suite in SUITES:
        chosen = suite.name in arguments.suite if arguments.suite else suite.always or arguments.all
        if chosen:
            peers.suite(suite)
    print(f"ran {peers.ran}", flush=True)
    return 1 if peers.failed else 0


if __name__ == "__main__":
    sys.exit(main())
