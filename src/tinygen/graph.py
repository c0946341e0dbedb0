"""A team whose members speak along a directed graph.

Theory of operation. The graph is walked in layers: all who are ready speak side by side, and only when the last of
them is done, the edges they open say who is ready next. So who speaks when never depends on who was faster. A layer
is one turn; nothing of it has happened in the walk unless all of it has, so a layer that fails or is suspended is
ready again.

A node speaks once for what it was waiting for. An edge that is taken twice before its group fires counts once. When
a group "any" has fired, its other edges come late and change nothing, except after the node has spoken: what follows
from that (a loop that comes back) or a second message over the same edge makes it speak again.

The walk ends when nobody is ready. The next run begins a new one.
"""

from __future__ import annotations

from dataclasses import field

from . import codec
from .digraph import DiGraph
from .errors import AgentFailed, ConfigError, StateError, did_you_mean
from .findings import Finding
from .messages import BaseChatMessage
from .records import Record
from .teams import BaseGroupChat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from .actors import AgentRuntime
    from .agents import BaseChatAgent
    from .conditions import TerminationCondition
    from .teams import Link, Message

COMPLETE = "Digraph execution is complete"


class WalkState(Record, tagged=False):
    """Where a walk stands; changes as it goes on. The first three are what AutoGen's state has.

    ready: who speaks next, side by side.
    remaining: of each group "all", how many of its edges have not been taken since it fired.
    enqueued_any: which groups "any" have made their node ready.
    arrived: of each group, which edges have been taken, by their number in it.
    fired: in which of its node's turns a group "any" has fired last.
    past: of each node, from which turns of others its last one followed; `coming`, its next one will.
    ended: nodes that have spoken and led nowhere.
    """

    ready: list[str]
    remaining: dict[str, dict[str, int]] = field(default_factory=dict)
    enqueued_any: dict[str, dict[str, bool]] = field(default_factory=dict)
    arrived: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    fired: dict[str, dict[str, int]] = field(default_factory=dict)
    past: dict[str, dict[str, int]] = field(default_factory=dict)
    coming: dict[str, dict[str, int]] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)


