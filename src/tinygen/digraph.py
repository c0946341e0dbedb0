"""Directed graphs of speakers: built, checked, and written as JSON data. `graph.py` walks them.

Theory of operation. A node speaks when one of the groups of edges that lead to it has fired: a group "all" fires when
each of its edges has been taken since it last fired, a group "any" with the first of them. A node's edges are either
all unconditional, and taken whenever it has spoken, or all conditional, and taken when their condition holds for what
it said.

`DiGraph.problems` tells what is wrong with a graph. Errors are refused: there is nothing to walk, or no way out of a
loop. Warnings are about what would be silence at run time. Who *can never* speak is proven: not even if every
condition held. Who *may never* speak is a guess on the safe side, as conditions are not understood, only compared.
"""

from __future__ import annotations

import inspect
import warnings
from dataclasses import field, replace

from .errors import ConfigError, did_you_mean
from .findings import Finding
from .records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Any, Literal, TypeAlias

    from typing_extensions import Self

    from .agents import BaseChatAgent
    from .messages import BaseChatMessage
    from .teams import BaseGroupChat

    Speaker: TypeAlias = BaseChatAgent | BaseGroupChat
    Condition: TypeAlias = str | Callable[[BaseChatMessage], bool] | None
    Problem = tuple[str, str | None, str]  # a word for it, where it is, a sentence
else:
    Condition = object  # JSON data has no functions, so the codec lets anything through

_KINDS = ("all", "any")


class GraphWarning(UserWarning):
    """A graph that can be walked, but not everywhere: `DiGraphBuilder.build` says what it found."""


class _Part(Record, tagged=False):
    def in_document(self) -> dict[str, Any]:
        """Its fields as they stand in the document of a team: with the functions that are conditions."""
        return vars(self)


class DiGraphEdge(_Part, tagged=False):
    """Leads to `target` if its condition holds: a text in the message, or a function of it; None holds always.

    Edges of one `activation_group` are counted together, "all" or "any" of them; alone, a group is called like the
    target.
    """

    target: str
    condition: Condition = None
    activation_group: str = ""
    activation_condition: Literal["all", "any"] = "all"

    def __post_init__(self) -> None:
        self.activation_group = self.activation_group or self.target

    def label(self) -> str:
        """Its condition in a few words, for drawings."""
        if self.condition is None or isinstance(self.condition, str):
            return self.condition or ""
        name = getattr(self.condition, "__name__", "<")
        return "condition" if name.startswith("<") else f"{name}()"

    def check_condition(self, message: BaseChatMessage | None) -> bool:
        """Whether it is taken after this message; without one, only if it has no condition."""
        if self.condition is None or message is None:
            return self.condition is None
        if isinstance(self.condition, str):
            return self.condition in message.to_model_text()
        answer = self.condition(message)
        if inspect.isawaitable(answer):
            if inspect.iscoroutine(answer):
                answer.close()
            raise ConfigError(f"a condition must answer at once, but {self.condition!r} is asynchronous")
        return bool(answer)


class DiGraphNode(_Part, tagged=False):
    """A speaker and where it leads. With `activation="any"` one edge is enough in each group that leads to it."""

    name: str
    edges: list[DiGraphEdge] = field(default_factory=list)
    activation: Literal["all", "any"] = "all"


