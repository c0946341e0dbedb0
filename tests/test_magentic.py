"""The team with an orchestrator: plan, progress ledger, stalls, final answer, and models that answer nonsense."""

from __future__ import annotations

import base64
import json
import logging
import re
from functools import partial
from typing import Any

import pytest

from agents_for_tests import Counter, Failing, speaker
from steps import CountingLoop, run_counted
from tinygen import (
    AgentFailed,
    AssistantAgent,
    AssistantMessage,
    BaseChatMessage,
    ConfigError,
    CreateResult,
    DecodeError,
    FunctionCall,
    Image,
    MagenticOneGroupChat,
    MaxMessageTermination,
    ModelInfo,
    MultiModalMessage,
    ReplayChatCompletionClient,
    ReplayRequest,
    RequestUsage,
    RoundRobinGroupChat,
    SourceMatchTermination,
    StateError,
    StructuredMessage,
    TaskResult,
    TextMentionTermination,
    TokenUsageTermination,
    UserMessage,
    UserProxyAgent,
    suspend,
)
from tinygen.codec import matches, schema
from tinygen.magentic import ATTEMPTS
from tinygen.magentic_prompts import GO_ON

CHIEF = "MagenticOneOrchestrator"
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def ledger(to: str = "a", *, done: bool = False, moves: bool = True, loop: bool = False, say: str = "go on") -> str:
    """A progress ledger as a model writes it."""
    answers = {
        "is_request_satisfied": done,
        "is_in_loop": loop,
        "is_progress_being_made": moves,
        "next_speaker": to,
        "instruction_or_question": say,
    }
    return json.dumps({key: {"reason": f"so it is with {key}", "answer": answer} for key, answer in answers.items()})


DONE = ledger(done=True)
SATISFIED = "so it is with is_request_satisfied"


def lead(*script: Any, **arguments: Any) -> MagenticOneGroupChat:
    """A team of two that count their turns, led by a model that first says "facts" and "plan"."""
    model = arguments.pop("model", None) or ReplayChatCompletionClient(["facts", "plan", *script])
    return MagenticOneGroupChat([Counter("a"), Counter("b")], model, **arguments)


def asked(team: MagenticOneGroupChat) -> list[ReplayRequest]:
    model = team._model_client
    assert isinstance(model, ReplayChatCompletionClient)
    return model.create_calls


def lines(result: TaskResult) -> list[str]:
    """Who said what, the task ledger without its text."""
    texts = [(message.source, message.to_text()) for message in result.messages]
    return [f"{source}: {'ledger' if 'The plan:' in text else text}" for source, text in texts]


def members(team: MagenticOneGroupChat) -> list[Counter]:
    return team._participants  # type: ignore[return-value]


# --- the course of a run


async def test_the_model_leads_the_team_to_the_final_answer() -> None:
    team = lead(ledger("b", say="look it up"), ledger("a", say="check it"), DONE, "42")
    result = await team.run(task="what is it?")
    assert lines(result) == [
        "user: what is it?",
        f"{CHIEF}: ledger",
        f"{CHIEF}: look it up",
        "b: b 1",
        f"{CHIEF}: check it",
        "a: a 1",
        f"{CHIEF}: 42",
    ]
    assert result.stop_reason == SATISFIED


async def test_everybody_gets_the_whole_task_ledger_in_place_of_the_task() -> None:
    team = lead(ledger("a"), DONE, "42")
    await team.run(task="find the {answer}")
    text = members(team)[0].heard[0]
    for part in ("find the {answer}", "facts", "plan", "a: counts", "b: counts"):
        assert part in text
    assert members(team)[0].heard[1:] == ["go on"]


async def test_the_plan_is_asked_for_with_the_facts_in_view() -> None:
    team = lead(DONE, "42")
    await team.run(task="find it")
    facts, plan = asked(team)[:2]
    assert "find it" in str(facts.messages[-1].content)
    assert [message.content for message in plan.messages[:2]] == [facts.messages[0].content, "facts"]
    assert "b: counts" in str(plan.messages[-1].content)


async def test_the_orchestrator_reads_its_own_words_as_its_own() -> None:
    team = lead(ledger("a"), DONE, "42")
    await team.run(task="x")
    kinds = [type(message) for message in asked(team)[3].messages]
    assert kinds == [UserMessage, AssistantMessage, UserMessage, UserMessage]


