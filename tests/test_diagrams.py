"""Drawings of teams for Mermaid."""

from __future__ import annotations

import re

import pytest

from agents_for_tests import Counter, speaker
from graphs_for_tests import graph
from tinygen import (
    AssistantAgent,
    BaseChatMessage,
    BaseGroupChat,
    DiGraphEdge,
    GraphFlow,
    HandoffTermination,
    MagenticOneGroupChat,
    ReplayChatCompletionClient,
    RoundRobinGroupChat,
    SelectorGroupChat,
    SocietyOfMindAgent,
    Swarm,
)


def is_long(message: BaseChatMessage) -> bool:
    return len(message.to_text()) > 3


def test_a_drawing_shows_conditions_and_entry_points() -> None:
    it = graph("a b", "b a AGAIN|it", 'b c "fine"', entry="a")
    it.nodes["b"].edges.append(DiGraphEdge(target="c", condition=is_long))
    assert GraphFlow([Counter(name) for name in "abc"], it, max_turns=9).to_mermaid() == (
        "flowchart TD\n"
        '    n1(["GraphFlow"])\n'
        '    n2["a"]\n'
        '    n3["b"]\n'
        '    n4["c"]\n'
        "    n1 --> n2\n"
        "    n2 --> n3\n"
        '    n3 -->|"AGAIN#124;it"| n2\n'
        '    n3 -->|"#34;fine#34;"| n4\n'
        '    n3 -->|"is_long()"| n4\n'
    )


def test_a_drawing_marks_groups_of_which_any_is_enough() -> None:
    it = graph("a c - c any", "b c X c any", nodes="a b")
    drawn = GraphFlow([Counter(name) for name in "abc"], it).to_mermaid()
    assert drawn.splitlines()[-2:] == ['    n2 -->|"(any)"| n4', '    n3 -->|"X (any)"| n4']


def test_teams_within_are_drawn_as_boxes() -> None:
    inner = RoundRobinGroupChat([Counter("p"), Counter("end")], name='the "inner" team')
    assert RoundRobinGroupChat([Counter("a"), inner]).to_mermaid() == (
        "flowchart TD\n"
        '    n1(["RoundRobinGroupChat"])\n'
        '    n2["a"]\n'
        '    subgraph n3["the #34;inner#34; team"]\n'
        '        n4(["RoundRobinGroupChat"])\n'
        '        n5["p"]\n'
        '        n6["end"]\n'
        "        n4 --> n5\n"
        "        n5 --> n6\n"
        "        n6 --> n5\n"
        "    end\n"
        "    n1 --> n2\n"
        "    n2 --> n3\n"
        "    n3 --> n2\n"
    )


def hands_over(name: str, *targets: str) -> AssistantAgent:
    return AssistantAgent(name, ReplayChatCompletionClient([]), handoffs=list(targets))


def test_a_swarm_is_drawn_by_its_handoffs() -> None:
    it = Swarm([hands_over("a", "b"), hands_over("b", "a", "user")], termination_condition=HandoffTermination("user"))
    assert it.to_mermaid().splitlines()[4:] == [
        "    n1 --> n2",
        "    n2 --> n3",
        "    n3 --> n2",
        '    n3 -->|"to user"| n1',
    ]


@pytest.mark.parametrize("kind", [SelectorGroupChat, MagenticOneGroupChat])
def test_a_team_that_chooses_stands_between_its_members(kind: type[SelectorGroupChat | MagenticOneGroupChat]) -> None:
    it: BaseGroupChat = kind([Counter("a"), Counter("b")], ReplayChatCompletionClient([]))
    lines = it.to_mermaid().splitlines()
    assert lines[1] == f'    n1(["{kind.__name__}"])'
    assert lines[4:] == ["    n1 --> n2", "    n2 --> n1", "    n1 --> n3", "    n3 --> n1"]


def test_the_team_inside_an_agent_is_drawn_too() -> None:
    inner = RoundRobinGroupChat([Counter("p")], name="inner")
    author = SocietyOfMindAgent("author", inner, ReplayChatCompletionClient([]))
    drawn = RoundRobinGroupChat([author, speaker("b")]).to_mermaid()
    boxes = re.findall(r'subgraph n\d+\["(\w+)"\]', drawn)
    assert (boxes, drawn.count("    end\n")) == (["author", "inner"], 2)


def test_a_long_condition_is_shortened() -> None:
    drawn = GraphFlow([Counter("a"), Counter("b")], graph(f"a b {'x' * 100}")).to_mermaid()
    assert f'|"{"x" * 57}..."|' in drawn
