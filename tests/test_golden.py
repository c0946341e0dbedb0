"""AutoGen's observable behaviour, trace by trace: which messages a run says, in which order, and why it stops."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tinygen import (
    AssistantAgent,
    AssistantMessage,
    BaseChatAgent,
    CreateResult,
    FunctionCall,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    HandoffMessage,
    ListMemory,
    MemoryContent,
    ReplayChatCompletionClient,
    RequestUsage,
    RoundRobinGroupChat,
    StructuredMessage,
    TaskResult,
    TextMentionTermination,
    TextMessage,
    UserProxyAgent,
)
from tinygen.runner import TaskRunner


@dataclass
class Out:
    x: int


def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


def call(name: str = "add", arguments: str = '{"a": 1, "b": 2}', id: str = "0") -> FunctionCall:
    return FunctionCall(id=id, name=name, arguments=arguments)


async def trace(runner: TaskRunner, **arguments: object) -> list[str]:
    """The stream as `Type[source]`, the result as `(messages, reason)`."""
    said = []
    async for item in runner.run_stream(**{"task": "q", **arguments}):  # type: ignore[arg-type]
        if isinstance(item, TaskResult):
            said.append(f"({len(item.messages)}, {item.stop_reason})")
        else:
            said.append(f"{item.type}[{item.source}]")
    return said


async def test_g1_an_assistant_answers_with_text() -> None:
    agent = AssistantAgent("ag", ReplayChatCompletionClient(["hi"]))
    assert await trace(agent) == ["TextMessage[user]", "TextMessage[ag]", "(2, None)"]


async def test_g2_one_tool_call_is_answered_with_its_result_and_one_model_call() -> None:
    model = ReplayChatCompletionClient([[call()]])
    agent = AssistantAgent("ag", model, tools=[add])
    assert await trace(agent) == [
        "TextMessage[user]",
        "ToolCallRequestEvent[ag]",
        "ToolCallExecutionEvent[ag]",
        "ToolCallSummaryMessage[ag]",
        "(4, None)",
    ]
    assert len(model.create_calls) == 1


async def test_g3_reflection_asks_a_second_time_without_tools() -> None:
    model = ReplayChatCompletionClient([[call()], "three"])
    agent = AssistantAgent("ag", model, tools=[add], reflect_on_tool_use=True)
    assert await trace(agent) == [
        "TextMessage[user]",
        "ToolCallRequestEvent[ag]",
        "ToolCallExecutionEvent[ag]",
        "TextMessage[ag]",
        "(4, None)",
    ]
    assert [bool(asked.tools) for asked in model.create_calls] == [True, False]
    assert model.create_calls[1].tool_choice == "none"


async def test_g4_tools_are_called_again_up_to_the_number_of_iterations() -> None:
    model = ReplayChatCompletionClient([[call()], [call(id="1")], "done"])
    agent = AssistantAgent("ag", model, tools=[add], max_tool_iterations=5)
    round_ = ["ToolCallRequestEvent[ag]", "ToolCallExecutionEvent[ag]"]
    assert await trace(agent) == ["TextMessage[user]", *round_, *round_, "TextMessage[ag]", "(6, None)"]


async def test_g5_streamed_pieces_are_said_but_not_in_the_result() -> None:
    agent = AssistantAgent("ag", ReplayChatCompletionClient(["hello big world"]), model_client_stream=True)
    chunks = ["ModelClientStreamingChunkEvent[ag]"] * 3
    assert await trace(agent) == ["TextMessage[user]", *chunks, "TextMessage[ag]", "(2, None)"]


async def test_g6_what_memory_gives_is_an_event() -> None:
    memory = ListMemory(memory_contents=[MemoryContent(content="x", mime_type="text/plain")])
    agent = AssistantAgent("ag", ReplayChatCompletionClient(["hi"]), memory=[memory])
    assert await trace(agent) == ["TextMessage[user]", "MemoryQueryEvent[ag]", "TextMessage[ag]", "(3, None)"]


async def test_g7_a_thought_beside_tool_calls_is_an_event() -> None:
    result = CreateResult(
        finish_reason="function_calls", content=[call()], usage=RequestUsage(1, 1), cached=False, thought="hm"
    )
    agent = AssistantAgent("ag", ReplayChatCompletionClient([result]), tools=[add])
    assert await trace(agent) == [
        "TextMessage[user]",
        "ThoughtEvent[ag]",
        "ToolCallRequestEvent[ag]",
        "ToolCallExecutionEvent[ag]",
        "ToolCallSummaryMessage[ag]",
        "(5, None)",
    ]


async def test_g8_a_handoff_carries_the_other_calls_and_their_results() -> None:
    model = ReplayChatCompletionClient([[call(), call("transfer_to_bob", "{}", "1")]])
    agent = AssistantAgent("ag", model, tools=[add], handoffs=["bob"])
    result = await agent.run(task="q")
    message = result.messages[-1]
    assert [m.type for m in result.messages[1:]] == ["ToolCallRequestEvent", "ToolCallExecutionEvent", "HandoffMessage"]
    assert isinstance(message, HandoffMessage)
    assert message.content == "Transferred to bob, adopting the role of bob immediately."
    assert message.context == [
        AssistantMessage(content=[call()], source="ag"),
        FunctionExecutionResultMessage(
            content=[FunctionExecutionResult(content="3", name="add", call_id="0", is_error=False)]
        ),
    ]


async def test_g9_a_promised_type_makes_a_structured_message() -> None:
    agent = AssistantAgent("ag", ReplayChatCompletionClient(['{"x": 1}']), output_content_type=Out)
    assert await trace(agent) == ["TextMessage[user]", "StructuredMessage[Out][ag]", "(2, None)"]


async def test_g10_a_promised_type_after_a_tool_call_is_reflected_into() -> None:
    model = ReplayChatCompletionClient([[call()], '{"x": 3}'])
    result = await AssistantAgent("ag", model, tools=[add], output_content_type=Out).run(task="q")
    assert [message.type for message in result.messages[1:]] == [
        "ToolCallRequestEvent",
        "ToolCallExecutionEvent",
        "StructuredMessage[Out]",
    ]
    assert isinstance(result.messages[-1], StructuredMessage)
    assert result.messages[-1].content == Out(3)


async def test_g11_a_task_may_be_several_messages() -> None:
    agent = AssistantAgent("ag", ReplayChatCompletionClient(["hi"]))
    task = [TextMessage(content="a", source="u"), TextMessage(content="b", source="u")]
    assert await trace(agent, task=task) == ["TextMessage[u]", "TextMessage[u]", "TextMessage[ag]", "(3, None)"]


async def test_g12_the_task_can_be_left_out_of_the_output() -> None:
    agent = AssistantAgent("ag", ReplayChatCompletionClient(["hi"]))
    assert await trace(agent, output_task_messages=False) == ["TextMessage[ag]", "(1, None)"]


def pair(**arguments: object) -> RoundRobinGroupChat:
    members = [AssistantAgent(name, ReplayChatCompletionClient([name] * 9)) for name in "ab"]
    return RoundRobinGroupChat(members, **arguments)  # type: ignore[arg-type]


async def test_g13_a_round_robin_stops_after_its_turns() -> None:
    assert await trace(pair(max_turns=3)) == [
        "TextMessage[user]",
        "TextMessage[a]",
        "TextMessage[b]",
        "TextMessage[a]",
        "(4, Maximum number of turns 3 reached.)",
    ]


async def test_g14_a_team_can_say_who_speaks_next() -> None:
    team = pair(emit_team_events=True, termination_condition=TextMentionTermination("b", sources=["b"]))
    assert await trace(team) == [
        "TextMessage[user]",
        "SelectSpeakerEvent[RoundRobinGroupChatManager]",
        "TextMessage[a]",
        "SelectSpeakerEvent[RoundRobinGroupChatManager]",
        "TextMessage[b]",
        "(5, Text 'b' mentioned)",
    ]


@pytest.mark.parametrize("is_async", [True, False])
async def test_g22_a_user_proxy_asks_and_passes_on_the_answer(is_async: bool) -> None:
    async def ask_async(prompt: str, token: object) -> str:
        return "yes"

    agent: BaseChatAgent = UserProxyAgent("u", input_func=ask_async if is_async else lambda prompt: "yes")
    assert await trace(agent) == ["TextMessage[user]", "UserInputRequestedEvent[u]", "TextMessage[u]", "(3, None)"]


async def test_g25_bad_arguments_and_an_unknown_tool_are_told_to_the_model() -> None:
    model = ReplayChatCompletionClient([[call(arguments="{oops"), call("nope", "{}", "1")]])
    agent = AssistantAgent("ag", model, tools=[add])
    result = await agent.run(task="q")
    assert [message.type for message in result.messages[1:]] == [
        "ToolCallRequestEvent",
        "ToolCallExecutionEvent",
        "ToolCallSummaryMessage",
    ]
    assert [(answer.call_id, answer.is_error) for answer in result.messages[2].content] == [("0", True), ("1", True)]  # type: ignore[union-attr]


async def test_g27_a_nested_team_that_speaks_twice_in_a_row_goes_on() -> None:
    inner = pair(max_turns=1, name="inner")
    result = await RoundRobinGroupChat([inner], max_turns=2).run(task="q")
    assert [message.source for message in result.messages] == ["user", "a", "b"]


async def test_g28_what_a_nested_team_says_is_heard_by_the_others() -> None:
    model = ReplayChatCompletionClient(["a1", "a2"])
    members = [AssistantAgent(name, ReplayChatCompletionClient([name] * 9)) for name in "pq"]
    inner = RoundRobinGroupChat(members, max_turns=2, name="inner")
    team = RoundRobinGroupChat([AssistantAgent("a", model), inner], max_turns=4)
    result = await team.run(task="q")
    assert [message.source for message in result.messages] == ["user", "a", "p", "q", "a", "p", "q"]
    assert [message.content for message in model.create_calls[1].messages[1:]] == ["q", "a1", "p", "q"]
