"""GraphFlow: who speaks when, joins and loops, why it ends, failures, state, documents, drawings."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents_for_tests import Counter, Failing, speaker
from graphs_for_tests import graph
from tinygen import (
    AgentFailed,
    AssistantAgent,
    AssistantMessage,
    BaseChatMessage,
    CancellationToken,
    Component,
    ConfigError,
    DiGraph,
    DiGraphBuilder,
    DiGraphEdge,
    EncodeError,
    FunctionalTermination,
    FunctionCall,
    GraphFlow,
    MaxMessageTermination,
    ReplayChatCompletionClient,
    ReplayRequest,
    Response,
    RoundRobinGroupChat,
    RunLimits,
    SocietyOfMindAgent,
    StateError,
    TaskResult,
    TeamTool,
    TextMentionTermination,
    TextMessage,
    UserProxyAgent,
    register_component,
    suspend,
)
from tinygen.runner import TaskRunner

COMPLETE = "Digraph execution is complete"
Words = dict[str, Sequence[str]]


def cycling(name: str, words: Sequence[str]) -> AssistantAgent:
    """Says its words again and again, its name if it has none; which is next it knows from its context."""

    def reply(request: ReplayRequest) -> str:
        spoken = sum(isinstance(message, AssistantMessage) for message in request.messages)
        return words[spoken % len(words)] if words else name

    return AssistantAgent(name, ReplayChatCompletionClient(reply))


def team(it: DiGraph, words: Words | None = None, **arguments: Any) -> GraphFlow:
    return GraphFlow([cycling(name, (words or {}).get(name, ())) for name in it.nodes], it, **arguments)


def order(result: TaskResult) -> str:
    """Who spoke, the task left out."""
    return " ".join(message.source for message in result.messages if message.source != "user")


async def ran(it: DiGraph, words: Words | None = None, **arguments: Any) -> tuple[str, str | None]:
    result = await team(it, words, **arguments).run(task="q")
    return order(result), result.stop_reason


LOOP = graph("w r", "r w AGAIN", "r end DONE", entry="w")
REVIEW = graph("w x", "w y", "x j", "y j", "j w AGAIN", "j end DONE", entry="w")


# --- who speaks when


async def test_the_next_layer_begins_when_the_last_of_this_one_is_done() -> None:
    quick, slow = Counter("b"), Counter("c")
    it = graph("a b", "a c", "b d", "c e")
    result = await GraphFlow([Counter("a"), quick, slow, Counter("d"), Counter("e")], it).run(task="q")
    assert order(result) == "a b c d e"


async def test_speakers_of_one_layer_speak_side_by_side() -> None:
    met = [asyncio.Event(), asyncio.Event()]

    class Meeting(Counter):
        async def on_messages(self, messages: Sequence[BaseChatMessage], token: CancellationToken) -> Response:
            mine = "bc".index(self.name)
            met[mine].set()
            await met[1 - mine].wait()
            return await super().on_messages(messages, token)

    result = await GraphFlow([Counter("a"), Meeting("b"), Meeting("c")], graph("a b", "a c")).run(task="q")
    assert order(result) == "a b c"


async def test_a_loop_goes_round_until_its_condition_lets_it_out() -> None:
    words = {"r": ["AGAIN", "AGAIN", "DONE"]}
    assert await ran(LOOP, words, max_turns=20) == ("w r w r w r end", COMPLETE)


async def test_a_loop_through_a_join_fires_the_join_in_every_round() -> None:
    assert await ran(REVIEW, {"j": ["AGAIN", "DONE"]}, max_turns=20) == ("w x y j w x y j end", COMPLETE)


async def test_several_conditions_may_hold_at_once() -> None:
    assert await ran(graph("a b X", "a c Y", "a d Z"), {"a": ["X and Z"]}) == ("a b d", COMPLETE)


async def test_a_condition_may_be_a_function_of_the_message() -> None:
    it = graph("a b", "a c")
    for number, edge in enumerate(it.nodes["a"].edges):
        edge.condition = lambda message, number=number: len(message.to_text()) == number + 4
    assert await ran(it, {"a": ["five5"]}) == ("a c", COMPLETE)


async def test_everybody_hears_all_that_was_said_since_they_last_spoke() -> None:
    agents = [Counter(name) for name in "abcd"]
    await GraphFlow(agents, graph("a b", "a c", "b d", "c d")).run(task="q")
    assert [agent.heard for agent in agents] == [["q"], ["q", "a 1"], ["q", "a 1"], ["q", "a 1", "b 1", "c 1"]]


async def test_a_walk_begins_at_the_entry_point_or_at_all_that_nothing_leads_to() -> None:
    assert await ran(graph("a c", "b c")) == ("a b c", COMPLETE)
    assert await ran(graph("a c - one", "b c - two", entry="b")) == ("b c", COMPLETE)


async def test_the_next_run_after_a_complete_one_begins_at_the_start() -> None:
    it = team(graph("a b", "a c", "b d", "c d"))
    assert [order(await it.run(task="q")) for _ in range(3)] == ["a b c d"] * 3


async def test_a_walk_that_was_stopped_goes_on_with_who_was_ready() -> None:
    it = team(graph("a b", "b c", "c d"), max_turns=2)
    results = [await it.run(task="q"), await it.run(task="more")]
    assert [order(result) for result in results] == ["a b", "c d"]
    assert [result.stop_reason for result in results] == ["Maximum number of turns 2 reached.", COMPLETE]


async def test_team_events_name_the_speakers_of_a_layer() -> None:
    result = await team(graph("a b", "a c"), emit_team_events=True).run(task="q")
    events = [message for message in result.messages if message.type == "SelectSpeakerEvent"]
    assert [(event.source, event.content) for event in events] == [  # type: ignore[union-attr]
        ("GraphManager", ["a"]),
        ("GraphManager", ["b", "c"]),
    ]


async def test_teams_are_nodes_like_agents() -> None:
    inner = RoundRobinGroupChat([Counter("p"), Counter("q")], max_turns=2, name="inner")
    it = graph("a inner", "inner b q")
    assert order(await GraphFlow([Counter("a"), inner, Counter("b")], it).run(task="x")) == "a p q b"


async def test_a_graph_is_a_node_of_a_graph() -> None:
    inner = GraphFlow([Counter("p"), Counter("q")], graph("p q"), name="inner")
    outer = GraphFlow([Counter("a"), inner, Counter("b")], graph("a inner", "inner b"))
    assert [order(await outer.run(task="x")) for _ in range(2)] == ["a p q b"] * 2


async def test_a_node_that_says_nothing_is_followed_without_conditions_only() -> None:
    silent = RoundRobinGroupChat([Counter("p")], termination_condition=FunctionalTermination(bool), name="silent")
    assert order(await GraphFlow([silent, Counter("b")], graph("silent b")).run(task="x")) == "b"
    result = await GraphFlow([silent.session(), Counter("b")], graph("silent b p")).run(task="x")
    assert result.stop_reason == "dead end at 'silent': no condition matched"


# --- traps of AutoGen's


async def test_trap_the_activation_of_a_node_is_honoured() -> None:
    it = graph("a b X", "a c Y", "b d", "c d", d="any")
    assert await ran(it, {"a": ["X"]}) == ("a b d", COMPLETE)


async def test_trap_a_node_for_which_any_is_enough_speaks_once() -> None:
    it = graph("a b", "a c", "b d - d any", "c e", "e d - d any", "d z")
    assert await ran(it) == ("a b c d e z", COMPLETE)


async def test_trap_late_ones_are_late_in_every_round_of_a_loop() -> None:
    it = graph("a b", "a c", "b d - d any", "c e", "e d - d any", "d a AGAIN", "d z DONE", entry="a")
    spoken, reason = await ran(it, {"d": ["AGAIN", "AGAIN", "DONE"]}, max_turns=30)
    assert (spoken.split().count("d"), spoken.split().count("z"), reason) == (3, 1, COMPLETE)


async def test_what_follows_from_a_node_makes_it_speak_again_through_the_same_any_group() -> None:
    it = graph("s w - in any", "w r", "r w AGAIN in any", "r z DONE")
    assert await ran(it, {"r": ["AGAIN", "AGAIN", "DONE"]}, max_turns=30) == ("s w r w r w r z", COMPLETE)


async def test_trap_a_parent_that_speaks_twice_does_not_stand_in_for_the_other() -> None:
    it = graph("s a", "s b", "a a2 GO", "a d GO", "a2 a - back", "b b2", "b2 b3", "b3 b4", "b4 d", "d z")
    spoken, _ = await ran(it, {"a": ["GO", "GO", "enough"]}, max_turns=30)
    assert spoken.index("b4") < spoken.index("d")
    assert spoken.split().count("d") == 1


async def test_trap_a_task_message_named_like_a_node_is_no_output_of_it() -> None:
    it = team(graph("a b", "b c GO", "b d NO"))
    task = [TextMessage(content="GO", source="b"), TextMessage(content="q", source="user")]
    result = await it.run(task=task)
    assert [message.source for message in result.messages] == ["b", "user", "a", "b"]
    assert result.stop_reason == "dead end at 'b': no condition matched"


async def test_trap_a_node_is_known_by_its_name_not_by_the_source_of_its_messages() -> None:
    class Masked(Counter):
        async def on_messages(self, messages: Sequence[BaseChatMessage], token: CancellationToken) -> Response:
            return Response(chat_message=TextMessage(content="YES", source="somebody"))

    result = await GraphFlow([Masked("a"), Counter("b")], graph("a b YES")).run(task="q")
    assert (order(result), result.stop_reason) == ("somebody b", COMPLETE)


async def test_trap_termination_sees_everything_that_was_said_in_a_layer() -> None:
    it = graph("a b", "a c", "b d", "c d")
    seen: list[str] = []

    def remember(messages: Sequence[Any]) -> bool:
        seen.extend(message.source for message in messages)
        return len(seen) > 3

    assert await ran(it, termination_condition=FunctionalTermination(remember)) == (
        "a b c",
        "Functional termination condition met",
    )
    assert seen == ["user", "a", "b", "c"]
    assert (await ran(it, termination_condition=MaxMessageTermination(4)))[0] == "a b c"


# --- why it ends


@pytest.mark.parametrize(
    ("it", "words", "reason"),
    [
        (graph("a b X"), {}, "dead end at 'a': no condition matched"),
        (graph("a b X", "a c Y", "b d", "c d"), {"a": ["X"]}, "dead end at 'd': it still waits for 'c'"),
        (
            graph("a b", "a c", "b x X", "c y Y"),
            {},
            "dead end at 'b': no condition matched; dead end at 'c': no condition matched",
        ),
        (
            graph("x t - g any", "y u - g any", "t u t g any", "u t u g any", "k k NO", "k z NO"),
            {},
            "dead end at 't', 'u': who comes next has spoken already",
        ),
    ],
)
async def test_a_dead_end_is_named(it: DiGraph, words: Words, reason: str) -> None:
    assert (await ran(it, words, max_turns=9))[1] == reason


async def test_a_walk_that_reached_a_leaf_is_complete_whatever_else_waits() -> None:
    assert (await ran(graph("a b X", "a c Y", "b d", "c d", "a e X"), {"a": ["X"]}))[1] == COMPLETE


async def test_a_dead_end_is_not_told_when_a_termination_was_met() -> None:
    it = graph("a b X", "b a Y", entry="a", nodes="z")
    ended = await ran(it, {"a": ["X", "APPROVE"], "b": ["Y"]}, termination_condition=TextMentionTermination("APPROVE"))
    assert ended == ("a b a", "Text 'APPROVE' mentioned")


async def test_after_a_dead_end_the_next_run_begins_anew() -> None:
    it = team(graph("a b", "b c X", "b d Y", "c j", "d j"), {"b": ["X"]})
    assert [order(await it.run(task="q")) for _ in range(2)] == ["a b c"] * 2


async def test_completion_is_told_before_terminations_and_turns() -> None:
    it = graph("a b")
    assert (await ran(it, max_turns=2))[1] == COMPLETE
    assert (await ran(it, termination_condition=TextMentionTermination("b", sources=["b"])))[1] == COMPLETE


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"participants": [Counter("a")]}, "the node 'b' of the graph is nobody among the participants"),
        ({"participants": [Counter("a"), Counter("a")]}, "two participants named 'a'"),
        ({"graph": graph("a b", "b a", nodes="z")}, "goes round without end"),
        ({"graph": graph("a b", "b a X", entry="a", nodes="z")}, "needs a termination_condition or max_turns"),
        ({"graph": {"nodes": {"a": {"nam": "a"}}}}, r"\$\.graph\.nodes\.a"),
    ],
)
def test_a_team_that_cannot_walk_its_graph_is_refused(arguments: dict[str, Any], sentence: str) -> None:
    fine = {"participants": [Counter(name) for name in "abz"], "graph": graph("a b")}
    with pytest.raises(ValueError, match=sentence):
        GraphFlow(**{**fine, **arguments})


def test_a_team_tells_the_findings_of_its_graph_and_who_is_no_node() -> None:
    it = GraphFlow([Counter(name) for name in "abcdx"], graph("a b X", "a c Y", "b d", "c d"))
    assert [(finding.kind, finding.node) for finding in it.problems()] == [
        ("join-may-not-fire", "d"),
        ("unreachable", "x"),
    ]


# --- failures


async def test_a_failure_in_a_parallel_branch_is_named_and_the_layer_is_ready_again() -> None:
    flaky = Failing("c", KeyError("lost"))
    it = GraphFlow([Counter("a"), Counter("b"), flaky, Counter("d")], graph("a b", "a c", "b d", "c d"))
    with pytest.raises(AgentFailed, match="agent 'c' failed in turn 2: KeyError") as caught:
        await it.run(task="q")
    assert caught.value.result.messages[1].source == "a"
    flaky.__class__ = Counter
    result = await it.run(task="again")
    assert (order(result), result.stop_reason) == ("b c d", COMPLETE)


async def test_a_condition_that_raises_is_told_with_its_edge_and_the_turn_is_ready_again() -> None:
    broken = [True]

    def check(message: BaseChatMessage) -> bool:
        return 1 / (1 - broken[0]) > 0

    it = graph("a b", "b c")
    it.nodes["b"].edges[0].condition = check
    flow = team(it)
    with pytest.raises(AgentFailed, match=r"agent 'b' failed in turn 2: .* the edge 'b' -> 'c' raised ZeroDivision"):
        await flow.run(task="q")
    broken.clear()
    broken.append(False)
    assert order(await flow.run()) == "b c"


async def test_a_layer_with_a_condition_that_raises_has_said_nothing_to_anybody() -> None:
    def check(message: BaseChatMessage) -> bool:
        raise LookupError

    it = graph("a b", "a c", "b d", "c d")
    it.nodes["c"].edges[0].condition = check
    flow = team(it)
    with pytest.raises(AgentFailed, match="agent 'c' failed in turn 2"):
        await flow.run(task="q")
    state = (await flow.save_state())["agent_states"]
    assert [message["content"] for message in state["GraphManager"]["message_thread"]] == ["q", "a"]
    assert [len(state[name]["message_buffer"]) for name in "abcd"] == [0, 0, 0, 2]


async def test_a_condition_that_turns_out_to_be_asynchronous_is_refused() -> None:
    async def later() -> bool:
        return False

    it = graph("a b")
    it.nodes["a"].edges[0].condition = lambda message: later()
    with pytest.raises(AgentFailed, match="must answer at once"):
        await team(it).run(task="q")


async def test_a_walk_whose_termination_failed_at_its_end_begins_anew() -> None:
    def fail(messages: Sequence[Any]) -> bool:
        return messages[0].source == "b" and bool(1 / 0)

    flow = team(graph("a b"), termination_condition=FunctionalTermination(fail))
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            await flow.run(task="q")
    assert (await flow.save_state())["agent_states"]["GraphManager"]["ready"] == []


async def test_a_limit_in_the_middle_of_a_layer_leaves_the_layer_ready() -> None:
    it = team(graph("a b", "a c", "b d", "c d"))
    await it.run(task="q", limits=RunLimits(model_calls=2))
    assert order(await it.run()) == "b c d"


async def test_a_cancelled_walk_goes_on_with_the_layer_that_was_cancelled() -> None:
    token = CancellationToken()

    class Cancelling(Counter):
        async def on_messages(self, messages: Sequence[BaseChatMessage], own: CancellationToken) -> Response:
            if not token.is_cancelled():
                token.cancel()
                await asyncio.Event().wait()
            return await super().on_messages(messages, own)

    it = GraphFlow([Counter("a"), Cancelling("b"), Counter("c")], graph("a b", "a c"))
    with pytest.raises(asyncio.CancelledError):
        await it.run(task="q", cancellation_token=token)
    assert order(await it.run()) == "b c"


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_a_layer_that_waits_for_a_person_is_taken_back_and_taken_again(elsewhere: bool) -> None:
    def make() -> GraphFlow:
        it = graph("a b", "a u", "b d", "u d yes", "u a no back", entry="a")
        agents = [cycling("a", ()), cycling("b", ()), UserProxyAgent("u", input_func=suspend), cycling("d", ())]
        return GraphFlow(agents, it, max_turns=9)

    flow = make()
    for answer in ("no", "yes"):
        waiting = await flow.run(task="q")
        flow.answer(waiting.pending[0].id, answer)
        if elsewhere:
            state = json.loads(json.dumps(await flow.save_state()))
            flow = make()
            await flow.load_state(state)
    result = await flow.run(task="q")
    spoken = [message.source for message in result.messages if message.type == "TextMessage"]
    assert (spoken, result.stop_reason) == (["user", "a", "b", "u", "a", "b", "u", "d"], COMPLETE)


# --- state

CASES: list[tuple[DiGraph, Words, int]] = [
    (graph("a b", "a c", "b d", "c d"), {}, 3),
    (LOOP, {"r": ["AGAIN", "AGAIN", "DONE"]}, 7),
    (REVIEW, {"j": ["AGAIN", "AGAIN", "DONE"]}, 10),
    (
        graph("a b", "a c", "b d - d any", "c e", "e d - d any", "d a AGAIN", "d z DONE", entry="a"),
        {"d": ["AGAIN", "DONE"]},
        7,
    ),
    (graph("s w - in any", "w r", "r w AGAIN in any", "r z DONE"), {"r": ["AGAIN", "DONE"]}, 6),
    (graph("a d - one", "a b", "b c", "c d - two", "d e"), {}, 4),
    (graph("a b", "a c", "c e", "e f", "b d", "f d", "d z"), {}, 6),
]


async def moved(flow: GraphFlow, make: Callable[[], GraphFlow]) -> GraphFlow:
    state = json.loads(json.dumps(await flow.save_state()))
    fresh = make()
    await fresh.load_state(state)
    assert await fresh.save_state() == state
    return fresh


@pytest.mark.parametrize(("it", "words", "turns"), CASES)
async def test_saved_after_any_number_of_turns_it_goes_on_as_if_it_had_never_stopped(
    it: DiGraph, words: Words, turns: int
) -> None:
    whole = await team(it, words, max_turns=30).run(task="q")
    assert whole.stop_reason == COMPLETE
    for count in range(1, turns):
        first = team(it, words, max_turns=count)
        begun = await first.run(task="q")
        rest = await (await moved(first, lambda: team(it, words, max_turns=30))).run()
        assert begun.stop_reason == f"Maximum number of turns {count} reached."
        assert (order(begun) + " " + order(rest), rest.stop_reason) == (order(whole), COMPLETE)


async def test_saved_during_a_run_it_takes_the_open_layer_again() -> None:
    flow = team(graph("a b", "a c", "b d", "c d"))
    stream = flow.run_stream(task="q")
    async for item in stream:
        if getattr(item, "source", "") == "a":
            break
    state = json.loads(json.dumps(await flow.save_state()))
    await stream.aclose()
    assert state["agent_states"]["GraphManager"]["ready"] in (["a"], ["b", "c"])


def manager(**more: Any) -> dict[str, Any]:
    """A manager's state as AutoGen writes it for the diamond, after `a` and `b` and `c`."""
    return {
        "message_thread": [],
        "current_turn": 2,
        "remaining": {"b": {"b": 1}, "c": {"c": 1}, "d": {"d": 0}},
        "enqueued_any": {"b": {"b": False}, "c": {"c": False}, "d": {"d": False}},
        "ready": ["d"],
        **more,
    }


