"""Sizes a service on paper: 1 to 1,000 replicas with measured step times and the trees of real answers, under three ways of routing,
with failures and rolling restarts.

  scripts/simulate_fleet --steps steps.json --replicas 1,10,100 --load 0.5,0.8 --traces answers.jsonl
  scripts/simulate_fleet --steps steps.json --compare evaluations/loadtest     # one replica against a measured load test

steps.json: {"rows": [1, 8, 64], "ms": [20.9, 21.5, 24.3], "prefill_ms_per_token": 0.05, "read_ms_per_token": 0.0001,
             "from": "what was measured, where"}"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
from pathlib import Path

from measure.fleet import ROUTERS, Fleet, Outcome, Replica, StepTimes, Trouble, Work
from measure.loadtest import numbers
from measure.report import command_line, table
from measure.statistics import quantile
from measure.tasks import TaskError
from measure.text_tree import reader_for
from measure.workload import Shape, recorded_shapes, synthetic_shapes


def load_steps(path: Path) -> tuple[StepTimes, str]:
    try:
        data = json.loads(path.read_text())
        per_token = [data.get(name, 0.0) / 1000 for name in ("prefill_ms_per_token", "read_ms_per_token")]
        times = StepTimes(tuple(data["rows"]), tuple(ms / 1000 for ms in data["ms"]), *per_token)
        return times, data.get("from", str(path))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TaskError(f"{path} holds no step times ({type(error).__name__} {error}); see scripts/simulate_fleet --help") from error


def capacity(spec: Replica, shapes: list[Shape]) -> float:
    """Requests a second that one replica can end at most: with its rows, or its cache, full all the time."""
    row_steps = sum(s.tokens for s in shapes) / len(shapes)
    critical = sum(steps for s in shapes for steps, _ in s.phases) / len(shapes)
    held = sum((s.prompt + s.tokens) for s in shapes) / len(shapes)
    at_once = (spec.cache_tokens - spec.prefix_tokens) / held
    rows = min(spec.max_rows, at_once * row_steps / critical)
    prompt = sum(s.prompt for s in shapes) / len(shapes)
    # Half of an answer is written, on average; its paths read the same prompt.
    read = rows * critical / row_steps * (prompt + row_steps / 2)
    return 1 / (row_steps * spec.times.step(round(rows), read) / rows + prompt * spec.times.prefill_token)


def make_works(shapes: list[Shape], rate: float, count: int, prefixes: int, prefix_tokens: int, seed: int) -> list[Work]:
    """Poisson arrivals; prompts begin with one of `prefixes` texts, popular ones (Zipf) more often."""
    generator = random.Random(seed)
    weights = list(itertools.accumulate(1 / (i + 1) for i in range(prefixes)))
    works, now = [], 0.0
    for _ in range(count):
        now += generator.expovariate(rate)
        shape = generator.choice(shapes)
        prefix = generator.choices(range(prefixes), cum_weights=weights)[0] if prefixes else 0
        works.append(Work(now, shape.prompt + prefix_tokens, shape.phases, prefix, prefix_tokens))
    return works


def summarise(out: Outcome, targets: tuple[float, float], price: float) -> dict:
    """Latencies of the requests that ended; `targets`: seconds to the first token, and a token of the critical path after it."""
    ended = [w for w in out.works if w.end is not None]
    first = [w.first - w.arrival for w in ended]
    pace = [(w.end - w.first) / max(1, w.steps - 1) for w in ended]
    met = sum(f <= targets[0] and p <= targets[1] for f, p in zip(first, pace))
    last = max(w.arrival for w in out.works)
    span = max(last, max((w.end for w in ended), default=0.0))
    tokens = sum(w.tokens for w in ended)
    replicas = len(out.replicas)
    busy = sum(r.busy for r in out.replicas)
    return {
        "requests": len(out.works),
        "refused": sum(w.refused for w in out.works),
        "within_targets": met / len(out.works),
        "goodput_per_second": met / span,
        "tokens_per_second": tokens / span,
        "first_ms": [1000 * quantile(first, q) for q in (0.5, 0.99)],
        "pace_ms": [1000 * quantile(pace, q) for q in (0.5, 0.99)],
        "whole_s": [quantile([w.end - w.arrival for w in ended], q) for q in (0.5, 0.99)],
        "dollars_per_million_tokens": price * replicas * span / 3600 / (tokens / 1e6) if tokens else None,
        "busy": busy / (replicas * span),
        "rows_when_busy": sum(r.row_seconds for r in out.replicas) / busy if busy else 0.0,
        "prefill_share": sum(r.prefill_seconds for r in out.replicas) / busy if busy else 0.0,
        "prefix_hits": 1 - sum(w.prefilled for w in out.works) / max(1, sum(w.prompt * max(1, w.tries) for w in out.works)),
        "tries": sum(w.tries for w in out.works) / len(out.works),
        "queue_peak": out.queue_peak,
        "failures": out.failures,
        "restarts": out.restarts,
    }


def bottleneck(result: dict, spec: Replica, mean_held: float) -> str:
    """What would be full first if the load grew."""
    held = result["rows_when_busy"] * mean_held / (spec.cache_tokens - spec.prefix_tokens)
    shares = {"rows": result["rows_when_busy"] / spec.max_rows, "cache": held, "prefill": result["prefill_share"]}
    name = max(shares, key=shares.get)
    return f"{name} ({shares[name]:.0%})"


def compare(folder: Path, spec: Replica) -> list[tuple[str, float, float]]:
    """(figure, measured, simulated) of one replica under a load test's own arrivals and trees. Its workload must have been greedy questions,
    with the outcomes' phases known."""
    lines = [json.loads(line) for line in (folder / "outcomes.jsonl").read_text().splitlines()]
    groups: dict[tuple, list[dict]] = {}
    for line in lines:
        if line["error"] is None and line.get("phases"):
            groups.setdefault((line["load"], line["seed"]), []).append(line)
    if not groups:
        raise TaskError(f"{folder}/outcomes.jsonl has no answer with phases; run the load test with --tokenizer DIR of the model")
    out = []
    for (load, seed), measured in sorted(groups.items()):
        works = [Work(m["arrival"], m["prompt"], tuple(map(tuple, m["phases"]))) for m in sorted(measured, key=lambda m: m["arrival"])]
        Fleet(1, spec, "random").run(works)
        for q in (0.5, 0.9):
            out.append((f"{load} / s, seed {seed}: whole answer p{100 * q:.0f}, s", quantile([m["last"] for m in measured], q),
                        quantile([w.end - w.arrival for w in works], q)))  # fmt: skip
    return out


