"""What can be said against a team before it runs."""

from __future__ import annotations

from .records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal


class Finding(Record, tagged=False):
    """One thing found: `kind` is a word for it, `text` a sentence, `node` says where, if it is at one place."""

    kind: str
    severity: Literal["error", "warning"]
    node: str | None = None
    text: str

    @classmethod
    def error(cls, kind: str, node: str | None, text: str) -> Finding:
        """Something that must be mended."""
        return cls(kind=kind, severity="error", node=node, text=text)

    @classmethod
    def warning(cls, kind: str, node: str | None, text: str) -> Finding:
        """Something to think about."""
        return cls(kind=kind, severity="warning", node=node, text=text)
