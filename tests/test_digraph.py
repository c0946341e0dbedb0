"""Graphs of speakers: built, checked, written; what the checks prove and what they warn of."""

from __future__ import annotations

import inspect
import json
from typing import Any

import pytest

from agents_for_tests import Counter
from graphs_for_tests import graph
from tinygen import (
    ConfigError,
    DiGraph,
    DiGraphBuilder,
    DiGraphEdge,
    DiGraphNode,
    EncodeError,
    RoundRobinGroupChat,
    TextMessage,
)
from tinygen.digraph import Finding, GraphWarning


def builder(names: str = "ab") -> DiGraphBuilder:
    made = DiGraphBuilder()
    for name in names:
        made.add_node(Counter(name))
    return made


def found(it: DiGraph) -> list[tuple[str, str, str | None]]:
    return [(finding.severity, finding.kind, finding.node) for finding in it.problems()]


# --- shape


def test_a_graph_has_autogens_json_shape() -> None:
    written = {
        "nodes": {
            "a": {
                "name": "a",
                "edges": [
                    {"target": "b", "condition": "kw", "activation_group": "b", "activation_condition": "all"},
                ],
                "activation": "all",
            },
            "b": {"name": "b", "edges": [], "activation": "all"},
        },
        "default_start_node": None,
    }
    assert graph("a b kw").dump() == written
    assert DiGraph.model_validate(json.loads(json.dumps(written))) == graph("a b kw")


def test_a_function_as_condition_is_not_dropped_when_a_graph_is_written() -> None:
    it = builder().add_edge("a", "b", lambda message: True).build()
    with pytest.raises(EncodeError, match=r"^\$\.nodes\.a\.edges\[0\]\.condition: "):
        it.dump()


def test_a_graph_tells_its_starts_leaves_and_parents() -> None:
    it = graph("a b", "a c", "b d", "c d")
    assert (it.get_start_nodes(), it.get_leaf_nodes()) == ({"a"}, {"d"})
    assert it.get_parents() == {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}
    assert graph("a b x", "b a y", "b c z", entry="b").get_start_nodes() == {"b"}


@pytest.mark.parametrize(("edges", "cycles"), [(("a b", "b c"), False), (("a b", "b a x", "b c y"), True)])
def test_a_graph_knows_whether_it_goes_round(edges: tuple[str, ...], cycles: bool) -> None:
    assert graph(*edges).has_cycles_with_exit() is cycles


def test_a_cycle_without_exit_is_told_when_asked_for() -> None:
    with pytest.raises(ConfigError, match="'b' -> 'c' -> 'b' goes round without end"):
        graph("a b", "b c", "c b").has_cycles_with_exit()


@pytest.mark.parametrize(
    ("condition", "text", "holds"),
    [
        (None, "anything", True),
        ("YES", "oh YES", True),
        ("YES", "yes", False),
        (lambda message: len(message.content) > 3, "long", True),
        (lambda message: 0, "long", False),
    ],
)
def test_a_condition_is_a_text_in_the_message_or_a_function_of_it(condition: Any, text: str, holds: bool) -> None:
    edge = DiGraphEdge(target="b", condition=condition)
    assert edge.check_condition(TextMessage(content=text, source="a")) is holds


def test_without_a_message_only_an_edge_without_condition_is_taken() -> None:
    assert DiGraphEdge(target="b").check_condition(None)
    assert not DiGraphEdge(target="b", condition="").check_condition(None)


# --- what is refused


