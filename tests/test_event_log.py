"""AutoGen's log events, as programs that count tokens and follow messages read them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agents_for_tests import Failing
from tinygen import (
    AgentId,
    AssistantAgent,
    CancellationToken,
    ChatCompletionClient,
    CreateResult,
    DefaultInterventionHandler,
    DropMessage,
    FunctionCall,
    MessageContext,
    ReplayChatCompletionClient,
    RequestUsage,
    RoundRobinGroupChat,
    RoutedAgent,
    SingleThreadedAgentRuntime,
    TextMessage,
    TopicId,
    TypeSubscription,
    UserMessage,
    effect,
    listen,
    message_handler,
)
from tinygen.event_log import (
    AgentConstructionExceptionEvent,
    LLMCallEvent,
    LLMStreamEndEvent,
    LLMStreamStartEvent,
    LogEvent,
    LogEventReader,
    MessageDroppedEvent,
    MessageEvent,
    MessageHandlerExceptionEvent,
    MessageKind,
    ToolCallEvent,
    log_events,
)


class Kept(logging.Handler):
    """Keeps what is logged, as the usage trackers of AutoGen's programs do."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        assert isinstance(record.msg, LogEvent)
        self.events.append(record.msg)

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if type(event) is kind]


def kept() -> tuple[logging.Logger, Kept]:
    logger, handler = logging.Logger("test", logging.INFO), Kept()
    logger.addHandler(handler)
    return logger, handler


@dataclass
class Ask:
    text: str


@dataclass
class Opaque:
    what: Callable[[], int]


class Thinker(RoutedAgent):
    def __init__(self, model: Any) -> None:
        super().__init__("thinks")
        self.model = model

    @message_handler
    async def on_ask(self, message: Ask, ctx: MessageContext) -> str:
        if message.text == "fail":
            raise OSError("no")
        result = await self.model.create([UserMessage(content=message.text, source="user")])
        return str(result.content)


async def runtime_with_thinker(**options: Any) -> SingleThreadedAgentRuntime:
    runtime = SingleThreadedAgentRuntime(**options)
    await Thinker.register(runtime, "thinker", lambda: Thinker(ReplayChatCompletionClient(lambda request: "so be it")))
    await runtime.add_subscription(TypeSubscription("news", "thinker"))
    runtime.start()
    return runtime


def add(a: int, b: int) -> int:
    return a + b


async def test_the_calls_of_a_team_are_logged_with_their_agent_and_tokens() -> None:
    logger, log = kept()
    call = FunctionCall("1", '{"a": 1, "b": 2}', "add")
    ada = AssistantAgent("ada", ReplayChatCompletionClient([[call], "three it is"]), tools=[add], max_tool_iterations=2)

    with log_events(logger):
        await RoundRobinGroupChat([ada], max_turns=1).run(task="what is 1 + 2 ?")

    first, second = log.of(LLMCallEvent)
    assert [first.agent_id, second.agent_id] == ["ada", "ada"]
    assert (second.prompt_tokens > first.prompt_tokens > 6, second.completion_tokens) == (True, 3)
    data = json.loads(str(second))
    assert list(data) == ["type", "messages", "response", "prompt_tokens", "completion_tokens", "agent_id"]
    assert (data["type"], data["response"]["content"]) == ("LLMCall", "three it is")
    assert data["messages"][-1]["type"] == "FunctionExecutionResultMessage"
    (tool,) = log.of(ToolCallEvent)
    assert json.loads(str(tool)) == {
        **{"type": "ToolCall", "tool_name": "add", "arguments": {"a": 1, "b": 2}, "result": "3", "agent_id": "ada"}
    }


async def test_a_streamed_call_is_logged_at_its_start_and_its_end() -> None:
    logger, log = kept()
    ada = AssistantAgent("ada", ReplayChatCompletionClient(["one two"]), model_client_stream=True)

    with log_events(logger):
        await ada.run(task="count")

    assert [type(event) for event in log.events] == [LLMStreamStartEvent, LLMStreamEndEvent]
    assert json.loads(str(log.events[0]))["type"] == "LLMStreamStart"
    assert list(json.loads(str(log.events[1]))) == [
        *("type", "response", "prompt_tokens", "completion_tokens", "agent_id")
    ]
    assert (log.events[1].completion_tokens, log.events[1].agent_id) == (2, "ada")


async def test_a_model_called_in_a_handler_outside_of_runs_is_logged_with_the_agents_id() -> None:
    logger, log = kept()

    with log_events(logger):
        runtime = await runtime_with_thinker()
        await runtime.send_message(Ask("why?"), AgentId("thinker", "one"))
        await runtime.stop_when_idle()

    (event,) = log.of(LLMCallEvent)
    assert (event.agent_id, event.completion_tokens) == ("thinker/one", 3)


async def test_a_model_called_by_itself_is_logged_once_streamed_or_not() -> None:
    logger, log = kept()
    model = ReplayChatCompletionClient(["a", "b c"])
    question = [UserMessage(content="hi", source="user")]

    with log_events(logger):
        await model.create(question)
        assert [item async for item in model.create_stream(question)][:-1] == ["b ", "c"]
    await ReplayChatCompletionClient(["not in the block"]).create(question)

    assert [type(event) for event in log.events] == [LLMCallEvent, LLMStreamStartEvent, LLMStreamEndEvent]


