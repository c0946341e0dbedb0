"""What a model sees of a conversation: all of it, or the part that fits.

Every context keeps the whole history; `get_messages` chooses. What it chooses is made of units: a tool call together
with its results, or any other single message. A unit is shown whole or not at all, since providers refuse a call
without results and results without their call; calls that never got their results are not shown.
"""

from __future__ import annotations

from .component import Component
from .errors import ConfigError, DecodeError, StateError, positive_int
from .journal import effect
from .messages import AssistantMessage, FunctionExecutionResultMessage, LLMMessage, SystemMessage, UserMessage
from .records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from .models import ChatCompletionClient, Tool, ToolSchema

    Unit = list[LLMMessage]


class ChatCompletionContextState(Record, tagged=False):
    """What a context saves: the whole history."""

    messages: list[LLMMessage]


class ChatCompletionContext(Component):
    """A conversation as a model shall see it. Derive from it and override `get_messages` to show something else.

        class WithoutThoughts(ChatCompletionContext):
            async def get_messages(self) -> list[LLMMessage]:
                return [without_thought(message) for message in self._messages]

    Args:
        initial_messages: what stands at the beginning; `clear` leaves it there.
    """

    component_type = "chat_completion_context"

    @classmethod
    def _config_types(cls) -> Mapping[str, Any]:
        return {"initial_messages": list[LLMMessage]}

    def __init__(self, initial_messages: Sequence[LLMMessage] | None = None) -> None:
        self._initial_messages: list[LLMMessage] = list(initial_messages or ())
        self._messages: list[LLMMessage] = list(self._initial_messages)

    async def add_message(self, message: LLMMessage) -> None:
        """Append a message."""
        self._messages.append(message)

    async def get_messages(self) -> list[LLMMessage]:
        """What the model shall see: here everything."""
        return self._messages.copy()

    async def clear(self) -> None:
        """Back to the initial messages."""
        self._messages = self._initial_messages.copy()

    async def save_state(self) -> Mapping[str, Any]:
        """The whole history as JSON data."""
        from . import codec

        return {"messages": codec.encode(self._messages)}

    async def load_state(self, state: Mapping[str, Any]) -> None:
        """Replace the history by a saved one. Raises `StateError` and changes nothing if it does not fit."""
        from . import codec

        try:
            saved: ChatCompletionContextState = codec.decode(ChatCompletionContextState, state, mode="state")
        except DecodeError as error:
            raise StateError(error.path, error.problem) from error
        self._messages = saved.messages

    def checkpoint(self) -> Callable[[], None]:
        """Mark this point of the history. The function returned goes back to it, past a `clear` too."""
        messages, length = self._messages, len(self._messages)

        def back() -> None:
            del messages[length:]
            self._messages = messages

        return back


class UnboundedChatCompletionContext(ChatCompletionContext):
    """Shows everything."""


def given_context(context: ChatCompletionContext | None) -> ChatCompletionContext:
    """The context that was given, if none one that shows everything. Raises `ConfigError` for anything else."""
    if context is not None and not hasattr(context, "get_messages"):
        raise ConfigError(f"model_context must be a ChatCompletionContext, not {context!r:.80}")
    return UnboundedChatCompletionContext() if context is None else context


class BufferedChatCompletionContext(ChatCompletionContext):
    """Shows the newest messages: at most `buffer_size`, or the last unit if that alone is longer."""

    def __init__(self, buffer_size: int, initial_messages: Sequence[LLMMessage] | None = None) -> None:
        super().__init__(initial_messages)
        self._buffer_size = positive_int("buffer_size", buffer_size)

    async def get_messages(self) -> list[LLMMessage]:
        return _newest(self._messages, self._buffer_size)[1]


class HeadAndTailChatCompletionContext(ChatCompletionContext):
    """Shows the first and the newest messages, and between them how many are left out.

    Args:
        head_size: at most so many messages from the beginning.
        tail_size: at most so many from the end, or the last unit if that alone is longer.
        initial_messages: what stands at the beginning.
    """

    def __init__(self, head_size: int, tail_size: int, initial_messages: Sequence[LLMMessage] | None = None) -> None:
        super().__init__(initial_messages)
        self._head_size = positive_int("head_size", head_size)
        self._tail_size = positive_int("tail_size", tail_size)

    async def get_messages(self) -> list[LLMMessage]:
        messages = self._messages
        if len(messages) <= self._head_size + self._tail_size:
            return _flat(units(messages))
        start, tail = _newest(messages, self._tail_size)
        head = _flat(units(messages[: min(self._head_size, start)]))
        skipped = len(messages) - len(head) - len(tail)
        if not skipped:
            return head + tail
        return [*head, UserMessage(content=f"Skipped {skipped} messages.", source="System"), *tail]


