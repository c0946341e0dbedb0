"""When a conversation ends: small conditions, combined by `&` and `|`.

A team asks its condition with the task and after every turn with what was said in it, and resets it when a run has
ended. What a condition counts is its state; it is saved, loaded and rolled back with the team's. No answer costs more
because the conversation is long.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from copy import copy
from inspect import isawaitable

from .clock import monotonic
from .component import Component
from .errors import ConfigError, DecodeError, StateError, TerminatedException, positive_int
from .journal import effect
from .messages import BaseChatMessage, HandoffMessage, StopMessage, TextMessage, ToolCallExecutionEvent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from typing import Any

    from .messages import BaseAgentEvent

    Messages = Sequence[BaseAgentEvent | BaseChatMessage]
    Undo = Callable[[], Awaitable[None]]

_VERSION = "1.0.0"
_CONTAINERS = (list, dict, set, deque)


class TerminationCondition(Component):
    """Base of all conditions. One of your own is a `check`; `counters` names the attributes it counts in.

        class Shouting(TerminationCondition):
            counters = ("loud",)
            loud = 0

            async def check(self, messages):
                self.loud += sum(message.to_text().isupper() for message in messages)
                return "Too loud" if self.loud > 2 else None

    A counter is plain data of the type it begins with on the class; None there may become anything. Conditions that
    override `terminated`, `__call__` and `reset` instead, as AutoGen's did, work too; those that keep more than plain
    data override `save_state` and `load_state`.
    """

    component_type = "termination"
    counters: tuple[str, ...] = ()
    _terminated = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in cls.counters:
            if not hasattr(cls, name):
                raise ConfigError(f"{cls.__name__} counts in {name!r}, which must begin with a value on the class")

    async def check(self, messages: Messages) -> str | None:
        """Why the conversation ends with these messages, which are new since the last call; None if it goes on."""
        raise NotImplementedError(f"{type(self).__name__} must define check(messages)")

    @property
    def terminated(self) -> bool:
        """Whether it has ended the conversation."""
        return self._terminated

    async def __call__(self, messages: Messages) -> StopMessage | None:
        """Judge new messages. Raises `TerminatedException` if it has ended the conversation already."""
        self._refuse_if_terminated()
        reason = await self.check(messages)
        if reason is None:
            return None
        self._terminated = True
        return StopMessage(content=reason, source=type(self).__name__)

    async def reset(self) -> None:
        """Begin anew."""
        for name in self._kept():
            self.__dict__.pop(name, None)

    async def save_state(self) -> dict[str, Any]:
        """What counts toward termination, as JSON data."""
        from . import codec

        values = {name.lstrip("_"): codec.encode(getattr(self, name)) for name in self._kept()}
        return {"type": f"{type(self).__name__}State", "version": _VERSION, **values}

    async def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `save_state` returned. Raises `StateError` and changes nothing if it does not fit."""
        for name, value in self._read(state).items():
            setattr(self, name, value)

    async def checkpoint(self) -> Undo:
        """Mark this moment; what is returned goes back to it."""
        before = {name: copy(each) if isinstance(each, _CONTAINERS) else each for name, each in vars(self).items()}

        async def undo() -> None:
            self.__dict__.clear()
            self.__dict__.update(before)

        return undo

    def __and__(self, other: TerminationCondition) -> TerminationCondition:
        return AndTerminationCondition(self, other) if isinstance(other, TerminationCondition) else NotImplemented

    def __or__(self, other: TerminationCondition) -> TerminationCondition:
        return OrTerminationCondition(self, other) if isinstance(other, TerminationCondition) else NotImplemented

    def _kept(self) -> tuple[str, ...]:
        """The attributes that are its state."""
        return ("_terminated", *self.counters)

    def _refuse_if_terminated(self) -> None:
        if self.terminated:
            raise TerminatedException(f"{type(self).__name__} has ended this conversation; call reset() to begin anew")

    def _read(self, state: Mapping[str, Any], *more: str) -> dict[str, Any]:
        """The attributes in `state`, which must hold them all and beside them only the keys `more`."""
        keys = {name.lstrip("_"): name for name in self._kept()}
        head = {"type": f"{type(self).__name__}State", "version": _VERSION}
        found = set(state) if isinstance(state, Mapping) else None
        if found != {*head, *keys, *more}:
            shown = repr(state) if found is None else f"the keys {sorted(map(str, found))}"
            raise StateError("$", f"expected an object with the keys {sorted((*head, *keys, *more))}, not {shown}")
        for key, expected in head.items():
            if state[key] != expected:
                raise StateError(f"$.{key}", f"expected {expected!r}, not {state[key]!r}")
        return {name: self._decoded(name, state[key], f"$.{key}") for key, name in keys.items()}

    def _decoded(self, name: str, value: Any, path: str) -> Any:
        from . import codec

        kind = object if getattr(type(self), name) is None else type(getattr(self, name))
        try:
            return codec.decode(kind, value, mode="state", path=path)
        except DecodeError as error:
            raise StateError(error.path, error.problem) from error


