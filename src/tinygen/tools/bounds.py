"""Calls that end when their time is up or a token says so, whether they take notice of it or not."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import aclosing

from ..errors import ToolError
from ..run import GRACE, current_scope
from ..waiting import AHEAD
from .results import error_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable
    from typing import Any, TypeVar

    from ..cancellation import CancellationToken

    T = TypeVar("T")


def bounded(call: Awaitable[T], name: str, timeout: float | None, token: CancellationToken | None) -> Awaitable[T]:
    """`call`, to be ended when `token` says so or the time is up, even if it takes no notice.

    Raises `CancelledError`, and lets nothing begin, if the token says so already.
    """
    if token is not None and token.is_cancelled() and asyncio.iscoroutine(call):
        call.close()  # else it complains that nobody awaits it
    return _ended(call, name, timeout, token) if _needs_watching(timeout, token) else call


def _needs_watching(timeout: float | None, token: CancellationToken | None) -> bool:
    """Not where whoever cancels the token also cancels the task that has it. Raises if that has happened."""
    if token is not None and token.is_cancelled():
        raise asyncio.CancelledError
    return timeout is not None or not (token is None or token.watched)


async def _ended(call: Awaitable[T], name: str, timeout: float | None, token: CancellationToken | None) -> T:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(_without_exit(call))
    over: asyncio.Future[bool] = loop.create_future()  # whether the call has ended, else its time is up

    def end(ended: bool) -> None:
        if not over.done():
            over.set_result(ended)

    task.add_done_callback(lambda _: end(True))
    timer = None if timeout is None else loop.call_later(timeout, end, False)
    if token is not None:
        token.link_future(over)
    try:
        if await over:
            return task.result()
    except asyncio.CancelledError:
        await _stop(task, name)
        raise
    finally:
        if timer is not None:
            timer.cancel()
    await _stop(task, name)
    raise ToolError(f"tool {name!r} did not answer within {timeout:g} s")


async def _without_exit(call: Awaitable[T]) -> T:
    try:
        return await call
    except SystemExit as error:  # out of a task of its own it would end the event loop
        raise ToolError(error_text(error)) from error


async def _stop(task: asyncio.Future[Any], name: str) -> None:
    """Cancel `task`; one that does not end is left to the run, or to itself where there is none."""
    scope = current_scope()
    if scope is not None and isinstance(task, asyncio.Task):
        scope.run.adopt(task, f"tool {name!r}")
    else:
        task.add_done_callback(lambda _: task.cancelled() or task.exception())  # nobody else will ask for it
    task.cancel()
    await asyncio.wait((task,), timeout=GRACE)


def bounded_stream(
    stream: AsyncGenerator[T, None], name: str, timeout: float | None, token: CancellationToken | None
) -> AsyncGenerator[T, None]:
    """`bounded` for a stream. All of it runs in one task, so that it may hold context variables across its items."""
    return _ended_stream(stream, name, timeout, token) if _needs_watching(timeout, token) else stream


async def _ended_stream(
    stream: AsyncGenerator[T, None], name: str, timeout: float | None, token: CancellationToken | None
) -> AsyncGenerator[T, None]:
    arrived: deque[T] = deque()
    news = asyncio.Event()

    async def read() -> None:
        async with aclosing(stream):
            async for item in stream:
                arrived.append(item)
                news.set()
                if len(arrived) >= AHEAD:
                    await asyncio.sleep(0)  # one that never waits would hear neither clock nor token

    reader = asyncio.ensure_future(bounded(read(), name, timeout, token))
    reader.add_done_callback(lambda _: news.set())
    try:
        while arrived or not reader.done():
            if not arrived:
                news.clear()
                await news.wait()
            while arrived:
                yield arrived.popleft()
        reader.result()
    finally:
        await _stop(reader, name)
