"""Agents that take one message at a time, or no more than so many; and circles of those that ask each other."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from actors_for_tests import TOPIC, Blocked, Does, OneAtATime, Text, echo, passes, put
from tinygen.actors import MessageContext
from tinygen.addresses import AgentId
from tinygen.errors import CallCycle, ConfigError, MessageTimeout, Overloaded, UndeliverableException
from tinygen.runtime import SingleThreadedAgentRuntime as Runtime


@pytest.fixture
def runtime() -> Runtime:
    return Runtime()


class Two(Does):
    max_pending = 2


class Line(OneAtATime):
    max_pending = 2


async def asks(agent: Does, message: list[str], ctx: MessageContext) -> str:
    """Pass the message on to the agent it names first."""
    if not message:
        return str(agent.id)
    answer: str = await agent.send_message(message[1:], AgentId(message[0], "here"))
    return answer


# --- one message at a time


async def test_a_sequential_agent_handles_one_message_after_the_other(runtime: Runtime) -> None:
    order: list[str] = []

    async def note(agent: Does, message: Any, ctx: MessageContext) -> Any:
        order.append(f"begin {message}")
        await passes()
        order.append(f"end {message}")
        return message

    agent = await put(runtime, "s", note, topic="news", cls=OneAtATime)
    runtime.start()
    sending = [asyncio.ensure_future(runtime.send_message(n, agent)) for n in range(3)]
    await asyncio.sleep(0)
    await runtime.publish_message(3, TOPIC)
    await runtime.stop_when_idle()

    assert order == [f"{what} {n}" for n in range(4) for what in ("begin", "end")]
    assert [each.result() for each in sending] == [0, 1, 2]


async def test_only_the_classes_of_messages_that_are_named_wait_for_each_other(runtime: Runtime) -> None:
    class Texts(Does):
        sequential = (Text,)

    blocked = Blocked()
    agent = await put(runtime, "s", blocked, cls=Texts)
    runtime.start()
    sending = [asyncio.ensure_future(runtime.send_message(each, agent)) for each in (Text("1"), Text("2"), 3, 4)]
    await passes()

    assert blocked.begun == 3  # one text, both numbers
    blocked.go.set()
    await asyncio.gather(*sending)
    assert blocked.begun == 4
    await runtime.stop()


async def test_a_sequential_agent_goes_on_after_a_failure_and_a_cancellation(runtime: Runtime) -> None:
    blocked = Blocked()

    async def fails(agent: Does, message: Any, ctx: MessageContext) -> Any:
        if message == "fail":
            raise ValueError(message)
        return await blocked(agent, message, ctx)

    agent = await put(runtime, "s", fails, cls=OneAtATime)
    runtime.start()
    sending = [asyncio.ensure_future(runtime.send_message(each, agent)) for each in ("fail", "hangs", "waits", "last")]
    await passes()
    sending[2].cancel()  # in the mailbox
    sending[1].cancel()  # while it is handled
    blocked.go.set()
    ends = await asyncio.gather(*sending, return_exceptions=True)

    assert [type(end) for end in ends] == [ValueError, asyncio.CancelledError, asyncio.CancelledError, str]
    assert blocked.begun == 2
    await runtime.stop_when_idle()


async def test_messages_keep_their_order_while_a_sequential_agent_is_made(runtime: Runtime) -> None:
    order: list[int] = []

    async def note(agent: Does, message: Any, ctx: MessageContext) -> None:
        order.append(message)
        await asyncio.sleep(0)

    await put(runtime, "s", note, topic="news", cls=OneAtATime)
    runtime.start()
    for n in range(20):
        await runtime.publish_message(n, TOPIC)
        await asyncio.sleep(0)
    await runtime.stop_when_idle()

    assert order == list(range(20))


async def test_stopping_answers_who_waits_for_a_sequential_agent(runtime: Runtime) -> None:
    blocked = Blocked()
    agent = await put(runtime, "s", blocked, cls=OneAtATime)
    runtime.start()
    begun, waits = (asyncio.ensure_future(runtime.send_message(n, agent)) for n in range(2))
    await passes()
    await runtime.stop()

    with pytest.raises(UndeliverableException, match=r"the int for agent 's/here' was not delivered: .* was stopped"):
        await waits
    blocked.go.set()
    assert await begun == 0


# --- circles


@pytest.mark.parametrize("way", [["a"], ["b", "a"], ["b", "x", "c", "a"]], ids=" ".join)
async def test_a_call_that_comes_back_to_a_sequential_agent_is_refused_at_once(
    runtime: Runtime, way: list[str]
) -> None:
    for name in "abc":
        await put(runtime, name, asks, cls=OneAtATime)
    await put(runtime, "x", asks)  # not sequential; the circle goes through it all the same
    runtime.start()
    circle = " -> ".join(f"{name}/here" for name in ["a", *way] if name != "x")

    with pytest.raises(CallCycle, match=f"sequential agents would wait for each other: {circle}"):
        await runtime.send_message(way, AgentId("a", "here"))

    assert await runtime.send_message([], AgentId("a", "here")) == "a/here"
    await runtime.stop_when_idle()


async def test_two_calls_that_cross_are_refused_instead_of_waiting_forever(runtime: Runtime) -> None:
    async def slowly(agent: Does, message: Any, ctx: MessageContext) -> Any:
        await passes()
        return await asks(agent, message, ctx)

    for name in "ab":
        await put(runtime, name, slowly, cls=OneAtATime)
    runtime.start()
    there, back = AgentId("a", "here"), AgentId("b", "here")
    ends = await asyncio.gather(
        runtime.send_message(["b"], there), runtime.send_message(["a"], back), return_exceptions=True
    )

    assert sorted(type(end).__name__ for end in ends) == ["CallCycle", "str"]
    await runtime.stop_when_idle()


async def test_a_request_is_no_circle_when_nobody_waits_for_it_any_more(runtime: Runtime) -> None:
    later: list[asyncio.Task[Any]] = []

    async def publishes(agent: Does, message: Any, ctx: MessageContext) -> Any:
        if message == "publish":
            await agent.publish_message("news", TOPIC)
            await passes()
        elif message == "later":
            later.append(asyncio.ensure_future(agent.send_message("x", agent.id)))
        return message

    async def asks_back(agent: Does, message: Any, ctx: MessageContext) -> Any:
        return await agent.send_message("answer", AgentId("a", "here"))

    a = await put(runtime, "a", publishes, cls=OneAtATime)
    await put(runtime, "b", asks_back, topic="news", cls=OneAtATime)
    runtime.start()

    assert await runtime.send_message("publish", a) == "publish"
    assert await runtime.send_message("later", a) == "later"
    assert await later[0] == "x"
    await runtime.stop_when_idle()
    assert not runtime.dead_letters


async def test_a_request_that_timed_out_waits_for_nobody(runtime: Runtime) -> None:
    blocked = Blocked()

    async def gives_up(agent: Does, message: Any, ctx: MessageContext) -> Any:
        if message == "plain":
            return message
        with pytest.raises(MessageTimeout):
            await agent.send_message("hangs", AgentId("b", "here"), timeout=0.01)
        await passes()
        blocked.go.set()
        await passes()
        return "gave up"

    async def asks_back(agent: Does, message: Any, ctx: MessageContext) -> Any:
        await blocked(agent, message, ctx)
        return await agent.send_message("plain", AgentId("a", "here"))

    a = await put(runtime, "a", gives_up, cls=OneAtATime)
    b = await put(runtime, "b", asks_back, cls=OneAtATime)
    runtime.start()
    crossing = asyncio.ensure_future(runtime.send_message("first", b))
    await blocked.began.wait()

    assert await runtime.send_message("go", a) == "gave up"
    assert await crossing == "plain"
    await runtime.stop_when_idle()


async def test_a_request_that_timed_out_leaves_the_mailbox(runtime: Runtime) -> None:
    blocked = Blocked()
    agent = await put(runtime, "s", blocked, cls=OneAtATime)
    runtime.start()
    sending = asyncio.ensure_future(runtime.send_message(1, agent))
    await blocked.began.wait()
    waiting = asyncio.ensure_future(runtime.send_message(2, agent))
    for _ in range(3):
        with pytest.raises(MessageTimeout):
            await runtime.send_message("late", agent, timeout=0)
    held = runtime.unprocessed_messages_count
    blocked.go.set()

    assert (held, await sending, await waiting) == (1, 1, 2)
    await runtime.stop_when_idle()


async def test_a_request_that_a_stop_has_answered_waits_for_nobody(runtime: Runtime) -> None:
    a_goes_on, b_goes_on = Blocked(), Blocked()

    async def asks_b(agent: Does, message: Any, ctx: MessageContext) -> Any:
        if message == "plain":
            return message
        with pytest.raises(UndeliverableException, match="was stopped"):
            await agent.send_message("waits", AgentId("b", "here"))
        return await a_goes_on(agent, message, ctx)

    async def asks_a(agent: Does, message: Any, ctx: MessageContext) -> Any:
        await b_goes_on(agent, message, ctx)
        return await agent.send_message("plain", AgentId("a", "here"))

    a = await put(runtime, "a", asks_b, cls=OneAtATime)
    b = await put(runtime, "b", asks_a, cls=OneAtATime)
    runtime.start()
    to_b = asyncio.ensure_future(runtime.send_message("first", b))
    await b_goes_on.began.wait()
    to_a = asyncio.ensure_future(runtime.send_message("go", a))
    await passes()
    await runtime.stop()
    await a_goes_on.began.wait()
    runtime.start()
    b_goes_on.go.set()
    await passes()
    a_goes_on.go.set()

    assert (await to_a, await to_b) == ("go", "plain")
    await runtime.stop_when_idle()


async def test_a_request_that_was_cancelled_in_a_mailbox_is_no_dead_letter_when_it_stops(runtime: Runtime) -> None:
    blocked = Blocked()
    agent = await put(runtime, "s", blocked, cls=OneAtATime)
    runtime.start()
    begun, gives_up = (asyncio.ensure_future(runtime.send_message(n, agent)) for n in range(2))
    await passes()
    gives_up.cancel()
    await passes()
    await runtime.stop()
    blocked.go.set()

    assert await begun == 0 and gives_up.cancelled() and not runtime.dead_letters


# --- no more than so many


@pytest.mark.parametrize("cls", [Two, Line])
async def test_a_full_mailbox_refuses_the_next_request(runtime: Runtime, cls: type[Does]) -> None:
    blocked = Blocked()
    agent = await put(runtime, "s", blocked, cls=cls)
    runtime.start()
    sending = [asyncio.ensure_future(runtime.send_message(n, agent)) for n in range(3)]

    with pytest.raises(Overloaded, match="agent 's/here' has 2 messages already, as its max_pending allows"):
        await sending[2]
    sending[1].cancel()
    await passes()
    sending[1] = asyncio.ensure_future(runtime.send_message(3, agent))  # there is room again
    blocked.go.set()
    assert [await each for each in sending[:2]] == [0, 3]
    await runtime.stop_when_idle()


async def test_an_event_for_a_full_mailbox_becomes_a_dead_letter(runtime: Runtime) -> None:
    blocked = Blocked()
    await put(runtime, "s", blocked, topic="news", cls=Two)
    await put(runtime, "other", echo, topic="news")
    runtime.start()
    for n in range(3):
        await runtime.publish_message(n, TOPIC)
    await passes()
    blocked.go.set()
    await runtime.stop_when_idle()

    [letter] = runtime.dead_letters
    assert (letter.message, letter.recipient) == (2, AgentId("s", "here")) and isinstance(letter.error, Overloaded)


async def test_answering_makes_room_for_the_senders_next_request(runtime: Runtime) -> None:
    class One(OneAtATime):
        max_pending = 1

    agent = await put(runtime, "s", echo, cls=One)
    runtime.start()

    assert [await runtime.send_message(n, agent) for n in range(5)] == list(range(5))
    await runtime.stop()


async def test_a_mailbox_without_room_for_one_message_is_refused(runtime: Runtime) -> None:
    class Zero(Does):
        max_pending = 0

    agent = await put(runtime, "s", echo, cls=Zero)
    runtime.start()

    with pytest.raises(ConfigError, match="max_pending of agent 's/here' must be at least 1, not 0"):
        await runtime.send_message(1, agent)
    await runtime.stop_when_idle()


# --- deadlines


@dataclass
class Slow:
    seconds: float


async def test_a_request_has_a_deadline_that_ends_its_handler(runtime: Runtime) -> None:
    blocked = Blocked()
    agent = await put(runtime, "s", blocked)
    runtime.start()

    with pytest.raises(MessageTimeout, match=r"no answer to the Slow for agent 's/here' in 0\.01 s") as caught:
        await runtime.send_message(Slow(1), agent, timeout=0.01)
    await runtime.stop_when_idle()

    assert isinstance(caught.value, TimeoutError) and blocked.cancelled == 1


async def test_a_deadline_holds_while_the_message_waits(runtime: Runtime) -> None:
    blocked = Blocked()
    agent = await put(runtime, "s", blocked, cls=OneAtATime)

    with pytest.raises(MessageTimeout):
        await runtime.send_message(1, agent, timeout=0.01)  # for the start
    runtime.start()
    begun = asyncio.ensure_future(runtime.send_message(2, agent))
    await asyncio.sleep(0)
    with pytest.raises(MessageTimeout):
        await runtime.send_message(3, agent, timeout=0.01)  # for its turn
    blocked.go.set()

    assert await begun == 2 and blocked.begun == 1
    assert await runtime.send_message(4, agent, timeout=60) == 4
    await runtime.stop_when_idle()
