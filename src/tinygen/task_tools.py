"""Tools that are agents and teams: what a model gives them to do, they run.

What such a tool runs is part of the run it is called in: limited with it, cancelled with it, and suspended with it if
somebody in there must be asked. What is said in there is passed on as it is said.

An agent remembers one call for the next, so it is given one task at a time; calls made side by side wait for each
other, in the order in which they were made. A call that would wait for itself (an agent that is asked from inside its
own work, or two that ask each other at the same time) is refused, and the model told why.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import aclosing, asynccontextmanager

from .agents import BaseChatAgent
from .errors import ConfigError, Suspended, ToolError, of_another_copy
from .messages import BaseChatMessage, TaskResult
from .records import Record
from .run import current_scope
from .runner import TaskRunner
from .tools import BaseStreamTool
from .waiting import settled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
    from typing import Annotated, Any

    from .cancellation import CancellationToken
    from .messages import BaseAgentEvent

NO_RESPONSE = "No response."
_TASK = re.compile(r"/tool [^/]*/tool@\d+#\d+$")  # the id of the task of a tool within


class TaskArgs(Record, tagged=False):
    # what the model tells the tool; a docstring would be told to the model

    task: Annotated[str, "The task to be done."]


class _TaskTool(BaseStreamTool[TaskArgs, "BaseAgentEvent | BaseChatMessage", TaskResult]):
    """Runs the task it is given; `TaskResult` is what it returns."""

    def __init__(self, runner: TaskRunner, name: str, description: str, return_value_as_last_message: bool) -> None:
        super().__init__(TaskArgs, TaskResult, name, description, strict=True)
        self._runner = runner
        self._last_only = return_value_as_last_message

    async def run_stream(
        self, args: TaskArgs, cancellation_token: CancellationToken
    ) -> AsyncGenerator[BaseAgentEvent | BaseChatMessage | TaskResult, None]:
        """Run the task: what is said in there, then its `TaskResult`."""
        scope = current_scope()
        async with _turn_of(self._runner):
            run = self._runner.run_stream(task=args.task, cancellation_token=cancellation_token)
            async with aclosing(run) as stream:
                async for item in stream:
                    if isinstance(item, TaskResult):
                        if item.pending:
                            raise Suspended  # outside of a run, where nobody else raises it
                        if scope is not None and scope.lasting is not None:
                            scope.lasting.extend(item.messages)
                    yield item

    def return_value_as_string(self, value: Any) -> str:
        """What the model reads: who said what after the task, or only the last of it."""
        said = [message for message in value.messages if isinstance(message, BaseChatMessage)]
        if said and said[0].source == "user":
            del said[0]  # the task
        said = [message for message in said if message.source != "user" or not _TASK.search(message.id)]
        if not said:
            return NO_RESPONSE
        if self._last_only:
            return said[-1].to_text()
        return "\n\n".join(f"{message.source}: {message.to_text()}" for message in said)

    async def save_state_json(self) -> Mapping[str, Any]:
        return await self._runner.save_state()

    async def load_state_json(self, state: Mapping[str, Any]) -> None:
        await self._runner.load_state(state)

    async def reset_state(self) -> None:
        await self._runner.reset()

    async def checkpoint(self) -> Callable[[], Awaitable[None]]:
        """Nothing: what it runs is taken back by the run it is part of."""

        async def restore() -> None: ...

        return restore


class AgentTool(_TaskTool):
    """An agent as a tool: the model gives it a task and reads what it says.

        expert = AssistantAgent("chemist", model, description="Knows chemistry.")
        manager = AssistantAgent("manager", model, tools=[AgentTool(expert)], max_tool_iterations=5)

    Args:
        agent: who does it; its name and description are the tool's.
        return_value_as_last_message: let the model read its last message only, without its name.
    """

    def __init__(self, agent: BaseChatAgent, return_value_as_last_message: bool = False) -> None:
        if not isinstance(agent, BaseChatAgent):
            whose = of_another_copy(agent, BaseChatAgent) or "; for a team there is TeamTool"
            raise ConfigError(f"agent must be an agent, not {agent!r:.80}{whose}")
        super().__init__(agent, agent.name, agent.description, return_value_as_last_message)


class TeamTool(_TaskTool):
    """A team as a tool: the model gives it a task and reads what its members say.

    Args:
        team: who does it.
        name: what the model calls it.
        description: what the model is told of it.
        return_value_as_last_message: let the model read the last message only, without the name of its speaker.
    """

    def __init__(
        self, team: TaskRunner, name: str, description: str, return_value_as_last_message: bool = False
    ) -> None:
        if not isinstance(team, TaskRunner):
            whose = of_another_copy(team, TaskRunner)
            raise ConfigError(f"team of tool {name!r} must be a team, not {team!r:.80}{whose}")
        super().__init__(team, name, description, return_value_as_last_message)


class Queue:
    """Who waits to give an agent or team a task. `last` tells, when it is done, whether that call was suspended."""

    __slots__ = ("last", "wanted")

    def __init__(self) -> None:
        self.last: asyncio.Future[bool] | None = None
        self.wanted: list[TaskRunner] = []  # whom calls made in its own work wait for


@asynccontextmanager
async def _turn_of(runner: TaskRunner) -> AsyncIterator[None]:
    """Wait until all calls made before have ended. Raises `ToolError` if that could never be."""
    queue = _queue(runner)
    before = queue.last
    loop = asyncio.get_running_loop()
    done: asyncio.Future[bool] = loop.create_future()
    askers = _at_work()
    if before is not None and not before.done() and not before.get_loop().is_closed():
        if before.get_loop() is not loop:
            raise ToolError(f"{runner.name!r} is at work in another event loop")
        if _waits_for(runner, askers):
            raise ToolError(
                f"{runner.name!r} cannot be asked here: it is at work on the task that this call is part of, or waits "
                f"for somebody who is; go on without it"
            )
        queue.last = done
        for asker in askers:
            _queue(asker).wanted.append(runner)
        try:
            await settled(before)
        except BaseException:
            before.add_done_callback(lambda before: done.set_result(before.result()))
            raise
        finally:
            for asker in askers:
                _queue(asker).wanted.remove(runner)
        if before.result():
            done.set_result(True)
            waiting = Suspended()
            waiting.noted = True  # what those before us will have said belongs before what we ask
            raise waiting
    queue.last = done
    suspended = False
    try:
        yield
    except Suspended:
        suspended = True
        raise
    finally:
        done.set_result(suspended)
        if queue.last is done:
            queue.last = None


def _queue(runner: TaskRunner) -> Queue:
    if runner._queue is None:
        runner._queue = Queue()
    return runner._queue  # type: ignore[no-any-return]


def _at_work() -> list[TaskRunner]:
    """The agents and teams whose runs the current task is part of."""
    found: list[TaskRunner] = []
    scope = current_scope()
    while scope is not None:
        if isinstance(scope.run.owner, TaskRunner):
            found.append(scope.run.owner)
        scope = scope.run.outer
    return found


def _waits_for(runner: TaskRunner, askers: list[TaskRunner]) -> bool:
    """Whether `runner` cannot end its work before one of `askers` does."""
    at_work = set(map(id, askers))
    seen: set[int] = set()
    ahead = [runner]
    while ahead:
        each = ahead.pop()
        if id(each) in at_work:
            return True
        if id(each) not in seen:
            seen.add(id(each))
            ahead.extend(_queue(each).wanted)
    return False
