"""Faults on purpose, and what stands before them: every call ends in an answer or in a typed error."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from hypothesis import given, strategies

from loopback import Loopback, sse_reply
from tinygen import (
    AssistantAgent,
    CancellationToken,
    ChatCompletionCache,
    ChatCompletionClient,
    Chunks,
    ConfigError,
    ConnectionFailed,
    CreateResult,
    FallbackClient,
    FaultyClient,
    FaultyHTTPClient,
    FunctionCall,
    IncompleteResponse,
    LoadBalancingClient,
    ModelError,
    ModelTimeout,
    OpenAIChatCompletionClient,
    ProtocolError,
    RateLimitedClient,
    RateLimiter,
    RateLimitError,
    ReplayChatCompletionClient,
    ReplayRequest,
    RunLimits,
    ServerError,
    SQLiteCacheStore,
    UserMessage,
)
from virtual_time import simulated

ASKED = [UserMessage(content="How are you?", source="user")]
WORDS = ["Very ", "well, ", "thank ", "you."]
CALLS = [FunctionCall("1", "{}", "add"), FunctionCall("2", "{}", "add")]


def model() -> ReplayChatCompletionClient:
    return ReplayChatCompletionClient(lambda request: Chunks(WORDS))


async def all_of(stream: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in stream]


async def outcome(client: ChatCompletionClient, stream: bool = False) -> Any:
    """What comes of a call: the text of its answer, or the class of its error."""
    try:
        if stream:
            return (await all_of(client.create_stream(ASKED)))[-1].content
        return (await client.create(ASKED)).content
    except ModelError as error:
        return type(error)


# --- each fault


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("odds", "error", "reached"),
    [
        ({"rate_limit": 1}, RateLimitError, False),
        ({"server_error": 1}, ServerError, False),
        ({"timeout": 1}, ModelTimeout, False),
        ({"garbage": 1}, ProtocolError, False),
        ({"cut_stream": 1}, (IncompleteResponse, ConnectionFailed), True),
    ],
)
async def test_each_fault_raises_what_a_real_client_raises(odds: Any, error: Any, reached: bool, stream: bool) -> None:
    inner = model()
    client = FaultyClient(inner, **odds)

    assert issubclass(await outcome(client, stream), error)
    assert bool(inner.create_calls) == reached
    assert [each.kind for each in client.injected] == list(odds)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ["rate_limit", "server_error", "timeout", "garbage", "cut_stream"])
async def test_each_fault_is_one_of_the_client_or_of_the_provider_that_was_given(kind: Any, stream: bool) -> None:
    openai = OpenAIChatCompletionClient(model="m", api_key="k")
    assert FaultyClient(ChatCompletionCache(openai), **{kind: 1}).provider == "openai"
    assert FaultyClient(model()).provider

    client = FaultyClient(model(), provider="acme", **{kind: 1})
    with pytest.raises(ModelError) as failed:
        await (all_of(client.create_stream(ASKED)) if stream else client.create(ASKED))

    assert failed.value.provider == "acme"


async def test_a_cut_stream_shows_what_came_before_the_cut() -> None:
    client, seen = FaultyClient(model(), cut_stream=1), Counter[str]()

    for _ in range(30):
        shown: list[Any] = []
        with pytest.raises(ConnectionFailed) as cut:
            async for piece in client.create_stream(ASKED):
                shown.append(piece)
        assert "".join(WORDS).startswith("".join(shown))
        assert cut.value.partial == "".join(shown)
        seen["".join(shown)] += 1

    assert len(seen) >= 3  # it is cut in different places


def test_a_slow_answer_comes_late_and_whole() -> None:
    async def run() -> tuple[Any, float]:
        items = await all_of(FaultyClient(model(), slow=1, delay=2).create_stream(ASKED))
        return items[:-1], asyncio.get_running_loop().time()

    assert simulated(run()) == (WORDS, 12.0)  # once before it begins, once before each item


async def test_calls_may_have_one_id() -> None:
    inner = ReplayChatCompletionClient([CALLS, CALLS])
    client = FaultyClient(inner, duplicate_ids=1)

    answers = [await client.create(ASKED), (await all_of(client.create_stream(ASKED)))[-1]]

    assert [[call.id for call in each.content] for each in answers] == [["1", "1"]] * 2
    assert CALLS[1].id == "2"


async def test_a_seed_says_what_happens_and_another_says_otherwise() -> None:
    odds: Any = {"rate_limit": 0.2, "server_error": 0.2, "cut_stream": 0.2, "garbage": 0.2}
    runs = []

    for seed in (7, 7, "7", 8):
        client = FaultyClient(model(), seed=seed, **odds)
        runs.append([await outcome(client, stream) for stream in (False, True) * 20])

    assert runs[0] == runs[1] != runs[3]
    assert runs[0] != runs[2]


async def test_odds_come_true_in_the_long_run() -> None:
    client = FaultyClient(model(), seed=1, rate_limit=0.5, garbage=0.25)

    for _ in range(400):
        await outcome(client)

    kinds = Counter(each.kind for each in client.injected)
    assert 160 < kinds["rate_limit"] < 240
    assert 70 < kinds["garbage"] < 130


async def test_waiting_on_purpose_can_be_cancelled() -> None:
    token = CancellationToken()
    for odds in ({"timeout": 1}, {"slow": 1}):
        client = FaultyClient(model(), delay=3600, **odds)  # type: ignore[arg-type]
        call = asyncio.ensure_future(client.create(ASKED, cancellation_token=token))
        await asyncio.sleep(0)
        token.cancel()

        with pytest.raises(asyncio.CancelledError):
            await call


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"rate_limits": 0.1}, "no fault 'rate_limits'; did you mean 'rate_limit'"),
        ({"garbage": 2}, "garbage must be how likely that fault is, from 0 to 1, not 2"),
        ({"garbage": "x"}, "garbage must be how likely"),
        ({"garbage": 0.7, "slow": 0.7}, "at most one fault"),
        ({"delay": -1}, "delay must be a number of seconds"),
    ],
)
def test_wrong_odds_are_refused(arguments: Any, words: str) -> None:
    for make in (lambda: FaultyClient(model(), **arguments), lambda: FaultyHTTPClient(None, **arguments)):
        with pytest.raises(ConfigError, match=words):
            make()


# --- any stack of wrappers over faults


class Numbered:
    """A model whose every answer tells which request it belongs to, in each of its pieces."""

    def __init__(self) -> None:
        self._numbers = itertools.count()

    def __call__(self, request: ReplayRequest) -> Chunks:
        number = next(self._numbers)
        return Chunks([f"{number}:{word} " for word in "abcd"])


Around = Callable[[list[ChatCompletionClient]], ChatCompletionClient]
LIMITER = {"requests_per_minute": 30, "tokens_per_minute": 300, "concurrency": 2}
AROUND: list[Around] = [
    lambda clients: FallbackClient(clients),
    lambda clients: LoadBalancingClient(clients, failures=2, cool_down=5),
    lambda clients: ChatCompletionCache(clients[0]),
    lambda clients: RateLimitedClient(clients[0], RateLimiter(**LIMITER), timeout=300),  # type: ignore[arg-type]
    lambda clients: FaultyClient(clients[0], seed=len(clients), cut_stream=0.2, slow=0.2, delay=0.1),
]
odds = strategies.fixed_dictionaries(
    {kind: strategies.sampled_from([0, 0.05, 0.1]) for kind in ("rate_limit", "server_error", "timeout", "slow")}
    | {kind: strategies.sampled_from([0, 0.1, 0.2]) for kind in ("cut_stream", "garbage")}
)
calls = strategies.lists(
    strategies.tuples(
        strategies.booleans(), strategies.integers(0, 3), strategies.sampled_from([None, None, 0.0, 3.0])
    ),
    min_size=1,
    max_size=12,
)


def stack(numbered: Numbered, faults: Any, seed: int, order: list[Around]) -> ChatCompletionClient:
    clients: list[ChatCompletionClient] = [
        FaultyClient(ReplayChatCompletionClient(numbered), seed=f"{seed} {n}", delay=0.5, **faults) for n in range(3)
    ]
    for around in order:
        clients = [around(clients), *clients[1:]]
    return clients[0]


async def one_call(client: ChatCompletionClient, stream: bool, which: int, cancel: float | None) -> str:
    """How a call ends; fails if it is not as it should be."""
    shown: list[str] = []
    question = [UserMessage(content=f"Question {which}", source="user")]

    async def ask() -> CreateResult:
        if not stream:
            return await client.create(question)
        async for item in client.create_stream(question):
            if isinstance(item, CreateResult):
                return item
            shown.append(item)
        raise AssertionError("a stream ended without an answer and without an error")

    task = asyncio.ensure_future(ask())
    if cancel is not None:
        asyncio.get_running_loop().call_later(cancel, task.cancel)
    await asyncio.wait({task})
    assert len({piece.partition(":")[0] for piece in shown}) <= 1, "a piece was shown, and the request made again"
    if task.cancelled():
        assert cancel is not None
        return "cancelled"
    if isinstance(task.exception(), ModelError):
        return "failed"
    answer = task.result()
    assert not stream or "".join(shown) == answer.content
    return "answered"


@given(odds, strategies.integers(0, 10**6), strategies.lists(strategies.sampled_from(AROUND), max_size=6), calls)
def test_whatever_goes_wrong_every_call_ends_in_an_answer_or_a_typed_error(
    faults: Any, seed: int, order: list[Around], asked: list[tuple[bool, int, float | None]]
) -> None:
    client = stack(Numbered(), faults, seed, order)

    async def run() -> float:
        ends = await asyncio.gather(*(one_call(client, *each) for each in asked))
        assert len(ends) == len(asked)
        await client.close()
        return asyncio.get_running_loop().time()

    assert simulated(run()) < 3600


@given(odds, strategies.integers(0, 10**6), strategies.lists(strategies.sampled_from(AROUND), max_size=5), calls)
def test_the_same_seed_gives_the_same_run(faults: Any, seed: int, order: list[Around], asked: Any) -> None:
    async def run() -> tuple[list[str], float]:
        client = stack(Numbered(), faults, seed, order)
        ends = [await one_call(client, *each) for each in asked]
        return ends, asyncio.get_running_loop().time()

    assert simulated(run()) == simulated(run())


async def test_a_deadline_of_a_run_ends_every_wait_in_the_stack() -> None:
    hung = FaultyClient(model(), timeout=1, delay=3600)
    client = ChatCompletionCache(FallbackClient([RateLimitedClient(LoadBalancingClient([hung]), RateLimiter()), hung]))

    done = await AssistantAgent("ada", client).run(task="How are you?", limits=RunLimits(timeout=0.05))

    assert done.stop_reason == "limit reached: timeout (0.05 s)"
    assert done.abandoned == []


async def test_a_dependable_stack_answers_although_every_part_of_it_fails(tmp_path: Any) -> None:
    parts = [FaultyClient(model(), seed=n, server_error=0.2, cut_stream=0.1, delay=0.001) for n in range(4)]
    client = ChatCompletionCache(FallbackClient(parts), SQLiteCacheStore(tmp_path / "a.sqlite3"))

    answers = [await client.create([UserMessage(content=str(n), source="user")]) for n in range(20)]

    assert {answer.content for answer in answers} == {"".join(WORDS)}
    assert sum(len(part.injected) for part in parts) > 5


# --- bytes


def chunk(delta: Any, finish: str | None = None) -> Any:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def call_chunk(index: int) -> Any:
    function = {"name": "add", "arguments": "{}"}
    return chunk({"tool_calls": [{"index": index, "id": f"call_{index}", "type": "function", "function": function}]})


TEXT = [chunk({"content": word}) for word in WORDS] + [chunk({}, "stop")]
TOOLS = [call_chunk(0), call_chunk(1), chunk({}, "tool_calls")]


def server(request: httpx.Request) -> httpx.Response:
    """Answers like a server of OpenAI's protocol, a stream piece by piece."""
    events = TOOLS if b'"tools"' in request.content else TEXT
    if b'"stream":true' not in request.content:
        message = {"role": "assistant", "content": "".join(WORDS)}
        return httpx.Response(200, json={"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

    async def body() -> AsyncIterator[bytes]:
        for event in events:
            yield f"data: {json.dumps(event)}\n\n".encode()
        yield b"data: [DONE]\n\n"

    return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=body())


def over_http(seed: int, **odds: Any) -> tuple[OpenAIChatCompletionClient, FaultyHTTPClient]:
    http = FaultyHTTPClient(httpx.AsyncClient(transport=httpx.MockTransport(server)), seed=seed, **odds)
    return OpenAIChatCompletionClient(model="m", base_url="http://localhost:1/v1", http_client=http), http


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("kind", "errors"),
    [
        ("rate_limit", {RateLimitError}),
        ("server_error", {ServerError}),
        ("timeout", {ModelTimeout}),
        ("slow", {"".join(WORDS)}),
        ("duplicate_ids", {"".join(WORDS)}),
    ],
)
def test_each_fault_of_the_bytes_is_met_as_what_it_is(kind: Any, errors: set[Any], stream: bool) -> None:
    async def run() -> Any:
        client, http = over_http(3, **{kind: 1.0})
        ends = {await outcome(client, stream) for _ in range(5)}
        assert {each.kind for each in http.injected} == {kind}
        return ends

    assert simulated(run()) == errors


