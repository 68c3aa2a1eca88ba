"""The estimate of the time left, against simulated runs."""

import heapq
import random

import pytest

from measure.progress import Progress, duration


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def estimates(total, concurrency, length, at):
    """Runs `total` answers of random lengths; the estimate after `at` of them and the truth, of many runs."""
    for seed in range(200):
        generator, clock = random.Random(seed), Clock()
        progress = Progress(total, 0, concurrency, clock)
        running, begun, seen = [], 0, None
        while begun < total or running:
            while begun < total and len(running) < concurrency:
                progress.begin(begun)
                heapq.heappush(running, (clock.now + length(generator), begun))
                begun += 1
            clock.now, job = heapq.heappop(running)
            progress.end(job)
            if progress.done == at:
                seen = clock.now, progress.seconds_left()
        yield seen[1], clock.now - seen[0]


@pytest.mark.parametrize("length", [lambda g: g.expovariate(1 / 60), lambda g: g.uniform(30, 90), lambda g: g.lognormvariate(4, 0.8)])
def test_estimate_is_honest(length):
    results = list(estimates(total=400, concurrency=16, length=length, at=40))
    ratio = sum(left[0] / truth for left, truth in results) / len(results)
    within = sum(left[1] <= truth <= left[2] for left, truth in results) / len(results)
    print(f"estimate ÷ truth {ratio:.2f}, truth within the range in {within:.0%}")
    assert 0.8 < ratio < 1.25
    assert within > 0.85


def test_says_nothing_before_it_knows():
    clock = Clock()
    progress = Progress(10, 4, 2, clock)
    assert progress.seconds_left() is None
    assert "4/10" in progress.line()
    assert "not known yet" in progress.line()
    for job in range(6):
        progress.begin(job)
        clock.now += 10
        progress.end(job)
        if job == 3:
            assert progress.seconds_left()[0] == pytest.approx(10)  # two left, two at once
    assert progress.line().endswith("10/10, 0 running, done")


def test_duration():
    assert [duration(s) for s in (3, 89, 120, 3600, 7200)] == ["3 s", "89 s", "2 min", "60 min", "2.0 h"]
