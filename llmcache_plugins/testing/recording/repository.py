"""A `ResponseRepository` without a server: the answers of the present deck.

Owns what of a repository means something in a session of tests. An answer does not expire, is not evicted and
not forgotten: each request has one answer in a test, whatever the application does to its cache. Nobody waits
for another process, and callers on several event loops at once ask the provider each for itself; those on one
loop share flights as ever.
"""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from llmcache_plugins.config import MAX_STORABLE_BYTES
from llmcache_plugins.errors import CacheMiss
from llmcache_plugins.models import (
    UNKNOWN,
    Absent,
    Commit,
    Entry,
    Found,
    Invalidation,
    Lease,
    Size,
    Tail,
    WriteStatus,
)
from llmcache_plugins.policy.policy import LONGEST_TTL
from llmcache_plugins.repository import Ear, Leases, ResponseRepository
from llmcache_plugins.repository.ledger import Ledger
from llmcache_plugins.savings import Savings
from llmcache_plugins.testing.recording.cassette import Recorded
from llmcache_plugins.testing.recording.deck import Way

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from llmcache_plugins.budget import Budget
    from llmcache_plugins.config import CacheConfig
    from llmcache_plugins.keys import CacheKey
    from llmcache_plugins.models import Provenance, Record
    from llmcache_plugins.repository import Acquired, Ask
    from llmcache_plugins.telemetry import Telemetry
    from llmcache_plugins.testing.recording.deck import Deck, Decks

__all__ = ["TapedRepository"]

_FENCE = f"{1:016d}"


class TapedRepository(ResponseRepository):
    """What stands in for the repository of one cache. Opens nothing, and never waits."""

    def __init__(  # the base class would look for a server
        self, decks: Decks, *, config: CacheConfig, telemetry: Telemetry, address: str | None
    ) -> None:
        self.config = config
        self.telemetry = telemetry
        self.default_ttl = LONGEST_TTL
        self.leases = _TapedLeases(self, decks)
        self.ledger = _NoLedger()
        self._address = address
        self._decks = decks

    @property
    def address(self) -> str | None:
        """Where the application believes its cache to be."""
        return self._address

    @property
    def hides_credentials(self) -> bool:
        """False: there are none."""
        return False

    # -- reading ---------------------------------------------------------------------------------------

    async def fetch_many(
        self, keys: Iterable[CacheKey], *, budget: Budget | None = None
    ) -> list[Found | None]:
        """Return the answers of many keys, in their order."""
        return [await self.fetch(key) for key in keys]

    async def look_up(
        self, key: CacheKey, *, budget: Budget | None = None, touch: bool = True
    ) -> Found | Absent:
        """Return the recorded answer. Raises `CacheMiss` where there must be one and is none."""
        deck = self._decks.present
        recorded = deck.find(key, counts=touch) if deck is not None else None
        if recorded is not None:
            return _found(recorded)
        if touch and self._decks.way is Way.STRICT:
            raise CacheMiss(_missing(key, deck))
        return Absent()

    def at_hand(self, key: CacheKey) -> Found | None:
        """Return None: nothing is nearer than the deck."""
        return None

    async def latest(
        self, namespace: str | None = None, *, most: int = 1000
    ) -> AsyncIterator[tuple[str, Entry]]:
        """Yield the digests and answers of a namespace, in the order of the cassette."""
        deck = self._decks.present
        of_all = deck.of(namespace or self.config.namespace) if deck is not None else {}
        for _, digest in sorted(of_all)[:most]:
            yield digest, _entry(of_all[namespace or self.config.namespace, digest])

    # -- writing ---------------------------------------------------------------------------------------

    async def persist(self, key: CacheKey, entry: Entry, *, ttl: float | None = None) -> Commit:
        """Keep an answer for the present test."""
        return self.keep(self._decks.present, key, entry)

    def keep(self, deck: Deck | None, key: CacheKey, entry: Entry) -> Commit:
        """Keep an answer in a deck, unless it has one for this key."""
        if deck is None:
            return Commit(status=WriteStatus.NOT_WANTED)
        deck.add(key, Recorded(answer=entry.answer, provenance=entry.provenance))
        return Commit(status=WriteStatus.OK)

    async def delete(self, key: CacheKey) -> bool:
        """Forget nothing."""
        return False

    async def invalidate(
        self,
        namespace: str | None = None,
        *,
        tags: Iterable[str] = (),
        models: Iterable[str] = (),
        keys: Iterable[CacheKey] = (),
        everything: bool = False,
        replicas: int = 0,
        patience: float = 1.0,
        wait: bool = False,
    ) -> Invalidation:
        """Forget nothing: who asks again would be asking the provider."""
        return Invalidation(entries=0, replicas=replicas or None)

    async def clear(self, namespace: str | None = None, *, wait: bool = False) -> int:
        """Forget nothing."""
        return 0

    async def evict_stale(self, max_keys: int = 10_000) -> int:
        """Forget nothing."""
        return 0

    async def size(self, *, budget: Budget | None = None) -> Size:
        """Return how many answers the present test has in the cache's namespace."""
        deck = self._decks.present
        answers = deck.of(self.config.namespace).values() if deck is not None else ()
        return Size(entries=len(answers), stored_bytes=sum(len(one.answer.payload) for one in answers))

    # -- life ------------------------------------------------------------------------------------------

    async def ready(self) -> None:
        """Return at once."""

    async def open(self, *, timeout: float = 1.0) -> None:
        """Return at once."""

    async def ping(self) -> None:
        """Return at once."""

    async def aclose(self) -> None:
        """Return at once."""

    async def __aenter__(self) -> TapedRepository:  # noqa: PYI034 - mypy wants Self of a subclass' base
        return self

    def redis_key(self, key: CacheKey) -> str:
        """Return the key's name: there is no Redis."""
        return str(key)

    @property
    def largest_entry(self) -> int:
        """The most bytes an answer may have to be stored."""
        return MAX_STORABLE_BYTES


