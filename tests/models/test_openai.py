"""OpenAI's chat protocol: what is asked, what is understood, and how the clients are set up."""

from __future__ import annotations

import asyncio
import gc
import json
from dataclasses import dataclass, field, make_dataclass
from itertools import pairwise
from typing import Any, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopback import Loopback, json_reply, sse_reply
from tinygen import codec
from tinygen.cancellation import CancellationToken
from tinygen.errors import (
    AuthenticationError,
    ConfigError,
    IncompleteResponse,
    ModelError,
    ModelTimeout,
    ProtocolError,
)
from tinygen.messages import (
    AssistantMessage,
    CreateResult,
    FunctionCall,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    Image,
    SystemMessage,
    TopLogprob,
    UserMessage,
)
from tinygen.models.asks import one_system_message
from tinygen.models.chat import REASONS, ChatDecoder, decode_response, encode_message, response_format
from tinygen.models.families import ModelFamily, known_info
from tinygen.models.openai import AzureOpenAIChatCompletionClient, OpenAIChatCompletionClient
from tinygen.models.schemas import strict_schema
from tinygen.models.texts import MessageTexts

KEY = "sk-0123456789"
LOCAL = "http://localhost:8000/v1"
QUESTION = [UserMessage(content="hello", source="user")]
PICTURE = Image(b"\x89PNG\r\n\x1a\n" + bytes(8))
WEATHER: dict[str, Any] = {
    "name": "weather",
    "description": "Tells the weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
ANSWER = {"choices": [{"message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]}


def client(**options: Any) -> OpenAIChatCompletionClient:
    return OpenAIChatCompletionClient(**{"model": "m", "api_key": KEY, "base_url": LOCAL, "max_retries": 0, **options})


async def sent_by(messages: Any = QUESTION, options: dict[str, Any] | None = None, **call: Any) -> dict[str, Any]:
    """The body of the request that a client with these options makes for this call."""
    async with Loopback([json_reply(ANSWER)]) as server:
        async with client(base_url=server.url, **options or {}) as model:
            await model.create(messages, **call)
    body: dict[str, Any] = server.requests[0].json
    return body


def call_of(name: str = "weather", arguments: Any = "{}", identity: Any = "c1", **more: Any) -> dict[str, Any]:
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}, **more}


def body(message: dict[str, Any], finish: Any = "stop", **choice: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": message, "finish_reason": finish, **choice}]}


def result_of(data: dict[str, Any]) -> CreateResult:
    return decode_response(data).result(REASONS)


def streamed(*deltas: dict[str, Any], finish: str | None = "stop") -> tuple[list[str], CreateResult]:
    decoder = ChatDecoder()
    texts = [decoder.feed("", json.dumps({"choices": [{"delta": delta}]})) for delta in deltas]
    if finish:
        decoder.feed("", json.dumps({"choices": [{"delta": {}, "finish_reason": finish}]}))
    texts.append(decoder.end())
    return [text for text in texts if text], decoder.whole().result(REASONS)


# --- what is asked


def test_every_kind_of_message_is_encoded_as_the_protocol_says() -> None:
    call = FunctionCall(id="c1", arguments='{"city": "Rom"}', name="weather")
    results = [FunctionExecutionResult(content=text, name="weather", call_id=f"c{text}") for text in "12"]
    messages = [
        SystemMessage(content="be brief"),
        UserMessage(content=["what is", PICTURE], source="Ann Lee"),
        AssistantMessage(content=[call], thought="I look it up", source="bot"),
        FunctionExecutionResultMessage(content=results),
        AssistantMessage(content="sunny ☀", source="bot"),
    ]

    text = ",".join(encode_message(message) for message in messages)

    wire_call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rom"}'}}
    picture = {"type": "image_url", "image_url": {"url": PICTURE.data_uri, "detail": "auto"}}
    assert json.loads(f"[{text}]") == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "what is"}, picture], "name": "Ann_Lee"},
        {"role": "assistant", "content": "I look it up", "tool_calls": [wire_call], "name": "bot"},
        {"role": "tool", "content": "1", "tool_call_id": "c1"},
        {"role": "tool", "content": "2", "tool_call_id": "c2"},
        {"role": "assistant", "content": "sunny ☀", "name": "bot"},
    ]


@pytest.mark.parametrize(
    ("source", "name"), [("Bob Smith", "Bob_Smith"), ("é!", "__"), ("x" * 80, "x" * 64), ("a-b_C9", "a-b_C9")]
)
def test_names_are_made_to_fit_the_protocol(source: str, name: str) -> None:
    assert json.loads(encode_message(UserMessage(content="", source=source)))["name"] == name


