"""A debate: solvers who know only their neighbours exchange answers for some rounds; an aggregator takes the majority.

No agent sees the whole. A solver publishes to its own topic, and its neighbours subscribe to that.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass

from tinygen import (
    ChatCompletionClient,
    DefaultTopicId,
    MessageContext,
    ReplayChatCompletionClient,
    ReplayRequest,
    RoutedAgent,
    SingleThreadedAgentRuntime,
    TopicId,
    TypeSubscription,
    UserMessage,
    default_subscription,
    message_handler,
)

ROUNDS = 3
FIRST_GUESSES = {"a": "41", "b": "42", "c": "42", "d": "42"}


@dataclass
class Problem:
    text: str


@dataclass
class Guess:
    answer: str
    round: int


@dataclass
class Final:
    answer: str


class Solver(RoutedAgent):
    def __init__(self, model: ChatCompletionClient, neighbours: int) -> None:
        super().__init__("Solves a problem with its neighbours")
        self.model, self.neighbours = model, neighbours
        self.heard: dict[int, list[str]] = {}
        self.answer = ""

    @message_handler
    async def on_problem(self, message: Problem, ctx: MessageContext) -> None:
        await self.say(FIRST_GUESSES[self.id.type], 0)

    @message_handler
    async def on_guess(self, message: Guess, ctx: MessageContext) -> None:
        heard = self.heard.setdefault(message.round, [])
        heard.append(message.answer)
        if len(heard) == self.neighbours:  # the round is complete
            asked = UserMessage(content=" ".join([self.answer, *sorted(heard)]), source=self.id.type)
            await self.say(str((await self.model.create([asked])).content), message.round + 1)

    async def say(self, answer: str, round: int) -> None:
        self.answer = answer
        print(f"round {round}: {self.id.type} thinks {answer}")
        if round < ROUNDS:
            await self.publish_message(Guess(answer, round), TopicId(f"from_{self.id.type}", "default"))
        else:
            await self.publish_message(Final(answer), DefaultTopicId())


@default_subscription
class Aggregator(RoutedAgent):
    finals: list[str] = []

    @message_handler
    async def on_problem(self, message: Problem, ctx: MessageContext) -> None:
        self.finals = []

    @message_handler
    async def on_final(self, message: Final, ctx: MessageContext) -> None:
        self.finals.append(message.answer)
        if len(self.finals) == len(FIRST_GUESSES):
            print(f"the answer is {Counter(self.finals).most_common(1)[0][0]}")


def model(request: ReplayRequest) -> str:
    """Stands in for a model: it sides with the majority, or keeps its own answer."""
    answers = str(request.messages[-1].content).split()
    return Counter(answers).most_common(1)[0][0]


async def main() -> None:
    runtime, client, names = SingleThreadedAgentRuntime(), ReplayChatCompletionClient(model), list(FIRST_GUESSES)
    await Aggregator.register(runtime, "aggregator", lambda: Aggregator("Counts"))
    for at, name in enumerate(names):
        await Solver.register(runtime, name, lambda: Solver(client, neighbours=2))
        await runtime.add_subscription(TypeSubscription("problems", name))
        for neighbour in (names[at - 1], names[(at + 1) % len(names)]):
            await runtime.add_subscription(TypeSubscription(f"from_{neighbour}", name))
    runtime.start()
    await runtime.publish_message(Problem("What is six times seven?"), TopicId("problems", "default"))
    await runtime.stop_when_idle()


if __name__ == "__main__":
    asyncio.run(main())
