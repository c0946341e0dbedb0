"""Streams over connections, in every wire format: when the first piece is there, and what thousands leave behind."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from . import models
from .harness import Row, in_turn

COUNT = 10_000


def first_pieces() -> Iterator[Row]:
    """Wall time until the first piece, beside httpx; and what a connection takes that knows neither HTTP nor JSON."""
    try:
        for name in models.WIRES:
            floor, ours = in_turn(lambda: asyncio.run(_httpx(name)), lambda: asyncio.run(_ours(name)), 5)  # noqa: B023
            yield Row(f"first piece over a connection: {name}", floor, ours, "us")
            yield Row(f"  bare connection: {name}", None, asyncio.run(_bare(name)), "us")
    finally:
        models.server.stop()


async def _times(once: Callable[[], Awaitable[float]]) -> float:
    """The best of some hundred, after some to warm up: what the clock shows when no neighbour is busy."""
    return min([await once() for _ in range(600)][100:])


async def _bare(name: str) -> float:
    url, body = models.server.url("short", name), models._body(models._history(1))
    path = "/" + url.split("/", 3)[3] + models.WIRES[name].path
    sent = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
    reader, writer = await asyncio.open_connection("127.0.0.1", models.server.port)

    async def once() -> float:
        began = time.perf_counter()
        writer.write(sent)
        await reader.readuntil(b"word0")
        took = time.perf_counter() - began
        await reader.readuntil(b"\r\n0\r\n\r\n")
        return took

    try:
        return await _times(once)
    finally:
        writer.close()


async def _httpx(name: str) -> float:
    import httpx

    wire, body = models.WIRES[name], models._body(models._history(1))
    url, prefix = models.server.url("short", name) + wire.path, wire.prefix.decode() + "{"
    async with httpx.AsyncClient() as client:

        async def once() -> float:
            began, took = time.perf_counter(), 0.0
            async with client.stream("POST", url, content=body) as response:
                async for line in response.aiter_lines():
                    if not took and line.startswith(prefix) and wire.text(json.loads(line[len(prefix) - 1 :])):
                        took = time.perf_counter() - began
            return took

        return await _times(once)


async def _ours(name: str) -> float:
    question = models._history(1)
    async with models._client("short", name) as client:

        async def once() -> float:
            began = time.perf_counter()
            stream = client.create_stream(question)
            await anext(stream)
            took = time.perf_counter() - began
            async for _ in stream:
                pass
            return took

        return await _times(once)


def one_after_another() -> Iterator[Row]:
    """What so many streams, one after another, leave of memory, sockets and tasks."""
    try:
        for name in models.WIRES:
            seconds, memory, objects, files, tasks = asyncio.run(_left_over(name))
            head = f"{COUNT:,} streams one after another: {name}"
            yield Row(f"{head}, each", None, seconds / COUNT, "us")
            yield Row(f"{head}, memory", None, memory, "MB")
            yield Row(f"{head}, objects", None, objects, "")
            yield Row(f"{head}, sockets", None, files, "")
            yield Row(f"{head}, tasks", None, tasks, "")
    finally:
        models.server.stop()


async def _left_over(name: str) -> tuple[float, int, int, int, int]:
    question = models._history(1)
    async with models._client("short", name) as client:

        async def some(count: int) -> tuple[int, int, int, int]:
            for _ in range(count):
                pieces = 0
                async for _ in client.create_stream(question):
                    pieces += 1
                assert pieces == models.FEW + 1
            return _held()

        before = await some(COUNT // 10)
        began = time.perf_counter()
        after = await some(COUNT)
        grown: Any = tuple(now - then for now, then in zip(after, before))
        return (time.perf_counter() - began, *grown)


def _held() -> tuple[int, int, int, int]:
    """Bytes of memory, objects, open files, tasks."""
    gc.collect()
    with open("/proc/self/statm", encoding="ascii") as file:
        pages = int(file.read().split()[1])
    memory = pages * os.sysconf("SC_PAGE_SIZE")
    return memory, len(gc.get_objects()), len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())
