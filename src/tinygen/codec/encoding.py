"""Typed values to JSON data, each by its own class.

What is made for a class is kept on that class, so that both go away together: a class declared in a function, or
declared anew in a notebook, leaves nothing behind.
"""

from __future__ import annotations

import base64
import collections.abc as abc
import dataclasses
import enum
import json
from datetime import date, datetime, time, timedelta

from ..errors import ConfigError, EncodeError
from .shapes import Spec, bytes_apart, fields, is_a, is_image, name_of, tag_of, under

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    Encoder = Callable[[Any], Any]


def encode(value: Any) -> Any:
    """`value` as JSON data: dicts with string keys, lists, strings, numbers, booleans, None.

    Containers are copied. Records end with their `type` where AutoGen's do. Raises `EncodeError` for what JSON cannot
    carry, for NaN and infinities, for a value that contains itself and for one that raises when it is read.
    """
    if value.__class__ in _ATOMS:
        return value
    try:
        return _encoders[value.__class__](value)
    except EncodeError as error:
        raise EncodeError("$" + error.path, error.problem) from error.__cause__
    except RecursionError:
        raise EncodeError("$", "nested too deep, or a value contains itself") from None
    except Exception as error:  # the code of a user's class, which the one who wrote the value learns of
        raise EncodeError("$", f"a value in it cannot be read: {error!r:.200}") from error


_ATOMS = frozenset({str, int, bool, type(None)})


_MINE = f"__{__name__}__"  # a copy of this package has an attribute of its own
_static: dict[type, dict[Any, Any]] = {}  # of classes that take no attribute, which are those written in C


def kept_for(cls: type) -> dict[Any, Any]:
    """Where to keep what is made for a class."""
    kept: dict[Any, Any] | None = cls.__dict__.get(_MINE) or _static.get(cls)
    if kept is None:
        kept = {}
        try:
            type.__setattr__(cls, _MINE, kept)
        except TypeError:
            _static[cls] = kept
    return kept


class _Encoders(dict[type, "Encoder"]):
    """Class -> the function that encodes its instances."""

    def __missing__(self, cls: type) -> Encoder:
        kept = kept_for(cls)
        made: Encoder | None = kept.get("encode")
        if made is None:
            made = kept["encode"] = _encoder_of(cls)
            if cls in _static:
                self[cls] = made
        return made


_encoders = _Encoders()


def _encoder_of(cls: type) -> Encoder:
    if dataclasses.is_dataclass(cls) and not issubclass(cls, enum.Enum):
        return _dataclass_encoder(cls)
    for base, encoder in _ENCODERS.items():
        if issubclass(cls, base):
            return encoder
    if is_a(cls, "uuid", "UUID") or is_a(cls, "pathlib", "PurePath"):
        return str
    if is_a(cls, "decimal", "Decimal"):
        return _encode_decimal
    if is_image(cls):
        return lambda value: {"data": value.to_base64()}
    return _encode_model if hasattr(cls, "model_dump") else _refuse


def _refuse(value: Any) -> Any:
    raise EncodeError("", f"{_a(value)} cannot be written as JSON")


