"""The team with an orchestrator: it gathers facts, makes a plan, and keeps a ledger of the progress.

Theory of operation. A task is planned first: what is known, then what to do. All members forget what they heard and
get that as the *task ledger*. Before every turn the model fills in the *progress ledger*: whether the request is
satisfied, whether the work moves on, who speaks next and what they are told. Too many stalls, and facts and plan are
written again, with everybody starting over from them; at most once between two turns, so that a run always moves on.

A progress ledger that cannot be used is asked for again, with what is wrong with it. After `ATTEMPTS` a stated one
takes its place: nothing is settled, nothing moved, and the members go on with the plan in their order.
"""

from __future__ import annotations

import logging
from dataclasses import field, make_dataclass
from enum import Enum
from functools import lru_cache

from . import magentic_prompts as prompts
from .agents import current_token, expect_client
from .errors import ConfigError, DecodeError, positive_int
from .messages import (
    AssistantMessage,
    BaseChatMessage,
    Image,
    MultiModalMessage,
    RequestUsage,
    TextMessage,
    UserMessage,
)
from .models import ask
from .records import SPARSE, Record
from .teams import BaseGroupChat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from .actors import AgentRuntime
    from .agents import BaseChatAgent
    from .conditions import TerminationCondition
    from .messages import LLMMessage
    from .models import ChatCompletionClient
    from .teams import Floor, Message

_log = logging.getLogger("tinygen.teams")

ATTEMPTS = 10  # how often the model is asked for a progress ledger that can be used
_NO_ANSWER = "(no answer)"  # stands for a reply without text, which providers would not take back


class MagenticOneGroupChat(BaseGroupChat):
    """A team led by an orchestrator: a model that plans, says who does what next, and gives the final answer.

        team = MagenticOneGroupChat([surfer, coder], model_client)
        print((await team.run(task="Which of these two papers was cited more?")).messages[-1].to_text())

    A new task begins afresh: the members forget the last one. A run without a task goes on with the last one.

    Further arguments as for `BaseGroupChat`.

    Args:
        participants: agents or teams, with different names; their descriptions are what the orchestrator knows.
        model_client: the orchestrator's model.
        termination_condition: looks at every message and says when to stop; there is no final answer then.
        max_turns: after so many turns of members the final answer is given; None for no limit.
        max_stalls: after so many rounds without progress facts and plan are written again.
        final_answer_prompt: asks for the final answer; `{task}` in it stands for the task.
    """

    manager_name = "MagenticOneOrchestrator"
    ends_by_itself = True

    def __init__(
        self,
        participants: Sequence[BaseChatAgent | BaseGroupChat],
        model_client: ChatCompletionClient,
        *,
        name: str | None = None,
        description: str | None = None,
        termination_condition: TerminationCondition | None = None,
        max_turns: int | None = 20,
        runtime: AgentRuntime | None = None,
        max_stalls: int = 3,
        final_answer_prompt: str = prompts.ORCHESTRATOR_FINAL_ANSWER_PROMPT,
        custom_message_types: Sequence[type[Message]] | None = None,
        emit_team_events: bool = False,
    ) -> None:
        super().__init__(
            participants,
            name=name,
            description=description,
            termination_condition=termination_condition,
            max_turns=max_turns,
            runtime=runtime,
            custom_message_types=custom_message_types,
            emit_team_events=emit_team_events,
        )
        expect_client(model_client)
        if not isinstance(final_answer_prompt, str):
            raise ConfigError(f"final_answer_prompt must be text, not {final_answer_prompt!r:.80}")
        self._model_client = model_client
        self._max_stalls = positive_int("max_stalls", max_stalls)
        self._final_answer_prompt = final_answer_prompt
        self._team = "\n".join(f"{each.name}: {' '.join(each.description.split())}" for each in participants)
        self._work = _Work()
        self._told: list[LLMMessage] = []  # what the model is told of `_told_of`, of the first `_told_until` of it
        self._told_of: Sequence[Message] = ()
        self._told_until = 0

    async def conduct(self, floor: Floor) -> Sequence[str]:
        return await _Round(self, floor).play()

    def check_task(self, task: Sequence[BaseChatMessage]) -> None:
        work = self._work
        if not (task or work.task or work.n_rounds or work.unread):
            raise ConfigError(f"team {self.name!r} has no task to go on with; pass one: run(task=...)")

    def note(self, speaker: str | None, said: Sequence[Message]) -> None:
        if speaker is None and said:
            self._work.unread += len(said)

    def policy_state(self) -> dict[str, Any]:
        from . import codec

        state: dict[str, Any] = codec.encode(self._work)
        return state

    def set_policy_state(self, state: Mapping[str, Any] | None) -> None:
        from . import codec

        self._work = codec.decode(_Work, dict(state or {}), mode="state")

    def _manager_type(self) -> str:
        return f"{self.manager_name}State"

    def _out_of_turns(self) -> str | None:
        return None  # then there is the final answer to be given

    def _retell(self, thread: Sequence[Message]) -> list[LLMMessage]:
        """What was said, for the model: its own words as its own, except the task ledger that stands first.

        Each message is made into the model's once: clients keep what they made of it.
        """
        if thread is not self._told_of or len(thread) < self._told_until:
            self._told, self._told_of, self._told_until = [], thread, 0
        for message in thread[self._told_until :]:
            if isinstance(message, BaseChatMessage):
                made: LLMMessage = message.to_model_message()
                if self._told and message.source == self.manager_name:
                    made = AssistantMessage(content=message.to_model_text(), source=message.source)
                elif not self._model_client.model_info["vision"] and not isinstance(made.content, str):
                    made = UserMessage(content=message.to_model_text(), source=message.source)
                self._told.append(made)
        self._told_until = len(thread)
        return self._told


