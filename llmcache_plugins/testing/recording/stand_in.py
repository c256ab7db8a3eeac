"""What stands in for the server of every cache in a session of tests, and on what terms calls are cached.

Whatever the application says of a call, its answer is recorded: else the session that comes after, without a
provider, would not have it. Two things that it says are heeded: the namespace, and that no provider must be
called.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from llmcache_plugins.models import Mode
from llmcache_plugins.policy.policy import LONGEST_TTL
from llmcache_plugins.testing.recording.deck import Way
from llmcache_plugins.testing.recording.repository import TapedRepository

if TYPE_CHECKING:
    from llmcache_plugins.cache.options import Terms
    from llmcache_plugins.config import CacheConfig
    from llmcache_plugins.policy import CachePolicy
    from llmcache_plugins.repository import ResponseRepository
    from llmcache_plugins.telemetry import Telemetry
    from llmcache_plugins.testing.recording.deck import Decks

__all__ = ["TapeDeck"]

_PATIENT = 60.0
"""Seconds: nothing is waited for, and a busy machine must not look like a server that is away."""


class TapeDeck:
    """A `StandIn` that gives every cache the present deck of a session."""

    def __init__(self, decks: Decks) -> None:
        self.decks = decks

    def repository(
        self, *, config: CacheConfig, telemetry: Telemetry, address: str | None
    ) -> ResponseRepository:
        """Return a repository on the deck of whichever test runs."""
        patient = replace(config, lookup_budget=_PATIENT, commit_budget=_PATIENT)
        return TapedRepository(self.decks, config=patient, telemetry=telemetry, address=address)

    def has_made(self, repository: ResponseRepository) -> bool:
        """Say whether a repository is one of these."""
        return isinstance(repository, TapedRepository)

    def terms(self, terms: Terms) -> Terms:
        """Return terms on which every answer is stored, and none is too old."""
        return msgspec.structs.replace(terms, policy=_recording(terms.policy), ttl=LONGEST_TTL, max_age=None)

    def mode(self, mode: Mode) -> Mode:
        """Return the mode in which recorded answers are served and others are recorded, or missed."""
        if self.decks.way is Way.STRICT or mode is Mode.READ_ONLY:
            return Mode.READ_ONLY
        return Mode.DEFAULT


def _recording(policy: CachePolicy) -> CachePolicy:
    return replace(
        policy,
        ttl=LONGEST_TTL,
        jitter=0.0,
        stale_while_revalidate=0.0,
        stale_if_error=0.0,
        refresh_early=0.0,
        max_temperature=None,
        max_entry_bytes=None,
        cacheable=None,
        allow_truncated=True,
        semantic=False,
    )
