"""Storing an entry: value, books, bounds, lease and wake-up in one script."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmcache_plugins import codec
from llmcache_plugins.models import Commit, WriteStatus
from llmcache_plugins.repository.reading import subjects
from llmcache_plugins.repository.timings import Timings, milliseconds
from llmcache_plugins.telemetry import Evicted

if TYPE_CHECKING:
    from llmcache_plugins.config import CacheConfig
    from llmcache_plugins.keys import BucketKeys
    from llmcache_plugins.models import Entry, Lease
    from llmcache_plugins.repository.link import Link
    from llmcache_plugins.repository.scripts import Argument
    from llmcache_plugins.telemetry import Telemetry

__all__ = ["Writer"]

_UNBOUNDED = 2**53 - 1


class Writer:
    """Writes entries under the bounds of the configuration."""

    def __init__(self, *, config: CacheConfig, timings: Timings, telemetry: Telemetry) -> None:
        self._config = config
        self._timings = timings
        self._telemetry = telemetry

    async def write(self, link: Link, names: BucketKeys, entry: Entry, *, ttl: float, lease: Lease) -> Commit:
        """Store an entry for `ttl` seconds. A lease without a fence is a plain write: it gets a new one."""
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
    # Rounded down: all buckets together never hold more than the bound (but one entry each).
    return _UNBOUNDED if bound is None else max(1, bound // buckets)
