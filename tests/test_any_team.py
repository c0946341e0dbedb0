"""What holds for every team there can be: of any kind, in any other, with any agents, stopped anywhere.

Teams are drawn at random (`random_teams.py`), some by fixed numbers and some by hypothesis; a failing one is named by
its plan. What is found here gets a small test beside its subject.
"""

from __future__ import annotations

import asyncio
import copy
import json
import os
import sys
from collections.abc import Iterator
from functools import partial
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings, strategies

import random_teams
from random_teams import TEAMS, Plan, built, drawn, said, stands, yes
from steps import CountingLoop, run_counted
from tinygen import AgentFailed, CancellationToken, RunLimits, TaskResult, suspend

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

FIXED = range(30)
FEW = settings(max_examples=settings().max_examples // 4)
PLANS = strategies.randoms(use_true_random=False).map(drawn)
SOCIABLE = strategies.randoms(use_true_random=False).map(lambda dice: drawn(dice, people=4))


async def straight(plan: Plan) -> tuple[TaskResult, Any]:
    """The result of a run that nothing disturbs, and where the team stands then."""
    team = built(plan)
    result = await team.run(task="go")
    return result, await stands(team)


# --- saved between any two turns, loaded elsewhere


async def paused(plan: Plan, turn: int) -> tuple[Any, Any]:
    """A run that was paused after so many turns, and its team; None if it was over before."""
    reached = asyncio.Event()

    def gate(asked: int) -> None:
        if asked == turn + 1:
            handle.pause()
            reached.set()

    team = built(plan, gate)
    handle = team.start(task="go")
    waiting = asyncio.ensure_future(reached.wait())
    await asyncio.wait([waiting, handle._task], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    for _ in range(10):
        await asyncio.sleep(0)
    return (None if handle.done else handle), team


async def check_saved_anywhere(plan: Plan) -> int:
    expected, end = await straight(plan)
    for turn in range(100):
        handle, here = await paused(plan, turn)
        if handle is None:
            return turn
        before = handle._run.result(None).messages
        text = json.dumps(await here.save_state())
        there = built(plan)
        await there.load_state(json.loads(text))
        rest = await there.run()
        assert said([*before, *rest.messages]) == said(expected.messages), f"after turn {turn}"
        assert rest.stop_reason == expected.stop_reason
        assert await stands(there) == end
        handle.resume()
        result = await handle
        assert (said(result.messages), result.stop_reason) == (said(expected.messages), expected.stop_reason)
        assert await stands(here) == end
    raise AssertionError("it never ended")


@pytest.mark.parametrize("number", FIXED)
async def test_saved_after_any_turn_and_loaded_elsewhere_a_team_goes_on_as_if_uninterrupted(number: int) -> None:
    await check_saved_anywhere(drawn(number))


@FEW
@given(PLANS)
async def test_a_drawn_team_saved_after_any_turn_goes_on_elsewhere_as_if_uninterrupted(plan: Plan) -> None:
    await check_saved_anywhere(plan)


async def test_a_state_saved_in_mid_run_goes_on_in_another_process() -> None:
    work, ends = [], []
    for number in FIXED:
        plan = drawn(number)
        handle, here = await paused(plan, 1)
        if handle is not None:
            work.append([plan, await here.save_state()])
            before = len(handle._run.messages)
            handle.resume()
            result = await handle
            ends.append([said(result.messages[before:]), result.stop_reason, await stands(here)])
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, random_teams.__file__),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate(json.dumps(work).encode())
    assert len(ends) > 10
    assert json.loads(output) == ends


# --- ended before its end, and gone on with


async def check_histories(state: Any) -> None:
    """Every tool call in a saved state is followed by its results, so that any provider takes the history."""
    if isinstance(state, dict):
        messages = state["llm_context"]["messages"] if "llm_context" in state else []
        for message, following in zip(messages, [*messages[1:], {}]):
            if message["type"] == "AssistantMessage" and isinstance(message["content"], list):
                assert following["type"] == "FunctionExecutionResultMessage", messages
                calls, results = message["content"], following["content"]
                assert [call["id"] for call in calls] == [result["call_id"] for result in results]
    for each in state.values() if isinstance(state, dict) else state if isinstance(state, list) else ():
        await check_histories(each)


async def check_goes_on(plan: Plan, here: Any) -> None:
    """The team runs on, and so does one that loads its state, a fresh one and a used one, to the same end."""
    text = json.dumps(await here.save_state())
    await check_histories(json.loads(text))
    fresh, used = built(plan), built(plan)
    await used.run(task="something else")
    for there in (fresh, used):
        await there.load_state(json.loads(text))
        assert await stands(there) == await stands(here)
    results = [await team.run(task="more") for team in (here, fresh, used)]
    ends = [await stands(team) for team in (here, fresh, used)]
    for result, end in zip(results, ends):
        assert not result.abandoned
        assert result.stop_reason == results[0].stop_reason
        assert said(result.messages) == said(results[0].messages)
        assert end == ends[0]


async def check_limited(plan: Plan, limit: str, allowed: int) -> None:
    here = built(plan)
    await here.run(task="go", limits=RunLimits(**{limit: allowed}))
    await check_goes_on(plan, here)


LIMITS = ["model_calls", "tool_calls", "messages"]


@pytest.mark.parametrize("number", FIXED)
async def test_cut_by_a_limit_anywhere_a_team_goes_on_and_so_does_who_loads_its_state(number: int) -> None:
    for limit in LIMITS:
        await check_limited(drawn(number), limit, number // 3)


@FEW
@given(PLANS, strategies.sampled_from(LIMITS), strategies.integers(0, 40))
async def test_a_drawn_team_cut_by_any_limit_goes_on(plan: Plan, limit: str, allowed: int) -> None:
    await check_limited(plan, limit, allowed)


async def check_stopped(plan: Plan) -> None:
    for turn in range(100):
        here = built(plan, lambda asked, turn=turn: "enough" if asked == turn + 1 else None)
        result = await here.run(task="go")
        if "enough" not in str(result.stop_reason):
            return
        await check_goes_on(plan, here)


@pytest.mark.parametrize("number", FIXED)
async def test_stopped_after_any_turn_a_team_goes_on_and_so_does_who_loads_its_state(number: int) -> None:
    await check_stopped(drawn(number))


# --- cancelled at any step of the event loop


async def cancelled(loop: CountingLoop, plan: Plan, at: int, way: str) -> None:
    """Cut a run at this step, and go on."""
    here, token = built(plan), CancellationToken()
    running = asyncio.ensure_future(here.run(task="go", cancellation_token=token))
    loop.arm(at, token.cancel if way == "token" else running.cancel)
    await asyncio.wait([running])
    loop.hook = None
    assert running.cancelled() or running.result()
    await check_goes_on(plan, here)


def check_cancelled(plan: Plan, at: int) -> None:
    for way in ("token", "task"):
        run_counted(partial(cancelled, plan=plan, at=at, way=way))


@pytest.mark.parametrize("number", FIXED)
def test_cancelled_anywhere_a_team_goes_on_and_so_does_who_loads_its_state(number: int) -> None:
    for at in (number + 1, 7 * number + 3):
        check_cancelled(drawn(number), at)


@FEW
@given(PLANS, strategies.integers(1, 250))
def test_a_drawn_team_cancelled_at_any_step_goes_on(plan: Plan, at: int) -> None:
    check_cancelled(plan, at)


# --- a member that fails


def places(plan: Plan, path: str = "") -> Iterator[tuple[str, Plan]]:
    """The agents that a failure comes out of, each with the way to it; not those in tools."""
    for at, member in enumerate(plan["members"]):
        here = f"{path}{member['name']}"
        if member["kind"] in TEAMS:
            yield from places(member, f"{here}/")
        elif plan["kind"] != "swarm" or at > 0:
            yield from _inside(member, here)


def _inside(agent: Plan, here: str) -> Iterator[tuple[str, Plan]]:
    yield here, agent
    if agent["kind"] == "filter":
        yield from _inside(agent["agent"], here)
    if agent["kind"] == "society":
        yield from places(agent["team"], f"{here}/")


async def check_failing(plan: Plan, number: int = 0) -> bool:
    """Let one agent raise in one of its turns; whether it came to that."""
    plan, dice = copy.deepcopy(plan), Random(number)
    found = list(places(plan))
    if not found:
        return False
    path, victim = dice.choice(found)
    name, at = victim["name"], dice.randint(1, 3)
    victim.clear()
    victim.update(kind="breaking", name=name, at=0, handoffs=[])
    expected, _ = await straight(plan)
    victim["at"] = at
    marks: list[int] = []
    team = built(plan, lambda asked: marks.append(len(team._live.messages)))
    try:
        await team.run(task="go")
        return False
    except AgentFailed as caught:
        failure = caught
    assert (failure.agent, failure.turn) == (path, len(marks))
    assert isinstance(failure.__cause__, ValueError)
    assert str(failure.__cause__) == f"{name} broke"
    assert said(failure.result.messages[: marks[-1]]) == said(expected.messages[: marks[-1]])
    victim["at"] = 0
    await check_goes_on(plan, team)
    return True


async def test_a_member_that_fails_anywhere_is_named_with_its_turn_and_the_team_goes_on() -> None:
    came_out = [await check_failing(drawn(number), number) for number in range(150)]
    assert sum(came_out) > 30


@FEW
@given(PLANS, strategies.integers(0, 1000))
async def test_a_failure_in_a_drawn_team_is_named_and_the_team_goes_on(plan: Plan, number: int) -> None:
    await check_failing(plan, number)


# --- a person who answers later


async def check_answered_later(plan: Plan, *, elsewhere: bool) -> int:
    """How many questions were asked."""
    expected, end = await straight(plan)
    team, asked = built(plan, person=suspend), 0
    result = await team.run(task="go")
    while result.pending:
        asked += 1
        if elsewhere:
            text, team = json.dumps(await team.save_state()), built(plan, person=suspend)
            await team.load_state(json.loads(text))
        question = result.pending[-1]
        team.answer(question.id, await yes(question.content["prompt"], None))
        result = await team.run()
    assert (said(result.messages), result.stop_reason) == (said(expected.messages), expected.stop_reason)
    assert await stands(team) == end
    return asked


@pytest.mark.parametrize("elsewhere", [False, True], ids=["same object", "another process's object"])
async def test_people_anywhere_who_answer_later_make_no_difference(elsewhere: bool) -> None:
    asked = [await check_answered_later(drawn(number, people=4), elsewhere=elsewhere) for number in range(100)]
    assert sum(asked) > 50


@FEW
@given(SOCIABLE, strategies.booleans())
async def test_people_in_a_drawn_team_who_answer_later_make_no_difference(plan: Plan, elsewhere: bool) -> None:
    await check_answered_later(plan, elsewhere=elsewhere)
