"""OpenAI's Responses protocol: what its newest models speak, with their reasoning kept from call to call.

`encode_message`, `encode_request`, `decode_response` and `ResponsesDecoder` do no I/O; the client at the end is glue.

An answer is a list of items: reasoning, messages, calls, and what built-in tools did. Requests say `store: false`, so
that the server remembers nothing; what a model reasoned then comes encrypted, and its items are kept as they came in
`provider_data["responses"]`, without what the message says itself: the text, if it is all there is, and names and
arguments of the calls. A message goes back with its items if they fit it, else as plain text and calls.
"""

from __future__ import annotations

import re
from functools import partial

from ..errors import ModelError, ProtocolError
from ..messages import (
    AssistantMessage,
    FunctionCall,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    Image,
    SystemMessage,
    UserMessage,
)
from .asks import body_of, checked, parameters_of
from .chat import logprobs_of, response_format
from .dialects import RESPONSES, fitted_schema
from .openai import OpenAIChatCompletionClient
from .schemas import strict_schema
from .wire import Answer, StreamDecoder, counts_in, dumps, expect, keepable, raise_error_in, read_call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from ..messages import LLMMessage
    from . import ToolSchema
    from .asks import Ask
    from .wire import Reason

REASONS: Mapping[str, Reason] = {
    "completed": "stop",
    "max_output_tokens": "length",
    "content_filter": "content_filter",
}

_ENCRYPTED = "reasoning.encrypted_content"
_REASONING = re.compile(r"(o\d|gpt-[5-9]|codex)(?!.*-chat)")  # models that know of it; others refuse it

_COUNTS = {
    "prompt_tokens": "input_tokens",
    "completion_tokens": "output_tokens",
    "cached_tokens": "input_tokens_details.cached_tokens",
    "reasoning_tokens": "output_tokens_details.reasoning_tokens",
}


# --- requests


def encode_message(message: LLMMessage, prefixes: bool = False) -> str:
    """The items of a message as JSON text, with commas between; `prefixes`: begin a user's text with who said it."""
    return ",".join(map(dumps, _items_of(message, prefixes)))


def _items_of(message: LLMMessage, prefixes: bool) -> list[dict[str, Any]]:
    if isinstance(message, FunctionExecutionResultMessage):
        return [
            {"type": "function_call_output", "call_id": result.call_id, "output": _output(result)}
            for result in checked(message.content, list, message)
        ]
    if isinstance(message, SystemMessage):
        return [{"role": "system", "content": checked(message.content, str, message)}]
    if isinstance(message, UserMessage):
        return [{"role": "user", "content": _user_content(message, prefixes)}]
    kept = (message.provider_data or {}).get("responses")
    if isinstance(kept, list) and (items := _with_kept(kept, message)) is not None:
        return items
    if isinstance(message.content, str):
        return [{"role": "assistant", "content": message.content}]
    text = [{"role": "assistant", "content": message.thought}] if message.thought else []
    return [*text, *({"type": "function_call", **_call(call)} for call in checked(message.content, list, message))]


def _user_content(message: UserMessage, prefixes: bool) -> str | list[dict[str, Any]]:
    prefix = f"{message.source} said:\n" if prefixes else ""
    if isinstance(message.content, str):
        return prefix + message.content
    parts: list[dict[str, Any]] = [{"type": "input_text", "text": prefix}] if prefix else []
    for part in checked(message.content, list, message):
        if isinstance(part, str):
            parts.append({"type": "input_text", "text": part})
        else:
            parts.append(_picture(checked(part, Image, message)))
    return parts


def _picture(image: Image) -> dict[str, Any]:
    return {"type": "input_image", "image_url": image.data_uri, "detail": "auto"}


def _output(result: FunctionExecutionResult) -> str | list[dict[str, Any]]:
    if not result.images:
        return result.content
    return [{"type": "input_text", "text": result.content}, *map(_picture, result.images)]


def _call(call: FunctionCall) -> dict[str, Any]:
    return {"call_id": call.id, "name": call.name, "arguments": call.arguments}


