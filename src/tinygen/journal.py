"""The one seam through which a run touches the world, and the memory of what came through it.

Theory of operation. Whatever is not a pure function of its inputs (a model call, a tool call, executed code, a
person's answer, a decision taken by the clock) goes through `effect`. Outside a run that is a plain call. Inside one,
limits are checked, the call becomes a task that can be left behind, listeners are told, and its outcome is kept as an
entry of the open turn. A turn that is executed again, after the run was suspended, finds its entries and does not
call twice.

The key of an entry is `place|kind|digest of the request|n`: inside one place, order does not count, and equal requests
are told apart by the n-th of them. Digests are only computed when somebody needs a key, so a run that never suspends
pays for none.

Not guaranteed: when the process dies between a call and the record of its outcome, whether it happened is unknown.
"""

from __future__ import annotations

import asyncio
from dataclasses import field
from datetime import datetime
from functools import partial

from .branches import put_in_order
from .clock import REAL, monotonic, new_id, now, source
from .errors import ConfigError, LimitReached, RunDiverged, StateError, Suspended
from .limits import Ledger, Spent
from .messages import BaseAgentEvent, BaseChatMessage, Pending
from .records import SPARSE, Record
from .run import current_scope
from .telemetry import Event, ambient, tell
from .usage import Charge, RequestUsage, cost_of
from .waiting import AHEAD, Output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
    from typing import Any, Literal, TypeVar

    from .run import Run, Scope
    from .telemetry import Listener

    T = TypeVar("T")


class Entry(Record):
    """The outcome of one effect.

    `items` is what it yielded on the way, if it was a stream; `spent` what was used inside of it.
    """

    key: str
    value: Any
    time: datetime
    items: list[Any] | None = None
    spent: Spent | None = field(default=None, metadata=SPARSE)


class Journal:
    """The entries of the open turn of a run, and the questions it waits on."""

    def __init__(self) -> None:
        self.open: list[_Step] = []
        self.loaded: dict[str, Entry] = {}
        self.pending: list[Pending] = []
        self.asked: set[str] = set()  # keys of the questions it was suspended for
        self._recalled: dict[str, Entry] = {}
        self._counts: dict[str, int] = {}

    def recall(self, step: _Step) -> Entry | None:
        """The entry of an effect, if there is one. Raises `RunDiverged` if there is another in its stead."""
        key = self._key(step)
        entry = self.loaded.pop(key, None)
        if entry is not None:
            self._recalled[key] = entry
        elif key not in self.asked:
            stem = f"{step.scope.place}|{step.kind}|"
            if any(known.startswith(stem) for known in self.loaded):
                raise RunDiverged(step.scope.place, step.kind)
        return entry

    def suspend(self, step: _Step) -> None:
        """Note the question that an effect waits on."""
        for made in self.open:
            self._key(made)
        key = self._key(step)
        if not any(question.id == key for question in self.pending):
            self.pending.append(Pending(id=key, kind=step.kind, source=step.name, content=step.request))

    def turn_completed(self) -> None:
        """Forget the entries; what they led to is part of the state now."""
        if self.open or self.loaded or self._recalled:
            self.open = []
            self.loaded = {}
            self.asked = set()
            self._recalled = {}
            self._counts = {}

    def entries(self) -> list[Entry]:
        """All entries of the open turn, to be saved."""
        from . import codec

        fresh = [
            Entry(
                key=self._key(made),
                value=codec.encode(made.value),
                time=made.time,
                items=None if made.items is None else codec.encode(made.items),
                spent=made.spent,
            )
            for made in self.open
        ]
        return [*self._recalled.values(), *self.loaded.values(), *fresh]

    def _key(self, step: _Step) -> str:
        """The key of an effect: made when it is needed, so after those of all effects before it."""
        if step.key is None:
            from . import codec

            base = f"{step.scope.place}|{step.kind}|{codec.digest(step.request)}"
            n = self._counts[base] = self._counts.get(base, 0) + 1
            step.key = f"{base}|{n}"
        return step.key


