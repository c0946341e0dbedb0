"""Four agents plan a journey in turn: a planner, a local guide, one for the language, and one who sums up.

Offline they speak from a script; name a model to make them think:
`TINYGEN_MODEL=openai:gpt-4o-mini python examples/travel_planning.py`
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
        model_client=model("Day 1: Kathmandu. Day 2: drive to Pokhara. Day 3: the lake and a sunrise at Sarangkot."),
        description="Plans journeys day by day.",
        system_message="You plan a journey for what the user asks.",
    )
    guide = AssistantAgent(
        "local_guide",
        model_client=model("In Kathmandu, stay for the evening prayer at Boudhanath; eat momos in a side street."),
        description="Knows places that are not in every guidebook.",
        system_message="You suggest authentic places and things to do, using what the others have said.",
    )
    language = AssistantAgent(
        "language_tips",
        model_client=model("The plan lacks words: 'namaste' greets, 'dhanyabad' thanks. English does in the cities."),
        description="Helps with the language of the country.",
        system_message="You review the plan and add advice on language, or say that it has all it needs.",
    )
    summary = AssistantAgent(
        "travel_summary",
        model_client=model(
            "Day 1: Kathmandu, momos and the prayer at Boudhanath. Day 2: to Pokhara. Day 3: sunrise at Sarangkot, "
            "the lake. Say 'namaste' and 'dhanyabad'. TERMINATE"
        ),
        description="Makes one plan of what the others say.",
        system_message="You unite all advice in one complete plan. When it is complete, end with TERMINATE.",
    )
    team = RoundRobinGroupChat(
        [planner, guide, language, summary],
        termination_condition=TextMentionTermination("TERMINATE"),
        max_turns=12,
    )
    result = await Console(team.run_stream(task="Plan a three day trip to Nepal."))
    print(result.stop_reason)


if __name__ == "__main__":
    asyncio.run(main())
