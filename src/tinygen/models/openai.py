"""OpenAI's chat protocol: OpenAI itself, Azure, and every server that speaks the same, by its `base_url`.

`encode_message`, `encode_request`, `decode_response` and `ChatDecoder` do no I/O; the clients at the end are glue.
"""

from __future__ import annotations

import json
import os
import re
from ipaddress import ip_address

from .. import codec
from ..errors import AuthenticationError, ConfigError, ProtocolError
from ..messages import (
    AssistantMessage,
    ChatCompletionTokenLogprob,
    FunctionCall,
    FunctionExecutionResultMessage,
    Image,
    SystemMessage,
    TopLogprob,
    UserMessage,
)
from . import COMPATIBLE
from .base import HEADERS, HTTPChatCompletionClient, checked_headers
from .families import checked_info, known_info, window
from .wire import (
    Answer,
    MessageTexts,
    Request,
    StreamDecoder,
    clean,
    expect,
    number,
    parse,
    raise_error_in,
    short,
    shown,
    strict_schema,
    written,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
    from typing import Any

    from ..cancellation import CancellationToken
    from ..messages import CreateResult, LLMMessage
    from . import HasSchema, ModelInfo, ToolChoice, ToolSchema
    from .wire import Ask, Reason

REASONS: Mapping[str, Reason] = {
    "stop": "stop",
    "eos": "stop",
    "length": "length",
    "model_length": "length",
    "tool_calls": "function_calls",
    "function_call": "function_calls",
    "content_filter": "content_filter",
}
RESERVED = ("stream", "messages", "function_call", "functions", "n")  # of the request: the client's own business

# where models live that are not OpenAI's: beginning of the name, base URL, variable of the key
_ROUTES = (
    ("gemini-", "https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY"),
    ("claude-", "https://api.anthropic.com/v1", "ANTHROPIC_API_KEY"),
    ("Llama-", "https://api.llama.com/compat/v1", "LLAMA_API_KEY"),
)

_dumps = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


# --- requests


def encode_message(message: LLMMessage, names: bool = True, prefixes: bool = False) -> str:
    """A message as JSON text; the results of several calls are several objects, with commas between.

    Args:
        names: send who said it as `name`.
        prefixes: begin a user's text with who said it.
    """
    if isinstance(message, FunctionExecutionResultMessage):
        return ",".join(
            _dumps({"role": "tool", "content": result.content, "tool_call_id": result.call_id})
            for result in _checked(message.content, list, message)
        )
    if isinstance(message, SystemMessage):
        return _dumps({"role": "system", "content": _checked(message.content, str, message)})
    data: dict[str, Any]
    if isinstance(message, UserMessage):
        data = {"role": "user", "content": _user_content(message, prefixes)}
    elif isinstance(message, AssistantMessage):
        data = _assistant(message)
    else:
        raise ConfigError(f"{message!r} is not a message for a model; give a System, User or AssistantMessage")
    if names and (name := re.sub(r"[^a-zA-Z0-9_-]", "_", _checked(message.source, str, message))[:64]):
        data["name"] = name
    return _dumps(data)


def _checked(value: Any, kind: type[Any], message: LLMMessage) -> Any:
    if isinstance(value, kind):
        return value
    raise ConfigError(f"a {type(message).__name__} holds {short(value)}; expected {kind.__name__}")


def _user_content(message: UserMessage, prefixes: bool) -> str | list[dict[str, Any]]:
    prefix = f"{message.source} said:\n" if prefixes else ""
    if isinstance(message.content, str):
        return prefix + message.content
    parts: list[dict[str, Any]] = []
    for part in _checked(message.content, list, message):
        if isinstance(part, str):
            parts.append({"type": "text", "text": prefix + part})
            prefix = ""
        else:
            parts.append(_checked(part, Image, message).to_openai_format())
    return [{"type": "text", "text": prefix}, *parts] if prefix else parts


def _assistant(message: AssistantMessage) -> dict[str, Any]:
    if isinstance(message.content, str):
        return {"role": "assistant", "content": message.content}
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in _checked(message.content, list, message)
    ]
    return {"role": "assistant", "content": message.thought, "tool_calls": calls}