async def effect(
    kind: str,
    request: Any,
    call: Callable[[], Awaitable[T]],
    result_type: Any = None,
    *,
    name: str = "",
    price: Any = None,
) -> T:
    """Do something that is not a function of its inputs alone; inside a run, do it only once.

    Args:
        kind: "model", "tool", "code", "input", "clock", or a word of your own.
        request: what is asked; anything the codec can encode. Equal requests at one place are equal effects.
        call: does it.
        result_type: type of the outcome, to read it back; None for plain JSON data.
        name: what is called, for people.
        price: of a model, as `usage.cost_of` takes it.

    Raises whatever `call` raises, `LimitReached`, and `Suspended` when nobody can answer yet. In another event loop
    than that of the run, as a tool in a thread may have one, only `call` is done.
    """
    scope = current_scope()
    if scope is None or scope.inside == kind:
        if scope is not None or not ambient():
            return await call()
        with _Told(ambient(), kind, name, request) as told:
            told.value = await call()
        return told.value  # type: ignore[no-any-return]
    loop = scope.run.loop
    if loop is not asyncio._get_running_loop():
        return await _from_elsewhere(loop, partial(_Step, scope, kind, request, name, price), call, result_type)
    step = _Step(scope, kind, request, name, price)
    known = step.recall(result_type)
    if known is not None:
        return known[0]  # type: ignore[no-any-return]
    inside = step.begin()
    try:
        if scope.alone:
            token = source.set(inside)
            try:
                value = await call()
            finally:
                source.reset(token)
        else:
            value = await scope.run.apart(step.call(call), inside.place, inside)
    except BaseException as failure:
        step.fail(failure)
        raise
    step.done(value, None)
    return value


async def _from_elsewhere(
    loop: asyncio.AbstractEventLoop, make: Callable[[], _Step], call: Callable[[], Awaitable[T]], result_type: Any
) -> T:
    """An effect in another event loop than that of its run, `loop`, in which all is done but the call."""

    def begin() -> tuple[_Step, Any]:
        step = make()
        return step, step.recall(result_type)

    step, known = await _done_in(loop, begin)
    if known is not None:
        return known[0]  # type: ignore[no-any-return]
    token = source.set(await _done_in(loop, step.begin))
    try:
        value = await call()
    except BaseException as failure:
        await _done_in(loop, partial(step.fail, failure))
        raise
    finally:
        source.reset(token)
    await _done_in(loop, partial(step.done, value, None))
    return value


async def _done_in(loop: asyncio.AbstractEventLoop, what: Callable[[], T]) -> T:
    async def do() -> T:
        return what()

    if loop.is_closed():
        raise asyncio.CancelledError("the event loop of the run has ended")
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(do(), loop))


async def effect_stream(
    kind: str,
    request: Any,
    stream: Callable[[], AsyncIterator[Any]],
    result_type: Any = None,
    *,
    name: str = "",
    price: Any = None,
    kept: list[Any] | None = None,
    broken: Callable[[Any, list[Any]], Any] | None = None,
) -> AsyncGenerator[Any, None]:
    """`effect` for what comes in pieces: yields the items of `stream`; its last item is the outcome.

    In the end `kept` has all items but the last; what was said side by side in there, in declared order. `broken` makes
    an outcome of the request and the items of a stream that broke after some had come, so that its usage is charged.
    """
    scope = current_scope()
    if scope is None or scope.inside == kind or scope.run.loop is not asyncio._get_running_loop():
        with _Told(ambient() if scope is None else (), kind, name, request, stream=True) as told:
            async for item in stream():
                told.value = item
                if kept is not None:
                    kept.append(item)
                yield item
        if kept is not None:
            del kept[-1:]
        return
    step = _Step(scope, kind, request, name, price)
    known = step.recall(result_type)
    if known is not None:
        if kept is not None:
            kept.extend(known[1])
        for item in known[1]:
            yield item
        yield known[0]
        return
    inside, output = step.begin(stream=True), Output()
    lasting: list[Any] = []
    inside.lasting = lasting
    task = scope.run.spawn(_pump(stream, output, step), inside.place, inside)
    items: list[Any] = []
    try:
        while await output.ready():
            items.append(output.items.popleft())
            yield items[-1]
        value = task.result() if task.done() else await task
    except BaseException as failure:
        task.cancel()
        items.extend(output.items)
        step.fail(failure, broken(request, items) if items and broken is not None else None)
        raise
    del items[-1:]
    put_in_order(items, 0, lasting)
    if kept is not None:
        kept.extend(items)
    step.done(value, items)


