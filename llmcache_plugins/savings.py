"""What was saved, by day, namespace and model: the tally of a process, and what a ledger adds up to. Pure.

Amounts are whole numbers, money billionths of a US dollar: sums of them are exact, in whatever order
processes add theirs.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from llmcache_plugins.models import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from llmcache_plugins.models import Usage

__all__ = ["OTHER", "Amounts", "Place", "Savings", "SavingsRow", "Tally"]

Place = tuple[str, str]
"""Namespace and model."""
Amounts = dict[str, int]
"""By the names of `SavingsRow`'s fields, and of the outcomes."""

OTHER: Final = "_other"
"""Namespace and model of what found no room of its own."""
UNKNOWN_MODEL: Final = "_unknown"
_BILLION = 1_000_000_000


class Tally:
    """Amounts that are not in the ledger yet, of at most `most` places. Not for several threads at once."""

    def __init__(self, *, most: int) -> None:
        self._most = most
        self._rows: dict[Place, _Sums] = {}

    def resolved(
        self, place: Place, outcome: Outcome, *, usage: Usage | None, cost: float | None, seconds: float
    ) -> None:
        """Add one answered call, and what it has saved; `cost` in US dollars, None if that is not known."""
        row = self._row(place)
        # Not the member itself: an enum's hash is computed in Python.
        name = outcome._value_
        row.outcomes[name] = row.outcomes.get(name, 0) + 1
        if usage is not None:
            row.saved_input_tokens += usage.input_tokens
            row.saved_output_tokens += usage.output_tokens
        if cost is not None:
            row.saved_nano_usd += round(cost * _BILLION)
        elif outcome.is_spared:
            row.saved_unpriced += 1
        if seconds:
            row.saved_ms += round(seconds * 1000)

    def spent(self, place: Place, *, usage: Usage, cost: float | None) -> None:
        """Add what the cache itself has spent."""
        row = self._row(place)
        row.spent_input_tokens += usage.input_tokens
        row.spent_output_tokens += usage.output_tokens
        if cost is None:
            row.spent_unpriced += 1
        else:
            row.spent_nano_usd += round(cost * _BILLION)

    def take(self) -> dict[Place, Amounts]:
        """Return all there is, and begin anew."""
        rows, self._rows = self._rows, {}
        return {place: row.amounts() for place, row in rows.items()}

    def __bool__(self) -> bool:
        return bool(self._rows)

    def _row(self, place: Place) -> _Sums:
        row = self._rows.get(place)
        if row is None:
            if len(self._rows) >= self._most:
                place = (OTHER, OTHER)
            row = self._rows.setdefault(place, _Sums())
        return row


@dataclass(slots=True)
class _Sums:
    """Those of one place: attributes, for every hit adds to them."""

    outcomes: dict[str, int] = field(default_factory=dict)
    saved_input_tokens: int = 0
    saved_output_tokens: int = 0
    saved_nano_usd: int = 0
    saved_unpriced: int = 0
    saved_ms: int = 0
    spent_input_tokens: int = 0
    spent_output_tokens: int = 0
    spent_nano_usd: int = 0
    spent_unpriced: int = 0

    def amounts(self) -> Amounts:
        """Return those that are not zero."""
        sums = {name: getattr(self, name) for name in _AMOUNTS}
        return self.outcomes | {name: amount for name, amount in sums.items() if amount}


