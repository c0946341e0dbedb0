"""Faults on purpose: what models, servers and networks do wrong, done at will, to test what stands before them.

A seed decides what happens to each call, by its number alone, so that a test that fails fails again. `FaultyClient`
stands around any client; `FaultyHTTPClient` around the `http_client` of one, so that what breaks is bytes. Each lists
what it did in `injected`.
"""

from __future__ import annotations

import asyncio
import json
import re

from ..clock import seeded
from ..errors import (
    ConfigError,
    ConnectionFailed,
    IncompleteResponse,
    ModelTimeout,
    ProtocolError,
    RateLimitError,
    ServerError,
    did_you_mean,
)
from ..messages import CreateResult, FunctionCall
from ..records import Record
from . import cancellable
from .wrappers import Wrapper, closed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence
    from typing import Any, TypedDict

    from typing_extensions import Unpack

    from ..cancellation import CancellationToken
    from ..messages import LLMMessage
    from . import ChatCompletionClient

    class Odds(TypedDict, total=False):
        """How likely each fault is, from 0 to 1; together at most 1, for a call has one of them."""

        rate_limit: float
        server_error: float
        timeout: float
        cut_stream: float
        garbage: float
        slow: float
        duplicate_ids: float


KINDS = ("rate_limit", "server_error", "timeout", "cut_stream", "garbage", "slow", "duplicate_ids")


class Fault(Record):
    """What was done to the call of this number, which counts from 0."""

    call: int
    kind: str


class _Dice:
    """What happens to each call."""

    def __init__(self, seed: object, odds: Odds, delay: float) -> None:
        for name, chance in odds.items():
            if name not in KINDS:
                raise ConfigError(f"there is no fault {name!r}{did_you_mean(name, KINDS)}")
            if isinstance(chance, bool) or not isinstance(chance, (int, float)) or not 0 <= chance <= 1:
                raise ConfigError(f"{name} must be how likely that fault is, from 0 to 1, not {chance!r}")
        if sum(odds.values()) > 1.000001:  # type: ignore[arg-type]
            raise ConfigError(f"a call has at most one fault, so their odds must not be more than 1 together: {odds!r}")
        if not isinstance(delay, (int, float)) or not delay >= 0:
            raise ConfigError(f"delay must be a number of seconds, not {delay!r}")
        self._seed = seed
        self._odds: list[tuple[str, float]] = list(odds.items())  # type: ignore[arg-type]
        self.delay = delay
        self.injected: list[Fault] = []
        self._calls = 0

    def throw(self) -> tuple[str, Any]:
        """The fault of the next call, "" for none, and chance for its details."""
        call, self._calls = self._calls, self._calls + 1
        chance = seeded((self._seed, call))
        number = chance.random()
        for kind, odds in self._odds:
            number -= odds
            if number < 0:
                self.injected.append(Fault(call=call, kind=kind))
                return kind, chance
        return "", chance


