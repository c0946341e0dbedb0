from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, strategies

from tinygen import (
    AssistantAgent,
    AssistantMessage,
    BaseChatAgent,
    CancellationToken,
    ChatCompletionClient,
    Chunks,
    ConfigError,
    ConnectionFailed,
    CreateResult,
    Delayed,
    FunctionCall,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    ReplayChatCompletionClient,
    ReplayRequest,
    RequestUsage,
    Response,
    RoundRobinGroupChat,
    RunLimits,
    SystemMessage,
    TextMessage,
    UserMessage,
    effect,
    suspend,
)

ASKED = [SystemMessage(content="Be brief."), UserMessage(content="How are you?", source="user")]
CALL = FunctionCall(id="1", arguments='{"a": 1}', name="add")


async def streamed(client: ReplayChatCompletionClient, **kwargs: Any) -> list[str | CreateResult]:
    return [item async for item in client.create_stream(ASKED, **kwargs)]


async def test_text_becomes_a_result_with_words_as_tokens() -> None:
    client = ReplayChatCompletionClient(["Very well, thanks"])

    result = await client.create(ASKED)

    assert result == CreateResult(
        finish_reason="stop", content="Very well, thanks", usage=RequestUsage(5, 3), cached=True
    )
    assert client.total_usage() == client.actual_usage() == RequestUsage(5, 3)


async def test_results_are_given_as_they_are() -> None:
    prepared = CreateResult(finish_reason="length", content="Ver", usage=RequestUsage(7, 1), cached=False)
    client = ReplayChatCompletionClient([prepared, "more"])

    assert await client.create(ASKED) is prepared
    await client.create(ASKED)

    assert client.total_usage() == RequestUsage(12, 2)


async def test_a_list_of_calls_becomes_a_result_that_calls_tools() -> None:
    client = ReplayChatCompletionClient([[CALL]])
    client.set_cached_bool_value(False)

    result = await client.create(ASKED)

    assert (result.finish_reason, result.content, result.cached) == ("function_calls", [CALL], False)


async def test_a_stream_gives_the_words_and_then_the_result() -> None:
    items = await streamed(ReplayChatCompletionClient(["hello big world"]))

    assert items[:-1] == ["hello ", "big ", "world"]
    assert isinstance(items[-1], CreateResult) and items[-1].content == "hello big world"


@given(strategies.text())
async def test_the_pieces_of_a_stream_make_up_the_text(text: str) -> None:
    items = await streamed(ReplayChatCompletionClient([text]))

    assert "".join(map(str, items[:-1])) == text
    assert all(items[:-1])


async def test_chunks_are_streamed_exactly_as_given() -> None:
    client = ReplayChatCompletionClient([Chunks(["hel", "lo"])] * 2)

    *pieces, result = await streamed(client)

    assert pieces == ["hel", "lo"]
    assert isinstance(result, CreateResult) and result.content == "hello"
    assert (await client.create(ASKED)).content == "hello"


async def test_calls_after_chunks_have_the_text_as_their_thought() -> None:
    *pieces, result = await streamed(ReplayChatCompletionClient([Chunks(["Let ", "me add."], [CALL])]))

    assert pieces == ["Let ", "me add."]
    assert isinstance(result, CreateResult)
    assert (result.content, result.thought) == ([CALL], "Let me add.")


async def test_an_exception_after_chunks_breaks_the_stream() -> None:
    client = ReplayChatCompletionClient([Chunks(["hel"], ConnectionFailed("gone"))])
    received = []

    with pytest.raises(ConnectionFailed, match="gone"):
        async for item in client.create_stream(ASKED):
            received.append(item)

    assert received == ["hel"]


async def test_an_exception_is_raised_and_used_up() -> None:
    client = ReplayChatCompletionClient([ConnectionFailed("no route"), "back"])

    with pytest.raises(ConnectionFailed, match="no route"):
        await client.create(ASKED)
    assert (await client.create(ASKED)).content == "back"


async def test_a_delayed_reply_lets_others_go_first() -> None:
    client = ReplayChatCompletionClient([Delayed(0.01, "first asked"), "second asked"])
    answered: list[Any] = []

    async def ask() -> None:
        answered.append((await client.create(ASKED)).content)

    await asyncio.gather(ask(), ask())

    assert answered == ["second asked", "first asked"]


async def test_functions_are_given_the_request() -> None:
    async def later(request: ReplayRequest) -> list[FunctionCall]:
        assert request.tools == [{"name": "add"}]
        return [CALL]

    client = ReplayChatCompletionClient([lambda request: f"{request.index}: {request.messages[-1].content}", later])

    assert (await client.create(ASKED)).content == "0: How are you?"
    assert (await streamed(client, tools=[{"name": "add"}]))[-1].content == [CALL]  # type: ignore[union-attr]


