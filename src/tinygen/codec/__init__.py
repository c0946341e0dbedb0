"""Typed values to JSON and back: one codec for the wire, for state, for the journal and for tool arguments.

A value is encoded by its own class, and decoded by the type that is asked for. Nothing in a document names code: a
record's `type` is only looked up among the records that the program has declared.

What does not come back as it was: an element of an `Any` field (a date is text there), what a union with `str` takes
as text too (`str | datetime` gives the text), a subclass of a plain dataclass where the type says its base, a field
that `__init__` does not take. Bytes in a field that also takes strings are written `{"base64": ...}` and do come back,
unless they stand inside a container.

Inside: `shapes` says what a type means, `json_schema` writes that as JSON Schema and checks data against schemas,
`encoding` and `decoding` (with `scalars`) convert.
"""

from __future__ import annotations

import json
import re

from ..errors import DecodeError, EncodeError
from .encoding import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .decoding import decode as decode
    from .json_schema import matches as matches
else:

    def __getattr__(name):
        """What only decoding needs is loaded when it is first asked for."""
        if name == "decode":
            from .decoding import decode as found
        elif name == "matches":
            from .json_schema import matches as found
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = found
        return found


__all__ = ["decode", "digest", "dumps", "encode", "loads", "matches", "schema"]

MAX_DEPTH = 128  # of documents read and written


def loads(text: str | bytes, *, max_bytes: int = 64_000_000, max_depth: int = MAX_DEPTH) -> Any:
    """The data in JSON text. Raises `DecodeError` for anything that is not exactly one JSON document.

    Refused, beside what is no JSON: duplicate keys, NaN, infinities and numbers that overflow to them, text that is
    not Unicode (invalid UTF-8, lone surrogates), and documents above the limits.
    """
    try:
        raw = text.encode() if isinstance(text, str) else bytes(memoryview(text))
        if len(raw) > max_bytes:
            raise DecodeError("$", f"the document has {len(raw)} bytes, {max_bytes} are allowed")
        data = _parse(text if isinstance(text, str) else raw.decode())
        if b"\\" in raw and (b"\\ud" in raw or b"\\uD" in raw):
            json.dumps(data, ensure_ascii=False).encode()
    except DecodeError:
        raise
    except UnicodeError as error:
        raise DecodeError("$", f"not Unicode text: {error.reason} at {error.start}") from None  # type: ignore[attr-defined]
    except json.JSONDecodeError as error:
        near = error.doc[error.pos : error.pos + 20]
        raise DecodeError("$", f"not JSON: {error.msg} at character {error.pos}, before {near!r}") from None
    except RecursionError:
        raise DecodeError("$", f"nested deeper than {max_depth} levels") from None
    except TypeError:
        raise DecodeError("$", f"expected JSON text, found a {type(text).__name__}") from None
    except ValueError:  # from int()
        raise DecodeError("$", "a number has too many digits") from None
    if _deeper_than(max_depth, raw):
        raise DecodeError("$", f"nested deeper than {max_depth} levels")
    return data


def dumps(value: Any, *, indent: int | None = None) -> str:
    """`value` as JSON text. Raises `EncodeError` for what JSON, or `loads`, would not take."""
    writer = _WRITER if indent is None else json.JSONEncoder(ensure_ascii=False, indent=indent)
    text, raw = _written(writer, value)
    if _deeper_than(MAX_DEPTH, raw):
        raise EncodeError("$", f"nested deeper than {MAX_DEPTH} levels")
    return text


def digest(data: Any) -> str:
    """32 hexadecimal digits that are the same for the same data, in any process, whatever the order of keys."""
    import hashlib

    return hashlib.sha256(_written(_CANONICAL, data)[1]).hexdigest()[:32]


def _written(writer: json.JSONEncoder, value: Any) -> tuple[str, bytes]:
    data = encode(value)
    try:
        text = writer.encode(data)
        return text, text.encode()
    except UnicodeError:
        raise EncodeError("$", "a string is not Unicode text, it has a lone surrogate") from None
    except ValueError:  # from str()
        raise EncodeError("$", "an integer has too many digits") from None
    except RecursionError:
        raise EncodeError("$", f"nested deeper than {MAX_DEPTH} levels") from None


def schema(tp: Any) -> dict[str, Any]:
    """The JSON Schema of a type: what `decode(tp, ..., mode="arguments")` takes."""
    from .json_schema import to_schema

    return to_schema(tp)


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    keys = [key for key, _ in pairs]
    raise DecodeError("$", f"not JSON: the key {max(keys, key=keys.count)[:80]!r} stands twice in one object")


def _finite(text: str) -> float:
    number = float(text)
    if number - number != 0:
        raise DecodeError("$", f"not JSON: the number {text[:40]} is too large")
    return number


def _no_constant(name: str) -> Any:
    raise DecodeError("$", f"not JSON: {name} is not a JSON number")


_parse = json.JSONDecoder(object_pairs_hook=_pairs, parse_float=_finite, parse_constant=_no_constant).decode
_WRITER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False)
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), check_circular=False)
_ONE_BRACKET = bytes.maketrans(b"{}", b"[]")
_NO_MARK = bytes(set(range(256)) - set(b'{}[]"'))


def _deeper_than(limit: int, raw: bytes) -> bool:
    """Whether arrays and objects of a JSON document nest deeper; without a look at each of its values."""
    if len(raw) <= 2 * limit:
        return False
    if b"\\" in raw:
        raw = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    marks = raw.translate(_ONE_BRACKET, _NO_MARK).replace(b'""', b"")
    if b'"' in marks:  # some strings hold brackets
        marks = re.sub(rb'"[^"]*"', b"", marks)
    for _ in range(limit):
        if not marks:
            break
        marks = marks.replace(b"[]", b"")
    return bool(marks)
