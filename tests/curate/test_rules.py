"""The offline converter: which lists become blocks, which are left alone, and its yield on recorded answers where they are present."""

import json
from pathlib import Path

import pytest

from multiverse.curate import rules
from multiverse.curate.items import Item, ItemError
from multiverse.curate.stages import Rejected
from multiverse.dialect import Dialect
from multiverse.wellformed import text_reading

DIALECT = Dialect.load("multiverse")
TRACES = Path(__file__).resolve().parents[3] / "shared" / "traces" / "aime24.jsonl"
LIST = """We need three products.
1. 12*30 is 10*30 plus 2*30, so it is 300 plus 60, that is 360.
2. 7*81 is 7*80 plus 7*1, so it is 560 plus 7, that is 567.
3. 11*45 is 11*40 plus 11*5, so it is 440+55 = 495
So the sum is 360 + 567 + 495."""


def convert(reasoning):
    return rules.convert(Item("x", "What is the sum?", reasoning, "Answer: 1422", "1422"), DIALECT)


def test_a_list_becomes_a_block():
    text, trail = convert(LIST)
    reading, _ = text_reading(text, DIALECT)
    assert reading.problems == [] and trail["blocks"] == 1
    assert "<Outline>\n2: 7*81 is 7*80 plus 7*1\n</Outline>" in text
    assert "<Path>\n2: 7*81 is 7*80 plus 7*1, so it is 560 plus 7, that is 567.\n</Path>" in text
    assert "3: 11*45 is 11*40 plus 11*5: 495\n</Conclusion>\n</Parallel>\nSo the sum" in text
    assert text.startswith("We need three products.\n<Parallel>")


CASES = """Case 1: n is even. Then n is 2k and its square is 4k^2, a multiple of four.
More words on that.
Case 2: n is odd. Then n is 2k+1 and its square is one more than a multiple of four.
Therefore the claim holds."""


def test_cases_of_several_lines_end_where_a_conclusion_begins():
    text, _ = convert(CASES)
    assert "<Path>\n1: Case 1: n is even. Then n is 2k and its square is 4k^2, a multiple of four.\nMore words on that.\n</Path>" in text
    assert text.endswith("</Parallel>\nTherefore the claim holds.")


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (LIST.replace("11*45 is", "From the previous one, 11*45 is"), "says 'previous'"),
        (LIST.replace("11*45 is", "567 less 11*45 is"), "uses '567' of item 2"),
        (LIST.replace("11*45 is", "Similarly 11*45 is"), "says 'Similarly'"),
        (LIST.replace("11*45 is", "In path 2, 11*45 is"), "mentions a sibling"),
        ("1. ab\n2. cd\n3. ef", "characters on average"),
    ],
)
def test_lists_whose_items_may_depend_on_each_other_stay(changed, why):
    with pytest.raises(Rejected) as error:
        convert(changed)
    assert why in error.value.tries[0]


def test_text_without_lists_and_text_with_tags_are_rejected():
    for reasoning, why in (("Only a sentence.", "nothing is itemised"), (LIST + "<Goal>", "control tokens already")):
        with pytest.raises(Rejected, match=why):
            convert(reasoning)


def test_yield_on_recorded_answers():
    """Prints what share of the sequential ones converts; whatever converts must be well formed."""
    if not TRACES.exists():
        pytest.skip(f"recorded answers are converted where {TRACES} is present")
    outcomes = {"converted": 0, "nothing fit": 0, "no answer stated": 0}
    for line in TRACES.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if DIALECT.block_open in record["completion"]:
            continue
        try:
            text, _ = rules.convert(Item.read(record, "x"), DIALECT)
        except ItemError:
            outcomes["no answer stated"] += 1
        except Rejected:
            outcomes["nothing fit"] += 1
        else:
            outcomes["converted"] += 1
            assert text_reading(text, DIALECT)[0].problems == []
    print(outcomes)
    assert outcomes["converted"] >= 2 and sum(outcomes.values()) == 13
