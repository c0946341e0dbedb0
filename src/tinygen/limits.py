"""What a run may use, and the ledger that counts what it does use."""

from __future__ import annotations

from .errors import ConfigError, LimitReached
from .records import Record
from .usage import Charge, RequestUsage, RunUsage, count, divide

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .usage import Key, PartUsage


class RunLimits(Record):
    """What a run, and all it starts, may use. None is unlimited.

    `timeout` is in seconds and interrupts calls in flight; `cost` is in the currency of the clients' prices. The
    others stop the next call or message, so calls made side by side can overshoot tokens and cost by their number. An
    agent's run that passed one of those with its last calls is complete, and its stop reason says so.
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

    Charges are kept as they come and summed up when somebody asks, or when there are many. Those before the last
    `settle` stand first, so that a run can say what it had used by then.

    Args:
        limits: what may be used.
        parent: is charged too.
        tool: the tool whose call this counts.
    """

    __slots__ = (*COUNTED, "above", "kept", "limits", "mark", "room", "tool", "unpriced")

    def __init__(self, limits: RunLimits | None = None, parent: Ledger | None = None, tool: str = "") -> None:
        self.limits = limits or NO_LIMITS
        self.above: tuple[Ledger, ...] = () if parent is None else (parent, *parent.above)
        self.tool = tool
        self.kept: list[tuple[Key, RequestUsage, float | None, int]] = []  # each with its cost and its calls
        self.mark = 0  # how many of them are settled
        self.room = MANY  # how many there may be
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
        ledgers = (self, *self.above)
        for ledger in ledgers:
            if ledger.limits is not NO_LIMITS:
                ledger._check(kind, priced, name)
        tools: tuple[str, ...] = (name,)
        for ledger in ledgers:
            if kind == "model":
                ledger.model_calls += 1
            elif kind == "tool":
                ledger.tool_calls += 1
                ledger.kept.append((("", "", tools), _NO_TOKENS, 0.0, 1))
                if len(ledger.kept) > ledger.room:
                    ledger._sum_up(ledger.mark)
                if ledger.tool:
                    tools = (ledger.tool, *tools)

    def passed(self) -> str | None:
        """What to say of calls that took more than what was left of a limit, after the last of them."""
        tokens, limits = self.prompt_tokens + self.completion_tokens, self.limits
        for limit, used, allowed in (("tokens", tokens, limits.tokens), ("cost", self.cost, limits.cost)):
            if allowed is not None and used > allowed:
                return f"limit passed: {limit} ({used:g} of {allowed:g})"
        return None

    def charge(self, usage: RequestUsage, cost: float | None = 0.0, agent: str = "", model: str = "unknown") -> None:
        """Count the tokens, and what they cost (None if that is not known), after a call."""
        tools: tuple[str, ...] = ()
        for ledger in (self, *self.above):
            ledger.prompt_tokens += usage.prompt_tokens
            ledger.completion_tokens += usage.completion_tokens
            if cost is None:
                ledger.unpriced = True
            else:
                ledger.cost += cost
            ledger.kept.append(((agent, model, tools), usage, cost, 1))
            if len(ledger.kept) > ledger.room:
                ledger._sum_up(ledger.mark)
            if ledger.tool:
                tools = (ledger.tool, *tools)

    def settle(self) -> None:
        """All that was charged so far stays."""
        if len(self.kept) > MANY:
            self._sum_up(0)
        self.mark = len(self.kept)

    def counts(self) -> list[float]:
        """What was used so far, for `add`."""
        tokens = self.prompt_tokens, self.completion_tokens
        return [*tokens, self.model_calls, self.tool_calls, self.messages, self.cost, self.seconds]  # as in COUNTED

    def charges(self, *, settled: bool = False) -> list[Charge]:
        """What was charged so far, for `add`; or only what is settled."""
        parts = self._parts(self.kept[: self.mark] if settled else self.kept)
        return [Charge(agent=by, model=model, tools=[*tools], used=part) for (by, model, tools), part in parts.items()]

    def spent(self) -> Spent | None:
        """What was used so far; None if that is nothing."""
        return Spent(counts=self.counts(), charges=self.charges()) if self.kept or self.model_calls else None

    def add(self, counts: Sequence[float], charges: Sequence[Charge] = ()) -> None:
        """Count what was used before, in another process perhaps."""
        unpriced = any(charge.used.cost is None for charge in charges)
        tools: tuple[str, ...] = ()
        for ledger in (self, *self.above):
            for name, more in zip(COUNTED, counts, strict=False):
                before = getattr(ledger, name)
                setattr(ledger, name, before + type(before)(more))  # whole numbers come as floats from a document
            for charge in charges:
                key = charge.agent, charge.model, (*tools, *charge.tools)
                ledger.kept.append((key, charge.used, charge.used.cost, charge.used.calls))
            ledger.unpriced = ledger.unpriced or unpriced
            if ledger.tool:
                tools = (ledger.tool, *tools)

    def usage(self) -> RunUsage:
        """What was used so far, in all and by agent, model and tool."""
        usage = RunUsage(self.prompt_tokens, self.completion_tokens)
        usage.model_calls, usage.tool_calls = self.model_calls, self.tool_calls
        usage.cost = None if self.unpriced else self.cost
        divide(usage, self._parts(self.kept))
        return usage

    def _sum_up(self, start: int) -> None:
        """Let one charge stand for all of its key, from this one on."""
        self.kept[start:] = [(key, part, part.cost, part.calls) for key, part in self._parts(self.kept[start:]).items()]
        self.room = max(MANY, 2 * len(self.kept))

    @staticmethod
    def _parts(charges: Sequence[tuple[Key, RequestUsage, float | None, int]]) -> dict[Key, PartUsage]:
        parts: dict[Key, PartUsage] = {}
        for key, usage, cost, calls in charges:
            count(parts, key, usage, cost, calls)
        return parts

    def _check(self, kind: str, priced: bool, name: str) -> None:
        limits = self.limits
        if kind == "tool":
            self._refuse("tool_calls", self.tool_calls, limits.tool_calls)
        elif kind == "model":
            self._refuse("model_calls", self.model_calls, limits.model_calls)
            self._refuse("tokens", self.prompt_tokens + self.completion_tokens, limits.tokens)
            self._refuse("cost", self.cost, limits.cost)
            if limits.cost is not None and (self.unpriced or not priced):
                model = next((key[1] for key, _, cost, _ in self.kept if cost is None), name)
                raise ConfigError(
                    f"RunLimits(cost=...) needs the price of every model called; that of {model!r} is not known: "
                    "add it to tinygen.PRICES as {'prompt': ..., 'completion': ...} per million tokens, 0 if free, "
                    "or to a whole model_info as 'price'"
                )

    def _refuse(self, limit: str, used: float, allowed: float | None) -> None:
        if allowed is not None and used >= allowed:
            raise LimitReached(self, limit, used, allowed)
