"""What an error of the provider means for those who wait for the same answer. Pure.

    status                            who waited for it               record
    400, 404, 413, 422, ... (< 500)   gets the error                  a few seconds
    429                               gets the error, newcomers too   Retry-After, at most 30 s
    401, 402, 403                     asks with its own credentials   until two have failed
    5xx, 408, 409, 425, none          elects one new leader           until two have failed

The status is that of `status_code`, `status` or `response.status_code`. A cancellation leaves nothing. What
an error says of itself is read with care: its attributes may be missing, of any type, or raise.
"""

from __future__ import annotations

import math
import re
import time
from contextlib import suppress
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar

from llmcache_plugins.models import FailureReport, Record, RecordKind

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["is_own", "may_pass", "record_of", "report_of"]

LONGEST_RETRY_AFTER = 30.0
"""Seconds for which a rate limit is believed; a provider that asks for more is tried again then."""

_OWN = frozenset({401, 402, 403})
_PASSING = frozenset({408, 409, 425})
_TOO_MANY = 429
_OUT_OF_REACH = re.compile(
    r"Timeout|Connect(ion)?(Error)?$|ReadError|RemoteProtocolError|SharedProviderError|WaitTimeout"
)
"""By name: of the classes of HTTP clients and SDKs, which are not imported here."""
_CAUSES = 4
"""How far back an error about credentials is looked for."""

_T = TypeVar("_T")


def record_of(error: BaseException, *, shared_for: float, elected_for: float) -> Record | None:
    """Return what to leave to those who wait; times are seconds. Never raises, as `report_of`."""
    if not isinstance(error, Exception):
        return None
    report = report_of(error)
    kind = _kind_of(error, report.status)
    if kind is RecordKind.RATE_LIMITED:
        asked = report.retry_after if report.retry_after is not None else shared_for
        return Record(kind=kind, report=report, seconds=min(max(asked, 0.001), LONGEST_RETRY_AFTER))
    seconds = shared_for if kind is RecordKind.REFUSED else elected_for
    return Record(kind=kind, report=report, seconds=seconds)


def is_own(error: Exception) -> bool:
    """Say whether an error concerns only the caller whose credentials were used."""
    return _kind_of(error, _status_of(error)) is RecordKind.OWN


def may_pass(error: Exception) -> bool:
    """Say whether the provider, asked later, may answer: it was busy, down or out of reach.

    Without a status only what is a time-out or a lost connection by its class, or its cause's: what else is
    raised may be the application's own mistake.
    """
    status = _status_of(error)
    if status is None:
        return _is_out_of_reach(error)
    return _kind_of(error, status) in (RecordKind.RATE_LIMITED, RecordKind.PASSING)


def _is_out_of_reach(error: BaseException) -> bool:
    with suppress(Exception):
        for _ in range(_CAUSES):
            if isinstance(error, TimeoutError | OSError) or _OUT_OF_REACH.search(type(error).__name__):
                return True
            cause = error.__cause__ or error.__context__
            if cause is None:
                break
            error = cause
    return False


def report_of(error: Exception) -> FailureReport:
    """Return what may be told of an error. Never raises, whatever the attributes of the error."""
    return FailureReport(
        status=_status_of(error),
        retry_after=_retry_after(error),
        error_class=_first(lambda: _identifier(type(error).__name__)) or "",
    )


def _kind_of(error: Exception, status: int | None) -> RecordKind:
    if status == _TOO_MANY:
        return RecordKind.RATE_LIMITED
    if status in _OWN:
        return RecordKind.OWN
    if status is None or status in _PASSING or status >= 500:
        return RecordKind.PASSING
    return RecordKind.OWN if _comes_from_own(error) else RecordKind.REFUSED


def _comes_from_own(error: BaseException) -> bool:
    """Say whether an error was made from one about credentials: LiteLLM 1.75 turns many a 401 into a 400."""
    with suppress(Exception):
        for _ in range(_CAUSES):
            cause = error.__context__ if error.__cause__ is None else error.__cause__
            if cause is None:
                break
            if _status_of(cause) in _OWN:
                return True
            error = cause
    return False


# --- What errors say of themselves -----------------------------------------------------------------------


def _first(*readers: Callable[[], _T | None]) -> _T | None:
    """Return the first value that can be read; whatever is raised on the way means that there is none."""
    for read in readers:
        with suppress(Exception):
            value = read()
            if value is not None:
                return value
    return None


def _status_of(error: Any) -> int | None:
    return _first(
        lambda: _status(error.status_code),
        lambda: _status(error.status),
        lambda: _status(error.response.status_code),
    )


def _retry_after(error: Any) -> float | None:
    return _first(
        lambda: _seconds(error.retry_after),
        lambda: _asked_in(error.response.headers),
        lambda: _asked_in(error.headers),
        # LiteLLM 1.75 and, for the Responses API, later ones too give the provider's headers only here.
        lambda: _asked_in(error.litellm_response_headers),
    )


def _asked_in(headers: Any) -> float | None:
    """Return the seconds a provider asked for: RFC 9110 section 10.2.3, or OpenAI's `retry-after-ms`."""
    said = {str(name).lower(): value for name, value in headers.items()}
    return _first(
        lambda: _seconds(said["retry-after-ms"]) / 1000,
        lambda: _seconds(said["retry-after"]),
        lambda: _seconds_until(said["retry-after"]),
    )


def _status(value: Any) -> int | None:
    is_one = isinstance(value, int) and not isinstance(value, bool) and 400 <= value <= 599
    return int(value) if is_one else None


def _identifier(name: str) -> str | None:
    return name if re.fullmatch(r"\w{1,64}", name, re.ASCII) else None


def _seconds(value: Any) -> float:
    """Return a number of seconds. Raises for what is none."""
    number = float(_text(value))
    if not 0 <= number < math.inf:
        raise ValueError("no number of seconds")
    return number


def _seconds_until(date: Any) -> float:
    when = parsedate_to_datetime(_text(date))
    # HTTP knows no other time zone; without one, Python would take the date for local time.
    when = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
    return max(0.0, when.timestamp() - time.time())


def _text(value: Any) -> str:
    """Return the text of a header, of the first one where a client keeps several."""
    text = str(value[0] if isinstance(value, list | tuple) else value)
    if len(text) > 100:
        raise ValueError("too long for a number or a date")
    return text
