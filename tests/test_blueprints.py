"""Components as documents: written, read back, and refused where that could not be done faithfully."""

from __future__ import annotations

import asyncio
import copy
import json
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from httpx import AsyncClient
from hypothesis import given, settings, strategies

import tinygen
from shared_data import needs_shared, shared
from tinygen import (
    AgentTool,
    AnthropicBedrockChatCompletionClient,
    AnthropicChatCompletionClient,
    AnthropicVertexChatCompletionClient,
    ApprovalRequest,
    ApprovalResponse,
    AssistantAgent,
    AssistantMessage,
    AzureOpenAIChatCompletionClient,
    BufferedChatCompletionContext,
    ChatCompletionCache,
    ChatCompletionClient,
    CodeExecutorAgent,
    Component,
    ConfigError,
    ConversableProxy,
    CreateResult,
    DiGraph,
    DiGraphEdge,
    DiGraphNode,
    EncodeError,
    ExternalTermination,
    FallbackClient,
    FaultyClient,
    FunctionalTermination,
    FunctionCall,
    FunctionCallTermination,
    FunctionTool,
    GeminiChatCompletionClient,
    GraphFlow,
    Handoff,
    HandoffTermination,
    HeadAndTailChatCompletionContext,
    ListMemory,
    LoadBalancingClient,
    LocalCommandLineCodeExecutor,
    MagenticOneGroupChat,
    MaxMessageTermination,
    MemoryContent,
    MessageFilterAgent,
    MessageFilterConfig,
    OllamaChatCompletionClient,
    OpenAIChatCompletionClient,
    OpenAIResponsesClient,
    PerSourceFilter,
    RateLimitedClient,
    RateLimiter,
    ReplayChatCompletionClient,
    RequestUsage,
    RoundRobinGroupChat,
    SelectorGroupChat,
    SocietyOfMindAgent,
    SourceMatchTermination,
    StaticStreamWorkbench,
    StaticWorkbench,
    StopMessageTermination,
    StructuredMessageFactory,
    Swarm,
    TeamTool,
    TextMentionTermination,
    TextMessageTermination,
    TimeoutTermination,
    TokenLimitedChatCompletionContext,
    TokenUsageTermination,
    ToolOverride,
    UnboundedChatCompletionContext,
    UserMessage,
    UserProxyAgent,
    suspend,
)
from tinygen.blueprints import REGISTERED, ComponentModel, allow_secrets
from tinygen.cache import InMemoryStore, SQLiteCacheStore
from tinygen.component_names import _OURS, register_component
from tinygen.errors import ComponentError, ComponentTypeError, ComponentVersionError

NONE_SUCH = "NO_SUCH_VARIABLE_IN_TESTS"


@register_component
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@register_component
def enough(messages: Any) -> bool:
    return len(messages) > 1


@register_component
def nobody(thread: Any) -> None:
    """Leaves the choice to the model."""


@register_component
def approved(request: ApprovalRequest) -> ApprovalResponse:
    return ApprovalResponse(approved=True, reason="it is a test")


@register_component
@dataclass
class Verdict:
    good: bool


def not_registered(a: int) -> int:
    """A function nobody has registered."""
    return a


def model(*script: Any) -> ReplayChatCompletionClient:
    return ReplayChatCompletionClient(list(script))


def through_json(it: Component) -> Any:
    """What is loaded from the text of the document of `it`."""
    return Component.load_component(json.loads(it.dump_component().model_dump_json()))


def document(provider: str, config: Any = None, **more: Any) -> dict[str, Any]:
    return {"provider": provider, "config": {} if config is None else config, **more}


# --- there and back

