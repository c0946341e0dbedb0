"""Values to JSON and back: text, every kind of type, records and their tags, the three modes."""

from __future__ import annotations

import datetime as dt
import enum
import gc
import json
import subprocess
import sys
import threading
import time
import weakref
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, TypeVar
from uuid import UUID

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import NotRequired, Self, TypedDict

from tinygen import codec, messages
from tinygen.cancellation import CancellationToken
from tinygen.errors import ConfigError, DecodeError, EncodeError
from tinygen.messages import (
    AssistantMessage,
    BaseAgentEvent,
    BaseChatMessage,
    FunctionCall,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    HandoffMessage,
    Image,
    LLMMessage,
    MemoryContent,
    MultiModalMessage,
    Record,
    RequestUsage,
    StructuredMessage,
    SystemMessage,
    TaskResult,
    TextMessage,
    ThoughtEvent,
    UserMessage,
)
from tinygen.usage import PartUsage
from typed_values import JSON, TYPES, Color, Level, Tree, damaged

MODES = ("wire", "state", "arguments")
UTC = dt.timezone.utc
PICTURE = Image(b"\x89PNG\r\n\x1a\n...")
NOON = dt.datetime(2026, 1, 31, 12, tzinfo=UTC)


def assert_comes_back(tp: Any, value: Any) -> None:
    """`value` survives a journey through JSON text, whatever the mode."""
    text = codec.dumps(value)
    for mode in MODES:
        found = codec.decode(tp, codec.loads(text), mode=mode)
        assert found == value, text
        assert type(found) is type(value)


# --- JSON text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "Expecting value"),
        ("{'a': 1}", "double quotes"),
        ('{"a": 1,}', "not JSON"),
        ('{"a": 1} {"a": 2}', "Extra data"),
        ('{"a": 1, "b": 2, "a": 3}', "'a' stands twice"),
        ("[NaN]", "NaN"),
        ("-Infinity", "Infinity"),
        ("[1e999]", "1e999"),
        ("9" * 5000, "too many digits"),
        ('"a\x01b"', "control character"),
        ('["\\ud800"]', "not Unicode"),
        ('{"\\uDC00": 1}', "not Unicode"),
        ("\ud800", "not Unicode"),
        (b'"\xff"', "not Unicode"),
        (b"\xef\xbb\xbf1", "Expecting value"),
        ("[" * 129 + "]" * 129, "deeper than 128"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "deeper than 128"),
        (17, "found a int"),
    ],
)
def test_text_that_is_not_one_sound_document_is_refused(text: Any, problem: str) -> None:
    with pytest.raises(DecodeError, match=problem) as caught:
        codec.loads(text)

    assert caught.value.path == "$"


def test_sound_documents_are_read_as_json_reads_them() -> None:
    text = ' {"a": [1, -2.5e3, true, null, "\\ud83d\\ude00 \\\\ \\"[{", {}], "": "ü"}\n'

    assert codec.loads(text) == codec.loads(text.encode()) == json.loads(text)
    assert codec.loads("[" * 128 + "]" * 128) == json.loads("[" * 128 + "]" * 128)


def test_a_document_above_the_size_limit_is_not_parsed() -> None:
    assert codec.loads('"üü"', max_bytes=6) == "üü"

    with pytest.raises(DecodeError, match="6 bytes, 5 are allowed"):
        codec.loads('"üü"', max_bytes=5)


@given(JSON, st.integers(0, 5), st.sampled_from([None, 1]))
def test_the_depth_limit_counts_arrays_and_objects_and_not_what_strings_hold(
    data: Any, limit: int, indent: int | None
) -> None:
    data = ["]}]}" * 4, {'[{"\\': data}, "\\", '"', '\\"[']
    text = json.dumps(data, indent=indent, ensure_ascii=False)

    if depth(data) <= limit:
        assert codec.loads(text, max_depth=limit) == data
    else:
        with pytest.raises(DecodeError, match="deeper"):
            codec.loads(text, max_depth=limit)


def depth(data: Any) -> int:
    inside = data.values() if isinstance(data, dict) else data if isinstance(data, list) else ()
    return isinstance(data, (list, dict)) + max(map(depth, inside), default=0)


@given(st.text() | st.text(alphabet='[]{}",:0123456789.eE+-truefalsn\\ud \n') | st.binary())
def test_reading_any_text_gives_data_or_a_decode_error(text: str | bytes) -> None:
    try:
        data = codec.loads(text)
    except DecodeError:
        return

    assert data == json.loads(text)
    assert json.dumps(data, ensure_ascii=False).encode()


@given(JSON)
def test_what_is_written_is_read_again(data: Any) -> None:
    assert codec.loads(codec.dumps(data)) == data == codec.loads(codec.dumps(data, indent=2))


