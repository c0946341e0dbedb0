"""A mixture of agents: several propose side by side, layer after layer, and one makes a single answer of it all.

Offline it speaks from a script; name a model to make it think: `TINYGEN_MODEL=openai:gpt-4o-mini`.
"""

import asyncio
import os
from collections.abc import Sequence

from tinygen import (
    AssistantAgent,
    BaseGroupChat,
    ChatCompletionClient,
    Console,
    Floor,
    ReplayChatCompletionClient,
    create_client,
)


class MixtureOfAgents(BaseGroupChat):
    """All but the last participant answer at once, `layers` times, hearing each other in between; then the last."""

    def __init__(self, participants: Sequence[AssistantAgent], *, layers: int = 2) -> None:
        super().__init__(participants, max_turns=layers + 1)
        self.layers = layers

    async def conduct(self, floor: Floor) -> Sequence[str]:
        *proposers, aggregator = self._names
        return proposers if floor.turns < self.layers else [aggregator]


def model(*script: str) -> ChatCompletionClient:
    name = os.environ.get("TINYGEN_MODEL")
    return create_client(name) if name else ReplayChatCompletionClient(list(script))


def proposer(name: str, view: str, *script: str) -> AssistantAgent:
    task = f"You look at questions as {view}. Answer in one sentence; use what is good in the answers of others."
    return AssistantAgent(name, model(*script), system_message=task)


async def main() -> None:
    team = MixtureOfAgents(
        [
            proposer("physicist", "a physicist", "Air scatters blue light most.", "Air scatters short waves most."),
            proposer("biologist", "a biologist", "Our eyes see blue better than violet.", "Eyes miss the violet."),
            proposer("painter", "a painter", "It is pale near the horizon.", "More air, more white: so at the rim."),
            AssistantAgent(
                "aggregator",
                model("Air scatters short waves most; of those our eyes see the blue, paler where there is more air."),
                system_message="Make one short answer of all that was said, without contradictions.",
            ),
        ]
    )
    await Console(team.run_stream(task="Why is the sky blue?"))


if __name__ == "__main__":
    asyncio.run(main())
