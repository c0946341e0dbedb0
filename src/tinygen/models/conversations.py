"""Conversations as providers accept them, and as bytes.

`Conversations` sees from what it remembers of each message whether a conversation fits as it is, as most do. If not,
`normalise` works on the messages, before they are encoded, and returns the same objects wherever nothing changes, so
that their texts stay known. Whatever any provider would refuse it mends for all: calls without results, results without
calls, results that stand elsewhere than directly behind their calls, ids that occur twice.
"""

from __future__ import annotations

import hashlib
import re
import weakref
from dataclasses import replace

from ..errors import ConfigError
from ..messages import (
    AssistantMessage,
    FunctionCall,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    SystemMessage,
    UserMessage,
)
from .asks import checked, one_system_message
from .dialects import fitted_name
from .texts import MessageTexts
from .wire import clean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from ..messages import LLMMessage
    from .dialects import Dialect

# put in where a provider wants something to stand; the same objects always, so that they are encoded once
_BEGIN = UserMessage(content="(Earlier messages are left out.)", source="user")
_GO_ON = UserMessage(content="Go on.", source="user")
_NOTED = AssistantMessage(content="Noted.", source="assistant")
_EMPTY = "(empty)"
_UNANSWERED = "This call has no result: it was not finished."


class Conversations:
    """Makes conversations fit a dialect, and encodes them. What is made of a message is remembered as long as it lives.

    Args:
        encode: the JSON text of a message; "" if there is nothing to send of it.
        maker: who gets them; what was signed for anybody else is left out.
    """

    def __init__(self, dialect: Dialect, encode: Callable[[LLMMessage], str], maker: str = "") -> None:
        self._dialect = dialect
        self._encode = encode
        self._maker = maker
        self._made = MessageTexts(self._make)

    def fitted(self, messages: Sequence[LLMMessage]) -> tuple[Sequence[LLMMessage], str, list[bytes]]:
        """The conversation as it is accepted, `messages` itself if it is; a letter for each message; and its text.

        The letters: system, user, assistant, (an assistant's) calls, results.
        """
        dialect, made = self._dialect, self._made.texts(messages)
        talk = messages if _is_sound(made, dialect) else _sound(messages, dialect, self._maker)
        talk = _rounded(talk, dialect)
        if talk is not messages:
            made = self._made.texts(talk)
        if (ended := _ended(talk, dialect)) is not talk:  # which changes nothing but the last message
            talk, made = ended, [*made[: len(ended) - 1], *self._made.texts(ended[-1:])]
        return talk, "".join([letter for letter, _, _ in made]).lower(), [text for _, _, text in made]

    def _make(self, message: LLMMessage) -> tuple[str, Any, bytes]:
        """The letter of a message, a capital if it does not fit; ids and names of its calls or results; its text."""
        letter, dialect = _letter(message), self._dialect
        ids: tuple[tuple[str, str], ...] = ()
        if letter in "cr":
            kind = FunctionCall if letter == "c" else FunctionExecutionResult
            ids = tuple(_identity(checked(part, kind, message)) for part in checked(message.content, list, message))
            fits = len(ids) > 0 and (letter == "r" or _calls_fit(message, ids, dialect))  # type: ignore[arg-type]
        else:
            fits = dialect.empty_content or _not_empty(message, dialect) is message
        fits = fits and _own(message, dialect, self._maker) is message
        return letter if fits else letter.upper(), ids, clean(self._encode(message)).encode()


_LETTERS = (
    (UserMessage, "u"),
    (AssistantMessage, "a"),
    (FunctionExecutionResultMessage, "r"),
    (SystemMessage, "s"),
)


def _letter(message: LLMMessage) -> str:
    letter = next((letter for kind, letter in _LETTERS if isinstance(message, kind)), None)
    if letter is None:
        raise ConfigError(f"{message!r} is not a message for a model; give a System, User or AssistantMessage")
    return "c" if letter == "a" and not isinstance(message.content, str) else letter


def _identity(part: FunctionCall | FunctionExecutionResult) -> tuple[str, str]:
    return (part.id if isinstance(part, FunctionCall) else part.call_id), part.name


def _calls_fit(message: AssistantMessage, ids: tuple[tuple[str, str], ...], dialect: Dialect) -> bool:
    if (len(ids) > 1 and not dialect.parallel_calls) or (message.thought and not dialect.text_beside_calls):
        return False
    fits_id, fits_name = re.compile(dialect.call_id).fullmatch, re.compile(dialect.tool_name).fullmatch
    return all(fits_id(identity) and fits_name(name) for identity, name in ids)


def _is_sound(made: list[Any], dialect: Dialect) -> bool:
    """Whether each message fits by itself, and results stand behind their calls."""
    letters = "".join([letter for letter, _, _ in made])
    exchanges = letters.count("cr")
    if not letters.islower() or not exchanges == letters.count("c") == letters.count("r"):
        return False
    asked = [ids for letter, ids, _ in made if letter == "c"] if exchanges else []
    if exchanges and asked != [ids for letter, ids, _ in made if letter == "r"]:
        return False
    given = [identity for ids in asked for identity, _ in ids]
    return len({*given}) == len(given) and not (dialect.one_system and "s" in letters[1:])