@pytest.mark.parametrize(
    ("it", "kind", "sentence"),
    [
        (DiGraph(nodes={}), "empty", "it has no nodes"),
        (graph("a b x", "b a y", "b c z"), "no-start", "so none can be the first; set an entry point"),
        (graph("a b x", "b a y", entry="a"), "no-leaf", "so none can be the last"),
        (graph("a b", "a c x"), "mixed-edges", "'a' has edges with a condition and edges without"),
        (graph("a c - g all", "b c - g any"), "mixed-group", "the edges to 'c' in group 'g' say both 'all' and 'any'"),
        (graph("s a", "a b", "b a", nodes="z"), "endless-cycle", "'a' -> 'b' -> 'a' goes round without end"),
        (graph("a a", nodes="s"), "endless-cycle", "'a' -> 'a' goes round"),
        (graph("a b", entry="aa"), "unknown-node", "its entry point 'aa' is no node; did you mean 'a'?"),
        (
            DiGraph(nodes={"one": DiGraphNode(name="one", edges=[DiGraphEdge(target="oen")])}),
            "unknown-node",
            "'one' -> 'oen' leads to no node; did you mean 'one'?",
        ),
        (DiGraph(nodes={"a": DiGraphNode(name="b")}), "unknown-node", "the node 'a' calls itself 'b'"),
        (graph("a b - g some"), "activation", "must be 'all' or 'any', not 'some'"),
        (graph("a b", b="some"), "activation", "activation of 'b' must be 'all' or 'any', not 'some'"),
        (
            DiGraph.load({"nodes": {"a": {"name": "a", "edges": [{"target": "a", "condition": {"x": 1}}]}}}),
            "condition",
            "is {'x': 1}: no text, function",
        ),
    ],
)
def test_a_graph_that_cannot_be_walked_is_refused(it: DiGraph, kind: str, sentence: str) -> None:
    assert ("error", kind) in [each[:2] for each in found(it)]
    with pytest.raises(ConfigError, match=r"^this graph cannot be walked: ") as caught:
        it.graph_validate()
    assert sentence in str(caught.value)


def test_an_async_condition_is_refused_as_it_would_always_hold() -> None:
    async def later(message: Any) -> bool:
        return False

    with pytest.raises(ConfigError, match="must not be an async function"):
        builder().add_edge("a", "b", later).build()  # type: ignore[arg-type]


def test_everything_that_is_wrong_is_told_at_once() -> None:
    it = graph("a b", "a c x", "b d - g", "c d - g any")
    assert [kind for _, kind, _ in found(it)] == ["mixed-edges", "mixed-group"]


def test_a_loop_that_a_condition_can_end_anywhere_is_fine() -> None:
    assert found(graph("s a", "a b", "b c", "c a again back", "c end done")) == []


# --- joins and nodes that stay silent


def test_a_join_after_branches_of_which_one_is_skipped_may_never_fire() -> None:
    it = graph("a b X", "a c Y", "b d", "c d")
    assert found(it) == [("warning", "join-may-not-fire", "d")]
    assert it.problems()[0].text == (
        "'d' waits for all of 'b', 'c', but may wait in vain for 'b', 'c', as conditions decide who speaks; "
        "if one is enough, say activation 'any'"
    )


@pytest.mark.parametrize(
    "edges",
    [
        ("a b", "a c", "b d", "c d"),  # nothing is skipped
        ("a b X", "a c X", "b d", "c d"),  # both or none
        ("a b X", "a c Y", "b d - d any", "c d - d any"),  # one is enough
        ("a b X", "a c Y", "b d - one", "c d - two"),  # groups are alternatives
        ("a b X", "b c", "b d", "c e", "d e"),  # all behind one condition
        ("a b X", "a c Y", "b d - d any", "c d - d any", "d e", "d f", "e g", "f g"),
    ],
)
def test_a_join_that_loses_nobody_is_not_warned_of(edges: tuple[str, ...]) -> None:
    assert found(graph(*edges)) == []


@pytest.mark.parametrize(
    "edges",
    [
        ("a b", "a c", "b d X", "c d"),  # the condition is on the edge itself
        ("s a", "s b", "a c X", "c d", "b d"),  # further up
        ("a b X", "a c Y", "b m - m any", "c m - m any", "s d", "m d"),  # neither branch may be taken
        ("a d X", "a d Y"),  # two conditions at once
    ],
)
def test_a_join_that_may_lose_somebody_is_warned_of(edges: tuple[str, ...]) -> None:
    assert found(graph(*edges)) == [("warning", "join-may-not-fire", "d")]


def test_a_loop_back_into_the_group_of_the_way_in_is_proven_never_to_fire() -> None:
    it = graph("s a", "a b", "b a again", "b c done")
    assert found(it) == [
        ("warning", "join-cannot-fire", "a"),
        ("warning", "unreachable", "b"),
        ("warning", "unreachable", "c"),
    ]
    assert it.problems()[0].text == (
        "'a' waits for all of 's', 'b', but 'b' can never speak before 'a' does; give the edge that comes back an "
        "activation_group of its own"
    )
    assert it.problems()[1].text == "'b' can never speak: it comes after 'a', which can never speak"


def test_a_loop_back_in_a_group_of_its_own_or_with_any_can_fire() -> None:
    assert found(graph("s a", "a b", "b a again back", "b c done")) == []
    assert found(graph("s a", "a b", "b a again", "b c done", a="any")) == []