async def test_stalls_lead_to_new_facts_and_a_new_plan_that_everybody_starts_over_from() -> None:
    stall = ledger("a", moves=False)
    team = lead(stall, stall, "facts 2", "plan 2", ledger("b"), DONE, "42", max_stalls=2)
    result = await team.run(task="x")
    assert lines(result)[1:] == [
        f"{CHIEF}: ledger",
        f"{CHIEF}: go on",
        "a: a 1",
        f"{CHIEF}: ledger",
        f"{CHIEF}: go on",
        "b: b 1",
        f"{CHIEF}: 42",
    ]
    assert "plan 2" in members(team)[1].heard[-2]
    assert "a 1" not in members(team)[1].heard
    assert [message.content for message in asked(team)[4].messages[1:3]] == ["go on", "a 1"]


@pytest.mark.parametrize("bad", [{"moves": False}, {"loop": True}], ids=["no progress", "a loop"])
async def test_progress_makes_a_stall_good(bad: dict[str, bool]) -> None:
    stall = ledger("a", **bad)
    team = lead(stall, ledger("a"), stall, DONE, "42", max_stalls=2)
    result = await team.run(task="x")
    assert sum("ledger" in line for line in lines(result)) == 1


async def test_stalls_are_counted_from_zero_after_replanning_so_the_new_plan_gets_its_chance() -> None:
    stall = ledger("a", moves=False)
    team = lead(stall, stall, "facts 2", "plan 2", stall, stall, DONE, "42", max_stalls=2)
    result = await team.run(task="x")
    assert sum("ledger" in line for line in lines(result)) == 2


async def test_a_team_that_never_moves_replans_at_most_once_between_two_turns() -> None:
    def stuck(request: ReplayRequest) -> str:
        return ledger("a", moves=False) if request.json_output else "text"

    team = lead(model=ReplayChatCompletionClient(stuck), max_stalls=1, max_turns=5)
    result = await team.run(task="x")
    assert sum(line.startswith("a: ") for line in lines(result)) == 5
    assert sum("ledger" in line for line in lines(result)) == 6
    assert result.stop_reason == "Max rounds reached."


@pytest.mark.parametrize("turns", [1, 2, 3])
async def test_max_turns_counts_turns_of_members_exactly_and_ends_with_an_answer(turns: int) -> None:
    team = lead(*[ledger("a")] * turns, "as far as I got", max_turns=turns)
    result = await team.run(task="x")
    assert sum(message.source == "a" for message in result.messages) == turns
    assert lines(result)[-1] == f"{CHIEF}: as far as I got"
    assert result.stop_reason == "Max rounds reached."


async def test_a_second_task_has_all_its_turns_and_begins_afresh() -> None:
    team = lead(ledger("a"), "one", "facts", "plan", ledger("a"), "two", max_turns=1)
    await team.run(task="x")
    result = await team.run(task="y")
    assert lines(result) == ["user: y", f"{CHIEF}: ledger", f"{CHIEF}: go on", "a: a 1", f"{CHIEF}: two"]
    assert "x" not in str(asked(team)[4].messages[-1].content).split()
    assert "The request to be worked on:\n\ny\n" in members(team)[0].heard[-2]


async def test_a_run_without_a_task_goes_on_with_the_last_one() -> None:
    team = lead(ledger("a"), "one", ledger("b"), "two", max_turns=1)
    await team.run(task="x")
    assert lines(await team.run()) == [f"{CHIEF}: go on", "b: b 1", f"{CHIEF}: two"]
    assert members(team)[1].heard[1:] == ["go on", "a 1", "one", "go on"]


async def test_a_first_run_without_a_task_says_what_is_missing() -> None:
    with pytest.raises(ConfigError, match=r"has no task to go on with; pass one: run\(task=...\)"):
        await lead().run()


async def test_the_task_is_left_out_of_the_output_if_asked_for() -> None:
    result = await lead(DONE, "42").run(task="x", output_task_messages=False)
    assert lines(result) == [f"{CHIEF}: ledger", f"{CHIEF}: 42"]


async def test_an_own_final_prompt_may_name_the_task_and_hold_braces() -> None:
    team = lead(DONE, "42", final_answer_prompt='As JSON {"answer": ...}: {task}')
    await team.run(task="{x}")
    assert asked(team)[-1].messages[-1].content == 'As JSON {"answer": ...}: {x}'


