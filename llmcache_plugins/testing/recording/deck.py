"""The answers of one test, and whose turn it is.

A deck is a cassette in memory: what was read, what was recorded since, and what was used of it. Usable from
any thread: frameworks look up and write in threads of their own.
"""

from __future__ import annotations

import enum
from contextlib import contextmanager
from threading import Condition
from typing import TYPE_CHECKING

from llmcache_plugins.testing.recording import cassette

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from llmcache_plugins.keys import CacheKey
    from llmcache_plugins.testing.recording.cassette import Place, Recorded, Tapes

__all__ = ["Deck", "Decks", "Way"]


_MOST_KEPT = 64
"""Decks that answers may still be brought to, once their tests have ended."""


class Way(enum.StrEnum):
    """What a session does with calls."""

    RECORD = "record"
    """What is recorded is served; what is not is asked of the provider, and recorded."""
    REPLAY = "replay"
    """What is recorded is served; what is not is asked of the provider, and kept for this test only."""
    STRICT = "strict"
    """What is recorded is served; what is not raises `CacheMiss`, and no provider is called."""


class Deck:
    """The answers of one cassette. Reading the file raises `CassetteError`.

    `is_shared` says that other processes write the same file; `rewrites` that what is in it does not count.
    """

    def __init__(
        self,
        path: Path,
        *,
        shown: str,
        number: int = 0,
        is_shared: bool = False,
        rewrites: bool = False,
    ) -> None:
        self.path = path
        self.number = number
        self.shown = shown
        """The path as messages call it."""
        self.missed: list[str] = []
        """What was asked for and is not there, described."""
        self._lock = Condition()
        self._sent: set[str] = set()
        self._is_shared = is_shared
        self._rewrites = rewrites
        self._there = cassette.read(path)
        self._tapes: Tapes = {} if rewrites else dict(self._there)
        self._used: set[Place] = set()
        self._is_dirty = False

    def find(self, key: CacheKey, *, counts: bool = True) -> Recorded | None:
        """Return the answer of a key. `counts` says whether that is a use of it."""
        place = (key.namespace, key.digest)
        with self._lock:
            found = self._tapes.get(place)
            if found is not None and counts:
                self._used.add(place)
        return found

    def add(self, key: CacheKey, recorded: Recorded) -> None:
        """Keep an answer, unless there is one: each request has one answer in a test."""
        place = (key.namespace, key.digest)
        with self._lock:
            self._used.add(place)
            if place not in self._tapes:
                self._tapes[place] = recorded
                self._is_dirty = True

    def send(self, token: str) -> None:
        """Note that somebody was sent for an answer."""
        with self._lock:
            self._sent.add(token)

    def returned(self, token: str) -> None:
        """Note that one who was sent has brought the answer, or brings none."""
        with self._lock:
            self._sent.discard(token)
            self._lock.notify_all()

    def wait(self, seconds: float) -> None:
        """Wait until all who were sent are back; frameworks store an answer when their caller has it."""
        with self._lock:
            self._lock.wait_for(lambda: not self._sent, timeout=seconds)

    def of(self, namespace: str) -> Tapes:
        """Return the answers of a namespace."""
        with self._lock:
            return {place: one for place, one in self._tapes.items() if place[0] == namespace}

    def unused(self) -> list[str]:
        """Describe the answers that nothing has asked for."""
        with self._lock:
            left = sorted(self._tapes.keys() - self._used)
            return [_described(place, self._tapes[place]) for place in left]

    def save(self, *, passed: bool = True) -> None:
        """Write what was recorded. Raises `CassetteError`.

        When a cassette is rewritten, what the test did not ask for goes, if it has `passed`: one that failed
        may not have come to it.
        """
        with self._lock:
            tapes, there = dict(self._tapes), self._there
            is_dirty, self._is_dirty = self._is_dirty, False
        if self._is_shared:
            if is_dirty:
                cassette.merge(self.path, tapes, replace=self._rewrites)
            return
        if self._rewrites and not passed:
            tapes = {**there, **tapes}
        if (is_dirty or self._rewrites) and tapes != there:
            cassette.write(self.path, tapes)
            self._there = tapes

    def save_late(self) -> None:
        """Write what was recorded since the last time. Raises `CassetteError`."""
        if self._is_dirty:
            self.save(passed=False)


class Decks:
    """All decks of a session, and the present one. `way` is what the session does."""

    def __init__(self, way: Way, *, rewrites: bool = False) -> None:
        self.way = way
        self._rewrites = rewrites
        self._present: Deck | None = None
        self._opened = 0
        self._kept: dict[int, Deck] = {}

    @property
    def present(self) -> Deck | None:
        """The deck of the test that runs, or of the fixture that is being set up for several; else None."""
        return self._present

    def open(self, path: Path, *, shown: str, is_shared: bool = False) -> Deck:
        """Return a new deck. Raises `CassetteError`."""
        self._opened += 1
        deck = Deck(path, shown=shown, number=self._opened, is_shared=is_shared, rewrites=self._rewrites)
        self._kept[deck.number] = deck
        if len(self._kept) > _MOST_KEPT:
            oldest = min(number for number, one in self._kept.items() if one is not self._present)
            self._save_late(self._kept.pop(oldest))
        return deck

    @contextmanager
    def turned_to(self, deck: Deck | None) -> Iterator[None]:
        """Let a deck be the present one."""
        before, self._present = self._present, deck
        try:
            yield
        finally:
            self._present = before

    def turn_to(self, deck: Deck | None) -> None:
        """Let a deck be the present one until further notice."""
        self._present = deck

    def numbered(self, number: int) -> Deck | None:
        """Return the deck of a number: who was sent while it was present brings the answer there."""
        return self._kept.get(number)

    def save(self, deck: Deck, *, passed: bool = True) -> None:
        """Write what was recorded, if this session records. Raises `CassetteError`."""
        if self.way is Way.RECORD:
            deck.save(passed=passed)

    def close(self) -> None:
        """Write what came after its test had ended. Raises `CassetteError`."""
        for deck in self._kept.values():
            self._save_late(deck)

    def _save_late(self, deck: Deck) -> None:
        if self.way is Way.RECORD:
            deck.save_late()


def _described(place: Place, recorded: Recorded) -> str:
    namespace, digest = place
    model = recorded.provenance.model or recorded.answer.facts.model or recorded.answer.kind
    return f"{model}, key {digest[:16]}, namespace {namespace!r}"
