"""Intervals, majorities, quantiles."""

import random

import pytest

from measure.statistics import majority, paired_difference, quantile, share, wilson


def test_wilson_by_hand():
    # 8 of 10 at 95 %: (0.8 + 1.9208/10 ± 1.96·√(0.16/10 + 0.9604/100)) ÷ (1 + 3.8416/10)
    low, high = wilson(0.8, 10)
    assert (low, high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0.0, 0) == (0.0, 1.0)
    assert wilson(1.0, 30)[1] == pytest.approx(1.0)
    assert 0.88 < wilson(1.0, 30)[0] < 0.89


def test_one_sample_is_wilson():
    rights = [1.0] * 24 + [0.0] * 6
    assert (share(rights).low, share(rights).high) == wilson(0.8, 30)


def test_samples_that_agree_count_once_and_those_that_scatter_count_each():
    agreeing = share([1.0] * 15 + [0.0] * 15, samples=8)
    assert (agreeing.low, agreeing.high) == pytest.approx(wilson(0.5, 30), abs=0.01)
    scattering = share([0.5] * 29 + [0.25], samples=8)
    assert (scattering.low, scattering.high) == pytest.approx(wilson(scattering.value, 240))
    assert share([1.0] * 30, samples=8).low == wilson(1.0, 30)[0]


def test_coverage_of_clustered_shares():
    """Problems of differing difficulty, 4 samples each: the interval holds the truth in about 95 % of draws."""
    generator = random.Random(7)
    inside, draws = 0, 1500
    for _ in range(draws):
        difficulty = [generator.choice([0.05, 0.5, 0.95]) for _ in range(40)]
        one = share([sum(generator.random() < p for _ in range(4)) / 4 for p in difficulty], samples=4)
        inside += one.low <= 0.5 <= one.high
    assert 0.93 <= inside / draws <= 0.98


def test_paired_difference():
    a, b = [1.0] * 10 + [0.0] * 10, [1.0] * 6 + [0.0] * 14
    one = paired_difference(a, b)
    assert one.value == pytest.approx(0.2)
    assert 0 <= one.low < 0.2 < one.high <= 0.45
    assert paired_difference(a, b) == paired_difference(a, b)  # seeded
    assert vars(paired_difference(a, a)) == {"value": 0, "low": 0, "high": 0}
    with pytest.raises(ValueError):
        paired_difference(a, b[1:])


def test_majority():
    never = lambda a, b: False  # noqa: E731
    assert majority(["5", "5", "7"], [True, True, False], never) == 1.0
    assert majority(["7", "7", "5"], [False, False, True], never) == 0.0
    assert majority(["7", "5"], [False, True], never) == 0.5  # a tie
    assert majority([None, None, "5"], [False, False, True], never) == 1.0  # no answer, no vote
    assert majority([None], [False], never) == 0.0
    # Right answers are equal to each other whatever they look like; wrong ones where `equal` says so.
    assert majority(["1/2", "0.5", "7"], [True, True, False], never) == 1.0
    assert majority(["5", "7/2", "3.5"], [True, False, False], lambda a, b: {a, b} == {"7/2", "3.5"}) == 0.0


def test_quantile():
    assert quantile([3, 1, 2], 0.5) == 2
    assert quantile([0, 10], 0.25) == 2.5
    assert quantile([4], 0.99) == 4
    assert quantile([], 0.5) != quantile([], 0.5)
