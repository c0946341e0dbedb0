"""Where messages go: the addresses of agents, topics, and the subscriptions that lead from one to the other."""

from __future__ import annotations

import re
import sys
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache

from .errors import CantHandleException, ConfigError
from .records import pydantic_schema

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, ClassVar, Protocol, TypeVar, overload

    from typing_extensions import Self

    C = TypeVar("C", bound=type[Any])

    class _MarksClass(Protocol):
        @overload
        def __call__(self, cls: C) -> C: ...
        @overload
        def __call__(self, cls: None = None) -> Callable[[C], C]: ...

else:
    Protocol = object

SEEN = 1024  # topics whose recipients are remembered


class AgentType(str):
    """The name of a registered agent type."""

    __slots__ = ()

    def __new__(cls, type: str) -> AgentType:
        return super().__new__(cls, type)

    @property
    def type(self) -> str:
        return str(self)


@lru_cache(maxsize=4096)
def _checked(kind: str, name: str, signs: str = "-.") -> str:
    """The name of a type, one object for all equal ones. Raises `ConfigError` if other `signs` are in it."""
    if not re.fullmatch(rf"[\w{re.escape(signs)}]+", name):
        others = ", ".join(map(repr, "_" + signs[:-1]))
        raise ConfigError(f"invalid {kind} type {name!r}: use letters, digits, {others} and {signs[-1]!r}")
    return sys.intern(str(name))


class _Address:
    """A type and a name within it, compared by both. Treated as immutable."""

    __slots__ = ("_name", "type")

    type: str
    _name: str
    _kind: ClassVar[str]

    @classmethod
    def from_str(cls, text: str) -> Self:
        """The address that `str()` wrote: type, slash, name; the name may hold further slashes."""
        type, slash, name = text.partition("/")
        if not slash:
            raise ConfigError(f"invalid {cls._kind} id {text!r}: expected 'type/name'")
        return cls(type, name)  # type: ignore[call-arg]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> dict[str, Any]:
        return pydantic_schema(lambda value: _as_address(cls, value), str)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        return {"type": "string"}

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _Address)
            and self._name == other._name
            and self.type == other.type
            and self._kind == other._kind
        )

    def __hash__(self) -> int:
        return hash((self.type, self._name))

    def __str__(self) -> str:
        return f"{self.type}/{self._name}"

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({self.type!r}, {self._name!r})"


def _as_address(cls: type[_Address], value: Any) -> _Address:
    if isinstance(value, cls):
        return value
    if isinstance(value, str):
        return cls.from_str(value)
    raise ValueError(f"expected a {cls.__name__}, or 'type/name'")


class AgentId(_Address):
    """The address of one agent: its type and its key, which is any text."""

    __slots__ = ()

    _kind = "agent"
    if TYPE_CHECKING:
        key: str
    else:
        key = _Address._name

    def __init__(self, type: str | AgentType, key: str) -> None:
        self.type = _checked("agent", type)
        self._name = key


class TopicId(_Address):
    """What a published message is about: a topic type, and the source within it that subscribers are told apart by."""

    __slots__ = ()

    _kind = "topic"
    if TYPE_CHECKING:
        source: str
    else:
        source = _Address._name

    def __init__(self, type: str, source: str) -> None:
        self.type = _checked("topic", type, "-.:=")
        self._name = source


class DefaultTopicId(TopicId):
    """The topic for those who need only one.

    Its source, if left out, is the key of the agent whose handler is running, else "default".
    """

    __slots__ = ()

    def __init__(self, type: str = "default", source: str | None = None) -> None:
        if source is None:
            agent = current_agent.get()
            source = "default" if agent is None else agent.key
        super().__init__(type, source)


current_agent: ContextVar[AgentId | None] = ContextVar("tinygen_current_agent", default=None)


