"""OpenAI's Responses protocol: what is asked, what is understood, and what goes back as it came."""

from __future__ import annotations

import contextlib
import json
import random
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopback import Loopback, Reply, json_reply, pieces
from recorded import recorded
from tinygen.errors import ConfigError, IncompleteResponse, ModelError, ProtocolError, RequestError
from tinygen.messages import (
    AssistantMessage,
    CreateResult,
    FunctionCall,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    Image,
    RequestUsage,
    SystemMessage,
    ThoughtChunk,
    UserMessage,
)
from tinygen.models.responses import (
    REASONS,
    OpenAIResponsesClient,
    ResponsesDecoder,
    decode_response,
    encode_message,
)
from tinygen.models.sse import EventDecoder

KEY = "sk-0123456789"
QUESTION = [UserMessage(content="hello", source="user")]
PICTURE = Image(b"\x89PNG\r\n\x1a\n" + bytes(8))
WEATHER: dict[str, Any] = {
    "name": "weather",
    "description": "Tells the weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@dataclass
class Reading:
    celsius: int


def text_item(text: str = "hi", identity: str = "msg_1", **more: Any) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": []}
    return {"type": "message", "id": identity, "status": "completed", "role": "assistant", "content": [part], **more}


def reasoning_item(*summary: str, secret: str | None = "gAAA", identity: str = "rs_1") -> dict[str, Any]:
    parts = [{"type": "summary_text", "text": text} for text in summary]
    return {"type": "reasoning", "id": identity, "summary": parts, "encrypted_content": secret, "status": None}


def call_item(name: str = "weather", arguments: Any = "{}", call_id: str = "call_1", **more: Any) -> dict[str, Any]:
    ids = {"id": f"fc_{call_id}", "call_id": call_id}
    return {"type": "function_call", **ids, "name": name, "arguments": arguments, "status": "completed", **more}


def response(*items: dict[str, Any], status: str = "completed", **more: Any) -> dict[str, Any]:
    usage = {
        "input_tokens": 7,
        "input_tokens_details": {"cached_tokens": 4},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 3},
        "total_tokens": 12,
    }
    head = {"id": "resp_1", "object": "response", "error": None, "incomplete_details": None, "store": False}
    return {**head, "status": status, "output": list(items), "usage": usage, **more}


def events(*items: dict[str, Any], last: str = "completed", **more: Any) -> list[dict[str, Any]]:
    """The events by which a server streams these items, every text in pieces of two characters."""
    found: list[dict[str, Any]] = [{"type": "response.created", "response": {**response(), "status": "in_progress"}}]
    for at, item in enumerate(items):
        found.append({"type": "response.output_item.added", "item": _begun(item), "output_index": at})
        for kind, text, place in _texts(item):
            pieces_ = [text[i : i + 2] for i in range(0, len(text), 2)]
            found += [{"type": kind, "output_index": at, **place, "delta": piece} for piece in pieces_]
        if item["type"] == "function_call":
            whole = {"output_index": at, "arguments": item["arguments"]}
            found.append({"type": "response.function_call_arguments.done", **whole})
        found.append({"type": "response.output_item.done", "item": item, "output_index": at})
    found.append({"type": f"response.{last}", "response": response(*items, status=last, **more)})
    return found


def _begun(item: dict[str, Any]) -> dict[str, Any]:
    empty = {key: [] for key in ("content", "summary") if key in item}
    return {**item, **empty, **({"arguments": ""} if "arguments" in item else {})}


