"""Medians, ratios and what a bootstrap over rounds says of them. Knows no broker and no file."""

import random
from dataclasses import dataclass

# A ratio counts from so many rounds on.
ROUNDS_MIN = 7
RESAMPLES = 2000
# Of the resampled ratios, so much lies within the interval.
CONFIDENCE = 0.95


def median(values):
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


@dataclass
class Spread:
    median: float
    low: float
    high: float
    rounds: int


def spread(values):
    """Median and range; None where nothing was measured."""
    values = [value for value in values if value is not None]
    return Spread(median(values), min(values), max(values), len(values)) if values else None


@dataclass
class Ratio:
    ratio: float
    low: float | None
    high: float | None
    rounds: int


def ratio(of, to, seed=1):
    """Median of `of` over median of `to`, with a bootstrap's interval.

    Both are figures by round; a round is drawn whole, as what disturbed one broker in it disturbed the other too. A round
    without one of the figures is left out. One round has no interval.
    """
    pairs = [(a, b) for a, b in zip(of, to) if a is not None and b]
    if not pairs:
        return None

    def of_pairs(chosen):
        below = median([b for _, b in chosen])
        return median([a for a, _ in chosen]) / below

    rounds = len(pairs)
    middle = of_pairs(pairs)
    if rounds < 2:
        return Ratio(middle, None, None, rounds)
    # The same figures give the same interval.
    draw = random.Random(seed)
    found = sorted(of_pairs(draw.choices(pairs, k=rounds)) for _ in range(RESAMPLES))
    outside = (1 - CONFIDENCE) / 2
    low = found[int(outside * RESAMPLES)]
    high = found[min(RESAMPLES - 1, int((1 - outside) * RESAMPLES))]
    return Ratio(middle, low, high, rounds)


def verdict(found, sign, bound):
    """`reached`, `missed`, `undecided`, or `unmeasured`."""
    if found is None:
        return "unmeasured"
    if found.rounds < ROUNDS_MIN or found.low is None:
        return "undecided"
    assert sign in (">=", "<=")
    if found.low >= bound if sign == ">=" else found.high <= bound:
        return "reached"
    if found.high < bound if sign == ">=" else found.low > bound:
        return "missed"
    return "undecided"
