"""A person in any place: asked now or answered later, on this object or another, the run says the same."""

from __future__ import annotations

import asyncio
import io
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from agents_for_tests import Counter, speaker
from tinygen import (
    AgentTool,
    AssistantAgent,
    BaseChatAgent,
    ConfigError,
    Console,
    DiGraphBuilder,
    FunctionCall,
    FunctionExecutionResultMessage,
    GraphFlow,
    HandoffMessage,
    MagenticOneGroupChat,
    MessageFilterAgent,
    MessageFilterConfig,
    PerSourceFilter,
    ReplayChatCompletionClient,
    ReplayRequest,
    RoundRobinGroupChat,
    RunLimits,
    SelectorGroupChat,
    SocietyOfMindAgent,
    StaticStreamWorkbench,
    StaticWorkbench,
    Swarm,
    TaskResult,
    TeamTool,
    UserInputManager,
    UserInputRequestedEvent,
    UserProxyAgent,
    suspend,
)
from tinygen.runner import TaskRunner

Person = Callable[[str], UserProxyAgent]


class Teller(Counter):
    """A counter that saves its count."""

    async def save_state(self) -> Any:
        return {"count": self._count}

    async def load_state(self, state: Any) -> None:
        self._count = state["count"]


def history(request: ReplayRequest) -> str:
    """A model that says all it was ever told, but its instructions."""
    return "+".join(str(message.content) for message in request.messages[1:])


def calling(*names: str) -> ReplayChatCompletionClient:
    """A model that calls these tools side by side, then says what came of it."""
    calls = [FunctionCall(str(at), json.dumps({"task": f"task {at}"}), name) for at, name in enumerate(names)]

    def reply(request: ReplayRequest) -> Any:
        last = request.messages[-1]
        if isinstance(last, FunctionExecutionResultMessage):
            return " | ".join(result.content for result in last.content)
        return calls

    return ReplayChatCompletionClient(reply)


def asking(*tools: Any, calls: list[str] | None = None, name: str = "lead") -> AssistantAgent:
    names = calls or [tool.name for tool in tools]
    return AssistantAgent(name, calling(*names), tools=list(tools), max_tool_iterations=2)


def team(*members: Any, turns: int = 2, name: str | None = None) -> RoundRobinGroupChat:
    return RoundRobinGroupChat(list(members), max_turns=turns, name=name)


def society(inner: TaskRunner, name: str = "som") -> SocietyOfMindAgent:
    return SocietyOfMindAgent(name, inner, ReplayChatCompletionClient(history))


def graph(*branches: BaseChatAgent) -> GraphFlow:
    """A fan-out to all branches, and a join."""
    first, last = Teller("first"), Teller("last")
    builder = DiGraphBuilder().add_node(first).add_node(last)
    for branch in branches:
        builder.add_node(branch).add_edge(first, branch).add_edge(branch, last)
    return GraphFlow(builder.get_participants(), builder.build())


def transfer(request: ReplayRequest) -> Any:
    """A model that hands over to the user, and thanks for the answer."""
    return "thanks" if request.messages[-1].source == "user" and len(request.messages) > 2 else HAND_OVER  # type: ignore[union-attr]


