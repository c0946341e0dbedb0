"""AutoGen's traps, each with the tests that show that tinygen does not have it.

`TRAPS` says what went wrong there, and by which tests it is held off here; traps whose tests have no better place have
them below. Those of the runtime and of teams stand in `trap_table.py`, and so do the pains of AutoGen's users.
"""

from __future__ import annotations

import ast
import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from agents_for_tests import Counter, speaker
from tinygen import (
    AgentFailed,
    AgentId,
    AgentTool,
    AssistantAgent,
    BaseAgent,
    CancellationToken,
    DefaultInterventionHandler,
    FunctionCall,
    Handoff,
    ListMemory,
    MaxMessageTermination,
    MemoryContent,
    MessageContext,
    ReplayChatCompletionClient,
    Response,
    RoundRobinGroupChat,
    SingleThreadedAgentRuntime,
    StaticStreamWorkbench,
    StructuredMessage,
    Suspended,
    Swarm,
    TaskResult,
    TextMentionTermination,
    TextMessage,
    TokenUsageTermination,
    ToolResult,
    Workbench,
    effect,
)
from trap_table import CORE, PAINS, TEAMS

MESSAGES = {
    "the tool of a handoff is named after its target, whatever characters that has": [
        "test_traps.py::test_the_tool_of_a_handoff_has_a_name_that_providers_take"
    ],
    "a message type that is not registered cannot pass through a team": [
        "test_traps.py::test_a_structured_answer_needs_no_registration_in_a_team",
        "test_agents.py::test_a_message_is_a_task_too",
        "test_messages.py::test_a_message_type_of_ones_own_loads_through_its_base",
    ],
    "two types of one name overwrite each other": [
        "test_serialization.py::test_two_classes_of_one_name_are_only_an_error_when_one_must_be_chosen"
    ],
}

ASSISTANT = {
    "memory given as a tuple is a TypeError": ["test_traps.py::test_memory_may_be_given_as_a_tuple"],
    "memory piles up in the context, in the middle of the conversation": [
        "test_assistant.py::test_memory_is_in_the_request_and_not_in_the_history",
        "test_memory.py::test_recalling_leaves_no_trace_in_the_messages",
    ],
    "the format of a structured answer is lost after tool calls": [
        "test_assistant.py::test_the_format_of_a_structured_answer_is_kept_after_tools"
    ],
    "the raw output of a tool is the answer, and nothing says why": [
        "test_assistant.py::test_an_answer_that_is_what_a_tool_returned_says_so_and_the_log_once"
    ],
    "a summary covers the last iteration only": [
        "test_assistant.py::test_a_summary_covers_every_iteration",
        "test_workbenches.py::test_a_summary_covers_the_streams_of_every_iteration",
    ],
    "a tool or workbench that raises or is cancelled leaves the agent waiting for ever": [
        "test_traps.py::test_a_workbench_that_raises_ends_the_turn_or_is_told_to_the_model",
        "test_traps.py::test_a_token_cancelled_in_a_tool_call_ends_agent_and_team",
        "test_workbenches.py::test_a_stream_that_cancels_itself_is_an_error_for_the_model",
        "test_cancellation_everywhere.py::test_a_team_cut_short_at_any_step_ends_cleanly_and_runs_again",
    ],
    "a cancelled turn leaves a call without its result in the context": [
        "test_cancellation_everywhere.py::test_a_team_cut_short_at_any_step_ends_cleanly_and_runs_again"
    ],
    "only one class of workbench streams": [
        "test_assistant.py::test_any_stream_workbench_streams",
        "test_workbenches.py::test_a_workbench_of_streams_alone_needs_no_other_way_to_be_called",
        "test_workbenches.py::test_a_workbench_that_streams_in_its_own_way_is_asked_for_every_tool",
    ],
    "a renamed tool is not found when it is called by streaming": [
        "test_tools.py::test_a_renamed_tool_works_in_streaming_too",
        "test_workbenches.py::test_a_renamed_tool_is_found_by_its_new_name_streaming_or_not",
    ],
    "what a failing stream said before is lost": [
        "test_workbenches.py::test_a_stream_that_fails_gives_what_it_said_and_then_the_error"
    ],
    "the state holds neither tools nor workbenches nor memories": [
        "test_tools.py::test_state_of_tools_is_saved_with_their_workbench",
        "test_task_tools.py::test_what_the_agent_in_a_tool_remembers_is_saved_with_the_caller",
        "test_memory.py::test_a_saved_list_memory_loads_into_another",
    ],
    "reset drops the initial messages": ["test_model_context.py::test_clear_keeps_the_initial_messages"],
    "concurrent runs mix in one context": [
        "test_teams.py::test_two_runs_begun_at_once_on_one_team_are_not_both_let_in",
        "test_teams.py::test_two_hundred_sessions_at_once_share_nothing",
    ],
    "results of tools reach the model as Python prints them": [
        "test_tools.py::test_what_is_not_text_becomes_json_but_a_lone_none"
    ],
    "results are lost in a handoff": ["test_golden.py::test_g8_a_handoff_carries_the_other_calls_and_their_results"],
    "a reflection without text is a RuntimeError": [
        "test_assistant.py::test_a_reflection_that_wants_tools_again_ends_in_the_summary"
    ],
    "contexts that are cut tear calls and results apart": [
        "test_model_context.py::test_whatever_is_shown_of_a_valid_history_is_valid",
        "test_assistant.py::test_a_buffered_context_never_shows_the_model_an_orphan",
    ],
}

