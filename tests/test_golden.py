"""AutoGen's observable behaviour, trace by trace: which messages a run says, in which order, and why it stops."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from tinygen import (
    AgentTool,
    ApprovalResponse,
    AssistantAgent,
    AssistantMessage,
    BaseChatAgent,
    CodeExecutorAgent,
    CodeGenerationEvent,
    CreateResult,
    DiGraphBuilder,
    FunctionCall,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    GraphFlow,
    HandoffMessage,
    ListMemory,
    LocalCommandLineCodeExecutor,
    MagenticOneGroupChat,
    MemoryContent,
    ReplayChatCompletionClient,
    RequestUsage,
    RoundRobinGroupChat,
    SelectorGroupChat,
    SocietyOfMindAgent,
    StructuredMessage,
    Swarm,
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


def ledger(done: bool, *, moves: bool = True) -> str:
    answers = {
        "is_request_satisfied": done,
        "is_in_loop": False,
        "is_progress_being_made": moves,
        "next_speaker": "a",
        "instruction_or_question": "go",
    }
    return json.dumps({key: {"reason": "why", "answer": answer} for key, answer in answers.items()})


async def test_g18_a_magentic_team_plans_instructs_and_gives_the_final_answer() -> None:
    model = ReplayChatCompletionClient(["facts", "plan", ledger(False), ledger(True), "final"])
    member = AssistantAgent("a", ReplayChatCompletionClient(["a"]))
    assert await trace(MagenticOneGroupChat([member], model)) == [
        "TextMessage[user]",
        "TextMessage[MagenticOneOrchestrator]",
        "TextMessage[MagenticOneOrchestrator]",
        "TextMessage[a]",
        "TextMessage[MagenticOneOrchestrator]",
        "(5, why)",
    ]


async def test_g19_a_magentic_team_that_stalls_plans_again() -> None:
    model = ReplayChatCompletionClient(
        ["facts", "plan", ledger(False, moves=False), "facts 2", "plan 2", ledger(True), "final"]
    )
    member = AssistantAgent("a", ReplayChatCompletionClient(["a"]))
    assert await trace(MagenticOneGroupChat([member], model, max_stalls=1)) == [
        "TextMessage[user]",
        *["TextMessage[MagenticOneOrchestrator]"] * 3,
        "(4, why)",
    ]


@pytest.mark.parametrize("more", [{}, {"allow_repeated_speaker": True}], ids=["not again", "again"])
async def test_g15_a_selector_is_asked_again_when_it_names_two(more: dict[str, bool]) -> None:
    members = [AssistantAgent(name, ReplayChatCompletionClient([name])) for name in "abc"]
    model = ReplayChatCompletionClient(["b", "a and b", "a"])
    team = SelectorGroupChat(members, model, max_turns=2, emit_team_events=True, **more)  # type: ignore[arg-type]
    assert await trace(team) == [
        "TextMessage[user]",
        "SelectSpeakerEvent[SelectorGroupChatManager]",
        "TextMessage[b]",
        "SelectSpeakerEvent[SelectorGroupChatManager]",
        "TextMessage[a]",
        "(5, Maximum number of turns 2 reached.)",
    ]
    assert len(model.create_calls) == 3


async def test_g16_a_swarm_goes_on_with_whom_it_was_handed_to() -> None:
    a = AssistantAgent("a", ReplayChatCompletionClient([[call("transfer_to_b", "{}")]]), handoffs=["b"])
    b = AssistantAgent("b", ReplayChatCompletionClient(["TERMINATE"]))
    assert await trace(Swarm([a, b], termination_condition=TextMentionTermination("TERMINATE"))) == [
        "TextMessage[user]",
        "ToolCallRequestEvent[a]",
        "ToolCallExecutionEvent[a]",
        "HandoffMessage[a]",
        "TextMessage[b]",
        "(5, Text 'TERMINATE' mentioned)",
    ]


def executor(*script: str) -> CodeExecutorAgent:
    """Without a script it has no model."""
    return CodeExecutorAgent(
        "cx",
        LocalCommandLineCodeExecutor(),
        model_client=ReplayChatCompletionClient(list(script)) if script else None,
        max_retries_on_error=1,
        approval_func=lambda request: ApprovalResponse(approved=True, reason="a test"),
    )


async def test_g20_code_in_a_message_is_executed() -> None:
    task = "```python\nprint(6 * 7)\n```"
    assert await trace(executor(), task=task) == ["TextMessage[user]", "TextMessage[cx]", "(2, None)"]
    assert (await executor().run(task=task)).messages[-1].to_text() == "42\n"


async def test_g21_code_that_fails_is_corrected_and_the_result_has_all_of_it() -> None:
    script = (
        "```python\n1 / 0\n```",
        '{"reason": "divide by one", "retry": true}',
        "```python\nprint(1)\n```",
        "It is 1.",
    )
    events = ["CodeGenerationEvent[cx]", "CodeExecutionEvent[cx]"]
    assert await trace(executor(*script)) == [
        "TextMessage[user]",
        *events,
        "CodeGenerationEvent[cx]",
        *events,
        "TextMessage[cx]",
        "(7, None)",
    ]
    result = await executor(*script).run(task="q")
    assert [(m.retry_attempt, len(m.code_blocks)) for m in result.messages if isinstance(m, CodeGenerationEvent)] == [
        (0, 1),
        (0, 0),
        (1, 1),
    ]
    assert result.messages[3].to_text() == "Attempt number: 1\nProposed correction: divide by one"  # type: ignore[union-attr]


@pytest.mark.parametrize("is_async", [True, False])
async def test_g22_a_user_proxy_asks_and_passes_on_the_answer(is_async: bool) -> None:
    async def ask_async(prompt: str, token: object) -> str:
        return "yes"

    agent: BaseChatAgent = UserProxyAgent("u", input_func=ask_async if is_async else lambda prompt: "yes")
    assert await trace(agent) == ["TextMessage[user]", "UserInputRequestedEvent[u]", "TextMessage[u]", "(3, None)"]


@pytest.mark.parametrize("streamed", [True, False], ids=["run_stream", "run"])
async def test_g23_a_society_says_what_its_team_says_and_then_its_answer(streamed: bool) -> None:
    members = [AssistantAgent(name, ReplayChatCompletionClient([name])) for name in "pq"]
    society = SocietyOfMindAgent("som", RoundRobinGroupChat(members, max_turns=2), ReplayChatCompletionClient(["done"]))
    if streamed:
        texts = [f"TextMessage[{name}]" for name in ("user", "p", "q", "som")]
        assert await trace(society) == [*texts, "(4, None)"]
    else:
        assert [message.source for message in (await society.run(task="q")).messages] == ["user", "p", "q", "som"]


async def test_g24_an_agent_used_as_a_tool_is_heard_in_the_stream_of_its_caller() -> None:
    sub = AssistantAgent("sub", ReplayChatCompletionClient(["found TERMINATE"]))
    model = ReplayChatCompletionClient([[call("sub", '{"task": "look"}')], "not finished"])
    main = AssistantAgent("main", model, tools=[AgentTool(sub)], max_tool_iterations=2)
    inside = [
        "TextMessage[user]",
        "ToolCallRequestEvent[main]",
        "TextMessage[user]",
        "TextMessage[sub]",
        "ToolCallExecutionEvent[main]",
        "TextMessage[main]",
    ]
    team = RoundRobinGroupChat([main], termination_condition=TextMentionTermination("TERMINATE"), max_turns=1)
    assert await trace(team) == [*inside, "(6, Maximum number of turns 1 reached.)"]


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


def diamond(**arguments: object) -> GraphFlow:
    builder = DiGraphBuilder()
    for name in "abcd":
        builder.add_node(AssistantAgent(name, ReplayChatCompletionClient(["STOP" if name == "b" else name] * 9)))
    builder.add_edge("a", "b").add_edge("a", "c").add_edge("b", "d").add_edge("c", "d")
    return GraphFlow(builder.get_participants(), builder.build(), **arguments)  # type: ignore[arg-type]


async def test_g17_a_diamond_fans_out_and_joins() -> None:
    said = [f"TextMessage[{source}]" for source in ("user", "a", "b", "c", "d")]
    assert await trace(diamond()) == [*said, "(5, Digraph execution is complete)"]


async def test_g26_what_one_of_several_says_side_by_side_ends_the_run() -> None:
    said = [f"TextMessage[{source}]" for source in ("user", "a", "b", "c")]
    assert await trace(diamond(termination_condition=TextMentionTermination("STOP"))) == [
        *said,
        "(4, Text 'STOP' mentioned)",
    ]


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
