"""Recorded traffic of model providers: what lies in the shared folder `wire`, and what of it cannot be matched."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest

from shared_data import needs_shared, shared

# requests that ours cannot make; what was answered to them is understood all the same
UNMATCHED = {
    "anthropic-messages-stream-file-input-01": "holds a document, which our messages do not have",
    "gemini-generate-rate-limit-429-01": "holds a video, which our messages do not have",
    "openai-chat-image-input-01": "gives the address of a picture; ours send the picture itself",
    "openrouter-chat-file-input-01": "holds a file, which our messages do not have",
    "vllm-chat-image-input-01": "gives the address of a picture; ours send the picture itself",
}
# exchanges that are not about asking a model
NO_CLIENT = {
    "anthropic-models-misc-01": "a list of models, which no client of ours asks for",
    "openai-embed-misc-01": "an embedding; no client of ours makes any",
}


@cache
def exchanges() -> list[dict[str, Any]]:
    """Every exchange, in the order of their names; none where the shared data is absent."""
    folder = shared("wire")
    paths = [] if folder is None else sorted(folder.glob("*.json"))
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def recorded(api: str, *bodies: str, least: int = 200, most: int = 299) -> list[Any]:
    """The exchanges of that API whose response has one of these bodies and a status between `least` and `most`."""
    return _parameters(
        each
        for each in exchanges()
        if each["api"] == api and least <= each["response"]["status"] <= most
        if any(body in each["response"] for body in bodies)
    )


def requests(api: str) -> list[Any]:
    """The exchanges of that API whose request ours can make."""
    return _parameters(each for each in exchanges() if each["api"] == api and each["id"] not in UNMATCHED)


def _parameters(found: Any) -> list[Any]:
    if shared("wire") is None:
        return [pytest.param({}, id="absent", marks=needs_shared("wire"))]
    return [pytest.param(each, id=each["id"]) for each in found]


def check_calls(calls: Sequence[Any], expected: list[dict[str, Any]]) -> None:
    """The calls are the expected ones, with their ids where those were recorded."""
    assert len(calls) == len(expected)
    for call, wanted in zip(calls, expected):
        assert call.name == wanted["name"]
        assert call.id == wanted.get("id", call.id)
        if "arguments_raw" in wanted:
            assert call.arguments == wanted["arguments_raw"]
        else:
            assert json.loads(call.arguments) == wanted["arguments"]
