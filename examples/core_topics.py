"""Who gets what is published: topics for one tenant, for many tenants, and for several kinds of agents.

A topic has a type and a source. The type decides which kinds of agents get a message; the source becomes the key of
the agent, so that every tenant has agents of its own, made when their first message comes.
"""

import asyncio
from dataclasses import dataclass

from tinygen import (
    DefaultTopicId,
    MessageContext,
    RoutedAgent,
    SingleThreadedAgentRuntime,
    TopicId,
    TypeSubscription,
    default_subscription,
    message_handler,
    type_subscription,
)


@dataclass
class Order:
    item: str


heard: list[str] = []


@default_subscription
class Office(RoutedAgent):
    """One tenant, one scope: whoever publishes to the default topic reaches the same agent."""

    @message_handler
    async def on_order(self, message: Order, ctx: MessageContext) -> None:
        heard.append(f"{self.id}: {message.item}")


@type_subscription("orders")
class Shop(RoutedAgent):
    """Many tenants: each source of the topic has a shop, which counts its own orders."""

    def __init__(self) -> None:
        super().__init__("A shop")
        self.orders = 0

    @message_handler
    async def on_order(self, message: Order, ctx: MessageContext) -> None:
        self.orders += 1
        heard.append(f"{self.id}: order {self.orders}, {message.item}")


class Tax(RoutedAgent):
    """Another kind of agent for the same topics: it sees the orders of all tenants, each in an agent of its own."""

    @message_handler
    async def on_order(self, message: Order, ctx: MessageContext) -> None:
        heard.append(f"{self.id}: tax for {message.item}")


async def main() -> None:
    runtime = SingleThreadedAgentRuntime()
    await Office.register(runtime, "office", lambda: Office("The office"))
    await Shop.register(runtime, "shop", Shop)
    await Tax.register(runtime, "tax", lambda: Tax("The tax office"))
    await runtime.add_subscription(TypeSubscription("orders", "tax"))
    runtime.start()

    await runtime.publish_message(Order("paper"), DefaultTopicId())
    for tenant, item in (("oslo", "tea"), ("rome", "coffee"), ("oslo", "honey")):
        await runtime.publish_message(Order(item), TopicId("orders", source=tenant))
    await runtime.stop_when_idle()

    print(*sorted(heard), sep="\n")
    assert "office/default: paper" in heard
    assert "shop/oslo: order 2, honey" in heard and "shop/rome: order 1, coffee" in heard
    assert "tax/rome: tax for coffee" in heard


if __name__ == "__main__":
    asyncio.run(main())
