"""Connections, streams, retries, deadlines and errors of model clients, against a server on this machine."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import traceback
import weakref
import zlib
from contextvars import ContextVar
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopback import Loopback, Reply, json_reply, pieces, sse_reply, untrusted_certificate
from tinygen.cancellation import CancellationToken
from tinygen.clock import pinned
from tinygen.errors import (
    AuthenticationError,
    ConnectionFailed,
    IncompleteResponse,
    ModelError,
    ModelTimeout,
    ProtocolError,
    RateLimitError,
    RequestError,
    ResponseTooLarge,
    ServerError,
)
from tinygen.messages import CreateResult, RequestUsage, UserMessage
from tinygen.models.asks import Request
from tinygen.models.http import Lines
from tinygen.models.lines import Guard
from tinygen.models.openai import AzureOpenAIChatCompletionClient, OpenAIChatCompletionClient
from tinygen.models.sse import EventDecoder, LineDecoder

SECRET = "sk-live-0123456789"
QUESTION = [UserMessage(content="hello", source="user")]
ANSWER = {
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2},
}
OK = json_reply(ANSWER)


def chunk(text: str = "", finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish}]}


STREAM = sse_reply(chunk("one "), chunk("two"), chunk(finish="stop"))


def client(url: str, **options: Any) -> OpenAIChatCompletionClient:
    return OpenAIChatCompletionClient(**{"model": "m", "api_key": SECRET, "base_url": url, "max_retries": 0, **options})


async def said_by(stream: Any) -> tuple[list[str], CreateResult]:
    *texts, result = [item async for item in stream]
    return texts, result


class Waits:
    """A clock that only sleeping moves, and what was slept."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self._now = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)

    def now(self) -> datetime:
        return self._now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._now += timedelta(seconds=seconds)


# --- framing


def events_of(*data: bytes) -> list[tuple[str, str]]:
    decoder = EventDecoder()
    return [event for piece in data for event in decoder.feed(piece)] + decoder.finish()


def test_events_end_with_an_empty_line_whatever_ends_the_lines() -> None:
    for end in ("\n", "\r\n", "\r"):
        lines = ["event: a", "data: 1", "", ": comment", "id: 7", "", "data:2", "data: 3", "", "data", "", "data:  4"]

        got = events_of(end.join(lines).encode())

        assert got == [("a", "1"), ("", "2\n3"), ("", ""), ("", " 4")]


def test_only_line_feeds_and_carriage_returns_end_a_line() -> None:
    text = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg"

    assert events_of(f"data: {text}\n\n".encode()) == [("", text)]


def test_a_byte_order_mark_at_the_beginning_is_skipped() -> None:
    assert events_of(b"\xef", b"\xbb\xbfdata: 1\n\n") == [("", "1")]
    assert events_of(b"data: \xef\xbb\xbf1\n\n") == [("", "\ufeff1")]


def test_bytes_that_are_not_utf8_become_replacement_characters() -> None:
    assert events_of(b"data: a\xffb\xe2\x82\n\n") == [("", "a\ufffdb\ufffd")]


def test_an_event_that_grows_without_end_is_refused() -> None:
    for piece in (b"data: " + b"x" * 50, b"data: xxxxxxxx\n", b"x" * 50):
        decoder = EventDecoder(limit=1000)
        with pytest.raises(ResponseTooLarge):
            for _ in range(1000):
                decoder.feed(piece)


def test_a_first_line_that_is_no_field_is_remembered() -> None:
    decoder = EventDecoder()

    assert decoder.feed(b"<html>\ndata: 1\n\n") == [("", "1")]
    assert (decoder.stray, decoder.seen) == ("<html>", 1)


def test_json_lines_are_events_without_a_name() -> None:
    decoder = LineDecoder()

    assert decoder.feed(b'{"a": 1}\r\n\n{"b"') == [("", '{"a": 1}')]
    assert decoder.feed(b": 2}") + decoder.finish() == [("", '{"b": 2}')]


LINE = st.one_of(
    st.sampled_from(["", "", "data", "data:", ":", "event: x", "id: 1", "retry: 5", "junk"]),
    st.text(st.characters(blacklist_characters="\r\n", blacklist_categories=["Cs"]), max_size=8).map("data: {}".format),
)


@given(st.lists(st.tuples(LINE, st.sampled_from(["\n", "\r\n", "\r"])), max_size=12), st.lists(st.integers(0, 60)))
def test_a_stream_means_the_same_however_its_bytes_are_cut(lines: list[tuple[str, str]], cuts: list[int]) -> None:
    data = "".join(line + end for line, end in lines).encode()
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]

    assert events_of(*(data[a:b] for a, b in pairwise(edges))) == events_of(data)


