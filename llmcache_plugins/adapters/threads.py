"""Streams between a thread and an event loop, in both directions."""

from __future__ import annotations

import asyncio
import queue
import threading
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from llmcache_plugins.errors import StreamInterrupted

if TYPE_CHECKING:
    import concurrent.futures
    import contextvars
    from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator

__all__ = ["from_loop", "from_thread"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _End:
    """What comes after the last item."""

    error: BaseException | None = None


async def from_thread(
    open_stream: Callable[[], Iterable[T]], context: contextvars.Context
) -> AsyncGenerator[T, None]:
    """Yield what a blocking iterable gives, read in a thread of its own, in `context`.

    Read as fast as it comes. Left early, the thread closes it at its next item.
    """
    loop = asyncio.get_running_loop()
    items: asyncio.Queue[T | _End] = asyncio.Queue()
    left = threading.Event()

    def put(item: T | _End) -> None:
        with suppress(RuntimeError):  # the loop is closed, and nobody reads
            loop.call_soon_threadsafe(items.put_nowait, item)

    def read() -> None:
        try:
            stream = iter(open_stream())
            try:
                for item in stream:
                    if left.is_set():
                        break
                    put(item)
            finally:
                close = getattr(stream, "close", None)
                if close is not None:
                    close()
        except BaseException as error:  # noqa: BLE001 - raised where the stream is read
            put(_End(error))
        else:
            put(_End())

    # Not the loop's executor: a stream may take minutes, and its threads are few.
    threading.Thread(target=context.run, args=(read,), name="llmcache-stream", daemon=True).start()
    try:
        while not isinstance(item := await items.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        left.set()


def from_loop(
    items: AsyncGenerator[T, None],
    submit: Callable[[Coroutine[Any, Any, None]], concurrent.futures.Future[None]],
) -> Iterator[T]:
    """Yield, in this thread, what an asynchronous generator gives on the loop of `submit`.

    Closing it closes the generator.
    """
    arrived: queue.SimpleQueue[T | _End] = queue.SimpleQueue()

    async def pump() -> None:
        end = _End(StreamInterrupted("the event loop of the synchronous calls was stopped"))
        try:
            async with aclosing(items):
                async for item in items:
                    arrived.put(item)
            end = _End()
        except Exception as error:  # noqa: BLE001 - raised where the stream is read
            end = _End(error)
        finally:
            arrived.put(end)

    pumping = submit(pump())
    try:
        while not isinstance(item := arrived.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        pumping.cancel()
