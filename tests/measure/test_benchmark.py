"""scripts/benchmark: what it reads out of the programs' output, and the page that it makes of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from measure.benchmark import BEGIN, END, PAGE, PROGRAMS, BenchmarkError, collect, page, read_decode, verdict, with_page

ROOT = Path(__file__).resolve().parents[2]
ABOUT = {"command": "scripts/benchmark", "commit": "abc1234", "changed": False, "load": [0.5, 1.25], "repeats": 3, "quick": False,
         "machine": {"processor": "Some CPU", "cores": 2, "memory_gib": 7.8, "gpus": []}}  # fmt: skip


def one(group, name, median, kind="", beside=None, **more):
    return {"group": group, "name": name, "unit": "ms", "min": median, "median": median, "max": median, "kind": kind, "beside": beside, "command": f"multiverse bench {group}"} | more


RESULT = {
    "about": ABOUT,
    "figures": [one("decode", "1 × 512", 0.5, "floor", 0.4, min=0.4375, max=12.0), one("decode", "no floor", 12345.6), one("http", "late", 6.25, "at most", 5.0)],
}


def test_page_is_a_function_of_the_data():
    text = page({"cpu": RESULT})
    assert text == page({"cpu": json.loads(json.dumps(RESULT))})
    assert text.splitlines() == [
        BEGIN, "", "### CPU", "",
        "`scripts/benchmark`, commit abc1234: 2 × Some CPU, 7.8 GiB; load average 0.5 before, 1.2 after. Median (least to most) of 3 runs.", "",
        "**decode** (`multiverse bench decode`)", "", "| figure | unit | measured | beside it |", "| --- | --- | --- | --- |",
        "| 1 × 512 | ms | 0.5 (0.438 to 12) | floor 0.4: × 1.25 |", "| no floor | ms | 12,346 |  |", "",
        "**http** (`multiverse bench http`)", "", "| figure | unit | measured | beside it |", "| --- | --- | --- | --- |",
        "| late | ms | 6.25 | at most 5: **missed** |", "",
        "### GPU", "", "Not run yet: `scripts/benchmark --device cuda:0` writes docs/experiments/figures-gpu.json and this part.", "", END,
    ]  # fmt: skip
    whole = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert with_page(with_page(whole, {"cpu": RESULT}), {"cpu": RESULT}) == f"before\n{text}\nafter\n"


def test_the_page_in_the_repository_is_that_of_its_data():
    results = {device: json.loads(file.read_text()) for device in ("cpu", "gpu") if (file := ROOT / f"docs/experiments/figures-{device}.json").exists()}
    assert with_page(PAGE.read_text(), results) == PAGE.read_text(), "scripts/benchmark --page writes it anew"


def test_verdicts():
    assert verdict(one("g", "n", 5.0, "at least", 4.0)) == "at least 4: met"
    assert verdict(one("g", "n", 5.0, "peer", 4.0)) == "peer 4: × 1.25"


def test_gpu_output():
    line = "    8 x 8000  shared     6.250 ms a step    1280 tokens/s   floor  4.790 ms (read 15000.1 MB 4.790, multiply 0.000)  x 1.31   host 0.112 ms   prefill 412.0 ms (473.1 TFLOP/s)\n"
    assert [(r.name, r.values, r.beside) for r in read_decode("7b: loaded in 1.0 s\n" + line)] == [
        ("8 × 8000, shared", (6.25,), 4.79), ("8 × 8000, shared: host time that nothing hides", (0.112,), None), ("8 × 8000, shared: prefill", (412.0,), None),
    ]  # fmt: skip


def run(out, *arguments):
    command = [sys.executable, "-m", "measure.benchmark", "--out", str(out), *arguments]
    return subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT / "scripts")}, capture_output=True, text=True, timeout=300)


def test_quick(tmp_path):
    """The real programs, small. All of them (16 s) with MULTIVERSE_TEST_LONG=1."""
    only = [] if os.environ.get("MULTIVERSE_TEST_LONG") == "1" else ["--only", "decode,request,http,prefill,constraint,policies"]
    before = PAGE.read_text()
    done = run(tmp_path / "f.json", "--quick", *only)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "f.json").read_text())["figures"]
    assert {f["group"] for f in figures} >= {p.title for p in PROGRAMS if not p.gpu and p.name in ("decode", "request", "http", "prefill", "constraint", "policies")}
    assert all(f["min"] <= f["median"] <= f["max"] and f["command"] for f in figures)
    assert PAGE.read_text() == before


def test_failures_say_what_happened(tmp_path):
    path = tmp_path / "multiverse"
    path.write_text("#!/bin/sh\n[ $2 = decode ] && exit 3\necho something else\n")
    path.chmod(0o755)
    by_name = {program.name: program for program in PROGRAMS if not program.gpu}
    for name, words in (("decode", "ended with 3"), ("http", "has changed"), ("request", "no figure was found")):
        with pytest.raises(BenchmarkError, match=words):
            collect([by_name[name]], 1, True, path, lambda _: None)
    done = run(tmp_path / "f.json", "--only", "flying")
    assert done.returncode == 2 and "known are decode, request" in done.stderr
