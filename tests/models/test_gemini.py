"""Gemini's own protocol: what is asked, what is understood, what is kept, and how the client is set up."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopback import Loopback, Reply, json_reply, pieces, sse_reply
from recorded import check_calls, recorded, requests
from tinygen import AssistantAgent, codec
from tinygen.errors import (
    AuthenticationError,
    ConfigError,
    IncompleteResponse,
    ModelError,
    ProtocolError,
    RateLimitError,
    RequestError,
    ServerError,
)
from tinygen.messages import (
    AssistantMessage,
    CreateResult,
    FunctionCall,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    Image,
    LLMMessage,
    RequestUsage,
    SystemMessage,
    ThoughtChunk,
    UserMessage,
)
from tinygen.models import create_client
from tinygen.models.anthropic import AnthropicVertexChatCompletionClient
from tinygen.models.base import Waiting
from tinygen.models.gemini import GeminiChatCompletionClient
from tinygen.models.generate import REASONS, UNSIGNED, GeminiDecoder, decode_response, encode_message
from tinygen.models.sse import EventDecoder
from tinygen.models.wire import Answer

KEY = "AIza-0123456789"
QUESTION = [UserMessage(content="hello", source="user")]
PICTURE = Image(b"\x89PNG\r\n\x1a\n" + bytes(8))
WEATHER: dict[str, Any] = {
    "name": "weather",
    "description": "Tells the weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CLOCK: dict[str, Any] = {"name": "clock", "description": "Tells the time.", "parameters": {"properties": {}}}


def chunk(*parts: Any, finish: str | None = "STOP", **more: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], **more}


ANSWER = chunk({"text": "hi"})


def client(url: str = "http://localhost:8000/v1beta", **options: Any) -> GeminiChatCompletionClient:
    settings = {"model": "gemini-2.5-flash", "api_key": KEY, "base_url": url, "max_retries": 0, **options}
    return GeminiChatCompletionClient(**settings)


async def sent_by(messages: Any = QUESTION, options: dict[str, Any] | None = None, **call: Any) -> dict[str, Any]:
    """The body of the request that a client with these options makes for this call."""
    async with Loopback([json_reply(ANSWER)]) as server, client(server.url, **options or {}) as model:
        await model.create(messages, **call)
    body: dict[str, Any] = server.requests[0].json
    return body


def parts_of(message: LLMMessage, model: str = "gemini-2.5-flash", **options: Any) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = json.loads(f"[{encode_message(message, model, **options)}]")
    return parts


def result_of(*chunks: dict[str, Any]) -> CreateResult:
    return decode_response(*chunks).result(REASONS)


def streamed(*chunks: dict[str, Any]) -> tuple[list[str], CreateResult]:
    decoder = GeminiDecoder()
    texts = [decoder.feed("", json.dumps(each)) for each in chunks]
    texts.append(decoder.end())
    return [text for text in texts if text], decoder.whole().result(REASONS)


def asked(*calls: FunctionCall, kept: Any = None, thought: str | None = None) -> AssistantMessage:
    return AssistantMessage(content=list(calls), thought=thought, source="bot", provider_data=kept)


def answered(*results: tuple[str, str], name: str = "weather", error: bool = False) -> FunctionExecutionResultMessage:
    return FunctionExecutionResultMessage(
        content=[
            FunctionExecutionResult(content=text, name=name, call_id=identity, is_error=error)
            for identity, text in results
        ]
    )


# --- what is asked


async def test_a_conversation_becomes_instructions_and_contents_of_two_sides() -> None:
    call = FunctionCall(id="c1", arguments='{"city": "Rom"}', name="weather")
    other = FunctionCall(id="c2", arguments="{}", name="weather")
    talk = [
        SystemMessage(content="be brief"),
        UserMessage(content=["what is", PICTURE], source="ann"),
        asked(call, other, thought="I look it up"),
        answered(("c1", "sunny ☀"), ("c2", "rain")),
        UserMessage(content="thanks", source="ann"),
        UserMessage(content="and now?", source="bob"),
    ]

    sent = await sent_by([*talk, SystemMessage(content="in English")])

    assert sent["systemInstruction"] == {"parts": [{"text": "be brief\nin English"}]}
    picture = {"inlineData": {"mimeType": "image/png", "data": PICTURE.to_base64()}}
    results = [
        {"functionResponse": {"id": "c1", "name": "weather", "response": {"output": "sunny ☀"}}},
        {"functionResponse": {"id": "c2", "name": "weather", "response": {"output": "rain"}}},
    ]
    assert sent["contents"] == [
        {"role": "user", "parts": [{"text": "what is"}, picture]},
        {
            "role": "model",
            "parts": [
                {"text": "I look it up"},
                {"functionCall": {"id": "c1", "name": "weather", "args": {"city": "Rom"}}},
                {"functionCall": {"id": "c2", "name": "weather", "args": {}}},
            ],
        },
        {"role": "user", "parts": results},
        {"role": "user", "parts": [{"text": "thanks"}, {"text": "and now?"}]},
    ]


def test_an_error_of_a_tool_is_told_as_an_error() -> None:
    (part,) = parts_of(answered(("c1", "no such city"), error=True))

    assert part["functionResponse"]["response"] == {"error": "no such city"}


def test_ids_made_up_for_calls_without_one_are_not_sent() -> None:
    made_up = result_of(chunk({"functionCall": {"name": "weather"}})).content[0]
    assert isinstance(made_up, FunctionCall) and made_up.id

    (call,), (result,) = parts_of(asked(made_up)), parts_of(answered((made_up.id, "sunny")))

    assert "id" not in call["functionCall"] and "id" not in result["functionResponse"]


def test_arguments_that_are_no_object_are_sent_as_one() -> None:
    (part,) = parts_of(asked(FunctionCall(id="c1", arguments='{"city": "Ro', name="weather")))

    assert part["functionCall"]["args"] == {"invalid_json": '{"city": "Ro'}


def test_who_said_it_can_be_put_before_the_text() -> None:
    parts = parts_of(UserMessage(content=[PICTURE, "hello"], source="ann"), prefixes=True)

    assert parts[0] == {"text": "ann said:\n"}
    assert parts[2] == {"text": "hello"}


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [SystemMessage(content="be brief")],
        [UserMessage(content="", source="user")],
        [AssistantMessage(content="I begin", source="bot")],
        [*QUESTION, AssistantMessage(content="", source="bot")],
        [*QUESTION, AssistantMessage(content="my answer", source="bot")],
        [answered(("c1", "of a call that was cut off"))],
    ],
)
async def test_contents_begin_and_end_with_a_user_and_no_part_is_empty(messages: list[LLMMessage]) -> None:
    contents = (await sent_by(messages))["contents"]

    assert contents[0]["role"] == contents[-1]["role"] == "user"
    assert all(one["parts"] and "" not in [part.get("text") for part in one["parts"]] for one in contents)


async def test_settings_under_the_usual_names_are_sent_under_geminis() -> None:
    options: dict[str, Any] = {"temperature": 0.5, "max_tokens": 9, "stop": "END", "top_p": 0.9, "top_k": 3, "seed": 7}
    options |= {"presence_penalty": 0.1, "frequency_penalty": 0.2, "thinking_config": {"thinkingBudget": 0}}
    extra = {"temperature": 1, "logprobs": True, "top_logprobs": 2, "generation_config": {"mediaResolution": "LOW"}}
    safety = [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}]

    sent = await sent_by(options={**options, "safety_settings": safety, "seed": None}, extra_create_args=extra)

    assert sent["safetySettings"] == safety
    assert sent["generationConfig"] == {
        "temperature": 1,
        "maxOutputTokens": 9,
        "stopSequences": ["END"],
        "topP": 0.9,
        "topK": 3,
        "presencePenalty": 0.1,
        "frequencyPenalty": 0.2,
        "thinkingConfig": {"thinkingBudget": 0},
        "responseLogprobs": True,
        "logprobs": 2,
        "mediaResolution": "LOW",
    }


@pytest.mark.parametrize("name", ["contents", "system_instruction", "candidate_count", "n", "stream"])
async def test_what_the_client_sets_itself_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        client(**{name: 2})
    with pytest.raises(ConfigError, match=name):
        await client().create(QUESTION, extra_create_args={name: 2})


@pytest.mark.parametrize(
    ("choice", "config"),
    [
        ("auto", None),
        ("required", {"mode": "ANY"}),
        ("none", {"mode": "NONE"}),
        (WEATHER, {"mode": "ANY", "allowedFunctionNames": ["weather"]}),
    ],
)
async def test_a_choice_of_tools_is_told_in_geminis_words(choice: Any, config: Any) -> None:
    sent = await sent_by(
        tools=[WEATHER, CLOCK], tool_choice=choice, extra_create_args={"tools": [{"googleSearch": {}}]}
    )

    declared, search = sent["tools"]
    assert declared["functionDeclarations"] == [WEATHER, {"name": "clock", "description": "Tells the time."}]
    assert search == {"googleSearch": {}}
    assert sent.get("toolConfig") == (config and {"functionCallingConfig": config})


@dataclass
class Trip:
    city: str
    kind: Literal["work", "fun"]
    nights: int | None = None


@dataclass
class Tree:
    name: str
    children: list[Tree] = field(default_factory=list)


async def test_a_type_of_answers_becomes_a_schema_that_every_model_understands() -> None:
    config = (await sent_by(json_output=Trip))["generationConfig"]

    assert config["responseMimeType"] == "application/json"
    schema = config["responseSchema"]
    assert schema["properties"]["nights"] == {"type": "integer", "nullable": True}
    assert schema["properties"]["kind"] == {"type": "string", "enum": ["work", "fun"]}
    assert (schema["required"], "additionalProperties" in schema) == (["city", "kind"], False)


@pytest.mark.parametrize("output", [Tree, dict[str, int]])
async def test_a_type_that_schema_cannot_say_is_sent_as_json_schema(output: Any) -> None:
    config = (await sent_by(json_output=output))["generationConfig"]

    assert "responseSchema" not in config
    assert "$defs" in config["responseJsonSchema"] or "additionalProperties" in config["responseJsonSchema"]


async def test_json_without_a_schema_is_asked_for_by_its_media_type() -> None:
    assert (await sent_by(json_output=True))["generationConfig"] == {"responseMimeType": "application/json"}


async def test_older_models_that_have_tools_are_told_the_schema_in_words() -> None:
    older = await sent_by(json_output=Trip, tools=[WEATHER])
    newer = await sent_by(options={"model": "gemini-3-flash-preview"}, json_output=Trip, tools=[WEATHER])
    without = await sent_by(json_output=Trip, tools=[WEATHER], tool_choice="none")

    assert "generationConfig" not in older and '"city"' in older["systemInstruction"]["parts"][0]["text"]
    assert "responseSchema" in newer["generationConfig"] and newer["tools"]
    assert "responseSchema" in without["generationConfig"] and "tools" not in without


async def test_the_text_of_a_message_is_made_once() -> None:
    async with Loopback([json_reply(ANSWER)]) as server, client(server.url) as model:
        await model.create(QUESTION)
        text = model._conversations.fitted(QUESTION)[2][0]
        await model.create([*QUESTION, *QUESTION])

    assert model._conversations.fitted(QUESTION)[2][0] is text
    assert server.requests[1].json["contents"] == [{"role": "user", "parts": [{"text": "hello"}] * 2}]


# --- what is understood


def test_calls_without_ids_get_ids_and_stop_means_that_tools_are_wanted() -> None:
    call = {"functionCall": {"name": "weather", "args": {"city": "Köln"}}}

    result = result_of(chunk({"text": "I look."}, call, call, {"functionCall": {"name": "clock", "id": "x"}}))

    assert result.finish_reason == "function_calls"
    assert isinstance(result.content, list)
    assert [each.arguments for each in result.content] == ['{"city":"Köln"}', '{"city":"Köln"}', "{}"]
    assert len({each.id for each in result.content}) == 3 and result.content[2].id == "x"
    assert (result.thought, result.provider_data) == ("I look.", None)


def test_ids_that_occur_twice_are_told_apart() -> None:
    result = result_of(chunk(*[{"functionCall": {"name": "clock", "id": "0"}}] * 2))

    assert len({call.id for call in result.content if isinstance(call, FunctionCall)}) == 2


@pytest.mark.parametrize(
    ("body", "reason", "thought"),
    [
        ({"candidates": [{"content": {}, "finishReason": "SAFETY"}]}, "content_filter", None),
        ({"candidates": [{"finishReason": "RECITATION"}]}, "content_filter", None),
        ({"candidates": [{"content": {"role": "model"}, "finishReason": "MAX_TOKENS"}]}, "length", None),
        ({"candidates": [{"finishReason": "OTHER", "finishMessage": "odd"}]}, "unknown", "odd"),
        ({"promptFeedback": {"blockReason": "SAFETY"}}, "content_filter", None),
        ({"candidates": [], "promptFeedback": {"blockReason": "OTHER"}}, "content_filter", None),
        ({"promptFeedback": {"blockReason": "X", "blockReasonMessage": "why"}}, "content_filter", "why"),
    ],
)
def test_an_answer_without_text_says_why_there_is_none(body: Any, reason: str, thought: str | None) -> None:
    texts, result = streamed(body)

    assert result == result_of(body)
    assert (texts, result.content, result.finish_reason, result.thought) == ([], "", reason, thought)


def test_thinking_and_tokens_from_a_cache_are_counted() -> None:
    usage = {"promptTokenCount": 90, "cachedContentTokenCount": 60, "candidatesTokenCount": 5, "thoughtsTokenCount": 7}
    later = {"usageMetadata": {"trafficType": "ON_DEMAND"}}

    _, result = streamed(chunk({"text": "hi"}, usageMetadata={**usage, "toolUsePromptTokenCount": 10}), later)

    assert result.usage == RequestUsage(100, 12, cached_tokens=60, reasoning_tokens=7)


def test_thoughts_are_streamed_beside_the_text() -> None:
    decoder = GeminiDecoder()
    said = decoder.feed("", json.dumps(chunk({"text": "hm, ", "thought": True}, {"text": "yes"}, finish=None)))

    assert (said, decoder.fresh_thought()) == ("yes", "hm, ")
    with pytest.raises(IncompleteResponse):
        decoder.end()


def piece_of(path: str, more: bool = True, **value: Any) -> dict[str, Any]:
    return {"functionCall": {"partialArgs": [{"jsonPath": path, **value}], "willContinue": more}}


def test_arguments_that_come_in_pieces_are_put_together() -> None:
    began = {"functionCall": {"name": "book", "willContinue": True}, "thoughtSignature": "c2ln"}
    parts = [
        began,
        piece_of("$.city", stringValue="New"),
        piece_of("$.city", stringValue=" Delhi"),
        piece_of("$.days", numberValue=3),
        piece_of("$.stops[0].name", stringValue="Agra"),
        piece_of("$.stops[0].nights", nullValue="NULL_VALUE"),
        piece_of("$['by train']", boolValue=True),
        {"functionCall": {}},
        {"functionCall": {"name": "pay", "args": {"sum": 5}}},
    ]

    _, result = streamed(*(chunk(part, finish=None) for part in parts), chunk())

    assert result.finish_reason == "function_calls"
    assert [(call.name, json.loads(call.arguments)) for call in result.content if isinstance(call, FunctionCall)] == [
        (
            "book",
            {"city": "New Delhi", "days": 3, "stops": [{"name": "Agra", "nights": None}], "by train": True},
        ),
        ("pay", {"sum": 5}),
    ]
    assert result.provider_data == {
        "gemini": [
            {"functionCall": {"name": "book"}, "thoughtSignature": "c2ln"},
            {"functionCall": {"name": "pay"}},
        ]
    }


def test_arguments_of_which_the_last_pieces_are_missing_are_not_taken_for_whole() -> None:
    parts = {"functionCall": {"name": "book", "willContinue": True}}, piece_of("$.city", stringValue="New")

    _, result = streamed(*(chunk(part, finish=None) for part in parts), chunk(finish="MAX_TOKENS"))

    assert result.finish_reason == "length"
    assert [call.arguments for call in result.content if isinstance(call, FunctionCall)] == ['{"city":"New"']


@pytest.mark.parametrize("path", [None, 3, "", "$", "$[0]", "$" + ".a" * 1000])
def test_a_piece_of_an_argument_that_has_no_place_breaks_the_protocol(path: Any) -> None:
    parts = {"functionCall": {"name": "book", "willContinue": True}}, piece_of(path, stringValue="New")

    with pytest.raises(ProtocolError):
        streamed(*(chunk(part, finish=None) for part in parts), chunk())


def test_log_probabilities_are_those_of_the_chosen_tokens() -> None:
    candidate = chunk({"text": "hi"})["candidates"][0]
    candidate["logprobsResult"] = {
        "chosenCandidates": [{"token": "hi", "logProbability": -0.1}, {"token": "x", "logProbability": "?"}],
        "topCandidates": [{"candidates": [{"token": "ho", "logProbability": -2.0}]}],
    }

    (token,) = result_of({"candidates": [candidate]}).logprobs or []

    assert (token.token, token.logprob, token.bytes) == ("hi", -0.1, [104, 105])
    assert [(each.logprob, each.bytes) for each in token.top_logprobs or []] == [(-2.0, [104, 111])]


def test_only_the_first_candidate_counts() -> None:
    second = {"content": {"parts": [{"text": "no"}]}, "index": 1, "finishReason": "STOP"}

    assert result_of({"candidates": [second, *ANSWER["candidates"]]}).content == "hi"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"candidates": []},
        {"candidates": [None]},
        {"candidates": {"content": 1}},
        {"candidates": [{"content": []}]},
        {"candidates": [{"content": {"parts": {}}}]},
        chunk(1),
        chunk({"text": 1}),
        chunk({"functionCall": "x"}),
        chunk({"functionCall": {"args": {}}}),
        chunk({"functionCall": {"name": "f", "id": {}}}),
        {"candidates": [{"content": {"parts": [{"text": "x"}]}, "index": 3}]},
    ],
)
def test_what_does_not_follow_the_protocol_is_said_to_be_so(body: Any) -> None:
    with pytest.raises(ProtocolError):
        decode_response(body)


@pytest.mark.parametrize("chunks", [[None], [1], [{}]])
def test_an_array_that_holds_no_answer_is_said_to_be_none(chunks: Any) -> None:
    with pytest.raises(ProtocolError, match=r"no candidates|should be dict"):
        decode_response(*chunks)


def test_a_body_that_only_looks_like_an_array_is_refused() -> None:
    with pytest.raises(ProtocolError, match="should be list"):
        client("http://localhost/v1beta")._whole('[],"chunks":5')


async def test_no_text_is_lost_in_a_last_event_that_breaks_the_protocol() -> None:
    broken = {"candidates": [*chunk({"text": "hi"})["candidates"], "x"]}
    reply = Reply(headers={"content-type": "text/event-stream"}, body=b"data: " + json.dumps(broken).encode())
    async with Loopback([reply]) as server, client(server.url) as model:
        with pytest.raises(ProtocolError, match="a candidate should be dict") as caught:
            [item async for item in model.create_stream(QUESTION)]

    assert caught.value.partial == "hi"


def test_what_is_kept_of_an_answer_can_always_be_sent_again() -> None:
    signed = {"text": "x", "thoughtSignature": "s"}
    parts = [{"text": None}, signed, {"executableCode": {"n": float("inf"), "code": "\ud800"}}]

    kept = result_of(chunk(*parts, reason="STOP")).provider_data

    assert kept == {"gemini": [{"text": ""}, signed, {"executableCode": {"n": None, "code": "\ufffd"}}]}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
odd_parts = st.dictionaries(
    st.sampled_from(["text", "thought", "thoughtSignature", "functionCall", "executableCode"]),
    json_values | st.fixed_dictionaries({"name": st.text(max_size=3), "args": json_values}),
)


@given(st.lists(odd_parts, max_size=4), json_values, json_values)
def test_whatever_comes_is_an_answer_or_a_model_error(parts: list[Any], usage: Any, finish: Any) -> None:
    body = chunk(*parts, finish=finish, usageMetadata=usage, promptFeedback=None)
    try:
        result = result_of(body)
    except ModelError:
        return

    assert codec.decode(CreateResult, codec.loads(codec.dumps(result))) == result


# --- what is kept

SIGNED = [
    {"text": "let me think", "thought": True},
    {"text": "I look. "},
    {"functionCall": {"name": "weather", "args": {"city": "Rom"}}, "thoughtSignature": "c2ln"},
    {"functionCall": {"name": "clock", "args": {}, "id": "k1"}},
]


def said_by(result: CreateResult) -> AssistantMessage:
    return AssistantMessage(
        content=result.content, thought=result.thought, source="bot", provider_data=result.provider_data
    )


def test_signed_parts_go_back_as_they_came() -> None:
    message = said_by(result_of(chunk(*SIGNED)))

    again = codec.decode(AssistantMessage, codec.loads(codec.dumps(message)))

    assert parts_of(message) == parts_of(again) == SIGNED[1:]


def test_pieces_of_a_streamed_text_are_kept_as_one_part_and_the_signature_on_its_own() -> None:
    end = {"text": "", "thoughtSignature": "c2ln"}
    texts, result = streamed(*(chunk({"text": text}, finish=None) for text in "abc"), chunk(end))

    assert (texts, result.content) == (["a", "b", "c"], "abc")
    assert parts_of(said_by(result)) == [{"text": "abc"}, end]


def test_parts_that_only_google_understands_go_back_where_they_were() -> None:
    parts = [
        {"executableCode": {"language": "PYTHON", "code": "1+1"}, "thoughtSignature": "c2ln"},
        {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "2"}},
        {"text": "It is 2."},
        {"thoughtSignature": "bW9yZQ"},
    ]

    result = result_of(chunk(*parts))

    assert result.content == "It is 2."
    assert parts_of(said_by(result)) == [*parts[:3], {**parts[3], "text": ""}]


@pytest.mark.parametrize(
    "content",
    [
        "something else",
        [FunctionCall(id="k1", arguments="{}", name="clock")],
        [FunctionCall(id=name, arguments="{}", name=name) for name in ("weather", "clock", "weather")],
    ],
)
def test_a_message_that_says_something_else_by_now_is_encoded_afresh(content: Any) -> None:
    result = result_of(chunk(*SIGNED))
    changed = AssistantMessage(content=content, source="bot", provider_data=result.provider_data)

    assert parts_of(changed) == parts_of(AssistantMessage(content=content, source="bot"))


@pytest.mark.parametrize(
    "kept", [{"anthropic": [{"type": "thinking"}]}, {"gemini": "x"}, {"gemini": [1]}, {"gemini": []}]
)
def test_what_others_keep_is_ignored(kept: Any) -> None:
    call = FunctionCall(id="c1", arguments="{}", name="clock")

    assert parts_of(asked(call, kept=kept)) == parts_of(asked(call))


@pytest.mark.parametrize(
    ("model", "signed"),
    [("gemini-2.5-pro", False), ("gemini-3-pro-preview", True), ("models/gemini-flash-latest", True), ("tuned", False)],
)
def test_calls_of_other_models_are_marked_as_unsigned_where_signatures_are_a_must(model: str, signed: bool) -> None:
    calls = [FunctionCall(id=f"c{n}", arguments="{}", name="clock") for n in range(2)]

    first, second = parts_of(asked(*calls), model)

    assert first.get("thoughtSignature") == (UNSIGNED if signed else None)
    assert "thoughtSignature" not in second


async def test_an_agent_sends_signatures_back_with_the_results_of_its_tools() -> None:
    def weather(city: str) -> str:
        """Tells the weather."""
        return f"sunny in {city}"

    calls = [SIGNED[2], {"functionCall": {"name": "weather", "args": {"city": "Oslo"}}}]
    replies = [sse_reply(chunk(*calls), done=False), sse_reply(chunk({"text": "Sunny."}), done=False)]
    async with Loopback(replies) as server, client(server.url, model="gemini-3-pro-preview") as model:
        agent = AssistantAgent(
            "ada", model, tools=[weather], model_client_stream=True, reflect_on_tool_use=True, system_message="be brief"
        )
        result = await agent.run(task="Weather?")

    assert result.messages[-1].to_text() == "Sunny."
    question, asks, results = server.requests[1].json["contents"]
    assert question == {"role": "user", "parts": [{"text": "Weather?"}]}
    assert asks == {"role": "model", "parts": calls}
    responses = [part["functionResponse"] for part in results["parts"]]
    assert [each["response"] for each in responses] == [{"output": "sunny in Rom"}, {"output": "sunny in Oslo"}]


# --- recordings


def check(answer: Answer, expected: dict[str, Any]) -> None:
    check_calls(answer.calls, expected.get("tool_calls", []))
    assert answer.text == expected["text"]
    assert answer.thought == expected.get("thinking", answer.thought)
    assert answer.finish == expected.get("finish_reason", expected.get("block_reason"))
    wanted = dict(expected.get("usage", {}))
    if "candidates_tokens" in wanted:
        wanted["completion_tokens"] = wanted.pop("candidates_tokens") + wanted.get("reasoning_tokens", 0)
    assert {name: answer.usage[name] for name in wanted} == wanted


def chunks_of(exchange: dict[str, Any]) -> list[dict[str, Any]]:
    body = exchange["response"]["json"]
    return body if isinstance(body, list) else [body]


def decoded(stream: list[bytes]) -> tuple[Answer, str]:
    framing, decoder, said = EventDecoder(), GeminiDecoder(), ""
    for piece in stream:
        for event, data in framing.feed(piece):
            said += decoder.feed(event, data)
    for event, data in framing.finish():
        said += decoder.feed(event, data)
    said += decoder.end()
    return decoder.whole(), said


@pytest.mark.parametrize("exchange", recorded("gemini.generateContent", "json"))
def test_every_recorded_body_is_understood(exchange: dict[str, Any]) -> None:
    check(decode_response(*chunks_of(exchange)), exchange["expect"])


@pytest.mark.parametrize("exchange", recorded("gemini.generateContent", "sse"))
def test_a_recorded_stream_means_the_same_however_it_is_cut(exchange: dict[str, Any]) -> None:
    data = exchange["response"]["sse"].encode()
    answer, said = decoded([data])
    chance = random.Random(exchange["id"])
    several = [0, *sorted(chance.sample(range(1, len(data)), 9)), len(data)]

    check(answer, exchange["expect"])
    assert said == answer.text
    assert decoded([data[i : i + 1] for i in range(len(data))]) == (answer, said)
    assert decoded([data[a:b] for a, b in pairwise(several)]) == (answer, said)
    for edge in range(1, len(data)) if len(data) < 2_000 else several[1:-1]:
        assert decoded([data[:edge], data[edge:]]) == (answer, said)


@given(st.lists(st.text(max_size=4), max_size=5), st.lists(st.integers(0, 2_000), max_size=6))
def test_a_stream_means_the_same_however_it_is_cut(texts: list[str], places: list[int]) -> None:
    events = [chunk({"text": text}, finish=None) for text in texts] + [chunk(*SIGNED)]
    data = b"".join(f"data: {json.dumps(event, ensure_ascii=False)}\r\n\r\n".encode() for event in events)
    edges = [0, *sorted(place % len(data) for place in places), len(data)]

    assert decoded([data[a:b] for a, b in pairwise(edges)]) == decoded([data])


def message_of(content: dict[str, Any], ids: dict[str, str]) -> LLMMessage:
    """The message that was encoded so."""
    parts = content["parts"]
    if content.get("role") == "model":
        calls = []
        for part in parts:
            call = part["functionCall"]
            ids[call["name"]] = call.get("id", "0123abcde")
            calls.append(FunctionCall(id=ids[call["name"]], arguments=json.dumps(call["args"]), name=call["name"]))
        kept = [{**part, "functionCall": {"name": part["functionCall"]["name"]}} for part in parts]
        return asked(*calls, kept={"gemini": kept})
    if "functionResponse" in parts[0]:
        return answered(
            *((ids[p["functionResponse"]["name"]], "") for p in parts), name=parts[0]["functionResponse"]["name"]
        )
    content = [
        part["text"]
        if "text" in part
        else Image.from_base64(part["inlineData"]["data"].replace("-", "+").replace("_", "/"))
        for part in parts
    ]
    return UserMessage(content=content, source="user")


def plain(data: Any) -> Any:
    """A request without what may be said in several ways: names of types and keys, results, and what says nothing."""
    if isinstance(data, list):
        return [plain(each) for each in data]
    if not isinstance(data, dict):
        return data.replace("-", "+").replace("_", "/") if isinstance(data, str) else data
    said = {key.replace("function_declarations", "functionDeclarations"): plain(value) for key, value in data.items()}
    if isinstance(said.get("type"), str):
        said["type"] = said["type"].lower()
    for key in ("model", "candidateCount", "responseModalities", "response", "title", "additionalProperties"):
        said.pop(key, None)
    said.pop("parameters_json_schema", None)  # which says that there are none
    for key in ("tools", "generationConfig", "toolConfig"):
        if said.get(key) in ({}, {"functionCallingConfig": {"mode": "AUTO"}}):
            del said[key]
        elif key == "tools" and isinstance(said.get(key), dict):
            said[key] = [said[key]]
    if "systemInstruction" in said:
        said["systemInstruction"].pop("role", None)
    if "responseJsonSchema" in said:
        said["responseSchema"] = said.pop("responseJsonSchema")
    return said


@dataclass
class CityLocation:
    city: str
    country: str


def made_of(sent: dict[str, Any]) -> tuple[list[LLMMessage], dict[str, Any], dict[str, Any]]:
    """The messages, the client's options and the arguments of the call that the request was made of."""
    ids: dict[str, str] = {}
    messages = [message_of(content, ids) for content in sent["contents"]]
    if system := sent.get("systemInstruction"):
        messages.insert(0, SystemMessage(content=system["parts"][0]["text"]))
    tools = sent.get("tools", [])
    tools = [tools] if isinstance(tools, dict) else tools
    keys = ("functionDeclarations", "function_declarations")
    generation = dict(sent.get("generationConfig", {}))
    call = {"tools": [tool for each in tools for key in keys for tool in each.get(key, ())]}
    if generation.pop("responseJsonSchema", None):
        call["json_output"] = CityLocation
    options = {key: sent[key] for key in ("safetySettings", "modelArmorConfig") if key in sent}
    options |= {key: value for key, value in generation.items() if key in ("maxOutputTokens", "stopSequences")}
    options |= {
        key: value for key, value in generation.items() if key in ("thinkingConfig", "temperature", "topP", "topK")
    }
    return messages, {"tools": [each for each in tools if "code_execution" in each] or None, **options}, call


