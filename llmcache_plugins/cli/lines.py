"""Files with one JSON document a line. What cannot be read is named by its line, never quoted."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmcache_plugins.cli.support import CannotRun

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from importlib.resources.abc import Traversable
    from typing import IO

__all__ = ["BadLine", "documents", "opened"]


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that cannot be used; `reason` completes "line 7: "."""

    line: int
    reason: str


@contextmanager
def opened(file: str | Traversable, *, of: str) -> Iterator[IO[str]]:
    """Open a file for `documents`; `-` is stdin. Raises `CannotRun`, with what it is a file `of`."""
    # Lines end at "\n" alone: U+2028 may stand in a JSON string as it is. Bytes that are no UTF-8 are a bad
    # line's, not the file's.
    if file == "-" and sys.stdin is None:
        raise CannotRun(f"there is no standard input; name a file of {of}")
    how: Any = {"encoding": "utf-8-sig", "errors": "surrogateescape", "newline": "\n"}
    place = Path(file) if isinstance(file, str) else file
    try:
        with (
            open(sys.stdin.fileno(), closefd=False, **how) if file == "-" else place.open("r", **how)
        ) as lines:
            yield lines
    except OSError as error:
        raise CannotRun(f"{file}: {error.strerror or error}; name a file of {of}") from error


def documents(lines: Iterable[str]) -> Iterator[tuple[int, Any] | BadLine]:
    """Yield what each line holds, with its number, from 1; empty lines count for nothing."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            line.encode()
            yield number, json.loads(line)
        except UnicodeEncodeError:
            yield BadLine(number, "not UTF-8 text; save it as UTF-8")
        except json.JSONDecodeError as error:
            # Not the error's own words: they may quote the line.
            yield BadLine(number, f"not JSON (column {error.colno})")
        except (ValueError, RecursionError):
            yield BadLine(number, "not JSON that can be read (too deep, or a number too long)")
