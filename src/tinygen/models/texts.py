"""What is made of messages, remembered as long as they live."""

from __future__ import annotations

import weakref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from ..messages import LLMMessage


class MessageTexts:
    """What is made of messages, such as their JSON text, made once for each: a long history is sent again and again.

    Messages are treated as immutable; a `content` that is replaced, or a list whose items are, is seen even so.
    """

    def __init__(self, make: Callable[[LLMMessage], Any]) -> None:
        self._make = make
        self._known: dict[int, tuple[Any, Any, list[Any] | None, object]] = {}
        self._gone = self._forget  # made once

    def texts(self, messages: Iterable[LLMMessage]) -> list[Any]:
        """What is made of each message."""
        get, add = self._known.get, self._add
        return [
            known[1]
            if (known := get(id(message))) is not None
            and known[0] is message.content
            and (known[2] is None or known[2] == known[0])
            else add(message)
            for message in messages
        ]

    def _add(self, message: LLMMessage) -> Any:
        made, content = self._make(message), message.content
        alive = _Keyed(message, self._gone)
        alive.key = id(message)
        self._known[alive.key] = (content, made, [*content] if isinstance(content, list) else None, alive)
        return made

    def _forget(self, gone: _Keyed) -> None:
        self._known.pop(gone.key, None)


class _Keyed(weakref.ref["LLMMessage"]):
    __slots__ = ("key",)
    key: int