class _Combined(TerminationCondition):
    """Several conditions as one."""

    def __init__(self, *conditions: TerminationCondition) -> None:
        if not conditions or not all(isinstance(each, TerminationCondition) for each in conditions):
            raise ConfigError(f"{type(self).__name__} takes termination conditions, not {conditions!r}")
        self.conditions = conditions

    async def reset(self) -> None:
        await super().reset()
        for each in self.conditions:
            await each.reset()

    async def save_state(self) -> dict[str, Any]:
        return {**await super().save_state(), "conditions": [await each.save_state() for each in self.conditions]}

    async def load_state(self, state: Mapping[str, Any]) -> None:
        own, members = self._read(state, "conditions"), state["conditions"]
        if not isinstance(members, list) or len(members) != len(self.conditions):
            raise StateError("$.conditions", f"expected a list of {len(self.conditions)} states, not {members!r}")
        before = [await each.save_state() for each in self.conditions]
        index = 0
        try:
            for index, each in enumerate(self.conditions):
                await each.load_state(members[index])
        except BaseException as error:  # whatever it was, all are loaded or none; it is raised again
            for each, its in zip(self.conditions, before, strict=True):
                await each.load_state(its)
            if isinstance(error, StateError):
                raise StateError(f"$.conditions[{index}]{error.path[1:]}", error.problem) from error
            raise
        self.__dict__.update(own)

    async def checkpoint(self) -> Undo:
        undos = [await super().checkpoint(), *[await each.checkpoint() for each in self.conditions]]

        async def undo() -> None:
            for each in undos:
                await each()

        return undo

    async def _ask(self, messages: Messages) -> list[StopMessage]:
        """What those that still go on say, in declared order."""
        self._refuse_if_terminated()
        answers = [await each(messages) for each in self.conditions if not each.terminated]
        return [answer for answer in answers if answer is not None]

    def _kept(self) -> tuple[str, ...]:
        return self.counters


class AndTerminationCondition(_Combined):
    """Ends the conversation when all have, at once or one after the other; `a & b` makes one."""

    counters = ("_contents", "_sources")
    _contents = ""
    _sources = ""

    @property
    def terminated(self) -> bool:
        return all(each.terminated for each in self.conditions)

    async def __call__(self, messages: Messages) -> StopMessage | None:
        for stop in await self._ask(messages):
            self._contents = f"{self._contents}, {stop.content}" if self._contents else stop.content
            self._sources = f"{self._sources}, {stop.source}" if self._sources else stop.source
        return StopMessage(content=self._contents, source=self._sources) if self.terminated else None


class OrTerminationCondition(_Combined):
    """Ends the conversation as soon as one of several does; `a | b` makes one."""

    @property
    def terminated(self) -> bool:
        return any(each.terminated for each in self.conditions)

    async def __call__(self, messages: Messages) -> StopMessage | None:
        stops = await self._ask(messages)
        if not stops:
            return None
        contents, sources = [stop.content for stop in stops], [stop.source for stop in stops]
        return StopMessage(content=", ".join(contents), source=", ".join(sources))


