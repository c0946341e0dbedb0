"""What is known about models by their names. A name that is not known is never an error."""

from __future__ import annotations

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
    ("claude-3-haiku", "claude-3-haiku", 200_000, ()),
    ("claude-3-sonnet", "claude-3-sonnet", 200_000, ()),
    ("claude-3-opus", "claude-3-opus", 200_000, ()),
    ("claude-3-5-haiku", "claude-3-5-haiku", 200_000, ()),
    ("claude-3-5-sonnet", "claude-3-5-sonnet", 200_000, ()),
    ("claude-3-7-sonnet", "claude-3-7-sonnet", 200_000, ()),
    ("claude-opus-4", "claude-4-opus", 200_000, ()),
    ("claude-sonnet-4", "claude-4-sonnet", 200_000, ()),
    ("deepseek-reasoner", "r1", 128_000, ("vision",)),
    ("deepseek-r1", "r1", 128_000, ("vision",)),
)


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
        raise ConfigError(f"model_info lacks {', '.join(map(repr, missing))}")
    whole: ModelInfo = {"structured_output": False, **info}  # type: ignore[typeddict-item]
    return whole


def window(model: str) -> int:
    """How many tokens a model takes, by its name."""
    return _row(model)[2]


def _row(model: str) -> tuple[str, str, int, tuple[str, ...]]:
    if not isinstance(model, str) or not model:
        raise ConfigError(f"model must be the name of a model, not {model!r}")
    name = model.rsplit("/", 1)[-1].lower()  # routers put the maker's name before it
    return next((row for row in _MODELS if name.startswith(row[0])), ("", "unknown", _WINDOW, ()))
