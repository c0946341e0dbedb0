"""The agent that executes code: what others said in code blocks, or what its own model writes."""

from __future__ import annotations

import re
import warnings

from . import codec
from .agents import call_user, expect_client, expect_state, misbehaved, until_cancelled
from .clock import new_id
from .errors import ConfigError, DecodeError, Suspended, positive_int
from .journal import effect
from .messages import (
    BaseChatMessage,
    CodeBlock,
    CodeExecutionEvent,
    CodeGenerationEvent,
    CodeResult,
    LLMMessage,
    RequestUsage,
    Response,
    SystemMessage,
    TextMessage,
    UserMessage,
)
from .model_turn import STRUCTURED_ATTEMPTS, ModelAgent, ModelTurn
from .models import ask
from .records import Record
from .transcript import fenced

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
    from typing import Any

    from .agents import Said
    from .cancellation import CancellationToken
    from .code_executors import CodeExecutor
    from .model_context import ChatCompletionContext
    from .models import ChatCompletionClient
    from .runner import Undo

_FENCE = re.compile(r"([^`]*)(`{3,})([^`]*)")


class ApprovalRequest(Record, tagged=False):
    """Asks whether code may be executed: all its blocks as Markdown, and the conversation that led to it."""

    code: str
    context: list[LLMMessage]


class ApprovalResponse(Record, tagged=False):
    """Whether code may be executed, and why; the agent is told the reason if it may not."""

    approved: bool
    reason: str


if TYPE_CHECKING:
    ApprovalFuncType = Callable[[ApprovalRequest], ApprovalResponse | Awaitable[ApprovalResponse]]
else:
    ApprovalFuncType = object


class RetryDecision(Record, tagged=False):
    """What the model makes of code that failed: what is wrong with it, and whether to try again."""

    reason: str
    retry: bool


