"""One assistant, asked directly: AutoGen's first program with its imports changed."""

import asyncio

from tinygen import AssistantAgent, CancellationToken, ReplayChatCompletionClient, TextMessage


async def main() -> None:
    agent = AssistantAgent("assistant", model_client=ReplayChatCompletionClient(["Hello! How can I help?"]))
    response = await agent.on_messages([TextMessage(content="Say hello.", source="user")], CancellationToken())
    print(response.chat_message.to_text())


if __name__ == "__main__":
    asyncio.run(main())
