"""What holds for every wire format: failures have names, and nothing is lost, asked twice or left over."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import tracemalloc
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formats import FORMATS, KEY, Format
from loopback import Loopback, Reply
from shared_data import needs_shared, shared
from tinygen.errors import (
    AuthenticationError,
    ConfigError,
    ConnectionFailed,
    IncompleteResponse,
    ModelError,
    ModelTimeout,
    ProtocolError,
    RateLimitError,
    RequestError,
    ServerError,
)
from tinygen.messages import AssistantMessage, CreateResult, FunctionCall, ThoughtChunk, UserMessage
from tinygen.models.exchange import Waiting
from tinygen.models.faults import FaultyHTTPClient

QUESTION = [UserMessage(content="hello", source="user")]
PIECES = ["Grüß ", "Gott", ", 世界", " 🌍!"]
SAID = "".join(PIECES)
each_format = pytest.mark.parametrize("form", [made() for made in FORMATS.values()], ids=lambda form: form.name)


def event(**choice: Any) -> bytes:
    data = {"id": "c", "model": "m-dev", "choices": [{"index": 0, "delta": {}, "finish_reason": None, **choice}]}
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def call_event(index: int, name: str, arguments: str) -> bytes:
    function = {"name": name, "arguments": arguments}
    return event(delta={"tool_calls": [{"index": index, "id": f"call_{index}", "function": function}]})


TEXT = [event(delta={"content": piece}) for piece in PIECES]
END = [event(finish_reason="stop"), b"data: [DONE]\n\n"]


def told(form: Format, *events: bytes) -> bytes:
    return type(form)().retold(b"".join(events))


def body(content: Any = None, calls: Any = None, finish: str = "stop") -> bytes:
    message = {"role": "assistant", "content": content, **({"tool_calls": calls} if calls else {})}
    return json.dumps({"id": "c", "choices": [{"index": 0, "message": message, "finish_reason": finish}]}).encode()


def stream_reply(form: Format, data: bytes, **more: Any) -> Reply:
    headers = {"content-type": form.stream_type, "x-request-id": "req-7"}
    return Reply(headers=headers, steps=[(0.0, data)], framing="chunked", **more)


async def streamed(client: Any) -> tuple[str, CreateResult | ModelError]:
    """The text that came, and how it ended."""
    said = ""
    try:
        async for item in client.create_stream(QUESTION):
            if isinstance(item, CreateResult):
                return said, item
            said += "" if isinstance(item, ThoughtChunk) else item
    except ModelError as error:
        return said, error
    raise AssertionError("neither a result nor an error")


class NoWaiting(Waiting):
    @staticmethod
    async def sleep(seconds: float) -> None:
        return None


# --- statuses

STATUSES: list[tuple[int, type[ModelError], int]] = [  # status, error, attempts
    (400, RequestError, 1),
    (401, AuthenticationError, 1),
    (403, AuthenticationError, 1),
    (404, RequestError, 1),
    (408, RequestError, 3),
    (409, RequestError, 3),
    (413, RequestError, 1),
    (422, RequestError, 1),
    (429, RateLimitError, 3),
    (500, ServerError, 3),
    (502, ServerError, 3),
    (503, ServerError, 3),
    (529, ServerError, 3),
]
REMEDIES = {401: "Check the API key|[Ss]et |Put ", 404: "Check model", 429: "Ask again later", 503: "Ask again later"}
REFUSALS = {
    "its own": lambda form: json.dumps(form.error({"message": "no such luck"})).encode(),
    "a page": lambda form: b"<html><h1>no such luck</h1></html>",
    "nothing": lambda form: b"",
}


@each_format
@pytest.mark.parametrize(("status", "kind", "attempts"), STATUSES)
@pytest.mark.parametrize("shape", REFUSALS)
async def test_every_refusal_says_who_what_and_which_request(
    form: Format, status: int, kind: type[ModelError], attempts: int, shape: str
) -> None:
    reply = Reply(status, {"x-request-id": "req-7"}, REFUSALS[shape](form))
    async with Loopback([reply]) as server, form.client(server.url, _waiting=NoWaiting, key="sk-secret-1") as client:
        with pytest.raises(kind) as failed:
            await client.create(QUESTION)

    error = failed.value
    assert (error.status, error.request_id, len(server.requests)) == (status, "req-7", attempts)
    assert error.provider and f"HTTP {status}" in str(error)
    assert shape == "nothing" or "no such luck" in str(error)
    assert re.search(REMEDIES.get(status, ""), str(error))
    assert "sk-secret-1" not in repr(error)


@each_format
@pytest.mark.parametrize("status", [429, 503])
async def test_a_wait_that_the_provider_asks_for_is_told_and_never_cut_short(form: Format, status: int) -> None:
    reply = Reply(status, {"retry-after": "90"}, json.dumps(form.error({"message": "later"})).encode())
    async with Loopback([reply]) as server, form.client(server.url) as client:
        with pytest.raises(ModelError, match=r"asks to wait 90 s.* so try again then") as failed:
            await client.create(QUESTION)

    assert failed.value.retry_after == 90
    assert len(server.requests) == 1


# --- streams that go wrong

ENDS = {
    "cut": ([], "clean", IncompleteResponse),
    "reset": ([], "reset", ConnectionFailed),
    "silence": ([], "hang", ModelTimeout),
    "garbage": ([b"data: {oops\n\n", *END], "clean", ProtocolError),
    "error": ([b'data: {"error": {"message": "overloaded"}}\n\n'], "clean", ModelError),
}


@each_format
@pytest.mark.parametrize("end", ENDS)
async def test_a_stream_that_breaks_after_its_first_piece_is_not_begun_again(form: Format, end: str) -> None:
    more, how, kind = ENDS[end]
    reply = stream_reply(form, told(form, *TEXT[:2], *more), end=how)
    patience = 0.2 if end == "silence" else None
    async with Loopback([reply]) as server, form.client(server.url, read_timeout=patience) as client:
        said, error = await streamed(client)

        assert isinstance(error, kind), error
        assert (said, error.partial) == ("Grüß Gott", "Grüß Gott")
        assert (error.request_id, len(server.requests)) == ("req-7", 1)
        assert error.provider and error.status in (200, None)
        await client.close()
        assert await server.deserted()


@each_format
@pytest.mark.parametrize("end", ["reset", "hang up"])
async def test_a_stream_that_breaks_before_its_first_piece_is_asked_for_again(form: Format, end: str) -> None:
    broken = Reply(connect="close") if end == "hang up" else stream_reply(form, b"", end="reset")
    whole = stream_reply(form, told(form, *TEXT, *END))
    async with Loopback([broken, whole]) as server, form.client(server.url, _waiting=NoWaiting) as client:
        said, result = await streamed(client)

    assert isinstance(result, CreateResult)
    assert said == result.content == SAID
    assert len(server.requests) == 2


def read(form: Format, data: bytes) -> tuple[str, Any, ModelError | None]:
    """The text that came of these bytes, the result, and the error."""
    client = form.client("http://localhost/v1")
    framing, decoder, said = client._framing(), client._decoder(), ""
    try:
        for each in [*framing.feed(data), *framing.finish()]:
            said += decoder.feed(*each)
        said += decoder.end()
        return said, decoder.whole().result(client._reasons), None
    except ModelError as error:
        error.partial = decoder.partial
        return said, None, error


@each_format
def test_a_stream_cut_at_any_byte_is_an_error_with_the_text_so_far_or_the_whole_answer(form: Format) -> None:
    calls = [call_event(0, "add", '{"a": 1, "b": 2}'), call_event(1, "weather", '{"city": "Zürich"}')]
    stream = told(form, *TEXT, *calls, event(finish_reason="tool_calls"), END[1])
    whole = read(form, stream)

    for edge in range(len(stream)):
        said, result, error = read(form, stream[:edge])

        assert SAID.startswith(said)
        if error is None:
            assert result == whole[1]
        else:
            assert isinstance(error, (IncompleteResponse, ProtocolError))
            assert error.partial == said


@each_format
@settings(max_examples=60)
@given(data=st.data())
def test_a_damaged_stream_is_an_answer_or_an_error_of_ours(form: Format, data: st.DataObject) -> None:
    stream = bytearray(told(form, *TEXT, call_event(0, "add", '{"a": 1}'), *END))
    places = st.integers(0, len(stream) - 1)
    for place, byte in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=8)):
        stream[place] = byte
    if data.draw(st.booleans()):
        del stream[data.draw(places) :]

    _, result, error = read(form, bytes(stream))

    assert (result is None) != (error is None)
    assert result is None or json.dumps(result.dump()).encode()


# --- answers in the wrong dress


@each_format
@pytest.mark.parametrize("kind", ["text/html", "text/plain; charset=utf-8", "application/octet-stream", ""])
async def test_a_whole_answer_is_understood_whatever_it_is_called(form: Format, kind: str) -> None:
    reply = Reply(headers={"content-type": kind}, body=form.retold_body(body("hi")))
    async with Loopback([reply]) as server, form.client(server.url) as client:
        assert (await client.create(QUESTION)).content == "hi"


@each_format
@pytest.mark.parametrize("kind", ["text/html", "text/plain", "application/octet-stream", ""])
async def test_a_stream_is_understood_whatever_it_is_called(form: Format, kind: str) -> None:
    reply = Reply(headers={"content-type": kind}, body=told(form, *TEXT, *END))
    async with Loopback([reply]) as server, form.client(server.url) as client:
        said, result = await streamed(client)

    assert isinstance(result, CreateResult)
    assert said == result.content == SAID


@each_format
async def test_a_server_that_does_not_stream_is_understood_although_a_stream_was_asked_for(form: Format) -> None:
    reply = Reply(headers={"content-type": "application/json"}, body=form.retold_body(body("hi")))
    async with Loopback([reply]) as server, form.client(server.url) as client:
        said, result = await streamed(client)

    assert isinstance(result, CreateResult)
    assert said == result.content == "hi"


@each_format
async def test_a_server_that_streams_is_understood_although_it_was_not_asked_to(form: Format) -> None:
    reply = stream_reply(form, told(form, *TEXT, call_event(0, "add", '{"a": 1}'), *END))
    async with Loopback([reply]) as server, form.client(server.url) as client:
        result = await client.create(QUESTION)

    assert [call.name for call in result.content] == ["add"]
    assert result.thought == SAID


@each_format
async def test_a_stream_that_nobody_asked_for_and_that_breaks_off_leaves_its_text_too(form: Format) -> None:
    async with Loopback([stream_reply(form, told(form, *TEXT))]) as server, form.client(server.url) as client:
        with pytest.raises(IncompleteResponse) as failed:
            await client.create(QUESTION)

    assert failed.value.partial == SAID


@each_format
@pytest.mark.parametrize("stream", [False, True])
async def test_a_page_of_some_proxy_is_shown_for_what_it_is(form: Format, stream: bool) -> None:
    reply = Reply(headers={"content-type": "text/html"}, body=b"<html>\n<p>Down for maintenance</p>\n</html>")
    async with Loopback([reply]) as server, form.client(server.url) as client:
        with pytest.raises(ProtocolError, match="<html>"):
            if stream:
                _ = [item async for item in client.create_stream(QUESTION)]
            else:
                await client.create(QUESTION)


# --- tools


def written_arguments() -> list[Any]:
    path = shared("badinput/tool_args.jsonl")
    lines = path.read_text(encoding="utf-8").splitlines() if path else []
    cases = [json.loads(line) for line in lines]
    texts = [
        pytest.param(case["input"]["data"], id=case["id"]) for case in cases if case["input"]["encoding"] == "text"
    ]
    return texts or [pytest.param("", marks=needs_shared("badinput/tool_args.jsonl"))]


@pytest.mark.parametrize("text", written_arguments())
@pytest.mark.parametrize("form", [made() for made in FORMATS.values()], ids=lambda form: form.name)
async def test_arguments_arrive_as_the_model_wrote_them_and_go_back_however_broken(form: Format, text: str) -> None:
    whole = is_object(text)
    if form.name in ("gemini", "ollama") and not whole:
        text, whole = '{"text": ' + json.dumps(text) + "}", True  # nothing but objects can be written there
    stream = told(form, call_event(0, "add", text), event(finish_reason="tool_calls"), END[1])
    async with Loopback([stream_reply(form, stream)]) as server, form.client(server.url) as client:
        _, result = await streamed(client)
        assert isinstance(result, CreateResult)
        (call,) = result.content
        assert isinstance(call, FunctionCall)
        assert json.loads(call.arguments) == json.loads(text) if whole else call.arguments in (text, "{}")

        server.replies.append(Reply(headers={"content-type": "application/json"}, body=form.retold_body(body("so"))))
        await client.create([*QUESTION, AssistantMessage(content=[call], source="bot")])

    assert server.requests[1].json


def is_object(text: str) -> bool:
    """Whether it is a JSON object that can be written again: NaN and 1e999 cannot."""
    try:
        return isinstance(json.loads(json.dumps(json.loads(text), allow_nan=False)), dict)
    except (ValueError, RecursionError):
        return False


@each_format
async def test_a_tool_whose_parameters_are_none_takes_no_arguments(form: Format) -> None:
    reply = Reply(headers={"content-type": "application/json"}, body=form.retold_body(body("hi")))
    async with Loopback([reply]) as server, form.client(server.url) as client:
        await client.create(QUESTION, tools=[{"name": "now", "description": None, "parameters": None}])

    assert b'"now"' in server.requests[0].body
    assert b'"description":null' not in server.requests[0].body
    assert b'"properties":{}' in server.requests[0].body or form.name == "gemini"  # which refuses empty objects


@each_format
@pytest.mark.parametrize("stream", [False, True])
async def test_calls_with_one_id_are_told_apart(form: Format, stream: bool) -> None:
    calls = [{"id": "c", "type": "function", "function": {"name": name, "arguments": "{}"}} for name in ("a", "b")]
    events = [event(delta={"tool_calls": [{**call, "index": at}]}) for at, call in enumerate(calls)]
    reply = stream_reply(form, told(form, *events, *END)) if stream else Reply(body=form.retold_body(body("", calls)))
    async with Loopback([reply]) as server, form.client(server.url) as client:
        result: Any = (await streamed(client))[1] if stream else await client.create(QUESTION)

    assert [call.name for call in result.content] == ["a", "b"]
    assert len({call.id for call in result.content}) == 2


@each_format
@pytest.mark.parametrize("seed", range(4))
async def test_whatever_goes_wrong_each_call_ends_with_an_answer_or_an_error_of_ours(form: Format, seed: int) -> None:
    odds = {
        "rate_limit": 0.1,
        "server_error": 0.1,
        "cut_stream": 0.2,
        "garbage": 0.3,
        "slow": 0.1,
        "duplicate_ids": 0.2,
    }
    calls = [call_event(0, "add", '{"a": 1}'), call_event(1, "add", '{"a": 2}')]
    reply = stream_reply(form, told(form, *TEXT, *calls, event(finish_reason="tool_calls"), END[1]))
    ends: list[Any] = []
    async with Loopback([reply]) as server, httpx.AsyncClient() as http:
        faulty = FaultyHTTPClient(http, seed=seed, delay=0.0001, **odds)  # type: ignore[arg-type]
        client = form.client(server.url, http_client=faulty, _waiting=NoWaiting)
        for _ in range(25):
            said, end = await streamed(client)
            ends.append(end)
            if isinstance(end, CreateResult):
                assert len({call.id for call in end.content if not isinstance(call, str)}) in (0, 2)
            else:
                assert end.provider and end.partial.startswith(said)

    assert {type(end) for end in ends} > {CreateResult}


# --- nothing is left over


async def hundreds_of_streams(form: Format, count: int) -> tuple[int, int, int]:
    """Bytes that so many streams one after another add, connections they took, and tasks they left."""
    reply = stream_reply(form, told(form, *TEXT, *END))
    async with Loopback([reply]) as server, form.client(server.url) as client:
        tasks = asyncio.all_tasks()

        async def some(number: int) -> int:
            for _ in range(number):
                assert (await streamed(client))[0] == SAID
                server.requests.clear()
            gc.collect()
            return tracemalloc.get_traced_memory()[0]

        before = await some(30)
        after = await some(count)
        return after - before, server.connections, len(asyncio.all_tasks() - tasks - server.tasks)


@each_format
async def test_streams_one_after_another_leave_memory_connections_and_tasks_flat(form: Format) -> None:
    tracemalloc.start()
    try:
        grown, connections, tasks = await hundreds_of_streams(form, 150)
    finally:
        tracemalloc.stop()

    assert grown < 30_000  # bytes, which is 200 for a stream
    assert connections == 1
    assert tasks == 0


@each_format
async def test_streams_that_are_left_in_the_middle_leave_nothing_behind(form: Format) -> None:
    reply = stream_reply(form, told(form, *TEXT), end="hang")
    async with Loopback([reply]) as server, form.client(server.url) as client:
        tasks = asyncio.all_tasks()
        for _ in range(20):
            stream = client.create_stream(QUESTION)
            assert await anext(stream) == PIECES[0]
            await stream.aclose()

        assert await server.deserted()
        assert asyncio.all_tasks() - tasks - server.tasks == set()


@each_format
def test_a_client_is_named_by_one_string(form: Format) -> None:
    from tinygen.models import create_client

    provider = {"chat": "openai"}.get(form.name, form.name)
    options = {} if form.name == "ollama" else {"api_key": KEY}

    assert type(create_client(f"{provider}:m", **options)) is form.kind


@each_format
async def test_one_answer_may_be_asked_for_and_more_are_refused_in_words_about_answers(form: Format) -> None:
    with pytest.raises(ConfigError, match="'n' must be 1, not 3: an agent takes one answer"):
        form.client("http://localhost/v1", n=3)
    reply = stream_reply(form, told(form, *TEXT, *END))
    async with Loopback([reply]) as server, form.client(server.url, n=1) as client:
        with pytest.raises(ConfigError, match="'n' must be 1, not 2: an agent takes one answer"):
            await client.create(QUESTION, extra_create_args={"n": 2})
        _ = [item async for item in client.create_stream(QUESTION, extra_create_args={"n": 1})]

    assert '"n":' not in json.dumps(server.requests[0].json)


@each_format
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("apikey", "did you mean 'api_key'"),
        ("API_KEY", "did you mean 'api_key'"),
        ("baseUrl", "did you mean 'base_url'"),
        ("max_retry", "did you mean 'max_retries'"),
        ("client_secret", "looks like a secret"),
        ("session_token", "looks like a secret"),
    ],
)
def test_a_slip_in_the_name_of_an_argument_is_not_sent_to_the_provider(form: Format, name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=f"has no argument '{name}'; .*{words}") as failed:
        form.client("http://localhost/v1", **{name: "sk-of-mine"})

    assert "sk-of-mine" not in str(failed.value)


@each_format
def test_a_slip_in_the_name_of_a_common_field_is_warned_of(form: Format) -> None:
    with pytest.warns(UserWarning, match="'temprature' is sent to the provider as it is; did you mean 'temperature'"):
        form.client("http://localhost/v1", temprature=1)


@each_format
def test_a_field_that_only_its_provider_knows_is_sent_without_a_word(form: Format) -> None:
    for name in ("xtc_threshold", "typ_p", "speed", "models", "topK", "prompt_cache_key", "min_new_tokens", "n_probs"):
        form.client("http://localhost/v1", **{name: 1})
