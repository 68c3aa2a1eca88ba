"""Structured texts to compare on: random trees, whole and broken, and the trees of recorded answers."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from multiverse.labels import Vocabulary

MAX_DEPTH = 4
LONGEST = 2000  # tokens of a text


@dataclass(frozen=True)
class Text:
    name: str
    tokens: list[int]


@dataclass(frozen=True)
class Shape:
    """Of a random tree."""

    width: tuple[int, int]  # fewest and most paths of a block
    depth: int = MAX_DEPTH
    run: tuple[int, int] = (0, 12)  # ordinary tokens in a row
    nesting: float = 0.3  # chance of a block inside a path
    separators: float = 1.0  # chance of each ⏎ that the format asks for
    interlopers: float = 0.0  # chance of ordinary tokens between two paths
    repeated_labels: float = 0.0
    headers: float = 1.0  # chance that a path's label follows its <Path> ⏎


SHAPES = {
    "nested": Shape(width=(1, 3), nesting=0.6),
    "wide": Shape(width=(8, 20), depth=1, run=(0, 25)),
    "hundred": Shape(width=(100, 100), depth=1, run=(0, 4)),
    "ragged": Shape(width=(2, 6), depth=2, run=(0, 80)),
    "sloppy": Shape(width=(1, 5), separators=0.7, interlopers=0.3, repeated_labels=0.3, headers=0.7),
}


class TreeWriter:
    """Writes trees of random ordinary tokens. One random stream, so that a seed names all its texts."""

    def __init__(self, vocabulary: Vocabulary, rng: random.Random):
        self._vocabulary = vocabulary
        self._ids = vocabulary.ids
        self._rng = rng
        of_bytes = {name: id for id, name in enumerate(vocabulary.token_bytes)}
        self._digit = {c: of_bytes[c.encode()] for c in "0123456789.:"}
        reserved = {*vocabulary.added, vocabulary.ids.newline}
        self._ordinary = [id for id, name in enumerate(vocabulary.token_bytes) if name and id not in reserved]
        opener = [] if self._ids.parallel is None else [self._ids.parallel]
        self._controls = [
            *opener,
            *(self._ids.end_parallel, self._ids.goal, self._ids.end_goal, self._ids.path),
            *(self._ids.end_path, self._ids.conclusion, vocabulary.end_conclusion, vocabulary.outline),
        ]

    def ordinary(self, count: int) -> list[int]:
        return self._rng.choices(self._ordinary, k=count)

    def label(self, label: str) -> list[int]:
        return [self._digit[c] for c in label + ":"]

    def opening(self) -> list[int]:
        """What opens a block before its goal."""
        return [] if self._ids.parallel is None else [self._ids.parallel, self._ids.newline]

    def _closing(self) -> list[int]:
        closed = self._ids.end_parallel == self._vocabulary.end_conclusion
        return [] if closed else [self._ids.newline, self._ids.end_parallel]

    def tree(self, shape: Shape) -> list[int]:
        """Plain text around one to three blocks."""
        tokens = self.ordinary(self._rng.randint(1, 10))
        for _ in range(self._rng.randint(1, 3 if shape.width[1] < 8 else 1)):
            tokens += [*self._block(shape, "", 1), *self._run(shape)]
        return tokens[:LONGEST]

    def broken(self, shape: Shape) -> list[int]:
        """A tree with one to six things wrong with it."""
        tokens = self.tree(shape)
        for _ in range(self._rng.randint(1, 6)):
            self._rng.choice(self._damages())(tokens)
        return tokens or self.ordinary(1)

    def _run(self, shape: Shape) -> list[int]:
        return self.ordinary(self._rng.randint(*shape.run))

    def _chance(self, probability: float) -> bool:
        return self._rng.random() < probability

    def _separator(self, shape: Shape) -> list[int]:
        return [self._ids.newline] if self._chance(shape.separators) else []

    def _block(self, shape: Shape, parent: str, depth: int) -> list[int]:
        labels = [f"{parent}{n + 1}" for n in range(self._rng.randint(*shape.width))]
        labels = [self._rng.choice(labels) if self._chance(shape.repeated_labels) else label for label in labels]
        ids, newline = self._ids, self._ids.newline
        tokens = [*self.opening(), ids.goal, newline]
        for label in labels:
            outline = [newline, *self.label(label), *self.ordinary(self._rng.randint(0, 3)), newline]
            tokens += [self._vocabulary.outline, *outline, self._vocabulary.end_outline, newline]
        tokens += [ids.end_goal, *self._separator(shape)]
        for label in labels:
            header = [newline, *self.label(label)] if self._chance(shape.headers) else []
            tokens += [ids.path, *header, *self._path_body(shape, label, depth), ids.end_path, *self._separator(shape)]
            if self._chance(shape.interlopers):
                tokens += self.ordinary(self._rng.randint(1, 3))
        end = [self._vocabulary.end_conclusion, *self._closing()]
        return [*tokens, ids.conclusion, *self._separator(shape), *self._run(shape), *end, *self._separator(shape)]

    def _path_body(self, shape: Shape, label: str, depth: int) -> list[int]:
        body = self._run(shape)
        if depth < shape.depth and self._chance(shape.nesting):
            # Narrower inside, so that the tree doesn't grow with the power of its depth.
            inner = replace(shape, width=(1, max(2, shape.width[1] // 2)), run=(0, max(2, shape.run[1] // 2)))
            body += [*self._block(inner, f"{label}.", depth + 1), *self._run(shape)]
        return body

    # Ways to break a text, each in place.

    def _damages(self) -> list[Callable[[list[int]], None]]:
        ids = self._ids
        ends = [ids.end_path, ids.end_parallel, ids.conclusion, ids.end_goal, self._vocabulary.end_outline]
        return [
            self._insert_stray,
            lambda tokens: self._drop_one(tokens, ids.end_path),  # a path that is never closed
            lambda tokens: self._drop_one(tokens, self._rng.choice(ends)),
            lambda tokens: self._drop_one(tokens, ids.newline),
            self._repeat_span,
            self._truncate,
        ]

    def _insert_stray(self, tokens: list[int]) -> None:
        tokens.insert(self._rng.randint(0, len(tokens)), self._rng.choice(self._controls))

    def _drop_one(self, tokens: list[int], token: int) -> None:
        places = [i for i, t in enumerate(tokens) if t == token]
        if places:
            del tokens[self._rng.choice(places)]

    def _repeat_span(self, tokens: list[int]) -> None:
        if tokens and len(tokens) < LONGEST // 2:
            start = self._rng.randrange(len(tokens))
            span = tokens[start : start + self._rng.randint(1, 30)]
            at = self._rng.randint(0, len(tokens))
            tokens[at:at] = span

    def _truncate(self, tokens: list[int]) -> None:
        del tokens[self._rng.randint(1, max(1, len(tokens))) :]


def random_texts(vocabulary: Vocabulary, seed: int, count: int) -> Iterator[Text]:
    """The shapes in turn (a hundred paths, which are long, one time in ten), about one text in two broken; one in twenty
    has long runs of ordinary tokens."""
    rng = random.Random(seed)
    writer = TreeWriter(vocabulary, rng)
    names = [name for name in SHAPES if name != "hundred"]
    for n in range(count):
        name = "hundred" if n % 10 == 9 else names[n % len(names)]
        shape = SHAPES[name]
        if n % 20 == 8:
            shape = replace(shape, run=(20, 250))
        broken = (n // len(names)) % 2 == 1
        tokens = writer.broken(shape) if broken else writer.tree(shape)
        yield Text(f"{name}{' broken' if broken else ''} #{n}", tokens)


def recorded_texts(vocabulary: Vocabulary, shared: Path, seed: int) -> Iterator[Text]:
    """The trees of recorded answers, in the small vocabulary: control tokens, separators and labels kept, everything
    else random. Runs of ordinary tokens are shortened in proportion where the answer is longer than a text may be."""
    from tokenizers import Tokenizer

    tokenizer_json = shared / "tokenizers" / "multiverse-32b" / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(tokenizer_json))
    source = Vocabulary.load(tokenizer_json)
    rng = random.Random(seed)
    writer = TreeWriter(vocabulary, rng)
    for line in (shared / "traces" / "aime24.jsonl").read_text(encoding="utf-8").splitlines():
        answer = json.loads(line)
        tokens = tokenizer.encode(answer["completion"], add_special_tokens=False).ids
        yield Text(answer["id"], _retell(tokens, source, vocabulary, writer))


def _retell(tokens: list[int], source: Vocabulary, target: Vocabulary, writer: TreeWriter) -> list[int]:
    counterpart = _counterparts(source, target)
    kept = sum(token in counterpart for token in tokens)
    share = min(1.0, max(0.02, (LONGEST - kept) / max(1, len(tokens) - kept)))
    told: list[int] = []
    owed = 0.0
    for token in tokens:
        if token in counterpart:
            told += counterpart[token]
            continue
        owed += share
        told += writer.ordinary(int(owed))
        owed -= int(owed)
    return told[:LONGEST]


def _counterparts(source: Vocabulary, target: Vocabulary) -> dict[int, list[int]]:
    """For each token that is structure in the source's vocabulary, the same in the target's."""
    names = {name: id for id, name in enumerate(target.token_bytes) if name}
    result = {id: [names[source.token_bytes[id]]] for id in source.added if source.token_bytes[id] in names}
    for id in source.ids.label:
        name = source.token_bytes[id]
        if re.fullmatch(rb"[0-9]+|[.:]", name):
            result[id] = [names[bytes([byte])] for byte in name]
    result[source.ids.newline] = [target.ids.newline]
    return result
