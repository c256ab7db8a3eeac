"""How late an event loop is while it works: for tests that nothing of ours holds it up."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable


def _seconds_without_a_core() -> float:
    """Return how long this thread could have run and others had the cores; 0 where nobody counts it."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


async def longest_stall(work: Awaitable[Any]) -> float:
    """Run `work` and return the most seconds by which a heartbeat of 5 ms came late, for reasons of ours.

    What a busy machine took from the thread meanwhile is taken off; computing and blocking calls are not.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)
    longest = 0.0
    while not task.done():
        due, waited = loop.time() + 0.005, _seconds_without_a_core()
        await asyncio.sleep(0.005)
        late = loop.time() - due
        longest = max(longest, late - (_seconds_without_a_core() - waited))
    await task
    return longest
