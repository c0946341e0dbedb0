"""Agents: a loop over a model and tools. They know nothing of actors, teams or the network.

An agent is stateful: it is given only what is new and remembers the rest. Write one of your own in ten lines:

    class Echo(BaseChatAgent):
        produced_message_types = (TextMessage,)

        async def on_messages(self, messages, cancellation_token):
            return Response(chat_message=TextMessage(content=messages[-1].to_text(), source=self.name))

        async def on_reset(self, cancellation_token): ...
"""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import sys
from collections import deque
from contextvars import ContextVar
from copy import copy
from functools import partial

from .branches import put_in_order
from .cancellation import CancellationToken
from .clock import new_id
from .errors import AgentFailed, AlreadyRunning, ConfigError, StateError, Suspended, TinygenError, of_another_copy
from .journal import effect
from .messages import (
    BaseAgentEvent,
    BaseChatMessage,
    HandoffMessage,
    ModelClientStreamingChunkEvent,
    Response,
    TextMessage,
    UserInputRequestedEvent,
)
from .records import Record
from .run import current_scope
from .runner import TaskRunner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
    from typing import Any, TypeVar

    from .run import Run, Scope
    from .runner import Undo

    Said = BaseAgentEvent | BaseChatMessage | Response
    T = TypeVar("T")

_COPIED = (list, dict, set, deque)  # what `copy` makes another of that holds the same


_DEEPER = re.compile("/tool |/turn ")  # in the ids of what is said in tools and teams


