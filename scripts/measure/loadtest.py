"""Serving load: time to the first text, time between texts, and goodput under targets, against the offered load.

  scripts/loadtest --rates 0.5,1,2,4 --seconds 60 --seeds 1,2,3            # Poisson arrivals
  scripts/loadtest --closed 1,4,16 --workload lengths --traces answers.jsonl --model NAME --url http://host:8000

Poisson arrivals don't wait for answers, and times count from the planned arrival, so that a slow server can't slow its own test. In a
closed loop each of N clients sends its next request when the last is answered. Any OpenAI-style server; key: OPENAI_API_KEY."""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import math
import os
import platform
import random
import statistics
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from measure.client import Client, Refused, TryLater
from measure.report import command_line, table
from measure.statistics import quantile
from measure.tasks import Task, TaskError
from measure.text_tree import reader_for
from measure.workload import Questions, Request, Shapes, Workload, recorded_shapes, synthetic_shapes


@dataclass
class Outcome:
    """One request; times in seconds from the planned arrival."""

    arrival: float  # from the run's begin
    late: float = 0.0  # how much later the client sent it
    first: float | None = None  # to the first text
    last: float | None = None
    tokens: int = 0
    prompt: int = 0
    phases: list[tuple[int, int]] | None = None  # runs of (steps, rows), where the tokenizer is known
    gaps: list[float] = field(default_factory=list)  # between pieces of text
    error: str | None = None

    @property
    def per_token(self) -> float | None:
        """Mean time a token after the first text; None for a single token."""
        return (self.last - self.first) / (self.tokens - 1) if self.first is not None and self.tokens > 1 else None


@dataclass(frozen=True)
class Targets:
    first: float
    per_token: float

    def met(self, outcome: Outcome) -> bool:
        return outcome.error is None and outcome.first is not None and outcome.first <= self.first and (outcome.per_token or 0) <= self.per_token


def poisson_arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    generator = random.Random(seed)
    arrivals, now = [], generator.expovariate(rate)
    while now < seconds:
        arrivals.append(now)
        now += generator.expovariate(rate)
    return arrivals


async def send(client: Client, request: Request, begin: float, arrival: float, texts: dict[int, str]) -> Outcome:
    """The answer's text goes to `texts`, to be read when the test is over."""
    loop = asyncio.get_running_loop()
    outcome = Outcome(arrival, late=max(0.0, loop.time() - begin - arrival))
    planned = begin + arrival
    try:
        reply = await client.complete(request.route, request.body)
    except (TryLater, Refused) as error:
        outcome.error = str(error)
        return outcome
    outcome.tokens = reply.tokens or len(reply.times)
    outcome.prompt = reply.usage.get("prompt_tokens", 0)
    texts[id(outcome)] = reply.text
    outcome.last = reply.ended - planned
    if reply.times:
        outcome.first = reply.times[0] - planned
        outcome.gaps = [b - a for a, b in zip(reply.times, reply.times[1:])]
    return outcome


async def open_loop(client: Client, requests: Iterator[Request], arrivals: list[float], texts: dict[int, str]) -> list[Outcome]:
    loop = asyncio.get_running_loop()
    begin = loop.time() + 0.05
    tasks = []
    for arrival in arrivals:
        await asyncio.sleep(max(0.0, begin + arrival - loop.time()))
        tasks.append(asyncio.create_task(send(client, next(requests), begin, arrival, texts)))
    return list(await asyncio.gather(*tasks))


async def closed_loop(client: Client, requests: Iterator[Request], clients: int, seconds: float, texts: dict[int, str]) -> list[Outcome]:
    loop = asyncio.get_running_loop()
    begin = loop.time()
    outcomes: list[Outcome] = []

    async def one() -> None:
        while (now := loop.time() - begin) < seconds:
            outcomes.append(await send(client, next(requests), begin, now, texts))
            if outcomes[-1].error:
                await asyncio.sleep(0.1)  # a refusing server is not to be hammered

    await asyncio.gather(*(one() for _ in range(clients)))
    return outcomes


