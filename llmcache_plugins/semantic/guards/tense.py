"""When a text says it happens: before now, after now, or neither."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_FUTURE: Final = frozenset(("will", "shall"))
_PAST: Final = frozenset("was were did had been".split())
_NOW: Final = frozenset("is are am be get".split())


def tense(words: Sequence[str], present: frozenset[str]) -> str:
    """Return "past", "future" or ""."""
    if not _FUTURE.isdisjoint(present):
        return "future"
    if not _PAST.isdisjoint(present):
        return "past"
    if "used" in present and _NOW.isdisjoint(present):
        place = words.index("used")
        if place and words[place + 1 : place + 2] == ["to"]:
            return "past"
    return ""
