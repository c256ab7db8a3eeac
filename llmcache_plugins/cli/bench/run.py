"""The bench, from a plan to a report: a stage, a crew of processes, and the load in each.

Owns the order of things: without the cache first, then with it, in a namespace that is new and is cleared
afterwards. What is asked is the same on both sides.
"""

from __future__ import annotations

import secrets
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmcache_plugins.cli.bench.faces import open_face
from llmcache_plugins.cli.bench.figures import Report, Share, Side
from llmcache_plugins.cli.bench.load import arrivals, ask_all, draw
from llmcache_plugins.cli.load.crew import run_crew
from llmcache_plugins.cli.load.stage import Api, WireCount, new_cache, open_source
from llmcache_plugins.models import Usage
from llmcache_plugins.repository.inspection import count_commands

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from typing import Any

    from llmcache_plugins.cli.load.stage import Source
    from llmcache_plugins.prices import Price

__all__ = ["Plan", "run_bench"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done."""

    face: str
    url: str
    server: str
    """As it is shown."""
    api: Api
    provider: str
    """As it is shown."""
    model: str
    price: Price | None
    questions: Sequence[list[Any]]
    """The messages of each."""
    calls: int
    zipf: float
    rate: float | None
    concurrency: int
    processes: int
    median_seconds: float
    seed: int
    near_cache: bool
    compares: bool
    """Whether the load is first put on the provider without the cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """What one process is told."""

    face: str
    url: str
    namespace: str | None
    """None: without the cache."""
    api: Api
    model: str
    questions: Sequence[list[Any]]
    numbers: list[int]
    rate: float | None
    concurrency: int
    seed: int
    near_cache: bool


async def run_bench(plan: Plan, *, say: Callable[[str], None]) -> Report:
    """Put the load on; `say` is told what is done next.

    Raises `CannotRun` when a process fails or dies.
    """
    numbers = _numbers(plan)
    distinct = len({number for some in numbers for number in some})
    namespace = f"llmcache-bench-{secrets.token_hex(6)}"
    await count_commands(plan.url)  # a server that is not there is better known before the load than after it
    async with open_source(plan.api, median_seconds=plan.median_seconds) as source:
        without = None
        if plan.compares:
            say(f"{plan.calls:,} calls without the cache")
            without = await _side("without the cache", plan, source, numbers, namespace=None)
        say(f"{plan.calls:,} calls with the cache, empty at first")
        try:
            cached = await _side("with the cache", plan, source, numbers, namespace=namespace)
        finally:
            await _clear(plan.url, namespace)
    return Report(
        face=plan.face,
        provider=plan.provider,
        is_stand_in=plan.api.is_stand_in,
        server=plan.server,
        model=plan.model,
        price=plan.price,
        questions=len(plan.questions),
        distinct=distinct,
        zipf=plan.zipf,
        rate=plan.rate,
        concurrency=plan.concurrency,
        processes=plan.processes,
        without=without,
        cached=cached,
    )


def _numbers(plan: Plan) -> list[list[int]]:
    drawn = draw(plan.calls, questions=len(plan.questions), zipf=plan.zipf, seed=plan.seed)
    return [drawn[first :: plan.processes] for first in range(plan.processes)]


async def _side(
    name: str, plan: Plan, source: Source, numbers: Sequence[list[int]], *, namespace: str | None
) -> Side:
    tasks = [
        _Task(
            face=plan.face,
            url=plan.url,
            namespace=namespace,
            api=source.api,
            model=plan.model,
            questions=plan.questions,
            numbers=some,
            rate=None if plan.rate is None else plan.rate * len(some) / plan.calls,
            concurrency=max(1, round(plan.concurrency / plan.processes)),
            seed=plan.seed + number,
            near_cache=plan.near_cache,
        )
        for number, some in enumerate(numbers)
    ]
    counted = source.count()
    before = None if namespace is None else await count_commands(plan.url)
    shares, seconds = await run_crew(_take_part, tasks)
    after = None if namespace is None else await count_commands(plan.url)
    # A stand-in has heard of them; what has left for a real provider the processes know.
    calls = source.count() - counted if plan.api.is_stand_in else sum(share.wire_calls for share in shares)
    commands = None if before is None or after is None else after - before
    return Side(name=name, shares=shares, seconds=seconds, provider_calls=calls, commands=commands)


async def _clear(url: str, namespace: str) -> None:
    cache = new_cache(url, namespace=namespace)
    try:
        await cache.clear()
    finally:
        await cache.aclose()


# --- In the process ---------------------------------------------------------------------------------------


async def _take_part(task: _Task, start: Callable[[], Awaitable[None]]) -> Share:
    wire = WireCount()
    if task.namespace is None:
        async with open_face(task.face, task.api, wire=wire, model=task.model, cache=None) as ask:
            measured = await _load(task, ask, start)
        return Share(
            latencies=measured.latencies,
            failures=measured.failures,
            wire_calls=wire.calls,
            late=measured.late,
        )
    cache = new_cache(task.url, namespace=task.namespace, near_cache=task.near_cache)
    async with cache, open_face(task.face, task.api, wire=wire, model=task.model, cache=cache) as ask:
        measured = await _load(task, ask, start)
        stats = await cache.stats()
    return Share(
        latencies=measured.latencies,
        failures=measured.failures,
        outcomes=Counter(stats.outcomes),
        saved=Usage(input_tokens=stats.saved_input_tokens, output_tokens=stats.saved_output_tokens),
        wire_calls=wire.calls,
        late=measured.late,
    )


async def _load(task: _Task, ask: Any, start: Callable[[], Awaitable[None]]) -> Any:
    due = None if task.rate is None else arrivals(len(task.numbers), rate=task.rate, seed=task.seed)
    await start()
    return await ask_all(
        task.numbers, lambda number: ask(task.questions[number]), concurrency=task.concurrency, due=due
    )