async def test_a_termination_condition_ends_the_run_as_in_every_team() -> None:
    team = lead(ledger("b"), termination_condition=TextMentionTermination("b 1"))
    assert (await team.run(task="x")).stop_reason == "Text 'b 1' mentioned"
    team = lead(termination_condition=TextMentionTermination("x"))
    assert lines(await team.run(task="x")) == ["user: x"]


async def test_what_the_orchestrator_spent_is_counted_by_terminations() -> None:
    usage = RequestUsage(prompt_tokens=100, completion_tokens=10)
    replies = [
        CreateResult(finish_reason="stop", content=text, usage=usage, cached=False)
        for text in ("facts", "plan", ledger("a"))
    ]
    team = lead(
        model=ReplayChatCompletionClient(replies), termination_condition=TokenUsageTermination(max_total_token=330)
    )
    result = await team.run(task="x")
    assert [message.models_usage for message in result.messages[1:3]] == [usage + usage, usage]
    assert str(result.stop_reason).startswith("Token usage limit reached")


async def test_what_is_sent_to_the_running_team_becomes_part_of_the_task() -> None:
    stall = ledger("a", moves=False)
    team = lead(ledger("a"), stall, "facts 2", "plan 2", DONE, "42", max_stalls=1)
    handle = team.start(task="x")
    async for event in handle:
        if event.kind == "message" and event.data["message"].to_text() == "a 1":
            handle.send("in French")
    result = await handle
    assert "user: in French" in lines(result)
    assert "x\nin French" in result.messages[-2].to_text()


async def test_what_is_sent_too_late_is_worked_on_in_the_next_run() -> None:
    def last_words(request: ReplayRequest) -> str:
        handle.send("late")
        return "one"

    team = lead(ledger("a"), last_words, "facts", "plan", DONE, "two", max_turns=1)
    handle = team.start(task="x")
    await handle
    result = await team.run()
    assert "The request to be worked on:\n\nlate\n" in result.messages[0].to_text()


async def test_team_events_name_who_is_chosen() -> None:
    result = await lead(ledger("b"), DONE, "42", emit_team_events=True).run(task="x")
    chosen = [message for message in result.messages if message.type == "SelectSpeakerEvent"]
    assert [(event.source, event.content) for event in chosen] == [(CHIEF, ["b"])]  # type: ignore[attr-defined]


async def test_a_ledger_in_words_and_fences_is_found_however_many_there_are() -> None:
    # the trap: a search that goes back for every fence takes minutes, and no limit can interrupt it
    hostile = "```{" * 50_000 + "}" * 50_000

    result = await lead(hostile, f"so {{x}}:\n```json\n{ledger('b')}\n```\n}}", DONE, "42").run(task="x")

    assert lines(result)[-2:] == ["b: b 1", f"{CHIEF}: 42"]


# --- all kinds of messages and members


class Answer(Counter):
    """Answers with a structured message."""

    async def on_messages(self, messages: Any, cancellation_token: Any) -> Any:
        response = await super().on_messages(messages, cancellation_token)
        response.chat_message = StructuredMessage[dict](content={"n": 7}, source=self.name)
        return response


async def test_structured_messages_of_members_are_read_as_json() -> None:
    model = ReplayChatCompletionClient(["facts", "plan", ledger("a"), DONE, "42"])
    await MagenticOneGroupChat([Answer("a")], model).run(task="x")
    assert json.loads(str(model.create_calls[3].messages[-2].content)) == {"n": 7}


@pytest.mark.parametrize("vision", [True, False])
async def test_pictures_of_the_task_reach_the_model_and_the_members(vision: bool) -> None:
    info = ReplayChatCompletionClient([]).model_info | {"vision": vision}
    model = ReplayChatCompletionClient(["facts", "plan", ledger("a"), DONE, "42"], model_info=info)  # type: ignore[arg-type]
    team = MagenticOneGroupChat([Counter("a")], model)
    task = MultiModalMessage(content=["what is this?", picture := Image(PIXEL)], source="user")
    result = await team.run(task=task)
    for at in (0, 2):
        content = model.create_calls[at].messages[0].content
        assert (picture in content) if vision else isinstance(content, str)
    assert isinstance(result.messages[1], MultiModalMessage)
    assert result.messages[1].content[1] == picture


