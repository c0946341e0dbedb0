"""A team in which a model, or a function, chooses who speaks next.

Theory of operation. Who may speak are the *candidates*: what `candidate_func` returns, else everybody but the previous
speaker. A single candidate speaks; otherwise the model is asked. It is held to a schema with the candidates' names
where it can be, and its answer is read as text in any case: the one speaker it names is taken if that is a candidate.
What is wrong with any other answer is told to the model, which is asked again. After the last attempt the only
candidate in its answer speaks, or else the candidate whose turn it would be in a round.
"""

from __future__ import annotations

import logging
import re
from dataclasses import make_dataclass
from enum import Enum
from functools import lru_cache
from inspect import isawaitable

from .agents import current_token, expect_client
from .errors import ConfigError, DecodeError, RequestError, StateError, did_you_mean, positive_int
from .journal import effect
from .messages import AssistantMessage, BaseChatMessage, FunctionCall, SelectorEvent, SystemMessage, UserMessage
from .model_context import given_context
from .models import ChatCompletionClient, ask, ask_stream
from .teams import BaseGroupChat, below

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
    from typing import Any

    from .actors import AgentRuntime
    from .agents import BaseChatAgent
    from .conditions import TerminationCondition
    from .messages import CreateResult, LLMMessage
    from .model_context import ChatCompletionContext
    from .models import ModelInfo
    from .runner import Undo
    from .teams import Floor, Message

    SelectorFunc = Callable[[Sequence[Message]], str | Awaitable[str | None] | None]
    CandidateFunc = Callable[[Sequence[Message]], list[str] | Awaitable[list[str]]]

_log = logging.getLogger("tinygen.teams")

SELECTOR_PROMPT = """You lead a conversation among these speakers:
{roles}

This is what was said so far:

{history}

Choose who of {participants} shall speak next. Answer with that name alone.
"""


