"""What is told of a stored entry, the same wherever it is told, and the answer for who asks for that."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from llmcache_plugins.answers.texts import text_of, tree_of

if TYPE_CHECKING:
    from llmcache_plugins.models import Entry
    from llmcache_plugins.repository.listing import Listed

__all__ = ["answer_of", "as_data"]


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


def answer_of(entry: Entry) -> dict[str, Any]:
    """Return the answer as JSON data: its visible text, empty if it has none, and all of it."""
    tree = tree_of(entry.answer)
    try:
        # Numbers that JSON has not become null, bytes become base64.
        data = msgspec.json.decode(msgspec.json.encode(tree, enc_hook=_refuse))
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError):
        data = None
    return {"text": text_of(entry.answer), "data": data}


def _refuse(value: object) -> object:
    raise TypeError(f"{type(value).__name__} has no form in JSON")