ALL: dict[str, Callable[[], Component]] = {
    "user proxy": lambda: UserProxyAgent("ann", description="the boss", input_func=suspend),
    "assistant": lambda: AssistantAgent("ada", model("hi")),
    "assistant with everything": lambda: AssistantAgent(
        "ada",
        model("hi"),
        tools=[add, FunctionTool(add, name="plus", description="sums", strict=True, timeout=3.0)],
        handoffs=["bob", Handoff(target="carl", message="yours")],
        model_context=BufferedChatCompletionContext(3),
        system_message=None,
        memory=[ListMemory("facts", [MemoryContent(content="sky is blue", mime_type="text/plain")])],
        output_content_type=Verdict,
        metadata={"team": "x"},
    ),
    "workbench": lambda: StaticWorkbench([add], {"add": ToolOverride(name="sum")}),
    "stream workbench": lambda: StaticStreamWorkbench([FunctionTool(add)]),
    "assistant with a workbench": lambda: AssistantAgent("ada", model(), workbench=[StaticStreamWorkbench([add])]),
    "filter": lambda: MessageFilterAgent(
        "eve",
        UserProxyAgent("bob"),
        MessageFilterConfig(per_source=[PerSourceFilter(source="x", position="last", count=1)]),
    ),
    "society": lambda: SocietyOfMindAgent(
        "soc", RoundRobinGroupChat([UserProxyAgent("bob")]), model(), description="x"
    ),
    "agent tool": lambda: AgentTool(UserProxyAgent("bob"), return_value_as_last_message=True),
    "team tool": lambda: TeamTool(RoundRobinGroupChat([UserProxyAgent("bob")]), "ask_team", "a team"),
    "graph": lambda: GraphFlow(
        [AssistantAgent("ada", model("x")), AssistantAgent("bob", model("x"))],
        DiGraph(
            nodes={
                "ada": DiGraphNode(
                    name="ada",
                    edges=[DiGraphEdge(target="bob", condition="x"), DiGraphEdge(target="bob", condition=enough)],
                ),
                "bob": DiGraphNode(name="bob", activation="any"),
            }
        ),
        max_turns=2,
    ),
    "round robin": lambda: RoundRobinGroupChat([AssistantAgent("ada", model("x"))], max_turns=2, name="pair"),
    "selector": lambda: SelectorGroupChat(
        [AssistantAgent("ada", model("x")), AssistantAgent("bob", model("y"))],
        model("bob"),
        selector_func=nobody,
        model_context=BufferedChatCompletionContext(3),
    ),
    "swarm": lambda: Swarm([AssistantAgent("ada", model("x"), handoffs=["bob"])], max_turns=2),
    "magentic": lambda: MagenticOneGroupChat([AssistantAgent("ada", model("x"))], model("y"), max_turns=None),
    "executor": lambda: LocalCommandLineCodeExecutor(5, Path("/tmp/work"), [add], env={"A": "x"}, max_output=9),
    "code executor": lambda: CodeExecutorAgent(
        "cx", LocalCommandLineCodeExecutor(), model_client=model("x"), sources=["bob"], approval_func=approved
    ),
    "two-agent chat": lambda: ConversableProxy("ann", code_executor=LocalCommandLineCodeExecutor(), input_func=suspend),
    "tool": lambda: FunctionTool(add, "sums", "plus", strict=True, max_output=80),
    "store": InMemoryStore,
    "disk store": lambda: SQLiteCacheStore("folder/answers.sqlite3"),
    "cached model": lambda: ChatCompletionCache(model("hi"), SQLiteCacheStore("answers.sqlite3")),
    "cached in memory": lambda: ChatCompletionCache(model("hi")),
    "fallback": lambda: FallbackClient([model("a"), ChatCompletionCache(model("b"))], mends=enough),
    "load balancing": lambda: LoadBalancingClient([model("a"), model("b")], [1, 2.5], cool_down=5),
    "rate limited": lambda: RateLimitedClient(model("a"), RateLimiter(requests_per_minute=5), timeout=None),
    "limiter": lambda: RateLimiter(tokens_per_minute=1000, concurrency=2),
    "faulty": lambda: FaultyClient(model("a"), seed="x", garbage=0.5, slow=0.25),
    "external": ExternalTermination,
    "function call": lambda: FunctionCallTermination("add"),
    "functional": lambda: FunctionalTermination(enough),
    "handoff": lambda: HandoffTermination("bob"),
    "max messages": lambda: MaxMessageTermination(3, include_agent_event=True),
    "source": lambda: SourceMatchTermination(("bob", "carl")),
    "stop message": StopMessageTermination,
    "text mention": lambda: TextMentionTermination("STOP", sources=["bob"]),
    "text message": lambda: TextMessageTermination("bob"),
    "timeout": lambda: TimeoutTermination(1.5),
    "tokens": lambda: TokenUsageTermination(max_prompt_token=9),
    "or": lambda: StopMessageTermination() | MaxMessageTermination(2),
    "and of or": lambda: (TextMentionTermination("A") | MaxMessageTermination(2)) & StopMessageTermination(),
    "list memory": lambda: ListMemory(memory_contents=[MemoryContent(content={"a": 1}, mime_type="application/json")]),
    "unbounded": lambda: UnboundedChatCompletionContext([UserMessage(content="hi", source="ann")]),
    "buffered": lambda: BufferedChatCompletionContext(4, [AssistantMessage(content="hi", source="ada")]),
    "head and tail": lambda: HeadAndTailChatCompletionContext(1, 2),
    "structured messages": lambda: StructuredMessageFactory({"title": "Sum", "type": "object"}, format_string="{x}"),
    "token limited": lambda: TokenLimitedChatCompletionContext(model(), token_limit=50, tool_schema=[{"name": "x"}]),
    "openai": lambda: OpenAIChatCompletionClient(
        model="gpt-4o", base_url="http://localhost:1/v1", temperature=0.5, response_format={"type": "json_object"}
    ),
    "azure": lambda: AzureOpenAIChatCompletionClient(
        model="gpt-4o", azure_endpoint="http://localhost:1", azure_ad_token_provider=add
    ),
    "responses": lambda: OpenAIResponsesClient(model="gpt-5", api_key="", server="vllm", reasoning={"effort": "low"}),
    "gemini": lambda: GeminiChatCompletionClient(
        model="gemini-2.5-pro", project="p", token_provider=add, stop=["x"], thinking_config={"thinkingBudget": 0}
    ),
    "ollama": lambda: OllamaChatCompletionClient(model="llama3.2", host="box:1", options={"num_ctx": 4096}, think=True),
    "anthropic": lambda: AnthropicChatCompletionClient(
        model="claude-sonnet-4-5",
        base_url="http://localhost:1",
        thinking={"type": "enabled", "budget_tokens": 1024},
        tools=[{"type": "web_search_20250305", "name": "web_search"}],
    ),
    "bedrock": lambda: AnthropicBedrockChatCompletionClient(
        model="anthropic.claude-sonnet-4-5", base_url="http://localhost:1/anthropic", aws_region="eu-west-1"
    ),
    "vertex": lambda: AnthropicVertexChatCompletionClient(
        model="claude-sonnet-4-5", project="p", base_url="http://localhost:1/v1", token_provider=add
    ),
    "replay": lambda: model(
        "text",
        [FunctionCall("1", "{}", "add")],
        CreateResult(finish_reason="stop", content="x", usage=RequestUsage(1, 2), cached=False),
    ),
}


