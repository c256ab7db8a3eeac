"""`InferenceGateway`: the face for async service code. Await it instead of the provider.

Owns how a provider is asked: an object with `complete` (and `stream`), or a plain callable. Everything
else is the cache's.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self, Unpack

from llmcache_plugins.answers import PlainCodec, StreamCodec
from llmcache_plugins.cache import CallOptions, ResponseCache
from llmcache_plugins.errors import ConfigError, SharedProviderError
from llmcache_plugins.repository import ResponseRepository
from llmcache_plugins.telemetry import Face

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterator, Mapping
    from types import TracebackType

    from llmcache_plugins.answers import AnswerCodec
    from llmcache_plugins.cache import Explanation
    from llmcache_plugins.keys import CacheKey
    from llmcache_plugins.models import Resolution

__all__ = ["InferenceGateway", "Provider"]

_log = logging.getLogger("llmcache_plugins")


class Provider(Protocol):
    """What a gateway asks for answers.

    May also have `stream(query)`, an async iterator of chunks; `codec`, how its answers are stored
    (default: text and JSON-like data); `scope(query)`, a mapping of what changes an answer and is not in
    the query, such as the address of the server; `request_of(query)`, the request that is sent where the
    query spells it in another way; and `error_of(shared)`, the exception to raise for a
    `SharedProviderError`, or None.
    """

    async def complete(self, query: Any, /) -> Any:
        """Return the answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """A provider, whatever its form."""

    complete: Callable[[Any], Awaitable[Any]]
    stream: Callable[[Any], AsyncIterable[Any]] | None
    codec: AnswerCodec
    scope: Callable[[Any], Mapping[str, object]]
    request_of: Callable[[Any], Any]
    error_of: Callable[[SharedProviderError], Exception | None]

    @contextmanager
    def own_errors(self) -> Iterator[None]:
        """Raise the provider's own class for an error that it gave to another process."""
        try:
            yield
        except SharedProviderError as shared:
            error = self._rebuilt(shared)
            if error is None:
                raise
            raise error from shared

    def _rebuilt(self, shared: SharedProviderError) -> Exception | None:
        try:
            return self.error_of(shared)
        except Exception as error:  # noqa: BLE001 - any provider's: what is shared is an error all the same
            _log.warning("a provider's error_of raised %s", type(error).__name__)
            return None


class InferenceGateway:
    """Answers queries from the cache, and asks the provider once for what is not there.

    `provider` has `async complete(query)`, or is a callable; a synchronous one runs in a thread. `cache`
    may be a bare `ResponseRepository`. Whatever becomes of the cache, `resolve` returns the provider's
    answer or raises the provider's error, unchanged.
    """

    def __init__(self, provider: Any, cache: ResponseCache | ResponseRepository) -> None:
        self._source = _source_of(provider)
        self.cache = cache if isinstance(cache, ResponseCache) else ResponseCache(_repository(cache))

    async def resolve(self, query: Any, *, provider: Any = None, **options: Unpack[CallOptions]) -> Any:
        """Return the answer to `query`: what the provider returned, or an equal of it.

        `options` are those of `CallOptions`; `provider` is another source for this call: unless the query
        says which model is meant, or the provider's `scope` does, both sources share an entry. Identical
        calls at one time share one provider call; a caller that is cancelled leaves the others undisturbed.
        """
        resolution = await self.resolve_detailed(query, provider=provider, **options)
        return resolution.answer

    async def resolve_detailed(
        self, query: Any, *, provider: Any = None, **options: Unpack[CallOptions]
    ) -> Resolution:
        """Like `resolve`, and say the outcome, the key, the age, what was saved and the `Cache-Status`."""
        source = self._source if provider is None else _source_of(provider)
        with source.own_errors():
            return await self.cache.resolve(
                source.request_of(query),
                lambda: source.complete(query),
                codec=source.codec,
                scope=source.scope(query),
                face=Face.GATEWAY,
                **options,
            )

    async def stream(
        self,
        query: Any,
        *,
        provider: Any = None,
        on_hit: Callable[[Resolution], None] | None = None,
        **options: Unpack[CallOptions],
    ) -> AsyncGenerator[Any, None]:
        """Yield the answer in chunks: text, or the SDK's chunk objects.

        A stream that ends is stored and serves `resolve` too; one that breaks off is not. `on_hit` is told
        of a stored answer (without the answer itself) before its first chunk: in time for its `headers`.
        Raises `ConfigError` for a provider that cannot stream.
        """
        source = self._source if provider is None else _source_of(provider)
        if source.stream is None or not isinstance(source.codec, StreamCodec):
            raise ConfigError(
                "this provider cannot stream: it needs stream(query), an async iterator of chunks"
            )
        opened = source.stream
        chunks = self.cache.stream(
            source.request_of(query),
            lambda: _generator(opened(query)),
            codec=source.codec,
            scope=source.scope(query),
            on_hit=on_hit,
            face=Face.GATEWAY,
            **options,
        )
        with source.own_errors():
            async with aclosing(chunks):
                async for chunk in chunks:
                    yield chunk

    def key_of(self, query: Any, **options: Unpack[CallOptions]) -> CacheKey:
        """Return the key of a query. Raises `SignatureError` when it has no canonical form."""
        request, scope = self._source.request_of(query), self._source.scope(query)
        return self.cache.key_of(request, codec=self._source.codec, scope=scope, **options)

    async def explain(self, query: Any, **options: Unpack[CallOptions]) -> Explanation:
        """Say why a query hits or misses: see `ResponseCache.explain`."""
        request, scope = self._source.request_of(query), self._source.scope(query)
        return await self.cache.explain(request, codec=self._source.codec, scope=scope, **options)

    async def invalidate(self, query: Any, **options: Unpack[CallOptions]) -> bool:
        """Forget the answer of a query, everywhere; return whether there was one.

        Flights under way for it are not stored. Raises `InvalidationIncomplete` when the server has not
        acknowledged; repeating is safe. `ResponseCache.invalidate` forgets by tags, models and namespaces.
        """
        return await self.cache.delete(self.key_of(query, **options))

    async def aclose(self) -> None:
        """Close the cache on the running loop."""
        await self.cache.aclose()

    async def __aenter__(self) -> Self:
        await self.cache.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def _repository(cache: object) -> ResponseRepository:
    if isinstance(cache, ResponseRepository):
        return cache
    raise ConfigError(f"cache must be a ResponseCache or a ResponseRepository, not {type(cache).__name__}")


