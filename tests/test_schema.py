"""Types as JSON Schema, and data checked against schemas."""

from __future__ import annotations

import datetime as dt
import enum
import json
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

import annotated_types
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import Doc, NotRequired, TypedDict

from shared_data import needs_shared, shared
from tinygen import codec
from tinygen.errors import DecodeError
from tinygen.messages import BaseChatMessage, Image, MemoryContent, Record, RequestUsage, SystemMessage, UserMessage
from typed_values import JSON, TYPES, Color, Level, Tree, damaged

BASE64 = {"type": "string", "contentEncoding": "base64"}


def an_object(required: list[str] | None = None, **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties) if required is None else required,
        "additionalProperties": False,
    }


# --- of a type


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Pair(NamedTuple):
    x: int
    y: str


class Place(TypedDict):
    """Somewhere."""

    city: Annotated[str, "its name"]
    zip: NotRequired[str]


class Part(pydantic.BaseModel):
    number: int


class Whole(pydantic.BaseModel):
    parts: list[Part]
    main: Part | None = pydantic.Field(None, description="the first")


class Chain(pydantic.BaseModel):
    next: Chain | None = None


class Forest:
    @dataclass
    class Tree:
        neighbour: Forest.Tree | None
        child: Tree


UNTOLD = object()


class Described:
    description = "by an attribute"


@pytest.mark.parametrize(
    ("tp", "schema"),
    [
        (Any, {}),
        (None, {"type": "null"}),
        (bool, {"type": "boolean"}),
        (int, {"type": "integer"}),
        (float, {"type": "number"}),
        (str, {"type": "string"}),
        (bytes, BASE64),
        (dt.datetime, {"type": "string", "format": "date-time"}),
        (dt.date, {"type": "string", "format": "date"}),
        (dt.time, {"type": "string", "format": "time"}),
        (dt.timedelta, {"type": "number", "description": "seconds"}),
        (UUID, {"type": "string", "format": "uuid"}),
        (Decimal, {"type": "string"}),
        (Image, an_object(data=BASE64)),
        (Literal["a"], {"const": "a"}),
        (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}),
        (Literal["a", 1, None], {"enum": ["a", 1, None]}),
        (Level, {"type": "integer", "enum": [1, 2]}),
        (Color, {"enum": ["red", 2, [1, 2]]}),
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (list, {"type": "array", "items": {}}),
        (set[int], {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}),
        (tuple[int, ...], {"type": "array", "items": {"type": "integer"}}),
        (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
        (dict[int, Any], {"type": "object", "propertyNames": {"pattern": "^(0|-?[1-9][0-9]*)$"}}),
        (dict[Color, Any], {"type": "object", "propertyNames": {"enum": ["red", "2"]}}),
        (Access, {"type": "integer", "minimum": 0, "maximum": 3}),
        (dict, {"type": "object"}),
        (int | None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        (Annotated[int, "how many"], {"type": "integer", "description": "how many"}),
        (Annotated[int, Doc("how many")], {"type": "integer", "description": "how many"}),
        (Annotated[int, Described()], {"type": "integer", "description": "by an attribute"}),
        (Annotated[int, pydantic.Field(ge=1, description="n")], {"type": "integer", "minimum": 1, "description": "n"}),
        (
            Annotated[float, annotated_types.Interval(gt=0, le=1.5)],
            {"type": "number", "exclusiveMinimum": 0, "maximum": 1.5},
        ),
        (Annotated[int, annotated_types.MultipleOf(5)], {"type": "integer", "multipleOf": 5}),
        (Annotated[str, annotated_types.Len(1, 2)], {"type": "string", "minLength": 1, "maxLength": 2}),
        (Annotated[str, pydantic.StringConstraints(pattern="^a")], {"type": "string", "pattern": "^a"}),
        (Annotated[list[Any], annotated_types.Len(1)], {"type": "array", "items": {}, "minItems": 1}),
        (Annotated[dict[str, Any], annotated_types.Len(1)], {"type": "object", "minProperties": 1}),
        (
            Annotated[int | None, annotated_types.Ge(1)],
            {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]},
        ),
    ],
    ids=repr,
)
def test_a_type_has_this_schema(tp: Any, schema: dict[str, Any]) -> None:
    assert codec.schema(tp) == schema


