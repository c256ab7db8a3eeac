"""`Estimator`: calls of a log in, what a cache would have saved out.

Owns the order of the mechanisms, the scenarios and the recommendation. Pure: no file, no server, no provider.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from llmcache_plugins.errors import ConfigError, SignatureError
from llmcache_plugins.estimate.amounts import (
    Amount,
    Estimate,
    Mechanism,
    RuleFigures,
    ScenarioFigures,
    Timeline,
    Times,
)
from llmcache_plugins.estimate.books import Books
from llmcache_plugins.estimate.replay import alone, together
from llmcache_plugins.estimate.signing import Signer
from llmcache_plugins.estimate.tokens import guessed_usage
from llmcache_plugins.normalize.builtin import BUILTIN
from llmcache_plugins.policy import CachePolicy, admit
from llmcache_plugins.prices import Prices
from llmcache_plugins.suggest import winning_rules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from llmcache_plugins.estimate.books import Booked
    from llmcache_plugins.estimate.calls import LoggedCall
    from llmcache_plugins.estimate.replay import Avoided
    from llmcache_plugins.estimate.similar import QuestionSample
    from llmcache_plugins.models import Usage

__all__ = ["SCENARIOS", "Estimator"]

SCENARIOS = ("realtime", "chat", "static_faq", "batch")
"""The shortest TTL first."""
LEARN_FROM = 5_000
"""Calls that are looked at before it is decided which rules are in the keys."""
_LEARN_FROM_BYTES = 4 * 1024 * 1024
"""Or so much of the log: what is looked at is kept until then."""
LATENCY = 1.0
"""Seconds, of calls whose log does not say."""
_ENOUGH = 0.9
"""Of what the longest TTL would save: a shorter one that saves as much is recommended."""
_MOST_TOKENS = 1_000_000_000
"""Of one answer: what says more is not believed, here as in the ledger."""
_BILLION = 1_000_000_000
_MOST_NAMES = 1_000
_MOST_SHOWN = 5
_STEPS = 60
"""Of the timeline."""


class Estimator:
    """Takes calls in, in any order, and reckons. Keeps some 150 bytes of each, and no prompt.

    `ttl` is the policy's, in seconds; `latency` that of calls which do not say theirs; `prices` those of
    models. `normalizers` names the built-in rules that are in the keys; None finds out, from the first
    calls, which of them win anything. `api_base` is the provider's address, if it is in the application's
    keys. With `guesses_tokens` a call without usage is given one from the length of its texts. `sample` takes
    the questions of the first calls, for `with_semantic`.

    Raises `ConfigError` for what cannot work.
    """

    def __init__(
        self,
        *,
        ttl: float | None = None,
        latency: float = LATENCY,
        prices: Prices | None = None,
        normalizers: Sequence[str] | None = None,
        api_base: str | None = None,
        guesses_tokens: bool = False,
        sample: QuestionSample | None = None,
    ) -> None:
        self._policy = CachePolicy() if ttl is None else CachePolicy(ttl=ttl)
        if isinstance(latency, bool) or not isinstance(latency, int | float) or not 0 <= latency < math.inf:
            raise ConfigError(f"latency is in seconds, from 0, not {latency!r}")
        if unknown := set(normalizers or ()) - set(BUILTIN):
            raise ConfigError(f"normalizers has no {min(unknown)!r}; there are {', '.join(BUILTIN)}")
        self._latency = float(latency)
        self._prices = prices or Prices()
        self._api_base = api_base
        self._guesses_tokens = guesses_tokens
        self._sample = sample
        self._learned_from = 0
        self._first: list[LoggedCall] = []
        self._first_bytes = 0
        self._signer = None if normalizers is None else self._signer_of(normalizers)
        self._books = Books()
        self._exact = bytearray()
        self._normalized = bytearray()
        self._without: dict[str, bytearray] = {}
        self._tokens: dict[str, int] = {}
        self._touched: dict[str, int] = {}
        self._clock = 0.0
        self._dated: tuple[float, float] | None = None
        self._never_cached = self._not_stored = self._undated = self._untimed = self._guessed = 0
        self._uncached = Amount()
        self._unpriced: Counter[str] = Counter()

    def add(self, call: LoggedCall) -> None:
        """Take a call in."""
        if self._signer is not None:
            self._book(call, self._signer)
            return
        self._first.append(call)
        self._first_bytes += call.size
        if len(self._first) >= LEARN_FROM or self._first_bytes >= _LEARN_FROM_BYTES:
            self._learn()

    def result(self, *, on_step: Callable[[], None] = lambda: None) -> Estimate:
        """Return the estimate of all calls so far. `on_step` is called now and then: it takes a while."""
        signer = self._signer or self._learn()
        total = _sum(self._all_calls()) + self._uncached
        exact = self._avoided(self._exact, on_step)
        normalized = self._avoided(self._normalized, on_step) if signer.rules else exact
        rules = tuple(self._rule(rule, normalized, exact, on_step) for rule in signer.rules)
        timeline = _Timeline(self._dated)
        for call in self._all_calls():
            timeline.asked(call)
        shared, scenarios = self._together(timeline, on_step)
        return Estimate(
            total=total,
            first=None if self._dated is None else self._dated[0],
            last=None if self._dated is None else self._dated[1],
            ttl=self._policy.ttl,
            mechanisms=(
                Mechanism(name="exact", added=exact, avoided=exact),
                Mechanism(name="normalized", added=normalized - exact, avoided=normalized),
                Mechanism(name="single_flight", added=shared - normalized, avoided=shared),
            ),
            rules=rules,
            rules_learned_from=self._learned_from,
            scenarios=scenarios,
            timeline=timeline.figures(),
            recommended=_recommended(scenarios),
            never_cached=self._never_cached,
            not_stored=self._not_stored,
            undated=self._undated,
            untimed=self._untimed,
            latency=self._latency,
            guessed=self._guessed,
            unpriced_models=tuple(name for name, _ in self._unpriced.most_common(_MOST_SHOWN)),
        )

    # -- taking in ---------------------------------------------------------------------------------------

    def _learn(self) -> Signer:
        calls, self._first = self._first, []
        self._learned_from = len(calls)
        signer = self._signer = self._signer_of(winning_rules(call.request for call in calls))
        for call in calls:
            self._book(call, signer)
        return signer

    def _signer_of(self, rules: Sequence[str]) -> Signer:
        return Signer([name for name in BUILTIN if name in rules], api_base=self._api_base)

    def _book(self, call: LoggedCall, signer: Signer) -> None:
        usage = self._usage_of(call)
        nano_usd = self._cost_of(call, usage)
        at, seconds = self._times_of(call)
        try:
            signed = signer.sign(call)
        except SignatureError:
            self._never_cached += 1
            self._uncached += _amount_of(usage, nano_usd)
            return
        refusal = admit(call.facts)
        self._not_stored += refusal is not None
        self._exact += signed.exact
        self._normalized += signed.normalized
        if len(signer.rules) > 1:
            for rule, digest in zip(signer.rules, signed.without, strict=True):
                self._without.setdefault(rule, bytearray()).extend(digest)
        for rule, count in signed.stripped.items():
            self._tokens[rule] = self._tokens.get(rule, 0) + count
            self._touched[rule] = self._touched.get(rule, 0) + 1
        self._books.add(
            at=at,
            seconds=seconds,
            is_storable=refusal is None,
            tokens=None if usage is None else (usage.input_tokens, usage.output_tokens),
            nano_usd=nano_usd,
        )
        if self._sample is not None and not self._sample.is_full:
            booked = self._books.call(len(self._books) - 1)
            self._sample.take(call, signed.normalized, booked, scope=signer.scope, rules=signer.chain)

    def _times_of(self, call: LoggedCall) -> tuple[float, float]:
        if call.at is None:
            # After the line before it, and after that was answered: nothing is known but the order.
            self._undated += 1
            return self._clock, 0.0
        self._clock = call.at
        first, last = self._dated or (call.at, call.at)
        self._dated = (min(first, call.at), max(last, call.at))
        if call.seconds is None:
            self._untimed += 1
            return call.at, self._latency
        return call.at, call.seconds

    def _usage_of(self, call: LoggedCall) -> Usage | None:
        usage = call.facts.usage
        if usage is not None and max(usage.input_tokens, usage.output_tokens) <= _MOST_TOKENS:
            return usage
        if not self._guesses_tokens:
            return None
        self._guessed += 1
        return guessed_usage(call)

    def _cost_of(self, call: LoggedCall, usage: Usage | None) -> int | None:
        asked = call.request.get("model") if isinstance(call.request, dict) else None
        names = (asked if isinstance(asked, str) else None, call.facts.model)
        cost = call.cost if call.cost is not None else self._prices.cost(usage, *names)
        if cost is not None:
            return round(cost * _BILLION)
        name = next(filter(None, names), None)
        if usage is not None and name is not None and len(self._unpriced) < _MOST_NAMES:
            self._unpriced[name] += 1
        return None

    # -- reckoning ---------------------------------------------------------------------------------------

    def _all_calls(self) -> Iterator[Booked]:
        return map(self._books.call, range(len(self._books)))

    def _avoided(self, digests: bytearray, on_step: Callable[[], None]) -> Amount:
        """Return what is avoided where each call is for itself."""
        groups = self._books.by_key(digests, on_step=on_step)
        return _sum(one.call for calls in groups for one in alone(calls, ttl=self._policy.ttl))

    def _rule(self, rule: str, normalized: Amount, exact: Amount, on_step: Callable[[], None]) -> RuleFigures:
        digests = self._without.get(rule)
        without = exact if digests is None else self._avoided(digests, on_step)
        return RuleFigures(
            rule=rule,
            tokens=self._tokens.get(rule, 0),
            calls=self._touched.get(rule, 0),
            wins=normalized.calls - without.calls,
        )

    def _together(
        self, timeline: _Timeline, on_step: Callable[[], None]
    ) -> tuple[Amount, tuple[ScenarioFigures, ...]]:
        """Return what all mechanisms avoid, by the policy's TTL and by the scenarios'."""
        ttls = {name: CachePolicy.scenario(name).ttl for name in SCENARIOS}
        sums = {ttl: _Sums() for ttl in (self._policy.ttl, *ttls.values())}
        for calls in self._books.by_key(self._normalized, on_step=on_step):
            for ttl, sum_ in sums.items():
                sum_.take(together(calls, ttl=ttl))
            for one in together(calls, ttl=self._policy.ttl):
                timeline.avoided(one.call)
        scenarios = tuple(
            ScenarioFigures(name=name, ttl=ttl, avoided=sums[ttl].amount(), ages=sums[ttl].ages())
            for name, ttl in ttls.items()
        )
        return sums[self._policy.ttl].amount(), scenarios


class _Timeline:
    """Counts calls by when they were made, in some steps of equal length."""

    def __init__(self, dated: tuple[float, float] | None) -> None:
        self._begin, end = dated or (0.0, 0.0)
        self._step = (end - self._begin) / _STEPS
        self._asked, self._avoided = [0] * _STEPS, [0] * _STEPS

    def asked(self, call: Booked) -> None:
        if (step := self._step_of(call)) is not None:
            self._asked[step] += 1

    def avoided(self, call: Booked) -> None:
        if (step := self._step_of(call)) is not None:
            self._avoided[step] += 1

    def _step_of(self, call: Booked) -> int | None:
        if self._step <= 0:
            return None
        return min(max(int((call.at - self._begin) / self._step), 0), _STEPS - 1)

    def figures(self) -> Timeline | None:
        if self._step <= 0:
            return None
        return Timeline(
            begin=self._begin, step=self._step, calls=tuple(self._asked), avoided=tuple(self._avoided)
        )


class _Sums:
    """What is avoided under one TTL."""

    def __init__(self) -> None:
        self._calls = _Tally()
        self._hits = 0
        self._age = 0.0
        self._oldest = 0.0

    def take(self, avoided: Iterable[Avoided]) -> None:
        for one in avoided:
            self._calls.add(one.call)
            if one.age is not None:
                self._hits += 1
                self._age += one.age
                self._oldest = max(self._oldest, one.age)

    def amount(self) -> Amount:
        return self._calls.amount()

    def ages(self) -> Times:
        return Times(hits=self._hits, mean=self._age / max(self._hits, 1), oldest=self._oldest)


class _Tally:
    """Adds calls up: a record for each would be made a million times."""

    __slots__ = ("calls", "input_tokens", "nano_usd", "output_tokens", "unmetered", "unpriced")

    def __init__(self) -> None:
        self.calls = self.input_tokens = self.output_tokens = 0
        self.nano_usd = self.unpriced = self.unmetered = 0

    def add(self, call: Booked) -> None:
        self.calls += 1
        self.input_tokens += call.input_tokens
        self.output_tokens += call.output_tokens
        if call.nano_usd < 0:
            self.unpriced += 1
        else:
            self.nano_usd += call.nano_usd
        if not call.is_metered:
            self.unmetered += 1

    def amount(self) -> Amount:
        return Amount(**{name: getattr(self, name) for name in self.__slots__})


def _sum(calls: Iterable[Booked]) -> Amount:
    tally = _Tally()
    for call in calls:
        tally.add(call)
    return tally.amount()


def _amount_of(usage: Usage | None, nano_usd: int | None) -> Amount:
    return Amount(
        calls=1,
        input_tokens=0 if usage is None else usage.input_tokens,
        output_tokens=0 if usage is None else usage.output_tokens,
        nano_usd=nano_usd or 0,
        unpriced=int(nano_usd is None),
        unmetered=int(usage is None),
    )


def _recommended(scenarios: Sequence[ScenarioFigures]) -> str | None:
    """Return the scenario of the shortest TTL that saves nearly as much as the longest.

    By money where any is known, else by calls: an answer that is given out longer than it must is a risk that
    buys nothing.
    """
    by_money = any(one.avoided.nano_usd > 0 for one in scenarios)
    worth = {one.name: one.avoided.nano_usd if by_money else one.avoided.calls for one in scenarios}
    most = max(worth.values())
    return next((name for name in worth if most > 0 and worth[name] >= _ENOUGH * most), None)