class BaseChatAgent(TaskRunner):
    """Base of all agents. A subclass defines `on_messages` (or the stream), `on_reset` and what it produces.

    Args:
        name: a Python identifier, unique in its team.
        description: what it is for; selectors read it.
    """

    component_type = "agent"
    _state_type = "BaseState"
    _turn_of: Run | None = None
    opaque = False
    """Set to True in a class whose turn is not determined by its messages and effects: its whole turn is then one
    effect, recorded with the state it led to."""

    def __init__(self, name: str, description: str) -> None:
        if not isinstance(name, str) or not name.isidentifier():
            raise ConfigError(f"an agent's name must be a Python identifier such as 'web_searcher', not {name!r}")
        self._name = name
        self._description = description

    @property
    def name(self) -> str:  # type: ignore[override]
        """What others call it."""
        return self._name

    @property
    def description(self) -> str:  # type: ignore[override]
        """What it is for."""
        return self._description

    @property
    def produced_message_types(self) -> Sequence[type[BaseChatMessage]]:
        """The message types its responses have."""
        raise NotImplementedError(f"{type(self).__name__} must define produced_message_types")

    async def on_messages(self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken) -> Response:
        """Answer `messages`, which are what is new since the last call; by the stream if that is what there is."""
        if type(self).on_messages_stream is BaseChatAgent.on_messages_stream:
            raise NotImplementedError(f"{type(self).__name__} must define on_messages() or on_messages_stream()")
        response: Response | None = None
        async for item in self.on_messages_stream(messages, cancellation_token):  # one that is dropped costs a task
            if isinstance(item, Response):
                response = item
        if response is None:
            raise misbehaved(self, "ended its turn without a Response")
        return response

    async def on_messages_stream(
        self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken
    ) -> AsyncGenerator[Said, None]:
        """Answer `messages`: events as they happen, the `Response` last."""
        response = await self.on_messages(messages, cancellation_token)
        if not isinstance(response, Response):
            raise misbehaved(self, f"returned {response!r:.80} from on_messages; expected a Response(chat_message=...)")
        for message in response.inner_messages or ():
            yield message
        yield response

    async def on_reset(self, cancellation_token: CancellationToken) -> None:
        """Forget everything since construction."""
        raise NotImplementedError(f"{type(self).__name__} must define on_reset()")

    async def save_state(self) -> Mapping[str, Any]:
        """What `load_state` needs to go on elsewhere, as JSON data."""
        return self._save_suspension({"type": self._state_type, "version": "1.0.0", **await self._state_fields()})

    async def reset(self) -> None:
        await self._idle()
        await self.on_reset(CancellationToken())
        self._suspension = None

    async def close(self) -> None:
        """Let go of what it holds."""

    async def checkpoint(self) -> Undo:
        """Go back to now, later: by `save_state` where a subclass defines it, else by its attributes as they are.

        Lists, dicts and sets among them are copied, what they hold is not: an agent with a long memory overrides this.
        """
        if type(self).save_state is BaseChatAgent.save_state:
            return self.mark_attributes()
        state = await self.save_state()

        async def reload() -> None:
            await self.load_state(state)

        return reload

    def mark_attributes(self) -> Undo:
        """How to set every attribute back to what it is now."""
        marked = {name: copy(value) if isinstance(value, _COPIED) else value for name, value in vars(self).items()}

        async def restore() -> None:
            live, suspension, turn = self._live, self._suspension, self._turn_of
            self.__dict__.clear()
            self.__dict__.update(marked)
            self._live, self._suspension, self._turn_of = live, suspension, turn

        return restore

    async def take_turn(self, messages: Sequence[BaseChatMessage], run: Run) -> Response:
        """Answer `messages` as part of `run`, in a scope of it; says there what it says.

        Raises `AlreadyRunning` in mid-turn.
        """
        if self._at_work:
            raise AlreadyRunning(self.name)
        self._turn_of = run
        scope = current_scope()
        assert scope is not None
        scope.agent = self.name
        mark, outer, event = len(scope.said), scope.event, ""
        failed: dict[str, Any] = {}
        if run.listeners:
            event = run.tell_start("agent", self.name, {})
            scope.event = event
        try:
            response = await (self._opaque_turn(messages, run) if self.opaque else self._turn(messages, run.emit))
            run.check()
        except BaseException as failure:
            failed["error.type"] = type(failure).__name__
            raise
        finally:
            if self._turn_of is run:
                self._turn_of = None
            if event:
                scope.event = outer
                run.tell_end(event, failed)
        put_in_order(scope.said, mark, response.inner_messages or ())
        run.emit(response.chat_message)
        return response

    async def _state_fields(self) -> dict[str, Any]:
        """What its state holds, by key."""
        return {}

    async def _load(self, state: Mapping[str, Any]) -> None:
        expect_state(state, self._state_type)

    @property
    def _at_work(self) -> bool:
        return self._turn_of is not None and self._turn_of.live

    async def _turn(self, messages: Sequence[BaseChatMessage], say: Callable[[Any], None]) -> Response:
        response: Response | None = None
        token = current_token()
        stream = self.on_messages_stream(messages, token)
        try:
            async for item in stream:
                if isinstance(item, Response):
                    response = item
                elif isinstance(item, (BaseAgentEvent, BaseChatMessage)):
                    say(item)
                else:
                    raise misbehaved(self, f"yielded {item!r}; expected messages, events and a Response")
        finally:
            if close := getattr(stream, "aclose", None):
                await close()
        if response is None:
            raise misbehaved(self, "ended its turn without a Response")
        if not isinstance(response.chat_message, BaseChatMessage):
            raise misbehaved(self, f"answered with {response.chat_message!r}, which is not a chat message")
        return response

    async def _opaque_turn(self, messages: Sequence[BaseChatMessage], run: Run) -> Response:
        live = False

        async def call() -> OpaqueTurn:
            nonlocal live
            live, said = True, []

            def say(item: Any) -> None:
                run.emit(item)
                if not isinstance(item, ModelClientStreamingChunkEvent):
                    said.append(item)

            response = await self._turn(messages, say)
            return OpaqueTurn(said=said, response=response, state=dict(await self.save_state()))

        turn = await effect("turn", list(messages), call, OpaqueTurn, name=self.name)
        if not live:
            for item in turn.said:
                run.emit(item)
            self._turn_of = None  # no state is loaded in mid-turn, but this turn is over
            await self.load_state(turn.state)
        return turn.response

    async def _perform(self, run: Run, task: list[BaseChatMessage], output_task: bool) -> str | None:
        if output_task:
            for message in task:
                run.emit(message)
        marks: list[Undo] = []
        try:
            await run.work(self._work(task, run, marks), f"turn of agent {self.name!r}")
            run.check()
        except Suspended:
            await run.tidy(self._take_back(run, marks), f"undoing of agent {self.name!r}")
            raise
        except asyncio.CancelledError as stray:
            if run.ending:
                raise
            raise AgentFailed(self.name, 1, None, stray) from stray
        return run.ledger.passed()

    async def _work(self, task: Sequence[BaseChatMessage], run: Run, marks: list[Undo]) -> None:
        if run.around:
            await self._note_undo(run)
        marks.append(await self.checkpoint())
        await self.take_turn(task, run)

    @staticmethod
    async def _take_back(run: Run, marks: list[Undo]) -> None:
        await run.roll_back()
        for undo in marks:
            await undo()


