"""An agent that hears only some of what is said, and speaks in its own name."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from agents_for_tests import Counter
from tinygen import (
    AgentTool,
    AssistantAgent,
    CancellationToken,
    ConfigError,
    DiGraphBuilder,
    FunctionCall,
    GraphFlow,
    HandoffMessage,
    MessageFilterAgent,
    MessageFilterConfig,
    PerSourceFilter,
    ReplayChatCompletionClient,
    RoundRobinGroupChat,
    SourceMatchTermination,
    StateError,
    Swarm,
    TaskResult,
    TextMentionTermination,
    TextMessage,
    UserProxyAgent,
    suspend,
)


def only(*filters: PerSourceFilter) -> MessageFilterConfig:
    return MessageFilterConfig(per_source=list(filters))


def of(source: str, position: Any = None, count: int | None = None) -> PerSourceFilter:
    return PerSourceFilter(source=source, position=position, count=count)


def filtered(*filters: PerSourceFilter, agent: Any = None, name: str = "outer") -> MessageFilterAgent:
    return MessageFilterAgent(name, agent or Counter("inner"), only(*filters))


TALK = [TextMessage(content=f"{who}{at}", source=who) for at, who in enumerate("abacab")]


@pytest.mark.parametrize(
    ("filters", "heard"),
    [
        ([], []),
        ([of("a")], ["a0", "a2", "a4"]),
        ([of("a", "first", 1)], ["a0"]),
        ([of("a", "last", 2)], ["a2", "a4"]),
        ([of("a", "last", 9)], ["a0", "a2", "a4"]),
        ([of("a", "last")], ["a0", "a2", "a4"]),
        ([of("b", "last", 1), of("a", "first", 1)], ["a0", "b5"]),
        ([of("a", "first", 1), of("a", "last", 1)], ["a0", "a4"]),
        ([of("c"), of("b"), of("a")], ["a0", "b1", "a2", "c3", "a4", "b5"]),
        ([of("nobody")], []),
    ],
)
async def test_what_gets_through_is_heard_in_the_order_it_was_said(
    filters: Sequence[PerSourceFilter], heard: list[str]
) -> None:
    inner = Counter("inner")
    await filtered(*filters, agent=inner).run(task=TALK)
    assert inner.heard == heard


async def test_what_it_says_is_said_in_its_own_name() -> None:
    def look() -> str:
        """Looks."""
        return "seen"

    model = ReplayChatCompletionClient([[FunctionCall("1", "{}", "look")], "one two"])
    inner = AssistantAgent("inner", model, tools=[look], max_tool_iterations=2, model_client_stream=True)
    items = [item async for item in filtered(of("user"), agent=inner).run_stream(task="go")]
    assert {(item.type, item.source) for item in items if not isinstance(item, TaskResult)} == {
        ("TextMessage", "user"),
        ("ToolCallRequestEvent", "outer"),
        ("ToolCallExecutionEvent", "outer"),
        ("ModelClientStreamingChunkEvent", "outer"),
        ("TextMessage", "outer"),
    }


async def test_a_namesake_of_the_wrapped_agent_in_its_tool_keeps_its_name() -> None:
    model = ReplayChatCompletionClient([[FunctionCall("1", '{"task": "t"}', "inner")], "done"])
    inner = AssistantAgent("inner", model, tools=[AgentTool(Counter("inner"))], max_tool_iterations=2)
    result = await filtered(of("user"), agent=inner).run(task="go")
    assert [(item.source, item.to_text()) for item in result.messages if item.type == "TextMessage"] == [
        ("user", "go"),
        ("user", "t"),
        ("inner", "inner 1"),
        ("outer", "done"),
    ]


async def test_its_answer_and_what_led_to_it_agree_without_streaming_too() -> None:
    model = ReplayChatCompletionClient([[FunctionCall("1", "{}", "nope")]])
    response = await filtered(of("u"), agent=AssistantAgent("inner", model)).on_messages(
        [TextMessage(content="go", source="u")], CancellationToken()
    )
    assert {message.source for message in [*(response.inner_messages or ()), response.chat_message]} == {"outer"}


async def test_a_graph_goes_on_after_a_filtered_node() -> None:
    first, middle, last = Counter("a"), filtered(of("a"), name="b"), Counter("c")
    builder = DiGraphBuilder().add_node(first).add_node(middle).add_node(last)
    builder.add_edge(first, middle).add_edge(middle, last)
    result = await GraphFlow(builder.get_participants(), builder.build()).run(task="go")
    assert [message.source for message in result.messages] == ["user", "a", "b", "c"]
    assert last.heard == ["go", "a 1", "inner 1"]


@pytest.mark.parametrize(
    "condition", [lambda: SourceMatchTermination(["outer"]), lambda: TextMentionTermination("inner")]
)
async def test_terminations_see_it_under_its_own_name(condition: Callable[[], Any]) -> None:
    team = RoundRobinGroupChat([filtered(of("user"))], termination_condition=condition(), max_turns=2)
    assert len((await team.run(task="go")).messages) == 2


async def test_it_hands_over_and_is_handed_over_to_under_its_own_name() -> None:
    def handing(name: str, target: str) -> AssistantAgent:
        call = FunctionCall("1", "{}", f"transfer_to_{target}")
        return AssistantAgent(name, ReplayChatCompletionClient([[call]]), handoffs=[target])

    user = MessageFilterAgent(
        "desk", UserProxyAgent("person", input_func=lambda prompt: prompt), only(of("a"), of("b"))
    )
    team = Swarm([MessageFilterAgent("a", handing("x", "desk"), only(of("user"))), user], max_turns=2)
    handoffs = [each for each in (await team.run(task="go")).messages if isinstance(each, HandoffMessage)]
    assert [(each.source, each.target) for each in handoffs] == [("a", "desk"), ("desk", "a")]
    assert handoffs[-1].content == "Handoff received from a. Enter your response: "


# --- it is the agent it wraps, but for the name


async def test_state_reset_and_sessions_are_those_of_the_wrapped_agent() -> None:
    def make() -> MessageFilterAgent:
        return filtered(
            of("user"), agent=AssistantAgent("inner", ReplayChatCompletionClient(lambda r: str(len(r.messages))))
        )

    first, second = make(), make()
    await first.run(task="go")
    state = json.loads(json.dumps(await first.save_state()))
    await second.load_state(state)
    assert [(await agent.run(task="on")).messages[-1].to_text() for agent in (first, second)] == ["4", "4"]
    await first.reset()
    for fresh in (first, second.session()):
        assert (await fresh.run(task="go")).messages[-1].to_text() == "2"


async def test_the_state_autogen_wrote_holds_nothing_and_loads() -> None:
    agent = filtered(of("user"), agent=AssistantAgent("inner", ReplayChatCompletionClient(["x"])))
    before = await agent.save_state()
    await agent.run(task="go")
    await agent.load_state({"type": "BaseState", "version": "1.0.0"})
    assert await agent.save_state() == before


@pytest.mark.parametrize(
    "state",
    [None, {}, {"type": "MessageFilterAgentState"}, {"type": "BaseState", "x": 1}, {"wrapped_agent_state": 3}],
)
async def test_a_state_of_another_shape_is_refused_and_changes_nothing(state: Any) -> None:
    agent = filtered(of("user"), agent=AssistantAgent("inner", ReplayChatCompletionClient(["x"])))
    await agent.run(task="go")
    before = await agent.save_state()
    with pytest.raises(StateError):
        await agent.load_state(state)
    assert await agent.save_state() == before


async def test_pause_resume_and_close_reach_the_wrapped_agent() -> None:
    told: list[str] = []

    class Listener(Counter):
        async def on_pause(self, cancellation_token: CancellationToken) -> None:
            told.append("pause")

        async def on_resume(self, cancellation_token: CancellationToken) -> None:
            told.append("resume")

        async def close(self) -> None:
            told.append("close")

    agent = filtered(agent=Listener("inner"))
    team = RoundRobinGroupChat([agent], max_turns=1)
    await team.pause()
    await team.resume()
    await agent.close()
    assert told == ["pause", "resume", "close"]


async def test_a_person_behind_a_filter_can_be_asked_later() -> None:
    def make() -> RoundRobinGroupChat:
        user = MessageFilterAgent("desk", UserProxyAgent("person", input_func=suspend), only(of("user")))
        return RoundRobinGroupChat([Counter("a"), user], max_turns=2)

    first, second = make(), make()
    question = (await first.run(task="go")).pending[0]
    await second.load_state(json.loads(json.dumps(await first.save_state())))
    for team in (first, second):
        team.answer(question.id, "yes")
        assert [m.source for m in (await team.run(task="go")).messages] == ["user", "a", "desk", "desk"]


async def test_attributes_of_ones_own_go_back_with_a_turn_that_is_suspended() -> None:
    class Counting(MessageFilterAgent):
        turns = 0

        async def on_messages_stream(self, messages: Any, cancellation_token: Any) -> Any:
            self.turns += 1
            async for item in super().on_messages_stream(messages, cancellation_token):
                yield item

    agent = Counting("desk", UserProxyAgent("person", input_func=suspend), only(of("user")))
    agent.answer((await agent.run(task="go")).pending[0].id, "yes")
    await agent.run(task="go")
    assert agent.turns == 1


async def test_the_turn_of_a_wrapped_opaque_agent_is_one_effect() -> None:
    class Dice(Counter):
        opaque = True

        async def save_state(self) -> Any:
            return {"count": self._count}

        async def load_state(self, state: Any) -> None:
            self._count = state["count"]

    class Pair(RoundRobinGroupChat):
        async def select_speakers(self, thread: Any) -> list[str]:
            return ["outer", "user"]

    dice = Dice("dice")
    team = Pair([filtered(of("user"), agent=dice), UserProxyAgent("user", input_func=suspend)], max_turns=1)
    team.answer((await team.run(task="go")).pending[0].id, "yes")
    result = await team.run(task="go")
    assert [message.to_text() for message in result.messages if message.to_text()] == ["go", "dice 1", "yes"]
    assert dice._count == 1


async def test_one_agent_is_not_let_speak_twice_at_once() -> None:
    class Pair(RoundRobinGroupChat):
        async def select_speakers(self, thread: Any) -> list[str]:
            return ["one", "two"]

    both = Counter("both")
    team = Pair([filtered(agent=both, name="one"), filtered(agent=both, name="two")], max_turns=1)
    with pytest.raises(RuntimeError, match="'both' is already running"):
        await team.run(task="go")
    assert both._turn_of is None


async def test_it_can_be_cancelled_and_runs_again() -> None:
    asked = asyncio.Event()

    async def never(prompt: str, token: object) -> str:
        asked.set()
        await asyncio.Event().wait()
        return ""

    agent = filtered(agent=UserProxyAgent("person", input_func=never))
    for _ in range(2):
        asked.clear()
        run = asyncio.ensure_future(agent.run(task="go"))
        await asked.wait()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: MessageFilterAgent("o", "x", only()), "wrapped_agent of 'o' must be an agent, not 'x'"),  # type: ignore[arg-type]
        (lambda: MessageFilterAgent("o", Counter("i"), {}), "filter of 'o' must be a MessageFilterConfig"),  # type: ignore[arg-type]
        (lambda: of("a", "middle"), "position must be 'first', 'last' or None, not 'middle'"),
        (lambda: of("a", "last", 0), "count must be a whole number of at least 1, or None, not 0"),
    ],
)
def test_wrong_arguments_are_refused(make: Callable[[], Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        make()
