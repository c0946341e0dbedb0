from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tinygen import (
    AndTerminationCondition,
    BaseAgentEvent,
    BaseChatAgent,
    BaseChatMessage,
    CancellationToken,
    ConfigError,
    Event,
    ExternalTermination,
    FunctionalTermination,
    FunctionCallTermination,
    FunctionExecutionResult,
    HandoffMessage,
    HandoffTermination,
    MaxMessageTermination,
    OrTerminationCondition,
    RequestUsage,
    Response,
    SourceMatchTermination,
    StateError,
    StopMessage,
    StopMessageTermination,
    TerminatedException,
    TerminationCondition,
    TextMentionTermination,
    TextMessage,
    TextMessageTermination,
    ThoughtEvent,
    TimeoutTermination,
    TokenUsageTermination,
    ToolCallExecutionEvent,
    listen,
)

Messages = Sequence[BaseAgentEvent | BaseChatMessage]


def text(content: str = "hi", source: str = "ann", used: tuple[int, int] | None = None) -> TextMessage:
    return TextMessage(content=content, source=source, models_usage=RequestUsage(*used) if used else None)


def executed(name: str) -> ToolCallExecutionEvent:
    return ToolCallExecutionEvent(content=[FunctionExecutionResult(content="3", name=name, call_id="1")], source="ann")


def handoff(target: str) -> HandoffMessage:
    return HandoffMessage(content="over", target=target, source="ann")


class Shouting(TerminationCondition):
    counters = ("loud",)
    loud = 0

    async def check(self, messages: Messages) -> str | None:
        self.loud += sum(message.to_text().isupper() for message in messages)
        return "Too loud" if self.loud > 1 else None


class InAutoGensManner(TerminationCondition):
    def __init__(self, after: int) -> None:
        self._after = after
        self._seen: list[str] = []

    @property
    def terminated(self) -> bool:
        return len(self._seen) >= self._after

    async def __call__(self, messages: Messages) -> StopMessage | None:
        self._seen += [message.source for message in messages]
        return StopMessage(content="Enough", source="InAutoGensManner") if self.terminated else None

    async def reset(self) -> None:
        self._seen = []


# --- what ends a conversation


@pytest.mark.parametrize(
    ("condition", "message", "reason"),
    [
        (StopMessageTermination(), StopMessage(content="bye", source="ann"), "Stop message received"),
        (TextMentionTermination("TERMINATE"), text("I TERMINATE."), "Text 'TERMINATE' mentioned"),
        (TextMentionTermination("x", ["ann"]), ThoughtEvent(content="x", source="ann"), "Text 'x' mentioned"),
        (HandoffTermination("user"), handoff("user"), "Handoff to user from ann detected."),
        (SourceMatchTermination(["bob", "ann"]), executed("add"), "'ann' answered"),
        (TextMessageTermination(), text(source="bob"), "Text message received from 'bob'"),
        (TextMessageTermination("ann"), text(), "Text message received from 'ann'"),
        (FunctionCallTermination("add"), executed("add"), "Function 'add' was executed."),
        (FunctionalTermination(lambda new: True), text(), "Functional termination condition met"),
    ],
)
async def test_a_condition_stops_with_its_reason_and_its_name(
    condition: TerminationCondition, message: BaseAgentEvent | BaseChatMessage, reason: str
) -> None:
    condition = condition.session()

    stop = await condition([message])

    assert stop is not None
    assert (stop.content, stop.source) == (reason, type(condition).__name__)
    assert condition.terminated


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (StopMessageTermination(), text("stop")),
        (TextMentionTermination("TERMINATE"), text("terminate")),
        (TextMentionTermination("x", ["bob"]), text("x")),
        (HandoffTermination("user"), handoff("bob")),
        (SourceMatchTermination(["bob"]), text()),
        (TextMessageTermination(), ThoughtEvent(content="hm", source="ann")),
        (TextMessageTermination("bob"), text()),
        (FunctionCallTermination("add"), executed("subtract")),
        (FunctionalTermination(lambda new: False), text()),
        (TimeoutTermination(3600), text()),
        (ExternalTermination(), text()),
    ],
)
async def test_a_condition_lets_everything_else_pass(
    condition: TerminationCondition, message: BaseAgentEvent | BaseChatMessage
) -> None:
    assert await condition([]) is None
    assert await condition([message]) is None
    assert not condition.terminated


