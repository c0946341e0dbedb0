"""Teams made of plans, which are JSON data: any kind in any other, with models that answer as their request demands.

A plan is drawn from a source of randomness; the same plan makes an equal team in any process. What a model says is a
function of what it is asked and of nothing else, so a team that stands where another stood goes on as that one does.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

from agents_for_tests import Counter
from tinygen import (
    AgentTool,
    ApprovalRequest,
    ApprovalResponse,
    AssistantAgent,
    BaseChatAgent,
    BaseGroupChat,
    BaseToolWithState,
    BufferedChatCompletionContext,
    ChatCompletionContext,
    CodeBlock,
    CodeExecutor,
    CodeExecutorAgent,
    CodeResult,
    ConfigError,
    ConversableProxy,
    DiGraph,
    DiGraphEdge,
    DiGraphNode,
    FunctionCall,
    FunctionCallTermination,
    FunctionExecutionResultMessage,
    GraphFlow,
    HandoffTermination,
    HeadAndTailChatCompletionContext,
    ListMemory,
    MagenticOneGroupChat,
    MaxMessageTermination,
    MemoryContent,
    MessageFilterAgent,
    MessageFilterConfig,
    PerSourceFilter,
    ReplayChatCompletionClient,
    ReplayRequest,
    Response,
    RoundRobinGroupChat,
    SelectorGroupChat,
    SocietyOfMindAgent,
    SourceMatchTermination,
    StopMessageTermination,
    Swarm,
    TeamTool,
    TerminationCondition,
    TextMentionTermination,
    TokenLimitedChatCompletionContext,
    TokenUsageTermination,
    UnboundedChatCompletionContext,
    UserProxyAgent,
)
from tinygen.codec import digest
from tinygen.runner import TaskRunner

Plan = dict[str, Any]

WORDS = ["left", "right", "STOP", "on", "```python\nprint(1)\n```"]
TEAMS = ["round", "selector", "swarm", "graph", "magentic"]
AGENTS = ["assistant", "assistant", "assistant", "counter", "coder", "terminal", "society", "filter", "person", "proxy"]

HEARD = ["user", "MagenticOneOrchestrator", *(f"a{n}" for n in range(1, 60))]  # by agents behind a filter


# --- plans


class Drawer:
    """Draws plans; every agent and team gets a name of its own."""

    def __init__(self, dice: Random, people: int = 0) -> None:
        self.dice = dice
        self.agents = [*AGENTS, *["person"] * people]
        self.count = 0

    def name(self, letter: str) -> str:
        self.count += 1
        return f"{letter}{self.count}"

    def maybe(self, chance: float) -> bool:
        return self.dice.random() < chance

    def team(self, depth: int, kind: str | None = None) -> Plan:
        kind = kind or self.dice.choice(TEAMS)
        count = self.dice.randint(2 if kind in ("selector", "graph") else 1, 4 if kind == "graph" else 3)
        members = [self.member(depth) for _ in range(count)]
        plan = {
            "kind": kind,
            "name": self.name("t"),
            "members": members,
            "turns": self.dice.randint(1, 3) if self.count > 3 else self.dice.randint(2, 5),
            "stop": self.stop([member["name"] for member in members], 1) if self.maybe(0.6) else None,
            "events": self.maybe(0.2),
        }
        getattr(self, f"{kind}_more", lambda plan: None)(plan)
        return plan

    def swarm_more(self, plan: Plan) -> None:
        if plan["members"][0]["kind"] != "assistant":
            plan["members"][0] = self.assistant(0)
        names = [member["name"] for member in plan["members"]]
        for member in plan["members"]:
            if member["kind"] == "assistant":
                others = [name for name in names if name != member["name"]]
                member["handoffs"] = [*others, "user"]

    def selector_more(self, plan: Plan) -> None:
        plan["repeats"] = self.maybe(0.3)
        plan["context"] = self.context() if self.maybe(0.5) else None
        plan["streaming"] = self.maybe(0.2)

    def magentic_more(self, plan: Plan) -> None:
        plan["stalls"] = self.dice.randint(1, 3)

    def graph_more(self, plan: Plan) -> None:
        """Edges forwards, conditions on all of a node's or on none, sometimes one way back."""
        names = [member["name"] for member in plan["members"]]
        edges: list[Plan] = []
        for at, source in enumerate(names[:-1]):
            later = names[at + 1 :]
            targets = self.dice.sample(later, self.dice.randint(1, len(later)))
            loops = at > 0 and self.maybe(0.25)
            conditional = loops or self.maybe(0.3)
            if loops:
                targets.append(names[self.dice.randint(0, at - 1)])
            for target in targets:
                back = names.index(target) < at
                edges.append(
                    {
                        "source": source,
                        "target": target,
                        "condition": self.dice.choice(["left", "right", "o"]) if conditional else None,
                        "group": f"{target} again" if back else target,
                    }
                )
        plan["edges"], plan["entry"] = edges, names[0] if self.maybe(0.8) else None
        plan["any"] = [name for name in names if self.maybe(0.3)]

    def member(self, depth: int) -> Plan:
        if depth > 0 and self.maybe(0.3):
            return self.team(depth - 1)
        return self.agent(depth)

    def agent(self, depth: int) -> Plan:
        kind = self.dice.choice(self.agents)
        if kind == "assistant" or (kind in ("society", "filter") and depth < 1):
            return self.assistant(depth)
        plan: Plan = {"kind": kind, "name": self.name("a")}
        if kind == "society":
            plan["team"] = self.team(depth - 1)
            plan["context"] = self.context()
        elif kind == "filter":
            plan["agent"] = self.agent(depth - 1)
            plan["position"] = self.dice.choice([None, "first", "last"])
        elif kind == "coder":
            plan["retries"] = self.dice.randint(0, 1)
        return plan

    def assistant(self, depth: int) -> Plan:
        plan: Plan = {
            "kind": "assistant",
            "name": self.name("a"),
            "tools": [name for name in ("look_up", "tally", "remember") if self.maybe(0.4)],
            "context": self.context(),
            "stream": self.maybe(0.3),
            "reflect": self.maybe(0.5),
            "iterations": self.dice.randint(1, 2),
            "handoffs": [],
        }
        if depth > 0 and self.maybe(0.3):
            plan["agent_tool"] = self.agent(depth - 1)
        if depth > 0 and self.maybe(0.2):
            plan["team_tool"] = self.team(depth - 1)
        return plan

    def context(self) -> list[Any]:
        return self.dice.choice([["unbounded"], ["buffered", 3], ["head", 1, 2], ["tokens", 40]])

    def stop(self, names: Sequence[str], depth: int) -> list[Any]:
        if depth and self.maybe(0.5):
            return [self.dice.choice(["and", "or"]), self.stop(names, 0), self.stop(names, 0)]
        return self.dice.choice(
            [
                ["max", self.dice.randint(2, 12), self.maybe(0.5)],
                ["text", "STOP"],
                ["source", self.dice.choice(list(names))],
                ["tokens", self.dice.randint(50, 2000)],
                ["handoff", "user"],
                ["call", "tally"],
                ["stop"],
            ]
        )


