"""What may be stored, and for how long. Pure decisions: no I/O, no clock of its own."""

from __future__ import annotations

import enum
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmcache_plugins.errors import ConfigError

if TYPE_CHECKING:
    from llmcache_plugins.models import AnswerFacts

__all__ = ["CachePolicy", "Refusal", "admit", "effective_ttl"]

_COMPLETE = frozenset(
    # OpenAI chat, its Responses API, and what compatible servers send for the same thing.
    {
        "stop",
        "tool_calls",
        "function_call",
        "completed",
        "end_turn",
        "stop_sequence",
        "tool_use",
        "eos",
        "eos_token",
    }
)
_TRUNCATED = frozenset({"length", "max_tokens", "max_output_tokens", "model_length"})
_FILTERED = frozenset({"content_filter", "content_filtered", "safety", "refusal", "recitation", "blocklist"})


class Refusal(enum.StrEnum):
    """Why an answer was returned but not stored."""

    NO_CHOICES = "no_choices"
    TRUNCATED = "truncated"
    FILTERED = "filtered"
    UNKNOWN_FINISH = "unknown_finish"
    UNFINISHED = "unfinished"
    TOO_BIG = "too_big"
    NO_CODEC = "no_codec"
    SUPERSEDED = "superseded"
    """A newer answer was already there."""
    INVALIDATED = "invalidated"
    """The key was invalidated while the provider was working."""
    FORGOTTEN = "forgotten"
    """The server lost its memory meanwhile: whether the key was invalidated cannot be told."""
    NOT_LEASED = "not_leased"
    """The repository gave no fence in time: an entry that no invalidation reaches must not exist."""
    WRITE_FAILED = "write_failed"
    """The server refused the write (out of memory, read-only, no permission) or did not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePolicy:
    """How long answers are kept.

    `ttl` is in seconds; 0 means "do not store": such calls still read, but never lead or join a flight.
    `jitter` is the fraction of the TTL, from 0 to 1, by which an entry may be shortened at random, so
    that entries written together do not expire together.
    """

    ttl: float = 3600.0
    jitter: float = 0.0

    def __post_init__(self) -> None:
        check_ttl(self.ttl)
        if not 0 <= self.jitter <= 1:
            raise ConfigError(f"jitter is a fraction from 0 to 1, not {self.jitter!r}")


LONGEST_TTL = 10 * 365 * 24 * 3600.0
"""Ten years in seconds. What is longer was meant in milliseconds, or is not a cache."""


def check_ttl(ttl: float) -> float:
    """Return `ttl` or raise `ConfigError` for what cannot be a TTL in seconds."""
    if isinstance(ttl, bool) or not isinstance(ttl, int | float) or not 0 <= ttl <= LONGEST_TTL:
        raise ConfigError(f"ttl is in seconds, from 0 (do not store) to ten years, not {ttl!r}")
    return float(ttl)


def effective_ttl(policy: CachePolicy, override: float | None, *, rng: random.Random | None = None) -> float:
    """Return the TTL of one call in seconds: its own, else the policy's. 0 stays 0."""
    if override is not None:
        return check_ttl(override)
    shortened = policy.jitter * (rng or random).random() if policy.jitter else 0.0
    return policy.ttl * (1.0 - shortened)


def admit(facts: AnswerFacts) -> Refusal | None:
    """Return why an answer must not be stored, or None when it may.

    An empty successful answer is an answer. A finish reason that is absent says nothing against it; one
    that is present and unknown does.
    """
    if facts.empty_of_choices:
        return Refusal.NO_CHOICES
    for reason in facts.finish_reasons:
        refusal = _judge_finish(reason.lower())
        if refusal is not None:
            return refusal
    return Refusal.UNFINISHED if facts.unfinished else None


def _judge_finish(reason: str) -> Refusal | None:
    if reason in _COMPLETE:
        return None
    if reason in _TRUNCATED:
        return Refusal.TRUNCATED
    if reason in _FILTERED:
        return Refusal.FILTERED
    return Refusal.UNKNOWN_FINISH
