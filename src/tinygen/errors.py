"""The error tree.

    BaseException
    ├── Suspended                        a run waits for an answer; only the run itself catches it
    ├── LimitReached                     a ledger is full; only the run that owns the ledger catches it
    └── Exception
        └── TinygenError
            ├── ConfigError              ValueError     wrong constructor or call argument
            ├── DecodeError              ValueError     data that does not have the promised shape
            │   ├── StateError                          a saved state that cannot be loaded
            │   └── ComponentError       ConfigError    a document from which no component can be made
            │       ├── ComponentTypeError     TypeError            of another kind than what was asked for
            │       └── ComponentVersionError  NotImplementedError  of a version that its class does not read
            ├── EncodeError              TypeError      a value that JSON cannot carry
            ├── AlreadyRunning           RuntimeError, ValueError
            ├── RunDiverged              RuntimeError   a run executed again did something else
            ├── AgentFailed              RuntimeError   an agent raised while a run was going on
            ├── TerminatedException      RuntimeError   a condition was asked again after it had ended the run
            ├── ToolError                RuntimeError   a tool call that failed; its text goes to the model
            │   └── ToolException                       what a `ToolAgent` raises: call_id, content, name
            │       ├── ToolNotFoundException           it has no tool of this name
            │       ├── InvalidToolArgumentsException   the arguments do not fit
            │       └── ToolExecutionException          the tool raised
            ├── RunStopped               RuntimeError   work that a limit or `stop` has ended before it had a result
            ├── UndeliverableException   LookupError, RuntimeError   no such agent
            ├── Overloaded               RuntimeError   an agent whose mailbox is full
            ├── CallCycle                RuntimeError   sequential agents that would wait for each other
            ├── MessageTimeout           TimeoutError   no answer in the time the sender gave
            ├── CantHandleException                     an agent that does not take this message
            ├── MessageDroppedException                 an intervention dropped the message
            ├── NotAccessibleError                      the agent lives in another process
            └── ModelError               RuntimeError   a model call that failed
                ├── AuthenticationError                 401, 403, a missing key
                ├── RateLimitError                      429
                ├── RequestError                        any other 4xx: the provider refuses the request
                ├── ServerError                         5xx
                ├── ConnectionFailed     ConnectionError
                ├── ModelTimeout         TimeoutError
                └── ProtocolError                       an answer that does not follow the protocol
                    ├── IncompleteResponse              an answer that ends too early
                    └── ResponseTooLarge                an answer above a size limit

Builtins are mixed in where AutoGen raised them and programs catch them.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any


class TinygenError(Exception):
    """Base of every exception that tinygen raises on purpose."""

    _made_of: tuple[str, ...] = ()  # what the constructor takes, by attributes, where that is not the message alone

    def __reduce__(self) -> Any:
        if not self._made_of:
            return super().__reduce__()
        return type(self), tuple(getattr(self, name) for name in self._made_of)


class ConfigError(TinygenError, ValueError):
    """A constructor or call argument is wrong; the message says which and what is expected."""


class _AtPath(TinygenError):
    _made_of = ("path", "problem")

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path
        self.problem = problem


class DecodeError(_AtPath, ValueError):
    """Data does not have the promised shape.

    `path` says where (`$.messages[3].content`), `problem` what was found and what was expected there.
    """


class StateError(DecodeError):
    """A saved state cannot be loaded; the object it was meant for is unchanged."""


class ComponentError(ConfigError, DecodeError):
    """A document from which no component can be made; `path` says where, `problem` what is wrong there."""


class ComponentTypeError(ComponentError, TypeError):
    """The document is of another kind of component than what was asked for."""


class ComponentVersionError(ComponentError, NotImplementedError):
    """The document is of a version that this class does not read."""


class EncodeError(_AtPath, TypeError):
    """A value cannot be written as JSON: `path` says where it stands, `problem` what is in the way."""


class AlreadyRunning(TinygenError, RuntimeError, ValueError):
    """The object takes part in a run that is still going on."""

    _made_of = ("name",)

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name!r} is already running; wait for that run to end, close its stream with aclose(), "
            f"or use session() to get an independent copy for a second run"
        )
        self.name = name


class RunDiverged(TinygenError, RuntimeError):
    """A run that was executed again asked for something else than the first time, at the same place.

    The code, the prompts or the tools have changed since it was suspended, or an agent's turn is not a function of
    its inputs; such an agent's class says `opaque = True`.
    """

    _made_of = ("place", "kind")

    def __init__(self, place: str, kind: str) -> None:
        super().__init__(f"the run diverges at {place!r}: its {kind} request is not the one that was recorded there")
        self.place = place
        self.kind = kind


class AgentFailed(TinygenError, RuntimeError):
    """An agent raised during a run. The original exception is `__cause__`.

    `agent` is its name, `turn` the turn of the run (from 1), `result` the `TaskResult` up to the failure.
    """

    _made_of = ("agent", "turn", "result", "__cause__")

    def __init__(self, agent: str, turn: int, result: Any, cause: BaseException) -> None:
        super().__init__(f"agent {agent!r} failed in turn {turn}: {type(cause).__name__}: {cause}")
        self.agent = agent
        self.turn = turn
        self.result = result
        self.__cause__ = cause


class TerminatedException(TinygenError, RuntimeError):
    """A termination condition was called again after it had ended the conversation; call `reset()` first."""


class ToolError(TinygenError, RuntimeError):
    """A tool call failed. Raise it in a tool to choose the text the model reads."""


class UndeliverableException(TinygenError, LookupError, RuntimeError):
    """A message names an agent that does not exist and cannot be made."""


class ToolException(ToolError):
    """A call that a `ToolAgent` could not do: `content` is what the model is told."""

    _made_of = ("call_id", "content", "name")

    def __init__(self, call_id: str, content: str, name: str) -> None:
        super().__init__(content)
        self.call_id = call_id
        self.content = content
        self.name = name


class ToolNotFoundException(ToolException):
    """The agent has no tool of this name."""


class InvalidToolArgumentsException(ToolException):
    """The arguments do not fit the tool."""


class ToolExecutionException(ToolException):
    """The tool raised; the original exception is `__cause__`."""


class RunStopped(TinygenError, RuntimeError):
    """A limit was reached, or the run was stopped, before its work had a result; `reason` says which."""

    _made_of = ("name", "reason")

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name!r} has no result: {reason}")
        self.name = name
        self.reason = reason


class Overloaded(TinygenError, RuntimeError):
    """An agent has as many messages as its `max_pending` allows; send again later, or send less."""


class CallCycle(TinygenError, RuntimeError):
    """A request to a sequential agent that is busy with a message which waits, through others, for this very request.

    Answer without asking back, publish instead of asking, or make one of the agents not sequential.
    """


class MessageTimeout(TinygenError, TimeoutError):
    """No answer came within the `timeout` of a request; the handler is cancelled."""


class CantHandleException(TinygenError):
    """An agent has no handler for this message."""


class MessageDroppedException(TinygenError):
    """An intervention handler dropped the message."""


class NotAccessibleError(TinygenError):
    """The agent lives in another process, so its instance cannot be handed out."""


class ModelError(TinygenError, RuntimeError):
    """A model call failed.

    `category` is a stable word for the kind of failure. `status`, `provider` and `request_id` are known where an HTTP
    answer came; `partial` is the text already received when a stream broke; `retry_after` is what the provider asked
    for, in seconds.
    """

    category = "api_error"

    def __init__(
        self,
        message: str,
        *,
        provider: str = "",
        status: int | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        partial: str = "",
    ) -> None:
        super().__init__(message)
        self.provider = provider
        self.status = status
        self.request_id = request_id
        self.retry_after = retry_after
        self.partial = partial


class AuthenticationError(ModelError):
    """The provider does not accept the key, or no key was given."""

    category = "auth"


class RateLimitError(ModelError):
    """Too many requests, or the quota is used up."""

    category = "rate_limit"


class RequestError(ModelError):
    """The provider refuses the request as it is; sending it again will not help."""

    category = "request"


class ServerError(ModelError):
    """The provider failed."""

    category = "server"


class ConnectionFailed(ModelError, ConnectionError):
    """The provider could not be reached, or the connection broke."""

    category = "connection"


class ModelTimeout(ModelError, TimeoutError):
    """The answer did not come in time."""

    category = "timeout"


class ProtocolError(ModelError):
    """The answer does not follow the provider's protocol."""

    category = "protocol"


