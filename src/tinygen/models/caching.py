"""Asking a model only once for the same thing.

An answer is kept under a digest of the exact request: who is asked (`ChatCompletionClient.identity`), the messages, the
tools, the choice among them, the form of the answer, and every further argument. Kept are whole answers only, those
that end with "stop" or "function_calls"; what was cut off, filtered, or ended for a reason nobody knows is asked for
again. What is kept is never handed out itself, only copies of it.

Equal requests at one time are one `_Flight`: a task that asks and keeps the answer, and in which those who wait only
take part. One of them can be cancelled, or read its stream slowly, without the others noticing; when the last one has
gone the flight ends. An error is an error for all of them. What a store raises is raised.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
from collections.abc import Mapping
from inspect import isawaitable, iscoroutinefunction

from .. import codec
from ..cache import InMemoryStore
from ..errors import ConfigError, DecodeError
from ..messages import CreateResult, FunctionCall
from . import answering, pieces_of, schema_of, type_name, will_answer, without_types
from .texts import MessageTexts
from .wrappers import Wrapper, closed, whole

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
    from typing import Any

    from ..cache import CacheStore
    from ..cancellation import CancellationToken
    from ..messages import LLMMessage
    from . import ChatCompletionClient

GRACE = 1.0  # seconds that a request nobody waits for any more gets to end
_KEPT = ("stop", "function_calls")
_FREE = {"prompt": 0, "completion": 0}  # also where nobody knows what the model costs


class ChatCompletionCache(Wrapper):
    """Gives the answer of an earlier request that was exactly the same, with `cached=True`.

        model = ChatCompletionCache(create_client("openai:gpt-4o-mini"), SQLiteCacheStore("answers.sqlite3"))

    Such an answer comes with the tokens it took at first. They count in `total_usage`, not in `actual_usage`, and cost
    nothing. Streams give it word by word.

    Args:
        client: whose answers are kept.
        store: where they are kept, by default in memory. Any object with `get(key)` and `set(key, value)`, plain or
            async, which gives back the `CreateResult` it was given, or its JSON data. Clients may share one.
    """

    def __init__(self, client: ChatCompletionClient, store: CacheStore[Any] | None = None) -> None:
        super().__init__([client])
        self._store: Any = InMemoryStore() if store is None else store
        for name in ("get", "set"):
            if not callable(getattr(self._store, name, None)):
                raise ConfigError(f"store must have the methods get and set, which {store!r:.200} has not")
        self._blocks: Sequence[str] = getattr(self._store, "blocks", ())
        self._waits = "get" in self._blocks or iscoroutinefunction(self._store.get)
        self._digests = MessageTexts(codec.digest)
        self._who = ""
        self._flights: dict[tuple[asyncio.AbstractEventLoop, str], _Flight] = {}

    async def _create(
        self,
        messages: Sequence[LLMMessage],
        *,
        cancellation_token: CancellationToken | None = None,
        **arguments: Any,
    ) -> CreateResult:
        found = self._begin(self._key(messages, **arguments), lambda _: self._asks[0][0](messages, **arguments))
        if isinstance(found, CreateResult):
            return found
        try:
            return self._landed(await found.result(cancellation_token), found)
        finally:
            await found.leave()

    async def _create_stream(
        self,
        messages: Sequence[LLMMessage],
        *,
        cancellation_token: CancellationToken | None = None,
        **arguments: Any,
    ) -> AsyncGenerator[str | CreateResult, None]:
        def ask(flight: _Flight) -> Awaitable[CreateResult]:
            return flight.read(self._asks[0][1](messages, **arguments))

        found = self._begin(self._key(messages, **arguments), ask)
        if isinstance(found, CreateResult):
            for piece in pieces_of(found):
                yield piece
            yield found
            return
        try:
            seen = 0
            while seen < len(found.pieces) or not found.is_over:
                if seen == len(found.pieces):
                    await found.news(cancellation_token)
                else:
                    seen += 1
                    yield found.pieces[seen - 1]
            result = await found.result(cancellation_token)
            if not seen:  # whoever began it did not ask for a stream
                for piece in pieces_of(result):
                    yield piece
            yield self._landed(result, found)
        finally:
            await found.leave()

    def _key(
        self,
        messages: Sequence[LLMMessage],
        tools: Sequence[Any] = (),
        tool_choice: Any = "auto",
        json_output: Any = None,
        extra_create_args: Mapping[str, Any] = {},
    ) -> str:
        """What tells this request from every other."""
        self._who = self._who or codec.digest(self.identity())
        parts = [self._who, *self._digests.texts(messages)]
        if tools or tool_choice != "auto" or json_output is not None or extra_create_args:
            rest = {
                "tools": [schema_of(tool) for tool in tools],
                "tool_choice": tool_choice if isinstance(tool_choice, str) else [schema_of(tool_choice)["name"]],
                "json_output": without_types(json_output, _schema),
                "extra": without_types(extra_create_args, _schema),
            }
            parts += ["", codec.digest(rest)]
        return f"tinygen:1:{hashlib.sha256(' '.join(parts).encode()).hexdigest()}"

    def _begin(self, key: str, ask: Callable[[_Flight], Awaitable[CreateResult]]) -> CreateResult | _Flight:
        """The answer, where the store has it at once; or else the flight to take part in, and to `leave`."""
        place = asyncio.get_running_loop(), key
        flight = self._flights.get(place)
        if flight is None:
            kept = None if self._waits else self._store.get(key)
            if kept is not None:
                if isinstance(kept, CreateResult) or not isawaitable(kept):
                    return self._hit(kept, key)
                self._waits = True

            async def work(flight: _Flight) -> CreateResult:
                found = kept
                if self._waits:
                    found = await (self._stored("get", key) if kept is None else kept)
                if found is not None:
                    return self._hit(found, key)
                result = await ask(flight)
                if result.finish_reason in _KEPT:
                    await self._stored("set", key, _copy(result, cached=False))
                return result

            flight = _Flight(work, self._flights, place)
        else:
            flight.shared = True
        flight.callers += 1
        return flight

    async def _stored(self, name: str, *arguments: Any) -> Any:
        """Call a method of the store, in the way that it wants to be called."""
        method = getattr(self._store, name)
        done = await asyncio.to_thread(method, *arguments) if name in self._blocks else method(*arguments)
        return await done if done is not None and isawaitable(done) else done

    def _hit(self, found: Any, key: str) -> CreateResult:
        """A copy of what the store gave."""
        if isinstance(found, Mapping):
            found = codec.decode(CreateResult, found, mode="state")
        if not isinstance(found, CreateResult):
            raise DecodeError("$", f"the store gives a {type(found).__name__} for {key!r}, not the CreateResult it got")
        return self._again(found)

    def _landed(self, result: CreateResult, flight: _Flight) -> CreateResult:
        """The answer for one of those who waited: as it came for the first, who pays, and again for each other."""
        if not flight.shared:
            return result
        if flight.taken:
            return self._again(result)
        flight.taken = True
        will_answer(self, flight.billed)
        return _copy(result, cached=result.cached)

    def _again(self, result: CreateResult) -> CreateResult:
        """What was answered once, for somebody else."""
        will_answer(self)
        billed = answering()
        if billed is not None and billed[1] is None:
            will_answer(self, (billed[0], _FREE))
        self._repeated = self._repeated + result.usage
        return _copy(result, cached=True)


class _Flight:
    """A request under way, for one or for several `callers`. Each counts itself, and then has to `leave`."""

    def __init__(
        self, work: Callable[[_Flight], Awaitable[CreateResult]], board: dict[Any, _Flight], place: Any
    ) -> None:
        self.shared = self.taken = False
        self.billed: tuple[str, Any] | None = None  # as whose answer it counts
        self._board, self._place = board, place
        board[place] = self
        self.pieces: list[str] = []
        self.callers = 0
        self._waiters: list[asyncio.Future[None]] = []
        self._answer: CreateResult | None = None
        self._failure: BaseException  # where there is no answer
        self.is_over = False  # so that it comes too late to take part
        self._task = asyncio.get_running_loop().create_task(self._do(work), name="tinygen-cache")

    async def leave(self) -> None:
        """Wait no longer. A request that nobody waits for ends."""
        self.callers -= 1
        if not self.callers and not self.is_over:
            self._end()
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=GRACE)

    async def read(self, stream: AsyncIterator[str | CreateResult]) -> CreateResult:
        """Take in a stream. Raises `IncompleteResponse` if it ends without an answer."""
        item: Any = None
        try:
            async for item in stream:
                if isinstance(item, str):
                    self.pieces.append(item)
                    self._wake()
            return whole(item)
        finally:
            await closed(stream)

    async def result(self, token: CancellationToken | None) -> CreateResult:
        """The answer, when it is there."""
        while not self.is_over:
            await self.news(token)
        if self._answer is None:
            raise self._failure
        return self._answer

    async def _do(self, work: Callable[[_Flight], Awaitable[CreateResult]]) -> None:
        try:
            self._answer = await work(self)
            if self.shared:
                self.billed = answering()
        except BaseException as error:  # noqa: BLE001 - raised in each of those who wait
            self._failure = error
        self._end()

    def news(self, token: CancellationToken | None) -> asyncio.Future[None]:
        """Done when there is something new."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        if token is not None and not token.watched:
            token.link_future(waiter)
        return waiter

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _end(self) -> None:
        """Let nobody join any more."""
        if not self.is_over:
            self.is_over = True
            del self._board[self._place]
            self._wake()


def _copy(result: CreateResult, *, cached: bool) -> CreateResult:
    """A twin that shares nothing with it that could be changed."""
    content = result.content
    if not isinstance(content, str):
        content = [FunctionCall(call.id, call.arguments, call.name) for call in content]
    made: dict[str, Any] = {"content": content, "usage": result.usage.model_copy(), "cached": cached}
    if result.logprobs or result.provider_data:
        made["logprobs"], made["provider_data"] = copy.deepcopy((result.logprobs, result.provider_data))
    return result.model_copy(update=made)


def _schema(kind: Any) -> dict[str, Any]:
    return {"type": type_name(kind), "schema": codec.schema(kind)}
