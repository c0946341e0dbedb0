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
from dataclasses import dataclass
from importlib import import_module
from typing import Any

CHUNKS = 2_000
FEW = 8  # pieces of a short stream
HISTORY = 2_000
SLOW = 0.05  # seconds that the slow answer takes


# --- the server


@dataclass
class Wire:
    """One wire format: how the server says a text in it, and how a bare client finds the text again."""

    module: str
    client: str
    path: str
    data: Callable[[str | None, bool], Any]  # of a text, and whether it is the last
    text: Callable[[Any], str | None]
    prefix: bytes = b"data: "
    stream: str = "text/event-stream"
    end: bytes = b""

    def whole(self) -> bytes:
        body = json.dumps(self.data("hello " * 20, True)).encode()
        return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)

    def chunks(self, count: int = CHUNKS) -> list[bytes]:
        data = [self.data(f"word{n} ", False) for n in range(count)] + [self.data(None, True)]
        events = [self.prefix + json.dumps(each).encode() + b"\n\n" for each in data] + [self.end]
        head = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n\r\n" % self.stream.encode()
        return [head, *(b"%x\r\n%b\r\n" % (len(event), event) for event in events if event), b"0\r\n\r\n"]


def _openai(text: str | None, last: bool) -> Any:
    message = {"role": "assistant", "content": text} if text else {}
    choice = {"index": 0, "message": message, "delta": message, "logprobs": None}
    usage = {"usage": {"prompt_tokens": 5, "completion_tokens": 20, "total_tokens": 25}} if last else {}
    end = {"finish_reason": "stop" if last else None}
    return {
        "id": "c-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{**choice, **end}],
        **usage,
    }


def _gemini(text: str | None, last: bool) -> Any:
    content = {"parts": [{"text": text or ""}], "role": "model"}
    usage = {"promptTokenCount": 5, "candidatesTokenCount": 20, "totalTokenCount": 25}
    candidate = {"content": content, "index": 0, **({"finishReason": "STOP"} if last else {})}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "m", "responseId": "r-1"}


def _ollama(text: str | None, last: bool) -> Any:
    message = {"role": "assistant", "content": text or ""}
    end = {"done_reason": "stop", "prompt_eval_count": 5, "eval_count": 20} if last else {}
    return {"model": "m", "created_at": "2025-01-01T00:00:00.000000Z", "message": message, "done": last, **end}


def _anthropic(text: str | None, last: bool) -> Any:
    if text and not last:
        return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    usage = {"input_tokens": 5, "output_tokens": 20}
    if not text:
        return {"type": "message_delta", "delta": end, "usage": usage}
    return {"id": "c-1", "type": "message", "content": [{"type": "text", "text": text}], **end, "usage": usage}


def _responses(text: str | None, last: bool) -> Any:
    if text and not last:
        return {"type": "response.output_text.delta", "item_id": "i-1", "output_index": 0, "delta": text}
    item = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text or ""}]}
    usage = {"input_tokens": 5, "output_tokens": 20, "total_tokens": 25}
    response = {"id": "r-1", "object": "response", "status": "completed", "output": [item], "usage": usage}
    return response if text else {"type": "response.completed", "response": response}


WIRES = {
    "openai": Wire(
        *("openai", "OpenAIChatCompletionClient", "/chat/completions"),
        data=_openai,
        text=lambda data: data["choices"][0]["delta"].get("content"),
        end=b"data: [DONE]\n\n",
    ),
    "responses": Wire(
        *("responses", "OpenAIResponsesClient", "/responses"),
        data=_responses,
        text=lambda data: data["output"][0]["content"][0]["text"] if "output" in data else data.get("delta"),
    ),
    "anthropic": Wire(
        *("anthropic", "AnthropicChatCompletionClient", "/v1/messages"),
        data=_anthropic,
        text=lambda data: data["content"][0]["text"] if "content" in data else data["delta"].get("text"),
    ),
    "gemini": Wire(
        *("gemini", "GeminiChatCompletionClient", "/models/m:generateContent"),
        data=_gemini,
        text=lambda data: data["candidates"][0]["content"]["parts"][0]["text"],
    ),
    "ollama": Wire(
        *("ollama", "OllamaChatCompletionClient", "/api/chat"),
        data=_ollama,
        text=lambda data: data["message"]["content"],
        prefix=b"",
        stream="application/x-ndjson",
    ),
}
ANSWERS = {(name, kind): [wire.whole()] for name, wire in WIRES.items() for kind in ("whole", "slow")}
ANSWERS |= {(name, "stream"): wire.chunks() for name, wire in WIRES.items()}
ANSWERS |= {(name, "short"): wire.chunks(FEW) for name, wire in WIRES.items()}


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
        _, name, kind, *_ = path.decode().split("/")
        if kind == "slow":
            asyncio.get_running_loop().call_later(SLOW, self._transport.write, *ANSWERS[name, kind])
            return
        for piece in ANSWERS[name, kind]:
            self._transport.write(piece)


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Server, "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