class DiGraph(_Part, tagged=False):
    """Who speaks after whom, by name. Walked from `default_start_node`, else from all nodes that no edge leads to.

        graph = DiGraph(nodes={"a": DiGraphNode(name="a", edges=[DiGraphEdge(target="b")]), "b": DiGraphNode(name="b")})

    `DiGraphBuilder` makes one of agents.
    """

    nodes: dict[str, DiGraphNode]
    default_start_node: str | None = None

    def get_parents(self) -> dict[str, list[str]]:
        """The nodes that lead to each node."""
        parents: dict[str, list[str]] = {name: [] for name in self.nodes}
        for name, node in self.nodes.items():
            for edge in node.edges:
                parents[edge.target].append(name)
        return parents

    def get_start_nodes(self) -> set[str]:
        """Where a walk begins."""
        if self.default_start_node is not None:
            return {self.default_start_node}
        return {name for name, parents in self.get_parents().items() if not parents}

    def get_leaf_nodes(self) -> set[str]:
        """Where it ends: nodes that lead nowhere."""
        return {name for name, node in self.nodes.items() if not node.edges}

    def groups(self) -> dict[str, dict[str, list[tuple[str, DiGraphEdge]]]]:
        """The edges that lead to each node by their groups, each with the node it comes from."""
        into: dict[str, dict[str, list[tuple[str, DiGraphEdge]]]] = {name: {} for name in self.nodes}
        for name, node in self.nodes.items():
            for edge in node.edges:
                into[edge.target].setdefault(edge.activation_group, []).append((name, edge))
        return into

    def activation(self, target: str, edges: Sequence[tuple[str, DiGraphEdge]]) -> str:
        """Whether "all" or "any" of a group of edges must be taken; a single one is all of them."""
        if len(edges) < 2:
            return "all"
        return "any" if self.nodes[target].activation == "any" else edges[0][1].activation_condition

    def has_cycles(self) -> bool:
        """Whether any node can be reached from itself."""
        return bool(_ring({name: [edge.target for edge in node.edges] for name, node in self.nodes.items()}))

    def has_cycles_with_exit(self) -> bool:
        """Whether there are cycles, each with a condition that can end it. Raises `ConfigError` if one has none."""
        for _, _, text in _unending(self):
            raise ConfigError(text)
        return self.has_cycles()

    def problems(self) -> list[Finding]:
        """What is wrong with it: errors, or if there are none, warnings."""
        return _errors(self) or _Outlook(self).findings()

    def graph_validate(self) -> None:
        """Raises `ConfigError` with everything that keeps it from being walked."""
        wrong = [finding.text for finding in _errors(self)]
        if wrong:
            raise ConfigError("this graph cannot be walked: " + "; ".join(wrong))


# --- what cannot be walked


def _errors(graph: DiGraph) -> list[Finding]:
    """What must be mended; of the shape as a whole only if every edge leads to a node."""
    return [Finding.error(*each) for each in list(_torn(graph)) or _misshapen(graph)]


def _torn(graph: DiGraph) -> Iterator[Problem]:
    if not graph.nodes:
        yield "empty", None, "it has no nodes"
    if graph.default_start_node is not None and graph.default_start_node not in graph.nodes:
        hint = did_you_mean(graph.default_start_node, graph.nodes)
        yield "unknown-node", None, f"its entry point {graph.default_start_node!r} is no node{hint}"
    for name, node in graph.nodes.items():
        if node.name != name:
            yield "unknown-node", name, f"the node {name!r} calls itself {node.name!r}"
        if node.activation not in _KINDS:
            yield "activation", name, f"activation of {name!r} must be 'all' or 'any', not {node.activation!r}"
        for edge in node.edges:
            here = f"the edge {name!r} -> {edge.target!r}"
            if edge.target not in graph.nodes:
                yield "unknown-node", name, f"{here} leads to no node{did_you_mean(edge.target, graph.nodes)}"
            if edge.activation_condition not in _KINDS:
                text = f"activation_condition of {here} must be 'all' or 'any', not {edge.activation_condition!r}"
                yield "activation", name, text
            if not (edge.condition is None or isinstance(edge.condition, str) or callable(edge.condition)):
                yield "condition", name, f"the condition of {here} is {edge.condition!r:.80}: no text, function"
            elif inspect.iscoroutinefunction(edge.condition):
                yield "condition", name, f"the condition of {here} must not be an async function"


def _misshapen(graph: DiGraph) -> Iterator[Problem]:
    if not graph.get_start_nodes():
        yield "no-start", None, "an edge leads to every node, so none can be the first; set an entry point"
    if not graph.get_leaf_nodes():
        yield "no-leaf", None, "every node leads to another, so none can be the last"
    for name, node in graph.nodes.items():
        if len({edge.condition is None for edge in node.edges}) > 1:
            yield "mixed-edges", name, f"{name!r} has edges with a condition and edges without; choose one kind"
    for name, groups in graph.groups().items():
        for group, edges in groups.items():
            if len({edge.activation_condition for _, edge in edges}) > 1:
                yield "mixed-group", name, f"the edges to {name!r} in group {group!r} say both 'all' and 'any'"
    yield from _unending(graph)


def _unending(graph: DiGraph) -> Iterator[Problem]:
    """A cycle in which nobody has a condition: all of its nodes are left unconditionally."""
    forced = {
        name: [edge.target for edge in node.edges]
        for name, node in graph.nodes.items()
        if all(edge.condition is None for edge in node.edges)
    }
    ring = _ring({name: [each for each in targets if each in forced] for name, targets in forced.items()})
    if ring:
        way = " -> ".join(map(repr, ring))
        yield "endless-cycle", ring[0], f"{way} goes round without end; give one of these nodes edges with conditions"


