"""Keeping to the limits of a provider: requests and tokens per minute, and calls at one time.

A `RateLimiter` is one queue, in which calls stand in the order they came. Only the first looks at the clock; it goes
when every limit lets it, and then the next looks. Limits count what went within the last 60 seconds, so no minute,
wherever it begins, holds more. What a provider says of itself counts too: headers that tell what is left, and errors
that tell how long to wait.

Not guaranteed: tokens of answers are known when they have come, so calls made at once may overshoot by their answers.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections import deque
from datetime import datetime

from ..clock import REAL
from ..component import Component
from ..errors import ConfigError, RateLimitError, positive_int
from .wrappers import Wrapper, closed, whole

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
    from typing import Any

    from ..cancellation import CancellationToken
    from ..messages import CreateResult, LLMMessage
    from . import ChatCompletionClient

_MINUTE = 60.0
_NEVER = float("inf")
_HEADERS = (  # of what is left, and of when that is over
    ("requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
    ("requests", "anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset"),
    ("tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    ("tokens", "anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset"),
    ("tokens", "anthropic-ratelimit-input-tokens-remaining", "anthropic-ratelimit-input-tokens-reset"),
    ("tokens", "anthropic-ratelimit-output-tokens-remaining", "anthropic-ratelimit-output-tokens-reset"),
)
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "": 1.0}
_DURATION = re.compile(r"(?:\d{1,9}(?:\.\d+)?(?:ms|[smhd]))+|\d{1,9}(?:\.\d+)?")


class _Ticket:
    """A call that waits, or has gone."""

    __slots__ = ("counts", "loop", "time", "tokens", "waiter")

    def __init__(self, tokens: int, loop: asyncio.AbstractEventLoop) -> None:
        self.tokens = tokens
        self.loop = loop
        self.time = 0.0
        self.counts = False
        self.waiter: asyncio.Future[None] | None = None


class RateLimiter(Component):
    """What calls may go how often. One limiter is shared by all clients that use one account.

        limiter = RateLimiter(requests_per_minute=500, tokens_per_minute=200_000, concurrency=20)
        fast = RateLimitedClient(create_client("openai:gpt-4o-mini"), limiter)
        smart = RateLimitedClient(create_client("openai:gpt-4o"), limiter)

    Event loops in several threads can share it too, as long as their clocks are the same, as those of asyncio are.

    Args:
        requests_per_minute: within any 60 seconds.
        tokens_per_minute: of prompts, estimated, and of answers as they come. A request that is larger than the whole
            limit goes when nothing else was sent for a minute.
        concurrency: calls at one time; a stream is one until it ends.
    """

    component_type = "rate_limiter"
    renewable = False

    def __init__(
        self,
        *,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        concurrency: int | None = None,
    ) -> None:
        self.requests_per_minute = _limit("requests_per_minute", requests_per_minute)
        self.tokens_per_minute = _limit("tokens_per_minute", tokens_per_minute)
        self.concurrency = _limit("concurrency", concurrency)
        self._lock = threading.Lock()
        self._queue: deque[_Ticket] = deque()
        self._past: deque[_Ticket] = deque()  # those that went within the last minute
        self._tokens = 0  # of those
        self._busy = 0
        self._pause = 0.0  # until when nothing goes
        self._left: dict[str, tuple[int, float]] = {}  # what the provider says is left, and until when
        self._learnt = -_NEVER

    async def enter(
        self,
        tokens: int = 0,
        *,
        timeout: float | None = None,
        cancellation_token: CancellationToken | None = None,
        first: bool = False,
    ) -> _Ticket:
        """Wait for one's turn; what it returns is handed to `leave`. `first` passes by those who wait.

        Raises `RateLimitError` after `timeout` seconds, or at once where the turn is known to come later.
        """
        loop = asyncio.get_running_loop()
        deadline = _NEVER if timeout is None else loop.time() + timeout
        ticket = _Ticket(tokens, loop)
        with self._lock:
            (self._queue.appendleft if first else self._queue.append)(ticket)
        try:
            while True:
                with self._lock:
                    now = loop.time()
                    wait = self._wait_of(ticket, now)
                    if wait <= 0:
                        self._go(ticket, now)
                        return ticket
                    if now >= deadline or deadline < now + wait < _NEVER:
                        raise self._too_late(timeout, wait)
                    waiter = ticket.waiter = loop.create_future()
                await _woken(waiter, min(now + wait, deadline), cancellation_token)
        except BaseException:
            with self._lock:
                if ticket in self._queue:
                    self._queue.remove(ticket)
                self._wake_first()
            raise

    def leave(self, ticket: _Ticket, tokens: int | None = None) -> None:
        """The call is over; `tokens` is what it took, if that is known."""
        with self._lock:
            self._busy -= 1
            if tokens is not None:
                if ticket.counts:
                    self._tokens += tokens - ticket.tokens
                ticket.tokens = tokens
            self._wake_first()

    def pause(self, seconds: float) -> None:
        """Let nothing go for so long, for the provider has said so."""
        with self._lock:
            self._pause = max(self._pause, asyncio.get_running_loop().time() + seconds)

    def learn(self, answer: tuple[float, Mapping[str, str]] | None) -> None:
        """Take in what the headers of an answer say is left; see `ChatCompletionClient.last_answer`."""
        if answer is None or answer[0] <= self._learnt:
            return
        at, headers = answer
        with self._lock:
            self._learnt = at
            said: dict[str, tuple[int, float]] = {}
            for what, remaining, reset in _HEADERS:
                if (left := _left(headers, remaining, reset, at)) is not None:
                    said[what] = min(left, said.get(what, left))
            self._left.update(said)

    def _wait_of(self, ticket: _Ticket, now: float) -> float:
        """Seconds until it may go, as far as the clock tells; `_NEVER` while that depends on others."""
        if self._queue[0] is not ticket or (self.concurrency is not None and self._busy >= self.concurrency):
            return _NEVER
        past = self._past
        while past and past[0].time + _MINUTE <= now:
            gone = past.popleft()
            gone.counts = False
            self._tokens -= gone.tokens
        until = self._pause
        if self.requests_per_minute is not None and len(past) >= self.requests_per_minute:
            until = max(until, past[0].time + _MINUTE)
        if self.tokens_per_minute is not None:
            over = self._tokens + ticket.tokens - self.tokens_per_minute
            if over > 0:
                for each in past:
                    over -= each.tokens
                    until = max(until, each.time + _MINUTE)
                    if over <= 0:
                        break
        if self._left:
            for what, need in (("requests", 1), ("tokens", max(1, ticket.tokens))):
                left, end = self._left.get(what, (need, 0.0))
                if left < need:
                    until = max(until, end)
        return until - now

    def _go(self, ticket: _Ticket, now: float) -> None:
        self._queue.popleft()
        self._busy += 1
        if self.requests_per_minute is not None or self.tokens_per_minute is not None:
            ticket.time, ticket.counts = now, True
            self._past.append(ticket)
            self._tokens += ticket.tokens
        for what, (left, end) in self._left.items():
            self._left[what] = left - (1 if what == "requests" else ticket.tokens), end
        self._wake_first()

    def _wake_first(self) -> None:
        queue = self._queue
        while queue and queue[0].loop.is_closed():  # which was closed over a call that waited
            queue.popleft()
        if queue and (waiter := queue[0].waiter) is not None:
            if queue[0].loop is asyncio._get_running_loop():
                _wake(waiter)
            else:
                queue[0].loop.call_soon_threadsafe(_wake, waiter)

    def _too_late(self, timeout: float | None, wait: float) -> RateLimitError:
        known = wait < _NEVER
        when = f"this call could go in {wait:,.1f} s" if known else f"{len(self._queue) - 1} other calls wait too"
        return RateLimitError(
            f"the rate limiter keeps to its limits, and {when}; that is longer than timeout={timeout:g}",
            retry_after=wait if known else None,
        )


def _limit(name: str, value: int | None) -> int | None:
    return None if value is None else positive_int(name, value)


async def _woken(waiter: asyncio.Future[None], until: float, token: CancellationToken | None) -> None:
    timer = waiter.get_loop().call_at(until, _wake, waiter) if until < _NEVER else None
    if token is not None and not token.watched:
        token.link_future(waiter)
    try:
        await waiter
    finally:
        if timer is not None:
            timer.cancel()


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _left(headers: Mapping[str, str], remaining: str, reset: str, at: float) -> tuple[int, float] | None:
    """How much is left until when, if the headers say so."""
    left = headers.get(remaining, "")
    if not left.isdecimal() or len(left) > 15:
        return None
    seconds = _seconds(headers.get(reset, ""), headers.get("date", ""))
    return None if seconds is None else (int(left), at + seconds)


def _seconds(reset: str, date: str) -> float | None:
    """The time in a header such as "6m0s", "12ms", "2.5" or "2026-01-09T00:52:48Z", as seconds from `date`."""
    if _DURATION.fullmatch(reset):
        return sum(float(n) * _UNITS[unit] for n, unit in re.findall(r"(\d+(?:\.\d+)?)(ms|[smhd]|$)", reset))
    from email.utils import parsedate_to_datetime

    try:
        end = datetime.fromisoformat(reset.replace("Z", "+00:00"))
        return max(0.0, (end - (parsedate_to_datetime(date) if date else REAL.now())).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


class RateLimitedClient(Wrapper):
    """Asks a client no more often than a `RateLimiter` lets it.

    Args:
        client: who is asked.
        limiter: of this client and all others that shall share its limits.
        timeout: seconds a call waits for its turn at most; it then raises `RateLimitError`.
        max_retries: how often a call is made again, when its turn comes, that the provider refused with the time to
            wait (`RateLimitError.retry_after`). That time holds for every call of the limiter.
    """

    def __init__(
        self,
        client: ChatCompletionClient,
        limiter: RateLimiter,
        *,
        timeout: float | None = 600.0,
        max_retries: int = 2,
    ) -> None:
        super().__init__([client])
        if not isinstance(limiter, RateLimiter):
            raise ConfigError(f"limiter must be a RateLimiter, not {limiter!r:.200}")
        self._limiter = limiter
        self._timeout = timeout
        self._max_retries = max_retries

    async def _create(
        self,
        messages: Sequence[LLMMessage],
        *,
        cancellation_token: CancellationToken | None = None,
        **arguments: Any,
    ) -> CreateResult:
        refused = 0
        while True:
            ticket, answer = await self._enter(messages, arguments, cancellation_token, refused), None
            try:
                answer = await self._asks[0][0](messages, cancellation_token=cancellation_token, **arguments)
                return answer
            except RateLimitError as error:
                refused += 1
                self._note(error, refused)
            finally:
                self._leave(ticket, answer)

    async def _create_stream(
        self,
        messages: Sequence[LLMMessage],
        *,
        cancellation_token: CancellationToken | None = None,
        **arguments: Any,
    ) -> AsyncGenerator[str | CreateResult, None]:
        refused, answer = 0, None
        while answer is None:
            ticket = await self._enter(messages, arguments, cancellation_token, refused)
            item: Any = None
            stream: Any = None
            try:
                stream = self._asks[0][1](messages, cancellation_token=cancellation_token, **arguments)
                async for item in stream:
                    if isinstance(item, str):
                        yield item
                answer = whole(item)
            except RateLimitError as error:
                if item is not None:
                    raise
                refused += 1
                self._note(error, refused)
            finally:
                try:
                    await closed(stream)
                finally:
                    self._leave(ticket, answer)
        yield answer  # its place is free by now: the caller may ask again before this stream is closed

    def _enter(
        self,
        messages: Sequence[LLMMessage],
        arguments: Mapping[str, Any],
        token: CancellationToken | None,
        refused: int,
    ) -> Awaitable[_Ticket]:
        tokens = 0
        if self._limiter.tokens_per_minute is not None:
            tokens = self.count_tokens(messages, tools=arguments.get("tools", ()))
        return self._limiter.enter(tokens, timeout=self._timeout, cancellation_token=token, first=bool(refused))

    def _leave(self, ticket: _Ticket, answer: CreateResult | None) -> None:
        self._limiter.learn(self.last_answer)
        used = getattr(answer, "usage", None)
        self._limiter.leave(ticket, None if used is None else used.prompt_tokens + used.completion_tokens)

    def _note(self, error: RateLimitError, refused: int) -> None:
        """Tell the limiter what the provider said. Raises the error if the call is not to be made again."""
        if error.retry_after is not None:
            self._limiter.pause(error.retry_after)
        if error.retry_after is None or refused > self._max_retries:
            raise error
