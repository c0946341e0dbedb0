"""Agents whose handlers are found by the type of the message: marked methods, or one function."""

from __future__ import annotations

import inspect
import logging
from types import UnionType

from .actors import BaseAgent, serializers_of, subscribe
from .addresses import AgentType, SubscriptionInstantiationContext
from .errors import CantHandleException, ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
    from typing import Any, ClassVar, Literal, Protocol, TypeVar, overload

    from .actors import AgentRuntime, MessageContext
    from .addresses import Subscription

    F = TypeVar("F", bound="Callable[..., Coroutine[Any, Any, Any]]")

    class _MarksHandler(Protocol):
        @overload
        def __call__(self, func: F) -> F: ...
        @overload
        def __call__(
            self, func: None = None, *, strict: bool = True, match: Callable[[Any, MessageContext], bool] | None = None
        ) -> Callable[[F], F]: ...


_log = logging.getLogger("tinygen.runtime")


class _Handler:
    """A method that handles messages of certain types; `wants` is a further condition."""

    __slots__ = ("_strict", "function", "gives", "wants")

    def __init__(
        self, function: Callable[..., Any], rpc: bool | None, strict: bool, match: Callable[..., bool] | None
    ) -> None:
        if not inspect.iscoroutinefunction(inspect.unwrap(function)):
            raise ConfigError(f"{_name_of(function)} must be an 'async def' to handle messages")
        self.function = function
        self.gives: tuple[Any, ...] | None = None
        self.wants = match if rpc is None else _and_kind(rpc, match)
        self._strict = strict

    def resolve(self) -> tuple[Any, ...]:
        """The classes it takes, by its annotations; read late, as these may name what is declared after the handler."""
        hints = _hints(self.function)
        takes, self.gives = _classes(hints["message"]), _classes(hints["return"], origins=True)
        if takes is None:
            raise ConfigError(f"{_name_of(self.function)} must name the classes of 'message', not Any")
        return takes

    def complain(self, answer: Any) -> None:
        """About an answer that is not of a promised type."""
        promised = " or ".join(each.__name__ for each in self.gives or ())
        problem = f"{_name_of(self.function)} returned a {type(answer).__name__}; its annotation promises {promised}"
        if self._strict:
            raise ConfigError(f"{problem}. Change one of them, or pass strict=False to the decorator")
        _log.warning("%s", problem)


def _and_kind(rpc: bool, match: Callable[..., bool] | None) -> Callable[..., bool]:
    """`match`, for requests only or for events only."""
    return lambda message, ctx: ctx.is_rpc is rpc and (match is None or match(message, ctx))


def _decorator(rpc: bool | None) -> _MarksHandler:
    def marks(func: Any = None, *, strict: bool = True, match: Any = None) -> Any:
        """Make a method of a `RoutedAgent` handle messages.

        The annotation of the argument `message` says which, by their exact class or a union of classes; that of the
        result what is returned. Of several handlers for a class, the first by name that wants the message gets it.

        Args:
            strict: raise if something else is returned than annotated; else log it.
            match: a further condition, called with the message and its context.
        """

        def mark(function: Any) -> Any:
            function._handler = _Handler(function, rpc, strict, match)
            return function

        return mark if func is None else mark(func)

    return marks


message_handler = _decorator(None)  # requests and events
event = _decorator(False)  # events only
rpc = _decorator(True)  # requests only


class RoutedAgent(BaseAgent):
    """An agent whose methods marked with `message_handler`, `event` or `rpc` get the messages of their type.

        class Greeter(RoutedAgent):
            @message_handler
            async def on_name(self, message: Name, ctx: MessageContext) -> Greeting:
                return Greeting(f"Hello {message.text}")

        await Greeter.register(runtime, "greeter", lambda: Greeter("Says hello"))

    A message of a subclass of an annotated class is not handled.
    """

    __slots__ = ()

    # message class -> its handlers in order; made at the first need, when all annotations can be resolved
    _table: ClassVar[Mapping[Any, Sequence[_Handler]] | None] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._table = None  # a subclass has handlers of its own

    async def on_message_impl(self, message: Any, ctx: MessageContext) -> Any:
        table = self._table
        if table is None:
            table = self._build()
        for handler in table.get(message.__class__, ()):
            if handler.wants is None or handler.wants(message, ctx):
                answer = await handler.function(self, message, ctx)
                if handler.gives is not None and not isinstance(answer, handler.gives):
                    handler.complain(answer)
                return answer
        return await self.on_unhandled_message(message, ctx)

    async def on_unhandled_message(self, message: Any, ctx: MessageContext) -> None:
        """Called for a message no handler wants."""
        _log.info("agent %s has no handler for a %s", self._id, type(message).__name__)

    @classmethod
    def _takes(cls) -> Collection[type[Any]]:
        return list(cls._table or cls._build())

    @classmethod
    def _build(cls) -> Mapping[Any, Sequence[_Handler]]:
        table: dict[Any, list[_Handler]] = {}
        for name in dir(cls):  # in alphabetical order
            handler = getattr(getattr(cls, name, None), "_handler", None)
            if isinstance(handler, _Handler):
                for each in handler.resolve():
                    table.setdefault(each, []).append(handler)
        cls._table = table
        return table


