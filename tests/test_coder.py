"""The agent that executes code: whose code, with whose approval, how it is corrected, and what is remembered of it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tinygen import (
    AgentFailed,
    ApprovalRequest,
    ApprovalResponse,
    CancellationToken,
    ChatCompletionClient,
    CodeBlock,
    CodeExecutionEvent,
    CodeExecutor,
    CodeExecutorAgent,
    CodeGenerationEvent,
    CodeResult,
    ConfigError,
    CreateResult,
    Delayed,
    EncodeError,
    FunctionCall,
    HandoffMessage,
    LocalCommandLineCodeExecutor,
    ModelClientStreamingChunkEvent,
    ReplayChatCompletionClient,
    RequestUsage,
    Response,
    RoundRobinGroupChat,
    RunLimits,
    StateError,
    Suspended,
    TaskResult,
    TextMentionTermination,
    TextMessage,
    TokenUsageTermination,
    ToolCallSummaryMessage,
    UserMessage,
)
from tinygen.coder import code_blocks

PYTHON = "```python\nprint(1)\n```"
BROKEN = "```sh\nexit 3\n```"
RETRY = '{"reason": "fix it", "retry": true}'


class Script(CodeExecutor):
    """Gives the results it is told to give, and remembers what it was asked."""

    def __init__(self, *results: CodeResult) -> None:
        self.results = list(results)
        self.asked: list[list[CodeBlock]] = []
        self.stopped = 0

    async def execute_code_blocks(
        self, code_blocks: list[CodeBlock], cancellation_token: CancellationToken
    ) -> CodeResult:
        self.asked.append(code_blocks)
        return self.results.pop(0) if self.results else CodeResult(0, "fine")

    async def stop(self) -> None:
        self.stopped += 1


class Deaf(Script):
    """Never ends, and says when it begins."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = asyncio.Event()
        self.tokens: list[CancellationToken] = []

    async def execute_code_blocks(
        self, code_blocks: list[CodeBlock], cancellation_token: CancellationToken
    ) -> CodeResult:
        self.tokens.append(cancellation_token)
        self.begun.set()
        await cancellation_token.link_future(asyncio.get_running_loop().create_future())
        raise NotImplementedError


def allow(request: ApprovalRequest) -> ApprovalResponse:
    return ApprovalResponse(approved=True, reason="")


def agent(*script: Any, executor: CodeExecutor | None = None, **options: Any) -> CodeExecutorAgent:
    """An agent that is allowed everything; with a script it has a model."""
    if script:
        options["model_client"] = ReplayChatCompletionClient(list(script), options.pop("info", None))
    return CodeExecutorAgent("cx", executor or Script(), **{"approval_func": allow, **options})


def said(result: TaskResult) -> list[tuple[str, str]]:
    return [(message.type, message.to_text()) for message in result.messages[1:]]


FAILED = CodeResult(3, "oh no")


# --- without a model


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (CodeResult(0, "42\n"), "42\n"),
        (
            CodeResult(2, "oh no"),
            "The script ran, then exited with an error (POSIX exit code: 2)\nIts output was:\noh no",
        ),
        (
            CodeResult(0, " \n"),
            "The script ran but produced no output to console. The POSIX exit code was: 0. If you were expecting "
            "output, consider revising the script to ensure content is printed to stdout.",
        ),
    ],
)
async def test_it_answers_with_what_the_code_printed(result: CodeResult, text: str) -> None:
    assert said(await agent(executor=Script(result)).run(task=PYTHON)) == [("TextMessage", text)]


async def test_code_runs_for_real_on_this_machine() -> None:
    coder = agent(executor=LocalCommandLineCodeExecutor())

    result = await coder.run(task=f"Try this:\n{PYTHON}\nand then\n```sh\necho two\n```")

    assert result.messages[-1].to_text() == "1\ntwo\n"


async def test_messages_without_code_are_answered_with_what_is_missing() -> None:
    result = await agent().run(task="hello")

    assert result.messages[-1].to_text() == CodeExecutorAgent.NO_CODE_BLOCKS_FOUND_MESSAGE


