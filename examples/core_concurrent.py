"""Several agents work on one task side by side; a closure collects what they find.

Every worker subscribes to the topic "tasks", so one published task reaches all of them at once.
"""

import asyncio
from dataclasses import dataclass

from tinygen import (
    ClosureAgent,
    ClosureContext,
    DefaultTopicId,
    MessageContext,
    RoutedAgent,
    SingleThreadedAgentRuntime,
    TopicId,
    TypeSubscription,
    default_subscription,
    message_handler,
)


@dataclass
class Task:
    text: str


@dataclass
class Finding:
    by: str
    text: str


@default_subscription
class Worker(RoutedAgent):
    @message_handler
    async def on_task(self, message: Task, ctx: MessageContext) -> None:
        await asyncio.sleep(0.01)  # some work; the others do theirs meanwhile
        await self.publish_message(Finding(self.id.type, message.text.upper()), TopicId("findings", "all"))


async def main() -> None:
    found: list[Finding] = []

    async def collect(agent: ClosureContext, message: Finding, ctx: MessageContext) -> None:
        found.append(message)

    runtime = SingleThreadedAgentRuntime()
    for name in ("chemist", "physicist", "poet"):
        await Worker.register(runtime, name, lambda: Worker("Looks at a task in its own way"))
    await ClosureAgent.register_closure(
        runtime, "collector", collect, subscriptions=lambda: [TypeSubscription("findings", "collector")]
    )
    runtime.start()
    await runtime.publish_message(Task("what is water?"), DefaultTopicId())
    await runtime.stop_when_idle()
    await runtime.close()

    for finding in sorted(found, key=lambda each: each.by):
        print(f"{finding.by}: {finding.text}")
    assert len(found) == 3


if __name__ == "__main__":
    asyncio.run(main())
