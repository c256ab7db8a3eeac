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
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from llmcache_plugins.budget import Budget
from llmcache_plugins.cache.claim import Claim
from llmcache_plugins.cache.job import Job, Landing
from llmcache_plugins.cache.shelf import Opened, Shelf, Stored, clock
from llmcache_plugins.errors import ConfigError, RepositoryError
from llmcache_plugins.models import Absent, Found, Lease, Outcome, Wait
from llmcache_plugins.policy import Refusal
from llmcache_plugins.telemetry import LeaseEvent, LeaseStep, ProviderCalled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from llmcache_plugins.loops import Tasks
    from llmcache_plugins.models import EncodedAnswer
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


@dataclass(frozen=True, slots=True)
class _Alone:
    """The repository did not answer: call without it."""


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

    async def fly(self, job: Job, tasks: Tasks) -> Landing:
        """Resolve a job. Raises only what the provider raises."""
        await self._repository.ready()
        claim = Claim(self._repository, job.key, tasks=tasks)
        try:
            turn = await self._take_turn(job, claim)
        except BaseException:
            await claim.let_go()
            raise
        if isinstance(turn, _Ready):
            return _landed(turn)
        if isinstance(turn, Lease):
            return await self._lead(job, claim, turn, tasks)
        return await self._go_alone(job, claim, tasks)

    async def _take_turn(self, job: Job, claim: Claim) -> _Ready | Lease | _Alone:
        budget = Budget(self._repository.config.lookup_budget)
        try:
            found = await self._repository.look_up(job.key, budget=budget)
            opened = self._shelf.open(job.codec, found) if isinstance(found, Found) else None
            if opened is not None:
                return _Ready(opened=opened, waited=False)
            return await self._queue(job, claim, budget, seen=_fence(found))
        except (RepositoryError, ConfigError):
            return _Alone()

    async def _queue(self, job: Job, claim: Claim, budget: Budget, *, seen: str) -> _Ready | Lease:
        give_up_at = clock() + self._repository.config.follow_for
        pause, waited = _FIRST_POLL, False
        mode: Literal["lead", "fence"] = "lead"
        while True:
            reply = await claim.ask(budget, mode=mode, seen=seen)
            if isinstance(reply, Lease):
                return reply
            if isinstance(reply, Found):
                opened = self._shelf.open(job.codec, reply)
                if opened is not None:
                    return _Ready(opened=opened, waited=waited)
                seen = reply.fence
                continue
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
        heartbeat = tasks.spawn(claim.keep(lease))
        try:
            answered = await call_provider(job.call, self._telemetry)
        except BaseException:
            await claim.let_go()
            raise
        finally:
            heartbeat.cancel()
        encoded = self._encode(job, answered)
        refusal = self._shelf.refusal_of(encoded)
        if encoded is None or refusal is not None:
            await claim.let_go()
            stored = self._shelf.refuse(refusal or Refusal.NO_CODEC)
        else:
            entry = self._shelf.entry_of(encoded, ttl=job.ttl, seconds=answered.seconds)
            stored = await self._shelf.store_in_time(job.key, entry, lease=lease, ttl=job.ttl, tasks=tasks)
        return _called(Outcome.MISS, answered, encoded, stored)

    async def _go_alone(self, job: Job, claim: Claim, tasks: Tasks) -> Landing:
        claim.ask_later()
        try:
            answered = await call_provider(job.call, self._telemetry)
        except BaseException:
            await claim.let_go()
            raise
        encoded = self._encode(job, answered)
        refusal = self._shelf.refusal_of(encoded)
        lease = claim.late_lease(called_at=answered.called_at)
        if encoded is not None and refusal is None and lease is not None:
            # Nobody waits for a server that kept this call waiting.
            entry = self._shelf.entry_of(encoded, ttl=job.ttl, seconds=answered.seconds)
            tasks.spawn(self._shelf.store(job.key, entry, lease=lease, ttl=job.ttl))
            stored = Stored()
        else:
            await claim.let_go()
            stored = self._shelf.refuse(refusal or Refusal.NOT_LEASED)
        return _called(Outcome.UNAVAILABLE, answered, encoded, stored)

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
    )


def _called(outcome: Outcome, answered: Answered, encoded: EncodedAnswer | None, stored: Stored) -> Landing:
    return Landing(
        outcome=outcome,
        answer=answered.answer,
        encoded=encoded,
        entry=stored.entry,
        refusal=str(stored.refusal or ""),
        is_void=stored.refusal is Refusal.INVALIDATED,
    )