async def test_messages_are_counted_over_all_calls_without_events() -> None:
    condition = MaxMessageTermination(3)

    assert await condition([text(), ThoughtEvent(content="hm", source="ann")]) is None
    stop = await condition([text(), text(), text()])

    assert stop is not None
    assert stop.content == "Maximum number of messages 3 reached, current message count: 4"


async def test_events_are_counted_too_when_asked_for() -> None:
    condition = MaxMessageTermination(2, include_agent_event=True)

    assert await condition([text(), ThoughtEvent(content="hm", source="ann")]) is not None


@pytest.mark.parametrize("limit", ["max_total_token", "max_prompt_token", "max_completion_token"])
async def test_tokens_are_summed_until_a_limit_is_reached(limit: str) -> None:
    allowed = {"max_total_token": 15, "max_prompt_token": 10, "max_completion_token": 5}[limit]
    condition = TokenUsageTermination(**{limit: allowed})

    assert await condition([text(used=(9, 4)), text()]) is None
    stop = await condition([text(used=(1, 1))])

    assert stop is not None
    assert stop.content == (
        "Token usage limit reached, total token count: 15, prompt token count: 10, completion token count: 5."
    )


async def test_a_timeout_counts_from_construction_or_reset() -> None:
    condition = TimeoutTermination(60)
    state = await condition.save_state()

    await condition.load_state({**state, "elapsed": 60.0})
    stop = await condition([text()])
    await condition.reset()

    assert stop is not None and stop.content == "Timeout of 60 seconds reached"
    assert await condition([text()]) is None


async def test_an_external_request_holds_until_the_reset() -> None:
    condition = ExternalTermination()
    thread = threading.Thread(target=condition.set)
    thread.start()
    thread.join()

    stop = await condition([])
    await condition.reset()

    assert stop is not None and stop.content == "External termination requested"
    assert await condition([text()]) is None


async def test_a_function_that_is_async_is_awaited() -> None:
    async def said_stop(new: Messages) -> bool:
        return any(message.to_text() == "stop" for message in new)

    condition = FunctionalTermination(said_stop)

    assert await condition([text("go")]) is None
    assert await condition([text("stop")]) is not None


@pytest.mark.parametrize("answer", [None, 1, "yes"])
async def test_a_function_must_answer_true_or_false(answer: Any) -> None:
    with pytest.raises(ConfigError, match=f"must return True or False, not {answer!r}"):
        await FunctionalTermination(lambda new: answer)([text()])


async def test_a_condition_of_ones_own_is_a_check() -> None:
    condition = Shouting()

    assert await condition([text("HELLO"), text("hello")]) is None
    stop = await condition([text("HELLO")])

    assert stop is not None and (stop.content, stop.source) == ("Too loud", "Shouting")


class Judge(BaseChatAgent):
    """Asks a condition in its turn, as a team does."""

    def __init__(self, condition: TerminationCondition) -> None:
        super().__init__("judge", "asks")
        self._condition = condition

    async def on_messages(self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken) -> Response:
        stop = await self._condition(messages)
        return Response(chat_message=text(stop.content if stop else "go on", "judge"))


@pytest.mark.parametrize(
    ("condition", "kind"), [(TimeoutTermination(3600), "clock"), (ExternalTermination(), "external")]
)
async def test_what_the_clock_or_an_outsider_decides_is_an_effect(condition: TerminationCondition, kind: str) -> None:
    events: list[Event] = []

    with listen(events.append):
        result = await Judge(condition).run(task="hi")

    assert result.messages[-1].to_text() == "go on"
    assert [event.phase for event in events if event.kind == kind] == ["start", "end"]


# --- combined


async def test_or_stops_with_all_reasons_of_the_turn() -> None:
    condition = TextMentionTermination("x") | MaxMessageTermination(1) | TextMentionTermination("y")

    stop = await condition([text("x")])

    assert stop is not None
    assert stop.content == "Text 'x' mentioned, Maximum number of messages 1 reached, current message count: 1"
    assert stop.source == "TextMentionTermination, MaxMessageTermination"


async def test_and_waits_for_the_last_and_gives_the_reasons_as_they_came() -> None:
    condition = MaxMessageTermination(2) & TextMentionTermination("x")

    assert await condition([text("x")]) is None
    assert not condition.terminated
    stop = await condition([text("y")])

    assert stop is not None
    assert stop.content == "Text 'x' mentioned, Maximum number of messages 2 reached, current message count: 2"
    assert stop.source == "TextMentionTermination, MaxMessageTermination"


