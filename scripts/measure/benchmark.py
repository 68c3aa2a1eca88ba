"""Every figure that this machine can make, into one JSON, and from it the generated part of docs/performance.md.

  scripts/benchmark                        # minutes; docs/experiments/figures-cpu.json and the page
  scripts/benchmark --device cuda:0        # figures-gpu.json: decode steps of the large shapes
  scripts/benchmark --quick --out F.json   # under a minute, once each, no page: does it all still run?
  scripts/benchmark --page                 # the page alone, from the JSON files that are there

Each figure has least, median and most of the repeats, its floor or the figure wanted, and the command that made it. The programs run in
turn, all of them as often as there are repeats, so that a slow minute of the machine doesn't fall on one of them."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from measure import instructions
from measure.local_server import BINARY, ROOT
from measure.report import command_line, table
from measure.statistics import quantile

PAGE = ROOT / "docs/performance.md"
DATA = ROOT / "docs/experiments"
BEGIN, END = "<!-- written by scripts/benchmark; edit that -->", "<!-- end of what scripts/benchmark wrote -->"


@dataclass(frozen=True)
class Reading:
    """A figure in a program's output. `kind`: what `beside` is: floor, at most, at least, peer, baseline; "" for none."""

    name: str
    unit: str
    values: tuple[float, ...]
    kind: str = ""
    beside: float | None = None


def number(text: str) -> float:
    return float(text.replace(",", ""))


def read_decode(text: str) -> Iterator[Reading]:
    for line in re.findall(r"^ +\d+ x .*", text, re.M):
        rows, context, shared, ms, floor = re.match(r" +(\d+) x (\d+) +(shared|apart) +([\d.]+) ms a step .*? floor +([\d.]+) ms", line).groups()
        name = f"{rows} × {context}, {shared}"
        yield Reading(name, "ms a step", (number(ms),), "floor", number(floor))
        if host := re.search(r"host ([\d.]+) ms", line):
            yield Reading(f"{name}: host time that nothing hides", "ms a step", (number(host[1]),))
        if prefill := re.search(r"prefill ([\d.]+) ms", line):
            yield Reading(f"{name}: prefill", "ms", (number(prefill[1]),))


def read_request(text: str) -> Iterator[Reading]:
    for name, median, late, wanted in re.findall(r"^ +(parse JSON|render|tokenise|all) +median +([\d.]+) ms +p99 +([\d.]+) ms(?: +wanted <= ([\d.]+))?", text, re.M):
        yield Reading(f"{name}, median", "ms", (number(median),))
        yield Reading(f"{name}, p99", "ms", (number(late),), *(("at most", number(wanted)) if wanted else ()))


def read_scheduler(text: str) -> Iterator[Reading]:
    for what, time, wanted in re.findall(r"^ +(\d+ (?:paths|requests)[^.]*?) +([\d.]+) +[\d.]+ a row(?: +wanted <= (\d+))?", text, re.M):
        yield Reading(f"plan and commit a step, {what}", "µs", (number(time),), *(("at most", number(wanted)) if wanted else ()))
    for what, time, wanted in re.findall(r"^ +(the step that draws the fork|the next, 500 header rows) +([\d.]+)(?: +wanted <= (\d+))?", text, re.M):
        yield Reading(f"fork into 100 paths: {what}", "µs", (number(time),), *(("at most", number(wanted)) if wanted else ()))
    for count, each in re.findall(r"^ +(\d+) queued +[\d.]+ ms +([\d.]+) microseconds each", text, re.M):
        yield Reading(f"from the queue to the end, {count} queued", "µs a request", (number(each),))
    waits, runs = re.search(r"that waits +(\d+) bytes, that runs +(\d+)", text).groups()
    yield Reading("a request of 100 tokens that waits", "bytes", (number(waits),))
    yield Reading("a request of 100 tokens that runs", "bytes", (number(runs),))
    yield Reading("a path of a running request", "bytes", (number(re.search(r"a path of a running request +(\d+)", text)[1]),))
    trace, share = re.search(r"trace, microseconds a step +([\d.]+) +([\d.]+) %", text).groups()
    yield Reading("--trace-file, a step", "µs", (number(trace),))
    yield Reading("--trace-file, of a step of 0.43 ms", "%", (number(share),), "at most", 2.0)


