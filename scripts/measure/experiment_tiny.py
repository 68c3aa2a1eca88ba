"""The paper's experiments in small: multiverse-tiny asked in parallel, serially and sequentially, in batches of 1 to 128, and under
budgets of tokens, context and time. Writes docs/experiments/tiny.md with its plots and data (tiny-gpu.md for a GPU).

  scripts/experiment_tiny                      # all; resumable, in build/experiments/tiny
  scripts/experiment_tiny --problems 64 --batches 1,8,64
  scripts/experiment_tiny --device cuda:0"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shutil
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
    "sequential": ("sequential", "off", "sequential wording, mode off"),
}
TOKEN_BUDGETS = [100, 200, 300, 400, 600, 800, 1200, 1600, 3000]
CONTEXTS = [200, 300, 400, 600, 900, 1600]
# The paper's line, latency a token in ms = 15.43 ÷ parallelism + 0.60 … 2.14, as shares of its slope: machines differ by the slope.
PAPER_OFFSETS = (0.60 / 15.43, 2.14 / 15.43)


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

    def at(self, x: float) -> float:
        return self.slope / x + self.offset


def ask(url: str, out: Path, way: str, problems: int, concurrency: int, budgets: str = "") -> list[dict]:
    """The records of one evaluation, run or finished before."""
    wording, mode, _ = WAYS[way]
    arguments = ["tiny", "--url", url, "--wording", wording, "--mode", mode, "--limit", str(problems), "--concurrency", str(concurrency),
                 "--temperature", "0", "--out", str(out)]  # fmt: skip
    if budgets:
        arguments += ["--budget", budgets]
    asyncio.run(evaluate.evaluate(evaluate.arguments_parser().parse_args(arguments)))
    return [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]


def one_run(folder: Path, way: str, size: int, problems: int, server_options: list[str]) -> dict:
    """One way at one number of requests at once, on a server of its own, so that no cache is warm; or what an earlier call found."""
    done = folder / "done.json"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)  # a run that was broken off says nothing about times
        # Prefixes aren't kept between requests, since the same questions come again and again.
        with LocalServer(folder / "server.log", "--no-prefix-cache", "--max-queued-requests", "1024", *server_options) as server:
            ask(server.url, folder / "warm-up", way, 4, 4)
            load = os.getloadavg()[0]
            ask(server.url, folder, way, max(problems, size), size)
            done.write_text(json.dumps({"load": load}))
    records = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    return json.loads(done.read_text()) | {"records": records, "seconds": wall_seconds(records)}


def wall_seconds(records: list[dict]) -> float:
    """From the first question sent to the last answer's end."""
    answered = [r for r in records if "error" not in r]
    return max(r["ended_at"] for r in answered) - min(r["ended_at"] - r["seconds"] for r in answered)


def batches(folder: Path, sizes: list[int], problems: int, repeats: int, server_options: list[str]) -> list[dict]:
    """Each way at each number of requests at once. All of them come `repeats` times in turn, so that a slow minute of the machine
    doesn't fall on one of them."""
    runs: dict[tuple[int, str], list[dict]] = {}
    for repeat in range(repeats):
        for size in sizes:
            for way in WAYS:
                runs.setdefault((size, way), []).append(one_run(folder / f"batch-{size}-{way}-{repeat}", way, size, problems, server_options))
    return [{"batch": size, "way": way, **figures(mine)} for (size, way), mine in runs.items()]


def spread(values: list[float]) -> dict:
    return {"min": min(values), "median": quantile(values, 0.5), "max": max(values)}


