"""What warming would do and cost, without asking any provider."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Unpack

from llmcache_plugins.prices import Prices
from llmcache_plugins.warming.costs import Guesses
from llmcache_plugins.warming.lines import Queries, batches
from llmcache_plugins.warming.looking import Lookout, checked_options
from llmcache_plugins.warming.report import SeedFailure, Tally

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmcache_plugins.cache import CallOptions
    from llmcache_plugins.gateway import InferenceGateway
    from llmcache_plugins.prices import Price, PriceTable

__all__ = ["SeedEstimate", "estimate_seed"]

_BATCH = 128
_MOST_TOLD_APART = 1_000_000
"""Queries; a repetition beyond them may count as a call."""
_REMEMBERED = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedEstimate:
    """What a run would do now. Every query is in one of the first four figures."""

    calls: int
    """Queries that would be asked."""
    fresh: int
    duplicates: int
    """Of queries before them that would be asked."""
    failed: int
    """Queries that cannot be asked."""
    input_tokens: int
    """Of the calls: a quarter of the UTF-8 bytes of their texts."""
    output_tokens: int
    """What the requests allow at most; where they do not say, the mean of the answers that are fresh, or
    500."""
    cost: float | None
    """US dollars for so many tokens, at list price; None if no price is known."""
    unpriced: int
    """Calls whose price is not known: they are not in `cost`."""
    failures: tuple[SeedFailure, ...]

    def __str__(self) -> str:
        price = "cost unknown" if self.cost is None else f"about ${self.cost:,.4f}"
        missing = (
            f" and {self.unpriced:,} calls of unknown price"
            if self.unpriced and self.cost is not None
            else ""
        )
        return (
            f"{self.calls:,} calls, {self.fresh:,} fresh, {self.duplicates:,} duplicates, {self.failed:,}"
            f" failed; about {self.input_tokens:,} tokens in and {self.output_tokens:,} out,"
            f" {price}{missing}"
        )


async def estimate_seed(
    gateway: InferenceGateway,
    queries: Queries,
    *,
    prices: Mapping[str, Price] | PriceTable | None = None,
    refresh_below: float = 0.0,
    **options: Unpack[CallOptions],
) -> SeedEstimate:
    """Say what `seed_cache` would do with the same arguments. Asks the repository, and no provider.

    Raises what the repository raises, and `ConfigError`.
    """
    lookout = Lookout(gateway, checked_options(gateway, options), refresh_below=refresh_below)
    table = gateway.cache.prices if prices is None else Prices(prices)
    guesses, tally, seen = Guesses(), Tally(), set[str]()
    calls = duplicates = unpriced = input_tokens = output_tokens = 0
    cost = 0.0
    await lookout.check()
    async for lines in batches(queries, size=_BATCH):
        for looked in await lookout.look(lines):
            if looked.key is None:
                tally.fail(looked.error, [looked.line.position])
                continue
            if looked.is_fresh:
                tally.skipped += 1
                guesses.learn(looked.usage)
                continue
            if (digest := looked.key.digest[:_REMEMBERED]) in seen:
                duplicates += 1
                continue
            if len(seen) < _MOST_TOLD_APART:
                seen.add(digest)
            calls += 1
            guess = guesses.of(looked.line.query)
            input_tokens += guess.input_tokens
            output_tokens += guess.output_tokens
            if (one := table.cost(guess, looked.key.model)) is None:
                unpriced += 1
            else:
                cost += one
    report = tally.report()
    return SeedEstimate(
        calls=calls,
        fresh=report.skipped,
        duplicates=duplicates,
        failed=report.failed,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cost=None if calls and unpriced == calls else cost,
        unpriced=unpriced,
        failures=report.failures,
    )
