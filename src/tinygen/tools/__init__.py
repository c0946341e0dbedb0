"""Tools: typed functions that a model may call, and the workbenches that hold them.

A function is a tool as it stands: its name, docstring and annotations become the schema a model sees, read when first
asked for. Arguments are checked against the annotations and only converted where nothing is lost. Whatever goes wrong
in a call (an unknown tool, arguments that do not fit, an exception, time that is up) becomes a result with `is_error`
for the model to read; only cancellation, suspension and limits pass through.

Inside: `results` is what a call gives, `base` what a tool is, `functions` makes one of a function, `workbenches` hold
them; `bounds` ends calls and `threads` runs synchronous ones.
"""

from __future__ import annotations

from ..models import Tool
from .base import BaseStreamTool, BaseTool, BaseToolWithState
from .functions import FunctionTool, as_tool
from .results import ImageResultContent, TextResultContent, ToolResult, error_text, parse_arguments
from .threads import run_in_thread
from .workbenches import StaticStreamWorkbench, StaticWorkbench, StreamWorkbench, ToolOverride, Workbench

__all__ = [
    "BaseStreamTool",
    "BaseTool",
    "BaseToolWithState",
    "FunctionTool",
    "ImageResultContent",
    "StaticStreamWorkbench",
    "StaticWorkbench",
    "StreamWorkbench",
    "TextResultContent",
    "Tool",
    "ToolOverride",
    "ToolResult",
    "Workbench",
    "as_tool",
    "error_text",
    "parse_arguments",
    "run_in_thread",
]
