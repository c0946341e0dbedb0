"""The runtime in one process: requests, events, lazy agents, stopping, and nothing left hanging."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import weakref
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import pytest

from actors_for_tests import NOBODY, TOPIC, Blocked, Does, Text, echo, fail, passes, put
from tinygen.actors import (
    AgentInstantiationContext,
    BaseAgent,
    DefaultInterventionHandler,
    MessageContext,
)
from tinygen.addresses import (
    AgentId,
    DefaultTopicId,
    MessageHandlerContext,
    TopicId,
    TypePrefixSubscription,
    TypeSubscription,
    default_subscription,
)
from tinygen.cancellation import CancellationToken
from tinygen.errors import (
    LimitReached,
    Suspended,
    UndeliverableException,
)
from tinygen.routed import RoutedAgent, message_handler, rpc
from tinygen.run import Run
from tinygen.runtime import SingleThreadedAgentRuntime as Runtime


@pytest.fixture
def runtime() -> Runtime:
    return Runtime()


@pytest.fixture
def strict_runtime() -> Runtime:
    return Runtime(ignore_unhandled_exceptions=False)


# --- requests


async def test_the_answer_to_a_request_is_what_the_handler_returns(runtime: Runtime) -> None:
    agent = await put(runtime, "echo", echo)
    runtime.start()

    message = Text("hello")

    assert await runtime.send_message(message, agent) is message
    await runtime.stop()


async def test_an_unknown_agent_type_is_refused_at_once_with_a_hint(runtime: Runtime) -> None:
    await put(runtime, "writer", echo)

    with pytest.raises(UndeliverableException, match="no agent type 'wrtier' is registered; did you mean 'writer'"):
        await runtime.send_message(Text(""), AgentId("wrtier", "x"))


async def test_what_a_handler_raises_is_raised_at_the_sender(strict_runtime: Runtime) -> None:
    agent = await put(strict_runtime, "fails", fail)
    strict_runtime.start()

    for error in (KeyError("gone"), Suspended("input"), LimitReached(None, "tokens", 2, 1)):
        with pytest.raises(type(error)) as caught:
            await strict_runtime.send_message(error, agent)
        assert caught.value is error

    await strict_runtime.stop_when_idle()  # it is no failure of the runtime's


async def test_a_failure_that_was_handled_is_freed_at_once(runtime: Runtime) -> None:
    class Fault(Exception):
        pass

    async def fail_anew(agent: Does, message: Any, ctx: MessageContext) -> Any:
        raise Fault

    agent = await put(runtime, "fails", fail_anew)
    runtime.start()
    gc.disable()  # so that only what nothing refers to is freed
    try:
        with pytest.raises(Fault) as caught:
            await runtime.send_message(1, agent)
        freed = weakref.ref(caught.value)
        del caught
        await passes()
        assert freed() is None
    finally:
        gc.enable()
    await runtime.stop()


async def test_messages_of_one_sender_are_taken_up_in_order(runtime: Runtime) -> None:
    order = []

    async def note(agent: Does, message: Any, ctx: MessageContext) -> None:
        order.append(message)

    agent = await put(runtime, "notes", note, topic="news")
    runtime.start()
    for n in range(0, 10, 2):
        await runtime.publish_message(n, TOPIC)
        sending = asyncio.ensure_future(runtime.send_message(n + 1, agent))
        await sending

    assert order == list(range(10))
    await runtime.stop()


async def test_handlers_of_one_agent_take_turns_while_they_wait(runtime: Runtime) -> None:
    async def ask_itself(agent: Does, message: int, ctx: MessageContext) -> int:
        return 0 if message == 0 else 1 + await agent.send_message(message - 1, agent.id)

    agent = await put(runtime, "recursive", ask_itself)
    runtime.start()

    assert await runtime.send_message(50, agent) == 50
    await runtime.stop()


async def test_a_handler_learns_how_the_message_came(runtime: Runtime) -> None:
    seen: list[MessageContext] = []

    async def note(agent: Does, message: Any, ctx: MessageContext) -> Any:
        assert MessageHandlerContext.agent_id() == agent.id
        seen.append(ctx)
        return str(DefaultTopicId())

    token = CancellationToken()
    agent = await put(runtime, "notes", note, topic="news")
    runtime.start()
    topic = await runtime.send_message(1, agent, sender=NOBODY, cancellation_token=token, message_id="m1")
    await runtime.publish_message(1, TOPIC)
    await runtime.stop_when_idle()

    assert topic == "default/here"
    request, event = seen
    assert (request.sender, request.topic_id, request.is_rpc) == (NOBODY, None, True)
    assert (request.cancellation_token, request.message_id) == (token, "m1")
    assert (event.sender, event.topic_id, event.is_rpc) == (None, TOPIC, False)


async def test_messages_overtake_none_that_waits_for_its_agent_to_be_made(runtime: Runtime) -> None:
    order = []

    async def note(agent: Does, message: Any, ctx: MessageContext) -> None:
        order.append(message)

    await put(runtime, "notes", note, topic="news")
    runtime.start()
    for steps in range(8):
        for n in range(3):
            await runtime.publish_message((steps, n), TopicId("news", str(steps)))
            for _ in range(steps):
                await asyncio.sleep(0)
    await runtime.stop_when_idle()

    assert order == sorted(order)


async def test_a_message_goes_to_an_address_only(runtime: Runtime) -> None:
    await put(runtime, "d", echo)

    with pytest.raises(ValueError, match="to an AgentId, not to 'd'"):
        await runtime.send_message(1, "d")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="to a TopicId, not to 'news'"):
        await runtime.publish_message(1, "news")  # type: ignore[arg-type]


# --- events


async def test_an_event_reaches_every_subscriber_once(runtime: Runtime) -> None:
    heard = []

    async def note(agent: Does, message: Any, ctx: MessageContext) -> None:
        heard.append(f"{agent.id} {message}")

    await put(runtime, "a", note, topic="news")
    await put(runtime, "b", note, topic="news")
    await put(runtime, "c", note)
    await runtime.add_subscription(TypePrefixSubscription("new", "a"))
    runtime.start()
    await runtime.publish_message("!", TOPIC)
    await runtime.publish_message("?", TopicId("other", "here"))
    await runtime.stop_when_idle()

    assert heard == ["a/here !", "b/here !"]


async def test_an_event_does_not_come_back_to_its_sender(runtime: Runtime) -> None:
    heard = []

    async def tell_others(agent: Does, message: Any, ctx: MessageContext) -> None:
        heard.append(f"{agent.id} {message}")
        if ctx.is_rpc:
            await agent.publish_message("news", TopicId("news", "a"))
            await agent.publish_message("more", TopicId("news", "b"))

    await put(runtime, "gossip", tell_others, topic="news")
    runtime.start()
    await runtime.send_message("start", AgentId("gossip", "a"))
    await runtime.stop_when_idle()

    assert heard == ["gossip/a start", "gossip/b more"]


async def test_a_failing_subscriber_hinders_nobody(strict_runtime: Runtime) -> None:
    blocked, error = Blocked(), ValueError("first")

    def no_agent() -> Does:
        raise LookupError("no agent")

    await strict_runtime.get(await put(strict_runtime, "fails", fail, topic="news"), lazy=False)
    await Does.register(strict_runtime, "unmade", no_agent)
    await strict_runtime.add_subscription(TypeSubscription("news", "unmade"))
    await put(strict_runtime, "waits", blocked, topic="news")
    strict_runtime.start()

    await strict_runtime.publish_message(error, TOPIC)
    stopping = asyncio.ensure_future(strict_runtime.stop_when_idle())
    await blocked.began.wait()
    await passes()
    assert not stopping.done()  # one of them still runs
    blocked.go.set()

    with pytest.raises(ValueError, match="first") as caught:
        await stopping
    assert caught.value is error
    assert [note.split(":")[1] for note in error.__notes__] == [" LookupError"]
    assert blocked.ended == 1


async def test_a_runtime_that_raised_can_be_started_again(strict_runtime: Runtime) -> None:
    await put(strict_runtime, "fails", fail, topic="news")
    strict_runtime.start()
    await strict_runtime.publish_message(ValueError("once"), TOPIC)
    with pytest.raises(ValueError, match="once"):
        await strict_runtime.stop_when_idle()

    strict_runtime.start()
    await strict_runtime.stop_when_idle()


async def test_failures_of_events_go_to_the_hook_and_the_log(caplog: pytest.LogCaptureFixture) -> None:
    told: list[Any] = []

    def tell(*about: Any) -> None:
        told.append(about)
        raise RuntimeError("the hook fails too")

    runtime = Runtime(on_failure=tell)
    agent = await put(runtime, "fails", fail, topic="news")
    runtime.start()
    error = LimitReached(None, "tokens", 2, 1)
    await runtime.publish_message(error, TOPIC)
    await runtime.stop_when_idle()

    assert told == [(error, error, agent)]
    assert "a message of type LimitReached failed at agent fails/here" in caplog.text
    assert "on_failure failed" in caplog.text


# --- agents are made when they are needed


class Counted(Does):
    made = 0

    def __init__(self) -> None:
        super().__init__(echo)
        type(self).made += 1


@pytest.fixture
def counted() -> type[Counted]:
    return type("Counted", (Counted,), {"made": 0})


async def test_first_messages_that_race_make_one_agent(runtime: Runtime, counted: type[Counted]) -> None:
    go = asyncio.Event()

    async def slowly() -> Counted:
        await go.wait()
        return counted()

    await counted.register(runtime, "slow", slowly)
    await runtime.add_subscription(TypeSubscription("news", "slow"))
    runtime.start()
    agent = AgentId("slow", "here")
    sending = [asyncio.ensure_future(runtime.send_message(n, agent)) for n in range(3)]
    await runtime.publish_message(3, TOPIC)
    await passes()
    go.set()

    assert await asyncio.gather(*sending) == [0, 1, 2]
    assert counted.made == 1
    await runtime.stop_when_idle()


async def test_every_key_has_an_agent_of_its_own(runtime: Runtime, counted: type[Counted]) -> None:
    places = []

    def make() -> Counted:
        places.append((AgentInstantiationContext.current_runtime(), str(AgentInstantiationContext.current_agent_id())))
        return counted()

    await counted.register(runtime, "c", make)
    runtime.start()
    for key in ("one", "two", "one"):
        await runtime.send_message(1, AgentId("c", key))

    assert places == [(runtime, "c/one"), (runtime, "c/two")]
    await runtime.stop()


async def test_a_factory_that_fails_is_tried_again_by_the_next_message(
    runtime: Runtime, counted: type[Counted]
) -> None:
    tries = 0

    async def second_time() -> Counted:
        nonlocal tries
        tries += 1
        await passes()
        if tries == 1:
            raise OSError("not yet")
        return counted()

    await counted.register(runtime, "c", second_time)
    runtime.start()
    agent = AgentId("c", "x")
    failures = await asyncio.gather(*(runtime.send_message(n, agent) for n in range(3)), return_exceptions=True)

    assert len(failures) == 3 and len({id(error) for error in failures}) == 1
    assert str(failures[0]) == "not yet"
    assert await runtime.send_message(1, agent) == 1
    await runtime.stop_when_idle()


async def test_cancelling_the_first_sender_does_not_interrupt_the_making(runtime: Runtime) -> None:
    began, go, handled = asyncio.Event(), asyncio.Event(), []

    async def note(agent: Does, message: Any, ctx: MessageContext) -> Any:
        handled.append(message)

    async def slowly() -> Does:
        began.set()
        await go.wait()
        return Does(note)

    await Does.register(runtime, "slow", slowly)
    runtime.start()
    agent = AgentId("slow", "x")
    first = asyncio.ensure_future(runtime.send_message(1, agent))
    await began.wait()
    second = asyncio.ensure_future(runtime.send_message(2, agent))
    await passes()
    first.cancel()
    await passes()
    go.set()
    await second

    assert first.cancelled() and handled == [2]
    await runtime.stop_when_idle()


async def test_stopping_answers_who_waits_for_an_agent_to_be_made(runtime: Runtime) -> None:
    began, go, blocked = asyncio.Event(), asyncio.Event(), Blocked()

    async def slowly() -> Does:
        began.set()
        await go.wait()
        return Does(blocked)

    await Does.register(runtime, "slow", slowly)
    runtime.start()
    agent = AgentId("slow", "x")
    sending = asyncio.ensure_future(runtime.send_message(1, agent))
    await began.wait()
    await runtime.stop()
    with pytest.raises(UndeliverableException, match="the runtime was stopped"):
        await sending
    go.set()
    await passes()

    assert blocked.begun == 0
    assert list(await runtime.save_state()) == ["slow/x"]  # it serves the next start


async def test_agents_are_made_in_the_context_of_who_started_the_runtime(runtime: Runtime) -> None:
    where: ContextVar[str] = ContextVar("where", default="outside")
    found = []

    def make() -> Does:
        found.append(where.get())
        return Does(note)

    async def note(agent: Does, message: Any, ctx: MessageContext) -> None:
        found.append(where.get())

    await Does.register(runtime, "d", make)
    where.set("owner")
    runtime.start()
    where.set("sender")
    await runtime.send_message(1, AgentId("d", "x"))
    await runtime.stop()

    assert found == ["owner", "sender"]


@pytest.mark.parametrize("made", [None, BaseAgent("another class")])
async def test_a_factory_that_makes_something_else_is_refused(runtime: Runtime, made: Any) -> None:
    await Does.register(runtime, "d", lambda: made)
    await runtime.register_factory("e", lambda: 3)  # type: ignore[arg-type,return-value]

    with pytest.raises(ValueError, match=r"the factory of agent type 'd' made .*, not a Does"):
        await runtime.get("d", lazy=False)
    with pytest.raises(ValueError, match="made 3, not an agent"):
        await runtime.get("e", lazy=False)


async def test_a_factory_is_registered_once_and_takes_no_arguments(runtime: Runtime) -> None:
    await put(runtime, "d", echo)

    with pytest.raises(ValueError, match="'d' is registered already"):
        await put(runtime, "d", echo)
    with pytest.raises(ValueError, match=r"needs \['runtime', 'agent_id'\]"):
        await runtime.register_factory("e", lambda runtime, agent_id: Does(echo))  # type: ignore[arg-type,misc]


# --- instances


async def test_an_instance_answers_under_its_id_only(runtime: Runtime) -> None:
    await Does(echo).register_instance(runtime, AgentId("d", "one"))
    runtime.start()

    assert await runtime.send_message(1, AgentId("d", "one")) == 1
    with pytest.raises(UndeliverableException, match=r"there is no agent 'd/two'.*skip_class_subscriptions=True"):
        await runtime.send_message(1, AgentId("d", "two"))
    await runtime.stop()


async def test_instances_of_one_type_are_of_one_class_and_have_one_place(runtime: Runtime) -> None:
    agent = Does(echo)
    await agent.register_instance(runtime, AgentId("d", "one"))
    await put(runtime, "made", echo)

    with pytest.raises(ValueError, match="'d/one' exists already"):
        await Does(echo).register_instance(runtime, AgentId("d", "one"))
    with pytest.raises(ValueError, match="are of class"):
        await BaseAgent("other").register_instance(runtime, AgentId("d", "two"))
    with pytest.raises(ValueError, match="are made by a factory"):
        await Does(echo).register_instance(runtime, AgentId("made", "one"))
    with pytest.raises(RuntimeError, match="cannot be agent 'e/one' too"):
        await agent.register_instance(runtime, AgentId("e", "one"))
    with pytest.raises(LookupError):  # nothing of the failed registration is left
        await runtime.get("e", "one", lazy=False)


async def test_an_instance_hears_the_topic_of_its_key_and_direct_messages(runtime: Runtime) -> None:
    heard = []

    async def note(agent: Does, message: Any, ctx: MessageContext) -> None:
        heard.append(message)

    await Does(note).register_instance(runtime, AgentId("d", "one"))
    runtime.start()
    await runtime.publish_message(1, TopicId("one", "one"))
    await runtime.publish_message(2, TopicId("d:anything", "one"))
    await runtime.publish_message(3, TopicId("two", "one"))
    await runtime.stop_when_idle()

    assert heard == [1, 2]


@default_subscription
class Hears(RoutedAgent):
    heard = 0

    @message_handler
    async def on_text(self, message: Text, ctx: MessageContext) -> int:
        self.heard += 1
        return self.heard


async def test_an_instance_has_the_subscriptions_of_its_class_if_asked_for(runtime: Runtime) -> None:
    without, having = Hears("without"), Hears("having")
    await without.register_instance(runtime, AgentId("without", "key"))
    await having.register_instance(runtime, AgentId("having", "key"), skip_class_subscriptions=False)
    runtime.start()
    await runtime.publish_message(Text(""), DefaultTopicId(source="key"))
    await runtime.stop_when_idle()

    assert (without.heard, having.heard) == (0, 1)


async def test_released_instances_leave_nothing_behind(runtime: Runtime) -> None:
    before = await footprint(runtime)
    first, second = AgentId("d", "one"), AgentId("d", "two")
    for agent in (first, second):
        await Does(echo).register_instance(runtime, agent, skip_class_subscriptions=False)

    await runtime.release(first)
    with pytest.raises(UndeliverableException):
        await runtime.get(first, lazy=False)
    assert await runtime.get(second, lazy=False) == second
    await runtime.release(second)
    await runtime.release(second)

    assert await footprint(runtime) == before
    await Does(echo).register_instance(runtime, first)


async def footprint(runtime: Runtime) -> list[int]:
    held = vars(runtime).values()
    routes = [getattr(runtime._routes, name) for name in runtime._routes.__slots__]
    return [len(each) for each in (*held, *routes) if hasattr(each, "__len__")]


# --- looking at agents


async def test_an_agent_can_be_looked_up_and_looked_at(runtime: Runtime) -> None:
    agent = await put(runtime, "d", echo)

    assert await runtime.get("unknown") == AgentId("unknown", "default")
    assert await runtime.get(agent, lazy=False) == agent
    assert await runtime.agent_metadata(agent) == {"type": "d", "key": "here", "description": "does"}
    assert (await runtime.try_get_underlying_agent_instance(agent, Does)).do is echo
    with pytest.raises(TypeError, match="'d/here' is a Does, not a RoutedAgent"):
        await runtime.try_get_underlying_agent_instance(agent, RoutedAgent)
    for look in (runtime.agent_metadata, runtime.agent_save_state, runtime.try_get_underlying_agent_instance):
        with pytest.raises(LookupError):
            await look(NOBODY)  # type: ignore[operator]


async def test_the_state_of_all_agents_is_saved_and_loaded(runtime: Runtime) -> None:
    agent = await put(runtime, "d", echo)
    await runtime.agent_load_state(agent, {"count": 1})
    await runtime.get("d", "a/b", lazy=False)
    state = await runtime.save_state()
    assert state == {"d/here": {"count": 1}, "d/a/b": {}}

    other = Runtime()
    await put(other, "d", echo)
    await other.load_state({**state, "unknown/x": {"count": 2}})

    assert await other.agent_save_state(agent) == {"count": 1}
    assert await other.save_state() == state


# --- interventions


class Adds(DefaultInterventionHandler):
    def __init__(self, what: str) -> None:
        self.what = what
        self.calls: list[Any] = []

    async def on_send(self, message: Any, *, message_context: MessageContext, recipient: AgentId) -> Any:
        self.calls.append((message, recipient))
        return message + self.what

    async def on_publish(self, message: Any, *, message_context: MessageContext) -> Any:
        self.calls.append((message, message_context.topic_id))
        return message + self.what

    async def on_response(self, message: Any, *, sender: AgentId, recipient: AgentId | None) -> Any:
        self.calls.append((message, sender, recipient))
        return message + self.what.upper()


async def test_interventions_see_what_the_one_before_made() -> None:
    first, second = Adds("a"), Adds("b")
    runtime, heard = Runtime(intervention_handlers=[first, second]), []

    async def note(agent: Does, message: Any, ctx: MessageContext) -> Any:
        heard.append(message)
        return message

    agent = await put(runtime, "d", note, topic="news")
    await put(runtime, "e", note, topic="news")
    runtime.start()
    assert await runtime.send_message("x", agent, sender=NOBODY) == "xabAB"
    await runtime.publish_message("y", TOPIC)
    await runtime.stop_when_idle()

    assert heard == ["xab", "yab", "yab"]
    assert second.calls == [("xa", agent), ("xabA", agent, NOBODY), ("ya", TOPIC)]


class Raises(DefaultInterventionHandler):
    async def on_send(self, message: Any, **about: Any) -> Any:
        raise PermissionError(message)

    async def on_publish(self, message: Any, **about: Any) -> Any:
        raise PermissionError(message)


async def test_what_an_intervention_raises_reaches_the_sender() -> None:
    runtime = Runtime(intervention_handlers=[Raises()])
    agent = await put(runtime, "d", echo, topic="news")
    runtime.start()

    with pytest.raises(PermissionError, match="request"):
        await runtime.send_message("request", agent)
    with pytest.raises(PermissionError, match="event"):
        await runtime.publish_message("event", TOPIC)
    await runtime.stop_when_idle()


# --- cancellation


@pytest.mark.parametrize("by_token", [True, False])
async def test_a_request_that_is_cancelled_in_the_queue_is_not_handled(runtime: Runtime, by_token: bool) -> None:
    blocked, token = Blocked(), CancellationToken()
    agent = await put(runtime, "d", blocked, topic="news")
    await runtime.get(agent, lazy=False)
    sending = asyncio.ensure_future(runtime.send_message(1, agent, cancellation_token=token))
    await runtime.publish_message(1, TOPIC, cancellation_token=token)
    await passes()

    token.cancel() if by_token else sending.cancel()
    await passes()
    runtime.start()
    blocked.go.set()
    await runtime.stop_when_idle()

    assert sending.cancelled()
    assert blocked.begun == (0 if by_token else 1)  # the event, which has only the token


@pytest.mark.parametrize("by_token", [True, False])
async def test_a_handler_is_cancelled_with_its_sender(runtime: Runtime, by_token: bool) -> None:
    blocked, token = Blocked(), CancellationToken()
    agent = await put(runtime, "d", blocked)
    runtime.start()
    sending = asyncio.ensure_future(runtime.send_message(1, agent, cancellation_token=token))
    await blocked.began.wait()

    token.cancel() if by_token else sending.cancel()
    await runtime.stop_when_idle()

    assert sending.cancelled() and blocked.cancelled == 1


async def test_a_token_stops_the_handlers_of_an_event(strict_runtime: Runtime) -> None:
    blocked, token = Blocked(), CancellationToken()
    await put(strict_runtime, "d", blocked, topic="news")
    strict_runtime.start()
    await strict_runtime.publish_message(1, TOPIC, cancellation_token=token)
    await blocked.began.wait()

    threading.Thread(target=token.cancel).start()
    await strict_runtime.stop_when_idle()  # that is no failure

    assert blocked.cancelled == 1


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tasks do not tell there who has cancelled them")
async def test_a_handler_of_an_event_that_ends_as_if_cancelled_is_a_failure(strict_runtime: Runtime) -> None:
    await put(strict_runtime, "fails", fail, topic="news")
    strict_runtime.start()
    await strict_runtime.publish_message(asyncio.CancelledError(), TOPIC)

    with pytest.raises(UndeliverableException, match="for topic 'news/here' was not handled to its end"):
        await strict_runtime.stop_when_idle()

    assert [letter.recipient for letter in strict_runtime.dead_letters] == [AgentId("fails", "here")]


async def test_a_handler_that_sees_the_cancellation_before_it_is_cancelled_is_no_failure(
    strict_runtime: Runtime,
) -> None:
    token = CancellationToken()

    async def cancels(agent: Does, message: Any, ctx: MessageContext) -> None:
        thread = threading.Thread(target=token.cancel)  # which the event loop learns of later
        thread.start()
        thread.join()
        raise asyncio.CancelledError

    await put(strict_runtime, "d", cancels, topic="news")
    strict_runtime.start()
    await strict_runtime.publish_message(1, TOPIC, cancellation_token=token)
    await strict_runtime.stop_when_idle()

    assert token.is_cancelled() and not strict_runtime.dead_letters


async def test_cancellation_goes_through_a_chain_of_agents(runtime: Runtime) -> None:
    blocked = Blocked()
    end = await put(runtime, "end", blocked)

    async def pass_on(agent: Does, message: int, ctx: MessageContext) -> Any:
        return await agent.send_message(message - 1, agent.id if message else end)

    start = await put(runtime, "chain", pass_on)
    runtime.start()
    sending = asyncio.ensure_future(runtime.send_message(5, start))
    await blocked.began.wait()
    sending.cancel()
    await runtime.stop_when_idle()

    assert blocked.cancelled == 1


async def test_a_failure_after_the_sender_has_gone_is_told_to_the_hook() -> None:
    told = []
    runtime, began = Runtime(on_failure=lambda error, message, agent: told.append(str(error))), asyncio.Event()

    async def fails_late(agent: Does, message: Any, ctx: MessageContext) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("late")

    agent = await put(runtime, "d", fails_late)
    runtime.start()
    sending = asyncio.ensure_future(runtime.send_message(1, agent))
    await began.wait()
    sending.cancel()
    await runtime.stop_when_idle()

    assert told == ["late"]


@pytest.mark.parametrize("steps", range(8))
async def test_a_failure_reaches_the_sender_or_the_dead_letters_whenever_that_is_cancelled(
    runtime: Runtime, steps: int
) -> None:
    begun = 0

    async def fails(agent: Does, message: Any, ctx: MessageContext) -> None:
        nonlocal begun
        begun += 1
        raise ValueError("lost")

    agent = await put(runtime, "d", fails)
    runtime.start()
    sending = asyncio.ensure_future(runtime.send_message(1, agent))
    for _ in range(steps):
        await asyncio.sleep(0)
    sending.cancel()
    await asyncio.wait({sending})
    await runtime.stop_when_idle()

    raised = 0 if sending.cancelled() else 1
    assert [str(letter.error) for letter in runtime.dead_letters] == ["lost"] * (begun - raised)


async def test_a_handler_that_answers_in_spite_of_its_cancellation_is_not_heard(runtime: Runtime) -> None:
    began = asyncio.Event()

    async def stubborn(agent: Does, message: Any, ctx: MessageContext) -> str:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass
        return "too late"

    agent = await put(runtime, "d", stubborn)
    runtime.start()
    sending = asyncio.ensure_future(runtime.send_message(1, agent))
    await began.wait()
    sending.cancel()
    await runtime.stop_when_idle()

    assert sending.cancelled()


@pytest.mark.parametrize("steps", range(12))
async def test_cancelling_at_any_step_leaves_the_runtime_idle(runtime: Runtime, steps: int) -> None:
    async def slowly() -> Does:
        await asyncio.sleep(0)
        return Does(pass_on)

    async def pass_on(agent: Does, message: int, ctx: MessageContext) -> Any:
        await agent.publish_message(0, TopicId("news", agent.id.key + "x"))
        return await agent.send_message(message - 1, agent.id) if message else 0

    await Does.register(runtime, "d", slowly)
    await runtime.add_subscription(TypeSubscription("news", "e"))
    await put(runtime, "e", echo)
    runtime.start()
    sending = asyncio.ensure_future(runtime.send_message(3, AgentId("d", "x")))
    for _ in range(steps):
        await asyncio.sleep(0)
    sending.cancel()
    await passes()
    await runtime.stop_when_idle()

    assert sending.cancelled() or await sending == 0
    assert not runtime._live and not runtime._changing and not runtime._queue


# --- stopping


async def test_starting_and_stopping_out_of_turn_is_refused(runtime: Runtime) -> None:
    for stop in (runtime.stop, runtime.stop_when_idle, lambda: runtime.stop_when(lambda: True)):
        with pytest.raises(RuntimeError, match="is not started"):
            await stop()
    assert not runtime.is_running
    runtime.start()
    with pytest.raises(RuntimeError, match="is started already"):
        runtime.start()
    assert runtime.is_running
    await runtime.stop()


async def test_stopping_answers_who_waits_in_the_queue(runtime: Runtime) -> None:
    agent = await put(runtime, "d", echo, topic="news")
    runtime.start()
    sending = asyncio.ensure_future(runtime.send_message(1, agent))
    await asyncio.sleep(0)  # it is in the queue now
    await runtime.stop()

    with pytest.raises(UndeliverableException, match=r"the int for agent 'd/here' was not delivered: .* stopped"):
        await sending


async def test_an_event_that_a_stop_leaves_undelivered_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    told: list[Any] = []
    runtime = Runtime(on_failure=lambda *about: told.append(about), ignore_unhandled_exceptions=False)
    await put(runtime, "d", echo, topic="news")
    runtime.start()
    await runtime.publish_message(1, TOPIC)
    await runtime.stop()

    [(error, message, agent)] = told
    assert isinstance(error, UndeliverableException) and (message, agent) == (1, AgentId("d", "here"))
    assert "a message of type int failed at agent d/here" in caplog.text
    runtime.start()
    await runtime.stop_when_idle()  # nobody failed


async def test_handlers_that_run_when_it_stops_may_finish_and_answer(runtime: Runtime) -> None:
    blocked = Blocked()
    agent = await put(runtime, "d", blocked)
    runtime.start()
    sending = asyncio.ensure_future(runtime.send_message(1, agent))
    await blocked.began.wait()
    await runtime.stop()
    blocked.go.set()

    assert await sending == 1


async def test_a_handler_of_a_stopped_runtime_does_not_wait_for_an_answer_forever(runtime: Runtime) -> None:
    blocked = Blocked()

    async def asks_later(agent: Does, message: Any, ctx: MessageContext) -> Any:
        await blocked(agent, message, ctx)
        await agent.publish_message("kept", TOPIC)
        return await agent.send_message(1, agent.id)

    agent = await put(runtime, "d", asks_later)
    heard = await put(runtime, "e", echo, topic="news")
    runtime.start()
    sending = asyncio.ensure_future(runtime.send_message(1, agent))
    await blocked.began.wait()
    await runtime.stop()
    blocked.go.set()

    with pytest.raises(UndeliverableException, match="was stopped while this handler was running"):
        await sending
    runtime.start()
    await runtime.stop_when_idle()
    assert str(heard) in await runtime.save_state()  # the event was delivered after the restart


async def test_a_stopped_runtime_keeps_its_agents_for_the_next_start(runtime: Runtime, counted: type[Counted]) -> None:
    await counted.register(runtime, "c", counted)
    agent = AgentId("c", "x")
    for n in range(3):
        sending = asyncio.ensure_future(runtime.send_message(n, agent))
        await passes()
        runtime.start()
        assert await sending == n
        await runtime.stop()

    assert counted.made == 1


async def test_stopping_when_idle_waits_for_all_that_follows(runtime: Runtime) -> None:
    hops = []

    async def count_down(agent: Does, message: int, ctx: MessageContext) -> None:
        hops.append(message)
        await asyncio.sleep(0)
        if message:
            await agent.publish_message(message - 1, TopicId("news", "b" if agent.id.key == "a" else "a"))

    await put(runtime, "d", count_down, topic="news")
    runtime.start()
    await runtime.publish_message(20, TopicId("news", "a"))
    await runtime.stop_when_idle()

    assert hops == list(range(20, -1, -1))


async def test_a_sender_that_goes_on_sending_keeps_it_from_being_idle(runtime: Runtime) -> None:
    agent = await put(runtime, "d", echo)
    runtime.start()

    async def converse() -> int:
        return sum([await runtime.send_message(1, agent) for _ in range(20)])

    talking = asyncio.ensure_future(converse())
    await asyncio.sleep(0)
    await runtime.stop_when_idle()

    assert talking.done() and talking.result() == 20


async def test_a_handler_cannot_wait_until_all_handlers_are_done(runtime: Runtime) -> None:
    async def wait(agent: Does, message: Any, ctx: MessageContext) -> None:
        await runtime.stop_when_idle()

    agent = await put(runtime, "d", wait)
    runtime.start()
    with pytest.raises(RuntimeError, match="would wait for itself"):
        await runtime.send_message(1, agent)
    await runtime.stop()


async def test_a_handler_can_stop_and_close_its_runtime(runtime: Runtime) -> None:
    async def end(agent: Does, message: str, ctx: MessageContext) -> str:
        await getattr(runtime, message)()
        return message

    agent = await put(runtime, "d", end)
    for way in ("stop", "close"):
        runtime.start()
        assert await runtime.send_message(way, agent) == way
        assert not runtime.is_running


async def test_it_stops_when_a_condition_holds(runtime: Runtime) -> None:
    blocked = Blocked()
    agent = await put(runtime, "d", blocked)
    runtime.start()
    sending = asyncio.ensure_future(runtime.send_message(1, agent))

    await runtime.stop_when(lambda: blocked.begun == 1)
    assert not runtime.is_running
    blocked.go.set()
    assert await sending == 1


async def test_who_stops_it_on_a_condition_is_not_kept_when_somebody_else_stops_it(runtime: Runtime) -> None:
    runtime.start()
    stopping = asyncio.ensure_future(runtime.stop_when(lambda: False))
    await passes()
    await runtime.stop()

    await stopping


async def test_a_condition_that_fails_leaves_the_runtime_started(runtime: Runtime) -> None:
    runtime.start()

    with pytest.raises(ZeroDivisionError):
        await runtime.stop_when(lambda: bool(1 / 0))

    await runtime.stop()


# --- closing


async def test_messages_can_be_processed_one_by_one_by_hand(strict_runtime: Runtime) -> None:
    runtime = strict_runtime
    relayed = await put(runtime, "relay", relay)
    await put(runtime, "echo", echo)
    await put(runtime, "fails", fail, topic="news")
    sending = asyncio.ensure_future(runtime.send_message("hi", relayed))
    await passes()
    steps = 0
    while runtime.unprocessed_messages_count:
        await runtime.process_next()
        await passes()
        steps += 1

    assert (await sending, steps) == ("hi", 2)
    await runtime.publish_message(ValueError("bad"), TOPIC)
    with pytest.raises(ValueError, match="bad"):
        for _ in range(5):
            await runtime.process_next()
            await passes()


async def relay(agent: Does, message: Any, ctx: MessageContext) -> Any:
    return await agent.send_message(message, AgentId("echo", "here"))


async def test_processing_by_hand_waits_for_a_message_and_is_not_for_a_started_runtime(runtime: Runtime) -> None:
    agent = await put(runtime, "echo", echo)
    processing = asyncio.ensure_future(runtime.process_next())
    await passes()
    assert not processing.done()
    sending = asyncio.ensure_future(runtime.send_message(1, agent))
    await processing
    assert await sending == 1

    runtime.start()
    with pytest.raises(RuntimeError, match="a runtime that is started delivers by itself"):
        await runtime.process_next()
    await runtime.stop()


async def test_everybody_who_processes_by_hand_gets_a_message_or_learns_that_it_was_started(runtime: Runtime) -> None:
    agent = await runtime.get(await put(runtime, "echo", echo), lazy=False)
    processing = [asyncio.ensure_future(runtime.process_next()) for _ in range(3)]
    await passes()
    sending = [asyncio.ensure_future(runtime.send_message(n, agent)) for n in range(2)]
    assert await asyncio.gather(*sending, *processing[:2]) == [0, 1, None, None]

    runtime.start()
    with pytest.raises(RuntimeError, match="delivers by itself"):
        await processing[2]
    await runtime.stop()


async def test_closing_closes_every_agent_even_if_one_raises(runtime: Runtime) -> None:
    closed = []

    class Closes(Does):
        async def close(self) -> None:
            closed.append(self.id.key)
            if self.id.key != "b":
                raise OSError(f"{self.id.key} cannot")

    await Closes.register(runtime, "c", lambda: Closes(echo))
    for key in "abc":
        await runtime.get("c", key, lazy=False)
    runtime.start()

    with pytest.raises(OSError, match="a cannot") as caught:
        await runtime.close()

    assert closed == ["a", "b", "c"] and not runtime.is_running
    assert caught.value.__notes__ == ["also failed: OSError: c cannot"]


async def test_closing_ends_what_runs_and_answers_who_waits(runtime: Runtime, counted: type[Counted]) -> None:
    blocked = Blocked()
    agent = await put(runtime, "d", blocked, topic="news")

    async def never() -> Counted:
        await asyncio.Event().wait()
        raise NotImplementedError

    await counted.register(runtime, "never", never)
    runtime.start()
    await runtime.publish_message(0, TOPIC)
    sending = [asyncio.ensure_future(runtime.send_message(1, to)) for to in (agent, AgentId("never", "x"))]
    getting = asyncio.ensure_future(runtime.get("never", "x", lazy=False))
    await blocked.began.wait()
    await passes()
    sending.append(asyncio.ensure_future(runtime.send_message(2, agent)))
    await asyncio.sleep(0)
    await runtime.close()

    for waiting in (*sending, getting):
        with pytest.raises(UndeliverableException):
            await waiting
    assert blocked.cancelled == 2


async def test_a_closed_runtime_refuses_messages_until_it_is_started(runtime: Runtime) -> None:
    agent = await put(runtime, "d", echo)
    pending = asyncio.ensure_future(runtime.send_message(1, agent))
    await passes()
    await runtime.close()
    await runtime.close()

    with pytest.raises(UndeliverableException, match="the runtime was closed"):
        await pending
    for send in (runtime.send_message(1, agent), runtime.publish_message(1, TOPIC)):
        with pytest.raises(UndeliverableException, match=r"is closed; start\(\) opens it again"):
            await send
    runtime.start()
    assert await runtime.send_message(1, agent) == 1
    await runtime.close()


async def test_closing_leaves_a_deaf_handler_behind(runtime: Runtime, caplog: pytest.LogCaptureFixture) -> None:
    began, go = asyncio.Event(), asyncio.Event()

    async def deaf(agent: Does, message: Any, ctx: MessageContext) -> None:
        began.set()
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                pass

    agent = await put(runtime, "d", deaf)
    runtime.start()
    sending = asyncio.ensure_future(runtime.send_message(1, agent))
    await began.wait()
    await runtime.close()

    assert "agent d/here is left behind" in caplog.text
    with pytest.raises(UndeliverableException):
        await sending
    go.set()


# --- event loops


def test_a_runtime_outlives_an_event_loop_that_was_closed(runtime: Runtime) -> None:
    async def first() -> AgentId:
        agent = await put(runtime, "d", Blocked(), topic="news")
        runtime.start()
        sending = asyncio.ensure_future(runtime.send_message(1, agent))
        await runtime.publish_message(1, TOPIC)
        await passes()
        assert not sending.done()
        return agent

    async def second(agent: AgentId) -> None:
        assert not runtime.is_running
        with pytest.raises(UndeliverableException, match="is closed; call start"):
            await runtime.send_message(1, agent)
        runtime.start()
        await runtime.stop_when_idle()
        await runtime.close()

    agent = asyncio.run(first())
    asyncio.run(second(agent))


def test_what_hung_in_an_event_loop_that_was_closed_over_it_holds_up_nobody() -> None:
    class Hangs(DefaultInterventionHandler):
        async def on_send(self, message: Any, **about: Any) -> Any:
            return message if message == "answer me" else await asyncio.Event().wait()

    class OneByOne(Does):
        sequential = True

    async def hangs(agent: Does, message: Any, ctx: MessageContext) -> Any:
        return message if message == "answer me" else await asyncio.Event().wait()

    runtime, left = Runtime(intervention_handlers=[Hangs()]), asyncio.new_event_loop()

    async def first() -> AgentId:
        agent = await put(runtime, "d", hangs, topic="news", cls=OneByOne)
        runtime.start()
        await runtime.publish_message("hang", TOPIC)
        runtime.send_later("hang", agent, delay=0)
        await passes()
        return agent

    async def second(agent: AgentId) -> None:
        runtime.start()
        assert await runtime.send_message("answer me", agent) == "answer me"
        await runtime.stop_when_idle()

    agent = left.run_until_complete(first())
    hung = asyncio.all_tasks(left)
    left.close()
    asyncio.run(asyncio.wait_for(second(agent), 5))
    for task in hung:
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # that is so here


async def test_another_event_loop_is_told_so(runtime: Runtime) -> None:
    agent = await put(runtime, "d", echo)
    runtime.start()

    def elsewhere() -> None:
        with pytest.raises(UndeliverableException, match="in another event loop"):
            asyncio.run(runtime.send_message(1, agent))
        with pytest.raises(RuntimeError, match="in another event loop"):
            asyncio.run(runtime.stop())

    await asyncio.get_running_loop().run_in_executor(None, elsewhere)
    await runtime.stop()


async def test_a_request_queued_in_another_event_loop_is_answered_with_an_error(runtime: Runtime) -> None:
    agent = await put(runtime, "d", echo)
    queued = threading.Event()
    outcome: list[str] = []

    async def send() -> None:
        asyncio.get_running_loop().call_later(0, queued.set)
        try:
            await runtime.send_message(1, agent)
        except UndeliverableException as error:
            outcome.append(str(error))

    loop = asyncio.get_running_loop()
    elsewhere = loop.run_in_executor(None, lambda: asyncio.run(send()))
    await loop.run_in_executor(None, queued.wait)
    runtime.start()
    await elsewhere

    assert outcome == ["the int for agent 'd/here' was sent in another event loop than the runtime's"]
    await runtime.stop()


def test_a_runtime_that_is_dropped_is_freed() -> None:
    async def use() -> weakref.ref[Runtime]:
        runtime = Runtime()
        agent = await put(runtime, "d", echo)
        runtime.start()
        await runtime.send_message(1, agent)
        await passes()
        return weakref.ref(runtime)

    freed = asyncio.run(use())
    gc.collect()
    assert freed() is None


# --- runs


async def in_run(body: Callable[[Run], Awaitable[str | None]]) -> Run:
    run = Run("test")
    run.start(body)
    return run


async def test_a_handler_belongs_to_the_run_of_its_sender(runtime: Runtime) -> None:
    mine, others = Blocked(), Blocked()
    agent = await put(runtime, "mine", mine, topic="news")
    other = await put(runtime, "others", others)
    runtime.start()
    outside = asyncio.ensure_future(runtime.send_message(1, other))

    async def body(run: Run) -> None:
        await runtime.publish_message(0, TOPIC)
        await runtime.send_message(1, agent)

    run = await in_run(body)
    await mine.began.wait()
    await others.began.wait()
    run.stop("enough")
    result = await run.wait()

    assert result.stop_reason == "enough" and result.abandoned == []
    assert mine.cancelled == 2 and others.cancelled == 0
    others.go.set()
    assert await outside == 1
    await runtime.stop_when_idle()


async def test_a_handler_that_outlasts_its_run_is_left_behind_by_name(runtime: Runtime) -> None:
    began, go = asyncio.Event(), asyncio.Event()

    async def deaf(agent: Does, message: Any, ctx: MessageContext) -> None:
        began.set()
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                pass

    await put(runtime, "d", deaf, topic="news")
    runtime.start()

    async def body(run: Run) -> None:
        await runtime.publish_message(0, TOPIC)
        await began.wait()

    result = await (await in_run(body)).wait()

    assert result.abandoned == ["agent d/here"]
    go.set()
    await runtime.stop_when_idle()


async def test_an_agent_made_for_a_run_outlives_it(runtime: Runtime, counted: type[Counted]) -> None:
    began, go = asyncio.Event(), asyncio.Event()

    async def slowly() -> Counted:
        began.set()
        await go.wait()
        return counted()

    await counted.register(runtime, "slow", slowly)
    runtime.start()
    agent = AgentId("slow", "x")

    async def body(run: Run) -> None:
        await runtime.send_message(1, agent)

    run = await in_run(body)
    await began.wait()
    run.stop("enough")
    await run.wait()
    go.set()

    assert await runtime.send_message(2, agent) == 2
    assert counted.made == 1
    await runtime.stop_when_idle()


# --- other ways to run tasks


@pytest.mark.skipif(sys.version_info < (3, 12), reason="tasks start eagerly since 3.12")
async def test_eager_tasks_change_nothing_that_is_promised(runtime: Runtime) -> None:
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
    hops = []

    async def count_down(agent: Does, message: int, ctx: MessageContext) -> int:
        hops.append(message)
        if message:
            await agent.publish_message(message - 1, TopicId("news", "b" if agent.id.key == "a" else "a"))
        return message

    async def deepen(agent: Does, message: int, ctx: MessageContext) -> int:
        return message and 1 + await agent.send_message(message - 1, agent.id)

    await put(runtime, "d", count_down, topic="news")
    deep = await put(runtime, "deep", deepen)
    runtime.start()
    assert await runtime.send_message(300, deep) == 300
    for key in "ab":
        await runtime.get("d", key, lazy=False)
    await runtime.publish_message(5000, TopicId("news", "a"))  # deeper than the stack, if it were one
    others_turn: list[int] = []
    asyncio.get_running_loop().call_soon(lambda: others_turn.append(len(hops)))
    await runtime.stop_when_idle()

    assert hops == list(range(5000, -1, -1))
    assert others_turn[0] < 10


@pytest.mark.skipif(sys.version_info < (3, 12), reason="tasks start eagerly since 3.12")
async def test_what_begins_eagerly_is_under_way_from_its_first_step(runtime: Runtime) -> None:
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
    closed: list[str] = []

    class Goes(Does):
        async def close(self) -> None:
            closed.append("closed")

    async def stop(agent: Does, message: Any, ctx: MessageContext) -> None:
        await runtime.stop_when_idle()

    async def leave(agent: Does, message: Any, ctx: MessageContext) -> list[str]:
        await runtime.release(agent.id)
        return list(closed)

    async def tell_itself() -> Does:
        await runtime.publish_message("news", TOPIC)
        return Does(echo)

    stops, leaves = await put(runtime, "stops", stop), await put(runtime, "leaves", leave, cls=Goes)
    await Does.register(runtime, "told", tell_itself)
    await runtime.add_subscription(TypeSubscription("news", "told"))
    runtime.start()
    with pytest.raises(RuntimeError, match="would wait for itself"):
        await runtime.send_message(1, stops)
    assert await runtime.send_message(1, leaves) == []
    assert await runtime.send_message(1, AgentId("told", "here")) == 1
    await runtime.stop_when_idle()
    assert closed == ["closed"] and not runtime.dead_letters


async def test_a_task_factory_that_fails_is_the_senders_to_know(runtime: Runtime) -> None:
    agent = await put(runtime, "d", echo)
    await runtime.get(agent, lazy=False)
    runtime.start()
    loop = asyncio.get_running_loop()

    def refuse(loop: Any, coro: Any, **options: Any) -> Any:
        coro.close()
        raise MemoryError("no more tasks")

    loop.set_task_factory(refuse)
    try:
        with pytest.raises(MemoryError, match="no more tasks"):
            await runtime.send_message(1, agent)
    finally:
        loop.set_task_factory(None)
    assert await runtime.send_message(2, agent) == 2
    await runtime.stop_when_idle()


async def test_ten_thousand_agents_made_and_released_leave_nothing(runtime: Runtime) -> None:
    await put(runtime, "d", echo, topic="news")
    runtime.start()
    for n in range(10_000):
        agent = AgentId("d", str(n))
        await runtime.send_message(n, agent)
        await runtime.release(agent)
    await runtime.stop_when_idle()

    assert await runtime.save_state() == {}
    assert not runtime._live and not runtime._changing and not runtime._agents


class Asks(RoutedAgent):
    @rpc
    async def on_text(self, message: Text, ctx: MessageContext) -> str:
        other = AgentId("hears", self.id.key)
        return f"{message.text} {await self.send_message(message, other)}"


async def test_routed_agents_talk_to_each_other(runtime: Runtime) -> None:
    await Asks.register(runtime, "asks", lambda: Asks("asks"))
    await Hears.register(runtime, "hears", lambda: Hears("hears"))
    runtime.start()

    assert await runtime.send_message(Text("count:"), AgentId("asks", "s1")) == "count: 1"
    assert await runtime.send_message(Text("count:"), AgentId("asks", "s1")) == "count: 2"
    assert await runtime.send_message(Text("count:"), AgentId("asks", "s2")) == "count: 1"
    await runtime.close()
