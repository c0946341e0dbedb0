"""Gemini's own protocol, `generateContent`: requests as bytes, answers from bodies and events. No I/O.

What the model signed (its thoughts, its calls) is kept part by part in
`provider_data["gemini"]`, calls without their arguments, and goes back on the same parts; a message that no longer says
what the parts say is encoded afresh.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import zip_longest

from .. import codec
from ..errors import ProtocolError
from ..messages import (
    AssistantMessage,
    FunctionCall,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    Image,
    SystemMessage,
    UserMessage,
)
from .asks import body_of, checked, json_instruction, merged, reserved
from .chat import logprobs_of
from .dialects import GEMINI, fitted_schema
from .schemas import SchemaRules
from .wire import (
    DEPTH,
    Answer,
    StreamDecoder,
    call_arguments,
    clean,
    counts_in,
    dumps,
    expect,
    is_made_up,
    keepable,
    number,
    parse,
    raise_error_in,
    read_call,
    short,
    written,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from ..messages import LLMMessage
    from . import ToolSchema
    from .asks import Ask
    from .conversations import Conversations
    from .wire import Reason

REASONS: Mapping[str, Reason] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "LANGUAGE": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
    "MODEL_ARMOR": "content_filter",
    "PROMPT_BLOCKED": "content_filter",  # ours, where the prompt was blocked for a reason that has no name here
}
RESERVED = ("contents", "systemInstruction", "stream", "candidateCount")  # the client's own business
UNSIGNED = "skip_thought_signature_validator"  # what Google says to send with calls that its models did not make

# fields of `generationConfig`; every other one stands beside it
_GENERATION = frozenset(
    "temperature topP topK maxOutputTokens stopSequences seed presencePenalty frequencyPenalty responseLogprobs "
    "logprobs responseMimeType responseSchema responseJsonSchema responseModalities thinkingConfig speechConfig "
    "imageConfig mediaResolution audioTimestamp routingConfig modelSelectionConfig".split()
)
_RENAMES = {
    "max_tokens": "maxOutputTokens",
    "max_completion_tokens": "maxOutputTokens",
    "stop": "stopSequences",
    "top_logprobs": "logprobs",
}
_MODES = {"required": "ANY", "none": "NONE"}
_NEW = re.compile(r"gemini-(?![12][.-])").match  # models that insist on signatures, and take a schema beside tools
_FULL = SchemaRules(
    keywords=frozenset(
        "$id $defs $ref $anchor type format title description enum items prefixItems minItems maxItems minimum maximum "
        "anyOf oneOf properties additionalProperties required".split()
    ),
    formats=frozenset({"date-time", "date", "time"}),
)
_JSON_SCHEMA = replace(GEMINI, tools=_FULL, output=_FULL)


# --- requests


def encode_message(message: LLMMessage, model: str = "", prefixes: bool = False) -> str:
    """The parts of a message as JSON text, with commas between.

    Args:
        model: what is sent of calls depends on it.
        prefixes: begin a user's text with who said it.
    """
    if isinstance(message, FunctionExecutionResultMessage):
        results = checked(message.content, list, message)
        parts = [_response(result) for result in results]
        parts += [_picture(image) for result in results for image in result.images or ()]
    elif isinstance(message, SystemMessage):
        parts = [{"text": checked(message.content, str, message)}]
    elif isinstance(message, UserMessage):
        parts = _user_parts(message, prefixes)
    else:
        parts = _kept_parts(message) or _model_parts(message, signs=_is_new(model))
    return ",".join(map(dumps, parts))


def content_text(message: LLMMessage, model: str = "", prefixes: bool = False) -> str:
    """The content with a message's parts as JSON text; "" for one without any."""
    text = encode_message(message, model, prefixes)
    return f"{_opening('model' if isinstance(message, AssistantMessage) else 'user')}{text}]}}" if text else ""


