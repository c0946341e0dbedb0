"""Recorded traffic and case collections that are too large for the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def shared(name: str) -> Path | None:
    """The file or folder `name` of the shared data; None where it is absent.

    The data lies where TINYGEN_SHARED says, else in the folder `shared` beside the repository.
    """
    home = os.environ.get("TINYGEN_SHARED")
    path = (Path(home) if home else ROOT.parent / "shared") / name
    return path if path.exists() else None


def needs_shared(name: str) -> pytest.MarkDecorator:
    """Skip a test where the shared data `name` is absent."""
    return pytest.mark.skipif(shared(name) is None, reason=f"no shared data {name!r} (see TINYGEN_SHARED)")
