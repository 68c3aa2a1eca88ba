"""Positions, masks, targets and packing, and the loss against a token-by-token recomputation."""

import importlib.util
import json
import random
import sys

import numpy as np
import pytest
import torch
from transformers import DynamicCache

from multiverse import structure
from multiverse.labels import may_fork_for
from multiverse.train import attention, packing
from multiverse.train.corpus import encode
from multiverse.train.model import Trainee
from multiverse.train.samples import OUTSIDE, SampleError
from tests.train import trees

SHARED = trees.ROOT.parent / "shared"
ENCODER = trees.encoder()


def draw(count, seed, parallel=lambda n: True):
    rng = random.Random(seed)
    return [trees.conversation(rng, parallel(n)) for n in range(count)]


def mask_of(samples, length=None):
    """The mask and batch of one row with all the samples."""
    length = length or sum(map(len, samples))
    batch = packing.collate([list(range(len(samples)))], samples, length, ENCODER.levels)
    visibility = attention.Visibility(ENCODER.levels, 1, length, torch.device("cpu"))
    return batch, visibility.mask(torch.from_numpy(batch.owners))


def references():
    """The project's own reader, and the contract's where it is present."""
    yield structure.reference, structure.ControlTokens
    path = SHARED / "spec" / "reference.py"
    if path.exists():
        spec = importlib.util.spec_from_file_location("contract_reference", path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
        yield module.reference, module.ControlTokens


def test_positions_visibility_and_loss_are_the_reference_s():
    nested = 0
    for reference, control_tokens in references():
        ids = control_tokens(**vars(ENCODER.rule.vocabulary.ids))
        for messages in draw(40, seed=3):
            sample = ENCODER.encode(messages)
            expected = reference(sample.ids.tolist(), ids, may_fork_for(ENCODER.rule.vocabulary, max_depth=3))
            assert expected.malformed == []
            assert sample.positions.tolist() == expected.position
            _, mask = mask_of([sample])
            for i, row in enumerate(expected.visible):
                assert mask[0, 0, i, : i + 1].tolist() == row and not mask[0, 0, i, i + 1 :].any(), i
            answer = np.flatnonzero(sample.loss)
            start = answer[0]
            assert [i for i in range(start, len(sample)) if not expected.forced[i]] == answer.tolist()
            assert all(expected.previous[i] == i - 1 for i in answer)
            assert ENCODER.tokenizer.decode(sample.ids[:start].tolist()).endswith("<|im_start|>assistant\n")
            nested += sample.blocks > 1
    assert nested > 10


def token_by_token(model, sample, tree):
    """Log-probabilities of all tokens, each computed in a pass of its own over a cache, under a mask written out from the tree."""
    cache, previous_row, out = DynamicCache(), {}, []
    for i, token in enumerate(sample.ids.tolist()):
        row = torch.tensor([[[[0.0 if sees else -torch.inf for sees in tree.visible[i]]]]], dtype=torch.float64)
        logits = model(input_ids=torch.tensor([[token]]), position_ids=torch.tensor([[tree.position[i]]]), attention_mask=row,
                       past_key_values=cache, use_cache=True).logits[0, 0]  # fmt: skip
        before = tree.previous[i]
        out.append(None if before is None else previous_row[before][token].item())
        previous_row[i] = logits.log_softmax(-1)
    return out


@pytest.mark.parametrize("name", trees.MODELS)
@torch.no_grad()
def test_loss_equals_a_recomputation_token_by_token(name):
    """Packed rows with padding, float64: log-probabilities and the loss to rounding."""
    samples = [ENCODER.encode(messages) for messages in draw(3, seed=11, parallel=lambda n: n != 1)]
    batch, mask = mask_of(samples, sum(map(len, samples)) + 5)
    ids, positions, targets = map(torch.from_numpy, (batch.ids, batch.positions, batch.targets))
    trainee = Trainee(trees.toy_model(name))
    got = trainee.log_probabilities(ids, positions, mask)[0].tolist()
    plain = trees.toy_model(name, implementation="eager")
    at, losses, largest = 0, [], 0.0
    for sample in samples:
        tree = structure.reference(sample.ids.tolist(), ENCODER.rule.vocabulary.ids, ENCODER.rule)
        expected = token_by_token(plain, sample, tree)
        for i, value in enumerate(expected):
            if value is not None:
                largest = max(largest, abs(value - got[at + i]))
            if sample.loss[i]:
                losses.append(-value)
        at += len(sample)
    print(f"{name}: largest difference {largest:.2g} over {at} tokens")
    assert largest < 1e-5  # log_probabilities are float32 at the end
    places = torch.from_numpy(batch.places)
    assert trainee(ids, positions, mask, places, targets.flatten()[places]).item() == pytest.approx(sum(losses), rel=1e-6)
    assert int((targets != packing.NO_LOSS).sum()) == len(losses)


@torch.no_grad()
def test_samples_of_a_row_do_not_see_each_other():
    samples = [ENCODER.encode(messages) for messages in draw(3, seed=5)]
    trainee = Trainee(trees.toy_model("qwen2"))

    def of_middle(row):
        batch, mask = mask_of(row)
        start = len(row[0])
        out = trainee.log_probabilities(torch.from_numpy(batch.ids), torch.from_numpy(batch.positions), mask)[0]
        return out[start + 1 : start + len(row[1])]

    other = [ENCODER.encode(messages) for messages in draw(2, seed=6)]
    torch.testing.assert_close(of_middle(samples), of_middle([other[0], samples[1], other[1]]), atol=1e-5, rtol=0)


@torch.no_grad()
def test_flex_attention_sees_what_the_dense_mask_shows():
    """The block mask and FlexAttention, uncompiled, on the CPU: what GPUs run compiled."""
    samples = [ENCODER.encode(messages) for messages in draw(4, seed=8)]
    length = -(-sum(map(len, samples)) // 128) * 128
    batch, dense = mask_of(samples, length)
    visibility = attention.Visibility(ENCODER.levels, 1, length, torch.device("cpu"))
    visibility.create = attention.create_block_mask
    blocks = visibility.mask(torch.from_numpy(batch.owners))
    torch.manual_seed(2)
    q, k, v = (torch.randn(1, heads, length, 16) for heads in (4, 2, 2))
    compiled, attention._compiled_flex_attention = attention._compiled_flex_attention, attention.flex_attention
    try:
        ours, _ = attention.attend(None, q, k, v, blocks, scaling=0.3)
    finally:
        attention._compiled_flex_attention = compiled
    theirs, _ = attention.attend(None, q, k, v, dense, scaling=0.3)
    torch.testing.assert_close(ours, theirs)


# Packing and the schedule


def make_samples(count=60, seed=1):
    return [ENCODER.encode(messages) for messages in draw(count, seed, parallel=lambda n: n % 2 == 0)]


def shapes(samples):
    return [len(s) for s in samples], [s.parallel for s in samples]


def test_the_plan_is_a_function_of_the_seed_and_fills_rows():
    samples = make_samples()
    settings = {"row_tokens": 600, "rows": 4, "steps": 30, "schedule": packing.Schedule()}
    first, again, other = (list(packing.plan(*shapes(samples), seed=seed, **settings)) for seed in (1, 1, 2))
    assert first == again != other
    tokens = [sum(len(samples[i]) for i in row) for rows in first for row in rows]
    assert max(tokens) <= 600 and sum(tokens) / len(tokens) > 0.9 * 600


def test_the_schedule_goes_from_sequential_to_parallel():
    samples = make_samples()
    schedule = packing.Schedule(start=0.1, end=0.9, ramp=0.5)
    assert [round(schedule.share(t), 3) for t in (0, 0.25, 0.5, 1)] == [0.1, 0.5, 0.9, 0.9]
    plan = list(packing.plan(*shapes(samples), row_tokens=2000, rows=2, steps=200, schedule=schedule, seed=1))

    def share(steps):
        drawn = [samples[i] for rows in steps for row in rows for i in row]
        return sum(len(s) for s in drawn if s.parallel) / sum(map(len, drawn))

    # Drawn samples wait for a row that they fit into, so a share comes a few steps after the schedule asks for it.
    assert share(plan[5:15]) == pytest.approx(0.18, abs=0.08)
    assert share(plan[48:58]) == pytest.approx(0.5, abs=0.08)
    assert share(plan[120:]) == pytest.approx(0.9, abs=0.04)


def test_padding_has_no_loss_and_owners_of_rows_are_their_own():
    samples = make_samples(4)
    batch = packing.collate([[0, 2], [1]], samples, 1500, ENCODER.levels)
    used = len(samples[1])
    assert (batch.targets[1, used - 1 :] == packing.NO_LOSS).all() and (batch.owners[:, 1, used:] == OUTSIDE).all()
    blocks = [set((batch.owners[1, 0, at] >> 10).tolist()) - {-1} for at in (slice(0, len(samples[0])), slice(len(samples[0]), 1500))]
    assert blocks[0] and blocks[1] and not blocks[0] & blocks[1]


# What the encoder refuses


def refusal(content, user="What?", levels=3):
    with pytest.raises(SampleError) as error:
        trees.encoder(levels).encode([{"role": "user", "content": user}, {"role": "assistant", "content": content}])
    return str(error.value)


def test_refuses_what_the_server_would_not_have_generated():
    good = trees.block(random.Random(1), 3)
    assert "user) spells the special token '<Path>'" in refusal("4", user="What is <Path>?")
    assert "assistant) spells the special token '<|im_end|>'" in refusal("4<|im_end|>5")
    assert "1 blocks are opened and 0 are closed" in refusal(good.replace("</Parallel>", ""))
    assert "no conclusion" in refusal(good.replace("<Conclusion>\n", ""))
    assert "does not go on with the path" in refusal(good.replace("<Path>\n1:", "<Path>\n2:"))
    assert "no goal that forks" in refusal("<Parallel>\n<Goal>\n<Outline>\nfirst\n</Outline>\n</Goal>\n</Parallel>\n")
    assert "no separator after its goal" in refusal(good.replace("</Goal>\n", "</Goal>"))
    assert "grammar has no place" in refusal("a </Path> b")
    nested = good.replace("</Path>", trees.block(random.Random(1), 3, "1.") + "</Path>", 1)
    assert "no goal that forks" in refusal(nested, levels=1)


def test_tokens_never_cross_what_the_server_writes():
    text = "a\n</Goal>\n\nb<Path>\n2.1:\n\nc</Path>\n\n<Conclusion>\n\nd"
    assert ENCODER.pieces(text) == ["a\n", "</Goal>", "\n", "\nb", "<Path>", "\n", "2.1:", "\n\nc", "</Path>", "\n", "\n", "<Conclusion>", "\n", "\nd"]


def encoded(path, longest, workers=0):
    return encode(path, trees.TINY, "multiverse", ENCODER.levels, longest, path.parent / "samples", workers)


def test_encoding_says_why_lines_are_refused(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text('{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\nnot json\n{"messages": []}\n')
    corpus = encoded(path, 100)
    assert len(corpus) == 1 and [line for line, _ in corpus.refused] == [2, 3]
    assert "JSONDecodeError" in corpus.refused[0][1] and "not the assistant's" in corpus.refused[1][1]
    assert "has room for 5" in encoded(path, 5).refused[0][1]  # other settings, encoded anew


def test_a_corpus_gives_back_what_was_encoded(tmp_path, monkeypatch):
    """By one process and by several, and from the files of an earlier run."""
    monkeypatch.setattr("multiverse.train.corpus.LINES", 4)
    conversations = draw(9, seed=12, parallel=lambda n: n % 2 == 0)
    samples = [ENCODER.encode(messages) for messages in conversations]
    for workers in (1, 2):
        path = tmp_path / str(workers) / "data.jsonl"
        path.parent.mkdir()
        path.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in conversations))
        first = encoded(path, 10_000, workers)
        monkeypatch.setattr("multiverse.train.corpus._encoded", None)  # the files are there: nothing is encoded again
        for corpus in (first, encoded(path, 10_000, workers)):
            assert corpus.refused == [] and (corpus.lengths, corpus.parallel) == shapes(samples)
            for ours, theirs in zip(corpus, samples, strict=True):
                assert ours.blocks == theirs.blocks
                for name in ("ids", "positions", "owners", "loss"):
                    np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
        monkeypatch.undo()
        monkeypatch.setattr("multiverse.train.corpus.LINES", 4)
