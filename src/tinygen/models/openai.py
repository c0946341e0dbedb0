"""Clients for OpenAI's chat protocol: OpenAI itself, Azure, and every server that speaks the same."""

from __future__ import annotations

import os
from functools import partial

from ..errors import ConfigError
from ..messages import SystemMessage
from .asks import json_instruction
from .base import HTTPChatCompletionClient, checked_headers
from .chat import REASONS, ChatDecoder, decode_response, encode_message, encode_request
from .dialects import DIALECTS, OPENAI
from .keys import base_variable, host_of, known_server, server_at, usable_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
    from typing import Any

    from ..messages import CreateResult, LLMMessage
    from .asks import Ask
    from .keys import TokenProvider
    from .wire import Answer, StreamDecoder

# whose servers have these models: beginning of the name, name of the server
_ROUTES = (("gemini-", "gemini-chat"), ("claude-", "anthropic-chat"), ("Llama-", "llama"))


class OpenAIChatCompletionClient(HTTPChatCompletionClient):
    """A model of OpenAI's, or of any server that speaks its chat protocol.

        client = OpenAIChatCompletionClient(model="gpt-4o-mini")
        local = OpenAIChatCompletionClient(model="qwen3", server="vllm", base_url="http://gpu-box:8000/v1")

    Args:
        model: the name of the model; one that is not known is thought capable of everything.
        api_key: default: the server's environment variable, for OpenAI OPENAI_API_KEY. Servers on this machine or in
            a private network need none; "" says that another server needs none either.
        base_url: with the version, such as "https://api.groq.com/openai/v1"; default that of the `server`, else
            OPENAI_BASE_URL, else OpenAI's, and for gemini-*, claude-* and Llama-* models their maker's.
        server: its name in `COMPATIBLE`, which says its address (a variable such as VLLM_BASE_URL says another), the
            variable of its key, and what it accepts; default: the one at `base_url`.
        organization, project: default OPENAI_ORG_ID and OPENAI_PROJECT_ID.
        add_name_prefixes: begin each user message with who said it.
        include_name_in_message: send who said a message as its `name`; default: where the server takes the field.
        stream_options: of streamed requests; None for servers that refuse the field. They then report no usage.
        options: the other arguments of `HTTPChatCompletionClient`, and further fields of every request: temperature,
            max_tokens, seed, response_format, ...
    """

    provider = "openai"
    _reasons = REASONS
    _variables: Mapping[str, str] = {"api_key": "OPENAI_API_KEY"}
    _path = "/chat/completions"
    _reserved: Sequence[str] = ("stream", "messages", "function_call", "functions")

    def __init__(
        self,
        *,
        model: str,
        api_key: str | None = None,
        base_url: str | None = None,
        organization: str | None = None,
        project: str | None = None,
        server: str | None = None,
        add_name_prefixes: bool = False,
        include_name_in_message: bool | None = None,
        stream_options: Mapping[str, Any] | None = {"include_usage": True},
        **options: Any,
    ) -> None:
        super().__init__(model=model, **options)
        self._parameters = {"model": model, **self._parameters, "stream_options": stream_options}
        self._connect_to(base_url, api_key, server)
        names = self._dialect.names if include_name_in_message is None else include_name_in_message
        self._conversations = self._conversations_by(self._encoding(names, add_name_prefixes))
        for name, value, variable in (
            ("openai-organization", organization, "OPENAI_ORG_ID"),
            ("openai-project", project, "OPENAI_PROJECT_ID"),
        ):
            if value := value or (os.environ.get(variable) if self._at_openai else None):
                self._headers.update(checked_headers({name: value}))

    def _connect_to(self, base_url: str | None, api_key: str | None, server: str | None) -> None:
        if server is None and not base_url and not os.environ.get("OPENAI_BASE_URL"):
            server = next((name for prefix, name in _ROUTES if self._model.startswith(prefix)), "openai")
        url, names, accepts = known_server(server) if server is not None else ("", "", "")
        base_url = base_url or os.environ.get(base_variable(server or "openai")) or url
        host = host_of(base_url)
        if server is None:
            _, names, accepts = server_at(host) or ("", "OPENAI_API_KEY", "chat")
        path, mark, query = base_url.partition("?")
        self._url = path.rstrip("/") + self._path + mark + query
        self._at_openai = host == "api.openai.com"
        if not self._at_openai:
            self.provider = host
        self._dialect = DIALECTS[accepts]
        variables = names.split()
        key = usable_key(self._model, host, api_key, variables)
        self._variables = {"api_key": variables[0]}
        self.key_help = f"Set {variables[0]} or pass api_key to a key that this server accepts."
        if key:
            self._headers["authorization"] = f"Bearer {key}"

    def _encoding(self, names: bool, prefixes: bool) -> Callable[[LLMMessage], str]:
        return partial(encode_message, names=names, prefixes=prefixes, dialect=self._dialect)

    def _body(self, ask: Ask) -> bytes:
        messages = ask.messages
        if ask.json_output and not self._dialect.json_schema:
            messages = [SystemMessage(content=json_instruction(ask.json_output)), *messages]
        _, _, texts = self._conversations.fitted(messages)
        return encode_request(ask, self._parameters, texts, self._dialect, ask.extra.get("model", self._model))

    def _decode(self, data: dict[str, Any]) -> Answer:
        return decode_response(data, self._dialect.thoughts)

    def _decoder(self) -> StreamDecoder:
        return ChatDecoder(self._dialect.thoughts)

    def create_stream(
        self,
        messages: Sequence[LLMMessage],
        *,
        extra_create_args: Mapping[str, Any] = {},
        include_usage: bool | None = None,
        **arguments: Any,
    ) -> AsyncGenerator[str | CreateResult, None]:
        """See `ChatCompletionClient.create_stream`; `include_usage` overrides the client's `stream_options`."""
        if include_usage is not None:
            options = {"include_usage": True} if include_usage else None
            extra_create_args = {**extra_create_args, "stream_options": options}
        return super().create_stream(messages, extra_create_args=extra_create_args, **arguments)


