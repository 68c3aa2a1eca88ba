"""scripts/measure_steps against a program that stands for the binary."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from measure.measure_steps import BenchError, measure
from measure.simulate_fleet import load_steps

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def program(tmp_path):
    """Says rows + (number of earlier runs with these rows) milliseconds a step, in bench decode's words; 2.8 more for contexts apart."""
    path = tmp_path / "multiverse"
    path.write_text(
        '#!/bin/sh\n[ "$1 $2 $3" = "bench decode --rows" ] || exit 2\n[ "$4" = 13 ] && exit 3\necho "$*" >>"$0.runs"\n'
        'n=$(grep -c -- "--rows $4 .*--shared" "$0.runs")\ncase "$*" in *--shared*) more=0 ;; *) more=28 ;; esac\necho "weights 19.3 MB; 23 GFLOP/s"\n'
        'echo "    $4 x 512   apart      $(($4 + n - 1 + more / 10)).$((more % 10)) ms a step     561 tokens/s   floor  3.366 ms   prefill 200.0 ms (0.0 TFLOP/s)"\n'
    )
    path.chmod(0o755)
    return path


def test_medians_that_the_simulation_takes(program, tmp_path):
    command = [sys.executable, "-m", "measure.measure_steps", "--rows", "8,1", "--binary", str(program), "--out", str(tmp_path / "s.json"), "--", "--threads", "2"]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT / "scripts")}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "s.json").read_text())
    assert (result["rows"], result["least_ms"], result["ms"], result["most_ms"]) == ([1, 8], [1, 8], pytest.approx([1.6, 8.6]), [3, 10])
    assert "load average" in result["from"] and "--threads 2" in result["from"]
    runs = Path(f"{program}.runs").read_text().splitlines()
    assert [run.split()[3] for run in runs] == ["1", "8", "8", "2"] * 3 and "--shared --context 1000" in runs[3]
    # 7 contexts of 400 more than one, for 2.8 ms; the one of the shared steps is off.
    assert result["read_ms_per_token"] == pytest.approx(0.001)
    assert result["prefill_ms_per_token"] == pytest.approx(0.2)
    times, _ = load_steps(tmp_path / "s.json")
    assert times.step(8) == pytest.approx(0.0086) and times.step(8, 400) == pytest.approx(0.009)


def test_failures_say_what_happened(program, tmp_path):
    with pytest.raises(BenchError, match="--rows 13.*ended with 3"):
        measure(program, [13], 1, [])
    with pytest.raises(BenchError, match="scripts/build release multiverse builds it"):
        measure(tmp_path / "none", [1], 1, [])
