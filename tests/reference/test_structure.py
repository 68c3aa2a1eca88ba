"""The oracle's own checks: cases small enough to write out by hand, and equality with the contract's reference."""

import dataclasses
import importlib.util
import json
import os
import random
import sys
from pathlib import Path

import pytest

from multiverse.labels import Vocabulary, may_fork_for
from multiverse.structure import ControlTokens, Counts, critical_path, reference, steps, trees

SHARED = Path(__file__).resolve().parents[3] / "shared"

P, P_, G, G_, A, A_, C, NL = 100, 101, 102, 103, 104, 105, 106, 9
O, O_ = 107, 108
IDS = ControlTokens(P, P_, G, G_, A, A_, C, NL)
# 0:1 1:<Parallel> 2:<Goal> 3:</Goal> 4:⏎ | 5:<Path> 6:11 7:</Path> 8:⏎
# 9:<Path> 10:21 11:22 12:</Path> 13:⏎ | 14:<Conclusion> 15:3
BLOCK = [1, P, G, G_, NL, A, 11, A_, NL, A, 21, 22, A_, NL, C, 3]


def seen(tree, i):
    return [j for j, sees in enumerate(tree.visible[i]) if sees]


def forced(tree):
    return [i for i, is_forced in enumerate(tree.forced) if is_forced]


def assert_plain(tokens, malformed):
    tree = reference(tokens, IDS)
    assert tree.malformed == malformed
    assert tree.position == tree.step == tree.token_step == list(range(len(tokens)))
    assert all(all(row) for row in tree.visible)


# Shape


def test_empty_text():
    assert reference([], IDS).position == []
    assert critical_path([], IDS) == steps([], IDS) == 0


def test_plain_text_is_causal():
    assert_plain([1, 2, 3], malformed=[])
    assert reference([1, 2, 3], IDS).previous == [None, 0, 1]


def test_block():
    tree = reference(BLOCK, IDS)
    assert tree.position == [0, 1, 2, 3, 4, 4, 5, 6, 7, 4, 5, 6, 7, 8, 8, 9]
    assert forced(tree) == [4, 5, 8, 9, 13, 14]
    assert seen(tree, 6) == [0, 1, 2, 3, 4, 5, 6]
    assert seen(tree, 11) == [0, 1, 2, 3, 4, 9, 10, 11]
    assert seen(tree, 13) == [0, 1, 2, 3, 4, 9, 10, 11, 12, 13]
    assert seen(tree, 15) == list(range(16))
    assert tree.owners[7] == {0: 0} and tree.owners[8] == {0: 0} and tree.owners[13] == {0: 1} and tree.owners[14] == {}
    assert tree.previous == [None, 0, 1, 2, None, None, 5, 6, None, None, 9, 10, 11, None, None, 14]


def test_block_chains():
    tree = reference(BLOCK, IDS)
    # Both paths' first tokens come from the pass after </Goal>'s, the conclusion's from the one after the last </Path>.
    assert tree.step == [0, 1, 2, 3, 3, 3, 4, 5, 5, 3, 4, 5, 6, 6, 6, 7]
    assert tree.token_step == [0, 1, 2, 3, 4, 5, 6, 7, 8, 5, 6, 7, 8, 9, 10, 11]
    assert steps(BLOCK, IDS) == 8
    assert critical_path(BLOCK, IDS) == 12
    assert trees(BLOCK, IDS) == Counts(16, 12, 8, 1, 2, 2, 1, 0)


def test_counters_leave_the_prompt_aside():
    # The prompt ends inside path 2: only what follows counts, as a chain of its own.
    assert trees(BLOCK, IDS, start=11) == Counts(
        tokens=5, critical_path_tokens=5, steps=3, blocks=0, paths=0, max_width=0, max_depth=0, malformed=0
    )
    # The prompt ends with the goal: separator and headers are generated, but drawn by nobody.
    assert trees(BLOCK, IDS, start=4) == Counts(12, 8, 4, 1, 2, 2, 1, 0)


def test_nested_block():
    inner = [P, G, G_, NL, A, 31, A_, NL, A, 41, A_, NL, C, 5, P_]
    tokens = [P, G, G_, NL, A, *inner, A_, NL, A, 51, A_, NL, C, 6, P_, 7]
    tree = reference(tokens, IDS)
    assert tokens.index(31) not in seen(tree, tokens.index(41))
    assert tokens.index(31) in seen(tree, tokens.index(5))
    assert seen(tree, tokens.index(51)) == [0, 1, 2, 3, tokens.index(51) - 1, tokens.index(51)]
    assert seen(tree, len(tokens) - 1) == list(range(len(tokens)))
    assert trees(tokens, IDS).max_depth == 2 and trees(tokens, IDS).paths == 4


