"""Small random checkpoints of every architecture that the server runs, as files it can be started on.

The weights are drawn so that attention matters: with the usual tiny initialisation every context would give nearly the
same distribution, and a wrong mask would pass unnoticed.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM
from transformers import Qwen3Config, Qwen3ForCausalLM

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "models" / "multiverse-tiny"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")

CONTEXT = 4096  # positions
NPR = "qwen3-npr"  # the name of the checkpoint that speaks NPR's dialect
LLAMA3_SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    # Short, so that texts of a few hundred tokens reach all three ranges of the scaling.
    "original_max_position_embeddings": 64,
}


@dataclass(frozen=True)
class Architecture:
    name: str
    build: Callable[[int], PreTrainedModel]  # vocabulary size to a model with any weights
    published_config: bool = True  # rope keys as in published checkpoints; False: as transformers 5 writes them
    shard_size: str = "50GB"


def _qwen2(vocabulary: int) -> PreTrainedModel:
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=vocabulary,
            hidden_size=96,
            intermediate_size=160,
            num_hidden_layers=2,
            num_attention_heads=6,
            num_key_value_heads=2,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        )
    )


def _qwen3(vocabulary: int) -> PreTrainedModel:
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=vocabulary,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,  # not hidden_size / heads
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
        )
    )


def _llama(vocabulary: int) -> PreTrainedModel:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=128,
            intermediate_size=192,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=1,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=False,
            rope_parameters={**LLAMA3_SCALING, "rope_theta": 500000.0},
        )
    )


ARCHITECTURES = (
    Architecture("qwen2", _qwen2),
    Architecture("qwen3", _qwen3, published_config=False),
    Architecture("llama", _llama, shard_size="400KB"),  # several files and an index
)


# What the test models' tokenizer calls its control tokens in NPR's dialect. NPR has no token for the first two.
NPR_NAMES = {
    "<Parallel>": "<unused1>",
    "</Parallel>": "<unused2>",
    "<Goal>": "<guideline>",
    "</Goal>": "</guideline>",
    "<Outline>": "<plan>",
    "</Outline>": "</plan>",
    "<Path>": "<step>",
    "</Path>": "</step>",
    "<Conclusion>": "<takeaway>",
    "</Conclusion>": "</takeaway>",
}


def write_npr_tokenizer(directory: Path) -> Path:
    """The test models' tokenizer with NPR's control tokens in the place of Multiverse's, in DIRECTORY/npr-tokenizer."""
    target = directory / "npr-tokenizer"
    target.mkdir()
    for name in (*TOKENIZER_FILES, "config.json"):
        if (TINY / name).exists():
            text = (TINY / name).read_text(encoding="utf-8")
            for old, new in NPR_NAMES.items():
                text = text.replace(f'"{old}"', f'"{new}"')
            (target / name).write_text(text, encoding="utf-8")
    return target


def draw_weights(model: PreTrainedModel, seed: int) -> None:
    """Every weight anew, biases and norms too (transformers leaves those at 0 and 1, where they would test nothing)."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        if "norm" in name:
            noise = 1 + 0.2 * noise
        elif weight.dim() == 1:
            noise *= 0.3
        elif "embed" in name or "lm_head" in name:
            noise *= 3 / math.sqrt(weight.shape[1])  # logits of standard deviation 3
        else:
            noise *= 1.2 / math.sqrt(weight.shape[1])
        weight.data.copy_(noise)


def write_model(
    architecture: Architecture, directory: Path, seed: int, tokenizer_dir: Path = TINY, name: str = ""
) -> Path:
    """A checkpoint in float32 with the tokenizer's files beside it, in DIRECTORY/NAME (default: the architecture's)."""
    target = directory / (name or architecture.name)
    target.mkdir(parents=True, exist_ok=True)
    tokenizer_config = json.loads((tokenizer_dir / "config.json").read_text())
    model = architecture.build(tokenizer_config["vocab_size"])
    draw_weights(model, seed)
    model.config.eos_token_id = tokenizer_config["eos_token_id"]
    model.config.bos_token_id = None
    model.save_pretrained(target, max_shard_size=architecture.shard_size)
    for file in TOKENIZER_FILES:
        if (tokenizer_dir / file).exists():
            shutil.copyfile(tokenizer_dir / file, target / file)
    if architecture.published_config:
        _publish_rope(target / "config.json")
    return target


def _publish_rope(config_file: Path) -> None:
    """`rope_theta` and `rope_scaling` at the top, as transformers 4 wrote them and public checkpoints have them."""
    config = json.loads(config_file.read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = None if rope["rope_type"] == "default" else rope
    config["torch_dtype"] = config.pop("dtype")
    config_file.write_text(json.dumps(config, indent=2) + "\n")
