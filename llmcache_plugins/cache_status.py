"""The `Cache-Status` header of RFC 9211 for an outcome. Pure.

A value has `hit` or `fwd`, never both: what went forward to the provider is no hit, whatever was returned.
Its parameters are always in the same order.
"""

from __future__ import annotations

import math
from typing import Literal

from llmcache_plugins.models import Outcome

__all__ = ["Forward", "cache_status"]

Forward = Literal["uri-miss", "miss", "request", "stale"]
"""Why the provider was asked: nothing is stored; nothing that will do; it was wanted; it is stale."""


def cache_status(
    outcome: Outcome,
    *,
    fwd: Forward | None = None,
    ttl: float | None = None,
    stored: bool = False,
    detail: str = "",
) -> str:
    """Return the header's value.

    `fwd` says why the provider was asked, where the outcome alone does not. `ttl` is the freshness left in
    seconds, rounded down, so that it is negative for all that is stale; `detail` a token such as a refusal,
    for an outcome without one of its own.
    """
    value = _HOW[outcome] if fwd is None else f"llmcache; fwd={fwd}"
    if stored:
        value += "; stored"
    if ttl is not None:
        value += f"; ttl={math.floor(ttl)}"
    if detail := _DETAILS.get(outcome, detail):
        value += f"; detail={detail}"
    return value


_HOW = {
    Outcome.HIT: "llmcache; hit",
    Outcome.SEMANTIC_HIT: "llmcache; hit",
    Outcome.STALE: "llmcache; hit",
    Outcome.COALESCED: "llmcache; fwd=uri-miss; collapsed",
    Outcome.MISS: "llmcache; fwd=uri-miss",
    Outcome.BYPASS: "llmcache; fwd=bypass",
    Outcome.UNAVAILABLE: "llmcache; fwd=miss",
}
_DETAILS = {Outcome.SEMANTIC_HIT: "semantic", Outcome.UNAVAILABLE: "unavailable"}
