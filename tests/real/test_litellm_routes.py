"""LiteLLM's proxy speaks four wire formats; each client of ours talks to it in its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from formats import FORMATS
from tinygen import AssistantAgent, CreateResult, UserMessage
from tinygen.errors import ModelError, RateLimitError, RequestError, ServerError
from tinygen.messages import FunctionCall

KEY = "sk-local-tests"
ROUTES = ["chat", "responses", "anthropic", "gemini"]
QUESTION = [UserMessage(content="Write a story.", source="user")]
ADD: dict[str, Any] = {
    "name": "add",
    "description": "Add two numbers.",
    "parameters": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
    },
}

pytestmark = [pytest.mark.real, pytest.mark.parametrize("said", ROUTES)]


def proves(*capabilities: str) -> Any:
    return pytest.mark.proves("litellm", ROUTES, *capabilities)


@asynccontextmanager
async def client(said: str, url: str, model: str) -> AsyncIterator[Any]:
    address = url.replace("/v1", "/v1beta") if said == "gemini" else url
    async with FORMATS[said]().client(address, KEY, model=model, max_retries=0) as made:
        yield made


async def failure(said: str, url: str, model: str, stream: bool = False) -> ModelError:
    async with client(said, url, model) as made:
        with pytest.raises(ModelError) as caught:
            if stream:
                _ = [item async for item in made.create_stream(QUESTION)]
            else:
                await made.create(QUESTION)
    return caught.value


@proves("text")
async def test_an_answer_is_the_text_and_why_it_ended(litellm: str, said: str) -> None:
    async with client(said, litellm, "relay-writer") as made:
        result = await made.create(QUESTION)

    assert (result.content, result.finish_reason) == ("Here is the draft.", "stop")
    assert result.usage.completion_tokens > 0


@proves("streamed text")
async def test_the_pieces_of_a_stream_add_up_to_the_answer(litellm: str, said: str) -> None:
    async with client(said, litellm, "relay-writer") as made:
        *pieces, result = [item async for item in made.create_stream(QUESTION)]

    assert isinstance(result, CreateResult)
    assert len(pieces) > 1
    assert "".join(pieces) == result.content == "Here is the draft."


@proves("tool calls")
async def test_a_call_comes_with_its_arguments(litellm: str, said: str) -> None:
    async with client(said, litellm, "relay-caller") as made:
        result = await made.create(QUESTION, tools=[ADD])

    (call,) = result.content
    assert isinstance(call, FunctionCall)
    assert (call.name, result.finish_reason) == ("add", "function_calls")
    assert call.arguments.replace(" ", "") == '{"a":20,"b":22}'


@proves("tool results")
async def test_an_agent_calls_its_tool_and_the_proxy_takes_the_result_back(litellm: str, said: str) -> None:
    async def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    async with client(said, litellm, "relay-caller") as made:
        agent = AssistantAgent("clerk", made, tools=[add])
        first = await agent.run(task="20 + 22?")
        again = await agent.run(task="And once more?")  # now call and result are part of the request

    assert first.messages[-1].to_text() == again.messages[-1].to_text() == "42"


@proves("refusals by status")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("model", "status", "kind"),
    [("limited", 429, RateLimitError), ("broken", 500, ServerError), ("full", 400, RequestError)],
)
async def test_a_refusal_is_an_error_with_status_and_words(
    litellm: str, said: str, model: str, status: int, kind: type[ModelError], stream: bool
) -> None:
    error = await failure(said, litellm, f"relay-{model}", stream)

    if (said, model) == ("gemini", "full"):  # how the proxy puts it on this route
        status, kind = 500, ServerError
    assert isinstance(error, kind)
    assert error.status == status
    assert "this is a mock" in str(error)
    assert error.provider == ("gemini" if said == "gemini" else "127.0.0.1")


async def test_an_unknown_model_is_named_in_the_error(litellm: str, said: str) -> None:
    error = await failure(said, litellm, "nonesuch")

    assert isinstance(error, (RequestError, ServerError))
    assert "nonesuch" in str(error)
