"""Which figures a run is judged by, where they are in its report, and how they are written. Knows no broker."""

from dataclasses import dataclass
from typing import Callable

import stats

GIB = 1 << 30


@dataclass(frozen=True)
class Metric:
    key: str
    what: str
    show: Callable
    value: Callable
    # How the machine's limit for it is found, if it has one, and whether less is better.
    limit: Callable | None = None
    less: bool = True


def show_us(us):
    if us >= 1e6:
        return f"{us / 1e6:.2f} s"
    return f"{us / 1e3:.2f} ms" if us >= 1e3 else f"{us:.0f} us"


def show_bytes(count):
    for shift, unit in [(30, "GiB"), (20, "MiB"), (10, "KiB")]:
        if count >= 1 << shift:
            return f"{count / (1 << shift):.1f} {unit}"
    return f"{count:.0f} B"


def show_number(unit):
    return lambda value: f"{value:,.0f} {unit}" if value >= 100 else f"{value:.2f} {unit}"


def at(*path):
    """The value at a path of names within a run; None where it ends."""

    def find(run):
        value = run
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        return value

    return find


def maximum_only(find):
    """Only where the run was as fast as it could: at a rate it says nothing."""

    def found(run):
        producing = at("workload", "producing")(run)
        return find(run) if producing and producing["requests_per_second"] is None else None

    return found


def consumed_alone(find):
    return lambda run: find(run) if at("result", "produced")(run) is None else None


def mib_per_cpu_second(run):
    per_gib = at("result", "broker", "cpu_seconds_per_gib")(run)
    return 1024 / per_gib if per_gib else None


def over_baseline(run):
    with_it = at("result", "end_to_end", "p99_9_us")(run)
    without = at("baseline", "end_to_end", "p99_9_us")(run)
    return with_it / without if with_it and without else None


def throughput_limit(limits):
    return min(limits["disk"]["sequential_mib_per_second"], limits["loopback"]["mib_per_second"])


def loopback_limit(limits):
    return limits["loopback"]["mib_per_second"]


def write_limit(name):
    return lambda limits: limits["disk"]["small_durable_write"][name]


def one_at_a_time(find):
    """Of a closed loop of one request, whose limit is one durable write."""

    def found(run):
        producing = at("workload", "producing")(run) or {}
        return find(run) if (producing.get("connections"), producing.get("in_flight")) == (1, 1) else None

    return found


def publish(name):
    return at("result", "produced", "latency", name)


def several(find):
    alone = one_at_a_time(find)
    return lambda run: None if alone(run) is not None else find(run)


def at_a_rate(find):
    """Where it is no maximum."""
    fastest = maximum_only(find)
    return lambda run: find(run) if fastest(run) is None else None


MIB = show_number("MiB/s")
PRODUCED = at("result", "produced", "mib_per_second")
RECORDS = at("result", "produced", "records_per_second")
READ = at("result", "consumed", "mib_per_second")
HISTORY = at("result", "backfilled", "mib_per_second")


def end_to_end(name):
    return at("result", "end_to_end", name)


def broker(name):
    return at("result", "broker", name)


