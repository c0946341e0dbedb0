"""Definitions that can be made again: every component remembers the call that constructed it.

What is constructed is a definition and its own first session. `session()` makes the same call again, so what changes
in use (attributes a class of yours keeps on `self` included) is not carried over. An argument that is a component is
renewed with it, once per session however often it occurs; everything else, clients, functions and stores, is shared.

Not guaranteed: what is changed on an object after its construction is not in its sessions.
"""

from __future__ import annotations

from types import BuiltinFunctionType, FunctionType, GenericAlias, MethodType

from .errors import ComponentVersionError, ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Generic, overload

    from typing_extensions import Self, TypeVar

    from .blueprints import ComponentModel

    C = TypeVar("C", bound="Component")
    ConfigT = TypeVar("ConfigT", default=Any)

    Memo = dict[int, tuple[Any, Any]]  # id of an original -> the original, so that the id stays its own, and its twin

_SHARED = frozenset({str, int, float, bool, type(None), bytes, type, FunctionType, BuiltinFunctionType})
_SEQUENCES = frozenset({list, tuple, set, frozenset})
_VIEWS = frozenset({type({}.keys()), type({}.values()), type({}.items())})


if TYPE_CHECKING:

    class Subscripted(Generic[ConfigT]): ...

else:
    ConfigT = None

    class Subscripted:
        """Stands in for `typing.Generic`: AutoGen's components derive from `Component[Config]`."""

        __class_getitem__ = classmethod(GenericAlias)


class Component(Subscripted[ConfigT]):
    """Base of what can be made again: agents, teams, tools, models, contexts, conditions, executors.

    Set `renewable = False` in a class whose objects all sessions share, such as a store.

        class Greeter(Component):
            def __init__(self, name: str) -> None:
                self.name, self.greeted = name, 0

        twin = Greeter("ada").session()
        register_component(Greeter)
        again = Greeter.load_component(twin.dump_component())
    """

    renewable = True
    component_type = ""  # what it is in documents: agent, team, tool, model, termination, ...
    component_version = 1  # of its documents; raise it when they change, and read the older ones
    component_description: str | None = None
    component_label: str | None = None

    if not TYPE_CHECKING:  # type checkers shall judge calls by __init__ alone

        def __new__(cls, *args, **kwargs):
            self = super().__new__(cls)
            if args:
                args = [arg if type(arg) in _SHARED else _captured(arg, cls, at) for at, arg in enumerate(args)]
            for name, arg in kwargs.items():
                if type(arg) not in _SHARED:
                    kwargs[name] = _captured(arg, cls, name)
            self._constructed = args, kwargs
            return self

        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)  # else a class without __init__ would take any arguments

    def __repr__(self) -> str:
        name = self.__dict__.get("name") or self.__dict__.get("_name")
        return f"<{type(self).__name__}{f' {name!r}' if isinstance(name, str) else ''}>"

    def session(self) -> Self:
        """An independent twin: the same constructor call made again.

        Raises `ConfigError` for a class that is not renewable, or whose `__new__` does not call this one's.
        """
        if not self.renewable:
            raise ConfigError(
                f"{type(self).__name__} is shared by all sessions; set renewable = True in the class if each shall "
                f"have its own"
            )
        return renewed(self, {})  # type: ignore[no-any-return]

    def dump_component(self) -> ComponentModel:
        """The document from which `load_component` makes such an object: the arguments of its constructor.

        Secrets are written as names of environment variables. Raises `EncodeError` naming the argument that cannot be
        written, such as a function that is not registered.
        """
        from .blueprints import dump

        return dump(self)

    if TYPE_CHECKING:

        @overload
        @classmethod
        def load_component(cls, model: ComponentModel | Mapping[str, Any], expected: None = None) -> Self: ...
        @overload
        @classmethod
        def load_component(cls, model: ComponentModel | Mapping[str, Any], expected: type[C]) -> C: ...

    @classmethod
    def load_component(cls, model: ComponentModel | Mapping[str, Any], expected: Any = None) -> Any:
        """The component a document describes, which must be an `expected`, or one of this class.

        Makes only our own components and what was registered with `register_component`. Raises `ComponentError`.
        """
        from .blueprints import load

        return load(model, expected or cls)

    def _to_config(self) -> Any:
        """What `_from_config` needs, as data; override both where the arguments of the constructor will not do."""
        raise NotImplementedError

    @classmethod
    def _from_config(cls, config: Any) -> Self:
        """The object of a config, which is a `component_config_schema` if the class names one."""
        from .blueprints import construct

        return construct(cls, config)

    @classmethod
    def _from_config_past_version(cls, config: dict[str, Any], version: int) -> Self:
        """The object of a config of an earlier `component_version`."""
        raise ComponentVersionError("$", f"{cls.__name__} does not read documents of version {version}")

    @classmethod
    def _config_types(cls) -> Mapping[str, Any]:
        """The types of arguments that hold records, by name; others hold plain data, components and functions."""
        return {}

    def _grown(self) -> Mapping[str, Any]:
        """Arguments by name that use has changed, and that documents hold as they have become."""
        return {}

    def _secret_variable(self, argument: str) -> str:
        """The environment variable that stands for a secret argument in documents, unless another holds it."""
        return f"{type(self).__name__}_{argument}".upper()

    def _renew(self, memo: Memo) -> Self:
        """The twin of this object for one session; override it to carry something over."""
        cls = type(self)
        call = self.__dict__.get("_constructed")
        if call is None:
            raise ConfigError(
                f"{cls.__name__} cannot be made again: its __new__ must call super().__new__(cls, *args, **kwargs)"
            )
        args, kwargs = call
        return cls(*[renewed(arg, memo) for arg in args], **{name: renewed(kwargs[name], memo) for name in kwargs})


class ComponentBase(Component[ConfigT]):
    """`Component`, by the name that AutoGen's interfaces derive from; may stand beside it."""


ComponentType = str


def renewed(value: Any, memo: Memo) -> Any:
    """`value` for one session: components, also inside lists, tuples, sets and dicts, renewed; the rest as it is."""
    kind = type(value)
    if kind in _SHARED:
        return value
    if issubclass(kind, Component):
        if not value.renewable:
            return value
        known = memo.get(id(value))
        if known is None:
            known = memo[id(value)] = (value, value._renew(memo))
        return known[1]
    if kind in _SEQUENCES:
        return kind([renewed(item, memo) for item in value])
    if kind is dict:
        return {renewed(key, memo): renewed(item, memo) for key, item in value.items()}
    if kind is MethodType:
        owner = renewed(value.__self__, memo)
        return value if owner is value.__self__ else MethodType(value.__func__, owner)
    return value


def _captured(value: Any, cls: type, where: object) -> Any:
    """`value` as it is now: later changes of a list do not reach it. Refuses what can be read only once."""
    kind = type(value)
    if kind in _SHARED or issubclass(kind, Component):
        return value
    if kind in _SEQUENCES:
        return kind([item if type(item) in _SHARED else _captured(item, cls, where) for item in value])
    if kind is dict:
        return {key: _captured(item, cls, where) for key, item in value.items()}
    if kind in _VIEWS:
        return [_captured(item, cls, where) for item in value]
    if (hasattr(kind, "__next__") or hasattr(kind, "__anext__")) and not hasattr(kind, "fileno"):
        name = f"argument {where + 1}" if isinstance(where, int) else f"argument {where!r}"
        raise ConfigError(f"{name} of {cls.__name__} is a {kind.__name__}, which can be read only once; pass a list")
    return value