AROUND_OTHER_AGENTS = {
    "what an agent used as a tool says ends the outer team": [
        "test_task_tools.py::test_what_an_agent_used_as_a_tool_says_does_not_end_the_outer_team",
        "test_golden.py::test_g24_an_agent_used_as_a_tool_is_heard_in_the_stream_of_its_caller",
        "test_traps.py::test_what_an_agent_used_as_a_tool_in_an_inner_team_says_is_not_heard_outside",
    ],
    "parallel calls of one agent corrupt its context": [
        "test_task_tools.py::test_parallel_calls_of_one_agent_are_made_in_their_order",
        "test_task_tools.py::test_two_tools_of_one_agent_wait_for_each_other_too",
    ],
    "agents that call each other wait for ever": [
        "test_task_tools.py::test_an_agent_asked_from_inside_its_own_work_is_refused_and_the_model_told",
        "test_task_tools.py::test_two_agents_that_ask_each_other_at_once_do_not_wait_forever",
    ],
    "reset of an agent leaves the agents in its tools as they are": [
        "test_task_tools.py::test_reset_reaches_the_agent_in_a_tool"
    ],
    "a person named user is left out of what a team answers": [
        "test_task_tools.py::test_what_a_person_named_user_says_is_not_left_out"
    ],
    "a society does not save its context": [
        "test_society.py::test_its_state_holds_the_context_and_the_team",
        "test_society.py::test_a_state_of_autogens_without_a_context_loads",
    ],
    "a society forgets what it answered": [
        "test_society.py::test_the_team_begins_anew_and_is_told_what_was_asked_and_answered"
    ],
    "run and run_stream of a society disagree": [
        "test_golden.py::test_g23_a_society_says_what_its_team_says_and_then_its_answer",
        "test_society.py::test_run_and_run_stream_leave_the_same_messages",
    ],
    "a society of a Swarm fails in its second turn, and when it is handed over to": [
        "test_society.py::test_a_team_of_handoffs_takes_what_was_said_before_for_no_handoff",
        "test_society.py::test_a_handoff_to_it_reaches_a_team_of_handoffs_inside",
    ],
    "a society that failed goes on with half a conversation inside": [
        "test_society.py::test_a_failure_inside_names_the_way_to_the_agent_and_the_team_begins_anew"
    ],
    "a filtered agent answers in another name, so a graph ends in silence": [
        "test_message_filter.py::test_what_it_says_is_said_in_its_own_name",
        "test_message_filter.py::test_a_graph_goes_on_after_a_filtered_node",
    ],
    "a filter puts what it lets through in another order": [
        "test_message_filter.py::test_what_gets_through_is_heard_in_the_order_it_was_said"
    ],
    "a filter neither saves nor pauses nor closes the agent behind it": [
        "test_message_filter.py::test_state_reset_and_sessions_are_those_of_the_wrapped_agent",
        "test_message_filter.py::test_pause_resume_and_close_reach_the_wrapped_agent",
    ],
    "what code was written and what it printed is hidden from terminations and from run()": [
        "test_coder.py::test_run_has_the_events_that_the_stream_had",
        "test_coder.py::test_terminations_see_what_the_code_printed_and_cost",
    ],
    "an agent that executes code hears its task again with every retry": [
        "test_coder.py::test_what_it_is_given_enters_the_context_once"
    ],
    "an agent that executes code cannot be reset, saved or cancelled": [
        "test_coder.py::test_a_reset_forgets_the_conversation",
        "test_coder.py::test_what_was_said_is_saved_and_goes_on_elsewhere",
        "test_coder.py::test_the_token_ends_decisions_and_retries",
    ],
}

