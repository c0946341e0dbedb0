"""A run as a scope: whatever is started on behalf of a task, and its end.

Theory of operation. A run is a task of its own, in a context of its own; whoever asked for it only waits. The context
variable `clock.source` holds the `Scope` a task works in: the run and the *place* in its tree. Places are named before
anything runs side by side, so they, and the ids made in them, come out the same when a run is executed again.

Every task tinygen starts for a run is adopted by it. When the run ends, for whatever reason, its tasks are cancelled
and get `GRACE` seconds; what is still there after that (a tool that swallows cancellation, a blocked thread) is left
behind by name: its result is dropped and its further effects are refused. What agents, policies and conditions do is
in a task of the run's `work`, so one of them that takes no notice of the end is left behind like any tool; and so is
what puts them in order afterwards. Not guaranteed: tasks that user code starts with `asyncio.create_task` are not ours
and are not ended.

A `Ledger` counts what a run uses and charges its parents too. `LimitReached` passes through everything up to the run
whose ledger is full.
"""

from __future__ import annotations

import asyncio
import logging
from contextvars import copy_context

from .cancellation import CancellationToken
from .clock import REAL, Source, monotonic, source
from .errors import AgentFailed, LimitReached, RunStopped, Suspended
from .limits import Ledger
from .messages import ModelClientStreamingChunkEvent, TaskResult
from .telemetry import Event, ambient, tell
from .waiting import settled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from datetime import datetime
    from typing import Any, Literal, TypeVar

    from .limits import RunLimits
    from .messages import BaseAgentEvent, BaseChatMessage, Pending
    from .telemetry import Listener
    from .usage import Charge
    from .waiting import Output

    T = TypeVar("T")

_log = logging.getLogger("tinygen.run")

GRACE = 0.2  # seconds a cancelled task gets before it is left behind


class Scope(Source):
    """Where the current task works: a run and a place in it. Also the source of time and ids there."""

    __slots__ = (
        *("run", "place", "time", "event", "alone", "inside"),
        *("agent", "ledger", "answered", "said", "lasting", "count"),
    )

    def __init__(self, run: Run, place: str, time: datetime, event: str | None = None, alone: bool = False) -> None:
        self.run = run
        self.place = place
        self.time = time
        self.event = event  # id of the event that what happens here is part of
        self.alone = alone  # this task can be left behind without anybody else being held up
        self.inside = ""  # the kind of effect this is part of
        self.agent = run.name  # who works here,
        self.ledger = run.ledger  # and on whose account
        self.answered: tuple[str, Any] | None = None  # name and price of the model that answers, inside of a model call
        self.said: list[Any] = run.messages  # where messages said here are collected
        self.lasting: list[Any] | None = None  # where a tool leaves what was said in it, in the order in which it stays
        self.count = 0

    def now(self) -> datetime:
        """The time of the last effect here; reading the clock would make two executions differ."""
        return self.time

    def new_id(self) -> str:
        self.count += 1
        return f"{self.run.uid}:{self.place}#{self.count}"

    def random(self) -> float:
        return self.run.clock.random()

    def child(self, name: str, *, alone: bool = False) -> Scope:
        """A place below this one, named for the n-th thing begun here."""
        self.count += 1
        made = Scope(self.run, f"{self.place}/{name}@{self.count}", self.time, self.event, alone)
        made.said, made.agent, made.ledger = self.said, self.agent, self.ledger
        return made


def current_scope() -> Scope | None:
    """The scope of the running task, or None outside every run."""
    here = source.get()
    return here if isinstance(here, Scope) else None


