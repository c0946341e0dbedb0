"""A model to depend on: answers are kept on disk, calls are paced, and where one provider fails the next is asked.

Offline, scripted models stand for two providers, one of which fails on purpose; name a model to have the other one
real: `TINYGEN_MODEL=openai:gpt-4o-mini`.
"""

import asyncio
import os
from pathlib import Path
from tempfile import TemporaryDirectory

from tinygen import (
    AssistantAgent,
    ChatCompletionCache,
    ChatCompletionClient,
    FallbackClient,
    FaultyClient,
    RateLimitedClient,
    RateLimiter,
    ReplayChatCompletionClient,
    ReplayRequest,
    SQLiteCacheStore,
    create_client,
    listen,
)
from tinygen.telemetry import Event


def answer(request: ReplayRequest) -> str:
    return f"You asked: {request.messages[-1].content}"


def provider() -> ChatCompletionClient:
    return create_client() if os.environ.get("TINYGEN_MODEL") else ReplayChatCompletionClient(answer)


def show(event: Event) -> None:
    """Prints the attempts that failed."""
    if (event.kind, event.phase) == ("model", "point"):
        print(f"  provider {event.data['client']}: {event.data['error']}")


async def main() -> None:
    limiter = RateLimiter(requests_per_minute=60, tokens_per_minute=40_000, concurrency=4)
    shaky = FaultyClient(ReplayChatCompletionClient(answer), seed=5, server_error=0.4, garbage=0.4)
    both = FallbackClient([RateLimitedClient(client, limiter) for client in (shaky, provider())])
    with TemporaryDirectory() as folder:
        store = SQLiteCacheStore(Path(folder) / "answers.sqlite3")
        model = ChatCompletionCache(both, store)
        agent = AssistantAgent("assistant", model)
        for question in ("What is a lighthouse?", "Who keeps it?", "What is a lighthouse?"):
            with listen(show):
                result = await agent.session().run(task=question)
            print(result.messages[-1].to_text())
        store.close()
    print(f"{model.total_usage().prompt_tokens} tokens were asked, {model.actual_usage().prompt_tokens} of them paid")
    print(f"faults: {', '.join(fault.kind for fault in shaky.injected)}")
    await model.close()


if __name__ == "__main__":
    asyncio.run(main())
