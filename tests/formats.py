"""How each wire format says what OpenAI's chat protocol says: the same answers and the same trouble, in five languages.

A case is written once, in chat's words; `Format.retold` says it in another format's, with its line ends, comments,
damage and bad values where they were. What a format has no words for raises `Untold`.
"""

from __future__ import annotations

import json
import re
from typing import Any

from tinygen.models.anthropic import AnthropicChatCompletionClient
from tinygen.models.base import HTTPChatCompletionClient
from tinygen.models.gemini import GeminiChatCompletionClient
from tinygen.models.ollama import OllamaChatCompletionClient
from tinygen.models.openai import OpenAIChatCompletionClient
from tinygen.models.responses import OpenAIResponsesClient

KEY = "sk-test-0123456789"
CHAT_OWN = {"id", "object", "model", "choices", "usage", "error"}
Event = tuple[str, Any]  # its name, "" for none, and its data


class Untold(Exception):
    """A format has no words for what chat's words say."""


class Format:
    """OpenAI's chat protocol itself; each other format derives from it.

    `begin` is called first, `say` for every piece of an answer, `finish` at its end; each returns events.
    """

    name = "chat"
    stream_type = "text/event-stream"
    lines = False  # JSON lines instead of events
    kind: type[HTTPChatCompletionClient] = OpenAIChatCompletionClient
    words: dict[Any, Any] = {}  # why an answer ends, by chat's word
    last: list[Event] = [("", "[DONE]")]  # instead of chat's [DONE]

    def client(self, url: str, key: str = KEY, **options: Any) -> Any:
        """A client of this format for a server at this address."""
        made: Any = self.kind
        return made(**{"model": "m-dev", "base_url": url, "api_key": key, **options})

    # --- streams

    def __init__(self) -> None:
        self.usage: dict[str, Any] = {}
        self.calls: dict[Any, dict[str, Any]] = {}  # by their index
        self.text: list[Any] = []
        self.begun = False

    def retold(self, stream: bytes) -> bytes:
        """A stream of chat's, said in this format."""
        return stream if self.name == "chat" else b"".join(self._told(stream))

    def retold_steps(self, steps: list[tuple[float, bytes]]) -> list[tuple[float, bytes]]:
        """The same in pieces with the seconds before each; those that are no whole events stay as they are."""
        return [(wait, self.retold(step) if step.endswith(b"\n\n") else step) for wait, step in steps]

    def _told(self, stream: bytes) -> list[bytes]:
        text = stream.decode("utf-8", "surrogateescape")
        if text.count(": ka\n") > 1_000 or len(text) > 10**6:  # nothing to say, or nothing that could be read
            return [re.sub(rb"(?m)^(:.*|data: )", b"", stream) if self.lines else stream]
        self.usage = _usage_in(text)
        block: list[tuple[str, str]] = []
        told = []
        for line, end in re.findall(r"([^\r\n]*)(\r\n|\n|\r|$)", text):
            block.append((line, end))
            if not line:
                told.append(self._block(block))
                block = []
        return [piece.encode("utf-8", "surrogateescape") for piece in told]

    def _block(self, block: list[tuple[str, str]]) -> str:
        """An event of chat's with what stands around it; often several events of this format."""
        mark = "\ufeff" if block[0][0].startswith("\ufeff") else ""
        lines = [(line.removeprefix("\ufeff"), end) for line, end in block]
        data = [line[5:].removeprefix(" ") for line, _ in lines if line.startswith("data:")]
        events = self._events("\n".join(data)) if data else None
        if events is None:
            return mark + "".join(self._as_it_is(line) + end for line, end in lines)
        space = " " if any(line.startswith("data: ") for line, _ in lines) else ""
        end = next(end for line, end in lines if line.startswith("data:"))
        others = [] if self.lines else [line for line, _ in lines if line and not line.startswith("data:")]
        closed = lines[-1] == ("", end) and len(lines) > 1
        named = any(line.startswith("event:") for line in others)
        told = [
            "".join(line + end for line in [*(others if first else ()), *self._framed(event, named, space, len(data))])
            for first, event in ((at == 0, event) for at, event in enumerate(events))
        ]
        gap = "" if self.lines else end
        return mark + gap.join(told) + (gap if closed and told else "")

    def _framed(self, event: Event, named: bool, space: str, count: int) -> list[str]:
        name, data = event
        if self.lines:
            return [_dumps(data)]
        text = data if isinstance(data, str) else _dumps(data, indent=None if count == 1 else 1)
        return [*([f"event: {name}"] if name and not named else []), *(f"data:{space}{x}" for x in text.split("\n"))]

    def _as_it_is(self, line: str) -> str:
        return re.sub("^(data: ?|(:|event:|id:|retry:).*)", "", line) if self.lines else line

    def _events(self, data: str) -> list[Event] | None:
        """What the data of an event says; None for data that says nothing in chat's words either."""
        if data.strip() == "[DONE]":
            return self.last if self.begun else None
        try:
            chunk = json.loads(data)
        except (ValueError, RecursionError):
            return None
        if not isinstance(chunk, dict):
            return None
        return self._chunk(chunk)

    def _chunk(self, chunk: dict[str, Any]) -> list[Event]:
        if "error" in chunk:
            return self.error_events(chunk["error"])
        events = [] if self.begun else self.begin()
        self.begun = True
        choice = _first(chunk, "delta")
        if choice:
            delta = choice["delta"]
            content = delta.get("content")
            calls = delta.get("tool_calls") or []
            if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
                raise Untold("calls that are no list of objects")
            events += [] if content is None else self.say(content)
            for call in calls:
                events += self._call(call)
            if choice.get("finish_reason") is not None:
                events += self.finish(choice["finish_reason"])
        extra = {key: value for key, value in chunk.items() if key not in CHAT_OWN}
        if events:
            events[-1] = (events[-1][0], {**extra, **events[-1][1]})
        return events

    def _call(self, fragment: dict[str, Any]) -> list[Event]:
        function = fragment.get("function") or {}
        index = fragment.get("index")
        if index is None:
            index = len(self.calls)
        call = self.calls.get(index)
        made = [] if call is not None else self.call_begins(index, fragment.get("id"), function)
        call = self.calls.setdefault(index, {"id": fragment.get("id"), "name": function.get("name"), "arguments": ""})
        arguments = function.get("arguments")
        if isinstance(arguments, str):
            call["arguments"] += arguments
            return made + self.call_goes_on(index, arguments)
        call["arguments"] = arguments if arguments is not None else call["arguments"]
        return made

    def whole_calls(self) -> list[dict[str, Any]]:
        """The calls so far, their arguments read; for formats that know no others."""
        if any(not isinstance(index, int) for index in self.calls):
            raise Untold("calls have no index here")
        return [{**call, "arguments": _object(call["arguments"])} for _, call in sorted(self.calls.items())]

    # --- what a format says

    def begin(self) -> list[Event]:
        return []

    def say(self, content: Any) -> list[Event]:
        raise NotImplementedError

    def call_begins(self, index: Any, identity: Any, function: dict[str, Any]) -> list[Event]:
        return []

    def call_goes_on(self, index: Any, arguments: str) -> list[Event]:
        return []

    def finish(self, reason: Any) -> list[Event]:
        raise NotImplementedError

    def error(self, error: Any) -> Any:
        """The body of an error."""
        return {"error": error}

    def error_events(self, error: Any) -> list[Event]:
        return [("", self.error(error))]

    def body(self, text: Any, calls: list[dict[str, Any]], finish: Any, usage: dict[str, Any]) -> dict[str, Any]:
        """A whole answer; `text` is None for none."""
        raise NotImplementedError

    # --- whole bodies

    def retold_body(self, body: bytes) -> bytes:
        """A whole body of chat's, said in this format; what is none stays as it is."""
        try:
            data = json.loads(body.decode("utf-8", "surrogateescape"))
            told = self.whole(data)
        except (ValueError, RecursionError, Untold):
            return body
        space = re.match(rb"\s*", body)
        assert space
        return space[0] + _dumps(told).encode("utf-8", "surrogateescape")

    def whole(self, data: Any) -> Any:
        if self.name == "chat":
            return data
        if isinstance(data, dict) and data.get("error"):
            return self.error(data["error"])
        choice = _first(data, "message")
        if not choice or not choice["message"]:
            raise Untold("no message")
        message = choice["message"]
        made = message.get("tool_calls") or []
        if not isinstance(made, list) or not all(isinstance(call, dict) for call in made):
            raise Untold("calls that are no list of objects")
        calls = []
        for call in made:
            function = call.get("function") or {}
            calls.append({"id": call.get("id"), "name": function.get("name"), "arguments": function.get("arguments")})
        usage = data.get("usage") or {}
        told = self.body(message.get("content"), calls, choice.get("finish_reason"), usage)
        return {**told, **{key: value for key, value in data.items() if key not in CHAT_OWN}}


