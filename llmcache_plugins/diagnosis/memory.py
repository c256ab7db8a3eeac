"""Checks of one node's memory: its bound, what goes when that is reached, what is lost and what is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmcache_plugins.diagnosis.finding import fine, note, problem

if TYPE_CHECKING:
    from llmcache_plugins.diagnosis.facts import NodeFacts
    from llmcache_plugins.diagnosis.finding import Finding

__all__ = ["eviction", "fragmentation", "lazy_eviction", "maxmemory", "persistence", "policy"]

RAM_SHARE = 0.7
"""What is left is for fragmentation, buffers of clients, and copies that a fork makes."""
FRAGMENTED = 1.5
TELLING_BYTES = 100 * 1024 * 1024
"""With less in use the ratio says nothing: the program itself takes some megabytes."""

_BAD_POLICIES = {
    "allkeys-lfu": (
        "what is new has not been used often: leases and fresh answers go first, before old answers that were"
        " once popular; calls are paid for twice"
    ),
    "allkeys-random": "a lease, a mark or the answer that is asked for most goes as soon as any other",
    "volatile-ttl": (
        "what has least time left goes first: leases, which live for seconds, before any answer; calls that"
        " should wait for one another are paid for twice"
    ),
    "volatile-lru": (
        "keys without a TTL never go: all of the cache's have one, so other data on this server pushes the"
        " cache out, and in the end writes are refused"
    ),
    "volatile-lfu": (
        "keys without a TTL never go, so other data pushes the cache out; and leases and fresh answers, which"
        " were not used often yet, go first"
    ),
    "volatile-random": (
        "keys without a TTL never go, so other data pushes the cache out; and a lease or a mark goes as soon"
        " as any other"
    ),
    "noeviction": (
        "a full server refuses to write: no new answer is stored and no lease taken, so everybody who misses"
        " pays"
    ),
}


def mib(size: int) -> str:
    """Return a size for people."""
    return f"{size / 1024**3:.1f} GiB" if size >= 1024**3 else f"{size / 1024**2:.0f} MiB"


def maxmemory(node: NodeFacts) -> Finding | None:
    """Check that there is a bound, and that it leaves headroom."""
    if node.maxmemory is None:
        return None
    available = min(filter(None, (node.ram, node.memory_limit)), default=None)
    advice = f"{int(available * RAM_SHARE) // 1024**2}mb" if available else "70% of the memory it may use"
    if node.maxmemory == 0:
        return problem(
            "maxmemory",
            "no maxmemory is set",
            why="the server grows until the machine has no memory left, and is killed with all answers",
            fix=f"CONFIG SET maxmemory {advice}, or less; and the same in its configuration file",
        )
    bound = f"maxmemory is {mib(node.maxmemory)}"
    if available is None:
        return _by_hand(bound, "the server does not say how much memory there is")
    of_what = "the limit of its control group" if available == node.memory_limit else "the RAM"
    share = f"{bound}, {node.maxmemory / available:.0%} of {of_what} ({mib(available)})"
    if node.maxmemory > available * RAM_SHARE:
        return problem(
            "maxmemory",
            share,
            why="fragmentation, buffers and forks come on top: beyond 70% there is no headroom for them",
            fix=f"CONFIG SET maxmemory {advice}, or give it more memory",
        )
    return fine("maxmemory", share) if node.sees_limits else _by_hand(share, "it may run in a container")


def _by_hand(what: str, why: str) -> Finding:
    return note(
        "maxmemory",
        what,
        why=f"{why}: a lower limit there cannot be seen from here",
        fix="compare maxmemory with that limit by hand; it should be at most 70% of it",
    )


def policy(node: NodeFacts) -> Finding | None:
    """Check what goes when the bound is reached."""
    if node.policy is None:
        return None
    what = f"maxmemory-policy is {node.policy}"
    if node.policy == "allkeys-lru":
        return fine("maxmemory-policy", what)
    return problem(
        "maxmemory-policy",
        what,
        why=_BAD_POLICIES.get(node.policy, "the cache is built for keys that go by their last use"),
        fix="CONFIG SET maxmemory-policy allkeys-lru; other data that must stay needs a server of its own",
    )


def eviction(node: NodeFacts) -> Finding | None:
    """Show what the bound has cost so far."""
    if node.evicted is None:
        return None
    what = f"{node.evicted:,} keys evicted, {node.expired or 0:,} expired"
    if asked := (node.hits or 0) + (node.misses or 0):
        what += f"; {(node.hits or 0) / asked:.0%} of {asked:,} look-ups of keys found one"
    if not node.evicted:
        return fine("eviction", what)
    return note(
        "eviction",
        what,
        why="what is in use does not fit into maxmemory; an answer that was evicted is paid for again",
        fix="raise maxmemory, shorten TTLs, or lower max_entries or max_bytes to choose what goes",
    )


def fragmentation(node: NodeFacts) -> Finding | None:
    """Look for memory that is lost between the keys, or swapped."""
    if node.fragmentation is None or node.used_memory is None:
        return None
    what = f"fragmentation ratio {node.fragmentation:.2f} with {mib(node.used_memory)} in use"
    if node.fragmentation > FRAGMENTED and node.used_memory < TELLING_BYTES:
        return note(
            "fragmentation",
            what,
            why="the program itself takes some megabytes: below 100 MiB the ratio says nothing",
            fix="nothing to do",
        )
    if node.fragmentation > FRAGMENTED:
        return note(
            "fragmentation",
            what,
            why="memory that is taken from the system and holds nothing, beyond what maxmemory counts",
            fix="CONFIG SET activedefrag yes, where its build has that, or restart it in a quiet hour",
        )
    if node.fragmentation < 1 and node.used_memory >= TELLING_BYTES:
        return note(
            "fragmentation",
            what,
            why="less memory than is in use is in RAM: a part of it is swapped, which makes look-ups slow",
            fix="lower maxmemory, or give the machine more RAM",
        )
    return fine("fragmentation", what)


def persistence(node: NodeFacts, *, is_embedded: bool) -> Finding | None:
    """See whether it writes to disk what can be had again."""
    saves = None if node.settings is None else node.settings.get("save")
    kept = [
        *(["an append-only file"] if node.appends else []),
        *([f"snapshots (save {saves})"] if saves else []),
    ]
    if not kept:
        if node.appends is None or saves is None:
            return None
        return fine("persistence", "nothing is written to disk")
    if is_embedded:
        return fine("persistence", f"it keeps {' and '.join(kept)}: a script that runs twice pays once")
    return note(
        "persistence",
        f"it keeps {' and '.join(kept)}",
        why=(
            "an answer can be had again; forks for writing take memory beyond maxmemory, and a snapshot may"
            " bring back an answer that was invalidated after it was taken"
        ),
        fix='CONFIG SET save "" and CONFIG SET appendonly no, unless answers must outlive a restart',
    )


def lazy_eviction(node: NodeFacts) -> Finding | None:
    """See whether the memory of what is evicted is freed while callers wait."""
    match (node.settings or {}).get("lazyfree-lazy-eviction"):
        case None:
            return None
        case "yes":
            return fine("lazy-eviction", "evicted keys are freed in the background")
    return note(
        "lazy-eviction",
        "lazyfree-lazy-eviction is no",
        why="large answers that are evicted are freed while every caller waits",
        fix="CONFIG SET lazyfree-lazy-eviction yes",
    )
