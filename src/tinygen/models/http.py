"""HTTP connections for model clients. The only file that touches httpx.

Every event loop a client is used in gets a `Pool`, made at the first call; it ends with its loop, or when it is closed.
Its requests go over `Lines`: connections of ours, on which h11 speaks HTTP/1.1. Where a proxy is configured
they go through an httpx client instead. Redirects are not followed, and TLS is always verified.

Not guaranteed: that a request which failed was not carried out. A connection that the server closed while it was idle
is replaced without counting as an attempt, as browsers do.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
import zlib
from contextvars import Context
from functools import partial
from importlib import import_module

from ..errors import ConfigError, ConnectionFailed, ModelError, ModelTimeout, ProtocolError, RequestError
from .lines import Closed, Guard, Line, dial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence
    from typing import Any

    from .asks import Request

    Timeouts = tuple[float, float | None]  # seconds for a connection to come about, and without a byte

KEEP_ALIVE = 30.0  # seconds an idle connection is kept; most servers keep theirs for 60 or more
HEAD_LIMIT = 100 * 2**10  # bytes of the head of one answer
BODY_LIMIT = 64 * 2**20  # bytes of one answer

_lock = threading.Lock()
_modules: tuple[Any, Any] | None = None
_context: ssl.SSLContext | None = None


def _httpx() -> tuple[Any, Any]:
    """httpx, or the successor that has the same interface, and h11, on which both are built."""
    global _modules
    if _modules is None:
        for client in ("httpx", "httpx2"):
            try:
                _modules = import_module(client), import_module("h11")  # which it brings along
                return _modules
            except ModuleNotFoundError as error:
                if error.name not in (client, "h11"):
                    raise
        raise ConfigError("model clients need httpx; install it with: pip install httpx")
    return _modules


def http_error(name: str, words: str, request: Any) -> Exception:
    """One of httpx's exceptions, by its name."""
    made: Exception = getattr(_httpx()[0], name)(words, request=request)
    return made


def _tls() -> ssl.SSLContext:
    """The TLS settings of every connection: certificates verified. Making them costs 20 ms, so it is done once."""
    global _context
    with _lock:
        if _context is None:
            _context = _httpx()[0].create_ssl_context()
            _context.set_alpn_protocols(["http/1.1"])
        return _context


# --- the connections of one event loop


class Pool:
    """What sends the requests of one event loop: `sender` is our `Lines`, or behind a proxy an httpx client."""

    def __init__(self, url: str) -> None:
        self.sender: Any = _behind_a_proxy() if _proxied(url) else Lines()
        self._end = self._until_the_loop_ends()

    async def open(self) -> None:
        """Begin; to be awaited once."""
        await self._end.__anext__()

    async def close(self) -> None:
        """Close every connection; who waits for an answer there gets `ConnectionFailed`."""
        await self._end.aclose()
        await asyncio.sleep(0)  # sockets are closed in the loop's next turn

    async def _until_the_loop_ends(self) -> AsyncGenerator[None, None]:
        # a loop that shuts down closes the generators that are open in it; so a client nobody closed leaves no socket
        try:
            yield
        finally:
            await self.sender.aclose()


def _behind_a_proxy() -> Any:
    httpx, _ = _httpx()
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=KEEP_ALIVE)
    return httpx.AsyncClient(verify=_tls(), limits=limits)


async def send_through(client: Any, request: Request, timeouts: Timeouts) -> Any:
    """Send a request through an httpx client, or what behaves like one."""
    connect, read = timeouts
    built = client.build_request(
        "POST", request.url, headers=request.headers, content=request.body, timeout=(connect, read, read, None)
    )
    return await client.send(built, stream=True, follow_redirects=False)


