"""What to do about a call that failed: try again, and when; give up the line; or end the run. Pure.

    401, 402, 403, exhausted quota   every line would fail: end the run
    429                              try again; nobody calls until then
    5xx, 408, 409, 425, time-outs    try again
    all else                         the line's own fault

Waits double from one attempt to the next, less up to half by chance; a `Retry-After` is the least of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llmcache_plugins.errors import SharedProviderError
from llmcache_plugins.failures import is_own, may_pass, report_of

__all__ = ["Again", "Failed", "Hopeless", "Verdict", "is_told", "verdict_of"]

_TOO_MANY = 429
_LONGEST_BACKOFF = 60.0
_LONGEST_REST = 900.0
"""Seconds: who asks for more is not waited for."""
_EXHAUSTED = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
"""Codes of a 429 that no waiting helps against."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """Try again after so many seconds; `for_all`: and let no other call begin before."""

    seconds: float
    for_all: bool


@dataclass(frozen=True, slots=True)
class Failed:
    """The line has failed; `is_passing`: not by its own fault."""

    cause: str
    is_passing: bool = False


@dataclass(frozen=True, slots=True)
class Hopeless:
    """Every line would fail like this; `reason` is a sentence."""

    reason: str
    cause: str


Verdict = Again | Failed | Hopeless


def verdict_of(error: Exception, *, attempt: int, attempts: int, backoff: float, chance: float) -> Verdict:
    """Judge the failure of a call after so many attempts, 0 where nothing was sent for it yet.

    `backoff` is the first wait in seconds, `chance` a number from 0 to 1.
    """
    report = report_of(error)
    name = _name_of(report.status, report.error_class)
    if is_own(error):
        return Hopeless(f"the provider does not accept the credentials ({name})", name)
    if report.status == _TOO_MANY and _code_of(error) in _EXHAUSTED:
        return Hopeless(f"the provider's account is exhausted ({name})", name)
    if not may_pass(error):
        return Failed(name)
    asked = report.retry_after or 0.0
    if asked > _LONGEST_REST:
        return Hopeless(f"the provider asks to be left alone for {asked:,.0f} s ({name})", name)
    if attempt >= attempts:
        return Failed(name, is_passing=True)
    is_limit = report.status == _TOO_MANY
    # Limits are mostly by the minute.
    waits = min(backoff * 2 ** (max(attempt - 1, 0) + is_limit), _LONGEST_BACKOFF)
    seconds = asked * (1 + chance / 10) if asked else waits * (1 - chance / 2)
    return Again(seconds=seconds, for_all=is_limit or asked > 0)


def is_told(error: Exception) -> bool:
    """Say whether an error was another caller's: nothing was sent to the provider for this one."""
    return isinstance(error, SharedProviderError) or isinstance(error.__cause__, SharedProviderError)


def _name_of(status: int | None, error_class: str) -> str:
    return f"{status} {error_class}".strip() if status is not None else error_class or "an error"


def _code_of(error: Any) -> object:
    code = getattr(error, "code", None)
    return code if isinstance(code, str) else None
