"""Every row of the contract's table "when the model breaks the grammar", in branches of every depth, in both kinds of
dialect: what the scheduler writes, lets each draw see and counts is what the oracle makes of the finished text.

Each row is a branch that misbehaves, deep in a tree of forks whose other branches behave. `generation_check` draws what
the row says and tells what each draw saw in the executor's pages.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "dialect"))

from test_structure_against_oracle import (  # noqa: E402  (the same small vocabulary)
    COLON,
    CONCLUSION,
    DIGIT,
    END_CONCLUSION,
    END_GOAL,
    END_OF_TEXT,
    END_OUTLINE,
    END_PARALLEL,
    END_PATH,
    FLAT,
    GOAL,
    NEWLINE,
    OUTLINE,
    PARALLEL,
    PATH,
    VOCABULARY,
    WORD,
)
from multiverse.labels import may_fork_for  # noqa: E402
from multiverse.structure import reference  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "build/release/tests/generation_check"
PROMPT = [WORD, WORD + 1]
A, B = WORD + 2, WORD + 3  # words of the branch that misbehaves
STOP_TOKEN = WORD + 30


@dataclass
class Case:
    """Draws of the branch that misbehaves, up to where it would end by itself, and what must come of it."""

    body: list[int]
    malformed: int = 0
    forks: int = 0  # of the branch itself
    limits: dict = field(default_factory=dict)
    reason: str = "stop"
    forced_ends: int | None = None  # path ends that the engine wrote; None: the row says nothing of them
    ends_alone: bool = True  # False: the branch draws on for ever
    paths: list[list[int]] = field(default_factory=list)  # draws of the paths that the branch itself forks


@dataclass(frozen=True)
class Tree:
    """The tokens of a dialect's structure around a branch of some depth."""

    flat: bool
    depth: int

    def open(self):
        return [] if self.flat else [PARALLEL]

    def close(self):
        return [END_CONCLUSION] if self.flat else [END_CONCLUSION, END_PARALLEL]

    def shut(self):
        """Ends a block that did not fork."""
        return [END_CONCLUSION] if self.flat else [END_PARALLEL]

    def plan(self, labels):
        outlines = [t for label in labels for t in (OUTLINE, DIGIT + label, COLON, A, END_OUTLINE)]
        return [*self.open(), GOAL, *outlines, END_GOAL]

    def draws(self, case):
        """Of all branches: each ancestor forks in two and the first path goes on; the others behave."""
        address, draws = "", {}
        for _ in range(self.depth):
            draws[address] = [WORD + 4, *self.plan([1, 2]), WORD + 5, *self.close()]
            if address:
                draws[address].append(END_PATH)
            prefix = f"{address}/" if address else ""
            draws[f"{prefix}1.2"] = [WORD + 6, WORD + 7, WORD + 8, END_PATH]
            address = f"{prefix}1.1"
        ending = [END_PATH] if self.depth else []
        draws[address] = [A, *case.body, *([B, *ending] if case.ends_alone else [])]
        for number, path in enumerate(case.paths, 1):
            draws[f"{address}/1.{number}" if address else f"1.{number}"] = path
        return draws


ONE, TWO = [A, END_PATH], [A, B, A, END_PATH]  # paths that the misbehaving branch forks


def stray(tree, *tokens, malformed=1):
    return Case(list(tokens), malformed)


def end_outside(tree):
    # At the root; "depth" is that of the blocks open there.
    return Case([*tree.open() * (tree.depth or 1), END_PATH, A], malformed=1)


def path_in_block(tree):
    # Its end closes it alone, also inside a path.
    if tree.flat:
        return Case([GOAL, END_GOAL, PATH, A, END_PATH, B, *tree.shut()], malformed=2)
    return Case([PARALLEL, PATH, A, END_PATH, B, END_PARALLEL], malformed=2)


def second_goal(tree):
    return Case([*tree.open(), GOAL, GOAL, END_GOAL, A, *tree.shut()], malformed=1)


def goal_after_fork(tree):
    case = Case([*tree.plan([1]), A, GOAL, END_GOAL, B, *tree.close()], malformed=2, forks=1, paths=[ONE])
    return case


def parallel_in_goal(tree):
    body = tree.plan([1, 2])
    return Case([*body[:2], PARALLEL, *body[2:], A, *tree.close()], malformed=1, forks=1, paths=[ONE, TWO])