def _texts(item: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    if item["type"] == "reasoning":
        summary = enumerate(item["summary"])
        return [("response.reasoning_summary_text.delta", part["text"], {"summary_index": n}) for n, part in summary]
    if item["type"] == "function_call":
        return [("response.function_call_arguments.delta", item["arguments"], {})]
    kinds = {"output_text": "response.output_text.delta", "refusal": "response.refusal.delta"}
    parts = item.get("content") or []
    return [(kinds[part["type"]], part.get("text") or part.get("refusal"), {}) for part in parts]


def wire(found: list[dict[str, Any]]) -> bytes:
    return "".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n" for each in found).encode()


def streamed(chunks: list[bytes]) -> tuple[str, str, CreateResult]:
    """Text, thinking and result of a stream that arrives in these pieces."""
    framing, decoder, said, thought = EventDecoder(), ResponsesDecoder(), "", ""
    for chunk in chunks:
        for event, data in framing.feed(chunk):
            said += decoder.feed(event, data)
            thought += decoder.fresh_thought()
    said += decoder.end()
    return said, thought + decoder.fresh_thought(), decoder.whole().result(REASONS)


def result_of(*items: dict[str, Any], **more: Any) -> CreateResult:
    return decode_response(response(*items, **more)).result(REASONS)


def as_message(result: CreateResult) -> AssistantMessage:
    return AssistantMessage(
        content=result.content, thought=result.thought, source="bot", provider_data=result.provider_data
    )


def items_of(*messages: Any, **options: Any) -> Any:
    return json.loads("[" + ",".join(encode_message(message, **options) for message in messages) + "]")


async def sent_by(
    messages: Any = QUESTION, options: dict[str, Any] | None = None, stream: bool = False, **call: Any
) -> dict[str, Any]:
    """The body of the request that a client with these options makes for this call."""
    async with Loopback([json_reply(response(text_item()))]) as server:
        given = {"model": "gpt-4o", "api_key": KEY, "base_url": server.url, **(options or {})}
        async with OpenAIResponsesClient(**given) as model:
            if stream:
                assert [each async for each in model.create_stream(messages, **call)]
            else:
                await model.create(messages, **call)
    assert server.requests[0].path == "/v1/responses"
    body: dict[str, Any] = server.requests[0].json
    return body


# --- what is asked


def test_every_kind_of_message_becomes_items() -> None:
    results = [
        FunctionExecutionResult(content=text, name="weather", call_id=f"c{text}", is_error=text == "2") for text in "12"
    ]
    calls = [FunctionCall(id="c1", arguments='{"city":"Rom"}', name="weather")]

    assert items_of(
        SystemMessage(content="be brief"),
        UserMessage(content=["what is", PICTURE], source="ann"),
        AssistantMessage(content=calls, thought="I look it up", source="bot"),
        FunctionExecutionResultMessage(content=results),
        AssistantMessage(content="sunny ☀", source="bot"),
    ) == [
        {"role": "system", "content": "be brief"},
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "what is"},
                {"type": "input_image", "image_url": PICTURE.data_uri, "detail": "auto"},
            ],
        },
        {"role": "assistant", "content": "I look it up"},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city":"Rom"}'},
        {"type": "function_call_output", "call_id": "c1", "output": "1"},
        {"type": "function_call_output", "call_id": "c2", "output": "2"},
        {"role": "assistant", "content": "sunny ☀"},
    ]


def test_who_said_it_can_be_put_before_the_text() -> None:
    plain, picture = (UserMessage(content=content, source="ann") for content in ("hi", [PICTURE]))

    assert items_of(plain, prefixes=True) == [{"role": "user", "content": "ann said:\nhi"}]
    assert items_of(picture, prefixes=True)[0]["content"][0] == {"type": "input_text", "text": "ann said:\n"}


async def test_tools_and_settings_go_into_the_request() -> None:
    sent = await sent_by(
        options={"temperature": 0.5, "parallel_tool_calls": False, "max_tokens": 9},
        tools=[WEATHER],
        tool_choice=WEATHER,
        extra_create_args={"top_p": 0.1, "metadata": {"a": "b"}},
    )

    assert sent == {
        "model": "gpt-4o",
        "store": False,
        "temperature": 0.5,
        "parallel_tool_calls": False,
        "max_output_tokens": 9,
        "top_p": 0.1,
        "metadata": {"a": "b"},
        "tools": [{"type": "function", **WEATHER, "strict": False}],
        "tool_choice": {"type": "function", "name": "weather"},
        "input": [{"role": "user", "content": "hello"}],
    }


