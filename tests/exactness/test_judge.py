"""Checks of the harness itself, without a server: the judge, the texts, and that the checks find what is wrong."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, DynamicCache

from tests.exactness.checks import Report, Schedules, compare_generated, compare_prompts, is_whole, load, usage_faults
from tests.exactness.fake_server import FakeServer
from tests.exactness.judge import Judge, max_difference
from tests.exactness.models import ARCHITECTURES, ROOT, write_model
from tests.exactness.prompts import goal_prompt
from tests.exactness.texts import LONGEST, SHAPES, Text, TreeWriter, random_texts, recorded_texts
from multiverse.structure import reference, trees

NAMES = [architecture.name for architecture in ARCHITECTURES]
SHARED = ROOT.parent / "shared"
ROUNDING = 1e-4  # float32 sums in another order, at the sizes of the test models


def token_by_token(model_dir: Path, tokens: list[int], tree) -> list[float | None]:
    """Log-probabilities by decoding: each token alone, over a cache cut down to what it sees. No mask anywhere."""
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32).eval()
    kept: list[list[tuple[torch.Tensor, torch.Tensor]]] = []  # by token, by layer: keys and values
    rows, visible = [], tree.visible
    for i, token in enumerate(tokens):
        cache = DynamicCache()
        seen = [j for j in range(i) if visible[i][j]]
        for layer in range(model.config.num_hidden_layers if seen else 0):
            keys, values = (torch.cat([kept[j][layer][part] for j in seen], dim=2) for part in (0, 1))
            cache.update(keys, values, layer)
        with torch.inference_mode():
            output = model(
                torch.tensor([[token]]), past_key_values=cache, position_ids=torch.tensor([[tree.position[i]]])
            )
        kept.append([(layer.keys[:, :, -1:], layer.values[:, :, -1:]) for layer in output.past_key_values.layers])
        rows.append(output.logits[0, -1].log_softmax(dim=0))
    return [None if p is None else rows[p][tokens[i]].item() for i, p in enumerate(tree.previous)]


@pytest.mark.parametrize("name", NAMES)
def test_plain_text_is_transformers_own_answer(checkpoints, rule, seed, name):
    tokens = TreeWriter(rule.vocabulary, random.Random(seed)).ordinary(300)
    model = AutoModelForCausalLM.from_pretrained(checkpoints[name], dtype=torch.float32).eval()
    with torch.inference_mode():
        rows = model(torch.tensor([tokens])).logits[0].log_softmax(dim=1)
    expected = [None] + [rows[i - 1][tokens[i]].item() for i in range(1, len(tokens))]
    judged = Judge(checkpoints[name]).log_probabilities(tokens, reference(tokens, rule.vocabulary.ids, rule))
    difference = max_difference(judged, expected)
    print(f"{name}: max |difference| {difference.maximum:.3g}")
    assert difference.maximum <= ROUNDING and not difference.unmatched


@pytest.mark.parametrize("name", NAMES)
def test_structured_text_equals_decoding_token_by_token(checkpoints, rule, seed, name):
    writer = TreeWriter(rule.vocabulary, random.Random(seed))
    shape = replace(SHAPES["sloppy"], width=(2, 3), nesting=0.7, run=(0, 4), depth=2)
    tokens = next(t for t in iter(lambda: writer.tree(shape), None) if 60 < len(t) < 200)
    tree = reference(tokens, rule.vocabulary.ids, rule)
    difference = max_difference(
        Judge(checkpoints[name]).log_probabilities(tokens, tree), token_by_token(checkpoints[name], tokens, tree)
    )
    print(f"{name}: {difference.describe(tokens, tree)}")
    assert difference.maximum <= ROUNDING and not difference.unmatched and difference.compared > 20


@pytest.mark.parametrize("name", NAMES)
def test_rounding_leaves_room_below_the_tolerance(checkpoints, rule, seed, name):
    model_dir = checkpoints[name]
    judges = [Judge(model_dir, torch.float64), Judge(model_dir), Judge(model_dir, attention="eager")]
    for text in random_texts(rule.vocabulary, seed, 5):
        tree = reference(text.tokens, rule.vocabulary.ids, rule)
        exact, *rounded = (judge.log_probabilities(text.tokens, tree) for judge in judges)
        for values in rounded:
            difference = max_difference(values, exact)
            assert difference.maximum <= ROUNDING, f"{text.name}: {difference.describe(text.tokens, tree)}"


@pytest.mark.parametrize("name", NAMES)
def test_the_judge_tells_a_wrong_mask_or_position(checkpoints, rule, seed, name):
    """A path that sees one sibling's token too many, or stands one position off, must not pass for rounding."""
    writer = TreeWriter(rule.vocabulary, random.Random(seed))
    tokens = writer.tree(replace(SHAPES["wide"], width=(3, 3), run=(5, 10)))
    judge = Judge(checkpoints[name])
    tree = reference(tokens, rule.vocabulary.ids, rule)
    right = judge.log_probabilities(tokens, tree)
    moved = reference(tokens, rule.vocabulary.ids, rule)
    in_last_path = [i for i, branch in enumerate(moved.branch) if branch is moved.branches[3]]
    for i in in_last_path:
        moved.position[i] += 1
    assert max_difference(judge.log_probabilities(tokens, moved), right).maximum > 0.01
    leaking = reference(tokens, rule.vocabulary.ids, rule)
    leaked = max(i for i, branch in enumerate(leaking.branch) if branch is leaking.branches[1])
    leaking.branch[leaked] = leaking.branches[0]
    assert max_difference(judge.log_probabilities(tokens, leaking), right).maximum > 0.01


