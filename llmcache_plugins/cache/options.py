"""What one call may say about how it is cached; the same for every face."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from llmcache_plugins.models import Mode
    from llmcache_plugins.policy import CachePolicy

__all__ = ["CallOptions"]


class CallOptions(TypedDict, total=False):
    """Each is by default the cache's own."""

    policy: CachePolicy | None
    ttl: float | None
    """Seconds; 0 reads but does not store, None is as the policy says."""
    namespace: str | None
    """A trust domain other than the cache's."""
    mode: Mode | str | None
    """"default"; "refresh": call, then replace; "read_only": a miss raises `CacheMiss`; "off": only call."""