async def test_a_reasoning_model_is_asked_for_its_thoughts_encrypted_and_nothing_it_refuses() -> None:
    sent = await sent_by(
        options={"model": "gpt-5", "temperature": 0, "reasoning_effort": "low", "reasoning": {"summary": "auto"}},
        extra_create_args={"include": ["web_search_call.action.sources"]},
    )

    assert sent["include"] == ["web_search_call.action.sources", "reasoning.encrypted_content"]
    assert sent["reasoning"] == {"effort": "low", "summary": "auto"}
    assert "temperature" not in sent and "reasoning_effort" not in sent


@pytest.mark.parametrize(("model", "asked"), [("gpt-4o", False), ("gpt-5-chat-latest", False), ("o3", True)])
async def test_only_models_that_reason_are_asked_for_encrypted_thoughts(model: str, asked: bool) -> None:
    assert ("include" in await sent_by(options={"model": model})) is asked
    assert "include" not in await sent_by(options={"model": model, "store": True})


async def test_an_answer_can_be_held_to_a_schema_or_to_json() -> None:
    schema = {
        "type": "object",
        "properties": {"celsius": {"type": "integer"}},
        "required": ["celsius"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "name": "Reading", "schema": schema, "strict": True}

    assert (await sent_by(json_output=Reading))["text"] == {"format": form}
    assert (await sent_by(options={"text": {"verbosity": "low"}}, json_output=True))["text"] == {
        "format": {"type": "json_object"},
        "verbosity": "low",
    }
    assert (await sent_by(options={"response_format": Reading}))["text"] == {"format": form}
    chat = {"type": "json_schema", "json_schema": {"name": "Reading", "schema": schema}}
    assert (await sent_by(extra_create_args={"response_format": chat}))["text"]["format"]["name"] == "Reading"


async def test_tools_that_the_provider_has_built_in_stand_beside_ours() -> None:
    sent = await sent_by(options={"tools": [{"type": "web_search"}]}, tools=[WEATHER])

    assert [tool["type"] for tool in sent["tools"]] == ["function", "web_search"]


async def test_a_stream_asks_for_no_usage_since_it_always_comes() -> None:
    sent = await sent_by(stream=True, include_usage=True)
    options = {"stream_options": {"include_obfuscation": False}}

    assert sent["stream"] is True and "stream_options" not in sent
    assert (await sent_by(stream=True, options=options))["stream_options"] == {"include_obfuscation": False}


@pytest.mark.parametrize("name", ["stream", "input", "messages"])
def test_what_is_the_clients_own_business_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        OpenAIResponsesClient(model="m", api_key=KEY, **{name: 1})


async def test_a_strict_tool_is_sent_closed() -> None:
    (tool,) = (await sent_by(tools=[{**WEATHER, "strict": True}]))["tools"]

    assert tool["strict"] is True and tool["parameters"]["additionalProperties"] is False


# --- what is understood


@pytest.mark.parametrize("exchange", recorded("openai.responses", "json"))
def test_every_recorded_answer_is_understood(exchange: dict[str, Any]) -> None:
    wanted, usage = exchange["expect"], exchange["expect"]["usage"]

    answer = decode_response(exchange["response"]["json"])

    result = answer.result(REASONS)
    assert answer.finish == wanted["finish_reason"]
    assert answer.text == wanted["text"]
    calls = [{"id": c.id, "name": c.name, "arguments": json.loads(c.arguments)} for c in answer.calls]
    assert calls == wanted["tool_calls"]
    assert result.usage == RequestUsage(
        usage["prompt_tokens"], usage["completion_tokens"], usage["cached_tokens"], usage["reasoning_tokens"]
    )


def test_text_thinking_and_calls_are_read_from_a_whole_answer() -> None:
    result = result_of(reasoning_item("First.", "Then."), text_item("Look:"), call_item(), call_item(call_id="call_2"))

    assert result.finish_reason == "function_calls"
    assert result.content == [FunctionCall("call_1", "{}", "weather"), FunctionCall("call_2", "{}", "weather")]
    assert result.thought == "First.\n\nThen.\nLook:"
    assert result.usage == RequestUsage(7, 5, 4, 3)


@pytest.mark.parametrize(
    ("reason", "finish"),
    [("max_output_tokens", "length"), ("content_filter", "content_filter"), ("something", "unknown")],
)
def test_an_answer_that_was_cut_short_says_why(reason: str, finish: str) -> None:
    cut = {"incomplete_details": {"reason": reason}}

    assert result_of(text_item("hal"), status="incomplete", **cut).finish_reason == finish
    said, _, result = streamed([wire(events(text_item("hal"), last="incomplete", **cut))])
    assert (said, result.finish_reason) == ("hal", finish)


def test_a_refusal_is_the_text_of_the_answer() -> None:
    refusal = {**text_item(), "content": [{"type": "refusal", "refusal": "I cannot."}]}

    assert result_of(refusal).content == "I cannot."
    assert streamed([wire(events(refusal))])[0] == "I cannot."


def test_what_built_in_tools_did_is_no_part_of_the_text() -> None:
    search = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search"}}

    result = result_of(search, text_item("found"))

    assert result.content == "found"
    assert items_of(as_message(result))[0] == search


def test_comments_between_the_steps_are_thoughts_unless_there_is_nothing_else() -> None:
    comment = text_item("Let me see.", "msg_0", phase="commentary")
    final = text_item('{"celsius": 3}', phase="final_answer")

    for result in (result_of(comment, final), streamed([wire(events(comment, final))])[2]):
        assert (result.content, result.thought) == ('{"celsius": 3}', "Let me see.")
    assert result_of(comment).content == "Let me see."
    assert streamed([wire(events(comment))])[0] == "Let me see."


def test_several_messages_are_parted_by_a_blank_line() -> None:
    items = text_item("One."), text_item("Two.", "msg_2")

    assert result_of(*items).content == streamed([wire(events(*items))])[0] == "One.\n\nTwo."


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_an_answer_that_failed_is_an_error_with_the_providers_words(status: str) -> None:
    error = {"code": "server_error", "message": "it broke"}

    with pytest.raises(ModelError, match=r"it broke \(server_error\)"):
        result_of(status=status, error=error)
    with pytest.raises(ModelError, match="broke off"):
        result_of(status=status)
    with pytest.raises(ModelError, match="it broke"):
        streamed([wire(events(last="failed", error=error))])


@pytest.mark.parametrize(
    "event",
    [
        {"type": "error", "code": "rate_limit_exceeded", "message": "too much", "sequence_number": 3},
        {"type": "error", "error": {"code": "rate_limit_exceeded", "message": "too much"}},
        {"error": {"code": "rate_limit_exceeded", "message": "too much"}},
    ],
)
def test_an_error_in_the_middle_of_a_stream_is_raised(event: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"too much \(rate_limit_exceeded\)"):
        ResponsesDecoder().feed("error", json.dumps(event))


def test_an_answer_that_is_still_being_made_breaks_the_protocol() -> None:
    with pytest.raises(ProtocolError, match="background"):
        result_of(status="queued")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"choices": []},
        {"output": {}},
        {"output": [5]},
        {"output": [{"type": "message", "content": "x"}]},
        {"output": [{"type": "message", "content": [{"type": "output_text", "text": 5}]}]},
        {"output": [{"type": "function_call"}]},
        {"output": [{"type": "function_call", "name": 5}]},
        {"output": [{"type": "function_call", "name": "f", "arguments": 5}]},
        {"output": [], "incomplete_details": 5},
    ],
)
def test_an_answer_of_another_shape_breaks_the_protocol(body: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        decode_response(body)


@pytest.mark.parametrize("place", [None, "0", [], 7, True])
def test_a_stream_whose_places_make_no_sense_is_read_even_so(place: Any) -> None:
    found = [{**each, "output_index": place} for each in events(reasoning_item("hm"), text_item("hello"))]

    said, thought, result = streamed([wire(found)])

    assert (said, thought, result.content) == ("hello", "hm", "hello")


def test_a_stream_without_its_last_event_is_incomplete() -> None:
    with pytest.raises(IncompleteResponse):
        streamed([wire(events(text_item())[:-1])])


def test_what_no_pieces_told_is_told_by_the_last_event() -> None:
    found = [each for each in events(reasoning_item("hm"), text_item("hello")) if "delta" not in each]

    assert streamed([wire(found)])[:2] == ("hello", "hm")


def test_items_count_where_the_last_event_repeats_none() -> None:
    found = events(call_item(arguments='{"city":"Rom"}'))
    found[-1]["response"]["output"] = []

    (call,) = streamed([wire(found)])[2].content

    assert call == FunctionCall("call_1", '{"city":"Rom"}', "weather")


# --- strangers

junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
KINDS = ["message", "reasoning", "function_call", "output_text", "web_search_call"]
fields = {
    **dict.fromkeys(("id", "text", "name", "arguments", "call_id", "phase", "encrypted_content", "logprobs"), junk),
    "type": st.sampled_from(KINDS) | junk,
}
an_item = st.fixed_dictionaries(
    {},
    optional={**fields, "content": st.lists(junk | st.fixed_dictionaries({}, optional=fields)) | junk, "summary": junk},
)
a_response = st.fixed_dictionaries(
    {},
    optional={
        "output": st.lists(an_item, max_size=3) | junk,
        "status": st.sampled_from(["completed", "incomplete"]) | junk,
        **dict.fromkeys(("error", "incomplete_details", "usage", "store", "object"), junk),
    },
)
an_event = st.fixed_dictionaries(
    {"type": st.sampled_from(sorted({each["type"] for each in events(reasoning_item("x"), text_item(), call_item())}))},
    optional={"response": a_response | junk, "item": an_item | junk, "delta": junk, "output_index": junk},
)


@given(a_response)
def test_whatever_a_stranger_answers_is_an_answer_or_an_error_of_ours(data: dict[str, Any]) -> None:
    with contextlib.suppress(ModelError):
        items_of(as_message(decode_response(data).result(REASONS)))


@given(st.lists(an_event, max_size=5))
def test_whatever_a_stranger_streams_is_an_answer_or_an_error_of_ours(found: list[dict[str, Any]]) -> None:
    with contextlib.suppress(ModelError):
        items_of(as_message(streamed([wire(found)])[2]))


# --- streams, cut everywhere

ALL_KINDS = events(
    reasoning_item("Über", "zwei"),
    text_item("Hällo 😀\u2028."),
    call_item(arguments='{"city":"Zürich"}'),
    call_item(call_id="call_2"),
)
WANTED = streamed([wire(ALL_KINDS)])


def test_a_stream_says_what_the_whole_answer_says() -> None:
    said, thought, result = WANTED

    assert (said, thought) == ("Hällo 😀\u2028.", "Über\n\nzwei")
    assert result == decode_response(ALL_KINDS[-1]["response"]).result(REASONS)


def test_a_stream_may_be_cut_at_every_byte() -> None:
    data = wire(events(reasoning_item("ü"), text_item("ä😀"), call_item()))
    wanted = streamed([data])

    for at in range(len(data)):
        assert streamed([data[:at], data[at:]]) == wanted


@pytest.mark.parametrize("seed", range(20))
def test_a_stream_may_come_in_pieces_of_any_size(seed: int) -> None:
    data, dice = wire(ALL_KINDS), random.Random(seed)
    cuts = sorted(dice.sample(range(1, len(data)), dice.randrange(1, 60)))

    assert streamed([data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)])]) == WANTED


