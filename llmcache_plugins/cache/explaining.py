"""Why a request hits or misses: what counts of it, what lies under its key, and what like it is stored."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from llmcache_plugins.answers import Kind
from llmcache_plugins.cache.explanation import Explanation, Nearest, StoredEntry
from llmcache_plugins.cache.terms import NoPolicy
from llmcache_plugins.errors import ConfigError, RepositoryError, SignatureError
from llmcache_plugins.keys import CacheKey
from llmcache_plugins.models import Mode, Outcome
from llmcache_plugins.policy import Freshness, freshness_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from llmcache_plugins.cache.intake import Intake
    from llmcache_plugins.cache.options import CallOptions, Terms
    from llmcache_plugins.models import Entry, Found
    from llmcache_plugins.repository import ResponseRepository
    from llmcache_plugins.signature import Leaves

__all__ = ["Explainer", "all_kinds"]

MOST_COMPARED = 1000
"""Of the entries used last."""


class Explainer:
    """Explains, for one cache. Asks the server at leisure, with no budget, and notes no reads."""

    def __init__(self, repository: ResponseRepository, intake: Intake) -> None:
        self._repository = repository
        self._intake = intake

    async def explain(
        self,
        query: Any,
        *,
        kinds: Sequence[str],
        scopes: Sequence[Mapping[str, object] | None],
        request: Callable[[], Any] | None,
        options: CallOptions,
    ) -> Explanation:
        """Explain a request, as that of whichever kind is stored, else of the first one.

        Raises `TypeError` and `ConfigError` for options that cannot work.
        """
        shown = request or partial(_same, query)
        model = self._intake.model_of(query, request)
        try:
            terms = self._intake.terms.read(options, request=shown, model=model)
        except NoPolicy as error:
            return Explanation(outcome=Outcome.BYPASS, reason=f"choosing its policy raised {error}")
        if (reason := self._intake.exclusion(terms, shown)) is not None:
            return Explanation(outcome=Outcome.BYPASS, reason=reason)
        try:
            basis = await asyncio.to_thread(self._read, query, kinds[0], scopes[0], terms, model)
            keys = [
                (kind, await asyncio.to_thread(self._intake.key_of, query, kind, scope, terms, model))
                for kind in kinds
                for scope in scopes
            ]
        except SignatureError as error:
            return Explanation(outcome=Outcome.BYPASS, reason=f"it has no canonical form: {error}")
        try:
            return await self._look(basis, keys, terms, await self._leaves(shown, scopes[0], terms))
        except (RepositoryError, ConfigError) as error:
            return replace(basis, outcome=Outcome.UNAVAILABLE, reason=str(error))

    def _read(
        self, query: Any, kind: str, scope: Mapping[str, object] | None, terms: Terms, model: str | None
    ) -> Explanation:
        """Return what is known of a request without asking the server."""
        anatomy = self._intake.anatomy(query, kind=kind, scope=scope, terms=terms)
        return Explanation(
            outcome=Outcome.MISS,
            reason="nothing is stored under this key",
            key=self._intake.key_of(query, kind, scope, terms, model),
            kind=kind,
            canonical=anatomy.canonical.decode(),
            left_out=anatomy.left_out,
            normalized=anatomy.normalized,
        )

    async def _leaves(
        self, shown: Callable[[], Any], scope: Mapping[str, object] | None, terms: Terms
    ) -> Leaves | None:
        try:
            return await asyncio.to_thread(self._intake.leaves, shown, scope, terms.policy.chain)
        except SignatureError:
            return None

    async def _look(
        self,
        basis: Explanation,
        keys: Sequence[tuple[str, CacheKey]],
        terms: Terms,
        leaves: Leaves | None,
    ) -> Explanation:
        await self._repository.ready()
        for kind, key in keys:
            found = await self._repository.fetch(key, touch=False)
            if found is not None:
                outcome, reason = _judged(found.entry, terms)
                basis = replace(
                    basis, outcome=outcome, reason=reason, key=key, kind=kind, entry=_entry_of(found)
                )
                break
        if basis.outcome is not Outcome.MISS or basis.key is None or leaves is None:
            return basis
        return await self._with_nearest(basis, basis.key, leaves)

    async def _with_nearest(self, basis: Explanation, key: CacheKey, leaves: Leaves) -> Explanation:
        nearest: Nearest | None = None
        compared = incomparable = 0
        async for digest, entry in self._repository.latest(key.namespace, most=MOST_COMPARED):
            differences = leaves.compare(entry.leaves)
            if differences is None:
                incomparable += 1
                continue
            compared += 1
            if nearest is None or differences.count < nearest.differences.count:
                nearest = Nearest(
                    key=CacheKey(digest=digest, namespace=key.namespace, prefix=key.prefix),
                    age=max(0.0, time.time() - entry.created),
                    model=entry.provenance.model,
                    differences=differences,
                )
        return replace(basis, nearest=nearest, compared=compared, incomparable=incomparable)


def all_kinds(first: str) -> list[str]:
    """Return every kind of answer to a request, this one first."""
    return [first, *(str(kind) for kind in Kind if kind != first)]


def _judged(entry: Entry, terms: Terms) -> tuple[Outcome, str]:
    age = time.time() - entry.created
    if terms.mode is Mode.REFRESH:
        return Outcome.MISS, 'mode "refresh" calls whatever is stored'
    if terms.max_age is not None and age > terms.max_age:
        return Outcome.MISS, f"what is stored is {age:.0f} s old, and max_age is {terms.max_age:g} s"
    match freshness_of(entry, terms.policy, now=time.time(), chance=1.0):
        case Freshness.STALE:
            return (
                Outcome.STALE,
                "what is stored is past its time: served while one call brings another",
            )
        case Freshness.LAPSED:
            return Outcome.MISS, "what is stored is past its time: served only where the provider fails"
        case Freshness.OVER:
            return Outcome.MISS, "what is stored is past its time"
    return Outcome.HIT, "it is stored"


def _entry_of(found: Found) -> StoredEntry:
    entry, now = found.entry, time.time()
    return StoredEntry(
        age=max(0.0, now - entry.created),
        fresh_for=entry.fresh_until - now,
        stored_bytes=found.stored_bytes,
        model=entry.provenance.model,
        tags=entry.provenance.tags,
    )


def _same(query: Any) -> Any:
    return query
