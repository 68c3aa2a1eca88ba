"""Checks that every file under include/multiverse/MODULE and src/MODULE includes only modules that its CMake target
links, directly or through another: the layers are those of the multiverse_module() lines in CMakeLists.txt."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODULE_LINE = re.compile(r"multiverse_module\((\w+)((?: [^)]*)?)\)")
INCLUDE = re.compile(r'#include *"(?:multiverse/)?(\w+)/')


def linked_modules() -> dict[str, set[str]]:
    """Each module with all that it may see; a module is declared after those that it links."""
    seen: dict[str, set[str]] = {}
    for name, rest in MODULE_LINE.findall((ROOT / "CMakeLists.txt").read_text()):
        direct = [word for word in rest.split("LINK")[0].split() if word not in ("HEADERS", "kernels")]
        seen[name] = {name, *direct}.union(*(seen[module] for module in direct))
        if "kernels" in rest:
            seen[name].add("kernels")
    return seen


def main() -> int:
    modules = linked_modules()
    files = subprocess.run(["git", "ls-files", "include/multiverse", "src"], cwd=ROOT, capture_output=True, text=True)
    wrong = 0
    for file in files.stdout.split():
        module = Path(file).parts[2 if file.startswith("include/") else 1]
        if module not in modules or not (ROOT / file).is_file() or not file.endswith((".h", ".cpp")):
            continue
        for included in INCLUDE.findall((ROOT / file).read_text()):
            if included in modules and included not in modules[module]:
                print(f"style: {file}: module {module} may not include module {included}", file=sys.stderr)
                wrong += 1
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