async def test_pictures_of_the_task_are_still_there_after_replanning() -> None:
    team = lead(ledger(moves=False), "facts 2", "plan 2", DONE, "42", max_stalls=1)
    task = MultiModalMessage(content=["what is this?", picture := Image(PIXEL)], source="user")
    result = await team.run(task=task)
    shown = [message.content[1] for message in result.messages if isinstance(message, MultiModalMessage)]
    assert shown == [picture] * 3


async def test_a_team_can_be_a_member_and_be_led() -> None:
    inner = RoundRobinGroupChat([Counter("p"), Counter("q")], max_turns=2, name="inner")
    model = ReplayChatCompletionClient(["facts", "plan", ledger("inner"), ledger("inner"), DONE, "42"])
    result = await MagenticOneGroupChat([inner, Counter("a")], model).run(task="x")
    assert [message.source for message in result.messages] == ["user", CHIEF, *[CHIEF, "p", "q"] * 2, CHIEF]


async def test_a_led_team_can_be_a_member_itself() -> None:
    inner = lead(ledger("a"), DONE, "42", name="inner")
    result = await RoundRobinGroupChat([speaker("s"), inner], max_turns=2).run(task="x")
    assert [message.source for message in result.messages] == ["user", "s", CHIEF, CHIEF, "a", CHIEF]
    assert "x\ns" in result.messages[2].to_text()


def test_it_is_drawn_with_the_orchestrator_in_the_middle() -> None:
    drawing = lead().to_mermaid()
    assert 'n1(["MagenticOneGroupChat"])' in drawing
    assert "n1 --> n3\n    n3 --> n1" in drawing


# --- a model that is a stranger


def kinds(json_output: bool, structured_output: bool) -> ModelInfo:
    info: Any = ReplayChatCompletionClient([]).model_info
    return info | {"json_output": json_output, "structured_output": structured_output}  # type: ignore[no-any-return]


@pytest.mark.parametrize(("json_output", "structured"), [(True, True), (True, False), (False, False)])
async def test_the_ledger_is_asked_for_in_the_strictest_form_the_client_has(
    json_output: bool, structured: bool
) -> None:
    model = ReplayChatCompletionClient(["facts", "plan", DONE, "42"], model_info=kinds(json_output, structured))
    await lead(model=model).run(task="x")
    form = model.create_calls[2].json_output
    assert isinstance(form, type) if structured else form is (True if json_output else None)
    assert [call.json_output for call in model.create_calls if call.index != 2] == [None] * 3


async def test_the_form_of_the_ledger_admits_members_only() -> None:
    team = lead(DONE, "42")
    await team.run(task="x")
    form = schema(asked(team)[2].json_output)
    matches(form, json.loads(ledger("b")))
    with pytest.raises(DecodeError, match="next_speaker"):
        matches(form, json.loads(ledger("carl")))


@pytest.mark.parametrize(
    "dressed",
    ["```json\n{}\n```", "```\n{}\n```", "Here it is:\n{}\nI hope this helps.", "<think>hm</think>\n{}", "  {}  "],
)
async def test_a_ledger_in_a_fence_or_between_words_is_read(dressed: str) -> None:
    team = lead(dressed.replace("{}", DONE), "42")
    assert (await team.run(task="x")).stop_reason == SATISFIED
    assert len(asked(team)) == 4


def without(key: str) -> str:
    return json.dumps({name: value for name, value in json.loads(ledger()).items() if name != key})


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        ("no idea", "not JSON: Expecting value at character 0, before 'no idea'"),
        ("", "not JSON"),
        ("[]", "expected an object"),
        (ledger("carl"), """$.next_speaker.answer: expected one of "a", "b", found the string 'carl'"""),
        (without("is_in_loop"), "$.is_in_loop: this key is missing"),
        (ledger().replace("true", '"yes"'), "$.is_progress_being_made.answer"),
        ([FunctionCall("1", "{}", "nonsense")], "not JSON"),
    ],
    ids=["words", "nothing", "an array", "a stranger", "a missing key", "text for a boolean", "a tool call"],
)
async def test_a_ledger_that_cannot_be_used_is_asked_for_again_with_the_exact_error(reply: Any, problem: str) -> None:
    team = lead(reply, ledger("b"), DONE, "42")
    result = await team.run(task="x")
    assert lines(result)[2:4] == [f"{CHIEF}: go on", "b: b 1"]
    assert problem in str(asked(team)[3].messages[-1].content)
    assert len(asked(team)[4].messages) == 4, "the correction is forgotten with the next ledger"


