"""Every datum that crosses a boundary: what models, agents, teams and people say to each other.

All are records (see `records.py`), so a message type of your own is a class with bare annotations:

    class Vote(BaseChatMessage):
        choice: str
        def to_text(self) -> str: return self.choice
        def to_model_text(self) -> str: return self.choice
"""

from __future__ import annotations

import base64
from dataclasses import field
from datetime import datetime
from weakref import WeakValueDictionary

from .clock import new_id, now
from .errors import ConfigError, of_another_copy
from .records import SPARSE, Record, pydantic_schema
from .usage import RequestUsage as RequestUsage
from .usage import RunUsage as RunUsage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any, Generic, Literal

    from typing_extensions import TypeVar

    T = TypeVar("T", default=Any)
else:
    T = object  # stands in StructuredMessage[T] below


# --- what goes to and comes from a model


class FunctionCall(Record, kw_only=False, tagged=False):
    """A tool call as the model wrote it; `arguments` is JSON text."""

    id: str
    arguments: str
    name: str


class FunctionExecutionResult(Record, tagged=False):
    """What a tool answered, for the model; `images` are the pictures in it, whose places `content` marks."""

    content: str
    name: str
    call_id: str
    is_error: bool | None = None
    images: list[Image] | None = field(default=None, metadata=SPARSE)


class SystemMessage(Record):
    """Instructions to the model."""

    content: str


class UserMessage(Record):
    """Something said to the model; `source` is who said it."""

    content: str | list[str | Image]
    source: str


class AssistantMessage(Record):
    """Something the model said: text, or the tools it wants called, and what it thought beside that.

    `provider_data` is what a provider wants back unread, such as signatures of its thoughts, under the provider's name;
    `by` in it names the model that signed it, if no other one takes it.
    """

    content: str | list[FunctionCall]
    thought: str | None = None
    source: str
    provider_data: dict[str, Any] | None = field(default=None, metadata=SPARSE)


class FunctionExecutionResultMessage(Record):
    """The results of the calls in the `AssistantMessage` before it."""

    content: list[FunctionExecutionResult]


class TopLogprob(Record, kw_only=False, tagged=False):
    """One alternative for a token."""

    logprob: float
    bytes: list[int] | None = None


class ChatCompletionTokenLogprob(Record, tagged=False):
    """A token of the answer with its log probability and the most likely alternatives."""

    token: str
    logprob: float
    top_logprobs: list[TopLogprob] | None = None
    bytes: list[int] | None = None


class CreateResult(Record, tagged=False):
    """A model's answer: text, or the tools it wants called. `provider_data` is as in `AssistantMessage`."""

    finish_reason: Literal["stop", "length", "function_calls", "content_filter", "unknown"]
    content: str | list[FunctionCall]
    usage: RequestUsage
    cached: bool
    logprobs: list[ChatCompletionTokenLogprob] | None = None
    thought: str | None = None
    provider_data: dict[str, Any] | None = field(default=None, metadata=SPARSE)


class ThoughtChunk(str):
    """A piece of a model's thinking as it arrives; a `create_stream` yields it among the pieces of the text."""

    __slots__ = ()


LLMMessage = SystemMessage | UserMessage | AssistantMessage | FunctionExecutionResultMessage


# --- values inside messages


