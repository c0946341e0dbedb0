"""A result as text that people read."""

from __future__ import annotations

import base64

import pytest

from tinygen import (
    AssistantAgent,
    FunctionCall,
    FunctionExecutionResult,
    HandoffMessage,
    Image,
    MultiModalMessage,
    ReplayChatCompletionClient,
    RequestUsage,
    RoundRobinGroupChat,
    TaskResult,
    TeamTool,
    TextMessage,
    ToolCallExecutionEvent,
    UserProxyAgent,
    suspend,
)

PIXEL = Image(
    base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
)


def speaker(name: str, *replies: str) -> AssistantAgent:
    return AssistantAgent(name, ReplayChatCompletionClient(list(replies)))


def said(*messages: object) -> TaskResult:
    return TaskResult(messages=list(messages), stop_reason="enough")  # type: ignore[arg-type]


async def test_a_printed_result_says_who_said_what_and_how_it_ended() -> None:
    team = RoundRobinGroupChat([speaker("ann", "hello"), speaker("bob", "one\ntwo")], max_turns=2)

    result = await team.run(task="hi")

    assert str(result).split("\n") == [
        "user: hi",
        "ann: hello",
        "bob:",
        "  one",
        "  two",
        f"-- Maximum number of turns 2 reached. (3 messages, {result.usage.prompt_tokens} + 3 tokens)",
    ]


async def test_what_a_nested_team_says_is_indented() -> None:
    inner = RoundRobinGroupChat([speaker("pat", "yes")], name="inner", max_turns=1)
    team = RoundRobinGroupChat([speaker("ann", "so?"), inner], max_turns=2)

    result = await team.run(task="hi")

    assert "\nann: so?\n  pat: yes\n" in str(result)
    assert "\n> **pat**\n>\n> yes\n" in result.to_markdown()


async def test_the_members_of_a_team_that_is_a_tool_stand_under_its_call_with_their_task() -> None:
    deepest = RoundRobinGroupChat([speaker("pat", "yes")], name="deepest", max_turns=1)
    crew = RoundRobinGroupChat([speaker("ann", "so?"), deepest], name="crew", max_turns=2)
    call = FunctionCall("1", '{"task": "look"}', "crew")
    boss = AssistantAgent("boss", ReplayChatCompletionClient([[call]]), tools=[TeamTool(crew, "crew", "A crew.")])

    result = await boss.run(task="hi")

    assert 'crew({"task": "look"})\n  user: look\n  ann: so?\n    pat: yes\nboss is told' in str(result)


def test_calls_results_and_handoffs_are_told_as_what_they_are() -> None:
    failed = FunctionExecutionResult(content="no disk", name="save", call_id="1", is_error=True)
    result = said(
        ToolCallExecutionEvent(content=[failed], source="ann"),
        HandoffMessage(content="yours", target="bob", source="ann"),
    )

    assert str(result).startswith("ann is told: save failed: no disk\nann hands over to bob: yours\n")


def test_nothing_in_a_printed_result_can_command_a_terminal() -> None:
    result = said(TextMessage(content="\x1b[2Jboo", source="ann\nbob"))

    assert str(result).startswith("ann bob: \\x1b[2Jboo\n")
    assert result.to_markdown().startswith("**ann bob**\n\n\\x1b[2Jboo\n")


def test_no_tool_can_end_its_code_block_in_markdown() -> None:
    answer = FunctionExecutionResult(content="```\n# a heading", name="read", call_id="1")
    text = said(ToolCallExecutionEvent(content=[answer], source="ann")).to_markdown()

    assert "\n````\nread: ```\n# a heading\n````\n" in text


@pytest.mark.parametrize(
    ("text", "closed"),
    [
        ("```sh\ncut off", "```sh\ncut off\n```"),
        ("~~~~\n```\n~~~", "~~~~\n```\n~~~\n~~~~"),
        ("```\nx\n```", "```\nx\n```"),
        ("````\n```", "````\n```\n````"),
        ("``` inline ```", "``` inline ```"),
    ],
)
def test_a_code_block_that_was_cut_off_does_not_swallow_what_others_say(text: str, closed: str) -> None:
    result = said(TextMessage(content=text, source="ann"), TextMessage(content="next", source="bob"))

    assert result.to_markdown().startswith(f"**ann**\n\n{closed}\n\n**bob**\n")


def test_a_picture_is_a_placeholder_unless_pictures_are_asked_for() -> None:
    result = said(MultiModalMessage(content=["look", PIXEL], source="ann"))

    assert f"look\n\n*image, image/png, {len(PIXEL.data)} bytes*" in result.to_markdown()
    assert f"![image]({PIXEL.data_uri})" in result.to_markdown(images=True)


async def test_a_suspended_result_says_what_it_waits_for() -> None:
    result = await UserProxyAgent("boss", input_func=suspend).run(task="may I?")

    assert "-- input required; waiting for boss (input: Enter your response) (0 messages" in str(result)
    assert result.pending[0].id not in str(result)


def test_a_result_keeps_its_repr_for_debugging() -> None:
    result = TaskResult(messages=[], usage=RequestUsage(1, 2))

    assert repr(result).startswith("TaskResult(messages=[]")
