"""A leader that is killed, one that is stopped and comes back, and a server that dies, all in mid-call.

Ours alone: it says how many provider calls each costs, and whether every caller is served.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks import peers
from benchmarks.herd import Herd, Orders, Report, herd
from benchmarks.peers.ours import new_cache
from benchmarks.processes import ChildFailedError, sleep_until
from benchmarks.provider import Provider, provider, query
from benchmarks.servers import OwnServer, own_server
from benchmarks.tables import percentile, print_table
from llmcache_plugins import InferenceGateway

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

PROCESSES = 4
LEASE = 2.0
STRUCK_AFTER = 1.0
"""Seconds from the moment to the blow: the first call is under way."""
_PATIENCE = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Everything of one scenario, when the callers are about to ask."""

    server: OwnServer
    source: Provider
    processes: Herd
    question: str
    callers: int
    """Of one process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of it."""

    reports: list[Report]
    expected: int
    """Callers that could be served: those of a process that was killed could not."""
    calls: int
    note: str


@contextlib.contextmanager
def scene(*, seconds: float, callers: int) -> Iterator[Scene]:
    """Set a scene: a server, a provider that takes so long, and the callers."""
    with own_server() as server, provider(seconds=seconds) as source:
        orders = Orders(
            peer=peers.OURS,
            place=peers.Place(url=server.url, provider_url=source.url, lease=LEASE),
            question=f"What if it crashes? {uuid.uuid4()}",
            callers=callers,
            patience=_PATIENCE,
        )
        with herd(orders, processes=PROCESSES) as processes:
            yield Scene(
                server=server,
                source=source,
                processes=processes,
                question=orders.question,
                callers=callers,
            )


def leader_killed(*, callers: int) -> Outcome:
    """Kill the leader in mid-call: one of the others has to notice, and to call."""
    with scene(seconds=3.0, callers=callers) as set_scene:
        herded = set_scene.processes
        sleep_until(herded.go() + STRUCK_AFTER)
        leader = herded.member(set_scene.source.calls()[0].pid)
        leader.signal(signal.SIGKILL)
        survivors = [member for member in herded.members if member is not leader]
        return Outcome(
            reports=herded.reports(survivors),
            expected=callers * len(survivors),
            calls=len(set_scene.source.calls()),
            note="",
        )


def leader_stopped(*, callers: int) -> Outcome:
    """Stop the leader until another process has stored an answer, and let it go on."""
    with scene(seconds=3.0, callers=callers) as set_scene:
        herded = set_scene.processes
        sleep_until(herded.go() + STRUCK_AFTER)
        leader = herded.member(set_scene.source.calls()[0].pid)
        leader.signal(signal.SIGSTOP)
        others = herded.reports([member for member in herded.members if member is not leader])
        newer = _stored(set_scene)
        # Its own answer has long arrived, and waits to be read and stored.
        leader.signal(signal.SIGCONT)
        reports = [*others, *herded.reports([leader])]
        herded.leave()
        at_the_end = _stored(set_scene)
        kept = "the newer" if at_the_end == newer == "answer 2" else f"NOT the newer ({newer}, {at_the_end})"
        return Outcome(
            reports=reports,
            expected=callers * PROCESSES,
            calls=len(set_scene.source.calls()),
            note=f"stored at the end: {kept} one",
        )


def server_killed(*, callers: int) -> Outcome:
    """Kill the server in mid-call, and start it again, empty, a second later."""
    with scene(seconds=4.0, callers=callers) as set_scene:
        moment = set_scene.processes.go()
        sleep_until(moment + STRUCK_AFTER)
        set_scene.server.kill()
        sleep_until(moment + STRUCK_AFTER + 1.0)
        set_scene.server.start()
        back = time.monotonic() - moment
        reports = set_scene.processes.reports()
        by_process = Counter(call.pid for call in set_scene.source.calls())
        return Outcome(
            reports=reports,
            expected=callers * PROCESSES,
            calls=by_process.total(),
            note=f"back after {back:.1f} s; most calls of one process: {max(by_process.values())}",
        )


SCENARIOS: dict[str, Callable[..., Outcome]] = {
    "leader killed at 1 s (provider 3 s, lease 2 s)": leader_killed,
    "leader stopped at 1 s, goes on after a newer answer": leader_stopped,
    "server killed at 1 s, back at 2 s (provider 4 s)": server_killed,
}


def main(arguments: Sequence[str] = ()) -> None:
    """Print a table of the scenarios."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks crashes", description=__doc__)
    parser.add_argument("--callers", type=int, default=50, help="in each of the four processes")
    callers = parser.parse_args(arguments).callers
    rows, notes = [], []
    for name, play in SCENARIOS.items():
        try:
            outcome = play(callers=callers)
        except (ChildFailedError, IndexError) as error:
            rows.append([name, f"failed: {error}"])
            continue
        seconds = [one for report in outcome.reports for one in report.seconds]
        rows.append(
            [
                name,
                str(outcome.calls),
                f"{len(seconds)} of {outcome.expected}",
                f"{percentile(seconds, 50):.2f}",
                f"{percentile(seconds, 100):.2f}",
            ]
        )
        notes += [f"{name}: {note}" for note in (outcome.note, _answers(outcome)) if note]
    print_table(
        f"{PROCESSES} processes of {callers} callers, cold key",
        ["", "provider calls", "served", "p50 s", "max s"],
        rows,
    )
    for note in notes:
        print(f"  {note}")


def _answers(outcome: Outcome) -> str:
    answers: Counter[str] = sum((report.answers for report in outcome.reports), start=Counter())
    errors: Counter[str] = sum((report.errors for report in outcome.reports), start=Counter())
    given = [f"{count} x {name}" for name, count in sorted((answers + errors).items())]
    return f"callers got {', '.join(given)}"


def _stored(set_scene: Scene) -> str:
    """Return what a newcomer is given from the cache."""
    return asyncio.run(_look_up(set_scene.server.url, set_scene.question))


async def _look_up(url: str, question: str) -> str:
    async def nothing(_query: object) -> str:
        return "nothing"

    async with InferenceGateway(nothing, new_cache(url, lease=LEASE)) as gateway:
        return str(await gateway.resolve(query(question), ttl=0))
