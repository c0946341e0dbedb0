"""Component documents that AutoGen 0.7.5 wrote: each of them loads, and is written as one of ours.

They are written out here by hand, with the keys AutoGen writes.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

import tinygen
from tinygen import (
    Component,
    EncodeError,
    ReplayChatCompletionClient,
    SelectorGroupChat,
    UserProxyAgent,
    register_component,
)
from tinygen.component_names import _AUTOGEN
from tinygen.errors import ComponentError

pytestmark = pytest.mark.filterwarnings("ignore:nobody approves")


def document(provider: str, kind: str, config: dict[str, Any], version: int = 1) -> dict[str, Any]:
    return {
        "provider": provider,
        "component_type": kind,
        "version": version,
        "component_version": version,
        "description": "What it is.",
        "label": provider.rpartition(".")[2],
        "config": config,
    }


@register_component
def sum_up(a: int, b: int) -> int:
    """Adds."""
    return a + b


def condition(name: str, **config: Any) -> dict[str, Any]:
    return document(f"autogen_agentchat.conditions.{name}", "termination", config)


def context(name: str, **config: Any) -> dict[str, Any]:
    return document(f"autogen_core.model_context.{name}ChatCompletionContext", "chat_completion_context", config)


def agent(kind: str, **config: Any) -> dict[str, Any]:
    return document(f"autogen_agentchat.agents.{kind}", "agent", config, 2 if kind == "AssistantAgent" else 1)


def team(name: str, participants: list[Any], **config: Any) -> dict[str, Any]:
    standard = {"name": name, "description": "A team.", "participants": participants, "emit_team_events": False}
    return document(f"autogen_agentchat.teams.{name}", "team", {**standard, **config})


INFO = {"vision": False, "function_calling": True, "json_output": True, "family": "unknown", "structured_output": True}
REPLAY = document(
    "autogen_ext.models.replay.ReplayChatCompletionClient", "model", {"chat_completions": ["x"], "model_info": INFO}
)
OPENAI = document(
    "autogen_ext.models.openai.OpenAIChatCompletionClient",
    "model",
    {"model": "gpt-4o-mini", "base_url": "http://localhost:1/v1", "max_retries": 2, "include_name_in_message": True},
)
AZURE = document(
    "autogen_ext.models.openai.AzureOpenAIChatCompletionClient",
    "model",
    {
        "model": "gpt-4o",
        "azure_endpoint": "http://localhost:1",
        "azure_deployment": "d",
        "api_version": "2024-06-01",
        "api_key": "**********",
    },
)
ANTHROPIC = document(
    "autogen_ext.models.anthropic.AnthropicChatCompletionClient",
    "model",
    {"model": "claude-3-5-sonnet-20241022", "max_tokens": 4096, "temperature": 1.0, "model_info": INFO},
)
OLLAMA = document("autogen_ext.models.ollama.OllamaChatCompletionClient", "model", {"model": "llama3.2"})
CACHE = document(
    "autogen_ext.models.cache.ChatCompletionCache",
    "chat_completion_cache",
    {"client": REPLAY, "store": document("autogen_core.InMemoryStore", "cache_store", {})},
)
TOOL = document(
    "autogen_core.tools.FunctionTool",
    "tool",
    {
        "source_code": "def sum_up(a: int, b: int) -> int:\n    return a + b\n",
        "name": "sum_up",
        "description": "Adds.",
        "global_imports": [],
        "has_cancellation_support": False,
    },
)
WORKBENCH = {"tools": [TOOL], "tool_overrides": {"sum_up": {"name": "plus", "description": None}}}
ASSISTANT = {
    "model_client": REPLAY,
    "workbench": [document("autogen_core.tools.StaticStreamWorkbench", "workbench", WORKBENCH)],
    "model_context": context("Unbounded"),
    "description": "helps",
    "system_message": "Help.",
    "model_client_stream": False,
    "reflect_on_tool_use": False,
    "max_tool_iterations": 1,
    "tool_call_summary_format": "{result}",
    "metadata": {},
}


def assistant(name: str, **more: Any) -> dict[str, Any]:
    return agent("AssistantAgent", name=name, **ASSISTANT, **more)


HANDOFF = {"target": "b", "description": "Handoff to b.", "name": "transfer_to_b", "message": "Yours."}
TWO = [assistant("a", handoffs=[HANDOFF]), assistant("b")]
EXECUTOR = document(
    "autogen_ext.code_executors.local.LocalCommandLineCodeExecutor",
    "code_executor",
    {"timeout": 60, "work_dir": "coding", "functions_module": "functions", "cleanup_temp_files": True},
)
GRAPH = {
    "nodes": {
        "a": {
            "name": "a",
            "edges": [{"target": "b", "condition": None, "activation_group": "b", "activation_condition": "all"}],
            "activation": "all",
        },
        "b": {"name": "b", "edges": [], "activation": "all"},
    },
    "default_start_node": None,
}
TERMINATED = {"termination_condition": condition("StopMessageTermination"), "max_turns": None}
FILTER = {"per_source": [{"source": "user", "position": "last", "count": 1}, {"source": "b", "position": None}]}

DOCUMENTS = [
    condition("ExternalTermination"),
    condition("FunctionCallTermination", function_name="add"),
    condition("HandoffTermination", target="user"),
    condition("MaxMessageTermination", max_messages=3, include_agent_event=False),
    condition("SourceMatchTermination", sources=["a"]),
    condition("StopMessageTermination"),
    condition("TextMentionTermination", text="TERMINATE"),
    condition("TextMessageTermination", source="a"),
    condition("TimeoutTermination", timeout_seconds=1.5),
    condition("TokenUsageTermination", max_total_token=10, max_prompt_token=None, max_completion_token=None),
    *(
        document(
            f"autogen_agentchat.base.{name}TerminationCondition",
            "termination",
            {"conditions": [condition("TextMentionTermination", text="x"), condition("StopMessageTermination")]},
        )
        for name in ("And", "Or")
    ),
    context("Unbounded", initial_messages=[{"content": "hi", "source": "user", "type": "UserMessage"}]),
    context("Buffered", buffer_size=3, initial_messages=None),
    context("HeadAndTail", head_size=1, tail_size=2),
    context("TokenLimited", model_client=REPLAY, token_limit=100, tool_schema=None),
    document(
        "autogen_core.memory.ListMemory",
        "memory",
        {"name": "m", "memory_contents": [{"content": "x", "mime_type": "text/plain", "metadata": None}]},
    ),
    document("autogen_core.InMemoryStore", "cache_store", {}),
    *(REPLAY, OPENAI, AZURE, ANTHROPIC, OLLAMA, CACHE, TOOL, EXECUTOR),
    document("autogen_core.tools.StaticWorkbench", "workbench", WORKBENCH),
    document("autogen_core.tools.StaticStreamWorkbench", "workbench", WORKBENCH),
    document(
        "autogen_agentchat.tools.AgentTool", "tool", {"agent": assistant("a"), "return_value_as_last_message": False}
    ),
    document(
        "autogen_agentchat.tools.TeamTool",
        "tool",
        {
            "name": "t",
            "description": "d",
            "team": team("RoundRobinGroupChat", TWO, **TERMINATED),
            "return_value_as_last_message": True,
        },
    ),
    assistant("a", handoffs=[HANDOFF], memory=[]),
    agent("UserProxyAgent", name="ann", description="A human user", input_func=None),
    agent("MessageFilterAgent", name="f", wrapped_agent=assistant("a"), filter=FILTER),
    agent(
        "SocietyOfMindAgent",
        name="som",
        team=team("RoundRobinGroupChat", TWO, **TERMINATED),
        model_client=REPLAY,
        description="An agent.",
        instruction="Earlier you were asked.",
        response_prompt="Answer.",
        model_context=context("Unbounded"),
    ),
    agent(
        "CodeExecutorAgent",
        name="cx",
        code_executor=EXECUTOR,
        model_client=REPLAY,
        description="Runs code.",
        sources=["a"],
        system_message="Write code.",
        model_client_stream=False,
        model_context=context("Unbounded"),
        supported_languages=["python"],
    ),
    team("RoundRobinGroupChat", TWO, **TERMINATED),
    team(
        "SelectorGroupChat",
        TWO,
        **TERMINATED,
        model_client=REPLAY,
        selector_prompt="{roles} {participants} {history}",
        allow_repeated_speaker=False,
        max_selector_attempts=3,
        model_client_streaming=False,
        model_context=context("Buffered", buffer_size=5),
    ),
    team("Swarm", TWO, **TERMINATED),
    team(
        "MagenticOneGroupChat",
        TWO,
        termination_condition=None,
        max_turns=20,
        model_client=REPLAY,
        max_stalls=3,
        final_answer_prompt="Answer {task}",
    ),
    team("GraphFlow", TWO, **TERMINATED, graph=GRAPH),
    team("RoundRobinGroupChat", [team("Swarm", TWO, **TERMINATED), assistant("c")], **TERMINATED),
]


@pytest.fixture(autouse=True)
def keys(monkeypatch: Any) -> None:
    for name in ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(name, "sk-1234567890")


@pytest.mark.parametrize("it", DOCUMENTS, ids=lambda it: it["label"])
def test_a_document_of_autogens_loads_and_is_written_as_ours(it: dict[str, Any]) -> None:
    made = Component.load_component(json.loads(json.dumps(it)))
    assert type(made).__name__ == it["label"]
    text = made.dump_component().model_dump_json()
    assert "autogen_agentchat" not in text
    assert "autogen_core" not in text
    assert "autogen_ext" not in text
    assert Component.load_component(json.loads(text)).dump_component().model_dump_json() == text


@pytest.mark.parametrize("it", DOCUMENTS, ids=lambda it: it["label"])
def test_what_a_document_of_autogens_says_is_what_ours_says(it: dict[str, Any]) -> None:
    config = Component.load_component(json.loads(json.dumps(it))).dump_component().config
    for key, value in it["config"].items():
        if isinstance(value, (str, int, float)) and key not in ("source_code", "api_key", "has_cancellation_support"):
            assert config.get(key) == value, key


def test_every_class_that_autogen_has_too_has_a_document_here() -> None:
    ours = "suspend Conversable Vertex Responses Gemini SQLite Faulty RateLimit Fallback LoadBalancing".split()
    elsewhere = "StructuredMessageFactory DiskCache Redis Bedrock FunctionalTermination".split()  # tested or not dumped
    shown = {it["provider"] for it in DOCUMENTS}
    for provider, name in _AUTOGEN.items():
        if "." in provider and not any(part in name or part in provider for part in (*ours, *elsewhere)):
            assert provider in shown, name


@pytest.mark.parametrize("name", [it["label"] for it in DOCUMENTS])
def test_what_autogen_can_write_can_be_imported_by_its_name_here(name: str) -> None:
    assert hasattr(tinygen, name) or name == "InMemoryStore"


def test_functions_that_autogen_drops_without_a_word_are_refused() -> None:
    members = [UserProxyAgent("a"), UserProxyAgent("b")]
    choosing = SelectorGroupChat(members, ReplayChatCompletionClient([]), selector_func=lambda thread: "a")
    asking = UserProxyAgent("a", input_func=lambda prompt: prompt)
    for it, argument in ((choosing, "selector_func"), (asking, "input_func")):
        with pytest.raises(EncodeError, match=argument):
            it.dump_component()


def test_a_tool_of_autogens_whose_function_nobody_registered_is_refused_with_its_place() -> None:
    unknown = json.loads(json.dumps(assistant("a")).replace('"name": "sum_up"', '"name": "gone"'))
    with pytest.raises(ComponentError, match=r"\$\.config\.workbench\[0\]\.config\.tools\[0\]"):
        Component.load_component(unknown)