def _with_kept(kept: list[Any], message: AssistantMessage) -> list[dict[str, Any]] | None:
    """The items as they came, with what the message says put back in; None if they are not those of this message."""
    if not all(isinstance(item, dict) for item in kept):
        return None
    calls = iter(message.content if isinstance(message.content, list) else ())
    items = []
    for item in kept:
        if item.get("type") == "function_call":
            call = next(calls, None)
            if call is None:
                return None
            item = {**item, **_call(call)}
        elif item.get("type") == "message" and "content" not in item:
            if not isinstance(message.content, str):
                return None
            item = {**item, "content": [{"type": "output_text", "text": message.content, "annotations": []}]}
        items.append(item)
    return items if next(calls, None) is None else None


def encode_request(ask: Ask, parameters: Mapping[str, Any], texts: Iterable[bytes], model: str = "") -> bytes:
    """The body of a request; `texts` are the encoded messages, `parameters` the client's own fields.

    What the chat protocol calls otherwise (`max_tokens`, `reasoning_effort`, `response_format`) is understood. `model`
    is its name, where the server knows it by another.
    """
    fields = {**parameters, **ask.extra}
    tools = [*map(_tool, ask.tools), *fields.pop("tools", ())]  # the latter are those the provider has built in
    if tools:
        fields["tools"] = tools
        if isinstance(ask.choice, dict):
            fields["tool_choice"] = {"type": "function", "name": ask.choice["name"]}
        elif ask.choice != "auto":
            fields["tool_choice"] = ask.choice
    else:
        fields.pop("parallel_tool_calls", None)
    output = fields.pop("response_format", None) or ask.json_output
    if output:
        fields["text"] = {"format": _format(output), **(fields.get("text") or {})}
    if effort := fields.pop("reasoning_effort", None):
        fields["reasoning"] = {"effort": effort, **(fields.get("reasoning") or {})}
    model = model or str(fields.get("model", ""))
    if not fields.get("store") and _REASONING.match(model.rsplit("/", 1)[-1]):
        fields["include"] = list(dict.fromkeys([*(fields.get("include") or ()), _ENCRYPTED]))
    options = {
        key: value for key, value in (fields.pop("stream_options", None) or {}).items() if key != "include_usage"
    }
    if ask.stream:
        fields.update({"stream": True, **({"stream_options": options} if options else {})})
    return body_of(RESPONSES.fitted_fields(model, fields), "input", texts)


def _tool(schema: ToolSchema) -> dict[str, Any]:
    tool: dict[str, Any] = {"type": "function", "name": schema["name"]}
    if description := schema.get("description"):
        tool["description"] = description
    parameters, strict = parameters_of(schema), False  # which has to be said: by default, they are made strict there
    if schema.get("strict"):
        parameters, strict = strict_schema(parameters)
    return {**tool, "parameters": fitted_schema(parameters, RESPONSES), "strict": strict}


def _format(output: Any) -> dict[str, Any]:
    """What holds the model to JSON or to a schema, given as a type or as the chat protocol has it."""
    form = dict(output) if isinstance(output, dict) else response_format(output, RESPONSES)
    inner = form.pop("json_schema", {})
    return {**form, **inner}


# --- answers


def decode_response(data: dict[str, Any]) -> Answer:
    """The answer in a whole body. Raises `ProtocolError`; `ModelError` if the body reports an error."""
    decoder = ResponsesDecoder()
    decoder.take(data)
    return decoder.finished()