METRICS = [
    Metric("mib_per_second", "produced", MIB, maximum_only(several(PRODUCED)), throughput_limit, False),
    Metric("rate", "produced (rate set)", MIB, at_a_rate(PRODUCED), None, False),
    Metric("records_per_second", "records", show_number("/s"), maximum_only(RECORDS), None, False),
    Metric("read_mib_per_second", "read", MIB, consumed_alone(READ), loopback_limit, False),
    Metric("history_mib_per_second", "history read", MIB, HISTORY, loopback_limit, False),
    Metric("lone_p50_us", "publish p50, one at a time", show_us, one_at_a_time(publish("p50_us")), write_limit("p50_us")),
    Metric("lone_p99_us", "publish p99, one at a time", show_us, one_at_a_time(publish("p99_us")), write_limit("p99_us")),
    Metric("publish_p50_us", "publish p50", show_us, several(publish("p50_us"))),
    Metric("publish_p99_us", "publish p99", show_us, several(publish("p99_us"))),
    Metric("publish_p99_9_us", "publish p99.9", show_us, publish("p99_9_us")),
    Metric("publish_p99_99_us", "publish p99.99", show_us, publish("p99_99_us")),
    Metric("end_to_end_p50_us", "end to end p50", show_us, end_to_end("p50_us")),
    Metric("end_to_end_p99_us", "end to end p99", show_us, end_to_end("p99_us")),
    Metric("end_to_end_p99_9_us", "end to end p99.9", show_us, end_to_end("p99_9_us")),
    Metric("end_to_end_over_baseline", "p99.9 with to without the backfill", show_number("x"), over_baseline),
    Metric("cpu_seconds_per_gib", "broker CPU", show_number("s/GiB"), broker("cpu_seconds_per_gib")),
    Metric("mib_per_cpu_second", "MiB per CPU second", show_number("MiB"), consumed_alone(mib_per_cpu_second), None, False),
    Metric("rss_peak_bytes", "peak memory", show_bytes, broker("rss_peak_bytes")),
    Metric("storage_bytes_per_byte", "to disk, each byte", show_number("B"), several(broker("storage_bytes_per_byte"))),
    Metric("ceiling", "ceiling of the load", MIB, at("ceiling", "maximum", "produced", "mib_per_second"), None, False),
]
BY_KEY = {metric.key: metric for metric in METRICS}

# What is set against what.
PAIRS = [("millrace", "kafka"), ("millrace", "kafka-flush"), ("millrace-cached", "kafka")]


def by_round(runs, broker, find, rounds, failed_too=False):
    """The figure of each round, None where a round has none that counts."""
    values = [None] * rounds
    for run in runs:
        if run["broker"] == broker and (failed_too or not run["failures"]):
            values[run["round"]] = find(run)
    return values


def rows(scenario, limits, rounds, names):
    """One for each figure that some run of the scenario has."""
    found = []
    for metric in METRICS:
        values = {name: by_round(scenario["runs"], name, metric.value, rounds) for name in names}
        # What does not count is shown, with a mark; no ratio and no share is made of it.
        shown = {name: by_round(scenario["runs"], name, metric.value, rounds, True) for name in names}
        shown = {name: stats.spread(of) for name, of in shown.items()}
        if not any(shown.values()):
            continue
        spreads = {name: stats.spread(of) for name, of in values.items()}
        failed = {run["broker"] for run in scenario["runs"] if run["failures"]}
        ratios = []
        for of, to in PAIRS:
            if of in values and to in values:
                one = stats.ratio(values[of], values[to])
                ratios.append({"of": of, "to": to, **(vars(one) if one else EMPTY)})
        found.append(
            {
                "scenario": scenario["name"],
                "metric": metric.key,
                "what": metric.what,
                "brokers": {name: {**vars(one), "failed": name in failed} for name, one in shown.items() if one},
                "ratios": ratios,
                "limit": metric.limit(limits) if metric.limit and limits else None,
                "share": share(metric, spreads, limits),
            }
        )
    return found


EMPTY = {"ratio": None, "low": None, "high": None, "rounds": 0}


def share(metric, spreads, limits):
    """Of the machine's limit: 1 is all of it."""
    if not metric.limit or not limits:
        return {}
    limit = metric.limit(limits)
    of = {name: one.median for name, one in spreads.items() if one and one.median}
    return {name: limit / value if metric.less else value / limit for name, value in of.items()}


def tail_cpu_per_gib(one_reader, ten_readers):
    """CPU seconds for each GiB read of the tail: what nine more readers cost, by what they read."""
    cpu = [at("result", "broker", "cpu_seconds")(run) for run in (one_reader, ten_readers)]
    read = [at("result", "consumed", "bytes")(run) for run in (one_reader, ten_readers)]
    # Less for more is what a disturbed machine shows, and no figure.
    if None in cpu or None in read or read[1] <= read[0] or cpu[1] <= cpu[0]:
        return None
    return (cpu[1] - cpu[0]) / ((read[1] - read[0]) / GIB)
