"""A run that needs a person who is not there: it returns, is saved, and goes on elsewhere when the answer is in."""

import asyncio
import json

from tinygen import AssistantAgent, ReplayChatCompletionClient, RoundRobinGroupChat, UserProxyAgent, suspend


def team(*script: str) -> RoundRobinGroupChat:
    clerk = AssistantAgent("clerk", ReplayChatCompletionClient(list(script)))
    return RoundRobinGroupChat([clerk, UserProxyAgent("customer", input_func=suspend)], max_turns=3)


async def main() -> None:
    first = team("A refund is 20 euros. Do you accept?")
    result = await first.run(task="I want my money back.")
    question = result.pending[0]
    print(result.stop_reason, "of", question.source)
    document = json.dumps(await first.save_state())  # keep it anywhere; the process may end here

    later = team("Thank you, it is on its way.")
    await later.load_state(json.loads(document))
    later.answer(question.id, "Yes.")
    result = await later.run(task="I want my money back.")
    print([message.to_text() for message in result.messages], result.stop_reason)


if __name__ == "__main__":
    asyncio.run(main())