class _Work(Record, tagged=False):
    """What the orchestrator remembers; changes as it goes on.

    `unread` is how many of the last messages of the thread it has not read yet.
    """

    task: str = ""
    facts: str = ""
    plan: str = ""
    n_rounds: int = 0  # progress ledgers since the plan was first made; 0 if there is none
    n_stalls: int = 0
    unread: int = field(default=0, metadata=SPARSE)


class _Progress:
    """What is of use in a progress ledger."""

    def __init__(self, satisfied: str | None, stalled: bool, speaker: str, instruction: str) -> None:
        self.satisfied = satisfied  # the reason, if it is
        self.stalled, self.speaker, self.instruction = stalled, speaker, instruction


class _Round:
    """What the orchestrator does before one turn: plan if need be, look at the progress, say what to do next."""

    def __init__(self, team: MagenticOneGroupChat, floor: Floor) -> None:
        self.team = team
        self.work = team._work
        self.floor = floor
        self.usage: RequestUsage | None = None  # of what was asked since something was said

    async def play(self) -> Sequence[str]:
        """The name of who speaks next; none if the run is over."""
        team = self.team
        news = self.read_news()
        if team._max_turns is not None and self.floor.turns >= team._max_turns:
            return await self.finish("Max rounds reached.")
        if not self.work.n_rounds:
            await self.plan(news or self.floor.thread)
        progress = await self.look_at_progress()
        if progress.satisfied is None and self.count_stall(progress) >= team._max_stalls:
            await self.plan_again()
            progress = await self.look_at_progress()
        if progress.satisfied is not None:
            return await self.finish(progress.satisfied)
        self.say(progress.instruction)
        return (progress.speaker,)

    def read_news(self) -> Sequence[Message]:
        """Read what the user said since the last turn: a task if the run begins with it, else more of the same one."""
        thread, work = self.floor.thread, self.work
        if not work.unread:
            return ()
        news = thread[len(thread) - work.unread :]
        text = "\n".join(message.to_model_text() for message in news if isinstance(message, BaseChatMessage))
        if self.floor.turns:
            work.task, work.unread = f"{work.task}\n{text}", 0
        else:
            self.work = self.team._work = _Work(task=text)
        return news

    async def plan(self, words: Sequence[Message]) -> None:
        """Make a plan for a task of which nothing is known yet; `words` are those it was given in."""
        pictures = self.pictures(words)
        prompt = prompts.FACTS.format(task=self.work.task)
        sees = pictures and self.team._model_client.model_info["vision"]
        request = UserMessage(content=[prompt, *pictures] if sees else prompt, source=self.team.manager_name)
        await self.think([request], prompts.PLAN, pictures)

    async def plan_again(self) -> None:
        """Make another plan, from what was learnt."""
        thread, work = self.floor.thread, self.work
        request = self.user(prompts.FACTS_UPDATE.format(task=work.task, facts=work.facts))
        await self.think([*self.team._retell(thread), request], prompts.PLAN_UPDATE, self.pictures(thread))

    async def think(self, request: list[LLMMessage], plan_prompt: str, pictures: list[Image]) -> None:
        """Write down the facts that `request` asks for, then a plan, and let everybody start over from them."""
        team, work = self.team, self.work
        facts = await self.ask(request)
        said = AssistantMessage(content=facts, source=team.manager_name)
        plan = await self.ask([*request, said, self.user(plan_prompt.format(team=team._team))])
        await self.floor.start_over()
        work.facts, work.plan, work.n_stalls = facts, plan, 0
        self.say(prompts.LEDGER.format(task=work.task, team=team._team, facts=facts, plan=plan), pictures)

    async def look_at_progress(self) -> _Progress:
        """Ask for the progress ledger, until there is one that can be used."""
        team, work = self.team, self.work
        work.n_rounds += 1
        names = ", ".join(team._names)
        request = self.user(prompts.PROGRESS.format(task=work.task, team=team._team, names=names))
        shape = ledger_type(tuple(team._names))
        correction: list[LLMMessage] = []
        for _ in range(ATTEMPTS):
            text = await self.ask([*team._retell(self.floor.thread), request, *correction], shape)
            try:
                return _read_progress(text, shape)
            except DecodeError as error:
                problem = str(error)
            said = AssistantMessage(content=text, source=team.manager_name)
            correction = [said, self.user(prompts.CORRECTION.format(problem=problem))]
        _log.warning("team %r got no progress ledger it could use in %d attempts: %s", team.name, ATTEMPTS, problem)
        speaker = team._names[(work.n_rounds - 1) % len(team._names)]
        return _Progress(None, stalled=True, speaker=speaker, instruction=prompts.GO_ON)

    def count_stall(self, progress: _Progress) -> int:
        """How many stalls there were that no progress has made good."""
        self.work.n_stalls = max(0, self.work.n_stalls + (1 if progress.stalled else -1))
        return self.work.n_stalls

    async def finish(self, reason: str) -> Sequence[str]:
        """Give the final answer."""
        prompt = self.team._final_answer_prompt.replace("{task}", self.work.task)
        self.say(await self.ask([*self.team._retell(self.floor.thread), self.user(prompt)]))
        return self.floor.stop(reason)

    async def ask(self, messages: Sequence[LLMMessage], shape: type | None = None) -> str:
        """What the model says to this, as text; in JSON of that shape as far as the model can promise it."""
        client = self.team._model_client
        info = client.model_info
        promise = None if shape is None else shape if info.get("structured_output") else info["json_output"] or None
        with self.floor.blaming(self.team.manager_name):
            result = await ask(client, messages, json_output=promise, cancellation_token=current_token())
        self.usage = result.usage if self.usage is None else self.usage + result.usage
        text = result.content
        return text if isinstance(text, str) and text.strip() else _NO_ANSWER

    def say(self, text: str, pictures: Sequence[Image] = ()) -> None:
        source, usage, self.usage = self.team.manager_name, self.usage, None
        if pictures:
            self.floor.say(MultiModalMessage(content=[text, *pictures], source=source, models_usage=usage))
        else:
            self.floor.say(TextMessage(content=text, source=source, models_usage=usage))

    def user(self, text: str) -> UserMessage:
        return UserMessage(content=text, source=self.team.manager_name)

    def pictures(self, messages: Sequence[Message]) -> list[Image]:
        """The pictures that come with the task, not from members."""
        return [
            part
            for message in messages
            if isinstance(message, MultiModalMessage) and message.source not in self.team._names
            for part in message.content
            if isinstance(part, Image)
        ]


