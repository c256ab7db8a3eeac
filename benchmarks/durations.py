"""A provider that outlasts a lease: twenty callers in two processes, ours beside locks of fixed TTL."""

from __future__ import annotations

import argparse
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import peers
from benchmarks.herd import Orders, herd
from benchmarks.processes import ChildFailedError
from benchmarks.provider import provider
from benchmarks.servers import own_server
from benchmarks.tables import print_table
from llmcache_plugins.reports import Line, chart

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.peers import Peer

LEASE_TIMES = (0.5, 0.9, 1.1, 3.0, 10.0)
CONTENDERS = (peers.OURS, peers.REDIS_LOCK, peers.SEMANTICMEMO)
PROCESSES = 2
CALLERS = 20
_PATIENCE_LEASES = 60.0
"""Lease times: the locks let callers in one after another while no answer is there."""


def measure(peer: Peer, *, lease: float, lease_times: float) -> tuple[int, int]:
    """Return the provider calls and the callers served, for one contender and one duration."""
    with own_server() as server, provider(seconds=lease * lease_times) as source:
        orders = Orders(
            peer=peer,
            place=peers.Place(url=server.url, provider_url=source.url, lease=lease),
            question=f"How long does it take? {uuid.uuid4()}",
            callers=CALLERS // PROCESSES,
            patience=_PATIENCE_LEASES * lease,
        )
        with herd(orders, processes=PROCESSES) as processes:
            processes.go()
            served = sum(len(report.seconds) for report in processes.reports())
            processes.leave()
        return len(source.calls()), served


def main(arguments: Sequence[str] = ()) -> None:
    """Print a table; draw it if a file is named."""
    options = _parse(arguments)
    rows, lines = [], []
    for peer in CONTENDERS:
        if peer.missing:
            rows.append([peer.label, f"not installed: {', '.join(peer.missing)}"])
            continue
        try:
            counts = [measure(peer, lease=options.lease, lease_times=times) for times in LEASE_TIMES]
        except ChildFailedError as error:
            rows.append([peer.label, f"failed: {error}"])
            continue
        rows.append([peer.label, *(_cell(calls, served) for calls, served in counts)])
        lines.append(Line(label=peer.label, values=[calls for calls, _ in counts]))
    print_table(
        f"Provider calls of {CALLERS} callers in {PROCESSES} processes, by what the provider takes in lease"
        f" times; the lease is {options.lease:g} s",
        ["", *(f"{times:g}" for times in LEASE_TIMES)],
        rows,
    )
    if options.svg:
        options.svg.parent.mkdir(parents=True, exist_ok=True)
        options.svg.write_text(
            chart(
                title=f"Provider calls for {CALLERS} identical callers",
                x_title="what the provider takes, in lease times",
                x_values=LEASE_TIMES,
                lines=lines,
            ),
            encoding="utf-8",
        )
        print(f"  drawn in {options.svg}")


def _cell(calls: int, served: int) -> str:
    return str(calls) if served == CALLERS else f"{calls} ({served} served)"


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks durations", description=__doc__)
    parser.add_argument("--lease", type=float, default=1.0, help="seconds of everybody's lock")
    parser.add_argument("--svg", type=Path, help="where to draw it")
    return parser.parse_args(arguments)
