"""Asking a model only once for the same thing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from loopback import Loopback, json_reply, sse_reply
from tinygen import (
    AssistantAgent,
    AssistantMessage,
    CancellationToken,
    ChatCompletionCache,
    ChatCompletionClient,
    Chunks,
    ConfigError,
    CreateResult,
    DecodeError,
    FallbackClient,
    FaultyClient,
    FunctionCall,
    FunctionTool,
    Image,
    InMemoryStore,
    OpenAIChatCompletionClient,
    RateLimitedClient,
    RateLimiter,
    ReplayChatCompletionClient,
    ReplayRequest,
    RequestUsage,
    RunLimits,
    ServerError,
    SQLiteCacheStore,
    SystemMessage,
    UserMessage,
    listen,
)
from virtual_time import simulated

ASKED = [UserMessage(content="How are you?", source="user")]
CALL = FunctionCall("1", "{}", "add")


def model(*script: Any) -> ReplayChatCompletionClient:
    return ReplayChatCompletionClient(list(script))


def result(content: Any, reason: Any = "stop", **more: Any) -> CreateResult:
    return CreateResult(finish_reason=reason, content=content, usage=RequestUsage(5, 7), cached=False, **more)


async def all_of(stream: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in stream]


class Gate:
    """A model that answers when it is let; `begun` counts the requests."""

    def __init__(self, *pieces: str, error: Exception | None = None, calls: Any = None) -> None:
        self.open = asyncio.Event()
        self.begun = 0
        self.pieces, self.error, self.calls = pieces or ("fine",), error, calls

    async def __call__(self, request: ReplayRequest) -> Any:
        self.begun += 1
        await self.open.wait()
        return self.error or self.calls or Chunks(self.pieces)

    def client(self) -> ReplayChatCompletionClient:
        return ReplayChatCompletionClient(self)


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# --- hits


async def test_the_same_request_is_answered_from_the_cache() -> None:
    inner = model(result("Very well"))
    client = ChatCompletionCache(inner)

    first, second = await client.create(ASKED), await client.create([*ASKED])

    assert (first.cached, second.cached) == (False, True)
    assert second == first.model_copy(update={"cached": True})
    assert len(inner.create_calls) == 1


async def test_a_hit_counts_in_total_usage_alone() -> None:
    client = ChatCompletionCache(model(result("Very well")))

    for _ in range(3):
        await client.create(ASKED)

    assert client.actual_usage() == RequestUsage(5, 7)
    assert client.total_usage() == RequestUsage(15, 21)


async def test_what_is_done_to_an_answer_does_not_reach_the_cache() -> None:
    data = {"x": [1]}
    call = FunctionCall(CALL.id, CALL.arguments, CALL.name)
    client = ChatCompletionCache(model(result([call], "function_calls", provider_data=data)))

    for _ in range(2):
        answer = await client.create(ASKED)
        answer.content.append("y")  # type: ignore[union-attr, arg-type]
        answer.content[0].arguments = "?"  # type: ignore[union-attr]
        answer.usage.prompt_tokens = 100
        answer.provider_data["x"].append(2)  # type: ignore[index]

    assert await client.create(ASKED) == result([CALL], "function_calls", provider_data={"x": [1]}).model_copy(
        update={"cached": True}
    )


async def test_the_stored_object_is_never_changed_nor_handed_out() -> None:
    store = InMemoryStore[Any]()
    client = ChatCompletionCache(model(result("fine")), store)

    given = [await client.create(ASKED) for _ in range(3)]

    (kept,) = store._values.values()
    assert kept.cached is False
    assert all(each is not kept for each in given)


async def test_a_hit_is_streamed_in_pieces() -> None:
    client = ChatCompletionCache(model(result("Very well, thanks", thought="hm")))
    await client.create(ASKED)

    items = await all_of(client.create_stream(ASKED))

    assert items == ["hm", "Very ", "well, ", "thanks", await client.create(ASKED)]


async def test_a_streamed_answer_is_kept_when_it_is_complete() -> None:
    inner = model(Chunks(["Very", " well"]))
    client = ChatCompletionCache(inner)

    streamed = await all_of(client.create_stream(ASKED))
    again = await client.create(ASKED)

    assert streamed[:-1] == ["Very", " well"]
    assert (again.content, again.cached) == ("Very well", True)
    assert inner.create_calls[1:] == []


@pytest.mark.parametrize("reason", ["length", "content_filter", "unknown"])
async def test_an_answer_that_is_not_whole_is_asked_for_again(reason: Any) -> None:
    inner = model(result("Ve", reason), result("Very well"))
    client = ChatCompletionCache(inner)

    await client.create(ASKED)

    assert (await client.create(ASKED)).content == "Very well"


async def test_a_broken_stream_leaves_nothing_in_the_cache() -> None:
    client = ChatCompletionCache(model(Chunks(["Ve"], ServerError("gone")), "Very well"))

    with pytest.raises(ServerError):
        await all_of(client.create_stream(ASKED))

    assert (await client.create(ASKED)).content == "Very well"


# --- what tells requests apart


def tool(name: str) -> FunctionTool:
    return FunctionTool(lambda: "x", name=name, description="Adds.")


@dataclass
class Verdict:
    good: bool


@dataclass
class Other:
    good: str


VARIANTS: list[dict[str, Any]] = [
    {},
    {"tools": [tool("a")]},
    {"tools": [tool("b")]},
    {"tools": [tool("a"), tool("b")]},
    {"tools": [tool("a")], "tool_choice": "required"},
    {"tools": [tool("a")], "tool_choice": "none"},
    {"tools": [tool("a")], "tool_choice": tool("a")},
    {"json_output": True},
    {"json_output": False},
    {"json_output": Verdict},
    {"json_output": Other},
    {"extra_create_args": {"seed": 1}},
    {"extra_create_args": {"seed": 2}},
    {"extra_create_args": {"response_format": Verdict}},
    {"messages": [SystemMessage(content="How are you?")]},
    {"messages": [UserMessage(content="How are you?", source="ann")]},
    {"messages": [AssistantMessage(content="How are you?", source="user")]},
    {"messages": [AssistantMessage(content=[CALL], source="user")]},
    {"messages": [AssistantMessage(content=[CALL], thought="hm", source="user")]},
    {"messages": [*ASKED, *ASKED]},
    {"messages": [UserMessage(content=["How are you?"], source="user")]},
    {"messages": [UserMessage(content=[Image(b"\x89PNG\r\n\x1a\n")], source="user")]},
    {"messages": []},
]


async def test_tool_choice_and_every_other_argument_make_another_request() -> None:
    inner = ReplayChatCompletionClient(lambda request: f"answer {len(inner.create_calls)}")
    client = ChatCompletionCache(inner)

    for _ in range(2):
        answers = [await client.create(**{"messages": ASKED, **variant}) for variant in VARIANTS]

    assert len({str(answer.content) for answer in answers}) == len(inner.create_calls) == len(VARIANTS)


def openai(**options: Any) -> OpenAIChatCompletionClient:
    return OpenAIChatCompletionClient(**{"model": "m", "base_url": "http://localhost:1/v1", **options})


CLIENTS = [
    lambda: openai(),
    lambda: openai(model="n"),
    lambda: openai(base_url="http://localhost:2/v1"),
    lambda: openai(temperature=0.5),
    lambda: openai(response_format=Verdict),
    lambda: openai(default_headers={"x-version": "2"}),
    lambda: openai(add_name_prefixes=True),
    lambda: model("x"),
    lambda: model("y"),
    lambda: ReplayChatCompletionClient(lambda request: "x"),
]


def test_clients_that_share_a_store_do_not_get_each_others_answers() -> None:
    keys = [ChatCompletionCache(make(), InMemoryStore())._key(ASKED) for make in CLIENTS]

    assert len(set(keys)) == len(CLIENTS)


def test_what_no_answer_depends_on_makes_no_difference() -> None:
    same = [
        openai(),
        openai(timeout=3.0, max_retries=0),
        openai(api_key="sk-canary-1", default_headers={"authorization": "canary"}),
        RateLimitedClient(openai(), RateLimiter()),
        FaultyClient(openai(), seed=3),
    ]

    assert len({ChatCompletionCache(each)._key(ASKED) for each in same}) == 1
    assert "canary" not in str([each.identity() for each in same])


async def test_what_was_kept_is_found_by_another_client_like_it(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite3"
    first, second = (ChatCompletionCache(model("Very well"), SQLiteCacheStore(path)) for _ in range(2))

    await first.create(ASKED)

    assert (await second.create(ASKED)).content == "Very well"
    assert second.actual_usage() == RequestUsage(0, 0)


async def test_a_changed_message_is_seen() -> None:
    inner = model("one", "two")
    client = ChatCompletionCache(inner)
    message = UserMessage(content=["a"], source="user")

    await client.create([message])
    message.content.append("b")  # type: ignore[attr-defined]

    assert (await client.create([message])).content == "two"


# --- single flight


async def test_equal_requests_at_one_time_are_asked_once() -> None:
    gate = Gate()
    client = ChatCompletionCache(gate.client())

    tasks = [asyncio.ensure_future(client.create(ASKED)) for _ in range(5)]
    await turns()
    gate.open.set()
    answers = await asyncio.gather(*tasks)

    assert gate.begun == 1
    assert len({id(each) for each in answers}) == 5
    assert client.actual_usage() == RequestUsage(3, 1)
    assert client.total_usage() == RequestUsage(15, 5)


async def test_cancelling_one_who_waits_leaves_the_others_waiting() -> None:
    gate = Gate()
    client = ChatCompletionCache(gate.client())
    tasks = [asyncio.ensure_future(client.create(ASKED)) for _ in range(3)]
    await turns()

    tasks[0].cancel()  # which began it
    tasks[1].cancel()
    await turns()
    gate.open.set()

    assert (await tasks[2]).content == "fine"
    assert gate.begun == 1
    assert [task.cancelled() for task in tasks] == [True, True, False]


async def test_a_token_ends_the_waiting_of_its_caller_only() -> None:
    gate, token = Gate(), CancellationToken()
    client = ChatCompletionCache(gate.client())
    tasks = [asyncio.ensure_future(client.create(ASKED, cancellation_token=each)) for each in (token, None)]
    await turns()

    token.cancel()
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    gate.open.set()

    assert (await tasks[1]).content == "fine"


async def test_a_request_nobody_waits_for_any_more_is_ended() -> None:
    gate = Gate()
    client = ChatCompletionCache(gate.client())
    tasks = [asyncio.ensure_future(client.create(ASKED)) for _ in range(2)]
    await turns()

    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)

    assert not client._flights
    assert len(asyncio.all_tasks()) == 1 + 1  # this one, and the one that bounds it


async def test_who_comes_after_the_last_one_left_asks_anew() -> None:
    gate = Gate()
    client = ChatCompletionCache(gate.client())
    first = asyncio.ensure_future(client.create(ASKED))
    await turns()

    first.cancel()
    await asyncio.wait({first})
    gate.open.set()

    assert (await client.create(ASKED)).content == "fine"
    assert gate.begun == 2
    assert (await client.create(ASKED)).cached


async def test_a_request_that_is_slow_to_end_is_not_taken_for_the_one_after_it() -> None:
    begun = 0

    async def reply(request: ReplayRequest) -> str:
        nonlocal begun
        begun += 1
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            await turns(20)
            raise
        return "fine"

    client = ChatCompletionCache(ReplayChatCompletionClient(reply))
    first = asyncio.ensure_future(client.create(ASKED))
    await turns()
    first.cancel()
    await turns()

    second = asyncio.ensure_future(client.create(ASKED))
    await asyncio.wait({first})
    await turns()
    third = asyncio.ensure_future(client.create(ASKED))

    assert [(await each).content for each in (second, third)] == ["fine", "fine"]
    assert begun == 2


async def test_an_error_is_an_error_for_all_who_wait() -> None:
    gate = Gate(error=ServerError("down"))
    client = ChatCompletionCache(gate.client())
    tasks = [asyncio.ensure_future(client.create(ASKED)) for _ in range(3)]
    await turns()
    gate.open.set()

    failures = await asyncio.gather(*tasks, return_exceptions=True)

    assert [type(each) for each in failures] == [ServerError] * 3
    assert gate.begun == 1


async def test_streams_of_one_request_share_its_pieces_as_they_come() -> None:
    gate = Gate("Very ", "well")
    client = ChatCompletionCache(gate.client())
    tasks = [asyncio.ensure_future(all_of(client.create_stream(ASKED))) for _ in range(2)]
    plain = asyncio.ensure_future(client.create(ASKED))
    await turns()
    gate.open.set()

    one, two = await asyncio.gather(*tasks)

    assert one[:-1] == two[:-1] == ["Very ", "well"]
    assert [one[-1].content, two[-1].content, (await plain).content] == ["Very well"] * 3
    assert gate.begun == 1


async def test_a_stream_joins_a_request_that_is_not_streamed() -> None:
    gate = Gate("Very ", "well")
    client = ChatCompletionCache(gate.client())
    plain = asyncio.ensure_future(client.create(ASKED))
    await turns()
    stream = asyncio.ensure_future(all_of(client.create_stream(ASKED)))
    await turns()
    gate.open.set()

    assert (await stream)[:-1] == ["Very ", "well"]
    assert (await plain).content == "Very well"
    assert gate.begun == 1


async def test_a_reader_who_stops_early_does_not_hold_up_the_others() -> None:
    gate = Gate("Very ", "well")
    client = ChatCompletionCache(gate.client())
    gate.open.set()
    stream = client.create_stream(ASKED)

    assert await anext(stream) == "Very "  # and is not read on
    answer = await client.create(ASKED)
    await stream.aclose()

    assert answer.content == "Very well"
    assert gate.begun == 1


async def test_what_one_of_those_who_waited_does_to_the_answer_the_others_do_not_see() -> None:
    gate = Gate(calls=[CALL])
    client = ChatCompletionCache(gate.client())

    async def ask() -> tuple[int, int]:
        answer = await client.create(ASKED)
        seen = len(answer.content), answer.usage.prompt_tokens
        answer.content.append("y")  # type: ignore[union-attr, arg-type]
        answer.usage.prompt_tokens += 100
        return seen

    tasks = [asyncio.ensure_future(ask()) for _ in range(3)]
    await turns()
    gate.open.set()

    assert await asyncio.gather(*tasks) == [(1, 3)] * 3


def test_each_event_loop_has_flights_of_its_own() -> None:
    client = ChatCompletionCache(ReplayChatCompletionClient(lambda request: "fine"))

    async def ask() -> bool:
        return (await client.create(ASKED)).cached

    assert [simulated(ask()), simulated(ask())] == [True, True]  # the scripted model says so of all it says
    assert len(client._clients[0].create_calls) == 1  # type: ignore[attr-defined]


# --- stores


class Slow:
    """A store whose methods are coroutines."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.asked = 0

    async def get(self, key: str, default: Any = None) -> Any:
        self.asked += 1
        await asyncio.sleep(0)
        return self.values.get(key, default)

    async def set(self, key: str, value: Any) -> None:
        await asyncio.sleep(0)
        self.values[key] = value


