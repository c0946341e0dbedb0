"""Functions as tools, calls that fail or hang, and workbenches."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import json
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from types import SimpleNamespace
from typing import Annotated, Any, Literal, TypedDict

import pytest

from shared_data import needs_shared, shared
from tinygen.cancellation import CancellationToken
from tinygen.errors import ConfigError, DecodeError, LimitReached, StateError, Suspended, ToolError
from tinygen.messages import Image
from tinygen.run import Run
from tinygen.tools import (
    BaseStreamTool,
    BaseTool,
    BaseToolWithState,
    FunctionTool,
    ImageResultContent,
    StaticStreamWorkbench,
    StaticWorkbench,
    TextResultContent,
    ToolOverride,
    ToolResult,
    Workbench,
    as_tool,
    error_text,
    parse_arguments,
    run_in_thread,
)
from tinygen.tools.bounds import bounded

PIXEL = Image.from_base64(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Point:
    x: int
    y: int = 0


class Named(TypedDict):
    name: str


async def add(a: int, b: int = 1) -> int:
    """Adds two
    numbers.

    More about it.
    """
    return a + b


def parameters_of(func: Any, **options: Any) -> Any:
    return FunctionTool(func, **options).schema["parameters"]


def properties_of(func: Any) -> dict[str, Any]:
    properties: dict[str, Any] = parameters_of(func)["properties"]
    return properties


async def answer(func: Any, /, **arguments: Any) -> Any:
    return await FunctionTool(func, name="f").run_json(arguments)


async def result_of(func: Any, arguments: Mapping[str, Any] | None = None, **options: Any) -> ToolResult:
    return await StaticWorkbench([FunctionTool(func, name="f", **options)]).call_tool("f", arguments)


async def text_of(func: Any, arguments: Mapping[str, Any] | None = None, **options: Any) -> str:
    result = await result_of(func, arguments, **options)
    assert not result.is_error, result
    return result.to_text()


async def error_of(func: Any, arguments: Mapping[str, Any] | None = None, **options: Any) -> str:
    result = await result_of(func, arguments, **options)
    assert result.is_error, result
    return result.to_text()


# --- schemas


def test_the_schema_comes_from_signature_and_docstring() -> None:
    assert FunctionTool(add).schema == {
        "name": "add",
        "description": "Adds two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer", "default": 1}},
            "required": ["a"],
            "additionalProperties": False,
        },
        "strict": False,
    }


def test_name_and_description_can_be_given() -> None:
    tool = FunctionTool(add, "Sums up.", name="plus")

    assert (tool.name, tool.description, tool.schema["name"]) == ("plus", "Sums up.", "plus")


def test_annotated_text_describes_a_parameter() -> None:
    def f(
        a: Annotated[int, "how many"],
        b: Annotated[str | None, "which"] = None,
        c: Annotated[str, "where"] = None,  # type: ignore[assignment]  # noqa: RUF013
    ) -> None: ...

    properties = properties_of(f)

    assert properties["a"] == {"type": "integer", "description": "how many"}
    assert properties["b"] == {
        "anyOf": [{"type": "string"}, {"type": "null"}],
        "description": "which",
        "default": None,
    }
    assert properties["c"] == properties["b"] | {"description": "where"}


GOOGLE = """Finds.

Args:
    a (dict[str, (int)]): the first,
        on two lines
    b: the second

Returns:
    c: nothing
"""
NUMPY = """Finds.

Parameters
----------
a : int, optional
    the first,
    on two lines
b
    the second

Returns
-------
c : int
    nothing
"""
REST = """Finds.

:param int a: the first,
    on two lines
