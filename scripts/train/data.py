"""Endless training rows: processes write conversations and pack them; the trainer keeps every row that it has seen.

A row holds whole conversations end to end. Its planes: ids, positions, targets (-100: no loss), conversation, and owners at both levels.
"""

import multiprocessing
import os
import random
import threading
import time

import numpy as np
import torch

import structure
import tiny_chat
import tiny_tasks

PLANES = 6
IDS, POSITIONS, TARGETS, CONVERSATION, OWNERS = 0, 1, 2, 3, slice(4, 6)
NO_LOSS = -100

# Weak or long-winded families get more of the draws.
WEIGHTS = {family: 1.0 for family in tiny_tasks.FAMILIES} | {"mixed": 1.5, "nested": 1.4}


def sample(tokenizer, controls, rng):
    """One conversation as planes (PLANES, n); the owners' blocks are numbered from 0."""
    families = list(WEIGHTS)
    pieces = tiny_chat.conversation(rng, families, [WEIGHTS[f] for f in families])
    encoded = [e.ids for e in tokenizer.encode_batch(pieces)]
    ids = np.array([i for e in encoded for i in e], np.int16)
    said = np.concatenate([np.full(len(e), k % 2 == 1) for k, e in enumerate(encoded)])
    shape = structure.layout(ids, controls)
    targets = np.full(len(ids), NO_LOSS, np.int16)
    targets[:-1] = np.where(said[1:] & ~shape.forced[1:], ids[1:], NO_LOSS)
    return np.stack([ids, shape.position, targets, np.zeros(len(ids)), *shape.owner]).astype(np.int16), shape.blocks


def pack(samples, length):
    """Rows of `length`, endlessly: the longest of the waiting conversations that still fits goes next, so that little stays empty."""
    waiting = [next(samples) for _ in range(64)]
    while True:
        row, used, blocks, count = np.full((PLANES, length), -1, np.int16), 0, 0, 0
        row[IDS], row[POSITIONS], row[TARGETS] = 0, 0, NO_LOSS
        while True:
            fitting = [i for i, (planes, _) in enumerate(waiting) if planes.shape[1] <= length - used]
            if not fitting:
                break
            # The first conversation of a row is any, lest the short ones be drawn out.
            pick = max(fitting, key=lambda i: waiting[i][0].shape[1]) if used > length // 2 else fitting[0]
            planes, more = waiting.pop(pick)
            waiting.append(next(samples))
            end = used + planes.shape[1]
            row[:, used:end] = planes
            row[CONVERSATION, used:end] = count
            owners = row[OWNERS, used:end]
            owners[owners >= 0] += blocks << structure.PATHS_BITS
            used, blocks, count = end, blocks + more, count + 1
        yield row


def produce(queue, tokenizer_json, length, chunk, seed):
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(tokenizer_json)
    controls, rng = structure.Controls.of(tokenizer), random.Random(seed)

    def samples():
        while True:
            planes, blocks = sample(tokenizer, controls, rng)
            if planes.shape[1] <= length:
                yield planes, blocks

    rows = pack(samples(), length)
    while True:
        queue.put(np.stack([next(rows) for _ in range(chunk)]))


class Rows:
    """Fresh rows while the processes keep up, earlier ones again otherwise. A thread of its own brings them to the device, so that no
    copy waits for the training step's kernels."""

    def __init__(self, tokenizer, length, capacity, processes, device, chunk, seed):
        context = multiprocessing.get_context("spawn")
        self.queue = context.Queue(maxsize=4 * processes)
        arguments = (self.queue, tokenizer.to_str(), length, chunk)
        self.workers = [context.Process(target=produce, args=(*arguments, seed * 1000 + i), daemon=True) for i in range(processes)]
        for worker in self.workers:
            worker.start()
        self.store = torch.empty((capacity, PLANES, length), dtype=torch.int16, device=device)
        self.filled = self.taken = self.repeated = 0
        self.rng = np.random.default_rng(seed)
        threading.Thread(target=self.receive, daemon=True).start()

    def receive(self):
        stream = torch.cuda.Stream() if self.store.is_cuda else None
        while self.filled < len(self.store):
            rows = torch.from_numpy(self.queue.get())[: len(self.store) - self.filled]
            with torch.cuda.stream(stream):
                self.store[self.filled : self.filled + len(rows)] = rows.to(self.store.device)
            if stream:
                stream.synchronize()
            self.filled += len(rows)

    def next(self, count):
        while self.filled < count:
            time.sleep(0.05)
        if self.taken + count <= self.filled:
            self.taken += count
            return self.store[self.taken - count : self.taken]
        self.repeated += count
        return self.store[torch.from_numpy(self.rng.integers(0, self.filled, count)).to(self.store.device)]

    def close(self):
        for worker in self.workers:
            worker.terminate()