def test_text_is_compact_and_keeps_its_letters() -> None:
    assert codec.dumps({"a": ["ü", 1.5]}) == '{"a":["ü",1.5]}'
    assert codec.dumps([1], indent=1) == "[\n 1\n]"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [1, float("nan")]}, "$.a[1]: nan is not"),
        ([float("-inf")], "$[0]: -inf is not"),
        (["\ud800"], "$: a string is not Unicode"),
        ([10**5000], "$: an integer has too many digits"),
        ({"a": {"b c": CancellationToken()}}, "$.a['b c']: a value of class CancellationToken cannot"),
        ([Decimal("NaN")], "$[0]: Decimal('NaN') is not"),
        (int, "$: the class int cannot"),
        ({1: 2, "1": 3}, "$: two keys are the same"),
        ({(1, 2): 3}, "$['(1, 2)']: a value of class tuple cannot be the key"),
        ({True: 3}, "$.True: a value of class bool cannot be the key"),
        (SystemMessage(content=object()), "$.content: a value of class object cannot"),  # type: ignore[arg-type]
        (object.__new__(SystemMessage), "$.content: cannot be read"),
    ],
)
def test_what_json_cannot_carry_is_refused_with_its_place(value: Any, message: str) -> None:
    with pytest.raises(EncodeError) as caught:
        codec.dumps(value)

    assert str(caught.value).startswith(message)


class Spoilt(dict[str, Any]):
    def items(self) -> Any:
        raise ZeroDivisionError("on purpose")


class Zone(dt.tzinfo):
    def utcoffset(self, moment: Any) -> Any:
        raise OSError("on purpose")


class Computed(pydantic.BaseModel):
    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def it(self) -> int:
        raise KeyError("on purpose")


@pytest.mark.parametrize("value", [Spoilt(a=1), NOON.replace(tzinfo=Zone()), Computed()], ids=["map", "zone", "model"])
@pytest.mark.parametrize("write", [codec.encode, codec.dumps, codec.digest])
def test_what_raises_when_it_is_read_cannot_be_encoded(write: Any, value: Any) -> None:
    with pytest.raises(EncodeError, match="on purpose"):
        write([value])


def test_a_value_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append({"again": loop})

    with pytest.raises(EncodeError, match="contains itself"):
        codec.encode(loop)


def test_nothing_is_written_that_is_too_deep_to_be_read() -> None:
    deep: Any = 1
    for _ in range(128):
        deep = [deep]

    assert codec.loads(codec.dumps(deep)) == deep
    with pytest.raises(EncodeError, match="deeper than 128"):
        codec.dumps([deep])


def test_a_digest_depends_on_the_data_alone() -> None:
    one = codec.digest({"b": [1, NOON], "a": {3, 1, 2}})

    assert one == codec.digest({"a": frozenset([2, 1, 3]), "b": (1, "2026-01-31T12:00:00Z")})
    assert one != codec.digest({"a": [1, 2, 3], "b": [1.5, NOON]})
    assert len(one) == 32 and int(one, 16) >= 0


def test_a_digest_is_the_same_in_another_process() -> None:
    code = "from tinygen import codec; print(codec.digest([{'x', 'y', 'z'}, {'ü': None}]))"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert there.stdout.strip() == codec.digest([{"x", "y", "z"}, {"ü": None}])


# --- values of every kind


class UserId(NamedTuple):
    number: int
    name: str | None = None


