"""The `Cache-Status` header of RFC 9211 for an outcome."""

from __future__ import annotations

from typing import assert_never

from llmcache_plugins.models import Outcome

__all__ = ["cache_status"]


def cache_status(
    outcome: Outcome, *, ttl: float | None = None, stored: bool = False, detail: str = ""
) -> str:
    """Return the header's value.

    `ttl` is the freshness left in seconds, negative when stale; `detail` a token such as a refusal.
    """
    parts = ["llmcache", *_how(outcome)]
    if stored:
        parts.append("stored")
    if ttl is not None:
        parts.append(f"ttl={round(ttl)}")
    if detail:
        parts.append(f"detail={detail}")
    return "; ".join(parts)


def _how(outcome: Outcome) -> list[str]:
    match outcome:
        case Outcome.HIT | Outcome.SEMANTIC_HIT:
            return ["hit"]
        case Outcome.STALE:
            return ["hit", "fwd=stale"]
        case Outcome.COALESCED:
            return ["fwd=uri-miss", "collapsed"]
        case Outcome.MISS:
            return ["fwd=uri-miss"]
        case Outcome.BYPASS:
            return ["fwd=bypass"]
        case Outcome.UNAVAILABLE:
            return ["fwd=miss"]
    assert_never(outcome)
