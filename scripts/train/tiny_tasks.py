"""Problems, their wordings and the texts of their solutions: in parallel blocks, or the same steps one after another.

A problem is a tree: a node is a part (a leaf, with steps of its own) or a group of nodes whose results are combined. Nodes fork in the
parallel text, at most two levels deep.
"""

import hashlib
import random
from dataclasses import dataclass

import tiny_steps as steps
from tiny_kinds import KINDS, SELF_CONTAINED, SMALL, draw_part, say

PARALLEL = " Think step by step and in parallel before answering."
SEQUENTIAL = " Think step by step before answering."
HELD_OUT_SHARE = 64  # one problem in so many is never trained on

WORDS = {
    "sum": ("What is the sum of {items}?", "Add up {items}.", "Compute {items} and give the sum of the results.", "Find the total of {items}.",
            "What do {items} add up to?", "Work out {items}. What is their sum?"),
    "max": ("Which is the largest of {items}?", "Find the largest value among {items}.", "Compute {items} and give the largest result.",
            "What is the maximum of {items}?", "What is the greatest of {items}?", "Work out {items}. Which result is the largest?"),
    "min": ("Which is the smallest of {items}?", "Find the smallest value among {items}.", "Compute {items} and give the smallest result.",
            "What is the minimum of {items}?", "Work out {items}. Which result is the smallest?"),
    "list": ("Compute {items}.", "List {items} in this order.", "What are {items}?", "Find {items} and list the results.",
             "Give the results of {items}.", "Calculate {items}.", "Work out {items}.", "What is {items}?", "{items}?", "Find {items}."),
}  # fmt: skip
# Above the items on lines of their own.
HEADINGS = {
    "sum": ("Add up the following:", "Compute these and give the sum of the results:"),
    "max": ("Which of these is the largest?", "Compute the following and give the largest result:"),
    "min": ("Which of these is the smallest?", "Compute the following and give the smallest result:"),
    "list": ("Compute the following:", "Work these out:", "Solve:", "Give the results of:"),
}
SHORT_WORDS = ("What is {items}?", "Compute {items}.", "How much is {items}?", "{items}=?", "{items}", "Calculate {items}.", "What's {items}?")
OPENINGS = ("", "", "", "", "Hi! ", "Please help me. ", "A question: ", "Here are some {ask}. ", "I need {ask}. ")


@dataclass
class Node:
    label: str  # "2", "2.1"
    outline: str
    lines: list  # a leaf's steps
    result: object
    children: list
    op: str = ""


@dataclass
class Problem:
    family: str
    question: str
    answer: str
    canonical: str  # what makes two problems the same
    parts: int  # leaves; 1 where none is worth a path
    nodes: list
    op: str

    @property
    def held_out(self):
        digest = hashlib.sha256(self.canonical.encode()).digest()
        return int.from_bytes(digest[:4], "big") % HELD_OUT_SHARE == 0


def combine(op, results):
    """Lines that work the combination out, and its result."""
    if op == "list":
        return [], ", ".join(map(str, results))
    lines, value = [], results[0]
    for other in results[1:]:
        if op == "sum" and value + other < 1000:
            lines.append(f"{value}+{other}={value + other}")
            value += other
        elif op == "sum":
            more, value = steps.plus(value, other)
            lines += more
        else:
            best = max(value, other) if op == "max" else min(value, other)
            lines.append(f"{op} {value},{other}={best}")
            value = best
    return lines, value


def joined(rng, items):
    if len(items) == 1:
        return items[0]
    comma, last = rng.choice(((", ", " and "),) * 6 + ((", ", ", and "), (", ", ", "), ("; ", "; ")))
    return comma.join(items[:-1]) + last + items[-1]


def phrase(rng, op, items):
    """The question's sentence, or a list of lines."""
    if len(items) > 1 and rng.random() < 0.15:
        bullet = rng.choice(("- ", "* ", "{n}. ", "{n}) ", "", "({a}) "))
        return rng.choice(HEADINGS[op]) + "".join(f"\n{bullet.format(n=i + 1, a='abcdefgh'[i])}{item}" for i, item in enumerate(items))
    text = rng.choice(WORDS[op]).format(items=joined(rng, items))
    text = text[0].upper() + text[1:]
    return text[:-1] if text[-1] in ".?" and rng.random() < 0.04 else text


def leaf(kind, part, label, name=""):
    lines, result = KINDS[kind].work(part)
    return Node(label, KINDS[kind].name(part).format(name=name), lines, result, [])


