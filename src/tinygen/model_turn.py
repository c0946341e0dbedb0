"""What agents with a model share: the context of their conversation, and how a turn asks the model."""

from __future__ import annotations

from .agents import BaseChatAgent
from .clock import new_id
from .errors import ProtocolError
from .messages import (
    AssistantMessage,
    BaseAgentEvent,
    BaseChatMessage,
    CreateResult,
    HandoffMessage,
    ModelClientStreamingChunkEvent,
    ThoughtChunk,
    ThoughtEvent,
    UserMessage,
    remove_images,
)
from .model_context import given_context
from .models import ask, ask_stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from typing import Any, TypeVar

    from .cancellation import CancellationToken
    from .messages import FunctionCall, LLMMessage
    from .model_context import ChatCompletionContext
    from .models import ChatCompletionClient
    from .runner import Undo

    Event = TypeVar("Event", bound=BaseAgentEvent | BaseChatMessage)

STRUCTURED_ATTEMPTS = 3  # how often a model is asked for an answer of the promised form


class ModelAgent(BaseChatAgent):
    """An agent with a model, and a context that holds what this sees of the conversation."""

    def __init__(
        self,
        name: str,
        description: str,
        model_client: ChatCompletionClient | None,
        model_context: ChatCompletionContext | None,
        stream: bool = False,
    ) -> None:
        super().__init__(name, description)
        self._model_client: Any = model_client
        self._model_client_stream = stream
        self._model_context = given_context(model_context)

    @property
    def model_context(self) -> ChatCompletionContext:
        """What its model sees of the conversation."""
        return self._model_context

    async def _hear(self, messages: Sequence[BaseChatMessage]) -> None:
        """Take into the context what the agent is given."""
        for message in messages:
            if isinstance(message, HandoffMessage):
                for known in message.context:
                    await self._model_context.add_message(known)
            await self._model_context.add_message(message.to_model_message())

    def _as_seen(self, messages: list[LLMMessage]) -> list[LLMMessage]:
        """What its model can be sent: one without eyes gets a word for each picture."""
        return messages if self._model_client.model_info["vision"] else remove_images(messages)

    async def on_reset(self, cancellation_token: CancellationToken) -> None:
        await self._model_context.clear()
        self._suspension = None

    def mark_context(self, known: type) -> Undo:
        """How to go back to what its context holds now; in a subclass of `known`, to its attributes too."""
        undo_context = self._model_context.checkpoint()
        undo_attributes = self.mark_attributes() if type(self) is not known else None

        async def restore() -> None:
            if undo_attributes is not None:
                await undo_attributes()
            undo_context()

        return restore

    async def _state_fields(self) -> dict[str, Any]:
        return {"llm_context": dict(await self._model_context.save_state())}


class ModelTurn:
    """One turn of an agent with a model: what this is asked, and what is said on the way."""

    agent: ModelAgent
    form: type[Any] | None = None  # that its answers are promised to have
    result: CreateResult  # what the model said last

    def __init__(self, agent: ModelAgent, token: CancellationToken) -> None:
        self.agent = agent
        self.token = token
        self.context = agent._model_context
        self.inner: list[BaseAgentEvent | BaseChatMessage] = []
        self.instructions: list[LLMMessage] = []
        self.message_id = ""
        self.thought_id: str | None = None  # of the thought whose pieces were streamed

    @property
    def text(self) -> str:
        """What the model said last; nothing if it called tools."""
        return self.result.content if isinstance(self.result.content, str) else ""

    async def ask(self, **arguments: Any) -> None:
        """Let the model go on, and set `result`.

        It is asked again if it breaks a promise of form. Raises `ProtocolError` if it does not keep it at all.
        """
        correction: list[LLMMessage] | None = []
        for left in reversed(range(STRUCTURED_ATTEMPTS)):
            self.message_id, self.thought_id = new_id(), None
            messages = await self.conversation(correction)
            result = await ask(self.agent._model_client, messages, cancellation_token=self.token, **arguments)
            if (correction := self._taken(result, left)) is None:
                break

    async def ask_streaming(self, **arguments: Any) -> AsyncGenerator[ModelClientStreamingChunkEvent, None]:
        """The same, with the pieces as they come."""
        correction: list[LLMMessage] | None = []
        for left in reversed(range(STRUCTURED_ATTEMPTS)):
            self.message_id, self.thought_id = new_id(), None
            messages, result = await self.conversation(correction), None
            async for piece in ask_stream(
                self.agent._model_client, messages, cancellation_token=self.token, **arguments
            ):
                if isinstance(piece, str):
                    yield self._chunk(piece)
                else:
                    result = piece
            if (correction := self._taken(result, left)) is None:
                break

    async def conversation(self, more: Sequence[LLMMessage] | None) -> list[LLMMessage]:
        """What the model is sent: instructions, what it sees of the conversation, and `more`."""
        return self.agent._as_seen([*self.instructions, *await self.context.get_messages(), *(more or ())])

    def _taken(self, result: CreateResult | None, left: int) -> list[LLMMessage] | None:
        """Set `result`; or what to tell the model about it, if it does not have the form it was promised to have."""
        if not isinstance(result, CreateResult):
            raise ProtocolError(f"the model of agent {self.agent.name!r} gave {result!r:.80} instead of a CreateResult")
        self.result = result
        problem = self.problem(result)
        if problem is None:
            return None
        if not left:
            raise ProtocolError(
                f"the model of agent {self.agent.name!r} did not give a valid "
                f"{getattr(self.form, '__name__', self.form)} in {STRUCTURED_ATTEMPTS} attempts: {problem}",
                partial=str(result.content),
            )
        return self.correction(result, problem)

    def problem(self, result: CreateResult) -> str | None:
        """What is wrong with the form of an answer that was promised one."""
        return None

    def correction(self, result: CreateResult, problem: str) -> list[LLMMessage]:
        """What the model is told about an answer whose form is wrong."""
        return [
            AssistantMessage(content=str(result.content), source=self.agent.name),
            UserMessage(content=f"This does not have the required form: {problem}. Answer again.", source="user"),
        ]

    def _said(self, content: str | list[FunctionCall]) -> AssistantMessage:
        result = self.result
        return AssistantMessage(
            content=content, thought=result.thought, source=self.agent.name, provider_data=result.provider_data
        )

    def _chunk(self, piece: str) -> ModelClientStreamingChunkEvent:
        thought = isinstance(piece, ThoughtChunk)
        if thought:
            self.thought_id = self.thought_id or new_id()
        return ModelClientStreamingChunkEvent(
            content=str(piece),
            source=self.agent.name,
            full_message_id=self.thought_id if thought else self.message_id,
            thought=thought,
        )

    def _thought(self, content: str) -> ThoughtEvent:
        """What the model thought, as an event."""
        identity = self.thought_id
        if identity is None:  # whatever was streamed was the thought
            identity, self.message_id = self.message_id, new_id()
        return self._inner(ThoughtEvent(content=content, source=self.agent.name, id=identity))

    def _inner(self, event: Event) -> Event:
        """Keep what is said on the way to the answer, but for pieces."""
        if not isinstance(event, ModelClientStreamingChunkEvent):
            self.inner.append(event)
        return event
