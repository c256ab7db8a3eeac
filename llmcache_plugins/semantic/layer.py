"""`SemanticCacheLayer`: the answer to an equivalent question, at an error rate that was chosen.

Owns the settings and what they come to. Says nothing of when it is asked: that is the cache's affair.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Literal

from llmcache_plugins.errors import ConfigError
from llmcache_plugins.semantic.calibration import Calibration, shipped
from llmcache_plugins.semantic.embedding import Embedding
from llmcache_plugins.semantic.guards import Guard, Guards
from llmcache_plugins.semantic.indexes import check_index_name
from llmcache_plugins.semantic.matching import Matcher

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from pathlib import Path

    from llmcache_plugins.models import Resolution, Usage
    from llmcache_plugins.semantic.embedders import Embedder
    from llmcache_plugins.semantic.indexes import IndexName, VectorStore
    from llmcache_plugins.semantic.matching import Verifier

__all__ = ["SemanticCacheLayer"]

_log = logging.getLogger("llmcache_plugins")

THRESHOLD = 0.95
_BAND = 0.25
"""How far below the threshold a verifier is asked, unless `reject_below` says."""


class SemanticCacheLayer:
    """Gives an equivalent question the answer that is there: `ResponseCache.from_url(url, semantic=...)`.

    `embedder` is an `Embedder`; None is the default one, which needs `llmcache-plugins[semantic]`.
    `similarity_threshold` is a cosine similarity, from 0 to 1, less what the guards take off. `target_error`,
    a share such as 0.01, replaces it: then the threshold is the one at which, by the 95% confidence bound of
    a calibration, no larger share of hits is false. `calibration` is that table, or its file; the default
    embedder has one. `guards` names those that judge each pair.

    `verifier` is asked about pairs between `reject_below` and `accept_above` (the threshold), for at most
    `verifier_budget` seconds: `await verifier(asked, stored)` says whether one answer serves both. An error
    is a no. `shadow` looks and serves nothing: what it would have served is compared with what the provider
    says then, and counted.

    `conversations` is "equal": only questions after the very same conversation are compared; "first_turn"
    compares none that has one. `serve_tool_calls` allows answers that call a tool. `budget` are the seconds
    that a call may spend here; `index` is "auto", "numpy", "hnsw" or "flat"; `max_rows` bounds what numpy
    holds. `feedback` is a file to which `report_feedback` adds a line each, for `llmcache calibrate`.

    A layer belongs to one cache; embedders may be shared. Raises `ConfigError` for what cannot work.
    """

    def __init__(
        self,
        embedder: Embedder | None = None,
        similarity_threshold: float = THRESHOLD,
        *,
        target_error: float | None = None,
        calibration: Calibration | Path | str | None = None,
        guards: Iterable[Guard | str] = tuple(Guard),
        verifier: Verifier | None = None,
        accept_above: float | None = None,
        reject_below: float | None = None,
        verifier_budget: float = 1.0,
        shadow: bool = False,
        conversations: Literal["equal", "first_turn"] = "equal",
        serve_tool_calls: bool = False,
        budget: float = 0.1,
        index: IndexName = "auto",
        max_rows: int = 100_000,
        feedback: Path | str | None = None,
    ) -> None:
        if isinstance(guards, str):
            raise ConfigError("guards is a list of names; one guard is a list of one")
        check_index_name(index)
        for name, value in {"budget": budget, "verifier_budget": verifier_budget}.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 60:
                raise ConfigError(f"{name} is in seconds, above 0 and at most 60, not {value!r}")
        if conversations not in ("equal", "first_turn"):
            raise ConfigError(f"conversations is 'equal' or 'first_turn', not {conversations!r}")
        if verifier is not None and not callable(verifier):
            raise ConfigError(f"verifier is an async callable, not a {type(verifier).__name__}")
        self.embedding = Embedding(_default_embedder() if embedder is None else embedder)
        self.guards = Guards(guards)
        table = _table(calibration, self.embedding.name, self.guards)
        self.threshold = _checked("similarity_threshold", similarity_threshold)
        if target_error is not None:
            self.threshold = _calibrated(table, target_error, self.embedding.name)
        elif table is None:
            _log.warning(
                "semantic cache: nothing is known of the error rate of %s with these guards at %.2f; measure"
                " it with `llmcache calibrate` and give target_error=",
                self.embedding.name,
                self.threshold,
            )
        self.accept_above = _checked("accept_above", self.threshold if accept_above is None else accept_above)
        if verifier is None:
            if reject_below is not None:
                raise ConfigError("reject_below begins the band of a verifier, and there is none")
            self.reject_below = self.accept_above
        else:
            below = max(self.accept_above - _BAND, 0.0) if reject_below is None else reject_below
            self.reject_below = _checked("reject_below", below)
            if self.reject_below > self.accept_above:
                raise ConfigError(
                    f"reject_below ({self.reject_below}) must not be above accept_above ({self.accept_above})"
                )
        self.verifier = verifier
        self.verifier_budget = verifier_budget
        self.shadow = shadow
        self.conversations = conversations
        self.serve_tool_calls = serve_tool_calls
        self.budget = budget
        self.feedback = feedback
        self._index: IndexName = index
        self._max_rows = max_rows
        self._find: Callable[..., Awaitable[Resolution | None]] | None = None

    async def find_similar(self, query: Any, **options: Any) -> Resolution | None:
        """Return the stored answer of an equivalent question, and how near it is; None if there is none.

        Asks no provider and counts nothing; `options` are those of a call of the cache that this belongs to.
        The very same question is not looked for. Raises `ConfigError` while it belongs to none, and what the
        embedder and the repository raise.
        """
        if self._find is None:
            raise ConfigError(
                "this layer belongs to no cache yet: ResponseCache.from_url(..., semantic=layer)"
            )
        return await self._find(query, **options)

    def bind(
        self,
        store: VectorStore,
        *,
        find: Callable[..., Awaitable[Resolution | None]],
        on_bill: Callable[[str, Usage], None],
    ) -> Matcher:
        """Take this layer for a cache, once: what finds questions in `store`. Raises `ConfigError`.

        `on_bill` is told what the embedder has cost.
        """
        if self._find is not None:
            raise ConfigError(
                "this semantic layer belongs to another cache; share the embedder, not the layer"
            )
        self._find = find
        self.embedding.on_bill = on_bill
        return Matcher(
            store,
            embedding=self.embedding,
            guards=self.guards,
            accept_above=self.accept_above,
            reject_below=self.reject_below,
            index=self._index,
            max_rows=self._max_rows,
        )


def _default_embedder() -> Embedder:
    from llmcache_plugins.semantic.embedders import MiniLMEmbedder

    return MiniLMEmbedder()


def _checked(name: str, similarity: float) -> float:
    if isinstance(similarity, bool) or not isinstance(similarity, int | float) or not 0 <= similarity <= 1:
        raise ConfigError(f"{name} is a cosine similarity from 0 to 1, not {similarity!r}")
    return float(similarity)


def _table(given: Calibration | Path | str | None, embedder: str, guards: Guards) -> Calibration | None:
    names = [str(guard) for guard in guards.enabled]
    if given is None:
        return shipped(embedder, names)
    table = given if isinstance(given, Calibration) else Calibration.load(given)
    if table.embedder != embedder or table.guards != tuple(sorted(names)):
        raise ConfigError(
            f"this calibration is for {table.embedder} with the guards {', '.join(table.guards) or 'none'};"
            " thresholds mean nothing for others"
        )
    return table


def _calibrated(table: Calibration | None, target_error: float, embedder: str) -> float:
    if table is None:
        raise ConfigError(
            f"target_error needs a calibration of {embedder} with these guards: make one with"
            " `llmcache calibrate PAIRS.jsonl --save FILE` and give calibration=FILE"
        )
    threshold = table.threshold_for(target_error)
    if threshold is None:
        raise ConfigError(
            f"no threshold of {embedder} is proved to keep false hits at or below {target_error:.2%}; allow"
            " more, add a verifier, or calibrate with more pairs"
        )
    return threshold
