"""Between answers and entries: opening what was found, admitting and storing what was answered.

Counts everything that is refused. Whatever goes wrong here, the caller still gets its answer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from llmcache_plugins.budget import Budget
from llmcache_plugins.cache.opened import Opened
from llmcache_plugins.errors import (
    ConfigError,
    CorruptEntry,
    RepositoryError,
    RepositoryUnavailable,
    UnstorableAnswer,
)
from llmcache_plugins.failures import may_pass
from llmcache_plugins.models import AnswerFacts, Entry, Found, Mode, Outcome, WriteStatus
from llmcache_plugins.policy import Freshness, Refusal, admit, freshness_of
from llmcache_plugins.telemetry import Refused, Unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from llmcache_plugins.answers import AnswerCodec, StreamCodec
    from llmcache_plugins.cache.job import Job
    from llmcache_plugins.cache.similar import Similar
    from llmcache_plugins.keys import CacheKey
    from llmcache_plugins.loops import Tasks
    from llmcache_plugins.models import EncodedAnswer, Lease
    from llmcache_plugins.repository import ResponseRepository

__all__ = ["Shelf", "Stored"]

_log = logging.getLogger("llmcache_plugins")

_AGAIN_AFTER = 0.5
"""Seconds after which an answer is offered again to a server that was away."""
_MOST_LATER = 64
"""Answers that may wait for that in memory."""

_REFUSALS = {
    WriteStatus.SUPERSEDED: Refusal.SUPERSEDED,
    WriteStatus.INVALIDATED: Refusal.INVALIDATED,
    WriteStatus.FORGOTTEN: Refusal.FORGOTTEN,
    WriteStatus.TOO_BIG: Refusal.TOO_BIG,
    WriteStatus.ERR: Refusal.WRITE_FAILED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What became of an answer: an entry, or the reason why not; neither while that is not known yet."""

    entry: Entry | None = None
    refusal: Refusal | None = None
    status: WriteStatus = WriteStatus.OK
    """What the server said."""

    @property
    def is_judged(self) -> bool:
        """Whether the server has said if the answer is valid."""
        if self.status is WriteStatus.FORGOTTEN or self.refusal is Refusal.WRITE_FAILED:
            return False
        return self.entry is not None or self.refusal is not None