async def test_code_of_this_call_alone_is_executed() -> None:
    executor = Script()
    coder = agent(executor=executor)
    await coder.run(task=PYTHON)
    await coder.run(task="```sh\nls\n```")

    assert executor.asked == [[CodeBlock("print(1)\n", "python")], [CodeBlock("ls\n", "sh")]]


async def test_code_of_other_sources_and_in_other_messages_is_left_alone() -> None:
    executor = Script()
    coder = agent(executor=executor, sources=["ada"])
    summary = ToolCallSummaryMessage(content=PYTHON, source="ada", tool_calls=[], results=[])

    await coder.run(task=[TextMessage(content=PYTHON, source="bob"), summary])
    await coder.run(task=TextMessage(content=PYTHON, source="ada"))

    assert len(executor.asked) == 1


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("```python\na\n```", ["a\n"]),
        ("```Python title=x\na\n\nb\n```\n```sh\nno\n```", ["a\n\nb\n"]),
        ("text ```python\na\n```", ["a\n"]),
        ("1. ```python\n   a\n   ```", ["   a\n"]),
        ("  ```python\n  if a:\n    b\n  ```", ["if a:\n  b\n"]),
        ("```python\r\na\r\n```\r\n", ["a\n"]),
        ("```python\na```", ["a\n"]),
        ("````python\n```\na\n```\n````", ["```\na\n```\n"]),
        ("```\n```python\nno\n```", []),
        ("```json\n{}\n```\n```python\na\n```", ["a\n"]),
        ("write ```x``` and ``` here\n```python\na\n```", ["a\n"]),
        ("```python\nnever closed", []),
        ("```python```", []),
        ("```py\nno\n```\n```\nno\n```", []),
    ],
)
def test_code_blocks_are_found_as_markdown_has_them(text: str, blocks: list[str]) -> None:
    assert [block.code for block in code_blocks(text, {"python"})] == blocks


def test_a_long_answer_full_of_open_fences_is_read_in_no_time() -> None:
    assert code_blocks("```python\n" * 200_000, {"python"}) == []
    assert code_blocks("```" + "a" * 2_000_000 + "`", {"python"}) == []


# --- approval


async def test_nobody_to_approve_is_worth_a_warning() -> None:
    with pytest.warns(UserWarning, match="nobody approves the code that agent 'cx' executes") as caught:
        CodeExecutorAgent("cx", Script())

    assert caught[0].filename == __file__


@pytest.mark.parametrize("is_async", [True, False])
async def test_code_that_is_not_approved_is_not_executed(is_async: bool) -> None:
    requests: list[ApprovalRequest] = []

    def refuse(request: ApprovalRequest) -> ApprovalResponse:
        requests.append(request)
        return ApprovalResponse(approved=False, reason="too risky")

    async def refuse_async(request: ApprovalRequest) -> ApprovalResponse:
        return refuse(request)

    executor = Script()
    coder = agent(executor=executor, approval_func=refuse_async if is_async else refuse)
    result = await coder.run(task=f"{PYTHON}\n{BROKEN}")

    assert "Code execution was not approved. Reason: too risky" in result.messages[-1].to_text()
    assert executor.asked == []
    assert requests[0].code == f"{PYTHON}\n\n{BROKEN}"
    assert requests[0].context == [UserMessage(content=f"{PYTHON}\n{BROKEN}", source="user")]


async def test_with_a_model_the_approver_sees_the_whole_conversation() -> None:
    requests: list[ApprovalRequest] = []

    def approve(request: ApprovalRequest) -> ApprovalResponse:
        requests.append(request)
        return allow(request)

    await agent(PYTHON, "done", approval_func=approve).run(task="q")

    assert [message.content for message in requests[0].context] == ["q", PYTHON]


