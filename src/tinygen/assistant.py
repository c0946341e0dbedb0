"""The assistant: an agent that answers with a model, calls tools and hands over to others."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from functools import partial

from .agents import expect_client, expect_state, saved_of
from .branches import fan_out
from .cancellation import CancellationToken
from .errors import ConfigError, DecodeError, Suspended, positive_int
from .journal import effect
from .messages import (
    AssistantMessage,
    BaseChatMessage,
    CreateResult,
    FunctionCall,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    HandoffMessage,
    MemoryQueryEvent,
    Response,
    StructuredMessage,
    SystemMessage,
    TextMessage,
    ToolCallExecutionEvent,
    ToolCallRequestEvent,
    ToolCallSummaryMessage,
)
from .model_turn import ModelAgent, ModelTurn
from .run import current_scope
from .waiting import Output, settled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
    from typing import Any

    from typing_extensions import Self

    from .agents import Said
    from .memory import Memory
    from .messages import LLMMessage, MemoryContent
    from .model_context import ChatCompletionContext
    from .models import ChatCompletionClient
    from .runner import Undo
    from .toolbox import Handoff, Toolbox
    from .tools import Tool, Workbench

_log = logging.getLogger("tinygen.agents")
_hinted = False


class AssistantAgent(ModelAgent):
    """An agent that answers with a model, and lets it call tools and hand over to others.

        agent = AssistantAgent("helper", OpenAIChatCompletionClient(model="gpt-4o"), tools=[get_weather])
        print((await agent.run(task="What is the weather in Paris?")).messages[-1].to_text())

    Args:
        name: a Python identifier.
        model_client: the model.
        tools: functions or tools the model may call. Not together with `workbench`.
        workbench: one or several workbenches the tools come from.
        handoffs: agents it can hand over to, by name or as `Handoff`.
        model_context: what the model sees of the conversation; all of it if left out.
        description: what it is for.
        system_message: instructions; None for none.
        model_client_stream: ask for the answer in pieces and pass them on as events.
        reflect_on_tool_use: after tool calls, let the model write the answer; else their results are the answer.
            None: only with `output_content_type`.
        max_tool_iterations: how often the model may call tools before it must answer.
        tool_call_summary_format: of one call in the answer: `{tool_name}`, `{arguments}`, `{result}`, `{is_error}`.
        tool_call_summary_formatter: a function of call and result that is used instead.
        output_content_type: a type the answer must have: dataclass, TypedDict or pydantic model.
        output_content_type_format: template over its fields, for people.
        memory: what is looked up for every turn.
        metadata: free for the application.
    """

    component_version = 2  # as AutoGen's
    _state_type = "AssistantAgentState"

    @classmethod
    def _config_types(cls) -> Mapping[str, Any]:
        from .toolbox import Handoff

        return {"handoffs": list[str | Handoff]}

    @classmethod
    def _from_config_past_version(cls, config: dict[str, Any], version: int) -> Self:
        return cls._from_config(config)  # the first version had no workbenches

    def __init__(
        self,
        name: str,
        model_client: ChatCompletionClient,
        *,
        tools: Sequence[Tool | Callable[..., Any]] | None = None,
        workbench: Workbench | Sequence[Workbench] | None = None,
        handoffs: Sequence[Handoff | str] | None = None,
        model_context: ChatCompletionContext | None = None,
        description: str = "An agent that provides assistance with ability to use tools.",
        system_message: str | None = "You are a helpful AI assistant. Solve tasks using your tools. "
        "Reply with TERMINATE when the task has been completed.",
        model_client_stream: bool = False,
        reflect_on_tool_use: bool | None = None,
        max_tool_iterations: int = 1,
        tool_call_summary_format: str = "{result}",
        tool_call_summary_formatter: Callable[[FunctionCall, FunctionExecutionResult], str] | None = None,
        output_content_type: type[Any] | None = None,
        output_content_type_format: str | None = None,
        memory: Sequence[Memory] | None = None,
        metadata: dict[str, str] | None = None,
    ) -> None:
        super().__init__(name, description, model_client, model_context, model_client_stream)
        if memory is not None:
            _check_memory(memory)
        expect_client(model_client)
        by_template = _formatter(tool_call_summary_format)
        self._system_message = system_message
        self._reflect = output_content_type is not None if reflect_on_tool_use is None else reflect_on_tool_use
        self._max_tool_iterations = positive_int("max_tool_iterations", max_tool_iterations)
        self._summarise = tool_call_summary_formatter or by_template
        asked = reflect_on_tool_use, tool_call_summary_format, tool_call_summary_formatter, output_content_type
        self._unasked = max_tool_iterations == 1 and asked == (None, "{result}", None, None)  # nobody chose raw answers
        self._output_type = output_content_type
        self._output_format = output_content_type_format
        self._message_type = None if output_content_type is None else StructuredMessage[output_content_type]  # type: ignore[valid-type]
        self._memory = list(memory or ())
        self._metadata = metadata or {}
        self._instructed: SystemMessage | None = None
        self._toolbox: Toolbox | None = None
        if tools is not None or workbench is not None or handoffs:
            self._tools(tools, workbench, handoffs)

    @property
    def handoffs(self) -> Sequence[Handoff]:
        """The handoffs it can make."""
        return [] if self._toolbox is None else list(self._toolbox.handoffs.values())

    @property
    def produced_message_types(self) -> Sequence[type[BaseChatMessage]]:
        types: list[type[BaseChatMessage]] = [self._message_type or TextMessage]
        if self._toolbox is not None and self._toolbox.workbenches:
            types.append(ToolCallSummaryMessage)
        if self._toolbox is not None and self._toolbox.handoffs:
            types.append(HandoffMessage)
        return types

    def on_messages_stream(
        self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken
    ) -> AsyncGenerator[Said, None]:
        return _Turn(self, cancellation_token).play(messages)

    async def on_reset(self, cancellation_token: CancellationToken) -> None:
        await super().on_reset(cancellation_token)
        if self._toolbox is None:
            return
        scope = current_scope()
        if scope is None or scope.run.ending:
            await self._toolbox.reset()
        else:  # an effect, as their calls are: a turn that is executed again repeats neither
            await effect("reset", {"agent": self.name}, self._toolbox.reset, name=self.name)

    async def close(self) -> None:
        if self._toolbox is not None:
            await self._toolbox.stop()

    async def checkpoint(self) -> Undo:
        return self.mark_context(AssistantAgent)  # what tools remember is taken back with their calls

    async def _state_fields(self) -> dict[str, Any]:
        state = await super()._state_fields()
        if self._toolbox is not None and (tools := await self._toolbox.save_state()):
            state["workbenches"] = tools
        if memories := [dict(await memory.save_state()) for memory in self._memory if memory.renewable]:
            state["memories"] = memories
        return state

    async def _load(self, state: Mapping[str, Any]) -> None:
        expect_state(state, self._state_type, "workbenches", "memories", needed="llm_context")
        await self._model_context.load_state(state["llm_context"])
        workbenches = [] if self._toolbox is None else self._toolbox.kept
        memories = [memory for memory in self._memory if memory.renewable]
        for part, saved in (*saved_of(workbenches, state, "workbenches"), *saved_of(memories, state, "memories")):
            await part.load_state(saved)

    def _tools(self, tools: Any = None, workbench: Any = None, handoffs: Any = None) -> Toolbox:
        """What its model may call. An assistant without tools needs none of what comes with it, so it is made late."""
        if self._toolbox is None:
            from .toolbox import Toolbox

            self._toolbox = Toolbox(self.name, self._model_client, tools, workbench, handoffs)
        return self._toolbox

    def _instruction(self, text: str) -> SystemMessage:
        """The same message as long as the text is the same: clients keep what they made of it."""
        if self._instructed is None or self._instructed.content != text:
            self._instructed = SystemMessage(content=text)
        return self._instructed


class _Turn(ModelTurn):
    """One turn of an assistant: ask, call tools, ask again, answer."""

    agent: AssistantAgent

    def __init__(self, agent: AssistantAgent, token: CancellationToken) -> None:
        super().__init__(agent, token)
        self.form = agent._output_type
        self.calls: list[FunctionCall] = []
        self.results: list[FunctionExecutionResult] = []
        self.value: Any = None  # what the last answer holds, if that was promised a form

    async def play(self, messages: Sequence[BaseChatMessage]) -> AsyncGenerator[Said, None]:
        agent = self.agent
        await agent._hear(messages)
        if remembered := await self._instruct():
            yield self._inner(MemoryQueryEvent(content=remembered, source=agent.name))
        for left in range(agent._max_tool_iterations, -1, -1):  # the last time without tools
            if not left and not agent._reflect:
                break
            request = await self._request(offer_tools=left > 0)
            if agent._model_client_stream:
                async for piece in self.ask_streaming(**request):
                    yield piece
            else:
                await self.ask(**request)
            if thought := self.result.thought:
                yield self._thought(thought)
            said = self.result.content
            if isinstance(said, str) or (left and not said):
                yield await self._answer()
                return
            if not left:
                break
            yield self._inner(ToolCallRequestEvent(content=said, source=agent.name, models_usage=self.result.usage))
            toolbox = agent._tools()  # also for a model that calls what it was not offered
            if any(toolbox.streams(call.name) for call in said):
                async with aclosing(self._call_streaming(toolbox, said)) as items:
                    async for item in items:
                        yield item
            else:
                await self._call_all(toolbox, said)
            yield self._inner(ToolCallExecutionEvent(content=self.results[-len(said) :], source=agent.name))
            if handoff := self._hand_off(said):
                yield handoff
                return
        yield self._summary()

    async def _instruct(self) -> list[MemoryContent]:
        """Set what stands before the conversation: the system message, and what memory gives for this turn."""
        agent = self.agent
        texts = [] if agent._system_message is None else [agent._system_message]
        remembered: list[MemoryContent] = []
        if agent._memory:
            from .memory import Recalled

            messages = await self.context.get_messages()
            for at, memory in enumerate(agent._memory):
                request, recall = {"memory": at, "messages": len(messages)}, partial(memory.recall, messages)
                recalled = await effect("memory", request, recall, Recalled, name=type(memory).__name__)
                remembered.extend(recalled.contents)
                texts.extend([recalled.text] if recalled.text else [])
        if texts:
            self.instructions = [agent._instruction("\n".join(texts))]
        return remembered

    async def _request(self, *, offer_tools: bool) -> dict[str, Any]:
        """What the model is asked, beside the conversation."""
        toolbox = self.agent._toolbox
        arguments: dict[str, Any] = {"json_output": self.form}
        if offer_tools:
            arguments["tools"] = await toolbox.schemas() if toolbox is not None else ()
        elif self.calls:
            arguments["tool_choice"] = "none"
        return arguments

    def problem(self, result: CreateResult) -> str | None:
        content = result.content or ""
        if self.form is None or not isinstance(content, str):
            return None
        from . import codec

        try:
            self.value = codec.decode(self.form, codec.loads(content), mode="arguments")
        except DecodeError as error:
            return str(error)
        return None

    async def _answer(self) -> Response:
        agent, text, usage = self.agent, self.text, self.result.usage
        await self.context.add_message(self._said(text))
        message: BaseChatMessage
        if agent._message_type is None:
            message = TextMessage(content=text, source=agent.name, models_usage=usage, id=self.message_id)
        else:
            message = agent._message_type(
                content=self.value,
                format_string=agent._output_format,
                source=agent.name,
                models_usage=usage,
                id=self.message_id,
            )
        return Response(chat_message=message, inner_messages=self.inner)

    async def _call_all(
        self,
        toolbox: Toolbox,
        calls: list[FunctionCall],
        say: Callable[[Any], None] | None = None,
        kept: Sequence[list[Any]] = (),
    ) -> None:
        """Call the tools side by side. Calls and results enter the context together, also when this is cut short."""
        done: dict[int, FunctionExecutionResult] = {}
        token = self.token
        if not token.watched:  # outside a run: watched here, once for all the calls
            token = CancellationToken(token)
            token.watched = True

        async def make(at: int, call: FunctionCall) -> None:
            done[at] = await toolbox.call(call, token, say, kept[at] if kept else None)

        try:
            await fan_out([(f"tool {call.name[:64]}", partial(make, at, call)) for at, call in enumerate(calls)], token)
        except Suspended:
            raise
        except BaseException:
            await self._remember(calls, done)
            raise
        finally:
            if token is not self.token:
                token.close()
        await self._remember(calls, done)

    async def _call_streaming(self, toolbox: Toolbox, calls: list[FunctionCall]) -> AsyncGenerator[Any, None]:
        """What is said in the calls as it is said; what stays of that is in the order of the calls."""
        output = Output()
        kept: list[list[Any]] = [[] for _ in calls]
        working = asyncio.ensure_future(self._call_all(toolbox, calls, output.put, kept))
        working.add_done_callback(lambda _: output.close())
        try:
            while await output.ready():
                yield output.items.popleft()
        finally:
            working.cancel()
            await settled(working)
        working.result()
        for items in kept:
            for item in items:
                self._inner(item)

    async def _remember(self, calls: list[FunctionCall], done: Mapping[int, FunctionExecutionResult]) -> None:
        cut = "Error: the call was stopped before it ended; whether it had an effect is unknown."
        results = [
            done.get(at) or FunctionExecutionResult(content=cut, name=call.name, call_id=call.id, is_error=True)
            for at, call in enumerate(calls)
        ]
        self.calls.extend(calls)
        self.results.extend(results)
        await self.context.add_message(self._said(calls))
        await self.context.add_message(FunctionExecutionResultMessage(content=results))

    def _hand_off(self, calls: Sequence[FunctionCall]) -> Response | None:
        """The response that hands over, if a handoff was among the calls just made."""
        handoffs = self.agent._tools().handoffs
        if not handoffs:
            return None
        made = list(zip(calls, self.results[-len(calls) :], strict=True))
        chosen = [(call, answer) for call, answer in made if call.name in handoffs and not answer.is_error]
        if not chosen:
            return None
        if len(chosen) > 1:
            _log.warning("agent %r called %d handoffs in one turn; the first is taken", self.agent.name, len(chosen))
        others = [(call, answer) for call, answer in made if call.name not in handoffs]
        context: list[LLMMessage] = []
        name = self.agent.name
        if others:
            context.append(self._said([call for call, _ in others]))
            context.append(FunctionExecutionResultMessage(content=[answer for _, answer in others]))
        elif self.result.thought:
            context.append(AssistantMessage(content=self.result.thought, source=name))
        call, answer = chosen[0]
        message = HandoffMessage(
            content=answer.content, target=handoffs[call.name].target, source=name, context=context
        )
        return Response(chat_message=message, inner_messages=self.inner)

    def _summary(self) -> Response:
        """The results of all calls of this turn as the answer, since there may be no more of them."""
        if self.agent._unasked:
            _hint(self.agent.name)
        texts = [self.agent._summarise(call, answer) for call, answer in zip(self.calls, self.results, strict=True)]
        message = ToolCallSummaryMessage(
            content="\n".join(texts),
            source=self.agent.name,
            tool_calls=self.calls,
            results=self.results,
            metadata={"max_tool_iterations": "reached"},
        )
        return Response(chat_message=message, inner_messages=self.inner)


def _hint(agent: str) -> None:
    """Say once in a program what surprises everybody."""
    global _hinted
    if not _hinted:
        _hinted = True
        _log.warning(
            "the answer of agent %r is what its tool returned; reflect_on_tool_use=True lets the model answer, "
            "max_tool_iterations=... lets it go on (this is said once)",
            agent,
        )


def _check_memory(memory: Any) -> None:
    from .memory import Memory  # which few agents have

    if not isinstance(memory, (list, tuple)) or not all(isinstance(each, Memory) for each in memory):
        raise ConfigError(f"memory must be a list of Memory objects, not {memory!r:.80}")


def _formatter(template: str) -> Callable[[FunctionCall, FunctionExecutionResult], str]:
    """Tells of a call by a template. Raises `ConfigError` for one that does not work."""

    def told(call: FunctionCall, answer: FunctionExecutionResult) -> str:
        return template.format(
            tool_name=call.name, arguments=call.arguments, result=answer.content, is_error=answer.is_error
        )

    try:
        told(FunctionCall("", "", ""), FunctionExecutionResult(content="", name="", call_id="", is_error=False))
    except (AttributeError, KeyError, IndexError, ValueError) as error:
        raise ConfigError(
            f"tool_call_summary_format may use {{tool_name}}, {{arguments}}, {{result}} and {{is_error}}; "
            f"{template!r:.80} does not work: {error!r}"
        ) from error
    return told
