"""Looks at a team before it runs, without asking any model: `tinygen check team.json`, or `check module:team`."""

from __future__ import annotations

import inspect
import os
import sys
from functools import partial
from importlib import import_module

from . import codec
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
from .errors import ConfigError, TinygenError, did_you_mean
from .findings import Finding
from .runner import TaskRunner
from .swarm import Swarm, awaited, targets
from .task_tools import AgentTool, TeamTool
from .teams import BaseGroupChat
from .tools import StaticWorkbench
from .transcript import safe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import Any

    from .conditions import TerminationCondition

_BOUNDS = (MaxMessageTermination, TokenUsageTermination, TimeoutTermination)


def problems(runner: TaskRunner) -> list[Finding]:
    """What is wrong with a team or agent and all within it; `node` says where, like "team/agent"."""
    found = list(_within(runner, runner.name))
    if isinstance(runner, AssistantAgent) and runner._unasked and _tools(runner):  # in a team it may speak again
        text = "what a tool returns is its answer; set reflect_on_tool_use to True or False, or max_tool_iterations"
        found.append(Finding.warning("raw-answer", runner.name, text))
    return found


def load(what: str) -> TaskRunner:
    """The team or agent in a JSON document, or one of a module's: `package.module:name`, a function makes it perhaps.

    Raises `ConfigError`, and what the module or the document raises.
    """
    module, _, name = what.rpartition(":")
    if what.endswith(".py"):
        raise ConfigError(
            f"{what!r} is a program; name what to look at in it, as in {what[:-3].replace('/', '.')}:team"
        )
    if os.path.exists(what) or not module or what.endswith(".json"):
        return _from_document(what)
    try:
        found = _from_module(module, name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{what!r} is no file, and there is no module {error.name!r}") from error
    except SystemExit as error:  # a program, not a module: what it says of itself is not what was asked
        raise ConfigError(
            f"{module!r} ended the program, by SystemExit({error.code!r:.80}), when it was loaded"
        ) from error
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
        print(safe(f"{each.severity}: {each.node + ': ' if each.node else ''}{each.text} [{each.kind}]"))
    errors = sum(each.severity == "error" for each in found)
    print(f"{errors} errors, {len(found) - errors} warnings", file=sys.stderr)
    return 1 if errors else 0


def _from_document(path: Path | str) -> TaskRunner:
    with open(path, "rb") as file:
        document = codec.loads(file.read())
    return TaskRunner.load_component(document)


def _from_module(module: str, name: str) -> Any:
    """What a module has under a name; of a function, what it makes."""
    if not all(part.isidentifier() for part in module.split(".")):
        raise ConfigError(f"{module!r} is neither a file nor the name of a module")
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        loaded = import_module(module)
        if not hasattr(loaded, name):
            teams = {key for key, it in vars(loaded).items() if isinstance(it, TaskRunner)}
            makers = {key for key, it in vars(loaded).items() if getattr(it, "__module__", "") == module}
            raise ConfigError(f"there is no {name!r} in {module!r}{did_you_mean(name, teams | makers)}")
        found = getattr(loaded, name)
        if callable(found) and not isinstance(found, TaskRunner):
            try:
                # of a class, what __init__ takes: Python 3.10 would look at Component.__new__, which takes anything
                init = partial(found.__init__, None) if isinstance(found, type) else found  # type: ignore[misc]
                inspect.signature(init).bind()
            except (TypeError, ValueError) as error:
                raise ConfigError(f"{name!r} in {module!r} cannot be called without arguments: {error}") from error
            found = found()
    finally:
        if here in sys.path:
            sys.path.remove(here)
    return found


def _within(runner: TaskRunner, path: str) -> Iterator[Finding]:
    if isinstance(runner, BaseGroupChat):
        for each in _team(runner):
            yield each.model_copy(update={"node": f"{path}/{each.node}" if each.node else path})
    elif isinstance(runner, AssistantAgent):
        for each in _assistant(runner):
            yield each.model_copy(update={"node": path})
    for part in (*runner._parts(), *_in_tools(runner)):
        yield from _within(part, f"{path}/{part.name}")


def _team(team: BaseGroupChat) -> Iterator[Finding]:
    condition = team._termination
    if condition is None and team._max_turns is None and not team.ends_by_itself:
        yield Finding.error("endless", None, "nothing ends it; give it max_turns or a termination_condition")
    elif team._max_turns is None and not team.ends_by_itself and not _bounds(condition):
        yield Finding.warning(
            "unbounded",
            None,
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
            yield Finding.warning("unmet-condition", None, f"{kind} waits for {name!r}, who is not in the team")
    if any(not isinstance(member, AssistantAgent) for member in members):
        return  # nobody knows what they say
    reached = {target for member in members for target in targets(member)}
    if isinstance(condition, HandoffTermination) and condition._target not in reached:
        yield Finding.warning(
            "unmet-condition", None, f"{kind} waits for a handoff to {condition._target!r}; nobody can make it"
        )
    tools = [_tools(member) for member in members if isinstance(member, AssistantAgent)]
    if isinstance(condition, FunctionCallTermination) and None not in tools:
        if not any(condition._function_name in (names or ()) for names in tools):
            yield Finding.warning(
                "unmet-condition", None, f"{kind} waits for tool {condition._function_name!r}; nobody has it"
            )


def _handoffs(team: BaseGroupChat, participant: TaskRunner) -> Iterator[Finding]:
    for target in targets(participant):
        if target not in awaited(team._termination):
            text = f"its handoff to {target!r} leads nowhere: a {type(team).__name__} does not follow handoffs"
            yield Finding.warning("idle-handoff", participant.name, text)


def _assistant(agent: AssistantAgent) -> Iterator[Finding]:
    names = _tools(agent) or []
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            yield Finding.error(
                "duplicate-tool", None, f"two of its workbenches have a tool {name!r}; only the first is used"
            )


def _in_tools(runner: TaskRunner) -> Iterator[TaskRunner]:
    """The agents and teams that an assistant has as tools."""
    toolbox = runner._toolbox if isinstance(runner, AssistantAgent) else None
    for bench in toolbox.workbenches if toolbox is not None else ():
        for tool in bench._offered.values() if isinstance(bench, StaticWorkbench) else ():
            if isinstance(tool, (AgentTool, TeamTool)):
                yield tool._runner


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
