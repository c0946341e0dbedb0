"""How many tokens a request takes, told without the network.

The estimate: a token for four bytes of UTF-8, one for each Chinese, Japanese or Korean character, four for each message
and tool call; a picture as OpenAI counts one in high detail (85, and 170 for each square of 512 pixels once it is
scaled to fit 2048 x 2048 with a shorter side of at most 768), or one of 1024 x 1024 where its size is not found; a tool
as the JSON text of its schema. A client corrects the estimate by what its provider reports of the requests that are
sent, so it gets better in use.

Where tiktoken is installed and a vocabulary is in its cache (the directory TIKTOKEN_CACHE_DIR), texts for OpenAI's
models are counted with that instead. It is never downloaded.
"""

from __future__ import annotations

import json
import os
import re
from functools import cache

from ..messages import Image, RequestUsage
from . import schema_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from ..messages import CreateResult, LLMMessage
    from . import Tool, ToolSchema
    from .asks import Ask

PER_MESSAGE = 4
_PICTURE = 765  # tokens of 1024 x 1024 pixels
_WIDE = re.compile("[\u2e80-\ud7ff\uf900-\uffdf]+")

_DECAY = 0.9  # how much of what was learnt before counts, beside one more request
_FIRST = 200.0  # tokens that are held to have been as estimated before anything was learnt
_BOUNDS = (0.5, 3.0)
_OFTEN = 16  # requests to learn from at first, and later every so many: looking at long conversations takes time

