"""A real inference server, `transformers serve`, on a tiny model whose words mean nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from formats import FORMATS
from tinygen import AssistantAgent, CancellationToken, CreateResult, RoundRobinGroupChat, UserMessage
from tinygen.errors import ModelError, ModelTimeout, RequestError, ServerError

LIMITS = {"chat": "max_tokens", "responses": "max_output_tokens"}
PROTOCOLS = [*LIMITS]
QUESTION = [UserMessage(content="hello", source="user")]
LONG = 3_000  # tokens, which take the server a while

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.parametrize("said", PROTOCOLS)]


def proves(*capabilities: str) -> Any:
    return pytest.mark.proves("transformers serve", PROTOCOLS, *capabilities)


@asynccontextmanager
async def client(said: str, server: tuple[str, str], tokens: int = 8, **options: Any) -> AsyncIterator[Any]:
    url, model = server
    fields = {"model": model, "max_retries": 0, LIMITS[said]: tokens, **options}
    async with FORMATS[said]().client(url, "", **fields) as made:
        yield made


async def streamed(made: Any, **call: Any) -> tuple[list[str], CreateResult]:
    *pieces, result = [item async for item in made.create_stream(QUESTION, **call)]
    assert isinstance(result, CreateResult)
    return pieces, result


@proves("text", "length stops")
async def test_an_answer_ends_where_its_tokens_do(transformers: tuple[str, str], said: str) -> None:
    async with client(said, transformers, tokens=8) as made:
        result = await made.create(QUESTION)

    assert isinstance(result.content, str) and result.content
    assert said == "responses" or result.finish_reason == "length"  # which this server does not tell there
    assert result.usage.completion_tokens == 8
    assert result.usage.prompt_tokens > 0


@proves("streamed text")
async def test_the_pieces_of_a_stream_add_up_to_the_answer(transformers: tuple[str, str], said: str) -> None:
    async with client(said, transformers, tokens=40) as made:
        pieces, result = await streamed(made)

    assert len(pieces) > 5
    assert "".join(pieces) == result.content
    assert result.usage.completion_tokens == 40


@proves("seeds")
async def test_a_seed_gives_the_same_words_again_streamed_or_not(transformers: tuple[str, str], said: str) -> None:
    async with client(said, transformers, tokens=30, seed=5, temperature=1.0) as made:
        whole = await made.create(QUESTION)
        _, again = await streamed(made)
        other = await made.create(QUESTION, extra_create_args={"seed": 6})

    assert whole.content == again.content != other.content


@proves("cancelling")
async def test_a_cancelled_stream_stops_at_once_and_keeps_what_came(transformers: tuple[str, str], said: str) -> None:
    token, pieces = CancellationToken(), []
    async with client(said, transformers, tokens=LONG) as made:
        loop = asyncio.get_running_loop()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            async for piece in made.create_stream(QUESTION, cancellation_token=token):
                pieces.append(piece)
                if len(pieces) == 5:
                    token.cancel()
                    since = loop.time()

        assert loop.time() - since < 1
        assert cancelled.value.partial == "".join(pieces)  # type: ignore[attr-defined]
        assert not any(isinstance(piece, CreateResult) for piece in pieces)


async def test_a_stream_that_is_left_leaves_the_server_free_for_others(
    transformers: tuple[str, str], said: str
) -> None:
    async with client(said, transformers, tokens=LONG) as made:
        stream = made.create_stream(QUESTION)
        await anext(stream)
        await stream.aclose()

        pieces, _ = await streamed(made, extra_create_args={LIMITS[said]: 8})

    assert pieces


async def test_a_deadline_ends_an_answer_that_takes_too_long(transformers: tuple[str, str], said: str) -> None:
    async with client(said, transformers, tokens=LONG, timeout=1.0) as made:
        with pytest.raises(ModelTimeout) as late:
            await streamed(made)

    assert late.value.partial


async def test_many_streams_side_by_side_all_come_to_their_end(transformers: tuple[str, str], said: str) -> None:
    async with client(said, transformers, tokens=12) as made:
        answers = await asyncio.gather(*(streamed(made) for _ in range(6)))

    assert all("".join(pieces) == result.content for pieces, result in answers)


@proves("refusals by status")
async def test_a_refusal_is_an_error_with_status_and_words(transformers: tuple[str, str], said: str) -> None:
    url, _ = transformers
    async with client(said, (url, "nonesuch")) as made:
        with pytest.raises(RequestError, match="nonesuch") as refused:
            await made.create(QUESTION)

    assert (refused.value.status, refused.value.provider) == (400, "127.0.0.1")
    assert refused.value.request_id


async def test_a_failure_of_the_server_is_an_error_with_its_words(transformers: tuple[str, str], said: str) -> None:
    async with client(said, transformers, tokens="many") as made:  # type: ignore[arg-type]
        with pytest.raises(ModelError, match=r"[Ee]rror") as failed:
            await made.create(QUESTION)

    assert isinstance(failed.value, ServerError) or failed.value.status == 200


async def test_an_address_that_is_not_there_is_told_with_the_address(transformers: tuple[str, str], said: str) -> None:
    url, model = transformers
    async with client(said, (f"{url}/elsewhere", model)) as made:
        with pytest.raises(RequestError, match="Check model and base_url") as refused:
            await made.create(QUESTION)

    assert refused.value.status == 404


async def test_two_agents_talk_in_turn(transformers: tuple[str, str], said: str) -> None:
    async with client(said, transformers, tokens=6) as made:
        agents = [AssistantAgent(name, made, model_client_stream=True) for name in ("ann", "bob")]
        result = await RoundRobinGroupChat([*agents], max_turns=4).run(task="Talk.")

    assert [message.source for message in result.messages] == ["user", "ann", "bob", "ann", "bob"]
    assert result.usage.completion_tokens == 24  # six each time
