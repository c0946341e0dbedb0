"""Anthropic's Messages protocol: what is asked, what is understood, and how the clients are set up."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopback import Loopback, json_reply, sse_reply
from tinygen import AssistantAgent, TextMessage, create_client
from tinygen.component import Component
from tinygen.errors import AuthenticationError, ConfigError, IncompleteResponse, ModelError, ProtocolError, ServerError
from tinygen.messages import (
    AssistantMessage,
    CreateResult,
    FunctionCall,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    Image,
    SystemMessage,
    ThoughtChunk,
    UserMessage,
)
from tinygen.models.anthropic import (
    AnthropicBedrockChatCompletionClient,
    AnthropicChatCompletionClient,
    AnthropicVertexChatCompletionClient,
    signature,
)
from tinygen.models.asks import Request
from tinygen.models.claude import ANSWER, REASONS, MessagesDecoder, decode_response, encode_message
from tinygen.models.http import Again

KEY = "sk-ant-0123456789"
QUESTION = [UserMessage(content="hello", source="user")]
PICTURE = Image(b"\x89PNG\r\n\x1a\n" + bytes(8))
WEATHER: dict[str, Any] = {
    "name": "weather",
    "description": "Tells the weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
THINKING = {"type": "enabled", "budget_tokens": 1024}
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
HIDDEN = {"type": "redacted_thinking", "data": "ZGF0YQ=="}
CALL = FunctionCall(id="c1", arguments='{"city": "Rom"}', name="weather")
RESULT = FunctionExecutionResultMessage(
    content=[FunctionExecutionResult(content="sunny", name="weather", call_id="c1", is_error=False)]
)


def body(*content: dict[str, Any], stop: Any = "end_turn", **more: Any) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": list(content), "stop_reason": stop, **more}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def use(name: str = "weather", identity: str = "t1", **arguments: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": identity, "name": name, "input": arguments}


def client(**options: Any) -> AnthropicChatCompletionClient:
    given = {"model": "claude-sonnet-4-5", "api_key": KEY, "base_url": "http://localhost:8000", "max_retries": 0}
    return AnthropicChatCompletionClient(**{**given, **options})


async def sent_by(messages: Any = QUESTION, options: dict[str, Any] | None = None, **call: Any) -> dict[str, Any]:
    """The body of the request that a client with these options makes for this call."""
    async with Loopback([json_reply(body(text("hi")))]) as server:
        async with client(base_url=server.url, **options or {}) as model:
            await model.create(messages, **call)
    sent: dict[str, Any] = server.requests[0].json
    return sent


async def test_settings_may_have_the_names_that_other_providers_use() -> None:
    options = {"stop": "END", "max_completion_tokens": 50}

    sent = await sent_by(options=options)
    again = await sent_by(options=options, extra_create_args={"stop": ["A", "B"], "max_tokens": 7})

    assert (sent["stop_sequences"], sent["max_tokens"]) == (["END"], 50)
    assert (again["stop_sequences"], again["max_tokens"]) == (["A", "B"], 7)
    assert not {"stop", "max_completion_tokens"} & {*sent, *again}


def said(content: Any, *blocks: dict[str, Any], thought: str | None = None) -> AssistantMessage:
    kept = {"anthropic": list(blocks)} if blocks else None
    return AssistantMessage(content=content, thought=thought, source="bot", provider_data=kept)


def result_of(data: dict[str, Any]) -> CreateResult:
    return decode_response(data).result(REASONS)


def events(*blocks: list[dict[str, Any]], stop: str = "end_turn", **usage: int) -> list[str]:
    """A stream of blocks, each given as what it begins with and its deltas."""
    chunks: list[dict[str, Any]] = [{"type": "message_start", "message": {"usage": {"input_tokens": 5, **usage}}}]
    for index, (begin, *deltas) in enumerate(blocks):
        chunks.append({"type": "content_block_start", "index": index, "content_block": begin})
        chunks += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        chunks.append({"type": "content_block_stop", "index": index})
    chunks.append({"type": "message_delta", "delta": {"stop_reason": stop}, "usage": {"output_tokens": 7}})
    chunks.append({"type": "message_stop"})
    return [f"event: {chunk['type']}\ndata: {json.dumps(chunk)}   \n\n" for chunk in chunks]


def streamed(*blocks: list[dict[str, Any]], stop: str = "end_turn", **usage: int) -> tuple[str, CreateResult]:
    decoder, words = MessagesDecoder(), ""
    for event in events(*blocks, stop=stop, **usage):
        name, data = event.strip().split("\n")
        words += decoder.feed(name[7:], data[6:])
    words += decoder.end()
    return words, decoder.whole().result(REASONS)


# --- what is asked


def test_every_kind_of_message_becomes_blocks() -> None:
    failed = FunctionExecutionResult(content="", name="weather", call_id="c2", is_error=True)
    picture = {"type": "base64", "media_type": "image/png", "data": PICTURE.to_base64()}
    for message, blocks in [
        (
            UserMessage(content=["what is", PICTURE], source="ann"),
            [text("what is"), {"type": "image", "source": picture}],
        ),
        (said([CALL], thought="I look"), [text("I look"), use(identity="c1", city="Rom")]),
        (RESULT, [{"type": "tool_result", "tool_use_id": "c1", "content": "sunny"}]),
        (
            FunctionExecutionResultMessage(content=[failed]),
            [{"type": "tool_result", "tool_use_id": "c2", "content": "error", "is_error": True}],
        ),
        (said("sunny ☀"), [text("sunny ☀")]),
    ]:
        assert json.loads(encode_message(message))["content"] == blocks


async def test_neighbours_of_one_role_are_one_message_with_the_results_first() -> None:
    calls = [CALL, FunctionCall(id="c2", arguments="{}", name="time")]
    second = FunctionExecutionResult(content="noon", name="time", call_id="c2")
    results = FunctionExecutionResultMessage(content=[*RESULT.content, second])
    more = UserMessage(content="and now?", source="bob")

    sent = await sent_by([*QUESTION, more, said("wait"), said(calls), results, more])

    assert [each["role"] for each in sent["messages"]] == ["user", "assistant", "user"]
    kinds = [[block["type"] for block in each["content"]] for each in sent["messages"]]
    assert kinds == [["text", "text"], ["text", "tool_use", "tool_use"], ["tool_result", "tool_result", "text"]]


async def test_system_messages_stand_apart_wherever_they_came() -> None:
    messages = [SystemMessage(content="be brief"), *QUESTION, SystemMessage(content="Ann likes cats")]

    assert (await sent_by(messages))["system"] == "be brief\nAnn likes cats"
    assert (await sent_by(messages, {"system": "first"}))["system"] == "first\nbe brief\nAnn likes cats"
    cached = {**text("long"), "cache_control": {"type": "ephemeral"}}
    assert (await sent_by(messages, {"system": [cached]}))["system"] == [cached, text("be brief\nAnn likes cats")]
    assert "system" not in await sent_by()


async def test_a_conversation_of_nothing_but_orders_or_answers_has_a_user_too() -> None:
    for messages in ([SystemMessage(content="choose a speaker")], [said("I begin")]):
        sent = (await sent_by(messages))["messages"]

        assert sent[0]["role"] == "user"
        assert all(block["text"].strip() for each in sent for block in each["content"])


async def test_empty_texts_are_never_sent() -> None:
    messages = [UserMessage(content=" ", source="user"), said(""), *QUESTION, said("yes \n"), said("")]

    sent = (await sent_by(messages))["messages"]

    texts = [block["text"] for each in sent for block in each["content"]]
    assert all(each.strip() for each in texts)
    assert texts[-1] == "yes"


@pytest.mark.parametrize(
    ("model", "options", "last"),
    [
        ("claude-3-5-haiku-20241022", {}, "assistant"),
        ("claude-sonnet-4-5", {}, "assistant"),
        ("claude-sonnet-4-5", {"thinking": THINKING}, "user"),
        ("claude-sonnet-4-6", {}, "user"),
        ("claude-opus-5", {}, "user"),
        ("deepseek-chat", {}, "assistant"),
    ],
)
async def test_a_conversation_ends_with_the_assistant_only_where_the_model_goes_on_with_it(
    model: str, options: dict[str, Any], last: str
) -> None:
    sent = await sent_by([*QUESTION, said("I was ")], {"model": model, **options})

    assert sent["messages"][-1]["role"] == last


async def test_settings_go_into_the_request_and_a_call_overrides_them() -> None:
    sent = await sent_by(
        options={"temperature": 0.5, "top_k": 3, "stop_sequences": ["END"], "metadata": {"user_id": "u"}},
        extra_create_args={"temperature": 1, "service_tier": "auto", "top_k": None},
    )

    assert sent == {
        "model": "claude-sonnet-4-5",
        "max_tokens": 4096,
        "temperature": 1,
        "stop_sequences": ["END"],
        "metadata": {"user_id": "u"},
        "service_tier": "auto",
        "messages": [{"role": "user", "content": [text("hello")]}],
    }


@pytest.mark.parametrize(
    ("call", "options", "choice"),
    [
        ({}, {}, None),
        ({"tool_choice": "required"}, {}, {"type": "any"}),
        ({"tool_choice": "none"}, {}, {"type": "none"}),
        ({"tool_choice": WEATHER}, {}, {"type": "tool", "name": "weather"}),
        ({}, {"tool_choice": "any"}, {"type": "any"}),
        ({}, {"parallel_tool_calls": False}, {"type": "auto", "disable_parallel_tool_use": True}),
        ({"tool_choice": "none"}, {"parallel_tool_calls": False}, {"type": "none"}),
        ({"tool_choice": WEATHER}, {"thinking": THINKING}, {"type": "auto"}),
        ({"tool_choice": "none"}, {"thinking": THINKING}, {"type": "none"}),
        ({"tool_choice": "required"}, {"model": "claude-sonnet-5"}, {"type": "auto"}),
        ({"tool_choice": "required"}, {"model": "claude-sonnet-5", "thinking": {"type": "disabled"}}, {"type": "any"}),
    ],
)
async def test_the_choice_of_a_tool_is_said_as_far_as_the_model_can_be_told(
    call: dict[str, Any], options: dict[str, Any], choice: Any
) -> None:
    sent = await sent_by(options=options, tools=[WEATHER], **call)

    assert sent.get("tool_choice") == choice
    assert sent["tools"] == [
        {"name": "weather", "description": "Tells the weather.", "input_schema": WEATHER["parameters"]}
    ]


async def test_without_tools_nothing_is_said_about_tools() -> None:
    sent = await sent_by(options={"parallel_tool_calls": False}, tool_choice="none")

    assert set(sent) == {"model", "max_tokens", "messages"}


async def test_tools_of_the_provider_stand_beside_ours() -> None:
    search = {"type": "web_search_20250305", "name": "web_search"}

    sent = await sent_by(options={"tools": [search]}, tools=[WEATHER], extra_create_args={"tools": [{"type": "x"}]})

    assert [tool.get("type", tool.get("name")) for tool in sent["tools"]] == ["web_search_20250305", "x", "weather"]


async def test_a_strict_tool_is_closed_or_sent_without_strictness() -> None:
    free = {"type": "object", "properties": {"x": {"type": "object"}}}
    tools = [{**WEATHER, "strict": True}, {"name": "free", "parameters": free, "strict": True}]

    closed, open_ = (await sent_by(tools=tools))["tools"]
    (old, _) = (await sent_by(tools=tools, options={"model": "claude-3-opus"}))["tools"]

    assert (closed["strict"], closed["input_schema"]["additionalProperties"]) == (True, False)
    assert open_ == {"name": "free", "input_schema": free}
    assert "strict" not in old


async def test_names_and_ids_are_made_to_fit_and_names_come_back_as_they_were() -> None:
    name = "files.read file"
    call = FunctionCall(id="functions.read:0", arguments="not json", name=name)
    result = FunctionExecutionResult(content="x", name=name, call_id=call.id)
    messages = [*QUESTION, said([call]), FunctionExecutionResultMessage(content=[result])]
    async with Loopback([json_reply(body(use("files_read_file"), stop="tool_use"))]) as server:
        async with client(base_url=server.url) as model:
            answer = await model.create(messages, tools=[{"name": name}])

    sent = server.requests[0].json
    used, told = sent["messages"][1]["content"][0], sent["messages"][2]["content"][0]
    assert used["name"] == sent["tools"][0]["name"] == "files_read_file"
    assert used["id"] == told["tool_use_id"]
    assert isinstance(used["input"], dict)
    assert [each.name for each in answer.content] == [name]


def test_what_is_kept_of_an_answer_can_always_be_sent_again() -> None:
    found = {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"n": float("inf"), "t": "\ud800"}]}

    kept = decode_response(body(found)).kept

    assert kept == {"anthropic": [{**found, "content": [{"n": None, "t": "\ufffd"}]}]}


def test_what_is_nested_more_deeply_than_a_document_may_be_is_refused() -> None:
    deep: Any = "x"
    for _ in range(100):
        deep = [deep]

    with pytest.raises(ProtocolError, match=r"blocks of the answer cannot be kept.*nested deeper than 64 levels"):
        decode_response(body({"type": "web_search_tool_result", "content": deep}))


def test_a_message_that_holds_what_it_cannot_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected Image"):
        encode_message(UserMessage(content=[3], source="u"))  # type: ignore[list-item]


# --- structured answers


@dataclass
class Verdict:
    good: bool
    score: int = 3


@dataclass
class Free:
    counts: dict[str, int]


async def test_a_model_that_can_be_held_to_a_schema_is() -> None:
    sent = await sent_by(json_output=Verdict, options={"output_config": {"effort": "low"}})

    config = sent["output_config"]
    assert config["effort"] == "low"
    assert config["format"]["type"] == "json_schema"
    assert config["format"]["schema"]["additionalProperties"] is False
    assert "tools" not in sent


@pytest.mark.parametrize(("model", "kind"), [("claude-3-5-haiku-latest", Verdict), ("claude-sonnet-4-5", Free)])
async def test_other_models_and_other_schemas_are_answered_by_a_tool(model: str, kind: type[Any]) -> None:
    async with Loopback([json_reply(body(use(ANSWER, good=True), stop="tool_use"))]) as server:
        async with client(base_url=server.url, model=model) as asked:
            answer = await asked.create(QUESTION, json_output=kind)

    sent = server.requests[0].json
    assert sent["tool_choice"] == {"type": "tool", "name": ANSWER}
    assert "output_config" not in sent
    assert (answer.content, answer.finish_reason) == ('{"good":true}', "stop")


async def test_beside_other_tools_the_model_may_choose_when_to_answer() -> None:
    sent = await sent_by(json_output=Free, tools=[WEATHER])

    assert sent["tool_choice"] == {"type": "any"}
    assert [tool["name"] for tool in sent["tools"]] == ["weather", ANSWER]
    assert (await sent_by(json_output=Free, options={"thinking": THINKING}))["tool_choice"] == {"type": "auto"}


async def test_what_no_schema_can_say_is_said_in_words() -> None:
    for output in (True, list[int]):
        sent = await sent_by([SystemMessage(content="be brief"), *QUESTION], json_output=output)

        assert sent["system"].startswith("be brief\n")
        assert "JSON" in sent["system"]


def test_an_answer_by_a_tool_is_streamed_as_text() -> None:
    pieces = [{"type": "input_json_delta", "partial_json": each} for each in ('{"good"', ": true}")]

    words, answer = streamed([use(ANSWER), *pieces], stop="tool_use")

    assert words == answer.content == '{"good": true}'
    assert answer.finish_reason == "stop"


# --- thinking


async def test_thoughts_go_back_as_they_came() -> None:
    content = [THOUGHT, HIDDEN, text("I look"), use(identity="c1", city="Rom")]
    answer = result_of(body(*content, stop="tool_use"))
    calls = answer.content
    message = AssistantMessage(content=calls, thought=answer.thought, source="b", provider_data=answer.provider_data)

    sent = await sent_by([*QUESTION, message, RESULT], {"thinking": THINKING})

    assert answer.thought == "hm\nI look"
    assert sent["messages"][1]["content"] == content
    assert sent["thinking"] == THINKING


async def test_thoughts_stay_here_where_the_request_says_that_there_shall_be_none() -> None:
    messages = [*QUESTION, said([CALL], THOUGHT, text("I look"), thought="hm\nI look"), RESULT]
    left = [text("I look"), use(identity="c1", city="Rom")]

    for options in (
        {},
        {"thinking": {"type": "disabled"}},
        {"model": "claude-sonnet-5", "thinking": {"type": "disabled"}},
    ):
        assert (await sent_by(messages, options))["messages"][1]["content"] == left
    for options in ({"model": "claude-sonnet-5"}, {"model": "other"}, {"thinking": THINKING}):
        assert (await sent_by(messages, options))["messages"][1]["content"] == [THOUGHT, *left]


async def test_a_thought_that_is_not_text_is_not_said_as_text() -> None:
    messages = [*QUESTION, said([CALL], THOUGHT, thought="hm"), RESULT]

    assert (await sent_by(messages))["messages"][1]["content"] == [use(identity="c1", city="Rom")]


async def test_a_turn_whose_thought_is_lost_goes_on_without_thinking() -> None:
    lost = [*QUESTION, said([CALL]), RESULT]

    assert (await sent_by(lost, {"thinking": THINKING}))["thinking"] == {"type": "disabled"}
    assert (await sent_by([*lost, said("sunny"), *QUESTION], {"thinking": THINKING}))["thinking"] == THINKING
    assert (await sent_by(lost, {"thinking": {"type": "adaptive"}}))["thinking"] == {"type": "adaptive"}
    foreign = AssistantMessage(content=[CALL], source="b", provider_data={"openai": ["x"], "anthropic": "?"})
    assert (await sent_by([*QUESTION, foreign, RESULT], {"thinking": THINKING}))["thinking"] == {"type": "disabled"}


async def test_fields_that_thinking_rules_out_are_left_out_and_the_answer_has_room() -> None:
    options = {"temperature": 0, "top_p": 0.5, "top_k": 5, "thinking": {"type": "enabled", "budget_tokens": 10_000}}

    sent = await sent_by(options=options)

    assert not {"temperature", "top_p", "top_k"} & set(sent)
    assert sent["max_tokens"] == 14_096
    assert "temperature" not in await sent_by(options={"model": "claude-opus-4-7", "temperature": 0})


async def test_newer_models_are_asked_to_think_in_the_way_they_know() -> None:
    sent = await sent_by(options={"model": "claude-opus-4-7", "thinking": THINKING})

    assert sent["thinking"] == {"type": "adaptive", "display": "summarized"}


async def test_a_model_that_binds_its_thoughts_drops_those_whose_conversation_changed() -> None:
    async with Loopback([json_reply(body(text("hi")))]) as server:
        options = {"model": "claude-sonnet-5-5", "default_headers": {"anthropic-beta": "mine"}}
        async with client(base_url=server.url, **options) as model:
            await model.create(QUESTION)

    request = server.requests[0]
    assert request.json["thinking"]["block_binding"] == {"prefix_mismatch_behavior": "drop_block"}
    assert request.headers["anthropic-beta"].split(",")[0] == "mine"
    assert "thinking-binding" in request.headers["anthropic-beta"]


def test_a_text_that_was_changed_is_sent_as_it_is_now() -> None:
    message = said("changed", THOUGHT, text("before"), {"type": "server_tool_use", "id": "s", "name": "x", "input": {}})

    blocks = json.loads(encode_message(message))["content"]

    assert [block["type"] for block in blocks] == ["thinking", "server_tool_use", "text"]
    assert blocks[-1] == text("changed")


async def test_an_answer_that_paused_in_a_tool_of_the_provider_can_be_continued() -> None:
    tool = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "x"}}
    answer = result_of(body(text("I search. "), tool, stop="pause_turn"))
    message = AssistantMessage(content=answer.content, source="b", provider_data=answer.provider_data)

    sent = await sent_by([*QUESTION, message], {"model": "claude-sonnet-4-6"})

    assert answer.finish_reason == "unknown"
    assert [each["role"] for each in sent["messages"]] == ["user", "assistant"]
    assert sent["messages"][1]["content"][-1] == tool


async def test_an_agent_sends_back_what_its_model_thought_while_it_uses_tools() -> None:
    def weather(city: str) -> str:
        """Tells the weather."""
        return f"sunny in {city}"

    first = body(THOUGHT, HIDDEN, text("I look"), use(city="Rom"), stop="tool_use")
    last = body({**THOUGHT, "thinking": "so"}, text("It is sunny."))
    async with Loopback([json_reply(first), json_reply(last)]) as server:
        model = client(base_url=server.url, thinking=THINKING)
        agent = AssistantAgent("ada", model, tools=[weather], reflect_on_tool_use=True)
        result = await agent.run(task="weather in Rom?")
        await agent.run(task="thanks")
        await model.close()

    assert isinstance(result.messages[-1], TextMessage)
    assert result.messages[-1].content == "It is sunny."
    second, third = server.requests[1].json["messages"], server.requests[2].json["messages"]
    assert second[1]["content"] == first["content"]
    assert second[2]["content"] == [{"type": "tool_result", "tool_use_id": "t1", "content": "sunny in Rom"}]
    assert third[3]["content"] == last["content"]


async def test_an_agent_that_streams_sends_the_same_blocks_back() -> None:
    thinking = [{"type": "thinking", "thinking": "", "signature": ""}, {"type": "thinking_delta", "thinking": "hm"}]
    thinking.append({"type": "signature_delta", "signature": "c2ln"})
    first = events(thinking, [HIDDEN], [use("now")], stop="tool_use")
    async with Loopback([sse_reply(*first, done=False), sse_reply(*events([text("noon")]), done=False)]) as server:
        model = client(base_url=server.url, thinking=THINKING)
        agent = AssistantAgent("ada", model, tools=[now], reflect_on_tool_use=True, model_client_stream=True)
        chunks = [item async for item in agent.run_stream(task="the time?")]
        await model.close()

    assert server.requests[1].json["messages"][1]["content"] == [THOUGHT, HIDDEN, use("now")]
    assert any(getattr(chunk, "thought", False) for chunk in chunks)


def now() -> str:
    """Tells the time."""
    return "noon"


# --- what is understood


def test_text_beside_calls_is_the_thought() -> None:
    answer = result_of(body(text("I look"), use(city="Rom"), use("time", "t2"), stop="tool_use"))

    assert answer.finish_reason == "function_calls"
    assert answer.thought == "I look"
    assert answer.provider_data is None
    assert answer.content == [
        FunctionCall(id="t1", arguments='{"city":"Rom"}', name="weather"),
        FunctionCall(id="t2", arguments="{}", name="time"),
    ]


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "content_filter"),
        ("pause_turn", "unknown"),
        ("something new", "unknown"),
        (None, "unknown"),
        (7, "unknown"),
    ],
)
def test_reasons_to_stop_are_translated(word: Any, reason: str) -> None:
    assert result_of(body(text("a"), stop=word)).finish_reason == reason


def test_a_refusal_says_why_if_nothing_else_was_said() -> None:
    details = {"type": "refusal", "explanation": "not this"}

    assert result_of(body(stop="refusal", stop_details=details)).content == "not this"
    assert result_of(body(text("a"), stop="refusal", stop_details=details)).content == "a"
    assert result_of(body(stop="refusal")).content == ""


def test_a_call_that_was_broken_off_before_its_arguments_has_none() -> None:
    whole = streamed([use("time")], stop="tool_use")[1]
    broken = streamed([use("time")], stop="max_tokens")[1]

    assert [call.arguments for call in whole.content] == ["{}"]  # type: ignore[union-attr]
    assert [call.arguments for call in broken.content] == [""]  # type: ignore[union-attr]


def test_cached_tokens_are_tokens_of_the_prompt_and_the_last_report_counts() -> None:
    usage = {"input_tokens": 10, "cache_creation_input_tokens": 2, "cache_read_input_tokens": 100, "output_tokens": 5}
    counted = result_of(body(text("a"), usage={**usage, "output_tokens_details": {"thinking_tokens": 3}})).usage

    assert (counted.prompt_tokens, counted.completion_tokens) == (112, 5)
    assert (counted.cached_tokens, counted.reasoning_tokens) == (100, 3)
    assert (counted.cache_write_tokens, counted.cache_write_1h_tokens) == (2, 0)
    assert streamed([text("a")], cache_read_input_tokens=4, output_tokens=1)[1].usage.dump() == {
        "prompt_tokens": 9,
        "completion_tokens": 7,
        "cached_tokens": 4,
    }


def test_what_the_provider_keeps_for_an_hour_is_counted_apart() -> None:
    kept = {"ephemeral_5m_input_tokens": 2, "ephemeral_1h_input_tokens": 3}
    usage = {"input_tokens": 1, "cache_creation_input_tokens": 5, "output_tokens": 1, "cache_creation": kept}
    counted = result_of(body(text("a"), usage=usage)).usage

    assert (counted.prompt_tokens, counted.cache_write_tokens, counted.cache_write_1h_tokens) == (6, 5, 3)
    assert (counted + counted).cache_write_1h_tokens == 6


def test_a_thought_without_a_signature_is_not_kept() -> None:
    answer = result_of(body({"type": "thinking", "thinking": "hm"}, text("a")))

    assert (answer.thought, answer.provider_data) == ("hm", None)


def test_text_that_looks_like_a_tag_is_text() -> None:
    assert streamed([text(""), {"type": "text_delta", "text": "<think>a</think>"}])[0] == "<think>a</think>"


def test_tools_of_the_provider_are_no_calls_of_ours() -> None:
    tool = {"type": "server_tool_use", "id": "s1", "name": "search", "input": {}}
    found = {"type": "web_search_tool_result", "tool_use_id": "s1", "content": []}
    query = {"type": "input_json_delta", "partial_json": '{"q": 1}'}

    words, answer = streamed([text("a")], [tool, query], [found], [text("b")])

    assert words == answer.content == "ab"
    assert answer.provider_data == {"anthropic": [text("a"), {**tool, "input": {"q": 1}}, found]}
    message = AssistantMessage(content="ab", source="b", provider_data=answer.provider_data)
    assert json.loads(encode_message(message))["content"][-1] == text("b")


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"content": None},
        {"content": "text"},
        {"content": [3]},
        body({"type": "text", "text": 3}),
        body({"type": "tool_use", "id": "1", "input": {}}),
        body({"type": "tool_use", "id": 1, "name": "x", "input": {}}),
        body({"type": "tool_use", "id": "1", "name": "x", "input": [1]}),
        body({"type": "thinking", "thinking": {}}),
    ],
)
def test_a_body_that_breaks_the_protocol_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        decode_response(data)


def test_an_error_inside_an_answer_is_raised_with_its_words_and_its_request() -> None:
    data = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}, "request_id": "req_1"}

    with pytest.raises(ModelError, match="Overloaded") as failed:
        decode_response(data)

    assert failed.value.request_id == "req_1"


def test_a_stream_that_ends_early_is_incomplete_and_one_that_says_why_it_stops_is_not() -> None:
    decoder = MessagesDecoder()
    decoder.feed(
        "", json.dumps({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}})
    )
    with pytest.raises(IncompleteResponse):
        decoder.end()
    decoder.feed("", json.dumps({"type": "message_delta", "delta": {"stop_reason": "end_turn"}}))

    assert decoder.end() == ""
    assert decoder.feed("", "[DONE]") == ""
    assert decoder.whole().text == "a"


def test_events_for_somebody_else_are_skipped() -> None:
    decoder = MessagesDecoder()

    assert decoder.feed("vendor", "not json") == decoder.feed("ping", '{"type": "ping"}') == decoder.feed("", " ") == ""
    assert decoder.feed("", '{"type": "content_block_delta", "index": 0, "delta": {"type": "new_delta"}}') == ""
    with pytest.raises(ProtocolError):
        decoder.feed("message_delta", "not json")


def test_blocks_that_share_an_index_are_told_apart() -> None:
    decoder = MessagesDecoder()
    for name in ("a", "b"):
        begin = {"type": "content_block_start", "index": 0, "content_block": use(name, f"t{name}", x=1)}
        decoder.feed("", json.dumps(begin))

    assert [call.name for call in decoder.whole().calls] == ["a", "b"]


values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)
names = st.sampled_from(
    "type index delta content_block text thinking signature partial_json input id name usage message error "
    "stop_reason stop_details input_tokens output_tokens_details content".split()
)
kinds = st.sampled_from(
    "message_start message_delta message_stop content_block_start content_block_delta content_block_stop text "
    "thinking redacted_thinking tool_use server_tool_use text_delta thinking_delta signature_delta input_json_delta "
    "error overloaded_error refusal".split()
)
chunks = st.recursive(values | kinds, lambda inner: st.dictionaries(names, inner, max_size=5), max_leaves=12)


@given(st.lists(st.dictionaries(names, chunks, max_size=5), max_size=6))
def test_no_json_whatever_raises_anything_but_an_error_of_ours(stream: list[dict[str, Any]]) -> None:
    decoder = MessagesDecoder()
    try:
        for chunk in stream:
            decoder.feed("", json.dumps(chunk))
        decoder.end()
        json.dumps(decoder.whole().result(REASONS).dump())
    except (ModelError, Again):
        pass
    for chunk in stream:
        try:
            json.dumps(decode_response(chunk).result(REASONS).dump())
        except ModelError:
            pass


# --- errors


async def test_an_overload_at_the_head_of_a_stream_is_tried_again() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}, "request_id": "req_1"}
    replies = [sse_reply(error, done=False), sse_reply(*events([text("hi")]), done=False)]
    async with Loopback(replies) as server:
        async with client(base_url=server.url, max_retries=1, _waiting=Hurry()) as model:
            *_, answer = [item async for item in model.create_stream(QUESTION)]
    assert isinstance(answer, CreateResult)
    assert answer.content == "hi"

    async with Loopback(replies[:1]) as server, client(base_url=server.url) as model:
        with pytest.raises(ModelError, match="Overloaded") as failed:
            _ = [item async for item in model.create_stream(QUESTION)]
    assert (failed.value.request_id, failed.value.provider) == ("req_1", "127.0.0.1")


async def test_an_overload_in_a_stream_that_nobody_asked_for_is_named_too() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    async with Loopback([sse_reply(error, done=False)]) as server, client(base_url=server.url) as model:
        with pytest.raises(ModelError, match="Overloaded") as failed:
            await model.create(QUESTION)

    assert (failed.value.provider, failed.value.status) == ("127.0.0.1", 200)


class Hurry:
    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=timezone.utc)

    async def sleep(self, seconds: float) -> None:
        return None


async def test_an_error_in_the_midst_of_a_stream_has_what_came_before_it() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    begun = events([text(""), {"type": "text_delta", "text": "One moment"}])[:3]
    async with Loopback([sse_reply(*begun, error, done=False)]) as server, client(base_url=server.url) as model:
        with pytest.raises(ModelError, match="Overloaded") as failed:
            _ = [item async for item in model.create_stream(QUESTION)]

    assert failed.value.partial == "One moment"


async def test_an_overloaded_server_is_tried_again_and_named() -> None:
    busy = json_reply({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, 529)
    async with Loopback([busy, json_reply(body(text("hi")))]) as server:
        async with client(base_url=server.url, max_retries=1, _waiting=Hurry()) as model:
            assert (await model.create(QUESTION)).content == "hi"
    async with Loopback([busy]) as server, client(base_url=server.url) as model:
        with pytest.raises(ServerError, match=r"529.*Overloaded"):
            await model.create(QUESTION)


async def test_a_prompt_that_is_too_long_is_said_with_what_to_do() -> None:
    words = "prompt is too long: 3 tokens > 2 maximum"
    reply = json_reply({"error": {"type": "invalid_request_error", "message": words}, "request_id": "req_9"}, 400)
    async with Loopback([reply]) as server, client(base_url=server.url) as model:
        with pytest.raises(ModelError, match="fewer or shorter messages") as failed:
            await model.create(QUESTION)

    assert failed.value.request_id == "req_9"


# --- streams


async def test_a_stream_gives_thoughts_and_text_as_they_come_and_then_the_whole() -> None:
    thinking = [{"type": "thinking", "thinking": ""}, {"type": "thinking_delta", "thinking": "h"}]
    thinking += [{"type": "thinking_delta", "thinking": "m"}, {"type": "signature_delta", "signature": "c2ln"}]
    words = [text(""), *({"type": "text_delta", "text": each} for each in "abc")]
    async with Loopback([sse_reply(*events(thinking, words), done=False)]) as server:
        async with client(base_url=server.url) as model:
            *pieces, answer = [item async for item in model.create_stream(QUESTION)]

    assert pieces == ["h", "m", "a", "b", "c"]
    assert [isinstance(piece, ThoughtChunk) for piece in pieces] == [True, True, False, False, False]
    assert isinstance(answer, CreateResult)
    assert (answer.content, answer.thought) == ("abc", "hm")
    assert answer.provider_data == {"anthropic": [THOUGHT], "by": "127.0.0.1 claude-sonnet-4-5"}
    assert server.requests[0].json["stream"] is True


async def test_a_server_that_does_not_stream_is_understood() -> None:
    async with Loopback([json_reply(body(THOUGHT, text("hi")))]) as server, client(base_url=server.url) as model:
        items = [item async for item in model.create_stream(QUESTION)]

    assert items[:2] == ["hm", "hi"]


async def test_a_stream_that_breaks_off_has_what_came_of_it() -> None:
    half = events([text(""), {"type": "text_delta", "text": "One"}])[:3]
    async with Loopback([sse_reply(*half, done=False)]) as server, client(base_url=server.url) as model:
        with pytest.raises(IncompleteResponse) as failed:
            _ = [item async for item in model.create_stream(QUESTION)]

    assert failed.value.partial == "One"


# --- clients


async def test_the_address_the_key_and_the_version_are_sent() -> None:
    async with Loopback([json_reply(body(text("hi")))]) as server:
        for options in ({"api_key": KEY}, {"api_key": None, "auth_token": "tok-123456"}):
            for base in (server.url, server.url.removesuffix("/v1") + "/", server.url.removesuffix("/v1") + "/v1/"):
                async with client(base_url=base, default_headers={"X-Mine": "1"}, **options) as model:
                    await model.create(QUESTION)

    assert {request.path for request in server.requests} == {"/v1/messages"}
    first, last = server.requests[0].headers, server.requests[-1].headers
    assert (first["x-api-key"], first["anthropic-version"], first["x-mine"]) == (KEY, "2023-06-01", "1")
    assert last["authorization"] == "Bearer tok-123456"
    assert "x-api-key" not in last


def test_a_missing_key_is_said_in_three_lines_and_no_other_hosts_key_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "")
    with pytest.raises(AuthenticationError, match="ANTHROPIC_API_KEY") as missing:
        AnthropicChatCompletionClient(model="claude-sonnet-4-5")
    assert len(str(missing.value).splitlines()) == 3

    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    with pytest.raises(AuthenticationError, match="DEEPSEEK_API_KEY"):
        AnthropicChatCompletionClient(model="deepseek-chat", base_url="https://api.deepseek.com/anthropic")


def test_keys_and_addresses_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "https://proxy.example.com/anthropic")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "tok-123456")
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)

    by_token = AnthropicChatCompletionClient(model="claude-sonnet-4-5")
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    by_key = create_client("anthropic:claude-sonnet-4-5", temperature=0.5)

    assert by_token._url == "https://proxy.example.com/anthropic/v1/messages"
    assert (by_token._token, "x-api-key" in by_token._headers) == ("tok-123456", False)
    assert isinstance(by_key, AnthropicChatCompletionClient)
    assert by_key._headers["x-api-key"] == KEY
    assert KEY not in repr(by_key) + repr(by_token)


@pytest.mark.parametrize(
    "options",
    [
        {"stream": True},
        {"messages": []},
        {"max_tokens": 0},
        {"max_tokens": "9"},
        {"tools": "x"},
        {"thinking": True},
        {"api_key": "a b"},
    ],
)
def test_an_argument_that_cannot_work_is_refused_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        client(**options)


def test_autogens_document_of_the_client_loads() -> None:
    document = {
        "provider": "autogen_ext.models.anthropic.AnthropicChatCompletionClient",
        "component_type": "model",
        "config": {"model": "claude-3-7-sonnet-20250219", "api_key": KEY, "max_tokens": 500, "thinking": None},
    }

    loaded = Component.load_component(document)

    assert isinstance(loaded, AnthropicChatCompletionClient)
    assert loaded._parameters["max_tokens"] == 500


def test_what_is_known_of_the_models_comes_from_their_names() -> None:
    assert client(model="claude-sonnet-4-5").model_info["family"] == "claude-4-sonnet"
    assert client(model="claude-3-5-haiku-latest").remaining_tokens([]) == 200_000


# --- clouds


async def test_bedrock_is_asked_with_its_key_at_its_region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "bedrock-123456")
    made = AnthropicBedrockChatCompletionClient(model="anthropic.claude-sonnet-4-5")
    assert made._url == "https://bedrock-runtime.eu-west-1.amazonaws.com/anthropic/v1/messages"
    async with Loopback([json_reply(body(text("hi")))]) as server:
        async with AnthropicBedrockChatCompletionClient(model="anthropic.claude-3", base_url=server.url) as model:
            await model.create(QUESTION)

    assert server.requests[0].headers["authorization"] == "Bearer bedrock-123456"
    assert server.requests[0].json["model"] == "anthropic.claude-3"


async def test_bedrock_takes_signed_requests_as_autogen_sends_them() -> None:
    info = {"aws_access_key": "AKID1234", "aws_secret_key": "secret99", "aws_session_token": "tok", "aws_region": "r"}
    async with Loopback([json_reply(body(text("hi")))]) as server:
        options: dict[str, Any] = {"base_url": server.url, "bedrock_info": info, "_waiting": Hurry()}
        async with AnthropicBedrockChatCompletionClient(model="anthropic.claude-3", **options) as model:
            await model.create(QUESTION)

    headers = server.requests[0].headers
    assert headers["x-amz-date"] == "20260101T000000Z"
    assert "AKID1234/20260101/r/bedrock/aws4_request" in headers["authorization"]
    with pytest.raises(ConfigError, match="belong together"):
        AnthropicBedrockChatCompletionClient(model="m", aws_region="r", aws_access_key="a")


def test_a_signature_is_the_one_that_aws_publishes_for_its_example() -> None:
    keys = ("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", None)
    moment = datetime(2015, 8, 30, 12, 36, tzinfo=timezone.utc)

    headers = signature(Request("https://example.amazonaws.com/", {}, b""), keys, "us-east-1", "service", moment)

    assert headers["authorization"].endswith("5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b")


async def test_vertex_is_asked_at_the_address_of_the_model_with_a_fresh_token() -> None:
    tokens = iter(["tok-1", "tok-2"])

    async def token() -> str:
        return next(tokens)

    stream = sse_reply(*events([text("hi")]), done=False)
    async with Loopback([json_reply(body(text("hi"))), stream]) as server:
        options: dict[str, Any] = {"project": "p", "region": "us-east5", "base_url": server.url}
        async with AnthropicVertexChatCompletionClient(
            model="claude-sonnet-4@20250514", token_provider=token, **options
        ) as model:
            await model.create(QUESTION)
            _ = [item async for item in model.create_stream(QUESTION)]

    place = "/projects/p/locations/us-east5/publishers/anthropic/models/claude-sonnet-4@20250514:"
    assert [request.path.partition("/projects")[2] for request in server.requests] == [
        place.removeprefix("/projects") + verb for verb in ("rawPredict", "streamRawPredict")
    ]
    assert [request.headers["authorization"] for request in server.requests] == ["Bearer tok-1", "Bearer tok-2"]
    assert "model" not in server.requests[0].json
    assert server.requests[0].json["anthropic_version"] == "vertex-2023-10-16"


def test_the_clouds_say_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_BEARER_TOKEN_BEDROCK", "GOOGLE_CLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="AWS_REGION"):
        AnthropicBedrockChatCompletionClient(model="anthropic.claude-3")
    with pytest.raises(AuthenticationError, match="AWS_BEARER_TOKEN_BEDROCK"):
        AnthropicBedrockChatCompletionClient(model="anthropic.claude-3", aws_region="us-east-1")
    with pytest.raises(ConfigError, match="GOOGLE_CLOUD_PROJECT"):
        AnthropicVertexChatCompletionClient(model="claude-3", auth_token="t")
    with pytest.raises(ConfigError, match="token_provider"):
        AnthropicVertexChatCompletionClient(model="claude-3", project="p")
    url = AnthropicVertexChatCompletionClient(model="claude-3", project="p", auth_token="t")._url
    assert url.startswith("https://aiplatform.googleapis.com/v1/projects/p/locations/global/")
