"""`tinygen check` finds what is wrong with a team before it runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tinygen import (
    AssistantAgent,
    DiGraphBuilder,
    FunctionCallTermination,
    GraphFlow,
    HandoffTermination,
    MaxMessageTermination,
    ReplayChatCompletionClient,
    RoundRobinGroupChat,
    SourceMatchTermination,
    StaticWorkbench,
    Swarm,
    TextMentionTermination,
)
from tinygen.__main__ import main
from tinygen.check import problems


def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


def agent(name: str, **options: Any) -> AssistantAgent:
    return AssistantAgent(name, ReplayChatCompletionClient([]), **options)


def found(team: Any) -> list[tuple[str, str | None]]:
    return [(each.kind, each.node) for each in problems(team)]


def good_team() -> RoundRobinGroupChat:
    return RoundRobinGroupChat([agent("ann"), agent("bob")], name="duo", max_turns=4)


def test_nothing_is_found_in_a_sound_team() -> None:
    assert found(good_team()) == []


def test_a_team_that_nothing_ends_is_an_error() -> None:
    assert found(RoundRobinGroupChat([agent("ann")], name="solo")) == [("endless", "solo")]


def test_a_team_that_only_words_can_end_is_a_warning() -> None:
    said = TextMentionTermination("DONE")

    assert found(RoundRobinGroupChat([agent("ann")], name="t", termination_condition=said)) == [("unbounded", "t")]
    assert found(RoundRobinGroupChat([agent("ann")], termination_condition=said | MaxMessageTermination(9))) == []


@pytest.mark.parametrize(
    ("condition", "word"),
    [
        (SourceMatchTermination(["cat"]), "'cat'"),
        (TextMentionTermination("x", sources=["cat"]), "'cat'"),
        (HandoffTermination("cat"), "handoff to 'cat'"),
        (FunctionCallTermination("subtract"), "tool 'subtract'"),
    ],
)
def test_a_condition_that_nobody_can_meet_is_a_warning(condition: Any, word: str) -> None:
    team = RoundRobinGroupChat([agent("ann", tools=[add])], termination_condition=condition, max_turns=3)

    (finding,) = problems(team)

    assert (finding.kind, finding.severity) == ("unmet-condition", "warning")
    assert word in finding.text


def test_a_handoff_that_its_team_does_not_follow_is_a_warning() -> None:
    team = RoundRobinGroupChat([agent("ann", handoffs=["bob"]), agent("bob")], name="duo", max_turns=3)

    assert found(team) == [("idle-handoff", "duo/ann")]


def test_unknown_handoffs_and_members_nobody_hands_to_are_warnings() -> None:
    team = Swarm([agent("ann", handoffs=["bab"]), agent("bob")], name="swarm", max_turns=3)

    assert found(team) == [("unknown-handoff", "swarm/ann"), ("unreachable", "swarm/bob")]
    assert "did you mean 'bob'?" in problems(team)[0].text


def test_a_tool_that_two_workbenches_have_is_an_error() -> None:
    twice = agent("ann", workbench=[StaticWorkbench([add]), StaticWorkbench([add])])

    assert found(twice) == [("duplicate-tool", "ann")]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_join_that_cannot_fire_is_found_in_a_nested_graph() -> None:
    ann, bob, cat, dan = (agent(name) for name in ("ann", "bob", "cat", "dan"))
    builder = DiGraphBuilder().add_node(ann).add_node(bob).add_node(cat).add_node(dan)
    builder.add_edge(ann, bob, condition="left").add_edge(ann, cat, condition="right")
    builder.add_edge(bob, dan).add_edge(cat, dan)
    team = RoundRobinGroupChat([GraphFlow([ann, bob, cat, dan], builder.build(), name="graph")], name="t", max_turns=1)

    (finding,) = problems(team)

    assert finding.kind.startswith("join-")
    assert finding.node == "t/graph/dan"


def test_the_command_reads_a_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "team.json"
    endless = RoundRobinGroupChat([agent("ann")], name="solo")
    file.write_text(json.dumps(endless.dump_component().model_dump()))

    assert main(["check", str(file)]) == 1
    assert capsys.readouterr().out.startswith("error: solo: nothing ends it")


def test_the_command_reads_a_team_or_its_maker_from_a_module(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "tinygen.__main__:demo_team"]) == 0
    assert capsys.readouterr().err == "0 errors, 0 warnings\n"


@pytest.mark.parametrize("what", ["nowhere.json", "no_such_module:team", "json:dumps", "tinygen:RoundRobinGroupChat"])
def test_what_is_no_team_is_said_in_one_line(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", what]) == 1
    captured = capsys.readouterr()
    assert (captured.out + captured.err).strip()
    assert "Traceback" not in captured.err


def test_a_document_that_is_no_component_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "team.json"
    file.write_text('{"provider": "nonsense.Team", "config": {}}')

    assert main(["check", str(file)]) == 1
    assert capsys.readouterr().out.startswith("error: ")
