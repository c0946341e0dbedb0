"""OpenAI's chat protocol, which most servers speak: requests encoded, answers decoded. No I/O here.

Where servers differ, their `Dialect` tells.
"""

from __future__ import annotations

import json
import re

from .. import codec
from ..errors import ProtocolError
from ..messages import (
    AssistantMessage,
    ChatCompletionTokenLogprob,
    FunctionCall,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    Image,
    SystemMessage,
    TopLogprob,
    UserMessage,
)
from .asks import body_of, checked, parameters_of
from .dialects import CHAT, fitted_schema
from .schemas import strict_schema
from .wire import (
    Answer,
    StreamDecoder,
    call_arguments,
    clean,
    counts_in,
    dumps,
    expect,
    keepable,
    raise_error_in,
    read_call,
    short,
    written,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from ..messages import LLMMessage
    from . import ToolSchema
    from .asks import Ask
    from .dialects import Dialect
    from .wire import Reason

REASONS: Mapping[str, Reason] = {
    "stop": "stop",
    "eos": "stop",
    "length": "length",
    "model_length": "length",
    "tool_calls": "function_calls",
    "function_call": "function_calls",
    "content_filter": "content_filter",
}

_COUNTS = {
    **{name: name for name in ("prompt_tokens", "completion_tokens", "total_tokens")},
    "cached_tokens": "prompt_tokens_details.cached_tokens",
    "reasoning_tokens": "completion_tokens_details.reasoning_tokens",
}


# --- requests


def encode_message(message: LLMMessage, names: bool = True, prefixes: bool = False, dialect: Dialect = CHAT) -> str:
    """A message as JSON text; the results of several calls are several objects, with commas between.

    Args:
        names: send who said it as `name`.
        prefixes: begin a user's text with who said it.
        dialect: what the server accepts.
    """
    if isinstance(message, FunctionExecutionResultMessage):
        return ",".join(map(dumps, _results(checked(message.content, list, message), dialect)))
    if isinstance(message, SystemMessage):
        return dumps({"role": "system", "content": checked(message.content, str, message)})
    data: dict[str, Any]
    if isinstance(message, UserMessage):
        data = {"role": "user", "content": _user_content(message, prefixes)}
    else:
        data = _assistant(message, dialect)
    if names and (name := re.sub(r"[^a-zA-Z0-9_-]", "_", checked(message.source, str, message))[:64]):
        data["name"] = name
    return dumps(data)


def _results(results: Sequence[FunctionExecutionResult], dialect: Dialect) -> list[dict[str, Any]]:
    """What tools answered. The protocol has only text for that, so pictures follow as if a user showed them."""
    items: list[dict[str, Any]] = [
        {"role": "tool", "content": result.content, "tool_call_id": result.call_id} for result in results
    ]
    pictures = [image.to_openai_format() for result in results for image in result.images or ()]
    if pictures:
        if not dialect.user_after_results:
            items.append({"role": "assistant", "content": "These are the pictures."})
        text = {"type": "text", "text": "The pictures in the results of the tools, in their order:"}
        items.append({"role": "user", "content": [text, *pictures]})
    return items


def _user_content(message: UserMessage, prefixes: bool) -> str | list[dict[str, Any]]:
    prefix = f"{message.source} said:\n" if prefixes else ""
    if isinstance(message.content, str):
        return prefix + message.content
    parts: list[dict[str, Any]] = []
    for part in checked(message.content, list, message):
        if isinstance(part, str):
            parts.append({"type": "text", "text": prefix + part})
            prefix = ""
        else:
            parts.append(checked(part, Image, message).to_openai_format())
    return [{"type": "text", "text": prefix}, *parts] if prefix else parts


def _assistant(message: AssistantMessage, dialect: Dialect) -> dict[str, Any]:
    kept: Any = (message.provider_data or {}).get("chat") if dialect.thoughts else None
    kept = kept if isinstance(kept, dict) else {}
    data: dict[str, Any] = {"role": "assistant", "content": message.content}
    if not isinstance(message.content, str):
        calls = [_call(call, dialect) for call in checked(message.content, list, message)]
        content = kept.get("content", message.thought) or (None if dialect.null_content else "")
        data = {"role": "assistant", "content": content, "tool_calls": calls}
        more = kept.get("calls")
        if isinstance(more, list) and len(more) == len(calls):  # else they belong to other calls
            for call, extra in zip(calls, more):
                call.update(extra if isinstance(extra, dict) else {})
    if dialect.thoughts and kept.get(dialect.thoughts) is not None:
        data[dialect.thoughts] = kept[dialect.thoughts]
    return data


def _call(call: FunctionCall, dialect: Dialect) -> dict[str, Any]:
    arguments = call.arguments
    if dialect.object_arguments and (fitted := call_arguments(call)).keys() <= {"invalid_json"}:
        arguments = dumps(fitted)
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def encode_request(
    ask: Ask, parameters: Mapping[str, Any], texts: Iterable[bytes], dialect: Dialect = CHAT, model: str = ""
) -> bytes:
    """The body of a request; `texts` are the encoded messages, `parameters` the client's own fields.

    `model` is its name, where the server knows it by another.
    """
    fields = dict(parameters)
    if ask.tools:
        fields["tools"] = [_tool(tool, dialect) for tool in ask.tools]
        if isinstance(ask.choice, dict):
            fields["tool_choice"] = {"type": "function", "function": {"name": ask.choice["name"]}}
        elif ask.choice != "auto":
            fields["tool_choice"] = ask.choice
    else:
        fields.pop("parallel_tool_calls", None)  # refused where there are no tools
    if ask.json_output:
        fields["response_format"] = response_format(ask.json_output, dialect)
    fields.update(ask.extra)
    if isinstance(form := fields.get("response_format"), type):
        fields["response_format"] = response_format(form, dialect)
    if ask.stream:
        fields["stream"] = True
    if not ask.stream or fields.get("stream_options") is None or not dialect.stream_options:
        fields.pop("stream_options", None)
    return body_of(dialect.fitted_fields(model or str(fields.get("model", "")), fields), "messages", texts)


def _tool(schema: ToolSchema, dialect: Dialect) -> dict[str, Any]:
    function: dict[str, Any] = {"name": schema["name"]}
    if description := schema.get("description"):
        function["description"] = description
    parameters = parameters_of(schema)
    if schema.get("strict") and dialect.strict_tools:
        parameters, function["strict"] = strict_schema(parameters)
    function["parameters"] = fitted_schema(parameters, dialect)
    return {"type": "function", "function": function}


def response_format(output: bool | type[Any], dialect: Dialect = CHAT) -> dict[str, Any]:
    """What holds the model to JSON (True), or to the schema of a type whose values are objects."""
    if isinstance(output, bool) or not dialect.json_schema:
        return {"type": "json_object"}
    schema, strict = strict_schema(codec.schema(output))
    if schema.get("type") != "object":  # the protocol takes no other schema; what comes is checked by who asked
        return {"type": "json_object"}
    name = re.sub(r"[^a-zA-Z0-9_-]", "_", getattr(output, "__name__", "answer"))[:64]
    schema = fitted_schema(schema, dialect, output=True)
    return {"type": "json_schema", "json_schema": {"name": name, "schema": schema, "strict": strict}}


# --- answers


def decode_response(data: dict[str, Any], thoughts: str | None = None) -> Answer:
    """The answer in a whole body; `thoughts` is the field to keep as it is.

    Raises `ProtocolError`; `ModelError` if the body reports an error.
    """
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
    decoder = ChatDecoder(thoughts)
    decoder.take_usage(data)
    decoder.take({**choice, "delta": message})
    return decoder.finished()


def _index(choice: dict[str, Any]) -> int:
    """Which of several answers a choice belongs to; 0 if it does not say."""
    index: Any = choice.get("index")
    if index is not None and index.__class__ is not int:
        raise ProtocolError(f"the answer does not follow the protocol: the index of a choice is {short(index)}")
    return index or 0


def _is_error(data: dict[str, Any]) -> bool:
    return bool(data.get("error")) or data.get("object") == "error"


class ChatDecoder(StreamDecoder):
    """Puts an answer together from the chunks of a stream. Only the first choice counts.

    `thoughts` is the field of a message that the server wants back as it came.
    """

    def __init__(self, thoughts: str | None = None) -> None:
        super().__init__()
        self._calls: list[_Call] = []
        self._highest = -1  # index of a call
        self._latest: dict[int, _Call] = {}  # the last call with each index
        self._thoughts = thoughts
        self._kept: Any = None
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
        chunk = self._parsed(event, data)
        if chunk is None:
            return ""
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
        if isinstance(logprobs := choice.get("logprobs"), dict) and (found := logprobs_of(logprobs.get("content"))):
            self.answer.logprobs = (self.answer.logprobs or []) + found
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
        if isinstance(usage, dict):
            self.answer.usage = counts_in(usage, **_COUNTS)

    def whole(self) -> Answer:
        """The answer, once the stream is over. Raises `ProtocolError` for a call without a name."""
        answer = super().whole()
        calls = sorted(self._calls, key=lambda call: call.index)
        answer.calls = [call.whole() for call in calls]
        kept = {} if self._kept is None or self._thoughts is None else {self._thoughts: self._kept}
        if any(call.more for call in calls):
            kept["calls"] = [call.more for call in calls]
        if kept and calls:
            kept["content"] = answer.text  # what was said beside the thoughts, which the message has as one
        answer.kept = {"chat": keepable(kept, "the thoughts of the answer")} if kept else None
        return answer

    def _rarities(self, delta: dict[str, Any]) -> str:
        """What few deltas hold: thinking, a refusal, calls. Returns the text it adds."""
        self._think(delta.get("reasoning_content") or delta.get("reasoning"))
        if self._thoughts is not None and (piece := delta.get(self._thoughts)):
            self._kept = _kept(self._kept, piece)
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
        call = self._latest.get(index) if index is not None else next(reversed(self._calls), None)
        if (
            call is None
            or (name and identity and identity != call.id and call.name)
            or (name and call.begun and name != call.name)
            or (index is None and name and not identity)
            or ((name or identity not in ("", call.id)) and function.get("arguments") and call.came_whole())
        ):
            self._highest = self._highest + 1 if index is None else max(index, self._highest)
            call = _Call(self._highest if index is None else index)
            self._calls.append(call)
            self._latest[call.index] = call
        call.add(identity, name, function.get("arguments"))
        if self._thoughts is not None and self._thoughts in item:
            call.more = {self._thoughts: item[self._thoughts]}


def _kept(so_far: Any, piece: Any) -> Any:
    """What came of a field that is to be kept, with the next piece of it."""
    if isinstance(so_far, str) and isinstance(piece, str):
        return so_far + piece
    if not isinstance(piece, list):
        return piece
    details: list[Any] = so_far if isinstance(so_far, list) else []
    for each in piece:
        last = details[-1] if details else None
        if not (isinstance(each, dict) and isinstance(last, dict) and _continues(each, last)):
            details.append(dict(each) if isinstance(each, dict) else each)
            continue
        for key, value in each.items():
            if key in ("text", "summary") and isinstance(value, str) and isinstance(last.get(key), str):
                last[key] += value
            elif value is not None:
                last[key] = value
    return details


def _continues(piece: dict[str, Any], last: dict[str, Any]) -> bool:
    """Whether a piece of thinking belongs to the entry before it; encrypted ones come whole."""
    return "data" not in piece and all(piece.get(key) == last.get(key) for key in ("type", "index"))


class _Call:
    """A tool call under way; `more` is what the server wants back with it."""

    def __init__(self, index: int) -> None:
        self.more: dict[str, Any] = {}
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
        return read_call(self.id, self.name, "".join(self._arguments))


def logprobs_of(content: Any) -> list[ChatCompletionTokenLogprob]:
    """The tokens with their logprobs, as far as they make sense."""
    return [_token(token) for token in content if _has_logprob(token)] if isinstance(content, list) else []


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