class OpaqueTurn(Record):
    """The recorded turn of an opaque agent: what it said, and the state it led to."""

    said: list[BaseAgentEvent | BaseChatMessage]
    response: Response
    state: dict[str, Any]


async def suspend(prompt: str, cancellation_token: CancellationToken | None = None) -> str:
    """An `input_func` for people who are not there now: the run is suspended until somebody answers.

    agent = UserProxyAgent("user", input_func=suspend)
    """
    raise Suspended


class UserProxyAgent(BaseChatAgent):
    """Stands for a person: asks them and answers with what they say.

    Args:
        name: a Python identifier.
        description: who the person is, for selectors.
        input_func: asks; sync `(prompt)` or async `(prompt, cancellation_token)`. `suspend` lets the run return and
            be answered later. Left out, the handle of a run begun with `start` is asked, otherwise the terminal.
    """

    _request: ContextVar[str] = ContextVar("tinygen_input_request")

    class InputRequestContext:
        """Tells an `input_func` which request it answers."""

        @staticmethod
        def request_id() -> str:
            """The `request_id` of the `UserInputRequestedEvent`. Raises RuntimeError outside an `input_func`."""
            try:
                return UserProxyAgent._request.get()
            except LookupError:
                raise RuntimeError("request_id() can only be called by the input_func of a UserProxyAgent") from None

    def __init__(
        self, name: str, *, description: str = "A human user", input_func: Callable[..., Any] | None = None
    ) -> None:
        super().__init__(name, description)
        if input_func is not None and not callable(input_func):
            raise ConfigError(f"input_func must be a function of the prompt, not {input_func!r:.80}")
        self._input_func = input_func

    @property
    def produced_message_types(self) -> Sequence[type[BaseChatMessage]]:
        return (TextMessage, HandoffMessage)

    async def on_messages_stream(
        self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken
    ) -> AsyncGenerator[Said, None]:
        prompt, last, giver = "Enter your response: ", messages[-1] if messages else None, ""
        if isinstance(last, HandoffMessage) and last.target == self.name:  # else it is nothing to this person
            giver = last.source
            prompt = f"Handoff received from {giver}. {prompt}"
        requested = UserInputRequestedEvent(request_id=new_id(), source=self.name)
        run = _asking_run() if self._input_func is None else None
        if run is not None:
            run.question(requested.request_id)  # may be answered as soon as it is seen
        yield requested
        request = {"prompt": prompt, "request_id": requested.request_id}
        ask = partial(self._ask, run, prompt, requested.request_id, cancellation_token)
        text = await effect("input", request, ask, str, name=self.name)
        message: BaseChatMessage = TextMessage(content=text, source=self.name)
        if giver:
            message = HandoffMessage(content=text, target=giver, source=self.name)
        yield Response(chat_message=message, inner_messages=[requested])

    async def on_reset(self, cancellation_token: CancellationToken) -> None:
        """Nothing to forget."""

    async def _ask(self, run: Run | None, prompt: str, request_id: str, token: CancellationToken) -> str:
        """What the person says: by the handle of `run`, else by the function that asks."""
        if run is not None:
            text: str = await token.link_future(run.question(request_id))
            return text
        asker = self._input_func or _read_line
        remember = self._request.set(request_id)
        try:
            return await until_cancelled(ask_person(asker, prompt, token), f"input of {self.name}", token)
        finally:
            self._request.reset(remember)