# --- connections


async def test_a_connection_is_used_again_after_an_answer_and_after_a_stream() -> None:
    async with Loopback([OK, STREAM, OK]) as server, client(server.url) as model:
        await model.create(QUESTION)
        await said_by(model.create_stream(QUESTION))
        await model.create(QUESTION)

        assert [request.connection for request in server.requests] == [0, 0, 0]


async def test_calls_at_once_have_a_connection_each_and_leave_them_for_later() -> None:
    async with Loopback([json_reply(ANSWER, before=0.05)]) as server, client(server.url) as model:
        for _ in range(2):
            await asyncio.gather(*(model.create(QUESTION) for _ in range(20)))

        assert server.connections == 20


async def test_an_idle_connection_that_the_server_closed_is_replaced() -> None:
    hung_up = Reply(connect="close")
    async with Loopback([json_reply(ANSWER, end="cut"), OK, hung_up, OK]) as server, client(server.url) as model:
        await model.create(QUESTION)
        await server.deserted()
        await model.create(QUESTION)
        await model.create(QUESTION)  # the server hangs up just when this is sent: asked again, not counted

        assert [request.connection for request in server.requests] == [0, 1, 1, 2]


async def test_a_server_that_hangs_up_on_a_new_connection_is_a_failure() -> None:
    async with Loopback([Reply(connect="close")]) as server, client(server.url) as model:
        with pytest.raises(ConnectionFailed, match="hung up"):
            await model.create(QUESTION)

        assert len(server.requests) == 1


async def test_connections_that_are_idle_for_long_are_closed() -> None:
    async with Loopback([OK]) as server:
        lines = Lines(keep_alive=0.02)
        guard = Guard(asyncio.get_running_loop().time() + 5, 5, None)
        response = await lines.send(Request(server.url, {}, b"{}"), (1, 1), guard)
        assert json.loads(b"".join([piece async for piece in response.aiter_bytes()])) == ANSWER
        await response.aclose()

        assert await server.deserted()
        guard.release()


def test_one_client_serves_several_event_loops_and_leaves_no_socket_in_any() -> None:
    before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
    shared: list[OpenAIChatCompletionClient] = []

    async def run() -> None:
        async with Loopback([OK]) as server:
            model = client(server.url) if not shared else shared[0]
            model._url = f"{server.url}/chat/completions"
            shared.append(model)
            await asyncio.gather(*(model.create(QUESTION) for _ in range(3)))
            assert not await server.deserted(0.01)  # nobody closed the client: its connections wait for more

    asyncio.run(run())
    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    thread.join()
    asyncio.run(run())

    assert len(shared[0]._pools) == 1
    if before:
        assert len(os.listdir("/proc/self/fd")) == before


async def test_closing_a_client_ends_its_calls_and_it_can_be_used_again() -> None:
    async with Loopback([Reply(end="hang", raw=True), OK]) as server, client(server.url, max_retries=2) as model:
        waiting = asyncio.ensure_future(model.create(QUESTION))
        await server.arrived(1)
        await model.close()

        assert await server.deserted()
        with pytest.raises(ConnectionFailed, match="closed"):
            await waiting
        assert (await model.create(QUESTION)).content == "hi"


async def test_a_connection_does_not_keep_the_context_of_its_first_call() -> None:
    class Run: ...

    variable: ContextVar[Run] = ContextVar("variable")

    async def call(model: OpenAIChatCompletionClient) -> weakref.ref[Run]:
        run = Run()
        variable.set(run)
        await model.create(QUESTION)
        return weakref.ref(run)

    async with Loopback([OK]) as server, client(server.url) as model:
        left = await asyncio.ensure_future(call(model))
        await steps(2)  # until the loop has let go of that task
        gc.collect()

        assert len(server.open) == 1
        assert left() is None


# --- cancelling


