"""Whether a long run was flat: figures of its last quarter beside those of its second. Numbers only, no process."""

import statistics
from dataclasses import dataclass

MIB = 1 << 20
ROWS = 20


@dataclass
class Bound:
    """How much more the last quarter's middle may be than the second's: a share of that, or a number, whichever is more."""

    share: float
    least: float
    # What a printed number is divided by.
    unit: float = 1

    def more_max(self, before):
        return max(self.share * before, self.least)


# The first quarter is the warm-up: caches, rings and retention fill up. Disk goes up and down with every segment deleted.
BOUNDS = {
    "resident_bytes": Bound(0.05, 16 * MIB, MIB),
    "descriptors": Bound(0.10, 20),
    # Helpers for blocking calls come and go.
    "threads": Bound(0, 4),
    "stored_bytes": Bound(0.15, 32 * MIB, MIB),
}


def quarter(samples, number):
    """Samples of one quarter (0 to 3) of the time from the first to the last."""
    first, last = samples[0]["seconds"], samples[-1]["seconds"]
    step = (last - first) / 4
    return [s for s in samples if first + number * step <= s["seconds"] <= first + (number + 1) * step]


def judge(samples):
    """For each figure the middle of the second and of the last quarter, and whether that is flat."""
    verdicts = {}
    for name, bound in BOUNDS.items():
        before = statistics.median(s[name] for s in quarter(samples, 1))
        after = statistics.median(s[name] for s in quarter(samples, 3))
        more_max = bound.more_max(before)
        verdicts[name] = {
            "second_quarter": before,
            "last_quarter": after,
            "more_max": more_max,
            "flat": after - before <= more_max,
        }
    return verdicts


def sentence(name, verdict):
    unit = BOUNDS[name].unit
    before, after, more = (verdict[key] / unit for key in ("second_quarter", "last_quarter", "more_max"))
    return f"{after:.1f} in the last quarter, {before:.1f} in the second, {more:.1f} more allowed{' (MiB)' if unit == MIB else ''}"


def table(samples):
    """About twenty rows: the middle of each stretch, and the worst of the probe."""
    step = max(1, -(-len(samples) // ROWS))
    lines = [f"{'minute':>7} {'resident':>9} {'open':>5} {'threads':>7} {'stored':>8} {'acked/s':>8} {'p99 ms':>8} {'max ms':>8}"]
    for at in range(0, len(samples), step):
        part = samples[at : at + step]
        middle = {key: statistics.median(s[key] for s in part) for key in part[0]}
        lines.append(
            f"{part[-1]['seconds'] / 60:7.1f} {middle['resident_bytes'] / MIB:8.1f}M {middle['descriptors']:5.0f} "
            f"{middle['threads']:7.0f} {middle['stored_bytes'] / MIB:7.0f}M {middle['acked_per_second']:8.0f} "
            f"{middle['probe_ms_p99']:8.1f} {max(s['probe_ms_max'] for s in part):8.1f}"
        )
    return lines