class AzureOpenAIChatCompletionClient(OpenAIChatCompletionClient):
    """A model of OpenAI's in Azure.

    Args:
        azure_endpoint: such as "https://name.openai.azure.com"; default AZURE_OPENAI_ENDPOINT.
        azure_deployment: default `model`.
        api_version: default OPENAI_API_VERSION; without one the `v1` address is used.
        api_key: default AZURE_OPENAI_API_KEY.
        azure_ad_token: instead of a key; default AZURE_OPENAI_AD_TOKEN.
        azure_ad_token_provider: called for each request, gives a token; may be a coroutine function.

    The other arguments are those of `OpenAIChatCompletionClient`.
    """

    provider = "azure"
    _variables = {"api_key": "AZURE_OPENAI_API_KEY", "azure_ad_token": "AZURE_OPENAI_AD_TOKEN"}
    _dialect = OPENAI

    def __init__(
        self,
        *,
        model: str,
        azure_endpoint: str | None = None,
        azure_deployment: str | None = None,
        api_version: str | None = None,
        azure_ad_token: str | None = None,
        azure_ad_token_provider: TokenProvider | None = None,
        **options: Any,
    ) -> None:
        self._endpoint = azure_endpoint or os.environ.get("AZURE_OPENAI_ENDPOINT") or ""
        self._deployment = azure_deployment or model
        self._version = api_version or os.environ.get("OPENAI_API_VERSION")
        self._token = azure_ad_token or os.environ.get("AZURE_OPENAI_AD_TOKEN")
        self._token_provider = azure_ad_token_provider
        if azure_ad_token_provider is not None and not callable(azure_ad_token_provider):
            raise ConfigError(
                f"azure_ad_token_provider must be a function that gives tokens, not {azure_ad_token_provider!r:.200}; "
                "with the package azure-identity, that is get_bearer_token_provider(DefaultAzureCredential(), "
                "'https://cognitiveservices.azure.com/.default')"
            )
        super().__init__(model=model, **options)

    def _connect_to(self, base_url: str | None, api_key: str | None, server: str | None) -> None:
        endpoint = base_url or self._endpoint
        if not endpoint:
            raise ConfigError("azure_endpoint is missing; pass it or set AZURE_OPENAI_ENDPOINT")
        host = host_of(endpoint)
        endpoint = endpoint.rstrip("/").removesuffix("/v1").removesuffix("/openai")
        if "/openai/deployments/" in endpoint:
            self._url = f"{endpoint}{self._path}"
        elif self._version in (None, "v1", "preview"):
            self._url = f"{endpoint}/openai/v1{self._path}"
            self._parameters["model"] = self._deployment  # which is what this address knows models by
        else:
            self._url = f"{endpoint}/openai/deployments/{self._deployment}{self._path}"
        if self._version not in (None, "v1"):
            self._url += f"?api-version={self._version}"
        self._at_openai = False
        self.key_help = "Set AZURE_OPENAI_API_KEY or pass api_key, azure_ad_token or azure_ad_token_provider."
        if not (self._token or self._token_provider):
            key = usable_key(self._model, host, api_key, ["AZURE_OPENAI_API_KEY"])
            self._headers["api-key"] = key
