"""What a model client is, and the request that every client understands."""

from __future__ import annotations

import asyncio

from ..component import Component
from ..errors import ConfigError, did_you_mean
from ..journal import effect, effect_stream
from ..messages import CreateResult
from ..run import current_scope
from ..telemetry import ambient

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
    from typing import Any, Literal, Protocol, TypedDict

    from typing_extensions import NotRequired

    from ..cancellation import CancellationToken
    from ..messages import LLMMessage, RequestUsage

    class ModelInfo(TypedDict):
        """What a model can do, and `price`: what a million `prompt` and `completion` tokens cost."""

        vision: bool
        function_calling: bool
        json_output: bool
        family: str
        structured_output: bool
        multiple_system_messages: NotRequired[bool]
        price: NotRequired[dict[str, float]]

    class ParametersSchema(TypedDict):
        """JSON Schema of a tool's arguments, always an object."""

        type: str
        properties: dict[str, Any]
        required: NotRequired[Sequence[str]]
        additionalProperties: NotRequired[bool]

    class ToolSchema(TypedDict):
        """A tool as a model sees it."""

        name: str
        description: NotRequired[str]
        parameters: NotRequired[ParametersSchema]
        strict: NotRequired[bool]

    class HasSchema(Protocol):
        """Anything that can stand in `tools`: an object with a name and a `schema`."""

        @property
        def name(self) -> str: ...
        @property
        def schema(self) -> ToolSchema: ...

    ToolChoice = HasSchema | Literal["auto", "required", "none"]

else:
    Protocol = object
    ModelInfo = ToolSchema = ParametersSchema = dict


class ChatCompletionClient(Component):
    """A model one can talk to. Derive from it to write a client of your own: `create` and `create_stream` suffice.

    `model_info` says what the model can do. Errors are `ModelError`s.
    """

    component_type = "model"
    renewable = False

    @property
    def model_info(self) -> ModelInfo:
        """What the model can do; permissive unless a client knows better."""
        return permissive("unknown")

    async def create(
        self,
        messages: Sequence[LLMMessage],
        *,
        tools: Sequence[HasSchema | ToolSchema] = (),
        tool_choice: ToolChoice = "auto",
        json_output: bool | type[Any] | None = None,
        extra_create_args: Mapping[str, Any] = {},
        cancellation_token: CancellationToken | None = None,
    ) -> CreateResult:
        """Ask once.

        Args:
            messages: the conversation, oldest first.
            tools: what the model may call.
            tool_choice: "auto", "required", "none", or the one tool to call.
            json_output: True for any JSON, a type for JSON of its schema.
            extra_create_args: further fields of the provider's request.
            cancellation_token: stops the call; it then raises `asyncio.CancelledError`.
        """
        raise NotImplementedError

    def create_stream(
        self,
        messages: Sequence[LLMMessage],
        *,
        tools: Sequence[HasSchema | ToolSchema] = (),
        tool_choice: ToolChoice = "auto",
        json_output: bool | type[Any] | None = None,
        extra_create_args: Mapping[str, Any] = {},
        cancellation_token: CancellationToken | None = None,
    ) -> AsyncGenerator[str | CreateResult, None]:
        """Ask once, and get the text in pieces as it comes; the last item is the whole `CreateResult`."""
        raise NotImplementedError

    async def close(self) -> None:
        """Let go of connections. The client can be used again afterwards."""
        return None

    def actual_usage(self) -> RequestUsage:
        """Tokens used so far, without answers from a cache."""
        return self.total_usage()

    def total_usage(self) -> RequestUsage:
        """Tokens used so far."""
        from ..messages import RequestUsage

        return RequestUsage(0, 0)

    def count_tokens(self, messages: Sequence[LLMMessage], *, tools: Sequence[HasSchema | ToolSchema] = ()) -> int:
        """About how many tokens a request takes; an estimate, made offline."""
        return estimate_tokens(messages, tools)

    def remaining_tokens(self, messages: Sequence[LLMMessage], *, tools: Sequence[HasSchema | ToolSchema] = ()) -> int:
        """About how many tokens are left in the context window beside this request."""
        return 128_000 - self.count_tokens(messages, tools=tools)


