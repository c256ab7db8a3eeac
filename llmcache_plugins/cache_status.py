"""The `Cache-Status` header of RFC 9211 for an outcome."""

from __future__ import annotations

from llmcache_plugins.models import Outcome

__all__ = ["cache_status"]


def cache_status(
    outcome: Outcome, *, ttl: float | None = None, stored: bool = False, detail: str = ""
) -> str:
    """Return the header's value.

    `ttl` is the freshness left in seconds, negative when stale; `detail` a token such as a refusal.
    """
    value = _HOW[outcome]
    if stored:
        value += "; stored"
    if ttl is not None:
        value += f"; ttl={round(ttl)}"
    if detail:
        value += f"; detail={detail}"
    return value


_HOW = {
    Outcome.HIT: "llmcache; hit",
    Outcome.SEMANTIC_HIT: "llmcache; hit; detail=semantic",
    Outcome.STALE: "llmcache; hit; fwd=stale",
    Outcome.COALESCED: "llmcache; fwd=uri-miss; collapsed",
    Outcome.MISS: "llmcache; fwd=uri-miss",
    Outcome.BYPASS: "llmcache; fwd=bypass",
    Outcome.UNAVAILABLE: "llmcache; fwd=miss",
}
