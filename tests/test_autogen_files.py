"""State files that AutoGen 0.7.5 wrote load into the same team, and the run goes on.

They are written out here by hand, with the keys AutoGen writes and no others.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from agents_for_tests import speaker
from graphs_for_tests import graph
from tinygen import (
    AssistantAgent,
    BaseAgentEvent,
    BaseChatMessage,
    BaseGroupChat,
    CodeBlock,
    CodeExecutor,
    CodeExecutorAgent,
    CodeResult,
    GraphFlow,
    MagenticOneGroupChat,
    MaxMessageTermination,
    MessageFilterAgent,
    MessageFilterConfig,
    PerSourceFilter,
    ReplayChatCompletionClient,
    ReplayRequest,
    RoundRobinGroupChat,
    SelectorGroupChat,
    SocietyOfMindAgent,
    StateError,
    StructuredMessage,
    Swarm,
    TaskResult,
    UserProxyAgent,
)
from tinygen.codec import decode, encode

pytestmark = pytest.mark.filterwarnings("ignore:nobody approves")


@dataclass
class Appraisal:
    good: bool


DECLARED = StructuredMessage[Appraisal]  # as an agent that says such messages declares it

CALL = {"id": "c1", "arguments": '{"a": 1}', "name": "add"}
RESULT = {"content": "3", "name": "add", "call_id": "c1", "is_error": False}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def message(kind: str, content: Any, source: str = "a", **more: Any) -> dict[str, Any]:
    """A message or an event as AutoGen dumps it."""
    return {
        "id": "0c0bb4c6-6e7b-4d0e-8f6b-0f3a8a2d7d11",
        "source": source,
        "models_usage": None,
        "metadata": {},
        "created_at": "2025-09-30T12:34:56.789012Z",
        "content": content,
        **more,
        "type": kind,
    }


def text(content: str, source: str = "a") -> dict[str, Any]:
    return message("TextMessage", content, source)


CALLED = [
    {"content": [CALL], "thought": "hm", "source": "a", "type": "AssistantMessage"},
    {"content": [RESULT], "type": "FunctionExecutionResultMessage"},
]
HANDOFF = message("HandoffMessage", "Transferred to b, adopting the role of b immediately.", target="b", context=CALLED)
CHAT = {
    "text": text("go", "user") | {"models_usage": {"prompt_tokens": 3, "completion_tokens": 1}},
    "picture": message("MultiModalMessage", ["look", {"data": PIXEL}], "user"),
    "stop": message("StopMessage", "over"),
    "handoff": HANDOFF,
    "summary": message("ToolCallSummaryMessage", "3", tool_calls=[CALL], results=[RESULT]),
    "structured": message("StructuredMessage[Appraisal]", {"good": True}, format_string=None),
    "structured with a format": message("StructuredMessage[Appraisal]", {"good": False}, format_string="{good}"),
}
EVENTS = {
    "request": message("ToolCallRequestEvent", [CALL]),
    "execution": message("ToolCallExecutionEvent", [RESULT]),
    "memory": message("MemoryQueryEvent", [{"content": "sky", "mime_type": "text/plain", "metadata": None}]),
    "thought": message("ThoughtEvent", "hm"),
    "asked": message("UserInputRequestedEvent", "", request_id="r1"),
    "speaker": message("SelectSpeakerEvent", ["a"], "RoundRobinGroupChatManager"),
    "code": message(
        "CodeGenerationEvent", "so", retry_attempt=0, code_blocks=[{"code": "print(1)\n", "language": "python"}]
    ),
    "ran": message("CodeExecutionEvent", "", retry_attempt=0, result={"exit_code": 0, "output": "1"}),
}
del EVENTS["ran"]["content"]
THREAD = [*CHAT.values(), *EVENTS.values()]


def context(*messages: dict[str, Any]) -> dict[str, Any]:
    return {"type": "AssistantAgentState", "version": "1.0.0", "llm_context": {"messages": list(messages)}}


HEARD = [
    {"content": "You remember: sky", "type": "SystemMessage"},  # which AutoGen's memories leave behind
    {"content": "go", "source": "user", "type": "UserMessage"},
    *CALLED,
    {"content": "three", "thought": None, "source": "a", "type": "AssistantMessage"},
]
BASE = {"type": "BaseState", "version": "1.0.0"}


def seat(state: dict[str, Any], *unheard: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "ChatAgentContainerState",
        "version": "1.0.0",
        "agent_state": state,
        "message_buffer": list(unheard),
    }


def team_state(manager: str, kind: str | None, more: dict[str, Any], **seats: Any) -> dict[str, Any]:
    head = {} if kind is None else {"type": kind, "version": "1.0.0"}
    made = {**head, "message_thread": THREAD, "current_turn": 0, **more}
    return {"type": "TeamState", "version": "1.0.0", "agent_states": {**seats, manager: made}}


def round_robin(next_speaker: int = 1, **seats: Any) -> dict[str, Any]:
    index = {"next_speaker_index": next_speaker}
    return team_state("RoundRobinGroupChatManager", "RoundRobinManagerState", index, **seats)


TWO = {"a": seat(context(*HEARD)), "b": seat(context(), CHAT["text"], HANDOFF, CHAT["structured"])}


def history(request: ReplayRequest) -> str:
    """A model that says all it was ever told, but its instructions."""
    return " + ".join(str(message.content) for message in request.messages if message.type != "SystemMessage")[:400]


def member(name: str, **more: Any) -> AssistantAgent:
    return AssistantAgent(name, ReplayChatCompletionClient(history), **more)


def judge(name: str) -> AssistantAgent:
    return AssistantAgent(name, ReplayChatCompletionClient(['{"good": true}']), output_content_type=Appraisal)


def inner() -> RoundRobinGroupChat:
    return RoundRobinGroupChat([member("a"), member("b")], max_turns=1, name="inner")


LEDGER = {
    **{
        key: {"reason": "r", "answer": key == "is_progress_being_made"}
        for key in ("is_request_satisfied", "is_in_loop")
    },
    "is_progress_being_made": {"reason": "r", "answer": True},
    "next_speaker": {"reason": "r", "answer": "b"},
    "instruction_or_question": {"reason": "r", "answer": "your turn"},
}


class Machine(CodeExecutor):
    async def execute_code_blocks(self, code_blocks: list[CodeBlock], cancellation_token: Any) -> CodeResult:
        return CodeResult(0, "ran")


def others() -> RoundRobinGroupChat:
    """Everybody whose state is more, or less, than an assistant's."""
    heard = MessageFilterConfig(per_source=[PerSourceFilter(source="user")])
    return RoundRobinGroupChat(
        [
            SocietyOfMindAgent("som", inner(), ReplayChatCompletionClient(["so be it"])),
            MessageFilterAgent("filtered", member("behind"), heard),
            CodeExecutorAgent("coder", Machine()),
            UserProxyAgent("ann", input_func=lambda prompt: "fine"),
            judge("judge"),
        ],
        max_turns=5,
    )


