"""Gemini's own protocol, `generateContent`, as Google AI Studio and Vertex AI speak it.

The encoder and `GeminiDecoder` do no I/O. What the model signed (its thoughts, its calls) is kept part by part in
`provider_data["gemini"]`, calls without their arguments, and goes back on the same parts; a message that no longer says
what the parts say is encoded afresh.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from functools import partial

from .. import codec
from ..errors import AuthenticationError, ConfigError, ProtocolError
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
from .base import HTTPChatCompletionClient
from .dialects import GEMINI, fitted_schema
from .keys import bearer, host_of, usable_key
from .schemas import SchemaRules
from .wire import (
    BAD_KEY,
    Answer,
    StreamDecoder,
    body_of,
    call_arguments,
    checked,
    clean,
    complaint,
    counts_in,
    dumps,
    expect,
    is_made_up,
    json_instruction,
    keepable,
    merged,
    number,
    parse,
    raise_error_in,
    read_call,
    reserved,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from ..messages import LLMMessage
    from . import ToolSchema
    from .conversations import Conversations
    from .keys import TokenProvider
    from .wire import Ask, Complaint, Reason

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
RESERVED = ("contents", "systemInstruction", "stream", "candidateCount", "n")  # the client's own business
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
_HOSTS = {"global": "aiplatform", "us": "aiplatform.us.rep", "eu": "aiplatform.eu.rep"}  # others: LOCATION-aiplatform
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
    declaration: dict[str, Any] = {"name": tool["name"], "description": tool.get("description", "")}
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
        if call is not None:
            args = {} if call.get("args") is None else call["args"]
            self.answer.calls.append(read_call(call.get("id"), call.get("name"), args))
            part = {**part, "functionCall": {"name": call["name"]}}
        self._keep = self._keep or "thoughtSignature" in part or not (call or "text" in part)
        self._parts.append(part)

    def _logprobs(self, result: Any) -> None:
        chosen, top = (_list(result, key) for key in ("chosenCandidates", "topCandidates"))
        tokens = self.answer.logprobs = self.answer.logprobs or []
        for at, token in enumerate(chosen):
            if (value := _logprob(token)) is not None:
                others = _list(top[at], "candidates") if at < len(top) else []
                text = clean(str(token.get("token", "")))
                best = [TopLogprob(logprob, _bytes(each)) for each in others if (logprob := _logprob(each)) is not None]
                tokens.append(
                    ChatCompletionTokenLogprob(token=text, logprob=value, top_logprobs=best, bytes=_bytes(token))
                )


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


def _worth_keeping(parts: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The parts that must go back: neighbouring texts made one, thoughts without a signature left out."""
    merged: list[dict[str, Any]] = []
    texts: list[str] = []
    for part in parts:
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


def _logprob(token: Any) -> float | None:
    value = token.get("logProbability") if isinstance(token, dict) else None
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300 else None


def _bytes(token: dict[str, Any]) -> list[int]:
    return list(clean(str(token.get("token", ""))).encode())


def gemini_complaint(body: str) -> Complaint:
    """What the body of an error says, with the wait that stands in its details."""
    said = complaint(body)
    try:
        data = parse(body if body.lstrip()[:1] != "[" else f'{{"error":{body}}}', "the error")
    except ProtocolError:
        return said
    error = data.get("error")
    if isinstance(error, list):  # where a stream was asked for, an array stands around it
        error = error[0].get("error") if error and isinstance(error[0], dict) else None
    if not isinstance(error, dict):
        return said
    if isinstance(status := error.get("status"), str):
        said.code = "context_length_exceeded" if "input token count" in said.message else status
    for detail in _list(error, "details"):
        if not isinstance(detail, dict):
            continue
        if detail.get("reason") == "API_KEY_INVALID":
            said.code = BAD_KEY
        if wait := re.fullmatch(r"(\d{1,9}(\.\d*)?)s", str(detail.get("retryDelay"))):
            said.retry_after = float(wait[1])
    return said


# --- the client


