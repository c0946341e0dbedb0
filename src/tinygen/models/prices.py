"""What models cost: the public prices of their makers, as they were on one day. Change it, or add to it:

    from tinygen import PRICES
    PRICES["my-model"] = {"prompt": 0.2, "completion": 0.8}

Prices are in US dollars per million tokens; `cached` is for the part of a prompt that the provider had kept,
`cache_write` for the part that it keeps from now on, `cache_write_1h` for what it keeps for an hour (`prompt` counts
where one is left out, `cache_write` for an hour too); `above` is for requests whose prompt has more than so many
`tokens`. A price in a client's `model_info["price"]` goes before. What is not here has no known price, which is not the
same as none.

Not in it: discounts for batches and slower service, surcharges for regions and faster service, and what tools of the
provider's own cost.
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

AS_OF = "2026-11-20"  # when these were looked up, each in two public sources that agree

PRICES: dict[str, dict[str, Any]] = {
    "gpt-5.5": {
        "prompt": 5.00,
        "completion": 30.00,
        "cached": 0.50,
        "above": {"tokens": 272_000, "prompt": 10.00, "completion": 45.00, "cached": 1.00},
    },
    "gpt-5.4": {
        "prompt": 2.50,
        "completion": 15.00,
        "cached": 0.25,
        "above": {"tokens": 272_000, "prompt": 5.00, "completion": 22.50, "cached": 0.50},
    },
    "gpt-5.4-mini": {"prompt": 0.75, "completion": 4.50, "cached": 0.075},
    "gpt-5.4-nano": {"prompt": 0.20, "completion": 1.25, "cached": 0.02},
    "gpt-5.2": {"prompt": 1.75, "completion": 14.00, "cached": 0.175},
    "gpt-5.1": {"prompt": 1.25, "completion": 10.00, "cached": 0.125},
    "gpt-5": {"prompt": 1.25, "completion": 10.00, "cached": 0.125},
    "gpt-5-mini": {"prompt": 0.25, "completion": 2.00, "cached": 0.025},
    "gpt-5-nano": {"prompt": 0.05, "completion": 0.40, "cached": 0.005},
    "gpt-4.1": {"prompt": 2.00, "completion": 8.00, "cached": 0.50},
    "gpt-4.1-mini": {"prompt": 0.40, "completion": 1.60, "cached": 0.10},
    "gpt-4.1-nano": {"prompt": 0.10, "completion": 0.40, "cached": 0.025},
    "gpt-4o": {"prompt": 2.50, "completion": 10.00, "cached": 1.25},
    "gpt-4o-2024-05-13": {"prompt": 5.00, "completion": 15.00},
    "gpt-4o-mini": {"prompt": 0.15, "completion": 0.60, "cached": 0.075},
    "o3": {"prompt": 2.00, "completion": 8.00, "cached": 0.50},
    "o4-mini": {"prompt": 1.10, "completion": 4.40, "cached": 0.275},
    "claude-opus-5-5": {"prompt": 4.00, "completion": 20.00, "cached": 0.20},
    "claude-opus-5": {"prompt": 5.00, "completion": 25.00, "cached": 0.50},
    "claude-opus-4-8": {"prompt": 5.00, "completion": 25.00, "cached": 0.50},
    "claude-opus-4-5": {"prompt": 5.00, "completion": 25.00, "cached": 0.50},
    "claude-sonnet-5-5": {"prompt": 2.00, "completion": 10.00, "cached": 0.10},
    "claude-sonnet-5": {"prompt": 2.00, "completion": 10.00, "cached": 0.20},
    "claude-sonnet-4-6": {"prompt": 3.00, "completion": 15.00, "cached": 0.30},
    "claude-sonnet-4-5": {"prompt": 3.00, "completion": 15.00, "cached": 0.30},
    "claude-haiku-4-5": {"prompt": 1.00, "completion": 5.00, "cached": 0.10},
    "gemini-2.5-pro": {
        "prompt": 1.25,
        "completion": 10.00,
        "cached": 0.125,
        "above": {"tokens": 200_000, "prompt": 2.50, "completion": 15.00, "cached": 0.25},
    },
    "gemini-2.5-flash": {"prompt": 0.30, "completion": 2.50, "cached": 0.03},
    "gemini-2.5-flash-lite": {"prompt": 0.10, "completion": 0.40, "cached": 0.01},
}

for _name, _price in PRICES.items():
    if _name.startswith("claude-"):  # of all of Anthropic's models, in the same sources
        _price |= {"cache_write": 1.25 * _price["prompt"], "cache_write_1h": 2.0 * _price["prompt"]}

# a date or a number of a version; other endings (-pro, -audio, -codex) make another model with another price
_VERSION = re.compile(r"(-latest|-\d{4}-\d\d-\d\d|[-@]\d{8}|-\d{3,4})$")


def price_of(model: str) -> dict[str, Any] | None:
    """The price of a model by its name, with or without its maker before it and a date after it; None if not known."""
    found = PRICES.get(model)
    if found is None:
        name = model.rpartition("/")[2].lower()
        found = PRICES.get(name) or PRICES.get(_VERSION.sub("", name))
    return found
