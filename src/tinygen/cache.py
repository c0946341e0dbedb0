"""Where a program keeps what it need not ask for twice: in memory, in a file, or in Redis.

The stores outside of memory keep JSON text, in which records are known by their tags, so that what comes back is of the
class that was kept. Whatever would come back as something else is refused when it is kept.
"""

from __future__ import annotations

import os
import threading
from functools import cache
from inspect import isawaitable, iscoroutinefunction
from weakref import WeakSet

from . import codec
from .component import Component
from .errors import ConfigError, DecodeError, EncodeError
from .records import Record, registry

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Awaitable, Mapping
    from typing import Any, Generic, Protocol

    from typing_extensions import TypeVar

    T = TypeVar("T", default=Any)
else:
    from .component import Subscripted as Generic

    T, Protocol = None, Generic

BUSY = 5.0  # seconds to wait for another process that writes
_RECORD = "$record"


class CacheStore(Protocol[T]):
    """Where values are kept under a text.

    What uses a store awaits what its methods return, if that is awaitable, and calls those methods in a thread whose
    names stand in its attribute `blocks`.
    """

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


class SQLiteCacheStore(Component, Generic[T]):
    """A `CacheStore` in a file, which any number of processes and threads may use at one time.

    The file is made, with its folder, when it is first needed. Reading does not wait for those who write. A fork waits
    for the threads that read or write: its child could not end what they have begun.

    Args:
        path: of the file, on a disk of this machine.
    """

    component_type = "cache_store"
    renewable = False
    blocks = ("set",)

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)
        if not self._path or self._path == ":memory:":
            raise ConfigError(f"path must be that of a file, not {self._path!r}; in memory there is InMemoryStore")
        self._locks = threading.Lock(), threading.Lock()
        self._open: list[Any] = [None, None]  # who reads does not wait for the lock of who writes
        self._process = os.getpid()
        _stores.add(self)
        _hold_at_forks()

    def get(self, key: str, default: T | None = None) -> T | None:
        """The value kept under `key`, or `default`. Raises `DecodeError` for what this class has not kept."""
        with self._locks[0]:
            found = self._connection(0).execute("SELECT value FROM kept WHERE key = ?", (key,)).fetchone()
        return default if found is None else _restored(codec.loads(found[0]))

    def set(self, key: str, value: T) -> None:
        """Keep `value`, a record or JSON data, under `key`. Raises `EncodeError` for anything else."""
        text = codec.dumps(_document(value))
        with self._locks[1]:
            self._connection(1).execute("INSERT OR REPLACE INTO kept VALUES (?, ?)", (key, text))

    def close(self) -> None:
        """Close the file. It is opened again when it is needed."""
        if self._process == os.getpid():
            for at, lock in enumerate(self._locks):
                with lock:
                    connection, self._open[at] = self._open[at], None
                    if connection is not None:
                        connection.close()

    def __del__(self) -> None:
        if hasattr(self, "_process"):
            self.close()

    def _connection(self, at: int) -> sqlite3.Connection:
        if self._process != os.getpid():  # a fork: its parent's connections must not be touched, not even closed
            _of_parents.append(self._open)
            self._open, self._process = [None, None], os.getpid()
        if self._open[at] is None:
            self._open[at] = _opened(self._path)
        return self._open[at]  # type: ignore[no-any-return]

    def _to_config(self) -> dict[str, Any]:
        return {"path": self._path}


_of_parents: list[Any] = []
_stores: WeakSet[SQLiteCacheStore[Any]] = WeakSet()
_held: list[threading.Lock] = []  # while a process forks


@cache
def _hold_at_forks() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)


def _before_fork() -> None:
    for store in list(_stores):
        _held.extend(lock for lock in store._locks if lock.acquire(timeout=BUSY))


def _in_parent() -> None:
    while _held:
        _held.pop().release()


def _in_child() -> None:
    _held.clear()
    for store in list(_stores):
        store._locks = threading.Lock(), threading.Lock()


def _opened(path: str) -> sqlite3.Connection:
    import sqlite3

    connection = None
    try:
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        connection = sqlite3.connect(path, timeout=BUSY, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):  # by another process that does the same
                raise
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("CREATE TABLE IF NOT EXISTS kept (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")
        return connection
    except (OSError, sqlite3.Error) as error:
        if connection is not None:
            connection.close()
        raise ConfigError(f"{path!r} cannot be used as the file of a cache: {error}") from error


class RedisStore(Component, Generic[T]):
    """A `CacheStore` in Redis.

    Args:
        redis_instance: a client of yours: `redis.Redis`, `redis.asyncio.Redis`, or anything with their `get` and `set`.
            With an asynchronous client `get` and `set` here are to be awaited too. It is not closed with this store.

    What the client raises is raised. A document cannot hold a client, so this store is made by the program.
    """

    component_type = "cache_store"
    renewable = False

    def __init__(self, redis_instance: Any) -> None:
        for name in ("get", "set"):
            if not callable(getattr(redis_instance, name, None)):
                raise ConfigError(f"redis_instance must be a client with get and set, not {redis_instance!r:.200}")
        self._redis = redis_instance
        waits = any(iscoroutinefunction(getattr(redis_instance, name, None)) for name in ("get", "execute_command"))
        self.blocks = () if waits else ("get", "set")

    def get(self, key: str, default: T | None = None) -> Any:
        """The value kept under `key`, or `default`. Raises `DecodeError` for what this class has not kept."""
        found = self._redis.get(key)
        return _awaited(found, default) if isawaitable(found) else _value(found, default)

    def set(self, key: str, value: T) -> Any:
        """Keep `value`, a record or JSON data, under `key`. Raises `EncodeError` for anything else."""
        done = self._redis.set(key, codec.dumps(_document(value)))
        return done if isawaitable(done) else None

    def _to_config(self) -> Any:
        raise EncodeError("$", f"{_BY_PROGRAM}; give the document another store")

    @classmethod
    def _from_config(cls, config: Mapping[str, Any]) -> RedisStore[T]:
        raise ConfigError(f"{_BY_PROGRAM}; load the client that it belongs to, and wrap it in a ChatCompletionCache")


_BY_PROGRAM = "a RedisStore holds a connection, so the program makes it: RedisStore(redis.Redis(...))"


async def _awaited(found: Awaitable[Any], default: Any) -> Any:
    return _value(await found, default)


def _value(found: Any, default: Any) -> Any:
    return default if found is None else _restored(codec.loads(found))


# --- values as text


def _document(value: Any) -> Any:
    data = codec.encode(value)
    if isinstance(value, Record):
        return {_RECORD: type(value).type, "value": data}
    if type(value) is list:
        return [_document(each) for each in value]
    if data != value or (isinstance(value, dict) and _RECORD in value):
        raise EncodeError(
            "$", f"a {type(value).__name__} that would come back as something else; keep records, JSON data"
        )
    return data


def _restored(data: Any) -> Any:
    if isinstance(data, list):
        return [_restored(each) for each in data]
    if not isinstance(data, dict) or _RECORD not in data:
        return data
    known = list(registry.get(data[_RECORD], ()))
    if len(known) != 1:
        how = "several classes of that name are" if known else "no class of that name is"
        raise DecodeError("$", f"a {data[_RECORD]!r} was kept, and {how} declared in this program")
    return codec.decode(known[0], data.get("value"), mode="state")