def _opening(role: str) -> str:
    return f'{{"role":"{role}","parts":['


# letters of messages -> how long the beginning of a content is; calls are an assistant's
_HEADS = {"a": len(_opening("model")), "u": len(_opening("user")), "r": len(_opening("user"))}


def _is_new(model: str) -> bool:
    return _NEW(model.rsplit("/", 1)[-1]) is not None


def _user_parts(message: UserMessage, prefixes: bool) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = [{"text": f"{message.source} said:\n"}] if prefixes else []
    content = [message.content] if isinstance(message.content, str) else checked(message.content, list, message)
    for part in content:
        if isinstance(part, str):
            parts.append({"text": part})
        else:
            parts.append(_picture(checked(part, Image, message)))
    return parts


def _picture(image: Image) -> dict[str, Any]:
    return {"inlineData": {"mimeType": image.media_type, "data": image.to_base64()}}


def _model_parts(message: AssistantMessage, signs: bool) -> list[dict[str, Any]]:
    if isinstance(message.content, str):
        return [{"text": message.content}]
    calls: list[dict[str, Any]] = [{"functionCall": _call(call)} for call in checked(message.content, list, message)]
    if calls and signs:
        calls[0]["thoughtSignature"] = UNSIGNED
    return [{"text": message.thought}, *calls] if message.thought else calls


def _kept_parts(message: AssistantMessage) -> list[dict[str, Any]] | None:
    """The parts as the model sent them, if the message still says the same."""
    kept = (message.provider_data or {}).get("gemini")
    if not isinstance(kept, list) or not all(isinstance(part, dict) for part in kept):
        return None
    said = "".join(str(part["text"]) for part in kept if "text" in part and not part.get("thought"))
    if isinstance(message.content, str):
        return kept if said == message.content and not any("functionCall" in part for part in kept) else None
    calls = iter(checked(message.content, list, message))
    parts = []
    for part in kept:
        if isinstance(past := part.get("functionCall"), dict):
            call = next(calls, None)
            if call is None or call.name != past.get("name"):
                return None
            part = {**part, "functionCall": _call(call)}
        parts.append(part)
    return parts if next(calls, None) is None else None


def _call(call: FunctionCall) -> dict[str, Any]:
    return {**_identity(call.id), "name": call.name, "args": call_arguments(call)}


def _response(result: FunctionExecutionResult) -> dict[str, Any]:
    said = {"error" if result.is_error else "output": result.content}
    return {"functionResponse": {**_identity(result.call_id), "name": result.name, "response": said}}


def _identity(call_id: str) -> dict[str, str]:
    """Most models give calls no ids; the one that was made up for such a call means nothing to them."""
    return {} if is_made_up(call_id) else {"id": call_id}


def encode_request(ask: Ask, fields: Mapping[str, Any], encoded: Conversations, model: str = "") -> bytes:
    """The body of a request; `encoded` has what `content_text` makes of the messages, `fields` are the client's own."""
    talk, letters, texts = encoded.fitted(ask.messages)
    more = request_fields(ask.extra)
    sent = {**fields, **more}
    generation = {**fields.get("generationConfig", {}), **more.get("generationConfig", {})}
    instructions = []
    if letters[0] == "s":
        instructions.append(talk[0].content)
        letters, texts = letters[1:], texts[1:]
    forced = bool(ask.tools) and ask.choice not in ("auto", "none")
    tools = ask.tools
    if ask.json_output and not forced:
        tools = tools if _is_new(model) or ask.choice == "auto" else []
        if _is_new(model) or not tools:
            generation |= {"responseMimeType": "application/json", **_output(ask.json_output)}
        else:
            instructions.append(json_instruction(ask.json_output))
    if tools:
        sent["tools"] = [{"functionDeclarations": [_declaration(tool) for tool in tools]}, *sent.get("tools", ())]
        if ask.choice != "auto":
            sent["toolConfig"] = {**sent.get("toolConfig", {}), "functionCallingConfig": _choice(ask.choice)}
    if generation:
        sent["generationConfig"] = generation
    if instructions:
        sent["systemInstruction"] = {"parts": [{"text": text} for text in instructions]}
    return body_of(sent, "contents", merged(letters.replace("c", "a"), texts, _HEADS))


