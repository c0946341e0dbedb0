"""What a type annotation means, in the few words that JSON has.

`read` turns an annotation into a `Spec`: a kind out of a short list, and the specs of its parts. `decoding` makes
functions of specs and `json_schema` writes them as JSON Schema, so both mean the same by a type. The fields of a class
and the value of a `type X = ...` alias are read when they are asked for, so types may be recursive.
"""

from __future__ import annotations

import collections.abc as abc
import dataclasses
import enum
import functools
import gc
import importlib
import inspect
import json
import sys
from datetime import date, datetime, time, timedelta

from ..errors import ConfigError, DecodeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

MISSING = dataclasses.MISSING


# --- what a type means


class Spec:
    """What an annotation says.

    `kind` is any, none, bool, int, float, str, text (a value written as text), duration, literal, enum, list, set,
    frozenset, tuple, dict, union, image, object, model (pydantic) or alias. `tp` is the class or alias, `args` the
    parts (of a literal: the values), `env` what type variables stand for, `limits` what `Annotated` demands.
    """

    __slots__ = ("args", "description", "env", "kind", "limits", "tp")

    def __init__(self, kind: str, tp: Any = None, args: tuple[Any, ...] = (), env: dict[Any, Spec] | None = None):
        self.kind = kind
        self.tp = tp
        self.args = args
        self.env = env or {}
        self.limits: dict[str, Any] = {}
        self.description: str | None = None

    @property
    def key(self) -> Any:
        """Equal for equal types; by it recursion is noticed."""
        parts = (arg.key if isinstance(arg, Spec) else repr(arg) for arg in self.args)
        limits = tuple((name, repr(bound)) for name, bound in self.limits.items())
        return self.kind, self.tp, *parts, *(spec.key for spec in self.env.values()), limits

    def noted(self, description: str | None, limits: dict[str, Any]) -> Spec:
        """This, with what `Annotated` says about it; limits on a union are limits on its members."""
        args = self.args
        if self.kind == "union" and limits:
            args = tuple(member.noted(None, limits) for member in args)
            limits = {}
        made = Spec(self.kind, self.tp, args, self.env)
        made.limits = {**self.limits, **limits}
        made.description = description or self.description
        return made


class Field:
    """One entry of a class that is written as an object. `default` and `factory` are MISSING where there is none."""

    __slots__ = ("default", "factory", "name", "required", "spec")

    def __init__(self, name: str, spec: Spec, required: bool, default: Any = MISSING, factory: Any = MISSING) -> None:
        self.name = name
        self.spec = spec
        self.required = required
        self.default = default
        self.factory = factory


class _Scope:
    """Where an annotation stands: what its names and its type variables mean."""

    __slots__ = ("_known", "env", "module", "owner")

    def __init__(self, owner: Any = None, env: dict[Any, Spec] | None = None, module: str | None = None) -> None:
        self.owner = owner
        self.env = env or {}
        self.module = module or getattr(owner, "__module__", None)
        self._known: dict[str | None, dict[str, Any]] = {}  # module -> what names mean there

    def find(self, text: str, module: str | None = None) -> Any:
        """The type that an annotation's text names."""
        module = module or self.module
        names = self._known.get(module) or self._known.setdefault(module, self._names(module))
        try:
            return _evaluate(text, names)
        except NameError:
            names = {**_all_of("typing_extensions"), **names, **_frame_names(self.owner)}
        except Exception as error:  # whatever a wrong annotation raises, it is a wrong annotation
            raise ConfigError(f"cannot make sense of the annotation {text!r}: {error}") from error
        try:
            return _evaluate(text, names)
        except NameError as error:
            raise ConfigError(
                f"cannot make sense of the annotation {text!r}: {error}; declare what it names at module level, and "
                f"import it outside of `if TYPE_CHECKING`"
            ) from error

    def _names(self, module: str | None) -> dict[str, Any]:
        names = {**_all_of("typing"), **_all_of("collections.abc")}
        if self.owner is not None:
            names.update((name, value) for name, value in vars(self.owner).items() if isinstance(value, type))
        names.update(vars(sys.modules[module]) if module in sys.modules else {})
        if f"{module}.".startswith(__name__.removesuffix("codec.shapes")):
            names["T"] = object  # our own modules declare it for type checkers alone
        if "<locals>" in getattr(self.owner, "__qualname__", ""):
            names[self.owner.__name__] = self.owner
        return {**names, **{param.__name__: param for param in getattr(self.owner, "__type_params__", ())}}


