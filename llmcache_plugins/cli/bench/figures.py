"""What a load came to: the figures of each side, and what is wrong with them. Pure.

Owns the arithmetic and the form of `--json`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llmcache_plugins.cli.load.calls import percentile
from llmcache_plugins.models import Outcome, Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmcache_plugins.prices import Price

__all__ = ["SHARES", "Report", "Share", "Side", "findings_of", "percentile", "to_json"]

SHARES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "max": 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one process has to tell. Times are seconds; of calls that failed there are none."""

    latencies: list[float]
    failures: Counter[str] = field(default_factory=Counter)
    """By the class of the error."""
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    """Empty without the cache."""
    saved: Usage = field(default_factory=Usage)
    wire_calls: int = 0
    """Calls of the provider that have left the process."""
    late: int = 0
    """Calls that began after their time, because so many were under way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """The load with the cache, or without."""

    name: str
    shares: Sequence[Share]
    seconds: float
    provider_calls: int
    """As the provider counts them, or what has left for a real one."""
    commands: dict[str, int] | None = None
    """That the server ran meanwhile, those in scripts too; None without the cache, or if it does not say."""

    @property
    def latencies(self) -> list[float]:
        """Of all calls, in ascending order."""
        return sorted(seconds for share in self.shares for seconds in share.latencies)

    @property
    def failures(self) -> Counter[str]:
        """Of all processes."""
        return sum((share.failures for share in self.shares), Counter())

    @property
    def outcomes(self) -> Counter[Outcome]:
        """Of all processes."""
        return sum((share.outcomes for share in self.shares), Counter())

    @property
    def calls(self) -> int:
        """Those that failed among them."""
        return sum(len(share.latencies) for share in self.shares) + self.failures.total()

    @property
    def late(self) -> int:
        """Of all processes."""
        return sum(share.late for share in self.shares)

    @property
    def per_second(self) -> float:
        """Calls per second."""
        return self.calls / self.seconds if self.seconds else 0.0

    @property
    def hit_rate(self) -> float | None:
        """The share of calls that were spared; None without the cache."""
        outcomes = self.outcomes
        if not outcomes:
            return None
        return sum(n for one, n in outcomes.items() if one.is_spared) / outcomes.total()

    @property
    def saved(self) -> Usage:
        """Tokens that were not paid for."""
        return Usage(
            input_tokens=sum(share.saved.input_tokens for share in self.shares),
            output_tokens=sum(share.saved.output_tokens for share in self.shares),
        )

    def percentiles(self) -> dict[str, float]:
        """Return what `SHARES` names, in seconds; empty if no call came to an end."""
        latencies = self.latencies
        return {name: percentile(latencies, share) for name, share in SHARES.items()} if latencies else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All of it."""

    face: str
    provider: str
    is_stand_in: bool
    server: str
    model: str
    price: Price | None
    questions: int
    """That there are."""
    distinct: int
    """That were asked."""
    zipf: float
    rate: float | None
    concurrency: int
    processes: int
    without: Side | None
    cached: Side

    @property
    def dollars(self) -> float | None:
        """What was saved, at the list price; None if that is not known."""
        return None if self.price is None else self.price.of(self.cached.saved)

    @property
    def speedup(self) -> dict[str, float] | None:
        """How many times as fast the cached calls are, by percentile; None without the other side."""
        if self.without is None:
            return None
        slow, fast = self.without.percentiles(), self.cached.percentiles()
        return {name: slow[name] / fast[name] for name in fast if name in slow and fast[name] > 0}


def findings_of(report: Report) -> list[str]:
    """Return what is not as it should be, a sentence each."""
    found = []
    for side in (report.without, report.cached):
        if side is not None and side.failures:
            kinds = ", ".join(f"{n} {name}" for name, n in side.failures.most_common())
            found.append(f"{side.name}: {side.failures.total():,} of {side.calls:,} calls failed ({kinds})")
        if side is not None and side.late:
            found.append(
                f"{side.name}: {side.late:,} calls began late: so many at a time cannot bear the rate"
            )
    outages = report.cached.outcomes[Outcome.UNAVAILABLE]
    if outages:
        found.append(f"{outages:,} calls went to the provider because the server did not answer in time")
    elif not report.cached.failures and report.cached.provider_calls != report.distinct:
        calls = f"{report.cached.provider_calls:,} provider calls"
        found.append(f"{calls} for {report.distinct:,} different questions: one for each was to be expected")
    return found


def to_json(report: Report) -> dict[str, Any]:
    """Return everything as JSON-like data; times are seconds, money US dollars."""
    return {
        "face": report.face,
        "provider": report.provider,
        "provider_is_stand_in": report.is_stand_in,
        "server": report.server,
        "model": report.model,
        "load": {
            "questions": report.questions,
            "distinct": report.distinct,
            "zipf": report.zipf,
            "rate": report.rate,
            "concurrency": report.concurrency,
            "processes": report.processes,
        },
        "without": None if report.without is None else _side(report.without),
        "cached": _side(report.cached),
        "speedup": report.speedup,
        "saved": {
            "input_tokens": report.cached.saved.input_tokens,
            "output_tokens": report.cached.saved.output_tokens,
            "dollars": report.dollars,
        },
        "findings": findings_of(report),
    }


def _side(side: Side) -> dict[str, Any]:
    return {
        "calls": side.calls,
        "failures": dict(side.failures),
        "seconds": side.seconds,
        "per_second": side.per_second,
        "latency": side.percentiles(),
        "hit_rate": side.hit_rate,
        "outcomes": {str(one): n for one, n in sorted(side.outcomes.items())},
        "provider_calls": side.provider_calls,
        "redis_commands": side.commands,
    }
