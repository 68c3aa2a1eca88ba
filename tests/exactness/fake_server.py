"""A server made of the judge and the oracle, slow and obvious: it shows that the harness passes what is right and finds
what is wrong, without the real one. It generates in canonical order, each token by a pass over the whole text."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch

from tests.exactness.client import Client
from tests.exactness.judge import Judge
from multiverse.labels import LabelRule
from multiverse.structure import BlockState, Branch, Tree, reference, trees


@dataclass
class FakeServer:
    judge: Judge
    rule: LabelRule
    end_of_text: int
    fault: float = 0.0  # added to the log-probability of every token in a path: a server that is wrong

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        prompt = body["prompt"]
        written = _Generation(self, prompt, body).run()
        choice = {"index": 0, "token_ids": written.tokens[len(prompt) :], "finish_reason": written.finish_reason}
        choice["logprobs"] = {"token_logprobs": written.logprobs}
        choice["prompt_token_ids"] = prompt
        if "prompt_logprobs" in body:
            values = self.log_probabilities(prompt)
            choice["prompt_logprobs"] = [v if v is None else {str(t): {"logprob": v}} for t, v in zip(prompt, values)]
        counts = asdict(trees(written.tokens, self.rule.vocabulary.ids, self.rule, start=len(prompt)))
        parallel = {name: value for name, value in counts.items() if name != "tokens"}
        usage = {"completion_tokens": counts["tokens"], "completion_tokens_details": {"parallel": parallel}}
        return {"choices": [choice], "usage": usage}

    def log_probabilities(self, tokens: list[int]) -> list[float | None]:
        tree = reference(tokens, self.rule.vocabulary.ids, self.rule)
        values = self.judge.log_probabilities(tokens, tree)
        return [v if v is None else v + self.fault * bool(b.lineage) for v, b in zip(values, tree.branch)]

    @contextlib.contextmanager
    def running(self) -> Iterator[Client]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                answer = json.dumps(fake.complete(body)).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield Client(f"http://127.0.0.1:{server.server_address[1]}")
        finally:
            server.shutdown()
            server.server_close()


class _Generation:
    def __init__(self, fake: FakeServer, prompt: list[int], body: dict[str, Any]):
        self._fake = fake
        self._ids = fake.rule.vocabulary.ids
        self._start = len(prompt)
        self._limit = body.get("max_tokens", 1)
        self._temperature = body.get("temperature", 1.0)
        self._seed = body.get("seed", 0)
        self._path_limit = body.get("multiverse", {}).get("max_path_tokens")
        self.tokens = list(prompt)
        self.logprobs: list[float | None] = []
        self.finish_reason = "length"

    def run(self) -> _Generation:
        while len(self.tokens) - self._start < self._limit and self.finish_reason == "length":
            tree = reference(self.tokens, self._ids, self._fake.rule)
            branch = self._branch(tree)
            written = self._written_by_the_engine(branch)
            if written:
                self._append(written, [None] * len(written))
            else:
                self._sample(tree, branch)
        del self.tokens[self._start + self._limit :], self.logprobs[self._limit :]
        return self

    def _branch(self, tree: Tree) -> Branch:
        """That writes on: the last token's, or its parent once it has ended."""
        branch = tree.branch[-1]
        ended = branch.parent and self.tokens[-1] == self._ids.newline and self.tokens[-2] == self._ids.end_path
        return branch.parent if ended else branch

    def _written_by_the_engine(self, branch: Branch) -> list[int]:
        newline = self._ids.newline
        if branch.parent and self.tokens[-1] == self._ids.end_path:
            return [newline]
        block = branch.open_blocks[-1] if branch.open_blocks else None
        if block is None or block.state is not BlockState.FORKED:
            return []
        if self.tokens[-1] == self._ids.end_goal:
            return [newline]
        labels = self._fake.rule.labels(self.tokens[block.goal + 1 : block.fork])
        if len(block.paths) == len(labels):
            return [self._ids.conclusion, newline]
        names = self._fake.rule.vocabulary.token_bytes
        digits = [names.index(bytes([byte])) for byte in (labels[len(block.paths)] + ":").encode()]
        return [self._ids.path, newline, *digits]

    def _sample(self, tree: Tree, branch: Branch) -> None:
        in_branch = sum(b is branch for b in tree.branch)
        if branch.parent and self._path_limit and in_branch >= self._path_limit:
            return self._append([self._ids.end_path], [None])
        logits = self._fake.judge.logits(self.tokens, tree, [len(self.tokens) - 1])[0].double()
        token = self._draw(logits, branch, in_branch)
        if token == self._fake.end_of_text:
            if branch.parent:
                return self._append([self._ids.end_path], [None])
            self.finish_reason = "stop"
        value = (logits[token] - logits.logsumexp(dim=0)).item()
        self._append([token], [value + self._fake.fault * bool(branch.parent)])

    def _draw(self, logits: torch.Tensor, branch: Branch, index: int) -> int:
        if self._temperature == 0:
            return int(logits.argmax())
        address = [(b.block.index, b.number) for b in branch.lineage]
        key = hashlib.sha256(repr((self._seed, address, index)).encode()).digest()
        draw = random.Random(key).random()
        cumulative = (logits / self._temperature).softmax(dim=0).cumsum(dim=0)
        return min(int(torch.searchsorted(cumulative, draw)), len(logits) - 1)

    def _append(self, tokens: list[int], logprobs: list[float | None]) -> None:
        self.tokens += tokens
        self.logprobs += logprobs