def figures(runs: list[dict]) -> dict:
    """Of repeated runs. Answers are greedy: accuracy, tokens and steps are the first run's, `differing` counts the answers of the others
    with another number of tokens. Times: least, median and most of the runs."""
    first = {r["problem"]: r for r in runs[0]["records"]}
    good = [r for r in first.values() if "error" not in r]
    answered = [[r for r in run["records"] if "error" not in r] for run in runs]
    median_seconds = {name: quantile([r["seconds"] for run in answered for r in run if r["problem"] == name], 0.5) for name in first}
    total = sum(r["tokens"] for r in good)
    return {
        "answers": len(first),
        "repeats": len(runs),
        "differing": sum(r["tokens"] != first[r["problem"]].get("tokens") for run in answered[1:] for r in run),
        "failed": sum("error" in r for run in runs for r in run["records"]),
        "accuracy": vars(share([r["right"] for r in first.values()])),
        "tokens": statistics.fmean(r["tokens"] for r in good),
        "critical_path": statistics.fmean(r["critical_path_tokens"] for r in good),
        "steps": statistics.fmean(r["steps"] for r in good),
        "total_tokens": total,
        "load": [run["load"] for run in runs],
        "wall_s": spread([run["seconds"] for run in runs]),
        "tokens_per_s": spread([total / run["seconds"] for run in runs]),
        "latency_s": spread([quantile([r["seconds"] for r in run], 0.5) for run in answered]),
        "points": [(r["tokens"] / r["critical_path_tokens"], 1000 * median_seconds[r["problem"]] / r["tokens"]) for r in good if r["tokens"]],
    }


def token_budgets(folder: Path, problems: int, server_options: list[str]) -> dict[str, list[dict]]:
    """Accuracy where max_tokens ends the answer: all branches count."""
    out = {}
    with LocalServer(folder / "budget.log", "--max-queued-requests", "1024", *server_options) as server:
        for way in ("parallel", "sequential"):
            records = ask(server.url, folder / f"budget-{way}", way, problems, 32, ",".join(map(str, TOKEN_BUDGETS)))
            out[way] = [{"budget": b, **vars(share([r["right"] for r in records if r["variant"].endswith(f"≤{b}")]))} for b in TOKEN_BUDGETS]
    return out


def contexts(folder: Path, problems: int, server_options: list[str]) -> dict[str, list[dict]]:
    """Accuracy where the server's context ends the answer: positions count, so that paths at once count as the longest."""
    out: dict[str, list[dict]] = {"parallel": [], "sequential": []}
    for length in CONTEXTS:
        with LocalServer(folder / "context.log", "--max-model-len", str(length), "--max-request-tokens", "4096", "--max-queued-requests", "1024", *server_options) as server:
            for way in out:
                records = ask(server.url, folder / f"context-{length}-{way}", way, problems, 32)
                out[way].append({"context": length, **vars(share([r["right"] for r in records]))})
    return out


def within_time(folder: Path, batch: int) -> dict[str, list[tuple[float, float]]]:
    """Share of problems answered rightly within t seconds, from the latencies of the batch's first run: (t, share), rising."""
    out = {}
    for way in ("parallel", "sequential"):
        records = [json.loads(line) for line in (folder / f"batch-{batch}-{way}-0" / "answers.jsonl").read_text().splitlines()]
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


def draw(result: dict, folder: Path, name: str) -> None:
    from measure import plots

    rows = result["batches"]
    drawn, axes = plots.figure("requests at once", "answers' tokens a second")
    for way in WAYS:
        mine = [r for r in rows if r["way"] == way]
        speeds = [r["tokens_per_s"] for r in mine]
        low, high = ([abs(s["median"] - s[end]) for s in speeds] for end in ("min", "max"))
        axes.errorbar([r["batch"] for r in mine], [s["median"] for s in speeds], yerr=[low, high], marker="o", capsize=3, label=WAYS[way][2])
    axes.set_xscale("log", base=2)
    axes.set_ylim(bottom=0)
    axes.legend()
    plots.save(drawn, folder / f"{name}-batch.svg")

    drawn, axes = plots.figure("degree of parallelism: tokens ÷ critical path", "latency ÷ tokens, ms")
    smallest = min(r["batch"] for r in rows)
    for way in ("parallel", "sequential"):
        (row,) = [r for r in rows if r["way"] == way and r["batch"] == smallest]
        axes.scatter(*zip(*row["points"]), s=12, label=WAYS[way][2])
    line = Line(**result["line"])
    most = max(x for r in rows for x, _ in r["points"])
    xs = [1 + i * (most - 1) / 40 for i in range(41)]
    axes.plot(xs, [line.at(x) for x in xs], color="black", linewidth=1, label=f"{line.slope:.3f} ÷ x + {line.offset:.3f}")
    axes.fill_between(xs, *([line.slope / x + share * line.slope for x in xs] for share in PAPER_OFFSETS), color="grey", alpha=0.25,
                      label="the paper's line, scaled to our slope")  # fmt: skip
    axes.set_ylim(bottom=0)
    axes.legend()
    plots.save(drawn, folder / f"{name}-parallelism.svg")

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
    plots.save(drawn, folder / f"{name}-budget.svg")


