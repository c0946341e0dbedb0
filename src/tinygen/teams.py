"""Teams: one engine that moves messages, and policies that say who speaks next.

Theory of operation. A team's run is a loop of turns. A turn is: the policy names the next speaker (or several, to
speak side by side); each gets what was said since it last spoke, as a message to its *seat*, an actor in the team's
runtime; what they answer is appended to the thread in the order they were named, handed to the others' buffers, and
shown to the termination condition. Between runs nothing but the conversation is left on the team.

A turn that is suspended is rolled back, and executed again when the same call is made again. A turn that is
cancelled, limited or failing is not: what its speaker was handed counts as heard, and what was said so far is in the
result, but not in the thread.
"""

from __future__ import annotations

from asyncio import CancelledError
from contextlib import contextmanager

from .agents import BaseChatAgent, expect_state
from .cancellation import CancellationToken
from .conditions import FunctionalTermination, TerminationCondition
from .errors import ConfigError, DecodeError, StateError, Suspended, of_another_copy
from .messages import BaseAgentEvent, BaseChatMessage, SelectSpeakerEvent
from .runner import TaskRunner
from .seats import Seats, blame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from .actors import AgentRuntime
    from .findings import Finding
    from .run import Run
    from .runner import Undo
    from .seats import Said

    Link = tuple[str | None, str | None, str]
    Message = BaseAgentEvent | BaseChatMessage

ALREADY_TERMINATED = "The group chat has already terminated."


class Floor:
    """What a policy can do before a turn, beside naming who speaks: read the thread, say something, end the run."""

    __slots__ = ("_marks", "_run", "_team", "reason", "said")

    def __init__(self, team: BaseGroupChat, run: Run, marks: list[Undo]) -> None:
        self.reason = "The group chat is stopped."
        self.said: list[BaseChatMessage] = []
        self._team = team
        self._run = run
        self._marks = marks

    @property
    def thread(self) -> Sequence[Message]:
        """All that was said, the task first."""
        return self._team._thread

    @property
    def turns(self) -> int:
        """How many turns this run has had."""
        return self._team._turn

    def show(self, event: BaseAgentEvent) -> None:
        """Put an event into the output of the run; nobody in the team hears it."""
        self._run.emit(event)

    def say(self, message: BaseChatMessage) -> None:
        """Say something in the team's name: everybody hears it, and terminations look at it with what follows."""
        self._run.emit(message)
        self.said.append(message)
        self._team._thread.append(message)
        for buffer in self._team._buffers.values():
            buffer.append(message)

    @contextmanager
    def blaming(self, name: str) -> Iterator[None]:
        """Whatever is raised in here, by a model that leads the team perhaps, is the failure of who has this name."""
        try:
            yield
        except (Exception, CancelledError) as error:  # raised to whoever awaits the run
            blame(name, self.turns + 1, error, self._run)

    def stop(self, reason: str) -> Sequence[str]:
        """End the run for this reason: nobody speaks. To be returned by the policy."""
        self.reason = reason
        return ()

    async def start_over(self) -> None:
        """Let every participant forget what it heard, and the thread with it; the result of the run keeps it all."""
        team = self._team
        for participant in team._participants:
            self._marks.append(await participant.checkpoint())
        for participant in team._participants:
            with self.blaming(participant.name):
                await participant.reset()
        team._thread = []
        team._buffers = {name: [] for name in team._names}


