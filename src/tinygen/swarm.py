"""A team whose members hand the work to one another."""

from __future__ import annotations

from functools import cached_property

from . import codec
from .agents import BaseChatAgent
from .conditions import HandoffTermination
from .errors import ConfigError, StateError, did_you_mean
from .findings import Finding
from .messages import HandoffMessage
from .teams import BaseGroupChat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from .conditions import TerminationCondition
    from .messages import BaseChatMessage
    from .runner import TaskRunner
    from .teams import Floor, Link, Message


class Swarm(BaseGroupChat):
    """A team in which the first member speaks until it hands over, then that member does, and so on.

        alice = AssistantAgent("alice", model, handoffs=["bob", "user"])
        bob = AssistantAgent("bob", model, handoffs=["alice"])
        team = Swarm([alice, bob], termination_condition=HandoffTermination("user"))

    Arguments as for `BaseGroupChat`. A handoff to somebody outside the team ends the run. The next one goes on with
    the member who made it, or with whom a `HandoffMessage` in its task names.
    """

    manager_name = "SwarmGroupChatManager"
    _left_to: HandoffMessage | None = None  # who is not here; of this run only

    @cached_property
    def _speaker(self) -> str:
        return self._names[0]

    async def conduct(self, floor: Floor) -> Sequence[str]:
        handoff = self._left_to
        if handoff is not None and floor.turns:
            return floor.stop(
                f"Handoff to {handoff.target!r:.80} from {handoff.source!r}: nobody of that name is in team "
                f"{self.name!r}{did_you_mean(handoff.target, self._names)}"
            )
        return (self._speaker,)

    def check_members(self) -> None:
        first = self._participants[0]
        produced = first.produced_message_types if isinstance(first, BaseChatAgent) else (HandoffMessage,)
        if not any(issubclass(kind, HandoffMessage) for kind in produced):
            raise ConfigError(
                f"the first participant of a Swarm must be able to hand over; give {first.name!r} handoffs=[...], or "
                f"HandoffMessage among its produced_message_types"
            )

    def problems(self) -> Sequence[Finding]:
        found, known = [], {*self._names, *awaited(self._termination)}
        for participant in self._participants:
            for target in targets(participant):
                if target not in known:
                    text = (
                        f"agent {participant.name!r} can hand over to {target!r}, who is neither in the team nor named "
                        f"by a HandoffTermination; that will end the run{did_you_mean(target, self._names)}"
                    )
                    found.append(Finding.warning("unknown-handoff", participant.name, text))
        return [*found, *self._unreachable()]

    def _unreachable(self) -> list[Finding]:
        """Members nobody hands over to, where every member says whom it can hand over to."""
        if not all(hasattr(each, "handoffs") for each in self._participants):
            return []
        links, reached = self.links(), [self._names[0]]
        for name in reached:
            reached += {target for source, target, _ in links if source == name and target} - {*reached}
        return [
            Finding.warning("unreachable", name, f"nobody hands over to {name!r}")
            for name in self._names
            if name not in reached
        ]

    def check_task(self, task: Sequence[BaseChatMessage]) -> None:
        handoff = _last_handoff(None, task)
        if handoff is not None and handoff.target not in self._names:
            raise ConfigError(
                f"the task hands over to {handoff.target!r}, who is not in team {self.name!r}"
                f"{did_you_mean(handoff.target, self._names)}"
            )

    def links(self) -> Sequence[Link]:
        made: list[Link] = [(None, self._names[0], "")]
        for each in self._participants:
            for target in targets(each):
                inside = target in self._names
                made.append((each.name, target if inside else None, "" if inside else f"to {target}"))
        return made

    def note(self, speaker: str | None, said: Sequence[Message]) -> None:
        self._left_to = None
        handoff = _last_handoff(speaker, said)
        if handoff is not None and handoff.target in self._names:
            self._speaker = handoff.target
        else:
            self._left_to = handoff

    def policy_state(self) -> dict[str, Any]:
        state: dict[str, Any] = {"current_speaker": self._speaker}
        if self._left_to is not None and self._turn:
            state["left_to"] = codec.encode(self._left_to)
        return state

    def set_policy_state(self, state: Mapping[str, Any] | None) -> None:
        state = {"current_speaker": self._names[0]} if state is None else state
        if set(state) - {"current_speaker", "left_to"} or "current_speaker" not in state:
            raise StateError("$", f"expected current_speaker, not {sorted(state)}")
        current, left_to = state["current_speaker"], None
        if current not in self._names:
            raise StateError("$.current_speaker", f"expected a participant, not {current!r:.80}")
        if "left_to" in state:
            left_to = codec.decode(HandoffMessage, state["left_to"], mode="state", path="$.left_to")
        self._speaker, self._left_to = current, left_to

    async def _load_manager(self, state: Any) -> None:
        await super()._load_manager(state)
        for last in self._thread[-1:]:  # AutoGen takes note of a handoff only when the next turn begins
            if isinstance(last, HandoffMessage) and last.target in self._names:
                self._speaker = last.target


def targets(participant: TaskRunner) -> list[str]:
    """Whom a participant says it can hand over to."""
    return [getattr(handoff, "target", handoff) for handoff in getattr(participant, "handoffs", ())]


def _last_handoff(speaker: str | None, said: Sequence[Message]) -> HandoffMessage | None:
    """The handoff that counts: of the speaker, not of an agent it used as a tool; of a team, the last thing it said.

    One to nobody, in a task, only tells what was said before.
    """
    for message in reversed(said):
        if not isinstance(message, HandoffMessage) or (speaker is None and not message.target):
            continue
        if speaker in (None, message.source) or message is said[-1]:
            return message
    return None


def awaited(condition: TerminationCondition | None) -> set[str]:
    """Whom handoffs may name that shall end the run."""
    if isinstance(condition, HandoffTermination):
        return {condition._target}
    return {target for each in getattr(condition, "conditions", ()) for target in awaited(each)}
