"""What an assistant's model may call: the tools of its workbenches, and its handoffs to other agents."""

from __future__ import annotations

import asyncio
import logging
import re
from contextlib import aclosing
from functools import partial

from .errors import ConfigError
from .journal import effect, effect_stream
from .messages import BaseAgentEvent, BaseChatMessage, FunctionExecutionResult
from .records import Record
from .tools import FunctionTool, StaticStreamWorkbench, StaticWorkbench, StreamWorkbench, ToolResult, Workbench, as_tool
from .tools.results import parse_arguments

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
    from typing import Any

    from .cancellation import CancellationToken
    from .messages import FunctionCall
    from .models import ChatCompletionClient, ToolSchema
    from .tools import BaseTool

_log = logging.getLogger("tinygen.agents")


class Handoff(Record, tagged=False):
    """A handoff an agent can make: its model calls the tool `name` to hand over to `target`.

    Left out, `description`, `name` and `message` are made from the target's name.
    """

    target: str
    description: str = ""
    name: str = ""
    message: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.target, str) or not self.target:
            raise ConfigError(f"a handoff's target must be the name of an agent, not {self.target!r:.80}")
        if not self.name:
            self.name = re.sub(r"[^a-z0-9_]", "_", f"transfer_to_{self.target}".lower())  # what providers accept
        elif not self.name.isidentifier():
            raise ConfigError(f"a handoff's name must be a Python identifier, not {self.name!r}")
        self.description = self.description or f"Handoff to {self.target}."
        self.message = self.message or f"Transferred to {self.target}, adopting the role of {self.target} immediately."

    @property
    def handoff_tool(self) -> BaseTool[Any, Any]:
        """The tool the model is offered; what it returns is the content of the handoff message."""
        message = self.message

        def hand_off() -> str:
            return message

        return FunctionTool(hand_off, name=self.name, description=self.description, strict=True)


