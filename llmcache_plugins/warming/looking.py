"""What is still to be asked: the key of each query, and whether its answer is fresh.

Looks without a flight and without counting: what is skipped has saved nobody anything. Many at a time: a
batch costs one round trip.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmcache_plugins.errors import ConfigError
from llmcache_plugins.keys import CacheKey
from llmcache_plugins.models import Mode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmcache_plugins.cache import CallOptions
    from llmcache_plugins.gateway import InferenceGateway
    from llmcache_plugins.models import Entry, Found, Usage
    from llmcache_plugins.warming.lines import Line

__all__ = ["Looked", "Lookout", "checked_options"]

_NOBODYS = "0" * 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """A line and what is stored for it."""

    line: Line
    key: CacheKey | None = None
    error: str = ""
    """Why it has no key."""
    entry: Entry | None = None
    is_fresh: bool = False
    max_age: float | None = None
    """Seconds: what the call that replaces the entry must not be answered with."""

    @property
    def usage(self) -> Usage | None:
        """Tokens of the stored answer, if that is known."""
        return self.entry.answer.facts.usage if self.entry is not None else None


class Lookout:
    """Looks for the answers of one run."""

    def __init__(
        self, gateway: InferenceGateway, options: CallOptions, *, refresh_below: float = 0.0
    ) -> None:
        self._gateway = gateway
        self._repository = gateway.cache.repository
        self._options = options
        self._refresh_below = refresh_below
        self._began = time.time()

    async def check(self) -> None:
        """Raise what is wrong with the server: before anything is paid for, and in doubt."""
        await self._repository.ready()
        await self._repository.ping()
        await self._repository.fetch(CacheKey(digest=_NOBODYS), touch=False)

    async def look(self, lines: Sequence[Line]) -> list[Looked]:
        """Return what is stored for each line. Raises what the repository raises."""
        # Normalizers may take their time, and the calls under way have leases to renew.
        looked = await asyncio.to_thread(lambda: [self._sign(line) for line in lines])
        keys = [one.key for one in looked if one.key is not None]
        found = iter(await self._repository.fetch_many(keys))
        return [one if one.key is None else self._judged(one.line, one.key, next(found)) for one in looked]

    async def is_kept(self, key: CacheKey, *, instead_of: Entry | None) -> bool:
        """Say whether there is an answer now, other than that one. Raises what the repository raises."""
        found = await self._repository.fetch(key, touch=False)
        return found is not None and (instead_of is None or found.entry.created != instead_of.created)

    def _sign(self, line: Line) -> Looked:
        if line.error:
            return Looked(line=line, error=line.error)
        try:
            return Looked(line=line, key=self._gateway.key_of(line.query, **self._options))
        except Exception as error:  # noqa: BLE001 - any query, and the application's own normalizers and router
            return Looked(line=line, error=f"no key: {_told(error)}")

    def _judged(self, line: Line, key: CacheKey, found: Found | None) -> Looked:
        if found is None:
            return Looked(line=line, key=key)
        entry, now = found.entry, time.time()
        age, left = max(0.0, now - entry.created), entry.fresh_until - now
        most = self._options.get("max_age")
        is_due = bool(entry.stale_for and left <= 0) or left < self._refresh_below
        # What was brought since this run began is not brought again, however soon it expires.
        is_fresh = (not is_due or entry.created >= self._began) and (most is None or age <= most)
        max_age = None if is_fresh else min(age, age if most is None else most)
        return Looked(line=line, key=key, entry=entry, is_fresh=is_fresh, max_age=max_age)


def checked_options(gateway: InferenceGateway, options: CallOptions) -> CallOptions:
    """Return the options of the calls. Raises `TypeError` and `ConfigError` for those that cannot work."""
    gateway.cache.check(**options)
    if options.get("mode") not in (None, Mode.DEFAULT):
        raise ConfigError("warming has one mode; to renew what is fresh, give refresh_below=math.inf")
    if options.get("ttl") == 0:
        raise ConfigError("ttl=0 stores nothing: give the seconds for which the answers are to be kept")
    return {**options, "mode": Mode.DEFAULT}


def _told(error: Exception) -> str:
    # Ours never quote a prompt; of others only the name is told.
    named: Any = type(error).__name__
    return str(error) if type(error).__module__.startswith("llmcache_plugins.") else named
