"""Many callers in several processes ask one thing at one moment, through one contender.

Owns the processes: all are ready (imported, connected, warmed up) before the moment, which is a time on the
clock that processes share. What is measured is from that moment to each caller's answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.commands import count_sent
from benchmarks.processes import Child, child
from benchmarks.provider import WARM_UP

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

    from benchmarks.peers import Answer, Peer, Place

_READY_SECONDS = 120.0
_LEAD_SECONDS = 0.5
"""Between the word and the moment, so that the last process has heard it too."""
_LEAVE_SECONDS = 15.0
_SETTLE_SECONDS = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What one process is told."""

    peer: Peer
    place: Place
    question: str
    callers: int
    patience: float
    """Seconds after which a caller counts as not served."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one process reports: when each caller had its answer, in seconds since the moment."""

    pid: int
    seconds: list[float]
    answers: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    sent: Counter[str] = field(default_factory=Counter)
    """The commands that went to the cache's server from the moment to the last answer."""


class Herd:
    """The processes, all of them ready."""

    def __init__(self, members: list[Child], orders: Orders) -> None:
        self.members = members
        self._orders = orders
        for member in members:
            member.receive(timeout=_READY_SECONDS)

    def go(self) -> float:
        """Say when it begins; return that moment (`time.monotonic()`)."""
        moment = time.monotonic() + _LEAD_SECONDS
        for member in self.members:
            member.send(moment)
        return moment

    def reports(self, members: list[Child] | None = None) -> list[Report]:
        """Return what each process, or each of `members`, has measured, when all its callers are through."""
        timeout = self._orders.patience + _LEAVE_SECONDS
        return [member.receive(timeout=timeout) for member in members or self.members]

    def leave(self) -> Counter[str]:
        """Let the processes close what they opened; return the commands sent since they reported."""
        for member in self.members:
            member.send("leave")
        sent: Counter[str] = Counter()
        for member in self.members:
            sent += member.receive(timeout=_LEAVE_SECONDS)
        return sent

    def member(self, pid: int) -> Child:
        """Return the process of that id."""
        return next(member for member in self.members if member.pid == pid)


@contextlib.contextmanager
def herd(orders: Orders, *, processes: int) -> Iterator[Herd]:
    """Start the processes; yield when all are ready; they are gone when the block ends."""
    with contextlib.ExitStack() as stack:
        yield Herd([stack.enter_context(child(_live, orders)) for _ in range(processes)], orders)


# --- In the process ---------------------------------------------------------------------------------------


def _live(connection: Connection, orders: Orders) -> None:
    asyncio.run(_take_part(connection, orders))


async def _take_part(connection: Connection, orders: Orders) -> None:
    sent = count_sent()
    async with orders.peer.open(orders.place) as answer:
        # Frameworks import what they need at the first call, and scripts are loaded.
        await answer(f"{WARM_UP} {os.getpid()} {time.monotonic()}")
        # Some store in the background what the caller already has.
        await asyncio.sleep(_SETTLE_SECONDS)
        connection.send("ready")
        moment = await asyncio.to_thread(connection.recv)
        sent.clear()
        report = await _ask_all(answer, orders, moment)
        report.sent.update(sent)
        connection.send(report)
        sent.clear()
        await asyncio.to_thread(connection.recv)
    connection.send(sent)


async def _ask_all(answer: Answer, orders: Orders, moment: float) -> Report:
    report = Report(pid=os.getpid(), seconds=[])
    callers = [
        asyncio.create_task(_ask(answer, orders.question, moment, report)) for _ in range(orders.callers)
    ]
    _, late = await asyncio.wait(callers, timeout=moment - time.monotonic() + orders.patience)
    for caller in late:
        caller.cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    # Counted last: a contender may swallow the cancellation, and answer after all.
    if missing := orders.callers - len(report.seconds) - report.errors.total():
        report.errors["not served in time"] += missing
    return report


async def _ask(answer: Answer, question: str, moment: float, report: Report) -> None:
    await asyncio.sleep(max(0.0, moment - time.monotonic()))
    try:
        said = await answer(question)
    except Exception as error:  # noqa: BLE001 - that a contender breaks is a result
        report.errors[f"{type(error).__name__}: {error}"[:200]] += 1
    else:
        report.seconds.append(time.monotonic() - moment)
        report.answers[said] += 1