def encode_request(ask: Ask, parameters: Mapping[str, Any], texts: Iterable[str]) -> bytes:
    """The body of a request; `texts` are the encoded messages, `parameters` the client's own fields."""
    fields = dict(parameters)
    if ask.tools:
        fields["tools"] = [_tool(tool) for tool in ask.tools]
        if isinstance(ask.choice, dict):
            fields["tool_choice"] = {"type": "function", "function": {"name": ask.choice["name"]}}
        elif ask.choice != "auto":
            fields["tool_choice"] = ask.choice
    else:
        fields.pop("parallel_tool_calls", None)  # refused where there are no tools
    if ask.json_output:
        fields["response_format"] = response_format(ask.json_output)
    fields.update(ask.extra)
    if isinstance(form := fields.get("response_format"), type):
        fields["response_format"] = response_format(form)
    if ask.stream:
        fields["stream"] = True
    if not ask.stream or fields.get("stream_options") is None:
        fields.pop("stream_options", None)
    try:
        head = _dumps(fields)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"an argument of the request cannot be written as JSON: {error}") from error
    body = f'{head[:-1]},"messages":[{",".join(filter(None, texts))}]}}'
    try:
        return body.encode()
    except UnicodeEncodeError:
        return clean(body).encode()


def _tool(schema: ToolSchema) -> dict[str, Any]:
    function: dict[str, Any] = {"name": schema["name"]}
    if description := schema.get("description"):
        function["description"] = description
    function["parameters"] = schema.get("parameters", {"type": "object", "properties": {}})
    if schema.get("strict"):
        function["parameters"], function["strict"] = strict_schema(function["parameters"])
    return {"type": "function", "function": function}


def response_format(output: bool | type[Any]) -> dict[str, Any]:
    """What holds the model to JSON (True), or to the schema of a type whose values are objects."""
    if isinstance(output, bool):
        return {"type": "json_object"}
    schema, strict = strict_schema(codec.schema(output))
    if schema.get("type") != "object":  # the protocol takes no other schema; what comes is checked by who asked
        return {"type": "json_object"}
    name = re.sub(r"[^a-zA-Z0-9_-]", "_", getattr(output, "__name__", "answer"))[:64]
    return {"type": "json_schema", "json_schema": {"name": name, "schema": schema, "strict": strict}}


# --- answers


def decode_response(data: dict[str, Any]) -> Answer:
    """The answer in a whole body. Raises `ProtocolError`; `ModelError` if the body reports an error."""
    if _is_error(data):
        raise_error_in(data)
    choices = expect(data.get("choices"), list, "choices")
    if not choices:
        raise ProtocolError(f"the answer holds no choices, only {', '.join(map(repr, data)) or 'nothing'}")
    choices = [expect(choice, dict, "a choice") or {} for choice in choices]
    choice = next((choice for choice in choices if _index(choice) == 0), None)
    if choice is None:
        raise ProtocolError("the answer holds no choice with index 0")
    message = expect(choice.get("message"), dict, "message")
    if not message:
        if not choice.get("finish_reason") or (message is None and choice["finish_reason"] != "content_filter"):
            raise ProtocolError("the answer's first choice holds no message")
        message = {}
    calls = expect(message.get("tool_calls"), list, "tool_calls") or []
    message = {
        **message,
        "tool_calls": [{**(expect(c, dict, "a call") or {}), "index": i} for i, c in enumerate(calls)],
    }
    decoder = ChatDecoder()
    decoder.take_usage(data)
    decoder.take({**choice, "delta": message})
    decoder.complete = True
    decoder.end()
    return decoder.whole()


def _index(choice: dict[str, Any]) -> int:
    """Which of several answers a choice belongs to; 0 if it does not say."""
    index: Any = choice.get("index")
    if index is not None and index.__class__ is not int:
        raise ProtocolError(f"the answer does not follow the protocol: the index of a choice is {short(index)}")
    return index or 0


def _is_error(data: dict[str, Any]) -> bool:
    return bool(data.get("error")) or data.get("object") == "error"


