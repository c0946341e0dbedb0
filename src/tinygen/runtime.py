"""The runtime in one process: moves messages between agents, and makes agents when they are first needed.

Theory of operation. A message waits in a queue as an envelope, which holds a copy of its sender's context. While the
runtime is started, the event loop empties the queue: every delivery becomes a task in the sender's context, and belongs
to the run found there; a message sent outside of any run belongs to the runtime. So handlers run side by side, those of
one agent too, but begin in the order in which a sender sent. What a handler ends with, an answer, a failure, a
cancellation, is passed on in one place, `_ended`.

Agents outlive the runs that need them, so they are made in the context of the runtime's owner, who constructed or
started it. One task makes an agent, whatever happens to the senders; messages for it are held meanwhile.

Idle is what can be seen: nothing queued, nothing handled, nothing being made. There is no counter that could drift.

Interventions run at the sender, before the queue, and for answers in the handler's task.

Not guaranteed: the order of messages from different senders; that a handler lets itself be cancelled; that anybody gets
what is published to a topic without subscribers.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from contextvars import copy_context

from .actors import Agent, AgentInstantiationContext, AgentRuntime, DropMessage, MessageContext
from .addresses import AgentId, AgentType, Routes, TopicId, current_agent
from .clock import source
from .errors import ConfigError, MessageDroppedException, UndeliverableException, did_you_mean
from .run import GRACE, Scope, settled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from contextvars import Context
    from typing import Any, TypeVar

    from .actors import AgentMetadata, InterventionHandler
    from .addresses import Subscription
    from .cancellation import CancellationToken

    A = TypeVar("A", bound=Agent)

_log = logging.getLogger("tinygen.runtime")

STORED = 10  # failures kept for `stop_when_idle`


class _Envelope:
    """A message on its way, in its sender's context. A request has a recipient and the future of its reply."""

    __slots__ = ("context", "ctx", "message", "recipient", "reply", "task", "token")

    def __init__(
        self,
        message: Any,
        ctx: MessageContext,
        token: CancellationToken | None,
        recipient: AgentId | None = None,
        reply: asyncio.Future[Any] | None = None,
    ) -> None:
        self.message = message
        self.ctx = ctx
        self.token = token
        self.recipient = recipient
        self.reply = reply
        self.task: asyncio.Task[Any] | None = None
        self.context = copy_context()

    def is_cancelled(self) -> bool:
        """Whether it need not be delivered any more."""
        if self.reply is not None:
            return self.reply.done()
        return self.token is not None and self.token.is_cancelled()

    def __str__(self) -> str:
        where = f"topic '{self.ctx.topic_id}'" if self.recipient is None else f"agent '{self.recipient}'"
        return f"the {type(self.message).__name__} for {where}"


class _Kind:
    """An agent type: by what its agents are made, if by anything, and of which class they are."""

    __slots__ = ("cls", "factory", "instances")

    def __init__(self, factory: Callable[[], Any] | None, cls: type[Any] | None) -> None:
        self.factory = factory
        self.cls = cls
        self.instances = 0  # those put in their place by `register_agent_instance`


class _Making:
    """An agent that is being made, and the messages it will get then."""

    __slots__ = ("held", "task")

    def __init__(self, task: asyncio.Task[Agent]) -> None:
        self.task = task
        self.held: list[_Envelope] = []


