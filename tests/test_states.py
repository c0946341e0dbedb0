"""States as records, by AutoGen's names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

import tinygen
from agents_for_tests import speaker
from random_teams import built, drawn
from tinygen import (
    AssistantAgentState,
    BaseState,
    ChatAgentContainerState,
    ChatCompletionContextState,
    DecodeError,
    MagenticOneOrchestratorState,
    MaxMessageTermination,
    RoundRobinGroupChat,
    RoundRobinManagerState,
    SelectorManagerState,
    SocietyOfMindAgentState,
    StateError,
    SwarmManagerState,
    TeamState,
    UnboundedChatCompletionContext,
    UserMessage,
    UserProxyAgent,
    suspend,
)
from tinygen.states import BaseGroupChatManagerState

SEEDS = range(30)


def states(data: Any) -> Iterator[tuple[type[BaseState], Any]]:
    """The states in a state, each with its class."""
    if isinstance(data, dict):
        found = getattr(tinygen, str(data.get("type")), None)
        if isinstance(found, type) and issubclass(found, BaseState):
            yield found, data
        data = list(data.values())
    for each in data if isinstance(data, list) else ():
        yield from states(each)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("people", [0, 6], ids=["ended", "suspended"])
async def test_every_state_of_any_team_comes_back_from_its_class_without_loss(people: int) -> None:
    met: set[str] = set()
    for seed in SEEDS:
        team = built(drawn(seed, people=people), None, suspend)
        await team.run(task="go")
        for cls, state in states(await team.save_state()):
            assert cls.model_validate(state).model_dump() == state
            met.update((cls.__name__, *state))

    assert {"TeamState", "AssistantAgentState", "SwarmManagerState", "termination", "workbenches"} <= met
    assert ("suspended" in met) or not people


async def test_a_team_loads_a_state_that_went_through_its_class() -> None:
    team, other = (RoundRobinGroupChat([speaker("ann"), speaker("bob")], max_turns=1) for _ in range(2))
    await team.run(task="hi")

    state = TeamState.model_validate(await team.save_state())
    await other.load_state(TeamState.model_validate_json(state.model_dump_json()).model_dump())

    assert await other.save_state() == await team.save_state()
    waiting = ChatAgentContainerState.model_validate(state.agent_states["bob"])
    assert [message["content"] for message in waiting.message_buffer] == ["hi", "ann"]
    manager = RoundRobinManagerState.model_validate(state.agent_states["RoundRobinGroupChatManager"])
    assert (manager.next_speaker_index, manager.current_turn, len(manager.message_thread)) == (1, 0, 2)


async def test_a_suspended_run_goes_on_from_a_state_that_went_through_its_class() -> None:
    asked, later = (UserProxyAgent("boss", input_func=suspend) for _ in range(2))
    result = await asked.run(task="may I?")

    await later.load_state(BaseState.model_validate(await asked.save_state()).model_dump())
    later.answer(result.pending[0].id, "yes")

    assert (await later.run()).messages[-1].to_text() == "yes"


@pytest.mark.parametrize(
    ("state", "keys"),
    [
        (BaseState(), ""),
        (AssistantAgentState(), "llm_context"),
        (SocietyOfMindAgentState(), "inner_team_state"),
        (TeamState(), "agent_states"),
        (ChatAgentContainerState(), "agent_state message_buffer"),
        (BaseGroupChatManagerState(), "message_thread current_turn"),
        (RoundRobinManagerState(), "message_thread current_turn next_speaker_index"),
        (SelectorManagerState(), "message_thread current_turn previous_speaker"),
        (SwarmManagerState(), "message_thread current_turn current_speaker"),
        (MagenticOneOrchestratorState(), "message_thread current_turn task facts plan n_rounds n_stalls"),
    ],
)
def test_a_state_that_says_nothing_more_has_the_keys_of_autogens(state: BaseState, keys: str) -> None:
    assert set(state.model_dump()) == {"type", "version", *keys.split()}
    assert state.type == type(state).__name__


class VoteState(BaseState):
    votes: dict[str, int]


def test_a_state_of_ones_own_derives_from_the_base() -> None:
    data = json.loads(VoteState(votes={"ann": 1}).model_dump_json())

    assert data == {"type": "VoteState", "version": "1.0.0", "votes": {"ann": 1}}
    assert VoteState.model_validate(data).votes == {"ann": 1}
    with pytest.raises(DecodeError, match=r"\$\.type: expected 'TeamState', found the string 'VoteState'"):
        TeamState.model_validate(data)


async def test_the_state_of_a_context_holds_messages() -> None:
    context = UnboundedChatCompletionContext([UserMessage(content="hi", source="user")])

    state = ChatCompletionContextState.model_validate(await context.save_state())

    assert state.messages == await context.get_messages()
    assert state.model_dump() == await context.save_state()


@pytest.mark.parametrize(
    "path",
    [
        "ann.agent_state",
        "ann.message_buffer",
        "RoundRobinGroupChatManager.message_thread",
        "RoundRobinGroupChatManager.next_speaker_index",
        "RoundRobinGroupChatManager.termination.count",
    ],
)
async def test_what_is_wrong_in_the_state_of_a_team_is_found_by_its_path_however_deep_it_is(path: str) -> None:
    inner = RoundRobinGroupChat([speaker("ann")], name="inner", termination_condition=MaxMessageTermination(9))
    team = RoundRobinGroupChat([inner])
    state = json.loads(json.dumps(await team.save_state()))
    here = state["agent_states"]["inner"]["agent_state"]["agent_states"]
    *way, last = path.split(".")
    for key in way:
        here = here[key]
    here[last] = {"no": "such thing"}

    with pytest.raises(StateError) as caught:
        await team.load_state(state)

    assert caught.value.path == f"$.agent_states.inner.agent_state.agent_states.{path}"
