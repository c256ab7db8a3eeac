"""Warming 10,000 and 100,000 lines: lines a second, and what the memory of the process grows by.

Each run is a process of its own. The provider is a function that answers at once, so that what is measured is
everything else; `again` is a second run over what is fresh.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
import time
import tracemalloc
from typing import TYPE_CHECKING, Any

from benchmarks.processes import child
from benchmarks.servers import own_server
from benchmarks.tables import print_table
from llmcache_plugins import InferenceGateway, ResponseCache, seed_cache

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.connection import Connection

ANSWER = "An answer of some words. " * 20
_SECONDS = 900.0


def main(words: Sequence[str] = ()) -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="benchmarks warming")
    parser.add_argument("--lines", type=int, nargs="+", default=[10_000, 100_000])
    chosen = parser.parse_args(words)
    rows = [row for lines in chosen.lines for row in _rows(lines)]
    print_table(
        "Warming, 8 at a time",
        ["", "lines", "calls", "lines/s", "RSS grew by, MB", "peak of Python's heap, MB"],
        rows,
    )


def _rows(lines: int) -> Iterator[list[str]]:
    with own_server() as server:
        for name in ("first run", "again"):
            said = _run(server.socket_url, lines, trace=False)
            # Tracing costs more than half of the speed: it gets a run, and a namespace, of its own.
            traced = _run(server.socket_url, lines, trace=True, namespace="traced")
            yield [
                name,
                f"{lines:,}",
                f"{said['calls']:,}",
                f"{lines / said['seconds']:,.0f}",
                f"{said['grown'] / 1e6:,.1f}",
                f"{traced['peak'] / 1e6:,.1f}",
            ]


def _run(url: str, lines: int, *, trace: bool, namespace: str = "bench") -> dict[str, Any]:
    with child(_serve, url, lines, trace, namespace) as process:
        said: dict[str, Any] = process.receive(timeout=_SECONDS)
        return said


def _serve(connection: Connection, url: str, lines: int, trace: bool, namespace: str) -> None:
    connection.send(asyncio.run(_measure(url, lines, trace=trace, namespace=namespace)))


async def _measure(url: str, lines: int, *, trace: bool, namespace: str) -> dict[str, Any]:
    async def answer(_query: Any) -> str:
        return ANSWER

    def queries(number: int, name: str) -> Iterator[dict[str, Any]]:
        for i in range(number):
            yield {"model": "m", "messages": [{"role": "user", "content": f"{name} {i}"}]}

    async with ResponseCache.from_url(url, namespace=namespace, max_entries=None, lookup_budget=5.0) as cache:
        gateway = InferenceGateway(answer, cache)
        # What is made once is not what grows.
        await seed_cache(gateway, queries(500, "warm-up"))
        if trace:
            tracemalloc.start()
        before, began = _peak(), time.monotonic()
        report = await seed_cache(gateway, queries(lines, "question"))
        seconds = time.monotonic() - began
        peak = tracemalloc.get_traced_memory()[1] if trace else 0
        if report.done != lines or report.failed:
            raise RuntimeError(f"not all were stored: {report}")
    return {"calls": report.calls, "seconds": seconds, "grown": _peak() - before, "peak": peak}


def _peak() -> int:
    """Return the most memory that this process had so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
