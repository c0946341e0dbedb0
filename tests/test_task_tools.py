"""Agents and teams as tools: part of the run they are called in, one task at a time, and not taken for the caller."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from agents_for_tests import Counter, Failing, echo, speaker
from tinygen import (
    AgentTool,
    AssistantAgent,
    AssistantMessage,
    CancellationToken,
    ConfigError,
    FunctionCall,
    FunctionExecutionResultMessage,
    HandoffMessage,
    MaxMessageTermination,
    ReplayChatCompletionClient,
    ReplayRequest,
    RoundRobinGroupChat,
    RunLimits,
    SelectSpeakerEvent,
    SourceMatchTermination,
    StaticStreamWorkbench,
    StaticWorkbench,
    TaskResult,
    TeamTool,
    TextMentionTermination,
    TextMessage,
    ToolCallExecutionEvent,
    UserProxyAgent,
)
from tinygen.telemetry import listen


def calling(*calls: tuple[str, str], then: str = "done") -> ReplayChatCompletionClient:
    """A model that makes these calls side by side, then says `then`."""
    wanted = [FunctionCall(str(at), json.dumps({"task": task}), name) for at, (name, task) in enumerate(calls)]
    return ReplayChatCompletionClient(
        lambda request: then if isinstance(request.messages[-1], FunctionExecutionResultMessage) else wanted
    )


def manager(model: ReplayChatCompletionClient, *tools: Any, name: str = "manager") -> AssistantAgent:
    return AssistantAgent(name, model, tools=list(tools), max_tool_iterations=2)


def results(result: TaskResult) -> list[str]:
    """What the model read of the calls."""
    events = [event for event in result.messages if isinstance(event, ToolCallExecutionEvent)]
    return [answer.content for event in events for answer in event.content]


def said(result: TaskResult) -> list[str]:
    return [f"{message.source}: {message.to_text()}" for message in result.messages if message.type == "TextMessage"]


def history(request: ReplayRequest) -> str:
    """A model that says all it was ever told, but its instructions."""
    return "+".join(str(message.content) for message in request.messages[1:])


# --- what it is


def test_an_agent_is_a_strict_tool_of_one_task() -> None:
    tool = AgentTool(AssistantAgent("chemist", ReplayChatCompletionClient([]), description="Knows chemistry."))
    assert tool.schema == {
        "name": "chemist",
        "description": "Knows chemistry.",
        "parameters": {
            "type": "object",
            "properties": {"task": {"type": "string", "description": "The task to be done."}},
            "required": ["task"],
            "additionalProperties": False,
        },
        "strict": True,
    }


def test_a_team_has_the_name_and_description_it_is_given() -> None:
    tool = TeamTool(RoundRobinGroupChat([speaker("a")]), name="writers", description="Write.")
    assert (tool.name, tool.description) == ("writers", "Write.")


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: AgentTool(RoundRobinGroupChat([speaker("a")])), "for a team there is TeamTool"),  # type: ignore[arg-type]
        (lambda: AgentTool("a"), "agent must be an agent"),  # type: ignore[arg-type]
        (lambda: TeamTool("a", "t", "d"), "team of tool 't' must be a team"),  # type: ignore[arg-type]
    ],
)
def test_what_runs_no_task_is_no_such_tool(make: Callable[[], Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        make()


# --- what the model reads


async def test_the_model_reads_who_said_what_after_the_task() -> None:
    team = RoundRobinGroupChat([speaker("a"), speaker("b")], max_turns=2, emit_team_events=True)
    result = await manager(calling(("t", "go")), TeamTool(team, "t", "d")).run(task="q")
    assert results(result) == ["a: a\n\nb: b"]
    assert any(isinstance(message, SelectSpeakerEvent) for message in result.messages)


async def test_the_model_reads_the_last_message_alone_when_told_so() -> None:
    team = RoundRobinGroupChat([speaker("a"), speaker("b")], max_turns=2)
    tool = TeamTool(team, "t", "d", return_value_as_last_message=True)
    assert results(await manager(calling(("t", "go")), tool).run(task="q")) == ["b"]


async def test_what_a_person_named_user_says_is_not_left_out() -> None:
    user = UserProxyAgent("user", input_func=lambda prompt: "blue")
    result = await manager(calling(("user", "Which colour?")), AgentTool(user)).run(task="q")
    assert results(result) == ["user: blue"]


async def test_a_team_that_says_nothing_is_told_as_such() -> None:
    team = RoundRobinGroupChat([speaker("a")], termination_condition=MaxMessageTermination(1))
    assert results(await manager(calling(("t", "go")), TeamTool(team, "t", "d")).run(task="q")) == ["No response."]


async def test_a_failing_agent_is_an_error_for_the_model() -> None:
    team = RoundRobinGroupChat([Failing("bad", ValueError("no luck"))])
    result = await manager(calling(("t", "go")), TeamTool(team, "t", "d")).run(task="q")
    assert results(result) == ["agent 'bad' failed in turn 1: ValueError: no luck"]
    assert result.messages[-1].to_text() == "done"


async def test_in_a_workbench_that_does_not_stream_the_result_is_the_same() -> None:
    agent = AssistantAgent(
        "m", calling(("sub", "go")), workbench=StaticWorkbench([AgentTool(speaker("sub"))]), max_tool_iterations=2
    )
    result = await agent.run(task="q")
    assert (results(result), said(result)) == (["sub: sub"], ["user: q", "m: done"])


# --- what others see of it


@pytest.mark.parametrize(
    "condition",
    [
        lambda: TextMentionTermination("TERMINATE"),
        lambda: SourceMatchTermination(["sub"]),
        lambda: TextMentionTermination("inner task", sources=["user"]),
        lambda: MaxMessageTermination(3),
    ],
)
async def test_what_an_agent_used_as_a_tool_says_does_not_end_the_outer_team(condition: Callable[[], Any]) -> None:
    model = calling(("sub", "inner task"), then="not finished")
    lead = manager(model, AgentTool(speaker("sub", "TERMINATE", "TERMINATE")))
    team = RoundRobinGroupChat([lead], termination_condition=condition(), max_turns=1)
    result = await team.run(task="q")
    assert result.stop_reason == "Maximum number of turns 1 reached."
    assert said(result) == ["user: q", "user: inner task", "sub: TERMINATE", "manager: not finished"]


@pytest.mark.parametrize("as_team", [False, True])
async def test_an_agent_in_a_tool_that_has_its_callers_name_is_not_taken_for_it(as_team: bool) -> None:
    inside = speaker("lead", "TERMINATE", "TERMINATE")
    tool = TeamTool(RoundRobinGroupChat([inside], max_turns=1), "sub", "helps") if as_team else AgentTool(inside)
    lead = manager(calling((tool.name, "inner task"), then="not finished"), tool, name="lead")
    team = RoundRobinGroupChat([lead], termination_condition=TextMentionTermination("TERMINATE"), max_turns=1)
    result = await team.run(task="q")
    assert result.stop_reason == "Maximum number of turns 1 reached."
    assert said(result) == ["user: q", "user: inner task", "lead: TERMINATE", "lead: not finished"]


async def test_the_others_in_a_team_hear_only_the_answer() -> None:
    other = Counter("other")
    team = RoundRobinGroupChat([manager(calling(("sub", "inner")), AgentTool(speaker("sub"))), other], max_turns=2)
    await team.run(task="q")
    assert other.heard == ["q", "done"]


async def test_pieces_of_an_inner_answer_are_streamed_and_not_in_the_result() -> None:
    sub = AssistantAgent("sub", ReplayChatCompletionClient(["one two"]), model_client_stream=True)
    agent, pieces = manager(calling(("sub", "go")), AgentTool(sub)), []
    async for item in agent.run_stream(task="q"):
        if isinstance(item, TaskResult):
            assert not any(message.type == "ModelClientStreamingChunkEvent" for message in item.messages)
        elif item.type == "ModelClientStreamingChunkEvent":
            pieces.append((item.source, item.to_text()))
    assert pieces == [("sub", "one "), ("sub", "two")]


async def test_listeners_are_told_once_of_what_an_inner_agent_says() -> None:
    told: list[str] = []
    innermost = manager(calling(("sub", "go")), AgentTool(speaker("sub")), name="mid")
    outer = manager(calling(("mid", "go")), AgentTool(innermost))
    with listen(lambda event: told.append(event.data["message"].source) if event.kind == "message" else None):
        result = await outer.run(task="q")
    assert sorted(told) == sorted(message.source for message in result.messages)


async def test_a_turn_that_is_closed_in_mid_call_has_closed_its_history() -> None:
    lead = manager(calling(("sub", "inner task")), AgentTool(speaker("sub")))
    stream = lead.on_messages_stream([TextMessage(content="q", source="user")], CancellationToken())
    async for item in stream:
        if getattr(item, "source", "") == "sub":
            break
    await stream.aclose()

    _, asked, answered = await lead.model_context.get_messages()
    assert isinstance(asked, AssistantMessage) and isinstance(answered, FunctionExecutionResultMessage)


async def test_a_tool_in_a_tool_in_a_tool_passes_everything_on() -> None:
    sub = manager(calling(("c", "3")), AgentTool(speaker("c")), name="b")
    result = await manager(calling(("b", "2")), AgentTool(sub), name="a").run(task="1")
    assert said(result) == ["user: 1", "user: 2", "user: 3", "c: c", "b: done", "a: done"]


async def test_the_task_of_a_tool_in_a_tool_is_nothing_that_was_said() -> None:
    person = UserProxyAgent("user", input_func=lambda prompt: "me")
    crew = TeamTool(RoundRobinGroupChat([speaker("c"), person], max_turns=2), "crew", "helps")
    sub = manager(calling(("crew", "inner task")), crew, name="b")
    result = await manager(calling(("b", "task")), AgentTool(sub), name="a").run(task="q")
    assert results(result)[-1] == "c: c\n\nuser: me\n\nb: done"


# --- one task at a time


async def test_an_agent_remembers_one_call_for_the_next() -> None:
    agent = manager(calling(("sub", "x")), AgentTool(AssistantAgent("sub", ReplayChatCompletionClient(history))))
    assert results(await agent.run(task="q")) == ["sub: x"]
    assert results(await agent.run(task="q")) == ["sub: x+x+x"]


@pytest.mark.parametrize("workbench", [StaticWorkbench, StaticStreamWorkbench])
async def test_parallel_calls_of_one_agent_are_made_in_their_order(workbench: type[StaticWorkbench]) -> None:
    sub = AssistantAgent("sub", ReplayChatCompletionClient(history))
    model = calling(("sub", "1"), ("sub", "2"), ("sub", "3"))
    agent = AssistantAgent("m", model, workbench=workbench([AgentTool(sub)]), max_tool_iterations=2)
    result = await agent.run(task="q")
    assert results(result) == ["sub: 1", "sub: 1+1+2", "sub: 1+1+2+1+1+2+3"]


async def test_two_tools_of_one_agent_wait_for_each_other_too() -> None:
    sub = AssistantAgent("sub", ReplayChatCompletionClient(history))
    first = manager(calling(("sub", "1")), AgentTool(sub), name="first")
    second = manager(calling(("sub", "2")), AgentTool(sub), name="second")
    lead = manager(calling(("first", "x"), ("second", "y")), AgentTool(first), AgentTool(second))
    assert (await lead.run(task="q")).messages[-1].to_text() == "done"
    assert [m.content for m in await sub.model_context.get_messages()] == ["1", "1", "2", "1+1+2"]


async def test_different_agents_work_side_by_side() -> None:
    meeting: list[str] = []
    met = asyncio.Event()

    async def meet(prompt: str, token: object) -> str:
        meeting.append(prompt)
        if len(meeting) == 2:
            met.set()
        await met.wait()
        return "met"

    people = [AgentTool(UserProxyAgent(name, input_func=meet)) for name in ("ann", "bob")]
    result = await manager(calling(("ann", "1"), ("bob", "2")), *people).run(task="q")
    assert results(result) == ["ann: met", "bob: met"]


async def test_a_call_that_waits_for_its_turn_is_cancelled_with_the_run() -> None:
    started = asyncio.Event()

    async def never(prompt: str, token: object) -> str:
        started.set()
        await asyncio.Event().wait()
        return ""

    tool = AgentTool(UserProxyAgent("slow", input_func=never))
    token = CancellationToken()
    agent = manager(calling(("slow", "1"), ("slow", "2"), ("slow", "3")), tool)
    run = asyncio.ensure_future(agent.run(task="q", cancellation_token=token))
    await started.wait()
    token.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    started.clear()
    again = asyncio.ensure_future(agent.run(task="again"))
    await started.wait()
    again.cancel()


async def test_an_agent_asked_from_inside_its_own_work_is_refused_and_the_model_told() -> None:
    loop = AssistantAgent("loop", calling(("other", "x")), workbench=(bench := StaticStreamWorkbench([])))
    other = manager(calling(("loop", "y"), then="could not"), AgentTool(loop), name="other")
    bench._tools = bench._offered = {"other": AgentTool(other)}
    result = await manager(calling(("loop", "go")), AgentTool(loop)).run(task="q")
    refused = [text for text in results(result) if "cannot be asked here" in text]
    assert refused
    assert result.messages[-1].to_text() == "done"


async def test_two_agents_that_ask_each_other_at_once_do_not_wait_forever() -> None:
    bench = StaticStreamWorkbench([])
    ann = AssistantAgent("ann", calling(("bob", "x"), then="ann"), workbench=bench, max_tool_iterations=2)
    bob = manager(calling(("ann", "y"), then="bob"), AgentTool(ann), name="bob")
    bench._tools = bench._offered = {"bob": AgentTool(bob)}
    result = await manager(calling(("ann", "1"), ("bob", "2")), AgentTool(ann), AgentTool(bob)).run(task="q")
    assert any("cannot be asked here" in text for text in results(result))
    assert result.messages[-1].to_text() == "done"


async def test_a_member_in_mid_turn_is_refused_as_a_tool_of_itself() -> None:
    bench = StaticStreamWorkbench([])
    agent = AssistantAgent("a", calling(("a", "x")), workbench=bench, max_tool_iterations=2)
    bench._tools = bench._offered = {"a": AgentTool(agent)}
    result = await RoundRobinGroupChat([agent], max_turns=1).run(task="q")
    assert "is already running" in results(result)[0]


# --- part of the run


async def test_a_limit_of_the_run_holds_inside_the_tool() -> None:
    tool = TeamTool(RoundRobinGroupChat([speaker("a")]), "t", "d")
    result = await manager(calling(("t", "go")), tool).run(task="q", limits=RunLimits(model_calls=5))
    assert result.stop_reason == "limit reached: model_calls (5 of 5)"


async def test_the_tokens_of_the_tool_are_in_the_usage_of_the_run() -> None:
    agent = manager(calling(("sub", "go")), AgentTool(AssistantAgent("sub", ReplayChatCompletionClient(["one two"]))))
    sub_alone = await AssistantAgent("sub", ReplayChatCompletionClient(["one two"])).run(task="go")
    assert (await agent.run(task="q")).usage.completion_tokens > sub_alone.usage.completion_tokens


async def test_cancelling_the_run_ends_the_team_in_the_tool_which_can_run_again() -> None:
    team = RoundRobinGroupChat([speaker("a")])
    token = CancellationToken()
    stream = manager(calling(("t", "go")), TeamTool(team, "t", "d")).run_stream(task="q", cancellation_token=token)
    with pytest.raises(asyncio.CancelledError):
        async for item in stream:
            if getattr(item, "source", "") == "a":
                token.cancel()
    again = await team.run(task="again", limits=RunLimits(model_calls=1))
    assert again.stop_reason == "limit reached: model_calls (1 of 1)"


def test_run_sync_runs_agents_that_are_tools() -> None:
    agent = manager(calling(("sub", "1"), ("sub", "2")), AgentTool(speaker("sub")))
    for _ in range(2):
        assert results(agent.run_sync(task="q"))[-2:] == ["sub: sub", "sub: sub"]


# --- state


async def test_what_the_agent_in_a_tool_remembers_is_saved_with_the_caller() -> None:
    def make() -> AssistantAgent:
        return manager(calling(("sub", "x")), AgentTool(AssistantAgent("sub", ReplayChatCompletionClient(history))))

    first, second = make(), make()
    await first.run(task="q")
    await second.load_state(json.loads(json.dumps(await first.save_state())))
    assert results(await second.run(task="q")) == results(await first.run(task="q")) == ["sub: x+x+x"]


async def test_reset_reaches_the_agent_in_a_tool() -> None:
    agent = manager(calling(("sub", "x")), AgentTool(AssistantAgent("sub", ReplayChatCompletionClient(history))))
    await agent.run(task="q")
    await agent.reset()
    assert results(await agent.run(task="q")) == ["sub: x"]


async def test_a_session_has_agents_of_its_own_in_its_tools() -> None:
    agent = manager(calling(("sub", "x")), AgentTool(AssistantAgent("sub", ReplayChatCompletionClient(history))))
    await agent.run(task="q")
    assert results(await agent.session().run(task="q")) == ["sub: x"]


async def test_a_tool_is_called_by_hand_too() -> None:
    tool = AgentTool(AssistantAgent("sub", ReplayChatCompletionClient(echo)))
    result = await tool.run_json({"task": "hi"}, CancellationToken())
    assert tool.return_value_as_string(result) == "sub: hi"


async def test_a_handoff_of_an_inner_agent_is_text_for_the_model() -> None:
    inner = AssistantAgent(
        "inner", ReplayChatCompletionClient([[FunctionCall("1", "{}", "transfer_to_bob")]]), handoffs=["bob"]
    )
    result = await manager(calling(("inner", "go")), AgentTool(inner)).run(task="q")
    assert results(result)[-1].startswith("inner: Transferred to bob")
    assert isinstance(result.messages[-1], TextMessage)
    assert any(isinstance(message, HandoffMessage) for message in result.messages)