# tiktoken's vocabularies: name of the file in its cache, SHA-256 of what is in it
_VOCABULARIES = {
    "o200k_base": (
        "fb374d419588a4632f3f557e76b4b70aebbca790",
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    ),
    "cl100k_base": (
        "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    ),
}
_OPENAI = re.compile(r"(?P<o200k_base>gpt-4o|gpt-4\.[15]|gpt-5|o[134](?![^-]))|(?P<cl100k_base>gpt-4|gpt-3\.5)")


def estimate_tokens(messages: Sequence[LLMMessage], tools: Sequence[Tool | ToolSchema] = ()) -> int:
    """About how many tokens a request takes, whatever the model."""
    return sum(map(message_tokens, messages)) + tool_tokens(tools)


def message_tokens(message: LLMMessage, text_tokens: Callable[[str], int] | None = None) -> int:
    """The tokens of one message; `text_tokens` counts a text, by default by the estimate."""
    count = text_tokens or _text_tokens
    thought = getattr(message, "thought", None)
    return PER_MESSAGE + _content_tokens(message.content, count) + (count(thought) if thought else 0)


def tool_tokens(tools: Sequence[Tool | ToolSchema], text_tokens: Callable[[str], int] | None = None) -> int:
    """The tokens of the schemas of tools."""
    count = text_tokens or _text_tokens
    return sum(count(json.dumps(schema_of(tool), ensure_ascii=False, default=str)) for tool in tools)


def _text_tokens(text: str) -> int:
    if text.isascii():
        return (len(text) + 3) // 4
    wide = sum(map(len, _WIDE.findall(text)))
    return wide + (len(text.encode("utf-8", "replace")) - 3 * wide + 3) // 4


def _content_tokens(content: Any, count: Callable[[str], int]) -> int:
    if isinstance(content, str):
        return count(content)
    if isinstance(content, (list, tuple)):
        return sum(_content_tokens(part, count) for part in content)
    if hasattr(content, "arguments"):
        return PER_MESSAGE + count(content.name) + count(content.arguments)
    if hasattr(content, "call_id"):
        return PER_MESSAGE + count(content.content) + sum(map(picture_tokens, content.images or ()))
    return picture_tokens(content) if isinstance(content, Image) else 0


# --- pictures


def picture_tokens(image: Image) -> int:
    """The tokens of a picture, by the formula of OpenAI's for high detail."""
    width, height = _size(image.data)
    if not width or not height:
        return _PICTURE
    scale = min(1.0, 2048 / max(width, height))
    scale *= min(1.0, 768 / (scale * min(width, height)))
    return 85 + 170 * _squares(width * scale) * _squares(height * scale)


def _squares(pixels: float) -> int:
    return max(1, -(-round(pixels) // 512))


def _size(data: bytes) -> tuple[int, int]:
    """Width and height of a PNG, GIF or JPEG; zeros for anything else."""
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    if data[:4] == b"GIF8":
        return int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")
    at = 2 if data[:2] == b"\xff\xd8" else len(data)
    while at + 9 <= len(data) and data[at] == 0xFF:
        kind = data[at + 1]
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return 0, 0


# --- one model


class TokenCounter:
    """Counts tokens for one model, and learns from what its provider reports.

    Deterministic: the same reports in the same order lead to the same counts. Messages are counted once in their life.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._exact: Callable[[str], int] | None = None
        self._looked = False
        self._sizes = self._forgetful(None)
        self._seen = (_FIRST, _FIRST)  # tokens reported, and tokens estimated for the same requests
        self._requests = 0

    @property
    def ratio(self) -> float:
        """Tokens to one estimated token."""
        reported, estimated = self._seen
        return min(max(reported / estimated, _BOUNDS[0]), _BOUNDS[1])

    def count(self, messages: Sequence[LLMMessage], tools: Sequence[Tool | ToolSchema] = ()) -> int:
        """About how many tokens a request takes."""
        if not self._looked:
            self._looked, self._exact = True, vocabulary(self._model)
            self._sizes = self._forgetful(self._exact)
        size = self._measured(messages, tools)
        return size if self._exact else round(size * self.ratio)

    def usage(self, ask: Ask, result: CreateResult) -> RequestUsage:
        """What a call used: what was reported, which is learnt from, and an estimate of what was not."""
        usage = result.usage
        said = result.content or result.thought
        if usage.prompt_tokens > 0 and (usage.completion_tokens > 0 or not said):
            self._learn(ask, usage.prompt_tokens)
            return usage
        count = self._exact or _text_tokens
        answer = _content_tokens(result.content, count) + (count(result.thought) if result.thought else 0)
        ratio = 1.0 if self._exact else self.ratio
        known = {
            "prompt_tokens": usage.prompt_tokens or round(self._measured(ask.messages, ask.tools) * ratio),
            "completion_tokens": usage.completion_tokens or round(answer * ratio),
        }
        return usage.model_copy(update={**known, "estimated": True})

    def _learn(self, ask: Ask, reported: int) -> None:
        self._requests += 1
        if self._exact or (self._requests > _OFTEN and self._requests % _OFTEN):
            return
        if isinstance(ask.json_output, type) or any(map(_shows, ask.messages)):
            return  # how a schema and pictures are counted says nothing of texts
        before, estimated = self._seen
        size = self._measured(ask.messages, ask.tools)
        self._seen = before * _DECAY + reported, estimated * _DECAY + size

    def _measured(self, messages: Sequence[LLMMessage], tools: Sequence[Tool | ToolSchema]) -> int:
        sizes: list[int] = self._sizes.texts(messages)
        return sum(sizes) + tool_tokens(tools, self._exact)

    @staticmethod
    def _forgetful(exact: Callable[[str], int] | None) -> Any:
        from .texts import MessageTexts

        return MessageTexts(lambda message: message_tokens(message, exact))


def _shows(message: LLMMessage) -> bool:
    return isinstance(message.content, list) and any(isinstance(part, Image) for part in message.content)


# --- vocabularies


def vocabulary(model: str, environment: Mapping[str, str] | None = None) -> Callable[[str], int] | None:
    """What counts the tokens of a text for this model exactly, if tiktoken and the vocabulary are here."""
    matched = _OPENAI.match(model.rpartition("/")[2].lower())
    if matched is None:
        return None
    environment = os.environ if environment is None else environment
    return _loaded(str(matched.lastgroup), environment.get("TIKTOKEN_CACHE_DIR", environment.get("DATA_GYM_CACHE_DIR")))


@cache
def _loaded(name: str, directory: str | None) -> Callable[[str], int] | None:
    """The counter of a vocabulary. tiktoken downloads a file that is missing or damaged, so look at it before."""
    import hashlib
    import tempfile
    from importlib.util import find_spec

    file, digest = _VOCABULARIES[name]
    try:
        if directory == "" or find_spec("tiktoken") is None:
            return None
        with open(
            os.path.join(directory or os.path.join(tempfile.gettempdir(), "data-gym-cache"), file), "rb"
        ) as found:
            if hashlib.sha256(found.read()).hexdigest() != digest:
                return None
        import tiktoken  # type: ignore[import-not-found,unused-ignore]

        encode = tiktoken.get_encoding(name).encode_ordinary
    except (OSError, ValueError, ImportError):
        return None
    return lambda text: len(encode(text))