:param b: the second
:returns: c: nothing
"""


@pytest.mark.parametrize("text", [GOOGLE, NUMPY, REST], ids=["google", "numpy", "rest"])
def test_docstrings_describe_parameters_in_the_usual_forms(text: str) -> None:
    def f(a: int, b: int, c: int = 0) -> None: ...

    f.__doc__ = text

    described = {name: entry.get("description") for name, entry in properties_of(f).items()}
    assert described == {"a": "the first, on two lines", "b": "the second", "c": None}
    assert FunctionTool(f).description == "Finds."


def test_what_annotated_says_wins_over_the_docstring() -> None:
    def f(a: Annotated[int, "annotated"]) -> None:
        """Finds.

        Args:
            a: documented
        """

    assert properties_of(f)["a"]["description"] == "annotated"


def test_a_parameter_without_annotation_may_be_anything() -> None:
    def f(a, b=2):  # type: ignore[no-untyped-def]
        return [a, b]

    assert parameters_of(f)["properties"] == {"a": {}, "b": {"default": 2}}
    assert asyncio.run(answer(f, a={"x": None})) == [{"x": None}, 2]


def test_a_default_that_is_no_json_is_left_out_of_the_schema() -> None:
    def f(a: Any = threading, b: Any = len) -> None: ...

    assert properties_of(f) == {"a": {}, "b": {}}


def test_the_cancellation_token_is_hidden_from_the_model() -> None:
    def f(a: int, cancellation_token: CancellationToken) -> None: ...
    def g(a: int, stop: CancellationToken | None = None) -> None: ...

    assert list(properties_of(f)) == list(properties_of(g)) == ["a"]


def test_arguments_fixed_by_a_partial_are_hidden_from_the_model() -> None:
    def search(key: str, query: str, limit: int = 5) -> str:
        """Searches."""
        return f"{key} {query} {limit}"

    tool = FunctionTool(functools.partial(search, key="secret", limit=3))

    assert (tool.name, tool.description) == ("search", "Searches.")
    assert list(tool.schema["parameters"]["properties"]) == ["query"]
    assert asyncio.run(tool.run_json({"query": "x"})) == "secret x 3"


def test_a_strict_tool_requires_every_argument() -> None:
    def f(a: int, b: str) -> None: ...

    schema = FunctionTool(f, strict=True).schema

    assert schema["strict"] is True
    assert schema["parameters"]["required"] == ["a", "b"]
    with pytest.raises(ConfigError, match="tool 'add' is strict, so its arguments must have no defaults; optional: b"):
        FunctionTool(add, strict=True)


@pytest.mark.parametrize("wrap", [lambda f: f, functools.partial, lambda f: SimpleNamespace(f=f).f])
def test_variable_arguments_are_refused_at_construction(wrap: Any) -> None:
    def f(*rest: int) -> None: ...
    def g(**more: int) -> None: ...

    with pytest.raises(ConfigError, match=r"tool 'f' takes \*rest.*named parameters"):
        FunctionTool(wrap(f))
    with pytest.raises(ConfigError, match=r"tool 'g' takes \*\*more"):
        FunctionTool(wrap(g))


def test_a_decorator_that_names_what_it_wraps_is_seen_through() -> None:
    @functools.wraps(add)
    async def logged(*args: Any, **kwargs: Any) -> Any:
        return await add(*args, **kwargs)

    assert FunctionTool(logged).schema == FunctionTool(add).schema
    assert asyncio.run(answer(logged, a=2)) == 3


def test_an_annotation_that_cannot_be_looked_up_is_named() -> None:
    def f(a: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(ConfigError, match=r"tool 'f' has an annotation that cannot be looked up .*Missing"):
        FunctionTool(f).schema  # noqa: B018 - the access is what is tested


def test_an_unknown_type_of_the_result_does_no_harm() -> None:
    def f(a: int) -> Missing:  # type: ignore[name-defined]  # noqa: F821
        return a

    assert list(properties_of(f)) == ["a"]


def test_a_lambda_needs_a_name() -> None:
    with pytest.raises(ConfigError, match="needs a name as a tool"):
        FunctionTool(lambda a: a)

    assert FunctionTool(lambda a: a, name="same").schema["parameters"]["required"] == ["a"]


def test_a_function_that_yields_is_no_tool() -> None:
    async def stream(city: str) -> AsyncIterator[str]:
        yield city

    def pieces(city: str) -> Iterator[str]:
        yield city

    class Streaming:
        async def __call__(self, city: str) -> AsyncIterator[str]:
            yield city

    for func in (stream, pieces, functools.partial(stream, "x"), Streaming()):
        with pytest.raises(ConfigError, match="yields; let it return its result, or derive from BaseStreamTool"):
            FunctionTool(func, name="f")  # type: ignore[arg-type]


def test_a_function_is_read_once_for_all_its_tools() -> None:
    assert FunctionTool(add).schema["parameters"] is FunctionTool(add).schema["parameters"]


def test_nested_types_are_described_in_the_schema() -> None:
    def f(points: list[Point], named: Named, colour: Colour = Colour.RED) -> None: ...

    text = json.dumps(parameters_of(f))

    assert all(word in text for word in ('"x"', '"name"', '"blue"', '"default": "red"'))


# --- callables of every kind


class Shop:
    """A shop."""

    def __init__(self, factor: int) -> None:
        self.factor = factor

    def times(self, a: int) -> int:
        return a * self.factor

    async def later(self, a: int) -> int:
        return a * self.factor

    @classmethod
    def of_class(cls, a: int) -> int:
        return a * 3

    @staticmethod
    def of_nobody(a: int) -> int:
        return a * 3

    def __call__(self, a: int) -> int:
        return a * self.factor


class AsyncShop:
    async def __call__(self, a: int) -> int:
        return a * 3


def positional(a: int, b: int = 1, /, c: int = 1) -> int:
    return a * b * c


@pytest.mark.parametrize(
    "func",
    [
        Shop(3).times,
        Shop(3).later,
        Shop.of_class,
        Shop.of_nobody,
        Shop(3),
        AsyncShop(),
        functools.partial(Shop(3).later),
        functools.partial(lambda factor, a: a * factor, 3),
        functools.partial(positional, c=3),
        lambda a: Shop(3).later(a),
    ],
)
async def test_callables_of_every_kind_are_tools(func: Any) -> None:
    tool = FunctionTool(func, name="f")

    assert await tool.run_json({"a": 2}) == 6
    assert next(iter(tool.schema["parameters"]["properties"])) == "a"


async def test_a_decorator_that_makes_an_async_function_synchronous_is_believed() -> None:
    # the trap: what it wraps is async, so it was called in the event loop, where asyncio.run fails
    def synchronous(function: Any) -> Any:
        @functools.wraps(function)
        def run(*args: Any, **named: Any) -> Any:
            return asyncio.run(function(*args, **named))

        return run

    assert await answer(synchronous(add), a=1, b=4) == 5


async def test_positional_only_arguments_find_their_place() -> None:
    assert await answer(positional, a=2) == 2
    assert await answer(positional, a=2, c=5) == 10
    assert await answer(positional, a=2, b=3, c=5) == 30


async def test_a_builtin_with_a_signature_is_a_tool() -> None:
    assert await answer(divmod, x=7, y=2) == (3, 1)
    with pytest.raises(ConfigError, match="has no signature to make a schema from"):
        FunctionTool(type, name="f").schema  # noqa: B018


def test_names_of_objects_come_from_their_class() -> None:
    assert FunctionTool(Shop(1)).name == "Shop"
    assert FunctionTool(Shop(1).times).name == "times"
    assert FunctionTool(functools.partial(add)).name == "add"


# --- arguments


@pytest.mark.parametrize(
    ("annotation", "data", "value"),
    [
        (str, "a", "a"),
        (int, 3.0, 3),
        (float, 2, 2.0),
        (bool, True, True),
        (None, None, None),
        (Literal["a", 1], "a", "a"),
        (Colour, "blue", Colour.BLUE),
        (int | None, None, None),
        (int | str, "x", "x"),
        (list[Point], [{"x": 1}], [Point(1)]),
        (tuple[int, str], [1, "a"], (1, "a")),
        (set[int], [1, 2], {1, 2}),
        (dict[str, Point], {"p": {"x": 1, "y": 2}}, {"p": Point(1, 2)}),
        (Named, {"name": "n"}, {"name": "n"}),
        (datetime, "2026-01-02T03:04:05", datetime(2026, 1, 2, 3, 4, 5)),
        (Any, [1, {"a": None}], [1, {"a": None}]),
    ],
)
async def test_arguments_arrive_in_the_annotated_types(annotation: Any, data: Any, value: Any) -> None:
    async def f(a: Any) -> Any:
        return a

    f.__annotations__["a"] = annotation

    got = await answer(f, a=data)

    assert got == value
    assert type(got) is type(value)


async def test_a_default_of_none_makes_an_argument_optional() -> None:
    async def f(a: int = None) -> Any:  # type: ignore[assignment]  # noqa: RUF013
        return a

    assert await answer(f, a=None) is None
    assert await answer(f) is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"points": "x"}, ["arguments.points"]),
        ({"points": [{"x": 1}, {"x": "1"}]}, ["arguments.points[1].x", "1"]),
        ({"points": [{"x": True}]}, ["arguments.points[0].x"]),
        ({"points": [{"y": 1}]}, ["arguments.points[0]", "x"]),
        ({"points": [], "n": "3"}, ["arguments.n", "3"]),
        ({"points": [], "n": 2.5}, ["arguments.n", "2.5"]),
        ({}, ["arguments.points", "missing"]),
        ({"points": [], "pionts": []}, ["arguments: unexpected key 'pionts'", "'points'"]),
        ([1], ["arguments: expected an object", "array"]),
        ("x", ["arguments: expected an object", "'x'"]),
    ],
)
async def test_arguments_that_do_not_fit_are_told_precisely_and_in_short(arguments: Any, words: list[str]) -> None:
    def f(points: list[Point], n: int = 0) -> str:
        raise AssertionError("must not run")

    told = await error_of(f, arguments)

    assert all(word in told for word in words), told
    assert len(told) <= 500


async def test_long_arguments_are_told_in_short() -> None:
    def f(n: int) -> None: ...

    for arguments in ({"n": "x" * 10_000}, {"x" * 10_000: 1}, {f"k{n}": n for n in range(1_000)}):
        assert len(await error_of(f, arguments)) <= 500


async def test_wrong_arguments_reach_a_caller_as_decode_error() -> None:
    with pytest.raises(DecodeError) as caught:
        await answer(add, a="x")

    assert caught.value.path == "arguments.a"


NOT_ARGUMENTS = ["", "null", "[1]", '"x"', "{'a': 1}", '{"a": NaN}', '{"a": 1', "{}{}", '{"a":1,"a":2}']


@pytest.mark.parametrize("text", NOT_ARGUMENTS)
async def test_text_that_is_not_one_json_object_is_not_taken_for_arguments(text: str) -> None:
    with pytest.raises(DecodeError, match=r"^arguments"):
        parse_arguments(text)

    result = await StaticWorkbench([add]).call_json("add", text)
    assert result.is_error
    assert len(result.to_text()) <= 500


async def test_arguments_as_a_model_wrote_them_are_parsed() -> None:
    result = await StaticWorkbench([add]).call_json("add", ' {"a": 2}\n')

    assert result == ToolResult(name="add", result=[TextResultContent(content="3")], is_error=False)


def constraint(entry: Mapping[str, Any]) -> Any:
    from pydantic import Field

    return Field(ge=entry["minimum"], le=entry["maximum"])


def cases() -> list[dict[str, Any]]:
    path = shared("badinput/tool_args.jsonl")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path else []


def written(case: dict[str, Any]) -> str:
    given = case["input"]
    if given["encoding"] == "repeat":
        return "".join(part * times for part, times in given["parts"])
    text: str = given["data"]
    return text


@needs_shared("badinput/tool_args.jsonl")
@pytest.mark.parametrize("case", cases(), ids=lambda case: case["id"])
async def test_what_models_write_as_arguments_runs_the_tool_or_is_told_to_them(case: dict[str, Any]) -> None:
    days = constraint({"minimum": 1, "maximum": 14})
    ran: list[dict[str, Any]] = []

    def get_weather(
        city: str,
        days: Annotated[int, days] = 1,
        units: Literal["c", "f"] = "c",
        tags: list[str] = [],  # noqa: B006
        opt: str | None = None,
        ratio: float = 1.0,
        flag: bool = False,
    ) -> str:
        ran.append(locals())
        return "sunny"

    get_weather.__annotations__["days"] = Annotated[int, days]
    workbench = StaticWorkbench([get_weather])

    name, text = ("get_weather", written(case)) if case["kind"] == "tool_args" else (written(case), "{}")
    result = await workbench.call_json(name, text)

    assert result.is_error is (case["expect"] == "error")
    if result.is_error:
        assert ran == []
        assert len(result.to_text()) <= 500
    else:
        assert {key: ran[0][key] for key in case["result"]["arguments"]} == case["result"]["arguments"]


# --- results


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it is", "as it is"),
        (3, "3"),
        (True, "true"),
        (None, "None"),
        ([None], "[null]"),
        (1.5, "1.5"),
        ({"a": [1, None, "ü"]}, '{"a":[1,null,"ü"]}'),
        ((1, 2), "[1,2]"),
        (Point(1, 2), '{"x":1,"y":2}'),
        (Colour.RED, '"red"'),
    ],
)
async def test_what_is_not_text_becomes_json_but_a_lone_none(value: Any, text: str) -> None:
    told = await text_of(lambda: value)

    assert told == text or json.loads(told) == json.loads(text)


async def test_half_a_surrogate_pair_never_enters_a_result() -> None:
    def made() -> ToolResult:
        return ToolResult(name="f", result=[TextResultContent(content="x\ud800")])

    def fails() -> None:
        raise ValueError("x\ud800")

    assert await text_of(lambda: "x\ud800") == await text_of(made) == await error_of(fails) == "x?"
    assert error_text(KeyError("x")) == "KeyError: 'x'" and error_text(ValueError("\ud83d")) == "?"


async def test_a_value_that_is_no_json_is_named_by_its_type() -> None:
    class Thing:
        pass

    assert "Thing" in await error_of(lambda: Thing())


async def test_pictures_are_results_beside_text() -> None:
    one, mixed = await result_of(lambda: PIXEL), await result_of(lambda: ["a", PIXEL, {"b": 1}])

    assert one.result == [ImageResultContent(content=PIXEL)]
    assert [type(part) for part in mixed.result] == [TextResultContent, ImageResultContent, TextResultContent]
    assert mixed.to_text().splitlines()[:2] == ["a", "[Image]"]
    assert one.to_text(replace_image="<picture>") == "<picture>"


async def test_a_result_made_by_the_tool_itself_passes_through() -> None:
    made = ToolResult(name="other", result=[TextResultContent(content="x")], is_error=True)

    assert await result_of(lambda: made) is made


async def test_output_over_the_limit_is_cut_with_a_note() -> None:
    assert await text_of(lambda: "x" * 1_000_000) == "x" * 1_000_000
    assert await text_of(lambda: "abcdef", max_output=4) == "abcd\n[cut: 2 of 6 characters left out]"


async def test_a_tool_may_word_its_results_itself() -> None:
    class Polite(BaseTool[Point, int]):
        def __init__(self) -> None:
            super().__init__(Point, int, "sum", "Sums.")

        async def run(self, args: Point, cancellation_token: CancellationToken) -> int:
            return args.x + args.y

        def return_value_as_string(self, value: Any) -> str:
            return f"It is {value}, sir."

    assert (await StaticWorkbench([Polite()]).call_tool("sum", {"x": 2})).to_text() == "It is 2, sir."


# --- failures


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("too far"), "too far"),
        (ValueError(), "ValueError"),
        (KeyError("city"), "KeyError: 'city'"),
        (ToolError("not today"), "not today"),
        (SystemExit(2), "SystemExit: 2"),
        (StopIteration(), "coroutine raised StopIteration"),
    ],
)
async def test_an_exception_becomes_an_error_for_the_model(error: BaseException, text: str) -> None:
    async def later() -> None:
        raise error

    def now() -> None:
        raise error

    assert await error_of(now) == text
    assert await error_of(later) == text
    assert await error_of(later, timeout=20) == text


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups are new in 3.11")
async def test_an_exception_group_is_told_by_its_members() -> None:
    def f() -> None:
        raise ExceptionGroup("all", [ValueError("a"), ExceptionGroup("inner", [ValueError("b"), KeyError("c")])])  # noqa: F821

    assert await error_of(f) == "a\nb\nKeyError: 'c'"


async def test_an_exception_that_cannot_be_printed_is_told_by_its_type() -> None:
    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    def f() -> None:
        raise Broken

    assert await error_of(f) == "Broken"


@pytest.mark.parametrize("error", [asyncio.CancelledError(), Suspended(), LimitReached(None, "tokens", 1, 1)])
@pytest.mark.parametrize("threaded", [True, False])
async def test_cancellation_suspension_and_limits_pass_through(error: BaseException, threaded: bool) -> None:
    async def later() -> None:
        raise error

    def now() -> None:
        raise error

    with pytest.raises(type(error)):
        await result_of(now if threaded else later)


async def test_an_unknown_tool_is_told_with_what_there_is() -> None:
    workbench = StaticWorkbench([add, positional])

    told = (await workbench.call_tool("ad", {})).to_text()
    long = (await workbench.call_tool("a" * 10_000, {})).to_text()

    assert told == "tool 'ad' is not known; known tools: add, positional"
    assert long.startswith(f"tool '{'a' * 61}...' is not known")
    assert len(long) < 200


# --- time and cancellation


@pytest.mark.parametrize("threaded", [True, False])
async def test_a_tool_that_takes_too_long_is_an_error_for_the_model(threaded: bool) -> None:
    release = threading.Event()

    async def later() -> None:
        await asyncio.Event().wait()

    told = await error_of((lambda: release.wait(20)) if threaded else later, timeout=0.01)
    release.set()

    assert told == "tool 'f' did not answer within 0.01 s"


async def test_a_tool_that_ignores_its_end_is_left_behind() -> None:
    release = asyncio.Event()

    async def deaf() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                pass

    began = time.monotonic()
    told = await error_of(deaf, timeout=0.01)
    took = time.monotonic() - began
    release.set()

    assert told == "tool 'f' did not answer within 0.01 s"
    assert took < 5


async def test_a_run_names_the_thread_it_leaves_behind() -> None:
    release = threading.Event()
    workbench = StaticWorkbench([FunctionTool(lambda: release.wait(20), name="f", timeout=0.01)])

    async def body(run: Run) -> None:
        await workbench.call_tool("f")

    result = await Run("r").start(body)
    release.set()

    assert [name[:10] for name in result.abandoned] == ["thread of "]


async def test_every_run_around_it_names_a_thread_until_it_ends() -> None:
    # the trap: the thread was named in the innermost run alone, which nobody sees
    release = threading.Event()
    workbench = StaticWorkbench([FunctionTool(lambda: release.wait(20), name="f", timeout=0.01)])
    runs: list[Run] = []

    async def work(run: Run) -> None:
        runs.append(run)
        if len(runs) < 3:
            await Run("inside").start(work)
        else:
            await workbench.call_tool("f")

    result = await Run("r").start(work)
    release.set()

    assert [name[:10] for name in result.abandoned] == ["thread of "]
    while any(run.abandoned for run in runs):
        await asyncio.sleep(0)


async def test_a_run_does_not_name_what_a_run_within_left_behind_and_has_ended_by_then() -> None:
    release = asyncio.Event()

    async def deaf() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                pass

    async def inside(run: Run) -> None:
        run.spawn(deaf(), "deaf", run.scope)
        await asyncio.sleep(0)  # it begins

    async def body(run: Run) -> None:
        assert (await Run("inside").start(inside)).abandoned == run.abandoned == ["deaf"]
        release.set()
        for _ in range(10):
            await asyncio.sleep(0)

    assert (await Run("r").start(body)).abandoned == []


async def test_a_run_does_not_name_a_thread_that_has_ended_by_then() -> None:
    release, ended = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def late() -> None:
        release.wait(20)
        loop.call_soon_threadsafe(ended.set)

    async def body(run: Run) -> None:
        await StaticWorkbench([FunctionTool(late, timeout=0.01)]).call_tool("late")
        release.set()
        await ended.wait()
        while run.abandoned:
            await asyncio.sleep(0)

    assert (await Run("r").start(body)).abandoned == []


async def test_a_run_does_not_name_a_thread_that_ended_when_its_call_was_cancelled() -> None:
    ended = threading.Event()

    async def body(run: Run) -> None:
        call = asyncio.ensure_future(run_in_thread(ended.set))
        await asyncio.sleep(0)
        ended.wait(20)
        time.sleep(0.05)  # so that the thread has told the loop, which has not looked yet
        asyncio.get_running_loop().call_soon(call.cancel)
        with pytest.raises(asyncio.CancelledError):
            await call

    assert (await Run("r").start(body)).abandoned == []


async def test_a_run_names_a_tool_that_ignores_its_end() -> None:
    release = asyncio.Event()

    async def deaf() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                pass

    async def body(run: Run) -> None:
        await StaticWorkbench([FunctionTool(deaf, timeout=0.01)]).call_tool("deaf")

    result = await Run("r").start(body)
    release.set()

    assert result.abandoned == ["tool 'deaf'"]


async def test_a_tool_within_its_time_answers_and_fails_as_ever() -> None:
    async def fail() -> None:
        raise ValueError("no")

    assert await text_of(add, {"a": 1}, timeout=20) == "2"
    assert await error_of(fail, timeout=20) == "no"


@pytest.mark.parametrize("deaf", [True, False])
async def test_a_token_ends_a_call_even_if_the_tool_takes_no_notice(deaf: bool) -> None:
    token, begun, release = CancellationToken(), asyncio.Event(), asyncio.Event()

    async def f() -> None:
        begun.set()
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                if not deaf:
                    raise

    call = asyncio.ensure_future(StaticWorkbench([f]).call_tool("f", {}, token))
    await begun.wait()
    token.cancel()

    with pytest.raises(asyncio.CancelledError):
        await call
    release.set()


def test_a_call_that_never_begins_leaves_no_warning_behind(recwarn: pytest.WarningsRecorder) -> None:
    # the trap: a coroutine that nobody awaited, and says so
    token = CancellationToken()
    token.cancel()

    with pytest.raises(asyncio.CancelledError):
        bounded(add(1), "add", None, token)

    assert list(recwarn) == []


async def test_a_call_with_a_cancelled_token_does_not_begin() -> None:
    token = CancellationToken()
    token.cancel()

    with pytest.raises(asyncio.CancelledError):
        await FunctionTool(lambda: pytest.fail("ran"), name="f").run_json({}, token)


@pytest.mark.parametrize("threaded", [True, False])
async def test_a_function_that_asks_for_the_token_is_told_of_the_end(threaded: bool) -> None:
    stopped = threading.Event()

    def now(cancellation_token: CancellationToken) -> None:
        cancellation_token.add_callback(stopped.set)
        stopped.wait(20)

    async def later(stop: CancellationToken) -> None:
        stop.add_callback(stopped.set)
        await asyncio.Event().wait()

    await error_of(now if threaded else later, timeout=0.05)

    assert await run_in_thread(stopped.wait, 10)


async def test_a_token_is_given_where_the_caller_has_none() -> None:
    async def f(cancellation_token: CancellationToken) -> bool:
        return cancellation_token.is_cancelled()

    assert await answer(f) is False


# --- threads


async def test_sync_functions_run_side_by_side_in_daemon_threads() -> None:
    meet = threading.Barrier(3)

    def f() -> tuple[bool, bool]:
        meet.wait(10)
        return threading.current_thread().daemon, threading.current_thread() is threading.main_thread()

    assert await asyncio.gather(*[answer(f) for _ in range(3)]) == [(True, False)] * 3


async def test_a_thread_that_is_free_is_used_again() -> None:
    used = {await run_in_thread(threading.get_ident) for _ in range(50)}

    assert len(used) <= 3  # one, unless a thread of another test comes free meanwhile


async def test_a_blocked_thread_keeps_nobody_waiting() -> None:
    release = threading.Event()
    blocked = [asyncio.ensure_future(run_in_thread(release.wait, 20)) for _ in range(40)]

    assert await run_in_thread(len, "abc") == 3
    release.set()
    assert await asyncio.gather(*blocked) == [True] * 40


async def test_a_thread_sees_the_context_of_its_caller() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("caller's")

    def f() -> str:
        before = variable.get()
        variable.set("thread's")
        return before

    assert await run_in_thread(f) == "caller's"
    assert variable.get() == "caller's"


async def test_a_thread_raises_where_it_is_awaited() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        await run_in_thread(divmod, 1, 0)

    assert caught.value.__context__ is None


def test_a_blocked_tool_does_not_keep_the_program_from_ending() -> None:
    program = """
