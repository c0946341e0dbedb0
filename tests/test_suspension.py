"""A run that cannot go on until somebody answers: rolled back, saved, executed again, and the same in the end."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from agents_for_tests import Counter, echo, speaker
from tinygen import (
    AssistantAgent,
    AssistantMessage,
    BaseStreamTool,
    BaseToolWithState,
    ConfigError,
    FunctionalTermination,
    FunctionCall,
    FunctionExecutionResultMessage,
    ListMemory,
    MaxMessageTermination,
    MemoryContent,
    ReplayChatCompletionClient,
    ReplayRequest,
    Response,
    RoundRobinGroupChat,
    RunDiverged,
    RunLimits,
    SingleThreadedAgentRuntime,
    StateError,
    Suspended,
    TaskResult,
    TerminationCondition,
    TextMessage,
    UserProxyAgent,
    effect,
    suspend,
)

CALLS: list[str] = []


async def approved(action: str) -> str:
    """Does something, once a person has allowed it."""

    async def nobody_there() -> str:
        raise Suspended

    answer = await effect("input", {"allow": action}, nobody_there, str, name="approval")
    return f"{action}: {answer}"


async def note(text: str) -> str:
    """Writes something down."""

    async def write() -> str:
        CALLS.append(text)
        return text

    return await effect("write", text, write, str)


def reply(request: ReplayRequest) -> Any:
    """A model: two notes and two questions side by side, then a summary of the results."""
    CALLS.append("model")
    last = request.messages[-1]
    if isinstance(last, FunctionExecutionResultMessage):
        return " | ".join(result.content for result in last.content)
    wanted = [
        ("note", "text", "n1"),
        ("approved", "action", "a1"),
        ("note", "text", "n2"),
        ("approved", "action", "a2"),
    ]
    return [FunctionCall(str(at), json.dumps({key: value}), name) for at, (name, key, value) in enumerate(wanted)]


def make_team() -> RoundRobinGroupChat:
    worker = AssistantAgent(
        "worker", ReplayChatCompletionClient(reply), tools=[note, approved], reflect_on_tool_use=True
    )
    inner = RoundRobinGroupChat([worker, Counter("count")], max_turns=2, name="inner")
    return RoundRobinGroupChat(
        [speaker("a"), inner, UserProxyAgent("user", input_func=suspend)],
        max_turns=4,
        termination_condition=MaxMessageTermination(100),
    )


def said(result: TaskResult) -> list[tuple[str, str, str]]:
    return [(message.type, message.source, message.to_text()) for message in result.messages]


async def answered(team: RoundRobinGroupChat, *, elsewhere: bool) -> TaskResult:
    """Run to the end, answering one question at a time; from a saved document each time if `elsewhere`."""
    result = await team.run(task="go")
    while result.pending:
        if elsewhere:
            document = json.dumps(await team.save_state())
            team = make_team()
            await team.load_state(json.loads(document))
        team.answer(result.pending[0].id, "yes")
        result = await team.run(task="go")
    return result


@pytest.mark.parametrize("elsewhere", [False, True], ids=["same object", "another process's object"])
async def test_a_suspended_run_ends_as_if_it_had_never_stopped(elsewhere: bool) -> None:
    CALLS.clear()
    result = await answered(make_team(), elsewhere=elsewhere)
    assert result.stop_reason == "Maximum number of turns 4 reached."
    assert [(source, text) for kind, source, text in said(result) if kind == "TextMessage"] == [
        ("user", "go"),
        ("a", "a"),
        ("worker", "n1 | a1: yes | n2 | a2: yes"),
        ("count", "count 1"),
        ("user", "yes"),
        ("a", "a"),
    ]
    assert sorted(CALLS) == ["model", "model", "n1", "n2"]


async def test_a_suspended_run_names_every_question_and_rolls_the_open_turn_back() -> None:
    team = make_team()
    result = await team.run(task="go")
    assert result.stop_reason == "input required"
    assert [(question.kind, question.content) for question in result.pending] == [
        ("input", {"allow": "a1"}),
        ("input", {"allow": "a2"}),
    ]
    assert [text for _, _, text in said(result)] == ["go", "a"]
    assert [message.to_text() for message in team._thread] == ["go", "a"]


async def test_running_again_without_an_answer_waits_for_the_same_questions() -> None:
    team = make_team()
    first, second = await team.run(task="go"), await team.run()
    assert [question.id for question in first.pending] == [question.id for question in second.pending]


async def test_ids_and_times_are_the_same_when_a_turn_is_executed_again() -> None:
    team, seen = make_team(), []
    for _ in range(2):
        async for item in team.run_stream(task="go"):
            if not isinstance(item, TaskResult) and item.type == "ToolCallRequestEvent":
                seen.append((item.id, item.created_at))
    assert len(seen) == 2
    assert seen[0] == seen[1]


async def test_another_task_is_refused_while_the_run_is_suspended() -> None:
    team = make_team()
    await team.run(task="go")
    with pytest.raises(ConfigError, match="suspended in another task"):
        await team.run(task="something else")


async def test_reset_gives_a_suspended_run_up() -> None:
    team = make_team()
    await team.run(task="go")
    await team.reset()
    assert (await team.run(task="other")).messages[0].to_text() == "other"


async def test_an_answer_to_no_question_is_refused() -> None:
    team = make_team()
    with pytest.raises(StateError, match="is not suspended"):
        team.answer("x", "yes")
    await team.run(task="go")
    with pytest.raises(StateError, match="no such question"):
        team.answer("x", "yes")


async def test_a_turn_that_asks_for_something_else_the_second_time_diverges() -> None:
    moods = iter(["first", "second"])

    async def moody() -> str:
        """Asks something new each time."""
        mood = next(moods)
        await effect("note", mood, lambda: asyncio.sleep(0, mood), str)
        return await approved("x")

    model = ReplayChatCompletionClient(lambda request: [FunctionCall("1", "{}", "moody")])
    agent = AssistantAgent("a", model, tools=[moody])
    result = await agent.run(task="go")
    agent.answer(result.pending[0].id, "yes")
    with pytest.raises(RunDiverged, match="its note request is not the one that was recorded"):
        await agent.run(task="go")


async def test_a_limit_counts_what_was_used_before_the_suspension() -> None:
    team = make_team()
    limits = RunLimits(model_calls=2)
    result = await team.run(task="go", limits=limits)
    while result.pending:
        team.answer(result.pending[0].id, "yes")
        result = await team.run(task="go", limits=limits)
    assert result.stop_reason == "limit reached: model_calls (2 of 2)"


class Dice(Counter):
    """An agent whose turns cannot be repeated."""

    opaque = True

    async def save_state(self) -> Any:
        return {"count": self._count}

    async def load_state(self, state: Any) -> None:
        self._count = state["count"]


async def test_a_suspended_agent_is_asked_again_with_the_same_call() -> None:
    agent = UserProxyAgent("user", input_func=suspend)
    first = await agent.run(task="hello?")
    agent.answer(first.pending[0].id, "hi")
    assert [text for _, _, text in said(await agent.run(task="hello?"))] == ["hello?", "", "hi"]


async def test_an_opaque_agents_turn_is_one_effect_and_is_not_taken_twice() -> None:
    dice = Dice("dice")

    class Pair(RoundRobinGroupChat):
        async def select_speakers(self, thread: Any) -> list[str]:
            return ["dice", "user"]

    team = Pair([dice, UserProxyAgent("user", input_func=suspend)], max_turns=1)
    result = await team.run(task="go")
    assert dice._count == 0
    team.answer(result.pending[0].id, "yes")
    result = await team.run(task="go")
    assert [text for _, _, text in said(result) if text] == ["go", "dice 1", "yes"]
    assert dice._count == 1


async def test_an_agent_that_swallows_the_suspension_does_not_hide_it() -> None:
    class Swallows(UserProxyAgent):
        async def on_messages_stream(self, messages: Any, cancellation_token: Any) -> Any:
            try:
                async for item in super().on_messages_stream(messages, cancellation_token):
                    yield item
            except BaseException:
                raise ValueError("never mind") from None

    result = await RoundRobinGroupChat([Swallows("user", input_func=suspend)]).run(task="go")
    assert result.stop_reason == "input required"


def test_the_error_of_divergence_says_where() -> None:
    assert "at 'team/turn 1/a@1'" in str(RunDiverged("team/turn 1/a@1", "model"))


async def test_what_a_tool_ran_is_taken_back_too() -> None:
    asked = UserProxyAgent("user", input_func=suspend)
    inner = RoundRobinGroupChat([speaker("s"), asked], termination_condition=MaxMessageTermination(3), name="inner")

    async def ask_team(task: str) -> str:
        """Asks a team."""
        return " / ".join(message.to_text() for message in (await inner.run(task=task)).messages)

    model = ReplayChatCompletionClient([[FunctionCall("1", '{"task": "hi"}', "ask_team")]])
    agent = AssistantAgent("a", model, tools=[ask_team])
    result = await agent.run(task="go")
    agent.answer(result.pending[0].id, "yes")
    assert (await agent.run(task="go")).messages[-1].to_text() == "hi / s /  / yes"


class Listing(Counter):
    """Keeps a list, and asks about it."""

    async def on_messages(self, messages: Any, cancellation_token: Any) -> Any:
        self.heard.append("turn")

        async def nobody_there() -> str:
            raise Suspended

        answer = await effect("input", {"heard": list(self.heard)}, nobody_there, str, name=self.name)
        response = await super().on_messages(messages, cancellation_token)
        response.chat_message.content = answer
        return response


async def test_an_agents_own_lists_and_counters_are_taken_back() -> None:
    agent = Listing("a")
    result = await agent.run(task="go")
    agent.answer(result.pending[0].id, "yes")
    assert (await agent.run(task="go")).messages[-1].to_text() == "yes"
    assert (agent.heard, agent._count) == (["turn", "go"], 1)


async def test_a_subclass_of_the_assistant_counts_a_turn_once() -> None:
    class Counting(AssistantAgent):
        turns = 0

        async def on_messages_stream(self, messages: Any, cancellation_token: Any) -> Any:
            self.turns += 1
            async for item in super().on_messages_stream(messages, cancellation_token):
                yield item

    model = ReplayChatCompletionClient([[FunctionCall("1", '{"action": "x"}', "approved")]])
    agent = Counting("a", model, tools=[approved])
    result = await agent.run(task="go")
    agent.answer(result.pending[0].id, "yes")
    await agent.run(task="go")
    assert agent.turns == 1


async def test_an_answer_that_is_no_text_is_refused_and_the_run_still_waits() -> None:
    agent = UserProxyAgent("user", input_func=suspend)
    result = await agent.run(task="q")
    with pytest.raises(ConfigError, match="must be text, not 42"):
        agent.answer(result.pending[0].id, 42)
    agent.answer(result.pending[0].id, "yes")
    assert (await agent.run()).messages[-1].to_text() == "yes"


async def test_questions_of_one_place_can_be_answered_in_any_order() -> None:
    class Asks(Counter):
        async def on_messages(self, messages: Any, cancellation_token: Any) -> Any:
            async def nobody_there() -> str:
                raise Suspended

            texts = await asyncio.gather(*(effect("input", n, nobody_there, str, name=n) for n in ("one", "two")))
            response = await super().on_messages(messages, cancellation_token)
            response.chat_message.content = " ".join(texts)
            return response

    agent = Asks("a")
    result = await agent.run(task="go")
    while result.pending:
        agent.answer(result.pending[-1].id, f"for {result.pending[-1].content}")
        result = await agent.run(task="go")
    assert result.messages[-1].to_text() == "for one for two"


async def test_what_a_streaming_tool_said_is_said_again() -> None:
    class Chatty(BaseStreamTool[Any, Any, str]):
        def __init__(self) -> None:
            super().__init__(dict, str, "chatty", "says something on the way")

        async def run_stream(self, args: Any, cancellation_token: Any, call_id: str | None = None) -> Any:
            CALLS.append("chatty")
            yield TextMessage(content="on the way", source="chatty")
            yield "done"

    CALLS.clear()
    calls = [FunctionCall("1", "{}", "chatty"), FunctionCall("2", '{"action": "x"}', "approved")]
    agent = AssistantAgent("a", ReplayChatCompletionClient([calls]), tools=[Chatty(), approved])
    result = await agent.run(task="go")
    agent.answer(result.pending[0].id, "yes")
    result = await agent.run(task="go")
    assert [message.type for message in result.messages] == [
        "TextMessage",
        "ToolCallRequestEvent",
        "TextMessage",
        "ToolCallExecutionEvent",
        "ToolCallSummaryMessage",
    ]
    assert CALLS == ["chatty"]


async def test_streamed_pieces_are_recalled_as_they_came() -> None:
    class Pair(RoundRobinGroupChat):
        async def select_speakers(self, thread: Any) -> list[str]:
            return ["a", "user"]

    writer = AssistantAgent("a", ReplayChatCompletionClient(["one two three"]), model_client_stream=True)
    team = Pair([writer, UserProxyAgent("user", input_func=suspend)], max_turns=1)
    result = await team.run(task="go")
    team.answer(result.pending[0].id, "yes")
    pieces = [
        item.content
        async for item in team.run_stream(task="go")
        if not isinstance(item, TaskResult) and item.type == "ModelClientStreamingChunkEvent"
    ]
    assert pieces == ["one ", "two ", "three"]


async def test_time_at_work_before_a_suspension_counts_toward_the_limit() -> None:
    team = make_team()
    await team.run(task="go")
    state = json.loads(json.dumps(await team.save_state()))
    assert state["suspended"]["used"][-1] > 0
    state["suspended"]["used"][-1] = 10.0
    later = make_team()
    await later.load_state(state)
    result = await later.run(task="go", limits=RunLimits(timeout=5))
    assert result.stop_reason == "limit reached: timeout (5 s)"


async def test_a_suspended_run_is_not_lost_when_its_runtime_does_not_run() -> None:
    runtime = SingleThreadedAgentRuntime()
    runtime.start()
    team = RoundRobinGroupChat([UserProxyAgent("user", input_func=suspend)], max_turns=1, runtime=runtime)
    question = (await team.run(task="go")).pending[0]
    await runtime.stop_when_idle()
    team.answer(question.id, "yes")
    with pytest.raises(ConfigError, match="not running"):
        await team.run(task="go")
    runtime.start()
    assert (await team.run(task="go")).messages[-1].to_text() == "yes"
    await runtime.stop_when_idle()


@pytest.mark.parametrize("elsewhere", [False, True], ids=["same object", "another process's object"])
async def test_a_memory_that_was_added_to_before_the_question_does_not_change_what_was_asked(elsewhere: bool) -> None:
    class Notes(ListMemory):
        async def remember(self, text: str) -> str:
            """Remembers."""
            await self.add(MemoryContent(content=text, mime_type="text/plain"))
            return "noted"

    calls = [FunctionCall("1", '{"text": "rain"}', "remember")], [FunctionCall("2", '{"action": "x"}', "approved")]

    def make() -> AssistantAgent:
        notes, model = Notes(), ReplayChatCompletionClient([*calls] if not elsewhere or not made else [])
        made.append(notes)
        return AssistantAgent("a", model, tools=[notes.remember, approved], memory=[notes], max_tool_iterations=2)

    made: list[Notes] = []
    agent = make()
    result = await agent.run(task="go")
    if elsewhere:
        document, agent = json.dumps(await agent.save_state()), make()
        await agent.load_state(json.loads(document))
    agent.answer(result.pending[0].id, "yes")
    assert (await agent.run(task="go")).messages[-1].to_text() == "noted\nx: yes"
    assert [note.content for note in made[-1].content] == ["rain"]


async def test_a_reset_before_the_question_does_not_take_from_tools_what_they_learnt_after_it() -> None:
    class Tally(BaseToolWithState[dict, int, dict]):  # type: ignore[type-arg]
        def __init__(self) -> None:
            super().__init__(dict, int, dict, "tally", "Counts.")
            self.total = 0

        async def run(self, args: Any, cancellation_token: Any) -> int:
            self.total += 1
            return self.total

        def save_state(self) -> Any:
            return {"total": self.total}

        def load_state(self, state: Any) -> None:
            self.total = state["total"]

        async def reset_state(self) -> None:
            self.total = 0

    class Fresh(RoundRobinGroupChat):
        async def conduct(self, floor: Any) -> list[str]:
            if not floor.turns:
                await floor.start_over()
            return ["a", "user"]

    tally = Tally()
    agent = AssistantAgent("a", ReplayChatCompletionClient([[FunctionCall("1", "{}", "tally")]]), tools=[tally])
    team = Fresh([agent, UserProxyAgent("user", input_func=suspend)], max_turns=1)
    question = (await team.run(task="go")).pending[0]
    team.answer(question.id, "yes")
    assert [text for _, _, text in said(await team.run(task="go"))][-1] == "yes"
    assert tally.total == 1


def judged_by_a_person(about: str) -> RoundRobinGroupChat:
    """A team whose condition asks somebody, once this was said, whether it is enough."""

    async def enough(messages: Any) -> bool:
        return about in [message.to_text() for message in messages] and "yes" in await approved("go on")

    def counting(request: ReplayRequest) -> str:
        return str(1 + sum(isinstance(message, AssistantMessage) for message in request.messages))

    members = [AssistantAgent(name, ReplayChatCompletionClient(counting)) for name in ("ann", "bob")]
    condition = MaxMessageTermination(5) | FunctionalTermination(enough)
    return RoundRobinGroupChat(members, name="team", termination_condition=condition)


@pytest.mark.parametrize("elsewhere", [False, True], ids=["same object", "another process's object"])
@pytest.mark.parametrize("within", [False, True], ids=["alone", "in a team"])
@pytest.mark.parametrize("about", ["go", "1"])
async def test_a_condition_that_waits_for_an_answer_has_nothing_said_twice(
    about: str, within: bool, elsewhere: bool
) -> None:
    def make() -> RoundRobinGroupChat:
        team = judged_by_a_person(about)
        return RoundRobinGroupChat([team], max_turns=1) if within else team

    team = make()
    question = (await team.run(task="go")).pending[0]
    if elsewhere:
        document, team = json.dumps(await team.save_state()), make()
        await team.load_state(json.loads(document))
    team.answer(question.id, "no")
    result = await team.run()
    while result.pending:
        team.answer(result.pending[0].id, "no")
        result = await team.run()
    told = ["go", "1", "1", "2", "2"]
    assert [text for _, _, text in said(result)] == told
    assert [message.to_text() for message in team._thread] == told


@pytest.mark.parametrize("conditions", [3, (MaxMessageTermination(9),)])
async def test_a_condition_of_ones_own_that_waits_is_taken_back_whatever_it_calls_its_attributes(
    conditions: Any,
) -> None:
    class Asks(TerminationCondition):
        counters = ("seen",)
        seen = 0

        def __init__(self) -> None:
            self.conditions = conditions

        async def check(self, messages: Any) -> str | None:
            self.seen += len(messages)
            return f"seen {self.seen}" if self.seen == 2 and "yes" in await approved("stop") else None

    team = RoundRobinGroupChat([speaker("a")], termination_condition=Asks(), max_turns=5)
    question = (await team.run(task="go")).pending[0]
    team.answer(question.id, "yes")
    assert (await team.run()).stop_reason == "seen 2"


async def test_what_was_sent_is_not_lost_when_a_condition_waits_for_an_answer_about_it() -> None:
    team = judged_by_a_person("by the way")
    handle = team.start(task="go")
    handle.send("by the way")
    question = (await handle).pending[0]
    team.answer(question.id, "yes")
    result = await team.run()
    assert [text for _, _, text in said(result)] == ["go", "by the way"]
    assert result.stop_reason == "Functional termination condition met"
    assert [message.to_text() for message in team._thread] == ["go", "by the way"]


async def test_two_can_go_on_from_one_saved_run_side_by_side_in_one_runtime() -> None:
    runtime = SingleThreadedAgentRuntime()
    runtime.start()

    def make() -> RoundRobinGroupChat:
        members = [UserProxyAgent("user", input_func=suspend), speaker("a")]
        return RoundRobinGroupChat(members, max_turns=2, runtime=runtime)

    first = make()
    question = (await first.run(task="go")).pending[0]
    document = json.dumps(await first.save_state())

    async def branch(answer: str) -> list[str]:
        team = make()
        await team.load_state(json.loads(document))
        team.answer(question.id, answer)
        return [text for _, _, text in said(await team.run()) if text]

    assert await asyncio.gather(branch("yes"), branch("no")) == [["go", "yes", "a"], ["go", "no", "a"]]
    await runtime.close()


async def test_a_question_that_a_member_of_an_inner_team_swallows_suspends_before_the_next_member_speaks() -> None:
    class Swallows(Counter):
        async def on_messages(self, messages: Any, cancellation_token: Any) -> Any:
            try:
                answer = await approved("go")
            except BaseException:
                answer = "nobody answers"
            return Response(chat_message=TextMessage(content=answer, source=self.name))

    inner = RoundRobinGroupChat([Swallows("a"), AssistantAgent("b", ReplayChatCompletionClient(echo))], max_turns=2)
    team = RoundRobinGroupChat([inner], max_turns=1)
    result = await team.run(task="x")
    assert (result.stop_reason, result.usage.model_calls) == ("input required", 0)

    team.answer(result.pending[0].id, "yes")
    assert [text for _, _, text in said(await team.run())] == ["x", "go: yes", "go: yes"]
