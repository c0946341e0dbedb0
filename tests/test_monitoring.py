"""What a runtime can be asked: statistics, dead letters, traces, and who blocked the event loop."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from actors_for_tests import NOBODY, TOPIC, Blocked, Does, OneAtATime, Text, echo, fail, passes, put
from tinygen.actors import DefaultInterventionHandler, DropMessage, MessageContext
from tinygen.addresses import AgentId, TopicId
from tinygen.errors import UndeliverableException
from tinygen.failures import DEAD_LETTERS
from tinygen.monitoring import timed
from tinygen.runtime import SingleThreadedAgentRuntime as Runtime
from tinygen.telemetry import Event, listen


@pytest.fixture
def runtime() -> Runtime:
    return Runtime()


async def test_statistics_say_what_hangs_where_and_since_when(runtime: Runtime) -> None:
    blocked = Blocked()
    agent = await put(runtime, "s", blocked, cls=OneAtATime)
    await put(runtime, "other", echo)
    runtime.start()
    timer = runtime.send_later(1, agent, delay=60)
    sending = [asyncio.ensure_future(runtime.send_message(Text("x"), agent, sender=NOBODY)) for _ in range(3)]
    await passes()
    stats = runtime.statistics()

    assert (stats.state, stats.agent_types, stats.agents) == ("started", ["other", "s"], 1)
    assert (stats.queued, stats.timers, stats.dead_letters, stats.making) == (2, 1, 0, [])
    [running] = stats.running
    assert (running.agent, running.message, running.sender) == (agent, "Text", NOBODY) and 0 < running.seconds < 10
    assert "s/here: a Text from nobody/x, for 0.0" in str(stats)
    timer.cancel()
    blocked.go.set()
    await asyncio.gather(*sending)
    await runtime.stop_when_idle()
    assert str(runtime.statistics()).startswith("stopped: 2 agent types, 1 agents, 0 queued, 0 running")


async def test_statistics_name_the_agents_that_are_being_made(runtime: Runtime) -> None:
    go = asyncio.Event()

    async def slowly() -> Does:
        await go.wait()
        return Does(echo)

    await Does.register(runtime, "d", slowly)
    runtime.start()
    sending = asyncio.ensure_future(runtime.send_message(1, AgentId("d", "x")))
    await passes()

    assert "0 agents, waiting for d/x, 1 queued, 0 running" in str(runtime.statistics())
    go.set()
    assert await sending == 1
    await runtime.stop()


# --- dead letters


async def test_what_nobody_gets_is_kept_as_dead_letters(runtime: Runtime) -> None:
    await put(runtime, "d", fail, topic="news")
    runtime.start()
    await runtime.publish_message(ValueError("bad"), TOPIC, sender=NOBODY)
    await runtime.publish_message("lost", TopicId("unheard", "x"))
    await runtime.stop_when_idle()

    unheard, failed = runtime.dead_letters
    assert (unheard.message, unheard.recipient) == ("lost", TopicId("unheard", "x"))
    assert str(unheard).endswith("UndeliverableException: nobody subscribes to the topic 'unheard/x'")
    assert str(failed) == "ValueError from nobody/x for agent 'd/here': ValueError: bad"


async def test_what_an_event_led_to_says_that_nobody_waits_but_not_what_a_sender_learns(runtime: Runtime) -> None:
    agent = await put(runtime, "d", fail)
    runtime.start()
    with pytest.raises(ValueError):
        await runtime.send_message(ValueError("told"), agent)
    with pytest.raises(UndeliverableException):
        await runtime.send_message(1, AgentId("unknown", "x"))
    await runtime.stop_when_idle()

    assert not runtime.dead_letters


async def test_only_the_latest_dead_letters_are_kept(runtime: Runtime) -> None:
    runtime.start()
    for n in range(DEAD_LETTERS + 10):
        await runtime.publish_message(n, TOPIC)
    await runtime.stop()

    assert [letter.message for letter in runtime.dead_letters] == list(range(10, DEAD_LETTERS + 10))


# --- traces


async def relay(agent: Does, message: Any, ctx: MessageContext) -> Any:
    """Ask the next one down the line, and tell all."""
    if message:
        await agent.publish_message("told", TOPIC)
        return await agent.send_message(message - 1, AgentId(f"r{message - 1}", "x"))
    raise ValueError("the end")


async def test_a_trace_shows_the_way_of_a_message_through_several_hops(runtime: Runtime) -> None:
    for n in range(3):
        await put(runtime, f"r{n}", relay)
    await put(runtime, "hears", echo, topic="news")
    runtime.start()
    trace = runtime.trace()
    with pytest.raises(ValueError):
        await runtime.send_message(2, AgentId("r2", "x"), message_id="first")
    await runtime.stop_when_idle()

    import re

    shown = re.sub(r"[\d.]+ ms", "- ms", str(trace))
    assert shown.splitlines() == [
        "None -> r2/x: int",
        "  r2/x in - ms: ValueError",
        "    r2/x => news/here: str",
        "      hears/here in - ms",
        "    r2/x -> r1/x: int",
        "      r1/x in - ms: ValueError",
        "        r1/x => news/here: str",
        "          hears/here in - ms",
        "        r1/x -> r0/x: int",
        "          r0/x in - ms: ValueError",
    ]
    assert trace.events[0].id == "first"


async def test_a_trace_ends_when_it_is_stopped_and_is_bounded(runtime: Runtime) -> None:
    agent = await put(runtime, "d", echo)
    runtime.start()
    trace, other = runtime.trace(limit=10), runtime.trace()
    for n in range(20):
        await runtime.send_message(n, agent)
    assert 10 <= len(trace.events) <= 15 and len(other.events) == 60
    trace.stop()
    other.stop()
    await runtime.send_message(20, agent)

    assert len(other.events) == 60 and runtime._watch is None
    await runtime.stop()


async def test_a_handler_that_does_not_end_is_in_the_trace(runtime: Runtime) -> None:
    agent = await put(runtime, "d", Blocked())
    runtime.start()
    trace = runtime.trace()
    sending = asyncio.ensure_future(runtime.send_message(1, agent))
    await passes()

    assert str(trace) == "None -> d/here: int\n  d/here has not ended"
    sending.cancel()
    await passes()
    assert str(trace).endswith(": CancelledError")
    await runtime.stop_when_idle()


async def test_listeners_are_told_of_drops_and_of_agents_that_cannot_be_made() -> None:
    class Drops(DefaultInterventionHandler):
        async def on_publish(self, message: Any, **about: Any) -> Any:
            return DropMessage

    async def unmade() -> Does:
        raise LookupError("unmade")

    told: list[Event] = []
    runtime = Runtime(intervention_handlers=[Drops()])
    await Does.register(runtime, "d", unmade)
    with listen(told.append):
        runtime.start()
    await runtime.publish_message("x", TOPIC)
    with pytest.raises(LookupError):
        await runtime.send_message("y", AgentId("d", "x"))
    await runtime.stop_when_idle()

    assert [(event.kind, event.name) for event in told] == [("drop", "str"), ("send", "str"), ("make", "d/x")]
    assert told[0].data["by"] == "Drops.on_publish" and isinstance(told[2].data["error"], LookupError)


async def test_a_listener_that_fails_changes_nothing_of_what_happens(caplog: pytest.LogCaptureFixture) -> None:
    def fails(event: Event) -> None:
        raise RuntimeError(f"cannot note a {event.kind}")

    async def unmade() -> Does:
        raise LookupError("unmade")

    runtime = Runtime()
    agent = await put(runtime, "d", echo)
    await Does.register(runtime, "unmade", unmade)
    with listen(fails):
        runtime.start()

    assert await runtime.send_message("x", agent) == "x"
    with pytest.raises(LookupError, match="unmade"):
        await runtime.send_message("x", AgentId("unmade", "x"))
    await runtime.stop_when_idle()
    assert all(f"cannot note a {kind}" in caplog.text for kind in ("send", "handle", "make"))


async def test_a_runtime_started_again_outside_of_the_block_is_not_listened_to(runtime: Runtime) -> None:
    told: list[Event] = []
    agent = await put(runtime, "d", echo)
    with listen(told.append):
        runtime.start()
    trace = runtime.trace()
    await runtime.stop()
    runtime.start()
    await runtime.send_message("x", agent)
    await runtime.stop()

    assert not told and [event.kind for event in trace.events] == ["send", "handle", "handle"]


# --- handlers that block


async def test_a_handler_that_blocks_the_event_loop_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def blocks(agent: Does, message: Any, ctx: MessageContext) -> Any:
        await asyncio.sleep(0)
        if message == "block":
            time.sleep(0.03)
        return message

    runtime = Runtime(slow_after=0.02)
    agent = await put(runtime, "d", blocks)
    runtime.start()
    assert [await runtime.send_message(each, agent) for each in ("quick", "block")] == ["quick", "block"]
    await runtime.stop()

    [line] = [each.getMessage() for each in caplog.records if "blocked" in each.getMessage()]
    assert line.startswith("agent d/here blocked the event loop for 0.0") and line.endswith("while it handled a str")


async def test_timing_changes_nothing_of_what_is_awaited() -> None:
    async def work() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            return "cancelled"
        return ""

    task = asyncio.ensure_future(_awaits(timed(work(), 1.0, print)))
    await asyncio.sleep(0)
    task.cancel()

    assert await task == "cancelled"


async def _awaits(what: Any) -> Any:
    return await what