ClosureContext = BaseAgent  # the agent that a closure speaks as


class ClosureAgent(BaseAgent):
    """An agent that is one function: `async (agent: ClosureContext, message: T, ctx: MessageContext) -> Answer`.

    Made by `register_closure`. `unknown_type_policy` says what happens with messages of other types than the annotation
    names: they are ignored, ignored with a line in the log ("warn"), or refused with `CantHandleException` ("error").
    """

    def __init__(
        self,
        description: str,
        closure: Callable[[ClosureContext, Any, MessageContext], Awaitable[Any]],
        *,
        unknown_type_policy: Literal["error", "warn", "ignore"] = "warn",
    ) -> None:
        if unknown_type_policy not in ("error", "warn", "ignore"):
            raise ConfigError(f"unknown_type_policy must be 'error', 'warn' or 'ignore', not {unknown_type_policy!r}")
        super().__init__(description)
        self._accepts = _closure_takes(closure)
        self._closure = closure
        self._policy = unknown_type_policy

    async def on_message_impl(self, message: Any, ctx: MessageContext) -> Any:
        if self._accepts is None or type(message) in self._accepts:
            return await self._closure(self, message, ctx)
        problem = f"agent {self.id} has no handler for a {type(message).__name__}"
        if self._policy == "error":
            raise CantHandleException(problem)
        if self._policy == "warn":
            _log.warning("%s", problem)
        return None

    @classmethod
    async def register_closure(
        cls,
        runtime: AgentRuntime,
        type: str | AgentType,
        closure: Callable[[ClosureContext, Any, MessageContext], Awaitable[Any]],
        *,
        unknown_type_policy: Literal["error", "warn", "ignore"] = "warn",
        skip_direct_message_subscription: bool = False,
        description: str = "",
        subscriptions: Callable[[], Sequence[Subscription] | Awaitable[Sequence[Subscription]]] | None = None,
    ) -> AgentType:
        """Register `closure` as an agent type. `subscriptions` makes what it subscribes to."""
        serializers = serializers_of(_closure_takes(closure) or (), runtime)
        made: Any = ()
        if subscriptions is not None:
            with SubscriptionInstantiationContext.populate_context(AgentType(type)):
                made = subscriptions()
                made = await made if inspect.isawaitable(made) else made
        agent_type = await cls.register(
            runtime,
            type,
            lambda: cls(description, closure, unknown_type_policy=unknown_type_policy),
            skip_direct_message_subscription=skip_direct_message_subscription,
        )
        runtime.add_message_serializer(serializers)
        await subscribe(runtime, made)
        return agent_type


# --- annotations


def _closure_takes(closure: Callable[..., Any]) -> tuple[Any, ...] | None:
    return _classes(_hints(closure)["message"])


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """What the annotations of `message` and of the result stand for; others may be unknown at run time."""
    name, written = _name_of(function), function.__annotations__
    for each, what in ("message", "its argument 'message'"), ("return", "its result (None, if there is none)"):
        if each not in written:
            raise ConfigError(f"{name} needs a type annotation for {what}, by which messages are routed and checked")

    def stand_in() -> None: ...

    stand_in.__annotations__ = {each: written[each] for each in ("message", "return")}
    try:
        return inspect.get_annotations(stand_in, globals=inspect.unwrap(function).__globals__, eval_str=True)
    except NameError as error:
        raise ConfigError(f"an annotation of {name} cannot be resolved in its module: {error}") from error


def _classes(hint: Any, origins: bool = False) -> tuple[Any, ...] | None:
    """The classes a hint stands for, None if it stands for any. `origins`: the class of `list[int]` is list."""
    if _is_any(hint):
        return None
    union = isinstance(hint, UnionType) or str(getattr(hint, "__origin__", "")) == "typing.Union"
    found = []
    for each in hint.__args__ if union else (hint,):
        origin = getattr(each, "__origin__", None)
        if origins:
            each = origin or each
            if _is_any(each) or not _is_checkable(each):
                return None
        elif origin is not None or not isinstance(each, type):
            raise ConfigError(f"messages are routed by their class; {each!r} is not a class")
        found.append(type(None) if each is None else each)
    return tuple(found)


def _is_any(hint: Any) -> bool:
    return str(hint) in ("typing.Any", "typing_extensions.Any")


def _is_checkable(hint: Any) -> bool:
    try:
        return isinstance(None, hint) is not None
    except TypeError:  # a protocol, a literal, a type variable
        return hint is None


def _name_of(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", repr(function))