class Lines:
    """Connections, the idle ones on a plain stack for each origin.

    httpx's own pool looks through all its connections whenever one is taken or given back, and so gets slower with
    every call in flight; this does not.
    """

    def __init__(self, keep_alive: float = KEEP_ALIVE) -> None:
        self._httpx, self._h11 = _httpx()
        self._keep_alive = keep_alive
        self._closed = False
        self._addresses: dict[str, Any] = {}
        self._idle: dict[Any, list[tuple[Talk, float]]] = {}
        self._busy: set[Line] = set()
        self._reaper: asyncio.TimerHandle | None = None

    async def send(self, request: Request, timeouts: Timeouts, guard: Guard) -> Reply:
        """Send a request; returns its response, the body unread."""
        address = self._addresses.get(request.url) or self._address(request.url)
        connect, read = timeouts
        length = b"%d" % len(request.body)
        headers = [(b"host", address.host), (b"content-length", length), *request.raw_headers()]
        while True:
            talk, used = await self._take(address, connect, guard)
            line = talk.line
            self._busy.add(line)
            guard.line, received = line, line.received
            try:
                answer = await talk.ask(address.target, headers, request.body, read)
            except BaseException as error:  # the sender learns of it; the line is of no use any more
                self._drop(line)
                hung_up = isinstance(error, (ConnectionFailed, self._h11.ProtocolError))
                if used and hung_up and line.received == received and guard.reason is None:
                    continue  # while it was idle, most likely
                raise
            return Reply(answer, talk.body(read), partial(self._give, address, talk, guard))

    async def aclose(self) -> None:
        """Close every connection, at once and for good."""
        self._closed = True
        for idle in self._idle.values():
            self._busy.update(talk.line for talk, _ in idle)
        self._idle.clear()
        while self._busy:
            self._busy.pop().abort()
        if self._reaper:
            self._reaper.cancel()
            self._reaper = None

    def _address(self, text: str) -> _Address:
        url = self._httpx.URL(text)
        name = url.raw_host.decode("ascii")
        made = self._addresses[text] = _Address(url.raw_path, url.netloc, name, url.port, url.scheme == "https")
        return made

    async def _take(self, address: _Address, timeout: float, guard: Guard) -> tuple[Talk, bool]:
        """A connection to send on, and whether it was used before."""
        now = asyncio.get_running_loop().time()
        idle = self._idle.get(address.key)
        while idle:
            talk, since = idle.pop()
            if talk.line.alive and now - since < self._keep_alive:
                return talk, True
            talk.line.abort()
        line = await dial(address.name, address.port, _tls() if address.secure else None, timeout, guard)
        if self._closed:
            line.abort()
            raise Closed("the client was closed before the answer came")
        return Talk(self._h11, line), False

    def _give(self, address: _Address, talk: Talk, guard: Guard) -> None:
        """Take a connection back."""
        guard.line = None
        if self._closed or not talk.renew() or not talk.line.alive:
            self._drop(talk.line)
            return
        self._busy.discard(talk.line)
        loop = asyncio.get_running_loop()
        self._idle.setdefault(address.key, []).append((talk, loop.time()))
        if self._reaper is None:
            self._reaper = loop.call_later(self._keep_alive, self._reap, context=Context())

    def _drop(self, line: Line) -> None:
        self._busy.discard(line)
        line.abort()

    def _reap(self) -> None:
        """Close what has been idle for too long."""
        loop = asyncio.get_running_loop()
        oldest = loop.time() - self._keep_alive
        for key, idle in list(self._idle.items()):
            for talk, since in idle:
                if since <= oldest:
                    talk.line.abort()
            self._idle[key] = [each for each in idle if each[1] > oldest]
        first = min((idle[0][1] for idle in self._idle.values() if idle), default=None)
        self._reaper = None if first is None else loop.call_at(first + self._keep_alive, self._reap)


class _Address:
    """Where requests go: `target` is the path with its query, `host` the header of that name."""

    def __init__(self, target: bytes, host: bytes, name: str, port: int | None, secure: bool) -> None:
        self.target = target
        self.host = host
        self.name = name
        self.port = port or (443 if secure else 80)
        self.secure = secure
        self.key = (name, self.port, secure)


class Talk:
    """One request after the other on a line. The protocol, HTTP/1.1, is h11's business."""

    def __init__(self, h11: Any, line: Line) -> None:
        self.line = line
        self._h11 = h11
        self._state = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_LIMIT)

    async def ask(
        self, target: bytes, headers: Sequence[tuple[bytes, bytes]], body: bytes, timeout: float | None
    ) -> Any:
        """Send a request; returns h11's response, the body unread. `timeout` is in seconds without a byte."""
        h11, send = self._h11, self._state.send
        head = send(h11.Request(method=b"POST", target=target, headers=headers))
        self.line.write(b"".join((head, send(h11.Data(data=body)), send(h11.EndOfMessage()))))
        while not isinstance(answer := await self._event(timeout), h11.Response):
            pass  # it says that it will answer
        return answer

    async def body(self, timeout: float | None) -> AsyncGenerator[bytes, None]:
        """The body of the response, as it comes."""
        while isinstance(event := await self._event(timeout), self._h11.Data):
            yield bytes(event.data)

    def renew(self) -> bool:
        """Get ready for the next request; False if none can be sent, or something came that nobody asked for."""
        h11, state = self._h11, self._state
        if state.our_state is not h11.DONE or state.their_state is not h11.DONE:
            return False
        state.start_next_cycle()
        return not state.trailing_data[0]

    async def _event(self, timeout: float | None) -> Any:
        h11, state = self._h11, self._state
        while (event := state.next_event()) is h11.NEED_DATA:
            data = await self.line.read(timeout)
            if not data and state.their_state is h11.SEND_RESPONSE:
                raise h11.RemoteProtocolError("the server disconnected without a response")
            state.receive_data(data)
        return event


