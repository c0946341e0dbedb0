"""What a run may use, and the ledger that counts what it does use."""

from __future__ import annotations

from itertools import chain

from .errors import ConfigError, LimitReached
from .records import Record
from .usage import Charge, RequestUsage, RunUsage, add_usage, divided, nothing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .usage import PartUsage

    Key = tuple[str, str, tuple[str, ...]]  # agent, model, the tools it was inside of


class RunLimits(Record):
    """What a run, and all it starts, may use. None is unlimited.

    `timeout` is in seconds and interrupts calls in flight; `cost` is in the currency of the clients' prices. The
    others stop the next call or message, so calls made side by side can overshoot tokens and cost by their number.
    """

    timeout: float | None = None
    tokens: int | None = None
    cost: float | None = None
    model_calls: int | None = None
    tool_calls: int | None = None
    messages: int | None = None

    def __post_init__(self) -> None:
        for name, limit in vars(self).items():
            if limit is not None and (isinstance(limit, bool) or not isinstance(limit, (int, float)) or not limit >= 0):
                raise ConfigError(f"the limit {name!r} must be a number that is not negative, or None, not {limit!r}")


NO_LIMITS = RunLimits()
MANY = 1000  # charges that are kept before they are summed up
_NO_TOKENS = RequestUsage(0, 0)

COUNTED = ("prompt_tokens", "completion_tokens", "model_calls", "tool_calls", "messages", "cost", "seconds")


class Spent(Record, tagged=False):
    """What a ledger counted, to be added to another one."""

    counts: list[float]
    charges: list[Charge]