class ObservedClient(ChatCompletionClient):
    """Base of our own clients: each call is an effect of its run, and told to listeners, by whomever it is made.

    A subclass defines `_create` and `_create_stream`, which take what `create` and `create_stream` do.
    """

    async def create(
        self,
        messages: Sequence[LLMMessage],
        *,
        tools: Sequence[HasSchema | ToolSchema] = (),
        tool_choice: ToolChoice = "auto",
        json_output: bool | type[Any] | None = None,
        extra_create_args: Mapping[str, Any] = {},
        cancellation_token: CancellationToken | None = None,
    ) -> CreateResult:
        arguments = _arguments(tools, tool_choice, json_output, extra_create_args)

        async def call() -> CreateResult:
            return await self._create(messages, cancellation_token=cancellation_token, **arguments)

        if _is_known():
            return await call()
        return await effect("model", _request(messages, arguments), call, CreateResult, **_names(self))

    def create_stream(
        self,
        messages: Sequence[LLMMessage],
        *,
        tools: Sequence[HasSchema | ToolSchema] = (),
        tool_choice: ToolChoice = "auto",
        json_output: bool | type[Any] | None = None,
        extra_create_args: Mapping[str, Any] = {},
        cancellation_token: CancellationToken | None = None,
    ) -> AsyncGenerator[str | CreateResult, None]:
        arguments = _arguments(tools, tool_choice, json_output, extra_create_args)

        def stream() -> AsyncGenerator[str | CreateResult, None]:
            return self._create_stream(messages, cancellation_token=cancellation_token, **arguments)

        if _is_known():
            return stream()
        return effect_stream("model", _request(messages, arguments), stream, CreateResult, **_names(self))

    async def _create(self, messages: Sequence[LLMMessage], **arguments: Any) -> CreateResult:
        raise NotImplementedError

    def _create_stream(
        self, messages: Sequence[LLMMessage], **arguments: Any
    ) -> AsyncGenerator[str | CreateResult, None]:
        raise NotImplementedError


def _is_known() -> bool:
    """Whether the model call that begins here is part of an effect already, or nobody would hear of it."""
    scope = current_scope()
    if scope is None:
        return not ambient()
    # a synchronous tool may have an event loop of its own, in its thread; the run is not touched from there
    return scope.inside == "model" or scope.run.task.get_loop() is not asyncio._get_running_loop()


def _tells(client: ChatCompletionClient) -> bool:
    """Whether an effect here would be told of twice."""
    return isinstance(client, ObservedClient) and current_scope() is None


async def ask(
    client: ChatCompletionClient,
    messages: Sequence[LLMMessage],
    *,
    tools: Sequence[HasSchema | ToolSchema] = (),
    tool_choice: ToolChoice = "auto",
    json_output: bool | type[Any] | None = None,
    cancellation_token: CancellationToken | None = None,
) -> CreateResult:
    """`client.create` as an effect of the run: limited, recorded, recalled. Agents and selectors ask this way."""
    arguments = _arguments(tools, tool_choice, json_output)

    async def call() -> CreateResult:
        return await client.create(messages, cancellation_token=cancellation_token, **arguments)

    if _tells(client):
        return await call()
    return await effect("model", _request(messages, arguments), call, CreateResult, **_names(client))


def ask_stream(
    client: ChatCompletionClient,
    messages: Sequence[LLMMessage],
    *,
    tools: Sequence[HasSchema | ToolSchema] = (),
    tool_choice: ToolChoice = "auto",
    json_output: bool | type[Any] | None = None,
    cancellation_token: CancellationToken | None = None,
) -> AsyncIterator[str | CreateResult]:
    """`client.create_stream` as an effect of the run; the last item is the `CreateResult`."""
    arguments = _arguments(tools, tool_choice, json_output)

    def stream() -> AsyncIterator[str | CreateResult]:
        return client.create_stream(messages, cancellation_token=cancellation_token, **arguments)

    if _tells(client):
        return stream()
    return effect_stream("model", _request(messages, arguments), stream, CreateResult, **_names(client))


def _names(client: ChatCompletionClient) -> dict[str, Any]:
    """What listeners and ledgers know a model by."""
    info = client.model_info
    return {"name": info["family"], "price": info.get("price")}