FILES: dict[str, tuple[Callable[[], BaseGroupChat], dict[str, Any], list[str]]] = {
    "round robin": (inner, round_robin(**TWO), ["b"]),
    "selector": (
        lambda: SelectorGroupChat([member("a"), member("b")], ReplayChatCompletionClient([]), max_turns=1),
        team_state("SelectorGroupChatManager", "SelectorManagerState", {"previous_speaker": "a"}, **TWO),
        ["b"],
    ),
    "selector before its first turn": (
        lambda: SelectorGroupChat([member("a"), member("b")], ReplayChatCompletionClient(["a"]), max_turns=1),
        team_state("SelectorGroupChatManager", "SelectorManagerState", {"previous_speaker": None}, **TWO),
        ["a"],
    ),
    "swarm": (
        lambda: Swarm([member("a", handoffs=["b"]), member("b")], max_turns=1),
        team_state("SwarmGroupChatManager", "SwarmManagerState", {"current_speaker": "b"}, **TWO),
        ["b"],
    ),
    "magentic": (
        lambda: MagenticOneGroupChat(
            [member("a"), member("b")], ReplayChatCompletionClient([json.dumps(LEDGER), "final"]), max_turns=1
        ),
        team_state(
            "MagenticOneOrchestrator",
            "MagenticOneOrchestratorState",
            {"task": "go", "facts": "f", "plan": "p", "n_rounds": 2, "n_stalls": 1},
            **TWO,
        ),
        ["MagenticOneOrchestrator", "b", "MagenticOneOrchestrator"],
    ),
    "graph": (
        lambda: GraphFlow([member("a"), member("b")], graph("a b")),
        team_state(
            "GraphManager",
            None,
            {"remaining": {"b": {"b": 0}}, "enqueued_any": {"b": {"b": False}}, "ready": ["b"]},
            **TWO,
        ),
        ["b"],
    ),
    "a team in a team": (
        lambda: RoundRobinGroupChat([speaker("x"), inner()], max_turns=1),
        round_robin(x=seat(context()), inner=seat(round_robin(**TWO), text("your turn", "x"))),
        ["b"],
    ),
    "a team in a team in a team": (
        lambda: RoundRobinGroupChat([RoundRobinGroupChat([inner()], name="mid", max_turns=1)], max_turns=1),
        round_robin(0, mid=seat(round_robin(0, inner=seat(round_robin(**TWO))), text("go on", "user"))),
        ["b"],
    ),
    "all other agents": (
        others,
        round_robin(
            0,
            som=seat(
                {"type": "SocietyOfMindAgentState", "version": "1.0.0", "inner_team_state": round_robin(0, **TWO)},
                text("hello", "user"),
            ),
            filtered=seat(BASE, text("hello", "user")),
            coder=seat(BASE, text("```python\n1\n```", "user")),
            ann=seat(BASE, text("hello", "user")),
            judge=seat(context(), text("hello", "user")),
        ),
        ["a", "som", "filtered", "coder", "ann", "ann", "judge"],
    ),
}


