"""Agents that go when they are not needed, and come back with what they knew."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Mapping
from typing import Any

import pytest

from actors_for_tests import TOPIC, Blocked, Does, OneAtATime, echo, passes, put
from tinygen.actors import BaseAgent, MessageContext
from tinygen.addresses import AgentId, DefaultTopicId, TopicId, TypeSubscription
from tinygen.errors import ConfigError, StateError, UndeliverableException
from tinygen.runtime import SingleThreadedAgentRuntime as Runtime

AGENT = AgentId("c", "x")


class Counts(BaseAgent):
    """Counts the messages it had, over all its lives."""

    made: list[Counts] = []

    def __init__(self) -> None:
        super().__init__("counts")
        self.count = 0
        self.open = True
        self.made.append(self)

    async def on_message_impl(self, message: Any, ctx: MessageContext) -> Any:
        assert self.open
        if isinstance(message, asyncio.Event):
            await message.wait()
        elif message == "release yourself":
            await self.runtime.release(self.id)
            assert await self.send_message("still there", self.id) == self.count
        self.count += 1
        return self.count

    async def save_state(self) -> Mapping[str, Any]:
        await asyncio.sleep(0)
        return {"count": self.count}

    async def load_state(self, state: Mapping[str, Any]) -> None:
        await asyncio.sleep(0)
        self.count = state["count"]

    async def close(self) -> None:
        assert self.open
        self.open = False


class Store(dict[str, Any]):
    """The least that is a store of states."""

    def set(self, key: str, value: Any) -> None:
        self[key] = value


@pytest.fixture
def counts() -> type[Counts]:
    class Fresh(Counts):
        made: list[Counts] = []

    return Fresh


async def test_a_released_agent_goes_on_with_its_state_from_the_store(counts: type[Counts]) -> None:
    runtime = Runtime(state_store=Store())
    await counts.register(runtime, "c", counts)
    runtime.start()
    for expected in range(1, 4):
        assert await runtime.send_message("x", AGENT) == expected
        await runtime.release(AGENT)

    assert [agent.open for agent in counts.made] == [False] * 3
    assert runtime.statistics().agents == 0
    await runtime.stop_when_idle()


async def test_an_idle_agent_is_released_and_comes_back(counts: type[Counts]) -> None:
    store = Store()
    runtime = Runtime(state_store=store, idle_after=0.01)
    await counts.register(runtime, "c", counts)
    runtime.start()
    assert await runtime.send_message("x", AGENT) == 1
    while runtime.statistics().agents or runtime.statistics().making:
        await asyncio.sleep(0.001)

    assert store == {"c/x": {"count": 1}} and not counts.made[0].open
    assert await runtime.send_message("x", AGENT) == 2
    await runtime.close()


async def test_a_busy_agent_is_not_released_before_it_has_ended(counts: type[Counts]) -> None:
    runtime = Runtime(state_store=Store(), idle_after=0.005)
    await counts.register(runtime, "c", counts)
    runtime.start()
    go = asyncio.Event()
    sending = asyncio.ensure_future(runtime.send_message(go, AGENT))
    await passes()
    await runtime.release(AGENT)  # returns at once
    assert await runtime.send_message("x", AGENT) == 1
    await asyncio.sleep(0.02)
    assert counts.made[0].open
    go.set()

    assert await sending == 2
    assert await runtime.send_message("x", AGENT) == 3 and len(counts.made) == 2
    await runtime.close()


async def test_an_agent_can_release_itself_and_still_be_asked(counts: type[Counts]) -> None:
    runtime = Runtime(state_store=Store())
    await counts.register(runtime, "c", counts)
    runtime.start()

    assert await runtime.send_message("release yourself", AGENT) == 2
    await runtime.stop_when_idle()
    assert not counts.made[0].open and runtime.statistics().agents == 0


async def test_there_are_never_two_agents_of_one_id(counts: type[Counts]) -> None:
    runtime = Runtime(state_store=Store())
    await counts.register(runtime, "c", counts)
    runtime.start()
    answers = []
    for steps in range(30):
        releasing = asyncio.ensure_future(runtime.release(AGENT))
        for _ in range(steps % 7):
            await asyncio.sleep(0)
        answers.append(await runtime.send_message("x", AGENT))
        await releasing
        assert sum(agent.open for agent in counts.made) <= 1

    assert answers == list(range(1, 31))
    await runtime.close()


async def test_an_agent_whose_state_cannot_be_saved_stays(
    counts: type[Counts], caplog: pytest.LogCaptureFixture
) -> None:
    class Full(Store):
        def set(self, key: str, value: Any) -> None:
            raise OSError("disk full")

    runtime = Runtime(state_store=Full())
    await counts.register(runtime, "c", counts)
    runtime.start()
    assert await runtime.send_message("x", AGENT) == 1
    with pytest.raises(OSError, match="disk full"):
        await runtime.release(AGENT)

    assert await runtime.send_message("x", AGENT) == 2 and len(counts.made) == 1
    assert "agent c/x could not be released" in caplog.text
    await runtime.stop()


async def test_instances_are_not_released_for_being_idle(counts: type[Counts]) -> None:
    runtime = Runtime(state_store=Store(), idle_after=0.001)
    await counts().register_instance(runtime, AGENT)
    runtime.start()
    assert await runtime.send_message("x", AGENT) == 1
    await asyncio.sleep(0.01)

    assert await runtime.send_message("x", AGENT) == 2
    await runtime.stop_when_idle()


async def test_idle_agents_are_only_released_where_their_state_is_kept() -> None:
    for wrong in ({"idle_after": 1.0}, {"idle_after": 0.0, "state_store": Store()}):
        with pytest.raises(ConfigError, match="needs to be positive, and a state_store"):
            Runtime(**wrong)  # type: ignore[arg-type]


async def test_a_state_that_is_none_names_its_agent(counts: type[Counts]) -> None:
    runtime = Runtime(state_store=Store({"c/x": "corrupt", "c/y": {"foreign": 1}}))
    await counts.register(runtime, "c", counts)
    runtime.start()
    with pytest.raises(StateError, match=r"\$\['c/x'\]: expected a JSON object, found a str"):
        await runtime.send_message("x", AGENT)
    with pytest.raises(StateError, match=r"\$\['c/y'\]: Fresh.load_state raised KeyError: 'count'"):
        await runtime.send_message("x", AgentId("c", "y"))
    with pytest.raises(StateError, match=r"\$: expected a JSON object with the agents' states, found a list"):
        await runtime.load_state([])  # type: ignore[arg-type]
    with pytest.raises(StateError, match=r"\$\['c'\]: not the id of an agent"):
        await runtime.load_state({"c": {}})

    assert await runtime.send_message("x", AgentId("c", "z")) == 1
    await runtime.stop_when_idle()


async def test_many_short_sessions_leave_memory_flat(counts: type[Counts]) -> None:
    class Forgets(Store):
        def set(self, key: str, value: Any) -> None:
            pass

    async def sessions(number: int, first: int) -> None:
        for n in range(first, first + number):
            agent = AgentId("c", f"session {n}")
            await runtime.send_message("x", agent)
            await runtime.publish_message("y", DefaultTopicId(source=agent.key))
            counts.made.clear()
            if n % 100 == 0:
                while runtime.statistics().agents > 200:
                    await asyncio.sleep(0.001)

    runtime = Runtime(state_store=Forgets(), idle_after=0.001)
    await counts.register(runtime, "c", counts)
    await runtime.add_subscription(TypeSubscription("default", "c"))
    runtime.start()
    await sessions(2000, 0)
    gc.collect()
    tracemalloc.start()
    await sessions(2000, 2000)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()

    assert grown < 400_000  # a session more would be 200 B at least, all of them well above
    await runtime.close()


async def test_closing_while_an_agent_is_being_saved_closes_it_too() -> None:
    saving = Blocked()

    class Slow(Does):
        closed = 0

        async def save_state(self) -> dict[str, Any]:
            await saving(self, None, MessageContext())
            return {}

        async def close(self) -> None:
            Slow.closed += 1

    runtime = Runtime(state_store=Store())
    agent = await put(runtime, "d", saving, cls=Slow)
    await runtime.get(agent, lazy=False)
    runtime.start()
    releasing = asyncio.ensure_future(runtime.release(agent))
    await saving.began.wait()
    await runtime.close()
    await releasing

    assert Slow.closed == 1


class Closes(Does):
    """Counts the closings of its class, which is a test's own."""

    closed = 0

    async def close(self) -> None:
        type(self).closed += 1


