"""A planner, a writer and a critic take turns until the critic approves.

AutoGen's program with its imports changed. Offline it speaks from a script; name a model to make it think:
`TINYGEN_MODEL=openai:gpt-4o-mini python examples/round_robin.py`
"""

import asyncio
import os

from tinygen import (
    AssistantAgent,
    ChatCompletionClient,
    Console,
    ReplayChatCompletionClient,
    RoundRobinGroupChat,
    TextMentionTermination,
    create_client,
)


def model(*script: str) -> ChatCompletionClient:
    name = os.environ.get("TINYGEN_MODEL")
    return create_client(name) if name else ReplayChatCompletionClient(list(script))


async def main() -> None:
    planner = AssistantAgent(
        "planner",
        model_client=model("1. Say what it is. 2. Say why it matters.", "Keep the plan; shorten the second step."),
        system_message="You break the task into steps.",
    )
    writer = AssistantAgent(
        "writer",
        model_client=model(
            "An actor is a small program with a mailbox.", "An actor is a program with a mailbox: no locks."
        ),
        system_message="You write what the plan asks for.",
    )
    critic = AssistantAgent(
        "critic",
        model_client=model("Why does it matter?", "Short and true. APPROVE"),
        system_message="You criticise. Answer APPROVE when it is good.",
    )
    team = RoundRobinGroupChat(
        [planner, writer, critic],
        termination_condition=TextMentionTermination("APPROVE"),
        max_turns=8,
    )
    result = await Console(team.run_stream(task="Explain actors in one sentence."))
    print(result.stop_reason)


if __name__ == "__main__":
    asyncio.run(main())