def _usage_in(text: str) -> dict[str, Any]:
    """The tokens that a stream reports, wherever."""
    found = re.findall(r'"usage":\s*(\{[^{}]*\})', text)
    return json.loads(found[-1]) if found else {}


def _first(data: Any, key: str) -> dict[str, Any] | None:
    """The first choice of a chunk or a body; None if there is none. Raises `Untold` for another shape."""
    choices = data.get("choices") if isinstance(data, dict) else None
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise Untold("choices that are no list of objects")
    choice = next((choice for choice in choices if choice.get("index", 0) == 0), None)
    if choice is not None and not isinstance(choice.get(key), dict):
        raise Untold(f"a {key} that is no object")
    return choice


def _object(arguments: Any) -> Any:
    if not isinstance(arguments, str):
        return {} if arguments is None else arguments
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        raise Untold("arguments that are not JSON") from None
    if not isinstance(value, dict):
        raise Untold("arguments that are no object")
    return value


def _dumps(data: Any, indent: int | None = None) -> str:
    separators = (",", ":") if indent is None else None
    text = json.dumps(data, ensure_ascii=False, separators=separators, indent=indent)
    # half surrogate pairs as escapes, but those that stand for bytes which are no UTF-8
    return re.sub("[\ud800-\udc7f\udd00-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text)


def _without_none(**fields: Any) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value is not None}