class ResponsesDecoder(StreamDecoder):
    """Puts an answer together from the events of a stream.

    Text and thinking come in pieces; the items come whole, each at its end and all once more with the last event, which
    is what counts.
    """

    names = (*StreamDecoder.names, "response.")

    def __init__(self) -> None:
        super().__init__()
        self._items: dict[int, dict[str, Any]] = {}
        self._aside: set[int] = set()  # places of messages that belong to the thinking
        self._message: Any = None  # the place of the message that the last piece of text belonged to
        self._thinking: Any = None  # likewise the part of the thinking
        self._stored = False

    def feed(self, event: str, data: str) -> str:
        """Take one event in; returns the text it adds. Raises `ModelError`."""
        if self.done or not data or data.isspace() or (data[0] != "{" and data.strip() == "[DONE]"):
            return ""
        news = self._parsed(event, data)
        if news is None:
            return ""
        kind = news.get("type") or event
        if kind == "response.output_text.delta":
            return self._piece(news)
        if kind == "error" or (news.get("error") and not isinstance(news.get("response"), dict)):
            raise_error_in(news)
        if kind in ("response.completed", "response.incomplete", "response.failed"):
            return self.take(expect(news.get("response"), dict, "response") or {})
        return self._news(kind, news)

    def take(self, response: dict[str, Any]) -> str:
        """Take a whole response in; returns the text that was not there yet. Raises `ModelError`."""
        self._check(response)
        self.answer.usage = counts_in(response.get("usage"), **_COUNTS)
        output = expect(response.get("output"), list, "output")
        if output:
            self._items = {at: expect(item, dict, "an item of the output") or {} for at, item in enumerate(output)}
        elif output is None and not self._items and not self.begun:
            raise ProtocolError(f"the answer holds no output, only {', '.join(map(repr, response)) or 'nothing'}")
        details = expect(response.get("incomplete_details"), dict, "incomplete_details") or {}
        reason = details.get("reason") or response.get("status") or "completed"
        self.answer.finish = reason if isinstance(reason, str) else "unknown"
        self._stored = response.get("store") is True
        self.done = self.complete = True
        return self._unsaid()

    def whole(self) -> Answer:
        """The answer, once the stream is over. Raises `ProtocolError` for a call without a name."""
        answer = super().whole()
        items = [self._items[at] for at in sorted(self._items)]
        calls = [item for item in items if item.get("type") == "function_call"]
        answer.calls = [
            read_call(str(call.get("call_id") or call.get("id") or ""), call.get("name"), call.get("arguments"))
            for call in calls
        ]
        parts = [part for item in items if item.get("type") == "message" for part in _parts(item, "content")]
        answer.logprobs = [each for part in parts for each in logprobs_of(part.get("logprobs"))] or None
        kept = _to_keep(items, answer, self._stored)
        answer.kept = {"responses": keepable(kept, "the items of the answer")} if kept else None
        return answer

    def _check(self, response: dict[str, Any]) -> None:
        """Raise an error for a response that is no answer."""
        status = response.get("status")
        if response.get("error") or response.get("object") == "error":
            raise_error_in(response)
        if status in ("failed", "cancelled"):
            raise ModelError(f"the provider broke off: the answer is {status}")
        if status in ("queued", "in_progress"):
            raise ProtocolError(f"the answer is not there yet (status {status!r}); leave 'background' out")

    def _news(self, kind: str, news: dict[str, Any]) -> str:
        """Whatever is not text or the end."""
        at = _place(news)
        if kind == "response.refusal.delta":
            return self._piece(news)
        if kind in ("response.reasoning_summary_text.delta", "response.reasoning_text.delta"):
            self._reason((at, kind, news.get("summary_index")), expect(news.get("delta"), str, "delta"))
        elif kind in ("response.output_item.added", "response.output_item.done"):
            item = self._items[at] = expect(news.get("item"), dict, "item") or {}
            if item.get("type") == "message" and item.get("phase") == "commentary":
                self._aside.add(at)
        elif kind == "response.function_call_arguments.done" and at in self._items:
            self._items[at] = {**self._items[at], "arguments": news.get("arguments")}
        return ""

    def _piece(self, news: dict[str, Any]) -> str:
        at, delta = _place(news), expect(news.get("delta"), str, "delta")
        if not delta:
            return ""
        if at in self._aside:
            self._reason(at, delta)
            return ""
        return self._tell(at, delta)

    def _tell(self, at: Any, text: str) -> str:
        """Add a piece of text; a blank line parts it from that of another message."""
        parted = bool(self._text) and self._message != at
        self._message = at
        return self._say(f"\n\n{text}" if parted else text)

    def _reason(self, part: Any, thought: str | None) -> None:
        """Add a piece of thinking; a blank line parts it from that of another part."""
        if not thought:
            return
        if self._thought and self._thinking != part:
            self._think("\n\n")
        self._thinking = part
        self._think(thought)

    def _unsaid(self) -> str:
        """Tell from the items what no pieces told."""
        said, thought, text = "", bool(self._thought), bool(self._text or self.partial)
        comments: dict[int, dict[str, Any]] = {}
        for at, item in self._items.items():
            comment = item.get("type") == "message" and item.get("phase") == "commentary"
            if comment:
                comments[at] = item
            if (comment or item.get("type") == "reasoning") and not thought:
                for n, part in enumerate([*_parts(item, "summary"), *_parts(item, "content")]):
                    self._reason((at, n), expect(part.get("text"), str, "text"))
            elif item.get("type") == "message" and not comment and not text:
                said += self._words(at, item)
        if not text and not said and all(item.get("type") != "function_call" for item in self._items.values()):
            said = "".join(self._words(at, item) for at, item in comments.items())  # which then are the answer
        return said

    def _words(self, at: int, item: dict[str, Any]) -> str:
        """Add the text of a message that came as a whole."""
        said = ""
        for part in _parts(item, "content"):
            if words := expect(part.get("text") or part.get("refusal"), str, "text"):
                said += self._tell(at, words)
        return said


