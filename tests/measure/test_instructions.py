"""The guard on instruction counts, and that it would notice: these counts are exact, so CI may assert them."""

import json

import pytest

from measure.instructions import BASELINE, PATHS, complaint, count


@pytest.mark.parametrize("path", PATHS)
def test_within_two_percent_of_the_baseline(path):
    counted, compiler = count(path)
    assert not (text := complaint(path, counted, compiler, json.loads(BASELINE.read_text()))), text


def test_the_processor_hardly_matters():
    """The C library's functions for the newest processor that valgrind knows, and for any."""
    fixed, native = count("scheduler")[0], count("scheduler", tunables="")[0]
    assert abs(native / fixed - 1) < 0.01


def test_complaints():
    baseline = {"compiler": "12", "instructions": {"http": 1000}}
    assert complaint("http", 1019, "12", baseline) is None and complaint("http", 981, "12", baseline) is None
    assert "1,030 instructions instead of 1,000 (+3.0%" in complaint("http", 1030, "12", baseline)
    assert "-3.0%" in complaint("http", 970, "12", baseline)
    assert "compiler 12, this is 13" in complaint("http", 1030, "13", baseline)
