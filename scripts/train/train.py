"""Trains the tiny model within a given time, on CPU (a smoke test) or one GPU."""

import json
import math
import time

import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

import data
import export
import structure
from model import Tiny

PEAK_RATE, FINAL_SHARE, WARMUP_STEPS = 1.5e-3, 0.01, 200
WEIGHT_DECAY, CLIP = 0.1, 1.0


class Visibility:
    """Masks for batches of rows. The buffers that a mask reads live on, so that its kernels are compiled once."""

    def __init__(self, rows, length, device):
        self.planes = torch.zeros((3, rows, length), dtype=torch.int32, device=device)
        conversation, outer, inner = self.planes.unbind()

        def visible(row, _head, i, j):
            out = (j <= i) & (conversation[row, i] == conversation[row, j])
            for owner in (outer, inner):
                a, b = owner[row, i], owner[row, j]
                out = out & ((a == b) | (a >> structure.PATHS_BITS != b >> structure.PATHS_BITS))
            return out

        self.visible = visible
        self.block_mask = torch.compile(create_block_mask) if device.type == "cuda" else None

    def mask(self, rows):
        self.planes.copy_(rows[:, [data.CONVERSATION, 4, 5]].transpose(0, 1))
        _, count, length = self.planes.shape
        if self.block_mask:
            return self.block_mask(self.visible, count, None, length, length, device=self.planes.device)
        at = torch.arange(length)
        return self.visible(torch.arange(count)[:, None, None], None, at[None, :, None], at[None, None, :])[:, None]


def loss_of(model, ids, positions, targets, mask):
    def attend(q, k, v):
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
        if isinstance(mask, BlockMask):
            return flex_attention(q, k, v, block_mask=mask)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    logits = model(ids, positions, attend)
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=data.NO_LOSS)


def rate(step, progress):
    """Warm-up, then a cosine over the time that training has."""
    share = FINAL_SHARE + (1 - FINAL_SHARE) * (1 + math.cos(math.pi * min(progress, 1))) / 2
    return PEAK_RATE * share * min(1, (step + 1) / WARMUP_STEPS)


def weights(model):
    return {name: value.to("cpu", torch.bfloat16) for name, value in model.state_dict().items()}


def train(tokenizer, out, seconds, *, config, rows, length, processes, capacity, max_steps, deadline=None, seed=1,
          checkpoint_seconds=100):
    """Returns the trained model; checkpoints and `training_log.jsonl` go to `out`. The clock starts with the first
    finished step; a `deadline` (of `time.monotonic`) takes the place of `seconds`."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(seed)
    torch.set_float32_matmul_precision("high")
    source = data.Rows(tokenizer, length, capacity, processes, device, chunk=min(32, rows), seed=seed)
    model = Tiny(config).to(device)
    matrices = [p for p in model.parameters() if p.dim() == 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=PEAK_RATE, betas=(0.9, 0.95), fused=device.type == "cuda")
    visibility = Visibility(rows, length, device)
    step_loss = torch.compile(loss_of, dynamic=False) if device.type == "cuda" else loss_of

    log = open(out / "training_log.jsonl", "w", buffering=1)
    started, first, step, last_saved = time.monotonic(), None, 0, 0.0
    while step < max_steps:
        elapsed = time.monotonic() - first if first else 0.0
        if elapsed >= seconds:
            break
        batch = source.next(rows)
        ids, positions, targets = (batch[:, plane].long() for plane in (data.IDS, data.POSITIONS, data.TARGETS))
        for group in optimizer.param_groups:
            group["lr"] = rate(step, max(elapsed / seconds, step / max_steps))
        with torch.autocast(device.type, torch.bfloat16):
            loss = step_loss(model, ids, positions, targets, visibility.mask(batch))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        if first is None:
            loss.item()  # compiled and done
            first = time.monotonic()
            seconds = deadline - first if deadline else seconds
            print(f"compiled in {first - started:.0f} s", flush=True)
        if step % 100 == 0 or step == max_steps:
            value, now = loss.item(), time.monotonic()
            entry = {
                "step": step, "seconds": round(now - first, 1), "loss": round(value, 5), "rate": optimizer.param_groups[0]["lr"],
                "tokens": step * rows * length, "rows_seen": source.filled, "rows_repeated": source.repeated,
            }  # fmt: skip
            log.write(json.dumps(entry) + "\n")
            if step % 500 == 0:
                print(entry, flush=True)
            if now - first - last_saved > checkpoint_seconds:
                last_saved = now - first
                export.write_weights(out, weights(model))
    source.close()
    log.close()
    export.write_weights(out, weights(model))
    print(f"trained {step} steps, {step * rows * length / 1e6:.0f} M tokens, {source.filled} rows of which {source.repeated} drawn again", flush=True)
    return model