@lru_cache(maxsize=64)
def ledger_type(names: tuple[str, ...]) -> type:
    """The type of a progress ledger in a team of these names."""
    speaker = Enum("Speaker", [(f"_{at}", name) for at, name in enumerate(names)])  # type: ignore[misc]

    def reasoned(kind: type) -> type:
        return make_dataclass(f"Reasoned{kind.__name__.capitalize()}", [("reason", str), ("answer", kind)])

    judgement, text = reasoned(bool), reasoned(str)
    fields = [
        ("is_request_satisfied", judgement),
        ("is_in_loop", judgement),
        ("is_progress_being_made", judgement),
        ("next_speaker", reasoned(speaker)),
        ("instruction_or_question", text),
    ]
    return make_dataclass("LedgerEntry", fields)


def _read_progress(text: str, shape: type) -> _Progress:
    """The progress ledger in what the model said, also within other text. Raises `DecodeError`."""
    from . import codec

    entry = codec.decode(shape, _find_json(text))
    satisfied = entry.is_request_satisfied
    return _Progress(
        (satisfied.reason or "The request is satisfied.") if satisfied.answer else None,
        stalled=entry.is_in_loop.answer or not entry.is_progress_being_made.answer,
        speaker=entry.next_speaker.answer.value,
        instruction=entry.instruction_or_question.answer,
    )


def _find_json(text: str) -> Any:
    """The data in JSON text that may stand in a code fence or between other words."""
    from . import codec

    try:
        return codec.loads(text)
    except DecodeError:
        blocks = (block[block.find("{") :].rstrip() for block in text.split("```")[1::2])
        fenced = next((block for block in blocks if block.startswith("{") and block.endswith("}")), "")
        inner = fenced or text[text.find("{") : text.rfind("}") + 1]
        if not inner or inner == text:
            raise
    return codec.loads(inner)
