"""An agent that acts by itself: a timer sends it a message again and again, and it speaks up when something changed."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

from tinygen import (
    AgentId,
    ClosureAgent,
    ClosureContext,
    DefaultSubscription,
    DefaultTopicId,
    MessageContext,
    RoutedAgent,
    SingleThreadedAgentRuntime,
    message_handler,
)


@dataclass
class Look:
    """From the timer: time to look."""


@dataclass
class Alarm:
    text: str


class Watcher(RoutedAgent):
    """Looks at a thermometer; warns once when it gets too hot."""

    def __init__(self, thermometer: Iterator[int]) -> None:
        super().__init__("Watches")
        self.thermometer, self.warned = thermometer, False

    @message_handler
    async def on_look(self, message: Look, ctx: MessageContext) -> None:
        degrees = next(self.thermometer)
        print(f"{degrees} degrees")
        if degrees > 30 and not self.warned:
            self.warned = True
            await self.publish_message(Alarm(f"{degrees} degrees!"), DefaultTopicId())


async def main() -> None:
    alarm = asyncio.Event()

    async def ring(agent: ClosureContext, message: Alarm, ctx: MessageContext) -> None:
        print(f"alarm: {message.text}")
        alarm.set()

    runtime = SingleThreadedAgentRuntime()
    await Watcher.register(runtime, "watcher", lambda: Watcher(iter(range(26, 99, 2))))
    await ClosureAgent.register_closure(runtime, "bell", ring, subscriptions=lambda: [DefaultSubscription()])
    runtime.start()
    timer = runtime.send_later(Look(), AgentId("watcher", "kitchen"), every=0.01)
    await alarm.wait()
    timer.cancel()
    await runtime.stop_when_idle()


if __name__ == "__main__":
    asyncio.run(main())