class TokenLimitedChatCompletionContext(ChatCompletionContext):
    """Shows the beginning (the task, as a rule) and as many of the newest units as fit into a number of tokens.

    The beginning gives way before the last unit does; the last is always shown.

    Args:
        model_client: counts the tokens, as well as it can (see models/tokens.py).
        token_limit: how many there may be; None for what the model's window holds.
        tool_schema: tools that are sent along and need room too.
        initial_messages: what stands at the beginning.
    """

    def __init__(
        self,
        model_client: ChatCompletionClient,
        *,
        token_limit: int | None = None,
        tool_schema: Sequence[Tool | ToolSchema] | None = None,
        initial_messages: Sequence[LLMMessage] | None = None,
    ) -> None:
        super().__init__(initial_messages)
        self._model_client = model_client
        self._token_limit = None if token_limit is None else positive_int("token_limit", token_limit)
        self._tool_schema = list(tool_schema or ())
        self._counts: dict[int, tuple[LLMMessage, int, int]] = {}

    async def get_messages(self) -> list[LLMMessage]:
        parts = units(self._messages)
        if len(parts) < 2:
            return _flat(parts)

        async def choose() -> list[int]:
            return self._choose(parts)

        # a client may count better after each answer; a turn that is executed again asks what it asked before
        head, start = await effect("context", {"messages": len(self._messages)}, choose, list[int])
        return _flat(parts[:head] + parts[start:])

    def _choose(self, parts: list[Unit]) -> list[int]:
        """How many units from the beginning are shown, and where the newest begin that are."""
        room: float = self._room()
        sizes = self._sizes(parts)
        if sum(sizes) <= room:
            return [0, 0]
        last = len(parts) - 1
        head = min(_beginning(parts), last)
        if sum(sizes[:head]) + sizes[last] > room:
            head = 0
        room -= sum(sizes[:head]) + sizes[last]
        start = last
        while start > head and sizes[start - 1] <= room:
            start -= 1
            room -= sizes[start]
        return [head, start]

    def _room(self) -> int:
        client = self._model_client
        if self._token_limit is None:
            return client.remaining_tokens([], tools=self._tool_schema)
        return self._token_limit - client.count_tokens([], tools=self._tool_schema)

    def _sizes(self, parts: list[Unit]) -> list[float]:
        """The tokens of each unit. Each message is counted once in its life; what the client learns later scales it."""
        known, self._counts = self._counts, {}
        client = self._model_client
        empty, sample = client.count_tokens([]), client.count_tokens([_SAMPLE])
        sizes: list[float] = []
        for part in parts:
            size = 0.0
            for message in part:
                entry = known.get(id(message))
                if entry is None or entry[0] is not message:
                    entry = (message, client.count_tokens([message]) - empty, sample)
                self._counts[id(message)] = entry
                size += entry[1] if entry[2] in (sample, 0) else entry[1] * sample / entry[2]
            sizes.append(size)
        return sizes


_SAMPLE = UserMessage(content="How many tokens is this? " * 40, source="user")  # tells whether a client learnt


def units(messages: Sequence[LLMMessage]) -> list[Unit]:
    """The messages in units: a tool call with its results is one. Calls and results without the other are left out."""
    made: list[Unit] = []
    calls = False  # whether the last unit is a tool call
    for message in messages:
        if not isinstance(message, FunctionExecutionResultMessage):
            calls = isinstance(message, AssistantMessage) and not isinstance(message.content, str)
            made.append([message])
        elif calls:
            made[-1].append(message)
    return [unit for unit in made if _whole(unit)]


def _whole(unit: Unit) -> bool:
    """Whether it is a tool call with all its results, or no tool call."""
    first = unit[0]
    if not isinstance(first, AssistantMessage) or isinstance(first.content, str):
        return True
    results = [result.call_id for message in unit[1:] for result in message.content]  # type: ignore[union-attr]
    return bool(results) and sorted(call.id for call in first.content) == sorted(results)


def _flat(parts: list[Unit]) -> list[LLMMessage]:
    return [message for part in parts for message in part]


def _newest(messages: Sequence[LLMMessage], size: int) -> tuple[int, list[LLMMessage]]:
    """The units among the last `size` messages, or the very last one, and where the messages looked at begin."""
    start = max(len(messages) - size, 0)
    while not (parts := units(messages[start:])) and start:
        start -= 1
    return start, _flat(parts)


def _beginning(parts: Sequence[Unit]) -> int:
    """How many units the beginning is: leading instructions and the first thing said."""
    return 1 + next((at for at, part in enumerate(parts) if not isinstance(part[0], SystemMessage)), 0)
