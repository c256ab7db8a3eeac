"""What a URL means: which kind of server, where. Opens nothing.

redis://  rediss://  unix://     one server (Redis, Valkey)
redis+cluster://  rediss+cluster://   a Cluster, by any of its nodes
embedded://PATH                  the embedded server whose files lie in PATH
nothing                          the embedded server of this user
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, urlsplit

from llmcache_plugins.errors import ConfigError

__all__ = ["Target", "parse_url", "redact"]

_SERVER = ("redis", "rediss", "unix")
_CLUSTER = {"redis+cluster": "redis", "rediss+cluster": "rediss"}
_KNOWN = "redis://, rediss://, unix://, redis+cluster://, rediss+cluster:// or embedded://PATH"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A parsed URL. `url` may contain a password and is kept out of the repr."""

    kind: Literal["server", "cluster", "embedded"]
    url: str = ""
    directory: Path | None = None

    def __repr__(self) -> str:
        return f"Target({self.kind}, {redact(self.url) or self.directory})"

    @property
    def address(self) -> str:
        """A URL of the same place, fit to be shown: without user, password and query."""
        if self.kind == "embedded":
            return f"embedded://{self.directory or ''}"
        scheme, separator, rest = redact(self.url).partition("://")
        return f"{scheme}{'+cluster' if self.kind == 'cluster' else ''}{separator}{rest}"

    @property
    def hides_credentials(self) -> bool:
        """Whether `address` lacks something of the URL."""
        return bool(self.url) and redact(self.url) != self.url


def redact(url: str) -> str:
    """Return a URL fit to be shown: without user, password and query."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return "..." if url else ""
    # The last "@": an unescaped one in the password must not uncover what comes after it.
    rest = rest.rpartition("@")[2].partition("?")[0]
    return f"{scheme}://{rest}"


def parse_url(url: str | None) -> Target:
    """Read a URL. Raises `ConfigError`, which never contains the password."""
    if url is None or url == "":
        return Target(kind="embedded")
    if not isinstance(url, str):
        raise ConfigError(f"a URL is a string ({_KNOWN}), not {type(url).__name__}")
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    if not separator:
        raise ConfigError(f"not a URL; use {_KNOWN}")
    if scheme == "embedded":
        return Target(kind="embedded", directory=_directory(rest) if rest else None)
    if scheme not in _SERVER and scheme not in _CLUSTER:
        raise ConfigError(f"unknown scheme {scheme!r}; use {_KNOWN}")
    _check_parts(f"{scheme}://{rest}")
    if scheme in _CLUSTER:
        return Target(kind="cluster", url=f"{_CLUSTER[scheme]}://{rest}")
    return Target(kind="server", url=f"{scheme}://{rest}")


def _directory(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ConfigError(f"embedded://{path} names the home of a user who is not known here") from None


def _check_parts(url: str) -> None:
    # The standard library quotes what it could not read, which may be the password: say it ourselves.
    escape = 'escape special characters in the password, such as "/" as "%2F" and "@" as "%40"'
    try:
        parts = urlsplit(url)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError:
        raise ConfigError(f"the port in {redact(url)} is not a number from 1 to 65535 ({escape})") from None
    if not port_is_fine:
        raise ConfigError(f"the port in {redact(url)} is not a number from 1 to 65535")
    if parts.scheme == "unix" and not parts.path.strip("/"):
        raise ConfigError("a unix:// URL needs the path of a socket: unix:///run/redis.sock")
    if parts.fragment:
        raise ConfigError(f'{redact(url.partition("#")[0])} has a "#"; {escape}')
    if parts.scheme != "unix":
        _check_database(parts)


def _check_database(parts: SplitResult) -> None:
    database = parts.path.strip("/")
    if database and not database.isdigit():
        raise ConfigError("the path of a Redis URL is the number of a database, such as /0")
    if database.strip("0") and parts.scheme in _CLUSTER:
        raise ConfigError("a Cluster has only database 0")
