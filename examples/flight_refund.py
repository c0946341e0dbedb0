"""A travel agent hands a customer over to the one for refunds, who hands back to the customer with a question.

Offline everybody speaks from a script; name a model to make it think, and answer yourself:
`TINYGEN_MODEL=openai:gpt-4o-mini python examples/flight_refund.py`
"""

import asyncio
import os

from tinygen import (
    AssistantAgent,
    ChatCompletionClient,
    Console,
    FunctionCall,
    HandoffMessage,
    HandoffTermination,
    ReplayChatCompletionClient,
    Swarm,
    TextMentionTermination,
    create_client,
)

MODEL = os.environ.get("TINYGEN_MODEL")


def refund_flight(flight_id: str) -> str:
    """Refunds a flight."""
    return f"Flight {flight_id} refunded"


def model(*script: str | list[FunctionCall]) -> ChatCompletionClient:
    return create_client(MODEL) if MODEL else ReplayChatCompletionClient(list(script))


def to(name: str) -> list[FunctionCall]:
    return [FunctionCall("1", "{}", f"transfer_to_{name}")]


async def main() -> None:
    travel_agent = AssistantAgent(
        "travel_agent",
        model_client=model(to("flights_refunder"), "You have your money back. Have a good day! TERMINATE"),
        handoffs=["flights_refunder", "user"],
        system_message="You are a travel agent. flights_refunder is in charge of refunds. If you need something from "
        "the user, say so and hand over to user. When the matter is settled, answer with TERMINATE.",
    )
    flights_refunder = AssistantAgent(
        "flights_refunder",
        model_client=model(
            to("user"), [FunctionCall("2", '{"flight_id": "507811"}', "refund_flight")], to("travel_agent")
        ),
        handoffs=["travel_agent", "user"],
        tools=[refund_flight],
        system_message="You refund flights, for which you need only the flight's number. Ask by handing over to user. "
        "When it is done, hand over to travel_agent.",
    )
    team = Swarm(
        [travel_agent, flights_refunder],
        termination_condition=HandoffTermination(target="user") | TextMentionTermination("TERMINATE"),
        max_turns=20,
    )
    result = await Console(team.run_stream(task="I need to refund my flight."))
    while isinstance(asked := result.messages[-1], HandoffMessage) and asked.target == "user":
        answer = input("user: ") if MODEL else "507811"
        reply = HandoffMessage(source="user", target=asked.source, content=answer)
        result = await Console(team.run_stream(task=reply))
    print(result.stop_reason)


if __name__ == "__main__":
    asyncio.run(main())