async def loaded(it: DiGraph, state: dict[str, Any]) -> GraphFlow:
    flow = team(it, max_turns=9)
    whole: Any = await flow.save_state()
    whole["agent_states"]["GraphManager"] = state
    await flow.load_state(json.loads(json.dumps(whole)))
    return flow


DIAMOND = graph("a b", "a c", "b d", "c d")


@pytest.mark.parametrize(
    ("it", "state", "spoken"),
    [
        (DIAMOND, manager(), "d"),
        (DIAMOND, manager(ready=["b", "c"], remaining={"d": {"d": 2}}), "b c d"),
        (DIAMOND, manager(ready=["c"], remaining={"d": {"d": 1}}), "c d"),
        (DIAMOND, manager(ready=[], remaining={"d": {"d": 1}}), "a b c d"),  # AutoGen lost whose turn it was
        (DIAMOND, manager(ready=["b", "c"], remaining={"d": {"d": -1}}), "b c d"),  # AutoGen counted on
        (
            graph("a b", "a c", "b d - d any", "c d - d any", "d e"),
            manager(ready=["d"], remaining={"d": {"d": 2}}, enqueued_any={"d": {"d": True}}),
            "d e",
        ),
    ],
)
async def test_a_state_of_autogens_is_gone_on_from(it: DiGraph, state: dict[str, Any], spoken: str) -> None:
    flow = await loaded(it, state)
    assert order(await flow.run()) == spoken
    assert order(await flow.run()) == "a b c d" + (" e" if "e" in it.nodes else "")


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"ready": ["x"]}, "the graph has no node 'x'"),
        ({"ready": ["d", "d"]}, "names a node twice"),
        ({"ready": "d"}, r"\.ready"),
        ({"remaining": {"d": {"x": 1}}}, "the graph has no group 'x' at a node 'd'"),
        ({"remaining": {"d": {"d": 3}}}, "3 of 2 edges cannot be missing"),
        ({"arrived": {"d": {"d": [5]}}}, "expected numbers below 2"),
        ({"fired": {"y": {"d": 1}}}, "the graph has no group 'd' at a node 'y'"),
        ({"past": {"y": {}}}, "the graph has no node 'y'"),
        ({"somebody": 1}, "somebody"),
        ({"type": "SwarmManagerState"}, "SwarmManagerState"),
    ],
)
async def test_a_state_of_another_graph_is_refused_and_changes_nothing(more: dict[str, Any], problem: str) -> None:
    flow = team(DIAMOND)
    before: Any = await flow.save_state()
    damaged = json.loads(json.dumps(before))
    damaged["agent_states"]["GraphManager"].update(manager(**more))
    with pytest.raises(StateError, match=problem):
        await flow.load_state(damaged)
    assert await flow.save_state() == before