def leading(request: ReplayRequest) -> str:
    """A model that lets everybody speak in turn."""
    if request.json_output is None:
        return "thoughts"
    names = re.search(r"One of: (.*)", str(request.messages[-1].content))[1].split(", ")  # type: ignore[index]
    judged = {key: {"reason": "", "answer": key.endswith("made")} for key in JUDGED}
    said = {"reason": "", "answer": names[len(request.messages) // 2 % len(names)]}
    return json.dumps({**judged, "next_speaker": said, "instruction_or_question": {"reason": "", "answer": "go on"}})


JUDGED = ["is_request_satisfied", "is_in_loop", "is_progress_being_made"]
HAND_OVER = [FunctionCall("1", "{}", "transfer_to_user")]


def swarm(person: Person) -> Swarm:
    clerk = AssistantAgent("clerk", ReplayChatCompletionClient(transfer), handoffs=["user"])
    return Swarm([clerk, person("user")], max_turns=3)


def filtered(person: Person) -> MessageFilterAgent:
    heard = MessageFilterConfig(per_source=[PerSourceFilter(source="user", position="last", count=1)])
    return MessageFilterAgent("desk", person("user"), heard)


def not_streaming(person: Person) -> AssistantAgent:
    workbench = StaticWorkbench([AgentTool(person("user")), TeamTool(team(speaker("a"), turns=1), "t", "d")])
    return AssistantAgent("lead", calling("t", "user"), workbench=workbench, max_tool_iterations=2)


PLACES: dict[str, Callable[[Person], TaskRunner]] = {
    "alone": lambda person: person("user"),
    "team": lambda person: team(speaker("a"), person("user"), turns=4),
    "nested team": lambda person: team(speaker("a"), team(Teller("c"), person("user"), name="inner"), turns=4),
    "team in a team in a team": lambda person: team(team(team(person("user"), turns=1, name="x"), name="y"), turns=1),
    "society": lambda person: society(team(speaker("a"), person("user"))),
    "society in a team": lambda person: team(Teller("c"), society(team(speaker("a"), person("user"))), turns=4),
    "society in a society": lambda person: society(team(society(team(person("user"), turns=1), "mid"), turns=1)),
    "society of one person": lambda person: society(person("user")),
    "filter": filtered,
    "filter in a team": lambda person: team(speaker("a"), filtered(person)),
    "agent tool": lambda person: asking(AgentTool(person("user"))),
    "team tool": lambda person: asking(TeamTool(team(speaker("a"), person("user")), "ask", "d")),
    "agent tool in a team": lambda person: team(Teller("c"), asking(AgentTool(person("user"))), turns=4),
    "tools that do not stream": not_streaming,
    "tool in a tool": lambda person: asking(AgentTool(asking(AgentTool(person("user")), name="mid"))),
    "society in a tool": lambda person: asking(AgentTool(society(team(person("user"), turns=1)))),
    "tool in a society": lambda person: society(team(asking(AgentTool(person("user"))), turns=1)),
    "two people in tools": lambda person: asking(AgentTool(person("ann")), AgentTool(person("bob"))),
    "one person in a tool twice": lambda person: asking(AgentTool(person("ann")), calls=["ann", "ann"]),
    "beside an agent that remembers": lambda person: team(
        asking(AgentTool(person("ann")), AgentTool(AssistantAgent("sub", ReplayChatCompletionClient(history)))), turns=2
    ),
    "one team in a tool three times": lambda person: asking(
        TeamTool(team(AssistantAgent("sub", ReplayChatCompletionClient(history)), person("ann")), "ask", "d"),
        calls=["ask", "ask", "ask"],
    ),
    "two parallel branches": lambda person: graph(person("ann"), Teller("b"), person("bob")),
    "parallel branches with tools": lambda person: graph(
        asking(AgentTool(person("ann")), name="one"), society(team(person("bob"), turns=1)), Teller("b")
    ),
    "selector": lambda person: SelectorGroupChat(
        [speaker("a"), person("user")],
        ReplayChatCompletionClient([]),
        selector_func=lambda thread: "user" if thread[-1].source == "a" else "a",
        max_turns=3,
    ),
    "swarm": swarm,
    "magentic": lambda person: MagenticOneGroupChat(
        [Teller("a"), person("user"), society(team(person("ann"), turns=1))],
        ReplayChatCompletionClient(leading),
        max_turns=4,
    ),
    "graph in a magentic team": lambda person: MagenticOneGroupChat(
        [graph(person("user"), Teller("b")), Teller("c")], ReplayChatCompletionClient(leading), max_turns=2
    ),
}


def asked_now(name: str) -> UserProxyAgent:
    return UserProxyAgent(name, input_func=lambda prompt: f"{name} says yes")


def asked_later(name: str) -> UserProxyAgent:
    return UserProxyAgent(name, input_func=suspend)


def said(result: TaskResult) -> list[tuple[str, str, str]]:
    return [(message.type, message.source, message.to_text()) for message in result.messages]


@pytest.mark.parametrize("elsewhere", [False, True], ids=["same object", "another process's object"])
@pytest.mark.parametrize("place", PLACES)
async def test_a_person_answered_later_leads_to_what_one_asked_at_once_does(place: str, elsewhere: bool) -> None:
    expected, runner = await PLACES[place](asked_now).run(task="go"), PLACES[place](asked_later)
    result, asked = await runner.run(task="go"), 0
    while result.pending:
        assert result.stop_reason == "input required"
        asked += 1
        if elsewhere:
            document, runner = json.dumps(await runner.save_state()), PLACES[place](asked_later)
            await runner.load_state(json.loads(document))
        question = result.pending[-1]
        runner.answer(question.id, f"{question.source} says yes")
        result = await runner.run(task="go")
    assert said(result) == said(expected)
    assert result.stop_reason == expected.stop_reason
    assert asked == sum(1 for kind, _, _ in said(result) if kind == "UserInputRequestedEvent") or "not stream" in place


@pytest.mark.parametrize("place", PLACES)
async def test_after_the_answers_the_next_run_goes_on_as_if_nobody_had_waited(place: str) -> None:
    expected, runner = PLACES[place](asked_now), PLACES[place](asked_later)
    await expected.run(task="go")
    result = await runner.run(task="go")
    for task in ("go", "more"):
        while result.pending:
            runner.answer(result.pending[0].id, f"{result.pending[0].source} says yes")
            result = await runner.run(task=task)
        result = result if task == "more" else await runner.run(task="more")
    assert said(result) == said(await expected.run(task="more"))


@pytest.mark.parametrize("place", PLACES)
async def test_the_handle_of_a_run_answers_whoever_asks_in_it(place: str) -> None:
    handle = PLACES[place](lambda name: UserProxyAgent(name)).start(task="go")
    async for event in handle:
        message = event.data.get("message")
        if isinstance(message, UserInputRequestedEvent):
            handle.answer(message.request_id, f"{message.source} says yes")
    expected = await PLACES[place](asked_now).run(task="go")
    if place == "filter" or place == "filter in a team":
        assert len(said(await handle)) == len(said(expected))
    else:
        assert said(await handle) == said(expected)


async def test_a_handle_refuses_an_answer_that_is_no_text_and_the_run_still_waits() -> None:
    handle = UserProxyAgent("user").start(task="go")
    async for event in handle:
        message = event.data.get("message")
        if isinstance(message, UserInputRequestedEvent):
            with pytest.raises(ConfigError, match="must be text, not 5"):
                handle.answer(message.request_id, 5)
            handle.answer(message.request_id, "five")
    assert (await handle).messages[-1].to_text() == "five"


@pytest.mark.parametrize("place", PLACES)
async def test_a_person_who_never_answers_holds_nobody_up(place: str) -> None:
    async def never(prompt: str, token: object) -> str:
        await asyncio.Event().wait()
        return ""

    runner = PLACES[place](lambda name: UserProxyAgent(name, input_func=never))
    result = await runner.run(task="go", limits=RunLimits(timeout=0.03))
    assert (result.stop_reason, result.abandoned) == ("limit reached: timeout (0.03 s)", [])
    await runner.reset()


@pytest.mark.parametrize(
    "place", ["alone", "nested team", "society in a team", "tool in a tool", "two parallel branches"]
)
async def test_a_console_prints_before_anybody_is_asked_anywhere(place: str) -> None:
    file, printed = io.StringIO(), []

    def answer(prompt: str) -> str:
        printed.append("go" in file.getvalue())
        return "yes"

    manager = UserInputManager(answer, patience=3600)
    runner = PLACES[place](lambda name: UserProxyAgent(name, input_func=manager.get_wrapped_callback()))
    await Console(runner.run_stream(task="go"), user_input_manager=manager, file=file)
    assert printed
    assert all(printed)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("inside", ["team", "society", "tool"])
async def test_a_handoff_to_a_person_is_answered_with_a_handoff_back(is_async: bool, inside: str) -> None:
    async def ask(prompt: str, token: object) -> str:
        return prompt

    user = UserProxyAgent("user", input_func=ask if is_async else lambda prompt: prompt)
    clerk = AssistantAgent("clerk", ReplayChatCompletionClient([HAND_OVER, "thanks"]), handoffs=["user"])
    help_desk = Swarm([clerk, user], max_turns=3)
    places: dict[str, TaskRunner] = {
        "team": help_desk,
        "society": society(help_desk),
        "tool": AssistantAgent(
            "lead", calling("desk"), workbench=StaticStreamWorkbench([TeamTool(help_desk, "desk", "d")])
        ),
    }
    result = await places[inside].run(task="go")
    handoff = next(m for m in result.messages if isinstance(m, HandoffMessage) and m.source == "user")
    assert (handoff.content, handoff.target) == ("Handoff received from clerk. Enter your response: ", "clerk")
    assert "thanks" in [message.to_text() for message in result.messages]