class Anthropic(Format):
    name = "anthropic"
    kind = AnthropicChatCompletionClient
    words = {"stop": "end_turn", "tool_calls": "tool_use", "length": "max_tokens", "content_filter": "refusal"}
    last = [("message_stop", {"type": "message_stop"})]

    def begin(self) -> list[Event]:
        message = {"id": "msg_1", "type": "message", "role": "assistant", "content": [], "model": "m-dev"}
        return [self._event("message_start", message={**message, "usage": self._counts(self.usage)})]

    def say(self, content: Any) -> list[Event]:
        begun = [] if self.text else [self._block_begins(0, {"type": "text", "text": ""})]
        self.text.append(content)
        return [*begun, self._event("content_block_delta", index=0, delta={"type": "text_delta", "text": content})]

    def call_begins(self, index: Any, identity: Any, function: dict[str, Any]) -> list[Event]:
        if any(isinstance(each, int) and isinstance(index, int) and each > index for each in self.calls):
            raise Untold("blocks come one after the other")
        given = function.get("arguments")
        made = {"input": given if isinstance(given, dict) else {}, "name": function.get("name"), "id": identity}
        return [self._block_begins(self._place(index), {"type": "tool_use", **_without_none(**made)})]

    def call_goes_on(self, index: Any, arguments: str) -> list[Event]:
        delta = {"type": "input_json_delta", "partial_json": arguments}
        return [self._event("content_block_delta", index=self._place(index), delta=delta)]

    def finish(self, reason: Any) -> list[Event]:
        places = [*([0] if self.text else []), *map(self._place, self.calls)]
        stops = [self._event("content_block_stop", index=place) for place in places]
        delta = {"stop_reason": self.words.get(reason, reason), "stop_sequence": None}
        return [*stops, self._event("message_delta", delta=delta, usage=self._counts(self.usage))]

    def error(self, error: Any) -> Any:
        text = error.get("message") if isinstance(error, dict) else error
        return {"type": "error", "error": {"type": "api_error", "message": text}}

    def error_events(self, error: Any) -> list[Event]:
        return [("error", self.error(error))]

    def body(self, text: Any, calls: list[dict[str, Any]], finish: Any, usage: dict[str, Any]) -> dict[str, Any]:
        blocks: list[dict[str, Any]] = [] if text in (None, "") else [{"type": "text", "text": text}]
        for call in calls:
            made = {"id": call["id"], "name": call["name"], "input": _object(call["arguments"])}
            blocks.append({"type": "tool_use", **_without_none(**made)})
        message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m-dev", "content": blocks}
        return {**message, "stop_reason": self.words.get(finish, finish), "usage": self._counts(usage)}

    def _counts(self, usage: dict[str, Any]) -> dict[str, Any]:
        return _without_none(input_tokens=usage.get("prompt_tokens"), output_tokens=usage.get("completion_tokens"))

    def _place(self, index: Any) -> Any:
        return index + 1 if isinstance(index, int) else index  # the text comes first

    def _block_begins(self, place: Any, block: dict[str, Any]) -> Event:
        return self._event("content_block_start", index=place, content_block=block)

    def _event(self, kind: str, **fields: Any) -> Event:
        return kind, {"type": kind, **fields}