async def test_a_store_may_be_asynchronous() -> None:
    store, inner = Slow(), model("fine")
    client = ChatCompletionCache(inner, store)  # type: ignore[arg-type]

    answers = await asyncio.gather(*(client.create(ASKED) for _ in range(3)))

    assert (await client.create(ASKED)).content == "fine"
    assert len(answers) == 3
    assert (len(inner.create_calls), store.asked) == (1, 2)


async def test_a_call_cancelled_at_once_leaves_no_question_to_the_store_behind() -> None:
    client, token = ChatCompletionCache(model("fine"), Slow()), CancellationToken()  # type: ignore[arg-type]
    token.cancel()

    with pytest.raises(asyncio.CancelledError):
        await client.create(ASKED, cancellation_token=token)  # a coroutine nobody awaits would be a warning


async def test_a_store_may_give_back_json_data() -> None:
    class Plain(InMemoryStore[Any]):
        def set(self, key: str, value: Any) -> None:
            super().set(key, value.dump())

    client = ChatCompletionCache(model(result([CALL], "function_calls")), Plain())
    await client.create(ASKED)

    assert await client.create(ASKED) == result([CALL], "function_calls").model_copy(update={"cached": True})


@pytest.mark.parametrize("broken", ["get", "set"])
@pytest.mark.parametrize("blocks", [(), ("get", "set")])
async def test_what_a_store_raises_is_raised(broken: str, blocks: tuple[str, ...]) -> None:
    class Broken(InMemoryStore[Any]):
        def get(self, key: str, default: Any = None) -> Any:
            if broken == "get":
                raise OSError("disk gone")
            return default

        def set(self, key: str, value: Any) -> None:
            raise OSError("disk gone")

    store = Broken()
    store.blocks = blocks  # type: ignore[attr-defined]
    client = ChatCompletionCache(model("fine", "fine"), store)

    for ask in (client.create(ASKED), all_of(client.create_stream(ASKED))):
        with pytest.raises(OSError, match="disk gone"):
            await ask  # type: ignore[misc]


