"""No recorded exchange is left out, and none means something else when it arrives in other pieces."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from capabilities import module_at
from formats import FORMATS
from loopback import Loopback, Reply, pieces
from recorded import NO_CLIENT, UNMATCHED, exchanges
from shared_data import needs_shared
from tinygen.errors import ModelError
from tinygen.messages import CreateResult, UserMessage

APIS = {
    "openai.chat": "chat",
    "openai.responses": "responses",
    "anthropic.messages": "anthropic",
    "gemini.generateContent": "gemini",
    "ollama.chat": "ollama",
}
BODIES = ("json", "sse", "ndjson", "text")


def read_tests() -> Iterator[tuple[str, set[str]]]:
    """The name of every test that is given exchanges, with their ids."""
    known = {each["id"] for each in exchanges()}
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        if path.name == Path(__file__).name or "recorded" not in path.read_text(encoding="utf-8"):
            continue
        module = module_at(path)
        for name, test in vars(module).items():
            marks = [mark for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize"]
            given = {str(getattr(each, "id", "")) for mark in marks for each in mark.args[1]}
            if name.startswith("test_") and given & known:
                yield name, given & known


def needed(exchange: dict[str, Any]) -> list[str]:
    """What the names of the tests begin with that an exchange must be given to."""
    names = [] if exchange["id"] in UNMATCHED else ["test_every_recorded_request"]
    if not 200 <= exchange["response"]["status"] <= 299:
        return [*names, "test_every_recorded_refusal"]
    return [*names, "test_every_recorded_answer_comes_through_a_connection", "understood"]


UNDERSTOOD = ("understood", "test_a_recorded_stream_means_the_same", "test_every_recorded_body")


@needs_shared("wire")
def test_no_exchange_is_left_out() -> None:
    tests = [*read_tests()]

    left_out = {
        f"{exchange['id']}: no test {name}..."
        for exchange in exchanges()
        if exchange["id"] not in NO_CLIENT
        for name in needed(exchange)
        if not any(
            exchange["id"] in given and any(each in test for each in (UNDERSTOOD if name == "understood" else (name,)))
            for test, given in tests
        )
    }

    assert left_out == set()


@needs_shared("wire")
def test_only_what_cannot_be_matched_is_listed_as_such() -> None:
    made = {each for test, given in read_tests() if "request" in test for each in given}
    there = {each["id"] for each in exchanges()}

    assert {*UNMATCHED, *NO_CLIENT} <= there
    assert not made & {*UNMATCHED, *NO_CLIENT}


def reply_to(exchange: dict[str, Any], cuts: list[int]) -> Reply:
    response = exchange["response"]
    headers = {name: value for name, value in response["headers"].items() if name != "content-length"}
    if "sse" in response:
        headers.setdefault("content-type", "text/event-stream")
    data = body_of(exchange)
    steps = pieces(data, cuts=sorted({cut % len(data) for cut in cuts}))
    return Reply(response["status"], headers, steps=steps, framing="chunked")


def body_of(exchange: dict[str, Any]) -> bytes:
    kind = next(kind for kind in BODIES if kind in exchange["response"])
    body = exchange["response"][kind]
    return (json.dumps(body) if kind == "json" else body).encode()


async def meaning(exchange: dict[str, Any], cuts: list[int]) -> Any:
    """What the client makes of the answer: the result without ids made up, or the error."""
    form = FORMATS[APIS[exchange["api"]]]()
    async with Loopback([reply_to(exchange, cuts)]) as server, form.client(server.url, max_retries=0) as client:
        stream = "sse" in exchange["response"] or "ndjson" in exchange["response"]
        question = [UserMessage(content="q", source="user")]
        try:
            if stream:
                *_, result = [item async for item in client.create_stream(question)]
            else:
                result = await client.create(question)
        except ModelError as error:
            return type(error), str(error).replace(str(server.port), ""), error.status, error.request_id, error.partial
    assert isinstance(result, CreateResult)
    calls = [(call.name, call.arguments) for call in result.content if not isinstance(call, str)]
    return calls or result.content, result.thought, result.finish_reason, result.usage, result.provider_data


@needs_shared("wire")
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("api", APIS)
async def test_every_exchange_means_the_same_in_random_pieces(api: str, seed: int) -> None:
    for exchange in exchanges():
        if exchange["api"] != api:
            continue
        chance = random.Random(f"{exchange['id']}/{seed}")
        cuts = [chance.randrange(10**6) for _ in range(chance.choice((1, 5, 30)))]

        assert await meaning(exchange, cuts) == await meaning(exchange, []), (exchange["id"], cuts)