def test_who_said_it_can_be_left_out_or_put_into_the_text() -> None:
    plain = encode_message(UserMessage(content="hello", source="ann"), names=False, prefixes=True)
    pictures = encode_message(UserMessage(content=[PICTURE, "hello"], source="ann"), names=False, prefixes=True)

    assert json.loads(plain) == {"role": "user", "content": "ann said:\nhello"}
    assert json.loads(pictures)["content"][1] == {"type": "text", "text": "ann said:\nhello"}


async def test_tools_and_settings_go_into_the_request() -> None:
    sent = await sent_by(
        options={"temperature": 0.5, "parallel_tool_calls": False},
        tools=[WEATHER],
        tool_choice=WEATHER,
        extra_create_args={"seed": 7, "temperature": 1},
    )

    assert sent == {
        "model": "m",
        "temperature": 1,
        "seed": 7,
        "parallel_tool_calls": False,
        "tools": [{"type": "function", "function": WEATHER}],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "messages": [{"role": "user", "content": "hello", "name": "user"}],
    }


async def test_the_names_of_tools_come_back_as_each_request_gave_them() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "read_file", "arguments": "{}"}}
    reply = json_reply({"choices": [{"message": {"tool_calls": [call]}, "finish_reason": "tool_calls"}]})
    async with Loopback([reply]) as server, client(base_url=server.url) as model:
        answers = [await model.create(QUESTION, tools=[{"name": name}]) for name in ("read.file", "read_file")]

    assert [request.json["tools"][0]["function"]["name"] for request in server.requests] == ["read_file"] * 2
    assert [answer.content[0].name for answer in answers] == ["read.file", "read_file"]  # type: ignore[union-attr]


async def test_without_tools_nothing_is_said_about_tools() -> None:
    sent = await sent_by(options={"parallel_tool_calls": False}, tool_choice="required")

    assert set(sent) == {"model", "messages"}


async def test_a_stream_asks_for_usage_unless_told_otherwise() -> None:
    async with Loopback([sse_reply({"choices": [{"delta": {}, "finish_reason": "stop"}]})]) as server:
        for options, call in [({}, {}), ({"stream_options": None}, {}), ({}, {"include_usage": False})]:
            async with client(base_url=server.url, **options) as model:
                _ = [item async for item in model.create_stream(QUESTION, **call)]

    assert [request.json.get("stream_options") for request in server.requests] == [{"include_usage": True}, None, None]
    assert all(request.json["stream"] for request in server.requests)


async def test_a_half_surrogate_in_a_message_does_not_stop_the_request() -> None:
    sent = await sent_by([UserMessage(content="a\ud83d", source="user")])

    assert sent["messages"][0]["content"] == "a\ufffd"


async def test_system_messages_are_joined_for_a_model_that_takes_one() -> None:
    info = {"vision": False, "function_calling": False, "json_output": False, "family": "x"}
    messages = [SystemMessage(content="a"), *QUESTION, SystemMessage(content="b")]

    sent = await sent_by(messages, {"model_info": info})

    assert [each["content"] for each in sent["messages"]] == ["a\nb", "hello"]
    assert one_system_message(messages[:2]) is not None
    assert (await sent_by(messages))["messages"][2] == {"role": "system", "content": "b"}


def test_a_message_is_encoded_once_as_long_as_it_stays_what_it_is() -> None:
    made: list[Any] = []
    texts = MessageTexts(lambda message: made.append(message) or str(len(made)))  # type: ignore[func-returns-value]
    calls = [FunctionCall(id="1", arguments="{}", name="a")]
    messages = [UserMessage(content="a", source="u"), AssistantMessage(content=calls, source="b")]

    assert texts.texts(messages) == texts.texts(messages) == ["1", "2"]
    messages[0].content = "b"
    calls.append(FunctionCall(id="2", arguments="{}", name="b"))
    assert texts.texts(messages) == ["3", "4"]
    del messages[:]
    made.clear()
    gc.collect()
    assert texts._known == {}


# --- structured answers


class Step(TypedDict):
    text: str


@dataclass
class Plan:
    goal: str
    steps: list[Step]
    note: str | None = None
    weights: list[int] = field(default_factory=list)


@dataclass
class Open:
    counts: dict[str, int]


def test_a_type_becomes_a_schema_by_the_strict_rules() -> None:
    made = response_format(Plan)["json_schema"]

    assert (made["name"], made["strict"]) == ("Plan", True)
    assert made["schema"]["required"] == ["goal", "steps", "note", "weights"]
    assert made["schema"]["additionalProperties"] is False
    assert made["schema"]["properties"]["steps"]["items"]["required"] == ["text"]
    assert '"default"' not in json.dumps(made)