@pytest.mark.parametrize("exchange", requests("gemini.generateContent"))
async def test_every_recorded_request_that_ours_can_make_is_made(exchange: dict[str, Any]) -> None:
    sent, path = exchange["request"]["json"], exchange["request"]["path"].partition("?")[0].replace("<project>", "p")
    messages, options, call = made_of(sent)
    base, _, name = path.rpartition("/models/")
    name, _, method = name.partition(":")
    async with Loopback([json_reply(ANSWER)]) as server:
        async with client(server.url[:-3] + base, model=name, **options) as model:
            made = (model.create_stream if "stream" in method else model.create)(messages, **call)
            await (anext(made) if "stream" in method else made)

    assert server.requests[0].path.partition("?")[0] == path
    assert plain(server.requests[0].json) == plain(sent)


# --- through a connection


def reply_to(exchange: dict[str, Any]) -> Reply:
    response = exchange["response"]
    if "sse" in response:
        data = response["sse"].encode()
        cuts = random.Random(exchange["id"]).sample(range(1, len(data)), 7)
        headers = {"content-type": "text/event-stream"}
        return Reply(response["status"], headers, steps=pieces(data, cuts=cuts), framing="chunked")
    return Reply(response["status"], response["headers"], json.dumps(response["json"]).encode())


