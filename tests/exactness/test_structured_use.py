"""Structure as clients meet it: strict text, histories with blocks, prompts that end inside them, and none of it."""

from __future__ import annotations

import concurrent.futures
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from multiverse.dialect import Dialect
from multiverse.labels import LabelRule, Vocabulary, may_fork_for
from multiverse.structure import reference, trees

from tests.exactness.checks import CLIENTS, Report, compare_generated
from tests.exactness.client import Generated
from tests.exactness.judge import Judge
from tests.exactness.models import NPR
from tests.exactness.prompts import goal_prompt, questions
from tests.exactness.server import BINARY, running_server
from tests.exactness.test_exactness import TRAINED, Served, model_dir
from tests.exactness.texts import Text, TreeWriter, random_texts

STRICT_RUNS = int(os.environ.get("MULTIVERSE_TEST_STRICT_RUNS", "100"))

pytestmark = pytest.mark.skipif(not BINARY.exists(), reason=f"{BINARY} is not built")


def rule_of(name: str, directory: Path) -> LabelRule:
    dialect = Dialect.load("npr" if name == NPR else "multiverse")
    return may_fork_for(Vocabulary.load(directory / "tokenizer.json", dialect))


@pytest.fixture(scope="module", params=["qwen2", NPR])
def served(request: pytest.FixtureRequest, checkpoints: dict[str, Path]) -> Iterator[Served]:
    directory = model_dir(checkpoints, request.param)
    with running_server(directory) as client:
        yield Served(request.param, client, Judge(directory, torch.float64), rule_of(request.param, directory))


# Strict text


def strict_request(rule: LabelRule, rng: random.Random, temperature: float) -> dict:
    """From a plain prompt or one that forks; with control tokens as likely as others, or much likelier."""
    vocabulary = rule.vocabulary
    controls = sorted(vocabulary.added)
    plain = TreeWriter(vocabulary, rng).ordinary(8)
    prompt = goal_prompt(vocabulary, rng.randrange(2**31), rng.randint(1, 4)) if rng.random() < 0.3 else plain
    bias = {str(token): rng.choice([0, 2, 4, 6]) for token in controls} if rng.random() < 0.7 else {}
    limits = {"max_path_tokens": rng.randint(8, 60)} if rng.random() < 0.5 else {}
    return {
        "prompt": prompt,
        "max_tokens": rng.randint(1, 240),
        "temperature": temperature,
        "seed": rng.randrange(2**31),
        "logit_bias": bias,
        "multiverse": {"structure": "strict", "max_depth": rng.randint(1, 3), "max_paths": rng.randint(1, 6), **limits},
    }


