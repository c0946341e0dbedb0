"""A planner, a web searcher and a data analyst: a model chooses who of them speaks next.

Offline they speak from a script; name a model to make them think:
`TINYGEN_MODEL=openai:gpt-4o-mini python examples/web_search_analyst.py`
"""

import asyncio
import os

from tinygen import (
    AssistantAgent,
    ChatCompletionClient,
    Console,
    FunctionCall,
    MaxMessageTermination,
    ReplayChatCompletionClient,
    SelectorGroupChat,
    TextMentionTermination,
    create_client,
)

REBOUNDS = {"2007-2008": 214, "2008-2009": 398}


def search_web(query: str) -> str:
    """Finds information on the web."""
    if "points" in query:
        return "Most points for Miami Heat in 2006-2007: Dwyane Wade, 1397."
    found = [f"Dwyane Wade, total rebounds in {each}: {REBOUNDS[each]}." for each in REBOUNDS if each in query]
    return "\n".join(found) or "Nothing found."


def percentage_change(start: float, end: float) -> float:
    """The change from start to end in percent."""
    return round((end - start) / start * 100, 2)


def model(*script: str | list[FunctionCall]) -> ChatCompletionClient:
    name = os.environ.get("TINYGEN_MODEL")
    return create_client(name) if name else ReplayChatCompletionClient(list(script))


async def main() -> None:
    planner = AssistantAgent(
        "planner",
        model_client=model(
            "1. web_searcher: who scored most for Miami Heat in 2006-2007, and their rebounds in 2007-2008 and "
            "2008-2009? 2. data_analyst: the change between the two.",
            "Dwyane Wade, with 85.98 % more rebounds. TERMINATE",
        ),
        description="Plans the work; speaks first when there is a new task, and last.",
        system_message="You break the task into steps for web_searcher and data_analyst and hand them out; you do "
        "none yourself. When all are done, sum up the findings and end with TERMINATE.",
    )
    searcher = AssistantAgent(
        "web_searcher",
        model_client=model(
            [FunctionCall("1", '{"query": "Miami Heat most points 2006-2007"}', "search_web")],
            [FunctionCall("2", '{"query": "Dwyane Wade rebounds 2007-2008 2008-2009"}', "search_web")],
        ),
        tools=[search_web],
        description="Searches the web.",
        system_message="You search the web, one search at a time. You never calculate.",
    )
    analyst = AssistantAgent(
        "data_analyst",
        model_client=model([FunctionCall("3", '{"start": 214, "end": 398}', "percentage_change")]),
        tools=[percentage_change],
        description="Calculates.",
        system_message="You calculate with your tools. If numbers are missing, ask for them.",
    )
    team = SelectorGroupChat(
        [planner, searcher, analyst],
        model_client=model("planner", "web_searcher", "web_searcher", "data_analyst", "planner"),
        termination_condition=TextMentionTermination("TERMINATE") | MaxMessageTermination(25),
        allow_repeated_speaker=True,
    )
    result = await Console(
        team.run_stream(
            task="Who scored most points for Miami Heat in the 2006-2007 season, and by how many percent did their "
            "total rebounds change from 2007-2008 to 2008-2009?"
        )
    )
    print(result.stop_reason)


if __name__ == "__main__":
    asyncio.run(main())
