"""Storing an entry: value, books, bounds, lease and wake-up in one script.

Owns how a bound of the namespace is shared among its buckets, and which bounds are too small for that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmcache_plugins import codec
from llmcache_plugins.errors import ConfigError
from llmcache_plugins.models import Commit, WriteStatus
from llmcache_plugins.repository.reading import subjects
from llmcache_plugins.repository.timings import Timings, milliseconds
from llmcache_plugins.telemetry import Evicted

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmcache_plugins.config import CacheConfig
    from llmcache_plugins.keys import BucketKeys, CacheKey
    from llmcache_plugins.models import Entry, Lease
    from llmcache_plugins.repository.link import Link
    from llmcache_plugins.repository.near import NearCache
    from llmcache_plugins.repository.scripts import Argument
    from llmcache_plugins.telemetry import Telemetry

__all__ = ["Writer", "check_bounds"]

LEAST_BUCKET_BYTES = 4096
"""What a bucket must be able to hold: one ordinary answer of some hundred words, as an SDK returns it."""
_UNBOUNDED = 2**53 - 1


def check_bounds(config: CacheConfig, *, buckets: int) -> None:
    """Raise `ConfigError` for bounds that so many buckets cannot keep, or can only keep by storing nothing.

    Each bucket keeps its newest entry, and refuses what alone exceeds its share of the bytes.
    """
    _check_bound("max_entries", config.max_entries, least=buckets, buckets=buckets)
    _check_bound("max_bytes", config.max_bytes, least=buckets * LEAST_BUCKET_BYTES, buckets=buckets)


def _check_bound(name: str, bound: int | None, *, least: int, buckets: int) -> None:
    if bound is None or bound >= least:
        return
    why = (
        f"a namespace has {buckets} buckets in a Cluster, and each keeps an equal share of at least"
        f" {least // buckets}"
        if buckets > 1
        else "an answer of ordinary length would not fit"
    )
    raise ConfigError(f"{name} must be at least {least} here, not {bound}: {why}")


class Writer:
    """Writes entries under the bounds of the configuration."""

    def __init__(
        self,
        *,
        locate: Callable[[CacheKey], tuple[Link, BucketKeys]],
        config: CacheConfig,
        timings: Timings,
        telemetry: Telemetry,
        near: NearCache | None,
    ) -> None:
        self._locate = locate
        self._config = config
        self._timings = timings
        self._telemetry = telemetry
        self._near = near

    async def write(self, key: CacheKey, entry: Entry, *, ttl: float, lease: Lease) -> Commit:
        """Store an entry for `ttl` seconds. A lease without a fence is a plain write: it gets a new one."""
        link, names = self._locate(key)
        try:
            return await self._write(link, names, entry, ttl=ttl, lease=lease)
        finally:
            # Whether it was done or is not known to be: the next reader asks the server.
            if self._near is not None:
                self._near.drop(key)

    async def _write(
        self, link: Link, names: BucketKeys, entry: Entry, *, ttl: float, lease: Lease
    ) -> Commit:
        config, buckets = self._config, link.topology.buckets
        arguments: dict[str, Argument] = {
            "token": lease.token,
            "fence": lease.fence,
            "birth": lease.birth,
            "version": codec.version_field(),
            "ttl_ms": milliseconds(ttl),
            "marks_ms": self._timings.marks_ms(ttl),
            "oldest_us": self._timings.oldest_us,
            "max_entries": _share(config.max_entries, buckets),
            "max_bytes": _share(config.max_bytes, buckets),
            "unshared_ms": self._timings.error_ms,
            "root": names.root,
            "digest": names.digest,
            "body": codec.encode_body(entry, digest=names.digest, compress_from=config.compress_from),
        }
        about = subjects(names.digest, entry.provenance)
        status, evicted, detail = await link.run("commit", names, arguments, about)
        if evicted:
            self._telemetry.emit(Evicted(entries=evicted))
        return Commit(status=WriteStatus(status.decode()), detail=detail.decode(errors="replace"))


def _share(bound: int | None, buckets: int) -> int:
    # Rounded down: all buckets together never hold more than the bound.
    return _UNBOUNDED if bound is None else bound // buckets