class BaseGroupChat(TaskRunner):
    """Base of all teams. A subclass is a policy: it defines `select_speakers`, and what that remembers.

    A policy that does more than choose defines `conduct` in its place, and gets a `Floor` to do it with.

    Args:
        participants: agents or teams, with different names.
        name, description: for a team that is itself a participant.
        termination_condition: looks at every message and says when to stop.
        max_turns: stop after so many turns; None for no limit.
        runtime: where the participants live; must be started. Left out, every run has one of its own.
        custom_message_types: accepted for AutoGen's sake; message types need no registration.
        emit_team_events: also say who speaks next.
    """

    component_type = "team"
    takes_turns = True
    ends_by_itself = False  # whether its policy ends each run at some time
    manager_name = "GroupChatManager"

    def __init__(
        self,
        participants: Sequence[BaseChatAgent | BaseGroupChat],
        *,
        name: str | None = None,
        description: str | None = None,
        termination_condition: TerminationCondition | None = None,
        max_turns: int | None = None,
        runtime: AgentRuntime | None = None,
        custom_message_types: Sequence[type[Message]] | None = None,
        emit_team_events: bool = False,
    ) -> None:
        _check_participants(type(self).__name__, participants, self.manager_name)
        if max_turns is not None and (type(max_turns) is not int or max_turns < 1):
            raise ConfigError(f"max_turns must be a whole number of at least 1, or None, not {max_turns!r}")
        if termination_condition is not None and not isinstance(termination_condition, TerminationCondition):
            found = f"{termination_condition!r:.80}{of_another_copy(termination_condition, TerminationCondition)}"
            raise ConfigError(f"termination_condition must be a TerminationCondition, not {found}")
        if runtime is not None and not hasattr(runtime, "register_agent_instance"):
            raise ConfigError(f"runtime must be an AgentRuntime, not {runtime!r:.80}")
        if name is not None and not isinstance(name, str):
            raise ConfigError(f"a team's name must be text, not {name!r:.80}")
        self.name = name or type(self).__name__
        self.description = description or "A team of agents."
        self._participants = list(participants)
        self._names = [participant.name for participant in participants]
        self._termination = termination_condition
        asking = termination_condition is not None and _may_wait(termination_condition)
        self._asking = termination_condition if asking else None  # to be marked in every turn
        self._max_turns = max_turns
        self._runtime = runtime
        self._emit_team_events = emit_team_events
        self._thread: list[Message] = []
        self._buffers: dict[str, list[BaseChatMessage]] = {name: [] for name in self._names}
        self._unsaid: list[BaseChatMessage] = []  # sent to a run that was saved before it heard them: for the next one
        self._turn = 0
        self.check_members()

    async def select_speakers(self, thread: Sequence[Message]) -> Sequence[str]:
        """The names of who speaks next, side by side if several; none ends the run. Called between turns."""
        raise NotImplementedError(f"{type(self).__name__} must define select_speakers()")

    async def conduct(self, floor: Floor) -> Sequence[str]:
        """The names of who speaks next, as `select_speakers` says if not overridden."""
        return await self.select_speakers(floor.thread)

    def check_members(self) -> None:
        """Look at the participants when the team is made. Raises `ConfigError` if they cannot be such a team."""

    def check_task(self, task: Sequence[BaseChatMessage]) -> None:
        """Look at a task before anybody hears it. Raises `ConfigError` if the team cannot work on it."""

    def note(self, speaker: str | None, said: Sequence[Message]) -> None:
        """Take note of what a speaker said in the turn that just ended; of a task if it is None.

        A policy that learns who spoke here, not from the thread, costs the same however long that is. What a turn
        changed here and in `conduct` must be in `policy_state`, for the case that the turn is taken back.
        """

    def conclude(self, reason: str | None) -> str | None:
        """Why the run ends after a turn, None if it goes on; `reason` is what the termination says."""
        return reason

    def links(self) -> Sequence[Link]:
        """For drawings, who can speak after whom: two names and when. None is the team, where a task comes in."""
        return [link for name in self._names for link in ((None, name, ""), (name, None, ""))]

    def problems(self) -> Sequence[Finding]:
        """What its policy can see to be wrong with it before a run; `tinygen check` shows it with all else."""
        return ()

    def to_mermaid(self) -> str:
        """This team as the text of a Mermaid flowchart, teams within it as boxes."""
        from .diagrams import mermaid

        return mermaid(self)

    def policy_state(self) -> dict[str, Any]:
        """What the policy remembers, as JSON data: the fields it adds to the saved state."""
        return {}

    def set_policy_state(self, state: Mapping[str, Any] | None) -> None:
        """Take over what `policy_state` returned; None for a fresh start.

        Raises `StateError` with a path in there, "$.next" for example; then nothing has changed.
        """

    async def reset(self) -> None:
        await self._idle()
        for participant in self._participants:
            await participant.reset()
        if self._termination is not None:
            await self._termination.reset()
        self._thread, self._unsaid, self._turn, self._suspension = [], [], 0, None
        self._buffers = {name: [] for name in self._names}
        self.set_policy_state(None)

    async def pause(self) -> None:
        """Let no further turn of the live run begin, and tell the participants."""
        if self._live is not None:
            self._live.pause()
        for participant in self._participants:
            await participant.on_pause(CancellationToken())

    async def resume(self) -> None:
        """Go on after `pause`."""
        for participant in self._participants:
            await participant.on_resume(CancellationToken())
        if self._live is not None:
            self._live.resume()

    async def on_pause(self, cancellation_token: CancellationToken) -> None:
        await self.pause()

    async def on_resume(self, cancellation_token: CancellationToken) -> None:
        await self.resume()

    async def save_state(self) -> Mapping[str, Any]:
        """The session as JSON data: between runs, or of one that is suspended, or paused between two turns."""
        from . import codec

        states: dict[str, Any] = {}
        for participant in self._participants:
            states[participant.name] = {
                "type": "ChatAgentContainerState",
                "version": "1.0.0",
                "agent_state": dict(await participant.save_state()),
                "message_buffer": codec.encode(self._buffers[participant.name]),
            }
        manager: dict[str, Any] = {
            "type": self._manager_type(),
            "version": "1.0.0",
            "message_thread": codec.encode(self._thread),
            "current_turn": self._turn,
            **self.policy_state(),
        }
        if self._termination is not None:
            manager["termination"] = dict(await self._termination.save_state())
        states[self.manager_name] = manager
        state = {"type": "TeamState", "version": "1.0.0", "agent_states": states}
        live = self._live
        if unsaid := [*self._unsaid, *(live.inbox if live is not None and live.owner is self else ())]:
            state["inbox"] = codec.encode(unsaid)
        return self._save_suspension(state)

    async def checkpoint(self) -> Undo:
        marks = [self._mark(), *[await participant.checkpoint() for participant in self._participants]]
        if self._termination is not None:
            marks.append(await self._termination.checkpoint())

        async def restore() -> None:
            for undo in marks:
                await undo()

        return restore

    def _check_ready(self) -> None:
        if self._runtime is not None and not getattr(self._runtime, "is_running", True):
            raise ConfigError(f"the runtime given to team {self.name!r} is not running; call start() on it first")

    def _parts(self) -> Sequence[TaskRunner]:
        return self._participants

    async def _perform(self, run: Run, task: list[BaseChatMessage], output_task: bool) -> str | None:
        try:
            async with Seats(self.name, self._participants, self._runtime, run) as seats:
                reason = await run.work(self._converse(run, seats, task, output_task), f"team {self.name!r}")
            self._hear_late(run, True)
        except Suspended:
            raise
        except BaseException as error:
            turn = self._turn + 1
            try:
                self._hear_late(run, False)
            finally:
                await self._at_rest(run)
            if isinstance(error, CancelledError):  # out of its policy or its condition, unless the run was cut short
                blame(self.manager_name, turn, error, run)
            raise
        await self._at_rest(run)
        return reason

    async def _converse(self, run: Run, seats: Seats, task: list[BaseChatMessage], output_task: bool) -> str:
        """Deliver the task, which may be enough to stop; then turn after turn until there is a reason to."""
        if run.around:
            await self._note_undo(run)
        run.inbox[:0], self._unsaid = self._unsaid, []
        if self._termination is not None and self._termination.terminated:
            return ALREADY_TERMINATED
        if not run.begun:
            self.check_task(task)
        reason: str | None = None
        while reason is None:
            sent: list[BaseChatMessage] = []
            marks: list[Undo] = []
            try:
                if run.begun:
                    await run.turn()
                    sent = run.inbox[:]
                marks.append(self._mark())
                if self._asking is not None:
                    marks.append(await self._asking.checkpoint())
                if not run.begun:
                    self._hear(run, task, output_task)
                    reason = await self._judge(task) if task else None
                elif sent:
                    run.enter(f"sent {len(run.messages)}")
                    self._hear(run, sent, True)
                    del run.inbox[: len(sent)]
                    reason = await self._judge(sent)
                else:
                    run.enter(f"turn {self._turn + 1}")
                    reason = await self._take_turn(run, seats, marks)
            except Suspended:
                await run.roll_back()
                for undo in reversed(marks):
                    await undo()
                run.inbox[:0] = sent
                raise
            run.boundary()
        return reason

    def _hear(self, run: Run, messages: list[BaseChatMessage], output: bool) -> None:
        """Let everybody hear what comes from outside."""
        if output:
            for message in messages:
                run.emit(message)
        if messages:
            self.note(None, messages)  # if that fails, nobody has heard them
        for buffer in self._buffers.values():
            buffer.extend(messages)
        self._thread.extend(messages)

    def _hear_late(self, run: Run, output: bool) -> None:
        """Let everybody hear in the next run what was sent after the last turn."""
        self._hear(run, run.inbox, output)
        run.inbox.clear()

    async def _take_turn(self, run: Run, seats: Seats, marks: list[Undo]) -> str | None:
        floor = Floor(self, run, marks)
        selected = await self.conduct(floor)
        run.go_on()
        speakers = [selected] if isinstance(selected, str) else list(selected)
        said: list[Said] = []
        if speakers:
            for participant in seats.find(speakers):
                marks.append(await participant.checkpoint())
            if self._emit_team_events:
                run.emit(SelectSpeakerEvent(content=speakers, source=self.manager_name))
            said = await seats.ask(speakers, self._buffers, self._turn + 1)
            run.check()
        turns = list(zip(speakers, said, strict=True))
        for speaker, answer in turns:
            self.note(speaker, answer.thread)  # if that fails, nobody has spoken
        judged: list[Message] = list(floor.said)
        for speaker, answer in turns:
            self._thread.extend(answer.thread)
            judged.extend(answer.judged)
            for name, buffer in self._buffers.items():
                if name != speaker:
                    buffer.extend(answer.heard)
        if run.outer is not None:
            run.heard.extend(floor.said)
            for answer in said:
                run.heard.extend(answer.heard)
            run.judged.extend(judged)
        if not speakers:
            return floor.reason
        self._turn += 1
        reason = self.conclude(await self._judge(judged) if self._termination is not None else None)
        return self._out_of_turns() if reason is None else reason

    def _out_of_turns(self) -> str | None:
        """Why no further turn may begin, if so; None also in a team whose policy looks after that itself."""
        if self._max_turns is None or self._turn < self._max_turns:
            return None
        return f"Maximum number of turns {self._max_turns} reached."

    async def _judge(self, messages: Sequence[Message]) -> str | None:
        if self._termination is None:
            return None
        stop = await self._termination(messages)
        return stop.content if stop is not None else None

    async def _at_rest(self, run: Run) -> None:
        """Between runs the conversation stays; turns and termination begin again."""
        self._turn = 0
        if self._asking is not None:  # code of the user's, which may hang
            await run.tidy(self._asking.reset(), f"reset of the condition of team {self.name!r}")
        elif self._termination is not None:
            await self._termination.reset()

    def _mark(self) -> Undo:
        """How to take back what a turn changes in the team itself."""
        thread, length, turn, policy = self._thread, len(self._thread), self._turn, self.policy_state()
        buffers, lengths, unsaid = dict(self._buffers), [*map(len, self._buffers.values())], self._unsaid

        async def restore() -> None:
            del thread[length:]
            self._thread, self._turn, self._unsaid = thread, turn, unsaid
            self._buffers = {name: buffers[name][:until] for name, until in zip(buffers, lengths, strict=True)}
            self.set_policy_state(policy)

        return restore

    async def _load(self, state: Mapping[str, Any]) -> None:
        from . import codec

        expect_state(state, "TeamState", "agent_states", "inbox")
        states = state.get("agent_states")
        if not isinstance(states, dict):
            raise StateError("$.agent_states", f"expected an object, not {states!r:.80}")
        for name in (*self._names, self.manager_name):
            if name not in states:
                raise StateError("$.agent_states", f"Agent state for {name} not found in the saved state.")
        for name in states:
            if name not in self._names and name != self.manager_name:
                raise StateError("$.agent_states", f"there is no participant {name!r} in this team")
        buffers = {}
        for participant in self._participants:
            with below(f"$.agent_states.{participant.name}"):
                buffers[participant.name] = await self._load_seat(participant, states[participant.name])
        with below(f"$.agent_states.{self.manager_name}"):
            await self._load_manager(states[self.manager_name])
        unsaid = codec.decode(list[BaseChatMessage], state.get("inbox", []), mode="state", path="$.inbox")
        self._buffers, self._unsaid = buffers, unsaid

    @staticmethod
    async def _load_seat(participant: TaskRunner, state: Any) -> list[BaseChatMessage]:
        """Load a participant's state from that of its seat; returns what it has not heard yet."""
        from . import codec

        expect_state(state, "ChatAgentContainerState", "agent_state", "message_buffer")
        with below("$.agent_state"):
            await participant.load_state(state.get("agent_state"))
        buffer: list[BaseChatMessage] = codec.decode(
            list[BaseChatMessage], state.get("message_buffer"), mode="state", path="$.message_buffer"
        )
        return buffer

    async def _load_manager(self, state: Any) -> None:
        """The thread, the policy's part and the termination's, from a manager's state."""
        from . import codec

        ours = ("type", "version", "message_thread", "current_turn", "termination")
        policy = {key: value for key, value in state.items() if key not in ours} if isinstance(state, dict) else {}
        expect_state(state, self._manager_type(), *ours, *policy)
        item_type = BaseAgentEvent | BaseChatMessage
        thread = codec.decode(list[item_type], state.get("message_thread"), mode="state", path="$.message_thread")
        turn = codec.decode(int, state.get("current_turn"), mode="state", path="$.current_turn")
        self.set_policy_state(policy)
        if self._termination is not None:
            if "termination" in state:
                with below("$.termination"):
                    await self._termination.load_state(state["termination"])
            else:
                await self._termination.reset()
        self._thread, self._turn = thread, turn

    def _manager_type(self) -> str:
        return f"{self.manager_name.removesuffix('GroupChatManager')}ManagerState"


