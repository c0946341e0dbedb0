"""Messages on their way, and the mailboxes of agents that do not take everything at once.

Most agents have no mailbox: they take every message when it comes. One that is `sequential` begins a message when the
one before has ended, and one with `max_pending` refuses more than that. Sequential agents that ask each other in a
circle would wait forever, so the handlings that wait for a request travel with its sender's context (`callers`), and a
request that would have to wait for one of them is refused at once.

Not guaranteed: that a handler which asks without waiting for the answer is told from one that waits.
"""

from __future__ import annotations

from collections import deque
from contextvars import ContextVar, copy_context

from .errors import CallCycle, ConfigError, Overloaded

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence
    from contextvars import Context
    from typing import Any

    from .actors import Agent, MessageContext
    from .addresses import AgentId
    from .cancellation import CancellationToken


class Envelope:
    """A message on its way. A request has a recipient and the future of its reply, an event has a topic or neither."""

    __slots__ = ("context", "ctx", "event", "message", "recipient", "reply", "task", "token")

    def __init__(
        self,
        message: Any,
        ctx: MessageContext,
        token: CancellationToken | None,
        recipient: AgentId | None = None,
        reply: asyncio.Future[Any] | None = None,
    ) -> None:
        self.message = message
        self.ctx = ctx
        self.token = token
        self.recipient = recipient
        self.reply = reply
        self.task: asyncio.Task[Any] | None = None
        self.context: Context | None = None  # its sender's, while it waits somewhere
        self.event: str | None = None  # what listeners know it by

    def waits(self) -> Envelope:
        """Keep its sender's context until it can be handled. Called in that context."""
        if self.context is None:
            self.context = copy_context()
        return self

    def go_on(self, work: Callable[..., None], *about: Any) -> None:
        """Do `work` with it and `about`, in its sender's context, which it has kept."""
        assert self.context is not None
        self.context.run(work, self, *about)

    def is_cancelled(self) -> bool:
        """Whether it need not be delivered any more."""
        if self.reply is not None:
            return self.reply.done()
        return self.token is not None and self.token.is_cancelled()

    def __str__(self) -> str:
        where = f"agent '{self.recipient}'" if self.ctx.topic_id is None else f"topic '{self.ctx.topic_id}'"
        return f"the {type(self.message).__name__} for {where}"


class Turn:
    """The handling of one message by a sequential agent, and the mailboxes in which its requests wait."""

    __slots__ = ("asks", "box", "envelope")

    def __init__(self, box: Mailbox, envelope: Envelope) -> None:
        self.box = box
        self.envelope = envelope
        self.asks: list[tuple[Mailbox, Envelope]] = []


callers: ContextVar[tuple[Turn, ...]] = ContextVar("tinygen_callers", default=())


def enter(box: Mailbox | None, envelope: Envelope) -> None:
    """Note who waits for what is done from here on. Called in the context of the handler of `envelope`."""
    asking = callers.get() if envelope.reply is not None else ()  # nobody waits for what becomes of an event
    if box is not None and box.turn is not None and box.turn.envelope is envelope:
        asking = (*asking, box.turn)
    callers.set(asking)


class Mailbox:
    """Where messages wait for an agent that is sequential, or takes no more than so many.

    Args:
        agent_id: whose it is.
        sequential: True, or the classes of messages that wait for each other.
        limit: how many messages may be begun or waiting here; None for any number.
    """

    __slots__ = ("_limit", "_only", "agent_id", "begun", "turn", "waiting")

    def __init__(self, agent_id: AgentId, sequential: bool | Sequence[type[Any]], limit: int | None) -> None:
        if limit is not None and limit < 1:
            raise ConfigError(f"max_pending of agent '{agent_id}' must be at least 1, not {limit!r}")
        self.agent_id = agent_id
        self.begun: set[asyncio.Task[Any]] = set()
        self.turn: Turn | None = None
        self.waiting: deque[tuple[Envelope, tuple[Turn, ...]]] = deque()
        self._only: Any = (object,) if sequential is True else tuple(sequential or ())
        self._limit = limit

    @classmethod
    def of(cls, agent: Agent, agent_id: AgentId) -> Mailbox | None:
        """The mailbox this agent needs, if it needs one."""
        sequential = getattr(agent, "sequential", False)
        limit = getattr(agent, "max_pending", None)
        return cls(agent_id, sequential, limit) if sequential or limit is not None else None

    def admit(self, envelope: Envelope) -> bool:
        """Whether it is handled now; else it waits here. Called in its sender's context.

        Raises `Overloaded`, or `CallCycle` where waiting would never end.
        """
        if self._limit is not None and len(self.begun) + len(self.waiting) >= self._limit:
            waiting = sum(not envelope.is_cancelled() for envelope, _ in self.waiting)
            if waiting + sum(not task.done() for task in self.begun) >= self._limit:
                raise Overloaded(
                    f"agent '{self.agent_id}' has {self._limit} messages already, as its max_pending allows"
                )
        if self.turn is None or not isinstance(envelope.message, self._only):
            self._take(envelope)
            return True
        asking = callers.get() if envelope.reply is not None else ()
        if asking and (circle := self._circle(asking)):
            raise CallCycle(f"sequential agents would wait for each other: {circle}")
        for turn in asking:
            turn.asks.append((self, envelope))
        self.waiting.append((envelope.waits(), asking))
        return False

    def _take(self, envelope: Envelope) -> None:
        if isinstance(envelope.message, self._only):
            self.turn = Turn(self, envelope)

    def end(self, envelope: Envelope) -> Envelope | None:
        """Its handling has ended; which is handled next."""
        if self.turn is None or self.turn.envelope is not envelope:
            return None
        self.turn = None
        while self.waiting:
            following = self._pop()
            if not following.is_cancelled():
                self._take(following)
                return following
        return None

    def drop(self, envelope: Envelope) -> None:
        """Take out a message if it waits here."""
        for at, (each, _) in enumerate(self.waiting):
            if each is envelope:
                self._pop(at)
                return

    def clear(self) -> list[Envelope]:
        """Take out all that waits."""
        return [self._pop() for _ in range(len(self.waiting))]

    def _pop(self, at: int = 0) -> Envelope:
        envelope, asking = self.waiting[at]
        del self.waiting[at]
        for turn in asking:
            turn.asks.remove((self, envelope))
        return envelope

    def _circle(self, asking: tuple[Turn, ...]) -> str:
        """How this agent's handling waits for one of `asking`; empty if it does not."""
        ways: dict[Turn, str] = {}
        ahead = [(self.turn, str(asking[-1].box.agent_id))]
        while ahead:
            turn, way = ahead.pop()
            if turn is None or turn in ways or turn.envelope.is_cancelled():
                continue
            ways[turn] = f"{way} -> {turn.box.agent_id}"
            if turn in asking:
                between = [str(each.box.agent_id) for each in asking[asking.index(turn) :]]
                return " -> ".join([*between, str(self.agent_id)]) if turn is self.turn else ways[turn]
            ahead += [(box.turn, ways[turn]) for box, waiting in turn.asks if not waiting.is_cancelled()]
        return ""