async def test_conditions_in_the_manner_of_autogen_combine_with_ours() -> None:
    condition = InAutoGensManner(2) & TextMentionTermination("x")

    assert await condition([text(), text("x")]) is not None
    await condition.reset()
    assert await condition([text("x")]) is None


def test_only_conditions_can_be_combined() -> None:
    with pytest.raises(TypeError):
        TextMentionTermination("x") & "y"  # type: ignore[operator]
    with pytest.raises(ConfigError, match="takes termination conditions, not \\(\\)"):
        OrTerminationCondition()


@pytest.mark.parametrize(
    "condition",
    [
        MaxMessageTermination(1),
        MaxMessageTermination(1) & TextMentionTermination("hi"),
        MaxMessageTermination(1) | TextMentionTermination("x"),
    ],
)
async def test_a_condition_that_has_stopped_must_be_reset_before_it_is_asked_again(
    condition: TerminationCondition,
) -> None:
    await condition([text()])

    with pytest.raises(TerminatedException, match="call reset"):
        await condition([text()])

    await condition.reset()
    assert not condition.terminated
    assert await condition([text()]) is not None


@pytest.mark.parametrize(
    "make",
    [
        lambda: MaxMessageTermination(0),
        lambda: MaxMessageTermination("3"),  # type: ignore[arg-type]
        lambda: TextMentionTermination(""),
        lambda: TextMentionTermination("x", "ann"),
        lambda: TokenUsageTermination(),
        lambda: TokenUsageTermination(max_total_token=0),
        lambda: HandoffTermination(""),
        lambda: TimeoutTermination(0),
        lambda: TimeoutTermination(float("nan")),
        lambda: TimeoutTermination(float("inf")),
        lambda: SourceMatchTermination("ann"),
        lambda: SourceMatchTermination([]),
        lambda: TextMessageTermination(""),
        lambda: FunctionCallTermination(""),
        lambda: FunctionalTermination(True),  # type: ignore[arg-type]
        lambda: AndTerminationCondition(MaxMessageTermination(1), None),  # type: ignore[arg-type]
    ],
)
def test_wrong_arguments_are_refused_at_construction(make: Callable[[], TerminationCondition]) -> None:
    with pytest.raises(ValueError) as refused:
        make()
    assert isinstance(refused.value, ConfigError)


# --- state


def everything() -> TerminationCondition:
    both = TextMentionTermination("x") & (HandoffTermination("user") | MaxMessageTermination(4))
    either = TokenUsageTermination(max_total_token=100) | Shouting() | TimeoutTermination(3600)
    return both | either | ExternalTermination()


TALK = [text("x", used=(10, 5)), text("LOUD"), executed("add"), text("c"), text("d", used=(60, 20)), handoff("user")]


@pytest.mark.parametrize("cut", range(4))
async def test_going_on_from_a_saved_state_is_as_never_having_stopped(cut: int) -> None:
    first, uncut = everything(), everything()
    for message in TALK[:cut]:
        assert await first([message]) is None and await uncut([message]) is None
    saved = json.loads(json.dumps(await first.save_state()))

    second = first.session()
    await second.load_state(saved)

    for message in TALK[cut:]:
        stop, expected = await second([message]), await uncut([message])
        assert (stop and stop.content) == (expected and expected.content)
        if second.terminated:
            return
    raise AssertionError("it never stopped")


class Keeping(TerminationCondition):
    counters = ("last", "seen", "others")
    last: str | None = None
    seen: Any = ()
    others: Any = frozenset()

    async def check(self, messages: Messages) -> str | None:
        self.last = messages[-1].source
        self.seen = [*self.seen, self.last]
        self.others |= {self.last}
        return None


async def test_what_a_condition_counts_in_is_saved_as_json_whatever_it_is() -> None:
    # the traps: a set is no JSON, and what begins with None could become nothing else
    condition = Keeping()
    await condition([text(source="ann")])

    state = await condition.save_state()
    await condition([text(source="bob")])
    twin = condition.session()
    await twin.load_state(json.loads(json.dumps(state)))
    await twin([text(source="cyd")])

    assert (state["last"], state["seen"], state["others"]) == ("ann", ["ann"], ["ann"])
    assert (twin.last, list(twin.seen), twin.others) == ("cyd", ["ann", "cyd"], {"ann", "cyd"})
    await condition.load_state(await condition.session().save_state())
    assert condition.last is None


