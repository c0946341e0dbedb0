"""Looks at a team before it runs, without asking any model: `tinygen check team.json`, or `check module:team`."""

from __future__ import annotations

import inspect
import os
import sys
from importlib import import_module

from .assistant import AssistantAgent
from .conditions import (
    AndTerminationCondition,
    FunctionCallTermination,
    HandoffTermination,
    MaxMessageTermination,
    SourceMatchTermination,
    TextMentionTermination,
    TextMessageTermination,
    TimeoutTermination,
    TokenUsageTermination,
)
from .errors import ConfigError, TinygenError
from .findings import Finding
from .runner import TaskRunner
from .swarm import Swarm, awaited, targets
from .teams import BaseGroupChat
from .tools import StaticWorkbench

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import Literal

    from .conditions import TerminationCondition

_BOUNDS = (MaxMessageTermination, TokenUsageTermination, TimeoutTermination)


def problems(runner: TaskRunner) -> list[Finding]:
    """What is wrong with a team or agent and all within it; `node` says where, like "team/agent"."""
    return list(_within(runner, runner.name))


def load(what: str) -> TaskRunner:
    """The team or agent in a JSON document, or one of a module's: `package.module:name`, a function makes it perhaps.

    Raises `ConfigError`, and what the module or the document raises.
    """
    module, _, name = what.rpartition(":")
    if os.path.exists(what) or not module or what.endswith(".json"):
        return _from_document(what)
    sys.path.insert(0, os.getcwd())
    try:
        found = getattr(import_module(module), name, None)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{what!r} is no file, and there is no module {error.name!r}") from error
    finally:
        sys.path.remove(os.getcwd())
    if callable(found) and not isinstance(found, TaskRunner):
        try:
            inspect.signature(found).bind()
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{name!r} in {module!r} cannot be called without arguments: {error}") from error
        found = found()
    if not isinstance(found, TaskRunner):
        raise ConfigError(
            f"{name!r} in {module!r} is {found!r:.80}; expected a team, an agent, or a function making one"
        )
    return found


def main(what: str) -> int:
    """The command: print what is found; returns 1 if an error is among it."""
    try:
        found = problems(load(what))
    except TinygenError as error:
        found = [Finding(kind="unusable", severity="error", text=str(error))]
    for each in found:
        print(f"{each.severity}: {each.node + ': ' if each.node else ''}{each.text} [{each.kind}]")
    errors = sum(each.severity == "error" for each in found)
    print(f"{errors} errors, {len(found) - errors} warnings", file=sys.stderr)
    return 1 if errors else 0


def _from_document(path: Path | str) -> TaskRunner:
    from . import codec

    with open(path, encoding="utf-8") as file:
        document = codec.loads(file.read())
    return TaskRunner.load_component(document)


def _within(runner: TaskRunner, path: str) -> Iterator[Finding]:
    if isinstance(runner, BaseGroupChat):
        for each in _team(runner):
            yield each.model_copy(update={"node": f"{path}/{each.node}" if each.node else path})
    elif isinstance(runner, AssistantAgent):
        for each in _assistant(runner):
            yield each.model_copy(update={"node": path})
    for part in runner._parts():
        yield from _within(part, f"{path}/{part.name}")


def _team(team: BaseGroupChat) -> Iterator[Finding]:
    condition = team._termination
    if condition is None and team._max_turns is None and not team.ends_by_itself:
        yield _found("error", "endless", "nothing ends it; give it max_turns or a termination_condition")
    elif team._max_turns is None and not team.ends_by_itself and not _bounds(condition):
        yield _found(
            "warning",
            "unbounded",
            "it ends only if a member does what its condition waits for; add max_turns, or MaxMessageTermination(...) "
            "with |, or run it with limits=RunLimits(...)",
        )
    yield from team.problems()
    if condition is not None:
        yield from _conditions(team, condition)
    if not isinstance(team, Swarm):
        for each in team._participants:
            yield from _handoffs(team, each)


def _bounds(condition: TerminationCondition | None) -> bool:
    """Whether it comes true at some time whatever is said."""
    if isinstance(condition, AndTerminationCondition):
        return all(map(_bounds, condition.conditions))
    return isinstance(condition, _BOUNDS) or any(map(_bounds, getattr(condition, "conditions", ())))


def _conditions(team: BaseGroupChat, condition: TerminationCondition) -> Iterator[Finding]:
    """Conditions that wait for something nobody can do."""
    for each in getattr(condition, "conditions", ()):
        yield from _conditions(team, each)
    members = [member for participant in team._participants for member in _speakers(participant)]
    names = {"user", team.manager_name, *(member.name for member in members)}
    waits: Sequence[str] = ()
    if isinstance(condition, (TextMentionTermination, SourceMatchTermination)):
        waits = condition._sources or ()
    elif isinstance(condition, TextMessageTermination) and condition._source is not None:
        waits = (condition._source,)
    kind = type(condition).__name__
    for name in waits:
        if name not in names:
            yield _found("warning", "unmet-condition", f"{kind} waits for {name!r}, who is not in the team")
    if any(not isinstance(member, AssistantAgent) for member in members):
        return  # nobody knows what they say
    reached = {target for member in members for target in targets(member)}
    if isinstance(condition, HandoffTermination) and condition._target not in reached:
        yield _found(
            "warning", "unmet-condition", f"{kind} waits for a handoff to {condition._target!r}; nobody can make it"
        )
    tools = [_tools(member) for member in members if isinstance(member, AssistantAgent)]
    if isinstance(condition, FunctionCallTermination) and None not in tools:
        if not any(condition._function_name in (names or ()) for names in tools):
            yield _found(
                "warning", "unmet-condition", f"{kind} waits for tool {condition._function_name!r}; nobody has it"
            )


def _handoffs(team: BaseGroupChat, participant: TaskRunner) -> Iterator[Finding]:
    for target in targets(participant):
        if target not in awaited(team._termination):
            text = f"its handoff to {target!r} leads nowhere: a {type(team).__name__} does not follow handoffs"
            yield _found("warning", "idle-handoff", text, participant.name)


def _assistant(agent: AssistantAgent) -> Iterator[Finding]:
    names = _tools(agent) or []
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            yield _found(
                "error", "duplicate-tool", f"two of its workbenches have a tool {name!r}; only the first is used"
            )


def _speakers(runner: TaskRunner) -> Iterator[TaskRunner]:
    """The agents whose messages are seen in a team: a nested team's members, and a society itself."""
    if isinstance(runner, BaseGroupChat):
        for part in runner._participants:
            yield from _speakers(part)
    else:
        yield runner


def _tools(agent: AssistantAgent) -> list[str] | None:
    """The names of its tools, None if some of its workbenches would have to be started to know them."""
    benches = agent._toolbox.workbenches if agent._toolbox is not None else []
    names: list[str] = []
    for bench in benches:
        if not isinstance(bench, StaticWorkbench):
            return None
        names.extend(bench._offered)
    return names


def _found(severity: Literal["error", "warning"], kind: str, text: str, node: str | None = None) -> Finding:
    return Finding(kind=kind, severity=severity, node=node, text=text)
