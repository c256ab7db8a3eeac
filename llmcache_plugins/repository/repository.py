"""`ResponseRepository`: the entries, leases and bounds of one namespace on a server.

Owns what keys and scripts mean. Knows nothing of requests, providers or policies; every call says plainly
when the server did not do what was asked. Key layout: `llmcache_plugins.keys`. The scripts and their
replies: `lua/`.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from llmcache_plugins import codec
from llmcache_plugins.config import CacheConfig
from llmcache_plugins.errors import ConfigError
from llmcache_plugins.keys import BucketKeys, CacheKey, KeyLayout
from llmcache_plugins.loops import PerLoop
from llmcache_plugins.models import Absent, Commit, Entry, Found, Invalidation, Lease, Size, WriteStatus
from llmcache_plugins.policy import check_ttl
from llmcache_plugins.repository import maintenance
from llmcache_plugins.repository.invalidating import Voiding
from llmcache_plugins.repository.leases import Leases
from llmcache_plugins.repository.ledger import Ledger
from llmcache_plugins.repository.link import Link
from llmcache_plugins.repository.listing import Listing
from llmcache_plugins.repository.near import NEAR_SECONDS, NearCache
from llmcache_plugins.repository.reading import (
    NAMESPACE_SUBJECT,
    Judge,
    is_current,
    model_subject,
    tag_subject,
)
from llmcache_plugins.repository.rounds import Rounds
from llmcache_plugins.repository.timings import Timings
from llmcache_plugins.repository.topology import connect, wrap
from llmcache_plugins.repository.touches import Touches
from llmcache_plugins.repository.urls import parse_url
from llmcache_plugins.repository.vectors import Vectors
from llmcache_plugins.repository.writing import Writer, check_bounds
from llmcache_plugins.telemetry import Evicted, FoundNear, MarksForgotten, Measured, Telemetry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence
    from types import TracebackType

    from llmcache_plugins.budget import Budget
    from llmcache_plugins.repository.scripts import Argument
    from llmcache_plugins.repository.topology import Topology

__all__ = ["ResponseRepository"]

_log = logging.getLogger("llmcache_plugins")

_PAGE = 64
_LONGEST_LISTED = 64 * 1024
_FOUND_NEAR = FoundNear()
FIRST_START = 6.0
"""Seconds the embedded server may take to start, outside every budget."""


class ResponseRepository:
    """Stored answers on a Redis, a Valkey, a Cluster, or the embedded server when no URL is given.

    `client` is a `redis.asyncio` client of the caller's: used as it is and never closed. Each running
    event loop of each process gets a connection pool of its own, closed with its loop. Nothing is opened
    before the first call. `default_ttl` (seconds) is for `persist` without one.

    Calls raise `RepositoryUnavailable` when the server does not answer and `RepositoryError` when it
    refuses. A caller that is cancelled disturbs nobody else.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        client: object | None = None,
        config: CacheConfig | None = None,
        default_ttl: float = 3600.0,
        telemetry: Telemetry | None = None,
    ) -> None:
        if client is not None and url is not None:
            raise ConfigError("give a URL or a client, not both")
        self.config = config or CacheConfig()
        self.telemetry = telemetry or Telemetry()
        self.default_ttl = check_ttl(default_ttl)
        self._client = client
        self._target = None if client is not None else parse_url(url)
        # Says what is wrong with a URL, a client or a bound now, not at the first call.
        check_bounds(self.config, buckets=self._new_topology().buckets)
        self._links = PerLoop(self._new_link)
        self._timings = Timings(self.config)
        self._near = NearCache(most_bytes=self.config.near_cache_bytes) if self.config.near_cache else None
        self._writer = Writer(
            locate=self._locate,
            config=self.config,
            timings=self._timings,
            telemetry=self.telemetry,
            near=self._near,
        )
        self._judge = Judge(telemetry=self.telemetry, marks_ms=self._timings.marks_ms())
        self.leases = Leases(
            locate=self._locate, judge=self._judge, writer=self._writer, timings=self._timings
        )
        self.vectors = Vectors(links=self._links, layout=self._layout)
        self.ledger = Ledger(links=self._links, config=self.config, on_change=self._go_round)
        self._rounds = Rounds(links=self._links, ledger=self.ledger, measure=self._measure)
        self.listing = Listing(
            prefix=self.config.prefix,
            links=self._links,
            layout=self._layout,
            read=partial(self.fetch, touch=False),
        )
        if url is None and client is None:
            _log.info("no Redis URL: answers are kept by a server on this machine, for this user only")

    @property
    def address(self) -> str | None:
        """The URL of the server without user, password and query; None for a client of the caller's."""
        return self._target.address if self._target is not None else None

    @property
    def hides_credentials(self) -> bool:
        """Whether the server's URL has a user, a password or a query, which `address` lacks."""
        return self._target is not None and self._target.hides_credentials

    # -- reading ---------------------------------------------------------------------------------------

    async def fetch(self, key: CacheKey, *, budget: Budget | None = None, touch: bool = True) -> Found | None:
        """Return the valid entry of a key, or None. One round trip, joined with others of this moment.

        Bytes that are not an entry of ours are counted and are a miss. Without `touch` it does not count as
        a use of the entry, and the near cache is not asked.
        """
        found = await self.look_up(key, budget=budget, touch=touch)
        return found if isinstance(found, Found) else None

    async def fetch_many(
        self, keys: Iterable[CacheKey], *, budget: Budget | None = None
    ) -> list[Found | None]:
        """Return the valid entries of many keys, in their order."""

        async def all_of_them() -> list[Found | None]:
            return list(await asyncio.gather(*map(self.fetch, keys)))

        return await self._links.current().owned(all_of_them(), budget)

    async def look_up(
        self, key: CacheKey, *, budget: Budget | None = None, touch: bool = True
    ) -> Found | Absent:
        """Like `fetch`; a miss says which entry, if any, was read and could not be used."""
        near = self._near if touch else None
        if near is not None and (held := self.at_hand(key)) is not None:
            return held
        link, names = self._locate(key)
        asked_at = near.now() if near is not None else 0.0
        waiting = link.fetch(root=names.root, entry=names["entry"])
        raw = await (budget.receive(waiting) if budget else waiting)
        if isinstance(raw, Exception):
            raise raw
        if is_current(raw.value, raw.epoch):
            found = self._judge.open(names, raw.value)
        else:
            judging = self._judge.judge(link, names, raw.value, raw.epoch)
            found = await link.owned(judging, budget)
        if touch and isinstance(found, Found):
            self._touch(link, names, found)
            if near is not None:
                near.put(key, found, asked_at=asked_at)
        return found

    def at_hand(self, key: CacheKey) -> Found | None:
        """Return the entry of a key if the near cache has it. From any thread, with or without a loop."""
        found = self._near.get(key) if self._near is not None else None
        if found is not None:
            self.telemetry.emit(_FOUND_NEAR)
        return found

    async def latest(
        self, namespace: str | None = None, *, most: int = 1000
    ) -> AsyncIterator[tuple[str, Entry]]:
        """Yield digests and entries of those that were used last, the latest first; that is no use of them.

        What is longer than 64 KiB is left out.
        """
        link = self._links.current()
        layout = self._layout(self.config.namespace if namespace is None else namespace, link)
        rows = [digest for digest, n in await maintenance.latest(link, layout, most) if n <= _LONGEST_LISTED]
        for first in range(0, len(rows), _PAGE):
            page = rows[first : first + _PAGE]
            keys = [CacheKey(digest=d, namespace=layout.namespace, prefix=layout.prefix) for d in page]
            found = await asyncio.gather(*(self.fetch(key, touch=False) for key in keys))
            for digest, one in zip(page, found, strict=True):
                if one is not None:
                    yield digest, one.entry

    # -- writing ---------------------------------------------------------------------------------------

    async def persist(self, key: CacheKey, entry: Entry, *, ttl: float | None = None) -> Commit:
        """Store an entry: value with TTL, access log, size and bounds in one round trip.

        `ttl` is in seconds; 0 means "do not store", None the default. Replaces what is there.
        """
        seconds = self.default_ttl if ttl is None else check_ttl(ttl)
        if seconds <= 0:
            return Commit(status=WriteStatus.NOT_WANTED)
        if len(entry.answer.payload) > self.config.max_entry_bytes:
            return Commit(status=WriteStatus.TOO_BIG)
        nobody = Lease(token="", fence="", birth="", is_held=False)
        return await self._writer.write(key, entry, ttl=seconds, lease=nobody)

    async def delete(self, key: CacheKey) -> bool:
        """Remove one entry and void the flights for it; return whether there was one.

        Afterwards no process serves the answer. Raises `InvalidationIncomplete` when that is not known.
        """
        return bool((await self.invalidate(key.namespace, keys=[key])).entries)

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
        """Void all answers of a namespace with one of these tags, models or keys, or `everything` in it.

        Constant work, whatever the number of entries: one script for each bucket, and those that are voided
        take no more room than others until they are next met, expire or are evicted. Afterwards no process
        serves them, and what flights under way bring is not stored; processes with a near cache let go of
        them within a second, for which `wait` waits. With `replicas` it waits, at most `patience` seconds,
        until so many replicas of each node have acknowledged: what fewer have may be undone by a fail-over.
        Raises `InvalidationIncomplete` when not every bucket has acknowledged;
        repeating is safe.
        """
        link = self._links.current()
        layout = self._layout(self.config.namespace if namespace is None else namespace, link)
        wide = [*map(tag_subject, tags), *map(model_subject, models), *[NAMESPACE_SUBJECT] * everything]
        subjects = {number: list(wide) for number in range(layout.buckets)} if wide else {}
        for key in keys:
            subjects.setdefault(layout.bucket_of(key.digest), []).append(f"k:{key.digest}")
        voiding = Voiding(
            marks_ms=self._timings.marks_ms(),
            oldest_us=self._timings.oldest_us,
            replicas=replicas,
            patience=patience,
        )
        try:
            done = await voiding.run(link, layout, subjects)
        finally:
            # Not all may have been done, or be known to be: what is still good is read once more.
            if self._near is not None:
                self._near.drop_all()
        if done.forgotten:
            self.telemetry.emit(MarksForgotten(marks=done.forgotten))
        if wait:
            await asyncio.sleep(NEAR_SECONDS)
        return done

    async def clear(self, namespace: str | None = None, *, wait: bool = False) -> int:
        """Remove everything of a namespace and void the flights in it; return how many entries went.

        On return no byte of its answers is in Redis, nor of streams that were under way: who reads one of
        those from another process is interrupted. What is committed by flights that begin later stays. Other
        namespaces are never touched, whatever the name. Raises `InvalidationIncomplete` when not every bucket
        has acknowledged, and what other calls raise when the removal is cut short; repeating is safe.
        """
        link = self._links.current()
        layout = self._layout(self.config.namespace if namespace is None else namespace, link)
        await self.invalidate(layout.namespace, everything=True, wait=wait)
        return await maintenance.sweep(link, layout)

    async def evict_stale(self, max_keys: int = 10_000) -> int:
        """Remove the least recently used entries of the namespace beyond `max_keys`; return how many.

        Entries that have expired or that the server evicted are first taken off the books. In a Cluster
        each bucket gives its share.
        """
        if isinstance(max_keys, bool) or not isinstance(max_keys, int) or max_keys < 0:
            raise ConfigError(f"max_keys must be a whole number from 0, not {max_keys!r}")
        link = self._links.current()
        await self._touches(link).flush()
        evicted = await maintenance.evict_to(link, self._layout(self.config.namespace, link), max_keys)
        self._count_evicted(evicted)
        return evicted

    async def size(self, *, budget: Budget | None = None) -> Size:
        """Return how many entries and bytes the namespace holds.

        Upper bounds: what expired or was evicted by the server counts until a write or `evict_stale`
        meets it.
        """
        link = self._links.current()
        measuring = maintenance.measure(link, self._layout(self.config.namespace, link))
        buckets = await link.owned(measuring, budget)
        return Size(entries=sum(n for n, _ in buckets), stored_bytes=sum(b for _, b in buckets))

    # -- life ------------------------------------------------------------------------------------------

    async def ready(self) -> None:
        """Wait for the embedded server to start, at most 6 seconds. Returns at once elsewhere.

        Never raises: the call that follows says, and logs, what is wrong.
        """
        if self._is_embedded and not self._links.current().is_open:
            await self.open(timeout=FIRST_START)

    async def open(self, *, timeout: float = 1.0) -> None:
        """Connect and load the scripts, at most `timeout` seconds. Never raises."""
        link = self._links.current()
        if link.is_known_bad:
            return
        await asyncio.wait((link.spawn(link.opened_wholly()),), timeout=timeout)

    async def ping(self) -> None:
        """Connect if need be and raise what is wrong: `ConfigError` or a `RepositoryError`."""
        await asyncio.shield(self._links.current().opened())

    async def aclose(self) -> None:
        """Close what this repository opened on the running loop. A client handed in stays open."""
        link = self._links.pop()
        if link is not None:
            await link.aclose()

    async def __aenter__(self) -> Self:
        await self.open(timeout=FIRST_START if self._is_embedded else 1.0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def redis_key(self, key: CacheKey) -> str:
        """Return the Redis key under which this repository keeps an entry. Needs a running loop."""
        return self._locate(key)[1]["entry"]

    @property
    def largest_entry(self) -> int:
        """The most bytes an answer may have to be stored."""
        if self.config.max_bytes is None:
            return self.config.max_entry_bytes
        buckets = self._links.current().topology.buckets
        return min(self.config.max_entry_bytes, self.config.max_bytes // buckets - codec.HEADER_BYTES)

    # -- inside ----------------------------------------------------------------------------------------

    def _touch(self, link: Link, names: BucketKeys, found: Found) -> None:
        self._touches(link).add(root=names.root, member=f"{names.digest}:{found.stored_bytes}")

    def _touches(self, link: Link) -> Touches:
        if link.touches is None:

            def note(root: str, members: Sequence[str]) -> asyncio.Future[Any]:
                arguments: dict[str, Argument] = {"marks_ms": self._timings.marks_ms(), "root": root}
                return link.start("touch", BucketKeys(root), arguments, members)

            link.touches = Touches(note=note)
            link.before_close.append(link.touches.flush)
        return link.touches

    def _go_round(self) -> None:
        self._rounds.soon()

    async def _measure(self, link: Link) -> None:
        layout = self._layout(self.config.namespace, link)
        buckets = await maintenance.measure(link, layout)
        place = hash((self.address, layout.prefix, layout.namespace))
        entries, stored_bytes = (sum(column) for column in zip(*buckets, strict=True))
        self.telemetry.emit(Measured(place=place, entries=entries, stored_bytes=stored_bytes))

    def _count_evicted(self, entries: int) -> None:
        if entries:
            self.telemetry.emit(Evicted(entries=entries))

    def _locate(self, key: CacheKey) -> tuple[Link, BucketKeys]:
        link = self._links.current()
        return link, self._layout(key.namespace, link).request(key.digest)

    def _layout(self, namespace: str, link: Link) -> KeyLayout:
        return KeyLayout(prefix=self.config.prefix, namespace=namespace, buckets=link.topology.buckets)

    @property
    def _is_embedded(self) -> bool:
        return self._target is not None and self._target.kind == "embedded"

    def _new_topology(self) -> Topology:
        if self._target is None:
            return wrap(self._client)
        return connect(
            self._target,
            socket_timeout=self.config.socket_timeout,
            connect_timeout=self.config.connect_timeout,
        )

    def _new_link(self) -> Link:
        link = Link(
            self._new_topology(),
            telemetry=self.telemetry,
            command_timeout=self.config.connect_timeout + self.config.socket_timeout,
            # A patient socket is no reason to wait for a confirmation from a server that hangs.
            wake_patience=min(self.config.socket_timeout, self.config.connect_timeout),
        )
        link.before_close.append(partial(self._rounds.last, link))
        return link