def drawn(seed: int | Random, *, people: int = 0) -> Plan:
    """A plan that can be built: of teams in teams, three deep at most, with more `people` than usual if told so."""
    drawer = Drawer(Random(seed) if isinstance(seed, int) else seed, people)
    depth = drawer.dice.choice([1, 2, 2, 3])
    for _ in range(20):
        plan = drawer.team(depth)
        try:
            built(plan)
        except ConfigError as error:  # only a graph without an end or a start is drawn in vain
            assert "graph" in str(error) or "cycle" in str(error) or "loop" in str(error), error
        else:
            return plan
    return drawer.team(0, "round")


def within(plan: Plan, path: str = "") -> Iterator[tuple[str, Plan]]:
    """All plans in a plan, each with the way to it as failures name it."""
    for member in plan.get("members", []):
        yield f"{path}{member['name']}", member
        yield from within(member, f"{path}{member['name']}/")
    for key in ("team", "agent", "agent_tool", "team_tool"):
        if key in plan:
            yield f"{path}{plan[key]['name']}", plan[key]
            yield from within(plan[key], f"{path}{plan[key]['name']}/")


# --- models


def number(request: ReplayRequest) -> int:
    """One that depends on all that was asked."""
    return int(digest([*request.messages, [tool["name"] for tool in request.tools]])[:12], 16)