class CodeExecutorAgent(ModelAgent):
    """An agent that executes the code blocks of the messages it gets, or with a model those that this writes.

        def allow(request: ApprovalRequest) -> ApprovalResponse:
            return ApprovalResponse(approved="rm " not in request.code, reason="nothing may be removed")

        executor = CodeExecutorAgent("executor", LocalCommandLineCodeExecutor(), approval_func=allow)

    Without a model it answers with what the code printed. With one it writes code, executes it, and answers with what
    the model says of the outcome; code that fails it may correct.

    Args:
        name: a Python identifier.
        code_executor: executes the code.
        model_client: writes code; left out, the code is taken from the messages.
        model_context: what the model sees of the conversation; all of it if left out.
        model_client_stream: ask for answers in pieces and pass them on as events.
        max_retries_on_error: how often the model may correct code that failed.
        description: what it is for.
        system_message: instructions to the model; None for none.
        sources: take code from messages of these agents only.
        supported_languages: the languages of the blocks that are executed; Python and sh if left out.
        approval_func: asked before code is executed; sync or async, of an `ApprovalRequest`.
    """

    _state_type = "CodeExecutorAgentState"
    DEFAULT_TERMINAL_DESCRIPTION = (
        "A terminal that does nothing but run code: Python in ```python blocks, shell scripts in ```sh blocks."
    )
    DEFAULT_AGENT_DESCRIPTION = "An agent that solves tasks by writing Python and shell scripts and running them."
    DEFAULT_SYSTEM_MESSAGE = (
        "You solve tasks by writing code, which is executed for you: Python in a ```python block, shell scripts in a "
        "```sh block. Every block must be complete and print what you need to know. You are shown what it printed; "
        "then answer with what that means for the task. Answer without code where none is needed."
    )
    NO_CODE_BLOCKS_FOUND_MESSAGE = (
        "No code blocks were found. Please provide at least one code block to execute, in Markdown: quoted by "
        "```python or ```sh, and ```."
    )

    def __init__(
        self,
        name: str,
        code_executor: CodeExecutor,
        *,
        model_client: ChatCompletionClient | None = None,
        model_context: ChatCompletionContext | None = None,
        model_client_stream: bool = False,
        max_retries_on_error: int = 0,
        description: str | None = None,
        system_message: str | None = DEFAULT_SYSTEM_MESSAGE,
        sources: Sequence[str] | None = None,
        supported_languages: Sequence[str] | None = None,
        approval_func: ApprovalFuncType | None = None,
    ) -> None:
        default = self.DEFAULT_TERMINAL_DESCRIPTION if model_client is None else self.DEFAULT_AGENT_DESCRIPTION
        description = default if description is None else description
        super().__init__(name, description, model_client, model_context, model_client_stream)
        if not hasattr(code_executor, "execute_code_blocks"):
            raise ConfigError(f"code_executor must be a CodeExecutor, not {code_executor!r:.80}")
        if model_client is not None:
            expect_client(model_client)
        if approval_func is not None and not callable(approval_func):
            raise ConfigError(f"approval_func must be a function of an ApprovalRequest, not {approval_func!r:.80}")
        if approval_func is None:
            warnings.warn(
                f"nobody approves the code that agent {name!r} executes; pass approval_func=... to be asked",
                UserWarning,
                stacklevel=2,
            )
        self._code_executor = code_executor
        self._max_retries = positive_int("max_retries_on_error", max_retries_on_error, or_zero=True)
        self._instructions = [] if system_message is None else [SystemMessage(content=system_message)]
        self._sources = _texts("sources", sources)
        self._languages = {
            each.lower() for each in _texts("supported_languages", supported_languages) or ("python", "sh")
        }
        self._approval_func = approval_func

    @property
    def produced_message_types(self) -> Sequence[type[BaseChatMessage]]:
        return (TextMessage,)

    async def on_messages_stream(
        self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken
    ) -> AsyncGenerator[Said, None]:
        if self._model_client is not None:
            async for item in _Turn(self, cancellation_token).play(messages):
                yield item
            return
        text = self.NO_CODE_BLOCKS_FOUND_MESSAGE
        if blocks := self.extract_code_blocks_from_messages(messages):
            context: list[LLMMessage] = [message.to_model_message() for message in messages]
            text = told(await self._execute(blocks, context, cancellation_token))
        yield Response(chat_message=TextMessage(content=text, source=self.name))

    def extract_code_blocks_from_messages(self, messages: Sequence[BaseChatMessage]) -> list[CodeBlock]:
        """The code blocks in the text messages among these, of the sources that count."""
        return [
            block
            for message in messages
            if isinstance(message, TextMessage) and (self._sources is None or message.source in self._sources)
            for block in code_blocks(message.content, self._languages)
        ]

    async def execute_code_block(
        self, code_blocks: list[CodeBlock], cancellation_token: CancellationToken
    ) -> CodeResult:
        """Execute code, if it is approved."""
        return await self._execute(code_blocks, await self._model_context.get_messages(), cancellation_token)

    async def close(self) -> None:
        await self._code_executor.stop()

    async def checkpoint(self) -> Undo:
        return self.mark_context(CodeExecutorAgent)

    async def _load(self, state: Mapping[str, Any]) -> None:
        if isinstance(state, dict) and state.get("type") == "BaseState":  # AutoGen saves no more than that
            expect_state(state, "BaseState")
            await self._model_context.clear()
            return
        expect_state(state, self._state_type, needed="llm_context")
        await self._model_context.load_state(state["llm_context"])

    async def _execute(
        self, blocks: list[CodeBlock], context: list[LLMMessage], token: CancellationToken
    ) -> CodeResult:
        if self._approval_func is not None:
            answer = await self._ask_approval(blocks, context, token)
            if not answer.approved:
                return CodeResult(1, f"Code execution was not approved. Reason: {answer.reason}")

        async def call() -> CodeResult:
            result = await self._code_executor.execute_code_blocks(blocks, token)
            return CodeResult(result.exit_code, result.output)

        return await effect("code", blocks, call, CodeResult, name=self.name)

    async def _ask_approval(
        self, blocks: list[CodeBlock], context: list[LLMMessage], token: CancellationToken
    ) -> ApprovalResponse:
        code = "\n\n".join(fenced(block.code.rstrip(), block.language) for block in blocks)
        request = ApprovalRequest(code=code, context=context)
        approve: Any = self._approval_func

        async def ask() -> ApprovalResponse:
            answer = await until_cancelled(call_user(approve, request), "approval_func", token)
            if not isinstance(answer, ApprovalResponse):
                raise misbehaved(self, f"got {answer!r:.80} from its approval_func, which is not an ApprovalResponse")
            if not isinstance(answer.approved, bool):  # "no" would pass for a yes
                raise misbehaved(self, f"got {answer.approved!r:.80} for approved, which must be True or False")
            return answer

        return await effect("approval", request, ask, ApprovalResponse, name=self.name)


