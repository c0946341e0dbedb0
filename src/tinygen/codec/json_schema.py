"""JSON Schema: of a type, and to check data with.

`to_schema` writes what `shapes.read` found in a type; `matches` checks data against any schema, such as those that
tools of other makers bring along. The dialect is the part of 2020-12 that models and their providers understand.
"""

from __future__ import annotations

import collections.abc as abc
import enum
import functools
import inspect
import operator
import re

from ..errors import DecodeError, EncodeError, did_you_mean
from .encoding import encode, written_keys, written_members
from .scalars import LIMITS, is_multiple
from .shapes import (
    MISSING,
    Spec,
    alias_value,
    bytes_apart,
    declared_under,
    deepest,
    expected,
    fields,
    is_abstract,
    is_record,
    lacking,
    one_of,
    read,
    show,
    tag_of,
    under,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from .shapes import Field


# --- of a type


def to_schema(tp: Any) -> dict[str, Any]:
    """The JSON Schema of a type."""
    writer = _Writer()
    made = writer.write(read(tp))
    name = made.get("$ref", "").rpartition("/")[2]
    if name:
        made = {**writer.defs[name], **{key: value for key, value in made.items() if key != "$ref"}}
    return {**made, "$defs": writer.defs} if writer.defs else made


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


_TEXTS = {
    "bytes": {"contentEncoding": "base64"},
    "datetime": {"format": "date-time"},
    "date": {"format": "date"},
    "time": {"format": "time"},
    "UUID": {"format": "uuid"},
}
_FIXED: dict[str, dict[str, Any]] = {
    "any": {},
    "none": {"type": "null"},
    "bool": {"type": "boolean"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "str": {"type": "string"},
    "duration": {"type": "number", "description": "seconds"},
    "image": _object({"data": {"type": "string", **_TEXTS["bytes"]}}, ["data"]),
}


class _Writer:
    """Writes specs as JSON Schema; what is recursive goes to `defs`, all else stands where it is used."""

    def __init__(self) -> None:
        self.defs: dict[str, Any] = {}
        self._open: set[Any] = set()
        self._names: dict[Any, str] = {}  # of the recursive types met so far
        self._models: dict[Any, dict[str, Any]] = {}

    def write(self, spec: Spec, tagged: bool = False) -> dict[str, Any]:
        """The schema of this type. `tagged` records are told apart by their `type`, which they must say."""
        if spec.kind in _FIXED:
            made = _FIXED[spec.kind]
        elif spec.kind == "object":
            made = self._once(spec, lambda: self._object(spec, tagged))
        else:
            made = getattr(self, "_" + spec.kind)(spec)
        made = {**made, **_limit_keywords(spec)}
        return {**made, "description": spec.description} if spec.description else made

    def _once(self, spec: Spec, write: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        key = spec.key
        if key not in self._open and key not in self._names:
            self._open.add(key)
            made = write()
            self._open.discard(key)
            if key not in self._names:
                return made
            self.defs[self._names[key]] = made
        elif key not in self._names:
            self._names[key] = _take_name(spec.tp.__name__, self.defs)
        return {"$ref": f"#/$defs/{self._names[key]}"}

    def _alias(self, spec: Spec) -> dict[str, Any]:
        return self._once(spec, lambda: self.write(alias_value(spec)))

    def _text(self, spec: Spec) -> dict[str, Any]:
        return {"type": "string", **_TEXTS.get(spec.tp.__name__, {})}

    def _literal(self, spec: Spec) -> dict[str, Any]:
        return _choice([data for data, _ in written_members(spec)])

    def _enum(self, spec: Spec) -> dict[str, Any]:
        if not issubclass(spec.tp, enum.Flag):
            return self._literal(spec)
        most = functools.reduce(operator.or_, (flag.value for flag in spec.tp.__members__.values()), 0)
        bounds = {} if issubclass(spec.tp, enum.IntFlag) else {"minimum": 0, "maximum": most}
        return {"type": "integer", **bounds}

    def _list(self, spec: Spec) -> dict[str, Any]:
        return {"type": "array", "items": self.write(spec.args[0])}

    def _set(self, spec: Spec) -> dict[str, Any]:
        return {**self._list(spec), "uniqueItems": True}

    _frozenset = _set

    def _tuple(self, spec: Spec) -> dict[str, Any]:
        if spec.args[1:] == (...,):
            return self._list(spec)
        size = {"minItems": len(spec.args), "maxItems": len(spec.args)}
        return {"type": "array", "prefixItems": [self.write(arg) for arg in spec.args], "items": False, **size}

    def _dict(self, spec: Spec) -> dict[str, Any]:
        key, value = spec.args
        made: dict[str, Any] = {"type": "object"}
        if value.kind != "any":
            made["additionalProperties"] = self.write(value)
        if key.kind == "int":
            made["propertyNames"] = {"pattern": "^(0|-?[1-9][0-9]*)$"}
        elif key.kind in ("enum", "literal"):
            made["propertyNames"] = {"enum": [text for text, _ in written_keys(key)]}
        return made

    def _union(self, spec: Spec) -> dict[str, Any]:
        tagged = sum(member.kind == "object" and tag_of(member.tp) is not None for member in spec.args) > 1
        apart = bytes_apart(spec)
        made: list[dict[str, Any]] = []
        for member in spec.args:
            one = self.write(member, tagged)
            one = _object({"base64": one}, ["base64"]) if apart and member.tp is bytes else one
            parts = one["anyOf"] if one.keys() == {"anyOf"} else [one]  # what else it says is of all its parts
            made.extend(part for part in parts if part not in made)
        return made[0] if len(made) == 1 else {"anyOf": made}

    def _model(self, spec: Spec) -> dict[str, Any]:
        if spec.tp not in self._models:
            self._models[spec.tp] = _inlined(spec.tp.model_json_schema(), self.defs)
        return self._models[spec.tp]

    def _object(self, spec: Spec, tagged: bool) -> dict[str, Any]:
        cls = spec.tp
        if not is_record(cls):
            return self._properties(spec, None, False)
        others = [made for classes in declared_under(cls).values() for made in classes]
        family = [made for made in others if made is not cls and tag_of(made) is not None and not is_abstract(made)]
        own = [] if family and is_abstract(cls) else [self._properties(spec, tag_of(cls), tagged)]
        every = own + [self._properties(Spec("object", made), tag_of(made), True) for made in family]
        return every[0] if len(every) == 1 else {"anyOf": every}

    def _properties(self, spec: Spec, tag: str | None, needs_tag: bool) -> dict[str, Any]:
        properties, required = {}, []
        for field in fields(spec):
            properties[field.name] = {**self.write(field.spec), **self._default(field)}
            if field.required:
                required.append(field.name)
        if tag is not None:
            properties.setdefault("type", {"const": tag})
            if needs_tag and "type" not in required:
                required.append("type")
        doc = vars(spec.tp).get("__doc__") or ""
        described = {} if not doc or doc.startswith(f"{spec.tp.__name__}(") else {"description": inspect.cleandoc(doc)}
        return {**_object(properties, required), **described}

    def _default(self, field: Field) -> dict[str, Any]:
        value = field.factory() if field.factory in (list, dict, set, tuple) else field.default
        if value is MISSING:
            return {}
        try:
            return {"default": encode(value)}
        except EncodeError:
            return {}


def _take_name(name: str, defs: dict[str, Any]) -> str:
    while name in defs:
        name += "_"
    defs[name] = {}  # filled when all of it is written
    return name


def _choice(values: list[Any]) -> dict[str, Any]:
    if len(values) == 1:
        return {"const": values[0]}
    kinds = {type(value).__name__ for value in values}
    uniform = _FIXED.get(kinds.pop(), {}) if len(kinds) == 1 else {}
    return {**uniform, "enum": values}


_SIZES = {"str": "Length", "dict": "Properties", **dict.fromkeys(("list", "set", "frozenset", "tuple"), "Items")}


def _limit_keywords(spec: Spec) -> dict[str, Any]:
    made = {}
    for name, bound in spec.limits.items():
        keyword = LIMITS[name][0]
        if name == "pattern":
            made.update({keyword: getattr(bound, "pattern", bound)} if spec.kind == "str" else {})
        elif name in ("min_length", "max_length"):
            made.update({keyword + _SIZES[spec.kind]: bound} if spec.kind in _SIZES else {})
        elif spec.kind in ("int", "float", "any") and isinstance(bound, (int, float)):
            made[keyword] = bound
    return made


def _inlined(schema: dict[str, Any], defs: dict[str, Any]) -> dict[str, Any]:
    """A schema with its own `$defs` put where they are used; recursive ones go to `defs`."""
    bodies = {f"#/$defs/{name}": body for name, body in schema.get("$defs", {}).items()}
    names: dict[str, str] = {}  # reference -> name in `defs`

    def put(node: Any, around: tuple[str, ...]) -> Any:
        if isinstance(node, list):
            return [put(item, around) for item in node]
        if not isinstance(node, dict):
            return node
        rest = {key: item if key in _PAYLOADS else put(item, around) for key, item in node.items() if key != "$defs"}
        reference = rest.get("$ref")
        if not isinstance(reference, str) or reference not in bodies:
            return rest
        if reference in around:
            names[reference] = names.get(reference) or _take_name(reference.rpartition("/")[2], defs)
        else:
            made = put(bodies[reference], (*around, reference))
            if reference not in names:
                del rest["$ref"]
                return {**made, **rest}
            defs[names[reference]] = made
        return {**rest, "$ref": f"#/$defs/{names[reference]}"}

    made: dict[str, Any] = put(schema, ())
    return made


_PAYLOADS = ("const", "enum", "default", "examples")


# --- to check data with


def matches(schema: Mapping[str, Any], data: Any, path: str = "$") -> None:
    """Check JSON data against a JSON Schema. Raises `DecodeError`.

    Checked: type, properties, patternProperties, propertyNames, required, additionalProperties, items, prefixItems,
    enum, const, anyOf, oneOf, allOf, not, `$ref` inside the schema, and the bounds of numbers, strings, arrays and
    objects. Other keywords, and what makes no sense in a schema, are not.
    """
    try:
        _Checker(schema).check(schema, data)
    except DecodeError as error:
        raise DecodeError(path + error.path, error.problem) from None
    except RecursionError:
        raise DecodeError(path, "nested too deep to check") from None


class _Checker:
    """Checks against one schema. A method per keyword, with the keyword's argument, the data and the whole schema."""

    def __init__(self, root: Any) -> None:
        self.root = root
        # outcome of each (schema, object or array) tried: without it, nested alternatives take exponential time
        self._known: dict[tuple[int, int], DecodeError | None] = {}

    def check(self, schema: Any, data: Any) -> None:
        """Raise what is wrong with `data`."""
        if schema is False:
            raise DecodeError("", f"nothing is allowed here, found {show(data)}")
        if not isinstance(schema, abc.Mapping):
            return
        key = (id(schema), id(data))
        if key in self._known:
            error = self._known[key]
            if error is not None:
                raise DecodeError(error.path, error.problem)
            return
        self._known[key] = None  # a schema that refers to itself adds nothing
        try:
            for keyword, (argument_type, data_type, rule) in _RULES.items():
                argument = schema.get(keyword, MISSING)
                if argument is not MISSING and _is(argument, argument_type) and _is(data, data_type):
                    rule(self, argument, data, schema)
        except DecodeError as error:
            self._known[key] = DecodeError(error.path, error.problem)
            raise
        if not isinstance(data, (list, dict)):
            del self._known[key]

    def error(self, schema: Any, data: Any) -> DecodeError | None:
        """What is wrong with `data`, if anything."""
        try:
            self.check(schema, data)
        except DecodeError as error:
            return error
        return None

    def below(self, schema: Any, data: Any, step: Any) -> None:
        """Check a part of the data."""
        try:
            self.check(schema, data)
        except DecodeError as error:
            under(error, step)
            raise

    def ref(self, reference: Any, data: Any, _: Any) -> None:
        target = self.root
        parts = reference.split("/")
        if parts[0] != "#":
            return
        for part in parts[1:]:
            part = part.replace("%25", "%").replace("~1", "/").replace("~0", "~")
            if isinstance(target, list):
                target = {str(index): each for index, each in enumerate(target)}
            target = target.get(part) if isinstance(target, abc.Mapping) else None
        self.check(target, data)

    def type(self, types: Any, data: Any, _: Any) -> None:
        names = [types] if isinstance(types, str) else types
        known = [_TYPES.get(name) if isinstance(name, str) else None for name in names]
        if known and None not in known and not any(_is(data, one) for one in known):
            if "integer" not in names or not isinstance(data, float) or not data.is_integer():
                raise expected(" or ".join(names), data)

    def enum(self, values: Any, data: Any, _: Any) -> None:
        if not any(_same(value, data) for value in values):
            raise expected(one_of(values), data)

    def const(self, value: Any, data: Any, _: Any) -> None:
        self.enum([value], data, _)

    def all_of(self, schemas: Any, data: Any, _: Any) -> None:
        for schema in schemas:
            self.check(schema, data)

    def any_of(self, schemas: Any, data: Any, _: Any) -> None:
        errors = [error for schema in schemas if (error := self.error(schema, data)) is not None]
        if schemas and len(errors) == len(schemas):
            raise deepest(errors) or DecodeError("", "; or ".join(dict.fromkeys(error.problem for error in errors)))

    def one_of(self, schemas: Any, data: Any, _: Any) -> None:
        self.any_of(schemas, data, _)
        fitting = sum(self.error(schema, data) is None for schema in schemas)
        if fitting > 1:
            raise DecodeError("", f"fits {fitting} of the alternatives where one is wanted")

    def not_(self, schema: Any, data: Any, _: Any) -> None:
        if self.error(schema, data) is None:
            raise DecodeError("", f"{show(data)} is what the schema excludes")

    def required(self, names: Any, data: Any, _: Any) -> None:
        for name in names:
            if isinstance(name, str) and name not in data:
                raise lacking(name)

    def properties(self, schemas: Any, data: Any, _: Any) -> None:
        for name in schemas:
            if name in data:
                self.below(schemas[name], data[name], name)

    def pattern_properties(self, schemas: Any, data: Any, _: Any) -> None:
        for pattern, schema in schemas.items():
            for name in data:
                if _found(pattern, name):
                    self.below(schema, data[name], name)

    def additional(self, schema: Any, data: Any, whole: Any) -> None:
        known, patterns = whole.get("properties"), whole.get("patternProperties")
        known = known if isinstance(known, abc.Mapping) else {}
        for name in data:
            if name in known or any(_found(pattern, name) for pattern in patterns or ()):
                continue
            if schema is False:
                shown = str(name)[:80]  # what does not come from JSON text may have other keys than text
                raise DecodeError("", f"unexpected key {shown!r}{did_you_mean(shown, known)}")
            self.below(schema, data[name], name)

    def property_names(self, schema: Any, data: Any, _: Any) -> None:
        for name in data:
            self.below(schema, name, name)

    def items(self, schema: Any, data: Any, whole: Any) -> None:
        if isinstance(schema, list):  # the older spelling
            return self.prefix_items(schema, data, whole)
        prefix = whole.get("prefixItems")
        for index in range(len(prefix) if isinstance(prefix, list) else 0, len(data)):
            self.below(schema, data[index], index)

    def prefix_items(self, schemas: Any, data: Any, _: Any) -> None:
        for index, (schema, item) in enumerate(zip(schemas, data)):
            self.below(schema, item, index)

    def unique(self, wanted: Any, data: Any, _: Any) -> None:
        if wanted is True and len({_identity(item) for item in data}) < len(data):
            raise DecodeError("", "expected items that differ from each other")

    def pattern(self, pattern: Any, data: Any, _: Any) -> None:
        if not _found(pattern, data, otherwise=True):
            raise expected(f"a string that matches {pattern!r}", data)

    def multiple(self, step: Any, data: Any, _: Any) -> None:
        if step > 0 and not is_multiple(data, step):
            raise expected(f"a multiple of {step!r}", data)


def _bound(test: Callable[[Any, Any], Any], words: str) -> Callable[[_Checker, Any, Any, Any], None]:
    def rule(_: _Checker, bound: Any, data: Any, __: Any) -> None:
        if not test(data if isinstance(data, _NUMBER) else len(data), bound):
            raise expected(words.format(bound), data)

    return rule


def _is(data: Any, types: Any) -> bool:
    return isinstance(data, types) and (data.__class__ is not bool or types in (bool, object))


_NUMBER = (int, float)
_TYPES: dict[str, Any] = {
    "null": type(None),
    "boolean": bool,
    "integer": int,
    "number": _NUMBER,
    "string": str,
    "array": list,
    "object": dict,
}
# keyword -> class of its argument, class of the data it speaks of, what it demands; object is any
_RULES: dict[str, tuple[Any, Any, Callable[[_Checker, Any, Any, Any], None]]] = {
    "$ref": (str, object, _Checker.ref),
    "type": ((str, list), object, _Checker.type),
    "const": (object, object, _Checker.const),
    "enum": (list, object, _Checker.enum),
    "required": (list, dict, _Checker.required),
    "additionalProperties": (object, dict, _Checker.additional),
    "properties": (abc.Mapping, dict, _Checker.properties),
    "patternProperties": (abc.Mapping, dict, _Checker.pattern_properties),
    "propertyNames": (object, dict, _Checker.property_names),
    "prefixItems": (list, list, _Checker.prefix_items),
    "items": (object, list, _Checker.items),
    "uniqueItems": (object, list, _Checker.unique),
    "minimum": (_NUMBER, _NUMBER, _bound(operator.ge, "a number of at least {!r}")),
    "maximum": (_NUMBER, _NUMBER, _bound(operator.le, "a number of at most {!r}")),
    "exclusiveMinimum": (_NUMBER, _NUMBER, _bound(operator.gt, "a number above {!r}")),
    "exclusiveMaximum": (_NUMBER, _NUMBER, _bound(operator.lt, "a number below {!r}")),
    "multipleOf": (_NUMBER, _NUMBER, _Checker.multiple),
    "minLength": (_NUMBER, str, _bound(operator.ge, "a string of at least {!r} characters")),
    "maxLength": (_NUMBER, str, _bound(operator.le, "a string of at most {!r} characters")),
    "pattern": (str, str, _Checker.pattern),
    "minItems": (_NUMBER, list, _bound(operator.ge, "an array of at least {!r}")),
    "maxItems": (_NUMBER, list, _bound(operator.le, "an array of at most {!r}")),
    "minProperties": (_NUMBER, dict, _bound(operator.ge, "an object with at least {!r} keys")),
    "maxProperties": (_NUMBER, dict, _bound(operator.le, "an object with at most {!r} keys")),
    "allOf": (list, object, _Checker.all_of),
    "anyOf": (list, object, _Checker.any_of),
    "oneOf": (list, object, _Checker.one_of),
    "not": (object, object, _Checker.not_),
}


def _found(pattern: Any, text: Any, otherwise: bool = False) -> bool:
    try:
        return re.search(pattern, text) is not None
    except (re.error, TypeError, OverflowError, RecursionError):  # Python does not read this pattern
        return otherwise


def _same(one: Any, other: Any) -> bool:
    return bool(_identity(one) == _identity(other))


def _identity(data: Any) -> Any:
    """Something hashable that is equal for equal JSON data: 1 is 1.0, but true is not 1."""
    if isinstance(data, bool):
        return (bool, data)
    if isinstance(data, (list, tuple)):
        return (list, *map(_identity, data))
    if isinstance(data, dict):
        return (dict, frozenset((key, _identity(value)) for key, value in data.items()))
    return data
