"""Cancellation tokens: callbacks, links, children, threads."""

from __future__ import annotations

import asyncio
import threading

import pytest

from tinygen import CancellationToken


def test_callbacks_run_once_and_may_look_at_the_token() -> None:
    token, seen = CancellationToken(), []
    token.add_callback(lambda: seen.append(token.is_cancelled()))
    token.cancel()
    token.cancel()
    assert seen == [True]


def test_a_callback_added_after_cancellation_runs_at_once() -> None:
    token, seen = CancellationToken(), []
    token.cancel()
    token.add_callback(lambda: seen.append(1))
    assert seen == [1]


def test_a_callback_that_raises_does_not_keep_the_others_from_running() -> None:
    token, seen = CancellationToken(), []

    def fail() -> None:
        raise ValueError("first")

    token.add_callback(fail)
    token.add_callback(lambda: seen.append(1))
    with pytest.raises(ValueError, match="first"):
        token.cancel()
    assert seen == [1]


def test_a_removed_callback_does_not_run() -> None:
    token, seen = CancellationToken(), []
    remove = token.add_callback(lambda: seen.append(1))
    remove()
    token.cancel()
    assert not seen


async def test_a_done_future_leaves_nothing_in_a_long_lived_token() -> None:
    token = CancellationToken()
    for _ in range(100):
        future = token.link_future(asyncio.get_running_loop().create_future())
        future.set_result(None)
        await asyncio.sleep(0)
    assert not token._callbacks


async def test_a_linked_future_is_cancelled_from_another_thread() -> None:
    token = CancellationToken()
    future = token.link_future(asyncio.get_running_loop().create_future())
    threading.Thread(target=token.cancel).start()
    with pytest.raises(asyncio.CancelledError):
        await future


def test_a_child_is_cancelled_with_its_parent_but_not_the_other_way_round() -> None:
    parent = CancellationToken()
    first, second = parent.child(), parent.child()
    first.cancel()
    assert not parent.is_cancelled()
    assert len(parent._callbacks) == 1
    parent.cancel()
    assert second.is_cancelled()


async def test_a_token_with_a_timeout_cancels_itself() -> None:
    token = CancellationToken(timeout=0.01)
    future = token.link_future(asyncio.get_running_loop().create_future())
    with pytest.raises(asyncio.CancelledError):
        await future
    assert token.is_cancelled()
