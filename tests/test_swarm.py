"""A team whose members hand over to one another: who speaks, what a handoff out of the team means, what is kept."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any
from zlib import crc32

import pytest

from agents_for_tests import Counter, Failing, speaker
from tinygen import (
    AgentFailed,
    AssistantAgent,
    BaseChatMessage,
    Component,
    FunctionCall,
    Handoff,
    HandoffMessage,
    HandoffTermination,
    MaxMessageTermination,
    ReplayChatCompletionClient,
    ReplayRequest,
    Response,
    RoundRobinGroupChat,
    StateError,
    Swarm,
    TaskResult,
    TextMentionTermination,
    TextMessage,
    UserProxyAgent,
    suspend,
)


def to(name: str) -> list[FunctionCall]:
    """A model's call that hands over."""
    return [FunctionCall("1", "{}", f"transfer_to_{name}")]


def member(name: str, *script: Any, handoffs: Sequence[str] = ("a", "b", "c", "user")) -> AssistantAgent:
    others = [other for other in handoffs if other != name]
    return AssistantAgent(name, ReplayChatCompletionClient(list(script)), handoffs=others)


def said(result: TaskResult) -> list[tuple[str, str]]:
    """Who said which chat message; a handoff is an arrow."""
    return [
        (message.source, f"-> {message.target}" if isinstance(message, HandoffMessage) else message.to_text())
        for message in result.messages
        if isinstance(message, BaseChatMessage) and message.source != "user"
    ]


# --- who speaks


async def test_the_first_member_begins_and_who_was_handed_to_goes_on() -> None:
    team = Swarm([member("a", to("c")), member("b"), member("c", to("a"))], max_turns=2)
    assert said(await team.run(task="go")) == [("a", "-> c"), ("c", "-> a")]


async def test_without_a_handoff_the_same_member_goes_on() -> None:
    team = Swarm([member("a", "one", "two", to("b")), member("b", "three", "four")], max_turns=5)
    result = await team.run(task="go")
    assert [source for source, _ in said(result)] == ["a", "a", "a", "b", "b"]


async def test_whose_turn_it_is_stays_from_run_to_run_and_reset_begins_with_the_first() -> None:
    team = Swarm([member("a", to("b"), "again"), member("b", "one", "two")], max_turns=1)
    assert [said(await team.run(task="go"))[0] for _ in range(3)] == [("a", "-> b"), ("b", "one"), ("b", "two")]
    await team.reset()
    assert said(await team.run(task="go")) == [("a", "again")]


async def test_a_handoff_in_the_task_says_who_begins() -> None:
    team = Swarm([member("a"), member("b", "hello")], max_turns=1)
    task = [HandoffMessage(content="for you", source="user", target="b"), TextMessage(content="please", source="user")]
    assert said(await team.run(task=task)) == [("b", "hello")]


async def test_a_handoff_sent_to_a_running_team_is_followed_at_the_next_turn() -> None:
    team = Swarm([member("a"), member("b", "mine")], max_turns=1)
    handle = team.start(task="go")
    handle.send(HandoffMessage(content="", source="user", target="b"))
    assert said(await handle) == [("b", "mine")]


async def test_who_is_handed_to_gets_the_context_of_the_handoff() -> None:
    def ten() -> int:
        """Ten."""
        return 10

    both = [FunctionCall("0", "{}", "ten"), *to("b")]
    a = AssistantAgent("a", ReplayChatCompletionClient([both]), tools=[ten], handoffs=["b"])
    model = ReplayChatCompletionClient(["thanks"])
    await Swarm([a, AssistantAgent("b", model)], max_turns=2).run(task="go")
    kinds = [message.type for message in model.create_calls[0].messages[1:]]
    assert kinds == ["UserMessage", "AssistantMessage", "FunctionExecutionResultMessage", "UserMessage"]


async def test_a_person_in_the_team_answers_and_hands_back() -> None:
    person = UserProxyAgent("user", input_func=lambda prompt: "507811")
    team = Swarm([member("a", to("user"), "thanks"), person], max_turns=3)
    result = await team.run(task="go")
    assert said(result) == [("a", "-> user"), ("a", "thanks")]
    assert [message.to_text() for message in result.messages if message.source == "user"][-1] == "507811"


# --- handing over to somebody outside the team


def agency(*script: Any) -> Swarm:
    return Swarm([member("a", to("b")), member("b", to("user"), *script)], termination_condition=human())


def human() -> Any:
    return HandoffTermination("user") | TextMentionTermination("TERMINATE")


async def test_trap_after_a_handoff_to_a_person_plain_text_goes_to_who_asked() -> None:
    team = agency("done TERMINATE")
    first = await team.run(task="go")
    assert first.stop_reason == "Handoff to user from b detected."
    assert said(await team.run(task="507811")) == [("b", "done TERMINATE")]