def _ring(targets: Mapping[str, list[str]]) -> list[str]:
    """The nodes of one cycle, the first again at the end; none if there is no cycle."""
    left = _left_after_pruning(targets)
    before = {target: name for name in left for target in targets[name]}  # of what is left, each has one
    if not left:
        return []
    path = {next(iter(left)): None}
    while (back := before[next(reversed(path))]) not in path:
        path[back] = None
    names = list(path)
    ring = names[names.index(back) :]
    return [ring[0], *reversed(ring)]


def _left_after_pruning(targets: Mapping[str, list[str]]) -> dict[str, int]:
    """How many edges lead to each node, when nodes that no edge leads to are taken away again and again."""
    degree = dict.fromkeys(targets, 0)
    for each in targets.values():
        for target in each:
            degree[target] += 1
    free = [name for name, count in degree.items() if not count]
    for name in free:
        del degree[name]
        for target in targets[name]:
            degree[target] -= 1
            if not degree[target]:
                free.append(target)
    return degree


# --- what would be silence


class _Outlook:
    """Who can speak at all, and what must be said for it, found by walking the graph with every condition true."""

    def __init__(self, graph: DiGraph) -> None:
        self._graph = graph
        self._groups = graph.groups()
        self._starts = graph.get_start_nodes()
        self._heard = self._walk()

    def _walk(self) -> dict[str, None]:
        order = [name for name in self._graph.nodes if name in self._starts]
        heard = dict.fromkeys(order)
        taken: dict[tuple[str, str], int] = {}
        for name in order:
            for edge in self._graph.nodes[name].edges:
                key = edge.target, edge.activation_group
                taken[key] = taken.get(key, 0) + 1
                edges = self._groups[edge.target][edge.activation_group]
                fires = taken[key] == len(edges) or self._graph.activation(edge.target, edges) == "any"
                if fires and edge.target not in heard:
                    heard[edge.target] = None
                    order.append(edge.target)
        return heard

    def findings(self) -> list[Finding]:
        """The warnings."""
        needs = self._needs()
        return [finding for name in self._graph.nodes for finding in self._about(name, needs)]

    def _about(self, name: str, needs: dict[str, frozenset[Any]]) -> Iterator[Finding]:
        stuck = False
        for edges in self._groups[name].values():
            if len(edges) < 2 or self._graph.activation(name, edges) == "any":
                continue
            silent = [source for source, _ in edges if source not in self._heard]
            if silent and len(silent) < len(edges):
                stuck = True
                yield self._cannot_fire(name, edges, silent)
            elif not silent:
                yield from self._may_not_fire(name, edges, needs)
        if name not in self._heard and not stuck:
            sources = sorted({source for edges in self._groups[name].values() for source, _ in edges})
            why = f"it comes after {_names(sources)}, which can never speak" if sources else "no edge leads to it"
            yield Finding.warning("unreachable", name, f"{name!r} can never speak: {why}")

    def _cannot_fire(self, name: str, edges: list[tuple[str, DiGraphEdge]], silent: list[str]) -> Finding:
        text = (
            f"{name!r} waits for all of {_names(source for source, _ in edges)}, but {_names(silent)} can never speak"
        )
        if any(source in self._after(name) for source in silent):
            text += f" before {name!r} does; give the edge that comes back an activation_group of its own"
        return Finding.warning("join-cannot-fire", name, text)

    def _may_not_fire(
        self, name: str, edges: list[tuple[str, DiGraphEdge]], needs: dict[str, frozenset[Any]]
    ) -> Iterator[Finding]:
        needed = [needs[source] | _condition(source, edge) for source, edge in edges]
        common = frozenset.intersection(*needed)
        unsure = [source for (source, _), each in zip(edges, needed, strict=True) if each != common]
        if unsure:
            text = (
                f"{name!r} waits for all of {_names(source for source, _ in edges)}, but may wait in vain for "
                f"{_names(unsure)}, as conditions decide who speaks; if one is enough, say activation 'any'"
            )
            yield Finding.warning("join-may-not-fire", name, text)

    def _needs(self) -> dict[str, frozenset[Any]]:
        """For who can speak, the conditions that must hold for it; a node with several ways to it is a need itself."""
        needs: dict[str, frozenset[Any]] = {}
        for _ in range(8):  # ways back through loops are known from the second round on, and seldom change anything
            before = dict(needs)
            for name in self._heard:
                needs[name] = frozenset() if name in self._starts else self._needed(name, needs)
            if needs == before:
                break
        return needs

    def _needed(self, name: str, needs: dict[str, frozenset[Any]]) -> frozenset[Any]:
        ways: list[frozenset[Any]] = []
        for edges in self._groups[name].values():
            known = [needs[source] | _condition(source, edge) for source, edge in edges if source in needs]
            if self._graph.activation(name, edges) == "any":
                ways += known
            elif len(known) == len(edges):
                ways.append(frozenset.union(*known))
        common = frozenset.intersection(*ways)
        return common if common in ways else common | {("any", name)}

    def _after(self, name: str) -> set[str]:
        """Everything that edges lead to from `name`."""
        found: set[str] = set()
        ahead = [name]
        for here in ahead:
            fresh = {edge.target for edge in self._graph.nodes[here].edges} - found
            found |= fresh
            ahead += sorted(fresh)
        return found


