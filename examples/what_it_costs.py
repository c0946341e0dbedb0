"""What a run costs, by agent and by model: two agents, a tool, and one model whose price nobody knows.

Offline it speaks from a script; name a model to make it think: `TINYGEN_MODEL=openai:gpt-4o-mini`.
"""

import asyncio
import os
from typing import Any

from tinygen import (
    PRICES,
    AssistantAgent,
    ChatCompletionClient,
    FunctionCall,
    ModelInfo,
    ReplayChatCompletionClient,
    RoundRobinGroupChat,
    create_client,
)

PRICES["our-own-model"] = {"prompt": 0.20, "completion": 0.80}  # a line for each model that the table does not have


def model(name: str, *script: Any) -> ChatCompletionClient:
    if chosen := os.environ.get("TINYGEN_MODEL"):
        return create_client(chosen)
    info: ModelInfo = {
        "family": name,
        "vision": False,
        "function_calling": True,
        "json_output": True,
        "structured_output": True,
    }
    if name in PRICES:  # clients of providers look for themselves
        info["price"] = PRICES[name]
    return ReplayChatCompletionClient(list(script), model_info=info)


async def population(city: str) -> str:
    """Tells how many people live in a city."""
    return f"717,710 people live in {city}."


def shown(cost: float | None) -> str:
    return "unknown" if cost is None else f"${cost:.6f}"


async def main() -> None:
    call = [FunctionCall("1", '{"city": "Oslo"}', "population")]
    clerk = AssistantAgent(
        "clerk",
        model("our-own-model", call, "717,710 people live in Oslo."),
        tools=[population],
        reflect_on_tool_use=True,
    )
    poet = AssistantAgent("poet", model("somebodys-model", "Seven hundred thousand dreams beside the fjord."))
    result = await RoundRobinGroupChat([clerk, poet], max_turns=2).run(task="How big is Oslo? Make a verse of it.")

    usage = result.usage
    print(f"{usage.model_calls} model calls, {usage.tool_calls} tool call: {shown(usage.cost)}")
    print(f"what is known of it: {shown(usage.known_cost)}")
    for title, parts in (("agent", usage.by_agent), ("model", usage.by_model), ("tool", usage.by_tool)):
        for name, part in parts.items():
            print(f"  {title} {name}: {part.prompt_tokens} + {part.completion_tokens} tokens, {shown(part.cost)}")


if __name__ == "__main__":
    asyncio.run(main())
