"""By which names documents speak of classes and functions.

A document may name what is listed in `_OURS`, by our name or AutoGen's, and what the program registered, each exactly
as it is written. A name is looked up and never imported by.
"""

from __future__ import annotations

import sys

from .errors import ComponentError, ConfigError, EncodeError, did_you_mean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, TypeVar

    T = TypeVar("T")

# what documents may name without a registration, by where AutoGen has it, or would have it
_OURS = {
    name: place
    for place, names in {
        "autogen_agentchat.agents": (
            "AssistantAgent CodeExecutorAgent ConversableProxy MessageFilterAgent SocietyOfMindAgent UserProxyAgent "
            "suspend"
        ),
        "autogen_agentchat.base": "AndTerminationCondition OrTerminationCondition",
        "autogen_agentchat.conditions": (
            "ExternalTermination FunctionCallTermination FunctionalTermination HandoffTermination "
            "MaxMessageTermination SourceMatchTermination StopMessageTermination TextMentionTermination "
            "TextMessageTermination TimeoutTermination TokenUsageTermination"
        ),
        "autogen_agentchat.messages": "StructuredMessageFactory",
        "autogen_agentchat.teams": "GraphFlow MagenticOneGroupChat RoundRobinGroupChat SelectorGroupChat Swarm",
        "autogen_agentchat.tools": "AgentTool TeamTool",
        "autogen_core": "InMemoryStore",
        "autogen_core.memory": "ListMemory",
        "autogen_core.model_context": (
            "BufferedChatCompletionContext HeadAndTailChatCompletionContext TokenLimitedChatCompletionContext "
            "UnboundedChatCompletionContext"
        ),
        "autogen_core.tools": "FunctionTool StaticStreamWorkbench StaticWorkbench",
        "autogen_ext.cache_store.diskcache": "SQLiteCacheStore",
        "autogen_ext.cache_store.redis": "RedisStore",
        "autogen_ext.code_executors.local": "LocalCommandLineCodeExecutor",
        "autogen_ext.models.anthropic": (
            "AnthropicBedrockChatCompletionClient AnthropicChatCompletionClient AnthropicVertexChatCompletionClient"
        ),
        "autogen_ext.models.cache": "ChatCompletionCache",
        "autogen_ext.models.faults": "FaultyClient",
        "autogen_ext.models.gemini": "GeminiChatCompletionClient",
        "autogen_ext.models.ollama": "OllamaChatCompletionClient",
        "autogen_ext.models.openai": (
            "AzureOpenAIChatCompletionClient OpenAIChatCompletionClient OpenAIResponsesClient"
        ),
        "autogen_ext.models.pacing": "RateLimitedClient RateLimiter",
        "autogen_ext.models.replay": "ReplayChatCompletionClient",
        "autogen_ext.models.wrappers": "FallbackClient LoadBalancingClient",
    }.items()
    for name in names.split()
}
_OWN = "tinygen."  # begins our names in documents, whatever this copy of the package is called
_AUTOGEN = {f"{place}.{name}": name for name, place in _OURS.items()} | {
    "OpenAIChatCompletionClient": "OpenAIChatCompletionClient",
    "openai_chat_completion_client": "OpenAIChatCompletionClient",
    "AzureOpenAIChatCompletionClient": "AzureOpenAIChatCompletionClient",
    "azure_openai_chat_completion_client": "AzureOpenAIChatCompletionClient",
    "OllamaChatCompletionClient": "OllamaChatCompletionClient",
    "autogen_ext.cache_store.diskcache.DiskCacheStore": "SQLiteCacheStore",
}
# AutoGen's place after our own beginning, as in "tinygen.agents.AssistantAgent"
_ALIASES = {f"{_OWN}{path.partition('.')[2]}": name for path, name in _AUTOGEN.items() if "." in path}

_registered: dict[str, Any] = {}
_provider_of: dict[Any, str] = {}


