"""Checks of one node as a service: what it is, how fast, whom it serves, what it could not be asked."""

from __future__ import annotations

import re
import statistics
from typing import TYPE_CHECKING

from llmcache_plugins.diagnosis.finding import fine, note, problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from llmcache_plugins.diagnosis.facts import NodeFacts
    from llmcache_plugins.diagnosis.finding import Finding

__all__ = [
    "clients",
    "clock",
    "connections",
    "latency",
    "modules",
    "percentile",
    "replication",
    "unasked",
    "version",
]

OLDEST = {"redis": (6, 2), "valkey": (7, 2)}
MOST_SKEW = 1.0
CROWDED = 0.8
_BUFFER = re.compile(r"pubsub (\d+) (\d+) (\d+)")
_LEAST_BUFFER = 1024 * 1024


def percentile(ascending: Sequence[float], share: float) -> float:
    """Return the value that so large a share of the values does not exceed."""
    return ascending[max(0, min(len(ascending) - 1, round(share * len(ascending)) - 1))]


def version(node: NodeFacts) -> Finding | None:
    """Check that it knows what the scripts use."""
    if node.software is None or node.version is None:
        return None
    name, oldest = node.software.capitalize(), OLDEST[node.software]
    what = f"{name} {node.version}"
    numbers = tuple(int(part) for part in re.findall(r"\d+", node.version)[:2])
    if numbers >= oldest:
        return fine("version", what)
    return problem(
        "version",
        what,
        why="its commands lack options that the cache's scripts use",
        fix=f"update to {name} {'.'.join(map(str, oldest))} or later",
    )


def modules(node: NodeFacts) -> Finding | None:
    """Name what was loaded into it."""
    if node.version is None:
        return None
    if not node.modules:
        return fine("modules", "no modules")
    return note(
        "modules",
        f"modules: {', '.join(node.modules)}",
        why="they share its memory, and one that fails takes it down; the cache needs none",
        fix="nothing to do where somebody else uses them",
    )


def latency(node: NodeFacts, *, budget: float) -> Finding | None:
    """Check that look-ups come back within their budget.

    By the median: above it most look-ups come to nothing and go to the provider. A slow one in a hundred
    costs one call in a hundred its hit, and is a note.
    """
    if not node.pings:
        return None
    median, p99 = statistics.median(node.pings), percentile(node.pings, 0.99)
    what = f"PING takes {median * 1000:.2f} ms (median), {p99 * 1000:.2f} ms (p99)"
    if median > budget:
        return problem(
            "latency",
            f"{what}; the budget is {budget * 1000:g} ms",
            why="most look-ups are given up before the answer is here: hits are paid for as misses",
            fix="move the server nearer, or raise lookup_budget above the round trip",
        )
    if p99 > budget:
        return note(
            "latency",
            f"{what}; the budget is {budget * 1000:g} ms",
            why="a look-up that is given up goes to the provider",
            fix="look for a busy CPU, swapping, forks or a shared network; or raise lookup_budget",
        )
    return fine("latency", what)


def clock(node: NodeFacts) -> Finding | None:
    """Compare its clock with this machine's."""
    if node.skew is None:
        return None
    if node.skew == 0:
        return fine("clock", "its clock agrees with this machine's")
    what = f"its clock is {abs(node.skew):.3f} s {'ahead' if node.skew > 0 else 'behind'}"
    if abs(node.skew) <= MOST_SKEW:
        return fine("clock", what)
    return note(
        "clock",
        what,
        why="how old an answer is, is told by the clocks of those who stored and who read it",
        fix="synchronise the clocks of all machines (NTP)",
    )


def clients(node: NodeFacts) -> Finding | None:
    """See whether there is room for more connections."""
    if node.clients is None or not node.most_clients:
        return None
    refused = node.rejected_clients or 0
    what = f"{node.clients:,} of {node.most_clients:,} connections in use, {refused:,} refused"
    if not refused and node.clients < node.most_clients * CROWDED:
        return fine("clients", what)
    return note(
        "clients",
        what,
        why="a process that is refused a connection has no cache; each may open some dozens",
        fix="raise maxclients (and its limit of open files), or find who leaves connections open",
    )


def connections(node: NodeFacts) -> Iterator[Finding]:
    """See whether it closes connections that are to stay, or keeps those that are dead."""
    settings = node.settings or {}
    if settings.get("timeout", "0") != "0":
        yield note(
            "idle-timeout",
            f"timeout is {settings['timeout']} s",
            why="the first look-up after a pause has to connect anew, and may miss its budget",
            fix="CONFIG SET timeout 0",
        )
    if settings.get("tcp-keepalive") == "0":
        yield note(
            "tcp-keepalive",
            "tcp-keepalive is 0",
            why="connections of machines that are gone stay open until maxclients is reached",
            fix="CONFIG SET tcp-keepalive 300",
        )
    limits = _BUFFER.search(settings.get("client-output-buffer-limit", ""))
    if limits and any(0 < int(limit) < _LEAST_BUFFER for limit in limits.groups()[:2]):
        yield note(
            "pubsub-buffer",
            f"client-output-buffer-limit is {limits[0]}",
            why="a process that is busy for a moment loses its wake-ups; its callers wait a second longer",
            fix="CONFIG SET client-output-buffer-limit 'pubsub 32mb 8mb 60'",
        )


def replication(node: NodeFacts) -> Finding | None:
    """See whether writes depend on replicas that are not there."""
    if node.replicas is None or node.is_replica:
        return None
    wanted = int((node.settings or {}).get("min-replicas-to-write") or 0)
    if wanted <= node.replicas:
        return fine("replication", f"{node.replicas} replicas")
    return note(
        "replication",
        f"min-replicas-to-write is {wanted}, and it has {node.replicas} replicas",
        why="it refuses every write until there are more",
        fix="CONFIG SET min-replicas-to-write 0, or start the replicas",
    )


def unasked(node: NodeFacts) -> Finding | None:
    """Say what could not be looked at."""
    if not node.refused:
        return None
    return note(
        "unchecked",
        f"{', '.join(node.refused)} refused",
        why="this user may not ask, or whoever runs the server lets nobody: settings that only they tell were"
        " not checked",
        fix="run this once as a user who may, or compare the settings by hand (docs/operations.md); the cache"
        " itself needs no such right",
    )
