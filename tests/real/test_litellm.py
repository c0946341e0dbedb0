"""A team and a client against LiteLLM's proxy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tinygen import (
    AssistantAgent,
    ModelClientStreamingChunkEvent,
    OpenAIChatCompletionClient,
    RoundRobinGroupChat,
    TaskResult,
    TextMentionTermination,
    UserMessage,
)
from tinygen.errors import ModelError, RateLimitError, RequestError, ServerError

pytestmark = pytest.mark.real

KEY = "sk-local-tests"
NAMES = ["planner", "writer", "critic"]
SAID = [
    ("user", "Write a story."),
    ("planner", "First an outline, then a draft."),
    ("writer", "Here is the draft."),
    ("critic", "Good. APPROVE"),
]


@asynccontextmanager
async def client(url: str, model: str, *, key: str = KEY) -> AsyncIterator[OpenAIChatCompletionClient]:
    made = OpenAIChatCompletionClient(model=model, api_key=key, base_url=url, max_retries=0)
    try:
        yield made
    finally:
        await made.close()


@asynccontextmanager
async def round_robin(url: str, *, stream: bool) -> AsyncIterator[RoundRobinGroupChat]:
    clients = [OpenAIChatCompletionClient(model=name, api_key=KEY, base_url=url) for name in NAMES]
    agents = [AssistantAgent(name, each, model_client_stream=stream) for name, each in zip(NAMES, clients)]
    try:
        yield RoundRobinGroupChat(agents, termination_condition=TextMentionTermination("APPROVE"), max_turns=8)
    finally:
        for each in clients:
            await each.close()


async def failure(url: str, model: str, *, key: str = KEY) -> ModelError:
    async with client(url, model, key=key) as made:
        with pytest.raises(ModelError) as caught:
            await made.create([UserMessage(content="hello", source="user")])
    return caught.value


async def test_three_agents_talk_until_the_critic_approves(litellm: str) -> None:
    async with round_robin(litellm, stream=False) as team:
        result = await team.run(task="Write a story.")

    assert [(message.source, message.to_text()) for message in result.messages] == SAID
    assert result.stop_reason == "Text 'APPROVE' mentioned"
    assert result.usage.prompt_tokens > 0


async def test_streamed_pieces_add_up_to_the_same_conversation(litellm: str) -> None:
    async with round_robin(litellm, stream=True) as team:
        items = [item async for item in team.run_stream(task="Write a story.")]

    pieces = [item for item in items if isinstance(item, ModelClientStreamingChunkEvent)]
    assert isinstance(items[-1], TaskResult)
    assert [(message.source, message.to_text()) for message in items[-1].messages] == SAID
    for source, text in SAID[1:]:
        assert "".join(piece.content for piece in pieces if piece.source == source) == text


async def test_an_agent_answers_with_the_result_of_the_tool_called(litellm: str) -> None:
    async def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    async with client(litellm, "caller") as model:
        result = await AssistantAgent("clerk", model, tools=[add]).run(task="20 + 22?")

    assert result.messages[-1].to_text() == "42"


async def test_status_429_is_a_rate_limit_error(litellm: str) -> None:
    error = await failure(litellm, "limited")

    assert isinstance(error, RateLimitError)
    assert error.status == 429


async def test_status_500_is_a_server_error(litellm: str) -> None:
    error = await failure(litellm, "broken")

    assert isinstance(error, ServerError)
    assert error.status == 500


async def test_a_full_context_window_is_a_request_error(litellm: str) -> None:
    error = await failure(litellm, "full")

    assert isinstance(error, RequestError)
    assert error.status == 400
    assert "context window" in str(error)


async def test_an_unknown_model_is_a_request_error_that_names_it(litellm: str) -> None:
    error = await failure(litellm, "nonesuch")

    assert isinstance(error, RequestError)
    assert "nonesuch" in str(error)


async def test_a_wrong_key_is_refused_with_what_the_server_says(litellm: str) -> None:
    error = await failure(litellm, "writer", key="sk-wrong")

    assert error.status == 400  # this server says 400 where others say 401
    assert isinstance(error, RequestError)
    assert "No connected db" in str(error)
