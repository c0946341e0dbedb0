"""A person approves tool calls: an intervention sees every call before it is delivered, and may drop it.

The agent that asks the model and the agent that has the tools know nothing of it.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

from tinygen import (
    AgentId,
    DefaultInterventionHandler,
    FunctionCall,
    FunctionTool,
    MessageContext,
    ReplayChatCompletionClient,
    RoutedAgent,
    SingleThreadedAgentRuntime,
    ToolAgent,
    ToolException,
    UserMessage,
    message_handler,
    tool_agent_caller_loop,
)


@dataclass
class Wish:
    text: str


def delete_file(name: str) -> str:
    """Deletes a file."""
    return f"{name} is gone"


class Approval(DefaultInterventionHandler):
    """Asks before a tool is called; here a list of answers stands in for `input()`."""

    def __init__(self, answers: list[str]) -> None:
        self.answers = answers

    async def on_send(self, message: Any, *, message_context: MessageContext, recipient: AgentId) -> Any:
        if isinstance(message, FunctionCall):
            answer = self.answers.pop(0)
            print(f"May {message.name}({message.arguments}) be called? {answer}")
            if answer != "yes":
                raise ToolException(message.id, "The user does not want that.", message.name)
        return message


class Assistant(RoutedAgent):
    def __init__(self, model: ReplayChatCompletionClient) -> None:
        super().__init__("Does what it can with tools")
        self.model, self.tools = model, AgentId("tools", "default")

    @message_handler
    async def on_wish(self, message: Wish, ctx: MessageContext) -> str:
        asked = [UserMessage(content=message.text, source="user")]
        said = await tool_agent_caller_loop(self, self.tools, self.model, asked, [FunctionTool(delete_file)])
        return str(said[-1].content)


async def main() -> None:
    def call(name: str) -> list[FunctionCall]:
        return [FunctionCall(id=name, name="delete_file", arguments=f'{{"name": "{name}"}}')]

    def answer(request: Any) -> str:
        return f"The tools said: {'; '.join(each.content for each in request.messages[-1].content)}"

    model = ReplayChatCompletionClient([call("notes.txt"), answer, call("thesis.tex"), answer])
    runtime = SingleThreadedAgentRuntime(intervention_handlers=[Approval(["yes", "no"])])
    await ToolAgent.register(runtime, "tools", lambda: ToolAgent("Has tools", [FunctionTool(delete_file)]))
    await Assistant.register(runtime, "assistant", lambda: Assistant(model))
    runtime.start()

    for text in ("Delete my notes.", "Delete my thesis."):
        print(await runtime.send_message(Wish(text), AgentId("assistant", "default")))
    await runtime.stop_when_idle()
    model.assert_consumed()


if __name__ == "__main__":
    asyncio.run(main())
