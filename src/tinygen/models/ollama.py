"""Ollama's own protocol, `/api/chat`: streams of JSON lines, arguments of calls as objects, settings in `options`.

The encoder and `OllamaDecoder` do no I/O. A model's thinking about its calls is kept in `provider_data["ollama"]` and
goes back with them; that about an answer does not, as models want it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial

from .. import codec
from ..errors import ConfigError, ProtocolError
from ..messages import (
    AssistantMessage,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    Image,
    SystemMessage,
    UserMessage,
)
from .asks import body_of, checked, json_instruction, parameters_of, reserved
from .base import HTTPChatCompletionClient
from .chat import logprobs_of
from .dialects import OLLAMA, fitted_schema
from .keys import host_of, usable_key
from .sse import LineDecoder
from .wire import (
    Answer,
    StreamDecoder,
    call_arguments,
    counts_in,
    dumps,
    expect,
    number,
    parse,
    raise_error_in,
    read_call,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ..messages import LLMMessage
    from . import Tool, ToolSchema
    from .asks import Ask
    from .wire import Reason

REASONS: Mapping[str, Reason] = {"stop": "stop", "length": "length"}
RESERVED = ("stream", "messages", "tools")  # of the request: the client's own business
PORT = 11434

# fields of the request; every other setting is one of its `options`
_FIELDS = frozenset("format keep_alive think logprobs top_logprobs truncate shift".split())
_RENAMES = {"max_tokens": "num_predict", "max_completion_tokens": "num_predict", "response_format": "format"}


# --- requests


def encode_message(message: LLMMessage, prefixes: bool = False) -> str:
    """A message as JSON text; the results of several calls are several objects, with commas between.

    Args:
        prefixes: begin a user's text with who said it.
    """
    if isinstance(message, FunctionExecutionResultMessage):
        return ",".join(dumps(_result(each)) for each in checked(message.content, list, message))
    if isinstance(message, SystemMessage):
        return dumps({"role": "system", "content": checked(message.content, str, message)})
    if isinstance(message, UserMessage):
        return dumps({"role": "user", **_user_content(message, prefixes)})
    return dumps({"role": "assistant", **_assistant(message)})


def _result(result: FunctionExecutionResult) -> dict[str, Any]:
    data = {"role": "tool", "content": result.content, "tool_name": result.name, "tool_call_id": result.call_id}
    return {**data, "images": [image.to_base64() for image in result.images]} if result.images else data


def _user_content(message: UserMessage, prefixes: bool) -> dict[str, Any]:
    prefix = f"{message.source} said:\n" if prefixes else ""
    if isinstance(message.content, str):
        return {"content": prefix + message.content}
    parts = checked(message.content, list, message)
    images = [checked(part, Image, message).to_base64() for part in parts if not isinstance(part, str)]
    content = prefix + "\n".join(part for part in parts if isinstance(part, str))
    return {"content": content, "images": images} if images else {"content": content}


def _assistant(message: AssistantMessage) -> dict[str, Any]:
    if isinstance(message.content, str):
        return {"content": message.content}
    calls = [
        {"id": call.id, "function": {"name": call.name, "arguments": call_arguments(call)}}
        for call in checked(message.content, list, message)
    ]
    kept = (message.provider_data or {}).get("ollama")
    said = {key: kept[key] for key in ("content", "thinking") if key in kept} if isinstance(kept, dict) else {}
    return {"content": message.thought or "", **said, "tool_calls": calls}


def encode_request(ask: Ask, fields: Mapping[str, Any], texts: Sequence[bytes]) -> bytes:
    """The body of a request; `texts` are the encoded messages, `fields` the client's own."""
    more = request_fields(ask.extra)
    sent = {**fields, **more, "stream": ask.stream}
    if options := {**fields.get("options", {}), **more.get("options", {})}:
        sent["options"] = options
    tools = [] if ask.choice == "none" else ask.tools
    if tools and isinstance(ask.choice, dict):  # nothing can force a call, but other ones can be made impossible
        tools = [tool for tool in tools if tool["name"] == ask.choice["name"]]
    if tools:
        sent["tools"] = [_tool(tool) for tool in tools]
    if ask.json_output and tools:  # who is held to a format can call nothing
        texts = [dumps({"role": "system", "content": json_instruction(ask.json_output)}).encode(), *texts]
    elif ask.json_output:
        sent["format"] = _format(ask.json_output)
    return body_of(sent, "messages", texts)


