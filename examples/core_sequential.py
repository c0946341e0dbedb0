"""A line of agents: each does its part and hands its result to the next by publishing to the next one's topic."""

import asyncio
from dataclasses import dataclass
from functools import partial

from tinygen import (
    ChatCompletionClient,
    MessageContext,
    ReplayChatCompletionClient,
    ReplayRequest,
    RoutedAgent,
    SingleThreadedAgentRuntime,
    SystemMessage,
    TopicId,
    TypeSubscription,
    UserMessage,
    message_handler,
)


@dataclass
class Text:
    content: str


class Station(RoutedAgent):
    """Asks its model to do one thing with a text, and passes it on."""

    def __init__(self, instruction: str, model: ChatCompletionClient, next_topic: str) -> None:
        super().__init__(instruction)
        self.instruction, self.model, self.next_topic = instruction, model, next_topic

    @message_handler
    async def on_text(self, message: Text, ctx: MessageContext) -> None:
        question = UserMessage(content=message.content, source="user")
        result = await self.model.create([SystemMessage(content=self.instruction), question])
        print(f"{self.id.type}: {result.content}")
        await self.publish_message(Text(str(result.content)), TopicId(self.next_topic, self.id.key))


class Printer(RoutedAgent):
    @message_handler
    async def on_text(self, message: Text, ctx: MessageContext) -> None:
        print(f"done: {message.content}")


def model(request: ReplayRequest) -> str:
    """Stands in for a model: it marks what it was given with what it was told to do."""
    return f"{request.messages[1].content} > {request.messages[0].content}"


async def main() -> None:
    runtime, client = SingleThreadedAgentRuntime(), ReplayChatCompletionClient(model)
    line = ["extract the facts", "write it down", "polish it"]
    for at, instruction in enumerate(line):
        following = f"step{at + 1}" if at + 1 < len(line) else "out"
        await Station.register(runtime, f"station{at}", partial(Station, instruction, client, following))
        await runtime.add_subscription(TypeSubscription(f"step{at}", f"station{at}"))
    await Printer.register(runtime, "printer", lambda: Printer("Prints"))
    await runtime.add_subscription(TypeSubscription("out", "printer"))

    runtime.start()
    await runtime.publish_message(Text("a bottle that keeps water cool"), TopicId("step0", "order-1"))
    await runtime.stop_when_idle()


if __name__ == "__main__":
    asyncio.run(main())
