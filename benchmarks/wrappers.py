"""What the clients around a model cost: the floor is the scripted model alone."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .harness import Call, Prepare, Row, in_turn, per_call

LOOSE = {"requests_per_minute": 10**9, "tokens_per_minute": 10**12, "concurrency": 100}


def _model() -> Any:
    from tinygen import ReplayChatCompletionClient

    return ReplayChatCompletionClient(lambda request: "a word or two")


def _around() -> dict[str, Callable[[Any], Any]]:
    from tinygen import (
        ChatCompletionCache,
        FallbackClient,
        FaultyClient,
        LoadBalancingClient,
        RateLimitedClient,
        RateLimiter,
    )

    return {
        "cache": ChatCompletionCache,
        "fallback": lambda client: FallbackClient([client, client]),
        "load balancing": lambda client: LoadBalancingClient([client, client]),
        "rate limit": lambda client: RateLimitedClient(client, RateLimiter(**LOOSE)),
        "faults": lambda client: FaultyClient(client, garbage=0.0),
    }


def _stack() -> Any:
    client, around = _model(), _around()
    for name in ("rate limit", "load balancing", "fallback", "cache"):
        client = around[name](client)
    return client


def _calls(make: Callable[[], Any], again: bool = False) -> Prepare:
    """Calls of `create`: each asks something new, or the same `again`."""

    @asynccontextmanager
    async def prepare() -> AsyncIterator[Call]:
        from tinygen import UserMessage

        client, asked = make(), 0

        async def call() -> Awaitable[Any]:
            nonlocal asked
            asked += not again
            answer = await client.create([UserMessage(content=f"question {asked}", source="user")])
            return answer  # type: ignore[no-any-return]

        await call()
        yield call

    return prepare


def _first_pieces(make: Callable[[], Any]) -> Prepare:
    @asynccontextmanager
    async def prepare() -> AsyncIterator[Call]:
        from tinygen import UserMessage

        client, asked, times = make(), 0, []

        async def call() -> Any:
            nonlocal asked
            asked += 1
            stream = client.create_stream([UserMessage(content=f"question {asked}", source="user")])
            began = time.process_time()
            await anext(stream)
            times.append(time.process_time() - began)
            async for _ in stream:
                pass

        call.times = times  # type: ignore[attr-defined]
        yield call

    return prepare


def _least(prepare: Prepare, number: int = 2000) -> float:
    return min(per_call(prepare, number) for _ in range(5))


def _least_first(prepare: Prepare) -> float:
    """The median time to the first piece, the least of some series."""
    import asyncio
    from statistics import median

    async def run() -> float:
        async with prepare() as call:
            for _ in range(300):
                await call()
            return median(call.times)  # type: ignore[attr-defined,no-any-return]

    return min(asyncio.run(run()) for _ in range(5))


def caches() -> Iterator[Row]:
    from tinygen import ChatCompletionCache, SQLiteCacheStore

    yield Row("cache hit: in memory", None, _least(_calls(lambda: ChatCompletionCache(_model()), again=True)), "us")
    with TemporaryDirectory() as folder:
        store: Any = SQLiteCacheStore(Path(folder) / "answers.sqlite3")
        yield Row("cache hit: on disk", None, _least(_calls(lambda: ChatCompletionCache(_model(), store), True)), "us")
        store.close()


def stacks() -> Iterator[Row]:
    """Each wrapper, and all of them around each other, beside the model alone."""
    alone = _calls(_model)
    for name, around in _around().items():
        floor, ours = in_turn(lambda: _least(alone, 500), lambda: _least(_calls(lambda: around(_model())), 500), 3)  # noqa: B023
        yield Row(f"call: {name}", floor, ours, "us")
    yield Row("call: stack of all", *in_turn(lambda: _least(alone), lambda: _least(_calls(_stack)), 3), "us")


def first_pieces() -> Iterator[Row]:
    """Until the first piece of a stream."""
    alone = _least_first(_first_pieces(_model))
    for name, around in _around().items():
        yield Row(f"first piece: {name}", alone, _least_first(_first_pieces(lambda: around(_model()))), "us")  # noqa: B023
    yield Row("first piece: stack of all", alone, _least_first(_first_pieces(_stack)), "us")
