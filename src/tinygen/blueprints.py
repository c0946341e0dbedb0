"""Components as documents: what a constructor was called with, written as JSON data and called again.

Theory of operation. A component remembers the call that made it (`component.py`), so its document is the arguments of
that call by name. Arguments that are components are documents again; functions and classes are written as the names
they are registered under; secrets as the names of environment variables. What none of these rules covers is refused
when it is written, with the path of the argument; nothing is left out.

Loading makes only what stands in `_OURS` and what the program registered, each by its exact name. A name is never an
import path, nothing in a document is ever executed. AutoGen's names of the same things are understood too.

Not guaranteed: what was changed on an object after it was made is not in its document. Who can write a document chooses
the addresses that model keys are sent to; of other secrets only those that `allow_secrets` named.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import field
from importlib import import_module

from . import codec
from .component import Component
from .errors import ConfigError, DecodeError, EncodeError, did_you_mean
from .records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from typing import Any, TypeVar

    T = TypeVar("T")
    C = TypeVar("C", bound=Component)

MAX_SIZE = 16_000_000  # characters of text in a document that is loaded
REGISTERED = "$registered"  # the one key of the object that stands for a function or a class

# what documents may name without a registration: module, where AutoGen has it, names
_OURS = {
    name: (module, autogen)
    for module, autogen, names in (
        ("agents", "autogen_agentchat.agents", "UserProxyAgent suspend"),
        ("cache", "autogen_core", "InMemoryStore"),
        ("cache", "autogen_ext.cache_store.diskcache", "SQLiteCacheStore"),
        ("cache", "autogen_ext.cache_store.redis", "RedisStore"),
        ("assistant", "autogen_agentchat.agents", "AssistantAgent"),
        ("code_executors", "autogen_ext.code_executors.local", "LocalCommandLineCodeExecutor"),
        ("coder", "autogen_agentchat.agents", "CodeExecutorAgent"),
        ("conversable", "autogen_agentchat.agents", "ConversableProxy"),
        ("message_filter", "autogen_agentchat.agents", "MessageFilterAgent"),
        ("society", "autogen_agentchat.agents", "SocietyOfMindAgent"),
        ("task_tools", "autogen_agentchat.tools", "AgentTool TeamTool"),
        (
            "conditions",
            "autogen_agentchat.conditions",
            "ExternalTermination FunctionCallTermination FunctionalTermination HandoffTermination "
            "MaxMessageTermination SourceMatchTermination StopMessageTermination TextMentionTermination "
            "TextMessageTermination TimeoutTermination TokenUsageTermination",
        ),
        ("conditions", "autogen_agentchat.base", "AndTerminationCondition OrTerminationCondition"),
        ("memory", "autogen_core.memory", "ListMemory"),
        ("ported", "autogen_agentchat.messages", "StructuredMessageFactory"),
        (
            "model_context",
            "autogen_core.model_context",
            "BufferedChatCompletionContext HeadAndTailChatCompletionContext TokenLimitedChatCompletionContext "
            "UnboundedChatCompletionContext",
        ),
        (
            "models.openai",
            "autogen_ext.models.openai",
            "AzureOpenAIChatCompletionClient OpenAIChatCompletionClient",
        ),
        ("models.responses", "autogen_ext.models.openai", "OpenAIResponsesClient"),
        (
            "models.anthropic",
            "autogen_ext.models.anthropic",
            "AnthropicBedrockChatCompletionClient AnthropicChatCompletionClient AnthropicVertexChatCompletionClient",
        ),
        ("models.gemini", "autogen_ext.models.gemini", "GeminiChatCompletionClient"),
        ("models.ollama", "autogen_ext.models.ollama", "OllamaChatCompletionClient"),
        ("models.caching", "autogen_ext.models.cache", "ChatCompletionCache"),
        ("models.faults", "autogen_ext.models.faults", "FaultyClient"),
        ("models.pacing", "autogen_ext.models.pacing", "RateLimitedClient RateLimiter"),
        ("models.wrappers", "autogen_ext.models.wrappers", "FallbackClient LoadBalancingClient"),
        ("models.replay", "autogen_ext.models.replay", "ReplayChatCompletionClient"),
        ("graph", "autogen_agentchat.teams", "GraphFlow"),
        ("magentic", "autogen_agentchat.teams", "MagenticOneGroupChat"),
        ("selector", "autogen_agentchat.teams", "SelectorGroupChat"),
        ("swarm", "autogen_agentchat.teams", "Swarm"),
        ("teams", "autogen_agentchat.teams", "RoundRobinGroupChat"),
        ("tools", "autogen_core.tools", "FunctionTool StaticStreamWorkbench StaticWorkbench"),
    )
    for name in names.split()
}
_OWN = "tinygen."  # begins our names in documents, whatever this copy of the package is called
_AUTOGEN = {f"{path}.{name}": name for name, (_, path) in _OURS.items()} | {
    "OpenAIChatCompletionClient": "OpenAIChatCompletionClient",
    "openai_chat_completion_client": "OpenAIChatCompletionClient",
    "AzureOpenAIChatCompletionClient": "AzureOpenAIChatCompletionClient",
    "azure_openai_chat_completion_client": "AzureOpenAIChatCompletionClient",
    "autogen_ext.cache_store.diskcache.DiskCacheStore": "SQLiteCacheStore",
}
_KINDS = {"chat_completion_cache": "model"}  # component types of AutoGen's that have another name here
_ALIASES = {f"{_OWN}{path.partition('.')[2]}": name for path, name in _AUTOGEN.items() if "." in path}

_registered: dict[str, Any] = {}
_provider_of: dict[Any, str] = {}


class ComponentModel(Record, tagged=False):
    """The document of a component. `config` holds the arguments of its constructor, `provider` says of which class."""

    provider: str
    component_type: str | None = None
    version: int | None = None
    component_version: int | None = None
    description: str | None = None
    label: str | None = None
    config: dict[str, object] = field(default_factory=dict)


class ComponentError(ConfigError, DecodeError):
    """A document from which no component can be made; `path` says where, `problem` what is wrong there."""


class ComponentTypeError(ComponentError, TypeError):
    """The document is of another kind of component than what was asked for."""


class ComponentVersionError(ComponentError, NotImplementedError):
    """The document is of a version that this class does not read."""


def register_component(target: T, provider: str | None = None) -> T:
    """Let documents name a class or a function of yours; returns it, so that it can decorate.

    Args:
        target: a component class, a function (of a tool, a condition), or a type of answers.
        provider: its name in documents. Left out, `component_provider_override` of the class, else where it is defined.
    """
    if provider is None:
        provider = vars(target).get("component_provider_override") if isinstance(target, type) else None
        provider = provider or f"{getattr(target, '__module__', '')}.{getattr(target, '__qualname__', '')}"
        if "<" in provider or provider.startswith(".") or provider.endswith("."):
            raise ConfigError(f"{target!r} has no name of its own that lasts; pass provider='...'")
    if not callable(target):
        raise ConfigError(f"register_component takes a class or a function, not {target!r:.80}")
    if provider.startswith(_OWN) or provider in _AUTOGEN:
        raise ConfigError(f"{provider!r} is the name of a component of tinygen; choose another")
    known = _registered.get(provider, target)
    if known is not target and _origin(known) != _origin(target):
        raise ConfigError(f"{provider!r} is registered for {known!r} already; choose another name for {target!r}")
    _registered[provider] = target
    _provider_of.setdefault(target, provider)
    return target


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


def _origin(target: Any) -> tuple[Any, Any]:
    """Where something is defined: a cell of a notebook that is run again defines it again."""
    return getattr(target, "__module__", None), getattr(target, "__qualname__", id(target))


# --- writing


def dump(component: Component) -> ComponentModel:
    """The document of `component`. Raises `EncodeError` with the path of the argument that cannot be written."""
    return _Writer().component(component, "$")


class _Writer:
    def __init__(self) -> None:
        self.depth = 0
        self.seen: dict[int, str] = {}

    def component(self, it: Component, path: str) -> ComponentModel:
        cls = type(it)
        provider = _name_for(cls, path)
        if it.renewable and it.component_type not in ("tool", "workbench"):
            if id(it) in self.seen:
                raise EncodeError(path, f"the {cls.__name__} stands at {self.seen[id(it)]} too; a document has copies")
            self.seen[id(it)] = path
        if cls._to_config is Component._to_config:
            config = self.arguments(it, f"{path}.config")
        else:
            config = self.value(_plain_config(it, path), f"{path}.config", "", it)
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
        signature = _signature(type(it))
        bound = signature.bind(*call[0], **call[1])
        bound.apply_defaults()
        types = type(it)._config_types()
        config: dict[str, Any] = {}
        for name, value in {**bound.arguments, **it._grown()}.items():
            parameter = signature.parameters[name]
            if parameter.kind is parameter.VAR_KEYWORD:
                for key, each in value.items():
                    config[key] = self.argument(it, key, each, types, f"{path}.{key}")
            elif value is not None or parameter.default is not None:
                config[name] = self.argument(it, name, value, types, f"{path}.{name}")
        return config

    def argument(self, it: Component, name: str, value: Any, types: Mapping[str, Any], path: str) -> Any:
        if isinstance(value, str) and value and _is_secret(name):
            return {"env": _variable_of(value, it._secret_variable(name))}
        if name in types and not callable(value):
            return _plain(value, path, types[name])
        return self.value(value, path, name, it)

    def value(self, value: Any, path: str, name: str, it: Component) -> Any:
        if type(value) in (bool, int, str, type(None)):
            if isinstance(value, str) and _WITH_PASSWORD.match(value):
                raise EncodeError(path, "the address holds a password, which no document may hold")
            return value
        self.depth += 1
        if self.depth > codec.MAX_DEPTH // 3:
            raise EncodeError(path, f"nested deeper than {codec.MAX_DEPTH // 3} levels")
        try:
            return self.other(value, path, name, it)
        finally:
            self.depth -= 1

    def other(self, value: Any, path: str, name: str, it: Component) -> Any:
        if isinstance(value, Component):
            made = self.component(value, path)
            return {key: each for key, each in vars(made).items() if each is not None}
        if isinstance(value, (list, tuple)):
            return [self.value(each, f"{path}[{at}]", name, it) for at, each in enumerate(value)]
        if isinstance(value, Mapping):
            return self.mapping(value, path, it)
        if isinstance(value, Record) and hasattr(value, "in_document"):  # it holds functions
            return self.mapping(value.in_document(), path, it)
        if isinstance(value, float):
            return _plain(value, path, float)
        if callable(value) and not isinstance(value, Record):
            return {REGISTERED: _name_for(value, path)}
        raise EncodeError(path, f"a {type(value).__name__} cannot stand in a document")

    def mapping(self, value: Mapping[Any, Any], path: str, it: Component) -> dict[str, Any]:
        plain = type(it)._to_config is Component._to_config  # else these may be documents, of its parts
        if plain and (REGISTERED in value or _is_document(value)):
            raise EncodeError(path, f"a mapping with these keys would be read as something else: {sorted(value)}")
        written: dict[str, Any] = {}
        for key, each in value.items():
            at = f"{path}.{key}"
            if not isinstance(key, str):
                raise EncodeError(path, f"the key {key!r:.80} is not a text")
            if isinstance(each, str) and each and _is_secret(key):
                written[key] = {"env": _variable_of(each, _variable(type(it).__name__, key))}
            else:
                written[key] = self.value(each, at, key, it)
        return written


def _plain_config(it: Component, path: str) -> Any:
    try:
        return codec.encode(it._to_config())
    except EncodeError as error:
        raise EncodeError(path + error.path.removeprefix("$"), error.problem) from error


def _plain(value: Any, path: str, kind: Any) -> Any:
    """`value` as JSON data that can be read back as a `kind`."""
    try:
        written = codec.encode(value)
        codec.decode(kind, written, mode="state")
    except (EncodeError, DecodeError) as error:
        raise EncodeError(path + error.path.removeprefix("$"), error.problem) from error
    return written


def _name_for(target: Any, path: str) -> str:
    """The name of a class or a function in documents. Raises `EncodeError` if it has none."""
    try:
        known = _provider_of.get(target)
    except TypeError:  # it cannot be hashed, so it was never registered
        known = None
    if known is not None and _registered[known] is target:
        return known
    name = getattr(target, "__name__", "")
    module = sys.modules.get(f"{__package__}.{_OURS[name][0]}") if name in _OURS else None
    if module is not None and getattr(module, name, None) is target:
        return _OWN + name
    what = getattr(target, "__qualname__", None) or f"a {type(target).__name__}"
    raise EncodeError(path, f"{what} has no name in documents; register it with register_component")


# --- reading


def load(document: ComponentModel | Mapping[str, Any], expected: type[C]) -> C:
    """The component that `document` describes. Raises `ComponentError`; nothing is made that is not an `expected`."""
    if isinstance(document, ComponentModel):
        document = {name: value for name, value in vars(document).items() if value is not None}
    _measure(document)
    return _component(document, expected, "$")


def _component(document: Any, expected: type[C], path: str) -> C:
    head = _head(document, path)
    target, is_autogen = _find(head.provider, f"{path}.provider")
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
    rest = next((name for name, each in parameters.items() if each.kind is each.VAR_KEYWORD), None)
    arguments: dict[str, Any] = {}
    more: dict[str, Any] = {}
    known = [name for name in parameters if name != rest and not name.startswith("_")]
    for name, written in config.items():
        if name not in known and (rest is None or name.startswith("_")):
            raise ComponentError("$", f"unknown key {name!r:.80}{did_you_mean(name[:80], known)}")
        value = _argument(name, written, types)
        if name in known:
            _check_scalar(value, parameters[name], name)
            arguments[name] = value
        else:
            more[name] = value
    for name, parameter in parameters.items():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        if name not in arguments and parameter.default is parameter.empty:
            raise ComponentError("$", f"the key {name!r} is missing")
    in_order = OrderedDict((name, arguments[name]) for name in known if name in arguments)
    bound = inspect.BoundArguments(signature, in_order)
    bound.apply_defaults()
    return cls(*bound.args, **{**bound.kwargs, **more})


def _argument(name: str, value: Any, types: Mapping[str, Any]) -> Any:
    if name in types and not _is_reference(value):
        return codec.decode(types[name], value, mode="state", path=f"$.{name}")
    return _read(value, f"$.{name}", name)


def _read(value: Any, path: str, name: str, *, make: bool = True) -> Any:
    """What a value in a document stands for; unless `make`, only secrets stand for something."""
    if isinstance(value, list):
        return [_read(each, f"{path}[{at}]", name, make=make) for at, each in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    if _is_secret(name) and set(value) == {"env"}:
        return _secret(value["env"], path)
    if make and _is_reference(value):
        return _find(value[REGISTERED], path)[0]
    if make and _is_document(value):
        return _component(value, Component, path)
    return {key: _read(each, f"{path}.{key}", key, make=make) for key, each in value.items()}


def _secret(variable: Any, path: str) -> str:
    if not isinstance(variable, str) or not _may_read(variable):
        raise ComponentError(path, f"the environment variable {variable!r:.80} is none that allow_secrets() named")
    if variable not in os.environ:
        raise ComponentError(path, f"the environment variable {variable!r:.80} is not set")
    return os.environ[variable]


def _may_read(variable: str) -> bool:
    """Whether documents may name it: it was allowed, or it is named after a component (`HOLDER_API_KEY`)."""
    classes = {*_OURS, *(it.__name__ for it in _registered.values() if isinstance(it, type))}
    return variable in _readable or any(variable.startswith(f"{name.upper()}_") for name in classes)


def _find(provider: Any, path: str) -> tuple[Any, bool]:
    """What `provider` names, and whether the name is AutoGen's. Looks it up, never imports by it."""
    if isinstance(provider, str):
        if provider in _registered:
            return _registered[provider], False
        name = provider.removeprefix(_OWN) if provider.startswith(_OWN) else ""
        name = name if name in _OURS else _ALIASES.get(provider) or _AUTOGEN.get(provider, "")
        if name:
            module = import_module(f".{_OURS[name][0]}", __package__)
            return getattr(module, name), provider in _AUTOGEN
    hint = did_you_mean(f"{provider!s:.80}", [*_registered, *map(_OWN.__add__, _OURS)]) if provider else ""
    hint = hint if hint.startswith("; did you mean") else "; register_component() makes classes and functions known"
    if str(provider).endswith("auth.azure.AzureTokenProvider"):
        hint = "; take it out, and pass azure_ad_token_provider=get_bearer_token_provider(...) of azure-identity"
    raise ComponentError(path, f"{provider!r:.80} is not the name of a component{hint}")


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