@contextmanager
def below(path: str) -> Iterator[None]:
    """Whatever state is wrong in here stands at this path."""
    try:
        yield
    except DecodeError as error:
        raise StateError(f"{path}{error.path.removeprefix('$')}", error.problem) from error


def _may_wait(condition: TerminationCondition) -> bool:
    """Whether code of the user's judges, which can ask somebody who answers later."""
    if isinstance(condition, FunctionalTermination) or type(condition).__module__ != TerminationCondition.__module__:
        return True
    return any(map(_may_wait, getattr(condition, "conditions", ())))


def _check_participants(team: str, participants: Sequence[Any], manager: str) -> None:
    if not isinstance(participants, (list, tuple)) or not participants:
        raise ConfigError(f"{team} needs at least one participant, in a list; not {participants!r}")
    names: list[str] = []
    for at, participant in enumerate(participants):
        if not isinstance(participant, (BaseChatAgent, BaseGroupChat)):
            whose = of_another_copy(participant, BaseChatAgent, BaseGroupChat)
            raise ConfigError(f"participants[{at}] of {team} must be an agent or a team, not {participant!r}{whose}")
        if participant.name in names:
            raise ConfigError(f"{team} has two participants named {participant.name!r}; names must be unique")
        if participant.name == manager:  # whose state stands beside theirs
            raise ConfigError(f"{team} keeps the name {manager!r} for itself; give that participant another")
        names.append(participant.name)


