"""Connections and deadlines, over asyncio alone.

A `Line` is one TCP or TLS connection. A `Guard` ends whatever an attempt waits for when its deadline passes or its
cancellation token is cancelled: it breaks the line, so that nothing half read is ever used again, or cancels the step
that is under way. Neither needs a task for each read, nor `asyncio.timeout`, which Python 3.10 does not have.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from contextvars import Context
from functools import partial

from ..errors import ConnectionFailed, ModelTimeout

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Coroutine, Generator
    from typing import Any, TypeVar

    from ..cancellation import CancellationToken

    T = TypeVar("T")

GRACE = 1.0  # seconds that a cancelled step of somebody else's client gets
BUFFER = 256 * 2**10  # bytes received but not read, above which a line stops receiving


class Closed(ConnectionFailed):
    """The client was closed while somebody waited for an answer."""


class Line(asyncio.Protocol):
    """One connection.

    `early` is a connected socket that the loop does not know of yet. What is sent first goes out there at once: so of
    many calls begun together the first is on its way before the second is even written.
    """

    def __init__(self, early: socket.socket | None = None) -> None:
        self.received = 0  # bytes in all
        self._broken: BaseException | None = None  # what to raise instead of going on
        self._transport: Any = None
        self._outgoing = b""
        self._buffer: list[bytes] = []
        self._held = 0
        self._ended = False
        self._lost: BaseException | None = None
        self._full = False
        self._waiter: asyncio.Future[None] | None = None
        self._early = early

    @property
    def alive(self) -> bool:
        """Whether a request can be sent: all was sent, the server has not hung up, and nothing came unasked."""
        return not (self._ended or self._buffer or self._broken or self._full)

    def abort(self, reason: BaseException | None = None) -> None:
        """Close at once; whoever reads gets `reason`."""
        self._broken = self._broken or reason or Closed("the client was closed before the answer came")
        if self._transport is not None:
            self._transport.abort()
        elif self._early is not None:
            self._early.close()
        self._wake()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        if self._broken:
            transport.abort()
        elif peer := transport.get_extra_info("socket"):
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # answers may take minutes to begin

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        self._held += len(data)
        self._buffer.append(data)
        if self._held > BUFFER:
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        self._ended = True
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        self._ended = True
        self._lost = error
        self._wake()

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._wake()

    async def read(self, timeout: float | None = None) -> bytes:
        """What has been received; waits for something if nothing has. b"" means the end."""
        if self._outgoing:
            await self._flush(timeout)
        while self._broken or not self._buffer:
            if self._broken:
                raise self._broken
            if self._ended:
                if self._lost:
                    raise ConnectionFailed(f"the connection broke: {self._lost}") from self._lost
                return b""
            await self._wait(timeout)
        data = self._buffer[0] if len(self._buffer) == 1 else b"".join(self._buffer)
        self._buffer.clear()
        if self._held > BUFFER and not self._ended:
            self._transport.resume_reading()
        self._held = 0
        return data

    def write(self, data: bytes) -> None:
        """Send, when the answer is read."""
        self._outgoing = data

    async def _flush(self, timeout: float | None) -> None:
        # a connection that breaks meanwhile shows when the answer is read: there may be one already
        data, self._outgoing = self._outgoing, b""
        if (early := self._early) is not None and not self._broken:
            try:
                data = data[early.send(data) :]
            except OSError:
                pass  # whoever reads meets it again
            await asyncio.sleep(0)
            await self._introduce(early)
        if data and not self._ended and not self._broken:
            self._transport.write(data)
            while self._full and not (self._ended or self._broken or self._buffer):  # it may answer early
                await self._wait(timeout)

    async def _introduce(self, early: socket.socket) -> None:
        """Let the loop know of the socket."""
        self._early = None
        try:
            if not self._broken:
                await _Apart(asyncio.get_running_loop().create_connection(lambda: self, sock=early))
        finally:
            if self._transport is None:
                early.close()

    async def _wait(self, seconds: float | None) -> None:
        loop = asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        timer = None if seconds is None else loop.call_later(seconds, _expire, waiter, seconds, context=Context())
        try:
            await waiter
        finally:
            self._waiter = None
            if timer:
                timer.cancel()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _expire(waiter: asyncio.Future[None], seconds: float) -> None:
    if not waiter.done():
        waiter.set_exception(ModelTimeout(f"nothing came for {seconds:g} s (read_timeout)"))


class _Apart:
    """Awaits something in an empty context: a connection outlives the run that happens to need it first."""

    def __init__(self, work: Coroutine[Any, Any, Any]) -> None:
        self._work = work

    def __await__(self) -> Generator[Any, Any, None]:
        context, step, given = Context(), self._work.send, None
        while True:
            try:
                waited = context.run(step, given)
            except StopIteration:
                return
            try:
                given, step = (yield waited), self._work.send
            except BaseException as error:  # handed on
                given, step = error, self._work.throw


class Guard:
    """Ends what an attempt waits for; `reason` then says why.

    Args:
        deadline: on the loop's clock.
        timeout: the seconds it stands for.
        token: its cancellation raises `asyncio.CancelledError`.
    """

    def __init__(self, deadline: float, timeout: float, token: CancellationToken | None) -> None:
        self.reason: BaseException | None = None
        self.line: Line | None = None
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Future[Any] | None = None
        # in an empty context: loops keep cancelled timers for a while, and with them the run they were set in
        self._timer = self._loop.call_at(deadline, self._expire, timeout, context=Context())
        self._detach = token.add_callback(self._cancelled) if token is not None else None

    def release(self) -> None:
        """Stop watching."""
        self._timer.cancel()
        if self._detach:
            self._detach()

    def check(self) -> None:
        """Raise `reason` if there is one."""
        if self.reason is not None:
            raise self.reason

    def stop(self, reason: BaseException) -> None:
        """End what is being waited for; it raises `reason`."""
        self.reason = self.reason or reason
        if self._task is not None:
            self._task.cancel()
        if self.line is not None:
            self.line.abort(self.reason)

    def _expire(self, timeout: float) -> None:
        self.stop(ModelTimeout(f"the answer was not complete after {timeout:g} s (timeout)"))

    def _cancelled(self) -> None:
        reason = asyncio.CancelledError("the cancellation token was cancelled")
        if asyncio._get_running_loop() is self._loop:
            self.stop(reason)
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.stop, reason)

    async def step(
        self, work: Coroutine[Any, Any, T], timeout: float | None = None, context: Context | None = None
    ) -> T:
        """Do `work` in a task that `stop` can end. Raises `asyncio.TimeoutError` after `timeout` seconds."""
        if self.reason is not None:
            work.close()
            raise self.reason
        start = self._loop.create_task
        task = self._task = start(work) if context is None else context.run(start, work)
        timer = None if timeout is None else self._loop.call_later(timeout, task.cancel, context=Context())
        ended = self._loop.create_future()
        task.add_done_callback(partial(_tell, ended), context=Context())
        try:
            await ended
        finally:
            self._task = None
            if timer:
                timer.cancel()
            if not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=GRACE)
            if task.done() and not task.cancelled():
                task.exception()  # so that nobody reports it as never retrieved
        self.check()
        if task.cancelled():
            raise asyncio.TimeoutError(f"not done after {timeout or 0:g} s")
        return task.result()


def _tell(waiter: asyncio.Future[None], _: object) -> None:
    if not waiter.done():
        waiter.set_result(None)


async def dial(host: str, port: int, tls: ssl.SSLContext | None, timeout: float, guard: Guard) -> Line:
    """A new connection. Raises `OSError`, `asyncio.TimeoutError`."""
    loop = asyncio.get_running_loop()
    if tls is None and (early := _connected(host, port)):
        return Line(early)
    line = Line()
    options: dict[str, Any] = {}
    if isinstance(loop, asyncio.BaseEventLoop) and not (":" in host or host.replace(".", "").isdigit()):
        options["happy_eyeballs_delay"] = 0.25  # a name with several addresses; other loops may not know the option
    if tls is not None:
        options.update(ssl=tls, server_hostname=host, ssl_handshake_timeout=timeout)
    try:
        # in an empty context: a connection outlives the run that happens to need it first
        await guard.step(loop.create_connection(lambda: line, host, port, **options), timeout, Context())
    except BaseException:
        line.abort()
        raise
    return line


def _connected(host: str, port: int) -> socket.socket | None:
    """A connection to an address of this machine, if it comes about at once, as it mostly does."""
    if not host.startswith("127."):
        return None
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setblocking(False)
    if made.connect_ex((host, port)) and made.connect_ex((host, port)) not in (0, errno.EISCONN):
        made.close()
        return None
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made
