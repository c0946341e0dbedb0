"""Agents and teams, with models and tools that answer at once."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from tinygen import (
    AssistantAgent,
    BaseChatAgent,
    BaseChatMessage,
    CancellationToken,
    ChatCompletionClient,
    CreateResult,
    FunctionCall,
    RequestUsage,
    Response,
    RoundRobinGroupChat,
    TextMessage,
    UserMessage,
)

from .harness import Call, Row, compare, in_turn

TURNS = 20  # turns before a conversation starts afresh, so that its length does not matter
TASK = TextMessage(content="hello", source="user")
QUESTION = UserMessage(content="hello", source="user")
MESSAGES = 10_000


class Instant(ChatCompletionClient):
    """Gives the same answer at once."""

    def __init__(self, calls: int = 0) -> None:
        content = [FunctionCall(f"call_{n}", '{"a": 1, "b": 2}', "add") for n in range(calls)] or "hello"
        reason = "function_calls" if calls else "stop"
        self.result = CreateResult(
            content=content,
            finish_reason=reason,
            usage=RequestUsage(10, 10),
            cached=False,  # type: ignore[arg-type]
        )

    async def create(self, messages: Sequence[Any], **_: Any) -> CreateResult:
        return self.result


async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


# --- one agent


def turn(calls: int) -> Iterator[Row]:
    """A turn of an assistant; floor: its model and its tools as bare coroutine calls, one after the other."""
    name = {0: "no tool", 1: "one tool", 5: "five parallel tools"}[calls]

    @asynccontextmanager
    async def bare() -> AsyncIterator[Call]:
        client = Instant(calls)

        async def turns() -> None:
            for _ in range(TURNS):
                await client.create([QUESTION])
                for _ in range(calls):
                    await add(a=1, b=2)

        yield turns

    @asynccontextmanager
    async def on_messages() -> AsyncIterator[Call]:
        agent = AssistantAgent("assistant", Instant(calls), tools=[add] if calls else None)

        async def turns() -> None:
            for _ in range(TURNS):
                await agent.on_messages([TASK], CancellationToken())
            await agent.on_reset(CancellationToken())

        yield turns

    @asynccontextmanager
    async def run() -> AsyncIterator[Call]:
        agent = AssistantAgent("assistant", Instant(calls), tools=[add] if calls else None)

        async def turns() -> None:
            for _ in range(TURNS):
                await agent.run(task=TASK)
            await agent.on_reset(CancellationToken())

        yield turns

    for way, prepare in (("on_messages", on_messages), ("run", run)):
        floor, ours = compare(bare, prepare, number=10)
        yield Row(f"assistant turn, {name}: {way}", floor / TURNS, ours / TURNS, "us")


# --- teams


class Parrot(BaseChatAgent):
    """Says one thing."""

    def __init__(self, name: str) -> None:
        super().__init__(name, "says one thing")

    @property
    def produced_message_types(self) -> Sequence[type[BaseChatMessage]]:
        return (TextMessage,)

    async def on_messages(self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken) -> Response:
        return Response(chat_message=TextMessage(content="hello", source=self.name))

    async def on_reset(self, cancellation_token: CancellationToken) -> None:
        pass


def _parrots() -> list[Any]:
    return [Parrot(name) for name in ("one", "two", "three")]


def _assistants() -> list[Any]:
    return [AssistantAgent(name, Instant()) for name in ("one", "two", "three")]


def round_robin(number: int) -> Iterator[Row]:
    """Three speak in turn, per message; floor: a loop that calls a coroutine and tells the two others."""

    async def bare() -> None:
        histories: list[list[TextMessage]] = [[], [], []]
        client = Instant()
        for count in range(number):
            await client.create(histories[count % 3])
            message = TextMessage(content="hello", source="one")
            for history in histories:
                history.append(message)

    for who, make in (("parrots", _parrots), ("assistants", _assistants)):

        async def ours(make: Any = make) -> None:
            result = await RoundRobinGroupChat(make(), max_turns=number).run(task="hello")
            assert len(result.messages) == number + 1

        floor, cost = in_turn(lambda: _once(bare), lambda call=ours: _once(call), repeats=5)  # type: ignore[misc]
        yield Row(f"round robin of three {who}, {number:,} messages", floor / number, cost / number, "us")


def _once(call: Call) -> float:
    async def measure() -> float:
        began = time.process_time()
        await call()
        return time.process_time() - began

    return asyncio.run(measure())


def state() -> Iterator[Row]:
    """Saving a conversation to JSON text and loading it; floor: the json module on the same document."""
    team = RoundRobinGroupChat(_parrots(), max_turns=MESSAGES - 1)

    async def talk() -> str:
        await team.run(task="hello")
        return json.dumps(await team.save_state())

    text = asyncio.run(talk())
    document = json.loads(text)

    async def save() -> None:
        json.dumps(await team.save_state())

    async def load() -> None:
        await RoundRobinGroupChat(_parrots()).load_state(json.loads(text))

    async def dumps() -> None:
        json.dumps(document)

    async def loads() -> None:
        json.loads(text)

    for name, floor, ours in (("save", dumps, save), ("load", loads, load)):
        pair = in_turn(lambda call=floor: _once(call), lambda call=ours: _once(call), repeats=5)  # type: ignore[misc]
        yield Row(f"{name} {MESSAGES:,} messages ({len(text) / 1e6:.1f} MB)", *pair, "ms")
