"""What the makers' documentation says an answer or a request looks like, in every wire format: data, and what holds.

`SHOWN[capability][format]` is the body of an answer; `ASKED[capability]` is a call, of whose request something is
expected. A format that is missing has no such thing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from formats import FORMATS, Untold
from loopback import Loopback, Reply
from tinygen.errors import ModelError
from tinygen.messages import (
    AssistantMessage,
    CreateResult,
    FunctionCall,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    Image,
    ThoughtChunk,
    UserMessage,
)

PICTURE = Image(b"\x89PNG\r\n\x1a\n" + bytes(8))
QUESTION = [UserMessage(content="How warm is it in Rome?", source="user")]
WEATHER: dict[str, Any] = {
    "name": "weather",
    "description": "Tells the weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@dataclass
class Reading:
    celsius: int


# --- answers


def chat(message: dict[str, Any], finish: str = "stop", **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    usage = {"prompt_tokens": 10, "completion_tokens": 5, **more.pop("usage", {})}
    return {"choices": [{**choice, **more}], "usage": usage}


def responses(*items: dict[str, Any], status: str = "completed", **more: Any) -> dict[str, Any]:
    usage = {"input_tokens": 10, "output_tokens": 5, **more.pop("usage", {})}
    return {"object": "response", "status": status, "output": [*items], "usage": usage, **more}


def item(text: str = "so", kind: str = "output_text", **more: Any) -> dict[str, Any]:
    part = {"type": kind, {"refusal": "refusal"}.get(kind, "text"): text, **more}
    return {"type": "message", "id": "msg_1", "role": "assistant", "content": [part]}


def anthropic(*blocks: dict[str, Any], stop: str = "end_turn", **usage: Any) -> dict[str, Any]:
    counts = {"input_tokens": 10, "output_tokens": 5, **usage}
    return {"type": "message", "role": "assistant", "content": [*blocks], "stop_reason": stop, "usage": counts}


def gemini(*parts: dict[str, Any], finish: str = "STOP", usage: Any = None, **more: Any) -> dict[str, Any]:
    candidate = {"content": {"role": "model", "parts": [*parts]}, "finishReason": finish, **more}
    counts = {"promptTokenCount": 10, "candidatesTokenCount": 5, **(usage or {})}
    return {"candidates": [candidate], "usageMetadata": counts}


def ollama(message: dict[str, Any], reason: str = "stop") -> dict[str, Any]:
    ended = {"done": True, "done_reason": reason, "prompt_eval_count": 10, "eval_count": 5}
    return {"model": "m", "message": {"role": "assistant", **message}, **ended}


SO = {"type": "text", "text": "so"}
CITY = {"city": "Rome"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": json.dumps(CITY)}}
ITEM = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather", "arguments": json.dumps(CITY)}
USE = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": CITY}
PART = {"functionCall": {"name": "weather", "args": CITY}}
MADE = {"function": {"name": "weather", "arguments": CITY}}
TOKEN = {"token": "so", "logprob": -0.5, "bytes": [115, 111], "top_logprobs": []}
SIGNED = {"type": "thinking", "thinking": "hm", "signature": "c2lnbmVk"}
REASONED = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]}

SHOWN: dict[str, dict[str, Any]] = {
    "text": {
        "chat": chat({"content": "so"}),
        "responses": responses(item()),
        "anthropic": anthropic(SO),
        "gemini": gemini({"text": "so"}),
        "ollama": ollama({"content": "so"}),
    },
    "tool calls": {
        "chat": chat({"content": None, "tool_calls": [CALL]}, "tool_calls"),
        "responses": responses(ITEM),
        "anthropic": anthropic(USE, stop="tool_use"),
        "gemini": gemini(PART),
        "ollama": ollama({"content": "", "tool_calls": [MADE]}),
    },
    "parallel calls": {
        "chat": chat({"content": None, "tool_calls": [CALL, {**CALL, "id": "call_2"}]}, "tool_calls"),
        "responses": responses(ITEM, {**ITEM, "call_id": "call_2"}),
        "anthropic": anthropic(USE, {**USE, "id": "toolu_2"}, stop="tool_use"),
        "gemini": gemini(PART, PART),
        "ollama": ollama({"content": "", "tool_calls": [MADE, MADE]}),
    },
    "thinking": {
        "chat": chat({"content": "so", "reasoning_content": "hm"}),
        "responses": responses(REASONED, item()),
        "anthropic": anthropic(SIGNED, SO),
        "gemini": gemini({"text": "hm", "thought": True}, {"text": "so"}),
        "ollama": ollama({"content": "so", "thinking": "hm"}),
    },
    "thoughts sent back": {
        "responses": responses({**REASONED, "encrypted_content": "c2lnbmVk"}, ITEM),
        "anthropic": anthropic(SIGNED, USE, stop="tool_use"),
        "gemini": gemini({**PART, "thoughtSignature": "c2lnbmVk"}),
        "ollama": ollama({"content": "", "thinking": "c2lnbmVk", "tool_calls": [MADE]}),
    },
    "refusals": {
        "chat": chat({"content": None, "refusal": "I will not."}),
        "responses": responses(item("I will not.", "refusal")),
        "anthropic": anthropic({"type": "text", "text": "I will not."}, stop="refusal"),
    },
    "content filters": {
        "chat": chat({"content": ""}, "content_filter"),
        "responses": responses(status="incomplete", incomplete_details={"reason": "content_filter"}),
        "anthropic": anthropic(stop="refusal"),
        "gemini": {"candidates": [{"finishReason": "SAFETY", "content": {}}]},
    },
    "length stops": {
        "chat": chat({"content": "so"}, "length"),
        "responses": responses(item(), status="incomplete", incomplete_details={"reason": "max_output_tokens"}),
        "anthropic": anthropic(SO, stop="max_tokens"),
        "gemini": gemini({"text": "so"}, finish="MAX_TOKENS"),
        "ollama": ollama({"content": "so"}, "length"),
    },
    "cached tokens": {
        "chat": chat({"content": "so"}, usage={"prompt_tokens_details": {"cached_tokens": 4}}),
        "responses": responses(item(), usage={"input_tokens_details": {"cached_tokens": 4}}),
        "anthropic": anthropic(SO, input_tokens=6, cache_read_input_tokens=4, cache_creation_input_tokens=0),
        "gemini": gemini({"text": "so"}, usage={"cachedContentTokenCount": 4}),
    },
    "reasoning tokens": {
        "chat": chat({"content": "so"}, usage={"completion_tokens_details": {"reasoning_tokens": 3}}),
        "responses": responses(item(), usage={"output_tokens_details": {"reasoning_tokens": 3}}),
        "anthropic": anthropic(SO, output_tokens_details={"thinking_tokens": 3}),
        "gemini": gemini({"text": "so"}, usage={"candidatesTokenCount": 2, "thoughtsTokenCount": 3}),
    },
    "logprobs": {
        "chat": chat({"content": "so"}, logprobs={"content": [TOKEN]}),
        "responses": responses(item(logprobs=[TOKEN])),
        "gemini": gemini(
            {"text": "so"},
            logprobsResult={
                "chosenCandidates": [{"token": "so", "logProbability": -0.5}],
                "topCandidates": [{"candidates": [{"token": "so", "logProbability": -0.5}]}],
            },
        ),
        "ollama": {**ollama({"content": "so"}), "logprobs": [TOKEN]},
    },
}
HOLDS: dict[str, Callable[[CreateResult], bool]] = {
    "text": lambda got: (got.content, got.finish_reason, got.usage.prompt_tokens) == ("so", "stop", 10),
    "tool calls": lambda got: called(got) == [("weather", CITY)] and got.finish_reason == "function_calls",
    "parallel calls": lambda got: called(got) == [("weather", CITY)] * 2 and len({c.id for c in calls_of(got)}) == 2,
    "thinking": lambda got: (got.content, got.thought) == ("so", "hm"),
    "thoughts sent back": lambda got: got.provider_data is not None,
    "refusals": lambda got: got.content == "I will not.",
    "content filters": lambda got: got.finish_reason == "content_filter",
    "length stops": lambda got: (got.content, got.finish_reason) == ("so", "length"),
    "cached tokens": lambda got: (got.usage.prompt_tokens, got.usage.cached_tokens) == (10, 4),
    "reasoning tokens": lambda got: (got.usage.completion_tokens, got.usage.reasoning_tokens) == (5, 3),
    "logprobs": lambda got: [(each.token, each.logprob) for each in got.logprobs or ()] == [("so", -0.5)],
}


def calls_of(got: CreateResult) -> list[FunctionCall]:
    return [] if isinstance(got.content, str) else got.content


def called(got: CreateResult) -> list[Any]:
    return [(call.name, json.loads(call.arguments)) for call in calls_of(got)]


# --- requests

TOOL_TALK = [
    *QUESTION,
    AssistantMessage(content=[FunctionCall("call_1", '{"city": "Rome"}', "weather")], source="bot"),
    FunctionExecutionResultMessage(
        content=[FunctionExecutionResult(content="31 degrees", name="weather", call_id="call_1")]
    ),
]
ASKED: dict[str, tuple[dict[str, Any], str]] = {  # a call, and what its request must hold
    "tool results": ({"messages": TOOL_TALK, "tools": [WEATHER]}, "31 degrees"),
    "structured output": ({"messages": QUESTION, "json_output": Reading}, "celsius"),
    "images": (
        {"messages": [UserMessage(content=["What is this?", PICTURE], source="user")]},
        json.dumps(PICTURE.to_base64())[1:-1],
    ),
    "seeds": ({"messages": QUESTION, "extra_create_args": {"seed": 48151623}}, "48151623"),
}
LACKS = {("responses", "seeds"), ("anthropic", "seeds")}  # of the protocol


# --- what holds of a format


async def check(capability: str, name: str) -> None:
    """That a format has a capability as its documentation says. Raises `Untold` if it has no such thing."""
    if (name, capability) in LACKS:
        raise Untold(f"{name} has no {capability}")
    if capability in SHOWN:
        if name not in SHOWN[capability]:
            raise Untold(f"{name} has no {capability}")
        await _check_answer(capability, name)
    elif capability in ASKED:
        await _check_request(capability, name)
    else:
        await STREAMED[capability](name)


async def _check_answer(capability: str, name: str) -> None:
    reply = Reply(headers={"content-type": "application/json"}, body=json.dumps(SHOWN[capability][name]).encode())
    async with Loopback([reply]) as server, FORMATS[name]().client(server.url) as client:
        got = await client.create(QUESTION)
        assert HOLDS[capability](got), got
        if capability == "thoughts sent back":
            said = AssistantMessage(content=got.content, source="bot", provider_data=got.provider_data)
            thinks = {"thinking": {"type": "enabled", "budget_tokens": 1024}} if name == "anthropic" else {}
            await client.create([*QUESTION, said], extra_create_args=thinks)
            assert b"c2lnbmVk" in server.requests[1].body


async def _check_request(capability: str, name: str) -> None:
    call, held = ASKED[capability]
    reply = Reply(headers={"content-type": "application/json"}, body=json.dumps(SHOWN["text"][name]).encode())
    async with Loopback([reply]) as server, FORMATS[name]().client(server.url) as client:
        await client.create(**call)
    assert held in json.dumps(server.requests[0].json)


def _events(*deltas: dict[str, Any], end: str = "stop") -> bytes:
    chunks = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": end}]})
    return b"".join(f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks) + b"data: [DONE]\n\n"


async def _streamed(name: str, data: bytes) -> list[Any]:
    form = FORMATS[name]()
    reply = Reply(headers={"content-type": form.stream_type}, body=form.retold(data))
    async with Loopback([reply]) as server, form.client(server.url, max_retries=0) as client:
        items = []
        try:
            async for each in client.create_stream(QUESTION):
                items.append(each)
        except ModelError as error:
            items.append(error)
        return items


async def _streamed_text(name: str) -> None:
    *pieces, result = await _streamed(name, _events({"content": "s"}, {"content": "o"}))
    assert (pieces, result.content) == (["s", "o"], "so")


async def _streamed_calls(name: str) -> None:
    whole = json.dumps(CITY)
    calls = [
        {**CALL, "index": 0, "function": {"name": "weather", "arguments": part}} for part in (whole[:5], whole[5:])
    ]
    *_, result = await _streamed(name, _events(*({"tool_calls": [call]} for call in calls), end="tool_calls"))
    assert called(result) == [("weather", CITY)]


async def _error_in_stream(name: str) -> None:
    data = _events({"content": "so"}).split(b"\n\n")[0] + b'\n\ndata: {"error": {"message": "overloaded"}}\n\n'
    *pieces, error = await _streamed(name, data)
    assert isinstance(error, ModelError) and "overloaded" in str(error)
    assert (pieces, error.partial) == (["so"], "so")


async def _refused(name: str) -> None:
    form = FORMATS[name]()
    body = json.dumps(form.error({"message": "slow down"})).encode()
    async with Loopback([Reply(429, body=body)]) as server, form.client(server.url, max_retries=0) as client:
        try:
            await client.create(QUESTION)
        except ModelError as error:
            assert (error.status, error.category) == (429, "rate_limit") and "slow down" in str(error)


async def _streamed_thoughts(name: str) -> None:
    """Where thoughts are streamed beside the text: whatever each format calls them."""
    streams = {
        "chat": _events({"reasoning_content": "hm"}, {"content": "so"}),
        "responses": _lines(
            {"type": "response.output_item.added", "output_index": 0, "item": {**REASONED, "summary": []}},
            {"type": "response.reasoning_summary_text.delta", "output_index": 0, "delta": "hm"},
            {"type": "response.output_text.delta", "output_index": 1, "delta": "so"},
            {"type": "response.completed", "response": responses(REASONED, item())},
        ),
        "anthropic": _lines(
            {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
            {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "so"}},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
        ),
        "gemini": _lines(gemini({"text": "hm", "thought": True}), gemini({"text": "so"})),
        "ollama": b'{"message": {"thinking": "hm"}}\n' + json.dumps(ollama({"content": "so"})).encode(),
    }
    form = FORMATS[name]()
    reply = Reply(headers={"content-type": form.stream_type}, body=streams[name])
    async with Loopback([reply]) as server, form.client(server.url, max_retries=0) as client:
        thought, said, result = [each async for each in client.create_stream(QUESTION)]
    assert (type(thought), thought, said, result.thought) == (ThoughtChunk, "hm", "so", "hm")


def _lines(*events: dict[str, Any]) -> bytes:
    return b"".join(f"data: {json.dumps(event)}\n\n".encode() for event in events)


STREAMED: dict[str, Any] = {
    "streamed text": _streamed_text,
    "streamed calls": _streamed_calls,
    "streamed thinking": _streamed_thoughts,
    "errors in streams": _error_in_stream,
    "refusals by status": _refused,
}
CAPABILITIES = [
    *("text", "streamed text", "tool calls", "parallel calls", "streamed calls", "tool results", "structured output"),
    *("images", "thinking", "streamed thinking", "thoughts sent back", "refusals", "content filters", "length stops"),
    *("cached tokens", "reasoning tokens", "logprobs", "seeds", "refusals by status", "errors in streams"),
]