@pytest.mark.parametrize("name", ALL)
def test_what_is_loaded_has_the_document_it_was_loaded_from(name: str) -> None:
    made = ALL[name]()

    loaded = through_json(made)

    assert type(loaded) is type(made)
    assert loaded.dump_component() == made.dump_component()


def test_every_component_there_is_can_be_written() -> None:
    tested = {type(make()).__name__ for make in ALL.values()}
    abstract = {"BaseChatAgent", "BaseGroupChat", "BaseTool", "BaseToolWithState", "BaseStreamTool", "Workbench"}
    abstract |= {
        "StreamWorkbench",
        "ChatCompletionClient",
        "ChatCompletionContext",
        "CodeExecutor",
        "Component",
        "ComponentBase",
        "Memory",
        "TerminationCondition",
    }
    exported = {name: getattr(tinygen, name) for name in tinygen.__all__}
    components = {name for name, it in exported.items() if isinstance(it, type) and issubclass(it, Component)}

    assert components - abstract - {"TaskRunner", "RedisStore"} <= tested
    assert tested == set(_OURS) - {"suspend", "RedisStore"}  # which no document can hold


async def test_a_loaded_team_says_what_the_original_says() -> None:
    team = RoundRobinGroupChat(
        [
            AssistantAgent("ada", model([FunctionCall("1", '{"a": 1, "b": 2}', "add")], "fine"), tools=[add]),
            AssistantAgent("bob", model("hm", "OK")),
        ],
        termination_condition=TextMentionTermination("OK", sources=["bob"]) | MaxMessageTermination(20),
    )
    loaded = through_json(team)

    first, second = await team.run(task="1 + 2?"), await loaded.run(task="1 + 2?")

    assert second.stop_reason == first.stop_reason == "Text 'OK' mentioned"
    assert [each.to_text() for each in second.messages] == [each.to_text() for each in first.messages]


def test_a_document_looks_as_autogens_does() -> None:
    made = MaxMessageTermination(3).dump_component()

    assert list(made.model_dump()) == [
        *("provider", "component_type", "version", "component_version", "description", "label", "config")
    ]
    assert (made.provider, made.component_type) == ("tinygen.MaxMessageTermination", "termination")
    assert made.config == {"max_messages": 3, "include_agent_event": False}


def test_none_is_left_out_unless_something_else_is_the_default() -> None:
    config = AssistantAgent("ada", model(), system_message=None).dump_component().config

    assert "tools" not in config
    assert config["system_message"] is None


async def test_a_list_memory_is_written_with_what_was_added_to_it() -> None:
    memory = ListMemory("facts", [MemoryContent(content="sky is blue", mime_type="text/plain")])
    await memory.add(MemoryContent(content={"api_key": "grass"}, mime_type="application/json"))

    assert through_json(memory).content == memory.content


def test_a_document_tells_the_class_that_was_asked_for() -> None:
    made = MaxMessageTermination(3).dump_component()

    assert isinstance(MaxMessageTermination.load_component(made), MaxMessageTermination)
    assert isinstance(Component.load_component(made, expected=MaxMessageTermination), MaxMessageTermination)
    with pytest.raises(TypeError, match="expected type does not match"):
        ChatCompletionClient.load_component(made)
    with pytest.raises(ComponentTypeError, match=r"\$\.component_type.*'termination', not 'agent'"):
        Component.load_component(made.model_copy(update={"component_type": "agent"}))


# --- what one's own classes do


class Shouting(tinygen.TerminationCondition):
    """Ends when somebody shouts."""

    component_version = 3

    def __init__(self, marks: int, *, password: str = "") -> None:
        self.marks, self.password = marks, password

    @classmethod
    def _from_config_past_version(cls, config: dict[str, Any], version: int) -> Shouting:
        if version < 2:
            return super()._from_config_past_version(config, version)
        return cls(config["exclamations"])


