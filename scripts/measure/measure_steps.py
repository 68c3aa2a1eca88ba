"""Step times of this machine for scripts/simulate_fleet: runs `multiverse bench decode` for several row counts over a context that they
share and for one that they don't, and for a prompt whose prefill it times, and writes them as JSON, with least, median and most of the repeats, the machine, its load and the commit.

  scripts/measure_steps --rows 1,8,64 --out steps.json [-- options of bench decode, such as --model DIR]"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

from measure.experiment_tiny import about
from measure.local_server import BINARY
from measure.loadtest import numbers

_STEP = re.compile(r"([\d.]+) ms a step")
_PREFILL = re.compile(r"prefill ([\d.]+) ms")
_MOST_APART = 16  # rows with contexts of their own, from which a read token's cost is found
_LEAST = 0.1  # of a measured step that is left when its context is taken off


class BenchError(Exception):
    pass


def bench_ms(binary: Path, wanted: re.Pattern[str], options: list[str]) -> float:
    command = [str(binary), "bench", "decode", *options]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise BenchError(f"{binary}: {error}; scripts/build release multiverse builds it") from error
    found = wanted.search(done.stdout)
    if done.returncode or not found:
        raise BenchError(f"`{' '.join(command)}` ended with {done.returncode} and no time:\n{(done.stdout + done.stderr)[-1000:]}")
    return float(found[1])


def measure(binary: Path, rows: list[int], repeats: int, options: list[str], prompt: int = 1000, context: int = 400) -> dict:
    """Row counts in turn, all of them `repeats` times, so that a slow minute of the machine doesn't fall on one of them. The rows share a
    context; what its tokens cost comes from rows that have one each, and is taken off."""
    times: dict[int, list[float]] = {count: [] for count in rows}
    prefill, apart = [], []
    load = os.getloadavg()[0]
    several = max((count for count in rows if count <= _MOST_APART), default=0)
    over = [*options, "--context", str(context)]
    for _ in range(repeats):
        for count in rows:
            times[count].append(bench_ms(binary, _STEP, ["--rows", str(count), *over, "--shared"]))
        if several > 1:
            apart.append(bench_ms(binary, _STEP, ["--rows", str(several), *over]))
        prefill.append(bench_ms(binary, _PREFILL, ["--rows", "2", "--steps", "1", *options, "--shared", "--context", str(prompt)]) / prompt)
    here = about()
    medians = [statistics.median(times[count]) for count in rows]
    read = max(0.0, (statistics.median(apart) - statistics.median(times[several])) / ((several - 1) * context)) if apart else 0.0
    return {
        "rows": rows,
        "ms": [max(median - read * context, _LEAST * median) for median in medians],
        "least_ms": [min(times[count]) for count in rows],
        "most_ms": [max(times[count]) for count in rows],
        "read_ms_per_token": read,
        "prefill_ms_per_token": statistics.median(prefill),
        "prefill_prompt_tokens": prompt,
        "from": f"multiverse bench decode {' '.join(options)}, {here['machine']}, commit {here['commit']}, {repeats} repeats, load average {load:.1f} before",
    }


def main() -> int:
    arguments = sys.argv[1:]
    options = arguments[arguments.index("--") + 1 :] if "--" in arguments else []
    parser = argparse.ArgumentParser(prog="scripts/measure_steps", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="1,2,4,8,16,32,64,128", metavar="LIST")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--prompt", type=int, default=1000, help="tokens of the prompt that is prefilled")
    parser.add_argument("--context", type=int, default=400, help="tokens that the rows see")
    parser.add_argument("--out", type=Path, default=Path("steps.json"))
    parser.add_argument("--binary", type=Path, default=BINARY)
    parsed = parser.parse_args(arguments[: arguments.index("--")] if "--" in arguments else arguments)
    try:
        result = measure(parsed.binary, sorted(set(numbers(parsed.rows, int))), parsed.repeats, options, parsed.prompt, parsed.context)
    except BenchError as error:
        print(f"measure_steps: {error}", file=sys.stderr)
        return 1
    parsed.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
