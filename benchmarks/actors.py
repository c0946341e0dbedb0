"""The runtime: a request and its answer, a publication to many, agents that wait."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tinygen import (
    AgentId,
    CancellationToken,
    DefaultInterventionHandler,
    MessageContext,
    RoutedAgent,
    SingleThreadedAgentRuntime,
    TopicId,
    TypeSubscription,
    message_handler,
)

from .harness import Call, Row, compare, in_turn

SUBSCRIBERS = 100
IDLE = 100_000
ECHO = AgentId("echo", "default")


@dataclass
class Ping:
    number: int


@dataclass
class Burst:
    number: int


class Echo(RoutedAgent):
    """Answers each message with itself."""

    def __init__(self) -> None:
        super().__init__("echo")

    @message_handler
    async def on_ping(self, message: Ping, ctx: MessageContext) -> Ping:
        return message


class OneByOne(Echo):
    """An echo that handles one message at a time."""

    sequential = True


class States(dict[str, Any]):
    """Keeps the states of released agents."""

    def set(self, key: str, value: object) -> None:
        self[key] = value


class Asker(RoutedAgent):
    """Asks the echo a number of times."""

    def __init__(self) -> None:
        super().__init__("asker")

    @message_handler
    async def on_burst(self, message: Burst, ctx: MessageContext) -> None:
        echo = AgentId("echo", "default")
        for number in range(message.number):
            await self.send_message(Ping(number), echo)


@asynccontextmanager
async def _queue_and_future() -> AsyncIterator[Call]:
    queue: asyncio.Queue[tuple[Ping, asyncio.Future[Ping]]] = asyncio.Queue()

    async def serve() -> None:
        while True:
            message, answer = await queue.get()
            answer.set_result(message)

    async def ask_many() -> None:
        loop = asyncio.get_running_loop()
        for number in range(1000):
            answer: asyncio.Future[Ping] = loop.create_future()
            queue.put_nowait((Ping(number), answer))
            await answer

    server = asyncio.create_task(serve())
    yield ask_many
    server.cancel()


@asynccontextmanager
async def _two_actors() -> AsyncIterator[Call]:
    runtime = SingleThreadedAgentRuntime()
    await Echo.register(runtime, "echo", Echo)
    await Asker.register(runtime, "asker", Asker)
    runtime.start()
    yield lambda: runtime.send_message(Burst(1000), AgentId("asker", "default"))
    await runtime.close()


@asynccontextmanager
async def _asking(
    ask: Callable[[Echo, int], Awaitable[object]], echo: type[Echo] = Echo, **options: Any
) -> AsyncIterator[Call]:
    """1000 requests one after the other, by `ask` from inside an agent, to a runtime with these options."""
    runtime = SingleThreadedAgentRuntime(**options)
    await echo.register(runtime, "echo", echo)
    runtime.start()
    if ask is _traced:
        runtime.trace(limit=1000)
    asker = Echo()
    await asker.register_instance(runtime, AgentId("asker", "default"))

    async def ask_many() -> None:
        for number in range(1000):
            await ask(asker, number)

    yield ask_many
    await runtime.close()


async def _plain(asker: Echo, number: int) -> object:
    return await asker.send_message(Ping(number), ECHO)


async def _traced(asker: Echo, number: int) -> object:
    return await asker.send_message(Ping(number), ECHO)


async def _with_token(asker: Echo, number: int) -> object:
    return await asker.send_message(Ping(number), ECHO, cancellation_token=CancellationToken())


async def _with_deadline(asker: Echo, number: int) -> object:
    return await asker.send_message(Ping(number), ECHO, timeout=60)


def additions() -> Iterator[Row]:
    """What a request costs with each of the things that may be used, beside one with none of them."""
    cases: list[tuple[str, Callable[[], AbstractAsyncContextManager[Call]]]] = [
        ("an intervention", lambda: _asking(_plain, intervention_handlers=[DefaultInterventionHandler()])),
        ("a trace", lambda: _asking(_traced)),
        ("a cancellation token", lambda: _asking(_with_token)),
        ("a deadline", lambda: _asking(_with_deadline)),
        ("a sequential agent", lambda: _asking(_plain, OneByOne)),
        ("a watch over slow handlers", lambda: _asking(_plain, slow_after=1.0)),
        ("release of idle agents", lambda: _asking(_plain, state_store=States(), idle_after=60.0)),
    ]
    for name, prepare in cases:
        floor, ours = compare(lambda: _asking(_plain), prepare, number=3)
        yield Row(f"request with {name}", floor / 1000, ours / 1000, "us")


def _in_flight(number: int) -> Callable[[], AbstractAsyncContextManager[Call]]:
    """20,000 requests, this many at a time."""

    @asynccontextmanager
    async def prepare() -> AsyncIterator[Call]:
        runtime = SingleThreadedAgentRuntime()
        await Echo.register(runtime, "echo", Echo)
        runtime.start()

        async def ask_all() -> None:
            for first in range(0, 20_000, number):
                sending = [asyncio.ensure_future(runtime.send_message(Ping(first + n), ECHO)) for n in range(number)]
                for each in sending:
                    await each

        yield ask_all
        await runtime.close()

    return prepare


def in_flight() -> Iterator[Row]:
    """20,000 requests in flight at once; floor: one after the other, each in a task too."""
    floor, ours = compare(_in_flight(1), _in_flight(20_000), number=1, repeats=5)
    yield Row("20,000 requests in flight, each", floor / 20_000, ours / 20_000, "us")


def _spread(agents: int) -> Callable[[], AbstractAsyncContextManager[Call]]:
    """100,000 requests in ten rounds over this many agents."""

    @asynccontextmanager
    async def prepare() -> AsyncIterator[Call]:
        runtime = SingleThreadedAgentRuntime()
        await Echo.register(runtime, "echo", Echo)
        runtime.start()
        ids = [AgentId("echo", str(n)) for n in range(agents)]
        for each in ids:
            await runtime.get(each, lazy=False)

        async def ask_all() -> None:
            for n in range(100_000):
                await runtime.send_message(Ping(n), ids[n % agents])

        yield ask_all
        await runtime.close()

    return prepare


def many_agents() -> Iterator[Row]:
    """10,000 agents with ten requests each; floor: as many requests to ten agents."""
    floor, ours = compare(_spread(10), _spread(10_000), number=1, repeats=3)
    yield Row("10,000 agents with ten requests each, each", floor / 100_000, ours / 100_000, "us")


def request() -> Iterator[Row]:
    """One actor asks another and waits; floor: a queue to a task, a future back."""
    floor, ours = compare(_queue_and_future, _two_actors, number=3)
    yield Row("request and answer between two actors", floor / 1000, ours / 1000, "us")


class Listener(RoutedAgent):
    """Counts what it hears."""

    def __init__(self, heard: Callable[[], None]) -> None:
        super().__init__("listener")
        self.heard = heard

    @message_handler
    async def on_ping(self, message: Ping, ctx: MessageContext) -> None:
        self.heard()


class Audience:
    """Counts who has heard; the last one wakes whoever waits in `complete`."""

    def __init__(self) -> None:
        self.left = SUBSCRIBERS
        self.last = asyncio.Event()

    def heard(self) -> None:
        self.left -= 1
        if not self.left:
            self.last.set()

    async def complete(self) -> None:
        await self.last.wait()
        self.last.clear()
        self.left = SUBSCRIBERS


@asynccontextmanager
async def _callbacks() -> AsyncIterator[Call]:
    audience, loop = Audience(), asyncio.get_running_loop()

    async def publish() -> None:
        for _ in range(SUBSCRIBERS):
            loop.call_soon(audience.heard)
        await audience.complete()

    yield publish


@asynccontextmanager
async def _subscribers() -> AsyncIterator[Call]:
    audience, runtime = Audience(), SingleThreadedAgentRuntime()
    for number in range(SUBSCRIBERS):
        await Listener.register(runtime, f"listener{number}", lambda: Listener(audience.heard))
        await runtime.add_subscription(TypeSubscription("news", f"listener{number}"))
    runtime.start()

    async def publish() -> None:
        await runtime.publish_message(Ping(1), TopicId("news", "default"))
        await audience.complete()

    yield publish
    await runtime.close()


def publish() -> Iterator[Row]:
    """One message to 100 subscribers until all have it, per delivery; floor: `loop.call_soon` for each of them."""
    floor, ours = compare(_callbacks, _subscribers, number=50)
    yield Row(f"publish to {SUBSCRIBERS} subscribers, per delivery", floor / SUBSCRIBERS, ours / SUBSCRIBERS, "us")


class Bare:
    """The least an agent could be: an object with attributes."""

    def __init__(self, key: str) -> None:
        self.key = key


def _bytes_of(make: Callable[[], object]) -> float:
    gc.collect()
    tracemalloc.start()
    kept = make()
    gc.collect()
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    del kept
    return size / IDLE


def _bare_objects() -> object:
    return {f"idle/{number}": Bare(str(number)) for number in range(IDLE)}


def _idle_agents() -> object:
    runtime = SingleThreadedAgentRuntime()

    async def make() -> None:
        await Echo.register(runtime, "idle", Echo)
        for number in range(IDLE):
            await runtime.try_get_underlying_agent_instance(AgentId("idle", str(number)))

    asyncio.run(make())
    return runtime


def idle_agents() -> Iterator[Row]:
    """Memory of an agent that waits; floor: an object with a `__dict__` under its id in a dict."""
    floor, ours = in_turn(lambda: _bytes_of(_bare_objects), lambda: _bytes_of(_idle_agents), repeats=1)
    yield Row(f"an idle agent ({IDLE:,} of them)", floor, ours, "B")
