"""What each provider accepts, as data, and the one way in which conversations and schemas are made to fit.

A `Dialect` has no code: a provider with other rules is another row. `normalise` works on messages, before they are
encoded, and returns the same objects wherever nothing changes, so that their texts stay known. Whatever any provider
would refuse it mends for all: calls without results, results without calls, results that stand elsewhere than directly
behind their calls, ids that occur twice.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field, replace

from ..errors import ConfigError
from ..messages import (
    AssistantMessage,
    FunctionCall,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    SystemMessage,
    UserMessage,
)
from .schemas import ANY, SchemaRules, fitted
from .wire import one_system_message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Literal

    from ..messages import LLMMessage


@dataclass(frozen=True)
class Dialect:
    """What a provider accepts.

    Of conversations:

    Args:
        name: of the provider or wire format.
        one_system: there may be one system message only, at the front; else several, anywhere.
        empty_content: texts may be empty or white space.
        names: user and assistant messages may say who speaks, as `name`.
        user_first: the first message that is not the system's must be a user's, and there must be one.
        alternates: two messages of one role may not follow each other.
        user_after_results: a user may speak directly after tool results.
        last: "any" message may end a conversation; or an assistant's may, if it ends with no white space ("stripped");
            or not even that ("user").
        parallel_calls: one message may hold several calls.
        text_beside_calls: a message with calls may hold text too.
        null_content: where a message has calls and no text, its content may be null; else it is an empty text.
        object_arguments: arguments of past calls must be JSON objects, even if the model wrote something else.
        call_id, tool_name: what ids of calls and names of tools must look like.

    Of requests:

    Args:
        stream_options: a stream may be asked for its usage.
        strict_tools: tools may be marked `strict`.
        json_schema: an answer can be held to a schema; else only to JSON.
        renames: fields of the request by the name under which they are known here.
        reasoning: beginnings of the names of models that reason, a pattern.
        reasoning_renames: likewise, for those models.
        reasoning_refuses: fields that make such a model refuse the request; they are left out.
        thoughts: the field of an assistant's message that must come back with it as it came, None if there is none.
        tools, output: schemas of a tool's arguments, and of answers.
    """

    name: str
    one_system: bool = False
    empty_content: bool = True
    names: bool = True
    user_first: bool = False
    alternates: bool = False
    user_after_results: bool = True
    last: Literal["any", "stripped", "user"] = "any"
    parallel_calls: bool = True
    text_beside_calls: bool = True
    null_content: bool = True
    object_arguments: bool = False
    call_id: str = r".+"
    tool_name: str = r"[a-zA-Z0-9_-]{1,64}"
    stream_options: bool = True
    strict_tools: bool = True
    json_schema: bool = True
    renames: Mapping[str, str] = field(default_factory=dict)
    reasoning: str | None = None
    reasoning_renames: Mapping[str, str] = field(default_factory=dict)
    reasoning_refuses: frozenset[str] = frozenset()
    thoughts: str | None = None
    tools: SchemaRules = ANY
    output: SchemaRules = ANY

    def fitted_fields(self, model: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Fields of a request by the names that this model knows, without those it refuses."""
        renames, refused = self.renames, frozenset[str]()
        if self.reasoning is not None and re.match(self.reasoning, model.rsplit("/", 1)[-1]):
            renames, refused = {**renames, **self.reasoning_renames}, self.reasoning_refuses
        return {renames.get(name, name): value for name, value in fields.items() if name not in refused}


# --- who accepts what

_LIMIT = {"max_completion_tokens": "max_tokens"}
_CLOSED = SchemaRules(closed=True)

