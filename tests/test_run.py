"""The run as a scope: fan-out, places, limits of nested runs, streams, what is left behind."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from typing import Any

import pytest

from agents_for_tests import Counter, speaker
from tinygen import (
    AssistantAgent,
    CancellationToken,
    ConfigError,
    ReplayChatCompletionClient,
    RoundRobinGroupChat,
    RunLimits,
    RunStopped,
    Suspended,
    TaskResult,
    TextMessage,
    UserMessage,
    effect,
    fan_out,
    listen,
    run_scope,
)
from tinygen.clock import pinned
from tinygen.limits import Ledger
from tinygen.run import current_scope


async def test_branches_give_their_results_in_the_order_they_were_named() -> None:
    gate = asyncio.Event()

    async def late() -> str:
        await gate.wait()
        return "late"

    async def early() -> str:
        gate.set()
        return "early"

    assert await fan_out([("a", late), ("b", early)]) == ["late", "early"]


async def test_a_failing_branch_cancels_the_others_and_is_raised() -> None:
    ended: list[str] = []

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("waits")

    async def fails() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await fan_out([("a", waits), ("b", fails)])
    await asyncio.sleep(0)
    assert ended == ["waits"]


async def test_a_suspending_branch_lets_the_others_finish() -> None:
    done: list[int] = []

    async def asks() -> None:
        raise Suspended

    async def works() -> None:
        await asyncio.sleep(0)
        done.append(1)

    with pytest.raises(Suspended):
        await fan_out([("a", asks), ("b", works)])
    assert done == [1]


async def test_no_branches_are_no_work() -> None:
    assert await fan_out([]) == []


class Places(Counter):
    """Says where it works."""

    async def on_messages(self, messages: Any, cancellation_token: Any) -> Any:
        response = await super().on_messages(messages, cancellation_token)
        scope = current_scope()
        assert scope is not None
        response.chat_message.content = scope.place
        return response


async def test_places_are_paths_of_names_that_do_not_depend_on_time() -> None:
    inner = RoundRobinGroupChat([Places("p")], max_turns=1, name="inner")
    team = RoundRobinGroupChat([Places("a"), inner], max_turns=3, name="team")
    first, again = await team.run(task="x"), await team.session().run(task="x")
    places = [message.to_text() for message in first.messages[1:]]
    assert places == ["team/turn 1/a@1", "team/turn 2/inner@1/inner@1/turn 1/p@1", "team/turn 3/a@1"]
    assert [message.to_text() for message in again.messages[1:]] == places


async def test_ids_are_unique_across_runs_and_sessions() -> None:
    team = RoundRobinGroupChat([Counter("a"), Counter("b")], max_turns=4)
    results = await asyncio.gather(*(team.session().run(task="x") for _ in range(20)))
    results.append(await team.run(task="x"))
    results.append(await team.run(task="x"))
    ids = [message.id for result in results for message in result.messages]
    assert len(set(ids)) == len(ids)


async def test_pinned_time_and_ids_make_two_runs_identical() -> None:
    results = []
    for _ in range(2):
        with pinned(7):
            results.append(await RoundRobinGroupChat([speaker("a"), speaker("b")], max_turns=2).run(task="x"))
    assert results[0] == results[1]


def test_a_ledger_charges_its_parents() -> None:
    from tinygen import LimitReached, RequestUsage

    outer = Ledger(RunLimits(model_calls=2))
    inner = Ledger(RunLimits(), outer)
    inner.admit("model")
    inner.charge(RequestUsage(3, 4))
    inner.admit("model")
    with pytest.raises(LimitReached, match="model_calls") as caught:
        inner.admit("model")
    assert caught.value.ledger is outer
    assert (outer.prompt_tokens, outer.completion_tokens, inner.model_calls) == (3, 4, 2)


async def test_a_priced_model_is_stopped_by_cost() -> None:
    info = {**ReplayChatCompletionClient([]).model_info, "price": {"prompt": 1e6, "completion": 1e6}}
    model = ReplayChatCompletionClient(lambda request: "one two", model_info=info)  # type: ignore[arg-type]
    team = RoundRobinGroupChat([AssistantAgent("a", model)])
    result = await team.run(task="x", limits=RunLimits(cost=20))
    assert str(result.stop_reason).startswith("limit reached: cost (")


async def test_an_effect_outside_a_run_is_a_plain_call() -> None:
    assert await effect("note", object(), lambda: asyncio.sleep(0, 5)) == 5


@pytest.mark.skipif(sys.version_info < (3, 12), reason="needs Python 3.12")
async def test_a_model_is_asked_in_a_run_whose_tasks_begin_at_once() -> None:
    loop, before = asyncio.get_running_loop(), asyncio.get_running_loop().get_task_factory()
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
    try:
        client = ReplayChatCompletionClient(["yes"])
        result = await run_scope("job", lambda: client.create([UserMessage(content="x", source="user")]))
        assert result.content == "yes"
    finally:
        loop.set_task_factory(before)


async def test_a_stream_begins_with_its_first_step() -> None:
    team = RoundRobinGroupChat([Counter("a")], max_turns=1)
    stream = team.run_stream(task="x")
    assert team._live is None
    await stream.__anext__()
    assert team._live is not None
    await stream.aclose()


async def test_a_closed_stream_gives_nothing_more() -> None:
    stream = RoundRobinGroupChat([Counter("a")], max_turns=1).run_stream(task="x")
    await stream.__anext__()
    await stream.aclose()
    assert [item async for item in stream] == []


async def test_the_next_run_waits_for_one_whose_stream_was_dropped() -> None:
    team = RoundRobinGroupChat([Counter("a")], max_turns=500)
    async for _ in team.run_stream(task="x"):
        break
    gc.collect()
    assert (await team.run(task="y", limits=RunLimits(messages=3))).messages[0].to_text() == "y"


async def test_a_token_cancelled_before_the_run_lets_nothing_begin() -> None:
    token, member = CancellationToken(), Counter("a")
    token.cancel()
    with pytest.raises(asyncio.CancelledError):
        await RoundRobinGroupChat([member]).run(task="x", cancellation_token=token)
    assert not member.heard


async def test_a_long_lived_token_forgets_the_runs_it_was_given_to() -> None:
    token, team = CancellationToken(), RoundRobinGroupChat([Counter("a")], max_turns=1)
    for _ in range(10):
        await team.run(task="x", cancellation_token=token)
    assert not token._callbacks


async def test_what_an_abandoned_call_does_later_is_refused() -> None:
    released, late = asyncio.Event(), []

    async def deaf() -> str:
        """Goes on after its run has ended."""
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                pass
        try:
            await effect("note", "late", lambda: asyncio.sleep(0, "written"))
        except asyncio.CancelledError as refused:
            late.append(str(refused))
        return ""

    from tinygen import FunctionCall

    model = ReplayChatCompletionClient([[FunctionCall("1", "{}", "deaf")]])
    result = await AssistantAgent("a", model, tools=[deaf]).run(task="x", limits=RunLimits(timeout=0.02))
    assert len(result.abandoned) == 1
    released.set()
    for _ in range(20):
        await asyncio.sleep(0)
    assert late == ["the run 'a' has ended"]


async def test_listeners_are_told_of_runs_begun_inside_the_block_only() -> None:
    events: list[Any] = []
    team = RoundRobinGroupChat([Counter("a")], max_turns=1)
    with listen(events.append):
        await team.run(task="x")
    told = len(events)
    await team.run(task="x")
    assert told == len(events) > 0
    assert [event.phase for event in events if event.kind == "run"] == ["start", "end"]


async def test_a_handle_begun_inside_of_a_run_hears_of_its_own_run_only() -> None:
    outer: list[Any] = []

    async def work() -> list[Any]:
        handle = RoundRobinGroupChat([speaker("a")], max_turns=1, name="inner").start(task="x")
        heard = [event async for event in handle]
        await handle
        await effect("note", None, lambda: asyncio.sleep(0, 5))
        return heard

    with listen(outer.append):
        heard = await run_scope("job", work)
    assert (heard[0].kind, heard[0].name, heard[-1].name) == ("run", "inner", "inner")
    assert all(event in outer for event in heard)
    assert {event.kind for event in outer} - {event.kind for event in heard} == {"note"}
    assert len({(event.id, event.phase) for event in outer}) == len(outer)


async def test_a_thousand_short_runs_leave_no_tasks_and_little_memory() -> None:
    import tracemalloc

    team = RoundRobinGroupChat([Counter("a")], max_turns=1)

    async def burst() -> None:
        for _ in range(300):
            session = team.session()
            async for item in session.run_stream(task="x"):
                assert not isinstance(item, TaskResult) or item.stop_reason

    await burst()
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        await burst()
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - before < 100_000
    finally:
        tracemalloc.stop()
    assert len(asyncio.all_tasks()) <= 2


async def test_a_policy_that_swallows_a_limit_does_not_get_around_it() -> None:
    class Talks(RoundRobinGroupChat):
        async def conduct(self, floor: Any) -> Any:
            for _ in range(5):
                try:
                    floor.say(TextMessage(content="hm", source="team"))
                except BaseException:
                    pass
            return await super().conduct(floor)

    member = Counter("a")
    result = await Talks([member]).run(task="x", limits=RunLimits(messages=3))
    assert (result.stop_reason, len(result.messages)) == ("limit reached: messages (3 of 3)", 3)
    assert not member.heard


async def test_plain_work_done_in_a_scope_is_limited_and_named() -> None:
    async def work() -> str:
        for _ in range(3):
            await effect("tool", {}, answer, None)
        return "done"

    async def answer() -> str:
        return "x"

    assert await run_scope("job", work) == "done"
    with pytest.raises(RunStopped, match=r"'job' has no result: limit reached: tool_calls \(2 of 2\)") as caught:
        await run_scope("job", work, limits=RunLimits(tool_calls=2))
    assert (caught.value.name, current_scope()) == ("job", None)


async def test_what_work_in_a_scope_raises_is_raised_as_it_is() -> None:
    async def work() -> None:
        raise KeyError("gone")

    with pytest.raises(KeyError, match="gone"):
        await run_scope("job", work)


async def test_a_scope_keeps_nothing_of_the_runs_in_it_that_have_ended() -> None:
    async def work() -> int:
        for _ in range(5):
            await Counter("a").run(task="x")
        scope = current_scope()
        assert scope is not None
        return len(scope.run.undo) + len(scope.run.tasks)

    assert await run_scope("job", work) <= 1  # the task that does the work


async def test_a_scope_inside_another_is_limited_by_both() -> None:
    async def answer() -> str:
        return "x"

    async def inner() -> str:
        return await run_scope("inner", lambda: effect("tool", {}, answer, None), limits=RunLimits(tool_calls=5))

    async def outer() -> list[str]:
        return [await inner() for _ in range(3)]

    with pytest.raises(RunStopped, match="'outer' has no result"):
        await run_scope("outer", outer, limits=RunLimits(tool_calls=2))


async def test_a_run_stopped_before_its_first_step_has_a_result() -> None:
    handle = RoundRobinGroupChat([Counter("a")]).start(task="x")
    handle.stop("enough")
    assert (await handle).stop_reason == "enough"


def test_a_team_whose_program_ended_over_its_run_runs_again() -> None:
    team = RoundRobinGroupChat([Counter("a")], max_turns=3)

    async def leave() -> None:
        team.start(task="x")
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    asyncio.run(leave())
    assert team.run_sync(task="y").stop_reason == "Maximum number of turns 3 reached."


async def test_a_waiter_cancelled_before_its_run_began_is_cancelled() -> None:
    team = RoundRobinGroupChat([Counter("a")], max_turns=500)
    stream = team.run_stream(task="x")
    await stream.__anext__()
    closing = asyncio.ensure_future(stream.aclose())
    second = asyncio.ensure_future(team.run(task="y"))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    await closing
    assert [message.to_text() for message in team._thread if message.to_text() == "y"] == []


async def test_run_sync_in_a_tool_ends_with_the_run_it_is_called_in() -> None:
    from tinygen import FunctionCall

    inner = RoundRobinGroupChat([speaker("p")], max_turns=100_000, name="inner")

    def work() -> str:
        """Runs a team in its thread."""
        ended.append(inner.run_sync(task="x").stop_reason)
        return ""

    ended: list[Any] = []
    model = ReplayChatCompletionClient([[FunctionCall("1", "{}", "work")]])
    await AssistantAgent("a", model, tools=[work]).run(task="go", limits=RunLimits(timeout=0.05))
    for _ in range(100):
        if inner._live is None:
            break
        await asyncio.sleep(0.01)
    assert inner._live is None
    assert not ended


@pytest.mark.parametrize("limit", [None, 2])
async def test_an_effect_in_an_event_loop_of_a_tools_own_belongs_to_the_run(limit: int | None) -> None:
    from tinygen import FunctionCall

    where: dict[str, bool] = {}

    def note(event: Any) -> None:
        where[f"{event.kind} {event.phase}"] = threading.current_thread() is threading.main_thread()

    async def work() -> str:
        assert threading.current_thread() is not threading.main_thread()
        return "done"

    def tool() -> str:
        """Has an event loop in its thread."""
        return asyncio.run(effect("tool", "x", lambda: effect("note", "y", work)))  # type: ignore[arg-type]

    def outer_tool() -> str:
        """Has one, too."""
        return asyncio.run(effect("kind", "x", lambda: effect("tool", "y", work)))  # type: ignore[arg-type]

    model = ReplayChatCompletionClient([[FunctionCall("1", "{}", "tool"), FunctionCall("2", "{}", "outer_tool")]])
    with listen(note):
        result = await AssistantAgent("a", model, tools=[tool, outer_tool]).run(
            task="go", limits=RunLimits(tool_calls=limit)
        )
    if limit is None:
        assert result.messages[-1].to_text() == "done\ndone"
        assert result.usage.tool_calls == 3
        assert {"note start", "note end", "kind start"} <= where.keys()
    else:
        assert result.stop_reason == "limit reached: tool_calls (2 of 2)"
    assert all(where.values())


async def test_a_run_in_an_event_loop_of_a_tools_own_is_charged_and_ends_with_the_run_around_it() -> None:
    from tinygen import FunctionCall

    inner = RoundRobinGroupChat([AssistantAgent("i", ReplayChatCompletionClient(lambda r: "x"))], name="inner")

    def work(turns: int) -> str:
        """Runs a team in its thread."""
        inner._max_turns = turns
        ended.append(asyncio.run(inner.run(task="x")).stop_reason)
        return ""

    ended: list[Any] = []
    for turns, limits in ((2, None), (1_000_000, RunLimits(timeout=0.1))):
        model = ReplayChatCompletionClient([[FunctionCall("1", f'{{"turns": {turns}}}', "work")]])
        result = await AssistantAgent("a", model, tools=[work]).run(task="go", limits=limits)
        if limits is None:
            assert (result.usage.by_agent["i"].calls, result.usage.by_tool["work"].completion_tokens) == (2, 2)
        for _ in range(200):
            if inner._live is None:
                break
            await asyncio.sleep(0.01)
        assert inner._live is None
    assert len(ended) == 1


async def test_a_listener_that_fails_changes_nothing() -> None:
    def fail(event: Any) -> None:
        raise ValueError("broken listener")

    with listen(fail):
        result = await RoundRobinGroupChat([Counter("a")], max_turns=1).run(task="x")
    assert len(result.messages) == 2


async def test_a_listener_that_fails_changes_nothing_outside_of_runs() -> None:
    def fail(event: Any) -> None:
        raise ValueError("broken listener")

    model = ReplayChatCompletionClient(["one", "two"])
    with listen(fail):
        assert (await model.create([UserMessage(content="x", source="user")])).content == "one"
        said = [item async for item in model.create_stream([UserMessage(content="x", source="user")])]
        assert said[0] == "two"
        assert await effect("note", None, lambda: asyncio.sleep(0, 5)) == 5


async def test_what_a_failing_listener_was_told_is_not_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def fail(event: Any) -> None:
        raise ValueError("broken listener")

    with listen(fail):
        await RoundRobinGroupChat([speaker("a")], max_turns=1).run(task="a secret")
    assert "broken listener" in caplog.text
    assert "a secret" not in caplog.text


async def test_what_cannot_be_sent_to_a_run_is_refused_at_once() -> None:
    handle = RoundRobinGroupChat([speaker("a")], max_turns=1).start(task="x")
    with pytest.raises(ConfigError, match="123"):
        handle.send(123)  # type: ignore[arg-type]
    assert (await handle).stop_reason == "Maximum number of turns 1 reached."
    with pytest.raises(ConfigError, match="has ended"):
        handle.send("too late")


async def test_what_is_sent_when_the_end_of_a_run_was_told_is_refused() -> None:
    handle = RoundRobinGroupChat([speaker("a")], max_turns=1).start(task="x")
    async for event in handle:
        if (event.kind, event.phase) == ("run", "end"):
            break
    with pytest.raises(ConfigError, match="has ended"):
        handle.send("too late")
    await handle


async def test_every_event_that_starts_ends_also_when_the_run_is_cut_short() -> None:
    released = asyncio.Event()

    class Deaf(Counter):
        async def on_messages(self, messages: Any, cancellation_token: Any) -> Any:
            while not released.is_set():
                try:
                    await released.wait()
                except asyncio.CancelledError:
                    pass
            return await super().on_messages(messages, cancellation_token)

    events: list[Any] = []
    with listen(events.append):
        await RoundRobinGroupChat([Deaf("d")]).run(task="x", limits=RunLimits(timeout=0.02))
    released.set()
    for _ in range(20):
        await asyncio.sleep(0)
    started = sorted(event.id for event in events if event.phase == "start")
    assert sorted(event.id for event in events if event.phase == "end") == started
    assert events[-1].kind == "run"
    assert events[-1].parent is None


async def test_a_second_reader_of_a_handle_or_stream_is_refused() -> None:
    team = RoundRobinGroupChat([Counter("a")], max_turns=3)
    handle = team.start(task="x")

    async def read() -> list[Any]:
        return [event async for event in handle]

    first, second = await asyncio.gather(read(), read(), return_exceptions=True)
    assert isinstance(first, list) and isinstance(second, RuntimeError)
    await handle


async def test_an_unread_handle_keeps_no_endless_list_of_events() -> None:
    from tinygen.runner import UNREAD

    handle = RoundRobinGroupChat([Counter("a")], max_turns=UNREAD).start(task="x")
    await handle
    assert len(handle._events.items) <= UNREAD


async def test_a_paused_run_that_is_dropped_leaves_no_trace_where_it_is_collected() -> None:
    team = RoundRobinGroupChat([Counter("a")], max_turns=2)
    handle = team.start(task="x")
    handle.pause()
    for _ in range(20):
        await asyncio.sleep(0)
    loop = asyncio.get_running_loop()
    told, handler = [], loop.get_exception_handler()
    loop.set_exception_handler(lambda loop, context: told.append(context))  # asyncio says that a task was dropped
    del handle, team
    gc.collect()
    loop.set_exception_handler(handler)
    assert current_scope() is None
