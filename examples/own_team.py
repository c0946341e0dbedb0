"""A team of one's own: a policy that says who speaks next, and what it remembers, is all there is to a new kind.

Running, streaming, stopping, saving, sessions and teams within teams come from `BaseGroupChat`.
Offline it speaks from a script; name a model to make it think: `TINYGEN_MODEL=openai:gpt-4o-mini`.
"""

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import Any

from tinygen import (
    AssistantAgent,
    BaseAgentEvent,
    BaseChatMessage,
    BaseGroupChat,
    ChatCompletionClient,
    Console,
    Floor,
    ReplayChatCompletionClient,
    create_client,
)


class Moderated(BaseGroupChat):
    """The first participant moderates: those it addresses as @name answer side by side, then it speaks again.

    It ends the run by addressing nobody.
    """

    _moderators_turn = True

    async def conduct(self, floor: Floor) -> Sequence[str]:
        moderator, *others = self._names
        if self._moderators_turn:
            return [moderator]
        question = floor.thread[-1].to_text()
        return [name for name in others if f"@{name}" in question] or floor.stop("nobody was addressed")

    def note(self, speaker: str | None, said: Sequence[BaseAgentEvent | BaseChatMessage]) -> None:
        self._moderators_turn = speaker != self._names[0]

    def policy_state(self) -> dict[str, Any]:
        return {"moderators_turn": self._moderators_turn}

    def set_policy_state(self, state: Mapping[str, Any] | None) -> None:
        self._moderators_turn = state is None or state.get("moderators_turn") is True


def member(name: str, task: str, *script: str) -> AssistantAgent:
    named = os.environ.get("TINYGEN_MODEL")
    model: ChatCompletionClient = create_client(named) if named else ReplayChatCompletionClient(list(script))
    return AssistantAgent(name, model, system_message=task)


async def main() -> None:
    lead = "You moderate. Address @baker and @guest with questions; sum up without any @ when you know enough."
    team = Moderated(
        [
            member("moderator", lead, "@baker @guest How long shall it bake?", "@baker Is that safe?", "35 minutes."),
            member("baker", "You bake.", "30 minutes at 200 degrees.", "Rather take 35."),
            member("guest", "You like it dark.", "As long as possible."),
        ],
        max_turns=9,
    )
    await Console(team.run_stream(task="Agree on how to bake the bread."))


if __name__ == "__main__":
    asyncio.run(main())
