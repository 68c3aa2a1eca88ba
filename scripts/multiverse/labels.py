"""When a goal forks: the labels of its outlines, read from token bytes; and a tokenizer's control tokens and bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from multiverse.dialect import Dialect
from multiverse.structure import ControlTokens, ForkSite, TreeReader

MAX_LABEL_BYTES = 32
MAX_LABEL_PARTS = 16

# A token takes part in the reading of a label if it is of these bytes only, or starts with the ":" that ends one.
_READABLE = re.compile(rb"[0-9.:\s]+|:.*", re.DOTALL)
_LABEL_ONLY = re.compile(rb"[0-9.:]+")
_LABEL = re.compile(rb"\s*([0-9]+(?:\.[0-9]+)*):")


@dataclass(frozen=True)
class Vocabulary:
    """What the oracle needs of a tokenizer that has a dialect's control tokens."""

    ids: ControlTokens
    outline: int
    end_outline: int
    end_conclusion: int
    token_bytes: tuple[bytes, ...]  # by id; b"" where there is no such token
    added: frozenset[int]  # added tokens: control tokens and those of the chat format
    max_depth: int = 1 << 30  # of forks; 1 where blocks don't nest

    @staticmethod
    def load(tokenizer_json: Path, dialect: Dialect | None = None) -> Vocabulary:
        """Reads a byte-level BPE `tokenizer.json` of Hugging Face. The dialect is Multiverse's by default."""
        dialect = dialect or Dialect.load("multiverse")
        data = json.loads(tokenizer_json.read_text(encoding="utf-8"))
        byte_of = _byte_of_character()
        names = {id: bytes(byte_of[character] for character in token) for token, id in data["model"]["vocab"].items()}
        added = {entry["id"]: entry["content"] for entry in data["added_tokens"]}
        names |= {id: content.encode() for id, content in added.items()}
        token_bytes = tuple(names.get(id, b"") for id in range(max(names) + 1))
        id_of = {content: id for id, content in added.items()}
        label = frozenset(id for id, name in names.items() if _LABEL_ONLY.fullmatch(name))
        ids = ControlTokens(
            parallel=id_of[dialect.block_open] if dialect.block_open else None,
            end_parallel=id_of[dialect.block_close or dialect.conclusion_close],
            goal=id_of[dialect.goal_open],
            end_goal=id_of[dialect.fork],
            path=id_of[dialect.path_open],
            end_path=id_of[dialect.path_close],
            conclusion=id_of[dialect.conclusion_open],
            newline=token_bytes.index(dialect.separator.encode()),
            label=label,
            label_end=frozenset(id for id in label if b":" in names[id]),
        )
        return Vocabulary(
            ids, id_of[dialect.outline_open], id_of[dialect.outline_close], id_of[dialect.conclusion_close], token_bytes, frozenset(added),
            dialect.max_depth,
        )


@dataclass(frozen=True)
class LabelRule:
    """A goal forks if it has labels, no more than `max_paths`, no deeper than `max_depth`. Callable as `may_fork`."""

    vocabulary: Vocabulary
    max_paths: int = 128
    max_depth: int = 6

    def allows(self, site: ForkSite) -> bool:
        labels = self.labels(site.tokens[site.goal + 1 : site.end_goal])
        return 1 <= len(labels) <= self.max_paths and site.depth <= min(self.max_depth, self.vocabulary.max_depth)

    def __call__(self, tokens: Sequence[int], end_goal: int) -> bool:
        site = TreeReader(tokens, self.vocabulary.ids, self.allows).site(end_goal)
        return site is not None and self.allows(site)

    def labels(self, goal: Sequence[int]) -> list[str]:
        """The readable labels of a goal's tokens, in order."""
        starts = [i + 1 for i, token in enumerate(goal) if token == self.vocabulary.outline]
        read = (self._label(goal, start) for start in starts)
        return [label for label in read if label is not None]

    def _label(self, goal: Sequence[int], start: int) -> str | None:
        end = start
        while end < len(goal) and self._readable(goal[end]):
            end += 1
        match = _LABEL.match(b"".join(self.vocabulary.token_bytes[token] for token in goal[start:end]))
        if match is None:
            return None
        label = match[1].decode()
        too_long = len(label) > MAX_LABEL_BYTES or len(label.split(".")) > MAX_LABEL_PARTS
        return None if too_long else label

    def _readable(self, token: int) -> bool:
        names = self.vocabulary.token_bytes
        if not 0 <= token < len(names) or token in self.vocabulary.added:
            return False
        return _READABLE.fullmatch(names[token]) is not None


def may_fork_for(vocabulary: Vocabulary, max_paths: int = 128, max_depth: int = 6) -> LabelRule:
    return LabelRule(vocabulary, max_paths, max_depth)


def _byte_of_character() -> dict[str, int]:
    """Byte-level BPE's alphabet: printable Latin-1 stands for itself, other bytes for characters from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(b): b for b in printable} | {chr(256 + n): b for n, b in enumerate(others)}
