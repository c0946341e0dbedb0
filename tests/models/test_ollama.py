"""Ollama's own protocol: what is asked, what is understood, and how the client is set up."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopback import Loopback, Reply, json_reply, pieces
from recorded import check_calls, recorded, requests
from tinygen import AssistantAgent, ChatCompletionClient, codec
from tinygen.errors import AuthenticationError, ConfigError, IncompleteResponse, ModelError, ProtocolError, RequestError
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
from tinygen.models.ollama import REASONS, OllamaChatCompletionClient, OllamaDecoder, decode_response, encode_message
from tinygen.models.sse import LineDecoder
from tinygen.models.wire import Answer

QUESTION = [UserMessage(content="hello", source="user")]
PICTURE = Image(b"\x89PNG\r\n\x1a\n" + bytes(8))
WEATHER: dict[str, Any] = {
    "name": "weather",
    "description": "Tells the weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CLOCK: dict[str, Any] = {"name": "clock"}


def line(content: str = "", done: bool = False, **message: Any) -> dict[str, Any]:
    end = {"done_reason": "stop", "prompt_eval_count": 5, "eval_count": 2} if done else {}
    return {"model": "m", "message": {"role": "assistant", "content": content, **message}, "done": done, **end}


ANSWER = line("hi", done=True)


def call_of(name: str = "weather", arguments: Any = None, **more: Any) -> dict[str, Any]:
    return {"function": {"name": name, "arguments": {} if arguments is None else arguments}, **more}


def lines_reply(*lines: Any, **more: Any) -> Reply:
    """A stream of these lines, each in a piece of its own."""
    steps = [(0.0, json.dumps(each).encode() + b"\n") for each in lines]
    return Reply(headers={"content-type": "application/x-ndjson"}, steps=steps, framing="chunked", **more)


def client(url: str = "http://localhost:1", **options: Any) -> OllamaChatCompletionClient:
    return OllamaChatCompletionClient(**{"model": "m", "host": url, "max_retries": 0, **options})


async def sent_by(messages: Any = QUESTION, options: dict[str, Any] | None = None, **call: Any) -> dict[str, Any]:
    """The body of the request that a client with these options makes for this call."""
    async with Loopback([json_reply(ANSWER)]) as server, client(server.url, **options or {}) as model:
        await model.create(messages, **call)
    assert server.requests[0].path == "/api/chat"
    body: dict[str, Any] = server.requests[0].json
    return body


def result_of(data: dict[str, Any]) -> CreateResult:
    return decode_response(data).result(REASONS)


# --- what is asked


async def test_every_kind_of_message_is_encoded_as_the_protocol_says() -> None:
    call = FunctionCall(id="c1", arguments='{"city": "Rom"}', name="weather")
    result = FunctionExecutionResult(content="sunny ☀", name="weather", call_id="c1")
    talk = [
        SystemMessage(content="be brief"),
        UserMessage(content=["what is", PICTURE, "this?"], source="ann"),
        AssistantMessage(content=[call], thought="I look it up", source="bot"),
        FunctionExecutionResultMessage(content=[result]),
        AssistantMessage(content="sunny", source="bot"),
    ]

    sent = await sent_by(talk)

    wire_call = {"id": "c1", "function": {"name": "weather", "arguments": {"city": "Rom"}}}
    assert sent["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "what is\nthis?", "images": [PICTURE.to_base64()]},
        {"role": "assistant", "content": "I look it up", "tool_calls": [wire_call]},
        {"role": "tool", "content": "sunny ☀", "tool_name": "weather", "tool_call_id": "c1"},
        {"role": "assistant", "content": "sunny"},
    ]
    assert (sent["model"], sent["stream"]) == ("m", False)


def test_who_said_it_can_be_put_before_the_text() -> None:
    data = json.loads(encode_message(UserMessage(content=[PICTURE, "hello"], source="ann"), prefixes=True))

    assert data["content"] == "ann said:\nhello"


def test_arguments_that_are_no_object_are_sent_as_one() -> None:
    message = AssistantMessage(content=[FunctionCall(id="c1", arguments="[1", name="f")], source="bot")

    (call,) = json.loads(encode_message(message))["tool_calls"]

    assert call["function"]["arguments"] == {"invalid_json": "[1"}


async def test_settings_are_options_unless_they_are_fields_of_the_request() -> None:
    options: dict[str, Any] = {"options": {"num_ctx": 8192, "temperature": 0.5}, "max_tokens": 9, "stop": "END"}
    extra = {"options": {"temperature": 1}, "keep_alive": -1, "top_k": 3, "seed": None}

    sent = await sent_by(options={**options, "think": "low"}, extra_create_args=extra)

    assert sent["options"] == {"num_ctx": 8192, "temperature": 1, "num_predict": 9, "stop": ["END"], "top_k": 3}
    assert (sent["think"], sent["keep_alive"]) == ("low", -1)


@pytest.mark.parametrize("name", ["stream", "messages", "tools"])
async def test_what_the_client_sets_itself_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        client(**{name: 1})
    with pytest.raises(ConfigError, match=name):
        await client().create(QUESTION, extra_create_args={name: 1})


@pytest.mark.parametrize(
    ("choice", "offered"),
    [("auto", ["weather", "clock"]), ("required", ["weather", "clock"]), ("none", []), (WEATHER, ["weather"])],
)
async def test_a_choice_of_tools_is_made_by_offering_no_others(choice: Any, offered: list[str]) -> None:
    sent = await sent_by(tools=[WEATHER, CLOCK], tool_choice=choice)

    assert [tool["function"]["name"] for tool in sent.get("tools", ())] == offered


async def test_the_whole_schema_of_a_tool_is_sent() -> None:
    parameters = {
        "type": "object",
        "properties": {"kind": {"enum": ["a", "b"]}, "where": {"$ref": "#/$defs/Place"}},
        "$defs": {"Place": {"type": "object", "properties": {"city": {"type": "string"}}}},
    }

    (tool,) = (await sent_by(tools=[{"name": "f", "parameters": parameters}]))["tools"]

    assert tool["function"]["parameters"]["properties"] == {
        "kind": {"enum": ["a", "b"]},
        "where": {"type": "object", "properties": {"city": {"type": "string"}}},
    }


@dataclass
class Trip:
    city: str
    nights: int = 1


@pytest.mark.parametrize(
    ("output", "form"),
    [(True, "json"), (Trip, codec.schema(Trip)), (list[int], {"type": "array", "items": {"type": "integer"}})],
)
async def test_an_answer_is_held_to_its_form(output: Any, form: Any) -> None:
    assert (await sent_by(json_output=output))["format"] == form


@pytest.mark.parametrize(
    ("given_form", "form"),
    [
        (Trip, codec.schema(Trip)),
        ({"type": "json_object"}, "json"),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "string"}}}, {"type": "string"}),
        ({"type": "string"}, {"type": "string"}),
        ("json", "json"),
    ],
)
async def test_a_form_given_as_for_openai_is_understood(given_form: Any, form: Any) -> None:
    assert (await sent_by(options={"response_format": given_form}))["format"] == form


async def test_a_model_that_has_tools_is_told_the_form_in_words() -> None:
    sent = await sent_by(json_output=Trip, tools=[WEATHER])

    assert "format" not in sent and sent["messages"][0]["role"] == "system"
    assert '"nights"' in sent["messages"][0]["content"]


async def test_the_text_of_a_message_is_made_once() -> None:
    async with Loopback([json_reply(ANSWER)]) as server, client(server.url) as model:
        await model.create(QUESTION)
        text = model._conversations.fitted(QUESTION)[2][0]
        await model.create(QUESTION)

    assert model._conversations.fitted(QUESTION)[2][0] is text


# --- what is understood


def test_calls_without_ids_get_ids_and_their_arguments_are_text() -> None:
    calls = [call_of(arguments={"city": "Köln"}), call_of("clock"), call_of("clock", id="0"), call_of("clock", id="0")]

    result = result_of(line("I look.", done=True, tool_calls=[*calls, call_of("clock", arguments='{"a": 1}')]))

    assert result.finish_reason == "function_calls" and isinstance(result.content, list)
    assert [call.arguments for call in result.content] == ['{"city":"Köln"}', "{}", "{}", "{}", '{"a": 1}']
    assert len({call.id for call in result.content}) == 5 and all(call.id for call in result.content)
    assert (result.thought, result.provider_data) == ("I look.", None)


def test_thinking_about_calls_is_kept_apart_from_the_text_and_goes_back() -> None:
    result = result_of(line("I look.", done=True, thinking="hm", tool_calls=[call_of()]))
    message = AssistantMessage(
        content=result.content, thought=result.thought, source="bot", provider_data=result.provider_data
    )

    again = json.loads(encode_message(codec.decode(AssistantMessage, codec.loads(codec.dumps(message)))))

    assert result.thought == "hm\nI look."
    assert (again["thinking"], again["content"]) == ("hm", "I look.")


@pytest.mark.parametrize("kept", [{"gemini": [{"text": "x"}]}, {"ollama": "x"}, {"ollama": {}}])
def test_what_others_keep_is_ignored(kept: Any) -> None:
    calls = [FunctionCall(id="c1", arguments="{}", name="f")]
    message = AssistantMessage(content=calls, thought="hm", source="bot", provider_data=kept)

    assert json.loads(encode_message(message))["content"] == "hm"
    assert "thinking" not in encode_message(message)


@pytest.mark.parametrize(
    ("word", "reason"), [("stop", "stop"), ("length", "length"), (None, "stop"), ("unload", "unknown"), (3, "unknown")]
)
def test_why_an_answer_ends_is_translated(word: Any, reason: str) -> None:
    assert result_of({**ANSWER, "done_reason": word}).finish_reason == reason


def test_a_prompt_that_was_not_evaluated_again_counts_nothing() -> None:
    result = result_of({"message": {"role": "assistant", "content": "hi"}, "done": True, "eval_count": 2})

    assert result.usage == RequestUsage(0, 2)


def test_log_probabilities_of_all_lines_are_those_of_the_answer() -> None:
    decoder = OllamaDecoder()
    for text, value in (("so", -0.5), ("?", None), ("be it", -1.25)):
        top = [{"token": "no", "logprob": -2.0}]
        decoder.feed(
            "", json.dumps({**line(text), "logprobs": [{"token": text, "logprob": value, "top_logprobs": top}]})
        )
    decoder.feed("", json.dumps(ANSWER))

    tokens = decoder.whole().result(REASONS).logprobs or []

    assert [(each.token, each.logprob) for each in tokens] == [("so", -0.5), ("be it", -1.25)]
    assert [each.logprob for each in tokens[0].top_logprobs or []] == [-2.0]


def test_thoughts_are_streamed_beside_the_text() -> None:
    decoder = OllamaDecoder()
    said = [decoder.feed("", json.dumps(each)) for each in (line(thinking="hm"), line("yes"), ANSWER, line("late"))]

    assert (said, decoder.fresh_thought(), decoder.done) == (["", "yes", "hi", ""], "hm", True)


def test_thinking_in_tags_is_told_from_the_text() -> None:
    result = result_of(line("<think>hm</think>yes", done=True))

    assert (result.content, result.thought) == ("yes", "hm")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"message": None},
        {"message": "x"},
        line(content=1),  # type: ignore[arg-type]
        line(tool_calls={}),
        line(tool_calls=[1]),
        line(tool_calls=[{"function": 1}]),
        line(tool_calls=[call_of("")]),
    ],
)
def test_what_does_not_follow_the_protocol_is_said_to_be_so(body: Any) -> None:
    with pytest.raises(ProtocolError):
        decode_response(body)


# --- recordings


def check(answer: Answer, expected: dict[str, Any]) -> None:
    check_calls(answer.calls, expected.get("tool_calls", []))
    assert answer.text == expected["text"]
    assert answer.thought == expected.get("thinking", "")
    assert answer.finish == expected["finish_reason"]
    assert answer.usage == expected["usage"]


def decoded(stream: list[bytes]) -> tuple[Answer, str]:
    framing, decoder, said = LineDecoder(), OllamaDecoder(), ""
    for piece in stream:
        for event, data in framing.feed(piece):
            said += decoder.feed(event, data)
    for event, data in framing.finish():
        said += decoder.feed(event, data)
    said += decoder.end()
    return decoder.whole(), said


@pytest.mark.parametrize("exchange", recorded("ollama.chat", "json"))
def test_every_recorded_body_is_understood(exchange: dict[str, Any]) -> None:
    check(decode_response(exchange["response"]["json"]), exchange["expect"])


@pytest.mark.parametrize("exchange", recorded("ollama.chat", "ndjson"))
def test_a_recorded_stream_means_the_same_however_it_is_cut(exchange: dict[str, Any]) -> None:
    data = exchange["response"]["ndjson"].encode()
    answer, said = decoded([data])
    chance = random.Random(exchange["id"])
    several = [0, *sorted(chance.sample(range(1, len(data)), 9)), len(data)]

    check(answer, exchange["expect"])
    assert said == answer.text
    assert decoded([data[i : i + 1] for i in range(len(data))]) == (answer, said)
    assert decoded([data[a:b] for a, b in pairwise(several)]) == (answer, said)
    assert decoded([data.rstrip(b"\n")]) == (answer, said)


@given(st.lists(st.text(max_size=4), max_size=5), st.lists(st.integers(0, 2_000), max_size=6))
def test_a_stream_means_the_same_however_it_is_cut(texts: list[str], places: list[int]) -> None:
    lines = [line(text, thinking=text) for text in texts] + [line(done=True, tool_calls=[call_of(id="c1")])]
    data = b"".join(json.dumps(each, ensure_ascii=False).encode() + b"\n" for each in lines)
    edges = [0, *sorted(place % len(data) for place in places), len(data)]

    assert decoded([data[a:b] for a, b in pairwise(edges)]) == decoded([data])
    for edge in range(len(data)):
        assert decoded([data[:edge], data[edge:]]) == decoded([data])


def message_of(data: dict[str, Any]) -> LLMMessage:
    if data["role"] == "tool":
        result = FunctionExecutionResult(content=data["content"], name="get_current_weather", call_id="c1")
        return FunctionExecutionResultMessage(content=[result])
    if data["role"] == "user":
        return UserMessage(content=data["content"], source="user")
    functions = [call["function"] for call in data["tool_calls"]]
    calls = [FunctionCall(id="c1", arguments=json.dumps(each["arguments"]), name=each["name"]) for each in functions]
    return AssistantMessage(content=calls, source="bot")


def plain(data: Any) -> Any:
    """A request without ids, and without what says nothing."""
    if isinstance(data, list):
        return [plain(each) for each in data]
    if not isinstance(data, dict):
        return data
    said = {key: plain(value) for key, value in data.items() if value not in ("", None, [], {})}
    return {key: value for key, value in said.items() if key not in ("id", "tool_name", "tool_call_id")}


@pytest.mark.parametrize("exchange", requests("ollama.chat"))
async def test_every_recorded_request_is_made(exchange: dict[str, Any]) -> None:
    sent = exchange["request"]["json"]
    messages = [message_of(data) for data in sent["messages"]]
    tools = [tool["function"] for tool in sent.get("tools", ())]
    async with Loopback([json_reply(ANSWER)]) as server:
        async with client(server.url, model=sent["model"], options=sent.get("options")) as model:
            made = (model.create_stream if sent["stream"] else model.create)(messages, tools=tools)
            await (anext(made) if sent["stream"] else made)

    assert plain(server.requests[0].json) == plain(sent)


# --- through a connection


def reply_to(exchange: dict[str, Any]) -> Reply:
    response = exchange["response"]
    if "ndjson" not in response:
        return json_reply(response["json"], response["status"])
    data = response["ndjson"].encode()
    cuts = random.Random(exchange["id"]).sample(range(1, len(data)), 7)
    return Reply(response["status"], response["headers"], steps=pieces(data, cuts=cuts), framing="chunked")


@pytest.mark.parametrize("exchange", recorded("ollama.chat", "json", "ndjson"))
async def test_every_recorded_answer_comes_through_a_connection(exchange: dict[str, Any]) -> None:
    expected = exchange["expect"]
    async with Loopback([reply_to(exchange)]) as server, client(server.url) as model:
        *said, result = [item async for item in model.create_stream(QUESTION)]

    assert isinstance(result, CreateResult)
    assert "".join(str(piece) for piece in said if not isinstance(piece, ThoughtChunk)) == expected["text"]
    check_calls([] if isinstance(result.content, str) else result.content, expected["tool_calls"])
    assert result.usage == RequestUsage(**expected["usage"])


@pytest.mark.parametrize("exchange", recorded("ollama.chat", "json", least=400, most=599))
async def test_every_recorded_refusal_is_the_right_error(exchange: dict[str, Any]) -> None:
    async with Loopback([reply_to(exchange)]) as server, client(server.url) as model:
        with pytest.raises(RequestError) as failed:
            await model.create(QUESTION)

    assert failed.value.status == exchange["expect"]["error"]["status"]
    assert exchange["expect"]["error"]["message"] in str(failed.value)


async def test_an_error_inside_a_stream_keeps_what_was_said_before_it() -> None:
    reply = lines_reply(line("half an "), {"error": "the runner has died"})
    async with Loopback([reply]) as server, client(server.url) as model:
        with pytest.raises(ModelError, match="the runner has died") as failed:
            _ = [item async for item in model.create_stream(QUESTION)]

    assert failed.value.partial == "half an "


async def test_a_stream_that_breaks_off_is_not_taken_for_an_answer() -> None:
    async with Loopback([lines_reply(line("half an "))]) as server, client(server.url) as model:
        with pytest.raises(IncompleteResponse) as failed:
            _ = [item async for item in model.create_stream(QUESTION)]

    assert failed.value.partial == "half an "


async def test_a_page_of_some_proxy_is_not_taken_for_an_answer() -> None:
    reply = Reply(headers={"content-type": "text/html"}, body=b"<html>\n<p>Sorry</p>\n</html>\n")
    async with Loopback([reply]) as server, client(server.url) as model:
        with pytest.raises(ProtocolError, match="<html>"):
            _ = [item async for item in model.create_stream(QUESTION)]


async def test_an_answer_that_is_complete_does_not_wait_for_the_connection_to_end() -> None:
    async with Loopback([lines_reply(line("h"), line("i", done=True), end="hang")]) as server:
        async with client(server.url) as model:
            *said, result = [item async for item in model.create_stream(QUESTION)]

    assert isinstance(result, CreateResult) and (said, result.content) == (["h", "i"], "hi")


async def test_an_agent_calls_tools_and_answers() -> None:
    def weather(city: str) -> str:
        """Tells the weather."""
        return f"sunny in {city}"

    calls = [call_of(arguments={"city": "Rom"}), call_of(arguments={"city": "Oslo"})]
    replies = [lines_reply(line(thinking="hm", tool_calls=calls), line(done=True)), lines_reply(ANSWER)]
    async with Loopback(replies) as server, client(server.url) as model:
        agent = AssistantAgent("ada", model, tools=[weather], model_client_stream=True, reflect_on_tool_use=True)
        result = await agent.run(task="Weather?")

    assert result.messages[-1].to_text() == "hi"
    asks, first, second = server.requests[1].json["messages"][2:]
    assert asks["thinking"] == "hm" and len(asks["tool_calls"]) == 2
    assert (first["content"], second["content"]) == ("sunny in Rom", "sunny in Oslo")
    assert [first["tool_call_id"], second["tool_call_id"]] == [call["id"] for call in asks["tool_calls"]]


# --- how the client is set up


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("", "http://localhost:11434"),
        ("box", "http://box:11434"),
        ("box:1", "http://box:1"),
        (":1", "http://127.0.0.1:1"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("https://ollama.example.com", "https://ollama.example.com"),
        ("http://box:1/", "http://box:1"),
        ("http://box:1/v1", "http://box:1"),
        ("http://box/proxy/api", "http://box/proxy"),
        ("[::1]:7", "http://[::1]:7"),
    ],
)
def test_the_address_may_be_given_as_ollama_reads_it(host: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", host)
    monkeypatch.delenv("OLLAMA_BASE_URL", raising=False)

    from_environment = OllamaChatCompletionClient(model="m")
    given_ones = [OllamaChatCompletionClient(model="m", **{name: host or None}) for name in ("host", "base_url")]

    assert {made._url for made in (from_environment, *given_ones)} == {f"{url}/api/chat"}


@pytest.mark.parametrize("host", ["ftp://box", "a b", "box:99999", 7])
def test_an_address_that_is_none_is_refused(host: Any) -> None:
    with pytest.raises(ConfigError, match="address"):
        OllamaChatCompletionClient(model="m", host=host)


async def test_headers_are_sent_and_no_key_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Loopback([json_reply(ANSWER)]) as server:
        monkeypatch.setenv("OLLAMA_HOST", server.url)
        made = create_client("ollama:llama3.2", headers={"X-Team": "a"})
        async with made as model:  # type: ignore[attr-defined]
            assert (await model.create(QUESTION)).content == "hi"

    assert isinstance(made, OllamaChatCompletionClient)
    assert server.requests[0].headers["x-team"] == "a" and "authorization" not in server.requests[0].headers


def test_a_document_of_autogens_loads() -> None:
    config = {"model": "llama3.2", "host": "http://box:1", "follow_redirects": True, "timeout": None}
    info = {"vision": False, "function_calling": True, "json_output": True, "family": "unknown"}
    document = {
        "provider": "autogen_ext.models.ollama.OllamaChatCompletionClient",
        "component_type": "model",
        "version": 1,
        "config": {**config, "model_info": info, "options": {"num_ctx": 4096}},
    }

    made = ChatCompletionClient.load_component(document)

    assert isinstance(made, OllamaChatCompletionClient)
    assert (made._url, made.model_info["vision"]) == ("http://box:1/api/chat", False)


def test_what_is_left_of_the_context_is_counted_from_the_size_that_ollama_was_told() -> None:
    small, large = client(options={"num_ctx": 4096}), client()

    assert small.remaining_tokens(QUESTION) == 4096 - small.count_tokens(QUESTION)
    assert large.remaining_tokens(QUESTION) == 128_000 - large.count_tokens(QUESTION)


async def key_sent(**options: Any) -> tuple[str | None, Any]:
    """What a request says of who asks, and its body."""
    async with Loopback([json_reply(ANSWER)]) as server, client(server.url, **options) as model:
        await model.create(QUESTION)
    return server.requests[0].headers.get("authorization"), server.requests[0].json


async def test_a_key_goes_into_the_header_and_not_into_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OLLAMA_API_KEY", raising=False)
    header, body = await key_sent(api_key="sk-of-mine")
    assert header == "Bearer sk-of-mine" and "sk-of-mine" not in json.dumps(body)
    assert (await key_sent())[0] is None

    monkeypatch.setenv("OLLAMA_API_KEY", "sk-of-the-cloud")
    assert (await key_sent())[0] == "Bearer sk-of-the-cloud"
    assert (await key_sent(api_key=""))[0] is None
    assert (await key_sent(headers={"Authorization": "Basic YTpi"}))[0] == "Basic YTpi"


async def test_a_refused_key_leads_to_the_argument_and_stays_secret_in_errors_and_documents() -> None:
    async with Loopback([json_reply({"error": "unauthorized sk-of-mine"}, 401)]) as server:
        model = client(server.url, api_key="sk-of-mine")
        with pytest.raises(AuthenticationError, match=r"OLLAMA_API_KEY or pass api_key.*headers=\{") as failed:
            await model.create(QUESTION)

    assert "sk-of-mine" not in str(failed.value)
    document = model.dump_component().model_dump_json()
    assert "sk-of-mine" not in document and "OLLAMA_API_KEY" in document
