"""`CachePolicy`: what may be stored, for how long, and what may be served after that."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Self

from llmcache_plugins.errors import ConfigError
from llmcache_plugins.normalize import Normalizers

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmcache_plugins.normalize import Normalizer

__all__ = ["LONGEST_TTL", "CachePolicy", "check_ttl", "effective_ttl"]

LONGEST_TTL = 10 * 365 * 24 * 3600.0
"""Ten years in seconds. What is longer was meant in milliseconds, or is not a cache."""

DEFAULT_TEMPERATURE = 1.0
"""That of a request that names none: the default of OpenAI's, Anthropic's and Google's interfaces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePolicy:
    """How answers are kept. Pure: it decides, and does nothing.

    Raises `ConfigError`, which names the field and what it takes, for values that cannot work. A hit never
    makes an answer live longer.
    """

    ttl: float = 3600.0
    """Seconds for which an answer is fresh; 0 means "do not store": such calls still read, but never lead or
    join a flight."""
    jitter: float = 0.0
    """The fraction of the TTL, from 0 to 1, by which an entry may be shortened at random, so that entries
    written together do not expire together."""
    stale_while_revalidate: float = 0.0
    """Seconds after its TTL for which callers get the old answer at once, while exactly one call, in whatever
    process, brings a new one (RFC 5861, section 3)."""
    stale_if_error: float = 0.0
    """Seconds after its TTL for which the old answer is given instead of an error of the provider that may
    pass: 429, 5xx, time-outs, lost connections (RFC 5861, section 4). Not where a framework calls the
    provider itself: it raises."""
    refresh_early: float = 0.0
    """How eagerly the answer of a busy key is replaced before its TTL ends, while everybody still hits: beta
    of XFetch (Vattani, Chierichetti, Lowenstein, "Optimal Probabilistic Cache Stampede Prevention", VLDB
    2015). 0 never, 1 is theirs, more is earlier. Each hit refreshes with the probability exp(-left / (beta x
    seconds the provider took)): at 1 mostly within the last few call durations."""
    max_entry_bytes: int | None = None
    """A larger answer is returned, but not stored; None leaves it to the cache's own limit."""
    max_temperature: float | None = None
    """Requests for a higher temperature are not cached at all; one that names none counts as 1.0."""
    cacheable: Callable[[Any, Any], bool] | None = None
    """`cacheable(request, response)`: whether an answer may be stored. Gets the request as the face has it
    and a copy of the answer; what it raises counts as no. Called on the event loop, once for each answer."""
    normalizers: Sequence[Normalizer] | None = None
    """What is stripped from prompts before they are compared, instead of the cache's own normalizers: names
    of built-in rules, compiled expressions and functions, in their order."""
    allow_truncated: bool = False
    """Whether an answer that met its token limit is stored. Asked again, it would be cut off again."""
    semantic: bool | None = None
    """Whether an equivalent question's answer will do; None means: if the cache has a semantic layer. True
    without one is exact match, and a log line says so."""
    coalesce: bool = True
    """Whether identical calls at one time share one provider call."""

    def __post_init__(self) -> None:
        check_ttl(self.ttl)
        for name in ("stale_while_revalidate", "stale_if_error"):
            _check_number(
                name, getattr(self, name), most=LONGEST_TTL, unit="in seconds, from 0 (never) to ten years"
            )
        _check_number("jitter", self.jitter, most=1.0, unit="a fraction from 0 to 1")
        _check_number(
            "refresh_early", self.refresh_early, most=1000.0, unit="a factor from 0 (never) to 1000"
        )
        if self.max_temperature is not None:
            _check_number("max_temperature", self.max_temperature, most=math.inf, unit="a temperature from 0")
        if self.max_entry_bytes is not None:
            _check_bytes("max_entry_bytes", self.max_entry_bytes)
        if self.normalizers is not None:
            object.__setattr__(self, "normalizers", _checked(self.normalizers))
        if self.cacheable is not None and not callable(self.cacheable):
            raise ConfigError(
                f"cacheable is a function (request, response) -> bool, not a {type(self.cacheable).__name__}"
            )
        for name in ("allow_truncated", "coalesce"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} is True or False, not {getattr(self, name)!r}")
        if self.semantic is not None and not isinstance(self.semantic, bool):
            raise ConfigError(f"semantic is True, False or None, not {self.semantic!r}")

    @classmethod
    def scenario(cls, name: str) -> Self:
        """Return one of the named policies: "static_faq", "chat", "realtime" or "batch".

        - `static_faq`: exact match, 7 days, then a day of stale answers while one call refreshes each.
          Deterministic answers, high hit rate: nobody waits for a text that rarely changes.
        - `chat`: semantic, 1 hour. People ask one thing in many words; moderate savings, since each exact
          miss costs an embedding, and a conversation goes stale soon. Exact match until a semantic layer is
          configured, which a log line says.
        - `realtime`: 15 s, nothing stale, coalescing on. Accuracy first: hardly any savings from hits, but a
          burst of identical questions is still one call.
        - `batch`: exact match, 30 days; warm it up front. Predictable inputs: maximum savings.

        Raises `ConfigError` for any other name.
        """
        fields = _SCENARIOS.get(name)
        if fields is None:
            raise ConfigError(f"a scenario is one of {', '.join(_SCENARIOS)}, not {name!r}")
        return cls(**fields)

    @property
    def chain(self) -> Normalizers | None:
        """The policy's own normalizers; None leaves them to the cache."""
        return None if self.normalizers is None else _chain(tuple(self.normalizers))

    @property
    def stale_for(self) -> float:
        """Seconds for which an answer is kept after its TTL."""
        return max(self.stale_while_revalidate, self.stale_if_error)

    def allows_temperature(self, temperature: Any) -> bool:
        """Say whether answers to requests of this temperature are cached; None is one that names none."""
        if self.max_temperature is None:
            return True
        asked = DEFAULT_TEMPERATURE if temperature is None else temperature
        # What is no number is the provider's to refuse: its answers are not stored.
        return isinstance(asked, int | float) and asked <= self.max_temperature