class Flags(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()


class Options(TypedDict, total=False):
    depth: int
    name: NotRequired[str]


class Settings(Options):
    path: str


Number = NewType("Number", int)
T = TypeVar("T")
N = TypeVar("N", bound=int)


@dataclass
class Box(Generic[T]):
    item: T
    others: list[T] = field(default_factory=list)


@dataclass
class Crate(Box[int], Generic[N]):
    count: N = field(kw_only=True)


@dataclass(frozen=True)
class Frozen:
    __slots__ = ("x",)
    x: int


@dataclass
class Node:
    value: int
    next: Self | None = None


class Person(pydantic.BaseModel):
    name: str
    born: dt.date | None = None
    age: int = pydantic.Field(3, alias="ageInYears", ge=0)


@pytest.mark.parametrize(
    ("tp", "value", "data"),
    [
        (dt.datetime, NOON, "2026-01-31T12:00:00Z"),
        (dt.datetime, NOON.replace(microsecond=5), "2026-01-31T12:00:00.000005Z"),
        (dt.datetime, dt.datetime(2026, 1, 31), "2026-01-31T00:00:00"),
        (dt.datetime, NOON.astimezone(dt.timezone(dt.timedelta(hours=-3))), "2026-01-31T09:00:00-03:00"),
        (dt.date, dt.date(2026, 1, 31), "2026-01-31"),
        (dt.time, dt.time(12, 30, tzinfo=UTC), "12:30:00Z"),
        (dt.timedelta, dt.timedelta(minutes=1, microseconds=1), 60.000001),
        (bytes, b"\x00\xff", "AP8="),
        (UUID, UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (Decimal, Decimal("1.50"), "1.50"),
        (Path, Path("a/b"), str(Path("a/b"))),
        (Image, PICTURE, {"data": PICTURE.to_base64()}),
        (Color, Color.BLUE, 2),
        (Color, Color.BOTH, [1, 2]),
        (Level, Level.HIGH, 2),
        (Flags, Flags.READ | Flags.WRITE, 3),
        (Literal["a", 1, Color.RED], Color.RED, "red"),
        (set[str], {"b", "a"}, ["a", "b"]),
        (tuple[int, str], (1, "a"), [1, "a"]),
        (tuple[()], (), []),
        (UserId, UserId(1), [1, None]),
        (dict[int, str], {-1: "a"}, {"-1": "a"}),
        (dict[Color, int], {Color.RED: 1, Color.BLUE: 2}, {"red": 1, "2": 2}),
        (dict[dt.date, int], {dt.date(2026, 1, 31): 1}, {"2026-01-31": 1}),
        (Number, Number(3), 3),
        (Settings, {"path": "a", "depth": 1}, {"path": "a", "depth": 1}),
        (Box[str], Box("a", ["b"]), {"item": "a", "others": ["b"]}),
        (Crate[int], Crate(1, [2], count=3), {"item": 1, "others": [2], "count": 3}),
        (Frozen, Frozen(1), {"x": 1}),
        (Node, Node(1, Node(2)), {"value": 1, "next": {"value": 2, "next": None}}),
        (Person, Person(name="a", ageInYears=4), {"name": "a", "born": None, "ageInYears": 4}),
    ],
    ids=repr,
)
def test_a_value_has_this_form_and_comes_back(tp: Any, value: Any, data: Any) -> None:
    assert codec.encode(value) == data
    assert_comes_back(tp, value)


@given(st.data())
def test_any_value_of_any_type_comes_back(data: st.DataObject) -> None:
    typed = data.draw(TYPES)

    assert_comes_back(typed.tp, data.draw(typed.values))


@given(st.data())
def test_decoding_any_data_as_any_type_gives_a_value_or_a_decode_error(data: st.DataObject) -> None:
    typed = data.draw(TYPES)
    given_data = data.draw(JSON | typed.values.flatmap(lambda value: damaged(codec.encode(value))))

    for mode in MODES:
        try:
            codec.decode(typed.tp, given_data, mode=mode)
        except DecodeError as error:
            assert error.path.startswith("$")


def test_encoding_copies_what_can_change() -> None:
    value = {"a": [1]}
    data = codec.encode(value)

    data["a"].append(2)

    assert value == {"a": [1]}


@pytest.mark.parametrize(
    ("tp", "data", "value"),
    [
        (int, 3.0, 3),
        (float, 3, 3.0),
        (int | str, 3.0, 3),
        (dt.datetime, "2026-01-31 12:00Z", NOON),
        (dt.datetime, "2026-01-31t13:00:00.000000+01:00", NOON),
        (dt.time, "12:30", dt.time(12, 30)),
    ],
)
@pytest.mark.parametrize("mode", MODES)
def test_what_loses_nothing_is_converted(tp: Any, data: Any, value: Any, mode: Any) -> None:
    found = codec.decode(tp, data, mode=mode)

    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("tp", "data"),
    [
        (int, "3"),
        (int, True),
        (int, 2.5),
        (bool, 1),
        (bool, "true"),
        (float, "1"),
        (float, 2**53 + 1),
        pytest.param(float, 10**400, id="float-huge"),
        (float, float("nan")),
        (list[float], [float("inf")]),
        (str, 3),
        (str, None),
        (dict[int, int], {"03": 1}),
        (Literal[1], True),
        (Literal["1"], 1),
        (Color, "green"),
        (Flags, True),
        (Flags, 4),
        (Flags, -1),
        (list[int], {}),
        (set[int], [1, 1.0]),
        (set[Any], [[1]]),
        (tuple[int, str], [1]),
        (bytes, "not base64!"),
        (Image, {"data": "AAAA"}),
        (dt.date, "2026-02-30"),
        (dt.datetime, "2026-01-31"),
        (dt.datetime, "20260131T120000Z"),
        (dt.datetime, 1769860800),
        (dt.time, "12h30"),
        (dt.timedelta, 1e300),
        (UUID, "{00000000-0000-0000-0000-000000000005}"),
        (Decimal, "NaN"),
        (Decimal, 1.5),
        (Person, {"name": "a", "ageInYears": "4"}),
    ],
)
@pytest.mark.parametrize("mode", MODES)
def test_what_would_lose_or_guess_is_refused(tp: Any, data: Any, mode: Any) -> None:
    with pytest.raises(DecodeError):
        codec.decode(tp, data, mode=mode)


def test_times_finer_than_microseconds_are_cut_on_the_wire_alone() -> None:
    text = "2026-01-31T12:00:00.1234567Z"  # as .NET and Go write them

    assert codec.decode(dt.datetime, text).microsecond == 123456
    with pytest.raises(DecodeError):
        codec.decode(dt.datetime, text, mode="arguments")


def test_unknown_keys_are_ignored_on_the_wire_alone() -> None:
    data = {"name": "a", "kid": [], "kids": []}

    assert codec.decode(Tree, data) == Tree("a")
    for mode in ("state", "arguments"):
        with pytest.raises(DecodeError, match=r"\$: unexpected key 'kid'; did you mean 'kids'\?"):
            codec.decode(Tree, data, mode=mode)  # type: ignore[arg-type]


def test_an_unknown_mode_is_an_error_of_the_caller() -> None:
    with pytest.raises(ConfigError, match="'strict'"):
        codec.decode(int, 3, mode="strict")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tp", "data", "message"),
    [
        (
            list[Tree],
            [{"name": "a", "kids": [{"name": 3}]}],
            "$[0].kids[0].name: expected a string, found the number 3",
        ),
        (dict[str, list[int]], {"a b": [1, None]}, "$['a b'][1]: expected an integer, found null"),
        (Tree, {}, "$.name: this key is missing"),
        (Tree, [1], "$: expected an object, found an array of 1"),
        (tuple[int, str], [1, 2], "$[1]: expected a string, found the number 2"),
        (Color, "green", "$: expected one of \"red\", 2, [1, 2], found the string 'green'"),
        (int | list[int], [1, "x"], "$[1]: expected an integer, found the string 'x'"),
        (int | list[int], "x", "$: expected an integer or an array, found the string 'x'"),
        (Person, {"name": "a", "born": "x"}, "$.born: Person refuses this: "),
        (str, ["x"] * 9, "$: expected a string, found an array of 9"),
        (int, "y" * 1000, f"$: expected an integer, found the string '{'y' * 57}'... of 1000 characters"),
        pytest.param(str, 10**400, "$: expected a string, found an integer of 1329 bits", id="huge"),
    ],
)
def test_an_error_names_the_place_and_what_was_expected(tp: Any, data: Any, message: str) -> None:
    with pytest.raises(DecodeError) as caught:
        codec.decode(tp, data)

    assert str(caught.value).startswith(message)