# --- what goes back as it came


def test_reasoning_goes_back_encrypted_between_the_calls_it_belongs_to() -> None:
    result = result_of(reasoning_item("hm"), text_item("I look."), call_item(arguments='{"city":"Rom"}'))

    sent = items_of(as_message(result))

    reasoning = {key: value for key, value in reasoning_item("hm").items() if value is not None}
    assert sent == [reasoning, text_item("I look."), call_item(arguments='{"city":"Rom"}')]


def test_the_text_and_the_arguments_are_stored_once() -> None:
    long = "a long answer " * 100

    for result in (
        result_of(reasoning_item(), text_item(long)),
        result_of(reasoning_item(), call_item(arguments=long)),
    ):
        kept = json.dumps(result.provider_data)
        assert "gAAA" in kept and long[:30] not in kept
    assert items_of(as_message(result_of(reasoning_item(), text_item(long))))[1] == text_item(long)


def test_an_answer_without_reasoning_needs_nothing_kept() -> None:
    assert result_of(text_item()).provider_data is None
    assert result_of(call_item()).provider_data is None
    assert result_of(reasoning_item(secret=None), text_item()).provider_data is None
    assert result_of(reasoning_item(secret=None), text_item(), store=True).provider_data is not None


def test_the_phase_of_a_message_is_kept() -> None:
    assert items_of(as_message(result_of(text_item(phase="final_answer"))))[0]["phase"] == "final_answer"