async def test_reset_goes_back_to_the_start() -> None:
    flow = team(DIAMOND, max_turns=1)
    await flow.run(task="q")
    await flow.reset()
    assert order(await flow.run(task="q")) == "a"


async def test_sessions_walk_on_their_own() -> None:
    flow = team(DIAMOND, max_turns=1)
    await flow.run(task="q")
    results = await asyncio.gather(*(flow.session().run(task="q") for _ in range(20)), flow.run())
    assert [order(result) for result in results] == ["a"] * 20 + ["b c"]


# --- documents


@register_component
def is_long(message: BaseChatMessage) -> bool:
    return len(message.to_text()) > 3


def with_condition(condition: Any) -> GraphFlow:
    made = DiGraphBuilder().add_node(speaker("a", "long text")).add_node(speaker("b", "b"))
    return GraphFlow(made.get_participants(), made.add_edge("a", "b", condition).build(), max_turns=3)


async def test_a_registered_condition_is_written_by_name_and_holds_when_loaded() -> None:
    document = json.loads(with_condition(is_long).dump_component().model_dump_json())
    assert document["config"]["graph"]["nodes"]["a"]["edges"][0]["condition"] == {"$registered": f"{__name__}.is_long"}
    again = GraphFlow.load_component(document)
    assert again._graph.nodes["a"].edges == [DiGraphEdge(target="b", condition=is_long)]
    assert order(await again.run(task="q")) == "a b"


