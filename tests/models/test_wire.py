"""Recorded traffic of OpenAI's protocol and its dialects: what was sent is encoded, what came back is understood."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from typing import Any

import pytest

from loopback import Loopback, Reply, pieces
from recorded import check_calls, recorded, requests
from tinygen.errors import AuthenticationError, ModelError, RateLimitError, RequestError, ServerError
from tinygen.messages import (
    AssistantMessage,
    CreateResult,
    FunctionCall,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    LLMMessage,
    SystemMessage,
    ThoughtChunk,
    UserMessage,
)
from tinygen.models.chat import ChatDecoder, decode_response
from tinygen.models.openai import OpenAIChatCompletionClient
from tinygen.models.sse import EventDecoder
from tinygen.models.wire import Answer

OWN = {"messages", "tools", "tool_choice", "stream", "n", "model"}  # what the client sets itself, or refuses


def exchanges(*bodies: str, least: int = 200, most: int = 299) -> list[Any]:
    return recorded("openai.chat", *bodies, least=least, most=most)


# --- the pure functions


def check(answer: Answer, expected: dict[str, Any]) -> None:
    got = {"text": answer.text, "thinking": answer.thought, "finish_reason": answer.finish, "usage": answer.usage}
    got |= {"text_raw": f"<think>{answer.thought}</think>{answer.text}"}
    for key, value in expected.items():
        if key == "tool_calls":
            check_calls(answer.calls, value)
        elif key == "usage":
            assert {name: count for name, count in answer.usage.items() if name in value} == value
        elif key == "text_raw":
            assert "".join(got[key].split()) == "".join(value.split())
        elif key in ("text", "refusal"):
            assert answer.text == expected.get("text", "") + expected.get("refusal", "")
        elif key not in ("error", "text_blocks"):
            assert got[key] == value, key


def decoded(stream: list[bytes]) -> tuple[Answer, str, ModelError | None]:
    """What a stream in these pieces says, the text as it came, and the error that ended it."""
    framing, decoder, said = EventDecoder(), ChatDecoder(), ""
    try:
        for piece in stream:
            for event, data in framing.feed(piece):
                said += decoder.feed(event, data)
        for event, data in framing.finish():
            said += decoder.feed(event, data)
        said += decoder.end()
        return decoder.whole(), said, None
    except ModelError as error:
        answer = decoder.answer
        answer.text, answer.thought = decoder.text, "".join(decoder._thought)
        return answer, said, error


@pytest.mark.parametrize("exchange", exchanges("json"))
def test_every_recorded_body_is_understood(exchange: dict[str, Any]) -> None:
    check(decode_response(exchange["response"]["json"]), exchange["expect"])


@pytest.mark.parametrize("exchange", exchanges("sse"))
def test_every_recorded_stream_is_understood(exchange: dict[str, Any]) -> None:
    answer, said, error = decoded([exchange["response"]["sse"].encode()])

    check(answer, exchange["expect"])
    assert said == answer.text
    assert (error is None) == ("error" not in exchange["expect"])
    assert error is None or exchange["expect"]["error"]["message"] in str(error)


@pytest.mark.parametrize("exchange", exchanges("sse"))
def test_a_recorded_stream_means_the_same_however_it_is_cut(exchange: dict[str, Any]) -> None:
    data = exchange["response"]["sse"].encode()
    whole = decoded([data])[:2]
    chance = random.Random(exchange["id"])
    edges = range(1, len(data)) if len(data) < 2_000 else sorted(chance.sample(range(1, len(data)), 12))
    several = [0, *sorted(chance.sample(range(1, len(data)), 9)), len(data)]

    assert decoded([data[i : i + 1] for i in range(len(data))])[:2] == whole
    assert decoded([data[a:b] for a, b in pairwise(several)])[:2] == whole
    for edge in edges:
        assert decoded([data[:edge], data[edge:]])[:2] == whole


# --- through a connection


def client_for(exchange: dict[str, Any], url: str, **more: Any) -> OpenAIChatCompletionClient:
    sent = exchange["request"]["json"]
    fields = {key: value for key, value in sent.items() if key not in OWN}
    options = {"base_url": url, "api_key": "sk-test-0123456789", "include_name_in_message": False, "max_retries": 0}
    return OpenAIChatCompletionClient(
        **{"model": sent.get("model", "m"), "stream_options": None, **options, **fields, **more}
    )


def message_of(data: dict[str, Any]) -> LLMMessage:
    """The message that was encoded so."""
    content = data.get("content")
    if data["role"] in ("system", "developer"):
        return SystemMessage(content=content)
    if data["role"] == "user":
        if isinstance(content, list):
            content = [part["text"] for part in content]
        return UserMessage(content=content, source="user")
    if data["role"] == "tool":
        result = FunctionExecutionResult(content=content, name="", call_id=data["tool_call_id"])
        return FunctionExecutionResultMessage(content=[result])
    calls = [
        FunctionCall(id=c["id"], arguments=c["function"]["arguments"], name=c["function"]["name"])
        for c in data.get("tool_calls", ())
    ]
    return AssistantMessage(content=calls or content, thought=content if calls else None, source="assistant")


def plain(sent: dict[str, Any]) -> dict[str, Any]:
    """A request in our words, without what says nothing: false, null and "auto", and the empty texts of tools."""
    words = {"developer": "system", "any": "required"}  # new names of roles and Mistral's name of a choice
    request = {key: value for key, value in sent.items() if value not in (None, False, "auto") and key != "n"}
    request["messages"] = [
        {**{k: v for k, v in m.items() if v is not None}, "role": words.get(m["role"], m["role"])}
        for m in sent["messages"]
    ]
    if isinstance(choice := request.get("tool_choice"), str):
        request["tool_choice"] = words.get(choice, choice)
    if "tools" in request:
        request["tools"] = [{**t, "function": {k: v for k, v in t["function"].items() if v}} for t in sent["tools"]]
    return request


@pytest.mark.parametrize("exchange", requests("openai.chat"))
async def test_every_recorded_request_that_ours_can_make_is_made(exchange: dict[str, Any]) -> None:
    sent = exchange["request"]["json"]
    messages = [message_of(data) for data in sent["messages"]]
    tools = [tool["function"] for tool in sent.get("tools", ())]
    choice = sent.get("tool_choice", "auto")
    if isinstance(choice, dict):
        choice = {"name": choice["function"]["name"]}
    choice = "required" if choice == "any" else choice
    async with Loopback([Reply(status=400)]) as server, client_for(exchange, server.url) as client:
        ask = client.create_stream if sent.get("stream") else client.create
        with pytest.raises(RequestError):
            asked = ask(messages, tools=tools, tool_choice=choice)
            await (anext(asked) if sent.get("stream") else asked)

    assert plain(server.requests[0].json) == plain({"model": "m", **sent})


def reply_to(exchange: dict[str, Any]) -> Reply:
    response = exchange["response"]
    headers = {key: value for key, value in response["headers"].items() if value != "15"}
    if "sse" in response:
        data = response["sse"].encode()
        cuts = random.Random(exchange["id"]).sample(range(1, len(data)), 7)
        headers.setdefault("content-type", "text/event-stream")
        return Reply(response["status"], headers, steps=pieces(data, cuts=cuts), framing="chunked")
    body = json.dumps(response["json"]) if "json" in response else response["text"]
    return Reply(response["status"], headers, body.encode())


@pytest.mark.parametrize("exchange", exchanges("json", "sse"))
async def test_every_recorded_answer_comes_through_a_connection(exchange: dict[str, Any]) -> None:
    expected = exchange["expect"]
    question = [UserMessage(content="q", source="user")]
    async with Loopback([reply_to(exchange)]) as server, client_for(exchange, server.url) as client:
        if "sse" not in exchange["response"]:
            result = await client.create(question)
        elif "error" in expected:
            with pytest.raises(ModelError, match=expected["error"]["message"]) as failed:
                _ = [item async for item in client.create_stream(question)]
            assert (failed.value.category, failed.value.partial) == ("api_error", expected["text"])
            return
        else:
            *texts, last = [item async for item in client.create_stream(question)]
            assert isinstance(last, CreateResult)
            result = last
            said = "".join(str(text) for text in texts if not isinstance(text, ThoughtChunk))
            assert said == expected.get("text", said) + expected.get("refusal", "")
            thought = "".join(text for text in texts if isinstance(text, ThoughtChunk))
            assert thought in (result.thought or "")

    calls = [] if isinstance(result.content, str) else result.content
    assert [call.name for call in calls] == [call["name"] for call in expected["tool_calls"]]
    assert all(call.id and isinstance(json.loads(call.arguments), dict) for call in calls)
    assert (result.finish_reason == "function_calls") == bool(calls)
    if "usage" in expected:
        assert result.usage.prompt_tokens == expected["usage"]["prompt_tokens"]


@pytest.mark.parametrize("exchange", exchanges("json", "text", least=400, most=599))
async def test_every_recorded_refusal_is_the_right_error(exchange: dict[str, Any]) -> None:
    expected = exchange["expect"]["error"]
    kinds: dict[int, type[ModelError]] = {401: AuthenticationError, 403: AuthenticationError, 429: RateLimitError}
    kind = kinds.get(expected["status"], RequestError if expected["status"] < 500 else ServerError)
    async with Loopback([reply_to(exchange)]) as server, client_for(exchange, server.url) as client:
        with pytest.raises(kind) as failed:
            await client.create([UserMessage(content="q", source="user")])

    headers = exchange["response"]["headers"]
    assert failed.value.status == expected["status"]
    assert expected.get("message", "") in str(failed.value)
    assert failed.value.request_id == headers.get("x-request-id", headers.get("apim-request-id"))
    if "retry-after" in headers:
        assert failed.value.retry_after == float(headers["retry-after"])
