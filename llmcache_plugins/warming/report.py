"""What a warming run has done so far, and what went wrong with which lines. Bounded, however long the run."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from llmcache_plugins.models import Usage

__all__ = ["MOST_POSITIONS", "SeedFailure", "SeedReport", "Tally"]

_MOST_CAUSES = 50
MOST_POSITIONS = 20
_OTHER = "other causes"
_BETWEEN_REPORTS = 0.1
"""Seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedFailure:
    """The lines that failed for one cause."""

    cause: str
    lines: int
    positions: tuple[int, ...]
    """The first of them, at most 20; counted from 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedReport:
    """What became of the queries: each that is done is in one of the first four figures."""

    seeded: int = 0
    """Asked, answered and stored."""
    skipped: int = 0
    """Fresh already."""
    coalesced: int = 0
    """Stored by somebody else who was asking for the same: another process, or an earlier line of this
    run."""
    failed: int = 0
    calls: int = 0
    """Answers that were paid for, stored or not."""
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = 0.0
    """US dollars at list price, of the answers whose price is known; None if answers were paid for and none
    has a known price."""
    unpriced: int = 0
    """Answers that were paid for at a price that is not known: they are not in `cost`."""
    seconds: float = 0.0
    failures: tuple[SeedFailure, ...] = ()
    """By cause, the most frequent first."""
    stopped: str = ""
    """Why the run ended before its queries did; "budget" if that was the reason. Empty if it did not."""

    @property
    def done(self) -> int:
        """Queries that are done, whatever became of them."""
        return self.seeded + self.skipped + self.coalesced + self.failed

    def __str__(self) -> str:
        counts = ", ".join(
            f"{getattr(self, name):,} {name}" for name in ("seeded", "skipped", "coalesced", "failed")
        )
        tokens = f"{self.input_tokens + self.output_tokens:,} tokens"
        return f"{counts}; {self.calls:,} calls paid, {tokens}, {self._price()}, {self.seconds:.1f} s"

    def _price(self) -> str:
        if self.cost is None:
            return "cost unknown"
        missing = f" and {self.unpriced:,} answers of unknown price" if self.unpriced else ""
        return f"${self.cost:,.4f}{missing}"


@dataclass(slots=True)
class _Cause:
    lines: int = 0
    positions: list[int] = field(default_factory=list)


class Tally:
    """Counts, and tells of it now and then."""

    def __init__(self, on_progress: Callable[[SeedReport], None] | None = None) -> None:
        self.seeded = self.skipped = self.coalesced = self.failed = 0
        self.calls = self.input_tokens = self.output_tokens = self.unpriced = 0
        self.cost = 0.0
        self.stopped = ""
        self._causes: dict[str, _Cause] = {}
        self._on_progress = on_progress
        self._began = monotonic()
        self._told = self._began

    def paid(self, usage: Usage | None, cost: float | None) -> None:
        """Count an answer that was paid for."""
        self.calls += 1
        if usage is not None:
            self.input_tokens += usage.input_tokens
            self.output_tokens += usage.output_tokens
        if cost is None:
            self.unpriced += 1
        else:
            self.cost += cost

    def fail(self, cause: str, positions: Iterable[int], *, lines: int = 1) -> None:
        """Count lines that failed for one cause; `positions` are the first of them."""
        self.failed += lines
        if cause not in self._causes and len(self._causes) >= _MOST_CAUSES:
            cause = _OTHER
        counted = self._causes.setdefault(cause, _Cause())
        counted.lines += lines
        # They come nearly in order, and the first ones are what somebody looks for.
        counted.positions = sorted([*counted.positions, *positions])[:MOST_POSITIONS]

    def tell(self, *, at_last: bool = False) -> None:
        """Say how far it is, if somebody wants to know and has not just been told."""
        if self._on_progress is None:
            return
        now = monotonic()
        if at_last or now - self._told >= _BETWEEN_REPORTS:
            self._told = now
            self._on_progress(self.report())

    def report(self) -> SeedReport:
        """Return what there is to say at this moment."""
        return SeedReport(
            seeded=self.seeded,
            skipped=self.skipped,
            coalesced=self.coalesced,
            failed=self.failed,
            calls=self.calls,
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            cost=None if self.unpriced and self.unpriced == self.calls else self.cost,
            unpriced=self.unpriced,
            seconds=monotonic() - self._began,
            failures=tuple(
                SeedFailure(cause=cause, lines=found.lines, positions=tuple(found.positions))
                for cause, found in sorted(self._causes.items(), key=lambda pair: -pair[1].lines)
            ),
            stopped=self.stopped,
        )