CONDITIONS = {
    "a function that answers something true is passed over": [
        "test_conditions.py::test_a_function_must_answer_true_or_false"
    ],
    "conditions that have ended raise different errors, one of them past every except": [
        "test_conditions.py::test_a_condition_that_has_stopped_must_be_reset_before_it_is_asked_again"
    ],
    "both reasons of a combination are given": [
        "test_conditions.py::test_and_waits_for_the_last_and_gives_the_reasons_as_they_came",
        "test_conditions.py::test_or_stops_with_all_reasons_of_the_turn",
    ],
    "a switch that was set stays set for the next run, which is said plainly": [
        "test_conditions.py::test_an_external_request_holds_until_the_reset",
        "test_teams.py::test_a_switch_set_before_the_run_stops_it_at_once",
    ],
    "what a condition has counted is not saved": [
        "test_conditions.py::test_going_on_from_a_saved_state_is_as_never_having_stopped",
        "test_conditions.py::test_a_combined_state_loads_as_a_whole_or_not_at_all",
    ],
    "tokens are never counted in streams": ["test_traps.py::test_the_tokens_of_a_streamed_answer_count"],
}

PEOPLE = {
    "a console with an input manager waits for ever for a person who is alone": [
        "test_ui.py::test_a_question_is_asked_after_it_has_been_printed",
        "test_ui.py::test_without_a_console_the_question_is_asked_at_once",
        "test_people_everywhere.py::test_a_console_prints_before_anybody_is_asked_anywhere",
    ],
    "a person who does not answer blocks the team for good": [
        "test_people_everywhere.py::test_a_person_answered_later_leads_to_what_one_asked_at_once_does",
        "test_people_everywhere.py::test_after_the_answers_the_next_run_goes_on_as_if_nobody_had_waited",
        "test_people_everywhere.py::test_a_person_who_never_answers_holds_nobody_up",
    ],
    "a person at the terminal keeps the program from ending": [
        "test_agents.py::test_a_person_who_never_types_does_not_keep_the_program_from_ending"
    ],
    "pause does nothing": [
        "test_teams.py::test_a_paused_team_takes_no_turn_until_it_is_resumed",
        "test_society.py::test_pausing_the_outer_team_pauses_the_team_inside",
    ],
    "a running team cannot be told anything": [
        "test_teams.py::test_what_is_sent_to_a_running_team_is_heard_between_turns"
    ],
    "nothing can be asked before a tool is called": [
        "test_traps.py::test_a_workbench_can_ask_for_leave_and_be_answered_later",
        "test_workbenches.py::test_a_guard_before_every_call_is_not_gone_round_by_streaming",
        "test_coder.py::test_an_approval_can_be_given_later_and_code_runs_once",
    ],
}