def remark(kind: str, name: str, data: dict[str, Any]) -> None:
    """Tell the listeners, as a `point`, of what happens inside an effect."""
    scope = current_scope()
    if scope is None:
        made = Event(id=new_id(), parent=None, kind=kind, phase="point", name=name, time=now(), data=data)
        tell(ambient(), made)
    elif scope.run.listeners and scope.run.loop is asyncio._get_running_loop():
        scope.run.tell(kind, name, data)


class _Told:
    """An effect outside of runs, as the listeners of its place hear of it; `value` is its outcome."""

    def __init__(
        self, listeners: Sequence[Listener], kind: str, name: str, request: Any, *, stream: bool = False
    ) -> None:
        self.value: Any = None
        self._listeners = listeners
        self._about: dict[str, Any] = {"parent": None, "kind": kind, "name": name}
        if listeners:
            self._about["id"] = new_id()
        self._began = monotonic()
        self._tell("start", {"request": request, "stream": stream})

    def __enter__(self) -> _Told:
        return self

    def __exit__(self, _: Any, failure: BaseException | None, __: Any) -> None:
        data = {"result": self.value} if failure is None else what_failed(failure)
        self._tell("end", data, monotonic() - self._began)

    def _tell(self, phase: Literal["start", "end"], data: dict[str, Any], duration: float | None = None) -> None:
        if self._listeners:
            tell(self._listeners, Event(**self._about, phase=phase, time=now(), duration=duration, data=data))


def what_failed(failure: BaseException) -> dict[str, Any]:
    return {"error.type": type(failure).__name__, "error": str(failure)}


async def _pump(stream: Callable[[], AsyncIterator[Any]], output: Output, step: _Step) -> Any:
    item: Any = None
    try:
        async for item in stream():
            output.put(item)
            if len(output.items) >= AHEAD:
                await asyncio.sleep(0)  # one that never waits would keep the run from ending
    finally:
        output.close()
    if step.unpaid:
        step.charge(item)
    return item


