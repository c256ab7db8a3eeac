"""A stampede: a thousand callers in four processes ask one thing that nobody has the answer to.

The same rules for every contender: a provider in a process of its own counts the calls, a fresh server of its
own counts the commands, all processes are ready before the moment at which all callers ask.
"""

from __future__ import annotations

import argparse
import contextlib
import uuid
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks import peers
from benchmarks.commands import disagreement, housekeeping, open_counters, without_housekeeping
from benchmarks.herd import Orders, Report, herd
from benchmarks.processes import ChildFailedError
from benchmarks.provider import Call, provider
from benchmarks.pubsub import round_trip, watch_wakes
from benchmarks.servers import own_server
from benchmarks.tables import milliseconds, percentile, print_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.peers import Peer

LEASE = 10.0
"""Seconds of everybody's lock: well above what the provider takes."""
HEAD = (
    *("", "provider calls", "served", "sent by clients", "ran at server", "housekeeping", "afterwards"),
    *("p50 ms", "p99 ms", "max ms"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is the same for every contender."""

    callers: int
    processes: int
    seconds: float
    patience: float
    url: str | None
    only: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one contender did."""

    reports: list[Report]
    calls: list[Call]
    sent: Counter[str]
    """By all processes, from the moment to the last answer."""
    ran: Counter[str]
    """By the server, from the moment to the last answer."""
    afterwards: Counter[str]
    """Sent from the last answer until everything is closed."""
    disagreement: str
    """Where what was sent and what was run in all contradict each other."""
    moment: float
    committed: float | None
    """When the followers were woken (ours only)."""
    round_trip: float

    @property
    def seconds(self) -> list[float]:
        """All callers' seconds from the moment to their answer."""
        return [seconds for report in self.reports for seconds in report.seconds]

    @property
    def after_commit(self) -> list[float]:
        """Seconds from the commit to the answer, of the callers in processes that did not call."""
        callers = {call.pid for call in self.calls}
        since = self.moment - (self.committed or self.moment)
        return [
            seconds + since
            for report in self.reports
            if report.pid not in callers
            for seconds in report.seconds
        ]


def measure(peer: Peer, setting: Setting) -> Result:
    """Let one contender loose."""
    with _server(peer, setting) as url, provider(seconds=setting.seconds) as source:
        orders = Orders(
            peer=peer,
            place=peers.Place(url=url, provider_url=source.url, lease=LEASE),
            question=f"What is a stampede? {uuid.uuid4()}",
            callers=setting.callers // setting.processes,
            patience=setting.patience,
        )
        one_message = round_trip(url)
        with open_counters(url) as counters, watch_wakes(url) as watch:
            with herd(orders, processes=setting.processes) as processes:
                ready = counters.read()
                moment = processes.go()
                reports = processes.reports()
                answered = counters.read()
                afterwards = processes.leave()
            sent: Counter[str] = sum((report.sent for report in reports), start=Counter())
            return Result(
                reports=reports,
                calls=source.calls(),
                sent=sent,
                ran=answered - ready,
                afterwards=afterwards,
                disagreement=disagreement(sent + afterwards, counters.read() - ready),
                moment=moment,
                committed=watch.first_after(moment + setting.seconds),
                round_trip=one_message,
            )


@contextlib.contextmanager
def _server(peer: Peer, setting: Setting) -> Iterator[str]:
    if setting.url:
        yield setting.url
        return
    with own_server(with_json=peer.needs_json) as server:
        yield server.url


def _row(peer: Peer, result: Result, setting: Setting) -> list[str]:
    waited = [seconds - setting.seconds for seconds in result.seconds]
    return [
        peer.label,
        f"{len(result.calls):,}",
        f"{len(waited):,}",
        f"{without_housekeeping(result.sent):,}",
        f"{without_housekeeping(result.ran):,}",
        f"{housekeeping(result.sent):,}",
        f"{without_housekeeping(result.afterwards):,}",
        *(milliseconds(percentile(waited, percent)) for percent in (50, 99, 100)),
    ]


def _notes(peer: Peer, result: Result) -> list[str]:
    errors: Counter[str] = sum((report.errors for report in result.reports), start=Counter())
    notes = [f"{peer.label}: {count} x {name}" for name, count in errors.items()]
    if result.disagreement:
        notes.append(f"{peer.label}: the counts do not agree, {result.disagreement}")
    if peer is peers.OURS and result.committed is not None and result.after_commit:
        late = percentile(result.after_commit, 99)
        notes.append(
            f"{peer.label}: followers in other processes had the answer {late * 1000:.1f} ms (p99) after the"
            f" commit, {late / result.round_trip:.0f} times one pub/sub message"
            f" ({result.round_trip * 1e6:.0f} us, median)"
        )
    return notes


def main(arguments: Sequence[str] = ()) -> None:
    """Print a table of all contenders."""
    setting = _parse(arguments)
    rows, notes = [], []
    for peer in (peer for peer in peers.ALL if peer.label.startswith(setting.only)):
        if peer.missing:
            rows.append([peer.label, f"not installed: {', '.join(peer.missing)}"])
            continue
        try:
            result = measure(peer, setting)
        except ChildFailedError as error:
            rows.append([peer.label, f"failed: {error}"])
            continue
        rows.append(_row(peer, result, setting))
        notes += _notes(peer, result)
    print_table(
        f"{setting.callers:,} callers in {setting.processes} processes, cold key, the provider takes"
        f" {setting.seconds:g} s; times are what a caller waited beyond that",
        HEAD,
        rows,
    )
    for note in notes:
        print(f"  {note}")


def _parse(arguments: Sequence[str]) -> Setting:
    parser = argparse.ArgumentParser(prog="python -m benchmarks stampede", description=__doc__)
    parser.add_argument("--callers", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=2.0, help="what the provider takes")
    parser.add_argument("--patience", type=float, default=60.0, help="seconds after which a caller gives up")
    parser.add_argument("--url", help="a server that nobody else uses; default: a fresh one each")
    parser.add_argument("--only", default="", help="the beginning of a contender's name; default: all")
    return Setting(**vars(parser.parse_args(arguments)))
