"""Messages that are sent later, once or again and again."""

from __future__ import annotations

from .errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import Any

    from .addresses import AgentId, TopicId


class Timer:
    """A message that is sent later, as `AgentRuntime.send_later` returns it; `cancel()` ends it."""

    __slots__ = ("_handle", "_timers", "every", "message", "recipient", "sender")

    def __init__(
        self, timers: Timers, message: Any, recipient: AgentId | TopicId, sender: AgentId | None, every: float | None
    ) -> None:
        self.message = message
        self.recipient = recipient
        self.sender = sender
        self.every = every
        self._timers = timers
        self._handle: asyncio.TimerHandle | None = None

    @property
    def is_set(self) -> bool:
        """Whether its message will be sent, or sent again."""
        return self._handle is not None

    def cancel(self) -> None:
        """Send it no more."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
            self._timers.active.pop(self, None)


class Timers:
    """The timers of a runtime; `ring` is called with one whose time has come."""

    __slots__ = ("_ring", "active")

    def __init__(self, ring: Callable[[Timer], None]) -> None:
        self.active: dict[Timer, None] = {}
        self._ring = ring

    def add(self, timer: Timer, delay: float | None, loop: asyncio.AbstractEventLoop) -> Timer:
        """Set it. Without a delay it rings first after `every` seconds."""
        first = timer.every if delay is None else delay
        if first is None or not first >= 0 or (timer.every is not None and not timer.every > 0):
            raise ConfigError(
                f"delay={delay!r}, every={timer.every!r}: say after how many seconds a message is sent, "
                "or every how many, which must be above 0"
            )
        self.active[timer] = None
        self._set(timer, loop.time() + first, loop)
        return timer

    def clear(self) -> list[Timer]:
        """End all. Returns those whose message was not sent even once."""
        ended = list(self.active)
        for timer in ended:
            timer.cancel()
        return [timer for timer in ended if timer.every is None]

    def _set(self, timer: Timer, due: float, loop: asyncio.AbstractEventLoop) -> None:
        timer._handle = loop.call_at(due, self._due, timer, due, loop)

    def _due(self, timer: Timer, due: float, loop: asyncio.AbstractEventLoop) -> None:
        if timer.every is None:
            timer.cancel()
        else:  # those that were missed, because the loop was blocked, are not made up for
            missed = (loop.time() - due) // timer.every
            self._set(timer, due + (missed + 1) * timer.every, loop)
        self._ring(timer)