def test_the_path_begins_where_the_caller_says() -> None:
    with pytest.raises(DecodeError, match=r"^\$\.state\[0\]: "):
        codec.decode(list[int], ["x"], path="$.state")


def test_a_class_that_refuses_its_values_is_a_decode_error() -> None:
    @dataclass
    class Even:
        number: int

        def __post_init__(self) -> None:
            if self.number % 2:
                raise KeyError("odd")

    assert_comes_back(list[Even], [Even(2)])
    with pytest.raises(DecodeError, match=r"\$\[0\]: Even refuses these values: 'odd'"):
        codec.decode(list[Even], [{"number": 3}])


def test_an_init_written_by_hand_is_called_wherever_its_source_came_from() -> None:
    names: dict[str, Any] = {"dataclass": dataclass}
    exec("@dataclass\nclass Doubled:\n    x: int\n\n    def __init__(self, x): self.x = 2 * x", names)

    assert codec.decode(names["Doubled"], {"x": 2}).x == 4


def test_fields_that_init_does_not_take_are_left_to_the_class() -> None:
    @dataclass
    class Counted:
        text: str
        size: int = field(init=False)

        def __post_init__(self) -> None:
            self.size = len(self.text)

    assert codec.encode(Counted("abc")) == {"text": "abc"}
    assert_comes_back(Counted, Counted("abc"))


def test_a_pydantic_model_takes_whole_floats_for_integers() -> None:
    assert codec.decode(Person, {"name": "a", "ageInYears": 4.0}).age == 4


@pytest.mark.parametrize(
    ("tp", "value"),
    [
        (int | str, "3"),
        (int | float, 3.0),
        (float | int, 3),
        (bool | int, 1),
        (int | dt.timedelta, dt.timedelta(0)),
        (Color | str, Color.RED),
        (str | list[FunctionCall], [FunctionCall("1", "{}", "f")]),
        (str | list[str | Image], ["a", PICTURE]),
        (list[int] | list[str], ["a"]),
        (dict[str, Any] | Tree, Tree("a")),
        (Box[int] | Box[str], Box("a")),
        (str | bytes | dict[str, Any] | Image, {"data": "no picture"}),
        (str | bytes | dict[str, Any] | Image, PICTURE),
        (dict[str, int] | Person, Person(name="a", ageInYears=4)),
    ],
    ids=repr,
)
def test_a_union_finds_the_member_a_value_came_from(tp: Any, value: Any) -> None:
    assert_comes_back(tp, value)


def test_on_the_wire_a_union_prefers_the_class_that_ignores_no_key() -> None:
    assert codec.decode(Tree | UserMessage, {"content": "x", "source": "y", "name": "z"}) == Tree("z")
    assert codec.decode(Frozen | Tree, {"name": "a", "kids": [], "x": 1}) == Frozen(1)
    assert codec.decode(Frozen | Box[int], {"x": 1, "item": 1, "others": []}) == Frozen(1)
    assert codec.decode(Frozen | Node, {"x": 1, "value": 1, "next": None}) == Frozen(1)
    assert codec.decode(Box[int] | Crate[int], {"item": 1, "others": [], "count": 1}) == Crate(1, count=1)


