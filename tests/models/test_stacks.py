"""Wrappers in any order around clients that fail, for callers who read slowly, stop reading or are cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import given, strategies

from tinygen import (
    CancellationToken,
    ChatCompletionCache,
    ChatCompletionClient,
    Chunks,
    CreateResult,
    FallbackClient,
    FaultyClient,
    FunctionCall,
    InMemoryStore,
    LoadBalancingClient,
    ModelError,
    RateLimitedClient,
    RateLimiter,
    RateLimitError,
    ReplayChatCompletionClient,
    ReplayRequest,
    RequestUsage,
    ServerError,
    UserMessage,
)
from tinygen.clock import seeded
from virtual_time import simulated


class SlowStore(InMemoryStore[Any]):
    """A store that takes its time."""

    async def get(self, key: str, default: Any = None) -> Any:  # type: ignore[override]
        await asyncio.sleep(0.2)
        return super().get(key, default)

    async def set(self, key: str, value: Any) -> None:  # type: ignore[override]
        await asyncio.sleep(0.2)
        super().set(key, value)


@dataclass
class Server:
    """What a model client talks to; every answer and every stream of it has a number of its own."""

    seed: int
    busy: int = 0
    most: int = 0
    answers: list[CreateResult] = field(default_factory=list)

    async def __call__(self, request: ReplayRequest) -> Any:
        chance = seeded((self.seed, request.index))
        self.busy += 1
        self.most = max(self.most, self.busy)
        try:
            await asyncio.sleep(chance.choice((0, 0, 0.5, 3)))
        finally:
            self.busy -= 1
        pieces = [f"{request.index}: ", "one ", "two"]
        what = chance.random()
        if what < 0.1:
            return RateLimitError("slow down", retry_after=chance.choice((None, 0.0, 2.0)))
        if what < 0.2:
            return ServerError("down")
        if what < 0.3:
            return Chunks(pieces[: chance.randrange(4)], ServerError("gone"))
        usage = RequestUsage(10 + request.index, 100)
        content: Any = [FunctionCall(f"c{request.index}", "{}", "f")] if what < 0.5 else "".join(pieces)
        reason: Any = "length" if what > 0.9 else "stop"
        answer = CreateResult(finish_reason=reason, content=content, usage=usage, cached=False)
        self.answers.append(answer)
        return answer


def below(client: ChatCompletionClient) -> Iterator[ChatCompletionClient]:
    """A client and those it stands around."""
    yield client
    for each in getattr(client, "_clients", ()):
        yield from below(each)


@dataclass
class Stack:
    """A stack of wrappers around two clients of one server."""

    server: Server
    models: list[ReplayChatCompletionClient]
    client: ChatCompletionClient
    limiters: list[RateLimiter]

    def assert_at_rest(self) -> None:
        for limiter in self.limiters:
            assert (limiter._busy, len(limiter._queue)) == (0, 0)
        for client in below(self.client):
            if isinstance(client, LoadBalancingClient):
                assert all(member.busy == 0 and member.probe is None for member in client._members)
            if isinstance(client, ChatCompletionCache):
                assert client._flights == {}
        assert self.server.busy == 0


KINDS = ("cache", "slow cache", "fallback", "balance", "limit", "faults")
orders = strategies.lists(strategies.sampled_from(KINDS), max_size=6)
seeds = strategies.integers(0, 10**6)


def stack(order: list[str], seed: int) -> Stack:
    server = Server(seed)
    models = [ReplayChatCompletionClient(server) for _ in range(2)]
    client: ChatCompletionClient = models[0]
    limiters: list[RateLimiter] = []

    def limited(client: ChatCompletionClient) -> ChatCompletionClient:
        limiters.append(RateLimiter(concurrency=2, requests_per_minute=40, tokens_per_minute=10_000))
        return RateLimitedClient(client, limiters[-1])

    around: dict[str, Callable[[Any], ChatCompletionClient]] = {
        "cache": ChatCompletionCache,
        "slow cache": lambda client: ChatCompletionCache(client, SlowStore()),  # type: ignore[arg-type]
        "fallback": lambda client: FallbackClient([client, client, models[1]]),
        "balance": lambda client: LoadBalancingClient([client, models[1]], [2, 1], failures=2, cool_down=5),
        "limit": limited,
        "faults": lambda client: FaultyClient(
            client, seed=seed, delay=0.5, timeout=0.05, server_error=0.05, cut_stream=0.1, slow=0.1
        ),
    }
    for kind in order:
        client = around[kind](client)
    return Stack(server, models, client, limiters)


@dataclass(frozen=True)
class Caller:
    """Somebody who asks: when, what, and how patiently."""

    begins: float
    question: int
    streams: bool
    reads: float  # seconds between two pieces
    stops: int | None  # after so many pieces of a stream
    cancelled: float | None  # after so many seconds
    by_token: bool


times = strategies.sampled_from((0.0, 0.0, 0.1, 0.5, 1.0, 4.0))
callers = strategies.lists(
    strategies.builds(
        Caller,
        begins=times,
        question=strategies.integers(0, 2),
        streams=strategies.booleans(),
        reads=strategies.sampled_from((0.0, 0.0, 1.0)),
        stops=strategies.none() | strategies.none() | strategies.integers(0, 3),
        cancelled=strategies.none() | times,
        by_token=strategies.booleans(),
    ),
    min_size=1,
    max_size=10,
)


async def ask(client: ChatCompletionClient, caller: Caller, token: CancellationToken, shown: list[str]) -> Any:
    await asyncio.sleep(caller.begins)
    messages = [UserMessage(content=f"question {caller.question}", source="user")]
    if not caller.streams:
        return await client.create(messages, cancellation_token=token)
    answer = None
    stream = client.create_stream(messages, cancellation_token=token)
    try:
        async for item in stream:
            assert answer is None, "the answer is the last item"
            if isinstance(item, CreateResult):
                answer = item
            else:
                shown.append(item)
            if caller.stops is not None and len(shown) >= caller.stops:
                return None
            await asyncio.sleep(caller.reads)
    finally:
        await stream.aclose()
    assert answer is not None, "a stream ended without an answer and without an error"
    return answer


async def outcome(client: ChatCompletionClient, caller: Caller) -> CreateResult | None:
    """The answer that this caller got, if any."""
    token, shown = CancellationToken(), list[str]()
    task = asyncio.ensure_future(ask(client, caller, token, shown))
    if caller.cancelled is not None:
        stop = token.cancel if caller.by_token else task.cancel
        asyncio.get_running_loop().call_later(caller.begins + caller.cancelled, stop)
    await asyncio.wait({task})
    assert len({piece.partition(":")[0] for piece in shown if ":" in piece}) <= 1, "a stream was begun again"
    if task.cancelled():
        assert caller.cancelled is not None, "nobody cancelled it"
        return None
    if isinstance(task.exception(), ModelError):
        return None
    answer: CreateResult | None = task.result()
    if answer is not None and caller.streams and isinstance(answer.content, str):
        assert "".join(shown) == answer.content
    return answer


PATIENT = Caller(begins=10, question=9, streams=False, reads=0, stops=None, cancelled=None, by_token=False)


@given(orders, seeds, callers)
def test_no_call_is_lost_and_nothing_is_left_whoever_gives_up_when(
    order: list[str], seed: int, asked: list[Caller]
) -> None:
    made = stack(order, seed)

    async def run() -> list[CreateResult | None]:
        got = await asyncio.gather(*(outcome(made.client, each) for each in asked))
        made.assert_at_rest()
        later = [await outcome(made.client, replace(PATIENT, question=n)) for n in range(10, 30)]
        assert any(later), "it does not recover"
        return [*got, *later]

    answers = [answer for answer in simulated(run()) if answer is not None]

    made.assert_at_rest()
    assert len({id(answer) for answer in answers}) == len(answers), "two callers were given one object"
    known = {str(answer.content): answer.usage for answer in made.server.answers}
    assert all(answer.usage == known[str(answer.content)] for answer in answers)
    used = sum((model.total_usage() for model in made.models), RequestUsage(0, 0))
    assert made.client.actual_usage() == used


@given(orders, seeds, callers)
def test_usage_is_the_sum_of_what_was_answered_and_of_what_was_answered_again(
    order: list[str], seed: int, asked: list[Caller]
) -> None:
    made = stack([kind for kind in order if kind != "faults"], seed)
    whole = [replace(each, stops=None, cancelled=None) for each in asked]

    async def run() -> list[CreateResult | None]:
        return await asyncio.gather(*(outcome(made.client, each) for each in whole))

    answers = [answer for answer in simulated(run()) if answer is not None]

    assert made.client.actual_usage() == sum((each.usage for each in made.server.answers), RequestUsage(0, 0))
    if "cache" in order[-1:]:
        assert made.client.total_usage() == sum((each.usage for each in answers), RequestUsage(0, 0))
