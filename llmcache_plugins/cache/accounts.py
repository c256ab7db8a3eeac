"""What calls have saved, and what the cache itself has spent: told to telemetry, and to the ledger.

Owns that the two agree. The telemetry of a process knows no namespaces; the ledger in Redis is by namespace.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from llmcache_plugins.telemetry import Purpose, Resolved, Spent

if TYPE_CHECKING:
    from llmcache_plugins.keys import CacheKey
    from llmcache_plugins.models import AnswerFacts, Resolution, Usage
    from llmcache_plugins.prices import Prices
    from llmcache_plugins.repository import ResponseRepository
    from llmcache_plugins.telemetry import Face

__all__ = ["Accounts"]


_MOST_TOKENS = 1_000_000_000
"""Of one answer: what says more is not believed."""
_LONGEST_CALL = 86_400.0
"""Seconds."""


class Accounts:
    """One cache's. Usable from any thread; nothing here waits."""

    def __init__(self, repository: ResponseRepository, prices: Prices) -> None:
        self._repository = repository
        self._prices = prices

    def resolved(
        self, resolution: Resolution, *, face: Face, started: float, answered: float | None = None
    ) -> None:
        """Count an answered call that began at `started` (`time.monotonic`).

        `answered` is when the first chunk of a stream was there: the others come as its reader takes them.
        """
        key, usage = resolution.key, _believed(resolution.tokens_saved)
        asked = key.model if key is not None else None
        said = _name(resolution.model)
        cost = self._prices.cost(usage, asked, said) if usage is not None else None
        model, seconds = asked or said, min(resolution.seconds_saved, _LONGEST_CALL)
        self._repository.telemetry.emit(
            Resolved(
                outcome=resolution.outcome,
                face=face,
                seconds=(monotonic() if answered is None else answered) - started,
                model=model,
                saved=usage,
                saved_cost=cost,
                saved_seconds=seconds,
            )
        )
        self._repository.ledger.resolved(
            namespace=key.namespace if key is not None else None,
            model=model,
            outcome=resolution.outcome,
            usage=usage,
            cost=cost,
            seconds=seconds,
        )

    def spent(self, purpose: Purpose, usage: Usage | None, *models: str | None, namespace: str) -> None:
        """Count what the cache has spent on its own account; nothing where that is not known.

        `models` are the names of the one that was asked, the best known first.
        """
        if (usage := _believed(usage)) is None:
            return
        names = tuple(map(_name, models))
        model, cost = next(filter(None, names), None), self._prices.cost(usage, *names)
        self._repository.telemetry.emit(Spent(purpose=purpose, usage=usage, model=model, cost=cost))
        self._repository.ledger.spent(namespace=namespace, model=model, usage=usage, cost=cost)

    def refreshed(self, key: CacheKey, facts: AnswerFacts) -> None:
        """Count a call that was made to replace what its caller has been given."""
        self.spent(Purpose.REFRESH, facts.usage, key.model, facts.model, namespace=key.namespace)


def _believed(usage: Usage | None) -> Usage | None:
    """Return what a codec has found, if it can be: codecs may be anybody's."""
    if usage is None:
        return None
    read, written = usage.input_tokens, usage.output_tokens
    are_counts = type(read) is int and type(written) is int
    return usage if are_counts and 0 <= read <= _MOST_TOKENS and 0 <= written <= _MOST_TOKENS else None


def _name(model: object) -> str | None:
    return model if isinstance(model, str) else None
