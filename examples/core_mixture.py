"""A mixture of agents: layers of workers answer side by side, each layer seeing the answers of the one before.

An orchestrator sends the task to the workers of a layer, gathers their answers, and asks once more at the end to make
one answer of all.
"""

import asyncio
from dataclasses import dataclass

from tinygen import (
    AgentId,
    ChatCompletionClient,
    MessageContext,
    ReplayChatCompletionClient,
    ReplayRequest,
    RoutedAgent,
    SingleThreadedAgentRuntime,
    UserMessage,
    message_handler,
)

LAYERS, WORKERS = 2, 3


@dataclass
class Question:
    text: str
    earlier: list[str]


@dataclass
class Answer:
    text: str


async def ask(model: ChatCompletionClient, text: str, earlier: list[str]) -> str:
    seen = "".join(f"\n{number}. {each}" for number, each in enumerate(earlier, 1))
    result = await model.create([UserMessage(content=f"{text}{seen and f' Others said:{seen}'}", source="user")])
    return str(result.content)


class Worker(RoutedAgent):
    def __init__(self, model: ChatCompletionClient) -> None:
        super().__init__("Answers with a model")
        self.model = model

    @message_handler
    async def on_question(self, message: Question, ctx: MessageContext) -> Answer:
        return Answer(f"{self.id.key} says {await ask(self.model, message.text, message.earlier)}")


class Orchestrator(RoutedAgent):
    def __init__(self, model: ChatCompletionClient) -> None:
        super().__init__("Leads the workers")
        self.model = model

    @message_handler
    async def on_question(self, message: Question, ctx: MessageContext) -> Answer:
        answers = message.earlier
        for layer in range(LAYERS):
            workers = [AgentId("worker", f"{layer}-{number}") for number in range(WORKERS)]
            asked = Question(message.text, answers)
            answers = [each.text for each in await asyncio.gather(*(self.send_message(asked, it) for it in workers))]
            print(f"layer {layer}:", *answers, sep="\n  ")
        return Answer(await ask(self.model, message.text, answers))


def model(request: ReplayRequest) -> str:
    """Stands in for a model: tells how many answers it has seen."""
    return f"{str(request.messages[-1].content).count(' says ')} answers read"


async def main() -> None:
    runtime, client = SingleThreadedAgentRuntime(), ReplayChatCompletionClient(model)
    await Worker.register(runtime, "worker", lambda: Worker(client))
    await Orchestrator.register(runtime, "orchestrator", lambda: Orchestrator(client))
    runtime.start()
    answer = await runtime.send_message(Question("Why is the sky blue?", []), AgentId("orchestrator", "default"))
    await runtime.stop_when_idle()
    print(f"together: {answer.text}")
    assert answer.text == f"{WORKERS} answers read"


if __name__ == "__main__":
    asyncio.run(main())