def test_max_difference():
    difference = max_difference([None, -1.0, -2.0, None], [None, -1.5, -2.0, -3.0])
    assert (difference.maximum, difference.where, difference.compared) == (0.5, 1, 2)
    assert difference.unmatched == (3,)
    assert max_difference([None, -1.0], [None, -1.0, -2.0]).unmatched == (2,)
    assert max_difference([None, -1.0], [None, -1.0, None]).unmatched == (2,)  # a list that ends early is a fault
    assert max_difference([-1.0, float("nan")], [-1.0, -2.0]).maximum == float("inf")


def test_texts_cover_the_grammar(rule, seed):
    texts = list(random_texts(rule.vocabulary, seed, 200))
    counts = [trees(text.tokens, rule.vocabulary.ids, rule) for text in texts]
    assert max(c.tokens for c in counts) <= LONGEST + 200
    assert max(c.max_depth for c in counts) >= 4 and max(c.max_width for c in counts) == 100
    assert sum(c.blocks > 0 for c in counts) > 150 and sum(c.malformed > 0 for c in counts) > 30
    again = [text.tokens for text in random_texts(rule.vocabulary, seed, 200)]
    assert again == [text.tokens for text in texts]


def test_retold_answers_keep_their_trees(rule, seed):
    if not (SHARED / "traces" / "aime24.jsonl").exists():
        pytest.skip(f"recorded answers are not at {SHARED / 'traces'}")
    counts = [trees(t.tokens, rule.vocabulary.ids, rule) for t in recorded_texts(rule.vocabulary, SHARED, seed)]
    assert len(counts) == 30 and all(c.tokens <= LONGEST for c in counts)
    # The figures are those of traces/aime24_trees.jsonl for answers 1, 10 and 12, which fit whole.
    kept = [(c.blocks, c.paths, c.max_width, c.max_depth) for c in (counts[0], counts[9], counts[11])]
    assert kept == [(3, 7, 3, 1), (4, 9, 3, 2), (1, 2, 2, 1)]


# The checks, on a server that is right and on one that is wrong


@pytest.fixture(scope="module")
def fake(checkpoints, rule) -> FakeServer:
    return FakeServer(Judge(checkpoints["qwen3"]), rule, end_of_text=-1)