def normalise(messages: Sequence[LLMMessage], dialect: Dialect, maker: str = "") -> Sequence[LLMMessage]:
    """The conversation as a provider of this dialect accepts it; `messages` itself if it does already."""
    return _ended(_rounded(_sound(messages, dialect, maker), dialect), dialect)


def _sound(messages: Sequence[LLMMessage], dialect: Dialect, maker: str) -> Sequence[LLMMessage]:
    """The conversation of messages that fit by themselves, with results behind their calls."""
    talk = one_system_message(messages) if dialect.one_system else messages
    owned = [_own(message, dialect, maker) for message in talk]
    talk = talk if _same(owned, talk) else owned
    if not dialect.empty_content:
        fitting = [fitted for message in talk if (fitted := _not_empty(message, dialect)) is not None]
        talk = talk if _same(fitting, talk) else fitting
    return _Pairing(talk, dialect).paired()


def _rounded(talk: Sequence[LLMMessage], dialect: Dialect) -> Sequence[LLMMessage]:
    """The conversation with what is missing at its beginning or between the sides."""
    if dialect.alternates:
        talk = _alternating(talk)
    if dialect.user_first:
        first = next((at for at, m in enumerate(talk) if not isinstance(m, SystemMessage)), len(talk))
        if first == len(talk) or not isinstance(talk[first], UserMessage):
            talk = [*talk[:first], _BEGIN, *talk[first:]]
    if not dialect.user_after_results:
        talk = _answered(talk)
    return talk


# --- conversations that do not fit


def _calls_of(message: LLMMessage) -> list[FunctionCall]:
    """The calls that a message asks for."""
    made: Any = message.content if isinstance(message, AssistantMessage) else ""
    return [] if isinstance(made, str) else made


def _results_of(message: LLMMessage) -> list[FunctionExecutionResult]:
    return message.content if isinstance(message, FunctionExecutionResultMessage) else []


def _same(one: Sequence[LLMMessage], other: Sequence[LLMMessage]) -> bool:
    return len(one) == len(other) and all(a is b for a, b in zip(one, other))


def _not_empty(message: LLMMessage, dialect: Dialect) -> LLMMessage | None:
    """The message without empty texts; None if nothing of it is left."""
    content = message.content
    if isinstance(message, UserMessage) and isinstance(content, list):
        parts = [part for part in content if not isinstance(part, str) or part.strip()]
        if parts and len(parts) == len(content):
            return message
        return UserMessage(content=parts or _EMPTY, source=message.source)  # type: ignore[arg-type]
    if content == [] and isinstance(message, AssistantMessage):
        return None
    if not isinstance(content, str) or content.strip():
        return message
    if isinstance(message, UserMessage):
        return UserMessage(content=_EMPTY, source=message.source)
    # an answer may be all of what the provider wants back unread
    return message if (getattr(message, "provider_data", None) or {}).get(dialect.name) else None


def _own(message: LLMMessage, dialect: Dialect, maker: str) -> LLMMessage:
    """The message without what was signed for somebody else."""
    kept = message.provider_data if dialect.signed and isinstance(message, AssistantMessage) else None
    if not kept or kept.get("by", maker) == maker:
        return message
    made: LLMMessage = _remembered(message, dialect, "own", lambda: [replace(message, provider_data=None)])[0]  # type: ignore[arg-type]
    return made


# what was made of a message, as long as it lives: for which dialect -> from what else, and the result
_rebuilt: dict[tuple[int, str], tuple[Any, list[LLMMessage], object]] = {}


def _remembered(message: LLMMessage, dialect: Dialect, parts: Any, make: Callable[[], list[LLMMessage]]) -> Any:
    """What `make` makes of a message, and of nothing else than `parts`, which are compared."""
    key = id(message), dialect.name
    known = _rebuilt.get(key)
    if known is None or known[0] != parts:
        known = _rebuilt[key] = parts, make(), weakref.ref(message, lambda _: _rebuilt.pop(key, None))
    return known[1]