def test_a_tuple_of_known_length_fixes_each_place() -> None:
    schema = codec.schema(tuple[int, str])

    assert schema["prefixItems"] == [{"type": "integer"}, {"type": "string"}]
    assert (schema["items"], schema["minItems"], schema["maxItems"]) == (False, 2, 2)
    assert codec.schema(Pair) == schema


def test_a_dataclass_is_an_object_whose_defaults_are_not_required() -> None:
    @dataclass
    class Search:
        """Where to look."""

        text: Annotated[str, "what to find"]
        place: Place
        limit: int = field(default=10, metadata={"description": "how many"})
        tags: list[str] = field(default_factory=list)
        since: dt.date | None = None
        how: Any = UNTOLD  # no default that JSON could tell

    schema = codec.schema(Search)

    assert schema["description"] == "Where to look."
    assert schema["required"] == ["text", "place"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["text"] == {"type": "string", "description": "what to find"}
    assert schema["properties"]["limit"] == {"type": "integer", "description": "how many", "default": 10}
    assert schema["properties"]["tags"]["default"] == []
    assert schema["properties"]["since"]["default"] is None
    assert schema["properties"]["how"] == {}


def test_a_typed_dict_is_an_object_that_is_written_where_it_is_used() -> None:
    city = {"type": "string", "description": "its name"}
    place = {**an_object(["city"], city=city, zip={"type": "string"}), "description": "Somewhere."}

    assert codec.schema(list[Place]) == {"type": "array", "items": place}


def test_a_recursive_type_refers_to_a_definition() -> None:
    kids = {"type": "array", "items": {"$ref": "#/$defs/Tree"}, "default": []}
    tree = an_object(["name"], name={"type": "string"}, kids=kids)

    assert codec.schema(Tree) == {**tree, "$defs": {"Tree": tree}}
    assert codec.schema(list[Tree]) == {
        "type": "array",
        "items": {"$ref": "#/$defs/Tree"},
        "$defs": {"Tree": tree},
    }


def test_two_recursive_types_of_one_name_get_two_definitions() -> None:
    assert set(codec.schema(Forest.Tree)["$defs"]) == {"Tree", "Tree_"}


def test_a_pydantic_model_brings_its_own_schema_without_definitions() -> None:
    part = Part.model_json_schema()

    schema = codec.schema(Whole)

    assert schema["properties"]["parts"]["items"] == part
    assert schema["properties"]["main"]["anyOf"][0] == part
    assert schema["properties"]["main"]["description"] == "the first"
    assert "$defs" not in schema
    assert set(codec.schema(list[Chain])["$defs"]) == {"Chain"}
    assert codec.schema(list[Chain])["items"] == {"$ref": "#/$defs/Chain"}


def test_a_record_may_say_its_type_and_must_where_it_decides() -> None:
    text = {"type": "string"}
    system = {
        "description": "Instructions to the model.",
        **an_object(["content"], content=text, type={"const": "SystemMessage"}),
    }

    assert codec.schema(SystemMessage) == system
    assert codec.schema(SystemMessage | UserMessage)["anyOf"][0] == {**system, "required": ["content", "type"]}
    assert "type" not in codec.schema(RequestUsage | None)["anyOf"][0]["properties"]


def test_the_schema_of_a_base_lists_the_records_declared_under_it() -> None:
    class Animal(Record):
        name: str

    class Dog(Animal):
        tricks: int = 0

    tags = [each["properties"]["type"]["const"] for each in codec.schema(Animal)["anyOf"]]
    spoken = [each["properties"]["type"]["const"] for each in codec.schema(BaseChatMessage)["anyOf"]]

    assert tags == ["Animal", "Dog"]
    assert "TextMessage" in spoken and "BaseChatMessage" not in spoken


def test_what_is_said_of_a_union_within_a_union_stays_in_the_schema() -> None:
    described = {"anyOf": [{"type": "integer"}, {"type": "string"}], "description": "a key"}

    schema = codec.schema(Annotated[int | str, "a key"] | None)

    assert schema == {"anyOf": [described, {"type": "null"}]}


def test_bytes_beside_strings_are_an_object_in_the_schema() -> None:
    schema = codec.schema(MemoryContent)["properties"]["content"]

    assert schema["anyOf"] == [{"type": "string"}, an_object(base64=BASE64), {"type": "object"}, an_object(data=BASE64)]


@given(st.data())
def test_what_decodes_as_arguments_fits_the_schema(data: st.DataObject) -> None:
    typed = data.draw(TYPES)
    arguments = data.draw(typed.values.flatmap(lambda value: damaged(codec.encode(value))) | JSON)

    schema = json.loads(json.dumps(codec.schema(typed.tp)))
    try:
        codec.decode(typed.tp, arguments, mode="arguments")
    except DecodeError:
        return

    codec.matches(schema, arguments)


# --- to check data with


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({}, [1, None, {}], []),
        (True, [1], []),
        (False, [], [1]),
        ({"type": "integer"}, [3, 3.0], [2.5, True, "3", None]),
        ({"type": "number"}, [3, 2.5], [True, "3"]),
        ({"type": "boolean"}, [True], [1, "true"]),
        ({"type": ["string", "null"]}, ["a", None], [1]),
        ({"type": "array", "items": {"type": "integer"}}, [[], [1]], [["a"], {}]),
        ({"items": [{"type": "integer"}]}, [[1, "a"]], [["a"]]),
        ({"prefixItems": [{"type": "integer"}], "items": False}, [[], [1]], [[1, 2], ["a"]]),
        ({"minItems": 1, "maxItems": 2}, [[1], "a"], [[], [1, 2, 3]]),
        ({"uniqueItems": True}, [[1, True, "1", [1], [True]]], [[1, 1.0], [{"a": [1]}, {"a": [1.0]}]]),
        ({"type": "object", "required": ["a"]}, [{"a": 1}], [{}, []]),
        ({"properties": {"a": {"type": "integer"}}}, [{"a": 1, "b": 2}, 3], [{"a": "x"}]),
        ({"properties": {"a": {}}, "additionalProperties": False}, [{"a": 1}], [{"b": 1}]),
        ({"additionalProperties": {"type": "integer"}}, [{"a": 1}], [{"a": "x"}]),
        ({"patternProperties": {"^x": {"type": "integer"}}}, [{"xa": 1, "y": "a"}], [{"xa": "a"}]),
        ({"patternProperties": {"^x": {}}, "additionalProperties": False}, [{"xa": 1}], [{"y": 1}, {1: 1}, {None: 1}]),
        ({"propertyNames": {"maxLength": 1}}, [{"a": 1}], [{"ab": 1}]),
        ({"minProperties": 1, "maxProperties": 1}, [{"a": 1}], [{}, {"a": 1, "b": 2}]),
        ({"enum": ["a", 1, [True]]}, ["a", 1, 1.0, [True]], [True, [1], "b"]),
        ({"const": {"a": 1}}, [{"a": 1}, {"a": 1.0}], [{"a": True}, {}]),
        ({"minimum": 1, "maximum": 2}, [1, 2, "x"], [0.5, 3]),
        ({"exclusiveMinimum": 1, "exclusiveMaximum": 2}, [1.5], [1, 2]),
        ({"multipleOf": 0.1}, [0.3, 7, "x"], [0.35]),
        ({"multipleOf": 3}, [9, -3, 0], [10]),
        ({"minLength": 2, "maxLength": 3}, ["ab", "😀😀😀", 5], ["a", "abcd"]),
        ({"pattern": "^a"}, ["ab", 3], ["ba"]),
        ({"allOf": [{"minimum": 1}, {"maximum": 2}]}, [1], [0, 3]),
        ({"anyOf": [{"type": "string"}, {"minimum": 5}]}, ["a", 6], [4]),
        ({"oneOf": [{"minimum": 1}, {"maximum": 5}]}, [0, 6], [3]),
        ({"not": {"type": "null"}}, [1], [None]),
        ({"$ref": "#/$defs/n", "$defs": {"n": {"type": "integer"}}}, [1], ["a"]),
        ({"$ref": "#/definitions/a~1b%25", "definitions": {"a/b%": {"type": "integer"}}}, [1], ["a"]),
        ({"items": {"$ref": "#"}, "maxItems": 1}, [[], [[[]]]], [[[[], []]]]),
        ({"anyOf": [{"type": "array"}, {"type": "null"}], "items": {"$ref": "#/anyOf/1"}}, [[None]], [[1]]),
    ],
    ids=repr,
)  # fmt: skip
def test_a_schema_takes_this_and_refuses_that(schema: Any, good: list[Any], bad: list[Any]) -> None:
    for data in good:
        codec.matches(schema, data)
    for data in bad:
        with pytest.raises(DecodeError):
            codec.matches(schema, data)


