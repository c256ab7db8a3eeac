"""Streams: passed on chunk by chunk as they come, stored when the provider has said their end.

An interrupted stream is never an entry: not when the provider breaks off, nor when the reader does. A
stored answer, streamed or not, is replayed as chunks. Streams take no lease: identical ones that run at
the same time each have a provider call of their own.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmcache_plugins.budget import Budget
from llmcache_plugins.cache.claim import Claim
from llmcache_plugins.cache.shelf import clock
from llmcache_plugins.errors import ConfigError, CorruptEntry, RepositoryError
from llmcache_plugins.models import Absent, Found, Lease
from llmcache_plugins.policy import Refusal
from llmcache_plugins.telemetry import ProviderCalled

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from llmcache_plugins.answers import StreamCodec
    from llmcache_plugins.cache.shelf import Shelf, Stored
    from llmcache_plugins.keys import CacheKey
    from llmcache_plugins.loops import Tasks
    from llmcache_plugins.models import EncodedAnswer, Entry
    from llmcache_plugins.repository import ResponseRepository

__all__ = ["Live", "Replay", "StreamJob", "Streamer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamJob:
    """One request for a stream. `open` starts the provider's; a `ttl` of 0 only reads."""

    key: CacheKey
    query: Any
    open: Callable[[], AsyncGenerator[Any, None]]
    codec: StreamCodec
    ttl: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """A stored answer as chunks."""

    entry: Entry
    chunks: Sequence[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """Nothing is stored: the provider is to be asked. `claim` is None when its answer is not wanted."""

    reachable: bool
    claim: Claim | None
    lease: Lease | None = None


class Streamer:
    """Replays what is stored, and stores what was streamed to its end. `tasks` owns what goes on after."""

    def __init__(self, repository: ResponseRepository, shelf: Shelf) -> None:
        self._repository = repository
        self._shelf = shelf

    async def find(self, job: StreamJob, tasks: Tasks) -> Replay | Live:
        """Return the replay of a stored answer, else the right to store one."""
        await self._repository.ready()
        budget = Budget(self._repository.config.lookup_budget)
        claim = Claim(self._repository, job.key, tasks=tasks) if job.ttl > 0 else None
        try:
            found = await self._repository.look_up(job.key, budget=budget)
            if (replay := self._replay(job, found)) is not None:
                return replay
            if claim is None:
                return Live(reachable=True, claim=None)
            return await self._claim(job, claim, budget, seen=_fence(found))
        except (RepositoryError, ConfigError):
            return Live(reachable=False, claim=claim)
        except BaseException:
            if claim is not None:
                await claim.let_go()
            raise

    async def live(self, job: StreamJob, turn: Live, tasks: Tasks) -> AsyncGenerator[Any, None]:
        """Pass the provider's stream on, unchanged; store it at its clean end."""
        if turn.claim is not None and not turn.reachable:
            turn.claim.ask_later(mode="fence")
        called_at, complete = clock(), False
        chunks: list[Any] = []
        try:
            async with aclosing(job.open()) as stream:
                async for chunk in stream:
                    chunks.append(chunk)
                    yield chunk
            complete = True
        finally:
            if not complete:
                self._count_call(called_at, None, failed=True)
                if turn.claim is not None:
                    await turn.claim.let_go()
        encoded = self._shelf.encode(lambda: job.codec.join(chunks))
        self._count_call(called_at, encoded, failed=False)
        if turn.claim is not None:
            await self._keep(job, turn, encoded, called_at=called_at, tasks=tasks)

    async def _claim(self, job: StreamJob, claim: Claim, budget: Budget, *, seen: str) -> Replay | Live:
        reply = await claim.ask(budget, mode="fence", seen=seen)
        if isinstance(reply, Found) and (replay := self._replay(job, reply)) is not None:
            return replay
        return Live(reachable=True, claim=claim, lease=reply if isinstance(reply, Lease) else None)

    def _replay(self, job: StreamJob, found: Found | Absent) -> Replay | None:
        if not isinstance(found, Found) or self._shelf.open(job.codec, found) is None:
            return None
        try:
            chunks = list(job.codec.split(found.entry.answer, query=job.query))
        except CorruptEntry:
            return None
        return Replay(entry=found.entry, chunks=chunks)

    async def _keep(
        self, job: StreamJob, turn: Live, encoded: EncodedAnswer | None, *, called_at: float, tasks: Tasks
    ) -> None:
        refusal = self._shelf.refusal_of(encoded)
        if encoded is None or refusal is not None:
            self._shelf.refuse(refusal or Refusal.NO_CODEC)
            return
        entry = self._shelf.entry_of(encoded, ttl=job.ttl, seconds=clock() - called_at)
        storing = tasks.spawn(self._store(job, turn, entry, called_at=called_at))
        if turn.reachable:
            await self._shelf.in_time(storing)

    async def _store(self, job: StreamJob, turn: Live, entry: Entry, *, called_at: float) -> Stored:
        lease = turn.lease
        if lease is None and turn.claim is not None:
            lease = await turn.claim.late_lease(called_at=called_at, mode="fence")
        if lease is None:
            return self._shelf.refuse(Refusal.NOT_LEASED)
        return await self._shelf.store(job.key, entry, lease=lease, ttl=job.ttl)

    def _count_call(self, called_at: float, encoded: EncodedAnswer | None, *, failed: bool) -> None:
        usage = encoded.facts.usage if encoded is not None else None
        self._repository.telemetry.emit(
            ProviderCalled(seconds=clock() - called_at, failed=failed, usage=usage)
        )


def _fence(found: Found | Absent) -> str:
    return found.fence if isinstance(found, Found) else found.seen