class Ambient:
    """Says what holds while the runtime calls one's code."""

    _variable: ClassVar[ContextVar[Any]]
    _where: ClassVar[str]

    @classmethod
    @contextmanager
    def populate_context(cls, value: Any) -> Iterator[None]:
        """Make `value` hold inside the block, as the runtime does; for tests and for runtimes of one's own."""
        token = cls._variable.set(value)
        try:
            yield
        finally:
            cls._variable.reset(token)

    @classmethod
    def _current(cls) -> Any:
        value = cls._variable.get()
        if value is None:
            raise RuntimeError(f"{cls.__name__} holds something only in {cls._where}")
        return value


class MessageHandlerContext(Ambient):
    """Which agent's handler is running."""

    _variable = current_agent
    _where = "a message handler"

    @classmethod
    def agent_id(cls) -> AgentId:
        """The id of that agent. Raises RuntimeError outside of a handler."""
        agent: AgentId = cls._current()
        return agent


class SubscriptionInstantiationContext(Ambient):
    """The agent type that subscriptions are being made for."""

    _variable = ContextVar("tinygen_subscribing", default=None)
    _where = "a registration"

    @classmethod
    def agent_type(cls) -> AgentType:
        """That type. Raises RuntimeError outside of a registration."""
        agent_type: AgentType = cls._current()
        return agent_type


# --- subscriptions


class Subscription(Protocol):
    """Which agent a topic reaches."""

    __slots__ = ()

    @property
    def id(self) -> str:
        """By which it is removed."""
        raise NotImplementedError

    def is_match(self, topic_id: TopicId) -> bool:
        """Whether the topic reaches an agent by this subscription."""
        raise NotImplementedError

    def map_to_agent(self, topic_id: TopicId) -> AgentId:
        """That agent. Raises `CantHandleException` where there is no match."""
        raise NotImplementedError


class _ByType(Subscription):
    """What the two subscriptions have in common. Equal are those of the same id and those of the same types."""

    __slots__ = ("_id", "_topic", "agent_type")

    _sign: ClassVar[str]

    def __init__(self, topic: str, agent_type: str | AgentType, id: str | None) -> None:
        self._topic = topic
        self._id = id
        self.agent_type = _checked("agent", agent_type)

    @property
    def id(self) -> str:
        return self._id or self._made_id

    @property
    def _made_id(self) -> str:
        return f"{self._sign}{self._topic}>{self.agent_type}"

    def map_to_agent(self, topic_id: TopicId) -> AgentId:
        if not self.is_match(topic_id):
            raise CantHandleException(f"{self!r} does not match the topic '{topic_id}'")
        return AgentId(self.agent_type, topic_id.source)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByType) and (self.id == other.id or self._made_id == other._made_id)

    def __hash__(self) -> int:
        return hash(self._made_id)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._topic!r}, {self.agent_type!r})"


class TypeSubscription(_ByType):
    """Topics of exactly this type reach the agent whose key is the topic's source."""

    __slots__ = ()

    _sign = "="

    def __init__(self, topic_type: str, agent_type: str | AgentType, id: str | None = None) -> None:
        super().__init__(topic_type, agent_type, id)

    @property
    def topic_type(self) -> str:
        return self._topic

    def is_match(self, topic_id: TopicId) -> bool:
        return topic_id.type == self._topic


class TypePrefixSubscription(_ByType):
    """Topics whose type begins so reach the agent whose key is the topic's source."""

    __slots__ = ()

    _sign = "^"

    def __init__(self, topic_type_prefix: str, agent_type: str | AgentType, id: str | None = None) -> None:
        super().__init__(topic_type_prefix, agent_type, id)

    @property
    def topic_type_prefix(self) -> str:
        return self._topic

    def is_match(self, topic_id: TopicId) -> bool:
        return topic_id.type.startswith(self._topic)


class DefaultSubscription(TypeSubscription):
    """To the topic type "default"; for the agent type that is being registered, if none is given."""

    __slots__ = ()

    def __init__(self, topic_type: str = "default", agent_type: str | AgentType | None = None) -> None:
        if agent_type is None:
            agent_type = SubscriptionInstantiationContext._variable.get()
        if agent_type is None:
            raise CantHandleException("DefaultSubscription() needs an agent_type unless it is made while one registers")
        super().__init__(topic_type, agent_type)


