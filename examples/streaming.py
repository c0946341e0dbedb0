"""What is said, as it is said: pieces of answers from `run_stream`, and the whole tree of events from a handle."""

import asyncio
import os

from tinygen import (
    AssistantAgent,
    ChatCompletionClient,
    ModelClientStreamingChunkEvent,
    ReplayChatCompletionClient,
    TaskResult,
    create_client,
)


def poet() -> AssistantAgent:
    named = os.environ.get("TINYGEN_MODEL")
    script = ReplayChatCompletionClient(["The tide forgets each footprint."])
    model: ChatCompletionClient = create_client(named) if named else script
    return AssistantAgent("poet", model, model_client_stream=True)


async def main() -> None:
    async for item in poet().run_stream(task="Write a line about the sea."):
        if isinstance(item, ModelClientStreamingChunkEvent):
            print(item.content, end="", flush=True)
        elif isinstance(item, TaskResult):
            print(f"\n{len(item.messages)} messages, {item.usage.completion_tokens} tokens")

    handle = poet().start(task="Write a line about the sea.")
    async for event in handle:  # runs, agents, model calls, tools, with durations and parents
        print(event.kind, event.phase, event.name)
    print((await handle).messages[-1].to_text())


if __name__ == "__main__":
    asyncio.run(main())
