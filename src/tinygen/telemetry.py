"""What a run tells about itself: one ordered tree of events, and loggers that are silent until configured.

Everything that watches runs (the console, tracing, metrics, a user interface) reads these events; nothing else is
offered to them, and when nobody listens no event is made. Names follow OpenTelemetry's GenAI conventions (1.41) where
they exist, so that an exporter has nothing to translate.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import field

from .records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime
    from typing import Any, Literal

    Listener = Callable[["Event"], None]

logging.getLogger("tinygen").addHandler(logging.NullHandler())
_log = logging.getLogger("tinygen.run")


class Event(Record):
    """One thing that happened in a run, in a runtime, or in a model call of its own.

    `kind` is run, agent, model, tool, code, input, clock or message, or the kind of an effect of your own; of a
    runtime send, publish, handle, drop or make. Selections and handoffs are messages; limits and errors are told at
    the end of what they ended. What takes time has a `start` and an `end` with the same
    `id`; everything else is a `point`. `parent` is the id of the event it happened inside of. `duration` is in seconds.
    `data` holds what the kind has to say: tokens, the error, the message.
    """

    id: str
    parent: str | None
    kind: str
    phase: Literal["start", "end", "point"]
    name: str
    time: datetime
    duration: float | None = None
    data: dict[str, Any] = field(default_factory=dict)


_ambient: ContextVar[tuple[Listener, ...]] = ContextVar("tinygen_listeners", default=())


def ambient() -> tuple[Listener, ...]:
    """The listeners that a run begun here gets."""
    return _ambient.get()


@contextmanager
def listen(listener: Listener) -> Iterator[None]:
    """Tell `listener` every event of what begins inside the block, in the task where it happens.

    That is every run, every runtime that is started, and every effect and model call outside of runs.
    """
    token = _ambient.set((*_ambient.get(), listener))
    try:
        yield
    finally:
        _ambient.reset(token)


def tell(listeners: Iterable[Listener], event: Event) -> None:
    """Tell them; what one of them raises is logged, since whoever only listens must not change what happens."""
    for listener in listeners:
        try:
            listener(event)
        except Exception:  # it has no caller who could learn of it
            _log.exception("listener %r failed on the %s of the %s %r", listener, event.phase, event.kind, event.name)