_DAY = 86400.0
_SCENARIOS: dict[str, dict[str, Any]] = {
    "static_faq": {"ttl": 7 * _DAY, "stale_while_revalidate": _DAY, "semantic": False},
    "chat": {"ttl": 3600.0, "semantic": True},
    "realtime": {"ttl": 15.0, "semantic": False},
    "batch": {"ttl": 30 * _DAY, "semantic": False},
}


@lru_cache(maxsize=256)
def _chain(rules: tuple[Normalizer, ...]) -> Normalizers:
    return Normalizers(rules)


def _checked(rules: Sequence[Normalizer]) -> tuple[Normalizer, ...]:
    if isinstance(rules, str) or not isinstance(rules, Sequence):
        raise ConfigError("normalizers is a list, such as ['uuid', 'timestamp']")
    _chain(tuple(rules))
    return tuple(rules)


def check_ttl(ttl: float, *, name: str = "ttl") -> float:
    """Return `ttl` or raise `ConfigError` for what cannot be a TTL in seconds."""
    _check_number(name, ttl, most=LONGEST_TTL, unit="in seconds, from 0 (do not store) to ten years")
    return float(ttl)


def effective_ttl(policy: CachePolicy, override: float | None, *, rng: random.Random | None = None) -> float:
    """Return the TTL of one call in seconds: its own, else the policy's. 0 stays 0."""
    if override is not None:
        return check_ttl(override)
    shortened = policy.jitter * (rng or random).random() if policy.jitter else 0.0
    return policy.ttl * (1.0 - shortened)


def _check_number(name: str, value: object, *, most: float, unit: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise ConfigError(f"{name} is {unit}, not {value!r}")


def _check_bytes(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise ConfigError(f"{name} is a number of bytes, from 1, not {value!r}")