class _Child:
    """The server's process, started when it is first needed."""

    _process: subprocess.Popen[str] | None = None

    def url(self, kind: str, wire: str = "openai") -> str:
        if self._process is None:
            command = [sys.executable, __file__, "serve"]
            _Child._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            assert self._process is not None and self._process.stdout is not None
            _Child.port = int(self._process.stdout.readline())
        return f"http://127.0.0.1:{self.port}/{wire}/{kind}"

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


def _client(kind: str, wire: str = "openai") -> Any:
    module = import_module(f"tinygen.models.{WIRES[wire].module}")
    key = {} if wire == "ollama" else {"api_key": "sk-0123456789"}
    return getattr(module, WIRES[wire].client)(model="m", base_url=server.url(kind, wire), **key)


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


def _bare(kind: str, body: bytes, times: int, stream: bool = False, name: str = "openai") -> float:
    import httpx

    wire = WIRES[name]
    url, prefix = server.url(kind, name) + wire.path, wire.prefix.decode() + "{"
    headers = {"content-type": "application/json", "authorization": "Bearer sk-0123456789"}

    async def run() -> float:
        async with httpx.AsyncClient() as client:

            async def whole() -> None:
                response = await client.post(url, content=body, headers=headers)
                assert wire.text(json.loads(response.content))

            async def events() -> None:
                said = []
                async with client.stream("POST", url, content=body, headers=headers) as response:
                    async for line in response.aiter_lines():
                        if line.startswith(prefix):
                            said.append(wire.text(json.loads(line[len(prefix) - 1 :])))
                assert len(said) == CHUNKS + 1

            return await _cpu(times, events if stream else whole)

    return asyncio.run(run())


def _ours(kind: str, messages: list[Any], times: int, stream: bool = False, name: str = "openai") -> float:
    from tinygen.cancellation import CancellationToken

    token = CancellationToken()  # as agents give one

    async def run() -> float:
        async with _client(kind, name) as client:

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
    from tinygen.models.chat import encode_message

    texts = ",".join(encode_message(message) for message in messages)
    return f'{{"model":"m","messages":[{texts}]}}'.encode()


def workloads() -> list[tuple[str, Callable[[], float], Callable[[], float]]]:
    """(name, seconds of the floor, seconds of ours); CPU seconds but for the calls side by side, which are wall."""
    one, long = _history(1), _history(HISTORY)
    return [
        ("one request", lambda: _bare("whole", _body(one), 100), lambda: _ours("whole", one, 100)),
        (f"history of {HISTORY}", lambda: _bare("whole", _body(long), 20), lambda: _ours("whole", long, 20)),
        (f"stream of {CHUNKS}", lambda: _bare("stream", _body(one), 3, True), lambda: _ours("stream", one, 3, True)),
        *(each for name in WIRES if name != "openai" for each in _of_format(name)),
        ("100 at once, bare connections", lambda: SLOW, lambda: _bare_at_once(100)),
        ("100 calls at once", lambda: SLOW, lambda: _at_once(100)),
        ("1,000 at once, bare connections", lambda: SLOW, lambda: _bare_at_once(1_000)),
        ("1,000 calls at once", lambda: SLOW, lambda: _at_once(1_000)),
    ]


def _of_format(name: str) -> list[tuple[str, Callable[[], float], Callable[[], float]]]:
    """The same with another wire format; what is sent does not matter to the floor, but its size does."""
    one, long = _history(1), _history(HISTORY)
    works = [("one request", "whole", one, 100, False), (f"history of {HISTORY}", "whole", long, 20, False)]
    return [
        (
            f"{name}: {what}",
            lambda kind=kind, talk=talk, times=times, stream=stream: _bare(kind, _body(talk), times, stream, name),
            lambda kind=kind, talk=talk, times=times, stream=stream: _ours(kind, talk, times, stream, name),
        )
        for what, kind, talk, times, stream in [*works, (f"stream of {CHUNKS}", "stream", one, 3, True)]
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
                f"{name:31} {floor * 1e6:10.0f} us {ours * 1e6:10.0f} us {ours / floor:6.2f}x"
            )
        )


if __name__ == "__main__":
    main()
