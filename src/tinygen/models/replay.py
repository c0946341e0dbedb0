"""The scripted model, for tests and offline runs: says what it was told to say, and remembers what it was asked."""

from __future__ import annotations

import asyncio
from inspect import isawaitable

from ..errors import ConfigError
from ..messages import (
    AssistantMessage,
    CreateResult,
    FunctionCall,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    RequestUsage,
    SystemMessage,
    UserMessage,
)
from ..records import Record
from . import ChatCompletionClient, cancellable, permissive, pieces_of, schema_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
    from typing import Any, TypeAlias, TypeVar

    from ..cancellation import CancellationToken
    from ..messages import LLMMessage
    from . import ModelInfo, Tool, ToolChoice, ToolSchema

    T = TypeVar("T")
    Data: TypeAlias = "str | CreateResult | Sequence[FunctionCall]"
    Reply: TypeAlias = "Data | BaseException | Delayed | Chunks | Callable[[ReplayRequest], Any]"

_MESSAGES = (UserMessage, AssistantMessage, FunctionExecutionResultMessage, SystemMessage)
_WINDOW = 10_000  # tokens that `remaining_tokens` counts down from, as AutoGen's
_CONVERSATIONS = 64  # how many the word counts are kept of


class ReplayRequest(Record):
    """What the model was asked; `index` counts from 0. A field can be read as an item too: `call["messages"]`."""

    messages: list[LLMMessage]
    tools: list[ToolSchema]
    tool_choice: ToolChoice
    json_output: bool | type[Any] | None
    extra_create_args: Mapping[str, Any]
    index: int

    def __getitem__(self, name: str) -> Any:
        return self.__dict__[name]


class Delayed(Record, kw_only=False):
    """A reply that comes after some seconds."""

    seconds: float
    reply: Reply


class Chunks(Record, kw_only=False):
    """A reply whose stream comes in exactly these pieces.

    After them comes `end`: an exception breaks the stream, tool calls have the pieces as their thought; by default the
    pieces together are the answer.
    """

    pieces: Sequence[str]
    end: Reply | None = None


