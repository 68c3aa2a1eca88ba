"""The kinds of independent parts: how each is drawn, named, asked for and worked out."""

from dataclasses import dataclass
from typing import Callable

import tiny_steps as steps

CONSONANTS, VOWELS = "BCDFGHJKLMNPQRSTVWXZ", "AEIOU"


@dataclass(frozen=True)
class Kind:
    draw: Callable  # rng -> the part's numbers, a tuple
    name: Callable  # part -> its outline: short, and all that its steps need, or the name of a list in the question
    work: Callable  # part -> (lines, result)
    say: tuple  # how a question can ask for one part: format strings over the part's values
    ask: str  # what several of them are called
    ops: tuple = ("list", "max", "min", "sum")  # how results combine
    characters: tuple = (90, 260)  # bounds on the length of the steps, about a token a character
    listed: bool = False  # the numbers stand in the question as "list A: …"


def word(rng, syllables):
    """An invented word. Few repeat a pair of letters: without repeats each letter's successor in the word is certain."""
    repeats = rng.random() < 0.1
    while True:
        text = "".join(
            rng.choice(CONSONANTS) + rng.choice(VOWELS) + (rng.choice(CONSONANTS) if rng.random() < 0.15 else "") for _ in range(syllables)
        )
        text = text[1:] if rng.random() < 0.15 else text
        pairs = [text[i : i + 2] for i in range(len(text) - 1)]
        if repeats or len(set(pairs)) == len(pairs):
            return text


def draw_product(rng):
    low, high = rng.choice(((100, 999), (100, 999), (100, 999), (10, 99), (1000, 9999)))
    part = rng.randint(low, high), rng.randint(2, 9) if rng.random() < 0.05 else rng.randint(11, 99)
    return part[::-1] if rng.random() < 0.1 else part


def draw_addition(rng):
    """At least one of three digits or more: smaller sums are the short problems'."""
    ranges = ((100, 999), (100, 999), (1000, 9999), (10, 99))
    part = tuple(rng.randint(*rng.choice(ranges)) for _ in range(rng.choice((2, 3, 3, 4))))
    return part if max(part) > 99 else draw_addition(rng)


def draw_gcd(rng):
    divisor = rng.choice((1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 17, 18, 21, 24, 26, 35))
    highest = 990 // divisor
    a, b = rng.randint(2, highest), rng.randint(2, highest)
    return (a * divisor, b * divisor) if a != b else draw_gcd(rng)


def draw_letter(rng):
    text = word(rng, rng.randint(6, 9))
    return rng.choice(text if rng.random() < 0.9 else VOWELS), text


def draw_collatz(rng):
    while True:
        number = n = rng.randint(3, 400)
        while n != 1 and n < 333:  # 3n + 1 stays below 1000
            n = 3 * n + 1 if n % 2 else n // 2
            while n % 2 == 0:
                n //= 2
        if n == 1:
            return (number,)


def draw_power(rng):
    modulus = rng.randint(5, 13)
    return rng.randint(2, modulus - 1), rng.randint(9, 63), modulus


