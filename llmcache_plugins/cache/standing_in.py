"""Who stands in for every server of this process: nobody, or a session of tests.

A cache asks once, when it is made. Owns the place and nothing else: what stands in there, and what it makes
of the terms of a call, is its own affair.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from llmcache_plugins.repository import ResponseRepository
from llmcache_plugins.repository.urls import parse_url

if TYPE_CHECKING:
    from llmcache_plugins.cache.options import Terms
    from llmcache_plugins.config import CacheConfig
    from llmcache_plugins.models import Mode
    from llmcache_plugins.telemetry import Telemetry

__all__ = ["StandIn", "in_its_place", "make_repository", "stand_in", "take_the_place"]


class StandIn(Protocol):
    """Takes the place of every server, and decides on what terms calls are cached there.

    The semantic layer of a cache is left out: an embedder may be a provider too.
    """

    def repository(
        self, *, config: CacheConfig, telemetry: Telemetry, address: str | None
    ) -> ResponseRepository:
        """Return the repository of a cache that would be at `address`."""

    def has_made(self, repository: ResponseRepository) -> bool:
        """Say whether a repository is one of its own."""

    def terms(self, terms: Terms) -> Terms:
        """Return the terms of a call whose own would be these."""

    def mode(self, mode: Mode) -> Mode:
        """Return the mode of a call whose own would be this."""


_now: StandIn | None = None


def stand_in() -> StandIn | None:
    """Return who stands in for servers at this moment."""
    return _now


def take_the_place(one: StandIn | None) -> None:
    """Let `one` stand in for the servers of all caches that are made from now on; None for nobody."""
    global _now
    _now = one


def make_repository(url: str | None, *, config: CacheConfig, telemetry: Telemetry) -> ResponseRepository:
    """Return the repository at a URL, or what stands in for it. Raises `ConfigError`."""
    if _now is None:
        return ResponseRepository(url, config=config, telemetry=telemetry)
    return _now.repository(config=config, telemetry=telemetry, address=parse_url(url).address)


def in_its_place(repository: ResponseRepository) -> ResponseRepository:
    """Return a repository that was handed in, or what stands in for it."""
    if _now is None or _now.has_made(repository):
        return repository
    return _now.repository(
        config=repository.config, telemetry=repository.telemetry, address=repository.address
    )