def summarise(outcomes: list[Outcome], seconds: float, warmup: float, targets: Targets) -> dict:
    """Figures of the requests that arrived after the warm-up; rates over the time after it, until the last of them was
    answered for tokens, of arrivals for goodput."""
    counted = [o for o in outcomes if o.arrival >= warmup]
    good = [o for o in counted if o.error is None and o.last is not None]
    window = seconds - warmup
    end = max((o.arrival + o.last for o in good), default=seconds)
    met = sum(targets.met(o) for o in counted)
    milliseconds = lambda values: {f"p{round(100 * q)}": 1000 * quantile(values, q) if values else None for q in (0.5, 0.9, 0.99)}  # noqa: E731
    return {
        "requests": len(counted),
        "failed": len(counted) - len(good),
        "first_failure": next((o.error for o in counted if o.error), None),
        "offered_per_second": len(counted) / window,
        "answered_per_second": len(good) / max(window, end - warmup) if good else 0.0,
        "tokens_per_second": sum(o.tokens for o in good) / max(window, end - warmup) if good else 0.0,
        "goodput_per_second": met / window,
        "share_within_targets": met / len(counted) if counted else 0.0,
        "first_text_ms": milliseconds([o.first for o in good if o.first is not None]),
        "between_texts_ms": milliseconds([gap for o in good for gap in o.gaps]),
        "per_token_ms": milliseconds([o.per_token for o in good if o.per_token is not None]),
        "whole_ms": milliseconds([o.last for o in good]),
        "tokens": statistics.fmean(o.tokens for o in good) if good else 0.0,
        "client_late_ms": 1000 * max((o.late for o in counted), default=0.0),
    }


def spread(runs: list[dict], *keys: str) -> tuple[float, float, float] | None:
    """min, median, max over the seeds' runs that have the figure."""
    values = [value for run in runs if (value := functools.reduce(lambda part, key: part[key], keys, run)) is not None]
    return (min(values), statistics.median(values), max(values)) if values else None


def markdown(result: dict) -> str:
    about = result["about"]
    lines = [f"# Load test of {about['model']}", "", f"{about['workload']}, {about['seconds']:.0f} s a run of which {about['warmup']:.0f} s warm-up, "
             f"seeds {', '.join(map(str, about['seeds']))}. {about['machine']}. Made by `{about['command']}`.", "",
             f"Targets: first text within {1000 * about['targets']['first']:.0f} ms, then {1000 * about['targets']['per_token']:.0f} ms a token. Each figure: the "
             "median of the seeds (least to most).", ""]  # fmt: skip

    def cell(runs, *keys, digits=0):
        if (found := spread(runs, *keys)) is None:
            return ""
        low, median, high = found
        return f"{median:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"

    head = [about["load"], "offered / s", "answered / s", "tokens / s", "within targets / s", "first text p50 ms", "p99 ms", "between texts p50 ms",
            "p99 ms", "a token p50 ms", "failed"]  # fmt: skip
    rows = [(level["load"], cell(runs, "offered_per_second", digits=2), cell(runs, "answered_per_second", digits=2), cell(runs, "tokens_per_second"),
             cell(runs, "goodput_per_second", digits=2), cell(runs, "first_text_ms", "p50"), cell(runs, "first_text_ms", "p99"),
             cell(runs, "between_texts_ms", "p50", digits=1), cell(runs, "between_texts_ms", "p99", digits=1), cell(runs, "per_token_ms", "p50", digits=2),
             sum(run["failed"] for run in runs)) for level in result["levels"] for runs in [level["runs"]]]  # fmt: skip
    lines += table(head, rows)
    late = max(run["client_late_ms"] for level in result["levels"] for run in level["runs"])
    lines += ["", f"The client itself sent a request at most {late:.0f} ms late" + ("; above 50 ms it is the client that was measured." if late > 50 else ".")]
    if failures := [run["first_failure"] for level in result["levels"] for run in level["runs"] if run["first_failure"]]:
        lines += ["", f"The first failure: {failures[0]}"]
    return "\n".join([*lines, "", "![Latency and goodput against load](load.svg)", ""])


def plot(result: dict, path: Path) -> None:
    from measure import plots

    levels = result["levels"]
    load = [level["load"] for level in levels]
    drawn, (left, right) = plots.plt.subplots(1, 2, figsize=(9.6, 3.8), layout="constrained")
    for axes, names in ((left, [("first_text_ms", "p50"), ("first_text_ms", "p99"), ("per_token_ms", "p50"), ("per_token_ms", "p99")]),
                        (right, [("offered_per_second",), ("answered_per_second",), ("goodput_per_second",)])):  # fmt: skip
        for keys in names:
            low, median, high = zip(*(spread(level["runs"], *keys) or (math.nan,) * 3 for level in levels))
            line = axes.plot(load, median, marker="o", label=" ".join(keys).replace("_", " "))[0]
            axes.fill_between(load, low, high, alpha=0.15, color=line.get_color())
        axes.set_xlabel(result["about"]["load"])
        axes.grid(alpha=0.3)
        axes.legend()
    left.set_ylabel("ms")
    left.set_yscale("log")
    right.set_ylabel("requests a second")
    plots.save(drawn, path)