def test_trap_a_condition_without_a_name_is_refused_not_written_as_always() -> None:
    place = r"\$\.config\.graph\.nodes\.a\.edges\[0\]\.condition"
    with pytest.raises(EncodeError, match=f"^{place}: .*register_component"):
        with_condition(lambda message: False).dump_component()


async def test_a_document_of_autogens_loads() -> None:
    document = json.loads(with_condition("long").dump_component().model_dump_json())
    document["provider"] = "autogen_agentchat.teams.GraphFlow"
    document["config"]["description"] = None
    again = Component.load_component(document)
    assert isinstance(again, GraphFlow)
    assert order(await again.run(task="q")) == "a b"


# --- any graph


@st.composite
def graphs(draw: st.DrawFn) -> DiGraph:
    """Graphs of up to six nodes: conditions, groups, loops, entry points; most of them can be walked."""
    names = "abcdef"[: draw(st.integers(3, 6))]
    kinds = {(name, group): draw(st.sampled_from(["all", "any"])) for name in names for group in ("g", "h")}
    edges = []
    for at, name in enumerate(names[:-1]):
        words = draw(st.sampled_from(["XY", "-"]))
        onward = names[at + 1 :] if words == "-" and draw(st.booleans()) else names
        for target in draw(st.lists(st.sampled_from(onward), min_size=1, max_size=3)):
            group = draw(st.sampled_from("ggh"))
            edges.append(f"{name} {target} {draw(st.sampled_from(words))} {group} {kinds[target, group]}")
    activation = {name: draw(st.sampled_from(["all", "all", "any"])) for name in names}
    return graph(*edges, nodes=" ".join(names), entry=draw(st.sampled_from([None, *"aab"])), **activation)


