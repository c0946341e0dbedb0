"""Where a program keeps what it need not ask for twice."""

from __future__ import annotations

from .component import Component

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Generic, Protocol, TypeVar

    T = TypeVar("T")
else:
    from types import GenericAlias

    T = None

    class Generic:
        """Stands in for `typing.Generic`."""

        __class_getitem__ = classmethod(GenericAlias)

    Protocol = Generic


class CacheStore(Protocol[T]):
    """Where values are kept under a text."""

    def get(self, key: str, default: T | None = None) -> T | None:
        """The value kept under `key`, or `default`."""
        ...

    def set(self, key: str, value: T) -> None:
        """Keep `value` under `key`, instead of what was there."""
        ...


class InMemoryStore(Component, Generic[T]):
    """A `CacheStore` that is gone with the process. All sessions share it."""

    component_type = "cache_store"
    renewable = False

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}

    def get(self, key: str, default: T | None = None) -> T | None:
        """The value kept under `key`, or `default`."""
        return self._values.get(key, default)

    def set(self, key: str, value: T) -> None:
        """Keep `value` under `key`, instead of what was there."""
        self._values[key] = value
