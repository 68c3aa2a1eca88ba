"""Extraction and equality of answers on hard cases."""

import time

import pytest

from measure.answers import MAX_ANSWER, Checker, extract


@pytest.fixture(scope="module")
def checker():
    one = Checker(seconds=20)
    yield one
    one.close()


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{204}.", "204"),
        (r"\boxed{3}, no: \boxed{4}", "4"),
        (r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\fbox{7} it is", "7"),
        (r"it is \boxed 5.", "5"),
        (r"\boxed{12} and then an open \boxed{13", "12"),
        (r"\boxed{}", None),
        ("**The final answer is** 025.", "025"),
        ("The final answer is \\(x = 4\\).", "x = 4"),
        ("The final answer is: $\\frac{3}{4}$.", r"\frac{3}{4}"),
        ("Answer: 3\nno\nAnswer: 17", "17"),
        ('the final answer is "33".', "33"),
        ("we get 204 minutes", None),  # no number counts that isn't called the answer
        ("", None),
        (r"<Think> maybe \boxed{1} </Think> \boxed{2}", "2"),
        (r"<think> the answer is 9 </think> That is all.", "9"),  # none after the thinking: the last one in it
        (r"\boxed{1} in </think> the first, </think> The answer is 8", "8"),
    ],
)
def test_extracts(text, answer):
    assert extract(text, "math") == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [("…\nAnswer: 13, 1932, 6\n", "13, 1932, 6"), ("Answer: 5\nmore", None), ("13", None), ("", None), ("Answer:", "")],
)
def test_extracts_exact(text, answer):
    assert extract(text, "exact") == answer


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("25", "025"),
        ("1{,}000", "1000"),
        ("1,000", "1000"),
        ("0.5", r"\frac{1}{2}"),
        (r"\tfrac34", r"\frac{3}{4}"),
        (r"\frac{6}{8}", r"\dfrac34"),
        (r"-\dfrac{3}{4}", "-0.75"),
        (r"2\sqrt2", r"\sqrt{8}"),
        (r"\pi/3", r"\frac{\pi}{3}"),
        (r"12\text{ cm}", "12"),
        (r"5\text{ cm}^2", "5"),
        (r"90^\circ", "90"),
        (r"50\%", "0.5"),
        (r"\$32,348", "32348"),
        ("(1, 2)", "(1,2)"),
        (r"\left(1, \frac{1}{2}\right)", r"(1, 0.5)"),
        ("2,1", r"\{1,2\}"),
        ("[0,1)", "[0, 1)"),
        ("x=5", "5"),
        ("3x + x^3 - 6", "x^3+3x-6"),
        ("6-5i", "6 - 5i"),
        ("1 + 1", "2"),
        (r"\text{Evelyn}", r"\text{Evelyn}"),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
    ],
)
def test_equal(checker, answer, expected):
    assert checker.same(answer, expected, "math")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("(2, 1)", "(1,2)"), ("[0,1]", "[0,1)"), ("204.5", "204"), ("-3", "3"), (r"\frac{1}{3}", "0.3"), ("x", "y"), (r"\text{no}", "5"), ("", "5"),
     (r"\sqrt{2}", "2"), ("1, 2", "1"), (None, "5"), ("5" * (MAX_ANSWER + 1), "5"), ("\\frac{", "1"), ("}{", "1")],
)  # fmt: skip
def test_different(checker, answer, expected):
    assert not checker.same(answer, expected, "math")


@pytest.mark.parametrize(
    ("answer", "expected", "right"),
    [("B", "B", True), ("(B)", "B", True), (r"\text{(C)}", "C", True), (r"\textbf{D}", "D", True), ("B) the energy of A", "B", True),
     ("A or B", "A", False), ("b", "B", False), ("", "A", False), ("Beta", "B", False), (r"\mathrm{A}.", "A", True)],
)  # fmt: skip
def test_choices(checker, answer, expected, right):
    assert checker.same(answer, expected, "choice") is right


def test_hostile_answers_end_in_time_and_later_ones_are_still_read():
    checker = Checker(seconds=1.5)
    try:
        begun = time.monotonic()
        assert not checker.same("9^{9^{9^{9}}}", "7", "math")
        assert not checker.same(r"\frac{" * 300, "7", "math")
        assert not checker.same("(" * 1900, "7", "math")
        assert time.monotonic() - begun < 30
        assert checker.same(r"\frac{14}{2}", "7", "math")
    finally:
        checker.close()