def register_component(target: T, provider: str | None = None) -> T:
    """Let documents name a class or a function of yours; returns it, so that it can decorate.

    Args:
        target: a component class, a function (of a tool, a condition), or a type of answers.
        provider: its name in documents. Left out, `component_provider_override` of the class, else where it is defined.
    """
    if provider is None:
        provider = _own_name(target)
        if not provider:
            raise ConfigError(f"{target!r} has no name of its own that lasts; pass provider='...'")
    if not callable(target) or type(target).__hash__ is None:
        raise ConfigError(f"register_component takes a class or a function, not {target!r:.80}")
    if provider.startswith(_OWN) or provider in _AUTOGEN:
        raise ConfigError(f"{provider!r} is the name of a component of tinygen; choose another")
    known = _registered.get(provider, target)
    if known != target and _origin(known) != _origin(target):
        raise ConfigError(f"{provider!r} is registered for {known!r} already; choose another name for {target!r}")
    _registered[provider] = target
    _provider_of.setdefault(target, provider)
    return target


def _own_name(target: Any) -> str:
    """The name that the class chose, or else where it or a function is defined; "" if that does not last."""
    chosen = vars(target).get("component_provider_override") if isinstance(target, type) else None
    name: str = chosen or f"{getattr(target, '__module__', '')}.{getattr(target, '__qualname__', '')}"
    return "" if "<" in name or name.startswith(".") or name.endswith(".") else name


def _origin(target: Any) -> tuple[Any, Any]:
    """Where something is defined: a cell of a notebook that is run again defines it again."""
    return getattr(target, "__module__", None), getattr(target, "__qualname__", id(target))


def provider_of(target: Any, path: str) -> str:
    """The name of a class or a function in documents. Raises `EncodeError` with `path` if it has none."""
    try:
        known = _provider_of.get(target)
    except TypeError:  # it cannot be hashed, so it was never registered
        known = None
    if known is not None and _registered[known] == target:  # a method is another object each time it is looked up
        return known
    name = getattr(target, "__name__", "")
    if name in _OURS and _our(name) is target:
        return _OWN + name
    what = getattr(target, "__qualname__", None) or f"a {type(target).__name__}"
    how = "register_component" if _own_name(target) else "register_component(..., provider='...')"
    raise EncodeError(path, f"{what} has no name in documents; register it with {how}")


def find(provider: Any, path: str) -> tuple[Any, bool]:
    """What `provider` names, and whether the name is AutoGen's. Raises `ComponentError` with `path`."""
    if isinstance(provider, str):
        if provider in _registered:
            return _registered[provider], False
        name = provider.removeprefix(_OWN) if provider.startswith(_OWN) else ""
        name = name if name in _OURS else _ALIASES.get(provider) or _AUTOGEN.get(provider, "")
        if name:
            return _our(name), provider in _AUTOGEN
    hint = did_you_mean(f"{provider!s:.80}", [*_registered, *map(_OWN.__add__, _OURS)]) if provider else ""
    hint = hint if hint.startswith("; did you mean") else "; register_component() makes classes and functions known"
    if str(provider).endswith("auth.azure.AzureTokenProvider"):
        hint = "; take it out, and pass azure_ad_token_provider=get_bearer_token_provider(...) of azure-identity"
    raise ComponentError(path, f"{provider!r:.80} is not the name of a component{hint}")


def registered_function(name: Any) -> str:
    """The provider of the one thing registered by this name, whatever module it is in. Raises `ConfigError`."""
    found = {id(it): each for each, it in _registered.items() if name in (each, each.rpartition(".")[2])}
    if len(found) != 1:
        which = "several functions are" if found else "no function is"
        raise ConfigError(f"{which} registered as {name!r:.80}; use register_component")
    return found.popitem()[1]


def class_names() -> Iterator[str]:
    """The names of all that documents may name, without the modules."""
    yield from _OURS
    yield from (it.__name__ for it in _registered.values() if isinstance(it, type))


def _our(name: str) -> Any:
    return getattr(sys.modules[__package__ or ""], name)
