"""Timing many calls of one coroutine function, and printing rows against a baseline."""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Calls per second, and percentiles of one call's seconds. `error` names what broke it off."""

    per_second: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    error: str = ""


async def measure(call: Callable[[int], Awaitable[Any]], *, concurrency: int, calls: int) -> Timing:
    """Call `call(i)` from `concurrency` tasks at once, `calls` times in all, after a warm-up."""
    seconds: list[float] = []
    numbers = iter(range(calls))

    async def worker() -> None:
        for i in numbers:
            began = time.perf_counter()
            await call(i)
            seconds.append(time.perf_counter() - began)

    for i in range(min(50, calls)):
        await call(i)
    began = time.perf_counter()
    try:
        await asyncio.gather(*(worker() for _ in range(concurrency)))
    except Exception as error:  # noqa: BLE001 - that an alternative breaks is a result
        return Timing(error=type(error).__name__)
    elapsed = time.perf_counter() - began
    cuts = statistics.quantiles(seconds, n=100)
    return Timing(per_second=calls / elapsed, p50=cuts[49], p99=cuts[98])


def print_rows(title: str, rows: dict[str, Timing]) -> None:
    """Print timings; the first that finished is what the others are compared with."""
    print(f"\n{title}")
    print(f"  {'':44}{'calls/s':>10}{'ratio':>8}{'p50 us':>10}{'p99 us':>10}")
    baseline = next(row.per_second for row in rows.values() if not row.error)
    for name, row in rows.items():
        if row.error:
            print(f"  {name:44}{row.error}")
            continue
        ratio = row.per_second / baseline
        print(
            f"  {name:44}{row.per_second:>10,.0f}{ratio:>8.2f}{row.p50 * 1e6:>10,.0f}{row.p99 * 1e6:>10,.0f}"
        )
