"""Addresses, subscriptions, and how agents handle messages."""

from __future__ import annotations

import copy
import logging
import pickle
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Union

import pytest

from tinygen.actors import (
    AgentInstantiationContext,
    BaseAgent,
    MessageContext,
)
from tinygen.addresses import (
    SEEN,
    AgentId,
    AgentType,
    DefaultSubscription,
    DefaultTopicId,
    MessageHandlerContext,
    Routes,
    Subscription,
    SubscriptionInstantiationContext,
    TopicId,
    TypePrefixSubscription,
    TypeSubscription,
    default_subscription,
    type_subscription,
)
from tinygen.cancellation import CancellationToken
from tinygen.clock import pinned
from tinygen.errors import CantHandleException, ConfigError, StateError
from tinygen.routed import ClosureAgent, ClosureContext, RoutedAgent, event, message_handler, rpc
from tinygen.runtime import SingleThreadedAgentRuntime

if TYPE_CHECKING:
    from nowhere import OnlyForTypeCheckers  # type: ignore[import-not-found]

REQUEST = MessageContext(is_rpc=True)
EVENT = MessageContext(is_rpc=False)


@dataclass
class Question:
    text: str


@dataclass
class LoudQuestion(Question):
    pass


@dataclass
class Answer:
    text: str


@dataclass
class LongAnswer(Answer):
    pass


async def ask(agent: BaseAgent, message: Any = None, ctx: MessageContext = REQUEST) -> Any:
    return await agent.on_message(Question("?") if message is None else message, ctx)


# --- addresses


@pytest.mark.parametrize("type", ["", "a b", "a/b", "a:b", "a=b", "a\n"])
def test_an_agent_type_of_other_characters_is_refused(type: str) -> None:
    with pytest.raises(ValueError, match="invalid agent type"):
        AgentId(type, "key")


def test_a_topic_type_may_hold_colons_and_equals_signs() -> None:
    assert TopicId("writer:rpc=1", "s").type == "writer:rpc=1"
    with pytest.raises(ValueError, match="invalid topic type"):
        TopicId("a b", "s")


@pytest.mark.parametrize("address", [AgentId("writer", "a/b c"), TopicId("news:all", ""), AgentId("Ärzte", "x")])
def test_an_address_survives_being_written_and_read(address: AgentId | TopicId) -> None:
    assert type(address).from_str(str(address)) == address
    assert pickle.loads(pickle.dumps(address)) == address == copy.deepcopy(address)


def test_text_without_a_slash_is_no_address() -> None:
    with pytest.raises(ValueError, match="invalid agent id 'writer'"):
        AgentId.from_str("writer")


def test_addresses_are_compared_by_kind_type_and_name() -> None:
    assert AgentId("a", "b") == AgentId(AgentType("a"), "b")
    assert len({AgentId("a", "b"), AgentId("a", "b"), AgentId("b", "a"), TopicId("a", "b")}) == 3
    assert DefaultTopicId(source="b") == TopicId("default", "b")
    assert AgentId("a", "b") != "a/b"


def test_an_agent_type_is_its_name() -> None:
    assert AgentType("writer") == "writer" == AgentType(type="writer").type


def test_the_default_topic_takes_its_source_from_the_handling_agent() -> None:
    assert str(DefaultTopicId()) == "default/default"
    with MessageHandlerContext.populate_context(AgentId("writer", "session 1")):
        assert str(DefaultTopicId()) == "default/session 1"
        assert str(DefaultTopicId("news", "here")) == "news/here"


def test_contexts_say_where_they_hold_when_asked_elsewhere() -> None:
    with pytest.raises(RuntimeError, match="only in a message handler"):
        MessageHandlerContext.agent_id()
    with pytest.raises(RuntimeError, match="only in an agent factory"):
        AgentInstantiationContext.current_agent_id()
    assert not AgentInstantiationContext.is_in_factory_call()


# --- subscriptions


def test_a_type_subscription_maps_the_source_to_the_key() -> None:
    subscription = TypeSubscription("news", "reader")

    assert subscription.map_to_agent(TopicId("news", "paris")) == AgentId("reader", "paris")
    assert not subscription.is_match(TopicId("newspaper", "paris"))
    with pytest.raises(CantHandleException, match="does not match the topic 'newspaper/paris'"):
        subscription.map_to_agent(TopicId("newspaper", "paris"))


