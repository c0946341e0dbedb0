"""What programs written for AutoGen use, and nothing here needs: factories of messages, and JSON found in text."""

from __future__ import annotations

import re
from types import SimpleNamespace
from weakref import WeakValueDictionary

from . import codec, messages
from .component import Component
from .errors import ConfigError, DecodeError
from .messages import BaseAgentEvent, BaseChatMessage, StructuredMessage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    Message = BaseAgentEvent | BaseChatMessage

_OURS = {
    name: each
    for name, each in vars(messages).items()
    if isinstance(each, type) and issubclass(each, (BaseAgentEvent, BaseChatMessage)) and not name.startswith("_")
}
_BLOCK = re.compile(r"```[ \t]*([\w+-]*)[^\n]*\n(.*?)```", re.DOTALL)


class MessageFactory:
    """Makes messages and events of JSON data.

    A type that was declared is known; `register` one whose name another one has too.
    """

    def __init__(self) -> None:
        self._types: dict[str, type[Message]] = dict(_OURS)

    def is_registered(self, message_type: type[Message]) -> bool:
        """Whether it is one of tinygen's, or was registered here."""
        return self._types.get(message_type.__name__) is message_type

    def register(self, message_type: type[Message]) -> None:
        """Take this type for the messages that name it. Raises `ConfigError` if that has happened."""
        if not (isinstance(message_type, type) and issubclass(message_type, (BaseAgentEvent, BaseChatMessage))):
            raise ConfigError(f"{message_type!r} derives neither from BaseChatMessage nor from BaseAgentEvent")
        if self.is_registered(message_type):
            raise ConfigError(f"message type {message_type.__name__!r} is already registered")
        self._types[message_type.__name__] = message_type

    def create(self, data: Mapping[str, Any]) -> Message:
        """The message in `data`, whose `type` says what it is. Raises `DecodeError`."""
        name = data.get("type")
        if not isinstance(name, str):
            raise DecodeError("$.type", f"expected the name of a message type, not {name!r:.80}")
        made: Message = codec.decode(self._types.get(name, BaseAgentEvent | BaseChatMessage), data)
        return made


class StructuredMessageFactory(Component):
    """A `StructuredMessage` class, made of a type or of a JSON Schema.

        factory = StructuredMessageFactory(json_schema={"title": "Sum", "type": "object", ...})
        factory.StructuredMessage(content=factory.ContentModel(value=3), source="adder")

    Args:
        json_schema: of the content. Its properties are attributes then; objects within it are dicts.
        input_model: the type of the content: dataclass, TypedDict or pydantic model.
        format_string: template over its fields, for people.
        content_model_name: what to call the type made of a schema; its title by default.
    """

    component_type = "structured_message"

    @classmethod
    def _config_types(cls) -> Mapping[str, Any]:
        return {"json_schema": dict[str, object]}  # whatever it looks like

    def __init__(
        self,
        json_schema: Mapping[str, Any] | None = None,
        input_model: type[Any] | None = None,
        format_string: str | None = None,
        content_model_name: str | None = None,
    ) -> None:
        if (json_schema is None) == (input_model is None):
            raise ConfigError("StructuredMessageFactory takes one of json_schema and input_model")
        self.format_string = format_string
        self.ContentModel: Any = input_model
        if json_schema is not None:
            self.ContentModel = _by_schema(content_model_name or str(json_schema.get("title", "Content")), json_schema)
        self.StructuredMessage: Any = StructuredMessage[self.ContentModel]  # type: ignore[name-defined]

    def _to_config(self) -> dict[str, Any]:
        return {
            "json_schema": codec.schema(self.ContentModel),
            "format_string": self.format_string,
            "content_model_name": self.ContentModel.__name__,
        }


class _BySchema(SimpleNamespace):
    """Content that has a schema instead of a type; the codec knows it by pydantic's methods."""

    _schema: dict[str, Any] = {}

    def __init__(self, /, **fields: Any) -> None:
        codec.matches(self._schema, fields)
        super().__init__(**fields)

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        return cls._schema

    @classmethod
    def model_validate(cls, data: Any) -> Any:
        if not isinstance(data, (cls, dict)):
            raise DecodeError("$", f"expected an object, not {data!r:.80}")
        return data if isinstance(data, cls) else cls(**data)

    @classmethod
    def model_validate_json(cls, text: str, *, strict: bool = True) -> Any:
        return cls.model_validate(codec.loads(text))

    def model_dump(self, **options: Any) -> dict[str, Any]:
        return dict(vars(self))


_made: WeakValueDictionary[tuple[str, str], type[_BySchema]] = WeakValueDictionary()


def _by_schema(name: str, schema: Mapping[str, Any]) -> type[_BySchema]:
    """The type of a schema: the same for the same one, or states would name two that cannot be told apart."""
    key = name, codec.digest(schema)
    made = _made.get(key)
    if made is None:
        made = _made[key] = type(name, (_BySchema,), {"_schema": dict(schema), "__module__": __name__})
    return made


def extract_json_from_str(content: str) -> list[Any]:
    """The data in the JSON code blocks of a text; in all of it if there are no blocks. Raises `DecodeError`."""
    blocks = _BLOCK.findall(content)
    for language, _ in blocks:
        if language.lower() not in ("", "json"):
            raise DecodeError("$", f"expected a block of JSON, found one of {language!r}")
    return [codec.loads(text) for _, text in blocks or [("", content)]]
