"""A function as a tool: what a model is told of it comes from its signature and docstring."""

from __future__ import annotations

import asyncio
import inspect
import re
import sys
import weakref
from functools import cached_property, partial
from types import FunctionType, MethodType

from .. import codec
from ..cancellation import CancellationToken
from ..component import renewed
from ..errors import ConfigError, EncodeError
from .base import BaseTool, check_strict
from .results import MAX_OUTPUT
from .threads import run_in_thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from typing_extensions import Self

    from ..component import Memo
    from ..models import Tool


class FunctionTool(BaseTool["Any", "Any"]):
    """A function as a tool.

        def add(a: int, b: Annotated[int, "the other one"] = 1) -> int:
            '''Adds two numbers.'''
            return a + b

        tool = FunctionTool(add)

    A parameter `cancellation_token` is given the call's token and not shown to the model; neither are arguments that
    a `functools.partial` has fixed.

    Args:
        func: sync or async; a synchronous one runs in a thread. Any callable with a signature will do.
        description: what the model is told; the first paragraph of the docstring if left out.
        name: what the model calls it; the function's name if left out.
        global_imports: accepted so that AutoGen's calls work; it has no effect.
        strict: promise the provider that every argument is always given; none may have a default then.
        timeout: seconds a call may take.
        max_output: characters the model gets to read of a result.
    """

    def __init__(
        self,
        func: Callable[..., Any],
        description: str | None = None,
        name: str | None = None,
        global_imports: Sequence[Any] = (),
        strict: bool = False,
        *,
        timeout: float | None = None,
        max_output: int = MAX_OUTPUT,
    ) -> None:
        self._func = func
        self._target = _target_of(func)
        self._name = name or _name_of(func)
        self._description = description
        self._strict = strict
        self._schema = None
        self.timeout = timeout
        self.max_output = max_output
        if strict:
            check_strict(self._name, self._parameters())
        elif _may_take_anything(func, self._target):
            _parameters_of(func, self._name)
        if _yields(func) or _yields(type(func).__call__):
            raise ConfigError(f"tool {self._name!r} yields; let it return its result, or derive from BaseStreamTool")
        self._is_async = inspect.iscoroutinefunction(func) or inspect.iscoroutinefunction(type(func).__call__)

    @property
    def description(self) -> str:
        return self._signature.summary if self._description is None else self._description

    def args_type(self) -> type[Any]:
        """A `TypedDict` of the parameters."""
        return self._signature.arguments  # type: ignore[no-any-return]

    def return_type(self) -> Any:
        """What the function says it returns."""
        return self._signature.returns

    async def run(self, args: Mapping[str, Any], cancellation_token: CancellationToken | None = None) -> Any:
        """Call the function with arguments of the annotated types."""
        signature = self._signature
        if signature.token is None:
            return await self._execute(signature, args)
        token = CancellationToken(cancellation_token)
        try:
            return await self._execute(signature, {**args, signature.token: token})
        except asyncio.CancelledError:
            token.cancel()  # a thread has no other way to learn of it
            raise
        finally:
            token.close()

    def _decoded(self, args: Mapping[str, Any]) -> Any:
        return codec.decode(self._signature.arguments, args, mode="arguments", path="arguments")

    def _parameters(self) -> Any:
        return self._signature.schema

    @cached_property
    def _signature(self) -> _Signature:
        return _signature_of(self._func, self._target, self._name)

    async def _execute(self, signature: _Signature, named: Mapping[str, Any]) -> Any:
        positional: list[Any] = []
        if signature.positional:
            positional = [named.get(name, default) for name, default in signature.positional.items()]
            named = {name: value for name, value in named.items() if name not in signature.positional}
        if self._is_async:
            return await self._func(*positional, **named)
        result = await run_in_thread(self._func, *positional, **named)
        return await result if hasattr(type(result), "__await__") else result

    def _renew(self, memo: Memo) -> Self:
        # a function holds no state: one tool, and what it has read, serves every session
        return self if renewed(self._func, memo) is self._func else super()._renew(memo)


