"""One request of a model client with its attempts: sending, waiting, reading, and what may go wrong on the way.

An attempt that another one may mend raises `Again`; whatever else goes wrong is a `ModelError`.
"""

from __future__ import annotations

import asyncio
import math

from ..clock import REAL, source
from ..errors import ModelError, ModelTimeout, ResponseTooLarge
from .http import BODY_LIMIT, Again, Lines, cause, failure, send_through
from .lines import Guard
from .wire import QUOTA

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from datetime import datetime
    from typing import Any, NoReturn, TypeVar

    from ..cancellation import CancellationToken
    from .asks import Request
    from .lines import Line

    T = TypeVar("T")

TAIL = 0.05  # seconds spent on reading the end of a finished stream, so that its connection can be used again
ERROR_LIMIT = 64 * 2**10  # bytes read of an error body


class Waiting:
    """The time of day and the sleep that retries use; tests give their own."""

    now: Callable[[], datetime] = staticmethod(REAL.now)
    sleep: Callable[[float], Coroutine[Any, Any, None]] = staticmethod(asyncio.sleep)


class Exchange:
    """One request with its retries."""

    request: Request  # set when it is known

    def __init__(self, client: Any, token: CancellationToken | None) -> None:
        self.response: Any = None
        self._client = client
        self._token = token
        self._attempts = 0
        self._deadline = asyncio.get_running_loop().time() + client._timeout
        self._guard: Guard | None = None
        self._own = False
        self._pieces: Any = None
        self._size = 0

    async def start(self) -> None:
        """Send the request once. Afterwards `response` is one with status 200, its body unread."""
        self._attempts += 1
        guard = self._guard = self._watch()
        try:
            await self._send(guard)
            if not 200 <= self.response.status_code < 300:
                await self._refused()
        except BaseException as error:  # translated and raised
            self._fail(error)

    async def next(self) -> bytes:
        """The next piece of the body, b"" at its end. Raises `ResponseTooLarge`."""
        if self._guard is None or self._pieces is None:
            return b""
        try:
            self._guard.check()
            if self._own:
                piece: bytes = await anext(self._pieces, b"")
            else:
                piece = await self._guard.step(_following(self._pieces))
        except BaseException as error:  # translated and raised
            self._fail(error)
        if not piece:
            self._pieces = None
        self._size += len(piece)
        if self._size > BODY_LIMIT:
            raise ResponseTooLarge(f"the answer has more than {BODY_LIMIT:,} bytes")
        return piece

    async def body(self) -> str:
        """The whole body. Raises `ResponseTooLarge`."""
        promised = _positive(self.response.headers.get("content-length", ""), 1)
        if promised and promised > BODY_LIMIT:
            raise ResponseTooLarge(f"the answer has {promised:,.0f} bytes, more than {BODY_LIMIT:,}")
        parts = []
        while piece := await self.next():
            parts.append(piece)
        return b"".join(parts).decode("utf-8", "replace")

    async def end(self, tail: bool = False) -> None:
        """Let go of the connection: for the next request if the body was read to its end, else close it.

        `tail` says that little more can come, so that it is worth reading.
        """
        guard, response, pieces = self._guard, self.response, self._pieces
        self._guard = self.response = self._pieces = None
        if guard is None:
            return
        guard.release()
        try:
            if guard.line is not None and pieces is not None:
                await _read_out(pieces, guard.line, TAIL if tail else 0.0)
        finally:
            if response is not None:
                await response.aclose()
            if pieces is not None and not self._own:
                await pieces.aclose()

    async def pause(self, again: Again) -> None:
        """Wait before the next attempt. Raises the error if there shall be none."""
        error, client, loop = again.error, self._client, asyncio.get_running_loop()
        if self._attempts > client._max_retries:
            raise _worded(error, f"(tried {self._attempts} times)" if self._attempts > 1 else "") from error.__cause__
        chance = source.get().random()
        if again.wait is None:
            wait = min(8.0, 0.5 * 2 ** (self._attempts - 1)) * (0.2 + 0.8 * chance)
        else:
            wait = again.wait + 0.1 * chance * (1 + again.wait)
        if again.wait is not None and again.wait > client._max_retry_wait:
            when = _utc(client._waiting.now().timestamp() + again.wait)
            raise _worded(
                error,
                f"It asks to wait {again.wait:,.0f} s, until {when}; that is longer than "
                f"max_retry_wait={client._max_retry_wait:g}, so try again then.",
            ) from error.__cause__
        if loop.time() + wait > self._deadline:
            late = f"Another attempt would come after the deadline (timeout={client._timeout:g})."
            raise _worded(error, late) from error.__cause__
        await self.within(client._waiting.sleep(wait))

    async def within(self, work: Coroutine[Any, Any, T]) -> T:
        """Do what is not the request itself, within its deadline and as long as nobody cancels it."""
        guard = self._watch()
        try:
            return await guard.step(work)
        except ModelTimeout as error:
            self._client._finish(error, getattr(self, "request", None), None)
            raise
        finally:
            guard.release()

    def _watch(self) -> Guard:
        return Guard(self._deadline, self._client._timeout, self._token)

    async def _send(self, guard: Guard) -> None:
        client = self._client
        sender = (await client._pool()).sender if client._http_client is None else client._http_client
        guard.check()
        if isinstance(sender, Lines):
            self._own, self.response = True, await sender.send(self.request, client._timeouts, guard)
        else:
            await guard.step(self._send_through(sender))
        client.last_answer = asyncio.get_running_loop().time(), self.response.headers
        self._pieces = self.response.aiter_bytes()
        self._size = 0

    async def _send_through(self, sender: Any) -> None:
        # noted here, so that a response that comes while the call is being cancelled is closed too
        self.response = await send_through(sender, self.request, self._client._timeouts)

    async def _refused(self) -> NoReturn:
        """Raise the error for a status other than 200."""
        client, response = self._client, self.response
        body = b""
        try:
            while len(body) < ERROR_LIMIT and (piece := await self.next()):
                body += piece
        except (Again, ModelError):
            pass  # the status says enough
        said = client._complaint(body.decode("utf-8", "replace"))
        error = client._refusal(response.status_code, said, response.headers.get("location", ""))
        error.request_id = said.request_id
        wait = error.retry_after = self._retry_after() if said.retry_after is None else said.retry_after
        may = response.headers.get("x-should-retry")
        status: int = response.status_code
        again = may == "true" if may in ("true", "false") else status in (408, 409, 429) or status >= 500
        if again and said.code != QUOTA:
            raise Again(error, wait)
        raise error

    def _retry_after(self) -> float | None:
        """The longer wait of the headers `retry-after-ms` and `retry-after`, as far as they make sense."""
        headers = self.response.headers
        text = headers.get("retry-after", "")
        waits = [_positive(headers.get("retry-after-ms", ""), 0.001), _positive(text, 1)]
        if text and waits[1] is None and (moment := _moment(text)) is not None:
            waits[1] = max(0.0, moment - self._client._waiting.now().timestamp())
        return max((wait for wait in waits if wait is not None), default=None)

    def _fail(self, original: BaseException) -> NoReturn:
        """Raise an error as the caller shall see it."""
        error = original
        if isinstance(error, asyncio.CancelledError):
            raise error
        if self._guard is not None and self._guard.reason is not None:
            error = self._guard.reason
        elif isinstance(error, Exception) and not isinstance(error, Again):
            error = failure(error, begun=self.response is not None)
        inner = error.error if isinstance(error, Again) else error
        if isinstance(inner, ModelError):
            inner.__cause__ = cause(original)
        raise error from error.__cause__


