"""A team as one agent: its talk is part of the run, its answer alone is heard, and its work is part of the state."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from agents_for_tests import Counter, Failing, speaker
from tinygen import (
    AgentFailed,
    AssistantAgent,
    BufferedChatCompletionContext,
    CancellationToken,
    ConfigError,
    FunctionCall,
    HandoffMessage,
    HandoffTermination,
    Image,
    MaxMessageTermination,
    ModelInfo,
    MultiModalMessage,
    ReplayChatCompletionClient,
    ReplayRequest,
    RequestUsage,
    Response,
    RoundRobinGroupChat,
    RunLimits,
    SocietyOfMindAgent,
    StateError,
    Suspended,
    Swarm,
    SystemMessage,
    TaskResult,
    TextMentionTermination,
    TextMessage,
    UserMessage,
    UserProxyAgent,
    suspend,
)


def history(request: ReplayRequest) -> str:
    """A model that says all it was ever told, but its instructions."""
    return "+".join(str(message.content) for message in request.messages[1:])


def society(*script: Any, team: Any = None, **arguments: Any) -> SocietyOfMindAgent:
    inner = team or RoundRobinGroupChat([speaker("p"), speaker("q")], max_turns=2)
    return SocietyOfMindAgent("som", inner, ReplayChatCompletionClient(list(script or ["answer"] * 9)), **arguments)


def texts(result: TaskResult) -> list[str]:
    return [f"{message.source}: {message.to_text()}" for message in result.messages if message.type == "TextMessage"]


async def test_run_and_run_stream_leave_the_same_messages() -> None:
    streamed = [item async for item in society().run_stream(task="go")][-1]
    assert isinstance(streamed, TaskResult)
    assert texts(streamed) == texts(await society().run(task="go")) == ["user: go", "p: p", "q: q", "som: answer"]


async def test_what_the_team_says_is_in_the_response() -> None:
    response = await society().on_messages([TextMessage(content="go", source="user")], CancellationToken())
    assert [message.source for message in response.inner_messages or ()] == ["p", "q"]


async def test_the_model_is_shown_the_request_and_what_was_said() -> None:
    model = ReplayChatCompletionClient(["answer"])
    team = RoundRobinGroupChat([speaker("p")], max_turns=1)
    await SocietyOfMindAgent("som", team, model, instruction="Before.", response_prompt="After.").run(task="go")
    assert model.create_calls[0].messages == [
        SystemMessage(content="Before."),
        UserMessage(content="go", source="user"),
        UserMessage(content="p", source="p"),
        SystemMessage(content="After."),
    ]


async def test_a_model_with_one_system_message_gets_the_prompts_as_said_by_the_agent() -> None:
    info: ModelInfo = {**ReplayChatCompletionClient([]).model_info, "multiple_system_messages": False, "vision": False}
    model = ReplayChatCompletionClient(["answer"], model_info=info)
    agent = SocietyOfMindAgent("som", RoundRobinGroupChat([speaker("p")], max_turns=1), model, instruction="Before.")
    picture = Image(b"\x89PNG\r\n\x1a\n")
    await agent.run(task=MultiModalMessage(content=["look", picture], source="user"))
    assert model.create_calls[0].messages[:2] == [
        UserMessage(content="Before.", source="som"),
        UserMessage(content="look\n<image>", source="user"),
    ]


async def test_the_answer_says_what_it_cost() -> None:
    result = await society("one two three").run(task="go")
    used = result.messages[-1].models_usage
    assert used is not None
    assert used.completion_tokens > 0
    assert result.usage != used  # that of the run counts the team too
    assert isinstance(result.usage, RequestUsage)


async def test_a_team_that_says_nothing_gives_no_response_and_no_model_is_asked() -> None:
    team = RoundRobinGroupChat([speaker("p")], termination_condition=MaxMessageTermination(1))
    agent = society("never", team=team)
    assert texts(await agent.run(task="go")) == ["user: go", "som: No response."]


@pytest.mark.parametrize("nothing", ["", " \n", [FunctionCall("1", "{}", "tool")]])
async def test_a_model_that_answers_nothing_leaves_the_last_word_to_the_team(nothing: Any) -> None:
    assert texts(await society(nothing).run(task="go"))[-1] == "som: q"


# --- in a team


async def test_others_hear_the_answer_alone() -> None:
    other = Counter("other")
    await RoundRobinGroupChat([society(), other], max_turns=2).run(task="go")
    assert other.heard == ["go", "answer"]


@pytest.mark.parametrize("member", ["p", "som"])
async def test_the_talk_inside_does_not_end_the_outer_team(member: str) -> None:
    inner = RoundRobinGroupChat([speaker(member, "TERMINATE")], max_turns=1)
    outer = RoundRobinGroupChat(
        [society("not yet", team=inner)], termination_condition=TextMentionTermination("TERMINATE"), max_turns=1
    )
    result = await outer.run(task="go")
    assert result.stop_reason == "Maximum number of turns 1 reached."
    assert texts(result) == ["user: go", f"{member}: TERMINATE", "som: not yet"]


async def test_a_failure_inside_names_the_way_to_the_agent_and_the_team_begins_anew() -> None:
    class Once(Failing):
        async def on_messages(self, messages: Any, cancellation_token: Any) -> Response:
            error, self._error = self._error, None  # type: ignore[assignment]
            if error is not None:
                raise error
            return await Counter.on_messages(self, messages, cancellation_token)

    agent = society(team=RoundRobinGroupChat([speaker("p"), Once("bad", ValueError("no luck"))], max_turns=2))
    outer = RoundRobinGroupChat([agent], max_turns=1)
    with pytest.raises(AgentFailed, match="'som/bad' failed in turn 1: ValueError: no luck"):
        await outer.run(task="go")
    assert texts(await outer.run(task="again")) == ["user: again", "p: p", "bad: bad 1", "som: answer"]


def handing_over(name: str, target: str) -> AssistantAgent:
    call = FunctionCall("1", "{}", f"transfer_to_{target}")
    return AssistantAgent(name, ReplayChatCompletionClient([[call]]), handoffs=[target])


async def test_a_handoff_to_it_reaches_a_team_of_handoffs_inside() -> None:
    inner = Swarm([handing_over("lead", "out")], termination_condition=HandoffTermination("out"))
    outer = Swarm([handing_over("a", "som"), society(team=inner)], max_turns=2)
    result = await outer.run(task="go")
    handoffs = [message for message in result.messages if isinstance(message, HandoffMessage)]
    assert [(message.source, message.target) for message in handoffs] == [("a", "som"), ("lead", "out")]
    assert texts(result)[-1] == "som: answer"


async def test_a_person_inside_is_asked_whoever_handed_over_to_the_society() -> None:
    user = UserProxyAgent("user", input_func=lambda prompt: "fine")
    agent = society(team=RoundRobinGroupChat([user], max_turns=1))
    handoff = HandoffMessage(content="yours", target="som", source="a")
    assert texts(await agent.run(task=handoff)) == ["user: fine", "som: answer"]


# --- what it remembers


async def test_the_team_begins_anew_and_is_told_what_was_asked_and_answered() -> None:
    member = AssistantAgent("p", ReplayChatCompletionClient(history))
    agent = society("one", "two", team=RoundRobinGroupChat([member], max_turns=1))
    await agent.run(task="first")
    assert texts(await agent.run(task="second"))[1] == "p: first+one+This was said before.+second"


async def test_a_team_of_handoffs_takes_what_was_said_before_for_no_handoff() -> None:
    member = AssistantAgent("p", ReplayChatCompletionClient(["p", "p"]), handoffs=["q"])
    agent = society(team=Swarm([member], max_turns=1))
    await agent.run(task="first")
    assert texts(await agent.run(task="second")) == ["user: second", "p: p", "som: answer"]


async def test_a_context_of_ones_own_bounds_what_the_team_is_told() -> None:
    member = AssistantAgent("p", ReplayChatCompletionClient(history))
    team = RoundRobinGroupChat([member], max_turns=1)
    agent = society(team=team, model_context=BufferedChatCompletionContext(1))
    await agent.run(task="first")
    assert texts(await agent.run(task="second"))[1] == "p: answer+This was said before.+second"


async def test_its_state_holds_the_context_and_the_team() -> None:
    def make() -> SocietyOfMindAgent:
        return society(
            team=RoundRobinGroupChat([AssistantAgent("p", ReplayChatCompletionClient(history))], max_turns=1)
        )

    first, second = make(), make()
    await first.run(task="one")
    document = json.loads(json.dumps(await first.save_state()))
    assert list(document) == ["type", "version", "inner_team_state", "llm_context"]
    assert (document["type"], document["version"]) == ("SocietyOfMindAgentState", "1.0.0")
    await second.load_state(document)
    assert texts(await second.run(task="two")) == texts(await first.run(task="two"))


async def test_a_state_of_autogens_without_a_context_loads() -> None:
    agent = society()
    await agent.run(task="one")
    inner = dict(await RoundRobinGroupChat([speaker("p"), speaker("q")]).save_state())
    await agent.load_state({"type": "SocietyOfMindAgentState", "version": "1.0.0", "inner_team_state": inner})
    assert await agent.model_context.get_messages() == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda state: state.update(type="BaseState"),
        lambda state: state.pop("inner_team_state"),
        lambda state: state.update(more=1),
        lambda state: state.update(llm_context={}),
    ],
)
async def test_a_spoilt_state_is_refused_and_changes_nothing(spoil: Callable[[Any], Any]) -> None:
    agent, other = society(), society()
    await agent.run(task="one")
    before = await agent.save_state()
    state = json.loads(json.dumps(await other.save_state()))
    spoil(state)
    with pytest.raises(StateError):
        await agent.load_state(state)
    assert await agent.save_state() == before


async def test_reset_forgets_what_was_asked_and_answered() -> None:
    agent = society()
    await agent.run(task="one")
    await agent.reset()
    assert await agent.save_state() == await society().save_state()


async def test_a_session_has_a_team_of_its_own() -> None:
    agent = society()
    twin = agent.session()
    results = await asyncio.gather(agent.run(task="one"), twin.run(task="two"))
    assert [texts(result)[0] for result in results] == ["user: one", "user: two"]


# --- part of the run


async def test_a_limit_of_the_run_holds_inside() -> None:
    agent = society(team=RoundRobinGroupChat([speaker("p")]))
    result = await agent.run(task="go", limits=RunLimits(model_calls=3))
    assert (result.stop_reason, len(result.messages)) == ("limit reached: model_calls (3 of 3)", 4)
    assert (await agent.run(task="go", limits=RunLimits(model_calls=1))).stop_reason


async def test_a_limit_that_is_reached_while_it_passes_on_what_is_said_ends_the_team_inside() -> None:
    outer = RoundRobinGroupChat([society()], max_turns=1)
    result = await outer.run(task="go", limits=RunLimits(messages=2))
    assert (texts(result), result.stop_reason) == (["user: go", "p: p"], "limit reached: messages (2 of 2)")
    assert texts(await outer.run(task="again")) == ["user: again", "p: p", "q: q", "som: answer"]


async def test_pausing_the_outer_team_pauses_the_team_inside() -> None:
    paused: list[str] = []

    class Pausable(Counter):
        async def on_pause(self, cancellation_token: CancellationToken) -> None:
            paused.append("pause")

        async def on_resume(self, cancellation_token: CancellationToken) -> None:
            paused.append("resume")

    outer = RoundRobinGroupChat([society(team=RoundRobinGroupChat([Pausable("c")], max_turns=1))], max_turns=1)
    handle = outer.start(task="go")
    await outer.pause()
    await outer.resume()
    assert texts(await handle)[-1] == "som: answer"
    assert paused == ["pause", "resume"]


async def test_a_team_at_work_in_a_society_cannot_be_run_by_somebody_else() -> None:
    inner = RoundRobinGroupChat([speaker("p")], max_turns=1)
    async for item in society(team=inner).run_stream(task="go"):
        if getattr(item, "source", "") == "p":
            with pytest.raises(RuntimeError, match="already running"):
                await inner.run(task="mine")


async def test_a_society_whose_turn_is_one_effect_takes_its_team_along() -> None:
    class Whole(SocietyOfMindAgent):
        opaque = True

    class Pair(RoundRobinGroupChat):
        async def select_speakers(self, thread: Any) -> list[str]:
            return ["som", "user"]

    whole = Whole("som", RoundRobinGroupChat([speaker("p")], max_turns=1), ReplayChatCompletionClient(["answer"]))
    team = Pair([whole, UserProxyAgent("user", input_func=suspend)], max_turns=1)
    team.answer((await team.run(task="go")).pending[0].id, "yes")
    assert texts(await team.run(task="go")) == ["user: go", "p: p", "som: answer", "user: yes"]


async def test_a_question_inside_suspends_and_the_answer_goes_on() -> None:
    def make() -> SocietyOfMindAgent:
        return society(
            team=RoundRobinGroupChat([speaker("p"), UserProxyAgent("user", input_func=suspend)], max_turns=2)
        )

    first, second = make(), make()
    question = (await first.run(task="go")).pending[0]
    assert await first.model_context.get_messages() == []
    await second.load_state(json.loads(json.dumps(await first.save_state())))
    for agent in (first, second):
        agent.answer(question.id, "yes")
        assert texts(await agent.run(task="go")) == ["user: go", "p: p", "user: yes", "som: answer"]


async def test_outside_of_a_run_a_question_inside_is_raised() -> None:
    agent = society(team=RoundRobinGroupChat([UserProxyAgent("user", input_func=suspend)], max_turns=1))
    with pytest.raises(Suspended):
        await agent.on_messages([TextMessage(content="go", source="user")], CancellationToken())


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"team": "x"}, "team of 'som' must be a team, not 'x'"),
        ({"model_client": "x"}, "model_client must be a ChatCompletionClient"),
    ],
)
def test_wrong_constructor_arguments_are_refused(arguments: dict[str, Any], problem: str) -> None:
    usual = {"team": RoundRobinGroupChat([speaker("p")]), "model_client": ReplayChatCompletionClient([])}
    with pytest.raises(ConfigError, match=problem):
        SocietyOfMindAgent("som", **{**usual, **arguments})
