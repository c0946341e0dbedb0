"""Customer service: a dialogue over several turns, with a knowledge base, moods, tickets, and a person for hard cases.

Offline it speaks from a script; name a model to make it think: `TINYGEN_MODEL=openai:gpt-4o-mini`.
"""

import asyncio
import os
from dataclasses import dataclass
from typing import Literal

from tinygen import (
    AssistantAgent,
    ChatCompletionClient,
    FunctionCall,
    HandoffMessage,
    ReplayChatCompletionClient,
    StructuredMessage,
    UserProxyAgent,
    create_client,
)

KNOWLEDGE = {"delivery": "Delivery takes two to four days.", "refund": "Refunds above 20 euros need a person's word."}
TICKETS: list[str] = []
LIVE = os.environ.get("TINYGEN_MODEL")


@dataclass
class Mood:
    mood: Literal["calm", "worried", "angry"]


async def look_up(word: str) -> str:
    """Searches the knowledge base for a word."""
    found = [text for text in KNOWLEDGE.values() if word.lower() in text.lower()]
    return "\n".join(found) or f"Nothing found; there is something on {', '.join(KNOWLEDGE)}."


async def create_ticket(problem: str, urgent: bool) -> str:
    """Opens a ticket for what has to be done later; returns its number."""
    TICKETS.append(f"{'URGENT: ' if urgent else ''}{problem}")
    return f"ticket {len(TICKETS)}"


def model(*script: str | list[FunctionCall]) -> ChatCompletionClient:
    return create_client(LIVE) if LIVE else ReplayChatCompletionClient(list(script))


async def main() -> None:
    support = AssistantAgent(
        "support",
        model(
            [FunctionCall("1", '{"word": "delivery"}', "look_up")],
            "It takes two to four days.",
            [FunctionCall("2", '{"problem": "The cup came broken.", "urgent": true}', "create_ticket")],
            "I am sorry! A new cup is on its way, see ticket 1.",
            [FunctionCall("3", "{}", "transfer_to_colleague")],
            "My colleague has agreed: you get your 30 euros back today.",
        ),
        tools=[look_up, create_ticket],
        handoffs=["colleague"],
        max_tool_iterations=4,
        system_message="You serve customers kindly and briefly. What you do not know, look up; what has to be done, "
        "make a ticket of; who is angry about money, hand over to your colleague and pass on their decision.",
    )
    reader = AssistantAgent(
        "reader",
        model('{"mood": "calm"}', '{"mood": "worried"}', '{"mood": "angry"}'),
        system_message="Tell the mood of the customer.",
        output_content_type=Mood,
    )
    colleague = UserProxyAgent("colleague", input_func=None if LIVE else lambda prompt: "Pay the 30 euros.")
    for line in ("How long does delivery take?", "My cup came broken!", "I want my 30 euros back, NOW!"):
        read = (await reader.session().run(task=line)).messages[-1]
        mood = read.content.mood if isinstance(read, StructuredMessage) else "unknown"
        answer = (await support.run(task=f"{line} [the customer is {mood}]")).messages[-1]
        while isinstance(answer, HandoffMessage):  # a person decides, and the assistant goes on from there
            decision = (await colleague.run(task=answer)).messages[-1]
            print(f"  colleague: {decision.to_text()}")
            assert isinstance(decision, HandoffMessage)
            answer = (await support.run(task=decision)).messages[-1]
        print(f"customer ({mood}): {line}\nsupport: {answer.to_text()}")
    print(f"tickets: {TICKETS}")


if __name__ == "__main__":
    asyncio.run(main())