@pytest.mark.parametrize(
    ("schema", "data", "message"),
    [
        ({"type": "integer"}, "x", "$: expected integer, found the string 'x'"),
        ({"properties": {"a": {"items": {"type": "integer"}}}}, {"a": [1, "x"]}, "$.a[1]: expected integer, found"),
        ({"required": ["a"]}, {}, "$.a: this key is missing"),
        ({"properties": {"city": {}}, "additionalProperties": False}, {"ctiy": 1}, "$: unexpected key 'ctiy'; did you"),
        ({"enum": ["a", None]}, "b", '$: expected one of "a", null, found the string \'b\''),
        ({"anyOf": [{"type": "null"}, {"properties": {"a": {"type": "null"}}}]}, {"a": 1}, "$.a: expected null"),
        ({"anyOf": [{"type": "null"}, {"type": "string"}]}, 1, "$: expected null, found the number 1; or expected str"),
        ({"minimum": 2}, 1, "$: expected a number of at least 2, found the number 1"),
    ],
    ids=repr,
)  # fmt: skip
def test_an_error_of_a_check_names_the_place_and_what_was_expected(schema: Any, data: Any, message: str) -> None:
    with pytest.raises(DecodeError) as caught:
        codec.matches(schema, data)

    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "strange"},
        {"type": 5},
        {"required": "a"},
        {"properties": ["a"]},
        {"items": 3},
        {"enum": "ab"},
        {"minimum": "1"},
        {"multipleOf": 0},
        {"pattern": "("},
        {"anyOf": []},
        {"$ref": "http://example.invalid/schema"},
        {"$ref": "#/$defs/nowhere"},
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}]},
    ],
    ids=repr,
)
def test_a_keyword_that_makes_no_sense_is_not_checked(schema: Any) -> None:
    for data in (1, "abc", [1], {"a": 1}, None):
        codec.matches(schema, data)


