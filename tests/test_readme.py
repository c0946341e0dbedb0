"""The README and the documentation say nothing that was not run.

Every block fenced as ```python is run as pasted, in an empty folder, offline. Code that is only to be looked at (what
one had before, what needs a key) is fenced otherwise, as ```py.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("**/*.md"))]
FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMANDS = {
    1: "pip install . && python -m tinygen demo",
    2: "pip install '.[test]' && python -m pytest",
}


def blocks() -> list[object]:
    return [
        pytest.param("\n" * text.count("\n", 0, block.start(1)) + block[1], page, id=f"{page.stem}-{number}")
        for page in PAGES
        if page.exists()
        for text in [page.read_text(encoding="utf-8")]
        for number, block in enumerate(FENCE.finditer(text), 1)
    ]


@pytest.mark.parametrize(("block", "page"), blocks())
def test_each_block_of_python_runs_as_pasted(
    block: str, page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    exec(compile(block, str(page), "exec"), {"__name__": "__main__"})


def test_the_first_code_stands_near_the_top() -> None:
    lines = README.read_text(encoding="utf-8").splitlines()

    assert any(line.startswith("```") for line in lines[:25])
    assert len(lines) <= 220


@pytest.mark.parametrize("number", COMMANDS)
def test_each_command_is_the_one_that_ci_runs(number: int) -> None:
    text = README.read_text(encoding="utf-8")

    shown = subprocess.run([ROOT / ".ci" / "run", "show", str(number)], capture_output=True, text=True, check=True)

    assert shown.stdout.strip() == COMMANDS[number]
    assert f"<!-- command {number} -->\n```sh\n{COMMANDS[number]}\n```\n" in text


def test_each_pattern_of_the_core_chapter_fits_into_fifteen_lines() -> None:
    text = (ROOT / "docs" / "core.md").read_text(encoding="utf-8")

    too_long = [block[:80] for block in FENCE.findall(text) if sum(map(bool, map(str.strip, block.splitlines()))) > 15]

    assert too_long == []
