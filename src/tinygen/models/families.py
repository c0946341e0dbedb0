"""What is known about models by their names. A name that is not known is never an error."""

from __future__ import annotations

import warnings

from ..errors import ConfigError
from . import permissive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from . import ModelInfo

_WINDOW = 128_000  # tokens of a model that is not known

# beginning of a name, family, tokens of the context window, what the model cannot do
_MODELS = (
    ("gpt-5", "gpt-5", 400_000, ()),
    ("gpt-4.1", "gpt-41", 1_047_576, ()),
    ("gpt-4.5", "gpt-45", 128_000, ()),
    ("gpt-4o", "gpt-4o", 128_000, ()),
    ("gpt-4-turbo", "gpt-4", 128_000, ("structured_output",)),
    ("gpt-4", "gpt-4", 8_192, ("vision", "structured_output")),
    ("gpt-3.5", "gpt-35", 16_385, ("vision", "structured_output")),
    ("o1-mini", "o1", 128_000, ("vision", "function_calling", "structured_output")),
    ("o1", "o1", 200_000, ()),
    ("o3-mini", "o3", 200_000, ("vision",)),
    ("o3", "o3", 200_000, ()),
    ("o4", "o4", 200_000, ()),
    ("gemini-1.5-flash", "gemini-1.5-flash", 1_048_576, ("multiple_system_messages",)),
    ("gemini-1.5-pro", "gemini-1.5-pro", 2_097_152, ("multiple_system_messages",)),
    ("gemini-2.0-flash", "gemini-2.0-flash", 1_048_576, ("multiple_system_messages",)),
    ("gemini-2.5-flash", "gemini-2.5-flash", 1_048_576, ("multiple_system_messages",)),
    ("gemini-2.5-pro", "gemini-2.5-pro", 1_048_576, ("multiple_system_messages",)),
    ("gemini-", "unknown", 1_048_576, ("multiple_system_messages",)),
    ("claude-3-haiku", "claude-3-haiku", 200_000, ()),
    ("claude-3-sonnet", "claude-3-sonnet", 200_000, ()),
    ("claude-3-opus", "claude-3-opus", 200_000, ()),
    ("claude-3-5-haiku", "claude-3-5-haiku", 200_000, ()),
    ("claude-3-5-sonnet", "claude-3-5-sonnet", 200_000, ()),
    ("claude-3-7-sonnet", "claude-3-7-sonnet", 200_000, ()),
    ("claude-opus-4", "claude-4-opus", 200_000, ()),
    ("claude-sonnet-4", "claude-4-sonnet", 200_000, ()),
    ("claude-haiku-4", "claude-4-haiku", 200_000, ()),
    ("claude-opus-5", "claude-5-opus", 1_000_000, ()),
    ("claude-sonnet-5", "claude-5-sonnet", 1_000_000, ()),
    ("claude-haiku-5", "claude-5-haiku", 1_000_000, ()),
    ("claude-fable-5", "claude-5-fable", 1_000_000, ()),
    ("claude-", "unknown", 200_000, ()),
    ("deepseek-reasoner", "r1", 128_000, ("vision",)),
    ("deepseek-r1", "r1", 128_000, ("vision",)),
)


