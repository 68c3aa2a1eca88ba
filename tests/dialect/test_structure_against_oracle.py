"""The server's reading of structured text equals the oracle's, on random token lists of every kind."""

import json
import os
import random
import subprocess
from dataclasses import replace
from pathlib import Path

from multiverse.labels import Vocabulary, may_fork_for
from multiverse.structure import ControlTokens, reference

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "build/release/tests/structure_check"

# The vocabulary of tests/support/fake_dialect.h.
END_OF_TEXT, PARALLEL, END_PARALLEL, GOAL, END_GOAL, OUTLINE, END_OUTLINE, PATH, END_PATH, CONCLUSION, END_CONCLUSION = range(11)
NEWLINE, DIGIT, DOT, COLON, WORD = 13, 20, 30, 31, 32
LABEL = frozenset([*range(DIGIT, DIGIT + 10), DOT, COLON])
IDS = ControlTokens(PARALLEL, END_PARALLEL, GOAL, END_GOAL, PATH, END_PATH, CONCLUSION, NEWLINE, LABEL, frozenset([COLON]))
NAMES = {NEWLINE: b"\n", DOT: b".", COLON: b":"} | {DIGIT + d: str(d).encode() for d in range(10)}
NAMES |= {word: b"w%d" % word for word in range(WORD, 64)}
VOCABULARY = Vocabulary(
    IDS, OUTLINE, END_OUTLINE, END_CONCLUSION, tuple(NAMES.get(i, b"") for i in range(64)), frozenset(range(13))
)
# As NPR's: the goal opens the block, the conclusion's end closes it, blocks don't nest.
FLAT_IDS = replace(IDS, parallel=None, end_parallel=END_CONCLUSION)
FLAT = replace(VOCABULARY, ids=FLAT_IDS, max_depth=1, added=VOCABULARY.added - {PARALLEL, END_PARALLEL})
# A third, which no code knows: tests/dialect/third.json.
THIRD = replace(VOCABULARY, ids=replace(IDS, parallel=None), max_depth=2, added=VOCABULARY.added - {PARALLEL})
DIALECTS = (VOCABULARY, FLAT, THIRD)


def block(rng, depth):
    """A block as a model writes it: outlines, paths, a conclusion; pieces of it may be missing."""
    paths = rng.choice([1, 2, 2, 3, 5])
    tokens = [PARALLEL, GOAL]
    for number in range(1, paths + 1):
        tokens += [OUTLINE, *([NEWLINE] if rng.random() < 0.5 else []), DIGIT + number, COLON, *words(rng), END_OUTLINE]
    tokens += [END_GOAL, *([NEWLINE] if rng.random() < 0.9 else [])]
    for number in range(1, paths + rng.choice([1, 1, 1, 1, 0, 2])):
        tokens += [PATH, NEWLINE, DIGIT + number % 10, *([DOT, DIGIT] if rng.random() < 0.2 else []), COLON, *words(rng)]
        if depth > 0 and rng.random() < 0.4:
            tokens += block(rng, depth - 1) + words(rng)
        tokens += [END_PATH] * (rng.random() < 0.9) + [NEWLINE] * (rng.random() < 0.9)
        if rng.random() < 0.1:
            tokens += block(rng, depth - 1) if depth > 0 and rng.random() < 0.5 else words(rng)
    if rng.random() < 0.9:
        tokens += [CONCLUSION, NEWLINE, *words(rng), END_CONCLUSION]
    return tokens + [END_PARALLEL] * (rng.random() < 0.9)


def words(rng):
    return [rng.randrange(WORD, 64) for _ in range(rng.choice([0, 1, 2, 4]))]


def text(rng):
    if rng.random() < 0.3:
        return [rng.choice([*range(14), DIGIT + 1, DIGIT + 2, DOT, COLON, WORD]) for _ in range(rng.randrange(1, 60))]
    tokens = [WORD, *words(rng)]
    for _ in range(rng.choice([1, 1, 2, 3])):
        tokens += block(rng, rng.choice([0, 1, 2])) + words(rng)
    if rng.random() < 0.5:  # sprinkle anything anywhere
        for _ in range(rng.choice([1, 2, 5])):
            tokens.insert(rng.randrange(len(tokens)), rng.randrange(64))
    return tokens[: rng.randrange(1, len(tokens) + 1)] if rng.random() < 0.4 else tokens


def test_equals_the_oracle():
    seed = int(os.environ.get("MULTIVERSE_TEST_SEED", random.SystemRandom().randrange(2**32)))
    print(f"MULTIVERSE_TEST_SEED={seed}")
    rng = random.Random(seed)
    cases = [(rng.choice([0, 1, 2]), rng.choice([1, 3, 128]), rng.choice([0, 1, 6]), text(rng)) for _ in range(8000)]
    lines = "".join(f"{dialect} {paths} {depth} 0 {' '.join(map(str, tokens))}\n" for dialect, paths, depth, tokens in cases)
    output = subprocess.run([TOOL], input=lines, capture_output=True, text=True, check=True).stdout.splitlines()
    forks = 0
    for (dialect, max_paths, max_depth, tokens), line in zip(cases, output, strict=True):
        found = json.loads(line)
        vocabulary = DIALECTS[dialect]
        rule = may_fork_for(vocabulary, max_paths, max_depth)
        wanted = reference(tokens, vocabulary.ids, rule)
        case = f"dialect {dialect}, max_paths {max_paths}, max_depth {max_depth}, tokens {tokens}"
        assert found["position"] == wanted.position, case
        assert [bool(f) for f in found["forced"]] == wanted.forced, case
        assert found["malformed"] == wanted.malformed, case
        assert found["visible"] == ["".join("01"[v] for v in row) for row in wanted.visible], case
        assert found["critical_path_tokens"] == max(wanted.token_step) + 1, case
        assert found["steps"] == max(wanted.step) + 1, case
        forks += found["blocks"]
    assert forks > 1000, "the texts hardly fork"
