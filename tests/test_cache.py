"""The stores of a cache."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies

import tinygen
from tinygen import (
    ChatCompletionCache,
    CreateResult,
    FunctionCall,
    ReplayChatCompletionClient,
    RequestUsage,
    TextMessage,
    UserMessage,
)
from tinygen.cache import CacheStore, InMemoryStore, RedisStore, SQLiteCacheStore
from tinygen.component import Component
from tinygen.errors import ComponentError, ConfigError, DecodeError, EncodeError

ANSWER = CreateResult(
    finish_reason="function_calls",
    content=[FunctionCall("1", '{"a": 1}', "add")],
    usage=RequestUsage(1, 2, 3),
    cached=False,
    thought="hm",
    provider_data={"chat": {"x": [1, None, 2.5]}},
)


class Redis:
    """As much of a Redis client as is needed; what it keeps is bytes, as there."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    def get(self, key: str) -> bytes | None:
        return self.values.get(key)

    def set(self, key: str, value: str) -> bool:
        self.values[key] = value.encode()
        return True


class AsyncRedis(Redis):
    async def execute_command(self, call: Callable[..., Any], *args: Any) -> Any:
        await asyncio.sleep(0)
        return call(*args)

    def get(self, key: str) -> Any:
        return self.execute_command(super().get, key)

    def set(self, key: str, value: str) -> Any:
        return self.execute_command(super().set, key, value)


def test_a_store_gives_back_what_was_set_last() -> None:
    store: CacheStore[int] = InMemoryStore[int]()

    store.set("a", 1)
    store.set("a", 2)

    assert (store.get("a"), store.get("b"), store.get("b", 7)) == (2, None, 7)


def test_a_store_is_shared_by_sessions_and_has_a_document() -> None:
    class Holder(Component):
        def __init__(self, store: InMemoryStore[int]) -> None:
            self.store = store

    store = InMemoryStore[int]()

    assert Holder(store).session().store is store
    assert isinstance(Component.load_component(store.dump_component()), InMemoryStore)


