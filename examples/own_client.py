"""A model client of one's own is two methods. This one calls every tool it is offered, and tells what came of it."""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Literal

from tinygen import (
    AssistantAgent,
    CancellationToken,
    ChatCompletionClient,
    CreateResult,
    FunctionCall,
    FunctionExecutionResultMessage,
    LLMMessage,
    RequestUsage,
    Tool,
    ToolSchema,
)


class Eager(ChatCompletionClient):
    """Calls each tool with what was said last, then says what came of it."""

    async def create(
        self,
        messages: Sequence[LLMMessage],
        *,
        tools: Sequence[Tool | ToolSchema] = (),
        tool_choice: Tool | Literal["auto", "required", "none"] = "auto",
        json_output: bool | type[Any] | None = None,
        extra_create_args: Mapping[str, Any] = {},
        cancellation_token: CancellationToken | None = None,
    ) -> CreateResult:
        last = messages[-1]
        names = [tool["name"] if isinstance(tool, dict) else tool.name for tool in tools]
        content: str | list[FunctionCall]
        if isinstance(last, FunctionExecutionResultMessage):
            content = "It is " + " and ".join(result.content for result in last.content)
        else:
            content = [FunctionCall(name, json.dumps({"text": last.content}), name) for name in names]
        used = RequestUsage(prompt_tokens=self.count_tokens(messages), completion_tokens=5)
        return CreateResult(finish_reason="stop", content=content, usage=used, cached=False)

    async def create_stream(
        self, messages: Sequence[LLMMessage], **options: Any
    ) -> AsyncGenerator[str | CreateResult, None]:
        result = await self.create(messages, **options)
        if isinstance(result.content, str):
            yield result.content
        yield result


def backwards(text: str) -> str:
    """Says a text backwards."""
    return text[::-1]


async def main() -> None:
    agent = AssistantAgent("eager", Eager(), tools=[backwards], max_tool_iterations=2)
    print(await agent.run(task="stressed"))


if __name__ == "__main__":
    asyncio.run(main())
