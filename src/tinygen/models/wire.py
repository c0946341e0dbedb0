"""What every wire format shares: the request to encode, the answer to decode, and the care that strangers need.

No I/O here. A provider's file turns an `Ask` into a request, and a body or a stream's events into an `Answer`.
"""

from __future__ import annotations

import hashlib
import json
import re
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .. import codec
from ..clock import new_id
from ..errors import ConfigError, DecodeError, IncompleteResponse, ModelError, ProtocolError, did_you_mean
from ..messages import (
    ChatCompletionTokenLogprob,
    CreateResult,
    FunctionCall,
    FunctionExecutionResultMessage,
    RequestUsage,
    SystemMessage,
    UserMessage,
)
from . import schema_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Literal

    from ..messages import LLMMessage
    from . import ModelInfo, Tool, ToolChoice, ToolSchema

    Reason = Literal["stop", "length", "function_calls", "content_filter", "unknown"]

DEPTH = codec.MAX_DEPTH // 2  # of what is kept of an answer; the documents it is saved in are deeper
_OPEN, _CLOSE = "<think>", "</think>"
_BLANKS = 64  # characters of white space before a text, behind which no tag is looked for
_VERSION = "api-version"  # the one thing in an address's query that is no secret


# --- requests


@dataclass
class Ask:
    """What the caller wants, checked; `choice` is "auto", "required", "none" or the schema of the tool to call."""

    messages: Sequence[LLMMessage]
    tools: list[ToolSchema]
    choice: str | ToolSchema
    json_output: bool | type[Any] | None
    extra: Mapping[str, Any]
    stream: bool


