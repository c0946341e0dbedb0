"""JSON data to values that need no other converter: numbers, text and what is written as such, choices, models."""

from __future__ import annotations

import base64
import enum
import json
import operator
import re
from datetime import date, datetime, time, timedelta

from ..errors import ConfigError, DecodeError
from .shapes import MISSING, NAMES, expected, is_a, one_of, under

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Converter = Callable[[Any], Any]

JSON_CLASSES = (type(None), bool, int, float, str, list, dict)


def decode_int(data: Any) -> Any:
    if data.__class__ is int:
        return data
    if data.__class__ is float and data.is_integer():
        return int(data)
    raise expected("an integer", data)


def decode_float(data: Any) -> Any:
    if data.__class__ is float:
        if data - data == 0:
            return data
        raise expected("a finite number", data)
    if data.__class__ is int:
        try:
            if (number := float(data)) == data:
                return number
        except OverflowError:
            pass
        raise expected("a number that a float can hold", data)
    raise expected("a number", data)


def decode_duration(data: Any) -> timedelta:
    seconds = decode_float(data)
    try:
        return timedelta(seconds=seconds)
    except (OverflowError, ValueError):
        raise expected("a number of seconds that a timedelta can hold", data) from None


def checked(kind: type, words: str, make: Converter) -> Converter:
    """Decodes data of one class by a function that raises ValueError, or the like, for what it does not take."""

    def convert(data: Any) -> Any:
        if data.__class__ is not kind:
            raise expected(words, data)
        try:
            return make(data)
        except (ValueError, ArithmeticError, KeyError):
            raise expected(words, data) from None

    return convert


def exactly(kind: type, words: str) -> Converter:
    """Decodes data of one class, which is the value."""

    def convert(data: Any) -> Any:
        if data.__class__ is kind:
            return data
        raise expected(words, data)

    return convert


PLAIN: dict[str, type] = {"none": type(None), "bool": bool, "int": int, "str": str}  # not float, for NaN is one
SIMPLE: dict[str, Converter] = {
    **{kind: exactly(cls, NAMES[kind]) for kind, cls in PLAIN.items()},
    "any": lambda data: data,
    "int": decode_int,
    "float": decode_float,
    "duration": decode_duration,
}

_OFFSET = r"(Z|[+-]\d\d:\d\d(?::\d\d(?:\.\d+)?)?)?"
_TIME = re.compile(rf"(\d\d:\d\d)(:\d\d)?(?:\.(\d+))?{_OFFSET}", re.ASCII | re.IGNORECASE)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
_DECIMAL = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_INT_KEY = re.compile(r"0|-?[1-9]\d*", re.ASCII)


def text_decoder(cls: type, strict: bool) -> Converter:
    if cls is datetime:
        return _datetime_decoder(strict)
    if cls is time:
        return checked(str, "a time like '12:00:00'", lambda text: time.fromisoformat(_iso_time(text, strict)))
    if cls is date:
        return checked(str, "a date like '2026-01-31'", lambda text: date.fromisoformat(_full(_DATE, text)))
    if cls is bytes:
        return decode_bytes
    if is_a(cls, "uuid", "UUID"):
        return checked(str, "a UUID", lambda text: cls(_full(_UUID, text)))
    if is_a(cls, "decimal", "Decimal"):
        return checked(str, "a decimal number as text, like '12.50'", lambda text: cls(_full(_DECIMAL, text)))
    return checked(str, "a path", cls)


def _full(pattern: re.Pattern[str], text: str) -> str:
    if pattern.fullmatch(text) is None:
        raise ValueError(text)
    return text


def _datetime_decoder(strict: bool) -> Converter:
    def read_any(text: str) -> datetime:
        if text[10:11] not in ("T", "t", " "):
            raise ValueError(text)
        return datetime.fromisoformat(f"{_full(_DATE, text[:10])}T{_iso_time(text[11:], strict)}")

    convert_any = checked(str, "a date and time like '2026-01-31T12:00:00Z'", read_any)
    last: tuple[Any, Any] = (None, None)  # messages of one turn share their time

    def convert(data: Any) -> Any:
        nonlocal last
        known, made = last
        if data != known or data.__class__ is not str:
            made = read(data)
            last = data, made
        return made

    def read(data: Any) -> Any:
        if data.__class__ is str and len(data) == 27 and data[4:20:3] == "--T::." and data[26] == "Z":  # as we write it
            try:
                return datetime.fromisoformat(data[:26] + "+00:00")
            except ValueError:
                pass
        return convert_any(data)

    return convert