@pytest.mark.parametrize("name", FILES)
async def test_a_file_of_autogens_loads_and_the_run_goes_on_with_whose_turn_it_is(name: str) -> None:
    make, state, speakers = FILES[name]
    team = make()
    await team.load_state(json.loads(json.dumps(state)))
    result = await team.run()
    assert [message.source for message in result.messages] == speakers


@pytest.mark.parametrize("name", FILES)
async def test_what_was_loaded_is_saved_again_with_nothing_lost(name: str) -> None:
    make, state, _ = FILES[name]
    team, again = make(), make()
    await team.load_state(json.loads(json.dumps(state)))
    saved = json.loads(json.dumps(await team.save_state()))
    assert_within(state, saved)
    await again.load_state(saved)
    assert await again.save_state() == saved


def assert_within(old: Any, new: Any, path: str = "$") -> None:
    """Everything in a file of AutoGen's stands in ours too."""
    if isinstance(old, dict) and old.get("type") == "BaseState":
        return  # it says nothing
    if isinstance(old, dict):
        for key, value in old.items():
            if key in ("enqueued_any", "remaining"):
                continue  # spelt out in full here
            if key not in new and value in (None, [], {}):
                continue
            assert key in new, f"{path}.{key}"
            assert_within(value, new[key], f"{path}.{key}")
    elif isinstance(old, list):
        assert len(old) == len(new), path
        for at, value in enumerate(old):
            assert_within(value, new[at], f"{path}[{at}]")
    elif path.endswith("created_at"):
        assert new.replace("+00:00", "Z") == old
    else:
        assert new == old, path


async def test_what_was_heard_and_what_was_not_yet_both_reach_the_model() -> None:
    team = inner()
    await team.load_state(round_robin(**TWO))
    said = (await team.run(task="more")).messages[-1].to_text()
    assert said.startswith("go + [FunctionCall(id='c1'")
    assert '{"good":true}' in said.replace(" ", "")
    assert said.endswith("more")


@pytest.mark.parametrize("name", CHAT)
def test_every_message_of_autogens_loads_and_is_written_as_it_was(name: str) -> None:
    loaded = decode(BaseChatMessage, CHAT[name], mode="state")
    assert isinstance(loaded, BaseChatMessage)
    assert_within(CHAT[name], encode(loaded))


@pytest.mark.parametrize("name", EVENTS)
def test_every_event_of_autogens_loads_and_is_written_as_it_was(name: str) -> None:
    loaded = decode(BaseAgentEvent, EVENTS[name], mode="state")
    assert isinstance(loaded, BaseAgentEvent)
    assert_within(EVENTS[name], encode(loaded))


def test_a_structured_message_comes_back_with_the_type_its_agent_declares() -> None:
    loaded = decode(BaseChatMessage, CHAT["structured"], mode="state")
    assert isinstance(loaded, StructuredMessage)
    assert loaded.content == Appraisal(good=True)


@pytest.mark.parametrize("name", FILES)
async def test_a_file_loads_into_a_team_that_was_used_before_as_into_a_fresh_one(name: str) -> None:
    make, state, _ = FILES[name]
    fresh, used = make(), make()
    if name not in ("magentic", "selector before its first turn", "selector", "all other agents"):
        await used.run(task="something else")
    for team in (fresh, used):
        await team.load_state(json.loads(json.dumps(state)))
    assert await used.save_state() == await fresh.save_state()


async def test_terminations_which_autogen_does_not_save_begin_anew() -> None:
    team = RoundRobinGroupChat([member("a"), member("b")], termination_condition=MaxMessageTermination(3))
    await team.load_state(round_robin(**TWO))
    result: TaskResult = await team.run(task="go")
    assert len(result.messages) == 3


@pytest.mark.parametrize("name", FILES)
async def test_a_file_of_another_team_is_refused_and_changes_nothing(name: str) -> None:
    make, state, _ = FILES[name]
    team = make()
    before = await team.save_state()
    for other in (
        {**state, "version": "2.0.0"},
        {**state, "type": "AssistantAgentState"},
        {**state, "agent_states": {}},
    ):
        with pytest.raises(StateError):
            await team.load_state(other)
    assert await team.save_state() == before