async def test_nonsense_for_ever_ends_in_the_stated_fallback(caplog: pytest.LogCaptureFixture) -> None:
    def nonsense(request: ReplayRequest) -> str:
        return "nonsense"

    team = lead(model=ReplayChatCompletionClient(nonsense), max_turns=3, max_stalls=9)
    with caplog.at_level(logging.WARNING, "tinygen.teams"):
        result = await team.run(task="x")
    go_on = f"{CHIEF}: {GO_ON}"
    assert lines(result)[2:] == [go_on, "a: a 1", go_on, "b: b 1", go_on, "a: a 2", f"{CHIEF}: nonsense"]
    assert len(asked(team)) == 2 + 3 * ATTEMPTS + 1
    assert "no progress ledger it could use in 10 attempts: $: not JSON" in caplog.text


async def test_corrections_do_not_pile_up_in_the_request() -> None:
    team = lead(*["nonsense"] * 5, DONE, "42")
    await team.run(task="x")
    assert [len(call.messages) for call in asked(team)[2:8]] == [2, 4, 4, 4, 4, 4]


async def test_replies_without_text_do_not_crash_the_team() -> None:
    call = [FunctionCall("1", "{}", "nonsense")]
    result = await lead(model=ReplayChatCompletionClient([call, "", DONE, call])).run(task="x")
    assert lines(result)[-1] == f"{CHIEF}: (no answer)"


async def test_a_failing_member_is_named_and_the_team_can_run_again() -> None:
    error = ValueError("broken")
    flaky = Failing("b", error)
    model = ReplayChatCompletionClient(["facts", "plan", ledger("a"), ledger("b"), ledger("b"), DONE, "42"])
    team = MagenticOneGroupChat([Counter("a"), flaky], model)
    with pytest.raises(AgentFailed, match="agent 'b' failed in turn 2: ValueError: broken") as caught:
        await team.run(task="x")
    assert caught.value.__cause__ is error
    assert lines(caught.value.result)[-2:] == ["a: a 1", f"{CHIEF}: go on"]
    flaky.__class__ = Counter
    assert lines(await team.run())[-2:] == ["b: b 1", f"{CHIEF}: 42"]


async def test_a_task_whose_planning_failed_is_planned_in_the_next_run() -> None:
    model = ReplayChatCompletionClient([ConnectionError("down"), "facts", "plan", DONE, "42"])
    team = lead(model=model)
    with pytest.raises(AgentFailed) as caught:
        await team.run(task=MultiModalMessage(content=["x", Image(PIXEL)], source="user"))
    assert (caught.value.agent, caught.value.turn) == (CHIEF, 1)
    assert isinstance(caught.value.__cause__, ConnectionError)
    result = await team.run()
    assert "The request to be worked on:\n\nx\n" in result.messages[0].to_text()
    assert isinstance(result.messages[0], MultiModalMessage)


def test_cut_short_at_any_step_it_can_be_given_another_task() -> None:
    async def cut(loop: CountingLoop, at: int) -> bool:
        team = MagenticOneGroupChat([telling("a"), telling("b")], ReplayChatCompletionClient(script), max_stalls=2)
        handle = team.start(task="first")
        loop.arm(at, lambda: handle.stop("enough"))
        over = (await handle).stop_reason == SATISFIED
        again = await team.run(task="second")
        assert again.stop_reason == SATISFIED
        assert "second\n\nThe team" in again.messages[1].to_text()
        return over

    for at in range(1, 1000):
        if run_counted(partial(cut, at=at)):
            break
    assert 15 < at < 999


@pytest.mark.parametrize(
    "arguments",
    [{"max_stalls": 0}, {"max_stalls": "3"}, {"max_turns": 0}, {"final_answer_prompt": 5}, {"model": object()}],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(arguments))):
        lead(**arguments)


# --- cost


class Noted(BaseChatMessage):
    """Counts how often it is made into a model's message."""

    made: list[int]

    def to_text(self) -> str:
        return "noted"

    def to_model_message(self) -> UserMessage:
        self.made.append(1)
        return UserMessage(content="noted", source=self.source)


