"""What a model client is, and the request that every client understands."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping

from ..clock import REAL
from ..component import Component
from ..errors import ConfigError, did_you_mean
from ..journal import effect, effect_stream
from ..messages import AssistantMessage, CreateResult, RequestUsage, ThoughtChunk
from ..run import current_scope
from ..telemetry import ambient
from ..usage import sound_price

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
    from typing import Any, Literal, Protocol, TypedDict, TypeVar

    from typing_extensions import NotRequired, Self

    from ..cancellation import CancellationToken
    from ..messages import LLMMessage

    T = TypeVar("T")

    class ModelInfo(TypedDict):
        """What a model can do, and perhaps `price`: what a million tokens cost (see prices.py)."""

        vision: bool
        function_calling: bool
        json_output: bool
        family: str
        structured_output: bool
        multiple_system_messages: NotRequired[bool]
        price: NotRequired[Mapping[str, Any]]

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

    FinishReasons = Literal["stop", "length", "function_calls", "content_filter", "unknown"]

else:
    Protocol = object
    ModelInfo = ToolSchema = ParametersSchema = dict
    FinishReasons = str


_PIECE = re.compile(r"\S+\s*|\s+")


class Tool(Protocol):
    """What an agent or a workbench needs of a tool; a model client only of its `schema`."""

    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def schema(self) -> ToolSchema: ...

    async def run_json(
        self, args: Mapping[str, Any], cancellation_token: CancellationToken | None = None, call_id: str | None = None
    ) -> Any: ...
    def return_value_as_string(self, value: Any) -> str: ...
    async def save_state_json(self) -> Mapping[str, Any]: ...
    async def load_state_json(self, state: Mapping[str, Any]) -> None: ...


if TYPE_CHECKING:
    ToolChoice = Tool | Literal["auto", "required", "none"]


class ChatCompletionClient(Component):
    """A model one can talk to. Derive from it to write a client of your own: `create` and `create_stream` suffice.

    `model_info` says what the model can do. Errors are `ModelError`s.
    """

    component_type = "model"
    renewable = False
    last_answer: tuple[float, Mapping[str, str]] | None = None
    """When the provider last answered, by the clock of the event loop, and the headers of that answer, where known."""

    @property
    def model_info(self) -> ModelInfo:
        """What the model can do; permissive unless a client knows better."""
        return permissive("unknown")

    @property
    def capabilities(self) -> ModelInfo:
        """`model_info`, by the name it had before."""
        return self.model_info

    async def create(
        self,
        messages: Sequence[LLMMessage],
        *,
        tools: Sequence[Tool | ToolSchema] = (),
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
        arguments = _arguments(tools, tool_choice, json_output, extra_create_args)

        def call() -> Awaitable[CreateResult]:
            return self._create(messages, cancellation_token=cancellation_token, **arguments)

        if _is_known(self):
            return await call()
        return await effect("model", _request(messages, arguments), call, CreateResult, **_names(self))

    def create_stream(
        self,
        messages: Sequence[LLMMessage],
        *,
        tools: Sequence[Tool | ToolSchema] = (),
        tool_choice: ToolChoice = "auto",
        json_output: bool | type[Any] | None = None,
        extra_create_args: Mapping[str, Any] = {},
        cancellation_token: CancellationToken | None = None,
    ) -> AsyncGenerator[str | CreateResult, None]:
        """Ask once, and get the text in pieces as it comes; the last item is the whole `CreateResult`."""
        arguments = _arguments(tools, tool_choice, json_output, extra_create_args)

        def stream() -> AsyncGenerator[str | CreateResult, None]:
            return self._create_stream(messages, cancellation_token=cancellation_token, **arguments)

        if _is_known(self):
            return stream()
        return effect_stream(
            "model", _request(messages, arguments), stream, CreateResult, **_names(self), broken=_broken
        )

    # what our own clients define: what `create` and `create_stream` do, once it is told to the run and its listeners

    async def _create(self, messages: Sequence[LLMMessage], **arguments: Any) -> CreateResult:
        raise NotImplementedError(f"{type(self).__name__} must define create()")

    def _create_stream(
        self, messages: Sequence[LLMMessage], **arguments: Any
    ) -> AsyncGenerator[str | CreateResult, None]:
        raise NotImplementedError(f"{type(self).__name__} must define create_stream()")

    async def close(self) -> None:
        """Let go of connections. The client can be used again afterwards."""
        return None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def actual_usage(self) -> RequestUsage:
        """Tokens used so far, without answers from a cache."""
        return self.total_usage()

    def total_usage(self) -> RequestUsage:
        """Tokens used so far."""
        from ..messages import RequestUsage

        return RequestUsage(0, 0)

    def count_tokens(self, messages: Sequence[LLMMessage], *, tools: Sequence[Tool | ToolSchema] = ()) -> int:
        """About how many tokens a request takes; an estimate, made offline (see tokens.py)."""
        from .tokens import estimate_tokens

        return estimate_tokens(messages, tools)

    def remaining_tokens(self, messages: Sequence[LLMMessage], *, tools: Sequence[Tool | ToolSchema] = ()) -> int:
        """About how many tokens are left in the context window beside this request."""
        return 128_000 - self.count_tokens(messages, tools=tools)

    def billing(self) -> tuple[str, Mapping[str, Any] | None]:
        """Under which name calls are counted, and the price: of the `model_info`, or by the name (see prices.py).

        Raises `ConfigError` for a price with which nothing can be counted.
        """
        info, model = self.model_info, getattr(self, "_model", None)
        price = info.get("price")
        if not isinstance(model, str):
            model = info["family"]
        elif price is None:
            from .prices import price_of

            price = price_of(model)
        return model, sound_price(model, price)

    def identity(self) -> dict[str, Any]:
        """What tells the answers of this client from those of another, as JSON data without secrets.

        Caches keep answers under it. By default the class and the arguments of its constructor. An object with an
        argument that is no data is like no other, so what a cache keeps of it is lost with it: define this then.
        """
        from ..blueprints import public_arguments

        settings = public_arguments(self)
        if settings is None:
            settings = {"object": self.__dict__.setdefault("_own_id", REAL.new_id())}
        return {"class": class_name(type(self)), "settings": settings}


def _is_known(client: ChatCompletionClient) -> bool:
    """Whether the model call that begins here is part of an effect already, or nobody would hear of it."""
    scope = current_scope()
    if scope is None:
        return not ambient()
    if scope.inside == "model":
        scope.answered = client.billing()
        return True
    # a synchronous tool may have an event loop of its own, in its thread; the run is not touched from there
    return scope.run.loop is not asyncio._get_running_loop()


def _is_plain(client: ChatCompletionClient) -> bool:
    """Whether to ask this client is no effect here: nobody would hear of it, or its `create` tells of itself."""
    if current_scope() is not None:
        return False
    if not ambient():
        return True
    ours: Any = type(client)
    if ours.create is not ChatCompletionClient.create:  # the user's own, which may have a `_create` too, or one of ours
        ours = next((cls for cls in ours.__mro__ if "_create" in vars(cls)), ChatCompletionClient)
    return ours.create is ChatCompletionClient.create and ours._create is not ChatCompletionClient._create


async def ask(
    client: ChatCompletionClient,
    messages: Sequence[LLMMessage],
    *,
    tools: Sequence[Tool | ToolSchema] = (),
    tool_choice: ToolChoice = "auto",
    json_output: bool | type[Any] | None = None,
    cancellation_token: CancellationToken | None = None,
) -> CreateResult:
    """`client.create` as an effect of the run: limited, recorded, recalled. Agents and selectors ask this way."""
    arguments = _arguments(tools, tool_choice, json_output)

    def call() -> Awaitable[CreateResult]:
        return client.create(messages, cancellation_token=cancellation_token, **arguments)

    if _is_plain(client):
        return await call()
    return await effect("model", _request(messages, arguments), call, CreateResult, **_names(client))


def ask_stream(
    client: ChatCompletionClient,
    messages: Sequence[LLMMessage],
    *,
    tools: Sequence[Tool | ToolSchema] = (),
    tool_choice: ToolChoice = "auto",
    json_output: bool | type[Any] | None = None,
    cancellation_token: CancellationToken | None = None,
) -> AsyncIterator[str | CreateResult]:
    """`client.create_stream` as an effect of the run; the last item is the `CreateResult`."""
    arguments = _arguments(tools, tool_choice, json_output)

    def stream() -> AsyncIterator[str | CreateResult]:
        return client.create_stream(messages, cancellation_token=cancellation_token, **arguments)

    if _is_plain(client):
        return stream()
    return effect_stream("model", _request(messages, arguments), stream, CreateResult, **_names(client), broken=_broken)


def _names(client: ChatCompletionClient) -> dict[str, Any]:
    """What listeners and ledgers know a model by."""
    name, price = client.billing()
    return {"name": name, "price": price}


def will_answer(client: ChatCompletionClient, billed: tuple[str, Any] | None = None) -> None:
    """Count what this model call uses as that of `client`: a wrapper that asks another one is not who answers.

    `billed` is what `answering` said where the answer came from, if that was another model call.
    """
    scope = current_scope()
    if scope is not None and scope.inside == "model":
        scope.answered = billed or client.billing()


def answering() -> tuple[str, Any] | None:
    """As whose answer this model call counts: name and price."""
    scope = current_scope()
    return None if scope is None else scope.answered


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
    for key in ("json_output", "extra_create_args"):
        if key in request:
            request[key] = without_types(request[key], type_name)
    if not isinstance(choice := request.get("tool_choice", ""), str):
        request["tool_choice"] = schema_of(choice)["name"]
    if "tools" in request:
        request["tools"] = [schema_of(tool) for tool in request["tools"]]
    return request


def without_types(value: Any, shown: Callable[[Any], Any]) -> Any:
    """`value` as data: in the place of each type in it stands what `shown` makes of that."""
    if isinstance(value, Mapping):
        return {name: without_types(each, shown) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_types(each, shown) for each in value]
    return shown(value) if isinstance(value, type) or hasattr(value, "__args__") else value


def type_name(kind: Any) -> str:
    """What a type is called; also `list[int]` and `int | str`, which have no name."""
    return str(kind) if hasattr(kind, "__args__") else kind.__name__


def _broken(request: dict[str, Any], items: list[Any]) -> CreateResult:
    """What a stream that broke comes to: it answered a request, and the pieces that had come are to be paid for."""
    if isinstance(items[-1], CreateResult):
        return items[-1]
    from .tokens import estimate_tokens

    text = "".join(item for item in items if isinstance(item, str))
    prompt = estimate_tokens(request["messages"], request.get("tools", ()))
    usage = RequestUsage(prompt, estimate_tokens([AssistantMessage(content=text, source="")]), estimated=True)
    return CreateResult(finish_reason="unknown", content=text, usage=usage, cached=False)


# servers that speak OpenAI's chat protocol: base URL, variables that may hold the key, dialect (see dialects.py)
COMPATIBLE = {
    "openai": ("https://api.openai.com/v1", "OPENAI_API_KEY", "openai"),
    "anthropic-chat": ("https://api.anthropic.com/v1", "ANTHROPIC_API_KEY", "anthropic-chat"),
    "cerebras": ("https://api.cerebras.ai/v1", "CEREBRAS_API_KEY", "cerebras"),
    "deepseek": ("https://api.deepseek.com", "DEEPSEEK_API_KEY", "deepseek"),
    "fireworks": ("https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY", "fireworks"),
    "gemini-chat": (
        "https://generativelanguage.googleapis.com/v1beta/openai",
        "GEMINI_API_KEY GOOGLE_API_KEY",
        "gemini-chat",
    ),
    "github": ("https://models.github.ai/inference", "GITHUB_TOKEN", "chat"),
    "gpustack": ("http://localhost/v1", "GPUSTACK_API_KEY", "local"),
    "groq": ("https://api.groq.com/openai/v1", "GROQ_API_KEY", "groq"),
    "huggingface": ("https://router.huggingface.co/v1", "HF_TOKEN HUGGINGFACE_API_KEY", "chat"),
    "litellm": ("http://localhost:4000/v1", "LITELLM_API_KEY LITELLM_MASTER_KEY", "chat"),
    "llama": ("https://api.llama.com/compat/v1", "LLAMA_API_KEY", "chat"),
    "llamacpp": ("http://localhost:8080/v1", "LLAMACPP_API_KEY", "local"),
    "lmstudio": ("http://localhost:1234/v1", "LMSTUDIO_API_KEY", "local"),
    "mistral": ("https://api.mistral.ai/v1", "MISTRAL_API_KEY", "mistral"),
    "moonshot": ("https://api.moonshot.ai/v1", "MOONSHOT_API_KEY", "moonshot"),
    "nvidia": ("https://integrate.api.nvidia.com/v1", "NVIDIA_API_KEY", "local"),
    "openrouter": ("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY", "openrouter"),
    "perplexity": ("https://api.perplexity.ai", "PERPLEXITY_API_KEY", "perplexity"),
    "qwen": ("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "DASHSCOPE_API_KEY", "chat"),
    "together": ("https://api.together.xyz/v1", "TOGETHER_API_KEY", "together"),
    "vllm": ("http://localhost:8000/v1", "VLLM_API_KEY", "local"),
    "xai": ("https://api.x.ai/v1", "XAI_API_KEY", "xai"),
    "zai": ("https://api.z.ai/api/paas/v4", "ZAI_API_KEY", "zai"),
    "zhipu": ("https://open.bigmodel.cn/api/paas/v4", "ZHIPUAI_API_KEY", "zai"),
}
# providers with a client of their own: module, class
NATIVE = {
    "anthropic": ("anthropic", "AnthropicChatCompletionClient"),
    "azure": ("openai", "AzureOpenAIChatCompletionClient"),
    "bedrock": ("anthropic", "AnthropicBedrockChatCompletionClient"),
    "gemini": ("gemini", "GeminiChatCompletionClient"),
    "ollama": ("ollama", "OllamaChatCompletionClient"),
    "openai": ("openai", "OpenAIChatCompletionClient"),
    "responses": ("responses", "OpenAIResponsesClient"),
    "vertex": ("anthropic", "AnthropicVertexChatCompletionClient"),
}


def create_client(name: str | None = None, **options: Any) -> ChatCompletionClient:
    """The client for "provider:model", such as "openai:gpt-4o-mini", "anthropic:claude-sonnet-4-5" or "groq:qwen3-32b".

    The provider is one of `NATIVE` or `COMPATIBLE`; `name` is by default what the variable TINYGEN_MODEL says.
    `options` are arguments of the client's constructor. Raises `ConfigError` for an unknown provider, and
    `AuthenticationError` naming the environment variable where a key is missing.
    """
    from importlib import import_module

    given = os.environ.get("TINYGEN_MODEL", "") if name is None else name
    provider, _, model = given.partition(":") if isinstance(given, str) else ("", "", "")
    if not provider or not model:
        advice = "; pass one, or set the variable TINYGEN_MODEL to one" if name is None else ""
        raise ConfigError(f"a model is named 'provider:model', such as 'openai:gpt-4o-mini', not {given!r}{advice}")
    if provider not in NATIVE and provider not in COMPATIBLE:
        raise ConfigError(
            f"unknown provider {provider!r}{did_you_mean(provider, {*NATIVE, *COMPATIBLE}, listed=True)}. "
            f"For any other server that speaks OpenAI's protocol: 'openai:{model}' with its base_url."
        )
    if provider not in NATIVE:
        options.setdefault("server", provider)
    module, kind = NATIVE.get(provider, NATIVE["openai"])
    client: ChatCompletionClient = getattr(import_module(f".{module}", __name__), kind)(model=model, **options)
    return client


def class_name(cls: type) -> str:
    """Where a class is defined, whatever this copy of the package is called."""
    return f"{cls.__module__.removeprefix(__package__.rpartition('.')[0])}.{cls.__qualname__}"


def pieces_of(result: CreateResult) -> Iterator[str]:
    """What a stream of this answer shows, word by word."""
    if result.thought:
        yield ThoughtChunk(result.thought)
    if isinstance(result.content, str):
        yield from _PIECE.findall(result.content)


async def cancellable(awaitable: Awaitable[T], token: CancellationToken | None) -> T:
    """What it gives; the token cancels it."""
    if token is None:
        return await awaitable
    return await token.link_future(asyncio.ensure_future(awaitable))


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


def schema_of(tool: Tool | ToolSchema) -> ToolSchema:
    """The schema of a tool given as an object or as its schema. Raises `ConfigError` for what is neither."""
    schema = tool if isinstance(tool, dict) else getattr(tool, "schema", None)
    if not isinstance(schema, dict) or not isinstance(schema.get("name"), str):
        raise ConfigError(f"expected a tool, or the schema of one with its name, not {tool!r:.200}")
    return schema  # type: ignore[return-value]