async def test_a_saved_condition_stays_as_it_was() -> None:
    class Growing(Keeping):
        def __init__(self) -> None:
            self.seen: Any = []

        async def check(self, messages: Messages) -> str | None:
            self.seen.append(len(messages))
            return None

    condition = Growing()
    state = await condition.save_state()
    await condition([text()])

    assert state["seen"] == []


def test_a_counter_without_a_value_on_the_class_is_refused_with_the_class() -> None:
    with pytest.raises(ConfigError, match="Uncounted counts in 'n', which must begin with a value on the class"):

        class Uncounted(TerminationCondition):
            counters = ("n",)


def broken(state: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {key: value for key, value in {**state, **changes}.items() if value is not ...}


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"count": "2"}, "$.count"),
        ({"count": True}, "$.count"),
        ({"count": -1}, "$.count"),
        ({"terminated": 0}, "$.terminated"),
        ({"count": ...}, "$"),
        ({"more": 1}, "$"),
        ({"type": "TextMentionTerminationState"}, "$.type"),
        ({"version": "2.0.0"}, "$.version"),
    ],
)
async def test_a_state_of_another_shape_is_refused_and_changes_nothing(changes: dict[str, Any], where: str) -> None:
    condition = MaxMessageTermination(5)
    await condition([text()])
    before = await condition.save_state()

    with pytest.raises(StateError) as refused:
        await condition.load_state(broken({**before, "count": 2}, **changes))

    assert refused.value.path == where
    assert await condition.save_state() == before


@pytest.mark.parametrize("elapsed", [float("nan"), float("inf"), -1.0])
async def test_time_that_cannot_have_passed_is_refused(elapsed: float) -> None:
    condition = TimeoutTermination(60)

    with pytest.raises(StateError, match=r"^\$\.elapsed: "):
        await condition.load_state({**await condition.save_state(), "elapsed": elapsed})


async def test_a_combined_state_loads_as_a_whole_or_not_at_all() -> None:
    condition = ExternalTermination() | MaxMessageTermination(5) | Shouting()
    before = await condition.save_state()
    condition.conditions[0].conditions[0].set()  # type: ignore[attr-defined]
    await condition.conditions[1]([text("LOUD")])  # type: ignore[attr-defined]
    saved = await condition.save_state()
    await condition.reset()
    saved["conditions"][1]["loud"] = None

    with pytest.raises(StateError) as refused:
        await condition.load_state(saved)

    assert refused.value.path == "$.conditions[1].loud"
    assert await condition.save_state() == before


@pytest.mark.parametrize("members", [None, [], [{}, {}, {}]])
async def test_a_combined_state_needs_one_state_for_each_member(members: Any) -> None:
    condition = MaxMessageTermination(5) & Shouting()

    with pytest.raises(StateError, match=r"\$\.conditions"):
        await condition.load_state({**await condition.save_state(), "conditions": members})


async def test_undoing_goes_back_to_the_checkpoint() -> None:
    condition = everything() & InAutoGensManner(9)
    await condition([text("x", used=(1, 1))])
    before = await condition.save_state()
    theirs = condition.conditions[1]  # type: ignore[attr-defined]

    undo = await condition.checkpoint()
    await condition([text("LOUD", used=(1, 1)), text("LOUD")])
    assert len(theirs._seen) == 3
    await undo()

    after = await condition.save_state()
    assert _without_time(after) == _without_time(before)
    assert theirs._seen == ["ann"]


def _without_time(state: Any) -> Any:
    if isinstance(state, list):
        return [_without_time(each) for each in state]
    if isinstance(state, dict):
        return {key: _without_time(value) for key, value in state.items() if key != "elapsed"}
    return state


async def test_a_request_from_outside_survives_an_undone_turn() -> None:
    condition = ExternalTermination() | MaxMessageTermination(5)
    undo = await condition.checkpoint()

    condition.conditions[0].set()  # type: ignore[attr-defined]
    await condition([text()])
    await undo()

    assert not condition.terminated
    assert await condition([text()]) is not None


async def test_sessions_count_by_themselves() -> None:
    condition = MaxMessageTermination(2) & TextMentionTermination("x")
    await condition([text("x")])

    twin = condition.session()

    assert await twin([text("y")]) is None
    assert await condition([text("y")]) is not None