def _evaluate(text: str, names: dict[str, Any]) -> Any:
    import typing

    holder = type("Holder", (), {"__annotations__": {"it": text}})
    return typing.get_type_hints(holder, globalns=names, include_extras=True)["it"]


@functools.lru_cache(maxsize=4)
def _all_of(module: str) -> dict[str, Any]:
    """The public names of a module, by which annotations call them; none if it is not installed."""
    try:
        loaded = importlib.import_module(module)
    except ImportError:
        return {}
    return {name: getattr(loaded, name, None) for name in loaded.__all__}


def _frame_names(owner: Any) -> dict[str, Any]:
    """The local names beside a class that was declared in a function, if that very call is still going on."""
    outer = getattr(owner, "__qualname__", "").rpartition(".<locals>.")[0].rpartition(".")[2]
    frame = inspect.currentframe() if outer else None
    while frame is not None:
        if frame.f_code.co_name == outer and frame.f_locals.get(owner.__name__) is owner:
            return dict(frame.f_locals)
        frame = frame.f_back
    return {}


_CLASSES: dict[Any, str] = {
    None: "none",
    type(None): "none",
    object: "any",
    bool: "bool",
    int: "int",
    float: "float",
    str: "str",
    timedelta: "duration",
    **dict.fromkeys((datetime, date, time, bytes), "text"),
}
_CONTAINERS: dict[Any, str] = {
    **dict.fromkeys((list, abc.Sequence, abc.MutableSequence, abc.Collection, abc.Iterable), "list"),
    **dict.fromkeys((set, abc.Set, abc.MutableSet), "set"),
    frozenset: "frozenset",
    tuple: "tuple",
    **dict.fromkeys((dict, abc.Mapping, abc.MutableMapping), "dict"),
}
_QUALIFIERS = ("Required", "NotRequired", "ReadOnly", "Final", "ClassVar")


def read(tp: Any, scope: _Scope | None = None) -> Spec:
    """What the type `tp` means. Raises `ConfigError` for a type that JSON cannot carry."""
    import typing

    scope = scope or _Scope()
    notes: list[Any] = []
    while True:
        if isinstance(tp, (str, typing.ForwardRef)):
            tp = _named(tp, scope)
        elif isinstance(tp, typing.TypeVar):
            known = scope.env.get(tp)
            if known is not None:
                return _noted(known, notes)
            tp = _stand_in(tp)
        elif typing.get_origin(tp) is typing.Annotated:
            notes = [*tp.__metadata__, *notes]
            tp = tp.__origin__
        elif _name(tp) == "Self":
            tp = scope.owner
        elif _name(tp) in _QUALIFIERS:
            tp = next(iter(typing.get_args(tp)), typing.Any)
        elif hasattr(tp, "__supertype__"):
            tp = tp.__supertype__
        else:
            return _noted(_classify(tp, scope), notes)


def _name(tp: Any) -> str:
    """The name of the special form that a type is made with; "" for classes."""
    import typing

    head = typing.get_origin(tp) or tp
    return "" if isinstance(head, type) else getattr(head, "_name", None) or type(head).__name__


def _named(tp: Any, scope: _Scope) -> Any:
    if isinstance(tp, str):
        return scope.find(tp)
    module = getattr(tp, "__forward_module__", None)
    return scope.find(tp.__forward_arg__, getattr(module, "__name__", module))


def _stand_in(variable: Any) -> Any:
    for candidate in (getattr(variable, "__default__", None), variable.__bound__):
        if candidate is not None and "NoDefault" not in repr(candidate):
            return candidate
    return object


