"""Queries as they come: from a list, an iterator or an async iterator, a few at a time.

Reads no further ahead than one batch, whatever there is to read.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmcache_plugins.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator

__all__ = ["Line", "Queries", "batches"]

Queries = Iterable[Any] | AsyncIterable[Any]

_PATIENCE = 0.02
"""Seconds after which a batch goes as it is: a source may be slow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A query and its place; one with an `error` is no query, but a failure with that cause."""

    position: int
    query: Any = None
    error: str = ""


def batches(queries: Queries, *, size: int) -> AsyncGenerator[list[Line], None]:
    """Yield the queries in batches; those that are no `Line` are counted from 1. Raises `ConfigError`."""
    if isinstance(queries, AsyncIterable):
        return _of_async(queries, size)
    if isinstance(queries, str | bytes) or not isinstance(queries, Iterable):
        raise ConfigError(
            f"queries is a list, an iterator or an async iterator of queries, not a {type(queries).__name__}"
        )
    return _of_plain(iter(queries), size)


async def _of_plain(queries: Iterator[Any], size: int) -> AsyncGenerator[list[Line], None]:
    numbers = itertools.count(1)
    while batch := [_line(query, next(numbers)) for query in itertools.islice(queries, size)]:
        yield batch
        # A source that never waits must not keep the loop from everybody else.
        await asyncio.sleep(0)


async def _of_async(queries: AsyncIterable[Any], size: int) -> AsyncGenerator[list[Line], None]:
    """Yield what has come when the source makes wait."""
    numbers = itertools.count(1)
    source = aiter(queries)
    batch: list[Line] = []
    coming: asyncio.Task[Any] | None = None
    try:
        while True:
            coming = asyncio.ensure_future(_next(source))
            if batch and not (await asyncio.wait((coming,), timeout=_PATIENCE))[0]:
                yield batch
                batch = []
            found = await coming
            if found is _END:
                break
            batch.append(_line(found, next(numbers)))
            if len(batch) >= size:
                yield batch
                batch = []
        if batch:
            yield batch
    finally:
        if coming is not None and not coming.done():
            coming.cancel()
            with suppress(asyncio.CancelledError):
                await coming
        # An iterator of the caller's own may still be of use to it.
        close = getattr(source, "aclose", None)
        if source is not queries and close is not None:
            await close()


_END = object()


async def _next(source: AsyncIterator[Any]) -> Any:
    # StopAsyncIteration cannot leave a task.
    return await anext(source, _END)


def _line(query: Any, position: int) -> Line:
    return query if isinstance(query, Line) else Line(position=position, query=query)