class SelectorGroupChat(BaseGroupChat):
    """A team whose next speaker is chosen by a model that reads the conversation, or by a function of yours.

        team = SelectorGroupChat(
            [planner, searcher, analyst], model_client, termination_condition=TextMentionTermination("TERMINATE")
        )

    Further arguments as for `BaseGroupChat`.

    Args:
        participants: at least two agents or teams; the model reads their names and descriptions.
        model_client: the model that chooses.
        selector_prompt: what it is asked. `{roles}` stands for names and descriptions, `{participants}` for the
            candidates, `{history}` for the conversation; every other brace is an ordinary character.
        allow_repeated_speaker: whether who has just spoken may be chosen again.
        max_selector_attempts: how often the model is asked for a name that it may give.
        selector_func: gets the thread and returns a name, or None to let the model choose. Plain or async.
        candidate_func: gets the thread and returns who may be chosen, repeated speakers included. Plain or async.
        model_client_streaming: show the model's words as `SelectorEvent`s.
        model_context: what the model sees of the conversation; all of it if left out.
    """

    manager_name = "SelectorGroupChatManager"

    def __init__(
        self,
        participants: Sequence[BaseChatAgent | BaseGroupChat],
        model_client: ChatCompletionClient,
        *,
        name: str | None = None,
        description: str | None = None,
        termination_condition: TerminationCondition | None = None,
        max_turns: int | None = None,
        runtime: AgentRuntime | None = None,
        selector_prompt: str = SELECTOR_PROMPT,
        allow_repeated_speaker: bool = False,
        max_selector_attempts: int = 3,
        selector_func: SelectorFunc | None = None,
        candidate_func: CandidateFunc | None = None,
        custom_message_types: Sequence[type[Message]] | None = None,
        emit_team_events: bool = False,
        model_client_streaming: bool = False,
        model_context: ChatCompletionContext | None = None,
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
        if len(participants) < 2:
            raise ConfigError("SelectorGroupChat needs at least two participants to choose from")
        expect_client(model_client)
        if not isinstance(selector_prompt, str):
            raise ConfigError(f"selector_prompt must be a text, not {selector_prompt!r:.80}")
        for argument, function in (("selector_func", selector_func), ("candidate_func", candidate_func)):
            if function is not None and not callable(function):
                raise ConfigError(f"{argument} must be a function of the thread, not {function!r:.80}")
        self._model = _Constrained(model_client)
        self._prompt = selector_prompt
        self._allow_repeated_speaker = allow_repeated_speaker
        self._max_attempts = positive_int("max_selector_attempts", max_selector_attempts)
        self._selector_func = selector_func
        self._candidate_func = candidate_func
        self._streaming = model_client_streaming
        self._keeps_context = model_context is not None
        self._context = given_context(model_context)
        self._heard = 0  # how much of the thread is in the context
        self._previous: str | None = None
        roles = [" ".join(f"{each.name}: {each.description}".split()) for each in participants]
        self._roles = "\n".join(roles)
        self._known = _spellings(self._names)
        longest_first = sorted(self._known, key=len, reverse=True)
        self._pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)")

    async def conduct(self, floor: Floor) -> Sequence[str]:
        if self._selector_func is not None:
            chosen = await _decision("selector_func", self._selector_func, floor.thread)
            if chosen is not None:
                return self._checked("selector_func", [chosen])
        if self._candidate_func is not None:
            allowed = await _decision("candidate_func", self._candidate_func, floor.thread)
            candidates = self._checked("candidate_func", allowed)
        else:
            candidates = [name for name in self._names if name != self._previous or self._allow_repeated_speaker]
        return candidates if len(candidates) == 1 else [await self._choose(floor, candidates)]

    def note(self, speaker: str | None, said: Sequence[Message]) -> None:
        if speaker is not None:
            self._previous = speaker

    def policy_state(self) -> dict[str, Any]:
        return {"previous_speaker": self._previous}

    def set_policy_state(self, state: Mapping[str, Any] | None) -> None:
        previous = None if state is None else state.get("previous_speaker")
        if state is not None and set(state) - {"model_context"} != {"previous_speaker"}:
            raise StateError("$", f"expected previous_speaker, not {sorted(state)}")
        if previous is not None and previous not in self._names:
            raise StateError("$.previous_speaker", f"expected a participant or null, not {previous!r:.80}")
        self._previous = previous

    async def reset(self) -> None:
        await super().reset()
        await self._context.clear()
        self._heard = 0

    async def save_state(self) -> Mapping[str, Any]:
        state = await super().save_state()
        if self._keeps_context:
            await self._listen()
            state["agent_states"][self.manager_name]["model_context"] = dict(await self._context.save_state())
        return state

    async def _load_manager(self, state: Any) -> None:
        await super()._load_manager(state)
        await self._context.clear()
        self._heard = 0
        if state.get("model_context") is not None:
            with below("$.model_context"):
                await self._context.load_state(state["model_context"])
            self._heard = len(self._thread)

    def _mark(self) -> Undo:
        undo_team, undo_context, heard = super()._mark(), self._context.checkpoint(), self._heard

        async def restore() -> None:
            await undo_team()
            undo_context()
            self._heard = heard

        return restore

    def _checked(self, function: str, names: Any) -> list[str]:
        """The names a function of the user's returned, found to be participants."""
        if not isinstance(names, (list, tuple)) or not names:
            raise ConfigError(f"{function} of team {self.name!r} must return a list of names, not {names!r:.80}")
        for name in names:
            if name not in self._names:
                hint = did_you_mean(f"{name!s:.80}", self._names)
                raise ConfigError(f"{function} of team {self.name!r} chose {name!r:.80}, who is not in it{hint}")
        return list(dict.fromkeys(names))

    async def _choose(self, floor: Floor, candidates: list[str]) -> str:
        """The candidate the model names; a stated one if it names none in as many attempts as it has."""
        await self._listen()
        prompt = self._filled(candidates, await self._context.get_messages())
        is_openai = self._model.model_info["family"].startswith(("gpt-", "o1", "o3", "o4"))
        messages: list[LLMMessage] = [
            SystemMessage(content=prompt) if is_openai else UserMessage(content=prompt, source="user")
        ]
        named: list[str] = []
        for _ in range(self._max_attempts):
            answer = await self._ask(floor, messages, candidates)
            named = self._named(answer)
            if len(named) == 1 and named[0] in candidates:
                return named[0]
            said = AssistantMessage(content=answer if answer.strip() else "(nothing)", source="selector")
            complaint = UserMessage(content=self._complaint(named, candidates), source="user")
            messages = [*messages, said, complaint]  # a list of its own: the journal holds the former
        fitting = [name for name in named if name in candidates]
        chosen = fitting[0] if len(fitting) == 1 else self._next_in_round(candidates)
        _log.warning(
            "the model of team %r named no candidate in %d attempts; %r speaks", self.name, self._max_attempts, chosen
        )
        return chosen

    async def _listen(self) -> None:
        """Take what was said since the last time into the context."""
        thread = self._thread
        while self._heard < len(thread):
            message = thread[self._heard]
            self._heard += 1
            if isinstance(message, BaseChatMessage):
                await self._context.add_message(message.to_model_message())

    def _filled(self, candidates: list[str], messages: Sequence[LLMMessage]) -> str:
        """The prompt with its three fields filled in; whatever else stands in braces is left alone."""
        fields = {
            "{roles}": self._roles,
            "{participants}": str(candidates),
            "{history}": "\n\n".join(map(_line, messages)),
        }
        return re.sub("|".join(map(re.escape, fields)), lambda found: fields[found.group()], self._prompt)

    async def _ask(self, floor: Floor, messages: list[LLMMessage], candidates: list[str]) -> str:
        choice = _choice(tuple(candidates)) if self._model.model_info.get("structured_output") else None
        token = current_token()
        result: Any = None
        with floor.blaming(self.manager_name):
            if not self._streaming:
                result = await ask(self._model, messages, json_output=choice, cancellation_token=token)
            else:
                async for result in ask_stream(self._model, messages, json_output=choice, cancellation_token=token):
                    if isinstance(result, str):
                        floor.show(SelectorEvent(content=str(result), source=self.manager_name))
        content = getattr(result, "content", None)
        return content if isinstance(content, str) else ""

    def _named(self, answer: str) -> list[str]:
        """The participants an answer names, which may be a JSON object with a `speaker`."""
        from . import codec

        if answer.lstrip().startswith("{"):
            try:
                answer = codec.loads(answer)["speaker"]
            except (DecodeError, KeyError):
                pass
        return list(dict.fromkeys(self._known[each] for each in self._pattern.findall(str(answer))))

    def _complaint(self, named: list[str], candidates: list[str]) -> str:
        if not named:
            problem = "This names none of the speakers."
        elif len(named) > 1:
            problem = f"This names {len(named)} speakers: {', '.join(named)}."
        elif named[0] == self._previous:
            problem = f"{named[0]} has just spoken and cannot speak again now."
        else:
            problem = f"{named[0]} cannot speak now."
        return f"{problem} Answer with exactly one of {candidates} and nothing else."

    def _next_in_round(self, candidates: list[str]) -> str:
        """The first candidate after the previous speaker, in the order of the participants."""
        start = 0 if self._previous is None else self._names.index(self._previous) + 1
        return next(name for name in self._names[start:] + self._names[:start] if name in candidates)


