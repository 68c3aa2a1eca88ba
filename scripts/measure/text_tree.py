"""The tree of an answer's text: for servers that don't count it themselves, and for the rows that it keeps busy at each step.

Token borders are not known from a text alone. With a tokenizer (`tokenizers` package) they are exact; without, words and signs stand for
tokens, and counts are scaled to the number of tokens that the server reports."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from multiverse.labels import LabelRule, Vocabulary
from multiverse.structure import ControlTokens, Counts, Tree, reference, trees

_NAMES = ("<Parallel>", "</Parallel>", "<Goal>", "</Goal>", "<Path>", "</Path>", "<Conclusion>", "\n")
_OTHERS = ("<Outline>", "</Outline>", "</Conclusion>", "<Think>", "</Think>")
_SIGNS = "0123456789.:"
# A piece: a control token, a newline, a digit or sign of a label, a word with its space, other signs one by one.
_PIECE = re.compile("|".join(map(re.escape, _NAMES + _OTHERS)) + r"|[0-9.:]| ?[^\W\d_]{1,12}|\s|.", re.DOTALL)
_FIRST_WORD = len(_NAMES) + len(_OTHERS) + len(_SIGNS)


def _vocabulary() -> Vocabulary:
    names = [*_NAMES, *_OTHERS, *_SIGNS, "a"]
    id_of = {name: id for id, name in enumerate(names)}
    ids = ControlTokens(
        *(id_of[name] for name in _NAMES),
        label=frozenset(id_of[sign] for sign in _SIGNS),
        label_end=frozenset({id_of[":"]}),
    )
    added = frozenset(id_of[name] for name in (*_NAMES[:-1], *_OTHERS))
    return Vocabulary(
        ids, id_of["<Outline>"], id_of["</Outline>"], id_of["</Conclusion>"], tuple(name.encode() for name in names), added
    )  # fmt: skip


VOCABULARY = _vocabulary()
_ID_OF = {name.decode(): id for id, name in enumerate(VOCABULARY.token_bytes[:_FIRST_WORD])}
_WORD = _FIRST_WORD  # every piece that the grammar doesn't care for


def pieces(text: str) -> list[int]:
    """Ids of VOCABULARY, one for each piece."""
    return [_ID_OF.get(piece, _WORD) for piece in _PIECE.findall(text)]


@dataclass(frozen=True)
class Reader:
    """Reads texts into trees; `encode` and `vocabulary` are a tokenizer's, or those of pieces."""

    encode: Callable[[str], list[int]] = pieces
    vocabulary: Vocabulary = VOCABULARY
    exact: bool = False

    def counts(self, text: str, tokens: int | None = None) -> Counts:
        """The counters of `usage`; `tokens`: the number that the server reports, to which estimates are scaled."""
        counted = trees(self.encode(text), self.vocabulary.ids, LabelRule(self.vocabulary))
        if self.exact or not tokens or not counted.tokens:
            return counted
        scale = tokens / counted.tokens
        scaled = {name: max(1, round(getattr(counted, name) * scale)) for name in ("critical_path_tokens", "steps")}
        return replace(counted, tokens=tokens, **scaled)

    def rows(self, text: str) -> list[tuple[int, int]]:
        """How the answer decodes when all its paths run at once: runs of (steps, rows). Their sums are the tree's steps and
        the tokens that are drawn, not written by the engine."""
        return rows_of(reference(self.encode(text), self.vocabulary.ids, LabelRule(self.vocabulary)))


def rows_of(tree: Tree) -> list[tuple[int, int]]:
    at_step = Counter(step for step, forced in zip(tree.step, tree.forced) if not forced)
    return [(len(list(run)), rows) for rows, run in itertools.groupby(at_step[step] for step in sorted(at_step))]


def reader_for(tokenizer_json: str | None) -> Reader:
    """A reader with the tokenizer of a model's folder or file; without one, the estimate."""
    if tokenizer_json is None:
        return Reader()
    from pathlib import Path

    from tokenizers import Tokenizer

    path = Path(tokenizer_json)
    path = path / "tokenizer.json" if path.is_dir() else path
    tokenizer = Tokenizer.from_file(str(path))
    return Reader(lambda text: tokenizer.encode(text, add_special_tokens=False).ids, Vocabulary.load(path), exact=True)
