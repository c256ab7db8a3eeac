"""Readers of streams: each gets every chunk from the first on, whoever fetches them and since when."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any

from llmcache_plugins.budget import Budget
from llmcache_plugins.cache.job import flight_key
from llmcache_plugins.cache.refreshing import Refreshes
from llmcache_plugins.cache.shelf import clock
from llmcache_plugins.cache.streams.pump import Pump
from llmcache_plugins.cache.streams.voyage import Voyage
from llmcache_plugins.errors import CacheMiss, ConfigError, RepositoryError, StreamInterrupted, WaitTimeout
from llmcache_plugins.failures import is_own
from llmcache_plugins.models import AnswerFacts, Mode, Outcome
from llmcache_plugins.singleflight import Flight, Flights
from llmcache_plugins.telemetry import ProviderCalled

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from llmcache_plugins.answers import StreamCodec
    from llmcache_plugins.cache.accounts import Accounts
    from llmcache_plugins.cache.job import FlightKey, Job, StreamJob
    from llmcache_plugins.cache.opened import Opened
    from llmcache_plugins.cache.shelf import Shelf
    from llmcache_plugins.cache.streams.broadcast import Chunk
    from llmcache_plugins.keys import CacheKey
    from llmcache_plugins.loops import Tasks
    from llmcache_plugins.models import Entry, SemanticMatch
    from llmcache_plugins.repository import ResponseRepository

__all__ = ["Report", "Streamer"]

_MOST_ROUNDS = 2
"""How often a reader that was given nothing joins others again before it asks by itself."""


class Report:
    """How a stream came about; complete when it has ended."""

    def __init__(self) -> None:
        self.outcome = Outcome.MISS
        self.entry: Entry | None = None
        """The stored answer, of a hit."""
        self.match: SemanticMatch | None = None
        self.facts = AnswerFacts()
        """What is known of an answer that was not stored before."""
        self.on_hit: Callable[[Opened], None] = lambda _: None
        """Called before the first chunk of a stored answer."""

    def found(self, opened: Opened) -> None:
        """Note that the answer was stored."""
        self.outcome, self.entry, self.match = opened.outcome, opened.entry, opened.match
        self.on_hit(opened)


class Streamer:
    """Gives streams to readers, and knows which are under way."""

    def __init__(self, repository: ResponseRepository, shelf: Shelf, accounts: Accounts) -> None:
        self._repository = repository
        self._shelf = shelf
        self._pump = Pump(repository, shelf, accounts)
        config = repository.config
        self._flights: Flights[FlightKey, None] = Flights(on_abandon=config.on_abandon)
        self._refreshes: Refreshes[None] = Refreshes(config)
        self._patience = config.follow_for if config.on_wait_timeout == "raise" else None

    def detach(self, matches: Callable[[CacheKey], bool]) -> None:
        """Let newcomers not join the streams under way for these keys; who reads already goes on."""
        self._flights.detach(lambda flying: matches(flying[0]))
        self._refreshes.detach(matches)

    def count(self) -> int:
        """Return how many are under way on the running loop."""
        return self._flights.count() + self._refreshes.count()

    async def aclose(self) -> None:
        """End the streams that nobody reads any more."""
        await self._flights.aclose()

    async def read(
        self, job: StreamJob, report: Report, *, tasks: Tasks, may_wait: bool
    ) -> AsyncGenerator[Any, None]:
        """Yield the chunks of a stream: stored, under way, or the provider's, asked now.

        Raises what the provider raises, `CacheMiss`, `SharedProviderError`, and `StreamInterrupted` when
        what another process fetched broke off after chunks were given out.
        """
        given = False
        try:
            async with aclosing(self._read(job, report, tasks, may_wait=may_wait)) as chunks:
                async for chunk in chunks:
                    given = True
                    yield chunk
        except CacheMiss:
            raise
        except Exception as error:
            spare = None if given else await self._shelf.spare(job, error)
            if spare is None:
                raise
            report.found(spare)
            for chunk in spare.answer:
                yield chunk

    async def follow(
        self, job: Job, codec: StreamCodec, report: Report, *, tasks: Tasks
    ) -> AsyncGenerator[Any, None] | None:
        """Return the chunks of a stream that somebody has under way, when its first one is there.

        The `report` is complete when they have ended. None if there is no such stream, or no more. What comes
        after the first chunk raises nothing but `StreamInterrupted`.
        """
        reading = job.following(codec, budget=Budget(self._repository.config.lookup_budget))
        chunks = self.read(reading, report, tasks=tasks, may_wait=True)
        try:
            first = await anext(chunks)
        except Exception:  # noqa: BLE001 - whatever its leader was told: who was given nothing asks again
            return None
        return _from(first, chunks)

    async def _read(
        self, job: StreamJob, report: Report, tasks: Tasks, *, may_wait: bool
    ) -> AsyncGenerator[Any, None]:
        rounds = 0
        may_share = may_wait and job.policy.coalesce and job.mode is not Mode.REFRESH
        while True:
            rounds += 1
            shares = may_share and rounds <= _MOST_ROUNDS
            since = clock()
            voyage = self._voyage(job, tasks)
            on_due = partial(self._refresh, job, tasks)
            pump = partial(self._pump.run, job, voyage, tasks, may_wait=shares, on_due=on_due)
            # A flight of its own, where others must not join.
            key = flight_key(job, self._flights.is_under_way) if shares else (job.key, object())
            async with self._flights.aboard(key, pump) as (flight, led):
                if led:
                    flight.cargo = voyage
                rider = _Rider(job, flight, led=led, since=since, is_last=not shares)
                async with aclosing(rider.ride(report, patience=None if led else self._patience)) as chunks:
                    async for chunk in chunks:
                        yield chunk
            if rider.is_served:
                return

    def _voyage(self, job: StreamJob, tasks: Tasks) -> Voyage:
        detach = partial(self.detach, lambda key: key == job.key)
        return Voyage(self._repository, job.key, provenance=job.provenance, tasks=tasks, on_void=detach)

    def _refresh(self, job: StreamJob, tasks: Tasks, opened: Opened) -> None:
        """Bring another answer in the background, read by nobody, unless somebody does."""
        if job.mode is Mode.READ_ONLY:
            return
        refreshing = job.refreshing(opened.fence, budget=Budget(self._repository.config.lookup_budget))
        voyage = self._voyage(refreshing, tasks)
        run = partial(self._pump.run, refreshing, voyage, tasks, may_wait=False)
        self._refreshes.begin(job.key, run, tasks=tasks)

    async def read_or_open(self, job: StreamJob, report: Report) -> AsyncGenerator[Any, None]:
        """Yield the stored answer's chunks, or the provider's, not stored and shared with nobody."""
        opened = None
        try:
            if job.mode is not Mode.REFRESH:
                opened = await self._shelf.look(job)
        except (RepositoryError, ConfigError):
            report.outcome = Outcome.UNAVAILABLE
        if opened is not None:
            report.found(opened)
            for chunk in opened.answer:
                yield chunk
            return
        async with aclosing(self.ask(job.open)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def ask(self, opened: Callable[[], AsyncGenerator[Any, None]]) -> AsyncGenerator[Any, None]:
        """Yield the provider's chunks, and nothing else."""
        called_at, failed = clock(), True
        try:
            async with aclosing(opened()) as stream:
                async for chunk in stream:
                    yield chunk
            failed = False
        finally:
            telemetry = self._repository.telemetry
            telemetry.emit(ProviderCalled(seconds=clock() - called_at, failed=failed))