class ChatDecoder(StreamDecoder):
    """Puts an answer together from the chunks of a stream. Only the first choice counts."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: list[_Call] = []
        self._begun = False

    def feed(self, event: str, data: str) -> str:
        """Take one chunk in; returns the text it adds. Raises `ModelError`."""
        if self.done or not data or data.isspace():
            return ""
        if data[0] != "{" and data.strip() == "[DONE]":
            if not self._begun:
                raise ProtocolError("the stream ended before any piece of an answer came")
            self.done = self.complete = True
            return ""
        if event == "error" and data.lstrip()[:1] != "{":
            raise_error_in(data)
        try:
            chunk = parse(data, "an event of the stream")
        except ProtocolError:
            if event in ("", "message", "error"):
                raise
            return ""  # a sign of life, or some other news for somebody else
        if "usage" in chunk or "x_groq" in chunk:
            self.take_usage(chunk)
        if event == "error" or _is_error(chunk):
            raise_error_in(chunk)
        said = ""
        choices = expect(chunk.get("choices"), list, "choices")
        self._begun = self._begun or choices is not None
        for choice in choices or ():
            if not isinstance(choice, dict):
                raise ProtocolError(f"the answer does not follow the protocol: a choice is {short(choice)}")
            if not _index(choice):
                said += self.take(choice)
        return said

    def take(self, choice: dict[str, Any]) -> str:
        """Take the delta of a choice in; returns the text it adds."""
        self._begun = True
        delta = expect(choice.get("delta"), dict, "delta") or {}
        said = ""
        content = delta.get("content")
        if content:
            said = self._say(content) if content.__class__ is str else self._parts(content)
        if len(delta) > 1 or "content" not in delta:
            said += self._rarities(delta)
        if choice.get("logprobs"):
            self._logprobs(choice["logprobs"])
        reason = choice.get("finish_reason")
        if reason:
            self.answer.finish = reason if isinstance(reason, str) else "unknown"
            self.complete = True
        return said

    def take_usage(self, data: dict[str, Any]) -> None:
        """Note the tokens that a chunk or a body reports; the last report counts."""
        usage = data.get("usage")
        if not usage and isinstance(groq := data.get("x_groq"), dict):
            usage = groq.get("usage")
        if not isinstance(usage, dict):
            return
        counts = {
            key: number(usage[key]) for key in ("prompt_tokens", "completion_tokens", "total_tokens") if key in usage
        }
        for details, key in (
            ("prompt_tokens_details", "cached_tokens"),
            ("completion_tokens_details", "reasoning_tokens"),
        ):
            inner = usage.get(details)
            if isinstance(inner, dict) and key in inner:
                counts[key] = number(inner[key])
        self.answer.usage = counts

    def whole(self) -> Answer:
        """The answer, once the stream is over. Raises `ProtocolError` for a call without a name."""
        answer = super().whole()
        answer.calls = [call.whole() for call in sorted(self._calls, key=lambda call: call.index)]
        return answer

    def _rarities(self, delta: dict[str, Any]) -> str:
        """What few deltas hold: thinking, a refusal, calls. Returns the text it adds."""
        self._think(delta.get("reasoning_content") or delta.get("reasoning"))
        if calls := expect(delta.get("tool_calls"), list, "tool_calls"):
            for call in calls:
                self._call(expect(call, dict, "a tool call") or {})
        elif isinstance(old := delta.get("function_call"), dict):
            self._call({"index": 0, "function": old})
        if refusal := expect(delta.get("refusal"), str, "refusal"):
            return self._say(refusal)
        return ""

    def _parts(self, content: Any) -> str:
        """Content given as a list of parts."""
        said = ""
        for part in expect(content, list, "content"):
            part = expect(part, dict, "a part of the content") or {}
            if part.get("type") == "thinking":
                for piece in expect(part.get("thinking"), list, "thinking") or ():
                    self._think((expect(piece, dict, "a thought") or {}).get("text"))
            elif text := expect(part.get("text"), str, "text"):
                said += self._say(text)
        return said

    def _call(self, item: dict[str, Any]) -> None:
        """Add a fragment to the call it belongs to.

        That is the one with its index; where servers give none, or the same one to several calls, a new id tells that
        a new call begins, or another name, or further arguments after whole ones. An id that changes in mid-call,
        without a name, means nothing.
        """
        index = item.get("index")
        if index is not None and (not isinstance(index, int) or isinstance(index, bool)):
            raise ProtocolError(f"the answer does not follow the protocol: the index of a tool call is {short(index)}")
        function = expect(item.get("function"), dict, "function") or {}
        name = expect(function.get("name"), str, "the name of a tool") or ""
        given = item.get("id")
        identity = str(given) if isinstance(given, (str, int)) else ""
        same = [call for call in self._calls if call.index == index] if index is not None else self._calls
        call = same[-1] if same else None
        if (
            call is None
            or (name and identity and identity != call.id and call.name)
            or (name and call.begun and name != call.name)
            or (index is None and name and not identity)
            or ((name or identity not in ("", call.id)) and function.get("arguments") and call.came_whole())
        ):
            last = max((call.index for call in self._calls), default=-1)
            call = _Call(last + 1 if index is None else index)
            self._calls.append(call)
        call.add(identity, name, function.get("arguments"))

    def _logprobs(self, logprobs: Any) -> None:
        content = logprobs.get("content") if isinstance(logprobs, dict) else None
        if isinstance(content, list):
            read = [_token(token) for token in content if _has_logprob(token)]
            self.answer.logprobs = (self.answer.logprobs or []) + read


class _Call:
    """A tool call under way."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.id = ""
        self.name = ""
        self._arguments: list[str] = []

    def add(self, identity: str, name: str, arguments: Any) -> None:
        self.id = self.id or identity
        if name and name != self.name and not self._arguments:
            self.name += name
        if isinstance(arguments, (dict, list)):
            arguments = written(arguments, "the arguments of a tool call")
        if expect(arguments, str, "the arguments of a tool call"):
            self._arguments.append(arguments)

    @property
    def begun(self) -> bool:
        """Whether some of the arguments came."""
        return bool(self._arguments)

    def came_whole(self) -> bool:
        """Whether the arguments came in one piece: only servers that send so give several calls one index."""
        try:
            return len(self._arguments) == 1 and isinstance(json.loads(self._arguments[0]), dict)
        except (ValueError, RecursionError):
            return False

    def whole(self) -> FunctionCall:
        if not self.name:
            raise ProtocolError(f"the answer does not follow the protocol: tool call {self.id!r} names no tool")
        return FunctionCall(id=clean(self.id), arguments=clean("".join(self._arguments)), name=clean(self.name))