def weighted_count(rng, budget):
    """How many parts: two to eight, as many as the budget of characters allows."""
    return min(rng.choices((2, 3, 4, 5, 6, 7, 8), (12, 26, 24, 16, 12, 5, 5))[0], max(2, budget))


def flat(rng, kind, mixed=False, count=None):
    """Several parts of one kind (or of mixed kinds) whose results are combined."""
    kinds = [rng.choice(SELF_CONTAINED) if mixed else kind for _ in range(count or weighted_count(rng, 1200 // KINDS[kind].characters[1] + 2))]
    if kind == "polynomial":
        kinds = kinds[:6]
    parts = [draw_part(k, rng) for k in kinds]
    op = "list" if len(parts) == 1 else rng.choice(sorted(set.intersection(*(set(KINDS[k].ops) for k in kinds))))
    if "product" in kinds and op == "sum" and len(parts) > 2:
        op = rng.choice(("max", "min", "list"))  # long sums are serial: they would undo what the paths save
    names = rng.sample("ABCDEFGH", len(parts)) if rng.random() < 0.2 else list("ABCDEFGH"[: len(parts)])
    preamble = ""
    if kind == "polynomial":
        coefficients = parts[0][:-1]
        xs = rng.sample(range(2, 10), len(parts))
        parts = [coefficients + (x,) for x in xs]
        degree = len(coefficients) - 1
        powers = [f"x^{degree - i}" if i < degree - 1 else "x" for i in range(degree)] + [""]
        equals, plus = rng.choice((("=", "+"), (" = ", " + ")))
        preamble = f"f(x){equals}" + plus.join(f"{c}{x}" for c, x in zip(coefficients, powers)) + ". "
    elif KINDS[kind].listed and not mixed:
        preamble = "".join(f"{n}: {', '.join(map(str, p))}. " for n, p in zip(names, parts))
        preamble = preamble if rng.random() < 0.5 else preamble.replace(". ", "; ")[:-2] + ". "
    if len(set(parts)) < len(parts):
        return flat(rng, kind, mixed, count)
    form = {k: rng.choice(KINDS[k].say) for k in sorted(set(kinds))}
    items = [say(form[k], p, n) for k, p, n in zip(kinds, parts, names)]
    opening = rng.choice(OPENINGS).format(ask="numbers" if mixed else KINDS[kind].ask)
    question = opening + preamble + phrase(rng, op, items)
    nodes = [leaf(k, p, str(i + 1), n) for i, (k, p, n) in enumerate(zip(kinds, parts, names))]
    canonical = "|".join(sorted(f"{k}{p}" for k, p in zip(kinds, parts)))
    return finish("mixed" if mixed else kind, question, canonical, nodes, op)


def grouped(rng):
    """Two or three groups of parts: each group is combined, then the groups' results are."""
    kinds = [rng.choice(SMALL) for _ in range(rng.choice((2, 2, 3)))]
    if rng.random() < 0.5:
        kinds = kinds[:1] * len(kinds)
    inner, outer = rng.choice(("sum", "max", "min")), rng.choice(("list", "max", "min", "sum"))
    nodes, texts, canonical = [], [], []
    letters = "ABC" if rng.random() < 0.7 else "XYZ"
    for i, kind in enumerate(kinds):
        parts = [draw_part(kind, rng) for _ in range(rng.choice((2, 2, 3) if len(kinds) < 3 else (2,)))]
        children = [leaf(kind, p, f"{i + 1}.{j + 1}") for j, p in enumerate(parts)]
        _, result = combine(inner, [c.result for c in children])
        nodes.append(Node(str(i + 1), f"group {letters[i]}", [], result, children, inner))
        texts.append(f"group {letters[i]}: {', '.join(c.outline for c in children)}")
        canonical.append(f"{kind}{sorted(parts)}")
    if len(set(canonical)) < len(canonical):
        return grouped(rng)
    of_groups = {"sum": "sum of each group", "max": "largest value of each group", "min": "smallest value of each group"}[inner]
    ending = {
        "list": ("List the results.", "Give the results in order."),
        "sum": ("Then add up the results.", "What is the sum of the results?"),
        "max": ("Then give the largest result.", "What is the largest result?"),
        "min": ("Then give the smallest result.", "What is the smallest result?"),
    }[outer]
    question = "; ".join(texts) + f". Find the {of_groups}. " + rng.choice(ending)
    question = question[0].upper() + question[1:]
    return finish("nested", question, "|".join(sorted(canonical)), nodes, outer)


def short(rng):
    """Small sums and comparisons that are not worth a block."""
    if rng.random() < 0.15:
        op, numbers = rng.choice(("max", "min")), [rng.randint(2, 999) for _ in range(rng.choice((2, 2, 3)))]
        lines, answer = combine(op, numbers)
        words = {"max": ("Which is larger, {x}?", "What is the largest of {y}?"), "min": ("Which is smaller, {x}?", "What is the smallest of {y}?")}[op]
        texts = list(map(str, numbers))
        question = rng.choice(words).format(x=" or ".join(texts), y=joined(rng, texts))
        return Problem("short", question, str(answer), f"short {op} {sorted(numbers)}", 1, lines, op)
    count = rng.choice((1, 1, 1, 2, 2, 3))
    lines, results, items, op = [], [], [], rng.choice(("list", "list", "sum", "max"))
    spaced = rng.random() < 0.3
    for _ in range(count):
        sign = rng.choice("+-*")
        a, b = (rng.randint(2, 9), rng.randint(2, 9)) if sign == "*" else (rng.randint(2, 99), rng.randint(2, 99))
        a, b = (max(a, b), min(a, b)) if sign == "-" else (a, b)
        results.append(a + b if sign == "+" else a - b if sign == "-" else a * b)
        items.append(f"{a} {sign} {b}" if spaced else f"{a}{sign}{b}")
        lines.append(f"{a}{sign}{b}={results[-1]}")
    op = "list" if count == 1 else op
    more, answer = combine(op, results)
    question = phrase(rng, op, items) if count > 1 else rng.choice(SHORT_WORDS).format(items=items[0])
    return Problem("short", question, str(answer), f"short {'|'.join(sorted(lines))}", 1, lines + more, op)


def single(rng):
    """One long part: nothing to run beside it."""
    problem = flat(rng, rng.choice(SELF_CONTAINED), count=1)
    problem.family = "single"
    return problem


def finish(family, question, canonical, nodes, op):
    _, answer = combine(op, [n.result for n in nodes])
    leaves = sum(max(1, len(n.children)) for n in nodes)
    return Problem(family, question, str(answer), f"{family} {canonical}", leaves, nodes, op)


FAMILIES = {
    **{kind: (lambda rng, kind=kind: flat(rng, kind)) for kind in KINDS},
    "mixed": lambda rng: flat(rng, "gcd", mixed=True),
    "nested": grouped,
    "single": single,
    "short": short,
}
BLOCKLESS = ("single", "short")  # answered without a block whatever the wording


def draw_problem(rng, family, held_out=False):
    while True:
        problem = FAMILIES[family](rng)
        if problem.held_out == held_out:
            return problem


def results(nodes, op):
    lines, value = combine(op, [n.result for n in nodes])
    return [f"R{n.label}={n.result}" for n in nodes] + lines, value


def sequential_lines(nodes):
    lines = []
    for node in nodes:
        lines.append(f"{node.label}: {node.outline}")
        if node.children:
            lines += sequential_lines(node.children) + results(node.children, node.op)[0]
        lines += [*node.lines, f"R{node.label}={node.result}"]
    return lines


def parallel_lines(nodes, op):
    lines = ["<Parallel>", "<Goal>"]
    for node in nodes:
        lines += ["<Outline>", f"{node.label}: {node.outline}", "</Outline>"]
    lines.append("</Goal>")
    for node in nodes:
        lines += ["<Path>", f"{node.label}: {node.outline}", *node.lines]
        if node.children:
            lines += parallel_lines(node.children, node.op)
        lines += [f"R{node.label}={node.result}", "</Path>"]
    return [*lines, "<Conclusion>", *results(nodes, op)[0], "</Conclusion>", "</Parallel>"]


def solution(problem, parallel):
    if problem.family == "short":
        lines = problem.nodes
    elif parallel and problem.family != "single":
        lines = parallel_lines(problem.nodes, problem.op)
    else:
        lines = sequential_lines(problem.nodes)
        if problem.family != "single":
            lines += results(problem.nodes, problem.op)[0]
    return "\n".join(["<Think>", *lines, "</Think>", f"Answer: {problem.answer}"])


def held_out_problems(count, seed=1):
    """Balanced over the families; never drawn in training, by their hash."""
    rng, seen, out = random.Random(seed), set(), []
    while len(out) < count:
        problem = draw_problem(rng, list(FAMILIES)[len(out) % len(FAMILIES)], held_out=True)
        if problem.canonical not in seen:
            seen.add(problem.canonical)
            out.append(problem)
    return out
