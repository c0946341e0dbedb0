"""Tools behind an actor: an agent that calls them, and the loop of one that lets a model choose what to call."""

from __future__ import annotations

from functools import partial

from . import codec
from .branches import fan_out
from .errors import (
    ConfigError,
    DecodeError,
    InvalidToolArgumentsException,
    ToolException,
    ToolExecutionException,
    ToolNotFoundException,
    did_you_mean,
)
from .journal import effect
from .messages import AssistantMessage, FunctionCall, FunctionExecutionResult, FunctionExecutionResultMessage
from .models import ask
from .routed import RoutedAgent, rpc
from .tools import as_tool
from .tools.results import error_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from .actors import AgentRuntime, BaseAgent, MessageContext
    from .addresses import AgentId
    from .cancellation import CancellationToken
    from .messages import LLMMessage
    from .models import ChatCompletionClient, ToolSchema
    from .tools import Tool


class ToolAgent(RoutedAgent):
    """An agent that calls the tool that a `FunctionCall` names.

    What goes wrong is raised at the sender: `ToolNotFoundException`, `InvalidToolArgumentsException`,
    `ToolExecutionException`.
    """

    def __init__(self, description: str, tools: Sequence[Tool | Callable[..., Any]]) -> None:
        super().__init__(description)
        self._tools = {tool.name: tool for tool in map(as_tool, tools)}
        if len(self._tools) < len(tools):
            raise ConfigError(
                f"a ToolAgent needs tools of different names, not {[as_tool(each).name for each in tools]}"
            )

    @property
    def tools(self) -> list[Tool]:
        return list(self._tools.values())

    @rpc
    async def handle_function_call(self, message: FunctionCall, ctx: MessageContext) -> FunctionExecutionResult:
        tool = self._tools.get(message.name)
        if tool is None:
            hint = did_you_mean(message.name[:64], self._tools)
            raise ToolNotFoundException(
                message.id, f"Error: there is no tool {message.name[:64]!r}{hint}", message.name
            )
        failure: ToolException | None = None

        async def call() -> FunctionExecutionResult:
            nonlocal failure
            try:
                return _result(message, await _call(tool, message, ctx.cancellation_token))
            except ToolException as error:  # recorded as a result, so that a run executed again does not call again
                failure = error
                return _result(message, error.content, is_error=True)

        request = {"name": message.name, "arguments": message.arguments}
        result = await effect("tool", request, call, FunctionExecutionResult, name=message.name)
        if result.is_error:
            raise failure or ToolExecutionException(message.id, result.content, message.name)
        return result


async def _call(tool: Tool, call: FunctionCall, token: CancellationToken) -> str:
    try:
        arguments = codec.loads(call.arguments or "{}")
        if not isinstance(arguments, dict):
            raise DecodeError("arguments", f"expected a JSON object, found a {type(arguments).__name__}")
        return tool.return_value_as_string(await tool.run_json(arguments, token, call.id))
    except DecodeError as error:
        raise InvalidToolArgumentsException(call.id, f"Error: {error}", call.name) from error
    except (Exception, SystemExit) as error:
        raise ToolExecutionException(call.id, f"Error: {error_text(error)}", call.name) from error


async def tool_agent_caller_loop(
    caller: BaseAgent | AgentRuntime,
    tool_agent_id: AgentId,
    model_client: ChatCompletionClient,
    input_messages: Sequence[LLMMessage],
    tool_schema: Sequence[Any | ToolSchema],
    cancellation_token: CancellationToken | None = None,
    caller_source: str = "assistant",
    max_tool_iterations: int = 25,
) -> list[LLMMessage]:
    """Ask the model, have the tool agent call what it wants called, and ask again, until it answers with text.

    Returns what came after `input_messages`. What goes wrong with a tool is told to the model. After
    `max_tool_iterations` rounds of calls it is asked once more, without tools.
    """
    generated: list[LLMMessage] = []
    for left in range(max_tool_iterations, -1, -1):
        tools = tool_schema if left else ()
        said = await ask(
            model_client, [*input_messages, *generated], tools=tools, cancellation_token=cancellation_token
        )
        content = said.content or ""
        generated.append(
            AssistantMessage(
                content=content, thought=said.thought, source=caller_source, provider_data=said.provider_data
            )
        )
        if isinstance(content, str):
            break
        if tools:
            call = partial(_called, caller, tool_agent_id, cancellation_token)
            results = await fan_out([(f"tool {each.name[:64]}", partial(call, each)) for each in content])
        else:  # what it was not offered
            results = [_result(each, "Error: no more tools can be called", is_error=True) for each in content]
        generated.append(FunctionExecutionResultMessage(content=results))
    return generated


async def _called(
    caller: BaseAgent | AgentRuntime, tool_agent: AgentId, token: CancellationToken | None, call: FunctionCall
) -> FunctionExecutionResult:
    try:
        result: FunctionExecutionResult = await caller.send_message(call, tool_agent, cancellation_token=token)
    except ToolException as error:
        return _result(call, error.content, is_error=True)
    return result


def _result(call: FunctionCall, content: str, *, is_error: bool = False) -> FunctionExecutionResult:
    return FunctionExecutionResult(content=content, name=call.name, call_id=call.id, is_error=is_error)
