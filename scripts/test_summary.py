"""Adds up the reports of a test run (JUnit XML, as GoogleTest and pytest write it); exits 1 if anything failed.

A program that ended badly without a failed test in its report (it crashed) counts as one failure.
"""

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path


def cases(report: Path) -> tuple[int, int, int]:
    """Passed, failed and skipped test cases of a report; none where it is missing or cut off."""
    try:
        root = ElementTree.parse(report).getroot()
    except (OSError, ElementTree.ParseError):
        return 0, 0, 0
    passed = failed = skipped = 0
    for case in root.iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            failed += 1
        elif case.find("skipped") is not None or case.get("result") in ("skipped", "suppressed"):
            skipped += 1
        else:
            passed += 1
    return passed, failed, skipped


def main(folder: Path) -> int:
    counted = {report.stem: cases(report) for report in sorted(folder.glob("*.xml"))}
    passed, failed, skipped = (sum(column) for column in zip(*counted.values())) if counted else (0, 0, 0)
    exited = folder / "exited.txt"
    for name in exited.read_text().split() if exited.exists() else []:
        if counted.get(name, (0, 0, 0))[1] == 0:
            print(f"{name} ended badly without a failed test: counted as one failure")
            failed += 1
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