def unserved(tasks: set[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    """The tasks without those in which a server's side of a connection begins."""
    return {task for task in tasks if not re.search("_accept_connection|_serve", str(task.get_coro()))}


async def steps(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("by_token", [False, True])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_can_be_cancelled_at_any_point(by_token: bool, stream: bool) -> None:
    before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
    reply = STREAM if stream else json_reply(ANSWER, framing="chunked")
    cancelled, others = 0, asyncio.all_tasks()
    for count in range(40):
        async with Loopback([reply]) as server, client(server.url) as model:
            token = CancellationToken()
            asked = (
                said_by(model.create_stream(QUESTION, cancellation_token=token))
                if stream
                else model.create(QUESTION, cancellation_token=token)
            )
            task = asyncio.ensure_future(asked)
            await steps(count)
            token.cancel() if by_token else task.cancel()
            await asyncio.wait({task})
            cancelled += task.cancelled()

            assert task.cancelled() or task.exception() is None
            assert unserved(asyncio.all_tasks() - server.tasks) == others
            await model.close()
            assert await server.deserted()

    assert cancelled >= 8
    if before:
        await steps(3)
        assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("stream", [False, True])
async def test_cancelling_closes_the_connection_at_once(stream: bool) -> None:
    reply = sse_reply(chunk("one "), done=False, end="hang") if stream else Reply(end="hang", raw=True)
    async with Loopback([reply]) as server, client(server.url) as model:
        token = CancellationToken()
        asked = (
            said_by(model.create_stream(QUESTION, cancellation_token=token))
            if stream
            else model.create(QUESTION, cancellation_token=token)
        )
        task = asyncio.ensure_future(asked)
        await server.arrived(1)
        threading.Thread(target=token.cancel).start()

        with pytest.raises(asyncio.CancelledError):
            await task
        assert await server.deserted()


async def test_a_token_that_is_cancelled_already_stops_the_call_before_it_begins() -> None:
    async with Loopback([OK]) as server, client(server.url) as model:
        token = CancellationToken()
        token.cancel()

        with pytest.raises(asyncio.CancelledError):
            await model.create(QUESTION, cancellation_token=token)
        assert server.connections == 0


async def test_a_token_that_is_cancelled_after_a_call_does_nothing() -> None:
    async with Loopback([OK]) as server, client(server.url) as model:
        token = CancellationToken()
        await model.create(QUESTION, cancellation_token=token)
        assert token._callbacks == {}
        token.cancel()
        await model.create(QUESTION)

        assert server.connections == 1


async def test_cancelling_ends_the_wait_before_another_attempt() -> None:
    async with Loopback([Reply(429, {"retry-after": "30"})]) as server, client(server.url, max_retries=2) as model:
        token = CancellationToken()
        task = asyncio.ensure_future(model.create(QUESTION, cancellation_token=token))
        await server.arrived(1)
        await steps(20)
        token.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_stream_that_is_left_early_closes_its_connection() -> None:
    reply = sse_reply(*(chunk(f"{n} ") for n in range(50)), done=False, end="hang")
    async with Loopback([reply]) as server, client(server.url) as model:
        stream = model.create_stream(QUESTION)
        assert await anext(stream) == "0 "
        await stream.aclose()

        assert await server.deserted()


async def test_a_stream_that_is_dropped_closes_its_connection() -> None:
    async with Loopback([sse_reply(chunk("one "), done=False, end="hang")]) as server, client(server.url) as model:
        async for _ in model.create_stream(QUESTION):
            break
        gc.collect()

        assert await server.deserted()


# --- retries


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
async def test_a_status_that_may_pass_is_tried_again(status: int) -> None:
    waits = Waits()
    async with Loopback([Reply(status), OK]) as server, client(server.url, max_retries=2, _waiting=waits) as model:
        assert (await model.create(QUESTION)).content == "hi"

    assert len(waits.slept) == 1
    assert server.requests[0].body == server.requests[1].body


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
async def test_a_status_that_will_not_pass_is_not_tried_again(status: int) -> None:
    async with Loopback([Reply(status), OK]) as server, client(server.url, max_retries=2) as model:
        with pytest.raises((AuthenticationError, RequestError)) as failed:
            await model.create(QUESTION)

    assert failed.value.status == status
    assert len(server.requests) == 1


async def test_waits_grow_and_differ_by_chance() -> None:
    waits = Waits()
    async with Loopback([Reply(500)]) as server, client(server.url, max_retries=6, _waiting=waits) as model:
        for seed in (1, 2):
            with pinned(seed), pytest.raises(ServerError, match="tried 7 times"):
                await model.create(QUESTION)

    first, second = waits.slept[:6], waits.slept[6:]
    assert first != second
    for wait, most in zip(first, [0.5, 1, 2, 4, 8, 8]):
        assert most / 5 <= wait <= most


@pytest.mark.parametrize(
    ("headers", "least"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "3", "retry-after-ms": "0"}, 3),
        ({"retry-after": "Thu, 01 Jan 2026 12:00:20 GMT"}, 20),
        ({"retry-after": "Thursday, 01-Jan-26 12:00:20 GMT"}, 20),
        ({"retry-after": "Thu Jan  1 12:00:20 2026"}, 20),
        ({"retry-after": "Thu, 01 Jan 2026 11:00:00 GMT"}, 0),
    ],
)
async def test_the_provider_says_how_long_to_wait(headers: dict[str, str], least: float) -> None:
    waits = Waits()
    async with (
        Loopback([Reply(503, headers), OK]) as server,
        client(server.url, max_retries=1, _waiting=waits) as model,
    ):
        await model.create(QUESTION)

    assert least <= waits.slept[0] <= 1.1 * least + 0.2


@pytest.mark.parametrize(("word", "status", "attempts"), [("true", 400, 2), ("false", 500, 1)])
async def test_the_provider_says_whether_to_try_again(word: str, status: int, attempts: int) -> None:
    reply = Reply(status, {"x-should-retry": word})
    async with Loopback([reply]) as server, client(server.url, max_retries=1, _waiting=Waits()) as model:
        with pytest.raises(ModelError):
            await model.create(QUESTION)

        assert len(server.requests) == attempts


async def test_a_wait_that_is_too_long_fails_at_once_and_says_when() -> None:
    async with Loopback([Reply(429, {"retry-after": "7200"})]) as server:
        async with client(server.url, max_retries=2, max_retry_wait=60, _waiting=Waits()) as model:
            with pytest.raises(RateLimitError, match="until 2026-01-01 14:00:00 UTC") as failed:
                await model.create(QUESTION)

    assert failed.value.retry_after == 7200
    assert len(server.requests) == 1


async def test_no_attempt_is_waited_for_beyond_the_deadline() -> None:
    async with Loopback([Reply(429, {"retry-after": "20"})]) as server:
        async with client(server.url, max_retries=2, timeout=10) as model:
            with pytest.raises(RateLimitError, match="deadline"):
                await model.create(QUESTION)


async def test_a_used_up_quota_is_not_tried_again() -> None:
    reply = json_reply({"error": {"message": "no money", "code": "insufficient_quota"}}, 429)
    async with Loopback([reply]) as server, client(server.url, max_retries=2) as model:
        with pytest.raises(RateLimitError, match="quota"):
            await model.create(QUESTION)

        assert len(server.requests) == 1


async def test_a_broken_stream_is_tried_again_only_before_its_first_text() -> None:
    role = {"choices": [{"index": 0, "delta": {"role": "assistant"}}]}
    early, late = (sse_reply(event, done=False, end="reset") for event in (role, chunk("one ")))
    late.steps = [*(late.steps or ()), (0.02, b"")]  # so that the text is read before the reset wipes it out
    async with Loopback([early, STREAM, late, STREAM]) as server:
        async with client(server.url, max_retries=1, _waiting=Waits()) as model:
            assert (await said_by(model.create_stream(QUESTION)))[0] == ["one ", "two"]
            with pytest.raises(ConnectionFailed) as failed:
                await said_by(model.create_stream(QUESTION))

    assert failed.value.partial == "one "
    assert len(server.requests) == 3


# --- ends


async def test_a_stream_that_ends_early_keeps_what_had_come() -> None:
    async with Loopback([sse_reply(chunk("one "), done=False)]) as server, client(server.url) as model:
        with pytest.raises(IncompleteResponse) as failed:
            await said_by(model.create_stream(QUESTION))

    error = failed.value
    assert (error.partial, error.provider, error.status) == ("one ", "127.0.0.1", 200)


async def test_silence_after_the_last_word_does_not_spoil_an_answer() -> None:
    reply = sse_reply(chunk("one"), chunk(finish="stop"), done=False, end="hang")
    async with Loopback([reply]) as server, client(server.url, read_timeout=0.1) as model:
        texts, result = await said_by(model.create_stream(QUESTION))

    assert (texts, result.content) == (["one"], "one")


async def test_a_server_that_does_not_stream_is_understood_all_the_same() -> None:
    async with Loopback([OK]) as server, client(server.url) as model:
        assert (await said_by(model.create_stream(QUESTION)))[0] == ["hi"]


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress])
async def test_an_answer_that_is_compressed_unasked_is_read(compress: Any) -> None:
    name = "gzip" if compress is gzip.compress else "deflate"
    data = compress(json.dumps(ANSWER).encode())
    replies = [
        Reply(headers={"content-encoding": name}, body=data),
        Reply(headers={"content-encoding": "br"}, body=data),
    ]
    async with Loopback(replies) as server, client(server.url) as model:
        assert (await model.create(QUESTION)).content == "hi"
        with pytest.raises(ProtocolError, match="'br'"):
            await model.create(QUESTION)

        assert server.requests[0].headers["accept-encoding"] == "identity"


