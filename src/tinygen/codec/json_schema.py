"""JSON Schema: of a type, and to check data with.

`to_schema` writes what `shapes.read` found in a type; `matches` checks data against any schema, such as those that
tools of other makers bring along. The dialect is the part of 2020-12 that models and their providers understand.
"""

from __future__ import annotations

import collections.abc as abc
import enum
import inspect
import operator
import re
from datetime import date, datetime, time

from ..errors import DecodeError, EncodeError, did_you_mean
from .encoding import encode, written_members
from .scalars import is_multiple
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
    from collections.abc import Callable, Iterable, Mapping
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


_TEXT_SCHEMAS = {datetime: {"format": "date-time"}, date: {"format": "date"}, time: {"format": "time"}}
_BASE64 = {"type": "string", "contentEncoding": "base64"}


def one_key(name: str, schema: Any) -> dict[str, Any]:
    """The schema of an object with that one key."""
    return {"type": "object", "properties": {name: schema}, "required": [name], "additionalProperties": False}


class _Writer:
    """Writes specs as JSON Schema; what is recursive goes to `defs`, all else stands where it is used."""

    def __init__(self) -> None:
        self.defs: dict[str, Any] = {}
        self._open: set[Any] = set()
        self._names: dict[Any, str] = {}  # of the recursive types met so far

    def write(self, spec: Spec, tagged: bool = False) -> dict[str, Any]:
        if spec.kind == "object":
            made = self._once(spec, lambda: self._object(spec, tagged))
        elif spec.kind == "alias":
            made = self._once(spec, lambda: self.write(alias_value(spec)))
        else:
            made = getattr(self, "_" + spec.kind, self._plain)(spec)
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
            self._names[key] = _free_name(spec.tp.__name__, self._names.values())
        return {"$ref": f"#/$defs/{self._names[key]}"}

    def _plain(self, spec: Spec) -> dict[str, Any]:
        types = {"none": "null", "bool": "boolean", "int": "integer", "float": "number", "str": "string"}
        return {"type": types[spec.kind]}

    def _any(self, spec: Spec) -> dict[str, Any]:
        return {}

    def _text(self, spec: Spec) -> dict[str, Any]:
        if spec.tp is bytes:
            return dict(_BASE64)
        known = {"format": "uuid"} if spec.tp.__name__ == "UUID" else {}
        return {"type": "string", **_TEXT_SCHEMAS.get(spec.tp, known)}

    def _duration(self, spec: Spec) -> dict[str, Any]:
        return {"type": "number", "description": "seconds"}

    def _image(self, spec: Spec) -> dict[str, Any]:
        return one_key("data", dict(_BASE64))

    def _literal(self, spec: Spec) -> dict[str, Any]:
        return _choice([data for data, _ in written_members(spec)])

    def _enum(self, spec: Spec) -> dict[str, Any]:
        return {"type": "integer"} if issubclass(spec.tp, enum.Flag) else self._literal(spec)

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
            made["propertyNames"] = {"pattern": "^-?[0-9]+$"}
        return made

    def _union(self, spec: Spec) -> dict[str, Any]:
        tagged = sum(member.kind == "object" and tag_of(member.tp) is not None for member in spec.args) > 1
        apart = bytes_apart(spec)
        made: list[dict[str, Any]] = []
        for member in spec.args:
            one = self.write(member, tagged)
            one = one_key("base64", one) if apart and member.tp is bytes else one
            made.extend(part for part in one.get("anyOf", [one]) if part not in made)
        return made[0] if len(made) == 1 else {"anyOf": made}

    def _model(self, spec: Spec) -> dict[str, Any]:
        made = spec.tp.model_json_schema()
        return inlined(made, self.defs)

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
        made = {"type": "object", **described, "properties": properties}
        return {**made, "required": required, "additionalProperties": False}

    def _default(self, field: Field) -> dict[str, Any]:
        value = field.factory() if field.factory in (list, dict, set, tuple) else field.default
        if value is MISSING:
            return {}
        try:
            return {"default": encode(value)}
        except EncodeError:
            return {}