def test_a_prefix_subscription_matches_longer_topic_types() -> None:
    subscription = TypePrefixSubscription("reader:", "reader")

    assert subscription.map_to_agent(TopicId("reader:rpc", "paris")) == AgentId("reader", "paris")
    assert not subscription.is_match(TopicId("reader", "paris"))


def test_subscriptions_are_equal_by_types_or_by_id() -> None:
    assert TypeSubscription("t", "a", id="1") == TypeSubscription("t", "a", id="2")
    assert TypeSubscription("t", "a", id="1") == TypeSubscription("u", "b", id="1")
    assert TypeSubscription("t", "a") == DefaultSubscription("t", "a")
    assert TypeSubscription("t", "a") != TypePrefixSubscription("t", "a")
    assert TypeSubscription("t", "a").id != TypeSubscription("t", "b").id


def test_a_default_subscription_takes_the_type_that_is_being_registered() -> None:
    with SubscriptionInstantiationContext.populate_context(AgentType("reader")):
        assert DefaultSubscription() == TypeSubscription("default", "reader")
    with pytest.raises(CantHandleException, match="needs an agent_type"):
        DefaultSubscription()


def test_recipients_are_named_once_each_in_a_fixed_order() -> None:
    routes = Routes()
    for subscription in (
        TypePrefixSubscription("n", "b"),
        TypeSubscription("news", "c"),
        TypeSubscription("news", "a"),
        TypePrefixSubscription("", "c"),
    ):
        routes.add(subscription)

    recipients, failures = routes.recipients(TopicId("news", "s"))

    assert [str(agent) for agent in recipients] == ["c/s", "a/s", "b/s"]
    assert not failures
    assert routes.recipients(TopicId("other", "s"))[0] == (AgentId("c", "s"),)


def test_an_equal_subscription_is_refused_and_an_unknown_one_not_removed() -> None:
    routes = Routes()
    routes.add(TypeSubscription("t", "a", id="1"))

    with pytest.raises(ValueError, match="exists already"):
        routes.add(TypeSubscription("t", "a", id="2"))
    with pytest.raises(ValueError, match="exists already"):
        routes.add(TypeSubscription("u", "b", id="1"))
    with pytest.raises(ValueError, match="no subscription with the id '2'"):
        routes.remove("2")
    routes.remove("1")
    routes.add(TypeSubscription("t", "a", id="2"))


class Odd:
    """Everything whose source is a number goes to one agent; fails for the source "bad"."""

    id = "odd"

    def is_match(self, topic_id: TopicId) -> bool:
        if topic_id.source == "bad":
            raise LookupError("bad source")
        return topic_id.source.isdigit()

    def map_to_agent(self, topic_id: TopicId) -> AgentId:
        return AgentId("counter", "only")


def test_a_subscription_of_ones_own_kind_is_asked() -> None:
    routes = Routes()
    routes.add(Odd())

    assert routes.recipients(TopicId("t", "7"))[0] == (AgentId("counter", "only"),)
    assert routes.recipients(TopicId("t", "x"))[0] == ()
    with pytest.raises(ConfigError, match="exists already"):
        routes.add(Odd())


def test_a_failing_subscription_does_not_hinder_others() -> None:
    routes = Routes()
    routes.add(Odd())
    routes.add(TypeSubscription("t", "a"))

    recipients, failures = routes.recipients(TopicId("t", "bad"))

    assert recipients == (AgentId("a", "bad"),)
    assert [str(failure) for failure in failures] == ["bad source"]


def test_a_change_of_subscriptions_is_seen_by_topics_met_before() -> None:
    routes, topic = Routes(), TopicId("t", "s")
    assert routes.recipients(topic)[0] == ()

    routes.add(TypeSubscription("t", "a"))
    assert routes.recipients(topic)[0] == (AgentId("a", "s"),)
    routes.remove(TypeSubscription("t", "a").id)
    assert routes.recipients(topic)[0] == ()


def test_only_so_many_topics_are_remembered() -> None:
    routes = Routes()
    routes.add(TypeSubscription("t", "a"))

    for n in range(3 * SEEN):
        assert routes.recipients(TopicId("t", str(n)))[0] == (AgentId("a", str(n)),)

    assert len(routes._seen) <= SEEN


# --- the context of a message


