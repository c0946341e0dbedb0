"""Components as documents: what a constructor was called with, written as JSON data and called again.

Theory of operation. A component remembers the call that made it (`component.py`), so its document is the arguments of
that call by name. Arguments that are components are documents again; functions and classes are written as the names
they are registered under; secrets as the names of environment variables. What none of these rules covers is refused
when it is written, with the path of the argument; nothing is left out.

Loading makes only what `component_names.py` lists and what the program registered, each by its exact name. A name is
never an import path, nothing in a document is ever executed. AutoGen's names of the same things are understood too.

Not guaranteed: what was changed on an object after it was made is not in its document. Who can write a document chooses
the addresses that model keys are sent to; of other secrets only those that `allow_secrets` named.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import field

from . import codec
from .component import Component
from .component_names import class_names, find, provider_of, registered_function
from .errors import (
    ComponentError,
    ComponentTypeError,
    ComponentVersionError,
    ConfigError,
    DecodeError,
    EncodeError,
    did_you_mean,
)
from .records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from typing import Any, TypeVar

    C = TypeVar("C", bound=Component)

MAX_SIZE = 16_000_000  # characters of text in a document that is loaded
REGISTERED = "$registered"  # the one key of the object that stands for a function or a class

_KINDS = {"chat_completion_cache": "model"}  # component types of AutoGen's that have another name here


class ComponentModel(Record, tagged=False):
    """The document of a component. `config` holds the arguments of its constructor, `provider` says of which class."""

    provider: str
    component_type: str | None = None
    version: int | None = None
    component_version: int | None = None
    description: str | None = None
    label: str | None = None
    config: dict[str, object] = field(default_factory=dict)


# where the keys of models stand; of a program's other secrets a document shall not be able to ask
_readable = set(
    "OPENAI_API_KEY AZURE_OPENAI_API_KEY AZURE_OPENAI_AD_TOKEN ANTHROPIC_API_KEY ANTHROPIC_AUTH_TOKEN "
    "AWS_BEARER_TOKEN_BEDROCK GEMINI_API_KEY GOOGLE_API_KEY "
    "DEEPSEEK_API_KEY FIREWORKS_API_KEY GROQ_API_KEY LLAMA_API_KEY MISTRAL_API_KEY OPENROUTER_API_KEY "
    "TOGETHER_API_KEY XAI_API_KEY".split()
)


def allow_secrets(*variables: str) -> None:
    """Let documents name these environment variables as the places of secrets, beside those of model keys."""
    for variable in variables:
        if not isinstance(variable, str) or not variable:
            raise ConfigError(f"allow_secrets takes names of environment variables, not {variable!r:.80}")
    _readable.update(variables)


# --- writing


def dump(component: Component) -> ComponentModel:
    """The document of `component`. Raises `EncodeError` with the path of the argument that cannot be written."""
    try:
        made = _Writer().component(component, "$")
    except RecursionError:
        raise EncodeError("$", "nested too deep, or a value contains itself") from None
    _measure(vars(made), EncodeError)
    return made


class _Writer:
    def __init__(self) -> None:
        self.seen: dict[int, str] = {}  # id of what each session has its own of -> path

    def component(self, it: Component, path: str) -> ComponentModel:
        cls = type(it)
        provider = provider_of(cls, path)
        if it.renewable and it.component_type not in ("tool", "workbench"):
            if id(it) in self.seen:
                raise EncodeError(path, f"the {cls.__name__} stands at {self.seen[id(it)]} too; a document has copies")
            self.seen[id(it)] = path
        if cls._to_config is Component._to_config:
            config = self.arguments(it, f"{path}.config")
        else:
            with _written_at(path):
                config = codec.encode(it._to_config())
            config = self.value(config, f"{path}.config", it)
            config = {key: value for key, value in config.items() if value is not None}
        words = (cls.component_description or cls.__doc__ or "").split("\n\n")[0].split()
        return ComponentModel(
            provider=provider,
            component_type=it.component_type or None,
            version=cls.component_version,
            component_version=cls.component_version,
            description=" ".join(words) or None,
            label=cls.component_label or cls.__name__,
            config=config,
        )

    def arguments(self, it: Component, path: str) -> dict[str, Any]:
        """The arguments of the constructor, by name. Those that are None by default stand there if they are not."""
        call = vars(it).get("_constructed")
        if call is None:
            raise EncodeError(path, f"{type(it).__name__}.__new__ must call super().__new__(cls, *args, **kwargs)")
        bound = _signature(type(it)).bind(*call[0], **call[1])
        bound.apply_defaults()
        parameters, types = bound.signature.parameters, type(it)._config_types()
        config: dict[str, Any] = {}
        for name, value in {**_by_name(bound), **it._grown()}.items():
            at = f"{path}.{name}"
            if value is None and name in parameters and parameters[name].default is None:
                continue
            if _is_hidden(value, name, at):
                config[name] = {"env": _variable_of(value, it._secret_variable(name))}
            elif name in types and not callable(value):
                config[name] = _plain(value, at, types[name])
            else:
                config[name] = self.value(value, at, it)
        return config

    def value(self, value: Any, path: str, it: Component) -> Any:
        if isinstance(value, str) and _WITH_PASSWORD.match(value):
            raise EncodeError(path, "the address holds a password, which no document may hold")
        if type(value) in (bool, int, str, type(None)):
            return value
        if isinstance(value, Component):
            made = self.component(value, path)
            return {key: each for key, each in vars(made).items() if each is not None}
        if isinstance(value, (list, tuple)):
            return [self.value(each, f"{path}[{at}]", it) for at, each in enumerate(value)]
        if isinstance(value, Mapping):
            return self.mapping(value, path, it)
        if isinstance(value, Record) and hasattr(value, "in_document"):  # it holds functions
            return self.mapping(value.in_document(), path, it)
        if isinstance(value, float):
            return _plain(value, path, float)
        if callable(value) and not isinstance(value, Record):
            return {REGISTERED: provider_of(value, path)}
        raise EncodeError(path, f"a {type(value).__name__} cannot stand in a document")

    def mapping(self, value: Mapping[Any, Any], path: str, it: Component) -> dict[str, Any]:
        plain = type(it)._to_config is Component._to_config  # else these may be documents, of its parts
        if plain and (REGISTERED in value or _is_document(value)):
            raise EncodeError(path, f"a mapping with these keys would be read as something else: {sorted(value)}")
        written: dict[str, Any] = {}
        for key, each in value.items():
            if not isinstance(key, str):
                raise EncodeError(path, f"the key {key!r:.80} is not a text")
            if _is_hidden(each, key, f"{path}.{key}"):
                variable = re.sub(r"\W", "_", f"{type(it).__name__}_{key}").upper()
                written[key] = {"env": _variable_of(each, variable)}
            else:
                written[key] = self.value(each, f"{path}.{key}", it)
        return written


def _is_hidden(value: Any, name: str, path: str) -> bool:
    """Whether a variable is to stand for a value. Raises `EncodeError` for several secrets: one cannot."""
    if not value or not is_secret(name):
        return False
    found = (
        isinstance(value, Mapping) and set(value) != {"env"} and not _is_reference(value) and not _is_document(value)
    )
    if found or isinstance(value, (list, tuple)):
        raise EncodeError(
            path, f"several secrets cannot stand under {name!r}; let each have an argument or key of its own"
        )
    return isinstance(value, str)


def _plain(value: Any, path: str, kind: Any) -> Any:
    """`value` as JSON data that can be read back as a `kind`."""
    with _written_at(path):
        written = codec.encode(value)
        codec.decode(kind, written, mode="state")
        return written


@contextmanager
def _written_at(path: str) -> Iterator[None]:
    """Say of what cannot be written inside where that is."""
    try:
        yield
    except (EncodeError, DecodeError) as error:
        raise EncodeError(path + error.path.removeprefix("$"), error.problem) from error


# --- reading


def load(document: ComponentModel | Mapping[str, Any], expected: type[C]) -> C:
    """The component that `document` describes. Raises `ComponentError`; nothing is made that is not an `expected`."""
    if isinstance(document, ComponentModel):
        document = {name: value for name, value in vars(document).items() if value is not None}
    _measure(document, ComponentError)
    return _component(document, expected, "$")


def _component(document: Any, expected: type[C], path: str) -> C:
    head = _head(document, path)
    target, is_autogen = find(head.provider, f"{path}.provider")
    if not (isinstance(target, type) and issubclass(target, Component)):
        raise ComponentTypeError(f"{path}.provider", f"{head.provider!r} is not the name of a component")
    if not issubclass(target, expected):
        problem = f"expected type does not match: {head.provider!r} is a {target.__name__}, not a {expected.__name__}"
        raise ComponentTypeError(f"{path}.provider", problem)
    kind = _KINDS.get(head.component_type or "", head.component_type) if is_autogen else head.component_type
    if kind not in (None, target.component_type or None):
        problem = f"a {target.__name__} is a component of type {target.component_type!r}, not {head.component_type!r}"
        raise ComponentTypeError(f"{path}.component_type", problem)
    version = target.component_version if head.component_version is None else head.component_version
    if version > target.component_version:
        problem = f"version {version} of {target.__name__} is not known here; the newest is {target.component_version}"
        raise ComponentVersionError(f"{path}.component_version", problem)
    with _inside(f"{path}.config", target):
        config: Any = _from_autogen(target.__name__, head.config) if is_autogen else head.config
        if getattr(target._from_config, "__func__", None) is not vars(Component)["_from_config"].__func__:
            config = _read(config, "$", "", make=False)  # its parts it makes itself
        if version < target.component_version:
            made = target._from_config_past_version(config, version)
        else:
            schema = getattr(target, "component_config_schema", None)
            made = target._from_config(config if schema is None else codec.decode(schema, config, mode="state"))
    if not isinstance(made, expected):
        raise ComponentTypeError(path, f"{target.__name__} made a {type(made).__name__}, not a {expected.__name__}")
    return made


def construct(cls: type[C], config: Mapping[str, Any]) -> C:
    """Call the constructor of `cls` with the arguments in `config`."""
    signature, types = _signature(cls), cls._config_types()
    parameters = signature.parameters
    rest = _rest(signature)
    known = [name for name in parameters if name != rest and not name.startswith("_")]
    arguments: dict[str, Any] = {}
    for name, written in config.items():
        if name not in known and (rest is None or name.startswith("_")):
            raise ComponentError("$", f"unknown key {name!r:.80}{did_you_mean(name[:80], known)}")
        if name in types and not _is_reference(written):
            value = codec.decode(types[name], written, mode="state", path=f"$.{name}")
        else:
            value = _read(written, f"$.{name}", name)
        if name in known:
            _check_scalar(value, parameters[name], name)
            arguments[name] = value
        else:
            arguments.setdefault(rest or "", {})[name] = value
    for name, parameter in parameters.items():
        optional = parameter.default is not parameter.empty or parameter.kind is parameter.VAR_POSITIONAL
        if name not in arguments and not optional and name != rest:
            raise ComponentError("$", f"the key {name!r} is missing")
    bound = inspect.BoundArguments(signature, arguments)
    bound.apply_defaults()
    return cls(*bound.args, **bound.kwargs)


def _read(value: Any, path: str, name: str, *, make: bool = True) -> Any:
    """What a value in a document stands for; unless `make`, only secrets stand for something."""
    if isinstance(value, list):
        return [_read(each, f"{path}[{at}]", name, make=make) for at, each in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    if is_secret(name) and set(value) == {"env"}:
        return _secret(value["env"], path)
    if make and _is_reference(value):
        return find(value[REGISTERED], path)[0]
    if make and _is_document(value):
        return _component(value, Component, path)
    return {key: _read(each, f"{path}.{key}", key, make=make) for key, each in value.items()}


def _secret(variable: Any, path: str) -> str:
    """The value of a variable that was allowed, or is named after a component (`HOLDER_API_KEY`)."""
    of_component = (f"{name.upper()}_" for name in class_names())
    if not isinstance(variable, str) or not (variable in _readable or any(map(variable.startswith, of_component))):
        raise ComponentError(path, f"the environment variable {variable!r:.80} is none that allow_secrets() named")
    if variable not in os.environ:
        raise ComponentError(path, f"the environment variable {variable!r:.80} is not set")
    return os.environ[variable]


def _head(document: Any, path: str) -> ComponentModel:
    if not isinstance(document, Mapping):
        raise ComponentError(path, f"expected the document of a component, not {document!r:.80}")
    try:
        return codec.decode(ComponentModel, dict(document), mode="state", path=path)  # type: ignore[no-any-return]
    except DecodeError as error:
        raise ComponentError(error.path, error.problem) from None


def _check_scalar(value: Any, parameter: inspect.Parameter, name: str) -> None:
    """Refuse a value of another type than the annotation names, where that names plain types only."""
    annotation = parameter.annotation
    written = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    names = written.split(" | ")
    if parameter.kind is parameter.VAR_POSITIONAL or not all(each in _SCALARS for each in names):
        return
    allowed = [kind for each in names for kind in _SCALARS[each]]
    if type(value) not in allowed:
        raise ComponentError(f"$.{name}", f"expected {' or '.join(names)}, not {value!r:.80}")


_SCALARS = {"str": (str,), "int": (int,), "float": (float, int), "bool": (bool,), "None": (type(None),)}


@contextmanager
def _inside(path: str, cls: type[Any]) -> Iterator[None]:
    """Say of what goes wrong inside where that is."""
    try:
        yield
    except DecodeError as error:
        kind = type(error) if isinstance(error, ComponentError) else ComponentError
        raise kind(path + error.path[1:], error.problem) from error.__cause__
    except Exception as error:  # of a constructor, perhaps of the user's, with arguments from a document
        raise ComponentError(path, f"{cls.__name__} cannot be made of this: {error}") from error


def _measure(document: Any, wrong: type[ComponentError | EncodeError]) -> None:
    """Refuse what is too large, too deep, or not JSON data, before anything is made of it."""
    size, ahead = 0, [(document, "$", 1)]
    while ahead:
        value, path, depth = ahead.pop()
        size += len(value) if isinstance(value, str) else 1
        if size > MAX_SIZE or depth > codec.MAX_DEPTH:
            problem = f"larger than {MAX_SIZE:,} characters or nested deeper than {codec.MAX_DEPTH} levels"
            raise wrong(path[:80], problem)
        if isinstance(value, Mapping):
            for key, each in value.items():
                if not isinstance(key, str):
                    raise wrong(path, f"the key {key!r:.80} is not a text")
                size += len(key)
                ahead.append((each, f"{path}.{key[:80]}", depth + 1))
        elif isinstance(value, (list, tuple)):
            ahead.extend((each, f"{path}[{at}]", depth + 1) for at, each in enumerate(value))
        elif not isinstance(value, (str, int, float, type(None))):
            raise wrong(path, f"a {type(value).__name__} is not JSON data")


# --- what both need


def _signature(cls: type[Any]) -> inspect.Signature:
    """What the constructor takes; that of `Component` passes on whatever it is given."""
    own = (vars(each)["__init__"] for each in cls.__mro__ if "__init__" in vars(each) and each is not Component)
    if (init := next(own)) is object.__init__:
        return inspect.Signature()
    signature = inspect.signature(init)
    return signature.replace(parameters=list(signature.parameters.values())[1:])


def _rest(signature: inspect.Signature) -> str | None:
    """The parameter that takes whatever else is given by name."""
    return next((name for name, each in signature.parameters.items() if each.kind is each.VAR_KEYWORD), None)


def _by_name(bound: inspect.BoundArguments) -> dict[str, Any]:
    """The arguments of a call by name, whatever else was given among them."""
    given = dict(bound.arguments)
    more = given.pop(_rest(bound.signature) or "", {})
    return {**given, **more}


def public_arguments(it: Component, leave_out: Collection[str] = ()) -> dict[str, Any] | None:
    """What the constructor of `it` was called with, as JSON data without secrets; None if some of it is no data."""
    args, kwargs = vars(it).get("_constructed", ((), {}))
    given = _by_name(_signature(type(it)).bind(*args, **kwargs))
    try:
        return codec.encode(_public({name: each for name, each in given.items() if name not in leave_out}))  # type: ignore[no-any-return]
    except (EncodeError, ConfigError):  # ConfigError: a class that has no schema
        return None


def _public(value: Any) -> Any:
    if isinstance(value, Mapping):
        shown = {name: _public(each) for name, each in value.items() if not is_secret(str(name))}
        return {name: each for name, each in shown.items() if each is not None and each != {}}
    if isinstance(value, (list, tuple)):
        return [_public(each) for each in value]
    if isinstance(value, str):
        return _WITH_PASSWORD.sub(r"\1", value)
    return {"type": value.__qualname__, "schema": codec.schema(value)} if isinstance(value, type) else value


def _is_document(value: Mapping[Any, Any]) -> bool:
    return "provider" in value and "config" in value


def _is_reference(value: Any) -> bool:
    return isinstance(value, Mapping) and set(value) == {REGISTERED}


_SECRET = re.compile(
    r"api_?key|secret|password|passphrase|authorization|cookie|credential|"
    r"^token$|(auth|access|ad|api|bearer|refresh|session)_token$"
)
_SECRET_VARIABLE = re.compile(r"[A-Z0-9_]+_(KEY|TOKEN)")  # as names of environment variables are written
_WITH_PASSWORD = re.compile(r"([a-z][a-z0-9+.-]*://)[^/\s@]*:[^/\s@]+@", re.IGNORECASE)


def is_secret(name: str) -> bool:
    """Whether what has this name is a secret, by the way such names are written."""
    return _SECRET_VARIABLE.fullmatch(name) is not None or _SECRET.search(name.lower().replace("-", "_")) is not None


def _variable_of(secret: str, default: str) -> str:
    """The environment variable that holds a secret; `default` if that does, or if none does."""
    if os.environ.get(default) == secret:
        return default
    return next((name for name, value in sorted(os.environ.items()) if value == secret), default)


# --- AutoGen's documents


def _from_autogen(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """AutoGen's config as ours. There, null stands for what was not given, and keys may be masked."""
    given = {key: value for key, value in config.items() if value is not None}
    if name == "AssistantAgent":
        given.setdefault("system_message", None)  # left out if there is none; our own documents say null then
        if (answers := given.pop("structured_message_factory", None)) is not None:
            factory: Any = _component(answers, Component, "$.structured_message_factory")
            given |= {"output_content_type": factory.ContentModel, "output_content_type_format": factory.format_string}
        benches = given.get("workbench")
        if benches is not None and not any(map(_has_tools, benches if isinstance(benches, list) else [benches])):
            del given["workbench"]
    elif name == "FunctionTool":
        _replace_source(given)
    elif name == "SQLiteCacheStore" and isinstance(given.get("directory"), str):
        given["path"] = os.path.join(given.pop("directory"), "answers.sqlite3")  # beside what the other format keeps
    elif set(str(given.get("api_key", ""))) == {"*"}:
        del given["api_key"]  # as it was dumped, masked; the environment has the key
    return given


def _has_tools(bench: Any) -> bool:
    return not isinstance(bench, Mapping) or (bench.get("config") or {}).get("tools", True) not in ([], None)


def _replace_source(config: dict[str, Any]) -> None:
    """Source of a function is never executed: the function is the registered one of that name."""
    try:
        registered = registered_function(config.get("name"))
    except ConfigError as error:
        raise ComponentError("$.source_code", f"source is never executed and {error}") from None
    for key in ("source_code", "global_imports", "has_cancellation_support"):
        config.pop(key, None)
    config["func"] = {REGISTERED: registered}
