"""Clients for Anthropic's models: at Anthropic, at every server that speaks its protocol, at Amazon and at Google."""

from __future__ import annotations

import hashlib
import hmac
import os
from functools import partial
from urllib.parse import quote

from ..errors import ConfigError, positive_int
from .asks import Request
from .base import HTTPChatCompletionClient
from .claude import (
    BINDING,
    BOUND,
    REASONS,
    MessagesDecoder,
    decode_response,
    encode_message,
    encode_request,
    version_of,
)
from .dialects import ANTHROPIC
from .keys import host_of, server_at, usable_key, with_version
from .wire import short

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from typing import Any

    from .asks import Ask
    from .keys import TokenProvider

_KINDS: dict[str, Any] = {
    "tools": (list, tuple),
    "tool_choice": (str, dict),
    "thinking": dict,
    "output_config": dict,
}
_API = "2023-06-01"


class AnthropicChatCompletionClient(HTTPChatCompletionClient):
    """A model of Anthropic's, or of any server that speaks its protocol.

        client = AnthropicChatCompletionClient(model="claude-sonnet-4-5")

    Args:
        model: the name of the model.
        api_key: default ANTHROPIC_API_KEY. Servers on this machine or in a private network need none; "" says that
            another server needs none either.
        auth_token: sent as a bearer token instead of a key; default ANTHROPIC_AUTH_TOKEN, if there is no key.
        base_url: with or without the version; default ANTHROPIC_BASE_URL, else "https://api.anthropic.com".
        max_tokens: of an answer; where a budget of thinking is given, beside that.
        parallel_tool_calls: False lets the model call one tool at a time.
        options: the other arguments of `HTTPChatCompletionClient`, and further fields of every request: temperature,
            top_p, top_k, stop_sequences (or stop), metadata, system, the provider's own tools, thinking such as
            `{"type": "adaptive"}`. Where a model thinks, and in new models altogether, temperature, top_p and top_k are
            left out, and no tool can be forced.
    """

    provider = "anthropic"
    _dialect = ANTHROPIC
    _decode = staticmethod(decode_response)
    _decoder = MessagesDecoder
    _reasons = REASONS
    _reserved = ("stream", "messages")
    _variables: Mapping[str, str] = {"api_key": "ANTHROPIC_API_KEY", "auth_token": "ANTHROPIC_AUTH_TOKEN"}

    def __init__(
        self,
        *,
        model: str,
        api_key: str | None = None,
        auth_token: str | None = None,
        base_url: str | None = None,
        max_tokens: int = 4096,
        **options: Any,
    ) -> None:
        super().__init__(model=model, **options)
        _check(self._parameters)
        self._parameters = {
            "model": model,
            "max_tokens": positive_int("max_tokens", max_tokens),
            **self._parameters,
        }
        self._token = auth_token
        self._headers["anthropic-version"] = _API
        if version_of(model) >= BOUND:
            betas = [self._default_headers.pop("anthropic-beta", ""), BINDING]
            self._headers["anthropic-beta"] = ",".join(filter(None, betas))
        self._connect_to(base_url, api_key)
        self._conversations = {
            thoughts: self._conversations_by(partial(encode_message, thoughts=thoughts)) for thoughts in (True, False)
        }

    def _connect_to(self, base_url: str | None, api_key: str | None) -> None:
        base_url = base_url or os.environ.get("ANTHROPIC_BASE_URL") or "https://api.anthropic.com"
        host = host_of(base_url)
        path, mark, query = base_url.partition("?")
        self._url = path.rstrip("/").removesuffix("/v1") + "/v1/messages" + mark + query
        if host != "api.anthropic.com":
            self.provider = host
        variables = (server_at(host) or ("", "ANTHROPIC_API_KEY"))[1].split()  # a known host is sent its own key only
        self._variables = {**self._variables, "api_key": variables[0]}
        self.key_help = f"Set {variables[0]} or pass api_key to a key that this server accepts."
        if api_key is None and self._token is None and variables == ["ANTHROPIC_API_KEY"]:
            if not os.environ.get("ANTHROPIC_API_KEY"):
                self._token = os.environ.get("ANTHROPIC_AUTH_TOKEN") or None
        if self._token is None and (key := usable_key(self._model, host, api_key, variables)):
            self._headers["x-api-key"] = key

    def _body(self, ask: Ask) -> bytes:
        _check(ask.extra)
        return encode_request(ask, self._model, self._parameters, self._conversations)


def _check(parameters: Mapping[str, Any]) -> None:
    for name, kind in _KINDS.items():
        if parameters.get(name) is not None and not isinstance(parameters[name], kind):
            raise ConfigError(f"{name} cannot be {short(parameters[name])}; it is sent as the provider knows it")


