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


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None]:
    test, unseen = pyfuncitem.obj, []
    if inspect.iscoroutinefunction(test):
        pyfuncitem.obj = _synchronous(test, unseen)
    elif inspect.iscoroutinefunction(getattr(getattr(test, "hypothesis", None), "inner_test", None)):
        test.hypothesis.inner_test = _synchronous(test.hypothesis.inner_test, unseen)
    else:
        return (yield)
    gc.freeze()  # so that the collection below looks at this test's objects alone, which takes no time
    try:
        result = yield
        gc.collect()  # a task whose exception nobody asked for reports it when it is dropped
    finally:
        gc.unfreeze()
    assert not unseen, f"failures nobody saw: {unseen}"
    return result


def _synchronous(test: Callable[..., Awaitable[None]], unseen: list[Any]) -> Callable[..., None]:
    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(_bounded(test(*args, **kwargs), unseen))

    del run.__wrapped__  # else it passes for a coroutine function still
    return run


async def _bounded(test: Awaitable[None], unseen: list[Any]) -> None:
    """Run `test`; fail if it takes too long or leaves tasks behind. Failures that nobody awaits go to `unseen`."""
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
    task = asyncio.ensure_future(test)
    done, _ = await asyncio.wait({task}, timeout=BOUND)
    if not done:
        where = "".join(f"\n{each!r}" for each in asyncio.all_tasks())
        task.cancel()
        await asyncio.wait({task}, timeout=GRACE)
        pytest.fail(f"not finished after {BOUND:g} s; tasks:{where}")
    task.result()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        _, left = await asyncio.wait(left, timeout=GRACE)
    assert not left, f"tasks left behind: {left}"


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
