"""What one flight does, once for all who wait: take a turn, call, store.

A lease is renewed while the provider works. What is stored, and what cannot be, is told to those who wait
elsewhere; whatever becomes of that, the answer is returned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmcache_plugins.cache.claim import Claim
from llmcache_plugins.cache.held import holding
from llmcache_plugins.cache.job import CallJob, Landing
from llmcache_plugins.cache.settlement import Settlement
from llmcache_plugins.cache.shelf import Shelf, clock
from llmcache_plugins.cache.turns import Missing, Ready, Turns
from llmcache_plugins.errors import CacheMiss
from llmcache_plugins.models import Lease, Outcome, WriteStatus
from llmcache_plugins.telemetry import ProviderCalled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from llmcache_plugins.cache.turns import Alone, Lookout
    from llmcache_plugins.keys import CacheKey
    from llmcache_plugins.loops import Tasks
    from llmcache_plugins.models import AnswerFacts, EncodedAnswer
    from llmcache_plugins.repository import ResponseRepository
    from llmcache_plugins.telemetry import Telemetry

__all__ = ["Answered", "Crew", "call_provider"]


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

    def __init__(
        self,
        repository: ResponseRepository,
        shelf: Shelf,
        *,
        on_refreshed: Callable[[CacheKey, AnswerFacts], None] = lambda key, facts: None,
    ) -> None:
        """`on_refreshed` is told of each call whose caller has the old answer."""
        self._repository = repository
        self._shelf = shelf
        self._turns = Turns(repository, shelf)
        self._telemetry = repository.telemetry
        self._on_refreshed = on_refreshed

    async def fly(
        self,
        job: CallJob,
        tasks: Tasks,
        *,
        may_wait: bool = True,
        lookout: Lookout | None = None,
        on_lost: Callable[[], None] = lambda: None,
    ) -> Landing:
        """Resolve a job. Raises what the provider raises, here or in another process, and `CacheMiss`.

        Without `may_wait` it gets a hit, a lease or a plain call, but waits for no other process. `lookout`
        sees whether the one it waits for streams. `on_lost` is called when the lease is lost or has been held
        for too long: newcomers must not wait any more.
        """
        await self._repository.ready()
        claim = Claim(self._repository, job.key, tasks=tasks, ask_for=job.ask_for, provenance=job.provenance)
        try:
            turn = await self._turns.take(job, claim, may_wait=may_wait, tail=lookout)
        except BaseException:
            await claim.let_go()
            raise
        if isinstance(turn, Ready):
            return _landed(turn)
        if isinstance(turn, Missing):
            raise CacheMiss(turn.reason)
        with holding():
            return await self._call(job, claim, turn, tasks, on_lost)

    async def _call(
        self,
        job: CallJob,
        claim: Claim,
        turn: Lease | Alone,
        tasks: Tasks,
        on_lost: Callable[[], None],
    ) -> Landing:
        lease = turn if isinstance(turn, Lease) else None
        settlement = Settlement(
            self._repository, self._shelf, job, claim, lease, tasks=tasks, on_lost=on_lost
        )
        async with settlement.calling():
            answered = await call_provider(job.call, self._telemetry)
        encoded = self._encode(job, answered)
        judged_at = clock()
        stored = await settlement.settle(encoded, called_at=answered.called_at, seconds=answered.seconds)
        if not stored.is_judged:
            # Nobody can say whether it was invalidated since the server was last asked.
            judged_at = claim.confirmed_at if lease is not None else answered.called_at
        return Landing(
            outcome=turn.outcome if not isinstance(turn, Lease) else Outcome.MISS,
            answer=answered.answer,
            encoded=encoded,
            entry=stored.entry,
            refusal=str(stored.refusal or ""),
            is_void=stored.status is WriteStatus.INVALIDATED,
            judged_at=judged_at,
        )

    def _encode(self, job: CallJob, answered: Answered) -> EncodedAnswer | None:
        encoded = self._shelf.encode(lambda: job.codec.encode(answered.answer))
        usage = encoded.facts.usage if encoded is not None else None
        self._telemetry.emit(ProviderCalled(seconds=answered.seconds, failed=False, usage=usage))
        if job.is_refresh and encoded is not None:
            self._on_refreshed(job.key, encoded.facts)
        return encoded


def _landed(ready: Ready) -> Landing:
    return Landing(
        outcome=Outcome.COALESCED if ready.waited else ready.opened.outcome,
        answer=ready.opened.answer,
        encoded=ready.opened.entry.answer,
        entry=ready.opened.entry,
        match=ready.opened.match,
        judged_at=ready.asked_at,
    )