def test_a_class_of_ones_own_is_known_once_it_is_registered() -> None:
    class Mine(Shouting): ...

    with pytest.raises(EncodeError, match=r"^\$: .*Mine has no name in documents; register it .*\(..., provider="):
        Mine(2).dump_component()
    register_component(Mine, "acme.Mine")

    assert through_json(Mine(2)).marks == 2


def test_an_older_document_is_upgraded_by_its_class() -> None:
    register_component(Shouting)
    older = document("test_blueprints.Shouting", {"exclamations": 5}, component_version=2)
    older["provider"] = Shouting(1).dump_component().provider

    assert Shouting.load_component(older).marks == 5
    with pytest.raises(NotImplementedError, match="does not read documents of version 1"):
        Shouting.load_component(older | {"component_version": 1})
    with pytest.raises(ComponentVersionError, match="version 4 of Shouting is not known here; the newest is 3"):
        Shouting.load_component(older | {"component_version": 4})


def test_autogens_way_to_write_a_config_works_too() -> None:
    @dataclass
    class Config:
        limit: int

    class Custom(Component):
        component_type = "custom"
        component_config_schema = Config
        component_provider_override = "acme.Custom"

        def __init__(self, limit: int) -> None:
            self.limit = limit * 2

        def _to_config(self) -> Config:
            return Config(self.limit // 2)

        @classmethod
        def _from_config(cls, config: Config) -> Custom:
            return cls(config.limit)

    register_component(Custom)

    assert Custom(4).dump_component().config == {"limit": 4}
    assert through_json(Custom(4)).limit == 8
    with pytest.raises(ComponentError, match=r"\$\.config\.limit"):
        Component.load_component(document("acme.Custom", {"limit": "4"}))


def test_a_component_with_a_pydantic_config_as_autogens_are_works_unchanged(monkeypatch: Any) -> None:
    pydantic = pytest.importorskip("pydantic")
    fields = {"model_client": (ComponentModel, ...), "api_key": (str, ...)}
    config_type = pydantic.create_model("Config", **fields)

    class Holder(Component[config_type]):  # type: ignore[valid-type, type-arg]
        component_config_schema = config_type
        component_provider_override = "acme.Holder"

        def __init__(self, model_client: ChatCompletionClient, api_key: str) -> None:
            self.model_client, self.api_key = model_client, api_key

        def _to_config(self) -> Any:
            return config_type(model_client=self.model_client.dump_component(), api_key=self.api_key)

        @classmethod
        def _from_config(cls, config: Any) -> Holder:
            return cls(ChatCompletionClient.load_component(config.model_client), config.api_key)

    register_component(Holder)
    monkeypatch.setenv("HOLDER_KEY", "canary")

    loaded = through_json(Holder(model("hi"), "canary"))

    assert isinstance(loaded.model_client, ReplayChatCompletionClient)
    assert loaded.api_key == "canary"
    assert loaded.dump_component().config["api_key"] == {"env": "HOLDER_KEY"}


def test_a_secret_that_a_class_writes_and_reads_itself_is_named_after_it_and_comes_back(monkeypatch: Any) -> None:
    class Vault(Component):
        def __init__(self, secret: str) -> None:
            self.secret = secret

        def _to_config(self) -> Any:
            return {"keys": {"api_key": self.secret}}

        @classmethod
        def _from_config(cls, config: Any) -> Vault:
            return cls(config["keys"]["api_key"])

    register_component(Vault, "acme.Vault")
    made = Vault("canary").dump_component()
    monkeypatch.setenv("VAULT_API_KEY", "canary")

    assert made.config == {"keys": {"api_key": {"env": "VAULT_API_KEY"}}}
    assert Vault.load_component(made).secret == "canary"


def test_the_identity_of_a_client_holds_no_password_of_an_address() -> None:
    class Proxied(ReplayChatCompletionClient):
        def __init__(self, proxies: list[str]) -> None:
            super().__init__([])

    assert Proxied(["http://me:canary@proxy.test/x"]).identity()["settings"] == {"proxies": ["http://proxy.test/x"]}


def test_a_client_that_is_given_a_class_without_a_schema_is_like_no_other() -> None:
    class Odd(ReplayChatCompletionClient):
        def __init__(self, transport: type) -> None:
            super().__init__([])

    one, other = Odd(threading.Thread), Odd(threading.Thread)

    assert one.identity() == one.identity() != other.identity()


def test_a_method_that_is_registered_can_be_written() -> None:
    class Chooser:
        def choose(self, thread: Any) -> str:
            return "a"

    chooser = Chooser()
    register_component(chooser.choose, "acme.choose")
    team = SelectorGroupChat([UserProxyAgent("a"), UserProxyAgent("b")], model(), selector_func=chooser.choose)

    assert team.dump_component().config["selector_func"] == {REGISTERED: "acme.choose"}


def test_what_has_no_hash_is_not_registered_at_all() -> None:
    @dataclass
    class Policy:
        def __call__(self) -> None: ...

    with pytest.raises(ConfigError, match="takes a class or a function"):
        register_component(Policy(), "acme.policy")
    with pytest.raises(ComponentError, match="is not the name of a component"):
        Component.load_component(document("acme.policy"))


def test_a_name_is_registered_for_one_thing_only() -> None:
    register_component(not_registered.__class__, "acme.function")

    with pytest.raises(ConfigError, match="is registered for <class 'function'>"):
        register_component(Verdict, "acme.function")
    with pytest.raises(ConfigError, match="is the name of a component of tinygen"):
        register_component(Shouting, "tinygen.AssistantAgent")
    with pytest.raises(ConfigError, match="has no name of its own that lasts"):
        register_component(lambda: None)


# --- what is refused when it is written


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (lambda: FunctionalTermination(lambda messages: True), r"\$\.config\.func"),
        (lambda: AssistantAgent("ada", model(), tools=[not_registered]), r"\$\.config\.tools\[0\]"),
        (lambda: UserProxyAgent("ann", input_func=lambda prompt: "x"), r"\$\.config\.input_func"),
        (
            lambda: AssistantAgent("ada", model(), tool_call_summary_formatter=lambda call, result: ""),
            r"\$\.config\.tool_call_summary_formatter",
        ),
        (lambda: ReplayChatCompletionClient(lambda request: "x"), r"\$\.config\.chat_completions"),
        (lambda: ReplayChatCompletionClient(["a", OSError("b")]), r"\$\.config\.chat_completions\[1\]"),
        (
            lambda: RoundRobinGroupChat([UserProxyAgent("a")], runtime=tinygen.SingleThreadedAgentRuntime()),
            r"\$\.config\.runtime",
        ),
        (
            lambda: OpenAIChatCompletionClient(model="m", base_url="http://localhost:1/v1", http_client=AsyncClient()),
            r"\$\.config\.http_client",
        ),
        (lambda: OpenAIChatCompletionClient(model="m", base_url="http://u:pw@localhost/v1"), r"\$\.config\.base_url"),
        (lambda: AssistantAgent("a", model(), metadata={"x": float("inf")}), r"\$\.config\.metadata\.x"),
        (
            lambda: RoundRobinGroupChat([AssistantAgent("a", model(), metadata={"$registered": "x"})]),
            r"\$\.config\.participants\[0\]\.config\.metadata",
        ),
    ],
)
def test_what_cannot_be_written_is_refused_by_the_path_of_its_argument(make: Any, path: str) -> None:
    with pytest.raises(EncodeError, match=f"^{path}: "):
        make().dump_component()


