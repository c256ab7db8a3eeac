"""A look at the shelf before any flight: nearly every call of a warm cache needs no more.

What it found out is not asked again by the flight that follows, and what it spent is spent.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec
from msgspec.structs import replace

from llmcache_plugins.budget import Budget
from llmcache_plugins.cache import resolutions
from llmcache_plugins.cache.job import Glance, Job
from llmcache_plugins.errors import ConfigError, RepositoryError
from llmcache_plugins.models import Mode, Resolution
from llmcache_plugins.telemetry import Missed

if TYPE_CHECKING:
    from llmcache_plugins.cache.job import FlightKey, Landing
    from llmcache_plugins.cache.shelf import Shelf
    from llmcache_plugins.repository import ResponseRepository
    from llmcache_plugins.singleflight import Flights

__all__ = ["Glimpse", "glance"]

J = TypeVar("J", bound="Job")


class Glimpse(msgspec.Struct, Generic[J], frozen=True):
    """What a look has shown: the stored answer, if it may be served; and the job for who asks further.

    `is_due` says that another answer is to be brought meanwhile.
    """

    job: J
    resolution: Resolution | None = None
    is_due: bool = False


async def glance(
    job: J, flights: Flights[FlightKey, Landing], repository: ResponseRepository, shelf: Shelf
) -> Glimpse[J]:
    """Look for the stored answer. Raises nothing of the repository.

    Where a flight can be joined, or the answer is to be replaced, nobody looks.
    """
    may_join = job.policy.coalesce and flights.is_under_way((job.key, job.share))
    if job.mode is Mode.REFRESH or may_join:
        return Glimpse(job)
    await repository.ready()
    budget, began = Budget(repository.config.lookup_budget), monotonic()
    try:
        opened, seen = await shelf.see(job, budget)
    except (RepositoryError, ConfigError) as error:
        return Glimpse(replace(job, glance=Glance(budget=budget, error=error)))
    if opened is None or not opened.may_be_served:
        repository.telemetry.emit(Missed(seconds=monotonic() - began))
        return Glimpse(replace(job, glance=Glance(budget=budget, seen=seen)))
    resolution = resolutions.of_opened(job.key, opened)
    if not opened.is_due or job.mode is Mode.READ_ONLY:
        return Glimpse(job, resolution)
    return Glimpse(job.refreshing(seen, budget=Budget(repository.config.lookup_budget)), resolution, True)