def _has_logprob(token: Any) -> bool:
    value = token.get("logprob") if isinstance(token, dict) else None
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -1e300 < value < 1e300


def _bytes(token: dict[str, Any]) -> list[int] | None:
    value = token.get("bytes")
    fits = isinstance(value, list) and all(each.__class__ is int and 0 <= each < 256 for each in value)
    return value if fits else None


def _token(token: dict[str, Any]) -> ChatCompletionTokenLogprob:
    top = token.get("top_logprobs")
    return ChatCompletionTokenLogprob(
        token=clean(str(token.get("token", ""))),
        logprob=token["logprob"],
        top_logprobs=[TopLogprob(each["logprob"], _bytes(each)) for each in top if _has_logprob(each)]
        if isinstance(top, list)
        else None,
        bytes=_bytes(token),
    )


# --- clients


class OpenAIChatCompletionClient(HTTPChatCompletionClient):
    """A model of OpenAI's, or of any server that speaks its chat protocol.

        client = OpenAIChatCompletionClient(model="gpt-4o-mini")
        local = OpenAIChatCompletionClient(model="llama3.2", base_url="http://localhost:11434/v1")

    Args:
        model: the name of the model; one that is not known is thought capable of everything.
        api_key: default: the server's environment variable, for OpenAI OPENAI_API_KEY. Servers on this machine or in
            a private network need none; "" says that another server needs none either.
        base_url: with the version, such as "https://api.groq.com/openai/v1"; default OPENAI_BASE_URL, else OpenAI's,
            and for gemini-*, claude-* and Llama-* models their maker's.
        organization, project: default OPENAI_ORG_ID and OPENAI_PROJECT_ID.
        model_info: what the model can do, where the name does not tell.
        add_name_prefixes: begin each user message with who said it.
        include_name_in_message: send who said a message as its `name`; some servers refuse the field.
        stream_options: of streamed requests; None for servers that refuse the field. They then report no usage.
        parameters: further fields of every request: temperature, max_tokens, seed, response_format, ...

    The other arguments are those of `HTTPChatCompletionClient`.
    """

    provider = "openai"
    _reasons = REASONS
    _key_variable = "OPENAI_API_KEY"

    def __init__(
        self,
        *,
        model: str,
        api_key: str | None = None,
        base_url: str | None = None,
        organization: str | None = None,
        project: str | None = None,
        model_info: ModelInfo | None = None,
        add_name_prefixes: bool = False,
        include_name_in_message: bool = True,
        stream_options: Mapping[str, Any] | None = {"include_usage": True},
        timeout: float | None = 600.0,
        read_timeout: float | None = None,
        connect_timeout: float = 5.0,
        max_retries: int = 2,
        max_retry_wait: float = 60.0,
        default_headers: Mapping[str, str] | None = None,
        http_client: Any = None,
        _waiting: Any = None,
        **parameters: Any,
    ) -> None:
        super().__init__(
            model=model,
            model_info=known_info(model) if model_info is None else checked_info(model_info),
            timeout=timeout,
            read_timeout=read_timeout,
            connect_timeout=connect_timeout,
            max_retries=max_retries,
            max_retry_wait=max_retry_wait,
            default_headers=default_headers,
            http_client=http_client,
            _waiting=_waiting,
        )
        parameters.pop("model_capabilities", None)  # AutoGen's, deprecated there
        _refuse_reserved(parameters)
        self._parameters = {"model": model, **parameters, "stream_options": stream_options}
        self._texts = MessageTexts(lambda message: encode_message(message, include_name_in_message, add_name_prefixes))
        self._connect_to(base_url, api_key)
        for name, value, variable in (
            ("openai-organization", organization, "OPENAI_ORG_ID"),
            ("openai-project", project, "OPENAI_PROJECT_ID"),
        ):
            if value := value or (os.environ.get(variable) if self._at_openai else None):
                self._headers.update(checked_headers({name: value}))

    def _connect_to(self, base_url: str | None, api_key: str | None) -> None:
        route = next((route for route in _ROUTES if self._model.startswith(route[0])), None)
        base_url = base_url or os.environ.get("OPENAI_BASE_URL") or (route[1] if route else "https://api.openai.com/v1")
        host = _host(base_url)
        path, mark, query = base_url.partition("?")
        self._url = path.rstrip("/") + "/chat/completions" + mark + query
        self._at_openai = host == "api.openai.com"
        if not self._at_openai:
            self.provider = host
        own = [(url, variable) for url, variable in COMPATIBLE.values()] + [(url, key) for _, url, key in _ROUTES]
        variables = [variable for url, variable in own if variable and _host(url) == host]
        variables = variables or ["OPENAI_API_KEY"]  # which a known host of somebody else is never sent
        key = _usable_key(self._model, host, api_key, variables)
        self._key_variable = variables[0]
        self.key_help = f"Set {variables[0]} or pass api_key to a key that this server accepts."
        self._headers = dict(HEADERS)
        if key:
            self._headers["authorization"] = f"Bearer {key}"

    def _secret_variable(self, argument: str) -> str:
        return self._key_variable if argument == "api_key" else super()._secret_variable(argument)

    async def _authorization(self) -> dict[str, str]:
        return {}

    async def _request(self, ask: Ask) -> Request:
        _refuse_reserved(ask.extra)
        body = encode_request(ask, self._parameters, self._texts.texts(ask.messages))
        headers = {**self._headers, **await self._authorization(), **self._default_headers}
        return Request(self._url, headers, body)

    def _decode(self, data: dict[str, Any]) -> Answer:
        return decode_response(data)

    def _decoder(self) -> StreamDecoder:
        return ChatDecoder()

    def create_stream(
        self,
        messages: Sequence[LLMMessage],
        *,
        tools: Sequence[HasSchema | ToolSchema] = (),
        tool_choice: ToolChoice = "auto",
        json_output: bool | type[Any] | None = None,
        extra_create_args: Mapping[str, Any] = {},
        cancellation_token: CancellationToken | None = None,
        include_usage: bool | None = None,
    ) -> AsyncGenerator[str | CreateResult, None]:
        """See `ChatCompletionClient.create_stream`; `include_usage` overrides the client's `stream_options`."""
        if include_usage is not None:
            options = {"include_usage": True} if include_usage else None
            extra_create_args = {**extra_create_args, "stream_options": options}
        return super().create_stream(
            messages,
            tools=tools,
            tool_choice=tool_choice,
            json_output=json_output,
            extra_create_args=extra_create_args,
            cancellation_token=cancellation_token,
        )

    def remaining_tokens(self, messages: Sequence[LLMMessage], *, tools: Sequence[HasSchema | ToolSchema] = ()) -> int:
        """About how many tokens are left in the context window beside this request."""
        return window(self._model) - self.count_tokens(messages, tools=tools)


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
    _key_variable = "AZURE_OPENAI_API_KEY"

    def __init__(
        self,
        *,
        model: str,
        azure_endpoint: str | None = None,
        azure_deployment: str | None = None,
        api_version: str | None = None,
        azure_ad_token: str | None = None,
        azure_ad_token_provider: Callable[[], str | Awaitable[str]] | None = None,
        **options: Any,
    ) -> None:
        self._endpoint = azure_endpoint or os.environ.get("AZURE_OPENAI_ENDPOINT") or ""
        self._deployment = azure_deployment or model
        self._version = api_version or os.environ.get("OPENAI_API_VERSION")
        self._token = azure_ad_token or os.environ.get("AZURE_OPENAI_AD_TOKEN")
        self._token_provider = azure_ad_token_provider
        super().__init__(model=model, **options)

    def _connect_to(self, base_url: str | None, api_key: str | None) -> None:
        endpoint = base_url or self._endpoint
        if not endpoint:
            raise ConfigError("azure_endpoint is missing; pass it or set AZURE_OPENAI_ENDPOINT")
        host = _host(endpoint)
        endpoint = endpoint.rstrip("/")
        if self._version is None or self._version == "v1":
            self._url = f"{endpoint}/openai/v1/chat/completions"
        else:
            path = f"{endpoint}/openai/deployments/{self._deployment}/chat/completions"
            self._url = f"{path}?api-version={self._version}"
        self._at_openai = False
        self.key_help = "Set AZURE_OPENAI_API_KEY or pass api_key, azure_ad_token or azure_ad_token_provider."
        self._headers = dict(HEADERS)
        if not (self._token or self._token_provider):
            key = _usable_key(self._model, host, api_key, ["AZURE_OPENAI_API_KEY"])
            self._headers["api-key"] = key

    def _secret_variable(self, argument: str) -> str:
        return "AZURE_OPENAI_AD_TOKEN" if argument == "azure_ad_token" else super()._secret_variable(argument)

    async def _authorization(self) -> dict[str, str]:
        token: Any = self._token
        if self._token_provider is not None:
            token = self._token_provider()
            if not isinstance(token, str):
                token = await token
        return {"authorization": f"Bearer {token}"} if token else {}


