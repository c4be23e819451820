"""Counts the instructions that a produce request takes, by callgrind, and holds them against a budget.

Times differ from run to run and instructions hardly do, so a slower produce path is seen where no benchmark runs. Counted is
all of `bin/examples/produce_path.rs` (wire, checks, log, journal, answer) but the simulator, which stands for the
kernel, the copying of blocks and the allocator, which serve the simulator most; of two amounts of requests the difference counts, so that starting and stopping do not.
`python3 ci/harness/instructions.py --example FILE` prints one line for each shape of request; `ci/test --only instructions`
builds the program first.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from report_lines import Lines, demand


@dataclass
class Shape:
    """Requests of one batch each."""

    name: str
    records: int
    bytes: int
    requests: tuple
    budget: int


# Instructions for each request, by the compiler below. Lower one when it is beaten; raise it only for what is worth it.
SHAPES = [
    Shape("one_small_record", 1, 100, (500, 1500), 12_273),
    Shape("64_kib_batch", 64, 1000, (100, 300), 111_457),
]
COMPILER = "rustc 1.95"
# Another C library or allocator build is worth this much; a change of the path is more.
TOLERANCE = 0.03
# The simulator, what the compiler may put it into or take out of it (its disk's blocks are in a map and shared), changes in
# ordered maps (its timers, sockets and files are in such; on the path of a produce nothing is), and the program itself, what
# copies or fills blocks, and the C library's allocator.
LEFT_OUT = re.compile(
    r"::rt::sim|Entry<K,V,A>::or_insert_with|BTreeMap<K,V,A>::(get_mut|insert|remove)$|btree::node::Handle|btree::(split|remove)::|Rc<T,A>::make_mut|::rt::net::Kind::poll_|produce_path::|mem(cpy|move|set|cmp|chr)|^\(below main\)|^(_int_)?(malloc|free|realloc|calloc)|^unlink_chunk"
)
SECONDS_MAX = 120


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--example", type=Path, required=True, help="the program, built with --release")
    parser.add_argument("--top", type=int, default=0, help="also print so many functions that take the most")
    return parser.parse_args()


def own_costs(text):
    """Instructions by function, without those of the functions it calls."""
    names, costs = {}, {}
    current, called = None, False
    for line in text.splitlines():
        if line.startswith("fn="):
            number, _, name = line[3:].partition(" ")
            current = names.setdefault(number, name)
        elif line.startswith("calls="):
            called = True
        elif line[:1] in "0123456789+-*" and line:
            if not called:
                costs[current] = costs.get(current, 0) + int(line.split()[1])
            called = False
        elif line.startswith("cfn="):
            number, _, name = line[4:].partition(" ")
            names.setdefault(number, name)
    return costs


def count(example, shape, requests):
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "callgrind.out"
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", example]
        command += [requests, shape.records, shape.bytes]
        done = subprocess.run(
            [str(part) for part in command], capture_output=True, text=True, timeout=SECONDS_MAX, check=False
        )
        said = f"ended with {done.returncode}: {done.stdout}{done.stderr[-2000:]}"
        demand(done.returncode == 0 and done.stdout == f"{requests} acknowledged\n", said)
        return own_costs(out.read_text())


def counted(costs):
    return sum(cost for name, cost in costs.items() if not LEFT_OUT.search(name))


def measure(example, shape, top=0):
    """Instructions of one request."""
    few, many = shape.requests
    less, more = count(example, shape, few), count(example, shape, many)
    if top:
        each = {name: (cost - less.get(name, 0)) / (many - few) for name, cost in more.items()}
        for name, cost in sorted(each.items(), key=lambda item: -item[1])[:top]:
            print(f"  {cost:10.0f} {'-' if LEFT_OUT.search(name) else ' '} {name[:140]}")
    return (counted(more) - counted(less)) / (many - few)


def verdict(found, budget, compiler):
    """Why a figure does not do; None where it does."""
    if not compiler.startswith(COMPILER):
        return None
    if found > budget * (1 + TOLERANCE):
        return f"{found:.0f} instructions a request, {budget} are allowed"
    if found < budget * (1 - TOLERANCE):
        return f"{found:.0f} instructions a request, of {budget}: lower the budget in ci/harness/instructions.py"
    return None


def held(options, shape, compiler):
    found = measure(options.example, shape, options.top)
    wrong = verdict(found, shape.budget, compiler)
    demand(not wrong, wrong)
    note = f"{found:.0f} instructions a request, budget {shape.budget}"
    if not compiler.startswith(COMPILER):
        note += f"; not held against it, which is for {COMPILER} and not {compiler}"
    return note


def main():
    options = parse()
    compiler = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    lines = Lines()
    for shape in SHAPES:
        lines.case(shape.name, lambda shape=shape: held(options, shape, compiler))
    return lines.finish()


if __name__ == "__main__":
    sys.exit(main())