def test_a_body_is_cut_however_short_it_is() -> None:
    async def run() -> set[Any]:
        client, _ = over_http(3, cut_stream=1.0)
        return {await outcome(client) for _ in range(60)}

    assert simulated(run()) <= {ConnectionFailed, IncompleteResponse, ProtocolError}


def test_a_server_that_gives_its_calls_one_id_does_not_confuse_them() -> None:
    async def run() -> Any:
        client, http = over_http(3, duplicate_ids=1.0)
        stream = client.create_stream(ASKED, tools=[{"name": "add"}])
        return (await all_of(stream))[-1].content, http.injected

    content, injected = simulated(run())

    assert [call.name for call in content] == ["add", "add"]
    assert len({call.id for call in content}) == 2
    assert len(injected) == 1


@pytest.mark.parametrize("seed", range(60))
def test_whatever_the_bytes_are_every_call_ends_in_an_answer_or_a_typed_error(seed: int) -> None:
    faults = {"rate_limit": 0.1, "server_error": 0.1, "timeout": 0.1, "cut_stream": 0.25, "garbage": 0.3, "slow": 0.1}

    async def run() -> float:
        client, _ = over_http(seed, **faults)
        for _ in range(10):
            shown: list[Any] = []
            try:
                assert isinstance((await client.create(ASKED)).content, str)
                async for item in client.create_stream(ASKED):
                    shown.append(item)
                assert isinstance(shown.pop(), CreateResult)
            except ModelError:
                pass
            assert "".join(shown).count(WORDS[0]) <= 1  # else it was begun again
        return asyncio.get_running_loop().time()

    assert simulated(run()) < 600


async def test_no_connection_is_left_of_what_went_wrong() -> None:
    async with Loopback([sse_reply(*TEXT)]) as real, httpx.AsyncClient() as plain:
        http = FaultyHTTPClient(plain, seed=5, server_error=0.2, cut_stream=0.3, garbage=0.2, slow=0.1, delay=0.001)
        client = OpenAIChatCompletionClient(model="m", base_url=real.url, http_client=http, max_retries=0)

        ends = [await outcome(FallbackClient([client, client]), True) for _ in range(40)]
        await plain.aclose()

        assert "".join(WORDS) in ends
        assert len(http.injected) > 20
        assert await real.deserted()