async def test_the_person_may_name_who_goes_on() -> None:
    team = Swarm([member("a", to("user")), member("b", "TERMINATE")], termination_condition=human())
    await team.run(task="go")
    answer = HandoffMessage(content="507811", source="user", target="b")
    result = await team.run(task=answer)
    assert said(result) == [("b", "TERMINATE")]


async def test_a_run_without_a_task_goes_on_with_who_handed_over() -> None:
    team = agency("TERMINATE")
    await team.run(task="go")
    assert said(await team.run()) == [("b", "TERMINATE")]


async def test_trap_a_handoff_to_nobody_known_ends_the_run_and_says_so() -> None:
    a = member("a", to("bert"), "still here", handoffs=["bert"])
    team = Swarm([a, Counter("bart")], name="crew", termination_condition=TextMentionTermination("still here"))
    result = await team.run(task="go")
    assert said(result) == [("a", "-> bert")]
    assert result.stop_reason == (
        "Handoff to 'bert' from 'a': nobody of that name is in team 'crew'; did you mean 'bart'?"
    )
    assert said(await team.run(task="go on")) == [("a", "still here")]


class Hasty(Counter):
    """Hands over to whatever it is told, as a model without tools might."""

    produced_message_types = (HandoffMessage,)  # type: ignore[assignment]

    async def on_messages(self, messages: Sequence[BaseChatMessage], cancellation_token: Any) -> Response:
        target = messages[-1].to_text() if messages else ""
        return Response(chat_message=HandoffMessage(content="", target=target, source=self.name))


@pytest.mark.parametrize("target", ["", "B", "b ", "a.b", "\n", "x" * 5000])
async def test_whatever_name_a_member_gives_the_run_ends_in_order(target: str) -> None:
    team = Swarm([Hasty("a"), Counter("b")], max_turns=3)
    result = await team.run(task=target)
    assert str(result.stop_reason).startswith(f"Handoff to {target!r:.80} from 'a': nobody of that name")
    assert (await team.run(task="b")).stop_reason == "Maximum number of turns 3 reached."


async def test_a_task_that_hands_over_to_a_stranger_is_refused_before_anybody_hears_it() -> None:
    team = Swarm([member("alice", "hi"), Counter("bob")], max_turns=1)
    with pytest.raises(
        ValueError, match="the task hands over to 'bobby', who is not in team 'Swarm'; did you mean 'bob'"
    ):
        await team.run(task=HandoffMessage(content="", source="user", target="bobby"))
    assert [message.to_text() for message in (await team.run(task="x")).messages] == ["x", "hi"]


async def test_what_an_agent_used_as_a_tool_hands_over_is_not_the_members_handoff() -> None:
    class Delegating(Hasty):
        async def on_messages(self, messages: Sequence[BaseChatMessage], cancellation_token: Any) -> Response:
            inner = HandoffMessage(content="", target="b", source="helper")
            return Response(chat_message=TextMessage(content="me", source=self.name), inner_messages=[inner])

    team = Swarm([Delegating("a"), Counter("b")], max_turns=2)
    assert [source for source, text in said(await team.run(task="go")) if text == "me"] == ["a", "a"]


async def test_a_member_that_hands_over_before_its_last_word_has_handed_over() -> None:
    class Wordy(Hasty):
        async def on_messages(self, messages: Sequence[BaseChatMessage], cancellation_token: Any) -> Response:
            handoff = HandoffMessage(content="", target="b", source=self.name)
            return Response(chat_message=TextMessage(content="bye", source=self.name), inner_messages=[handoff])

    team = Swarm([Wordy("a"), Counter("b")], max_turns=2)
    assert said(await team.run(task="go")) == [("a", "-> b"), ("a", "bye"), ("b", "b 1")]


# --- teams as members, failures


async def test_a_team_hands_over_with_the_last_thing_it_says() -> None:
    inner = Swarm(
        [member("p", to("q"), handoffs=["q"]), member("q", to("b"), handoffs=["b"])],
        name="inner",
        termination_condition=HandoffTermination("b"),
    )
    team = Swarm([inner, Counter("b")], max_turns=2)
    assert said(await team.run(task="go")) == [("p", "-> q"), ("q", "-> b"), ("b", "b 1")]


async def test_handoffs_inside_a_team_are_its_own_affair() -> None:
    inner = Swarm([member("p", to("q"), handoffs=["q"]), speaker("q", "x", "y", "z")], name="inner", max_turns=2)
    team = Swarm([inner, Counter("b")], max_turns=2)
    assert said(await team.run(task="go")) == [("p", "-> q"), ("q", "x"), ("q", "y"), ("q", "z")]


