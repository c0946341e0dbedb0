"""Agents of one's own, and the one that stands for a person."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from agents_for_tests import Counter
from tinygen import (
    AgentFailed,
    AssistantAgent,
    BaseChatAgent,
    CancellationToken,
    ConfigError,
    FunctionCall,
    HandoffMessage,
    ReplayChatCompletionClient,
    Response,
    RoundRobinGroupChat,
    RunLimits,
    StateError,
    TextMessage,
    UserInputRequestedEvent,
    UserProxyAgent,
    suspend,
)


async def test_an_agent_of_ten_lines_runs_by_itself_and_in_a_team() -> None:
    agent = Counter("a")
    assert [message.to_text() for message in (await agent.run(task="x")).messages] == ["x", "a 1"]
    result = await RoundRobinGroupChat([agent], max_turns=1).run(task="y")
    assert [message.to_text() for message in result.messages] == ["y", "a 2"]


async def test_an_agent_alone_raises_its_own_error() -> None:
    from agents_for_tests import Failing

    error = KeyError("mine")
    with pytest.raises(KeyError) as caught:
        await Failing("a", error).run(task="x")
    assert caught.value is error


class Odd(Counter):
    """Says something it should not."""

    says: Any = None

    async def on_messages_stream(self, messages: Any, cancellation_token: Any) -> Any:
        yield self.says


@pytest.mark.parametrize("says", [5, None, "text", Response(chat_message="text")])  # type: ignore[arg-type]
async def test_an_agent_that_says_nonsense_is_named(says: Any) -> None:
    agent = Odd("odd")
    agent.says = says
    with pytest.raises(ConfigError, match=r"agent 'odd' \(Odd\)"):
        await agent.run(task="x")


async def test_an_agent_that_never_answers_is_named() -> None:
    agent = Odd("odd")
    agent.says = UserInputRequestedEvent(request_id="1", source="odd")
    with pytest.raises(ConfigError, match="ended its turn without a Response"):
        await agent.run(task="x")


async def test_the_state_of_an_agent_without_one_is_empty_and_checked() -> None:
    agent = Counter("a")
    assert await agent.save_state() == {"type": "BaseState", "version": "1.0.0"}
    for unknown in ("x", ""):
        with pytest.raises(StateError, match=f"unknown key '{unknown}'"):
            await agent.load_state({"type": "BaseState", "version": "1.0.0", unknown: 1})


async def test_a_handoff_is_answered_with_a_handoff_back() -> None:
    asked: list[str] = []

    def ask(prompt: str) -> str:
        asked.append(prompt)
        return "take it"

    agent = UserProxyAgent("user", input_func=ask)
    handoff = HandoffMessage(content="yours", target="user", source="bob")
    answer = (await agent.run(task=handoff)).messages[-1]
    assert isinstance(answer, HandoffMessage)
    assert (answer.target, answer.content) == ("bob", "take it")
    assert asked == ["Handoff received from bob. Enter your response: "]


async def test_a_handoff_to_somebody_else_is_only_something_that_was_said() -> None:
    agent = UserProxyAgent("user", input_func=lambda prompt: prompt)
    answer = (await agent.run(task=HandoffMessage(content="yours", target="eve", source="bob"))).messages[-1]
    assert (type(answer), answer.to_text()) == (TextMessage, "Enter your response: ")


async def test_an_input_function_can_tell_which_request_it_answers() -> None:
    seen: list[str] = []

    async def ask(prompt: str, token: CancellationToken | None) -> str:
        seen.append(UserProxyAgent.InputRequestContext.request_id())
        return "x"

    result = await UserProxyAgent("user", input_func=ask).run(task="q")
    assert isinstance(result.messages[1], UserInputRequestedEvent)
    assert seen == [result.messages[1].request_id]
    with pytest.raises(RuntimeError, match="only be called by the input_func"):
        UserProxyAgent.InputRequestContext.request_id()


async def test_an_input_function_that_fails_fails_the_run_with_its_own_error() -> None:
    def ask(prompt: str) -> str:
        raise EOFError("no terminal")

    with pytest.raises(EOFError, match="no terminal"):
        await UserProxyAgent("user", input_func=ask).run(task="q")


async def test_an_input_function_may_return_what_is_to_be_awaited() -> None:
    async def ask() -> str:
        return UserProxyAgent.InputRequestContext.request_id()

    result = await UserProxyAgent("user", input_func=lambda prompt: ask()).run(task="q")

    assert isinstance(result.messages[1], UserInputRequestedEvent)
    assert result.messages[-1].to_text() == result.messages[1].request_id


async def test_an_input_function_that_gives_no_text_is_named() -> None:
    with pytest.raises(ConfigError, match="an input_func must return text, not None"):
        await UserProxyAgent("user", input_func=lambda prompt: None).run(task="q")


async def test_a_person_asked_outside_a_run_is_left_alone_when_the_token_is_cancelled() -> None:
    asked = asyncio.Event()

    async def ask(prompt: str, token: CancellationToken | None) -> str:
        asked.set()
        await asyncio.Event().wait()
        return "never"

    token = CancellationToken()
    question = TextMessage(content="q", source="bob")
    asking = asyncio.ensure_future(UserProxyAgent("user", input_func=ask).on_messages([question], token))
    await asked.wait()
    token.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_an_agent_that_defines_nothing_says_what_it_must_define() -> None:
    class Idle(BaseChatAgent):
        pass

    with pytest.raises(NotImplementedError, match=r"Idle must define on_messages\(\) or on_messages_stream\(\)"):
        await Idle("idle", "does nothing").run(task="q")


async def test_an_agent_that_defines_the_stream_alone_answers_without_it_too() -> None:
    class Streams(Counter):
        on_messages = BaseChatAgent.on_messages

        async def on_messages_stream(self, messages: Any, cancellation_token: Any) -> Any:
            yield Response(chat_message=TextMessage(content="done", source=self.name))

    response = await Streams("a").on_messages([], CancellationToken())
    assert response.chat_message.to_text() == "done"


async def test_a_person_who_does_not_answer_does_not_hold_a_run() -> None:
    never = threading.Event()

    def ask(prompt: str) -> str:
        never.wait(20)
        return "too late"

    result = await UserProxyAgent("user", input_func=ask).run(task="q", limits=RunLimits(timeout=0.05))
    never.set()
    assert result.stop_reason == "limit reached: timeout (0.05 s)"


async def test_a_handle_answers_the_person_of_its_run() -> None:
    team = RoundRobinGroupChat([UserProxyAgent("user"), Counter("a")], max_turns=2)
    handle = team.start(task="q")
    async for event in handle:
        if event.kind == "input" and event.phase == "start":
            await asyncio.sleep(0)
            handle.answer(event.data["request"]["request_id"], "hello")
    assert [message.to_text() for message in (await handle).messages] == ["q", "", "hello", "a 1"]


async def test_a_message_is_a_task_too() -> None:
    result = await Counter("a").run(task=TextMessage(content="x", source="u"))
    assert result.messages[0].source == "u"


async def test_a_question_can_be_answered_as_soon_as_it_is_seen() -> None:
    handle = UserProxyAgent("user").start(task="q")
    async for event in handle:
        message = event.data.get("message")
        if isinstance(message, UserInputRequestedEvent):
            handle.answer(message.request_id, "at once")
    assert (await handle).messages[-1].to_text() == "at once"


async def test_reset_frees_a_suspended_agent() -> None:
    agent = UserProxyAgent("user", input_func=suspend)
    assert (await agent.run(task="q")).pending
    with pytest.raises(ConfigError, match="suspended in another task"):
        await agent.run(task="other")
    await agent.reset()
    assert (await agent.run(task="other")).pending


async def test_a_stray_cancellation_of_an_agent_is_its_failure() -> None:
    from agents_for_tests import Failing

    with pytest.raises(AgentFailed, match="CancelledError"):
        await Failing("a", asyncio.CancelledError()).run(task="x")


async def test_an_agent_in_mid_turn_is_refused_to_its_own_tool() -> None:
    async def ask_myself() -> str:
        """Runs the agent it is a tool of."""
        return (await agent.run(task="inner")).messages[-1].to_text()

    model = ReplayChatCompletionClient([[FunctionCall("1", "{}", "ask_myself")]])
    agent = AssistantAgent("a", model, tools=[ask_myself])
    team = RoundRobinGroupChat([agent], max_turns=1)
    assert "is already running" in (await team.run(task="x")).messages[-1].to_text()


async def test_an_agent_that_returns_a_message_instead_of_a_response_is_told_so() -> None:
    class Wrong(Counter):
        async def on_messages(self, messages: Any, cancellation_token: Any) -> Any:
            return TextMessage(content="x", source=self.name)

    with pytest.raises(ConfigError, match=r"agent 'w' \(Wrong\) returned TextMessage.*expected a Response"):
        await Wrong("w").run(task="x")


@pytest.mark.parametrize(("typed", "outcome"), [("hello\n", "hello"), ("", "EOFError")])
def test_a_piped_answer_is_read_and_a_closed_pipe_is_an_error(typed: str, outcome: str) -> None:
    program = """
import asyncio
from tinygen import UserProxyAgent
result = asyncio.run(UserProxyAgent("u").run(task="q"))
print(result.messages[-1].content)
"""
    done = _run_program(program, input=typed)
    assert outcome in done.stdout + done.stderr


def test_a_person_who_never_types_does_not_keep_the_program_from_ending() -> None:
    program = """
import asyncio
from tinygen import RunLimits, UserProxyAgent
print(asyncio.run(UserProxyAgent("u").run(task="q", limits=RunLimits(timeout=0.05))).stop_reason)
"""
    open_pipe, writer = os.pipe()
    try:
        done = _run_program(program, stdin=open_pipe)
    finally:
        os.close(open_pipe)
        os.close(writer)
    assert (done.returncode, "limit reached: timeout" in done.stdout) == (0, True)


def _run_program(program: str, **how: Any) -> subprocess.CompletedProcess[str]:
    import tinygen

    environment = os.environ | {"PYTHONPATH": str(Path(tinygen.__path__[0]).parent)}
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=20, env=environment, **how
    )