def _classify(tp: Any, scope: _Scope) -> Spec:
    import typing

    origin, args = typing.get_origin(tp), typing.get_args(tp)
    head = origin or tp
    name = _name(tp)
    if name == "Literal":
        return Spec("literal", None, args)
    if head is typing.Union or type(tp).__name__ == "UnionType":
        return _union(args, scope)
    if name == "TypeAliasType":
        return Spec("alias", head, (), _bind(head.__type_params__, args, scope))
    known = isinstance(head, abc.Hashable)
    if known and head in _CONTAINERS:
        return _container(_CONTAINERS[head], args, scope, bare=origin is None or tp is typing.Tuple)  # noqa: UP006
    if known and head in _CLASSES and not args:
        return Spec(_CLASSES[head], tp)
    if tp is typing.Any or name == "LiteralString":
        return Spec("any" if tp is typing.Any else "str")
    made = _class(head, args, scope) if isinstance(head, type) else None
    if made is None:
        raise ConfigError(
            f"{tp!r} cannot be carried in JSON; what can: str, int, float, bool, None, list, tuple, set, dict, bytes, "
            f"Literal, Enum, dates, times, UUID, Decimal, Path, dataclasses, records, TypedDicts, pydantic models, Any"
        )
    return made


def _union(args: tuple[Any, ...], scope: _Scope) -> Spec:
    members: list[Spec] = []
    for arg in args:
        spec = read(arg, scope)
        members.extend(spec.args if spec.kind == "union" and not spec.description else [spec])
    return Spec("union", None, tuple(members))


def _container(kind: str, args: tuple[Any, ...], scope: _Scope, bare: bool) -> Spec:
    if kind == "tuple":
        args = (object, ...) if bare else args
        return Spec("tuple", tuple, tuple(arg if arg is ... else read(arg, scope) for arg in args))
    parts = tuple(read(arg, scope) for arg in args)
    if kind != "dict":
        return Spec(kind, None, parts or (Spec("any"),))
    key, value = parts or (Spec("str"), Spec("any"))
    if key.kind not in ("any", "str", "int", "enum", "literal", "text"):
        raise ConfigError(f"the keys of a JSON object are text: {args[0]!r} cannot be one; use str, int or an Enum")
    return Spec("dict", None, (key, value))


def _class(cls: type, args: tuple[Any, ...], scope: _Scope) -> Spec | None:
    if issubclass(cls, enum.Enum):
        return Spec("enum", cls)
    if is_a(cls, "decimal", "Decimal") or is_a(cls, "uuid", "UUID") or is_a(cls, "pathlib", "PurePath"):
        return Spec("text", cls)
    if is_image(cls):
        return Spec("image", cls)
    if dataclasses.is_dataclass(cls) or hasattr(cls, "__required_keys__"):
        return Spec("object", cls, (), _bind(getattr(cls, "__parameters__", ()), args, scope))
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        hints = _annotations(cls)
        return Spec("tuple", cls, tuple(_read_field(cls, name, hints.get(name, object)) for name in cls._fields))
    if hasattr(cls, "model_json_schema") and hasattr(cls, "model_validate"):
        return Spec("model", cls)
    return None


def is_a(cls: type, module: str, name: str) -> bool:
    """Whether `cls` derives from a class of a module that this package does not import by itself."""
    loaded = sys.modules.get(module)
    return loaded is not None and issubclass(cls, getattr(loaded, name))


def is_lasting(tp: Any) -> bool:
    """Whether all classes in a type stay as long as the program: those that can be imported by their names."""
    import typing

    if not issubclass(type(tp), type):
        origin = typing.get_origin(tp)
        return origin is None or all(map(is_lasting, (origin, *typing.get_args(tp))))
    found = sys.modules.get(tp.__module__) if tp.__module__ != "__main__" else None
    for name in tp.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is tp or not tp.__flags__ & 1 << 9  # the flag of classes that are not written in C


def is_image(cls: type) -> bool:
    """Whether `cls` is `messages.Image`."""
    from ..messages import Image

    return issubclass(cls, Image)


def _bind(params: Iterable[Any], args: tuple[Any, ...], scope: _Scope) -> dict[Any, Spec]:
    return {param: read(arg, scope) for param, arg in zip(params, args)}


def alias_value(spec: Spec) -> Spec:
    """What a `type X = ...` alias stands for."""
    return read(spec.tp.__value__, _Scope(None, spec.env, spec.tp.__module__))


_LIMITS = ("ge", "gt", "le", "lt", "multiple_of", "min_length", "max_length", "pattern")


