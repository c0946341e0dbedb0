"""The store of a cache."""

from __future__ import annotations

from tinygen.cache import CacheStore, InMemoryStore
from tinygen.component import Component


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
