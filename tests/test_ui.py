from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tinygen import (
    AssistantAgent,
    CancellationToken,
    ConfigError,
    Console,
    FunctionCall,
    FunctionExecutionResult,
    Image,
    MemoryContent,
    MemoryQueryEvent,
    ModelClientStreamingChunkEvent,
    MultiModalMessage,
    Pending,
    ReplayChatCompletionClient,
    RequestUsage,
    Response,
    RoundRobinGroupChat,
    SelectSpeakerEvent,
    TaskResult,
    TextMessage,
    ThoughtEvent,
    ToolCallExecutionEvent,
    ToolCallRequestEvent,
    UserInputManager,
    UserInputRequestedEvent,
    UserProxyAgent,
)

PIXEL = bytes.fromhex("89504e470d0a1a0a0000000d4948445200000001000000010806000000")


async def stream(*items: Any) -> AsyncIterator[Any]:
    for item in items:
        yield item


async def printed(*items: Any, end: Any = None, **options: Any) -> str:
    """What the Console prints of these items."""
    file = io.StringIO()
    await Console(stream(*items, end or TaskResult(messages=[])), file=file, **options)
    return file.getvalue()


def text(content: str, source: str = "ann", **fields: Any) -> TextMessage:
    return TextMessage(content=content, source=source, **fields)


def chunk(content: str, source: str = "ann", of: str | None = None) -> ModelClientStreamingChunkEvent:
    return ModelClientStreamingChunkEvent(content=content, source=source, full_message_id=of)


def lines(*expected: str) -> str:
    return "".join(f"{line}\n" for line in expected)


# --- what is returned


async def test_the_result_at_the_end_is_returned() -> None:
    result = TaskResult(messages=[], stop_reason="enough")

    assert await Console(stream(text("hi"), result), file=io.StringIO()) is result


async def test_a_response_is_returned_and_its_message_printed() -> None:
    file = io.StringIO()
    response = Response(chat_message=text("hello"))

    assert await Console(stream(response), file=file) is response
    assert file.getvalue() == lines("---------- TextMessage (ann) ----------", "hello")


async def test_a_stream_without_a_result_is_refused() -> None:
    with pytest.raises(ValueError, match="ended without a TaskResult or Response") as refused:
        await Console(stream(text("hi")), file=io.StringIO())
    assert isinstance(refused.value, ConfigError)


async def test_it_prints_to_standard_output_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    await Console(stream(text("hi"), TaskResult(messages=[])))

    assert capsys.readouterr().out == lines("---------- TextMessage (ann) ----------", "hi")


async def test_a_failure_of_the_stream_is_raised_on_a_line_of_its_own() -> None:
    async def failing() -> AsyncIterator[Any]:
        yield chunk("half a sen")
        raise KeyError("lost")

    file = io.StringIO()
    with pytest.raises(KeyError, match="lost"):
        await Console(failing(), file=file)

    assert file.getvalue().endswith("half a sen\n")


async def test_the_stream_is_closed_when_nothing_can_be_printed() -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    closed = asyncio.Event()

    async def endless() -> AsyncIterator[Any]:
        try:
            while True:
                yield text("hi")
        finally:
            closed.set()

    with pytest.raises(BrokenPipeError):
        await Console(endless(), file=Broken())
    assert closed.is_set()


# --- how things look


@pytest.mark.parametrize(
    ("item", "shown"),
    [
        (ToolCallRequestEvent(content=[FunctionCall("1", '{"a": 1}', "add")] * 2, source="ann"), ['add({"a": 1})'] * 2),
        (
            ToolCallExecutionEvent(
                content=[
                    FunctionExecutionResult(content="3", name="add", call_id="1"),
                    FunctionExecutionResult(content="no", name="sub", call_id="2", is_error=True),
                ],
                source="ann",
            ),
            ["add: 3", "sub failed: no"],
        ),
        (SelectSpeakerEvent(content=["bob", "carl"], source="ann"), ["bob, carl"]),
        (MemoryQueryEvent(content=[MemoryContent(content="tea", mime_type="text/plain")], source="ann"), ["tea"]),
        (MultiModalMessage(content=["see", Image(PIXEL)], source="ann"), ["see", "<image>"]),
        (UserInputRequestedEvent(request_id="1", source="ann", content="Which one?"), ["Which one?"]),
    ],
)
async def test_every_kind_of_message_is_readable(item: Any, shown: list[str]) -> None:
    assert await printed(item) == lines(f"---------- {type(item).__name__} (ann) ----------", *shown)


async def test_a_question_without_words_is_left_to_the_prompt() -> None:
    question = UserInputRequestedEvent(request_id="1", source="ann")

    assert await printed(question) == ""
    assert (await printed(chunk("half"), question, chunk(" more"))).splitlines()[1::2] == ["half", " more"]


