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
from multiverse.train import checkpoint, corpus, packing
from multiverse.train.attention import Visibility
from multiverse.train.feed import Work, ahead, work_of
from multiverse.train.model import load_model, load_tokenizer, prepare


@dataclass(frozen=True)
class Settings:
    """What decides the result; a checkpoint is resumed only under the same. Rows of a step are spread over all processes."""

    base: str  # folder of Hugging Face files
    data: str  # JSONL, samples.py
    steps: int
    minutes: float = 0.0  # for all steps, compiling included: the rate falls with the clock and the run ends with it; 0: by steps alone
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
    export_every: int = 0  # steps: write the model as it stands too
    workers: int = 0  # processes that encode the data; 0: one a processor
    prepare_only: bool = False  # encode the data, for a later run, and end
    log_every: int = 10
    stop_after: int = 0  # end this process after so many steps as if it had been killed; for tests
    shard_size: str = "4GB"


def check(settings: Settings, running: Running, world: int) -> None:
    if settings.rows % (world * settings.micro_rows):
        raise ValueError(f"rows ({settings.rows}) is no multiple of processes × micro_rows ({world} × {settings.micro_rows})")
    if settings.minutes and (world > 1 or running.save_every):
        raise ValueError("minutes wants one process and no save_every: a run by the clock cannot be resumed, and clocks of processes differ")


def prepare_data(settings: Settings, running: Running, tokenizer, out: Path, rank: int, world: int) -> corpus.Corpus:
    """Encoded by the first process, read by all."""
    folder = out / "samples"
    if rank == 0:
        out.mkdir(parents=True, exist_ok=True)
        tokenizer.save_pretrained(out)
        data, levels = Path(settings.data), settings.levels
        corpus.encode(data, out, settings.dialect, levels, settings.row_tokens, folder, running.workers)
    if world > 1:
        dist.barrier()
    return corpus.Corpus(folder)


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
    check(settings, running, world)
    torch.manual_seed(settings.seed)
    torch.set_float32_matmul_precision("high")
    base, dialect = Path(settings.base), Dialect.load(settings.dialect)
    tokenizer, added = load_tokenizer(base, dialect)
    samples = prepare_data(settings, running, tokenizer, out, rank, world)
    say(f"{len(samples)} samples, {sum(samples.lengths)} tokens, {sum(samples.parallel)} parallel; {len(samples.refused)} lines refused")
    for number, why in samples.refused[:5]:
        say(f"  line {number}: {why}")
    if running.prepare_only:
        return []

    model = load_model(base, tokenizer, added, random_init=settings.random_init, empty=rank > 0)
    trainee = prepare(model, device=device, bf16=settings.bf16, checkpointing=running.checkpointing, compile_layers=running.compile)
    optimizer = make_optimizer(trainee, settings, device)
    state = asdict(settings) | {"data_sha256": hashlib.sha256(Path(settings.data).read_bytes()).hexdigest()}
    begun = checkpoint.latest(out / "checkpoints")
    first = checkpoint.load(begun, trainee, optimizer, state) if begun else 0
    if first:
        say(f"goes on from step {first}")
    export = lambda: checkpoint.export(out, trainee, model.config, tokenizer, base, running.shard_size)  # noqa: E731
    log = run_steps(settings, running, samples, trainee, optimizer, device, first, out, state, export, say)
    if not running.stop_after:
        export()
        say(f"wrote {out}")
    return log


def make_optimizer(trainee, settings: Settings, device: torch.device) -> torch.optim.AdamW:
    matrices = [p for p in trainee.parameters() if p.dim() >= 2]
    vectors = [p for p in trainee.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.rate, betas=(0.9, settings.beta2), fused=device.type == "cuda")


def rate_at(step: int, progress: float, settings: Settings) -> float:
    """Linear warm-up, then a cosine from `rate` to `final_share` of it; `progress` goes from 0 to 1."""
    cosine = (1 + math.cos(math.pi * min(1.0, progress))) / 2
    share = settings.final_share + (1 - settings.final_share) * cosine
    return settings.rate * share * min(1.0, (step + 1) / max(1, settings.warmup))


