"""What the providers of all SDKs share: one awaitable call, asked for an answer or for chunks."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

from llmcache_plugins.errors import ConfigError
from llmcache_plugins.providers._wire_codec import WireStreamCodec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from llmcache_plugins.providers._wire_codec import WireCodec

__all__ = ["Api", "WireProvider", "chosen"]

Api = Literal["chat", "responses", "embeddings"]


def chosen(api: str, choices: Mapping[str, Any]) -> Any:
    """Return what belongs to an API. Raises `ConfigError` for one that is not offered."""
    if api not in choices:
        raise ConfigError(f"api is one of {', '.join(map(repr, choices))}, not {api!r}")
    return choices[api]


class WireProvider:
    """Calls the model and passes on what comes back, errors included, unchanged.

    A query is a mapping of the keyword arguments of the SDK's call. Holds no state between calls; any
    number may run at once, and cancelling one cancels that request only.
    """

    def __init__(self, *, call: Callable[..., Awaitable[Any]], codec: WireCodec) -> None:
        self._call = call
        self._codec = codec

    @property
    def codec(self) -> WireCodec:
        """How answers become bytes; a `StreamCodec` where `stream` works."""
        return self._codec

    async def complete(self, query: Mapping[str, Any]) -> Any:
        """Return the SDK's answer; a `stream` in the query is not heeded."""
        return await self._call(**_arguments(query, leaving_out=("stream", "stream_options")))

    def stream(self, query: Mapping[str, Any]) -> AsyncIterator[Any]:
        """Return the SDK's chunks; leaving the iteration closes the connection.

        Raises `ConfigError` at once where the API has no streams.
        """
        if not isinstance(self._codec, WireStreamCodec):
            raise ConfigError(f"{self._codec.kind} has no streams; call `complete` or `resolve`")
        return self._chunks(_arguments(query, leaving_out=("stream",)))

    async def _chunks(self, arguments: dict[str, Any]) -> AsyncIterator[Any]:
        chunks = await self._call(**arguments, stream=True)
        try:
            async for chunk in chunks:
                yield chunk
        finally:
            await _close(chunks)


def _arguments(query: Mapping[str, Any], *, leaving_out: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(query, Mapping):
        raise TypeError(f"a query is a mapping of the call's keyword arguments, not {type(query).__name__}")
    return {name: value for name, value in query.items() if name not in leaving_out}


async def _close(chunks: Any) -> None:
    """Close a stream, whatever its SDK calls that; some have nothing to close.

    An error of closing must replace neither the provider's error nor a complete answer.
    """
    close = getattr(chunks, "aclose", None) or getattr(chunks, "close", None)
    with suppress(Exception):
        closing = close() if close is not None else None
        if inspect.isawaitable(closing):
            await closing
