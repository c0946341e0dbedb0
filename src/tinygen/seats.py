"""The seats of a team: where its participants live in the runtime, and are given their turns.

A seat is an actor; a turn is a message to it. So a team's participants can live wherever the runtime puts them.
"""

from __future__ import annotations

import asyncio
from functools import partial

from .actors import BaseAgent
from .addresses import AgentId
from .agents import BaseChatAgent, own
from .branches import fan_out, put_in_order
from .clock import REAL, new_id, source
from .errors import AgentFailed, ConfigError, did_you_mean
from .messages import BaseAgentEvent, BaseChatMessage, HandoffMessage, Response, TaskResult, ToolCallExecutionEvent
from .run import current_scope
from .runtime import SingleThreadedAgentRuntime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

    from .actors import AgentRuntime, MessageContext
    from .run import Run, Scope
    from .runner import TaskRunner

    Message = BaseAgentEvent | BaseChatMessage


class YourTurn:
    """To a seat: what was said since its participant last spoke."""

    __slots__ = ("messages",)

    def __init__(self, messages: list[BaseChatMessage]) -> None:
        self.messages = messages


class Said:
    """From a seat: what goes into the thread, what the others get to hear, and what the termination looks at."""

    __slots__ = ("heard", "judged", "thread")

    def __init__(self, thread: Sequence[Message], heard: Sequence[BaseChatMessage], judged: Sequence[Message]) -> None:
        self.thread, self.heard, self.judged = thread, heard, judged


class Seat(BaseAgent):
    """A participant's place in the runtime: takes its turn when asked to."""

    def __init__(self, participant: TaskRunner) -> None:
        super().__init__(participant.description)
        self._participant = participant

    async def on_message_impl(self, message: Any, ctx: MessageContext) -> Said:
        scope = current_scope()
        if scope is None or not isinstance(message, YourTurn):
            raise ConfigError(f"the seat of {self._participant.name!r} only takes turns of its team's run")
        if isinstance(self._participant, BaseChatAgent):
            response = await self._participant.take_turn(message.messages, scope.run)
            return _from_agent(self._participant.name, response, scope)
        return await self._inner_team(self._participant, message.messages, scope)

    @staticmethod
    async def _inner_team(team: TaskRunner, messages: list[BaseChatMessage], scope: Scope) -> Said:
        """A team as a participant: its run is part of ours; what it says, we say."""
        said: list[Message] = []
        mark, members = len(scope.said), [part.name for part in team._parts()]
        task = [_for_members(message, members) for message in messages]
        stream = team.run_stream(task=task or None, output_task_messages=False)
        async for item in stream:
            if isinstance(item, TaskResult):
                said = item.messages
            else:
                scope.run.emit(item)
        put_in_order(scope.said, mark, said)
        inner = stream.run
        return Said(thread=said, heard=inner.heard, judged=inner.judged)