async def _decision(name: str, function: Callable[[Any], Any], thread: Sequence[Message]) -> Any:
    """What a function of the user's decides, once: a turn that is executed again does not ask it again."""

    async def call() -> Any:
        answer = function(thread)
        return await answer if isawaitable(answer) else answer

    return await effect("selection", {"function": name, "messages": len(thread)}, call, name=name)


def _spellings(names: Sequence[str]) -> dict[str, str]:
    """How models write names, and whom they mean."""
    known = {name: name for name in names}
    for name in names:
        known.setdefault(name.replace("_", " "), name)
        known.setdefault(name.replace("_", r"\_"), name)
    return known


@lru_cache(maxsize=256)
def _choice(candidates: tuple[str, ...]) -> type[Any]:
    """The type of an answer that can hold nothing but a candidate."""
    names = Enum("Speaker", [(f"speaker_{at}", name) for at, name in enumerate(candidates)])  # type: ignore[misc]
    return make_dataclass("Choice", [("speaker", names)])


def _line(message: LLMMessage) -> str:
    """A message as a line of the history."""
    content: Any = message.content
    if not isinstance(content, str):
        content = "\n".join(map(_part, content))
    source = getattr(message, "source", None)
    return f"{source}: {content}" if source else str(content)


def _part(part: Any) -> str:
    if isinstance(part, FunctionCall):
        return f"{part.name}({part.arguments})"
    return part if isinstance(part, str) else str(getattr(part, "content", "[image]"))


class _Constrained(ChatCompletionClient):
    """A model that is asked without the schema where its provider refuses the request with it.

    Both is one effect: a server that is thought capable of more than it is costs a request, not a run.
    """

    def __init__(self, client: ChatCompletionClient) -> None:
        self._client = client
        self._refused = False

    @property
    def model_info(self) -> ModelInfo:
        return self._client.model_info

    def billing(self) -> tuple[str, Mapping[str, Any] | None]:
        return self._client.billing()

    async def create(self, messages: Sequence[LLMMessage], **arguments: Any) -> CreateResult:
        if self._refused:
            arguments.pop("json_output", None)
        try:
            return await self._client.create(messages, **arguments)
        except RequestError:
            if arguments.pop("json_output", None) is None:
                raise
        result = await self._client.create(messages, **arguments)
        self._refused = True
        return result

    async def create_stream(
        self, messages: Sequence[LLMMessage], **arguments: Any
    ) -> AsyncGenerator[str | CreateResult, None]:
        begun = False
        if self._refused:
            arguments.pop("json_output", None)
        try:
            async for piece in self._client.create_stream(messages, **arguments):
                begun = True
                yield piece
            return
        except RequestError:
            if begun or arguments.pop("json_output", None) is None:
                raise
        async for piece in self._client.create_stream(messages, **arguments):
            yield piece
        self._refused = True
