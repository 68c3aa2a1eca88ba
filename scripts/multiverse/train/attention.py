"""Multiverse attention for any Hugging Face causal model: FlexAttention under a block mask on GPUs, a dense mask elsewhere.

A token sees the earlier tokens of its own sample, save those of sibling paths: where both lie in the same block, but in different paths.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from transformers import AttentionInterface

from multiverse.train.samples import PATH_BITS

NAME = "multiverse"
_compiled_flex_attention = torch.compile(flex_attention, dynamic=False)


def attend(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **_):
    """Hugging Face's attention interface. query (rows, heads, length, head), key and value with their own number of heads."""
    if isinstance(attention_mask, BlockMask):
        kernel = flex_attention if torch.compiler.is_compiling() else _compiled_flex_attention
        out = kernel(query, key, value, block_mask=attention_mask, scale=scaling, enable_gqa=True)
    elif attention_mask is None:
        raise ValueError("Multiverse attention was called without a mask: pass Visibility.mask(owners) as attention_mask")
    else:
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask, scale=scaling, enable_gqa=True)
    return out.transpose(1, 2).contiguous(), None


def register() -> str:
    """Makes the name known to transformers; models are loaded with `attn_implementation=register()`."""
    AttentionInterface.register(NAME, attend)
    return NAME


class Visibility:
    """Masks for batches of one shape. The buffer that a mask reads lives on, so that its kernels are compiled once."""

    def __init__(self, levels: int, rows: int, length: int, device: torch.device):
        self.owners = torch.full((1 + levels, rows, length), -1, dtype=torch.int32, device=device)
        sample, *paths = self.owners.unbind()

        def visible(row, _head, i, j):
            out = (j <= i) & (sample[row, i] == sample[row, j])
            for owner in paths:
                mine, theirs = owner[row, i], owner[row, j]
                out = out & ((mine == theirs) | (mine >> PATH_BITS != theirs >> PATH_BITS))
            return out

        self.visible = visible
        self.create = torch.compile(create_block_mask, dynamic=False) if device.type == "cuda" else None

    def mask(self, owners: torch.Tensor) -> BlockMask | torch.Tensor:
        """`owners`: packing.Batch.owners. Valid until the next call."""
        self.owners.copy_(owners, non_blocking=True)
        _, rows, length = self.owners.shape
        if self.create:
            return self.create(self.visible, rows, None, length, length, device=self.owners.device)
        at = torch.arange(length)
        return self.visible(torch.arange(rows)[:, None, None], None, at[None, :, None], at[None, None, :])[:, None]