class ReplayChatCompletionClient(ChatCompletionClient):
    """A model that gives prepared replies, one a call, in the order of the calls.

        model = ReplayChatCompletionClient([[FunctionCall("1", '{"city": "Oslo"}', "weather")], "It rains."])
        agent = AssistantAgent("ada", model, tools=[weather], reflect_on_tool_use=True)
        await agent.run(task="How is the weather in Oslo?")
        assert model.create_calls[1].messages[-1].content[0].content == "rain"
        model.assert_consumed()

    Args:
        chat_completions: the replies, or one function that makes a reply of each `ReplayRequest`. A reply is text, a
            list of tool calls, a `CreateResult`, an exception to be raised, `Delayed`, `Chunks`, or a function, plain
            or async, of the request. Tokens are counted as words.
        model_info: what the model can do. Unlike AutoGen's, it can do everything unless this says otherwise.
    """

    @classmethod
    def _config_types(cls) -> Mapping[str, Any]:
        return {"chat_completions": list[str | CreateResult | list[FunctionCall]]}

    def __init__(
        self,
        chat_completions: Sequence[Reply] | Callable[[ReplayRequest], Any],
        model_info: ModelInfo | None = None,
    ) -> None:
        self._replies: list[Reply] | None = None
        if callable(chat_completions):
            self._function = chat_completions
        elif isinstance(chat_completions, (list, tuple)):
            self._replies = [_known(f"chat_completions[{at}]", reply) for at, reply in enumerate(chat_completions)]
        else:
            raise ConfigError(f"chat_completions must be a list of replies or a function, not {chat_completions!r}")
        self._model_info = model_info or permissive("unknown")
        self._cached = "price" not in self._model_info  # what comes from a cache costs nothing
        self.reset()

    def reset(self) -> None:
        """Begin again with the first reply, and forget what was asked."""
        self._index = 0
        self._used = [0, 0]
        self._counted: dict[int, tuple[list[LLMMessage], int]] = {}
        self.create_calls: list[ReplayRequest] = []

    def set_cached_bool_value(self, value: bool) -> None:
        """What `cached` says in the results made of text and tool calls; at first True, but of a model with a price."""
        self._cached = value

    @property
    def unconsumed(self) -> list[Reply]:
        """The replies nobody has asked for yet."""
        return [] if self._replies is None else self._replies[self._index :]

    def assert_consumed(self) -> None:
        """Raise `AssertionError` if replies are left."""
        if left := self.unconsumed:
            lines = "".join(f"\n  [{at}] {reply!r:.200}" for at, reply in enumerate(left, self._index))
            raise AssertionError(f"{len(left)} replies were never asked for:{lines}")

    @property
    def model_info(self) -> ModelInfo:
        return self._model_info

    async def _create(
        self, messages: Sequence[LLMMessage], *, cancellation_token: CancellationToken | None = None, **arguments: Any
    ) -> CreateResult:
        _refuse_if_cancelled(cancellation_token)
        request = self._record(messages, **arguments)
        reply = await _made(request, self._next(request), cancellation_token)
        if isinstance(reply, str):  # the usual case, without the detour through a stream
            return self._result(request, reply)
        items = [item async for item in self._stream(request, reply, cancellation_token)]
        return items[-1]  # type: ignore[return-value]

    def _create_stream(
        self, messages: Sequence[LLMMessage], *, cancellation_token: CancellationToken | None = None, **arguments: Any
    ) -> AsyncGenerator[str | CreateResult, None]:
        """As `create`; text comes word by word. The reply is used up with the call, however much of it is read."""
        _refuse_if_cancelled(cancellation_token)
        request = self._record(messages, **arguments)
        return self._stream(request, self._next(request), cancellation_token)

    def total_usage(self) -> RequestUsage:
        return RequestUsage(self._used[0], self._used[1])

    def count_tokens(self, messages: Sequence[LLMMessage], *, tools: Sequence[Tool | ToolSchema] = ()) -> int:
        """The words of the messages."""
        return sum(_words(_content(message)) for message in messages)

    def remaining_tokens(self, messages: Sequence[LLMMessage], *, tools: Sequence[Tool | ToolSchema] = ()) -> int:
        """What is left of 10,000 words."""
        return max(0, _WINDOW - self.count_tokens(messages))

    def _record(
        self,
        messages: Sequence[LLMMessage],
        tools: Sequence[Tool | ToolSchema] = (),
        tool_choice: ToolChoice = "auto",
        json_output: bool | type[Any] | None = None,
        extra_create_args: Mapping[str, Any] = {},
    ) -> ReplayRequest:
        request = ReplayRequest(
            messages=list(messages),
            tools=[schema_of(tool) for tool in tools],
            tool_choice=tool_choice,
            json_output=json_output,
            extra_create_args=extra_create_args,
            index=self._index,
        )
        if request.messages:
            _content(request.messages[-1])
        self.create_calls.append(request)
        return request

    def _next(self, request: ReplayRequest) -> Reply:
        """The reply to this request, which is used up with it."""
        replies = self._replies
        if replies is None:
            reply: Reply = self._function
        elif self._index < len(replies):
            reply = replies[self._index]
        else:
            asked = f"request {len(self.create_calls)}, ending with {request.messages[-1:]!r:.200}"
            raise ConfigError(f"No more mock responses available: {len(replies)} were given, this is {asked}")
        self._index += 1
        return reply

    async def _stream(
        self, request: ReplayRequest, reply: Reply, token: CancellationToken | None
    ) -> AsyncGenerator[str | CreateResult, None]:
        said: str | None = None
        while not isinstance(reply, (str, list, tuple, CreateResult)):
            if isinstance(reply, BaseException):
                raise reply
            if isinstance(reply, Delayed):
                await cancellable(asyncio.sleep(reply.seconds), token)
                reply = reply.reply
            elif isinstance(reply, Chunks):
                for piece in reply.pieces:
                    _refuse_if_cancelled(token)
                    yield piece
                said = (said or "") + "".join(reply.pieces)
                reply = said if reply.end is None else reply.end
            else:
                reply = await _made(request, reply, token)
        result = self._result(request, reply, said)
        if said is None and isinstance(result.content, str):
            for piece in pieces_of(result):
                _refuse_if_cancelled(token)
                yield piece
        yield result

    def _result(self, request: ReplayRequest, reply: Data, thought: str | None = None) -> CreateResult:
        if isinstance(reply, CreateResult):
            result = reply
        else:
            usage = RequestUsage(self._asked(request.messages), _words(reply))
            if isinstance(reply, str):
                result = CreateResult(finish_reason="stop", content=reply, usage=usage, cached=self._cached)
            else:
                result = CreateResult(
                    finish_reason="function_calls",
                    content=list(reply),
                    usage=usage,
                    cached=self._cached,
                    thought=thought or None,
                )
        self._used[0] += result.usage.prompt_tokens
        self._used[1] += result.usage.completion_tokens
        return result

    def _asked(self, messages: list[LLMMessage]) -> int:
        """The words of a request. What the last request with the same beginning had is not counted again."""
        if not messages:
            return 0
        if len(self._counted) > _CONVERSATIONS:
            self._counted.clear()
        known, words = self._counted.get(id(messages[0]), ([], 0))
        if messages[: len(known)] != known:
            known, words = [], 0
        for message in messages[len(known) :]:
            words += _words(_content(message))
        self._counted[id(messages[0])] = (messages, words)
        return words


