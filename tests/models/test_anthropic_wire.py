"""Recorded traffic of Anthropic's protocol: what was sent is encoded, what came back is understood."""

from __future__ import annotations

import base64
import json
import random
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loopback import Loopback, Reply, pieces
from recorded import check_calls, recorded, requests
from tinygen.errors import AuthenticationError, ModelError, RateLimitError, RequestError, ServerError
from tinygen.messages import (
    AssistantMessage,
    CreateResult,
    FunctionCall,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    Image,
    LLMMessage,
    SystemMessage,
    ThoughtChunk,
    UserMessage,
)
from tinygen.models.anthropic import AnthropicChatCompletionClient
from tinygen.models.claude import MessagesDecoder, decode_response
from tinygen.models.sse import EventDecoder
from tinygen.models.wire import Answer

OWN = {"messages", "system", "tools", "tool_choice", "stream"}  # what is rebuilt from messages and arguments of ours


def exchanges(*bodies: str, least: int = 200, most: int = 299) -> list[Any]:
    return recorded("anthropic.messages", *bodies, least=least, most=most)


# --- the pure functions


def check(answer: Answer, expected: dict[str, Any]) -> None:
    assert answer.text == expected.get("text", "".join(expected.get("text_blocks", [answer.text])))
    assert answer.thought == expected.get("thinking", answer.thought)
    assert answer.finish == expected.get("finish_reason", answer.finish)
    check_calls(answer.calls, expected["tool_calls"])
    counts = dict(expected["usage"])
    if "input_tokens_uncached" in counts:
        parts = [counts.pop(key) for key in ("input_tokens_uncached", "cache_creation_tokens")]
        counts["prompt_tokens"] = sum(parts) + counts["cached_tokens"]
    assert {key: count for key, count in answer.usage.items() if key in counts} == counts


def decoded(stream: list[bytes]) -> tuple[Answer, str, ModelError | None]:
    """What a stream in these pieces says, the text as it came, and the error that ended it."""
    framing, decoder, said = EventDecoder(), MessagesDecoder(), ""
    try:
        for piece in stream:
            for event, data in framing.feed(piece):
                said += decoder.feed(event, data)
        for event, data in framing.finish():
            said += decoder.feed(event, data)
        said += decoder.end()
        return decoder.whole(), said, None
    except ModelError as error:
        decoder.answer.text = decoder.text
        return decoder.answer, said, error


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

    assert decoded([data[i : i + 1] for i in range(len(data))])[:2] == whole
    for edge in edges:
        assert decoded([data[:edge], data[edge:]])[:2] == whole


@pytest.mark.parametrize("exchange", exchanges("sse"))
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_recorded_stream_means_the_same_in_pieces_of_any_size(exchange: dict[str, Any], data: st.DataObject) -> None:
    stream = exchange["response"]["sse"].encode()
    cuts = data.draw(st.lists(st.integers(1, len(stream) - 1), max_size=30, unique=True).map(sorted))

    parts = [stream[a:b] for a, b in pairwise([0, *cuts, len(stream)])]

    assert decoded(parts)[:2] == decoded([stream])[:2]


def test_signed_thoughts_of_a_recorded_stream_are_kept_to_the_letter() -> None:
    for parameters in exchanges("sse"):
        exchange: dict[str, Any] = parameters.values[0]
        if not exchange or "thinking" not in str(exchange["features"]):
            continue
        starts = [json.loads(line[5:]) for line in exchange["response"]["sse"].split("\n") if line.startswith("data:")]
        signed = [each["delta"]["signature"] for each in starts if each.get("delta", {}).get("signature")]
        hidden = [each["content_block"]["data"] for each in starts if "data" in each.get("content_block", {})]
        answer = decoded([exchange["response"]["sse"].encode()])[0]

        kept = (answer.kept or {}).get("anthropic", [])

        assert [block["signature"] for block in kept if "signature" in block] == signed
        assert [block["data"] for block in kept if "data" in block] == hidden
        assert "".join(block.get("thinking", "") for block in kept) == answer.thought


# --- through a connection


def client_for(exchange: dict[str, Any], url: str, **more: Any) -> AnthropicChatCompletionClient:
    fields = {key: value for key, value in exchange["request"]["json"].items() if key not in OWN}
    options = {"base_url": url, "api_key": "sk-ant-test-0123456789", "max_retries": 0}
    return AnthropicChatCompletionClient(**{**options, **fields, **more})