def _measure(document: Any) -> None:
    """Refuse what is too large, too deep, or not JSON data, before anything is made of it."""
    size, ahead = 0, [(document, "$", 1)]
    while ahead:
        value, path, depth = ahead.pop()
        size += len(value) if isinstance(value, str) else 1
        if size > MAX_SIZE or depth > codec.MAX_DEPTH:
            raise ComponentError(
                path[:80], f"larger than {MAX_SIZE:,} characters or deeper than {codec.MAX_DEPTH} levels"
            )
        if isinstance(value, Mapping):
            for key, each in value.items():
                if not isinstance(key, str):
                    raise ComponentError(path, f"the key {key!r:.80} is not a text")
                size += len(key)
                ahead.append((each, f"{path}.{key[:80]}", depth + 1))
        elif isinstance(value, (list, tuple)):
            ahead.extend((each, f"{path}[{at}]", depth + 1) for at, each in enumerate(value))
        elif not isinstance(value, (str, int, float, type(None))):
            raise ComponentError(path, f"a {type(value).__name__} is not JSON data")


# --- what both need


def _signature(cls: type[Any]) -> inspect.Signature:
    """What the constructor takes; that of `Component` passes on whatever it is given."""
    own = (vars(each)["__init__"] for each in cls.__mro__ if "__init__" in vars(each) and each is not Component)
    if (init := next(own)) is object.__init__:
        return inspect.Signature()
    signature = inspect.signature(init)
    return signature.replace(parameters=list(signature.parameters.values())[1:])


