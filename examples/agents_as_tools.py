"""A manager gives tasks to two experts and a team of reviewers, which it calls as tools, and answers.

Experts asked at the same time work side by side; what they say is part of the conversation that is printed.
Offline it speaks from a script; name a model to make it think:
`TINYGEN_MODEL=openai:gpt-4o-mini python examples/agents_as_tools.py`
"""

import asyncio
import json
import os

from tinygen import (
    AgentTool,
    AssistantAgent,
    ChatCompletionClient,
    Console,
    FunctionCall,
    ReplayChatCompletionClient,
    RoundRobinGroupChat,
    TeamTool,
    create_client,
)


def model(*script: str | list[FunctionCall]) -> ChatCompletionClient:
    name = os.environ.get("TINYGEN_MODEL")
    return create_client(name) if name else ReplayChatCompletionClient(list(script))


def ask(name: str, task: str) -> FunctionCall:
    return FunctionCall(id=name, name=name, arguments=json.dumps({"task": task}))


async def main() -> None:
    chemist = AssistantAgent(
        "chemist",
        model("Ethanol burns at 363 °C, and its vapour travels along the floor."),
        description="Knows what substances do.",
        system_message="You are a chemist. Answer in one sentence.",
    )
    lawyer = AssistantAgent(
        "lawyer",
        model("Above 10 litres a flammable-liquids cabinet is required."),
        description="Knows the rules.",
        system_message="You know safety law. Answer in one sentence.",
    )
    reviewers = RoundRobinGroupChat(
        [
            AssistantAgent("optimist", model("It is short and complete."), system_message="Praise in one sentence."),
            AssistantAgent("pessimist", model("Say where the cabinet goes."), system_message="Doubt in one sentence."),
        ],
        max_turns=2,
    )
    manager = AssistantAgent(
        "manager",
        model(
            [ask("chemist", "How does ethanol catch fire?"), ask("lawyer", "How may 20 l of ethanol be stored?")],
            [ask("review", "Keep 20 l of ethanol in a flammable-liquids cabinet.")],
            "Keep the 20 l in a flammable-liquids cabinet near the floor vent, away from anything that sparks.",
        ),
        system_message="Ask the experts, have your answer reviewed, then give it in one sentence.",
        tools=[
            AgentTool(chemist),
            AgentTool(lawyer),
            TeamTool(reviewers, "review", "Two people who review an answer."),
        ],
        max_tool_iterations=5,
    )
    await Console(manager.run_stream(task="We get 20 litres of ethanol. Where do we put it?"))


if __name__ == "__main__":
    asyncio.run(main())