class Image:
    """A picture: its bytes as they are, and their media type, found from the first bytes.

    `image` gives a Pillow image where Pillow is installed; nothing else here needs it.
    """

    __slots__ = ("_pil", "data", "media_type")

    def __init__(self, image: Any) -> None:
        if isinstance(image, (bytes, bytearray)):
            self.data = bytes(image)
        else:
            import io

            buffer = io.BytesIO()
            image.convert("RGB").save(buffer, format="PNG")
            self.data = buffer.getvalue()
        self.media_type = _media_type(self.data)

    @classmethod
    def from_pil(cls, image: Any) -> Image:
        """From a Pillow image, as PNG."""
        return cls(image)

    @classmethod
    def from_base64(cls, text: str) -> Image:
        """From base64 text. Raises ValueError if it is none."""
        return cls(base64.b64decode(text, validate=True))

    @classmethod
    def from_uri(cls, uri: str) -> Image:
        """From a `data:image/png;base64,` or `data:image/jpeg;base64,` URI. Raises ValueError for any other."""
        head, _, text = uri.partition(",")
        if head not in ("data:image/png;base64", "data:image/jpeg;base64"):
            raise ValueError(f"expected 'data:image/png;base64,...' or 'data:image/jpeg;base64,...', not {uri[:40]!r}")
        return cls.from_base64(text)

    @classmethod
    def from_file(cls, path: Path | str) -> Image:
        """From a file, read at once."""
        with open(path, "rb") as file:
            return cls(file.read())

    @property
    def image(self) -> Any:
        """This picture as a Pillow image (needs Pillow)."""
        import io

        try:
            from PIL import Image as pillow  # type: ignore[import-not-found,unused-ignore]
        except ImportError as error:
            raise ImportError("Image.image needs Pillow; install it with: pip install pillow") from error

        return pillow.open(io.BytesIO(self.data))

    @property
    def data_uri(self) -> str:
        """This picture as a `data:` URI."""
        return f"data:{self.media_type};base64,{self.to_base64()}"

    def _repr_html_(self) -> str:
        return f'<img src="{self.data_uri}"/>'  # for notebooks

    def to_base64(self) -> str:
        """The bytes as base64 text."""
        return base64.b64encode(self.data).decode("ascii")

    def to_openai_format(self, detail: Literal["auto", "low", "high"] = "auto") -> dict[str, Any]:
        """The content part that OpenAI's chat API takes."""
        return {"type": "image_url", "image_url": {"url": self.data_uri, "detail": detail}}

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> dict[str, Any]:
        return pydantic_schema(_as_image, lambda image: {"data": image.to_base64()})

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        return {"type": "object", "properties": {"data": {"type": "string", "contentEncoding": "base64"}}}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Image) and other.data == self.data

    def __hash__(self) -> int:
        return hash(self.data)

    def __repr__(self) -> str:
        return f"Image({self.media_type}, {len(self.data)} bytes)"


def _as_image(value: Any) -> Image:
    if isinstance(value, Image):
        return value
    if isinstance(value, dict) and isinstance(value.get("data"), str):
        return Image.from_base64(value["data"])
    raise ValueError("expected an Image, or {'data': base64 text}")


def _media_type(data: bytes) -> str:
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "image/png"
    if data[:3] == b"\xff\xd8\xff":
        return "image/jpeg"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "image/gif"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    raise ValueError("not a PNG, JPEG, GIF or WebP picture")


class MemoryContent(Record, tagged=False):
    """One thing remembered."""

    content: str | bytes | dict[str, Any] | Image
    mime_type: str
    metadata: dict[str, Any] | None = None


class CodeBlock(Record, kw_only=False, tagged=False):
    """A piece of code and the language it is in."""

    code: str
    language: str


class CodeResult(Record, kw_only=False, tagged=False):
    """What executed code left behind."""

    exit_code: int
    output: str


# --- what agents say


class BaseMessage(Record):
    """Root of everything an agent says."""

    def to_text(self) -> str:
        """For people: what `Console` prints and terminations search."""
        raise NotImplementedError(f"{type(self).__name__} must define to_text()")


class _Envelope(BaseMessage):
    id: str = field(default_factory=new_id)
    source: str
    models_usage: RequestUsage | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    created_at: datetime = field(default_factory=now)


class BaseChatMessage(_Envelope):
    """Something said to others: goes to the other members of a team and to their models."""

    def to_model_text(self) -> str:
        """For models: the message as text."""
        raise NotImplementedError(f"{type(self).__name__} must define to_model_text()")

    def to_model_message(self) -> UserMessage:
        """For models: the message as they receive it."""
        return UserMessage(content=self.to_model_text(), source=self.source)


class BaseTextChatMessage(BaseChatMessage):
    """A chat message whose content is text."""

    content: str

    def to_text(self) -> str:
        return self.content

    def to_model_text(self) -> str:
        return self.content

    def to_model_message(self) -> UserMessage:
        return UserMessage(content=self.content, source=self.source)