@dataclass
class Request:
    """An encoded request. What the headers hold that is secret never appears in an error.

    `names` are those of tools, by the names under which they were sent, as far as they differ.
    """

    url: str
    headers: dict[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    names: Mapping[str, str] = field(default_factory=dict, repr=False)

    def raw_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers as bytes."""
        return [(name.encode("ascii"), value.encode("ascii")) for name, value in self.headers.items()]

    def secrets(self) -> list[str]:
        """Values of the headers and of the address that must not be shown."""
        words = ("key", "auth", "token", "secret", "cookie")
        values = [value for name, value in self.headers.items() if any(word in name.lower() for word in words)]
        address, _, query = self.url.partition("?")
        if user := re.match(r"\w+://([^/]*)@", address):
            values += user[1].split(":")
        values += [value for name, _, value in (pair.partition("=") for pair in query.split("&")) if name != _VERSION]
        return [
            part for value in values for part in value.split() if len(part) >= 4 and part not in ("Bearer", "Basic")
        ]


def checked_ask(
    messages: Sequence[LLMMessage],
    tools: Sequence[Tool | ToolSchema] = (),
    tool_choice: ToolChoice = "auto",
    json_output: bool | type[Any] | None = None,
    extra_create_args: Mapping[str, Any] = {},
    *,
    stream: bool,
    info: ModelInfo,
) -> Ask:
    """Check a caller's arguments against what the model can do. Raises `ConfigError`."""
    for name, value in (("messages", messages), ("tools", tools)):
        if not isinstance(value, Sequence):
            raise ConfigError(f"{name} must be a list, not {short(value)}")
    if not isinstance(extra_create_args, Mapping):
        raise ConfigError(f"extra_create_args must be a mapping, not {short(extra_create_args)}")
    schemas = [schema_of(tool) for tool in tools]
    if schemas and not info["function_calling"]:
        raise ConfigError("the model cannot call tools: model_info['function_calling'] is False; leave tools out")
    if json_output is True and not info["json_output"]:
        raise ConfigError("the model cannot be held to JSON: model_info['json_output'] is False")
    if not (json_output is None or isinstance(json_output, (bool, type)) or hasattr(json_output, "__args__")):
        raise ConfigError(f"json_output must be True, False, None or a type, not {json_output!r}")
    if json_output is not None and not isinstance(json_output, bool) and not info.get("structured_output", False):
        raise ConfigError("the model cannot be held to a schema: model_info['structured_output'] is False")
    if not info["vision"]:
        _no_pictures(messages)
    if not info.get("multiple_system_messages", False):
        messages = one_system_message(messages)
    return Ask(messages, schemas, _choice(tool_choice, schemas), json_output, extra_create_args, stream)


def _choice(choice: ToolChoice, schemas: list[ToolSchema]) -> str | ToolSchema:
    if isinstance(choice, str):
        if choice not in ("auto", "required", "none"):
            raise ConfigError(f"tool_choice must be 'auto', 'required', 'none' or a tool, not {choice!r}")
        return choice
    schema = schema_of(choice)
    if schemas and all(schema["name"] != each["name"] for each in schemas):
        near = did_you_mean(schema["name"], [each["name"] for each in schemas])
        raise ConfigError(f"tool_choice names {schema['name']!r}, which is not among the tools{near}")
    return schema


def _no_pictures(messages: Sequence[LLMMessage]) -> None:
    for message in messages:
        if isinstance(message, FunctionExecutionResultMessage) and any(
            getattr(result, "images", None) for result in message.content
        ):
            raise ConfigError(
                "the model cannot see pictures (model_info['vision'] is False), but the result of a tool holds one; "
                "take it out with remove_images(messages), or use a model with vision"
            )
        if isinstance(message, UserMessage) and any(not isinstance(part, str) for part in message.content):
            raise ConfigError(
                f"the model cannot see pictures (model_info['vision'] is False), but a message of {message.source!r} "
                f"holds one; take it out or use a model with vision"
            )


def one_system_message(messages: Sequence[LLMMessage]) -> Sequence[LLMMessage]:
    """The same conversation with all system messages joined into one at the front."""
    systems = [message for message in messages if isinstance(message, SystemMessage)]
    if not systems or (len(systems) == 1 and messages[0] is systems[0]):
        return messages
    rest = [message for message in messages if not isinstance(message, SystemMessage)]
    return [SystemMessage(content="\n".join(message.content for message in systems)), *rest]


def call_arguments(call: FunctionCall) -> dict[str, Any]:
    """The arguments of a call as an object; `{"invalid_json": text}` if the model wrote something else."""
    try:
        arguments = json.loads(call.arguments or "{}", parse_constant=_no_number, parse_float=_finite)
    except (ValueError, RecursionError):
        arguments = None
    return arguments if isinstance(arguments, dict) else {"invalid_json": call.arguments}


def checked(value: Any, kind: type[Any], message: LLMMessage) -> Any:
    """What a message holds, if it is of that kind. Raises `ConfigError`."""
    if isinstance(value, kind):
        return value
    raise ConfigError(f"a {type(message).__name__} holds {short(value)}; expected {kind.__name__}")


def reserved(name: str) -> ConfigError:
    """The error for a field of the request that callers may not set."""
    return ConfigError(f"{name!r} is set by the client itself; use create() or create_stream() instead of giving it")


def merged(roles: str, texts: Sequence[bytes], heads: Mapping[str, int]) -> Sequence[bytes]:
    """The texts of messages, with neighbours of one role made one: put together with commas, they are as expected.

    Args:
        roles: a letter for each message.
        heads: how long the beginning of a message is, up to its first part; it ends with two brackets.
    """
    if all(texts) and not any(role * 2 in roles for role in heads):
        return texts
    said = [(role, text) for role, text in zip(roles, texts) if text]
    before = ["", *(role for role, _ in said)]
    after = [*(role for role, _ in said[1:]), ""]
    return [
        text[heads[role] if role == last else 0 : -2 if role == following else None]
        for last, (role, text), following in zip(before, said, after)
    ]


def body_of(fields: Mapping[str, Any], name: str, texts: Iterable[bytes]) -> bytes:
    """The body of a request: its fields, and under `name` the list of messages, which are JSON already."""
    try:
        head = dumps(fields)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"an argument of the request cannot be written as JSON: {error}") from error
    parts = [*filter(None, texts)] or [b""]
    parts[0] = clean(f'{head[:-1]}{"," if fields else ""}"{name}":[').encode() + parts[0]
    parts[-1] += b"]}"
    return b",".join(parts)


def json_instruction(output: bool | type[Any]) -> str:
    """What to tell a model that cannot be held to JSON as long as it has tools."""
    words = "When you answer without calling a tool, write nothing but JSON"
    return f"{words}." if isinstance(output, bool) else f"{words} that fits this schema: {dumps(codec.schema(output))}"


# --- answers