# what is not known better: servers that follow OpenAI, but do not know its newest fields
CHAT = Dialect("chat")
LOCAL = Dialect("local", one_system=True, object_arguments=True, null_content=False)  # templates written for one system
OPENAI = Dialect(
    "openai",
    call_id=r".{1,40}",
    reasoning=r"o\d|gpt-5(?!\.|-chat)",
    reasoning_renames={"max_tokens": "max_completion_tokens"},
    reasoning_refuses=frozenset(
        "temperature top_p presence_penalty frequency_penalty logprobs top_logprobs logit_bias".split()
    ),
)
RESPONSES = replace(
    OPENAI,
    name="responses",
    names=False,
    call_id=r".{1,64}",
    renames={"max_tokens": "max_output_tokens", "max_completion_tokens": "max_output_tokens"},
    reasoning_renames={},
    reasoning_refuses=frozenset({"temperature", "top_p", "top_logprobs"}),
)
ANTHROPIC = Dialect(  # the system message stands apart; neighbours of one role count as one message
    "anthropic",
    one_system=True,
    empty_content=False,
    names=False,
    user_first=True,
    last="stripped",
    object_arguments=True,
    call_id=r"[a-zA-Z0-9_-]+",
    tool_name=r"[a-zA-Z0-9_-]{1,128}",
    output=SchemaRules(
        keywords=frozenset(
            "type properties required additionalProperties items enum const anyOf allOf $ref $defs description title "
            "default format".split()
        ),
        formats=frozenset("date-time time date duration email hostname uri ipv4 ipv6 uuid".split()),
        closed=True,
    ),
)
_GEMINI = SchemaRules(
    keywords=frozenset(
        "type format title description nullable enum maxItems minItems properties required minProperties maxProperties "
        "minLength maxLength pattern anyOf items minimum maximum".split()
    ),
    formats=frozenset("enum date-time int32 int64 float double".split()),
    references=False,
    nullable=True,
)
GEMINI = Dialect(  # the system message stands apart; an encoder makes one message of neighbours of one role
    "gemini",
    one_system=True,
    empty_content=False,
    names=False,
    user_first=True,
    last="user",
    object_arguments=True,
    tool_name=r"[a-zA-Z_][a-zA-Z0-9_.-]{0,63}",
    tools=_GEMINI,
    output=_GEMINI,
)
OLLAMA = Dialect("ollama", names=False, object_arguments=True, tools=SchemaRules(references=False))
MISTRAL = Dialect(
    "mistral",
    one_system=True,
    empty_content=False,
    names=False,
    user_first=True,
    user_after_results=False,
    last="user",
    text_beside_calls=False,
    null_content=False,
    object_arguments=True,
    call_id=r"[a-zA-Z0-9]{9}",
    stream_options=False,
    renames={**_LIMIT, "seed": "random_seed"},
    output=_CLOSED,
)
DEEPSEEK = Dialect(
    "deepseek",
    strict_tools=False,
    json_schema=False,
    object_arguments=True,
    renames=_LIMIT,
    thoughts="reasoning_content",
)

DIALECTS = {
    each.name: each
    for each in (
        CHAT,
        LOCAL,
        OPENAI,
        RESPONSES,
        ANTHROPIC,
        GEMINI,
        OLLAMA,
        MISTRAL,
        DEEPSEEK,
        replace(DEEPSEEK, name="moonshot", json_schema=True),
        replace(DEEPSEEK, name="zai", names=False),
        Dialect("groq", names=False, object_arguments=True, output=_CLOSED),
        Dialect("cerebras", names=False, renames={"max_tokens": "max_completion_tokens"}, output=_CLOSED),
        Dialect("together", renames=_LIMIT),
        Dialect("fireworks", renames=_LIMIT),
        Dialect("openrouter", renames=_LIMIT, thoughts="reasoning_details"),
        Dialect(
            "xai",
            empty_content=False,
            reasoning=r"grok-(4|3-mini)(?!.*non-reasoning)",
            reasoning_refuses=frozenset({"presence_penalty", "frequency_penalty", "stop"}),
        ),
        Dialect(
            "perplexity",
            one_system=True,
            empty_content=False,
            names=False,
            user_first=True,
            alternates=True,
            user_after_results=False,
            last="user",
            stream_options=False,
            renames=_LIMIT,
        ),
        Dialect(
            "gemini-chat",  # Gemini behind OpenAI's protocol
            one_system=True,
            empty_content=False,
            names=False,
            user_first=True,
            object_arguments=True,
            strict_tools=False,
            thoughts="extra_content",
        ),
        Dialect(
            "anthropic-chat",  # likewise Anthropic
            one_system=True,
            empty_content=False,
            names=False,
            user_first=True,
            last="stripped",
            object_arguments=True,
            call_id=r"[a-zA-Z0-9_-]+",
        ),
    )
}

# --- conversations