def test_two_blocks_in_a_row_see_each_other():
    tokens = [*BLOCK, P_, *BLOCK]
    tree = reference(tokens, IDS)
    in_second = len(BLOCK) + 1 + 6
    assert seen(tree, in_second) == list(range(in_second + 1))


def test_text_without_separators():
    tokens = [P, G, G_, A, 11, A_, A, 21, A_, C, 3]
    tree = reference(tokens, IDS)
    assert tree.position == [0, 1, 2, 3, 4, 5, 3, 4, 5, 6, 7]
    assert forced(tree) == [3, 6, 9]
    assert tree.token_step == [0, 1, 2, 3, 4, 5, 3, 4, 5, 6, 7]


def test_goal_forks_only_before_a_path_or_the_end():
    for tail, forks in (([], True), ([NL], True), ([NL, A], True), ([A], True), ([NL, 1], False), ([NL, NL, A], False)):
        tree = reference([P, G, G_, *tail, 1], IDS) if tail else reference([P, G, G_], IDS)
        cut = reference([P, G, G_, *tail], IDS)
        assert (cut.blocks[0].fork == 2) is forks, tail
        if A in tail:
            assert (tree.blocks[0].fork == 2) is forks, tail


def test_label_ends_at_its_colon():
    one, two, colon = 1, 2, 3
    ids = dataclasses.replace(IDS, label=frozenset([one, two, colon]), label_end=frozenset([colon]))
    assert forced(reference([7, P, G, G_, NL, A, NL, one, colon, two, 8], ids)) == [4, 5, 6, 7, 8]
    # A header that breaks off ends the engine's part: the 1 after the 8 is the model's.
    assert forced(reference([7, P, G, G_, NL, A, NL, one, 8, one, colon], ids)) == [4, 5, 6, 7]
    assert forced(reference([7, P, G, G_, NL, A, one, colon], ids)) == [4, 5]


# Malformed text


@pytest.mark.parametrize("tokens", [[1, A, 2], [1, A_], [1, C, 2], [1, P_], [1, G, 2], [1, G_]])
def test_strays_are_ordinary_tokens(tokens):
    assert_plain(tokens, malformed=[1])


def test_what_a_goal_has_no_place_for():
    tree = reference([P, G, P, G, G_, NL, A, 5], IDS)
    assert tree.malformed == [2, 3]
    assert tree.blocks[0].fork == 4 and tree.blocks[0].goal == 1


def test_a_second_goal_after_the_fork_is_stray():
    assert reference([P, G, G_, NL, A, 1, A_, NL, G, G_], IDS).malformed == [8, 9]


def test_ending_a_path_abandons_its_open_blocks():
    tokens = [1, P, G, G_, NL, A, P, G, 8, A_, NL, A, 21, A_, NL, C, 3]
    tree = reference(tokens, IDS)
    assert tree.malformed == []
    assert seen(tree, len(tokens) - 1) == list(range(len(tokens)))
    assert 6 not in seen(tree, tokens.index(21))


def test_refused_fork_runs_sequentially_and_counts_its_pairs():
    tokens = [1, P, G, G_, NL, A, 11, A_, NL, A, 21, A_, NL, C, 3, P_]
    tree = reference(tokens, IDS, may_fork=lambda tokens, i: False)
    assert all(all(row) for row in tree.visible)
    assert tree.malformed == [5, 7, 9, 11, 13]


def test_plain_pair_inside_a_path_does_not_end_it():
    tokens = [P, G, G_, NL, A, P, A, 1, A_, 2, P_, A_, NL, A, 3]
    tree = reference(tokens, IDS)
    assert tree.malformed == [6, 8]
    assert tree.owners[9] == {0: 0} and tree.owners[14] == {0: 1}


def test_interloper_between_paths_belongs_to_the_parent():
    tokens = [P, G, G_, NL, A, 1, A_, NL, 8, A, 2, A_, NL, C]
    tree = reference(tokens, IDS)
    assert tree.owners[8] == {} and tree.position[8] == 7 and tree.previous[8] == 7
    assert seen(tree, 8) == list(range(9))
    assert seen(tree, 10) == [0, 1, 2, 3, 8, 9, 10]
    assert tree.malformed == []


