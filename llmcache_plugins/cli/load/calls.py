"""A load of requests: asked so many at a time, in their order, each one measured.

Owns how a call is measured. Knows nothing of processes, servers or printing.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from llmcache_plugins.models import Usage

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Iterator, Sequence

    from llmcache_plugins.cli.load.questions import Request
    from llmcache_plugins.gateway import InferenceGateway, Provider
    from llmcache_plugins.models import Outcome

__all__ = ["Ask", "Sample", "at_once", "directly", "percentile", "run_load", "through"]

T = TypeVar("T")

_NOTHING = Usage()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One call as its caller saw it."""

    outcome: Outcome | None
    """None for a call without the cache."""
    seconds: float
    billed: Usage = _NOTHING
    saved: Usage = _NOTHING
    digest: str
    """Equal for equal answers."""

    @property
    def was_spared(self) -> bool:
        """Whether this call needed no provider call of its own."""
        return self.outcome is not None and self.outcome.is_spared


Ask = Callable[["Request"], Awaitable[Sample]]


def directly(provider: Provider) -> Ask:
    """Return a way to ask that knows no cache."""

    async def ask(request: Request) -> Sample:
        began = time.perf_counter()
        answer = await provider.complete(request)
        seconds = time.perf_counter() - began
        return Sample(outcome=None, seconds=seconds, billed=_usage_of(answer), digest=_digest_of(answer))

    return ask


def through(gateway: InferenceGateway) -> Ask:
    """Return a way to ask that goes through a gateway."""

    async def ask(request: Request) -> Sample:
        began = time.perf_counter()
        found = await gateway.resolve_detailed(request)
        seconds = time.perf_counter() - began
        return Sample(
            outcome=found.outcome,
            seconds=seconds,
            billed=_NOTHING if found.outcome.is_spared else _usage_of(found.answer),
            saved=found.tokens_saved or _NOTHING,
            digest=_digest_of(found.answer),
        )

    return ask


async def run_load(
    requests: Iterable[Request], ask: Ask, *, concurrency: int, on_done: Callable[[], None]
) -> list[Sample]:
    """Ask every request, `concurrency` at a time; return what was measured, in order of arrival.

    The first error ends the load and is raised as it is; cancelling ends every call.
    """
    queue, samples = iter(requests), list[Sample]()
    await at_once(_work(queue, ask, samples, on_done) for _ in range(concurrency))
    return samples


async def at_once(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run all at the same time; return their results, in their order.

    The first error ends the others and is raised as it is.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call) for call in calls]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


async def _work(
    queue: Iterator[Request], ask: Ask, samples: list[Sample], on_done: Callable[[], None]
) -> None:
    for request in queue:
        samples.append(await ask(request))
        on_done()


def _usage_of(answer: Any) -> Usage:
    usage = answer.usage
    if usage is None:
        return _NOTHING
    return Usage(input_tokens=usage.prompt_tokens, output_tokens=usage.completion_tokens)


def _digest_of(answer: Any) -> str:
    return hashlib.sha256(answer.model_dump_json().encode()).hexdigest()


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of the values does not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
