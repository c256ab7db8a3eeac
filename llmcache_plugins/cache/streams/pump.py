"""What the flight of a stream does, once for all who read: take a turn, pass chunks on, store."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from llmcache_plugins.cache.claim import Claim
from llmcache_plugins.cache.held import holding
from llmcache_plugins.cache.settlement import Settlement
from llmcache_plugins.cache.shelf import clock
from llmcache_plugins.cache.streams.broadcast import Chunk
from llmcache_plugins.cache.streams.publisher import Publisher
from llmcache_plugins.cache.streams.tail import Tail
from llmcache_plugins.cache.turns import Followed, Missing, Ready, Turns
from llmcache_plugins.errors import CacheMiss
from llmcache_plugins.models import AnswerFacts, Lease, Outcome
from llmcache_plugins.telemetry import ProviderCalled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from llmcache_plugins.cache.accounts import Accounts
    from llmcache_plugins.cache.job import StreamJob
    from llmcache_plugins.cache.opened import Opened
    from llmcache_plugins.cache.shelf import Shelf
    from llmcache_plugins.cache.streams.voyage import Voyage
    from llmcache_plugins.cache.turns import Alone
    from llmcache_plugins.loops import Tasks
    from llmcache_plugins.models import EncodedAnswer
    from llmcache_plugins.repository import ResponseRepository

__all__ = ["Pump"]


class Pump:
    """Moves chunks from where they come to whoever reads. `tasks` owns what goes on after."""

    def __init__(self, repository: ResponseRepository, shelf: Shelf, accounts: Accounts) -> None:
        self._repository = repository
        self._config = repository.config
        self._shelf = shelf
        self._turns = Turns(repository, shelf)
        self._telemetry = repository.telemetry
        self._accounts = accounts

    async def run(
        self,
        job: StreamJob,
        voyage: Voyage,
        tasks: Tasks,
        *,
        may_wait: bool,
        on_due: Callable[[Opened], None] = lambda _: None,
    ) -> None:
        """Bring the whole stream into the voyage. Raises what the provider raises, and `CacheMiss`.

        `on_due` is told of an answer that is given and should be replaced.
        """
        await self._repository.ready()
        claim = Claim(self._repository, job.key, tasks=tasks, ask_for=job.ask_for, provenance=job.provenance)
        tail = Tail(self._repository, job.key, voyage, tasks=tasks)
        try:
            turn = await self._turns.take(job, claim, may_wait=may_wait, tail=tail)
        except BaseException:
            await claim.let_go()
            raise
        match turn:
            case Ready():
                voyage.outcome = Outcome.COALESCED if turn.waited else turn.opened.outcome
                voyage.opened = turn.opened
                voyage.facts = turn.opened.entry.answer.facts
                voyage.is_under("", confirmed_at=turn.asked_at)
                if turn.opened.is_due:
                    on_due(turn.opened)
            case Followed():
                voyage.outcome = Outcome.COALESCED
                voyage.facts = self._facts_of(job, voyage)
            case Missing():
                raise CacheMiss(turn.reason)
            case _:
                await self._call(job, voyage, claim, turn, tasks)

    async def _call(
        self, job: StreamJob, voyage: Voyage, claim: Claim, turn: Lease | Alone, tasks: Tasks
    ) -> None:
        lease = turn if isinstance(turn, Lease) else None
        voyage.outcome = Outcome.MISS if isinstance(turn, Lease) else turn.outcome
        if lease is not None:
            voyage.is_under(lease.fence, confirmed_at=claim.confirmed_at)
        publisher = None
        if lease is not None and lease.is_held:
            publisher = Publisher(self._repository.leases, job.key, lease, config=self._config, tasks=tasks)
        settlement = Settlement(
            self._repository, self._shelf, job, claim, lease, tasks=tasks, on_lost=voyage.close
        )
        called_at = clock()
        with holding():
            async with settlement.calling(), _breaking_off(publisher):
                encoded = await self._pass_on(job, voyage, publisher)
        seconds = clock() - called_at
        # Those who follow are told the end even if nobody waits here any more.
        finishing = tasks.spawn(publisher.finish()) if publisher is not None else None
        await settlement.settle(encoded, called_at=called_at, seconds=seconds)
        if finishing is not None:
            await asyncio.wait((finishing,))

    async def _pass_on(
        self, job: StreamJob, voyage: Voyage, publisher: Publisher | None
    ) -> EncodedAnswer | None:
        """Pass the provider's chunks on as they come; return what they amount to."""
        called_at, encoded, failed = clock(), None, True
        originals: list[Any] = []
        try:
            async with aclosing(job.open()) as stream:
                async for chunk in stream:
                    originals.append(chunk)
                    packed = self._shelf.pack_chunk(job.codec, chunk)
                    voyage.cast.add(Chunk(packed, chunk))
                    if publisher is not None:
                        publisher.add(packed)
            failed = False
            encoded = self._shelf.encode(lambda: job.codec.join(originals))
        finally:
            voyage.facts = facts = encoded.facts if encoded is not None else AnswerFacts()
            called = ProviderCalled(seconds=clock() - called_at, failed=failed, usage=facts.usage)
            self._telemetry.emit(called)
        if job.is_refresh:
            self._accounts.refreshed(job.key, facts)
        return encoded

    def _facts_of(self, job: StreamJob, voyage: Voyage) -> AnswerFacts:
        """Return what is known of an answer that came from another process in chunks."""

        def joined() -> EncodedAnswer:
            packed = [chunk.packed for chunk in voyage.cast.chunks if chunk.packed is not None]
            unpack = partial(job.codec.unpack_chunk, query=job.query)
            return job.codec.join([part for one in packed for part in unpack(one)])

        encoded = self._shelf.encode(joined)
        return encoded.facts if encoded is not None else AnswerFacts()


@asynccontextmanager
async def _breaking_off(publisher: Publisher | None) -> AsyncIterator[None]:
    """Publish nothing more after a failure: chunks that come after the lease is given up are nobody's."""
    try:
        yield
    except BaseException:
        if publisher is not None:
            await publisher.break_off()
        raise