def test_one_context_of_two_agents_is_not_written_as_two() -> None:
    both = UnboundedChatCompletionContext()
    team = RoundRobinGroupChat([AssistantAgent(name, model(), model_context=both) for name in ("ada", "bob")])

    with pytest.raises(EncodeError, match=r"participants\[1\].*stands at \$\.config\.participants\[0\]"):
        team.dump_component()


def test_one_model_and_one_tool_may_serve_several_agents() -> None:
    shared_model, tool = model(), FunctionTool(add)
    agents = [AssistantAgent(name, shared_model, tools=[tool]) for name in ("ada", "bob")]

    assert through_json(RoundRobinGroupChat(agents)).dump_component() == RoundRobinGroupChat(agents).dump_component()


# --- secrets


@pytest.mark.parametrize(
    ("make", "variable"),
    [
        (lambda key: OpenAIChatCompletionClient(model="gpt-4o", api_key=key), "OPENAI_API_KEY"),
        (
            lambda key: OpenAIChatCompletionClient(model="m", api_key=key, base_url="https://api.groq.com/openai/v1"),
            "GROQ_API_KEY",
        ),
        (
            lambda key: AzureOpenAIChatCompletionClient(model="m", azure_endpoint="https://a.test", azure_ad_token=key),
            "AZURE_OPENAI_AD_TOKEN",
        ),
        (lambda key: AnthropicChatCompletionClient(model="claude-3", api_key=key), "ANTHROPIC_API_KEY"),
        (
            lambda key: OpenAIChatCompletionClient(
                model="m", base_url="http://localhost/v1", default_headers={"X-Api-Key": key}
            ),
            "OPENAICHATCOMPLETIONCLIENT_X_API_KEY",
        ),
        (lambda key: register_component(Shouting)(1, password=key), "SHOUTING_PASSWORD"),
    ],
)
def test_a_secret_is_written_as_the_name_of_a_variable(make: Any, variable: str, monkeypatch: Any) -> None:
    made = make("sk-canary-1234")

    text = made.dump_component().model_dump_json()

    assert "canary" not in text
    assert json.loads(text)["config"].keys() & {"api_key", "azure_ad_token", "default_headers", "password"}
    with pytest.raises(ComponentError, match=f"the environment variable '{variable}' is not set"):
        Component.load_component(json.loads(text))
    monkeypatch.setenv(variable, "sk-canary-1234")
    assert "canary" not in through_json(made).dump_component().model_dump_json()


