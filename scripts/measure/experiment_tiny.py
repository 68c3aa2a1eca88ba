"""The paper's experiments in small: multiverse-tiny asked in parallel, serially and sequentially, in batches of 1 to 128, and under
budgets of tokens, context and time. Writes docs/experiments/tiny.md with its plots and data.

  scripts/experiment_tiny                      # all; resumable, in build/experiments/tiny
  scripts/experiment_tiny --problems 64 --batches 1,8,64"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from measure import evaluate, report
from measure.local_server import ROOT, LocalServer, ServerError
from measure.loadtest import numbers
from measure.statistics import quantile, share

# name: (wording, mode, how it is described)
WAYS = {
    "parallel": ("parallel", "parallel", "parallel wording, paths at once"),
    "serial": ("parallel", "serial", "the same texts, one path at a time"),
    "sequential": ("sequential", "parallel", "sequential wording, no blocks"),
}
TOKEN_BUDGETS = [100, 200, 300, 400, 600, 800, 1200, 1600, 3000]
CONTEXTS = [200, 300, 400, 600, 900, 1600]


@dataclass(frozen=True)
class Line:
    """y = slope ÷ x + offset, by least squares."""

    slope: float
    offset: float

    @staticmethod
    def through(points: list[tuple[float, float]]) -> Line:
        inverse = [(1 / x, y) for x, y in points]
        mean_x, mean_y = statistics.fmean(x for x, _ in inverse), statistics.fmean(y for _, y in inverse)
        spread = sum((x - mean_x) ** 2 for x, _ in inverse)
        slope = sum((x - mean_x) * (y - mean_y) for x, y in inverse) / spread if spread else 0.0
        return Line(slope, mean_y - slope * mean_x)


def ask(url: str, out: Path, way: str, problems: int, concurrency: int, budgets: str = "") -> list[dict]:
    """The records of one evaluation, run or finished before."""
    wording, mode, _ = WAYS[way]
    arguments = ["tiny", "--url", url, "--wording", wording, "--mode", mode, "--limit", str(problems), "--concurrency", str(concurrency),
                 "--temperature", "0", "--out", str(out)]  # fmt: skip
    if budgets:
        arguments += ["--budget", budgets]
    asyncio.run(evaluate.evaluate(evaluate.arguments_parser().parse_args(arguments)))
    return [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]


def batches(folder: Path, sizes: list[int], problems: int) -> list[dict]:
    """Each way at each number of requests at once; a server of its own for each, so that no cache is warm."""
    rows = []
    for size in sizes:
        for way in WAYS:
            out = folder / f"batch-{size}-{way}"
            times = out / "times.json"
            if not times.exists():
                # Prefixes aren't kept between requests, since the same questions come again and again; as many problems as keep the batch full.
                with LocalServer(out / "server.log", "--no-prefix-cache", "--max-queued-requests", "1024") as server:
                    ask(server.url, out / "warm-up", way, 4, 4)
                    load, begun = os.getloadavg()[0], time.monotonic()
                    ask(server.url, out, way, max(problems, 2 * size), size)
                    times.write_text(json.dumps({"seconds": time.monotonic() - begun, "load": load}))
            records = [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]
            rows.append({"batch": size, "way": way, **json.loads(times.read_text()), **figures(records)})
    return rows


def figures(records: list[dict]) -> dict:
    good = [r for r in records if "error" not in r]
    per_token = [1000 * r["seconds"] / r["tokens"] for r in good if r["tokens"]]
    return {
        "answers": len(records),
        "accuracy": vars(share([r["right"] for r in records])),
        "tokens": statistics.fmean(r["tokens"] for r in good),
        "critical_path": statistics.fmean(r["critical_path_tokens"] for r in good),
        "steps": statistics.fmean(r["steps"] for r in good),
        "total_tokens": sum(r["tokens"] for r in good),
        "latency_s": {"min": min(r["seconds"] for r in good), "median": quantile([r["seconds"] for r in good], 0.5), "max": max(r["seconds"] for r in good)},
        "ms_per_token": {"min": min(per_token), "median": quantile(per_token, 0.5), "max": max(per_token)},
        "points": [(r["tokens"] / r["critical_path_tokens"], 1000 * r["seconds"] / r["tokens"]) for r in good if r["tokens"]],
    }


def token_budgets(folder: Path, problems: int) -> dict[str, list[dict]]:
    """Accuracy where max_tokens ends the answer: all branches count."""
    out = {}
    with LocalServer(folder / "budget.log", "--max-queued-requests", "1024") as server:
        for way in ("parallel", "sequential"):
            records = ask(server.url, folder / f"budget-{way}", way, problems, 32, ",".join(map(str, TOKEN_BUDGETS)))
            out[way] = [{"budget": b, **vars(share([r["right"] for r in records if r["variant"].endswith(f"≤{b}")]))} for b in TOKEN_BUDGETS]
    return out


def contexts(folder: Path, problems: int) -> dict[str, list[dict]]:
    """Accuracy where the server's context ends the answer: positions count, so that paths at once count as the longest."""
    out: dict[str, list[dict]] = {"parallel": [], "sequential": []}
    for length in CONTEXTS:
        with LocalServer(folder / "context.log", "--max-model-len", str(length), "--max-request-tokens", "4096", "--max-queued-requests", "1024") as server:
            for way in out:
                records = ask(server.url, folder / f"context-{length}-{way}", way, problems, 32)
                out[way].append({"context": length, **vars(share([r["right"] for r in records]))})
    return out


