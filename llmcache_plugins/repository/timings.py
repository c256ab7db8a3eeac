"""The configuration's times as scripts take them: whole milliseconds and microseconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmcache_plugins.config import CacheConfig

__all__ = ["Timings", "milliseconds"]


def milliseconds(seconds: float) -> int:
    """Return whole milliseconds, at least one: no key may live for ever, or not at all."""
    return max(1, round(seconds * 1000))


class Timings:
    """How long what is kept on the server is kept."""

    def __init__(self, config: CacheConfig) -> None:
        self._config = config
        self.lease_ms = milliseconds(config.lease_ttl)
        self.oldest_us = round(2 * config.max_lead * 1_000_000)
        """Marks of single keys are dropped at this age: older flights cannot be judged."""
        self.error_ms = milliseconds(config.error_ttl)
        # A leader that is alive adds to its chunks, or touches them, far more often.
        self.chunks_ms = milliseconds(config.lease_ttl)

    def marks_ms(self, ttl: float = 0.0) -> int:
        """Return how long the marks of a bucket must live that holds an entry of this TTL (seconds)."""
        # A second more than what they guard.
        return milliseconds(max(ttl, 2 * self._config.max_lead) + 1)