class Toolbox:
    """What an assistant's model may call: the tools of its workbenches, and its handoffs."""

    def __init__(
        self,
        agent: str,
        client: ChatCompletionClient,
        tools: Sequence[Any] | None,
        workbench: Workbench | Sequence[Workbench] | None,
        handoffs: Sequence[Handoff | str] | None,
    ) -> None:
        if tools is not None and workbench is not None:
            raise ConfigError("Tools cannot be used with a workbench.")
        if not isinstance(tools, (list, tuple, type(None))):
            raise ConfigError(f"tools of {agent!r} must be a list, not {tools!r:.80}")
        if isinstance(handoffs, str):
            raise ConfigError(f"handoffs of {agent!r} must be a list, not {handoffs!r:.80}")
        made = [as_tool(tool, f"tools[{at}] of {agent!r}") for at, tool in enumerate(tools or ())]
        self.workbenches: list[Workbench]
        if workbench is not None:
            alone = isinstance(workbench, Workbench) or not hasattr(workbench, "__iter__")
            self.workbenches = [workbench] if alone else list(workbench)  # type: ignore[list-item, arg-type]
            for each in self.workbenches:
                if not isinstance(each, Workbench):
                    raise ConfigError(f"workbench of {agent!r} must be a Workbench or several, not {each!r:.80}")
        else:
            self.workbenches = [StaticStreamWorkbench(made)] if made else []
        self.handoffs: dict[str, Handoff] = {}
        self.handoff_tools: dict[str, Any] = {}
        for handoff in handoffs or ():
            handoff = Handoff(target=handoff) if isinstance(handoff, str) else handoff
            if not isinstance(handoff, Handoff):
                raise ConfigError(f"handoffs of {agent!r} must be names or Handoff objects, not {handoff!r}")
            if handoff.name in self.handoffs:
                raise ConfigError(f"agent {agent!r} has two handoffs named {handoff.name!r}")
            self.handoffs[handoff.name] = handoff
            self.handoff_tools[handoff.name] = handoff.handoff_tool
        taken = {*self.handoffs, *(handoff.target for handoff in self.handoffs.values())}
        for name in (tool.name for tool in made):
            if name in taken:
                raise ConfigError(f"agent {agent!r} has a tool and a handoff named {name!r}")
        if (tools is not None or handoffs or workbench) and not client.model_info["function_calling"]:
            raise ConfigError(f"the model of agent {agent!r} does not call functions; give it no tools or handoffs")
        self._listed: list[Any] = []
        self._schemas: list[Any] = []
        self._owners: dict[str, Workbench] = {}

    async def schemas(self) -> Sequence[ToolSchema]:
        """What the model is offered now; a workbench may have changed its mind."""
        if not self.workbenches and not self.handoffs:
            return ()
        listed = [await workbench.list_tools() for workbench in self.workbenches]
        if not self._schemas or listed != self._listed:
            self._listed = [schemas[:] for schemas in listed]
            self._owners = {}
            self._schemas = []
            for workbench, schemas in zip(self.workbenches, listed, strict=True):
                for schema in schemas:
                    self._owners.setdefault(schema["name"], workbench)
                    self._schemas.append(schema)
            self._schemas.extend(tool.schema for tool in self.handoff_tools.values())
        return self._schemas

    def streams(self, name: str) -> bool:
        """Whether this tool says something while it works."""
        workbench = self._owners.get(name)
        if isinstance(workbench, StaticStreamWorkbench):
            return workbench.streams(name)
        return isinstance(workbench, StreamWorkbench)

    async def call(
        self,
        call: FunctionCall,
        token: CancellationToken,
        say: Callable[[Any], None] | None = None,
        kept: list[Any] | None = None,
    ) -> Any:
        """Call a tool; whatever goes wrong in it becomes a result for the model.

        What it says goes to `say` as it comes, and is in `kept` in the end, in the order in which it stays.
        """
        if call.name in self.handoff_tools:
            try:
                return await self._hand_off(call, token)
            except Exception as error:  # noqa: BLE001 - a handoff tool of the user's: the model learns of it
                return _told(call, _failed(call, token, error))
        workbench = self._owners.get(call.name)
        if workbench is None:
            known = ", ".join(sorted({*self._owners, *self.handoffs})) or "none"
            text = f"Error: tool {call.name[:64]!r} not found in any workbench; known tools: {known[:400]}"
            return _told(call, ToolResult.error(call.name, text))
        name, request = call.name, {"name": call.name, "arguments": call.arguments}
        if say is None or not isinstance(workbench, StreamWorkbench) or not self.streams(name):
            make = partial(self._call, workbench, call, token)
            return await effect("tool", request, make, FunctionExecutionResult, name=name)
        stream = partial(self._call_stream, workbench, call, token)
        result: Any = None
        made = effect_stream("tool", request, stream, FunctionExecutionResult, name=name, kept=kept)
        async with aclosing(made) as items:
            async for result in items:
                if not isinstance(result, FunctionExecutionResult):
                    say(result)
        return result

    async def _call(
        self, workbench: Workbench, call: FunctionCall, token: CancellationToken
    ) -> FunctionExecutionResult:
        try:
            result = await workbench.call_json(call.name, call.arguments, token, call.id)
        except (Exception, asyncio.CancelledError) as error:  # a workbench of the user's: the model learns of it
            result = _failed(call, token, error)
        return _told(call, result)

    async def _call_stream(
        self, workbench: StreamWorkbench, call: FunctionCall, token: CancellationToken
    ) -> AsyncGenerator[Any, None]:
        """The messages and events of the tool, and the result last."""
        result: ToolResult | None = None
        try:
            async with aclosing(workbench.call_json_stream(call.name, call.arguments, token, call.id)) as stream:
                async for item in stream:
                    if isinstance(item, ToolResult):
                        result = item
                    elif isinstance(item, (BaseAgentEvent, BaseChatMessage)):
                        yield item
                    else:
                        _log.warning("tool %r said %.80r, which is neither message nor event", call.name, item)
        except (Exception, asyncio.CancelledError) as error:  # a workbench of the user's: the model learns of it
            result = _failed(call, token, error)
        yield _told(call, result or ToolResult.error(call.name, f"tool {call.name!r} ended without a result"))

    async def _hand_off(self, call: FunctionCall, token: CancellationToken) -> FunctionExecutionResult:
        tool = self.handoff_tools[call.name]
        takes = tool.schema.get("parameters", {}).get("properties")  # else models make something up to give it
        arguments = parse_arguments(call.arguments) if takes else {}
        content = tool.return_value_as_string(await tool.run_json(arguments, token, call.id))
        return FunctionExecutionResult(content=content, name=call.name, call_id=call.id, is_error=False)

    @property
    def kept(self) -> list[Workbench]:
        """The workbenches that sessions renew, and whose states they save."""
        return [workbench for workbench in self.workbenches if workbench.renewable]

    async def save_state(self) -> list[Any]:
        """The states of those that are kept; none if no one has something to say."""
        states = [dict(await workbench.save_state()) for workbench in self.kept]
        return states if any(map(_remembers, self.kept, states)) else []

    async def reset(self) -> None:
        for workbench in self.workbenches:
            await workbench.reset()

    async def stop(self) -> None:
        for workbench in self.workbenches:
            await workbench.stop()


def _failed(call: FunctionCall, token: CancellationToken, error: BaseException) -> ToolResult:
    """What the model learns of a call that raised. Raises `error` if that is our own cancellation."""
    if isinstance(error, asyncio.CancelledError):
        if token.is_cancelled():
            raise error
        return ToolResult.error(call.name, f"tool {call.name!r} was cancelled from inside")
    return ToolResult.error(call.name, error)


def _told(call: FunctionCall, result: ToolResult) -> FunctionExecutionResult:
    return FunctionExecutionResult(
        content=result.to_text(), name=call.name, call_id=call.id, is_error=result.is_error, images=result.images()
    )


def _remembers(workbench: Workbench, state: Mapping[str, Any]) -> bool:
    """Whether a workbench has something to say of itself, now or later."""
    if isinstance(workbench, StaticWorkbench):
        return bool(state.get("tools", True))
    return type(workbench).save_state is not Workbench.save_state
