"""A running team of any kind is paused, told something, stopped, cancelled, answered: by its handle."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import pytest

from agents_for_tests import Counter
from graphs_for_tests import graph
from teams_for_tests import KINDS, member, of, said
from tinygen import (
    AssistantAgent,
    AssistantMessage,
    FunctionCall,
    FunctionExecutionResultMessage,
    GraphFlow,
    ReplayChatCompletionClient,
    ReplayRequest,
    RoundRobinGroupChat,
    RunHandle,
    RunLimits,
    SocietyOfMindAgent,
    TextMentionTermination,
)


async def until(handle: RunHandle, text: str) -> None:
    """Wait until somebody in the run has said this."""
    async for event in handle:
        if event.kind == "message" and event.data["message"].to_text() == text:
            return
    raise AssertionError(f"nobody said {text!r}")


async def a_while() -> None:
    for _ in range(200):
        await asyncio.sleep(0)


def nested(kind: str, inner: Any, turns: int = 3) -> RoundRobinGroupChat:
    """A team in a team, as it is or as a society, and an outsider."""
    one = SocietyOfMindAgent("inner", inner, ReplayChatCompletionClient(["ok"] * 9)) if kind == "society" else inner
    return RoundRobinGroupChat([one, Counter("c")], max_turns=turns)


# --- pause and resume


@pytest.mark.parametrize("kind", KINDS)
async def test_a_paused_team_takes_no_turn_and_then_goes_on_as_if_it_had_not_been(kind: str) -> None:
    expected, team = await of(kind).run(task="go"), of(kind)
    handle = team.start(task="go")
    await until(handle, "a 1")
    handle.pause()
    handle.pause()
    await a_while()
    before = team._turn, member(team, "a")._count, member(team, "b")._count
    await a_while()
    assert (team._turn, member(team, "a")._count, member(team, "b")._count) == before == (1, 1, 0)
    handle.resume()
    handle.resume()
    assert said(await handle) == said(expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["team", "society"])
async def test_pausing_outside_pauses_a_team_within(kind: str, form: str) -> None:
    inner = of(kind)
    expected, handle = await nested(form, of(kind)).run(task="go"), nested(form, inner).start(task="go")
    await until(handle, "a 1")
    handle.pause()
    await a_while()
    assert inner._turn == 1
    handle.resume()
    assert said(await handle) == said(expected)


@pytest.mark.parametrize("kind", KINDS)
async def test_pause_of_the_team_itself_is_told_to_its_members(kind: str) -> None:
    team = of(kind)
    outer = nested("society", team)
    handle = outer.start(task="go")
    await until(handle, "a 1")
    await outer.pause()
    await a_while()
    assert team._turn == 1
    await outer.resume()
    await handle
    assert member(team, "a").told == member(team, "b").told == ["pause", "resume"]


@pytest.mark.parametrize("kind", KINDS)
async def test_pausing_a_team_at_rest_neither_hangs_nor_holds_its_next_run(kind: str) -> None:
    team = of(kind, turns=1)
    await team.pause()
    assert said(await team.run(task="go"))[-1] in ("a 1", "so be it")
    await team.resume()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["stop", "cancel", "timeout"])
async def test_a_paused_team_can_be_ended_and_runs_again(kind: str, way: str) -> None:
    team = of(kind)
    handle = team.start(task="go", limits=RunLimits(timeout=0.05) if way == "timeout" else None)
    handle.pause()
    await a_while()
    if way == "cancel":
        handle.cancel()
        with pytest.raises(asyncio.CancelledError):
            await handle
    else:
        if way == "stop":
            handle.stop("enough")
        assert (await handle).stop_reason in ("enough", "limit reached: timeout (0.05 s)")
    assert said(await team.run(task="again"))[0] == "again"
    assert member(team, "a")._count > 0


# --- send


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_sent_is_heard_by_everybody_and_is_in_the_result(kind: str) -> None:
    team = of(kind)
    handle = team.start(task="go")
    await until(handle, "a 1")
    handle.send("by the way")
    result = await handle
    await team.run(task=None if kind == "magentic" else "more")
    assert said(result).count("by the way") == 1
    assert [member(team, name).heard.count("by the way") for name in "ab"] == [1, int(kind != "selector of one")]


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_sent_can_end_the_run(kind: str) -> None:
    team = of(kind, turns=50, termination_condition=TextMentionTermination("halt"))
    handle = team.start(task="go")
    await until(handle, "a 1")
    handle.send("halt!")
    result = await handle
    assert result.stop_reason == "Text 'halt' mentioned"
    assert said(result)[-1] == "halt!"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["team", "society"])
async def test_what_is_sent_reaches_a_team_within_with_its_next_turn(kind: str, form: str) -> None:
    inner = of(kind, turns=2)
    handle = nested(form, inner).start(task="go")
    await until(handle, "a 1")
    handle.send("by the way")
    result = await handle
    heard = "".join(member(inner, "a").heard)
    assert "by the way" in heard
    assert said(result).index("by the way") < said(result).index("c 1")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["stop", "cancel"])
async def test_what_is_sent_in_a_turn_that_is_cut_short_is_heard_in_the_next_run(kind: str, way: str) -> None:
    held = asyncio.Event()
    team = of(kind, held=held)
    handle = team.start(task="go")
    await member(team, "a").begun.wait()
    handle.send("by the way")
    getattr(handle, way)()
    with contextlib.suppress(asyncio.CancelledError):
        assert "by the way" not in said(await handle)
    held.set()
    before = [message.to_text() for message in team._thread]
    assert before[-1] == "by the way"
    await team.run(task=None if kind == "magentic" else "more")
    assert kind == "magentic" or "by the way" in member(team, "a").heard


async def test_what_is_sent_and_does_not_fit_into_the_limit_is_heard_in_the_next_run() -> None:
    team = RoundRobinGroupChat([Counter("a")], max_turns=1)
    handle = team.start(task="go", limits=RunLimits(messages=1))
    handle.send("by the way")
    assert said(await handle) == ["go"]
    await team.run()
    assert member(team, "a").heard == ["go", "by the way"]


async def test_a_policy_that_fails_at_what_is_sent_leaves_the_team_as_it_was_between_runs() -> None:
    class Fussy(RoundRobinGroupChat):
        def note(self, speaker: str | None, said: Any) -> None:
            if any(message.to_text() == "by the way" for message in said):
                raise ValueError("not this")

    team = Fussy([Counter("a")], max_turns=2)
    handle = team.start(task="go")
    await until(handle, "a 1")
    handle.send("by the way")
    with pytest.raises(ValueError, match="not this"):
        await handle
    assert said(await team.run(task="more")) == ["more", "a 2", "a 3"]
    assert member(team, "a").heard == ["go", "more"]


# --- stop and cancel in the middle of a turn


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["alone", "team", "society"])
@pytest.mark.parametrize("way", ["stop", "cancel"])
async def test_ended_in_mid_turn_a_team_gives_what_there_is_and_runs_again(kind: str, form: str, way: str) -> None:
    held = asyncio.Event()
    inner = of(kind, held=held)
    team = inner if form == "alone" else nested(form, inner)
    handle = team.start(task="go")
    await member(inner, "a").begun.wait()
    if way == "stop":
        handle.stop("enough")
        result = await handle
        assert (result.stop_reason, said(result)[0], result.abandoned) == ("enough", "go", [])
    else:
        handle.cancel()
        with pytest.raises(asyncio.CancelledError):
            await handle
    held.set()
    assert "a 1" in said(await team.run(task="again"))


@pytest.mark.parametrize("way", ["stop", "cancel", "limit"])
async def test_a_layer_cut_short_leaves_every_branch_with_a_whole_history_and_speaks_again(way: str) -> None:
    gate, waiting = asyncio.Event(), asyncio.Event()

    async def quick() -> str:
        """Is done at once."""
        return "quick"

    async def slow() -> str:
        """Waits."""
        waiting.set()
        await gate.wait()
        return "slow"

    def model(request: ReplayRequest) -> Any:
        last = request.messages[-1]
        if isinstance(last, FunctionExecutionResultMessage):
            return " ".join(result.content for result in last.content)
        return [FunctionCall("1", "{}", "quick"), FunctionCall("2", "{}", "slow")]

    branches = [
        AssistantAgent(name, ReplayChatCompletionClient(model), tools=[quick, slow], reflect_on_tool_use=True)
        for name in "xy"
    ]
    team = GraphFlow([Counter("a"), *branches, Counter("j")], graph("a x", "a y", "x j", "y j"))
    handle = team.start(task="go", limits=RunLimits(timeout=0.1) if way == "limit" else None)
    await waiting.wait()
    {"stop": handle.stop, "cancel": handle.cancel, "limit": lambda: None}[way]()
    await asyncio.wait([handle._task])
    assert handle._task.cancelled() == (way == "cancel")
    gate.set()
    for branch in branches:
        *_, call, results = await branch.model_context.get_messages()
        assert isinstance(call, AssistantMessage)
        assert [each.call_id for each in results.content] == ["1", "2"]  # type: ignore[union-attr]
        assert "whether it had an effect is unknown" in results.content[1].content  # type: ignore[union-attr]
    assert said(await team.run(task="again")) == ["again", "quick slow", "quick slow", "j 1"]


# --- saved while it is paused


@pytest.mark.parametrize("kind", KINDS)
async def test_saved_while_paused_it_goes_on_elsewhere_with_what_is_left_of_its_turns(kind: str) -> None:
    here, there = of(kind), of(kind)
    handle = here.start(task="go")
    await until(handle, "a 1")
    handle.pause()
    await a_while()
    so_far = said(handle._run.result(None))  # type: ignore[union-attr]
    document = json.dumps(await here.save_state())
    handle.resume()
    whole = await handle
    await there.load_state(json.loads(document))
    member(there, "a")._count = 1  # which it does not save
    rest = await there.run()
    assert so_far + said(rest) == said(whole)
    assert rest.stop_reason == whole.stop_reason


@pytest.mark.parametrize("kind", KINDS)
async def test_what_was_sent_to_a_paused_run_is_saved_with_it_and_heard_elsewhere(kind: str) -> None:
    here, there = of(kind), of(kind)
    handle = here.start(task="go")
    await until(handle, "a 1")
    handle.pause()
    handle.send("hurry")
    await a_while()
    so_far = said(handle._run.result(None))  # type: ignore[union-attr]
    document = json.dumps(await here.save_state())
    handle.resume()
    whole = await handle
    await there.load_state(json.loads(document))
    assert json.dumps(await there.save_state()) == document
    member(there, "a")._count = 1  # which it does not save
    assert so_far + said(await there.run()) == said(whole)
    assert "inbox" not in await there.save_state()


async def test_a_reset_gives_up_what_was_sent_to_a_run_that_was_saved() -> None:
    team = of("round robin")
    handle = team.start(task="go")
    await until(handle, "a 1")
    handle.pause()
    handle.send("hurry")
    await a_while()
    document = await team.save_state()
    handle.cancel()
    await asyncio.wait([handle._task])
    await team.load_state(document)
    await team.reset()
    assert "hurry" not in said(await team.run(task="go"))