class Seats:
    """The participants in the runtime, for the time of one run."""

    def __init__(self, team: str, participants: Sequence[TaskRunner], runtime: AgentRuntime | None, run: Run) -> None:
        self._team = team
        self._run = run
        self._own = SingleThreadedAgentRuntime() if runtime is None else None
        self._runtime: AgentRuntime = self._own or runtime  # type: ignore[assignment]
        self._participants = {participant.name: participant for participant in participants}
        self._ids: dict[str, AgentId] = {}

    async def __aenter__(self) -> Seats:
        runtime, key = self._runtime, new_id()
        if self._own is not None:
            self._own.start()
        else:
            key = REAL.new_id()  # two that go on from one state have all other ids in common
        for name, participant in self._participants.items():
            seat = AgentId("tinygen.seat", f"{key}/{name}")
            await runtime.register_agent_instance(Seat(participant), seat)
            self._ids[name] = seat
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._own is not None:
            await self._own.close()
        else:
            for seat in self._ids.values():
                await self._runtime.release(seat)

    def find(self, speakers: Sequence[str]) -> list[TaskRunner]:
        """The participants of these names."""
        if len(speakers) > 1 and len(set(speakers)) < len(speakers):
            raise ConfigError(f"team {self._team!r} cannot let anybody speak twice side by side: {speakers}")
        try:
            return [self._participants[name] for name in speakers]
        except KeyError as unknown:
            name = unknown.args[0]
            hint = did_you_mean(str(name), self._participants)
            raise ConfigError(f"team {self._team!r} has no participant {name!r} who could speak next{hint}") from None

    async def ask(self, speakers: Sequence[str], unheard: dict[str, list[BaseChatMessage]], turn: int) -> list[Said]:
        """Let them speak, side by side; what they said, in the order of their names.

        What each has not heard yet is handed over, and gone from `unheard` with that.
        """
        if len(speakers) == 1:
            here = current_scope() or self._run.scope
            inside = here.child(speakers[0])
            token = source.set(inside)
            try:
                return [await self._ask(speakers[0], unheard, turn)]
            finally:
                source.reset(token)
                here.time = inside.time
        said: dict[str, list[Message]] = {name: [] for name in speakers}
        try:
            return await fan_out([(name, partial(self._ask, name, unheard, turn, said[name])) for name in speakers])
        finally:
            for name in speakers:  # whoever was faster
                self._run.messages.extend(said[name])

    async def _ask(
        self, name: str, unheard: dict[str, list[BaseChatMessage]], turn: int, apart: list[Message] | None = None
    ) -> Said:
        if apart is not None and (scope := current_scope()) is not None:
            scope.said = apart
        handed, unheard[name] = unheard[name], []
        try:
            said: Said = await self._runtime.send_message(YourTurn(list(handed)), self._ids[name])
        except (Exception, asyncio.CancelledError) as error:  # named here, raised to whoever awaits the run
            blame(name, turn, error, self._run)
        return said


def blame(name: str, turn: int, error: BaseException, run: Run) -> NoReturn:
    """Raise what somebody raised in a turn as their failure; of somebody within them, with the way there."""
    run.check()
    if run.ending and isinstance(error, asyncio.CancelledError):
        raise error
    if isinstance(error, AgentFailed):
        name, error = f"{name}/{error.agent}", error.__cause__ or error
    raise AgentFailed(name, turn, None, error) from error


def _for_members(message: BaseChatMessage, members: Sequence[str]) -> BaseChatMessage:
    """A handoff to somebody who is not in the team within, as the team itself, is one to nobody in particular there."""
    if isinstance(message, HandoffMessage) and message.target not in members:
        return message.model_copy(update={"target": ""})
    return message


def _from_agent(name: str, response: Response, scope: Scope) -> Said:
    """An agent's answer. What others said on its behalf (an agent used as a tool) is not judged as its own."""
    inner, answer = response.inner_messages, [response.chat_message]
    if not inner:
        return Said(answer, answer, answer)
    said = [*inner, response.chat_message]
    judged = [message for message in inner if own(message, name, scope)]
    if len(judged) < len(inner):
        others = [m for m in inner if isinstance(m, BaseChatMessage) and not own(m, name, scope)]
        judged = [_unquoted(m, others) if isinstance(m, ToolCallExecutionEvent) else m for m in judged]
    return Said(thread=said, heard=answer, judged=[*judged, response.chat_message])


def _unquoted(event: ToolCallExecutionEvent, others: Sequence[BaseChatMessage]) -> ToolCallExecutionEvent:
    """The results of tool calls without those that repeat what `others` said."""
    last = {message.to_text() for message in others}
    ends = tuple(f"{message.source}: {message.to_text()}" for message in others)
    results = [
        result.model_copy(update={"content": ""}) if result.content in last or result.content.endswith(ends) else result
        for result in event.content
    ]
    return event.model_copy(update={"content": results})
