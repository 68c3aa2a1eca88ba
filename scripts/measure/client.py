"""A client of any OpenAI-style server that notes when each piece of an answer came. One event loop."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp


class Refused(Exception):
    """The server will not answer this request however often it is asked."""


class TryLater(Exception):
    """Nobody there, too busy, or broken off: another try may do. `seconds`: when the server says so, else None."""

    def __init__(self, message: str, seconds: float | None = None):
        super().__init__(message)
        self.seconds = seconds


@dataclass
class Reply:
    started: float  # seconds on the clock, when the request was sent
    text: str = ""
    reasoning: str = ""  # of servers that send it apart
    finish_reason: str | None = None
    usage: dict[str, Any] = field(default_factory=dict)
    ended: float = 0.0
    times: list[float] = field(default_factory=list)  # on the clock, of each piece with text

    @property
    def tokens(self) -> int | None:
        return self.usage.get("completion_tokens")

    @property
    def parallel(self) -> dict[str, int] | None:
        """Our server's counters of the answer's tree."""
        return (self.usage.get("completion_tokens_details") or {}).get("parallel")


class Client:
    def __init__(
        self, url: str, key: str | None = None, timeout: float = 3600.0, connections: int = 1024, clock: Callable[[], float] = time.monotonic
    ):
        self.url = url.rstrip("/").removesuffix("/v1")
        self._clock = clock
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._session = aiohttp.ClientSession(
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=timeout, sock_connect=10),
            connector=aiohttp.TCPConnector(limit=connections),
        )

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_) -> None:
        await self._session.close()

    async def models(self) -> list[str]:
        async with self._answer(self._session.get(self.url + "/v1/models")) as response:
            return [model["id"] for model in (await response.json(content_type=None))["data"]]

    async def complete(self, route: str, body: dict) -> Reply:
        """`route`: chat/completions or completions. `body` may ask for a stream. One choice."""
        reply = Reply(self._clock())
        async with self._answer(self._session.post(f"{self.url}/v1/{route}", json=body)) as response:
            if body.get("stream"):
                await self._read_stream(response, reply)
            else:
                self._take(await response.json(content_type=None), reply)
        reply.ended = self._clock()
        return reply

    def _answer(self, request):
        return _Answer(request)

    async def _read_stream(self, response: aiohttp.ClientResponse, reply: Reply) -> None:
        rest = b""
        async for data in response.content.iter_any():
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                if not line.startswith(b"data:"):
                    continue
                payload = line[5:].strip()
                if payload == b"[DONE]":
                    return
                self._take(json.loads(payload), reply)
        if reply.finish_reason is None:
            raise TryLater("the stream broke off")

    def _take(self, part: dict, reply: Reply) -> None:
        if "error" in part:
            error = part["error"]
            raise TryLater(f"the server failed: {error.get('message') if isinstance(error, dict) else error}")
        reply.usage = part.get("usage") or reply.usage
        for choice in part.get("choices") or []:
            message = choice.get("delta") or choice.get("message") or choice
            text = message.get("content") or message.get("text") or ""
            reasoning = message.get("reasoning_content") or message.get("reasoning") or ""
            if text or reasoning:
                reply.times.append(self._clock())
            reply.text += text
            reply.reasoning += reasoning
            reply.finish_reason = choice.get("finish_reason") or reply.finish_reason


class _Answer:
    """A response that is 2xx, or Refused or TryLater; and what breaks while it is read is one of them too."""

    def __init__(self, request):
        self._request = request

    async def __aenter__(self) -> aiohttp.ClientResponse:
        try:
            self._response = response = await self._request
            if response.status < 300:
                return response
            text = (await response.text(errors="replace"))[:500]
            response.release()
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as error:
            raise _try_later(error) from error
        message = f"{response.status} {text}"
        if response.status in (408, 425, 429) or response.status >= 500:
            raise TryLater(message, _seconds(response.headers.get("Retry-After")))
        raise Refused(message)

    async def __aexit__(self, kind, error, trace) -> None:
        self._response.release()
        if isinstance(error, (aiohttp.ClientError, OSError, asyncio.TimeoutError)):
            raise _try_later(error) from error
        if isinstance(error, (ValueError, KeyError, TypeError, AttributeError)):
            raise TryLater(f"the server's answer can't be read: {type(error).__name__} {error}") from error


def _try_later(error: BaseException) -> TryLater:
    return TryLater(f"{type(error).__name__} {error}".strip())


def _seconds(header: str | None) -> float | None:
    try:
        return max(0.0, float(header)) if header else None
    except ValueError:
        return None
