"""Asks an OpenAI-style server the problems of a task and reports how many answers are right and what they took.

  scripts/evaluate tiny --wording parallel,sequential --samples 4
  scripts/evaluate aime24 --data problems.jsonl --url http://host:8000 --model NAME --concurrency 32

Every answer goes to OUT/answers.jsonl at once; the same command again asks only what is missing. The report is OUT/report.md,
report.json and plots beside it. The key of a server that wants one: OPENAI_API_KEY."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import itertools
import json
import os
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from measure import report
from measure.answers import Checker, extract
from measure.client import Client, Refused, Reply, TryLater
from measure.journal import Journal, JournalError
from measure.progress import Display, Progress
from measure.tasks import Problem, Task, TaskError, chosen, sample_seed
from measure.text_tree import Reader, reader_for


@dataclass(frozen=True)
class Variant:
    """One way to ask; answers of different variants are compared."""

    wording: str
    mode: str | None  # of our server's extension; None: not sent
    budget: int  # max_tokens

    @property
    def name(self) -> str:
        return " ".join([self.wording, *([self.mode] if self.mode else []), f"≤{self.budget}"])


@dataclass(frozen=True)
class Job:
    problem: Problem
    variant: Variant
    sample: int

    @property
    def key(self) -> tuple[str, str, int]:
        return self.problem.id, self.variant.name, self.sample


@dataclass(frozen=True)
class Settings:
    """What an answer depends on. A folder's answers all have the same."""

    task: str
    model: str
    temperature: float
    top_p: float | None
    seed: int
    system: str | None
    template: str


class Stopped(Exception):
    """The run ended early; what is missing can be asked later."""


class Evaluation:
    """Asks the jobs that the journal lacks, `concurrency` at a time."""

    def __init__(self, client: Client, task: Task, settings: Settings, journal: Journal, reader: Reader, checker: Checker, stream: bool,
                 patience: float):  # fmt: skip
        self._client, self._task, self._settings, self._journal = client, task, settings, journal
        self._reader, self._checker, self._stream, self._patience = reader, checker, stream, patience

    async def run(self, jobs: list[Job], concurrency: int, display: Display | None = None) -> None:
        done = {(r["problem"], r["variant"], r["sample"]) for r in self._journal.records}
        waiting = deque(job for job in jobs if job.key not in done)
        progress = Progress(len(jobs), len(jobs) - len(waiting), concurrency)

        async def work() -> None:
            while waiting:
                job = waiting.popleft()
                progress.begin(job.key)
                record = await self._answer(job)
                self._journal.append(record)
                progress.end(job.key)

        async def show() -> None:
            while display:
                display.show(progress.line())
                await asyncio.sleep(0.2)

        shown = asyncio.create_task(show())
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(concurrency, len(waiting))):
                    group.create_task(work())
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            shown.cancel()
            if display:
                display.show(progress.line(), last=True)

    async def _answer(self, job: Job) -> dict:
        record = {"problem": job.problem.id, "variant": job.variant.name, "sample": job.sample, "family": job.problem.family,
                  "expected": job.problem.answer, "seed": sample_seed(self._settings.seed, job.problem.id, job.sample)}  # fmt: skip
        try:
            reply = await self._ask(self._body(job, record["seed"]))
        except Refused as error:
            return record | {"error": str(error), "right": False}
        ended_at = round(time.time(), 4)  # seconds since 1970: how long a whole run took, over restarts of this program
        text = (f"<think>{reply.reasoning}</think>" if reply.reasoning else "") + reply.text
        answer = extract(text, self._task.kind)
        right = await asyncio.to_thread(self._checker.same, answer, job.problem.answer, self._task.kind)
        return record | {"answer": answer, "right": right, "ended_at": ended_at} | figures(reply, text, self._reader) | {"text": text}

    async def _ask(self, body: dict) -> Reply:
        """Tries again while the server is away or busy, for `patience` seconds."""
        deadline, pause = time.monotonic() + self._patience, 0.5
        while True:
            try:
                return await self._client.complete("chat/completions", body)
            except TryLater as error:
                pause = error.seconds if error.seconds is not None else min(2 * pause, 30.0)
                if time.monotonic() + pause > deadline:
                    raise Stopped(f"{self._client.url} gave no answer for {self._patience:.0f} s: {error}") from error
                await asyncio.sleep(pause)

    def _body(self, job: Job, seed: int) -> dict:
        settings = self._settings
        messages = [{"role": "system", "content": settings.system}] if settings.system else []
        messages.append({"role": "user", "content": self._task.prompt(job.problem, job.variant.wording)})
        body = {"model": settings.model, "messages": messages, "temperature": settings.temperature, "max_tokens": job.variant.budget, "seed": seed}
        if settings.top_p is not None:
            body["top_p"] = settings.top_p
        if job.variant.mode:
            body["multiverse"] = {"mode": job.variant.mode}
        if self._stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return body


def figures(reply: Reply, text: str, reader: Reader) -> dict:
    """What an answer took: counted by the server where it does so, else read from the text."""
    counts = reply.parallel
    source = "server"
    if counts is None:
        counts = dataclasses.asdict(reader.counts(text, reply.tokens))
        source = "text" if reader.exact else "estimate"
    tokens = reply.tokens if reply.tokens is not None else counts.get("tokens", 0)
    names = ("blocks", "paths", "max_width", "max_depth", "critical_path_tokens", "steps", "malformed")
    return {
        "finish_reason": reply.finish_reason,
        "tokens": tokens,
        **{name: counts[name] for name in names},
        "counted_by": source,
        "seconds": round(reply.ended - reply.started, 4),
        "first_text_seconds": round(reply.times[0] - reply.started, 4) if reply.times else None,
    }