class FaultyClient(Wrapper):
    """A client whose calls go wrong as often as the odds say.

        model = FaultyClient(ReplayChatCompletionClient(["fine"] * 100), seed=7, rate_limit=0.1, cut_stream=0.2)

    `rate_limit`, `server_error`, `timeout` and `garbage` raise what a real client raises, without asking the client.
    `cut_stream` lets some pieces through and then breaks off, `slow` waits `delay` seconds before each piece, and
    `duplicate_ids` gives every tool call of an answer the id of the first.

    Args:
        client: who answers, if nothing goes wrong.
        seed: anything with a lasting `repr`; the same seed gives the same faults.
        delay: seconds that `slow` waits, `timeout` takes, and `rate_limit` tells to wait.
        provider: of the errors; default that of the client, or of the one it stands around.
    """

    def __init__(
        self,
        client: ChatCompletionClient,
        *,
        seed: int | str = 0,
        delay: float = 0.01,
        provider: str | None = None,
        **odds: Unpack[Odds],
    ) -> None:
        super().__init__([client])
        known = (getattr(each, "provider", "") for each in self._below().values() if each is not self)
        self.provider = next(filter(None, known), "injected") if provider is None else provider
        self._dice = _Dice(seed, odds, delay)
        self.injected = self._dice.injected

    async def _create(self, messages: Sequence[LLMMessage], **arguments: Any) -> CreateResult:
        kind, _ = self._dice.throw()
        await self._refuse(kind, arguments.get("cancellation_token"))
        result = await self._asks[0][0](messages, **arguments)
        if kind == "cut_stream":
            text = result.content if isinstance(result.content, str) else ""
            raise IncompleteResponse(
                "the answer breaks off (injected)", partial=text[: len(text) // 2], provider=self.provider
            )
        return _same_ids(result) if kind == "duplicate_ids" else result

    async def _create_stream(
        self, messages: Sequence[LLMMessage], **arguments: Any
    ) -> AsyncGenerator[str | CreateResult, None]:
        kind, chance = self._dice.throw()
        token = arguments.get("cancellation_token")
        await self._refuse(kind, token)
        left = chance.randrange(4) if kind == "cut_stream" else -1
        shown: list[str] = []
        stream = self._asks[0][1](messages, **arguments)
        try:
            async for item in stream:
                if kind == "slow":
                    await cancellable(asyncio.sleep(self._dice.delay), token)
                if kind == "cut_stream" and (not left or isinstance(item, CreateResult)):
                    raise ConnectionFailed(
                        "the connection broke (injected)", partial="".join(shown), provider=self.provider
                    )
                left -= 1
                if isinstance(item, str):
                    shown.append(item)
                elif kind == "duplicate_ids":
                    item = _same_ids(item)
                yield item
        finally:
            await closed(stream)

    async def _refuse(self, kind: str, token: CancellationToken | None) -> None:
        if kind in ("timeout", "slow"):
            await cancellable(asyncio.sleep(self._dice.delay), token)
        by = self.provider
        if kind == "rate_limit":
            wait = self._dice.delay
            raise RateLimitError("too many requests (injected)", status=429, retry_after=wait, provider=by)
        if kind == "server_error":
            raise ServerError("the server failed (injected)", status=503, provider=by)
        if kind == "timeout":
            raise ModelTimeout("nothing came in time (injected)", provider=by)
        if kind == "garbage":
            raise ProtocolError("the answer is not JSON (injected)", provider=by)


def _same_ids(result: CreateResult) -> CreateResult:
    if isinstance(result.content, str):
        return result
    calls = [FunctionCall(result.content[0].id, call.arguments, call.name) for call in result.content]
    return result.model_copy(update={"content": calls})


# --- bytes


class FaultyHTTPClient:
    """An `http_client` whose requests go wrong as often as the odds say.

        http = FaultyHTTPClient(httpx.AsyncClient(), seed=7, server_error=0.1, garbage=0.1)
        model = OpenAIChatCompletionClient(model="gpt-4o-mini", http_client=http)

    `rate_limit`, `server_error` and `timeout` happen before the real client is asked. `cut_stream` breaks the body off,
    in good order or not; `garbage` puts random bytes into it; `slow` sends it in small pieces, `delay` seconds apart;
    `duplicate_ids` gives its tool calls one id. The client's own retries are requests like others.

    Args:
        client: an `httpx.AsyncClient`, or what behaves like one. It is not closed with this one.
        seed: anything with a lasting `repr`; the same seed gives the same faults.
        delay: seconds between the pieces, and those that `rate_limit` tells to wait.
    """

    def __init__(self, client: Any, *, seed: int | str = 0, delay: float = 0.01, **odds: Unpack[Odds]) -> None:
        self._client = client
        self._dice = _Dice(seed, odds, delay)
        self.injected = self._dice.injected

    def build_request(self, *args: Any, **kwargs: Any) -> Any:
        """As the real client does."""
        return self._client.build_request(*args, **kwargs)

    async def send(self, request: Any, **options: Any) -> Any:
        """Send a request, or do what the seed says instead."""
        from .http import http_error

        kind, chance = self._dice.throw()
        delay = self._dice.delay
        if kind == "rate_limit":
            headers = {"retry-after": f"{delay:g}", "content-type": "application/json"}
            return _Response(429, headers, _bytes(b'{"error": {"message": "too many requests (injected)"}}'))
        if kind == "server_error":
            body = chance.choice(
                (b"<html>upstream failed (injected)</html>", b'{"error": "overloaded (injected)"}', b"")
            )
            return _Response(chance.choice((500, 502, 503, 529)), {}, _bytes(body))
        if kind == "timeout":
            raise http_error(
                chance.choice(("ConnectTimeout", "ReadTimeout")), "nothing came in time (injected)", request
            )
        response = await self._client.send(request, **options)
        if not kind:
            return response
        pieces = response.aiter_bytes()
        change = {
            "cut_stream": lambda: _cut(pieces, chance, request),
            "garbage": lambda: _garbled(pieces, chance),
            "slow": lambda: _slow(pieces, delay),
            "duplicate_ids": lambda: _one_id(pieces),
        }
        return _Response(response.status_code, response.headers, change[kind](), response, pieces)


class _Response:
    """An answer with a body of our own, as much of httpx's as model clients need; `real` is what it is made of."""

    def __init__(self, status: int, headers: Any, body: AsyncGenerator[bytes, None], *real: Any) -> None:
        self.status_code, self.headers = status, headers
        self._body, self._real = body, real

    def aiter_bytes(self) -> AsyncGenerator[bytes, None]:
        return self._body

    async def aclose(self) -> None:
        for each in (*self._real, self._body):
            await each.aclose()


async def _bytes(body: bytes) -> AsyncGenerator[bytes, None]:
    if body:
        yield body


async def _cut(pieces: AsyncIterator[bytes], chance: Any, request: Any) -> AsyncGenerator[bytes, None]:
    from .http import http_error

    left, breaks = chance.randrange(600), chance.random() < 0.5
    async for piece in pieces:
        if left < len(piece):
            yield piece[:left]
            if not breaks:
                return
            break
        left -= len(piece)
        yield piece
    raise http_error("RemoteProtocolError", "peer closed connection (injected)", request)


async def _garbled(pieces: AsyncIterator[bytes], chance: Any) -> AsyncGenerator[bytes, None]:
    noise = bytes(chance.randrange(256) for _ in range(1 + chance.randrange(40)))
    where, size = chance.randrange(300), chance.randrange(20)
    async for piece in pieces:
        if where < len(piece):
            yield piece[:where] + noise + piece[where + size :]
            break
        where -= len(piece)
        yield piece
    else:
        yield noise
    async for piece in pieces:
        yield piece


async def _slow(pieces: AsyncIterator[bytes], delay: float) -> AsyncGenerator[bytes, None]:
    async for piece in pieces:
        size = max(1, len(piece) // 5)
        for at in range(0, len(piece), size):
            await asyncio.sleep(delay)
            yield piece[at : at + size]


_CALL_ID = re.compile(rb'("id"\s*:\s*)"((?:call|toolu|chatcmpl-tool|fc)[_-][^"]*)"')


async def _one_id(pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The same, every tool call with the first one's id; line by line, for an id may be cut in two."""
    first: list[bytes] = []

    def same(found: re.Match[bytes]) -> bytes:
        first.append(found[2])
        return found[1] + json.dumps(first[0].decode("utf-8", "replace")).encode()

    rest = b""
    async for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield _CALL_ID.sub(same, line) + b"\n"
    if rest:
        yield _CALL_ID.sub(same, rest)
