"""From how a flight ended to what one caller is told. Pure."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from llmcache_plugins.cache_status import cache_status
from llmcache_plugins.models import AnswerFacts, Outcome, Resolution

if TYPE_CHECKING:
    from llmcache_plugins.answers import AnswerCodec
    from llmcache_plugins.cache.job import Job, Landing
    from llmcache_plugins.cache.opened import Opened
    from llmcache_plugins.cache_status import Forward
    from llmcache_plugins.keys import CacheKey
    from llmcache_plugins.models import Entry, SemanticMatch

__all__ = ["of_call", "of_coalesced", "of_entry", "of_landing", "of_opened"]

_NOTHING = AnswerFacts()


def of_opened(key: CacheKey, opened: Opened, *, whole: bool = True) -> Resolution:
    """Return the resolution of an answer that was found; not `whole`: without the answer."""
    return of_entry(
        key,
        opened.entry,
        opened.answer if whole else None,
        outcome=opened.outcome,
        match=opened.match,
        # What will only do because the provider has failed.
        fwd=None if opened.may_be_served else "stale",
    )


def of_entry(
    key: CacheKey,
    entry: Entry,
    answer: Any,
    *,
    outcome: Outcome = Outcome.HIT,
    match: SemanticMatch | None = None,
    fwd: Forward | None = None,
) -> Resolution:
    """Return the resolution of a stored answer; `fwd` if the provider was asked all the same."""
    now = time.time()
    left = entry.fresh_until - now
    if not entry.stale_for:
        # Fresh as long as the server has it, whatever our clock says.
        left = max(0.0, left)
    return Resolution(
        answer=answer,
        outcome=outcome,
        key=key,
        model=entry.answer.facts.model,
        usage=entry.answer.facts.usage,
        # Another host's clock may be ahead of ours.
        age=max(0.0, now - entry.created),
        tokens_saved=entry.answer.facts.usage,
        seconds_saved=entry.provider_seconds,
        cache_status=cache_status(outcome, fwd=fwd, ttl=left),
        match=match,
    )


def of_call(
    key: CacheKey | None,
    answer: Any,
    outcome: Outcome,
    *,
    fwd: Forward | None = None,
    stored: bool = False,
    detail: str = "",
    facts: AnswerFacts = _NOTHING,
) -> Resolution:
    """Return the resolution of a provider call of the caller's own."""
    status = cache_status(outcome, fwd=fwd, stored=stored, detail=detail)
    return Resolution(
        answer=answer,
        outcome=outcome,
        key=key,
        model=facts.model,
        usage=facts.usage,
        cache_status=status,
    )


def of_coalesced(key: CacheKey | None, answer: Any, facts: AnswerFacts = _NOTHING) -> Resolution:
    """Return the resolution of an answer that somebody else has asked for."""
    return Resolution(
        answer=answer,
        outcome=Outcome.COALESCED,
        key=key,
        model=facts.model,
        usage=facts.usage,
        tokens_saved=facts.usage,
        cache_status=cache_status(Outcome.COALESCED),
    )


def of_landing(job: Job, landing: Landing, *, led: bool) -> Resolution:
    """Return what one of a flight's callers gets; `led` is the one that started it."""
    key = job.key
    # Whoever leads keeps the object; the others get one each, so that none sees what another does to it.
    answer = landing.answer if led else _own_copy(landing, job.codec)
    if landing.outcome.is_stored and landing.entry is not None:
        return of_entry(key, landing.entry, answer, outcome=landing.outcome, match=landing.match)
    facts = landing.encoded.facts if landing.encoded is not None else _NOTHING
    outcome = landing.outcome if led else Outcome.COALESCED
    if outcome is Outcome.COALESCED:
        return of_coalesced(key, answer, facts)
    fwd = job.fwd if outcome is Outcome.MISS else None
    stored = landing.entry is not None
    return of_call(key, answer, outcome, fwd=fwd, stored=stored, detail=landing.refusal, facts=facts)


def _own_copy(landing: Landing, codec: AnswerCodec) -> Any:
    if landing.encoded is None:
        return landing.answer
    try:
        return codec.decode(landing.encoded)
    except Exception:  # noqa: BLE001 - any codec: a shared answer is better than none
        return landing.answer