@pytest.fixture
def closes() -> type[Closes]:
    return type("Fresh", (Closes,), {"closed": 0})


async def test_closing_before_a_release_has_begun_closes_the_agent_too(closes: type[Closes]) -> None:
    runtime = Runtime(state_store=Store())
    agent = await put(runtime, "d", echo, cls=closes)
    await runtime.get(agent, lazy=False)
    runtime.start()
    releasing = asyncio.ensure_future(runtime.release(agent))
    await asyncio.sleep(0)  # the task that lets it go is there, but has done nothing yet
    await runtime.close()
    await releasing

    assert closes.closed == 1


@pytest.mark.parametrize("busy", [True, False])
async def test_closing_saves_and_closes_an_agent_that_was_released_before(closes: type[Closes], busy: bool) -> None:
    class Slow(closes):  # type: ignore[misc,valid-type]
        async def save_state(self) -> dict[str, Any]:
            await passes()
            return {"saved": True}

    blocked, store = Blocked(), Store()
    runtime = Runtime(state_store=store)
    agent = await put(runtime, "d", blocked, cls=Slow)
    await runtime.get(agent, lazy=False)
    runtime.start()
    if busy:
        await runtime.publish_message(1, TopicId("d:", "here"))
        await blocked.began.wait()
    releasing = asyncio.ensure_future(runtime.release(agent))
    await asyncio.sleep(0)
    await runtime.close()
    await releasing

    assert (Slow.closed, store) == (1, {"d/here": {"saved": True}})


