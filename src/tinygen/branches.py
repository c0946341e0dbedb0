"""What is done side by side, and how it comes together again: in the order in which it was declared."""

from __future__ import annotations

import asyncio
from operator import itemgetter

from .errors import Suspended
from .run import current_scope

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from typing import Any, TypeVar

    from .cancellation import CancellationToken
    from .messages import BaseAgentEvent, BaseChatMessage

    T = TypeVar("T")


async def fan_out(
    branches: Sequence[tuple[str, Callable[[], Coroutine[Any, Any, T]]]], token: CancellationToken | None = None
) -> list[T]:
    """Do several things side by side; their results in the order given.

    Args:
        branches: of each, the name of its place and the function that makes its coroutine.
        token: cancels all of them.

    Inside a run each branch is a task of the run, at a place of its own, and is left behind by name if it does not
    end. The first failure cancels the others and is raised; a branch that suspends lets the others finish first.
    """
    scope = current_scope()
    if scope is None or scope.run.loop is not asyncio._get_running_loop():
        return await _gather([asyncio.ensure_future(make()) for _, make in branches], token)
    run = scope.run
    if run.over:
        raise asyncio.CancelledError(f"the run {run.name!r} has ended")
    scopes = [scope.child(name, alone=True) for name, _ in branches]
    tasks = [run.spawn(make(), at.place, at) for (_, make), at in zip(branches, scopes, strict=True)]
    try:
        return await _gather(tasks, None if token is run.token else token)
    finally:
        scope.time = max((at.time for at in scopes), default=scope.time)


async def _gather(tasks: Sequence[asyncio.Future[T]], token: CancellationToken | None) -> list[T]:
    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    left = len(tasks)

    def count(task: asyncio.Future[T]) -> None:
        nonlocal left
        left -= 1
        if (left == 0 or _broke(task)) and not waiter.done():
            waiter.set_result(None)

    for task in tasks:
        task.add_done_callback(count)
    if token is not None:
        token.link_future(waiter)
    try:
        if tasks:
            await waiter
    finally:
        for task in tasks:
            task.cancel()  # of those that are done, nothing is left to cancel
    for task in tasks:
        if _broke(task):
            task.result()
    return [task.result() for task in tasks]


def _broke(task: asyncio.Future[Any]) -> bool:
    """Whether it ended badly; one that suspends lets the others finish."""
    return task.done() and (task.cancelled() or not isinstance(task.exception(), (Suspended, type(None))))


def put_in_order(said: list[Any], mark: int, lasting: Sequence[BaseAgentEvent | BaseChatMessage]) -> None:
    """What was said from `mark` on, side by side perhaps, in the order in which it stays; pieces before their whole."""
    if len(lasting) < 2:
        return
    order = {message.id: at for at, message in enumerate(lasting)}
    at, keyed = 0, []
    for item in said[mark:]:
        at = order.get(getattr(item, "full_message_id", None) or item.id, at)
        keyed.append((at, item))
    said[mark:] = [item for _, item in sorted(keyed, key=itemgetter(0))]