def _read_line(prompt: str) -> str:
    """A line from the terminal, or from what stands in its place.

    A pipe is read without Python's buffer: a thread that still waits in it would abort the program at its end.
    """
    stdin = sys.stdin
    replaced = stdin is not sys.__stdin__
    if replaced or stdin.isatty():
        return input(prompt)
    print(prompt, end="", flush=True)
    line = bytearray()
    while (byte := os.read(stdin.fileno(), 1)) not in (b"\n", b""):
        line += byte
    if not line and not byte:
        raise EOFError("there is nobody at the terminal to answer: end of input")
    return line.decode("utf-8", "replace").rstrip("\r")


async def ask_person(asker: Callable[..., Any], prompt: str, token: CancellationToken | None) -> str:
    """What an `input_func` gives: a sync one of the prompt, an async one of the token too."""
    answer = await call_user(asker, *((prompt, token) if _is_async(asker) else (prompt,)))
    if not isinstance(answer, str):
        raise ConfigError(f"an input_func must return text, not {answer!r:.80}")
    return answer


async def call_user(function: Callable[..., Any], *args: Any) -> Any:
    """What a function of the user's gives: in a thread unless it is async, awaited if it returns an awaitable."""
    if _is_async(function):
        return await function(*args)
    from .tools import run_in_thread

    answer = await run_in_thread(function, *args)
    return await answer if inspect.isawaitable(answer) else answer


def _is_async(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


async def until_cancelled(call: Awaitable[T], name: str, token: CancellationToken) -> T:
    """Await `call`, but no longer than `token` allows; that of a run ends it anyway."""
    if token.watched:
        return await call
    from .tools.bounds import bounded

    return await bounded(call, name, None, token)


def _asking_run() -> Run | None:
    """The run whose handle answers questions, if there is one."""
    scope = current_scope()
    run = scope.run.outermost if scope is not None else None
    return run if run is not None and run.asks else None


def own(message: BaseAgentEvent | BaseChatMessage, name: str, scope: Scope | None) -> bool:
    """Whether an agent of this name, at work in `scope`, said this: not a namesake in a tool or a team of its own."""
    if message.source != name:
        return False
    place = "" if scope is None else f"{scope.run.uid}:{scope.place}"
    return not (place and _DEEPER.search(message.id, len(place)))  # an id begins with the place it was made at


def expect_client(client: Any) -> None:
    """Raises `ConfigError` for what is no model client."""
    from .models import ChatCompletionClient

    whose = of_another_copy(client, ChatCompletionClient)
    if whose or not hasattr(client, "create"):
        raise ConfigError(f"model_client must be a ChatCompletionClient, not {client!r:.80}{whose}")


def current_token() -> CancellationToken:
    """The token of the current run, cancelled when it is; outside a run one that nobody cancels."""
    scope = current_scope()
    return scope.run.token if scope is not None else CancellationToken()


def misbehaved(agent: BaseChatAgent, what: str) -> TinygenError:
    return ConfigError(f"agent {agent.name!r} ({type(agent).__name__}) {what}")


def saved_of(parts: Sequence[Any], state: Mapping[str, Any], key: str) -> list[tuple[Any, Any]]:
    """The parts with what `state` holds of them under `key`: of all of them or of none. Raises `StateError`."""
    states = state.get(key, [])
    if not isinstance(states, list) or len(states) not in (0, len(parts)):
        raise StateError(f"$.{key}", f"expected a list of {len(parts)} states, not {states!r:.80}")
    return list(zip(parts, states))


def expect_state(state: Any, type_name: str, *keys: str, needed: str | None = None) -> Mapping[str, Any]:
    """Check the head of a state: its type, its version, and its keys, of which it must have `needed`.

    Raises `StateError`.
    """
    if not isinstance(state, dict):
        raise StateError("$", f"expected an object with the state of a {type_name}, not {state!r:.80}")
    if state.get("type", type_name) != type_name:
        raise StateError("$.type", f"expected {type_name!r}, not {state['type']!r:.80}")
    if state.get("version", "1.0.0") != "1.0.0":
        raise StateError("$.version", f"this version of tinygen reads '1.0.0', not {state['version']!r:.80}")
    for key in state:
        if key not in keys and key not in ("type", "version", "suspended", needed):
            raise StateError("$", f"unknown key {key!r:.80} in the state of a {type_name}")
    if needed is not None and needed not in state:
        raise StateError("$", f"{needed!r} is missing")
    return state
