"""One program, any provider: one string says who answers.

`python examples/swap_providers.py anthropic:claude-sonnet-4-5 openai:gpt-4o-mini` asks one after the other; each is
told what was said before, the tool call and its result included. Without names it does the same offline, where each
provider's answers come from below, in its own wire format.
"""

import asyncio
import os
import sys
from typing import Any

import httpx

from tinygen import AssistantAgent, ChatCompletionClient, create_client

CALL = {"id": "call_1", "type": "function", "function": {"name": "temperature", "arguments": '{"city": "Rome"}'}}
ASKED = {"choices": [{"message": {"content": None, "tool_calls": [CALL]}, "finish_reason": "tool_calls"}]}


def answers(text: str) -> dict[str, Any]:
    """How each provider says it."""
    part = {"type": "output_text", "text": text}
    return {
        "openai:gpt-4o-mini": {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]},
        "responses:gpt-5": {"status": "completed", "output": [{"type": "message", "content": [part]}]},
        "anthropic:claude-sonnet-4-5": {"content": [{"type": "text", "text": text}], "stop_reason": "end_turn"},
        "gemini:gemini-2.5-flash": {"candidates": [{"content": {"parts": [{"text": text}]}, "finishReason": "STOP"}]},
        "ollama:llama3.2": {"message": {"content": text}, "done": True},
    }


def stand_in(name: str) -> httpx.AsyncClient:
    """Answers as the provider would: the first one calls the tool, and all say whether they know its result."""

    def answer(request: httpx.Request) -> httpx.Response:
        knows = b"31 degrees" in request.content
        if name.startswith("openai") and not knows:
            return httpx.Response(200, json=ASKED)
        text = f"{name.partition(':')[0]} says: it is {'31 degrees, as we know' if knows else 'a secret'}."
        return httpx.Response(200, json=answers(text)[name])

    return httpx.AsyncClient(transport=httpx.MockTransport(answer))


async def temperature(city: str) -> str:
    """Tells how warm it is in a city."""
    return f"31 degrees in {city}"


def client_for(name: str, offline: bool) -> ChatCompletionClient:
    """The one place that knows of providers; keys are found in the environment."""
    if not offline:
        return create_client(name)
    key = {} if name.startswith("ollama") else {"api_key": "none"}
    return create_client(name, http_client=stand_in(name), **key)


async def main() -> None:
    given = [name for name in (*sys.argv[1:], os.environ.get("TINYGEN_MODEL")) if name]
    state = None
    for name in given or answers(""):
        model = client_for(name, offline=not given)
        agent = AssistantAgent("assistant", model, tools=[temperature], reflect_on_tool_use=True)
        if state is not None:
            await agent.load_state(state)
        result = await agent.run(task="How warm is it in Rome?")
        print(result.messages[-1].to_text())
        state = await agent.save_state()
        await model.close()


if __name__ == "__main__":
    asyncio.run(main())