async def test_each_message_is_made_into_the_models_only_once() -> None:
    counts: list[list[int]] = []

    class Telling(Counter):
        async def on_messages(self, messages: Any, cancellation_token: Any) -> Any:
            response = await super().on_messages(messages, cancellation_token)
            response.chat_message = Noted(source=self.name, made=[])
            counts.append(response.chat_message.made)
            return response

    model = ReplayChatCompletionClient(["facts", "plan", *[ledger("a")] * 50, "42"])
    await MagenticOneGroupChat([Telling("a")], model, max_turns=50).run(task="x")
    assert [len(made) for made in counts] == [1] * 50


# --- state


def script(request: ReplayRequest) -> str:
    """A model whose answer depends on the request alone: a stall, new facts, a ledger nobody can read, the end."""
    last = str(request.messages[-1].content)
    versions = [int(number) for number in re.findall(r"facts (\d)", str(request.messages[0].content) + last)]
    if request.json_output is None:
        return f"facts {max(versions, default=0) + 1}"
    told = [message.source for message in request.messages if isinstance(message, UserMessage)]
    turns = told.count("a") + told.count("b")
    course = {
        (1, 0): ledger("a"),
        (1, 1): ledger("b", moves=False),
        (1, 2): ledger("a", moves=False),
        (2, 0): ledger("b", loop=True),
        (2, 1): "nonsense",
        (2, 2): ledger("b"),
    }
    return course.get((max(versions), turns), DONE)


def telling(name: str) -> AssistantAgent:
    """An assistant that says how much it was told."""
    return AssistantAgent(
        name, ReplayChatCompletionClient(lambda request: f"{name} was told {len(request.messages)} things")
    )


def steady(stop_after: int) -> MagenticOneGroupChat:
    model = ReplayChatCompletionClient(script)
    condition = SourceMatchTermination(["nobody"]) | MaxMessageTermination(stop_after)
    return MagenticOneGroupChat([telling("a"), telling("b")], model, max_stalls=2, termination_condition=condition)


async def portrait(team: MagenticOneGroupChat) -> Any:
    """The state of a team, without what is different in every run."""
    state: Any = json.loads(json.dumps(await team.save_state()))
    for message in state["agent_states"][CHIEF]["message_thread"]:
        del message["id"], message["created_at"]
    for name in "ab":
        for message in state["agent_states"][name]["message_buffer"]:
            del message["id"], message["created_at"]
    return state


async def test_saved_after_any_turn_and_loaded_elsewhere_it_goes_on_as_if_nothing_had_been() -> None:
    whole = steady(1000)
    expected = lines(await whole.run(task="x"))
    assert sum(line.startswith(("a: ", "b: ")) for line in expected) == 5
    for stop_after in range(2, len(expected)):
        here, there = steady(stop_after), steady(1000)
        first = lines(await here.run(task="x"))
        await there.load_state(json.loads(json.dumps(await here.save_state())))
        assert first + lines(await there.run()) == expected
        assert await portrait(there) == await portrait(whole)


async def test_the_state_has_autogens_keys_and_says_how_far_it_is() -> None:
    team = lead(ledger("a", moves=False), DONE, "42")
    await team.run(task="x")
    state = (await team.save_state())["agent_states"][CHIEF]
    assert [message["content"] for message in state.pop("message_thread")][1:] == ["go on", "a 1", "42"]
    assert state == {
        "type": "MagenticOneOrchestratorState",
        "version": "1.0.0",
        "current_turn": 0,
        "task": "x",
        "facts": "facts",
        "plan": "plan",
        "n_rounds": 2,
        "n_stalls": 1,
    }