VALUES = [
    *(ANSWER, "text", 7, 2.5, True, None, [], [1, [2]], {"a": {"b": [None]}}, "a \ud7ff \U0001f600"),
    *([ANSWER, "piece", ANSWER], TextMessage(content="hi", source="ann"), RequestUsage(1, 2)),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_what_is_kept_comes_back_as_what_it_was(tmp_path: Path, value: Any) -> None:
    for store in (SQLiteCacheStore[Any](tmp_path / "a" / "b.sqlite3"), RedisStore[Any](Redis())):
        store.set("x", value)
        found = store.get("x")

        assert found == value
        assert type(found) is type(value)
        assert (store.get("y"), store.get("y", 7)) == (None, 7)


@pytest.mark.parametrize("value", [(1, 2), {1: 2}, b"x", {"a": (1,)}, {"$record": "x"}, object(), {"a": ANSWER}])
def test_what_would_come_back_as_something_else_is_refused(tmp_path: Path, value: Any) -> None:
    for store in (SQLiteCacheStore[Any](tmp_path / "a.sqlite3"), RedisStore[Any](Redis())):
        with pytest.raises(EncodeError):
            store.set("x", value)


JSON = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers(-(2**70), 2**70) | strategies.text(),
    lambda inner: strategies.lists(inner, max_size=3) | strategies.dictionaries(strategies.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_any_json_data_comes_back(value: Any) -> None:
    store = RedisStore[Any](Redis())

    store.set("x", value)

    assert store.get("x") == value


# --- in a file


def test_a_file_outlives_its_store(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite3"
    SQLiteCacheStore[Any](path).set("x", ANSWER)

    assert SQLiteCacheStore[Any](str(path)).get("x") == ANSWER


def test_a_closed_store_opens_again_when_it_is_needed(tmp_path: Path) -> None:
    store = SQLiteCacheStore[Any](tmp_path / "a.sqlite3")
    store.set("x", 1)

    store.close()
    store.close()

    assert store.get("x") == 1


def test_closing_leaves_one_file_and_nothing_open(tmp_path: Path) -> None:
    store = SQLiteCacheStore[Any](tmp_path / "a.sqlite3")
    store.set("x", 1)
    store.get("x")

    store.close()

    assert [path.name for path in tmp_path.iterdir()] == ["a.sqlite3"]


def test_reading_does_not_wait_for_who_writes(tmp_path: Path) -> None:
    store = SQLiteCacheStore[Any](tmp_path / "a.sqlite3")
    store.set("x", 1)
    writer = sqlite3.connect(tmp_path / "a.sqlite3", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")

    thread = threading.Thread(target=store.set, args=("x", 2))
    thread.start()  # waits for the writer, holding the lock of those who write

    assert store.get("x") == 1
    writer.execute("COMMIT")
    writer.close()
    thread.join(5)
    assert store.get("x") == 2


WRITER = """
import sys
from tinygen import SQLiteCacheStore
store = SQLiteCacheStore(sys.argv[1])
for n in range(100):
    store.set(f"{sys.argv[2]} {n}", [sys.argv[2], n])
    assert store.get(f"{sys.argv[2]} {n}") == [sys.argv[2], n]
    store.set("all", n)
"""


def test_several_processes_may_write_at_one_time(tmp_path: Path) -> None:
    path = str(tmp_path / "a.sqlite3")
    env = os.environ | {"PYTHONPATH": str(Path(tinygen.__path__[0]).resolve().parent)}
    command = [sys.executable, "-W", "error", "-c", WRITER, path]

    writers = [subprocess.Popen([*command, name], env=env, stderr=subprocess.PIPE) for name in "abc"]
    errors = [writer.communicate(timeout=30)[1] for writer in writers]

    assert errors == [b""] * 3
    store = SQLiteCacheStore[Any](path)
    assert all(store.get(f"{name} {n}") == [name, n] for name in "abc" for n in range(100))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_does_not_use_the_connections_of_its_parent(tmp_path: Path) -> None:
    store = SQLiteCacheStore[Any](tmp_path / "a.sqlite3")
    store.set("x", 1)
    store.get("x")

    if not (child := os.fork()):
        store.set("y", 2)
        store.close()
        os._exit(0 if store.get("x") == 1 else 1)
    _, status = os.waitpid(child, 0)

    assert status == 0
    assert (store.get("x"), store.get("y")) == (1, 2)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_waits_for_the_threads_that_its_child_does_not_have(tmp_path: Path) -> None:
    store = SQLiteCacheStore[Any](tmp_path / "a.sqlite3")
    store.set("x", 1)
    writer = sqlite3.connect(tmp_path / "a.sqlite3", isolation_level=None, check_same_thread=False)
    writer.execute("BEGIN IMMEDIATE")
    thread = threading.Thread(target=store.set, args=("x", 2))
    thread.start()  # waits for the writer, holding the lock of those who write
    while not store._locks[1].locked():
        thread.join(0.001)
    threading.Timer(0.1, writer.execute, ["COMMIT"]).start()

    if not (child := os.fork()):
        signal.alarm(10)
        try:
            store.set("y", store.get("x"))
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    thread.join(5)

    assert (status, store.get("x"), store.get("y")) == (0, 2, 2)
    writer.close()


def test_a_file_that_is_something_else_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Dear diary, " * 1000)
    (tmp_path / "b").mkdir()

    for path in (tmp_path / "a.txt", tmp_path / "b", tmp_path / "a.txt" / "c"):
        with pytest.raises(ConfigError, match="cannot be used as the file of a cache"):
            SQLiteCacheStore[Any](path).get("x")
    with pytest.raises(ConfigError, match="InMemoryStore"):
        SQLiteCacheStore[Any](":memory:")


def test_a_damaged_entry_is_an_error_and_not_an_answer(tmp_path: Path) -> None:
    store = SQLiteCacheStore[Any](tmp_path / "a.sqlite3")
    connection = sqlite3.connect(tmp_path / "a.sqlite3", isolation_level=None)
    store.set("x", 1)
    for damage in ('{"$record": "os.system", "value": {}}', '{"$record": "CreateResult", "value": {"a": 1}}', "{", ""):
        connection.execute("UPDATE kept SET value = ?", (damage,))

        with pytest.raises(DecodeError):
            store.get("x")
    connection.close()


# --- in Redis


async def test_an_asynchronous_client_is_awaited() -> None:
    store = RedisStore[Any](AsyncRedis())

    await store.set("x", ANSWER)

    assert await store.get("x") == ANSWER
    assert await store.get("y", 7) == 7


@pytest.mark.parametrize("redis", [Redis, AsyncRedis])
async def test_answers_are_cached_in_redis(redis: type[Redis]) -> None:
    model = ReplayChatCompletionClient([ANSWER])
    client = ChatCompletionCache(model, RedisStore(redis()))
    asked = [UserMessage(content="hi", source="ann")]

    await client.create(asked)

    assert await client.create(asked) == ANSWER.model_copy(update={"cached": True})


async def test_a_blocking_client_does_not_hold_up_the_event_loop() -> None:
    threads = set()

    class Blocking(Redis):
        def get(self, key: str) -> bytes | None:
            threads.add(threading.current_thread())
            return super().get(key)

    client = ChatCompletionCache(ReplayChatCompletionClient(["fine"]), RedisStore(Blocking()))
    await client.create([])

    assert threads and threading.current_thread() not in threads


@pytest.mark.parametrize("redis", [Redis, AsyncRedis])
async def test_what_redis_raises_is_raised(redis: type[Redis]) -> None:
    class Gone(redis):  # type: ignore[misc, valid-type]
        values: Any = property(lambda self: (_ for _ in ()).throw(ConnectionError("redis gone")), lambda self, it: None)

    with pytest.raises(ConnectionError, match="redis gone"):
        await ChatCompletionCache(ReplayChatCompletionClient(["fine"]), RedisStore(Gone())).create([])


def test_a_document_holds_no_redis_client() -> None:
    cache = ChatCompletionCache(ReplayChatCompletionClient(["fine"]), RedisStore(Redis()))
    autogens = {"provider": "autogen_ext.cache_store.redis.RedisStore", "config": {"host": "localhost", "port": 6379}}

    with pytest.raises(EncodeError, match=r"^\$\.config\.store: a RedisStore holds a connection"):
        cache.dump_component()
    with pytest.raises(ComponentError, match="so the program makes it"):
        Component.load_component(autogens)
    with pytest.raises(ConfigError, match="must be a client with get and set"):
        RedisStore("redis://localhost")
