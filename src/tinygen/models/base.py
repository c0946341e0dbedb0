"""The base of every model client over HTTP: requests, retries, deadlines, streams and errors.

Whatever goes wrong is a `ModelError`, and no text it carries holds a secret. Nothing is tried again once a piece of the
answer has reached the caller.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Mapping

from ..errors import (
    AuthenticationError,
    ConfigError,
    ConnectionFailed,
    ModelError,
    ModelTimeout,
    ProtocolError,
    RateLimitError,
    RequestError,
    ServerError,
    positive_int,
)
from ..messages import FunctionCall, RequestUsage, ThoughtChunk
from ..usage import sound_price
from . import ChatCompletionClient, class_name, will_answer
from .asks import Request, check_names, checked_ask, for_one_answer, reserved
from .conversations import Conversations
from .dialects import CHAT, with_fitting_names
from .exchange import Exchange, Waiting
from .families import checked_info, known_info, window
from .http import Again, Cut, Pool
from .keys import bearer, host_of
from .prices import price_of
from .sse import EventDecoder
from .tokens import TokenCounter
from .wire import BAD_KEY, OR_ANOTHER, QUOTA, complaint, parse, presentable, shown, start_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
    from typing import Any

    from ..cancellation import CancellationToken
    from ..messages import CreateResult, LLMMessage
    from . import ModelInfo, Tool, ToolSchema
    from .asks import Ask
    from .dialects import Dialect
    from .keys import TokenProvider
    from .wire import Answer, Complaint, Reason, StreamDecoder

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

_TOO_LONG = ("context length", "prompt is too long", "input token count")  # what errors say of a request

_lock = threading.Lock()

# --- the base of every client


class HTTPChatCompletionClient(ChatCompletionClient):
    """A model behind HTTP.

    A provider is a class that derives from this one. It sets `_url` and `_headers` and defines `_body` (an `Ask`
    becomes the body of a request), `_decode` (a whole body becomes an `Answer`), `_decoder` (what takes the events of a
    stream in) and `_reasons` (the provider's words for why an answer ends); where they differ from the usual,
    `_dialect` (what the provider accepts), `_reserved` (fields that callers may not set), `_framing` (how a stream is
    divided into events), `_complaint` (what an error body says), `_address` and `_authorization`.

    Args:
        model: the provider's name of the model.
        model_info: what the model can do, where the name does not tell.
        timeout: seconds for one call, with all its attempts and waits.
        read_timeout: seconds without a byte from the server; None for `timeout`.
        connect_timeout: seconds for a connection to come about.
        max_retries: attempts after the first, for statuses 408, 409, 429, 5xx and connections that fail.
        max_retry_wait: seconds; a provider that asks for a longer wait makes the call fail at once.
        default_headers: sent with every request.
        http_client: an `httpx.AsyncClient` of yours, or what behaves like one; it is not closed with this client.
        parameters: further fields of every request; a name that looks like a secret's, or like a slip in the name of an
            argument, is refused.
    """

    provider = "the provider"
    key_help = "Check the API key."
    _url: str  # an address of the provider
    _dialect: Dialect = CHAT
    _reserved: Sequence[str] = ()
    _framing: type[EventDecoder] = EventDecoder
    _reasons: Mapping[str, Reason] = {}
    _variables: Mapping[str, str] = {}  # the environment variables that stand for secret arguments
    _token: str | None = None  # sent with each request
    _token_provider: TokenProvider | None = None  # gives the token of a request

    def __init__(
        self,
        *,
        model: str,
        model_info: ModelInfo | None = None,
        timeout: float | None = 600.0,
        read_timeout: float | None = None,
        connect_timeout: float = 5.0,
        max_retries: int = 2,
        max_retry_wait: float = 60.0,
        default_headers: Mapping[str, str] | None = None,
        http_client: Any = None,
        _waiting: Any = None,
        **parameters: Any,
    ) -> None:
        if not isinstance(model, str) or not model:
            raise ConfigError(f"model must be the name of a model, not {model!r}")
        self._model = model
        self._info = known_info(model) if model_info is None else checked_info(model_info)
        self._timeout = _seconds("timeout", 600.0 if timeout is None else timeout)
        read = None if read_timeout is None else _seconds("read_timeout", read_timeout)
        self._timeouts = min(_seconds("connect_timeout", connect_timeout), self._timeout), read
        self._max_retries = positive_int("max_retries", max_retries, or_zero=True)
        self._max_retry_wait = _seconds("max_retry_wait", max_retry_wait, or_zero=True)
        parameters.pop("model_capabilities", None)  # AutoGen's, deprecated there
        self._refuse_reserved(parameters)
        check_names(type(self), parameters)
        self._parameters = dict(for_one_answer(parameters))
        self._headers = dict(HEADERS)
        self._default_headers = checked_headers(default_headers or {})
        if http_client is not None and not all(hasattr(http_client, name) for name in ("build_request", "send")):
            raise ConfigError(f"http_client must be an httpx.AsyncClient, not {http_client!r:.80}")
        self._http_client = http_client
        self._waiting = _waiting or Waiting
        self._pools: dict[asyncio.AbstractEventLoop, Pool] = {}
        self._used = RequestUsage(0, 0)
        self._tokens = TokenCounter(model)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(model={self._model!r})"

    # what a provider's file defines

    def _body(self, ask: Ask) -> bytes:
        """The body of a request."""
        raise NotImplementedError

    def _address(self, ask: Ask) -> str:
        """Where a request goes to."""
        return self._url

    async def _authorization(self) -> dict[str, str]:
        """The headers of one request that say who asks, beside those in `_headers`."""
        return await bearer(self._token, self._token_provider)

    async def _request(self, ask: Ask) -> Request:
        """The request, encoded."""
        headers = {**self._headers, **await self._authorization(), **self._default_headers}
        return Request(self._address(ask), headers, self._body(ask))

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

    def _secret_variable(self, argument: str) -> str:
        return self._variables.get(argument) or super()._secret_variable(argument)

    # what callers use

    @property
    def model_info(self) -> ModelInfo:
        """What the model can do."""
        return self._info

    async def _create(self, messages: Sequence[LLMMessage], **arguments: Any) -> CreateResult:
        """Ask once; see `ChatCompletionClient.create`. Raises `ModelError`, `ConfigError`."""
        async for item in self._answers(messages, stream=False, **arguments):
            last = item  # before it come only pieces, where a server streams although it was not asked to
        return last  # type: ignore[return-value]

    def _create_stream(
        self, messages: Sequence[LLMMessage], **arguments: Any
    ) -> AsyncGenerator[str | CreateResult, None]:
        """Ask once, and get the text as it comes; the last item is the `CreateResult`. Raises `ModelError`."""
        return self._answers(messages, stream=True, **arguments)

    async def _answers(
        self,
        messages: Sequence[LLMMessage],
        *,
        stream: bool,
        cancellation_token: CancellationToken | None = None,
        **arguments: Any,
    ) -> AsyncGenerator[str | CreateResult, None]:
        """The pieces of the answer, and then its `CreateResult`; in as many attempts as it takes."""
        exchange = Exchange(self, cancellation_token)
        asking = self._asked(messages, stream=stream, **arguments)
        asked, request = await (asking if self._token_provider is None else exchange.within(asking))
        exchange.request = request
        while True:
            decoder, framing = self._decoder(), self._framing()
            try:
                await exchange.start()
                if not _streams(exchange.response, stream):
                    answer = self._whole(await exchange.body())
                    for whole in (ThoughtChunk(answer.thought), answer.text):
                        if whole and stream:
                            yield whole
                    break
                while not decoder.done and (piece := await _next(exchange, decoder)):
                    for said in _told(framing.feed(piece), decoder):
                        yield said
                for said in _last(framing, decoder):
                    yield said
                answer = decoder.whole()
                await exchange.end(tail=True)
                break
            except Again as again:
                self._finish(again.error, request, exchange.response)
                await exchange.end()
                again.error.partial = decoder.partial
                if decoder.begun and stream:
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
        yield self._counted(answer, asked, request)

    async def _asked(self, messages: Sequence[LLMMessage], **arguments: Any) -> tuple[Ask, Request]:
        """What the caller wants, and the request for it."""
        asked = checked_ask(messages, **arguments, info=self._info)
        self._refuse_reserved(asked.extra)
        asked, names = with_fitting_names(asked, self._dialect)
        request = await self._request(asked)
        request.names = names
        return asked, request

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

    def count_tokens(self, messages: Sequence[LLMMessage], *, tools: Sequence[Tool | ToolSchema] = ()) -> int:
        """About how many tokens a request takes, told offline (see tokens.py); better with every answer."""
        return self._tokens.count(messages, tools)

    def remaining_tokens(self, messages: Sequence[LLMMessage], *, tools: Sequence[Tool | ToolSchema] = ()) -> int:
        """About how many tokens are left in the context window beside this request."""
        return window(self._model) - self.count_tokens(messages, tools=tools)

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

    def _conversations_by(self, encode: Callable[[LLMMessage], str]) -> Conversations:
        """What encodes the conversations with this model; to be made once the address is known."""
        return Conversations(self._dialect, encode, f"{host_of(self._url)} {self._model}")

    def _refuse_reserved(self, parameters: Mapping[str, Any]) -> None:
        if name := next((name for name in parameters if name in self._reserved), None):
            raise reserved(name)

    def _counted(self, answer: Answer, asked: Ask, request: Request) -> CreateResult:
        if names := request.names:
            calls = answer.calls
            answer.calls = [FunctionCall(call.id, call.arguments, names.get(call.name, call.name)) for call in calls]
        if answer.kept and self._dialect.signed:
            answer.kept["by"] = f"{host_of(self._url)} {asked.extra.get('model') or self._model}"
        if isinstance(other := asked.extra.get("model"), str):
            will_answer(self, (other, sound_price(other, price_of(other))))
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
                f"{self.provider} takes no more requests for now {words}. "
                f"Ask again later, or pace them (RateLimitedClient)."
            )
        if status >= 500:
            return ServerError(f"{self.provider} failed {words}. Ask again later{OR_ANOTHER}.")
        if status < 400 and not location:
            return RequestError(f"{self.provider} answers with a status that holds no answer {words}.")
        if status < 400:
            return RequestError(
                f"{self.provider} answers with a redirect to {shown(location)!r} {words}. Redirects are not followed, "
                f"since they would carry the API key elsewhere; set base_url to the final address."
            )
        help = (
            " Send fewer or shorter messages, for example through a TokenLimitedChatCompletionContext."
            if "context" in said.code or any(sign in said.message for sign in _TOO_LONG)
            else ""
        )
        return RequestError(f"{self.provider} refuses the request {words}.{help}")

    def _finish(self, error: ModelError, request: Request | None, response: Any) -> None:
        """Say who failed, and where, and take out what nobody may see."""
        if not error.provider:
            error.provider = self.provider
            server = shown(self._url).partition("://")[2].partition("/")[0]
            error.args = (f"model {self._model!r} at {server}: {error}",)
        if response is not None:
            names = ("x-request-id", "request-id", "apim-request-id", "x-ms-request-id", "cf-ray")
            error.status = error.status or response.status_code
            said = next((response.headers[name] for name in names if response.headers.get(name)), None)
            error.request_id = said or error.request_id
        error.args = (presentable(str(error), request.secrets() if request else ()),)


def _without_secrets(url: str) -> str:
    """An address as far as answers may depend on it."""
    version = next((part for part in url.partition("?")[2].split("&") if part.startswith("api-version=")), "")
    return shown(url) + (f"?{version}" if version else "")


def _seconds(name: str, value: float, or_zero: bool = False) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and (value > 0 or (or_zero and value == 0)):
        return value
    raise ConfigError(f"{name} must be a number of seconds {'from' if or_zero else 'above'} 0, not {value!r}")


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


def _streams(response: Any, asked: bool) -> bool:
    """Whether an answer comes in events; some do so unasked, and some do not although they were asked to."""
    kind: str = response.headers.get("content-type", "")
    kind = kind.partition(";")[0].strip().lower()
    return kind in ("text/event-stream", "application/x-ndjson") or (asked and kind != "application/json")


async def _next(exchange: Exchange, decoder: StreamDecoder) -> bytes:
    """The next piece of a stream; what breaks after the answer is complete does not matter."""
    try:
        return await exchange.next()
    except Cut:
        return b""
    except (Again, ConnectionFailed, ModelTimeout):
        if decoder.complete:
            return b""
        raise


def _told(events: Iterable[tuple[str, str]], decoder: StreamDecoder) -> Iterator[str]:
    """The thinking and the text that events add, up to the end of the answer."""
    for event, data in events:
        text = decoder.feed(event, data)
        if thought := decoder.fresh_thought():
            yield ThoughtChunk(thought)
        if text:
            yield text
        if decoder.done:
            return


def _last(framing: EventDecoder, decoder: StreamDecoder) -> Iterator[str]:
    """What is in an event that no empty line closed, and what was held back.

    Raises `IncompleteResponse`, `ProtocolError`.
    """
    if not decoder.done:
        before = decoder.partial
        try:
            yield from _told(framing.finish(), decoder)
        except ProtocolError:  # mostly cut off inside the event; whether that matters, the decoder knows
            if decoder.partial != before:
                raise
    if framing.stray and not framing.seen:
        raise ProtocolError(f"the answer is not a stream of events; it begins {start_of(framing.stray)}")
    text = decoder.end()
    if thought := decoder.fresh_thought():
        yield ThoughtChunk(thought)
    if text:
        yield text