class TextMessage(BaseTextChatMessage):
    """Plain text."""


class StopMessage(BaseTextChatMessage):
    """A request to end the conversation; `content` says why."""


class HandoffMessage(BaseTextChatMessage):
    """Hands the work to `target`; `context` is what its model should know of the exchange before."""

    target: str
    context: list[LLMMessage] = field(default_factory=list)


class ToolCallSummaryMessage(BaseTextChatMessage):
    """The results of tool calls, given as the answer."""

    tool_calls: list[FunctionCall]
    results: list[FunctionExecutionResult]


class MultiModalMessage(BaseChatMessage):
    """Text and pictures in order."""

    content: list[str | Image]

    def to_text(self) -> str:
        return content_to_str(self.content)

    def to_model_text(self) -> str:
        return "\n".join(part if isinstance(part, str) else "[image]" for part in self.content)

    def to_model_message(self) -> UserMessage:
        return UserMessage(content=self.content, source=self.source)


_structured: WeakValueDictionary[Any, type[StructuredMessage[Any]]] = WeakValueDictionary()

if TYPE_CHECKING:

    class _Parametrised(BaseChatMessage, Generic[T]): ...

else:

    class _Parametrised(BaseChatMessage):
        def __class_getitem__(cls, content_type):
            if cls is _Parametrised:
                return cls
            made = _structured.get((cls, content_type))
            if made is None:
                name = f"{cls.__name__}[{getattr(content_type, '__name__', content_type)}]"
                body = {"__annotations__": {"content": content_type}, "__module__": cls.__module__, "type": name}
                made = _structured[cls, content_type] = type(name, (cls,), body)
                made.content_type = content_type
                made._made_of = cls, content_type
            return made


class StructuredMessage(_Parametrised[T]):
    """A typed value as a message; `StructuredMessage[Out]` is a class of its own, with that as its `type`.

    `format_string` is a `str.format` template over the value's fields, used for people and for `to_model_text`.
    """

    content: T
    format_string: str | None = None

    content_type = None  # the T of StructuredMessage[T]
    _made_of = ()  # what was asked for, of a class that was made by such brackets

    def to_text(self) -> str:
        if self.format_string is None:
            return self._json()
        from . import codec

        return self.format_string.format(**codec.encode(self.content))

    def to_model_text(self) -> str:
        return self.to_text()

    def to_model_message(self) -> UserMessage:
        return UserMessage(content=self._json(), source=self.source)

    def __reduce__(self) -> Any:
        if "_made_of" in vars(type(self)):  # it cannot be imported by its name, but made again
            return _restore_structured, (*type(self)._made_of, self.__dict__)
        return super().__reduce__()

    def _json(self) -> str:
        from . import codec

        return codec.dumps(self.content)


def _restore_structured(base: Any, content_type: Any, state: dict[str, Any]) -> StructuredMessage[Any]:
    cls = base[content_type]
    made: StructuredMessage[Any] = cls.__new__(cls)
    made.__dict__.update(state)
    return made


class BaseAgentEvent(_Envelope):
    """Something that happened inside an agent: shown to people, counted by terminations, not fed to models."""


class _Telling:
    """An event that is told by its content."""

    content: Any

    def to_text(self) -> str:
        return str(self.content)


class ToolCallRequestEvent(_Telling, BaseAgentEvent):
    """The model wants these tools called."""

    content: list[FunctionCall]


class ToolCallExecutionEvent(_Telling, BaseAgentEvent):
    """The tools answered."""

    content: list[FunctionExecutionResult]


class UserInputRequestedEvent(_Telling, BaseAgentEvent):
    """A person is asked for input; `request_id` names the question."""

    request_id: str
    content: str = ""


class MemoryQueryEvent(_Telling, BaseAgentEvent):
    """What memory gave for this turn."""

    content: list[MemoryContent]


