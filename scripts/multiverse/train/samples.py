"""From conversations to token planes: ids, positions, who sees whom, and where there is loss.

A line of a data file is {"id"?, "messages": [{"role", "content"}, …]} whose last message is the assistant's answer, the control tokens
written out as text. The answer is cut where the server writes tokens of its own (a path's header, separators), so that the token ids are
those that generating it would have left. Loss is on the answer's sampled tokens alone: what the engine writes is never sampled, so
teaching it would spend the model's effort on tokens that it is never asked for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from multiverse.dialect import Dialect
from multiverse.labels import Vocabulary, may_fork_for
from multiverse.structure import Tree, TreeReader
from multiverse.wellformed import read

PATH_BITS = 10  # paths in one block: more than any server's max_paths
OUTSIDE = -1


class SampleError(ValueError):
    """The sample cannot be trained on; the message says why."""


@dataclass(frozen=True)
class Sample:
    ids: np.ndarray  # (n,) int32
    positions: np.ndarray  # (n,) int32
    owners: np.ndarray  # (levels, n) int32: block << PATH_BITS | path in each enclosing block from the outside in, else OUTSIDE
    loss: np.ndarray  # (n,) bool: the model samples this token in the answer
    blocks: int

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def parallel(self) -> bool:
        return self.blocks > 0


class Encoder:
    """Conversations into samples for one tokenizer and dialect. `levels`: the deepest nesting of blocks that is accepted."""

    def __init__(self, tokenizer, tokenizer_json: Path, dialect: Dialect, levels: int):
        """`tokenizer`: Hugging Face's, with a chat template and the dialect's control tokens."""
        self.tokenizer, self.dialect, self.levels = tokenizer, dialect, levels
        self.rule = may_fork_for(Vocabulary.load(tokenizer_json, dialect), max_depth=levels)
        added = (str(token) for token in tokenizer.added_tokens_decoder.values())
        self.reserved = re.compile("|".join(map(re.escape, sorted(set(added), key=len, reverse=True))))
        d, separator = dialect, re.escape(dialect.separator)
        closers = "|".join(map(re.escape, (d.fork, d.path_close, d.conclusion_open)))
        self.written = re.compile(rf"({closers})({separator})|({re.escape(d.path_open)})({separator})(\d+(?:\.\d+)*:)")

    def pieces(self, text: str) -> list[str]:
        """The text cut at what the server writes, which no sampled token reaches into."""
        out, at = [], 0
        for match in self.written.finditer(text):
            out += [text[at : match.start()], *(group for group in match.groups() if group)]
            at = match.end()
        return [piece for piece in (*out, text[at:]) if piece]

    def encode_text(self, text: str) -> list[int]:
        encoded = self.tokenizer.backend_tokenizer.encode_batch(self.pieces(text), add_special_tokens=False)
        return [i for piece in encoded for i in piece.ids]

    def encode(self, messages: list[dict]) -> Sample:
        prompt, answer = self._render(messages)
        head = self.encode_text(prompt)
        tail = self.encode_text(answer)
        if self.tokenizer.eos_token_id not in tail:
            raise SampleError(f"the chat template does not end the answer with {self.tokenizer.eos_token!r}")
        return self.from_tokens(head, tail[: tail.index(self.tokenizer.eos_token_id) + 1])

    def from_tokens(self, prompt: list[int], answer: list[int]) -> Sample:
        tokens = [*prompt, *answer]
        reading = read(tokens, self.rule, lambda label: self.tokenizer.encode(label, add_special_tokens=False))
        if reading.problems:
            raise SampleError("; ".join(reading.problems[:3]))
        return self._sample(tokens, reading.tree, len(prompt))

    def from_rollout(self, prompt: list[int], answer: list[int]) -> Sample:
        """Of tokens that a server generated, whatever their structure: the grammar is total, and the server read them as this does."""
        tree = TreeReader([*prompt, *answer], self.rule.vocabulary.ids, self.rule.allows).read()
        return self._sample([*prompt, *answer], tree, len(prompt))

    def _sample(self, tokens: list[int], tree: Tree, prompt: int) -> Sample:
        by_branch = np.full((len(tree.branches), self.levels), OUTSIDE, np.int32)
        for branch in tree.branches:
            for level, ancestor in enumerate(branch.lineage):
                by_branch[branch.index, level] = ancestor.block.index << PATH_BITS | ancestor.number
        loss = ~np.array(tree.forced)
        loss[: max(1, prompt)] = False
        return Sample(
            ids=np.array(tokens, np.int32),
            positions=np.array(tree.position, np.int32),
            owners=by_branch[[branch.index for branch in tree.branch]].T,
            loss=loss,
            blocks=len(tree.blocks),
        )

    def _render(self, messages: list[dict]) -> tuple[str, str]:
        if not messages or messages[-1].get("role") != "assistant":
            raise SampleError("the last message is not the assistant's")
        for number, message in enumerate(messages):
            found = self.reserved.search(message["content"])
            while found and message["role"] == "assistant" and found[0] in self.dialect.control_tokens:
                found = self.reserved.search(message["content"], found.end())
            if found:
                raise SampleError(f"message {number} ({message['role']}) spells the special token {found[0]!r}")
        prompt = self.tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
        whole = self.tokenizer.apply_chat_template(messages, tokenize=False)
        answer = messages[-1]["content"].strip()
        if not whole.startswith(prompt) or not whole[len(prompt) :].startswith(answer):
            raise SampleError("the chat template changes the answer or what stands before it")
        return prompt, whole[len(prompt) :]
