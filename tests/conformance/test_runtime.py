"""What every runtime promises, line by line. Written against the `AgentRuntime` protocol; see conftest.py for hosts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tinygen import (
    AgentId,
    AgentProxy,
    BaseAgent,
    CallCycle,
    CancellationToken,
    CantHandleException,
    ClosureAgent,
    ClosureContext,
    ConfigError,
    DefaultInterventionHandler,
    DefaultTopicId,
    DropMessage,
    FunctionCall,
    FunctionExecutionResult,
    MessageContext,
    MessageDroppedException,
    MessageTimeout,
    Overloaded,
    RoutedAgent,
    StateError,
    ToolAgent,
    ToolNotFoundException,
    TopicId,
    TypeSubscription,
    UndeliverableException,
    default_subscription,
    event,
    message_handler,
    rpc,
)

if TYPE_CHECKING:
    from .conftest import Host, MakeHost

NEWS = TopicId("news", "x")


@dataclass
class Say:
    text: str


@dataclass
class Shout(Say):
    pass


@dataclass
class Number:
    value: int


@dataclass
class Wait:
    name: str


@dataclass
class Pass:
    to: list[str]


class Problem(Exception):
    pass


class Member(RoutedAgent):
    """Notes what it is told, in `heard`, and does what the message says."""

    heard: list[Any]
    made: int
    closed: list[str]
    gates: dict[str, asyncio.Event]

    def __init__(self) -> None:
        super().__init__("a member")
        type(self).made += 1
        self.count = 0

    @message_handler
    async def on_say(self, message: Say, ctx: MessageContext) -> Say | None:
        self.heard.append((str(self.id), message.text))
        self.count += 1
        if message.text == "fail":
            raise Problem(message.text)
        return message if ctx.is_rpc else None

    @message_handler
    async def on_wait(self, message: Wait, ctx: MessageContext) -> None:
        self.heard.append(f"begin {message.name}")
        try:
            await self.gates.setdefault(message.name, asyncio.Event()).wait()
        except asyncio.CancelledError:
            self.heard.append(f"cancelled {message.name}")
            raise
        self.heard.append(f"end {message.name}")

    @message_handler
    async def on_pass(self, message: Pass, ctx: MessageContext) -> str:
        if not message.to:
            return str(self.id)
        answer: str = await self.send_message(Pass(message.to[1:]), AgentId.from_str(message.to[0]))
        return answer

    async def save_state(self) -> Mapping[str, Any]:
        return {"count": self.count}

    async def load_state(self, state: Mapping[str, Any]) -> None:
        self.count = state["count"]

    async def close(self) -> None:
        self.closed.append(str(self.id))
        if self.id.key == "bad":
            raise Problem("cannot close")


@pytest.fixture
def member() -> type[Member]:
    class Fresh(Member):
        heard: list[Any] = []
        made = 0
        closed: list[str] = []
        gates: dict[str, asyncio.Event] = {}

    return Fresh


async def passes() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0)


A, B = AgentId("a", "x"), AgentId("b", "x")


async def join(host: Host, cls: type[Any], *types: str, topic: str = "news") -> None:
    """Register agents of these types, all subscribed to the topic."""
    for each in types:
        await cls.register(host.runtime, each, cls)
        await host.runtime.add_subscription(TypeSubscription(topic, each))


# --- lines 1 to 4: addresses, requests


def test_addresses_take_what_they_may_and_survive_text() -> None:
    for wrong in ("", "a b", "a/b", "a:b", "a=b", "a\n"):
        with pytest.raises(ValueError):
            AgentId(wrong, "x")
    for wrong in ("", "a b", "a/b", "a\n"):
        with pytest.raises(ValueError):
            TopicId(wrong, "x")

    assert AgentId.from_str("a.b-c/k/e y") == AgentId("a.b-c", "k/e y")
    assert TopicId.from_str(str(TopicId("a:b=c", "s"))) == TopicId("a:b=c", "s")


async def test_an_unknown_recipient_is_refused_at_once_started_or_not(host: Host) -> None:
    for _ in range(2):
        with pytest.raises(UndeliverableException, match="'nobody'") as caught:
            await host.runtime.send_message(Say("hi"), AgentId("nobody", "x"))
        assert isinstance(caught.value, (LookupError, Exception))
        if not getattr(host.runtime, "is_running", False):
            await host.start()
    await host.close()


async def test_a_request_before_the_start_is_answered_after_it(host: Host, member: type[Member]) -> None:
    await join(host, member, "a")
    sending = asyncio.ensure_future(host.runtime.send_message(Say("early"), A))
    await passes()
    assert not sending.done()
    await host.start()

    assert await sending == Say("early")
    await host.stop_when_idle()


async def test_what_a_handler_raises_reaches_its_sender_and_nobody_else(make_host: MakeHost, member: Any) -> None:
    class Raises(RoutedAgent):
        error = Problem("mine")

        @rpc
        async def on_say(self, message: Say, ctx: MessageContext) -> None:
            raise self.error

    host = make_host(ignore_failures=False)
    await Raises.register(host.runtime, "a", lambda: Raises("raises"))
    await host.start()
    with pytest.raises(Problem, match="mine") as caught:
        await host.runtime.send_message(Say("x"), A)

    assert caught.value is Raises.error or not host.in_process
    await host.stop_when_idle()


# --- lines 5 to 7: routing by type


class Routes(RoutedAgent):
    def __init__(self) -> None:
        super().__init__("routes")

    @message_handler(match=lambda message, ctx: message.text == "first")
    async def a_comes_first(self, message: Say, ctx: MessageContext) -> str:
        return "a"

    @message_handler
    async def b_comes_second(self, message: Say | Number, ctx: MessageContext) -> str:
        return "b"

    @event
    async def c_events(self, message: Wait, ctx: MessageContext) -> None:
        raise AssertionError("not for requests")


async def test_a_message_goes_to_the_first_handler_of_its_very_class(host: Host, caplog: Any) -> None:
    caplog.set_level(logging.INFO, "tinygen")
    await join(host, Routes, "a")
    await host.start()
    answers = [
        await host.runtime.send_message(each, A) for each in (Say("first"), Say("x"), Number(1), Shout("x"), Wait("x"))
    ]

    assert answers == ["a", "b", "b", None, None]  # a subclass is not handled, and an @event takes no request
    assert "no handler for a Shout" in caplog.text
    await host.stop_when_idle()


async def test_an_rpc_handler_takes_no_events(host: Host) -> None:
    taken: list[bool] = []

    class OnlyRequests(RoutedAgent):
        def __init__(self) -> None:
            super().__init__("")

        @rpc
        async def on_say(self, message: Say, ctx: MessageContext) -> None:
            taken.append(ctx.is_rpc)

    await join(host, OnlyRequests, "a")
    await host.start()
    await host.runtime.publish_message(Say("x"), NEWS)
    await host.runtime.send_message(Say("x"), A)
    await host.stop_when_idle()

    assert taken == [True]


async def test_an_answer_of_another_type_than_promised_is_an_error_or_a_warning(host: Host, caplog: Any) -> None:
    class Wrong(RoutedAgent):
        def __init__(self) -> None:
            super().__init__("")

        @message_handler
        async def on_say(self, message: Say, ctx: MessageContext) -> int:
            return "text"  # type: ignore[return-value]

        @message_handler(strict=False)
        async def on_number(self, message: Number, ctx: MessageContext) -> int:
            return "text"  # type: ignore[return-value]

    await join(host, Wrong, "a")
    await host.start()
    with pytest.raises(ValueError, match="returned a str; its annotation promises int"):
        await host.runtime.send_message(Say("x"), A)

    assert await host.runtime.send_message(Number(1), A) == "text" and "promises int" in caplog.text
    await host.stop_when_idle()


# --- lines 8 and 9: events


async def test_an_event_reaches_others_and_siblings_but_not_its_sender(host: Host, member: type[Member]) -> None:
    await join(host, member, "a")
    await host.runtime.add_subscription(TypeSubscription("other", "a"))
    await host.start()
    await host.runtime.publish_message(Say("1"), NEWS, sender=A)
    await host.runtime.publish_message(Say("2"), NEWS, sender=AgentId("a", "sibling"))
    await host.stop_when_idle()

    assert member.heard == [("a/x", "2")]


async def test_two_subscriptions_to_one_agent_deliver_once_and_equal_ones_are_refused(
    host: Host, member: type[Member]
) -> None:
    from tinygen import TypePrefixSubscription

    await join(host, member, "a")
    await host.runtime.add_subscription(TypePrefixSubscription("ne", "a"))
    with pytest.raises(ValueError, match="exists already"):
        await host.runtime.add_subscription(TypeSubscription("news", "a"))
    with pytest.raises(ValueError, match="no subscription"):
        await host.runtime.remove_subscription("unknown")
    await host.start()
    await host.runtime.publish_message(Say("once"), NEWS)
    await host.stop_when_idle()

    assert member.heard == [("a/x", "once")]


# --- lines 10 to 13: agents and their making


async def test_handlers_of_one_agent_take_turns_unless_it_is_sequential(host: Host, member: type[Member]) -> None:
    class Sequential(member):  # type: ignore[misc,valid-type]
        sequential = True
        heard: list[Any] = []

    await join(host, member, "a")
    await join(host, Sequential, "b")
    await host.start()
    sending = [asyncio.ensure_future(host.runtime.send_message(Wait(name), to)) for to in (A, B) for name in ("1", "2")]
    await until(lambda: len(member.heard) == 2 and Sequential.heard)
    await passes()
    assert (member.heard, Sequential.heard) == (["begin 1", "begin 2"], ["begin 1"])
    await until(lambda: all(name in member.gates for name in "12"))
    [gate.set() for gate in member.gates.values()]
    await asyncio.gather(*sending)

    assert Sequential.heard == ["begin 1", "end 1", "begin 2", "end 2"]
    await host.stop_when_idle()


async def test_sequential_agents_that_ask_in_a_circle_get_an_error_at_once(host: Host, member: type[Member]) -> None:
    class Sequential(member):  # type: ignore[misc,valid-type]
        sequential = True

    await join(host, Sequential, "a", "b")
    await host.start()
    with pytest.raises(CallCycle):
        await host.runtime.send_message(Pass(["b/x", "a/x"]), A)

    assert await host.runtime.send_message(Pass(["b/x"]), A) == "b/x"
    await host.stop_when_idle()


async def test_first_messages_that_race_make_one_agent(host: Host, member: type[Member]) -> None:
    async def slowly() -> Member:
        await passes()
        return member()

    await member.register(host.runtime, "a", slowly)
    await host.start()
    await asyncio.gather(*(host.runtime.send_message(Say(str(n)), A) for n in range(5)))

    assert member.made == 1 and [text for _, text in member.heard] == list("01234")
    await host.stop_when_idle()


async def test_a_factory_that_fails_hinders_no_other_subscriber(make_host: MakeHost, member: type[Member]) -> None:
    class Unmade(member):  # type: ignore[misc,valid-type]
        def __init__(self) -> None:
            raise Problem("unmade")

    host = make_host(ignore_failures=False)
    await join(host, Unmade, "a")
    await join(host, member, "b")
    await host.start()
    await host.runtime.publish_message(Say("x"), NEWS)
    with pytest.raises(Problem, match="unmade"):
        await host.stop_when_idle()

    assert member.heard == [("b/x", "x")]


async def test_a_sender_that_is_no_agent_is_accepted(host: Host, member: type[Member]) -> None:
    await join(host, member, "a")
    await host.start()
    await host.runtime.publish_message(Say("1"), NEWS, sender=AgentId("stranger", "x"))
    await host.runtime.send_message(Say("2"), A, sender=AgentId("stranger", "x"))
    await host.stop_when_idle()

    assert [text for _, text in member.heard] == ["1", "2"]


# --- lines 14 to 18: failures, interventions, stopping


async def test_failures_of_events_are_raised_when_it_stops_and_it_can_start_again(
    make_host: MakeHost, member: type[Member]
) -> None:
    host = make_host(ignore_failures=False)
    await join(host, member, "a", "b")
    await host.start()
    await host.runtime.publish_message(Say("fail"), NEWS)
    with pytest.raises(Problem) as caught:
        await host.stop_when_idle()
    assert caught.value.__notes__ == ["also failed: Problem: fail"]
    await host.start()

    assert await host.runtime.send_message(Say("again"), A) == Say("again")
    await host.stop_when_idle()


async def test_idle_is_only_when_the_last_subscriber_has_ended(host: Host, member: type[Member]) -> None:
    class Fails(RoutedAgent):
        def __init__(self) -> None:
            super().__init__("")

        @event
        async def on_wait(self, message: Wait, ctx: MessageContext) -> None:
            raise Problem("at once")

    await join(host, Fails, "a")
    await join(host, member, "b")
    await host.start()
    await host.runtime.publish_message(Wait("gate"), NEWS)
    stopping = asyncio.ensure_future(host.stop_when_idle())
    await until(lambda: "gate" in member.gates)
    await passes()
    assert not stopping.done()
    member.gates["gate"].set()
    await stopping

    assert member.heard == ["begin gate", "end gate"]


class Drops(DefaultInterventionHandler):
    """Drops the messages that say so, at the place they name."""

    def _of(self, message: Any, place: str) -> Any:
        return DropMessage if getattr(message, "text", "") == f"drop {place}" else message

    async def on_send(self, message: Any, **about: Any) -> Any:
        return self._of(message, "send")

    async def on_publish(self, message: Any, **about: Any) -> Any:
        return self._of(message, "publish")

    async def on_response(self, message: Any, **about: Any) -> Any:
        return self._of(message, "response")


async def test_dropped_messages_are_told_to_who_waits_and_it_becomes_idle(make_host: MakeHost, member: Any) -> None:
    host = make_host(interventions=[Drops()])
    await join(host, member, "a")
    await host.start()
    for place in ("send", "response"):
        with pytest.raises(MessageDroppedException):
            await host.runtime.send_message(Say(f"drop {place}"), A)
    await host.runtime.publish_message(Say("drop publish"), NEWS)
    await host.stop_when_idle()

    assert [text for _, text in member.heard] == ["drop response"]


async def test_interventions_work_on_what_the_one_before_made(make_host: MakeHost, member: type[Member]) -> None:
    class Adds(DefaultInterventionHandler):
        def __init__(self, mark: str) -> None:
            self.mark = mark

        async def on_send(self, message: Any, **about: Any) -> Any:
            return Say(message.text + self.mark)

    class Looks(DefaultInterventionHandler):
        async def on_send(self, message: Any, **about: Any) -> Any:
            return None

    host = make_host(interventions=[Adds("1"), Looks(), Adds("2")])
    await join(host, member, "a")
    await host.start()

    assert await host.runtime.send_message(Say("x"), A) == Say("x12")
    await host.stop_when_idle()


async def test_stopping_leaves_no_sender_waiting(host: Host, member: type[Member]) -> None:
    class Sequential(member):  # type: ignore[misc,valid-type]
        sequential = True

    await join(host, Sequential, "a")
    await host.start()
    begun, waits = (asyncio.ensure_future(host.runtime.send_message(Wait(name), A)) for name in "12")
    await until(lambda: "1" in member.gates)
    await host.stop()
    with pytest.raises(UndeliverableException, match="was stopped"):
        await waits
    member.gates["1"].set()
    await begun

    assert member.heard == ["begin 1", "end 1"]


# --- line 19: cancellation, and deadlines


async def test_a_cancelled_token_keeps_a_message_from_being_handled(host: Host, member: type[Member]) -> None:
    await join(host, member, "a")
    token = CancellationToken()
    token.cancel()
    await host.start()
    for sending in (
        host.runtime.send_message(Say("x"), A, cancellation_token=token),
        host.runtime.publish_message(Say("x"), NEWS, cancellation_token=token),
    ):
        with pytest.raises(asyncio.CancelledError):
            await sending
    await host.stop_when_idle()

    assert member.heard == []


@pytest.mark.parametrize("way", ["token", "sender", "deadline"])
async def test_a_handler_ends_with_what_its_sender_waits_for(host: Host, member: type[Member], way: str) -> None:
    await join(host, member, "a")
    await host.start()
    token, asked = CancellationToken(), []
    token.add_callback(lambda: asked.append(token.is_cancelled()))
    timeout = 0.01 if way == "deadline" else None
    sending = asyncio.ensure_future(
        host.runtime.send_message(Wait("gate"), A, cancellation_token=token, timeout=timeout)
    )
    await until(lambda: "gate" in member.gates)
    if way != "deadline":
        (token if way == "token" else sending).cancel()
    with pytest.raises(MessageTimeout if way == "deadline" else asyncio.CancelledError):
        await sending
    await host.stop_when_idle()

    assert member.heard == ["begin gate", "cancelled gate"] and asked == [True] * (way == "token")


async def test_a_full_mailbox_refuses_a_request(host: Host, member: type[Member]) -> None:
    class Bounded(member):  # type: ignore[misc,valid-type]
        max_pending = 1

    await join(host, Bounded, "a")
    await host.start()
    first = asyncio.ensure_future(host.runtime.send_message(Wait("gate"), A))
    await until(lambda: "gate" in member.gates)
    with pytest.raises(Overloaded, match="a/x"):
        await host.runtime.send_message(Say("x"), A)
    member.gates["gate"].set()
    await first

    assert await host.runtime.send_message(Say("y"), A) == Say("y")
    await host.stop_when_idle()


# --- lines 20 to 24: instances, looking up, registration, closures, closing


async def test_an_instance_answers_under_its_own_id_without_its_classes_topics(host: Host, member: Any) -> None:
    subscribed = default_subscription(member)
    await subscribed().register_instance(host.runtime, A)
    await host.start()
    await host.runtime.publish_message(Say("class topic"), TopicId("default", "x"))
    await host.runtime.publish_message(Say("its key"), TopicId("x", "x"))
    with pytest.raises(RuntimeError, match="skip_class_subscriptions"):
        await host.runtime.send_message(Say("x"), AgentId("a", "other"))
    await host.stop_when_idle()

    assert [text for _, text in member.heard] == ["its key"]


async def test_looking_up_what_is_not_there_is_an_error_of_its_kind(host: Host, member: type[Member]) -> None:
    await join(host, member, "a")
    unknown, runtime = AgentId("unknown", "x"), host.runtime
    assert await runtime.get("unknown", "x") == unknown
    for looking in (
        runtime.get(unknown, lazy=False),
        runtime.agent_metadata(unknown),
        runtime.agent_save_state(unknown),
        runtime.try_get_underlying_agent_instance(unknown),
    ):
        with pytest.raises(LookupError, match="'unknown'"):
            await looking
    with pytest.raises(TypeError, match="not a ToolAgent"):
        await runtime.try_get_underlying_agent_instance(A, ToolAgent)

    proxy = AgentProxy(A, runtime)
    assert await proxy.metadata == {"type": "a", "key": "x", "description": "a member"}
    await host.close()


async def test_states_go_to_the_agents_they_came_from_and_others_are_left_out(
    make_host: MakeHost, member: type[Member]
) -> None:
    first, second = make_host(), make_host()
    for host in (first, second):
        await join(host, member, "a")
        await host.start()
    await first.runtime.send_message(Say("x"), A)
    await AgentProxy(A, first.runtime).send_message(Say("y"))
    state = await first.runtime.save_state()
    await second.runtime.load_state({**state, "unknown/x": {"count": 9}})

    assert state == {"a/x": {"count": 2}} == await second.runtime.save_state()
    for wrong in ([], {"a": {}}, {"a/x": 3}, {"a/x": {"foreign": 1}}):
        with pytest.raises(StateError):
            await second.runtime.load_state(wrong)  # type: ignore[arg-type]
    assert await AgentProxy(A, second.runtime).save_state() == {"count": 2}
    await first.close()
    await second.close()


class Opaque:
    pass


async def test_a_registration_that_fails_leaves_nothing_behind(host: Host, member: type[Member]) -> None:
    class Takes(RoutedAgent):
        @message_handler
        async def on_opaque(self, message: Opaque, ctx: MessageContext) -> None: ...

    with pytest.raises(ConfigError, match="Opaque"):
        await Takes.register(host.runtime, "a", lambda: Takes(""))
    with pytest.raises(UndeliverableException):
        await host.runtime.send_message(Say("x"), A)
    await join(host, member, "a")  # the name is free
    with pytest.raises(ValueError, match="registered already"):
        await member.register(host.runtime, "a", member)
    await host.close()


@pytest.mark.parametrize("made", [None, 3, BaseAgent("other")], ids=["nothing", "number", "other class"])
async def test_a_factory_that_makes_something_else_is_an_error_at_the_sender(
    host: Host, member: Any, made: Any
) -> None:
    await member.register(host.runtime, "a", lambda: made)
    await host.start()

    with pytest.raises(ValueError, match="the factory of agent type 'a' made"):
        await host.runtime.send_message(Say("x"), A)
    await host.stop_when_idle()


@pytest.mark.parametrize("policy", ["warn", "error", "ignore"])
async def test_a_closure_is_not_called_with_messages_it_does_not_take(host: Host, policy: Any, caplog: Any) -> None:
    async def closure(agent: ClosureContext, message: Say, ctx: MessageContext) -> str:
        return f"{message.text} in {DefaultTopicId()}"

    await ClosureAgent.register_closure(host.runtime, "a", closure, unknown_type_policy=policy)
    await host.start()
    assert await host.runtime.send_message(Say("hi"), A) == "hi in default/x"
    if policy == "error":
        with pytest.raises(CantHandleException):
            await host.runtime.send_message(Number(1), A)
    else:
        assert await host.runtime.send_message(Number(1), A) is None

    assert ("no handler for a Number" in caplog.text) == (policy == "warn")
    await host.stop_when_idle()


async def test_closing_stops_and_closes_every_agent_though_one_raises(host: Host, member: type[Member]) -> None:
    await join(host, member, "a")
    await host.start()
    keys = ("one", "bad", "two")
    for key in keys:
        await host.runtime.send_message(Say("x"), AgentId("a", key))
    with pytest.raises(Problem, match="cannot close"):
        await host.close()

    assert sorted(member.closed) == sorted(f"a/{key}" for key in keys)
    with pytest.raises(UndeliverableException):
        await host.runtime.send_message(Say("x"), A)


# --- line 25, and what the list does not have: tools, timers, releasing, order, restart


async def test_a_tool_agent_names_the_call_it_cannot_do(host: Host) -> None:
    def add(a: int, b: int) -> int:
        return a + b

    await ToolAgent.register(host.runtime, "a", lambda: ToolAgent("tools", [add]))
    await host.start()
    call = FunctionCall(id="1", name="add", arguments='{"a": 1, "b": 2}')
    assert await host.runtime.send_message(call, A) == FunctionExecutionResult(
        content="3", name="add", call_id="1", is_error=False
    )
    with pytest.raises(ToolNotFoundException) as caught:
        await host.runtime.send_message(FunctionCall(id="2", name="sub", arguments="{}"), A)

    assert (caught.value.call_id, caught.value.name) == ("2", "sub") and "'sub'" in caught.value.content
    await host.stop_when_idle()


async def test_timers_send_later_and_end_with_the_runtime(host: Host, member: type[Member]) -> None:
    await join(host, member, "a")
    await host.start()
    timers = [
        host.runtime.send_later(Say("once"), A, delay=0.001),
        host.runtime.send_later(Say("often"), NEWS, every=0.001),
        host.runtime.send_later(Say("never"), A, delay=60),
    ]
    await until(lambda: [text for _, text in member.heard].count("often") > 2)
    await host.stop_when_idle()

    assert ("a/x", "once") in member.heard and ("a/x", "never") not in member.heard
    assert not any(timer.is_set for timer in timers)


async def test_a_released_agent_is_closed_and_made_anew_when_needed(host: Host, member: type[Member]) -> None:
    await join(host, member, "a")
    await host.start()
    await host.runtime.send_message(Say("x"), A)
    await host.runtime.release(A)
    await host.runtime.release(A)  # which is not there any more
    await host.runtime.send_message(Say("y"), A)

    assert member.closed == ["a/x"] and member.made == 2
    await host.close()


async def test_messages_from_one_sender_to_one_agent_keep_their_order(host: Host, member: type[Member]) -> None:
    await join(host, member, "a")
    await host.start()
    sending = []
    for n in range(0, 40, 2):
        await host.runtime.publish_message(Say(str(n)), NEWS)
        sending.append(asyncio.ensure_future(host.runtime.send_message(Say(str(n + 1)), A)))
        await asyncio.sleep(0)
    await asyncio.gather(*sending)
    await host.stop_when_idle()

    assert [int(text) for _, text in member.heard] == list(range(40))


async def test_a_stopped_runtime_starts_again_with_its_agents(host: Host, member: type[Member]) -> None:
    await join(host, member, "a")
    for _ in range(3):
        await host.start()
        await host.runtime.send_message(Say("x"), A)
        await host.stop_when_idle()

    assert member.made == 1 and await host.runtime.save_state() == {"a/x": {"count": 3}}
