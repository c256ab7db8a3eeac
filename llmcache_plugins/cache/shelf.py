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

import msgspec

from llmcache_plugins.budget import Budget
from llmcache_plugins.errors import (
    ConfigError,
    CorruptEntry,
    RepositoryError,
    RepositoryUnavailable,
    UnstorableAnswer,
)
from llmcache_plugins.models import AnswerFacts, Entry, Found, WriteStatus
from llmcache_plugins.policy import Refusal, admit
from llmcache_plugins.telemetry import Refused, Unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from llmcache_plugins.answers import StreamCodec
    from llmcache_plugins.cache.job import Job
    from llmcache_plugins.keys import CacheKey
    from llmcache_plugins.loops import Tasks
    from llmcache_plugins.models import EncodedAnswer, Lease
    from llmcache_plugins.repository import ResponseRepository

__all__ = ["Opened", "Shelf", "Stored"]

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


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """An entry and the answer in it."""

    entry: Entry
    answer: Any


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

    def __init__(self, repository: ResponseRepository) -> None:
        self._repository = repository
        self._complained = False
        # Weak: a loop that ends forgets its timers, and what waits for them.
        self._later: WeakSet[Callable[[], Any]] = WeakSet()

    def open(self, job: Job, found: Found) -> Opened | None:
        """Read a found entry; None when it is too old for the job, or, counted, when its codec cannot."""
        if job.max_age is not None and time.time() - found.entry.created > job.max_age:
            return None
        try:
            return Opened(entry=found.entry, answer=job.read(found.entry.answer))
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
        """Return what is stored for a job, within the lookup budget. Raises what the repository raises."""
        await self._repository.ready()
        opened, _ = await self.see(job, Budget(self._repository.config.lookup_budget))
        return opened

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

    def refusal_of(self, encoded: EncodedAnswer | None) -> Refusal | None:
        """Say why an answer must not be stored, or None."""
        if encoded is None:
            return Refusal.NO_CODEC
        if len(encoded.payload) > self._repository.largest_entry:
            return Refusal.TOO_BIG
        try:
            return admit(encoded.facts)
        except Exception as error:  # noqa: BLE001 - any codec, any facts: the answer is returned all the same
            self._complain(error)
            return Refusal.NO_CODEC

    def refuse(self, refusal: Refusal) -> Stored:
        """Count a refusal."""
        self._repository.telemetry.emit(Refused(reason=refusal))
        return Stored(refusal=refusal)

    def entry_of(self, encoded: EncodedAnswer, *, ttl: float, seconds: float) -> Entry:
        """Return the entry of an answer the provider has just given."""
        now = time.time()
        return Entry(answer=encoded, created=now, fresh_until=now + ttl, provider_seconds=seconds)

    async def store(
        self, key: CacheKey, entry: Entry, *, lease: Lease, ttl: float, tasks: Tasks, until: float
    ) -> Stored:
        """Commit an entry. Never raises; a refusal is counted.

        When the server is away it is tried again in the background, up to `until` on the loop's clock.
        """

        async def again() -> Stored:
            return await self.store(key, entry, lease=lease, ttl=ttl, tasks=tasks, until=until)

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

    def _complain(self, error: Exception) -> None:
        if not self._complained:
            self._complained = True
            # Only its name: what an error says of an answer may be the answer.
            _log.warning("a codec raised %s; such answers are not cached", type(error).__name__)


def _complete(encoded: EncodedAnswer) -> EncodedAnswer:
    if not isinstance(encoded.facts, AnswerFacts):
        raise TypeError("an encoded answer needs its facts")
    return encoded


def clock() -> float:
    """Return the time of the running loop in seconds."""
    return asyncio.get_running_loop().time()
