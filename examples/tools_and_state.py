"""An assistant with a tool, whose conversation is kept in a JSON file and continued by another object."""

import asyncio
import json
from pathlib import Path
from tempfile import TemporaryDirectory

from tinygen import AssistantAgent, FunctionCall, ReplayChatCompletionClient


async def get_weather(city: str) -> str:
    """Tells the weather of a city."""
    return f"It is 23 degrees and sunny in {city}."


def assistant(*script: str | list[FunctionCall]) -> AssistantAgent:
    return AssistantAgent(
        "assistant",
        model_client=ReplayChatCompletionClient(list(script)),
        tools=[get_weather],
        reflect_on_tool_use=True,
    )


async def main() -> None:
    agent = assistant(
        [FunctionCall("1", '{"city": "Paris"}', "get_weather")], "Sunny and 23 degrees: a good day for a walk."
    )
    result = await agent.run(task="How is the weather in Paris?")
    print(result.messages[-1].to_text())
    with TemporaryDirectory() as folder:
        path = Path(folder) / "assistant.json"
        path.write_text(json.dumps(await agent.save_state()))
        later = assistant("You asked about Paris.")
        await later.load_state(json.loads(path.read_text()))
    result = await later.run(task="Which city did I ask about?")
    print(result.messages[-1].to_text())


if __name__ == "__main__":
    asyncio.run(main())
