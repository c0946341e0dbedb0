"""The base of every model client over HTTP: requests, retries, deadlines, streams and errors.

An `_Exchange` is one request with its attempts. An attempt that another one may mend raises `Again`; whatever else
goes wrong is a `ModelError`, and no text it carries holds a secret. Nothing is tried again once a piece of the answer
has reached the caller.
"""

from __future__ import annotations

import asyncio
import math
import re
import threading
from collections.abc import Mapping

from ..clock import REAL, source
from ..errors import (
    AuthenticationError,
    ConfigError,
    ConnectionFailed,
    ModelError,
    ModelTimeout,
    ProtocolError,
    RateLimitError,
    RequestError,
    ResponseTooLarge,
    ServerError,
)
from ..messages import RequestUsage, ThoughtChunk
from . import ObservedClient, class_name
from .http import BODY_LIMIT, Again, Cut, Pool, cause, failure, send_through
from .lines import Guard
from .sse import EventDecoder
from .tokens import TokenCounter
from .wire import BAD_KEY, QUOTA, checked_ask, complaint, parse, presentable, shown, start_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
    from datetime import datetime
    from typing import Any, NoReturn

    from typing_extensions import Self

    from ..cancellation import CancellationToken
    from ..messages import CreateResult, LLMMessage
    from . import HasSchema, ModelInfo, ToolChoice, ToolSchema
    from .lines import Line
    from .wire import Answer, Ask, Complaint, Reason, Request, StreamDecoder

TAIL = 0.05  # seconds spent on reading the end of a finished stream, so that its connection can be used again
ERROR_LIMIT = 64 * 2**10  # bytes read of an error body

# of every request; compressed answers are not asked for, since proxies hold streams up to compress them
HEADERS = {
    "accept": "application/json, text/event-stream",
    "accept-encoding": "identity",
    "content-type": "application/json",
    "user-agent": "tinygen",
}

# arguments that no answer depends on, or that are in the address already
_NO_MATTER = frozenset(
    "timeout read_timeout connect_timeout max_retries max_retry_wait http_client _waiting token_provider "
    "azure_ad_token_provider base_url azure_endpoint host aws_access_key".split()
)

_lock = threading.Lock()

# --- one request


class Waiting:
    """The time of day and the sleep that retries use; tests give their own."""

    now: Callable[[], datetime] = staticmethod(REAL.now)
    sleep: Callable[[float], Awaitable[None]] = staticmethod(asyncio.sleep)


class _Exchange:
    """One request with its retries."""

    def __init__(self, client: HTTPChatCompletionClient, request: Request, token: CancellationToken | None) -> None:
        self.response: Any = None
        self._client = client
        self._request = request
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
            translated = self._translated(error)
            raise translated from translated.__cause__

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
            translated = self._translated(error)
            raise translated from translated.__cause__
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
        guard = self._watch()
        try:
            await guard.step(_awaited(client._waiting.sleep(wait)))
        finally:
            guard.release()

    def _watch(self) -> Guard:
        return Guard(self._deadline, self._client._timeout, self._token)

    async def _send(self, guard: Guard) -> None:
        client, request = self._client, self._request
        pool = await client._pool() if client._http_client is None else client._http_client
        self._own = isinstance(pool, Pool) and pool.own

        async def send() -> None:
            if isinstance(pool, Pool):
                self.response = await pool.send(request, client._timeouts, guard)
            else:
                self.response = await send_through(pool, request, client._timeouts)

        guard.check()
        await (send() if self._own else guard.step(send()))
        client.last_answer = asyncio.get_running_loop().time(), self.response.headers
        self._pieces = self.response.aiter_bytes()
        self._size = 0

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

    def _translated(self, error: BaseException) -> BaseException:
        """The error as the caller shall see it."""
        original = error
        if isinstance(error, asyncio.CancelledError):
            return error
        if self._guard is not None and self._guard.reason is not None:
            error = self._guard.reason
        elif isinstance(error, Exception) and not isinstance(error, Again):
            error = failure(error, begun=self.response is not None)
        inner = error.error if isinstance(error, Again) else error
        if isinstance(inner, ModelError):
            inner.__cause__ = cause(original)
            self._client._finish(inner, self._request, self.response)
        return error


async def _awaited(work: Awaitable[None]) -> None:
    await work


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


# --- the base of every client