def test_the_order_of_a_union_counts_where_both_members_fit() -> None:
    assert codec.decode(Path | UUID, "a") == Path("a")
    assert codec.decode(list[set[int] | list[int]], [[1]]) == [{1}]
    assert codec.decode(list[list[int] | set[int]], [[1]]) == [[1]]


def test_bytes_in_a_field_that_takes_strings_come_back_as_bytes() -> None:
    content = MemoryContent(content=b"\x00\xff", mime_type="application/octet-stream")

    assert codec.encode(content)["content"] == {"base64": "AP8="}
    assert_comes_back(MemoryContent, content)
    assert codec.decode(MemoryContent, {"content": "AP8=", "mime_type": "text/plain"}).content == "AP8="


@dataclass
class Left:
    next: Left | Right | None
    x: int


@dataclass
class Right:
    next: Left | Right | None
    x: str


def test_nested_alternatives_do_not_take_exponential_time() -> None:
    data: Any = {"next": None, "x": []}
    for number in range(100):
        data = {"next": data, "x": "a" if number % 2 else 1, "extra": 1}

    started = time.perf_counter()
    with pytest.raises(DecodeError, match=r"(\.next){100}\.x"):
        codec.decode(Left | Right, data)
    with pytest.raises(DecodeError):
        codec.matches(codec.schema(Left | Right), data)

    assert time.perf_counter() - started < 5


# --- annotations


def test_names_imported_for_type_checkers_alone_are_understood() -> None:
    made = codec.decode(messages.CreateResult, codec.encode(CREATED))  # its module has no Literal at run time

    assert made == CREATED


def test_classes_declared_in_a_function_are_found_while_it_runs() -> None:
    @dataclass
    class Inner:
        x: int

    @dataclass
    class Outer:
        inner: Inner
        again: Outer | None = None

    assert_comes_back(Outer, Outer(Inner(1), Outer(Inner(2))))


def test_a_name_that_cannot_be_found_is_an_error_naming_class_and_field() -> None:
    @dataclass
    class Lost:
        x: list[NoSuchName]  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(ConfigError, match=r"Lost\.x: .*'NoSuchName'.*module level"):
        codec.decode(Lost, {})


class Uncarried(enum.Enum):
    LOCK = threading.Lock()


@pytest.mark.parametrize("tp", [complex, type, Uncarried, dict[float, int], dict[tuple[int], int], "Nothing"])
def test_a_type_that_json_cannot_carry_is_refused(tp: Any) -> None:
    with pytest.raises(ConfigError):
        codec.decode(tp, {})


def test_annotated_types_of_any_make_are_decoded() -> None:
    unhashable = Annotated[int, ["a", "list"]]

    assert codec.decode(unhashable, 3) == 3
    assert codec.decode(list[Annotated[N, "a number"]], [3]) == [3]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the syntax is that of Python 3.12")
def test_type_statements_are_understood() -> None:
    names: dict[str, Any] = {"dataclass": dataclass}
    source = """
type Json = dict[str, Json] | list[Json] | str | float | None
type Pair[T] = tuple[T, T]
@dataclass
class Held[T]:
    item: T
"""
    exec(source, names)

    assert_comes_back(names["Json"], {"a": [None, {"b": [1.5]}]})
    assert_comes_back(names["Pair"][int], (1, 2))
    assert_comes_back(names["Held"][int] | names["Held"][str], names["Held"]("a"))


def test_nothing_keeps_a_class_that_is_no_longer_used() -> None:
    kept = []
    for _ in range(3):
        cls = type("Passing", (), {"__annotations__": {"x": int}})
        assert codec.decode(dataclass(cls), {"x": 1}) == codec.decode(cls, codec.encode(cls(1)))  # type: ignore[call-arg]
        kept.append(weakref.ref(cls))
    del cls
    gc.collect()

    assert [ref() for ref in kept if ref() is not None] == []


