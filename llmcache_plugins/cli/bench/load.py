"""The load: which question comes when, and how a call is measured. Knows no cache and no provider.

Questions repeat by a Zipf law: the r-th of them is asked in proportion to 1/r**s. Without a rate the next
call begins when one has ended; with one, calls begin by themselves at random times (a Poisson process), and
their time counts from when they were due: what waits for its turn is not left out.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    Ask = Callable[[int], Awaitable[object]]

__all__ = ["Measured", "arrivals", "ask_all", "draw"]

_LATE = 0.05
"""Seconds after its time from which a call counts as late."""


@dataclass(slots=True)
class Measured:
    """What came of the calls. Seconds."""

    latencies: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    late: int = 0


def draw(count: int, *, questions: int, zipf: float, seed: int) -> list[int]:
    """Return the numbers of the questions to ask, in their order."""
    weights = [1.0 / rank**zipf for rank in range(1, questions + 1)]
    # Repeatable, no secrets.
    return random.Random(seed).choices(range(questions), weights, k=count)  # noqa: S311


def arrivals(count: int, *, rate: float, seed: int) -> Iterator[float]:
    """Yield when each call is due: seconds from the start."""
    rng, due = random.Random(seed), 0.0  # noqa: S311 - repeatable, no secrets
    for _ in range(count):
        due += rng.expovariate(rate)
        yield due


async def ask_all(
    numbers: Sequence[int], ask: Ask, *, concurrency: int, due: Iterator[float] | None = None
) -> Measured:
    """Ask all, at most so many at a time; a call that fails is counted, and the others go on.

    `due` are the seconds from now at which each is to begin; None: as soon as there is room.
    """
    measured = Measured()
    if due is None:
        queue = iter(numbers)
        await asyncio.gather(*(_one_after_another(queue, ask, measured) for _ in range(concurrency)))
    else:
        await _in_their_time(numbers, due, ask, measured, concurrency)
    return measured


async def _one_after_another(queue: Iterator[int], ask: Ask, measured: Measured) -> None:
    for number in queue:
        await _measure(number, ask, measured, since=time.perf_counter())


async def _in_their_time(
    numbers: Sequence[int], due: Iterator[float], ask: Ask, measured: Measured, concurrency: int
) -> None:
    room, began = asyncio.Semaphore(concurrency), time.perf_counter()

    async def call(number: int, since: float) -> None:
        try:
            await _measure(number, ask, measured, since=since)
        finally:
            room.release()

    async with asyncio.TaskGroup() as group:
        for number, offset in zip(numbers, due, strict=True):
            since = began + offset
            await asyncio.sleep(max(0.0, since - time.perf_counter()))
            await room.acquire()
            measured.late += time.perf_counter() - since > _LATE
            group.create_task(call(number, since))


async def _measure(number: int, ask: Ask, measured: Measured, *, since: float) -> None:
    try:
        await ask(number)
    except Exception as error:  # noqa: BLE001 - a provider's, which the report names
        measured.failures[type(error).__name__] += 1
    else:
        measured.latencies.append(time.perf_counter() - since)