class ModelFamily:
    """The families of models that `model_info["family"]` names; any other text will do too."""

    ANY = str
    GPT_5 = "gpt-5"
    GPT_41 = "gpt-41"
    GPT_45 = "gpt-45"
    GPT_4O = "gpt-4o"
    GPT_4 = "gpt-4"
    GPT_35 = "gpt-35"
    O1 = "o1"
    O3 = "o3"
    O4 = "o4"
    R1 = "r1"
    GEMINI_1_5_FLASH = "gemini-1.5-flash"
    GEMINI_1_5_PRO = "gemini-1.5-pro"
    GEMINI_2_0_FLASH = "gemini-2.0-flash"
    GEMINI_2_5_FLASH = "gemini-2.5-flash"
    GEMINI_2_5_PRO = "gemini-2.5-pro"
    CLAUDE_3_HAIKU = "claude-3-haiku"
    CLAUDE_3_SONNET = "claude-3-sonnet"
    CLAUDE_3_OPUS = "claude-3-opus"
    CLAUDE_3_5_HAIKU = "claude-3-5-haiku"
    CLAUDE_3_5_SONNET = "claude-3-5-sonnet"
    CLAUDE_3_7_SONNET = "claude-3-7-sonnet"
    CLAUDE_4_OPUS = "claude-4-opus"
    CLAUDE_4_SONNET = "claude-4-sonnet"
    LLAMA_3_3_8B = "llama-3.3-8b"
    LLAMA_3_3_70B = "llama-3.3-70b"
    LLAMA_4_SCOUT = "llama-4-scout"
    LLAMA_4_MAVERICK = "llama-4-maverick"
    CODESRAL = "codestral"  # spelled as in AutoGen
    OPEN_CODESRAL_MAMBA = "open-codestral-mamba"
    MISTRAL = "mistral"
    MINISTRAL = "ministral"
    PIXTRAL = "pixtral"
    UNKNOWN = "unknown"

    @staticmethod
    def is_openai(family: str) -> bool:
        """Whether it is one of OpenAI's."""
        return family.startswith(("gpt-", "o1", "o3", "o4"))

    @staticmethod
    def is_claude(family: str) -> bool:
        """Whether it is one of Anthropic's."""
        return family.startswith("claude-")

    @staticmethod
    def is_gemini(family: str) -> bool:
        """Whether it is one of Google's Gemini models."""
        return family.startswith("gemini-")

    @staticmethod
    def is_llama(family: str) -> bool:
        """Whether it is one of Meta's Llama models."""
        return family.startswith("llama-")

    @staticmethod
    def is_mistral(family: str) -> bool:
        """Whether it is one of Mistral's."""
        return family.removeprefix("open-").startswith(("codestral", "mistral", "ministral", "pixtral"))


def known_info(model: str) -> ModelInfo:
    """What a model can do, by its name; everything is thought possible for one that is not known."""
    _, family, _, lacks = _row(model)
    info = permissive(family)
    for capability in lacks:
        info[capability] = False  # type: ignore[literal-required]
    return info


def checked_info(info: Mapping[str, Any]) -> ModelInfo:
    """A `ModelInfo` given by hand. Raises `ConfigError` for one that says too little."""
    if not isinstance(info, dict):
        raise ConfigError(f"model_info must be a dict, not {info!r}")
    missing = [key for key in ("vision", "function_calling", "json_output", "family") if key not in info]
    if missing:
        keys = "vision, function_calling, json_output, structured_output, family, multiple_system_messages, price"
        unknown = [key for key in info if key not in keys.split(", ")]
        raise ConfigError(
            f"model_info lacks {', '.join(map(repr, missing))}; it stands for all that is known of the model"
            + (f". It holds {', '.join(map(repr, unknown))}, which is none of its keys: {keys}" if unknown else "")
        )
    whole: ModelInfo = {"structured_output": False, **info}  # type: ignore[typeddict-item]
    return whole


def validate_model_info(model_info: Mapping[str, Any]) -> None:
    """Look at a `ModelInfo` given by hand. Raises `ConfigError` for one that says too little."""
    checked_info(model_info)
    if "structured_output" not in model_info:
        warnings.warn("model_info lacks 'structured_output', which is taken for False", stacklevel=2)


def window(model: str) -> int:
    """How many tokens a model takes, by its name."""
    return _row(model)[2]


def _row(model: str) -> tuple[str, str, int, tuple[str, ...]]:
    if not isinstance(model, str) or not model:
        raise ConfigError(f"model must be the name of a model, not {model!r}")
    name = model.rsplit("/", 1)[-1].rpartition("anthropic.")[2].lower()  # routers and clouds put the maker's name first
    return next((row for row in _MODELS if name.startswith(row[0])), ("", "unknown", _WINDOW, ()))