def test_items_that_do_not_belong_to_the_message_are_not_sent() -> None:
    result = result_of(reasoning_item(), call_item())
    message = as_message(result)
    for content in ("text", [*result.content, *result.content]):
        other = AssistantMessage(content=content, source="bot", provider_data=message.provider_data)  # type: ignore[arg-type]
        assert not any(item.get("type") == "reasoning" for item in items_of(other))
    damaged = AssistantMessage(content="x", source="bot", provider_data={"responses": [5]})
    assert items_of(damaged) == [{"role": "assistant", "content": "x"}]


def test_calls_that_got_other_ids_keep_their_reasoning() -> None:
    message = as_message(result_of(reasoning_item(), call_item()))
    message.content = [FunctionCall("other", "{}", "weather")]

    assert [item.get("call_id") for item in items_of(message)] == [None, "other"]


# --- over the wire


def sse(data: bytes, **more: Any) -> Reply:
    return Reply(
        headers={"content-type": "text/event-stream"}, framing="chunked", **more, steps=pieces(data, cuts=[40])
    )


async def test_a_stream_arrives_as_text_and_thoughts_and_ends_with_the_result() -> None:
    async with Loopback([sse(wire(events(reasoning_item("hm"), text_item("hello"))))]) as server:
        async with OpenAIResponsesClient(model="gpt-5", api_key=KEY, base_url=server.url) as model:
            got = [each async for each in model.create_stream(QUESTION)]

    assert "".join(str(each) for each in got if isinstance(each, ThoughtChunk)) == "hm"
    assert "".join(each for each in got if isinstance(each, str) and not isinstance(each, ThoughtChunk)) == "hello"
    assert isinstance(got[-1], CreateResult) and got[-1].thought == "hm"
    assert server.requests[0].json["stream"] is True