@pytest.mark.parametrize("exchange", recorded("gemini.generateContent", "json", "sse"))
async def test_every_recorded_answer_comes_through_a_connection(exchange: dict[str, Any]) -> None:
    await through_a_connection(exchange, stream=True)


@pytest.mark.parametrize("exchange", recorded("gemini.generateContent", "json"))
async def test_every_recorded_body_comes_through_a_connection(exchange: dict[str, Any]) -> None:
    await through_a_connection(exchange, stream=False)


async def through_a_connection(exchange: dict[str, Any], stream: bool) -> None:
    async with Loopback([reply_to(exchange)]) as server, client(server.url) as model:
        if stream:
            *pieces_of, result = [item async for item in model.create_stream(QUESTION)]
            said = "".join(str(piece) for piece in pieces_of if not isinstance(piece, ThoughtChunk))
            assert said == exchange["expect"]["text"]
        else:
            result = await model.create(QUESTION)

    assert isinstance(result, CreateResult)
    check_calls([] if isinstance(result.content, str) else result.content, exchange["expect"].get("tool_calls", []))
    assert (result.finish_reason == "function_calls") == bool(exchange["expect"].get("tool_calls"))


@pytest.mark.parametrize("exchange", recorded("gemini.generateContent", "json", least=400, most=599))
async def test_every_recorded_refusal_is_the_right_error(exchange: dict[str, Any]) -> None:
    expected = exchange["expect"]["error"]
    kinds: dict[int, type[ModelError]] = {403: AuthenticationError, 429: RateLimitError, 503: ServerError}
    kind = kinds.get(expected["status"], RequestError)
    if "API key not valid" in expected["message"]:
        kind = AuthenticationError  # said with status 400
    async with Loopback([reply_to(exchange)]) as server, client(server.url) as model:
        with pytest.raises(kind) as failed:
            await model.create(QUESTION)

    assert failed.value.status == expected["status"]
    assert expected["message"] in str(failed.value)