def _condition(source: str, edge: DiGraphEdge) -> frozenset[Any]:
    condition = edge.condition
    if condition is None:
        return frozenset()
    return frozenset({(source, condition if isinstance(condition, str) else id(condition))})


def _names(names: Iterable[str]) -> str:
    return ", ".join(map(repr, dict.fromkeys(names)))


# --- how graphs are made


class DiGraphBuilder:
    """Builds the graph of a `GraphFlow`, step by step.

    builder = DiGraphBuilder()
    builder.add_node(writer).add_node(critic).add_node(publisher).set_entry_point(writer)
    builder.add_edge(writer, critic)
    builder.add_edge(critic, publisher, condition="APPROVE")
    builder.add_edge(critic, writer, condition=lambda message: "APPROVE" not in message.to_model_text())
    team = GraphFlow(builder.get_participants(), builder.build(), max_turns=20)
    """

    def __init__(self) -> None:
        self.nodes: dict[str, DiGraphNode] = {}
        self.agents: dict[str, Speaker] = {}
        self._entry: str | None = None

    def add_node(self, agent: Speaker, activation: Literal["all", "any"] = "all") -> Self:
        """Let an agent or a team speak; `activation` says whether it waits for all of a group of edges, or for any."""
        if activation not in _KINDS:
            raise ConfigError(f"activation must be 'all' or 'any', not {activation!r}")
        name = getattr(agent, "name", None)
        if not isinstance(name, str):
            raise ConfigError(f"a node must be an agent or a team, not {agent!r:.80}")
        if self.agents.setdefault(name, agent) is not agent:
            raise ConfigError(f"there is a node {name!r} already, and names must be unique")
        edges = self.nodes[name].edges if name in self.nodes else []
        self.nodes[name] = DiGraphNode(name=name, edges=edges, activation=activation)
        return self

    def add_edge(
        self,
        source: str | Speaker,
        target: str | Speaker,
        condition: Condition = None,
        activation_group: str | None = None,
        activation_condition: Literal["all", "any"] | None = None,
    ) -> Self:
        """Let `target` follow `source`.

        Args:
            source, target: nodes, by name or as they were added.
            condition: a text that the message of `source` must hold, or a function of that message.
            activation_group: edges to the target which are counted together; left out, a group called like it.
            activation_condition: whether "all" or "any" of the group must be taken before the target speaks.
        """
        edge = DiGraphEdge(
            target=self._name(target),
            condition=condition,
            activation_group=activation_group or "",
            activation_condition=activation_condition or "all",
        )
        self.nodes[self._name(source)].edges.append(edge)
        return self

    def add_conditional_edges(self, source: str | Speaker, condition_to_target: Mapping[str, str | Speaker]) -> Self:
        """One edge for each keyword. Deprecated: call `add_edge` with `condition`."""
        warnings.warn("add_conditional_edges is deprecated; use add_edge(condition=...)", DeprecationWarning, 2)
        for keyword, target in condition_to_target.items():
            self.add_edge(source, target, keyword)
        return self

    def set_entry_point(self, name: str | Speaker) -> Self:
        """Begin with this node, whatever leads to it."""
        self._entry = self._name(name)
        return self

    def build(self) -> DiGraph:
        """The graph. Raises `ConfigError` if it cannot be walked; warns of joins and nodes that stay silent."""
        nodes = {name: replace(node, edges=list(node.edges)) for name, node in self.nodes.items()}
        graph = DiGraph(nodes=nodes, default_start_node=self._entry)
        graph.graph_validate()
        for finding in graph.problems():
            warnings.warn(finding.text, GraphWarning, stacklevel=2)
        return graph

    def get_participants(self) -> list[Speaker]:
        """The agents and teams, in the order they were added."""
        return list(self.agents.values())

    def _name(self, node: str | Speaker) -> str:
        name: Any = getattr(node, "name", node)
        if name not in self.nodes:
            hint = did_you_mean(str(name), self.nodes)
            raise ConfigError(f"there is no node {name!r:.80}; call add_node first{hint}")
        return str(name)