async def test_an_answer_above_the_limit_is_refused_before_it_is_read() -> None:
    reply = Reply(headers={"content-length": "99000000"}, body=b"{", end="hang")
    async with Loopback([reply]) as server, client(server.url) as model:
        with pytest.raises(ResponseTooLarge, match="99,000,000"):
            await model.create(QUESTION)

        assert await server.deserted()


async def test_an_answer_without_end_is_refused_when_it_passes_the_limit() -> None:
    steps = [(0.0, b" " * 2**20)] * 80
    async with Loopback([Reply(steps=steps, framing="chunked")]) as server, client(server.url) as model:
        with pytest.raises(ResponseTooLarge, match="67,108,864"):
            await model.create(QUESTION)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_deadline_holds_however_busy_the_server_looks(stream: bool) -> None:
    reply = Reply(headers={"content-type": "text/event-stream"}, steps=[(0.02, b": busy\n\n")] * 60, framing="chunked")
    async with Loopback([reply]) as server, client(server.url, timeout=0.15, read_timeout=0.1) as model:
        with pytest.raises(ModelTimeout, match=r"0\.15 s"):
            await (said_by(model.create_stream(QUESTION)) if stream else model.create(QUESTION))

        assert await server.deserted()


async def test_a_large_request_is_sent_whole_and_its_early_refusal_is_heard() -> None:
    long = [UserMessage(content="x" * 3_000_000, source="user")]
    async with Loopback([OK, Reply(413)]) as server, client(server.url) as model:
        assert (await model.create(long)).content == "hi"
        with pytest.raises(RequestError):
            await model.create(long)

    assert len(server.requests[0].json["messages"][0]["content"]) == 3_000_000


