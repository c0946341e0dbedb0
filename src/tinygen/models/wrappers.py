"""Clients around clients: what every wrapper shares, and those that have several clients to choose from.

A wrapper passes on what it does not change, so that wrappers stand around each other in any order. To agents, limits
and listeners a call is one call, however many clients are asked for it; the attempts that failed are told to listeners
as points within it. Nothing is asked a second time once a piece of an answer has reached the caller. The answer of a
stream is handed on when the stream below has ended, so that it counts as answered even if the caller then goes.
"""

from __future__ import annotations

import asyncio
import copy
import threading
from dataclasses import dataclass

from ..errors import (
    ConfigError,
    IncompleteResponse,
    ModelError,
    RateLimitError,
    RequestError,
    of_another_copy,
    positive_int,
)
from ..journal import remark, what_failed
from ..messages import CreateResult, RequestUsage
from . import ChatCompletionClient, will_answer
from .wire import OR_ANOTHER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
    from typing import Any

    from ..messages import LLMMessage
    from . import ModelInfo, Tool, ToolSchema

    Ask = tuple[Callable[..., Awaitable[CreateResult]], Callable[..., AsyncGenerator[str | CreateResult, None]]]


class Wrapper(ChatCompletionClient):
    """Base of the clients that stand around others. A subclass defines `_create` and `_create_stream`.

    It asks through `self._asks`: `create` and `create_stream` of each client, which take the arguments as they came.
    """

    _repeated = RequestUsage(0, 0)  # of answers that were given again without asking

    def __init__(self, clients: Sequence[ChatCompletionClient]) -> None:
        self._clients = clients
        self._asks: list[Ask] = [_unheard(client) for client in clients]
        self._info: ModelInfo | None = None

    @property
    def model_info(self) -> ModelInfo:
        """What each of the clients can do; family and price are those of the first."""
        if len(self._clients) == 1:
            return self._clients[0].model_info
        if self._info is None:
            infos = [client.model_info for client in self._clients]
            info: dict[str, Any] = dict(infos[0])
            for name, value in infos[0].items():
                if isinstance(value, bool):
                    info[name] = all(each.get(name, False) for each in infos)
            if not all("price" in each for each in infos):
                info.pop("price", None)
            self._info = info  # type: ignore[assignment]
        return self._info  # type: ignore[return-value]

    def billing(self) -> tuple[str, Mapping[str, Any] | None]:
        """Those of the first client, until another one answers; no price unless each has one."""
        bills = [client.billing() for client in self._clients]
        return bills[0] if all(price is not None for _, price in bills) else (bills[0][0], None)

    def actual_usage(self) -> RequestUsage:
        """Tokens used so far by all the clients, without answers from a cache."""
        asked = (each for each in self._below().values() if not isinstance(each, Wrapper))
        return sum((client.actual_usage() for client in asked), RequestUsage(0, 0))

    def total_usage(self) -> RequestUsage:
        """Tokens used so far by all the clients."""
        parts = (each._repeated if isinstance(each, Wrapper) else each.total_usage() for each in self._below().values())
        return sum(parts, RequestUsage(0, 0))

    def _below(self) -> dict[int, ChatCompletionClient]:
        """This client and all that it stands around, each once: one may be asked from several places."""
        found: dict[int, ChatCompletionClient] = {id(self): self}
        for client in self._clients:
            found |= client._below() if isinstance(client, Wrapper) else {id(client): client}
        return found

    def count_tokens(self, messages: Sequence[LLMMessage], *, tools: Sequence[Tool | ToolSchema] = ()) -> int:
        """About how many tokens a request takes, of the client that counts most."""
        return max([client.count_tokens(messages, tools=tools) for client in self._clients])

    def remaining_tokens(self, messages: Sequence[LLMMessage], *, tools: Sequence[Tool | ToolSchema] = ()) -> int:
        """About how many tokens are left beside this request, of the client that has least."""
        return min(client.remaining_tokens(messages, tools=tools) for client in self._clients)

    def identity(self) -> dict[str, Any]:
        """That of the client, as long as there is only one."""
        identities = [client.identity() for client in self._clients]
        return identities[0] if len(identities) == 1 else {"one of": identities}

    @property
    def last_answer(self) -> tuple[float, Mapping[str, str]] | None:  # type: ignore[override]
        """That of the client, as long as there is only one."""
        return self._clients[0].last_answer if len(self._clients) == 1 else None

    async def close(self) -> None:
        """Close every client. They can be used again afterwards."""
        for failure in await asyncio.gather(*(client.close() for client in self._clients), return_exceptions=True):
            if failure is not None:
                raise failure


