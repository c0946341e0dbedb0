"""What an agent remembers beyond its conversation."""

from __future__ import annotations

from typing import Any

import pytest

from tinygen import AssistantAgent, MemoryQueryEvent, ReplayChatCompletionClient
from tinygen.errors import ConfigError, StateError
from tinygen.memory import (
    ListMemory,
    Memory,
    MemoryMimeType,
    MemoryQueryResult,
    Recalled,
    UpdateContextResult,
    memory_text,
)
from tinygen.messages import Image, LLMMessage, MemoryContent, SystemMessage, UserMessage
from tinygen.model_context import ChatCompletionContext, UnboundedChatCompletionContext

PIXEL = Image.from_base64(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
HISTORY: list[LLMMessage] = [UserMessage(content="What shall I wear?", source="user")]


def note(content: Any, mime_type: str = MemoryMimeType.TEXT) -> MemoryContent:
    return MemoryContent(content=content, mime_type=mime_type)


def recalled(*contents: MemoryContent) -> Recalled:
    return Recalled(text=memory_text(contents), contents=list(contents))


class Search(Memory):
    """Knows one thing and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def query(self, query: Any, cancellation_token: Any = None, **kwargs: Any) -> MemoryQueryResult:
        self.asked.append(query)
        return MemoryQueryResult(results=[note("it rains")])


async def test_everything_in_a_list_memory_is_recalled_in_order() -> None:
    memory = ListMemory(memory_contents=[note("a")])

    await memory.add(note("b"))

    assert await memory.recall(HISTORY) == recalled(note("a"), note("b"))
    assert (await memory.query("anything")).results == memory.content == [note("a"), note("b")]


async def test_an_empty_or_cleared_list_memory_recalls_nothing() -> None:
    memory = ListMemory("notes", [note("a")])

    await memory.clear()

    assert await memory.recall(HISTORY) == recalled()
    assert memory.name == "notes"


async def test_update_context_adds_one_numbered_system_message() -> None:
    context = UnboundedChatCompletionContext()

    update = await ListMemory(memory_contents=[note("a"), note("b")]).update_context(context)

    expected = "\nRelevant memory content (in chronological order):\n1. a\n2. b\n"
    assert await context.get_messages() == [SystemMessage(content=expected)]
    assert update.memories.results == [note("a"), note("b")]


async def test_an_empty_memory_leaves_the_context_alone() -> None:
    context = UnboundedChatCompletionContext()

    assert (await ListMemory().update_context(context)).memories.results == []
    assert await context.get_messages() == []


async def test_recalling_leaves_no_trace_in_the_messages() -> None:
    messages = list(HISTORY)

    await ListMemory(memory_contents=[note("a")]).recall(messages)

    assert messages == HISTORY


async def test_a_memory_that_defines_query_is_asked_for_the_last_message() -> None:
    search = Search()

    assert await search.recall(HISTORY) == recalled(note("it rains"))
    assert await search.recall([]) == recalled(note("it rains"))
    assert search.asked == ["What shall I wear?", ""]


async def test_a_memory_that_overrides_update_context_speaks_in_its_own_words() -> None:
    class Weather(Memory):
        async def update_context(self, model_context: ChatCompletionContext) -> UpdateContextResult:
            asked = (await model_context.get_messages())[-1].content
            await model_context.add_message(SystemMessage(content=f"To '{asked}' consider: it rains."))
            return UpdateContextResult(memories=MemoryQueryResult(results=[scored]))

    scored = MemoryContent(content="it rains", mime_type=MemoryMimeType.TEXT, metadata={"score": 0.9})

    told = await Weather().recall(HISTORY)

    assert told == Recalled(text="To 'What shall I wear?' consider: it rains.", contents=[scored])


async def test_an_agent_shows_what_was_found_and_tells_the_model_the_memorys_words() -> None:
    class Scored(Memory):
        async def update_context(self, model_context: ChatCompletionContext) -> UpdateContextResult:
            await model_context.add_message(SystemMessage(content="Mind the rain."))
            return UpdateContextResult(memories=MemoryQueryResult(results=[found]))

    found = MemoryContent(content="it rains", mime_type=MemoryMimeType.TEXT, metadata={"score": 0.9})
    client = ReplayChatCompletionClient(["ok"])

    result = await AssistantAgent("a", client, memory=[Scored()], system_message="Help.").run(task="q")

    assert [each.content for each in result.messages if isinstance(each, MemoryQueryEvent)] == [[found]]
    assert client.create_calls[0].messages[0] == SystemMessage(content="Help.\nMind the rain.")


async def test_a_memory_that_does_not_say_what_it_found_is_recalled_by_its_words() -> None:
    class Quiet(Memory):
        async def update_context(self, model_context: ChatCompletionContext) -> Any:
            await model_context.add_message(SystemMessage(content=" It rains.\n"))

    assert await Quiet().recall(HISTORY) == Recalled(text=" It rains.\n", contents=[note("It rains.")])


async def test_a_memory_that_adds_nothing_has_nothing_recalled() -> None:
    class Silent(Memory):
        async def update_context(self, model_context: ChatCompletionContext) -> Any:
            return None

    assert await Silent().recall(HISTORY) == recalled()


async def test_a_memory_that_defines_nothing_says_what_is_missing() -> None:
    with pytest.raises(NotImplementedError, match=r"Memory must define query\(\), update_context\(\) or recall\(\)"):
        await Memory().recall(HISTORY)


def test_contents_that_are_not_text_are_described_to_the_model() -> None:
    contents = [note({"b": [1, None]}, "application/json"), note(PIXEL, MemoryMimeType.IMAGE), note(b"abc", "a/b")]

    lines = memory_text([*contents, note(b"", MemoryMimeType.BINARY)]).splitlines()[2:]

    assert lines[0] in ('1. {"b":[1,null]}', '1. {"b": [1, null]}')
    assert lines[1:] == ["2. [Image]", "3. [3 bytes, a/b]", "4. [0 bytes, application/octet-stream]"]


async def test_a_session_begins_with_a_copy_of_a_list_memory() -> None:
    memory = ListMemory(memory_contents=[note("from the start")])
    await memory.add(note("learnt"))

    twin = memory.session()
    await twin.add(note("in the session"))

    assert memory.content == [note("from the start"), note("learnt")]
    assert twin.content == [*memory.content, note("in the session")]


def test_other_memories_are_shared_unless_they_say_otherwise() -> None:
    class Own(Search):
        renewable = True

    assert not Search.renewable
    assert Own().session().asked == []


async def test_a_saved_list_memory_loads_into_another() -> None:
    contents = [note("a"), note({"b": 1}, MemoryMimeType.JSON), note(PIXEL, "image/png")]
    contents.append(MemoryContent(content="c", mime_type="text/plain", metadata={"n": 1}))
    other = ListMemory(memory_contents=[note("gone")])

    await other.load_state(await ListMemory(memory_contents=contents).save_state())

    assert other.content == contents


@pytest.mark.parametrize(
    "state", [None, [], {}, {"memory_contents": [{"content": 1, "mime_type": "x"}]}, {"memory_contents": [], "x": 1}]
)
async def test_a_broken_memory_state_is_refused_and_changes_nothing(state: Any) -> None:
    memory = ListMemory(memory_contents=[note("kept")])

    with pytest.raises(StateError):
        await memory.load_state(state)

    assert memory.content == [note("kept")]


async def test_text_without_its_media_type_is_not_taken() -> None:
    with pytest.raises(ConfigError, match=r"takes MemoryContent\(content=..., mime_type=...\), not 'a'"):
        await ListMemory().add("a")  # type: ignore[arg-type]


async def test_a_memory_is_closed_at_the_end_of_its_block() -> None:
    class File(Memory):
        closed = False

        async def close(self) -> None:
            self.closed = True

    async with File() as file:
        assert not file.closed

    assert file.closed
