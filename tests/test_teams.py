"""The team engine: who hears what, sessions, state, failures, limits, steering, nesting."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest

from agents_for_tests import Counter, Failing, speaker
from tinygen import (
    AgentFailed,
    AlreadyRunning,
    AssistantAgent,
    BaseGroupChat,
    ConfigError,
    DecodeError,
    ExternalTermination,
    FunctionCall,
    MaxMessageTermination,
    ReplayChatCompletionClient,
    RoundRobinGroupChat,
    RunLimits,
    SingleThreadedAgentRuntime,
    StateError,
    TaskResult,
    TextMentionTermination,
    TextMessage,
)
from tinygen.codec import loads
from tinygen.models import permissive


def texts(result: TaskResult) -> list[str]:
    return [message.to_text() for message in result.messages]


async def test_a_team_goes_on_where_its_last_run_ended() -> None:
    team = RoundRobinGroupChat([Counter("a"), Counter("b")], max_turns=1)
    assert texts(await team.run(task="x")) == ["x", "a 1"]
    assert texts(await team.run()) == ["b 1"]
    assert texts(await team.run(task="y")) == ["y", "a 2"]


async def test_a_member_hears_the_others_once_and_never_itself() -> None:
    a, b = Counter("a"), Counter("b")
    await RoundRobinGroupChat([a, b], max_turns=4).run(task="x")
    assert a.heard == ["x", "b 1"]
    assert b.heard == ["x", "a 1", "a 2"]


async def test_reset_forgets_the_conversation() -> None:
    team = RoundRobinGroupChat([Counter("a"), Counter("b")], max_turns=1)
    await team.run(task="x")
    await team.reset()
    assert texts(await team.run(task="x")) == ["x", "a 1"]


async def test_the_task_itself_can_end_the_run() -> None:
    team = RoundRobinGroupChat([Counter("a")], termination_condition=TextMentionTermination("stop"))
    result = await team.run(task="please stop")
    assert (texts(result), result.stop_reason) == (["please stop"], "Text 'stop' mentioned")


async def test_termination_begins_again_with_every_run() -> None:
    team = RoundRobinGroupChat([Counter("a")], termination_condition=MaxMessageTermination(3))
    first, second = await team.run(task="x"), await team.run(task="y")
    assert len(first.messages) == len(second.messages) == 3


async def test_a_switch_set_before_the_run_stops_it_at_once() -> None:
    switch = ExternalTermination()
    team = RoundRobinGroupChat([Counter("a")], termination_condition=switch, max_turns=1)
    switch.set()
    assert (await team.run(task="x")).stop_reason == "External termination requested"
    assert (await team.run(task="x")).stop_reason == "Maximum number of turns 1 reached."


async def test_two_hundred_sessions_at_once_share_nothing() -> None:
    team = RoundRobinGroupChat(
        [Counter("c"), speaker("a"), speaker("b")], termination_condition=MaxMessageTermination(10)
    )

    async def converse(number: int) -> tuple[int, list[str]]:
        session = team.session()
        said: list[str] = []
        for turn in range(3):
            said += texts(await session.run(task=f"session {number} turn {turn}"))
        models = [
            message for member in session._participants[1:] for message in await member.model_context.get_messages()
        ]  # type: ignore[union-attr]
        return number, said + [str(message.content) for message in models]

    for number, said in await asyncio.gather(*(converse(number) for number in range(200))):
        others = [text for text in said if text.startswith("session") and not text.startswith(f"session {number} ")]
        assert not others
        assert [text for text in said if text.startswith("c ")][:9] == [f"c {n}" for n in range(1, 10)]


async def test_a_live_team_refuses_a_second_run_and_so_do_its_members() -> None:
    member = Counter("a")
    team, other = RoundRobinGroupChat([member], max_turns=50), RoundRobinGroupChat([member], max_turns=1)
    stream = team.run_stream(task="x")
    await stream.__anext__()
    for runner in (team, other, member):
        with pytest.raises(AlreadyRunning, match="is already running"):
            await runner.run(task="y")
    await stream.aclose()
    assert (await other.run(task="y")).stop_reason == "Maximum number of turns 1 reached."


async def test_a_failing_member_is_named_with_its_turn_and_the_result_so_far() -> None:
    error = KeyError("lost")
    team = RoundRobinGroupChat([Counter("a"), Failing("b", error)])
    with pytest.raises(AgentFailed, match="agent 'b' failed in turn 2: KeyError") as caught:
        await team.run(task="x")
    assert caught.value.__cause__ is error
    assert (caught.value.agent, caught.value.turn, texts(caught.value.result)) == ("b", 2, ["x", "a 1"])
    assert isinstance(caught.value, RuntimeError)


async def test_a_team_runs_again_after_a_member_failed() -> None:
    flaky = Failing("b", ValueError("once"))
    team = RoundRobinGroupChat([Counter("a"), flaky], max_turns=2)
    with pytest.raises(AgentFailed):
        await team.run(task="x")
    flaky.__class__ = Counter
    assert (await team.run(task="y")).stop_reason == "Maximum number of turns 2 reached."


async def test_a_member_that_cancels_itself_is_a_failure_not_a_cancellation() -> None:
    team = RoundRobinGroupChat([Failing("a", asyncio.CancelledError())])
    with pytest.raises(AgentFailed, match="agent 'a' failed in turn 1: CancelledError"):
        await team.run(task="x")


async def test_a_nested_failure_names_the_way_to_the_agent() -> None:
    inner = RoundRobinGroupChat([Failing("b", ValueError("deep"))], name="inner")
    with pytest.raises(AgentFailed, match="agent 'inner/b' failed in turn 1: ValueError: deep"):
        await RoundRobinGroupChat([inner]).run(task="x")


@pytest.mark.parametrize(
    ("limits", "reason", "count"),
    [
        (RunLimits(model_calls=2), "limit reached: model_calls (2 of 2)", 3),
        (RunLimits(tokens=3), "limit reached: tokens (", 2),
        (RunLimits(messages=4), "limit reached: messages (4 of 4)", 4),
    ],
)
async def test_a_limit_ends_the_run_with_what_there_is(limits: RunLimits, reason: str, count: int) -> None:
    team = RoundRobinGroupChat([speaker("a"), speaker("b")])
    result = await team.run(task="x", limits=limits)
    assert str(result.stop_reason).startswith(reason)
    assert len(result.messages) == count


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (RunLimits(tokens=2), "limit passed: tokens (3 of 2)"),
        (RunLimits(cost=1), "limit passed: cost (3 of 1)"),
        (RunLimits(tokens=3, cost=3, model_calls=1), None),
    ],
)
async def test_an_agent_whose_only_call_took_more_than_allowed_says_so(limits: RunLimits, reason: str | None) -> None:
    price = {"prompt": 1e6, "completion": 1e6}
    model = ReplayChatCompletionClient(["two words"], model_info={**permissive("unknown"), "price": price})
    result = await AssistantAgent("a", model, system_message=None).run(task="x", limits=limits)
    assert result.stop_reason == reason
    assert result.messages[-1].to_text() == "two words"


async def tick() -> str:
    """Ticks."""
    return "tick"


async def test_a_tool_limit_holds_inside_an_assistants_loop() -> None:
    def again(request: Any) -> Any:
        return [FunctionCall("1", "{}", "tick")]

    agent = AssistantAgent("a", ReplayChatCompletionClient(again), tools=[tick], max_tool_iterations=50)
    result = await agent.run(task="x", limits=RunLimits(tool_calls=3))
    assert result.stop_reason == "limit reached: tool_calls (3 of 3)"


async def test_an_outer_limit_ends_the_outer_run_from_inside_a_nested_team() -> None:
    inner = RoundRobinGroupChat([speaker("p"), speaker("q")], max_turns=50, name="inner")
    team = RoundRobinGroupChat([inner], max_turns=3)
    result = await team.run(task="x", limits=RunLimits(model_calls=5))
    assert result.stop_reason == "limit reached: model_calls (5 of 5)"
    assert len(result.messages) == 6


async def test_a_cost_limit_without_a_price_is_refused_before_anything_is_spent() -> None:
    model = ReplayChatCompletionClient(["a"])
    with pytest.raises(ConfigError, match="price"):
        await AssistantAgent("a", model).run(task="x", limits=RunLimits(cost=1.0))
    assert not model.create_calls


async def test_the_result_counts_the_tokens_of_every_model_call() -> None:
    result = await RoundRobinGroupChat([speaker("a", "one two"), speaker("b", "three")], max_turns=2).run(task="x")
    assert result.usage.completion_tokens == 3
    assert result.usage.prompt_tokens > 0


async def test_a_handle_stops_a_run_and_gives_its_result() -> None:
    handle = RoundRobinGroupChat([Counter("a")]).start(task="x")
    async for event in handle:
        if event.kind == "message" and event.data["message"].to_text() == "a 3":
            handle.stop("enough")
    result = await handle
    assert result.stop_reason == "enough"
    assert texts(result)[:4] == ["x", "a 1", "a 2", "a 3"]


async def test_what_is_sent_to_a_running_team_is_heard_between_turns() -> None:
    member = Counter("a")
    handle = RoundRobinGroupChat([member], termination_condition=TextMentionTermination("a 9")).start(task="x")
    handle.send("hurry")
    await handle
    assert member.heard == ["x", "hurry"]


async def test_a_paused_team_takes_no_turn_until_it_is_resumed() -> None:
    member = Counter("a")
    handle = RoundRobinGroupChat([member], max_turns=2).start(task="x")
    handle.pause()
    for _ in range(50):
        await asyncio.sleep(0)
    assert member._count == 0
    handle.resume()
    assert len((await handle).messages) == 3


async def test_the_handle_tells_one_nested_tree_of_events() -> None:
    handle = RoundRobinGroupChat([speaker("a")], max_turns=1).start(task="x")
    events = [event async for event in handle]
    await handle
    by_id = {event.id: event for event in events if event.phase == "start"}
    model = next(event for event in events if event.kind == "model" and event.phase == "start")
    agent, run = by_id[str(model.parent)], by_id[str(by_id[str(model.parent)].parent)]
    assert (agent.kind, agent.name, run.kind, run.parent) == ("agent", "a", "run", None)
    ended = [event for event in events if event.phase == "end"]
    assert [event.kind for event in ended] == ["model", "agent", "run"]
    assert all(event.duration is not None for event in ended)


async def test_a_shared_runtime_keeps_no_seat_after_the_run() -> None:
    runtime = SingleThreadedAgentRuntime()
    runtime.start()
    teams = [RoundRobinGroupChat([Counter("a"), Counter("b")], max_turns=4, runtime=runtime) for _ in range(20)]
    results = await asyncio.gather(*(team.run(task="x") for team in teams))
    assert all(texts(result) == ["x", "a 1", "b 1", "a 2", "b 2"] for result in results)
    assert not await runtime.save_state()
    await runtime.stop_when_idle()


async def test_a_shared_runtime_that_does_not_run_is_refused() -> None:
    team = RoundRobinGroupChat([Counter("a")], runtime=SingleThreadedAgentRuntime())
    with pytest.raises(ConfigError, match=r"not running; call start\(\)"):
        await team.run(task="x")


def test_run_sync_needs_no_event_loop() -> None:
    assert texts(RoundRobinGroupChat([Counter("a")], max_turns=1).run_sync(task="x")) == ["x", "a 1"]


async def test_run_sync_works_inside_a_running_loop() -> None:
    assert texts(RoundRobinGroupChat([Counter("a")], max_turns=1).run_sync(task="x")) == ["x", "a 1"]


@pytest.mark.parametrize("arguments", [{"participants": []}, {"participants": "ab"}, {"participants": [1]}])
def test_a_team_of_anything_but_agents_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        RoundRobinGroupChat(**arguments)


def test_two_members_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="two participants named 'a'"):
        RoundRobinGroupChat([Counter("a"), Counter("a")])


def test_a_member_with_the_name_of_the_manager_is_refused() -> None:
    # its state would stand in the place of the manager's
    with pytest.raises(ConfigError, match="keeps the name 'RoundRobinGroupChatManager' for itself"):
        RoundRobinGroupChat([Counter("RoundRobinGroupChatManager")])


@pytest.mark.parametrize("task", [[], 5, [1], {"a": 1}])
async def test_a_task_of_another_kind_is_refused(task: Any) -> None:
    with pytest.raises(ConfigError, match="task"):
        await RoundRobinGroupChat([Counter("a")]).run(task=task)


class Loudest(BaseGroupChat):
    """A policy in a few lines: whoever is named loudest speaks."""

    async def select_speakers(self, thread: Any) -> list[str]:
        return [thread[-1].to_text().split()[0]]


async def test_a_policy_that_names_nobody_known_is_told_whom_it_could_mean() -> None:
    with pytest.raises(ConfigError, match=r"no participant 'anne'.*did you mean 'anna'"):
        await Loudest([Counter("anna")]).run(task="anne")


class Both(BaseGroupChat):
    async def select_speakers(self, thread: Any) -> list[str]:
        return ["b", "a"]


async def test_speakers_side_by_side_are_heard_in_the_order_they_were_named() -> None:
    a, b = Counter("a"), Counter("b")
    team = Both([a, b], max_turns=2, termination_condition=MaxMessageTermination(5))
    result = await team.run(task="x")
    assert a.heard == ["x", "b 1"]
    assert [message.to_text() for message in team._thread] == ["x", "b 1", "a 1", "b 2", "a 2"]
    assert result.stop_reason == "Maximum number of messages 5 reached, current message count: 5"


# --- state


def saved_team() -> RoundRobinGroupChat:
    return RoundRobinGroupChat(
        [speaker("a"), speaker("b")], max_turns=3, termination_condition=MaxMessageTermination(50)
    )


async def test_a_saved_team_goes_on_elsewhere_as_if_it_had_never_stopped() -> None:
    here, undisturbed = saved_team(), saved_team()
    await here.run(task="x")
    document = json.dumps(await here.save_state())
    there = saved_team()
    await there.load_state(json.loads(document))
    await undisturbed.run(task="x")
    assert texts(await there.run(task="y")) == texts(await undisturbed.run(task="y"))


async def test_the_state_has_autogens_shape() -> None:
    team = RoundRobinGroupChat([speaker("a")], max_turns=1)
    await team.run(task="x")
    state = await team.save_state()
    assert set(state) == {"type", "version", "agent_states"}
    assert set(state["agent_states"]) == {"a", "RoundRobinGroupChatManager"}
    manager = state["agent_states"]["RoundRobinGroupChatManager"]
    assert (manager["type"], manager["current_turn"], manager["next_speaker_index"]) == ("RoundRobinManagerState", 0, 0)
    assert [message["type"] for message in manager["message_thread"]] == ["TextMessage", "TextMessage"]
    container = state["agent_states"]["a"]
    assert container["type"] == "ChatAgentContainerState"
    assert [message["type"] for message in container["agent_state"]["llm_context"]["messages"]] == [
        "UserMessage",
        "AssistantMessage",
    ]


async def test_a_state_of_other_participants_is_refused_by_name() -> None:
    state = await RoundRobinGroupChat([speaker("a")]).save_state()
    with pytest.raises(StateError, match="Agent state for b not found"):
        await RoundRobinGroupChat([speaker("b")]).load_state(state)


async def test_a_failed_load_changes_nothing() -> None:
    team = saved_team()
    await team.run(task="x")
    before = await team.save_state()
    broken = json.loads(json.dumps(before))
    broken["agent_states"]["b"]["agent_state"]["llm_context"]["messages"][0]["type"] = "Nonsense"
    with pytest.raises(StateError):
        await team.load_state(broken)
    assert await team.save_state() == before


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, item in inner for found in places(item, (*path, key)))]


@pytest.mark.parametrize("damage", [None, 7, "x", [], {}, [[]], {"type": "TextMessage"}])
async def test_a_damaged_state_loads_whole_or_not_at_all(damage: Any) -> None:
    team = saved_team()
    await team.run(task="x")
    document = json.dumps(await team.save_state())
    for path in places(json.loads(document)):
        state = json.loads(document)
        if path:
            holder = state
            for key in path[:-1]:
                holder = holder[key]
            holder[path[-1]] = damage
        else:
            state = damage
        target = saved_team()
        before = await target.save_state()
        try:
            await target.load_state(state)
        except StateError:
            assert await target.save_state() == before
        else:
            await target.run(task="y")


async def test_text_cut_anywhere_is_no_state() -> None:
    team = saved_team()
    await team.run(task="x")
    text = json.dumps(await team.save_state())
    for at in range(len(text)):
        with pytest.raises(DecodeError):
            loads(text[:at])


async def test_a_state_with_a_flipped_bit_loads_whole_or_not_at_all() -> None:
    team = saved_team()
    await team.run(task="x")
    data = json.dumps(await team.save_state()).encode()
    dice = random.Random(1)
    target = saved_team()
    before = await target.save_state()
    refused = 0
    for _ in range(600):
        broken = bytearray(data)
        broken[dice.randrange(len(broken))] ^= 1 << dice.randrange(8)
        try:
            await target.load_state(loads(bytes(broken)))
        except DecodeError:
            refused += 1
            assert await target.save_state() == before
        else:
            target, before = saved_team(), await saved_team().save_state()
    assert refused > 100


async def test_a_message_from_before_is_never_handed_over_twice() -> None:
    member = Counter("a")
    team = RoundRobinGroupChat([member], max_turns=1)
    token_run = asyncio.ensure_future(team.run(task="x"))
    while not member._live:
        await asyncio.sleep(0)
    for _ in range(4):
        await asyncio.sleep(0)
    token_run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await token_run
    await team.run(task=TextMessage(content="y", source="u"))
    assert member.heard.count("x") <= 1


async def test_an_agent_may_sit_in_a_team_and_in_the_team_within() -> None:
    agent = Counter("a")
    inner = RoundRobinGroupChat([agent, Counter("b")], max_turns=1, name="inner")
    team = RoundRobinGroupChat([agent, inner], max_turns=2)
    for _ in range(3):
        await team.run(task="x")
    assert agent._live is None


async def test_a_member_of_a_nested_team_is_refused_while_it_runs_alone() -> None:
    member = Counter("p")
    team = RoundRobinGroupChat([RoundRobinGroupChat([member], name="inner")])
    stream = RoundRobinGroupChat([member]).run_stream(task="x")
    await stream.__anext__()
    with pytest.raises(AlreadyRunning, match="'p' is already running"):
        await team.run(task="x")
    await stream.aclose()


class Scripted(BaseGroupChat):
    """Lets those speak who are named in `script`."""

    def __init__(self, participants: Any, script: list[Any], **arguments: Any) -> None:
        super().__init__(participants, **arguments)
        self.script = list(script)

    async def select_speakers(self, thread: Any) -> Any:
        return self.script.pop(0)


async def test_nobody_speaks_twice_side_by_side() -> None:
    with pytest.raises(ConfigError, match="twice side by side"):
        await Scripted([Counter("a")], [["a", "a"]]).run(task="x")


async def test_a_policy_may_name_one_speaker_as_text() -> None:
    result = await Scripted([Counter("anna")], ["anna"], max_turns=1).run(task="x")
    assert texts(result) == ["x", "anna 1"]


async def test_the_result_is_in_the_order_of_names_whoever_was_faster() -> None:
    gate = asyncio.Event()

    class Slow(Counter):
        async def on_messages(self, messages: Any, cancellation_token: Any) -> Any:
            await gate.wait()
            return await super().on_messages(messages, cancellation_token)

    class Fast(Counter):
        async def on_messages(self, messages: Any, cancellation_token: Any) -> Any:
            gate.set()
            return await super().on_messages(messages, cancellation_token)

    result = await Scripted([Slow("slow"), Fast("fast")], [["slow", "fast"]], max_turns=1).run(task="x")
    assert texts(result) == ["x", "slow 1", "fast 1"]


async def test_what_is_sent_too_late_is_heard_in_the_next_run() -> None:
    member = Counter("a")
    team = RoundRobinGroupChat([member], max_turns=1)
    handle = team.start(task="x")
    async for event in handle:
        if event.kind == "message" and event.name == "TextMessage" and event.data["message"].source == "a":
            handle.send("late")
    await handle
    await team.run()
    assert member.heard == ["x", "late"]


async def test_an_agents_handle_takes_no_messages() -> None:
    handle = Counter("a").start(task="x")
    with pytest.raises(ConfigError, match="'a' is an agent"):
        handle.send("hurry")
    await handle


async def test_a_paused_team_pauses_the_teams_within() -> None:
    member = Counter("p")
    team = RoundRobinGroupChat([RoundRobinGroupChat([member], max_turns=9, name="inner")], max_turns=1)
    handle = team.start(task="x")
    async for event in handle:
        if event.kind == "message" and event.data["message"].to_text() == "p 2":
            handle.pause()
            break
    for _ in range(100):
        await asyncio.sleep(0)
    assert member._count <= 3
    handle.resume()
    assert len((await handle).messages) == 10


async def test_a_run_refused_for_its_runtime_has_delivered_nothing() -> None:
    runtime, member = SingleThreadedAgentRuntime(), Counter("a")
    team = RoundRobinGroupChat([member], runtime=runtime, max_turns=1)
    with pytest.raises(ConfigError, match="not running"):
        await team.run(task="x")
    runtime.start()
    await team.run(task="y")
    assert member.heard == ["y"]
    await runtime.stop_when_idle()


@pytest.mark.parametrize(
    "arguments", [{"limits": {"timeout": 1}}, {"cancellation_token": "stop"}, {"limits": "none"}, {"limits": 3}]
)
async def test_wrong_arguments_of_a_run_are_refused_and_lock_nothing(arguments: dict[str, Any]) -> None:
    team = RoundRobinGroupChat([Counter("a")], max_turns=1)
    with pytest.raises(ConfigError, match=next(iter(arguments))):
        await team.run(task="x", **arguments)
    assert texts(await team.run(task="y")) == ["y", "a 1"]


@pytest.mark.parametrize("limits", [{"timeout": "x"}, {"tokens": -1}, {"messages": True}, {"cost": float("nan")}])
def test_a_limit_that_is_no_number_is_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="must be a number"):
        RunLimits(**limits)


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_turns": "3"},
        {"max_turns": 1.5},
        {"max_turns": 0},
        {"termination_condition": 1},
        {"runtime": 5},
        {"name": 5},
    ],
)
def test_wrong_arguments_of_a_team_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        RoundRobinGroupChat([Counter("a")], **arguments)


async def test_a_limit_holds_for_an_agent_that_a_tool_runs() -> None:
    inner = RoundRobinGroupChat([speaker("p")], name="inner")

    async def ask() -> str:
        """Runs a team."""
        return str((await inner.run(task="x")).stop_reason)

    agent = AssistantAgent("a", ReplayChatCompletionClient([[FunctionCall("1", "{}", "ask")]]), tools=[ask])
    result = await agent.run(task="go", limits=RunLimits(model_calls=4))
    assert result.stop_reason == "limit reached: model_calls (4 of 4)"


async def test_two_runs_begun_at_once_on_one_team_are_not_both_let_in() -> None:
    class Saving(Counter):
        async def save_state(self) -> Any:
            await asyncio.sleep(0)
            return {"count": self._count}

        async def load_state(self, state: Any) -> None:
            self._count = state["count"]

    inner = RoundRobinGroupChat([Saving("s")], max_turns=1, name="inner")

    async def ask() -> str:
        """Runs a team."""
        return (await inner.run(task="x")).messages[-1].to_text()

    calls = [FunctionCall(str(at), "{}", "ask") for at in range(2)]
    result = await AssistantAgent("a", ReplayChatCompletionClient([calls]), tools=[ask]).run(task="go")
    first, second = result.messages[-1].to_text().split("\n")
    assert first == "s 1"
    assert second.startswith("'inner' is already running")
