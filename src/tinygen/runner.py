"""What can be given a task: agents and teams run it alike.

`run_stream` is the run; `run` waits for it, `run_sync` does so without an event loop, `start` gives a handle on it. A
runner is its own default session: what it remembers from one run it brings to the next, and it takes part in one run
at a time. `session()` gives an independent one.

A run that needs an answer nobody can give yet is *suspended*: it returns what it waits for in `TaskResult.pending`.
Give the answers with `answer`, then make the same call again; it goes on where it stood, also after `save_state` and
`load_state` somewhere else.
"""

from __future__ import annotations

import asyncio
import threading
from contextvars import copy_context

from .cancellation import CancellationToken
from .clock import REAL, source
from .component import Component
from .errors import AlreadyRunning, ConfigError, DecodeError, StateError, Suspended
from .journal import Suspension, expect_text, journal_of
from .limits import COUNTED, RunLimits
from .messages import BaseAgentEvent, BaseChatMessage, TaskResult, as_messages
from .run import Run, current_scope
from .waiting import Output, settled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping, Sequence
    from typing import Any

    from .telemetry import Event

    Task = str | BaseChatMessage | Sequence[BaseChatMessage] | None
    Said = BaseAgentEvent | BaseChatMessage | TaskResult
    Undo = Callable[[], Awaitable[None]]


UNREAD = 1000  # events a handle keeps while nobody has begun to read them