class HTTPChatCompletionClient(ObservedClient):
    """A model behind HTTP.

    A provider is a class that derives from this one. It sets `_url` and defines `_request` (an `Ask` becomes a
    `Request`), `_decode` (a whole body becomes an `Answer`), `_decoder` (what takes the events of a stream in) and
    `_reasons` (the provider's words for why an answer ends); where they differ from the usual, `_framing` (how a
    stream is divided into events) and `_complaint` (what an error body says).

    Args:
        model: the provider's name of the model.
        model_info: what the model can do.
        timeout: seconds for one call, with all its attempts and waits.
        read_timeout: seconds without a byte from the server; None for `timeout`.
        connect_timeout: seconds for a connection to come about.
        max_retries: attempts after the first, for statuses 408, 409, 429, 5xx and connections that fail.
        max_retry_wait: seconds; a provider that asks for a longer wait makes the call fail at once.
        default_headers: sent with every request.
        http_client: an `httpx.AsyncClient` of yours, or what behaves like one; it is not closed with this client.
    """

    provider = "the provider"
    key_help = "Check the API key."
    _url: str  # an address of the provider
    _framing: type[EventDecoder] = EventDecoder
    _reasons: Mapping[str, Reason] = {}

    def __init__(
        self,
        *,
        model: str,
        model_info: ModelInfo,
        timeout: float | None = 600.0,
        read_timeout: float | None = None,
        connect_timeout: float = 5.0,
        max_retries: int = 2,
        max_retry_wait: float = 60.0,
        default_headers: Mapping[str, str] | None = None,
        http_client: Any = None,
        _waiting: Any = None,
    ) -> None:
        self._model = model
        self._info = model_info
        timeout = 600.0 if timeout is None else timeout
        if not isinstance(model, str) or not model:
            raise ConfigError(f"model must be the name of a model, not {model!r}")
        for name, seconds in (
            ("timeout", timeout),
            ("connect_timeout", connect_timeout),
            ("read_timeout", timeout if read_timeout is None else read_timeout),
        ):
            if not _is_number(seconds) or not seconds > 0:
                raise ConfigError(f"{name} must be a number of seconds above 0, not {seconds!r}")
        if not _is_number(max_retry_wait) or not max_retry_wait >= 0:
            raise ConfigError(f"max_retry_wait must be a number of seconds, not {max_retry_wait!r}")
        if not isinstance(max_retries, int) or isinstance(max_retries, bool) or max_retries < 0:
            raise ConfigError(f"max_retries must be a count, 0 or more, not {max_retries!r}")
        self._timeout = timeout
        self._timeouts = (min(connect_timeout, timeout), read_timeout)
        self._max_retries = max_retries
        self._max_retry_wait = max_retry_wait
        self._default_headers = checked_headers(default_headers or {})
        self._http_client = http_client
        self._waiting = _waiting or Waiting
        self._pools: dict[asyncio.AbstractEventLoop, Pool] = {}
        self._used = RequestUsage(0, 0)
        self._tokens = TokenCounter(model)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(model={self._model!r})"

    # what a provider's file defines

    async def _request(self, ask: Ask) -> Request:
        """The request, encoded."""
        raise NotImplementedError

    def _decode(self, data: dict[str, Any]) -> Answer:
        """The answer in a whole body."""
        raise NotImplementedError

    def _whole(self, body: str) -> Answer:
        """The answer in the text of a whole body."""
        return self._decode(parse(body, "the answer"))

    def _decoder(self) -> StreamDecoder:
        """What takes the events of a stream in."""
        raise NotImplementedError

    def _complaint(self, body: str) -> Complaint:
        """What the body of an error says."""
        return complaint(body)

    # what callers use

    @property
    def model_info(self) -> ModelInfo:
        """What the model can do."""
        return self._info

    async def _create(  # type: ignore[override]
        self,
        messages: Sequence[LLMMessage],
        *,
        tools: Sequence[HasSchema | ToolSchema] = (),
        tool_choice: ToolChoice = "auto",
        json_output: bool | type[Any] | None = None,
        extra_create_args: Mapping[str, Any] = {},
        cancellation_token: CancellationToken | None = None,
    ) -> CreateResult:
        """Ask once; see `ChatCompletionClient.create`. Raises `ModelError`, `ConfigError`."""
        asked = checked_ask(messages, tools, tool_choice, json_output, extra_create_args, stream=False, info=self._info)
        request = await self._request(asked)
        exchange = _Exchange(self, request, cancellation_token)
        while True:
            try:
                await exchange.start()
                return self._counted(self._said(await exchange.body(), exchange.response), asked)
            except Again as again:
                await exchange.end()
                await exchange.pause(again)
            except ModelError as error:
                self._finish(error, request, exchange.response)
                raise
            finally:
                await exchange.end()

    async def _create_stream(  # type: ignore[override]
        self,
        messages: Sequence[LLMMessage],
        *,
        tools: Sequence[HasSchema | ToolSchema] = (),
        tool_choice: ToolChoice = "auto",
        json_output: bool | type[Any] | None = None,
        extra_create_args: Mapping[str, Any] = {},
        cancellation_token: CancellationToken | None = None,
    ) -> AsyncGenerator[str | CreateResult, None]:
        """Ask once, and get the text as it comes; the last item is the `CreateResult`. Raises `ModelError`."""
        asked = checked_ask(messages, tools, tool_choice, json_output, extra_create_args, stream=True, info=self._info)
        request = await self._request(asked)
        exchange = _Exchange(self, request, cancellation_token)
        while True:
            decoder, framing = self._decoder(), self._framing()
            try:
                await exchange.start()
                if _media_type(exchange.response) == "application/json":  # a server that does not stream
                    answer = self._whole(await exchange.body())
                    if thought := answer.thought:
                        yield ThoughtChunk(thought)
                    if text := answer.text:
                        yield text
                    break
                while piece := await _next(exchange, decoder):
                    for event, data in framing.feed(piece):
                        text = decoder.feed(event, data)
                        if thought := decoder.fresh_thought():
                            yield ThoughtChunk(thought)
                        if text:
                            yield text
                        if decoder.done:
                            break
                    if decoder.done:
                        break
                text = _last(framing, decoder)
                if thought := decoder.fresh_thought():
                    yield ThoughtChunk(thought)
                if text:
                    yield text
                answer = decoder.whole()
                await exchange.end(tail=True)
                break
            except Again as again:
                self._finish(again.error, request, exchange.response)
                await exchange.end()
                again.error.partial = decoder.partial
                if decoder.begun:
                    raise again.error from again.error.__cause__
                await exchange.pause(again)
            except ModelError as error:
                error.partial = decoder.partial
                self._finish(error, request, exchange.response)
                raise
            except asyncio.CancelledError as error:
                error.partial = decoder.partial  # type: ignore[attr-defined]
                raise
            finally:
                await exchange.end()
        yield self._counted(answer, asked)

    def identity(self) -> dict[str, Any]:
        """The class, the model, the address and every setting that an answer may depend on."""
        from ..blueprints import public_arguments

        settings = public_arguments(self, leave_out=_NO_MATTER)
        return {
            "class": class_name(type(self)),
            "model": self._model,
            "url": _without_secrets(self._url),
            "settings": super().identity()["settings"] if settings is None else settings,
        }

    def _said(self, body: str, response: Any) -> Answer:
        """The answer in a body, even where the server streams although it was not asked to."""
        if _media_type(response) not in ("text/event-stream", "application/x-ndjson"):
            return self._whole(body)
        framing, decoder = self._framing(), self._decoder()
        for event, data in framing.feed(body.encode()):
            decoder.feed(event, data)
        _last(framing, decoder)
        return decoder.whole()

    async def close(self) -> None:
        """Let go of connections. The client can be used again afterwards."""
        here = asyncio.get_running_loop()
        for loop in list(self._pools):
            pool = self._pools.pop(loop, None)
            if pool is None:
                continue
            if loop is here:
                await pool.close()
            elif not loop.is_closed():
                asyncio.run_coroutine_threadsafe(pool.close(), loop)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def count_tokens(self, messages: Sequence[LLMMessage], *, tools: Sequence[HasSchema | ToolSchema] = ()) -> int:
        """About how many tokens a request takes, told offline (see tokens.py); better with every answer."""
        return self._tokens.count(messages, tools)

    def actual_usage(self) -> RequestUsage:
        """Tokens used so far."""
        return self._used

    def total_usage(self) -> RequestUsage:
        """Tokens used so far."""
        return self._used

    # what the two share

    async def _pool(self) -> Pool:
        """What sends the requests of this event loop."""
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop)
        if pool is None:
            for other in list(self._pools):
                if other.is_closed():
                    self._pools.pop(other, None)
            pool = self._pools[loop] = Pool(self._url)
            await pool.open()
        return pool

    def _counted(self, answer: Answer, asked: Ask) -> CreateResult:
        result = answer.result(self._reasons)
        result.usage = self._tokens.usage(asked, result)
        with _lock:
            self._used = self._used + result.usage
        return result

    def _refusal(self, status: int, said: Complaint, location: str) -> ModelError:
        """The error for a status; its text says what to do."""
        words = f": {said.message}" if said.message else ""
        words += f" [{said.code}]" if said.code and said.code not in words else ""
        words = f"(HTTP {status}){words}"
        if status in (401, 403) or said.code == BAD_KEY:
            return AuthenticationError(f"{self.provider} does not accept the API key {words}. {self.key_help}")
        if status == 404:
            where = f"the model {self._model!r}, or the address {shown(self._url)!r},"
            return RequestError(f"{self.provider} does not know {where} {words}. Check model and base_url.")
        if said.code == QUOTA:
            return RateLimitError(
                f"the quota of this account at {self.provider} is used up {words}. Check its billing."
            )
        if status == 429:
            return RateLimitError(
                f"{self.provider} takes no more requests for now {words}. Ask again later, or pace them (RateLimitedClient)."
            )
        if status >= 500:
            return ServerError(
                f"{self.provider} failed {words}. Ask again later, or another model (FallbackClient)."
            )
        if status < 400 and not location:
            return RequestError(f"{self.provider} answers with a status that holds no answer {words}.")
        if status < 400:
            return RequestError(
                f"{self.provider} answers with a redirect to {shown(location)!r} {words}. Redirects are not followed, "
                f"since they would carry the API key elsewhere; set base_url to the final address."
            )
        help = (
            " Send fewer or shorter messages, for example through a TokenLimitedChatCompletionContext."
            if ("context" in said.code or "context length" in said.message or "prompt is too long" in said.message)
            else ""
        )
        return RequestError(f"{self.provider} refuses the request {words}.{help}")

    def _finish(self, error: ModelError, request: Request, response: Any) -> None:
        """Say who failed, and take out what nobody may see."""
        error.provider = error.provider or self.provider
        if response is not None:
            names = ("x-request-id", "request-id", "apim-request-id", "x-ms-request-id", "cf-ray")
            error.status = error.status or response.status_code
            said = next((response.headers[name] for name in names if response.headers.get(name)), None)
            error.request_id = said or error.request_id
        error.args = (presentable(str(error), request.secrets()),)


