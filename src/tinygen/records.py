"""Records: plain dataclasses, declared with bare annotations and known by their tags.

The root applies `dataclass` to every subclass as it is declared, and registers its name as the tag (`type`) under which
the codec finds it again. Records are treated as immutable.
"""

from __future__ import annotations

import dataclasses
from dataclasses import field
from weakref import WeakSet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, ClassVar

    from typing_extensions import Self, dataclass_transform

    @dataclass_transform(kw_only_default=True, field_specifiers=(field,))
    class _Declared:
        def __init_subclass__(cls, *, kw_only: bool = True, tagged: bool = True) -> None: ...

else:
    _ANNOTATED = {"__annotations__", "__annotate__", "__annotate_func__"}  # Python 3.14 knows them by other names

    class _Declared:
        """Makes a dataclass of every subclass, in place, and lists it under its tag.

        `tagged` says whether its JSON ends with that tag: `"type": "TextMessage"`.
        """

        __slots__ = ()

        def __init_subclass__(cls, kw_only: bool = True, tagged: bool = True, **kwargs):
            super().__init_subclass__(**kwargs)
            if not hasattr(cls, "__dataclass_fields__") or not _ANNOTATED.isdisjoint(cls.__dict__):
                # repr and eq are generic below, and __init__ comes with its first use: making them here would take
                # most of the time that importing this module takes
                dataclasses.dataclass(kw_only=kw_only, init=False, repr=False, eq=False)(cls)
                if "__init__" not in cls.__dict__:
                    if not kw_only:
                        _check_order(cls)
                    cls.__init__ = _first_init(cls)
            elif getattr(cls.__init__, "generated", False):
                cls.__init__ = _first_init(cls)  # its own, so that errors name this class
            cls._tagged = tagged
            declared = cls.__dict__.get("type")
            if not isinstance(declared, str):
                declared = cls.__name__
                if "type" not in cls.__dataclass_fields__:
                    cls.type = declared
                elif isinstance(getattr(cls, "type", None), str):
                    declared = cls.type  # a field of the base: what instances carry, and so where they are found again
            registry.setdefault(declared, WeakSet()).add(cls)
            registry.declarations += 1


def _check_order(cls: Any) -> None:
    """Raise `ConfigError` if an argument that must be given follows one that need not."""
    optional = None
    for each in dataclasses.fields(cls):
        if each.init and each.kw_only is not True:
            if each.default is not dataclasses.MISSING or each.default_factory is not dataclasses.MISSING:
                optional = each.name
            elif optional is not None:
                from .errors import ConfigError

                raise ConfigError(
                    f"the field {each.name!r} of {cls.__name__} has no default, but follows {optional!r}, which has "
                    "one; give it one, put it first, or leave out kw_only=False"
                )


def _first_init(cls: Any) -> Any:
    """The `__init__` of a record until its first use: replaces itself by the one `dataclass` would have made."""

    def init(self: Record, /, *args: Any, **kwargs: Any) -> None:
        made = cls.__init__ = _made_init(cls)  # twice, if two threads come at once
        made(self, *args, **kwargs)

    init.generated = True  # type: ignore[attr-defined]
    return init


def _made_init(cls: Any) -> Any:
    names: dict[str, Any] = {"_missing_": dataclasses.MISSING}
    taken: dict[bool, list[str]] = {False: [], True: []}  # parameters by whether they are keyword-only
    lines = []
    for each in dataclasses.fields(cls):
        name = given = parameter = each.name
        if each.default_factory is not dataclasses.MISSING:
            names[f"_make_{name}"] = each.default_factory
            given = f"_make_{name}() if {name} is _missing_ else {name}" if each.init else f"_make_{name}()"
            parameter = f"{name}=_missing_"
        elif not each.init:
            continue  # a class attribute, or what __post_init__ sets
        elif each.default is not dataclasses.MISSING:
            names[f"_default_{name}"] = each.default
            parameter = f"{name}=_default_{name}"
        if each.init:
            taken[each.kw_only is True].append(parameter)
        lines.append(f"    self.{name} = {given}")
    if hasattr(cls, "__post_init__"):
        lines.append("    self.__post_init__()")
    parameters = ", ".join(["self", *taken[False], *(["*", *taken[True]] if taken[True] else [])])
    exec(f"def __init__({parameters}):\n" + "\n".join(lines or ["    pass"]), names)
    init = names["__init__"]
    init.__qualname__, init.__module__ = f"{cls.__qualname__}.__init__", cls.__module__
    init.generated = True
    return init


