"""Recorded traffic of OpenAI's Responses protocol: what was sent is made again, what came back is understood."""

from __future__ import annotations

import json
from typing import Any

import pytest

from loopback import Loopback, Reply, json_reply
from recorded import check_calls, recorded, requests
from tinygen.errors import RequestError
from tinygen.messages import (
    AssistantMessage,
    FunctionCall,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    LLMMessage,
    SystemMessage,
    UserMessage,
)
from tinygen.models.responses import OpenAIResponsesClient

OURS = ("input", "model", "tools", "tool_choice", "stream", "include")  # what is rebuilt from messages and arguments


def client_for(exchange: dict[str, Any], url: str) -> OpenAIResponsesClient:
    sent = exchange["request"]["json"]
    fields = {key: value for key, value in sent.items() if key not in OURS}
    return OpenAIResponsesClient(model=sent["model"], api_key="k" * 9, base_url=url, max_retries=0, **fields)


def messages_of(items: list[dict[str, Any]]) -> list[LLMMessage]:
    """The messages that become these items."""
    messages: list[LLMMessage] = []
    for item in items:
        if item.get("type") == "function_call":
            call = FunctionCall(id=item["call_id"], arguments=item["arguments"], name=item["name"])
            if messages and isinstance(messages[-1], AssistantMessage) and isinstance(messages[-1].content, list):
                messages[-1].content.append(call)
            else:
                messages.append(AssistantMessage(content=[call], source="bot"))
        elif item.get("type") == "function_call_output":
            result = FunctionExecutionResult(content=item["output"], name="", call_id=item["call_id"])
            if messages and isinstance(messages[-1], FunctionExecutionResultMessage):
                messages[-1].content.append(result)
            else:
                messages.append(FunctionExecutionResultMessage(content=[result]))
        elif item["role"] == "developer":
            messages.append(SystemMessage(content=item["content"]))
        else:
            content = item["content"]
            texts = content if isinstance(content, str) else [part["text"] for part in content]
            messages.append(UserMessage(content=texts, source="user"))
    return messages


def plain(sent: dict[str, Any]) -> dict[str, Any]:
    """A request in our words, without what says nothing, and without ids that only the server knows."""
    request = {key: value for key, value in sent.items() if value not in (None, False, "auto", [])}
    request.pop("include", None)  # asks for reasoning encrypted, as ours does of every model that reasons
    request["input"] = [
        {
            **{key: value for key, value in item.items() if key not in ("id", "status", "type")},
            **({"role": {"developer": "system"}.get(item["role"], item["role"])} if "role" in item else {}),
        }
        for item in sent["input"]
    ]
    return request


@pytest.mark.parametrize("exchange", requests("openai.responses"))
async def test_every_recorded_request_is_made(exchange: dict[str, Any]) -> None:
    sent = exchange["request"]["json"]
    async with Loopback([Reply(status=400)]) as server, client_for(exchange, server.url) as client:
        with pytest.raises(RequestError):
            await client.create(messages_of(sent["input"]), tools=sent["tools"])

    made = server.requests[0]
    assert made.path == exchange["request"]["path"]
    assert plain(made.json) == plain({"store": False, **sent})


@pytest.mark.parametrize("exchange", recorded("openai.responses", "json"))
async def test_every_recorded_answer_comes_through_a_connection(exchange: dict[str, Any]) -> None:
    expected = exchange["expect"]
    async with Loopback([json_reply(exchange["response"]["json"])]) as server:
        async with client_for(exchange, server.url) as client:
            result = await client.create([UserMessage(content="q", source="user")])

    check_calls([] if isinstance(result.content, str) else result.content, expected["tool_calls"])
    assert (result.finish_reason == "function_calls") == bool(expected["tool_calls"])
    assert result.content == expected["text"] or expected["tool_calls"]


@pytest.mark.parametrize("exchange", recorded("openai.responses", "json"))
async def test_what_a_recorded_model_reasoned_is_sent_back_as_it_came(exchange: dict[str, Any]) -> None:
    async with Loopback([json_reply(exchange["response"]["json"])]) as server:
        async with client_for(exchange, server.url) as client:
            said = await client.create([UserMessage(content="q", source="user")])
            kept = AssistantMessage(
                content=said.content, thought=said.thought, source="bot", provider_data=said.provider_data
            )
            await client.create([UserMessage(content="q", source="user"), kept])

    came = [item for item in exchange["response"]["json"]["output"] if item["type"] == "reasoning"]
    secrets = [item["encrypted_content"] for item in came if item.get("encrypted_content")]
    assert all(json.dumps(secret) in json.dumps(server.requests[1].json) for secret in secrets)
