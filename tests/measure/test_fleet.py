"""The fleet's simulation against what queues are known to do, and its own laws."""

import json
import os
import random
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from measure.fleet import ROUTERS, Fleet, Replica, StepTimes, Trouble, Work

ROOT = Path(__file__).resolve().parents[2]
FLAT = StepTimes((1, 1000), (0.01, 0.01))


def arrivals(rate, count, phases, seed=1, **more):
    generator, now = random.Random(seed), 0.0
    works = []
    for number in range(count):
        now += generator.expovariate(rate)
        works.append(Work(now, 1, phases, **{name: value(number) for name, value in more.items()}))
    return works


def test_step_times_between_and_beyond():
    times = StepTimes((1, 3, 5), (1.0, 2.0, 4.0))
    assert [times.step(rows) for rows in (1, 2, 3, 4, 5, 7)] == [1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
    for rows, seconds in (((1,), (1.0,)), ((2, 1), (1.0, 1.0)), ((1, 2), (0.0, 1.0))):
        with pytest.raises(ValueError, match="step times"):
            StepTimes(rows, seconds)


def test_alone_a_request_takes_its_steps():
    """3 rows for 4 steps and 1 row for 6, at 1 + rows milliseconds a step."""
    times = StepTimes((1, 11), (0.002, 0.012))
    (work,) = Fleet(1, Replica(times), "random").run([Work(5.0, 1, ((4, 3), (6, 1)))]).works
    assert work.end - work.arrival == pytest.approx(4 * 0.004 + 6 * 0.002)
    assert work.first - work.arrival == pytest.approx(0.004)


def test_a_step_takes_longer_by_the_tokens_that_it_reads():
    """Phases of 4 × 3 and 6 × 1 tokens after a prompt of 100, each with half of its own tokens; then two requests at once."""
    times = StepTimes((1, 11), (0.001, 0.001), read_token=1e-5)
    (work,) = Fleet(1, Replica(times), "random").run([Work(0.0, 100, ((4, 3), (6, 1)))]).works
    assert work.end == pytest.approx(4 * (0.001 + 106e-5) + 6 * (0.001 + 115e-5))
    both = Fleet(1, Replica(times), "random").run([Work(0.0, 100, ((10, 1),)), Work(0.0, 50, ((10, 1),))]).works
    assert both[1].end == pytest.approx(10 * (0.001 + (105 + 55) * 1e-5))


def test_two_at_once_slow_each_other():
    times = StepTimes((1, 2), (0.01, 0.02))
    works = Fleet(1, Replica(times), "random").run([Work(0.0, 1, ((10, 1),)), Work(0.05, 1, ((10, 1),))]).works
    # 5 steps alone, 5 together, then the second alone for 5.
    assert works[0].end == pytest.approx(0.05 + 5 * 0.02)
    assert works[1].end == pytest.approx(0.05 + 5 * 0.02 + 5 * 0.01)


def test_many_rows_at_a_constant_step_time_never_wait():
    works = Fleet(1, Replica(FLAT, max_rows=10_000), "random").run(arrivals(20, 500, ((100, 1),))).works
    assert all(1.0 - 1e-9 <= w.end - w.arrival <= 1.0 + 0.01 for w in works)  # at most the step under way


def test_one_row_is_a_queue_with_constant_service():
    """M/D/1: the mean wait is load × service ÷ (2 (1 - load))."""
    load, service = 0.7, 0.5
    works = Fleet(1, Replica(FLAT, max_rows=1), "random").run(arrivals(load / service, 20_000, ((50, 1),))).works
    wait = statistics.fmean(w.end - w.arrival - service for w in works)
    assert wait == pytest.approx(load * service / (2 * (1 - load)), rel=0.1)


def test_prefill_delays_and_prefixes_save_it():
    times = StepTimes((1, 2), (0.01, 0.01), prefill_token=0.001)
    out = Fleet(1, Replica(times), "random").run([Work(0.0, 101, ((10, 1),), 7, 100), Work(10.0, 101, ((10, 1),), 7, 100)])
    assert [w.end - w.arrival for w in out.works] == pytest.approx([0.101 + 0.1, 0.001 + 0.1])
    assert [w.prefilled for w in out.works] == [101, 1]


def test_least_loaded_beats_random_and_affinity_finds_prefixes():
    times = StepTimes((1, 64), (0.01, 0.02), prefill_token=0.0002)
    spec = Replica(times, max_rows=8, prefix_tokens=5_000)
    seen = {}
    for router in ROUTERS:
        works = arrivals(60, 4000, ((100, 1),), prefix=lambda n: n * 7919 % 40, prefix_tokens=lambda n: 500)
        for work in works:
            work.prompt = 501
        out = Fleet(20, spec, router).run(works)
        waits = sorted(w.first - w.arrival for w in out.works)
        seen[router] = waits[int(0.99 * len(waits))], sum(w.prefilled for w in out.works)
    assert seen["least-loaded"][0] < 0.7 * seen["random"][0]
    assert seen["prefix-affine"][1] < 0.5 * seen["least-loaded"][1]


def test_failures_lose_no_request():
    spec = Replica(FLAT, max_rows=16, start_seconds=20)
    trouble = Trouble(mean_seconds_between_failures=100, detect_seconds=1)
    out = Fleet(5, spec, "least-loaded", seed=3).run(arrivals(5, 3000, ((300, 1),)), trouble)
    assert out.failures > 10
    assert all(w.end is not None and not w.refused for w in out.works)
    assert sum(w.tries for w in out.works) > len(out.works)
    check_conservation(out)


def test_rolling_restart_interrupts_nobody():
    spec = Replica(FLAT, max_rows=16, start_seconds=5)
    out = Fleet(6, spec, "least-loaded").run(arrivals(8, 3000, ((200, 1),)), Trouble(rolling_restart_at=20.0, at_once=2))
    assert out.restarts == 6
    assert all(w.tries == 1 and w.end is not None for w in out.works)
    check_conservation(out)


def check_conservation(out):
    for replica in out.replicas:
        assert (replica.rows, replica.held, replica.outstanding, len(replica.queue), len(replica.running)) == (0, 0, 0, 0, 0)


def test_random_fleets_conserve():
    for seed in range(30):
        generator = random.Random(seed)
        phases = tuple((generator.randint(1, 40), generator.randint(1, 6)) for _ in range(generator.randint(1, 5)))
        spec = Replica(StepTimes((1, 8, 64), (0.01, 0.012, 0.03), 1e-5), generator.choice([6, 20, 512]), generator.choice([2_000, 100_000]), 500, 3.0)
        trouble = Trouble(generator.choice([None, 30.0]), 0.5, generator.choice([None, 5.0]), generator.randint(1, 2))
        router = generator.choice(list(ROUTERS))
        works = arrivals(20, 300, phases, seed, prefix=lambda n: n % 5, prefix_tokens=lambda n: 10)
        for work in works:
            work.prompt = 20
        out = Fleet(generator.randint(1, 6), spec, router, seed).run(works, trouble)
        for work in out.works:
            assert work.refused or work.end >= work.first >= work.arrival, f"seed {seed}"
        if trouble.mean_seconds_between_failures is None:
            check_conservation(out)
            assert sum(r.generated for r in out.replicas) == sum(w.tokens for w in out.works if not w.refused), f"seed {seed}"


def run(*arguments):
    command = [sys.executable, "-m", "measure.simulate_fleet", *map(str, arguments)]
    return subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT / "scripts")}, capture_output=True, text=True, timeout=60)


def test_command(tmp_path):
    steps = tmp_path / "steps.json"
    steps.write_text(json.dumps({"rows": [1, 64, 128], "ms": [23, 24, 25], "prefill_ms_per_token": 0.05, "from": "a test"}))
    done = run("--steps", steps, "--replicas", "1,4", "--requests", 20, "--json", tmp_path / "o.json", "--mean-hours-between-failures", 1)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "o.json").read_text())["figures"]
    assert len(figures) == 6
    assert all(0 < f["busy"] <= 1 and f["tokens_per_second"] > 0 for f in figures)
    lines = [{"load": 1, "seed": 1, "arrival": i * 10.0, "prompt": 5, "phases": [[100, 1]], "last": 2.3, "error": None} for i in range(5)]
    (tmp_path / "outcomes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = run("--steps", steps, "--compare", tmp_path)
    assert "2.300 | 2.300 | +0%" in done.stdout
    steps.write_text("{}")
    assert "holds no step times" in run("--steps", steps).stderr
