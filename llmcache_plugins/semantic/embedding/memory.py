"""The vectors of the texts that were asked for last. Knows no embedder."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmcache_plugins.semantic.embedders.rows import Rows

__all__ = ["Memory"]


class Memory:
    """At most `size` vectors, by text. Usable from any thread, and after a fork: there is no lock to hold."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._vectors: OrderedDict[str, Rows] = OrderedDict()

    def get(self, text: str) -> Rows | None:
        """Return the vector of a text, if it is remembered."""
        vector = self._vectors.get(text)
        if vector is not None:
            with suppress(KeyError):  # another thread has just forgotten it
                self._vectors.move_to_end(text)
        return vector

    def put(self, text: str, vector: Rows) -> None:
        """Remember a vector, and forget the one that was asked for longest ago."""
        self._vectors[text] = vector
        while len(self._vectors) > self._size:
            with suppress(KeyError):
                self._vectors.popitem(last=False)