def read_http(text: str) -> Iterator[Reading]:
    load, median, late, wanted = re.search(r"streams +(\d+ x \d+) tokens/s: added a token median ([\d.]+) ms, p99 ([\d.]+) ms +wanted <= ([\d.]+)", text).groups()
    load = load.replace("x", "×") + " tokens/s"
    yield Reading(f"{load}: added a token, median", "ms", (number(median),))
    yield Reading(f"{load}: added a token, p99", "ms", (number(late),), "at most", number(wanted))
    server, client, allowed = re.search(r"server ([\d.]+) us, client ([\d.]+) us +2 cores allow ([\d.]+)", text).groups()
    yield Reading(f"{load}: processor time a token, server", "µs", (number(server),), "at most", number(allowed))
    yield Reading(f"{load}: processor time a token, client", "µs", (number(client),))
    tokens, median, late, wanted = re.search(r"overhead +(\d+) prompt tokens: median ([\d.]+) ms, p99 ([\d.]+) ms +wanted <= ([\d.]+)", text).groups()
    yield Reading(f"request of {tokens} prompt tokens, median", "ms", (number(median),))
    yield Reading(f"request of {tokens} prompt tokens, p99", "ms", (number(late),), "at most", number(wanted))
    each, wanted = re.search(r", (\d+) for each second of a core +wanted >= (\d+)", text).groups()
    yield Reading("refusals a second of a core", "1/s", (number(each),), "at least", number(wanted))
    idle, late, wanted = re.search(r"beside (\d+) connections: .*p99 ([\d.]+) ms +wanted <= ([\d.]+)", text).groups()
    yield Reading(f"/readyz beside {idle} idle connections, p99", "ms", (number(late),), "at most", number(wanted))


def read_prefill(text: str) -> Iterator[Reading]:
    times = r"(?:{0} +([\d.]+), +([\d.]+) ms +)"
    found = re.search(r"^  all +" + times.format("alone") + times.format("beside") + r"x [\d.]+, ([\d.]+) ", text, re.M).groups()
    for what, median, late in (("alone", *found[:2]), ("beside the prompt", *found[2:4])):
        yield Reading(f"time between a stream's tokens {what}, median", "ms", (number(median),))
        yield Reading(f"time between a stream's tokens {what}, p99", "ms", (number(late),))
    yield Reading("p99 beside the prompt ÷ alone", "×", (number(found[4]),), "at most", 2.0)


def read_constraint(text: str) -> Iterator[Reading]:
    for name, compiled, first, later in re.findall(r"^(\S.*?) +([\d.]+) +[\d.]+ +([\d.]+) +[\d.]+ +[\d.]+ +([\d.]+) +[\d.]+$", text, re.M):
        yield Reading(f"{name}: compile", "ms", (number(compiled),))
        yield Reading(f"{name}: first reply, p99 a token", "ms", (number(first),), "at most", 1.0)
        yield Reading(f"{name}: later replies, p99 a token", "ms", (number(later),), "at most", 1.0)


def read_policies(text: str) -> Iterator[Reading]:
    """Simulated on a virtual clock: its spread is that of the seeds, and beside it stands what knows nothing of branches."""
    machine, blind = "", None
    for line in text.splitlines()[1:]:
        if not (found := re.match(r"  (.+?) +in time +([\d.]+) +([\d.]+) +([\d.]+) a minute", line)):
            machine = line.split(":")[0] if line and not line.startswith(" ") else machine
            continue
        values = tuple(number(value) for value in found.groups()[1:])
        if found[1] == "first come, blind":
            blind = values[1]
        if found[1] == "equal shares":
            yield Reading(f"{machine}: in time, equal shares (beside: first come, blind)", "requests a minute", values, "peer", blind)


@dataclass(frozen=True)
class Program:
    title: str
    arguments: str  # of `multiverse bench`
    quick: str
    read: Callable[[str], Iterator[Reading]]
    gpu: bool = False
    once: bool = False  # its output does not depend on the machine

    @property
    def name(self) -> str:
        return self.arguments.split()[0]


