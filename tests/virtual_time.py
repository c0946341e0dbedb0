"""Event loops whose clock is moved by waiting alone: an hour takes no time, and every run takes the same."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

STUCK = 5.0  # real seconds to wait for a thread, before nothing more is expected to happen


class VirtualLoop(asyncio.SelectorEventLoop):
    """Jumps to the next timer whenever nothing else is to be done."""

    def __init__(self, start: float = 0.0) -> None:
        self._now = start
        super().__init__()
        self._really_select = self._selector.select  # type: ignore[attr-defined]
        self._selector.select = self._select  # type: ignore[attr-defined]

    def time(self) -> float:
        return self._now

    def _select(self, timeout: float | None) -> Any:
        events = self._really_select(STUCK if timeout is None else 0)
        if not events and timeout is None:
            raise RuntimeError("everything waits, and nothing will ever happen")
        if not events and timeout:
            self._now += timeout
        return events


def simulated(work: Coroutine[Any, Any, T], start: float = 0.0) -> T:
    """What `work` returns, in a loop of its own; no task may be left of it."""
    loop = VirtualLoop(start)
    seen: list[Any] = []
    loop.set_exception_handler(lambda _, context: seen.append(context))
    try:
        result = loop.run_until_complete(work)
        for _ in range(3):  # what was closed has this long to see it
            loop.run_until_complete(asyncio.sleep(0))
        left = asyncio.all_tasks(loop)
        assert not left, f"tasks left behind: {left}"
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()
    assert not seen, f"failures nobody saw: {seen}"
    return result