class _Turn(ModelTurn):
    """One turn with a model: write code, execute it, correct it, say what came of it."""

    agent: CodeExecutorAgent

    def __init__(self, agent: CodeExecutorAgent, token: CancellationToken) -> None:
        super().__init__(agent, token)
        self.instructions = list(agent._instructions)
        self.spent = RequestUsage(0, 0)  # by calls that nothing was said with yet

    async def play(self, messages: Sequence[BaseChatMessage]) -> AsyncGenerator[Said, None]:
        agent = self.agent
        await agent._hear(messages)
        for attempt in range(agent._max_retries + 1):
            async for event in self._write():
                yield event
            blocks = code_blocks(self.text, agent._languages)
            if not blocks:
                yield self._answer()
                return
            yield self._generated(attempt, self.text, blocks, self.message_id)
            outcome = await self._execute(blocks)
            yield self._inner(CodeExecutionEvent(retry_attempt=attempt, result=outcome, source=agent.name))
            if outcome.exit_code == 0 or attempt == agent._max_retries:
                break
            decision = await self._decide()
            if not decision.retry:
                break
            correction = f"Attempt number: {attempt + 1}\nProposed correction: {decision.reason}"
            await self.context.add_message(UserMessage(content=correction, source=agent.name))
            yield self._generated(attempt, correction, [], new_id())
        async for event in self._write():
            yield event
        yield self._answer()

    async def _write(self) -> AsyncGenerator[Said, None]:
        """Let the model go on, and take what it says into the context."""
        if self.agent._model_client_stream:
            async for piece in self.ask_streaming():
                yield piece
        else:
            await self.ask()
        if thought := self.result.thought:
            yield self._thought(thought)
        self.spent += self.result.usage
        await self.context.add_message(self._said(self.text))

    def _usage(self) -> RequestUsage:
        usage, self.spent = self.spent, RequestUsage(0, 0)
        return usage

    def _generated(self, attempt: int, text: str, blocks: list[CodeBlock], id: str) -> CodeGenerationEvent:
        return self._inner(
            CodeGenerationEvent(
                retry_attempt=attempt,
                content=text,
                code_blocks=blocks,
                source=self.agent.name,
                models_usage=self._usage(),
                id=id,
            )
        )

    def _answer(self) -> Response:
        message = TextMessage(content=self.text, source=self.agent.name, models_usage=self._usage(), id=self.message_id)
        return Response(chat_message=message, inner_messages=self.inner)

    async def _execute(self, blocks: list[CodeBlock]) -> CodeResult:
        """Execute code; what came of it enters the context, also when it is cut short."""
        heard = "The execution was stopped before it ended; whether it had an effect is unknown."
        try:
            outcome = await self.agent.execute_code_block(blocks, self.token)
            heard = told(outcome)
            return outcome
        except Suspended:
            heard = ""
            raise
        finally:
            if heard:
                await self.context.add_message(UserMessage(content=heard, source=self.agent.name))

    async def _decide(self) -> RetryDecision:
        """Whether the model wants to try again; not if it cannot say so in the form that is asked for."""
        client = self.agent._model_client
        info = client.model_info
        form = RetryDecision if info.get("structured_output") else True if info.get("json_output") else None
        question: list[LLMMessage] = [UserMessage(content=_RETRY, source=self.agent.name)]
        for _ in range(STRUCTURED_ATTEMPTS):
            messages = await self.conversation(question)
            result = await ask(client, messages, json_output=form, cancellation_token=self.token)
            self.spent += result.usage
            text = str(result.content)
            try:
                found = codec.loads(text[text.find("{") : text.rfind("}") + 1])
                return codec.decode(RetryDecision, found, mode="arguments")  # type: ignore[no-any-return]
            except DecodeError as error:
                problem = str(error)
            question += self.correction(result, problem)
        return RetryDecision(reason=f"no decision in the required form: {problem}", retry=False)


_RETRY = (
    "The code failed. Decide whether corrected code is worth another attempt. Answer with a JSON object that has two "
    'keys: "reason", a text that says what is wrong and how to correct it, and "retry", true or false.'
)


def code_blocks(text: str, languages: Collection[str]) -> list[CodeBlock]:
    """The fenced code blocks in Markdown that name one of `languages`. A block that is not closed is none."""
    blocks: list[CodeBlock] = []
    lines: list[str] = []
    fence = ""  # that the open block began with
    for line in text.split("\n"):
        line = line.removesuffix("\r")
        if not fence:
            if opening := _FENCE.fullmatch(line):
                before, fence, info = opening.groups()
                language = next(iter(info.lower().split()), "")
                indent, lines = before, []
                if before.strip():  # words, in which backticks may be quoted
                    indent, fence = "", fence if language in languages else ""
            continue
        bare = line.rstrip()
        code = bare.rstrip("`")
        closed = len(bare) - len(code) >= len(fence)
        if not closed or code.strip():
            lines.append((code if closed else line).removeprefix(indent) + "\n")
        if closed:
            if language in languages:
                blocks.append(CodeBlock("".join(lines), language))
            fence = ""
    return blocks


def told(result: CodeResult) -> str:
    """What others are told of executed code."""
    if not result.output.strip():
        return (
            f"The script ran but produced no output to console. The POSIX exit code was: {result.exit_code}. If you "
            "were expecting output, consider revising the script to ensure content is printed to stdout."
        )
    if result.exit_code == 0:
        return result.output
    return (
        f"The script ran, then exited with an error (POSIX exit code: {result.exit_code})\n"
        f"Its output was:\n{result.output}"
    )


def _texts(name: str, value: Any) -> set[str] | None:
    """A list of texts as a set. Raises `ConfigError` for anything else, such as one text alone."""
    if value is None:
        return None
    if isinstance(value, str) or not all(isinstance(each, str) for each in value):
        raise ConfigError(f"{name} must be a list of texts, not {value!r:.80}")
    return set(value)
