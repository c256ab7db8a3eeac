"""Processes that do one work each: they are spawned, begin at one moment, and are gone when it is over.

Owns the processes, however that ends. What they do is a coroutine function of a module: it is told its task,
gets ready, waits for the start, and returns its report. Ctrl-C is the parent's affair alone.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
import time
from contextlib import ExitStack, contextmanager
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from llmcache_plugins.cli.support import CannotRun

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from multiprocessing.connection import Connection

__all__ = ["Work", "run_crew"]

_READY, _GO = "ready", "go"
_LOOK_EVERY = 0.01
_END_SECONDS = 5.0

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Work(Protocol[T_contra, R_co]):
    """What each process does; task and report are pickled."""

    def __call__(self, task: T_contra, start: Callable[[], Awaitable[None]], /) -> Awaitable[R_co]:
        """Get ready, await `start()`, and return a report."""


async def run_crew(
    work: Work[T, R], tasks: Sequence[T], *, on_report: Callable[[R], None] = lambda _: None
) -> tuple[list[R], float]:
    """Let a process for each task work; return their reports, and the seconds from the start to the last.

    Raises `CannotRun` when a process fails or dies.
    """
    with ExitStack() as stack:
        crew = [stack.enter_context(_process(work, task)) for task in tasks]
        for member in crew:
            await _receive(member)
        began = time.perf_counter()
        for member in crew:
            member.send(_GO)
        reports: list[R] = []
        for member in crew:
            reports.append(await _receive(member))
            on_report(reports[-1])
        return reports, time.perf_counter() - began


@contextmanager
def _process(work: Work[T, R], task: T) -> Iterator[Connection]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_live, args=(theirs, work, task), daemon=True)
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
        raise CannotRun("a process of the load ended before it had answered") from None
    if isinstance(message, CannotRun):
        raise message
    return message


# --- In the process ---------------------------------------------------------------------------------------


def _live(connection: Connection, work: Work[T, R], task: T) -> None:
    async def start() -> None:
        connection.send(_READY)
        await asyncio.to_thread(connection.recv)

    async def take_part() -> R:
        return await work(task, start)

    try:
        connection.send(asyncio.run(take_part()))
    except (EOFError, BrokenPipeError):
        return  # the parent has gone
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent says it, not a traceback
        connection.send(CannotRun(f"a process of the load failed: {type(error).__name__}: {error}"))
