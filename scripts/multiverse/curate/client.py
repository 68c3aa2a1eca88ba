"""Completions from any OpenAI-style endpoint: retries, a rate limit, a cache on disk, and what it all cost."""

from __future__ import annotations

import asyncio
import collections
import hashlib
import json
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import openai


class Unavailable(RuntimeError):
    """No reply after all retries, for no fault of the item: a later run tries it again."""


class Unusable(ValueError):
    """The endpoint replied, but not with a whole text."""


class Refused(RuntimeError):
    """The endpoint refuses every request like this one: wrong key, no such model. The run ends."""


@dataclass
class Usage:
    requests: int = 0
    cached: int = 0
    prompt_tokens: int = 0  # of replies that did not come from the cache
    completion_tokens: int = 0
    statuses: collections.Counter = field(default_factory=collections.Counter)  # of HTTP replies, retries counted; "timeout" and the like too


class RateLimit:
    """At most so many requests a minute, evenly spaced. 0: no limit."""

    def __init__(self, per_minute: float):
        self.gap, self.next = (60 / per_minute if per_minute else 0.0), 0.0

    async def wait(self) -> None:
        now = time.monotonic()
        start, self.next = max(now, self.next), max(now, self.next) + self.gap
        await asyncio.sleep(start - now)


class Endpoint:
    """One model of one endpoint. The openai package retries 408, 409, 429, 5xx, broken connections and time-outs, and heeds Retry-After."""

    def __init__(self, url: str, model: str, cache: Path | None, *, api_key: str = "none", timeout: float = 600, retries: int = 6,
                 per_minute: float = 0, max_tokens: int = 16384, temperature: float = 0.6, max_reply_chars: int = 1_000_000):  # fmt: skip
        self.usage, self.cache, self.limit = Usage(), cache, RateLimit(per_minute)
        self.settings = {"model": model, "max_tokens": max_tokens, "temperature": temperature}
        self.max_reply_chars = max_reply_chars

        async def count(response: httpx.Response) -> None:
            self.usage.statuses[response.status_code] += 1

        self.client = openai.AsyncOpenAI(
            base_url=url, api_key=api_key, timeout=timeout, max_retries=retries,
            http_client=openai.DefaultAsyncHttpxClient(event_hooks={"response": [count]}, timeout=timeout),
        )  # fmt: skip
        if cache:
            cache.mkdir(parents=True, exist_ok=True)

    async def complete(self, prompt: str, seed: int) -> str:
        """The reply's text. The same prompt and seed give the cached reply again."""
        body = self.settings | {"messages": [{"role": "user", "content": prompt}], "seed": seed}
        key = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        file = self.cache and self.cache / key[:2] / f"{key}.json"
        if file and file.exists():
            self.usage.cached += 1
            return json.loads(file.read_text(encoding="utf-8"))["text"]
        await self.limit.wait()
        text = await self._ask(body)
        if file:
            file.parent.mkdir(exist_ok=True)
            temporary = file.with_suffix(".new")
            temporary.write_text(json.dumps({"text": text}), encoding="utf-8")
            temporary.rename(file)
        return text

    async def _ask(self, body: dict) -> str:
        self.usage.requests += 1
        try:
            reply = await self.client.chat.completions.create(**body)
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise Refused(str(error)) from error
        except openai.APITimeoutError as error:
            self.usage.statuses["timeout"] += 1
            raise Unavailable("the endpoint timed out at every try") from error
        except openai.APIConnectionError as error:
            self.usage.statuses["connection"] += 1
            raise Unavailable(f"no connection: {error.__cause__ or error}") from error
        except openai.APIStatusError as error:
            if error.status_code == 429 or error.status_code >= 500:
                raise Unavailable(f"HTTP {error.status_code} at every try") from error
            raise Unusable(f"HTTP {error.status_code}: {str(error)[:200]}") from error
        except (openai.APIError, ValueError) as error:  # a body that is no JSON
            raise Unusable(f"no reply that can be read: {str(error)[:200]}") from error
        return self._text_of(reply)

    def _text_of(self, reply) -> str:
        choices = getattr(reply, "choices", None)
        if not choices or not getattr(choices[0], "message", None):
            raise Unusable("the reply has no choices")
        usage = getattr(reply, "usage", None)
        self.usage.prompt_tokens += getattr(usage, "prompt_tokens", None) or 0
        self.usage.completion_tokens += getattr(usage, "completion_tokens", None) or 0
        text, reason = choices[0].message.content, choices[0].finish_reason
        if not isinstance(text, str) or not text.strip():
            raise Unusable("the reply is empty")
        if reason == "length":
            raise Unusable("the reply was cut at its greatest length")
        if len(text) > self.max_reply_chars:
            raise Unusable(f"the reply has {len(text)} characters, at most {self.max_reply_chars} are read")
        return text