def request_fields(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """A caller's settings, under Gemini's names or those other clients use, where Gemini looks for them."""
    fields: dict[str, Any] = {}
    generation: dict[str, Any] = {}
    for key, value in parameters.items():
        name = _RENAMES.get(key) or re.sub("_(.)", lambda found: found[1].upper(), key)
        if name in RESERVED:
            raise reserved(key)
        if value is None:
            continue
        if name == "stopSequences" and isinstance(value, str):
            value = [value]
        if name == "logprobs" and isinstance(value, bool):
            name = "responseLogprobs"
        if name == "generationConfig":
            generation.update(value)
        else:
            (generation if name in _GENERATION else fields)[name] = value
    return {**fields, "generationConfig": generation} if generation else fields


def _choice(choice: str | ToolSchema) -> dict[str, Any]:
    if isinstance(choice, str):
        return {"mode": _MODES[choice]}
    return {"mode": "ANY", "allowedFunctionNames": [choice["name"]]}


def _declaration(tool: ToolSchema) -> dict[str, Any]:
    declaration: dict[str, Any] = {"name": tool["name"], "description": tool.get("description") or ""}
    schema = tool.get("parameters")
    if schema and schema.get("properties"):  # an object without any is refused
        declaration.update(_schema("parameters", "parametersJsonSchema", schema, output=False))
    return declaration


def _output(output: bool | type[Any]) -> dict[str, Any]:
    if isinstance(output, bool):
        return {}
    return _schema("responseSchema", "responseJsonSchema", codec.schema(output), output=True)


def _schema(plain: str, full: str, schema: Mapping[str, Any], output: bool) -> dict[str, Any]:
    """The schema as every model understands it, or else, where that cannot say it, as the newer ones do."""
    fitted = fitted_schema(schema, GEMINI, output)
    return {plain: fitted} if _fits(fitted) else {full: fitted_schema(schema, _JSON_SCHEMA, output)}


def _fits(schema: Any) -> bool:
    """Whether each value has a known type, and each object a fixed set of keys."""
    if not isinstance(schema, dict):
        return False
    if "anyOf" in schema:
        return all(map(_fits, schema["anyOf"]))
    kind = str(schema.get("type")).lower()
    if kind == "object":
        return bool(schema.get("properties")) and all(map(_fits, schema["properties"].values()))
    return _fits(schema.get("items")) if kind == "array" else kind in ("string", "integer", "number", "boolean")


# --- answers


def decode_response(*chunks: dict[str, Any]) -> Answer:
    """The answer in a whole body, or in the chunks of one. Raises `ProtocolError`; `ModelError` for an error."""
    decoder = GeminiDecoder()
    for chunk in chunks:
        decoder.take(expect(chunk, dict, "a chunk of the answer") or {})
    if not decoder.seen:
        keys = dict.fromkeys(key for chunk in chunks for key in chunk or ())
        raise ProtocolError(f"the answer holds no candidates, only {', '.join(map(repr, keys)) or 'nothing'}")
    return decoder.finished()


class GeminiDecoder(StreamDecoder):
    """Puts an answer together from the chunks of a stream. Only the first candidate counts."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = False
        self._parts: list[dict[str, Any]] = []
        self._keep = False
        self._usage: dict[str, Any] = {}
        self._begun: dict[str, Any] = {}  # the part with a call whose arguments come in pieces

    def feed(self, event: str, data: str) -> str:
        """Take one chunk in; returns the text it adds. Raises `ModelError`."""
        if not data or data.isspace():
            return ""
        if data[0] == "[" and data.strip() == "[DONE]":  # of a proxy
            self.complete = self.seen
            return ""
        return self.take(parse(data, "an event of the stream"))

    def take(self, chunk: dict[str, Any]) -> str:
        """Take one chunk in; returns the text it adds."""
        if chunk.get("error"):
            raise_error_in(chunk)
        usage = chunk.get("usageMetadata")
        if usage.__class__ is dict:
            self._usage.update(usage)
        candidates = expect(chunk.get("candidates"), list, "candidates")
        if not candidates:
            self._feedback(expect(chunk.get("promptFeedback"), dict, "promptFeedback") or {})
            return ""
        said = ""
        for candidate in candidates:
            if not isinstance(candidate, dict):
                expect(candidate, dict, "a candidate")
            elif candidate.get("index") in (None, 0):
                said += self._candidate(candidate)
        return said

    def whole(self) -> Answer:
        """The answer, once the stream is over."""
        answer = super().whole()
        answer.usage = _tokens(self._usage)
        answer.calls = [_read(part["functionCall"]) for part in self._parts if "functionCall" in part]
        if self._keep:
            answer.kept = {"gemini": keepable(_worth_keeping(self._parts), "the parts of the answer")}
        return answer

    def _candidate(self, candidate: dict[str, Any]) -> str:
        self.seen = True
        said = ""
        content = expect(candidate.get("content"), dict, "content") or {}
        for part in expect(content.get("parts"), list, "parts") or ():
            text = part.get("text") if isinstance(part, dict) else None
            if text.__class__ is not str:
                self._other(expect(part, dict, "a part") or {})
                continue
            self._parts.append(part)
            if len(part) > 1:
                self._keep = self._keep or "thoughtSignature" in part
                if part.get("thought"):
                    self._think(text)
                    continue
            if text:
                said += self._say(text)
        if "logprobsResult" in candidate:
            self._logprobs(candidate["logprobsResult"])
        if reason := candidate.get("finishReason"):
            self.answer.finish = reason if isinstance(reason, str) else "unknown"
            self.complete = True
            if not self._parts:
                self._think(candidate.get("finishMessage"))
        return said

    def _feedback(self, feedback: dict[str, Any]) -> None:
        """The prompt was blocked, if the feedback says why."""
        if reason := feedback.get("blockReason"):
            self.answer.finish = reason if REASONS.get(str(reason)) == "content_filter" else "PROMPT_BLOCKED"
            self.seen = self.complete = True
            self._think(feedback.get("blockReasonMessage"))

    def _other(self, part: dict[str, Any]) -> None:
        """A part that is no text: a call, or what only the provider understands."""
        expect(part.get("text"), str, "text")
        part = {key: value for key, value in part.items() if value is not None}
        if not part.keys() - {"thought", "thoughtSignature"}:  # no kind of part, which would be refused
            part = {**part, "text": ""}
        call = expect(part.get("functionCall"), dict, "functionCall")
        self._keep = self._keep or "thoughtSignature" in part or (call is None and "text" not in part)
        if call is None:
            self._parts.append(part)
        elif self._begun and not call.get("name"):
            self._begun.update({key: value for key, value in part.items() if key != "functionCall"})
            self._extend(call)
        else:
            part["functionCall"] = {**call, "args": {} if call.get("args") is None else call["args"]}
            self._parts.append(part)
            self._begun = part
            self._extend(call)

    def _extend(self, piece: dict[str, Any]) -> None:
        """Add what a piece of a call says to the one that has begun."""
        call = self._begun["functionCall"]
        for each in _list(piece, "partialArgs"):
            call["args"] = _with_piece(call["args"], _keys(each), each)
        call["willContinue"] = piece.get("willContinue") is True
        if not call["willContinue"]:
            self._begun = {}

    def _logprobs(self, result: Any) -> None:
        chosen, top = (_list(result, key) for key in ("chosenCandidates", "topCandidates"))
        tokens = [
            {**_as_chat(token), "top_logprobs": [*map(_as_chat, _list(others, "candidates"))]}
            for token, others in zip_longest(chosen, top[: len(chosen)])
        ]
        self.answer.logprobs = (self.answer.logprobs or []) + logprobs_of(tokens)


def _tokens(usage: dict[str, Any]) -> dict[str, int]:
    """Tokens as every client counts them: thinking is part of the completion, what tools put in of the prompt."""
    counts = counts_in(
        usage,
        prompt_tokens="promptTokenCount",
        completion_tokens="candidatesTokenCount",
        total_tokens="totalTokenCount",
        cached_tokens="cachedContentTokenCount",
        reasoning_tokens="thoughtsTokenCount",
    )
    for name, key in (("prompt_tokens", "toolUsePromptTokenCount"), ("completion_tokens", "thoughtsTokenCount")):
        if key in usage:
            counts[name] = counts.get(name, 0) + number(usage[key])
    return counts


def _read(call: dict[str, Any]) -> FunctionCall:
    text = written(call["args"], "the arguments of a tool call")
    if call["willContinue"]:  # but did not: nobody shall take the arguments for whole
        text = text[:-1]
    return read_call(call.get("id"), call.get("name"), text)


def _worth_keeping(parts: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The parts that must go back: neighbouring texts made one, thoughts without a signature left out."""
    merged: list[dict[str, Any]] = []
    texts: list[str] = []
    for part in parts:
        if "functionCall" in part:
            part = {**part, "functionCall": {"name": part["functionCall"]["name"]}}
        if part.keys() == {"text"}:
            texts.append(part["text"])
            continue
        if texts:
            merged.append({"text": "".join(texts)})
            texts = []
        if not part.get("thought") or "thoughtSignature" in part:
            merged.append(part)
    return [*merged, {"text": "".join(texts)}] if texts else merged


def _list(data: Any, key: str) -> list[Any]:
    found = data.get(key) if isinstance(data, dict) else None
    return found if isinstance(found, list) else []


def _as_chat(token: Any) -> dict[str, Any]:
    """A token with its logprob, as the chat protocol says it."""
    token = token if isinstance(token, dict) else {}
    text = clean(str(token.get("token", "")))
    return {"token": text, "logprob": token.get("logProbability"), "bytes": [*text.encode()]}


_STEP = re.compile(r"\.?([^.\[\]]+)|\[(\d{1,9})\]|\['([^']*)'\]")
_VALUES = ("stringValue", "numberValue", "boolValue")


def _keys(piece: Any) -> list[str | int]:
    """Where a piece of a call's arguments belongs: "$.stops[0].name" is stops, 0, name."""
    path = expect((expect(piece, dict, "a piece of the arguments") or {}).get("jsonPath"), str, "jsonPath") or ""
    keys = [int(index) if index else name or quoted for name, index, quoted in _STEP.findall(path.removeprefix("$"))]
    if not 0 < len(keys) < DEPTH or isinstance(keys[0], int):
        raise ProtocolError(f"the answer does not follow the protocol: a piece of the arguments is for {short(path)}")
    return keys


def _with_piece(held: Any, keys: list[str | int], piece: dict[str, Any]) -> Any:
    """Arguments, or a part of them, with a piece put in; texts grow by it."""
    if not keys:
        value = next((piece[name] for name in _VALUES if name in piece), None)
        return held + value if isinstance(held, str) and isinstance(value, str) else value
    key, rest = keys[0], keys[1:]
    if isinstance(key, str):
        held = held if isinstance(held, dict) else {}
        return {**held, key: _with_piece(held.get(key), rest, piece)}
    held = held if isinstance(held, list) else []
    return [*held[:key], _with_piece(held[key] if key < len(held) else None, rest, piece), *held[key + 1 :]]
