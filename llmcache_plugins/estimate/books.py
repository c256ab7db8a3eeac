"""The calls of a log as columns of numbers: some seventy bytes for each, whatever the prompts were.

Owns the layout. A digest is 16 of the 32 bytes of a key: among a million calls two different ones have one
digest with a probability of 1e-27.
"""

from __future__ import annotations

from array import array
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["DIGEST_BYTES", "Booked", "Books"]

DIGEST_BYTES = 16
_NOT_KNOWN = -1
_MOST = 2**31 - 1
_STORABLE, _METERED = 1, 2


class Booked(NamedTuple):
    """One call. Tuples of equal times sort by what they are, not by where they stood in the log."""

    at: float
    """When it was asked; unix seconds, or the order in the log."""
    seconds: float
    is_storable: bool
    input_tokens: int
    output_tokens: int
    is_metered: bool
    nano_usd: int
    """-1 if it is not known."""

    @property
    def end(self) -> float:
        """When it was answered."""
        return self.at + self.seconds


class Books:
    """Takes calls in, and gives them out by key and time."""

    def __init__(self) -> None:
        self._at = array("d")
        self._seconds = array("d")
        self._input = array("i")
        self._output = array("i")
        self._nano_usd = array("q")
        self._flags = array("B")

    def __len__(self) -> int:
        return len(self._at)

    def add(
        self,
        *,
        at: float,
        seconds: float,
        is_storable: bool,
        tokens: tuple[int, int] | None,
        nano_usd: int | None,
    ) -> None:
        """Take a call in, after all others."""
        spent, produced = tokens or (0, 0)
        self._at.append(at)
        self._seconds.append(seconds)
        self._input.append(min(spent, _MOST))
        self._output.append(min(produced, _MOST))
        self._nano_usd.append(_NOT_KNOWN if nano_usd is None else nano_usd)
        self._flags.append((_STORABLE if is_storable else 0) | (_METERED if tokens is not None else 0))

    def call(self, place: int) -> Booked:
        """Return the call at a place."""
        flags = self._flags[place]
        return Booked(
            self._at[place],
            self._seconds[place],
            bool(flags & _STORABLE),
            self._input[place],
            self._output[place],
            bool(flags & _METERED),
            self._nano_usd[place],
        )

    def by_key(
        self, digests: bytes | bytearray, *, on_step: Callable[[], None] = lambda: None
    ) -> Iterator[list[Booked]]:
        """Yield the calls of each key, in the order of time. `digests` are those of all calls, end to end.

        A key that was called once is not yielded: nothing can be avoided there. `on_step` is called once in
        a while.
        """
        order = self._sorted(digests)
        for number, (_, group) in enumerate(groupby(order, key=itemgetter(slice(DIGEST_BYTES)))):
            if not number % 10_000:
                on_step()
            places = [int.from_bytes(row[-4:], "big") for row in group]
            if len(places) > 1:
                # By time, and of one time by what they are: whichever came first in the file.
                yield sorted(map(self.call, places))

    def _sorted(self, digests: bytes | bytearray) -> Sequence[bytes]:
        rows = [
            bytes(digests[place * DIGEST_BYTES : (place + 1) * DIGEST_BYTES]) + place.to_bytes(4, "big")
            for place in range(len(self))
        ]
        rows.sort()
        return rows
