"""Writes a small model with random weights, as Hugging Face files: what the executor's tests compare with.

    make_random_model.py FAMILY DIR [--old-keys] [--dtype float32|bfloat16|float16] [--seed N] [--shards]

FAMILY: qwen2, qwen2-tied, qwen3, llama3, llama-bias. --old-keys rewrites config.json as transformers 4 wrote it.
"""

import argparse
import json
import pathlib

import torch
import transformers

COMMON = dict(
    vocab_size=419,
    hidden_size=96,
    intermediate_size=200,  # not a multiple of 16: the last panel of gates and ups is padded
    num_hidden_layers=3,
    num_attention_heads=6,
    num_key_value_heads=2,
    max_position_embeddings=4096,
    rms_norm_eps=1e-6,
    bos_token_id=None,
    eos_token_id=[1, 2],
    pad_token_id=None,
)
LLAMA3_ROPE = dict(
    rope_type="llama3",
    rope_theta=500000.0,
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=256,
)


def make_config(family):
    if family in ("qwen2", "qwen2-tied"):
        return transformers.Qwen2Config(
            **COMMON, tie_word_embeddings=family == "qwen2-tied", rope_parameters=dict(rope_type="default", rope_theta=1e6)
        )
    if family == "qwen3":
        return transformers.Qwen3Config(
            **COMMON, head_dim=24, tie_word_embeddings=True, rope_parameters=dict(rope_type="default", rope_theta=1e6)
        )
    if family in ("llama3", "llama-bias"):
        return transformers.LlamaConfig(
            **COMMON, head_dim=16, attention_bias=family == "llama-bias", tie_word_embeddings=False, rope_parameters=LLAMA3_ROPE
        )
    raise SystemExit(f"unknown family {family!r}")


def randomize(model, seed):
    """Weights large enough that attention is peaked and logits spread; norms and biases away from their neutral values."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name:
                parameter.copy_(1 + 0.2 * noise)
            elif name.endswith("bias"):
                parameter.copy_(0.5 * noise)
            elif "embed" in name:
                parameter.copy_(noise * (0.3 if model.config.tie_word_embeddings else 1.0))  # keeps tied logits moderate
            else:
                parameter.copy_(noise * 1.5 / parameter.shape[1] ** 0.5)


def rewrite_as_transformers_4(folder):
    file = folder / "config.json"
    config = json.loads(file.read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = None if rope["rope_type"] == "default" else rope
    config["torch_dtype"] = config.pop("dtype")
    config.pop("layer_types", None)
    if config["model_type"] == "qwen2":
        config |= {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 2}
        config.pop("head_dim", None)
    file.write_text(json.dumps(config, indent=2))


def make(family, folder, old_keys=False, dtype="float32", seed=1, shards=False):
    folder = pathlib.Path(folder)
    model = transformers.AutoModelForCausalLM.from_config(make_config(family), attn_implementation="eager")
    randomize(model, seed)
    model = model.to(getattr(torch, dtype))
    model.save_pretrained(folder, max_shard_size="200KB" if shards else "5GB")
    if old_keys:
        rewrite_as_transformers_4(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("family")
    parser.add_argument("folder")
    parser.add_argument("--old-keys", action="store_true")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shards", action="store_true")
    arguments = parser.parse_args()
    make(arguments.family, arguments.folder, arguments.old_keys, arguments.dtype, arguments.seed, arguments.shards)
