"""A whole run: many items at once, resumable to the item, with a report."""

from __future__ import annotations

import asyncio
import collections
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from multiverse.curate import items
from multiverse.curate.client import Unavailable, Usage
from multiverse.curate.items import Item, ItemError
from multiverse.curate.stages import Rejected
from multiverse.dialect import Dialect

ACCEPTED, REJECTED, DATA, REPORT = "accepted.jsonl", "rejected.jsonl", "data.jsonl", "report.json"

# Structured reasoning of an item, and how it came to be.
Convert = Callable[[Item], Awaitable[tuple[str, dict]]]


class Log:
    """A JSONL file that only grows. A line that a killed run left half written is cut off."""

    def __init__(self, path: Path):
        self.path = path
        text = path.read_bytes() if path.exists() else b""
        path.touch()
        whole = text[: text.rfind(b"\n") + 1]
        if whole != text:
            path.write_bytes(whole)
        self.records = [json.loads(line) for line in whole.decode().splitlines()]

    def append(self, record: dict) -> None:
        self.records.append(record)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


async def run(source: Path, out: Path, convert: Convert, dialect: Dialect, *, concurrency: int, keep_sequential: bool, usage: Usage,
              prices: tuple[float, float] = (0.0, 0.0), say: Callable[[str], None] = print) -> dict:  # fmt: skip
    """Converts what `source` holds and was not done before. Returns the report. `prices`: of a million prompt and completion tokens."""
    started = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    accepted, rejected = Log(out / ACCEPTED), Log(out / REJECTED)
    done = {record["id"] for log in (accepted, rejected) for record in log.records}
    work, order = [], []
    for fallback, record in items.records(source):
        try:
            item = Item.read(record, fallback) if isinstance(record, dict) else _raise(record)
        except ValueError as error:
            name = str(record.get("id", fallback)) if isinstance(record, dict) else fallback
            order.append(name)
            if name not in done:
                done.add(name)
                rejected.append({"id": name, "stage": "read", "reason": str(error), "tries": []})
            continue
        if item.id in order:
            raise ItemError(f"two items have the id {item.id!r}")
        order.append(item.id)
        if item.id not in done:
            work.append(item)
    unreachable: dict[str, str] = {}  # items left for a later run
    say(f"{len(order)} items, {len(order) - len(work)} done before")

    async def one(item: Item) -> None:
        try:
            thought, trail = await convert(item)
            accepted.append({"id": item.id, "messages": items.conversation(item, thought, items.PARALLEL_WORDING, dialect),
                             "sequential": items.conversation(item, item.reasoning, items.SEQUENTIAL_WORDING, dialect), "trail": trail})  # fmt: skip
        except Rejected as error:
            rejected.append({"id": item.id, "stage": error.stage, "reason": error.reason, "tries": error.tries})
        except Unavailable as error:
            unreachable[item.id] = str(error)

    try:
        await _bounded(work, one, concurrency, lambda n: say(_line(n, len(work), accepted, rejected, unreachable, usage)))
    finally:
        _write_data(out / DATA, accepted, order, keep_sequential)
    report = _report(order, accepted, rejected, unreachable, usage, prices, time.monotonic() - started)
    (out / REPORT).write_text(json.dumps(report, indent=1) + "\n")
    return report


def _raise(error: Exception):
    raise error


async def _bounded(work: list, one, concurrency: int, tell) -> None:
    """`concurrency` workers over one list. What the endpoint refuses for all ends the run."""
    queue, finished = iter(work), 0

    async def worker() -> None:
        nonlocal finished
        for item in queue:
            await one(item)
            finished += 1
            if finished % max(1, len(work) // 20) == 0 or finished == len(work):
                tell(finished)

    async with asyncio.TaskGroup() as group:
        for _ in range(max(1, min(concurrency, len(work)))):
            group.create_task(worker())


def _line(finished: int, total: int, accepted: Log, rejected: Log, unreachable: dict[str, str], usage: Usage) -> str:
    return (f"{finished}/{total}: {len(accepted.records)} accepted, {len(rejected.records)} rejected, {len(unreachable)} left for later; "
            f"{usage.requests} requests, {usage.cached} from the cache, {usage.prompt_tokens}+{usage.completion_tokens} tokens")  # fmt: skip


def _write_data(path: Path, accepted: Log, order: list[str], keep_sequential: bool) -> None:
    """The training file: in the order of the source, whatever finished first."""
    by_id = {record["id"]: record for record in accepted.records}
    with open(path, "w", encoding="utf-8") as file:
        for record in (by_id[name] for name in order if name in by_id):
            lines = [{"id": record["id"], "messages": record["messages"]}]
            if keep_sequential:
                lines.append({"id": record["id"] + "#sequential", "messages": record["sequential"]})
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def _report(order, accepted: Log, rejected: Log, unreachable: dict[str, str], usage: Usage, prices, seconds: float) -> dict:
    mine = set(order)
    kept = [r for r in accepted.records if r["id"] in mine]
    refused = [r for r in rejected.records if r["id"] in mine]
    return {
        "items": len(order),
        "accepted": len(kept),
        "yield": round(len(kept) / max(1, len(order)), 4),
        "rejected": dict(collections.Counter(r["stage"] for r in refused).most_common()),
        "left_for_later": unreachable,
        "requests": usage.requests,
        "from_cache": usage.cached,
        "http": {str(k): v for k, v in sorted(usage.statuses.items(), key=str)},
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cost": round((usage.prompt_tokens * prices[0] + usage.completion_tokens * prices[1]) / 1e6, 4),
        "seconds": round(seconds, 1),
    }