def _unheard(client: ChatCompletionClient) -> Ask:
    """How to ask a client within a call that listeners were told of: as it is asked by others, but silently."""
    if not isinstance(client, ChatCompletionClient):
        whose = of_another_copy(client, ChatCompletionClient)
        raise ConfigError(f"expected a model client, a ChatCompletionClient, not {client!r:.200}{whose}")
    asks: list[Any] = []
    for name in ("create", "create_stream"):
        ours = getattr(type(client), name) is getattr(ChatCompletionClient, name)  # not overridden by the user
        ask = getattr(client, f"_{name}" if ours else name)
        asks.append(ask if isinstance(client, Wrapper) else _billed(client, ask))
    return asks[0], asks[1]


def _billed(client: ChatCompletionClient, ask: Callable[..., Any]) -> Callable[..., Any]:
    """`ask`, so that what is used is counted as this client's. A wrapper leaves that to those it asks."""

    def asking(messages: Any, **arguments: Any) -> Any:
        will_answer(client)
        return ask(messages, **arguments)

    return asking


async def closed(stream: Any) -> None:
    """Close a stream, if it can be closed."""
    close = getattr(stream, "aclose", None)
    if close is not None:
        await close()


def whole(item: Any) -> CreateResult:
    """The last item of a stream, if it is the answer. Raises `IncompleteResponse`."""
    if isinstance(item, CreateResult):
        return item
    raise IncompleteResponse("the stream of the client ended without a CreateResult as its last item")


# --- several clients


def another_may_mend(error: Exception) -> bool:
    """Whether another client may answer what failed with this error.

    True of every `ModelError` but a refusal of the request itself; that a model is not known there is none.
    """
    return isinstance(error, ModelError) and (not isinstance(error, RequestError) or error.status == 404)


class _Several(Wrapper):
    """Asks one client after the other until one answers; which are asked, a subclass says."""

    def __init__(self, clients: Sequence[ChatCompletionClient], mends: Callable[[Exception], bool] | None) -> None:
        if not isinstance(clients, (list, tuple)) or not clients:
            raise ConfigError(f"clients must be a list of model clients, not {clients!r:.200}")
        super().__init__(clients)
        self._mends = mends or another_may_mend

    def _pick(self, asked: list[int]) -> int | None:
        """The number of the client to ask after those; it counts as busy until `_done`."""
        raise NotImplementedError

    def _done(self, asked: list[int], failure: BaseException | None) -> bool:
        """The last one asked has answered, or failed: whether to ask another."""
        return isinstance(failure, Exception) and self._mends(failure)

    async def _create(self, messages: Sequence[LLMMessage], **arguments: Any) -> CreateResult:
        asked: list[int] = []
        failures: list[Exception] = []
        while (at := self._pick(asked)) is not None:
            asked.append(at)
            try:
                result = await self._asks[at][0](messages, **arguments)
            except BaseException as error:  # noqa: BLE001 - the next client is asked, or it is raised
                if not self._done(asked, error):
                    raise
                self._failed(at, error, failures)
            else:
                self._done(asked, None)
                return result
        raise self._all_failed(failures)

    async def _create_stream(
        self, messages: Sequence[LLMMessage], **arguments: Any
    ) -> AsyncGenerator[str | CreateResult, None]:
        asked: list[int] = []
        failures: list[Exception] = []
        while (at := self._pick(asked)) is not None:
            asked.append(at)
            item: Any = None
            stream: Any = None
            try:
                stream = self._asks[at][1](messages, **arguments)
                async for item in stream:
                    if isinstance(item, str):
                        yield item
                answer = whole(item)
            except BaseException as error:  # noqa: BLE001 - the next client is asked, or it is raised
                if not self._done(asked, error) or item is not None:
                    raise
                self._failed(at, error, failures)
            else:
                self._done(asked, None)
                yield answer
                return
            finally:
                await closed(stream)
        raise self._all_failed(failures)

    def _failed(self, at: int, error: Any, failures: list[Exception]) -> None:
        failures.append(error)
        remark("model", self._clients[at].model_info["family"], {**what_failed(error), "client": at})

    def _all_failed(self, failures: list[Exception]) -> Exception:
        """The last failure, with the others in its words."""
        error = failures[-1]
        if len(failures) == 1:
            return error
        before = "; ".join(f"{type(each).__name__}: {each}" for each in failures[:-1])
        words = f"{error} (The last of {len(failures)} clients. Before it: {before})"
        try:
            summed = copy.copy(error)  # the client may raise the same object again
        except TypeError:  # a class of the user's that is made in a way of its own
            return error
        summed.args = (words.replace(OR_ANOTHER, ""),)
        summed.__cause__ = error
        return summed


