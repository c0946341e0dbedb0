"""Agents that do what a test says, for tests of runtimes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from tinygen.actors import AgentRuntime, BaseAgent, MessageContext
from tinygen.addresses import AgentId, TopicId, TypeSubscription

Kind = type["Does"]
Do = Callable[["Does", Any, MessageContext], Awaitable[Any]]

TOPIC = TopicId("news", "here")
NOBODY = AgentId("nobody", "x")


@dataclass
class Text:
    text: str


class Does(BaseAgent):
    """An agent that does what a function says."""

    def __init__(self, do: Do) -> None:
        super().__init__("does")
        self.do = do
        self.state: dict[str, Any] = {}

    async def on_message_impl(self, message: Any, ctx: MessageContext) -> Any:
        return await self.do(self, message, ctx)

    async def save_state(self) -> dict[str, Any]:
        return dict(self.state)

    async def load_state(self, state: Any) -> None:
        self.state = dict(state)


async def echo(agent: Does, message: Any, ctx: MessageContext) -> Any:
    return message


async def fail(agent: Does, message: Any, ctx: MessageContext) -> Any:
    raise message


class OneAtATime(Does):
    sequential = True


async def put(runtime: AgentRuntime, type: str, do: Do, *, topic: str | None = None, cls: Kind = Does) -> AgentId:
    """Register agents of this type; the id of one of them."""
    await cls.register(runtime, type, lambda: cls(do))
    if topic:
        await runtime.add_subscription(TypeSubscription(topic, type))
    return AgentId(type, "here")


class Blocked:
    """A handler that waits until it is let go; counts how often it began, ended and was cancelled."""

    def __init__(self) -> None:
        self.began, self.go = asyncio.Event(), asyncio.Event()
        self.begun = self.ended = self.cancelled = 0

    async def __call__(self, agent: Does, message: Any, ctx: MessageContext) -> Any:
        self.begun += 1
        self.began.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.ended += 1
        return message


async def passes() -> None:
    """Let everything that is ready run."""
    for _ in range(10):
        await asyncio.sleep(0)