def test_a_secret_that_stands_in_the_environment_is_written_as_where_it_stands(monkeypatch: Any) -> None:
    monkeypatch.setenv("TEAM_KEY", "sk-canary-1234")

    config = OpenAIChatCompletionClient(model="gpt-4o", api_key="sk-canary-1234").dump_component().config

    assert config["api_key"] == {"env": "TEAM_KEY"}


@pytest.mark.parametrize("given", [{"api_keys": ["canary"]}, {"headers": {"cookies": {"session": "canary"}}}])
def test_several_secrets_under_one_name_are_refused(given: dict[str, Any]) -> None:
    class Keyed(Component):
        def __init__(self, **more: Any) -> None: ...

    register_component(Keyed, "acme.Keyed")

    with pytest.raises(EncodeError, match="several secrets") as refused:
        Keyed(**given).dump_component()
    assert "canary" not in str(refused.value)


def test_a_document_cannot_ask_for_other_secrets_of_the_program(monkeypatch: Any) -> None:
    monkeypatch.setenv("CLOUD_SECRET", "canary")
    config = {"model": "m", "base_url": "https://evil.example/v1", "api_key": {"env": "CLOUD_SECRET"}}

    with pytest.raises(ComponentError, match="none that allow_secrets") as refused:
        Component.load_component(document("tinygen.OpenAIChatCompletionClient", config))

    assert "canary" not in str(refused.value)


def test_a_secret_the_program_allowed_is_read(monkeypatch: Any) -> None:
    monkeypatch.setenv("TEAM_KEY", "sk-canary-1234")
    allow_secrets("TEAM_KEY")

    loaded = through_json(OpenAIChatCompletionClient(model="gpt-4o", api_key="sk-canary-1234"))

    assert loaded.dump_component().config["api_key"] == {"env": "TEAM_KEY"}


def test_keys_and_tokens_in_the_environment_of_an_executor_are_written_as_variables(monkeypatch: Any) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "canary-1")
    monkeypatch.setenv("OPENAI_KEY", "canary-2")
    allow_secrets("GITHUB_TOKEN", "OPENAI_KEY")
    env = {"GITHUB_TOKEN": "canary-1", "OPENAI_KEY": "canary-2", "MODE": "fast", "max_token": "7"}

    made = LocalCommandLineCodeExecutor(env=env).dump_component()

    assert "canary" not in made.model_dump_json() and made.config["env"]["MODE"] == "fast"
    assert LocalCommandLineCodeExecutor.load_component(made).dump_component() == made


def test_the_environment_is_read_for_secrets_only(monkeypatch: Any) -> None:
    monkeypatch.setenv("PRIVATE", "canary")

    with pytest.raises(ComponentError, match=r"\$\.config\.name: expected str"):
        AssistantAgent.load_component(
            document("tinygen.AssistantAgent", {"name": {"env": "PRIVATE"}, "model_client": None})
        )


# --- what is refused when it is read


@pytest.mark.parametrize(
    "provider",
    [
        *("os.system", "builtins.eval", "importlib.import_module", "tinygen", "tinygen.", "tinygen.agents.os.system"),
        *("tinygen.agents.__class__", "tinygen.AssistantAgent\n", "TINYGEN.AssistantAgent", "", "x" * 10_000),
        *(
            "tinygen/AssistantAgent",
            "tinygen.assistant:AssistantAgent; import os",
            "tinygen.SingleThreadedAgentRuntime",
        ),
        *("autogen_agentchat.agents._assistant_agent.os", "test_blueprints.Verdict2", "http://x/y.py", None, 7, ["x"]),
    ],
)
def test_a_name_that_is_not_registered_is_not_imported(provider: Any) -> None:
    before = set(sys.modules)

    with pytest.raises(ComponentError, match=r"\$\.provider"):
        Component.load_component(document(provider))

    assert {each for each in set(sys.modules) - before if not each.startswith("tinygen")} <= {"difflib"}


@needs_shared("badinput/guards.jsonl")
def test_no_recorded_attack_by_provider_gets_through() -> None:
    path = shared("badinput/guards.jsonl")
    assert path is not None
    cases = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    config = {"name": "ada", "model_client": model().dump_component().model_dump()}
    before = set(sys.modules)

    for case in (each for each in cases if each["kind"] == "provider"):
        asked = document(case["input"]["data"], config)
        if case["expect"] == "ok":
            assert AssistantAgent.load_component(asked).name == "ada"
        else:
            with pytest.raises(ConfigError):
                Component.load_component(asked)

    assert {each for each in set(sys.modules) - before if not each.startswith("tinygen")} <= {"difflib"}


