"""Instructions that the scheduler and the HTTP path take for fixed work, counted by callgrind, against tests/tools/instructions.json.

  scripts/instructions              # counts, compares, fails beyond 2 %
  scripts/instructions --update     # the counts of now become the baseline

A count is of one thread's work with fixed input, hash secrets and clock (tests/tools/instruction_guard.cpp), so it is the same in
every run, whatever else the machine does. Valgrind shows programs much the same processor on all machines; what is left of
its kind (the C library's choice of memcpy) is fixed below, and was worth 0.3 % at most. The compiler matters."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from measure.local_server import ROOT, TINY

BASELINE = ROOT / "tests/tools/instructions.json"
PROGRAM = ROOT / "build/release/tests/instruction_guard"
PATHS = {"scheduler": [], "http": [str(TINY), str(ROOT / "configs/dialects/multiverse.json")]}
TOLERANCE = 0.02
# The C library's functions for plain x86-64, which every machine has.
TUNABLES = "glibc.cpu.hwcaps=-AVX2,-AVX,-AVX_Fast_Unaligned_Load,-ERMS,-SSE4_2,-SSSE3,-BMI2"


class CountError(Exception):
    pass


def count(path: str, tunables: str = TUNABLES) -> tuple[int, str]:
    """Instructions of one path's work, and the compiler that made the program."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*measured_work*", str(PROGRAM), path, *PATHS[path]]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"GLIBC_TUNABLES": tunables}, timeout=600)
    except FileNotFoundError as error:
        raise CountError("valgrind is not installed; scripts/setup --dev installs it") from error
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or not found or int(found[1]) == 0:
        raise CountError(f"`{' '.join(command)}` ended with {done.returncode} and no count (scripts/build release instruction_guard builds it):\n{done.stderr[-1500:]}")
    return int(found[1]), done.stdout.strip()


def complaint(path: str, counted: int, compiler: str, baseline: dict) -> str | None:
    """What is wrong with a count; None within the tolerance. Fewer is wrong too: the baseline would let the gain be lost again."""
    before = baseline["instructions"][path]
    change = counted / before - 1
    if abs(change) <= TOLERANCE:
        return None
    other = "" if compiler == baseline["compiler"] else f" The baseline is of compiler {baseline['compiler']}, this is {compiler}."
    return (f"{path}: {counted:,} instructions instead of {before:,} ({change:+.1%}, allowed are {TOLERANCE:.0%}).{other} If that is wanted, "
            "`scripts/instructions --update` makes it the baseline; say why in the commit.")  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/instructions", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help="write the baseline")
    parser.add_argument("--baseline", type=Path, default=BASELINE)
    arguments = parser.parse_args()
    try:
        counts = {path: count(path) for path in PATHS}
    except CountError as error:
        print(f"instructions: {error}", file=sys.stderr)
        return 1
    now = {"compiler": counts["http"][1], "instructions": {path: counted for path, (counted, _) in counts.items()}}
    print(json.dumps(now, indent=1))
    if arguments.update:
        arguments.baseline.write_text(json.dumps(now, indent=1) + "\n")
        return 0
    baseline = json.loads(arguments.baseline.read_text())
    complaints = [text for path, (counted, compiler) in counts.items() if (text := complaint(path, counted, compiler, baseline))]
    print("\n".join(complaints), file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