def _free_name(name: str, taken: Iterable[str]) -> str:
    taken = set(taken)
    free = name
    while free in taken:
        free += "_"
    return free


def _choice(values: list[Any]) -> dict[str, Any]:
    if len(values) == 1:
        return {"const": values[0]}
    types = {_JSON_TYPES.get(type(value)) for value in values}
    uniform = types.pop() if len(types) == 1 else None
    return {"type": uniform, "enum": values} if uniform else {"enum": values}


_JSON_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number"}


_KEYWORDS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "multiple_of": "multipleOf",
    "min_length": "min",
    "max_length": "max",
    "pattern": "pattern",
}
_SIZED = {
    "str": "Length",
    "dict": "Properties",
    "list": "Items",
    "set": "Items",
    "frozenset": "Items",
    "tuple": "Items",
}


def _limit_keywords(spec: Spec) -> dict[str, Any]:
    made = {}
    for name, bound in spec.limits.items():
        if name == "pattern":
            made.update({"pattern": getattr(bound, "pattern", bound)} if spec.kind == "str" else {})
        elif name in ("min_length", "max_length"):
            made.update({_KEYWORDS[name] + _SIZED[spec.kind]: bound} if spec.kind in _SIZED else {})
        elif spec.kind in ("int", "float", "any") and isinstance(bound, (int, float)):
            made[_KEYWORDS[name]] = bound
    return made


def inlined(schema: dict[str, Any], kept: dict[str, Any]) -> dict[str, Any]:
    """A schema with its `$defs` put where they are used; recursive ones go to `kept`."""
    definitions = {f"#/$defs/{name}": (name, body) for name, body in schema.get("$defs", {}).items()}
    names: dict[str, str] = {}  # reference -> name in `kept`

    def put(node: Any, open_: tuple[str, ...]) -> Any:
        if isinstance(node, list):
            return [put(item, open_) for item in node]
        if not isinstance(node, dict):
            return node
        rest = {key: item if key in _PAYLOADS else put(item, open_) for key, item in node.items() if key != "$defs"}
        reference = node.get("$ref")
        if not isinstance(reference, str) or reference not in definitions:
            return rest
        del rest["$ref"]
        name, body = definitions[reference]
        if reference in open_ and reference not in names:
            names[reference] = _free_name(name, kept)
            kept[names[reference]] = {}  # taken; filled by the call that opened it
        if reference in open_:
            return {"$ref": f"#/$defs/{names[reference]}", **rest}
        made = put(body, (*open_, reference))
        if reference in names:
            kept[names[reference]] = made
            return {"$ref": f"#/$defs/{names[reference]}", **rest}
        return {**made, **rest}

    made: dict[str, Any] = put(schema, ())
    return made


_PAYLOADS = ("const", "enum", "default", "examples")


# --- to check data with


def matches(schema: Mapping[str, Any], data: Any, path: str = "$") -> None:
    """Check JSON data against a JSON Schema. Raises `DecodeError`.

    Checked: type, properties, patternProperties, propertyNames, required, additionalProperties, items, prefixItems,
    enum, const, anyOf, oneOf, allOf, not, `$ref` inside the schema, and the bounds of numbers, strings, arrays and
    objects. Other keywords, and patterns that Python cannot read, are not.
    """
    try:
        _Checker(schema).check(schema, data)
    except DecodeError as error:
        raise DecodeError(path + error.path, error.problem) from None
    except RecursionError:
        raise DecodeError(path, "nested too deep to check") from None