def of_runs(value: dict, digits: int) -> str:
    return f"{value['median']:,.{digits}f} ({value['min']:,.{digits}f} to {value['max']:,.{digits}f})"


def markdown(result: dict, name: str) -> str:
    about, rows = result["about"], result["batches"]
    sizes = sorted({r["batch"] for r in rows})
    at = {(r["batch"], r["way"]): r for r in rows}
    one = {way: at[sizes[0], way] for way in WAYS}
    line = Line(**result["line"])
    loads = [load for r in rows for load in r["load"]]
    repeats = min(r["repeats"] for r in rows)
    lines = [f"# multiverse-tiny: parallel, serial, sequential, on {about['device']}", "",
             f"Written by `{about['command']}` on {about['machine']}, commit {about['commit']}; data in [{name}.json]({name}.json). Greedy; server and client share the machine, "
             f"whose load average was {min(loads):.1f} to {max(loads):.1f} before the runs" + (": **it had other work too, so compare times within a row, and trust tokens, steps and "
             "accuracy, which don't depend on it.**" if max(loads) > 2.5 else ".") + f" Times: median of {repeats} runs (least to most). "
             + ("The same on a GPU: `scripts/experiment_tiny --device cuda:0` writes [tiny-gpu.md](tiny-gpu.md)." if about["gpu_page"] else
                "**On a GPU it has not been run yet**: `scripts/experiment_tiny --device cuda:0` writes tiny-gpu.md." if about["device"] == "cpu" else ""), "",
             "## What each way takes", ""]  # fmt: skip
    lines += report.table(["", *(WAYS[way][2] for way in WAYS)], [
        ("right, 95 % interval", *(f"{100 * r['accuracy']['value']:.1f} % ({100 * r['accuracy']['low']:.1f} to {100 * r['accuracy']['high']:.1f}) of {r['answers']}" for r in one.values())),
        ("tokens an answer, mean", *(f"{r['tokens']:.0f}" for r in one.values())),
        ("critical path, mean", *(f"{r['critical_path']:.0f}" for r in one.values())),
        ("decode steps, mean", *(f"{r['steps']:.0f}" for r in one.values())),
        (f"latency, {sizes[0]} at once, s: median answer", *(of_runs(r["latency_s"], 3) for r in one.values())),
        ("tokens ÷ critical path", *(f"{r['tokens'] / r['critical_path']:.2f}" for r in one.values())),
    ])  # fmt: skip
    steps, serial_steps = one["parallel"]["steps"], one["serial"]["steps"]
    gained = one["serial"]["wall_s"]["median"] / one["parallel"]["wall_s"]["median"]
    lines += ["", f"Serial ÷ parallel, {sizes[0]} at once: steps × {serial_steps / steps:.2f} (the most that is to be gained), wall clock × {gained:.2f}.", "",
              "## Batches", "", "Requests at once (a closed loop). Wall clock from the first question to the last "
              "answer's end, and tokens a second over it.", ""]  # fmt: skip
    table_rows = [(size, at[size, "parallel"]["answers"], *(of_runs(at[size, way]["wall_s"], 1) for way in WAYS), *(of_runs(at[size, way]["tokens_per_s"], 0) for way in WAYS),
                   f"{at[size, 'serial']['wall_s']['median'] / at[size, 'parallel']['wall_s']['median']:.2f}") for size in sizes]  # fmt: skip
    lines += report.table(["at once", "answers", *(f"{way}, s" for way in WAYS), *(f"{way}, tokens/s" for way in WAYS), "serial ÷ parallel"], table_rows)
    if different := sum(r["differing"] for r in rows):
        lines += ["", f"{different} repeated answers had another number of tokens than in the first run."]
    if failed := sum(r["failed"] for r in rows):
        lines += ["", f"{failed} requests failed."]
    lines += ["", f"![Tokens a second against batch]({name}-batch.svg)", "", "## Latency against parallelism", "",
              f"One point an answer (median of its runs), {sizes[0]} at once; least squares: {line.slope:.3f} ÷ x + {line.offset:.3f} ms a token, x = tokens ÷ critical path. "
              f"The offset is {line.offset / line.slope:.2f} of the slope; the paper's line, 15.43 ÷ x + 0.60 … 2.14 ms on its machine, has {PAPER_OFFSETS[0]:.2f} to "
              f"{PAPER_OFFSETS[1]:.2f}. The offset is what a step costs more for each row, and what an answer costs besides its steps.", "",
              f"![Latency a token against parallelism]({name}-parallelism.svg)", "",
              "## Budgets", "", "Greedy answers cut off by max_tokens (all branches count), by the context (positions count: paths at once count as the longest), and by time "
              f"(latencies, {sizes[0]} at once). An answer without its last line is wrong. 95 % intervals.", ""]  # fmt: skip
    for title, key, field in (("max_tokens", "token_budgets", "budget"), ("context", "contexts", "context")):
        points = list(zip(result[key]["parallel"], result[key]["sequential"]))
        lines += [*report.table([title, "parallel", "sequential"], [(p[field], f"{p['value']:.0%} ({p['low']:.0%} to {p['high']:.0%})",
                  f"{s['value']:.0%} ({s['low']:.0%} to {s['high']:.0%})") for p, s in points]), ""]  # fmt: skip
    times = result["within_time"]
    ends = sorted({quantile([t for t, _ in times["parallel"]], q) for q in (0.1, 0.25, 0.5, 0.75, 1.0)})
    lines += [*report.table(["seconds", "parallel", "sequential"], [(f"{end:.2f}", *(f"{sum(t <= end for t, _ in times[way]) / one[way]['answers']:.0%}"
              for way in ("parallel", "sequential"))) for end in ends]), ""]  # fmt: skip
    return "\n".join([*lines, f"![Accuracy under budgets]({name}-budget.svg)", ""])


