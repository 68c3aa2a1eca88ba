"""What a load test sends: questions of a task, or lengths and trees like those of recorded answers. Seeded."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from measure.tasks import Task, TaskError, sample_seed
from measure.text_tree import Reader, rows_of
from multiverse.labels import LabelRule
from multiverse.structure import reference

# Filler for prompts of a wanted length; about a token a word in most vocabularies.
_WORDS = "one two three four five six seven eight nine ten red green blue day night sun moon tree house road".split()


@dataclass(frozen=True)
class Shape:
    """An answer's lengths in tokens, and the first fork in it."""

    prompt: int
    tokens: int  # generated, of all branches
    width: int = 0  # paths of the first block; 0: no block
    path: int = 0  # tokens of its longest path
    phases: tuple[tuple[int, int], ...] = ()  # runs of (steps, rows), all paths at once


def recorded_shapes(path: Path, reader: Reader) -> list[Shape]:
    """Of JSON lines with a `completion` each, and `user` and `system` where there are prompts."""
    shapes = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        record = json.loads(line)
        if "completion" not in record:
            raise TaskError(f"{path}, line {number}: no field 'completion'; it has {', '.join(record)}")
        tree = reference(reader.encode(record["completion"]), reader.vocabulary.ids, LabelRule(reader.vocabulary))
        first = next((block for block in tree.blocks if block.paths), None)
        lengths = [sum(one is branch for one in tree.branch) for branch in first.paths] if first else []
        prompt = len(reader.encode(record.get("system", "") + record.get("user", "")))
        shapes.append(Shape(prompt, len(tree.branch), len(lengths), max(lengths, default=0), tuple(rows_of(tree))))
    return shapes


def synthetic_shapes(count: int, seed: int) -> list[Shape]:
    """Like the recorded answers of Multiverse-32B to AIME problems: a third without a block; else 1 to 10 blocks of 2 to 6 paths, 3 at
    the median; 3,000 to 14,000 tokens, at parallelism 1 to 1.5."""
    generator = random.Random(seed)
    shapes = []
    for _ in range(count):
        prompt = round(generator.lognormvariate(5.0, 0.35))
        wanted = min(14_000, max(500, round(generator.lognormvariate(8.85, 0.45))))
        blocks = 0 if generator.random() < 1 / 3 else 1 + min(9, int(generator.expovariate(1 / 4)))
        phases: list[tuple[int, int]] = []
        widths: list[int] = []
        longest: list[int] = []
        for _ in range(blocks):
            lengths = sorted(max(8, round(generator.lognormvariate(4.4, 0.6))) for _ in range(generator.choice([2, 2, 3, 3, 3, 4, 6])))
            widths.append(len(lengths))
            longest.append(lengths[-1])
            phases.append((generator.randint(40, 160), 1))  # the goal and what leads to it
            done = 0
            for still, length in zip(range(len(lengths), 0, -1), lengths):
                if length > done:
                    phases.append((length - done, still))
                    done = length
        rest = wanted - sum(steps * rows for steps, rows in phases)
        phases.append((max(1, rest), 1))
        tokens = sum(steps * rows for steps, rows in phases)
        shapes.append(Shape(prompt, tokens, widths[0] if widths else 0, longest[0] if longest else 0, tuple(phases)))
    return shapes


@dataclass(frozen=True)
class Request:
    route: str
    body: dict


class Workload:
    """An endless, seeded stream of requests. Bodies ask for a stream with usage."""

    def __init__(self, model: str):
        self.common = {"model": model, "stream": True, "stream_options": {"include_usage": True}}

    def requests(self, seed: int) -> Iterator[Request]:
        raise NotImplementedError


class Questions(Workload):
    """A task's questions, in random order, greedy: the model decides on lengths and trees."""

    def __init__(self, model: str, task: Task, data: Path | None, wording: str):
        super().__init__(model)
        self._task, self._wording, self._problems = task, wording, task.problems(data)

    def requests(self, seed: int) -> Iterator[Request]:
        generator = random.Random(seed)
        while True:
            for problem in generator.sample(self._problems, len(self._problems)):
                messages = [{"role": "user", "content": self._task.prompt(problem, self._wording)}]
                yield Request("chat/completions", self.common | {"messages": messages, "temperature": 0, "max_tokens": self._task.max_tokens})


class Shapes(Workload):
    """Requests of given lengths, for any model. With `trees`, prompts to /v1/completions that end in a goal written out in Multiverse's
    words, so that a server with forks forks at once; without, plain chat. `ignore_eos` keeps the length where a server knows it."""

    def __init__(self, model: str, shapes: list[Shape], trees: bool, scale: float = 1.0):
        super().__init__(model)
        self._shapes, self._trees, self._scale = shapes, trees, scale

    def requests(self, seed: int) -> Iterator[Request]:
        generator = random.Random(seed)
        number = 0
        while True:
            shape = generator.choice(self._shapes)
            text = " ".join(generator.choices(_WORDS, k=self._scaled(shape.prompt)))
            lengths = {"max_tokens": self._scaled(shape.tokens), "ignore_eos": True, "temperature": 1, "seed": sample_seed(seed, "load", number)}
            number += 1
            if not self._trees:
                yield Request("chat/completions", self.common | lengths | {"messages": [{"role": "user", "content": text}]})
                continue
            if shape.width:
                outlines = "".join(f"<Outline>\n{i}: part {i}\n</Outline>\n" for i in range(1, shape.width + 1))
                text += f"\n<Parallel>\n<Goal>\n{outlines}</Goal>"
                lengths["multiverse"] = {"max_path_tokens": max(16, self._scaled(shape.path))}
            yield Request("completions", self.common | lengths | {"prompt": text})

    def _scaled(self, tokens: int) -> int:
        return max(1, round(self._scale * tokens))
