"""Adds up the reports of a test run (JUnit XML, as GoogleTest and pytest write it); exits 1 if anything failed.

A program that ended badly without a failed test in its report (it crashed) counts as one failure; what it said is
repeated, as a log's start may be lost.
"""

import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path


def cases(report: Path) -> tuple[int, int, int]:
    """Passed, failed (which it names) and skipped test cases of a report; none where it is missing or cut off."""
    try:
        root = ElementTree.parse(report).getroot()
    except (OSError, ElementTree.ParseError):
        return 0, 0, 0
    passed = failed = skipped = 0
    for case in root.iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            print(f"failed: {report.stem} {case.get('classname')}.{case.get('name')}")
            failed += 1
        elif case.find("skipped") is not None or case.get("result") in ("skipped", "suppressed"):
            skipped += 1
        else:
            passed += 1
    return passed, failed, skipped


LAST_WORDS = 60  # lines
REPORT = re.compile(r"(WARNING: ThreadSanitizer|ERROR: \w+Sanitizer|FATAL: |runtime error: |terminate called)")


def last_words(log: Path) -> str:
    """The first report of a sanitizer or of the runtime in a program's output, else the output's end."""
    if not log.exists():
        return ""
    lines = log.read_text(errors="replace").splitlines()
    begin = next((i for i, line in enumerate(lines) if REPORT.search(line)), max(0, len(lines) - LAST_WORDS))
    return "".join(f"  {line}\n" for line in lines[begin : begin + LAST_WORDS])


def main(folder: Path) -> int:
    counted = {report.stem: cases(report) for report in sorted(folder.glob("*.xml"))}
    passed, failed, skipped = (sum(column) for column in zip(*counted.values())) if counted else (0, 0, 0)
    exited = folder / "exited.txt"
    for line in exited.read_text().splitlines() if exited.exists() else []:
        name, status = line.split()
        if counted.get(name, (0, 0, 0))[1] == 0:
            print(f"{name} ended with {status} but no failed test: counted as one failure. It said:")
            print(last_words(folder / f"{name}.log"), end="")
            failed += 1
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