class Walk:
    """A walk along a graph, layer by layer: who is ready, and what joins still wait for."""

    def __init__(self, graph: DiGraph) -> None:
        self._graph = graph
        self._groups = graph.groups()
        self._any = {
            (target, group)
            for target, groups in self._groups.items()
            for group, edges in groups.items()
            if graph.activation(target, edges) == "any"
        }
        self._counted = {target for target, _ in self._any}  # nodes whose turns are told apart
        self._edges: dict[str, list[tuple[str, str, int]]] = {name: [] for name in graph.nodes}
        numbers: dict[tuple[str, str], int] = {}
        for source, node in graph.nodes.items():
            for edge in node.edges:
                key = edge.target, edge.activation_group
                self._edges[source].append((*key, numbers.get(key, 0)))
                numbers[key] = numbers.get(key, 0) + 1
        self.begin()

    def begin(self) -> None:
        """Go to the start nodes; nobody has spoken."""
        self.state = self._fresh()

    def _fresh(self) -> WalkState:
        starts = self._graph.get_start_nodes()
        remaining = {
            target: {group: len(edges) for group, edges in groups.items() if (target, group) not in self._any}
            for target, groups in self._groups.items()
        }
        return WalkState(ready=[name for name in self._graph.nodes if name in starts], remaining=remaining)

    def step(self, taken: Mapping[str, Sequence[int]]) -> None:
        """Those who were ready have spoken, and of each these edges are taken, by their number among its edges."""
        state = self.state
        spoken, state.ready = state.ready, []
        for name in spoken:
            self._leave(name)
        for name in spoken:
            if name in state.ended:
                state.ended.remove(name)
            if not taken[name]:
                state.ended.append(name)
            for number in taken[name]:
                self._take(name, *self._edges[name][number])

    def ending(self, last: Sequence[str]) -> str:
        """Why nobody is ready after those who spoke last: a leaf was reached, or else where the walk got stuck."""
        if any(not self._graph.nodes[name].edges for name in self.state.ended):
            return COMPLETE
        ends = [f"dead end at {name!r}: no condition matched" for name in self.state.ended]
        for target, groups in self.state.remaining.items():
            for group, missing in groups.items():
                edges = self._groups[target][group]
                if missing < len(edges):
                    here = self.state.arrived.get(target, {}).get(group, ())
                    names = dict.fromkeys(source for at, (source, _) in enumerate(edges) if at not in here)
                    ends.append(f"dead end at {target!r}: it still waits for {', '.join(map(repr, names))}")
        return "; ".join(ends) or f"dead end at {', '.join(map(repr, last))}: who comes next has spoken already"

    def _leave(self, name: str) -> None:
        """It has had its turn: the groups that made it ready wait again."""
        state = self.state
        for group, missing in state.remaining[name].items():
            if not missing:
                state.remaining[name][group] = len(self._groups[name][group])
                state.arrived.get(name, {}).pop(group, None)
        past = state.coming.pop(name, {})
        if name in self._counted:
            past[name] = self._turns(name) + 1
        state.past.pop(name, None)
        if past:
            state.past[name] = past

    def _take(self, source: str, target: str, group: str, number: int) -> None:
        state = self.state
        past = state.past.get(source, {})
        arrived = state.arrived.setdefault(target, {}).setdefault(group, [])
        again = number in arrived
        if not again:
            arrived.append(number)
        if (target, group) in self._any:
            fired, turn = state.fired.setdefault(target, {}), self._turns(target) + 1
            before = fired.get(group, 0)
            if before < turn:
                if before and not again and past.get(target, 0) < before:
                    return  # late: the target has spoken for this already
                fired[group], state.arrived[target][group] = turn, [number]
                self._make_ready(target)
        elif not again:
            state.remaining[target][group] = missing = max(0, state.remaining[target][group] - 1)
            if not missing:
                self._make_ready(target)
        if past:
            coming = state.coming.setdefault(target, {})
            coming.update({name: turn for name, turn in past.items() if turn > coming.get(name, 0)})

    def _make_ready(self, name: str) -> None:
        if name not in self.state.ready:
            self.state.ready.append(name)

    def _turns(self, name: str) -> int:
        """How many turns a counted node has had."""
        return self.state.past.get(name, {}).get(name, 0)

    def dump(self) -> dict[str, Any]:
        """Where it stands, as JSON data."""
        state = self.state
        for target, group in self._any:
            waits = target in state.ready and state.fired.get(target, {}).get(group, 0) > self._turns(target)
            state.enqueued_any.setdefault(target, {})[group] = waits
        data: dict[str, Any] = codec.encode(state)
        return data

    def load(self, data: Mapping[str, Any]) -> None:
        """Go to where `dump` was called, here or in AutoGen. Raises `StateError`, then nothing has changed."""
        state: WalkState = codec.decode(WalkState, dict(data), mode="state")
        self._check(state)
        fresh = self._fresh()
        for target, groups in fresh.remaining.items():
            for group, size in groups.items():
                missing = state.remaining.get(target, {}).get(group, size)
                if missing <= 0 and not (missing == 0 and target in state.ready):
                    missing = size  # AutoGen forgets at times to count anew
                if missing + len(state.arrived.get(target, {}).get(group, ())) > size:
                    raise StateError(f"$.remaining.{target}.{group}", f"{missing} of {size} edges cannot be missing")
                groups[group] = missing
        state.remaining = fresh.remaining
        for target, group in self._any:
            if target in state.ready and state.enqueued_any.get(target, {}).get(group):
                state.fired.setdefault(target, {})[group] = state.past.get(target, {}).get(target, 0) + 1
        self.state = state if state.ready else fresh  # AutoGen forgets whose turn it was

    def _check(self, state: WalkState) -> None:
        """Refuse names and numbers that this graph does not have."""
        nodes = self._graph.nodes
        for where in ("ready", "ended", "past", "coming"):
            for name in getattr(state, where):
                if name not in nodes:
                    raise StateError(f"$.{where}", f"the graph has no node {name!r}{did_you_mean(name, nodes)}")
        if len(set(state.ready)) < len(state.ready):
            raise StateError("$.ready", f"names a node twice: {state.ready}")
        for where in ("remaining", "enqueued_any", "arrived", "fired"):
            for target, groups in getattr(state, where).items():
                for group in groups:
                    if group not in self._groups.get(target, ()):
                        raise StateError(f"$.{where}", f"the graph has no group {group!r} at a node {target!r}")
        for target, arrived in state.arrived.items():
            for group, numbers in arrived.items():
                size = len(self._groups[target][group])
                if len(set(numbers)) < len(numbers) or not all(0 <= number < size for number in numbers):
                    raise StateError(f"$.arrived.{target}.{group}", f"expected numbers below {size}: {numbers}")


