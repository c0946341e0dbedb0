"""Cancellation tokens: how a caller stops work it has handed over."""

from __future__ import annotations

import asyncio
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    T = TypeVar("T")


class CancellationToken:
    """A switch that stops what it was given to; may be thrown from any thread.

    Args:
        parent: a token whose cancellation cancels this one too.
        timeout: seconds after which the token cancels itself; counted by the running event loop, so a token with a
            timeout is made inside one.
    """

    watched = False
    """Whether its owner cancels the tasks it is handed to, so that they need not watch it themselves."""

    def __init__(self, parent: CancellationToken | None = None, *, timeout: float | None = None) -> None:
        self._lock = threading.Lock()
        self._cancelled = False
        self._callbacks: dict[int, Callable[[], Any]] = {}
        self._next = 0
        self._detach: list[Callable[[], None]] = []
        if parent is not None:
            self._detach.append(parent.add_callback(self.cancel))
        if timeout is not None:
            self._detach.append(asyncio.get_running_loop().call_later(timeout, self.cancel).cancel)

    def cancel(self) -> None:
        """Cancel. Every callback runs once, outside the lock; one that raises does not keep the others from running.

        Raises the first exception a callback raised, after all have run.
        """
        with self._lock:
            if self._cancelled:
                return
            self._cancelled = True
            callbacks, self._callbacks = list(self._callbacks.values()), {}
        self.close()
        failure: Exception | None = None
        for callback in callbacks:
            try:
                callback()
            except Exception as error:  # each must get its call; the first failure is raised below
                failure = failure or error
        if failure is not None:
            raise failure

    def is_cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._cancelled

    def add_callback(self, callback: Callable[[], Any]) -> Callable[[], None]:
        """Call `callback` on cancellation: at once if that has happened. Returns a function that removes it again."""
        with self._lock:
            if not self._cancelled:
                number, self._next = self._next, self._next + 1
                self._callbacks[number] = callback
                return lambda: self._remove(number)
        callback()
        return lambda: None

    def link_future(self, future: asyncio.Future[T]) -> asyncio.Future[T]:
        """Cancel `future` when this token is cancelled; forgets it when it is done. Returns the future."""
        loop = future.get_loop()

        def stop() -> None:
            if asyncio._get_running_loop() is loop:
                future.cancel()
            elif not loop.is_closed():
                loop.call_soon_threadsafe(future.cancel)

        remove = self.add_callback(stop)
        future.add_done_callback(lambda _: remove())
        return future

    def child(self, *, timeout: float | None = None) -> CancellationToken:
        """A token that is cancelled with this one; cancelling it leaves this one alone."""
        return CancellationToken(self, timeout=timeout)

    def close(self) -> None:
        """Let go of the parent and the timer. A child that outlives its use in a long-lived parent is closed."""
        for detach in self._detach:
            detach()
        self._detach = []

    def _remove(self, number: int) -> None:
        with self._lock:
            self._callbacks.pop(number, None)