class GeminiChatCompletionClient(HTTPChatCompletionClient):
    """A Gemini model, of Google AI Studio with a key, or of Vertex AI with a project and a token.

        client = GeminiChatCompletionClient(model="gemini-2.5-flash")
        vertex = GeminiChatCompletionClient(model="gemini-2.5-pro", project="my-project", token_provider=my_token)

    Args:
        model: the name of the model, such as "gemini-2.5-flash".
        api_key: default GEMINI_API_KEY, else GOOGLE_API_KEY.
        base_url: with the version; default GOOGLE_GEMINI_BASE_URL, else Google's.
        project: of Vertex AI; default GOOGLE_CLOUD_PROJECT. It, `location`, `token`, `token_provider` or a true
            GOOGLE_GENAI_USE_VERTEXAI choose Vertex AI.
        location: default GOOGLE_CLOUD_LOCATION, else "global".
        token: an access token, which lasts for an hour.
        token_provider: called for each request, gives a token; may be a coroutine function.
        add_name_prefixes: begin each user message with who said it.
        options: the other arguments of `HTTPChatCompletionClient`, and further fields of every request, under Gemini's
            names or the usual ones: temperature, max_tokens, stop, seed, thinking_config, safety_settings,
            cached_content, tools of Google's own, ...
    """

    provider = "gemini"
    _dialect = GEMINI
    _reasons = REASONS

    def __init__(
        self,
        *,
        model: str,
        api_key: str | None = None,
        base_url: str | None = None,
        project: str | None = None,
        location: str | None = None,
        token: str | None = None,
        token_provider: TokenProvider | None = None,
        add_name_prefixes: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(model=model, **options)
        self._fields = request_fields(self._parameters)
        self._token = token
        self._token_provider = token_provider
        chosen = os.environ.get("GOOGLE_GENAI_USE_VERTEXAI", "").lower() in ("1", "true")
        if chosen or project or location or token or token_provider:
            self._url = self._at_vertex(base_url, project, location)
        else:
            self._url = self._at_studio(base_url, api_key)
        self._conversations = self._conversations_by(partial(content_text, model=model, prefixes=add_name_prefixes))

    def _at_studio(self, base_url: str | None, api_key: str | None) -> str:
        given = base_url or os.environ.get("GOOGLE_GEMINI_BASE_URL")
        root = (given or "https://generativelanguage.googleapis.com/v1beta").rstrip("/")
        key = usable_key(self._model, host_of(root), api_key, ["GEMINI_API_KEY", "GOOGLE_API_KEY"])
        if key:
            self._headers["x-goog-api-key"] = key
        self.key_help = "Set GEMINI_API_KEY or pass api_key to a key that this server accepts."
        return f"{root}/{_path(self._model if '/' in self._model else f'models/{self._model}')}"

    def _at_vertex(self, base_url: str | None, project: str | None, location: str | None) -> str:
        self.provider = "vertex"
        self.key_help = "Pass a fresh token, or a token_provider; `gcloud auth print-access-token` prints one."
        project = project or os.environ.get("GOOGLE_CLOUD_PROJECT")
        location = location or os.environ.get("GOOGLE_CLOUD_LOCATION") or "global"
        if not project:
            raise ConfigError("project is missing; pass it or set GOOGLE_CLOUD_PROJECT")
        if not (self._token or self._token_provider):
            raise AuthenticationError(
                f"no access token for model {self._model!r} at Vertex AI.\n"
                f"Neither token nor token_provider was given.\n"
                f"Pass one of them; `gcloud auth print-access-token` prints a token.",
                provider=self.provider,
            )
        root = (
            base_url or f"https://{_HOSTS.get(location) or f'{location}-aiplatform'}.googleapis.com/v1beta1"
        ).rstrip("/")
        host_of(root)
        path = self._model.removeprefix("models/")
        path = path if "/" in path else f"publishers/google/models/{path}"
        if not path.startswith("projects/"):
            path = f"projects/{project}/locations/{location}/{path}"
        return f"{root}/{_path(path)}"

    def _secret_variable(self, argument: str) -> str:
        return "GEMINI_API_KEY" if argument == "api_key" else super()._secret_variable(argument)

    def _address(self, ask: Ask) -> str:
        return f"{self._url}:{'streamGenerateContent?alt=sse' if ask.stream else 'generateContent'}"

    async def _authorization(self) -> dict[str, str]:
        return await bearer(self._token, self._token_provider)

    def _body(self, ask: Ask) -> bytes:
        return encode_request(ask, self._fields, self._conversations, self._model)

    def _whole(self, body: str) -> Answer:
        if body.lstrip("\ufeff \t\r\n")[:1] != "[":
            return super()._whole(body)
        chunks = parse(f'{{"chunks":{body}}}', "the answer")["chunks"]  # a stream without alt=sse
        return decode_response(*(expect(chunks, list, "the answer") or ()))

    def _decode(self, data: dict[str, Any]) -> Answer:
        return decode_response(data)

    def _decoder(self) -> StreamDecoder:
        return GeminiDecoder()

    def _complaint(self, body: str) -> Complaint:
        return gemini_complaint(body)


def _path(path: str) -> str:
    from urllib.parse import quote

    return quote(path, safe="/:@")
