"""The one frozen configuration: every default, with its reason, validated once.

Times are seconds, sizes bytes. Nothing here reads the environment.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypedDict

from llmcache_plugins.errors import ConfigError
from llmcache_plugins.keys import tenant_namespace

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Sequence

__all__ = ["CacheConfig", "CacheSettings"]

MAX_STORABLE_BYTES = 64 * 1024 * 1024
"""No entry is larger than this once decompressed, whatever wrote it: a bound for the reader."""


class CacheSettings(TypedDict, total=False):
    """The fields of `CacheConfig` as keywords of `from_url`."""

    namespace: str
    prefix: str
    tenant: str | None
    secret: str | bytes | None
    prompt_version: str | int | None
    data_version: str | int | None
    normalizers: Sequence[str | re.Pattern[str] | Callable[[str], str]]
    normalizer_limit: int
    normalizer_timeout: float
    lookup_budget: float
    commit_budget: float
    mode: Literal["default", "refresh", "read_only", "off"]
    lease_ttl: float
    heartbeat: float | None
    max_lead: float
    wait_timeout: float | None
    on_wait_timeout: Literal["call", "raise"]
    poll_interval: float
    error_ttl: float
    stream_batch: float
    max_stream_bytes: int
    on_abandon: Literal["cancel", "finish"]
    max_entries: int | None
    max_bytes: int | None
    max_entry_bytes: int
    compress_from: int
    near_cache: bool
    near_cache_bytes: int
    ledger_days: int
    socket_timeout: float
    connect_timeout: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheConfig:
    """Settings of one cache.

    Raises `ConfigError` for a value that cannot work, or values that cannot work together.
    """

    namespace: str = "default"
    """The trust domain: callers in one namespace see each other's answers."""
    prefix: str = "llm"
    """What every Redis key begins with."""
    secret: str | bytes | None = field(default=None, repr=False)
    """Deployment secret: keys become HMACs that nobody without it can confirm a guessed prompt against."""
    tenant: str | None = None
    """One of those who share the cache and must not see each other's answers. The namespace becomes this
    tenant's own, and this None."""
    prompt_version: str | int | None = None
    """Part of every key: change it with what is not in the requests, a prompt that the provider keeps."""
    data_version: str | int | None = None
    """Part of every key: change it with the data that answers are made from."""
    normalizers: Sequence[str | re.Pattern[str] | Callable[[str], str]] = ()
    """What is stripped from prompts before they are compared: names of built-in rules, compiled expressions
    and functions, in their order. Only the key changes, never what is sent."""
    normalizer_limit: int = 64 * 1024
    """Characters of the longest text that your own expressions and functions get; a longer one is compared as
    it is."""
    normalizer_timeout: float = 0.1
    """How long an expression of your own may take for one text; past it, the text is compared as it is."""
    lookup_budget: float = 0.05
    """How long all lookups of one call may wait for Redis together."""
    commit_budget: float = 0.5
    """How long a caller waits for its answer to be stored; past it, storing goes on in the background."""
    mode: Literal["default", "refresh", "read_only", "off"] = "default"
    """What calls do that do not say: see `Mode`."""
    lease_ttl: float = 10.0
    """How long a lease outlives its process: so long do others wait for one that was killed. Not for how long
    a call may take: that is unknown, and the lease is renewed while it runs."""
    heartbeat: float | None = None
    """How often a lease is renewed, at most half of `lease_ttl`; None = a third, so that two may fail."""
    max_lead: float = 600.0
    """How long one call may hold its lease in all: the bound for a provider that hangs. Ten minutes is the
    time limit of the OpenAI SDK."""
    wait_timeout: float | None = None
    """How long a follower waits for a leader; None = max_lead + lease_ttl, after which no leader holds on."""
    on_wait_timeout: Literal["call", "raise"] = "call"
    """What a follower does then: its process calls the provider, once, or it gets a `WaitTimeout`."""
    poll_interval: float = 1.0
    """How often a follower looks again when no message wakes it: the safety net for lost messages."""
    error_ttl: float = 2.0
    """How long those who waited can read that a request was refused, or its answer must not be shared. Long
    enough for all to look, short enough that nobody is told old news. A rate limit lasts as the provider
    says, at most 30 s."""
    stream_batch: float = 0.05
    """How long the chunks of a stream are collected before they are sent on to other processes."""
    max_stream_bytes: int = 4 * 1024 * 1024
    """Most bytes of a stream under way that are kept for others; who falls further behind is interrupted."""
    on_abandon: Literal["cancel", "finish"] = "cancel"
    """What becomes of a provider call when its last caller has gone."""
    max_entries: int | None = 100_000
    """Most entries in the namespace; the least recently used go first. None = only the server's bound."""
    max_bytes: int | None = None
    """Most bytes of entries in the namespace."""
    max_entry_bytes: int = 1024 * 1024
    """A larger answer is returned, but not stored."""
    compress_from: int = 4096
    """Entries from this size on are compressed (zstd): below it a hit's time is worth more than the bytes."""
    near_cache: bool = False
    """Whether what was read is kept in this process for a second, so that busy keys ask the server once a
    second and not for each hit. What is forgotten or replaced elsewhere is served for that second, and in
    this process no longer: see `invalidate(wait=True)`."""
    near_cache_bytes: int = 32 * 1024 * 1024
    """Most bytes of that."""
    ledger_days: int = 90
    """For how many days what was saved is kept in Redis, by namespace and model; 0 = not at all."""
    socket_timeout: float = 0.25
    connect_timeout: float = 1.0

    def __post_init__(self) -> None:
        for name in ("namespace", "prefix"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise ConfigError(f"{name} must be a non-empty string, not {getattr(self, name)!r}")
        for name in ("prompt_version", "data_version"):
            check_version(name, getattr(self, name))
        if self.tenant is not None:
            object.__setattr__(self, "namespace", self.namespace_of(self.tenant))
            object.__setattr__(self, "tenant", None)
        for name in (
            "normalizer_limit",
            "normalizer_timeout",
            "lookup_budget",
            "commit_budget",
            "lease_ttl",
            "max_lead",
            "poll_interval",
            "error_ttl",
            "stream_batch",
            "max_stream_bytes",
            "near_cache_bytes",
            "socket_timeout",
            "connect_timeout",
        ):
            _require_positive(name, getattr(self, name))
        for name in ("heartbeat", "wait_timeout", "max_entries", "max_bytes"):
            if getattr(self, name) is not None:
                _require_positive(name, getattr(self, name))
        _require_positive("max_entry_bytes", self.max_entry_bytes)
        if isinstance(self.ledger_days, bool) or not isinstance(self.ledger_days, int):
            raise ConfigError(f"ledger_days is a whole number of days, not {self.ledger_days!r}")
        if not 0 <= self.ledger_days <= 1000:
            raise ConfigError(f"ledger_days is from 0 to 1000, not {self.ledger_days!r}")
        self._check_together()

    def _check_together(self) -> None:
        if self.max_entry_bytes > MAX_STORABLE_BYTES:
            raise ConfigError(f"max_entry_bytes must be at most {MAX_STORABLE_BYTES} (64 MiB)")
        if self.compress_from < 0:
            raise ConfigError("compress_from must be 0 or more bytes")
        if self.lease_ttl < 0.05:
            raise ConfigError(
                "lease_ttl must be at least 0.05 seconds: a shorter lease ends before it is renewed"
            )
        if self.max_lead < self.lease_ttl:
            raise ConfigError(
                f"max_lead ({self.max_lead} s) must not be below lease_ttl ({self.lease_ttl} s)"
            )
        if self.renew_every > self.lease_ttl / 2:
            raise ConfigError(
                f"heartbeat ({self.heartbeat} s) must be at most half of lease_ttl ({self.lease_ttl} s): one"
                " late renewal would lose the lease"
            )
        if self.stream_batch > self.lease_ttl / 2:
            raise ConfigError(
                f"stream_batch ({self.stream_batch} s) must be at most half of lease_ttl ({self.lease_ttl} s)"
            )
        if not isinstance(self.near_cache, bool):
            raise ConfigError(f"near_cache is True or False, not {self.near_cache!r}")
        _require_one_of("on_abandon", self.on_abandon, ("cancel", "finish"))
        _require_one_of("on_wait_timeout", self.on_wait_timeout, ("call", "raise"))
        _require_one_of("mode", self.mode, ("default", "refresh", "read_only", "off"))

    def namespace_of(self, tenant: str, *, namespace: str | None = None) -> str:
        """Return the namespace of a tenant in a namespace, by default the own. Raises `ConfigError`."""
        if not isinstance(tenant, str) or not tenant:
            raise ConfigError(f"tenant must be a non-empty string, not a {type(tenant).__name__}")
        secret = self.secret.encode() if isinstance(self.secret, str) else self.secret
        return tenant_namespace(self.namespace if namespace is None else namespace, tenant, secret=secret)

    @property
    def renew_every(self) -> float:
        """Seconds between two renewals of a lease: the effective `heartbeat`."""
        return self.lease_ttl / 3 if self.heartbeat is None else self.heartbeat

    @property
    def follow_for(self) -> float:
        """The effective `wait_timeout`."""
        return self.max_lead + self.lease_ttl if self.wait_timeout is None else self.wait_timeout


def check_version(name: str, version: object) -> None:
    """Raise `ConfigError` for what cannot be a version."""
    if version is not None and (isinstance(version, bool) or not isinstance(version, str | int)):
        raise ConfigError(f"{name} is a string or a whole number, not {version!r}")


def _require_one_of(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} must be one of {', '.join(map(repr, choices))}, not {value!r}")


def _require_positive(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ConfigError(f"{name} must be a positive number, not {value!r}")
