"""Clients for Gemini's models, at Google AI Studio and at Vertex AI."""

from __future__ import annotations

import os
from functools import partial
from urllib.parse import quote

from ..errors import AuthenticationError, ConfigError
from .base import HTTPChatCompletionClient
from .dialects import GEMINI
from .generate import (
    REASONS,
    GeminiDecoder,
    content_text,
    decode_response,
    encode_request,
    request_fields,
)
from .keys import host_of, usable_key, with_version
from .wire import expect, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .asks import Ask
    from .keys import TokenProvider
    from .wire import Answer

_HOSTS = {"global": "aiplatform", "us": "aiplatform.us.rep", "eu": "aiplatform.eu.rep"}  # others: LOCATION-aiplatform


class GeminiChatCompletionClient(HTTPChatCompletionClient):
    """A Gemini model, of Google AI Studio with a key, or of Vertex AI with a project and a token.

        client = GeminiChatCompletionClient(model="gemini-2.5-flash")
        vertex = GeminiChatCompletionClient(model="gemini-2.5-pro", project="my-project", token_provider=my_token)

    Args:
        model: the name of the model, such as "gemini-2.5-flash".
        api_key: default GEMINI_API_KEY, else GOOGLE_API_KEY.
        base_url: with or without the version; default GOOGLE_GEMINI_BASE_URL, else Google's.
        project: of Vertex AI; default GOOGLE_CLOUD_PROJECT. It, `location`, `token`, `token_provider` or a true
            GOOGLE_GENAI_USE_VERTEXAI choose Vertex AI.
        location: default GOOGLE_CLOUD_LOCATION, else "global".
        token: an access token, which lasts for an hour.
        token_provider: called for each request, gives a token; may be a coroutine function.
        add_name_prefixes: begin each user message with who said it.
        options: the other arguments of `HTTPChatCompletionClient`, and further fields of every request, under Gemini's
            names or the usual ones: temperature, max_tokens, stop, seed, thinking_config, safety_settings,
            cached_content, tools of Google's own, ...
    """

    provider = "gemini"
    _dialect = GEMINI
    _decoder = GeminiDecoder
    _reasons = REASONS
    _variables = {"api_key": "GEMINI_API_KEY"}

    def __init__(
        self,
        *,
        model: str,
        api_key: str | None = None,
        base_url: str | None = None,
        project: str | None = None,
        location: str | None = None,
        token: str | None = None,
        token_provider: TokenProvider | None = None,
        add_name_prefixes: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(model=model, **options)
        self._fields = request_fields(self._parameters)
        self._token = token
        self._token_provider = token_provider
        chosen = os.environ.get("GOOGLE_GENAI_USE_VERTEXAI", "").lower() in ("1", "true")
        if chosen or project or location or token or token_provider:
            self._url = self._at_vertex(base_url, project, location)
        else:
            self._url = self._at_studio(base_url, api_key)
        self._conversations = self._conversations_by(partial(content_text, model=model, prefixes=add_name_prefixes))

    def _at_studio(self, base_url: str | None, api_key: str | None) -> str:
        root = base_url or os.environ.get("GOOGLE_GEMINI_BASE_URL") or "https://generativelanguage.googleapis.com"
        host = host_of(root)
        root = with_version(root, "v1beta")
        key = usable_key(self._model, host, api_key, ["GEMINI_API_KEY", "GOOGLE_API_KEY"])
        if key:
            self._headers["x-goog-api-key"] = key
        self.key_help = "Set GEMINI_API_KEY or pass api_key to a key that this server accepts."
        return f"{root}/{_path(self._model if '/' in self._model else f'models/{self._model}')}"

    def _at_vertex(self, base_url: str | None, project: str | None, location: str | None) -> str:
        self.provider = "vertex"
        self.key_help = "Pass a fresh token, or a token_provider; `gcloud auth print-access-token` prints one."
        project = project or os.environ.get("GOOGLE_CLOUD_PROJECT")
        location = location or os.environ.get("GOOGLE_CLOUD_LOCATION") or "global"
        if not project:
            raise ConfigError("project is missing; pass it or set GOOGLE_CLOUD_PROJECT")
        if not (self._token or self._token_provider):
            raise AuthenticationError(
                f"no access token for model {self._model!r} at Vertex AI.\n"
                f"Neither token nor token_provider was given.\n"
                f"Pass one of them; `gcloud auth print-access-token` prints a token.",
                provider=self.provider,
            )
        root = base_url or f"https://{_HOSTS.get(location) or f'{location}-aiplatform'}.googleapis.com"
        host_of(root)
        root = with_version(root, "v1beta1")
        path = self._model.removeprefix("models/")
        path = path if "/" in path else f"publishers/google/models/{path}"
        if not path.startswith("projects/"):
            path = f"projects/{project}/locations/{location}/{path}"
        return f"{root}/{_path(path)}"

    def _address(self, ask: Ask) -> str:
        return f"{self._url}:{'streamGenerateContent?alt=sse' if ask.stream else 'generateContent'}"

    def _decode(self, data: dict[str, Any]) -> Answer:
        return decode_response(data)

    def _body(self, ask: Ask) -> bytes:
        return encode_request(ask, self._fields, self._conversations, self._model)

    def _whole(self, body: str) -> Answer:
        if body.lstrip("\ufeff \t\r\n")[:1] != "[":
            return super()._whole(body)
        chunks = parse(f'{{"chunks":{body}}}', "the answer")["chunks"]  # a stream without alt=sse
        return decode_response(*(expect(chunks, list, "the answer") or ()))


def _path(path: str) -> str:
    return quote(path, safe="/:@")