class SingleThreadedAgentRuntime(AgentRuntime):
    """Agents in one process and one event loop.

        runtime = SingleThreadedAgentRuntime()
        await Greeter.register(runtime, "greeter", lambda: Greeter("Says hello"))
        runtime.start()
        greeting = await runtime.send_message(Name("Ann"), AgentId("greeter", "default"))
        await runtime.stop_when_idle()
        await runtime.close()

    Args:
        intervention_handlers: see every message, in this order, each what the one before made of it.
        ignore_unhandled_exceptions: if False, `stop_when_idle` raises what a published message led to.
        on_failure: called with every failure that nobody waits for, the message it befell, and the agent, None if the
            message did not get so far. It is logged anyway ("tinygen.runtime").
    """

    def __init__(
        self,
        *,
        intervention_handlers: Sequence[InterventionHandler] | None = None,
        ignore_unhandled_exceptions: bool = True,
        on_failure: Callable[[BaseException, Any, AgentId | None], None] | None = None,
    ) -> None:
        self._interventions = list(intervention_handlers or ())
        self._ignore_failures = ignore_unhandled_exceptions
        self._on_failure = on_failure
        self._failures: list[BaseException] = []
        self._kinds: dict[str, _Kind] = {}
        self._agents: dict[AgentId, Agent] = {}
        self._making: dict[AgentId, _Making] = {}
        self._routes = Routes()
        self._queue: deque[_Envelope] = deque()
        self._live: dict[asyncio.Task[Any], tuple[_Envelope, AgentId]] = {}  # what is handled now, and by whom
        self._waiting_for_idle: list[asyncio.Future[None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None  # while started
        self._over = ""  # why it is not started any more: "stopped" or "closed"
        self._context: Context = copy_context()

    # --- sending

    async def send_message(
        self,
        message: Any,
        recipient: AgentId,
        *,
        sender: AgentId | None = None,
        cancellation_token: CancellationToken | None = None,
        message_id: str | None = None,
    ) -> Any:
        if not isinstance(recipient, AgentId):
            raise ConfigError(f"a message is sent to an AgentId, not to {recipient!r}")
        if recipient.type not in self._kinds:
            raise self._unknown(recipient)
        _not_cancelled(cancellation_token)
        ctx = MessageContext(sender, None, True, cancellation_token, message_id)
        if self._interventions:
            message = await self._intervene("on_send", message, message_context=ctx, recipient=recipient)
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._refuse(waits=True)
        reply: asyncio.Future[Any] = loop.create_future()
        if cancellation_token is not None:
            cancellation_token.link_future(reply)
        envelope = _Envelope(message, ctx, cancellation_token, recipient, reply)
        self._post(envelope)
        try:
            return await reply
        except BaseException:  # raised again; a handler nobody waits for any more is not left running
            if envelope.task is not None:
                envelope.task.cancel()
            raise
        finally:
            del envelope, reply  # an exception refers to this frame, and they refer to the exception

    async def publish_message(
        self,
        message: Any,
        topic_id: TopicId,
        *,
        sender: AgentId | None = None,
        cancellation_token: CancellationToken | None = None,
        message_id: str | None = None,
    ) -> None:
        if not isinstance(topic_id, TopicId):
            raise ConfigError(f"a message is published to a TopicId, not to {topic_id!r}")
        _not_cancelled(cancellation_token)
        ctx = MessageContext(sender, topic_id, False, cancellation_token, message_id)
        if self._interventions:
            try:
                message = await self._intervene("on_publish", message, message_context=ctx)
            except MessageDroppedException:
                return
        if asyncio.get_running_loop() is not self._loop:
            self._refuse(waits=False)
        self._post(_Envelope(message, ctx, cancellation_token))

    async def _intervene(self, method: str, message: Any, **about: Any) -> Any:
        """What the interventions make of a message. Raises `MessageDroppedException` if one drops it."""
        for handler in self._interventions:
            result = await getattr(handler, method)(message, **about)
            if result is DropMessage or isinstance(result, DropMessage):
                raise MessageDroppedException(
                    f"{type(handler).__name__}.{method} dropped a message of type {type(message).__name__}"
                )
            if result is not None:
                message = result
        return message

    def _refuse(self, *, waits: bool) -> None:
        """Raise if a message sent here and now could not be delivered when the runtime is next started."""
        if self._loop is not None:
            if self._loop.is_closed():
                problem = "the event loop that the runtime was started in is closed; call start() in this one"
            else:
                problem = "the runtime was started in another event loop; send from there"
        elif self._over == "closed":
            problem = "the runtime is closed; start() opens it again"
        elif self._over and waits and current_agent.get() in self._agents:
            problem = "the runtime was stopped while this handler was running, so an answer may never come"
        else:
            return
        raise UndeliverableException(problem)

    def _post(self, envelope: _Envelope) -> None:
        self._queue.append(envelope)
        if self._loop is not None and len(self._queue) == 1:
            self._loop.call_soon(self._drain)

    # --- delivering

    def _drain(self) -> None:
        """Deliver what is in the queue now. What comes in meanwhile has its turn after others' work."""
        loop = self._loop
        try:
            for _ in range(len(self._queue)):
                if loop is None or loop is not self._loop or not self._queue:
                    break  # stopped, perhaps by a task that started eagerly
                envelope = self._queue.popleft()
                if not envelope.is_cancelled():
                    envelope.context.run(self._deliver, envelope, loop)
        finally:
            if self._queue and loop is not None and loop is self._loop:
                loop.call_soon(self._drain)
        self._tell_idle()

    def _deliver(self, envelope: _Envelope, loop: asyncio.AbstractEventLoop) -> None:
        if envelope.recipient is not None:
            self._hand_over(envelope, envelope.recipient, loop)
            return
        ctx = envelope.ctx
        recipients, failures = self._routes.recipients(ctx.topic_id)  # type: ignore[arg-type]  # an event has a topic
        for failure in failures:
            self._failed(failure, envelope.message, None)
        for recipient in recipients:
            if ctx.sender is None or recipient != ctx.sender:
                self._hand_over(envelope, recipient, loop)

    def _hand_over(self, envelope: _Envelope, recipient: AgentId, loop: asyncio.AbstractEventLoop) -> None:
        """Start the task in which an agent handles a message; let it wait for an agent that must be made first."""
        agent = self._agents.get(recipient)
        try:
            if agent is None:
                (self._making.get(recipient) or self._make(recipient)).held.append(envelope)
                return
            if envelope.reply is not None and envelope.reply.get_loop() is not loop:
                raise UndeliverableException(f"{envelope} was sent in another event loop than the runtime's")
            task = loop.create_task(self._handle(agent, envelope, recipient))
        except Exception as error:  # no such agent, or a task factory of the user's; whoever sent it learns of it
            self._not_handled(envelope, recipient, error)
            return
        self._live[task] = envelope, recipient
        task.add_done_callback(self._ended)
        here = source.get()
        if isinstance(here, Scope):
            here.run.adopt(task, f"agent {recipient}")
        if envelope.reply is not None:
            envelope.task = task
        elif envelope.token is not None:
            envelope.token.link_future(task)

    async def _handle(self, agent: Agent, envelope: _Envelope, recipient: AgentId) -> Any:
        current_agent.set(recipient)
        answer = await agent.on_message(envelope.message, envelope.ctx)
        if self._interventions and envelope.reply is not None:
            return await self._intervene("on_response", answer, sender=recipient, recipient=envelope.ctx.sender)
        return answer

    def _ended(self, task: asyncio.Task[Any]) -> None:
        """Pass on what a handler ended with: to the sender who waits for it, else to where failures go."""
        envelope, agent_id = self._live.pop(task)
        reply, envelope.task = envelope.reply, None
        if task.cancelled():
            if reply is not None:
                reply.cancel()
        elif (error := task.exception()) is not None:
            self._not_handled(envelope, agent_id, error)
        elif reply is not None and not reply.done():
            reply.set_result(task.result())
        if self._waiting_for_idle:
            self._tell_idle()

    def _not_handled(self, envelope: _Envelope, agent_id: AgentId | None, error: BaseException) -> None:
        # an exception refers to the frames it went through, thus to the envelope, which must not refer to it
        reply, envelope.reply = envelope.reply, None
        if reply is None:
            self._failed(error, envelope.message, agent_id)
        elif reply.done():
            self._report(error, envelope.message, agent_id)
        elif reply.get_loop() is asyncio.get_running_loop():
            reply.set_exception(error)
        elif not reply.get_loop().is_closed():
            reply.get_loop().call_soon_threadsafe(_fail, reply, error)

    def _failed(self, error: BaseException, message: Any, agent_id: AgentId | None) -> None:
        if not self._ignore_failures and len(self._failures) < STORED:
            self._failures.append(error)
        self._report(error, message, agent_id)

    def _report(self, error: BaseException, message: Any, agent_id: AgentId | None) -> None:
        """Nobody waits for this failure: put it in the log, and tell who asked to be told."""
        where = "in the queue" if agent_id is None else f"at agent {agent_id}"
        _log.error("a message of type %s failed %s", type(message).__name__, where, exc_info=error)
        if self._on_failure is not None:
            try:
                self._on_failure(error, message, agent_id)
            except Exception:  # it has no caller who could learn of it
                _log.exception("on_failure failed")

    # --- starting and stopping

    @property
    def is_running(self) -> bool:
        """Whether messages are delivered: it is started, in an event loop that still exists."""
        return self._loop is not None and not self._loop.is_closed()

    def start(self) -> None:
        """Begin to deliver, in the running event loop. Raises RuntimeError if it is started already."""
        loop = asyncio.get_running_loop()
        if self.is_running:
            raise RuntimeError("the runtime is started already")
        # what was left in an event loop that is closed cannot go on
        self._live = {task: each for task, each in self._live.items() if not task.get_loop().is_closed()}
        self._making = {key: each for key, each in self._making.items() if not each.task.get_loop().is_closed()}
        self._loop, self._over = loop, ""
        self._context = copy_context()
        if self._queue:
            loop.call_soon(self._drain)

    async def stop(self) -> None:
        """Stop delivering; `start` goes on.

        Handlers that run may finish and answer. Who waits for an answer to what is still queued gets an
        `UndeliverableException`. Raises RuntimeError if the runtime is not started.
        """
        self._started()
        self._halt("stopped")

    async def stop_when_idle(self) -> None:
        """Stop when nothing is queued and nothing runs.

        With `ignore_unhandled_exceptions=False` it raises what published messages led to: the first failure, with
        notes of the others.
        """
        loop = self._started()
        if asyncio.current_task() in self._live:
            raise RuntimeError("stop_when_idle() in a message handler would wait for itself; use stop()")
        while not self._is_idle():
            waiter = loop.create_future()
            self._waiting_for_idle.append(waiter)
            await waiter
        if self._loop is not None:
            self._halt("stopped")
        failures, self._failures = self._failures, []
        _raise_first(failures)

    async def stop_when(self, condition: Callable[[], bool]) -> None:
        """Stop when `condition` is true; it is asked many times a second."""
        self._started()
        while not condition():
            await asyncio.sleep(0.02)
        if self._loop is not None:
            self._halt("stopped")

    async def close(self) -> None:
        """Stop, end what runs, and close every agent. Raises the first failure of an agent, after all are closed."""
        self._halt("closed")
        await self._end_tasks()
        failures: list[BaseException] = []
        for agent in list(self._agents.values()):
            try:
                await agent.close()
            except Exception as error:  # the others are closed too; raised below
                failures.append(error)
        _raise_first(failures)

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            raise RuntimeError("the runtime is not started")
        if self._loop is not asyncio.get_running_loop():
            raise RuntimeError("the runtime was started in another event loop")
        return self._loop

    def _halt(self, why: str) -> None:
        self._loop, self._over = None, why
        waiting = [(envelope, envelope.recipient) for envelope in self._queue]
        self._queue.clear()
        for agent_id, making in self._making.items():
            waiting += [(envelope, agent_id) for envelope in making.held]
            making.held = []
        for envelope, recipient in waiting:
            error = UndeliverableException(f"{envelope} was not delivered: the runtime was {why}")
            if envelope.reply is not None:
                self._not_handled(envelope, recipient, error)
            elif not envelope.is_cancelled():
                self._report(error, envelope.message, recipient)
        self._tell_idle()

    async def _end_tasks(self) -> None:
        loop, current = asyncio.get_running_loop(), asyncio.current_task()
        tasks = {making.task: agent_id for agent_id, making in self._making.items()}
        for task, (envelope, agent_id) in self._live.items():
            if task is not current:
                tasks[task] = agent_id
                if envelope.reply is not None:
                    closed = UndeliverableException(f"{envelope} was not answered: the runtime was closed")
                    _fail(envelope.reply, closed)
        ending = [task for task in tasks if task.get_loop() is loop]
        for task in ending:
            task.cancel()
        if ending:
            _, deaf = await asyncio.wait(ending, timeout=GRACE)
            for task in deaf:
                _log.warning("agent %s is left behind: it does not end although it was cancelled", tasks[task])

    def _is_idle(self) -> bool:
        return not self._live and not self._making and (self._loop is None or not self._queue)

    def _tell_idle(self) -> None:
        if self._waiting_for_idle and self._is_idle():
            waiting, self._waiting_for_idle = self._waiting_for_idle, []
            for waiter in waiting:
                if not waiter.done():
                    waiter.set_result(None)

    # --- agents

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
        needed = [each.name for each in inspect.signature(agent_factory).parameters.values() if _is_required(each)]
        if needed:
            raise ConfigError(
                f"the factory of agent type {name!r} is called without arguments, but needs {needed}; in it, "
                "AgentInstantiationContext gives the current agent id and runtime"
            )
        self._kinds[name] = _Kind(agent_factory, expected_class)
        return AgentType(name)

    async def register_agent_instance(self, agent_instance: Agent, agent_id: AgentId) -> AgentId:
        cls, type = agent_instance.__class__, agent_id.type
        kind = self._kinds.get(type)
        if kind is None:
            kind = _Kind(None, cls)
        elif kind.factory is not None:
            raise ConfigError(f"agents of type {type!r} are made by a factory; instances need a type of their own")
        elif kind.cls is not cls:
            raise ConfigError(f"agents of type {type!r} are of class {kind.cls!r}, not {cls!r}")
        if agent_id in self._agents:
            raise ConfigError(f"agent '{agent_id}' exists already")
        self._kinds[type] = kind
        self._agents[agent_id] = agent_instance
        kind.instances += 1
        try:
            await agent_instance.bind_id_and_runtime(agent_id, self)
        except BaseException:  # raised again
            await self.release(agent_id)
            raise
        return agent_id

    async def release(self, agent_id: AgentId) -> None:
        agent = self._agents.pop(agent_id, None)
        if agent is None:
            return
        kind = self._kinds[agent_id.type]
        if kind.factory is not None:
            await agent.close()
            return
        kind.instances -= 1
        if kind.instances:
            self._routes.discard(agent_type=agent_id.type, topic_type=agent_id.key)
        else:
            del self._kinds[agent_id.type]
            self._routes.discard(agent_type=agent_id.type)

    async def _agent(self, agent_id: AgentId) -> Agent:
        """The agent of this id, made if need be. Raises `UndeliverableException`, or what its factory raises."""
        agent = self._agents.get(agent_id)
        if agent is not None:
            return agent
        task = (self._making.get(agent_id) or self._make(agent_id)).task
        await settled(task)
        if task.cancelled():
            raise UndeliverableException(f"agent '{agent_id}' does not exist: making it was cancelled")
        return task.result()

    def _make(self, agent_id: AgentId) -> _Making:
        kind = self._kinds.get(agent_id.type)
        if kind is None:
            raise self._unknown(agent_id)
        if kind.factory is None:
            raise UndeliverableException(
                f"there is no agent '{agent_id}': agents of this type are registered, not made by a factory. "
                "If a subscription of their class leads there, register them with skip_class_subscriptions=True"
            )
        create = asyncio.get_running_loop().create_task
        task: asyncio.Task[Agent] = self._context.copy().run(create, self._construct(kind.factory, kind.cls, agent_id))
        making = self._making[agent_id] = _Making(task)
        task.add_done_callback(lambda _: self._made(agent_id))
        return making

    def _made(self, agent_id: AgentId) -> None:
        """Give a new agent the messages that wait for it, in order and before any other; or tell why there is none."""
        making = self._making.pop(agent_id)
        task = making.task
        error: BaseException | None
        if task.cancelled():
            error = UndeliverableException(f"agent '{agent_id}' does not exist: making it was cancelled")
        elif (error := task.exception()) is None:
            self._agents[agent_id] = task.result()
        for envelope in making.held:
            if error is not None:
                self._not_handled(envelope, agent_id, error)
            elif not envelope.is_cancelled():
                envelope.context.run(self._hand_over, envelope, agent_id, task.get_loop())
        self._tell_idle()

    async def _construct(self, factory: Callable[[], Any], cls: type[Any] | None, agent_id: AgentId) -> Agent:
        with AgentInstantiationContext.populate_context((self, agent_id)):
            made = factory()
            if inspect.isawaitable(made):
                made = await made
        if not isinstance(made, cls) if cls is not None else not hasattr(made, "on_message"):
            expected = "an agent" if cls is None else f"a {cls.__name__}"
            raise ConfigError(f"the factory of agent type {agent_id.type!r} made {made!r}, not {expected}")
        agent: Agent = made
        await agent.bind_id_and_runtime(agent_id, self)
        return agent

    async def try_get_underlying_agent_instance(
        self,
        id: AgentId,
        type: type[A] = Agent,  # type: ignore[assignment]
    ) -> A:
        agent = await self._agent(id)
        if type is not Agent and not isinstance(agent, type):
            raise TypeError(f"agent '{id}' is a {agent.__class__.__name__}, not a {type.__name__}")
        return agent  # type: ignore[return-value]

    async def get(
        self, id_or_type: AgentId | AgentType | str, /, key: str = "default", *, lazy: bool = True
    ) -> AgentId:
        agent_id = id_or_type if isinstance(id_or_type, AgentId) else AgentId(id_or_type, key)
        if not lazy:
            await self._agent(agent_id)
        return agent_id

    async def agent_metadata(self, agent: AgentId) -> AgentMetadata:
        return (await self._agent(agent)).metadata

    async def agent_save_state(self, agent: AgentId) -> Mapping[str, Any]:
        return await (await self._agent(agent)).save_state()

    async def agent_load_state(self, agent: AgentId, state: Mapping[str, Any]) -> None:
        await (await self._agent(agent)).load_state(state)

    async def save_state(self) -> Mapping[str, Any]:
        return {str(agent_id): await agent.save_state() for agent_id, agent in list(self._agents.items())}

    async def load_state(self, state: Mapping[str, Any]) -> None:
        for name, agent_state in state.items():
            agent_id = AgentId.from_str(name)
            if agent_id.type in self._kinds:
                await self.agent_load_state(agent_id, agent_state)

    async def add_subscription(self, subscription: Subscription) -> None:
        self._routes.add(subscription)

    async def remove_subscription(self, id: str) -> None:
        self._routes.remove(id)

    def _unknown(self, agent_id: AgentId) -> UndeliverableException:
        return UndeliverableException(
            f"no agent type {agent_id.type!r} is registered{did_you_mean(agent_id.type, self._kinds)}"
        )


def _not_cancelled(token: CancellationToken | None) -> None:
    if token is not None and token.is_cancelled():
        raise asyncio.CancelledError("the message's token was cancelled before it was sent")


def _fail(reply: asyncio.Future[Any], error: BaseException) -> None:
    if not reply.done():
        reply.set_exception(error)


def _raise_first(failures: Sequence[BaseException]) -> None:
    """Raise the first failure, with notes of the others."""
    if not failures:
        return
    first, *others = failures
    if others:
        notes = [f"also failed: {type(error).__name__}: {error}" for error in others]
        first.__notes__ = [*getattr(first, "__notes__", ()), *notes]  # type: ignore[attr-defined]
    raise first


def _is_required(parameter: inspect.Parameter) -> bool:
    return parameter.default is parameter.empty and parameter.kind not in (
        parameter.VAR_POSITIONAL,
        parameter.VAR_KEYWORD,
    )