# put in where a provider wants something to stand; the same objects always, so that they are encoded once
_BEGIN = UserMessage(content="(Earlier messages are left out.)", source="user")
_GO_ON = UserMessage(content="Go on.", source="user")
_NOTED = AssistantMessage(content="Noted.", source="assistant")
_EMPTY = "(empty)"
_KINDS = (SystemMessage, UserMessage, AssistantMessage, FunctionExecutionResultMessage)
_UNANSWERED = "This call has no result: it was not finished."


def normalise(messages: Sequence[LLMMessage], dialect: Dialect) -> Sequence[LLMMessage]:
    """The conversation as a provider of this dialect accepts it; `messages` itself if it does already."""
    for kind in set(map(type, messages)):
        if not issubclass(kind, _KINDS):
            stranger = next(message for message in messages if type(message) is kind)
            raise ConfigError(f"{stranger!r} is not a message for a model; give a System, User or AssistantMessage")
    talk = one_system_message(messages) if dialect.one_system else messages
    if not dialect.empty_content:
        talk = _without_empty(talk)
    if not _in_order(talk, dialect):
        talk = _Pairing(talk, dialect).paired()
    if dialect.alternates:
        talk = _alternating(talk)
    if dialect.user_first:
        first = next((at for at, m in enumerate(talk) if not isinstance(m, SystemMessage)), len(talk))
        if first == len(talk) or not isinstance(talk[first], UserMessage):
            talk = [*talk[:first], _BEGIN, *talk[first:]]
    if not dialect.user_after_results:
        talk = _answered(talk)
    return talk if dialect.last == "any" else _ended(talk, strip=dialect.last == "stripped")


def call_arguments(call: FunctionCall) -> dict[str, Any]:
    """The arguments of a call as an object; `{"invalid_json": text}` if the model wrote something else."""
    try:
        arguments = json.loads(call.arguments or "{}", parse_constant=_no_number, parse_float=_finite)
    except (ValueError, RecursionError):
        arguments = None
    return arguments if isinstance(arguments, dict) else {"invalid_json": call.arguments}


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


def _finite(text: str) -> float:
    value = float(text)
    return value if abs(value) < float("inf") else _no_number(text)  # 1e999, which no request can carry


def calls_of(message: LLMMessage) -> list[FunctionCall]:
    """The calls that a message asks for. What is no call at all is left to the encoder, which refuses it."""
    content = message.content if isinstance(message, AssistantMessage) else None
    sound = isinstance(content, list) and all(isinstance(call, FunctionCall) for call in content)
    return content if sound else []  # type: ignore[return-value]


def _results_of(message: LLMMessage) -> list[FunctionExecutionResult]:
    content = message.content if isinstance(message, FunctionExecutionResultMessage) else None
    sound = isinstance(content, list) and all(isinstance(result, FunctionExecutionResult) for result in content)
    return content if sound else []  # type: ignore[return-value]


def _without_empty(messages: Sequence[LLMMessage]) -> Sequence[LLMMessage]:
    contents = [message.content for message in messages]
    texts = [content for content in contents if isinstance(content, str)]
    parts = len(texts) < len(contents) and any(
        isinstance(m, UserMessage) and m.content.__class__ is list for m in messages
    )
    if all(contents) and not any(map(str.isspace, texts)) and not parts:
        return messages
    talk = [fitted for message in messages if (fitted := _not_empty(message)) is not None]
    return messages if _same(talk, messages) else talk


def _same(one: Sequence[LLMMessage], other: Sequence[LLMMessage]) -> bool:
    return len(one) == len(other) and all(a is b for a, b in zip(one, other))


def _not_empty(message: LLMMessage) -> LLMMessage | None:
    """The message without empty texts; None if nothing of it is left."""
    content = message.content
    if isinstance(message, UserMessage) and isinstance(content, list):
        parts = [part for part in content if not isinstance(part, str) or part.strip()]
        if parts and len(parts) == len(content):
            return message
        return UserMessage(content=parts or _EMPTY, source=message.source)  # type: ignore[arg-type]
    if isinstance(message, AssistantMessage) and content == []:
        return None
    if not isinstance(content, str) or content.strip():
        return message
    return UserMessage(content=_EMPTY, source=message.source) if isinstance(message, UserMessage) else None