class Run:
    """One execution of a task by an agent or a team.

    Args:
        name: who runs.
        limits: what it may use.
        uid: prefix of all ids made in it; None makes a new one.
        within: a run in another event loop, which is charged too, and with which this one ends.
    """

    def __init__(
        self,
        name: str,
        *,
        limits: RunLimits | None = None,
        uid: str | None = None,
        within: Run | None = None,
    ) -> None:
        outer, parent = current_scope(), within.ledger if within is not None else None
        if outer is not None and outer.run.loop is not asyncio._get_running_loop():  # in a thread of a tool
            within, parent, outer = outer.run, outer.ledger, None
        self.name: str = name
        self.outer = outer
        self.around: tuple[Run, ...] = () if outer is None else (outer.run, *outer.run.around)  # the innermost first
        self.owner: object = None  # the agent or team whose run this is
        self.journal: object = None  # journal.py keeps its entries here
        self.tasks: dict[asyncio.Task[Any], str] = {}
        self.abandoned: list[str] = []
        self.pending: list[Pending] = []
        self.messages: list[BaseAgentEvent | BaseChatMessage] = []
        self.inbox: list[BaseChatMessage] = []
        self.heard: list[BaseChatMessage] = []  # of a team inside another one: what the others there get to hear,
        self.judged: list[BaseAgentEvent | BaseChatMessage] = []  # and what the termination there looks at
        self.undo: list[tuple[str, Callable[[], Awaitable[None]]]] = []  # place, what a suspension takes back there
        self.listeners: tuple[Listener, ...] = ambient()
        self.asks = False  # whether somebody is there to answer questions while it runs
        self._questions: dict[str, asyncio.Future[Any]] = {}
        self.output: Output | None = None
        self.ending = False
        self.over = False
        self.begun = False
        self.mark = 0
        self.used: list[float] = []
        self.on_boundary: Callable[[], None] | None = None  # where effects are kept, to be recalled until then
        self.loop: asyncio.AbstractEventLoop
        self.task: asyncio.Task[TaskResult]
        self._within = within
        self._stop_reason: str | None = None
        self._interrupt: BaseException | None = None
        self._gate: asyncio.Future[None] | None = None
        self._token: CancellationToken | None = None
        self._detach: list[Callable[[], Any]] = []
        self._running = False
        self._begun_at = 0.0
        self._open_events: dict[str, tuple[Event, float]] = {}  # what has begun, and when
        if outer is None:
            self.clock: Source = source.get() if within is None else REAL
            self.uid = uid or self.clock.new_id()[:12]
            self.grace = GRACE
            self.ledger: Ledger = Ledger(limits, parent)
            self.scope = Scope(self, name, self.clock.now())
            self._told: set[str] = set()  # ids of what the runs inside have told the listeners
        else:
            self.clock, self.uid = outer.run.clock, outer.run.uid
            self.grace = outer.run.grace * 0.75  # gives up sooner, so that the outer run sees it end
            self.ledger = Ledger(limits, outer.ledger)
            self.scope = outer.child(name)
            self.scope.run, self.scope.said = self, self.messages
            self.scope.agent, self.scope.ledger = name, self.ledger
            self._told = outer.run._told
        self.time = self.scope.time

    def start(
        self, body: Callable[[Run], Awaitable[str | None]], token: CancellationToken | None = None
    ) -> asyncio.Task[TaskResult]:
        """Begin. `body` does the work and returns the stop reason; the task's result is the `TaskResult`."""
        if self.outer is not None and self.outer.run.over:
            raise asyncio.CancelledError(f"the run {self.outer.run.name!r} has ended")
        self._begun_at = monotonic()
        self.loop = asyncio.get_running_loop()  # before anything is done, which an eager task does at once
        self.task = task = self._launch(self._main(body), self.scope)
        task.add_done_callback(self._close)
        if self.outer is not None:
            self.outer.run.adopt(task, f"run of {self.name!r}")
        if token is not None:
            self._detach.append(token.add_callback(self._from_any_thread))
        if self._within is not None:
            self._detach.append(self._within.token.add_callback(self._from_any_thread))
        timeout = self.ledger.limits.timeout
        if timeout is not None:
            left = timeout - self.ledger.seconds
            self._detach.append(self.loop.call_later(left, self.stop, f"limit reached: timeout ({timeout:g} s)").cancel)
        return task

    @property
    def outermost(self) -> Run:
        """The run that all others around it are in; itself if it is in none."""
        return self.around[-1] if self.around else self

    @property
    def token(self) -> CancellationToken:
        """Cancelled when the run is cut short; handed to whoever takes one."""
        if self._token is None:
            self._token = CancellationToken()
            self._token.watched = True
            if self.ending:
                self._token.cancel()
        return self._token

    async def wait(self) -> TaskResult:
        """Wait for the end. Cancelling the waiter ends the run."""
        try:
            await settled(self.task)
        except asyncio.CancelledError:
            await self.end()
            raise
        return self.task.result()

    @property
    def live(self) -> bool:
        """Whether it goes on; not if its event loop was closed over it."""
        return not self.over and not self.loop.is_closed()

    async def end(self) -> None:
        """Cut it short, and wait until it has ended; bounded by its grace time, so not to be interrupted."""
        self.cancel()
        while not self.task.done():
            try:
                await settled(self.task)
            except asyncio.CancelledError:
                continue

    def cancel(self) -> None:
        """End it; its waiter gets `CancelledError`."""
        self.ending = True
        self._cancel_token()
        if self._running:  # else it sees for itself that it need not begin
            self.task.cancel()

    def stop(self, reason: str = "stopped") -> None:
        """End it; its waiter gets the result so far, with this stop reason."""
        if not self.ending:
            self._stop_reason = reason
            self.cancel()

    def pause(self) -> None:
        """Let no further turn begin until `resume`."""
        if self._gate is None:
            self._gate = asyncio.get_running_loop().create_future()

    def resume(self) -> None:
        """Go on after `pause`."""
        if self._gate is not None:
            self._gate.set_result(None)
            self._gate = None

    async def turn(self) -> None:
        """To be awaited between turns: waits while this run, or one it is part of, is paused."""
        self.go_on()
        for run in (self, *self.around):
            while run._gate is not None:
                await asyncio.shield(run._gate)

    def question(self, name: str) -> asyncio.Future[Any]:
        """The answer to a question asked in this run; the same future for who asks and for who answers."""
        future = self._questions.get(name)
        if future is None:
            future = self._questions[name] = self.loop.create_future()
        return future

    def waits_for(self, name: str) -> bool:
        """Whether this question was asked and is not answered yet."""
        return name in self._questions and not self._questions[name].done()

    def adopt(self, task: asyncio.Task[Any], name: str) -> None:
        """Make `task` end with this run."""
        self.tasks[task] = name
        task.add_done_callback(self._forget)
        if self.over:
            task.cancel()

    def spawn(self, coroutine: Coroutine[Any, Any, T], name: str, scope: Scope) -> asyncio.Task[T]:
        """Start a task of this run, working in `scope`."""
        task = self._launch(coroutine, scope)
        self.adopt(task, name)
        return task

    async def apart(self, coroutine: Coroutine[Any, Any, T], name: str, scope: Scope) -> T:
        """Await `coroutine` as a task of its own: whoever waits here can be cancelled though it takes no notice."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        task = self._launch(_waking(coroutine, waiter), scope)
        tasks = self.tasks
        tasks[task] = name

        def end(task: asyncio.Task[T]) -> None:
            tasks.pop(task, None)
            coroutine.close()  # it may have been cancelled before it began
            if not waiter.done():
                waiter.set_result(None)
            elif not task.cancelled():
                task.exception()  # perhaps nobody waits any more

        task.add_done_callback(end)
        try:
            await waiter
        except asyncio.CancelledError:
            task.cancel()
            if scope is self.scope:
                self.ending = True  # whoever cancels its own task ends it
            raise
        tasks.pop(task, None)
        return task.result()

    def leave(self, name: str) -> Callable[..., None]:
        """Name what is left behind, here and in the runs this one is part of; until what is returned is called."""
        self.abandoned.append(name)
        forget = self.outer.run.leave(name) if self.outer is not None else None

        def ended(*_: object) -> None:
            self.abandoned.remove(name)
            if forget is not None:
                forget()

        return ended

    async def work(self, coroutine: Coroutine[Any, Any, T], name: str) -> T:
        """Await what the run is there for, and when it fails or is cut short, the end of all that it has started.

        Whoever awaits this can put things in order afterwards: what takes no notice of the end is left behind.
        """
        try:
            return await self.apart(coroutine, name, self.scope)
        except GeneratorExit:
            raise
        except BaseException:
            await self._settle()
            raise

    async def tidy(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        """Await what puts things in order after the work; when the run was cut short, for its grace time only."""
        if not self.ending:
            await self.apart(coroutine, name, self.scope)
        else:
            task = self.spawn(coroutine, name, self.scope)
            await asyncio.wait((task,), timeout=self.grace)
            if task.done():
                task.result()

    def emit(self, item: BaseAgentEvent | BaseChatMessage) -> None:
        """Say something: to the reader of the stream and, unless it is only a piece of a message, in the result.

        Listeners are told once of what an inner run has said and this one passes on.
        """
        if self.over:
            return
        if not isinstance(item, ModelClientStreamingChunkEvent):
            try:
                self.ledger.admit_message()
            except LimitReached as full:
                self.interrupted(full)
                raise
            scope = current_scope()
            (scope.said if scope is not None and scope.run is self else self.messages).append(item)
        if self.output is not None:
            self.output.put(item)
        if self.listeners:
            if item.id not in self._told:
                self.tell("message", item.type, {"message": item})
            if self.outer is not None:
                self._told.add(item.id)
            else:
                self._told.discard(item.id)

    def tell(self, kind: str, name: str, data: dict[str, Any], phase: Literal["start", "point"] = "point") -> Event:
        """Tell the listeners of an event. Callers look first whether there are listeners."""
        scope = current_scope() or self.scope
        time = self.clock.now()
        made = Event(id=scope.new_id(), parent=scope.event, kind=kind, phase=phase, name=name, time=time, data=data)
        tell(self.listeners, made)
        return made

    def tell_start(self, kind: str, name: str, data: dict[str, Any]) -> str:
        """Tell that something begins which takes time; returns the id of the event, for `tell_end`."""
        made = self.tell(kind, name, data, "start")
        self._open_events[made.id] = made, monotonic()
        return made.id

    def tell_end(self, event: str, data: dict[str, Any]) -> None:
        """Tell that it ends; once, since the run may have ended without it."""
        if event in self._open_events:
            start, began = self._open_events.pop(event)
            end = {"phase": "end", "time": self.clock.now(), "duration": monotonic() - began, "data": data}
            tell(self.listeners, start.model_copy(update=end))

    def check(self) -> None:
        """Raise again what user code may have swallowed: a limit, a suspension, a divergence."""
        if self._interrupt is not None:
            raise self._interrupt

    def go_on(self) -> None:
        """Raise what ends the run, if user code has swallowed it."""
        if self._interrupt is not None:
            raise self._interrupt
        if self.ending:
            raise asyncio.CancelledError

    def interrupted(self, by: BaseException) -> None:
        """Remember, for `check`, what cannot go on: the runs within the one whose limit was reached, otherwise all."""
        ledger = getattr(by, "ledger", None)
        for run in (self, *self.around):
            run._interrupt = run._interrupt or by
            if run.ledger is ledger:
                break

    def enter(self, place: str) -> None:
        """Work at this place of the run from here on; for the task of its work."""
        before = current_scope() or self.scope
        source.set(Scope(self, f"{self.scope.place}/{place}", before.time, self.scope.event))

    def boundary(self) -> None:
        """Everything so far stays, also when what comes next is rolled back."""
        self.begun = True
        self.mark = len(self.messages)
        self.ledger.seconds += monotonic() - self._begun_at
        self._begun_at = monotonic()
        self.used = self.ledger.counts()
        self.ledger.settle()
        self.undo.clear()
        self.time = (current_scope() or self.scope).time
        if self.on_boundary is not None:
            self.on_boundary()

    async def roll_back(self) -> None:
        """Take back what runs inside this one changed since the last boundary; latest first."""
        while self.undo:
            await self.undo.pop()[1]()

    def restore(self, begun: bool, used: list[float], charges: list[Charge], time: datetime) -> None:
        """Stand where a suspended run stood at its last boundary; `messages` are set already."""
        self.begun = begun
        self.mark = len(self.messages)
        self.used = used
        self.ledger.add(used, charges)
        self.ledger.settle()
        if self.ledger.model_calls and not charges and not self.ledger.cost:
            self.ledger.unpriced = True  # saved when only known prices were counted
        self.time = self.scope.time = time

    async def _main(self, body: Callable[[Run], Awaitable[str | None]]) -> TaskResult:
        event = self.scope.event = self.tell_start("run", self.name, {}) if self.listeners else None
        reason: str | None = None
        failure: BaseException | None = None
        self._running = True
        try:
            if self.ending:
                raise asyncio.CancelledError
            reason = await body(self)
        except GeneratorExit:  # dropped while it was paused, and closed in the context of whoever is at work now
            raise
        except LimitReached as full:
            reason, failure = str(full), None if full.ledger is self.ledger else full
        except Suspended as suspended:
            reason, failure = "input required", None if self.outer is None else suspended
        except asyncio.CancelledError as cancelled:
            reason, failure = self._stop_reason, cancelled if self._stop_reason is None else None
        except BaseException as error:  # noqa: BLE001 - raised below, when everything has ended
            failure = error
        self.ending = True
        await self._settle()
        self.over = True
        for each in tuple(self._open_events):
            if each != event:
                self.tell_end(each, {"error.type": "abandoned"})
        if event is not None:
            self.tell_end(event, self._summary(reason, failure))
        if isinstance(failure, AgentFailed):
            failure.result = self.result(None)
        if failure is not None:
            raise failure
        return self.result(reason)

    def result(self, stop_reason: str | None) -> TaskResult:
        """What the run has left so far."""
        return TaskResult(
            messages=list(self.messages),
            stop_reason=stop_reason,
            pending=list(self.pending),
            usage=self.ledger.usage(),
            abandoned=list(self.abandoned),
        )

    def _summary(self, reason: str | None, failure: BaseException | None) -> dict[str, Any]:
        ledger = self.ledger
        told: dict[str, Any] = {
            "stop_reason": reason,
            "gen_ai.usage.input_tokens": ledger.prompt_tokens,
            "gen_ai.usage.output_tokens": ledger.completion_tokens,
        }
        if not ledger.unpriced:
            told["cost"] = ledger.cost
        if failure is not None:
            told["error.type"] = type(failure).__name__
        return told

    async def _settle(self) -> None:
        """Cancel what is left, wait a little, leave the rest behind."""
        if not self.tasks:
            return
        self._cancel_token()
        for task in tuple(self.tasks):
            task.cancel()
        until = monotonic() + self.grace
        while self.tasks and (left := until - monotonic()) > 0:
            try:
                await asyncio.wait(tuple(self.tasks), timeout=left)
            except asyncio.CancelledError:
                continue  # already ending, and not for long
        for task in self.tasks:
            task.cancel()  # some may have begun only now
        for task in sorted(self.tasks, key=self.tasks.__getitem__):
            task.add_done_callback(self.leave(self.tasks[task]))
        self.tasks.clear()

    def _cancel_token(self) -> None:
        """Tell who was given it; a callback that fails does not keep the run from ending."""
        try:
            self.token.cancel()
        except Exception:  # the run ends, and has no caller here who could learn of it
            _log.exception("a callback of the cancellation token of the run %r failed", self.name)

    @staticmethod
    def _launch(coroutine: Coroutine[Any, Any, T], scope: Scope) -> asyncio.Task[T]:
        """Start a task in a context of its own, working in `scope`."""
        context = copy_context()
        context.run(source.set, scope)
        return context.run(asyncio.get_running_loop().create_task, coroutine)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self.tasks.pop(task, None)
        if not task.cancelled():
            task.exception()  # whoever waited has it; a task left behind has nobody to tell

    def _close(self, task: asyncio.Task[TaskResult]) -> None:
        self.ending = self.over = True
        for detach in self._detach:
            detach()
        if self.output is not None:
            self.output.close()
        if not task.cancelled():
            task.exception()

    def _from_any_thread(self) -> None:
        self.ending = True
        if asyncio._get_running_loop() is self.loop:
            self.cancel()
        elif not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.cancel)


async def as_coroutine(work: Callable[[], Awaitable[T]]) -> T:
    """What tasks are made of, of what anybody may await."""
    return await work()


async def _waking(coroutine: Coroutine[Any, Any, T], waiter: asyncio.Future[None]) -> T:
    """Wakes whoever waits with the end of the work, a turn of the loop sooner than the end of its task would."""
    try:
        return await coroutine
    finally:
        if not waiter.done():
            waiter.set_result(None)


async def run_scope(
    name: str,
    work: Callable[[], Awaitable[T]],
    *,
    limits: RunLimits | None = None,
    cancellation_token: CancellationToken | None = None,
) -> T:
    """Do `work` as a run, and return what it returns: limits, effects and listeners for code that has no team.

        reply = await run_scope("job", lambda: runtime.send_message(task, worker), limits=RunLimits(model_calls=10))

    All messages sent in it, and what their handlers do, belong to the run: they are limited, and end with it. Raises
    `RunStopped` if a limit is reached first.
    """
    done: list[T] = []

    async def body(run: Run) -> None:
        done.append(await run.work(as_coroutine(work), name))

    run = Run(name, limits=limits)
    run.start(body, cancellation_token)
    result = await run.wait()
    if not done:
        raise RunStopped(name, result.stop_reason or "it was stopped")
    return done[0]