def arguments_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", help="aime24, aime25, math500, gpqa-diamond, tiny, or a task's .json file")
    parser.add_argument("--data", type=Path, help="the problems as .jsonl, .json or .csv (default: the task's file, or the hub by name)")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--model", help="default: the first that the server names")
    parser.add_argument("--samples", type=int, default=1, metavar="K", help="answers to each problem (pass@1 and maj@K)")
    parser.add_argument("--wording", default="parallel", metavar="LIST", help="parallel, sequential or both, with commas")
    parser.add_argument("--mode", default="", metavar="LIST", help="our server's parallel, serial, off, with commas; other servers: leave out")
    parser.add_argument("--budget", default="", metavar="LIST", help="max_tokens, several with commas (default: the task's)")
    parser.add_argument("--temperature", type=float, help="default: 0 for one sample, 0.6 for several")
    parser.add_argument("--top-p", type=float)
    parser.add_argument("--system", help="a system message")
    parser.add_argument("--template", help="of the question, with {question} and {choices}; default: the task's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, metavar="N", help="N problems, spread over the families")
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--timeout", type=float, default=3600, help="seconds for one answer")
    parser.add_argument("--patience", type=float, default=300, help="seconds to try a server again that is away or busy")
    parser.add_argument("--no-stream", action="store_true", help="for servers without streams")
    parser.add_argument("--tokenizer", help="folder with the model's tokenizer.json: exact counts for servers that don't count trees")
    parser.add_argument("--out", type=Path, help="default: evaluations/TASK-MODEL")
    return parser


async def evaluate(arguments: argparse.Namespace) -> Path:
    """Runs to the end, or raises Stopped. Returns the folder with the report."""
    task = Task.load(arguments.task)
    if arguments.template:
        task = dataclasses.replace(task, template=arguments.template)
    problems = chosen(task.problems(arguments.data, arguments.seed), arguments.limit)
    wordings = arguments.wording.split(",")
    if unknown := set(wordings) - set(task.wordings):
        raise TaskError(f"--wording {', '.join(unknown)}: the task has {', '.join(task.wordings)}")
    budgets = [int(b) for b in arguments.budget.split(",") if b] or [task.max_tokens]
    variants = [Variant(w, m or None, b) for w, m, b in itertools.product(wordings, arguments.mode.split(","), budgets)]
    jobs = [Job(p, v, k) for k in range(arguments.samples) for p in problems for v in variants]
    temperature = arguments.temperature if arguments.temperature is not None else (0.6 if arguments.samples > 1 else 0.0)
    async with Client(arguments.url, os.environ.get("OPENAI_API_KEY"), arguments.timeout, arguments.concurrency) as client:
        model = arguments.model or await first_model(client)
        settings = Settings(task.name, model, temperature, arguments.top_p, arguments.seed, arguments.system, task.template)
        out = arguments.out or Path("evaluations") / f"{task.name}-{model.replace('/', '--')}"
        journal = Journal(out / "answers.jsonl")
        checker = Checker()
        try:
            same_settings(out / "settings.json", settings)
            evaluation = Evaluation(client, task, settings, journal, reader_for(arguments.tokenizer), checker, not arguments.no_stream,
                                    arguments.patience)  # fmt: skip
            await evaluation.run(jobs, arguments.concurrency, Display())
            wanted = {job.key for job in jobs}
            records = [r for r in journal.records if (r["problem"], r["variant"], r["sample"]) in wanted]
            about = {"title": task.title, "problems": len(problems), "samples": arguments.samples, "url": arguments.url,
                     "concurrency": arguments.concurrency, "command": report.command_line("scripts/evaluate")}  # fmt: skip
            equal = lambda a, b: checker.same(a, b, task.kind)  # noqa: E731
            report.write(out, report.summary(records, dataclasses.asdict(settings) | about, equal), records)
        finally:
            checker.close()
            journal.close()
    return out


async def first_model(client: Client) -> str:
    try:
        return (await client.models())[0]
    except (TryLater, Refused, IndexError) as error:
        raise Stopped(f"{client.url}/v1/models names no model ({error}); start the server, or give --model NAME") from error


def same_settings(path: Path, settings: Settings) -> None:
    """The folder's settings, written at the first run. Answers under different settings don't mix."""
    now = dataclasses.asdict(settings)
    if not path.exists():
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(now, indent=1, ensure_ascii=False) + "\n")
        partial.rename(path)
        return
    before = json.loads(path.read_text())
    if differing := [name for name in now if before.get(name) != now[name]]:
        changes = "; ".join(f"{name} was {before.get(name)!r}, is {now[name]!r}" for name in differing)
        raise TaskError(f"{path.parent} holds answers under other settings ({changes}); give another --out, or remove the folder")


def main() -> int:
    arguments = arguments_parser().parse_args()
    for name in ("samples", "concurrency"):
        if getattr(arguments, name) < 1:
            print(f"evaluate: --{name} is {getattr(arguments, name)}; at least 1", file=sys.stderr)
            return 2
    try:
        out = asyncio.run(evaluate(arguments))
    except (TaskError, JournalError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    except Stopped as error:
        print(f"evaluate: {error}\nThe answers so far are kept; the same command goes on.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nevaluate: interrupted; the answers so far are kept, the same command goes on.", file=sys.stderr)
        return 130
    print((out / "report.md").read_text())
    print(f"{out}/report.md, report.json, answers.jsonl and plots")
    return 0


if __name__ == "__main__":
    sys.exit(main())
