"""What a dialect's data forbids, said once more and independently: tests hold conversations to it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import pairwise

from tinygen.messages import (
    AssistantMessage,
    FunctionExecutionResultMessage,
    LLMMessage,
    SystemMessage,
    UserMessage,
)
from tinygen.models.dialects import Dialect


def violations(messages: Sequence[LLMMessage], dialect: Dialect) -> list[str]:
    """The rules that a conversation breaks, in words."""
    found = [*_order(messages, dialect), *_calls(messages, dialect)]
    if not dialect.empty_content:
        found += [f"{message!r} is empty" for message in messages if _is_empty(message)]
    return found


def _order(messages: Sequence[LLMMessage], dialect: Dialect) -> list[str]:
    found = []
    systems = [at for at, message in enumerate(messages) if isinstance(message, SystemMessage)]
    if dialect.one_system and systems not in ([], [0]):
        found.append(f"system messages at {systems}")
    talk = [message for message in messages if not isinstance(message, SystemMessage)]
    if dialect.user_first and not (talk and isinstance(talk[0], UserMessage)):
        found.append("no user begins")
    last = talk[-1] if talk else None
    if isinstance(last, AssistantMessage) and isinstance(last.content, str):
        if dialect.last == "user" or (dialect.last == "stripped" and last.content != last.content.rstrip()):
            found.append(f"{last.content!r} ends")
    for one, next_one in pairwise(talk):
        if dialect.alternates and type(one) is type(next_one):
            found.append(f"{one!r} before {next_one!r}")
        after_results = isinstance(one, FunctionExecutionResultMessage) and isinstance(next_one, UserMessage)
        if after_results and not dialect.user_after_results:
            found.append("a user after results")
    return found


def _calls(messages: Sequence[LLMMessage], dialect: Dialect) -> list[str]:
    found: list[str] = []
    open_calls: list[tuple[str, str]] = []
    seen: set[str] = set()
    for message in messages:
        if isinstance(message, FunctionExecutionResultMessage):
            if not open_calls or [(each.call_id, each.name) for each in message.content] != open_calls:
                found.append(f"results {message.content!r} of {open_calls}")
            open_calls = []
            continue
        if open_calls:
            found.append(f"no results of {open_calls}")
        open_calls = []
        if isinstance(message, AssistantMessage) and isinstance(message.content, list):
            open_calls = [(call.id, call.name) for call in message.content]
            found += _of_one(message, dialect, seen)
    return found + ([f"no results of {open_calls} at the end"] if open_calls else [])


def _of_one(message: AssistantMessage, dialect: Dialect, seen: set[str]) -> list[str]:
    found = [] if message.content else ["no calls"]
    if len(message.content) > 1 and not dialect.parallel_calls:
        found.append("calls side by side")
    if message.thought and not dialect.text_beside_calls:
        found.append("text beside calls")
    for call in message.content:
        assert not isinstance(call, str)
        if call.id in seen or not re.fullmatch(dialect.call_id, call.id):
            found.append(f"id {call.id!r}")
        if not re.fullmatch(dialect.tool_name, call.name):
            found.append(f"name {call.name!r}")
        seen.add(call.id)
    return found


def _is_empty(message: LLMMessage) -> bool:
    if isinstance(message, FunctionExecutionResultMessage):
        return False
    texts = [message.content] if isinstance(message.content, str) else message.content
    return not texts or any(isinstance(text, str) and not text.strip() for text in texts)


def is_object(text: str) -> bool:
    """Whether a text is a JSON object."""
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False