def arguments_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/simulate_fleet", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=Path, required=True, help="measured step times")
    parser.add_argument("--replicas", default="1,10,100", metavar="LIST")
    parser.add_argument("--routers", default=",".join(ROUTERS), metavar="LIST")
    parser.add_argument("--load", default="0.7", metavar="LIST", help="offered load as a share of what the replicas can do at most")
    parser.add_argument("--requests", type=int, default=200, help="for each replica")
    parser.add_argument("--traces", type=Path, help="recorded answers as JSON lines (default: synthetic ones like Multiverse-32B's)")
    parser.add_argument("--tokenizer", help="folder of the tokenizer for --traces")
    parser.add_argument("--prefixes", type=int, default=100, help="texts that prompts begin with; Zipf")
    parser.add_argument("--prefix-tokens", type=int, default=2000)
    parser.add_argument("--max-rows", type=int, default=512)
    parser.add_argument("--cache-tokens", type=int, default=1_000_000)
    parser.add_argument("--start-seconds", type=float, default=60)
    parser.add_argument("--mean-hours-between-failures", type=float, help="of one replica (default: none fail)")
    parser.add_argument("--rolling-restart", type=float, metavar="S", help="begins S seconds in")
    parser.add_argument("--at-once", type=int, default=1, help="replicas restarted at once")
    parser.add_argument("--price", type=float, default=2.0, help="of a replica an hour")
    parser.add_argument("--target-first", type=float, default=2000, metavar="MS")
    parser.add_argument("--target-step", type=float, default=50, metavar="MS", help="a token of the critical path")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compare", type=Path, metavar="FOLDER", help="of a load test: simulate its arrivals on one replica")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser


