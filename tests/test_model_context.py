"""What a model sees of a conversation."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygen import AssistantAgent, FunctionTool, ReplayChatCompletionClient, effect
from tinygen.errors import ConfigError, StateError, Suspended
from tinygen.messages import (
    AssistantMessage,
    CreateResult,
    FunctionCall,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    LLMMessage,
    SystemMessage,
    UserMessage,
)
from tinygen.model_context import (
    BufferedChatCompletionContext,
    ChatCompletionContext,
    HeadAndTailChatCompletionContext,
    TokenLimitedChatCompletionContext,
    UnboundedChatCompletionContext,
)
from tinygen.models import ChatCompletionClient


class Counting(ChatCompletionClient):
    """A client that counts a token for each character, ten for each tool and `base` for each request."""

    def __init__(self, window: int = 100, base: int = 3) -> None:
        self.window = window
        self.base = base
        self.counted: list[LLMMessage] = []

    def count_tokens(self, messages: Sequence[LLMMessage], *, tools: Sequence[Any] = ()) -> int:
        self.counted += messages
        return self.base + sum(len(text(message)) for message in messages) + 10 * len(tools)

    def remaining_tokens(self, messages: Sequence[LLMMessage], *, tools: Sequence[Any] = ()) -> int:
        return self.window - self.count_tokens(messages, tools=tools)


def text(message: LLMMessage) -> str:
    content = message.content
    if isinstance(content, str):
        return content
    return "".join(getattr(part, "name", "") for part in content)


def user(content: str) -> UserMessage:
    return UserMessage(content=content, source="user")


def call(*ids: str) -> AssistantMessage:
    return AssistantMessage(content=[FunctionCall(each, "{}", "f") for each in ids], source="a")


def results(*ids: str) -> FunctionExecutionResultMessage:
    made = [FunctionExecutionResult(content="1", name="f", call_id=each, is_error=False) for each in ids]
    return FunctionExecutionResultMessage(content=made)


async def fill(context: ChatCompletionContext, messages: Sequence[LLMMessage]) -> ChatCompletionContext:
    for message in messages:
        await context.add_message(message)
    return context


async def shown(context: ChatCompletionContext, messages: Sequence[LLMMessage]) -> list[LLMMessage]:
    return await (await fill(context, messages)).get_messages()


def problem(messages: Sequence[LLMMessage]) -> str | None:
    """What a provider would refuse in these messages."""
    waiting: list[str] = []
    for at, message in enumerate(messages):
        if isinstance(message, FunctionExecutionResultMessage):
            for result in message.content:
                if result.call_id not in waiting:
                    return f"message {at} answers {result.call_id}, which nobody called"
                waiting.remove(result.call_id)
        elif waiting:
            return f"{waiting} are not answered before message {at}"
        elif isinstance(message, AssistantMessage) and not isinstance(message.content, str):
            waiting = [each.id for each in message.content]
            if not waiting:
                return f"message {at} calls nothing"
    return f"{waiting} are never answered" if waiting else None


def limited(limit: int, **options: Any) -> TokenLimitedChatCompletionContext:
    return TokenLimitedChatCompletionContext(Counting(base=0), token_limit=limit, **options)


TRIMMING = [
    lambda n: BufferedChatCompletionContext(n),
    lambda n: HeadAndTailChatCompletionContext(n, n),
    lambda n: HeadAndTailChatCompletionContext(1, n),
    lambda n: limited(n),
]
ids = map(str, itertools.count())
said = st.text("ab", max_size=4).map(user) | st.builds(SystemMessage, content=st.just("s"))
used = st.integers(1, 3).map(lambda n: [next(ids) for _ in range(n)])
exchange = used.map(lambda names: [call(*names), results(*reversed(names))])
apart = used.map(lambda names: [call(*names), *(results(name) for name in names)])
answer = st.builds(lambda: [AssistantMessage(content="ok", source="a")])
valid = st.lists(said.map(lambda message: [message]) | exchange | apart | answer, max_size=12).map(
    lambda parts: [message for part in parts for message in part]
)
wild = st.lists(
    said
    | st.sampled_from(
        [call(), call("1"), call("1", "2"), call("2", "2"), results("1"), results("2", "1"), results("2")]
    ),
    max_size=12,
)


@given(valid, st.integers(1, 6), st.sampled_from(TRIMMING))
async def test_whatever_is_shown_of_a_valid_history_is_valid(history: list[LLMMessage], size: int, make: Any) -> None:
    chosen = await shown(make(size), history)

    assert problem(chosen) is None
    places = [place for message in chosen for place, each in enumerate(history) if each is message]
    assert places == sorted(set(places))
    if history:
        assert chosen[-1] is history[-1]


@given(wild, st.integers(1, 6), st.sampled_from(TRIMMING))
async def test_calls_and_results_that_lack_each_other_are_not_shown(
    history: list[LLMMessage], size: int, make: Any
) -> None:
    assert problem(await shown(make(size), history)) is None


@given(valid, st.integers(1, 8))
async def test_a_buffer_holds_no_more_than_its_size_unless_one_unit_does(history: list[LLMMessage], size: int) -> None:
    chosen = await shown(BufferedChatCompletionContext(size), history)

    assert chosen == history[len(history) - len(chosen) :]
    assert len(chosen) <= size or problem(chosen[1:]) is not None


@given(valid, st.integers(1, 30))
async def test_what_is_limited_by_tokens_fits_unless_it_is_the_last_unit_alone(
    history: list[LLMMessage], limit: int
) -> None:
    context = limited(limit)

    chosen = await shown(context, history)

    tokens = Counting(base=0).count_tokens(chosen)
    assert tokens <= limit or problem(chosen[1:]) is not None or len(chosen) == 1


async def test_the_head_is_shown_too_when_the_last_messages_lack_their_results() -> None:
    # the trap: all was searched for something to show at the end, and the head with it
    history = [user("task"), user("b"), user("c"), call("1")]

    messages = await shown(HeadAndTailChatCompletionContext(1, 1), history)

    assert [text(message) for message in messages] == ["task", "Skipped 2 messages.", "c"]


async def test_an_unbounded_context_shows_everything_in_a_list_of_its_own() -> None:
    context = UnboundedChatCompletionContext([user("a")])

    messages = await shown(context, [user("b")])
    messages.clear()

    assert await context.get_messages() == [user("a"), user("b")]


async def test_a_buffer_shows_the_newest_messages() -> None:
    history = [user(str(n)) for n in range(5)]

    assert await shown(BufferedChatCompletionContext(2), history) == history[3:]


async def test_a_buffer_that_begins_with_results_leaves_them_out() -> None:
    history = [user("a"), call("1"), results("1"), user("b")]

    assert await shown(BufferedChatCompletionContext(2), history) == [user("b")]


async def test_a_buffer_of_one_shows_the_last_exchange_whole() -> None:
    history = [user("a"), call("1"), results("1")]

    assert await shown(BufferedChatCompletionContext(1), history) == history[1:]


async def test_a_short_history_is_shown_whole_by_head_and_tail() -> None:
    history = [user("a"), call("1"), results("1"), user("b")]

    assert await shown(HeadAndTailChatCompletionContext(2, 2), history) == history


async def test_head_and_tail_say_how_many_messages_are_skipped() -> None:
    history = [user(str(n)) for n in range(10)]

    chosen = await shown(HeadAndTailChatCompletionContext(2, 3), history)

    skipped = UserMessage(content="Skipped 5 messages.", source="System")
    assert chosen == [*history[:2], skipped, *history[7:]]


async def test_head_and_tail_do_not_cut_through_an_exchange() -> None:
    exchanges = [call("1"), results("1"), user("b"), user("c"), call("2"), results("2")]

    chosen = await shown(HeadAndTailChatCompletionContext(2, 1), [user("a"), *exchanges])

    assert chosen == [user("a"), UserMessage(content="Skipped 4 messages.", source="System"), *exchanges[4:]]


async def test_a_token_limit_keeps_the_task_and_the_newest() -> None:
    history = [SystemMessage(content="rule"), user("task"), *(user(letter * 5) for letter in "abcdef")]

    assert await shown(limited(20), history) == [*history[:2], *history[6:]]


async def test_a_token_limit_gives_up_the_task_before_the_last_message() -> None:
    history = [user("t" * 10), user("a" * 3), user("b" * 9)]

    assert await shown(limited(12), history) == history[1:]
    assert await shown(limited(2), history) == history[2:]


async def test_tools_and_the_request_itself_count_against_a_token_limit() -> None:
    tool: Any = {"name": "f"}
    context = TokenLimitedChatCompletionContext(Counting(), token_limit=20, tool_schema=[tool])

    assert await shown(context, [user("a" * 4), user("b" * 4), user("c" * 3)]) == [user("a" * 4), user("c" * 3)]


async def test_without_a_limit_the_window_of_the_model_counts() -> None:
    context = TokenLimitedChatCompletionContext(Counting(window=12))

    assert await shown(context, [user("a" * 4), user("b" * 4), user("c" * 5)]) == [user("a" * 4), user("c" * 5)]


async def test_each_message_is_counted_once_in_its_life() -> None:
    client = Counting()
    context = TokenLimitedChatCompletionContext(client, token_limit=50)

    for n in range(20):
        await context.add_message(user(f"message {n}"))
        await context.get_messages()

    assert len([message for message in client.counted if text(message).startswith("message")]) == 20


class Learning(Counting):
    """A client that counts twice as much after its first answer, as one does that has learnt."""

    def __init__(self, *replies: Any) -> None:
        super().__init__(base=0)
        self.model = ReplayChatCompletionClient(list(replies))

    async def create(self, messages: Sequence[LLMMessage], **options: Any) -> CreateResult:
        return await self.model.create(messages, **options)

    def count_tokens(self, messages: Sequence[LLMMessage], *, tools: Sequence[Any] = ()) -> int:
        factor = 2 if self.model.create_calls else 1
        return factor * super().count_tokens(messages, tools=tools)


async def test_a_turn_that_is_executed_again_shows_what_it_showed_before_the_client_learnt() -> None:
    async def ask() -> str:
        return await effect("input", None, nobody, str, name="somebody")

    async def nobody() -> str:
        raise Suspended

    client = Learning([FunctionCall("1", "{}", "ask")], "done")
    context = TokenLimitedChatCompletionContext(client, token_limit=40, initial_messages=[user("old " * 5)])
    agent = AssistantAgent(
        "a", client, tools=[FunctionTool(ask, "Asks.")], model_context=context, reflect_on_tool_use=True
    )

    waiting = await agent.run(task="new " * 4)
    agent.answer(waiting.pending[0].id, "yes")
    result = await agent.run()

    assert result.messages[-1].to_text() == "done"
    assert len(client.model.create_calls) == 2


async def test_clear_keeps_the_initial_messages() -> None:
    context = await fill(BufferedChatCompletionContext(5, [user("start")]), [user("b")])

    await context.clear()
    await context.add_message(user("c"))

    assert await context.get_messages() == [user("start"), user("c")]


async def test_a_context_that_overrides_get_messages_alone_works() -> None:
    class Loud(ChatCompletionContext):
        async def get_messages(self) -> list[LLMMessage]:
            return [user(text(message).upper()) for message in await super().get_messages()]

    context = Loud([user("a")])

    assert await shown(context.session(), [user("b")]) == [user("A"), user("B")]


async def test_a_saved_history_loads_into_another_context() -> None:
    history = [user("a"), call("1"), results("1"), AssistantMessage(content="b", thought="hm", source="a")]
    context = await fill(UnboundedChatCompletionContext(), history)
    other = await fill(UnboundedChatCompletionContext(), [user("gone")])

    state = await context.save_state()
    await other.load_state(state)

    assert list(state) == ["messages"]
    assert state["messages"][0] == {"content": "a", "source": "user", "type": "UserMessage"}
    assert await other.get_messages() == history


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"messages": [{"type": "UserMessage", "content": "a", "source": "u"}, {"type": "UserMessage"}]},
        {"messages": [{"type": "Unheard", "content": "a"}]},
        {"messages": None},
        {"messages": [], "more": 1},
        {"messages": [{"type": "UserMessage", "content": "a", "source": "u", "more": 1}]},
        [],
        None,
    ],
)
async def test_a_broken_state_is_refused_and_changes_nothing(state: Any) -> None:
    context = await fill(UnboundedChatCompletionContext(), [user("kept")])

    with pytest.raises(StateError):
        await context.load_state(state)

    assert await context.get_messages() == [user("kept")]


async def test_going_back_to_a_checkpoint_drops_what_came_after() -> None:
    context = await fill(UnboundedChatCompletionContext(), [user("a")])

    back = context.checkpoint()
    await fill(context, [user("b"), user("c")])
    back()

    assert await context.get_messages() == [user("a")]


async def test_going_back_undoes_clear_and_load_too() -> None:
    context = await fill(UnboundedChatCompletionContext([user("start")]), [user("a")])

    back = context.checkpoint()
    await context.add_message(user("b"))
    await context.clear()
    await context.load_state({"messages": []})
    back()

    assert await context.get_messages() == [user("start"), user("a")]


async def test_a_session_begins_with_the_initial_messages_only() -> None:
    context = await fill(HeadAndTailChatCompletionContext(1, 2, [user("start")]), [user("a")])

    twin = context.session()

    assert await twin.get_messages() == [user("start")]
    assert await context.get_messages() == [user("start"), user("a")]


@pytest.mark.parametrize(
    "make",
    [
        lambda: BufferedChatCompletionContext(0),
        lambda: HeadAndTailChatCompletionContext(0, 1),
        lambda: HeadAndTailChatCompletionContext(1, -1),
        lambda: limited(0),
        *(functools.partial(BufferedChatCompletionContext, size) for size in (1.5, True, float("nan"), "3", None)),
    ],
)
def test_sizes_that_are_not_positive_whole_numbers_are_refused(make: Any) -> None:
    with pytest.raises(ConfigError, match="must be a whole number above 0"):
        make()
