"""When to stop asking a server that does not answer. Pure: a state and a clock, no I/O.

Opens after five hard failures in a row (refused, reset, loading), or after timeouts in a row that span
half a second: a stalled event loop makes all calls under way time out together, at one moment, and says
nothing of the server. Closes when the owner's background PING is answered; no request is ever the probe.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Breaker"]

HARD_FAILURES = 5
TIMEOUT_SPAN = 0.5
"""Seconds."""


class Breaker:
    """The breaker of one server, as one event loop sees it."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.is_open = False
        self._hard = 0
        self._first_timeout: float | None = None

    def succeeded(self) -> None:
        """Note an answer: whatever went wrong before is over. Does not close an open breaker."""
        self._hard = 0
        self._first_timeout = None

    def failed(self, *, timeout: bool) -> bool:
        """Note a failure of the server; return whether it opened the breaker just now."""
        if self.is_open:
            return False
        if timeout:
            self.is_open = self._timeouts_span_long_enough()
        else:
            self._hard += 1
            self.is_open = self._hard >= HARD_FAILURES
        return self.is_open

    def trip(self) -> bool:
        """Open at once, for what asking again will not mend; return whether it was closed."""
        was_closed, self.is_open = not self.is_open, True
        return was_closed

    def close(self) -> bool:
        """Note that the server is back; return whether the breaker was open."""
        was_open, self.is_open = self.is_open, False
        self.succeeded()
        return was_open

    def _timeouts_span_long_enough(self) -> bool:
        now = self._clock()
        if self._first_timeout is None:
            self._first_timeout = now
        return now - self._first_timeout >= TIMEOUT_SPAN
