"""What the providers of all SDKs share: one awaitable call, asked for an answer or for chunks."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

from llmcache_plugins.errors import ConfigError
from llmcache_plugins.providers._wire_codec import WireStreamCodec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from llmcache_plugins.errors import SharedProviderError
    from llmcache_plugins.providers._wire_codec import WireCodec

__all__ = ["Api", "WireProvider", "chosen", "retry_headers"]

Api = Literal["chat", "responses", "embeddings"]


def chosen(api: str, choices: Mapping[str, Any]) -> Any:
    """Return what belongs to an API. Raises `ConfigError` for one that is not offered."""
    if api not in choices:
        raise ConfigError(f"api is one of {', '.join(map(repr, choices))}, not {api!r}")
    return choices[api]


def retry_headers(shared: SharedProviderError) -> dict[str, str]:
    """Return the time an error asks for as servers say it: in whole seconds, and never less than asked."""
    wait = shared.retry_after
    return {} if wait is None or not 0 <= wait < math.inf else {"retry-after": str(math.ceil(wait))}


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

    def error_of(self, shared: SharedProviderError, /) -> Exception | None:
        """Return the SDK's error for what another process was told, or None to raise the shared one as it is.

        A new object each time: raise it `from shared`. Never raises: a version of the SDK that builds its
        errors in another way costs the class of the error, not the error.
        """
        with suppress(Exception):
            if shared.status is None or 400 <= shared.status <= 599:
                return self._rebuilt(shared)
        return None

    def _rebuilt(self, shared: SharedProviderError) -> Exception | None:
        """Return the SDK's error, or None for one it does not have. May raise."""
        raise NotImplementedError

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
