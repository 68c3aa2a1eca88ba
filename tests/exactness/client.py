"""A client of the server's HTTP API with nothing but the standard library, for what the exactness tests ask."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


class ApiError(Exception):
    """An answer that is not 200, with the body's message."""

    def __init__(self, status: int, body: str):
        super().__init__(f"HTTP {status}: {body[:500]}")
        self.status = status


@dataclass(frozen=True)
class Generated:
    """One choice of an answer. `logprobs` has an entry for each token, None where the engine wrote it."""

    prompt: list[int]
    tokens: list[int]
    logprobs: list[float | None]
    finish_reason: str
    completion_tokens: int  # of usage
    parallel: dict[str, int]  # of usage


class Client:
    def __init__(self, url: str, timeout: float = 300.0):
        self._url = url.rstrip("/")
        self._timeout = timeout  # seconds without a byte

    def prompt_logprobs(self, prompt: Sequence[int], **parameters: Any) -> list[float | None]:
        """The log-probability of every token of a prompt, None where the server has none."""
        body = {"prompt": list(prompt), "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0, **parameters}
        answer = self.post("/v1/completions", body)
        # vLLM has the field in each choice of a completion.
        entries = answer["choices"][0].get("prompt_logprobs") or answer.get("prompt_logprobs")
        if entries is None:
            raise AssertionError(f"the answer has no prompt_logprobs: {json.dumps(answer)[:500]}")
        if len(entries) != len(prompt):
            raise AssertionError(f"{len(entries)} prompt_logprobs for {len(prompt)} prompt tokens")
        return [entry and entry[str(token)]["logprob"] for token, entry in zip(prompt, entries)]

    def chat(self, messages: Sequence[dict[str, str]], **parameters: Any) -> Generated:
        body = {"messages": list(messages), "logprobs": True, "return_token_ids": True, **parameters}
        answer = self.post("/v1/chat/completions", body)
        return _generated(answer, [entry["logprob"] for entry in answer["choices"][0]["logprobs"]["content"]])

    def complete(self, prompt: Sequence[int], **parameters: Any) -> Generated:
        body = {"prompt": list(prompt), "logprobs": 0, "return_token_ids": True, **parameters}
        answer = self.post("/v1/completions", body)
        return _generated(answer, answer["choices"][0]["logprobs"]["token_logprobs"])

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(
            self._url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            raise ApiError(error.code, error.read().decode(errors="replace")) from None


def _generated(answer: dict[str, Any], logprobs: list[float | None]) -> Generated:
    choice, usage = answer["choices"][0], answer["usage"]
    tokens = choice["token_ids"]
    if len(logprobs) != len(tokens):
        raise AssertionError(f"{len(logprobs)} log-probabilities for {len(tokens)} token_ids")
    return Generated(
        prompt=choice.get("prompt_token_ids") or answer["prompt_token_ids"],
        tokens=tokens,
        logprobs=logprobs,
        finish_reason=choice["finish_reason"],
        completion_tokens=usage["completion_tokens"],
        parallel=usage["completion_tokens_details"]["parallel"],
    )