async def test_a_model_of_ones_own_that_an_agent_asks_by_itself_is_logged_whatever_its_helpers_are_called() -> None:
    class Mine(ChatCompletionClient):
        model_info = ReplayChatCompletionClient([]).model_info  # type: ignore[assignment]

        async def create(self, messages: Any, **arguments: Any) -> CreateResult:
            return await self._create(messages)

        async def _create(self, messages: Any, **arguments: Any) -> CreateResult:
            return CreateResult(finish_reason="stop", content="hi", usage=RequestUsage(1, 1), cached=False)

    logger, log = kept()
    with log_events(logger):
        question = TextMessage(content="q", source="user")
        await AssistantAgent("a", Mine()).on_messages([question], CancellationToken())

    assert [type(event) for event in log.events] == [LLMCallEvent]


async def test_messages_are_logged_when_sent_delivered_and_answered() -> None:
    logger, log = kept()

    with log_events(logger):
        runtime = await runtime_with_thinker()
        await runtime.send_message(Ask("why?"), AgentId("thinker", "one"), sender=AgentId("me", "x"))
        await runtime.publish_message(Ask("news!"), TopicId("news", "two"))
        await runtime.stop_when_idle()

    told = [json.loads(str(event)) for event in log.of(MessageEvent)]
    assert [(each["sender"], each["receiver"], each["kind"], each["delivery_stage"]) for each in told] == [
        ("me/x", "thinker/one", "MessageKind.DIRECT", "DeliveryStage.SEND"),
        ("me/x", "thinker/one", "MessageKind.DIRECT", "DeliveryStage.DELIVER"),
        ("thinker/one", "me/x", "MessageKind.RESPOND", "DeliveryStage.SEND"),
        (None, "news/two", "MessageKind.PUBLISH", "DeliveryStage.SEND"),
        (None, "thinker/two", "MessageKind.PUBLISH", "DeliveryStage.DELIVER"),
    ]
    assert [each["payload"] for each in told[:3]] == ['{"text":"why?"}', '{"text":"why?"}', '"so be it"']


async def test_failures_of_handlers_and_factories_are_logged() -> None:
    logger, log = kept()

    def broken() -> Thinker:
        raise OSError("no room")

    with log_events(logger):
        runtime = await runtime_with_thinker()
        await Thinker.register(runtime, "broken", broken)
        for text, to in (("fail", "thinker"), ("hi", "broken")):
            try:
                await runtime.send_message(Ask(text), AgentId(to, "one"))
            except OSError:
                pass
        await runtime.stop_when_idle()

    (failed,), (not_made,) = log.of(MessageHandlerExceptionEvent), log.of(AgentConstructionExceptionEvent)
    assert (failed.handling_agent, failed.exception) == ("thinker/one", "OSError('no')")
    assert json.loads(str(not_made)) == {
        **{"type": "AgentConstructionException", "agent_id": "broken/one", "exception": "OSError('no room')"}
    }


async def test_a_dropped_message_is_logged_with_how_it_went() -> None:
    class Nothing(DefaultInterventionHandler):
        async def on_publish(self, message: Any, *, message_context: MessageContext) -> Any:
            return DropMessage

    logger, log = kept()
    with log_events(logger):
        runtime = await runtime_with_thinker(intervention_handlers=[Nothing()])
        await runtime.publish_message(Ask("news!"), TopicId("news", "two"))
        await runtime.stop_when_idle()

    (event,) = log.of(MessageDroppedEvent)
    assert (event.receiver, event.kind, event.payload) == ("news/two", MessageKind.PUBLISH, '{"text":"news!"}')


async def test_what_has_no_json_does_not_break_the_log() -> None:
    logger, log = kept()
    with log_events(logger):
        runtime = await runtime_with_thinker()
        await runtime.publish_message(Opaque(lambda: 1), TopicId("news", "two"))
        await runtime.stop_when_idle()

    assert log.of(MessageEvent)[0].payload == "Message could not be serialized"


async def test_a_run_that_fails_leaves_nothing_behind_in_the_reader() -> None:
    logger, log = kept()
    agent = Failing("ada", OSError("no"))

    with log_events(logger):
        for _ in range(3):
            try:
                await agent.run(task="x")
            except OSError:
                pass

    assert log.events == []


async def test_effects_of_a_users_own_are_logged_where_they_can_be_and_break_nothing() -> None:
    async def answer() -> str:
        return "x"

    told: list[Any] = []
    with listen(LogEventReader(told.append)):
        await effect("model", "a prompt", answer)
        await effect("tool", "a request", answer, name="mine")

    assert [(event.tool_name, event.arguments, event.result) for event in told] == [
        ("mine", {"request": "a request"}, "x")
    ]


async def test_a_call_whose_start_was_not_heard_is_logged_without_arguments() -> None:
    async def answer() -> str:
        return "x"

    heard: list[Any] = []
    with listen(heard.append):
        await effect("tool", {"arguments": "{}"}, answer, name="mine")
    told: list[Any] = []
    LogEventReader(told.append)(heard[-1])

    assert [(event.arguments, event.result) for event in told] == [({}, "x")]