import asyncio, threading
from tinygen.tools import FunctionTool, StaticWorkbench
tool = FunctionTool(lambda: threading.Event().wait(), name="f", timeout=0.05)
print(asyncio.run(StaticWorkbench([tool]).call_tool("f")).to_text())
"""

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20)

    assert (done.stdout, done.stderr) == ("tool 'f' did not answer within 0.05 s\n", "")


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="needs fork")
def test_a_forked_process_makes_threads_of_its_own() -> None:
    program = """
import asyncio, os, sys
from tinygen.tools import run_in_thread
asyncio.run(run_in_thread(len, "x"))
child = os.fork()
if child == 0:
    os._exit(asyncio.run(run_in_thread(len, "abc")))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20)

    assert done.stdout == "3\n"


def test_a_result_that_comes_after_the_loop_is_closed_is_dropped() -> None:
    release, ended = threading.Event(), threading.Event()

    def f() -> None:
        release.wait(20)
        ended.set()

    asyncio.run(error_of(f, timeout=0.01))
    release.set()

    assert ended.wait(10)
    assert asyncio.run(run_in_thread(len, "ab")) == 2


# --- tools that are classes


class Counter(BaseToolWithState[Named, int, Point]):
    """Counts its calls, in x."""

    def __init__(self) -> None:
        super().__init__(Named, int, Point, "count", "Counts.")
        self.calls = 0

    async def run(self, args: Named, cancellation_token: CancellationToken) -> int:
        self.calls += 1
        return self.calls

    def save_state(self) -> Point:
        return Point(self.calls)

    def load_state(self, state: Point) -> None:
        self.calls = state.x


