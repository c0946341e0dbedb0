"""`tinygen check` finds what is wrong with a team before it runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
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
    TeamTool,
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
    twice = agent("ann", reflect_on_tool_use=True, workbench=[StaticWorkbench([add]), StaticWorkbench([add])])

    assert found(twice) == [("duplicate-tool", "ann")]


@pytest.mark.parametrize("chosen", [{"reflect_on_tool_use": False}, {"max_tool_iterations": 2}])
def test_an_agent_whose_answer_is_what_its_tool_returns_is_a_warning(chosen: dict[str, Any]) -> None:
    assert found(agent("ann", tools=[add])) == [("raw-answer", "ann")]
    assert found(agent("ann", tools=[add], **chosen)) == found(agent("ann", handoffs=["bob"])) == []


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


def test_what_is_wrong_with_a_team_that_is_a_tool_is_found() -> None:
    endless = RoundRobinGroupChat([agent("ann")], name="inner")
    boss = agent("boss", tools=[TeamTool(endless, "ask", "asks a team")])

    assert found(RoundRobinGroupChat([boss], name="t", max_turns=2)) == [("endless", "t/boss/inner")]


def test_the_command_reads_a_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "team.json"
    endless = RoundRobinGroupChat([agent("ann")], name="solo")
    file.write_text(json.dumps(endless.dump_component().model_dump()))

    assert main(["check", str(file)]) == 1
    assert capsys.readouterr().out.startswith("error: solo: nothing ends it")


def test_the_command_reads_a_team_or_its_maker_from_a_module(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "tinygen.__main__:demo_team"]) == 0
    assert capsys.readouterr().err == "0 errors, 0 warnings\n"


@pytest.mark.parametrize(
    "what",
    ["nowhere.json", "no_such_module:team", "json:dumps", "tinygen:RoundRobinGroupChat", ".here:team", "json:nothing"],
)
def test_what_is_no_team_is_said_in_one_line(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", what]) == 1
    captured = capsys.readouterr()
    assert (captured.out + captured.err).strip()
    assert "Traceback" not in captured.err


def test_a_name_that_a_module_does_not_have_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "tinygen.__main__:demo_tem"]) == 1
    assert "there is no 'demo_tem' in 'tinygen.__main__'; did you mean 'demo_team'?" in capsys.readouterr().out


def test_a_program_to_check_is_told_how_to_name_its_team(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "app/teams.py"]) == 1
    assert "as in app.teams:team" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("source", "word"),
    [("import sys; sys.exit(0)", "ended the program"), ("import os; os.chdir('/'); team = 5", "is 5; expected a team")],
)
def test_what_a_module_does_when_imported_is_no_answer(
    source: str, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"program_{abs(hash(source))}"
    (tmp_path / f"{name}.py").write_text(source)

    assert main(["check", f"{name}:team"]) == 1
    assert word in capsys.readouterr().out


def test_names_in_what_is_found_cannot_command_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    sys.modules["program_evil"] = SimpleNamespace(team=RoundRobinGroupChat([agent("a")], name="x\x1b[2J"))  # type: ignore[assignment]

    main(["check", "program_evil:team"])

    assert capsys.readouterr().out.startswith("error: x\\x1b[2J: nothing ends it")


def test_a_document_that_is_no_component_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "team.json"
    for content in (b'{"provider": "nonsense.Team", "config": {}}', b'{"provider": "\xe9"}', b"[" * 99_999):
        file.write_bytes(content)

        assert main(["check", str(file)]) == 1
        assert capsys.readouterr().out.startswith("error: ")
