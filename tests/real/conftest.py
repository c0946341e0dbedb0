"""A real OpenAI-compatible server: LiteLLM's proxy with models that answer from its configuration."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

KEY = "sk-local-tests"
READY = 150.0  # seconds the server may take to answer
STOP = 10.0  # seconds it has to end
CALL = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 20, "b": 22}'}}
MODELS = {
    "planner": {"mock_response": "First an outline, then a draft."},
    "writer": {"mock_response": "Here is the draft."},
    "critic": {"mock_response": "Good. APPROVE"},
    "caller": {"mock_response": "", "mock_tool_calls": [CALL]},
    "limited": {"mock_response": "litellm.RateLimitError"},
    "broken": {"mock_response": "litellm.InternalServerError"},
    "full": {"mock_response": "litellm.ContextWindowExceededError"},
}


@pytest.fixture(scope="session")
def litellm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of the running server. TINYGEN_LITELLM names the folder with its executable."""
    home = os.environ.get("TINYGEN_LITELLM")
    assert home, "set TINYGEN_LITELLM to the bin folder of an environment with litellm[proxy]"
    folder = tmp_path_factory.mktemp("litellm")
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port = probe.getsockname()[1]
    with _server(Path(home) / "litellm", folder, port) as server:
        _wait_until_ready(server, f"http://127.0.0.1:{port}/health/liveliness", folder / "log")
        yield f"http://127.0.0.1:{port}/v1"


@contextlib.contextmanager
def _server(program: Path, folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    config = folder / "config.yaml"  # JSON is YAML
    config.write_text(json.dumps({"model_list": [_model(name, mock) for name, mock in MODELS.items()]}))
    command = [str(program), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    environment = os.environ | {"LITELLM_MASTER_KEY": KEY, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_COLOR": "1"}
    environment.pop("PYTHONPATH", None)
    with open(folder / "log", "wb") as log:
        server = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        yield server
    finally:
        _end(server)


def _model(name: str, mock: dict[str, object]) -> dict[str, object]:
    return {"model_name": name, "litellm_params": {"model": "openai/gpt-4o-mini", "api_key": "none", **mock}}


def _wait_until_ready(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    last = time.monotonic() + READY
    while time.monotonic() < last and server.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.2)  # nothing to wait on: the server does not say when it is ready
    pytest.fail(f"no answer from {url} (exit code {server.poll()}):\n{log.read_text(errors='replace')[-3000:]}")


def _end(server: subprocess.Popen[bytes]) -> None:
    """End the server and everything it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(STOP)
