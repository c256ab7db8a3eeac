"""From a file, or a pipe, to numbered requests. Holds one piece of it at a time, however long it is.

JSON Lines: a line is the body that is sent to the provider, or a prompt as a JSON string. CSV (RFC 4180):
the first row names the columns; `prompt`, and `system` and `model` if they are there, make a request,
others are left alone. What is wrong with a line is said of that line; what a line says is never told.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import stat
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from llmcache_plugins.cli.support import CannotRun
from llmcache_plugins.warming import Line

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping

__all__ = ["Format", "Source", "format_of"]

Format = Literal["jsonl", "csv"]
Text = tuple[int, str | None, str]
"""The number of a line, what it says, or what is wrong with it."""

_PIECE = 256 * 1024
_LONGEST = 16 * 1024 * 1024
"""Bytes of a line."""
_TOO_LONG = f"longer than {_LONGEST // 1024 // 1024} MiB"
_BOM = b"\xef\xbb\xbf"


def format_of(name: str, chosen: str | None) -> Format:
    """Return the format of a file: the chosen one, or that of its name. Raises `CannotRun`."""
    if chosen not in (None, "jsonl", "csv"):
        raise CannotRun(f"--format is jsonl or csv, not {chosen!r}")
    return "csv" if chosen == "csv" or (chosen is None and name.lower().endswith(".csv")) else "jsonl"


class Source:
    """The requests of a file; `-` is stdin. Iterate it once.

    `build` makes a request of what a line says; what it raises as `ValueError` is wrong with the line.
    """

    def __init__(self, name: str, form: Format, *, build: Callable[[Any], Mapping[str, Any]]) -> None:
        self._name = name
        self._form = form
        self._build = build
        self._size: int | None = None
        self._bytes = self._lines = 0

    @property
    def lines(self) -> int | None:
        """How many lines there are, judged by the length of those that were read; None for a pipe."""
        if self._size is None or not self._lines:
            return None
        return max(self._lines, round(self._lines * self._size / self._bytes))

    async def __aiter__(self) -> AsyncGenerator[Line, None]:
        """Yield the lines that are not empty. Raises `CannotRun` for what cannot be read at all."""
        try:
            fd = 0 if self._name == "-" else os.open(self._name, os.O_RDONLY)
        except OSError as error:
            raise CannotRun(f"{self._name}: {error.strerror or error}; name a file of requests") from error
        try:
            status = os.fstat(fd)
            is_file = stat.S_ISREG(status.st_mode)
            self._size = status.st_size if is_file else None
            async with (
                aclosing(_raw_lines(fd, waits=not is_file)) as raw,
                aclosing(self._texts(raw)) as texts,
                aclosing(self._of_csv(texts) if self._form == "csv" else self._of_json(texts)) as lines,
            ):
                async for line in lines:
                    yield line
        except OSError as error:
            raise CannotRun(f"{self._name}: {error.strerror or error}") from error
        finally:
            if fd:
                os.close(fd)

    # -- lines -------------------------------------------------------------------------------------------

    async def _texts(self, lines: AsyncIterator[bytes | None]) -> AsyncGenerator[Text, None]:
        number = 0
        async for raw in lines:
            number += 1
            if raw is None:
                yield number, None, _TOO_LONG
                continue
            self._bytes += len(raw) + 1
            self._lines += 1
            try:
                yield number, raw.removeprefix(_BOM if number == 1 else b"").decode(), ""
            except UnicodeDecodeError:
                yield number, None, "not UTF-8 text"

    async def _of_json(self, texts: AsyncIterator[Text]) -> AsyncGenerator[Line, None]:
        async for number, text, wrong in texts:
            if text is None:
                yield Line(position=number, error=wrong)
            elif text.strip():
                yield self._line(number, partial(_read_json, text))

    async def _of_csv(self, texts: AsyncIterator[Text]) -> AsyncGenerator[Line, None]:
        columns: list[str] = []
        rows = _Rows()
        async for one in texts:
            if (row := rows.add(*one)) is None:
                continue
            number, text, wrong = row
            if text is None:
                yield Line(position=number, error=wrong)
                continue
            cells = _cells(text)
            if not any(cells):
                continue
            if not columns:
                columns = [cell.strip().lower() for cell in cells]
                if "prompt" not in columns:
                    raise CannotRun(f"{self._name}: its first row names no column `prompt`")
                continue
            yield self._line(number, partial(_read_row, dict(zip(columns, cells, strict=False))))
        if (last := rows.end()) is not None:
            yield Line(position=last[0], error=last[2])

    def _line(self, number: int, read: Callable[[], Any]) -> Line:
        try:
            return Line(position=number, query=self._build(read()))
        except ValueError as error:
            return Line(position=number, error=str(error))


async def _raw_lines(fd: int, *, waits: bool) -> AsyncGenerator[bytes | None, None]:
    """Yield lines without their ends; None for one that is too long."""
    rest, is_too_long = b"", False
    while piece := await _piece(fd, waits=waits):
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield None if is_too_long or len(line) > _LONGEST else line
            is_too_long = False
        if len(rest) > _LONGEST:
            rest, is_too_long = b"", True
    if rest or is_too_long:
        yield None if is_too_long else rest


async def _piece(fd: int, *, waits: bool) -> bytes:
    if waits:
        # A pipe may be slow, and the calls under way need the loop.
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        try:
            loop.add_reader(fd, readable.set)
        except PermissionError:  # what cannot be waited for, such as /dev/null, does not make wait
            return os.read(fd, _PIECE)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(fd)
    return os.read(fd, _PIECE)


class _Rows:
    """Joins lines to rows: a row goes on where a quoted cell does, and so has an even number of quotes."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._first = self._quotes = self._size = 0

    def add(self, number: int, text: str | None, wrong: str) -> Text | None:
        """Return the row that this line ends, if it does."""
        if text is None:
            self._lines.clear()
            self._quotes = self._size = 0
            return number, None, wrong
        if not self._lines:
            self._first = number
        self._lines.append(text)
        self._quotes += text.count('"')
        self._size += len(text)
        return None if self._quotes % 2 and self._size <= _LONGEST else self._taken()

    def end(self) -> Text | None:
        """Return the row that has no end, if there is one."""
        return (self._first, None, "a quoted cell does not end") if self._lines else None

    def _taken(self) -> Text:
        row, is_too_long = "\n".join(self._lines), self._size > _LONGEST
        self._lines.clear()
        self._quotes = self._size = 0
        return (self._first, None, _TOO_LONG) if is_too_long else (self._first, row, "")


def _cells(text: str) -> list[str]:
    rows = list(csv.reader(io.StringIO(text, newline="")))
    return rows[0] if rows else []


def _read_json(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("not JSON (too deep)") from None
    except ValueError:
        # Not the error's own words: they may quote the line.
        raise ValueError("not JSON") from None


def _read_row(row: Mapping[str, str]) -> Any:
    if not row.get("prompt"):
        raise ValueError("an empty prompt")
    messages = [{"role": "user", "content": row["prompt"]}]
    if row.get("system"):
        messages.insert(0, {"role": "system", "content": row["system"]})
    return {"messages": messages} | ({"model": row["model"]} if row.get("model") else {})
