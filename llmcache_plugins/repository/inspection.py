"""Looking at a server: what every node says of itself, and what comes of using it as the cache does.

Owns the questions. What the answers mean is judged in `llmcache_plugins.diagnosis`; a question that is
refused leaves a gap there, and is named.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import suppress
from itertools import groupby
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from redis.exceptions import InvalidResponse, ResponseError

from llmcache_plugins.diagnosis import NodeFacts, ServerFacts
from llmcache_plugins.errors import ConfigError, LLMCacheError, RepositoryUnavailable
from llmcache_plugins.repository import cgroups
from llmcache_plugins.repository.faults import FAULTS, translate
from llmcache_plugins.repository.topology import connect
from llmcache_plugins.repository.trial import try_out
from llmcache_plugins.repository.urls import parse_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from llmcache_plugins.repository.topology import Node, Topology
    from llmcache_plugins.repository.urls import Target

__all__ = ["count_commands", "inspect"]

PATIENCE = 5.0
"""Seconds for one answer. Nobody's request waits for an inspection."""
PINGS = 50
_READINGS = 5
"""Of the clock: the one with the shortest round trip counts."""
_LOOPBACK = ("localhost", "127.", "::1")
# One by one: several patterns in one CONFIG GET are newer than the oldest server.
_SETTINGS = (
    "save",
    "timeout",
    "tcp-keepalive",
    "client-output-buffer-limit",
    "lazyfree-lazy-eviction",
    "min-replicas-to-write",
)
_BUILT_IN = {"lua"}
"""Modules that are a part of the server."""


async def inspect(url: str | None = None, *, namespace: str = "default", prefix: str = "llm") -> ServerFacts:
    """Look at a server or Cluster, and use it as a cache does that has this namespace and prefix.

    What is written for that lies in a namespace of its own below the given one, and is removed again; its
    marks, without content, go within a minute. A running cache is not disturbed. Raises `ConfigError` for a
    URL that cannot be right and `RepositoryUnavailable` when nobody answers there.
    """
    target = parse_url(url)
    topology = connect(target, socket_timeout=PATIENCE, connect_timeout=PATIENCE, is_whole=False)
    try:
        await _open(topology, target)
        # One after the other: beside others a node would seem slower than it is.
        nodes = [await _inspect_node(node, target) for node in topology.nodes()]
        refusals, scripts = await try_out(url, topology, namespace=namespace, prefix=prefix)
        return ServerFacts(
            address=target.address,
            kind=target.kind,
            is_local=_is_local(target),
            has_login=_has_login(target),
            nodes=tuple(nodes),
            refusals=tuple(refusals),
            scripts=tuple(sorted(scripts)),
            uncovered=_ranges(topology.uncovered_slots()),
        )
    finally:
        await topology.aclose()


async def count_commands(url: str | None = None) -> Counter[str] | None:
    """Return how often each command was run since the server's start, by name, summed over all nodes.

    What a script runs is counted, too. None where that may not be asked. Raises like `inspect`.
    """
    target = parse_url(url)
    topology = connect(target, socket_timeout=PATIENCE, connect_timeout=PATIENCE, is_whole=False)
    ran: Counter[str] = Counter()
    try:
        await _open(topology, target)
        for node in topology.nodes():
            said = await _Questions(node).ask("INFO", "commandstats")
            if said is None:
                return None
            for name, stat in said.items():
                ran[name.removeprefix("cmdstat_")] += int(stat["calls"])
        return ran
    finally:
        await topology.aclose()


async def _open(topology: Topology, target: Target) -> None:
    try:
        await topology.open()
        await topology.ping()
    except InvalidResponse:
        raise ConfigError(f"{target.address}: whoever answers there does not speak as Redis does") from None
    except LLMCacheError as error:
        raise type(error)(f"{target.address}: {error}") from None
    except FAULTS as error:
        hint = "; a server without TLS has a redis:// URL" if target.url.startswith("rediss:") else ""
        raise _kind(error)(f"{target.address}: {translate(error)}{hint}") from None


def _kind(error: BaseException) -> type[LLMCacheError]:
    return ConfigError if isinstance(translate(error), ConfigError) else RepositoryUnavailable


# -- one node ------------------------------------------------------------------------------------------------