class FallbackClient(_Several):
    """Asks the first client, and each next one where the one before it fails.

        model = FallbackClient([create_client("anthropic:claude-sonnet-4-5"), create_client("openai:gpt-4o")])

    Args:
        clients: in the order in which they are asked.
        mends: says of an exception whether another client may mend it; by default `another_may_mend`.

    When all fail, the last error is raised, and names those before it.
    """

    def __init__(
        self, clients: Sequence[ChatCompletionClient], *, mends: Callable[[Exception], bool] | None = None
    ) -> None:
        super().__init__(clients, mends)

    def _pick(self, asked: list[int]) -> int | None:
        return len(asked) if len(asked) < len(self._clients) else None


@dataclass
class _Member:
    """How one of the clients stands. `turn` tells when its share of the calls is used up, beside those of others."""

    share: float  # of one call: the larger the weight, the smaller
    turn: float = 0.0
    busy: int = 0
    failures: int = 0
    opens: float | None = None  # when it may be asked again, after it failed
    probe: list[int] | None = None  # the call that tries it then, known by whom that asked

    def rests(self, now: float) -> bool:
        """Whether it is not to be asked now."""
        return self.opens is not None and (self.probe is not None or now < self.opens)


class LoadBalancingClient(_Several):
    """Shares calls out among clients: each goes to the one least busy for its weight, in turn where several are.

    A client that failed several times running rests; then one call tries it again, and the others follow if that is
    answered. Where a client fails, the next is asked, each at most once for a call.

    Args:
        weights: how much each client gets beside the others; by default all the same.
        failures: after so many of them running a client rests. One that says how long it takes no requests
            (`RateLimitError.retry_after`) rests for that time at once.
        cool_down: seconds that it rests.
        mends: as in `FallbackClient`; what another client cannot mend does not count as a failure.
    """

    def __init__(
        self,
        clients: Sequence[ChatCompletionClient],
        weights: Sequence[float] | None = None,
        *,
        failures: int = 3,
        cool_down: float = 30.0,
        mends: Callable[[Exception], bool] | None = None,
    ) -> None:
        super().__init__(clients, mends)
        weights = [1.0] * len(clients) if weights is None else weights
        if len(weights) != len(clients) or not all(isinstance(w, (int, float)) and w > 0 for w in weights):
            raise ConfigError(f"weights must be {len(clients)} numbers above 0, one for each client, not {weights!r}")
        if not isinstance(cool_down, (int, float)) or not cool_down >= 0:
            raise ConfigError(f"cool_down must be a number of seconds, not {cool_down!r}")
        self._members = [_Member(1 / weight) for weight in weights]
        self._failures = positive_int("failures", failures)
        self._cool_down = cool_down
        self._turn = 0.0
        self._lock = threading.Lock()

    def _pick(self, asked: list[int]) -> int | None:
        now = asyncio.get_running_loop().time()
        chosen, least, begins = None, (0.0, 0.0), 0.0
        with self._lock:
            for at, member in enumerate(self._members):
                if at in asked or (member.opens is not None and member.rests(now)):
                    continue
                # who was busy or at rest for long does not make up for it
                begin = max(member.turn, self._turn - member.share)
                load = member.busy * member.share, begin + member.share
                if chosen is None or load < least:
                    chosen, least, begins = at, load, begin
            if chosen is not None:
                member = self._members[chosen]
                self._turn = max(self._turn, begins)
                member.turn = least[1]
                member.busy += 1
                if member.opens is not None:
                    member.probe = asked
        return chosen

    def _done(self, asked: list[int], failure: BaseException | None) -> bool:
        member = self._members[asked[-1]]
        with self._lock:
            member.busy -= 1
            late = member.opens is not None and member.probe is not asked  # it was asked before the client rested
            if not late:
                member.probe = None
                if failure is None:
                    member.failures, member.opens = 0, None
        mends = failure is not None and super()._done(asked, failure)
        if mends and not late:
            with self._lock:
                member.failures += 1
                wait = failure.retry_after if isinstance(failure, RateLimitError) else None
                if wait is not None or member.failures >= self._failures:
                    rest = self._cool_down if wait is None else wait
                    member.opens = asyncio.get_running_loop().time() + rest
        return mends

    def _all_failed(self, failures: list[Exception]) -> Exception:
        if failures:
            return super()._all_failed(failures)
        now = asyncio.get_running_loop().time()
        wait = min(max(0.0, (member.opens or now) - now) for member in self._members)
        return ModelError(
            f"all {len(self._members)} clients rest after failures; one is tried again in {wait:.1f} s",
            retry_after=wait,
        )
