"""What comes before the first line of work: importing, a whole small process, and the room on disk."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import tinygen

from .harness import Row, in_turn

SOURCE = Path(next(iter(tinygen.__path__))).parent
ROOT = Path(__file__).resolve().parent.parent
TEAM = """
import asyncio
from tinygen import AssistantAgent, ReplayChatCompletionClient, RoundRobinGroupChat, TextMentionTermination

async def main():
    writer = AssistantAgent("writer", ReplayChatCompletionClient(["draft"]))
    critic = AssistantAgent("critic", ReplayChatCompletionClient(["APPROVE"]))
    team = RoundRobinGroupChat([writer, critic], termination_condition=TextMentionTermination("APPROVE"), max_turns=8)
    await team.run(task="write")

asyncio.run(main())
"""
CLIENT = "from tinygen import OpenAIChatCompletionClient as C; C(model='gpt-4o', api_key='k')"
SIZES = """
import importlib.metadata, json, os
kept = [each for each in importlib.metadata.distributions() if each.name not in ("pip", "setuptools", "wheel")]
files = [each.locate_file(file) for each in kept for file in each.files or []]
print(json.dumps([len(kept), sum(os.path.getsize(file) for file in files if os.path.isfile(file))]))
"""


def _run(code: str) -> str:
    program = f"import sys; sys.path.insert(0, {str(SOURCE)!r})\n{code}"
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], check=True, capture_output=True, text=True
    ).stdout


def _process(code: str) -> float:
    """CPU seconds of a whole Python process that runs `code`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    _run(code)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def _inside(code: str) -> float:
    """CPU seconds that `code` takes inside a process that is already up."""
    return float(_run(f"from time import process_time\nbegan = process_time()\n{code}\nprint(process_time() - began)"))


def importing() -> Iterator[Row]:
    """`import tinygen`, above a bare process."""
    ours = median(_inside("import tinygen") for _ in range(15))
    yield Row("import tinygen", None, ours, "ms")


def offline_run() -> Iterator[Row]:
    """A process that runs an offline team, against one that imports what any such program needs."""
    floor, ours = in_turn(lambda: _process("import asyncio, json, dataclasses"), lambda: _process(TEAM), repeats=15)
    yield Row("process: offline team run", floor, ours, "ms")


def making_a_client() -> Iterator[Row]:
    """A process that makes a model client and calls nothing: httpx must not be loaded."""
    floor, ours = in_turn(lambda: _process("import asyncio, json, dataclasses"), lambda: _process(CLIENT), repeats=15)
    yield Row("process: a model client is made", floor, ours, "ms")


def installed_size() -> Iterator[Row]:
    """Distributions and megabytes of a fresh environment with tinygen in it. Needs a package index."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = Path(folder) / "bin" / "python"
        subprocess.run([python, "-m", "pip", "install", "-q", "--no-compile", str(ROOT)], check=True)
        shown = subprocess.run([python, "-c", SIZES], check=True, capture_output=True, text=True).stdout
    number, size = json.loads(shown)
    yield Row("installed: distributions", None, number, "")
    yield Row("installed: size", None, size, "MB")