def as_tool(value: Any, where: str = "tool") -> Tool:
    """`value` if it is a tool, a `FunctionTool` if it is a function; otherwise a `ConfigError` that says `where`."""
    if not isinstance(value, type):
        if hasattr(value, "run_json") and hasattr(value, "schema"):
            return value  # type: ignore[no-any-return]
        if callable(value):
            return FunctionTool(value)
        found = repr(value)
    else:
        found = f"the class {value.__name__}"
    raise ConfigError(f"{where} must be a function or a tool, not {found:.80}")


# --- what a function is


def _target_of(func: Any) -> Any:
    """The function behind a partial, a method, an object with `__call__` or a decorator that says what it wraps."""
    while True:
        if isinstance(func, partial):
            func = func.func
        elif isinstance(func, MethodType):
            func = func.__func__
        elif hasattr(func, "__wrapped__"):
            func = func.__wrapped__
        elif isinstance(func, (FunctionType, type)):
            return func
        elif isinstance(call := vars(type(func)).get("__call__", None), FunctionType):
            func = call
        else:
            return func


def _name_of(func: Any) -> str:
    while isinstance(func, partial):
        func = func.func
    name = getattr(func, "__name__", None) or type(func).__name__
    if not isinstance(name, str) or name == "<lambda>":
        raise ConfigError(f"{func!r} needs a name as a tool: FunctionTool(func, name=...)")
    return name


def _yields(func: Any) -> bool:
    return inspect.isasyncgenfunction(func) or inspect.isgeneratorfunction(func)


def _may_take_anything(func: Any, target: Any) -> bool:
    """Whether the signature must be read at once, to refuse *args; cheap, and True when in doubt."""
    if func is not target or not isinstance(func, FunctionType):
        return True
    return bool(func.__code__.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS))


def _parameters_of(func: Callable[..., Any], name: str) -> list[inspect.Parameter]:
    """The parameters, without those a partial has fixed by name."""
    try:
        parameters = inspect.signature(func).parameters.values()
    except (TypeError, ValueError) as error:
        raise ConfigError(f"tool {name!r}: {func!r} has no signature to make a schema from") from error
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ConfigError(f"tool {name!r} takes {parameter}, which no schema can describe; use named parameters")
    fixed = func.keywords if isinstance(func, partial) else {}
    return [parameter for parameter in parameters if parameter.name not in fixed]


# --- from a function to a schema

# what was read of plain functions and, apart from it, of methods; so that sessions need not read them again
_read: dict[type, weakref.WeakKeyDictionary[Any, _Signature]] = {
    kind: weakref.WeakKeyDictionary() for kind in (FunctionType, MethodType)
}


class _Signature:
    """What a function takes, read once.

    `arguments` is the type of what a model gives, `schema` its schema; `positional` maps the positional-only
    parameters to their defaults; `token` names the parameter that gets the cancellation token.
    """

    __slots__ = ("arguments", "positional", "returns", "schema", "summary", "token")

    def __init__(self, parameters: Sequence[inspect.Parameter], target: Any, name: str) -> None:
        documentation = inspect.getdoc(target) or ""
        hints = _hints(target, name)
        self.summary = " ".join(documentation.split("\n\n")[0].split())
        self.returns = hints.get("return", object)
        self.token = next((each.name for each in parameters if _is_token(each, hints)), None)
        self.positional = {each.name: each.default for each in parameters if each.kind is each.POSITIONAL_ONLY}
        shown = [each for each in parameters if each.name != self.token]
        self.arguments = _arguments_type(shown, hints, name)
        self.schema = codec.schema(self.arguments)
        words = _documented_parameters(documentation)
        for parameter in shown:
            entry = self.schema["properties"][parameter.name]
            if parameter.name in words:
                entry.setdefault("description", words[parameter.name])
            if parameter.default is not parameter.empty:
                try:
                    entry["default"] = codec.encode(parameter.default)
                except EncodeError:
                    pass  # the model need not know it: the function fills it in