class Responses(Format):
    name = "responses"
    kind = OpenAIResponsesClient
    words = {"length": "max_output_tokens"}
    last: list[Event] = []

    def begin(self) -> list[Event]:
        return [self._event("created", response=self._response("in_progress", []))]

    def say(self, content: Any) -> list[Event]:
        item = {"type": "message", "id": "msg_1", "status": "in_progress", "role": "assistant", "content": []}
        begun = [] if self.text else [self._event("output_item.added", output_index=0, item=item)]
        self.text.append(content)
        return [*begun, self._event("output_text.delta", item_id="msg_1", output_index=0, delta=content)]

    def call_begins(self, index: Any, identity: Any, function: dict[str, Any]) -> list[Event]:
        if not isinstance(index, int):
            raise Untold("places that make no sense are read even so")
        item = self._call_item({"id": identity, "name": function.get("name"), "arguments": ""}, "in_progress")
        return [self._event("output_item.added", output_index=index + 1, item=item)]

    def call_goes_on(self, index: Any, arguments: str) -> list[Event]:
        return [self._event("function_call_arguments.delta", output_index=index + 1, delta=arguments)]

    def finish(self, reason: Any) -> list[Event]:
        items: dict[int, dict[str, Any]] = {0: self._text_item("".join(map(str, self.text)))} if self.text else {}
        items |= {index + 1: self._call_item(call) for index, call in sorted(self.calls.items())}
        done = [self._event("output_item.done", output_index=at, item=item) for at, item in items.items()]
        return [*done, self._end(reason, [*items.values()])]

    def error_events(self, error: Any) -> list[Event]:
        text = error.get("message") if isinstance(error, dict) else error
        return [("error", {"type": "error", "code": "server_error", "message": text, "param": None})]

    def body(self, text: Any, calls: list[dict[str, Any]], finish: Any, usage: dict[str, Any]) -> dict[str, Any]:
        self.usage = usage
        items = [] if text in (None, "") else [self._text_item(text)]
        _, last = self._end(finish, [*items, *map(self._call_item, calls)])
        response: dict[str, Any] = last["response"]
        return response

    def _end(self, reason: Any, items: list[dict[str, Any]]) -> Event:
        if reason in ("stop", "tool_calls", None):
            return self._event("completed", response=self._response("completed", items))
        why = {"reason": self.words.get(reason, reason)}
        response = self._response("incomplete", items)
        return self._event("incomplete", response={**response, "incomplete_details": why})

    def _response(self, status: str, items: list[Any]) -> dict[str, Any]:
        used = {"input_tokens": self.usage.get("prompt_tokens"), "output_tokens": self.usage.get("completion_tokens")}
        head = {"id": "resp_1", "object": "response", "status": status, "error": None, "incomplete_details": None}
        return {**head, "output": items, "usage": _without_none(**used) if status != "in_progress" else None}

    def _text_item(self, text: Any) -> dict[str, Any]:
        part = {"type": "output_text", "text": text, "annotations": []}
        return {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [part]}

    def _call_item(self, call: dict[str, Any], status: str = "completed") -> dict[str, Any]:
        made = {"call_id": call["id"], "name": call["name"], "arguments": call["arguments"]}
        return {"type": "function_call", "id": "fc_1", "status": status, **_without_none(**made)}

    def _event(self, kind: str, **fields: Any) -> Event:
        return f"response.{kind}", {"type": f"response.{kind}", **fields}