def public_arguments(it: Component, leave_out: Collection[str] = ()) -> dict[str, Any] | None:
    """What the constructor of `it` was called with, as JSON data without secrets; None if some of it is no data."""
    args, kwargs = vars(it).get("_constructed", ((), {}))
    signature = _signature(type(it))
    given = signature.bind(*args, **kwargs).arguments
    for name in [name for name in given if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD]:
        given.update(given.pop(name))
    try:
        return codec.encode(_public({name: each for name, each in given.items() if name not in leave_out}))  # type: ignore[no-any-return]
    except EncodeError:
        return None


def _public(value: Any) -> Any:
    if isinstance(value, Mapping):
        shown = {name: _public(each) for name, each in value.items() if not _is_secret(str(name))}
        return {name: each for name, each in shown.items() if each is not None and each != {}}
    if isinstance(value, (list, tuple)):
        return [_public(each) for each in value]
    return {"type": value.__qualname__, "schema": codec.schema(value)} if isinstance(value, type) else value


def _is_document(value: Mapping[Any, Any]) -> bool:
    return "provider" in value and "config" in value


def _is_reference(value: Any) -> bool:
    return isinstance(value, Mapping) and set(value) == {REGISTERED}


_SECRET = re.compile(
    r"api_?key|secret|password|passphrase|authorization|cookie|credential|"
    r"^token$|(auth|access|ad|api|bearer|refresh|session)_token$"
)
_WITH_PASSWORD = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s@]*:[^/\s@]+@", re.IGNORECASE)


def _is_secret(name: str) -> bool:
    return _SECRET.search(name.lower().replace("-", "_")) is not None


def _variable_of(secret: str, default: str) -> str:
    """The environment variable that holds a secret; `default` if that does, or if none does."""
    if os.environ.get(default) == secret:
        return default
    return next((name for name, value in sorted(os.environ.items()) if value == secret), default)


def _variable(owner: str, name: str) -> str:
    return re.sub(r"\W", "_", f"{owner}_{name}").upper()


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
    name = config.get("name")
    found = {
        id(it): provider for provider, it in _registered.items() if name in (provider, provider.rpartition(".")[2])
    }
    if len(found) != 1:
        which = "several functions are" if found else "no function is"
        problem = f"source is never executed and {which} registered as {name!r:.80}; use register_component"
        raise ComponentError("$.source_code", problem)
    for key in ("source_code", "global_imports", "has_cancellation_support"):
        config.pop(key, None)
    config["func"] = {REGISTERED: found.popitem()[1]}
