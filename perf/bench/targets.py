"""What Millrace has to reach, and whether it did. Knows the figures by their names only."""

from dataclasses import dataclass

import figures
import stats


@dataclass(frozen=True)
class Target:
    work: str
    scenario: str
    metric: str
    to: str
    sign: str
    bound: float


OVER = "end_to_end_over_baseline"
MOST = "max durable produce throughput, 1 KiB records, 16 partitions"
FEWER_CPU = "max throughput: broker CPU seconds per GiB"
TARGETS = [
    Target(MOST, "max-throughput", "mib_per_second", "kafka", ">=", 4),
    Target(MOST, "max-throughput", "mib_per_second", "kafka-flush", ">=", 6),
    Target(FEWER_CPU, "max-throughput", "cpu_seconds_per_gib", "kafka", "<=", 0.25),
    Target(FEWER_CPU, "max-throughput", "cpu_seconds_per_gib", "kafka-flush", "<=", 0.2),
    Target("1,000 partitions keyed, 50 producers, durable", "partitions-1000-keyed", "mib_per_second", "kafka", ">=", 5),
    Target("1,000 partitions keyed, 50 producers, durable", "partitions-1000-keyed", "mib_per_second", "kafka-flush", ">=", 20),
    Target("publish p99 at fixed 20 MB/s, durable", "fixed-20mb", "publish_p99_us", "kafka", "<=", 0.5),
    Target("publish p99 at fixed 20 MB/s, durable", "fixed-20mb", "publish_p99_us", "kafka-flush", "<=", 0.2),
    Target("one-at-a-time durable publish, p50", "one-record", "lone_p50_us", "kafka", "<=", 0.5),
    Target("one-at-a-time durable publish, p50", "one-record", "lone_p50_us", "kafka-flush", "<=", 0.3),
    Target("one-at-a-time durable publish, p99", "one-record", "lone_p99_us", "kafka", "<=", 0.5),
    Target("one-at-a-time durable publish, p99", "one-record", "lone_p99_us", "kafka-flush", "<=", 0.3),
    Target("consume from cold, MiB per CPU second of the broker", "cold-read", "mib_per_cpu_second", "kafka", ">=", 1),
    Target("consume the tail, broker CPU seconds per GiB", "tail-10", "tail_cpu_seconds_per_gib", "kafka", "<=", 0.5),
    Target("peak memory", "max-throughput", "rss_peak_bytes", "kafka", "<=", 0.25),
    Target("start to first acknowledged record", "starts", "start_to_acknowledged_ms", "kafka", "<=", 0.05),
    # Of the machine's limit, or an absolute figure.
    Target("durable produce, of the machine's own limit", "max-throughput", "mib_per_second", "limit", ">=", 0.7),
    Target("p99.9 of the tail during a cold backfill, to without", "backfill-10gib", OVER, "itself", "<=", 1.5),
    Target("idle CPU of the whole process, percent of a core", "idle", "idle_cpu_percent", "itself", "<=", 1),
    Target("10,000 partitions produced to and started again, s", "starts", "partitions_10000_seconds", "itself", "<=", 10),
    Target("10,000 partitions, memory in GiB", "starts", "partitions_10000_gib", "itself", "<=", 1),
]
OWN = "millrace"


def check(report_scenarios, extra, limits, rounds, labels):
    """Every target with its ratio, interval and verdict.

    `extra` has figures of brokers by round that are of no single run: {(scenario, metric): {broker: [..]}}.
    """
    by_name = {scenario["name"]: scenario for scenario in report_scenarios}

    def values(target, broker):
        if (target.scenario, target.metric) in extra:
            return extra[target.scenario, target.metric].get(broker)
        scenario = by_name.get(target.scenario)
        metric = figures.BY_KEY.get(target.metric)
        if scenario is None or metric is None:
            return None
        return figures.by_round(scenario["runs"], broker, metric.value, rounds)

    checked = []
    for target in TARGETS:
        own = values(target, OWN)
        if target.to == "itself":
            against, unit = "absolute" if target.metric != OVER else "ratio", ""
            other = None if own is None else [1.0] * len(own)
        elif target.to == "limit":
            against, unit = "the lower of disk and loopback", "x"
            limit = figures.BY_KEY[target.metric].limit(limits) if limits else None
            other = None if own is None or limit is None else [limit] * len(own)
        else:
            against, unit = f"against {labels.get(target.to, target.to)}", "x"
            other = values(target, target.to)
        found = stats.ratio(own, other) if own and other else None
        checked.append(
            {
                "work": target.work,
                "scenario": target.scenario,
                "metric": target.metric,
                "to": target.to,
                "against": against,
                "unit": unit.replace("x", "\u00d7"),
                "wanted": f"{target.sign} {target.bound:g}{unit.replace('x', chr(0xD7))}",
                **(vars(found) if found else figures.EMPTY),
                "verdict": stats.verdict(found, target.sign, target.bound),
            }
        )
    return checked
