"""The burst: many callers in several processes ask one thing at one moment.

Owns the processes: they are spawned, wait for each other, and are gone when `run_burst` ends, however it
ends. Each has its own client and cache; only the server and the provider are shared.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any

from llmcache_plugins.cli.demo.load import Sample, run_load, through
from llmcache_plugins.cli.demo.stage import Api, WireCount, new_cache, open_client
from llmcache_plugins.cli.support import CannotRun
from llmcache_plugins.gateway import InferenceGateway
from llmcache_plugins.providers.openai import OpenAIProvider

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection

    from llmcache_plugins.cli.demo.questions import Request

__all__ = ["Burst", "Squad", "run_burst"]

_READY, _GO = "ready", "go"
_LOOK_EVERY = 0.01
_END_SECONDS = 5.0


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
    with ExitStack() as stack:
        crew = [stack.enter_context(_process(squad)) for _ in range(processes)]
        for member in crew:
            await _receive(member)
        began = time.perf_counter()
        for member in crew:
            member.send(_GO)
        reports = []
        for member in crew:
            reports.append(await _receive(member))
            on_done(squad.callers)
        return reports, time.perf_counter() - began


@contextmanager
def _process(squad: Squad) -> Iterator[Connection]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_live, args=(theirs, squad), daemon=True)
    with ours:
        with theirs, _without_interrupts():
            process.start()
        try:
            yield ours
        finally:
            process.terminate()
            process.join(_END_SECONDS)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Let a process that is started here never see Ctrl-C: its parent does, and ends it.

    The mask is inherited, so that it holds from the first instruction on; without it each process would
    print a traceback. A Ctrl-C that comes meanwhile reaches the parent right after.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # The first start of a process starts this helper too, which ends with SIGINT unblocked whatever it was
    # before: start it now, or the first process is not masked.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


async def _receive(connection: Connection) -> Any:
    # Not recv() in a thread: that one could not be cancelled.
    while not connection.poll():  # noqa: ASYNC110 - no event tells of another process's message
        await asyncio.sleep(_LOOK_EVERY)
    try:
        message = connection.recv()
    except EOFError:
        raise CannotRun("a process of the burst ended before it had answered") from None
    if isinstance(message, CannotRun):
        raise message
    return message


# --- In the process ---------------------------------------------------------------------------------------


def _live(connection: Connection, squad: Squad) -> None:
    try:
        connection.send(asyncio.run(_take_part(connection, squad)))
    except (EOFError, BrokenPipeError):
        return  # the demo has gone
    except Exception as error:  # noqa: BLE001 - whatever it is, the demo says it, not a traceback
        connection.send(CannotRun(f"a process of the burst failed: {type(error).__name__}: {error}"))


async def _take_part(connection: Connection, squad: Squad) -> Burst:
    wire = WireCount()
    async with (
        open_client(squad.api, wire=wire) as client,
        new_cache(squad.url, namespace=squad.namespace) as cache,
    ):
        ask = through(InferenceGateway(OpenAIProvider(client), cache))
        connection.send(_READY)
        await asyncio.to_thread(connection.recv)
        requests = [squad.request] * squad.callers
        samples = await run_load(requests, ask, concurrency=squad.callers, on_done=lambda: None)
        stats = await cache.stats()
        return Burst(samples=samples, provider_calls=stats.provider_calls, wire_calls=wire.calls)
