"""States as records, by AutoGen's names: for programs that look into what `save_state` returns.

    state = TeamState.model_validate(await team.save_state())
    waiting = ChatAgentContainerState.model_validate(state.agent_states["writer"]).message_buffer
    await team.load_state(state.model_dump())

States are JSON data, and nothing here needs these classes. Whatever AutoGen's states do not have is written only where
it says something.
"""

from __future__ import annotations

from dataclasses import field

from .records import SPARSE, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


class BaseState(Record):
    """Root of all states; `suspended` is what a suspended run needs to go on. Derive from it for agents of your own."""

    version: str = "1.0.0"
    suspended: Mapping[str, Any] | None = field(default=None, metadata=SPARSE)


class AssistantAgentState(BaseState):
    """Of an `AssistantAgent`: what its model sees, and what its tools and memories remember."""

    llm_context: Mapping[str, Any] = field(default_factory=dict)
    workbenches: list[Mapping[str, Any]] = field(default_factory=list, metadata=SPARSE)
    memories: list[Mapping[str, Any]] = field(default_factory=list, metadata=SPARSE)


class SocietyOfMindAgentState(BaseState):
    """Of a `SocietyOfMindAgent`: its team, and what its own model sees."""

    inner_team_state: Mapping[str, Any] = field(default_factory=dict)
    llm_context: Mapping[str, Any] | None = field(default=None, metadata=SPARSE)


class TeamState(BaseState):
    """Of a team: a `ChatAgentContainerState` for each participant, and the state of its manager, by their names.

    `inbox` is what was sent to a paused run and not heard yet; the next run hears it with its first turn.
    """

    agent_states: Mapping[str, Any] = field(default_factory=dict)
    inbox: list[Mapping[str, Any]] = field(default_factory=list, metadata=SPARSE)


class ChatAgentContainerState(BaseState):
    """Of a participant: its own state, and what it has not heard yet."""

    agent_state: Mapping[str, Any] = field(default_factory=dict)
    message_buffer: list[Mapping[str, Any]] = field(default_factory=list)


class BaseGroupChatManagerState(BaseState):
    """Of what every team's manager remembers: all that was said, the turns, and what its condition has counted."""

    message_thread: list[Mapping[str, Any]] = field(default_factory=list)
    current_turn: int = 0
    termination: Mapping[str, Any] | None = field(default=None, metadata=SPARSE)


class RoundRobinManagerState(BaseGroupChatManagerState):
    """Of a `RoundRobinGroupChat`."""

    next_speaker_index: int = 0


class SelectorManagerState(BaseGroupChatManagerState):
    """Of a `SelectorGroupChat`; `model_context` is that of its selector, if it was given one."""

    previous_speaker: str | None = None
    model_context: Mapping[str, Any] | None = field(default=None, metadata=SPARSE)


class SwarmManagerState(BaseGroupChatManagerState):
    """Of a `Swarm`; `left_to` is the handoff that led out of it."""

    current_speaker: str = ""
    left_to: Mapping[str, Any] | None = field(default=None, metadata=SPARSE)


class MagenticOneOrchestratorState(BaseGroupChatManagerState):
    """Of a `MagenticOneGroupChat`; `unread` is how many of the last messages the orchestrator has not read."""

    task: str = ""
    facts: str = ""
    plan: str = ""
    n_rounds: int = 0
    n_stalls: int = 0
    unread: int = field(default=0, metadata=SPARSE)
