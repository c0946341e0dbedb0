"""An agent of one's own needs no model: it answers messages. Here one counts, and its state is what it counted."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from tinygen import (
    AssistantAgent,
    BaseChatAgent,
    BaseChatMessage,
    CancellationToken,
    ReplayChatCompletionClient,
    Response,
    RoundRobinGroupChat,
    TextMentionTermination,
    TextMessage,
)


class WordCounter(BaseChatAgent):
    """Says how many words were said to it in all."""

    def __init__(self, name: str, limit: int) -> None:
        super().__init__(name, f"Counts words, up to {limit}.")
        self._limit = limit
        self._count = 0

    @property
    def produced_message_types(self) -> Sequence[type[BaseChatMessage]]:
        return (TextMessage,)

    async def on_messages(self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken) -> Response:
        self._count += sum(len(message.to_model_text().split()) for message in messages)
        verdict = "STOP" if self._count >= self._limit else "go on"
        return Response(chat_message=TextMessage(content=f"{self._count} words: {verdict}", source=self.name))

    async def on_reset(self, cancellation_token: CancellationToken) -> None:
        self._count = 0

    async def save_state(self) -> Mapping[str, Any]:
        return {"type": "WordCounterState", "count": self._count}

    async def load_state(self, state: Mapping[str, Any]) -> None:
        self._count = state["count"]


async def main() -> None:
    writer = AssistantAgent("writer", ReplayChatCompletionClient(["Rain taps.", "The roof answers slowly."]))
    team = RoundRobinGroupChat(
        [writer, WordCounter("counter", limit=9)], termination_condition=TextMentionTermination("STOP", ["counter"])
    )
    print(await team.run(task="Write about rain."))


if __name__ == "__main__":
    asyncio.run(main())