async def test_a_conversation_with_tools_carries_the_reasoning_on() -> None:
    replies = [json_reply(response(reasoning_item(), call_item())), json_reply(response(text_item("sunny")))]
    async with Loopback(replies) as server:
        async with OpenAIResponsesClient(model="gpt-5", api_key=KEY, base_url=server.url) as model:
            first = await model.create(QUESTION, tools=[WEATHER])
            done = FunctionExecutionResult(content="sun", name="weather", call_id="call_1", is_error=False)
            talk = [*QUESTION, as_message(first), FunctionExecutionResultMessage(content=[done])]
            last = await model.create(talk, tools=[WEATHER])

    assert last.content == "sunny"
    assert [item.get("type") for item in server.requests[1].json["input"]] == [
        None,
        "reasoning",
        "function_call",
        "function_call_output",
    ]


async def test_an_error_in_a_stream_keeps_what_came_before_it() -> None:
    data = wire([*events(text_item("hel"))[:-2], {"type": "error", "code": "server_error", "message": "broke"}])
    async with Loopback([sse(data)]) as server:
        async with OpenAIResponsesClient(model="m", api_key=KEY, base_url=server.url) as model:
            with pytest.raises(ModelError, match="broke") as failed:
                async for _ in model.create_stream(QUESTION):
                    pass

    assert failed.value.partial == "hel"


async def test_a_refused_request_says_what_the_provider_said() -> None:
    body = {"error": {"message": "Unsupported parameter: 'stop'", "code": "unsupported_parameter"}}
    async with Loopback([json_reply(body, status=400)]) as server:
        async with OpenAIResponsesClient(model="m", api_key=KEY, base_url=server.url) as model:
            with pytest.raises(RequestError, match="Unsupported parameter"):
                await model.create(QUESTION)


def test_azure_is_reached_by_its_base_url() -> None:
    model = OpenAIResponsesClient(model="m", api_key=KEY, base_url="https://x.openai.azure.com/openai/v1/")

    assert model._url == "https://x.openai.azure.com/openai/v1/responses"
