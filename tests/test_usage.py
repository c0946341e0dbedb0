"""What a run used and cost: in all, by agent, by model and by tool."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest

from agents_for_tests import speaker
from tinygen import (
    AgentFailed,
    AgentTool,
    AssistantAgent,
    BaseChatAgent,
    ChatCompletionCache,
    ChatCompletionClient,
    ConfigError,
    Console,
    CreateResult,
    Event,
    FallbackClient,
    FunctionCall,
    OpenAIChatCompletionClient,
    ReplayChatCompletionClient,
    RequestUsage,
    Response,
    RoundRobinGroupChat,
    RunLimits,
    RunStopped,
    RunUsage,
    SelectorGroupChat,
    ServerError,
    Suspended,
    TaskResult,
    TextMessage,
    UserMessage,
    UserProxyAgent,
    effect,
    listen,
    run_scope,
    suspend,
)
from tinygen.limits import MANY, Ledger
from tinygen.models import ModelInfo, permissive
from tinygen.run import current_scope
from tinygen.usage import PartUsage, cost_of

PRICE = {"prompt": 1e6, "completion": 1e6}  # a token costs 1


def said(text: str, *usage: Any) -> CreateResult:
    return CreateResult(finish_reason="stop", content=text, usage=RequestUsage(*usage), cached=False)


def called(tool: str, *usage: Any, **arguments: Any) -> CreateResult:
    content = [FunctionCall("1", json.dumps(arguments), tool)]
    return CreateResult(finish_reason="function_calls", content=content, usage=RequestUsage(*usage), cached=False)


def info(family: str, price: Any = PRICE) -> ModelInfo:
    made: dict[str, Any] = {**permissive(family), **({} if price is None else {"price": price})}
    return made  # type: ignore[return-value]


def agent(name: str, *script: Any, family: str = "m", price: Any = PRICE, **options: Any) -> AssistantAgent:
    client = ReplayChatCompletionClient(list(script), model_info=info(family, price))
    return AssistantAgent(name, client, description=name, **options)


def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


# --- the parts


async def test_a_run_tells_what_each_agent_each_model_and_each_tool_used() -> None:
    ada = agent("ada", called("add", 5, 1, a=1, b=2), said("3", 7, 1), tools=[add], reflect_on_tool_use=True)
    bob = agent("bob", said("fine", 20, 2, 8), family="n")

    usage = (await RoundRobinGroupChat([ada, bob], max_turns=2).run(task="x")).usage

    assert (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens) == (32, 4, 8)
    assert (usage.cost, usage.model_calls, usage.tool_calls) == (36, 3, 1)
    assert usage.by_agent == {"ada": PartUsage(12, 2, calls=2, cost=14), "bob": PartUsage(20, 2, 8, calls=1, cost=22)}
    assert usage.by_model == {"m": usage.by_agent["ada"], "n": usage.by_agent["bob"]}
    assert usage.by_tool == {"add": PartUsage(0, 0, calls=1, cost=0)}


async def test_an_unknown_price_makes_the_cost_unknown_and_never_nothing() -> None:
    team = RoundRobinGroupChat(
        [agent("a", said("x", 1, 1)), agent("b", said("y", 2, 2), price=None, family="n")], max_turns=2
    )

    usage = (await team.run(task="x")).usage

    assert usage.cost is None
    assert usage.known_cost == 2
    assert (usage.by_agent["a"].cost, usage.by_agent["b"].cost) == (2, None)


async def test_a_run_that_asks_no_model_costs_nothing_and_says_so() -> None:
    class Silent(BaseChatAgent):
        produced_message_types = (TextMessage,)

        async def on_messages(self, messages: Any, cancellation_token: Any) -> Response:
            return Response(chat_message=TextMessage(content="x", source=self.name))

        async def on_reset(self, cancellation_token: Any) -> None: ...

    usage = (await Silent("a", "").run(task="x")).usage

    assert usage == RunUsage(0, 0, cost=0.0)


async def test_what_a_team_itself_asks_is_counted_under_its_name() -> None:
    selects = ReplayChatCompletionClient([said("b", 3, 1)], model_info=info("s"))
    team = SelectorGroupChat(
        [speaker("a"), agent("b", said("x", 1, 1)), speaker("c")], selects, max_turns=1, name="panel"
    )

    usage = (await team.run(task="x")).usage

    assert {name: part.prompt_tokens for name, part in usage.by_agent.items()} == {"panel": 3, "b": 1}


async def test_a_team_inside_another_one_charges_both() -> None:
    inner = RoundRobinGroupChat([agent("a", said("x", 1, 1)), agent("b", said("y", 2, 2))], max_turns=2, name="inner")
    team = RoundRobinGroupChat([inner, agent("c", said("z", 4, 4))], max_turns=2)

    usage = (await team.run(task="x")).usage

    assert {name: part.cost for name, part in usage.by_agent.items()} == {"a": 2, "b": 4, "c": 8}
    assert (usage.cost, usage.model_calls) == (14, 3)


def manager(*replies: Any, more: Sequence[Any] = ()) -> AssistantAgent:
    """An assistant that has an agent as a tool, which has a tool that asks a model."""
    sage = ReplayChatCompletionClient([said("deep", 100, 0)], model_info=info("sage"))

    async def ponder(about: str) -> str:
        """Thinks."""
        return str((await sage.create([])).content)

    expert = agent(
        "expert", called("ponder", 10, 0, about="x"), said("known", 20, 0), tools=[ponder], reflect_on_tool_use=True
    )
    script = replies or (called("expert", 1, 0, task="x"), said("done", 2, 0))
    return agent("boss", *script, tools=[AgentTool(expert), *more], reflect_on_tool_use=True)


async def test_what_is_used_inside_of_a_tool_is_told_under_its_name() -> None:
    usage = (await manager().run(task="x")).usage

    assert {name: part.cost for name, part in usage.by_agent.items()} == {"boss": 3, "expert": 130}
    assert {name: part.cost for name, part in usage.by_model.items()} == {"m": 33, "sage": 100}
    assert usage.by_tool == {
        "expert": PartUsage(130, 0, calls=1, cost=130),
        "ponder": PartUsage(100, 0, calls=1, cost=100),
    }
    assert (usage.cost, usage.model_calls, usage.tool_calls) == (133, 5, 2)


# --- prices


def test_a_run_without_turns_keeps_no_list_of_all_that_it_ever_asked() -> None:
    ledger = Ledger()
    ledger.charge(RequestUsage(1, 1), 0.5, "a", "first")
    ledger.settle()
    for _ in range(10_000):
        ledger.admit("tool", name="t")
        ledger.charge(RequestUsage(1, 2), 0.5, "a", "m")
    usage = ledger.usage()

    assert len(ledger.kept) <= MANY
    assert (usage.by_model["m"].calls, usage.by_tool["t"].calls, usage.by_model["m"].cost) == (10_000, 10_000, 5_000)
    assert [charge.model for charge in ledger.charges(settled=True)] == ["first"]


def test_the_cached_part_of_a_prompt_is_charged_at_its_price() -> None:
    price = {"prompt": 10, "completion": 20, "cached": 1}

    assert cost_of(RequestUsage(1_000_000, 500_000, 400_000), price) == 6 + 0.4 + 10
    assert cost_of(RequestUsage(1_000_000, 500_000, 400_000), {"prompt": 10, "completion": 20}) == 20


def test_a_long_prompt_is_charged_at_the_price_for_long_prompts() -> None:
    price = {"prompt": 1, "completion": 1, "above": {"tokens": 200_000, "prompt": 2, "completion": 3}}

    assert cost_of(RequestUsage(200_000, 0), price) == 0.2
    assert cost_of(RequestUsage(300_000, 100_000), price) == pytest.approx(0.9)


@pytest.mark.parametrize("price", [{"prompt": 1}, {"prompt": "1", "completion": 1}, 3])
def test_a_price_that_is_none_is_refused_with_the_form_of_one(price: Any) -> None:
    with pytest.raises(ConfigError, match="a price is"):
        cost_of(RequestUsage(1, 1), price)


class Around(ChatCompletionClient):
    """A wrapper of the user's."""

    def __init__(self, client: ChatCompletionClient, price: Any = PRICE) -> None:
        self.client, self.price = client, price

    @property
    def model_info(self) -> ModelInfo:
        return info("around", self.price)

    async def create(self, messages: Sequence[Any], **options: Any) -> CreateResult:
        return await self.client.create(messages, **options)

    async def create_stream(self, messages: Sequence[Any], **options: Any) -> AsyncGenerator[Any, None]:
        async for item in self.client.create_stream(messages, **options):
            yield item