async def test_one_function_may_answer_every_call() -> None:
    client = ReplayChatCompletionClient(lambda request: Chunks(["call ", str(request.index)]))

    assert [(await client.create(ASKED)).content for _ in range(3)] == ["call 0", "call 1", "call 2"]
    client.assert_consumed()


async def test_every_call_is_remembered_as_it_was_asked() -> None:
    class Add:
        name = "add"
        schema = {"name": "add", "parameters": {"type": "object", "properties": {}}}

    client = ReplayChatCompletionClient(["a", "b"])
    asked = [*ASKED]

    await client.create(asked, tools=[Add()], tool_choice="required", json_output=True)  # type: ignore[list-item]
    asked.append(UserMessage(content="later", source="user"))
    await anext(client.create_stream(asked, extra_create_args={"seed": 1}))

    first, second = client.create_calls
    assert first.messages == ASKED and first["tools"] == [Add.schema]
    assert (first.tool_choice, first.json_output, first.index) == ("required", True, 0)
    assert second.messages == asked and second["extra_create_args"] == {"seed": 1}


async def test_a_reply_is_used_up_when_asked_for_even_if_its_stream_is_dropped() -> None:
    client = ReplayChatCompletionClient(["one two", "three"])

    stream = client.create_stream(ASKED)
    assert await anext(stream) == "one "
    await stream.aclose()  # type: ignore[attr-defined, unused-ignore]

    assert (await client.create(ASKED)).content == "three"


async def test_a_call_too_many_says_what_was_given_and_what_was_asked() -> None:
    client = ReplayChatCompletionClient(["a"])
    await client.create(ASKED)

    with pytest.raises(ValueError, match="No more mock responses available: 1 were given") as refused:
        await client.create(ASKED)

    assert "request 2" in str(refused.value) and "How are you?" in str(refused.value)
    with pytest.raises(ConfigError):
        await streamed(client)


async def test_replies_that_are_left_are_listed() -> None:
    client = ReplayChatCompletionClient(["a", "b", [CALL]])
    await client.create(ASKED)

    assert client.unconsumed == ["b", [CALL]]
    with pytest.raises(AssertionError, match=r"2 replies were never asked for:\n  \[1\] 'b'\n  \[2\] \[FunctionCall"):
        client.assert_consumed()


async def test_reset_begins_again() -> None:
    client = ReplayChatCompletionClient(["a", "b"])
    await client.create(ASKED)

    client.reset()

    assert (client.create_calls, client.total_usage()) == ([], RequestUsage(0, 0))
    assert (await client.create(ASKED)).content == "a"


@pytest.mark.parametrize("reply", [Delayed(3600, "late"), lambda request: asyncio.Event().wait()])
async def test_a_token_ends_the_wait_for_a_reply(reply: Any) -> None:
    client, token = ReplayChatCompletionClient([reply]), CancellationToken()
    asyncio.get_running_loop().call_soon(token.cancel)

    with pytest.raises(asyncio.CancelledError):
        await client.create(ASKED, cancellation_token=token)


async def test_a_token_ends_a_stream_between_pieces() -> None:
    client, token = ReplayChatCompletionClient(["a b c"]), CancellationToken()
    received = []

    with pytest.raises(asyncio.CancelledError):
        async for item in client.create_stream(ASKED, cancellation_token=token):
            received.append(item)
            token.cancel()

    assert received == ["a "]


async def test_a_cancelled_token_uses_no_reply_up() -> None:
    client, token = ReplayChatCompletionClient(["a"]), CancellationToken()
    token.cancel()

    with pytest.raises(asyncio.CancelledError):
        await client.create(ASKED, cancellation_token=token)

    assert client.unconsumed == ["a"]


@pytest.mark.parametrize("replies", ["text", [3], [[3]], [None], [Delayed(1, 3)], [Chunks("text")], 3])
def test_what_is_no_reply_is_refused_at_once(replies: Any) -> None:
    with pytest.raises(ConfigError):
        ReplayChatCompletionClient(replies)


async def test_what_a_function_returns_must_be_a_reply_too() -> None:
    with pytest.raises(ConfigError, match=r"what the function returned must be text, .* not None"):
        await ReplayChatCompletionClient(lambda request: None).create(ASKED)


def test_the_model_can_do_everything_unless_said_otherwise() -> None:
    info = ReplayChatCompletionClient([]).model_info

    assert info["family"] == "unknown"
    assert all(info[key] for key in ("vision", "function_calling", "json_output", "structured_output"))  # type: ignore[literal-required]
    assert ReplayChatCompletionClient([], {**info, "vision": False}).model_info["vision"] is False


