"""Many sessions of one definition at once share nothing, and a turn costs the same however long the conversation is."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from agents_for_tests import Counter
from graphs_for_tests import graph
from random_teams import Tally, built, drawn, said, stands
from teams_for_tests import KINDS, Passing, chief
from tinygen import (
    AgentTool,
    AssistantAgent,
    AssistantMessage,
    BaseGroupChat,
    BufferedChatCompletionContext,
    CreateResult,
    FunctionCall,
    FunctionExecutionResultMessage,
    GraphFlow,
    HandoffMessage,
    MagenticOneGroupChat,
    MaxMessageTermination,
    MessageFilterAgent,
    MessageFilterConfig,
    PerSourceFilter,
    ReplayChatCompletionClient,
    ReplayRequest,
    RequestUsage,
    RoundRobinGroupChat,
    SelectorGroupChat,
    SocietyOfMindAgent,
    Swarm,
    TaskResult,
)

# --- nothing mixes


SESSION = re.compile(r"session-\d+")


def last_task(request: ReplayRequest) -> str:
    """The number of the session in the tasks the model was told, all of which must have the same."""
    numbers = set(SESSION.findall(" ".join(str(message.content) for message in request.messages)))
    assert len(numbers) <= 1, numbers
    return numbers.pop() if numbers else "session-none"


def talk(request: ReplayRequest) -> Any:
    """A model that calls its tools once in a turn, and then says which session it is in."""
    last = request.messages[-1]
    if request.tools and not isinstance(last, FunctionExecutionResultMessage):
        tool = request.tools[0]["name"]
        arguments = {"task": last_task(request)} if tool == "helper" else {"by": 1}
        return [FunctionCall("1", json.dumps(arguments), tool)]
    return f"b in {last_task(request)}"


def hand_over(request: ReplayRequest) -> Any:
    last = request.messages[-1]
    if isinstance(last, FunctionExecutionResultMessage) or not request.tools:
        return f"in {last_task(request)}"
    return [FunctionCall("1", "{}", request.tools[0]["name"])]


def member(name: str, **more: Any) -> AssistantAgent:
    return AssistantAgent(name, ReplayChatCompletionClient(talk), **more)


def members() -> list[Any]:
    helper = AgentTool(AssistantAgent("helper", ReplayChatCompletionClient(talk)))
    return [
        member("a", tools=[Tally()], reflect_on_tool_use=True),
        member("b", tools=[helper], reflect_on_tool_use=True),
    ]


def swarm(names: str) -> Swarm:
    made = [
        AssistantAgent(name, ReplayChatCompletionClient(hand_over), handoffs=[other])
        for name, other in zip(names, names[1:] + names[0])
    ]
    return Swarm(made, max_turns=4)


def everything() -> BaseGroupChat:
    """Every way to have an agent in an agent."""
    inner = RoundRobinGroupChat(members(), max_turns=2)
    heard = MessageFilterConfig(per_source=[PerSourceFilter(source="user")])
    return RoundRobinGroupChat(
        [
            SocietyOfMindAgent("som", inner, ReplayChatCompletionClient(talk)),
            MessageFilterAgent("filtered", member("wrapped", tools=[Tally()], reflect_on_tool_use=True), heard),
            RoundRobinGroupChat([swarm("pq")], name="nested", max_turns=1),
        ],
        max_turns=3,
    )


def selector() -> SelectorGroupChat:
    model = ReplayChatCompletionClient(lambda request: (last_task(request), "a")[1])
    context = BufferedChatCompletionContext(5)
    return SelectorGroupChat(members(), model, max_turns=4, model_context=context)


def magentic() -> MagenticOneGroupChat:
    def lead(request: ReplayRequest) -> str:
        text = chief(request)
        return text.replace("so be it", f"so be it in {last_task(request)}")

    return MagenticOneGroupChat(members(), ReplayChatCompletionClient(lead), max_turns=4)


DEFINITIONS: dict[str, Callable[[], BaseGroupChat]] = {
    "round robin": lambda: RoundRobinGroupChat(members(), max_turns=4, termination_condition=MaxMessageTermination(50)),
    "selector": selector,
    "swarm": lambda: swarm("abc"),
    "graph": lambda: GraphFlow([*members(), member("c"), member("d")], graph("a b", "a c", "b d", "c d")),
    "magentic": magentic,
    "everything": everything,
}


@pytest.mark.parametrize("kind", DEFINITIONS)
async def test_fifty_sessions_of_one_team_at_once_do_not_mix(kind: str) -> None:
    definition = DEFINITIONS[kind]()
    before = json.dumps(await definition.save_state())

    async def converse(number: int) -> tuple[str, str]:
        session, words = definition.session(), ""
        for turn in range(2):
            words += repr(await session.run(task=f"turn {turn} of session-{number}"))
        return words, json.dumps(await session.save_state())

    sessions = await asyncio.gather(*(converse(number) for number in range(50)))
    for number, texts in enumerate(sessions):
        for text in texts:
            assert set(SESSION.findall(text)) == {f"session-{number}"}
    assert json.dumps(await definition.save_state()) == before


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("number", range(12))
async def test_sessions_of_any_team_at_once_are_as_one_alone(number: int) -> None:
    plan = drawn(number)
    definition, alone = built(plan), built(plan)
    expected: TaskResult = await alone.run(task="go")
    sessions = [definition.session() for _ in range(10)]
    for result in await asyncio.gather(*(session.run(task="go") for session in sessions)):
        assert said(result.messages) == said(expected.messages)
    ends = [await stands(session) for session in sessions]
    assert ends == [await stands(alone)] * len(ends)


# --- a turn costs the same


def swarming(name: str) -> Passing:
    return Passing(name, "ab"["ab".index(name) - 1])


class Counting:
    """How many Python functions are called in each turn of a team."""

    def __init__(self) -> None:
        self.calls = 0
        self.at_turn: list[int] = []

    def __call__(self, frame: Any, event: str, argument: Any) -> None:
        if event == "call":
            self.calls += 1


def bounded(request: ReplayRequest) -> Any:
    """Counts turns in the text it says, so that they differ."""
    spoken = sum(isinstance(message, AssistantMessage) for message in request.messages)
    return f"said {spoken}"


def short_sighted(name: str) -> AssistantAgent:
    """An agent whose model sees but the last messages, so that a request is the same size however long it went."""
    context = BufferedChatCompletionContext(4)
    return AssistantAgent(name, ReplayChatCompletionClient(bounded), model_context=context)


def unread(request: ReplayRequest) -> CreateResult:
    """A model that leads, and reads none of the conversation it is sent: that is its own affair."""
    text = chief(request.model_copy(update={"messages": []}))
    return CreateResult(finish_reason="stop", content=text, usage=RequestUsage(1, 1), cached=False)


def shown(name: str, more: Any, turns: int) -> Any:
    if name == "swarm":
        return Swarm([swarming("a"), swarming("b")], max_turns=turns, **more)
    if name == "selector":
        return SelectorGroupChat(
            [short_sighted("a"), short_sighted("b"), short_sighted("c")],
            ReplayChatCompletionClient(lambda request: "a" if request.index % 2 else "b"),
            model_context=BufferedChatCompletionContext(4),
            max_turns=turns,
            **more,
        )
    if name == "a team in a team":
        inner = RoundRobinGroupChat([short_sighted("a"), short_sighted("b")], max_turns=1, name="inner")
        return RoundRobinGroupChat([inner, short_sighted("c")], max_turns=turns, **more)
    if name == "graph":
        loop = graph("a b", "a c", "b d", "c d", "d a said", "d end NEVER", entry="a")
        return GraphFlow([*map(short_sighted, "abcd"), Counter("end")], loop, max_turns=turns, **more)
    if name == "magentic":
        leader = ReplayChatCompletionClient(unread)
        return MagenticOneGroupChat([short_sighted("a"), short_sighted("b")], leader, max_turns=turns, **more)
    return RoundRobinGroupChat([short_sighted("a"), short_sighted("b")], max_turns=turns, **more)


TEAMS = ["round robin", "swarm", "selector", "graph", "a team in a team", "magentic"]
FEW, MANY = 10, 300


async def calls_per_turn(name: str) -> list[int]:
    """The number of calls between two completed turns."""
    counting = Counting()

    class Marks(MaxMessageTermination):
        async def check(self, messages: Any) -> str | None:
            counting.at_turn.append(counting.calls)
            return await super().check(messages)

    team = shown(name, {"termination_condition": Marks(1_000_000)}, MANY + 6)
    sys.setprofile(counting)
    try:
        await team.run(task="go")
    finally:
        sys.setprofile(None)
    marks = counting.at_turn
    return [later - earlier for earlier, later in pairwise(marks)]


@pytest.mark.parametrize("name", TEAMS)
async def test_a_turn_after_three_hundred_costs_what_one_after_ten_does(name: str) -> None:
    costs = await calls_per_turn(name)
    early, late = sum(costs[FEW - 4 : FEW + 4]), sum(costs[MANY - 4 : MANY + 4])
    assert len(costs) >= MANY + 4
    assert late < 1.3 * early


def test_all_kinds_of_teams_are_measured() -> None:
    assert {name for name in KINDS if name != "selector of one"} <= set(TEAMS)
    assert HandoffMessage in Passing.produced_message_types