class GraphFlow(BaseGroupChat):
    """A team whose members speak along a directed graph: in parallel, joining, in loops, as conditions say.

        builder = DiGraphBuilder().add_node(writer).add_node(critic)
        builder.add_edge(writer, critic)
        team = GraphFlow(builder.get_participants(), builder.build())

    Everybody hears everything that was said since they last spoke; edges decide whose turn it is. The run ends when
    nobody is left to speak, or as terminations and `max_turns` (which counts layers) say; after those the next run
    goes on where this one stopped.

    Further arguments as for `BaseGroupChat`; a graph with a loop needs one of termination_condition and max_turns.

    Args:
        participants: agents or teams; those of the graph's nodes among them, by their names.
        graph: a `DiGraph`, or its JSON data.
    """

    manager_name = "GraphManager"
    ends_by_itself = True

    def __init__(
        self,
        participants: Sequence[BaseChatAgent | BaseGroupChat],
        graph: DiGraph | Mapping[str, Any],
        *,
        name: str | None = None,
        description: str | None = None,
        termination_condition: TerminationCondition | None = None,
        max_turns: int | None = None,
        runtime: AgentRuntime | None = None,
        custom_message_types: Sequence[type[Message]] | None = None,
        emit_team_events: bool = False,
    ) -> None:
        self._graph: DiGraph = codec.decode(DiGraph, graph, path="$.graph") if not isinstance(graph, DiGraph) else graph
        super().__init__(
            participants,
            name=name,
            description=description,
            termination_condition=termination_condition,
            max_turns=max_turns,
            runtime=runtime,
            custom_message_types=custom_message_types,
            emit_team_events=emit_team_events,
        )
        self._walk = Walk(self._graph)
        self._taken: dict[str, list[int]] = {}  # of who has spoken in this turn

    def check_members(self) -> None:
        self._graph.graph_validate()
        for name in self._graph.nodes:
            if name not in self._names:
                hint = did_you_mean(name, self._names)
                raise ConfigError(f"the node {name!r} of the graph is nobody among the participants{hint}")
        if self._graph.has_cycles() and self._termination is None and self._max_turns is None:
            raise ConfigError("a graph that goes round in a loop needs a termination_condition or max_turns")

    def problems(self) -> Sequence[Finding]:
        """What will be silence: nodes and participants that can never speak, joins that wait in vain."""
        outside = [
            Finding.warning("unreachable", name, f"{name!r} is no node, so it never speaks")
            for name in self._names
            if name not in self._graph.nodes
        ]
        return [*self._graph.problems(), *outside]

    async def select_speakers(self, thread: Sequence[Message]) -> Sequence[str]:
        self._taken = {}
        if not self._walk.state.ready:  # the last run failed after its last layer
            self._walk.begin()
        return tuple(self._walk.state.ready)

    def note(self, speaker: str | None, said: Sequence[Message]) -> None:
        if speaker is None:
            return  # a task is nobody's turn, whatever its source
        message = next((each for each in reversed(said) if isinstance(each, BaseChatMessage)), None)
        self._taken[speaker] = self._open_edges(speaker, message)
        if len(self._taken) == len(self._walk.state.ready):
            self._walk.step(self._taken)

    def conclude(self, reason: str | None) -> str | None:
        if self._walk.state.ready:
            return reason
        ending = self._walk.ending(list(self._taken))
        self._walk.begin()
        return ending if ending == COMPLETE or reason is None else reason

    def policy_state(self) -> dict[str, Any]:
        return self._walk.dump()

    def set_policy_state(self, state: Mapping[str, Any] | None) -> None:
        if state is None:
            self._walk.begin()
        else:
            self._walk.load(state)

    def links(self) -> Sequence[Link]:
        starts, into = self._graph.get_start_nodes(), self._graph.groups()
        found: list[Link] = [(None, name, "") for name in into if name in starts]
        for name, node in self._graph.nodes.items():
            for edge in node.edges:
                kind = self._graph.activation(edge.target, into[edge.target][edge.activation_group])
                found.append((name, edge.target, " ".join(filter(None, (edge.label(), "(any)" * (kind == "any"))))))
        return found

    def _open_edges(self, speaker: str, message: BaseChatMessage | None) -> list[int]:
        found = []
        for number, edge in enumerate(self._graph.nodes[speaker].edges):
            try:
                if edge.check_condition(message):
                    found.append(number)
            except Exception as error:  # noqa: BLE001 - a function of the user's; whoever awaits the run learns of it
                cause = ConfigError(f"the condition of the edge {speaker!r} -> {edge.target!r} raised {error!r}")
                cause.__cause__ = error
                raise AgentFailed(speaker, self._turn + 1, None, cause) from cause
        return found

    def _manager_type(self) -> str:
        return "GraphManagerState"
