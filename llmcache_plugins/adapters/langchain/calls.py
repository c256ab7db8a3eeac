"""How the calls of a cached model run: `_generate`, `_stream` and their asynchronous twins.

Knows LangChain's four entries to a model, and what a cache is told of each. Which models go this way is in
`model`.
"""

from __future__ import annotations

import contextvars
import inspect
from contextlib import aclosing
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from llmcache_plugins.adapters.langchain.description import described, keeps_state_elsewhere
from llmcache_plugins.adapters.langchain.errors import own_error
from llmcache_plugins.adapters.langchain.keys import SERVER_SIDE_STATE
from llmcache_plugins.adapters.langchain.results import ResultCodec
from llmcache_plugins.adapters.langchain.shown import shown
from llmcache_plugins.adapters.langchain.values import mark_hit
from llmcache_plugins.adapters.threads import from_thread
from llmcache_plugins.cache import Errand, brought
from llmcache_plugins.errors import CacheMiss, ConfigError, SharedProviderError
from llmcache_plugins.models import Outcome
from llmcache_plugins.telemetry import Face

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import BaseMessage

    from llmcache_plugins.adapters.langchain.cache import LangChainCache
    from llmcache_plugins.cache import CallOptions
    from llmcache_plugins.models import Resolution

    _Asked: TypeAlias = tuple[dict[str, object], CallOptions]

__all__ = ["SAID", "ModelCall", "ModelCalls", "checked", "said_in"]

_CODEC = ResultCodec()
SAID = "llmcache"
"""The field of a configuration's metadata, and the argument by which it travels to a stream."""
_OTHERS = frozenset({Outcome.HIT, Outcome.SEMANTIC_HIT, Outcome.STALE, Outcome.COALESCED})


def said_in(holder: Any) -> Any:
    """Return what `{"metadata": {"llmcache": {...}}}` of a run or a configuration says of the cache."""
    metadata = holder.get("metadata") if isinstance(holder, dict) else getattr(holder, "metadata", None)
    return metadata.get(SAID) if isinstance(metadata, dict) else None


def checked(options: CallOptions, host: LangChainCache) -> CallOptions:
    """Return the options as they are kept for many calls. Raises `ConfigError` and `TypeError`."""
    # A generator of tags would be empty the second time.
    if (tags := options.get("tags")) is not None and not isinstance(tags, str):
        options = {**options, "tags": tuple(tags)}
    host.cache.check(**options)
    return options


class ModelCall:
    """One call of one model, without a cache: what a leader does.

    `model` is the plain one. Its rate limiter is asked here, so that only those pay who call the provider.
    """

    def __init__(
        self,
        model: BaseChatModel,
        messages: list[BaseMessage],
        stop: list[str] | None,
        run_manager: Any,
        arguments: dict[str, Any],
    ) -> None:
        self.model = model
        self.messages = messages
        self.arguments = dict(arguments) if stop is None else {**arguments, "stop": stop}
        self._run_manager = run_manager
        self.said = self.arguments.pop(SAID, None) if SAID in arguments else said_in(run_manager)
        """What the call's configuration says of the cache."""

    def unseen(self) -> ModelCall:
        """Return the same call, of whose tokens the caller's run is not told: it has its answer."""
        return ModelCall(self.model, self.messages, None, None, self.arguments)

    async def agenerate(self) -> ChatResult:
        """Return what the model returns."""
        if self.model.rate_limiter is not None:
            await self.model.rate_limiter.aacquire(blocking=True)
        return await self.model._agenerate(self.messages, **self._given(self.model._agenerate))

    def generate(self) -> ChatResult:
        """Do the same in this thread."""
        if self.model.rate_limiter is not None:
            self.model.rate_limiter.acquire(blocking=True)
        return self.model._generate(self.messages, **self._given(self.model._generate))

    async def astream(self) -> AsyncGenerator[ChatGenerationChunk, None]:
        """Yield what the model yields."""
        if self.model.rate_limiter is not None:
            await self.model.rate_limiter.aacquire(blocking=True)
        chunks: Any = self.model._astream(self.messages, **self._given(self.model._astream))
        try:
            async for chunk in chunks:
                yield chunk
        finally:
            if (close := getattr(chunks, "aclose", None)) is not None:
                await close()

    def stream(self) -> Generator[ChatGenerationChunk, None, None]:
        """Do the same in this thread."""
        if self.model.rate_limiter is not None:
            self.model.rate_limiter.acquire(blocking=True)
        yield from self.model._stream(self.messages, **self._given(self.model._stream))

    def _given(self, method: Callable[..., Any]) -> dict[str, Any]:
        # LangChain gives it to those that take it, and not to streams.
        if self._run_manager is None or not _takes_run_manager(getattr(method, "__func__", method)):
            return self.arguments
        return {**self.arguments, "run_manager": self._run_manager}