def request_fields(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """A caller's settings, under Ollama's names or those other clients use, where Ollama looks for them."""
    fields: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for key, value in parameters.items():
        name = _RENAMES.get(key, key)
        if name in RESERVED:
            raise reserved(key)
        if value is None:
            continue
        if name == "options":
            options.update({option: each for option, each in dict(value).items() if each is not None})
        elif name in _FIELDS:
            fields[name] = _format(value) if name == "format" else value
        else:
            options[name] = [value] if name == "stop" and isinstance(value, str) else value
    return {**fields, "options": options} if options else fields


def _format(output: Any) -> Any:
    """What holds the model to JSON (True), or to the schema of a type; OpenAI's way to say so is understood too."""
    if isinstance(output, dict):
        schema = output.get("json_schema")
        output = schema.get("schema", True) if isinstance(schema, dict) else output
        return "json" if output is True or output.get("type") == "json_object" else output
    if isinstance(output, str):
        return output
    return "json" if isinstance(output, bool) else codec.schema(output)


def _tool(tool: ToolSchema) -> dict[str, Any]:
    parameters = fitted_schema(parameters_of(tool), OLLAMA)
    function = {"name": tool["name"], "description": tool.get("description") or "", "parameters": parameters}
    return {"type": "function", "function": function}


# --- answers


def decode_response(data: dict[str, Any]) -> Answer:
    """The answer in a whole body. Raises `ProtocolError`; `ModelError` if the body reports an error."""
    decoder = OllamaDecoder()
    decoder.take(data)
    if not isinstance(data.get("message"), dict):
        raise ProtocolError(f"the answer holds no message, only {', '.join(map(repr, data)) or 'nothing'}")
    return decoder.finished()


class OllamaDecoder(StreamDecoder):
    """Puts an answer together from the lines of a stream."""

    def feed(self, event: str, data: str) -> str:
        """Take one line in; returns the text it adds. Raises `ModelError`."""
        return "" if self.done else self.take(parse(data, "a line of the stream"))

    def take(self, data: dict[str, Any]) -> str:
        """Take the data of one line in; returns the text it adds."""
        if data.get("error"):
            raise_error_in(data)
        message = expect(data.get("message"), dict, "message") or {}
        said = ""
        content = message.get("content")
        if content:
            said = self._say(content if content.__class__ is str else expect(content, str, "content"))
        if "thinking" in message:
            self._think(message["thinking"])
        if "tool_calls" in message:
            for call in expect(message["tool_calls"], list, "tool_calls") or ():
                call = expect(call, dict, "a tool call") or {}
                function = expect(call.get("function"), dict, "function") or {}
                arguments = {} if function.get("arguments") is None else function["arguments"]
                self.answer.calls.append(read_call(str(call.get("id") or ""), function.get("name"), arguments))
        if logprobs := logprobs_of(data.get("logprobs")):
            self.answer.logprobs = (self.answer.logprobs or []) + logprobs
        if data.get("done") is True:
            reason = data.get("done_reason") or "stop"  # older servers do not say
            self.answer.finish = reason if isinstance(reason, str) else "unknown"
            self.answer.usage = counts_in(data, prompt_tokens="prompt_eval_count", completion_tokens="eval_count")
            self.done = self.complete = True
        return said

    def whole(self) -> Answer:
        """The answer, once the stream is over."""
        answer = super().whole()
        if answer.calls and answer.thought:
            answer.kept = {"ollama": {"content": answer.text, "thinking": answer.thought}}
        return answer


# --- the client


class OllamaChatCompletionClient(HTTPChatCompletionClient):
    """A model that runs in Ollama.

        client = OllamaChatCompletionClient(model="llama3.2", options={"num_ctx": 16_384})

    Ollama cuts a conversation at `num_ctx` tokens without a word, 4,096 where nothing else is set.

    Args:
        model: the name of the model, such as "qwen3:8b".
        host: where Ollama listens; default OLLAMA_HOST, else OLLAMA_BASE_URL, else "http://localhost:11434".
        options: the model's settings, under Ollama's names: num_ctx, temperature, num_predict, seed, ...
        headers: sent with every request.
        follow_redirects: AutoGen's; redirects are never followed.
        base_url: the same as `host`.
        api_key: sent as a bearer token, which Ollama's cloud and proxies want; default OLLAMA_API_KEY, else none.
        add_name_prefixes: begin each user message with who said it.
        more: the other arguments of `HTTPChatCompletionClient`, and further fields of every request: think, keep_alive,
            format; others are added to `options`, also under the usual names such as max_tokens.
    """

    provider = "ollama"
    key_help = "Set OLLAMA_API_KEY or pass api_key; what else a server asks for goes into headers={...}."
    _variables = {"api_key": "OLLAMA_API_KEY"}
    _framing = LineDecoder
    _dialect = OLLAMA
    _decode = staticmethod(decode_response)
    _decoder = OllamaDecoder
    _reasons = REASONS

    def __init__(
        self,
        *,
        model: str,
        host: str | None = None,
        options: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        follow_redirects: bool = False,
        base_url: str | None = None,
        api_key: str | None = None,
        add_name_prefixes: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(model=model, **{"default_headers": headers, **more})
        self._fields = {"model": model, **request_fields({"options": options, **self._parameters})}
        self._url = f"{_address(host or base_url)}/api/chat"
        key = os.environ.get("OLLAMA_API_KEY", "") if api_key is None else api_key
        if key := usable_key(model, host_of(self._url), key, []):
            self._headers["authorization"] = f"Bearer {key}"
        self._conversations = self._conversations_by(partial(encode_message, prefixes=add_name_prefixes))

    def _body(self, ask: Ask) -> bytes:
        _, _, texts = self._conversations.fitted(ask.messages)
        return encode_request(ask, self._fields, texts)

    def remaining_tokens(self, messages: Sequence[LLMMessage], *, tools: Sequence[Tool | ToolSchema] = ()) -> int:
        """About how many tokens are left beside this request, of `num_ctx` or else of what the model could take."""
        if most := number(self._fields.get("options", {}).get("num_ctx")):
            return most - self.count_tokens(messages, tools=tools)
        return super().remaining_tokens(messages, tools=tools)


def _address(given: str | None) -> str:
    """Where to send requests to, whatever of an address is given, as Ollama itself reads OLLAMA_HOST."""
    given = given or os.environ.get("OLLAMA_HOST") or os.environ.get("OLLAMA_BASE_URL") or f"http://localhost:{PORT}"
    if not isinstance(given, str):
        raise ConfigError(f"host must be an address such as 'http://localhost:{PORT}', not {given!r}")
    scheme, mark, rest = given.strip().rstrip("/").rpartition("://")
    for end in ("/v1", "/api"):  # of OpenAI's protocol there, and of this one
        rest = rest.removesuffix(end)
    authority, slash, path = rest.partition("/")
    name, _, port = authority.rpartition(":") if authority.rpartition(":")[2].isdigit() else (authority, "", "")
    if not port and not mark:
        port = str(PORT)
    name = "127.0.0.1" if name in ("", "0.0.0.0", "[::]") else name  # where servers listen
    address = f"{scheme or 'http'}://{name}{f':{port}' if port else ''}{slash}{path}"
    host_of(address)
    return address
