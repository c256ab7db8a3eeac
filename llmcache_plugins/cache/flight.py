"""What one flight does, once for all who wait: look up, lead or follow, call, store.

    look up --> hit
       |
    acquire --> hit | lead | wait (ask again until one of the others)
       |
    call the provider; a lease is renewed meanwhile
       |
    store, release, wake

When the repository does not answer within the budget the provider is called at once (`unavailable`).
"""

from __future__ import annotations

import asyncio
import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from llmcache_plugins.budget import Budget
from llmcache_plugins.cache.claim import Claim
from llmcache_plugins.cache.held import holding
from llmcache_plugins.cache.job import Job, Landing
from llmcache_plugins.cache.shelf import Opened, Shelf, Stored, clock
from llmcache_plugins.errors import ConfigError, RepositoryError
from llmcache_plugins.models import Absent, Found, Lease, Outcome, Wait
from llmcache_plugins.policy import Refusal
from llmcache_plugins.telemetry import LeaseEvent, LeaseStep, ProviderCalled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from llmcache_plugins.loops import Tasks
    from llmcache_plugins.models import EncodedAnswer, Entry
    from llmcache_plugins.repository import ResponseRepository
    from llmcache_plugins.telemetry import Telemetry

__all__ = ["Answered", "Crew", "call_provider"]

_FIRST_POLL = 0.02
_LONGEST_POLL = 0.25
"""Seconds between two looks of a follower."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ready:
    """The answer is there; `waited` for another process."""

    opened: Opened
    waited: bool
    asked_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Alone:
    """Call without a lease: the repository did not answer, or waiting is forbidden."""

    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What the provider said, how long it took, and when (the loop's clock) it was asked. Seconds."""

    answer: Any
    seconds: float
    called_at: float


async def call_provider(call: Callable[[], Awaitable[Any]], telemetry: Telemetry) -> Answered:
    """Call the provider and time it. What it raises passes through unchanged, counted."""
    called_at = clock()
    try:
        answer = await call()
    except BaseException:
        telemetry.emit(ProviderCalled(seconds=clock() - called_at, failed=True))
        raise
    return Answered(answer=answer, seconds=clock() - called_at, called_at=called_at)