def test_path_and_conclusion_after_the_conclusion_are_stray():
    assert reference([*BLOCK, A, 1, A_, C], IDS).malformed == [16, 18, 19]


# Labels: a vocabulary written out by hand, byte per byte

WORDS = {ord(c): c.encode() for c in "0123456789.: \n\tx"} | {64: b":\n", 65: b"12", 66: b" 1", 67: b".:", 68: b"1a"}
BYTES = tuple({O: b"<Outline>", O_: b"</Outline>"}.get(i, WORDS.get(i, b"")) for i in range(109))
LABEL = frozenset(i for i, word in WORDS.items() if word and set(word) <= set(b"0123456789.:"))
TEXT_IDS = dataclasses.replace(IDS, newline=10, label=LABEL, label_end=frozenset(i for i in LABEL if b":" in WORDS[i]))
VOCABULARY = Vocabulary(TEXT_IDS, O, O_, 109, BYTES, frozenset([O, O_]))


def outline(text):
    return [O, *map(ord, text), O_]


@pytest.mark.parametrize(
    ("tokens", "labels"),
    [
        (outline("1:"), ["1"]),
        (outline("\n 1.2.3: x"), ["1.2.3"]),
        (outline("1: x") + outline("x") + outline("1:"), ["1", "1"]),
        (outline("x1:"), []),
        (outline("1 :"), []),
        (outline("1.:"), []),
        (outline(".1:"), []),
        (outline("1"), []),
        (outline(""), []),
        ([O, O, ord("1"), ord(":")], ["1"]),
        ([O, ord("1"), 64], ["1"]),  # a token that starts with ":"
        ([O, 65, 67], []),  # "12.:"
        ([O, 66, 65, ord(":")], ["112"]),  # " 1" "12" ":"
        ([O, 68, ord(":")], []),  # "1a" is no label token
        ([ord("1"), ord(":")], []),
        (outline("1" * 32 + ":"), ["1" * 32]),
        (outline("1" * 33 + ":"), []),
        (outline(".".join("1" * 16) + ":"), [".".join("1" * 16)]),
        (outline(".".join("1" * 17) + ":"), []),
    ],
)
def test_labels(tokens, labels):
    assert may_fork_for(VOCABULARY).labels(tokens) == labels


def block_with(outlines, path=(5,), nl=10):
    return [P, G, *outlines, G_, nl, A, nl, *path, A_, nl, C, nl, P_]


def test_limits_on_width():
    rule = may_fork_for(VOCABULARY, max_paths=2)
    for count, forks in ((0, 0), (1, 1), (2, 1), (3, 0)):
        assert trees(block_with(outline("1:") * count), TEXT_IDS, rule).blocks == forks, count


def test_limits_on_depth():
    inner = block_with(outline("1.1:"))
    tokens = block_with(outline("1:"), path=[*inner, *inner])
    for max_depth, blocks in ((0, 0), (1, 1), (2, 3)):
        rule = may_fork_for(VOCABULARY, max_depth=max_depth)
        assert trees(tokens, TEXT_IDS, rule).blocks == blocks
        # The rule as a function of (tokens, index) finds out by itself how deep a goal is.
        assert trees(tokens, TEXT_IDS, lambda tokens, i: rule(tokens, i)).blocks == blocks


def test_labels_are_those_of_the_opened_goal():
    rule = may_fork_for(VOCABULARY)
    stray_goal = [P, G, *outline("1:"), G, ord("x"), G_]  # the second <Goal> is an ordinary token
    assert reference(stray_goal, TEXT_IDS, rule).blocks[0].fork == len(stray_goal) - 1
    second_goal = [P, G, *outline("1:"), G_, ord("x"), G, ord("x"), G_]  # the first one ended without a fork
    assert reference(second_goal, TEXT_IDS, rule).blocks[0].fork is None


# Against the contract's reference

RANDOM_TEXTS = 20_000
FIELDS = ("owners", "position", "forced", "previous", "token_step", "step", "malformed", "visible")