@dataclass
class Answer:
    """What a model said, before it is fitted into a `CreateResult`.

    `finish` is the provider's own word. `usage` holds `prompt_tokens`, `completion_tokens` and, where they were
    reported, `total_tokens` and the other fields of a `RequestUsage`. `kept` is what the provider wants back unread.
    """

    text: str = ""
    thought: str = ""
    calls: list[FunctionCall] = field(default_factory=list)
    finish: str | None = None
    usage: dict[str, int] = field(default_factory=dict)
    logprobs: list[ChatCompletionTokenLogprob] | None = None
    kept: dict[str, Any] | None = None

    def result(self, reasons: Mapping[str, Reason]) -> CreateResult:
        """As every client returns it; `reasons` translates the provider's word."""
        reason: Reason = reasons.get(self.finish or "", "unknown")
        counts = self.usage
        usage = RequestUsage(
            counts.get("prompt_tokens", 0),
            counts.get("completion_tokens", 0),
            counts.get("cached_tokens", 0),
            counts.get("reasoning_tokens", 0),
            cache_write_tokens=counts.get("cache_write_tokens", 0),
            cache_write_1h_tokens=counts.get("cache_write_1h_tokens", 0),
        )
        text, thought = self.text, self.thought
        content: str | list[FunctionCall] = text
        if self.calls:
            if reason in ("stop", "unknown"):
                reason = "function_calls"
            content = _sound(self.calls, whole=reason == "function_calls")
            thought = "\n".join(part for part in (thought, text) if part)
        return CreateResult(
            finish_reason=reason,
            content=content,
            usage=usage,
            cached=False,
            logprobs=self.logprobs,
            thought=thought or None,
            provider_data=self.kept,
        )


def _sound(calls: list[FunctionCall], whole: bool) -> list[FunctionCall]:
    """The calls with ids that are there and differ; an empty text of arguments, if it is whole, stands for none."""
    seen: set[str] = set()
    sound = []
    for call in calls:
        identity = call.id if call.id and call.id not in seen else new_call_id()
        seen.add(identity)
        arguments = "{}" if whole and not call.arguments.strip() else call.arguments
        sound.append(FunctionCall(id=identity, arguments=arguments, name=call.name))
    return sound


def read_call(identity: Any, name: Any, arguments: Any) -> FunctionCall:
    """A tool call as a provider tells it; arguments that come as data are written. Raises `ProtocolError`."""
    if not expect(name, str, "the name of a tool"):
        raise ProtocolError(f"the answer does not follow the protocol: tool call {short(identity)} names no tool")
    if isinstance(arguments, (dict, list)):
        arguments = written(arguments, "the arguments of a tool call")
    text = expect(arguments, str, "the arguments of a tool call") or ""
    return FunctionCall(clean(expect(identity, str, "the id of a call") or ""), clean(text), clean(name))


def new_call_id() -> str:
    """An id for a tool call that came without one: nine letters and digits, the strictest provider's form."""
    return hashlib.sha256(new_id().encode()).hexdigest()[:9]


def is_made_up(call_id: str) -> bool:
    """Whether an id looks like one that the provider did not give."""
    return re.fullmatch("[0-9a-f]{9}", call_id) is not None


class StreamDecoder:
    """Puts an answer together from the events of a stream; subclasses define `feed`.

    `done` tells that nothing more is wanted; `complete` that what came is a whole answer; `names` are beginnings of the
    names of events that must be JSON, beside those without a name.
    """

    names: tuple[str, ...] = ("message", "error")

    def __init__(self) -> None:
        self.answer = Answer()
        self.done = False
        self.complete = False
        self._text: list[str] = []
        self._thought: list[str] = []
        self._shown = 0  # how many of them were handed out
        self._tags = TagSplitter()
        self._half = ""  # the first half of a surrogate pair, waiting for the second

    def feed(self, event: str, data: str) -> str:
        """Take one event in; returns the text it adds. Raises `ModelError`."""
        raise NotImplementedError

    def _parsed(self, event: str, data: str) -> dict[str, Any] | None:
        """The data of an event; None for news that are for somebody else, or come when the answer is complete."""
        try:
            return parse(data, "an event of the stream")
        except ProtocolError:
            if self.complete or (event and not event.startswith(self.names)):
                return None
            raise

    def fresh_thought(self) -> str:
        """The thinking that came since this was asked last."""
        if self._shown == len(self._thought):
            return ""
        shown, self._shown = self._shown, len(self._thought)
        return clean("".join(self._thought[shown:]))

    def end(self) -> str:
        """The stream is over: returns what text was still held back, if the answer is complete.

        Raises `IncompleteResponse` if it is not.
        """
        if not self.complete:
            raise IncompleteResponse(
                "the stream ended before the answer did: no finish reason and no end mark came; ask again, or use the "
                "partial text on this error"
            )
        return self._add("�" if self._half else "", last=True)

    def finished(self) -> Answer:
        """The answer, all of which was taken in."""
        self.complete = True
        self.end()
        return self.whole()

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._text)

    @property
    def begun(self) -> bool:
        """Whether something of the answer may have been shown."""
        return bool(self._text or self._thought)

    @property
    def partial(self) -> str:
        """The text so far, with what was held back of it."""
        return self.text + self._tags.held

    def whole(self) -> Answer:
        """The answer, once the stream is over."""
        self.answer.text = self.text
        self.answer.thought = clean("".join(self._thought))
        return self.answer

    def _say(self, text: str) -> str:
        """Add a piece of text; returns what of it is ready to be shown."""
        if not text.isascii() or self._half:
            text, self._half = self._half + text, ""
            if "\ud800" <= text[-1:] <= "\udbff":
                text, self._half = text[:-1], text[-1]
            text = clean(text)
        return self._add(text) if text else ""

    def _think(self, thought: Any) -> None:
        """Add a piece of thinking; servers put other things in its place too, which do not matter."""
        if thought and isinstance(thought, str):
            self._thought.append(thought)

    def _add(self, text: str, last: bool = False) -> str:
        if not self._tags.settled or last:
            text, thought = self._tags.feed(text, last)
            if thought:
                self._thought.append(thought)
        if text:
            self._text.append(text)
        return text