@pytest.mark.parametrize("around", [False, True])
async def test_the_wait_in_the_details_of_an_error_is_waited_for(around: bool) -> None:
    waits = []

    class Counted(Waiting):
        @staticmethod
        async def sleep(seconds: float) -> None:
            waits.append(seconds)

    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "48s"}]
    error: Any = {"error": {"code": 429, "message": "quota", "status": "RESOURCE_EXHAUSTED", "details": details}}
    replies = [json_reply([error] if around else error, 429), json_reply(ANSWER)]
    async with Loopback(replies) as server, client(server.url, max_retries=1, _waiting=Counted) as model:
        assert (await model.create(QUESTION)).content == "hi"

    assert len(waits) == 1 and 48 <= waits[0] < 53


async def test_a_conversation_that_is_too_long_is_told_what_to_do() -> None:
    text = "The input token count (2000000) exceeds the maximum number of tokens allowed (1048576)."
    error = {"error": {"code": 400, "message": text, "status": "INVALID_ARGUMENT"}}
    async with Loopback([json_reply(error, 400)]) as server, client(server.url) as model:
        with pytest.raises(RequestError, match="TokenLimitedChatCompletionContext"):
            await model.create(QUESTION)


async def test_an_error_inside_a_stream_keeps_what_was_said_before_it() -> None:
    error = {"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}
    reply = sse_reply(chunk({"text": "half an "}, finish=None), error, done=False)
    async with Loopback([reply]) as server, client(server.url) as model:
        with pytest.raises(ModelError, match="overloaded") as failed:
            _ = [item async for item in model.create_stream(QUESTION)]

    assert failed.value.partial == "half an "


async def test_a_stream_that_breaks_off_is_not_taken_for_an_answer() -> None:
    reply = sse_reply(chunk({"text": "half an "}, finish=None), done=False)
    async with Loopback([reply]) as server, client(server.url) as model:
        with pytest.raises(IncompleteResponse) as failed:
            _ = [item async for item in model.create_stream(QUESTION)]

    assert failed.value.partial == "half an "


# --- how the client is set up


async def test_the_key_goes_into_a_header_and_never_into_the_address() -> None:
    async with Loopback([sse_reply(ANSWER)]) as server, client(server.url) as model:
        _ = [item async for item in model.create_stream(QUESTION)]

    assert server.requests[0].headers["x-goog-api-key"] == KEY
    assert server.requests[0].path == "/v1/models/gemini-2.5-flash:streamGenerateContent?alt=sse"


async def test_no_error_holds_the_key() -> None:
    async with (
        Loopback([json_reply({"error": {"message": f"bad key {KEY}"}}, 400)]) as server,
        client(server.url) as model,
    ):
        with pytest.raises(RequestError) as failed:
            await model.create(QUESTION)

    assert KEY not in str(failed.value) and KEY not in repr(model)


@pytest.mark.parametrize("variable", ["GEMINI_API_KEY", "GOOGLE_API_KEY"])
def test_the_key_is_found_in_the_environment(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GEMINI_API_KEY", raising=False)
    monkeypatch.setenv(variable, KEY)

    made = GeminiChatCompletionClient(model="gemini-2.5-flash")

    assert made._headers["x-goog-api-key"] == KEY
    assert made._url == "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash"


def test_a_missing_key_names_the_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(variable, raising=False)

    with pytest.raises(AuthenticationError, match="GEMINI_API_KEY or GOOGLE_API_KEY") as failed:
        create_client("gemini:gemini-2.5-flash")

    assert len(str(failed.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("options", "url"),
    [
        ({"location": "us-east5"}, "https://us-east5-aiplatform.googleapis.com/v1beta1/projects/p/locations/us-east5/"),
        ({}, "https://aiplatform.googleapis.com/v1beta1/projects/p/locations/global/"),
        ({"location": "eu"}, "https://aiplatform.eu.rep.googleapis.com/v1beta1/projects/p/locations/eu/"),
    ],
)
def test_vertex_is_addressed_by_project_and_location(options: dict[str, str], url: str) -> None:
    made = GeminiChatCompletionClient(model="gemini-2.5-pro", project="p", token="t", **options)

    assert made._url == f"{url}publishers/google/models/gemini-2.5-pro"
    assert (made.provider, "x-goog-api-key" in made._headers) == ("vertex", False)


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("models/gemini-pro", "projects/p/locations/global/publishers/google/models/gemini-pro"),
        ("publishers/meta/models/x", "projects/p/locations/global/publishers/meta/models/x"),
        ("projects/q/locations/l/endpoints/7", "projects/q/locations/l/endpoints/7"),
        ("a b?", "projects/p/locations/global/publishers/google/models/a%20b%3F"),
    ],
)
def test_a_model_of_vertex_may_be_named_by_its_path(model: str, path: str) -> None:
    made = GeminiChatCompletionClient(model=model, project="p", token="t", base_url="http://localhost:1/v1/")

    assert made._url == f"http://localhost:1/v1/{path}"


async def test_vertex_asks_for_a_token_with_each_request() -> None:
    tokens = iter(["first-token", "second-token"])

    async def provide() -> str:
        return next(tokens)

    async with Loopback([json_reply(ANSWER)]) as server:
        async with client(server.url, api_key=None, project="p", token_provider=provide) as model:
            await model.create(QUESTION)
            await model.create(QUESTION)

    assert [each.headers["authorization"] for each in server.requests] == ["Bearer first-token", "Bearer second-token"]


def test_vertex_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT", raising=False)
    with pytest.raises(ConfigError, match="GOOGLE_CLOUD_PROJECT"):
        GeminiChatCompletionClient(model="m", location="us-east5")
    monkeypatch.setenv("GOOGLE_GENAI_USE_VERTEXAI", "true")
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "p")
    with pytest.raises(AuthenticationError, match="token_provider") as failed:
        GeminiChatCompletionClient(model="m")

    assert len(str(failed.value).splitlines()) == 3