class ModelCalls:
    """Answers the calls of models of one class from a cache; `kind` is the class without the cache."""

    def __init__(
        self,
        host: LangChainCache,
        *,
        kind: type[BaseChatModel],
        zero_usage: bool,
        options: CallOptions,
    ) -> None:
        self.host = host
        self.kind = kind
        self.zero_usage = zero_usage
        self.options = options

    async def agenerate(self, call: ModelCall) -> ChatResult:
        """Return the stored result, that of an identical call, or the model's own."""
        if (asked := self._asked(call)) is None:
            return await call.agenerate()
        request, options = asked
        try:
            resolution = await self.host.cache.resolve(
                request,
                call.agenerate,
                again=lambda: call.unseen().agenerate(),
                codec=_CODEC,
                request=partial(shown, request),
                face=Face.LANGCHAIN,
                **options,
            )
        except SharedProviderError as shared:
            _raise_own(call, shared)
            return await call.agenerate()
        return self._own(resolution)

    async def astream(self, call: ModelCall) -> AsyncGenerator[ChatGenerationChunk, None]:
        """Yield the chunks of the stored result, of an identical stream, or the model's own."""
        if (asked := self._asked(call)) is None:
            chunks = call.astream()
        else:
            chunks = self._shared(call, asked, call.astream, may_wait=True)
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk

    def generate(self, call: ModelCall) -> ChatResult:
        """Do the same as `agenerate` for a thread, which calls the model itself."""
        if (asked := self._asked(call)) is None:
            return call.generate()
        request, options = asked
        cache = self.host.cache

        async def acquire(may_wait: bool) -> Resolution | Errand | None:
            return await cache.acquire(
                request,
                codec=_CODEC,
                request=partial(shown, request),
                may_wait=may_wait,
                face=Face.LANGCHAIN,
                **options,
            )

        found = self.host.sync.acquire(acquire)
        if found is None:
            return call.generate()
        if not isinstance(found, Errand):
            return self._own(found)
        try:
            result = call.generate()
        except BaseException as error:
            found.abandon(error)
            raise
        # Before anything is awaited: LangChain goes on to change the message.
        self.host.sync.store(found.fulfil(brought(_CODEC, result)))
        return result

    def stream(self, call: ModelCall) -> Generator[ChatGenerationChunk, None, None]:
        """Do the same as `astream` for a thread; the model's own stream is read in another one."""
        if (asked := self._asked(call)) is None:
            yield from call.stream()
            return
        context = contextvars.copy_context()
        chunks = self._shared(
            call,
            asked,
            lambda: from_thread(call.stream, context),
            may_wait=self.host.sync.may_wait(),
        )
        yield from self.host.sync.iterate(chunks)

    async def _shared(
        self,
        call: ModelCall,
        asked: _Asked,
        open_stream: Callable[[], AsyncGenerator[ChatGenerationChunk, None]],
        *,
        may_wait: bool,
    ) -> AsyncGenerator[ChatGenerationChunk, None]:
        hits: list[Resolution] = []
        request, options = asked
        chunks = self.host.cache.stream(
            request,
            open_stream,
            codec=_CODEC,
            request=partial(shown, request),
            may_wait=may_wait,
            on_hit=hits.append,
            face=Face.LANGCHAIN,
            **options,
        )
        try:
            async with aclosing(chunks):
                async for chunk in chunks:
                    own = _copy_of(chunk)
                    if hits:
                        mark_hit([own], hits[0], zero_usage=self.zero_usage)
                    yield own
        except SharedProviderError as shared:
            # Only before the first chunk.
            _raise_own(call, shared)
            async with aclosing(open_stream()) as own_chunks:
                async for chunk in own_chunks:
                    yield chunk

    def _asked(self, call: ModelCall) -> _Asked | None:
        """Return the request and its options, or None, counted, for a call that must not be cached."""
        options = self.options
        try:
            if (said := call.said) is not None:
                options = self._options_of(said)
            if keeps_state_elsewhere(call.model, call.arguments):
                self.host.complain(f"a call of a cached model is not cached: it {SERVER_SIDE_STATE}")
                self.host.cache.bypass(SERVER_SIDE_STATE, face=Face.LANGCHAIN, **options)
                return None
            return described(call.model, call.messages, call.arguments, kind=self.kind), options
        except CacheMiss:
            raise
        except (ConfigError, TypeError) as error:
            # A namespace that was misspelled must not be one that was not given.
            self.host.complain(f"a call of a cached model is not cached: {error}")
        except Exception as error:  # noqa: BLE001 - a guest in the application's call: whatever it is
            self.host.complain(f"a call of a cached model is not cached ({type(error).__name__})")
        self.host.cache.bypass("cannot be understood", face=Face.LANGCHAIN, **options)
        return None

    def _options_of(self, said: Any) -> CallOptions:
        """Return the model's options and the call's. Raises `ConfigError` and `TypeError`."""
        if not isinstance(said, dict):
            raise ConfigError(f"metadata[{SAID!r}] is a dict of options, not a {type(said).__name__}")
        return checked(cast("CallOptions", {**self.options, **said}), self.host)

    def _own(self, resolution: Resolution) -> ChatResult:
        result: ChatResult = resolution.answer
        if resolution.outcome not in _OTHERS:
            return result
        # What could not be stored is another caller's object, and LangChain writes into messages.
        generations = [_own_generation(generation) for generation in result.generations]
        mark_hit(generations, resolution, zero_usage=self.zero_usage)
        return ChatResult(generations=generations, llm_output=result.llm_output)


def _raise_own(call: ModelCall, shared: SharedProviderError) -> None:
    """Raise the error that the model itself would have raised, if it can be made.

    If not, the application gets it by a call of its own: retries and fallbacks ask for the class.
    """
    error = own_error(call.model, shared)
    if error is not None:
        raise error from shared


def _own_generation(generation: ChatGeneration) -> ChatGeneration:
    message = generation.message.model_copy(update={"id": None})  # LangChain makes one for each caller
    return generation.model_copy(update={"message": message})


def _copy_of(chunk: ChatGenerationChunk) -> ChatGenerationChunk:
    """Return a chunk that LangChain and the application may change; the original is still to be stored."""
    message = chunk.message.model_copy(deep=isinstance(chunk.message.content, list))
    return chunk.model_copy(update={"message": message})


@lru_cache(maxsize=256)
def _takes_run_manager(method: Callable[..., Any]) -> bool:
    parameters = inspect.signature(method).parameters
    return "run_manager" in parameters
