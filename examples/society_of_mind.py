"""A writer and a critic are one author to the outside: an editor hears the outcome, not the quarrel.

Offline it speaks from a script; name a model to make it think:
`TINYGEN_MODEL=openai:gpt-4o-mini python examples/society_of_mind.py`
"""

import asyncio
import os

from tinygen import (
    AssistantAgent,
    ChatCompletionClient,
    Console,
    ReplayChatCompletionClient,
    RoundRobinGroupChat,
    SocietyOfMindAgent,
    TextMentionTermination,
    create_client,
)


def model(*script: str) -> ChatCompletionClient:
    name = os.environ.get("TINYGEN_MODEL")
    return create_client(name) if name else ReplayChatCompletionClient(list(script))


async def main() -> None:
    writer = AssistantAgent(
        "writer",
        model("Rain falls on the roof.", "Rain counts the roof tiles, one by one, and starts again."),
        system_message="Write one line of poetry, and better it when criticised.",
    )
    critic = AssistantAgent(
        "critic",
        model("That is a report, not a line.", "Yes. APPROVE"),
        system_message="Criticise the line in a few words. Answer APPROVE when it is good.",
    )
    inner = RoundRobinGroupChat([writer, critic], termination_condition=TextMentionTermination("APPROVE"), max_turns=6)
    author = SocietyOfMindAgent("author", inner, model("Rain counts the roof tiles, one by one, and starts again."))
    editor = AssistantAgent(
        "editor",
        model("We print it on page three."),
        system_message="You edit a magazine. Say in one sentence what happens to the line you are given.",
    )
    magazine = RoundRobinGroupChat([author, editor], max_turns=2)
    await Console(magazine.run_stream(task="A line about rain, please."))


if __name__ == "__main__":
    asyncio.run(main())
