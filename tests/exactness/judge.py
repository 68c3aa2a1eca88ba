"""The judge: one forward pass of Hugging Face transformers over a whole text, under the oracle's mask and positions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from multiverse.structure import Tree

# One per token: None for the first token and for forced ones, which nothing predicts.
LogProbabilities = list[float | None]

ROWS_AT_ONCE = 256  # of logits: bounds memory at vocabularies of any size


def attention_mask(tree: Tree, dtype: torch.dtype) -> torch.Tensor:
    """(1, 1, tokens, tokens), added to the attention scores: 0 where the row's token sees the column's."""
    branch = torch.tensor([branch.index for branch in tree.branch])
    sees = torch.tensor(tree.branch_visibility())[branch][:, branch].tril()
    mask = torch.zeros(sees.shape, dtype=dtype).masked_fill_(~sees, torch.finfo(dtype).min)
    return mask[None, None]


class Judge:
    def __init__(
        self, model_dir: Path, dtype: torch.dtype = torch.float32, attention: str = "sdpa", device: str = "cpu"
    ):
        """`attention`: transformers' implementation, "sdpa" or "eager" (that one holds all scores of a layer)."""
        self._dtype, self._device = dtype, device
        model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=dtype, attn_implementation=attention)
        self._model = model.to(device).eval()

    @torch.inference_mode()
    def hidden(self, tokens: Sequence[int], tree: Tree) -> torch.Tensor:
        """(tokens, hidden size): what the head reads."""
        output = self._model.model(
            input_ids=torch.tensor([tokens], device=self._device),
            attention_mask=attention_mask(tree, self._dtype).to(self._device),
            position_ids=torch.tensor([tree.position], device=self._device),
            use_cache=False,
        )
        return output.last_hidden_state[0]

    @torch.inference_mode()
    def logits(self, tokens: Sequence[int], tree: Tree, rows: Sequence[int]) -> torch.Tensor:
        """(rows, vocabulary)"""
        return self._model.lm_head(self.hidden(tokens, tree)[list(rows)])

    @torch.inference_mode()
    def log_probabilities(self, tokens: Sequence[int], tree: Tree) -> LogProbabilities:
        result: LogProbabilities = [None] * len(tokens)
        predicted = [i for i, previous in enumerate(tree.previous) if previous is not None]
        if not predicted:
            return result
        hidden = self.hidden(tokens, tree)
        for start in range(0, len(predicted), ROWS_AT_ONCE):
            some = predicted[start : start + ROWS_AT_ONCE]
            logits = self._model.lm_head(hidden[[tree.previous[i] for i in some]]).float()
            own = logits.gather(1, torch.tensor([[tokens[i]] for i in some], device=self._device))[:, 0]
            for i, value in zip(some, (own - logits.logsumexp(dim=1)).tolist()):
                result[i] = value
        return result


@dataclass(frozen=True)
class Difference:
    """Of two lists of log-probabilities of one text, over the tokens where both have one."""

    maximum: float
    where: int | None  # index of the token with the greatest difference
    total: float
    compared: int
    unmatched: tuple[int, ...]  # tokens where only one side has a log-probability, or a list ends early

    def describe(self, tokens: Sequence[int], tree: Tree) -> str:
        text = f"max |difference| {self.maximum:.3g} over {self.compared} tokens"
        if self.where is not None:
            branch = tree.branch[self.where]
            address = "/".join(f"block {b.block.index} path {b.number}" for b in branch.lineage) or "root"
            text += f" at token {self.where} (id {tokens[self.where]}, {address}, position {tree.position[self.where]})"
        if self.unmatched:
            text += f"; only one side has one at {len(self.unmatched)} tokens: {list(self.unmatched[:10])}"
        return text


def max_difference(server: LogProbabilities, judge: LogProbabilities) -> Difference:
    pairs = list(itertools.zip_longest(server, judge))
    apart = {i: abs(a - b) for i, (a, b) in enumerate(pairs) if a is not None and b is not None}
    unmatched = tuple(i for i, (a, b) in enumerate(pairs) if (a is None) is not (b is None))
    if len(server) != len(judge):
        unmatched += tuple(range(min(len(server), len(judge)), len(pairs)))
    # NaN compares false with everything: it must come out as the greatest, not be lost.
    where = max(apart, key=lambda i: float("inf") if apart[i] != apart[i] else apart[i], default=None)
    maximum = apart[where] if where is not None else 0.0
    maximum = float("inf") if maximum != maximum else maximum
    return Difference(maximum, where, sum(apart.values()), len(apart), tuple(sorted(set(unmatched))))
