"""multiverse-tiny behind our server and behind others, on this machine, in one run: parallel reasoning by our engine against the same
by a client that orchestrates it, as users of servers without forks must: n requests with a common prefix for a fork, and the whole text
sent again for a join.

  scripts/peers                                            # ours, and a server around transformers' generation
  scripts/peers --peer llama.cpp=http://127.0.0.1:8080     # and any OpenAI-style server of the same model that runs already

One question at a time; a peer needs /v1/completions with `stop`, greedy, control tokens shown in its text. Writes docs/experiments/peers.md."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from measure.answers import Checker, extract
from measure.client import Client, Refused, TryLater
from measure.experiment_tiny import about
from measure.local_server import ROOT, TINY, LocalServer, ServerError
from measure.report import command_line, table
from measure.statistics import quantile
from measure.tasks import Problem, Task, chosen

GOAL, GOAL_END, PATH_END = "<Goal>", "</Goal>", "</Path>"
_LABEL = re.compile(r"<Outline>\s*([\d.]+):")
MAX_DEPTH = 4


@dataclass
class Spent:
    """What an answer took."""

    requests: int = 0
    prompt_tokens: int = 0  # sent, found in a cache or not
    tokens: int = 0  # generated


class Orchestrator:
    """Forks and joins on the client's side."""

    def __init__(self, client: Client, common: dict, max_tokens: int):
        self._client, self._common, self._max_tokens = client, common, max_tokens

    async def answer(self, prompt: str) -> tuple[str, Spent]:
        spent = Spent()
        return await self._continue(prompt, [GOAL_END], spent, 0), spent

    async def _complete(self, prompt: str, stops: list[str], spent: Spent) -> tuple[str, bool]:
        """The text up to a stop, and whether one ended it (the model's own end is one too)."""
        left = self._max_tokens - spent.tokens
        if left < 1:
            return "", False
        body = self._common | {"prompt": prompt, "stop": stops, "max_tokens": left, "temperature": 0}
        reply = await self._client.complete("completions", body)
        spent.requests += 1
        spent.prompt_tokens += reply.usage.get("prompt_tokens", 0)
        spent.tokens += reply.tokens or 0
        return reply.text, reply.finish_reason == "stop"

    async def _continue(self, prompt: str, stops: list[str], spent: Spent, depth: int) -> str:
        """What the branch writes after `prompt`, without the stop that ends it."""
        written = ""
        while True:
            text, stopped = await self._complete(prompt + written, stops, spent)
            written += text
            labels = _LABEL.findall(text[text.rfind(GOAL) :]) if stopped and text.rfind(GOAL) > text.rfind(GOAL_END) else []
            if not labels or depth == MAX_DEPTH:
                return written
            written += GOAL_END + "\n"
            before = prompt + written
            paths = await asyncio.gather(*(self._path(before, label, spent, depth + 1) for label in labels))
            written += "".join(paths) + "<Conclusion>\n"

    async def _path(self, before: str, label: str, spent: Spent, depth: int) -> str:
        head = f"<Path>\n{label}:"
        return head + await self._continue(before + head, [PATH_END, GOAL_END], spent, depth) + PATH_END + "\n"


@dataclass(frozen=True)
class Way:
    name: str
    server: str
    wording: str
    orchestrated: bool
    extension: dict


def ways(peers: list[str]) -> list[Way]:
    out = [Way("ours, forks by the engine", "ours", "parallel", False, {"multiverse": {"mode": "parallel"}}),
           Way("ours, sequential wording", "ours", "sequential", False, {"multiverse": {"mode": "off"}}),
           Way("ours, forks by the client", "ours", "parallel", True, {"multiverse": {"mode": "off"}})]  # fmt: skip
    for peer in peers:
        out += [Way(f"{peer}, sequential wording", peer, "sequential", False, {}), Way(f"{peer}, forks by the client", peer, "parallel", True, {})]
    return out


def prompt_of(question: str) -> str:
    """multiverse-tiny's chat template, written out: peers get the very same text."""
    return f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"


async def run_way(way: Way, client: Client, model: str, task: Task, problems: list[Problem], checker: Checker) -> dict:
    common, seconds, right, spent = {"model": model} | way.extension, [], 0, Spent()
    for problem in problems:
        prompt = prompt_of(task.prompt(problem, way.wording))
        orchestrator = Orchestrator(client, common, task.max_tokens)
        begin = time.monotonic()
        if way.orchestrated:
            text, took = await orchestrator.answer(prompt)
        else:
            took = Spent()
            text, _ = await orchestrator._complete(prompt, [], took)
        seconds.append(time.monotonic() - begin)
        right += checker.same(extract(text, task.kind), problem.answer, task.kind)
        for name in vars(spent):
            setattr(spent, name, getattr(spent, name) + getattr(took, name))
    return {"way": way.name, "right": right, "answers": len(problems), "seconds": seconds, **vars(spent)}