def simulate(arguments: argparse.Namespace) -> str:
    times, source = load_steps(arguments.steps)
    spec = Replica(times, arguments.max_rows, arguments.cache_tokens, min(arguments.cache_tokens // 5, 200_000), arguments.start_seconds)
    if arguments.compare:
        rows = compare(arguments.compare, spec)
        return "\n".join(table(["", "measured", "simulated", "difference"], [(n, f"{m:.3f}", f"{s:.3f}", f"{s / m - 1:+.0%}") for n, m, s in rows]))
    shapes = recorded_shapes(arguments.traces, reader_for(arguments.tokenizer)) if arguments.traces else synthetic_shapes(500, 0)
    shapes = [shape for shape in shapes if shape.phases]
    whole = [Shape(s.prompt + arguments.prefix_tokens, s.tokens, phases=s.phases) for s in shapes]
    most = capacity(spec, whole)
    mean_held = sum(s.prompt + s.tokens for s in whole) / sum(s.tokens for s in whole) * sum(steps for s in whole for steps, _ in s.phases) / len(whole)
    failures = 3600 * arguments.mean_hours_between_failures if arguments.mean_hours_between_failures else None
    rows, figures = [], []
    for count, load, router in itertools.product(numbers(arguments.replicas, int), numbers(arguments.load), arguments.routers.split(",")):
        works = make_works(shapes, load * most * count, arguments.requests * count, arguments.prefixes, arguments.prefix_tokens, arguments.seed)
        trouble = Trouble(failures, rolling_restart_at=arguments.rolling_restart, at_once=arguments.at_once)
        one = summarise(Fleet(count, spec, router, arguments.seed).run(works, trouble), (arguments.target_first / 1000, arguments.target_step / 1000), arguments.price)
        figures.append({"replicas": count, "load": load, "router": router, **one})
        rows.append((count, f"{load:.0%}", router, f"{one['within_targets']:.1%}", f"{one['tokens_per_second']:,.0f}", f"{one['first_ms'][0]:,.0f} / {one['first_ms'][1]:,.0f}",
                     f"{one['pace_ms'][0]:.1f} / {one['pace_ms'][1]:.1f}", f"{one['whole_s'][0]:.1f} / {one['whole_s'][1]:.1f}", f"{one['prefix_hits']:.0%}",
                     f"{one['dollars_per_million_tokens']:.2f}", f"{one['busy']:.0%}", f"{one['rows_when_busy']:.0f}", bottleneck(one, spec, mean_held),
                     f"{one['failures']} / {one['restarts']}"))  # fmt: skip
    if arguments.json:
        arguments.json.write_text(json.dumps({"command": command_line("scripts/simulate_fleet"), "steps": source, "most_per_replica": most, "figures": figures}, indent=1) + "\n")
    head = ["replicas", "load", "routing", "within targets", "tokens / s", "first token ms, p50 / p99", "a step ms, p50 / p99", "answer s, p50 / p99", "prompt tokens found",
            "price a million tokens", "busy", "rows", "fullest", "failures / restarts"]  # fmt: skip
    lines = [f"Step times: {source}. A replica ends at most {most:.3f} requests a second. Simulated by `{command_line('scripts/simulate_fleet')}`.", "", *table(head, rows)]
    return "\n".join(lines)


def main() -> int:
    arguments = arguments_parser().parse_args()
    if unknown := set(arguments.routers.split(",")) - set(ROUTERS):
        print(f"simulate_fleet: --routers {', '.join(unknown)}: known are {', '.join(ROUTERS)}", file=sys.stderr)
        return 2
    try:
        print(simulate(arguments))
    except TaskError as error:
        print(f"simulate_fleet: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