def _a(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"a value of class {type(value).__name__}"


def _encode_float(value: float) -> float:
    if value - value != 0:
        raise EncodeError("", f"{value!r} is not a JSON number")
    return float.__float__(value)


def _time_encoder() -> Encoder:
    last: tuple[Any, str] = (None, "")  # messages of one turn share their time

    def encode_time(value: Any) -> str:
        nonlocal last
        known, text = last
        if known is not value:
            text = value.isoformat()
            text = text[:-6] + "Z" if text[-6:] == "+00:00" else text
            last = value, text
        return text

    return encode_time


_encode_time = _time_encoder()


def _encode_bytes(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _encode_decimal(value: Any) -> str:
    if not value.is_finite():
        raise EncodeError("", f"{value!r} is not a JSON number")
    return str(value)


def _encode_enum(value: enum.Enum) -> Any:
    return _encoders[value.value.__class__](value.value)


def _encode_model(value: Any) -> Any:
    try:
        data = value.model_dump(mode="json", by_alias=True)  # by the names that its own model_validate takes
    except Exception as error:  # serializers are the user's code; this says whose
        raise EncodeError("", f"{_a(value)} cannot be written as JSON: {error}") from error
    return _encoders[data.__class__](data)


def _encode_list(value: Iterable[Any]) -> list[Any]:
    out: list[Any] = []
    try:
        for item in value:
            out.append(item if item.__class__ in _ATOMS else _encoders[item.__class__](item))
    except EncodeError as error:
        under(error, len(out))
        raise
    return out


def _encode_set(value: Iterable[Any]) -> list[Any]:
    out = _encode_list(value)
    try:
        return sorted(out)
    except TypeError:
        return sorted(out, key=lambda item: json.dumps(item, sort_keys=True))


def _encode_dict(value: Any) -> dict[str, Any]:
    out: dict[str, Any] = {}
    key: Any = ""
    if not value:
        return out
    try:
        for key, item in value.items():
            if key.__class__ is not str:
                key = encode_key(key)
            out[key] = item if item.__class__ in _ATOMS else _encoders[item.__class__](item)
    except EncodeError as error:
        under(error, key if isinstance(key, str) else repr(key))
        raise
    if len(out) != len(value):
        raise EncodeError("", "two keys are the same as JSON text, like 1 and '1'")
    return out


def encode_key(key: Any) -> str:
    text = key.value if isinstance(key, enum.Enum) else key
    text = str(int(text)) if isinstance(text, int) and not isinstance(text, bool) else _encoders[text.__class__](text)
    if not isinstance(text, str):
        raise EncodeError(
            "", f"{_a(key)} cannot be the key of a JSON object; keys are text, integers or enums of those"
        )
    return text


def written_members(spec: Spec) -> list[tuple[Any, Any]]:
    """Each value of a Literal or an Enum, with its JSON data before it."""
    values = spec.args if spec.kind == "literal" else tuple(spec.tp)
    try:
        return [(encode(value), value) for value in values]
    except EncodeError as error:
        raise ConfigError(f"{name_of(spec)} cannot be carried in JSON: {error.problem}") from error


def written_keys(spec: Spec) -> list[tuple[str, Any]]:
    """Each value of a Literal or an Enum that can be a key, with its text before it."""
    return [(encode_key(value), value) for data, value in written_members(spec) if data.__class__ in (str, int)]


def _dataclass_encoder(cls: type) -> Encoder:
    tag = tag_of(cls)
    declared = [field for field in dataclasses.fields(cls) if field.init]
    names = [field.name for field in declared if "sparse" not in field.metadata]
    sparse = [(field.name, _default(field)) for field in declared if "sparse" in field.metadata]
    if tag is not None and "type" in names:  # declared as a field: what the instance says, still at the end
        names.sort(key="type".__eq__)
        tag = None
    apart: set[str] | None = None

    def encode_bytes(name: str, value: bytes) -> Any:
        nonlocal apart
        apart = _fields_with_bytes_apart(cls) if apart is None else apart
        return {"base64": _encode_bytes(value)} if name in apart else _encode_bytes(value)

    def encode_fields(value: Any) -> dict[str, Any]:
        out: dict[str, Any] = {}
        name = ""
        try:
            for name in names:
                item = getattr(value, name)
                if (kind := item.__class__) in _ATOMS:
                    out[name] = item
                else:
                    out[name] = encode_bytes(name, item) if kind is bytes else _encoders[kind](item)
            for name, default in sparse:
                if (item := getattr(value, name)) != default:
                    out[name] = _encoders[item.__class__](item)
        except EncodeError as error:
            under(error, name)
            raise
        except AttributeError as error:
            raise EncodeError(f".{name}", f"cannot be read: {error}") from error
        if tag is not None:
            out["type"] = tag
        return out

    return encode_fields


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _fields_with_bytes_apart(cls: type) -> set[str]:
    try:
        return {field.name for field in fields(Spec("object", cls)) if bytes_apart(field.spec)}
    except ConfigError:
        return set()


_ENCODERS: dict[type, Encoder] = {
    enum.Enum: _encode_enum,
    str: str.__str__,
    bool: bool,
    int: int.__int__,
    float: _encode_float,
    type(None): lambda value: value,
    abc.Mapping: _encode_dict,
    list: _encode_list,
    tuple: _encode_list,
    set: _encode_set,
    frozenset: _encode_set,
    datetime: _encode_time,
    date: date.isoformat,
    time: _encode_time,
    timedelta: timedelta.total_seconds,
    bytes: _encode_bytes,
}