def machine() -> str:
    """This machine, and how busy it is: figures of a busy machine say so."""
    name = platform.machine()
    try:
        name = next(line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"Client on {os.cpu_count()} × {name}, load average {os.getloadavg()[0]:.1f} before the test"


def make_workload(arguments: argparse.Namespace, model: str) -> Workload:
    if arguments.workload == "questions":
        return Questions(model, Task.load(arguments.task), arguments.data, arguments.wording)
    if arguments.traces:
        shapes = recorded_shapes(arguments.traces, reader_for(arguments.tokenizer))
    else:
        shapes = synthetic_shapes(500, seed=0)
    return Shapes(model, shapes, arguments.workload == "trees", arguments.scale)


def numbers(text: str, kind=float) -> list:
    return [kind(part) for part in text.split(",") if part]


def arguments_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/loadtest", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--model", help="default: the first that the server names")
    load = parser.add_mutually_exclusive_group(required=True)
    load.add_argument("--rates", metavar="LIST", help="requests a second, Poisson")
    load.add_argument("--closed", metavar="LIST", help="clients that wait for their answers")
    parser.add_argument("--seconds", type=float, default=60, help="of arrivals, a run")
    parser.add_argument("--warmup", type=float, help="seconds at the begin that don't count (default: a tenth)")
    parser.add_argument("--seeds", default="1,2,3", metavar="LIST")
    parser.add_argument("--workload", choices=["questions", "lengths", "trees"], default="questions",
                        help="a task's questions; lengths of recorded answers; their first forks too (/v1/completions of our server)")  # fmt: skip
    parser.add_argument("--task", default="tiny")
    parser.add_argument("--data", type=Path, help="the task's problems")
    parser.add_argument("--wording", default="parallel")
    parser.add_argument("--traces", type=Path, help="recorded answers as JSON lines (default: synthetic ones like Multiverse-32B's)")
    parser.add_argument("--tokenizer", help="the model's folder: lengths of --traces, and trees of the answers for scripts/simulate_fleet")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on recorded lengths")
    parser.add_argument("--target-first", type=float, default=500, metavar="MS")
    parser.add_argument("--target-token", type=float, default=50, metavar="MS")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for one answer")
    parser.add_argument("--out", type=Path, default=Path("evaluations/loadtest"))
    return parser


async def loadtest(arguments: argparse.Namespace) -> dict:
    levels = numbers(arguments.rates) if arguments.rates else numbers(arguments.closed, int)
    seeds = numbers(arguments.seeds, int)
    warmup = arguments.warmup if arguments.warmup is not None else arguments.seconds / 10
    targets = Targets(arguments.target_first / 1000, arguments.target_token / 1000)
    loop = asyncio.get_running_loop()
    async with Client(arguments.url, os.environ.get("OPENAI_API_KEY"), arguments.timeout, connections=0, clock=loop.time) as client:
        model = arguments.model or (await client.models())[0]
        workload = make_workload(arguments, model)
        reader = reader_for(arguments.tokenizer)
        about = {"model": model, "url": arguments.url, "workload": arguments.workload, "seconds": arguments.seconds, "warmup": warmup, "seeds": seeds,
                 "load": "requests / s" if arguments.rates else "clients", "targets": asdict(targets), "machine": machine(),
                 "command": command_line("scripts/loadtest")}  # fmt: skip
        result = {"about": about, "levels": [], "outcomes": []}
        for level in levels:
            runs = []
            for seed in seeds:
                requests = workload.requests(seed)
                texts: dict[int, str] = {}
                if arguments.rates:
                    outcomes = await open_loop(client, requests, poisson_arrivals(level, arguments.seconds, seed), texts)
                else:
                    outcomes = await closed_loop(client, requests, level, arguments.seconds, texts)
                for outcome in outcomes if reader.exact else []:
                    outcome.phases = reader.rows(texts.get(id(outcome), ""))
                runs.append(summarise(outcomes, arguments.seconds, warmup, targets))
                result["outcomes"] += [{"load": level, "seed": seed, "arrival": round(o.arrival, 4), "first": o.first, "last": o.last, "tokens": o.tokens,
                                        "prompt": o.prompt, "phases": o.phases, "error": o.error} for o in outcomes]  # fmt: skip
                print(f"{about['load']} {level}, seed {seed}: {runs[-1]['requests']} requests, {runs[-1]['failed']} failed, within targets "
                      f"{runs[-1]['share_within_targets']:.0%}", file=sys.stderr)  # fmt: skip
            result["levels"].append({"load": level, "runs": runs})
    return result


def main() -> int:
    arguments = arguments_parser().parse_args()
    try:
        result = asyncio.run(loadtest(arguments))
    except (TaskError, TryLater, Refused) as error:
        print(f"loadtest: {arguments.url}: {error}", file=sys.stderr)
        return 1
    arguments.out.mkdir(parents=True, exist_ok=True)
    with open(arguments.out / "outcomes.jsonl", "w") as lines:
        lines.writelines(json.dumps(outcome) + "\n" for outcome in result.pop("outcomes"))
    (arguments.out / "report.json").write_text(json.dumps(result, indent=1) + "\n")
    (arguments.out / "report.md").write_text(markdown(result))
    plot(result, arguments.out / "load.svg")
    print(markdown(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