PROGRAMS = [
    Program("Decode steps of multiverse-tiny", "decode", "decode --rows 1 --steps 3", read_decode),
    Program("A request before its first step", "request", "request --runs 5", read_request),
    Program("The scheduler", "scheduler", "scheduler", read_scheduler),
    Program("HTTP above a simulated engine", "http", "http --streams 50 --seconds 1 --idle 100", read_http),
    Program("A long prompt beside streams", "prefill", "prefill --prompt 600 --streams 2 --tokens 20 --rounds 1", read_prefill),
    Program("Constraints", "constraint", "constraint --replies 2", read_constraint),
    Program("Policies, simulated", "policies --requests 100 --seeds 5", "policies --requests 5 --seeds 1 --machine 3", read_policies, once=True),
    Program("Decode steps, 0.5B", "decode --shape 0.5b", "decode --shape 0.5b --rows 1 --context 100 --steps 3", read_decode, gpu=True),
    Program("Decode steps, 7B", "decode --shape 7b", "decode --shape 7b --rows 1 --context 100 --steps 3", read_decode, gpu=True),
    Program("Decode steps, 32B", "decode --shape 32b", "decode --shape 32b --rows 1 --context 100 --steps 3", read_decode, gpu=True),
]  # fmt: skip


class BenchmarkError(Exception):
    pass


def run_once(program: Program, arguments: str, binary: Path) -> list[Reading]:
    try:
        done = subprocess.run([str(binary), "bench", *arguments.split()], capture_output=True, text=True)
    except OSError as error:
        raise BenchmarkError(f"{binary}: {error}; scripts/build release multiverse builds it") from error
    if done.returncode:
        raise BenchmarkError(f"`multiverse bench {arguments}` ended with {done.returncode}:\n{(done.stdout + done.stderr)[-1500:]}")
    try:
        readings = list(program.read(done.stdout))
    except (AttributeError, TypeError) as error:  # a pattern that found nothing
        raise BenchmarkError(f"the output of `multiverse bench {arguments}` has changed ({error}); scripts/measure/benchmark.py reads it:\n{done.stdout}") from error
    if not readings:
        raise BenchmarkError(f"no figure was found in the output of `multiverse bench {arguments}`:\n{done.stdout}")
    return readings


def collect(programs: list[Program], repeats: int, quick: bool, binary: Path, say: Callable[[str], None]) -> list[dict]:
    runs: dict[Program, list[list[Reading]]] = {program: [] for program in programs}
    for repeat in range(repeats):
        for program in programs:
            if repeat and program.once:
                continue
            arguments = program.quick if quick else program.arguments
            say(f"{repeat + 1} of {repeats}: multiverse bench {arguments}")
            runs[program].append(run_once(program, arguments, binary))
    return [figure(program, [run[i] for run in mine], quick) for program, mine in runs.items() for i in range(len(mine[0]))]


def figure(program: Program, readings: list[Reading], quick: bool) -> dict:
    first = readings[0]
    if any(reading.name != first.name for reading in readings):
        raise BenchmarkError(f"runs of `bench {program.arguments}` gave different figures: {', '.join(r.name for r in readings)}")
    values = [value for reading in readings for value in reading.values]
    besides = [reading.beside for reading in readings if reading.beside is not None]
    return {"group": program.title, "name": first.name, "unit": first.unit, "min": min(values), "median": quantile(values, 0.5), "max": max(values),
            "kind": first.kind, "beside": quantile(besides, 0.5) if besides else None,
            "command": f"multiverse bench {program.quick if quick else program.arguments}"}  # fmt: skip


def counted_instructions() -> list[dict]:
    baseline = json.loads(instructions.BASELINE.read_text())["instructions"]
    counts = {path: instructions.count(path)[0] for path in instructions.PATHS}
    return [{"group": "Instructions of fixed work", "name": path, "unit": "instructions", "min": counted, "median": counted, "max": counted, "kind": "baseline",
             "beside": baseline[path], "command": "scripts/instructions"} for path, counted in counts.items()]  # fmt: skip


def machine() -> dict:
    name = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), platform.machine())
    memory = int(re.search(r"MemTotal: +(\d+)", Path("/proc/meminfo").read_text())[1]) / 2**20
    out = {"processor": name, "cores": os.cpu_count(), "memory_gib": round(memory, 1), "gpus": []}
    if shutil.which("nvidia-smi"):
        done = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True)
        out["gpus"] = done.stdout.split("\n")[:-1] if done.returncode == 0 else []
    return out


def git(*arguments: str) -> str:
    return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True).stdout.strip()


