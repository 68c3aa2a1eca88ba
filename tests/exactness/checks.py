"""What the tests claim about a server, as functions of a client: the same for the real server and for the fake one."""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.exactness.client import ApiError, Client, Generated
from tests.exactness.judge import Judge, max_difference
from tests.exactness.texts import Text
from multiverse.labels import LabelRule
from multiverse.structure import Tree, reference, trees

CLIENTS = 16  # of a load
VARIANTS: tuple[dict[str, Any], ...] = ({"max_running_paths": 1}, {"max_running_paths": 2}, {"mode": "serial"}, {})
TOLERANCE = 2e-4  # of a log-probability in float32; the judge's own rounding against float64 is below 3e-5


@dataclass
class Report:
    """Differences over many texts."""

    name: str
    texts: int = 0
    tokens: int = 0
    compared: int = 0
    total: float = 0.0
    maximum: float = 0.0
    where: str = "nowhere"
    faults: list[str] = field(default_factory=list)

    def add(self, text: Text, tree: Tree, server: Sequence[float | None], judge: Sequence[float | None]) -> None:
        difference = max_difference(list(server), list(judge))
        self.texts += 1
        self.tokens += len(text.tokens)
        self.compared += difference.compared
        self.total += difference.total
        described = f"{text.name}: {difference.describe(text.tokens, tree)}"
        if difference.maximum >= self.maximum and difference.compared:
            self.maximum, self.where = difference.maximum, described
        if difference.maximum > TOLERANCE or difference.unmatched:
            self.faults.append(described)

    def __str__(self) -> str:
        mean = self.total / max(1, self.compared)
        return (
            f"{self.name}: {self.texts} texts, {self.tokens} tokens, {self.compared} compared, "
            f"max {self.maximum:.3g}, mean {mean:.3g}, worst: {self.where}"
        )

    def require(self) -> None:
        print(self)
        assert self.compared > 0, f"{self.name}: nothing was compared"
        shown = "\n".join([f"{len(self.faults)} of {self.texts} texts differ", *self.faults[:10]])
        assert not self.faults, f"{self.name}, tolerance {TOLERANCE}: {shown}"


def compare_prompts(name: str, client: Client, judge: Judge, rule: LabelRule, texts: Iterable[Text]) -> Report:
    """The server's log-probabilities of read texts against the judge's, and None exactly where nothing is predicted."""
    report = Report(name)
    for text in texts:
        tree = reference(text.tokens, rule.vocabulary.ids, rule)
        try:
            server = client.prompt_logprobs(text.tokens)
        except ApiError as error:
            report.faults.append(f"{text.name} ({len(text.tokens)} tokens): {error}")
            continue
        report.add(text, tree, server, judge.log_probabilities(text.tokens, tree))
    return report


def is_whole(answer: Generated, rule: LabelRule) -> bool:
    """Whether the answer's ids say all about its tree. One that was cut by its length inside several paths doesn't: it
    shows each path as far as it got, and reading it back takes the second for a part of the first."""
    if answer.finish_reason != "length":
        return True
    tokens, ids = [*answer.prompt, *answer.tokens], rule.vocabulary.ids
    tree = reference(tokens, ids, rule)
    return not tree.branch[-1].lineage and not any(tokens[i] == ids.path for i in tree.malformed)


def compare_generated(
    name: str, client: Client, judge: Judge, rule: LabelRule, answers: Sequence[Generated]
) -> Report:
    """Generated log-probabilities against the judge's, and against the server's own when the answer is read back.

    A `</Path>` that the engine wrote (the path hit its limit, or end-of-text) has no log-probability when it is
    generated and has one when it is read: there None is allowed beside a value."""
    report = Report(name)
    for n, answer in enumerate(answers):
        if not is_whole(answer, rule):
            continue
        text = Text(f"answer {n}", [*answer.prompt, *answer.tokens])
        start = len(answer.prompt)
        tree = reference(text.tokens, rule.vocabulary.ids, rule)
        judged = judge.log_probabilities(text.tokens, tree)
        report.add(Text(f"{text.name} read back", text.tokens), tree, client.prompt_logprobs(text.tokens), judged)
        for i, value in enumerate(answer.logprobs, start):
            if value is None and text.tokens[i] == rule.vocabulary.ids.end_path:
                judged[i] = None
        report.add(text, tree, [None] * start + answer.logprobs, [None] * start + judged[start:])
    return report