def _refuse_reserved(parameters: Mapping[str, Any]) -> None:
    for name in RESERVED:
        if name in parameters:
            raise ConfigError(
                f"{name!r} is set by the client itself; use create() or create_stream() instead of giving it"
            )


def _host(url: str) -> str:
    """The host of an address. Raises `ConfigError` if it is none."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url if isinstance(url, str) and url.isprintable() and " " not in url else "")
        host, port = parts.hostname or "", parts.port
    except ValueError:  # a bad port, or half a bracket
        host = ""
    if not host or parts.scheme not in ("http", "https") or port == 0 or not re.fullmatch(r"[\w.-]+|[\da-f:.]+", host):
        given = shown(url) if isinstance(url, str) else url
        raise ConfigError(f"expected an address such as 'https://api.openai.com/v1', not {given!r}")
    return host


def _is_near(host: str) -> bool:
    """Whether a host is this machine, or in a private network."""
    try:
        return ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith((".local", ".internal", ".localhost"))


def _usable_key(model: str, host: str, key: str | None, variables: list[str]) -> str:
    """The key to use, "" for none. Raises `AuthenticationError` if one is needed and there is none."""
    if not isinstance(key, str) and key is not None:
        raise ConfigError(f"api_key must be a text, not a {type(key).__name__}")
    if key is None:
        key = next((os.environ[name] for name in variables if os.environ.get(name)), None)
    if key is None and not _is_near(host):
        raise AuthenticationError(
            f"no API key for model {model!r} at {host}.\n"
            f"The argument api_key was not given, and the environment variable {' or '.join(variables)} is not set.\n"
            f"Set the variable or pass api_key=...; api_key='' says that the server needs none.",
            provider=host,
        )
    key = (key or "").strip()
    if not key.isascii() or any(char.isspace() or not char.isprintable() for char in key):
        raise ConfigError(
            "api_key holds characters that no key has: check for spaces, line ends and letters with accents"
        )
    return key
