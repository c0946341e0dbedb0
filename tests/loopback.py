"""A server on this machine that says what it is told to say, byte by byte, and remembers what it was asked.

async with Loopback([Reply(body=b'{"choices": ...}')]) as server:
    ... server.url ... server.requests ... await server.deserted()
"""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import ssl
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

REASONS = {200: "OK", 204: "No Content", 302: "Found", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found"}


@dataclass
class Reply:
    """What the server does with one request.

    Args:
        body: what it sends, in one piece.
        steps: instead of `body`, pieces with the seconds before each.
        framing: "length", "chunked", or "close" for a body that ends with the connection.
        end: "clean", "reset" (the connection breaks after the body), "hang" (it stays open and silent), or "cut"
            (it is closed in good order, but too early for the framing).
        raw: everything is sent as it is: no status line, no headers, no framing.
        connect: "reset" breaks the connection instead of answering; "refused" nobody listens; "close" hangs up.
        before: seconds to wait before the status line.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    steps: Sequence[tuple[float, bytes]] | None = None
    framing: str = "length"
    end: str = "clean"
    raw: bool = False
    connect: str = ""
    before: float = 0.0


@dataclass
class Recorded:
    """A request as it arrived; `connection` counts from 0."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def pieces(data: bytes, *, chunk_bytes: int = 0, cuts: Sequence[int] = ()) -> list[tuple[float, bytes]]:
    """`data` cut up, as `Reply.steps` without waiting."""
    if chunk_bytes:
        cuts = range(chunk_bytes, len(data), chunk_bytes)
    edges = [0, *sorted(cuts), len(data)]
    return [(0.0, data[a:b]) for a, b in pairwise(edges) if a < b]


def json_reply(data: Any, status: int = 200, **more: Any) -> Reply:
    headers = {"content-type": "application/json", **more.pop("headers", {})}
    return Reply(status, headers, json.dumps(data).encode(), **more)


def sse_reply(*events: Any, done: bool = True, **more: Any) -> Reply:
    """A stream of these events, each in a piece of its own; text is sent as it is."""
    texts = [event if isinstance(event, str) else f"data: {json.dumps(event)}\n\n" for event in events]
    if done:
        texts.append("data: [DONE]\n\n")
    steps = [(0.0, text.encode()) for text in texts]
    return Reply(headers={"content-type": "text/event-stream"}, steps=steps, framing="chunked", **more)


class Loopback:
    """The server. Its replies are given in order, the last one again and again."""

    def __init__(self, replies: Sequence[Reply], *, tls: ssl.SSLContext | None = None) -> None:
        self.replies = list(replies)
        self.requests: list[Recorded] = []
        self.connections = 0
        self.open: set[asyncio.StreamWriter] = set()
        self._tls = tls
        self._given = 0
        self.tasks: set[asyncio.Task[None]] = set()
        self._change = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._socket = socket.socket(proto=socket.IPPROTO_TCP)  # else asyncio does not send small pieces at once
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://{'localhost' if tls else '127.0.0.1'}:{self.port}/v1"

    async def __aenter__(self) -> Loopback:
        await self.listen()
        return self

    async def listen(self) -> None:
        """Begin to listen, unless the next reply is that nobody does; pass over such a reply the second time."""
        if self._server is not None:
            return
        if self._given < len(self.replies) and self.replies[self._given].connect == "refused":
            self._given += 1
            return
        self._server = await asyncio.start_server(self._serve, sock=self._socket, ssl=self._tls, limit=2**20)

    async def __aexit__(self, *_: object) -> None:
        if self._server is None:
            self._socket.close()
            return
        self._server.close()
        for writer in list(self.open):
            writer.transport.abort()
        for task in self.tasks:
            task.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks)

    async def deserted(self, seconds: float = 1.0) -> bool:
        """Whether every connection is closed by the client within that time."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while self.open:
            self._change.clear()
            timer = loop.call_at(end, self._change.set)
            await self._change.wait()
            timer.cancel()
            if loop.time() >= end:
                break
        return not self.open

    async def arrived(self, count: int) -> None:
        """Wait until so many requests have come."""
        while len(self.requests) < count:
            self._change.clear()
            await self._change.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        number, self.connections = self.connections, self.connections + 1
        self.open.add(writer)
        try:
            while await self._request(reader, writer, number):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            self.open.discard(writer)
            self.tasks.discard(task)
            self._change.set()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> bool:
        """Answer one request; returns whether another may follow."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        self.requests.append(Recorded(method, path, headers, body, number))
        self._change.set()
        reply = self.replies[min(self._given, len(self.replies) - 1)]
        self._given += 1
        return await self._answer(reply, reader, writer)

    async def _answer(self, reply: Reply, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if reply.connect in ("reset", "close"):
            _break(writer, hard=reply.connect == "reset")
            return False
        steps = [(0.0, reply.body)] if reply.steps is None else reply.steps
        chunked = reply.framing == "chunked" and not reply.raw
        if reply.before:
            await asyncio.sleep(reply.before)
        if not reply.raw:
            writer.write(_head(reply, sum(len(data) for _, data in steps)))
        for seconds, data in steps:
            if seconds:
                await asyncio.sleep(seconds)
            if data:
                writer.write(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)
                await writer.drain()
                await asyncio.sleep(0)
        if reply.end == "hang":
            await reader.read()
        elif reply.end == "reset":
            await _sent(writer)
            _break(writer, hard=True)
        elif reply.end == "clean" and chunked:
            writer.write(b"0\r\n\r\n")
        if reply.end == "cut" or reply.raw or reply.framing == "close":
            await _sent(writer)
            _break(writer, hard=False)
        return not writer.is_closing()


def _head(reply: Reply, length: int) -> bytes:
    headers = {name.lower(): value for name, value in reply.headers.items()}
    if reply.framing == "chunked":
        headers["transfer-encoding"] = "chunked"
    elif reply.framing == "length" and reply.status != 204:
        headers.setdefault("content-length", str(length))
    else:
        headers["connection"] = "close"
    lines = [f"HTTP/1.1 {reply.status} {REASONS.get(reply.status, 'Status')}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


async def _sent(writer: asyncio.StreamWriter) -> None:
    """Wait until the system has taken everything."""
    writer.transport.set_write_buffer_limits(0)
    await writer.drain()


def _break(writer: asyncio.StreamWriter, hard: bool) -> None:
    if hard:  # the other side sees "connection reset by peer"
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    else:
        writer.close()


def untrusted_certificate(folder: Path) -> ssl.SSLContext | None:
    """TLS for a server whose certificate nobody has signed but itself; None where there is no openssl to make one.

    The certificate is left in the folder, as `certificate.pem`.
    """
    if shutil.which("openssl") is None:
        return None
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    options = ["-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate]
    subprocess.run([*command.split(), *options], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context
