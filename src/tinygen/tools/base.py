"""What a tool is, and the classes to derive one's own from."""

from __future__ import annotations

from contextlib import aclosing

from .. import codec
from ..cancellation import CancellationToken
from ..component import Component
from ..errors import ConfigError, DecodeError, ToolError, did_you_mean
from .bounds import bounded, bounded_stream
from .results import MAX_OUTPUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
    from typing import Any, Generic, TypeVar

    from ..models import ToolSchema

    ArgsT = TypeVar("ArgsT")
    ReturnT = TypeVar("ReturnT")
    StreamT = TypeVar("StreamT")
    StateT = TypeVar("StateT")
else:
    from ..component import Subscripted as Generic  # stands in for `typing.Generic`

    ArgsT = ReturnT = StreamT = StateT = None


_NOTHING: Any = object()


class BaseTool(Component, Generic[ArgsT, ReturnT]):
    """Base of tools that are classes. A subclass defines `run`.

        class Add(BaseTool[Numbers, int]):
            def __init__(self) -> None:
                super().__init__(Numbers, int, "add", "Adds two numbers.")

            async def run(self, args: Numbers, cancellation_token: CancellationToken) -> int:
                return args.a + args.b

    Args:
        args_type: what `run` takes: a dataclass, TypedDict or pydantic model.
        return_type: what `run` returns.
        name: what the model calls it.
        description: what the model is told of it.
        strict: promise the provider that every argument is always given; none may have a default then.
    """

    component_type = "tool"
    timeout: float | None = None  # seconds a call may take
    max_output = MAX_OUTPUT  # characters a model gets to read of a result

    def __init__(
        self, args_type: type[ArgsT], return_type: type[ReturnT], name: str, description: str, strict: bool = False
    ) -> None:
        self._args_type: Any = args_type
        self._return_type: Any = return_type
        self._name = name
        self._description: str | None = description
        self._strict = strict
        self._schema: ToolSchema | None = None
        if strict:
            check_strict(name, self._parameters())

    @property
    def name(self) -> str:
        """What the model calls it."""
        return self._name

    @property
    def description(self) -> str:
        """What the model is told of it."""
        return self._description or ""

    @property
    def schema(self) -> ToolSchema:
        """What the model is told: name, description, parameters, strict. To be read only."""
        if self._schema is None:
            self._schema = {
                "name": self.name,
                "description": self.description,
                "parameters": self._parameters(),
                "strict": self._strict,
            }
        return self._schema

    def args_type(self) -> type[ArgsT]:
        """What `run` takes."""
        return self._args_type  # type: ignore[no-any-return]

    def return_type(self) -> type[ReturnT]:
        """What `run` returns."""
        return self._return_type  # type: ignore[no-any-return]

    def state_type(self) -> Any:
        """The type of its state, if it has one."""
        return None

    async def run(self, args: ArgsT, cancellation_token: CancellationToken) -> ReturnT:
        """Do what the tool is for."""
        raise NotImplementedError(f"{type(self).__name__} must define run()")

    async def run_json(
        self, args: Mapping[str, Any], cancellation_token: CancellationToken | None = None, call_id: str | None = None
    ) -> Any:
        """Call it with JSON data.

        Raises `DecodeError` if that does not fit, `ToolError` when its time is up, and what the tool raises.
        """
        call = self.run(self._decoded(args), cancellation_token or CancellationToken())
        return await bounded(call, self.name, self.timeout, cancellation_token)

    def return_value_as_string(self, value: Any) -> str:
        """What the model reads of a return value: text as it is, "None" for None, anything else as JSON."""
        return value if isinstance(value, str) else "None" if value is None else codec.dumps(value)

    async def save_state_json(self) -> Mapping[str, Any]:
        """Its state as JSON data."""
        return {}

    async def load_state_json(self, state: Mapping[str, Any]) -> None:
        """Replace its state by a saved one."""

    async def reset_state(self) -> None:
        """Forget what it remembers; the agent whose tool it is was reset."""

    async def checkpoint(self) -> Callable[[], Awaitable[None]]:
        """Mark this moment; the function returned goes back to it. Used when a call is suspended."""
        state = codec.encode(await self.save_state_json())

        async def restore() -> None:
            await self.load_state_json(state)

        return restore

    def _decoded(self, args: Mapping[str, Any]) -> ArgsT:
        told: Any = self.schema.get("parameters", {})
        if isinstance(args, dict) and told.get("additionalProperties") is False:  # which pydantic would pass over
            for key in args:
                if key not in told["properties"]:
                    hint = did_you_mean(str(key), told["properties"])
                    raise DecodeError("arguments", f"unexpected key {key!r:.80}{hint}")
        return codec.decode(self._args_type, args, mode="arguments", path="arguments")  # type: ignore[no-any-return]

    def _parameters(self) -> Any:
        schema = codec.schema(self._args_type)
        anything = "properties" not in schema  # as of a plain dict
        return {"type": "object", "properties": {}, "required": [], "additionalProperties": anything} | schema