def test_prompt_check_passes_what_is_right_and_finds_what_is_wrong(fake, rule, seed):
    texts = [text for text in random_texts(rule.vocabulary, seed, 12) if len(text.tokens) < 600]
    with fake.running() as client:
        report = compare_prompts("right", client, fake.judge, rule, texts)
    report.require()
    assert report.texts == len(texts) and report.maximum == 0
    with replace(fake, fault=1e-3).running() as client:
        report = compare_prompts("wrong", client, fake.judge, rule, texts)
    assert report.faults and report.maximum == pytest.approx(1e-3)
    with pytest.raises(AssertionError, match="texts differ"):
        report.require()


def test_prompt_check_finds_a_value_too_many(rule):
    report = Report("one")
    report.add(Text("text", [5]), reference([5], rule.vocabulary.ids), [-1.0], [None])
    assert report.faults and "only one side" in report.faults[0]


def test_generation_checks(fake, rule, seed):
    prompt = goal_prompt(rule.vocabulary, seed, labels=3)
    limits = {"max_path_tokens": 9}
    with fake.running() as client:
        answers = [
            client.complete(prompt, max_tokens=60, temperature=t, seed=seed + n, multiverse=limits)
            for n, t in enumerate((0, 1, 1))
        ]
        whole = [answer for answer in answers if is_whole(answer, rule)]
        report = compare_generated("right", client, fake.judge, rule, answers)
    assert whole and whole[0].parallel["paths"] >= 3
    assert usage_faults(answers, rule) == []
    report.require()
    lossy = replace(whole[0], parallel={**whole[0].parallel, "steps": whole[0].parallel["steps"] + 1})
    assert len(usage_faults([lossy], rule)) == 1
    with replace(fake, fault=1e-3).running() as client:
        wrong = [client.complete(prompt, max_tokens=60, seed=seed, multiverse=limits)]
        assert not is_whole(wrong[0], rule) or compare_generated("wrong", client, fake.judge, rule, wrong).faults


def test_an_answer_cut_inside_paths_is_not_compared(fake, rule, seed):
    with fake.running() as client:
        answer = client.complete(goal_prompt(rule.vocabulary, seed, labels=2), max_tokens=8, seed=seed)
    assert answer.finish_reason == "length" and not is_whole(answer, rule)


def test_schedules_count_differences(fake, rule, seed):
    prompt = goal_prompt(rule.vocabulary, seed, labels=2)
    limits = {"max_path_tokens": 5}
    exact, tokens_alone = Schedules(rule, exact=True), Schedules(rule, exact=False)
    with fake.running() as client:

        def ask(number):
            return client.complete(prompt, max_tokens=30, seed=number, multiverse=limits)

        first = ask(seed)
        with load(ask, clients=2):
            exact.add("same seed", first, ask(seed))
        assert not exact.different
        exact.add("other seed", first, ask(seed + 1))
    nudged = replace(first, logprobs=[v and v + 1e-7 for v in first.logprobs])
    exact.add("nudged", first, nudged)
    assert exact.compared == 3 and len(exact.different) == 2
    tokens_alone.add("nudged", first, nudged)
    assert not tokens_alone.different


def test_schedules_leave_out_what_a_budget_cuts(fake, rule, seed):
    schedules = Schedules(rule, exact=True)
    with fake.running() as client:
        prompt = goal_prompt(rule.vocabulary, seed, labels=2)
        schedules.compare("cut", lambda extra: client.complete(prompt, max_tokens=8, seed=seed), lambda number: None)
    assert (schedules.compared, schedules.cut) == (0, 1)


def test_checkpoint_is_what_the_seed_says(tmp_path, rule):
    first, again = (write_model(ARCHITECTURES[2], tmp_path / name, seed=7) for name in ("a", "b"))
    files = sorted(path.name for path in first.iterdir())
    assert "model.safetensors.index.json" in files and "tokenizer.json" in files
    assert all((first / name).read_bytes() == (again / name).read_bytes() for name in files)
