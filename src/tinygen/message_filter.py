"""An agent that hears only some of what is said."""

from __future__ import annotations

from contextlib import aclosing

from .agents import BaseChatAgent, expect_state, own
from .errors import AlreadyRunning, ConfigError, of_another_copy
from .messages import BaseAgentEvent, BaseChatMessage, HandoffMessage, Response
from .records import Record
from .run import current_scope

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence
    from typing import Any, Literal

    from .agents import Said
    from .cancellation import CancellationToken
    from .runner import TaskRunner, Undo


class PerSourceFilter(Record, tagged=False):
    """Which messages of one source get through: the first or the last `count` of each turn, all without a position."""

    source: str
    position: Literal["first", "last"] | None = None
    count: int | None = None

    def __post_init__(self) -> None:
        if self.position not in ("first", "last", None):
            raise ConfigError(f"position must be 'first', 'last' or None, not {self.position!r:.80}")
        if self.count is not None and (type(self.count) is not int or self.count < 1):
            raise ConfigError(f"count must be a whole number of at least 1, or None, not {self.count!r:.80}")


class MessageFilterConfig(Record, tagged=False):
    """Which messages get through: of each source what its filter says, of all others none."""

    per_source: list[PerSourceFilter]


class MessageFilterAgent(BaseChatAgent):
    """Another agent under a name of its own, which hears only what a filter lets through, in the order it was said.

        critic = MessageFilterAgent(
            "critic",
            wrapped_agent=AssistantAgent("strict", model),
            filter=MessageFilterConfig(per_source=[PerSourceFilter(source="writer", position="last", count=1)]),
        )

    What the wrapped agent says is said in the name of this one.

    Args:
        name: a Python identifier.
        wrapped_agent: the agent that answers.
        filter: what it gets to hear.
    """

    _state_type = "MessageFilterAgentState"

    @classmethod
    def _config_types(cls) -> Mapping[str, Any]:
        return {"filter": MessageFilterConfig}

    def __init__(self, name: str, wrapped_agent: BaseChatAgent, filter: MessageFilterConfig) -> None:
        if not isinstance(wrapped_agent, BaseChatAgent):
            whose = of_another_copy(wrapped_agent, BaseChatAgent)
            raise ConfigError(f"wrapped_agent of {name!r} must be an agent, not {wrapped_agent!r:.80}{whose}")
        if not isinstance(filter, MessageFilterConfig):
            raise ConfigError(f"filter of {name!r} must be a MessageFilterConfig, not {filter!r:.80}")
        super().__init__(name, wrapped_agent.description)
        self._wrapped_agent = wrapped_agent
        self._filter = filter
        self.opaque = wrapped_agent.opaque

    @property
    def produced_message_types(self) -> Sequence[type[BaseChatMessage]]:
        return self._wrapped_agent.produced_message_types

    @property
    def handoffs(self) -> Sequence[Any]:
        """The handoffs the wrapped agent can make."""
        return getattr(self._wrapped_agent, "handoffs", ())

    async def on_messages_stream(
        self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken
    ) -> AsyncGenerator[Said, None]:
        wrapped, scope = self._wrapped_agent, current_scope()
        if wrapped._at_work:
            raise AlreadyRunning(wrapped.name)
        wrapped._turn_of = scope.run if scope is not None else None
        try:
            async with aclosing(wrapped.on_messages_stream(self._let_through(messages), cancellation_token)) as stream:
                async for item in stream:
                    yield self._in_own_name(item)
        finally:
            wrapped._turn_of = None

    async def on_reset(self, cancellation_token: CancellationToken) -> None:
        await self._wrapped_agent.reset()

    async def close(self) -> None:
        await self._wrapped_agent.close()

    async def checkpoint(self) -> Undo:
        undo_own, undo_wrapped = self.mark_attributes(), await self._wrapped_agent.checkpoint()

        async def restore() -> None:
            await undo_own()
            await undo_wrapped()

        return restore

    async def _state_fields(self) -> dict[str, Any]:
        return {"wrapped_agent_state": dict(await self._wrapped_agent.save_state())}

    async def _load(self, state: Mapping[str, Any]) -> None:
        if isinstance(state, dict) and state.get("type") == "BaseState":  # AutoGen saved nothing of it
            expect_state(state, "BaseState")
            await self._wrapped_agent.reset()
            return
        expect_state(state, self._state_type, needed="wrapped_agent_state")
        await self._wrapped_agent.load_state(state["wrapped_agent_state"])

    def _parts(self) -> Sequence[TaskRunner]:
        return (self._wrapped_agent,)

    def _let_through(self, messages: Sequence[BaseChatMessage]) -> list[BaseChatMessage]:
        passed: set[int] = set()
        for each in self._filter.per_source:
            found = [at for at, message in enumerate(messages) if message.source == each.source]
            if each.position is not None and each.count is not None:
                found = found[: each.count] if each.position == "first" else found[-each.count :]
            passed.update(found)
        wrapped = self._wrapped_agent.name
        return [
            message.model_copy(update={"target": wrapped})
            if isinstance(message, HandoffMessage) and message.target == self.name
            else message
            for at, message in enumerate(messages)
            if at in passed
        ]

    def _in_own_name(self, item: Any) -> Any:
        """What the wrapped agent says, as said by this one; others who speak on the way keep their names."""
        if isinstance(item, Response):
            inner = item.inner_messages and [self._in_own_name(each) for each in item.inner_messages]
            return Response(chat_message=self._in_own_name(item.chat_message), inner_messages=inner)
        if isinstance(item, (BaseAgentEvent, BaseChatMessage)) and own(item, self._wrapped_agent.name, current_scope()):
            return item.model_copy(update={"source": self.name})
        return item