def usage_faults(answers: Sequence[Generated], rule: LabelRule) -> list[str]:
    """Where the server's counters are not the oracle's."""
    faults = []
    for n, answer in enumerate(answers):
        counts = asdict(trees([*answer.prompt, *answer.tokens], rule.vocabulary.ids, rule, start=len(answer.prompt)))
        if answer.completion_tokens != counts.pop("tokens"):
            faults.append(f"answer {n}: {answer.completion_tokens} completion_tokens, {len(answer.tokens)} token_ids")
        # A </Path> that the engine wrote because of a limit took no pass, but reads as drawn.
        end_path = rule.vocabulary.ids.end_path
        written = sum(t == end_path and value is None for t, value in zip(answer.tokens, answer.logprobs))
        if counts["steps"] - written <= answer.parallel["steps"] <= counts["steps"]:
            counts["steps"] = answer.parallel["steps"]
        if is_whole(answer, rule) and answer.parallel != counts:
            faults.append(f"answer {n} ({answer.finish_reason}): server {answer.parallel}, oracle {counts}")
    return faults


@contextlib.contextmanager
def load(request: Callable[[int], object], clients: int) -> Iterator[None]:
    """So many clients that send request after request meanwhile; `request` gets a number that differs each time."""
    stop = threading.Event()

    def run(first: int) -> int:
        number = first
        while not stop.is_set():
            request(number)
            number += clients
        return number

    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        running = [pool.submit(run, n) for n in range(clients)]
        try:
            yield
        finally:
            stop.set()
        for future in running:
            future.result()


@dataclass
class Schedules:
    """How often the same request gave the same answer under different schedules."""

    rule: LabelRule
    exact: bool  # log-probabilities must be bit-equal, not the tokens alone
    compared: int = 0
    cut: int = 0  # left out: what a token budget cuts inside paths depends on the schedule, as the contract says
    different: list[str] = field(default_factory=list)

    def compare(
        self, name: str, ask: Callable[[dict[str, Any]], Generated], background: Callable[[int], object]
    ) -> None:
        """`ask` sends one request with these fields in its `multiverse` object: its answer must depend neither on how
        many of its paths run at once nor on what else the server does, `background` among it."""
        expected = ask({})
        if not is_whole(expected, self.rule):
            self.cut += 1
            return
        for options in VARIANTS:
            self.add(f"{name} {options} alone", expected, ask(options))
        with load(background, CLIENTS), concurrent.futures.ThreadPoolExecutor(len(VARIANTS)) as pool:
            for options, got in zip(VARIANTS, pool.map(ask, VARIANTS)):
                self.add(f"{name} {options} under load", expected, got)

    def add(self, name: str, expected: Generated, got: Generated) -> None:
        self.compared += 1
        if expected.tokens != got.tokens:
            first = _first_difference(expected.tokens, got.tokens)
            self.different.append(f"{name}: tokens differ from {first} on")
        elif self.exact and expected.logprobs != got.logprobs:
            first = _first_difference(expected.logprobs, got.logprobs)
            values = f"{got.logprobs[first]}, was {expected.logprobs[first]}"
            self.different.append(f"{name}: log-probability {first} is {values}")

    def __str__(self) -> str:
        found = f"{self.compared} answers compared, {len(self.different)} differ: {self.different[:5]}"
        return f"{found}; {self.cut} requests were cut by their length and left out"


def _first_difference(one: Sequence[object], other: Sequence[object]) -> int:
    pairs = enumerate(zip(one, other))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))
