"""A Hugging Face causal model made ready for training, and what training computes of it: the loss over a batch's targets."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.utils.checkpoint import checkpoint
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from multiverse.dialect import Dialect
from multiverse.train import attention

SERVED = ("llama", "qwen2", "qwen3")
LOGITS = 2**29  # that exist at a time: 2 GiB in float32


def load_tokenizer(folder: Path, dialect: Dialect):
    """The tokenizer with every control token, and those that it did not have."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    known = tokenizer.get_vocab()
    missing = [token for token in dialect.control_tokens if token not in known]
    if missing:
        tokenizer.add_special_tokens({"additional_special_tokens": missing}, replace_extra_special_tokens=False)
    return tokenizer, missing


def served_config(folder: Path):
    config = AutoConfig.from_pretrained(folder)
    if config.model_type not in SERVED:
        raise ValueError(f"{folder}: model_type {config.model_type!r} is not served; served are {', '.join(SERVED)}")
    if getattr(config, "use_sliding_window", False):
        raise ValueError(f"{folder}: sliding windows are not served; 'use_sliding_window' must be false")
    return config


def vocabulary(config, tokenizer) -> int:
    """Rows of the embeddings: published models have spare ones, which control tokens then take."""
    return config.vocab_size if len(tokenizer) <= config.vocab_size else -(-len(tokenizer) // 64) * 64


def load_model(folder: Path, tokenizer, added: list[str], *, random_init: bool = False, empty: bool = False, dtype=torch.float32):
    """The model in `dtype` under Multiverse attention. `random_init`: from its config.json alone, with weights drawn anew. `empty`: on
    the meta device, for a process that gets its weights from the first one."""
    config, name = served_config(folder), attention.register()
    if empty:
        config.vocab_size = vocabulary(config, tokenizer)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=name)
    if random_init:
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=name)
    else:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation=name)
    if vocabulary(config, tokenizer) > config.vocab_size:
        model.resize_token_embeddings(vocabulary(config, tokenizer), mean_resizing=False)
    if not random_init:
        initialise(model, tokenizer, added)
    return model


@torch.no_grad()
def initialise(model, tokenizer, added: list[str]) -> None:
    """A new control token starts as the mean of the tokens that spell it, in both embeddings. So it is of an ordinary size, and the model
    reads `<Goal>` as a tag with that word from the first step on; rows drawn at random would differ in scale from all others."""
    for token in added:
        spelt = [i for part in ("<", token.strip("<>"), ">") for i in tokenizer.encode(part, add_special_tokens=False)]
        row = tokenizer.convert_tokens_to_ids(token)
        for table in {model.get_input_embeddings().weight, model.get_output_embeddings().weight}:
            table[row] = table[spelt].mean(0)


class Trainee(nn.Module):
    """What a training step calls: the sum of a batch's losses, with the logits made in pieces so that they need little memory."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids, positions, mask, places, targets) -> torch.Tensor:
        """`places` (n,): where there are targets, as indices into the flattened rows; `targets` (n,): the tokens to predict there."""
        hidden = self._hidden(ids, positions, mask).flatten(0, 1).index_select(0, places)
        head = self.model.get_output_embeddings()
        parts = zip(hidden.split(self._loss_rows()), targets.split(self._loss_rows()))
        losses = [checkpoint(_loss, head, part, target, use_reentrant=False) for part, target in parts]
        # A batch without a target still takes part in the backward pass, whose collectives every process must reach.
        return torch.stack(losses).sum() if losses else hidden.sum() * 0.0

    def log_probabilities(self, ids, positions, mask) -> torch.Tensor:
        """(rows, length): of each token given what stands before it in its row; 0 for a row's first."""
        head, hidden = self.model.get_output_embeddings(), self._hidden(ids, positions, mask)[:, :-1]
        parts = zip(hidden.flatten(0, 1).split(self._loss_rows()), ids[:, 1:].flatten().split(self._loss_rows()))
        drawn = torch.cat([checkpoint(_log_probabilities, head, part, target, use_reentrant=False) for part, target in parts])
        return F.pad(drawn.unflatten(0, hidden.shape[:2]), (1, 0))

    def _loss_rows(self) -> int:
        return max(1, LOGITS // self.model.config.vocab_size)

    def _hidden(self, ids, positions, mask):
        return self.model.model(input_ids=ids, position_ids=positions, attention_mask=mask, use_cache=False).last_hidden_state


def _loss(head, hidden, targets):
    return F.cross_entropy(head(hidden).float(), targets, reduction="sum")


def _log_probabilities(head, hidden, ids):
    return head(hidden).float().log_softmax(-1).gather(-1, ids[:, None]).squeeze(-1)


def prepare(model, *, device: torch.device, bf16: bool, checkpointing: bool, compile_layers: bool) -> Trainee:
    """The trainee on its device, sharded over all processes (FSDP2) if there are several; then only the first one's model need have
    weights, the others' may be on the meta device. With one process, bf16 is left to autocast."""
    model.config.use_cache = False
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    trainee = Trainee(model)
    if dist.is_initialized() and dist.get_world_size() > 1:
        _shard(trainee, device, bf16)
    else:
        trainee.to(device)
    if compile_layers:
        for layer in model.model.layers:
            layer.compile(dynamic=False)
    return trainee


def _shard(trainee: Trainee, device: torch.device, bf16: bool) -> None:
    first = dist.get_rank() == 0
    whole = trainee.state_dict() if first else {}
    tied = trainee.model.config.tie_word_embeddings
    if tied and not first:  # sharding must see one parameter behind both names; models with tied embeddings are small
        trainee.to_empty(device=device)
        trainee.model.tie_weights()
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if bf16 else MixedPrecisionPolicy()
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for layer in trainee.model.model.layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(trainee, mesh=mesh, mp_policy=policy)
    if not first and not tied:
        trainee.to_empty(device=device)
    set_model_state_dict(trainee, whole, options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True))
    for buffer in trainee.buffers():  # not in the state: the rotary frequencies
        dist.broadcast(buffer, 0)
