"""JSON Schemas cut to what a provider accepts of them, or made strict."""

from __future__ import annotations

import json
from dataclasses import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_SCHEMAS = ("properties", "$defs", "definitions", "patternProperties")  # keywords whose value holds schemas by name
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_WORDLESS = frozenset(("default", "examples", "$schema", "$id", "$comment", "$defs", "definitions"))  # no constraints


@dataclass(frozen=True)
class SchemaRules:
    """Which JSON Schemas are accepted.

    Args:
        keywords: those that are known; None for all. What another one says is put into the description.
        formats: values of `format` that are known; None for all.
        references: `$ref` may be used; else its target is put in its place.
        nullable: a type is one word, null is said by `nullable`, and an array says what it holds.
        closed: every object must say that it has no other keys.
    """

    keywords: frozenset[str] | None = None
    formats: frozenset[str] | None = None
    references: bool = True
    nullable: bool = False
    closed: bool = False


ANY = SchemaRules()


def fitted(schema: Mapping[str, Any], rules: SchemaRules) -> dict[str, Any]:
    """The schema by these rules. What there is no keyword for is said in the description instead."""
    if rules == ANY:
        return dict(schema)
    named = {**schema.get("definitions", {}), **schema.get("$defs", {})}
    made: dict[str, Any] = _fitted(dict(schema), rules, named, ())
    return made


def _fitted(schema: dict[str, Any], rules: SchemaRules, named: Mapping[str, Any], inside: tuple[str, ...]) -> Any:
    if not isinstance(schema, dict):
        return schema
    if not rules.references and isinstance(ref := schema.get("$ref"), str):
        name, rest = ref.rsplit("/", 1)[-1], {key: value for key, value in schema.items() if key != "$ref"}
        if name in inside or not isinstance(named.get(name), dict):  # no end to it
            return {"type": "object", "description": f"as {name} above", **rest}
        return _fitted({**named[name], **rest}, rules, named, (*inside, name))
    schema = _one_word(dict(schema)) if rules.nullable else dict(schema)
    for key, value in schema.items():
        if key in _SCHEMAS and isinstance(value, dict):
            schema[key] = {name: _fitted(each, rules, named, inside) for name, each in value.items()}
        elif key in _LISTS and isinstance(value, list):
            schema[key] = [_fitted(each, rules, named, inside) for each in value]
        elif key in ("items", "additionalProperties"):
            schema[key] = _fitted(value, rules, named, inside)
    if rules.closed and schema.get("type") == "object" and "properties" in schema:
        schema["additionalProperties"] = False
    return _known(schema, rules)


def _one_word(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with `nullable` for null, one type, and nothing said by `const`, `oneOf` or `prefixItems`."""
    if "const" in schema:
        schema["enum"] = [schema.pop("const")]
    if "prefixItems" in schema:
        schema["items"] = {"anyOf": schema.pop("prefixItems")}
    if "oneOf" in schema:
        schema["anyOf"] = schema.pop("oneOf")
    kinds = schema.get("type")
    if isinstance(kinds, list):
        left = [kind for kind in kinds if kind != "null"]
        if len(left) < len(kinds):
            schema["nullable"] = True
        del schema["type"]
        schema.update({"type": left[0]} if len(left) == 1 else {"anyOf": [{"type": kind} for kind in left]})
    choices = schema.get("anyOf")
    if isinstance(choices, list) and {"type": "null"} in choices:
        left = [choice for choice in choices if choice != {"type": "null"}]
        del schema["anyOf"]
        schema = {**(left[0] if len(left) == 1 else {"anyOf": left}), **schema, "nullable": True}
        return _one_word(schema)
    if "enum" in schema and not all(isinstance(each, str) for each in schema["enum"]):
        schema["description"] = f"{schema.get('description', '')} One of {schema.pop('enum')!r}.".strip()
    elif "enum" in schema:
        schema.setdefault("type", "string")
    if schema.get("type") == "array":
        schema.setdefault("items", {"type": "string"})
    return schema


def _known(schema: dict[str, Any], rules: SchemaRules) -> dict[str, Any]:
    """The schema without keywords and formats that are not known; the description says what they said."""
    refused = [key for key in schema if rules.keywords is not None and key not in rules.keywords]
    if rules.formats is not None and "format" in schema and schema["format"] not in rules.formats:
        refused.append("format")
    words = [
        f"{key}: {json.dumps(schema[key])}" for key in refused if key not in _WORDLESS and schema[key] is not False
    ]
    fitted = {key: value for key, value in schema.items() if key not in refused}
    if words:
        fitted["description"] = " ".join(filter(None, (fitted.get("description"), f"({', '.join(words)})")))
    return fitted


def strict_schema(schema: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """A schema by the strict rules that OpenAI made: every key required, no others allowed, no defaults.

    Also whether it could be made so: objects with free keys are left as they are.
    """
    fits = isinstance(schema, dict) and schema.get("type") == "object" and _closed(schema)
    return (_strict(schema), True) if fits else (schema, False)


# what strict mode knows; anything else makes the provider refuse the whole request
_KEYWORDS = frozenset(
    "type properties required additionalProperties items enum const anyOf $ref $defs description title default pattern "
    "format minimum maximum exclusiveMinimum exclusiveMaximum multipleOf minItems maxItems".split()
)
_FORMATS = frozenset("date-time time date duration email hostname ipv4 ipv6 uuid".split())
_NAMED = ("properties", "$defs")  # keywords whose value holds schemas by name


def _closed(schema: Any) -> bool:
    """Whether the schema uses only what strict mode knows, and every object in it has a fixed set of keys."""
    if not isinstance(schema, dict) or not schema.keys() <= _KEYWORDS:
        return False
    if not schema.keys() & {"type", "anyOf", "$ref", "enum", "const"} or schema.get("format", "date") not in _FORMATS:
        return False
    named = [schema.get(key, {}) for key in _NAMED]
    if not all(isinstance(each, dict) for each in named) or not isinstance(schema.get("anyOf", []), list):
        return False
    kinds = schema.get("type")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    if "object" in kinds and ("properties" not in schema or schema.get("additionalProperties", False) is not False):
        return False
    if "array" in kinds and "items" not in schema:
        return False
    inner = [value for each in named for value in each.values()] + schema.get("anyOf", [])
    return all(map(_closed, [*inner, schema["items"]] if "items" in schema else inner))


def _strict(schema: dict[str, Any]) -> dict[str, Any]:
    strict = {key: value for key, value in schema.items() if key != "default"}
    for key in _NAMED:
        if key in strict:
            strict[key] = {name: _strict(value) for name, value in strict[key].items()}
    if "anyOf" in strict:
        strict["anyOf"] = [_strict(each) for each in strict["anyOf"]]
    if "items" in strict:
        strict["items"] = _strict(strict["items"])
    if "properties" in strict:
        strict["required"] = list(strict["properties"])
        strict["additionalProperties"] = False
    if "$ref" in strict and len(strict) > 1:  # which may have nothing beside it
        strict["anyOf"] = [{"$ref": strict.pop("$ref")}]
    return strict
