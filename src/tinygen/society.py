"""An agent that is a team inside: they talk, it tells the outcome."""

from __future__ import annotations

from contextlib import aclosing
from functools import partial

from .agents import expect_client, expect_state
from .errors import ConfigError, Suspended, of_another_copy
from .messages import (
    AssistantMessage,
    BaseAgentEvent,
    BaseChatMessage,
    HandoffMessage,
    Response,
    SystemMessage,
    TaskResult,
    TextMessage,
    UserMessage,
)
from .model_turn import ModelAgent
from .models import ask
from .runner import TaskRunner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
    from typing import Any

    from .agents import Said
    from .cancellation import CancellationToken
    from .messages import LLMMessage
    from .model_context import ChatCompletionContext
    from .models import ChatCompletionClient
    from .runner import Undo

NO_RESPONSE = "No response."


class SocietyOfMindAgent(ModelAgent):
    """An agent that lets a team work on what it is asked, and answers for it with one message.

        inner = RoundRobinGroupChat([writer, critic], termination_condition=TextMentionTermination("APPROVE"))
        author = SocietyOfMindAgent("author", team=inner, model_client=model)

    What the team says is part of the run, but others in a team with this agent hear its answer alone. The team begins
    anew with every task and is told what was asked and answered before.

    Args:
        name: a Python identifier.
        team: a team, or anything else that runs a task.
        model_client: writes the answer.
        description: what it is for.
        instruction: stands before what was asked and said, when the answer is written.
        response_prompt: stands after it.
        model_context: what the team is told of earlier tasks and answers; all of them if left out.
    """

    _state_type = "SocietyOfMindAgentState"
    DEFAULT_DESCRIPTION = "An agent that answers with the work of a team of agents."
    DEFAULT_INSTRUCTION = (
        "A request was made to you, and you and your team have worked on it. This is the request, and what was said "
        "in the team:"
    )
    DEFAULT_RESPONSE_PROMPT = (
        "Answer the request in a message that stands on its own. Do not mention the discussion that led to it."
    )

    def __init__(
        self,
        name: str,
        team: TaskRunner,
        model_client: ChatCompletionClient,
        *,
        description: str = DEFAULT_DESCRIPTION,
        instruction: str = DEFAULT_INSTRUCTION,
        response_prompt: str = DEFAULT_RESPONSE_PROMPT,
        model_context: ChatCompletionContext | None = None,
    ) -> None:
        super().__init__(name, description, model_client, model_context)
        if not isinstance(team, TaskRunner):
            whose = of_another_copy(team, TaskRunner)
            raise ConfigError(f"team of {name!r} must be a team, not {team!r:.80}{whose}")
        expect_client(model_client)
        self._team = team
        self._instruction = instruction
        self._response_prompt = response_prompt

    @property
    def produced_message_types(self) -> Sequence[type[BaseChatMessage]]:
        return (TextMessage,)

    async def on_messages_stream(
        self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken
    ) -> AsyncGenerator[Said, None]:
        asked = [_for_all(message) for message in messages]
        undo, task = self._model_context.checkpoint(), asked
        if before := await self._model_context.get_messages():  # in one message that the team's models see as such
            background = HandoffMessage(content="This was said before.", target="", context=before, source=self.name)
            task = [background, *asked]
        await self._hear(asked)
        inner: list[BaseAgentEvent | BaseChatMessage] = []
        run = self._team.run_stream(
            task=task or None, cancellation_token=cancellation_token, output_task_messages=False
        )
        try:
            async with aclosing(run) as stream:
                async for item in stream:
                    if not isinstance(item, TaskResult):
                        yield item
                    elif item.pending:
                        raise Suspended  # outside of a run, where nobody else raises it
                    else:
                        inner = item.messages
            answer = await self._conclude(asked, inner, cancellation_token)
        except Suspended:
            undo()
            raise
        except BaseException:
            await self._team.reset()
            raise
        await self._model_context.add_message(AssistantMessage(content=answer.content, source=self.name))
        await self._team.reset()
        yield Response(chat_message=answer, inner_messages=inner)

    async def on_reset(self, cancellation_token: CancellationToken) -> None:
        await self._team.reset()
        await super().on_reset(cancellation_token)

    async def checkpoint(self) -> Undo:
        return self.mark_context(SocietyOfMindAgent)  # the run of the team is taken back by the run it is part of

    def _parts(self) -> Sequence[TaskRunner]:
        return (self._team,)

    async def _conclude(
        self, asked: Sequence[BaseChatMessage], inner: Sequence[Any], token: CancellationToken
    ) -> TextMessage:
        """The team's work as one message: what the model makes of it, or the last thing said if that is nothing."""
        said = [message for message in inner if isinstance(message, BaseChatMessage)]
        if not said:
            return TextMessage(content=NO_RESPONSE, source=self.name)
        prompt: Callable[..., LLMMessage] = partial(UserMessage, source=self.name)
        if self._model_client.model_info.get("multiple_system_messages", False):
            prompt = SystemMessage
        transcript = [
            prompt(content=self._instruction),
            *(message.to_model_message() for message in (*asked, *said)),
            prompt(content=self._response_prompt),
        ]
        result = await ask(self._model_client, self._as_seen(transcript), cancellation_token=token)
        text = result.content if isinstance(result.content, str) and result.content.strip() else said[-1].to_text()
        return TextMessage(content=text, source=self.name, models_usage=result.usage)

    async def _state_fields(self) -> dict[str, Any]:
        return {"inner_team_state": dict(await self._team.save_state()), **await super()._state_fields()}

    async def _load(self, state: Mapping[str, Any]) -> None:
        expect_state(state, self._state_type, "inner_team_state", "llm_context")
        await self._team.load_state(state.get("inner_team_state", {}))
        if "llm_context" in state:
            await self._model_context.load_state(state["llm_context"])
        else:
            await self._model_context.clear()  # AutoGen does not save it


def _for_all(message: BaseChatMessage) -> BaseChatMessage:
    """A handoff to this agent is one to nobody in particular for the team within."""
    return message.model_copy(update={"target": ""}) if isinstance(message, HandoffMessage) else message