def test_a_class_of_tools_has_the_schema_of_its_arguments() -> None:
    schema = Counter().schema

    assert {key: schema[key] for key in ("name", "description", "strict")} == {
        "name": "count",
        "description": "Counts.",
        "strict": False,
    }
    assert schema["parameters"]["properties"] == {"name": {"type": "string"}}
    assert schema["parameters"]["required"] == ["name"]
    assert schema["parameters"]["additionalProperties"] is False


async def test_a_class_of_tools_gets_arguments_of_its_type() -> None:
    pydantic = pytest.importorskip("pydantic")
    arguments = pydantic.create_model("Arguments", n=(int, ...))

    class Double(BaseTool[Any, int]):
        def __init__(self) -> None:
            super().__init__(arguments, int, "double", "Doubles.", strict=True)

        async def run(self, args: Any, cancellation_token: CancellationToken) -> int:
            assert isinstance(args, arguments)
            return int(args.n * 2)

    assert await Double().run_json({"n": 2}) == 4
    for wrong in ({"n": "2"}, {"n": True}, {"n": 2, "m": 3}):
        with pytest.raises(DecodeError, match=r"^arguments"):
            await Double().run_json(wrong)


async def test_of_many_arguments_that_a_class_of_tools_does_not_take_the_first_is_named() -> None:
    # the trap: names in a set come in another order in every process, so two runs would not tell the same
    with pytest.raises(DecodeError, match=r"^arguments: unexpected key 'k0'"):
        await Counter().run_json({f"k{n}": n for n in range(20)})


