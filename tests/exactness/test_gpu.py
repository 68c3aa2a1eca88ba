"""The server on a GPU, in bfloat16: no further from float32 than transformers' own pass in bfloat16 on the same card.

Float32 arithmetic on float32 weights is the truth; both passes round the same weights to bfloat16."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM
from transformers import Qwen3Config, Qwen3ForCausalLM

from tests.exactness.judge import Judge, LogProbabilities
from tests.exactness.models import CONTEXT, LLAMA3_SCALING, Architecture, write_model
from tests.exactness.server import BINARY, running_server
from tests.exactness.texts import random_texts
from multiverse.labels import LabelRule
from multiverse.structure import reference

TEXTS = 30
ALLOWED = 1.2  # times transformers' own error
TRAINED = "multiverse-tiny"

pytestmark = [
    pytest.mark.skipif(not BINARY.exists(), reason=f"no server at {BINARY}: build it, or name one in MULTIVERSE_BINARY"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU was found"),
]


# Shapes whose head_dim a GPU takes, 64 and 128, with several query heads for each KV head.
def _qwen2(vocabulary: int) -> PreTrainedModel:
    return Qwen2ForCausalLM(Qwen2Config(vocab_size=vocabulary, tie_word_embeddings=True, **_sizes(64, 10000.0)))


def _qwen3(vocabulary: int) -> PreTrainedModel:
    sizes = _sizes(128, 1000000.0)
    return Qwen3ForCausalLM(Qwen3Config(vocab_size=vocabulary, head_dim=128, tie_word_embeddings=True, **sizes))


def _llama(vocabulary: int) -> PreTrainedModel:
    sizes = {**_sizes(64, 500000.0), "rope_parameters": {**LLAMA3_SCALING, "rope_theta": 500000.0}}
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, tie_word_embeddings=False, **sizes))


def _sizes(head_dim: int, theta: float) -> dict:
    return {
        "hidden_size": 6 * head_dim,
        "intermediate_size": 10 * head_dim,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT,
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
    }


BUILDERS: dict[str, Callable[[int], PreTrainedModel]] = {"qwen2": _qwen2, "qwen3": _qwen3, "llama": _llama}


def errors(got: LogProbabilities, truth: LogProbabilities) -> list[float]:
    return [a - b for a, b in zip(got, truth, strict=True) if a is not None and b is not None]


def root_mean_square(values: Sequence[float]) -> float:
    return math.sqrt(sum(value * value for value in values) / len(values))


@pytest.mark.parametrize("name", [*BUILDERS, TRAINED])
@pytest.mark.parametrize("options", [(), ("--deterministic",)], ids=["default", "deterministic"])
def test_no_further_from_float32_than_transformers(
    name: str, options: tuple[str, ...], checkpoints: dict[str, Path], rule: LabelRule, seed: int, tmp_path: Path
) -> None:
    if name in BUILDERS:
        directory = write_model(Architecture(name, BUILDERS[name]), tmp_path, seed)
    elif name in checkpoints:
        directory = checkpoints[name]
    else:
        pytest.skip(f"models/{name} has no weights in this checkout")
    truth = Judge(directory, torch.float32)
    theirs = Judge(directory, torch.bfloat16, device="cuda")
    our_errors, their_errors = [], []
    with running_server(directory, ["--device", "cuda:0", "--dtype", "auto", *options]) as client:
        for text in random_texts(rule.vocabulary, seed + 3, TEXTS):
            tree = reference(text.tokens, rule.vocabulary.ids, rule)
            right = truth.log_probabilities(text.tokens, tree)
            ours = client.prompt_logprobs(text.tokens)
            assert [x is None for x in ours] == [x is None for x in right], text.name
            our_errors += errors(ours, right)
            their_errors += errors(theirs.log_probabilities(text.tokens, tree), right)
    ours_rms, theirs_rms = root_mean_square(our_errors), root_mean_square(their_errors)
    print(
        f"{name}: {len(our_errors)} tokens, root mean square error {ours_rms:.2e}, of transformers in bfloat16 "
        f"{theirs_rms:.2e} ({ours_rms / theirs_rms:.2f} x); greatest {max(map(abs, our_errors)):.2e} and "
        f"{max(map(abs, their_errors)):.2e}"
    )
    assert len(our_errors) > 1000
    assert ours_rms <= ALLOWED * theirs_rms