class BaseToolWithState(BaseTool[ArgsT, ReturnT], Generic[ArgsT, ReturnT, StateT]):
    """Base of tools whose state is a type of yours. A subclass defines `run`, `save_state` and `load_state`."""

    def __init__(
        self,
        args_type: type[ArgsT],
        return_type: type[ReturnT],
        state_type: type[StateT],
        name: str,
        description: str,
    ) -> None:
        super().__init__(args_type, return_type, name, description)
        self._state_type = state_type

    def state_type(self) -> type[StateT]:
        return self._state_type

    def save_state(self) -> StateT:
        """Its state."""
        raise NotImplementedError(f"{type(self).__name__} must define save_state()")

    def load_state(self, state: StateT) -> None:
        """Replace its state."""
        raise NotImplementedError(f"{type(self).__name__} must define load_state()")

    async def save_state_json(self) -> Mapping[str, Any]:
        return codec.encode(self.save_state())  # type: ignore[no-any-return]

    async def load_state_json(self, state: Mapping[str, Any]) -> None:
        """Replace its state by a saved one. Raises `DecodeError`."""
        self.load_state(codec.decode(self._state_type, state, mode="state"))


class BaseStreamTool(BaseTool[ArgsT, ReturnT], Generic[ArgsT, StreamT, ReturnT]):
    """Base of tools that say something while they work. A subclass defines `run_stream`."""

    def run_stream(self, args: ArgsT, cancellation_token: CancellationToken) -> AsyncGenerator[StreamT | ReturnT, None]:
        """Do what the tool is for; the last item is the return value."""
        raise NotImplementedError(f"{type(self).__name__} must define run_stream()")

    async def run(self, args: ArgsT, cancellation_token: CancellationToken) -> ReturnT:
        """Do what the tool is for, in silence."""
        last: Any = _NOTHING
        async with aclosing(self.run_stream(args, cancellation_token)) as stream:
            async for item in stream:
                last = item
        if last is _NOTHING:
            raise ToolError(f"the stream of tool {self.name!r} ended without a result")
        return last  # type: ignore[no-any-return]

    async def run_json_stream(
        self, args: Mapping[str, Any], cancellation_token: CancellationToken | None = None, call_id: str | None = None
    ) -> AsyncGenerator[StreamT | ReturnT, None]:
        """`run_stream` with JSON data; raises what `run_json` does."""
        work = self.run_stream(self._decoded(args), cancellation_token or CancellationToken())
        async with aclosing(bounded_stream(work, self.name, self.timeout, cancellation_token)) as stream:
            async for item in stream:
                yield item


def check_strict(name: str, parameters: Mapping[str, Any]) -> None:
    """Refuse parameters that need not be given."""
    optional = [each for each in parameters["properties"] if each not in parameters.get("required", ())]
    if optional:
        raise ConfigError(
            f"tool {name!r} is strict, so its arguments must have no defaults; optional: {', '.join(optional)}"
        )