def _in_order(messages: Sequence[LLMMessage], dialect: Dialect) -> bool:
    """Whether there is nothing to pair: nearly every conversation, so that this is what has to be fast."""
    fits_id, fits_name = re.compile(dialect.call_id).fullmatch, re.compile(dialect.tool_name).fullmatch
    seen: set[str] = set()
    lists = iter([at for at, m in enumerate(messages) if m.content.__class__ is not str and type(m) is not UserMessage])
    for at in lists:
        asked, answered = messages[at], messages[at + 1] if next(lists, None) == at + 1 else None
        if type(asked) is not AssistantMessage or type(answered) is not FunctionExecutionResultMessage:
            return False
        calls, results = asked.content, answered.content
        many = len(calls) > 1 and not dialect.parallel_calls
        if not calls or len(calls) != len(results) or many or (asked.thought and not dialect.text_beside_calls):
            return False
        for call, result in zip(calls, results):
            if call.__class__ is not FunctionCall or result.__class__ is not FunctionExecutionResult:
                return False
            identity, name = call.id, call.name
            if identity != result.call_id or name != result.name or identity in seen:
                return False
            if not fits_id(identity) or not fits_name(name):
                return False
            seen.add(identity)
    return True


class _Pairing:
    """Puts the results directly behind their calls, and makes up what is missing of either."""

    def __init__(self, messages: Sequence[LLMMessage], dialect: Dialect) -> None:
        self._messages = messages
        self._dialect = dialect
        self._id = re.compile(dialect.call_id).fullmatch
        self._name = re.compile(dialect.tool_name).fullmatch
        self._seen: set[str] = set()
        self._taken: set[tuple[int, int]] = set()  # places of results that stand behind their calls already
        self._talk: list[LLMMessage] = []

    def paired(self) -> Sequence[LLMMessage]:
        """The whole conversation."""
        for at, message in enumerate(self._messages):
            if calls := calls_of(message):
                self._exchange(at, message, calls)  # type: ignore[arg-type]
            elif results := _results_of(message):
                if left := [result for n, result in enumerate(results) if (at, n) not in self._taken]:
                    self._orphans(left)
            elif message.content != [] or isinstance(message, UserMessage):
                self._talk.append(message)
        return self._messages if _same(self._talk, self._messages) else self._talk

    def _exchange(self, at: int, message: AssistantMessage, calls: list[FunctionCall]) -> None:
        """Add a message with calls, and their results."""
        results = self._found(at, calls)
        follower = self._messages[at + 1] if at + 1 < len(self._messages) else message
        whole = [id(each) for each in _results_of(follower)] == [id(each) for each in results]
        self._add(message, calls, results, follower if whole else None)  # type: ignore[arg-type]

    def _found(self, at: int, calls: list[FunctionCall]) -> list[FunctionExecutionResult | None]:
        """The result of each call: the next one with its id, before another call has that id."""
        found: list[FunctionExecutionResult | None] = [None] * len(calls)
        wanted: dict[str, list[int]] = {}
        for n, call in enumerate(calls):
            wanted.setdefault(call.id, []).append(n)
        for later in range(at + 1, len(self._messages)):
            if not wanted:
                break
            message = self._messages[later]
            for call in calls_of(message):
                wanted.pop(call.id, None)
            for n, result in enumerate(_results_of(message)):
                if result.call_id in wanted and (later, n) not in self._taken:
                    found[wanted[result.call_id].pop(0)] = self._take(later, n, result)
                    if not wanted[result.call_id]:
                        del wanted[result.call_id]
        if None in found:
            self._by_name(at, calls, found)
        return found

    def _by_name(self, at: int, calls: list[FunctionCall], found: list[FunctionExecutionResult | None]) -> None:
        """Results that stand at the right place under another id belong to the calls of that tool that have none."""
        for n, result in enumerate(_results_of(self._messages[at + 1]) if at + 1 < len(self._messages) else ()):
            for which, call in enumerate(calls):
                if found[which] is None and call.name == result.name and (at + 1, n) not in self._taken:
                    found[which] = self._take(at + 1, n, result)

    def _take(self, at: int, n: int, result: FunctionExecutionResult) -> FunctionExecutionResult:
        self._taken.add((at, n))
        return result

    def _orphans(self, results: list[FunctionExecutionResult]) -> None:
        """Results of calls that are not there, for example because a context begins behind them."""
        calls = [FunctionCall(id=result.call_id, arguments="{}", name=result.name) for result in results]
        self._add(AssistantMessage(content=calls, source="assistant"), calls, list(results), None)

    def _add(
        self,
        message: AssistantMessage,
        calls: list[FunctionCall],
        results: list[FunctionExecutionResult | None],
        whole: FunctionExecutionResultMessage | None,
    ) -> None:
        fitted = [self._call(call) for call in calls]
        answers = [_answer(call, result) for call, result in zip(fitted, results)]
        if any(a is not b for a, b in zip(answers, results)):
            whole = None
        same = all(a is b for a, b in zip(fitted, calls))
        thought = message.thought if self._dialect.text_beside_calls else None
        if not self._dialect.parallel_calls and len(calls) > 1:
            for call, answer in zip(fitted, answers):
                self._talk.append(AssistantMessage(content=[call], thought=thought, source=message.source))
                self._talk.append(FunctionExecutionResultMessage(content=[answer]))
                thought = None
            return
        if not same or thought != message.thought:
            message = AssistantMessage(
                content=fitted, thought=thought, source=message.source, provider_data=message.provider_data
            )
        self._talk.append(message)
        self._talk.append(whole or FunctionExecutionResultMessage(content=answers))

    def _call(self, call: FunctionCall) -> FunctionCall:
        """The call with an id and a name that fit; the same words give the same id each time."""
        identity, name, count = call.id, call.name, 0
        while identity in self._seen or not self._id(identity):
            identity = hashlib.sha256(f"{call.id}/{count}".encode("utf-8", "replace")).hexdigest()[:9]
            count += 1
        self._seen.add(identity)
        if not self._name(name):
            name = re.sub(r"[^a-zA-Z0-9_-]", "_", name)[:64]
            name = name if self._name(name) else f"tool_{name}"[:64]
        return call if (identity, name) == (call.id, call.name) else FunctionCall(identity, call.arguments, name)


