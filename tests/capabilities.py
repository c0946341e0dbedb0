"""Writes the tables of docs/models.md from what the tests prove.

scripts/models-table            rewrites them; needs the recorded traffic
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
from collections import defaultdict
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from documented import ASKED, CAPABILITIES, LACKS, SHOWN
from recorded import NO_CLIENT, UNMATCHED, exchanges
from tinygen.errors import ConfigError, ModelError
from tinygen.models import COMPATIBLE, NATIVE, create_client
from tinygen.models.dialects import DIALECTS
from tinygen.models.keys import base_variable

PAGE = Path(__file__).resolve().parent.parent / "docs" / "models.md"
REAL = Path(__file__).resolve().parent / "real"
RECORDED, SERVED, TOLD, NONE = "●", "◆", "○", " "
PROTOCOLS = {
    "openai.chat": "chat",
    "openai.responses": "responses",
    "anthropic.messages": "anthropic",
    "gemini.generateContent": "gemini",
    "ollama.chat": "ollama",
}
NAMES = {  # of recorded providers that have another one here, by their protocol where it matters
    ("openai", "openai.responses"): "responses",
    ("vertex", "gemini.generateContent"): "gemini, at Vertex",
    ("gemini-openai-compat", "openai.chat"): "gemini-chat",
    ("together-via-hf", "openai.chat"): "huggingface",
    ("litellm-proxy", "openai.chat"): "litellm",
    ("llama.cpp", "openai.chat"): "llamacpp",
    ("llama-cpp-python", "openai.chat"): "llamacpp",
    ("ollama", "openai.chat"): "ollama, its /v1",
    ("ollama-cloud", "openai.chat"): "ollama, its /v1",
    ("transformers-serve", "openai.chat"): "transformers serve",
}
OWN = {"openai": "chat", "azure": "chat", "bedrock": "anthropic", "vertex": "anthropic"}  # others: their own name


def table() -> str:
    """Providers and what each can do, by the strongest proof there is."""
    proofs = servings()
    for row, found in recordings().items():
        proofs[row] = {**proofs.get(row, {}), **found}
    rows = {**protocols(), **found_protocols()}
    head = ["| provider | protocol | " + " | ".join(CAPABILITIES) + " |", "|---|---|" + ":-:|" * len(CAPABILITIES)]
    lines = [
        f"| {row} | {rows[row]} | "
        + " | ".join(proofs.get(row, {}).get(each) or documented(row, rows[row], each) for each in CAPABILITIES)
        + " |"
        for row in sorted(rows, key=lambda row: (row.split(",")[0] not in NATIVE, row))
    ]
    return "\n".join([*head, *lines])


def protocols() -> dict[str, str]:
    """The wire format of every name that `create_client` knows."""
    return {**dict.fromkeys(COMPATIBLE, "chat"), **{name: OWN.get(name, name) for name in NATIVE}}


def found_protocols() -> dict[str, str]:
    """The wire formats of what else was recorded or talked to."""
    known = protocols()
    found = {row_of(each): PROTOCOLS[each["api"]] for each in asked_exchanges()}
    found |= {row: row.partition(", ")[2] or "chat" for row in servings()}
    return {row: protocol for row, protocol in found.items() if row not in known}


def asked_exchanges() -> list[dict[str, Any]]:
    return [each for each in exchanges() if each["id"] not in NO_CLIENT]


def row_of(exchange: dict[str, Any]) -> str:
    provider: str = exchange["provider"]
    return NAMES.get((provider, exchange["api"]), provider)


def recordings() -> dict[str, dict[str, str]]:
    """What recorded traffic proves, by provider."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for exchange in asked_exchanges():
        if not exchange.get("synthetic"):
            found[row_of(exchange)] |= dict.fromkeys(shown_by(exchange), RECORDED)
    return found


def shown_by(exchange: dict[str, Any]) -> set[str]:
    """The capabilities that an exchange shows; its answer is understood, and its request made, by a test."""
    features, expected, response = set(exchange["features"]), exchange["expect"], exchange["response"]
    if not 200 <= response["status"] <= 299:
        return {"refusals by status"}
    streamed = "sse" in response or "ndjson" in response or "json_array_stream" in features
    usage, calls = expected.get("usage", {}), expected.get("tool_calls", [])
    thought = expected.get("thinking") or "<think>" in expected.get("text_raw", "")
    text = expected.get("text") or expected.get("text_blocks") or expected.get("text_raw")
    said = {
        "streamed text" if streamed else "text": text,
        "streamed calls" if streamed else "tool calls": calls,
        "streamed thinking" if streamed else "thinking": thought,
        "parallel calls": len(calls) > 1,
        "refusals": "refusal" in features,
        "content filters": "content_filter" in features or "block_reason" in expected,
        "length stops": "length_finish" in features,
        "cached tokens": usage.get("cached_tokens"),
        "reasoning tokens": usage.get("reasoning_tokens"),
        "logprobs": "logprobs" in features,
        "errors in streams": "mid_stream_error" in features,
    }
    asked: dict[str, Any] = {}
    if exchange["id"] not in UNMATCHED:
        sent = json.dumps(exchange["request"]["json"])
        asked = {
            "tool results": "tool_result_in_request" in features,
            "structured output": features & {"structured_output", "json_mode"},
            "images": "image_input" in features,
            "seeds": "seed" in features,
            "thoughts sent back": re.search('"(thoughtSignature|signature|encrypted_content)": "', sent),
        }
    return {capability for capability, shown in (said | asked).items() if shown}