async def test_a_redirect_is_not_followed() -> None:
    async with Loopback([OK]) as other, Loopback([Reply(307, {"location": other.url})]) as server:
        async with client(server.url) as model:
            with pytest.raises(RequestError, match="redirect"):
                await model.create(QUESTION)

        assert other.connections == 0


async def test_no_address_behind_a_name_is_a_connection_failure() -> None:
    with pytest.raises(ConnectionFailed):
        await client("http://nowhere.invalid/v1").create(QUESTION)


async def test_a_host_that_does_not_answer_is_given_up_after_the_connect_timeout() -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen(0)
        address = busy.getsockname()
        others = [socket.socket() for _ in range(4)]
        for each in others:  # until its backlog is full
            each.setblocking(False)
            each.connect_ex(address)
        with pytest.raises(ModelTimeout, match="connect"):
            await client(f"http://127.0.0.1:{address[1]}", connect_timeout=0.1).create(QUESTION)
        for each in others:
            each.close()


# --- TLS


async def test_a_certificate_that_cannot_be_verified_is_refused(tmp_path: Path) -> None:
    tls = untrusted_certificate(tmp_path)
    if tls is None:
        pytest.skip("no openssl to make a certificate")
    async with Loopback([OK], tls=tls) as server, client(server.url, max_retries=2, _waiting=Waits()) as model:
        with pytest.raises(ConnectionFailed, match="SSL_CERT_FILE"):
            await model.create(QUESTION)

        assert server.requests == []


CALL = """
import asyncio, sys
from tinygen.messages import UserMessage
from tinygen.models.openai import AzureOpenAIChatCompletionClient, OpenAIChatCompletionClient

async def main():
    model = OpenAIChatCompletionClient(model="m", api_key="sk-0123456789", base_url=sys.argv[1], max_retries=0)
    for _ in range(2):
        print((await model.create([UserMessage(content="hello", source="user")])).content)

asyncio.run(main())
"""


