"""Trees read from texts alone."""

import dataclasses
import json
from pathlib import Path

import pytest

from measure.text_tree import Reader, pieces, reader_for

ROOT = Path(__file__).resolve().parents[2]
TRACES = ROOT.parent / "shared" / "traces"


def block(*paths):
    goal = "".join(f"<Outline>\n{i}: part\n</Outline>\n" for i in range(1, len(paths) + 1))
    text = "".join(f"<Path>\n{i}:{path}</Path>\n" for i, path in enumerate(paths, 1))
    return f"Let me see.\n<Parallel>\n<Goal>\n{goal}</Goal>\n{text}<Conclusion>\nso\n</Conclusion>\n</Parallel>\n"


def test_a_block_by_hand():
    counts = Reader().counts(block(" one two\n", " one\n", " one two three\n"))
    assert (counts.blocks, counts.paths, counts.max_width, counts.max_depth, counts.malformed) == (1, 3, 3, 1, 0)
    beside = len(pieces("<Path>\n1: one two\n</Path>\n")) + len(pieces("<Path>\n2: one\n</Path>\n"))  # the longest path
    assert counts.tokens - counts.critical_path_tokens == beside


def test_rows_of_a_block():
    text = block(" a b c\n", " a\n")
    rows = Reader().rows(text)
    assert sum(steps for steps, _ in rows) == Reader().counts(text).steps
    assert [r for _, r in rows] == [1, 2, 1]
    assert rows[1][0] == len(pieces(" a\n</Path>"))  # both decode until the short one ends


def test_counts_are_scaled_to_the_servers():
    text = block(" a b c d e f\n", " a b c d e f\n")
    plain, scaled = Reader().counts(text), Reader().counts(text, tokens=3 * len(pieces(text)))
    assert scaled.tokens == 3 * plain.tokens
    assert scaled.critical_path_tokens == pytest.approx(3 * plain.critical_path_tokens, abs=1)
    assert (scaled.blocks, scaled.malformed) == (plain.blocks, plain.malformed)


@pytest.mark.parametrize("text", ["", "<Path>", "</Goal>", "<Parallel><Goal></Goal><Path>\n1:", "\x00é𝄞<Parallel\n"])
def test_total(text):
    counts = Reader().counts(text)
    assert counts.tokens == len(pieces(text))
    assert sum(steps for steps, _ in Reader().rows(text)) == counts.steps


def test_a_tokenizer_makes_it_exact():
    reader = reader_for(str(ROOT / "models" / "multiverse-tiny"))
    counts = reader.counts(block(" 12*3\n", " 4\n"), tokens=999)
    assert counts.tokens == len(reader.encode(block(" 12*3\n", " 4\n"))) != 999
    assert (counts.blocks, counts.max_width) == (1, 2)


@pytest.mark.skipif(not TRACES.exists(), reason="recorded answers are not beside this checkout")
def test_estimates_of_recorded_answers():
    """Without their tokenizer: structure exactly, lengths within a tenth of a critical path."""
    answers = [json.loads(line)["completion"] for line in (TRACES / "aime24.jsonl").read_text().splitlines()]
    known = [json.loads(line) for line in (TRACES / "aime24_trees.jsonl").read_text().splitlines()]
    worst = 0.0
    for text, tree in zip(answers, known, strict=True):
        counts = dataclasses.asdict(Reader().counts(text, tree["tokens"]))
        for name in ("blocks", "paths", "max_width", "max_depth", "malformed"):
            assert counts[name] == tree[name], name
        worst = max(worst, abs(counts["critical_path_tokens"] / tree["critical_path_tokens"] - 1))
    print(f"largest error of a critical path: {worst:.1%}")
    assert worst < 0.1
