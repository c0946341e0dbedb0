"""What models cost, by their names."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from loopback import Loopback, json_reply
from tinygen import (
    PRICES,
    AssistantAgent,
    ConfigError,
    FunctionCall,
    OpenAIChatCompletionClient,
    ReplayChatCompletionClient,
    RequestUsage,
    RunLimits,
    UserMessage,
)
from tinygen.models import permissive, prices
from tinygen.models.prices import price_of
from tinygen.usage import cost_of

ANSWER = {
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "prompt_tokens_details": {"cached_tokens": 400}},
}


async def usage_of(**options: Any) -> Any:
    limits = options.pop("limits", None)
    async with Loopback([json_reply(ANSWER)]) as server:
        async with OpenAIChatCompletionClient(api_key="k", base_url=server.url, **options) as client:
            return (await AssistantAgent("a", client).run(task="x", limits=limits)).usage


def test_the_table_is_dated_and_each_price_can_be_one() -> None:
    assert date.fromisoformat(prices.AS_OF) < date(2100, 1, 1)
    for price in PRICES.values():
        for part in (price, price.get("above", price)):
            assert 0 < part.get("cached", 0.001) < part["prompt"] < part["completion"] < 1000


@pytest.mark.parametrize(
    "name",
    ["gpt-4o", "openai/gpt-4o", "GPT-4o", "gpt-4o-2024-08-06", "gpt-4o-latest", "gpt-4o@20240806", "gpt-4o-001"],
)
def test_a_model_is_known_with_its_maker_before_it_and_a_version_after_it(name: str) -> None:
    assert price_of(name) == PRICES["gpt-4o"]


@pytest.mark.parametrize("name", ["gpt-5-pro", "gpt-4o-audio-preview", "o3-pro", "gpt-5.5-pro", "claude-opus-4-1", ""])
def test_another_model_of_the_same_family_has_no_known_price(name: str) -> None:
    assert price_of(name) is None


def test_a_version_with_a_price_of_its_own_has_that_price() -> None:
    assert price_of("gpt-4o-2024-05-13") == {"prompt": 5.0, "completion": 15.0}
    assert price_of("claude-opus-4-5-20251101") == PRICES["claude-opus-4-5"]
    assert price_of("claude-opus-5-5") != price_of("claude-opus-5")


async def test_a_known_model_is_charged_by_the_table_under_its_name() -> None:
    usage = await usage_of(model="gpt-4o-mini-2024-07-18")

    assert usage.cost == pytest.approx((600 * 0.15 + 400 * 0.075 + 100 * 0.60) / 1e6)
    assert list(usage.by_model) == ["gpt-4o-mini-2024-07-18"]


def test_what_a_provider_keeps_from_now_on_is_charged_more() -> None:
    used = RequestUsage(1000, 10, cached_tokens=500, cache_write_tokens=300, cache_write_1h_tokens=100)
    opus = price_of("claude-opus-4-5")

    assert cost_of(used, opus) == pytest.approx((200 * 5 + 500 * 0.5 + 200 * 6.25 + 100 * 10 + 10 * 25) / 1e6)
    assert cost_of(used, {"prompt": 5, "completion": 25}) == pytest.approx((1000 * 5 + 10 * 25) / 1e6)
    assert cost_of(used, {"prompt": 5, "completion": 25, "cache_write": 6}) == pytest.approx(5550 / 1e6)


async def test_a_model_that_is_not_in_the_table_has_an_unknown_cost() -> None:
    assert (await usage_of(model="my-model")).cost is None


async def test_a_model_that_the_request_names_is_charged_under_that_name() -> None:
    async with Loopback([json_reply(ANSWER), json_reply(ANSWER)]) as server:
        client = OpenAIChatCompletionClient(api_key="k", base_url=server.url, model="gpt-4o-mini")

        async def look_up() -> str:
            """Asks other models."""
            for name in ("gpt-4o", "my-model"):
                await client.create([UserMessage(content="x", source="a")], extra_create_args={"model": name})
            return "done"

        model = ReplayChatCompletionClient([[FunctionCall("1", "{}", "look_up")]])
        usage = (await AssistantAgent("a", model, tools=[look_up]).run(task="x")).usage
        await client.close()

    assert usage is not None
    assert usage.by_model["gpt-4o"].cost == pytest.approx((600 * 2.5 + 400 * 1.25 + 1e3) / 1e6)
    assert (usage.by_model["my-model"].cost, "gpt-4o-mini" in usage.by_model) == (None, False)


async def test_a_price_is_added_to_the_table_with_one_line() -> None:
    PRICES["my-model"] = {"prompt": 1000.0, "completion": 1000.0}
    try:
        assert (await usage_of(model="my-model", limits=RunLimits(cost=5))).cost == pytest.approx(1.1)
    finally:
        del PRICES["my-model"]


async def test_the_price_of_a_client_goes_before_the_table() -> None:
    info = {"vision": False, "function_calling": True, "json_output": True, "family": "x", "structured_output": True}

    usage = await usage_of(model="gpt-4o", model_info={**info, "price": {"prompt": 1e3, "completion": 0}})

    assert usage.cost == pytest.approx(1.0)
    assert (await usage_of(model="gpt-4o", model_info=info)).cost == pytest.approx((600 * 2.5 + 400 * 1.25 + 1e3) / 1e6)


@pytest.mark.parametrize(
    "price",
    [
        {"prompt": "1", "completion": "2"},
        {"prompt": 1},
        {"prompt": 1, "completion": -2e9},
        {"prompt": 1, "completion": float("nan")},
        {"prompt": 1, "completion": 1, "cached": "free"},
        {"prompt": 1, "completion": 1, "cache_write": "2"},
        {"prompt": 1, "completion": 1, "above": {"tokens": 10, "prompt": 2}},
        {"prompt": 1, "completion": 1, "above": {"prompt": 2, "completion": 2}},
        [1, 2],
    ],
)
@pytest.mark.parametrize("where", ["table", "info"])
async def test_a_price_that_is_none_is_refused_before_the_first_call_and_names_the_model(
    where: str, price: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    more: dict[str, Any] = {}
    if where == "table":
        monkeypatch.setitem(PRICES, "q", price)
    else:
        more = {"model_info": {**permissive("x"), "price": price}}
    async with Loopback([json_reply(ANSWER)]) as server:
        client = OpenAIChatCompletionClient(base_url=server.url, model="q", **more)
        with pytest.raises(ConfigError, match="the price of model 'q' cannot be used: "):
            await AssistantAgent("a", client).run(task="x")

    assert server.requests == []


@pytest.mark.parametrize("price", [{"prompt": 0, "completion": 0}, {"prompt": Decimal(1), "completion": Decimal(2)}])
async def test_a_price_may_be_nothing_and_any_number(price: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRICES, "q", price)

    assert (await usage_of(model="q")).cost == float(sum(price.values()) and 0.0012)
