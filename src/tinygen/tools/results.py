"""What a call of a tool gives, and the words in which a model is told what went wrong."""

from __future__ import annotations

from .. import codec
from ..errors import DecodeError
from ..messages import Image
from ..records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_ARGUMENTS = 1_000_000  # bytes of the text a model may write
MAX_DEPTH = 64  # how deep that may nest
MAX_PROBLEM = 500  # characters a model reads about arguments that do not fit
MAX_OUTPUT = 1_000_000  # characters a model reads of a result
MAX_NAME = 64  # characters of a name that is not a tool's


class TextResultContent(Record):
    """Text in a tool's result."""

    content: str


class ImageResultContent(Record):
    """A picture in a tool's result."""

    content: Image


class ToolResult(Record):
    """What a call of a tool gave: text and pictures, or with `is_error` what went wrong."""

    name: str
    result: list[TextResultContent | ImageResultContent]
    is_error: bool = False

    def to_text(self, replace_image: str | None = None) -> str:
        """The result as text; a picture is given as `replace_image`, or as "[Image]"."""
        placeholder = "[Image]" if replace_image is None else replace_image
        texts = (part.content if isinstance(part, TextResultContent) else placeholder for part in self.result)
        return _clean("\n".join(texts))

    def images(self) -> list[Image] | None:
        """The pictures in the result; None if there are none."""
        return [part.content for part in self.result if isinstance(part, ImageResultContent)] or None

    @classmethod
    def error(cls, name: str, error: BaseException | str) -> ToolResult:
        """The result of a call that failed."""
        text = error if isinstance(error, str) else error_text(error)
        return cls(name=name, result=[TextResultContent(content=cut(text, MAX_OUTPUT))], is_error=True)


def error_text(error: BaseException) -> str:
    """What a model reads of an exception: its message, with its type where the message says too little."""
    inner = getattr(error, "exceptions", None)
    if isinstance(inner, tuple):  # an ExceptionGroup
        return "\n".join(map(error_text, inner))
    name = type(error).__name__
    try:
        text = _clean(str(error))
    except Exception:  # a __str__ that fails itself: the type must do
        return name
    if isinstance(error, DecodeError):
        return shortened(text, MAX_PROBLEM)
    if isinstance(error, (KeyError, SystemExit)):
        return f"{name}: {text}"
    return text or name


def parse_arguments(text: str) -> dict[str, Any]:
    """The arguments in the text a model wrote. Raises `DecodeError` unless that is one JSON object of modest size."""
    try:
        data = codec.loads(text, max_bytes=MAX_ARGUMENTS, max_depth=MAX_DEPTH)
    except DecodeError as error:
        raise DecodeError("arguments", error.problem) from None
    if not isinstance(data, dict):
        raise DecodeError("arguments", f"expected a JSON object, not {text!r:.80}")
    return data


def shortened(text: str, length: int) -> str:
    """`text`, or its beginning and "..." if it is longer than `length`."""
    return text if len(text) <= length else text[: length - 3] + "..."


def cut(text: str, length: int) -> str:
    """`text`, or its beginning and a note of how much is left out if it is longer than `length`."""
    text = _clean(text)
    if len(text) <= length:
        return text
    return f"{text[:length]}\n[cut: {len(text) - length} of {len(text)} characters left out]"


def _clean(text: str) -> str:
    """`text` with "?" for halves of surrogate pairs, which no state and no request can carry."""
    return text.encode("utf-8", "replace").decode()
