"""`suggest`: what each built-in rule would win on a sample of requests, and which of them are needed.

Pure: requests in, a report out, without a word of what they say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmcache_plugins.normalize.builtin import BUILTIN, RULES
from llmcache_plugins.suggest.sample import Sample
from llmcache_plugins.suggest.volatile import Volatile, volatile_tokens

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from llmcache_plugins.suggest.sample import Texts

__all__ = ["Advice", "RuleAdvice", "suggest", "winning_rules"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleAdvice:
    """What one built-in rule would do."""

    rule: str
    tokens: int
    """How many it strips from the distinct requests."""
    requests: int
    """From how many distinct requests it strips any."""
    hits: int
    """How many requests would hit with this rule alone."""
    needed: int
    """How many hits the best chain would lose without it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What a sample of requests asks for. A request hits if an equal one came before it."""

    requests: int
    unreadable: int
    """Requests without a canonical form, which are never cached and not among `requests`."""
    hits: int
    """How many hit without any rule."""
    rules: tuple[RuleAdvice, ...]
    """Of the built-in rules those that strip anything."""
    best: tuple[str, ...]
    """The fewest rules that win all that can be won, in their order: the value for `normalizers`. All that
    strip anything, if there is something `volatile`: what that costs is what it costs after all of them."""
    best_hits: int
    volatile: tuple[Volatile, ...]
    """What no built-in rule covers and keeps requests apart all the same, after all rules; what costs most
    first."""

    @property
    def hit_rate(self) -> float:
        """The share of requests that hit without any rule."""
        return self.rate_of(self.hits)

    @property
    def best_hit_rate(self) -> float:
        """The share of requests that hit with the best chain."""
        return self.rate_of(self.best_hits)

    @property
    def has_findings(self) -> bool:
        """Whether anything would win a hit."""
        return self.best_hits > self.hits or bool(self.volatile)

    def rate_of(self, hits: int) -> float:
        """Return hits as a share of the requests."""
        return hits / self.requests if self.requests else 0.0


def suggest(requests: Iterable[Mapping[str, Any] | str]) -> Advice:
    """Return which rules would win how many hits, and which volatile tokens no rule covers.

    Requests are bodies as they are sent to a provider, or bare prompts. Keeps the texts of all distinct
    requests in memory; takes time in proportion to them, about a millisecond for one of a kilobyte.
    """
    sample = Sample(requests)
    chains = _Chains(sample)
    stripping = tuple(name for name in BUILTIN if chains.tokens[name])
    # After all rules: a request that has a time as well as a number differs from others in both.
    volatile = volatile_tokens(sample.asked, chains.texts(stripping))
    best = stripping if volatile else chains.fewest(stripping)
    best_hits = chains.hits(best)
    return Advice(
        requests=sample.count,
        unreadable=sample.unreadable,
        hits=chains.hits(()),
        rules=tuple(
            RuleAdvice(
                rule=name,
                tokens=chains.tokens[name],
                requests=len(chains.touched[name]),
                hits=chains.hits((name,)),
                needed=best_hits - chains.hits(_without(best, name)),
            )
            for name in stripping
        ),
        best=best,
        best_hits=best_hits,
        volatile=volatile,
    )


def winning_rules(requests: Iterable[Mapping[str, Any] | str]) -> tuple[str, ...]:
    """Return the fewest built-in rules that win all the hits that built-in rules can win, in their order.

    What `suggest` calls `best`, without looking for what no rule covers: that is most of its time.
    """
    chains = _Chains(Sample(requests))
    return chains.fewest(tuple(name for name in BUILTIN if chains.tokens[name]))


class _Chains:
    """Tries chains of built-in rules on a sample."""

    def __init__(self, sample: Sample) -> None:
        self._sample = sample
        self.tokens = dict.fromkeys(BUILTIN, 0)
        self.touched: dict[str, set[int]] = {name: set() for name in BUILTIN}
        self._hits: dict[tuple[str, ...], int] = {}
        for place, asked in enumerate(sample.asked):
            if asked.is_open:
                self._look_at(place, asked.texts)

    def _look_at(self, place: int, texts: Texts) -> None:
        for name in BUILTIN:
            if count := sum(RULES[name].apply(text, "")[1] for text in texts):
                self.tokens[name] += count
                self.touched[name].add(place)

    def texts(self, chain: Sequence[str]) -> list[Texts]:
        """Return the texts of all distinct requests after a chain, each rule run where it strips anything."""
        return [
            tuple(_after(rules, text) for text in asked.texts) if rules else asked.texts
            for place, asked in enumerate(self._sample.asked)
            for rules in [[name for name in chain if place in self.touched[name]]]
        ]

    def hits(self, chain: tuple[str, ...]) -> int:
        """Return how many requests hit with a chain."""
        if chain not in self._hits:
            self._hits[chain] = self._sample.hits_with(self.texts(chain))
        return self._hits[chain]

    def fewest(self, chain: tuple[str, ...]) -> tuple[str, ...]:
        """Return the chain without the rules that win nothing.

        From all rules down and not from none up: where each request has a time and an id, either rule alone
        wins nothing.
        """
        most = self.hits(chain)
        for name in reversed(chain):
            if self.hits(fewer := _without(chain, name)) == most:
                chain = fewer
        return chain


def _after(chain: Sequence[str], text: str) -> str:
    for name in chain:
        text, _ = RULES[name].apply(text, _PLACEHOLDERS[name])
    return text


def _without(chain: tuple[str, ...], name: str) -> tuple[str, ...]:
    return tuple(one for one in chain if one != name)


# The same for a rule in every chain, so that chains can be compared.
_PLACEHOLDERS = {name: chr(0xFDD0 + place) for place, name in enumerate(BUILTIN)}