async def run_all(urls: dict[str, str], all_ways: list[Way], problems: int, repeats: int) -> list[dict]:
    task = Task.load("tiny")
    asked = chosen(task.problems(None, 0), problems)
    checker, runs = Checker(), {way.name: [] for way in all_ways}
    try:
        for repeat in range(repeats + 1):  # the first warms up, with one question
            for way in all_ways:
                async with Client(urls[way.server], os.environ.get("OPENAI_API_KEY")) as client:
                    model = (await client.models())[0]
                    done = await run_way(way, client, model, task, asked if repeat else asked[:1], checker)
                if repeat:
                    runs[way.name].append(done)
                    print(f"{way.name}: {statistics.fmean(done['seconds']):.2f} s an answer, {done['right']} of {done['answers']} right", file=sys.stderr)
    finally:
        checker.close()
    return [figures(mine) for mine in runs.values()]


def figures(runs: list[dict]) -> dict:
    first = runs[0]
    count = first["answers"]
    medians = [quantile(run["seconds"], 0.5) for run in runs]
    return {"way": first["way"], "right": first["right"], "answers": count, "latency_s": {"min": min(medians), "median": quantile(medians, 0.5), "max": max(medians)},
            "requests": first["requests"] / count, "prompt_tokens": first["prompt_tokens"] / count, "tokens": first["tokens"] / count}  # fmt: skip


def markdown(result: dict) -> str:
    here, rows = result["about"], result["ways"]
    ours = rows[0]["latency_s"]["median"]
    lines = ["# multiverse-tiny behind several servers", "",
             f"Written by `{here['command']}` on {here['machine']}, commit {here['commit']}, load average {here['load'][0]:.1f} before, {here['load'][1]:.1f} after; all servers on this "
             f"machine, {here['threads']} threads each, one question at a time, greedy. Latency: the median answer; median of {here['repeats']} runs in turn (least to most).", ""]  # fmt: skip
    lines += table(["", "right", "latency, s", "× the first", "requests an answer", "prompt tokens sent", "tokens generated"],
                   [(r["way"], f"{r['right']} of {r['answers']}", f"{r['latency_s']['median']:.3f} ({r['latency_s']['min']:.3f} to {r['latency_s']['max']:.3f})",
                     f"{r['latency_s']['median'] / ours:.2f}", f"{r['requests']:.1f}", f"{r['prompt_tokens']:,.0f}", f"{r['tokens']:.0f}") for r in rows])  # fmt: skip
    lines += ["", "\"Forks by the client\": n requests with a common prefix for a fork, and all of the text sent again for a join. Then positions run on through all paths, where the "
              "model was trained with paths beside each other, so that answers may differ.", "",
              "\"transformers\" is the small server of scripts/measure/transformers_server.py (float32; paths of a fork as one batch, keys and values of the last prompt kept). "
              "Not run: `transformers serve`, whose web packages the tests' environment lacks, and llama.cpp: PyPI has llama-cpp-python as source alone, and no converter of "
              "this model to its format was tried. `--peer NAME=URL` takes either where it runs.", ""]  # fmt: skip
    return "\n".join(lines)


def arguments_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=URL", help="another server of the same model")
    parser.add_argument("--without-transformers", action="store_true")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/experiments")
    return parser


def main() -> int:
    arguments = arguments_parser().parse_args()
    urls = dict(peer.split("=", 1) for peer in arguments.peer)
    work, threads, load = ROOT / "build/experiments/peers", str(arguments.threads), os.getloadavg()[0]
    servers = []
    try:
        servers.append(LocalServer(work / "ours.log", "--threads", threads))
        if not arguments.without_transformers:
            command = [str(ROOT / "build/deps/venv/bin/python"), str(Path(__file__).with_name("transformers_server.py")), "--model", str(TINY), "--threads", threads]
            servers.append(LocalServer(work / "transformers.log", command=command))
        urls = {"ours": servers[0].url} | ({"transformers": servers[1].url} if len(servers) > 1 else {}) | urls
        rows = asyncio.run(run_all(urls, ways([name for name in urls if name != "ours"]), arguments.problems, arguments.repeats))
    except (ServerError, Refused, TryLater) as error:
        print(f"peers: {error}", file=sys.stderr)
        return 1
    finally:
        for server in servers:
            server.__exit__()
    here = about() | {"command": command_line("scripts/peers"), "load": [load, os.getloadavg()[0]], "repeats": arguments.repeats, "threads": arguments.threads}
    result = {"about": here, "ways": rows}
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "peers.json").write_text(json.dumps(result, indent=1) + "\n")
    (arguments.out / "peers.md").write_text(markdown(result))
    print(markdown(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
