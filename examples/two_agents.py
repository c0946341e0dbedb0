"""Two agents, as in AutoGen 0.2: an assistant writes code, a proxy runs it and sends back what it printed.

With `human_input_mode="ALWAYS"` the proxy asks you before every reply. Offline the assistant speaks from a script; name
a model to make it think: `TINYGEN_MODEL=openai:gpt-4o-mini python examples/two_agents.py`
"""

import asyncio
import os

from tinygen import (
    AssistantAgent,
    ChatCompletionClient,
    ConversableProxy,
    LocalCommandLineCodeExecutor,
    ReplayChatCompletionClient,
    create_client,
)


def model(*script: str) -> ChatCompletionClient:
    name = os.environ.get("TINYGEN_MODEL")
    return create_client(name) if name else ReplayChatCompletionClient(list(script))


async def main() -> None:
    assistant = AssistantAgent(
        "assistant",
        model_client=model(
            "I add them up.\n```python\nprint(sum(n for n in range(100) if n % 3 == 0 or n % 5 == 0)\n```",
            "A parenthesis is missing.\n```python\nprint(sum(n for n in range(100) if n % 3 == 0 or n % 5 == 0))\n```",
            "The sum is 2318. TERMINATE",
        ),
        system_message="You solve tasks by writing complete Python scripts in ```python blocks. They are run for you, "
        "and you get what they print. When the task is done, say the answer, then TERMINATE.",
    )
    async with LocalCommandLineCodeExecutor(timeout=20) as executor:
        user = ConversableProxy("user", code_executor=executor, human_input_mode="NEVER", max_consecutive_auto_reply=5)
        result = await user.initiate_chat(
            assistant, message="What is the sum of the numbers below 100 that 3 or 5 divides?", max_turns=8
        )
    print(result)


if __name__ == "__main__":
    asyncio.run(main())