def test_a_model_nobody_knows_has_a_window_and_can_do_everything() -> None:
    made = client(model="gemini-9-ultra")

    assert made.model_info["structured_output"]
    assert made.remaining_tokens(QUESTION) == 1_048_576 - made.count_tokens(QUESTION)


@pytest.mark.parametrize(
    ("base_url", "address"),
    [
        ("https://generativelanguage.googleapis.com", "https://generativelanguage.googleapis.com/v1beta"),
        ("https://generativelanguage.googleapis.com/v1/", "https://generativelanguage.googleapis.com/v1"),
        ("http://localhost:4000/gemini/", "http://localhost:4000/gemini/v1beta"),
        ("http://localhost:4000/v1beta/proxy", "http://localhost:4000/v1beta/proxy"),
    ],
)
def test_an_address_without_a_version_gets_one(base_url: str, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", base_url)
    given = GeminiChatCompletionClient(model="g", api_key=KEY, base_url=base_url)

    assert given._url == GeminiChatCompletionClient(model="g", api_key=KEY)._url == f"{address}/models/g"


def test_an_address_of_vertex_without_a_version_gets_one_too() -> None:
    root = "https://aiplatform.googleapis.com"
    gemini = GeminiChatCompletionClient(model="g", project="p", token="t", base_url=root)
    claude = AnthropicVertexChatCompletionClient(model="c", project="p", auth_token="t", base_url=root)

    assert gemini._url == GeminiChatCompletionClient(model="g", project="p", token="t")._url
    assert claude._url == AnthropicVertexChatCompletionClient(model="c", project="p", auth_token="t")._url
    assert (gemini._url.split("/")[3], claude._url.split("/")[3]) == ("v1beta1", "v1")