KEYWORDS = (
    "type $ref const enum required additionalProperties properties patternProperties propertyNames prefixItems items "
    "uniqueItems minimum maximum exclusiveMinimum multipleOf minLength maxLength pattern minItems allOf anyOf oneOf not"
).split()
WORDS = st.sampled_from(["#", "#/$defs/a", "string", "integer", "object", "array", "a", "b", "(", "^a"])
ANY_SCHEMA = st.recursive(
    JSON | WORDS,
    lambda inner: st.dictionaries(st.sampled_from([*KEYWORDS, "$defs", "a"]), inner, max_size=4) | st.lists(inner),
    max_leaves=10,
)


@given(ANY_SCHEMA, st.recursive(JSON | WORDS, lambda inner: st.dictionaries(WORDS, inner, max_size=2)))
def test_checking_any_data_against_any_schema_ends_in_nothing_but_a_decode_error(schema: Any, data: Any) -> None:
    try:
        codec.matches(schema, data)
    except DecodeError as error:
        assert error.path.startswith("$")


def test_data_nested_too_deep_to_check_is_an_error() -> None:
    data: Any = []
    for _ in range(5000):
        data = [data]

    with pytest.raises(DecodeError, match="too deep"):
        codec.matches({"items": {"$ref": "#"}}, data)


def tool_arguments() -> list[dict[str, Any]]:
    path = shared("badinput/tool_args.jsonl")
    cases = [json.loads(line) for line in path.read_text().splitlines()] if path else []
    return [case for case in cases if case["kind"] == "tool_args"]


@needs_shared("badinput/tool_args.jsonl")
@pytest.mark.parametrize("case", tool_arguments(), ids=lambda case: case["id"])
def test_arguments_as_models_write_them_are_judged(case: dict[str, Any]) -> None:
    given_input = case["input"]
    parts = given_input.get("parts") or [[given_input["data"], 1]]
    text = "".join(part * count for part, count in parts)

    if case["expect"] == "ok":
        arguments = codec.loads(text)
        codec.matches(case["schema"], arguments)
        assert arguments == case["result"]["arguments"]
    else:
        with pytest.raises(DecodeError):
            codec.matches(case["schema"], codec.loads(text, max_bytes=1_000_000))
