"""What an entry's age allows. Pure: clock and chance are given."""

from __future__ import annotations

import enum
import math
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmcache_plugins.models import Entry
    from llmcache_plugins.policy.policy import CachePolicy

__all__ = ["Freshness", "freshness_of"]


class Freshness(enum.Enum):
    """What may be done with an entry."""

    FRESH = enum.auto()
    DUE = enum.auto()
    """Fresh, and it is time to bring another."""
    STALE = enum.auto()
    """May be served while another is brought."""
    LAPSED = enum.auto()
    """May be served only where the provider fails."""
    OVER = enum.auto()


def freshness_of(entry: Entry, policy: CachePolicy, *, now: float, chance: float | None = None) -> Freshness:
    """Judge an entry that was found. `now` is unix seconds, `chance` a number from 0 to 1, at random if None.

    An entry that is not kept past its TTL is fresh as long as the server has it: what hosts think of the time
    does not matter then.
    """
    late = now - entry.fresh_until
    if entry.stale_for and late > 0:
        if late <= policy.stale_while_revalidate:
            return Freshness.STALE
        return Freshness.LAPSED if late <= policy.stale_if_error else Freshness.OVER
    if policy.refresh_early and _is_due(-late, policy.refresh_early * entry.provider_seconds, chance):
        return Freshness.DUE
    return Freshness.FRESH


def _is_due(left: float, scale: float, chance: float | None) -> bool:
    # XFetch: now - delta * beta * ln(rand()) >= expiry. Its rand() is never 0.
    drawn = 1.0 - random.random() if chance is None else chance  # noqa: S311
    return scale > 0 and (drawn <= 0.0 or -scale * math.log(drawn) >= left)
