"""ci/test: runs the steps and ends with one line that counts everything."""

import argparse
import shutil
import sys

from paths import LOGS, MILLRACE
from report import Report
from steps import AT_NIGHT, STEPS, Options, Run


def parse():
    parser = argparse.ArgumentParser(prog="ci/test", description=__doc__)
    parser.add_argument("--only", action="append", metavar="NAME", choices=STEPS, help="run this step (repeatable)")
    parser.add_argument("--list", action="store_true", help="list the steps")
    parser.add_argument(
        "--broker",
        choices=["millrace", "kafka"],
        default="millrace",
        help="what the client suites run against: `kafka` is Apache Kafka itself, to check the suites",
    )
    parser.add_argument("--binary", default=str(MILLRACE), help="another millrace binary (nothing is built then)")
    parser.add_argument("--kills", type=int, default=30, help="of the crash step (default 30)")
    parser.add_argument("--seed", help="of the crash step's random choices (default: a fresh one, printed)")
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
    for name in arguments.only or [name for name in STEPS if name not in AT_NIGHT]:
        report.say(f"-- {name}")
        run.run(name)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