def nested(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"max_messages": 3, "max_mesages": 4}, r"\$\.config: unknown key 'max_mesages'; did you mean 'max_messages'"),
        ({}, r"\$\.config: the key 'max_messages' is missing"),
        ({"max_messages": "3"}, r"\$\.config\.max_messages: expected int, not '3'"),
        ({"max_messages": True}, r"\$\.config\.max_messages: expected int, not True"),
        ({"max_messages": 0}, r"\$\.config: .*max_messages must be a whole number above 0"),
        ({"max_messages": {"$registered": "os.system"}}, r"\$\.config\.max_messages: 'os.system' is not the name"),
        ({"max_messages": nested(100_000)}, "deeper than 128 levels"),
        ({"max_messages": "x" * 20_000_000}, "larger than 16,000,000 characters"),
        ({"max_messages": b"3"}, "a bytes is not JSON data"),
        ({3: 4}, "the key 3 is not a text"),
        ([], r"\$\.config: expected"),
    ],
)
def test_a_config_that_does_not_fit_is_refused_with_its_path(config: Any, problem: str) -> None:
    with pytest.raises(ComponentError, match=problem):
        Component.load_component(document("tinygen.MaxMessageTermination", config))


def test_a_document_has_no_other_keys_and_is_an_object() -> None:
    with pytest.raises(ComponentError, match="extra"):
        Component.load_component(document("tinygen.StopMessageTermination", extra=1))
    with pytest.raises(ComponentError, match="expected the document of a component"):
        Component.load_component("tinygen.StopMessageTermination")  # type: ignore[call-overload]
    with pytest.raises(ComponentError, match="not the name of a component"):
        Component.load_component(document("tinygen.suspend"))


def test_a_class_without_constructor_has_no_arguments_in_documents() -> None:
    with pytest.raises(ComponentError, match=r"\$\.config: unknown key 'marks'; known: none"):
        Component.load_component(document("tinygen.StopMessageTermination", {"marks": 1}))


def test_documents_nested_as_deep_as_can_be_written_are_read() -> None:
    condition: tinygen.TerminationCondition = StopMessageTermination()
    for _ in range(20):
        condition = condition | StopMessageTermination()

    assert through_json(condition).dump_component() == condition.dump_component()
    for _ in range(60):
        condition = condition | StopMessageTermination()
    with pytest.raises(EncodeError, match="nested deeper than"):
        condition.dump_component()


def test_what_is_wrong_inside_is_told_by_its_whole_path() -> None:
    team = RoundRobinGroupChat([AssistantAgent("ada", model()), AssistantAgent("bob", model())])
    data = json.loads(team.dump_component().model_dump_json())
    data["config"]["participants"][1]["config"]["model_client"]["provider"] = "os.system"

    with pytest.raises(ComponentError) as caught:
        Component.load_component(data)

    assert caught.value.path == "$.config.participants[1].config.model_client.provider"


# --- documents of AutoGen 0.7.5


def from_autogen(provider: str, kind: str, config: dict[str, Any], version: int = 1) -> dict[str, Any]:
    more = {"component_type": kind, "version": version, "component_version": version, "description": "", "label": "x"}
    return document(provider, config, **more)


AGENT = from_autogen(
    "autogen_agentchat.agents.AssistantAgent",
    "agent",
    {
        "name": "ada",
        "model_client": from_autogen(
            "autogen_ext.models.openai.OpenAIChatCompletionClient",
            "model",
            {"model": "gpt-4o", "api_key": "**********", "base_url": "http://localhost:1/v1", "max_retries": 4},
        ),
        "workbench": [
            from_autogen(
                "autogen_core.tools.StaticStreamWorkbench",
                "workbench",
                {
                    "tools": [
                        from_autogen(
                            "autogen_core.tools.FunctionTool",
                            "tool",
                            {
                                "source_code": "def add(a, b):\n    raise SystemExit\n",
                                "name": "add",
                                "description": "Adds.",
                                "global_imports": [],
                                "has_cancellation_support": False,
                            },
                        )
                    ],
                    "tool_overrides": {},
                },
            )
        ],
        "handoffs": [{"target": "bob", "description": "", "name": "to_bob", "message": "yours"}],
        "model_context": from_autogen(
            "autogen_core.model_context.UnboundedChatCompletionContext", "chat_completion_context", {}
        ),
        "memory": [
            from_autogen(
                "autogen_core.memory.ListMemory",
                "memory",
                {"name": "m", "memory_contents": [{"content": "x", "mime_type": "text/plain", "metadata": None}]},
            )
        ],
        "description": "helps",
        "model_client_stream": False,
        "reflect_on_tool_use": False,
        "max_tool_iterations": 1,
        "tool_call_summary_format": "{result}",
        "metadata": {},
    },
    version=2,
)
TEAM = from_autogen(
    "autogen_agentchat.teams.RoundRobinGroupChat",
    "team",
    {
        "name": "RoundRobinGroupChat",
        "description": "A team of agents.",
        "participants": [AGENT],
        "termination_condition": from_autogen(
            "autogen_agentchat.base.OrTerminationCondition",
            "termination",
            {
                "conditions": [
                    from_autogen(
                        "autogen_agentchat.conditions.TextMentionTermination", "termination", {"text": "TERMINATE"}
                    ),
                    from_autogen(
                        "autogen_agentchat.conditions.MaxMessageTermination",
                        "termination",
                        {"max_messages": 5, "include_agent_event": False},
                    ),
                ]
            },
        ),
        "max_turns": None,
        "emit_team_events": False,
    },
)