def _source_of(provider: Any) -> _Source:
    complete = getattr(provider, "complete", provider)
    if not callable(complete):
        raise ConfigError(
            f"a provider has complete(query) or is a callable; {type(provider).__name__} is neither"
        )
    return _Source(
        complete=_awaitable(complete),
        stream=getattr(provider, "stream", None),
        codec=getattr(provider, "codec", None) or PlainCodec(),
        scope=getattr(provider, "scope", None) or _no_scope,
        request_of=getattr(provider, "request_of", None) or _as_it_is,
        error_of=getattr(provider, "error_of", None) or _no_error,
    )


def _no_scope(_query: Any) -> Mapping[str, object]:
    return {}


def _as_it_is(query: Any) -> Any:
    return query


def _no_error(_shared: SharedProviderError) -> None:
    return None


def _awaitable(complete: Callable[[Any], Any]) -> Callable[[Any], Awaitable[Any]]:
    # A callable object's own __call__ says what it is; functools.partial is seen through.
    is_async = inspect.iscoroutinefunction(complete) or inspect.iscoroutinefunction(
        getattr(complete, "__call__", None)  # noqa: B004 - the attribute itself is inspected
    )

    async def ask(query: Any) -> Any:
        # A synchronous function must not block the loop of everybody else.
        answer = complete(query) if is_async else await asyncio.to_thread(_in_thread, complete, query)
        return await answer if inspect.isawaitable(answer) else answer

    return ask


def _in_thread(complete: Callable[[Any], Any], query: Any) -> Any:
    try:
        return complete(query)
    except StopIteration as error:
        # A future cannot carry it: whoever waits would wait for ever.
        raise RuntimeError("the provider raised StopIteration") from error


async def _generator(chunks: AsyncIterable[Any]) -> AsyncGenerator[Any, None]:
    """Make any async iterator one that can be closed, closing it too if it can be."""
    try:
        async for chunk in chunks:
            yield chunk
    finally:
        await _close(chunks)


async def _close(chunks: AsyncIterable[Any]) -> None:
    close = getattr(chunks, "aclose", None) or getattr(chunks, "close", None)
    try:
        closing = close() if close is not None else None
        if inspect.isawaitable(closing):
            await closing
    except Exception as error:  # noqa: BLE001 - it must replace neither the provider's error nor the answer
        _log.warning("closing a provider's stream raised %s", type(error).__name__)
