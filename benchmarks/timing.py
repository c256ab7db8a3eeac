"""Timing many calls of coroutine functions: all of one, or in turns with others; and rows to compare."""

from __future__ import annotations

import asyncio
import gc
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.tables import percentile, print_table

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    Call = Callable[[int], Awaitable[Any]]

_WARM_UP = 50


async def _at_once() -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Calls per second, and percentiles of one call's seconds. `error` names what broke it off."""

    per_second: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Calls that were made without a pause: each one's seconds, and what all took together."""

    calls: list[float]
    seconds: float
    cpu: float
    """Seconds of the processor, of all threads of this process."""

    @property
    def per_second(self) -> float:
        """Calls per second."""
        return len(self.calls) / self.seconds


async def measure(call: Call, *, concurrency: int, calls: int) -> Timing:
    """Call `call(i)` from `concurrency` tasks at once, `calls` times in all, after a warm-up."""
    for i in range(min(_WARM_UP, calls)):
        await call(i)
    try:
        stretch = await _stretch(call, concurrency=concurrency, calls=calls)
    except Exception as error:  # noqa: BLE001 - that an alternative breaks is a result
        return Timing(error=type(error).__name__)
    return Timing(
        per_second=stretch.per_second, p50=percentile(stretch.calls, 50), p99=percentile(stretch.calls, 99)
    )


async def take_turns(
    contenders: Mapping[str, Call],
    *,
    concurrency: int,
    calls: int,
    turns: int,
    lead: int = 0,
    settle: Callable[[], Awaitable[object]] = _at_once,
) -> dict[str, list[Stretch]]:
    """Let each make a stretch of calls, and again, so many turns after a warm-up; another begins each time.

    What else the machine has to do is then shared by all: stretches of one turn can be compared. `settle`
    waits for what the calls have left to be done in the background: it belongs to a stretch. `lead` calls
    before each stretch do not: what was forgotten while the others had their turns is not forgotten in
    traffic that never stops.
    """
    stretches: dict[str, list[Stretch]] = {name: [] for name in contenders}
    names = list(contenders)
    for name in names:
        await _stretch(contenders[name], concurrency=concurrency, calls=calls, settle=settle)
    for turn in range(turns):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            if lead:
                await _stretch(contenders[name], concurrency=concurrency, calls=lead, settle=settle)
            # The garbage of the one before is not this one's.
            gc.collect()
            stretches[name].append(
                await _stretch(contenders[name], concurrency=concurrency, calls=calls, settle=settle)
            )
    return stretches


async def _stretch(
    call: Call, *, concurrency: int, calls: int, settle: Callable[[], Awaitable[object]] = _at_once
) -> Stretch:
    seconds: list[float] = []
    numbers = iter(range(calls))

    async def worker() -> None:
        for i in numbers:
            began = time.perf_counter()
            await call(i)
            seconds.append(time.perf_counter() - began)

    computing, began = time.process_time(), time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(concurrency)))
    await settle()
    return Stretch(calls=seconds, seconds=time.perf_counter() - began, cpu=time.process_time() - computing)


def print_rows(title: str, rows: Mapping[str, Timing]) -> None:
    """Print timings; the first that finished is what the others are compared with."""
    baseline = next(row.per_second for row in rows.values() if not row.error)
    print_table(
        title,
        ["", "calls/s", "ratio", "p50 us", "p99 us"],
        [[name, *([row.error] if row.error else _cells(row, baseline))] for name, row in rows.items()],
    )


def _cells(row: Timing, baseline: float) -> list[str]:
    return [
        f"{row.per_second:,.0f}",
        f"{row.per_second / baseline:.2f}",
        f"{row.p50 * 1e6:,.0f}",
        f"{row.p99 * 1e6:,.0f}",
    ]
