"""Time, ids and randomness: the one place they come from.

A run replaces the source by its own (see `run.Scope`), so that what it makes is the same when it is executed
again; `pinned` replaces it for tests. Nothing else in tinygen calls a clock, an id maker or a random generator.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime, timedelta, timezone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

UTC = timezone.utc


class Source:
    """Real time, random ids. `run.Scope` and `pinned` derive from it."""

    __slots__ = ()

    def now(self) -> datetime:
        """The time of day, with UTC as its zone."""
        return datetime.now(UTC)

    def new_id(self) -> str:
        """An id that no other call returns."""
        return os.urandom(16).hex()

    def random(self) -> float:
        """A float in [0, 1)."""
        from random import random

        return random()


class _Pinned(Source):
    __slots__ = ("_count", "_random", "_start")

    def __init__(self, seed: int, start: datetime) -> None:
        from random import Random

        self._random = Random(seed)
        self._start = start
        self._count = 0

    def now(self) -> datetime:
        self._count += 1
        return self._start + timedelta(milliseconds=self._count)

    def new_id(self) -> str:
        return f"{self._random.getrandbits(128):032x}"

    def random(self) -> float:
        return self._random.random()


REAL = Source()

source: ContextVar[Source] = ContextVar("tinygen_source", default=REAL)

monotonic = time.monotonic


def now() -> datetime:
    """The time of day by the current source."""
    return source.get().now()


def new_id() -> str:
    """A new id by the current source."""
    return source.get().new_id()


def seeded(seed: object) -> Any:
    """A `random.Random` of its own, which says the same for the same seed."""
    from random import Random

    return Random(repr(seed))


@contextmanager
def pinned(seed: int = 0, start: datetime | None = None) -> Iterator[None]:
    """Make time, ids and randomness repeatable inside the block, for tests.

    Each reading of the clock is one millisecond after the last, beginning at `start` (2026-01-01 UTC if left out).
    """
    token = source.set(_Pinned(seed, start or datetime(2026, 1, 1, tzinfo=UTC)))
    try:
        yield
    finally:
        source.reset(token)
