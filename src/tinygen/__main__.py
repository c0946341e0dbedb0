"""The command line: `python -m tinygen demo`, `check`, `migrate`."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys

from .assistant import AssistantAgent
from .conditions import TextMentionTermination
from .errors import TinygenError
from .messages import FunctionCall
from .models import create_client
from .models.replay import ReplayChatCompletionClient
from .teams import RoundRobinGroupChat
from .ui import Console

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .models import ChatCompletionClient

TASK = "Write a two-line poem about the sea, at most ten words long."

_POEM = "The tide forgets each footprint,\nyet keeps the moon."
_SCRIPT: dict[str, list[str | list[FunctionCall]]] = {
    "planner": ["1. Pick one image: the tide.\n2. First line lets go, second line holds on.\n3. Stay under ten words."],
    "writer": [_POEM],
    "critic": [
        [FunctionCall("call_1", '{"text": "The tide forgets each footprint,\\nyet keeps the moon."}', "count_words")],
        "Nine words, two lines, one clear image. APPROVE",
    ],
}

_NEXT = f"""
Next:
  python -m {__package__} demo --model openai:gpt-4o-mini    the same team on a real model (needs OPENAI_API_KEY)
  python -m {__package__} demo --model ollama:llama3.2       ... or on one of your own machine
  OPENAI_BASE_URL=http://localhost:8000/v1 python -m {__package__} demo --model openai:NAME    any compatible server
  ... --task "Name a cat."                          another task; TINYGEN_MODEL=openai:NAME stands for --model
"""


def count_words(text: str) -> int:
    """Counts the words of a text."""
    return len(text.split())


def demo_team(model: str | None = None) -> RoundRobinGroupChat:
    """The demo's planner, writer and critic, on the named model or on the scripted one."""

    def client(name: str) -> ChatCompletionClient:
        return create_client(model) if model else ReplayChatCompletionClient(_SCRIPT[name])

    planner = AssistantAgent(
        "planner", client("planner"), system_message="Plan the work in three short steps. Do not do it.",
        model_client_stream=True,
    )  # fmt: skip
    writer = AssistantAgent(
        "writer", client("writer"), system_message="Write what the plan asks for, and nothing else.",
        model_client_stream=True,
    )  # fmt: skip
    critic = AssistantAgent(
        "critic", client("critic"), tools=[count_words], reflect_on_tool_use=True, model_client_stream=True,
        system_message="Check the writer's text against the task; count its words with the tool. "
        "Say APPROVE if it is right, else what to change.",
    )  # fmt: skip
    approved = TextMentionTermination("APPROVE", sources=["critic"])
    return RoundRobinGroupChat([planner, writer, critic], termination_condition=approved, max_turns=9)


async def demo(task: str, model: str | None) -> None:
    """Run the demo's team on `task`, printing it as it happens."""
    if model is None and task != TASK:
        print("The scripted model knows one poem only, whatever the task; name another with --model.\n")
    await Console(demo_team(model).run_stream(task=task), output_stats=True)
    print(_NEXT.rstrip())


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="tinygen", description="Multi-agent systems in one small package.")
    version = getattr(sys.modules[__package__], "__version__", "")
    parser.add_argument("--version", action="version", version=f"tinygen {version}")
    commands = parser.add_subparsers(dest="command")
    shown = commands.add_parser("demo", help="a planner, a writer and a critic at work; offline without --model")
    shown.add_argument("--task", default=TASK, help="what they work on")
    shown.add_argument(
        "--model", default=os.environ.get("TINYGEN_MODEL"), help="provider:model; default: the variable TINYGEN_MODEL"
    )
    checked = commands.add_parser("check", help="what is wrong with a team, without running it")
    checked.add_argument("team", help="a JSON document, or module:name of a team or of a function that makes one")
    moved = commands.add_parser("migrate", help="rewrite the imports of AutoGen programs; shows the change only")
    moved.add_argument("path", help="a Python file or a notebook, or a folder of them")
    how = moved.add_mutually_exclusive_group()
    how.add_argument("--dry-run", action="store_true", help="show what would change (the default)")
    how.add_argument("--write", action="store_true", help="make the change")
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help()
        return 0
    try:
        if arguments.command == "check":
            from . import check

            return check.main(arguments.team)
        if arguments.command == "migrate":
            from . import migrate

            return migrate.main(arguments.path, change=arguments.write)
        asyncio.run(demo(arguments.task, arguments.model))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (TinygenError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
