"""Workbenches: tools that belong together."""

from __future__ import annotations

from contextlib import aclosing

from .. import codec
from ..component import Component
from ..errors import ConfigError, DecodeError, StateError, Suspended, ToolError, did_you_mean
from ..messages import Image
from ..records import Record
from ..run import current_scope
from .base import BaseTool
from .functions import as_tool
from .results import (
    MAX_NAME,
    MAX_OUTPUT,
    MAX_PROBLEM,
    ImageResultContent,
    TextResultContent,
    ToolResult,
    cut,
    error_text,
    parse_arguments,
    shortened,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
    from typing import Any, TypeGuard

    from typing_extensions import Self

    from ..cancellation import CancellationToken
    from ..models import Tool, ToolSchema

_NOTHING: Any = object()


class ToolOverride(Record):
    """Another name or description for a tool in a workbench."""

    name: str | None = None
    description: str | None = None


class Workbench(Component):
    """Tools that belong together, and perhaps share a connection. A subclass defines `list_tools` and `call_tool`."""

    component_type = "workbench"

    async def list_tools(self) -> list[ToolSchema]:
        """The schemas of the tools there are now."""
        raise NotImplementedError(f"{type(self).__name__} must define list_tools()")

    async def call_tool(
        self,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        cancellation_token: CancellationToken | None = None,
        call_id: str | None = None,
    ) -> ToolResult:
        """Call a tool. What goes wrong in the call is a result with `is_error`."""
        raise NotImplementedError(f"{type(self).__name__} must define call_tool()")

    async def call_json(
        self,
        name: str,
        arguments: str,
        cancellation_token: CancellationToken | None = None,
        call_id: str | None = None,
    ) -> ToolResult:
        """`call_tool` with the arguments as a model wrote them."""
        try:
            parsed = parse_arguments(arguments)
        except DecodeError as error:
            return ToolResult.error(name, error)
        return await self.call_tool(name, parsed, cancellation_token, call_id)

    async def start(self) -> None:
        """Get ready."""

    async def stop(self) -> None:
        """Let go of what it holds."""

    async def reset(self) -> None:
        """Back to the state after the start."""

    async def save_state(self) -> Mapping[str, Any]:
        """Its state as JSON data."""
        return {}

    async def load_state(self, state: Mapping[str, Any]) -> None:
        """Replace its state by a saved one, whole or not at all. Raises `StateError`."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


class StaticWorkbench(Workbench):
    """A fixed set of tools.

    Args:
        tools: tools or functions.
        tool_overrides: tool name -> the name or description it is offered under instead.
    """

    @classmethod
    def _config_types(cls) -> Mapping[str, Any]:
        return {"tool_overrides": dict[str, ToolOverride]}

    def __init__(
        self,
        tools: Sequence[Tool | Callable[..., Any]],
        tool_overrides: Mapping[str, ToolOverride] | None = None,
    ) -> None:
        made = [as_tool(tool, f"tools[{at}]") for at, tool in enumerate(tools)]
        self._tools = {tool.name: tool for tool in made}
        self._overrides = dict(tool_overrides or {})
        self._offered: dict[str, Tool] = {}
        self._schemas: list[ToolSchema] | None = None
        for name in self._overrides:
            if name not in self._tools:
                hint = did_you_mean(name, self._tools)
                raise ConfigError(f"tool_overrides names {name!r}, which is no tool here{hint}")
        for tool in made:
            override = self._overrides.get(tool.name)
            name = (override and override.name) or tool.name
            if name in self._offered:
                how = "FunctionTool(function, name=...), or tool_overrides of a workbench"
                raise ConfigError(f"two tools are named {name!r}; give one another name: {how}")
            self._offered[name] = tool

    async def list_tools(self) -> list[ToolSchema]:
        """The schemas of the tools; the same list each time."""
        if self._schemas is None:
            self._schemas = [self._schema(name, tool) for name, tool in self._offered.items()]
        return self._schemas

    async def call_tool(
        self,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        cancellation_token: CancellationToken | None = None,
        call_id: str | None = None,
    ) -> ToolResult:
        tool = self._offered.get(name)
        if tool is None:
            return self._unknown(name)
        undo = await tool.checkpoint() if _takes_back(tool) else _nothing
        try:
            value = await tool.run_json({} if arguments is None else arguments, cancellation_token, call_id)
            return _result_of(tool, name, value)
        except Suspended:
            await undo()
            raise
        except (Exception, SystemExit) as error:  # the model learns of it
            return ToolResult.error(name, error)

    async def reset(self) -> None:
        """Let the tools forget what they remember."""
        for tool in self._tools.values():
            if isinstance(tool, BaseTool):
                await tool.reset_state()

    async def save_state(self) -> Mapping[str, Any]:
        """The state of the tools that have one."""
        return {
            "type": "StaticWorkbenchState",
            "tools": {name: await _state_of(tool) for name, tool in self._tools.items() if _keeps(tool)},
        }

    async def load_state(self, state: Mapping[str, Any]) -> None:
        """Replace the state of the tools, of all or of none. Raises `StateError`."""
        saved = self._checked(state)
        before = {name: await _state_of(self._tools[name]) for name in saved if _keeps(self._tools[name])}
        try:
            for name in before:
                await self._tools[name].load_state_json(codec.encode(saved[name]))
        except Exception as error:  # raised below, when the tools are again what they were
            for name, tool_state in before.items():
                await self._tools[name].load_state_json(tool_state)
            raise StateError("$.tools", f"the state of {name!r} cannot be loaded: {error_text(error)}") from error

    def _checked(self, state: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
        tools = state.get("tools") if isinstance(state, dict) else None
        if not isinstance(tools, dict) or set(state) != {"type", "tools"} or state["type"] != "StaticWorkbenchState":
            raise StateError("$", f"expected the state of a StaticWorkbench, not {state!r:.80}")
        for name, tool_state in tools.items():
            if name not in self._tools:
                raise StateError("$.tools", f"there is no tool {name!r:.80} here{did_you_mean(name, self._tools)}")
            if not isinstance(tool_state, dict):
                raise StateError(f"$.tools.{name}", f"expected an object, not {tool_state!r:.80}")
        return tools

    def _schema(self, name: str, tool: Tool) -> ToolSchema:
        override = self._overrides.get(tool.name)
        if override is None:
            return tool.schema
        schema: ToolSchema = {**tool.schema, "name": name}
        if override.description is not None:
            schema["description"] = override.description
        return schema

    def _unknown(self, name: str) -> ToolResult:
        known = ", ".join(self._offered) or "none"
        text = f"tool {shortened(name, MAX_NAME)!r} is not known; known tools: {known}"
        return ToolResult.error(name, shortened(text, MAX_PROBLEM))


class StreamWorkbench(Workbench):
    """A workbench whose tools may say something while they work."""

    def call_tool_stream(
        self,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        cancellation_token: CancellationToken | None = None,
        call_id: str | None = None,
    ) -> AsyncGenerator[Any, None]:
        """What the tool says on the way, and the `ToolResult` last."""
        raise NotImplementedError(f"{type(self).__name__} must define call_tool_stream()")

    async def call_json_stream(
        self,
        name: str,
        arguments: str,
        cancellation_token: CancellationToken | None = None,
        call_id: str | None = None,
    ) -> AsyncGenerator[Any, None]:
        """`call_tool_stream` with the arguments as a model wrote them."""
        try:
            parsed = parse_arguments(arguments)
        except DecodeError as error:
            yield ToolResult.error(name, error)
            return
        async with aclosing(self.call_tool_stream(name, parsed, cancellation_token, call_id)) as stream:
            async for item in stream:
                yield item


class StaticStreamWorkbench(StaticWorkbench, StreamWorkbench):
    """A fixed set of tools, of which some may stream."""

    def streams(self, name: str) -> bool:
        """Whether this tool says something while it works, or a subclass decides that."""
        if type(self).call_tool_stream is not StaticStreamWorkbench.call_tool_stream:
            return True
        return hasattr(self._offered.get(name), "run_json_stream") and not self._guarded()

    async def call_tool_stream(
        self,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        cancellation_token: CancellationToken | None = None,
        call_id: str | None = None,
    ) -> AsyncGenerator[Any, None]:
        tool: Any = self._offered.get(name)
        if not hasattr(tool, "run_json_stream") or self._guarded():
            yield await self.call_tool(name, arguments, cancellation_token, call_id)
            return
        undo = await tool.checkpoint() if _takes_back(tool) else _nothing
        expected = tool.return_type()
        # else an item is known to be the return value only when the stream ends; an int will do for a float
        told_apart = type(expected) is type and expected is not float
        held = _NOTHING
        try:
            stream = tool.run_json_stream({} if arguments is None else arguments, cancellation_token, call_id)
            async with aclosing(stream):
                async for item in stream:
                    if held is not _NOTHING:
                        yield held
                    held = item
                    if told_apart and not isinstance(item, expected):
                        held = _NOTHING
                        yield item
            value, held = held, _NOTHING
            if value is _NOTHING:
                raise ToolError(f"the stream of tool {name!r} ended without a result")
            result = _result_of(tool, name, value)
        except Suspended:
            await undo()
            raise
        except (Exception, SystemExit) as error:  # the model learns of it
            if held is not _NOTHING:
                yield held
            result = ToolResult.error(name, error)
        yield result

    def _guarded(self) -> bool:
        """Whether a subclass puts something before every call, which streaming must not go round."""
        cls = type(self)
        streams = cls.call_tool_stream is not StaticStreamWorkbench.call_tool_stream
        return cls.call_tool is not StaticWorkbench.call_tool and not streams


def _takes_back(tool: Tool) -> TypeGuard[BaseTool[Any, Any]]:
    """Whether what a call changes in the tool may have to be taken back: only in a run is it executed again."""
    return isinstance(tool, BaseTool) and _keeps(tool) and current_scope() is not None


async def _nothing() -> None:
    return None


def _keeps(tool: Tool) -> bool:
    """Whether a tool has state to save."""
    return getattr(type(tool), "save_state_json", BaseTool.save_state_json) is not BaseTool.save_state_json


async def _state_of(tool: Tool) -> dict[str, Any]:
    """The state of a tool as it is now, whatever the tool does with it later."""
    return codec.encode(await tool.save_state_json())  # type: ignore[no-any-return]


def _result_of(tool: Tool, name: str, value: Any) -> ToolResult:
    if isinstance(value, ToolResult):
        return value
    parts = value if isinstance(value, (list, tuple)) and any(isinstance(part, Image) for part in value) else [value]
    limit = getattr(tool, "max_output", MAX_OUTPUT)
    contents: list[TextResultContent | ImageResultContent] = []
    for part in parts:
        if isinstance(part, Image):
            contents.append(ImageResultContent(content=part))
        else:
            contents.append(TextResultContent(content=cut(tool.return_value_as_string(part), limit)))
    return ToolResult(name=name, result=contents)
