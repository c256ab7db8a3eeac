"""Small builders of keys and entries for tests."""

from __future__ import annotations

import hashlib
import time

from llmcache_plugins.answers import PlainCodec
from llmcache_plugins.keys import CacheKey
from llmcache_plugins.models import Entry, Provenance

CODEC = PlainCodec()
_UNKNOWN = Provenance()


def key_of(name: str, *, namespace: str) -> CacheKey:
    return CacheKey(digest=hashlib.sha256(name.encode()).hexdigest(), namespace=namespace)


def entry_of(answer: object, *, seconds: float = 3600.0, provenance: Provenance = _UNKNOWN) -> Entry:
    now = time.time()
    return Entry(
        answer=CODEC.encode(answer),
        created=now,
        fresh_until=now + seconds,
        provider_seconds=0.5,
        provenance=provenance,
    )


def answer_in(found: object) -> object:
    assert found is not None
    return CODEC.decode(found.entry.answer)
