"""The server's log-probabilities, counters and schedules, held against transformers and the oracle.

Every model gets a server of its own. The random models see random trees and recorded answers' trees; the trained one
answers questions besides."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.exactness.checks import Schedules, compare_generated, compare_prompts, usage_faults
from tests.exactness.client import Client, Generated
from tests.exactness.judge import Judge
from tests.exactness.models import ARCHITECTURES, NPR, ROOT
from tests.exactness.prompts import goal_prompt, questions
from tests.exactness.server import BINARY, running_server
from tests.exactness.texts import Text, random_texts, recorded_texts
from multiverse.dialect import Dialect
from multiverse.labels import LabelRule, Vocabulary, may_fork_for
from multiverse.structure import trees

TRAINED = "multiverse-tiny"
RANDOM = tuple(architecture.name for architecture in ARCHITECTURES)
TEXTS = 52  # random ones, for each random model; with the trained model's and the recorded ones over 200
TRAINED_TEXTS = 30  # that model is ten times as large
SHARED = ROOT.parent / "shared"
ANSWER_TOKENS = 1500  # at most, of a question

pytestmark = pytest.mark.skipif(
    not BINARY.exists(), reason=f"no server at {BINARY}: build it, or name one in MULTIVERSE_BINARY"
)


@dataclass
class Served:
    name: str
    client: Client
    judge: Judge
    rule: LabelRule


def model_dir(checkpoints: dict[str, Path], name: str) -> Path:
    if name not in checkpoints:
        pytest.skip(f"models/{name} has no weights in this checkout")
    return checkpoints[name]


@pytest.fixture(scope="module", params=[*RANDOM, NPR, TRAINED])
def served(request: pytest.FixtureRequest, checkpoints: dict[str, Path], rule: LabelRule) -> Iterator[Served]:
    directory = model_dir(checkpoints, request.param)
    if request.param == NPR:
        rule = may_fork_for(Vocabulary.load(directory / "tokenizer.json", Dialect.load("npr")))
    with running_server(directory) as client:
        # In float64: the judge's own rounding in float32 (up to 9e-5 with the trained model) is not the server's.
        yield Served(request.param, client, Judge(directory, torch.float64), rule)


def texts_for(name: str, rule: LabelRule, seed: int) -> Iterator[Text]:
    """Each random model gets random trees of its own and every third recorded answer that has structure."""
    if name == TRAINED:
        yield from random_texts(rule.vocabulary, seed + 1, TRAINED_TEXTS)
        return
    if name == NPR:  # the recorded answers are Multiverse's
        yield from random_texts(rule.vocabulary, seed + 70, TEXTS // 2)
        return
    turn = RANDOM.index(name)
    yield from random_texts(rule.vocabulary, seed + 10 * (turn + 1), TEXTS)
    if (SHARED / "traces").exists():
        yield from itertools.islice(structured_answers(rule, seed), turn, None, len(RANDOM))


def structured_answers(rule: LabelRule, seed: int) -> Iterator[Text]:
    for text in recorded_texts(rule.vocabulary, SHARED, seed):
        counts = trees(text.tokens, rule.vocabulary.ids, rule)
        if counts.blocks or counts.malformed:
            yield text


def test_read_texts(served: Served, seed: int) -> None:
    texts = texts_for(served.name, served.rule, seed)
    compare_prompts(served.name, served.client, served.judge, served.rule, texts).require()


def test_second_reading_from_the_cache(served: Served, seed: int) -> None:
    """What the prefix index gives back is what was computed: the whole text again, and with another end."""
    first = list(random_texts(served.rule.vocabulary, seed + 2, 5))
    ends = [Text(f"{text.name} cut", text.tokens[: 2 * len(text.tokens) // 3]) for text in first]
    texts = [*first, *first, *ends]
    compare_prompts(f"{served.name} cached", served.client, served.judge, served.rule, texts).require()


def fork_and_generate(client: Client, rule: LabelRule, seed: int, labels: int, **options: Any) -> Generated:
    """Paths are kept short, since an untrained model never ends one."""
    return client.complete(
        goal_prompt(rule.vocabulary, seed, labels),
        max_tokens=labels * 24 + 40,
        temperature=1,
        seed=seed,
        multiverse={"max_path_tokens": 16, **options},
    )


def require_usage(answers: list[Generated], rule: LabelRule) -> None:
    faults = usage_faults(answers, rule)
    assert not faults, "\n".join(faults[:10])


def test_generated_paths(served: Served, seed: int) -> None:
    """Any model, made to fork by its prompt: generated, counted, and read back."""
    widths = (1, 2, 3, 5, 9)
    answers = [fork_and_generate(served.client, served.rule, seed + n, labels) for n, labels in enumerate(widths)]
    assert all(answer.parallel["paths"] >= labels for answer, labels in zip(answers, widths))
    require_usage(answers, served.rule)
    compare_generated(f"{served.name} generated", served.client, served.judge, served.rule, answers).require()


def test_answers_of_the_trained_model(served: Served, seed: int) -> None:
    if served.name != TRAINED:
        pytest.skip("questions are for the trained model; this one's weights are random")
    answers = [
        served.client.chat(chat, max_tokens=ANSWER_TOKENS, temperature=n % 2, seed=seed + n)
        for n, chat in enumerate(questions(8, seed))
    ]
    forked = [trees([*a.prompt, *a.tokens], served.rule.vocabulary.ids, served.rule, len(a.prompt)) for a in answers]
    print(f"{len(answers)} answers, {sum(count.blocks > 0 for count in forked)} with blocks: {forked}")
    assert any(count.blocks for count in forked), "no answer forked: nothing parallel was tested"
    require_usage(answers, served.rule)
    compare_generated(f"{served.name} answers", served.client, served.judge, served.rule, answers).require()


@pytest.mark.parametrize("deterministic", [True, False], ids=["deterministic", "default"])
@pytest.mark.parametrize("name", ["llama", TRAINED])
def test_schedules(checkpoints: dict[str, Path], rule: LabelRule, seed: int, name: str, deterministic: bool) -> None:
    """Same seed, other `max_running_paths`, other load: the same tokens. Bit-equal with --deterministic; without it
    rounding may tip a draw, which is counted and printed."""
    options = ["--deterministic"] if deterministic else []
    schedules = Schedules(rule, exact=deterministic)
    with running_server(model_dir(checkpoints, name), options) as client:

        def background(number: int) -> Generated:
            return fork_and_generate(client, rule, seed + 1000 + number, labels=1 + number % 4)

        def fork(labels: int, extra: dict[str, Any]) -> Generated:
            return fork_and_generate(client, rule, seed, labels, **extra)

        def answer(chat: list[dict[str, str]], extra: dict[str, Any]) -> Generated:
            return client.chat(chat, max_tokens=ANSWER_TOKENS, temperature=1, seed=seed, multiverse=extra)

        schedules.compare("3 paths", partial(fork, 3), background)
        schedules.compare("7 paths", partial(fork, 7), background)
        if name == TRAINED:
            schedules.compare("question", partial(answer, questions(1, seed)[0]), background)
    print(f"{name}{' deterministic' if deterministic else ''}: {schedules}")
    assert schedules.compared > 0
    if deterministic:
        assert not schedules.different