def arguments_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/experiment_tiny", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=64)
    parser.add_argument("--batches", default="1,2,4,8,16,32,64,128", metavar="LIST")
    parser.add_argument("--repeats", type=int, default=3, help="of the batches; budgets are greedy and asked once")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N")
    parser.add_argument("--work", type=Path, help="the answers, kept for a later run (default: build/experiments/tiny, or tiny-gpu)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/experiments")
    return parser


def main() -> int:
    arguments = arguments_parser().parse_args()
    name = "tiny" if arguments.device == "cpu" else "tiny-gpu"
    work, server_options = arguments.work or ROOT / "build/experiments" / name, ["--device", arguments.device]
    try:
        tokens, positions = token_budgets(work, arguments.problems, server_options), contexts(work, arguments.problems, server_options)
        rows = batches(work, numbers(arguments.batches, int), arguments.problems, arguments.repeats, server_options)
        smallest = min(r["batch"] for r in rows)
        points = [p for r in rows if r["batch"] == smallest and r["way"] != "serial" for p in r["points"]]
        result = {"about": about() | {"device": arguments.device}, "batches": rows, "line": vars(Line.through(points)),
                  "token_budgets": tokens, "contexts": positions, "within_time": within_time(work, smallest)}  # fmt: skip
    except (ServerError, evaluate.Stopped, evaluate.JournalError) as error:
        print(f"experiment_tiny: {error}", file=sys.stderr)
        return 1
    arguments.out.mkdir(parents=True, exist_ok=True)
    result["about"]["gpu_page"] = name == "tiny" and (arguments.out / "tiny-gpu.md").exists()
    draw(result, arguments.out, name)
    page = markdown(result, name)
    (arguments.out / f"{name}.md").write_text(page)
    for row in result["batches"]:
        del row["points"]  # thousands of them; the answers have them
    (arguments.out / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
