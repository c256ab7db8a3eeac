"""Which answers may be stored, and the reasons why others are not. Pure."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmcache_plugins.models import AnswerFacts

__all__ = ["Refusal", "admit"]

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
    TEMPERATURE = "temperature"
    """The request asks for more variety than the policy stores."""
    NOT_CACHEABLE = "not_cacheable"
    """The policy's own predicate said so, or failed."""
    POLICY_FAILED = "policy_failed"
    """What was to choose the policy failed: nobody knows whether the answer may be stored."""
    NO_CODEC = "no_codec"
    SUPERSEDED = "superseded"
    """A newer answer was already there."""
    INVALIDATED = "invalidated"
    """The key was invalidated while the provider was working."""
    FORGOTTEN = "forgotten"
    """The server lost its memory meanwhile: whether the key was invalidated cannot be told."""
    TOO_LATE = "too_late"
    """Its time was over before the server could be told."""
    NOT_LEASED = "not_leased"
    """The repository gave no fence in time: an entry that no invalidation reaches must not exist."""
    WRITE_FAILED = "write_failed"
    """The server refused the write (out of memory, read-only, no permission) or did not answer."""


def admit(facts: AnswerFacts, *, allow_truncated: bool = False) -> Refusal | None:
    """Return why an answer must not be stored, or None when it may.

    An empty successful answer is an answer. A finish reason that is absent says nothing against it; one
    that is present and unknown does. With `allow_truncated` one that met its token limit is an answer, too.
    """
    if facts.empty_of_choices:
        return Refusal.NO_CHOICES
    for reason in facts.finish_reasons:
        refusal = _judge_finish(reason.lower())
        if refusal is not None and not (allow_truncated and refusal is Refusal.TRUNCATED):
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