class IncompleteResponse(ProtocolError):
    """The answer ends too early; `partial` holds its text so far."""

    category = "incomplete"


class ResponseTooLarge(ProtocolError):
    """The answer, or one line of it, is above the size limit."""

    category = "limit"


class LimitReached(BaseException):
    """A limit of a run is used up.

    A BaseException, so that no `except Exception` on the way swallows it; the run that owns `ledger` turns it into
    its stop reason.
    """

    def __init__(self, ledger: object, limit: str, used: float, allowed: float) -> None:
        super().__init__(f"limit reached: {limit} ({used:g} of {allowed:g})")
        self.ledger = ledger
        self.limit = limit


class Suspended(BaseException):
    """A run cannot go on until somebody answers.

    Raised by an effect that has no answer yet; the run rolls the open turn back and returns what it waits for in
    `TaskResult.pending`. A BaseException, so that no `except Exception` on the way swallows it.
    """

    noted = False  # whether the effect that asks has put its question on the list


def positive_int(name: str, value: Any, *, or_zero: bool = False) -> int:
    """The argument `value`, called `name`, if it is a whole number above 0. Raises `ConfigError`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < (not or_zero):
        raise ConfigError(f"{name} must be a whole number {'from' if or_zero else 'above'} 0, not {value!r:.80}")
    return value


def did_you_mean(name: str, known: Iterable[str], *, listed: bool = False) -> str:
    """`; did you mean 'x'?` if one of `known` is near `name`; else, or if `listed`, what there is to choose from."""
    names = sorted(known)
    choice = ", ".join(map(repr, names)) or "none"
    if near := nearest(name, names):
        return f"; did you mean {near!r}?" + (f" Known: {choice}" if listed else "")
    return f"; known: {choice}"


def nearest(name: str, known: Iterable[str], likeness: float = 0.65) -> str | None:
    """The one of `known` that `name` may be meant for, if there is one; `likeness` is 1 for the same."""
    import difflib

    return next(iter(difflib.get_close_matches(name, sorted(known), n=1, cutoff=likeness)), None)


def of_another_copy(value: Any, *expected: type) -> str:
    """What to say behind "not ..." of a value that is as expected, but made with another copy of the package."""
    ours = {} if isinstance(value, expected) else {each.__name__: each.__module__ for each in expected}
    for base in type(value).__mro__:
        if (module := ours.get(base.__name__, base.__module__)) != base.__module__:
            return f"; its {base.__name__} is of {base.__module__}, not of {module}: two copies do not mix"
    return ""
