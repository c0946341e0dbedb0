"""Waiting for what comes, and for what ends."""

from __future__ import annotations

import asyncio
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

AHEAD = 100  # items that a stream may be ahead of its reader before everybody else gets a turn


class Output:
    """What a run says, on its way to one reader."""

    __slots__ = ("_waiter", "closed", "items")

    def __init__(self) -> None:
        self.items: deque[Any] = deque()
        self.closed = False
        self._waiter: asyncio.Future[None] | None = None

    def put(self, item: Any) -> None:
        self.items.append(item)
        self._wake()

    def close(self) -> None:
        self.closed = True
        self._wake()

    async def ready(self) -> bool:
        """Wait for an item; False when there will be none. Raises RuntimeError if somebody else does."""
        while not self.items:
            if self.closed:
                return False
            if self._waiter is not None and not self._waiter.done():
                raise RuntimeError("somebody else is waiting for what comes next here; there can be one reader only")
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return True

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


async def settled(task: asyncio.Future[Any]) -> None:
    """Wait until `task` is done; a cancelled waiter does not cancel it. Cheaper than `asyncio.wait`."""
    if task.done():
        return
    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake(_: object) -> None:
        if not waiter.done():
            waiter.set_result(None)

    task.add_done_callback(wake)
    try:
        await waiter
    finally:
        task.remove_done_callback(wake)
