"""What a model call costs beside a bare httpx call with the same bytes; the server runs in a process of its own.

python benchmarks/models.py
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

CHUNKS = 2_000
HISTORY = 2_000
SLOW = 0.05  # seconds that the slow answer takes


# --- the server


def _chunk(text: str | None, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text} if text else {}, "logprobs": None, "finish_reason": finish}
    data = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    event = b"data: " + json.dumps(data).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(event), event)


ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello " * 20}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 20, "total_tokens": 25},
    }
).encode()
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER)
STREAM = [_chunk(f"word{n} ") for n in range(CHUNKS)] + [_chunk(None, "stop")]
EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
DONE = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


class _Server(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._data = b""

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, blank, body = self._data.partition(b"\r\n\r\n")
        if blank:
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            if len(body) >= length:
                self._data = body[length:]
                self._answer(head.split(b" ", 2)[1])

    def _answer(self, path: bytes) -> None:
        if path.startswith(b"/slow"):
            asyncio.get_running_loop().call_later(SLOW, self._transport.write, WHOLE)
        elif path.startswith(b"/stream"):
            self._transport.write(EVENTS)
            for chunk in STREAM:
                self._transport.write(chunk)
            self._transport.write(DONE)
        else:
            self._transport.write(WHOLE)


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Server, "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


class _Child:
    """The server's process, started when it is first needed."""

    _process: subprocess.Popen[str] | None = None

    def url(self, kind: str) -> str:
        if self._process is None:
            command = [sys.executable, __file__, "serve"]
            _Child._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            assert self._process is not None and self._process.stdout is not None
            _Child.port = int(self._process.stdout.readline())
        return f"http://127.0.0.1:{self.port}/{kind}"

    port = 0

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            _Child._process = None


server = _Child()


# --- what is measured


def _history(count: int) -> list[Any]:
    from tinygen.messages import AssistantMessage, UserMessage

    text = "What was said in this turn of the conversation, at some length. " * 2
    return [
        UserMessage(content=f"{n} {text}", source="user")
        if n % 2 == 0
        else AssistantMessage(content=f"{n} {text}", source="assistant")
        for n in range(count)
    ]


def _client(kind: str) -> Any:
    from tinygen.models.openai import OpenAIChatCompletionClient

    return OpenAIChatCompletionClient(model="m", api_key="sk-0123456789", base_url=server.url(kind))


def _cpu(times: int, action: Callable[[], Awaitable[Any]]) -> Awaitable[float]:
    """CPU seconds of one action, the best of some tries, after one to warm up."""

    async def measure() -> float:
        await action()
        best = float("inf")
        for _ in range(5):
            start = time.process_time()
            for _ in range(times):
                await action()
            best = min(best, (time.process_time() - start) / times)
        return best

    return measure()


def _bare(kind: str, body: bytes, times: int, stream: bool = False, parse: bool = True) -> float:
    import httpx

    url = server.url(kind) + "/chat/completions"
    headers = {"content-type": "application/json", "authorization": "Bearer sk-0123456789"}

    async def run() -> float:
        async with httpx.AsyncClient() as client:

            async def whole() -> None:
                response = await client.post(url, content=body, headers=headers)
                assert json.loads(response.content)["choices"][0]["message"]["content"]

            async def events() -> None:
                said = []
                async with client.stream("POST", url, content=body, headers=headers) as response:
                    async for line in response.aiter_lines() if parse else response.aiter_raw():
                        if parse and line.startswith("data: {"):
                            said.append(json.loads(line[6:])["choices"][0]["delta"].get("content"))
                assert len(said) == (CHUNKS + 1 if parse else 0)

            return await _cpu(times, events if stream else whole)

    return asyncio.run(run())


def _ours(kind: str, messages: list[Any], times: int, stream: bool = False) -> float:
    from tinygen.cancellation import CancellationToken

    token = CancellationToken()  # as agents give one

    async def run() -> float:
        async with _client(kind) as client:

            async def whole() -> None:
                assert (await client.create(messages, cancellation_token=token)).content

            async def events() -> None:
                count = 0
                async for _ in client.create_stream(messages, cancellation_token=token):
                    count += 1
                assert count == CHUNKS + 1

            return await _cpu(times, events if stream else whole)

    return asyncio.run(run())


def _at_once(count: int) -> float:
    """Wall seconds of so many calls of 50 ms, begun together."""

    async def run() -> float:
        async with _client("slow") as client:
            question = _history(1)
            await client.create(question)
            start = time.perf_counter()
            await asyncio.gather(*(client.create(question) for _ in range(count)))
            return time.perf_counter() - start

    return min(asyncio.run(run()) for _ in range(3))


def _bare_at_once(count: int) -> float:
    """The same with bare connections, which know nothing of HTTP: what the machine and the server take."""
    url, body = server.url("slow"), _body(_history(1))
    path = "/" + url.split("/", 3)[3] + "/chat/completions"
    sent = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body

    async def call() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(sent)
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(length)
        writer.close()

    async def run() -> float:
        start = time.perf_counter()
        await asyncio.gather(*(call() for _ in range(count)))
        return time.perf_counter() - start

    return min(asyncio.run(run()) for _ in range(3))


def _body(messages: list[Any]) -> bytes:
    from tinygen.models.openai import encode_message

    texts = ",".join(encode_message(message) for message in messages)
    return f'{{"model":"m","messages":[{texts}]}}'.encode()


def workloads() -> list[tuple[str, Callable[[], float], Callable[[], float]]]:
    """(name, seconds of the floor, seconds of ours); CPU seconds but for the calls side by side, which are wall."""
    one, long = _history(1), _history(HISTORY)
    return [
        ("one request", lambda: _bare("whole", _body(one), 100), lambda: _ours("whole", one, 100)),
        (f"history of {HISTORY}", lambda: _bare("whole", _body(long), 20), lambda: _ours("whole", long, 20)),
        (f"stream of {CHUNKS}", lambda: _bare("stream", _body(one), 3, True), lambda: _ours("stream", one, 3, True)),
        ("100 at once, bare connections", lambda: SLOW, lambda: _bare_at_once(100)),
        ("100 calls at once", lambda: SLOW, lambda: _at_once(100)),
        ("1,000 at once, bare connections", lambda: SLOW, lambda: _bare_at_once(1_000)),
        ("1,000 calls at once", lambda: SLOW, lambda: _at_once(1_000)),
    ]


def run(report: Callable[[str, float, float], None]) -> None:
    """Measure everything and report (name, floor, ours)."""
    try:
        for name, floor, ours in workloads():
            report(name, floor(), ours())
    finally:
        server.stop()


def main() -> None:
    if sys.argv[1:] == ["serve"]:
        asyncio.run(_serve())
    else:
        run(
            lambda name, floor, ours: print(
                f"{name:22} {floor * 1e6:10.0f} us {ours * 1e6:10.0f} us {ours / floor:6.2f}x"
            )
        )


if __name__ == "__main__":
    main()
