"""What an actor is: its address, what it subscribes to, how it handles messages. The runtime is another room.

An agent is found by its `AgentId`, a type and a key. Agents of a registered type are made when the first message for a
new key arrives. A message goes to one agent (a request, which has an answer) or to a topic (an event, which has none);
subscriptions say which agent of which type a topic reaches.
"""

from __future__ import annotations

import inspect
import logging
from contextvars import ContextVar
from types import UnionType

from .addresses import (
    AgentId,
    AgentType,
    Ambient,
    SubscriptionInstantiationContext,
    TopicId,
    TypePrefixSubscription,
    TypeSubscription,
)
from .cancellation import CancellationToken
from .clock import new_id
from .errors import CantHandleException, ConfigError, StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
    from typing import Any, ClassVar, Literal, Protocol, TypedDict, TypeVar, overload

    from typing_extensions import Self

    from .addresses import Subscription

    class AgentMetadata(TypedDict):
        """What is known of an agent from outside."""

        type: str
        key: str
        description: str

    A = TypeVar("A", bound="Agent")
    F = TypeVar("F", bound="Callable[..., Coroutine[Any, Any, Any]]")

    class _MarksHandler(Protocol):
        @overload
        def __call__(self, func: F) -> F: ...
        @overload
        def __call__(
            self, func: None = None, *, strict: bool = True, match: Callable[[Any, MessageContext], bool] | None = None
        ) -> Callable[[F], F]: ...

else:
    Protocol = object
    AgentMetadata = dict

_log = logging.getLogger("tinygen.runtime")


# --- messages on their way


class MessageContext:
    """How a message came: who sent it, by which topic, and how it is cancelled. Treated as immutable.

    `is_rpc` tells a request, whose sender waits for an answer, from an event. All who receive a published message get
    the same context. Token and id are made when first asked for, unless the sender gave them.
    """

    __slots__ = ("_cancellation_token", "_message_id", "is_rpc", "sender", "topic_id")

    def __init__(
        self,
        sender: AgentId | None = None,
        topic_id: TopicId | None = None,
        is_rpc: bool = False,
        cancellation_token: CancellationToken | None = None,
        message_id: str | None = None,
    ) -> None:
        self.sender = sender
        self.topic_id = topic_id
        self.is_rpc = is_rpc
        self._cancellation_token = cancellation_token
        self._message_id = message_id

    @property
    def cancellation_token(self) -> CancellationToken:
        if self._cancellation_token is None:
            self._cancellation_token = CancellationToken()
        return self._cancellation_token

    @property
    def message_id(self) -> str:
        if self._message_id is None:
            self._message_id = new_id()
        return self._message_id

    def __repr__(self) -> str:
        way = f"topic {self.topic_id}" if self.topic_id is not None else "a request" if self.is_rpc else "an event"
        return f"<MessageContext: {way} from {self.sender}>"


class DropMessage:
    """What an intervention handler returns, as class or instance, to have a message dropped."""


class InterventionHandler(Protocol):
    """Sees every message before it is queued and every answer before it is given, and may replace or drop it.

    Each method returns the message, another one, or `DropMessage`; None leaves the message as it is. A dropped request
    or answer raises `MessageDroppedException` at the sender; what a handler raises reaches the sender too.
    """

    async def on_send(self, message: Any, *, message_context: MessageContext, recipient: AgentId) -> Any:
        """A request, before it is queued."""
        return message

    async def on_publish(self, message: Any, *, message_context: MessageContext) -> Any:
        """An event, once for all who will receive it."""
        return message

    async def on_response(self, message: Any, *, sender: AgentId, recipient: AgentId | None) -> Any:
        """An answer, on its way from `sender` back to `recipient`."""
        return message


class DefaultInterventionHandler(InterventionHandler):
    """Lets everything pass; a base for handlers that look at some of it."""


# --- the two contracts


class Agent(Protocol):
    """What a runtime needs of an agent. `BaseAgent` provides all of it but the handling of messages."""

    __slots__ = ()

    @property
    def metadata(self) -> AgentMetadata:
        raise NotImplementedError

    @property
    def id(self) -> AgentId:
        raise NotImplementedError

    async def bind_id_and_runtime(self, id: AgentId, runtime: AgentRuntime) -> None:
        """Called once, when the agent is put in its place."""
        raise NotImplementedError

    def on_message(self, message: Any, ctx: MessageContext) -> Awaitable[Any]:
        """Handle a message; what it gives is the answer to a request. May be called again before it has ended."""
        raise NotImplementedError

    async def save_state(self) -> Mapping[str, Any]:
        raise NotImplementedError

    async def load_state(self, state: Mapping[str, Any]) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError


