"""The experiment's own arithmetic; the whole of it runs for minutes and is not repeated here."""

import pytest

from measure.experiment_tiny import Line, figures, markdown, wall_seconds


def test_line():
    line = Line.through([(x, 15.43 / x + 0.6) for x in (1.0, 1.2, 2.0, 4.0, 8.0)])
    assert (line.slope, line.offset) == pytest.approx((15.43, 0.6))
    assert Line.through([(1.0, 2.0), (1.0, 4.0)]) == Line(0.0, 3.0)  # nothing to fit


def record(problem, tokens, path, seconds, right=True, ended_at=0.0):
    return {"problem": problem, "tokens": tokens, "critical_path_tokens": path, "steps": path - 5, "seconds": seconds, "right": right, "ended_at": ended_at}


def run(factor, load):
    records = [record("a", 200, 100, 1.0 * factor), record("b", 300, 100, 1.5 * factor), record("c", 100, 100, 2.0 * factor, right=False)]
    return {"records": [*records, {"problem": "d", "error": "no", "right": False}], "seconds": 6.0 * factor, "load": load}


def test_wall_clock():
    """From the first question sent to the last answer's end, in whatever order they ended."""
    assert wall_seconds([record("a", 1, 1, 2.0, ended_at=103.0), record("b", 1, 1, 4.5, ended_at=105.0), {"error": "no"}]) == pytest.approx(4.5)


def test_figures_and_page():
    row = figures([run(1, 9.5), run(2, 0.1), run(4, 0.1)])
    assert (row["answers"], row["accuracy"]["value"], row["total_tokens"], row["repeats"], row["failed"], row["differing"]) == (4, 0.5, 600, 3, 3, 0)
    assert row["latency_s"] == {"min": 1.5, "median": 3.0, "max": 6.0} and row["wall_s"] == {"min": 6.0, "median": 12.0, "max": 24.0}
    assert row["points"][1] == pytest.approx((3.0, 10.0))  # median of the runs: 3 s for 300 tokens
    budget = {"value": 0.5, "low": 0.25, "high": 0.75}
    result = {
        "about": {"command": "c", "machine": "m", "commit": "abc", "device": "cpu", "gpu_page": False},
        "batches": [{"batch": 1, "way": way, **row} for way in ("parallel", "serial", "sequential")],
        "line": {"slope": 4.0, "offset": 1.0},
        "token_budgets": {way: [{"budget": 100, **budget}] for way in ("parallel", "sequential")},
        "contexts": {way: [{"context": 100, **budget}] for way in ("parallel", "sequential")},
        "within_time": {way: [(1.0, 0.25), (1.5, 0.5)] for way in ("parallel", "sequential")},
    }
    page = markdown(result, "tiny")
    assert "it had other work too" in page and "has not been run yet" in page and "9 requests failed" in page
    assert "| 1 | 4 | 12.0 (6.0 to 24.0) |" in page and "| 100 | 50% (25% to 75%) | 50% (25% to 75%) |" in page and "| 1.50 | 50% | 50% |" in page