@pytest.mark.parametrize("stream", [False, True])
async def test_the_client_that_answers_is_charged_and_not_the_one_around_it(stream: bool) -> None:
    inner = ReplayChatCompletionClient([said("x", 1, 1)], model_info=info("inner", {"prompt": 5e6, "completion": 0}))

    usage = (await AssistantAgent("a", Around(inner), model_client_stream=stream).run(task="x")).usage

    assert usage.by_model == {"inner": PartUsage(1, 1, calls=1, cost=5)}


async def test_a_fallback_is_charged_for_the_model_that_answered_and_a_cache_for_none() -> None:
    broken = ReplayChatCompletionClient([ServerError("x"), ServerError("x")], model_info=info("broken"))
    sound = ReplayChatCompletionClient([said("x", 2, 1)], model_info=info("sound"))
    model = ChatCompletionCache(FallbackClient([broken, sound]))

    first = (await AssistantAgent("a", model).run(task="x", limits=RunLimits(cost=100))).usage
    second = (await AssistantAgent("a", model).run(task="x")).usage

    assert first.by_model == {"sound": PartUsage(2, 1, calls=1, cost=3)}
    assert (second.prompt_tokens, second.cost) == (2, 0)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_from_a_cache_is_free_also_where_no_price_is_known(stream: bool) -> None:
    inner = ReplayChatCompletionClient([said("x", 2, 1)], model_info=info("inner", None))
    model = ChatCompletionCache(inner)

    usages = [(await AssistantAgent("a", model, model_client_stream=stream).run(task="x")).usage for _ in range(2)]

    assert [usage.cost for usage in usages] == [None, 0]
    assert usages[1].by_model == {"inner": PartUsage(2, 1, calls=1, cost=0)}