def abandoned(tree):
    return Case([*tree.open(), *tree.open(), GOAL, OUTLINE, DIGIT + 1, COLON, END_OUTLINE], malformed=0)


def pairs(tree, labels, **limits):
    """A goal that may not fork; the pairs that the model then writes are ordinary, and close nothing else."""
    body = [*tree.plan(labels), NEWLINE, PATH, A, END_PATH, NEWLINE, PATH, B, END_PATH, CONCLUSION, A, *tree.shut()]
    return Case(body, malformed=5, limits=limits)


def no_label(tree):
    body = [*tree.open(), GOAL, OUTLINE, A, COLON, END_OUTLINE, OUTLINE, DIGIT + 1, A, END_OUTLINE, END_GOAL, B, *tree.shut()]
    return Case(body)


def long_label(tree):
    label = [DIGIT + 1] * 33
    return Case([*tree.open(), GOAL, OUTLINE, *label, COLON, END_OUTLINE, END_GOAL, B, *tree.shut()])


def same_label(tree):
    return Case([*tree.plan([1, 1, 2]), A, *tree.close()], forks=1, paths=[ONE, TWO, ONE])


def end_of_text(tree):
    return Case([*tree.open(), A, END_OF_TEXT], forced_ends=1, ends_alone=False)


def end_of_text_in_plain_pair(tree):
    # Read back, one end would close the pair alone: the engine writes two.
    goal = [GOAL, END_GOAL] if tree.flat else [PARALLEL]
    return Case([*goal, PATH, A, END_OF_TEXT], malformed=2, forced_ends=2, ends_alone=False)


def path_limit(tree):
    return Case([A, B] * 60, limits={"max_path_tokens": 60}, forced_ends=1, ends_alone=False)


def context_limit(tree):
    # The path is closed, and what stands around it as far as positions go.
    return Case([A, B] * 200, limits={"max_model_len": 240}, forced_ends=1, ends_alone=False, reason="any")


def budget(tree, name, least):
    return Case([A, B] * 200, limits={name: least + 40 * tree.depth}, reason="length", ends_alone=False)


def stop_token(tree):
    return Case([A, B, STOP_TOKEN], limits={"stop_tokens": [STOP_TOKEN]}, ends_alone=False)


EVERYWHERE, IN_PATHS = (0, 1, 2, 4), (1, 2, 4)
# What the branch does -> depths of the branch, the case.
ROWS: dict[str, tuple[tuple[int, ...], Callable[[Tree], Case]]] = {
    "</Path> outside a path, in so many open blocks": (EVERYWHERE, end_outside),
    "<Path> of its own accord": (EVERYWHERE, lambda tree: Case([PATH, A], malformed=1)),
    "<Path> of its own accord in a block, and its end": (EVERYWHERE, path_in_block),
    "<Conclusion> of its own accord": (EVERYWHERE, lambda tree: Case([CONCLUSION, A], malformed=1)),
    "<Goal> inside a goal": (EVERYWHERE, second_goal),
    "<Goal> in a block that has forked": (EVERYWHERE, goal_after_fork),
    "<Goal> outside a block": (EVERYWHERE, lambda tree: Case([GOAL, A], malformed=1)),
    "</Goal> without <Goal>": (EVERYWHERE, lambda tree: Case([END_GOAL, A], malformed=1)),
    "<Parallel> inside a goal": (EVERYWHERE, parallel_in_goal),
    "</Path> while blocks of the path are open": (IN_PATHS, abandoned),
    "</Goal> with no readable label": (EVERYWHERE, no_label),
    "</Goal> with a label of more than 32 bytes": (EVERYWHERE, long_label),
    "</Goal> with more than max_paths, then pairs": (EVERYWHERE, partial(pairs, labels=[1, 2, 3], max_paths=2)),
    "</Goal> deeper than max_depth, then pairs": (EVERYWHERE, None),  # set below: the limit is the depth
    "the same label twice": (EVERYWHERE, same_label),
    "end-of-text inside a path": (IN_PATHS, end_of_text),
    "end-of-text inside an ordinary pair of a path": (IN_PATHS, end_of_text_in_plain_pair),
    "a path reaches max_path_tokens": (IN_PATHS, path_limit),
    "a path reaches the context limit": (IN_PATHS, context_limit),
    "the request's max_tokens run out": (EVERYWHERE, partial(budget, name="max_tokens", least=50)),
    "the request's max_request_tokens run out": (EVERYWHERE, partial(budget, name="max_request_tokens", least=60)),
    "a stop token": (EVERYWHERE, stop_token),
}
ROWS["</Goal> deeper than max_depth, then pairs"] = (
    EVERYWHERE,
    lambda tree: pairs(tree, [1, 2], max_depth=tree.depth),
)
# The dialect has no token that opens a block beside that of the goal, and its paths don't fork.
NOT_FLAT = {"<Parallel> inside a goal", "<Goal> outside a block", "<Goal> in a block that has forked"}
FORKING = {"the same label twice"}


