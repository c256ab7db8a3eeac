"""The burst: many callers in several processes ask one thing at one moment.

Each process has its own client and cache; only the server and the provider are shared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmcache_plugins.cli.load.calls import Sample, run_load, through
from llmcache_plugins.cli.load.crew import run_crew
from llmcache_plugins.cli.load.stage import Api, WireCount, new_cache, open_client
from llmcache_plugins.gateway import InferenceGateway
from llmcache_plugins.providers.openai import OpenAIProvider

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from llmcache_plugins.cli.load.questions import Request

__all__ = ["Burst", "Squad", "run_burst"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Squad:
    """What one process is told."""

    url: str
    namespace: str
    api: Api
    request: Request
    callers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Burst:
    """What one process reports."""

    samples: list[Sample]
    provider_calls: int
    wire_calls: int


async def run_burst(
    squad: Squad, *, processes: int, on_done: Callable[[int], None]
) -> tuple[list[Burst], float]:
    """Run it; return what each process reports, and the seconds from the signal to the last report.

    Raises `CannotRun` when a process fails or dies.
    """
    return await run_crew(_take_part, [squad] * processes, on_report=lambda _: on_done(squad.callers))


async def _take_part(squad: Squad, start: Callable[[], Awaitable[None]]) -> Burst:
    wire = WireCount()
    async with (
        open_client(squad.api, wire=wire) as client,
        new_cache(squad.url, namespace=squad.namespace) as cache,
    ):
        ask = through(InferenceGateway(OpenAIProvider(client), cache))
        await start()
        requests = [squad.request] * squad.callers
        samples = await run_load(requests, ask, concurrency=squad.callers, on_done=lambda: None)
        stats = await cache.stats()
        return Burst(samples=samples, provider_calls=stats.provider_calls, wire_calls=wire.calls)