def _arguments(
    tools: Sequence[Any], tool_choice: Any, json_output: Any, extra: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The arguments that say something; a client of the user's need not know the others."""
    arguments: dict[str, Any] = {}
    if tools:
        arguments["tools"] = tools
    if tool_choice != "auto":
        arguments["tool_choice"] = tool_choice
    if json_output is not None:
        arguments["json_output"] = json_output
    if extra:
        arguments["extra_create_args"] = extra
    return arguments


def _request(messages: Sequence[LLMMessage], arguments: dict[str, Any]) -> dict[str, Any]:
    """What tells one model call from another, in terms the codec can encode."""
    request = {**arguments, "messages": messages}
    for key, value in request.items():
        if isinstance(value, type):
            request[key] = value.__name__
    if not isinstance(choice := request.get("tool_choice", ""), str):
        request["tool_choice"] = schema_of(choice)["name"]
    if "tools" in request:
        request["tools"] = [schema_of(tool) for tool in request["tools"]]
    return request


# servers that speak OpenAI's chat protocol: base URL, and the environment variable that holds the key
COMPATIBLE = {
    "deepseek": ("https://api.deepseek.com", "DEEPSEEK_API_KEY"),
    "fireworks": ("https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY"),
    "groq": ("https://api.groq.com/openai/v1", "GROQ_API_KEY"),
    "lmstudio": ("http://localhost:1234/v1", ""),
    "mistral": ("https://api.mistral.ai/v1", "MISTRAL_API_KEY"),
    "ollama": ("http://localhost:11434/v1", ""),
    "openrouter": ("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    "together": ("https://api.together.xyz/v1", "TOGETHER_API_KEY"),
    "vllm": ("http://localhost:8000/v1", ""),
    "xai": ("https://api.x.ai/v1", "XAI_API_KEY"),
}


def create_client(name: str, **options: Any) -> ChatCompletionClient:
    """The client for "provider:model", such as "openai:gpt-4o-mini" or "ollama:llama3.2".

    `options` are arguments of the client's constructor. Raises `ConfigError` for an unknown provider, and
    `AuthenticationError` naming the environment variable where a key is missing.
    """
    from .openai import OpenAIChatCompletionClient

    provider, colon, model = name.partition(":")
    if not colon or not model:
        raise ConfigError(f"a model is named 'provider:model', such as 'openai:gpt-4o-mini', not {name!r}")
    if provider == "openai":
        return OpenAIChatCompletionClient(model=model, **options)
    if provider not in COMPATIBLE:
        raise ConfigError(f"unknown provider {provider!r}{did_you_mean(provider, ['openai', *COMPATIBLE])}")
    options.setdefault("base_url", COMPATIBLE[provider][0])
    return OpenAIChatCompletionClient(model=model, **options)


def permissive(family: str) -> ModelInfo:
    """The `ModelInfo` of a model nothing is known about: it can do everything."""
    return {
        "vision": True,
        "function_calling": True,
        "json_output": True,
        "family": family,
        "structured_output": True,
        "multiple_system_messages": True,
    }


def schema_of(tool: HasSchema | ToolSchema) -> ToolSchema:
    """The schema of a tool given as an object or as its schema. Raises `ConfigError` for what is neither."""
    schema = tool if isinstance(tool, dict) else getattr(tool, "schema", None)
    if not isinstance(schema, dict) or not isinstance(schema.get("name"), str):
        raise ConfigError(f"expected a tool, or the schema of one with its name, not {tool!r:.200}")
    return schema  # type: ignore[return-value]


def estimate_tokens(messages: Sequence[LLMMessage], tools: Sequence[HasSchema | ToolSchema] = ()) -> int:
    """A guess that needs no vocabulary: a token for four bytes of UTF-8, one per CJK character, four per message."""
    import json

    total = 0
    for message in messages:
        total += 4 + _text_tokens(message.content)
        total += _text_tokens(getattr(message, "thought", None))
    for tool in tools:
        total += len(json.dumps(schema_of(tool))) // 4
    return total


def _text_tokens(content: Any) -> int:
    if content is None:
        return 0
    if isinstance(content, str):
        wide = sum(1 for c in content if "\u2e80" <= c <= "\uffdf") if not content.isascii() else 0
        return wide + (len(content.encode("utf-8", "replace")) - 3 * wide + 3) // 4
    if isinstance(content, list):
        return sum(_text_tokens(part) for part in content)
    if hasattr(content, "arguments"):
        return 4 + _text_tokens(content.name) + _text_tokens(content.arguments)
    if hasattr(content, "call_id"):
        return 4 + _text_tokens(content.content)
    return 765  # a picture, as OpenAI counts a 1024 x 1024 one in high detail
