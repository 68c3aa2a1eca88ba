"""The training run: rows from the plan, AdamW, checkpoints, a log line a few steps. One process, or several under torchrun."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from multiverse.dialect import Dialect
from multiverse.train import checkpoint, packing
from multiverse.train.attention import Visibility
from multiverse.train.model import load_model, load_tokenizer, prepare
from multiverse.train.samples import Encoder, load


@dataclass(frozen=True)
class Settings:
    """What decides the result; a checkpoint is resumed only under the same. Rows of a step are spread over all processes."""

    base: str  # folder of Hugging Face files
    data: str  # JSONL, samples.py
    steps: int
    dialect: str = "multiverse"
    random_init: bool = False  # take only the base's config and tokenizer
    row_tokens: int = 8192
    rows: int = 8  # of a step, over all processes
    micro_rows: int = 1  # of one forward pass in one process
    levels: int = 3  # deepest nesting of blocks that samples may have
    rate: float = 1e-5
    final_share: float = 0.1  # of the rate, at the end of the cosine
    warmup: int = 20  # steps
    weight_decay: float = 0.01
    beta2: float = 0.95
    clip: float = 1.0
    parallel_start: float = 0.0
    parallel_end: float = 1.0
    parallel_ramp: float = 0.5
    bf16: bool = True
    seed: int = 1


@dataclass(frozen=True)
class Running:
    """What may differ between runs that give the same result, rounding aside."""

    checkpointing: bool = False  # recompute activations in the backward pass
    compile: bool = False
    save_every: int = 0  # steps; 0: only the finished model
    log_every: int = 10
    stop_after: int = 0  # end this process after so many steps as if it had been killed; for tests
    shard_size: str = "4GB"


def start_processes() -> torch.device:
    """Joins the processes that torchrun started, if it did, and says which device is this one's."""
    cuda = torch.cuda.is_available()
    if "WORLD_SIZE" in os.environ and not dist.is_initialized():
        dist.init_process_group("nccl" if cuda else "gloo")
    if not cuda:
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


def train(settings: Settings, running: Running, out: Path, say=print) -> list[dict]:
    """Writes the model to `out` and returns the log's entries: step, loss, tokens, seconds. Goes on from the newest checkpoint in `out`."""
    device = start_processes()
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    say = say if rank == 0 else lambda *_: None
    if settings.rows % (world * settings.micro_rows):
        raise ValueError(f"rows ({settings.rows}) is no multiple of processes × micro_rows ({world} × {settings.micro_rows})")
    torch.manual_seed(settings.seed)
    torch.set_float32_matmul_precision("high")
    base, dialect = Path(settings.base), Dialect.load(settings.dialect)
    tokenizer, added = load_tokenizer(base, dialect)
    out.mkdir(parents=True, exist_ok=True)
    if rank == 0:
        tokenizer.save_pretrained(out)
    if world > 1:
        dist.barrier()
    samples, refused = load(Path(settings.data), Encoder(tokenizer, out / "tokenizer.json", dialect, settings.levels), settings.row_tokens)
    say(f"{len(samples)} samples, {sum(map(len, samples))} tokens, {sum(s.parallel for s in samples)} parallel; {len(refused)} lines refused")
    for number, why in refused[:5]:
        say(f"  line {number}: {why}")

    model = load_model(base, tokenizer, added, random_init=settings.random_init, empty=rank > 0)
    trainee = prepare(model, device=device, bf16=settings.bf16, checkpointing=running.checkpointing, compile_layers=running.compile)
    optimizer = make_optimizer(trainee, settings, device)
    state = asdict(settings) | {"data_sha256": hashlib.sha256(Path(settings.data).read_bytes()).hexdigest()}
    begun = checkpoint.latest(out / "checkpoints")
    first = checkpoint.load(begun, trainee, optimizer, state) if begun else 0
    if first:
        say(f"goes on from step {first}")
    log = run_steps(settings, running, samples, trainee, optimizer, device, first, out, state, say)
    if not running.stop_after:
        checkpoint.export(out, trainee, model.config, tokenizer, running.shard_size)
        say(f"wrote {out}")
    return log