def test_a_type_with_free_keys_is_not_held_to_the_strict_rules() -> None:
    made = response_format(Open)["json_schema"]

    assert made == {"name": "Open", "schema": codec.schema(Open), "strict": False}


async def test_json_output_holds_the_model_to_json_or_to_a_type() -> None:
    whatever = await sent_by(json_output=True)
    plan = await sent_by(json_output=Plan)
    by_client = await sent_by(options={"response_format": Plan})
    neither = await sent_by(json_output=False)

    assert whatever["response_format"] == {"type": "json_object"}
    assert plan["response_format"] == by_client["response_format"] == response_format(Plan)
    assert "response_format" not in neither


# --- arguments that cannot be


INFO = {"vision": False, "function_calling": False, "json_output": False, "family": "x", "structured_output": False}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ({"tools": [WEATHER]}, "function_calling"),
        ({"json_output": True}, "json_output"),
        ({"json_output": Plan}, "structured_output"),
        ({"messages": [UserMessage(content=[PICTURE], source="ann")]}, "vision.*'ann'"),
        ({"tool_choice": "maybe"}, "'auto', 'required', 'none'"),
        ({"json_output": "yes"}, "json_output must be"),
        ({"extra_create_args": {"n": 2}}, "'n'"),
        ({"extra_create_args": {"user": object()}}, "JSON"),
        ({"messages": ["hello"]}, "not a message"),
    ],
)
async def test_what_the_model_cannot_do_is_refused_before_anything_is_sent(call: dict[str, Any], words: str) -> None:
    model = client(model_info=INFO)
    with pytest.raises(ConfigError, match=words):
        await model.create(**{"messages": QUESTION, **call})
    with pytest.raises(ConfigError, match=words):
        await anext(model.create_stream(**{"messages": QUESTION, **call}))


async def test_the_tool_to_call_must_be_among_the_tools() -> None:
    with pytest.raises(ConfigError, match="did you mean 'weather'"):
        await client().create(QUESTION, tools=[WEATHER], tool_choice={"name": "wether"})


async def test_text_in_parts_is_fine_for_a_model_without_vision() -> None:
    sent = await sent_by([UserMessage(content=["a", "b"], source="ann")], {"model_info": INFO})

    assert [part["text"] for part in sent["messages"][0]["content"]] == ["a", "b"]


@pytest.mark.parametrize("name", ["stream", "messages", "function_call", "functions", "n"])
def test_fields_that_the_client_sets_itself_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        client(**{name: 2})


# --- what is understood


def test_text_beside_calls_is_the_thought() -> None:
    result = result_of(
        body({"content": "let me see", "reasoning_content": "hmm", "tool_calls": [call_of()]}, "tool_calls")
    )

    assert result.content == [FunctionCall(id="c1", arguments="{}", name="weather")]
    assert (result.thought, result.finish_reason) == ("hmm\nlet me see", "function_calls")


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("content_filter", "content_filter"),
        ("odd", "unknown"),
        (None, "unknown"),
        (3, "unknown"),
    ],
)
def test_finish_reasons_are_translated_and_kept(word: Any, reason: str) -> None:
    answer = decode_response(body({"content": "hi"}, word))

    assert answer.result(REASONS).finish_reason == reason
    assert answer.finish == (word if isinstance(word, str) else "unknown" if word else None)


@pytest.mark.parametrize("thinking", ["reasoning_content", "reasoning"])
def test_thinking_in_a_field_of_its_own_is_the_thought(thinking: str) -> None:
    texts, result = streamed({thinking: "a"}, {thinking: "b"}, {"content": "c"})

    assert (texts, result.content, result.thought) == (["c"], "c", "ab")
    assert result_of(body({"content": "c", thinking: "ab"})).thought == "ab"


def test_thinking_parts_of_the_content_are_the_thought() -> None:
    content = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "yes"}]

    assert streamed({"content": content})[1] == result_of(body({"content": content}))
    assert (result_of(body({"content": content})).content, result_of(body({"content": content})).thought) == (
        "yes",
        "hm",
    )


TAGGED = "\n<think>\nhm, 1 < 2\n</think>\n\nyes <think>!"


@given(st.lists(st.integers(1, len(TAGGED) - 1), max_size=8))
def test_thinking_in_tags_at_the_head_is_the_thought(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(TAGGED)]
    texts, result = streamed(*({"content": TAGGED[a:b]} for a, b in pairwise(edges)))

    assert ("".join(texts), result.content, result.thought) == ("yes <think>!", "yes <think>!", "\nhm, 1 < 2\n")
    assert result == result_of(body({"content": TAGGED}))


