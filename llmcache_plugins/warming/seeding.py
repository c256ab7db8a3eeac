"""`seed_cache`: warming as users call it. Owns what may be asked for; what is done is in `run`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Unpack

from llmcache_plugins.errors import ConfigError
from llmcache_plugins.prices import Prices
from llmcache_plugins.warming.costs import Purse
from llmcache_plugins.warming.looking import Lookout, checked_options
from llmcache_plugins.warming.pace import Pace
from llmcache_plugins.warming.report import Tally
from llmcache_plugins.warming.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llmcache_plugins.cache import CallOptions
    from llmcache_plugins.gateway import InferenceGateway
    from llmcache_plugins.prices import Price, PriceTable
    from llmcache_plugins.warming.lines import Queries
    from llmcache_plugins.warming.report import SeedReport

__all__ = ["seed_cache"]


async def seed_cache(
    gateway: InferenceGateway,
    queries: Queries,
    *,
    concurrency: int = 8,
    requests_per_minute: float | None = None,
    tokens_per_minute: float | None = None,
    attempts: int = 6,
    backoff: float = 1.0,
    budget: float | None = None,
    prices: Mapping[str, Price] | PriceTable | None = None,
    refresh_below: float = 0.0,
    on_progress: Callable[[SeedReport], None] | None = None,
    **options: Unpack[CallOptions],
) -> SeedReport:
    """Ask and store what is not fresh in the cache, at most `concurrency` at a time; return what was done.

    `queries` is a list, an iterable or an async iterator of what `gateway.resolve` takes, read as it is
    needed; a `Line` among them brings a position of its own. A query that cannot be asked, or whose
    answer is not stored, is a failure of its own with its cause, and ends nothing.

    What fails for a while (429, 5xx, time-outs) is tried up to `attempts` times, after `backoff` seconds
    and twice as many each time, or after what `Retry-After` asks for; after a 429 nobody calls until
    then. `tokens_per_minute` and `budget` (US dollars, at the list prices of `prices`, by default the
    cache's) go by a guess of a call's tokens until its usage is known: see `warming.costs`. When the
    budget would be exceeded no further call begins, and the report says so. With `refresh_below`, what is
    fresh for fewer seconds is asked again, at most once a run. `on_progress` is called on the loop now
    and then and at the end, whichever way that comes. `options` are those of `CallOptions`, for every
    call.

    Any number may run at once, in any number of processes: they share the calls, as everybody does. Run
    again after whatever end, it pays only for what is not stored. Cancelled, it cancels the calls under
    way and releases their leases. Raises `ConfigError` for what cannot work, also for a `budget` and a
    model without a price; what the repository raises if it is not there; and `SeedingStopped`, with a
    report, when the provider refuses the credentials or asks to be left alone for more than a quarter of
    an hour, or fails line after line, or when the repository no longer keeps what is paid for. Then calls
    under way are waited for first.
    """
    _check_count("concurrency", concurrency)
    _check_count("attempts", attempts)
    for name, value in (
        ("requests_per_minute", requests_per_minute),
        ("tokens_per_minute", tokens_per_minute),
        ("budget", budget),
    ):
        if value is not None:
            _check_number(name, value)
    _check_number("backoff", backoff)
    _check_number("refresh_below", refresh_below, zero=True, infinite=True)
    calls = checked_options(gateway, options)
    run = Run(
        gateway,
        calls,
        lookout=Lookout(gateway, calls, refresh_below=refresh_below),
        pace=Pace(requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute),
        purse=Purse(budget, gateway.cache.prices if prices is None else Prices(prices)),
        tally=Tally(on_progress),
        concurrency=concurrency,
        attempts=attempts,
        backoff=backoff,
    )
    return await run.run(queries)


def _check_count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 10_000:
        raise ConfigError(f"{name} is a whole number from 1 to 10,000, not {value!r}")


def _check_number(name: str, value: Any, *, zero: bool = False, infinite: bool = False) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not (value >= 0 if zero else value > 0) or (math.isinf(value) and not infinite):
        raise ConfigError(f"{name} is a number {'from' if zero else 'above'} 0, not {value!r}")