def test_words_of_every_kind_of_message_are_counted() -> None:
    client = ReplayChatCompletionClient([])
    result = FunctionExecutionResult(content="the sum is 2", name="add", call_id="1")
    messages = [
        *ASKED,
        AssistantMessage(content=[CALL], source="ann"),
        FunctionExecutionResultMessage(content=[result]),
        UserMessage(content=["see this"], source="user"),
    ]

    assert client.count_tokens(messages) == 5 + 3 + 4 + 2
    assert client.remaining_tokens(messages) == 10_000 - 14


async def test_the_tokens_of_a_growing_conversation_add_up() -> None:
    client = ReplayChatCompletionClient(lambda request: "ok")
    messages: list[Any] = []

    for n in range(1, 5):
        messages.append(UserMessage(content="two words", source="user"))
        assert (await client.create(messages)).usage == RequestUsage(2 * n, 1)
    messages[0] = UserMessage(content="now three words", source="user")
    messages.pop()

    assert (await client.create(messages)).usage == RequestUsage(7, 1)


class Asker(BaseChatAgent):
    """Calls its model by itself, as agents written for AutoGen do."""

    produced_message_types = (TextMessage,)

    def __init__(self, model: ChatCompletionClient, ask_person: bool = False, **arguments: Any) -> None:
        super().__init__("asker", "asks")
        self.model, self.ask_person, self.arguments = model, ask_person, arguments

    async def on_messages(self, messages: Any, cancellation_token: Any) -> Response:
        said = await self.model.create([UserMessage(content="hi", source="me")], **self.arguments)
        text = str(said.content)
        if self.ask_person:
            text += await effect("input", "who?", lambda: suspend("who?"), str)
        return Response(chat_message=TextMessage(content=text, source=self.name))

    async def on_reset(self, cancellation_token: Any) -> None: ...


async def test_a_call_that_an_agent_makes_by_itself_counts_against_the_limits() -> None:
    model = ReplayChatCompletionClient(["a", "b"])
    team = RoundRobinGroupChat([Asker(model)])

    result = await team.run(task="go", limits=RunLimits(model_calls=2))

    assert result.stop_reason == "limit reached: model_calls (2 of 2)"
    assert len(model.create_calls) == 2


@pytest.mark.parametrize(
    "arguments",
    [{}, {"json_output": list[int]}, {"json_output": int | str}, {"extra_create_args": {"as": [Response, int | str]}}],
    ids=str,
)
async def test_a_call_that_an_agent_makes_by_itself_is_not_made_twice(arguments: Any) -> None:
    model = ReplayChatCompletionClient(["hello "])
    agent = Asker(model, ask_person=True, **arguments)

    waiting = await agent.run(task="go")
    agent.answer(waiting.pending[0].id, "Ann")
    result = await agent.run(task="go")

    assert result.messages[-1].to_text() == "hello Ann"
    assert len(model.create_calls) == 1


async def test_a_client_that_overrides_create_is_asked_through_it() -> None:
    class Polite(ReplayChatCompletionClient):
        async def create(self, messages: Any, **arguments: Any) -> CreateResult:
            return await super().create([*messages, UserMessage(content="please", source="me")], **arguments)

    model = Polite(["yes"])

    await AssistantAgent("ada", model).run(task="go")

    assert model.create_calls[0].messages[-1].content == "please"


async def test_a_synchronous_tool_may_ask_a_model_in_an_event_loop_of_its_own() -> None:
    inner = ReplayChatCompletionClient(["forty-two"])

    def look_up(what: str) -> str:
        return str(asyncio.run(inner.create([UserMessage(content=what, source="tool")])).content)

    call = FunctionCall(id="1", arguments='{"what": "it"}', name="look_up")
    agent = AssistantAgent("ada", ReplayChatCompletionClient([[call]]), tools=[look_up])

    result = await agent.run(task="go", limits=RunLimits(model_calls=1))

    assert result.messages[-1].to_text() == "forty-two"


@pytest.mark.parametrize("messages", ["hello", [{"role": "user"}], [*ASKED, TextMessage(content="x", source="u")]])
@pytest.mark.parametrize("whole", [True, False])
async def test_what_is_no_message_for_a_model_is_refused(messages: Any, whole: bool) -> None:
    usage = RequestUsage(0, 0)
    reply = CreateResult(finish_reason="stop", content="x", usage=usage, cached=False) if whole else "x"
    client = ReplayChatCompletionClient([reply])

    with pytest.raises(ConfigError, match="is not a message for a model; give a System, User or AssistantMessage"):
        await client.create(messages)
    assert (client.unconsumed, client.create_calls) == ([reply], [])
    with pytest.raises(ConfigError, match="is not a message for a model"):
        client.count_tokens(messages)
