"""A log as lines of bytes: a file or stdin, plain or compressed, in bounded memory."""

from __future__ import annotations

import gzip
import io
import os
import sys
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from llmcache_plugins.cli.support import CannotRun
from llmcache_plugins.estimate.logs import LONGEST_LINE

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Log", "opened"]

_GZIP = b"\x1f\x8b"
_MARK = b"\xef\xbb\xbf"


class Log:
    """The lines of a log, and how far it has been read."""

    def __init__(self, raw: io.BufferedReader, *, name: str) -> None:
        self._raw = raw
        self._name = name
        is_compressed = raw.peek(len(_GZIP)).startswith(_GZIP)
        self._stream: gzip.GzipFile | io.BufferedReader = gzip.GzipFile(fileobj=raw) if is_compressed else raw

    @property
    def size(self) -> int | None:
        """Bytes of the file; None of what is no file."""
        return os.fstat(self._raw.fileno()).st_size if self._raw.seekable() else None

    @property
    def position(self) -> int:
        """Bytes that have been read of it."""
        return self._raw.tell() if self._raw.seekable() else 0

    def lines(self) -> Iterator[bytes]:
        """Yield the lines; of one that is too long its beginning, which is too long as well.

        Raises `CannotRun` where it cannot be read on.
        """
        number = 0
        try:
            while line := self._stream.readline(LONGEST_LINE):
                number += 1
                yield line.removeprefix(_MARK) if number == 1 else line
                while len(line) == LONGEST_LINE and not line.endswith(b"\n"):
                    line = self._stream.readline(LONGEST_LINE)
        except (OSError, EOFError, zlib.error) as error:
            reason = getattr(error, "strerror", None) or "its compressed data are damaged, or end too early"
            raise CannotRun(f"{self._name}, after line {number}: {reason}") from error


@contextmanager
def opened(file: str) -> Iterator[Log]:
    """Open a log; `-` is stdin. Raises `CannotRun`."""
    try:
        where = sys.stdin.fileno() if file == "-" else Path(file)
        with open(where, "rb", closefd=file != "-") as raw:
            yield Log(raw, name=file)
    except (OSError, io.UnsupportedOperation) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CannotRun(f"{file}: {reason}; name a log, one call a line") from error
