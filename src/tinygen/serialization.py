"""Messages as bytes, for runtimes that carry them to other processes: who knows how to write and read which type.

In one process messages are handed over as the objects they are. But agents refuse to register for messages that cannot
be carried, so that what runs in one process runs in many.
"""

from __future__ import annotations

from dataclasses import dataclass

from . import codec
from .errors import ConfigError, DecodeError, did_you_mean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Protocol, TypeVar

    T = TypeVar("T")

    class MessageSerializer(Protocol[T]):
        """Writes and reads messages of one type, in one format."""

        @property
        def data_content_type(self) -> str: ...
        @property
        def type_name(self) -> str: ...
        def serialize(self, message: T) -> bytes: ...
        def deserialize(self, payload: bytes) -> T: ...
else:

    class MessageSerializer:
        """Writes and reads messages of one type, in one format."""

        __slots__ = ()
        __class_getitem__ = classmethod(lambda cls, _: cls)


JSON_DATA_CONTENT_TYPE = "application/json"


@dataclass(frozen=True)
class UnknownPayload:
    """A message of a type that nobody here can read."""

    type_name: str
    data_content_type: str
    payload: bytes


class JsonMessageSerializer(MessageSerializer["T"]):
    """Any type the codec carries, as JSON. Raises `ConfigError` for a type that it does not."""

    __slots__ = ("_cls",)

    data_content_type = JSON_DATA_CONTENT_TYPE

    def __init__(self, cls: type[T]) -> None:
        codec.schema(cls)
        self._cls = cls

    @property
    def type_name(self) -> str:
        return self._cls.__name__

    def serialize(self, message: T) -> bytes:
        return codec.dumps(message).encode()

    def deserialize(self, payload: bytes) -> T:
        return codec.decode(self._cls, codec.loads(payload))  # type: ignore[no-any-return]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, JsonMessageSerializer) and self._cls is other._cls

    def __hash__(self) -> int:
        return hash(self._cls)


def try_get_known_serializers_for_type(cls: type[T]) -> list[MessageSerializer[T]]:
    """What can write and read messages of this class: nothing, for a class that JSON cannot carry."""
    try:
        return [JsonMessageSerializer(cls)]
    except ConfigError:
        return []


class SerializationRegistry:
    """The serializers of a runtime."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], list[MessageSerializer[Any]]] = {}

    def add_serializer(self, serializer: MessageSerializer[Any] | Sequence[MessageSerializer[Any]]) -> None:
        """Add one or several; equal ones are there once."""
        several: Any = serializer if isinstance(serializer, (list, tuple)) else [serializer]
        for each in several:
            known = self._known.setdefault((each.type_name, each.data_content_type), [])
            if each not in known:
                known.append(each)

    def is_registered(self, type_name: str, data_content_type: str = JSON_DATA_CONTENT_TYPE) -> bool:
        return (type_name, data_content_type) in self._known

    def carries(self, cls: type[Any]) -> bool:
        """Whether messages of this class need no other serializer: one of the program's own may be for any class."""
        known = self._known.get((cls.__name__, JSON_DATA_CONTENT_TYPE), ())
        return any(not isinstance(each, JsonMessageSerializer) or each._cls is cls for each in known)

    def type_name(self, message: Any) -> str:
        """By which name messages of this type are known."""
        return message.type_name if isinstance(message, UnknownPayload) else type(message).__name__

    def serialize(
        self, message: Any, *, type_name: str | None = None, data_content_type: str = JSON_DATA_CONTENT_TYPE
    ) -> bytes:
        """The message as bytes. Raises `ConfigError` for a type without a serializer."""
        if isinstance(message, UnknownPayload):
            return message.payload
        name = type_name or self.type_name(message)
        found = self._known.get((name, data_content_type))
        if not found:
            hint = did_you_mean(name, {each for each, _ in self._known})
            raise ConfigError(f"no serializer writes a {name!r} as {data_content_type}{hint}")
        return found[0].serialize(message)

    def deserialize(self, payload: bytes, *, type_name: str, data_content_type: str = JSON_DATA_CONTENT_TYPE) -> Any:
        """The message that `serialize` wrote; an `UnknownPayload` for a type nobody here reads.

        Raises `DecodeError` for bytes that are no such message, and for a name that several classes go by.
        """
        found = self._known.get((type_name, data_content_type))
        if not found:
            return UnknownPayload(type_name, data_content_type, payload)
        if len(found) > 1:
            raise DecodeError("$", f"{len(found)} classes go by the name {type_name!r}; rename one of them")
        return found[0].deserialize(payload)