def test_a_team_of_autogens_loads_and_is_written_as_ours() -> None:
    team = RoundRobinGroupChat.load_component(TEAM)
    text = team.dump_component().model_dump_json()

    assert "autogen" not in text
    assert RoundRobinGroupChat.load_component(json.loads(text)).dump_component() == team.dump_component()
    assert '"system_message":null' in text.replace(" ", "")  # which AutoGen leaves out when there is none


def test_a_cache_of_autogens_loads_and_keeps_its_answers_in_the_same_folder(tmp_path: Path) -> None:
    folder = str(tmp_path / "cache")
    store = from_autogen("autogen_ext.cache_store.diskcache.DiskCacheStore", "cache_store", {"directory": folder})
    client = from_autogen("autogen_ext.models.replay.ReplayChatCompletionClient", "model", {"chat_completions": ["x"]})
    config = {"client": client, "store": store}

    for kind in ("chat_completion_cache", "model"):
        cache = ChatCompletionClient.load_component(
            from_autogen("autogen_ext.models.cache.ChatCompletionCache", kind, config)
        )
        asyncio.run(cache.create([]))

    assert isinstance(cache, ChatCompletionCache)
    assert (tmp_path / "cache" / "answers.sqlite3").exists()
    assert cache.actual_usage() == RequestUsage(0, 0)  # the first one has asked


def test_a_masked_key_of_autogens_is_not_taken_for_a_key(monkeypatch: Any) -> None:
    asked = AGENT["config"]["model_client"] | {"config": {"model": "gpt-4o", "api_key": "**********"}}

    with pytest.raises(ComponentError, match="OPENAI_API_KEY is not set"):
        ChatCompletionClient.load_component(asked)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1234567890")
    assert "api_key" not in ChatCompletionClient.load_component(asked).dump_component().config


def test_the_source_of_a_tool_in_a_document_is_never_executed() -> None:
    config = {"source_code": "def gone(): ...", "name": "gone", "description": "", "global_imports": []}

    with pytest.raises(ComponentError, match=r"\$\.config\.source_code: source is never executed"):
        Component.load_component(from_autogen("autogen_core.tools.FunctionTool", "tool", config))


def test_well_known_short_names_of_autogens_load(monkeypatch: Any) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1234567890")

    for provider in ("OpenAIChatCompletionClient", "openai_chat_completion_client"):
        client = ChatCompletionClient.load_component(document(provider, {"model": "gpt-4o", "model_info": None}))
        assert isinstance(client, OpenAIChatCompletionClient)


def test_the_short_name_of_autogens_ollama_client_loads() -> None:
    client = ChatCompletionClient.load_component(document("OllamaChatCompletionClient", {"model": "llama3.2"}))

    assert isinstance(client, tinygen.OllamaChatCompletionClient)


def test_an_agent_of_autogens_without_tools_needs_no_model_that_calls_functions() -> None:
    bench = from_autogen("autogen_core.tools.StaticStreamWorkbench", "workbench", {"tools": [], "tool_overrides": {}})
    info = {"vision": False, "function_calling": False, "json_output": False, "family": "x", "structured_output": False}
    client = document("autogen_ext.models.replay.ReplayChatCompletionClient", {"chat_completions": ["x"]})
    client["config"]["model_info"] = info

    agent = AssistantAgent.load_component(
        from_autogen(
            "autogen_agentchat.agents.AssistantAgent",
            "agent",
            {"name": "ada", "model_client": client, "workbench": [bench]},
            version=1,
        )
    )

    assert agent.name == "ada"


def test_the_fields_of_a_document_can_be_read_back_as_a_record() -> None:
    made = MaxMessageTermination(3).dump_component()

    assert ComponentModel.model_validate_json(made.model_dump_json()) == made


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of everything in a document."""
    inside = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path, *(each for key, value in inside for each in places(value, (*path, key)))]


OURS = ALL["assistant with everything"]().dump_component().model_dump()
DAMAGED = [(data, path) for data in (TEAM, OURS) for path in places(data) if path]
JSON = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | strategies.text() | strategies.just("add"),
    lambda inner: strategies.lists(inner, max_size=3) | strategies.dictionaries(strategies.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, max_examples=300)
@given(strategies.sampled_from(DAMAGED), JSON | strategies.just({REGISTERED: "test_blueprints.add"}))
def test_a_damaged_document_loads_or_says_where_it_is_damaged(place: Any, damage: Any) -> None:
    data, path = copy.deepcopy(place[0]), place[1]
    inside = data
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = damage

    try:
        assert isinstance(Component.load_component(data), Component)
    except ComponentError as error:
        assert error.path.startswith("$")