async def called(*arguments: str, **environment: str) -> str:
    """What CALL prints in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-W", "error", "-c", CALL, *arguments),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return (await process.communicate())[0].decode()


async def test_an_authority_of_ones_own_is_named_in_the_environment(tmp_path: Path) -> None:
    tls = untrusted_certificate(tmp_path)
    if tls is None:
        pytest.skip("no openssl to make a certificate")
    async with Loopback([OK], tls=tls) as server:
        printed = await called(server.url, SSL_CERT_FILE=str(tmp_path / "certificate.pem"))

    assert printed.split() == ["hi", "hi"]
    assert server.connections == 1


# --- other people's clients


async def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Loopback([OK, STREAM]) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
        monkeypatch.setenv("no_proxy", "")
        async with client("http://nowhere.invalid/v1") as model:
            assert (await model.create(QUESTION)).content == "hi"
            assert (await said_by(model.create_stream(QUESTION)))[0] == ["one ", "two"]

    assert proxy.requests[0].path == "http://nowhere.invalid/v1/chat/completions"


async def test_a_client_of_the_caller_is_used_and_not_closed() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["authorization"] == f"Bearer {SECRET}"
        assert request.headers["x-mine"] == "1"
        return httpx.Response(200, json=ANSWER)

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), headers={"x-mine": "1"}) as mine:
        async with client("https://models.example/v1", http_client=mine) as model:
            assert (await model.create(QUESTION)).content == "hi"

        assert not mine.is_closed


@pytest.mark.parametrize("stream", [False, True])
async def test_deadlines_and_tokens_hold_for_a_client_of_the_caller_too(stream: bool) -> None:
    reply = sse_reply(chunk("one "), done=False, end="hang") if stream else Reply(end="hang", raw=True)

    async def asked(**options: Any) -> None:
        token = options.pop("token", None)
        model = client(server.url, http_client=mine, **options)
        if stream:
            await said_by(model.create_stream(QUESTION, cancellation_token=token))
        else:
            await model.create(QUESTION, cancellation_token=token)

    async with Loopback([reply]) as server, httpx.AsyncClient() as mine:
        with pytest.raises(ModelTimeout, match=r"0\.1 s"):
            await asked(timeout=0.1, read_timeout=5)
        with pytest.raises(ModelTimeout, match="read_timeout"):
            await asked(read_timeout=0.1)
        token = CancellationToken()
        asyncio.get_running_loop().call_later(0.1, token.cancel)
        with pytest.raises(asyncio.CancelledError):
            await asked(token=token)


async def test_cancelling_ends_what_a_client_of_the_caller_does() -> None:
    async with Loopback([Reply(end="hang", raw=True)]) as server, httpx.AsyncClient() as mine:
        others = asyncio.all_tasks()
        task = asyncio.ensure_future(client(server.url, http_client=mine).create(QUESTION))
        await server.arrived(1)
        task.cancel()
        await asyncio.wait({task})

        assert task.cancelled()
        assert asyncio.all_tasks() - server.tasks == others
        assert await server.deserted()


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (httpx.ConnectError("refused"), ConnectionFailed),
        (httpx.ReadError("broke"), ConnectionFailed),
        (httpx.ConnectTimeout("slow"), ModelTimeout),
        (httpx.ReadTimeout("slow"), ModelTimeout),
        (httpx.PoolTimeout("full"), ModelTimeout),
        (httpx.RemoteProtocolError("gibberish"), ProtocolError),
        (httpx.DecodingError("not gzip"), ProtocolError),
        (httpx.UnsupportedProtocol("ftp"), RequestError),
        (httpx.TooManyRedirects("many"), ModelError),
        (OSError("no route"), ConnectionFailed),
    ],
)
async def test_what_the_http_library_raises_becomes_an_error_of_ours(raised: Exception, kind: type[ModelError]) -> None:
    def fail(_: httpx.Request) -> httpx.Response:
        raise raised

    async with httpx.AsyncClient(transport=httpx.MockTransport(fail)) as mine:
        with pytest.raises(kind) as failed:
            await client("https://models.example/v1", http_client=mine).create(QUESTION)

    assert type(failed.value).__module__.startswith("tinygen")


def test_without_httpx_the_error_says_what_to_install() -> None:
    code = "import sys; sys.modules['httpx'] = None; sys.modules['httpx2'] = None\n" + CALL
    command = [sys.executable, "-c", code, "http://127.0.0.1:9/v1"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    printed = subprocess.run(command, env=environment, capture_output=True, text=True).stderr

    assert "pip install httpx" in printed.splitlines()[-1]


# --- what is shown


async def test_no_secret_is_shown_anywhere(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    other = "proxy-secret-42"
    reply = json_reply({"error": {"message": f"bad key {SECRET} or {other}", "code": SECRET}}, 401)
    async with Loopback([reply]) as server:
        async with client(server.url, default_headers={"X-Proxy-Token": other}) as model:
            with pytest.raises(AuthenticationError, match=r"\*\*\*") as failed:
                await model.create(QUESTION)

    shown = "".join(traceback.format_exception(failed.value)) + repr(model) + caplog.text
    assert SECRET not in shown
    assert other not in shown
    assert server.requests[0].headers["x-proxy-token"] == other


async def test_a_key_that_no_header_takes_is_refused_without_being_shown() -> None:
    with pytest.raises(ValueError, match="api_key") as failed:
        client("http://127.0.0.1:9/v1", api_key="sk-läng\nlich")

    assert "sk-l" not in str(failed.value)


async def test_an_error_says_who_failed_and_how_to_ask_about_it() -> None:
    reply = json_reply({"error": {"message": "no such model", "code": "x"}}, 404, headers={"x-request-id": "req-7"})
    async with Loopback([reply]) as server, client(server.url) as model:
        with pytest.raises(RequestError, match=r"model 'm'.*no such model.*base_url") as failed:
            await model.create(QUESTION)

    assert (failed.value.status, failed.value.request_id, failed.value.provider) == (404, "req-7", "127.0.0.1")


async def test_tokens_of_all_calls_are_counted() -> None:
    used = {"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 20}}
    async with Loopback([OK, sse_reply(chunk("a"), chunk(finish="stop"), used)]) as server, client(server.url) as model:
        await model.create(QUESTION)
        await said_by(model.create_stream(QUESTION))

        assert model.total_usage() == model.actual_usage() == RequestUsage(13, 22)


@given(st.binary(max_size=200), st.booleans(), st.lists(st.integers(0, 200), max_size=5))
async def test_random_bytes_are_an_answer_or_an_error_of_ours(data: bytes, stream: bool, cuts: list[int]) -> None:
    steps = pieces(data, cuts=[cut for cut in cuts if cut < len(data)])
    headers = {"content-type": "text/event-stream" if stream else "application/json"}
    async with (
        Loopback([Reply(headers=headers, steps=steps, framing="chunked")]) as server,
        client(server.url) as model,
    ):
        with pytest.raises(ModelError):
            await (said_by(model.create_stream(QUESTION)) if stream else model.create(QUESTION))


# --- what a hostile or careless server does


def raw(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    head = "".join(f"{line}\r\n" for line in (*headers, f"content-length: {len(body)}"))
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body


async def test_an_answer_that_nobody_asked_for_is_not_given_to_the_next_request() -> None:
    surplus = Reply(body=raw(OK.body) + raw(OK.body.replace(b"hi", b"INJECTED")), raw=True)
    async with Loopback([surplus, OK]) as server, client(server.url) as model:
        said = [(await model.create(QUESTION)).content for _ in range(2)]

    assert said == ["hi", "hi"]
    assert server.connections == 2


async def test_an_answer_is_heard_while_the_request_is_stuck() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw(b"too large", status="413 No"))
        await over.wait()
        writer.close()

    over = asyncio.Event()
    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=2**16)
    port = server.sockets[0].getsockname()[1]
    async with client(f"http://127.0.0.1:{port}/v1", timeout=10) as model:
        with pytest.raises(RequestError, match="too large"):
            await model.create([UserMessage(content="x" * 20_000_000, source="user")])
        over.set()
    server.close()


async def failure_of(reply: Reply, **options: Any) -> ModelError:
    async with Loopback([reply]) as server, client(options.pop("url", "{}").format(server.url), **options) as model:
        with pytest.raises(ModelError) as failed:
            _ = [item async for item in model.create_stream(QUESTION)]
    return failed.value


@pytest.mark.parametrize("length", [180, 190, 1490, 1495, 1990])
@pytest.mark.parametrize("status", [200, 401])
async def test_no_part_of_the_key_is_left_where_a_text_is_cut(length: int, status: int) -> None:
    text = "x" * length + SECRET
    for reply in (Reply(status, body=text.encode()), sse_reply(f"data: {text}\n\n"), json_reply({"error": text})):
        shown = str(await failure_of(reply))

        assert SECRET[:6] not in shown and len(shown) < 2100


@pytest.mark.parametrize("key", ["abcd", "abc12"])
async def test_a_short_key_is_not_shown_either(key: str) -> None:
    assert key not in str(await failure_of(Reply(401, body=f"bad key {key}".encode()), api_key=key))


async def test_what_is_secret_in_the_address_is_not_shown() -> None:
    error = await failure_of(json_reply({"error": "no hunter2 or s3cr3t"}, 404), url="{}?key=s3cr3t")
    assert "s3cr3t" not in str(error)

    request = Request("http://me:hunter2@h/v1?key=s3cr3t&api-version=2024-06-01", {}, b"")
    assert request.secrets() == ["hunter2", "s3cr3t"]


async def test_half_surrogate_pairs_do_not_get_into_errors() -> None:
    data = {"error": {"message": "\ud800 bad", "code": "\udfff"}}
    for reply in (json_reply(data, 400), sse_reply(data), json_reply(data)):
        assert " bad" in str(await failure_of(reply)).encode().decode()


async def test_an_endless_error_is_cut_to_a_readable_length() -> None:
    assert len(str(await failure_of(sse_reply({"error": {"message": "x" * 3_000_000}})))) < 2100


@pytest.mark.parametrize(
    "data",
    [
        [{"error": {"type": "insufficient_quota", "message": "q"}}],
        {"error": {"type": "insufficient_quota", "code": "billing", "message": "q"}},
        {"error": {"status": "insufficient_quota", "code": 429, "message": "q"}},
    ],
)
async def test_a_quota_that_is_used_up_is_recognised_wherever_it_is_said(data: Any) -> None:
    async with Loopback([json_reply(data, 429)]) as server, client(server.url, max_retries=2) as model:
        with pytest.raises(RateLimitError, match=r"quota of this account.*: q"):
            await model.create(QUESTION)

    assert len(server.requests) == 1


RAW = zlib.compressobj(wbits=-15)


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("gzip, identity", gzip.compress(OK.body)),
        ("", OK.body),
        ("identity,", OK.body),
        ("deflate", RAW.compress(OK.body) + RAW.flush()),
    ],
)
async def test_every_common_way_to_name_an_encoding_is_understood(encoding: str, data: bytes) -> None:
    reply = Reply(headers={**OK.headers, "content-encoding": encoding}, body=data)
    async with Loopback([reply]) as server, client(server.url) as model:
        assert (await model.create(QUESTION)).content == "hi"


@pytest.mark.parametrize("missing", [4, 12])
async def test_an_encoded_answer_that_breaks_off_is_an_error(missing: int) -> None:
    reply = Reply(headers={**OK.headers, "content-encoding": "gzip"}, body=gzip.compress(OK.body)[:-missing])

    assert (await failure_of(reply)).category == "connection"


@pytest.mark.parametrize("status", [300, 304])
async def test_a_status_without_an_address_is_no_redirect(status: int) -> None:
    assert "redirect" not in str(await failure_of(Reply(body=raw(b"", status=f"{status} X"), raw=True)))


async def test_a_wait_that_no_server_writes_so_is_not_read() -> None:
    waits = Waits()
    async with Loopback([Reply(429, {"retry-after": "1_0"}), OK]) as server:
        async with client(server.url, max_retries=1, _waiting=waits) as model:
            await model.create(QUESTION)

    assert waits.slept[0] < 1


def test_empty_lines_of_data_count_too() -> None:
    for line in (b"data:\n", b"data\n"):
        decoder = EventDecoder(limit=100)
        with pytest.raises(ResponseTooLarge):
            decoder.feed(line * 200)


# --- where an error came from


@pytest.mark.parametrize(
    ("reply", "options", "kind"),
    [
        (Reply(connect="reset"), {}, ConnectionFailed),
        (Reply(connect="close"), {}, ConnectionFailed),
        (Reply(end="hang", framing="chunked"), {"timeout": 0.05}, ModelTimeout),
        (Reply(end="hang", framing="chunked"), {"read_timeout": 0.05}, ModelTimeout),
        (sse_reply(chunk("half"), done=False), {}, IncompleteResponse),
        (json_reply([]), {}, ProtocolError),
        (json_reply({}, 503), {}, ServerError),
    ],
)
async def test_every_error_names_the_model_and_the_server_with_its_port(
    reply: Reply, options: dict[str, Any], kind: type[ModelError]
) -> None:
    async with Loopback([reply]) as server:
        with pytest.raises(kind) as failed:
            await client(server.url, model="ada-9", **options).create(QUESTION)

    assert f"model 'ada-9' at {server.url.split('/')[2]}: " in str(failed.value)
    assert str(failed.value).count("ada-9") == 1


async def test_a_server_that_is_not_there_is_named_with_what_to_check() -> None:
    async with Loopback([]) as server:
        address = server.url
    with pytest.raises(ConnectionFailed, match=r"model 'm' at 127\.0\.0\.1:\d+: .*Check base_url") as failed:
        await client(address, max_retries=1).create(QUESTION)

    assert str(failed.value).endswith("(tried 2 times)")


async def test_a_server_without_tls_is_told_from_one_that_is_not_there() -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    address = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    with pytest.raises(ConnectionFailed, match="If it speaks plain HTTP, its base_url begins with http://"):
        await client(address).create(QUESTION)
    server.close()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_web_page_in_the_place_of_an_answer_leads_to_the_address(stream: bool) -> None:
    page = Reply(200, {"content-type": "text/html"}, b"<!doctype html><title>Welcome</title>")
    async with Loopback([page]) as server:
        model = client(server.url)
        with pytest.raises(ProtocolError, match=r"Welcome.*check base_url"):
            await (said_by(model.create_stream(QUESTION)) if stream else model.create(QUESTION))


async def test_a_token_that_does_not_come_in_time_is_missing_at_a_server() -> None:
    async def never() -> str:
        await asyncio.Event().wait()
        raise AssertionError

    model = AzureOpenAIChatCompletionClient(
        model="m", azure_endpoint="http://localhost:9", azure_ad_token_provider=never, timeout=0.05
    )
    with pytest.raises(ModelTimeout, match=r"^model 'm' at localhost:9: ") as failed:
        await model.create(QUESTION)

    assert failed.value.provider == "azure"
