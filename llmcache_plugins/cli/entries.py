"""What is told of a stored entry, the same wherever it is told: all but the request and the answer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmcache_plugins.repository.listing import Listed

__all__ = ["as_data"]


def as_data(listed: Listed, *, now: float | None = None) -> dict[str, Any]:
    """Return what is known of an entry as JSON data; `now` is unix seconds, by default this moment.

    Spans are seconds, negative once they are over; what is not known is None.
    """
    entry = listed.found.entry
    facts, usage = entry.answer.facts, entry.answer.facts.usage
    moment = time.time() if now is None else now
    return {
        "key": str(listed.key),
        "model": entry.provenance.model,
        "answered_by": facts.model,
        "kind": entry.answer.kind,
        "created": entry.created,
        # The clock of whoever has stored it may be ahead.
        "age": round(max(moment - entry.created, 0.0), 3),
        "fresh_for": round(entry.fresh_until - moment, 3),
        "ttl": listed.beside.seconds,
        "stale": moment >= entry.fresh_until,
        "bytes": listed.found.stored_bytes,
        "input_tokens": usage.input_tokens if usage else None,
        "output_tokens": usage.output_tokens if usage else None,
        "tags": list(entry.provenance.tags),
        "provider_seconds": round(entry.provider_seconds, 3),
    }
