"""The addresses of servers, and the keys they take."""

from __future__ import annotations

import os
import re
from ipaddress import ip_address

from ..errors import AuthenticationError, ConfigError, did_you_mean
from . import COMPATIBLE
from .wire import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    TokenProvider = Callable[[], str | Awaitable[str]]


def host_of(url: str) -> str:
    """The host of an address. Raises `ConfigError` if it is none."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url if isinstance(url, str) and url.isprintable() and " " not in url else "")
        host, port = parts.hostname or "", parts.port
    except ValueError:  # a bad port, or half a bracket
        host = ""
    if not host or parts.scheme not in ("http", "https") or port == 0 or not re.fullmatch(r"[\w.-]+|[\da-f:.]+", host):
        given = shown(url) if isinstance(url, str) else url
        raise ConfigError(f"expected an address such as 'https://api.openai.com/v1', not {given!r}")
    return host


def with_version(url: str, version: str) -> str:
    """An address without a slash at its end; the version goes there if it says none, such as v1 or v1beta."""
    url = url.rstrip("/")
    return url if re.search(r"/v\d\w*(/|$)", url) else f"{url}/{version}"


def known_server(name: str) -> tuple[str, str, str]:
    """The row of `COMPATIBLE` under a name. Raises `ConfigError`."""
    if name in COMPATIBLE:
        return COMPATIBLE[name]
    raise ConfigError(f"no server {name!r} is known{did_you_mean(str(name), COMPATIBLE, listed=True)}")


def base_variable(name: str) -> str:
    """The environment variable that says another address for a server of that name."""
    return f"{name.upper().replace('-', '_')}_BASE_URL"


def server_at(host: str) -> tuple[str, str, str] | None:
    """The row of `COMPATIBLE` for a host; None for one nearby, where anything may listen."""
    return None if _is_near(host) else next((row for row in COMPATIBLE.values() if host_of(row[0]) == host), None)


def _is_near(host: str) -> bool:
    """Whether a host is this machine, or in a private network."""
    try:
        return ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith((".local", ".internal", ".localhost"))


def usable_key(model: str, host: str, key: str | None, variables: list[str]) -> str:
    """The key to use, "" for none. Raises `AuthenticationError` if one is needed and there is none."""
    if not isinstance(key, str) and key is not None:
        raise ConfigError(f"api_key must be a text, not a {type(key).__name__}")
    if key is None:
        key = next((os.environ[name] for name in variables if os.environ.get(name)), None)
    if key is None and not _is_near(host):
        raise AuthenticationError(
            f"no API key for model {model!r} at {host}.\n"
            f"The argument api_key was not given, and the environment variable {' or '.join(variables)} is not set.\n"
            f"Set the variable or pass api_key=...; api_key='' says that the server needs none.",
            provider=host,
        )
    key = (key or "").strip()
    if not key.isascii() or any(char.isspace() or not char.isprintable() for char in key):
        raise ConfigError(
            "api_key holds characters that no key has: check for spaces, line ends and letters with accents"
        )
    return key


async def bearer(token: str | None, provider: TokenProvider | None) -> dict[str, str]:
    """The header of a request made with a token, which the provider gives if there is one."""
    given: Any = token if provider is None else provider()
    if given is not None and not isinstance(given, str):
        given = await given
    return {"authorization": f"Bearer {given}"} if given else {}