async def test_what_is_not_a_stream_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"takes a stream, not 5; give it what run_stream\(\) returns"):
        await Console(5)  # type: ignore[arg-type]


async def test_the_stop_reason_and_open_questions_come_last() -> None:
    question = Pending(id="q1", kind="input", source="user", content="Which one?")
    result = TaskResult(messages=[], stop_reason="suspended", pending=[question], abandoned=["slow_tool"])

    assert await printed(end=result) == lines(
        "Finish reason: suspended", "Waiting for user (input: Which one?)", "Would not stop: slow_tool"
    )


async def test_statistics_are_printed_when_asked_for() -> None:
    result = TaskResult(messages=[], stop_reason="done", usage=RequestUsage(10, 4))

    output = await printed(text("hi", models_usage=RequestUsage(3, 1)), end=result, output_stats=True)

    *shown, duration = output.splitlines()
    assert shown[2:] == [
        "[Prompt tokens: 3, Completion tokens: 1]",
        "---------- Summary ----------",
        "Number of messages: 1",
        "Finish reason: done",
        "Total prompt tokens: 10",
        "Total completion tokens: 4",
    ]
    assert duration.startswith("Duration: ") and duration.endswith(" seconds")


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("a\rb\x9b31m\x7f", r"a\rb\x9b31m\x7f"),
        ("safe \u202egnp.exe", r"safe \u202egnp.exe"),
        ("half \ud83d", r"half \ud83d"),
        (
            "un\u200bseen\xad \u2028\u2060\u206a\ufeff\ufff9\U000e0041",
            r"un\u200bseen\xad \u2028\u2060\u206a\ufeff\ufff9\U000e0041",
        ),
        ("naïve → 日本 می\u200cخواهم 👩\u200d🚀", "naïve → 日本 می\u200cخواهم 👩\u200d🚀"),
    ],
)
async def test_what_would_command_the_terminal_is_made_visible(said: str, shown: str) -> None:
    assert (await printed(text(said))).endswith(f"----------\n{shown}\n")
    assert (await printed(chunk(said))).endswith(f"----------\n{shown}\n")
    assert f"({shown})" in await printed(text("hi", source=said))


async def test_lines_are_kept_in_what_is_said_and_not_in_names() -> None:
    assert (await printed(text("tab\tand\r\nline"))).endswith("----------\ntab\tand\nline\n")
    assert r"(a\n---------- b) ---" in await printed(text("hi", source="a\n---------- b"))


async def test_what_the_file_cannot_encode_is_escaped() -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")

    await Console(stream(text("→ ok"), TaskResult(messages=[])), file=file)

    file.seek(0)
    assert file.read().endswith("\\u2192 ok\n")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
