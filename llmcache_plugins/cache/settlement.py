"""What becomes of one flight's lease and answer: kept while the provider works, then stored or given up.

Nothing here ever replaces the provider's answer or error; whatever the repository does is counted.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from llmcache_plugins.cache.shelf import Stored
from llmcache_plugins.failures import record_of
from llmcache_plugins.models import Record, RecordKind
from llmcache_plugins.policy import Refusal
from llmcache_plugins.telemetry import LeaseEvent, LeaseStep

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from llmcache_plugins.cache.claim import Claim
    from llmcache_plugins.cache.job import Job
    from llmcache_plugins.cache.shelf import Shelf
    from llmcache_plugins.loops import Tasks
    from llmcache_plugins.models import EncodedAnswer, Entry, Lease
    from llmcache_plugins.repository import ResponseRepository

__all__ = ["Settlement"]


class Settlement:
    """For one call of the provider. `lease` is None for one that goes alone: it may get one later."""

    def __init__(
        self,
        repository: ResponseRepository,
        shelf: Shelf,
        job: Job,
        claim: Claim,
        lease: Lease | None,
        *,
        tasks: Tasks,
        on_lost: Callable[[], None],
    ) -> None:
        self._telemetry = repository.telemetry
        self._config = repository.config
        self._shelf = shelf
        self._job = job
        self._claim = claim
        self._lease = lease
        self._tasks = tasks
        self._on_lost = on_lost
        # Now, for the application may go on to change its request.
        self._leaves = job.asked.leaves()
        if job.asked.alike is not None:
            job.asked.alike.read()

    @asynccontextmanager
    async def calling(self) -> AsyncIterator[None]:
        """Keep the lease while the provider is asked; if that fails, leave word to those who wait."""
        if self._lease is None:
            # Nobody waits for a server that kept this call waiting: what is left to do with it is done in
            # the background.
            self._claim.ask_later()
        elif self._lease.is_held:
            self._telemetry.emit(LeaseEvent(step=LeaseStep.LED))
        # Ends with this flight, and not with the cache: closing that does not end a call.
        heartbeat = asyncio.create_task(self._keep())
        try:
            yield
        except BaseException as error:
            heartbeat.cancel()
            await self._let_go_after(error)
            raise
        heartbeat.cancel()

    async def settle(self, encoded: EncodedAnswer | None, *, called_at: float, seconds: float) -> Stored:
        """Store an answer, or say why not; for a lease in time, for a call that went alone in the background.

        `called_at` is the loop's clock, `seconds` what the provider took.
        """
        refusal = self._shelf.refusal_of(self._job, encoded)
        if encoded is None or refusal is not None:
            return await self._refuse(refusal or Refusal.NO_CODEC)
        entry = self._shelf.entry_of(self._job, encoded, leaves=self._leaves, seconds=seconds)
        if self._lease is not None:
            return await self._shelf.in_time(self._tasks.spawn(self._store(entry, self._lease)))
        self._tasks.spawn(self._store_late(entry, called_at=called_at))
        return Stored()

    async def _keep(self) -> None:
        lease = self._lease or await self._claim.first_lease()
        if lease is not None and lease.is_held:
            await self._claim.keep(lease)
            self._on_lost()

    async def _refuse(self, refusal: Refusal) -> Stored:
        stored = self._shelf.refuse(refusal)
        # Those who wait must not try one after another: each would get an answer that is for itself only.
        record = Record(kind=RecordKind.UNSHARED, seconds=self._config.error_ttl)
        letting_go = self._claim.let_go(record)
        if self._lease is not None:
            return replace(stored, status=await letting_go)
        self._tasks.spawn(letting_go)
        return stored

    async def _let_go_after(self, error: BaseException) -> None:
        record = record_of(error, shared_for=self._config.error_ttl, elected_for=self._config.follow_for)
        if self._lease is None and isinstance(error, Exception):
            self._tasks.spawn(self._claim.let_go(record))
        else:
            await self._claim.let_go(record)

    async def _store(self, entry: Entry, lease: Lease) -> Stored:
        renewal = self._claim.renewal
        stored = await self._shelf.store(
            self._job.key,
            entry,
            lease=lease,
            tasks=self._tasks,
            until=self._claim.give_up_at,
        )
        if stored.refusal in (Refusal.WRITE_FAILED, Refusal.TOO_LATE):
            # The script that stores is also what releases the lease.
            self._claim.withdraw()
        self._claim.settle(renewal)
        if stored.entry is not None:
            await self._shelf.keep_question(self._job, stored.entry, fence=lease.fence)
        return stored

    async def _store_late(self, entry: Entry, *, called_at: float) -> None:
        lease = await self._claim.late_lease(called_at=called_at)
        if lease is not None:
            await self._store(entry, lease)
        else:
            self._shelf.refuse(Refusal.NOT_LEASED)
            await self._claim.let_go()