@pytest.mark.parametrize("answer", ["no", "false", 0, None])
async def test_an_approval_that_is_neither_true_nor_false_is_none(answer: Any) -> None:
    # the trap: what a person typed, passed on as it is, is always true
    executor = Script()
    coder = agent(executor=executor, approval_func=lambda _: ApprovalResponse(approved=answer, reason=""))

    with pytest.raises(ConfigError, match="for approved, which must be True or False"):
        await coder.run(task=PYTHON)

    assert executor.asked == []


async def test_code_cannot_end_the_block_in_which_it_is_shown_to_an_approver() -> None:
    shown: list[str] = []

    def approve(request: ApprovalRequest) -> ApprovalResponse:
        shown.append(request.code)
        return allow(request)

    await agent(approval_func=approve).run(task="````python\nx = 1\n```\n````")

    assert shown == ["````python\nx = 1\n```\n````"]


async def test_an_approver_that_answers_nonsense_is_named() -> None:
    with pytest.raises(ConfigError, match=r"agent 'cx' .* got 'yes' from its approval_func"):
        await agent(approval_func=lambda request: "yes").run(task=PYTHON)


async def test_an_approval_can_be_given_later_and_code_runs_once() -> None:
    async def nobody_there(request: ApprovalRequest) -> ApprovalResponse:
        raise Suspended

    executor = Script(FAILED)
    coder = agent(PYTHON, RETRY, PYTHON, "done", executor=executor, approval_func=nobody_there, max_retries_on_error=1)
    first = await coder.run(task="q")
    assert first.pending[0].content.code == PYTHON
    coder.answer(first.pending[0].id, ApprovalResponse(approved=True, reason=""))
    second = await coder.run(task="q")
    coder.answer(second.pending[0].id, ApprovalResponse(approved=True, reason=""))
    third = await coder.run(task="q")

    assert third.messages[-1].to_text() == "done"
    assert len(executor.asked) == 2
    assert len(third.messages) == 7


# --- with a model


async def test_without_code_the_reply_is_the_answer_and_its_tokens_count() -> None:
    # the trap: no usage where there was no code
    result = await agent("just words").run(task="q")

    assert said(result) == [("TextMessage", "just words")]
    assert result.messages[-1].models_usage is not None
    assert result.messages[-1].models_usage.completion_tokens == 2


async def test_every_token_spent_is_told_with_some_message() -> None:
    coder = agent(PYTHON, "no json", RETRY, PYTHON, '{"reason": "x", "retry": false}', "done",
                  executor=Script(FAILED, FAILED, FAILED), max_retries_on_error=2)  # fmt: skip

    result = await coder.run(task="q")

    usages = [message.models_usage for message in result.messages if message.models_usage is not None]
    assert sum(usages, RequestUsage(0, 0)) == RequestUsage(0, 0) + result.usage
    assert len(usages) == 4


async def test_run_has_the_events_that_the_stream_had() -> None:
    # the trap: they were in the stream only, out of the result and out of sight of terminations
    coder = agent(PYTHON, "done")
    response = await coder.on_messages([TextMessage(content="q", source="user")], CancellationToken())

    assert [each.type for each in response.inner_messages or ()] == ["CodeGenerationEvent", "CodeExecutionEvent"]
    assert len((await agent(PYTHON, "done").run(task="q")).messages) == 4


@pytest.mark.parametrize("condition", [TextMentionTermination("SECRET"), TokenUsageTermination(max_total_token=8)])
async def test_terminations_see_what_the_code_printed_and_cost(condition: Any) -> None:
    member = agent(PYTHON, "done", "again", executor=Script(CodeResult(0, "SECRET")), system_message=None)
    team = RoundRobinGroupChat([member], termination_condition=condition, max_turns=2)

    result = await team.run(task="q")

    assert [type(message) for message in result.messages[1:3]] == [CodeGenerationEvent, CodeExecutionEvent]
    assert result.messages[-1].to_text() == "done"