async def _made(request: ReplayRequest, reply: Reply, token: CancellationToken | None) -> Reply:
    """`reply`, or what it returns if it is a function."""
    while callable(reply):
        made = reply(request)
        if isinstance(made, (str, CreateResult)):
            return made
        reply = _known("what the function returned", await cancellable(made, token) if isawaitable(made) else made)
    return reply


def _known(where: str, reply: T) -> T:
    """`reply`, found to be one."""
    if isinstance(reply, (str, CreateResult, BaseException)) or callable(reply):
        return reply
    if isinstance(reply, Delayed):
        _known(f"{where}.reply", reply.reply)
    elif isinstance(reply, Chunks):
        if isinstance(reply.pieces, str) or not all(isinstance(piece, str) for piece in reply.pieces):
            raise ConfigError(f"{where}.pieces must be a list of texts, not {reply.pieces!r}")
        if reply.end is not None:
            _known(f"{where}.end", reply.end)
    elif isinstance(reply, (list, tuple)):
        if not all(isinstance(call, FunctionCall) for call in reply):
            raise ConfigError(f"{where} must be a list of FunctionCall, not {reply!r}")
    else:
        raise ConfigError(
            f"{where} must be text, a list of FunctionCall, a CreateResult, an exception, Delayed, Chunks or a "
            f"function of the request, not {reply!r}"
        )
    return reply


def _content(message: LLMMessage) -> Any:
    if not isinstance(message, _MESSAGES):
        raise ConfigError(f"{message!r:.200} is not a message for a model; give a System, User or AssistantMessage")
    return message.content


def _words(content: Any) -> int:
    """How many words are in the content of a message."""
    if isinstance(content, str):
        return len(content.split())
    if isinstance(content, (list, tuple)):
        return sum(map(_words, content))
    if isinstance(content, FunctionCall):
        return 1 + _words(content.arguments)
    return _words(content.content) if isinstance(content, FunctionExecutionResult) else 0


def _refuse_if_cancelled(token: CancellationToken | None) -> None:
    if token is not None and token.is_cancelled():
        raise asyncio.CancelledError("the cancellation token was cancelled")
