"""Workbenches as an assistant uses them: every one that can stream does, and nothing goes round what guards it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from agents_for_tests import speaker
from tinygen import (
    AgentTool,
    AssistantAgent,
    BaseStreamTool,
    BaseTool,
    FunctionCall,
    FunctionTool,
    ReplayChatCompletionClient,
    RunLimits,
    StateError,
    StaticStreamWorkbench,
    StaticWorkbench,
    StreamWorkbench,
    Suspended,
    TaskResult,
    TextMessage,
    ToolCallExecutionEvent,
    ToolOverride,
    ToolResult,
    Workbench,
    effect,
)


class Chatty(BaseStreamTool[Any, Any, str]):
    """Says what it is given on its way; raises what is an exception."""

    def __init__(self, *items: Any) -> None:
        super().__init__(dict, str, "chatty", "says something on the way")
        self._items = items

    async def run_stream(self, args: Any, cancellation_token: Any) -> Any:
        for item in self._items:
            if isinstance(item, BaseException):
                raise item
            yield item


def note(text: str) -> TextMessage:
    return TextMessage(content=text, source="chatty")


def agent(workbench: Workbench, *names: str, iterations: int = 1) -> AssistantAgent:
    """An agent whose model calls these tools, one after the other."""
    calls: list[Any] = [[FunctionCall(str(at), "{}", name)] for at, name in enumerate(names)]
    model = ReplayChatCompletionClient(calls)
    return AssistantAgent("a", model, workbench=workbench, max_tool_iterations=iterations)


def said(result: TaskResult) -> list[str]:
    return [message.to_text() for message in result.messages if message.source == "chatty"]


def results(result: TaskResult) -> list[tuple[str, bool | None]]:
    events = [event for event in result.messages if isinstance(event, ToolCallExecutionEvent)]
    return [(answer.content, answer.is_error) for event in events for answer in event.content]


# --- streaming


@pytest.mark.parametrize("kind", [StaticWorkbench, StaticStreamWorkbench])
async def test_a_renamed_tool_is_found_by_its_new_name_streaming_or_not(kind: type[StaticWorkbench]) -> None:
    workbench = kind([Chatty(note("on the way"), "done")], {"chatty": ToolOverride(name="talk", description="Talks.")})
    result = await agent(workbench, "talk").run(task="q")
    assert results(result) == [("done", False)]
    assert said(result) == (["on the way"] if kind is StaticStreamWorkbench else [])
    assert results(await agent(workbench, "chatty").run(task="q"))[0][1] is True


async def test_a_renamed_agent_passes_its_words_on() -> None:
    workbench = StaticStreamWorkbench([AgentTool(speaker("chatty"))], {"chatty": ToolOverride(name="ask")})
    model = ReplayChatCompletionClient([[FunctionCall("1", '{"task": "x"}', "ask")]])
    assert said(await AssistantAgent("a", model, workbench=workbench).run(task="q")) == ["chatty"]


async def test_a_stream_that_fails_gives_what_it_said_and_then_the_error() -> None:
    workbench = StaticStreamWorkbench([Chatty(note("1"), note("2"), ValueError("broke"))])
    result = await agent(workbench, "chatty").run(task="q")
    assert (said(result), results(result)) == (["1", "2"], [("broke", True)])


async def test_a_stream_that_cancels_itself_is_an_error_for_the_model() -> None:
    result = await agent(StaticStreamWorkbench([Chatty(note("1"), asyncio.CancelledError())]), "chatty").run(task="q")
    assert (said(result), results(result)) == (["1"], [("tool 'chatty' was cancelled from inside", True)])


async def test_what_a_tool_streams_besides_messages_is_left_out_of_the_run(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "tinygen.agents"):
        result = await agent(StaticStreamWorkbench([Chatty({"percent": 50}, note("1"), "done")]), "chatty").run(
            task="q"
        )
    assert (said(result), results(result)) == (["1"], [("done", False)])
    assert "tool 'chatty' said {'percent': 50}, which is neither message nor event" in caplog.text


class Endless(Chatty):
    """Goes on for ever, and never waits."""

    async def run_stream(self, args: Any, cancellation_token: Any) -> Any:
        while True:
            yield note("more")


@pytest.mark.parametrize("timeout", [None, 30.0])
async def test_a_stream_that_never_waits_does_not_keep_a_run_from_its_limits(timeout: float | None) -> None:
    tool = Endless()
    tool.timeout = timeout
    result = await agent(StaticStreamWorkbench([tool]), "chatty").run(task="q", limits=RunLimits(messages=9))
    assert result.stop_reason == "limit reached: messages (9 of 9)"


async def test_a_stream_that_never_waits_ends_when_its_time_is_up() -> None:
    tool = Endless()
    tool.timeout = 0.05
    result = await agent(StaticStreamWorkbench([tool]), "chatty").run(task="q")
    assert results(result) == [("tool 'chatty' did not answer within 0.05 s", True)]


async def test_a_summary_covers_the_streams_of_every_iteration() -> None:
    workbench = StaticStreamWorkbench([Chatty(note("1"), "one")])
    result = await agent(workbench, "chatty", "chatty", iterations=2).run(task="q")
    assert (said(result), result.messages[-1].to_text()) == (["1", "1"], "one\none")


async def test_a_workbench_that_streams_in_its_own_way_is_asked_for_every_tool() -> None:
    class Announcing(StaticStreamWorkbench):
        async def call_tool_stream(self, name: str, *arguments: Any, **more: Any) -> Any:
            yield note(f"calling {name}")
            async for item in super().call_tool_stream(name, *arguments, **more):
                yield item

    result = await agent(Announcing([FunctionTool(lambda: "plain", name="plain")]), "plain").run(task="q")
    assert (said(result), results(result)) == (["calling plain"], [("plain", False)])


async def test_a_guard_before_every_call_is_not_gone_round_by_streaming() -> None:
    class Guarded(StaticStreamWorkbench):
        async def call_tool(self, name: str, *arguments: Any, **more: Any) -> ToolResult:
            return ToolResult.error(name, "not allowed")

    result = await agent(Guarded([Chatty(note("1"), "done")]), "chatty").run(task="q")
    assert (said(result), results(result)) == ([], [("not allowed", True)])


async def test_a_workbench_of_streams_alone_needs_no_other_way_to_be_called() -> None:
    class Alone(StreamWorkbench):
        async def list_tools(self) -> list[Any]:
            return [{"name": "t", "description": ""}]

        async def call_tool_stream(self, *arguments: Any, **more: Any) -> Any:
            yield note("1")
            raise ValueError("broke")

    result = await agent(Alone(), "t").run(task="q")
    assert (said(result), results(result)) == (["1"], [("broke", True)])


# --- what tools remember, when the run they are called in is suspended


class Tally(BaseTool[Any, str]):
    """Counts its calls, and asks somebody after counting if it is told to."""

    def __init__(self, name: str, asks: bool = False) -> None:
        super().__init__(dict, str, name, "counts")
        self.count, self._asks = 0, asks

    async def run(self, args: Any, cancellation_token: Any) -> str:
        self.count += 1

        async def nobody_there() -> str:
            raise Suspended

        answer = await effect("input", {}, nobody_there, str, name=self.name) if self._asks else ""
        return f"{self.count}{answer}"

    async def save_state_json(self) -> dict[str, int]:
        return {"count": self.count}

    async def load_state_json(self, state: Any) -> None:
        self.count = state["count"]


@pytest.mark.parametrize("elsewhere", [False, True], ids=["same object", "another process's object"])
@pytest.mark.parametrize("kind", [StaticWorkbench, StaticStreamWorkbench])
async def test_a_call_counts_once_whether_it_was_suspended_or_stood_beside_one(
    kind: Callable[[Any], Workbench], elsewhere: bool
) -> None:
    def make() -> AssistantAgent:
        calls = [FunctionCall("1", "{}", "plain"), FunctionCall("2", "{}", "asking"), FunctionCall("3", "{}", "plain")]
        workbench = kind([Tally("plain"), Tally("asking", asks=True)])
        return AssistantAgent("a", ReplayChatCompletionClient([calls]), workbench=workbench)

    one = make()
    question = (await one.run(task="q")).pending[0]
    if elsewhere:
        document, one = json.dumps(await one.save_state()), make()
        await one.load_state(json.loads(document))
    one.answer(question.id, "!")
    assert (await one.run(task="q")).messages[-1].to_text() == "1\n1!\n2"
    saved: Any = await one.save_state()
    assert saved["workbenches"][0]["tools"] == {"plain": {"count": 2}, "asking": {"count": 1}}


async def test_a_workbench_goes_back_to_a_state_in_which_it_had_nothing_to_say() -> None:
    class Notes(StaticWorkbench):
        kept: dict[str, Any] = {}

        async def save_state(self) -> dict[str, Any]:
            return self.kept

        async def load_state(self, state: Any) -> None:
            self.kept = dict(state)

    workbench = Notes([])
    one = agent(workbench, "t")
    fresh = await one.save_state()
    workbench.kept = {"note": "x"}
    with pytest.raises(StateError, match="memories"):
        await one.load_state({**fresh, "memories": 5})
    assert workbench.kept == {"note": "x"}

    await one.load_state(fresh)
    assert workbench.kept == {}


async def test_reset_lets_tools_that_can_forget_do_so() -> None:
    class Forgetful(Tally):
        async def reset_state(self) -> None:
            self.count = 0

    tool = Forgetful("t")
    one = agent(StaticWorkbench([tool, FunctionTool(lambda: "", name="other")]), "t")
    await one.run(task="q")
    await one.reset()
    assert tool.count == 0