async def test_what_it_is_given_enters_the_context_once() -> None:
    # the trap: once for every retry
    coder = agent(PYTHON, RETRY, PYTHON, RETRY, "done", executor=Script(FAILED, FAILED), max_retries_on_error=2)

    await coder.run(task="q")

    contents = [message.content for message in await coder.model_context.get_messages()]
    assert contents.count("q") == 1
    assert contents == [
        "q",
        PYTHON,
        "The script ran, then exited with an error (POSIX exit code: 3)\nIts output was:\noh no",
        "Attempt number: 1\nProposed correction: fix it",
        PYTHON,
        "The script ran, then exited with an error (POSIX exit code: 3)\nIts output was:\noh no",
        "Attempt number: 2\nProposed correction: fix it",
        "done",
    ]


async def test_what_a_handoff_brings_is_heard_before_it() -> None:
    coder = agent("words")
    known = UserMessage(content="before", source="ada")

    await coder.run(task=HandoffMessage(content="yours", target="cx", source="ada", context=[known]))

    assert [m.content for m in await coder.model_context.get_messages()] == ["before", "yours", "words"]


async def test_a_model_that_gives_up_ends_with_a_reflection() -> None:
    coder = agent(PYTHON, '{"reason": "hopeless", "retry": false}', "sorry", executor=Script(FAILED),
                  max_retries_on_error=5)  # fmt: skip

    result = await coder.run(task="q")

    assert [kind for kind, _ in said(result)] == ["CodeGenerationEvent", "CodeExecutionEvent", "TextMessage"]
    assert result.messages[-1].to_text() == "sorry"


async def test_without_retries_a_failure_is_reflected_on() -> None:
    result = await agent(PYTHON, "sorry", executor=Script(FAILED)).run(task="q")

    assert said(result)[-1] == ("TextMessage", "sorry")


@pytest.mark.parametrize("structured", [True, False])
async def test_a_decision_in_the_wrong_form_is_asked_for_again(structured: bool) -> None:
    info = {**ReplayChatCompletionClient([]).model_info, "structured_output": structured}
    script = [PYTHON, "hm", '{"retry": "maybe"}', f"```json\n{RETRY}\n```", "words"]
    coder = agent(*script, executor=Script(FAILED), max_retries_on_error=1, info=info)

    result = await coder.run(task="q")

    model: Any = coder._model_client
    assert said(result)[2][1] == "Attempt number: 1\nProposed correction: fix it"
    assert "required form: $.reason" in str(model.create_calls[3].messages[-1].content)
    assert (model.create_calls[1].json_output is True) is not structured


async def test_a_model_that_cannot_decide_does_not_try_again() -> None:
    coder = agent(PYTHON, "hm", "hm", "hm", "sorry", executor=Script(FAILED), max_retries_on_error=1)

    result = await coder.run(task="q")

    assert said(result)[-1] == ("TextMessage", "sorry")
    assert len(result.messages) == 4


async def test_tool_calls_of_a_model_without_tools_are_no_code() -> None:
    result = await agent([FunctionCall("1", "{}", "python")]).run(task="q")

    assert said(result) == [("TextMessage", "")]


async def test_answers_and_thoughts_can_be_streamed() -> None:
    thinking = CreateResult(
        finish_reason="stop", content="all done", usage=RequestUsage(1, 2), cached=False, thought="well"
    )
    items = [item async for item in agent(PYTHON, thinking, model_client_stream=True).run_stream(task="q")]

    chunks = [item for item in items if isinstance(item, ModelClientStreamingChunkEvent)]
    result = items[-1]
    assert isinstance(result, TaskResult)
    assert [m.type for m in result.messages[1:]] == [
        "CodeGenerationEvent",
        "CodeExecutionEvent",
        "ThoughtEvent",
        "TextMessage",
    ]
    assert {chunk.full_message_id for chunk in chunks} == {result.messages[at].id for at in (1, 3, 4)}


