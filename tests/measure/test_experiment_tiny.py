"""The experiment's own arithmetic; the whole of it runs for minutes and is not repeated here."""

import pytest

from measure.experiment_tiny import Line, figures, markdown


def test_line():
    line = Line.through([(x, 15.43 / x + 0.6) for x in (1.0, 1.2, 2.0, 4.0, 8.0)])
    assert (line.slope, line.offset) == pytest.approx((15.43, 0.6))
    assert Line.through([(1.0, 2.0), (1.0, 4.0)]) == Line(0.0, 3.0)  # nothing to fit


def record(tokens, path, seconds, right=True):
    return {"tokens": tokens, "critical_path_tokens": path, "steps": path - 5, "seconds": seconds, "right": right}


def test_figures_and_page():
    row = figures([record(200, 100, 1.0), record(300, 100, 1.5), record(100, 100, 2.0, right=False), {"error": "no", "right": False}])
    assert (row["answers"], row["accuracy"]["value"], row["total_tokens"]) == (4, 0.5, 600)
    assert row["ms_per_token"] == pytest.approx({"min": 5, "median": 5, "max": 20})
    assert row["points"][1] == pytest.approx((3.0, 5.0))
    budget = {"value": 0.5, "low": 0.25, "high": 0.75}
    result = {
        "about": {"command": "c", "machine": "m", "commit": "abc"},
        "batches": [{"batch": 1, "way": way, "seconds": 6.0, "load": 9.5, **row} for way in ("parallel", "serial", "sequential")],
        "line": {"slope": 4.0, "offset": 1.0},
        "token_budgets": {way: [{"budget": 100, **budget}] for way in ("parallel", "sequential")},
        "contexts": {way: [{"context": 100, **budget}] for way in ("parallel", "sequential")},
    }
    page = markdown(result)
    assert "beside other work" in page and "| 1 | 1.50 (1.00 to 2.00) |" in page and "| 100 | 50% (25% to 75%) | 50% (25% to 75%) |" in page