async def test_no_message_overtakes_those_that_waited_for_an_agent_that_could_not_be_saved() -> None:
    class Full(Store):
        def set(self, key: str, value: Any) -> None:
            raise OSError("disk full")

    class Slow(Does):
        async def save_state(self) -> dict[str, Any]:
            await passes()
            return {}

    order: list[int] = []

    async def note(agent: Does, message: int, ctx: MessageContext) -> None:
        order.append(message)

    for steps in range(14):
        runtime = Runtime(state_store=Full())
        agent = await put(runtime, "d", note, cls=Slow, topic="news")
        await runtime.get(agent, lazy=False)
        runtime.start()
        releasing = asyncio.ensure_future(runtime.release(agent))
        await asyncio.sleep(0)
        await runtime.publish_message(2 * steps, TOPIC)
        for _ in range(steps):
            await asyncio.sleep(0)
        await runtime.publish_message(2 * steps + 1, TOPIC)
        await runtime.stop_when_idle()
        with pytest.raises(OSError, match="disk full"):
            await releasing

    assert order == list(range(28))


async def test_an_agent_released_while_it_is_made_goes_when_it_has_done_what_waited_for_it() -> None:
    go = asyncio.Event()

    async def slowly() -> Does:
        await go.wait()
        return Does(echo)

    runtime, agent = Runtime(state_store=Store()), AgentId("d", "x")
    await Does.register(runtime, "d", slowly)
    runtime.start()
    sending = asyncio.ensure_future(runtime.send_message(1, agent))
    await passes()
    await runtime.release(agent)
    go.set()

    assert await sending == 1
    await runtime.stop_when_idle()
    assert runtime.statistics().agents == 0


async def test_an_idle_agent_that_could_not_be_saved_is_released_when_it_can_be() -> None:
    class FullOnce(Store):
        tries = 0

        def set(self, key: str, value: Any) -> None:
            self.tries += 1
            if self.tries == 1:
                raise OSError("disk full")
            super().set(key, value)

    store = FullOnce()
    runtime = Runtime(state_store=store, idle_after=0.005)
    agent = await put(runtime, "d", echo)
    runtime.start()
    await runtime.send_message(1, agent)
    while runtime.statistics().agents or runtime.statistics().making:
        await asyncio.sleep(0.001)

    assert store == {"d/here": {}} and store.tries == 2
    await runtime.close()


async def test_an_agent_that_cannot_take_its_state_is_closed_again(closes: type[Closes]) -> None:
    runtime = Runtime(state_store=Store({"d/here": "corrupt"}))
    agent = await put(runtime, "d", echo, cls=closes)
    with pytest.raises(StateError):
        await runtime.get(agent, lazy=False)

    assert closes.closed == 1


async def test_an_instance_that_cannot_be_registered_leaves_its_type_free() -> None:
    class Zero(Does):
        max_pending = 0

    runtime = Runtime()
    with pytest.raises(ConfigError, match="max_pending"):
        await Zero(echo).register_instance(runtime, AgentId("d", "x"))

    await put(runtime, "d", echo)


async def test_who_waits_for_a_released_instance_learns_that_it_is_gone() -> None:
    runtime, blocked, agent = Runtime(), Blocked(), AgentId("s", "x")
    await OneAtATime(blocked).register_instance(runtime, agent)
    runtime.start()
    begun, waits = (asyncio.ensure_future(runtime.send_message(n, agent)) for n in range(2))
    await passes()
    await runtime.release(agent)

    with pytest.raises(UndeliverableException, match="no agent type 's' is registered"):
        await waits
    blocked.go.set()
    assert await begun == 0
    await runtime.stop_when_idle()