async def test_thoughts_and_what_a_provider_keeps_go_back_to_the_model() -> None:
    first = CreateResult(
        finish_reason="stop", content=PYTHON, usage=RequestUsage(1, 2), cached=False, thought="hm",
        provider_data={"x": {"signature": "s"}},
    )  # fmt: skip
    coder = agent(first, "done")
    await coder.run(task="q")

    message: Any = (await coder.model_context.get_messages())[1]
    assert (message.thought, message.provider_data) == ("hm", {"x": {"signature": "s"}})


async def test_code_and_its_approval_are_effects_that_a_handle_tells_of() -> None:
    handle = agent().start(task=PYTHON)

    told = [(event.kind, event.name) async for event in handle if event.phase == "end"]

    await handle
    assert ("approval", "cx") in told
    assert ("code", "cx") in told


# --- cut short


@pytest.mark.parametrize("model", [True, False], ids=["model", "no model"])
async def test_the_token_reaches_the_executor_outside_a_run(model: bool) -> None:
    executor, token = Deaf(), CancellationToken()
    coder = agent(*([PYTHON] if model else []), executor=executor)
    running = asyncio.ensure_future(coder.on_messages([TextMessage(content=PYTHON, source="user")], token))
    await executor.begun.wait()

    token.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running
    assert executor.tokens == [token]


@pytest.mark.parametrize("script", [[PYTHON, Delayed(60, RETRY)], [PYTHON, RETRY, Delayed(60, "x")]],
                         ids=["decision", "retry"])  # fmt: skip
async def test_the_token_ends_decisions_and_retries(script: list[Any]) -> None:
    # the trap: neither looked at it
    token, executor = CancellationToken(), Script(FAILED)
    coder = agent(*script, executor=executor, max_retries_on_error=1)
    model: Any = coder._model_client
    running = asyncio.ensure_future(coder.on_messages([TextMessage(content="q", source="user")], token))
    while len(model.create_calls) < len(script):
        await asyncio.sleep(0)

    token.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running


async def test_the_token_ends_the_wait_for_an_approval() -> None:
    token, asked = CancellationToken(), asyncio.Event()

    async def nobody(request: ApprovalRequest) -> ApprovalResponse:
        asked.set()
        await asyncio.Event().wait()
        raise NotImplementedError

    coder = agent(approval_func=nobody)
    running = asyncio.ensure_future(coder.on_messages([TextMessage(content=PYTHON, source="user")], token))
    await asked.wait()

    token.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_limit_of_time_interrupts_code_and_the_history_says_so() -> None:
    coder = agent("```sh\nsleep 60\n```", "later", executor=LocalCommandLineCodeExecutor())

    result = await coder.run(task="q", limits=RunLimits(timeout=0.5))

    assert result.stop_reason == "limit reached: timeout (0.5 s)"
    assert result.abandoned == []
    assert "stopped before it ended" in str((await coder.model_context.get_messages())[-1].content)
    assert (await coder.run(task="r")).messages[-1].to_text() == "later"


async def test_an_executor_that_fails_is_the_cause_that_the_run_names() -> None:
    class Broken(Script):
        async def execute_code_blocks(self, code_blocks: Any, cancellation_token: Any) -> CodeResult:
            raise OSError("no space left")

    team = RoundRobinGroupChat([agent(executor=Broken())], max_turns=1)

    with pytest.raises(AgentFailed, match="'cx' failed in turn 1: OSError: no space left"):
        await team.run(task=PYTHON)


# --- state, sessions, documents


async def test_what_was_said_is_saved_and_goes_on_elsewhere() -> None:
    # the trap: the context was not saved
    coder = agent(PYTHON, "done")
    await coder.run(task="q")
    twin = agent("and on")
    await twin.load_state(json.loads(json.dumps(await coder.save_state())))

    await twin.run(task="r")

    assert [m.content for m in await twin.model_context.get_messages()] == ["q", PYTHON, "fine", "done", "r", "and on"]


async def test_a_state_of_autogen_is_an_empty_one() -> None:
    coder = agent("words")
    await coder.run(task="q")

    await coder.load_state({"type": "BaseState", "version": "1.0.0"})

    assert await coder.model_context.get_messages() == []


