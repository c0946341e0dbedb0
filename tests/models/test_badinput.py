"""What a hostile or broken provider may send, in every wire format: each case ends as its collection says.

The cases are written in the words of OpenAI's chat protocol; `formats.py` says them in those of the others.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import traceback
from collections.abc import Collection
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from formats import FORMATS, KEY, Untold
from loopback import Loopback, Reply, pieces, untrusted_certificate
from shared_data import needs_shared, shared
from tinygen.cancellation import CancellationToken
from tinygen.errors import ModelError
from tinygen.messages import CreateResult, UserMessage

FAST = 0.25  # how much faster than written the cases about time run
QUESTION = [UserMessage(content="hello", source="user")]


# where formats see another kind of trouble: end of a case's id -> the formats, what they say, and why
ELSEWHERE = {
    "plain-json-lines": ("ollama", "incomplete", "JSON lines are its own way, though not with these words"),
    "only-done": ("responses gemini", "incomplete", "[DONE] is some proxy's word, and no end mark of theirs"),
}


def read(name: str) -> list[dict[str, Any]]:
    path = shared(f"badinput/{name}.jsonl")
    if path is None:
        return []
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def cases(name: str, *kinds: str, only: Collection[str] = FORMATS) -> Any:
    """Parameters `case` and `said`, the name of a format: every case in every format that has words for it."""
    found = [
        pytest.param(case, said, id=f"{said}-{case['id']}")
        for said in only
        for case in read(name)
        if case["kind"] in kinds and is_tellable(case, said)
    ]
    absent = pytest.param({}, "", id="absent", marks=needs_shared(f"badinput/{name}.jsonl"))
    return pytest.mark.parametrize(("case", "said"), found or [absent])


def is_tellable(case: dict[str, Any], said: str) -> bool:
    given = case["input"]
    wordless = case["kind"] == "timing" and not any("{" in text and "}" in text for _, text in given["steps"])
    if wordless or given["encoding"] == "repeat":  # a matter of the two ways of framing, whatever the words
        return said in ("chat", "ollama")
    try:
        if case["kind"] == "sse":
            FORMATS[said]().retold(data_of(given))
        elif case["kind"] == "timing":
            FORMATS[said]().retold_steps([(0.0, text.encode()) for _, text in given["steps"]])
    except Untold:
        return False
    return True


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


def client_for(said: str, url: str, limits: dict[str, Any], scale: float = 1.0, **more: Any) -> Any:
    names = {"max_retries": "max_retries", "max_wait_s": "max_retry_wait", "secret": "key"}
    more.update({name: limits[key] for key, name in names.items() if key in limits})
    if "read_timeout_s" in limits:
        more["read_timeout"] = limits["read_timeout_s"] * scale
    if "total_timeout_s" in limits:
        more["timeout"] = limits["total_timeout_s"] * scale
    return FORMATS[said]().client(url, **more)


async def outcome(client: Any, stream: bool, token: CancellationToken | None = None) -> CreateResult | BaseException:
    try:
        async with client:
            if not stream:
                whole: CreateResult = await client.create(QUESTION, cancellation_token=token)
                return whole
            said = [item async for item in client.create_stream(QUESTION, cancellation_token=token)]
    except (ModelError, asyncio.CancelledError) as error:
        return error
    *texts, result = said
    assert isinstance(result, CreateResult)
    if isinstance(result.content, str):
        assert "".join(texts) == result.content
    return result


def check(case: dict[str, Any], got: CreateResult | BaseException, said: str) -> None:
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
    accepted = [*(case.get("accept_category") or result.get("accept_category") or [result["category"]])]
    accepted += [also for end, (who, also, _) in ELSEWHERE.items() if said in who and case["id"].endswith(end)]
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
        assert [{"id": call.id, "name": call.name, "arguments": call.arguments} for call in calls] == rule["tool_calls"]
    if "calls" in rule:
        wanted = [(name, json.loads(arguments)) for name, arguments in rule["calls"]]
        assert [(call.name, json.loads(call.arguments)) for call in calls] == wanted
    assert len({call.id for call in calls} - {""}) == len(calls)
    if "finish_reason" in rule:
        assert got.finish_reason == ("function_calls" if calls else rule["finish_reason"])
    if "usage" in rule:
        assert got.usage.dump() == rule["usage"]


def check_error(got: CreateResult | BaseException) -> None:
    """An error of ours says who failed, and what."""
    if isinstance(got, ModelError):
        assert got.provider and str(got)
        assert got.status is None or got.status >= 200


async def streamed(case: dict[str, Any], said: str, framing: str) -> None:
    given, form = case["input"], FORMATS[said]()
    headers = {"content-type": form.stream_type, **case.get("headers", {})}
    whole = headers["content-type"] == "application/json"
    data = form.retold_body(data_of(given)) if whole else form.retold(data_of(given))
    cuts = [cut % max(len(data), 1) for cut in given.get("cuts", ())]
    steps = pieces(data, chunk_bytes=given.get("chunk_bytes", 0), cuts=cuts)
    end = case.get("end") or given.get("end") or "clean"
    async with Loopback([Reply(headers=headers, steps=steps, framing=framing, end=end)]) as server:
        client = client_for(said, server.url, case.get("client", {"max_retries": 0}))

        got = await outcome(client, stream=True)

        check(case, got, said)
        check_error(got)
        assert await server.deserted()


@cases("sse", "sse")
async def test_every_stream_ends_as_expected(case: dict[str, Any], said: str) -> None:
    await streamed(case, said, "chunked")


@cases("sse", "sse", only=["chat"])
async def test_every_stream_that_ends_with_its_connection_ends_as_expected(case: dict[str, Any], said: str) -> None:
    await streamed(case, said, "close")


@cases("body", "body")
async def test_every_whole_body_ends_as_expected(case: dict[str, Any], said: str) -> None:
    headers = {"content-type": "application/json", **case.get("headers", {})}
    data = data_of(case["input"])
    data = data if len(data) > 10**6 else FORMATS[said]().retold_body(data)
    end = "cut" if int(headers.get("content-length", len(data))) > len(data) else "clean"
    async with Loopback([Reply(headers=headers, body=data, end=end)]) as server:
        client = client_for(said, server.url, case.get("client", {"max_retries": 0}))

        got = await outcome(client, stream=False)

    check(case, got, said)
    check_error(got)


@cases("timing", "timing")
async def test_every_wait_has_an_end(case: dict[str, Any], said: str) -> None:
    given, limits, form = case["input"], case["client"], FORMATS[said]()
    steps = form.retold_steps([(delay / 1000 * FAST, text.encode()) for delay, text in given["steps"]])
    raw = case["result"].get("raw", False)
    stalled = not steps and given["end"] == "hang"
    end = {"close": "clean"}.get(given["end"], given["end"])
    headers = {"content-type": form.stream_type}
    reply = Reply(headers=headers, steps=steps, framing="chunked", end=end, raw=raw or stalled)
    async with Loopback([reply]) as server:
        token = CancellationToken() if "cancel_after_s" in limits else None
        if token:
            asyncio.get_running_loop().call_later(limits["cancel_after_s"], token.cancel)

        got = await outcome(client_for(said, server.url, {"max_retries": 0, **limits}, FAST), True, token)

        check(case, got, said)
        check_error(got)
        if "status" in case["result"]:
            assert got.status == case["result"]["status"]  # type: ignore[union-attr]
        assert await server.deserted()


@cases("retry", "retry")
async def test_every_failure_is_tried_again_as_expected(
    case: dict[str, Any], said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    limits, expected = case["client"], case["result"]
    replies = [retry_reply(each, said) for each in case["input"]["responses"]]
    tls = None
    if any(reply.connect == "tls_cert_invalid" for reply in replies):
        tls = untrusted_certificate(tmp_path)
        if tls is None:
            pytest.skip("no openssl to make a certificate")
    async with Loopback(replies, tls=tls) as server:
        time = FakeTime(case["input"]["now"], server)
        url = "http://nowhere.invalid/v1" if replies[0].connect == "dns_failure" else server.url

        got = await outcome(client_for(said, url, limits, _waiting=time), limits.get("stream", False))

        check(case, got, said)
        check_error(got)
        assert len(time.waits) + 1 == expected["attempts"]
        for wait, (least, most) in zip(time.waits, expected["waits_s"], strict=True):
            assert least <= wait <= most
        if isinstance(got, ModelError):
            shown = "".join(traceback.format_exception(got)) + repr(got) + caplog.text
            assert limits.get("secret", KEY) not in shown


def retry_reply(given: dict[str, Any], said: str) -> Reply:
    if "connect" in given:
        return Reply(connect=given["connect"])
    end, form, body = given.get("end", "clean"), FORMATS[said](), given["body"].encode()
    headers = {name.lower(): value for name, value in given["headers"].items()}
    if headers.get("content-type") == "text/event-stream":
        headers["content-type"], body = form.stream_type, form.retold(body)
    elif b"insufficient_quota" not in body:  # a word of OpenAI's, which is understood wherever it stands
        body = form.retold_body(body)
    return Reply(given["status"], headers, body, framing="chunked" if end == "reset" else "length", end=end)


@cases("retry", "raw_http")
async def test_a_peer_that_does_not_speak_http_is_reported(case: dict[str, Any], said: str) -> None:
    async with Loopback([Reply(body=data_of(case["input"]), raw=True)]) as server:
        for stream in (False, True):
            got = await outcome(client_for(said, server.url, {"max_retries": 0}), stream)

            check(case, got, said)
            check_error(got)