def test_a_message_context_makes_token_and_id_when_asked() -> None:
    with pinned(seed=1):
        ctx, other = MessageContext(), MessageContext()
        assert ctx.message_id == ctx.message_id != other.message_id
    assert ctx.cancellation_token is ctx.cancellation_token
    token = CancellationToken()
    given = MessageContext(None, None, True, token, "m1")
    assert (given.cancellation_token, given.message_id) == (token, "m1")


# --- agents


async def test_an_agent_made_outside_of_a_factory_has_no_id_yet() -> None:
    agent = BaseAgent("somebody")

    with pytest.raises(RuntimeError, match="has no id yet"):
        _ = agent.id
    with pytest.raises(RuntimeError, match="has no id yet"):
        await agent.send_message(Question("?"), AgentId("a", "b"))


def test_an_agent_made_in_a_factory_knows_its_place() -> None:
    runtime, agent_id = SingleThreadedAgentRuntime(), AgentId("writer", "one")

    with AgentInstantiationContext.populate_context((runtime, agent_id)):
        agent = BaseAgent("writes")

    assert agent.id is agent_id and agent.runtime is runtime and agent.type == "writer"
    assert agent.metadata == {"type": "writer", "key": "one", "description": "writes"}


async def test_an_agent_has_one_place_only() -> None:
    runtime, agent = SingleThreadedAgentRuntime(), BaseAgent("somebody")
    await agent.bind_id_and_runtime(AgentId("a", "1"), runtime)
    await agent.bind_id_and_runtime(AgentId("a", "1"), runtime)

    with pytest.raises(RuntimeError, match="cannot be agent 'a/2' too"):
        await agent.bind_id_and_runtime(AgentId("a", "2"), runtime)


async def test_an_agent_without_state_saves_nothing_and_loads_nothing_else() -> None:
    agent = BaseAgent("somebody")

    assert await agent.save_state() == {}
    await agent.load_state({})
    with pytest.raises(StateError, match=r"no state to load \['count'\]"):
        await agent.load_state({"count": 1})


async def test_an_agent_that_handles_nothing_says_what_to_define() -> None:
    with pytest.raises(NotImplementedError, match="must define on_message_impl"):
        await ask(BaseAgent("somebody"))


# --- handlers


class Librarian(RoutedAgent):
    @message_handler
    async def on_question(self, message: Question, ctx: MessageContext) -> Answer:
        return Answer(message.text)

    @message_handler
    async def on_several(self, message: Union[Answer, LongAnswer], ctx: MessageContext) -> str | None:  # noqa: UP007
        return type(message).__name__

    @message_handler
    async def on_later(self, message: Declared, ctx: OnlyForTypeCheckers) -> Declared:
        return message


@dataclass
class Declared:
    """Later than the handler that names it."""


async def test_a_handler_gets_the_messages_of_its_class() -> None:
    agent = Librarian("knows")

    assert await ask(agent) == Answer("?")
    assert await ask(agent, Answer("")) == "Answer"
    assert await ask(agent, LongAnswer("")) == "LongAnswer"
    assert await ask(agent, Declared()) == Declared()


