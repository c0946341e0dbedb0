"""What was said, as text that people read: for a terminal, for `print(result)`, and as Markdown.

What models and tools write is shown with its control characters made visible, so that it cannot command a terminal.
"""

from __future__ import annotations

import re

from .messages import (
    CodeExecutionEvent,
    CodeGenerationEvent,
    HandoffMessage,
    MemoryQueryEvent,
    MultiModalMessage,
    SelectSpeakerEvent,
    ThoughtEvent,
    ToolCallExecutionEvent,
    ToolCallRequestEvent,
    UserInputRequestedEvent,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .messages import BaseAgentEvent, BaseChatMessage, Image, Pending, RequestUsage, TaskResult

    Said = BaseAgentEvent | BaseChatMessage

# control characters but newline and tab, what turns the direction of writing, halves of surrogate pairs, and what
# cannot be seen, but the joiners U+200C and U+200D that Persian and emoji are written with
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff"
    "\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_INNER = re.compile(r"/tool [^/]*(?:/tool@\d+/[^/]*/turn )?|/turn ")  # a turn of a team that is a tool is no deeper
_OUTERMOST = re.compile(r"[^/]*(?:/turn \d+)?")


def safe(text: str) -> str:
    """`text` with whatever would command a terminal made visible."""
    return _UNSAFE.sub(_visible, text.replace("\r\n", "\n"))


def _visible(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


def depth(item: Said) -> int:
    """How many teams or tools deep something was said, by the place its id names; 0 for an id made elsewhere."""
    outermost = _OUTERMOST.match(item.id)
    return len(_INNER.findall(item.id, outermost.end() if outermost else 0))


def body(item: Said) -> str:
    """What a message or event says, in full."""
    if isinstance(item, ToolCallRequestEvent):
        return "\n".join(f"{call.name}({call.arguments})" for call in item.content)
    if isinstance(item, ToolCallExecutionEvent):
        return "\n".join(f"{each.name}{' failed' if each.is_error else ''}: {each.content}" for each in item.content)
    if isinstance(item, MemoryQueryEvent):
        return "\n".join(str(each.content) for each in item.content)
    if isinstance(item, SelectSpeakerEvent):
        return ", ".join(item.content)
    return item.to_text()


def as_text(result: TaskResult) -> str:
    """A result as plain text: who said what, nested teams and tools indented, and how it ended."""
    lines = []
    for item in result.messages:
        indent = "  " * depth(item)
        head, text = f"{indent}{_line(item.source + _verb(item))}:", safe(body(item)).rstrip()
        if "\n" in text:
            lines += [head, *(f"{indent}  {line}".rstrip() for line in text.split("\n"))]
        else:
            lines.append(f"{head} {text}".rstrip())
    return "\n".join([*lines, f"-- {_line(_ending(result))}"])


def as_markdown(result: TaskResult, *, images: bool = False) -> str:
    """A result as Markdown: what was said as it is, calls and code in code blocks, nested teams and tools as quotes.

    `images` puts pictures into the text as `data:` addresses; otherwise their place and size is said.
    """
    blocks = []
    for item in result.messages:
        text = f"**{_plain(item.source)}**{_plain(_verb(item))}\n\n{_marked(item, images)}".rstrip()
        quote = "> " * depth(item)
        blocks.append("\n".join(f"{quote}{line}".rstrip() for line in text.split("\n")))
    return "\n\n".join([*blocks, "---", f"*{_plain(_ending(result))}*"]) + "\n"


def _verb(item: Said) -> str:
    """What somebody does who does not simply speak."""
    if isinstance(item, HandoffMessage):
        return f" hands over to {item.target}"
    for kind, verb in _VERBS.items():
        if isinstance(item, kind):
            return verb
    return ""


_VERBS: dict[type, str] = {
    ToolCallRequestEvent: " calls",
    ToolCallExecutionEvent: " is told",
    MemoryQueryEvent: " remembers",
    SelectSpeakerEvent: " gives the floor to",
    ThoughtEvent: " thinks",
    CodeGenerationEvent: " writes code",
    CodeExecutionEvent: " executes it",
    UserInputRequestedEvent: " is asked",
}


def _ending(result: TaskResult) -> str:
    """Why it ended, and what it took."""
    parts = [result.stop_reason or "done"]
    parts += [f"waiting for {asked(each)}" for each in result.pending]
    parts += [f"would not stop: {name}" for name in result.abandoned]
    count, usage = len(result.messages), result.usage
    used = f"{count} message{'s' * (count != 1)}, {usage.prompt_tokens} + {usage.completion_tokens} tokens"
    if cost := as_cost(usage):
        used += f", cost {cost}"
    return f"{'; '.join(parts)} ({used})"


def asked(question: Pending) -> str:
    """Who is asked, and what. The id, with which code answers, is not for people."""
    content = question.content
    prompt = content.get("prompt", content) if isinstance(content, dict) else content
    words = "" if prompt is None else f": {prompt!s:.200}".rstrip(" :")
    return f"{question.source} ({question.kind}{words})"


def as_cost(usage: RequestUsage) -> str:
    """What a run cost, for people; "" if that is not known, or nothing."""
    cost = getattr(usage, "cost", None)
    return f"{cost:.6f}".rstrip("0").rstrip(".") if cost else ""


def _marked(item: Said, images: bool) -> str:
    if isinstance(item, MultiModalMessage):
        return "\n\n".join(_closed(part) if isinstance(part, str) else _picture(part, images) for part in item.content)
    if isinstance(item, (ToolCallRequestEvent, ToolCallExecutionEvent, CodeExecutionEvent)):
        return fenced(safe(body(item)))
    return _closed(body(item))


def _closed(text: str) -> str:
    """`text` with its last code block closed: one that was cut off would swallow what others say after it."""
    text, fence = safe(text), ""
    for found in re.finditer(r"^ {0,3}(`{3,}(?=[^`]*$)|~{3,})(.*)$", text, re.MULTILINE):
        if not fence:
            fence = found[1]
        elif found[1].startswith(fence) and not found[2].strip():
            fence = ""
    return f"{text}\n{fence}" if fence else text


def _picture(image: Image, inline: bool) -> str:
    return f"![image]({image.data_uri})" if inline else f"*image, {image.media_type}, {len(image.data):,} bytes*"


def fenced(text: str, language: str = "") -> str:
    """A code block that nothing in `text` can end."""
    longest = max((len(run) for run in re.findall("`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _plain(text: str) -> str:
    """`text` on one line, none of it taken for Markdown."""
    return re.sub(r"([\\`*_\[\]<>#|])", r"\\\1", _line(text))


def _line(text: str) -> str:
    """`text` on one line."""
    return safe(text).replace("\n", " ")