async def test_a_swarm_takes_its_turn_in_another_team() -> None:
    inner = Swarm([member("a", to("b")), speaker("b")], max_turns=2, name="inner")
    team = RoundRobinGroupChat([inner, Counter("c")], max_turns=3)
    assert said(await team.run(task="go"))[2:] == [("c", "c 1"), ("b", "b"), ("b", "b")]


async def test_handoffs_among_the_others_are_none_for_a_swarm_within() -> None:
    inner = Swarm([member("p", "p says", "p again")], name="inner", max_turns=1)
    outer = Swarm([member("a", to("inner"), handoffs=["inner"]), inner, member("b")], max_turns=3)
    assert said(await outer.run(task="go")) == [("a", "-> inner"), ("p", "p says"), ("p", "p again")]
    chain = RoundRobinGroupChat([member("a", to("b")), Swarm([member("p", "p says")], max_turns=1)], max_turns=2)
    assert said(await chain.run(task="go")) == [("a", "-> b"), ("p", "p says")]


async def test_a_person_in_a_team_within_is_asked_plainly_when_others_hand_over() -> None:
    person = UserProxyAgent("ann", input_func=lambda prompt: prompt)
    inner = RoundRobinGroupChat([person], name="inner", max_turns=1)
    outer = Swarm([member("a", to("inner"), handoffs=["inner"]), inner], max_turns=2)
    assert said(await outer.run(task="go"))[-1] == ("ann", "Enter your response: ")


async def test_a_member_that_raises_is_named_with_its_turn_and_has_its_turn_again() -> None:
    failing = Failing("b", ValueError("broken"))
    team = Swarm([member("a", to("b")), failing], max_turns=2)
    with pytest.raises(AgentFailed, match="agent 'b' failed in turn 2: ValueError: broken") as caught:
        await team.run(task="go")
    assert said(caught.value.result) == [("a", "-> b")]
    failing.__class__ = Counter
    assert said(await team.run(task="again")) == [("b", "b 1"), ("b", "b 2")]


# --- making one


def test_a_first_member_that_cannot_hand_over_is_refused() -> None:
    with pytest.raises(
        ValueError, match="the first participant of a Swarm must be able to hand over; give 'a' handoffs"
    ):
        Swarm([speaker("a"), member("b")])


async def test_a_swarm_with_another_idea_of_who_can_be_in_it_begins_with_the_first_all_the_same() -> None:
    class Anybody(Swarm):
        def check_members(self) -> None:
            pass

    result = await Anybody([speaker("a"), member("b")], max_turns=1).run(task="go")
    assert result.messages[-1].source == "a"


def test_a_handoff_that_leads_nowhere_is_found_before_the_run() -> None:
    sound = Swarm([member("a", handoffs=["b", "user"]), member("b", handoffs=["user"])], termination_condition=human())
    wrong = Swarm([member("a", handoffs=["bob"]), speaker("bab")], termination_condition=human())

    assert sound.problems() == []
    assert "agent 'a' can hand over to 'bob', who is neither" in wrong.problems()[0].text
    assert "did you mean 'bab'?" in wrong.problems()[0].text


def test_a_drawing_shows_who_hands_over_to_whom() -> None:
    drawn = Swarm([member("a", handoffs=["b", "user"]), member("b", handoffs=["a"])]).to_mermaid()
    arrows = [line.strip() for line in drawn.splitlines() if "-->" in line]
    assert arrows == ["n1 --> n2", "n2 --> n3", 'n2 -->|"to user"| n1', "n3 --> n2"]


def test_an_assistant_says_which_handoffs_it_can_make() -> None:
    handoff = Handoff(target="carl", message="yours")
    assistant = AssistantAgent("ada", ReplayChatCompletionClient([]), handoffs=["bob", handoff])
    assert assistant.handoffs == [Handoff(target="bob"), handoff]
    assert not speaker("bob").handoffs


def test_a_document_of_autogens_is_loaded() -> None:
    own = Swarm([member("a"), member("b")], max_turns=2).dump_component()
    team = Component.load_component(own.model_dump() | {"provider": "autogen_agentchat.teams.Swarm"})
    assert isinstance(team, Swarm)
    assert team.dump_component() == own


# --- state


def autogens_state(current: str, *thread: BaseChatMessage) -> dict[str, Any]:
    """A state as AutoGen 0.7.5 writes it."""
    seats: dict[str, Any] = {
        name: {
            "type": "ChatAgentContainerState",
            "version": "1.0.0",
            "agent_state": {"type": "AssistantAgentState", "version": "1.0.0", "llm_context": {"messages": []}},
            "message_buffer": [],
        }
        for name in "ab"
    }
    seats["SwarmGroupChatManager"] = {
        "type": "SwarmManagerState",
        "version": "1.0.0",
        "message_thread": [message.dump() for message in thread],
        "current_turn": 0,
        "current_speaker": current,
    }
    return {"type": "TeamState", "version": "1.0.0", "agent_states": seats}


