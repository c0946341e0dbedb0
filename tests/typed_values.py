"""Types made at random, each with values of it; for tests that hold for any type."""

from __future__ import annotations

import copy
import datetime as dt
import enum
import functools
import operator
from dataclasses import dataclass, field, make_dataclass
from datetime import timedelta, timezone
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

import annotated_types
from hypothesis import strategies as st
from typing_extensions import NotRequired, TypedDict


class Color(enum.Enum):
    RED = "red"
    BLUE = 2
    BOTH = (1, 2)


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclass
class Tree:
    name: str
    kids: list[Tree] = field(default_factory=list)


@dataclass(frozen=True)
class Typed:
    """A type, its values, the kind of JSON they are written as, and whether they have a hash."""

    tp: Any
    values: st.SearchStrategy[Any]
    kind: str
    hashable: bool = True

    def __repr__(self) -> str:
        return f"Typed({self.tp!r})"


FLOATS = st.floats(allow_nan=False, allow_infinity=False)
SECONDS = st.timedeltas(timedelta(days=-10_000), timedelta(days=10_000))
TIMES = st.datetimes(timezones=st.sampled_from([None, timezone.utc, timezone(timedelta(hours=-3, minutes=30))]))
TREES = st.recursive(
    st.builds(Tree, st.text()), lambda kids: st.builds(Tree, st.text(), st.lists(kids, max_size=2)), max_leaves=4
)
LEAVES = [
    Typed(type(None), st.none(), "null"),
    Typed(bool, st.booleans(), "bool"),
    Typed(int, st.integers(), "int"),
    Typed(float, FLOATS, "float"),
    Typed(str, st.text(), "str"),
    Typed(bytes, st.binary(), "str"),
    Typed(dt.datetime, TIMES, "str"),
    Typed(dt.date, st.dates(), "str"),
    Typed(dt.time, st.times(), "str"),
    Typed(timedelta, SECONDS, "float"),
    Typed(UUID, st.uuids(), "str"),
    Typed(Decimal, st.decimals(allow_nan=False, allow_infinity=False), "str"),
    Typed(Color, st.sampled_from(Color), "any"),
    Typed(Level, st.sampled_from(Level), "int"),
    Typed(Literal["a", 1, None], st.sampled_from(["a", 1, None]), "any"),
    Typed(Annotated[int, annotated_types.Interval(ge=-3, lt=9)], st.integers(-3, 8), "int"),
    Typed(Annotated[str, annotated_types.Len(1, 3)], st.text(min_size=1, max_size=3), "str"),
    Typed(Tree, TREES, "dict", hashable=False),
]


def _containers(items: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
    return st.one_of(
        items.map(lambda item: Typed(list[item.tp], st.lists(item.values, max_size=3), "list", False)),
        items.map(
            lambda item: Typed(tuple[item.tp, ...], st.lists(item.values, max_size=3).map(tuple), "list", item.hashable)
        ),
        items.filter(lambda item: item.hashable).map(
            lambda item: Typed(frozenset[item.tp], st.frozensets(item.values, max_size=3), "list")
        ),
        items.map(
            lambda item: Typed(dict[str, item.tp], st.dictionaries(st.text(), item.values, max_size=3), "dict", False)
        ),
        items.map(
            lambda item: Typed(
                dict[int, item.tp], st.dictionaries(st.integers(), item.values, max_size=2), "dict", False
            )
        ),
        st.lists(items, max_size=3).map(_fixed_tuple),
        st.lists(items, max_size=3).map(_dataclass),
        st.lists(items, min_size=1, max_size=3).map(_typed_dict),
        items.map(lambda item: Typed(item.tp | None, st.none() | item.values, "any", item.hashable)),
        st.lists(items, min_size=2, max_size=4, unique_by=lambda item: item.kind).map(_union),
    )


def _fixed_tuple(items: list[Typed]) -> Typed:
    tp = tuple[tuple(item.tp for item in items)]  # type: ignore[misc]
    return Typed(tp, st.tuples(*(item.values for item in items)), "list", all(item.hashable for item in items))


def _dataclass(items: list[Typed]) -> Typed:
    cls = make_dataclass("Made", [(f"field_{index}", item.tp) for index, item in enumerate(items)])
    return Typed(cls, st.builds(cls, *(item.values for item in items)), "dict", False)


def _typed_dict(items: list[Typed]) -> Typed:
    first, *others = ((f"key {index}", item) for index, item in enumerate(items))
    hints = {first[0]: first[1].tp, **{name: NotRequired[item.tp] for name, item in others}}
    values = st.fixed_dictionaries({first[0]: first[1].values}, optional={name: item.values for name, item in others})
    return Typed(TypedDict("MadeDict", hints), values, "dict", False)  # type: ignore[operator]


def _union(items: list[Typed]) -> Typed:
    items = [item for item in items if item.kind != "any"] or items[:1]
    tp = functools.reduce(operator.or_, (item.tp for item in items))
    return Typed(tp, st.one_of(*(item.values for item in items)), "any", all(item.hashable for item in items))


TYPES = st.recursive(st.sampled_from(LEAVES), _containers, max_leaves=5)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | FLOATS | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def damaged(draw: st.DrawFn, data: Any) -> Any:
    """JSON data that differs from `data` in one place, or in none."""
    root = [copy.deepcopy(data)]
    places: list[tuple[Any, Any]] = [(root, 0)]
    for holder, step in places:
        inside = holder[step]
        places += (
            [(inside, each) for each in (inside if isinstance(inside, dict) else range(len(inside)))]
            if isinstance(inside, (dict, list))
            else []
        )
    holder, step = draw(st.sampled_from(places))
    how = draw(st.sampled_from(["replace", "drop", "add"]))
    if how == "drop" and len(places) > 1 and holder is not root:
        del holder[step]
    elif how == "add" and isinstance(holder, dict):
        holder[draw(st.text(max_size=5))] = draw(JSON)
    else:
        holder[step] = draw(JSON)
    return root[0]
