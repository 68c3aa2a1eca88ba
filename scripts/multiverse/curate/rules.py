"""Structured answers without a model: reasoning that is already itemised has its lists turned into blocks.

A run is two or more items with the same kind of mark ("1.", "(a)", "- ", "Case 2", "First term:"), one after the other. It becomes a block where the
items are long enough to be worth a fork and nothing shows that one needs another: no item speaks of its siblings, and none uses a
number or a name that an earlier one brought in. Careful rather than complete: a false block would teach the model to use what it cannot see.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from multiverse.curate import checks
from multiverse.curate.checks import CheckFailed
from multiverse.curate.items import Item
from multiverse.curate.stages import Rejected
from multiverse.dialect import Dialect

LEAST_CHARACTERS = 40  # of an item, on average in a run: below, a path costs more than it saves
MOST_ITEMS = 16

_ORDINALS = {word: n for n, word in enumerate(("first", "second", "third", "fourth", "fifth", "sixth"), 1)}
_MARKS = (
    ("number", re.compile(r"^(\s*)(\d{1,2})[.)]\s+")),
    ("bracket", re.compile(r"^(\s*)\(?([a-h]|\d{1,2})\)\s+")),
    ("named", re.compile(r"^(\s*)\**((?:case|option|part|scenario|possibility|subcase)\s+(?:\d+|[A-H])\b)", re.IGNORECASE)),
    ("ordinal", re.compile(r"^(\s*)((?:first|second|third|fourth|fifth|sixth)\s+(?:term|equation|part|factor|case|sum|condition|column|row|inequality))\b", re.IGNORECASE)),
    ("bullet", re.compile(r"^(\s*)([-*•])\s+")),
)  # fmt: skip
_ENDS_RUN = re.compile(r"^\s*(?:\*\*|#|so\b|therefore|thus|hence|now\b|overall|in total|adding|combining|altogether|together|then\b|wait\b|but\b|let\b|okay|hmm|alternatively|"
                       r"next\b|finally|since\b|given\b|from\b|these\b|which\b|that\b|and\b|this\b)", re.IGNORECASE)  # fmt: skip
_REFERS = re.compile(r"\b(?:previous|former|latter|above|as before|similarly|likewise|same (?:way|as)|again|remaining|the rest|"
                     r"other (?:case|term|equation|part|one)s?|both|from (?:step|case|part|\()|substitut\w+|we (?:got|found|have found)|"
                     r"(?:case|step|part|equation|option)s?\s+\(?\d+\)?)\b|\(\d\)|^(?:then|and|but|so|thus|therefore|hence)\b", re.IGNORECASE)  # fmt: skip
_LIST_MARK = re.compile(r"^\s*(?:[-*•]|\(?\w{1,2}[.)])\s+")
_NAME = re.compile(r"^\**(?:(?:case|option|part|scenario|possibility|subcase)\s+\w+|\w+\s+(?:term|equation|part|factor|case|condition)\b)", re.IGNORECASE)
_VALUE = re.compile(r"\d+(?:[.,/]\d+)*|(?<![A-Za-z\\])[A-Za-z](?:_?\w)?(?=\s*=(?!=))")


@dataclass(frozen=True)
class Run:
    """Lines [start, end) of a text, and where each item starts."""

    start: int
    end: int
    starts: list[int]
    kind: str


def find_runs(lines: list[str]) -> list[Run]:
    """Maximal runs of items, not overlapping."""
    runs, at = [], 0
    while at < len(lines):
        run = next(filter(None, (_run_at(lines, at, kind, mark) for kind, mark in _MARKS)), None)
        if run:
            runs.append(run)
        at = run.end if run else at + 1
    return runs


def _run_at(lines: list[str], at: int, kind: str, mark: re.Pattern) -> Run | None:
    first = mark.match(lines[at])
    if not first or _number(first[2]) not in (None, 1):
        return None
    starts, longest, i = [at], 0, at + 1
    while i < len(lines) and len(starts) < MOST_ITEMS:
        match = mark.match(lines[i])
        if match and match[1] == first[1]:
            if _number(match[2]) not in (None, len(starts) + 1):
                break
            longest = max(longest, i - starts[-1])
            starts.append(i)
        elif kind in ("number", "bracket", "bullet") and _ENDS_RUN.match(lines[i]) and not lines[i].startswith((" ", "\t")):
            break  # a list goes on only while nothing at its margin draws a conclusion
        i += 1
    if len(starts) < 2:
        return None
    # The last item has no next one to end it: it is at most as long as the longest before it, and ends where a conclusion begins.
    end = starts[-1] + 1
    while end < len(lines) and end - starts[-1] < longest and lines[end].strip() and not _ENDS_RUN.match(lines[end]):
        end += 1
    return Run(at, end, starts, kind)


def _number(mark: str) -> int | None:
    """What the mark counts to; None where it doesn't count."""
    word = re.sub(r"^\w+\s+", "", mark) if re.match(r"(?i)(?:case|option|part|scenario|possibility|subcase)\s", mark) else mark
    if word.isdigit():
        return int(word)
    ordinal = _ORDINALS.get(mark.split()[0].lower())
    return ordinal if ordinal else ord(word.lower()) - ord("a") + 1 if re.fullmatch(r"[A-Ha-h]", word) else None