async def test_what_is_no_answer_is_refused() -> None:
    class Liar(InMemoryStore[Any]):
        def get(self, key: str, default: Any = None) -> Any:
            return 7

    with pytest.raises(DecodeError, match="the store gives a int"):
        await ChatCompletionCache(model("fine"), Liar()).create(ASKED)
    with pytest.raises(ConfigError, match="must have the methods get and set"):
        ChatCompletionCache(model("fine"), {})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="expected a model client"):
        ChatCompletionCache(InMemoryStore())  # type: ignore[arg-type]


# --- as part of runs


async def test_agents_limits_and_listeners_see_one_call_each_time() -> None:
    told: list[Any] = []
    agent = AssistantAgent("ada", ChatCompletionCache(model(result("Very well"))))

    with listen(told.append):
        done = [await agent.session().run(task="How are you?", limits=RunLimits(model_calls=1)) for _ in range(2)]

    ends = [event for event in told if (event.kind, event.phase) == ("model", "end")]
    assert [event.data["result"].cached for event in ends] == [False, True]
    assert [each.messages[-1].to_text() for each in done] == ["Very well"] * 2


async def test_outside_of_runs_listeners_hear_of_each_call_once() -> None:
    told: list[Any] = []
    client = ChatCompletionCache(RateLimitedClient(model("fine"), RateLimiter()))

    with listen(told.append):
        await client.create(ASKED)
        await all_of(client.create_stream(ASKED))

    assert [(event.kind, event.phase) for event in told] == [("model", "start"), ("model", "end")] * 2