def test_text_that_only_looks_like_a_tag_stays_text() -> None:
    assert streamed({"content": "<thi"})[1].content == "<thi"
    assert streamed({"content": " "}, {"content": "<"}, {"content": "b>"})[0] == [" <b>"]
    assert streamed({"content": "<think>cut"}, finish="length")[1].thought == "cut"


def test_a_refusal_is_the_content() -> None:
    texts, result = streamed({"refusal": "I "}, {"refusal": "cannot"})

    assert (texts, result.content) == (["I ", "cannot"], "I cannot")
    assert result_of(body({"content": None, "refusal": "no"})).content == "no"


def test_ids_that_are_missing_or_used_twice_are_replaced() -> None:
    calls = [call_of(identity=identity) for identity in ("c1", "c1", "", None)]
    result = result_of(body({"tool_calls": calls}, "tool_calls"))

    identities = [call.id for call in result.content]  # type: ignore[union-attr]
    assert identities[0] == "c1"
    assert len(set(identities)) == 4
    assert all(identities)


@pytest.mark.parametrize(
    ("arguments", "finish", "text"),
    [
        ({"city": "Rom"}, "tool_calls", '{"city":"Rom"}'),
        ("", "tool_calls", "{}"),
        (None, "stop", "{}"),
        ('{"city": "R', "length", '{"city": "R'),
        ("", "length", ""),
    ],
)
def test_arguments_are_text_and_complete_or_as_they_came(arguments: Any, finish: str, text: str) -> None:
    result = result_of(body({"tool_calls": [call_of(arguments=arguments)]}, finish))

    assert result.content[0].arguments == text  # type: ignore[union-attr]


def test_the_old_form_of_a_call_is_a_call() -> None:
    old = {"function_call": {"name": "weather", "arguments": "{}"}}

    assert result_of(body(old, "function_call")).content[0].name == "weather"  # type: ignore[union-attr]
    assert streamed(old, finish="function_call")[1].finish_reason == "function_calls"


@pytest.mark.parametrize(
    "fragments",
    [
        [call_of("a", "1"), call_of("b", "2", "c2")],
        [call_of("a", "1", None), call_of("b", "2", None)],
        [call_of("a", "1", "c1", index=0), call_of("b", "2", "c2", index=0)],
        [
            call_of("a", "", "c1", index=0),
            call_of("b", "2", "c2", index=1),
            {"index": 0, "function": {"arguments": "1"}},
        ],
        [
            call_of("a", "", "x1", index=0),
            {"id": "x2", "index": 0, "function": {"arguments": "1"}},
            call_of("b", "2", "y", index=1),
        ],
        [call_of("a", "", 1, index=0), call_of("a", "1", 1, index=0), call_of("b", "2", 2, index=1)],
        [call_of("b", "2", "c2", index=5), call_of("a", "1", "c1", index=3)],
    ],
)
def test_fragments_find_the_call_they_belong_to(fragments: list[dict[str, Any]]) -> None:
    _, apart = streamed(*({"tool_calls": [fragment]} for fragment in fragments))
    _, together = streamed({"tool_calls": fragments})

    for result in (apart, together):
        assert [(call.name, call.arguments) for call in result.content] == [("a", "1"), ("b", "2")]  # type: ignore[union-attr]


def test_a_pair_of_surrogates_may_be_torn_apart() -> None:
    assert streamed({"content": "a\ud83d"}, {"content": "\ude00b"})[0] == ["a", "😀b"]
    assert streamed({"content": "a\ud83d"})[1].content == "a\ufffd"
    assert streamed({"content": "\ude00"}, {"content": "x"})[1].content == "\ufffdx"


def test_probabilities_of_tokens_are_kept() -> None:
    token = {"token": "hi", "logprob": -0.5, "bytes": [104, 105], "top_logprobs": [{"token": "ho", "logprob": -2.0}]}
    result = result_of(body({"content": "hi"}, logprobs={"content": [token, "junk"]}))

    assert result.logprobs is not None
    assert len(result.logprobs) == 1
    assert result.logprobs[0].top_logprobs[0].logprob == -2.0  # type: ignore[index]


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"choices": []},
        {"choices": [{}]},
        {"choices": [{"message": {}}]},
        body({"content": 5}),
        body({"tool_calls": {}}),
        body({"tool_calls": [{"id": "c1"}]}),
        body({"tool_calls": [call_of(name="")]}),
        body({"tool_calls": [call_of(arguments=5)]}),
    ],
)
def test_a_body_that_breaks_the_protocol_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        decode_response(data)


