"""What a runtime can be asked: what it is doing now, what it could not deliver, which way messages went."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from types import coroutine

from .addresses import AgentId
from .clock import REAL, monotonic, now, source
from .run import Scope
from .telemetry import Event, tell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Sequence
    from typing import Any, Literal

    from .actors import Agent
    from .addresses import TopicId
    from .mailboxes import Envelope
    from .telemetry import Listener

_log = logging.getLogger("tinygen.runtime")

# the event that what is sent is part of
_handling: ContextVar[str | None] = ContextVar("tinygen_handling", default=None)


@dataclass(frozen=True)
class DeadLetter:
    """A message that nobody got, or that failed when nobody waited for its answer; `error` says why."""

    message: Any
    recipient: AgentId | TopicId | None
    sender: AgentId | None
    error: BaseException

    def __str__(self) -> str:
        where = "agent" if isinstance(self.recipient, AgentId) else "topic"
        return (
            f"{type(self.message).__name__} from {self.sender} for {where} '{self.recipient}': "
            f"{type(self.error).__name__}: {self.error}"
        )


@dataclass(frozen=True)
class Running:
    """A message that is being handled, for `seconds` so far."""

    agent: AgentId
    message: str
    sender: AgentId | None
    seconds: float

    def __str__(self) -> str:
        return f"{self.agent}: a {self.message} from {self.sender}, for {self.seconds:.3f} s"


@dataclass(frozen=True)
class RuntimeStatistics:
    """What a runtime is doing; printed, it shows where things hang: the oldest messages stand first."""

    state: str
    agent_types: Sequence[str]
    agents: int
    making: Sequence[AgentId]  # agents that are being made, or saved and let go
    queued: int
    running: Sequence[Running]
    timers: int
    dead_letters: int

    def __str__(self) -> str:
        making = f", waiting for {', '.join(map(str, self.making))}" if self.making else ""
        head = (
            f"{self.state}: {len(self.agent_types)} agent types, {self.agents} agents{making}, {self.queued} queued, "
            f"{len(self.running)} running, {self.timers} timers, {self.dead_letters} dead letters"
        )
        return "\n".join([head, *(f"  {each}" for each in self.running)])


class MessageTrace:
    """The way of messages through a runtime, as `SingleThreadedAgentRuntime.trace` records it; print it.

    Keeps the last `limit` events; `stop()` ends the recording.
    """

    def __init__(self, limit: int, stop: Callable[[MessageTrace], None]) -> None:
        self.events: list[Event] = []
        self._limit = limit
        self._stop = stop

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if len(self.events) > self._limit * 1.5:
            del self.events[: -self._limit]

    def stop(self) -> None:
        """Record no more."""
        self._stop(self)

    def __str__(self) -> str:
        """Each message below the handling in which it was sent, with how long that took and what it ended with."""
        ends = {event.id: event for event in self.events if event.phase == "end"}
        begun = [event for event in self.events if event.phase != "end"]
        known = {event.id for event in begun}
        below: dict[str | None, list[Event]] = {}
        for event in begun:
            below.setdefault(event.parent if event.parent in known else None, []).append(event)
        lines: list[str] = []
        ahead = [(event, 0) for event in reversed(below.get(None, ()))]
        while ahead:
            event, depth = ahead.pop()
            lines.append("  " * depth + _line(event, ends.get(event.id)))
            ahead += [(each, depth + 1) for each in reversed(below.get(event.id, ()))]
        return "\n".join(lines)


def _line(event: Event, end: Event | None) -> str:
    if event.kind != "handle":
        arrow = {"send": "->", "publish": "=>"}.get(event.kind, event.kind)
        sender = event.data.get("sender")
        return f"{sender} {arrow} {event.data['recipient']}: {event.name}"
    if end is None:
        return f"{event.name} has not ended"
    took = f"{event.name} in {(end.duration or 0) * 1e3:.1f} ms"
    problem = end.data.get("error.type")
    return f"{took}: {problem}" if problem else took


class Watch:
    """Tells the listeners of a runtime what becomes of messages, and the log of handlers that block the event loop.

    A message is a "send" or "publish" event; its handling, a "handle" event with a start and an end, is part of it, and
    what is sent in a handling is part of that. A "drop" is a message that an intervention dropped, a "make" an agent
    that could not be made.
    """

    def __init__(self, listeners: tuple[Listener, ...], slow_after: float | None) -> None:
        self.listeners = listeners
        self._slow_after = slow_after

    def sent(self, envelope: Envelope) -> None:
        """A message begins its way."""
        if self.listeners:
            ctx = envelope.ctx
            to = envelope.recipient or ctx.topic_id
            kind = "publish" if envelope.recipient is None else "send"
            about = {"message": envelope.message, "sender": ctx.sender, "recipient": to, "rpc": ctx.is_rpc}
            envelope.event = self.tell(kind, type(envelope.message).__name__, about, event=ctx._message_id)

    async def handle(self, agent: Agent, envelope: Envelope, recipient: AgentId) -> Any:
        """Have the agent handle a message."""
        work: Any = agent.on_message(envelope.message, envelope.ctx)
        if self._slow_after is not None:
            work = timed(work, self._slow_after, partial(_slow, recipient, type(envelope.message).__name__))
        if not self.listeners:
            return await work
        about = {"message": envelope.message, "agent": recipient, "rpc": envelope.ctx.is_rpc}
        event = self.tell("handle", str(recipient), about, "start", parent=envelope.event)
        _handling.set(event)
        began, end = monotonic(), dict(about)
        try:
            end["answer"] = await work
            return end["answer"]
        except BaseException as error:  # raised again
            end.update({"error": error, "error.type": type(error).__name__})
            raise
        finally:
            took = monotonic() - began
            self.tell("handle", str(recipient), end, "end", event=event, parent=envelope.event, duration=took)

    def tell(
        self,
        kind: str,
        name: str,
        data: dict[str, Any],
        phase: Literal["start", "end", "point"] = "point",
        *,
        event: str | None = None,
        parent: str | None = None,
        duration: float | None = None,
    ) -> str:
        """Tell the listeners; returns the event's id."""
        here = source.get()
        parent = parent or _handling.get() or (here.event if isinstance(here, Scope) else None)
        event = event or REAL.new_id()  # not an id of the run's, which would differ if nobody listened
        made = Event(
            id=event, parent=parent, kind=kind, phase=phase, name=name, time=now(), duration=duration, data=data
        )
        tell(self.listeners, made)
        return event


def _slow(agent_id: AgentId, message: str, seconds: float) -> None:
    _log.warning("agent %s blocked the event loop for %.3f s while it handled a %s", agent_id, seconds, message)


@coroutine
def timed(work: Awaitable[Any], longest: float, tell: Callable[[float], None]) -> Generator[Any, Any, Any]:
    """Await `work`, and tell of every step of it that kept the event loop for more than `longest` seconds."""
    steps: Any = work.__await__()
    step, value = steps.send, None
    while True:
        began = monotonic()
        try:
            waits_for = step(value)
        except StopIteration as end:
            return end.value
        finally:
            if (took := monotonic() - began) > longest:
                tell(took)
        try:
            step, value = steps.send, (yield waits_for)
        except BaseException as error:  # noqa: BLE001 - it is the work's to handle
            step, value = steps.throw, error
