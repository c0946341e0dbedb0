"""The runtime in one process: moves messages between agents, and makes agents when they are first needed.

Theory of operation. While the runtime is started, sending a message starts the task in which it is handled, at once and
in the sender's context, so the task belongs to the run found there; a message sent outside of any run belongs to the
runtime. Handlers run side by side, those of one agent too unless it is sequential, but begin in the order in which a
sender sent. A message waits as an envelope, which holds a copy of its sender's context, in one of three places: in the
queue until the runtime is started, with an agent that is being made (`population`), in the mailbox of a busy one
(`mailboxes`).
A handler's answer is given in its task; everything else it may end with is passed on in one place, `_ended`.

Idle is what can be seen: nothing queued, nothing handled, nothing being made. There is no counter that could drift.

Interventions run at the sender, before anything else, and for answers in the handler's task. Timers, listeners and the
watch over slow handlers cost nothing while nobody asks for them.

Not guaranteed: the order of messages from different senders; that a handler lets itself be cancelled; that a handler
which never gives the event loop back is reported before it does; that one which ends an event with a CancelledError of
its own is reported on Python 3.10, which does not tell whether a task was cancelled from outside.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextvars import copy_context

from .actors import DropMessage, MessageContext
from .addresses import AgentId, TopicId, current_agent
from .clock import monotonic, source
from .errors import ConfigError, MessageDroppedException, MessageTimeout, UndeliverableException
from .failures import Failures, raise_first
from .mailboxes import Envelope, enter
from .population import Population
from .run import GRACE, Scope
from .telemetry import ambient
from .timers import Timer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from .actors import Agent, InterventionHandler
    from .cancellation import CancellationToken
    from .monitoring import DeadLetter, MessageTrace, RuntimeStatistics, Watch
    from .population import StateStore
    from .telemetry import Listener

_log = logging.getLogger("tinygen.runtime")


class SingleThreadedAgentRuntime(Population):
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
            message did not get so far. It is logged anyway ("tinygen.runtime"), and kept in `dead_letters`.
        state_store: keeps the states of agents that are released, and gives them back when they are made again.
        idle_after: seconds after which an agent that a factory made and that has nothing to do is released.
        slow_after: seconds; a handler that kept the event loop for longer is named in the log, when it gives it back.
    """

    def __init__(
        self,
        *,
        intervention_handlers: Sequence[InterventionHandler] | None = None,
        ignore_unhandled_exceptions: bool = True,
        on_failure: Callable[[BaseException, Any, AgentId | None], None] | None = None,
        state_store: StateStore | None = None,
        idle_after: float | None = None,
        slow_after: float | None = None,
    ) -> None:
        super().__init__(state_store, idle_after)
        self._failures = Failures(ignore_unhandled_exceptions, on_failure)
        self.dead_letters: deque[DeadLetter] = self._failures.letters
        self._interventions = list(intervention_handlers or ())
        self._slow_after = slow_after
        self._queue: deque[Envelope] = deque()
        # what is handled, by whom, since when
        self._live: dict[asyncio.Task[Any], tuple[Envelope, AgentId, float]] = {}
        self._timers: dict[Timer, None] = {}  # those that are set
        self._ringing: dict[asyncio.Task[None], Envelope] = {}
        self._waiters: list[asyncio.Future[None]] = []  # of who waits for it to be idle, or to have a message
        self._loop: asyncio.AbstractEventLoop | None = None  # while started
        self._over = ""  # why it is not started any more: "stopped" or "closed"
        self._listeners: tuple[Listener, ...] = ()  # who listened when it was started
        self._traces: list[MessageTrace] = []
        self._watch: Watch | None  # while somebody wants to know
        self._set_watch()

    # --- sending

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
        envelope = Envelope(message, ctx, cancellation_token, recipient, reply)
        timer = None if timeout is None else loop.call_later(timeout, _time_out, reply, envelope, timeout)
        self._post(envelope, loop)
        try:
            return await reply
        except BaseException as raised:  # raised again; what nobody waits for any more is not left running, or waiting
            if envelope.task is not None:
                envelope.task.cancel()
            elif envelope.reply is None:
                self._unheard(reply, raised, envelope)
            elif (box := self._boxes.get(recipient)) is not None:
                box.drop(envelope)
            raise
        finally:
            if timer is not None:
                timer.cancel()
            del envelope, reply, timer  # an exception refers to this frame, and they refer to the exception

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
        await self._send_event(Envelope(message, ctx, cancellation_token))

    async def _send_event(self, envelope: Envelope) -> None:
        if self._interventions:
            ctx, to = envelope.ctx, envelope.recipient
            method, about = ("on_publish", {}) if to is None else ("on_send", {"recipient": to})
            try:
                envelope.message = await self._intervene(method, envelope.message, message_context=ctx, **about)
            except MessageDroppedException:
                return
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._refuse(waits=False)
        self._post(envelope, loop)

    def send_later(
        self,
        message: Any,
        recipient: AgentId | TopicId,
        *,
        delay: float | None = None,
        every: float | None = None,
        sender: AgentId | None = None,
    ) -> Timer:
        if not isinstance(recipient, (AgentId, TopicId)):
            raise ConfigError(f"a message is sent to an AgentId or a TopicId, not to {recipient!r}")
        loop = self._started()
        timer = Timer(message, recipient, sender, every, self._timers)
        timer._set(delay, self._ring, loop)
        return timer

    def _ring(self, timer: Timer) -> None:
        envelope = _event_of(timer)
        task = self._start_for_owner(self._send_event(envelope))
        self._ringing[task] = envelope
        task.add_done_callback(self._rung)

    def _rung(self, task: asyncio.Task[None]) -> None:
        envelope = self._ringing.pop(task)
        if task.cancelled():
            self._failures.bury(UndeliverableException(f"{envelope} was not sent: the runtime was closed"), envelope)
        elif (error := task.exception()) is not None:
            self._failures.add(error, envelope, None)
        self._tell_idle()

    async def _intervene(self, method: str, message: Any, **about: Any) -> Any:
        """What the interventions make of a message. Raises `MessageDroppedException` if one drops it."""
        for handler in self._interventions:
            result = await getattr(handler, method)(message, **about)
            if result is DropMessage or isinstance(result, DropMessage):
                name = f"{type(handler).__name__}.{method}"
                if self._watch is not None:
                    self._watch.tell("drop", type(message).__name__, {"message": message, "by": name, **about})
                raise MessageDroppedException(f"{name} dropped a message of type {type(message).__name__}")
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

    def _post(self, envelope: Envelope, loop: asyncio.AbstractEventLoop) -> None:
        if self._watch is not None:
            self._watch.sent(envelope)
        if loop is self._loop and not self._queue:
            self._deliver(envelope, loop)
            return
        self._queue.append(envelope.waits())
        if loop is self._loop:
            loop.call_soon(self._drain, loop)
        else:
            self._wake()

    # --- delivering

    def _drain(self, loop: asyncio.AbstractEventLoop) -> None:
        """Deliver one message of the queue; each has its turn after others' work."""
        if self._queue and loop is self._loop:  # else it was stopped
            self._take(self._queue.popleft(), loop)
            self._tell_idle()

    def _take(self, envelope: Envelope, loop: asyncio.AbstractEventLoop) -> None:
        """Deliver a message that has waited, in its sender's context."""
        if envelope.is_cancelled():
            return
        if envelope.reply is not None and envelope.reply.get_loop() is not loop:
            stray = UndeliverableException(f"{envelope} was sent in another event loop than the runtime's")
            self._not_handled(envelope, envelope.recipient, stray)
        else:
            envelope.go_on(self._deliver, loop)

    def _deliver(self, envelope: Envelope, loop: asyncio.AbstractEventLoop) -> None:
        if envelope.recipient is not None:
            self._hand_over(envelope, envelope.recipient, loop)
            return
        ctx = envelope.ctx
        recipients, failures = self._routes.recipients(ctx.topic_id)  # type: ignore[arg-type]  # an event has a topic
        for failure in failures:
            self._failures.add(failure, envelope, None)
        for recipient in recipients:
            if ctx.sender is None or recipient != ctx.sender:
                self._hand_over(envelope, recipient, loop)
        if not recipients and not failures:
            _log.info("nobody gets %s: there is no subscription to it", envelope)
            nobody = UndeliverableException(f"nobody subscribes to the topic '{ctx.topic_id}'")
            self._failures.bury(nobody, envelope)

    def _hand_over(self, envelope: Envelope, recipient: AgentId, loop: asyncio.AbstractEventLoop) -> None:
        """Let an agent handle a message, now or when it is there and has time."""
        agent = self._agents.get(recipient)
        try:
            if agent is None:
                (self._changing.get(recipient) or self._make(recipient)).held.append(envelope.waits())
                return
            if self._boxes:
                box = self._boxes.get(recipient)
                if box is not None and not box.admit(envelope):
                    return
        except Exception as error:  # no such agent, or one that takes no more; whoever sent it learns of it
            self._not_handled(envelope, recipient, error)
            return
        self._begin(envelope, agent, recipient, loop)

    def _begin(self, envelope: Envelope, agent: Agent, recipient: AgentId, loop: asyncio.AbstractEventLoop) -> None:
        """Start the task in which an agent handles a message. Called in the sender's context."""
        try:
            task = loop.create_task(self._handle(agent, envelope, recipient, loop))
        except Exception as error:  # a task factory of the user's; whoever sent it learns of it
            self._not_handled(envelope, recipient, error)
            self._begin_next(recipient, envelope, loop)
            return
        self._live[task] = envelope, recipient, monotonic()
        task.add_done_callback(self._ended)
        here = source.get()
        if isinstance(here, Scope):
            here.run.adopt(task, f"agent {recipient}")
        if self._boxes and (box := self._boxes.get(recipient)) is not None:
            box.begun.add(task)
        if envelope.reply is not None:
            envelope.task = task
        elif envelope.token is not None:
            envelope.token.link_future(task)

    def _begin_next(self, agent_id: AgentId, ended: Envelope, loop: asyncio.AbstractEventLoop) -> None:
        box = self._boxes.get(agent_id)
        following = box.end(ended) if box is not None else None
        if following is not None:
            following.go_on(self._begin, self._agents[agent_id], agent_id, loop)

    async def _handle(
        self, agent: Agent, envelope: Envelope, recipient: AgentId, loop: asyncio.AbstractEventLoop
    ) -> None:
        if loop.get_task_factory() is not None:
            await asyncio.sleep(0)  # it may start tasks at once, inside one another and before they are noted
        current_agent.set(recipient)
        if self._boxes:
            enter(self._boxes.get(recipient), envelope)
        if self._watch is not None:
            answer = await self._watch.handle(agent, envelope, recipient)
        else:
            answer = await agent.on_message(envelope.message, envelope.ctx)
        if envelope.reply is not None:
            if self._interventions:
                answer = await self._intervene("on_response", answer, sender=recipient, recipient=envelope.ctx.sender)
            if not envelope.reply.done():
                envelope.reply.set_result(answer)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Pass on what a handler ended with, if not with an answer; go on with what waited for that."""
        envelope, agent_id, _ = self._live.pop(task)
        envelope.task = None
        if task.cancelled():
            if envelope.reply is not None:
                envelope.reply.cancel()
            elif not _was_cancelled(task, envelope):
                problem = f"{envelope} was not handled to its end: CancelledError was raised though nobody cancelled it"
                self._failures.add(UndeliverableException(problem), envelope, agent_id)
        elif (error := task.exception()) is not None:
            self._not_handled(envelope, agent_id, error)
        if self._boxes and (box := self._boxes.get(agent_id)) is not None:
            box.begun.discard(task)
            self._begin_next(agent_id, envelope, task.get_loop())
        if self._watching or self._leaving:
            self._rests(agent_id)
        if self._waiters:
            self._tell_idle()

    def _settle(self, agent_id: AgentId, held: list[Envelope], error: BaseException | None) -> None:
        loop = asyncio.get_running_loop()
        if error is not None and self._watch is not None:
            self._watch.tell("make", str(agent_id), {"agent": agent_id, "error": error})
        for envelope in held:
            if error is not None:
                self._not_handled(envelope, agent_id, error)
            elif not envelope.is_cancelled():
                envelope.go_on(self._hand_over, agent_id, loop)
        self._tell_idle()

    # --- failures

    def _not_handled(self, envelope: Envelope, agent_id: AgentId | None, error: BaseException) -> None:
        # an exception refers to the frames it went through, thus to the envelope, which must not refer to it
        reply, envelope.reply = envelope.reply, None
        if reply is None:
            self._failures.add(error, envelope, agent_id)
        elif reply.done():
            self._failures.report(error, envelope, agent_id)
        elif reply.get_loop() is asyncio.get_running_loop():
            reply.set_exception(error)
        elif not reply.get_loop().is_closed():
            reply.get_loop().call_soon_threadsafe(_fail, reply, error)

    def _unheard(self, reply: asyncio.Future[Any], raised: BaseException, envelope: Envelope) -> None:
        """Report what a handler failed with, if something else was `raised` at the sender in the meantime."""
        error = reply.exception() if reply.done() and not reply.cancelled() else None
        if error is not None and error is not raised:
            self._failures.report(error, envelope, envelope.recipient)

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
        self._drop_closed()
        self._loop, self._over = loop, ""
        self._context = copy_context()
        self._watch_idle(True)
        self._wake()
        self._listeners = () if isinstance(source.get(), Scope) else ambient()
        self._set_watch()
        for _ in self._queue:
            loop.call_soon(self._drain, loop)

    def _drop_closed(self) -> None:
        """What was left in an event loop that is closed cannot go on."""
        self._changing = {key: each for key, each in self._changing.items() if not each.task.get_loop().is_closed()}
        self._ringing = {task: each for task, each in self._ringing.items() if not task.get_loop().is_closed()}
        for task, (_, agent_id, _) in list(self._live.items()):
            if task.get_loop().is_closed():
                del self._live[task]
                if agent_id in self._agents:
                    self._put(agent_id, self._agents[agent_id])  # with an empty mailbox

    async def stop(self) -> None:
        """Stop delivering; `start` goes on.

        Handlers that have begun may finish and answer. Who waits for an answer to what still waits gets an
        `UndeliverableException`; timers end. Raises RuntimeError if the runtime is not started.
        """
        self._started()
        self._halt("stopped")

    async def stop_when_idle(self) -> None:
        """Stop when nothing is queued and nothing runs. Timers that are set are not waited for.

        With `ignore_unhandled_exceptions=False` it raises what published messages led to: the first failure, with
        notes of the others.
        """
        self._started()
        if asyncio.current_task() in self._live:
            raise RuntimeError("stop_when_idle() in a message handler would wait for itself; use stop()")
        while not self._is_idle():
            await self._change_of_affairs()
        if self._loop is not None:
            self._halt("stopped")
        self._failures.raise_kept()

    async def stop_when(self, condition: Callable[[], bool]) -> None:
        """Stop when `condition` is true, or somebody else stops it; it is asked many times a second."""
        self._started()
        while self._loop is not None and not condition():
            await asyncio.sleep(0.02)
        if self._loop is not None:
            self._halt("stopped")

    async def process_next(self) -> None:
        """Let the next message of a runtime that is not started be handled; wait until there is one.

        Does not wait for its handlers. With `ignore_unhandled_exceptions=False` it raises what published messages have
        led to, as `stop_when_idle` does.
        """
        problem = "a runtime that is started delivers by itself; process_next() is for one that is not"
        if self.is_running:
            raise RuntimeError(problem)
        self._failures.raise_kept()
        self._over = ""
        while not self.unprocessed_messages_count:
            await self._change_of_affairs()
            if self.is_running:
                raise RuntimeError(problem)
        if self._queue:
            self._take(self._queue.popleft(), asyncio.get_running_loop())
        await asyncio.sleep(0)
        self._failures.raise_kept()

    @property
    def unprocessed_messages_count(self) -> int:
        """How many messages have not begun to be handled."""
        waiting = [len(box.waiting) for box in self._boxes.values()]
        return len(self._queue) + sum(waiting) + sum(len(change.held) for change in self._changing.values())

    async def close(self) -> None:
        """Stop, end what runs, and close every agent. Raises the first failure of an agent, after all are closed."""
        self._halt("closed")
        await self._end_all()
        failures: list[BaseException] = []
        for agent in list(self._agents.values()):
            try:
                await agent.close()
            except Exception as error:  # the others are closed too; raised below
                failures.append(error)
        raise_first(failures)

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            raise RuntimeError("the runtime is not started")
        if self._loop is not asyncio.get_running_loop():
            raise RuntimeError("the runtime was started in another event loop")
        return self._loop

    def _halt(self, why: str) -> None:
        self._loop, self._over = None, why
        self._watch_idle(False)
        for timer in list(self._timers):
            timer.cancel()
            if timer.every is None:
                unsent = UndeliverableException(f"its time had not come when the runtime was {why}")
                self._failures.bury(unsent, _event_of(timer))
        waiting = [(envelope, envelope.recipient) for envelope in self._queue]
        self._queue.clear()
        for agent_id, change in self._changing.items():
            waiting += [(envelope, agent_id) for envelope in change.held]
            change.held = []
        for agent_id, box in self._boxes.items():
            waiting += [(envelope, agent_id) for envelope in box.clear()]
        for envelope, recipient in waiting:
            error = UndeliverableException(f"{envelope} was not delivered: the runtime was {why}")
            if envelope.is_cancelled():
                continue
            if envelope.reply is not None:
                self._not_handled(envelope, recipient, error)
            else:
                self._failures.report(error, envelope, recipient)
        self._tell_idle()

    async def _end_all(self) -> None:
        tasks: dict[asyncio.Task[Any], object] = {task: each[1] for task, each in self._live.items()}
        tasks.pop(asyncio.current_task(), None)  # type: ignore[arg-type]  # the handler that closes its runtime
        for envelope in [self._live[task][0] for task in tasks]:
            if envelope.reply is not None:
                _fail(envelope.reply, UndeliverableException(f"{envelope} was not answered: the runtime was closed"))
        tasks.update((task, envelope.recipient) for task, envelope in self._ringing.items())
        tasks.update((each.task, each.agent_id) for each in self._changing.values() if not each.leaving)
        await _end(tasks)
        leaving = {each.task: each.agent_id for each in self._changing.values() if each.leaving}
        if leaving:  # also those that were to go when they had ended what they did
            await asyncio.wait(leaving, timeout=GRACE)
            await _end({task: agent_id for task, agent_id in leaving.items() if not task.done()})

    def _is_idle(self) -> bool:
        return not (self._live or self._changing or self._ringing or (self._loop is not None and self._queue))

    def _busy(self) -> set[AgentId]:
        waiting = {agent_id for agent_id, box in self._boxes.items() if box.waiting}
        return waiting.union(agent_id for task, (_, agent_id, _) in self._live.items() if not task.done())

    def _tell_idle(self) -> None:
        if self._waiters and self._is_idle():
            self._wake()

    async def _change_of_affairs(self) -> None:
        """Wait until it may be idle, have a message, or have been started."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def _wake(self) -> None:
        waiting, self._waiters = self._waiters, []
        for waiter in waiting:
            if not waiter.done() and not waiter.get_loop().is_closed():
                waiter.set_result(None)

    # --- looking on

    def statistics(self) -> RuntimeStatistics:
        """What is registered, alive, waiting and handled now; print it to see where things hang."""
        from .monitoring import Running, RuntimeStatistics

        at = monotonic()
        return RuntimeStatistics(
            state="started" if self.is_running else self._over or "not started",
            agent_types=sorted(self._kinds),
            agents=len(self._agents),
            making=list(self._changing),
            queued=self.unprocessed_messages_count,
            running=[
                Running(agent_id, type(envelope.message).__name__, envelope.ctx.sender, at - began)
                for envelope, agent_id, began in self._live.values()
            ],
            timers=len(self._timers),
            dead_letters=len(self.dead_letters),
        )

    def trace(self, limit: int = 10_000) -> MessageTrace:
        """Record from now on which way messages go; print what is returned. Keeps the last `limit` events."""
        from .monitoring import MessageTrace

        made = MessageTrace(limit, self._end_trace)
        self._traces.append(made)
        self._set_watch()
        return made

    def _end_trace(self, trace: MessageTrace) -> None:
        self._traces = [each for each in self._traces if each is not trace]
        self._set_watch()

    def _set_watch(self) -> None:
        self._watch = None
        if self._listeners or self._traces or self._slow_after is not None:
            from .monitoring import Watch

            self._watch = Watch((*self._listeners, *self._traces), self._slow_after)