class TagSplitter:
    """Splits off the thinking that stands in <think> tags at the head of a text that comes in pieces.

    Tags anywhere else are text. `settled` tells that all the rest is text.
    """

    def __init__(self) -> None:
        self.settled = False
        self._held = ""
        self._inside = False
        self._after = False  # the closing tag was seen; the white space behind it is dropped

    @property
    def held(self) -> str:
        """Text that may turn out to be an opening tag."""
        return "" if self._inside else self._held

    def feed(self, piece: str, last: bool = False) -> tuple[str, str]:
        """The text and the thinking that are certain after this piece."""
        held, self._held = self._held + piece, ""
        thought = ""
        if not self._inside and not self._after:
            head = held.lstrip()
            if head.startswith(_OPEN):
                self._inside, held = True, head[len(_OPEN) :]
            elif last or not _OPEN.startswith(head) or len(held) > _BLANKS:
                self.settled = True
                return held, ""
            else:
                self._held = held
                return "", ""
        if self._inside:
            thought, tag, rest = held.partition(_CLOSE)
            if not tag:
                keep = 0 if last else _overlap(held)
                self._held = held[len(held) - keep :]
                return "", held[: len(held) - keep]
            self._inside, self._after, held = False, True, rest
        held = held.lstrip()
        self.settled = bool(held)
        return held, thought


def _overlap(text: str) -> int:
    """How many characters at the end of `text` may be the beginning of the closing tag."""
    return next((n for n in range(len(_CLOSE) - 1, 0, -1) if text.endswith(_CLOSE[:n])), 0)