async def test_an_answer_from_a_cache_behind_a_broken_client_counts_as_the_cached_models() -> None:
    broken = ReplayChatCompletionClient([ServerError("x"), ServerError("x")], model_info=info("broken"))
    sound = ChatCompletionCache(ReplayChatCompletionClient([said("x", 2, 1)], model_info=info("sound")))
    model = FallbackClient([broken, sound])

    usages = [(await AssistantAgent("a", model).run(task="x")).usage for _ in range(2)]

    assert [usage.by_model for usage in usages] == [
        {"sound": PartUsage(2, 1, calls=1, cost=3)},
        {"sound": PartUsage(2, 1, calls=1, cost=0)},
    ]


async def test_a_cost_limit_does_not_go_on_when_a_price_turned_out_to_be_unknown() -> None:
    inner = ReplayChatCompletionClient(lambda request: said("x", 1, 1), model_info=info("inner", None))
    team = RoundRobinGroupChat([AssistantAgent("a", Around(inner))], max_turns=5)

    with pytest.raises(RuntimeError, match=r"needs the price.* that of 'inner' is not known"):
        await team.run(task="x", limits=RunLimits(cost=100))

    assert len(inner.create_calls) == 1


async def test_a_cost_limit_names_the_model_without_a_price_and_first_the_table_that_takes_one() -> None:
    model = OpenAIChatCompletionClient(model="my-model", base_url="http://localhost:9")

    with pytest.raises(ConfigError, match=r"that of 'my-model' is not known: add it to tinygen\.PRICES"):
        await AssistantAgent("a", model).run(task="x", limits=RunLimits(cost=1))


