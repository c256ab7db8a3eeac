"""`LogReader`: the lines of a log to calls, one at a time; what cannot be read is counted and named.

Owns the counting. Opens no file, and says nothing of what a line says.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from llmcache_plugins.estimate.calls import LeftOut, LoggedCall, Unreadable
from llmcache_plugins.estimate.shapes import Shapes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["BadLine", "LogReader"]

_MOST_NAMED = 20
LONGEST_LINE = 32 * 1024 * 1024
"""Bytes; a longer line is no call but, say, a file that is no log."""


class BadLine(NamedTuple):
    """A line that is no call, by its number, from 1."""

    line: int
    reason: str


class LogReader:
    """Reads a log. `columns` are those of `Shapes`."""

    def __init__(self, columns: Mapping[str, str] | None = None) -> None:
        self._shapes = Shapes(columns)
        self._decoder = msgspec.json.Decoder()
        self.lines = 0
        """All lines that are not empty."""
        self.calls = 0
        self.bad = 0
        self.named: list[BadLine] = []
        """The first of the bad ones."""
        self.left_out: Counter[str] = Counter()
        """Lines that count for nothing, by the reason."""

    @property
    def guesses(self) -> Counter[str]:
        """What was guessed, and in how many lines."""
        return self._shapes.guesses

    def read(self, lines: Iterable[bytes]) -> Iterator[LoggedCall]:
        """Yield the calls of a log's lines, in their order."""
        for number, line in enumerate(lines, start=1):
            if not line or line.isspace():
                continue
            self.lines += 1
            try:
                found = self._read(line)
            except Unreadable as error:
                self._name(number, str(error))
                continue
            if isinstance(found, LeftOut):
                self.left_out[found.reason] += 1
            else:
                self.calls += 1
                yield found

    def _read(self, line: bytes) -> LoggedCall | LeftOut:
        if len(line) >= LONGEST_LINE:
            raise Unreadable("too long")
        try:
            document = self._decoder.decode(line)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            # Not the error's own words: they may quote the line.
            raise Unreadable("not JSON") from None
        return self._shapes.read(document, size=len(line))

    def _name(self, number: int, reason: str) -> None:
        self.bad += 1
        if len(self.named) < _MOST_NAMED:
            self.named.append(BadLine(number, reason))
