"""Which samples go into which row of which step: a function of the lengths, the settings and the seed alone.

So a run that is resumed draws the same rows as one that was never stopped, and every process of a distributed run knows all rows
without a word between them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from multiverse.train.samples import OUTSIDE, PATH_BITS, Sample

NO_LOSS = -100
WAITING = 32  # samples to choose from when a row has a gap to fill


@dataclass(frozen=True)
class Schedule:
    """The share of tokens that come from parallel samples: `start` at first, `end` once `ramp` of the steps are done, linear between."""

    start: float = 0.0
    end: float = 1.0
    ramp: float = 0.5

    def share(self, progress: float) -> float:
        done = min(1.0, progress / self.ramp) if self.ramp > 0 else 1.0
        return self.start + (self.end - self.start) * done


class _Pool:
    """Sample indices in epochs, each shuffled anew."""

    def __init__(self, indices: list[int], rng: np.random.Generator):
        self.indices, self.rng, self.left = indices, rng, []

    def draw(self) -> int:
        if not self.left:
            self.left = [self.indices[i] for i in self.rng.permutation(len(self.indices))]
        return self.left.pop()


def plan(
    lengths: list[int], parallel: list[bool], *, row_tokens: int, rows: int, steps: int, schedule: Schedule, seed: int
) -> Iterator[list[list[int]]]:
    """For each step its rows, each a list of sample indices whose tokens fit into `row_tokens`. `lengths`, `parallel`: of the samples."""
    pools = [_Pool([i for i, k in enumerate(parallel) if k is kind], np.random.default_rng([seed, kind])) for kind in (False, True)]
    if not any(pool.indices for pool in pools):
        raise ValueError("there are no samples to train on")
    owed = 0.0  # parallel tokens that the schedule has asked for, less those drawn

    def draw(progress: float) -> int:
        nonlocal owed
        sequential, forking = pools
        use_parallel = bool(forking.indices) and (owed > 0 or not sequential.indices)
        index = (forking if use_parallel else sequential).draw()
        owed += lengths[index] * (schedule.share(progress) - use_parallel)
        return index

    waiting: list[int] = []
    for step in range(steps):
        yield [_fill_row(waiting, lengths, row_tokens, lambda at=step: draw(at / steps)) for _ in range(rows)]


def _fill_row(waiting: list[int], lengths: list[int], room: int, draw) -> list[int]:
    """The oldest of the waiting samples first, so that none waits for ever; then the longest that fits, so that little stays empty."""
    row: list[int] = []
    while True:
        while len(waiting) < WAITING:
            waiting.append(draw())
        fitting = [k for k, index in enumerate(waiting) if lengths[index] <= room]
        if not fitting:
            return row
        pick = fitting[0] if not row else max(fitting, key=lambda k: lengths[waiting[k]])
        row.append(waiting.pop(pick))
        room -= lengths[row[-1]]


@dataclass(frozen=True)
class Batch:
    """Rows of samples end to end. The rest of a row is one sample without loss."""

    ids: np.ndarray  # (rows, length) int64
    positions: np.ndarray  # (rows, length) int64
    targets: np.ndarray  # (rows, length) int64: the token that this one's logits are to predict, or NO_LOSS
    owners: np.ndarray  # (1 + levels, rows, length) int32: the sample's number in its row, then Sample.owners, blocks numbered by row

    @property
    def places(self) -> np.ndarray:
        """Where there are targets, as indices into the flattened rows."""
        return np.flatnonzero(self.targets != NO_LOSS)


def collate(rows: list[list[int]], samples: Sequence[Sample], length: int, levels: int) -> Batch:
    ids, positions = np.zeros((len(rows), length), np.int64), np.zeros((len(rows), length), np.int64)
    targets = np.full((len(rows), length), NO_LOSS, np.int64)
    owners = np.full((1 + levels, len(rows), length), OUTSIDE, np.int32)
    for r, row in enumerate(rows):
        at = blocks = 0
        for number, sample in enumerate(samples[i] for i in row):
            here = slice(at, at + len(sample))
            ids[r, here], positions[r, here] = sample.ids, sample.positions
            # A sampled token comes from the logits of the token before it in its own branch, which in a well-formed text is the
            # token before it in the text: every branch begins with tokens that the server writes.
            targets[r, at : at + len(sample) - 1] = np.where(sample.loss[1:], sample.ids[1:], NO_LOSS)
            owners[0, r, here] = number
            owners[1:, r, here] = np.where(sample.owners == OUTSIDE, OUTSIDE, sample.owners + (blocks << PATH_BITS))
            at, blocks = at + len(sample), blocks + sample.blocks
    return Batch(ids, positions, targets, owners)
