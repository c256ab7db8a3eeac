"""Calls that somebody else makes: frameworks show a lookup and, later, perhaps, an update.

A miss is an errand: whoever was told of it asks the provider and brings the answer, or says that there will
be none. Until then the others wait, here and in other processes, exactly as they wait for a call of our own:
an errand is a flight whose call is a promise. Those who can do with chunks are given them live, where the
one they wait for publishes them.

Unlike callers of our own, those who wait are not told the provider's error: it is the framework that asks
and raises. One of them is sent at a time; who has seen two come back empty is sent too.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import ref

from msgspec.structs import replace

from llmcache_plugins.budget import Budget
from llmcache_plugins.cache import resolutions
from llmcache_plugins.cache.flight import Crew
from llmcache_plugins.cache.glance import glance
from llmcache_plugins.cache.held import is_held
from llmcache_plugins.cache.job import flight_key
from llmcache_plugins.cache.refreshing import Refreshes
from llmcache_plugins.cache.shelf import clock
from llmcache_plugins.cache.turns import Lookout
from llmcache_plugins.errors import CacheMiss, ConfigError, RepositoryError, UnstorableAnswer
from llmcache_plugins.loops import running_loop
from llmcache_plugins.models import EncodedAnswer, Lease, Mode, Resolution
from llmcache_plugins.policy import Refusal
from llmcache_plugins.repository import new_token
from llmcache_plugins.singleflight import Flights, GaveUp

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmcache_plugins.answers import AnswerCodec, StreamCodec
    from llmcache_plugins.cache.job import CallJob, FlightKey, Job, Landing
    from llmcache_plugins.cache.shelf import Shelf, Stored
    from llmcache_plugins.cache.streams import Report, Streamer
    from llmcache_plugins.keys import CacheKey
    from llmcache_plugins.loops import PerLoop, Tasks
    from llmcache_plugins.models import Commit, Entry
    from llmcache_plugins.repository import ResponseRepository

__all__ = ["Errand", "Errands", "brought"]

_MOST_ATTEMPTS = 2
"""How often one waits for others before it is sent itself."""


class Errand:
    """The right, and the duty, to bring an answer. Belongs to the event loop on which it was given."""

    def __init__(self, job: Job, *, patience: float) -> None:
        self.key = job.key
        self.asked_at = clock()
        """When (the loop's clock) it was given."""
        self._loop = asyncio.get_running_loop()
        self._patience = patience
        self._brought: asyncio.Future[Any] = self._loop.create_future()
        self._is_given_up = False
        self.begun: asyncio.Future[None] = self._loop.create_future()
        self.overtaken: asyncio.Future[None] = self._loop.create_future()
        """Done when somebody is seen to stream the answer, for one that would rather have that."""
        self.ride: asyncio.Task[Any] | None = None

    @property
    def is_overdue(self) -> bool:
        """Whether nobody waits any more, and the answer may come all the same."""
        return self._brought.cancelled() and not self._is_given_up

    @property
    def is_over(self) -> bool:
        """Whether the answer was brought, or will never come."""
        return self._is_given_up or self._brought.done()

    async def fulfil(self, answer: Any) -> None:
        """Bring the answer, or its `EncodedAnswer`; it is stored or being stored when this returns.

        Never raises. An answer that cannot be stored is counted, and the others are sent themselves.
        """
        self.bring(answer)
        if self.ride is not None:
            await asyncio.wait((self.ride,))

    def bring(self, answer: Any) -> None:
        """Bring the answer, and do not wait until it is stored. On the errand's own loop."""
        if not self._brought.done():
            self._brought.set_result(answer)

    def overtake(self, _sighted: asyncio.Future[None]) -> None:
        """Say that somebody streams the answer: its caller need not wait for it any more."""
        if not self.overtaken.done():
            self.overtaken.set_result(None)

    def landed(self, _ride: asyncio.Task[Any]) -> None:
        """Forget the flight, which remembers this errand."""
        self.ride = None

    def abandon(self, error: BaseException | None = None) -> None:
        """Say that there will be no answer, and why; without a reason the call was given up.

        From any thread, and as often as one likes.
        """
        self._is_given_up = True  # before the loop has heard of it: the next call of this thread may wait
        if running_loop() is self._loop:
            self._end(error)
        elif not self._loop.is_closed():
            with suppress(RuntimeError):  # closed just now
                self._loop.call_soon_threadsafe(self._end, error)

    def _end(self, error: BaseException | None) -> None:
        if self._brought.done():
            return
        if isinstance(error, Exception):
            self._brought.set_exception(error)
        else:
            self._brought.cancel()

    async def call(self) -> Any:
        """Wait for the answer, as a flight waits for a provider."""
        if not self.begun.done():
            self.begun.set_result(None)
        try:
            async with asyncio.timeout(self._patience):
                return await self._brought
        finally:
            # Whoever brings it later is told that nobody waits any more.
            self._brought.cancel()


# Weak: copies of a context, such as a timer's, outlive the errand; its flight keeps one that is under way.
_given: ContextVar[tuple[ref[Errand], ...]] = ContextVar("llmcache_errands", default=())


def _under_way() -> list[ref[Errand]]:
    """Return this context's errands that have not ended."""
    return [one for one in _given.get() if (errand := one()) is not None and not errand.is_over]


class Errands:
    """Gives errands, and lets the others wait for them."""

    def __init__(self, repository: ResponseRepository, shelf: Shelf, streams: Streamer) -> None:
        self._repository = repository
        self._config = repository.config
        self._shelf = shelf
        self._streams = streams
        self._crew = Crew(repository, shelf)
        self._flights: Flights[FlightKey, Landing] = Flights(on_abandon="cancel")
        self._refreshes: Refreshes[Landing] = Refreshes(repository.config)

    def detach(self, matches: Callable[[CacheKey], bool]) -> None:
        """Let newcomers not wait for the errands under way for these keys."""
        self._flights.detach(lambda flying: matches(flying[0]))
        self._refreshes.detach(matches)

    def count(self) -> int:
        """Return how many are under way on the running loop."""
        return self._flights.count() + self._refreshes.count()

    async def aclose(self) -> None:
        """End what nobody waits for any more."""
        await self._flights.aclose()

    async def run(
        self,
        job: Job,
        *,
        tasks: PerLoop[Tasks],
        may_wait: bool,
        live: StreamCodec | None = None,
        report: Report | None = None,
    ) -> Resolution | Errand:
        """Return the answer, or the errand to bring it. Raises `CacheMiss` in mode "read_only" only.

        A context that has an errand under way waits for nobody: others may be waiting for it. With `live` the
        answer of the resolution may be the chunks of a stream under way, which the `report` is of: see
        `Streamer.follow`.
        """
        since = clock()
        found = await glance(job, self._flights, self._repository, self._shelf)
        if found.resolution is None:
            return await self._run(
                found.job,
                tasks=tasks.current(),
                since=since,
                may_wait=may_wait,
                live=live,
                report=report,
            )
        if found.is_due and (errand := await self._refresh(found.job, tasks.current())) is not None:
            return errand
        return found.resolution

    async def _refresh(self, job: Job, tasks: Tasks) -> Errand | None:
        """Send one caller, of all processes, for another answer while the others get what is there."""
        if not self._refreshes.may_begin(job.key):
            return None
        errand = Errand(job, patience=self._config.max_lead)
        lost = partial(self._refreshes.forget, job.key)
        fly = partial(self._crew.fly, _calling(job, errand), tasks, on_lost=lost)
        with suppress(CacheMiss):
            if await self._wait_for(errand, tasks.spawn(self._refreshes.fly(job.key, fly))) is None:
                return self._give(errand)
        return None

    async def _run(
        self,
        job: Job,
        *,
        tasks: Tasks,
        since: float,
        may_wait: bool,
        live: StreamCodec | None,
        report: Report | None,
    ) -> Resolution | Errand:
        shares = job.policy.coalesce and job.mode is not Mode.REFRESH
        may_wait = may_wait and shares and not is_held()
        may_wait = may_wait and not _under_way()
        for attempt in range(_MOST_ATTEMPTS + 1):
            shares = may_wait and attempt < _MOST_ATTEMPTS
            errand = Errand(job, patience=self._config.max_lead)
            flying = partial(self._join, is_live=live is not None) if shares else self._fly
            ride = flying(job, errand, tasks)
            ended = await self._wait_for(errand, tasks.spawn(ride))
            if ended is None:
                break
            landing, led = ended
            if landing is None:
                if live is not None and report is not None and errand.overtaken.done():
                    chunks = await self._streams.follow(job, live, report, tasks=tasks)
                    if chunks is not None:
                        return resolutions.of_coalesced(job.key, chunks)
                continue
            if landing.encoded is None:
                # Its objects are those of whoever brought them.
                may_wait = False
            elif led or landing.serves(since=since):
                return resolutions.of_landing(job, landing, led=led)
        else:
            # Nobody could be asked about it: a rate limit that others were told of, for one.
            errand = Errand(job, patience=self._config.max_lead)
            await self._wait_for(
                errand, tasks.spawn(self._fly(replace(job, mode=Mode.REFRESH), errand, tasks))
            )
        return self._give(errand)

    def _give(self, errand: Errand) -> Errand:
        _given.set((*_under_way(), ref(errand)))
        return errand

    async def read(self, job: Job) -> Resolution | None:
        """Return the stored answer, if there is one and the server says so in time."""
        if job.mode is Mode.REFRESH:
            return None
        try:
            opened = await self._shelf.look(job)
        except (RepositoryError, ConfigError):
            return None
        return resolutions.of_opened(job.key, opened) if opened is not None else None

    async def fence(self, job: Job) -> Lease | None:
        """Return the right to store what is asked for from now on, if the server gives it in time."""
        asking = self._repository.leases.acquire(
            job.key, token=new_token(), mode="fence", seen="*", provenance=job.provenance
        )
        try:
            await self._repository.ready()
            reply = await Budget(self._config.lookup_budget).wait_for(asking)
        except (RepositoryError, ConfigError):
            return None
        return reply if isinstance(reply, Lease) else None

    async def store(
        self, job: Job, answer: Any, *, lease: Lease | None = None, asked_at: float | None = None
    ) -> Stored:
        """Store an answer, encoded or not, that nobody was sent for. Never raises; a refusal is counted.

        What was asked for before an invalidation is not stored after it, if it is known when that was: by the
        `lease` that was given then, or by the loop's clock, `asked_at`.
        """
        encoded = self._shelf.encode(lambda: _Brought(job.codec).encode(answer))
        refusal = self._shelf.refusal_of(job, encoded)
        if encoded is None or refusal is not None:
            return self._shelf.refuse(refusal or Refusal.NO_CODEC)
        entry = self._shelf.entry_of(job, encoded, leaves=job.asked.leaves(), seconds=0.0)
        if job.asked.alike is not None:
            job.asked.alike.read()
        try:
            await self._repository.ready()
            committing = self._commit(job, entry, lease, asked_at)
            commit = await Budget(self._config.commit_budget).wait_for(committing)
        except (RepositoryError, ConfigError):
            return self._shelf.refuse(Refusal.WRITE_FAILED)
        if commit is None:
            return self._shelf.refuse(Refusal.NOT_LEASED)
        stored = self._shelf.stored(entry, commit.status)
        if stored.entry is not None:
            await self._shelf.keep_question(job, stored.entry)
        return stored

    async def _commit(
        self, job: Job, entry: Entry, lease: Lease | None, asked_at: float | None
    ) -> Commit | None:
        if lease is None and asked_at is not None:
            lease = await self.fence(job)
            if lease is None:
                return None
            lease = lease.backdated(max(0.0, clock() - asked_at))
        if lease is None:
            return await self._repository.persist(job.key, entry, ttl=job.kept_for)
        return await self._repository.leases.commit(job.key, entry, ttl=job.kept_for, lease=lease)

    async def _join(self, job: Job, errand: Errand, tasks: Tasks, *, is_live: bool) -> tuple[Landing, bool]:
        call, lookout = _calling(job, errand), Lookout()
        while True:
            key = flight_key(job, self._flights.is_under_way)
            lost = partial(self._flights.forget, key)
            fly = partial(self._crew.fly, call, tasks, lookout=lookout, on_lost=lost)
            with suppress(GaveUp):
                async with self._flights.aboard(key, fly) as (flight, led):
                    if led:
                        flight.cargo = lookout
                    if is_live:
                        flight.cargo.sighted.add_done_callback(errand.overtake)
                    return await flight.landing(led=led), led

    async def _fly(self, job: Job, errand: Errand, tasks: Tasks) -> tuple[Landing, bool]:
        call = _calling(job, errand)
        key = (job.key, object())
        return await self._flights.join(key, lambda: self._crew.fly(call, tasks, may_wait=False))

    async def _wait_for(
        self, errand: Errand, ride: asyncio.Task[tuple[Landing, bool]]
    ) -> tuple[Landing | None, bool] | None:
        """Return how a flight landed, no landing if it failed, and None if it has become this errand."""
        errand.ride = ride
        ride.add_done_callback(errand.landed)
        leaves = True
        try:
            waiting = (ride, errand.begun, errand.overtaken)
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            leaves = not (ride.done() or errand.begun.done())
        finally:
            if leaves:
                errand.abandon()  # the others may ride on: when it is their turn, nobody would bring it
                ride.cancel()
        if not ride.done():
            return (None, False) if leaves else None
        try:
            return ride.result()
        except CacheMiss:
            raise
        except (Exception, asyncio.CancelledError):  # noqa: BLE001 - a provider's, asked by another
            return None, False


def brought(codec: AnswerCodec, answer: Any) -> Any:
    """Return what `fulfil` and `put` take: the answer's bytes, whatever its owner does to it from now on.

    The answer itself if it has no stored form; it is refused, and counted, where it is to be stored.
    """
    try:
        return codec.encode(answer)
    except UnstorableAnswer:
        return answer


class _Brought:
    """A codec for answers that may come encoded already."""

    def __init__(self, codec: AnswerCodec) -> None:
        self.kind = codec.kind
        self.decode = codec.decode
        self._codec = codec

    def encode(self, answer: Any) -> EncodedAnswer:
        return answer if isinstance(answer, EncodedAnswer) else self._codec.encode(answer)


def _calling(job: Job, errand: Errand) -> CallJob:
    return replace(job, codec=_Brought(job.codec)).calling(errand.call)