class _Checker:
    def __init__(self, root: Any) -> None:
        self.root = root
        # outcome of each (schema, data) already tried: without it, nested alternatives take exponential time
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
            for keyword, rule in _RULES.items():
                if keyword in schema:
                    rule(self, schema[keyword], data, schema)
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
        parts = reference.split("/") if isinstance(reference, str) else []
        if parts[:1] != ["#"]:
            return
        for part in parts[1:]:
            part = part.replace("%25", "%").replace("~1", "/").replace("~0", "~")
            target = target.get(part) if isinstance(target, abc.Mapping) else None
        self.check(target, data)

    def type(self, types: Any, data: Any, _: Any) -> None:
        names = [types] if isinstance(types, str) else types if isinstance(types, list) else []
        tests = [_TYPES.get(name) if isinstance(name, str) else None for name in names]
        if names and None not in tests and not any(test(data) for test in tests if test):
            raise expected(" or ".join(names), data)

    def enum(self, values: Any, data: Any, _: Any) -> None:
        if isinstance(values, list) and not any(_same(value, data) for value in values):
            raise expected(one_of(values), data)

    def const(self, value: Any, data: Any, _: Any) -> None:
        if not _same(value, data):
            raise expected(one_of([value]), data)

    def all_of(self, schemas: Any, data: Any, _: Any) -> None:
        for schema in schemas if isinstance(schemas, list) else ():
            self.check(schema, data)

    def any_of(self, schemas: Any, data: Any, _: Any, at_most: int | None = None) -> None:
        if not isinstance(schemas, list) or not schemas:
            return
        errors = [error for schema in schemas if (error := self.error(schema, data)) is not None]
        if len(errors) == len(schemas):
            raise deepest(errors) or DecodeError("", "; or ".join(dict.fromkeys(error.problem for error in errors)))
        if at_most is not None and len(schemas) - len(errors) > at_most:
            raise DecodeError("", f"fits {len(schemas) - len(errors)} of the alternatives where one is wanted")

    def one_of(self, schemas: Any, data: Any, whole: Any) -> None:
        self.any_of(schemas, data, whole, at_most=1)

    def not_(self, schema: Any, data: Any, _: Any) -> None:
        if self.error(schema, data) is None:
            raise DecodeError("", f"{show(data)} is what the schema excludes")

    def required(self, names: Any, data: Any, _: Any) -> None:
        if isinstance(data, dict) and isinstance(names, list):
            for name in names:
                if isinstance(name, str) and name not in data:
                    raise lacking(name)

    def properties(self, schemas: Any, data: Any, _: Any) -> None:
        if isinstance(data, dict) and isinstance(schemas, abc.Mapping):
            for name in schemas:
                if name in data:
                    self.below(schemas[name], data[name], name)

    def pattern_properties(self, schemas: Any, data: Any, _: Any) -> None:
        if isinstance(data, dict) and isinstance(schemas, abc.Mapping):
            for pattern, schema in schemas.items():
                for name in data:
                    if _found(pattern, name):
                        self.below(schema, data[name], name)

    def additional(self, schema: Any, data: Any, whole: Any) -> None:
        if not isinstance(data, dict):
            return
        known, patterns = whole.get("properties"), whole.get("patternProperties")
        known = known if isinstance(known, abc.Mapping) else {}
        patterns = list(patterns) if isinstance(patterns, abc.Mapping) else []
        for name in data:
            if name in known or any(_found(pattern, name) for pattern in patterns):
                continue
            if schema is False:
                raise DecodeError("", f"unexpected key {name[:80]!r}{did_you_mean(name[:80], known)}")
            self.below(schema, data[name], name)

    def property_names(self, schema: Any, data: Any, _: Any) -> None:
        for name in data if isinstance(data, dict) else ():
            self.below(schema, name, name)

    def items(self, schema: Any, data: Any, whole: Any) -> None:
        if isinstance(schema, list):  # the older spelling of prefixItems
            return self.prefix_items(schema, data, whole)
        prefix = whole.get("prefixItems")
        start = len(prefix) if isinstance(prefix, list) else 0
        for index, item in enumerate(data[start:] if isinstance(data, list) else (), start):
            self.below(schema, item, index)

    def prefix_items(self, schemas: Any, data: Any, _: Any) -> None:
        if isinstance(schemas, list) and isinstance(data, list):
            for index, (schema, item) in enumerate(zip(schemas, data)):
                self.below(schema, item, index)

    def unique(self, wanted: Any, data: Any, _: Any) -> None:
        if wanted is True and isinstance(data, list) and len({_identity(item) for item in data}) < len(data):
            raise DecodeError("", "expected items that differ from each other")

    def pattern(self, pattern: Any, data: Any, _: Any) -> None:
        if isinstance(data, str) and not _found(pattern, data, otherwise=True):
            raise expected(f"a string that matches {pattern!r}", data)

    def multiple(self, step: Any, data: Any, _: Any) -> None:
        if _is_number(data) and _is_number(step) and step > 0 and not is_multiple(data, step):
            raise expected(f"a multiple of {step!r}", data)


