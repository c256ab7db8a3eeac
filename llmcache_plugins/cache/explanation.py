"""What `explain` says. Plain records that print well."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmcache_plugins.keys import CacheKey
    from llmcache_plugins.models import Outcome
    from llmcache_plugins.signature import Differences, Normalized

__all__ = ["Explanation", "Nearest", "StoredEntry"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEntry:
    """What is known of a stored answer, not the answer. Times are seconds, negative once they are over."""

    age: float
    fresh_for: float
    stored_bytes: int
    model: str | None
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Nearest:
    """The stored entry whose request differs least from the one in question, and where it differs."""

    key: CacheKey
    age: float
    model: str | None
    differences: Differences


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a request hits or misses. `canonical` contains the prompt, all the rest nothing of it."""

    outcome: Outcome
    """What such a call would get now: `hit`, `stale`, `miss`, `bypass` or `unavailable`."""
    reason: str
    key: CacheKey | None = None
    """None for a request without a canonical form."""
    kind: str = ""
    """The kind of answer that the key is for."""
    canonical: str = field(default="", repr=False)
    """The JSON document whose digest the key is."""
    left_out: tuple[str, ...] = ()
    """Paths of the request that do not count."""
    normalized: tuple[Normalized, ...] = ()
    """What normalizers have stripped, and where."""
    entry: StoredEntry | None = None
    """The entry under the key, if there is one."""
    nearest: Nearest | None = None
    """Of a miss: the most similar of the latest entries."""
    compared: int = 0
    """How many entries were compared."""
    incomparable: int = 0
    """How many could not be: they were stored with another secret, or without one by another process."""

    @property
    def differences(self) -> tuple[str, ...]:
        """The paths in which the nearest entry's request differs."""
        if self.nearest is None:
            return ()
        found = self.nearest.differences
        return (*found.changed, *found.added, *found.removed)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> list[str]:
        lines = [f"{self.outcome}: {self.reason}"]
        if self.key is not None:
            lines.append(
                f"key: {self.key} in namespace {self.key.namespace}, for answers of kind {self.kind}"
            )
        if self.left_out:
            lines.append(f"left out: {', '.join(self.left_out)}")
        lines += [_stripped(one) for one in self.normalized]
        if (entry := self.entry) is not None:
            lines.append(
                f"stored: {entry.age:.0f} s ago, fresh for {entry.fresh_for:.0f} s, {entry.stored_bytes} B"
                + (f", model {entry.model}" if entry.model else "")
                + (f", tags {', '.join(entry.tags)}" if entry.tags else "")
            )
        if (nearest := self.nearest) is not None:
            lines.append(
                f"nearest of {self.compared} entries: {nearest.key}, {nearest.age:.0f} s old; it differs"
            )
            lines += _named("differs in", nearest.differences.changed)
            lines += _named("lacks", nearest.differences.added)
            lines += _named("has besides", nearest.differences.removed)
            if nearest.differences.unnamed:
                lines.append(f"  has besides {nearest.differences.unnamed} paths that cannot be named")
        elif self.compared:
            lines.append(f"none of {self.compared} entries is alike")
        if self.incomparable:
            lines.append(
                f"{self.incomparable} entries could not be compared: only those of the same secret, or"
                " without one by this process, can"
            )
        return lines


def _stripped(one: Normalized) -> str:
    where = one.path or "the prompt"
    if one.skipped:
        return f"not normalized: {one.rule} in {where}, {one.skipped}"
    return f"normalized: {one.rule} {one.count} x in {where}"


def _named(what: str, paths: tuple[str, ...]) -> list[str]:
    return [f"  {what} {path}" for path in paths]
