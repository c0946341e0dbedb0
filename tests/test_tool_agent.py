"""Tools behind an actor, and the loop that lets a model call them."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

import pytest

from tinygen.addresses import AgentId
from tinygen.cancellation import CancellationToken
from tinygen.errors import (
    ConfigError,
    InvalidToolArgumentsException,
    RunStopped,
    ToolError,
    ToolException,
    ToolExecutionException,
    ToolNotFoundException,
)
from tinygen.limits import RunLimits
from tinygen.messages import (
    AssistantMessage,
    CreateResult,
    FunctionCall,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    RequestUsage,
    UserMessage,
)
from tinygen.models.replay import ReplayChatCompletionClient
from tinygen.run import run_scope
from tinygen.runtime import SingleThreadedAgentRuntime as Runtime
from tinygen.tool_agent import ToolAgent, tool_agent_caller_loop
from tinygen.tools import FunctionTool

TOOLS = AgentId("tools", "default")
QUESTION = [UserMessage(content="what is 1 + 2?", source="user")]


async def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


async def fails() -> str:
    """Fails."""
    raise KeyError("inside")


async def hangs(cancellation_token: CancellationToken) -> str:
    """Hangs."""
    await asyncio.Event().wait()
    return ""


def calls(*wanted: tuple[str, str, str], thought: str | None = None) -> CreateResult:
    return CreateResult(
        finish_reason="function_calls",
        content=[FunctionCall(id=id, name=name, arguments=arguments) for id, name, arguments in wanted],
        usage=RequestUsage(1, 1),
        cached=False,
        thought=thought,
    )


async def started() -> Runtime:
    runtime = Runtime()
    await ToolAgent.register(runtime, "tools", lambda: ToolAgent("tools", [add, fails, hangs]))
    runtime.start()
    return runtime


SCHEMA = [FunctionTool(each).schema for each in (add, fails)]


async def test_a_tool_agent_calls_the_tool_that_is_named() -> None:
    runtime = await started()
    result = await runtime.send_message(FunctionCall(id="1", name="add", arguments='{"a": 1, "b": 2}'), TOOLS)

    assert result == FunctionExecutionResult(content="3", name="add", call_id="1", is_error=False)
    await runtime.close()


@pytest.mark.parametrize(
    ("name", "arguments", "expected", "text"),
    [
        ("ad", "{}", ToolNotFoundException, "there is no tool 'ad'; did you mean 'add'?"),
        ("add", "{", InvalidToolArgumentsException, "not JSON"),
        ("add", "[1]", InvalidToolArgumentsException, "expected a JSON object, found a list"),
        ("add", '{"a": "x", "b": 2}', InvalidToolArgumentsException, "arguments.a"),
        ("fails", "", ToolExecutionException, "inside"),
    ],
)
async def test_what_goes_wrong_with_a_tool_is_raised_with_its_call(
    name: str, arguments: str, expected: type[ToolException], text: str
) -> None:
    runtime = await started()
    with pytest.raises(expected) as caught:
        await runtime.send_message(FunctionCall(id="7", name=name, arguments=arguments), TOOLS)
    error = caught.value

    assert (error.call_id, error.name, error.content) == ("7", name, str(error)) and text in error.content
    assert isinstance(error, ToolError) and pickle.loads(pickle.dumps(error)).content == error.content
    await runtime.stop_when_idle()


async def test_two_tools_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="tools of different names"):
        ToolAgent("tools", [add, add])


async def test_the_loop_goes_on_until_the_model_answers() -> None:
    runtime = await started()
    wanted = calls(("1", "add", '{"a": 1, "b": 2}'), ("2", "fails", "{}"), ("3", "nothing", "{}"), thought="hm")
    client = ReplayChatCompletionClient([wanted, "three"])
    asked, results, answer = await tool_agent_caller_loop(runtime, TOOLS, client, QUESTION, SCHEMA)

    assert isinstance(asked, AssistantMessage) and asked.thought == "hm" and asked.content == wanted.content
    assert isinstance(results, FunctionExecutionResultMessage)
    assert [(each.call_id, each.is_error) for each in results.content] == [("1", False), ("2", True), ("3", True)]
    assert results.content[0].content == "3" and "there is no tool 'nothing'" in results.content[2].content
    assert answer == AssistantMessage(content="three", source="assistant")
    await runtime.stop_when_idle()


async def test_a_model_that_calls_forever_is_asked_a_last_time_without_tools() -> None:
    runtime = await started()
    one = calls(("1", "add", '{"a": 1, "b": 2}'))
    client = ReplayChatCompletionClient([one, one, one, one])
    said = await tool_agent_caller_loop(runtime, TOOLS, client, QUESTION, SCHEMA, max_tool_iterations=2)

    assert [type(each).__name__ for each in said] == ["AssistantMessage", "FunctionExecutionResultMessage"] * 3
    assert "no more tools can be called" in said[-1].content[0].content  # type: ignore[index,union-attr]
    await runtime.stop_when_idle()


async def test_what_a_provider_wants_back_goes_back_with_the_results() -> None:
    runtime = await started()
    wanted = calls(("1", "add", '{"a": 1, "b": 2}'))
    wanted.provider_data = {"gemini": {"signature": "s"}}
    client = ReplayChatCompletionClient([wanted, "three"])
    said = await tool_agent_caller_loop(runtime, TOOLS, client, QUESTION, SCHEMA)

    assert said[0].provider_data == {"gemini": {"signature": "s"}}  # type: ignore[union-attr]
    assert client.create_calls[1].messages[1] == said[0]
    await runtime.stop_when_idle()


async def test_a_model_that_calls_nothing_and_says_nothing_has_answered() -> None:
    runtime = await started()
    said = await tool_agent_caller_loop(runtime, TOOLS, ReplayChatCompletionClient([calls()]), QUESTION, SCHEMA)

    assert said == [AssistantMessage(content="", source="assistant")]
    await runtime.stop_when_idle()


async def test_a_run_limits_and_ends_what_the_loop_does() -> None:
    runtime = await started()
    ends: list[Any] = []
    for limits, wanted in (
        (RunLimits(tool_calls=2), ("1", "add", '{"a": 1, "b": 2}')),
        (RunLimits(timeout=0.02), ("1", "hangs", "{}")),
    ):
        client = ReplayChatCompletionClient([calls(wanted)] * 5)
        with pytest.raises(RunStopped) as caught:
            await run_scope(
                "job",
                lambda client=client: tool_agent_caller_loop(runtime, TOOLS, client, QUESTION, SCHEMA),  # type: ignore[misc]
                limits=limits,
            )
        ends.append(caught.value.reason)

    assert ends == ["limit reached: tool_calls (2 of 2)", "limit reached: timeout (0.02 s)"]
    await runtime.stop_when_idle()
    assert runtime.statistics().running == []
