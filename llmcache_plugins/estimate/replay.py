"""Which calls of one key a cache would have avoided. Pure: what the cache does, without a cache.

The rules are those of `cache` and of the script that commits: see the tests, which replay logs through a
gateway and compare.
"""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from llmcache_plugins.estimate.books import Booked

__all__ = ["Avoided", "alone", "together"]


class Avoided(NamedTuple):
    """A call that would not have reached the provider."""

    call: Booked
    age: float | None
    """Seconds since the stored answer was given; None for one that joins a call under way."""


def alone(calls: Sequence[Booked], *, ttl: float) -> Iterator[Avoided]:
    """Yield those that find a stored answer, where identical calls at one time do not share one.

    `calls` are those of one key, in the order of time. An answer is stored when it is complete, for `ttl`
    seconds. Of two under way the one that was asked later is newer: it replaces the other, and the other does
    not replace it.
    """
    under_way: list[tuple[float, int]] = []
    stored_at, stored, until = -math.inf, -1, -math.inf
    for number, call in enumerate(calls):
        while under_way and under_way[0][0] <= call.at:
            end, asked = heapq.heappop(under_way)
            if asked > stored or end >= until:
                stored_at, stored, until = end, asked, end + ttl
        if call.at < until:
            yield Avoided(call, call.at - stored_at)
        elif call.is_storable:
            heapq.heappush(under_way, (call.end, number))


def together(calls: Sequence[Booked], *, ttl: float) -> Iterator[Avoided]:
    """Yield those that find a stored answer, or an identical call under way to join.

    `calls` are those of one key, in the order of time. An answer that is not stored still goes to those who
    wait for it.
    """
    end = until = -math.inf
    for call in calls:
        if call.at < end:
            yield Avoided(call, None)
        elif call.at < until:
            yield Avoided(call, call.at - end)
        else:
            end = call.end
            until = end + ttl if call.is_storable else end
