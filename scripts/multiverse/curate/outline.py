"""The summary tree that stages 1 and 2 speak in, and the skeleton of stage 3."""

from __future__ import annotations

import re

from multiverse.curate.checks import CheckFailed, check_grammar
from multiverse.dialect import Dialect

MAX_STEPS, MAX_DEPTH, MAX_TITLE = 200, 4, 300
_LINE = re.compile(r"^\s*(?:[-*]\s*)?(\d+(?:\.\d+)*)\s*[:.)]\s*(.+?)\s*$")
PLACEHOLDER = re.compile(r"\[\[(\d+(?:\.\d+)*)\]\]")


def parse_tree(text: str) -> dict[str, str]:
    """Label → title, in order. Lines that are no steps are left out."""
    steps: dict[str, str] = {}
    for match in filter(None, map(_LINE.match, text.splitlines())):
        label, title = match[1], match[2]
        if label in steps:
            raise CheckFailed(f"step {label} is there twice")
        parent, _, number = label.rpartition(".")
        if parent and parent not in steps:
            raise CheckFailed(f"step {label} stands before its parent {parent}")
        before = f"{parent}.{int(number) - 1}" if parent else str(int(number) - 1)
        if int(number) != 1 and before not in steps:
            raise CheckFailed(f"step {label} does not follow {before}")
        if label.count(".") >= MAX_DEPTH or len(title) > MAX_TITLE or len(steps) >= MAX_STEPS:
            raise CheckFailed(f"the tree is larger than {MAX_DEPTH} levels, {MAX_STEPS} steps, {MAX_TITLE} characters a title")
        steps[label] = title
    if len(steps) < 2:
        raise CheckFailed("there are fewer than two steps: write one a line, as '1: title', substeps as '1.1: title'")
    return steps


def leaves(steps: dict[str, str]) -> list[str]:
    return [label for label in steps if f"{label}.1" not in steps]


def parse_groups(text: str, steps: dict[str, str]) -> list[list[str]]:
    """Groups of siblings that can run at once, from lines 'parallel: 1.1, 1.2'; empty for 'none'."""
    groups = [re.findall(r"\d+(?:\.\d+)*", m[1]) for m in re.finditer(r"^\s*parallel\s*:(.*)$", text, re.MULTILINE | re.IGNORECASE)]
    if not groups and not re.search(r"^\s*none\.?\s*$", text, re.MULTILINE | re.IGNORECASE):
        raise CheckFailed("there is neither a line 'parallel: LABEL, LABEL' nor the line 'none'")
    seen: set[str] = set()
    for group in groups:
        unknown = [label for label in group if label not in steps]
        if unknown:
            raise CheckFailed(f"the tree has no step {', '.join(unknown)}")
        if len(group) < 2 or len({label.rpartition(".")[0] for label in group}) != 1:
            raise CheckFailed(f"'parallel: {', '.join(group)}' is not two or more steps with one parent")
        numbers = [int(label.rpartition(".")[2]) for label in group]
        if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
            raise CheckFailed(f"'parallel: {', '.join(group)}' leaves out steps in between")
        if seen & set(group):
            raise CheckFailed(f"step {sorted(seen & set(group))[0]} is in two groups")
        seen |= set(group)
    return groups


def check_skeleton(text: str, steps: dict[str, str], groups: list[list[str]], dialect: Dialect) -> None:
    """Every leaf step stands once as [[label]], in order; one block for each group, with a path for each of its steps."""
    placed, wanted = PLACEHOLDER.findall(text), leaves(steps)
    if placed != wanted:
        raise CheckFailed(f"the placeholders are {placed[:20]}, they must be {wanted[:20]}, each once and in this order")
    check_grammar(text, dialect)
    blocks, paths = text.count(dialect.block_open), text.count(dialect.path_open)
    if blocks != len(groups) or paths != sum(map(len, groups)):
        raise CheckFailed(f"there are {blocks} blocks with {paths} paths, the groups ask for {len(groups)} with {sum(map(len, groups))}")


def parse_refill(text: str, steps: dict[str, str], dialect: Dialect) -> dict[str, str]:
    """Leaf label → its original reasoning, from sections '### LABEL'."""
    parts = re.split(r"^###[ \t]*(\d+(?:\.\d+)*)[ \t]*:?[^\n]*$", text, flags=re.MULTILINE)
    filled = {label: body.strip() for label, body in zip(parts[1::2], parts[2::2])}
    missing = [label for label in leaves(steps) if not filled.get(label)]
    if missing or len(parts[1::2]) != len(filled) or set(filled) - set(leaves(steps)):
        raise CheckFailed(f"the sections must be one '### LABEL' for each of {leaves(steps)[:20]}; missing or empty: {missing[:20]}")
    for label, body in filled.items():
        if any(token in body for token in dialect.control_tokens):
            raise CheckFailed(f"section {label} has tags; it must be the original reasoning only")
    return filled
