"""Random well-formed conversations over the shipped tokenizer, and toy models of every served architecture."""

import json
import random
import shutil
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from multiverse.dialect import Dialect
from multiverse.train import attention
from multiverse.train.samples import Encoder

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "models" / "multiverse-tiny"
DIALECT = Dialect.load("multiverse")
SHAPE = {"vocab_size": 512, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "head_dim": 8}  # fmt: skip
MODELS = {"qwen2": (Qwen2Config, Qwen2ForCausalLM), "qwen3": (Qwen3Config, Qwen3ForCausalLM), "llama": (LlamaConfig, LlamaForCausalLM)}


def toy_model(name, dtype=torch.float64, implementation=None):
    config, kind = MODELS[name]
    torch.manual_seed(7)
    model = kind(config(**SHAPE, attn_implementation=implementation or attention.register())).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.normal_(0, 0.3)  # so that a wrong mask or position shows
    return model


def write_toy_base(base: Path, hidden_size: int, intermediate_size: int):
    """The shipped model's folder without weights, of two small layers: what a run with random_init begins from."""
    base.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TINY / name, base)
    small = {"hidden_size": hidden_size, "intermediate_size": intermediate_size, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2}  # fmt: skip
    (base / "config.json").write_text(json.dumps(json.loads((TINY / "config.json").read_text()) | small))


def tokenizer():
    return AutoTokenizer.from_pretrained(TINY)


def encoder(levels=3):
    return Encoder(tokenizer(), TINY / "tokenizer.json", DIALECT, levels)


def words(rng, least=0):
    return "".join(rng.choice("ab 12:.\n") for _ in range(rng.randint(least, 8)))


def block(rng, depth, prefix=""):
    labels = [f"{prefix}{n + 1}" for n in range(rng.randint(1, 3))]
    outlines = "".join(f"<Outline>\n{label}: {words(rng)}\n</Outline>\n" for label in labels)
    paths = "".join(f"<Path>\n{label}:{body(rng, depth + 1, label + '.')}</Path>\n" for label in labels)
    return f"<Parallel>\n<Goal>\n{outlines}</Goal>\n{paths}<Conclusion>\n{words(rng)}</Conclusion>\n</Parallel>\n"


def body(rng, depth, prefix=""):
    inner = block(rng, depth, prefix) if rng.random() < (1.0, 0.3, 0.3, 0, 0)[depth] else ""
    return words(rng) + inner + words(rng)


def conversation(rng: random.Random, parallel=True):
    answer = f"<Think>\n{body(rng, 0) if parallel else words(rng)}</Think>\nAnswer: {words(rng, 1).strip()}."
    return [{"role": "user", "content": "Compute " + words(rng, 1).strip() + "?"}, {"role": "assistant", "content": answer}]
