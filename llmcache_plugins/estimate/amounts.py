"""What is reckoned: sums of calls, of tokens and of money, and what they were found from. Pure records.

Tokens and billionths of a US dollar are whole numbers: sums of them are exact, in whatever order.
"""

from __future__ import annotations

import msgspec

__all__ = [
    "Amount",
    "Estimate",
    "Mechanism",
    "RuleFigures",
    "ScenarioFigures",
    "SemanticFigures",
    "Timeline",
    "Times",
]

_BILLION = 1_000_000_000


class Amount(msgspec.Struct, frozen=True, kw_only=True):
    """Calls, what they have taken and what they have cost. A difference of two may be negative."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    nano_usd: int = 0
    """Billionths of a US dollar, of those calls whose price is known."""
    unpriced: int = 0
    """Calls whose cost is not known: they are not in the money."""
    unmetered: int = 0
    """Calls whose tokens are not known: they are not in the tokens."""

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens

    @property
    def cost(self) -> float | None:
        """US dollars; None if no cost is known of any of the calls."""
        if self.calls and self.unpriced == self.calls:
            return None
        return self.nano_usd / _BILLION

    def __add__(self, other: Amount) -> Amount:
        return _combined(self, other, 1)

    def __sub__(self, other: Amount) -> Amount:
        return _combined(self, other, -1)


def _combined(one: Amount, other: Amount, sign: int) -> Amount:
    sums = {name: getattr(one, name) + sign * getattr(other, name) for name in Amount.__struct_fields__}
    return Amount(**sums)


class Mechanism(msgspec.Struct, frozen=True, kw_only=True):
    """What one mechanism avoids, on top of those before it."""

    name: str
    """`exact`, `normalized` or `single_flight`."""
    added: Amount
    """What it avoids beyond those before it."""
    avoided: Amount
    """What it and those before it avoid together."""


class RuleFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What one built-in normalizer does to the calls of a log."""

    rule: str
    tokens: int
    """How many volatile tokens it finds."""
    calls: int
    """In how many calls it finds any."""
    wins: int
    """How many calls fewer would be avoided without it, all other rules staying."""


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """How old the answers are that are given out of a cache, in seconds."""

    hits: int = 0
    mean: float = 0.0
    oldest: float = 0.0


class ScenarioFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What one of the named policies avoids: its TTL, with normalized keys and single-flight."""

    name: str
    ttl: float
    """Seconds."""
    avoided: Amount
    ages: Times


class SemanticFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What equivalent questions would win beyond all else: an estimate, from a sample."""

    target_error: float
    """The share of its hits that may be wrong."""
    threshold: float
    """The cosine similarity that keeps it."""
    texts: int
    """Different questions in the sample."""
    calls: int
    """Calls of the sample that no other mechanism avoids."""
    fewer: int
    """How many of them fewer would reach the provider."""
    hits: int
    """Calls that would get an equivalent question's answer, each time: it is not stored for them."""
    not_compared: dict[str, int]
    """Calls of the sample that could not be compared, by the reason."""
    share: float | None
    """`fewer` of `calls`; None if there are none."""
    lowest: float
    """Between this share and the next the true one lies, for calls like these (95 %)."""
    highest: float
    added: Amount
    """What that share would be of all calls of the log that nothing else avoids. Extrapolated."""


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """Calls by when they were made, under the policy's TTL."""

    begin: float
    """Unix seconds."""
    step: float
    """Seconds."""
    calls: tuple[int, ...]
    """By step, all."""
    avoided: tuple[int, ...]


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """What a cache would have saved, of one log."""

    total: Amount
    """All calls of the log that were answered by a provider."""
    first: float | None
    """When the first of them was asked, unix seconds; None if none says when."""
    last: float | None
    ttl: float
    """Seconds; that of `mechanisms`."""
    mechanisms: tuple[Mechanism, ...]
    rules: tuple[RuleFigures, ...]
    """The built-in normalizers that are in the keys, in their order."""
    rules_learned_from: int
    """From how many calls it was found out which rules win anything; 0 if they were named."""
    scenarios: tuple[ScenarioFigures, ...]
    """The shortest TTL first."""
    timeline: Timeline | None
    """None where all calls were made at one time, or none says when."""
    recommended: str | None
    """Name of a scenario; None if nothing would be saved."""
    never_cached: int = 0
    """Calls whose requests have no canonical form."""
    not_stored: int = 0
    """Calls whose answers would not be stored: truncated, filtered, without a choice."""
    undated: int = 0
    """Calls that do not say when they were made."""
    untimed: int = 0
    """Calls that do not say how long they took."""
    latency: float
    """Seconds that those are taken to have lasted."""
    guessed: int = 0
    """Calls whose tokens were reckoned from the length of texts."""
    unpriced_models: tuple[str, ...] = ()
    """Models without a price, those that were asked most."""
    semantic: SemanticFigures | None = None

    @property
    def avoided(self) -> Amount:
        """What all mechanisms together avoid, but for equivalent questions."""
        return self.mechanisms[-1].avoided

    @property
    def span(self) -> float:
        """Seconds from the first call to the last."""
        return 0.0 if self.first is None or self.last is None else self.last - self.first

    @property
    def normalizers(self) -> tuple[str, ...]:
        """The rules that are in the keys."""
        return tuple(rule.rule for rule in self.rules)

    def scenario(self, name: str) -> ScenarioFigures:
        """Return the figures of one scenario. Raises `KeyError`."""
        return {one.name: one for one in self.scenarios}[name]
