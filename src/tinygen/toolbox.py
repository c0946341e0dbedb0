"""What an assistant's model may call: the tools of its workbenches, and its handoffs to other agents."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from .errors import ConfigError, ProtocolError
from .journal import effect
from .messages import FunctionExecutionResult, Record
from .tools import FunctionTool, StaticStreamWorkbench, ToolResult, Workbench, as_tool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from .cancellation import CancellationToken
    from .messages import FunctionCall
    from .models import ChatCompletionClient, ToolSchema
    from .tools import BaseTool


class Handoff(Record):
    """A handoff an agent can make: its model calls the tool `name` to hand over to `target`.

    Left out, `description`, `name` and `message` are made from the target's name.
    """

    target: str
    description: str = ""
    name: str = ""
    message: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            self.name = f"transfer_to_{self.target}".lower()
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
        made = [as_tool(tool, f"tools[{at}] of {agent!r}") for at, tool in enumerate(tools or ())]
        self.workbenches: list[Workbench]
        if workbench is not None:
            self.workbenches = [workbench] if isinstance(workbench, Workbench) else list(workbench)
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
        names = [tool.name for tool in made]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"agent {agent!r} has two tools named {name!r}")
            if name in self.handoffs or any(name == handoff.target for handoff in self.handoffs.values()):
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
        if not self._schemas or any(a is not b for a, b in zip(listed, self._listed, strict=False)):
            self._listed = listed
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
        return isinstance(workbench, StaticStreamWorkbench) and workbench.streams(name)

    async def call(self, call: FunctionCall, token: CancellationToken, say: Callable[[Any], None] | None) -> Any:
        """Call a tool; whatever goes wrong in it becomes a result for the model."""
        if call.name in self.handoff_tools:
            return await self._hand_off(call, token)
        workbench = self._owners.get(call.name)
        if workbench is None:
            known = ", ".join(sorted({*self._owners, *self.handoffs})) or "none"
            text = f"Error: tool {call.name[:64]!r} not found in any workbench; known tools: {known[:400]}"
            return FunctionExecutionResult(content=text, name=call.name, call_id=call.id, is_error=True)

        async def do() -> FunctionExecutionResult:
            result = await self._call(workbench, call, token, say)
            return FunctionExecutionResult(
                content=result.to_text(), name=call.name, call_id=call.id, is_error=result.is_error
            )

        request = {"name": call.name, "arguments": call.arguments}
        return await effect("tool", request, do, FunctionExecutionResult, name=call.name)

    async def _call(
        self, workbench: Workbench, call: FunctionCall, token: CancellationToken, say: Callable[[Any], None] | None
    ) -> ToolResult:
        try:
            if say is None or not isinstance(workbench, StaticStreamWorkbench):
                return await workbench.call_json(call.name, call.arguments, token, call.id)
            async with aclosing(workbench.call_json_stream(call.name, call.arguments, token, call.id)) as stream:
                async for item in stream:
                    if isinstance(item, ToolResult):
                        return item
                    say(item)
            raise ProtocolError(f"tool {call.name!r} ended without a result")
        except asyncio.CancelledError:
            if token.is_cancelled():
                raise
            return ToolResult.error(call.name, f"tool {call.name!r} was cancelled from inside")
        except Exception as error:  # noqa: BLE001 - a workbench of the user's: the model learns of it
            return ToolResult.error(call.name, error)

    async def _hand_off(self, call: FunctionCall, token: CancellationToken) -> FunctionExecutionResult:
        tool = self.handoff_tools[call.name]
        content = tool.return_value_as_string(await tool.run_json({}, token))
        return FunctionExecutionResult(content=content, name=call.name, call_id=call.id, is_error=False)

    async def save_state(self) -> list[Any]:
        kept = [workbench for workbench in self.workbenches if getattr(workbench, "renewable", False)]
        states = [dict(await workbench.save_state()) for workbench in kept]
        return states if any(_says_something(state) for state in states) else []

    async def load_state(self, states: Sequence[Mapping[str, Any]]) -> None:
        kept = [workbench for workbench in self.workbenches if getattr(workbench, "renewable", False)]
        for workbench, state in zip(kept, states, strict=False):
            await workbench.load_state(state)

    async def reset(self) -> None:
        for workbench in self.workbenches:
            await workbench.reset()

    async def stop(self) -> None:
        for workbench in self.workbenches:
            await workbench.stop()


def _says_something(state: Mapping[str, Any]) -> bool:
    return any(value for key, value in state.items() if key not in ("type", "version"))