def test_a_strict_class_of_tools_is_checked_at_construction() -> None:
    with pytest.raises(ConfigError, match=r"tool 'sum' is strict.*optional: y"):
        BaseTool(Point, int, "sum", "Sums.", strict=True)


async def test_a_class_of_tools_may_take_any_object() -> None:
    class Echo(BaseTool[Any, Any]):
        def __init__(self) -> None:
            super().__init__(dict, dict, "echo", "Says what it was told.")

        async def run(self, args: Any, cancellation_token: CancellationToken) -> Any:
            return args

    assert await Echo().run_json({"a": 1}) == {"a": 1}
    assert Echo().schema["parameters"]["additionalProperties"] is True  # type: ignore[typeddict-item]


async def test_state_of_tools_is_saved_with_their_workbench() -> None:
    workbench, other = StaticWorkbench([Counter(), add]), StaticWorkbench([add, Counter()])
    await workbench.call_tool("count", {"name": "x"})

    state = await workbench.save_state()
    await other.load_state(state)

    assert state == {"type": "StaticWorkbenchState", "tools": {"count": {"x": 1, "y": 0}}}
    assert (await other.call_tool("count", {"name": "x"})).to_text() == "2"


@pytest.mark.parametrize(
    "state",
    [
        {},
        None,
        {"type": "Other", "tools": {}},
        {"type": "StaticWorkbenchState", "tools": {"uncount": {}}},
        {"type": "StaticWorkbenchState", "tools": {"count": 1}},
        {"type": "StaticWorkbenchState", "tools": {"count": {"x": 5}, "other": {"x": "broken"}}},
    ],
)
async def test_a_broken_state_is_refused_and_changes_no_tool(state: Any) -> None:
    counter, other = Counter(), Counter()
    other._name = "other"

    with pytest.raises(StateError):
        await StaticWorkbench([counter, other]).load_state(state)

    assert counter.calls == 0