class _Step:
    """One passage through the seam, and its outcome, which is an entry that was not written yet."""

    __slots__ = (
        *("scope", "kind", "request", "name", "price", "run", "journal", "inside", "event"),
        *("key", "value", "items", "spent", "time", "unpaid"),
    )

    def __init__(self, scope: Scope, kind: str, request: Any, name: str, price: Any) -> None:
        self.scope, self.kind, self.request, self.name, self.price = scope, kind, request, name, price
        self.run = scope.run
        if self.run.over:
            raise asyncio.CancelledError(f"the run {self.run.name!r} has ended")
        self.journal = journal_of(self.run)
        self.inside = inside = scope.child(kind, alone=True)  # also when recalled: it counts in the ids made here
        inside.inside = kind
        self.event: str | None = None
        self.key: str | None = None
        self.spent: Spent | None = None
        self.unpaid = False  # whether nobody waits any more for what the call will have used
        self.time: datetime

    def recall(self, result_type: Any) -> tuple[Any, list[Any]] | None:
        """What a loaded entry holds of this request: its outcome, and what was yielded before."""
        if not self.journal.loaded:
            return None
        try:
            found = self.journal.recall(self)
        except RunDiverged as diverged:
            self.run.interrupted(diverged)
            raise
        if found is None:
            return None
        from . import codec

        value = found.value
        if result_type is not None:
            value = codec.decode(result_type, value, mode="state", path=f"$.entries[{found.key!r}]")
        item_type = str | BaseAgentEvent | BaseChatMessage
        items = codec.decode(list[item_type], found.items or [], mode="state")
        self._admit()
        if found.spent is not None:
            self._account().add(found.spent.counts, found.spent.charges)
        else:
            self.charge(value)
        self.scope.time = found.time
        return value, items

    def begin(self, *, stream: bool = False) -> Scope:
        """Ask the limits, tell the listeners; returns the scope that the call works in."""
        self._admit()
        inside = self.inside
        if self.kind != "model":
            inside.ledger = self._account()
        if self.run.listeners:
            data = {"request": self.request, "stream": stream}
            self.event = inside.event = self.run.tell_start(self.kind, self.name, data)
        return inside

    async def call(self, call: Callable[[], Awaitable[T]]) -> T:
        """Do it, in a task of its own; runs around this one pay for an answer that comes when this one has ended."""
        value = await call()
        if self.unpaid:
            self.charge(value)
        return value

    def done(self, value: Any, items: list[Any] | None) -> None:
        """The call has returned: keep it."""
        if self.run.over:
            self.charge(value)
            raise asyncio.CancelledError(f"the run {self.run.name!r} has ended")
        self.value, self.items = value, items
        if self.kind != "model":
            self.spent = self.inside.ledger.spent()
        self.time = self.scope.time = self.run.clock.now()
        outermost = self.run.outermost
        if outermost.on_boundary is not None:
            self.journal.open.append(self)
            if outermost.undo:  # it will be recalled, so what ran inside of it stays done
                inside = f"{self.inside.place}/"
                outermost.undo = [mark for mark in outermost.undo if not mark[0].startswith(inside)]
        self._end({"result": value}, value)

    def fail(self, failure: BaseException, value: Any = None) -> None:
        """The call has raised; `value` is what it came to."""
        if isinstance(failure, Suspended) and not failure.noted:
            failure.noted = True
            self.journal.suspend(self)
            self.run.interrupted(failure)
        self.unpaid = value is None
        self._end(what_failed(failure), value)

    def _admit(self) -> None:
        try:
            self.scope.ledger.admit(self.kind, self.price is not None, self.name)
        except LimitReached as full:
            self.run.interrupted(full)
            raise

    def _account(self) -> Ledger:
        """Counts what is used here apart, too."""
        return Ledger(None, self.scope.ledger, self.name if self.kind == "tool" else "")

    def charge(self, value: Any) -> float | None:
        """Count what a model call used; returns what it cost, if that is known. What comes from a cache is free."""
        usage = getattr(value, "usage", None) if self.kind == "model" else None
        if not isinstance(usage, RequestUsage):
            return None
        asked = self.name, self.price
        name, price = answered = self.inside.answered or asked
        # where a wrapper had another model answer, nobody knows of it when the answer is recalled
        ledger = self.scope.ledger if answered == asked else self._account()
        cost = 0.0 if price is not None and getattr(value, "cached", False) else cost_of(usage, price)
        ledger.charge(usage, cost, self.scope.agent, name or "unknown")
        if answered != asked:
            self.spent = ledger.spent()
        return cost

    def _end(self, told: dict[str, Any], value: Any) -> None:
        if (cost := self.charge(value)) is not None:
            told["cost"] = cost
        if self.event is not None:
            self.run.tell_end(self.event, told)


def expect_text(asker: str, answer: Any) -> None:
    """Raises `ConfigError` for an answer that no person can have given."""
    if not isinstance(answer, str):
        raise ConfigError(f"the answer to {asker!r} must be text, not {answer!r:.80}")


def journal_of(run: Run) -> Journal:
    """The journal of a run; runs inside a run share the outermost one's."""
    journal = run.journal
    if not isinstance(journal, Journal):
        journal = run.journal = journal_of(run.outermost) if run.around else Journal()
    return journal


class Suspension(Record):
    """Where a suspended run stands: the state document holds it beside the state at the last completed turn.

    `begun` says whether the task was delivered in a completed turn; `used` and `charges` are what the ledger counted by
    then, `time` when that was.
    """

    uid: str
    begun: bool
    task: list[BaseChatMessage]
    messages: list[BaseAgentEvent | BaseChatMessage]
    entries: list[Entry]
    pending: list[Pending]
    used: list[float]
    time: datetime
    inbox: list[BaseChatMessage] = field(default_factory=list)
    charges: list[Charge] = field(default_factory=list, metadata=SPARSE)

    def answer(self, question: str, value: Any) -> None:
        """Store the answer to a pending question under the key of its effect. Raises `StateError` if there is none."""
        from . import codec

        asked = next((pending for pending in self.pending if pending.id == question), None)
        if asked is None:
            raise StateError(question, f"no such question is pending; pending: {[p.id for p in self.pending]}")
        if asked.kind == "input":
            expect_text(asked.source, value)
        value = codec.encode(value)
        self.entries = [entry for entry in self.entries if entry.key != question]
        self.entries.append(Entry(key=question, value=value, time=REAL.now()))