class ModelClientStreamingChunkEvent(_Telling, BaseAgentEvent):
    """A piece of an answer as it arrives; `full_message_id` is the id of the message it will be part of.

    `thought` says that it is a piece of a `ThoughtEvent`.
    """

    content: str
    full_message_id: str | None = None
    thought: bool = field(default=False, metadata=SPARSE)


class ThoughtEvent(_Telling, BaseAgentEvent):
    """What the model thought beside its answer."""

    content: str


class SelectSpeakerEvent(_Telling, BaseAgentEvent):
    """Who speaks next in a team."""

    content: list[str]


class SelectorEvent(_Telling, BaseAgentEvent):
    """What a selector model said while choosing."""

    content: str


class CodeGenerationEvent(_Telling, BaseAgentEvent):
    """Code was written, to be executed next."""

    retry_attempt: int
    content: str
    code_blocks: list[CodeBlock]


class CodeExecutionEvent(BaseAgentEvent):
    """Code was executed."""

    retry_attempt: int
    result: CodeResult

    def to_text(self) -> str:
        return self.result.output


# --- results


class Response(Record, tagged=False):
    """An agent's answer to the messages it was given, with what it said on the way."""

    chat_message: BaseChatMessage
    inner_messages: list[BaseAgentEvent | BaseChatMessage] | None = None


class Pending(Record, tagged=False):
    """A question a suspended run waits on; answer it with `answer(id, value)`."""

    id: str
    kind: str
    source: str
    content: Any = None


class TaskResult(Record, tagged=False):
    """What a run left: its messages in order and why it stopped.

    `pending` lists the questions of a suspended run; `usage` is what its model calls used and cost, in all and by
    agent, model and tool; `abandoned` names what would not stop when the run ended.
    """

    messages: list[BaseAgentEvent | BaseChatMessage]
    stop_reason: str | None = None
    pending: list[Pending] = field(default_factory=list)
    usage: RunUsage = field(default_factory=lambda: RunUsage(0, 0))
    abandoned: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """Who said what, and how it ended."""
        from .transcript import as_text

        return as_text(self)

    def to_markdown(self, *, images: bool = False) -> str:
        """The conversation as Markdown; pictures are in it if `images`, otherwise only their place."""
        from .transcript import as_markdown

        return as_markdown(self, images=images)


ChatMessage = BaseChatMessage
AgentEvent = BaseAgentEvent


def content_to_str(content: str | Sequence[str | Image]) -> str:
    """The content of a message as text, with a word for each picture."""
    return content if isinstance(content, str) else "\n".join(p if isinstance(p, str) else "<image>" for p in content)


def remove_images(messages: Sequence[LLMMessage]) -> list[LLMMessage]:
    """The same messages for a model that sees no pictures."""
    return [_without_images(message) for message in messages]


def _without_images(message: LLMMessage) -> LLMMessage:
    if isinstance(message, UserMessage) and isinstance(message.content, list):
        return UserMessage(content=content_to_str(message.content), source=message.source)
    if isinstance(message, FunctionExecutionResultMessage) and any(result.images for result in message.content):
        results = [result.model_copy(update={"images": None}) for result in message.content]
        return FunctionExecutionResultMessage(content=results)
    return message


def as_messages(task: str | BaseChatMessage | Sequence[BaseChatMessage] | None) -> list[BaseChatMessage]:
    """The messages that a `task` stands for; text is said by "user". Raises `ConfigError` for anything else."""
    if task is None:
        return []
    if isinstance(task, str):
        return [TextMessage(content=task, source="user")]
    if isinstance(task, BaseChatMessage):
        return [task]
    messages = list(task) if isinstance(task, (list, tuple)) else []
    if not messages:
        whose = of_another_copy(task, BaseChatMessage)
        expected = "text, a chat message, a non-empty list of chat messages or None"
        raise ConfigError(f"task must be {expected}, not {task!r}{whose}")
    for message in messages:
        if not isinstance(message, BaseChatMessage):
            whose = of_another_copy(message, BaseChatMessage)
            raise ConfigError(f"task holds {message!r}, which is not a chat message{whose}")
    return messages
