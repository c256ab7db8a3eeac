"""What can be seen of a server, without judgement. Sizes are bytes, times seconds; None is "not known"."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["NodeFacts", "Refusal", "ServerFacts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Something the server did not do: what was tried, the command if it named one, and its own words."""

    what: str
    command: str = ""
    said: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """One server, or one node of a Cluster. Counts are since its start."""

    address: str
    is_replica: bool = False
    failure: str = ""
    """Why it could not be asked at all; then nothing else is known."""
    refused: tuple[str, ...] = ()
    """Commands of this inspection that it refused."""

    software: Literal["redis", "valkey"] | None = None
    version: str | None = None
    modules: tuple[str, ...] = ()

    maxmemory: int | None = None
    policy: str | None = None
    ram: int | None = None
    """Of the host, as the server sees it."""
    memory_limit: int | None = None
    """Of the container or control group that it runs in, where that can be seen: on this machine."""
    sees_limits: bool = False
    """Whether a `memory_limit` would have been seen."""
    used_memory: int | None = None
    fragmentation: float | None = None
    """Memory taken from the system over memory in use."""

    appends: bool | None = None
    """Whether it keeps an append-only file."""
    evicted: int | None = None
    expired: int | None = None
    hits: int | None = None
    misses: int | None = None

    clients: int | None = None
    most_clients: int | None = None
    rejected_clients: int | None = None
    replicas: int | None = None
    """How many follow it."""

    settings: Mapping[str, str] | None = None
    """What CONFIG GET said of some settings; None when it was refused."""

    pings: tuple[float, ...] = ()
    """Round trips, in ascending order."""
    skew: float | None = None
    """How far its clock is ahead of this one's; half of a round trip is not counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """A server or Cluster, and what came of using it as the cache does."""

    address: str
    """Without user, password and query."""
    kind: Literal["server", "cluster", "embedded"]
    is_local: bool
    """Whether it listens on loopback or on a unix socket, as far as its address says."""
    has_login: bool
    """Whether a password was needed: there was one in the URL."""
    nodes: tuple[NodeFacts, ...]
    refusals: tuple[Refusal, ...] = ()
    """What the cache does and this user, or this server, may not. Empty when all went well."""
    scripts: tuple[float, ...] = ()
    """Round trips of a script of the cache's, in ascending order."""
    uncovered: tuple[tuple[int, int], ...] = field(default=())
    """Slots of the Cluster that nobody serves: first and last of each range."""
