"""Prompts that make any model fork, trained or not, and the questions that the trained one answers."""

from __future__ import annotations

import json
import random

from tests.exactness.models import TINY
from tests.exactness.texts import TreeWriter
from multiverse.labels import Vocabulary

PARALLEL_WORDING = " Think step by step and in parallel before answering."


def goal_prompt(vocabulary: Vocabulary, seed: int, labels: int) -> list[int]:
    """Ends with a goal of so many labels: the next thing that happens is the fork."""
    ids, writer = vocabulary.ids, TreeWriter(vocabulary, random.Random(seed))
    tokens = [*writer.ordinary(5), *writer.opening(), ids.goal, ids.newline]
    for n in range(labels):
        tokens += [vocabulary.outline, *writer.label(str(n + 1)), *writer.ordinary(2), vocabulary.end_outline]
    return [*tokens, ids.newline, ids.end_goal]


def questions(count: int, seed: int) -> list[list[dict[str, str]]]:
    """Chats, each with a held-out question of the trained model, in the wording that asks for parallel thought."""
    lines = (TINY / "heldout.jsonl").read_text(encoding="utf-8").splitlines()
    chosen = random.Random(seed).sample(lines, count)
    return [[{"role": "user", "content": json.loads(line)["question"] + PARALLEL_WORDING}] for line in chosen]