def _answer(call: FunctionCall, result: FunctionExecutionResult | None) -> FunctionExecutionResult:
    """The result under the id and name of its call."""
    if result is None:
        return FunctionExecutionResult(content=_UNANSWERED, name=call.name, call_id=call.id, is_error=True)
    if (result.call_id, result.name) == (call.id, call.name):
        return result
    return FunctionExecutionResult(content=result.content, name=call.name, call_id=call.id, is_error=result.is_error)


def _alternating(messages: Sequence[LLMMessage]) -> Sequence[LLMMessage]:
    """Neighbours of one role made one message, or parted by a word of the other side."""
    talk: list[LLMMessage] = []
    for message in messages:
        last = talk[-1] if talk else None
        if isinstance(last, UserMessage) and isinstance(message, UserMessage):
            talk[-1] = UserMessage(content=_joined(last.content, message.content), source=last.source)
        elif isinstance(last, AssistantMessage) and isinstance(message, AssistantMessage):
            if isinstance(last.content, str) and isinstance(message.content, str):
                talk[-1] = AssistantMessage(content=f"{last.content}\n\n{message.content}", source=last.source)
            else:
                talk += [_GO_ON, message]
        else:
            talk.append(message)
    return messages if _same(talk, messages) else talk


def _joined(first: Any, second: Any) -> Any:
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}\n\n{second}"
    return [*([first] if isinstance(first, str) else first), *([second] if isinstance(second, str) else second)]


def _answered(messages: Sequence[LLMMessage]) -> Sequence[LLMMessage]:
    """A word of the assistant put between tool results and a user."""
    places = [
        at
        for at in range(1, len(messages))
        if isinstance(messages[at], UserMessage) and isinstance(messages[at - 1], FunctionExecutionResultMessage)
    ]
    talk = list(messages)
    for at in reversed(places):
        talk.insert(at, _NOTED)
    return talk if places else messages


def _ended(messages: Sequence[LLMMessage], strip: bool) -> Sequence[LLMMessage]:
    last = messages[-1] if messages else None
    if not isinstance(last, AssistantMessage) or not isinstance(last.content, str):
        return messages
    if not strip:
        return [*messages, _GO_ON]
    if last.content == (content := last.content.rstrip()):
        return messages
    return [
        *messages[:-1],
        AssistantMessage(content=content, thought=last.thought, source=last.source, provider_data=last.provider_data),
    ]


def fitted_schema(schema: Mapping[str, Any], dialect: Dialect, output: bool = False) -> dict[str, Any]:
    """A JSON Schema as a provider of this dialect accepts it, for a tool's arguments or for an `output`."""
    return fitted(schema, dialect.output if output else dialect.tools)
