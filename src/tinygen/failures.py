"""What becomes of failures that nobody waits for, and of messages that nobody gets."""

from __future__ import annotations

import logging
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from .addresses import AgentId
    from .mailboxes import Envelope
    from .monitoring import DeadLetter

_log = logging.getLogger("tinygen.runtime")

DEAD_LETTERS = 1000  # kept to be looked at
STORED = 10  # failures kept to be raised


class Failures:
    """They go to the log, become dead letters, and are told to who asked to be told.

    Args:
        ignored: if not, the first ones are kept to be raised.
        tell: called with each, the message it befell, and the agent, None if the message did not get so far.
    """

    __slots__ = ("_ignored", "_kept", "_tell", "letters")

    def __init__(self, ignored: bool, tell: Callable[[BaseException, Any, AgentId | None], None] | None) -> None:
        self.letters: deque[DeadLetter] = deque(maxlen=DEAD_LETTERS)
        self._kept: list[BaseException] = []
        self._ignored = ignored
        self._tell = tell

    def add(self, error: BaseException, envelope: Envelope, agent_id: AgentId | None) -> None:
        """What a message led to."""
        if not self._ignored and len(self._kept) < STORED:
            self._kept.append(error)
        self.report(error, envelope, agent_id)

    def report(self, error: BaseException, envelope: Envelope, agent_id: AgentId | None) -> None:
        """One that is never raised: its sender had gone, or the runtime did not deliver the message."""
        where = "in the queue" if agent_id is None else f"at agent {agent_id}"
        _log.error("a message of type %s failed %s", type(envelope.message).__name__, where, exc_info=error)
        self.bury(error, envelope, agent_id)
        if self._tell is not None:
            try:
                self._tell(error, envelope.message, agent_id)
            except Exception:  # it has no caller who could learn of it
                _log.exception("on_failure failed")

    def bury(self, error: BaseException, envelope: Envelope, agent_id: AgentId | None = None) -> None:
        """A message that nobody got, which is no failure."""
        from .monitoring import DeadLetter

        to = agent_id or envelope.recipient or envelope.ctx.topic_id
        self.letters.append(DeadLetter(envelope.message, to, envelope.ctx.sender, error))

    def raise_kept(self) -> None:
        """Once."""
        kept, self._kept = self._kept, []
        raise_first(kept)


def raise_first(failures: Sequence[BaseException]) -> None:
    """Raise the first failure, with notes of the others."""
    if not failures:
        return
    first, *others = failures
    if others:
        notes = [f"also failed: {type(error).__name__}: {error}" for error in others]
        first.__notes__ = [*getattr(first, "__notes__", ()), *notes]  # type: ignore[attr-defined]
    raise first