def _without_secrets(url: str) -> str:
    """An address as far as answers may depend on it."""
    version = next((part for part in url.partition("?")[2].split("&") if part.startswith("api-version=")), "")
    return shown(url) + (f"?{version}" if version else "")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers to send, their names in lower case. Raises `ConfigError` for what no request can carry."""
    if not isinstance(headers, Mapping):
        raise ConfigError(f"default_headers must be a mapping of names to texts, not a {type(headers).__name__}")
    for name, value in headers.items():
        if not isinstance(name, str) or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
            raise ConfigError(f"{name!r} cannot be the name of a header")
        if name.lower() in ("content-length", "transfer-encoding"):
            raise ConfigError(f"the header {name!r} is set by the client itself")
        if not isinstance(value, str) or not (value.isascii() and value.isprintable() and value == value.strip()):
            raise ConfigError(f"the value of the header {name!r} must be a line of ASCII text")
    return {name.lower(): value for name, value in headers.items()}


def _media_type(response: Any) -> str:
    kind: str = response.headers.get("content-type", "")
    return kind.partition(";")[0].strip().lower()


async def _next(exchange: _Exchange, decoder: StreamDecoder) -> bytes:
    """The next piece of a stream; what breaks after the answer is complete does not matter."""
    try:
        return await exchange.next()
    except Cut:
        return b""
    except (Again, ConnectionFailed, ModelTimeout):
        if decoder.complete:
            return b""
        raise


def _last(framing: EventDecoder, decoder: StreamDecoder) -> str:
    """The text in what no empty line closed, and what was held back. Raises `IncompleteResponse`, `ProtocolError`."""
    text = ""
    if not decoder.done:
        for event, data in framing.finish():
            try:
                text += decoder.feed(event, data)
            except ProtocolError:
                pass  # cut off inside the event; whether that matters, the decoder knows
    if framing.stray and not framing.seen:
        raise ProtocolError(f"the answer is not a stream of events; it begins {start_of(framing.stray)}")
    return text + decoder.end()