class Noted(BaseTool[Any, int]):
    """Counts in a list that it hands out and takes as its state."""

    def __init__(self) -> None:
        super().__init__(dict, int, "noted", "Counts.")
        self.calls: list[int] = []

    async def run(self, args: Any, cancellation_token: CancellationToken) -> int:
        self.calls.append(1)
        return len(self.calls)

    async def save_state_json(self) -> Mapping[str, Any]:
        return {"calls": self.calls}

    async def load_state_json(self, state: Mapping[str, Any]) -> None:
        self.calls = state["calls"]


async def test_a_saved_state_of_tools_stays_as_it_was() -> None:
    # the trap: it held the tool's own list, in which the tool goes on counting
    one, other = StaticWorkbench([Noted()]), StaticWorkbench([Noted()])
    await one.call_tool("noted")

    state = await one.save_state()
    await one.call_tool("noted")
    await other.load_state(state)

    assert (await other.call_tool("noted")).to_text() == "2"
    assert state["tools"] == {"noted": {"calls": [1]}}


async def test_a_tool_that_knows_nothing_of_state_has_none() -> None:
    class Plain:
        name = description = "plain"
        schema = {"name": "plain"}

        async def run_json(self, args: Any, cancellation_token: Any = None, call_id: Any = None) -> str:
            return "done"

        def return_value_as_string(self, value: Any) -> str:
            return str(value)

    workbench = StaticWorkbench([Plain()])  # type: ignore[list-item]

    state = await workbench.save_state()
    await workbench.load_state({"type": "StaticWorkbenchState", "tools": {"plain": {}}})

    assert state["tools"] == {}
    assert (await workbench.call_tool("plain")).to_text() == "done"