def _noted(spec: Spec, notes: list[Any]) -> Spec:
    description: str | None = None
    limits: dict[str, Any] = {}
    for note in notes:
        if isinstance(note, (str, type)):
            description = note if isinstance(note, str) else description
            continue
        text = getattr(note, "description", None) or getattr(note, "documentation", None)
        description = text if isinstance(text, str) else description
        inner = getattr(note, "metadata", None)  # pydantic's Field keeps its limits there
        for source in (note, *(inner if isinstance(inner, (list, tuple)) else ())):
            for name in _LIMITS:
                bound = getattr(source, name, None)
                if bound is not None and not callable(bound):
                    limits[name] = bound
    return spec.noted(description, limits) if description or limits else spec


# --- the fields of a class


def fields(spec: Spec) -> list[Field]:
    """The entries of an `object`: a dataclass, record or TypedDict. Fields that `__init__` does not take are none."""
    return list(_typed_dict_fields(spec) if hasattr(spec.tp, "__required_keys__") else _dataclass_fields(spec))


def _dataclass_fields(spec: Spec) -> Iterator[Field]:
    cls = spec.tp
    scopes: dict[Any, _Scope] = {}
    _collect_scopes(cls, spec.env, scopes)
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        having = [base for base in cls.__mro__ if vars(base).get("__dataclass_fields__", {}).get(field.name) is field]
        owner = having[-1]  # where the field was declared, and so where its annotation is to be understood
        found = _read_field(cls, field.name, field.type, scopes.get(owner) or _Scope(owner))
        text = field.metadata.get("description")
        if isinstance(text, str):
            found = found.noted(text, {})
        required = field.default is MISSING and field.default_factory is MISSING
        yield Field(field.name, found, required, field.default, field.default_factory)


def _typed_dict_fields(spec: Spec) -> Iterator[Field]:
    import typing

    cls = spec.tp
    scope = _Scope(cls, spec.env)
    for name, hint in _annotations(cls).items():
        required = name in cls.__required_keys__
        hint = _named(hint, scope) if isinstance(hint, (str, typing.ForwardRef)) else hint
        inner = hint
        while hasattr(inner, "__metadata__") or _name(inner) == "ReadOnly":
            inner = typing.get_args(inner)[0]
        required = {"Required": True, "NotRequired": False}.get(_name(inner), required)
        yield Field(name, _read_field(cls, name, hint, scope), required)


def _read_field(cls: type, name: str, tp: Any, scope: _Scope | None = None) -> Spec:
    try:
        return read(tp, scope or _Scope(cls))
    except ConfigError as error:
        raise ConfigError(f"{cls.__name__}.{name}: {error}") from error.__cause__


def _collect_scopes(cls: Any, env: dict[Any, Spec], scopes: dict[Any, _Scope]) -> None:
    import typing

    scopes.setdefault(cls, _Scope(cls, env))
    for base in vars(cls).get("__orig_bases__", cls.__bases__):
        origin = typing.get_origin(base) or base
        if dataclasses.is_dataclass(origin):
            bound = _bind(getattr(origin, "__parameters__", ()), typing.get_args(base), scopes[cls])
            _collect_scopes(origin, bound, scopes)


def _annotations(cls: type) -> dict[str, Any]:
    if sys.version_info >= (3, 14):
        import annotationlib

        return dict(annotationlib.get_annotations(cls, format=annotationlib.Format.FORWARDREF))
    return dict(getattr(cls, "__annotations__", {}))


def bytes_apart(union: Spec) -> bool:
    """Whether bytes in this union are written as `{"base64": ...}`, because it takes strings too."""
    kinds = {member.kind for member in union.args}
    return "str" in kinds and any(member.tp is bytes for member in union.args)


# --- records and their tags


def tag_of(cls: type) -> str | None:
    """The tag that the JSON of this record ends with; None for records and other classes that are written without."""
    tag = getattr(cls, "type", None)
    return tag if getattr(cls, "_tagged", False) and isinstance(tag, str) else None


def is_record(cls: type) -> bool:
    """Whether `cls` derives from `messages.Record`."""
    from ..records import Record

    return issubclass(cls, Record)


