"""A team of every kind with two members who speak in turn, for tests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from agents_for_tests import Counter
from graphs_for_tests import graph
from tinygen import (
    BaseChatMessage,
    CancellationToken,
    GraphFlow,
    HandoffMessage,
    MagenticOneGroupChat,
    ReplayChatCompletionClient,
    ReplayRequest,
    Response,
    RoundRobinGroupChat,
    SelectorGroupChat,
    Swarm,
    TaskResult,
)


class Passing(Counter):
    """Counts, and hands over to the other. Waits where `held` names it; knows when it was paused."""

    produced_message_types = (HandoffMessage,)

    def __init__(self, name: str, other: str, held: asyncio.Event | None = None) -> None:
        super().__init__(name)
        self.other, self.held = other, held
        self.told: list[str] = []
        self.begun = asyncio.Event()

    async def on_messages(self, messages: Any, cancellation_token: CancellationToken) -> Response:
        self.begun.set()
        if self.held is not None:
            await self.held.wait()
        said = (await super().on_messages(messages, cancellation_token)).chat_message
        return Response(chat_message=HandoffMessage(content=said.to_text(), target=self.other, source=self.name))

    async def on_pause(self, cancellation_token: CancellationToken) -> None:
        self.told.append("pause")

    async def on_resume(self, cancellation_token: CancellationToken) -> None:
        self.told.append("resume")


def chief(request: ReplayRequest) -> str:
    """A model that lets a and b speak in turn."""
    if request.json_output is None:
        return "so be it"
    turns = sum("so be it" not in str(message.content) for message in request.messages)
    return json.dumps(
        {
            **{key: {"reason": "", "answer": key == "is_progress_being_made"} for key in JUDGEMENTS},
            "next_speaker": {"reason": "", "answer": "ab"[turns // 2 % 2]},
            "instruction_or_question": {"reason": "", "answer": "go on"},
        }
    )


JUDGEMENTS = ["is_request_satisfied", "is_in_loop", "is_progress_being_made"]
Team = Callable[..., Any]
KINDS: dict[str, Team] = {
    "round robin": lambda members, **more: RoundRobinGroupChat(members, **more),
    "selector": lambda members, **more: SelectorGroupChat(
        members, ReplayChatCompletionClient(lambda request: "a"), **more
    ),
    "selector of one": lambda members, **more: SelectorGroupChat(
        members, ReplayChatCompletionClient(lambda request: "a"), allow_repeated_speaker=True, **more
    ),
    "swarm": lambda members, **more: Swarm(members, **more),
    "graph": lambda members, **more: GraphFlow(
        [*members, Counter("end")], graph("a b", "b a b", "b end NEVER", entry="a"), **more
    ),
    "magentic": lambda members, **more: MagenticOneGroupChat(members, ReplayChatCompletionClient(chief), **more),
}


def of(kind: str, *, held: asyncio.Event | None = None, turns: int = 4, **more: Any) -> Any:
    """A team of a and b, who speak in turn."""
    return KINDS[kind]([Passing("a", "b", held), Passing("b", "a", held)], max_turns=turns, **more)


def member(team: Any, name: str) -> Any:
    return next(each for each in team._participants if each.name == name)


def said(result: TaskResult) -> list[str]:
    return [message.to_text() for message in result.messages if isinstance(message, BaseChatMessage)]
