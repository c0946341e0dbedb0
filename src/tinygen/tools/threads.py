"""Synchronous functions, run in daemon threads.

A thread cannot be stopped. One whose call was cancelled is left behind: it keeps neither other calls, nor the end of
the event loop, nor that of the program waiting.
"""

from __future__ import annotations

import asyncio
import os
import threading
from contextvars import copy_context
from functools import cache, partial

from ..run import current_scope

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    T = TypeVar("T")

IDLE = 10.0  # seconds a thread waits for the next call


async def run_in_thread(func: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    """Call `func` in a daemon thread, in a copy of this context.

    When the wait is cancelled the thread is left behind: its result is dropped, and the run names it as abandoned for
    as long as it is busy. (`asyncio.to_thread` would make the end of the event loop wait for it.)
    """
    call = _ThreadCall(asyncio.get_running_loop(), partial(copy_context().run, func, *args, **kwargs))
    _threads().submit(call)
    try:
        await call.future
    except asyncio.CancelledError:
        scope = current_scope()
        if scope is not None and call.future.cancelled():  # else it has ended just now
            call.left = scope.run.leave(f"thread of {getattr(func, '__qualname__', type(func).__name__)}")
        raise
    return call.result()  # type: ignore[no-any-return]


class _ThreadCall:
    __slots__ = ("error", "func", "future", "left", "loop", "value")

    def __init__(self, loop: asyncio.AbstractEventLoop, func: Callable[[], Any]) -> None:
        self.loop = loop
        self.func = func
        self.future: asyncio.Future[None] = loop.create_future()
        self.value: Any = None
        self.error: BaseException | None = None
        self.left: Callable[[], None] | None = None  # set when nobody waits any more; told of the end

    def execute(self) -> None:
        """In the thread: do it."""
        try:
            self.value = self.func()
        except BaseException as error:  # raised again where the call is awaited
            self.error = error

    def deliver(self) -> None:
        """In the thread: tell the loop."""
        try:
            self.loop.call_soon_threadsafe(self._end)
        except RuntimeError:
            pass  # the loop is closed: nobody waits for this call any more

    def result(self) -> Any:
        """In the loop: what came of it."""
        error, self.error = self.error, None
        if error is None:
            return self.value
        try:
            raise error
        finally:
            del error  # else its traceback and this frame hold each other

    def _end(self) -> None:
        if self.left is not None:
            self.left()
        elif not self.future.done():
            self.future.set_result(None)


class _Thread(threading.Thread):
    def __init__(self, pool: _Threads, call: _ThreadCall) -> None:
        super().__init__(name="tinygen-tool", daemon=True)
        self.pool = pool
        self.call: _ThreadCall | None = call
        self.wake = threading.Lock()
        self.wake.acquire()

    def run(self) -> None:
        while True:
            self._work()
            if not self.wake.acquire(timeout=IDLE):
                if self.pool.retire(self):
                    return
                self.wake.acquire()  # a call was given to it just now

    def _work(self) -> None:
        call, self.call = self.call, None
        assert call is not None
        call.execute()
        self.pool.offer(self)
        call.deliver()


class _Threads:
    """Threads that wait for work. One is made when all are busy, so a blocked one keeps nobody waiting."""

    def __init__(self) -> None:
        self.forget()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        """There are none (in a process just forked)."""
        self.idle: list[_Thread] = []
        self.lock = threading.Lock()

    def submit(self, call: _ThreadCall) -> None:
        with self.lock:
            thread = self.idle.pop() if self.idle else None
        if thread is None:
            _Thread(self, call).start()
        else:
            thread.call = call
            thread.wake.release()

    def offer(self, thread: _Thread) -> None:
        """`thread` has nothing to do."""
        with self.lock:
            self.idle.append(thread)

    def retire(self, thread: _Thread) -> bool:
        """Whether `thread` may end: nobody has given it a call."""
        with self.lock:
            if thread not in self.idle:
                return False
            self.idle.remove(thread)
            return True


@cache
def _threads() -> _Threads:
    return _Threads()