def within_time(rows: list[dict], folder: Path, batch: int) -> dict[str, list[tuple[float, float]]]:
    """Share of problems answered rightly within t seconds, from the batch's own latencies: (t, share), rising."""
    out = {}
    for way in ("parallel", "sequential"):
        records = [json.loads(line) for line in (folder / f"batch-{batch}-{way}" / "answers.jsonl").read_text().splitlines()]
        times = sorted(r["seconds"] for r in records if r["right"])
        out[way] = [(t, (i + 1) / len(records)) for i, t in enumerate(times)]
    return out


def about() -> dict:
    name = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            name = line.split(":", 1)[1].strip()
            break
    commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    return {"machine": f"{os.cpu_count()} × {name}", "commit": commit, "command": report.command_line("scripts/experiment_tiny")}


def draw(result: dict, folder: Path) -> None:
    from measure import plots

    rows = result["batches"]
    drawn, axes = plots.figure("requests at once", "answers' tokens a second")
    for way in WAYS:
        mine = [r for r in rows if r["way"] == way]
        axes.plot([r["batch"] for r in mine], [r["total_tokens"] / r["seconds"] for r in mine], marker="o", label=WAYS[way][2])
    axes.set_xscale("log", base=2)
    axes.legend()
    plots.save(drawn, folder / "tiny-batch.svg")

    drawn, axes = plots.figure("degree of parallelism: tokens ÷ critical path", "latency ÷ tokens, ms")
    smallest = min(r["batch"] for r in rows)
    for way in ("parallel", "sequential"):
        (row,) = [r for r in rows if r["way"] == way and r["batch"] == smallest]
        axes.scatter(*zip(*row["points"]), s=12, label=WAYS[way][2])
    line = Line(**result["line"])
    most = max(x for r in rows for x, _ in r["points"])
    xs = [1 + i * (most - 1) / 100 for i in range(101)]
    axes.plot(xs, [line.slope / x + line.offset for x in xs], color="black", linewidth=1, label=f"{line.slope:.3f} ÷ x + {line.offset:.3f}")
    axes.set_ylim(bottom=0)
    axes.legend()
    plots.save(drawn, folder / "tiny-parallelism.svg")

    drawn, (a, b, c) = plots.plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained", sharey=True)
    for way in ("parallel", "sequential"):
        plots.with_interval(a, [p["budget"] for p in result["token_budgets"][way]], result["token_budgets"][way], label=way)
        plots.with_interval(b, [p["context"] for p in result["contexts"][way]], result["contexts"][way], label=way)
        c.step(*zip(*result["within_time"][way]), where="post", label=way)
    for axes, label in ((a, "tokens of all branches (max_tokens)"), (b, "context: positions (--max-model-len)"), (c, f"seconds, {smallest} at once")):
        axes.set_xlabel(label)
        axes.grid(alpha=0.3)
        axes.legend()
    a.set_ylabel("share right")
    plots.save(drawn, folder / "tiny-budget.svg")