ENDINGS = {
    "cancelling stops nothing, or hangs": [
        "test_cancellation_everywhere.py::test_a_team_cut_short_at_any_step_ends_cleanly_and_runs_again",
        "test_cancellation_everywhere.py::test_agents_inside_of_agents_are_cut_short_with_the_run_and_run_again",
        "test_cancellation_everywhere.py::test_a_deaf_tool_does_not_hold_a_run_beyond_its_grace",
        "test_cancellation_everywhere.py::test_a_blocked_thread_does_not_hold_a_run",
        "test_code_executors.py::test_cancelling_kills_all_that_runs_and_raises",
    ],
    "a team cannot be used after a cancel, an error or a dropped stream": [
        "test_cancellation_everywhere.py::test_a_team_cut_short_at_any_step_ends_cleanly_and_runs_again",
        "test_teams.py::test_a_team_runs_again_after_a_member_failed",
        "test_run.py::test_the_next_run_waits_for_one_whose_stream_was_dropped",
    ],
    "errors lose their type and their place": [
        "test_teams.py::test_a_failing_member_is_named_with_its_turn_and_the_result_so_far",
        "test_teams.py::test_a_nested_failure_names_the_way_to_the_agent",
        "test_agents.py::test_an_agent_alone_raises_its_own_error",
    ],
}

HERE = MESSAGES | ASSISTANT | AROUND_OTHER_AGENTS | CONDITIONS | PEOPLE | ENDINGS
TRAPS = HERE | CORE | TEAMS | PAINS


