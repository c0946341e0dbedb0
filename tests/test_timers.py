"""Messages that are sent later."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from actors_for_tests import NOBODY, TOPIC, Does, echo, fail, put
from tinygen.actors import DefaultInterventionHandler, DropMessage, MessageContext
from tinygen.addresses import AgentId
from tinygen.errors import ConfigError, UndeliverableException
from tinygen.limits import RunLimits
from tinygen.run import current_scope, run_scope
from tinygen.runtime import SingleThreadedAgentRuntime as Runtime
from virtual_time import VirtualLoop


class Heard:
    """A handler that counts, and tells when it has heard enough."""

    def __init__(self, enough: int) -> None:
        self.enough, self.messages, self.done = enough, [], asyncio.Event()
        self.contexts: list[MessageContext] = []
        self.messages: list[Any]

    async def __call__(self, agent: Does, message: Any, ctx: MessageContext) -> Any:
        self.messages.append(message)
        self.contexts.append(ctx)
        if len(self.messages) >= self.enough:
            self.done.set()


@pytest.fixture
def runtime() -> Runtime:
    return Runtime()


async def test_a_message_can_be_sent_later_to_an_agent_and_to_a_topic(runtime: Runtime) -> None:
    heard = Heard(2)
    agent = await put(runtime, "d", heard, topic="news")
    runtime.start()
    first = runtime.send_later("first", agent, delay=0.01, sender=NOBODY)
    runtime.send_later("second", TOPIC, delay=0.02)
    assert first.is_set
    await heard.done.wait()
    await runtime.stop_when_idle()

    assert heard.messages == ["first", "second"] and not first.is_set
    to_agent, to_topic = heard.contexts
    assert (to_agent.sender, to_agent.topic_id, to_agent.is_rpc) == (NOBODY, None, False)
    assert (to_topic.sender, to_topic.topic_id, to_topic.is_rpc) == (None, TOPIC, False)
    assert not runtime.dead_letters


async def test_a_periodic_message_comes_until_it_is_cancelled(runtime: Runtime) -> None:
    heard = Heard(3)
    agent = await put(runtime, "d", heard)
    runtime.start()
    timer = runtime.send_later("tick", agent, every=0.005)
    await heard.done.wait()
    timer.cancel()

    assert not timer.is_set and runtime.statistics().timers == 0
    timer.cancel()  # again, which does nothing
    await runtime.stop_when_idle()


async def test_periods_that_a_blocked_loop_missed_are_not_made_up_for(runtime: Runtime) -> None:
    heard = Heard(3)
    agent = await put(runtime, "d", heard)
    runtime.start()
    runtime.send_later("tick", agent, delay=0, every=0.02)
    time.sleep(0.1)
    for _ in range(5):
        await asyncio.sleep(0)

    assert len(heard.messages) <= 2
    await runtime.close()


def test_a_period_that_the_loop_ends_a_little_early_is_not_doubled() -> None:
    heard: list[float] = []

    async def main() -> None:
        runtime, loop = Runtime(), asyncio.get_running_loop()

        async def note(agent: Does, message: Any, ctx: MessageContext) -> None:
            heard.append(loop.time())
            if len(heard) > 2:
                timer.cancel()

        agent = await put(runtime, "d", note)
        runtime.start()
        timer = runtime.send_later("tick", agent, every=1.0)
        for at in (0.995, 1.5, 2.5):
            await asyncio.sleep(at - loop.time())
        await runtime.close()

    loop = VirtualLoop()
    loop._clock_resolution = 0.01  # type: ignore[attr-defined]  # as coarse as Windows has it
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()

    assert heard == [0.995, 2.0]


async def test_a_timer_that_is_set_does_not_keep_the_runtime_busy_and_ends_with_it(runtime: Runtime) -> None:
    agent = await put(runtime, "d", echo)
    runtime.start()
    once = runtime.send_later("once", agent, delay=60)
    again = runtime.send_later("again", agent, every=60)
    await runtime.stop_when_idle()

    assert not once.is_set and not again.is_set
    [letter] = runtime.dead_letters  # of the one that would have been sent once
    assert letter.message == "once" and "its time had not come when the runtime was stopped" in str(letter)


async def test_what_a_timer_sends_is_finished_before_the_runtime_is_idle(runtime: Runtime) -> None:
    heard = Heard(1)
    agent = await put(runtime, "d", heard)
    runtime.start()
    timer = runtime.send_later("now", agent, delay=0)
    while timer.is_set:
        await asyncio.sleep(0)
    await runtime.stop_when_idle()

    assert heard.messages == ["now"]


async def test_an_agent_can_set_a_timer_for_itself_from_a_run_that_ends_sooner(runtime: Runtime) -> None:
    scopes: list[Any] = []
    done = asyncio.Event()

    async def wakes(agent: Does, message: Any, ctx: MessageContext) -> Any:
        if message == "wake":
            scopes.append(current_scope())
            done.set()
        else:
            agent.runtime.send_later("wake", agent.id, delay=0.005)

    agent = await put(runtime, "d", wakes)
    runtime.start()
    await run_scope("job", lambda: runtime.send_message("set", agent), limits=RunLimits(timeout=5))
    await done.wait()

    assert scopes == [None]
    await runtime.stop_when_idle()


async def test_interventions_see_what_timers_send() -> None:
    class Drops(DefaultInterventionHandler):
        async def on_send(self, message: Any, **about: Any) -> Any:
            return DropMessage if message == "drop" else f"{message}!"

        async def on_publish(self, message: Any, **about: Any) -> Any:
            raise PermissionError(message)

    runtime, heard = Runtime(intervention_handlers=[Drops()]), Heard(1)
    agent = await put(runtime, "d", heard)
    runtime.start()
    for message, to in (("drop", agent), ("refused", TOPIC), ("sent", agent)):
        runtime.send_later(message, to, delay=0)
    await heard.done.wait()
    await runtime.stop_when_idle()

    assert heard.messages == ["sent!"]
    [letter] = runtime.dead_letters
    assert letter.message == "refused" and isinstance(letter.error, PermissionError)


async def test_what_a_timer_was_about_to_send_when_it_was_closed_is_a_dead_letter() -> None:
    began = asyncio.Event()

    class Thinks(DefaultInterventionHandler):
        async def on_send(self, message: Any, **about: Any) -> Any:
            began.set()
            await asyncio.Event().wait()

    runtime = Runtime(intervention_handlers=[Thinks()])
    agent = await put(runtime, "d", echo)
    runtime.start()
    runtime.send_later("late", agent, delay=0)
    await began.wait()
    await runtime.close()

    [letter] = runtime.dead_letters
    assert (letter.message, letter.recipient) == ("late", agent) and "the runtime was closed" in str(letter.error)


async def test_what_a_timer_cannot_deliver_is_a_dead_letter(runtime: Runtime) -> None:
    agent = await put(runtime, "d", fail)
    runtime.start()
    runtime.send_later(1, AgentId("unknown", "x"), delay=0)
    runtime.send_later(ValueError("bad"), agent, delay=0)
    while len(runtime.dead_letters) < 2:
        await asyncio.sleep(0)
    await runtime.stop_when_idle()

    errors = {type(letter.error) for letter in runtime.dead_letters}
    assert errors == {UndeliverableException, ValueError}


async def test_a_timer_needs_a_started_runtime_and_a_sensible_time(runtime: Runtime) -> None:
    agent = AgentId("d", "x")
    with pytest.raises(RuntimeError, match="not started"):
        runtime.send_later(1, agent, delay=1)
    runtime.start()
    for wrong in ({}, {"delay": -1}, {"every": 0}, {"delay": float("nan")}):
        with pytest.raises(ConfigError, match="after how many seconds"):
            runtime.send_later(1, agent, **wrong)
    with pytest.raises(ConfigError, match="an AgentId or a TopicId, not to 'd/x'"):
        runtime.send_later(1, "d/x", delay=1)  # type: ignore[arg-type]
    await runtime.stop()
