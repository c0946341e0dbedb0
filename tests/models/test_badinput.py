"""What a hostile or broken provider may send: every case ends as its collection says, through a real connection."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import traceback
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from loopback import Loopback, Reply, pieces, untrusted_certificate
from shared_data import needs_shared, shared
from tinygen.cancellation import CancellationToken
from tinygen.errors import ModelError
from tinygen.messages import CreateResult, UserMessage
from tinygen.models.openai import OpenAIChatCompletionClient

FAST = 0.4  # how much faster than written the cases about time run
QUESTION = [UserMessage(content="hello", source="user")]


def cases(name: str, *kinds: str) -> list[Any]:
    path = shared(f"badinput/{name}.jsonl")
    if path is None:
        return [pytest.param({}, id="absent", marks=needs_shared(f"badinput/{name}.jsonl"))]
    with path.open(encoding="utf-8") as lines:
        found = [json.loads(line) for line in lines]
    return [pytest.param(case, id=case["id"]) for case in found if case["kind"] in kinds]


def data_of(given: dict[str, Any]) -> bytes:
    if given["encoding"] == "base64":
        return base64.b64decode(given["data"])
    if given["encoding"] == "repeat":
        return "".join(text * count for text, count in given["parts"]).encode()
    return given["data"].encode()


class FakeTime:
    """A clock that only sleeping moves."""

    def __init__(self, now: float, server: Loopback | None = None) -> None:
        self.waits: list[float] = []
        self._now = datetime.fromtimestamp(now, timezone.utc)
        self._server = server

    def now(self) -> datetime:
        return self._now

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self._now += timedelta(seconds=seconds)
        if self._server:
            await self._server.listen()


def client_for(url: str, limits: dict[str, Any], scale: float = 1.0, **more: Any) -> OpenAIChatCompletionClient:
    names = {"max_retries": "max_retries", "max_wait_s": "max_retry_wait", "secret": "api_key"}
    more.update({name: limits[key] for key, name in names.items() if key in limits})
    if "read_timeout_s" in limits:
        more["read_timeout"] = limits["read_timeout_s"] * scale
    if "total_timeout_s" in limits:
        more["timeout"] = limits["total_timeout_s"] * scale
    more.setdefault("api_key", "sk-test-0123456789")
    return OpenAIChatCompletionClient(model="m-dev", base_url=url, **more)


async def outcome(
    client: OpenAIChatCompletionClient, stream: bool, token: CancellationToken | None = None
) -> CreateResult | BaseException:
    try:
        async with client:
            if not stream:
                return await client.create(QUESTION, cancellation_token=token)
            said = [item async for item in client.create_stream(QUESTION, cancellation_token=token)]
    except (ModelError, asyncio.CancelledError) as error:
        return error
    *texts, result = said
    assert isinstance(result, CreateResult)
    if isinstance(result.content, str):
        assert "".join(texts) == result.content
    return result


def check(case: dict[str, Any], got: CreateResult | BaseException) -> None:
    """Compare an outcome with what the case expects."""
    expected, result = case["expect"], case["result"]
    if isinstance(got, CreateResult):
        json.dumps(got.dump()).encode()
        assert expected in ("ok", "error_or_ok") or "accept_ok_if" in case, f"should have failed, but gave {got!r:.300}"
        rule = case["accept_ok_if"] if expected == "error" else result.get("ok", result)
        check_answer(rule if isinstance(rule, dict) else {}, got)
        return
    category = "cancelled" if isinstance(got, asyncio.CancelledError) else got.category  # type: ignore[attr-defined]
    assert expected != "ok", f"should have succeeded, but raised {got!r:.300}"
    accepted = case.get("accept_category") or result.get("accept_category") or [result["category"]]
    assert category in accepted, f"{got!r:.300}"
    if "partial_content" in result:
        assert got.partial.startswith(result["partial_content"])  # type: ignore[attr-defined]


def check_answer(rule: dict[str, Any], got: CreateResult) -> None:
    calls = [] if isinstance(got.content, str) else got.content
    text = got.content if isinstance(got.content, str) else got.thought or ""
    if "content" in rule:
        assert text == rule["content"]
    assert rule.get("content_contains", "") in text
    if "content_any_of" in rule:
        assert text in [each for each in rule["content_any_of"] if not each.startswith("<")]
    if "tool_calls" in rule:
        assert [(call.id, call.name, call.arguments) for call in calls] == [
            tuple(c.values()) for c in rule["tool_calls"]
        ]
    if "calls" in rule:
        wanted = [(name, json.loads(arguments)) for name, arguments in rule["calls"]]
        assert [(call.name, json.loads(call.arguments)) for call in calls] == wanted
    assert len({call.id for call in calls} - {""}) == len(calls)
    if "finish_reason" in rule:
        assert got.finish_reason == ("function_calls" if calls else rule["finish_reason"])
    if "usage" in rule:
        assert got.usage.dump() == rule["usage"]


@pytest.mark.parametrize("framing", ["chunked", "close"])
@pytest.mark.parametrize("case", cases("sse", "sse"))
async def test_every_stream_ends_as_expected(case: dict[str, Any], framing: str) -> None:
    given = case["input"]
    steps = pieces(data_of(given), chunk_bytes=given.get("chunk_bytes", 0), cuts=given.get("cuts", ()))
    end = case.get("end") or given.get("end") or "clean"
    headers = {"content-type": "text/event-stream", **case.get("headers", {})}
    async with Loopback([Reply(headers=headers, steps=steps, framing=framing, end=end)]) as server:
        client = client_for(server.url, case.get("client", {"max_retries": 0}))

        check(case, await outcome(client, stream=True))

        assert await server.deserted()


@pytest.mark.parametrize("case", cases("body", "body"))
async def test_every_whole_body_ends_as_expected(case: dict[str, Any]) -> None:
    headers = {"content-type": "application/json", **case.get("headers", {})}
    data = data_of(case["input"])
    end = "cut" if int(headers.get("content-length", len(data))) > len(data) else "clean"
    async with Loopback([Reply(headers=headers, body=data, end=end)]) as server:
        client = client_for(server.url, case.get("client", {"max_retries": 0}))

        check(case, await outcome(client, stream=False))


@pytest.mark.parametrize("case", cases("timing", "timing"))
async def test_every_wait_has_an_end(case: dict[str, Any]) -> None:
    given, limits = case["input"], case["client"]
    steps = [(delay / 1000 * FAST, text.encode()) for delay, text in given["steps"]]
    raw = case["result"].get("raw", False)
    stalled = not steps and given["end"] == "hang"
    headers = {"content-type": "text/event-stream"}
    end = {"close": "clean"}.get(given["end"], given["end"])
    reply = Reply(headers=headers, steps=steps, framing="chunked", end=end, raw=raw or stalled)
    async with Loopback([reply]) as server:
        token = CancellationToken() if "cancel_after_s" in limits else None
        if token:
            asyncio.get_running_loop().call_later(limits["cancel_after_s"], token.cancel)

        got = await outcome(client_for(server.url, {"max_retries": 0, **limits}, FAST), True, token)

        check(case, got)
        if "status" in case["result"]:
            assert got.status == case["result"]["status"]  # type: ignore[union-attr]
        assert await server.deserted()


@pytest.mark.parametrize("case", cases("retry", "retry"))
async def test_every_failure_is_tried_again_as_expected(
    case: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    limits, expected = case["client"], case["result"]
    replies = [retry_reply(each) for each in case["input"]["responses"]]
    tls = None
    if any(reply.connect == "tls_cert_invalid" for reply in replies):
        tls = untrusted_certificate(tmp_path)
        if tls is None:
            pytest.skip("no openssl to make a certificate")
    async with Loopback(replies, tls=tls) as server:
        time = FakeTime(case["input"]["now"], server)
        url = "http://nowhere.invalid/v1" if replies[0].connect == "dns_failure" else server.url

        got = await outcome(client_for(url, limits, _waiting=time), limits.get("stream", False))

        check(case, got)
        assert len(time.waits) + 1 == expected["attempts"]
        for wait, (least, most) in zip(time.waits, expected["waits_s"], strict=True):
            assert least <= wait <= most
        if isinstance(got, ModelError):
            shown = "".join(traceback.format_exception(got)) + repr(got) + caplog.text
            assert client_for(url, limits)._headers["authorization"].split()[1] not in shown


def retry_reply(given: dict[str, Any]) -> Reply:
    if "connect" in given:
        return Reply(connect=given["connect"])
    end = given.get("end", "clean")
    body = given["body"].encode()
    return Reply(given["status"], given["headers"], body, framing="chunked" if end == "reset" else "length", end=end)


@pytest.mark.parametrize("case", cases("retry", "raw_http"))
@pytest.mark.parametrize("stream", [False, True])
async def test_a_peer_that_does_not_speak_http_is_reported(case: dict[str, Any], stream: bool) -> None:
    async with Loopback([Reply(body=data_of(case["input"]), raw=True)]) as server:
        check(case, await outcome(client_for(server.url, {"max_retries": 0}), stream))