# tag -> every class declared under it that is still there. The codec looks here; two classes under one tag are only an
# error when a document names that tag where both would fit.
class Registry(dict[str, "WeakSet[type[Record]]"]):
    declarations = 0  # how many classes were ever declared, so that readers see that something is new


registry = Registry()

SPARSE = {"sparse": True}  # of a field that AutoGen does not know: written only where it says something


class Record(_Declared):
    """Root of every record. Compares by value; not hashable."""

    if TYPE_CHECKING:
        # Any, so that a subclass may narrow it: `type: Literal["Vote"] = "Vote"`
        type: ClassVar[Any]
        _tagged: ClassVar[bool]

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return self.__dict__ == other.__dict__

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> dict[str, Any]:
        return pydantic_schema(cls.model_validate, lambda record: record.dump())

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        return cls.model_json_schema()

    def __repr__(self) -> str:
        shown = [
            f"{each.name}={value!r}"
            for each in dataclasses.fields(self)
            if each.repr and ((value := getattr(self, each.name)) != _default(each) or "sparse" not in each.metadata)
        ]
        return f"{self.__class__.__qualname__}({', '.join(shown)})"

    def dump(self) -> dict[str, Any]:
        """This record as JSON data."""
        from . import codec

        data: dict[str, Any] = codec.encode(self)
        return data

    @classmethod
    def load(cls, data: Mapping[str, Any]) -> Self:
        """The record that `dump` wrote. Unknown keys are ignored. Raises `DecodeError`."""
        from . import codec

        made: Self = codec.decode(cls, data)
        return made

    def model_dump(
        self,
        *,
        mode: str = "json",
        include: set[str] | None = None,
        exclude: set[str] | None = None,
        exclude_none: bool = False,
    ) -> dict[str, Any]:
        """`dump`, by the name pydantic gave it; always JSON data, whatever `mode` says."""
        data = _without_none(self, self.dump()) if exclude_none else self.dump()
        return {
            key: value
            for key, value in data.items()
            if (include is None or key in include) and (exclude is None or key not in exclude)
        }

    def model_dump_json(
        self,
        *,
        indent: int | None = None,
        include: set[str] | None = None,
        exclude: set[str] | None = None,
        exclude_none: bool = False,
    ) -> str:
        """`dump` as JSON text."""
        from . import codec

        return codec.dumps(self.model_dump(include=include, exclude=exclude, exclude_none=exclude_none), indent=indent)

    @classmethod
    def model_validate(cls, data: Any) -> Self:
        """`load`, by the name pydantic gave it; a record of this class is returned as it is."""
        return data if isinstance(data, cls) else cls.load(data)

    @classmethod
    def model_validate_json(cls, text: str | bytes) -> Self:
        """The record in JSON text. Raises `DecodeError`."""
        from . import codec

        made: Self = codec.decode(cls, codec.loads(text))
        return made

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        """The JSON Schema of this record."""
        from . import codec

        return codec.schema(cls)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with some fields replaced."""
        if deep:
            import copy

            return copy.deepcopy(self).model_copy(update=update)
        twin = self.__class__.__new__(self.__class__)
        twin.__dict__ = {**self.__dict__, **update} if update else self.__dict__.copy()
        return twin


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _without_none(value: Any, data: Any) -> Any:
    """The data of a value without fields that are None, those of records inside too."""
    if dataclasses.is_dataclass(value):
        kept = {name: each for name, each in data.items() if each is not None}
        return {name: _without_none(getattr(value, name, None), each) for name, each in kept.items()}
    if isinstance(value, (list, tuple)):
        return [_without_none(*each) for each in zip(value, data)]
    if isinstance(value, dict):
        return {key: _without_none(*each) for key, each in zip(data, zip(value.values(), data.values()))}
    return data


def pydantic_schema(read: Callable[[Any], Any], write: Callable[[Any], Any]) -> dict[str, Any]:
    """What pydantic asks a class for that stands in a model of the user's; its core schemas are plain dicts."""
    return {
        "type": "function-plain",
        "function": {"type": "no-info", "function": read},
        "serialization": {"type": "function-plain", "function": write},
    }
