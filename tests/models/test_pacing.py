"""Keeping to the limits of a provider."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, strategies

from loopback import Loopback, json_reply
from tinygen import (
    CancellationToken,
    ChatCompletionCache,
    ChatCompletionClient,
    Chunks,
    CreateResult,
    Delayed,
    OpenAIChatCompletionClient,
    RateLimitedClient,
    RateLimiter,
    RateLimitError,
    ReplayChatCompletionClient,
    ReplayRequest,
    RequestUsage,
    ServerError,
    UserMessage,
)
from virtual_time import simulated

ASKED = [UserMessage(content="How are you?", source="user")]


def model(*script: Any) -> ReplayChatCompletionClient:
    return ReplayChatCompletionClient(list(script))


class Timed:
    """A model that remembers when it was asked."""

    def __init__(self, reply: Callable[[], Any] = lambda: "fine") -> None:
        self.times: list[float] = []
        self._reply = reply

    def __call__(self, request: ReplayRequest) -> Any:
        self.times.append(asyncio.get_running_loop().time())
        return self._reply()


def spent(tokens: int) -> CreateResult:
    return CreateResult(finish_reason="stop", content="x", usage=RequestUsage(0, tokens), cached=False)


def paced(timed: Timed, limiter: RateLimiter, **options: Any) -> RateLimitedClient:
    return RateLimitedClient(ReplayChatCompletionClient(timed), limiter, **options)


async def at_once(client: RateLimitedClient, count: int) -> list[Any]:
    return await asyncio.gather(*(client.create(ASKED) for _ in range(count)), return_exceptions=True)


def test_no_minute_holds_more_requests_than_are_allowed() -> None:
    timed = Timed()

    simulated(at_once(paced(timed, RateLimiter(requests_per_minute=3)), 8))

    assert timed.times == pytest.approx([0, 0, 0, 60, 60, 60, 120, 120])


@given(strategies.lists(strategies.floats(0, 50), min_size=1, max_size=25), strategies.integers(1, 4))
def test_no_minute_holds_more_wherever_it_begins(pauses: list[float], limit: int) -> None:
    timed = Timed()
    client = paced(timed, RateLimiter(requests_per_minute=limit), timeout=None)

    async def run() -> None:
        calls = []
        for pause in pauses:
            await asyncio.sleep(pause)
            calls.append(asyncio.ensure_future(client.create(ASKED)))
        await asyncio.gather(*calls)

    simulated(run())

    assert all(later - earlier >= 59.999999 for earlier, later in zip(timed.times, timed.times[limit:]))
    assert len(timed.times) == len(pauses)


def test_tokens_count_as_estimated_and_then_as_they_are() -> None:
    timed = Timed(lambda: spent(50))  # a request is estimated at 3, and takes 50

    async def run() -> None:
        client = paced(timed, RateLimiter(tokens_per_minute=100))
        for _ in range(4):
            await client.create(ASKED)

    simulated(run())

    assert timed.times == pytest.approx([0, 0, 60, 60])


def test_a_request_larger_than_the_limit_goes_alone() -> None:
    timed = Timed()

    simulated(at_once(paced(timed, RateLimiter(tokens_per_minute=2)), 3))

    assert timed.times == pytest.approx([0, 60, 120])


@pytest.mark.parametrize("streamed", [False, True])
def test_no_more_calls_are_under_way_than_are_allowed(streamed: bool) -> None:
    running = most = 0

    async def reply(request: ReplayRequest) -> Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(1)
        running -= 1
        return Chunks(["a", "b"])

    async def run() -> float:
        client = RateLimitedClient(ReplayChatCompletionClient(reply), RateLimiter(concurrency=2))
        await asyncio.gather(*(consume(client) if streamed else client.create(ASKED) for _ in range(6)))
        return asyncio.get_running_loop().time()

    async def consume(client: RateLimitedClient) -> None:
        async for _ in client.create_stream(ASKED):
            pass

    assert simulated(run()) == pytest.approx(3)
    assert most == 2


def test_calls_go_in_the_order_they_came() -> None:
    order: list[int] = []

    async def run() -> None:
        client = RateLimitedClient(
            ReplayChatCompletionClient(lambda request: order.append(len(request.messages)) or "x"),
            RateLimiter(requests_per_minute=2, concurrency=1),
        )
        await asyncio.gather(*(client.create(ASKED * n) for n in range(1, 8)))

    simulated(run())

    assert order == [1, 2, 3, 4, 5, 6, 7]


def test_one_limiter_holds_for_all_its_clients() -> None:
    timed, limiter = Timed(), RateLimiter(requests_per_minute=2)

    async def run() -> None:
        await asyncio.gather(*(paced(timed, limiter).create(ASKED) for _ in range(4)))

    simulated(run())

    assert timed.times == pytest.approx([0, 0, 60, 60])


def test_a_call_that_is_cancelled_in_the_queue_leaves_no_gap() -> None:
    timed = Timed()

    async def run() -> None:
        client, token = paced(timed, RateLimiter(requests_per_minute=1)), CancellationToken()
        calls = [asyncio.ensure_future(client.create(ASKED, cancellation_token=each)) for each in (None, token, None)]
        calls.append(asyncio.ensure_future(client.create(ASKED)))
        await asyncio.sleep(1)
        token.cancel()
        calls[2].cancel()
        done = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(each).__name__ for each in done] == [
            "CreateResult",
            "CancelledError",
            "CancelledError",
            "CreateResult",
        ]

    simulated(run())

    assert timed.times == pytest.approx([0, 60])


def test_a_call_whose_turn_would_come_too_late_fails_at_once() -> None:
    async def run() -> tuple[float, float | None]:
        client = paced(Timed(), RateLimiter(requests_per_minute=1), timeout=10)
        await client.create(ASKED)
        await asyncio.sleep(5)
        with pytest.raises(
            RateLimitError, match=r"this call could go in 55\.0 s; that is longer than timeout=10"
        ) as late:
            await client.create(ASKED)
        return asyncio.get_running_loop().time(), late.value.retry_after

    assert simulated(run()) == pytest.approx((5.0, 55.0))


def test_a_call_that_waits_behind_others_gives_up_in_time() -> None:
    async def run() -> float:
        client = RateLimitedClient(model(Delayed(100, "late"), "x"), RateLimiter(concurrency=1), timeout=10)
        first = asyncio.ensure_future(client.create(ASKED))
        await asyncio.sleep(0)
        with pytest.raises(RateLimitError, match="0 other calls wait too; that is longer than timeout=10"):
            await client.create(ASKED)
        gave_up = asyncio.get_running_loop().time()
        assert (await first).content == "late"
        return gave_up

    assert simulated(run()) == pytest.approx(10)


# --- what the provider says


@pytest.mark.parametrize("streamed", [False, True])
def test_a_refused_call_waits_as_long_as_the_provider_says_and_so_do_all(streamed: bool) -> None:
    replies: list[Any] = [RateLimitError("slow down", retry_after=7.0), "fine", "fine"]
    timed = Timed(lambda: replies.pop(0))

    async def consume(client: RateLimitedClient) -> Any:
        if not streamed:
            return (await client.create(ASKED)).content
        return [item async for item in client.create_stream(ASKED)][-1].content

    async def run() -> list[Any]:
        client = paced(timed, RateLimiter(concurrency=1))
        return await asyncio.gather(*(consume(client) for _ in range(2)))

    assert simulated(run()) == ["fine", "fine"]
    assert timed.times == pytest.approx([0, 7, 7])


def test_a_refused_call_keeps_its_place_before_those_that_came_later() -> None:
    order: list[int] = []

    async def reply(request: ReplayRequest) -> Any:
        order.append(len(request.messages))
        await asyncio.sleep(0)
        return RateLimitError("slow down", retry_after=1.0) if len(order) == 1 else "fine"

    async def run() -> None:
        client = RateLimitedClient(ReplayChatCompletionClient(reply), RateLimiter(concurrency=1))
        await asyncio.gather(*(client.create(ASKED * n) for n in (1, 2, 3)))

    simulated(run())

    assert order == [1, 1, 2, 3]


def test_a_provider_that_goes_on_refusing_is_believed() -> None:
    def refused() -> RateLimitError:
        return RateLimitError("slow down", retry_after=5.0)

    timed = Timed(refused)

    async def run() -> None:
        with pytest.raises(RateLimitError, match="slow down"):
            await paced(timed, RateLimiter()).create(ASKED)

    simulated(run())

    assert timed.times == pytest.approx([0, 5, 10])


@pytest.mark.parametrize("error", [RateLimitError("quota used up"), ServerError("down")])
def test_other_errors_are_raised_at_once(error: Exception) -> None:
    async def run() -> float:
        with pytest.raises(type(error), match=str(error)):
            await RateLimitedClient(model(error), RateLimiter()).create(ASKED)
        return asyncio.get_running_loop().time()

    assert simulated(run()) == 0


async def test_a_stream_is_not_begun_again_once_a_piece_was_shown() -> None:
    inner = model(Chunks(["Ve"], RateLimitError("slow down", retry_after=0.0)), "fine")
    shown = []

    with pytest.raises(RateLimitError):
        async for piece in RateLimitedClient(inner, RateLimiter()).create_stream(ASKED):
            shown.append(piece)

    assert shown == ["Ve"]
    assert len(inner.create_calls) == 1


HEADERS = [
    ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m2.5s"}, 62.5),
    ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "120ms"}, 0.12),
    ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "58"}, 58),
    ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1h0m1s"}, 3601),
    (
        {
            "date": "Wed, 01 Jan 2025 00:00:00 GMT",
            "anthropic-ratelimit-requests-remaining": "0",
            "anthropic-ratelimit-requests-reset": "2025-01-01T00:00:12Z",
        },
        12,
    ),
    (
        {
            "date": "Wed, 01 Jan 2025 00:00:00 GMT",
            "anthropic-ratelimit-tokens-remaining": "900",
            "anthropic-ratelimit-tokens-reset": "2025-01-01T00:00:00Z",
            "anthropic-ratelimit-output-tokens-remaining": "0",
            "anthropic-ratelimit-output-tokens-reset": "2025-01-01T00:00:20Z",
        },
        20,
    ),
    ({"x-ratelimit-remaining-requests": "1", "x-ratelimit-reset-requests": "60s"}, 0),
    ({"x-ratelimit-remaining-requests": "0"}, 0),
    ({"x-ratelimit-remaining-tokens": "-1", "x-ratelimit-reset-tokens": "60"}, 0),
    ({"x-ratelimit-remaining-requests": "X-XXX", "x-ratelimit-reset-requests": "X-XXX"}, 0),
    ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "2025-13-45T00:00:12Z"}, 0),
    ({"x-ratelimit-remaining-requests": "²", "x-ratelimit-reset-requests": "9s"}, 0),
    ({"x-ratelimit-remaining-requests": "9" * 5000, "x-ratelimit-reset-requests": "9s"}, 0),
    ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "9" * 400}, 0),
    (
        {
            "date": "Wed, 01 Jan 2025 00:00:00 +99999999999999",
            "anthropic-ratelimit-requests-remaining": "0",
            "anthropic-ratelimit-requests-reset": "2025-01-01T00:00:12Z",
        },
        0,
    ),
]


@pytest.mark.parametrize(("headers", "wait"), HEADERS, ids=lambda value: str(value)[:60])
def test_what_the_headers_say_is_left_is_kept_to(headers: dict[str, str], wait: float) -> None:
    async def run() -> float:
        limiter = RateLimiter()
        limiter.learn((asyncio.get_running_loop().time(), headers))
        limiter.leave(await limiter.enter(timeout=None))
        return asyncio.get_running_loop().time()

    assert simulated(run()) == pytest.approx(wait)


def test_an_answer_in_hand_holds_no_place() -> None:
    async def run() -> Any:
        client = RateLimitedClient(model("first", "second"), RateLimiter(concurrency=1))
        async for item in client.create_stream(ASKED):
            if isinstance(item, CreateResult):  # the stream has not ended yet, as this loop sees it
                return (await client.create(ASKED)).content

    assert simulated(run()) == "second"


def test_a_place_is_free_once_the_stream_in_it_is_closed() -> None:
    open_streams: list[int] = []

    class Slow(ChatCompletionClient):
        async def create_stream(self, messages: Any, **arguments: Any) -> Any:  # type: ignore[override]
            open_streams.append(1)
            assert len(open_streams) == 1
            try:
                yield "a piece"
            finally:
                await asyncio.sleep(1)
                open_streams.pop()

    async def run() -> None:
        client = RateLimitedClient(Slow(), RateLimiter(concurrency=1))

        async def begin() -> None:
            stream = client.create_stream(ASKED)
            await anext(stream)
            await stream.aclose()

        await asyncio.gather(*(begin() for _ in range(3)))

    simulated(run())


def test_what_is_left_is_used_up_call_by_call() -> None:
    async def run() -> list[float]:
        limiter, times = RateLimiter(), []
        limiter.learn((0.0, {"x-ratelimit-remaining-requests": "2", "x-ratelimit-reset-requests": "30s"}))
        limiter.learn((-1.0, {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "9h"}))  # is older
        for _ in range(4):
            limiter.leave(await limiter.enter())
            times.append(asyncio.get_running_loop().time())
        return times

    assert simulated(run()) == pytest.approx([0, 0, 30, 30])


async def test_the_headers_of_a_real_answer_reach_the_limiter() -> None:
    answer = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "fine"}, "finish_reason": "stop"}]}
    headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "99s"}
    async with Loopback([json_reply(answer, headers=headers)]) as server:
        inner = OpenAIChatCompletionClient(model="m", base_url=server.url)
        async with RateLimitedClient(ChatCompletionCache(inner), RateLimiter(), timeout=5) as client:
            assert (await client.create(ASKED)).content == "fine"
            with pytest.raises(RateLimitError, match=r"could go in 9\d\.\d s"):
                await client.create([])


# --- several event loops


def test_event_loops_in_several_threads_share_a_limiter() -> None:
    limiter, running, most = RateLimiter(concurrency=3), set(), []

    async def reply(request: ReplayRequest) -> str:
        running.add(request.index + id(request))
        most.append(len(running))
        await asyncio.sleep(0.001)
        running.discard(request.index + id(request))
        return "fine"

    async def run() -> None:
        client = RateLimitedClient(ReplayChatCompletionClient(reply), limiter)
        await asyncio.gather(*(client.create(ASKED) for _ in range(30)))

    threads = [threading.Thread(target=lambda: asyncio.run(run()), daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert not any(thread.is_alive() for thread in threads)
    assert max(most) <= 3
    assert len(most) == 120