def make_optimizer(trainee, settings: Settings, device: torch.device) -> torch.optim.AdamW:
    matrices = [p for p in trainee.parameters() if p.dim() >= 2]
    vectors = [p for p in trainee.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.rate, betas=(0.9, settings.beta2), fused=device.type == "cuda")


def rate_at(step: int, settings: Settings) -> float:
    """Linear warm-up, then a cosine from `rate` to `final_share` of it."""
    cosine = (1 + math.cos(math.pi * step / settings.steps)) / 2
    share = settings.final_share + (1 - settings.final_share) * cosine
    return settings.rate * share * min(1.0, (step + 1) / max(1, settings.warmup))


def run_steps(settings, running, samples, trainee, optimizer, device, first, out, state, say) -> list[dict]:
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    visibility = Visibility(settings.levels, settings.micro_rows, settings.row_tokens, device)
    schedule = packing.Schedule(settings.parallel_start, settings.parallel_end, settings.parallel_ramp)
    plan = packing.plan(
        samples, row_tokens=settings.row_tokens, rows=settings.rows, steps=settings.steps, schedule=schedule, seed=settings.seed
    )
    log, started, tokens = [], time.monotonic(), 0
    for step, rows in enumerate(plan):
        if step < first:
            continue
        if running.stop_after and step >= running.stop_after:
            break
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, settings)
        batches = [
            packing.collate(rows[at : at + settings.micro_rows], samples, settings.row_tokens, settings.levels)
            for at in range(rank * settings.micro_rows, settings.rows, world * settings.micro_rows)
        ]
        loss = train_step(trainee, optimizer, visibility, batches, device, settings)
        tokens += sum(len(samples[i]) for row in rows for i in row)
        done = step + 1
        if done % running.log_every == 0 or done == settings.steps:
            parallel = sum(len(samples[i]) for row in rows for i in row if samples[i].parallel)
            entry = {"step": done, "loss": loss.item(), "rate": rate_at(step, settings), "tokens": tokens,
                     "parallel_share": round(parallel / max(1, sum(len(samples[i]) for row in rows for i in row)), 3),
                     "seconds": round(time.monotonic() - started, 2)}  # fmt: skip
            log.append(entry)
            say(json.dumps(entry))
            if rank == 0:
                with open(out / "training_log.jsonl", "a", encoding="utf-8") as file:
                    file.write(json.dumps(entry) + "\n")
        if running.save_every and done % running.save_every == 0 and done < settings.steps:
            checkpoint.save(out / "checkpoints", done, trainee, optimizer, state)
    return log


def train_step(trainee, optimizer, visibility, batches, device, settings: Settings) -> torch.Tensor:
    """One optimiser step; the mean loss over the targets of all processes' batches."""
    world = dist.get_world_size() if dist.is_initialized() else 1
    targets = torch.tensor(sum(int((b.targets != packing.NO_LOSS).sum()) for b in batches), device=device, dtype=torch.float64)
    if world > 1:
        dist.all_reduce(targets)
    total = torch.zeros((), device=device)
    autocast = torch.autocast(device.type, torch.bfloat16) if settings.bf16 and world == 1 else contextlib.nullcontext()
    for batch in batches:
        ids, positions, wanted = (torch.from_numpy(x).to(device) for x in (batch.ids, batch.positions, batch.targets))
        with autocast:
            loss = trainee(ids, positions, visibility.mask(torch.from_numpy(batch.owners)), wanted)
        # FSDP averages gradients over the processes; the loss is a sum over all of them.
        (loss * (world / targets.clamp(min=1)).float()).backward()
        total += loss.detach()
    if world > 1:
        dist.all_reduce(total)
    torch.nn.utils.clip_grad_norm_(trainee.parameters(), settings.clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total / targets.clamp(min=1)