@pytest.mark.parametrize(
    "state",
    [
        {"type": "CodeExecutorAgentState", "version": "1.0.0"},
        {"type": "AssistantAgentState", "version": "1.0.0", "llm_context": {"messages": []}},
        {"type": "CodeExecutorAgentState", "version": "1.0.0", "llm_context": {"messages": [{}]}},
        {"type": "CodeExecutorAgentState", "version": "1.0.0", "llm_context": {"messages": []}, "more": 1},
        [],
    ],
    ids=str,
)
async def test_a_state_that_does_not_fit_changes_nothing(state: Any) -> None:
    coder = agent("words")
    await coder.run(task="q")
    before = await coder.save_state()

    with pytest.raises(StateError):
        await coder.load_state(state)

    assert await coder.save_state() == before


async def test_a_reset_forgets_the_conversation() -> None:
    # the trap: it did nothing
    coder = agent("words")
    await coder.run(task="q")

    await coder.reset()

    assert await coder.model_context.get_messages() == []


async def test_sessions_share_neither_conversation_nor_directory() -> None:
    coder = agent(PYTHON, "done", "words", executor=LocalCommandLineCodeExecutor())
    await coder.run(task="q")
    twin: Any = coder.session()

    assert await twin.model_context.get_messages() == []
    assert twin._code_executor.work_dir != coder._code_executor.work_dir  # type: ignore[attr-defined]


async def test_closing_the_agent_stops_its_executor() -> None:
    executor = Script()
    await agent(executor=executor).close()

    assert executor.stopped == 1


def test_a_document_of_autogen_is_read_with_its_warning(tmp_path: Path) -> None:
    executor = {
        "provider": "autogen_ext.code_executors.local.LocalCommandLineCodeExecutor",
        "component_type": "code_executor",
        "version": 1,
        "config": {"timeout": 9, "work_dir": str(tmp_path), "functions_module": "f", "cleanup_temp_files": True},
    }
    document = {
        "provider": "autogen_agentchat.agents.CodeExecutorAgent",
        "component_type": "agent",
        "version": 1,
        "config": {"name": "cx", "code_executor": executor, "sources": ["ada"], "model_client_stream": False},
    }
    with pytest.warns(UserWarning, match="nobody approves"):
        loaded: Any = CodeExecutorAgent.load_component(document)

    assert loaded._code_executor.work_dir == tmp_path
    assert loaded._code_executor.timeout == 9


def test_an_approver_without_a_name_cannot_stand_in_a_document() -> None:
    # the trap: it was silently left out, or everything was refused
    coder = agent(executor=LocalCommandLineCodeExecutor())

    with pytest.raises(EncodeError, match=r"approval_func.*register_component"):
        coder.dump_component()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"code_executor": "local"}, "code_executor must be a CodeExecutor"),
        ({"model_client": "gpt-4o"}, "model_client must be a ChatCompletionClient"),
        ({"max_retries_on_error": -1}, "max_retries_on_error must be a whole number from 0"),
        ({"sources": "ada"}, "sources must be a list of texts"),
        ({"supported_languages": "python"}, "supported_languages must be a list of texts"),
        ({"approval_func": "yes"}, "approval_func must be a function"),
        ({"name": "no name"}, "must be a Python identifier"),
    ],
)
def test_wrong_arguments_are_refused_at_once(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        CodeExecutorAgent(**{"name": "cx", "code_executor": Script(), "approval_func": allow, **options})


async def test_a_custom_client_needs_no_more_than_create() -> None:
    class Plain(ChatCompletionClient):
        async def create(self, messages: Any, **arguments: Any) -> CreateResult:
            return CreateResult(finish_reason="stop", content="hi", usage=RequestUsage(1, 1), cached=False)

    items = [item async for item in agent(model_client=Plain()).on_messages_stream((), CancellationToken())]

    assert isinstance(items[-1], Response)