async def test_a_state_of_autogen_loads_and_goes_on() -> None:
    seat = {"type": "ChatAgentContainerState", "version": "1.0.0", "message_buffer": []}
    seat["agent_state"] = {"type": "BaseState", "version": "1.0.0"}
    said = {"source": CHIEF, "models_usage": None, "metadata": {}, "content": "the ledger", "type": "TextMessage"}
    chief = {
        "type": "MagenticOneOrchestratorState",
        "version": "1.0.0",
        "message_thread": [said | {"id": "1", "created_at": "2025-01-01T00:00:00Z"}],
        "current_turn": 0,
        "task": "old task",
        "facts": "f",
        "plan": "p",
        "n_rounds": 3,
        "n_stalls": 0,
    }
    team = lead(model=ReplayChatCompletionClient([ledger("a"), DONE, "42"]))
    await team.load_state(
        {"type": "TeamState", "version": "1.0.0", "agent_states": {"a": seat, "b": seat, CHIEF: chief}}
    )
    assert lines(await team.run()) == [f"{CHIEF}: go on", "a: a 1", f"{CHIEF}: 42"]
    assert "old task" in str(asked(team)[0].messages[-1].content)


@pytest.mark.parametrize("damage", [{"n_rounds": "3"}, {"task": None}, {"plan": 5}, {"hidden": 1}, {"unread": [1]}])
async def test_a_damaged_state_is_refused_and_nothing_changes(damage: dict[str, Any]) -> None:
    team = lead(DONE, "42")
    await team.run(task="x")
    before = await team.save_state()
    broken = json.loads(json.dumps(before))
    broken["agent_states"][CHIEF].update(damage)
    with pytest.raises(StateError, match=next(iter(damage))):
        await team.load_state(broken)
    assert await team.save_state() == before


async def test_reset_forgets_the_task() -> None:
    team = lead(DONE, "42")
    await team.run(task="x")
    await team.reset()
    with pytest.raises(ConfigError, match="no task to go on with"):
        await team.run()


def with_a_person(*replies: Any) -> MagenticOneGroupChat:
    return MagenticOneGroupChat(
        [telling("a"), UserProxyAgent("ann", input_func=suspend)], ReplayChatCompletionClient(list(replies))
    )


@pytest.mark.parametrize("turn", [1, 2])
async def test_a_run_suspended_by_a_member_goes_on_elsewhere_and_asks_the_model_nothing_twice(turn: int) -> None:
    before = ["facts", "plan", *[ledger("a")] * (turn - 1), ledger("ann", say="may I?")]
    here = with_a_person(*before)
    result = await here.run(task="x")
    assert [question.source for question in result.pending] == ["ann"]
    assert len(asked(here)) == len(before)

    there = with_a_person(DONE, "42")
    await there.load_state(json.loads(json.dumps(await here.save_state())))
    there.answer(result.pending[0].id, "yes")
    end = lines(await there.run(task="x"))
    assert end[0:2] == ["user: x", f"{CHIEF}: ledger"]
    assert end[-4:] == [f"{CHIEF}: may I?", "ann: ", "ann: yes", f"{CHIEF}: 42"]
    assert len(asked(there)) == 2


async def test_a_replanned_turn_that_is_suspended_is_taken_back_whole() -> None:
    stall = ledger("a", moves=False)
    before = ["facts", "plan", ledger("a"), stall, "facts 2", "plan 2", ledger("ann")]
    here = MagenticOneGroupChat(
        [telling("a"), UserProxyAgent("ann", input_func=suspend)],
        ReplayChatCompletionClient([*before, DONE, "42"]),
        max_stalls=1,
    )
    result = await here.run(task="x")
    state = (await here.save_state())["agent_states"][CHIEF]
    assert (state["facts"], len(state["message_thread"])) == ("facts", 3)
    here.answer(result.pending[0].id, "yes")
    assert lines(await here.run(task="x"))[-2:] == ["ann: yes", f"{CHIEF}: 42"]
    assert len(asked(here)) == len(before) + 2


async def test_sessions_of_one_definition_share_nothing() -> None:
    team = lead(model=ReplayChatCompletionClient(script))
    twin = team.session()
    await team.run(task="x")
    with pytest.raises(ConfigError, match="no task to go on with"):
        await twin.run()


async def test_a_document_with_autogens_names_makes_the_team() -> None:
    member = AssistantAgent("a", ReplayChatCompletionClient(["done"]))
    team = MagenticOneGroupChat([member], ReplayChatCompletionClient(["facts", "plan", ledger("a"), DONE, "42"]))
    document = team.dump_component().model_dump(exclude_none=True)
    document["provider"] = "autogen_agentchat.teams.MagenticOneGroupChat"
    loaded = MagenticOneGroupChat.load_component(document)
    assert lines(await loaded.run(task="x")) == lines(await team.run(task="x"))