class _TapedLeases(Leases):
    """Sends whoever asks. A lease remembers the deck it was given for, as its birth."""

    def __init__(self, repository: TapedRepository, decks: Decks) -> None:
        self._repository = repository
        self._decks = decks

    async def acquire(
        self,
        key: CacheKey,
        *,
        token: str,
        mode: Ask = "lead",
        seen: str = "",
        since: str = "",
        live: bool = False,
        provenance: Provenance = UNKNOWN,
    ) -> Acquired:
        if not seen:
            found = await self._repository.look_up(key)
            if isinstance(found, Found):
                return found
        if mode == "follow":
            return Absent()
        deck = self._decks.present
        if deck is not None:
            deck.send(token)
        birth = f"{deck.number if deck is not None else 0:016d}"
        return Lease(token=token, fence=_FENCE, birth=birth, is_held=False, provenance=provenance)

    async def renew(self, key: CacheKey, lease: Lease) -> bool:
        return True

    async def commit(self, key: CacheKey, entry: Entry, *, ttl: float, lease: Lease) -> Commit:
        deck = self._deck_of(lease)
        kept = self._repository.keep(deck, key, entry)
        if deck is not None:
            deck.returned(lease.token)
        return kept

    async def fail(
        self, key: CacheKey, *, token: str, lease: Lease | None = None, record: Record | None = None
    ) -> WriteStatus:
        deck = self._deck_of(lease)
        if deck is not None:
            deck.returned(token)
        return WriteStatus.OK

    async def publish(
        self, key: CacheKey, lease: Lease, *, first: int, last: int, data: bytes, is_end: bool, most: int
    ) -> bool:
        return False

    async def tail(self, key: CacheKey, *, fence: str, count: int) -> Tail:
        return Tail(is_there=False)

    @asynccontextmanager
    async def listen(self, key: CacheKey) -> AsyncIterator[Ear]:
        yield Ear()

    def _deck_of(self, lease: Lease | None) -> Deck | None:
        if lease is None or not lease.birth:
            return self._decks.present
        return self._decks.numbered(int(lease.birth))


class _NoLedger(Ledger):
    """Counts nothing: what a test saves is no saving."""

    def __init__(self) -> None:
        self._days = 0

    def start_anew(self) -> None:
        pass

    async def read(self, *, days: int | None = None) -> Savings:
        return Savings(rows=())


def _found(recorded: Recorded) -> Found:
    return Found(entry=_entry(recorded), fence=_FENCE, stored_bytes=len(recorded.answer.payload))


def _entry(recorded: Recorded) -> Entry:
    # Of this moment: no recorded answer is old.
    now = time.time()
    return Entry(
        answer=recorded.answer, created=now, fresh_until=now + LONGEST_TTL, provenance=recorded.provenance
    )


def _missing(key: CacheKey, deck: Deck | None) -> str:
    what = f"a call of {key.model!r}" if key.model else "a call"
    where = f"in {deck.shown}" if deck is not None else "for calls outside of tests and fixtures"
    text = (
        f"{what} has no recorded answer {where} (key {key.digest[:16]}, namespace {key.namespace!r}):"
        " record it with pytest --llmcache=record"
    )
    if deck is not None:
        deck.missed.append(text)
    return text
