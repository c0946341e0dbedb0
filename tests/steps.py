"""A scheduler that counts: do something at the n-th step of the event loop, for every n in turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class CountingLoop(asyncio.SelectorEventLoop):
    """An event loop that calls `hook` before its step number `at`, counted from `arm()`."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0
        self.at = -1
        self.hook: Callable[[], Any] | None = None
        self.skipped = 0.0

    def time(self) -> float:
        return super().time() + self.skipped

    def skip(self, seconds: float) -> None:
        """Let so much time have passed."""
        self.skipped += seconds

    def arm(self, at: int, hook: Callable[[], Any]) -> None:
        """Count from here, and call `hook` at step `at`."""
        self.steps, self.at, self.hook = 0, at, hook

    @property
    def fired(self) -> bool:
        """Whether the hook was called."""
        return self.hook is None

    def _run_once(self) -> None:
        self.steps += 1
        assert self.steps < 100_000, "it never ends"
        if self.steps == self.at and self.hook is not None:
            hook, self.hook = self.hook, None
            hook()
        super()._run_once()  # type: ignore[misc]


def run_counted(main: Callable[[CountingLoop], Coroutine[Any, Any, T]], *, eager: bool = False) -> T:
    """Run `main` in a new counting loop, `eager` with tasks that begin at once; fails if it leaves tasks behind."""
    loop = CountingLoop()
    if eager:
        loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
    try:
        result = loop.run_until_complete(main(loop))
        left = [task for task in asyncio.all_tasks(loop) if not task.done()]
        assert not left, f"tasks left behind: {left}"
        loop.run_until_complete(loop.shutdown_asyncgens())
        return result
    finally:
        loop.close()