class Gemini(Format):
    name = "gemini"
    kind = GeminiChatCompletionClient
    words = {"stop": "STOP", "tool_calls": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY"}
    last: list[Event] = []

    def say(self, content: Any) -> list[Event]:
        self.text.append(content)
        return [("", self._candidate([{"text": content}]))]

    def finish(self, reason: Any) -> list[Event]:
        return [("", self._candidate(self._calls(self.whole_calls()), reason, self.usage))]

    def error(self, error: Any) -> Any:
        text = error.get("message") if isinstance(error, dict) else error
        return {"error": {"code": 500, "message": text, "status": "INTERNAL"}}

    def body(self, text: Any, calls: list[dict[str, Any]], finish: Any, usage: dict[str, Any]) -> dict[str, Any]:
        made = self._calls([{**call, "arguments": _object(call["arguments"])} for call in calls])
        return self._candidate([*([] if text is None else [{"text": text}]), *made], finish or "stop", usage)

    def _calls(self, calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            {"functionCall": _without_none(id=call["id"], name=call["name"], args=call["arguments"])} for call in calls
        ]

    def _candidate(self, parts: list[Any], reason: Any = None, usage: dict[str, Any] | None = None) -> dict[str, Any]:
        candidate = {"content": {"role": "model", "parts": parts}, "index": 0}
        ended = {} if reason is None else {"finishReason": self.words.get(reason, reason)}
        used = {} if usage is None else {"usageMetadata": self._counts(usage)}
        return {"candidates": [{**candidate, **ended}], **used, "modelVersion": "m-dev"}

    def _counts(self, usage: dict[str, Any]) -> dict[str, Any]:
        prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
        return _without_none(promptTokenCount=prompt, candidatesTokenCount=completion)


class Ollama(Format):
    name = "ollama"
    stream_type = "application/x-ndjson"
    lines = True
    kind = OllamaChatCompletionClient
    words = {"tool_calls": "stop"}
    last: list[Event] = []

    def client(self, url: str, key: str = KEY, **options: Any) -> Any:
        headers = {"authorization": f"Bearer {key}"}
        return OllamaChatCompletionClient(**{"model": "m-dev", "base_url": url, "headers": headers, **options})

    def say(self, content: Any) -> list[Event]:
        self.text.append(content)
        return [("", self._line({"content": content}))]

    def finish(self, reason: Any) -> list[Event]:
        calls = self._calls(self.whole_calls())
        made = [("", self._line({"content": "", "tool_calls": calls}))] if calls else []
        return [*made, ("", self._line({"content": ""}, reason, self.usage))]

    def error(self, error: Any) -> Any:
        return {"error": error.get("message") if isinstance(error, dict) else error}

    def body(self, text: Any, calls: list[dict[str, Any]], finish: Any, usage: dict[str, Any]) -> dict[str, Any]:
        made = self._calls([{**call, "arguments": _object(call["arguments"])} for call in calls])
        return self._line({"content": text, **({"tool_calls": made} if made else {})}, finish or "stop", usage)

    def _calls(self, calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            _without_none(id=call["id"], function=_without_none(name=call["name"], arguments=call["arguments"]))
            for call in calls
        ]

    def _line(self, message: Any, reason: Any = None, usage: dict[str, Any] | None = None) -> dict[str, Any]:
        head = {"model": "m-dev", "created_at": "2026-01-01T00:00:00Z", "message": {"role": "assistant", **message}}
        if reason is None:
            return {**head, "done": False}
        usage = usage or {}
        counts = {"prompt_eval_count": usage.get("prompt_tokens"), "eval_count": usage.get("completion_tokens")}
        return {**head, "done": True, "done_reason": self.words.get(reason, reason), **_without_none(**counts)}


FORMATS: dict[str, type[Format]] = {each.name: each for each in (Format, Responses, Anthropic, Gemini, Ollama)}
