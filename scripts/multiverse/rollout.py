"""Rollouts from a running server as inputs of a policy gradient: token ids, positions, who sees whom, log-probabilities, advantages.

A reply's token ids determine its tree, positions and visibility (one reading for every list of tokens); the reply's usage and the places
without a log-probability say independently what the server took them for, and are compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import openai

from multiverse.structure import TreeReader, trees
from multiverse.train.packing import Batch, collate
from multiverse.train.samples import Encoder, Sample

LEVELS = 6  # the server's default max_depth


@dataclass(frozen=True)
class Rollout:
    prompt: list[int]
    tokens: list[int]  # in canonical order, forced ones included
    logprobs: list[float | None]  # the server's, of the model's own distribution; None: the engine wrote the token
    text: str
    finish_reason: str
    parallel: dict  # usage.completion_tokens_details.parallel


def ask(client: openai.OpenAI, model: str, messages: list[dict], *, count: int, seed: int, max_tokens: int) -> list[Rollout]:
    """`count` samples at temperature 1, without filters: the distribution that the log-probabilities are of. One request each, so that
    every one has a usage of its own; the server shares the prompt's cache between them."""
    out = []
    for n in range(count):
        reply = client.chat.completions.create(
            model=model, messages=messages, temperature=1, top_p=1, seed=seed + n, max_tokens=max_tokens, logprobs=True,
            extra_body={"return_token_ids": True, "top_k": 0, "min_p": 0, "repetition_penalty": 1},
        )  # fmt: skip
        choice, raw = reply.choices[0], reply.model_dump()
        out.append(Rollout(
            prompt=raw["prompt_token_ids"], tokens=raw["choices"][0]["token_ids"], logprobs=[entry.logprob for entry in choice.logprobs.content],
            text=choice.message.content or "", finish_reason=choice.finish_reason, parallel=raw["usage"]["completion_tokens_details"]["parallel"],
        ))  # fmt: skip
    return out


def whole(rollouts: list[Rollout]) -> list[Rollout]:
    """Those that came to their end."""
    return [rollout for rollout in rollouts if rollout.finish_reason != "length"]


def read(rollout: Rollout, encoder: Encoder) -> Sample:
    """The rollout as a sample. ValueError where the server took the tokens for something else than the reader does: a rollout that ended
    at max_tokens has the beginnings of several paths one after the other, which tokens alone do not tell apart (`whole`)."""
    sample = encoder.from_rollout(rollout.prompt, rollout.tokens)
    start = len(rollout.prompt)
    written = [i for i, value in enumerate(rollout.logprobs) if value is None]
    forced = np.flatnonzero(~sample.loss[start:]).tolist()
    if written != forced:
        raise ValueError(f"the server wrote tokens {written[:10]}… itself, by the reading they are {forced[:10]}…")
    counts = trees([*rollout.prompt, *rollout.tokens], encoder.rule.vocabulary.ids, encoder.rule, start)
    differing = {k: (rollout.parallel[k], v) for k, v in vars(counts).items() if k in rollout.parallel and rollout.parallel[k] != v}
    if differing:
        raise ValueError(f"the server's counts differ from the reading's (server, reading): {differing}")
    return sample


def branch_of_each_token(rollout: Rollout, encoder: Encoder) -> list[str]:
    """The branch of each token by its address as in the server's events: '' is the root, '1.2' the first block's second path."""
    tree = TreeReader([*rollout.prompt, *rollout.tokens], encoder.rule.vocabulary.ids, encoder.rule.allows).read()
    forked: dict[int, list[int]] = {}  # by branch, its blocks that forked
    for branch in tree.branches:
        if branch.block and branch.block.index not in forked.setdefault(branch.parent.index, []):
            forked[branch.parent.index].append(branch.block.index)

    def address(branch) -> str:
        steps = (f"{forked[b.parent.index].index(b.block.index) + 1}.{b.number + 1}" for b in branch.lineage)
        return "/".join(steps)

    return [address(branch) for branch in tree.branch[len(rollout.prompt) :]]


@dataclass(frozen=True)
class PolicyBatch:
    """Inputs of a policy gradient: what the trainer's forward pass needs, and for every sampled token what to weigh it with."""

    batch: Batch
    sampled: np.ndarray  # (rows, length) bool: tokens that the model drew
    behaviour: np.ndarray  # (rows, length) float32: the server's log-probabilities where sampled, else 0
    advantages: np.ndarray  # (rows, length) float32: the rollout's, on each of its sampled tokens


def policy_batch(rollouts: list[Rollout], reward: Callable[[Rollout], float], encoder: Encoder, length: int) -> PolicyBatch:
    """One row for each rollout. The advantage is the reward less the mean over the rollouts, in their standard deviations."""
    samples = [read(rollout, encoder) for rollout in rollouts]
    rewards = np.array([reward(rollout) for rollout in rollouts], np.float32)
    advantage = (rewards - rewards.mean()) / (rewards.std() + 1e-6)
    batch = collate([[n] for n in range(len(samples))], samples, length, encoder.levels)
    sampled, behaviour = np.zeros(batch.ids.shape, bool), np.zeros(batch.ids.shape, np.float32)
    for row, (rollout, sample) in enumerate(zip(rollouts, samples)):
        sampled[row, : len(sample)] = sample.loss
        here = slice(len(rollout.prompt), len(sample))
        behaviour[row, here] = [value or 0.0 for value in rollout.logprobs]
    return PolicyBatch(batch, sampled, behaviour, sampled * advantage[:, None])
