"""A conversation that begins on one wire format goes on on every other.

What a provider wants back unread stays with it, and what is sent obeys the rules of who gets it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from loopback import Loopback, json_reply
from tinygen import AssistantAgent, MultiModalMessage
from tinygen.messages import (
    AssistantMessage,
    FunctionCall,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    Image,
    LLMMessage,
    SystemMessage,
    UserMessage,
)
from tinygen.models import COMPATIBLE, create_client
from tinygen.models.asks import Request, checked_ask
from tinygen.models.dialects import DIALECTS, RESPONSES

PICTURE = Image(b"\x89PNG\r\n\x1a\n" + bytes(8))
TOOLS: list[Any] = [
    {
        "name": name,
        "description": "Tells it.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    }
    for name in ("weather", "time")
]
SECRET = "c2VjcmV0"  # what a provider gives to be sent back
ARGUMENTS = {"city": "Rom"}
NAMES = [tool["name"] for tool in TOOLS]


# --- how each format answers: thinking, text, and two calls, or thinking and text


def chat_answer(calls: bool) -> dict[str, Any]:
    made = [
        {"id": f"call_{name}_of_a_long_name_that_is_unusual", "type": "function"}
        | {"function": {"name": name, "arguments": json.dumps(ARGUMENTS)}}
        for name in NAMES
    ]
    message = {"role": "assistant", "content": "so", "reasoning_content": SECRET}
    return {"choices": [{"message": message | ({"tool_calls": made} if calls else {}), "finish_reason": "stop"}]}


def responses_answer(calls: bool) -> dict[str, Any]:
    thought = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]}
    text = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed"}
    made = [
        {"type": "function_call", "id": f"fc_{name}", "call_id": f"call_{name}", "name": name}
        | {"arguments": json.dumps(ARGUMENTS)}
        for name in NAMES
    ]
    content = {"content": [{"type": "output_text", "text": "so", "annotations": []}]}
    items = [thought | {"encrypted_content": SECRET}, text | content, *(made if calls else [])]
    return {"status": "completed", "output": items}


def anthropic_answer(calls: bool) -> dict[str, Any]:
    made = [{"type": "tool_use", "id": f"toolu_{name}", "name": name, "input": ARGUMENTS} for name in NAMES]
    content = [{"type": "thinking", "thinking": "hm", "signature": SECRET}, {"type": "text", "text": "so"}]
    reason = "tool_use" if calls else "end_turn"
    return {"type": "message", "role": "assistant", "content": [*content, *(made * calls)], "stop_reason": reason}


def gemini_answer(calls: bool) -> dict[str, Any]:
    made: list[Any] = [{"functionCall": {"name": name, "args": ARGUMENTS}} for name in NAMES]
    made[0]["thoughtSignature"] = SECRET
    parts = [{"text": "hm", "thought": True}, {"text": "so", "thoughtSignature": SECRET}, *(made if calls else [])]
    return {"candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": "STOP"}]}


def ollama_answer(calls: bool) -> dict[str, Any]:
    made = [{"function": {"name": name, "arguments": ARGUMENTS}} for name in NAMES]
    message = {"role": "assistant", "content": "so", "thinking": "hm", **({"tool_calls": made} if calls else {})}
    return {"model": "m", "message": message, "done": True, "done_reason": "stop"}


# --- what each format accepts


def check_chat(body: dict[str, Any], dialect_name: str) -> None:
    dialect = DIALECTS[dialect_name]
    open_calls: list[str] = []
    seen: list[str] = []
    roles = [message["role"] for message in body["messages"]]
    assert set(roles) <= {"system", "user", "assistant", "tool"}
    assert not dialect.one_system or "system" not in roles[1:]
    for message in body["messages"]:
        extra = ({"name"} if dialect.names else set()) | {dialect.thoughts}
        assert message.keys() <= {"role", "content", "tool_calls", "tool_call_id", *extra}
        if message["role"] == "tool":
            assert message["tool_call_id"] == open_calls.pop(0)
            continue
        assert open_calls == []
        calls = message.get("tool_calls", [])
        open_calls = [call["id"] for call in calls]
        seen += open_calls
        for call in calls:
            assert re.fullmatch(dialect.call_id, call["id"])
            assert not dialect.object_arguments or isinstance(json.loads(call["function"]["arguments"]), dict)
        if calls and not dialect.text_beside_calls:
            assert not message["content"]
    assert open_calls == [] and len(set(seen)) == len(seen)
    if not dialect.user_after_results:
        assert ("tool", "user") not in pairwise(roles)


def check_responses(body: dict[str, Any], _: str) -> None:
    made, answered = [], []
    for item in body["input"]:
        kind = item.get("type", "message")
        if kind == "function_call":
            made.append(item["call_id"])
            assert item.keys() <= {"type", "id", "call_id", "name", "arguments", "status"}
        elif kind == "function_call_output":
            answered.append(item["call_id"])
            assert item["call_id"] in made
        elif kind == "reasoning":
            assert item["id"] and "summary" in item and item["encrypted_content"]
        else:
            assert kind == "message" and item["role"] in ("system", "user", "assistant")
    assert made == answered and len(set(made)) == len(made)
    assert all(re.fullmatch(RESPONSES.call_id, each) for each in made)


def check_anthropic(body: dict[str, Any], _: str) -> None:
    assert body["messages"][0]["role"] == "user"
    wanted: list[str] = []
    seen: list[str] = []
    for message in body["messages"]:
        blocks = message["content"]
        blocks = [{"type": "text", "text": blocks}] if isinstance(blocks, str) else blocks
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        assert results == wanted and [block["type"] for block in blocks[: len(results)]] == ["tool_result"] * len(
            results
        )
        assert all(block["text"].strip() for block in blocks if block["type"] == "text")
        assert all(block["signature"] for block in blocks if block["type"] == "thinking")
        uses = [block for block in blocks if block["type"] == "tool_use"]
        assert all(isinstance(use["input"], dict) for use in uses)
        wanted = [use["id"] for use in uses]
        assert all(re.fullmatch("[a-zA-Z0-9_-]+", each) for each in wanted)
        seen += wanted
    assert wanted == [] and len(set(seen)) == len(seen)


def check_gemini(body: dict[str, Any], _: str) -> None:
    sides = [
        "function" if any("functionResponse" in part for part in content["parts"]) else content["role"]
        for content in body["contents"]
    ]
    assert sides[0] == "user" and all(a != b for a, b in pairwise(sides))
    wanted: list[str] = []
    for content in body["contents"]:
        answered = [part["functionResponse"]["name"] for part in content["parts"] if "functionResponse" in part]
        assert answered == wanted
        calls = [part["functionCall"] for part in content["parts"] if "functionCall" in part]
        assert all(isinstance(call["args"], dict) for call in calls)
        assert all(part["text"] for part in content["parts"] if "text" in part)
        wanted = [call["name"] for call in calls]
    assert wanted == []


def check_ollama(body: dict[str, Any], _: str) -> None:
    left = 0
    for message in body["messages"]:
        if message["role"] == "tool":
            left -= 1
            continue
        assert left == 0 and message["role"] in ("system", "user", "assistant")
        assert isinstance(message["content"], str)
        calls = message.get("tool_calls", [])
        assert all(isinstance(call["function"]["arguments"], dict) for call in calls)
        left = len(calls)
    assert left == 0


# --- the formats: who speaks it, how it answers, what it accepts

Check = Callable[[dict[str, Any], str], None]
SOURCES: dict[str, tuple[str, Callable[[bool], dict[str, Any]]]] = {
    "chat": ("deepseek:deepseek-chat", chat_answer),
    "responses": ("responses:gpt-5", responses_answer),
    "anthropic": ("anthropic:claude-sonnet-4-5", anthropic_answer),
    "gemini": ("gemini:gemini-2.5-flash", gemini_answer),
    "ollama": ("ollama:llama3.2", ollama_answer),
}
TARGETS: dict[str, tuple[str, Check, str]] = {
    **{name: (f"{name}:m", check_chat, row[2]) for name, row in COMPATIBLE.items()},
    "responses": ("responses:gpt-5", check_responses, ""),
    "anthropic": ("anthropic:claude-sonnet-4-5", check_anthropic, ""),
    "anthropic, thinking": ("anthropic:claude-opus-4-1", check_anthropic, ""),
    "gemini": ("gemini:gemini-2.5-flash", check_gemini, ""),
    "gemini, signed": ("gemini:gemini-3-pro", check_gemini, ""),
    "ollama": ("ollama:llama3.2", check_ollama, ""),
}
OWNERS = {
    "chat": [name for name, row in COMPATIBLE.items() if DIALECTS[row[2]].thoughts == "reasoning_content"],
    "responses": ["responses"],
    "anthropic": ["anthropic, thinking"],
    "gemini": ["gemini", "gemini, signed"],
}


def client_of(name: str) -> Any:
    thinks = {"thinking": {"type": "enabled", "budget_tokens": 1024}} if "opus" in name else {}
    return create_client(name, **({} if name.startswith("ollama") else {"api_key": "k" * 9}), **thinks)


def turn_of(source: str, number: int, calls: bool) -> list[LLMMessage]:
    """An answer in the format of this source, as an agent keeps it, with the results of its calls."""
    name, answer = SOURCES[source]
    client = client_of(name)
    result = client._decode(answer(calls)).result(client._reasons)
    said = AssistantMessage(
        content=result.content, thought=result.thought, source="bot", provider_data=result.provider_data
    )
    if not calls:
        return [said]
    made = [call for call in result.content if isinstance(call, FunctionCall)]
    done = [
        FunctionExecutionResult(content=f"{number}", name=call.name, call_id=call.id, is_error=call is made[1])
        for call in made
    ]
    return [said, FunctionExecutionResultMessage(content=done)]


def conversation(source: str) -> list[LLMMessage]:
    """Two rounds of calls, of which providers repeat the ids, with everything that troubles somebody between them."""
    return [
        SystemMessage(content="Be brief."),
        UserMessage(content=["What is it like?", PICTURE], source="Ann Lee"),
        *turn_of(source, 1, calls=True),
        *turn_of(source, 2, calls=True),
        SystemMessage(content="Remember: metric."),
        *turn_of(source, 3, calls=False),
        UserMessage(content="", source="ann"),
        *turn_of(source, 4, calls=True),
        UserMessage(content="And now?", source="ann"),
    ]


async def body_for(target: str, messages: list[LLMMessage]) -> dict[str, Any]:
    client = client_of(TARGETS[target][0])
    info = client.model_info
    ask = checked_ask(messages, TOOLS, "auto", None, {}, stream=False, info=info)
    return json.loads((await client._request(ask)).body)  # type: ignore[no-any-return]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", SOURCES)
async def test_a_conversation_goes_on_elsewhere(source: str, target: str) -> None:
    _, check, dialect = TARGETS[target]

    body = await body_for(target, conversation(source))

    check(body, dialect)
    text = json.dumps(body)
    assert all(word in text for word in ("Be brief.", "Remember: metric.", "And now?", "weather", "Rom"))
    assert PICTURE.to_base64() in text


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", sorted(set(SOURCES) - {"ollama", "chat"}))
async def test_what_a_provider_wants_back_goes_to_nobody_else(source: str, target: str) -> None:
    text = json.dumps(await body_for(target, conversation(source)))

    assert (SECRET in text) is (target in OWNERS[source])


@pytest.mark.parametrize("target", OWNERS["chat"])
async def test_thinking_that_a_server_wants_back_is_in_the_field_it_came_in(target: str) -> None:
    body = await body_for(target, conversation("chat"))

    said = [message for message in body["messages"] if message["role"] == "assistant"]
    assert [message.get("reasoning_content") for message in said] == [SECRET] * 4
    assert all(SECRET not in message["content"] for message in said)


@pytest.mark.parametrize(
    ("source", "maker", "target"),
    [
        ("anthropic", "anthropic:claude-opus-4-1", "anthropic, thinking"),
        ("responses", "responses:gpt-5", "responses"),
        ("gemini", "gemini:gemini-3-pro", "gemini, signed"),
    ],
)
async def test_what_one_model_signed_goes_to_no_other_one(source: str, maker: str, target: str) -> None:
    bodies = []
    for name in (maker, f"{maker}-mini"):
        client = client_of(name)
        ask = checked_ask([], stream=False, info=client.model_info)
        result = client._counted(client._decode(SOURCES[source][1](True)), ask, Request("", {}, b""))
        said = AssistantMessage(content=result.content, source="bot", provider_data=result.provider_data)
        bodies.append(await body_for(target, [UserMessage(content="hi", source="ann"), said]))

    assert [SECRET in json.dumps(body) for body in bodies] == [True, False]
    for body in bodies:
        TARGETS[target][1](body, "")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", SOURCES)
async def test_a_conversation_cut_anywhere_is_accepted_too(source: str, target: str) -> None:
    _, check, dialect = TARGETS[target]
    whole = conversation(source)

    for start in range(len(whole)):
        check(await body_for(target, whole[start:]), dialect)
        check(await body_for(target, whole[: start + 1]), dialect)


async def weather(city: str) -> str:
    """Tells it."""
    return f"sunny in {city}"


async def time(city: str) -> str:
    """Tells it."""
    return f"noon in {city}"


def agent_at(name: str, url: str) -> AssistantAgent:
    options = {} if name.startswith("ollama") else {"api_key": "k" * 9}
    model = create_client(name, base_url=url, **options)
    return AssistantAgent("bot", model, tools=[weather, time], reflect_on_tool_use=True, system_message="Be brief.")


@pytest.mark.parametrize("target", SOURCES)
@pytest.mark.parametrize("source", SOURCES)
async def test_an_agent_that_is_saved_on_one_provider_goes_on_on_another(source: str, target: str) -> None:
    name, answer = SOURCES[source]
    replies = [json_reply(answer(True)), json_reply(answer(False))]
    async with Loopback(replies) as server:
        first = agent_at(name, server.url)
        await first.run(task=MultiModalMessage(content=["What is it like?", PICTURE], source="user"))
        state = json.loads(json.dumps(await first.save_state()))

    other, answer = SOURCES[target]
    async with Loopback([json_reply(answer(False))]) as server:
        second = agent_at(other, server.url)
        await second.load_state(state)
        result = await second.run(task="And now?")

    assert result.messages[-1].to_text() == "so"
    body = server.requests[0].json
    TARGETS[target if target != "chat" else "deepseek"][1](body, "deepseek")
    text = json.dumps(body)
    assert all(word in text for word in ("Be brief.", "sunny in Rom", "noon in Rom", "And now?"))
    assert PICTURE.to_base64() in text
