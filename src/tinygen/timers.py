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

    __slots__ = ("_active", "_handle", "every", "message", "recipient", "sender")

    def __init__(
        self,
        message: Any,
        recipient: AgentId | TopicId,
        sender: AgentId | None,
        every: float | None,
        active: dict[Timer, None],
    ) -> None:
        self.message = message
        self.recipient = recipient
        self.sender = sender
        self.every = every
        self._active = active  # those of the runtime that are set
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
            self._active.pop(self, None)

    def _set(self, delay: float | None, ring: Callable[[Timer], None], loop: asyncio.AbstractEventLoop) -> None:
        """Call `ring` when its time has come. Without a delay that is first after `every` seconds."""
        first = self.every if delay is None else delay
        if first is None or not first >= 0 or (self.every is not None and not self.every > 0):
            raise ConfigError(
                f"delay={delay!r}, every={self.every!r}: say after how many seconds a message is sent, "
                "or every how many, which must be above 0"
            )
        due = loop.time() + first
        self._active[self] = None
        self._handle = loop.call_at(due, self._ring, due, ring, loop)

    def _ring(self, due: float, ring: Callable[[Timer], None], loop: asyncio.AbstractEventLoop) -> None:
        if self.every is None:
            self.cancel()
        else:  # those that were missed, because the loop was blocked, are not made up for; a loop may be early too
            missed = max(0, (loop.time() - due) // self.every)
            due += (missed + 1) * self.every
            self._handle = loop.call_at(due, self._ring, due, ring, loop)
        ring(self)
