"""What every wire format shares of answers: what they are decoded to, and the care that strangers need. No I/O here."""

from __future__ import annotations

import hashlib
import json
import re
import reprlib
from dataclasses import dataclass, field

from .. import codec
from ..clock import new_id
from ..errors import DecodeError, IncompleteResponse, ModelError, ProtocolError
from ..messages import (
    ChatCompletionTokenLogprob,
    CreateResult,
    FunctionCall,
    RequestUsage,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any, Literal, NoReturn

    Reason = Literal["stop", "length", "function_calls", "content_filter", "unknown"]

DEPTH = codec.MAX_DEPTH // 2  # of what is kept of an answer; the documents it is saved in are deeper
_OPEN, _CLOSE = "<think>", "</think>"
_BLANKS = 64  # characters of white space before a text, behind which no tag is looked for


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


def call_arguments(call: FunctionCall) -> dict[str, Any]:
    """The arguments of a call as an object; `{"invalid_json": text}` if the model wrote something else."""
    try:
        arguments = json.loads(call.arguments or "{}", parse_constant=_no_number, parse_float=_finite)
    except (ValueError, RecursionError):
        arguments = None
    return arguments if isinstance(arguments, dict) else {"invalid_json": call.arguments}


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
    """The beginning of a text, for an error message; what to do about a web page."""
    page = " (a web page: check base_url)" if text.lstrip("\ufeff \t\r\n")[:1] == "<" else ""
    return repr(text[:count] + ("..." if len(text) > count else "")) + page


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
OR_ANOTHER = ", or another model (FallbackClient)"  # advice that a FallbackClient has followed already


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


def raise_error_in(data: Any) -> NoReturn:
    """Raise the `ModelError` for an error that came inside an answer with status 200; always, whatever that holds."""
    said = complaint(data)
    words = f"the provider broke off with an error: {said.message}" + (f" ({said.code})" if said.code else "")
    raise ModelError(words, request_id=said.request_id)
