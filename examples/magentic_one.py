"""An orchestrator leads: it gathers facts, plans, says who does what next, and writes the final answer.

Offline it speaks from a script; name a model to make it think: `TINYGEN_MODEL=openai:gpt-4o-mini`.
"""

import asyncio
import json
import os

from tinygen import (
    AssistantAgent,
    ChatCompletionClient,
    Console,
    FunctionCall,
    MagenticOneGroupChat,
    ReplayChatCompletionClient,
    create_client,
)

POPULATION = {"oslo": 709_000, "bergen": 291_000}


async def look_up(city: str) -> str:
    """Tells how many people live in a city."""
    return str(POPULATION.get(city.lower(), "unknown"))


async def add(numbers: list[int]) -> int:
    """Adds numbers."""
    return sum(numbers)


def ledger(speaker: str, instruction: str, *, done: bool = False) -> str:
    """What the orchestrator's model writes before every turn; a real one is held to this form."""
    answers = {
        "is_request_satisfied": done,
        "is_in_loop": False,
        "is_progress_being_made": True,
        "next_speaker": speaker,
        "instruction_or_question": instruction,
    }
    return json.dumps({key: {"reason": "as planned", "answer": answer} for key, answer in answers.items()})


def model(*script: str | list[FunctionCall]) -> ChatCompletionClient:
    name = os.environ.get("TINYGEN_MODEL")
    return create_client(name) if name else ReplayChatCompletionClient(list(script))


async def main() -> None:
    calls = [FunctionCall(city, json.dumps({"city": city}), "look_up") for city in ("Oslo", "Bergen")]
    sums = [FunctionCall("sum", '{"numbers": [709000, 291000]}', "add")]
    team = MagenticOneGroupChat(
        [
            AssistantAgent("librarian", model(calls), tools=[look_up], description="Looks up how large cities are."),
            AssistantAgent("clerk", model(sums), tools=[add], description="Adds numbers."),
        ],
        model(
            "FACTS TO LOOK UP: how many people live in Oslo and in Bergen.",
            "- librarian: look up both cities\n- clerk: add the two numbers",
            ledger("librarian", "How many people live in Oslo, how many in Bergen?"),
            ledger("clerk", "Please add 709000 and 291000."),
            ledger("clerk", "", done=True),
            "A million people live in Oslo and Bergen together.",
        ),
        max_turns=10,
    )
    await Console(team.run_stream(task="How many people live in Oslo and Bergen together?"))


if __name__ == "__main__":
    asyncio.run(main())
