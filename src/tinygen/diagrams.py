"""Drawings of teams, as text for Mermaid: what GitHub, notebooks and many editors show as a picture."""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .runner import TaskRunner

WIDEST = 60  # characters of a label


def mermaid(team: TaskRunner) -> str:
    """The flowchart of a team: who is in it, and who can speak after whom."""
    return "\n".join(["flowchart TD", *_Drawing().inside(team, "    ")]) + "\n"


class _Drawing:
    """Numbers what it draws: names may be anything, also words of Mermaid's own."""

    def __init__(self) -> None:
        self._drawn = 0

    def inside(self, runner: TaskRunner, indent: str) -> Iterator[str]:
        """The lines of what is in `runner`, and how it is linked."""
        links = runner.links() if hasattr(runner, "links") else ()
        ids: dict[str | None, str] = {None: self._id()}
        if links:
            yield f'{indent}{ids[None]}(["{_text(type(runner).__name__)}"])'
        for part in runner._parts():
            ids[part.name] = self._id()
            if part._parts():
                yield f'{indent}subgraph {ids[part.name]}["{_text(part.name)}"]'
                yield from self.inside(part, indent + "    ")
                yield f"{indent}end"
            else:
                yield f'{indent}{ids[part.name]}["{_text(part.name)}"]'
        for source, target, label in links:
            when = f'|"{_text(label)}"|' if label else ""
            yield f"{indent}{ids[source]} -->{when} {ids[target]}"

    def _id(self) -> str:
        self._drawn += 1
        return f"n{self._drawn}"


def _text(text: str) -> str:
    """`text` as it stands in quotes: in one line, not too long, nothing in it that means something to Mermaid."""
    line = " ".join(text.split())
    line = line if len(line) <= WIDEST else line[: WIDEST - 3] + "..."
    return re.sub(r"[^\w .,:!?()/+-]", lambda found: f"#{ord(found[0])};", line)