def _bound(
    applies: Callable[[Any], bool], measure: Callable[[Any], Any], test: Callable[[Any, Any], bool], say: str
) -> Any:
    def rule(_: _Checker, bound: Any, data: Any, __: Any) -> None:
        if applies(data) and _is_number(bound) and not test(measure(data), bound):
            raise expected(say.format(bound), data)

    return rule


def _is_number(data: Any) -> bool:
    return isinstance(data, (int, float)) and not isinstance(data, bool)


def _is_text(data: Any) -> bool:
    return isinstance(data, str)


def _is_array(data: Any) -> bool:
    return isinstance(data, list)


def _is_object(data: Any) -> bool:
    return isinstance(data, dict)


_TYPES: dict[str, Callable[[Any], bool]] = {
    "null": lambda data: data is None,
    "boolean": lambda data: isinstance(data, bool),
    "integer": lambda data: _is_number(data) and (isinstance(data, int) or data.is_integer()),
    "number": _is_number,
    "string": _is_text,
    "array": _is_array,
    "object": _is_object,
}
_RULES: dict[str, Callable[[_Checker, Any, Any, Any], None]] = {
    "$ref": _Checker.ref,
    "type": _Checker.type,
    "const": _Checker.const,
    "enum": _Checker.enum,
    "required": _Checker.required,
    "additionalProperties": _Checker.additional,
    "properties": _Checker.properties,
    "patternProperties": _Checker.pattern_properties,
    "propertyNames": _Checker.property_names,
    "prefixItems": _Checker.prefix_items,
    "items": _Checker.items,
    "uniqueItems": _Checker.unique,
    "minimum": _bound(_is_number, operator.pos, operator.ge, "a number of at least {!r}"),
    "maximum": _bound(_is_number, operator.pos, operator.le, "a number of at most {!r}"),
    "exclusiveMinimum": _bound(_is_number, operator.pos, operator.gt, "a number above {!r}"),
    "exclusiveMaximum": _bound(_is_number, operator.pos, operator.lt, "a number below {!r}"),
    "multipleOf": _Checker.multiple,
    "minLength": _bound(_is_text, len, operator.ge, "a string of at least {!r} characters"),
    "maxLength": _bound(_is_text, len, operator.le, "a string of at most {!r} characters"),
    "pattern": _Checker.pattern,
    "minItems": _bound(_is_array, len, operator.ge, "an array of at least {!r}"),
    "maxItems": _bound(_is_array, len, operator.le, "an array of at most {!r}"),
    "minProperties": _bound(_is_object, len, operator.ge, "an object with at least {!r} keys"),
    "maxProperties": _bound(_is_object, len, operator.le, "an object with at most {!r} keys"),
    "allOf": _Checker.all_of,
    "anyOf": _Checker.any_of,
    "oneOf": _Checker.one_of,
    "not": _Checker.not_,
}


def _found(pattern: Any, text: Any, otherwise: bool = False) -> bool:
    try:
        return re.search(pattern, text) is not None
    except (re.error, TypeError, OverflowError, RecursionError):
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