def _iso_time(text: str, strict: bool) -> str:
    """Any ISO time as Python 3.10 reads it. Digits below microseconds are lost, so `strict` allows zeros only."""
    match = _TIME.fullmatch(text)
    if match is None or (strict and (match[3] or "")[6:].strip("0")):
        raise ValueError(text)
    minutes, seconds, fraction, offset = match.groups("")
    fraction = f".{fraction[:6]:0<6}" if fraction else ""
    return f"{minutes}{seconds or ':00'}{fraction}{'+00:00' if offset in ('Z', 'z') else offset}"


def int_from_key(text: str) -> int:
    return int(_full(_INT_KEY, text))


decode_bytes = checked(str, "base64 text", lambda text: base64.b64decode(text, validate=True))


def choice(pairs: list[tuple[Any, Any]]) -> Converter:
    """Decodes data that must be one of the given, each of which stands for a value."""
    table = {(data.__class__, data): value for data, value in pairs if data.__class__ not in (list, dict)}
    others = [(data, value) for data, value in pairs if data.__class__ in (list, dict)]
    words = one_of([data for data, _ in pairs])

    def convert(data: Any) -> Any:
        kind, value = data.__class__, MISSING
        if kind in JSON_CLASSES and kind not in (list, dict):
            value = table.get((kind, data), MISSING)
        elif kind in JSON_CLASSES:
            value = next((value for one, value in others if one == data and repr(one) == repr(data)), MISSING)
        if value is MISSING:
            raise expected(words, data)
        return value

    return convert


def flag_decoder(cls: type[enum.Flag]) -> Converter:
    def convert(data: Any) -> enum.Flag:
        number = decode_int(data)
        try:
            if number >= 0 or issubclass(cls, enum.IntFlag):
                return cls(number)
        except ValueError:
            pass
        raise expected(f"a sum of the flags of {cls.__name__}", data)

    return convert


def limited(convert: Converter, limits: dict[str, Any]) -> Converter:
    try:
        re.compile(limits.get("pattern", ""))
    except re.error as error:
        raise ConfigError(f"the pattern {limits['pattern']!r} is no regular expression: {error}") from error

    def convert_limited(data: Any) -> Any:
        value = convert(data)
        for name, bound in limits.items():
            _, test, words = LIMITS[name]
            try:
                fits = test(value, bound)
            except TypeError:  # a limit that says nothing about such values
                fits = True
            if not fits:
                raise expected(words.format(getattr(bound, "pattern", bound)), data)
        return value

    return convert_limited


def is_multiple(value: Any, step: Any) -> bool:
    """Whether `value` is a multiple of `step`; 0.3 is one of 0.1."""
    if isinstance(value, int) and isinstance(step, int):
        return value % step == 0
    try:
        quotient = value / step
        return bool(abs(quotient - round(quotient)) < 1e-9)
    except (OverflowError, ValueError):
        return False


# what `Annotated` may demand -> what JSON Schema calls it, the test, and what an error says
LIMITS: dict[str, tuple[str, Callable[[Any, Any], Any], str]] = {
    "ge": ("minimum", operator.ge, "at least {!r}"),
    "gt": ("exclusiveMinimum", operator.gt, "more than {!r}"),
    "le": ("maximum", operator.le, "at most {!r}"),
    "lt": ("exclusiveMaximum", operator.lt, "less than {!r}"),
    "multiple_of": ("multipleOf", is_multiple, "a multiple of {!r}"),
    "min_length": ("min", lambda value, bound: len(value) >= bound, "a length of at least {!r}"),
    "max_length": ("max", lambda value, bound: len(value) <= bound, "a length of at most {!r}"),
    "pattern": ("pattern", lambda value, bound: re.search(bound, value), "a string that matches {!r}"),
}


def decode_model(cls: Any, data: Any) -> Any:
    """Data as a pydantic model, which decodes itself."""
    for each in (data, _with_whole_numbers(data)):
        try:
            return cls.model_validate_json(json.dumps(each), strict=True)
        except Exception as error:  # validators are the user's code; whoever gave the data learns of it
            refusal = error
    first = refusal.errors()[0] if hasattr(refusal, "errors") else {"loc": (), "msg": str(refusal)}
    made = DecodeError("", f"{cls.__name__} refuses this: {first['msg']}")
    for step in reversed(first["loc"]):
        under(made, step)
    raise made from refusal


def _with_whole_numbers(data: Any) -> Any:
    """The data with 3 for 3.0, which pydantic takes for an int in its strict mode, and for a float too."""
    if isinstance(data, float) and data.is_integer():
        return int(data)
    if isinstance(data, list):
        return [_with_whole_numbers(item) for item in data]
    return {key: _with_whole_numbers(item) for key, item in data.items()} if isinstance(data, dict) else data