def items_of(run: Run, lines: list[str]) -> list[str]:
    bounds = [*run.starts, run.end]
    return ["\n".join(lines[a:b]).strip() for a, b in zip(bounds, bounds[1:])]


def dependent(parts: list[str], context: str) -> str | None:
    """Why the items cannot stand side by side; None where nothing shows that."""
    known = set(_VALUE.findall(context))
    brought: dict[str, int] = {}
    for number, part in enumerate(parts, 1):
        body = _NAME.sub("", unmarked(part))
        refers = _REFERS.search(body)
        if refers:
            return f"item {number} says '{refers[0]}'"
        values = set(_VALUE.findall(body))
        used = sorted(v for v in values if v in brought and (len(v) > 1 or v.isalpha()))
        if used:
            return f"item {number} uses '{used[0]}' of item {brought[used[0]]}"
        for value in values - known:
            brought.setdefault(value, number)
    return None


def title(part: str) -> str:
    """What an item is about, for its outline: what stands before its colon or its result, a few words."""
    head = re.split(r":\s|\s=\s|[.;,]\s", unmarked(part.splitlines()[0]).replace("**", ""), maxsplit=1)[0]
    return " ".join(head.split()[:10]).rstrip(":.,; ") or "this part"


def result(part: str) -> str:
    """What an item found, for the conclusion: its last statement, of a chain of equations the last side."""
    last = re.split(r"(?<=[.;])\s+", unmarked(part).splitlines()[-1].strip())[-1]
    side = last.rsplit(" = ", 1)[-1]
    return f"{title(part)}: {side}" if side != last and side.count("(") == side.count(")") else last


def unmarked(part: str) -> str:
    """An item without its bullet or number; the path's label takes its place."""
    return _LIST_MARK.sub("", part)


def block(parts: list[str], dialect: Dialect) -> str:
    d, n = dialect, dialect.separator
    outlines = "".join(f"{d.outline_open}{n}{k}: {title(p)}{n}{d.outline_close}{n}" for k, p in enumerate(parts, 1))
    paths = "".join(f"{d.path_open}{n}{k}: {p}{n}{d.path_close}{n}" for k, p in enumerate(map(unmarked, parts), 1))
    results = "".join(f"{k}: {result(p)}{n}" for k, p in enumerate(parts, 1))
    return f"{d.block_open}{n}{d.goal_open}{n}{outlines}{d.fork}{n}{paths}{d.conclusion_open}{n}{results}{d.conclusion_close}{n}{d.block_close}"


def convert(item: Item, dialect: Dialect) -> tuple[str, dict]:
    """The structured reasoning, and how many blocks it got. Rejected where no run is fit."""
    if any(token in item.reasoning for token in dialect.control_tokens):
        raise Rejected("rules", "the reasoning has control tokens already", [])
    lines, out, at, blocks, why = item.reasoning.split("\n"), [], 0, 0, []
    for run in find_runs(lines):
        parts = items_of(run, lines)
        length = sum(map(len, parts)) / len(parts)
        context = item.question + "\n".join(lines[: run.start])
        reason = f"its items have {length:.0f} characters on average" if length < LEAST_CHARACTERS else dependent(parts, context)
        text = None if reason else block(parts, dialect)
        if text:
            try:
                checks.check_grammar(text, dialect)
                checks.check_no_siblings(text, dialect)
            except CheckFailed as error:
                reason = str(error)
        if reason:
            why.append(f"line {run.start + 1}, {len(parts)} items: {reason}")
            continue
        out += [*lines[at : run.start], text]
        at, blocks = run.end, blocks + 1
    if not blocks:
        raise Rejected("rules", "no itemised part can run in parallel" if why else "nothing is itemised", why[:20])
    text = "\n".join([*out, *lines[at:]])
    try:
        checks.check_grammar(text, dialect)
        checks.check_answer(item.final, item.answer)
    except CheckFailed as error:
        raise Rejected("rules", str(error), why[:20]) from error
    similarity = round(checks.similarity(checks.plain(text, dialect), item.reasoning), 3)
    return text, {"rules": 1, "blocks": blocks, "runs_left": why[:20], "similarity": similarity}
