"""A running team is cut short at every step of the event loop in turn, in every way there is.

Each time it ends promptly, nothing tinygen started is left, every history is valid, and the same team runs again.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from agents_for_tests import Counter
from steps import CountingLoop, run_counted
from tinygen import (
    AgentFailed,
    AgentTool,
    AssistantAgent,
    AssistantMessage,
    BaseGroupChat,
    CancellationToken,
    FunctionalTermination,
    FunctionCall,
    FunctionExecutionResultMessage,
    MessageFilterAgent,
    MessageFilterConfig,
    PerSourceFilter,
    ReplayChatCompletionClient,
    ReplayRequest,
    RoundRobinGroupChat,
    RunLimits,
    SingleThreadedAgentRuntime,
    SocietyOfMindAgent,
    TaskResult,
    TeamTool,
    TerminationCondition,
)


async def look_up(word: str) -> str:
    """Looks a word up."""
    await asyncio.sleep(0)
    return f"{word}!"


def reply(request: ReplayRequest) -> Any:
    """Two tool calls side by side, then their results as text."""
    last = request.messages[-1]
    if isinstance(last, FunctionExecutionResultMessage):
        return " ".join(result.content for result in last.content)
    return [FunctionCall(id=str(n), name="look_up", arguments=f'{{"word": "w{n}"}}') for n in range(2)]


def make_team(runtime: SingleThreadedAgentRuntime | None) -> RoundRobinGroupChat:
    members = [
        AssistantAgent(
            name,
            ReplayChatCompletionClient(reply),
            tools=[look_up],
            reflect_on_tool_use=True,
            model_client_stream=name == "b",
        )
        for name in "abc"
    ]
    return RoundRobinGroupChat(members, max_turns=3, runtime=runtime)


async def check_history(team: RoundRobinGroupChat) -> None:
    """Every tool call of every member is followed by its results."""
    for member in team._participants:
        assert isinstance(member, AssistantAgent)
        messages = await member.model_context.get_messages()
        for message, following in zip(messages, [*messages[1:], None]):
            if isinstance(message, AssistantMessage) and not isinstance(message.content, str):
                assert isinstance(following, FunctionExecutionResultMessage)
                assert [call.id for call in message.content] == [result.call_id for result in following.content]


async def by_token(team: RoundRobinGroupChat, arm: Callable[[Callable[[], Any]], None]) -> Any:
    token = CancellationToken()
    arm(token.cancel)
    return await team.run(task="go", cancellation_token=token)


async def by_asyncio(team: RoundRobinGroupChat, arm: Callable[[Callable[[], Any]], None]) -> Any:
    task = asyncio.ensure_future(team.run(task="go"))
    arm(task.cancel)
    return await task


async def by_stop(team: RoundRobinGroupChat, arm: Callable[[Callable[[], Any]], None]) -> Any:
    handle = team.start(task="go")
    arm(lambda: handle.stop("enough"))
    return await handle


async def by_closing_the_stream(team: RoundRobinGroupChat, arm: Callable[[Callable[[], Any]], None]) -> Any:
    stream, closed = team.run_stream(task="go"), []
    arm(lambda: closed.append(1))
    async for item in stream:
        if isinstance(item, TaskResult):
            return item
        if closed:
            break
    await stream.aclose()
    raise asyncio.CancelledError


async def by_dropping_the_stream(team: RoundRobinGroupChat, arm: Callable[[Callable[[], Any]], None]) -> Any:
    dropped: list[int] = []
    arm(lambda: dropped.append(1))
    async for item in team.run_stream(task="go"):
        if isinstance(item, TaskResult):
            return item
        if dropped:
            break
    del item
    raise asyncio.CancelledError


async def by_deadline(team: RoundRobinGroupChat, arm: Callable[[Callable[[], Any]], None]) -> Any:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, CountingLoop)
    arm(partial(loop.skip, 1000.0))
    return await team.run(task="go", limits=RunLimits(timeout=500))


WAYS = [by_deadline, by_token, by_asyncio, by_stop, by_closing_the_stream, by_dropping_the_stream]


async def cut_and_run_again(loop: CountingLoop, way: Any, at: int, shared: bool) -> bool:
    """Cut a run at step `at`; returns whether the run was over before that."""
    runtime = SingleThreadedAgentRuntime() if shared else None
    if runtime is not None:
        runtime.start()
    team = make_team(runtime)
    try:
        result = await way(team, lambda hook: loop.arm(at, hook))
        over = result.stop_reason not in ("enough", "limit reached: timeout (500 s)")
    except asyncio.CancelledError:
        over = False
    await check_history(team)
    again = await team.run(task="again")
    assert again.stop_reason == "Maximum number of turns 3 reached."
    assert [m.to_text() for m in again.messages if m.type == "TextMessage"] == ["again"] + ["w0! w1!"] * 3
    assert not again.abandoned
    await check_history(team)
    if runtime is not None:
        await runtime.stop_when_idle()
    return over


EAGER = pytest.param(True, id="eager", marks=pytest.mark.skipif(sys.version_info < (3, 12), reason="needs Python 3.12"))


@pytest.mark.parametrize("eager", [pytest.param(False, id="lazy"), EAGER])
@pytest.mark.parametrize("shared", [False, True], ids=["own runtime", "shared runtime"])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_team_cut_short_at_any_step_ends_cleanly_and_runs_again(way: Any, shared: bool, eager: bool) -> None:
    for at in range(1, 400):
        if run_counted(partial(cut_and_run_again, way=way, at=at, shared=shared), eager=eager):
            break
    else:
        raise AssertionError("the run never got to its end")
    assert at > 15
    gc.collect()


def make_nested() -> RoundRobinGroupChat:
    """Agents used as tools, called side by side and twice; a society; an agent behind a filter."""

    def ask_both(request: ReplayRequest) -> Any:
        last = request.messages[-1]
        if isinstance(last, FunctionExecutionResultMessage):
            return " ".join(result.content for result in last.content)
        return [FunctionCall(str(n), '{"task": "x"}', name) for n, name in enumerate(["expert", "pair", "expert"])]

    def helper(name: str) -> AssistantAgent:
        return AssistantAgent(name, ReplayChatCompletionClient(reply), tools=[look_up], reflect_on_tool_use=True)

    pair = RoundRobinGroupChat([helper("p"), helper("q")], max_turns=2)
    tools = [AgentTool(helper("expert")), TeamTool(pair, "pair", "Two.", return_value_as_last_message=True)]
    lead = AssistantAgent("lead", ReplayChatCompletionClient(ask_both), tools=tools, max_tool_iterations=2)
    inner = RoundRobinGroupChat([helper("r"), helper("s")], max_turns=2)
    society = SocietyOfMindAgent("society", inner, ReplayChatCompletionClient(lambda request: "we agree"))
    hears = MessageFilterConfig(per_source=[PerSourceFilter(source="lead")])
    return RoundRobinGroupChat([lead, society, MessageFilterAgent("last", helper("wrapped"), hears)], max_turns=3)


async def cut_nested_and_run_again(loop: CountingLoop, way: Any, at: int) -> bool:
    team = make_nested()
    try:
        result: TaskResult = await way(team, lambda hook: loop.arm(at, hook))
        over = result.stop_reason != "enough"
    except asyncio.CancelledError:
        over = False
    again = await team.run(task="again")
    answers = {m.source: m.to_text() for m in again.messages if m.type == "TextMessage"}
    assert (answers["lead"], answers["society"]) == (
        "expert: w0! w1! w0! w1! expert: w0! w1!",
        "we agree",
    )
    assert answers["last"] == "w0! w1!"
    assert not again.abandoned
    return over


@pytest.mark.parametrize("way", [by_token, by_asyncio, by_stop], ids=lambda way: way.__name__)
def test_agents_inside_of_agents_are_cut_short_with_the_run_and_run_again(way: Any) -> None:
    for at in range(1, 600):
        if run_counted(partial(cut_nested_and_run_again, way=way, at=at)):
            break
    else:
        raise AssertionError("the run never got to its end")
    assert at > 30
    gc.collect()


@pytest.mark.parametrize("way", ["deadline", "token"])
async def test_a_deaf_tool_does_not_hold_a_run_beyond_its_grace(way: str) -> None:
    released = asyncio.Event()

    async def deaf() -> str:
        """Will not be stopped."""
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                pass
        return "late"

    model = ReplayChatCompletionClient([[FunctionCall("1", "{}", "deaf")], "fine"])
    team = RoundRobinGroupChat([AssistantAgent("a", model, tools=[deaf])], max_turns=1)
    loop = asyncio.get_running_loop()
    began = loop.time()
    if way == "deadline":
        result = await team.run(task="go", limits=RunLimits(timeout=0.05))
        assert result.stop_reason == "limit reached: timeout (0.05 s)"
        assert any("deaf" in name for name in result.abandoned)
    else:
        token = CancellationToken()
        loop.call_later(0.05, token.cancel)
        with pytest.raises(asyncio.CancelledError):
            await team.run(task="go", cancellation_token=token)
    assert loop.time() - began < 2
    await check_history(team)
    assert (await team.run(task="again")).messages[-1].to_text() == "fine"
    released.set()
    await until_idle()


async def test_an_agent_that_swallows_cancellation_does_not_hold_a_run() -> None:
    released = asyncio.Event()

    class Deaf(Counter):
        async def on_messages(self, messages: Any, cancellation_token: CancellationToken) -> Any:
            while not released.is_set():
                try:
                    await released.wait()
                except BaseException:
                    pass
            return await super().on_messages(messages, cancellation_token)

    result = await RoundRobinGroupChat([Deaf("d")]).run(task="go", limits=RunLimits(timeout=0.05))
    assert (result.stop_reason, len(result.abandoned)) == ("limit reached: timeout (0.05 s)", 1)
    released.set()
    await until_idle()


class Deaf:
    """Takes no notice of cancellation until `released`."""

    def __init__(self) -> None:
        self.released = asyncio.Event()

    async def wait(self, *_: Any) -> bool:
        while not self.released.is_set():
            try:
                await self.released.wait()
            except asyncio.CancelledError:
                pass
        return False


def a_team_with(deaf: Deaf, where: str) -> BaseGroupChat:
    class Policy(BaseGroupChat):
        async def select_speakers(self, thread: Any) -> Any:
            await deaf.wait()
            return self._names

    class Condition(TerminationCondition):
        async def check(self, messages: Any) -> None:
            await deaf.wait()

    if where == "policy":
        return Policy([Counter("a")], max_turns=1)
    condition = Condition() if where == "condition" else FunctionalTermination(deaf.wait)
    return RoundRobinGroupChat([Counter("a")], termination_condition=condition, max_turns=1)


@pytest.mark.parametrize("nested", [False, True], ids=["outermost", "nested"])
@pytest.mark.parametrize("where", ["policy", "condition", "function"])
async def test_a_policy_or_condition_that_swallows_cancellation_does_not_hold_a_run(where: str, nested: bool) -> None:
    deaf = Deaf()
    team = inner = a_team_with(deaf, where)
    if nested:
        team = RoundRobinGroupChat([inner], max_turns=1)
    loop = asyncio.get_running_loop()
    began = loop.time()

    result = await team.run(task="go", limits=RunLimits(timeout=0.05))

    assert loop.time() - began < 1
    assert (result.stop_reason, result.abandoned) == (
        "limit reached: timeout (0.05 s)",
        [f"team {inner.name!r}"],
    )
    deaf.released.set()
    again = await team.run(task="again")
    await until_idle()
    assert again.stop_reason == "Maximum number of turns 1 reached."
    assert [m.to_text() for m in team._thread] == ["go", "again", "a 1"]


@pytest.mark.parametrize("nested", [False, True], ids=["outermost", "nested"])
@pytest.mark.parametrize("way", ["deadline", "deadline in mid-turn", "cancel"])
async def test_a_reset_of_a_condition_that_swallows_cancellation_does_not_hold_a_run(way: str, nested: bool) -> None:
    deaf = Deaf()

    class Condition(TerminationCondition):
        async def check(self, messages: Any) -> None:
            if way != "deadline":
                await asyncio.Event().wait()

        async def reset(self) -> None:
            await deaf.wait()

    team: BaseGroupChat = RoundRobinGroupChat([Counter("a")], termination_condition=Condition(), max_turns=1)
    if nested:
        team = RoundRobinGroupChat([team], max_turns=1)
    loop = asyncio.get_running_loop()
    began = loop.time()
    if way == "cancel":
        token = CancellationToken()
        loop.call_later(0.05, token.cancel)
        with pytest.raises(asyncio.CancelledError):
            await team.run(task="go", cancellation_token=token)
    else:
        result = await team.run(task="go", limits=RunLimits(timeout=0.05))
        assert result.stop_reason == "limit reached: timeout (0.05 s)"
        assert result.abandoned
    assert loop.time() - began < 1
    deaf.released.set()
    await until_idle()


@pytest.mark.parametrize("way", ["deadline", "cancel"])
@pytest.mark.parametrize("where", ["alone", "inner run", "team"])
@pytest.mark.parametrize("method", ["save_state", "checkpoint"])
async def test_an_agent_whose_state_swallows_cancellation_holds_no_run(method: str, where: str, way: str) -> None:
    deaf = Deaf()

    class Saves(Counter):
        async def save_state(self) -> Any:
            if method == "save_state":
                await deaf.wait()
            return await super().save_state()

        async def checkpoint(self) -> Any:
            if method == "checkpoint":
                await deaf.wait()
            return await super().checkpoint()

    class Asks(Counter):
        async def on_messages(self, messages: Any, cancellation_token: Any) -> Any:
            await member.run(task="within", limits=RunLimits(timeout=0.05))
            return await super().on_messages(messages, cancellation_token)

    member = Saves("a")
    runner = {"alone": member, "inner run": Asks("b"), "team": RoundRobinGroupChat([member], max_turns=1)}[where]
    loop = asyncio.get_running_loop()
    began = loop.time()
    if where == "inner run":
        assert (await runner.run(task="go")).messages[-1].to_text() == "b 1"
    elif way == "cancel":
        token = CancellationToken()
        loop.call_later(0.05, token.cancel)
        with pytest.raises(asyncio.CancelledError):
            await runner.run(task="go", cancellation_token=token)
    else:
        result = await runner.run(task="go", limits=RunLimits(timeout=0.05))
        assert (result.stop_reason, len(result.abandoned)) == ("limit reached: timeout (0.05 s)", 1)
    assert loop.time() - began < 1
    deaf.released.set()
    await until_idle()


@pytest.mark.parametrize("nested", [False, True], ids=["outermost", "nested"])
@pytest.mark.parametrize("where", ["policy", "condition"])
async def test_a_stray_cancellation_of_a_policy_or_condition_is_a_failure_with_a_name(where: str, nested: bool) -> None:
    class Policy(BaseGroupChat):
        async def select_speakers(self, thread: Any) -> Any:
            raise asyncio.CancelledError("stray")

    class Condition(TerminationCondition):
        async def check(self, messages: Any) -> None:
            raise asyncio.CancelledError("stray")

    team: BaseGroupChat = Policy([Counter("a")])
    if where == "condition":
        team = RoundRobinGroupChat([Counter("a")], termination_condition=Condition())
    expected = team.manager_name
    if nested:
        team, expected = RoundRobinGroupChat([team]), f"{team.name}/{expected}"
    with pytest.raises(AgentFailed) as caught:
        await team.run(task="go")
    assert caught.value.agent == expected
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)


def test_a_program_that_ends_over_a_run_says_nothing_of_it(capfd: pytest.CaptureFixture[str]) -> None:
    class Waits(Counter):
        async def on_messages(self, messages: Any, cancellation_token: Any) -> Any:
            await asyncio.Event().wait()

    async def leave(runner: Any) -> None:
        handles.append(runner.start(task="go"))
        for _ in range(20):
            await asyncio.sleep(0)

    handles: list[Any] = []
    asyncio.run(leave(Waits("a")))
    asyncio.run(leave(RoundRobinGroupChat([Waits("a")])))
    assert all(handle._task.cancelled() for handle in handles)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("alone", [False, True], ids=["team", "agent"])
async def test_a_run_whose_own_task_is_cancelled_is_cancelled(alone: bool) -> None:
    class Waits(Counter):
        async def on_messages(self, messages: Any, cancellation_token: Any) -> Any:
            await asyncio.Event().wait()

    runner: Any = Waits("a") if alone else RoundRobinGroupChat([Waits("a")])
    handle = runner.start(task="go")
    await until_idle()
    handle._run.task.cancel()  # as the end of a program may do before its waiter is
    with pytest.raises(asyncio.CancelledError):
        await handle


async def test_what_a_policy_that_swallowed_cancellation_names_late_is_not_asked_to_speak() -> None:
    class Late(BaseGroupChat):
        async def select_speakers(self, thread: Any) -> Any:
            if len(thread) == 1:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    pass
            return self._names

    member = Counter("a")
    result = await Late([member]).run(task="go", limits=RunLimits(timeout=0.05))
    await until_idle()
    assert (result.stop_reason, result.abandoned) == ("limit reached: timeout (0.05 s)", [])
    assert not member.heard


@pytest.mark.parametrize("way", ["deadline", "stop", "token"])
async def test_a_callback_that_fails_does_not_keep_a_run_from_ending(way: str) -> None:
    began = asyncio.Event()

    async def waits(cancellation_token: CancellationToken) -> str:
        """Wants to be told of the end, and fails then."""
        cancellation_token.add_callback(lambda: [][0])
        began.set()
        await asyncio.Event().wait()
        return ""

    model = ReplayChatCompletionClient([[FunctionCall("1", "{}", "waits")]])
    agent, token = AssistantAgent("a", model, tools=[waits]), CancellationToken()
    if way == "token":
        run = asyncio.ensure_future(agent.run(task="go", cancellation_token=token))
        await began.wait()
        token.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
    elif way == "stop":
        handle = agent.start(task="go")
        await began.wait()
        handle.stop("enough")
        assert (await handle).stop_reason == "enough"
    else:
        result = await agent.run(task="go", limits=RunLimits(timeout=0.05))
        assert result.stop_reason == "limit reached: timeout (0.05 s)"


@pytest.mark.parametrize("depth", [0, 1, 2])
async def test_what_a_cancelled_tool_awaits_to_clean_up_is_not_cancelled_again(depth: int) -> None:
    cleaned: list[str] = []

    async def cleans_up() -> str:
        """Takes its time to end."""
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.02)
            cleaned.append("yes")
        return ""

    model = ReplayChatCompletionClient([[FunctionCall("1", "{}", "cleans_up")]])
    runner: Any = AssistantAgent("a", model, tools=[cleans_up])
    for _ in range(depth):
        runner = RoundRobinGroupChat([runner])
    result = await runner.run(task="go", limits=RunLimits(timeout=0.05))
    assert (cleaned, result.abandoned) == (["yes"], [])


async def test_a_blocked_thread_does_not_hold_a_run() -> None:
    blocked = threading.Event()

    def wait_for_ever() -> str:
        """Blocks its thread."""
        blocked.wait(20)
        return "late"

    model = ReplayChatCompletionClient([[FunctionCall("1", "{}", "wait_for_ever")]])
    agent = AssistantAgent("a", model, tools=[wait_for_ever])
    result = await agent.run(task="go", limits=RunLimits(timeout=0.05))
    blocked.set()
    assert result.stop_reason == "limit reached: timeout (0.05 s)"


async def until_idle() -> None:
    """Let what was left behind end."""
    for _ in range(50):
        await asyncio.sleep(0)
