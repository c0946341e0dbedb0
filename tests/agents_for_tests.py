"""Small agents and models that tests share."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from tinygen import (
    AssistantAgent,
    BaseChatAgent,
    BaseChatMessage,
    CancellationToken,
    ReplayChatCompletionClient,
    ReplayRequest,
    Response,
    TextMessage,
)


def echo(request: ReplayRequest) -> str:
    """A model that says what it was told last."""
    return str(request.messages[-1].content)


def speaker(name: str, *script: Any) -> AssistantAgent:
    """An assistant that says `script`, or its name again and again."""
    replies = list(script) if script else lambda request: name
    return AssistantAgent(name, ReplayChatCompletionClient(replies))


class Counter(BaseChatAgent):
    """Counts its turns in an attribute, as agents written for AutoGen do."""

    def __init__(self, name: str) -> None:
        super().__init__(name, "counts")
        self._count = 0
        self.heard: list[str] = []

    @property
    def produced_message_types(self) -> Sequence[type[BaseChatMessage]]:
        return (TextMessage,)

    async def on_messages(self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken) -> Response:
        await asyncio.sleep(0)
        self._count += 1
        self.heard.extend(message.to_text() for message in messages)
        return Response(chat_message=TextMessage(content=f"{self.name} {self._count}", source=self.name))

    async def on_reset(self, cancellation_token: CancellationToken) -> None:
        self._count = 0


class Failing(Counter):
    """Raises what it is given."""

    def __init__(self, name: str, error: BaseException) -> None:
        super().__init__(name)
        self._error = error

    async def on_messages(self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken) -> Response:
        raise self._error
