"""Clients around several clients: fallback and load balancing."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from loopback import Loopback, Reply
from steps import CountingLoop, run_counted
from tinygen import (
    AssistantAgent,
    AuthenticationError,
    ChatCompletionCache,
    ChatCompletionClient,
    Chunks,
    ConfigError,
    ConnectionFailed,
    CreateResult,
    Delayed,
    FallbackClient,
    IncompleteResponse,
    LoadBalancingClient,
    ModelError,
    ModelTimeout,
    OpenAIChatCompletionClient,
    ProtocolError,
    RateLimitedClient,
    RateLimiter,
    RateLimitError,
    ReplayChatCompletionClient,
    ReplayRequest,
    RequestError,
    RequestUsage,
    RunLimits,
    ServerError,
    UserMessage,
    listen,
)
from virtual_time import simulated

ASKED = [UserMessage(content="How are you?", source="user")]


def model(*script: Any) -> ReplayChatCompletionClient:
    return ReplayChatCompletionClient(list(script))


async def all_of(stream: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in stream]


async def asked(client: ChatCompletionClient, stream: bool) -> Any:
    """The content of an answer."""
    if stream:
        return (await all_of(client.create_stream(ASKED)))[-1].content
    return (await client.create(ASKED)).content


both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])

# --- fallback


@both
@pytest.mark.parametrize(
    "error",
    [
        *(RateLimitError("slow down"), ServerError("down"), ConnectionFailed("gone"), ModelTimeout("late")),
        *(ProtocolError("what?"), IncompleteResponse("half"), AuthenticationError("who?"), ModelError("other")),
        RequestError("no such model", status=404),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_the_next_client_is_asked_where_the_first_one_fails(error: ModelError, stream: bool) -> None:
    client = FallbackClient([model(error), model("fine")])

    assert await asked(client, stream) == "fine"


@both
@pytest.mark.parametrize("error", [RequestError("too long", status=400), ConfigError("wrong"), ValueError("bug")])
async def test_what_another_client_cannot_mend_is_raised_at_once(error: Exception, stream: bool) -> None:
    second = model("fine")

    with pytest.raises(type(error), match=str(error)):
        await asked(FallbackClient([model(error), second]), stream)

    assert second.create_calls == []


@both
async def test_what_another_client_may_mend_can_be_said(stream: bool) -> None:
    client = FallbackClient(
        [model(ValueError("bug")), model("fine")], mends=lambda error: isinstance(error, ValueError)
    )

    assert await asked(client, stream) == "fine"


@both
async def test_when_all_fail_the_last_error_names_the_others(stream: bool) -> None:
    last = RateLimitError("slow down", retry_after=3.0, status=429)
    client = FallbackClient([model(ServerError("down")), model(ModelTimeout("late")), model(last, last)])

    with pytest.raises(RateLimitError, match=r"of 3 clients.*ServerError: down; ModelTimeout: late") as caught:
        await asked(client, stream)

    assert (caught.value.retry_after, caught.value.status, caught.value.__cause__) == (3.0, 429, last)
    assert str(last) == "slow down"


async def test_servers_on_one_host_are_told_apart_and_no_second_fallback_is_advised() -> None:
    async with Loopback([Reply(500), Reply(500)]) as first, Loopback([Reply(500)]) as second:
        clients = [
            OpenAIChatCompletionClient(model=name, base_url=server.url, max_retries=0)
            for name, server in (("ada", first), ("bob", second))
        ]
        with pytest.raises(ServerError, match="FallbackClient"):
            await clients[0].create(ASKED)
        with pytest.raises(ServerError) as caught:
            await FallbackClient(clients).create(ASKED)

    for name, server in (("ada", first), ("bob", second)):
        assert f"model {name!r} at {server.url.split('/')[2]}" in str(caught.value)
    assert "FallbackClient" not in str(caught.value)


async def test_no_other_client_is_asked_once_a_piece_was_shown() -> None:
    second = model("fine")
    client = FallbackClient([model(Chunks(["Ve"], ConnectionFailed("gone"))), second])
    shown = []

    with pytest.raises(ConnectionFailed):
        async for piece in client.create_stream(ASKED):
            shown.append(piece)

    assert shown == ["Ve"]
    assert second.create_calls == []


async def test_a_stream_without_an_answer_is_a_failure() -> None:
    class Empty(ChatCompletionClient):
        async def create_stream(self, messages: Any, **arguments: Any) -> Any:  # type: ignore[override]
            return
            yield

    assert await asked(FallbackClient([Empty(), model("fine")]), True) == "fine"
    with pytest.raises(IncompleteResponse, match="without a CreateResult"):
        await asked(FallbackClient([Empty()]), True)


async def test_a_stream_that_is_left_is_closed_below() -> None:
    ended = []

    class Endless(ChatCompletionClient):
        async def create_stream(self, messages: Any, **arguments: Any) -> Any:  # type: ignore[override]
            try:
                while True:
                    yield "and "
            finally:
                ended.append(1)

    inner = Endless()
    for client in (FallbackClient([inner]), LoadBalancingClient([inner]), RateLimitedClient(inner, RateLimiter())):
        stream = client.create_stream(ASKED)
        assert await anext(stream) == "and "
        await stream.aclose()

    assert len(ended) == 3


async def test_an_error_that_cannot_be_copied_is_raised_as_it_is() -> None:
    class Odd(Exception):
        def __init__(self, *, code: int) -> None:
            super().__init__(f"code {code}")

    last = Odd(code=2)
    client = FallbackClient([model(Odd(code=1)), model(last)], mends=lambda error: True)

    with pytest.raises(Odd, match="code 2") as caught:
        await client.create(ASKED)

    assert caught.value is last


# --- load balancing


def counting(names: Counter[str], name: str) -> ReplayChatCompletionClient:
    def reply(request: ReplayRequest) -> str:
        names[name] += 1
        return name

    return ReplayChatCompletionClient(reply)


async def test_calls_in_turn_are_shared_by_weight() -> None:
    names: Counter[str] = Counter()
    client = LoadBalancingClient([counting(names, name) for name in "abc"], [3, 1, 2])

    for _ in range(60):
        await client.create(ASKED)

    assert names == {"a": 30, "b": 10, "c": 20}


def test_a_call_goes_to_the_client_that_is_least_busy() -> None:
    async def run() -> list[str]:
        slow = ReplayChatCompletionClient(lambda request: Delayed(10, "slow"))
        client = LoadBalancingClient([slow, model(*["quick"] * 10)])
        waiting = [asyncio.ensure_future(client.create(ASKED))]
        await asyncio.sleep(1)
        answers = [(await client.create(ASKED)).content for _ in range(5)]
        return [*answers, (await waiting[0]).content]  # type: ignore[list-item]

    assert simulated(run()) == ["quick"] * 5 + ["slow"]


class Ill:
    """A model that fails until it is well."""

    def __init__(self, error: Callable[[], Exception] = lambda: ServerError("down")) -> None:
        self.well = False
        self.asked = 0
        self._error = error

    def __call__(self, request: ReplayRequest) -> Any:
        self.asked += 1
        return "well" if self.well else self._error()


def test_a_client_that_fails_again_and_again_rests_and_is_probed_once() -> None:
    async def run() -> None:
        ill, client = balanced(Ill())
        for _ in range(10):
            assert (await client.create(ASKED)).content == "other"
        assert ill.asked == 3

        await asyncio.sleep(30)
        await asyncio.gather(*(client.create(ASKED) for _ in range(10)))
        assert ill.asked == 4  # one call has tried it, the others did not
        await asyncio.sleep(29)
        await client.create(ASKED)
        assert ill.asked == 4

        ill.well = True
        await asyncio.sleep(1)
        said = Counter([(await client.create(ASKED)).content for _ in range(100)])
        assert 49 <= said["well"] <= 51  # what it missed is not made up for

    simulated(run())


def balanced(ill: Ill, **options: Any) -> tuple[Ill, LoadBalancingClient]:
    others = ReplayChatCompletionClient(lambda request: "other")
    return ill, LoadBalancingClient([ReplayChatCompletionClient(ill), others], **options)


def test_a_provider_that_says_how_long_to_wait_is_left_alone_for_that_time() -> None:
    async def run() -> list[int]:
        ill, client = balanced(Ill(lambda: RateLimitError("slow down", retry_after=100.0)))
        counts = []
        for wait in (0, 0, 99.5, 1):
            await asyncio.sleep(wait)
            await client.create(ASKED)
            await client.create(ASKED)
            counts.append(ill.asked)
        return counts

    assert simulated(run()) == [1, 1, 1, 2]


def test_failures_of_calls_begun_before_do_not_make_a_rest_longer() -> None:
    async def run() -> list[str]:
        def ill(seconds: float) -> Any:
            async def reply(request: ReplayRequest) -> Any:
                await asyncio.sleep(seconds)
                return ServerError(f"down after {seconds}")

            return reply

        client = LoadBalancingClient([model(ill(1), ill(9), "well")], failures=1, cool_down=10)
        first = await asyncio.gather(client.create(ASKED), client.create(ASKED), return_exceptions=True)
        await asyncio.sleep(2)
        return [*map(str, first), (await client.create(ASKED)).content]  # type: ignore[list-item]

    assert simulated(run()) == ["down after 1", "down after 9", "well"]


def test_a_refused_request_is_not_held_against_a_client() -> None:
    async def run() -> int:
        ill, client = balanced(Ill(lambda: RequestError("too long", status=400)), failures=1)
        failures = await asyncio.gather(*(client.create(ASKED) for _ in range(8)), return_exceptions=True)
        assert sum(isinstance(each, RequestError) for each in failures) == ill.asked
        return ill.asked

    assert simulated(run()) == 4


def test_a_probe_that_is_cancelled_lets_another_one_try() -> None:
    async def run() -> Any:
        replies: list[Any] = [ServerError("down"), Delayed(60, "late"), "well"]
        client = LoadBalancingClient([model(*replies)], failures=1, cool_down=5)
        with pytest.raises(ServerError):
            await client.create(ASKED)
        await asyncio.sleep(5)
        probe = asyncio.ensure_future(client.create(ASKED))
        await asyncio.sleep(1)
        with pytest.raises(ModelError, match="all 1 clients rest after failures"):
            await client.create(ASKED)
        probe.cancel()
        await asyncio.wait({probe})
        return (await client.create(ASKED)).content

    assert simulated(run()) == "well"


def after(seconds: float, reply: Any) -> Any:
    """A reply that comes so late, and may be an error."""

    async def late(request: ReplayRequest) -> Any:
        await asyncio.sleep(seconds)
        return reply

    return late


def test_a_client_is_tried_by_one_call_even_if_an_older_one_fails_meanwhile() -> None:
    async def run() -> Any:
        slow, quick = after(30, ServerError("slow")), after(1, ServerError("quick"))
        client = LoadBalancingClient([model(slow, quick, after(100, "well"))], failures=1, cool_down=10)
        older = [asyncio.ensure_future(client.create(ASKED)) for _ in range(2)]
        await asyncio.sleep(12)
        probe = asyncio.ensure_future(client.create(ASKED))
        await asyncio.sleep(33)
        with pytest.raises(ModelError, match="all 1 clients rest after failures"):
            await client.create(ASKED)
        await asyncio.gather(*older, return_exceptions=True)
        return (await probe).content

    assert simulated(run()) == "well"


def test_an_answer_to_an_older_call_does_not_end_a_rest() -> None:
    async def run() -> None:
        refused = after(1, RateLimitError("slow down", retry_after=100.0))
        client = LoadBalancingClient([model(after(2, "late"), refused)])
        await asyncio.gather(client.create(ASKED), client.create(ASKED), return_exceptions=True)
        with pytest.raises(ModelError, match=r"tried again in 99\.0 s"):
            await client.create(ASKED)

    simulated(run())


def test_a_stream_that_is_left_at_its_answer_counts_as_answered() -> None:
    async def run() -> str:
        client = LoadBalancingClient([model(ServerError("down"), "well", after(1, "a"), after(1, "b"))], failures=1)
        with pytest.raises(ServerError):
            await client.create(ASKED)
        await asyncio.sleep(30)
        stream = client.create_stream(ASKED)
        while not isinstance(await anext(stream), CreateResult):
            pass
        await stream.aclose()
        both = await asyncio.gather(client.create(ASKED), client.create(ASKED))
        return "".join(str(each.content) for each in both)

    assert simulated(run()) == "ab"


def test_when_all_rest_the_error_says_for_how_long() -> None:
    async def run() -> float | None:
        client = LoadBalancingClient([model(ServerError("a")), model(ServerError("b"))], failures=1, cool_down=20)
        with pytest.raises(ServerError, match="The last of 2 clients"):
            await client.create(ASKED)
        await asyncio.sleep(5)
        with pytest.raises(ModelError, match=r"all 2 clients rest after failures; one is tried again in 15\.0 s") as no:
            await client.create(ASKED)
        return no.value.retry_after

    assert simulated(run()) == pytest.approx(15)


# --- what all wrappers share


@both
@pytest.mark.parametrize("eager", [False, True] if sys.version_info >= (3, 12) else [False])
def test_a_call_cancelled_at_any_step_leaves_the_stack_as_it_was(stream: bool, eager: bool) -> None:
    async def reply(request: ReplayRequest) -> Any:
        await asyncio.sleep(0)
        return ServerError("down") if request.index % 2 == 0 else Chunks(["fi", "ne"])

    async def cut_short(loop: CountingLoop, at: int) -> bool:
        """Whether the call was still going on at that step."""
        limiter = RateLimiter(concurrency=1)
        balanced = LoadBalancingClient([ReplayChatCompletionClient(reply)], failures=1, cool_down=0)
        client = ChatCompletionCache(FallbackClient([RateLimitedClient(balanced, limiter)] * 2))
        call = asyncio.ensure_future(asked(client, stream))
        loop.arm(at, call.cancel)
        await asyncio.wait({call})
        late = not loop.fired
        loop.arm(-1, lambda: None)

        while (await asyncio.gather(asked(client, stream), return_exceptions=True))[0] != "fine":
            assert len(balanced._clients[0].create_calls) < 10  # type: ignore[attr-defined]
        assert (limiter._busy, len(limiter._queue), balanced._members[0].busy, client._flights) == (0, 0, 0, {})
        return late

    at = 1
    while not run_counted(lambda loop: cut_short(loop, at), eager=eager):  # noqa: B023 - runs at once
        at += 1
    assert at > 3


def test_capabilities_are_those_that_all_have() -> None:
    info = model().model_info
    blind = ReplayChatCompletionClient([], {**info, "vision": False, "family": "blind"})
    priced = ReplayChatCompletionClient([], {**info, "price": {"prompt": 1.0, "completion": 1.0}})

    several = FallbackClient([model(), blind])
    assert several.capabilities == several.model_info == {**info, "vision": False}
    assert "price" in FallbackClient([priced, priced]).model_info
    assert "price" not in LoadBalancingClient([priced, blind]).model_info


async def test_usage_and_tokens_are_those_of_all() -> None:
    client = FallbackClient([model(ServerError("down"), "one two"), model("three")])
    await client.create(ASKED)
    await client.create(ASKED)

    assert client.actual_usage() == client.total_usage() == RequestUsage(6, 3)
    assert client.count_tokens(ASKED) == 3
    assert client.remaining_tokens(ASKED) == 9997


async def test_a_client_that_is_asked_from_several_places_is_counted_once() -> None:
    inner = model(ServerError("down"), "one two")
    client = FallbackClient([RateLimitedClient(inner, RateLimiter()), inner, inner])
    await client.create(ASKED)

    assert client.actual_usage() == client.total_usage() == RequestUsage(3, 2)


async def test_closing_closes_every_client_even_if_one_fails() -> None:
    ended = []

    class Closes(ReplayChatCompletionClient):
        async def close(self) -> None:
            ended.append(1)
            raise OSError("stuck")

    with pytest.raises(OSError, match="stuck"):
        async with LoadBalancingClient([Closes([]), Closes([])]):
            pass

    assert len(ended) == 2


@both
async def test_a_run_and_its_listeners_see_one_call_and_the_attempts_in_it(stream: bool) -> None:
    told: list[Any] = []
    agent = AssistantAgent(
        "ada", FallbackClient([model(ServerError("down")), model("fine")]), model_client_stream=stream
    )

    with listen(told.append):
        done = await agent.run(task="How are you?", limits=RunLimits(model_calls=1))

    calls = [event for event in told if event.kind == "model"]
    assert done.messages[-1].to_text() == "fine"
    assert [event.phase for event in calls] == ["start", "point", "end"]
    assert calls[1].data == {"error.type": "ServerError", "error": "down", "client": 0}
    assert calls[1].parent == calls[0].id


@both
async def test_outside_of_runs_listeners_see_the_same(stream: bool) -> None:
    told: list[Any] = []
    client = LoadBalancingClient([FallbackClient([model(ServerError("down")), model("fine")])])

    with listen(told.append):
        await asked(client, stream)

    assert [(event.kind, event.phase) for event in told] == [("model", "start"), ("model", "point"), ("model", "end")]


async def test_a_client_whose_create_is_the_users_is_asked_by_it() -> None:
    class Loud(ReplayChatCompletionClient):
        async def create(self, messages: Any, **arguments: Any) -> CreateResult:
            answer = await super().create(messages, **arguments)
            return answer.model_copy(update={"content": str(answer.content).upper()})

    assert await asked(FallbackClient([Loud(["fine"])]), False) == "FINE"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: FallbackClient([]), "clients must be a list of model clients"),
        (lambda: FallbackClient(model()), "clients must be a list"),
        (lambda: FallbackClient(["openai:gpt-4o"]), "expected a model client"),
        (lambda: LoadBalancingClient([model()], [1, 2]), "weights must be 1 numbers above 0"),
        (lambda: LoadBalancingClient([model()], [0]), "weights must be 1 numbers above 0"),
        (lambda: LoadBalancingClient([model()], failures=0), "failures must be a whole number above 0"),
        (lambda: LoadBalancingClient([model()], cool_down=-1), "cool_down must be a number of seconds"),
        (lambda: RateLimitedClient(model(), None), "limiter must be a RateLimiter"),
        (lambda: RateLimiter(requests_per_minute=0), "requests_per_minute must be a whole number above 0"),
    ],
)
def test_wrong_arguments_are_refused_where_they_are_given(make: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()
