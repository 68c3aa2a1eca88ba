"""Checkpoints to resume from, and the finished model as Hugging Face files that `multiverse serve` loads."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from huggingface_hub import save_torch_state_dict
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, get_state_dict, set_state_dict

GENERATION = "generation_config.json"
STATE = "state.json"  # written last: a checkpoint without it was not finished


def _first() -> bool:
    return not dist.is_initialized() or dist.get_rank() == 0


def _barrier() -> None:
    if dist.is_initialized():
        dist.barrier()


def latest(folder: Path) -> Path | None:
    """The newest finished checkpoint under `folder`."""
    done = (path.parent for path in folder.glob(f"step-*/{STATE}"))
    return max(done, key=lambda path: int(path.name.removeprefix("step-")), default=None)


def save(folder: Path, step: int, trainee, optimizer, settings: dict, keep: int = 2) -> None:
    """Weights and optimiser, each process its own shards. `keep` checkpoints stay."""
    path = folder / f"step-{step}"
    if _first():
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
    _barrier()
    model_state, optimizer_state = get_state_dict(trainee, optimizer)
    dcp.save({"model": model_state, "optimizer": optimizer_state}, checkpoint_id=path, no_dist=not dist.is_initialized())
    _barrier()
    if _first():
        (path / STATE).write_text(json.dumps({"step": step, "settings": settings}, indent=1) + "\n")
        finished = sorted(folder.glob(f"step-*/{STATE}"), key=lambda p: int(p.parent.name.removeprefix("step-")))
        for old in finished[:-keep]:
            shutil.rmtree(old.parent)


def load(path: Path, trainee, optimizer, settings: dict) -> int:
    """The step to go on with. ValueError where the checkpoint was made under settings that would give other rows or another model."""
    state = json.loads((path / STATE).read_text())
    differing = sorted(k for k in settings.keys() | state["settings"].keys() if settings.get(k) != state["settings"].get(k))
    if differing:
        was, now = ({k: s.get(k) for k in differing} for s in (state["settings"], settings))
        raise ValueError(f"{path} was made with {was}, this run has {now}; use the same settings or another --out")
    model_state, optimizer_state = get_state_dict(trainee, optimizer)
    both = {"model": model_state, "optimizer": optimizer_state}
    dcp.load(both, checkpoint_id=path, no_dist=not dist.is_initialized())
    set_state_dict(trainee, optimizer, model_state_dict=both["model"], optim_state_dict=both["optimizer"])
    return state["step"]


def export(out: Path, trainee, config, tokenizer, base: Path, shard_size: str = "4GB") -> None:
    """bf16 weights, config, tokenizer, and the base's way to generate. Every process calls it; the first one writes."""
    state = get_model_state_dict(trainee, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if _first():
        out.mkdir(parents=True, exist_ok=True)
        weights = {name.removeprefix("model."): value.to(torch.bfloat16) for name, value in state.items()}
        if config.tie_word_embeddings:
            weights.pop("lm_head.weight", None)
        for old in out.glob("model*.safetensors*"):
            old.unlink()
        save_torch_state_dict(weights, out, max_shard_size=shard_size)
        for file in out.glob("*.safetensors"):  # written as private to this user
            file.chmod(0o644)
        config = copy.deepcopy(config)
        config.dtype = torch.bfloat16
        config.use_cache = True
        config.save_pretrained(out)
        tokenizer.save_pretrained(out)
        if (base / GENERATION).exists():
            shutil.copy(base / GENERATION, out)
        else:
            generation = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
            (out / GENERATION).write_text(json.dumps({k: v for k, v in generation.items() if v is not None}, indent=2) + "\n")
    _barrier()
