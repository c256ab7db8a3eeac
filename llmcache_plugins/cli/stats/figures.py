"""What is said of savings, as JSON-like data. Pure; the names are a promise to programs that read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmcache_plugins.savings import Savings, SavingsRow

__all__ = ["as_data"]


def as_data(savings: Savings) -> dict[str, Any]:
    """Return the totals on top, and below them the sums by model, namespace and day. Money is US dollars."""
    return _sums(savings.total) | {
        "by_model": [{"model": row.model} | _sums(row) for row in savings.by_model()],
        "by_namespace": [{"namespace": row.namespace} | _sums(row) for row in savings.by_namespace()],
        "by_day": [{"day": row.day} | _sums(row) for row in savings.by_day()],
    }


def _sums(row: SavingsRow) -> dict[str, Any]:
    return {
        "hits": row.hits,
        "misses": row.misses,
        "coalesced": row.coalesced,
        "tokens_saved": row.tokens_saved,
        "cost_saved": row.cost_saved,
        "requests": row.requests,
        "hit_rate": round(row.hit_rate, 6),
        "outcomes": row.outcomes,
        "input_tokens_saved": row.saved_input_tokens,
        "output_tokens_saved": row.saved_output_tokens,
        "seconds_saved": row.seconds_saved,
        "tokens_spent": row.tokens_spent,
        "cost_spent": row.cost_spent,
        "unpriced": row.unpriced,
    }