def _place(news: dict[str, Any]) -> int:
    """To which item of the output an event belongs."""
    place = news.get("output_index")
    return place if place.__class__ is int else -1


def _parts(item: dict[str, Any], key: str) -> list[dict[str, Any]]:
    return [expect(part, dict, f"a part of the {key}") or {} for part in expect(item.get(key), list, key) or ()]


def _to_keep(items: list[dict[str, Any]], answer: Answer, stored: bool) -> list[dict[str, Any]]:
    """The items to send back; none if the message says it all."""
    kept = []
    for item in items:
        kind = item.get("type")
        if kind == "reasoning" and not item.get("encrypted_content") and not stored:
            continue  # nobody could read it
        kept.append({key: value for key, value in item.items() if value is not None})
        if kind == "function_call":
            for key in ("call_id", "name", "arguments"):
                kept[-1].pop(key, None)
    if not any(item.get("type") not in ("message", "function_call") or "phase" in item for item in kept):
        return []
    messages = [item for item in kept if item.get("type") == "message"]
    if (
        len(messages) == 1
        and not answer.calls
        and [part.get("text") for part in _parts(messages[0], "content")] == [answer.text]
    ):
        del messages[0]["content"]
    return kept


# --- the client


class OpenAIResponsesClient(OpenAIChatCompletionClient):
    """A model of OpenAI's by its Responses protocol, or of a server that speaks it, such as Azure's `/openai/v1`.

        client = OpenAIResponsesClient(model="gpt-5", reasoning={"effort": "low", "summary": "auto"})

    What the model reasons stays in the conversation, encrypted; with `summary`, a summary of it comes as `thought`.
    Tools that the provider has built in are named by `tools=[{"type": "web_search"}]`, here or in `extra_create_args`.

    Args:
        model: the name of the model.
        store: let the provider keep the answers, too.

    The other arguments are those of `OpenAIChatCompletionClient`.
    """

    _decode = staticmethod(decode_response)
    _decoder = ResponsesDecoder
    _reasons = REASONS
    _path = "/responses"
    _reserved = ("stream", "messages", "input")

    def __init__(self, *, model: str, store: bool = False, **options: Any) -> None:
        super().__init__(model=model, store=store, **options)

    def _connect_to(self, base_url: str | None, api_key: str | None, server: str | None) -> None:
        super()._connect_to(base_url, api_key, server)
        self._dialect = RESPONSES

    def _encoding(self, names: bool, prefixes: bool) -> Callable[[LLMMessage], str]:
        return partial(encode_message, prefixes=prefixes)

    def _body(self, ask: Ask) -> bytes:
        _, _, texts = self._conversations.fitted(ask.messages)
        return encode_request(ask, self._parameters, texts, ask.extra.get("model", self._model))
