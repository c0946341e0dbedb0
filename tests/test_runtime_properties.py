"""What holds under any schedule: everybody is answered, nothing is lost, nobody is there twice, order is kept."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tinygen.actors import BaseAgent, DefaultInterventionHandler, DropMessage, MessageContext
from tinygen.addresses import AgentId, TopicId, TypeSubscription
from tinygen.cancellation import CancellationToken
from tinygen.errors import CallCycle, MessageDroppedException, MessageTimeout, Overloaded, UndeliverableException
from tinygen.runtime import SingleThreadedAgentRuntime as Runtime

TYPES = ("plain", "sequential", "bounded", "slow", "unmade")
KEYS = ("x", "y")
WORK = ("echo", "fail", "nap", "ask", "ask back", "tell", "release", "drop", "drop answer")
ENDS = (ValueError, LookupError, MessageDroppedException, MessageTimeout, UndeliverableException, Overloaded, CallCycle)


@dataclass
class Job:
    number: int
    work: str


class Log:
    """What happened, seen from the agents."""

    def __init__(self) -> None:
        self.begun: dict[str, list[int]] = defaultdict(list)  # by agent, in order
        self.running = 0
        self.alive: dict[str, int] = defaultdict(int)
        self.most_at_once: dict[str, int] = defaultdict(int)


class Worker(BaseAgent):
    """Does the jobs it gets."""

    def __init__(self, log: Log) -> None:
        super().__init__("worker")
        self.log, self.count, self.busy = log, 0, 0
        log.alive[str(self.id)] += 1

    async def on_message_impl(self, message: Any, ctx: MessageContext) -> Any:
        if message.number:
            self.log.begun[str(self.id)].append(message.number)
        self.log.running += 1
        self.busy += 1
        self.log.most_at_once[self.id.type] = max(self.busy, self.log.most_at_once[self.id.type])
        try:
            await self._work(message)
        finally:
            self.busy -= 1
            self.log.running -= 1
        self.count += 1
        return message

    async def _work(self, job: Job) -> None:
        other = AgentId("sequential" if self.id.type != "sequential" else "plain", self.id.key)
        if job.work == "fail":
            raise ValueError(job)
        if job.work == "nap":
            for _ in range(4):
                await asyncio.sleep(0)
        elif job.work == "ask":
            await self.send_message(Job(0, "nap"), other)
        elif job.work == "ask back":
            await self.send_message(Job(0, "ask"), other)
        elif job.work == "tell":
            await self.publish_message(Job(0, "nap"), TopicId("news", self.id.key))
        elif job.work == "release":
            await self.runtime.release(self.id)

    async def save_state(self) -> Mapping[str, Any]:
        await asyncio.sleep(0)
        return {"count": self.count}

    async def load_state(self, state: Mapping[str, Any]) -> None:
        self.count = state["count"]

    async def close(self) -> None:
        self.log.alive[str(self.id)] -= 1


class OneByOne(Worker):
    sequential = True


class Few(Worker):
    max_pending = 2


class Drops(DefaultInterventionHandler):
    async def on_send(self, message: Any, **about: Any) -> Any:
        return DropMessage if message.work == "drop" else message

    on_publish = on_send

    async def on_response(self, message: Any, **about: Any) -> Any:
        return DropMessage if message.work == "drop answer" else message


class Store(dict[str, Any]):
    def set(self, key: str, value: Any) -> None:
        self[key] = value


class Schedules(RuleBasedStateMachine):
    eager = False

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        if self.eager:
            self.loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
        self.log, self.number = Log(), 0
        self.runtime = Runtime(intervention_handlers=[Drops()], state_store=Store())
        self.sent: list[asyncio.Future[Any]] = []
        self.events: dict[int, tuple[set[str], CancellationToken, str]] = {}
        self.saved: Mapping[str, Any] = {}
        self.registered: set[str] = set()

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(work, 10))

    @initialize()
    def begin(self) -> None:
        self.register("plain")
        self.register("sequential")

    @rule(type=st.sampled_from(TYPES))
    def register(self, type: str) -> None:
        if type in self.registered:
            return
        cls = {"sequential": OneByOne, "bounded": Few}.get(type, Worker)

        async def make() -> Worker:
            if type in ("slow", "unmade"):
                await asyncio.sleep(0)
            if type == "unmade":
                raise LookupError(type)
            return cls(self.log)

        async def join() -> None:
            await cls.register(self.runtime, type, make)
            await self.runtime.add_subscription(TypeSubscription("news", type))

        self.run(join())
        self.registered.add(type)

    @rule(type=st.sampled_from(TYPES), key=st.sampled_from(KEYS), work=st.sampled_from(WORK), hurry=st.booleans())
    def send(self, type: str, key: str, work: str, hurry: bool) -> None:
        self.number += 1
        sending = self.runtime.send_message(
            Job(self.number, work), AgentId(type, key), timeout=0.001 if hurry and work == "nap" else None
        )
        self.sent.append(asyncio.ensure_future(sending, loop=self.loop))
        self.steps(1)

    @rule(key=st.sampled_from(KEYS), work=st.sampled_from(WORK))
    def publish(self, key: str, work: str) -> None:
        self.run(self._publish(key, work))

    async def _publish(self, key: str, work: str) -> None:
        self.number += 1
        token = CancellationToken()
        self.events[self.number] = {f"{type}/{key}" for type in self.registered}, token, work
        topic = TopicId("news", key)
        await self.runtime.publish_message(Job(self.number, work), topic, cancellation_token=token)

    @rule(back=st.integers(1, 3))
    def cancel_a_sender(self, back: int) -> None:
        if len(self.sent) >= back:
            self.sent[-back].cancel()

    @rule()
    def cancel_an_event(self) -> None:
        if self.events:
            self.loop.call_soon(max(self.events.items())[1][1].cancel)
            self.steps(1)

    @rule(number=st.integers(1, 6))
    def steps(self, number: int) -> None:
        async def step() -> None:
            for _ in range(number):
                await asyncio.sleep(0)

        self.run(step())

    @rule(type=st.sampled_from(TYPES), key=st.sampled_from(KEYS))
    def release(self, type: str, key: str) -> None:
        self.sent.append(asyncio.ensure_future(self.runtime.release(AgentId(type, key)), loop=self.loop))
        self.steps(1)

    @rule()
    def save(self) -> None:
        self.saved = self.run(self.runtime.save_state())

    @rule()
    def load(self) -> None:
        self.run(self.runtime.load_state(self.saved))

    @rule(publish=st.booleans())
    def start(self, publish: bool = False) -> None:
        if not self.runtime.is_running:
            self.run(self._start(publish))

    async def _start(self, publish: bool) -> None:
        self.runtime.start()
        if publish:  # before what has waited for the start was delivered
            await self._publish("x", "echo")

    @rule()
    def stop(self) -> None:
        if self.runtime.is_running:
            self.run(self.runtime.stop())

    @rule()
    def stop_when_idle(self) -> None:
        self.start()
        self.run(self.runtime.stop_when_idle())
        assert self.log.running == 0 and not self.runtime.statistics().running

    @invariant()
    def nobody_is_there_twice(self) -> None:
        assert all(alive <= 1 for alive in self.log.alive.values()), dict(self.log.alive)
        assert self.log.most_at_once["sequential"] <= 1 and self.log.most_at_once["bounded"] <= 2

    @invariant()
    def order_is_kept_from_one_sender_to_one_agent(self) -> None:
        assert all(numbers == sorted(numbers) for numbers in self.log.begun.values()), dict(self.log.begun)

    def teardown(self) -> None:
        try:
            self.stop_when_idle()
            self.steps(3)
            self.everybody_was_answered()
            self.nothing_was_lost()
            self.run(self.runtime.close())
            assert not asyncio.all_tasks(self.loop)
        finally:
            self.loop.close()

    def everybody_was_answered(self) -> None:
        assert all(sending.done() for sending in self.sent)
        for sending in self.sent:
            assert sending.cancelled() or isinstance(sending.exception(), (*ENDS, type(None)))

    def nothing_was_lost(self) -> None:
        """An event was begun by each who subscribed to it, or it was dropped or cancelled, or is a dead letter."""
        dead: dict[int, set[str]] = defaultdict(set)
        for letter in self.runtime.dead_letters:
            dead[letter.message.number].add(str(letter.recipient))
        for number, (expected, token, work) in self.events.items():
            reached = {name for name in expected if number in self.log.begun[name]} | dead[number]
            flushed = any(name.startswith("news/") for name in dead[number])
            assert work == "drop" or token.is_cancelled() or flushed or reached >= expected, (number, expected, reached)


class EagerSchedules(Schedules):
    eager = True


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "tinygen")


def test_whatever_the_schedule_nobody_hangs_and_nothing_is_lost() -> None:
    run_state_machine_as_test(Schedules, settings=settings(max_examples=150, stateful_step_count=30))


@pytest.mark.skipif(sys.version_info < (3, 12), reason="tasks start eagerly since 3.12")
def test_whatever_the_schedule_the_same_holds_with_eager_tasks() -> None:
    run_state_machine_as_test(EagerSchedules, settings=settings(max_examples=150, stateful_step_count=30))