async def _from(first: Any, rest: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
    async with aclosing(rest):
        yield first
        try:
            async for chunk in rest:
                yield chunk
        except StreamInterrupted:
            raise
        except Exception as error:
            raise StreamInterrupted("the call that fetched this stream has failed") from error


class _Rider:
    """One reader on one flight. `is_last`: there is no other flight to change to."""

    def __init__(
        self, job: StreamJob, flight: Flight[None], *, led: bool, since: float, is_last: bool
    ) -> None:
        self._job = job
        self._flight = flight
        self._voyage: Voyage = flight.cargo
        self._led = led
        self._since = since
        self._is_last = is_last
        self._given = 0
        self.is_served = False

    async def ride(self, report: Report, *, patience: float | None) -> AsyncGenerator[Any, None]:
        """Yield the chunks and say how they came about. Without `is_served` another flight must be taken.

        Raises `WaitTimeout` when none has come within `patience` seconds.
        """
        async with aclosing(self._voyage.cast.read(self._flight.task, patience=patience)) as chunks:
            async for chunk in chunks:
                if not await self._is_welcome() or (own := self._own(chunk)) is None:
                    return
                for given in own:
                    self._given += 1
                    yield given
        if self._must_change(self._flight.task) or not await self._is_welcome():
            return
        outcome, opened = self._voyage.outcome, self._voyage.opened
        if outcome.is_stored and opened is not None:
            report.found(opened)
        else:
            report.outcome = outcome if self._led else Outcome.COALESCED
            report.facts = self._voyage.facts
        if opened is not None and not self._given:
            for given in opened.answer if self._led else self._job.read(opened.entry.answer):
                yield given
        self.is_served = True

    async def _is_welcome(self) -> bool:
        return self._led or self._given > 0 or await self._voyage.is_valid_for(self._since)

    def _own(self, chunk: Chunk) -> list[Any] | None:
        """Return what is given for a chunk; None when another flight must be taken."""
        # Whoever leads gets the provider's objects; the others one each, so that none sees what another does.
        if chunk.packed is None or (self._led and chunk.original is not None):
            return [chunk.original]
        try:
            return list(self._job.codec.unpack_chunk(chunk.packed, query=self._job.query))
        except Exception as error:
            if chunk.original is not None:
                return [chunk.original]  # a shared chunk is better than none
            if self._given:
                raise StreamInterrupted("another process's chunks cannot be read here") from error
            return None

    def _must_change(self, task: asyncio.Task[None]) -> bool:
        """Say whether to take another flight, now that this one has ended; raise what it ended with."""
        can_change = not (self._given or self._is_last)
        if task.cancelled():
            if self._led:
                raise asyncio.CancelledError
            if can_change:
                return True
            raise StreamInterrupted("the call that fetched this stream was cancelled")
        error = task.exception()
        if error is None:
            return False
        if can_change and isinstance(error, StreamInterrupted):
            return True
        if can_change and not self._led and isinstance(error, Exception) and is_own(error):
            return True
        is_told = self._given or isinstance(error, CacheMiss | WaitTimeout)
        if self._job.mode is Mode.READ_ONLY and not is_told:
            raise CacheMiss("the call for this answer failed") from error
        raise error