def markdown(result: dict) -> str:
    about, rows, line = result["about"], result["batches"], result["line"]
    loads = [r["load"] for r in rows]
    lines = ["# multiverse-tiny: parallel, serial, sequential", "",
             f"Written by `{about['command']}` on {about['machine']}, commit {about['commit']}; data in [tiny.json](tiny.json). Greedy. The machine's load average before "
             f"a run was {min(loads):.1f} to {max(loads):.1f}" + (": **times were taken beside other work and say little; tokens, steps and accuracy don't depend on it.**"
             if max(loads) > 2.5 else ".") + " GPU columns are missing: this run had the CPU executor only.", "",
             "## What each way takes", ""]  # fmt: skip
    one = {way: next(r for r in rows if r["way"] == way) for way in WAYS}
    lines += report.table(["", *(WAYS[way][2] for way in WAYS)], [
        ("right, 95 % interval", *(f"{100 * r['accuracy']['value']:.1f} % ({100 * r['accuracy']['low']:.1f} to {100 * r['accuracy']['high']:.1f}) of {r['answers']}" for r in one.values())),
        ("tokens an answer, mean", *(f"{r['tokens']:.0f}" for r in one.values())),
        ("critical path, mean", *(f"{r['critical_path']:.0f}" for r in one.values())),
        ("decode steps, mean", *(f"{r['steps']:.0f}" for r in one.values())),
    ])  # fmt: skip
    lines += ["", "## Batches", "", "Requests at once (a closed loop), median latency of an answer with least and most, and tokens a second over the run.", ""]
    table_rows = []
    for size in sorted({r["batch"] for r in rows}):
        mine = [r for r in rows if r["batch"] == size]
        latency = [f"{r['latency_s']['median']:.2f} ({r['latency_s']['min']:.2f} to {r['latency_s']['max']:.2f})" for r in mine]
        table_rows.append((size, *latency, *(f"{r['total_tokens'] / r['seconds']:,.0f}" for r in mine), f"{max(r['load'] for r in mine):.1f}"))
    lines += report.table(["at once", *(f"{way}, s" for way in WAYS), *(f"{way}, tokens/s" for way in WAYS), "load"], table_rows)
    lines += ["", "![Tokens a second against batch](tiny-batch.svg)", "", "## Latency against parallelism", "",
              f"One point an answer, {min(r['batch'] for r in rows)} at once; least squares: {line['slope']:.3f} ÷ x + {line['offset']:.3f} ms a token, x = tokens ÷ critical path. A free fork and join "
              "would give an offset of nothing but what more rows cost a step.", "", "![Latency a token against parallelism](tiny-parallelism.svg)", "",
              "## Budgets", "", "Greedy answers cut off by max_tokens (all branches count), by the context (positions count: paths at once count as the longest), and by time "
              "(the latencies of the smallest batch). An answer without its last line is wrong.", ""]  # fmt: skip
    for title, key, name in (("max_tokens", "token_budgets", "budget"), ("context", "contexts", "context")):
        points = list(zip(result[key]["parallel"], result[key]["sequential"]))
        lines += [*report.table([title, "parallel", "sequential"], [(p[name], f"{p['value']:.0%} ({p['low']:.0%} to {p['high']:.0%})",
                  f"{s['value']:.0%} ({s['low']:.0%} to {s['high']:.0%})") for p, s in points]), ""]  # fmt: skip
    return "\n".join([*lines, "![Accuracy under budgets](tiny-budget.svg)", ""])


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/experiment_tiny", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=64)
    parser.add_argument("--batches", default="1,2,4,8,16,32,64,128", metavar="LIST")
    parser.add_argument("--work", type=Path, default=ROOT / "build/experiments/tiny", help="the answers, kept for a later run")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/experiments")
    arguments = parser.parse_args()
    try:
        rows = batches(arguments.work, numbers(arguments.batches, int), arguments.problems)
        smallest = min(r["batch"] for r in rows)
        points = [p for r in rows if r["batch"] == smallest and r["way"] != "serial" for p in r["points"]]
        result = {"about": about(), "batches": rows, "line": vars(Line.through(points)), "token_budgets": token_budgets(arguments.work, arguments.problems),
                  "contexts": contexts(arguments.work, arguments.problems), "within_time": within_time(rows, arguments.work, smallest)}  # fmt: skip
    except (ServerError, evaluate.Stopped, evaluate.JournalError) as error:
        print(f"experiment_tiny: {error}", file=sys.stderr)
        return 1
    arguments.out.mkdir(parents=True, exist_ok=True)
    draw(result, arguments.out)
    (arguments.out / "tiny.md").write_text(markdown(result))
    for row in result["batches"]:
        del row["points"]  # thousands of them; the answers have them
    (arguments.out / "tiny.json").write_text(json.dumps(result, indent=1) + "\n")
    print(markdown(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