class AnthropicBedrockChatCompletionClient(AnthropicChatCompletionClient):
    """A model of Anthropic's at Amazon Bedrock.

    Args:
        aws_region: default AWS_REGION or AWS_DEFAULT_REGION.
        api_key: a Bedrock API key; default AWS_BEARER_TOKEN_BEDROCK.
        aws_access_key, aws_secret_key, aws_session_token: instead of an API key, what requests are signed with.
        bedrock_info: the same in a dict, with `aws_region`, as AutoGen has it.
        base_url: default that of Bedrock's runtime in the region.

    The other arguments are those of `AnthropicChatCompletionClient`.
    """

    _variables = {
        "api_key": "AWS_BEARER_TOKEN_BEDROCK",
        "aws_access_key": "AWS_ACCESS_KEY_ID",
        "aws_secret_key": "AWS_SECRET_ACCESS_KEY",
        "aws_session_token": "AWS_SESSION_TOKEN",
    }

    def __init__(
        self,
        *,
        model: str,
        aws_region: str | None = None,
        aws_access_key: str | None = None,
        aws_secret_key: str | None = None,
        aws_session_token: str | None = None,
        bedrock_info: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        info = dict(bedrock_info or {})
        given = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        self._region = aws_region or info.get("aws_region") or given or ""
        self._secret = aws_secret_key or info.get("aws_secret_key")
        self._access = aws_access_key or info.get("aws_access_key")
        self._session = aws_session_token or info.get("aws_session_token")
        if bool(self._access) != bool(self._secret):
            raise ConfigError("aws_access_key and aws_secret_key belong together; pass both or neither")
        super().__init__(model=model, **options)

    def _connect_to(self, base_url: str | None, api_key: str | None) -> None:
        if not self._region:
            raise ConfigError("aws_region is missing; pass it or set AWS_REGION")
        base_url = base_url or f"https://bedrock-runtime.{self._region}.amazonaws.com/anthropic"
        self.provider = host = host_of(base_url)
        self._url = base_url.rstrip("/").removesuffix("/v1") + "/v1/messages"
        self.key_help = "Set AWS_BEARER_TOKEN_BEDROCK or pass api_key, or aws_access_key and aws_secret_key."
        if not self._secret and (key := usable_key(self._model, host, api_key, [self._variables["api_key"]])):
            self._headers["authorization"] = f"Bearer {key}"

    async def _request(self, ask: Ask) -> Request:
        request = await super()._request(ask)
        if self._access and self._secret:
            keys = (self._access, self._secret, self._session)
            request.headers.update(signature(request, keys, self._region, "bedrock", self._waiting.now()))
        return request


def signature(
    request: Request, keys: tuple[str, str, str | None], region: str, service: str, moment: datetime
) -> dict[str, str]:
    """The headers of AWS's signature, version 4. `keys` are the access key, the secret key and the session's token."""
    access, secret, session = keys
    stamp = moment.strftime("%Y%m%dT%H%M%SZ")
    address, _, query = request.url.partition("://")[2].partition("?")
    host, _, path = address.partition("/")
    signed = {"host": host, "x-amz-date": stamp, **({"x-amz-security-token": session} if session else {})}
    names, lines = ";".join(signed), [f"{name}:{value}" for name, value in signed.items()]
    body = hashlib.sha256(request.body).hexdigest()
    canonical = "\n".join(["POST", quote("/" + path), query, *lines, "", names, body])
    scope = [stamp[:8], region, service, "aws4_request"]
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, "/".join(scope), hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{secret}".encode()
    for word in (*scope, text):
        key = hmac.digest(key, word.encode(), "sha256")
    del signed["host"]  # which the connection sends
    credential = f"AWS4-HMAC-SHA256 Credential={access}/{'/'.join(scope)}"
    return {**signed, "authorization": f"{credential}, SignedHeaders={names}, Signature={key.hex()}"}


class AnthropicVertexChatCompletionClient(AnthropicChatCompletionClient):
    """A model of Anthropic's at Google's Vertex AI.

    Args:
        project: default GOOGLE_CLOUD_PROJECT.
        region: default GOOGLE_CLOUD_LOCATION, else "global".
        auth_token: an access token.
        token_provider: called for each request, gives an access token; may be a coroutine function.

    The other arguments are those of `AnthropicChatCompletionClient`.
    """

    def __init__(
        self,
        *,
        model: str,
        project: str | None = None,
        region: str | None = None,
        token_provider: TokenProvider | None = None,
        **options: Any,
    ) -> None:
        self._project = project or os.environ.get("GOOGLE_CLOUD_PROJECT") or ""
        self._region = region or os.environ.get("GOOGLE_CLOUD_LOCATION") or "global"
        self._token_provider = token_provider
        super().__init__(model=model, **options)
        del self._parameters["model"]  # it stands in the address
        self._parameters["anthropic_version"] = "vertex-2023-10-16"

    def _connect_to(self, base_url: str | None, api_key: str | None) -> None:
        if not self._project:
            raise ConfigError("project is missing; pass it or set GOOGLE_CLOUD_PROJECT")
        if api_key or not (self._token or self._token_provider):
            raise ConfigError("Vertex takes no API key; pass auth_token or token_provider")
        host = "" if self._region == "global" else f"{self._region}-"
        base_url = base_url or f"https://{host}aiplatform.googleapis.com"
        self.provider = host_of(base_url)
        base_url = with_version(base_url, "v1")
        place = f"projects/{self._project}/locations/{self._region}"
        self._url = f"{base_url}/{place}/publishers/anthropic/models/{self._model}"
        self.key_help = "Pass an auth_token that is valid, or a token_provider that gives one."

    def _address(self, ask: Ask) -> str:
        return f"{self._url}:{'streamRawPredict' if ask.stream else 'rawPredict'}"