class _Questions:
    """Asks a node, and notes what it refused."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.refused: list[str] = []

    async def ask(self, *command: Any) -> Any:
        """Return the reply, or None for a command that is refused or not there."""
        if command[0] in self.refused:
            return None
        try:
            return await self._node.ask(*command)
        except ResponseError:
            self.refused.append(command[0])
            return None

    async def ping(self) -> None:
        """Make a round trip. A refusal takes as long as an answer."""
        with suppress(ResponseError):
            await self._node.ask("PING")


async def _inspect_node(node: Node, target: Target) -> NodeFacts:
    address = node.address or target.address
    try:
        return await _ask_all(_Questions(node), address, is_local=_is_local(target))
    except FAULTS as error:
        return NodeFacts(address=address, failure=str(translate(error)))


async def _ask_all(questions: _Questions, address: str, *, is_local: bool) -> NodeFacts:
    pings = await _ping(questions)
    info = await questions.ask("INFO") or {}
    settings = {name: (await questions.ask("CONFIG GET", name) or {}).get(name) for name in _SETTINGS}
    skew = await _skew(questions)
    pid = info.get("process_id") if is_local else None
    sees_limits = pid is not None and cgroups.runs_here(pid)
    return NodeFacts(
        address=address,
        refused=tuple(questions.refused),
        pings=tuple(sorted(pings)),
        skew=skew,
        settings=_known(settings) if "CONFIG GET" not in questions.refused else None,
        sees_limits=sees_limits,
        memory_limit=cgroups.memory_limit(pid) if sees_limits and pid is not None else None,
        **_said(info),
    )


def _known(settings: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in settings.items() if value is not None}


async def _ping(questions: _Questions) -> list[float]:
    pings = []
    for _ in range(PINGS + 1):
        began = time.perf_counter()
        await questions.ping()
        pings.append(time.perf_counter() - began)
    return pings[1:]  # the first may have had to connect


async def _skew(questions: _Questions) -> float | None:
    readings = []
    for _ in range(_READINGS):
        began, clock = time.perf_counter(), time.time()
        theirs = await questions.ask("TIME")
        if theirs is None:
            return None
        took = time.perf_counter() - began
        readings.append((took, theirs[0] + theirs[1] / 1e6 - (clock + took / 2)))
    took, skew = min(readings)
    # What the round trip could explain is not counted.
    return 0.0 if abs(skew) <= took / 2 else skew


def _said(info: Mapping[str, Any]) -> dict[str, Any]:
    """Return what INFO says as fields of `NodeFacts`."""
    if not info:
        return {}
    is_valkey = info.get("server_name") == "valkey" or "valkey_version" in info
    return {
        "is_replica": info.get("role") == "slave",
        "software": "valkey" if is_valkey else "redis",
        "version": _text(info.get("valkey_version") if is_valkey else info.get("redis_version")),
        "modules": tuple(_modules(info.get("modules") or ())),
        "maxmemory": info.get("maxmemory"),
        "policy": info.get("maxmemory_policy"),
        "ram": info.get("total_system_memory"),
        "used_memory": info.get("used_memory"),
        "fragmentation": info.get("mem_fragmentation_ratio"),
        "appends": bool(info["aof_enabled"]) if "aof_enabled" in info else None,
        "evicted": info.get("evicted_keys"),
        "expired": info.get("expired_keys"),
        "hits": info.get("keyspace_hits"),
        "misses": info.get("keyspace_misses"),
        "clients": info.get("connected_clients"),
        "most_clients": info.get("maxclients"),
        "rejected_clients": info.get("rejected_connections"),
        "replicas": info.get("connected_slaves"),
    }


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _modules(modules: Iterable[Mapping[str, object]]) -> list[str]:
    return [name for module in modules if (name := str(module["name"])) not in _BUILT_IN]


# -- the whole -----------------------------------------------------------------------------------------------


def _is_local(target: Target) -> bool:
    parts = urlsplit(target.url)
    return (
        target.kind == "embedded"
        or parts.scheme == "unix"
        or (parts.hostname or "localhost").startswith(_LOOPBACK)
    )


def _has_login(target: Target) -> bool:
    parts = urlsplit(target.url)
    return bool(parts.username or parts.password or {"username", "password"} & parse_qs(parts.query).keys())


def _ranges(slots: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Return ascending numbers as ranges."""
    runs = groupby(enumerate(slots), key=lambda pair: pair[1] - pair[0])
    numbers = ([slot for _, slot in run] for _, run in runs)
    return tuple((run[0], run[-1]) for run in numbers)
