"""scripts/loadtest: arrivals, what counts, and whole runs against a scripted server."""

import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from measure.loadtest import Outcome, Targets, markdown, poisson_arrivals, summarise
from measure.tasks import TaskError
from measure.text_tree import Reader
from measure.workload import Shapes, recorded_shapes, synthetic_shapes
from tests.measure.scripted_server import Say, ScriptedServer
from tests.measure.test_text_tree import block

ROOT = Path(__file__).resolve().parents[2]


def loadtest(out, *arguments):
    command = [sys.executable, "-m", "measure.loadtest", "--out", str(out), *map(str, arguments)]
    return subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT / "scripts")}, capture_output=True, text=True, timeout=60)


def test_poisson_arrivals():
    arrivals = poisson_arrivals(50, 200, seed=3)
    gaps = [b - a for a, b in zip(arrivals, arrivals[1:])]
    assert len(arrivals) == pytest.approx(10_000, rel=0.05)
    assert statistics.stdev(gaps) == pytest.approx(statistics.fmean(gaps), rel=0.05)  # exponential
    assert arrivals == poisson_arrivals(50, 200, seed=3) != poisson_arrivals(50, 200, seed=4)


def test_what_counts():
    outcomes = [
        Outcome(0.5, first=9, last=9, tokens=2),  # in the warm-up
        Outcome(2, first=0.1, last=1.1, tokens=11, gaps=[0.1] * 10),
        Outcome(3, first=0.3, last=0.5, tokens=11, gaps=[0.02] * 10),  # the first text late
        Outcome(4, first=0.1, last=2.1, tokens=11, gaps=[0.2] * 10),  # the tokens slow
        Outcome(5, error="429 full"),
        Outcome(6, first=0.1, last=0.1, tokens=1, late=0.2),
    ]
    result = summarise(outcomes, seconds=11, warmup=1, targets=Targets(0.2, 0.15))
    assert (result["requests"], result["failed"], result["first_failure"]) == (5, 1, "429 full")
    assert result["offered_per_second"] == 0.5
    assert result["goodput_per_second"] == pytest.approx(0.2)
    assert result["share_within_targets"] == pytest.approx(0.4)
    assert result["per_token_ms"]["p50"] == pytest.approx(100)
    assert result["first_text_ms"]["p50"] == pytest.approx(100)
    assert result["client_late_ms"] == pytest.approx(200)


def test_nothing_answered():
    result = summarise([Outcome(1, error="no")], 10, 0, Targets(1, 1))
    assert result["first_text_ms"]["p99"] is None
    assert result["goodput_per_second"] == 0
    about = {"model": "m", "workload": "w", "seconds": 10, "warmup": 0, "seeds": [1], "load": "clients", "targets": {"first": 1, "per_token": 1},
             "machine": "this", "command": "c"}  # fmt: skip
    assert "The first failure: no" in markdown({"about": about, "levels": [{"load": 1, "runs": [result]}]})


def test_synthetic_shapes_are_like_the_recorded_ones():
    shapes = synthetic_shapes(2000, seed=1)
    with_blocks = [s for s in shapes if s.width]
    assert len(with_blocks) / len(shapes) == pytest.approx(0.66, abs=0.08)  # 20 of 30 recorded
    assert statistics.fmean(s.tokens for s in shapes) == pytest.approx(7400, rel=0.15)
    parallelism = sum(s.tokens for s in shapes) / sum(steps for s in shapes for steps, _ in s.phases)
    assert 1.05 < parallelism < 1.25
    for shape in shapes:
        assert sum(steps * rows for steps, rows in shape.phases) == shape.tokens


def test_recorded_shapes(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps({"user": "how many?", "completion": block(" a b c d\n", " a\n", " b\n")}) + "\n")
    (shape,) = recorded_shapes(path, Reader())
    assert (shape.prompt, shape.width) == (3, 3)
    assert shape.path == len(Reader().encode("<Path>\n1: a b c d\n</Path>\n"))
    path.write_text("{}\n")
    with pytest.raises(TaskError, match="line 1: no field 'completion'"):
        recorded_shapes(path, Reader())


def test_shapes_as_requests():
    shapes = synthetic_shapes(50, seed=1)
    take = lambda seed, trees: list(itertools.islice(Shapes("m", shapes, trees, scale=0.1).requests(seed), 40))  # noqa: E731
    assert take(1, True) == take(1, True) != take(2, True)
    forked = [r.body for r in take(1, True) if "multiverse" in r.body]
    assert 15 < len(forked) < 40
    for body in forked:
        assert Reader().counts(body["prompt"]).malformed == 0
        assert body["prompt"].endswith("</Outline>\n</Goal>")
        assert 1 <= body["multiverse"]["max_path_tokens"] <= body["max_tokens"]
    assert all(r.route == "chat/completions" and "multiverse" not in r.body for r in take(1, False))


def test_open_loop_against_a_scripted_server(tmp_path):
    """20 ms to the first text, 3 pieces 10 ms apart; every tenth request is refused."""
    numbers = itertools.count()

    def script(body):
        if next(numbers) % 10 == 9:
            return Say("full", status=429)
        return Say("abc def ghi", usage={"completion_tokens": 6}, seconds=0.02, gap=0.01)

    with ScriptedServer(script) as server:
        done = loadtest(tmp_path / "o", "--url", server.url, "--rates", "40", "--seconds", 1, "--seeds", "1,2", "--warmup", 0)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "o" / "report.json").read_text())
    runs = result["levels"][0]["runs"]
    planned = [len(poisson_arrivals(20, 2, seed)) for seed in (1, 2)]
    assert [run["requests"] for run in runs] == planned
    assert len(server.bodies) == sum(planned)
    assert sum(run["failed"] for run in runs) == sum(planned) // 10
    assert all(run["first_text_ms"]["p50"] >= 20 and run["per_token_ms"]["p50"] >= 4 for run in runs)  # 20 ms over 5 tokens
    lines = (tmp_path / "o" / "outcomes.jsonl").read_text().splitlines()
    assert len(lines) == sum(planned)
    assert (tmp_path / "o" / "load.svg").stat().st_size > 1000
    assert "429" in (tmp_path / "o" / "report.md").read_text()


def test_closed_loop_keeps_its_clients_busy(tmp_path):
    running, most = set(), []

    def script(body):
        key = object()
        running.add(key)
        most.append(len(running))
        time.sleep(0.05)
        running.discard(key)
        return Say("a b c", usage={"completion_tokens": 3})

    with ScriptedServer(script) as server:
        done = loadtest(tmp_path / "o", "--url", server.url, "--closed", "3", "--seconds", 0.5, "--seeds", "1", "--workload", "lengths", "--model", "x")
    assert done.returncode == 0, done.stderr
    assert max(most) == 3
    assert {body["model"] for body in server.bodies} == {"x"}
    assert all(body["ignore_eos"] and body["max_tokens"] for body in server.bodies)


def test_an_unreachable_server(tmp_path):
    done = loadtest(tmp_path / "o", "--url", "http://127.0.0.1:9", "--rates", "1")
    assert done.returncode == 1
    assert "127.0.0.1:9" in done.stderr