async def test_a_hit_costs_nothing_and_counts_its_tokens() -> None:
    info = {**model().model_info, "price": {"prompt": 1e6, "completion": 1e6}}
    client = ChatCompletionCache(ReplayChatCompletionClient([result("fine")], model_info=info))  # type: ignore[arg-type]
    spent = []

    for _ in range(2):
        stream = AssistantAgent("ada", client).run_stream(task="How are you?")
        done = [item async for item in stream][-1]
        spent.append((stream.run.ledger.cost, done.usage.prompt_tokens))

    assert spent == [(12.0, 5), (0.0, 5)]


async def test_who_pays_when_the_first_has_left_pays_the_model_that_answered() -> None:
    def priced(name: str, price: float, *script: Any) -> ReplayChatCompletionClient:
        info = {**model().model_info, "family": name, "price": {"prompt": price, "completion": price}}
        return ReplayChatCompletionClient(list(script), model_info=info)  # type: ignore[arg-type]

    async def late(request: ReplayRequest) -> CreateResult:
        await gate.wait()
        return result("fine")

    gate = asyncio.Event()
    dear = priced("dear", 2e6, late)
    agent = AssistantAgent("ada", ChatCompletionCache(FallbackClient([priced("cheap", 1e6, ServerError("no")), dear])))
    first, second = (asyncio.ensure_future(agent.session().run(task="How are you?")) for _ in range(2))
    await turns(10)
    first.cancel()
    await turns(10)
    gate.set()

    used = (await second).usage
    assert used is not None
    assert ({*used.by_model}, used.cost) == ({"dear"}, 24.0)