async def _following(pieces: Any) -> Any:
    return await anext(pieces, b"")


async def _read_out(pieces: Any, line: Line, seconds: float) -> None:
    """Read what is left, for so long, then break the line: either way no generator is left half run."""
    timer = asyncio.get_running_loop().call_later(seconds, line.abort)
    try:
        if not seconds:
            line.abort()
        async for _ in pieces:
            pass
    except Exception:  # all that was wanted has been read; only the connection is lost
        line.abort()
    finally:
        timer.cancel()


def _worded(error: ModelError, addition: str) -> ModelError:
    error.args = (f"{error} {addition}".rstrip(),)
    return error


def _positive(text: str, unit: float) -> float | None:
    try:
        value = float(text.replace("_", "?")) * unit  # Python reads 1_0 as a number, no server does
    except ValueError:
        return None
    return max(0.0, value) if math.isfinite(value) else None


def _moment(text: str) -> float | None:
    """The time that a header gives as a date, which is always one of Greenwich."""
    from datetime import timezone
    from email.utils import parsedate_to_datetime

    try:
        date = parsedate_to_datetime(text)
        return (date.replace(tzinfo=timezone.utc) if date.tzinfo is None else date).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _utc(timestamp: float) -> str:
    from datetime import datetime, timezone

    try:
        return datetime.fromtimestamp(timestamp, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return "a day too far away to name"
