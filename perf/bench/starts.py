"""What is no load: starting with nothing and with much, stopping, idling. Each part gives (figure, value) pairs.

A part that is about one variant only gives nothing for the others.
"""

import signal
import time

import brokers

GIB = 1 << 30
# What a broker does right after a start is not idling.
SETTLE_SECONDS = 5
MANY_PARTITIONS = 10_000

FIGURES = {
    "start_to_acknowledged_ms": ("start to the first acknowledged record, nothing stored", "ms"),
    "stop_ms": ("clean stop", "ms"),
    "idle_cpu_percent": ("idle", "% of a core"),
    "idle_1000_cpu_percent": ("1,000 idle connections", "% of a core"),
    "idle_memory_mib": ("memory when idle", "MiB"),
    "connection_kib": ("memory of each idle connection", "KiB"),
    "partitions_10000_seconds": ("10,000 partitions: created, produced to and started again", "s"),
    "partitions_10000_gib": ("10,000 partitions: peak memory", "GiB"),
}
# The same for both protocols, so that they can be compared: with the new one the broker decides, with the classic one each member.
SESSION_MS = 10_000
HEARTBEAT_MS = 3_000
GROUP_SETTINGS = {
    "group.consumer.min.session.timeout.ms": SESSION_MS,
    "group.consumer.session.timeout.ms": SESSION_MS,
    "group.consumer.min.heartbeat.interval.ms": HEARTBEAT_MS,
    "group.consumer.heartbeat.interval.ms": HEARTBEAT_MS,
}
PROTOCOLS = ("classic", "consumer")
_EVENTS = {
    "join": "all 500 members come at once",
    "leave": "50 of them leave",
    "return": "50 come again",
    "vanish": f"50 vanish, with a session of {SESSION_MS // 1000} s",
}
for _protocol in PROTOCOLS:
    for _event, _words in _EVENTS.items():
        FIGURES[f"groups_{_protocol}_{_event}_seconds"] = (f"{_protocol} group, 1,000 partitions: {_words}", "s")
for _gib in (1, 10):
    for _how in ("clean", "killed"):
        _words = "a clean stop" if _how == "clean" else "SIGKILL under load"
        _what = f"start to the first acknowledged record, {_gib} GiB stored, after {_words}"
        FIGURES[f"start_{_gib}_gib_{_how}_ms"] = (_what, "ms")


def starts(bench, variant):
    """From exec to the first acknowledgement, with nothing stored; and 10,000 partitions."""
    if variant.topic_configs:
        return
    process = bench.broker(variant)
    try:
        process.prepare()
        # Kafka answers SIGTERM with a code that is not 0.
        end = "kill" if variant.kafka else "term"
        arguments = ["--bootstrap", process.wanted, "--topic", "first", "--create", "--end", end]
        times = bench.perf("startup", *arguments, "--", *map(str, process.command()))["result"]
        yield "start_to_acknowledged_ms", times["acknowledged_ms"]
        if times["stop_ms"] is not None:
            yield "stop_ms", times["stop_ms"]
    finally:
        process.remove()
    if not variant.kafka:
        yield from many_partitions(bench, variant)


def many_partitions(bench, variant):
    process = bench.broker(variant)
    try:
        process.prepare()
        process.start()
        began = time.monotonic()
        load = ["--topic", "many", "--partitions", MANY_PARTITIONS, "--record-size", "100", "--batch-bytes", "0"]
        # Each partition gets at least one batch.
        size = ["--partitions-per-request", 100, "--bytes", 400 * MANY_PARTITIONS]
        where = ["--bootstrap", process.bootstrap, "--pid", process.process.pid]
        timing = ["--warm-up", 0, "--duration", 600, "--ceiling", 0, "--cpu", bench.options.load_cpu]
        report = bench.perf("produce", *load, *size, *where, *timing)
        peak = report["result"]["broker"]["rss_peak_bytes"]
        process.stop()
        again = bench.broker(variant)
        arguments = ["--bootstrap", again.wanted, "--topic", "many", "--end", "kill"]
        bench.perf("startup", *arguments, "--", *map(str, again.command()))
        yield "partitions_10000_seconds", time.monotonic() - began
        yield "partitions_10000_gib", peak / GIB
    finally:
        process.remove()


def idle(bench, variant):
    """What an idle broker uses, and what connections that say nothing cost it."""
    if variant.topic_configs:
        return
    seconds = 3 if bench.options.quick else 10
    with bench.broker(variant) as process:
        time.sleep(SETTLE_SECONDS)
        where = ["--bootstrap", process.bootstrap, "--pid", process.process.pid, "--duration", seconds]
        alone = bench.perf("idle", *where, "--connections", 0)["result"]
        yield "idle_cpu_percent", alone["cpu_percent"]
        yield "idle_memory_mib", alone["usage"]["rss_bytes"] / (1 << 20)
        many = bench.perf("idle", *where, "--connections", 1000)["result"]
        yield "idle_1000_cpu_percent", many["cpu_percent"]
        yield "connection_kib", many["rss_bytes_per_connection"] / 1024


def stored(bench, variant):
    """From exec to the first acknowledgement with 1 and 10 GiB stored, after a clean stop and after SIGKILL under load."""
    if variant.kafka or variant.topic_configs:
        return
    load = ["--topic", "stored", "--partitions", 16, "--batch-bytes", "64KiB", "--ceiling", 0, "--warm-up", 0]
    load += ["--duration", 3600, "--cpu", bench.options.load_cpu]
    for gib in [1] if bench.options.quick else [1, 10]:
        process = bench.broker(variant)
        try:
            process.prepare()
            process.start()
            bench.perf("produce", *load, "--bytes", gib * GIB, "--bootstrap", process.bootstrap)
            process.stop(signal.SIGTERM)
            for how in ("clean", "killed"):
                if how == "killed":
                    again = bench.broker(variant)
                    try:
                        again.start()
                        bench.perf("produce", *load, "--bytes", GIB // 4, "--bootstrap", again.bootstrap)
                    finally:
                        again.end()
                timed = bench.broker(variant)
                arguments = ["--bootstrap", timed.wanted, "--topic", "stored", "--end", "term"]
                times = bench.perf("startup", *arguments, "--", *map(str, timed.command()))["result"]
                yield f"start_{gib}_gib_{how}_ms", times["acknowledged_ms"]
        finally:
            process.remove()


def groups(bench, variant):
    """A group of many members that come, leave, come back and vanish: how long until all is shared out again."""
    if variant.topic_configs:
        return
    members, partitions = (50, 100) if bench.options.quick else (500, 1_000)
    for protocol in PROTOCOLS:
        with bench.broker(variant, needs=brokers.Needs(GROUP_SETTINGS)) as process:
            where = ["--bootstrap", process.bootstrap, "--pid", process.process.pid, "--cpu", bench.options.load_cpu]
            load = ["--protocol", protocol, "--members", members, "--movers", members // 10, "--partitions", partitions]
            timing = ["--session-timeout", SESSION_MS / 1000, "--heartbeat-interval", HEARTBEAT_MS / 1000]
            measured = bench.perf("groups", *where, *load, *timing)["result"]
            if measured["overlaps"]:
                raise RuntimeError(f"{protocol}: {measured['overlaps']} times a partition had two members")
            for phase in measured["phases"]:
                yield f"groups_{protocol}_{phase['event']}_seconds", phase["seconds"]


PARTS = {"starts": starts, "idle": idle, "stored-starts": stored, "groups": groups}