def voice(name: str) -> Callable[[ReplayRequest], Any]:
    """A model that talks, and calls tools as the mood takes it."""

    def reply(request: ReplayRequest) -> Any:
        n = number(request)
        last = request.messages[-1]
        again = isinstance(last, FunctionExecutionResultMessage)
        if request.json_output is not None:
            return f'{{"reason": "{n % 97}", "retry": {"true" if n % 2 else "false"}}}'
        if request.tools and request.tool_choice != "none" and n % 3 and not (again and n % 2):
            return [call(request, n // 7 + at) for at in range(1 + n % 2)]
        return f"{name} {n % 97} {WORDS[n // 97 % len(WORDS)]}"

    return reply


def call(request: ReplayRequest, n: int) -> FunctionCall:
    """A call of some tool, at times of one that is not there or with arguments it does not take."""
    name = "no_such_tool" if n % 17 == 0 else request.tools[n // 17 % len(request.tools)]["name"]
    arguments: dict[str, Any] = {"look_up": {"word": f"w{n % 97}"}, "tally": {"by": n % 5}}.get(name, {})
    if name == "remember":
        arguments = {"text": f"note {n % 97}"}
    elif name.startswith(("a", "t")) and name != "tally" and not name.startswith("transfer"):
        arguments = {"task": f"task {n % 97}"}
    return FunctionCall(f"c{n % 9973}", "{" if n % 19 == 0 else json.dumps(arguments), name)


def chooser(names: Sequence[str]) -> Callable[[ReplayRequest], Any]:
    """A model that chooses a speaker, at times none or two."""

    def reply(request: ReplayRequest) -> Any:
        n = number(request)
        name = names[n // 11 % len(names)]
        return {0: "nobody", 1: " and ".join(names), 2: json.dumps({"speaker": name})}.get(n % 11, name)

    return reply


def orchestrator(names: Sequence[str]) -> Callable[[ReplayRequest], Any]:
    """A model that leads: facts and plans as text, ledgers as JSON, now and then nonsense."""

    def reply(request: ReplayRequest) -> Any:
        n = number(request)
        if request.json_output is None:
            return f"thoughts {n % 97}"
        if n % 7 == 0:
            return "no ledger"
        answers = {"is_request_satisfied": n % 11 == 1, "is_in_loop": n % 5 == 0, "is_progress_being_made": n % 3 > 0}
        ledger: dict[str, Any] = {key: {"reason": f"r{n % 97}", "answer": answer} for key, answer in answers.items()}
        ledger["next_speaker"] = {"reason": "", "answer": names[n // 11 % len(names)]}
        ledger["instruction_or_question"] = {"reason": "", "answer": f"do {n % 97}"}
        return json.dumps(ledger)

    return reply


# --- what plans are made of


async def look_up(word: str) -> str:
    """Looks a word up."""
    return f"{word}!"


class Tally(BaseToolWithState[dict, int, dict]):  # type: ignore[type-arg]
    """A tool that remembers."""

    def __init__(self) -> None:
        super().__init__(dict, int, dict, "tally", "Counts.")
        self.total = 0

    async def run(self, args: Any, cancellation_token: Any) -> int:
        self.total += int(args.get("by", 0))
        return self.total

    def save_state(self) -> Any:
        return {"total": self.total}

    def load_state(self, state: Any) -> None:
        self.total = state["total"]

    async def reset_state(self) -> None:
        self.total = 0


class Notes(ListMemory):
    """A memory that a tool writes to."""

    async def remember(self, text: str) -> str:
        """Remembers a text."""
        await self.add(MemoryContent(content=text, mime_type="text/plain"))
        return "noted"


class Machine(CodeExecutor):
    """Executes no code; whether it worked depends on it."""

    async def execute_code_blocks(self, code_blocks: list[CodeBlock], cancellation_token: Any) -> CodeResult:
        n = int(digest(code_blocks)[:6], 16)
        return CodeResult(n % 2, f"ran {n % 97}")


class Teller(Counter):
    """Counts its turns, and saves the count."""

    async def save_state(self) -> Any:
        return {"count": self._count, "heard": list(self.heard)}

    async def load_state(self, state: Any) -> None:
        self._count, self.heard = state["count"], list(state["heard"])

    async def on_reset(self, cancellation_token: Any) -> None:
        self._count, self.heard = 0, []


class Breaking(Teller):
    """Raises in its n-th turn, once."""

    def __init__(self, name: str, at: int) -> None:
        super().__init__(name)
        self.left = at

    async def on_messages(self, messages: Any, cancellation_token: Any) -> Response:
        self.left -= 1
        if self.left == 0:
            raise ValueError(f"{self.name} broke")
        return await super().on_messages(messages, cancellation_token)


class Gate(TerminationCondition):
    """Tells, each time it is asked, how often it was asked in this object's life; ends the run if told to."""

    def __init__(self, told: Callable[[int], str | None] | None = None) -> None:
        self.told = told
        self.asked = 0

    async def check(self, messages: Any) -> str | None:
        self.asked += 1
        return self.told(self.asked) if self.told is not None else None


async def approve(request: ApprovalRequest) -> ApprovalResponse:
    return ApprovalResponse(approved=len(request.code) % 5 > 0, reason="so it is")


async def yes(prompt: str, token: object) -> str:
    return f"yes to {len(prompt)}"


class Builder:
    """Makes teams of plans. `gate` is what the outermost team's gate tells, `person` how people are asked."""

    def __init__(self, gate: Callable[[int], str | None] | None = None, person: Any = yes) -> None:
        self.gate = Gate(gate)
        self.asks = person

    def team(self, plan: Plan, *, outermost: bool = False) -> Any:
        stop = self.stop(plan["stop"]) if plan["stop"] else None
        if outermost:
            stop = self.gate if stop is None else stop | self.gate
        more: Plan = {"name": plan["name"], "termination_condition": stop, "max_turns": plan["turns"]}
        more["emit_team_events"] = plan["events"]
        return getattr(self, plan["kind"])(plan, [self.any(member) for member in plan["members"]], more)

    def any(self, plan: Plan) -> Any:
        return self.team(plan) if plan["kind"] in TEAMS else getattr(self, plan["kind"])(plan)

    def round(self, plan: Plan, members: Any, more: Plan) -> BaseGroupChat:
        return RoundRobinGroupChat(members, **more)

    def swarm(self, plan: Plan, members: Any, more: Plan) -> BaseGroupChat:
        return Swarm(members, **more)

    def selector(self, plan: Plan, members: Any, more: Plan) -> BaseGroupChat:
        model = ReplayChatCompletionClient(chooser([member["name"] for member in plan["members"]]))
        context = self.context(plan["context"]) if plan["context"] else None
        more |= {"allow_repeated_speaker": plan["repeats"], "model_context": context}
        return SelectorGroupChat(members, model, model_client_streaming=plan["streaming"], **more)

    def magentic(self, plan: Plan, members: Any, more: Plan) -> BaseGroupChat:
        model = ReplayChatCompletionClient(orchestrator([member["name"] for member in plan["members"]]))
        return MagenticOneGroupChat(members, model, max_stalls=plan["stalls"], **more)

    def graph(self, plan: Plan, members: Any, more: Plan) -> BaseGroupChat:
        nodes = {
            member["name"]: DiGraphNode(
                name=member["name"], activation="any" if member["name"] in plan["any"] else "all"
            )
            for member in plan["members"]
        }
        for edge in plan["edges"]:
            nodes[edge["source"]].edges.append(
                DiGraphEdge(target=edge["target"], condition=edge["condition"], activation_group=edge["group"])
            )
        return GraphFlow(members, DiGraph(nodes=nodes, default_start_node=plan["entry"]), **more)

    def assistant(self, plan: Plan) -> BaseChatAgent:
        notes = Notes()
        made: dict[str, Any] = {"look_up": look_up, "remember": notes.remember}
        tools = [Tally() if name == "tally" else made[name] for name in plan["tools"]]
        if "agent_tool" in plan:
            tools.append(AgentTool(self.any(plan["agent_tool"])))
        if "team_tool" in plan:
            tools.append(TeamTool(self.any(plan["team_tool"]), plan["team_tool"]["name"], "a team"))
        return AssistantAgent(
            plan["name"],
            ReplayChatCompletionClient(voice(plan["name"])),
            tools=tools or None,
            handoffs=plan["handoffs"] or None,
            model_context=self.context(plan["context"]),
            memory=[notes] if "remember" in plan["tools"] else None,
            model_client_stream=plan["stream"],
            reflect_on_tool_use=plan["reflect"],
            max_tool_iterations=plan["iterations"],
        )

    def counter(self, plan: Plan) -> BaseChatAgent:
        return Teller(plan["name"])

    def breaking(self, plan: Plan) -> BaseChatAgent:
        return Breaking(plan["name"], plan["at"])

    def person(self, plan: Plan) -> BaseChatAgent:
        return UserProxyAgent(plan["name"], input_func=self.asks)

    def coder(self, plan: Plan) -> BaseChatAgent:
        model = ReplayChatCompletionClient(voice(plan["name"]))
        return CodeExecutorAgent(
            plan["name"],
            Machine(),
            model_client=model,
            max_retries_on_error=plan["retries"],
            approval_func=approve,
        )

    def terminal(self, plan: Plan) -> BaseChatAgent:
        return CodeExecutorAgent(plan["name"], Machine(), approval_func=approve)

    def proxy(self, plan: Plan) -> BaseChatAgent:
        return ConversableProxy(
            plan["name"],
            human_input_mode="TERMINATE",
            max_consecutive_auto_reply=2,
            code_executor=Machine(),
            default_auto_reply="go on",
            input_func=self.asks,
        )

    def society(self, plan: Plan) -> BaseChatAgent:
        model = ReplayChatCompletionClient(voice(plan["name"]))
        context = self.context(plan["context"])
        return SocietyOfMindAgent(plan["name"], self.team(plan["team"]), model, model_context=context)

    def filter(self, plan: Plan) -> BaseChatAgent:
        heard = [PerSourceFilter(source=name, position=plan["position"], count=1) for name in HEARD]
        return MessageFilterAgent(plan["name"], self.any(plan["agent"]), MessageFilterConfig(per_source=heard))

    def context(self, plan: list[Any]) -> ChatCompletionContext:
        if plan[0] == "tokens":
            return TokenLimitedChatCompletionContext(ReplayChatCompletionClient([]), token_limit=plan[1])
        kinds: dict[str, Any] = {
            "unbounded": UnboundedChatCompletionContext,
            "buffered": BufferedChatCompletionContext,
            "head": HeadAndTailChatCompletionContext,
        }
        made: ChatCompletionContext = kinds[plan[0]](*plan[1:])
        return made

    def stop(self, plan: list[Any]) -> TerminationCondition:
        kind, *arguments = plan
        if kind in ("and", "or"):
            one, other = map(self.stop, arguments)
            return one & other if kind == "and" else one | other
        kinds: dict[str, Callable[..., TerminationCondition]] = {
            "max": MaxMessageTermination,
            "text": TextMentionTermination,
            "source": lambda name: SourceMatchTermination([name]),
            "tokens": TokenUsageTermination,
            "handoff": HandoffTermination,
            "call": FunctionCallTermination,
            "stop": StopMessageTermination,
        }
        return kinds[kind](*arguments)


def built(plan: Plan, gate: Callable[[int], str | None] | None = None, person: Any = yes) -> Any:
    """The team of a plan."""
    return Builder(gate, person).team(plan, outermost=True)


# --- what is compared

_PASSING = {"id", "created_at", "full_message_id", "request_id", "time", "uid", "call_id"}


def lasting(data: Any) -> Any:
    """JSON data without what differs from run to run: ids and times."""
    if isinstance(data, dict):
        return {key: lasting(value) for key, value in data.items() if key not in _PASSING}
    return [lasting(value) for value in data] if isinstance(data, list) else data


def said(messages: Sequence[Any]) -> list[Any]:
    """Messages and events, to be compared."""
    return [lasting(message.dump()) for message in messages]


async def stands(runner: TaskRunner) -> Any:
    """Where a runner stands, to be compared."""
    return lasting(json.loads(json.dumps(await runner.save_state())))


async def _go_on() -> None:
    """Load each state of the list on standard input into the team of its plan, run that, and print how it went."""
    ends = []
    for plan, state in json.load(sys.stdin):
        team = built(plan)
        await team.load_state(state)
        result = await team.run()
        ends.append([said(result.messages), result.stop_reason, await stands(team)])
    print(json.dumps(ends))


if __name__ == "__main__":
    asyncio.run(_go_on())