class TaskRunner(Component):
    """Anything that takes a task and runs it to its end. Subclasses define `_perform` and `checkpoint`."""

    name: str
    description: str
    takes_turns = False
    _live: Run | None = None
    _suspension: Suspension | None = None
    _queue: Any = None  # of those who give it a task as a tool, see task_tools.py

    def run_stream(
        self,
        *,
        task: Task = None,
        cancellation_token: CancellationToken | None = None,
        output_task_messages: bool = True,
        limits: RunLimits | None = None,
    ) -> RunStream:
        """Run, and get everything said as it is said; the last item is the `TaskResult`.

        Args:
            task: text, a chat message, several, or None to go on without a new one.
            cancellation_token: ends the run; the stream then raises `asyncio.CancelledError`.
            output_task_messages: whether the task's own messages are among the output.
            limits: what the run may use; reaching one ends it with a stop reason.

        The run begins with the first step and ends when the stream is closed or dropped.
        """
        messages = as_messages(task)
        return RunStream(lambda: self._begin(messages, cancellation_token, output_task_messages, limits, Output()))

    async def run(
        self,
        *,
        task: Task = None,
        cancellation_token: CancellationToken | None = None,
        output_task_messages: bool = True,
        limits: RunLimits | None = None,
    ) -> TaskResult:
        """Run and wait for the result. Arguments as for `run_stream`."""
        run = await self._begin(as_messages(task), cancellation_token, output_task_messages, limits, None)
        return await run.wait()

    def run_sync(
        self, *, task: Task = None, output_task_messages: bool = True, limits: RunLimits | None = None
    ) -> TaskResult:
        """`run` for callers without an event loop.

        Inside a running one (a notebook) it works in a thread, and blocks the loop until it is done. In a tool it
        belongs to the run that the tool is called in: it is charged to that, and ends with it.
        """
        messages, scope = as_messages(task), current_scope()
        within = scope.run if scope is not None else None

        async def main() -> TaskResult:
            run = await self._begin(messages, None, output_task_messages, limits, None, within=within)
            return await run.wait()

        context = copy_context()
        context.run(source.set, REAL)
        if asyncio._get_running_loop() is None:
            return context.run(asyncio.run, main())
        return _in_thread(lambda: context.run(asyncio.run, main()))

    def start(
        self, *, task: Task = None, output_task_messages: bool = True, limits: RunLimits | None = None
    ) -> RunHandle:
        """Run in the background; returns a handle to watch, steer and await it. Needs a running event loop."""
        messages = as_messages(task)
        return RunHandle(self, lambda: self._begin(messages, None, output_task_messages, limits, None, asks=True))

    def answer(self, question: str, value: Any) -> None:
        """Answer a question of a suspended run; `question` is the id in `TaskResult.pending`."""
        if self._suspension is None:
            raise StateError(question, f"{self.name!r} is not suspended, so it waits for no answer")
        self._suspension.answer(question, value)

    async def reset(self) -> None:
        """Forget everything since construction, a suspended run too. Raises `AlreadyRunning` during a run."""
        raise NotImplementedError

    async def save_state(self) -> Mapping[str, Any]:
        """What `load_state` needs to go on elsewhere, as JSON data."""
        raise NotImplementedError

    async def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over a saved state, whole or not at all. Raises `StateError`; `AlreadyRunning` while it is at work."""
        if self._at_work:
            raise AlreadyRunning(self.name)
        before = await self.save_state()
        try:
            await self._load(state)
            self._suspension = self._load_suspension(state)
        except BaseException as error:
            await self._load(before)
            if isinstance(error, DecodeError) and not isinstance(error, StateError):
                raise StateError(error.path, error.problem) from error
            raise

    async def on_pause(self, cancellation_token: CancellationToken) -> None:
        """The team it is in was paused."""
        for part in self._parts():
            await part.on_pause(cancellation_token)

    async def on_resume(self, cancellation_token: CancellationToken) -> None:
        """The team it is in goes on."""
        for part in self._parts():
            await part.on_resume(cancellation_token)

    async def checkpoint(self) -> Undo:
        """Mark this moment; the function returned goes back to it. Used when a turn is suspended."""
        raise NotImplementedError

    async def _perform(self, run: Run, task: list[BaseChatMessage], output_task: bool) -> str | None:
        """Do the work: emit messages to `run`, return the stop reason.

        When `run.begun`, a suspended run goes on: the task was delivered before, `run.messages` holds what was said.
        """
        raise NotImplementedError

    async def _load(self, state: Mapping[str, Any]) -> None:
        """Take over all of a saved state but a suspended run. What it raises has the state before loaded again."""
        raise NotImplementedError

    @property
    def _at_work(self) -> bool:
        return self._occupied() is not None

    def _occupied(self) -> Run | None:
        """The run of it that goes on, or one around it that we are no part of."""
        live = self._live
        return live if live is not None and live.live and (live.owner is self or not _within(live)) else None

    def _check_ready(self) -> None:
        """Raise `ConfigError` if a run cannot begin now; nothing has been touched yet."""

    def _parts(self) -> Sequence[TaskRunner]:
        """What runs as part of this."""
        return ()

    async def _begin(
        self,
        task: list[BaseChatMessage],
        token: CancellationToken | None,
        output_task: bool,
        limits: RunLimits | None,
        output: Output | None,
        *,
        asks: bool = False,
        within: Run | None = None,
    ) -> Run:
        if limits is not None and not isinstance(limits, RunLimits):
            raise ConfigError(f"limits must be RunLimits(...), not {limits!r:.80}")
        if token is not None and not isinstance(token, CancellationToken):
            raise ConfigError(f"cancellation_token must be a CancellationToken, not {token!r:.80}")
        await self._idle()
        self._check_ready()
        if token is not None and token.is_cancelled():
            raise asyncio.CancelledError("the cancellation token was cancelled before the run began")
        suspension = self._suspension if current_scope() is None else None
        if suspension is not None:
            task = _same_task(self.name, task, suspension)
        run = Run(self.name, limits=limits, uid=suspension.uid if suspension is not None else None, within=within)
        run.owner, run.output, run.asks = self, output, asks
        if suspension is not None:
            self._suspension = None
            _restore(run, suspension)

        async def body(run: Run) -> str | None:
            try:
                reason = await self._perform(run, task, output_task)
                run.check()
                return reason
            except Suspended:
                if run.outer is None:
                    self._suspend(run, task)
                raise

        if run.outer is None:
            run.on_boundary = journal_of(run).turn_completed
        claimed = self._claim(run)
        try:
            run.start(body, token).add_done_callback(lambda _: _release(claimed))
        except BaseException:
            _release(claimed)
            raise
        return run

    async def _note_undo(self, run: Run) -> None:
        """Let the runs around this one take back what it does, if they are suspended."""
        outermost = run.outermost
        if outermost.on_boundary is not None:
            outermost.undo.append((run.scope.place, await self.checkpoint()))

    async def _idle(self) -> None:
        """Wait for a run that is ending; raise `AlreadyRunning` for one that goes on, except one we are part of."""
        while (ending := self._ending()) is not None:
            await settled(ending.task)

    def _ending(self) -> Run | None:
        if self._live is not None and (live := self._occupied()) is not None:
            if not live.ending or live.loop is not asyncio.get_running_loop():
                raise AlreadyRunning(self.name)
            return live
        for part in self._parts():
            if (ending := part._ending()) is not None:
                return ending
        return None

    def _claim(self, run: Run) -> list[tuple[TaskRunner, Run | None]]:
        claimed = [(self, self._live)]
        self._live = run
        for part in self._parts():
            claimed.extend(part._claim(run))
        return claimed

    def _suspend(self, run: Run, task: list[BaseChatMessage]) -> None:
        journal = journal_of(run)
        del run.messages[run.mark :]
        run.pending = list(journal.pending)
        self._suspension = Suspension(
            uid=run.uid,
            begun=run.begun,
            task=task,
            messages=list(run.messages),
            entries=journal.entries(),
            pending=run.pending,
            used=run.used,
            charges=run.ledger.charges(settled=True),
            time=run.time,
            inbox=run.inbox,
        )

    def _save_suspension(self, state: dict[str, Any]) -> dict[str, Any]:
        if self._suspension is not None:
            state["suspended"] = self._suspension.dump()
        return state

    @staticmethod
    def _load_suspension(state: Mapping[str, Any]) -> Suspension | None:
        from . import codec

        saved = state.get("suspended")
        if saved is None:
            return None
        suspension: Suspension = codec.decode(Suspension, saved, mode="state", path="$.suspended")
        if suspension.begun and len(suspension.used) != len(COUNTED):
            raise DecodeError("$.suspended.used", f"expected {len(COUNTED)} numbers, found {len(suspension.used)}")
        return suspension


class RunStream:
    """The messages and events of a run as they come, then its `TaskResult`: an async generator in all but name.

    Breaking out of a loop over it and dropping it ends the run.
    """

    def __init__(self, begin: Callable[[], Awaitable[Run]]) -> None:
        self._begin: Callable[[], Awaitable[Run]] | None = begin
        self._run: Run | None = None
        self._done = False

    @property
    def run(self) -> Run:
        """The run, once its first step is made."""
        assert self._run is not None
        return self._run

    def __aiter__(self) -> RunStream:
        return self

    async def __anext__(self) -> Said:
        if self._done:
            raise StopAsyncIteration
        if self._begin is not None:
            begin, self._begin = self._begin, None
            self._run = await begin()
        run = self._run
        if run is None or run.output is None:
            raise StopAsyncIteration
        try:
            if await run.output.ready():
                item: Said = run.output.items.popleft()
                return item
        except asyncio.CancelledError:
            self._done = True
            await run.end()
            raise
        self._done = True
        return await run.wait()

    async def asend(self, value: None) -> Said:
        """`__anext__`; a run takes nothing from its reader."""
        return await self.__anext__()

    async def athrow(self, error: BaseException) -> Said:
        """End the run, then raise `error` here."""
        await self.aclose()
        raise error

    async def aclose(self) -> None:
        """End the run and wait until it has ended."""
        self._begin, self._done = None, True
        run, self._run = self._run, None
        if run is not None and not run.task.done():
            await run.end()

    def __del__(self) -> None:
        run = self._run
        if run is not None and run.live and not run.ending:
            run.ending = True  # at once, so that the next run waits instead of refusing
            run.loop.call_soon_threadsafe(run.cancel)


class RunHandle:
    """A run in the background. Await it for the result; iterate over it for the events of the whole tree."""

    def __init__(self, runner: TaskRunner, begin: Callable[[], Awaitable[Run]]) -> None:
        self._runner = runner
        self._events = Output()
        self._run: Run | None = None
        self._early: list[Callable[[Run], Any]] = []
        self._read = False
        self._task = asyncio.get_running_loop().create_task(self._follow(begin))
        self._task.add_done_callback(self._close)

    def __await__(self) -> Generator[Any, None, TaskResult]:
        return asyncio.shield(self._task).__await__()

    async def __aiter__(self) -> AsyncIterator[Event]:
        self._read = True
        while await self._events.ready():
            yield self._events.items.popleft()

    @property
    def done(self) -> bool:
        """Whether the run has ended."""
        return self._task.done()

    def cancel(self) -> None:
        """End the run; awaiting it raises `CancelledError`."""
        self._tell(lambda run: run.cancel())

    def stop(self, reason: str = "stopped") -> None:
        """End the run; awaiting it returns the result so far, with this stop reason."""
        self._tell(lambda run: run.stop(reason))

    def pause(self) -> None:
        """Let no further turn begin until `resume`."""
        self._tell(lambda run: run.pause())

    def resume(self) -> None:
        """Go on after `pause`."""
        self._tell(lambda run: run.resume())

    def send(self, message: str | BaseChatMessage) -> None:
        """Say something to the team: delivered between turns, as if it had been part of the task.

        What is sent in the last turn is heard in the next run. Raises `ConfigError` for an agent, which has no turns,
        and for a run that has ended.
        """
        if not self._runner.takes_turns:
            raise ConfigError(f"{self._runner.name!r} is an agent, and hears nothing while it answers; give it a task")
        if self.done or (self._run is not None and self._run.over):
            raise ConfigError(f"the run of {self._runner.name!r} has ended, and hears nothing any more")
        messages = as_messages(message)
        self._tell(lambda run: run.inbox.extend(messages))

    def answer(self, question: str, value: Any) -> None:
        """Answer a question: of an agent that asks right now, or one of a suspended run. People answer with text."""
        if self._run is not None and self._run.waits_for(question):
            expect_text(question, value)
            self._run.question(question).set_result(value)
        else:
            self._runner.answer(question, value)

    async def _follow(self, begin: Callable[[], Awaitable[Run]]) -> TaskResult:
        from .telemetry import listen

        with listen(self._keep):
            run = self._run = await begin()
        for tell in self._early:
            tell(run)
        return await run.wait()

    def _keep(self, event: Event) -> None:
        if not self._read and len(self._events.items) >= UNREAD:
            self._events.items.popleft()
        self._events.put(event)

    def _close(self, task: asyncio.Task[TaskResult]) -> None:
        self._events.close()
        if not task.cancelled():
            task.exception()  # whoever awaits the handle gets it

    def _tell(self, what: Callable[[Run], Any]) -> None:
        if self._run is None:
            self._early.append(what)
        elif not self._run.over:
            what(self._run)


def _within(run: Run) -> bool:
    """Whether the current task works inside `run`."""
    scope = current_scope()
    return scope is not None and run in (scope.run, *scope.run.around)


def _release(claimed: list[tuple[TaskRunner, Run | None]]) -> None:
    for runner, before in reversed(claimed):  # one may take part in several places
        runner._live = before


def _restore(run: Run, suspension: Suspension) -> None:
    run.messages.extend(suspension.messages)
    run.inbox = list(suspension.inbox)
    run.restore(suspension.begun, suspension.used, suspension.charges, suspension.time)
    journal = journal_of(run)
    journal.loaded = {entry.key: entry for entry in suspension.entries}
    journal.asked = {question.id for question in suspension.pending}


def _same_task(name: str, task: list[BaseChatMessage], suspension: Suspension) -> list[BaseChatMessage]:
    saved = suspension.task
    if task and [(m.source, m.to_text()) for m in task] != [(m.source, m.to_text()) for m in saved]:
        raise ConfigError(
            f"{name!r} is suspended in another task; answer its questions and run it again with that task or with "
            f"none, or reset() it to give that up"
        )
    return saved


def _in_thread(call: Callable[[], TaskResult]) -> TaskResult:
    """Call it in a daemon thread, and wait."""
    from concurrent.futures import Future

    outcome: Future[TaskResult] = Future()

    def work() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
            outcome.set_exception(error)

    threading.Thread(target=work, name="tinygen-run-sync", daemon=True).start()
    return outcome.result()