SCRIPTS = st.fixed_dictionaries(
    {name: st.lists(st.sampled_from(["X", "Y", "XY", ""]), min_size=1) for name in "abcdef"}
)


def walkable(it: DiGraph) -> bool:
    return not any(finding.severity == "error" for finding in it.problems())


@given(it=graphs(), words=SCRIPTS)
async def test_any_graph_ends_with_a_reason_and_who_can_never_speak_never_does(it: DiGraph, words: Words) -> None:
    if not walkable(it):
        with pytest.raises(ConfigError, match="cannot be walked"):
            team(it, max_turns=9)
        return
    result = await team(it, words, max_turns=12).run(task="q")
    reason = str(result.stop_reason)
    assert reason in (COMPLETE, "Maximum number of turns 12 reached.") or reason.startswith("dead end at '")
    silent = {finding.node for finding in it.problems() if finding.kind == "unreachable"}
    stuck = {finding.node for finding in it.problems() if finding.kind == "join-cannot-fire"}
    stuck = {name for name in stuck if len(it.groups()[str(name)]) == 1 and name not in it.get_start_nodes()}
    assert not (silent | stuck) & set(order(result).split())


@given(it=graphs(), words=SCRIPTS)
@settings(max_examples=50)
async def test_any_graph_saved_after_every_turn_is_walked_as_in_one_go(it: DiGraph, words: Words) -> None:
    if not walkable(it):
        return
    whole = await team(it, words, max_turns=6).run(task="q")
    flow, spoken = team(it, words, max_turns=1), []
    for turn in range(6):
        result = await flow.run(task=None if turn else "q")
        spoken += order(result).split()
        if result.stop_reason != "Maximum number of turns 1 reached.":
            break
        flow = await moved(flow, lambda: team(it, words, max_turns=1))
    assert (" ".join(spoken), str(result.stop_reason)[:8]) == (order(whole), str(whole.stop_reason)[:8])


