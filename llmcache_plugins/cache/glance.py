"""A look at the shelf before any flight: nearly every call of a warm cache needs no more.

What it found out is not asked again by the flight that follows, and what it spent is spent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from msgspec.structs import replace

from llmcache_plugins.budget import Budget
from llmcache_plugins.cache import resolutions
from llmcache_plugins.cache.job import Glance
from llmcache_plugins.errors import ConfigError, RepositoryError
from llmcache_plugins.models import Mode

if TYPE_CHECKING:
    from llmcache_plugins.cache.job import FlightKey, Job, Landing
    from llmcache_plugins.cache.shelf import Shelf
    from llmcache_plugins.models import Resolution
    from llmcache_plugins.repository import ResponseRepository
    from llmcache_plugins.singleflight import Flights

__all__ = ["glance"]

J = TypeVar("J", bound="Job")


async def glance(
    job: J, flights: Flights[FlightKey, Landing], repository: ResponseRepository, shelf: Shelf
) -> Resolution | J:
    """Return the stored answer, or the job with what the look has shown. Raises nothing of the repository.

    Where a flight can be joined, or the answer is to be replaced, nobody looks.
    """
    if job.mode is Mode.REFRESH or flights.is_under_way((job.key, Mode.DEFAULT)):
        return job
    await repository.ready()
    budget = Budget(repository.config.lookup_budget)
    try:
        opened, seen = await shelf.see(job, budget)
    except (RepositoryError, ConfigError) as error:
        return replace(job, glance=Glance(budget=budget, error=error))
    if opened is None:
        return replace(job, glance=Glance(budget=budget, seen=seen))
    return resolutions.of_entry(job.key, opened.entry, opened.answer)