def test_sessions_renew_tools_with_state_and_share_functions() -> None:
    counter, tool = Counter(), FunctionTool(add)
    counter.calls = 5
    workbench = StaticWorkbench([counter, tool], {"add": ToolOverride(name="plus")})

    twin = workbench.session()

    assert twin._tools["count"].calls == 0  # type: ignore[attr-defined]
    assert twin._tools["add"] is tool


def test_a_method_of_a_renewed_tool_is_renewed_with_it() -> None:
    counter = Counter()
    tool = FunctionTool(counter.save_state, name="saved")

    twin = StaticWorkbench([counter, tool]).session()

    assert twin._tools["saved"]._func.__self__ is twin._tools["count"]  # type: ignore[attr-defined]


# --- workbenches


async def test_overrides_rename_and_describe_tools() -> None:
    workbench = StaticWorkbench([add, positional], {"add": ToolOverride(name="plus", description="Sums up.")})

    schemas = await workbench.list_tools()

    assert [(schema["name"], schema["description"]) for schema in schemas] == [("plus", "Sums up."), ("positional", "")]
    assert (await workbench.call_tool("plus", {"a": 1})).to_text() == "2"
    assert (await workbench.call_tool("plus", {"a": 1})).name == "plus"
    assert (await workbench.call_tool("add", {"a": 1})).is_error
    assert FunctionTool(add).schema["name"] == "add"


async def test_tools_are_listed_in_the_same_list_each_time() -> None:
    workbench = StaticWorkbench([add])

    assert await workbench.list_tools() is await workbench.list_tools()


def test_two_tools_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"two tools are named 'add'; .* FunctionTool\(function, name=...\), or "):
        StaticWorkbench([add, positional], {"positional": ToolOverride(name="add")})
    with pytest.raises(ConfigError, match="two tools are named 'add'"):
        StaticWorkbench([add, FunctionTool(add)])
    with pytest.raises(ConfigError, match="tool_overrides names 'ad', which is no tool here; did you mean 'add'"):
        StaticWorkbench([add], {"ad": ToolOverride(name="plus")})


@pytest.mark.parametrize(
    ("value", "words"), [(3, "not 3"), ({"name": "x"}, "not {'name': 'x'}"), (Counter, "not the class Counter")]
)
def test_what_is_neither_function_nor_tool_is_refused(value: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=rf"tools\[1\] must be a function or a tool, {words}"):
        StaticWorkbench([add, value])


def test_tools_are_taken_as_they_are() -> None:
    counter = Counter()

    assert as_tool(counter) is counter
    assert as_tool(add).name == "add"


async def test_a_workbench_starts_and_stops_with_its_block() -> None:
    log: list[str] = []

    class Remote(Workbench):
        async def start(self) -> None:
            log.append("start")

        async def stop(self) -> None:
            log.append("stop")

    async with Remote() as remote:
        log.append("work")

    assert log == ["start", "work", "stop"]
    assert await remote.save_state() == {}


# --- streaming


class Countdown(BaseStreamTool[Point, str, int]):
    """Says the numbers from x down, then gives y."""

    def __init__(self, fail_at: int = -1, hang_at: int = -1) -> None:
        super().__init__(Point, int, "countdown", "Counts down.")
        self.fail_at, self.hang_at = fail_at, hang_at
        self.closed = False

    async def run_stream(self, args: Point, cancellation_token: CancellationToken) -> AsyncGenerator[str | int, None]:
        try:
            for n in range(args.x, 0, -1):
                if n == self.fail_at:
                    raise ValueError("lost count")
                if n == self.hang_at:
                    await asyncio.Event().wait()
                yield str(n)
            yield args.y
        finally:
            self.closed = True


