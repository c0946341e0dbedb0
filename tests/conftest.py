"""What holds for every test: coroutines run, bounded; nothing is left running; no network but this machine's own."""

from __future__ import annotations

import asyncio
import gc
import inspect
import ipaddress
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from functools import wraps
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

BOUND = 30.0  # seconds a test may take
GRACE = 1.0  # seconds its tasks have to end after it

settings.register_profile(
    "default", deadline=None, database=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("explore", settings.get_profile("default"), derandomize=False, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()  # so that the collection after each asynchronous test looks at that test's objects alone


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None]:
    test = pyfuncitem.obj
    if inspect.iscoroutinefunction(test):
        pyfuncitem.obj = _synchronous(test)
    elif inspect.iscoroutinefunction(getattr(getattr(test, "hypothesis", None), "inner_test", None)):
        test.hypothesis.inner_test = _synchronous(test.hypothesis.inner_test)
    return (yield)


def _synchronous(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(_bounded(test(*args, **kwargs)))

    del run.__wrapped__  # else it passes for a coroutine function still
    return run


async def _bounded(test: Awaitable[None]) -> None:
    """Run `test`; fail if it takes too long, leaves tasks behind or lets a task's exception go unseen."""
    unseen: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
    task = asyncio.ensure_future(test)
    done, _ = await asyncio.wait({task}, timeout=BOUND)
    if not done:
        where = "".join(f"\n{each!r}" for each in asyncio.all_tasks())
        task.cancel()
        await asyncio.wait({task}, timeout=GRACE)
        pytest.fail(f"not finished after {BOUND:g} s; tasks:{where}")
    task.result()
    del task, done
    if left := asyncio.all_tasks() - {asyncio.current_task()}:
        _, left = await asyncio.wait(left, timeout=GRACE)
    assert not left, f"tasks left behind: {left}"
    gc.collect()  # a task whose exception nobody asked for reports it when it is dropped
    assert not unseen, f"failures nobody saw: {unseen}"


def _only_this_machine(event: str, args: tuple[Any, ...]) -> None:
    if event == "socket.connect" and isinstance(args[1], tuple):
        host = args[1][0]
    elif event == "socket.getaddrinfo":
        host = args[0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host in (None, "", "localhost") or str(host).endswith(".invalid"):
        return
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    if not local:
        raise RuntimeError(f"a test tried to reach {host!r}; tests talk to this machine only")


sys.addaudithook(_only_this_machine)
