"""Two agents talk until one says goodbye; an intervention notices, and the program stops the runtime."""

import asyncio
from dataclasses import dataclass
from typing import Any

from tinygen import (
    AgentId,
    DefaultInterventionHandler,
    DefaultTopicId,
    MessageContext,
    RoutedAgent,
    SingleThreadedAgentRuntime,
    default_subscription,
    message_handler,
)


@dataclass
class Said:
    text: str
    turn: int


@dataclass
class Goodbye:
    reason: str


@default_subscription
class Talker(RoutedAgent):
    @message_handler
    async def on_said(self, message: Said, ctx: MessageContext) -> None:
        print(f"{self.id.type} hears: {message.text}")
        if message.turn == 5:
            await self.publish_message(Goodbye(f"{self.id.type} has no more to say"), DefaultTopicId())
        await self.publish_message(Said(f"thought {message.turn + 1}", message.turn + 1), DefaultTopicId())


class Ending(DefaultInterventionHandler):
    """Remembers the goodbye; what was said afterwards goes on, until the program stops the runtime."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self.noticed = asyncio.Event()

    async def on_publish(self, message: Any, *, message_context: MessageContext) -> Any:
        if isinstance(message, Goodbye):
            self.reason = message.reason
            self.noticed.set()
        return message


async def main() -> None:
    ending = Ending()
    runtime = SingleThreadedAgentRuntime(intervention_handlers=[ending])
    for name in ("ann", "bob"):
        await Talker.register(runtime, name, lambda: Talker("Never stops by itself"))
    runtime.start()
    await runtime.publish_message(Said("hello", 1), DefaultTopicId(), sender=AgentId("ann", "default"))
    await ending.noticed.wait()
    await runtime.stop()
    print(f"stopped: {ending.reason}")


if __name__ == "__main__":
    asyncio.run(main())
