"""What goes wrong inside of teams of every kind: who failed where, with what so far, and that the team runs again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from agents_for_tests import Counter
from graphs_for_tests import graph
from teams_for_tests import KINDS, Passing, chief, member, of, said
from tinygen import (
    AgentFailed,
    BaseChatAgent,
    BaseGroupChat,
    ConfigError,
    FunctionalTermination,
    GraphFlow,
    HandoffMessage,
    MagenticOneGroupChat,
    MessageFilterAgent,
    MessageFilterConfig,
    PerSourceFilter,
    ReplayChatCompletionClient,
    ReplayRequest,
    Response,
    RoundRobinGroupChat,
    SelectorGroupChat,
    ServerError,
    SocietyOfMindAgent,
    TextMessage,
    ThoughtEvent,
)

TURN_BY_TURN = [kind for kind in KINDS if kind != "selector of one"]


class Breaks(Passing):
    """Says a thought and then raises, in its n-th turn; in others it counts and hands over."""

    def __init__(self, name: str, other: str, turn: int = 1, error: BaseException | None = None) -> None:
        super().__init__(name, other)
        self.left, self.error = turn, error or ValueError("broken")

    async def on_messages_stream(self, messages: Any, cancellation_token: Any) -> Any:
        self.left -= 1
        if not self.left:
            yield ThoughtEvent(content="half", source=self.name)
            raise self.error
        yield await self.on_messages(messages, cancellation_token)


def breaking(kind: str, turn: int = 1, **more: Any) -> Any:
    """A team of a, who breaks in one of its turns, and b."""
    return KINDS[kind]([Breaks("a", "b", turn), Passing("b", "a")], **{"max_turns": 4, **more})


@pytest.mark.parametrize("turn", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_member_that_raises_is_named_in_every_team_which_runs_again(kind: str, turn: int) -> None:
    team = breaking(kind, turn)
    with pytest.raises(AgentFailed, match=r"agent 'a' failed in turn \d: ValueError: broken") as caught:
        await team.run(task="go")
    failure = caught.value
    assert (failure.agent, failure.turn) == ("a", turn if kind == "selector of one" else 2 * turn - 1)
    assert isinstance(failure.__cause__, ValueError)
    told = [message.to_text() for message in failure.result.messages]
    assert (told[0], told[-1]) == ("go", "half")
    assert len(said(failure.result)) >= failure.turn
    again = await team.run(task="again")
    assert said(again)[0] == "again"
    assert f"a {turn}" in said(again)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("outer", TURN_BY_TURN)
async def test_a_failure_in_a_team_within_names_the_way_in_every_pair_of_kinds(kind: str, outer: str) -> None:
    team = KINDS[outer]([Passing("a", "b"), breaking(kind, name="b")], max_turns=3)
    with pytest.raises(AgentFailed) as caught:
        await team.run(task="go")
    assert (caught.value.agent, caught.value.turn) == ("b/a", 2)
    assert [message.to_text() for message in caught.value.result.messages][-1] == "half"
    assert said(await team.run(task="again"))[0] == "again"


Wrapped = Callable[[BaseChatAgent], BaseChatAgent]
AROUND: dict[str, tuple[Wrapped, str]] = {
    "society": (
        lambda agent: SocietyOfMindAgent(
            "b", RoundRobinGroupChat([agent], max_turns=1), ReplayChatCompletionClient(["fine"] * 9)
        ),
        "b/x",
    ),
    "filter": (
        lambda agent: MessageFilterAgent("b", agent, MessageFilterConfig(per_source=[PerSourceFilter(source="a")])),
        "b",
    ),
}


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("kind", TURN_BY_TURN)
async def test_a_failure_behind_another_agent_names_the_way_in_every_team(kind: str, around: str) -> None:
    wrap, path = AROUND[around]
    team = KINDS[kind]([Passing("a", "b"), wrap(Breaks("x", "a"))], max_turns=2)
    with pytest.raises(AgentFailed) as caught:
        await team.run(task="go")
    assert (caught.value.agent, caught.value.turn) == (path, 2)
    assert said(await team.run(task="again"))[0] == "again"


LEADERS = {"selector": "SelectorGroupChatManager", "magentic": "MagenticOneOrchestrator"}


@pytest.mark.parametrize("kind", LEADERS)
@pytest.mark.parametrize("within", [False, True], ids=["alone", "in a team"])
@pytest.mark.parametrize("error", [ServerError("down"), asyncio.CancelledError()], ids=repr)
async def test_a_model_that_leads_a_team_fails_as_its_leader(kind: str, within: bool, error: BaseException) -> None:
    calls: list[int] = []

    def reply(request: ReplayRequest) -> Any:
        calls.append(1)
        if len(calls) == (2 if kind == "selector" else 4):
            return error
        return "a" if kind == "selector" else chief(request)

    make: Any = {"selector": partial(SelectorGroupChat, allow_repeated_speaker=True), "magentic": MagenticOneGroupChat}[
        kind
    ]
    inner = make([Counter("a"), Counter("b")], ReplayChatCompletionClient(reply), name="inner", max_turns=2)
    team = RoundRobinGroupChat([inner], max_turns=1) if within else inner
    with pytest.raises(AgentFailed) as caught:
        await team.run(task="go")
    path = f"inner/{LEADERS[kind]}" if within else LEADERS[kind]
    assert (caught.value.agent, caught.value.turn) == (path, 1 if within else 2)
    assert type(caught.value.__cause__) is type(error)
    assert "a 1" in said(caught.value.result)
    assert said(await team.run(task="again"))[0] == "again"


async def test_a_member_that_cannot_start_over_is_named() -> None:
    class Clings(Counter):
        async def on_reset(self, cancellation_token: Any) -> None:
            raise PermissionError("mine")

    team = MagenticOneGroupChat([Counter("a"), Clings("b")], ReplayChatCompletionClient(chief))
    with pytest.raises(AgentFailed, match="agent 'b' failed in turn 1: PermissionError: mine"):
        await team.run(task="go")


async def test_a_failure_in_a_parallel_branch_ends_the_others_and_names_its_own() -> None:
    ended: list[str] = []

    class Waits(Counter):
        async def on_messages(self, messages: Any, cancellation_token: Any) -> Response:
            if ended or self._count:
                return await super().on_messages(messages, cancellation_token)
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(self.name)
            raise NotImplementedError

    broken = Breaks("x", "y")
    inner = RoundRobinGroupChat([Breaks("p", "q")], name="z", max_turns=1)
    for culprit, path in ((broken, "x"), (inner, "z/p")):
        ended.clear()
        members = [Counter("a"), culprit, Waits("w"), Counter("j")]
        edges = (f"a {culprit.name}", "a w", f"{culprit.name} j", "w j")
        team = GraphFlow(members, graph(*edges))
        with pytest.raises(AgentFailed) as caught:
            await team.run(task="go")
        assert (caught.value.agent, caught.value.turn, ended) == (path, 2, ["w"])
        told = [message.to_text() for message in caught.value.result.messages]
        assert told == ["go", "a 1", "half"]
        assert said(await team.run())[-1] == "j 1"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyError("x"), RuntimeError("boom")], ids=repr)
async def test_whatever_a_member_raises_the_team_says_who_it_was(kind: str, error: BaseException) -> None:
    team = KINDS[kind]([Breaks("a", "b", error=error), Passing("b", "a")], max_turns=2)
    with pytest.raises(AgentFailed) as caught:
        await team.run(task="go")
    assert type(caught.value.__cause__) is type(error)
    assert said(await team.run(task="again"))[0] == "again"


class Wrong(Counter):
    """Answers with what it is given."""

    def __init__(self, name: str, answer: Any) -> None:
        super().__init__(name)
        self.answer = answer
        self.produced = (HandoffMessage,)

    @property
    def produced_message_types(self) -> Any:
        return self.produced

    async def on_messages(self, messages: Any, cancellation_token: Any) -> Any:
        return self.answer


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("answer", [None, "text", TextMessage(content="x", source="a"), Response(chat_message=None)])  # type: ignore[arg-type]
async def test_an_answer_that_is_none_is_the_failure_of_its_agent(kind: str, answer: Any) -> None:
    team = KINDS[kind]([Wrong("a", answer), Passing("b", "a")], max_turns=2)
    with pytest.raises(AgentFailed, match="agent 'a' failed in turn 1: ConfigError"):
        await team.run(task="go")


@pytest.mark.parametrize("kind", KINDS)
def test_two_members_of_one_name_are_refused_by_every_team(kind: str) -> None:
    with pytest.raises(ConfigError, match="two participants named 'a'"):
        KINDS[kind]([Passing("a", "b"), Passing("a", "b")])
    with pytest.raises(ConfigError, match="two participants named 'a'"):
        KINDS[kind]([Passing("a", "b"), RoundRobinGroupChat([Counter("x")], name="a")])


def at_once(name: str) -> BaseGroupChat:
    """A team that ends before anybody speaks."""
    return RoundRobinGroupChat(
        [Counter("x")], name=name, termination_condition=FunctionalTermination(lambda messages: True)
    )


@pytest.mark.parametrize("kind", KINDS)
async def test_a_team_within_that_ends_at_once_is_a_turn_like_any_other(kind: str) -> None:
    team = KINDS[kind]([Passing("a", "b"), at_once("b")], max_turns=3)
    for task in ("go", "again"):
        result = await team.run(task=task)
        assert said(result)[0] == task
        assert "x 1" not in said(result) or kind == "swarm"  # there it is asked again, though nobody said anything
        assert result.stop_reason


@pytest.mark.parametrize("kind", KINDS)
async def test_a_team_that_ends_at_once_is_empty_inside_of_every_other(kind: str) -> None:
    inner = of(kind, termination_condition=FunctionalTermination(lambda messages: True), name="inner")
    team = RoundRobinGroupChat([inner, Counter("c"), SocietyOfMindAgent("s", at_once("t"), silent())], max_turns=6)
    result = await team.run(task="go")
    assert said(result) == ["go", "c 1", "No response.", "c 2", "No response."]
    assert member(inner, "a")._count == 0


def silent() -> ReplayChatCompletionClient:
    """A model that must not be asked."""
    return ReplayChatCompletionClient([])


@pytest.mark.parametrize("kind", KINDS)
async def test_a_condition_that_raises_ends_the_run_and_the_team_runs_again(kind: str) -> None:
    calls: list[int] = []

    def judge(messages: Any) -> bool:
        calls.append(len(messages))
        if len(calls) == 2:
            raise ZeroDivisionError("condition")
        return False

    team = of(kind, termination_condition=FunctionalTermination(judge))
    with pytest.raises(ZeroDivisionError, match="condition"):
        await team.run(task="go")
    assert said(await team.run(task="again"))[0] == "again"
