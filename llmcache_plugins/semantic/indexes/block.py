"""The vectors of one scope side by side in memory: a search is one product of a matrix and a vector."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from llmcache_plugins.semantic.indexes.arguments import PRECISION, as_similarity
from llmcache_plugins.semantic.indexes.seam import Neighbour

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Block"]

_SHRINK_BELOW = 0.25
"""The part of the room that is in use when half of it is given back."""


class Block:
    """Rows of unit length, in no order. Not for several threads at once."""

    __slots__ = ("_canonicals", "_digests", "_matrix", "_rows", "_same", "_texts", "version")

    def __init__(self, dim: int) -> None:
        self._matrix: NDArray[np.float32] = np.empty((1, dim), dtype=np.float32)
        self._rows: dict[str, int] = {}
        self._digests: list[str] = []
        self._texts: list[str] = []
        self._canonicals: list[str] = []
        self._same: dict[str, tuple[str, ...]] = {}
        self.version = 0
        """Changes when rows that were there change their place or content; not when one is added."""

    def __len__(self) -> int:
        return len(self._digests)

    @property
    def numbers(self) -> int:
        """How many numbers a search multiplies."""
        return int(len(self) * self._matrix.shape[1])

    @property
    def room(self) -> int:
        """Rows there is memory for."""
        return int(self._matrix.shape[0])

    def put(self, digest: str, *, vector: NDArray[np.float32], text: str, canonical: str) -> None:
        """Add a row, or replace the one of this digest."""
        row = self._rows.get(digest)
        if row is None:
            row = self._new_row(digest)
            self._texts.append(text)
            self._canonicals.append(canonical)
        elif (
            self._texts[row] == text
            and self._canonicals[row] == canonical
            and np.array_equal(self._matrix[row], vector)
        ):
            return
        else:
            self.version += 1
            self._unlink(self._canonicals[row], digest)
            self._texts[row], self._canonicals[row] = text, canonical
        self._matrix[row] = vector
        self._same[canonical] = (*self._same.get(canonical, ()), digest)

    def remove(self, digest: str) -> None:
        """Take a row out; the last one takes its place."""
        row = self._rows.pop(digest)
        self._unlink(self._canonicals[row], digest)
        last = len(self) - 1
        self.version += 1
        for column in (self._digests, self._texts, self._canonicals):
            column[row] = column[last]
            column.pop()
        if row != last:
            self._matrix[row] = self._matrix[last]
            self._rows[self._digests[row]] = row
        if last < self.room * _SHRINK_BELOW:
            self._resize(max(self.room // 2, 1))

    def same(self, canonical: str) -> Neighbour | None:
        """Return the row with this canonical text that was added last."""
        digests = self._same.get(canonical)
        if not digests:
            return None
        return Neighbour(digest=digests[-1], similarity=1.0, text=self._texts[self._rows[digests[-1]]])

    def rows(self) -> NDArray[np.float32]:
        """Return the rows (n, dim). They are good to read as long as `version` is what it was."""
        return self._matrix[: len(self)]

    @staticmethod
    def similarities(rows: NDArray[np.float32], vector: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the cosine of each row with a vector of unit length.

        In this thread alone: the library behind `@` asks other threads for help, and waits for them while
        they have something else to do. Measured beside a busy server, 10,000 rows: 8 ms instead of 0.8.
        """
        return np.asarray(np.einsum("ij,j->i", rows, vector))

    def best(self, similarities: NDArray[np.float32], *, k: int, at_least: float) -> list[Neighbour]:
        """Return the rows of the `k` highest similarities, the highest first."""
        rows = np.flatnonzero(similarities >= at_least - PRECISION)
        if len(rows) > k:
            rows = rows[np.argpartition(-similarities[rows], k - 1)[:k]]
        found = [
            Neighbour(digest=self._digests[row], similarity=similarity, text=self._texts[row])
            for row in rows.tolist()
            if (similarity := as_similarity(float(similarities[row]))) >= at_least
        ]
        return sorted(found, key=lambda one: (-one.similarity, one.digest))

    # -- inside ----------------------------------------------------------------------------------------

    def _new_row(self, digest: str) -> int:
        row = len(self)
        if row == self.room:
            self._resize(2 * self.room)
        self._rows[digest] = row
        self._digests.append(digest)
        return row

    def _resize(self, room: int) -> None:
        # A new array: who still reads the old one reads what was there.
        grown = np.empty((room, self._matrix.shape[1]), dtype=np.float32)
        kept = min(len(self), room)
        grown[:kept] = self._matrix[:kept]
        self._matrix = grown

    def _unlink(self, canonical: str, digest: str) -> None:
        left = tuple(other for other in self._same[canonical] if other != digest)
        if left:
            self._same[canonical] = left
        else:
            del self._same[canonical]