def test_a_join_with_a_node_beside_the_entry_point_cannot_fire() -> None:
    it = graph("a c", "b c", nodes="a b", entry="a")
    assert found(it) == [("warning", "unreachable", "b"), ("warning", "join-cannot-fire", "c")]
    assert it.problems()[0].text == "'b' can never speak: no edge leads to it"


def test_a_graph_with_errors_has_no_warnings_yet() -> None:
    assert {severity for severity, _, _ in found(graph("a b", "b a", "b c X", "d c", "e c Y"))} == {"error"}


def test_a_graph_of_thousands_is_checked_quickly() -> None:
    it = graph(*(f"n{i} n{i + 1} X" for i in range(1000)), *(f"n{i} n{i + 7} Y" for i in range(0, 900, 9)))
    assert len(it.problems()) == 100


def test_findings_are_data() -> None:
    finding = graph("a b X", "a c Y", "b d", "c d").problems()[0]
    assert Finding.load(json.loads(json.dumps(finding.dump()))) == finding


# --- building


def test_a_builder_makes_a_graph_of_agents_and_names() -> None:
    a, b, c = Counter("a"), Counter("b"), Counter("c")
    made = DiGraphBuilder().add_node(a).add_node(b).add_node(c, activation="any").set_entry_point(a)
    made.add_edge(a, "b").add_edge("b", a, "again").add_edge(b, c, "done", "way", "any")
    assert made.build() == graph("a b", "b a again", "b c done way any", entry="a", c="any")
    assert made.get_participants() == [a, b, c]


def test_a_graph_that_was_built_does_not_change_with_its_builder() -> None:
    made = builder("abc").add_edge("a", "b")
    first = made.build()
    made.add_edge("a", "c")
    assert first.get_parents()["c"] == []


def test_a_builder_warns_of_joins_that_wait_in_vain() -> None:
    made = builder("abcd").add_edge("a", "b", "X").add_edge("a", "c", "Y").add_edge("b", "d").add_edge("c", "d")
    with pytest.warns(GraphWarning, match="'d' waits for all of 'b', 'c'") as caught:
        made.build()
    assert caught[0].filename == __file__


def test_a_builder_refuses_what_cannot_be_walked() -> None:
    with pytest.raises(ConfigError, match="'a' -> 'b' -> 'a' goes round without end"):
        builder("abc").add_edge("a", "b").add_edge("b", "a").set_entry_point("a").build()


def test_keywords_to_targets_still_work_but_are_deprecated() -> None:
    made = builder("abc")
    with pytest.warns(DeprecationWarning, match=r"use add_edge\(condition=...\)"):
        made.add_conditional_edges("a", {"yes": "b", "no": "c"})
    assert made.build() == graph("a b yes", "a c no")


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda it: it.add_edge("writer", "b"), "there is no node 'writer'; call add_node first"),
        (lambda it: it.add_edge("a", Counter("critic")), "there is no node 'critic'; call add_node first"),
        (lambda it: it.set_entry_point("x"), "there is no node 'x'"),
        (lambda it: it.add_edge("a", None), "there is no node None; call add_node first"),
        (lambda it: it.add_node("a"), "a node must be an agent or a team, not 'a'"),
        (lambda it: it.add_node(Counter), "a node must be an agent or a team, not <class"),
        (lambda it: it.add_node(Counter("a")), "there is a node 'a' already, and names must be unique"),
        (lambda it: it.add_node(Counter("c"), "some"), "activation must be 'all' or 'any', not 'some'"),
    ],
)
def test_a_builder_refuses_unknown_nodes_and_equal_names(wrong: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=f"^{sentence}"):
        wrong(builder())


def test_an_agent_may_be_added_again_to_change_how_it_waits() -> None:
    made = builder()
    made.add_edge("a", "b").add_node(made.agents["a"], "any")
    assert made.build() == graph("a b", a="any")


def test_a_team_may_be_a_node() -> None:
    inner = RoundRobinGroupChat([Counter("x")], max_turns=1, name="inner")
    made = builder("a").add_node(inner).add_edge("a", inner)
    assert list(made.build().nodes) == ["a", "inner"]


def test_the_arguments_are_autogens() -> None:
    names = list(inspect.signature(DiGraphBuilder.add_edge).parameters)
    assert names[1:] == ["source", "target", "condition", "activation_group", "activation_condition"]
    assert list(inspect.signature(DiGraphBuilder.add_node).parameters)[1:] == ["agent", "activation"]
