"""The two-agent chat of AutoGen 0.2: who replies, when a person is asked, and when it is over."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agents_for_tests import speaker
from tinygen import (
    ApprovalRequest,
    ApprovalResponse,
    AssistantAgent,
    CodeBlock,
    CodeExecutor,
    CodeResult,
    ConfigError,
    ConversableProxy,
    LocalCommandLineCodeExecutor,
    StateError,
    TaskResult,
    TextMessage,
    suspend,
)

CODE = "```python\nprint(6 * 7)\n```"


class Fine(CodeExecutor):
    """Runs everything with the same result."""

    stopped = False

    async def execute_code_blocks(self, code_blocks: list[CodeBlock], cancellation_token: Any) -> CodeResult:
        return CodeResult(0, f"fine: {code_blocks[0].language}")

    async def stop(self) -> None:
        self.stopped = True


def proxy(mode: Any = "NEVER", *answers: str, **options: Any) -> ConversableProxy:
    """One whose person gives these answers and is asked no more often."""
    left = iter(answers)
    return ConversableProxy("user", human_input_mode=mode, input_func=lambda prompt: next(left), **options)


def said(result: TaskResult) -> list[str]:
    return [f"{m.source}: {m.to_text()}" for m in result.messages if m.type != "UserInputRequestedEvent"]


OVER = "user: The chat is over."


async def test_the_proxy_runs_code_until_the_assistant_is_done() -> None:
    user = proxy(code_executor=LocalCommandLineCodeExecutor())

    result = await user.initiate_chat(speaker("bot", CODE, "It is 42. TERMINATE"), message="6 times 7?")

    assert said(result) == ["user: 6 times 7?", f"bot: {CODE}", "user: 42\n", "bot: It is 42. TERMINATE", OVER]
    assert result.stop_reason == "Stop message received"


async def test_shell_code_by_any_of_its_names_is_run() -> None:
    bot = speaker("bot", "```bash\nls\n```", "```shell\nls\n```", "TERMINATE")

    result = await proxy(code_executor=Fine()).initiate_chat(bot, message="q")

    assert said(result)[2::2] == ["user: fine: bash", "user: fine: shell", OVER]


async def test_without_code_the_proxy_says_what_it_says_by_default() -> None:
    user = proxy(default_auto_reply="Go on.", code_executor=Fine())

    result = await user.initiate_chat(speaker("bot", "hm", "TERMINATE"), message="q")

    assert said(result)[2] == "user: Go on."


async def test_the_proxy_replies_only_so_often_by_itself() -> None:
    result = await proxy(max_consecutive_auto_reply=2).initiate_chat(speaker("bot"), message="q")

    assert said(result) == ["user: q", "bot: bot", "user: ", "bot: bot", "user: ", "bot: bot", OVER]


async def test_a_proxy_that_may_not_reply_by_itself_ends_the_chat() -> None:
    result = await proxy(max_consecutive_auto_reply=0).initiate_chat(speaker("bot"), message="q")

    assert said(result) == ["user: q", "bot: bot", OVER]


async def test_a_turn_is_a_message_of_each() -> None:
    result = await proxy().initiate_chat(speaker("bot"), message="q", max_turns=2)

    assert said(result) == ["user: q", "bot: bot", "user: ", "bot: bot"]


async def test_termination_is_decided_on_a_message_as_it_was_in_0_2() -> None:
    seen: list[dict[str, Any]] = []

    def ends(message: dict[str, Any]) -> bool:
        seen.append(message)
        return message.get("content", "").endswith("done")

    result = await proxy(is_termination_msg=ends).initiate_chat(speaker("bot", "hm", "done"), message="q")

    assert len(result.messages) == 5
    assert seen == [{"content": text, "name": "bot", "role": "user"} for text in ("hm", "done")]


async def test_always_asks_and_an_empty_answer_lets_the_proxy_reply() -> None:
    user = proxy("ALWAYS", "", "why?", "exit", code_executor=Fine())

    result = await user.initiate_chat(speaker("bot", CODE, "so", "because"), message="q")

    assert said(result)[2::2] == ["user: fine: python", "user: why?", OVER]
    assert [m.type for m in result.messages].count("UserInputRequestedEvent") == 3


async def test_an_empty_answer_to_a_final_message_ends_the_chat() -> None:
    result = await proxy("ALWAYS", "").initiate_chat(speaker("bot", "TERMINATE"), message="q")

    assert said(result)[-1] == OVER


async def test_terminate_asks_only_where_the_chat_would_end() -> None:
    user = proxy("TERMINATE", "more", "")

    result = await user.initiate_chat(speaker("bot", "hm", "TERMINATE", "TERMINATE"), message="q")

    assert said(result)[2::2] == ["user: ", "user: more", OVER]


async def test_an_answer_begins_the_count_of_replies_anew() -> None:
    user = proxy("TERMINATE", "go on", "", "exit", max_consecutive_auto_reply=1)

    result = await user.initiate_chat(speaker("bot"), message="q")

    assert said(result)[2::2] == ["user: ", "user: go on", "user: ", "user: ", OVER]


async def test_code_is_run_only_if_its_approver_agrees() -> None:
    def refuse(request: ApprovalRequest) -> ApprovalResponse:
        return ApprovalResponse(approved=False, reason="no")

    user = proxy(code_executor=Fine(), approval_func=refuse)

    result = await user.initiate_chat(speaker("bot", CODE, "TERMINATE"), message="q")

    assert "Reason: no" in said(result)[2]


async def test_a_new_chat_forgets_the_last_unless_told_otherwise() -> None:
    bot, user = speaker("bot", *["TERMINATE"] * 3), proxy()
    contexts = []
    for clear in (True, True, False):
        await user.initiate_chat(bot, message="q", clear_history=clear)
        contexts.append(len(await bot.model_context.get_messages()))

    assert contexts == [2, 2, 4]


async def test_a_person_who_is_not_there_can_answer_later() -> None:
    def team(*script: str) -> Any:
        return ConversableProxy("user", input_func=suspend).chat_with(speaker("bot", *script), max_turns=2)

    first = team("hello")
    pending = (await first.run(task="q")).pending
    later = team("bye")
    await later.load_state(json.loads(json.dumps(await first.save_state())))
    later.answer(pending[0].id, "and?")

    assert said(await later.run(task="q")) == ["user: q", "bot: hello", "user: and?", "bot: bye"]


async def test_how_often_it_replied_is_part_of_its_state() -> None:
    user = proxy(max_consecutive_auto_reply=5)
    await user.initiate_chat(speaker("bot"), message="q", max_turns=3)
    twin = proxy()

    await twin.load_state(await user.save_state())

    assert await twin.save_state() == {"type": "ConversableProxyState", "version": "1.0.0", "auto_replies": 2}
    with pytest.raises(StateError, match="auto_replies"):
        await twin.load_state({"type": "ConversableProxyState", "version": "1.0.0"})


@pytest.mark.parametrize("message", [None, ["hello"], TextMessage(content="hello", source="x")])
async def test_what_a_chat_begins_with_must_be_text(message: Any) -> None:
    with pytest.raises(ConfigError, match="message must be text"):
        await proxy().initiate_chat(speaker("bot"), message=message)


async def test_closing_it_stops_the_executor() -> None:
    executor = Fine()
    await proxy(code_executor=executor).close()
    await proxy().close()

    assert executor.stopped


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"human_input_mode": "SOMETIMES"}, "ALWAYS, TERMINATE, NEVER"),
        ({"max_consecutive_auto_reply": -1}, "from 0"),
        ({"is_termination_msg": "TERMINATE"}, "must be a function of a message"),
    ],
)
def test_wrong_arguments_of_a_proxy_are_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        ConversableProxy("user", **options)


def test_the_chat_is_an_ordinary_team() -> None:
    bot: AssistantAgent = speaker("bot")
    with pytest.raises(ConfigError, match="max_turns"):
        proxy().chat_with(bot, max_turns=0)