class Clock:
    """How far a run is: by steps, or by its minutes where it has some and they pass first."""

    def __init__(self, settings: Settings):
        self.settings, self.started, self.first_ended = settings, time.monotonic(), None

    def seconds(self) -> float:
        return time.monotonic() - self.started

    def progress(self, step: int) -> float:
        """Before `step`. The first step, which compiles, takes its time from what there is for the others."""
        done = step / self.settings.steps
        if not self.settings.minutes or self.first_ended is None:
            return done
        left = self.started + 60 * self.settings.minutes - self.first_ended
        return max(done, (time.monotonic() - self.first_ended) / left) if left > 0 else 1.0

    def end_of_step(self) -> None:
        self.first_ended = self.first_ended or time.monotonic()


def run_steps(settings, running, samples, trainee, optimizer, device, first, out, state, export, say) -> list[dict]:
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    visibility = Visibility(settings.levels, settings.micro_rows, settings.row_tokens, device)
    schedule = packing.Schedule(settings.parallel_start, settings.parallel_end, settings.parallel_ramp)
    plan = packing.plan(
        samples.lengths, samples.parallel, row_tokens=settings.row_tokens, rows=settings.rows, steps=settings.steps, schedule=schedule,
        seed=settings.seed,
    )  # fmt: skip
    work = (work_of(rows, samples, settings, rank, world, device.type == "cuda") for step, rows in enumerate(plan) if step >= first)
    log, clock, tokens = [], Clock(settings), 0
    for step, now in enumerate(ahead(work), first):
        progress = clock.progress(step)
        if progress >= 1 or (running.stop_after and step >= running.stop_after):
            break
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, progress, settings)
        loss = train_step(trainee, optimizer, visibility, now, device, settings)
        tokens += now.tokens
        done = step + 1
        if done % running.log_every == 0 or done == settings.steps or (settings.minutes and step == first):
            entry = {"step": done, "loss": loss.item(), "rate": rate_at(step, progress, settings), "tokens": tokens,
                     "parallel_share": round(now.parallel / max(1, now.tokens), 3), "seconds": round(clock.seconds(), 2)}  # fmt: skip
            log.append(entry)
            say(json.dumps(entry))
            if rank == 0:
                with open(out / "training_log.jsonl", "a", encoding="utf-8") as file:
                    file.write(json.dumps(entry) + "\n")
        clock.end_of_step()
        if running.save_every and done % running.save_every == 0 and done < settings.steps:
            checkpoint.save(out / "checkpoints", done, trainee, optimizer, state)
        if running.export_every and done % running.export_every == 0 and done < settings.steps:
            export()
    return log


def train_step(trainee, optimizer, visibility, work: Work, device, settings: Settings) -> torch.Tensor:
    """One optimiser step; the mean loss over the targets of all processes' batches. Waits for nothing on the device."""
    world, targets = 1, float(max(1, work.targets))
    if dist.is_initialized() and dist.get_world_size() > 1:
        world = dist.get_world_size()
        counted = torch.tensor(work.targets, device=device, dtype=torch.float64)
        dist.all_reduce(counted)
        targets = max(1.0, counted.item())
    total = torch.zeros((), device=device)
    autocast = torch.autocast(device.type, torch.bfloat16) if settings.bf16 and world == 1 else contextlib.nullcontext()
    for batch in work.batches:
        ids, positions, owners, places, wanted = (x.to(device, non_blocking=True) for x in batch)
        with autocast:
            loss = trainee(ids, positions, visibility.mask(owners), places, wanted)
        # FSDP averages gradients over the processes; the loss is a sum over all of them.
        (loss * (world / targets)).backward()
        total += loss.detach()
    if world > 1:
        dist.all_reduce(total)
    torch.nn.utils.clip_grad_norm_(trainee.parameters(), settings.clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total / targets