@pytest.mark.timeout(600 + 4 * STRICT_RUNS)
@pytest.mark.parametrize(("name", "temperature"), [("qwen2", 1), (NPR, 1), (TRAINED, 2)])
def test_strict_text_is_well_formed_always(
    checkpoints: dict[str, Path], seed: int, name: str, temperature: float
) -> None:
    """The reference finds no malformed token, and no path is left open; blocks may be."""
    directory = model_dir(checkpoints, name)
    rng, rule = random.Random(seed), rule_of(name, directory)
    asked = [strict_request(rule, rng, temperature) for _ in range(STRICT_RUNS)]
    # Half of the trained model's are questions that it would answer well at a lower temperature.
    chats = questions(STRICT_RUNS // 2, seed) if name == TRAINED else []
    strict = {"structure": "strict"}
    with running_server(directory) as client, concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(
            pool.map(lambda chat: client.chat(chat, max_tokens=200, temperature=temperature, multiverse=strict), chats)
        )
        answers += pool.map(lambda fields: client.complete(**fields), asked[len(chats) :])
    blocks = paths = lengths = 0
    for answer, fields in zip(answers, asked):
        tokens = [*answer.prompt, *answer.tokens]
        limits = fields["multiverse"] if answer.prompt == fields["prompt"] else {}
        own = may_fork_for(rule.vocabulary, limits.get("max_paths", 128), limits.get("max_depth", 6))
        tree = reference(tokens, rule.vocabulary.ids, own)
        malformed = [i for i in tree.malformed if i >= len(answer.prompt)]
        assert not malformed, f"{fields}: malformed at {malformed} of {answer.tokens}"
        assert not tree.branch[-1].lineage or tokens[-1] == rule.vocabulary.ids.newline, f"{fields}: {answer.tokens}"
        assert answer.parallel["malformed"] == 0
        blocks += answer.parallel["blocks"]
        paths += answer.parallel["paths"]
        lengths += answer.finish_reason == "length"
    print(f"{name}: {len(answers)} runs, {blocks} blocks, {paths} paths, {lengths} ended by their length; all well formed")
    assert blocks > 0 and lengths > 0


# Structured history and prompts


def history(name: str, conclusion: str = "both") -> str:
    tags = Dialect.load("npr" if name == NPR else "multiverse")
    plan = "".join(f"{tags.outline_open}\n{n}: part {n}\n{tags.outline_close}\n" for n in (1, 2))
    paths = "".join(f"{tags.path_open}\n{n}: {'7 ' * n}\n{tags.path_close}\n" for n in (1, 2))
    opened = f"{tags.block_open}\n" if tags.block_open else ""
    closed = f"{tags.block_close}\n" if tags.block_close else ""
    end = f"{tags.conclusion_open}\n{conclusion}\n{tags.conclusion_close}\n{closed}"
    return f"{opened}{tags.goal_open}\n{plan}{tags.fork}\n{paths}{end}"


def test_turns_after_a_history_with_blocks(served: Served, seed: int) -> None:
    """Whole, twice over, and broken: a path that is never closed, stray ends, a goal without labels."""
    whole = history(served.name)
    tags = Dialect.load("npr" if served.name == NPR else "multiverse")
    replies = [
        "plain",
        whole,
        whole + "then " + whole,
        whole.replace(tags.path_close, "", 1),
        tags.path_close + tags.conclusion_open + whole,
        whole.replace("1: part 1", "part").replace("2: part 2", "part"),
    ]
    answers, blocks = [], []
    for n, reply in enumerate(replies):
        first = [{"role": "user", "content": "a"}, {"role": "assistant", "content": reply}]
        answer = served.client.chat([*first, {"role": "user", "content": "b"}], max_tokens=20, temperature=1, seed=seed + n)
        answers.append(answer)
        blocks.append(trees(answer.prompt, served.rule.vocabulary.ids, served.rule).blocks)
    assert blocks == [0, 1, 2, 1, 1, 0]
    compare_generated(f"{served.name} turns", served.client, served.judge, served.rule, answers).require()


def prompts_that_end_anywhere(served: Served, seed: int) -> Iterator[list[int]]:
    """One text of three paths, cut at every place from its goal on."""
    ids, writer = served.rule.vocabulary.ids, TreeWriter(served.rule.vocabulary, random.Random(seed))
    goal = goal_prompt(served.rule.vocabulary, seed, 3)
    text = [*goal, ids.newline]
    for n in ("1", "2", "3"):
        text += [ids.path, ids.newline, *writer.label(n), *writer.ordinary(2), ids.end_path, ids.newline]
    for end in range(len(goal), len(text) + 1):
        yield text[:end]


def test_prompts_that_end_inside_a_block(served: Served, seed: int) -> None:
    """They go on as if generated: what is owed of a header or separator is written, the remaining paths start at once,
    and the block is concluded."""
    answers: list[Generated] = []
    for n, prompt in enumerate(prompts_that_end_anywhere(served, seed)):
        limits = {"max_path_tokens": 10}
        answer = served.client.complete(prompt, max_tokens=70, temperature=1, seed=seed + n, multiverse=limits)
        tree = reference([*answer.prompt, *answer.tokens], served.rule.vocabulary.ids, served.rule)
        block = next(block for block in tree.blocks if block.fork is not None)
        assert len(block.paths) == 3, f"cut at {len(prompt)}: {len(block.paths)} paths"
        answers.append(answer)
    compare_generated(f"{served.name} cut", served.client, served.judge, served.rule, answers).require()


def test_mode_off_is_plain_causal_text(served: Served, seed: int) -> None:
    report = Report(f"{served.name} off")
    for text in random_texts(served.rule.vocabulary, seed + 5, 3):
        causal = reference(text.tokens, served.rule.vocabulary.ids, lambda tokens, end_goal: False)
        server = served.client.prompt_logprobs(text.tokens, multiverse={"mode": "off"})
        report.add(Text(text.name, text.tokens), causal, server, served.judge.log_probabilities(text.tokens, causal))
    report.require()