def _signature_of(func: Callable[..., Any], target: Any, name: str) -> _Signature:
    known = _read.get(type(func))
    if known is None or getattr(func, "__func__", func) is not target:
        return _Signature(_parameters_of(func, name), target, name)
    if target not in known:
        known[target] = _Signature(_parameters_of(func, name), target, name)
    return known[target]


def _is_token(parameter: inspect.Parameter, hints: Mapping[str, Any]) -> bool:
    hint = hints.get(parameter.name)
    return (
        parameter.name == "cancellation_token"
        or hint is CancellationToken
        or CancellationToken in getattr(hint, "__args__", ())
    )


def _arguments_type(parameters: Sequence[inspect.Parameter], hints: Mapping[str, Any], name: str) -> Any:
    from typing import Any

    if sys.version_info >= (3, 11):
        from typing import NotRequired, TypedDict
    else:
        from typing_extensions import NotRequired, TypedDict
    entries = {}
    for parameter in parameters:
        hint = hints.get(parameter.name, Any)
        if parameter.default is None and hint is not Any:
            hint = _or_none(hint)
        entries[parameter.name] = hint if parameter.default is parameter.empty else NotRequired[hint]
    try:
        return TypedDict(name, entries)  # type: ignore[operator]
    except TypeError as error:
        raise ConfigError(f"tool {name!r} has an annotation that is no type: {error}") from error


def _or_none(hint: Any) -> Any:
    """`hint`, or None; what `Annotated` says of the one is said of both."""
    from typing import Annotated, Optional

    inner = [each for each in getattr(hint, "__args__", ()) if hasattr(each, "__metadata__")]
    if len(inner) == 1 and Optional.__getitem__(inner[0]) == hint:
        hint = inner[0]
    # not `hint | None`, which fails where hint is no class
    if not hasattr(hint, "__metadata__"):
        return Optional.__getitem__(hint)
    parts = (Optional.__getitem__(hint.__origin__), *hint.__metadata__)
    return Annotated[parts]


def _hints(target: Any, name: str) -> dict[str, Any]:
    """The annotations of a function, with names in quotes looked up; that of its result only if it can be."""
    from typing import get_type_hints

    if isinstance(target, type):
        target = vars(target).get("__init__", target)
    try:
        return get_type_hints(target, include_extras=True)
    except NameError as error:
        problem = error
    except TypeError:
        return {}  # a builtin: it has no annotations
    annotations = {key: value for key, value in target.__annotations__.items() if key != "return"}
    try:
        holder = type(name, (), {"__annotations__": annotations})
        return get_type_hints(holder, getattr(target, "__globals__", {}), include_extras=True)
    except NameError:
        raise ConfigError(
            f"tool {name!r} has an annotation that cannot be looked up ({problem}); its types must be importable "
            f"where the function is defined, not only for type checkers"
        ) from problem


# where a docstring describes parameters (anywhere, in Google's section, in numpy's), and what an entry looks like
_FORMS = (
    (r"(?s)(.*)", r"(?m)^:param[ \t]+(?:[^:\n]*[ \t])?(\w+)[ \t]*:(.*(?:\n[ \t]+\S.*)*)"),
    (
        r"(?m)^(?:Args|Arguments|Parameters|Params):[ \t]*\n((?:[ \t]+\S.*\n?|[ \t]*\n)+)",
        r"(?m)^\*{0,2}(\w+)[ \t]*(?:\(.*?\))?:(.*(?:\n[ \t]+\S.*)*)",
    ),
    (
        r"(?ms)^Parameters[ \t]*\n-{3,}[ \t]*\n(.*?)(?=^\S[^\n]*\n-{3,}|\Z)",
        r"(?m)^(\w+)[ \t]*(?::.*)?((?:\n[ \t]+\S.*)+)",
    ),
)


def _documented_parameters(text: str) -> dict[str, str]:
    """What a docstring says about each parameter."""
    from textwrap import dedent

    return {
        name: " ".join(words.split())
        for section, entry in _FORMS
        for block in re.findall(section, text)
        for name, words in re.findall(entry, dedent(block))
        if words.strip()
    }
