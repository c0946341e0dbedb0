"""Which runtimes the suite is run against. Another one needs a host here: how it is made, started and stopped."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import pytest

from tinygen import AgentRuntime, DefaultInterventionHandler, InterventionHandler, SingleThreadedAgentRuntime


class Host(Protocol):
    """A runtime, and what is not in the protocol because each kind does it in its own way."""

    runtime: AgentRuntime
    in_process: bool  # messages, answers and exceptions arrive as the objects that were sent

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def stop_when_idle(self) -> None: ...
    async def close(self) -> None: ...


class LocalHost:
    in_process = True

    def __init__(self, interventions: Sequence[InterventionHandler] = (), ignore_failures: bool = True) -> None:
        self.runtime: Any = SingleThreadedAgentRuntime(
            intervention_handlers=interventions, ignore_unhandled_exceptions=ignore_failures
        )

    async def start(self) -> None:
        self.runtime.start()

    async def stop(self) -> None:
        await self.runtime.stop()

    async def stop_when_idle(self) -> None:
        await self.runtime.stop_when_idle()

    async def close(self) -> None:
        await self.runtime.close()


class WatchedHost(LocalHost):
    """The same with everything switched on that looks on: it changes nothing."""

    def __init__(self, interventions: Sequence[InterventionHandler] = (), ignore_failures: bool = True) -> None:
        self.runtime = SingleThreadedAgentRuntime(
            intervention_handlers=[DefaultInterventionHandler(), *interventions],
            ignore_unhandled_exceptions=ignore_failures,
            slow_after=10.0,
        )
        self.runtime.trace()


class EagerHost(LocalHost):
    """The same in an event loop that begins tasks at once."""

    async def start(self) -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
        await super().start()


MakeHost = Callable[..., Host]

HOSTS: list[MakeHost] = [LocalHost, WatchedHost]
if sys.version_info >= (3, 12):
    HOSTS.append(EagerHost)


@pytest.fixture(params=HOSTS, ids=lambda host: host.__name__)
def make_host(request: pytest.FixtureRequest) -> MakeHost:
    made: MakeHost = request.param
    return made


@pytest.fixture
def host(make_host: MakeHost) -> Host:
    return make_host()