def generate(cases):
    lines = "".join(json.dumps(case) + "\n" for case in cases)
    output = subprocess.run([TOOL], input=lines, capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in output.splitlines()]


def check(tree, case, made):
    """Against the oracle's reading of the finished text."""
    vocabulary = FLAT if tree.flat else VOCABULARY
    rule = may_fork_for(vocabulary, case.limits.get("max_paths", 128), case.limits.get("max_depth", 6))
    kept = made["tokens"][: made["well_ordered"]]
    if "stop_tokens" in case.limits:  # what the API shows: nothing of what stands behind the branch that drew it
        last = max(i for i, token in enumerate(kept) if token["token"] == B)
        kept = kept[: last + 1]
    text = [*PROMPT, *(token["token"] for token in kept)]
    wanted = reference(text, vocabulary.ids, rule)
    visible = wanted.visible
    for i, token in enumerate(kept, len(PROMPT)):
        engine_end = token["token"] == END_PATH and token["forced"]  # reads as drawn
        assert token["forced"] == wanted.forced[i] or engine_end, f"token {i} of {text}"
        if token["forced"]:
            continue
        before = wanted.previous[i]
        seen = [[text[j], wanted.position[j]] for j in range(before + 1) if visible[before][j]]
        assert token["seen"] == seen, f"what token {i} of {text} was drawn from"
    if len(kept) == len(made["tokens"]) and made["reason"] == "stop":
        assert made["malformed"] == len(wanted.malformed), text
    return wanted


@pytest.mark.parametrize("flat", [False, True], ids=["multiverse", "npr-like"])
@pytest.mark.parametrize("row", ROWS)
def test_row(row, flat, capsys):
    depths, make = ROWS[row]
    if flat:
        if row in NOT_FLAT:
            pytest.skip("the dialect has no such token, or no such place for it")
        depths = tuple(depth for depth in depths if depth < (1 if row in FORKING else 2))
    outside = make is end_outside
    trees = [Tree(flat, depth) for depth in depths]
    cases = [make(tree) for tree in trees]
    lines = [
        {"flat": flat, "prompt": PROMPT, "draws": (Tree(flat, 0) if outside else tree).draws(case), **case.limits}
        for tree, case in zip(trees, cases)
    ]
    for tree, case, made in zip(trees, cases, generate(lines), strict=True):
        around = 0 if outside else tree.depth
        place = f"{row}, depth {tree.depth}: {made}"
        check(tree, case, made)
        assert case.reason in (made["reason"], "any"), place
        if case.reason == "stop" and "stop_tokens" not in case.limits:
            assert made["malformed"] == case.malformed, place
            assert made["paths"] == 2 * around + case.forks * len(case.paths), place
            assert made["max_depth"] == around + case.forks, place
        if case.forced_ends is not None:
            ends = [t for t in made["tokens"] if t["token"] == END_PATH and t["forced"]]
            assert len(ends) >= case.forced_ends if case.reason == "any" else len(ends) == case.forced_ends, place
            assert all(t["token"] != END_OF_TEXT for t in made["tokens"]), place
        if case.reason == "length":
            limit = case.limits.get("max_tokens") or case.limits["max_request_tokens"] - len(PROMPT)
            assert made["completion_tokens"] == limit, place
        if "stop_tokens" in case.limits:
            text = [t["token"] for t in made["tokens"]]
            assert STOP_TOKEN not in text and CONCLUSION not in text and text.count(B) == 1, place
    with capsys.disabled():
        print(f"\n  {'npr-like' if flat else 'multiverse'}: {row}: depths {' '.join(map(str, depths))}", end="")