@given(it=graphs(), words=SCRIPTS)
async def test_where_nothing_is_warned_of_no_join_waits_in_vain(it: DiGraph, words: Words) -> None:
    for edge in (edge for node in it.nodes.values() for edge in node.edges):
        edge.activation_group, edge.activation_condition = "g", "all"
    if it.problems() or it.has_cycles():
        return
    assert "waits" not in str((await team(it, words).run(task="q")).stop_reason)


@given(it=graphs())
async def test_without_conditions_and_loops_everybody_who_can_speak_speaks_once(it: DiGraph) -> None:
    for node in it.nodes.values():
        for edge in node.edges:
            edge.condition, edge.activation_group = None, "g"
            edge.activation_condition = it.nodes[edge.target].activation
    if it.has_cycles() or not walkable(it):
        return
    spoken = order(await team(it).run(task="q")).split()
    silent = {finding.node for finding in it.problems()}
    assert sorted(spoken) == sorted(set(it.nodes) - silent)


# --- in other teams


class Late(Counter):
    """Speaks only when somebody else has been asked."""

    asked: asyncio.Event

    async def on_messages(self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken) -> Response:
        if self.name == "slow":
            await self.asked.wait()
        self.asked.set()
        return await super().on_messages(messages, cancellation_token)


@pytest.mark.parametrize("within", ["team", "society", "tool"])
async def test_what_is_said_side_by_side_within_is_in_the_result_in_the_order_of_the_graph(within: str) -> None:
    Late.asked = asyncio.Event()
    inner = GraphFlow([Late("slow"), Late("fast")], graph(nodes="slow fast"), name="inner")
    model = ReplayChatCompletionClient([[FunctionCall("1", '{"task": "x"}', "inner")], "done"])
    outer: dict[str, TaskRunner] = {
        "team": RoundRobinGroupChat([inner], max_turns=1),
        "society": SocietyOfMindAgent("som", inner, ReplayChatCompletionClient(["done"])),
        "tool": AssistantAgent("a", model, tools=[TeamTool(inner, "inner", "d")], reflect_on_tool_use=True),
    }
    items = [item async for item in outer[within].run_stream(task="q")]
    live = [item.source for item in items if isinstance(item, TextMessage)]
    lasting = [item.source for item in items[-1].messages if isinstance(item, TextMessage)]
    assert live.index("fast") < live.index("slow")
    assert lasting.index("slow") < lasting.index("fast")
