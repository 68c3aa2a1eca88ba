"""Whether a text has the structure that the server would give it: what training and curation accept.

The grammar is total, so a text that breaks it has a meaning all the same, but not one to train towards. Such a text is refused here
with what is wrong with it. Works on any tokens: a model's, or a text's own characters (`read_text`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from multiverse.dialect import Dialect
from multiverse.labels import LabelRule, Vocabulary, may_fork_for
from multiverse.structure import Block, BlockState, Branch, ControlTokens, Tree, TreeReader


@dataclass(frozen=True)
class Reading:
    tree: Tree
    problems: list[str]  # empty: the structure is the server's


def read(tokens: Sequence[int], rule: LabelRule, encode: Callable[[str], list[int]]) -> Reading:
    """`encode`: a label and its ":" as the server would write them."""
    reader = TreeReader(tokens, rule.vocabulary.ids, rule.allows)
    tree = reader.read()
    ids = rule.vocabulary.ids
    problems = []
    closed = sum(t == ids.end_parallel for t in tokens) - sum(tokens[i] == ids.end_parallel for i in tree.malformed)
    if closed != len(tree.blocks):
        problems.append(f"{len(tree.blocks)} blocks are opened and {closed} are closed")
    last = _last_tokens(tree)
    for block in tree.blocks:
        problems += [f"block {block.index + 1} {what}" for what in _block_problems(block, tokens, tree, last, rule, encode)]
    problems += [f"token {i} is a control token where the grammar has no place for it" for i in tree.malformed]
    return Reading(tree, problems)


def _last_tokens(tree: Tree) -> dict[int, int]:
    """By branch index, the index of the last token of the branch and its descendants."""
    last: dict[int, int] = {}
    for i, branch in enumerate(tree.branch):
        while branch is not None:
            last[branch.index] = i
            branch = branch.parent
    return last


def _block_problems(block: Block, tokens, tree: Tree, last: dict[int, int], rule: LabelRule, encode) -> list[str]:
    ids = rule.vocabulary.ids
    if block.fork is None:
        return ["has no goal that forks: outlines with labels such as '1:', within the limits, then the paths"]
    labels = rule.labels(tokens[block.goal + 1 : block.fork])
    problems = []
    if len(set(labels)) != len(labels):
        problems.append("has the same label twice")
    if len(block.paths) != len(labels):
        problems.append(f"has {len(labels)} outlines and {len(block.paths)} paths")
    at = block.fork + 2
    if tokens[block.fork + 1 : at] != [ids.newline]:
        problems.append("has no separator after its goal")
    for label, path in zip(labels, block.paths):
        header = [ids.path, ids.newline, *encode(f"{label}:")]
        if path.first != at or tokens[path.first : path.first + len(header)] != header:
            problems.append(f"does not go on with the path of its outline '{label}:'")
        at = last[path.index] + 1
        if tokens[at - 2 : at] != [ids.end_path, ids.newline] or tree.branch[at - 1] is not path:
            problems.append(f"has no end of path and separator after path '{label}:'")
    if block.state is not BlockState.CONCLUDED or tokens[at : at + 2] != [ids.conclusion, ids.newline]:
        problems.append("has no conclusion after its last path")
    return problems


def text_reading(text: str, dialect: Dialect, max_paths: int = 128, max_depth: int = 6) -> tuple[Reading, list[int]]:
    """A text read by its characters, each control token as one; the reading and, for each token, where it starts in the text."""
    pieces, starts, at = [], [], 0
    for part in re.split("(" + "|".join(map(re.escape, dialect.control_tokens)) + ")", text):
        for piece in [part] if part in dialect.control_tokens else part:
            pieces.append(piece)
            starts.append(at)
            at += len(piece)
    names = sorted(set(pieces) | set(dialect.control_tokens) | set("0123456789.:" + dialect.separator))
    id_of = {name: i for i, name in enumerate(names)}
    rule = may_fork_for(_vocabulary(id_of, dialect), max_paths, max_depth)
    return read([id_of[piece] for piece in pieces], rule, lambda label: [id_of[c] for c in label]), starts


def _vocabulary(id_of: dict[str, int], dialect: Dialect) -> Vocabulary:
    label = frozenset(id_of[c] for c in "0123456789.:")
    d = dialect
    ids = ControlTokens(
        id_of[d.block_open] if d.block_open else None,
        *(id_of[t] for t in (d.block_close or d.conclusion_close, d.goal_open, d.fork, d.path_open, d.path_close, d.conclusion_open)),
        id_of[d.separator], label, frozenset([id_of[":"]]),
    )  # fmt: skip
    token_bytes = tuple(name.encode("utf-8", "surrogatepass") for name in id_of)
    added = frozenset(id_of[t] for t in d.control_tokens)
    return Vocabulary(ids, id_of[d.outline_open], id_of[d.outline_close], id_of[d.conclusion_close], token_bytes, added, d.max_depth)


def path_texts(text: str, reading: Reading, starts: list[int]) -> list[list[str]]:
    """By forked block, what stands in each of its paths, control tokens of inner blocks included."""
    last = _last_tokens(reading.tree)
    ends = [*starts[1:], len(text)]

    def inside(path: Branch) -> str:
        return text[starts[path.first] : ends[last[path.index]]]

    return [[inside(path) for path in block.paths] for block in reading.tree.blocks if block.paths]
