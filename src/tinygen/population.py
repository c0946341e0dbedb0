"""The agents of a runtime: how they are made when first needed, where they are, and how they go.

Agents outlive the runs that need them, so they are made in the context of the runtime's owner, who constructed or
started it. One task makes an agent, whatever happens to the senders; messages for it are held meanwhile. An agent that
goes is held on to until it has ended what it does; then one task saves and closes it, and messages are held again, so
there are never two agents of one id.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Mapping
from contextvars import copy_context

from .actors import AgentInstantiationContext
from .addresses import AgentId, AgentType, Routes
from .errors import ConfigError, DecodeError, StateError, UndeliverableException, did_you_mean
from .mailboxes import Mailbox
from .run import settled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextvars import Context
    from typing import Any, Protocol

    from .actors import Agent, AgentRuntime
    from .mailboxes import Envelope

    Settle = Callable[[AgentId, list[Envelope], BaseException | None, asyncio.AbstractEventLoop], None]

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
        self.instances = 0  # those put in their place by `register_instance`


class _Change:
    """An agent that is being made, or let go, and the messages that wait for the end of that."""

    __slots__ = ("held", "leaving", "task")

    def __init__(self, task: asyncio.Task[Agent | None], leaving: bool) -> None:
        self.task = task
        self.leaving = leaving
        self.held: list[Envelope] = []


class Population:
    """The agents of one runtime.

    Args:
        is_busy: whether an agent has messages that it has not ended.
        settle: what to do with the messages that waited for an agent, when it is there, or with the error if it is not.
        store: where the states of agents that were let go are kept.
        idle_after: seconds after which an agent that does nothing is let go.
    """

    def __init__(
        self,
        runtime: AgentRuntime,
        routes: Routes,
        is_busy: Callable[[AgentId], bool],
        settle: Settle,
        store: StateStore | None,
        idle_after: float | None,
    ) -> None:
        if idle_after is not None and (store is None or idle_after <= 0):
            raise ConfigError(
                f"idle_after={idle_after!r} needs to be positive, and a state_store, or released agents would forget "
                "all they know"
            )
        self.kinds: dict[str, _Kind] = {}
        self.agents: dict[AgentId, Agent] = {}
        self.boxes: dict[AgentId, Mailbox] = {}
        self.changing: dict[AgentId, _Change] = {}
        self.leaving: dict[AgentId, None] = {}  # to go as soon as they have ended what they do
        self.context: Context = copy_context()
        self.idle_after = idle_after
        self._idle_since: dict[AgentId, float] = {}  # the longest first
        self._sweep: asyncio.TimerHandle | None = None
        self._watching = False
        self._runtime = runtime
        self._routes = routes
        self._is_busy = is_busy
        self._settle = settle
        self._store = store

    # --- registration

    def register_factory(self, type: str, factory: Callable[[], Any], cls: type[Any] | None) -> AgentType:
        name = AgentId(type, "").type
        if name in self.kinds:
            raise ConfigError(f"agent type {name!r} is registered already")
        if not callable(factory):
            raise ConfigError(f"the factory of agent type {name!r} must be a function, not {factory!r}")
        needed = [each.name for each in inspect.signature(factory).parameters.values() if _is_required(each)]
        if needed:
            raise ConfigError(
                f"the factory of agent type {name!r} is called without arguments, but needs {needed}; in it, "
                "AgentInstantiationContext gives the current agent id and runtime"
            )
        self.kinds[name] = _Kind(factory, cls)
        return AgentType(name)

    async def register_instance(self, agent: Agent, agent_id: AgentId) -> None:
        cls, type = agent.__class__, agent_id.type
        kind = self.kinds.get(type)
        if kind is None:
            kind = _Kind(None, cls)
        elif kind.factory is not None:
            raise ConfigError(f"agents of type {type!r} are made by a factory; instances need a type of their own")
        elif kind.cls is not cls:
            raise ConfigError(f"agents of type {type!r} are of class {kind.cls!r}, not {cls!r}")
        if agent_id in self.agents:
            raise ConfigError(f"agent '{agent_id}' exists already")
        self.kinds[type] = kind
        self._put(agent_id, agent)
        kind.instances += 1
        try:
            await agent.bind_id_and_runtime(agent_id, self._runtime)
        except BaseException:  # raised again
            await self.release(agent_id)
            raise

    def unknown(self, agent_id: AgentId) -> UndeliverableException:
        return UndeliverableException(
            f"no agent type {agent_id.type!r} is registered{did_you_mean(agent_id.type, self.kinds)}"
        )

    def _put(self, agent_id: AgentId, agent: Agent) -> None:
        box = Mailbox.of(agent, agent_id)
        self.agents[agent_id] = agent
        if box is not None:
            self.boxes[agent_id] = box

    # --- making

    async def get(self, agent_id: AgentId) -> Agent:
        """The agent of this id, made if need be. Raises `UndeliverableException`, or what its factory raises."""
        while (agent := self.agents.get(agent_id)) is None:
            change = self.changing.get(agent_id) or self.make(agent_id)
            await settled(change.task)
            self._changed(agent_id, change)  # a task that began at once may have ended before its callback ran
            if not change.leaving:
                if change.task.cancelled():
                    raise UndeliverableException(f"agent '{agent_id}' does not exist: making it was cancelled")
                made = change.task.result()
                if made is not None:
                    return made
        return agent

    def make(self, agent_id: AgentId) -> _Change:
        """Begin to make it. Raises `UndeliverableException` if that is not possible."""
        kind = self.kinds.get(agent_id.type)
        if kind is None:
            raise self.unknown(agent_id)
        if kind.factory is None:
            raise UndeliverableException(
                f"there is no agent '{agent_id}': agents of this type are registered, not made by a factory. "
                "If a subscription of their class leads there, register them with skip_class_subscriptions=True"
            )
        return self._change(agent_id, self._construct(kind.factory, kind.cls, agent_id), leaving=False)

    def _change(self, agent_id: AgentId, work: Coroutine[Any, Any, Agent | None], leaving: bool) -> _Change:
        create = asyncio.get_running_loop().create_task
        task: asyncio.Task[Agent | None] = self.context.copy().run(create, work)
        change = self.changing[agent_id] = _Change(task, leaving)
        task.add_done_callback(lambda _: self._changed(agent_id, change))
        return change

    def _changed(self, agent_id: AgentId, change: _Change) -> None:
        """Go on with the messages that waited for it, in order and before any other; or tell why it is not there."""
        if self.changing.get(agent_id) is not change:
            return  # that was done already, or is of an event loop that was closed
        del self.changing[agent_id]
        task = change.task
        error: BaseException | None = None
        if task.cancelled():
            error = UndeliverableException(f"agent '{agent_id}' does not exist: making it was cancelled")
        elif (error := task.exception()) is None and (agent := task.result()) is not None:
            self._put(agent_id, agent)
            self.ended(agent_id)
        if change.leaving and error is not None:
            if not task.cancelled():
                _log.error("agent %s could not be released", agent_id, exc_info=error)
            error = None
        self._settle(agent_id, change.held, error, task.get_loop())

    async def _construct(self, factory: Callable[[], Any], cls: type[Any] | None, agent_id: AgentId) -> Agent:
        with AgentInstantiationContext.populate_context((self._runtime, agent_id)):
            made = factory()
            if inspect.isawaitable(made):
                made = await made
        if not isinstance(made, cls) if cls is not None else not hasattr(made, "on_message"):
            expected = "an agent" if cls is None else f"a {cls.__name__}"
            raise ConfigError(f"the factory of agent type {agent_id.type!r} made {made!r}, not {expected}")
        agent: Agent = made
        Mailbox.of(agent, agent_id)  # raises if what it says of its mailbox makes no sense
        await agent.bind_id_and_runtime(agent_id, self._runtime)
        if self._store is not None and (state := self._store.get(str(agent_id))) is not None:
            await load(agent, agent_id, state)
        return agent

    # --- going

    async def release(self, agent_id: AgentId) -> None:
        """`AgentRuntime.release`."""
        if agent_id not in self.agents:
            return
        kind = self.kinds[agent_id.type]
        if kind.factory is None:
            self._take_out(agent_id)
            kind.instances -= 1
            if kind.instances:
                self._routes.discard(agent_type=agent_id.type, topic_type=agent_id.key)
            else:
                del self.kinds[agent_id.type]
                self._routes.discard(agent_type=agent_id.type)
        elif self._is_busy(agent_id):
            self.leaving[agent_id] = None
        else:
            change = self._let_go(agent_id)
            await settled(change.task)
            self._changed(agent_id, change)
            if not change.task.cancelled():
                change.task.result()

    def _take_out(self, agent_id: AgentId) -> Agent:
        self.leaving.pop(agent_id, None)
        self.boxes.pop(agent_id, None)
        self._idle_since.pop(agent_id, None)
        return self.agents.pop(agent_id)

    def _let_go(self, agent_id: AgentId) -> _Change:
        return self._change(agent_id, self._leave(agent_id, self._take_out(agent_id)), leaving=True)

    async def _leave(self, agent_id: AgentId, agent: Agent) -> Agent | None:
        if self._store is not None:
            try:
                self._store.set(str(agent_id), await agent.save_state())
            except BaseException:  # raised again; what could not be saved must not be lost
                self._put(agent_id, agent)
                raise
        await agent.close()
        return None

    def ended(self, agent_id: AgentId) -> None:
        """It has ended what it did: perhaps it is to go, now or after a time."""
        if agent_id in self.leaving:
            if not self._is_busy(agent_id):
                self._let_go(agent_id)
        elif self._watching and agent_id in self.agents:
            loop = asyncio.get_running_loop()
            self._idle_since.pop(agent_id, None)
            self._idle_since[agent_id] = loop.time()
            if self._sweep is None:
                self._sweep = loop.call_later(self.idle_after or 0, self._release_idle)

    def _release_idle(self) -> None:
        loop, self._sweep = asyncio.get_running_loop(), None
        for agent_id, since in list(self._idle_since.items()):
            due = since + (self.idle_after or 0)
            if due > loop.time():
                self._sweep = loop.call_at(due, self._release_idle)
                break
            del self._idle_since[agent_id]  # one that is busy is noted again when it has ended that
            if self.kinds[agent_id.type].factory is not None and not self._is_busy(agent_id):
                self._let_go(agent_id)

    def started(self) -> None:
        """The runtime was started: its owner's context is this one; what was left in a closed event loop is lost."""
        self.context = copy_context()
        for agent_id, change in list(self.changing.items()):
            if change.task.get_loop().is_closed():
                del self.changing[agent_id]
        self.watch_idle(True)

    @property
    def looks(self) -> bool:
        """Whether it matters when an agent has ended what it did."""
        return self._watching or bool(self.leaving)

    def watch_idle(self, on: bool) -> None:
        """Begin or end to look for agents that have been idle for long."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        self._watching = on and self.idle_after is not None
        self._idle_since.clear()
        if self._watching:
            for agent_id in self.agents:
                self.ended(agent_id)


async def load(agent: Agent, agent_id: AgentId, state: Any) -> None:
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


def _is_required(parameter: inspect.Parameter) -> bool:
    return parameter.default is parameter.empty and parameter.kind not in (
        parameter.VAR_POSITIONAL,
        parameter.VAR_KEYWORD,
    )
