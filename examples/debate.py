"""A debate: two sides argue in a team of their own, then a judge who heard them all decides.

Offline it speaks from a script; name a model to make it think: `TINYGEN_MODEL=openai:gpt-4o-mini`.
"""

import asyncio
import os

from tinygen import (
    AssistantAgent,
    ChatCompletionClient,
    Console,
    ReplayChatCompletionClient,
    RoundRobinGroupChat,
    create_client,
)


def model(*script: str) -> ChatCompletionClient:
    name = os.environ.get("TINYGEN_MODEL")
    return create_client(name) if name else ReplayChatCompletionClient(list(script))


def side(name: str, opinion: str, *script: str) -> AssistantAgent:
    return AssistantAgent(
        name, model(*script), system_message=f"You argue {opinion}, in two sentences. Answer what the other side said."
    )


async def main() -> None:
    debate = RoundRobinGroupChat(
        [
            side("pro", "for the motion", "Fewer meetings, more work done.", "A page that is read informs as well."),
            side("contra", "against the motion", "People learn of problems there.", "Who asks back to a page?"),
        ],
        max_turns=4,
        name="debate",
    )
    judge = AssistantAgent(
        "judge",
        model("The motion is lost: the question of who asks back was not answered."),
        system_message="You judge debates. Name the side that argued better, and the argument that decided it.",
    )
    team = RoundRobinGroupChat([debate, judge], max_turns=2)
    await Console(team.run_stream(task="The motion: the weekly meeting shall be replaced by a written page."))


if __name__ == "__main__":
    asyncio.run(main())