def servings() -> dict[str, dict[str, str]]:
    """What tests against real servers prove: their marks `proves(server, protocols, *capabilities)`."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for path in sorted(REAL.glob("test_*.py")):
        for test in vars(module_at(path)).values():
            for mark in getattr(test, "pytestmark", ()) if callable(test) else ():
                if mark.name == "proves":
                    server, spoken, *capabilities = mark.args
                    for protocol in spoken:
                        row = server if protocol == "chat" else f"{server}, {protocol}"
                        found[row] |= dict.fromkeys(capabilities, SERVED)
    return found


def module_at(path: Path) -> Any:
    """The module of a file of tests, which has been read already if its tests run, too."""
    name = f"tests.{path.parent.name}.{path.stem}"  # as pytest names it
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec and spec.loader
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def documented(row: str, protocol: str, capability: str) -> str:
    """Whether a protocol has a capability; our tests hold us to its documentation (see documented.py)."""
    if capability == "thoughts sent back" and protocol == "chat":
        dialect = DIALECTS[COMPATIBLE[row][2]] if row in COMPATIBLE else None
        return TOLD if dialect and dialect.thoughts else NONE
    lacks = (protocol, capability) in LACKS or (capability in SHOWN and protocol not in SHOWN[capability])
    return NONE if lacks else TOLD


def addresses() -> str:
    """Every name for `create_client`, with where it leads and which variables it reads."""
    head = ["| name | protocol | address | variables |", "|---|---|---|---|"]
    names = sorted({*NATIVE, *COMPATIBLE})
    return "\n".join([*head, *(f"| `{name}` | {protocols()[name]} | {_where(name)} |" for name in names)])


def _where(name: str) -> str:
    if name in COMPATIBLE:
        url, variables, _ = COMPATIBLE[name]
        return f"{url} | {' or '.join(f'`{each}`' for each in variables.split())}, `{base_variable(name)}`"
    module, kind = NATIVE[name]
    text = getattr(import_module(f"tinygen.models.{module}"), kind).__doc__ or ""
    if name == "responses":
        return f"{COMPATIBLE['openai'][0]} | as `openai`"
    variables = dict.fromkeys(re.findall(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b", text))
    return f"{_address(name)} | {', '.join(f'`{each}`' for each in variables)}"


def _address(name: str) -> str:
    """Where a client leads that is told the least."""
    options = {
        "anthropic": {"api_key": "k"},
        "azure": {"azure_endpoint": "https://NAME.openai.azure.com", "api_key": "k"},
        "bedrock": {"aws_region": "REGION", "api_key": "k"},
        "gemini": {"api_key": "k"},
        "vertex": {"project": "PROJECT", "auth_token": "t"},
    }.get(name, {})
    try:
        client: Any = create_client(f"{name}:m", **options)
    except (ConfigError, ModelError) as error:
        raise AssertionError(f"{name} needs other options: {error}") from None
    parts = urlsplit(client._url)
    return f"{parts.scheme}://{parts.netloc}"


def without_environment(make: Any) -> str:
    """What `make` gives where no variable of a provider is set."""
    words = "_API_KEY|_BASE_URL|_HOST|_ENDPOINT|_LOCATION|_PROJECT|_REGION|_TOKEN|_VERTEXAI|_VERSION"
    kept = {name: os.environ.pop(name) for name in list(os.environ) if re.search(words, name)}
    try:
        return str(make())
    finally:
        os.environ.update(kept)


SECTIONS = {"capabilities": table, "addresses": addresses}


def written(page: str) -> str:
    """The page with its tables made again."""
    for name, make in SECTIONS.items():
        begin, end = f"<!-- {name}: made by scripts/models-table -->\n", f"\n<!-- end of {name} -->"
        before, _, rest = page.partition(begin)
        _, mark, after = rest.partition(end)
        assert mark, f"{PAGE.name} has no section {name}"
        page = before + begin + without_environment(make) + end + after
    return page


if __name__ == "__main__":
    assert exchanges(), "the recorded traffic is not there (see TINYGEN_SHARED)"
    assert set(CAPABILITIES) >= {*SHOWN, *ASKED}
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
