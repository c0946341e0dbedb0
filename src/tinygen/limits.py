"""What a run may use, and the ledger that counts what it does use."""

from __future__ import annotations

from .errors import ConfigError, LimitReached
from .records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .messages import RequestUsage


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

COUNTED = ("prompt_tokens", "completion_tokens", "model_calls", "tool_calls", "messages", "cost", "seconds")


class Ledger:
    """Counts what a run uses; charges its parents too."""

    __slots__ = (*COUNTED, "limits", "parent")

    def __init__(self, limits: RunLimits | None = None, parent: Ledger | None = None) -> None:
        self.limits = limits or NO_LIMITS
        self.parent = parent
        self.prompt_tokens = self.completion_tokens = 0
        self.model_calls = self.tool_calls = self.messages = 0
        self.cost = 0.0
        self.seconds = 0.0  # at work, up to the last completed turn

    def admit(self, kind: str, priced: bool = True) -> None:
        """Count one model call, tool call or message before it happens. Raises `LimitReached`.

        A message counts where it is said; a run that passes on what an inner run said says it again.
        """
        if kind == "message":
            if self.limits is not NO_LIMITS:
                self._refuse("messages", self.messages, self.limits.messages)
            self.messages += 1
            return
        ledger: Ledger | None = self
        while ledger is not None:
            if ledger.limits is not NO_LIMITS:
                ledger._check(kind, priced)
            ledger = ledger.parent
        ledger = self
        while ledger is not None:
            if kind == "model":
                ledger.model_calls += 1
            elif kind == "tool":
                ledger.tool_calls += 1
            ledger = ledger.parent

    def charge(self, usage: RequestUsage, cost: float = 0.0) -> None:
        """Count the tokens, and what they cost, after a call."""
        ledger: Ledger | None = self
        while ledger is not None:
            ledger.prompt_tokens += usage.prompt_tokens
            ledger.completion_tokens += usage.completion_tokens
            ledger.cost += cost
            ledger = ledger.parent

    def counts(self) -> list[float]:
        """What was used so far, for `add`."""
        return [getattr(self, name) for name in COUNTED]

    def add(self, counts: Sequence[float]) -> None:
        """Count what was used before, in another process perhaps."""
        ledger: Ledger | None = self
        while ledger is not None:
            for name, count in zip(COUNTED, counts, strict=False):
                setattr(ledger, name, getattr(ledger, name) + count)
            ledger = ledger.parent

    def _check(self, kind: str, priced: bool) -> None:
        limits = self.limits
        if kind == "tool":
            self._refuse("tool_calls", self.tool_calls, limits.tool_calls)
        elif kind == "model":
            self._refuse("model_calls", self.model_calls, limits.model_calls)
            self._refuse("tokens", self.prompt_tokens + self.completion_tokens, limits.tokens)
            self._refuse("cost", self.cost, limits.cost)
            if limits.cost is not None and not priced:
                raise ConfigError(
                    "RunLimits(cost=...) needs the price of every model that is called; give it as model_info['price'] "
                    "= {'prompt': ..., 'completion': ...} per million tokens"
                )

    def _refuse(self, limit: str, used: float, allowed: float | None) -> None:
        if allowed is not None and used >= allowed:
            raise LimitReached(self, limit, used, allowed)