TASK, TEXT = TextMessage(content="x", source="user"), TextMessage(content="y", source="b")
HANDED = HandoffMessage(content="", source="a", target="b")
ASKED = HandoffMessage(content="", source="a", target="user")


@pytest.mark.parametrize(
    ("current", "thread", "next_speaker"),
    [("a", [], "a"), ("b", [TASK, HANDED, TEXT], "b"), ("a", [TASK, HANDED], "b"), ("a", [TASK, ASKED], "a")],
    ids=["fresh", "after a text", "a handoff nobody has followed", "a handoff to a person"],
)
async def test_a_state_of_autogens_is_gone_on_with(current: str, thread: Any, next_speaker: str) -> None:
    team = Swarm([member("a", "me"), member("b", "me")], max_turns=1)
    await team.load_state(json.loads(json.dumps(autogens_state(current, *thread))))
    assert said(await team.run(task="go")) == [(next_speaker, "me")]


async def test_the_state_has_autogens_shape() -> None:
    team = Swarm([member("a", to("b")), member("b", "x")], max_turns=2)
    await team.run(task="go")
    manager = (await team.save_state())["agent_states"]["SwarmGroupChatManager"]
    assert set(manager) == {"type", "version", "message_thread", "current_turn", "current_speaker"}
    assert (manager["type"], manager["current_speaker"]) == ("SwarmManagerState", "b")


@pytest.mark.parametrize(
    "damage", [{"current_speaker": "c"}, {"current_speaker": None}, {"current_speaker": []}, {"x": 1}]
)
async def test_a_state_that_does_not_fit_changes_nothing(damage: dict[str, Any]) -> None:
    team = Swarm([member("a", to("b")), member("b", "x")], max_turns=1)
    await team.run(task="go")
    before = await team.save_state()
    state = autogens_state("a")
    state["agent_states"]["SwarmGroupChatManager"] |= damage
    with pytest.raises(StateError):
        await team.load_state(state)
    assert await team.save_state() == before


def whimsical(max_turns: int) -> Swarm:
    """Members that hand over to anybody, or to nobody, as it pleases them."""

    def whim(request: ReplayRequest) -> Any:
        number = crc32(repr([message.content for message in request.messages]).encode())
        names = [tool["name"] for tool in request.tools]
        return [FunctionCall("1", "{}", names[number % len(names)])] if number % 3 else f"word {number}"

    members = [
        AssistantAgent(name, ReplayChatCompletionClient(whim), handoffs=[other for other in "abcd" if other != name])
        for name in "abcd"
    ]
    return Swarm(members, max_turns=max_turns, termination_condition=MaxMessageTermination(500))


@pytest.mark.parametrize("turns", range(1, 12))
async def test_after_any_turn_a_saved_team_goes_on_elsewhere_as_if_uninterrupted(turns: int) -> None:
    here, there, whole = whimsical(turns), whimsical(12 - turns), whimsical(12)
    first = await here.run(task="go")
    await there.load_state(json.loads(json.dumps(await here.save_state())))
    second = await there.run()
    assert said(first) + said(second) == said(await whole.run(task="go"))
    assert await there.save_state() != await here.save_state()


async def test_a_turn_that_waits_for_a_person_is_taken_again_by_the_same_member() -> None:
    def make(*script: Any) -> Swarm:
        return Swarm([member("a", *script), UserProxyAgent("user", input_func=suspend)], max_turns=3)

    team, later = make(to("user")), make("thanks")
    question = (await team.run(task="go")).pending[0]
    await later.load_state(json.loads(json.dumps(await team.save_state())))
    later.answer(question.id, "507811")
    result = await later.run(task="go")
    assert [message.to_text() for message in result.messages[-2:]] == ["507811", "thanks"]


async def test_a_handoff_to_nobody_known_ends_the_run_elsewhere_too() -> None:
    def make() -> Swarm:
        return Swarm([member("a", to("user"), "never said")])

    here, there = make(), make()
    handle = here.start(task="go")
    async for event in handle:
        if event.name == "HandoffMessage":
            handle.pause()
            break
    while here._turn == 0:
        await asyncio.sleep(0)
    await there.load_state(json.loads(json.dumps(await here.save_state())))
    handle.resume()
    rest, whole = await there.run(), await handle
    assert (said(rest), rest.stop_reason) == ([], whole.stop_reason)
    assert "left_to" not in (await here.save_state())["agent_states"]["SwarmGroupChatManager"]
