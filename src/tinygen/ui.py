"""What a person sees of a run: everything said, printed as it is said.

What models and tools write is printed with its control characters made visible, so that it cannot command the
terminal. Of answers that come in pieces at the same time one is printed live; the others are held back until it is
complete or interrupted by a whole message.
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import nullcontext

from .clock import monotonic
from .errors import ConfigError
from .messages import (
    BaseChatMessage,
    ModelClientStreamingChunkEvent,
    MultiModalMessage,
    RequestUsage,
    Response,
    TaskResult,
    UserInputRequestedEvent,
)
from .transcript import as_cost, asked, body, depth, safe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable
    from typing import Any, TextIO, TypeVar

    from .cancellation import CancellationToken
    from .messages import BaseAgentEvent

    R = TypeVar("R", bound=TaskResult | Response)
    Said = BaseAgentEvent | BaseChatMessage
    Prompt = Callable[[str, CancellationToken | None], Awaitable[str]]

_BOLD, _DIM, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[0m"


async def Console(
    stream: AsyncIterable[Said | R],
    *,
    no_inline_images: bool = False,
    output_stats: bool = False,
    user_input_manager: UserInputManager | None = None,
    file: TextIO | None = None,
) -> R:
    """Print what comes from `run_stream` or `on_messages_stream`, and return the `TaskResult` or `Response` in it.

        result = await Console(team.run_stream(task="Write a haiku."))

    Args:
        no_inline_images: pictures are `<image>` in iTerm2 too, which can show them; elsewhere they always are.
        output_stats: print the tokens of each message; at the end tokens, cost where it is known, and time.
        user_input_manager: is told which questions have been printed, so that it may ask them.
        file: where to print, `sys.stdout` by default; in colour if that is a terminal and NO_COLOR is not set.

    Raises `ConfigError` if neither `TaskResult` nor `Response` comes, and whatever the stream raises.
    """
    if not hasattr(stream, "__aiter__"):
        raise ConfigError(f"Console takes a stream, not {stream!r:.80}; give it what run_stream() returns")
    screen = _Screen(sys.stdout if file is None else file, output_stats, not no_inline_images)
    result: R | None = None
    with user_input_manager or nullcontext():
        try:
            async for item in stream:
                if isinstance(item, (TaskResult, Response)):
                    result = item
                    screen.result(item)
                else:
                    screen.said(item)
                    if user_input_manager is not None and isinstance(item, UserInputRequestedEvent):
                        user_input_manager.notify_event_received(item.request_id)
        finally:
            if hasattr(stream, "aclose"):  # else a run would go on when nothing can be printed
                await stream.aclose()
            screen.end()
    if result is None:
        raise ConfigError("the stream ended without a TaskResult or Response; give Console what run_stream() returns")
    return result


class UserInputManager:
    """Lets a `UserProxyAgent` ask only when the `Console` has printed everything up to its question.

        manager = UserInputManager(input)
        user = UserProxyAgent("user", input_func=manager.get_wrapped_callback())
        await Console(user.run_stream(task="Hello"), user_input_manager=manager)

    Args:
        callback: asks; sync `(prompt)` or async `(prompt, cancellation_token)`.
        patience: seconds after which to ask in any case. No time passes where no `Console` has this manager.
    """

    def __init__(self, callback: Callable[..., Any], *, patience: float = 1.0) -> None:
        self._callback = callback
        self._patience = patience
        self._consoles = 0
        self._printed: set[str] = set()
        self._waiting: dict[str, asyncio.Future[None]] = {}

    def get_wrapped_callback(self) -> Prompt:
        """The `input_func` for the agent."""
        return self._ask

    def notify_event_received(self, request_id: str) -> None:
        """The question has been printed."""
        waiting = self._waiting.pop(request_id, None)
        if waiting is None:
            self._printed.add(request_id)
        elif not waiting.done():
            waiting.set_result(None)

    def __enter__(self) -> None:
        self._consoles += 1

    def __exit__(self, *failure: object) -> None:
        self._consoles -= 1
        if not self._consoles:
            for request_id in list(self._waiting):
                self.notify_event_received(request_id)
            self._printed.clear()

    async def _ask(self, prompt: str, cancellation_token: CancellationToken | None = None) -> str:
        request_id = _current_request()
        if self._consoles and request_id is not None:
            await self._until_printed(request_id, cancellation_token)
        if cancellation_token is not None and cancellation_token.is_cancelled():
            raise asyncio.CancelledError("the cancellation token was cancelled")
        from .agents import ask_person

        return await ask_person(self._callback, prompt, cancellation_token)

    async def _until_printed(self, request_id: str, token: CancellationToken | None) -> None:
        if request_id in self._printed:
            self._printed.remove(request_id)
            return
        printed = self._waiting[request_id] = asyncio.get_running_loop().create_future()
        if token is not None:
            token.link_future(printed)
        try:
            await asyncio.wait({printed}, timeout=self._patience)
        finally:
            printed.cancel()
            self._waiting.pop(request_id, None)


def _current_request() -> str | None:
    from .agents import UserProxyAgent

    try:
        return UserProxyAgent.InputRequestContext.request_id()
    except RuntimeError:  # asked by something else
        return None


class _Answer:
    """An answer that comes in pieces, and how many of them have been printed."""

    __slots__ = ("depth", "pieces", "printed", "source")

    def __init__(self, source: str, depth: int) -> None:
        self.source = source
        self.depth = depth
        self.pieces: list[str] = []
        self.printed = 0

    def ends_with(self, text: str) -> bool:
        """Whether the pieces were this text; thoughts may have come before it."""
        return bool(text.strip()) and "".join(self.pieces).rstrip().endswith(text.strip())


class _Screen:
    """Prints one stream. `_live` is the answer in whose text the cursor stands."""

    def __init__(self, file: TextIO, stats: bool, inline_images: bool) -> None:
        terminal = file.isatty()
        self._file = file
        self._stats = stats
        self._colour = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self._inline_images = terminal and inline_images and os.environ.get("TERM_PROGRAM") == "iTerm.app"
        self._answers: dict[tuple[str, str | None], _Answer] = {}
        self._live: _Answer | None = None
        self._margin = ""  # what is said in nested teams is indented
        self._fresh = True  # the cursor is at the beginning of a line
        self._start = monotonic()
        self._messages = 0
        self._usage = RequestUsage(0, 0)

    def said(self, item: Said) -> None:
        """Print a message, an event or a piece of an answer."""
        if isinstance(item, ModelClientStreamingChunkEvent):
            answer = self._answers.setdefault((item.source, item.full_message_id), _Answer(item.source, depth(item)))
            answer.pieces.append(item.content)
            if self._live in (None, answer):
                self._print_rest(answer)
            return
        self._messages += 1
        if isinstance(item, UserInputRequestedEvent) and not item.content:
            self._end_line()
            return  # the prompt says it
        streamed = self._completed(item)
        if streamed is not None and streamed.printed:
            self._print_rest(streamed)
        else:
            self._print_whole(item)
        if self._live is streamed:
            self._end_line()
        used = item.models_usage
        if used is not None:
            self._usage += used
            if self._stats:
                self._line(f"[Prompt tokens: {used.prompt_tokens}, Completion tokens: {used.completion_tokens}]", _DIM)
        if self._live is None:
            self._resume()

    def result(self, item: TaskResult | Response) -> None:
        """Print how it ended."""
        if isinstance(item, Response):
            self.said(item.chat_message)
        self.end()
        self._margin = ""
        if self._stats:
            self._header("Summary")
            self._line(f"Number of messages: {self._messages}")
        if isinstance(item, TaskResult):
            if item.stop_reason is not None:
                self._line(f"Finish reason: {item.stop_reason}")
            for question in item.pending:
                self._line(f"Waiting for {asked(question)}")
            for name in item.abandoned:
                self._line(f"Would not stop: {name}")
        if self._stats:
            usage = self._usage
            if isinstance(item, TaskResult) and item.usage.prompt_tokens + item.usage.completion_tokens:
                usage = item.usage
            self._line(f"Total prompt tokens: {usage.prompt_tokens}")
            self._line(f"Total completion tokens: {usage.completion_tokens}")
            if cost := as_cost(usage):
                self._line(f"Cost: {cost}")
            self._line(f"Duration: {monotonic() - self._start:.2f} seconds")

    def end(self) -> None:
        """Print what is held back."""
        for answer in self._answers.values():
            self._print_rest(answer)
        self._answers.clear()
        self._end_line()

    def _completed(self, item: Said) -> _Answer | None:
        """The answer whose pieces were this message. With a chat message, its source has completed all others too."""
        found = None
        for key, answer in list(self._answers.items()):
            if answer.source == item.source:
                if found is None and answer.ends_with(item.to_text()):
                    found = answer
                if answer is found or isinstance(item, BaseChatMessage):
                    del self._answers[key]
        return found

    def _resume(self) -> None:
        """Go on with an answer that was held back."""
        for answer in self._answers.values():
            if answer.printed < len(answer.pieces):
                self._print_rest(answer)
                break

    def _print_rest(self, answer: _Answer) -> None:
        if answer.printed == len(answer.pieces):
            return
        if self._live is not answer:
            self._header(ModelClientStreamingChunkEvent.__name__, answer.source, answer.depth)
            self._live = answer
        self._write("".join(answer.pieces[answer.printed :]))
        answer.printed = len(answer.pieces)

    def _print_whole(self, item: Said) -> None:
        self._header(type(item).__name__, item.source, depth(item))
        if text := body(item):
            self._line(text)
        if self._inline_images and isinstance(item, MultiModalMessage):
            for part in item.content:
                if not isinstance(part, str):
                    self._file.write(f"\x1b]1337;File=inline=1:{part.to_base64()}\x07\n")

    def _header(self, kind: str, source: str | None = None, depth: int = 0) -> None:
        self._end_line()
        self._margin = "  " * depth
        name = "" if source is None else "({}) ".format(source.replace("\n", r"\n"))
        self._line(f"{'-' * 10} {kind} {name}{'-' * 10}", _BOLD)

    def _line(self, text: str, style: str = "") -> None:
        self._end_line()
        self._write(text, style)
        self._write("\n")

    def _end_line(self) -> None:
        if self._live is not None:
            self._live = None
            self._write("\n")

    def _indented(self, text: str) -> str:
        first, *others = text.split("\n")
        margin = self._margin
        lines = [
            margin + first if self._fresh and first else first,
            *(margin + line if line else "" for line in others),
        ]
        self._fresh = text.endswith("\n") if text else self._fresh
        return "\n".join(lines)

    def _write(self, text: str, style: str = "") -> None:
        text = self._indented(safe(text))
        if style and self._colour:
            text = f"{style}{text}{_PLAIN}"
        try:
            self._file.write(text)
        except UnicodeEncodeError as error:
            self._file.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))
        self._file.flush()