def test_an_error_inside_an_answer_is_raised_with_its_words() -> None:
    with pytest.raises(ModelError, match=r"overloaded \(503\)"):
        decode_response({"error": {"message": "overloaded", "code": 503}})
    with pytest.raises(ModelError, match="gone"):
        decode_response({"object": "error", "message": "gone"})
    for data in ('{"message": "boom"}', '{"error": "boom"}', "boom"):
        with pytest.raises(ModelError, match="boom"):
            ChatDecoder().feed("error", data)


def test_a_stream_is_complete_with_a_reason_or_with_its_end_mark() -> None:
    decoder = ChatDecoder()
    with pytest.raises(ProtocolError):
        decoder.feed("", "[DONE]")
    decoder.feed("", '{"choices": [{"delta": {"content": "a"}}]}')
    with pytest.raises(IncompleteResponse):
        decoder.end()
    decoder.feed("", "[DONE]")
    assert decoder.feed("", '{"choices": [{"delta": {"content": "b"}}]}') == ""
    assert (decoder.end(), decoder.whole().text) == ("", "a")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10**20) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
DELTA = st.fixed_dictionaries(
    {},
    optional={
        "content": JSON,
        "refusal": JSON,
        "reasoning": JSON,
        "function_call": JSON,
        "tool_calls": JSON
        | st.lists(
            st.fixed_dictionaries(
                {"function": JSON | st.fixed_dictionaries({"name": JSON, "arguments": JSON})},
                optional={"id": JSON, "index": JSON},
            )
        ),
    },
)
CHOICE = st.fixed_dictionaries(
    {},
    optional={"index": JSON, "delta": JSON | DELTA, "message": JSON | DELTA, "finish_reason": JSON, "logprobs": JSON},
)
CHUNK = st.fixed_dictionaries({"choices": JSON | st.lists(CHOICE, max_size=2)}, optional={"usage": JSON, "error": JSON})


@given(CHUNK, st.lists(CHUNK, max_size=3))
def test_no_json_whatever_raises_anything_but_an_error_of_ours(
    whole: dict[str, Any], chunks: list[dict[str, Any]]
) -> None:
    decoder = ChatDecoder()
    try:
        json.dumps(result_of(whole).dump()).encode()
    except ModelError:
        pass
    try:
        for chunk in chunks:
            decoder.feed("", json.dumps(chunk))
        decoder.end()
        json.dumps(decoder.whole().result(REASONS).dump()).encode()
    except ModelError:
        pass


def test_arguments_nested_beyond_reason_are_refused() -> None:
    deep = "[" * 900 + "]" * 900
    with pytest.raises(ModelError):
        ChatDecoder().feed("", '{"choices": [{"delta": {"content": ' + "[" * 50_000)
    try:
        ChatDecoder().feed("", '{"choices": [{"delta": {"tool_calls": [{"function": {"arguments": ' + deep + "}}]}}]}")
    except ModelError:
        pass


# --- setting up


def test_what_is_known_of_a_model_comes_from_its_name() -> None:
    assert known_info("gpt-4o-mini-2024-07-18")["family"] == "gpt-4o"
    assert known_info("openai/gpt-3.5-turbo")["vision"] is False
    assert known_info("gemini-2.5-pro")["multiple_system_messages"] is False
    assert known_info("deepseek/deepseek-r1")["family"] == "r1"
    unknown = known_info("my-own-model")
    assert (unknown["family"], unknown["vision"], unknown["function_calling"]) == ("unknown", True, True)


def test_each_family_of_models_is_somebodys_or_unknown() -> None:
    families = {value for name, value in vars(ModelFamily).items() if name.isupper() and name != "ANY"}
    tests = [getattr(ModelFamily, f"is_{maker}") for maker in ("openai", "claude", "gemini", "llama", "mistral")]

    assert {each for each in families if sum(test(each) for test in tests) != 1} == {"r1", "unknown"}
    assert ModelFamily.is_openai(known_info("gpt-4.1-mini")["family"])


def test_a_model_info_that_says_too_little_is_told_what_is_missing_and_what_is_no_key_of_it() -> None:
    with pytest.raises(ConfigError, match=r"lacks 'vision', .*It holds 'visoin', which is none of its keys: vision, "):
        client(model_info={"visoin": True, "price": {}})


def test_model_info_given_by_hand_counts() -> None:
    model = client(
        model="gpt-4o", model_info={"vision": False, "function_calling": True, "json_output": True, "family": "z"}
    )

    assert (model.model_info["family"], model.model_info["vision"]) == ("z", False)
    assert model.model_info["structured_output"] is False
    with pytest.raises(ConfigError, match="'family'"):
        client(model_info={"vision": False, "function_calling": True, "json_output": True})