def clean(text: str) -> str:
    """`text` without half surrogate pairs, which no file and no request takes; U+FFFD stands for each."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


def _finite(text: str) -> float:
    value = float(text)
    return value if abs(value) < float("inf") else _no_number(text)  # 1e999, which no request can carry


dumps = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
# codec.loads is stricter: it refuses half surrogate pairs, which models do send
_read = json.JSONDecoder(parse_constant=_no_number).decode
_write = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def parse(data: str, what: str) -> dict[str, Any]:
    """The JSON object in `data`. Raises `ProtocolError` for anything else; `what` names it there."""
    try:
        value: Any = _read(data.lstrip("\ufeff"))
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"{what} is not JSON ({error}); it begins {start_of(data)}") from None
    if value.__class__ is not dict:
        raise ProtocolError(f"{what} is JSON but not an object; it begins {start_of(data)}")
    return value


def written(value: Any, what: str) -> str:
    """JSON data as text. Raises `ProtocolError` for what is nested too deeply."""
    try:
        return clean(_write(value))
    except RecursionError:
        raise ProtocolError(f"{what} are nested too deeply") from None


def keepable(value: Any, what: str) -> Any:
    """JSON data as it can be saved and sent again: without half surrogate pairs and numbers that are none.

    Raises `ProtocolError` for what is nested too deeply.
    """
    kept = json.loads(written(value, what), parse_constant=lambda _: None)
    try:
        return codec.loads(dumps(kept), max_depth=DEPTH)
    except DecodeError as error:
        raise ProtocolError(f"{what} cannot be kept: {error}") from None


def start_of(text: str, count: int = 200) -> str:
    """The beginning of a text, for an error message."""
    return repr(text[:count] + ("..." if len(text) > count else ""))


def expect(value: Any, kind: type[Any], what: str) -> Any:
    """`value` if it is of that kind; None counts as left out. Raises `ProtocolError`."""
    if value is None or isinstance(value, kind):
        return value
    raise ProtocolError(
        f"the answer does not follow the protocol: {what} should be {kind.__name__}, not {short(value)}"
    )


def short(value: Any) -> str:
    """What to show of a value, however large and deep it is."""
    return reprlib.repr(value)


def number(value: Any) -> int:
    """A count of tokens; what is not one counts as 0."""
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return int(value) if real and 0 <= value <= 2**53 and value == int(value) else 0


def counts_in(usage: Any, **places: str) -> dict[str, int]:
    """The counts of tokens that a report of usage holds.

    Args:
        places: where a count stands, by the name it is to have; "a.b" is b in a.
    """
    found = {}
    for name, place in places.items():
        outer, _, key = place.rpartition(".")
        holder = usage.get(outer) if outer and isinstance(usage, dict) else usage
        if isinstance(holder, dict) and key in holder:
            found[name] = number(holder[key])
    return found


# --- errors

QUOTA = "insufficient_quota"
BAD_KEY = "invalid_api_key"  # which some report with status 400


@dataclass
class Complaint:
    """What a provider says in an error body: its words, its code, the seconds it asks to wait, and of which request."""

    message: str = ""
    code: str = ""
    retry_after: float | None = None
    request_id: str | None = None


def complaint(data: Any) -> Complaint:
    """Read an error body in any of the shapes that providers use; text that is no JSON is its own message."""
    if isinstance(data, str):
        try:
            data = _read(data.lstrip("\ufeff"))
        except (ValueError, RecursionError):
            pass
    if isinstance(data, list) and data:
        data = data[0]
    if not isinstance(data, dict):
        return Complaint(_cut(clean(data.strip())) if isinstance(data, str) else "")
    inner = data.get("error")
    error: dict[str, Any] = inner if isinstance(inner, dict) else data
    texts = [error.get("message"), inner, data.get("detail"), data.get("message"), error.get("type")]
    message = next((text for text in texts if isinstance(text, str) and text), "")
    if not message and (left := inner or data.get("detail") or data):
        message = written(left, "the details of the error")
    metadata = error.get("metadata")
    if isinstance(metadata, dict) and isinstance(metadata.get("raw"), str):
        message = f"{message}: {metadata['raw']}"
    details = [each for each in _list(error.get("details")) if isinstance(each, dict)]
    codes = [error.get("status"), error.get("code"), error.get("type")]
    code = next((short_code for each in codes if (short_code := _code(each))), "")
    if any(each.get("reason") == "API_KEY_INVALID" for each in details):
        code = BAD_KEY
    waits = [re.fullmatch(r"(\d{1,9}(\.\d*)?)s", str(each.get("retryDelay"))) for each in details]
    return Complaint(
        _cut(clean(message)),
        QUOTA if QUOTA in codes else code,
        next((float(wait[1]) for wait in waits if wait), None),
        _code(data.get("request_id")) or None,
    )


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _code(value: Any) -> str:
    return _cut(clean(str(value)), 100) if isinstance(value, (str, int)) and value else ""


def _cut(text: str, count: int = 1500) -> str:
    return text if len(text) <= count else text[:count] + "..."


def presentable(text: str, secrets: Iterable[str]) -> str:
    """The text of an error, without secrets and not too long.

    Pieces of secrets are taken out too: a text that was cut may end inside one.
    """
    text = text[:20_000]
    for secret in secrets:
        size = min(6, len(secret))
        pieces = {secret[at : at + size] for at in range(len(secret) - size + 1)}
        characters = list(text)
        for at in range(len(text) - size + 1):
            if text[at : at + size] in pieces:
                characters[at : at + size] = "\0" * size
        text = re.sub("\0+", "***", "".join(characters))
    return _cut(clean(text), 2000)


def shown(url: str) -> str:
    """An address without what may be secret in it."""
    return re.sub(r"//[^/]*@", "//", url).partition("?")[0]


def raise_error_in(data: Any) -> None:
    """Raise the `ModelError` for an error that came inside an answer with status 200."""
    said = complaint(data)
    words = f"the provider broke off with an error: {said.message}" + (f" ({said.code})" if said.code else "")
    raise ModelError(words, request_id=said.request_id)
