"""What model calls use: the tokens of one, and what a run used in all, by agent, by model and by tool."""

from __future__ import annotations

from dataclasses import field

from .errors import ConfigError
from .records import SPARSE, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    Key = tuple[str, str, tuple[str, ...]]  # agent, model ("" for a call of a tool), the tools it was inside of

MILLION = 1_000_000  # tokens that a price is for

_sound: dict[str, Mapping[str, Any]] = {}  # the price of a model that was tried last


class RequestUsage(Record, kw_only=False, tagged=False):
    """Tokens of one model call, or of several together.

    `cached_tokens` are those of the prompt that the provider had kept, `reasoning_tokens` those of the completion that
    are thinking; both are 0 where nothing was reported. `estimated` says that some number here was not reported.
    `cache_write_tokens` are those of the prompt that the provider keeps from now on, at a surcharge; of them,
    `cache_write_1h_tokens` for an hour.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = field(default=0, metadata=SPARSE)
    reasoning_tokens: int = field(default=0, metadata=SPARSE)
    estimated: bool = field(default=False, metadata=SPARSE)
    cache_write_tokens: int = field(default=0, metadata=SPARSE)
    cache_write_1h_tokens: int = field(default=0, metadata=SPARSE)

    def __add__(self, other: RequestUsage) -> RequestUsage:
        return RequestUsage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.estimated or other.estimated,
            self.cache_write_tokens + other.cache_write_tokens,
            self.cache_write_1h_tokens + other.cache_write_1h_tokens,
        )


class PartUsage(RequestUsage, kw_only=False, tagged=False):
    """What one agent, model or tool used. `cost` is None as soon as one of its model calls has no known price.

    `calls` counts model calls; of a tool it says how often that was called, and the rest is what was used inside of it.
    """

    calls: int = field(default=0, metadata=SPARSE)
    cost: float | None = field(default=None, metadata=SPARSE)


class RunUsage(RequestUsage, kw_only=False, tagged=False):
    """What a run used, with all it started: agents used as tools and teams in teams are part of it.

        result = await team.run(task="...")
        print(result.usage.cost, {name: part.cost for name, part in result.usage.by_agent.items()})

    `cost` is in the currency of the prices, and None as soon as one model call has no known price. `by_agent` and
    `by_model` divide the whole among who made the model calls and who answered them; a team's own calls are under its
    name. `by_tool` tells what was used inside of calls of each tool, so a tool called inside another one is in both.
    Two runs can be added.
    """

    cost: float | None = field(default=None, metadata=SPARSE)
    model_calls: int = field(default=0, metadata=SPARSE)
    tool_calls: int = field(default=0, metadata=SPARSE)
    by_agent: dict[str, PartUsage] = field(default_factory=dict, metadata=SPARSE)
    by_model: dict[str, PartUsage] = field(default_factory=dict, metadata=SPARSE)
    by_tool: dict[str, PartUsage] = field(default_factory=dict, metadata=SPARSE)

    @property
    def known_cost(self) -> float:
        """What the models with known prices cost, also where `cost` is None."""
        return sum(part.cost or 0.0 for part in self.by_model.values()) if self.cost is None else self.cost

    def __add__(self, other: RequestUsage) -> RequestUsage:
        if not isinstance(other, RunUsage):
            return RequestUsage.__add__(self, other)
        total = RunUsage(0, 0, cost=self.cost)
        for each in (self, other):
            _add_tokens(total, each)
            total.model_calls += each.model_calls
            total.tool_calls += each.tool_calls
            for name in ("by_agent", "by_model", "by_tool"):
                for key, part in getattr(each, name).items():
                    count(getattr(total, name), key, part, part.cost, part.calls)
        total.cost = None if self.cost is None or other.cost is None else self.cost + other.cost
        return total


class Charge(Record, tagged=False):
    """What one agent used of one model, inside of `tools`, the outermost first; without a model, calls of the last."""

    agent: str
    model: str
    tools: list[str]
    used: PartUsage


def count(parts: dict[Any, PartUsage], key: Any, usage: RequestUsage, cost: float | None, calls: int = 1) -> None:
    """Count what model calls used in the part of this key. A part that used nothing yet costs 0, which is known."""
    part = parts.get(key)
    if part is None:
        part = parts[key] = PartUsage(0, 0, cost=0.0)
    part.calls += calls
    part.cost = None if part.cost is None or cost is None else part.cost + cost
    _add_tokens(part, usage)


def divide(usage: RunUsage, parts: Mapping[Key, PartUsage]) -> None:
    """Fill the parts of `usage`, which are by agent, model and tool, with those of `parts`."""
    for (agent, model, tools), part in parts.items():
        if not model:
            count(usage.by_tool, tools[-1], part, part.cost, part.calls)
            continue
        count(usage.by_agent, agent, part, part.cost, part.calls)
        count(usage.by_model, model, part, part.cost, part.calls)
        for name in {*tools}:
            count(usage.by_tool, name, part, part.cost, 0)
        _add_details(usage, part)


def cost_of(usage: RequestUsage, price: Mapping[str, Any] | None) -> float | None:
    """What a model call cost; None if the price is not known.

    Args:
        usage: its tokens.
        price: of a million tokens: `prompt`, `completion`, perhaps `cached` for the part of the prompt that the
            provider had kept, `cache_write` and `cache_write_1h` for the part that it keeps from now on, and perhaps
            `above`, a price for requests whose prompt has more than its `tokens`.
    """
    if price is None:
        return None
    try:
        if (above := price.get("above")) is not None and usage.prompt_tokens > above["tokens"]:
            price = above
        full, cached = price["prompt"], min(usage.cached_tokens, usage.prompt_tokens)
        spent = (usage.prompt_tokens - cached) * full + usage.completion_tokens * price["completion"]
        spent += cached * price.get("cached", full)
        if usage.cache_write_tokens:
            long, write = usage.cache_write_1h_tokens, price.get("cache_write", full)
            spent += (usage.cache_write_tokens - long) * (write - full)
            spent += long * (price.get("cache_write_1h", write) - full)
        return float(spent / MILLION)
    except (AttributeError, KeyError, TypeError) as error:
        raise ConfigError(
            f"a price is {{'prompt': ..., 'completion': ..., 'cached': ...}} per million tokens, not {price!r:.200}"
        ) from error


def sound_price(model: str, price: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The price, tried once, also what is `above`, on a call with tokens of every kind. Raises `ConfigError`."""
    if price is None or _sound.get(model) is price:
        return price
    try:
        sizes = (4, price["above"]["tokens"] + 4) if price.get("above") is not None else (4,)
        for size in sizes:
            used = RequestUsage(size, 1, 1, cache_write_tokens=2, cache_write_1h_tokens=1)
            if not 0 <= (cost := cost_of(used, price) or 0.0) < float("inf"):
                raise ConfigError(f"a call would cost {cost:g} by {price!r:.200}")
    except (AttributeError, KeyError, TypeError, ConfigError) as error:
        raise ConfigError(f"the price of model {model!r} cannot be used: {error}") from error
    _sound[model] = price
    return price


def _add_tokens(total: RequestUsage, usage: RequestUsage) -> None:
    total.prompt_tokens += usage.prompt_tokens
    total.completion_tokens += usage.completion_tokens
    _add_details(total, usage)


def _add_details(total: RequestUsage, usage: RequestUsage) -> None:
    if usage.cached_tokens:
        total.cached_tokens += usage.cached_tokens
    if usage.reasoning_tokens:
        total.reasoning_tokens += usage.reasoning_tokens
    if usage.estimated:
        total.estimated = True
    if usage.cache_write_tokens:
        total.cache_write_tokens += usage.cache_write_tokens
        total.cache_write_1h_tokens += usage.cache_write_1h_tokens
