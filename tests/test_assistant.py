"""The assistant beyond the golden traces: its constructor, its tools, its structured answers, its memory, its state."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from tinygen import (
    AssistantAgent,
    AssistantMessage,
    BufferedChatCompletionContext,
    CancellationToken,
    ConfigError,
    CreateResult,
    FunctionCall,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    FunctionTool,
    Handoff,
    HandoffMessage,
    Image,
    ListMemory,
    MemoryContent,
    ModelClientStreamingChunkEvent,
    MultiModalMessage,
    ProtocolError,
    ReplayChatCompletionClient,
    RequestUsage,
    StateError,
    StaticWorkbench,
    StreamWorkbench,
    StructuredMessage,
    SystemMessage,
    TextMessage,
    TextResultContent,
    ThoughtEvent,
    ToolCallSummaryMessage,
    ToolResult,
    UserMessage,
    assistant,
)
from tinygen.models import permissive


@dataclass
class Out:
    x: int


def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


def call(name: str = "add", arguments: str = '{"a": 1, "b": 2}', id: str = "0") -> FunctionCall:
    return FunctionCall(id=id, name=name, arguments=arguments)


def model(*script: Any) -> ReplayChatCompletionClient:
    return ReplayChatCompletionClient(list(script))


def blind(*script: Any, **abilities: bool) -> ReplayChatCompletionClient:
    return ReplayChatCompletionClient(list(script), model_info={**permissive("x"), **abilities})  # type: ignore[typeddict-item]


@pytest.mark.parametrize("name", ["", "two words", "has-hyphen", "1st", None])
def test_a_name_that_is_no_identifier_is_refused(name: Any) -> None:
    with pytest.raises(ConfigError, match="must be a Python identifier"):
        AssistantAgent(name, model())


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"tools": [add], "workbench": StaticWorkbench([])}, "Tools cannot be used with a workbench"),
        ({"tools": [add, add]}, "two tools are named 'add'"),
        ({"tools": [5]}, r"tools\[0\]"),
        ({"handoffs": ["bob", "bob"]}, "two handoffs named 'transfer_to_bob'"),
        ({"handoffs": [5]}, "handoffs of 'a' must be names"),
        ({"tools": [add], "handoffs": [Handoff(target="x", name="add")]}, "a tool and a handoff named 'add'"),
        ({"tools": [add], "handoffs": ["add"]}, "a tool and a handoff named 'add'"),
        ({"max_tool_iterations": 0}, "max_tool_iterations must be a whole number above 0"),
        ({"memory": 5}, "memory must be a list"),
        ({"handoffs": "bob"}, "handoffs of 'a' must be a list, not 'bob'"),
        ({"workbench": 5}, "workbench of 'a' must be a Workbench or several, not 5"),
    ],
)
def test_wrong_constructor_arguments_are_refused(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        AssistantAgent("a", model(), **arguments)


def test_tools_for_a_model_without_functions_are_refused() -> None:
    with pytest.raises(ConfigError, match="does not call functions"):
        AssistantAgent("a", blind(function_calling=False), tools=[])


def test_a_handoff_name_must_be_an_identifier() -> None:
    with pytest.raises(ConfigError, match="handoff's name"):
        Handoff(target="bob", name="not so")


async def test_parallel_calls_run_side_by_side_and_answer_in_request_order() -> None:
    order: list[int] = []
    gate = asyncio.Event()

    async def slow(n: int) -> int:
        """First in, last out."""
        if n == 0:
            await gate.wait()
        gate.set()
        order.append(n)
        return n

    calls = [call("slow", f'{{"n": {n}}}', str(n)) for n in range(3)]
    result = await AssistantAgent("a", model(calls), tools=[slow]).run(task="q")
    assert order == [1, 2, 0]
    assert result.messages[-1].to_text() == "0\n1\n2"


async def test_a_tool_that_raises_is_told_to_the_model() -> None:
    def bad() -> str:
        """Fails."""
        raise ValueError("no luck")

    client = model([call("bad", "{}")], "I see.")
    await AssistantAgent("a", client, tools=[bad], reflect_on_tool_use=True).run(task="q")
    told = client.create_calls[1].messages[-1]
    assert told == FunctionExecutionResultMessage(
        content=[FunctionExecutionResult(content="no luck", name="bad", call_id="0", is_error=True)]
    )


@pytest.mark.parametrize("error", [asyncio.CancelledError(), SystemExit(3)])
async def test_a_tool_that_tries_to_end_the_program_is_told_to_the_model(error: BaseException) -> None:
    async def bad() -> str:
        """Fails."""
        raise error

    result = await AssistantAgent("a", model([call("bad", "{}")]), tools=[bad]).run(task="q")
    assert isinstance(result.messages[-1], ToolCallSummaryMessage)
    assert result.messages[-1].results[0].is_error


async def test_a_summary_covers_every_iteration() -> None:
    client = model([call()], [call(arguments='{"a": 3, "b": 4}', id="1")])
    agent = AssistantAgent(
        "a", client, tools=[add], max_tool_iterations=2, tool_call_summary_format="{tool_name}{arguments}={result}"
    )
    answer = (await agent.run(task="q")).messages[-1]
    assert answer.to_text() == 'add{"a": 1, "b": 2}=3\nadd{"a": 3, "b": 4}=7'


async def test_an_answer_that_is_what_a_tool_returned_says_so_and_the_log_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assistant._hinted = False
    unasked = [AssistantAgent(name, model([call()]), tools=[add]) for name in ("ann", "bob")]
    chosen = AssistantAgent("cat", model([call()]), tools=[add], reflect_on_tool_use=False)

    answers = [(await agent.run(task="t")).messages[-1] for agent in (chosen, *unasked)]

    assert [answer.metadata for answer in answers] == [{"max_tool_iterations": "reached"}] * 3
    assert [record.args for record in caplog.records] == [("ann",)]
    assert "reflect_on_tool_use=True lets the model answer" in caplog.text


async def test_a_summary_can_be_made_by_a_function() -> None:
    agent = AssistantAgent(
        "a", model([call()]), tools=[add], tool_call_summary_formatter=lambda c, r: f"{c.name}:{r.content}"
    )
    assert (await agent.run(task="q")).messages[-1].to_text() == "add:3"


async def test_a_reflection_that_wants_tools_again_ends_in_the_summary() -> None:
    agent = AssistantAgent("a", model([call()], [call()]), tools=[add], reflect_on_tool_use=True)
    assert (await agent.run(task="q")).messages[-1].to_text() == "3"


async def test_an_answer_of_the_wrong_shape_is_asked_for_again_with_the_problem() -> None:
    client = model("no json", '{"x": "1"}', '{"x": 1}')
    result = await AssistantAgent("a", client, output_content_type=Out).run(task="q")
    assert isinstance(result.messages[-1], StructuredMessage)
    assert result.messages[-1].content == Out(1)
    assert "$.x" in str(client.create_calls[2].messages[-1].content)
    assert len(await AssistantAgent("b", model("x")).model_context.get_messages()) == 0


async def test_a_model_that_never_gives_the_promised_shape_is_an_error_that_keeps_its_text() -> None:
    agent = AssistantAgent("a", model(*["nonsense"] * 3), output_content_type=Out)
    with pytest.raises(ProtocolError, match="valid Out in 3 attempts") as caught:
        await agent.run(task="q")
    assert caught.value.partial == "nonsense"


async def test_the_format_of_a_structured_answer_is_kept_after_tools() -> None:
    agent = AssistantAgent(
        "a", model([call()], '{"x": 3}'), tools=[add], output_content_type=Out, output_content_type_format="x is {x}"
    )
    assert (await agent.run(task="q")).messages[-1].to_text() == "x is 3"


@pytest.mark.parametrize("kind", ["typeddict", "pydantic"])
async def test_a_structured_answer_may_be_a_typed_dict_or_a_pydantic_model(kind: str) -> None:
    from typing import TypedDict

    import pydantic

    class D(TypedDict):
        x: int

    class P(pydantic.BaseModel):
        x: int

    wanted, expected = (D, {"x": 1}) if kind == "typeddict" else (P, P(x=1))
    result = await AssistantAgent("a", model('{"x": 1}'), output_content_type=wanted).run(task="q")
    assert result.messages[-1].content == expected  # type: ignore[union-attr]


async def test_memory_is_in_the_request_and_not_in_the_history() -> None:
    memory = ListMemory(memory_contents=[MemoryContent(content="likes tea", mime_type="text/plain")])
    client = model("one", "two")
    agent = AssistantAgent("a", client, memory=[memory], system_message="Be kind.")
    await agent.run(task="q")
    await agent.run(task="r")
    for asked in client.create_calls:
        assert [type(message) for message in asked.messages].count(SystemMessage) == 1
        assert str(asked.messages[0].content).count("likes tea") == 1
    assert all(not isinstance(message, SystemMessage) for message in await agent.model_context.get_messages())


async def test_without_a_system_message_none_is_sent() -> None:
    client = model("hi")
    await AssistantAgent("a", client, system_message=None).run(task="q")
    assert client.create_calls[0].messages == [UserMessage(content="q", source="user")]


async def test_a_model_without_eyes_gets_no_pictures() -> None:
    picture = Image(b"\x89PNG\r\n\x1a\n")
    client = blind("hi", vision=False)
    await AssistantAgent("a", client).run(task=MultiModalMessage(content=["look", picture], source="u"))
    assert client.create_calls[0].messages[-1].content == "look\n<image>"


async def test_a_handoffs_context_comes_before_its_message() -> None:
    client = model("hi")
    context = [AssistantMessage(content="earlier", source="bob")]
    await AssistantAgent("a", client).run(
        task=HandoffMessage(content="over", target="a", source="bob", context=context)
    )
    assert [message.content for message in client.create_calls[0].messages[1:]] == ["earlier", "over"]


async def test_the_first_of_two_handoffs_is_taken() -> None:
    calls = [call("transfer_to_bob", "{}", "0"), call("transfer_to_eve", "{}", "1")]
    result = await AssistantAgent("a", model(calls), handoffs=["bob", "eve"]).run(task="q")
    assert isinstance(result.messages[-1], HandoffMessage)
    assert result.messages[-1].target == "bob"


async def test_what_a_provider_wants_back_goes_along_with_calls_made_beside_a_handoff() -> None:
    calls = [call("add", '{"a": 1, "b": 2}', "0"), call("transfer_to_bob", "{}", "1")]
    answer = CreateResult(
        finish_reason="function_calls", content=calls, usage=RequestUsage(1, 1), cached=False, provider_data={"p": 1}
    )
    agent = AssistantAgent("a", ReplayChatCompletionClient([answer]), tools=[add], handoffs=["bob"])

    message = (await agent.run(task="q")).messages[-1]

    assert isinstance(message, HandoffMessage) and message.context[0].provider_data == {"p": 1}


async def test_an_empty_answer_is_an_answer() -> None:
    assert (await AssistantAgent("a", model("")).run(task="q")).messages[-1].to_text() == ""


async def test_thoughts_do_not_replace_the_answer() -> None:
    thinking = CreateResult(finish_reason="stop", content="42", usage=RequestUsage(1, 1), cached=False, thought="hmm")
    result = await AssistantAgent("a", model(thinking)).run(task="q")
    assert [message.type for message in result.messages] == ["TextMessage", "ThoughtEvent", "TextMessage"]


async def test_a_buffered_context_never_shows_the_model_an_orphan() -> None:
    client = model(*[[call(id=str(n))] for n in range(5)])
    agent = AssistantAgent(
        "a", client, tools=[add], max_tool_iterations=5, model_context=BufferedChatCompletionContext(2)
    )
    await agent.run(task="q")
    for asked in client.create_calls:
        assert not isinstance(asked.messages[1], FunctionExecutionResultMessage)


async def test_the_state_of_an_assistant_has_autogens_shape_and_loads() -> None:
    agent = AssistantAgent("a", model([call()], "3"), tools=[add], reflect_on_tool_use=True)
    await agent.run(task="q")
    state = await agent.save_state()
    assert (state["type"], state["version"], list(state)) == (
        "AssistantAgentState",
        "1.0.0",
        ["type", "version", "llm_context"],
    )
    other = AssistantAgent("a", model("again"), tools=[add])
    await other.load_state(state)
    assert await other.model_context.get_messages() == await agent.model_context.get_messages()


@pytest.mark.parametrize(
    "state", [{}, [], None, {"type": "Other"}, {"llm_context": 5}, {"version": "9", "llm_context": {}}]
)
async def test_a_state_of_another_kind_is_refused_and_changes_nothing(state: Any) -> None:
    agent = AssistantAgent("a", model("hi"))
    await agent.run(task="q")
    before = await agent.save_state()
    with pytest.raises(StateError):
        await agent.load_state(state)
    assert await agent.save_state() == before


async def test_a_cancelled_token_stops_a_turn_outside_a_run_too() -> None:
    token = CancellationToken()

    async def wait() -> str:
        """Waits for ever."""
        token.cancel()
        await asyncio.Event().wait()
        return ""

    agent = AssistantAgent("a", model([call("wait", "{}")], "fine"), tools=[wait])
    with pytest.raises(asyncio.CancelledError):
        await agent.on_messages([TextMessage(content="q", source="u")], token)
    history = await agent.model_context.get_messages()
    assert isinstance(history[-1], FunctionExecutionResultMessage)
    assert history[-1].content[0].is_error
    assert (await agent.on_messages([TextMessage(content="r", source="u")], CancellationToken())).chat_message


async def test_a_session_has_its_own_history_and_shares_the_model() -> None:
    client = model("one", "two")
    agent = AssistantAgent("a", client)
    twin = agent.session()
    await agent.run(task="q")
    await twin.run(task="r")
    assert [message.content for message in client.create_calls[1].messages[1:]] == ["r"]


async def test_a_tool_that_prints_megabytes_is_cut() -> None:
    def flood() -> str:
        """Too much."""
        return "x" * 5_000_000

    result = await AssistantAgent("a", model([call("flood", "{}")]), tools=[flood]).run(task="q")
    assert len(result.messages[-1].to_text()) < 1_100_000


async def test_a_tool_that_returns_the_unserialisable_is_told_to_the_model() -> None:
    def odd() -> object:
        """Odd."""
        return object()

    result = await AssistantAgent("a", model([call("odd", "{}")]), tools=[odd]).run(task="q")
    assert isinstance(result.messages[-1], ToolCallSummaryMessage)
    assert result.messages[-1].results[0].is_error


class Odd(ReplayChatCompletionClient):
    """Gives what no client should."""

    async def create(self, messages: Any, **_: Any) -> Any:
        return None

    async def create_stream(self, messages: Any, **_: Any) -> Any:
        yield "piece"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_without_a_result_is_a_protocol_error(stream: bool) -> None:
    with pytest.raises(ProtocolError, match="instead of a CreateResult"):
        await AssistantAgent("a", Odd([]), model_client_stream=stream).run(task="q")


@pytest.mark.parametrize(
    "arguments",
    [
        {"model_client": None},
        {"tools": add},
        {"workbench": "bob"},
        {"memory": ["bob"]},
        {"model_context": "bob"},
        {"max_tool_iterations": "2"},
        {"tool_call_summary_format": "{nope}"},
        {"handoffs": [Handoff]},
    ],
)
def test_arguments_of_the_wrong_kind_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        AssistantAgent("a", **{"model_client": model(), **arguments})


@pytest.mark.parametrize("key", ["workbenches", "memories"])
@pytest.mark.parametrize("value", [5, None, [{}, {}, {}]])
async def test_parts_of_a_state_of_the_wrong_kind_are_refused(key: str, value: Any) -> None:
    agent = AssistantAgent("a", model("hi"), tools=[add], memory=[ListMemory()])
    with pytest.raises(StateError, match=key):
        await agent.load_state({**await agent.save_state(), key: value})


async def test_a_workbench_that_changes_its_list_is_read_again() -> None:
    class Growing(StaticWorkbench):
        schemas: list[Any] = []

        async def list_tools(self) -> list[Any]:
            self.schemas.append({**(await super().list_tools())[0], "name": f"add{len(self.schemas)}"})
            return self.schemas

    client = model([call("add0")], "x")
    await AssistantAgent("a", client, workbench=Growing([add]), max_tool_iterations=2).run(task="q")
    assert [len(asked.tools) for asked in client.create_calls] == [1, 2]


async def test_a_workbench_that_can_be_iterated_over_is_one_workbench() -> None:
    class Named(StaticWorkbench):
        def __iter__(self) -> Any:
            return iter(["add"])

    result = await AssistantAgent("a", model([call()]), workbench=Named([add])).run(task="q")
    assert result.messages[-1].to_text() == "3"


async def test_any_stream_workbench_streams() -> None:
    class Own(StreamWorkbench):
        async def list_tools(self) -> list[Any]:
            return [{"name": "own", "description": "", "parameters": {"type": "object", "properties": {}}}]

        async def call_tool_stream(self, *arguments: Any, **_: Any) -> Any:
            yield TextMessage(content="on the way", source="own")
            yield ToolResult(name="own", result=[TextResultContent(content="done")])

    result = await AssistantAgent("a", model([call("own", "{}")]), workbench=Own()).run(task="q")
    assert [message.to_text() for message in result.messages if message.type == "TextMessage"] == ["q", "on the way"]
    assert result.messages[-1].to_text() == "done"


async def test_a_handoff_tool_that_fails_hands_nothing_over() -> None:
    def fail() -> str:
        raise ValueError("not now")

    class Broken(Handoff):
        @property
        def handoff_tool(self) -> Any:
            return FunctionTool(fail, name=self.name, description="")

    agent = AssistantAgent("a", model([call("transfer_to_bob", "{}")]), handoffs=[Broken(target="bob")])
    answer = (await agent.run(task="q")).messages[-1]
    assert (answer.type, answer.to_text()) == ("ToolCallSummaryMessage", "not now")


@pytest.mark.parametrize(("arguments", "content"), [('{"why": "tired"}', "over, as tired"), ("{}", "")])
async def test_a_handoff_tool_of_ones_own_gets_the_arguments_of_its_call(arguments: str, content: str) -> None:
    class Reasoned(Handoff):
        @property
        def handoff_tool(self) -> Any:
            def hand_off(why: str) -> str:
                return f"over, as {why}"

            return FunctionTool(hand_off, name=self.name, description="")

    agent = AssistantAgent("a", model([call("transfer_to_bob", arguments)]), handoffs=[Reasoned(target="bob")])
    answer = (await agent.run(task="q")).messages[-1]
    assert isinstance(answer, HandoffMessage) == bool(content)
    assert answer.to_text() == (content or "arguments.why: this key is missing")


async def test_what_a_model_makes_up_for_a_handoff_without_arguments_is_passed_over() -> None:
    agent = AssistantAgent("a", model([call("transfer_to_bob", '{"reason": "tired"')]), handoffs=["bob"])
    answer = (await agent.run(task="q")).messages[-1]
    assert isinstance(answer, HandoffMessage)


async def test_the_instructions_are_the_same_message_in_every_turn() -> None:
    client = model("one", "two")
    agent = AssistantAgent("a", client)
    await agent.run(task="q")
    await agent.run(task="r")
    assert client.create_calls[0].messages[0] is client.create_calls[1].messages[0]


async def test_a_streamed_thought_belongs_to_its_thought_event_and_the_text_to_the_answer() -> None:
    answer = CreateResult(finish_reason="stop", content="four", thought="2 + 2", usage=RequestUsage(1, 1), cached=False)
    agent = AssistantAgent("ag", ReplayChatCompletionClient([answer]), model_client_stream=True)

    said = [item async for item in agent.run_stream(task="q")]

    thinking, text = (item for item in said if isinstance(item, ModelClientStreamingChunkEvent))
    thought = next(item for item in said if isinstance(item, ThoughtEvent))
    assert (thinking.content, thinking.thought, thinking.full_message_id) == ("2 + 2", True, thought.id)
    assert (text.content, text.thought, text.full_message_id) == ("four", False, said[-2].id)


async def test_pieces_of_a_refused_answer_are_not_those_of_the_one_that_is_taken() -> None:
    agent = AssistantAgent("a", model('{"x": "no"}', '{"x": 1}'), output_content_type=Out, model_client_stream=True)

    said = [item async for item in agent.run_stream(task="q")]

    pieces: dict[str | None, str] = {}
    for item in said:
        if isinstance(item, ModelClientStreamingChunkEvent):
            pieces[item.full_message_id] = pieces.get(item.full_message_id, "") + item.content
    assert list(pieces.values()) == ['{"x": "no"}', '{"x": 1}'] and list(pieces)[1] == said[-2].id


async def test_pieces_said_before_a_call_are_not_those_of_the_answer() -> None:
    first = CreateResult(
        finish_reason="function_calls", content=[call()], thought="hm", usage=RequestUsage(1, 1), cached=False
    )
    agent = AssistantAgent("a", model(first, "four"), tools=[add], reflect_on_tool_use=True, model_client_stream=True)

    said = [item async for item in agent.run_stream(task="q")]

    ids = {item.content: item.full_message_id for item in said if isinstance(item, ModelClientStreamingChunkEvent)}
    assert ids.pop("four") == said[-2].id
    assert said[-2].id not in ids.values()


async def test_an_empty_list_of_calls_is_no_answer_of_a_promised_form() -> None:
    nothing = CreateResult(finish_reason="stop", content=[], usage=RequestUsage(1, 1), cached=False)
    answer = (await AssistantAgent("a", model(nothing, '{"x": 1}'), output_content_type=Out).run(task="q")).messages[-1]
    assert isinstance(answer, StructuredMessage) and answer.content == Out(1)


async def test_provider_data_of_an_answer_goes_back_with_the_next_request() -> None:
    answer = CreateResult(
        finish_reason="stop", content="hi", usage=RequestUsage(1, 1), cached=False, provider_data={"p": {"sig": "s"}}
    )
    client = ReplayChatCompletionClient([answer, "bye"])
    agent = AssistantAgent("ag", client)

    await agent.run(task="q")
    await agent.run(task="again")

    assert client.create_calls[1].messages[2].provider_data == {"p": {"sig": "s"}}