async def test_a_real_stream_is_kept_and_its_connection_closed() -> None:
    choice = {"index": 0, "delta": {"content": "fine"}, "finish_reason": None}
    end = {"index": 0, "delta": {}, "finish_reason": "stop"}
    async with Loopback([sse_reply({"choices": [choice]}, {"choices": [end]}), json_reply({}, 500)]) as server:
        client = ChatCompletionCache(OpenAIChatCompletionClient(model="m", base_url=server.url))

        items = [await all_of(client.create_stream(ASKED)) for _ in range(2)]
        await client.close()

        assert [each[0] for each in items] == ["fine", "fine"]
        assert len(server.requests) == 1
        assert await server.deserted()


def test_a_cache_passes_on_what_it_does_not_change() -> None:
    inner = openai()
    client = ChatCompletionCache(inner)

    assert client.model_info == inner.model_info
    assert client.count_tokens(ASKED) == inner.count_tokens(ASKED)
    assert client.remaining_tokens(ASKED) == inner.remaining_tokens(ASKED)
    assert client.identity() == inner.identity()
    assert client.renewable is False


async def test_a_client_of_the_users_can_be_cached() -> None:
    class Mine(ChatCompletionClient):
        asked = 0

        async def create(self, messages: Any, **arguments: Any) -> CreateResult:  # type: ignore[override]
            self.asked += 1
            return result(f"answer {self.asked}")

    inner = Mine()
    client = ChatCompletionCache(inner)

    assert [(await client.create(ASKED)).content for _ in range(2)] == ["answer 1", "answer 1"]
