"""Shares with their intervals, and quantiles."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

Z95 = 1.959963984540054


@dataclass(frozen=True)
class Share:
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.1%} ({self.low:.1%} to {self.high:.1%})"


def wilson(value: float, n: float) -> tuple[float, float]:
    """95 % interval of a share of n independent trials (Wilson, 1927)."""
    if n <= 0:
        return 0.0, 1.0
    extra = Z95 * Z95 / n
    centre, spread = value + extra / 2, Z95 * math.sqrt(value * (1 - value) / n + extra / (4 * n))
    return max(0.0, (centre - spread) / (1 + extra)), min(1.0, (centre + spread) / (1 + extra))


def share(by_problem: Sequence[float], samples: int = 1) -> Share:
    """The mean of the problems' shares, each of `samples` answers, with a Wilson interval at the effective number of trials:
    value (1 - value) ÷ the variance of that mean, as the scatter between problems gives it (samples of a problem resemble each
    other). Bounded by the number of problems below and of answers above; where nothing scatters it is the former."""
    n = len(by_problem)
    if n == 0:
        return Share(0.0, 0.0, 1.0)
    value = sum(by_problem) / n
    effective = float(n)
    if samples > 1 and n > 1:
        variance = sum((x - value) ** 2 for x in by_problem) / (n - 1) / n
        if variance > 0:
            effective = min(max(value * (1 - value) / variance, n), n * samples)
    return Share(value, *wilson(value, effective))


def paired_difference(a: Sequence[float], b: Sequence[float], rounds: int = 10_000, seed: int = 0) -> Share:
    """mean(a) - mean(b) over the same problems; the 95 % interval of a bootstrap over problems."""
    differences = [x - y for x, y in zip(a, b, strict=True)]
    n = len(differences)
    if n == 0:
        return Share(0.0, -1.0, 1.0)
    generator = random.Random(seed)
    means = sorted(sum(generator.choices(differences, k=n)) / n for _ in range(rounds))
    return Share(sum(differences) / n, means[int(0.025 * rounds)], means[int(0.975 * rounds)])


def majority(answers: Sequence[Hashable | None], right: Sequence[bool], equal: Callable[[Hashable, Hashable], bool]) -> float:
    """Whether the most frequent answer is right: between 0 and 1, as a tie is broken by chance. Answers that are none don't
    vote. `equal` may be slow: it is asked once for each pair of differing answers at most."""
    groups: list[tuple[Hashable, int, bool]] = []  # an answer, its votes, whether it is right
    for answer, is_right in zip(answers, right, strict=True):
        if answer is None:
            continue
        for i, (other, votes, known) in enumerate(groups):
            if answer == other or (is_right and known) or (is_right == known and equal(answer, other)):
                groups[i] = (other, votes + 1, known)
                break
        else:
            groups.append((answer, 1, is_right))
    most = max((votes for _, votes, _ in groups), default=0)
    best = [is_right for _, votes, is_right in groups if votes == most]
    return sum(best) / len(best) if best else 0.0


def quantile(values: Sequence[float], q: float) -> float:
    """With linear interpolation; not a number where there are no values."""
    if not values:
        return math.nan
    ordered = sorted(values)
    place = q * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
