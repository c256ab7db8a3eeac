"""What became of an answer: stored, or the reason why not.

A resolution says so in its `Cache-Status` (RFC 9211), in two parameters: `stored`, and `detail` with the
reason. Neither: storing goes on in the background, or it was somebody else's answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmcache_plugins.policy import Refusal

if TYPE_CHECKING:
    from llmcache_plugins.models import Resolution

__all__ = ["Fate", "fate_of", "is_of_its_own"]

_REASONS = frozenset(map(str, Refusal))
_OF_THEIR_OWN = frozenset(
    {
        Refusal.NO_CHOICES,
        Refusal.TRUNCATED,
        Refusal.FILTERED,
        Refusal.UNKNOWN_FINISH,
        Refusal.UNFINISHED,
        Refusal.TOO_BIG,
        Refusal.TEMPERATURE,
        Refusal.NOT_CACHEABLE,
        Refusal.INVALIDATED,
        Refusal.SUPERSEDED,
    }
)
"""Reasons that concern one answer; the others concern all of them."""


@dataclass(frozen=True, slots=True)
class Fate:
    """`is_stored` is None while that is not known."""

    is_stored: bool | None
    reason: str = ""


def fate_of(resolution: Resolution) -> Fate:
    """Read what became of an answer that the provider was asked for."""
    parameters = dict(
        part.strip().partition("=")[::2] for part in resolution.cache_status.split(";")[1:] if part.strip()
    )
    if "stored" in parameters:
        return Fate(is_stored=True)
    reason = parameters.get("detail", "")
    if reason in _REASONS:
        return Fate(is_stored=False, reason=reason)
    return Fate(is_stored=None, reason=reason)


def is_of_its_own(reason: str) -> bool:
    """Say whether a reason concerns one answer only."""
    return reason in _OF_THEIR_OWN
