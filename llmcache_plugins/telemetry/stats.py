"""What was counted in this process."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llmcache_plugins.telemetry.events import (
    BreakerChanged,
    Event,
    Evicted,
    FoundNear,
    LeaseEvent,
    LeaseStep,
    MarksForgotten,
    ProviderCalled,
    Refused,
    Resolved,
    SemanticLooked,
    ShadowCompared,
    Spent,
    Unreadable,
    VerifierAsked,
)

if TYPE_CHECKING:
    from llmcache_plugins.models import Outcome

__all__ = ["Stats"]


@dataclass(slots=True, kw_only=True)
class Stats:
    """Counts since the cache was made, in this process. `entries` and `stored_bytes` are the namespace's."""

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    leases: Counter[LeaseStep] = field(default_factory=Counter)
    semantic: Counter[str] = field(default_factory=Counter)
    """What came of looking for equivalent questions, by the words of `SemanticLooked`."""
    vetoes: Counter[str] = field(default_factory=Counter)
    """Questions that were near enough and that a guard kept back, by guard."""
    verifier: Counter[str] = field(default_factory=Counter)
    """"yes", "no" and "failed"."""
    shadow: Counter[str] = field(default_factory=Counter)
    """What semantic hits in the shadow would have been: "agreed", "differed", "unknown"."""
    found_near: int = 0
    """Lookups that the near cache answered."""
    provider_calls: int = 0
    provider_failures: int = 0
    provider_seconds: float = 0.0
    saved_input_tokens: int = 0
    saved_output_tokens: int = 0
    saved_cost: float = 0.0
    """US dollars, at list prices, of those calls whose price is known."""
    saved_unpriced: int = 0
    """Calls that were spared and whose price is not known."""
    saved_seconds: float = 0.0
    spent_input_tokens: int = 0
    """By the cache itself, on verifiers, embedders and refreshes, as far as they say."""
    spent_output_tokens: int = 0
    spent_cost: float = 0.0
    """US dollars, of what has a known price."""
    spent_unpriced: int = 0
    unreadable: int = 0
    evicted: int = 0
    breaker_openings: int = 0
    marks_forgotten: int = 0
    entries: int | None = None
    """None when the repository did not say."""
    stored_bytes: int | None = None

    @property
    def requests(self) -> int:
        """All calls that were answered."""
        return self.outcomes.total()

    @property
    def hit_rate(self) -> float:
        """The share of calls answered without a provider call of their own, from 0 to 1."""
        spared = sum(n for outcome, n in self.outcomes.items() if outcome.is_spared)
        return spared / self.requests if self.requests else 0.0

    @property
    def net_cost(self) -> float:
        """What was saved less what the cache itself has spent, in US dollars, as far as prices are known."""
        return self.saved_cost - self.spent_cost

    def count(self, event: Event) -> None:
        """Count one event."""
        match event:
            case Resolved():
                self._count_resolved(event)
            case FoundNear():
                self.found_near += 1
            case ProviderCalled():
                self.provider_calls += 1
                self.provider_failures += event.failed
                self.provider_seconds += event.seconds
            case Spent():
                self._count_spent(event)
            case Refused():
                self.refusals[str(event.reason)] += 1
            case SemanticLooked():
                self.semantic[event.result] += 1
                self.vetoes.update(event.vetoes)
            case VerifierAsked():
                self.verifier[event.verdict] += 1
            case ShadowCompared():
                self.shadow[event.agreement] += 1
            case LeaseEvent():
                self.leases[event.step] += 1
            case Evicted():
                self.evicted += event.entries
            case MarksForgotten():
                self.marks_forgotten += event.marks
            case Unreadable():
                self.unreadable += 1
            case BreakerChanged():
                self.breaker_openings += event.open

    def _count_resolved(self, event: Resolved) -> None:
        self.outcomes[event.outcome] += 1
        self.saved_seconds += event.saved_seconds
        if event.saved is not None:
            self.saved_input_tokens += event.saved.input_tokens
            self.saved_output_tokens += event.saved.output_tokens
        if event.saved_cost is not None:
            self.saved_cost += event.saved_cost
        elif event.outcome.is_spared:
            self.saved_unpriced += 1

    def _count_spent(self, event: Spent) -> None:
        self.spent_input_tokens += event.usage.input_tokens
        self.spent_output_tokens += event.usage.output_tokens
        if event.cost is None:
            self.spent_unpriced += 1
        else:
            self.spent_cost += event.cost

    def __str__(self) -> str:
        by_outcome = ", ".join(f"{count} {outcome}" for outcome, count in sorted(self.outcomes.items()))
        lines = [
            f"{self.requests} requests ({by_outcome or 'none'}), hit rate {self.hit_rate:.1%}",
            f"{self.provider_calls} provider calls, {self.provider_failures} failed",
            f"saved {self.saved_input_tokens} input and {self.saved_output_tokens} output tokens",
            f"saved {self.saved_seconds:.1f} s of waiting",
        ]
        if self.saved_cost or self.spent_cost:
            lines.append(f"saved {self.net_cost:.4f} USD net, at list prices{self._but()}")
        if self.spent_input_tokens or self.spent_output_tokens:
            spent = f"{self.spent_input_tokens} input and {self.spent_output_tokens} output tokens"
            lines.append(f"spent {spent} on verifiers, embedders and refreshes")
        counted = {"semantic": self.semantic, "verifier": self.verifier, "shadow": self.shadow}
        for name, counts in {**counted, "kept back": self.vetoes, "not stored": self.refusals}.items():
            if counts:
                lines += [f"{name}: " + ", ".join(f"{n} {what}" for what, n in sorted(counts.items()))]
        if self.entries is not None:
            lines.append(f"{self.entries} entries, {self.stored_bytes} bytes")
        return "\n".join(lines)

    def _but(self) -> str:
        unpriced = self.saved_unpriced + self.spent_unpriced
        return f"; {unpriced} calls of unknown price are not in it" if unpriced else ""