def test_a_missing_key_is_said_in_three_lines_and_no_other_hosts_key_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GROQ_API_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-openai")

    with pytest.raises(AuthenticationError) as failed:
        client(api_key=None, base_url="https://api.groq.com/openai/v1")

    what, why, remedy = str(failed.value).split("\n")
    assert "api.groq.com" in what
    assert "GROQ_API_KEY is not set" in why
    assert "api_key=" in remedy


@pytest.mark.parametrize(
    "base_url",
    [
        LOCAL,
        "http://127.0.0.1:1/v1",
        "http://[::1]:1/v1",
        "http://vllm:8000/v1",
        "http://192.168.1.5",
        "http://box.local",
    ],
)
def test_servers_nearby_need_no_key(base_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    assert "authorization" not in client(api_key=None, base_url=base_url)._headers
    assert "authorization" not in client(api_key="", base_url="https://models.example/v1")._headers


def test_keys_and_addresses_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "GROQ_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.setenv(name, f"{name.lower()}-value")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    ours, groq, gemini = (
        OpenAIChatCompletionClient(model="gpt-4o"),
        OpenAIChatCompletionClient(model="m", base_url="https://api.groq.com/openai/v1/"),
        OpenAIChatCompletionClient(model="gemini-2.5-pro"),
    )

    assert ours._url == "https://api.openai.com/v1/chat/completions"
    assert ours._headers["authorization"] == "Bearer openai_api_key-value"
    assert ours._headers["openai-organization"] == "openai_org_id-value"
    assert ours._headers["openai-project"] == "openai_project_id-value"
    assert groq._url == "https://api.groq.com/openai/v1/chat/completions"
    assert groq._headers["authorization"] == "Bearer groq_api_key-value"
    assert "openai-organization" not in groq._headers
    assert gemini._url.startswith("https://generativelanguage.googleapis.com/v1beta/openai/")
    assert gemini._headers["authorization"] == "Bearer gemini_api_key-value"
    monkeypatch.setenv("OPENAI_BASE_URL", "http://10.0.0.1/v1")
    assert OpenAIChatCompletionClient(model="gpt-4o")._url == "http://10.0.0.1/v1/chat/completions"


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="'localhost:8000'"):
        client(base_url="localhost:8000")


def test_a_client_does_not_show_its_key() -> None:
    model = client(default_headers={"X-Api-Key": "another-secret"})

    assert repr(model) == str(model) == "OpenAIChatCompletionClient(model='m')"


def test_tokens_are_counted_against_the_window_of_the_model() -> None:
    assert client(model="gpt-4").remaining_tokens(QUESTION) == 8_192 - client().count_tokens(QUESTION)
    assert client(model="something").remaining_tokens(QUESTION) > 100_000


async def test_azure_is_asked_at_its_deployment_with_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Loopback([json_reply(ANSWER)]) as server:
        monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", server.url.removesuffix("/v1") + "/")
        monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azure-secret")
        async with AzureOpenAIChatCompletionClient(
            model="gpt-4o", azure_deployment="mine", api_version="2024-06-01"
        ) as model:
            await model.create(QUESTION)
        async with AzureOpenAIChatCompletionClient(model="gpt-4o") as model:
            await model.create(QUESTION)

    assert server.requests[0].path == "/openai/deployments/mine/chat/completions?api-version=2024-06-01"
    assert server.requests[0].headers["api-key"] == "azure-secret"
    assert "authorization" not in server.requests[0].headers
    assert server.requests[1].path == "/openai/v1/chat/completions"


async def test_azure_takes_a_token_from_a_provider_for_each_request() -> None:
    tokens = iter(["first-token", "second-token"])

    async def provide() -> str:
        await asyncio.sleep(0)
        return next(tokens)

    async with Loopback([json_reply(ANSWER)]) as server:
        endpoint = server.url.removesuffix("/v1")
        model = AzureOpenAIChatCompletionClient(
            model="gpt-4o", azure_endpoint=endpoint, api_version="v1", azure_ad_token_provider=provide
        )
        await model.create(QUESTION)
        await model.create(QUESTION)
        await model.close()

    assert [request.headers["authorization"] for request in server.requests] == [
        "Bearer first-token",
        "Bearer second-token",
    ]