async def streamed(
    tool: Any, arguments: Any, token: CancellationToken | None = None, **overrides: ToolOverride
) -> tuple[list[Any], ToolResult]:
    workbench = StaticStreamWorkbench([tool], overrides)
    name = (await workbench.list_tools())[0]["name"]
    *items, result = [item async for item in workbench.call_tool_stream(name, arguments, token)]
    assert isinstance(result, ToolResult)
    return items, result


@pytest.mark.parametrize("token", [None, CancellationToken()], ids=["plain", "watched"])
async def test_a_streaming_tool_says_its_items_and_gives_the_last(token: CancellationToken | None) -> None:
    items, result = await streamed(Countdown(), {"x": 3, "y": 7}, token)

    assert items == ["3", "2", "1"]
    assert result == ToolResult(name="countdown", result=[TextResultContent(content="7")])


async def test_a_renamed_tool_works_in_streaming_too() -> None:
    items, result = await streamed(Countdown(), {"x": 1, "y": 2}, countdown=ToolOverride(name="down"))

    assert (items, result.name, result.to_text()) == (["1"], "down", "2")


async def test_a_streaming_tool_that_fails_says_its_items_and_then_the_error() -> None:
    items, result = await streamed(Countdown(fail_at=1), {"x": 3})

    assert items == ["3", "2"]
    assert (result.is_error, result.to_text()) == (True, "lost count")


async def test_items_of_the_type_of_the_result_are_told_apart_by_their_place() -> None:
    class Words(Countdown):
        def return_type(self) -> Any:
            return Any

    items, result = await streamed(Words(), {"x": 2, "y": 5})
    failed, error = await streamed(Words(fail_at=1), {"x": 2, "y": 5})

    assert (items, result.to_text()) == (["2", "1"], "5")
    assert (failed, error.to_text()) == (["2"], "lost count")


async def test_a_whole_number_is_a_result_where_a_float_is_promised() -> None:
    class Sum(Countdown):
        def return_type(self) -> Any:
            return float

    items, result = await streamed(Sum(), {"x": 1, "y": 5})

    assert (items, result.is_error, result.to_text()) == (["1"], False, "5")


async def test_an_item_is_passed_on_before_the_next_one_is_there() -> None:
    workbench = StaticStreamWorkbench([Countdown(hang_at=1)])
    stream = workbench.call_tool_stream("countdown", {"x": 2})

    assert await stream.__anext__() == "2"
    await stream.aclose()


async def test_a_stream_without_result_is_an_error_for_the_model() -> None:
    class Silent(Countdown):
        async def run_stream(self, args: Any, cancellation_token: Any) -> AsyncGenerator[str | int, None]:
            yield "hm"

    items, result = await streamed(Silent(), {"x": 2})

    assert items == ["hm"]
    assert result.to_text() == "the stream of tool 'countdown' ended without a result"


async def test_tools_that_do_not_stream_answer_in_a_stream_of_one() -> None:
    items, result = await streamed(add, {"a": 1})

    assert (items, result.to_text()) == ([], "2")
    assert StaticStreamWorkbench([Countdown()]).streams("countdown")
    assert not StaticStreamWorkbench([add]).streams("add")


async def test_arguments_of_a_streaming_tool_are_checked_too() -> None:
    workbench = StaticStreamWorkbench([Countdown()])

    for text in ('{"x": "3"}', "{", "[]"):
        (result,) = [item async for item in workbench.call_json_stream("countdown", text)]
        assert result.is_error
    items = [item async for item in workbench.call_json_stream("countdown", '{"x": 1, "y": 4}')]
    assert (items[0], items[1].to_text()) == ("1", "4")
    (unknown,) = [item async for item in workbench.call_tool_stream("x", {})]
    assert unknown.to_text() == "tool 'x' is not known; known tools: countdown"


async def test_a_streaming_tool_that_takes_too_long_is_an_error() -> None:
    tool = Countdown(hang_at=1)
    tool.timeout = 0.01

    items, result = await streamed(tool, {"x": 2})

    assert items == ["2"]
    assert result.to_text() == "tool 'countdown' did not answer within 0.01 s"
    assert tool.closed


async def test_a_token_ends_a_streaming_tool() -> None:
    tool, token = Countdown(hang_at=1), CancellationToken()
    stream = StaticStreamWorkbench([tool]).call_tool_stream("countdown", {"x": 2}, token)

    assert await stream.__anext__() == "2"
    asyncio.get_running_loop().call_soon(token.cancel)

    with pytest.raises(asyncio.CancelledError):
        await stream.__anext__()
    assert tool.closed


@pytest.mark.parametrize("token", [None, CancellationToken()], ids=["plain", "watched"])
async def test_a_stream_that_is_given_up_closes_the_tool(token: CancellationToken | None) -> None:
    tool = Countdown()
    stream = StaticStreamWorkbench([tool]).call_tool_stream("countdown", {"x": 3}, token)

    await stream.__anext__()
    await stream.aclose()

    assert tool.closed


async def test_a_streaming_tool_may_hold_a_context_variable_across_its_items() -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)

    class Scoped(Countdown):
        async def run_stream(self, args: Any, cancellation_token: Any) -> AsyncGenerator[str | int, None]:
            held = variable.set(1)
            yield "a"
            await asyncio.sleep(0)
            variable.reset(held)
            yield 1

    assert (await streamed(Scoped(), {"x": 1}, CancellationToken()))[1].to_text() == "1"


async def test_a_streaming_tool_called_without_streaming_gives_its_result() -> None:
    assert await Countdown().run_json({"x": 2, "y": 9}) == 9
    assert (await StaticWorkbench([Countdown()]).call_tool("countdown", {"x": 2, "y": 9})).to_text() == "9"


def test_an_unused_tool_is_not_looked_at() -> None:
    def f(a: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    made: Callable[..., Any] = FunctionTool

    assert made(f).name == "f"
