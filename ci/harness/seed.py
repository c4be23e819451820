"""The first example, as it stands: a producer and a consumer with the Python client's defaults on localhost:9092.

Where port 9092 is taken, both run in a network namespace of their own, in which it is free (root only).
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import broker
import install
from paths import CLIENTS, LOGS
from report_lines import Lines, demand

PORT = 9092
HALF_SECONDS_MAX = 60


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument("--broker", choices=["millrace", "kafka"], default="millrace")
    parser.add_argument("--binary")
    parser.add_argument("--inside", action="store_true", help="already in a network namespace")
    return parser.parse_args()


def port_is_free():
    import socket

    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            with socket.socket(family) as s:
                if s.connect_ex((host, PORT)) == 0:
                    return False
        except OSError:
            continue
    return True


def into_a_namespace():
    """Starts over with a loopback of its own, on which nothing listens."""
    again = [sys.executable, *sys.argv, "--inside"]
    inner = 'ip link set lo up 2>/dev/null || ifconfig lo up; exec "$@"'
    if os.geteuid() != 0 or subprocess.run(["unshare", "--net", "true"], check=False).returncode != 0:
        sys.exit(f"port {PORT} is taken and this user cannot make a network namespace")
    os.execvp("unshare", ["unshare", "--net", "sh", "-c", inner, "sh", *again])


def make_broker(arguments):
    if arguments.broker == "kafka":
        install.reference_broker()
        process = broker.Kafka("seed")
        process.move_to(f"127.0.0.1:{PORT}")
        return process
    return broker.Millrace("seed", arguments.binary, port=PORT)


def produce():
    program = CLIENTS / "seed" / "producer.py"
    done = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, timeout=HALF_SECONDS_MAX, check=False
    )
    demand(done.returncode == 0, f"the producer ended with {done.returncode}: {done.stderr[-2000:]}")


def consume():
    """The consumer never ends by itself: it is watched until it has printed ten messages."""
    log = Path(tempfile.mkdtemp(prefix="seed-")) / "consumer.out"
    with open(log, "w") as out:
        reader = subprocess.Popen([sys.executable, "-u", CLIENTS / "seed" / "consumer.py"], stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + HALF_SECONDS_MAX
        while log.read_text().count("Received message:") < 10:
            demand(reader.poll() is None, f"the consumer ended: {log.read_text()[-2000:]}")
            demand(time.monotonic() < deadline, f"ten messages in time: {log.read_text()[-2000:]}")
            time.sleep(0.1)
    finally:
        reader.kill()
        reader.wait()
    got = re.findall(r"Received message: .*topic='topic1'.*key=b'(\w+)', value=b'(\w+)'", log.read_text())
    want = [(f"key{n}", f"value{n}") for n in range(10)]
    demand(got == want, f"printed {got}")


def main():
    arguments = parse()
    if not arguments.inside and not port_is_free():
        into_a_namespace()
    lines = Lines()
    process = make_broker(arguments)
    try:
        process.start()
        print(f"broker log: {LOGS / 'broker-seed.log'}", flush=True)
        lines.case("producer", produce)
        lines.case("consumer", consume)
        lines.case("consumer_again", consume)
        lines.case("stop", lambda: process.stop() and None)
    finally:
        process.remove()
    return lines.finish()


if __name__ == "__main__":
    sys.exit(main())