async def test_colours_are_for_terminals_whose_user_wants_them(
    monkeypatch: pytest.MonkeyPatch, no_color: str, coloured: bool
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm")
    file = Terminal()

    await Console(stream(text("hi"), TaskResult(messages=[])), file=file)

    assert ("\x1b[" in file.getvalue()) is coloured


@pytest.mark.parametrize("no_inline_images", [True, False])
async def test_iterm_shows_pictures_unless_told_not_to(monkeypatch: pytest.MonkeyPatch, no_inline_images: bool) -> None:
    monkeypatch.setenv("TERM_PROGRAM", "iTerm.app")
    file, message = Terminal(), MultiModalMessage(content=[Image(PIXEL)], source="ann")

    await Console(stream(message, TaskResult(messages=[])), file=file, no_inline_images=no_inline_images)

    assert (Image(PIXEL).to_base64() in file.getvalue()) is not no_inline_images


# --- answers in pieces

LIVE = "---------- ModelClientStreamingChunkEvent ({}) ----------"
WHOLE = "---------- TextMessage ({}) ----------"


async def test_an_answer_in_pieces_is_printed_once() -> None:
    items = chunk("Hel", of="1"), chunk("lo", of="1"), text("Hello", id="1")

    assert await printed(*items) == lines(LIVE.format("ann"), "Hello")


async def test_pieces_are_printed_as_they_come() -> None:
    file, seen = io.StringIO(), []

    async def watched() -> AsyncIterator[Any]:
        for piece in ("Hel", "lo"):
            yield chunk(piece)
            seen.append(file.getvalue().splitlines()[-1])
        yield TaskResult(messages=[])

    await Console(watched(), file=file)

    assert seen == ["Hel", "Hello"]


async def test_a_final_text_that_differs_from_its_pieces_is_printed() -> None:
    items = chunk("Helo"), text("Hello")

    assert await printed(*items) == lines(LIVE.format("ann"), "Helo", WHOLE.format("ann"), "Hello")


async def test_thoughts_streamed_before_the_answer_do_not_repeat_it() -> None:
    items = chunk("<think>hm</think>"), chunk("Hello"), ThoughtEvent(content="hm", source="ann"), text("Hello")

    assert (await printed(*items)).count("Hello") == 1


async def test_answers_that_come_at_once_are_printed_one_after_the_other() -> None:
    items = (
        *(chunk("a1 ", "ann"), chunk("b1 ", "bob"), chunk("a2", "ann"), chunk("b2 ", "bob"), text("a1 a2", "ann")),
        *(chunk("b3", "bob"), text("b1 b2 b3", "bob")),
    )

    assert await printed(*items) == lines(LIVE.format("ann"), "a1 a2", LIVE.format("bob"), "b1 b2 b3")


async def test_an_answer_held_back_until_it_is_complete_is_printed_whole() -> None:
    items = chunk("a1 ", "ann"), chunk("b1", "bob"), text("b1", "bob"), chunk("a2", "ann"), text("a1 a2", "ann")

    assert await printed(*items) == lines(
        LIVE.format("ann"), "a1 ", WHOLE.format("bob"), "b1", LIVE.format("ann"), "a2"
    )


async def test_two_answers_of_one_name_are_told_apart_by_their_ids() -> None:
    items = chunk("a", of="1"), chunk("b", of="2"), chunk("a", of="1"), chunk("b", of="2")

    assert await printed(*items) == lines(LIVE.format("ann"), "aa", LIVE.format("ann"), "bb")


# --- questions to a person


def asking(manager: UserInputManager) -> UserProxyAgent:
    return UserProxyAgent("user", input_func=manager.get_wrapped_callback())


async def test_a_question_is_asked_after_it_has_been_printed() -> None:
    file = io.StringIO()

    async def answer(prompt: str, token: CancellationToken | None) -> str:
        assert "ok?" in file.getvalue()
        return "yes"

    manager = UserInputManager(answer, patience=3600)
    result = await Console(asking(manager).run_stream(task="ok?"), user_input_manager=manager, file=file)

    assert result.messages[-1].to_text() == "yes"


@pytest.mark.parametrize("callback", [lambda prompt: "yes", None])
async def test_without_a_console_the_question_is_asked_at_once(callback: Callable[[str], str] | None) -> None:
    async def answer(prompt: str, token: CancellationToken | None) -> str:
        return "yes"

    user = asking(UserInputManager(callback or answer, patience=3600))

    assert (await user.run(task="ok?")).messages[-1].to_text() == "yes"


async def test_a_callback_may_return_what_is_to_be_awaited() -> None:
    async def answer() -> str:
        return "yes"

    user = asking(UserInputManager(lambda prompt: answer()))

    assert (await user.run(task="ok?")).messages[-1].to_text() == "yes"


async def test_a_question_the_console_never_sees_is_asked_after_a_while() -> None:
    async def hidden() -> AsyncIterator[Any]:
        yield await asking(manager).run(task="ok?")

    manager = UserInputManager(lambda prompt: "yes", patience=0.01)

    assert (await Console(hidden(), user_input_manager=manager, file=io.StringIO())).messages[-1].to_text() == "yes"


async def test_a_console_that_ends_lets_waiting_questions_be_asked() -> None:
    manager = UserInputManager(lambda prompt: "yes", patience=3600)

    async def short() -> AsyncIterator[Any]:
        waiting.append(asyncio.ensure_future(asking(manager).run(task="ok?")))
        while not manager._waiting:
            await asyncio.sleep(0)
        yield TaskResult(messages=[])

    waiting: list[asyncio.Future[TaskResult]] = []
    await Console(short(), user_input_manager=manager, file=io.StringIO())

    assert (await waiting[0]).messages[-1].to_text() == "yes"


async def test_a_token_ends_the_wait_for_the_console() -> None:
    manager, token = UserInputManager(lambda prompt: "never", patience=3600), CancellationToken()

    async def hidden() -> AsyncIterator[Any]:
        run = asyncio.ensure_future(asking(manager).run(task="ok?", cancellation_token=token))
        while not manager._waiting:
            await asyncio.sleep(0)
        token.cancel()
        yield await run

    with pytest.raises(asyncio.CancelledError):
        await Console(hidden(), user_input_manager=manager, file=io.StringIO())


async def test_what_a_nested_team_says_is_indented_in_pieces_too() -> None:
    inner = RoundRobinGroupChat([speaker("pat", "one\ntwo")], name="inner", max_turns=1)
    team = RoundRobinGroupChat([speaker("ann", "so?"), inner], max_turns=2)
    file = io.StringIO()

    await Console(team.run_stream(task="hi"), file=file)

    assert "\nso?\n  ---------- ModelClientStreamingChunkEvent (pat) ----------\n  one\n  two\n" in file.getvalue()


def speaker(name: str, reply: str) -> AssistantAgent:
    return AssistantAgent(name, ReplayChatCompletionClient([reply]), model_client_stream=True)
