"""The rows of each step as tensors, made by a thread of their own ahead of the step that takes them."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from multiverse.train import packing
from multiverse.train.corpus import Corpus


@dataclass(frozen=True)
class Work:
    """One process's part of a step, as tensors, pinned where there is a GPU to copy them to."""

    batches: list[tuple[torch.Tensor, ...]]  # ids, positions, owners, places, targets at these
    targets: int
    tokens: int  # of all processes
    parallel: int  # of these, of parallel samples


def work_of(rows: list[list[int]], samples: Corpus, settings, rank: int, world: int, pin: bool) -> Work:
    """`settings`: loop.Settings. `pin`: for copies to a GPU that nobody waits for."""
    batches = []
    for at in range(rank * settings.micro_rows, settings.rows, world * settings.micro_rows):
        b = packing.collate(rows[at : at + settings.micro_rows], samples, settings.row_tokens, settings.levels)
        tensors = map(torch.from_numpy, (b.ids, b.positions, b.owners, b.places, b.targets.reshape(-1)[b.places]))
        batches.append(tuple(t.pin_memory() if pin else t for t in tensors))
    indices = [i for row in rows for i in row]
    return Work(batches, sum(len(b[-1]) for b in batches), sum(samples.lengths[i] for i in indices),
                sum(samples.lengths[i] for i in indices if samples.parallel[i]))  # fmt: skip


def ahead(items: Iterable, depth: int = 4) -> Iterator:
    """The items, made by a thread of their own while the earlier ones are used."""
    made: queue.Queue = queue.Queue(depth)
    ended = threading.Event()

    def put(entry) -> None:
        while not ended.is_set():
            with contextlib.suppress(queue.Full):
                return made.put(entry, timeout=0.1)

    def make() -> None:
        try:
            for item in items:
                put((item, None))
                if ended.is_set():
                    return
            put((None, StopIteration()))
        except Exception as error:  # the consumer's to raise
            put((None, error))

    threading.Thread(target=make, daemon=True).start()
    try:
        while True:
            item, error = made.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item
    finally:
        ended.set()