class Ledger:
    """Counts what a run uses, or one effect of it; charges its parents too.

    Charges are kept as they come and summed up when somebody asks, or when there are many. What was charged since the
    last `settle` stays apart, so that a run can say what it had used by then.

    Args:
        limits: what may be used.
        parent: is charged too.
        tool: the tool whose call this counts.
    """

    __slots__ = (*COUNTED, "limits", "mark", "open", "parent", "settled", "tool", "unpriced")

    def __init__(self, limits: RunLimits | None = None, parent: Ledger | None = None, tool: str = "") -> None:
        self.limits = limits or NO_LIMITS
        self.parent = parent
        self.tool = tool
        self.settled: dict[Key, PartUsage] = {}
        self.open: list[tuple[Key, RequestUsage, float | None, int]] = []
        self.mark = 0  # how many of the open ones are settled too
        self.unpriced = False  # whether something was charged whose price is not known
        self.prompt_tokens = self.completion_tokens = 0
        self.model_calls = self.tool_calls = self.messages = 0
        self.cost = 0.0
        self.seconds = 0.0  # at work, up to the last completed turn

    def admit_message(self) -> None:
        """Count a message where it is said; a run that passes on what an inner run said says it again."""
        if self.limits is not NO_LIMITS:
            self._refuse("messages", self.messages, self.limits.messages)
        self.messages += 1

    def admit(self, kind: str, priced: bool = True, name: str = "") -> None:
        """Count one model or tool call before it happens. Raises `LimitReached`."""
        ledger: Ledger | None = self
        while ledger is not None:
            if ledger.limits is not NO_LIMITS:
                ledger._check(kind, priced)
            ledger = ledger.parent
        tools: tuple[str, ...] = (name,)
        ledger = self
        while ledger is not None:
            if kind == "model":
                ledger.model_calls += 1
            elif kind == "tool":
                ledger.tool_calls += 1
                ledger.open.append((("", "", tools), _NO_TOKENS, 0.0, 1))
                if ledger.tool:
                    tools = (ledger.tool, *tools)
            ledger = ledger.parent

    def charge(self, usage: RequestUsage, cost: float | None = 0.0, agent: str = "", model: str = "unknown") -> None:
        """Count the tokens, and what they cost (None if that is not known), after a call."""
        ledger: Ledger | None = self
        tools: tuple[str, ...] = ()
        while ledger is not None:
            ledger.prompt_tokens += usage.prompt_tokens
            ledger.completion_tokens += usage.completion_tokens
            if cost is None:
                ledger.unpriced = True
            else:
                ledger.cost += cost
            ledger.open.append(((agent, model, tools), usage, cost, 1))
            if ledger.tool:
                tools = (ledger.tool, *tools)
            ledger = ledger.parent

    def settle(self) -> None:
        """Keep what was charged since the last time with what was before."""
        self.mark = len(self.open)
        if self.mark > MANY:
            self._sum_up()

    def counts(self) -> list[float]:
        """What was used so far, for `add`."""
        tokens = self.prompt_tokens, self.completion_tokens
        return [*tokens, self.model_calls, self.tool_calls, self.messages, self.cost, self.seconds]  # as in COUNTED

    def charges(self, *, settled: bool = False) -> list[Charge]:
        """What was charged so far, for `add`; or only what is settled."""
        self._sum_up()
        parts = self.settled.items() if settled else self._parts()
        return [Charge(agent=agent, model=model, tools=[*tools], used=part) for (agent, model, tools), part in parts]

    def spent(self) -> Spent | None:
        """What was used so far; None if that is nothing."""
        return (
            Spent(counts=self.counts(), charges=self.charges())
            if self.open or self.settled or self.model_calls
            else None
        )

    def add(self, counts: Sequence[float], charges: Sequence[Charge] = ()) -> None:
        """Count what was used before, in another process perhaps."""
        unpriced = any(charge.used.cost is None for charge in charges)
        ledger: Ledger | None = self
        tools: tuple[str, ...] = ()
        while ledger is not None:
            for name, count in zip(COUNTED, counts, strict=False):
                before = getattr(ledger, name)
                setattr(ledger, name, before + type(before)(count))  # whole numbers come as floats from a document
            for charge in charges:
                key = charge.agent, charge.model, (*tools, *charge.tools)
                ledger.open.append((key, charge.used, charge.used.cost, charge.used.calls))
            ledger.unpriced = ledger.unpriced or unpriced
            if ledger.tool:
                tools = (ledger.tool, *tools)
            ledger = ledger.parent

    def usage(self) -> RunUsage:
        """What was used so far, in all and by agent, model and tool."""
        usage = RunUsage(self.prompt_tokens, self.completion_tokens)
        usage.model_calls, usage.tool_calls = self.model_calls, self.tool_calls
        usage.cost = None if self.unpriced else self.cost
        return divided(usage, self._parts())

    def _parts(self) -> Iterable[tuple[Key, PartUsage]]:
        """What is settled, and what was charged since."""
        self._sum_up()
        since: dict[Key, PartUsage] = {}
        _count(since, self.open)
        return chain(self.settled.items(), since.items())

    def _sum_up(self) -> None:
        _count(self.settled, self.open[: self.mark])
        del self.open[: self.mark]
        self.mark = 0

    def _check(self, kind: str, priced: bool) -> None:
        limits = self.limits
        if kind == "tool":
            self._refuse("tool_calls", self.tool_calls, limits.tool_calls)
        elif kind == "model":
            self._refuse("model_calls", self.model_calls, limits.model_calls)
            self._refuse("tokens", self.prompt_tokens + self.completion_tokens, limits.tokens)
            self._refuse("cost", self.cost, limits.cost)
            if limits.cost is not None and (self.unpriced or not priced):
                raise ConfigError(
                    "RunLimits(cost=...) needs the price of every model that is called; give it as model_info['price'] "
                    "= {'prompt': ..., 'completion': ...} per million tokens, or add the model to tinygen.PRICES"
                )

    def _refuse(self, limit: str, used: float, allowed: float | None) -> None:
        if allowed is not None and used >= allowed:
            raise LimitReached(self, limit, used, allowed)


def _count(parts: dict[Key, PartUsage], charges: Iterable[tuple[Key, RequestUsage, float | None, int]]) -> None:
    for key, usage, cost, calls in charges:
        part = parts.get(key)
        if part is None:
            part = parts[key] = nothing()
        add_usage(part, usage, cost, calls)
