"""What a load runs on: a server for the cache, and a provider behind HTTP.

Owns starting them, ending them, and counting what arrives at the provider. Knows nothing of the load.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from llmcache_plugins.cache import ResponseCache
from llmcache_plugins.cli.support import CannotRun
from llmcache_plugins.policy import CachePolicy
from llmcache_plugins.repository.embedded import EmbeddedServer
from llmcache_plugins.repository.urls import redact
from llmcache_plugins.testing.provider_server import ProviderServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

__all__ = [
    "LOOKUP_BUDGET",
    "TIMEOUT",
    "Api",
    "Source",
    "Stage",
    "WireCount",
    "api_of",
    "new_cache",
    "open_client",
    "open_http",
    "open_source",
    "open_stage",
    "server_url",
]

_START_SECONDS = 15.0
_IDLE_SECONDS = 60.0
"""How long a server of the verb's own outlives a verb that was killed."""
_TTL = 600.0
"""Should the verb be killed, a server that is not its own forgets the answers by itself."""
LOOKUP_BUDGET = 1.0
"""Users, provider, cache and server share this machine. On a busy one the server may not get its turn within
the default of 50 ms; those calls would go to the provider, as they should, and show nothing of the cache."""
TIMEOUT = 60.0
"""Seconds for one answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """Where answers come from. An empty `base_url` means the stand-in."""

    base_url: str = ""
    key: str = field(default="stand-in", repr=False)
    is_stand_in: bool = True

    @property
    def max_retries(self) -> int:
        """How often a client tries again. The stand-in does not fail; a retry would hide that it did."""
        return 0 if self.is_stand_in else 2


def api_of(api_base: str | None, key_env: str) -> Api:
    """Return the provider at an address, with the key in that variable; without an address the stand-in.

    Raises `CannotRun` where there is no key.
    """
    if not api_base:
        return Api()
    key = os.environ.get(key_env)
    if not key:
        raise CannotRun(
            f"no key for {redact(api_base)}: set {key_env}, or name another variable with --api-key-env"
        )
    return Api(base_url=api_base, key=key, is_stand_in=False)


@dataclass(slots=True)
class WireCount:
    """Calls that left this process, counted where the HTTP client sends them."""

    calls: int = 0

    async def note(self, request: Any) -> None:
        """Count one HTTP request, unless the SDK sends it again."""
        if request.headers.get("x-stainless-retry-count", "0") == "0":
            self.calls += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A provider that is ready."""

    api: Api
    wire: WireCount
    """What its clients send."""
    count: Callable[[], int]
    """How many calls have arrived: the stand-in's own count, or what left for a real provider."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage(Source):
    """A provider, and a client of it."""

    client: AsyncOpenAI


@contextmanager
def server_url(url: str | None) -> Iterator[str]:
    """Give the URL of a server: the one named, or an embedded one that is new and ends with this block.

    Raises `ConfigError`, `EmbeddedServerError`, or ImportError without the `embedded` extra.
    """
    if url:
        yield url
        return
    with tempfile.TemporaryDirectory(prefix="llmcache-demo-") as directory:
        server = EmbeddedServer(Path(directory), idle_seconds=_IDLE_SECONDS)
        try:
            server.ensure(timeout=_START_SECONDS)
            yield f"embedded://{server.directory}"
        finally:
            server.stop()
            if server.socket_path.parent != server.directory:
                # Where paths in TMPDIR are too long for a socket.
                shutil.rmtree(server.socket_path.parent, ignore_errors=True)


def new_cache(url: str, *, namespace: str, near_cache: bool = False) -> ResponseCache:
    """Return a cache as the verbs use it: the defaults, but for how long answers live and lookups wait."""
    return ResponseCache.from_url(
        url,
        namespace=namespace,
        policy=CachePolicy(ttl=_TTL),
        lookup_budget=LOOKUP_BUDGET,
        socket_timeout=LOOKUP_BUDGET,
        near_cache=near_cache,
        # What a load saves is nobody's savings.
        ledger_days=0,
    )


@asynccontextmanager
async def open_stage(api: Api, *, median_seconds: float) -> AsyncIterator[Stage]:
    """Do as `open_source`, and open a client."""
    async with (
        open_source(api, median_seconds=median_seconds) as source,
        open_client(source.api, wire=source.wire) as client,
    ):
        yield Stage(api=source.api, wire=source.wire, count=source.count, client=client)


@asynccontextmanager
async def open_source(api: Api, *, median_seconds: float) -> AsyncIterator[Source]:
    """Start a stand-in, unless `api` is a real provider."""
    wire = WireCount()
    if not api.is_stand_in:
        yield Source(api=api, wire=wire, count=lambda: wire.calls)
        return
    async with ProviderServer(median_seconds=median_seconds) as provider:
        yield Source(api=replace(api, base_url=provider.base_url), wire=wire, count=lambda: provider.calls)


def open_client(api: Api, *, wire: WireCount) -> AsyncOpenAI:
    """Return a client for `async with` that counts what it sends."""
    return AsyncOpenAI(
        base_url=api.base_url,
        api_key=api.key,
        http_client=open_http(api, wire=wire),
        timeout=TIMEOUT,
        max_retries=api.max_retries,
    )


def open_http(api: Api, *, wire: WireCount) -> DefaultAsyncHttpxClient:
    """Return an HTTP client for `async with` that counts what it sends."""
    return DefaultAsyncHttpxClient(
        event_hooks={"request": [wire.note]},
        # A proxy from the environment must not be asked for an address on this machine.
        trust_env=not api.is_stand_in,
    )
