"""Real servers, not written by us: LiteLLM's proxy, and an inference server with a tiny model of random weights."""

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
READY = 150.0  # seconds a server may take to answer
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
    """The base URL of LiteLLM's proxy. TINYGEN_LITELLM names the folder with its executable.

    Models with "relay-" before their names are the same ones, asked through a second pass of the proxy: it then
    translates between the protocol of the route and OpenAI's, instead of giving the answers by heart.
    """
    folder = tmp_path_factory.mktemp("litellm")
    port = _free_port()
    config = folder / "config.yaml"  # JSON is YAML
    relays = [_relay(name, f"http://127.0.0.1:{port}/v1") for name in MODELS]
    models = [*(_model(*each) for each in MODELS.items()), *relays]
    config.write_text(json.dumps({"model_list": models, "router_settings": {"num_retries": 0}}))
    environment = {"LITELLM_MASTER_KEY": KEY, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_COLOR": "1"}
    command = [str(_home("TINYGEN_LITELLM", "litellm[proxy]") / "litellm"), "--config", str(config)]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    with _server(command, folder, environment, f"http://127.0.0.1:{port}/health/liveliness"):
        yield f"http://127.0.0.1:{port}/v1"


@pytest.fixture(scope="session")
def transformers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The base URL of `transformers serve`, and the name of its model, which has random weights.

    TINYGEN_TRANSFORMERS names the folder with the executables of an environment that has it.
    """
    home = _home("TINYGEN_TRANSFORMERS", "torch and transformers[serving]")
    folder = tmp_path_factory.mktemp("transformers")
    model, port = str(folder / "tiny"), _free_port()
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    maker = [str(home / "python"), str(Path(__file__).with_name("tiny_model.py")), model]
    subprocess.run(maker, env=_environment(environment), check=True, capture_output=True, timeout=READY)
    command = [str(home / "transformers"), "serve", model, "--host", "127.0.0.1", "--port", str(port)]
    with _server([*command, "--device", "cpu"], folder, environment, f"http://127.0.0.1:{port}/health"):
        yield f"http://127.0.0.1:{port}/v1", model


def _home(variable: str, what: str) -> Path:
    home = os.environ.get(variable)
    assert home, f"set {variable} to the bin folder of an environment with {what}"
    return Path(home)


def _free_port() -> int:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port: int = probe.getsockname()[1]
        return port


def _model(name: str, mock: dict[str, object]) -> dict[str, object]:
    return {"model_name": name, "litellm_params": {"model": "openai/gpt-4o-mini", "api_key": "none", **mock}}


def _relay(name: str, url: str) -> dict[str, object]:
    there = {"model": f"lm_studio/{name}", "api_base": url, "api_key": KEY, "max_retries": 0}
    return {"model_name": f"relay-{name}", "litellm_params": there}


def _environment(more: dict[str, str]) -> dict[str, str]:
    environment = os.environ | more
    environment.pop("PYTHONPATH", None)
    return environment


@contextlib.contextmanager
def _server(command: list[str], folder: Path, environment: dict[str, str], url: str) -> Iterator[None]:
    """Run a server until `url` answers and as long as it is needed."""
    with open(folder / "log", "wb") as log:
        server = subprocess.Popen(
            command,
            cwd=folder,
            env=_environment(environment),
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        _wait_until_ready(server, url, folder / "log")
        yield
    finally:
        _end(server)


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
