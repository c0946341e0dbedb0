"""A team whose next speaker is chosen: by whom, from whom, how the answer is read, and what is remembered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from zlib import crc32

import pytest

from agents_for_tests import Counter, Failing, speaker
from steps import CountingLoop, run_counted
from tinygen import (
    AgentFailed,
    AssistantAgent,
    BufferedChatCompletionContext,
    CancellationToken,
    ChatCompletionClient,
    Component,
    ConfigError,
    CreateResult,
    EncodeError,
    FunctionCall,
    HandoffMessage,
    LLMMessage,
    MultiModalMessage,
    RateLimitError,
    ReplayChatCompletionClient,
    ReplayRequest,
    RequestError,
    RoundRobinGroupChat,
    RunLimits,
    SelectorEvent,
    SelectorGroupChat,
    StateError,
    SystemMessage,
    TaskResult,
    TextMessage,
    UnboundedChatCompletionContext,
    UserMessage,
    UserProxyAgent,
    suspend,
)
from tinygen.codec import schema


def model(*script: Any, **info: Any) -> ReplayChatCompletionClient:
    known = {"vision": True, "function_calling": True, "json_output": True, "family": "unknown"}
    return ReplayChatCompletionClient(list(script), {**known, "structured_output": True, **info})  # type: ignore[typeddict-item]


def trio(client: ChatCompletionClient, **arguments: Any) -> SelectorGroupChat:
    return SelectorGroupChat([Counter("a"), Counter("b"), Counter("c")], client, **arguments)


def sources(result: TaskResult) -> list[str]:
    return [message.source for message in result.messages[1:]]


def prompt(request: ReplayRequest) -> str:
    return str(request.messages[0].content)


# --- who chooses, and from whom


async def test_the_model_is_told_roles_candidates_and_history() -> None:
    client = model("b", "c")
    await trio(client, max_turns=2, selector_prompt="{roles}|{participants}|{history}").run(task="go")
    assert prompt(client.create_calls[0]) == "a: counts\nb: counts\nc: counts|['a', 'b', 'c']|user: go"
    assert prompt(client.create_calls[1]) == "a: counts\nb: counts\nc: counts|['a', 'c']|user: go\n\nb: b 1"


async def test_the_standing_prompt_holds_all_three() -> None:
    client = model("b")
    await trio(client, max_turns=1).run(task="go")
    assert all(part in prompt(client.create_calls[0]) for part in ("b: counts", "['a', 'b', 'c']", "user: go"))


async def test_a_single_candidate_speaks_without_a_model_call() -> None:
    client = model("b")
    team = SelectorGroupChat([Counter("a"), Counter("b")], client, max_turns=4)
    assert sources(await team.run(task="go")) == ["b", "a", "b", "a"]
    assert len(client.create_calls) == 1


async def test_a_speaker_may_repeat_where_that_is_allowed() -> None:
    client = model("b", "b")
    assert sources(await trio(client, max_turns=2, allow_repeated_speaker=True).run(task="go")) == ["b", "b"]


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_function_chooses_before_the_model_does(is_async: bool) -> None:
    def choose(thread: Sequence[Any]) -> str | None:
        return "c" if len(thread) == 1 else None

    async def choose_async(thread: Sequence[Any]) -> str | None:
        return choose(thread)

    client = model("a")
    team = trio(client, max_turns=2, selector_func=choose_async if is_async else choose)
    assert sources(await team.run(task="go")) == ["c", "a"]
    assert len(client.create_calls) == 1


async def test_trap_whom_the_function_chose_is_the_previous_speaker() -> None:
    client = model("a")
    await trio(client, max_turns=2, selector_func=lambda thread: "c" if len(thread) == 1 else None).run(task="go")
    assert "['a', 'b']" in prompt(client.create_calls[0])


@pytest.mark.parametrize("is_async", [True, False])
async def test_candidates_of_a_function_may_have_just_spoken(is_async: bool) -> None:
    async def allow(thread: Sequence[Any]) -> list[str]:
        return ["b", "c"]

    client = model("b", "b")
    team = trio(client, max_turns=2, candidate_func=allow if is_async else lambda thread: ("b", "c"))
    assert sources(await team.run(task="go")) == ["b", "b"]
    assert "['b', 'c']" in prompt(client.create_calls[1])


@pytest.mark.parametrize("name", ["d", "", 5, ["a"], "B"])
async def test_a_function_that_chooses_a_stranger_is_refused(name: Any) -> None:
    with pytest.raises(ConfigError, match="selector_func of team 'SelectorGroupChat' chose"):
        await trio(model(), selector_func=lambda thread: name).run(task="go")


@pytest.mark.parametrize("names", [[], None, "a", ["a", "d"], 5, {"a": 1}])
async def test_candidates_that_are_no_list_of_participants_are_refused(names: Any) -> None:
    with pytest.raises(ConfigError, match="candidate_func of team 'SelectorGroupChat'"):
        await trio(model(), candidate_func=lambda thread: names).run(task="go")


async def test_what_a_function_raises_is_raised_and_the_team_runs_again() -> None:
    failures = [KeyError("mine")]

    def choose(thread: Sequence[Any]) -> str:
        if failures:
            raise failures.pop()
        return "b"

    team = trio(model(), max_turns=1, selector_func=choose)
    with pytest.raises(KeyError, match="mine"):
        await team.run(task="go")
    assert sources(await team.run(task="go")) == ["b"]


# --- how an answer is read


@pytest.mark.parametrize(
    "answer",
    [
        *("web_searcher", "web searcher", r"web\_searcher", "**web_searcher**", "`web_searcher`", " web_searcher.\n"),
        *('"web_searcher"', '{"speaker": "web_searcher"}', "I choose web_searcher: web_searcher knows it."),
        *("['web_searcher']", "web_searcher's turn", "下一位是 web_searcher。"),
    ],
)
async def test_a_name_is_found_however_it_is_written(answer: str) -> None:
    client = model(answer)
    team = SelectorGroupChat([Counter("web"), Counter("web_searcher"), Counter("speaker")], client, max_turns=1)
    assert sources(await team.run(task="go")) == ["web_searcher"]
    assert len(client.create_calls) == 1


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ("", "This names none of the speakers."),
        ("d", "This names none of the speakers."),
        ("abc", "This names none of the speakers."),
        ([FunctionCall("1", "{}", "a")], "This names none of the speakers."),
        ('{"speaker": 7}', "This names none of the speakers."),
        ("a and c", "This names 2 speakers: a, c."),
        ("c, not b", "This names 2 speakers: c, b."),
        ("b", "b has just spoken and cannot speak again now."),
    ],
)
async def test_the_model_is_told_precisely_what_is_wrong(answer: Any, complaint: str) -> None:
    client = model("b", answer, "c")
    assert sources(await trio(client, max_turns=2).run(task="go")) == ["b", "c"]
    asked = client.create_calls[2].messages
    assert [message.type for message in asked] == ["UserMessage", "AssistantMessage", "UserMessage"]
    assert asked[2].content == f"{complaint} Answer with exactly one of ['a', 'c'] and nothing else."


async def test_who_is_not_among_the_candidates_of_a_function_cannot_be_named() -> None:
    client = model("a", "c")
    team = trio(client, max_turns=1, candidate_func=lambda thread: ["b", "c"])
    assert sources(await team.run(task="go")) == ["c"]
    assert str(client.create_calls[1].messages[2].content).startswith("a cannot speak now.")


@pytest.mark.parametrize("attempts", [1, 2, 5])
async def test_a_model_that_answers_nonsense_is_asked_so_often_and_then_it_goes_round(attempts: int) -> None:
    client = model(*["?"] * attempts * 4)
    team = trio(client, max_turns=4, max_selector_attempts=attempts)
    assert sources(await team.run(task="go")) == ["a", "b", "c", "a"]
    client.assert_consumed()


async def test_trap_the_previous_speaker_is_never_the_way_out() -> None:
    client = model("b", "b", "b", "b", "c", "c", "c")
    assert sources(await trio(client, max_turns=3).run(task="go")) == ["b", "c", "a"]


async def test_the_only_candidate_in_the_last_answer_speaks() -> None:
    client = model("b", *["b has spoken, so a"] * 3)
    assert sources(await trio(client, max_turns=2).run(task="go")) == ["b", "a"]


async def test_going_round_keeps_to_the_candidates() -> None:
    client = model(*["?"] * 3)
    team = trio(client, max_turns=1, candidate_func=lambda thread: ["c", "b"])
    assert sources(await team.run(task="go")) == ["b"]


@pytest.mark.parametrize("family", ["gpt-4o", "o3", "claude-4-opus", "unknown"])
async def test_openai_models_are_instructed_and_others_are_asked(family: str) -> None:
    client = model("b", family=family)
    await trio(client, max_turns=1).run(task="go")
    expected = SystemMessage if family in ("gpt-4o", "o3") else UserMessage
    assert [type(message) for message in client.create_calls[0].messages] == [expected]


async def test_trap_braces_in_a_prompt_are_ordinary_characters() -> None:
    client = model("b")
    team = trio(client, max_turns=1, selector_prompt='{"who": "{participants}"} {x} {0} {history} {{roles}')
    await team.run(task="say {roles} {")
    assert prompt(client.create_calls[0]) == (
        "{\"who\": \"['a', 'b', 'c']\"} {x} {0} user: say {roles} { {a: counts\nb: counts\nc: counts"
    )


# --- the choice is constrained where it can be


async def test_a_model_that_keeps_to_schemas_can_only_name_candidates() -> None:
    client = model("b", "c")
    await trio(client, max_turns=2).run(task="go")
    schemas = [schema(request.json_output) for request in client.create_calls]
    assert [each["properties"]["speaker"]["enum"] for each in schemas] == [["a", "b", "c"], ["a", "c"]]


async def test_a_model_without_schemas_is_asked_for_text() -> None:
    client = model("b", structured_output=False)
    await trio(client, max_turns=1).run(task="go")
    assert client.create_calls[0].json_output is None


@pytest.mark.parametrize("streaming", [True, False])
async def test_a_provider_that_refuses_the_schema_is_asked_once_more_without(streaming: bool) -> None:
    def reply(request: ReplayRequest) -> Any:
        return RequestError("response_format is not supported") if request.json_output else "b"

    client = ReplayChatCompletionClient(reply)
    team = trio(client, max_turns=2, model_client_streaming=streaming, allow_repeated_speaker=True)
    result = await team.run(task="go", limits=RunLimits(model_calls=2))
    assert [message.source for message in result.messages if isinstance(message, TextMessage)] == ["user", "b", "b"]
    assert [bool(request.json_output) for request in client.create_calls] == [True, False, False]


@pytest.mark.parametrize("streaming", [True, False])
async def test_a_request_refused_for_another_reason_does_not_cost_the_schema(streaming: bool) -> None:
    client = model(RequestError("too long"), RequestError("too long"), "b")
    team = trio(client, max_turns=1, model_client_streaming=streaming)
    with pytest.raises(AgentFailed, match="too long"):
        await team.run(task="go")
    assert sources(await team.run(task="go"))[-1] == "b"
    assert [bool(request.json_output) for request in client.create_calls] == [True, False, True]


async def test_what_is_blank_is_told_back_to_the_model_as_nothing() -> None:
    client = model(" \n", "b")
    assert sources(await trio(client, max_turns=1).run(task="go")) == ["b"]
    assert [str(message.content) for message in client.create_calls[1].messages][1] == "(nothing)"


async def test_a_refusal_after_words_were_streamed_is_not_asked_again() -> None:
    class Breaking(Deaf):
        async def create_stream(self, messages: Sequence[LLMMessage], **arguments: Any) -> Any:
            yield "I think"
            raise RequestError("bad")

    with pytest.raises(AgentFailed, match="agent 'SelectorGroupChatManager' failed in turn 1: RequestError: bad"):
        await trio(Breaking(), model_client_streaming=True).run(task="go")


# --- the model call is part of the run


class Deaf(ChatCompletionClient):
    """Never answers; keeps the token it was given."""

    token: CancellationToken | None = None

    async def create(self, messages: Sequence[LLMMessage], **arguments: Any) -> CreateResult:
        self.token = arguments["cancellation_token"]
        await asyncio.Event().wait()
        raise AssertionError


async def test_cancelling_the_run_cancels_the_call_that_chooses() -> None:
    client, token = Deaf(), CancellationToken()
    run = asyncio.ensure_future(trio(client).run(task="go", cancellation_token=token))
    while client.token is None:
        await asyncio.sleep(0)
    token.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert client.token.is_cancelled()


async def test_the_words_of_the_model_are_shown_as_they_come() -> None:
    team = trio(model("I choose b"), max_turns=1, model_client_streaming=True)
    said = [item async for item in team.run_stream(task="go")]
    events = [item for item in said if isinstance(item, SelectorEvent)]
    assert "".join(event.content for event in events) == "I choose b"
    assert {event.source for event in events} == {"SelectorGroupChatManager"}
    assert len(events) == 3


async def test_a_failing_model_is_named_and_the_team_runs_again() -> None:
    team = trio(model(RateLimitError("slow down"), "b"), max_turns=1)
    with pytest.raises(AgentFailed, match="slow down") as caught:
        await team.run(task="go")
    assert (caught.value.agent, caught.value.turn) == ("SelectorGroupChatManager", 1)
    assert isinstance(caught.value.__cause__, RateLimitError)
    assert sources(await team.run(task="go")) == ["b"]


async def test_calls_that_choose_count_for_the_limits_of_the_run() -> None:
    result = await trio(model("a", "b"), max_turns=5).run(task="go", limits=RunLimits(model_calls=2))
    assert result.stop_reason == "limit reached: model_calls (2 of 2)"
    assert sources(result) == ["a", "b"]


async def test_a_member_that_raises_is_named_with_its_turn_and_has_not_spoken() -> None:
    failing = Failing("b", ValueError("broken"))
    client = model("a", "b", "b", "c")
    team = SelectorGroupChat([Counter("a"), failing, Counter("c")], client, max_turns=2)
    with pytest.raises(AgentFailed, match="agent 'b' failed in turn 2: ValueError: broken"):
        await team.run(task="go")
    failing.__class__ = Counter
    assert sources(await team.run(task="again"))[0] == "b"
    assert "['b', 'c']" in prompt(client.create_calls[2])


async def test_a_team_may_be_chosen_by_its_name() -> None:
    inner = RoundRobinGroupChat([Counter("p"), Counter("q")], max_turns=2, name="the experts")
    client = model("Let the experts speak.", "c")
    team = SelectorGroupChat([inner, Counter("c"), Counter("d")], client, max_turns=2)
    assert sources(await team.run(task="go")) == ["p", "q", "c"]
    assert "user: go\n\np: p 1\n\nq: q 1" in prompt(client.create_calls[1])


# --- what the model sees


async def test_a_context_bounds_what_the_model_sees() -> None:
    client = model("a", "b", "c")
    context = BufferedChatCompletionContext(2, [SystemMessage(content="Be brief.")])
    await trio(client, max_turns=3, model_context=context, selector_prompt="{history}").run(task="go")
    histories = [prompt(request) for request in client.create_calls]
    assert histories == ["Be brief.\n\nuser: go", "user: go\n\na: a 1", "a: a 1\n\nb: b 1"]


async def test_the_model_sees_messages_and_no_events() -> None:
    client = model("a", "b", structured_output=False)
    caller = AssistantAgent("a", model([FunctionCall("1", "{}", "tick")]), tools=[tick])
    team = SelectorGroupChat([caller, Counter("b"), Counter("c")], client, max_turns=2, selector_prompt="{history}")
    task = [
        MultiModalMessage(content=["look", "here"], source="user"),
        HandoffMessage(content="x", target="a", source="u"),
    ]
    await team.run(task=task)
    assert prompt(client.create_calls[1]) == "user: look\nhere\n\nu: x\n\na: tick"


async def tick() -> str:
    """Ticks."""
    return "tick"


class Counting(UnboundedChatCompletionContext):
    added = 0

    async def add_message(self, message: LLMMessage) -> None:
        self.added += 1
        await super().add_message(message)


async def test_each_message_enters_the_context_once_however_long_the_run() -> None:
    context = Counting()
    client = ReplayChatCompletionClient(lambda request: "abc"[len(client.create_calls) % 3])
    await trio(client, max_turns=200, model_context=context).run(task="go")
    assert context.added == 200  # the task, and all but the last turn


def test_a_team_cancelled_at_any_step_runs_again_and_its_model_sees_the_thread() -> None:
    async def main(loop: CountingLoop) -> bool:
        client = ReplayChatCompletionClient(lambda request: "abc"[len(client.create_calls) % 3])
        team = trio(client, model_client_streaming=True, selector_prompt="{history}")
        token = CancellationToken()
        loop.arm(at, token.cancel)
        with suppress(asyncio.CancelledError):
            await team.run(task="go", cancellation_token=token, limits=RunLimits(model_calls=3))
        fired = loop.fired
        await team.run(task="again", limits=RunLimits(model_calls=1))
        thread = team._thread[:-1] if team._thread[-1].source != "user" else team._thread
        assert prompt(client.create_calls[-1]) == "\n\n".join(f"{m.source}: {m.to_text()}" for m in thread)
        return fired

    at = 1
    while run_counted(main):
        at += 1
    assert at > 20


# --- what is remembered


async def test_who_spoke_last_is_remembered_from_run_to_run_and_forgotten_by_reset() -> None:
    client = model("b", "a", "b")
    team = trio(client, max_turns=1, selector_prompt="{participants} {history}")
    await team.run(task="x")
    await team.run(task="y")
    await team.reset()
    await team.run(task="z")
    asked = [prompt(request) for request in client.create_calls]
    assert asked[1:] == ["['a', 'c'] user: x\n\nb: b 1\n\nuser: y", "['a', 'b', 'c'] user: z"]


@pytest.mark.parametrize("given", [True, False], ids=["own context", "no context"])
async def test_trap_a_used_team_that_loads_a_state_sees_nothing_twice(given: bool) -> None:
    client = model("b", "c", "a")
    context = {"model_context": UnboundedChatCompletionContext()} if given else {}
    team = trio(client, max_turns=1, selector_prompt="{history}", **context)
    await team.run(task="x")
    state = await team.save_state()
    await team.run(task="y")
    await team.load_state(json.loads(json.dumps(state)))
    await team.run(task="z")
    assert prompt(client.create_calls[2]) == "user: x\n\nb: b 1\n\nuser: z"


async def test_the_state_has_autogens_shape_and_the_context_if_one_was_given() -> None:
    plain, own = trio(model("b"), max_turns=1), trio(model("b"), max_turns=1, model_context=Counting())
    for team, more in ((plain, set()), (own, {"model_context"})):
        await team.run(task="x")
        manager = (await team.save_state())["agent_states"]["SelectorGroupChatManager"]
        keys = {"type", "version", "message_thread", "current_turn", "previous_speaker"}
        assert set(manager) == keys | more
        assert (manager["type"], manager["previous_speaker"]) == ("SelectorManagerState", "b")


def autogens_state(**manager: Any) -> dict[str, Any]:
    """A state as AutoGen 0.7.5 writes it."""
    thread = [
        {"id": str(at), "source": source, "models_usage": None, "metadata": {}, "content": text, "type": "TextMessage"}
        for at, (source, text) in enumerate([("user", "x"), ("b", "hello")])
    ]
    for message in thread:
        message["created_at"] = "2026-01-01T00:00:00.000000Z"
    seats = {
        name: {
            "type": "ChatAgentContainerState",
            "version": "1.0.0",
            "agent_state": {"type": "BaseState", "version": "1.0.0"},
            "message_buffer": [],
        }
        for name in "abc"
    }
    state = {"type": "SelectorManagerState", "version": "1.0.0", "message_thread": thread, "current_turn": 0}
    seats["SelectorGroupChatManager"] = {**state, "previous_speaker": "b", **manager}
    return {"type": "TeamState", "version": "1.0.0", "agent_states": seats}


async def test_a_state_of_autogens_is_gone_on_with() -> None:
    client = model("c")
    team = trio(client, max_turns=1, selector_prompt="{participants} {history}")
    await team.load_state(autogens_state())
    await team.run(task="y")
    assert prompt(client.create_calls[0]) == "['a', 'c'] user: x\n\nb: hello\n\nuser: y"


@pytest.mark.parametrize(
    "damage",
    [{"previous_speaker": "d"}, {"previous_speaker": ["a"]}, {"more": 1}, {"model_context": {"messages": 5}}],
)
async def test_a_state_that_does_not_fit_changes_nothing(damage: dict[str, Any]) -> None:
    team = trio(model("a", "b"), max_turns=1, model_context=UnboundedChatCompletionContext())
    await team.run(task="x")
    before = await team.save_state()
    with pytest.raises(StateError):
        await team.load_state(autogens_state(**damage))
    assert await team.save_state() == before


NAMES = ["a", "b", "web_searcher", "the team"]


def whim(request: ReplayRequest) -> str:
    """A model whose answer depends on all it is asked, and often is none."""
    said = "|".join(str(message.content) for message in request.messages)
    number = crc32(said.encode())
    return [*NAMES, "?", "a and b", "web searcher"][number % 7]


def whimsical(max_turns: int, **arguments: Any) -> SelectorGroupChat:
    def echo(request: ReplayRequest) -> str:
        return f"{len(request.messages)}: {crc32(str(request.messages[-1].content).encode())}"

    inner = RoundRobinGroupChat(
        [AssistantAgent(name, ReplayChatCompletionClient(echo)) for name in "pq"], max_turns=3, name="the team"
    )
    members = [AssistantAgent(name, ReplayChatCompletionClient(echo)) for name in NAMES[:3]]
    client = ReplayChatCompletionClient(whim)
    return SelectorGroupChat([*members, inner], client, max_turns=max_turns, **arguments)


@pytest.mark.parametrize("context", [None, BufferedChatCompletionContext(4)], ids=["all", "the newest"])
@pytest.mark.parametrize("turns", range(1, 12))
async def test_after_any_turn_a_saved_team_goes_on_elsewhere_as_if_uninterrupted(turns: int, context: Any) -> None:
    here = whimsical(turns, model_context=context).session()
    first = await here.run(task="go")
    there = whimsical(12 - turns, model_context=context).session()
    await there.load_state(json.loads(json.dumps(await here.save_state())))
    second = await there.run()
    whole = await whimsical(12, model_context=context).session().run(task="go")
    told = [(message.source, message.to_text()) for message in [*first.messages, *second.messages]]
    assert told == [(message.source, message.to_text()) for message in whole.messages]


async def test_a_turn_that_waits_for_a_person_is_not_chosen_again() -> None:
    asked: list[int] = []

    def choose(thread: Sequence[Any]) -> str | None:
        asked.append(len(thread))
        return None

    def make(*script: str) -> SelectorGroupChat:
        members = [Counter("a"), UserProxyAgent("person", input_func=suspend), Counter("c")]
        return SelectorGroupChat(members, model(*script), max_turns=2, selector_func=choose)

    team, later = make("a", "nobody", "person"), make()
    pending = (await team.run(task="go")).pending
    await later.load_state(json.loads(json.dumps(await team.save_state())))
    later.answer(pending[0].id, "yes")
    result = await later.run(task="go")
    assert [(message.source) for message in result.messages] == ["user", "a", "person", "person"]
    assert asked == [1, 2]


async def test_sessions_of_one_team_choose_for_themselves() -> None:
    team = trio(
        ReplayChatCompletionClient(lambda request: prompt(request)[-1]), max_turns=1, selector_prompt="{history}"
    )
    sessions = [team.session() for _ in range(3)]
    results = await asyncio.gather(*(session.run(task=name) for session, name in zip(sessions, "abc", strict=True)))
    assert [sources(result) for result in results] == [["a"], ["b"], ["c"]]
    assert [session.policy_state()["previous_speaker"] for session in [team, *sessions]] == [None, "a", "b", "c"]


# --- making one


def test_a_drawing_shows_that_all_are_chosen_by_the_team() -> None:
    drawn = trio(model()).to_mermaid()
    arrows = [line.strip() for line in drawn.splitlines() if "-->" in line]
    assert arrows == [f"{way} --> {back}" for n in (2, 3, 4) for way, back in (("n1", f"n{n}"), (f"n{n}", "n1"))]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"participants": [Counter("a")]}, "at least two participants"),
        ({"model_client": 5}, "model_client must be a ChatCompletionClient"),
        ({"model_context": 5}, "model_context must be a ChatCompletionContext"),
        ({"selector_prompt": None}, "selector_prompt must be a text"),
        ({"selector_func": "a"}, "selector_func must be a function"),
        ({"candidate_func": ["a"]}, "candidate_func must be a function"),
        ({"max_selector_attempts": 0}, "max_selector_attempts must be a whole number above 0"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        SelectorGroupChat(**{"participants": [speaker("a"), speaker("b")], "model_client": model(), **arguments})


@pytest.mark.parametrize("argument", ["selector_func", "candidate_func"])
def test_a_function_without_a_name_in_documents_is_refused_when_it_is_written(argument: str) -> None:
    team = SelectorGroupChat([speaker("a", "x"), speaker("b", "x")], model(), **{argument: lambda thread: None})
    with pytest.raises(EncodeError, match=rf"\$\.config\.{argument}: .*register it"):
        team.dump_component()


def test_a_document_of_autogens_is_loaded() -> None:
    own = SelectorGroupChat([speaker("a", "x"), speaker("b", "y")], model("b"), max_turns=2).dump_component()
    written = own.model_dump() | {"provider": "autogen_agentchat.teams.SelectorGroupChat"}
    written["config"] |= {"selector_prompt": "{roles} {participants} {history}", "model_context": None}
    team = Component.load_component(written)
    assert isinstance(team, SelectorGroupChat)
    assert team.dump_component().config["selector_prompt"] == "{roles} {participants} {history}"