def messages_of(data: dict[str, Any]) -> list[LLMMessage]:
    """The messages that are encoded so."""
    content = data["content"]
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if data["role"] == "assistant":
        calls = [
            FunctionCall(id=block["id"], name=block["name"], arguments=json.dumps(block["input"]))
            for block in blocks
            if block["type"] == "tool_use"
        ]
        text = "".join(block["text"] for block in blocks if block["type"] == "text") or None
        return [AssistantMessage(content=calls or text or "", thought=text if calls else None, source="assistant")]
    if any(block["type"] == "tool_result" for block in blocks):
        return [FunctionExecutionResultMessage(content=[result_of(block) for block in blocks])]
    return [UserMessage(content=[part_of(block) for block in blocks], source="user")]


def result_of(block: dict[str, Any]) -> FunctionExecutionResult:
    inner = block["content"] if isinstance(block["content"], list) else [{"type": "text", "text": block["content"]}]
    parts = [part_of(each) for each in inner]
    return FunctionExecutionResult(
        content="".join(part for part in parts if isinstance(part, str)),
        name="",
        call_id=block["tool_use_id"],
        images=[part for part in parts if isinstance(part, Image)] or None,
    )


def part_of(block: dict[str, Any]) -> str | Image:
    if block["type"] == "image":
        return Image(base64.b64decode(block["source"]["data"]))
    text: str = block["text"]
    return text


def plain(sent: dict[str, Any]) -> dict[str, Any]:
    """A request with all texts as blocks, and without what says nothing."""
    request = {key: value for key, value in sent.items() if value not in (False, {"type": "auto"})}
    request["messages"] = [
        {
            **each,
            "content": [{"type": "text", "text": each["content"]}]
            if isinstance(each["content"], str)
            else each["content"],
        }
        for each in sent["messages"]
    ]
    if isinstance(system := request.get("system"), list):
        request["system"] = "\n".join(block["text"] for block in system)
    return request


@pytest.mark.parametrize("exchange", requests("anthropic.messages"))
async def test_every_recorded_request_that_ours_can_make_is_made(exchange: dict[str, Any]) -> None:
    sent = exchange["request"]["json"]
    messages = [message for data in sent["messages"] for message in messages_of(data)]
    if system := plain(sent).get("system"):
        messages.insert(0, SystemMessage(content=system))
    tools = [{**tool, "parameters": tool["input_schema"]} for tool in sent.get("tools", ()) if "input_schema" in tool]
    own = [tool for tool in sent.get("tools", ()) if "input_schema" not in tool]
    async with Loopback([Reply(status=400)]) as server, client_for(exchange, server.url, tools=own) as client:
        ask = client.create_stream if sent.get("stream") else client.create
        with pytest.raises(RequestError):
            asked = ask(messages, tools=tools)
            await (anext(asked) if sent.get("stream") else asked)

    assert plain(server.requests[0].json) == plain(sent)
    for name, value in exchange["request"]["headers"].items():
        if name == "anthropic-version":
            assert server.requests[0].headers[name] == value


def reply_to(exchange: dict[str, Any]) -> Reply:
    response = exchange["response"]
    headers = {key: value for key, value in response["headers"].items() if key != "retry-after"}
    if "sse" not in response:
        return Reply(response["status"], headers, json.dumps(response["json"]).encode())
    data = response["sse"].encode()
    cuts = random.Random(exchange["id"]).sample(range(1, len(data)), 7)
    headers.setdefault("content-type", "text/event-stream")
    return Reply(response["status"], headers, steps=pieces(data, cuts=cuts), framing="chunked")


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
            assert "".join(str(text) for text in texts if not isinstance(text, ThoughtChunk)) in (
                result.content,
                expected.get("text"),
            )
            assert "".join(text for text in texts if isinstance(text, ThoughtChunk)) in (result.thought or "")

    calls = [] if isinstance(result.content, str) else result.content
    check_calls(calls, expected["tool_calls"])
    assert (result.finish_reason == "function_calls") == bool(calls)


@pytest.mark.parametrize("exchange", exchanges("json", least=400, most=599))
async def test_every_recorded_refusal_is_the_right_error(exchange: dict[str, Any]) -> None:
    expected = exchange["expect"]["error"]
    kinds: dict[int, type[ModelError]] = {401: AuthenticationError, 429: RateLimitError, 529: ServerError}
    async with Loopback([reply_to(exchange)]) as server, client_for(exchange, server.url) as client:
        with pytest.raises(kinds.get(expected["status"], RequestError)) as failed:
            await client.create([UserMessage(content="q", source="user")])

    assert failed.value.status == expected["status"]
    assert expected["message"] in str(failed.value)
    response = exchange["response"]
    assert failed.value.request_id == response["headers"].get("request-id", response["json"].get("request_id"))