def _not_cancelled(token: CancellationToken | None) -> None:
    if token is not None and token.is_cancelled():
        raise asyncio.CancelledError("the message's token was cancelled before it was sent")


def _was_cancelled(task: asyncio.Task[Any], event: Envelope) -> bool:
    """Whether somebody has cancelled the handler of an event. Called in its sender's context."""
    here = source.get()
    if event.is_cancelled() or (isinstance(here, Scope) and any(each.ending for each in (here.run, *here.run.around))):
        return True
    asked = getattr(task, "cancelling", None)
    return asked is None or asked() > 0


def _event_of(timer: Timer) -> Envelope:
    """The message of a timer. Nobody waits for an answer, so it is an event, even for a single agent."""
    to = timer.recipient
    agent_id, topic = (to, None) if isinstance(to, AgentId) else (None, to)
    return Envelope(timer.message, MessageContext(timer.sender, topic), None, agent_id)


def _fail(reply: asyncio.Future[Any], error: BaseException) -> None:
    if not reply.done():
        reply.set_exception(error)


def _time_out(reply: asyncio.Future[Any], envelope: Envelope, seconds: float) -> None:
    _fail(reply, MessageTimeout(f"there was no answer to {envelope} in {seconds:g} s"))


async def _end(tasks: Mapping[asyncio.Task[Any], object]) -> None:
    """Cancel them, and wait a little until they have ended."""
    loop = asyncio.get_running_loop()
    ending = [task for task in tasks if task.get_loop() is loop]
    for task in ending:
        task.cancel()
    if ending:
        _, deaf = await asyncio.wait(ending, timeout=GRACE)
        for task in deaf:
            _log.warning("agent %s is left behind: it does not end although it was cancelled", tasks[task])
