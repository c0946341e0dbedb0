"""The agents of a runtime: how they are made when first needed, where they are, and how they go.

Agents outlive the runs that need them, so they are made in the context of the runtime's owner, who constructed or
started it. One task makes an agent, whatever happens to the senders; messages for it are held meanwhile. An agent that
goes is held on to until it has ended what it does; then one task saves and closes it, and messages are held again, so
there are never two agents of one id. One that could not be saved is there again.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Mapping
from contextvars import copy_context
from itertools import takewhile

from .actors import Agent, AgentInstantiationContext, AgentRuntime
from .addresses import AgentId, AgentType, Routes
from .errors import ConfigError, DecodeError, StateError, UndeliverableException, did_you_mean
from .mailboxes import Mailbox
from .waiting import settled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
    from contextvars import Context
    from typing import Any, Protocol, TypeVar

    from .addresses import Subscription
    from .mailboxes import Envelope
    from .serialization import MessageSerializer, SerializationRegistry

    A = TypeVar("A", bound=Agent)
    T = TypeVar("T")

    class StateStore(Protocol):
        """Where the states of released agents are: a `CacheStore`, or a class of yours."""

        def get(self, key: str, /) -> Any: ...
        def set(self, key: str, value: Any, /) -> Any: ...


_log = logging.getLogger("tinygen.runtime")


class _Kind:
    """An agent type: by what its agents are made, if by anything, and of which class they are."""

    __slots__ = ("cls", "factory", "instances")

    def __init__(self, factory: Callable[[], Any] | None, cls: type[Any] | None) -> None:
        self.factory = factory
        self.cls = cls
        self.instances = 0  # those put in their place by `register_agent_instance`


class _Change:
    """An agent that is being made, or let go, and the messages that wait for the end of that."""

    __slots__ = ("agent", "agent_id", "held", "leaving", "task")

    def __init__(self, agent_id: AgentId, leaving: Agent | None = None) -> None:
        self.agent_id = agent_id
        self.agent = leaving  # who will be there at the end, if it ended now
        self.leaving = leaving is not None
        self.held: list[Envelope] = []
        self.task: asyncio.Task[None]

    @property
    def failure(self) -> BaseException | None:
        """What it failed with, when it has ended; an agent whose leaving was cancelled stays, which is no failure."""
        if not self.task.cancelled():
            return self.task.exception()
        problem = f"agent '{self.agent_id}' does not exist: making it was cancelled"
        return None if self.leaving else UndeliverableException(problem)


class Population(AgentRuntime):
    """The half of a runtime that has the agents, their subscriptions and states. The other half moves the messages.

    Args:
        state_store: where the states of agents that were let go are kept.
        idle_after: seconds after which an agent that does nothing is let go.
    """

    def __init__(self, state_store: StateStore | None, idle_after: float | None) -> None:
        if idle_after is not None and (state_store is None or idle_after <= 0):
            raise ConfigError(
                f"idle_after={idle_after!r} needs to be positive, and a state_store, or released agents would forget "
                "all they know"
            )
        self._kinds: dict[str, _Kind] = {}
        self._agents: dict[AgentId, Agent] = {}
        self._boxes: dict[AgentId, Mailbox] = {}
        self._changing: dict[AgentId, _Change] = {}
        self._leaving: set[AgentId] = set()  # to go as soon as they have ended what they do
        self._context: Context = copy_context()  # the owner's
        self._routes = Routes()
        self._serializers: SerializationRegistry | None = None
        self._store = state_store
        self._idle_after = idle_after or 0.0
        self._idle_since: dict[AgentId, float] = {}  # the longest first
        self._sweep: asyncio.TimerHandle | None = None
        self._watching = False

    def _busy(self) -> Collection[AgentId]:
        """The agents that have messages which they have not ended."""
        raise NotImplementedError

    def _settle(self, agent_id: AgentId, held: list[Envelope], error: BaseException | None) -> None:
        """Go on with messages that waited for an agent, or tell why it could not be made."""
        raise NotImplementedError

    # --- registration

    async def register_factory(
        self,
        type: str | AgentType,
        agent_factory: Callable[[], A | Awaitable[A]],
        *,
        expected_class: type[A] | None = None,
    ) -> AgentType:
        name = AgentId(type, "").type
        if name in self._kinds:
            raise ConfigError(f"agent type {name!r} is registered already")
        if not callable(agent_factory):
            raise ConfigError(f"the factory of agent type {name!r} must be a function, not {agent_factory!r}")
        needed = [
            each.name
            for each in inspect.signature(agent_factory).parameters.values()
            if each.default is each.empty and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
        ]
        if needed:
            raise ConfigError(
                f"the factory of agent type {name!r} is called without arguments, but needs {needed}; in it, "
                "AgentInstantiationContext gives the current agent id and runtime"
            )
        self._kinds[name] = _Kind(agent_factory, expected_class)
        return AgentType(name)

    async def register_agent_instance(self, agent_instance: Agent, agent_id: AgentId) -> AgentId:
        cls, type = agent_instance.__class__, agent_id.type
        kind = self._kinds.get(type) or _Kind(None, cls)
        if kind.factory is not None:
            raise ConfigError(f"agents of type {type!r} are made by a factory; instances need a type of their own")
        if kind.cls is not cls:
            raise ConfigError(f"agents of type {type!r} are of class {kind.cls!r}, not {cls!r}")
        if agent_id in self._agents:
            raise ConfigError(f"agent '{agent_id}' exists already")
        self._put(agent_id, agent_instance)
        self._kinds[type] = kind
        kind.instances += 1
        try:
            await agent_instance.bind_id_and_runtime(agent_id, self)
        except BaseException:  # raised again
            self._remove(agent_id)
            raise
        return agent_id

    def _unknown(self, agent_id: AgentId) -> UndeliverableException:
        return UndeliverableException(
            f"no agent type {agent_id.type!r} is registered{did_you_mean(agent_id.type, self._kinds)}"
        )

    def _put(self, agent_id: AgentId, agent: Agent) -> None:
        box = Mailbox.of(agent, agent_id)
        self._agents[agent_id] = agent
        if box is not None:
            self._boxes[agent_id] = box

    async def add_subscription(self, subscription: Subscription) -> None:
        self._routes.add(subscription)

    async def remove_subscription(self, id: str) -> None:
        self._routes.remove(id)

    @property
    def serializers(self) -> SerializationRegistry:
        if self._serializers is None:
            from .serialization import SerializationRegistry

            self._serializers = SerializationRegistry()
        return self._serializers

    def add_message_serializer(self, serializer: MessageSerializer[Any] | Sequence[MessageSerializer[Any]]) -> None:
        self.serializers.add_serializer(serializer)

    # --- making

    async def _get(self, agent_id: AgentId) -> Agent:
        """The agent of this id, made if need be. Raises `UndeliverableException`, or what its factory raises."""
        while (agent := self._agents.get(agent_id)) is None:
            change = self._changing.get(agent_id) or self._make(agent_id)
            failure = await self._end_of(change)
            if failure is not None and not change.leaving:
                raise failure
        return agent

    def _make(self, agent_id: AgentId) -> _Change:
        """Begin to make it. Raises `UndeliverableException` if that is not possible."""
        kind = self._kinds.get(agent_id.type)
        if kind is None:
            raise self._unknown(agent_id)
        if kind.factory is None:
            raise UndeliverableException(
                f"there is no agent '{agent_id}': agents of this type are registered, not made by a factory. "
                "If a subscription of their class leads there, register them with skip_class_subscriptions=True"
            )
        change = _Change(agent_id)
        return self._begin_change(change, self._construct(kind.factory, kind.cls, change))

    def _start_for_owner(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a task in the context of the runtime's owner."""
        return self._context.copy().run(asyncio.get_running_loop().create_task, work)

    def _begin_change(self, change: _Change, work: Coroutine[Any, Any, None]) -> _Change:
        self._changing[change.agent_id] = change
        try:
            change.task = self._start_for_owner(work)
        except BaseException:  # raised again
            del self._changing[change.agent_id]
            raise
        change.task.add_done_callback(lambda _: self._changed(change))
        return change

    async def _end_of(self, change: _Change) -> BaseException | None:
        """Wait for it; what it failed with."""
        await settled(change.task)
        self._changed(change)  # a task that began at once may have ended before its callback ran
        return change.failure

    def _changed(self, change: _Change) -> None:
        """Go on with the messages that waited for it, in order and before any other; or tell why it is not there."""
        agent_id, failure = change.agent_id, change.failure
        if self._changing.get(agent_id) is not change:
            return  # that was done already, or is of an event loop that was closed
        del self._changing[agent_id]
        if change.agent is not None:
            self._put(agent_id, change.agent)
        else:
            self._leaving.discard(agent_id)
        if change.leaving and failure is not None:
            _log.error("agent %s could not be released", agent_id, exc_info=failure)
        held, change.held = change.held, []
        self._settle(agent_id, held, None if change.leaving else failure)
        self._rests(agent_id)

    async def _construct(self, factory: Callable[[], Any], cls: type[Any] | None, change: _Change) -> None:
        agent_id = change.agent_id
        with AgentInstantiationContext.populate_context((self, agent_id)):
            made = factory()
            if inspect.isawaitable(made):
                made = await made
        if not isinstance(made, cls) if cls is not None else not hasattr(made, "on_message"):
            expected = "an agent" if cls is None else f"a {cls.__name__}"
            raise ConfigError(f"the factory of agent type {agent_id.type!r} made {made!r}, not {expected}")
        agent: Agent = made
        Mailbox.of(agent, agent_id)  # raises if what it says of its mailbox makes no sense
        await agent.bind_id_and_runtime(agent_id, self)
        if self._store is not None and (state := self._store.get(str(agent_id))) is not None:
            try:
                await _load(agent, agent_id, state)
            except BaseException:  # raised again
                await agent.close()
                raise
        change.agent = agent

    # --- going

    async def release(self, agent_id: AgentId) -> None:
        if agent_id in self._agents:
            if self._kinds[agent_id.type].factory is None:
                self._remove(agent_id)
            elif agent_id in self._busy():
                self._leaving.add(agent_id)
            elif (failure := await self._end_of(self._let_go(agent_id))) is not None:
                raise failure
        elif (change := self._changing.get(agent_id)) is not None and not change.leaving:
            self._leaving.add(agent_id)

    def _remove(self, agent_id: AgentId) -> None:
        """Take out an instance, and what leads to it; who waits for its mailbox learns that it is gone."""
        box, kind = self._boxes.get(agent_id), self._kinds[agent_id.type]
        self._take_out(agent_id)
        kind.instances -= 1
        if kind.instances:
            self._routes.discard(agent_type=agent_id.type, topic_type=agent_id.key)
        else:
            del self._kinds[agent_id.type]
            self._routes.discard(agent_type=agent_id.type)
        if box is not None:
            self._settle(agent_id, box.clear(), None)

    def _take_out(self, agent_id: AgentId) -> None:
        del self._agents[agent_id]
        self._boxes.pop(agent_id, None)
        self._leaving.discard(agent_id)
        self._idle_since.pop(agent_id, None)

    def _let_go(self, agent_id: AgentId) -> _Change:
        agent = self._agents[agent_id]
        change = _Change(agent_id, agent)
        self._begin_change(change, self._leave(agent, change))
        self._take_out(agent_id)
        return change

    async def _leave(self, agent: Agent, change: _Change) -> None:
        if self._store is not None:
            self._store.set(str(change.agent_id), await agent.save_state())
        change.agent = None  # until here it must not be lost
        await agent.close()

    def _rests(self, agent_id: AgentId) -> None:
        """It has ended what it did: perhaps it is to go, now or after a time."""
        if agent_id not in self._agents:
            return
        if agent_id in self._leaving:
            if agent_id not in self._busy():
                self._let_go(agent_id)
        elif self._watching:
            loop = asyncio.get_running_loop()
            self._idle_since.pop(agent_id, None)
            self._idle_since[agent_id] = loop.time()
            if self._sweep is None:
                self._sweep = loop.call_later(self._idle_after, self._release_idle)

    def _release_idle(self) -> None:
        loop, busy = asyncio.get_running_loop(), self._busy()
        latest = loop.time() - self._idle_after
        for agent_id, _ in list(takewhile(lambda each: each[1] <= latest, self._idle_since.items())):
            del self._idle_since[agent_id]  # one that is busy is noted again when it has ended that
            if agent_id not in busy and self._kinds[agent_id.type].factory is not None:
                self._let_go(agent_id)
        first = next(iter(self._idle_since.values()), None)
        self._sweep = None if first is None else loop.call_at(first + self._idle_after, self._release_idle)

    def _watch_idle(self, on: bool) -> None:
        """Begin or end to look for agents that have been idle for long."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        self._watching = on and self._idle_after > 0
        self._idle_since.clear()
        if on and (self._watching or self._leaving):
            for agent_id in list(self._agents):
                self._rests(agent_id)

    # --- agents and their states

    async def try_get_underlying_agent_instance(
        self,
        id: AgentId,
        type: type[A] = Agent,  # type: ignore[assignment]
    ) -> A:
        agent = await self._get(id)
        if type is not Agent and not isinstance(agent, type):
            raise TypeError(f"agent '{id}' is a {agent.__class__.__name__}, not a {type.__name__}")
        return agent  # type: ignore[return-value]

    async def agent_load_state(self, agent: AgentId, state: Mapping[str, Any]) -> None:
        await _load(await self._get(agent), agent, state)

    async def save_state(self) -> Mapping[str, Any]:
        return {str(agent_id): await agent.save_state() for agent_id, agent in list(self._agents.items())}

    async def load_state(self, state: Mapping[str, Any]) -> None:
        if not isinstance(state, Mapping):
            raise StateError("$", f"expected a JSON object with the agents' states, found a {type(state).__name__}")
        known = []
        for name, agent_state in state.items():
            try:
                agent_id = AgentId.from_str(name)
            except (ConfigError, AttributeError) as error:
                raise StateError(f"$[{name!r}]", f"not the id of an agent: {error}") from error
            if agent_id.type in self._kinds:
                known.append((agent_id, agent_state))
        for agent_id, agent_state in known:
            await self.agent_load_state(agent_id, agent_state)


async def _load(agent: Agent, agent_id: AgentId, state: Any) -> None:
    """Give the agent a state. Raises `StateError`, which names the agent, for one that it cannot take."""
    path = f"$[{str(agent_id)!r}]"
    if not isinstance(state, Mapping):
        raise StateError(path, f"expected a JSON object, found a {type(state).__name__}")
    try:
        await agent.load_state(state)
    except DecodeError as error:
        raise StateError(f"{path}{error.path.removeprefix('$')}", error.problem) from error
    except Exception as error:
        problem = f"{type(agent).__name__}.load_state raised {type(error).__name__}: {error}"
        raise StateError(path, problem) from error