def type_subscription(topic_type: str) -> Callable[[C], C]:
    """Class decorator: agents of the class subscribe to this topic type when they register. Not inherited."""

    def subscribe(cls: C) -> C:
        cls._topics = (*vars(cls).get("_topics", ()), topic_type)
        return cls

    return subscribe


def _default_subscription(cls: Any = None) -> Any:
    """Class decorator: `type_subscription` to the topic type "default". Not inherited."""
    subscribe = type_subscription("default")
    return subscribe if cls is None else subscribe(cls)


default_subscription: _MarksClass = _default_subscription


class Routes:
    """Whom a topic reaches: all subscriptions, and the recipients of topics seen lately."""

    __slots__ = ("_by_id", "_seen", "_shelves")

    def __init__(self) -> None:
        self._by_id: dict[str, Subscription] = {}
        # by "=topic type" or "^prefix", and there by agent type; those of other kinds by "", and there by id
        self._shelves: dict[str, dict[str, Subscription]] = {}
        self._seen: dict[TopicId, tuple[AgentId, ...]] = {}

    def add(self, subscription: Subscription) -> None:
        """Raises `ConfigError` if there is an equal one."""
        name, key = _place(subscription)
        shelf = self._shelves.get(name, {})
        if subscription.id in self._by_id or key in shelf or (not name and subscription in shelf.values()):
            raise ConfigError(f"the subscription {subscription!r} exists already")
        self._shelves[name] = shelf
        self._by_id[subscription.id] = shelf[key] = subscription
        self._seen.clear()

    def remove(self, id: str) -> None:
        """Raises `ConfigError` if there is none of this id."""
        if id not in self._by_id:
            raise ConfigError(f"there is no subscription with the id {id!r}")
        name, key = _place(self._by_id.pop(id))
        shelf = self._shelves[name]
        del shelf[key]
        if not shelf:
            del self._shelves[name]
        self._seen.clear()

    def discard(self, *, agent_type: str, topic_type: str | None = None) -> None:
        """Remove what leads to this agent type; only from this topic type, if one is given."""
        if topic_type is not None:
            found = [self._shelves.get(f"={topic_type}", {}).get(agent_type)]
        else:
            found = [each for each in self._by_id.values() if getattr(each, "agent_type", None) == agent_type]
        for each in found:
            if each is not None:
                self.remove(each.id)

    def recipients(self, topic: TopicId) -> tuple[tuple[AgentId, ...], Sequence[Exception]]:
        """Each agent once, in order; and what subscriptions of other kinds raised when they were asked."""
        known = self._seen.get(topic)
        if known is not None:
            return known, ()
        found: dict[AgentId, None] = {}
        failures: list[Exception] = []
        for subscription in self._candidates(topic.type):
            try:
                if subscription.is_match(topic):
                    found[subscription.map_to_agent(topic)] = None
            except Exception as error:  # noqa: BLE001 - the caller reports it; it must not keep others from receiving
                failures.append(error)
        known = tuple(found)
        if not failures:
            if len(self._seen) >= SEEN:
                self._seen.clear()
            self._seen[topic] = known
        return known, failures

    def _candidates(self, type: str) -> Iterator[Subscription]:
        names = [f"={type}", *(f"^{type[:end]}" for end in range(len(type) + 1)), ""]
        for name in names:
            yield from self._shelves.get(name, {}).values()


def _place(subscription: Subscription) -> tuple[str, str]:
    """The shelf it stands on, and its name there."""
    if isinstance(subscription, _ByType) and subscription.__class__.is_match in _KNOWN:
        return f"{subscription._sign}{subscription._topic}", subscription.agent_type
    return "", subscription.id


_KNOWN = (TypeSubscription.is_match, TypePrefixSubscription.is_match)
