"""The two-agent chat of AutoGen 0.2: an assistant, and a proxy that runs its code and asks the person it stands for.

proxy = ConversableProxy("user", code_executor=LocalCommandLineCodeExecutor(), human_input_mode="NEVER")
result = await proxy.initiate_chat(assistant, message="Plot the first ten primes.", max_turns=5)
"""

from __future__ import annotations

from .agents import BaseChatAgent, UserProxyAgent, expect_state
from .code_executors import LANGUAGES
from .coder import ApprovalFuncType, ApprovalRequest, ApprovalResponse, CodeExecutorAgent
from .conditions import StopMessageTermination
from .errors import ConfigError, StateError, positive_int
from .messages import BaseChatMessage, Response, StopMessage, TextMessage
from .teams import RoundRobinGroupChat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
    from typing import Any, Literal

    from .agents import Said
    from .cancellation import CancellationToken
    from .code_executors import CodeExecutor
    from .messages import BaseAgentEvent, TaskResult

MODES = ("ALWAYS", "TERMINATE", "NEVER")


class ConversableProxy(BaseChatAgent):
    """The user's side of a two-agent chat: replies by running the code it is sent, or by asking a person.

    Args:
        name: a Python identifier.
        is_termination_msg: whether a message ends the chat; it gets a dict with "content", "name" and "role", as in
            AutoGen 0.2. Left out, whether the text ends with TERMINATE.
        max_consecutive_auto_reply: how many replies it gives without a person having said something.
        human_input_mode: when to ask: "ALWAYS"; "TERMINATE", where the chat would end otherwise; "NEVER". A person
            who says nothing lets it reply by itself, or the chat end if it would; "exit" ends it in any case.
        code_executor: runs the code blocks it is sent; left out, it runs none.
        default_auto_reply: what it says where there is no code.
        input_func: asks the person, as for `UserProxyAgent`.
        approval_func: asked before code is executed. Left out, nobody is: choose a mode that asks, or code you trust.
        description: who the person is.
    """

    _state_type = "ConversableProxyState"

    def __init__(
        self,
        name: str,
        *,
        is_termination_msg: Callable[[dict[str, Any]], bool] | None = None,
        max_consecutive_auto_reply: int = 100,
        human_input_mode: Literal["ALWAYS", "TERMINATE", "NEVER"] = "ALWAYS",
        code_executor: CodeExecutor | None = None,
        default_auto_reply: str = "",
        input_func: Callable[..., Any] | None = None,
        approval_func: ApprovalFuncType | None = None,
        description: str = "A human user, whose proxy runs code.",
    ) -> None:
        super().__init__(name, description)
        if human_input_mode not in MODES:
            raise ConfigError(f"human_input_mode must be one of {', '.join(MODES)}, not {human_input_mode!r}")
        if is_termination_msg is not None and not callable(is_termination_msg):
            raise ConfigError(f"is_termination_msg must be a function of a message, not {is_termination_msg!r:.80}")
        self._ends = is_termination_msg or _ends_with_terminate
        self._most = positive_int("max_consecutive_auto_reply", max_consecutive_auto_reply, or_zero=True)
        self._mode = human_input_mode
        self._default = default_auto_reply
        self._person = UserProxyAgent(name, input_func=input_func)
        self._terminal: CodeExecutorAgent | None = None
        if code_executor is not None:
            self._terminal = CodeExecutorAgent(
                name, code_executor, approval_func=approval_func or _approve, supported_languages=list(LANGUAGES)
            )
        self._replies = 0  # given since a person last said something

    @property
    def produced_message_types(self) -> Sequence[type[BaseChatMessage]]:
        return (TextMessage, StopMessage)

    def chat_with(self, assistant: BaseChatAgent, *, max_turns: int | None = None) -> RoundRobinGroupChat:
        """The chat as a team, to be streamed, saved or given limits. A turn is a message of each, as in AutoGen 0.2."""
        turns = None if max_turns is None else 2 * positive_int("max_turns", max_turns) - 1
        return RoundRobinGroupChat([assistant, self], termination_condition=StopMessageTermination(), max_turns=turns)

    async def initiate_chat(
        self,
        assistant: BaseChatAgent,
        *,
        message: str,
        max_turns: int | None = None,
        clear_history: bool = True,
        cancellation_token: CancellationToken | None = None,
    ) -> TaskResult:
        """Say `message` to `assistant`, and go on until one of them ends the chat. `clear_history` forgets the last."""
        if not isinstance(message, str):
            raise ConfigError(f"message must be text, not {message!r:.80}; any other task can be run by chat_with(...)")
        team = self.chat_with(assistant, max_turns=max_turns)
        if clear_history:
            await team.reset()
        task = TextMessage(content=message, source=self.name)
        return await team.run(task=task, cancellation_token=cancellation_token)

    async def on_messages_stream(
        self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken
    ) -> AsyncGenerator[Said, None]:
        text = messages[-1].to_text() if messages else ""
        said = {"content": text, "name": messages[-1].source if messages else "", "role": "user"}
        final, spent, answer = bool(self._ends(said)), self._replies >= self._most, ""
        inner: list[BaseAgentEvent | BaseChatMessage] = []
        if asked := self._mode == "ALWAYS" or (self._mode == "TERMINATE" and (final or spent)):
            async for item in self._person.on_messages_stream((), cancellation_token):
                if isinstance(item, Response):
                    answer = item.chat_message.to_text()
                else:
                    inner.append(item)
                    yield item
        reply: BaseChatMessage
        if answer == "exit" or (not answer and (final or (spent and not asked))):
            reply = StopMessage(content="The chat is over.", source=self.name)
        elif answer:
            self._replies = 0
            reply = TextMessage(content=answer, source=self.name)
        else:
            reply = await self._auto_reply(messages, cancellation_token)
            self._replies += 1
        yield Response(chat_message=reply, inner_messages=inner)

    async def on_reset(self, cancellation_token: CancellationToken) -> None:
        self._replies = 0

    async def close(self) -> None:
        if self._terminal is not None:
            await self._terminal.close()

    async def _state_fields(self) -> dict[str, Any]:
        return {"auto_replies": self._replies}

    async def _load(self, state: Mapping[str, Any]) -> None:
        replies = expect_state(state, self._state_type, "auto_replies").get("auto_replies")
        if type(replies) is not int or replies < 0:
            raise StateError("$.auto_replies", f"expected a whole number from 0, not {replies!r:.80}")
        self._replies = replies

    async def _auto_reply(self, messages: Sequence[BaseChatMessage], token: CancellationToken) -> BaseChatMessage:
        if self._terminal is not None and self._terminal.extract_code_blocks_from_messages(messages):
            return (await self._terminal.on_messages(messages, token)).chat_message
        return TextMessage(content=self._default, source=self.name)


def _ends_with_terminate(message: dict[str, Any]) -> bool:
    return str(message["content"]).rstrip().endswith("TERMINATE")


def _approve(request: ApprovalRequest) -> ApprovalResponse:
    return ApprovalResponse(approved=True, reason="the chat is set up to run code unasked")