async def test_listeners_are_told_what_a_call_and_a_run_cost() -> None:
    events: list[Event] = []
    with listen(events.append):
        await agent("a", said("x", 2, 1)).run(task="x")

    ends = {event.kind: event.data.get("cost") for event in events if event.phase == "end"}
    assert ends["model"] == ends["run"] == 3


# --- streams that broke


class Breaking(ReplayChatCompletionClient):
    """Streams `pieces`, then breaks; without `breaks` it waits for ever."""

    def __init__(self, *pieces: str, breaks: bool = True) -> None:
        super().__init__([], model_info=info("m"))
        self.pieces, self.breaks = pieces, breaks

    async def _create_stream(self, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        for piece in self.pieces:
            yield piece
        if self.breaks:
            raise ServerError("broken")
        await asyncio.Event().wait()


async def test_a_stream_that_broke_is_charged_for_its_request_and_the_pieces_that_had_come() -> None:
    agent = AssistantAgent("a", Breaking("one two ", "three four"), system_message=None, model_client_stream=True)

    with pytest.raises(AgentFailed) as caught:
        await RoundRobinGroupChat([agent]).run(task="x" * 400)

    usage = caught.value.result.usage
    assert usage == RunUsage(
        104, 9, estimated=True, cost=113, model_calls=1, by_agent=usage.by_agent, by_model=usage.by_model
    )
    assert usage.by_agent["a"] == usage.by_model["m"] == PartUsage(104, 9, estimated=True, calls=1, cost=113)


async def test_a_stream_that_was_cut_short_by_a_limit_is_charged() -> None:
    agent = AssistantAgent("a", Breaking("one", breaks=False), model_client_stream=True)

    result = await agent.run(task="x", limits=RunLimits(timeout=0.05))

    assert (result.stop_reason, result.usage.estimated) == ("limit reached: timeout (0.05 s)", True)
    assert result.usage.completion_tokens > 0


async def test_a_stream_that_broke_before_its_first_piece_is_free() -> None:
    with pytest.raises(AgentFailed) as caught:
        await RoundRobinGroupChat([AssistantAgent("a", Breaking(), model_client_stream=True)]).run(task="x")

    assert caught.value.result.usage == RunUsage(0, 0, cost=0.0, model_calls=1)


@pytest.mark.parametrize("limits", [RunLimits(tokens=200), RunLimits(cost=200)])
async def test_streams_that_break_do_not_get_around_a_limit(limits: RunLimits) -> None:
    client = Breaking("one two three four")

    async def ask_for_ever() -> None:
        while True:
            try:
                async for _ in client.create_stream([UserMessage(content="hello", source="user")]):
                    pass
            except ServerError:
                pass

    with pytest.raises(RunStopped, match=r"limit reached: (tokens|cost)"):
        await run_scope("job", ask_for_ever, limits=limits)


async def test_an_answer_whose_stream_was_dropped_after_its_end_is_charged_as_reported() -> None:
    class Ends(Breaking):
        async def _create_stream(self, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
            yield "x"
            yield said("x", 7, 1)

    used: list[int] = []

    async def take_it_and_go() -> None:
        stream = Ends().create_stream([UserMessage(content="hello", source="user")])
        async for item in stream:
            if isinstance(item, CreateResult):
                break
        await stream.aclose()
        scope = current_scope()
        assert scope is not None
        used.extend((scope.ledger.prompt_tokens, scope.ledger.completion_tokens))

    await run_scope("job", take_it_and_go)
    assert used == [7, 1]


class DeafClient(Around):
    """Takes no notice of cancellation: answers when it is `released`."""

    released: asyncio.Event

    async def create(self, messages: Sequence[Any], **options: Any) -> CreateResult:
        while not self.released.is_set():
            try:
                await self.released.wait()
            except asyncio.CancelledError:
                pass
        return await super().create(messages)

    async def create_stream(self, messages: Sequence[Any], **options: Any) -> AsyncGenerator[Any, None]:
        yield await self.create(messages)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_deaf_model_call_that_answers_after_its_run_is_charged_to_the_run_around_it(stream: bool) -> None:
    model = DeafClient(ReplayChatCompletionClient([said("late", 2, 1)], model_info=info("m")))
    model.released = asyncio.Event()
    inner = AssistantAgent("inner", model, model_client_stream=stream)

    async def work() -> RunUsage:
        result = await inner.run(task="x", limits=RunLimits(timeout=0.02))
        model.released.set()
        assert (result.usage.prompt_tokens, len(result.abandoned)) == (0, 1)
        for _ in range(20):
            await asyncio.sleep(0)
        scope = current_scope()
        assert scope is not None
        return scope.ledger.usage()

    usage = await run_scope("job", work)

    assert usage.by_agent == {"inner": PartUsage(2, 1, calls=1, cost=3)}
    assert (usage.cost, usage.model_calls) == (3, 1)


# --- suspended and saved


def asks(*script: Any) -> RoundRobinGroupChat:
    return RoundRobinGroupChat(
        [agent("a", *script), UserProxyAgent("user", input_func=suspend), agent("b", said("z", 5, 5))], max_turns=3
    )


async def resumed(team: Any, fresh: Any, answer: str = "yes") -> TaskResult:
    """The end of a run of `team` that waits for an answer, in `fresh`, as if in another process."""
    waiting = await team.run(task="x")
    state = json.loads(json.dumps(await team.save_state()))
    await fresh.load_state(state)
    fresh.answer(waiting.pending[0].id, answer)
    result: TaskResult = await fresh.run()
    return result


async def test_a_run_that_was_suspended_tells_of_everything_it_used() -> None:
    usage = (await resumed(asks(said("x", 1, 1)), asks())).usage

    assert {name: part.cost for name, part in usage.by_agent.items()} == {"a": 2, "b": 10}
    assert (usage.cost, usage.model_calls, usage.by_model["m"].calls) == (12, 2, 2)


async def test_tokens_of_a_run_that_was_suspended_are_whole_numbers_still() -> None:
    usage = (await resumed(asks(said("x", 1, 1)), asks())).usage

    assert {type(each) for each in (usage.prompt_tokens, usage.completion_tokens, usage.model_calls)} == {int}


async def allowed() -> str:
    """Asks a person."""

    async def nobody_there() -> str:
        raise Suspended

    return await effect("input", None, nobody_there, str, name="someone")


async def test_what_was_used_inside_of_a_recalled_tool_is_counted_again_once() -> None:
    both = [FunctionCall("1", '{"task": "x"}', "expert"), FunctionCall("2", "{}", "allowed")]
    first = CreateResult(finish_reason="function_calls", content=both, usage=RequestUsage(1, 0), cached=False)

    result = await resumed(manager(first, more=[allowed]), manager(said("done", 2, 0), more=[allowed]))

    assert result.usage.cost == 1 + 130 + 2
    assert result.usage.by_tool["expert"] == PartUsage(130, 0, calls=1, cost=130)
    assert (result.usage.model_calls, result.usage.tool_calls) == (5, 3)


async def test_a_model_that_answered_for_another_is_known_when_its_answer_is_recalled() -> None:
    def make(*script: Any) -> AssistantAgent:
        inner = ReplayChatCompletionClient(list(script), model_info=info("inner"))
        return AssistantAgent("a", Around(inner), tools=[allowed])

    usage = (await resumed(make(called("allowed", 3, 1)), make())).usage

    assert usage.by_model == {"inner": PartUsage(3, 1, calls=1, cost=4)}


async def test_an_answer_from_a_cache_is_free_also_when_it_is_recalled() -> None:
    inner = ReplayChatCompletionClient([called("allowed", 3, 1)], model_info=info("inner", None))
    model = ChatCompletionCache(inner)
    await AssistantAgent("a", model, tools=[allowed]).run(task="x")  # waits, and has filled the cache

    usage = (await resumed(*(AssistantAgent("a", model, tools=[allowed]) for _ in range(2)))).usage

    assert len(inner.create_calls) == 1
    assert usage.by_model == {"inner": PartUsage(3, 1, calls=1, cost=0)}


async def test_an_agent_whose_turn_is_recalled_whole_is_counted_too() -> None:
    class Opaque(AssistantAgent):
        opaque = True

    def team(*script: Any) -> RoundRobinGroupChat:
        client = ReplayChatCompletionClient(list(script), model_info=info("m"))
        inner = RoundRobinGroupChat(
            [Opaque("o", client), UserProxyAgent("user", input_func=suspend)], max_turns=2, name="inner"
        )
        return RoundRobinGroupChat([inner], max_turns=1)

    usage = (await resumed(team(said("x", 3, 0)), team())).usage

    assert usage.by_agent == {"o": PartUsage(3, 0, calls=1, cost=3)}


async def test_a_run_saved_before_costs_were_kept_goes_on_with_an_unknown_cost() -> None:
    team, fresh = asks(said("x", 1, 1)), asks()
    waiting = await team.run(task="x")
    state = json.loads(json.dumps(await team.save_state()))
    del state["suspended"]["charges"]
    state["suspended"]["used"][5] = 0.0

    await fresh.load_state(state)
    fresh.answer(waiting.pending[0].id, "yes")
    usage = (await fresh.run()).usage

    assert (usage.prompt_tokens, usage.model_calls, usage.cost) == (6, 2, None)


async def test_a_result_in_json_keeps_what_was_used_and_is_small_without() -> None:
    result = await agent("a", said("x", 2, 1)).run(task="x")

    assert TaskResult.load(json.loads(json.dumps(result.dump()))).usage == result.usage
    assert TaskResult(messages=[]).dump()["usage"] == {"prompt_tokens": 0, "completion_tokens": 0}


# --- for people


async def test_the_usage_of_a_run_is_a_request_usage_still_and_adds_up() -> None:
    first = (await agent("a", said("x", 2, 1)).run(task="x")).usage
    second = (await agent("b", said("x", 4, 1)).run(task="x")).usage

    total = sum([first, second], RunUsage(0, 0, cost=0.0))

    assert isinstance(total, RunUsage)
    assert (total.prompt_tokens, total.cost, total.model_calls, list(total.by_agent)) == (6, 8, 2, ["a", "b"])
    assert total.by_model == {"m": PartUsage(6, 2, calls=2, cost=8)}
    assert first.by_model == {"m": PartUsage(2, 1, calls=1, cost=3)}
    assert RequestUsage(1, 1) + first == RequestUsage(3, 2)
    assert first + RequestUsage(1, 1) == RequestUsage(3, 2)


async def test_a_printed_result_and_the_console_show_the_cost_where_it_is_known() -> None:
    screen = io.StringIO()
    stream = agent("a", said("x", 2, 1), price={"prompt": 0.5, "completion": 2}).run_stream(task="x")
    result = await Console(stream, output_stats=True, file=screen)
    unknown = await speaker("b").run(task="x")

    assert str(result).endswith("2 + 1 tokens, cost 0.000003)")
    assert "Cost: 0.000003\n" in screen.getvalue()
    assert "cost" not in str(unknown)
