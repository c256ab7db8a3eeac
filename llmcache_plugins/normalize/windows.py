"""Replacing what a pattern finds, however long the text, without one long call of `re`.

`re` holds the interpreter's lock for as long as one of its calls lasts, so a long text is searched a window
at a time: other threads, the event loop's among them, have their turn in between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import re
    from collections.abc import Callable

    Replacement = str | Callable[[re.Match[str]], str]

__all__ = ["WINDOW", "replaced"]

WINDOW = 16 * 1024
"""Characters that one call of `re` goes through: well below a millisecond for every built-in rule."""


def replaced(
    pattern: re.Pattern[str], replacement: Replacement, text: str, *, longest: int
) -> tuple[str, int]:
    """Return the text with every match replaced, and how many there were.

    `longest` is how many characters a match and what it looks at behind itself may have: of matches that
    begin in a window, none then depends on where the window ends. Matches are not empty. A replacement that
    is a string is put as it is, and has no backslash.
    """
    if len(text) <= WINDOW:
        return pattern.subn(replacement, text)
    pieces: list[str] = []
    kept, start = 0, 0
    while start < len(text):
        edge = start + WINDOW
        found = pattern.search(text, start, edge + longest)
        if found is None or found.start() >= edge:
            start = edge
            continue
        pieces += (text[kept : found.start()], _of(found, replacement))
        kept = start = found.end()
    pieces.append(text[kept:])
    return "".join(pieces), len(pieces) // 2


def _of(found: re.Match[str], replacement: Replacement) -> str:
    return replacement if isinstance(replacement, str) else replacement(found)