class AgentRuntime(Protocol):
    """Where agents live and how they reach each other."""

    async def send_message(
        self,
        message: Any,
        recipient: AgentId,
        *,
        sender: AgentId | None = None,
        cancellation_token: CancellationToken | None = None,
        message_id: str | None = None,
    ) -> Any:
        """Send a request and wait for the answer, or for what its handler raises.

        Raises `UndeliverableException` where there is no such agent, `MessageDroppedException` if an intervention
        dropped the message. Cancelling the caller or the token cancels the handler.
        """
        raise NotImplementedError

    async def publish_message(
        self,
        message: Any,
        topic_id: TopicId,
        *,
        sender: AgentId | None = None,
        cancellation_token: CancellationToken | None = None,
        message_id: str | None = None,
    ) -> None:
        """Send an event to all agents subscribed to the topic, but not to the sender itself. Does not wait for them."""
        raise NotImplementedError

    async def register_factory(
        self,
        type: str | AgentType,
        agent_factory: Callable[[], A | Awaitable[A]],
        *,
        expected_class: type[A] | None = None,
    ) -> AgentType:
        """Make agents of this type by `agent_factory`, which may be asynchronous, when they are first needed."""
        raise NotImplementedError

    async def register_agent_instance(self, agent_instance: Agent, agent_id: AgentId) -> AgentId:
        """Put an agent in its place. All instances of one type are of the same class."""
        raise NotImplementedError

    async def release(self, agent_id: AgentId) -> None:
        """Forget an agent that is no longer needed; no error if there is none.

        One that a factory made is closed, and made anew for the next message. One that was registered as an instance
        goes with its subscriptions, and its type with the last one.
        """
        raise NotImplementedError

    async def try_get_underlying_agent_instance(
        self,
        id: AgentId,
        type: type[A] = Agent,  # type: ignore[assignment]
    ) -> A:
        """The agent itself, made if need be. Raises `UndeliverableException` (a LookupError), or TypeError if it is
        not of this type."""
        raise NotImplementedError

    async def get(
        self, id_or_type: AgentId | AgentType | str, /, key: str = "default", *, lazy: bool = True
    ) -> AgentId:
        """An id; unless `lazy`, of an agent that exists. Raises `UndeliverableException` then."""
        raise NotImplementedError

    async def agent_metadata(self, agent: AgentId) -> AgentMetadata:
        raise NotImplementedError

    async def agent_save_state(self, agent: AgentId) -> Mapping[str, Any]:
        raise NotImplementedError

    async def agent_load_state(self, agent: AgentId, state: Mapping[str, Any]) -> None:
        raise NotImplementedError

    async def save_state(self) -> Mapping[str, Any]:
        """The states of all agents that exist, by their ids."""
        raise NotImplementedError

    async def load_state(self, state: Mapping[str, Any]) -> None:
        """Give the agents the states that `save_state` wrote. Those of unknown types are left out."""
        raise NotImplementedError

    async def add_subscription(self, subscription: Subscription) -> None:
        """Raises `ConfigError` (a ValueError) if there is an equal one."""
        raise NotImplementedError

    async def remove_subscription(self, id: str) -> None:
        """Raises `ConfigError` (a ValueError) if there is none of this id."""
        raise NotImplementedError


# --- agents


class AgentInstantiationContext(Ambient):
    """Which agent a factory is making: a runtime and an id."""

    _variable = ContextVar("tinygen_instantiation", default=None)
    _where = "an agent factory"

    @classmethod
    def current_runtime(cls) -> AgentRuntime:
        """The runtime the agent is made for. Raises RuntimeError outside of a factory."""
        runtime: AgentRuntime = cls._current()[0]
        return runtime

    @classmethod
    def current_agent_id(cls) -> AgentId:
        """The id the agent will have. Raises RuntimeError outside of a factory."""
        agent_id: AgentId = cls._current()[1]
        return agent_id

    @classmethod
    def is_in_factory_call(cls) -> bool:
        return cls._variable.get() is not None