class _Counting(TerminationCondition):
    """What it counts begins with 0 and grows."""

    def _decoded(self, name: str, value: Any, path: str) -> Any:
        count = super()._decoded(name, value, path)
        if count < 0:
            raise StateError(path, f"expected a number of at least 0, not {count!r}")
        return count


class StopMessageTermination(TerminationCondition):
    """Ends with a `StopMessage`."""

    async def check(self, messages: Messages) -> str | None:
        return "Stop message received" if any(isinstance(each, StopMessage) for each in messages) else None


class MaxMessageTermination(_Counting):
    """Ends when so many messages have been said, the task's among them.

    Args:
        max_messages: how many.
        include_agent_event: count events too.
    """

    counters = ("_count",)
    _count = 0

    def __init__(self, max_messages: int, include_agent_event: bool = False) -> None:
        self._max_messages = positive_int("max_messages", max_messages)
        self._include_agent_event = include_agent_event

    async def check(self, messages: Messages) -> str | None:
        counted = self._include_agent_event
        self._count += len(messages) if counted else sum(isinstance(each, BaseChatMessage) for each in messages)
        if self._count < self._max_messages:
            return None
        return f"Maximum number of messages {self._max_messages} reached, current message count: {self._count}"


class TextMentionTermination(TerminationCondition):
    """Ends when a text occurs in a message or an event.

    Args:
        text: matched as it is, upper and lower case told apart.
        sources: who must say it; None for anybody, the user who sets the task included.
    """

    def __init__(self, text: str, sources: Sequence[str] | None = None) -> None:
        self._text = _text("text", text)
        self._sources = None if sources is None else _names("sources", sources)

    async def check(self, messages: Messages) -> str | None:
        for message in messages:
            if (self._sources is None or message.source in self._sources) and self._text in message.to_text():
                return f"Text '{self._text}' mentioned"
        return None


class TokenUsageTermination(_Counting):
    """Ends when the messages have used so many tokens; at least one of the limits is needed."""

    counters = ("_prompt_tokens", "_completion_tokens")
    _prompt_tokens = 0
    _completion_tokens = 0

    def __init__(
        self,
        max_total_token: int | None = None,
        max_prompt_token: int | None = None,
        max_completion_token: int | None = None,
    ) -> None:
        limits = {"total": max_total_token, "prompt": max_prompt_token, "completion": max_completion_token}
        self._limits = {kind: positive_int(f"max_{kind}_token", n) for kind, n in limits.items() if n is not None}
        if not self._limits:
            raise ConfigError(
                "TokenUsageTermination needs max_total_token, max_prompt_token or max_completion_token, or several"
            )

    async def check(self, messages: Messages) -> str | None:
        for message in messages:
            if message.models_usage is not None:
                self._prompt_tokens += message.models_usage.prompt_tokens
                self._completion_tokens += message.models_usage.completion_tokens
        prompt, completion = self._prompt_tokens, self._completion_tokens
        used = {"total": prompt + completion, "prompt": prompt, "completion": completion}
        if all(used[kind] < limit for kind, limit in self._limits.items()):
            return None
        counts = ", ".join(f"{kind} token count: {count}" for kind, count in used.items())
        return f"Token usage limit reached, {counts}."


class HandoffTermination(TerminationCondition):
    """Ends with a handoff to `target`, which may be somebody outside the team."""

    def __init__(self, target: str) -> None:
        self._target = _text("target", target)

    async def check(self, messages: Messages) -> str | None:
        for message in messages:
            if isinstance(message, HandoffMessage) and message.target == self._target:
                return f"Handoff to {message.target} from {message.source} detected."
        return None