async def test_an_instance_of_a_subclass_is_not_handled(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tinygen")

    assert await ask(Librarian("knows"), LoudQuestion("?")) is None

    assert "has no handler for a LoudQuestion" in caplog.text


async def test_an_unhandled_message_can_be_caught() -> None:
    class Curious(Librarian):
        async def on_unhandled_message(self, message: Any, ctx: MessageContext) -> Any:
            return message

    assert await ask(Curious("knows"), 3) == 3


class Choosy(RoutedAgent):
    @message_handler
    async def c_rest(self, message: Question, ctx: MessageContext) -> str:
        return "rest"

    @message_handler(match=lambda message, ctx: message.text == "b")
    async def b_second(self, message: Question, ctx: MessageContext) -> str:
        return "second"

    @message_handler(match=lambda message, ctx: message.text in "ab")
    async def a_first(self, message: Question, ctx: MessageContext) -> str:
        return "first"


async def test_the_first_handler_by_name_that_matches_is_called() -> None:
    agent = Choosy("chooses")

    assert [await ask(agent, Question(text)) for text in ("a", "b", "c")] == ["first", "first", "rest"]


class TwoWays(RoutedAgent):
    @event
    async def on_event(self, message: Question, ctx: MessageContext) -> None:
        self.heard = message.text

    @rpc(match=lambda message, ctx: message.text != "no")
    async def on_request(self, message: Question, ctx: MessageContext) -> str:
        return "answered"

    @event
    async def on_answer(self, message: Answer, ctx: MessageContext) -> None:
        raise NotImplementedError


async def test_requests_and_events_of_one_class_have_handlers_of_their_own() -> None:
    agent = TwoWays("both")

    assert await ask(agent) == "answered"
    assert await ask(agent, Question("no")) is None
    assert await ask(agent, Question("news"), EVENT) is None
    assert agent.heard == "news"


async def test_an_event_handler_does_not_answer_requests() -> None:
    assert await ask(TwoWays("both"), Answer("")) is None


async def test_a_subclass_adds_replaces_and_removes_handlers() -> None:
    class Deaf(Librarian):
        on_question = None  # type: ignore[assignment]

        async def on_later(self, message: Any, ctx: MessageContext) -> Any:  # not marked any more
            raise NotImplementedError

        @message_handler
        async def on_number(self, message: int, ctx: MessageContext) -> int:
            return message + 1

    agent = Deaf("knows")

    assert [await ask(agent, each) for each in (Question("?"), Declared(), 1)] == [None, None, 2]
    assert await ask(agent, Answer("")) == "Answer"
    assert await ask(Librarian("knows")) == Answer("?")


class Promises(RoutedAgent):
    @message_handler
    async def on_question(self, message: Question, ctx: MessageContext) -> Answer:
        return LongAnswer("") if message.text == "long" else "nothing"  # type: ignore[return-value]

    @message_handler(strict=False)
    async def on_answer(self, message: Answer, ctx: MessageContext) -> list[int] | None:
        return "nothing"  # type: ignore[return-value]

    @event
    async def on_number(self, message: int, ctx: MessageContext) -> None:
        return message  # type: ignore[return-value]

    @message_handler
    async def on_text(self, message: str, ctx: MessageContext) -> Any:
        return message


async def test_a_handler_that_returns_something_else_than_annotated_fails() -> None:
    with pytest.raises(ValueError, match=r"on_question returned a str; its annotation promises Answer"):
        await ask(Promises("tries"))
    with pytest.raises(ValueError, match="on_number returned a int; its annotation promises NoneType"):
        await ask(Promises("tries"), 1, EVENT)


async def test_a_handler_may_return_a_subclass_or_anything_if_it_says_so() -> None:
    assert await ask(Promises("tries"), Question("long")) == LongAnswer("")
    assert await ask(Promises("tries"), "text") == "text"


async def test_a_handler_that_is_not_strict_only_gets_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    assert await ask(Promises("tries"), Answer("")) == "nothing"

    assert "on_answer returned a str; its annotation promises list or NoneType" in caplog.text


def test_a_handler_that_is_not_asynchronous_is_refused() -> None:
    with pytest.raises(ConfigError, match="must be an 'async def'"):

        class Blocks(RoutedAgent):
            @message_handler  # type: ignore[arg-type]
            def on_question(self, message: Question, ctx: MessageContext) -> None: ...


async def _no_message(self: Any, question: Question, ctx: MessageContext) -> None: ...
async def _no_result(self, message: Question, ctx: MessageContext): ...  # type: ignore[no-untyped-def]
async def _any(self: Any, message: Any, ctx: MessageContext) -> None: ...
async def _unknown(self: Any, message: Unheard, ctx: MessageContext) -> None: ...  # type: ignore[name-defined] # noqa: F821
async def _generic(self: Any, message: list[int], ctx: MessageContext) -> None: ...


@pytest.mark.parametrize(
    ("handler", "problem"),
    [
        (_no_message, "needs a type annotation for its argument 'message'"),
        (_no_result, "needs a type annotation for its result"),
        (_any, "must name the classes of 'message', not Any"),
        (_unknown, "cannot be resolved in its module: name 'Unheard' is not defined"),
        (_generic, r"list\[int\] is not a class"),
    ],
)
async def test_an_annotation_that_does_not_route_is_refused_at_registration(handler: Any, problem: str) -> None:
    runtime = SingleThreadedAgentRuntime()
    cls = type("Broken", (RoutedAgent,), {"on": message_handler(handler)})

    with pytest.raises(ConfigError, match=problem):
        await cls.register(runtime, "broken", lambda: cls("broken"))

    with pytest.raises(LookupError):  # nothing of it is left
        await runtime.get("broken", lazy=False)


# --- subscriptions of a class


@default_subscription
@type_subscription("news")
class Reader(RoutedAgent):
    pass


class Grandchild(Reader):
    pass


@default_subscription()
class Called(BaseAgent):
    pass


class Notebook(SingleThreadedAgentRuntime):
    """Notes the subscriptions that are made."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    async def add_subscription(self, subscription: Subscription) -> None:
        await super().add_subscription(subscription)
        self.notes.append(subscription.id)


async def subscriptions_of(cls: Any, **options: bool) -> list[str]:
    runtime = Notebook()
    await cls.register(runtime, "r", lambda: cls("reads"), **options)
    return runtime.notes


async def test_a_class_brings_its_subscriptions_and_one_for_direct_messages() -> None:
    assert await subscriptions_of(Reader) == ["=news>r", "=default>r", "^r:>r"]
    assert await subscriptions_of(Called) == ["=default>r", "^r:>r"]
    assert await subscriptions_of(Reader, skip_class_subscriptions=True) == ["^r:>r"]
    assert await subscriptions_of(Called, skip_direct_message_subscription=True) == ["=default>r"]


async def test_a_subclass_does_not_inherit_subscriptions() -> None:
    assert await subscriptions_of(Grandchild) == ["^r:>r"]


async def test_an_instance_is_subscribed_to_its_key() -> None:
    runtime = Notebook()

    await Reader("one").register_instance(runtime, AgentId("r", "k1"))
    await Reader("two").register_instance(runtime, AgentId("r", "k2"), skip_class_subscriptions=False)

    assert runtime.notes == ["=k1>r", "^r:>r", "=k2>r", "=news>r", "=default>r"]


# --- closures


async def repeat(agent: ClosureContext, message: Question | Answer, ctx: MessageContext) -> str:
    return f"{agent.id}: {message.text}"


def closure_agent(closure: Any = repeat, **options: Any) -> ClosureAgent:
    with AgentInstantiationContext.populate_context((SingleThreadedAgentRuntime(), AgentId("c", "k"))):
        return ClosureAgent("repeats", closure, **options)


async def test_a_closure_gets_the_messages_it_is_annotated_with() -> None:
    assert await ask(closure_agent()) == "c/k: ?"
    assert await ask(closure_agent(), Answer("!")) == "c/k: !"


async def test_a_closure_for_anything_gets_everything() -> None:
    async def any_message(agent: ClosureContext, message: Any, ctx: MessageContext) -> Any:
        return message

    assert await ask(closure_agent(any_message), 3) == 3


async def test_messages_of_other_types_follow_the_policy_of_a_closure(caplog: pytest.LogCaptureFixture) -> None:
    assert await ask(closure_agent(unknown_type_policy="ignore"), 3) is None
    assert caplog.text == ""
    assert await ask(closure_agent(), 3) is None
    assert "agent c/k has no handler for a int" in caplog.text
    with pytest.raises(CantHandleException, match="has no handler for a int"):
        await ask(closure_agent(unknown_type_policy="error"), 3)
    with pytest.raises(ConfigError, match="not 'explode'"):
        closure_agent(unknown_type_policy="explode")


async def test_a_closure_without_annotations_is_refused_at_registration() -> None:
    async def untyped(agent, message, ctx):  # type: ignore[no-untyped-def]
        raise NotImplementedError

    with pytest.raises(ConfigError, match="needs a type annotation"):
        await ClosureAgent.register_closure(SingleThreadedAgentRuntime(), "c", untyped)


async def test_a_registered_closure_hears_what_it_subscribes_to() -> None:
    runtime = SingleThreadedAgentRuntime()
    heard = []

    async def listen(agent: ClosureContext, message: Question, ctx: MessageContext) -> None:
        heard.append((str(agent.id), message.text, str(ctx.topic_id)))

    await ClosureAgent.register_closure(runtime, "ear", listen, subscriptions=lambda: [DefaultSubscription()])
    runtime.start()
    await runtime.publish_message(Question("hello"), DefaultTopicId(source="s"))
    await runtime.stop_when_idle()

    assert heard == [("ear/s", "hello", "default/s")]
    assert await runtime.save_state() == {"ear/s": {}}
