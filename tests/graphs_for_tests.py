"""Graphs in a few words, for tests."""

from __future__ import annotations

from typing import Any

from tinygen import DiGraph, DiGraphEdge, DiGraphNode


def graph(*edges: str, entry: str | None = None, nodes: str = "", **activation: Any) -> DiGraph:
    """A graph of edges such as `a b`, `a b WORD` (a condition), `a b WORD group`, `a b - group any`."""
    made: dict[str, DiGraphNode] = {}
    parsed = [edge.split() for edge in edges]
    for name in [*nodes.split(), *(name for words in parsed for name in words[:2])]:
        made.setdefault(name, DiGraphNode(name=name, activation=activation.get(name, "all")))
    for source, target, *words in parsed:
        condition, group, kind = [*words, *("-", "", "all")[len(words) :]]
        edge = DiGraphEdge(
            target=target,
            condition=None if condition == "-" else condition,
            activation_group=group,
            activation_condition=kind,  # type: ignore[arg-type]
        )
        made[source].edges.append(edge)
    return DiGraph(nodes=made, default_start_node=entry)