@cache
def functions_in(file: str) -> set[str]:
    tree = ast.parse((Path(__file__).parent / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}


@pytest.mark.parametrize("trap", TRAPS)
def test_each_trap_is_held_off_by_tests_that_exist(trap: str) -> None:
    assert TRAPS[trap]
    for name in TRAPS[trap]:
        file, test = name.split("::")
        assert test in functions_in(file), name


def test_the_tables_have_no_trap_twice_and_every_pain_that_is_ours() -> None:
    assert len(TRAPS) == sum(map(len, (HERE, CORE, TEAMS, PAINS)))
    assert [int(pain.partition(":")[0]) for pain in PAINS] == [*range(1, 15), 17, 18, 19, 20]


# --- messages


@pytest.mark.parametrize(
    ("target", "name"),
    [("bob", "transfer_to_bob"), ("Bob Smith", "transfer_to_bob_smith"), ("web-search/2", "transfer_to_web_search_2")],
)
def test_the_tool_of_a_handoff_has_a_name_that_providers_take(target: str, name: str) -> None:
    handoff = Handoff(target=target)
    assert (handoff.name, handoff.target) == (name, target)


async def test_a_team_is_handed_over_to_whatever_its_name() -> None:
    call = FunctionCall("1", "{}", "transfer_to_the_crew")
    lead = AssistantAgent("lead", ReplayChatCompletionClient([[call]]), handoffs=["the crew"])
    crew = RoundRobinGroupChat([speaker("a")], max_turns=1, name="the crew")
    result = await Swarm([lead, crew], max_turns=2).run(task="go")
    assert [message.source for message in result.messages if not message.type.startswith("Tool")] == [
        "user",
        "lead",
        "a",
    ]


@dataclass
class Ruling:
    good: bool


async def test_a_structured_answer_needs_no_registration_in_a_team() -> None:
    def make() -> RoundRobinGroupChat:
        judge = AssistantAgent("judge", ReplayChatCompletionClient(['{"good": true}']), output_content_type=Ruling)
        inner = RoundRobinGroupChat([judge], max_turns=1, name="inner")
        return RoundRobinGroupChat([inner, speaker("other")], max_turns=2)

    first, second = make(), make()
    answer = (await first.run(task="go")).messages[1]
    assert isinstance(answer, StructuredMessage)
    assert answer.content == Ruling(good=True)
    await second.load_state(json.loads(json.dumps(await first.save_state())))
    assert await second.save_state() == await first.save_state()


# --- the assistant


async def test_memory_may_be_given_as_a_tuple() -> None:
    memory = ListMemory(memory_contents=[MemoryContent(content="It rains.", mime_type="text/plain")])
    model = ReplayChatCompletionClient(["ok"])
    await AssistantAgent("a", model, memory=(memory,)).run(task="go")
    assert "It rains." in str(model.create_calls[0].messages[0].content)


class Raising(Workbench):
    """Raises where it is told to."""

    def __init__(self, in_list: BaseException | None, in_call: BaseException | None) -> None:
        self._in_list, self._in_call = in_list, in_call

    async def list_tools(self) -> Any:
        if self._in_list is not None:
            raise self._in_list
        return [{"name": "t", "description": ""}]

    async def call_tool(self, *arguments: Any, **more: Any) -> ToolResult:
        assert self._in_call is not None
        raise self._in_call


class Odd(BaseException):
    """What no `except Exception` catches."""


@pytest.mark.parametrize(
    ("make", "outcome"),
    [
        (lambda: Raising(ValueError("no list"), None), "AgentFailed: agent 'a' failed in turn 1: ValueError: no list"),
        (lambda: Raising(None, ValueError("no call")), "no call"),
        (lambda: Raising(None, asyncio.CancelledError()), "tool 't' was cancelled from inside"),
        (lambda: Raising(None, Odd("odd")), "Odd: odd"),
        (lambda: Raising(Odd("odd"), None), "Odd: odd"),
    ],
)
async def test_a_workbench_that_raises_ends_the_turn_or_is_told_to_the_model(
    make: Callable[[], Workbench], outcome: str
) -> None:
    calls = [FunctionCall("1", "{}", "t"), FunctionCall("2", "{}", "t")]
    agent = AssistantAgent("a", ReplayChatCompletionClient([calls]), workbench=make())
    try:
        result = await RoundRobinGroupChat([agent], max_turns=1).run(task="go")
        assert result.messages[-1].to_text() == f"{outcome}\n{outcome}"
    except (AgentFailed, Odd) as error:
        assert f"{type(error).__name__}: {error}" == outcome


@pytest.mark.parametrize("in_team", [False, True], ids=["alone", "in a team"])
async def test_a_token_cancelled_in_a_tool_call_ends_agent_and_team(in_team: bool) -> None:
    token = CancellationToken()

    async def stop_everything() -> str:
        """Cancels the run it is called in, and waits."""
        token.cancel()
        await asyncio.Event().wait()
        return "never"

    model = ReplayChatCompletionClient([[FunctionCall("1", "{}", "stop_everything")], "fine"])
    agent: Any = AssistantAgent("a", model, tools=[stop_everything])
    runner = RoundRobinGroupChat([agent], max_turns=1) if in_team else agent
    with pytest.raises(asyncio.CancelledError):
        await runner.run(task="go", cancellation_token=token)
    assert (await runner.run(task="again")).messages[-1].to_text() == "fine"


# --- agents around other agents


async def test_what_an_agent_used_as_a_tool_in_an_inner_team_says_is_not_heard_outside() -> None:
    calls = [FunctionCall("1", '{"task": "inner task"}', "sub")]
    lead = AssistantAgent(
        "lead",
        ReplayChatCompletionClient([calls, "not finished"]),
        tools=[AgentTool(speaker("sub", "TERMINATE"))],
        max_tool_iterations=2,
    )
    inner, other = RoundRobinGroupChat([lead], max_turns=1, name="inner"), Counter("other")
    condition = TextMentionTermination("TERMINATE")
    result = await RoundRobinGroupChat([inner, other], max_turns=2, termination_condition=condition).run(task="go")
    assert result.stop_reason == "Maximum number of turns 2 reached."
    assert other.heard == ["go", "not finished"]
    assert "TERMINATE" in [message.to_text() for message in result.messages]


# --- conditions


async def test_the_tokens_of_a_streamed_answer_count() -> None:
    writer = AssistantAgent("a", ReplayChatCompletionClient(["one two"] * 9), model_client_stream=True)
    team = RoundRobinGroupChat([writer], termination_condition=TokenUsageTermination(max_total_token=1), max_turns=9)
    assert "token" in str((await team.run(task="go")).stop_reason).lower()


# --- teams


@pytest.mark.parametrize("make", [lambda: Counter("a"), lambda: RoundRobinGroupChat([Counter("a")], max_turns=1)])
async def test_a_task_may_be_a_tuple_everywhere(make: Callable[[], Any]) -> None:
    task = (TextMessage(content="one", source="user"), TextMessage(content="two", source="user"))
    result = await make().run(task=task)
    assert [message.to_text() for message in result.messages] == ["one", "two", "a 1"]


async def test_one_message_at_most_is_the_task_alone() -> None:
    team = RoundRobinGroupChat([Counter("a")], termination_condition=MaxMessageTermination(1))
    assert [message.to_text() for message in (await team.run(task="go")).messages] == ["go"]


async def test_what_an_agent_keeps_of_its_messages_stays() -> None:
    class Keeper(Counter):
        async def on_messages(self, messages: Any, cancellation_token: CancellationToken) -> Response:
            self.kept = messages
            return await super().on_messages(messages, cancellation_token)

    keeper = Keeper("a")
    await RoundRobinGroupChat([keeper, Counter("b")], max_turns=2).run(task="go")
    assert [message.to_text() for message in keeper.kept] == ["go"]


async def test_a_running_team_is_neither_reset_nor_loaded_into() -> None:
    team = RoundRobinGroupChat([Counter("a"), Counter("b")], max_turns=4)
    state = await team.save_state()
    stream = team.run_stream(task="go")
    await stream.__anext__()
    for change in (team.reset, lambda: team.load_state(state)):
        with pytest.raises(RuntimeError, match="already running"):
            await change()
    assert [item.to_text() async for item in stream if not isinstance(item, TaskResult)] == ["a 1", "b 1", "a 2", "b 2"]


# --- the runtime


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
async def test_an_intervention_that_returns_nothing_leaves_the_message_as_it_is() -> None:
    class Forgets(DefaultInterventionHandler):
        async def on_send(self, message: Any, **about: Any) -> Any:
            return None

        async def on_response(self, message: Any, **about: Any) -> Any:
            return None

    class Echo(BaseAgent):
        async def on_message_impl(self, message: Any, ctx: MessageContext) -> Any:
            return message

    runtime = SingleThreadedAgentRuntime(intervention_handlers=[Forgets()])
    await runtime.register_factory("echo", lambda: Echo("echoes"))
    runtime.start()
    assert await runtime.send_message("hi", AgentId("echo", "x")) == "hi"
    await runtime.stop()


# --- people


async def test_a_workbench_can_ask_for_leave_and_be_answered_later() -> None:
    done: list[str] = []

    def pay(euros: int) -> str:
        """Pays."""
        done.append(f"{euros}")
        return f"paid {euros}"

    class Asking(StaticStreamWorkbench):
        async def call_tool(self, name: str, arguments: Any = None, *more: Any, **rest: Any) -> ToolResult:
            async def nobody_there() -> str:
                raise Suspended

            answer = await effect("input", {"call": name, "arguments": arguments}, nobody_there, str, name="approval")
            if answer != "yes":
                return ToolResult.error(name, f"refused: {answer}")
            return await super().call_tool(name, arguments, *more, **rest)

    calls = [FunctionCall(str(n), json.dumps({"euros": n}), "pay") for n in (1, 2)]
    agent = AssistantAgent("a", ReplayChatCompletionClient([calls]), workbench=Asking([pay]))
    result = await agent.run(task="go")
    assert [question.content["arguments"] for question in result.pending] == [{"euros": 1}, {"euros": 2}]
    for question, answer in zip(result.pending, ("too little", "yes"), strict=True):
        agent.answer(question.id, answer)
    assert (await agent.run(task="go")).messages[-1].to_text() == "refused: too little\npaid 2"
    assert done == ["2"]