@pytest.mark.parametrize("by_token", [False, True])
async def test_a_provider_of_tokens_that_never_answers_is_ended_as_the_rest_of_a_call_is(by_token: bool) -> None:
    asked, ended, token = asyncio.Event(), asyncio.Event(), CancellationToken()

    async def provide() -> str:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return "late"

    model = AzureOpenAIChatCompletionClient(
        model="gpt-4o",
        azure_endpoint="http://127.0.0.1:9",
        azure_ad_token_provider=provide,
        timeout=30 if by_token else 0.05,
    )
    call = asyncio.ensure_future(model.create(QUESTION, cancellation_token=token))
    await asked.wait()
    if by_token:
        token.cancel()
    with pytest.raises(asyncio.CancelledError if by_token else ModelTimeout) as failed:
        await call

    assert ended.is_set()
    assert by_token or getattr(failed.value, "provider", "") == "azure"


def test_azure_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_OPENAI_ENDPOINT", raising=False)
    monkeypatch.delenv("AZURE_OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="AZURE_OPENAI_ENDPOINT"):
        AzureOpenAIChatCompletionClient(model="m")
    with pytest.raises(AuthenticationError, match="AZURE_OPENAI_API_KEY"):
        AzureOpenAIChatCompletionClient(model="m", azure_endpoint="https://x.openai.azure.com")


# --- what strangers send, and what callers give


@pytest.mark.parametrize("count", [2**53 + 1, 10**4000, -1, True, 1.5, float("inf"), "3", None])
def test_a_count_of_tokens_that_cannot_be_one_is_zero(count: Any) -> None:
    assert result_of({**body({"content": "x"}), "usage": {"prompt_tokens": count}}).usage.prompt_tokens == 0


@pytest.mark.parametrize("value", [True, float("inf"), 10**400, "-1", None])
def test_a_logprob_that_is_no_finite_number_is_left_out(value: Any) -> None:
    top = [{"token": "h", "logprob": value}, {"token": "h", "logprob": -1, "bytes": [256]}]
    tokens = [{"token": "h", "logprob": value}, {"token": "i", "logprob": -0.5, "bytes": "x", "top_logprobs": top}]

    (token,) = result_of(body({"content": "hi"}, logprobs={"content": tokens})).logprobs or []

    assert (token.token, token.bytes, token.top_logprobs) == ("i", None, [TopLogprob(-1, None)])


def test_calls_that_share_an_index_are_told_apart() -> None:
    def calls(*fragments: tuple[str, str]) -> list[tuple[str, str]]:
        deltas = [{"tool_calls": [{"index": 0, "function": {"name": n, "arguments": a}}]} for n, a in fragments]
        content = streamed(*deltas, finish="tool_calls")[1].content
        return [(call.name, call.arguments) for call in content if isinstance(call, FunctionCall)]

    assert calls(("a", "{}"), ("b", "{}")) == [("a", "{}"), ("b", "{}")]
    assert calls(("a", '{"x":1}'), ("a", '{"x":2}')) == [("a", '{"x":1}'), ("a", '{"x":2}')]
    assert calls(("a", '{"x"'), ("a", ":1}"), ("a", "")) == [("a", '{"x":1}')]
    assert calls(("get_", ""), ("weather", "{}")) == [("get_weather", "{}")]


@pytest.mark.parametrize("index", ["0", 0.0, True, []])
def test_an_index_that_is_no_whole_number_breaks_the_protocol(index: Any) -> None:
    choice = {"index": index, "message": {"content": "x"}, "delta": {"content": "x"}, "finish_reason": "stop"}

    for decode in (decode_response, lambda data: ChatDecoder().feed("", json.dumps(data))):
        with pytest.raises(ProtocolError, match="index"):
            decode({"choices": [choice]})


def test_an_answer_without_the_first_choice_is_none() -> None:
    with pytest.raises(ProtocolError, match="index 0"):
        decode_response({"choices": [{"index": 1, "message": {"content": "x"}, "finish_reason": "stop"}]})


def test_text_that_was_held_back_is_part_of_what_came() -> None:
    decoder = ChatDecoder()
    decoder.feed("", json.dumps({"choices": [{"delta": {"content": "<thi"}}]}))

    assert (decoder.text, decoder.partial) == ("", "<thi")


def test_a_refusal_among_text_stays_in_its_place() -> None:
    texts, result = streamed({"refusal": "a\ud83d"}, {"refusal": "\ude00"}, {"content": "b"}, {"refusal": "c"})

    assert "".join(texts) == result.content == "a😀bc"


def test_an_end_mark_with_spaces_is_one_and_foreign_events_are_skipped() -> None:
    decoder = ChatDecoder()
    assert decoder.feed("ping", "ping") == ""
    decoder.feed("", '{"choices": [], "usage": {"prompt_tokens": 3}}')
    decoder.feed("", "  [DONE]  ")

    assert decoder.done and decoder.complete
    with pytest.raises(ProtocolError):
        ChatDecoder().feed("message", "ping")


@dataclass
class Shelf:
    default: int
    properties: str = ""


@pytest.mark.parametrize("kind", [set[int], tuple[int, str], bytes, list, Any, dict[str, int]])
def test_what_strict_mode_does_not_know_is_sent_without_it(kind: Any) -> None:
    fields = make_dataclass("Fields", [("field", kind)])

    assert response_format(fields)["json_schema"]["strict"] is False


def test_a_schema_that_is_no_object_is_asked_for_as_any_json() -> None:
    assert response_format(list[int]) == {"type": "json_object"}  # type: ignore[arg-type]


def test_fields_with_the_names_of_keywords_are_kept() -> None:
    form = response_format(Shelf)["json_schema"]

    assert form["strict"] and list(form["schema"]["properties"]) == form["schema"]["required"] == [
        "default",
        "properties",
    ]


def test_a_deeply_nested_schema_is_closed_in_no_time() -> None:
    schema: dict[str, Any] = {"type": "integer", "default": 1}
    for _ in range(60):
        schema = {"type": "object", "properties": {"default": schema}}

    strict, closed = strict_schema(schema)

    assert closed and json.dumps(strict).count('"required": ["default"]') == 60


async def test_a_strict_tool_is_closed_or_sent_without_strictness() -> None:
    point = {"type": "object", "properties": {"x": {"type": "integer", "default": 0}}}
    parameters = [{"type": "object", "properties": {"p": each}} for each in (point, {})]
    tools: Any = [{"name": f"t{i}", "parameters": each, "strict": True} for i, each in enumerate(parameters)]

    first, second = [tool["function"] for tool in (await sent_by(tools=tools))["tools"]]

    inner = {**point, "properties": {"x": {"type": "integer"}}, "required": ["x"], "additionalProperties": False}
    assert first["strict"] and first["parameters"]["properties"]["p"] == inner
    assert (second["strict"], second["parameters"]) == (False, parameters[1])


@pytest.mark.parametrize(
    "options",
    [
        *({"max_retries": value} for value in ("2", None, -1, 1.5, True)),
        *({"max_retry_wait": value} for value in ("x", None, -1, float("nan"))),
        *({name: value} for name in ("timeout", "read_timeout", "connect_timeout") for value in (0, -1, "5", True)),
        *({"default_headers": value} for value in ({"x": 5}, {"x": "é"}, {"x": "a\nb"}, {"x y": "a"}, [("a", "b")])),
        *({"default_headers": {name: "5"}} for name in ("Content-Length", "transfer-encoding")),
        *({"base_url": f"http://{rest}/v1"} for rest in ("h:99999", "[::1", "a b", "h:abc", "e%zz", "h\n", "")),
        *({name: 5} for name in ("base_url", "model", "api_key", "model_info", "http_client")),
        {"model": ""},
    ],
)
def test_an_argument_that_cannot_work_is_refused_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        client(**options)


@pytest.mark.parametrize(
    "call",
    [
        {"tools": [5]},
        {"tools": [{}]},
        {"tools": 5},
        {"tool_choice": 5},
        {"tool_choice": {"x": 1}},
        {"extra_create_args": 5},
        {"extra_create_args": {"temperature": float("nan")}},
        {"messages": None},
        {"messages": [5]},
        *({"messages": [UserMessage(content=content, source="u")]} for content in (5, None, [b"x"])),  # type: ignore[arg-type]
        {"messages": [UserMessage(content="x", source=None)]},  # type: ignore[arg-type]
        {"messages": [SystemMessage(content=5)]},  # type: ignore[arg-type]
    ],
)
async def test_a_call_that_makes_no_sense_is_refused_before_it_is_sent(call: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        await client().create(**{"messages": QUESTION, **call})


async def test_an_argument_that_is_nested_too_deeply_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(200_000):
        deep = [deep]
    with pytest.raises(ConfigError):
        await client().create(QUESTION, extra_create_args={"a": deep})


def test_the_scheme_of_an_address_may_be_in_capitals_and_a_query_stays_at_its_end() -> None:
    assert client(base_url="HTTP://localhost:1/v1/?a=b")._url == "HTTP://localhost:1/v1/chat/completions?a=b"


def test_an_address_of_azure_that_is_none_is_refused() -> None:
    for endpoint in (5, "https://u:secret@a:0", "ftp://a"):
        with pytest.raises(ConfigError) as failed:
            AzureOpenAIChatCompletionClient(model="m", azure_endpoint=endpoint, api_key=KEY)  # type: ignore[arg-type]

        assert "secret" not in str(failed.value)