def shown(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value else "0"


def verdict(one: dict) -> str:
    """The median beside its floor, peer, baseline or aim."""
    kind, beside, median = one["kind"], one["beside"], one["median"]
    if beside is None:
        return ""
    if kind in ("floor", "peer", "baseline"):
        return f"{kind} {shown(beside)}: × {median / beside:.2f}" if beside else f"{kind} 0"
    met = median <= beside if kind == "at most" else median >= beside
    return f"{kind} {shown(beside)}: {'met' if met else '**missed**'}"


def section(result: dict) -> list[str]:
    about = result["about"]
    hardware = about["machine"]
    where = f"{hardware['cores']} × {hardware['processor']}, {hardware['memory_gib']} GiB" + "".join(f", {gpu}" for gpu in hardware["gpus"])
    lines = [f"`{about['command']}`, commit {about['commit']}{' with changes' if about['changed'] else ''}: {where}; load average {about['load'][0]:.1f} before, {about['load'][1]:.1f} "
             f"after. Median (least to most) of {about['repeats']} runs."]  # fmt: skip
    groups = list(dict.fromkeys(one["group"] for one in result["figures"]))
    for group in groups:
        mine = [one for one in result["figures"] if one["group"] == group]
        lines += ["", f"**{group}** (`{mine[0]['command']}`)", ""]
        lines += table(["figure", "unit", "measured", "beside it"],
                       [(one["name"], one["unit"], shown(one["median"]) + ("" if one["min"] == one["max"] else f" ({shown(one['min'])} to {shown(one['max'])})"), verdict(one))
                        for one in mine])  # fmt: skip
    return lines


def page(results: dict[str, dict]) -> str:
    """What stands between the marks, of the JSONs by device. The same for the same data."""
    lines = [BEGIN]
    for device, name, flag in (("cpu", "CPU", ""), ("gpu", "GPU", " --device cuda:0")):
        lines += ["", f"### {name}", ""]
        lines += section(results[device]) if device in results else [f"Not run yet: `scripts/benchmark{flag}` writes docs/experiments/figures-{device}.json and this part."]
    return "\n".join([*lines, "", END])


def with_page(text: str, results: dict[str, dict]) -> str:
    before, rest = text.split(BEGIN, 1)
    return before + page(results) + rest.split(END, 1)[1]


def write_page(path: Path, data: Path) -> None:
    results = {device: json.loads(file.read_text()) for device in ("cpu", "gpu") if (file := data / f"figures-{device}.json").exists()}
    path.write_text(with_page(path.read_text(), results))


def arguments_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/benchmark", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu, or cuda:0 for the large shapes")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="small and once; implies no page")
    parser.add_argument("--only", default="", metavar="LIST", help="of the benchmarks' names, and instructions; implies no page")
    parser.add_argument("--out", type=Path, help="default: docs/experiments/figures-cpu.json or figures-gpu.json")
    parser.add_argument("--binary", type=Path, default=BINARY)
    parser.add_argument("--page", action="store_true", help="write the page from the JSON files, and nothing else")
    return parser


def main() -> int:
    arguments = arguments_parser().parse_args()
    gpu = arguments.device != "cpu"
    out = arguments.out or DATA / f"figures-{'gpu' if gpu else 'cpu'}.json"
    partly = arguments.quick or arguments.only
    if partly and not arguments.out:
        print("benchmark: --quick and --only don't make the whole of the figures; give --out FILE", file=sys.stderr)
        return 2
    if not arguments.page:
        only = set(filter(None, arguments.only.split(",")))
        if unknown := only - {program.name for program in PROGRAMS} - {"instructions"}:
            print(f"benchmark: --only {', '.join(unknown)}: known are {', '.join(dict.fromkeys(p.name for p in PROGRAMS))}, instructions", file=sys.stderr)
            return 2
        programs = [program for program in PROGRAMS if program.gpu == gpu and (not only or program.name in only)]
        repeats, load = 1 if arguments.quick else arguments.repeats, os.getloadavg()[0]
        try:
            figures = collect(programs, repeats, arguments.quick, arguments.binary, lambda line: print(line, file=sys.stderr))
            if not gpu and (not only or "instructions" in only):
                figures += counted_instructions()
        except (BenchmarkError, instructions.CountError) as error:
            print(f"benchmark: {error}", file=sys.stderr)
            return 1
        about = {"command": command_line("scripts/benchmark"), "commit": git("rev-parse", "--short", "HEAD"), "changed": bool(git("status", "--porcelain", "-uno")),
                 "machine": machine(), "load": [load, os.getloadavg()[0]], "repeats": repeats, "quick": arguments.quick}  # fmt: skip
        out.write_text(json.dumps({"about": about, "figures": figures}, indent=1, ensure_ascii=False) + "\n")
        print(f"{out}: {len(figures)} figures", file=sys.stderr)
    if not partly:
        write_page(PAGE, DATA)
    return 0


if __name__ == "__main__":
    sys.exit(main())
