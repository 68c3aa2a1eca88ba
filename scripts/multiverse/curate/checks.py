"""What a program can say of a stage's output. Each check raises CheckFailed with what is wrong, in words that a model can act on."""

from __future__ import annotations

import re

from rapidfuzz.distance import Levenshtein

from multiverse.curate.items import stated_answer
from multiverse.dialect import Dialect
from multiverse.wellformed import path_texts, text_reading

_OTHER_PATHS = re.compile(
    r"\b(?:other|previous|preceding|earlier|next|first|second|third|last|another|sibling|parallel|above)\s+(?:paths?|branch(?:es)?|outlines?|subtasks?)\b"
    r"|\bpaths?\s+(?:\d+|[A-Z]\b)|\bin parallel with\b",
    re.IGNORECASE,
)


class CheckFailed(ValueError):
    pass


def similarity(text: str, original: str) -> float:
    """1 − Levenshtein distance ÷ the longer length, white space aside: 1 is equal."""
    return Levenshtein.normalized_similarity(" ".join(text.split()), " ".join(original.split()))


def check_similar(text: str, original: str, least: float) -> None:
    got = similarity(text, original)
    if got < least:
        raise CheckFailed(f"the text's edit similarity with the original is {got:.2f}, at least {least:.2f} is wanted: keep the original wording")


def plain(text: str, dialect: Dialect) -> str:
    """The text without tags, outlines and the labels of paths: what is left of the reasoning itself."""
    d = dialect
    text = re.sub(f"{re.escape(d.goal_open)}.*?{re.escape(d.fork)}", "", text, flags=re.DOTALL)
    text = re.sub(rf"{re.escape(d.path_open)}\s*\d+(?:\.\d+)*:", "", text)
    return re.sub("|".join(map(re.escape, d.control_tokens)), "", text)


def check_grammar(text: str, dialect: Dialect) -> None:
    reading, starts = text_reading(text, dialect)
    problems = [f"at '{text[starts[int(n)] : starts[int(n)] + 20]}': {p}" if (n := _token(p)) else p for p in reading.problems]
    if problems:
        raise CheckFailed("the structure is not well formed: " + "; ".join(problems[:3]))
    if not reading.tree.blocks:
        raise CheckFailed(f"there is no {dialect.block_open} block")
    for open_tag, close_tag in ((dialect.outline_open, dialect.outline_close), (dialect.conclusion_open, dialect.conclusion_close)):
        if text.count(open_tag) != text.count(close_tag):
            raise CheckFailed(f"there are {text.count(open_tag)} {open_tag} and {text.count(close_tag)} {close_tag}")
    if dialect.think_open in text or dialect.think_close in text:
        raise CheckFailed(f"{dialect.think_open} stands inside the reasoning")


def _token(problem: str) -> str | None:
    match = re.match(r"token (\d+) ", problem)
    return match and match[1]


def check_no_siblings(text: str, dialect: Dialect) -> None:
    """No path speaks of another one, whose tokens it cannot see."""
    reading, starts = text_reading(text, dialect)
    for block in path_texts(text, reading, starts):
        labels = [re.search(r"\d+(?:\.\d+)*", path)[0] for path in block]
        for label, path in zip(labels, block):
            others = "|".join(re.escape(other) for other in labels if other != label)
            by_label = rf"\b(?:step|part|outline|subtask|result)s?\s+\(?(?:{others})(?![.\d]*\d)"
            found = _OTHER_PATHS.search(path) or (others and re.search(by_label, path, re.IGNORECASE))
            if found:
                raise CheckFailed(f"path {label} mentions a sibling that it cannot see: '{found[0]}'")


def check_answer(final: str, answer: str) -> None:
    got = stated_answer(final)
    if got != answer:
        raise CheckFailed(f"the answer became '{got}', it was '{answer}'")