def test_many_threads_may_decode_a_new_type_at_once() -> None:
    made = [dataclass(type("New", (), {"__annotations__": {"x": Tree, "y": Box[int]}})) for _ in range(20)]
    data = {"x": {"name": "a"}, "y": {"item": 1}}
    done: list[Any] = []
    threads = [
        threading.Thread(target=lambda: done.extend(codec.decode(cls, data).x for cls in made)) for _ in range(8)
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert done == [Tree("a")] * 160


# --- records


@dataclass
class Out:
    x: int


CALL = FunctionCall("1", "{}", "add")
RESULT = FunctionExecutionResult(content="3", name="add", call_id="1", is_error=False)
USAGE = RequestUsage(1, 2)
HEAD: dict[str, Any] = {"id": "7", "source": "ag", "metadata": {"k": "v"}, "created_at": NOON}
HEAD_DATA = {
    "id": "7",
    "source": "ag",
    "models_usage": None,
    "metadata": {"k": "v"},
    "created_at": "2026-01-31T12:00:00Z",
}
CALL_DATA = {"id": "1", "arguments": "{}", "name": "add"}
RESULT_DATA = {"content": "3", "name": "add", "call_id": "1", "is_error": False}
LOGPROB = messages.ChatCompletionTokenLogprob(
    token="a", logprob=-0.5, top_logprobs=[messages.TopLogprob(-0.5, [97])], bytes=[97]
)
CREATED = messages.CreateResult(
    finish_reason="stop", content=[CALL], usage=USAGE, cached=False, logprobs=[LOGPROB], thought="hm"
)
EXAMPLES: list[tuple[Record, dict[str, Any]]] = [
    (USAGE, {"prompt_tokens": 1, "completion_tokens": 2}),
    (CALL, CALL_DATA),
    (RESULT, RESULT_DATA),
    (SystemMessage(content="s"), {"content": "s", "type": "SystemMessage"}),
    (
        UserMessage(content=["a", PICTURE], source="u"),
        {"content": ["a", {"data": PICTURE.to_base64()}], "source": "u", "type": "UserMessage"},
    ),
    (
        AssistantMessage(content=[CALL], source="ag"),
        {"content": [CALL_DATA], "thought": None, "source": "ag", "type": "AssistantMessage"},
    ),
    (
        FunctionExecutionResultMessage(content=[RESULT]),
        {"content": [RESULT_DATA], "type": "FunctionExecutionResultMessage"},
    ),
    (LOGPROB.top_logprobs[0], {"logprob": -0.5, "bytes": [97]}),  # type: ignore[index]
    (LOGPROB, {"token": "a", "logprob": -0.5, "top_logprobs": [{"logprob": -0.5, "bytes": [97]}], "bytes": [97]}),
    (
        messages.CreateResult(finish_reason="unknown", content="x", usage=USAGE, cached=True),
        {
            "finish_reason": "unknown",
            "content": "x",
            "usage": {"prompt_tokens": 1, "completion_tokens": 2},
            "cached": True,
            "logprobs": None,
            "thought": None,
        },
    ),
    (
        MemoryContent(content={"a": 1}, mime_type="application/json"),
        {"content": {"a": 1}, "mime_type": "application/json", "metadata": None},
    ),
    (messages.CodeBlock("1", "python"), {"code": "1", "language": "python"}),
    (messages.CodeResult(0, "1"), {"exit_code": 0, "output": "1"}),
    (TextMessage(content="hi", **HEAD), {**HEAD_DATA, "content": "hi", "type": "TextMessage"}),
    (messages.StopMessage(content="x", **HEAD), {**HEAD_DATA, "content": "x", "type": "StopMessage"}),
    (
        HandoffMessage(
            content="Transferred to bob.",
            target="bob",
            context=[AssistantMessage(content=[CALL], source="ag"), FunctionExecutionResultMessage(content=[RESULT])],
            **HEAD,
        ),
        {
            **HEAD_DATA,
            "content": "Transferred to bob.",
            "target": "bob",
            "context": [
                {"content": [CALL_DATA], "thought": None, "source": "ag", "type": "AssistantMessage"},
                {"content": [RESULT_DATA], "type": "FunctionExecutionResultMessage"},
            ],
            "type": "HandoffMessage",
        },
    ),
    (
        messages.ToolCallSummaryMessage(content="3", tool_calls=[CALL], results=[RESULT], **HEAD),
        {
            **HEAD_DATA,
            "content": "3",
            "tool_calls": [CALL_DATA],
            "results": [RESULT_DATA],
            "type": "ToolCallSummaryMessage",
        },
    ),
    (
        MultiModalMessage(content=["a", PICTURE], **HEAD),
        {**HEAD_DATA, "content": ["a", {"data": PICTURE.to_base64()}], "type": "MultiModalMessage"},
    ),
    (
        StructuredMessage[Out](content=Out(1), **HEAD),
        {**HEAD_DATA, "content": {"x": 1}, "format_string": None, "type": "StructuredMessage[Out]"},
    ),
    (
        messages.ToolCallRequestEvent(content=[CALL], **HEAD),
        {**HEAD_DATA, "content": [CALL_DATA], "type": "ToolCallRequestEvent"},
    ),
    (
        messages.ToolCallExecutionEvent(content=[RESULT], **HEAD),
        {**HEAD_DATA, "content": [RESULT_DATA], "type": "ToolCallExecutionEvent"},
    ),
    (
        messages.UserInputRequestedEvent(request_id="r", **HEAD),
        {**HEAD_DATA, "request_id": "r", "content": "", "type": "UserInputRequestedEvent"},
    ),
    (
        messages.MemoryQueryEvent(content=[MemoryContent(content="a", mime_type="text/plain")], **HEAD),
        {
            **HEAD_DATA,
            "content": [{"content": "a", "mime_type": "text/plain", "metadata": None}],
            "type": "MemoryQueryEvent",
        },
    ),
    (
        messages.ModelClientStreamingChunkEvent(content="a", full_message_id="7", **HEAD),
        {**HEAD_DATA, "content": "a", "full_message_id": "7", "type": "ModelClientStreamingChunkEvent"},
    ),
    (ThoughtEvent(content="a", **HEAD), {**HEAD_DATA, "content": "a", "type": "ThoughtEvent"}),
    (messages.SelectSpeakerEvent(content=["a"], **HEAD), {**HEAD_DATA, "content": ["a"], "type": "SelectSpeakerEvent"}),
    (messages.SelectorEvent(content="a", **HEAD), {**HEAD_DATA, "content": "a", "type": "SelectorEvent"}),
    (
        messages.CodeGenerationEvent(
            retry_attempt=1, content="a", code_blocks=[messages.CodeBlock("1", "python")], **HEAD
        ),
        {
            **HEAD_DATA,
            "retry_attempt": 1,
            "content": "a",
            "code_blocks": [{"code": "1", "language": "python"}],
            "type": "CodeGenerationEvent",
        },
    ),
    (
        messages.CodeExecutionEvent(retry_attempt=1, result=messages.CodeResult(0, "1"), **HEAD),
        {**HEAD_DATA, "retry_attempt": 1, "result": {"exit_code": 0, "output": "1"}, "type": "CodeExecutionEvent"},
    ),
    (
        messages.Response(chat_message=TextMessage(content="hi", **HEAD), inner_messages=[]),
        {"chat_message": {**HEAD_DATA, "content": "hi", "type": "TextMessage"}, "inner_messages": []},
    ),
    (
        messages.Pending(id="1", kind="tool", source="ag", content={"a": 1}),
        {"id": "1", "kind": "tool", "source": "ag", "content": {"a": 1}},
    ),
    (
        TaskResult(messages=[ThoughtEvent(content="a", **HEAD)], stop_reason="x"),
        {
            "messages": [{**HEAD_DATA, "content": "a", "type": "ThoughtEvent"}],
            "stop_reason": "x",
            "pending": [],
            "usage": {"prompt_tokens": 0, "completion_tokens": 0},
            "abandoned": [],
        },
    ),
    (
        messages.RunUsage(2, 1, cost=0.5, model_calls=1, by_agent={"a": PartUsage(2, 1, calls=1, cost=0.5)}),
        {
            "prompt_tokens": 2,
            "completion_tokens": 1,
            "cost": 0.5,
            "model_calls": 1,
            "by_agent": {"a": {"prompt_tokens": 2, "completion_tokens": 1, "calls": 1, "cost": 0.5}},
        },
    ),
]


@pytest.mark.parametrize(("record", "data"), EXAMPLES, ids=lambda each: type(each).__name__)
def test_a_record_has_autogens_json_shape_and_comes_back(record: Record, data: dict[str, Any]) -> None:
    assert codec.encode(record) == data
    assert list(record.dump()) == list(data)
    assert_comes_back(type(record), record)


def test_every_record_of_the_messages_module_has_an_example() -> None:
    declared = {value for value in vars(messages).values() if isinstance(value, type) and issubclass(value, Record)}
    bases = {cls for cls in declared if cls.__name__.startswith(("_", "Base")) or cls in (Record, StructuredMessage)}

    assert declared - bases <= {type(record) for record, _ in EXAMPLES}


@pytest.mark.parametrize(
    "record", [record for record, data in EXAMPLES if "created_at" in data], ids=lambda each: type(each).__name__
)
def test_what_agents_say_is_found_by_its_type(record: Record) -> None:
    base = BaseAgentEvent if isinstance(record, BaseAgentEvent) else BaseChatMessage

    for tp in (base, BaseAgentEvent | BaseChatMessage, Record):
        assert_comes_back(tp, record)


@pytest.mark.parametrize("record", [record for record, _ in EXAMPLES[3:7]], ids=lambda each: type(each).__name__)
def test_what_models_read_is_found_by_its_type(record: Record) -> None:
    assert_comes_back(LLMMessage, record)


def test_a_type_written_with_the_general_class_finds_the_structured_one() -> None:
    message = StructuredMessage[Person](content=Person(name="a"), source="ag")

    assert_comes_back(StructuredMessage, message)
    assert_comes_back(list[BaseChatMessage], [message])
    assert_comes_back(BaseChatMessage, StructuredMessage(content={"any": ["thing"]}, source="ag"))


@pytest.mark.parametrize(
    ("tp", "data", "message"),
    [
        (TextMessage, {"type": "StopMessage"}, "$.type: expected 'TextMessage', found the string 'StopMessage'"),
        (
            BaseChatMessage,
            {"type": "TextMesage"},
            "$.type: 'TextMesage' is not a known BaseChatMessage; did you mean 'TextMessage'?",
        ),
        (BaseChatMessage, {"type": "ThoughtEvent"}, "$.type: 'ThoughtEvent' is not a known BaseChatMessage"),
        (BaseChatMessage, {"source": "x"}, "$.type: this key is missing; it says which BaseChatMessage this is"),
        (BaseChatMessage, {"type": ["TextMessage"]}, "$.type: expected the name of a type, found an array of 1"),
        (LLMMessage, {"type": "Sytem"}, "$.type: 'Sytem' is not a known SystemMessage or UserMessage or"),
        (LLMMessage, {"content": "x"}, "$.type: this key is missing; it says which SystemMessage or"),
        (
            BaseAgentEvent | BaseChatMessage,
            {"type": "TextMessage", "source": "x", "content": 3},
            "$.content: expected a string",
        ),
    ],
)
@pytest.mark.parametrize("mode", MODES)
def test_a_wrong_or_missing_type_is_an_error_that_says_so(tp: Any, data: Any, message: str, mode: Any) -> None:
    with pytest.raises(DecodeError) as caught:
        codec.decode(tp, data, mode=mode)

    assert str(caught.value).startswith(message)


def test_the_type_may_be_left_out_where_only_one_class_fits() -> None:
    assert codec.decode(SystemMessage, {"content": "x"}, mode="state") == SystemMessage(content="x")
    assert codec.decode(SystemMessage | None, {"content": "x"}) == SystemMessage(content="x")
    assert TextMessage.load({"content": "x", "source": "y"}).source == "y"


def test_a_record_of_ones_own_is_written_with_its_type_and_found_by_it() -> None:
    class Shape(Record):
        name: str

    class Circle(Shape):
        radius: float

    class Vote(BaseChatMessage):
        type: Literal["Ballot"] = "Ballot"
        choice: str

    circle = Circle(name="c", radius=1.0)
    assert codec.encode(circle) == {"name": "c", "radius": 1.0, "type": "Circle"}
    assert_comes_back(list[Shape], [circle, Shape(name="s")])
    assert list(codec.encode(Vote(choice="a", source="b")))[-2:] == ["choice", "type"]
    assert_comes_back(BaseChatMessage, Vote(choice="a", source="b"))


def test_a_record_derived_from_one_without_a_type_has_one() -> None:
    class CachedUsage(RequestUsage):
        cached: int

    usage = CachedUsage(prompt_tokens=1, completion_tokens=2, cached=3)
    assert codec.encode(usage)["type"] == "CachedUsage"
    assert_comes_back(RequestUsage | None, usage)


def test_records_without_a_type_take_a_foreign_type_for_an_unknown_key() -> None:
    data = {**CALL_DATA, "type": "function"}

    assert codec.decode(FunctionCall, data) == CALL
    with pytest.raises(DecodeError, match="unexpected key 'type'"):
        codec.decode(FunctionCall, data, mode="state")


def test_a_field_named_type_may_mean_what_its_class_likes() -> None:
    class Noted(Record):
        type: str
        text: str = ""

    class Change(Record):
        type: str = "created"

    assert_comes_back(Noted, Noted(type="anything"))
    assert_comes_back(list[Change], [Change(), Change(type="deleted")])


def test_two_classes_of_one_name_are_an_error_only_when_that_name_is_read() -> None:
    def declare() -> type[BaseChatMessage]:
        class Twin(BaseChatMessage):
            number: int = 0

        return Twin

    one, other = declare(), declare()

    assert_comes_back(one, one(source="a"))
    assert_comes_back(other, other(source="a"))
    with pytest.raises(DecodeError, match=r"\$: the type 'Twin' is ambiguous, 2 classes .*Twin.*; rename one"):
        codec.decode(BaseChatMessage, codec.encode(one(source="a")))


def test_a_class_declared_again_takes_the_place_of_the_one_that_is_gone() -> None:
    for number in range(3):

        class Again(BaseChatMessage):
            number: int

        assert_comes_back(BaseAgentEvent | BaseChatMessage, Again(number=number, source="a"))
        assert_comes_back(list[BaseChatMessage], [Again(number=number, source="a")])
        del Again
        gc.collect()


def test_a_class_that_is_garbage_only_is_in_nobodys_way() -> None:
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):

            class Fleeting(BaseChatMessage): ...

            assert type(codec.decode(BaseChatMessage, {"type": "Fleeting", "source": "a"})) is Fleeting
            del Fleeting
    finally:
        gc.enable()


def test_a_class_declared_later_is_found_by_a_union_that_was_used_before() -> None:
    data = {"type": "Latecomer", "source": "a"}
    with pytest.raises(DecodeError, match="'Latecomer' is not a known"):
        codec.decode(BaseAgentEvent | BaseChatMessage, data)

    class Latecomer(BaseAgentEvent):
        pass

    assert type(codec.decode(BaseAgentEvent | BaseChatMessage, data)) is Latecomer


def test_a_class_declared_later_is_found_by_its_base_that_was_used_before() -> None:
    data = {"type": "Afterthought", "source": "a"}
    for _ in range(2):
        with pytest.raises(DecodeError, match="'Afterthought' is not a known BaseAgentEvent"):
            codec.decode(BaseAgentEvent, data)

        class Afterthought(BaseAgentEvent):
            pass

        assert type(codec.decode(BaseAgentEvent, data)) is Afterthought
        del Afterthought
        gc.collect()


def test_errors_of_the_codec_survive_pickling_by_their_parts() -> None:
    for error in (DecodeError("$.a", "b"), EncodeError("$.a", "b")):
        make, parts = error.__reduce__()  # type: ignore[misc]
        assert str(make(*parts)) == str(error) == "$.a: b"  # type: ignore[operator]