class TimeoutTermination(_Counting):
    """Ends with the turn in which the time is over, counted from construction or the last reset.

    A turn is not interrupted; `RunLimits(timeout=...)` does that.
    """

    counters = ("_elapsed",)

    def __init__(self, timeout_seconds: float) -> None:
        number = isinstance(timeout_seconds, (int, float)) and not isinstance(timeout_seconds, bool)
        if not number or not 0 < timeout_seconds < float("inf"):
            raise ConfigError(f"timeout_seconds must be a number of seconds above 0, not {timeout_seconds!r}")
        self._timeout_seconds = timeout_seconds
        self._elapsed = 0.0

    @property
    def _elapsed(self) -> float:
        return monotonic() - self._start

    @_elapsed.setter
    def _elapsed(self, seconds: float) -> None:
        self._start = monotonic() - seconds

    async def check(self, messages: Messages) -> str | None:
        async def over() -> bool:
            return self._elapsed >= self._timeout_seconds

        if await effect("clock", {"timeout_seconds": self._timeout_seconds}, over, bool):
            return f"Timeout of {self._timeout_seconds} seconds reached"
        return None

    async def reset(self) -> None:
        await super().reset()
        self._elapsed = 0.0


class ExternalTermination(TerminationCondition):
    """Ends with the turn in which `set` is called, from wherever; before a run, with the run's task."""

    counters = ("_requested",)
    _requested = False

    def set(self) -> None:
        """Ask for the end; holds until the condition is reset. Safe from any thread."""
        self._requested = True

    async def check(self, messages: Messages) -> str | None:
        async def requested() -> bool:
            return self._requested

        return "External termination requested" if await effect("external", None, requested, bool) else None

    async def checkpoint(self) -> Undo:
        terminated = self._terminated

        async def undo() -> None:  # of what the turn did; a request from outside stands
            self._terminated = terminated

        return undo


class SourceMatchTermination(TerminationCondition):
    """Ends when one of `sources` has said anything."""

    def __init__(self, sources: Sequence[str]) -> None:
        self._sources = _names("sources", sources)

    async def check(self, messages: Messages) -> str | None:
        for message in messages:
            if message.source in self._sources:
                return f"'{message.source}' answered"
        return None


class TextMessageTermination(TerminationCondition):
    """Ends with a `TextMessage`: of `source`, or of anybody if that is None."""

    def __init__(self, source: str | None = None) -> None:
        self._source = None if source is None else _text("source", source)

    async def check(self, messages: Messages) -> str | None:
        for message in messages:
            if isinstance(message, TextMessage) and self._source in (None, message.source):
                return f"Text message received from '{message.source}'"
        return None


class FunctionCallTermination(TerminationCondition):
    """Ends when the tool `function_name` has been executed."""

    def __init__(self, function_name: str) -> None:
        self._function_name = _text("function_name", function_name)

    async def check(self, messages: Messages) -> str | None:
        for message in messages:
            if isinstance(message, ToolCallExecutionEvent):
                if any(result.name == self._function_name for result in message.content):
                    return f"Function '{self._function_name}' was executed."
        return None


class FunctionalTermination(TerminationCondition):
    """Ends when `func`, plain or async, returns True for the new messages."""

    def __init__(self, func: Callable[[Messages], bool | Awaitable[bool]]) -> None:
        if not callable(func):
            raise ConfigError(f"func must be a function of the new messages, not {func!r}")
        self._func = func

    async def check(self, messages: Messages) -> str | None:
        answer = self._func(messages)
        met = await answer if isawaitable(answer) else answer
        if not isinstance(met, bool):
            raise ConfigError(f"the function of a FunctionalTermination must return True or False, not {met!r}")
        return "Functional termination condition met" if met else None


def _text(name: str, value: str) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{name} must be a text that is not empty, not {value!r}")
    return value


def _names(name: str, values: Sequence[str]) -> tuple[str, ...]:
    if isinstance(values, str) or not values:
        raise ConfigError(f"{name} must be a list of names, not {values!r}")
    return tuple(_text(f"{name}[{index}]", value) for index, value in enumerate(values))
