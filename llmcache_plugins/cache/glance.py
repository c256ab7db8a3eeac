"""A look at the shelf before any flight: nearly every call of a warm cache needs no more.

What it found out is not asked again by the flight that follows, and what it spent is spent.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from llmcache_plugins.budget import Budget
from llmcache_plugins.cache.job import Glance
from llmcache_plugins.errors import ConfigError, RepositoryError
from llmcache_plugins.models import Found

if TYPE_CHECKING:
    from llmcache_plugins.cache.job import Job
    from llmcache_plugins.cache.shelf import Opened, Shelf
    from llmcache_plugins.repository import ResponseRepository

__all__ = ["glance"]

J = TypeVar("J", bound="Job")


async def glance(job: J, repository: ResponseRepository, shelf: Shelf) -> Opened | J:
    """Return what is stored, or the job with what the look has shown. Raises nothing of the repository."""
    await repository.ready()
    budget = Budget(repository.config.lookup_budget)
    try:
        found = await repository.look_up(job.key, budget=budget)
    except (RepositoryError, ConfigError) as error:
        return replace(job, glance=Glance(budget=budget, error=error))
    if not isinstance(found, Found):
        return replace(job, glance=Glance(budget=budget, seen=found.seen))
    opened = shelf.open(job, found)
    return opened if opened is not None else replace(job, glance=Glance(budget=budget, seen=found.fence))