class SavingsRow(msgspec.Struct, kw_only=True, frozen=True):
    """What one model's calls in one namespace have saved on one day (UTC), or any sum of such rows."""

    day: str
    """As 2026-11-26."""
    namespace: str
    """`_other` for those that found no room of their own; a very long one as its keys spell it."""
    model: str
    """The one that was asked; `_unknown` where the request did not say."""
    outcomes: dict[str, int]
    saved_input_tokens: int = 0
    saved_output_tokens: int = 0
    saved_nano_usd: int = 0
    saved_unpriced: int = 0
    """Calls that were spared and whose price is not known: they are not in the money."""
    saved_ms: int = 0
    spent_input_tokens: int = 0
    spent_output_tokens: int = 0
    spent_nano_usd: int = 0
    spent_unpriced: int = 0

    @property
    def hits(self) -> int:
        """Calls that got a stored answer, of an equivalent question or past its freshness too."""
        return sum(self.outcomes.get(one, 0) for one in Outcome if one.is_stored)

    @property
    def misses(self) -> int:
        """Calls for which the provider was called, the cache having nothing."""
        return self.outcomes.get(Outcome.MISS, 0)

    @property
    def coalesced(self) -> int:
        """Calls that got the answer of an identical one under way."""
        return self.outcomes.get(Outcome.COALESCED, 0)

    @property
    def requests(self) -> int:
        """All calls that were answered."""
        return sum(self.outcomes.values())

    @property
    def hit_rate(self) -> float:
        """The share of calls without a provider call of their own, from 0 to 1."""
        return (self.hits + self.coalesced) / self.requests if self.requests else 0.0

    @property
    def tokens_saved(self) -> int:
        """Input and output tokens that were not paid for."""
        return self.saved_input_tokens + self.saved_output_tokens

    @property
    def tokens_spent(self) -> int:
        """Tokens of verifiers, embedders and refreshes."""
        return self.spent_input_tokens + self.spent_output_tokens

    @property
    def seconds_saved(self) -> float:
        """How long providers had taken for what was served from the cache."""
        return self.saved_ms / 1000

    @property
    def cost_saved(self) -> float | None:
        """US dollars at list prices, net of what the cache has spent; None if no price at all is known."""
        spared, spent = self.hits + self.coalesced, self.tokens_spent
        priced = spared > self.saved_unpriced or self.spent_nano_usd > 0
        if (spared or spent) and not priced:
            return None
        return (self.saved_nano_usd - self.spent_nano_usd) / _BILLION

    @property
    def cost_spent(self) -> float:
        """US dollars that the cache itself has spent, as far as prices are known."""
        return self.spent_nano_usd / _BILLION

    @property
    def unpriced(self) -> int:
        """Calls, spared or spent, that are not in the money because their price is not known."""
        return self.saved_unpriced + self.spent_unpriced


_AMOUNTS = tuple(
    name for name in SavingsRow.__struct_fields__ if name not in ("day", "namespace", "model", "outcomes")
)
_OUTCOMES = {outcome.value for outcome in Outcome}


class Savings(msgspec.Struct, kw_only=True, frozen=True):
    """The rows of a ledger, the latest day first."""

    rows: tuple[SavingsRow, ...] = ()

    @property
    def total(self) -> SavingsRow:
        """All of it."""
        return _summed(self.rows, day="", namespace="", model="")

    def by_model(self) -> list[SavingsRow]:
        """Return a sum for each model, what saved most first."""
        return self._by(lambda row: row.model, "model")

    def by_namespace(self) -> list[SavingsRow]:
        """Return a sum for each namespace, what saved most first."""
        return self._by(lambda row: row.namespace, "namespace")

    def by_day(self) -> list[SavingsRow]:
        """Return a sum for each day, the latest first."""
        return sorted(self._by(lambda row: row.day, "day"), key=lambda row: row.day, reverse=True)

    def _by(self, what: Callable[[SavingsRow], str], name: str) -> list[SavingsRow]:
        groups: dict[str, list[SavingsRow]] = {}
        for row in self.rows:
            groups.setdefault(what(row), []).append(row)
        blank = dict.fromkeys(("day", "namespace", "model"), "")
        sums = [_summed(rows, **{**blank, name: value}) for value, rows in groups.items()]
        return sorted(sums, key=lambda row: (-(row.cost_saved or 0.0), -row.tokens_saved, getattr(row, name)))


def row_of(day: str, place: Place, amounts: Amounts) -> SavingsRow:
    """Return the row of amounts as a ledger has them; names it does not know are of a later version."""
    known: dict[str, Any] = {name: amounts[name] for name in _AMOUNTS if name in amounts}
    outcomes = {name: n for name, n in amounts.items() if name in _OUTCOMES}
    return SavingsRow(day=day, namespace=place[0], model=place[1], outcomes=outcomes, **known)


def _summed(rows: Iterable[SavingsRow], *, day: str, namespace: str, model: str) -> SavingsRow:
    outcomes: Counter[str] = Counter()
    amounts: Counter[str] = Counter()
    for row in rows:
        outcomes.update(row.outcomes)
        amounts.update({name: getattr(row, name) for name in _AMOUNTS})
    return SavingsRow(day=day, namespace=namespace, model=model, outcomes=dict(outcomes), **amounts)