class Reply:
    """A response on a line of ours: as much of httpx's as is needed. Closing it gives the line back."""

    def __init__(self, answer: Any, pieces: AsyncGenerator[bytes, None], release: Callable[[], None]) -> None:
        self.status_code: int = answer.status_code
        self.headers = {name.decode("ascii"): value.decode("latin-1") for name, value in answer.headers}
        self._pieces = pieces
        self._release = release

    def aiter_bytes(self) -> Any:
        """The body, decoded if it is encoded although that was not asked for."""
        names = [name.strip() for name in self.headers.get("content-encoding", "").lower().split(",")]
        encoding = ", ".join(name for name in names if name not in ("", "identity"))
        pieces = self._pieces
        return _decoded(pieces, encoding) if encoding else pieces

    async def aclose(self) -> None:
        try:
            await self._pieces.aclose()
        finally:
            self._release()


async def _decoded(pieces: Any, encoding: str) -> AsyncGenerator[bytes, None]:
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise ProtocolError(f"the answer is encoded as {encoding!r}, which was not asked for")
    decoder: Any = None
    try:
        async for piece in pieces:
            if decoder is None:  # some send deflate without the header it should have, which begins so
                raw = encoding == "deflate" and piece[:1] and piece[0] & 15 != 8
                decoder = zlib.decompressobj(-zlib.MAX_WBITS if raw else zlib.MAX_WBITS | 32)
            if data := decoder.decompress(piece, BODY_LIMIT + 1):
                yield data
    except zlib.error as error:
        raise ProtocolError(f"the answer is not encoded as its content-encoding header says: {error}") from None
    if decoder is None or not decoder.eof:
        raise Cut(ConnectionFailed("the answer breaks off inside its content-encoding"))


def _proxied(url: str) -> bool:
    from urllib.parse import urlsplit
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(url)
    proxies = getproxies()
    return bool((proxies.get(parts.scheme) or proxies.get("all")) and not proxy_bypass(parts.hostname or ""))


# --- what goes wrong


class Again(Exception):
    """An attempt failed in a way that another one may mend; `wait` is what the provider asked for, in seconds."""

    def __init__(self, error: ModelError, wait: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.wait = wait


class Cut(Again):
    """The server hung up inside a body, without breaking the connection."""


def failure(error: Exception, begun: bool) -> Exception:
    """What httpx, httpcore or the operating system raised, as one of ours; `begun` says that an answer had begun.

    By the names of the classes: httpx, httpcore, their successors and a client of the user's all use the same ones.
    """
    if isinstance(error, ConnectionFailed) and not isinstance(error, Closed):
        return Again(error)
    if isinstance(error, ModelError):
        return error
    names = {each.__name__ for each in type(error).__mro__}
    text = str(error) or type(error).__name__
    if bad := next((each for each in _chain(error) if isinstance(each, ssl.SSLCertVerificationError)), None):
        return ConnectionFailed(
            f"the server's certificate cannot be verified: {bad.verify_message}. Certificates are always verified; if "
            f"this one is signed by an authority of your own, name its file in SSL_CERT_FILE"
        )
    if not begun and names & {"ConnectTimeout", "PoolTimeout", "TimeoutError"}:
        return Again(ModelTimeout("no connection to the server came about in time (connect_timeout)"))
    if "TimeoutException" in names:
        return ModelTimeout("nothing came in time (read_timeout)")
    if "DecodingError" in names:
        return ProtocolError(f"the answer is not encoded as its content-encoding header says: {text}")
    if "RemoteProtocolError" in names and ("peer closed" in text or "disconnected" in text):
        failed = ConnectionFailed(f"the server hung up before the answer was complete: {text}")
        return Cut(failed) if begun else Again(failed)
    if "RemoteProtocolError" in names:
        return ProtocolError(f"the server does not speak HTTP/1.1 properly: {text}")
    if names & {"LocalProtocolError", "InvalidURL", "UnsupportedProtocol", "UnicodeError"}:
        return RequestError(f"the request cannot be sent: {text}")
    if names & {"OSError", "TransportError"}:
        advice = "" if begun else " Check base_url, and that the server runs."
        if "[SSL" in text:
            advice = " If it speaks plain HTTP, its base_url begins with http://."
        return Again(ConnectionFailed(f"the server cannot be reached, or the connection broke: {text}.{advice}"))
    if type(error).__module__.split(".")[0] in ("httpx", "httpcore", "httpx2", "httpcore2", "h11"):
        return ModelError(f"the HTTP library failed: {type(error).__name__}: {text}")
    return error


def _chain(error: BaseException | None) -> list[BaseException]:
    """An exception and those it came from."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain


def cause(error: BaseException) -> BaseException | None:
    """What to give as the cause of an error of ours."""
    # what says why a connection failed is kept; what quotes the request is not, it may quote the key
    return error if isinstance(error, OSError) and not isinstance(error, ModelError) else error.__cause__