class RoundRobinGroupChat(BaseGroupChat):
    """A team whose members speak in turn, in the order given, each hearing all the others.

        team = RoundRobinGroupChat([writer, critic], termination_condition=TextMentionTermination("APPROVE"))
        result = await team.run(task="Write a haiku about rain.")

    Arguments as for `BaseGroupChat`. Whose turn it is stays from run to run; `reset` begins with the first again.
    """

    manager_name = "RoundRobinGroupChatManager"
    _next = 0

    async def select_speakers(self, thread: Sequence[Message]) -> Sequence[str]:
        name = self._names[self._next]
        self._next = (self._next + 1) % len(self._names)
        return (name,)

    def links(self) -> Sequence[Link]:
        after = [*self._names[1:], self._names[0]]
        return [(None, self._names[0], ""), *((name, after[at], "") for at, name in enumerate(self._names))]

    def policy_state(self) -> dict[str, Any]:
        return {"next_speaker_index": self._next}

    def set_policy_state(self, state: Mapping[str, Any] | None) -> None:
        index = 0 if state is None else state.get("next_speaker_index")
        if state is not None and set(state) != {"next_speaker_index"}:
            raise StateError("$", f"expected next_speaker_index, not {sorted(state)}")
        if type(index) is not int or not 0 <= index < len(self._names):
            raise StateError("$.next_speaker_index", f"expected a number below {len(self._names)}, not {index!r:.80}")
        self._next = index