def is_abstract(cls: type) -> bool:
    """Whether a message class leaves open what every message must say."""
    from ..messages import BaseChatMessage, BaseMessage

    to_text, to_model_text = getattr(cls, "to_text", None), getattr(cls, "to_model_text", None)
    return to_text is BaseMessage.to_text or to_model_text is BaseChatMessage.to_model_text


def declared(tag: Any, cls: type) -> type | None:
    """The record declared under `tag` that is a `cls`; `cls` itself before others. Raises if two would do."""
    found = _declared(tag, cls)
    if len(found) > 1 and cls not in found:
        found.clear()
        gc.collect()  # classes that nobody has any more may be there still
        found = _declared(tag, cls)
    if len(found) < 2 or cls in found:
        return cls if cls in found else next(iter(found), None)
    places = " and ".join(sorted({f"{made.__module__}.{made.__qualname__}" for made in found}))
    raise DecodeError("", f"the type {tag!r} is ambiguous, {len(found)} classes have that name ({places}); rename one")


def _declared(tag: Any, cls: type) -> list[type]:
    return [made for made in records().get(tag, ()) if issubclass(made, cls)] if isinstance(tag, str) else []


def records() -> Any:
    """Tag -> the records declared under it."""
    from ..records import registry

    return registry


def declared_under(cls: type) -> dict[str, list[type]]:
    """Tag -> the records declared under it that are a `cls`."""
    under = {tag: [made for made in classes if issubclass(made, cls)] for tag, classes in sorted(records().items())}
    return {tag: classes for tag, classes in under.items() if classes}


# --- what an error says


def under(error: Any, step: Any) -> None:
    """Note that `error` (a DecodeError or EncodeError on its way out) happened below `step`, a key or an index."""
    if isinstance(step, str):
        error.path = f".{step[:80]}{error.path}" if step.isidentifier() else f"[{step[:80]!r}]{error.path}"
    else:
        error.path = f"[{step}]{error.path}"


def lacking(name: str) -> DecodeError:
    """The error for an object without a key that it must have."""
    error = DecodeError("", "this key is missing")
    under(error, name)
    return error


def expected(what: str, found: Any) -> DecodeError:
    """The error for data that is not `what`."""
    return DecodeError("", f"expected {what}, found {show(found)}")


def show(data: Any) -> str:
    """JSON data in a few words, for an error."""
    if isinstance(data, str):
        return f"the string {data!r}" if len(data) <= 60 else f"the string {data[:57]!r}... of {len(data)} characters"
    if isinstance(data, bool):
        return "true" if data else "false"
    if isinstance(data, int) and data.bit_length() > 200:
        return f"an integer of {data.bit_length()} bits"
    if isinstance(data, (int, float)):
        return f"the number {data!r}"
    if isinstance(data, (list, tuple)):
        return f"an array of {len(data)}"
    if isinstance(data, dict):
        return f"an object with {len(data)} keys" if data else "an empty object"
    return "null" if data is None else f"a {type(data).__name__}"


def name_of(spec: Spec) -> str:
    """A type in the words of JSON, for an error."""
    if spec.kind == "union":
        return " or ".join(dict.fromkeys(map(name_of, spec.args)))
    if spec.kind in ("object", "model", "enum", "text", "alias"):
        return f"a {spec.tp.__name__}"
    if spec.kind == "literal":
        return " or ".join(map(repr, spec.args))
    return NAMES.get(spec.kind, "an array")


NAMES = {
    "any": "anything",
    "none": "null",
    "bool": "true or false",
    "int": "an integer",
    "float": "a number",
    "str": "a string",
    "duration": "a number of seconds",
    "dict": "an object",
    "image": "an Image",
}


def one_of(values: list[Any]) -> str:
    """A choice of JSON data, for an error."""
    shown = [json.dumps(value, ensure_ascii=False)[:60] for value in values[:20]] + ["..."] * (len(values) > 20)
    return f"one of {', '.join(shown)}" if len(shown) != 1 else shown[0]


def deepest(errors: list[DecodeError]) -> DecodeError | None:
    """Of the errors of several tries, the one that came farthest; None if none came past the start."""
    best = max(errors, key=lambda error: error.path.count(".") + error.path.count("["), default=None)
    return best if best is not None and best.path else None
