"""Two reviewers read a draft side by side; an editor joins what they say, and sends it back until it is good.

Offline it speaks from a script; name a model to make it think:
`TINYGEN_MODEL=openai:gpt-4o-mini python examples/parallel_review.py`
"""

import asyncio
import os

from tinygen import (
    AssistantAgent,
    ChatCompletionClient,
    Console,
    DiGraphBuilder,
    GraphFlow,
    ReplayChatCompletionClient,
    create_client,
)


def agent(name: str, task: str, *script: str) -> AssistantAgent:
    named = os.environ.get("TINYGEN_MODEL")
    model: ChatCompletionClient = create_client(named) if named else ReplayChatCompletionClient(list(script))
    return AssistantAgent(name, model, system_message=task)


async def main() -> None:
    writer = agent(
        "writer",
        "You write one sentence, and rewrite it as the editor asks.",
        "Actors are little programs that talks by mail.",
        "Actors are little programs that talk by messages, never sharing memory.",
    )
    grammar = agent("grammar", "You check the newest sentence for grammar only.", "'programs that talk'.", "Fine.")
    facts = agent("facts", "You check the newest sentence for facts only.", "Not mail: messages.", "True.")
    editor = agent(
        "editor",
        "You sum up the reviews. Say APPROVE if both are content, else REVISE and what to change.",
        "REVISE: 'talk', and 'messages' for 'mail'.",
        "APPROVE",
    )
    publisher = agent("publisher", "You repeat the newest sentence of the writer, and add a title.", "# Actors\n...")

    builder = DiGraphBuilder()
    for each in (writer, grammar, facts, editor, publisher):
        builder.add_node(each)
    builder.set_entry_point(writer)
    builder.add_edge(writer, grammar).add_edge(writer, facts)
    builder.add_edge(grammar, editor).add_edge(facts, editor)  # it waits for both
    builder.add_edge(editor, writer, condition="REVISE")
    builder.add_edge(editor, publisher, condition="APPROVE")
    team = GraphFlow(builder.get_participants(), builder.build(), max_turns=12)

    print(team.to_mermaid())
    result = await Console(team.run_stream(task="Explain actors in one sentence."))
    print(result.stop_reason)


if __name__ == "__main__":
    asyncio.run(main())
