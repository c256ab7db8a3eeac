"""An entry that was taken down, and what may be done with it."""

from __future__ import annotations

from typing import Any

import msgspec

from llmcache_plugins.models import Entry, Outcome, SemanticMatch
from llmcache_plugins.policy import Freshness

__all__ = ["Opened"]


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """An entry and the answer in it."""

    entry: Entry
    answer: Any
    fence: str
    freshness: Freshness = Freshness.FRESH
    match: SemanticMatch | None = None
    """Whose answer it is, if it is an equivalent question's."""

    @property
    def outcome(self) -> Outcome:
        """What a caller is told who gets it."""
        if self.match is not None:
            return Outcome.SEMANTIC_HIT
        stale = self.freshness in (Freshness.STALE, Freshness.LAPSED)
        return Outcome.STALE if stale else Outcome.HIT

    @property
    def may_be_served(self) -> bool:
        """Whether it is an answer while the provider can be asked."""
        return self.freshness is not Freshness.LAPSED

    @property
    def is_due(self) -> bool:
        """Whether another is to be brought while it is served."""
        return self.freshness in (Freshness.DUE, Freshness.STALE)
