"""The demo's parts, one after the other, against a server and a provider.

Owns what is asked and counted. Leaves the processes to `burst`, each framework to the module of its name and
every word to `report`.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openai import OpenAIError

from llmcache_plugins.cli.demo.burst import Squad, run_burst
from llmcache_plugins.cli.demo.figures import Part, Report, Scene
from llmcache_plugins.cli.demo.scenes import LANGCHAIN, LITELLM, most_calls
from llmcache_plugins.cli.load.calls import Ask, directly, run_load, through
from llmcache_plugins.cli.load.stage import Api, Stage, new_cache, open_stage
from llmcache_plugins.cli.support import CannotRun
from llmcache_plugins.gateway import InferenceGateway
from llmcache_plugins.providers.openai import OpenAIProvider

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from llmcache_plugins.cache import ResponseCache
    from llmcache_plugins.cli.load.questions import Request
    from llmcache_plugins.prices import Price

__all__ = ["BURST_CALLERS", "BURST_PROCESSES", "Begin", "Plan", "concurrency_for", "run_demo"]

BURST_CALLERS = 200
BURST_PROCESSES = 4

_PASS_SECONDS = 6.0
"""What one pass without hits shall take."""
_FEWEST, _MOST = 8, 64
"""Users at once: fewer are no load, more is what two cores can serve."""

Begin = Callable[[str, int], Callable[[int], None]]
"""Announces a step and its number of calls; what it returns is told how many more are done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to run. `url` is that of a server that runs; `server` says which one that is."""

    requests: Sequence[Request]
    questions: str
    url: str
    server: str
    api: Api
    provider: str
    median_seconds: float
    price: Price
    concurrency: int
    frameworks: Collection[str]
    """Those that are installed: the parts of others are left out."""


def concurrency_for(requests: int, *, median_seconds: float, is_stand_in: bool) -> int:
    """Return how many users ask at once, so that the whole fits into a minute.

    Few for a real provider, which may limit the rate.
    """
    wanted = math.ceil(requests * median_seconds / _PASS_SECONDS)
    return min(max(wanted, _FEWEST), _MOST) if is_stand_in else _FEWEST


async def run_demo(plan: Plan, *, begin: Begin) -> Report:
    """Run all parts and return what was found. Leaves nothing on the server.

    Raises `CannotRun` when the provider fails, and a `RepositoryError` or `ConfigError` when the server
    cannot be used; the provider is not called then.
    """
    began = time.perf_counter()
    namespace = f"llmcache-demo-{uuid.uuid4().hex}"
    cache = new_cache(plan.url, namespace=namespace)
    async with open_stage(plan.api, median_seconds=plan.median_seconds) as stage, cache:
        await cache.repository.ping()
        try:
            return await _Show(plan, stage, cache, begin=begin).run(began=began)
        except OpenAIError as error:
            raise CannotRun(f"the provider failed: {type(error).__name__}: {error}") from error
        finally:
            await cache.clear()
            await cache.clear(_burst_namespace(cache))


def _burst_namespace(cache: ResponseCache) -> str:
    # One that is empty: the burst asks what the file has asked before.
    return f"{cache.config.namespace}-burst"


class _Show:
    """One run of the demo."""

    def __init__(self, plan: Plan, stage: Stage, cache: ResponseCache, *, begin: Begin) -> None:
        self._plan = plan
        self._stage = stage
        self._cache = cache
        self._begin = begin
        self._provider = OpenAIProvider(stage.client)
        self._gateway = InferenceGateway(self._provider, cache)

    async def run(self, *, began: float) -> Report:
        cached = through(self._gateway)
        baseline = await self._ask_all("no cache", directly(self._provider))
        first = await self._ask_all("first pass", cached)
        second = await self._ask_all("second pass", cached)
        burst = await self._burst()
        langchain = await self._langchain() if LANGCHAIN in self._plan.frameworks else None
        litellm = await self._litellm() if LITELLM in self._plan.frameworks else None
        stats = await self._cache.stats()
        plan = self._plan
        return Report(
            provider=plan.provider,
            is_stand_in=plan.api.is_stand_in,
            server=plan.server,
            questions=plan.questions,
            distinct=len({self._gateway.key_of(request).digest for request in plan.requests}),
            concurrency=plan.concurrency,
            baseline=baseline,
            first=first,
            second=second,
            burst=burst,
            burst_processes=BURST_PROCESSES,
            langchain=langchain,
            litellm=litellm,
            price=plan.price,
            refusals=dict(stats.refusals),
            seconds=time.perf_counter() - began,
        )

    async def _ask_all(self, name: str, ask: Ask) -> Part:
        requests = self._plan.requests
        advance = self._begin(name, len(requests))
        counted, called, began = self._stage.count(), await self._gateway_calls(), time.perf_counter()
        samples = await run_load(
            requests, ask, concurrency=self._plan.concurrency, on_done=lambda: advance(1)
        )
        seconds = time.perf_counter() - began
        without_cache = sum(sample.outcome is None for sample in samples)
        return Part(
            name=name,
            samples=samples,
            seconds=seconds,
            provider_calls=await self._gateway_calls() - called + without_cache,
            counted_by_provider=self._stage.count() - counted,
        )

    async def _gateway_calls(self) -> int:
        return (await self._cache.stats()).provider_calls

    async def _burst(self) -> Part:
        advance, counted = self._begin("burst", BURST_CALLERS), self._stage.count()
        squad = Squad(
            url=self._plan.url,
            namespace=_burst_namespace(self._cache),
            api=self._stage.api,
            request=self._plan.requests[0],
            callers=BURST_CALLERS // BURST_PROCESSES,
        )
        reports, seconds = await run_burst(squad, processes=BURST_PROCESSES, on_done=advance)
        self._stage.wire.calls += sum(report.wire_calls for report in reports)
        return Part(
            name="burst",
            samples=[sample for report in reports for sample in report.samples],
            seconds=seconds,
            provider_calls=sum(report.provider_calls for report in reports),
            counted_by_provider=self._stage.count() - counted,
        )

    async def _langchain(self) -> tuple[Scene, ...]:
        advance = self._begin_framework(LANGCHAIN)
        # Not above: it imports LangChain, which takes seconds and may not be there.
        from llmcache_plugins.cli.demo.langchain import run_langchain

        return await run_langchain(**self._facts(), on_done=advance)

    async def _litellm(self) -> tuple[Scene, ...]:
        advance = self._begin_framework(LITELLM)
        # Not above, for the same reasons.
        from llmcache_plugins.cli.demo.litellm import run_litellm

        return await run_litellm(**self._facts(), on_done=advance)

    def _begin_framework(self, name: str) -> Callable[[int], None]:
        return self._begin(name, most_calls(name, is_stand_in=self._plan.api.is_stand_in))

    def _facts(self) -> dict[str, Any]:
        plan = self._plan
        return {
            "api": plan.api,
            "model": plan.requests[0]["model"],
            "cache": self._cache,
            "median_seconds": plan.median_seconds,
        }