class Shelf:
    """Puts answers on the shelf and takes them down."""

    def __init__(self, repository: ResponseRepository, similar: Similar | None = None) -> None:
        self._repository = repository
        self._similar = similar
        self._complaints: set[str] = set()
        # Weak: a loop that ends forgets its timers, and what waits for them.
        self._later: WeakSet[Callable[[], Any]] = WeakSet()

    def open(self, job: Job, found: Found) -> Opened | None:
        """Read a found entry; None when it is too old for the job, or, counted, when its codec cannot."""
        entry, freshness = found.entry, Freshness.FRESH
        if job.max_age is not None and time.time() - entry.created > job.max_age:
            return None
        if entry.stale_for or job.policy.refresh_early:
            freshness = freshness_of(entry, job.policy, now=time.time())
            if freshness is Freshness.OVER:
                return None
        return self._read(found, job.read, freshness)

    def at_hand(self, key: CacheKey, codec: AnswerCodec) -> Opened | None:
        """Read an entry of the near cache that is fresh whatever the policy; None if there is none."""
        found = self._repository.at_hand(key)
        if found is None or found.entry.stale_for:
            return None
        return self._read(found, codec.decode)

    def _read(
        self,
        found: Found,
        read: Callable[[EncodedAnswer], Any],
        freshness: Freshness = Freshness.FRESH,
    ) -> Opened | None:
        try:
            answer = read(found.entry.answer)
            return Opened(entry=found.entry, answer=answer, fence=found.fence, freshness=freshness)
        except CorruptEntry:
            pass
        except Exception as error:  # noqa: BLE001 - any codec, any bytes: unreadable is a miss
            self._complain(error)
        self._repository.telemetry.emit(Unreadable())
        return None

    def encode(self, pack: Callable[[], EncodedAnswer]) -> EncodedAnswer | None:
        """Encode an answer; None when no codec can give it back."""
        try:
            encoded = _complete(pack())
        except UnstorableAnswer:
            return None
        except Exception as error:  # noqa: BLE001 - any codec, any answer: it is returned all the same
            self._complain(error)
            return None
        return encoded

    async def look(self, job: Job) -> Opened | None:
        """Return the fresh answer of a job, within the lookup budget. Raises what the repository raises."""
        await self._repository.ready()
        opened, _ = await self.see(job, Budget(self._repository.config.lookup_budget))
        return opened if opened is not None and opened.outcome is Outcome.HIT else None

    async def find_similar(self, job: Job) -> Opened | None:
        """Return the answer of an equivalent question, if there is a layer that finds one. Never raises."""
        if self._similar is None or job.is_refresh or job.mode is Mode.REFRESH:
            return None
        return await self._similar.find(job, self.open)

    async def spare(self, job: Job, error: Exception) -> Opened | None:
        """Return the answer that will do instead of an error of the provider. Never raises."""
        if not job.policy.stale_if_error or job.mode is Mode.REFRESH or not may_pass(error):
            return None
        try:
            await self._repository.ready()
            return (await self.see(job, Budget(self._repository.config.lookup_budget)))[0]
        except (RepositoryError, ConfigError):
            return None

    async def see(self, job: Job, budget: Budget) -> tuple[Opened | None, str]:
        """Return what is stored for a job, and the fence of what was read, if anything was.

        Raises what the repository raises.
        """
        found = await self._repository.look_up(job.key, budget=budget)
        if not isinstance(found, Found):
            return None, found.seen
        return self.open(job, found), found.fence

    def pack_chunk(self, codec: StreamCodec, chunk: Any) -> bytes | None:
        """Return a chunk of a stream as bytes; None when it has no such form."""
        try:
            return codec.pack_chunk(chunk)
        except UnstorableAnswer:
            return None
        except Exception as error:  # noqa: BLE001 - any codec, any chunk: it is passed on all the same
            self._complain(error)
            return None

    def refusal_of(self, job: Job, encoded: EncodedAnswer | None) -> Refusal | None:
        """Say why an answer must not be stored, or None."""
        if encoded is None:
            return Refusal.NO_CODEC
        policy, size = job.policy, len(encoded.payload)
        if size > (policy.max_entry_bytes or size) or size > self._repository.largest_entry:
            return Refusal.TOO_BIG
        try:
            refusal = admit(encoded.facts, allow_truncated=policy.allow_truncated)
        except Exception as error:  # noqa: BLE001 - any codec, any facts: the answer is returned all the same
            self._complain(error)
            return Refusal.NO_CODEC
        if refusal is None and policy.cacheable is not None:
            return self._asked(policy.cacheable, job, encoded)
        return refusal

    def _asked(
        self, cacheable: Callable[[Any, Any], bool], job: Job, encoded: EncodedAnswer
    ) -> Refusal | None:
        try:
            return None if cacheable(job.asked.show(), job.codec.decode(encoded)) else Refusal.NOT_CACHEABLE
        except Exception as error:  # noqa: BLE001 - any predicate: the answer is returned all the same
            self._complain(error, "a policy's `cacheable`")
            return Refusal.NOT_CACHEABLE

    def refuse(self, refusal: Refusal) -> Stored:
        """Count a refusal."""
        self._repository.telemetry.emit(Refused(reason=refusal))
        return Stored(refusal=refusal)

    def entry_of(self, job: Job, encoded: EncodedAnswer, *, leaves: bytes, seconds: float) -> Entry:
        """Return the entry of an answer the provider has just given, after so many seconds."""
        now = time.time()
        return Entry(
            answer=encoded,
            created=now,
            fresh_until=now + job.ttl,
            provider_seconds=seconds,
            stale_for=job.policy.stale_for,
            provenance=job.provenance,
            leaves=leaves,
        )

    async def keep_question(self, job: Job, entry: Entry, *, fence: str = "") -> None:
        """Lay the question of a stored entry beside it, for equivalent ones to find. Never raises."""
        if self._similar is not None:
            await self._similar.note(job, entry, fence=fence)

    async def store(self, key: CacheKey, entry: Entry, *, lease: Lease, tasks: Tasks, until: float) -> Stored:
        """Commit an entry. Never raises; a refusal is counted.

        When the server is away it is tried again in the background, up to `until` on the loop's clock.
        """

        async def again() -> Stored:
            return await self.store(key, entry, lease=lease, tasks=tasks, until=until)

        # From the answer on: one that is stored late does not live longer.
        ttl = entry.fresh_until + entry.stale_for - time.time()
        if ttl <= 0:
            return self.refuse(Refusal.TOO_LATE)
        try:
            commit = await self._repository.leases.commit(key, entry, ttl=ttl, lease=lease)
        except RepositoryUnavailable:
            return self._try_later(again, tasks, until)
        except (RepositoryError, ConfigError):
            return self.refuse(Refusal.WRITE_FAILED)
        except Exception as error:  # noqa: BLE001 - facts that cannot be packed, for one
            self._complain(error)
            return self.refuse(Refusal.WRITE_FAILED)
        return self.stored(entry, commit.status)

    def stored(self, entry: Entry, status: WriteStatus) -> Stored:
        """Say what became of an entry; a refusal is counted."""
        refusal = _REFUSALS.get(status)
        if refusal is not None:
            return replace(self.refuse(refusal), status=status)
        return Stored(entry=entry)

    def _try_later(
        self, again: Callable[[], Coroutine[Any, Any, Stored]], tasks: Tasks, until: float
    ) -> Stored:
        if clock() >= until or len(self._later) >= _MOST_LATER:
            return self.refuse(Refusal.WRITE_FAILED)
        self._later.add(again)
        tasks.spawn_later(_AGAIN_AFTER, again)
        return Stored()

    async def in_time(self, storing: asyncio.Task[Stored]) -> Stored:
        """Wait for `store` for at most the commit budget; then it goes on in the background."""
        try:
            return await Budget(self._repository.config.commit_budget).wait_for(storing)
        except RepositoryError:
            return Stored()

    def _complain(self, error: Exception, who: str = "a codec") -> None:
        if who not in self._complaints:
            self._complaints.add(who)
            # Only its name: what an error says of an answer may be the answer.
            _log.warning("%s raised %s; such answers are not cached", who, type(error).__name__)


def _complete(encoded: EncodedAnswer) -> EncodedAnswer:
    if not isinstance(encoded.facts, AnswerFacts):
        raise TypeError("an encoded answer needs its facts")
    return encoded


def clock() -> float:
    """Return the time of the running loop in seconds."""
    return asyncio.get_running_loop().time()
