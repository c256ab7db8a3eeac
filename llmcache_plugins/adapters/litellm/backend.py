"""What LiteLLM finds where a cache of its own has its store. Nothing is kept there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from litellm.caching.base_cache import BaseCache

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Backend"]


class Backend(BaseCache):
    """Takes what LiteLLM's proxy would like to keep, and forgets it: this cache has answers only.

    Its type counts: beside one of LiteLLM's own Redis caches it would keep a memory of its own.
    """

    __slots__ = ("_close", "_ping")

    def __init__(self, *, ping: Callable[[], Awaitable[bool]], close: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self._ping = ping
        self._close = close

    def get_cache(self, key: Any, **_: Any) -> None:
        """Return None."""

    async def async_get_cache(self, key: Any, **_: Any) -> None:
        """Return None."""

    def set_cache(self, key: Any, value: Any, **_: Any) -> None:
        """Keep nothing."""

    async def async_set_cache(self, key: Any, value: Any, **_: Any) -> None:
        """Keep nothing."""

    async def async_set_cache_pipeline(self, cache_list: Any, **_: Any) -> None:
        """Keep nothing."""

    async def batch_cache_write(self, key: Any, value: Any, **_: Any) -> None:
        """Keep nothing."""

    async def ping(self) -> bool:
        """Return whether the server answers."""
        return await self._ping()

    async def disconnect(self) -> None:
        """Close the connections of the running loop."""
        await self._close()
