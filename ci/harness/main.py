"""ci/test: runs the steps and ends with one line that counts everything."""

import argparse
import os
import shutil
import sys
import threading

from paths import LOGS, MILLRACE
from report import IN_CI, Report
from steps import AT_NIGHT, LANES, STEPS, Options, Run


def parse():
    parser = argparse.ArgumentParser(prog="ci/test", description=__doc__)
    parser.add_argument("--only", action="append", metavar="NAME", choices=STEPS, help="run this step (repeatable)")
    parser.add_argument("--peers", action="store_true", help="run the tests of other projects' packages, all of them")
    parser.add_argument("--list", action="store_true", help="list the steps")
    parser.add_argument(
        "--broker",
        choices=["millrace", "kafka"],
        default="millrace",
        help="what the client suites run against: `kafka` is Apache Kafka itself, to check the suites",
    )
    parser.add_argument("--binary", default=str(MILLRACE), help="another millrace binary (nothing is built then)")
    parser.add_argument("--kills", type=int, default=30, help="of the crash step (default 30)")
    parser.add_argument("--seed", help="of the random choices of crash, streams and torture (default: a fresh one, printed)")
    return parser.parse_args()


def main():
    arguments = parse()
    if arguments.list:
        for name, what in STEPS.items():
            print(f"{name:14} {what}")
        return 0
    shutil.rmtree(LOGS, ignore_errors=True)
    report = Report()
    run = Run(report, Options(arguments.broker, arguments.binary, arguments.kills, arguments.seed))
    if IN_CI:
        # Nothing is built twice there.
        os.environ.setdefault("CARGO_INCREMENTAL", "0")
    if arguments.only or arguments.peers:
        in_order((arguments.only or []) + ["peers-all"] * arguments.peers, run)
    else:
        everything(run)
    return report.finish()


def everything(run):
    """What builds and computes comes first, one after the other; then the lanes, beside each other."""
    in_lanes = {name for lane in LANES for name in lane}
    in_order([name for name in STEPS if name not in AT_NIGHT and name not in in_lanes], run)
    threads = [threading.Thread(target=in_order, args=(lane, run)) for lane in LANES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def in_order(names, run):
    for name in names:
        run.run(name)


if __name__ == "__main__":
    sys.exit(main())