class Crew:
    """Flies jobs. `tasks` owns what outlives a caller."""

    def __init__(self, repository: ResponseRepository, shelf: Shelf) -> None:
        self._repository = repository
        self._shelf = shelf
        self._telemetry = repository.telemetry

    async def fly(self, job: Job, tasks: Tasks, *, may_wait: bool = True) -> Landing:
        """Resolve a job. Raises only what the provider raises.

        Without `may_wait` it gets a hit, a lease or a plain call, but waits for no other process.
        """
        await self._repository.ready()
        claim = Claim(self._repository, job.key, tasks=tasks)
        try:
            turn = await self._take_turn(job, claim, may_wait=may_wait)
        except BaseException:
            await claim.let_go()
            raise
        if isinstance(turn, _Ready):
            return _landed(turn)
        with holding():
            if isinstance(turn, Lease):
                return await self._lead(job, claim, turn, tasks)
            return await self._go_alone(job, claim, turn.outcome, tasks)

    async def _take_turn(self, job: Job, claim: Claim, *, may_wait: bool) -> _Ready | Lease | _Alone:
        budget = Budget(self._repository.config.lookup_budget)
        asked_at = clock()
        try:
            found = await self._repository.look_up(job.key, budget=budget)
            opened = self._shelf.open(job.codec, found) if isinstance(found, Found) else None
            if opened is not None:
                return _Ready(opened=opened, waited=False, asked_at=asked_at)
            return await self._queue(job, claim, budget, seen=_fence(found), may_wait=may_wait)
        except (RepositoryError, ConfigError):
            return _Alone(outcome=Outcome.UNAVAILABLE)

    async def _queue(
        self, job: Job, claim: Claim, budget: Budget, *, seen: str, may_wait: bool
    ) -> _Ready | Lease | _Alone:
        give_up_at = clock() + self._repository.config.follow_for
        pause, waited = _FIRST_POLL, False
        mode: Literal["lead", "fence"] = "lead"
        while True:
            asked_at = clock()
            reply = await claim.ask(budget, mode=mode, seen=seen)
            if isinstance(reply, Lease):
                return reply
            if isinstance(reply, Found):
                opened = self._shelf.open(job.codec, reply)
                if opened is not None:
                    return _Ready(opened=opened, waited=waited, asked_at=asked_at)
                seen = reply.fence
                continue
            if not may_wait:
                return _Alone(outcome=Outcome.MISS)
            if not waited:
                waited = True
                self._emit(LeaseStep.FOLLOWED)
            await _sleep_a_while(pause, reply)
            pause = min(pause * 1.5, _LONGEST_POLL)
            if mode == "lead" and clock() >= give_up_at:
                mode = "fence"
                self._emit(LeaseStep.TIMED_OUT)
            budget = Budget(self._repository.config.lookup_budget)

    async def _lead(self, job: Job, claim: Claim, lease: Lease, tasks: Tasks) -> Landing:
        self._emit(LeaseStep.LED)
        # Ends with this flight, and not with the cache: closing that does not end a call.
        heartbeat = asyncio.create_task(claim.keep(lease))
        try:
            answered = await call_provider(job.call, self._telemetry)
        except BaseException:
            heartbeat.cancel()
            await claim.let_go()
            raise
        heartbeat.cancel()
        encoded = self._encode(job, answered)
        refusal = self._shelf.refusal_of(encoded)
        judged_at = clock()
        if encoded is None or refusal is not None:
            stored = self._shelf.refuse(refusal or Refusal.NO_CODEC)
            is_void = await claim.let_go()
        else:
            entry = self._shelf.entry_of(encoded, ttl=job.ttl, seconds=answered.seconds)
            stored = await self._shelf.in_time(tasks.spawn(self._store(job, claim, entry, lease)))
            is_void = stored.refusal is Refusal.INVALIDATED
        return _called(Outcome.MISS, answered, encoded, stored, is_void=is_void, judged_at=judged_at)

    async def _go_alone(self, job: Job, claim: Claim, outcome: Outcome, tasks: Tasks) -> Landing:
        # Nobody waits for a server that kept this call waiting: what is left to do with it is done in the
        # background.
        claim.ask_later()
        try:
            answered = await call_provider(job.call, self._telemetry)
        except asyncio.CancelledError:
            await claim.let_go()
            raise
        except BaseException:
            tasks.spawn(claim.let_go())
            raise
        encoded = self._encode(job, answered)
        refusal = self._shelf.refusal_of(encoded)
        if encoded is None or refusal is not None:
            tasks.spawn(claim.let_go())
            stored = self._shelf.refuse(refusal or Refusal.NO_CODEC)
        else:
            entry = self._shelf.entry_of(encoded, ttl=job.ttl, seconds=answered.seconds)
            tasks.spawn(self._store_late(job, claim, entry, called_at=answered.called_at))
            stored = Stored()
        return _called(outcome, answered, encoded, stored)

    async def _store_late(self, job: Job, claim: Claim, entry: Entry, *, called_at: float) -> None:
        lease = await claim.late_lease(called_at=called_at)
        if lease is not None:
            await self._store(job, claim, entry, lease)
        else:
            self._shelf.refuse(Refusal.NOT_LEASED)
            await claim.let_go()

    async def _store(self, job: Job, claim: Claim, entry: Entry, lease: Lease) -> Stored:
        stored = await self._shelf.store(job.key, entry, lease=lease, ttl=job.ttl)
        if stored.refusal is Refusal.WRITE_FAILED:
            # The script that stores is also what releases the lease.
            claim.withdraw()
        claim.settle_renewal()
        return stored

    def _encode(self, job: Job, answered: Answered) -> EncodedAnswer | None:
        encoded = self._shelf.encode(lambda: job.codec.encode(answered.answer))
        usage = encoded.facts.usage if encoded is not None else None
        self._telemetry.emit(ProviderCalled(seconds=answered.seconds, failed=False, usage=usage))
        return encoded

    def _emit(self, step: LeaseStep) -> None:
        self._telemetry.emit(LeaseEvent(step=step))


def _fence(found: Found | Absent) -> str:
    return found.fence if isinstance(found, Found) else found.seen


async def _sleep_a_while(pause: float, wait: Wait) -> None:
    # Not all at the same moment, and no longer than the lease may last.
    await asyncio.sleep(min(pause * random.uniform(0.8, 1.2), wait.seconds + 0.001))  # noqa: S311


def _landed(ready: _Ready) -> Landing:
    return Landing(
        outcome=Outcome.COALESCED if ready.waited else Outcome.HIT,
        answer=ready.opened.answer,
        encoded=ready.opened.entry.answer,
        entry=ready.opened.entry,
        judged_at=ready.asked_at,
    )


def _called(
    outcome: Outcome,
    answered: Answered,
    encoded: EncodedAnswer | None,
    stored: Stored,
    *,
    is_void: bool = False,
    judged_at: float = math.inf,
) -> Landing:
    return Landing(
        outcome=outcome,
        answer=answered.answer,
        encoded=encoded,
        entry=stored.entry,
        refusal=str(stored.refusal or ""),
        is_void=is_void,
        judged_at=judged_at,
    )
