"""What an actor is: its address, what it subscribes to, how it handles messages. The runtime is another room.

An agent is found by its `AgentId`, a type and a key. Agents of a registered type are made when the first message for a
new key arrives. A message goes to one agent (a request, which has an answer) or to a topic (an event, which has none);
subscriptions say which agent of which type a topic reaches.
"""

from __future__ import annotations

from contextvars import ContextVar

from .addresses import (
    AgentId,
    AgentType,
    Ambient,
    TopicId,
    TypePrefixSubscription,
    TypeSubscription,
)
from .cancellation import CancellationToken
from .clock import new_id
from .errors import ConfigError, StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
    from typing import Any, Protocol, TypedDict, TypeVar

    from typing_extensions import Self

    from .addresses import Subscription
    from .serialization import MessageSerializer, SerializationRegistry
    from .timers import Timer

    class AgentMetadata(TypedDict):
        """What is known of an agent from outside."""

        type: str
        key: str
        description: str

    A = TypeVar("A", bound="Agent")
    Class = type[Any]

else:
    Protocol = object
    AgentMetadata = dict

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
        timeout: float | None = None,
    ) -> Any:
        """Send a request and wait for the answer, or for what its handler raises; for `timeout` seconds at most.

        Raises `UndeliverableException` where there is no such agent, `MessageDroppedException` if an intervention
        dropped the message, `Overloaded` if the agent takes no more, `CallCycle` if sequential agents would wait for
        each other, `MessageTimeout`. Cancelling the caller or the token cancels the handler, as the timeout does.
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

    def send_later(
        self,
        message: Any,
        recipient: AgentId | TopicId,
        *,
        delay: float | None = None,
        every: float | None = None,
        sender: AgentId | None = None,
    ) -> Timer:
        """Send an event to one agent, or publish it to a topic, after `delay` seconds and then `every` so many.

        A timer belongs to the runtime, not to the run it is set in, and ends when the runtime stops. Raises
        RuntimeError if that is not started.
        """
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

        One that a factory made, or is making, is closed when it has ended what it does, and made anew for the next
        message; where the runtime has a store of states, it goes on with the state it had. One that was registered as
        an instance goes with its subscriptions and its mailbox, and its type with the last one.
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
        agent_id = id_or_type if isinstance(id_or_type, AgentId) else AgentId(id_or_type, key)
        if not lazy:
            await self.try_get_underlying_agent_instance(agent_id)
        return agent_id

    async def agent_metadata(self, agent: AgentId) -> AgentMetadata:
        return (await self.try_get_underlying_agent_instance(agent)).metadata

    async def agent_save_state(self, agent: AgentId) -> Mapping[str, Any]:
        found: Agent = await self.try_get_underlying_agent_instance(agent)
        return await found.save_state()

    async def agent_load_state(self, agent: AgentId, state: Mapping[str, Any]) -> None:
        raise NotImplementedError

    async def save_state(self) -> Mapping[str, Any]:
        """The states of all agents that exist, by their ids."""
        raise NotImplementedError

    async def load_state(self, state: Mapping[str, Any]) -> None:
        """Give the agents the states that `save_state` wrote. Those of unknown types are left out.

        Raises `StateError`, which names the agent, for what cannot be a state.
        """
        raise NotImplementedError

    async def add_subscription(self, subscription: Subscription) -> None:
        """Raises `ConfigError` (a ValueError) if there is an equal one."""
        raise NotImplementedError

    async def remove_subscription(self, id: str) -> None:
        """Raises `ConfigError` (a ValueError) if there is none of this id."""
        raise NotImplementedError

    @property
    def serializers(self) -> SerializationRegistry:
        """Who writes and reads which type of message, where messages leave the process."""
        raise NotImplementedError

    def add_message_serializer(self, serializer: MessageSerializer[Any] | Sequence[MessageSerializer[Any]]) -> None:
        """Have messages of a type written and read in a way of one's own."""
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
    """An agent; derive from it and define `on_message_impl`, or derive from `RoutedAgent` and write handlers.

    `sequential = True` in the class has it handle one message at a time; a tuple of message classes says which ones
    wait for each other. `max_pending` is how many messages it may have, begun or waiting, before senders get
    `Overloaded`.
    """

    __slots__ = ("_description", "_id", "_runtime")

    sequential: bool | Sequence[Class] = False
    max_pending: int | None = None
    _topics: Sequence[str] = ()

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
        timeout: float | None = None,
    ) -> Any:
        """`AgentRuntime.send_message`, from this agent."""
        return await self.runtime.send_message(
            message,
            recipient,
            sender=self._id,
            cancellation_token=cancellation_token,
            message_id=message_id,
            timeout=timeout,
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
        serializers = serializers_of(cls._takes(), runtime)
        agent_type = await runtime.register_factory(type, factory, expected_class=cls)
        if serializers:
            runtime.add_message_serializer(serializers)
        topics = () if skip_class_subscriptions else vars(cls).get("_topics", ())
        await subscribe(runtime, _subscriptions(agent_type, topics, not skip_direct_message_subscription))
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
        serializers = serializers_of(self._takes(), runtime)
        await runtime.register_agent_instance(self, agent_id)
        if serializers:
            runtime.add_message_serializer(serializers)
        topics = () if skip_class_subscriptions else vars(self.__class__).get("_topics", ())
        direct = not skip_direct_message_subscription
        await subscribe(runtime, _subscriptions(agent_id.type, (agent_id.key, *topics), direct))
        return agent_id

    @classmethod
    def _takes(cls) -> Collection[Class]:
        """The classes of messages it handles, if that is known. Raises `ConfigError` if its agents could not work."""
        return ()

    def _unbound(self) -> RuntimeError:
        return RuntimeError(
            f"{type(self).__name__} has no id yet; make it in a factory given to register(), or use register_instance()"
        )


class AgentProxy:
    """An agent as one sees it from outside: by its id, through its runtime."""

    __slots__ = ("_id", "_runtime")

    def __init__(self, agent: AgentId, runtime: AgentRuntime) -> None:
        self._id = agent
        self._runtime = runtime

    @property
    def id(self) -> AgentId:
        return self._id

    @property
    def metadata(self) -> Awaitable[AgentMetadata]:
        return self._runtime.agent_metadata(self._id)

    async def send_message(
        self,
        message: Any,
        *,
        sender: AgentId | None = None,
        cancellation_token: CancellationToken | None = None,
        message_id: str | None = None,
        timeout: float | None = None,
    ) -> Any:
        """`AgentRuntime.send_message`, to this agent."""
        return await self._runtime.send_message(
            message,
            self._id,
            sender=sender,
            cancellation_token=cancellation_token,
            message_id=message_id,
            timeout=timeout,
        )

    async def save_state(self) -> Mapping[str, Any]:
        return await self._runtime.agent_save_state(self._id)

    async def load_state(self, state: Mapping[str, Any]) -> None:
        await self._runtime.agent_load_state(self._id, state)


def serializers_of(classes: Collection[Class], runtime: AgentRuntime) -> list[MessageSerializer[Any]]:
    """What carries messages of these classes. Raises `ConfigError` if one of them cannot be carried."""
    if not classes:
        return []
    from .serialization import JsonMessageSerializer

    return [JsonMessageSerializer(each) for each in classes if not runtime.serializers.carries(each)]


def _subscriptions(agent_type: str, topics: Sequence[str], direct: bool) -> list[Subscription]:
    made: list[Subscription] = [TypeSubscription(topic, agent_type) for topic in topics]
    if direct:
        # with the colon, or "ann" would receive what is meant for "anna"
        made.append(TypePrefixSubscription(f"{agent_type}:", agent_type))
    return made


async def subscribe(runtime: AgentRuntime, subscriptions: Sequence[Subscription]) -> None:
    for each in subscriptions:
        try:
            await runtime.add_subscription(each)
        except ConfigError:
            pass  # it is there already