class _Pairing:
    """Puts the results directly behind their calls, and makes up what is missing of either."""

    def __init__(self, messages: Sequence[LLMMessage], dialect: Dialect) -> None:
        self._messages = messages
        self._dialect = dialect
        self._id = re.compile(dialect.call_id).fullmatch
        self._seen: set[str] = set()
        self._taken: set[tuple[int, int]] = set()  # places of results that stand behind their calls already
        self._talk: list[LLMMessage] = []

    def paired(self) -> Sequence[LLMMessage]:
        """The whole conversation."""
        for at, message in enumerate(self._messages):
            if message.content.__class__ is str:
                self._talk.append(message)
            elif calls := _calls_of(message):
                self._add(at, calls, self._found(at, calls))
            elif results := _results_of(message):
                # calls may be missing, for example because a context begins behind them
                if left := [result for n, result in enumerate(results) if (at, n) not in self._taken]:
                    self._add(at, [FunctionCall(each.call_id, "{}", each.name) for each in left], [*left])
            elif isinstance(message, UserMessage):
                self._talk.append(message)
        return self._messages if _same(self._talk, self._messages) else self._talk

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
            for call in _calls_of(message):
                wanted.pop(call.id, None)
            for n, result in enumerate(_results_of(message)):
                if result.call_id in wanted and (later, n) not in self._taken:
                    found[wanted[result.call_id].pop(0)] = result
                    self._taken.add((later, n))
                    if not wanted[result.call_id]:
                        del wanted[result.call_id]
        if None in found:
            self._by_name(at, calls, found)
        return found

    def _by_name(self, at: int, calls: list[FunctionCall], found: list[FunctionExecutionResult | None]) -> None:
        """Results that stand at the right place under another id belong to the calls of that tool that have none."""
        for n, result in enumerate(self._behind(at)):
            for which, call in enumerate(calls):
                if found[which] is None and call.name == result.name and (at + 1, n) not in self._taken:
                    found[which] = result
                    self._taken.add((at + 1, n))

    def _behind(self, at: int) -> list[FunctionExecutionResult]:
        """The results in the next message."""
        return _results_of(self._messages[at + 1]) if at + 1 < len(self._messages) else []

    def _add(self, at: int, calls: list[FunctionCall], results: list[FunctionExecutionResult | None]) -> None:
        """Add an exchange: what asks for the calls, or else gives the results, stands at `at`."""
        message, dialect = self._messages[at], self._dialect
        fitting = tuple(map(self._fitting, calls))
        if self._stands(at, fitting, results):
            self._talk += self._messages[at : at + 2]
        else:
            # never with the message itself, which would so live for ever
            parts = fitting, tuple(calls), tuple(results)
            self._talk += _remembered(message, dialect, parts, lambda: _exchange(message, *parts, dialect))

    def _stands(
        self, at: int, fitting: tuple[tuple[str, str], ...], results: list[FunctionExecutionResult | None]
    ) -> bool:
        """Whether the message with calls at `at`, and the next one with their results, can stay as they are."""
        message, dialect = self._messages[at], self._dialect
        ids = tuple(map(_identity, _calls_of(message)))
        if not isinstance(message, AssistantMessage) or ids != fitting or not _calls_fit(message, ids, dialect):
            return False
        given = self._behind(at)
        return len(given) == len(results) and all(
            a is b and _identity(a) == identity for a, b, identity in zip(given, results, ids)
        )

    def _fitting(self, call: FunctionCall) -> tuple[str, str]:
        """An id and a name that fit; the same words give the same id each time."""
        identity, count = call.id, 0
        while identity in self._seen or not self._id(identity):
            identity = hashlib.sha256(f"{call.id}/{count}".encode("utf-8", "replace")).hexdigest()[:9]
            count += 1
        self._seen.add(identity)
        return identity, fitted_name(call.name, self._dialect.tool_name)


def _exchange(
    message: LLMMessage,
    fitting: Iterable[tuple[str, str]],
    calls: Iterable[FunctionCall],
    results: Iterable[FunctionExecutionResult | None],
    dialect: Dialect,
) -> list[LLMMessage]:
    """A message with calls under ids and names that fit, and one with their results; or such two for each call."""
    made = [
        call if _identity(call) == (identity, name) else FunctionCall(identity, call.arguments, name)
        for call, (identity, name) in zip(calls, fitting)
    ]
    answers = [_answer(call, result) for call, result in zip(made, results)]
    if not isinstance(message, AssistantMessage):
        message = AssistantMessage(content=made, source="assistant")
    if len(made) > 1 and not dialect.parallel_calls:
        message = replace(message, provider_data=None)
        groups = [([call], [answer]) for call, answer in zip(made, answers)]
    else:
        groups = [(made, answers)]
    talk: list[LLMMessage] = []
    for at, (some, theirs) in enumerate(groups):
        thought = message.thought if dialect.text_beside_calls and not at else None
        talk.append(replace(message, content=some, thought=thought))
        talk.append(FunctionExecutionResultMessage(content=theirs))
    return talk


def _answer(call: FunctionCall, result: FunctionExecutionResult | None) -> FunctionExecutionResult:
    """The result under the id and name of its call."""
    if result is None:
        return FunctionExecutionResult(content=_UNANSWERED, name=call.name, call_id=call.id, is_error=True)
    if (result.call_id, result.name) == (call.id, call.name):
        return result
    return result.model_copy(update={"name": call.name, "call_id": call.id})


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


def _ended(messages: Sequence[LLMMessage], dialect: Dialect) -> Sequence[LLMMessage]:
    last = messages[-1] if messages and dialect.last != "any" else None
    if not isinstance(last, AssistantMessage) or not isinstance(last.content, str):
        return messages
    if dialect.last == "user":
        return [*messages, _GO_ON]
    content = last.content.rstrip()
    return messages if last.content == content else [*messages[:-1], replace(last, content=content)]
