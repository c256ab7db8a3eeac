"""What the demo runs on: a server for the cache, and a provider behind HTTP.

Owns starting them, ending them, and counting what arrives at the provider. Knows nothing of the parts.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from llmcache_plugins.cache import ResponseCache
from llmcache_plugins.policy import CachePolicy
from llmcache_plugins.repository.embedded import EmbeddedServer
from llmcache_plugins.testing.provider_server import ProviderServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

__all__ = [
    "LOOKUP_BUDGET",
    "Api",
    "Stage",
    "WireCount",
    "new_cache",
    "open_client",
    "open_stage",
    "server_url",
]

_START_SECONDS = 15.0
_IDLE_SECONDS = 60.0
"""How long the demo's own server outlives a demo that was killed."""
_TTL = 600.0
"""Should the demo be killed, a server that is not its own forgets the answers by itself."""
LOOKUP_BUDGET = 1.0
"""Users, provider, cache and server share this machine. On a busy one the server may not get its turn within
the default of 50 ms; those calls would go to the provider, as they should, and show nothing of the cache."""
_TIMEOUT = 60.0
"""Seconds for one answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """Where answers come from. An empty `base_url` means the stand-in."""

    base_url: str = ""
    key: str = field(default="stand-in", repr=False)
    is_stand_in: bool = True


@dataclass(slots=True)
class WireCount:
    """Calls that left this process, counted where the HTTP client sends them."""

    calls: int = 0

    async def note(self, request: Any) -> None:
        """Count one HTTP request, unless the SDK sends it again."""
        if request.headers.get("x-stainless-retry-count", "0") == "0":
            self.calls += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A provider that is ready."""

    api: Api
    client: AsyncOpenAI
    wire: WireCount
    count: Callable[[], int]
    """How many calls have arrived: the stand-in's own count, or what left for a real provider."""


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


def new_cache(url: str, *, namespace: str) -> ResponseCache:
    """Return a cache as the demo uses it: the defaults, but for how long answers live and lookups wait."""
    return ResponseCache.from_url(
        url,
        namespace=namespace,
        policy=CachePolicy(ttl=_TTL),
        lookup_budget=LOOKUP_BUDGET,
        socket_timeout=LOOKUP_BUDGET,
    )


@asynccontextmanager
async def open_stage(api: Api, *, median_seconds: float) -> AsyncIterator[Stage]:
    """Start the stand-in, unless `api` is a real provider, and open a client."""
    wire = WireCount()
    async with AsyncExitStack() as stack:
        count = lambda: wire.calls  # noqa: E731 - one of two ways to count, chosen below
        if api.is_stand_in:
            provider = await stack.enter_async_context(ProviderServer(median_seconds=median_seconds))
            api, count = replace(api, base_url=provider.base_url), lambda: provider.calls
        client = await stack.enter_async_context(open_client(api, wire=wire))
        yield Stage(api=api, client=client, wire=wire, count=count)


def open_client(api: Api, *, wire: WireCount) -> AsyncOpenAI:
    """Return a client for `async with` that counts what it sends."""
    http = DefaultAsyncHttpxClient(
        event_hooks={"request": [wire.note]},
        # A proxy from the environment must not be asked for an address on this machine.
        trust_env=not api.is_stand_in,
    )
    return AsyncOpenAI(
        base_url=api.base_url,
        api_key=api.key,
        http_client=http,
        timeout=_TIMEOUT,
        # The stand-in does not fail; a second attempt would hide that it did.
        max_retries=0 if api.is_stand_in else 2,
    )