# fmt: off
KINDS = {
    "product": Kind(
        draw_product, lambda p: f"{p[0]}*{p[1]}", lambda p: steps.times(*p),
        ("{0}*{1}", "{0}*{1}", "{0} * {1}", "{0} x {1}", "{0} × {1}", "{0} times {1}", "the product of {0} and {1}"), "products",
        characters=(90, 300),
    ),
    "gcd": Kind(
        draw_gcd, lambda p: f"gcd({p[0]},{p[1]})", lambda p: steps.gcd(*p),
        ("gcd({0},{1})", "gcd({0}, {1})", "the gcd of {0} and {1}", "the GCD of {0} and {1}", "the greatest common divisor of {0} and {1}"),
        "greatest common divisors", characters=(80, 230),
    ),
    "factor": Kind(
        lambda rng: (rng.randint(60, 399),), lambda p: f"lpf({p[0]})", lambda p: steps.largest_prime_factor(*p),
        ("lpf({0})", "the largest prime factor of {0}", "the biggest prime factor of {0}"), "largest prime factors", characters=(100, 280),
    ),
    "base": Kind(
        lambda rng: (rng.randint(60, 999), rng.randint(2, 9)), lambda p: f"{p[0]} to base {p[1]}", lambda p: steps.to_base(*p),
        ("{0} to base {1}", "{0} in base {1}", "{0} written in base {1}", "the base {1} form of {0}"), "conversions", ops=("list",), characters=(70, 240),
    ),
    "collatz": Kind(
        draw_collatz, lambda p: f"collatz({p[0]})", lambda p: steps.collatz(*p),
        ("collatz({0})", "the number of Collatz steps from {0} to 1", "the number of Collatz steps of {0}"), "Collatz step counts", characters=(100, 300),
    ),
    "power": Kind(
        draw_power, lambda p: f"{p[0]}^{p[1]} mod {p[2]}", lambda p: steps.power_mod(*p),
        ("{0}^{1} mod {2}", "{0}^{1} modulo {2}", "the remainder of {0}^{1} divided by {2}"), "powers", characters=(120, 260),
    ),
    "column": Kind(
        lambda rng: tuple(rng.randint(100, 999) for _ in range(rng.choice((3, 4)))), lambda p: "list {name}",
        lambda p: steps.column_sum(list(p)), ("the sum of list {name}", "the total of list {name}"), "list totals",
        ops=("list", "max", "min"), characters=(90, 260), listed=True,
    ),
    "addition": Kind(
        draw_addition, lambda p: "+".join(map(str, p)), lambda p: steps.column_sum(list(p)), ("{terms}", "{terms}", "{spaced}"), "sums",
        ops=("list", "max", "min"), characters=(60, 300),
    ),
    "median": Kind(
        lambda rng: tuple(rng.sample(range(1, 100), rng.choice((5, 7)))), lambda p: "list {name}",
        lambda p: steps.median(list(p)), ("the median of list {name}", "the middle value of list {name}"), "medians",
        characters=(60, 200), listed=True,
    ),
    "letter": Kind(
        draw_letter, lambda p: f"{p[0]} in {p[1]}", lambda p: steps.count_letter(*p),
        ("the number of letters {0} in {1}", "how often {0} occurs in {1}", "the count of {0} in {1}"), "letter counts", characters=(30, 80),
    ),
    "value": Kind(
        lambda rng: (word(rng, rng.randint(5, 7)),), lambda p: f"value {p[0]}", lambda p: steps.word_value(*p),
        ("the word value of {0}", "the value of the word {0} with A=1, B=2, ..., Z=26"), "word values", characters=(50, 130),
    ),
    "polynomial": Kind(
        lambda rng: tuple(rng.randint(2, 9) for _ in range(rng.choice((4, 5)))) + (rng.randint(3, 9),),
        lambda p: f"f({p[-1]})", lambda p: steps.horner(p[:-1], p[-1]), ("f({x})",), "values of f", ops=("list", "max", "min"),
        characters=(80, 260),
    ),
}

# fmt: on

SMALL = ("gcd", "factor", "collatz", "power", "letter", "value")  # the outline says all, and results are below 1000: easy sums
SELF_CONTAINED = (*SMALL, "product", "base", "addition")  # the outline says all
SHORT_SHARE = 0.1  # of the parts may be shorter than worth a path, so that the model knows them too


def say(form, part, name):
    """`form` filled with the part's values, its list's name, the last of them as x, or all as a sum."""
    values = list(map(str, part))
    return form.format(*part, name=name, x=part[-1], terms="+".join(values), spaced=" + ".join(values))


def draw_part(kind, rng):
    """A part whose steps are not too long and, mostly, long enough to be worth a path."""
    low, high = KINDS[kind].characters
    low = 0 if rng.random() < SHORT_SHARE else low
    while True:
        part = KINDS[kind].draw(rng)
        lines, _ = KINDS[kind].work(part)
        if low <= sum(len(line) + 1 for line in lines) <= high:
            return part
