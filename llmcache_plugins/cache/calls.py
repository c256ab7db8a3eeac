"""Callers of answers: each gets one, whoever fetches it and since when.

The callers of one process share flights; what they may not share sends them round again.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from llmcache_plugins.cache import resolutions
from llmcache_plugins.cache.flight import Crew, call_provider
from llmcache_plugins.cache.glance import glance
from llmcache_plugins.cache.job import flight_key
from llmcache_plugins.cache.refreshing import Refreshes
from llmcache_plugins.cache.shelf import clock
from llmcache_plugins.errors import CacheMiss, ConfigError, RepositoryError, WaitTimeout
from llmcache_plugins.failures import is_own
from llmcache_plugins.models import Mode, Outcome
from llmcache_plugins.singleflight import Flights, GaveUp
from llmcache_plugins.telemetry import ProviderCalled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from llmcache_plugins.cache.accounts import Accounts
    from llmcache_plugins.cache.job import CallJob, FlightKey, Landing
    from llmcache_plugins.cache.shelf import Shelf
    from llmcache_plugins.cache_status import Forward
    from llmcache_plugins.keys import CacheKey
    from llmcache_plugins.loops import Tasks
    from llmcache_plugins.models import Resolution
    from llmcache_plugins.repository import ResponseRepository

__all__ = ["Calls"]

T = TypeVar("T")

_MOST_ROUNDS = 2
"""How often a caller joins a flight whose answer is not for it before it flies alone."""


class Calls:
    """Gives answers to callers, and knows which are being fetched."""

    def __init__(self, repository: ResponseRepository, shelf: Shelf, accounts: Accounts) -> None:
        self._repository = repository
        self._config = repository.config
        self._shelf = shelf
        self._crew = Crew(repository, shelf, on_refreshed=accounts.refreshed)
        self._telemetry = repository.telemetry
        self._flights: Flights[FlightKey, Landing] = Flights(on_abandon=repository.config.on_abandon)
        self._refreshes: Refreshes[Landing] = Refreshes(repository.config)

    def detach(self, matches: Callable[[CacheKey], bool]) -> None:
        """Let newcomers not join the flights under way for these keys; who waits already goes on waiting."""
        self._flights.detach(lambda flying: matches(flying[0]))
        self._refreshes.detach(matches)

    def count(self) -> int:
        """Return how many are under way on the running loop."""
        return self._flights.count() + self._refreshes.count()

    async def aclose(self) -> None:
        """End the flights that nobody waits for any more."""
        await self._flights.aclose()

    async def resolve(self, job: CallJob, *, tasks: Tasks, may_wait: bool) -> Resolution:
        """Return the answer. Raises what the provider raises, `SharedProviderError`, `CacheMiss`."""
        try:
            return await self._share(job, tasks, may_wait=may_wait)
        except CacheMiss:
            raise
        except Exception as error:
            if (spare := await self._shelf.spare(job, error)) is not None:
                return resolutions.of_opened(job.key, spare)
            if job.mode is not Mode.READ_ONLY or isinstance(error, WaitTimeout):
                raise
            raise CacheMiss("the call that others made for this answer failed") from error

    async def read_or_call(self, job: CallJob) -> Resolution:
        """Return the stored answer, or the provider's, which is not stored and shared with nobody."""
        if job.mode is Mode.REFRESH:
            return await self.call(job.call, job.key, Outcome.MISS, fwd=job.fwd)
        try:
            opened = await self._shelf.look(job)
        except (RepositoryError, ConfigError):
            return await self.call(job.call, job.key, Outcome.UNAVAILABLE)
        if opened is not None:
            return resolutions.of_opened(job.key, opened)
        return await self.call(job.call, job.key, Outcome.MISS, fwd=job.fwd)

    async def call(
        self,
        call: Callable[[], Awaitable[Any]],
        key: CacheKey | None,
        outcome: Outcome,
        *,
        fwd: Forward | None = None,
        detail: str = "",
    ) -> Resolution:
        """Return the provider's answer, and nothing else."""
        answered = await call_provider(call, self._telemetry)
        self._telemetry.emit(ProviderCalled(seconds=answered.seconds, failed=False))
        return resolutions.of_call(key, answered.answer, outcome, fwd=fwd, detail=detail)

    async def _share(self, job: CallJob, tasks: Tasks, *, may_wait: bool) -> Resolution:
        since = clock()
        found = await glance(job, self._flights, self._repository, self._shelf)
        if found.resolution is not None:
            if found.is_due:
                job = found.job
                lost = partial(self._refreshes.forget, job.key)
                self._refreshes.begin(job.key, partial(self._crew.fly, job, tasks, on_lost=lost), tasks=tasks)
            return found.resolution
        job = found.job
        shares = may_wait and job.policy.coalesce and job.mode is not Mode.REFRESH
        rounds = _MOST_ROUNDS if shares else 0
        while rounds > 0:
            try:
                landing, led = await self._join(job, tasks, deadline=since + self._config.follow_for)
            except (GaveUp, _NotYet):
                continue
            rounds -= 1
            if landing is None:
                # With other credentials it may go better; then nobody waits in line for that any more.
                may_wait = False
            elif led or landing.serves(since=since):
                return resolutions.of_landing(job, landing, led=led)
        landing = await self._crew.fly(job, tasks, may_wait=may_wait)
        return resolutions.of_landing(job, landing, led=True)

    async def _join(self, job: CallJob, tasks: Tasks, *, deadline: float) -> tuple[Landing | None, bool]:
        """Return how a flight ended and whether it is this caller's; None for an error of another's own."""
        has_led = False
        # Anew each time: which flight is to be joined depends on those that are under way.
        key = flight_key(job, self._flights.is_under_way)

        def start() -> Coroutine[Any, Any, Landing]:
            nonlocal has_led
            has_led = True
            return self._crew.fly(job, tasks, on_lost=partial(self._flights.forget, key))

        joining = self._flights.join(key, start)
        try:
            if self._config.on_wait_timeout == "raise" and self._flights.is_under_way(key):
                return await _until(deadline, joining, patience=self._config.follow_for)
            return await joining
        except WaitTimeout:
            if has_led or clock() >= deadline:
                raise
            raise _NotYet from None
        except Exception as error:
            if has_led or not is_own(error):
                raise
            return None, False


class _NotYet(Exception):
    """The flight has waited long enough, but not this caller."""


async def _until(deadline: float, joining: Coroutine[Any, Any, T], *, patience: float) -> T:
    """Bound the wait for another caller's flight."""
    limit = asyncio.timeout_at(deadline)
    try:
        async with limit:
            return await joining
    except TimeoutError as error:
        if not limit.expired() or isinstance(error, WaitTimeout):
            raise
        raise WaitTimeout(f"nobody had the answer within {patience:g} s") from None
