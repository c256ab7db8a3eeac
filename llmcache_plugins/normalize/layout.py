"""The rule `whitespace`: blanks that nobody reads, where line breaks and indentation keep their meaning."""

from __future__ import annotations

import re

from llmcache_plugins.normalize.windows import WINDOW

__all__ = ["tidied"]

_INDENTATION = re.compile(r"[ \t]*")
_RUN = re.compile(r"[ \t]{2,}|\t")
_ENDS = " \t\r\n"


def tidied(text: str) -> tuple[str, int]:
    """Collapse runs of blanks and tabs inside lines, trim the ends of lines, and of the text.

    Indentation stays, as do line breaks and empty lines inside: they mean something in code, in Markdown and
    YAML. A text of one line has no indentation. Blanks inside the string literals of code, and the two blanks
    at the end of a line that are a line break in Markdown, count for nothing. Only the blank and the tab are
    blanks: a no-break space is a character. Returns the text and 1 if it was not tidy, else 0.
    """
    lines = text.rstrip(_ENDS).split("\n")
    first = next((place for place, line in enumerate(lines) if line.strip(_ENDS)), 0)
    lines = lines[first:]
    if len(lines) == 1:
        lines = [lines[0].strip(_ENDS)]
    tidy = "\n".join(map(_tidy_line, lines))
    return tidy, int(tidy != text)


def _tidy_line(line: str) -> str:
    written = line.rstrip(_ENDS)
    if "  " not in written and "\t" not in written:
        return written
    found = _INDENTATION.match(written)
    start = found.end() if found is not None else 0
    return written[:start] + _collapsed(written[start:])


def _collapsed(text: str) -> str:
    """Collapse the runs of a text a window at a time, so that no call takes long."""
    if len(text) <= WINDOW:
        return _RUN.sub(" ", text)
    pieces: list[str] = []
    for start in range(0, len(text), WINDOW):
        piece = _RUN.sub(" ", text[start : start + WINDOW])
        # A run that the window has cut is one run all the same.
        if start and text[start - 1] in " \t":
            piece = piece.removeprefix(" ")
        pieces.append(piece)
    return "".join(pieces)
