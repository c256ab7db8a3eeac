"""What one call may say about how it is cached, the same for every face; and what that comes to."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

import msgspec

from llmcache_plugins.models import Mode
from llmcache_plugins.policy import CachePolicy

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["CallOptions", "Terms"]


class CallOptions(TypedDict, total=False):
    """Each is by default the cache's own."""

    policy: CachePolicy | str | None
    """A policy, or the name of a scenario."""
    ttl: float | None
    """Seconds; 0 reads but does not store, None is as the policy says."""
    max_age: float | None
    """Seconds; an older answer is none for this call."""
    tags: Iterable[str] | None
    """What the answer is made from, to be named when it is to be forgotten. A hit adds none."""
    namespace: str | None
    """A trust domain other than the cache's."""
    tenant: str | None
    """One of those who share the namespace and must not see each other's answers."""
    prompt_version: str | int | None
    """Part of the key: of a prompt that is not in the request."""
    data_version: str | int | None
    """Part of the key: of the data that the answer is made from."""
    mode: Mode | str | None
    """"default"; "refresh": call, then replace; "read_only": a miss raises `CacheMiss`; "off": only call."""


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """How one call is cached. `namespace` None is the cache's own, `versions` are the call's."""

    policy: CachePolicy
    ttl: float
    mode: Mode
    namespace: str | None = None
    tags: tuple[str, ...] = ()
    versions: dict[str, str | int] | None = None
    max_age: float | None = None
