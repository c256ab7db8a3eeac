"""The file of labelled pairs, line by line. What cannot be read is named by its line, never quoted."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from llmcache_plugins.cli.support import CannotRun

__all__ = ["BadLine", "Pair", "opened", "read_pairs"]

_LABELS = ("same", "ok")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two questions, and whether one answer serves both."""

    a: str
    b: str
    same: bool


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is no labelled pair; `reason` completes "line 7: "."""

    line: int
    reason: str


@contextmanager
def opened(file: str) -> Iterator[TextIO]:
    """Open a file of lines; `-` is stdin."""
    where = sys.stdin.fileno() if file == "-" else Path(file)
    try:
        # Lines end at "\n" alone: U+2028 may stand in a JSON string as it is. Bytes that are no UTF-8 are a
        # bad line's, not the file's.
        with open(
            where, encoding="utf-8", errors="surrogateescape", newline="\n", closefd=file != "-"
        ) as lines:
            yield lines
    except OSError as error:
        raise CannotRun(f"{file}: {error.strerror or error}; name a file of labelled pairs") from error


def read_pairs(lines: TextIO) -> Iterator[Pair | BadLine]:
    """Yield what each line holds; empty lines count for nothing."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            read = _read(line)
            yield BadLine(number, read) if isinstance(read, str) else read


def _read(line: str) -> Pair | str:
    try:
        line.encode()
        said = json.loads(line)
    except UnicodeEncodeError:
        return "not UTF-8 text"
    except json.JSONDecodeError as error:
        # Not the error's own words: they may quote the line.
        return f"not JSON (column {error.colno})"
    except (ValueError, RecursionError):
        return "not JSON"
    if not isinstance(said, dict):
        return "not an object"
    for name in ("a", "b"):
        if not isinstance(said.get(name), str) or not said[name].strip():
            return f"its {name!r} is no text"
    label = next((said[name] for name in _LABELS if name in said), None)
    if not isinstance(label, bool):
        return "neither 'same' nor 'ok' is true or false"
    return Pair(said["a"], said["b"], label)
