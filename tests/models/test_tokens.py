"""How many tokens a request takes, told without the network."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import random
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopback import Loopback, json_reply, sse_reply
from tinygen import (
    AssistantAgent,
    FunctionCall,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    Image,
    LLMMessage,
    OpenAIChatCompletionClient,
    RoundRobinGroupChat,
    RunLimits,
    SystemMessage,
    TextMentionTermination,
    TokenLimitedChatCompletionContext,
    TokenUsageTermination,
    UserMessage,
)
from tinygen.messages import AssistantMessage, CreateResult, RequestUsage
from tinygen.models import tokens
from tinygen.models.asks import Ask
from tinygen.models.tokens import TokenCounter, estimate_tokens, picture_tokens, vocabulary

TEXT = "How much wood would a woodchuck chuck if a woodchuck could chuck wood? " * 10
TOOL: Any = {"name": "add", "description": "Adds.", "parameters": {"type": "object", "properties": {}}}


def user(content: Any) -> UserMessage:
    return UserMessage(content=content, source="user")


def asked(*messages: LLMMessage, json_output: Any = None) -> Ask:
    return Ask(list(messages), [], "auto", json_output, {}, False)


def answer(prompt: int = 0, completion: int = 0, content: Any = "hi there", thought: str | None = None) -> CreateResult:
    usage = RequestUsage(prompt, completion)
    return CreateResult(finish_reason="stop", content=content, usage=usage, cached=False, thought=thought)


def taught(*reported: int, message: LLMMessage | None = None) -> TokenCounter:
    """A counter whose provider reported so many tokens, again and again for the same message."""
    counter = TokenCounter("m")
    for count in reported:
        counter.usage(asked(message or user(TEXT)), answer(count, 1))
    return counter


def png(width: int, height: int) -> Image:
    return Image(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + struct.pack(">II", width, height) + b"\x08\x02\x00\x00\x00")


# --- the estimate


def test_four_bytes_are_a_token_and_so_is_a_chinese_character() -> None:
    base = estimate_tokens([user("")])

    assert estimate_tokens([user("a" * 400)]) == base + 100
    assert estimate_tokens([user("\u6f22\u5b57" * 50)]) == base + 100
    assert estimate_tokens([user("\u00e9" * 200)]) == base + 100


def test_calls_results_thoughts_and_tools_take_tokens_too() -> None:
    call = FunctionCall("1", '{"a": 1}' * 10, "add")
    result = FunctionExecutionResult(content="three" * 10, name="add", call_id="1")
    plain = AssistantMessage(content="x", source="a")
    thinking = AssistantMessage(content="x", source="a", thought="hm" * 20)

    assert estimate_tokens([AssistantMessage(content=[call], source="a")]) > 25
    assert estimate_tokens([FunctionExecutionResultMessage(content=[result])]) > 16
    assert estimate_tokens([thinking]) == estimate_tokens([plain]) + 10
    assert estimate_tokens([], [TOOL]) > 15


@given(st.text(), st.text())
def test_more_text_never_takes_fewer_tokens(one: str, more: str) -> None:
    assert 4 <= estimate_tokens([user(one)]) <= estimate_tokens([user(one + more)])


@pytest.mark.parametrize(
    ("size", "tokens"),
    [((1024, 1024), 765), ((512, 512), 255), ((2048, 4096), 1105), ((100, 50), 255), ((1, 10_000), 765)],
)
def test_a_picture_takes_what_its_squares_take(size: tuple[int, int], tokens: int) -> None:
    assert picture_tokens(png(*size)) == tokens


def test_the_size_of_a_picture_is_found_in_its_first_bytes() -> None:
    header = b"\xff\xd8\xff\xe0\x00\x10JFIF" + b"\0" * 10
    jpeg = Image(header + b"\xff\xc0\x00\x11\x08" + struct.pack(">HH", 512, 1024) + b"\x03" + b"\0" * 9)
    gif = Image(b"GIF89a" + struct.pack("<HH", 512, 1024) + b"\0" * 9)

    assert picture_tokens(jpeg) == picture_tokens(gif) == 85 + 2 * 170
    for damaged in (header, header[:5], b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xff\xff\xff"):
        assert picture_tokens(Image(damaged)) == 765


# --- learning


def test_the_count_nears_what_the_provider_reports() -> None:
    real = 250
    counter = taught(*[real] * 12)

    assert abs(estimate_tokens([user(TEXT)]) - real) > 50
    assert counter.count([user(TEXT)]) == pytest.approx(real, rel=0.05)
    assert taught(real).count([user(TEXT)]) < counter.count([user(TEXT)])


def test_what_is_learnt_is_bounded_and_the_same_reports_lead_to_the_same_counts() -> None:
    dice = random.Random(1)
    reports = [dice.randint(1, 1_000_000) for _ in range(100)]

    assert taught(*reports).count([user(TEXT)]) == taught(*reports).count([user(TEXT)])
    assert taught(*[10**9] * 9).ratio == 3.0
    assert taught(*[1] * 99).ratio == 0.5


def test_pictures_and_schemas_teach_nothing_about_texts() -> None:
    counter = taught(99_999, message=user(["look", png(10, 10)]))
    counter.usage(asked(user(TEXT), json_output=CreateResult), answer(99_999, 1))

    assert counter.ratio == 1.0


def test_a_message_is_counted_once_in_its_life_and_then_forgotten() -> None:
    counter = TokenCounter("m")
    messages = [user(TEXT) for _ in range(50)]
    counter.count(messages)

    assert len(counter._sizes._known) == 50
    del messages
    assert not counter._sizes._known


# --- what was not reported


def test_what_is_not_reported_is_estimated_and_marked_so() -> None:
    question = user(TEXT)
    usage = TokenCounter("m").usage(asked(question), answer(content="word " * 40))

    assert usage == RequestUsage(estimate_tokens([question]), 50, estimated=True)


def test_only_the_number_that_is_missing_is_estimated() -> None:
    counter = TokenCounter("m")

    assert counter.usage(asked(user(TEXT)), answer(7, 0)) == RequestUsage(7, 2, estimated=True)
    assert counter.usage(asked(user(TEXT)), answer(7, 0, content="")) == RequestUsage(7, 0)
    assert counter.ratio < 1.0  # from the second


def test_an_estimate_uses_what_was_learnt_before() -> None:
    counter = taught(*[250] * 12)

    assert counter.usage(asked(user(TEXT)), answer()).prompt_tokens == pytest.approx(250, rel=0.05)


def piece(text: str, finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}


def team(url: str, **options: Any) -> RoundRobinGroupChat:
    client = OpenAIChatCompletionClient(model="m", api_key="k", base_url=url)
    return RoundRobinGroupChat([AssistantAgent("a", client, model_client_stream=True)], max_turns=20, **options)


SILENT = sse_reply(piece("ten words " * 5), piece("", "stop"))  # autogen#5078: streams counted as no tokens


async def test_a_stream_without_usage_is_stopped_by_a_token_termination() -> None:
    async with Loopback([SILENT]) as server:
        result = await team(server.url, termination_condition=TokenUsageTermination(100)).run(task=TEXT)

    assert "Token usage limit reached" in str(result.stop_reason)
    assert result.usage.estimated
    assert result.messages[-1].models_usage == RequestUsage(
        result.usage.prompt_tokens, result.usage.completion_tokens, estimated=True
    )


async def test_a_stream_without_usage_is_stopped_by_a_token_limit() -> None:
    async with Loopback([SILENT]) as server:
        chat = team(server.url, termination_condition=TextMentionTermination("never"))
        result = await chat.run(task="x", limits=RunLimits(tokens=100))

    assert str(result.stop_reason).startswith("limit reached: tokens (")


async def test_a_client_counts_better_after_an_answer() -> None:
    body = {
        "choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 300, "completion_tokens": 1},
    }
    async with Loopback([json_reply(body)]) as server:
        async with OpenAIChatCompletionClient(model="m", api_key="k", base_url=server.url) as client:
            before = client.count_tokens([user(TEXT)]), client.remaining_tokens([user(TEXT)])
            await client.create([user(TEXT)])
            after = client.count_tokens([user(TEXT)]), client.remaining_tokens([user(TEXT)])

    assert before[0] < after[0] < 300
    assert before[1] - after[1] == after[0] - before[0]


async def test_what_a_client_learns_scales_what_a_context_counted_before() -> None:
    client = OpenAIChatCompletionClient(model="m", api_key="k", base_url="http://127.0.0.1:1/v1")
    context = TokenLimitedChatCompletionContext(client, token_limit=4 * estimate_tokens([user(TEXT)]))
    for _ in range(4):
        await context.add_message(user(TEXT))

    before = len(await context.get_messages())
    for _ in range(20):
        client._tokens.usage(asked(user(TEXT)), answer(2 * estimate_tokens([user(TEXT)]), 1))

    assert (before, len(await context.get_messages())) == (4, 2)


# --- vocabularies


def test_a_vocabulary_is_only_looked_for_where_a_model_has_one(tmp_path: Path) -> None:
    here = {"TIKTOKEN_CACHE_DIR": str(tmp_path)}

    assert vocabulary("claude-opus-4-5", here) is None
    assert vocabulary("gpt-4o", here) is None  # it is not there, and nobody fetches it


def test_a_damaged_vocabulary_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "fb374d419588a4632f3f557e76b4b70aebbca790"
    file.write_bytes(b"damaged")

    assert vocabulary("gpt-4o-mini", {"TIKTOKEN_CACHE_DIR": str(tmp_path)}) is None
    assert file.read_bytes() == b"damaged"


def test_a_tiktoken_that_cannot_be_loaded_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiktoken.py").write_text("raise ImportError('its library is for another machine')")
    (tmp_path / "words").write_bytes(b"words")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(tokens._VOCABULARIES, "o200k_base", ("words", hashlib.sha256(b"words").hexdigest()))

    assert vocabulary("gpt-4o", {"TIKTOKEN_CACHE_DIR": str(tmp_path)}) is None


def test_tokens_are_exact_where_tiktoken_and_its_files_are_here() -> None:
    if importlib.util.find_spec("tiktoken") is None or (count := vocabulary("gpt-4o", os.environ)) is None:
        pytest.skip("needs tiktoken, and TIKTOKEN_CACHE_DIR with its files")

    assert count("How much wood would a woodchuck chuck?") == 10
    assert TokenCounter("openai/gpt-4o-mini").count([SystemMessage(content=TEXT)]) == 4 + count(TEXT)
