"""What holds for every team there can be: of any kind, in any other, with any agents, stopped anywhere.

Teams are drawn at random (`random_teams.py`), some by fixed numbers and some by hypothesis; a failing one is named by
its plan. What is found here gets a small test beside its subject.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings, strategies

from random_teams import Plan, built, drawn, said, stands
from tinygen import RunLimits, TaskResult

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

FIXED = range(40)
PLANS = strategies.randoms(use_true_random=False).map(drawn)


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


@settings(max_examples=60)
@given(PLANS)
async def test_a_drawn_team_saved_after_any_turn_goes_on_elsewhere_as_if_uninterrupted(plan: Plan) -> None:
    await check_saved_anywhere(plan)


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
        assert (said(result.messages), result.stop_reason) == (said(results[0].messages), results[0].stop_reason), "said"
        assert end == ends[0], "ends"


async def check_limited(plan: Plan) -> None:
    for limit in ("model_calls", "tool_calls", "messages"):
        for allowed in (0, 1, 2, 3, 5, 8, 13, 21, 34):
            here = built(plan)
            result = await here.run(task="go", limits=RunLimits(**{limit: allowed}))
            await check_goes_on(plan, here)
            if not str(result.stop_reason).startswith("limit reached"):
                break


async def check_stopped(plan: Plan) -> None:
    for turn in range(100):
        here = built(plan, lambda asked, turn=turn: "enough" if asked == turn + 1 else None)
        result = await here.run(task="go")
        if "enough" not in str(result.stop_reason):
            return
        await check_goes_on(plan, here)
