"""Reflection: a writer drafts, a critic reviews in a form of its own, the writer improves, until the review approves.

Offline it speaks from a script; name a model to make it think: `TINYGEN_MODEL=openai:gpt-4o-mini`.
"""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass

from tinygen import (
    AssistantAgent,
    BaseAgentEvent,
    BaseChatMessage,
    ChatCompletionClient,
    Console,
    FunctionalTermination,
    ReplayChatCompletionClient,
    RoundRobinGroupChat,
    StructuredMessage,
    create_client,
)


@dataclass
class Review:
    approved: bool
    advice: str


def model(*script: str) -> ChatCompletionClient:
    name = os.environ.get("TINYGEN_MODEL")
    return create_client(name) if name else ReplayChatCompletionClient(list(script))


def is_approved(messages: Sequence[BaseAgentEvent | BaseChatMessage]) -> bool:
    last = messages[-1]
    return isinstance(last, StructuredMessage) and last.content.approved is True


async def main() -> None:
    writer = AssistantAgent(
        "writer",
        model("def mean(xs): return sum(xs) / len(xs)", "def mean(xs): return sum(xs) / len(xs) if xs else 0.0"),
        system_message="You write Python. Answer every review with the whole code, improved.",
    )
    critic = AssistantAgent(
        "critic",
        model('{"approved": false, "advice": "It fails for no numbers."}', '{"approved": true, "advice": "Good."}'),
        system_message="You review code: is it right, also at the edges?",
        output_content_type=Review,
        output_content_type_format="{advice}",
    )
    team = RoundRobinGroupChat([writer, critic], termination_condition=FunctionalTermination(is_approved), max_turns=6)
    await Console(team.run_stream(task="Write a function that gives the mean of numbers."))


if __name__ == "__main__":
    asyncio.run(main())
