"""What an agent remembers beyond its conversation.

Agents ask `recall` before a model call and put what comes back into that request alone; it never becomes part of the
history, so nothing piles up. The base class derives `recall` from `update_context` and that from `query`: a memory of
your own overrides the one that suits it.
"""

from __future__ import annotations

from enum import Enum

from .component import Component
from .errors import ConfigError, DecodeError, StateError
from .messages import Image, MemoryContent, SystemMessage
from .model_context import UnboundedChatCompletionContext
from .records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from typing_extensions import Self

    from .cancellation import CancellationToken
    from .component import Memo
    from .messages import LLMMessage
    from .model_context import ChatCompletionContext


class MemoryMimeType(str, Enum):
    """Common media types of what is remembered."""

    TEXT = "text/plain"
    JSON = "application/json"
    MARKDOWN = "text/markdown"
    IMAGE = "image/*"
    BINARY = "application/octet-stream"

    __str__ = str.__str__


class MemoryQueryResult(Record):
    """What a memory found."""

    results: list[MemoryContent]


class UpdateContextResult(Record):
    """What a memory added to a conversation."""

    memories: MemoryQueryResult


class Recalled(Record):
    """What a model should know: the `text` it reads, and the `contents` that the event of it shows."""

    text: str
    contents: list[MemoryContent]


class Memory(Component):
    """A store of things worth knowing. Shared by all sessions; set `renewable = True` if each shall have its own.

    A renewable memory is saved with the session, so it overrides `save_state` and `load_state` too.
    """

    component_type = "memory"
    renewable = False

    async def recall(self, messages: Sequence[LLMMessage]) -> Recalled:
        """What a model should know when it is sent these messages."""
        scratch = UnboundedChatCompletionContext(list(messages))
        update = await self.update_context(scratch)
        given = set(map(id, messages))
        text = "\n".join(_text_of(message) for message in scratch._messages if id(message) not in given)
        found = update.memories.results if update else []
        told = found or [MemoryContent(content=text.strip(), mime_type=MemoryMimeType.TEXT)]
        return Recalled(text=text, contents=told if text else [])

    async def update_context(self, model_context: ChatCompletionContext) -> UpdateContextResult:
        """Add what is known about the conversation in `model_context` to it, as a system message."""
        messages = await model_context.get_messages()
        found = await self.query(_text_of(messages[-1]) if messages else "")
        if found.results:
            await model_context.add_message(SystemMessage(content=memory_text(found.results)))
        return UpdateContextResult(memories=found)

    async def query(
        self, query: str | MemoryContent, cancellation_token: CancellationToken | None = None, **kwargs: Any
    ) -> MemoryQueryResult:
        """What is known about `query`."""
        raise NotImplementedError(f"{type(self).__name__} must define query(), update_context() or recall()")

    async def add(self, content: MemoryContent, cancellation_token: CancellationToken | None = None) -> None:
        """Remember something."""
        raise NotImplementedError(f"{type(self).__name__} must define add()")

    async def clear(self) -> None:
        """Forget everything."""
        raise NotImplementedError(f"{type(self).__name__} must define clear()")

    async def close(self) -> None:
        """Let go of files and connections."""

    async def save_state(self) -> Mapping[str, Any]:
        """The contents as JSON data; called for renewable memories only."""
        return {}

    async def load_state(self, state: Mapping[str, Any]) -> None:
        """Replace the contents by saved ones."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class _Contents(Record, tagged=False):
    memory_contents: list[MemoryContent]


class ListMemory(Memory):
    """A list: everything in it is recalled in every turn, oldest first. A session begins with a copy of it.

    Args:
        name: what to call it.
        memory_contents: what it holds from the start.
    """

    renewable = True

    @classmethod
    def _config_types(cls) -> Mapping[str, Any]:
        return {"memory_contents": list[MemoryContent]}

    def __init__(self, name: str | None = None, memory_contents: Sequence[MemoryContent] | None = None) -> None:
        self._name = name or "default_list_memory"
        self._contents = list(memory_contents or ())

    @property
    def name(self) -> str:
        """What to call it."""
        return self._name

    @property
    def content(self) -> list[MemoryContent]:
        """What it holds."""
        return self._contents

    @content.setter
    def content(self, value: Sequence[MemoryContent]) -> None:
        self._contents = list(value)

    async def query(
        self, query: str | MemoryContent = "", cancellation_token: CancellationToken | None = None, **kwargs: Any
    ) -> MemoryQueryResult:
        """Everything, whatever the query."""
        return MemoryQueryResult(results=self._contents.copy())

    async def add(self, content: MemoryContent, cancellation_token: CancellationToken | None = None) -> None:
        if not isinstance(content, MemoryContent):
            raise ConfigError(f"a memory takes MemoryContent(content=..., mime_type=...), not {content!r}")
        self._contents.append(content)

    async def clear(self) -> None:
        """Forget everything, what it held from the start too."""
        self._contents = []

    async def save_state(self) -> Mapping[str, Any]:
        from . import codec

        return codec.encode(_Contents(memory_contents=self._contents))  # type: ignore[no-any-return]

    async def load_state(self, state: Mapping[str, Any]) -> None:
        """Replace the contents by saved ones. Raises `StateError` and changes nothing if they do not fit."""
        from . import codec

        try:
            saved: _Contents = codec.decode(_Contents, state, mode="state")
        except DecodeError as error:
            raise StateError(error.path, error.problem) from error
        self._contents = saved.memory_contents

    def _renew(self, memo: Memo) -> Self:
        twin = super()._renew(memo)
        twin._contents = self._contents.copy()
        return twin

    def _grown(self) -> Mapping[str, Any]:
        return {"memory_contents": self._contents or None}


def memory_text(contents: Sequence[MemoryContent]) -> str:
    """The contents as a model reads them, numbered; nothing if there are none."""
    if not contents:
        return ""
    lines = [f"{number}. {_content_text(content)}" for number, content in enumerate(contents, 1)]
    return "\nRelevant memory content (in chronological order):\n" + "\n".join(lines) + "\n"


def _content_text(memory: MemoryContent) -> str:
    content = memory.content
    if isinstance(content, str):
        return content
    if isinstance(content, Image):
        return "[Image]"
    if isinstance(content, bytes):
        return f"[{len(content)} bytes, {memory.mime_type!s}]"
    from . import codec

    return codec.dumps(content)


def _text_of(message: LLMMessage) -> str:
    content = message.content
    if isinstance(content, str):
        return content
    return "\n".join(part for part in content if isinstance(part, str))