def load_contract():
    path = SHARED / "spec" / "reference.py"
    if not path.exists():
        pytest.skip(f"the contract's reference is not at {path}")
    spec = importlib.util.spec_from_file_location("contract_reference", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def random_body(rng, depth):
    ordinary = rng.choices([ord("1"), ord(":"), ord("x"), 10, 64, 66], k=rng.randrange(4))
    if rng.random() < (0.6, 0.2, 0.15, 0.1, 0)[depth]:
        return [*ordinary, *random_block(rng, depth), *random_body(rng, depth + 1)]
    return ordinary


def random_block(rng, depth):
    """A well-formed block, then bent: the text that the grammar's corners are made of."""
    width = rng.choice([1, 1, 2, 2, 3])
    outlines = [token for n in range(rng.choice([width, width, 0, width + 1])) for token in outline(f"{n + 1}:")]
    separator = rng.choice([[10], [10], [10], [], [10, 10]])
    paths = []
    for n in range(width):
        header = rng.choice([[10, ord("1") + n, ord(":")], [10, ord("1") + n], [10], [], [66]])
        end = rng.choice([[A_, 10], [A_, 10], [A_], [A_, 64], []])
        paths += [A, *header, *random_body(rng, min(depth + 1, 4)), *end]
    end = rng.choice([[C, 10, *random_body(rng, min(depth + 1, 4)), 110, P_], [C, P_], [P_], [C], []])
    return [P, G, *outlines, G_, *separator, *paths, *end]


def random_text(rng):
    """Three kinds: structured, structured with tokens put in, dropped or swapped, and control tokens at random."""
    if rng.random() < 0.15:
        some = [P, P_, G, G_, G_, A, A, A_, A_, C, O, 10, 10, ord("1"), ord(":"), ord("x")]
        return rng.choices(some, k=rng.randrange(40))
    tokens = random_body(rng, 1) + random_block(rng, 0) + random_body(rng, 1)
    for _ in range(rng.choice([0, 0, 1, 2, 5])):
        at = rng.randrange(len(tokens) + 1)
        stray = rng.choice([P, P_, G, G_, A, A_, C, O, 10, ord("x")])
        tokens[at : at + rng.randrange(2)] = rng.choice([[stray], [], [stray, stray]])
    return tokens[: rng.randrange(len(tokens) + 1)] if rng.random() < 0.3 else tokens


def test_random_texts_against_the_contract():
    contract = load_contract()
    seed = int(os.environ.get("MULTIVERSE_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)
    print(f"seed {seed} (MULTIVERSE_TEST_SEED repeats it)")
    rng = random.Random(seed)
    ids = contract.ControlTokens(**dataclasses.asdict(TEXT_IDS))
    totals = dict.fromkeys(("tokens", "forked", "nested", "malformed"), 0)
    for n in range(RANDOM_TEXTS):
        tokens = random_text(rng)
        rule = rng.choice([lambda tokens, i: True, may_fork_for(VOCABULARY), may_fork_for(VOCABULARY, 2, 2)])
        ours, theirs = reference(tokens, TEXT_IDS, rule), contract.reference(tokens, ids, rule)
        for field in FIELDS:
            assert getattr(ours, field) == getattr(theirs, field), f"seed {seed}, text {n}, {field}: {tokens}"
        totals["tokens"] += len(tokens)
        totals["forked"] += len(ours.branches) > 1
        totals["nested"] += any(len(branch.lineage) > 1 for branch in ours.branches)
        totals["malformed"] += bool(ours.malformed)
    print(f"{RANDOM_TEXTS} texts equal: {totals}")
    assert min(totals["forked"], totals["malformed"]) > RANDOM_TEXTS // 4 and totals["nested"] > RANDOM_TEXTS // 10


def test_recorded_answers():
    files = [SHARED / "traces" / name for name in ("aime24.jsonl", "aime24_trees.jsonl")]
    tokenizer_json = SHARED / "tokenizers" / "multiverse-32b" / "tokenizer.json"
    for path in (*files, tokenizer_json):
        if not path.exists():
            pytest.skip(f"recorded answers are checked where {path} is present")
    tokenizer = pytest.importorskip("tokenizers").Tokenizer.from_file(str(tokenizer_json))
    vocabulary = Vocabulary.load(tokenizer_json)
    rule = may_fork_for(vocabulary)
    answers, counts = (path.read_text(encoding="utf-8").splitlines() for path in files)
    assert len(answers) == len(counts) == 30
    for answer, expected in zip(answers, counts):
        answer = json.loads(answer)
        tokens = tokenizer.encode(answer["completion"], add_special_tokens=False).ids
        assert dataclasses.asdict(trees(tokens, vocabulary.ids, rule)) == json.loads(expected), answer["id"]