class BaseAgent(Agent):
    """An agent; derive from it and define `on_message_impl`, or derive from `RoutedAgent` and write handlers."""

    __slots__ = ("_description", "_id", "_runtime")

    _topics: ClassVar[tuple[str, ...]] = ()

    def __init__(self, description: str) -> None:
        self._description = description
        self._id: AgentId | None = None
        self._runtime: AgentRuntime | None = None
        made_for = AgentInstantiationContext._variable.get()
        if made_for is not None:
            self._runtime, self._id = made_for

    @property
    def id(self) -> AgentId:
        if self._id is None:
            raise self._unbound()
        return self._id

    @property
    def runtime(self) -> AgentRuntime:
        if self._runtime is None:
            raise self._unbound()
        return self._runtime

    @property
    def type(self) -> str:
        return self.id.type

    @property
    def metadata(self) -> AgentMetadata:
        return AgentMetadata(type=self.id.type, key=self.id.key, description=self._description)

    async def bind_id_and_runtime(self, id: AgentId, runtime: AgentRuntime) -> None:
        """Called by the runtime. Raises RuntimeError if the agent has another place already."""
        if self._id is not None and (self._id != id or self._runtime is not runtime):
            raise RuntimeError(f"{self!r} is agent '{self._id}' of {self._runtime!r}; it cannot be agent '{id}' too")
        self._id, self._runtime = id, runtime

    def on_message(self, message: Any, ctx: MessageContext) -> Awaitable[Any]:
        return self.on_message_impl(message, ctx)

    async def on_message_impl(self, message: Any, ctx: MessageContext) -> Any:
        """Handle a message; what is returned is the answer to a request."""
        raise NotImplementedError(f"{type(self).__name__} must define on_message_impl(message, ctx)")

    async def send_message(
        self,
        message: Any,
        recipient: AgentId,
        *,
        cancellation_token: CancellationToken | None = None,
        message_id: str | None = None,
    ) -> Any:
        """`AgentRuntime.send_message`, from this agent."""
        return await self.runtime.send_message(
            message, recipient, sender=self._id, cancellation_token=cancellation_token, message_id=message_id
        )

    async def publish_message(
        self,
        message: Any,
        topic_id: TopicId,
        *,
        cancellation_token: CancellationToken | None = None,
        message_id: str | None = None,
    ) -> None:
        """`AgentRuntime.publish_message`, from this agent."""
        await self.runtime.publish_message(
            message, topic_id, sender=self._id, cancellation_token=cancellation_token, message_id=message_id
        )

    async def save_state(self) -> Mapping[str, Any]:
        """What the agent remembers, as JSON data; nothing unless it is overridden."""
        return {}

    async def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over what `save_state` returned."""
        if state:
            raise StateError("$", f"{type(self).__name__} has no state to load {sorted(state)} into")

    async def close(self) -> None:
        """Let go of what the agent holds. Called when the runtime closes or forgets it."""

    @classmethod
    async def register(
        cls,
        runtime: AgentRuntime,
        type: str | AgentType,
        factory: Callable[[], Self | Awaitable[Self]],
        *,
        skip_class_subscriptions: bool = False,
        skip_direct_message_subscription: bool = False,
    ) -> AgentType:
        """Register `factory` for this agent type, with the subscriptions of the class and one to `type:...`."""
        cls._check()
        agent_type = await runtime.register_factory(type, factory, expected_class=cls)
        topics = () if skip_class_subscriptions else vars(cls).get("_topics", ())
        await _subscribe(runtime, _subscriptions(agent_type, topics, not skip_direct_message_subscription))
        return agent_type

    async def register_instance(
        self,
        runtime: AgentRuntime,
        agent_id: AgentId,
        *,
        skip_class_subscriptions: bool = True,
        skip_direct_message_subscription: bool = False,
    ) -> AgentId:
        """Put this agent in its place, subscribed to the topic type that equals its key."""
        self._check()
        await runtime.register_agent_instance(self, agent_id)
        topics = () if skip_class_subscriptions else vars(self.__class__).get("_topics", ())
        direct = not skip_direct_message_subscription
        await _subscribe(runtime, _subscriptions(agent_id.type, (agent_id.key, *topics), direct))
        return agent_id

    @classmethod
    def _check(cls) -> None:
        """Raise `ConfigError` if agents of this class could not work."""

    def _unbound(self) -> RuntimeError:
        return RuntimeError(
            f"{type(self).__name__} has no id yet; make it in a factory given to register(), or use register_instance()"
        )


def _subscriptions(agent_type: str, topics: Sequence[str], direct: bool) -> list[Subscription]:
    made: list[Subscription] = [TypeSubscription(topic, agent_type) for topic in topics]
    if direct:
        # with the colon, or "ann" would receive what is meant for "anna"
        made.append(TypePrefixSubscription(f"{agent_type}:", agent_type))
    return made


async def _subscribe(runtime: AgentRuntime, subscriptions: Sequence[Subscription]) -> None:
    for each in subscriptions:
        try:
            await runtime.add_subscription(each)
        except ConfigError:
            pass  # it is there already


class _Handler:
    """A method that handles messages of certain types; `wants` is a further condition."""

    __slots__ = ("_strict", "function", "gives", "takes", "wants")

    def __init__(
        self, function: Callable[..., Any], rpc: bool | None, strict: bool, match: Callable[..., bool] | None
    ) -> None:
        if not inspect.iscoroutinefunction(inspect.unwrap(function)):
            raise ConfigError(f"{_name_of(function)} must be an 'async def' to handle messages")
        self.function = function
        self.takes: tuple[Any, ...] | None = None
        self.gives: tuple[Any, ...] | None = None
        self.wants = match if rpc is None else _and_kind(rpc, match)
        self._strict = strict

    def resolve(self) -> _Handler:
        """Read the annotations; late, so that they may name what is declared after the handler."""
        hints = _hints(self.function)
        self.takes, self.gives = _classes(hints["message"]), _classes(hints["return"], origins=True)
        return self

    def complain(self, answer: Any) -> None:
        """About an answer that is not of a promised type."""
        promised = " or ".join(each.__name__ for each in self.gives or ())
        problem = f"{_name_of(self.function)} returned a {type(answer).__name__}; its annotation promises {promised}"
        if self._strict:
            raise ConfigError(f"{problem}. Change one of them, or pass strict=False to the decorator")
        _log.warning("%s", problem)


def _and_kind(rpc: bool, match: Callable[..., bool] | None) -> Callable[..., bool]:
    """`match`, for requests only or for events only."""
    return lambda message, ctx: ctx.is_rpc is rpc and (match is None or match(message, ctx))


def _decorator(rpc: bool | None) -> _MarksHandler:
    def marks(func: Any = None, *, strict: bool = True, match: Any = None) -> Any:
        """Make a method of a `RoutedAgent` handle messages.

        The annotation of the argument `message` says which, by their exact class or a union of classes; that of the
        result what is returned. Of several handlers for a class, the first by name that wants the message gets it.

        Args:
            strict: raise if something else is returned than annotated; else log it.
            match: a further condition, called with the message and its context.
        """

        def mark(function: Any) -> Any:
            function._handler = _Handler(function, rpc, strict, match)
            return function

        return mark if func is None else mark(func)

    return marks


message_handler = _decorator(None)  # requests and events
event = _decorator(False)  # events only
rpc = _decorator(True)  # requests only


class RoutedAgent(BaseAgent):
    """An agent whose methods marked with `message_handler`, `event` or `rpc` get the messages of their type.

        class Greeter(RoutedAgent):
            @message_handler
            async def on_name(self, message: Name, ctx: MessageContext) -> Greeting:
                return Greeting(f"Hello {message.text}")

        await Greeter.register(runtime, "greeter", lambda: Greeter("Says hello"))

    A message of a subclass of an annotated class is not handled.
    """

    __slots__ = ()

    # message class -> its handlers in order; made at the first need, when all annotations can be resolved
    _table: ClassVar[Mapping[Any, Sequence[_Handler]] | None] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._table = None  # a subclass has handlers of its own

    async def on_message_impl(self, message: Any, ctx: MessageContext) -> Any:
        table = self._table
        if table is None:
            table = self._build()
        for handler in table.get(message.__class__, ()):
            if handler.wants is None or handler.wants(message, ctx):
                answer = await handler.function(self, message, ctx)
                if handler.gives is not None and not isinstance(answer, handler.gives):
                    handler.complain(answer)
                return answer
        return await self.on_unhandled_message(message, ctx)

    async def on_unhandled_message(self, message: Any, ctx: MessageContext) -> None:
        """Called for a message no handler wants."""
        _log.info("agent %s has no handler for a %s", self._id, type(message).__name__)

    @classmethod
    def _check(cls) -> None:
        if cls._table is None:
            cls._build()

    @classmethod
    def _build(cls) -> Mapping[Any, Sequence[_Handler]]:
        table: dict[Any, list[_Handler]] = {}
        for name in dir(cls):  # in alphabetical order
            handler = getattr(getattr(cls, name, None), "_handler", None)
            if isinstance(handler, _Handler):
                takes = handler.resolve().takes
                if takes is None:
                    raise ConfigError(f"{_name_of(handler.function)} must name the classes of 'message', not Any")
                for each in takes:
                    table.setdefault(each, []).append(handler)
        cls._table = table
        return table


ClosureContext = BaseAgent  # the agent that a closure speaks as


class ClosureAgent(BaseAgent):
    """An agent that is one function: `async (agent: ClosureContext, message: T, ctx: MessageContext) -> Answer`.

    Made by `register_closure`. `unknown_type_policy` says what happens with messages of other types than the annotation
    names: they are ignored, ignored with a line in the log ("warn"), or refused with `CantHandleException` ("error").
    """

    def __init__(
        self,
        description: str,
        closure: Callable[[ClosureContext, Any, MessageContext], Awaitable[Any]],
        *,
        unknown_type_policy: Literal["error", "warn", "ignore"] = "warn",
    ) -> None:
        if unknown_type_policy not in ("error", "warn", "ignore"):
            raise ConfigError(f"unknown_type_policy must be 'error', 'warn' or 'ignore', not {unknown_type_policy!r}")
        super().__init__(description)
        self._takes = _closure_takes(closure)
        self._closure = closure
        self._policy = unknown_type_policy

    async def on_message_impl(self, message: Any, ctx: MessageContext) -> Any:
        if self._takes is None or type(message) in self._takes:
            return await self._closure(self, message, ctx)
        problem = f"agent {self.id} has no handler for a {type(message).__name__}"
        if self._policy == "error":
            raise CantHandleException(problem)
        if self._policy == "warn":
            _log.warning("%s", problem)
        return None

    @classmethod
    async def register_closure(
        cls,
        runtime: AgentRuntime,
        type: str | AgentType,
        closure: Callable[[ClosureContext, Any, MessageContext], Awaitable[Any]],
        *,
        unknown_type_policy: Literal["error", "warn", "ignore"] = "warn",
        skip_direct_message_subscription: bool = False,
        description: str = "",
        subscriptions: Callable[[], Sequence[Subscription] | Awaitable[Sequence[Subscription]]] | None = None,
    ) -> AgentType:
        """Register `closure` as an agent type. `subscriptions` makes what it subscribes to."""
        _closure_takes(closure)
        made: Any = ()
        if subscriptions is not None:
            with SubscriptionInstantiationContext.populate_context(AgentType(type)):
                made = subscriptions()
                made = await made if inspect.isawaitable(made) else made
        agent_type = await cls.register(
            runtime,
            type,
            lambda: cls(description, closure, unknown_type_policy=unknown_type_policy),
            skip_direct_message_subscription=skip_direct_message_subscription,
        )
        await _subscribe(runtime, made)
        return agent_type


# --- annotations


def _closure_takes(closure: Callable[..., Any]) -> tuple[Any, ...] | None:
    return _classes(_hints(closure)["message"])


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """What the annotations of `message` and of the result stand for; others may be unknown at run time."""
    name, written = _name_of(function), function.__annotations__
    for each, what in ("message", "its argument 'message'"), ("return", "its result (None, if there is none)"):
        if each not in written:
            raise ConfigError(f"{name} needs a type annotation for {what}, by which messages are routed and checked")

    def stand_in() -> None: ...

    stand_in.__annotations__ = {each: written[each] for each in ("message", "return")}
    try:
        return inspect.get_annotations(stand_in, globals=inspect.unwrap(function).__globals__, eval_str=True)
    except NameError as error:
        raise ConfigError(f"an annotation of {name} cannot be resolved in its module: {error}") from error


def _classes(hint: Any, origins: bool = False) -> tuple[Any, ...] | None:
    """The classes a hint stands for, None if it stands for any. `origins`: the class of `list[int]` is list."""
    if _is_any(hint):
        return None
    union = isinstance(hint, UnionType) or str(getattr(hint, "__origin__", "")) == "typing.Union"
    found = []
    for each in hint.__args__ if union else (hint,):
        origin = getattr(each, "__origin__", None)
        if origins:
            each = origin or each
            if _is_any(each) or not _is_checkable(each):
                return None
        elif origin is not None or not isinstance(each, type):
            raise ConfigError(f"messages are routed by their class; {each!r} is not a class")
        found.append(type(None) if each is None else each)
    return tuple(found)


def _is_any(hint: Any) -> bool:
    return str(hint) in ("typing.Any", "typing_extensions.Any")


def _is_checkable(hint: Any) -> bool:
    try:
        return isinstance(None, hint) is not None
    except TypeError:  # a protocol, a literal, a type variable
        return hint is None


def _name_of(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", repr(function))
