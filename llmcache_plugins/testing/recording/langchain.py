"""LangChain in a session of tests: every model asks a cache, and so the present deck.

LangChain asks no cache for a stream, nor for a model with `cache=False`, nor where the application has set a
cache of somebody else's. For the session such a model's calls are those of `cached(model)`. Owns which calls
these are, and that all is as it was when the session ends.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from langchain_core import globals as settings
from langchain_core.caches import BaseCache
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.language_models.llms import BaseLLM

from llmcache_plugins.adapters.langchain import LangChainCache
from llmcache_plugins.adapters.langchain.model import asking, cached_part
from llmcache_plugins.errors import CacheMiss
from llmcache_plugins.testing.recording.patching import replaced

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

__all__ = ["arranged"]


def arranged(*, is_strict: bool) -> ExitStack:
    """Arrange it. What is returned ends it."""
    ending = ExitStack()
    host = LangChainCache.from_url("redis://recorded")
    ending.callback(host.close)
    before = settings.get_llm_cache()
    if before is None:
        settings.set_llm_cache(host)
        ending.callback(_take_back, host)
    for kind, methods in (
        (BaseChatModel, _chat_methods(host, is_strict=is_strict)),
        (BaseLLM, _completion_methods(host, is_strict=is_strict)),
    ):
        for name, method in methods.items():
            ending.enter_context(replaced(kind, name, method))
    return ending


def _take_back(host: LangChainCache) -> None:
    if settings.get_llm_cache() is host:
        settings.set_llm_cache(None)


def _asks_us(model: Any, host: LangChainCache) -> bool:
    """Say whether the application has given this model a cache of ours."""
    own = model.cache
    asked = own if isinstance(own, BaseCache) else None if own is False else settings.get_llm_cache()
    return isinstance(asked, LangChainCache) and asked is not host


def _chat_methods(host: LangChainCache, *, is_strict: bool) -> dict[str, Any]:
    whole, awhole = BaseChatModel._generate_with_cache, BaseChatModel._agenerate_with_cache
    in_chunks, ain_chunks = BaseChatModel.stream, BaseChatModel.astream

    def is_ours(model: BaseChatModel) -> bool:
        return cached_part(model) is not None

    def generate(self: BaseChatModel, *arguments: Any, **named: Any) -> Any:
        if is_ours(self) or _asks_us(self, host):
            return whole(self, *arguments, **named)
        return asking(self, host)._generate_with_cache(*arguments, **named)

    async def agenerate(self: BaseChatModel, *arguments: Any, **named: Any) -> Any:
        if is_ours(self) or _asks_us(self, host):
            return await awhole(self, *arguments, **named)
        return await asking(self, host)._agenerate_with_cache(*arguments, **named)

    def stream(self: BaseChatModel, *arguments: Any, **named: Any) -> Iterator[Any]:
        if is_ours(self):
            return in_chunks(self, *arguments, **named)
        return asking(self, host).stream(*arguments, **named)

    def astream(self: BaseChatModel, *arguments: Any, **named: Any) -> AsyncIterator[Any]:
        if is_ours(self):
            return ain_chunks(self, *arguments, **named)
        return asking(self, host).astream(*arguments, **named)

    return {
        "_generate_with_cache": generate,
        "_agenerate_with_cache": agenerate,
        "stream": stream,
        "astream": astream,
        **{name: _of_events(name, host, is_strict) for name in _EVENTS if hasattr(BaseChatModel, name)},
    }


def _of_events(name: str, host: LangChainCache, is_strict: bool) -> Callable[..., Any]:
    before = getattr(BaseChatModel, name)

    def events(self: BaseChatModel, *arguments: Any, **named: Any) -> Any:
        if is_strict and any(hasattr(self, own) for own in _OWN_EVENTS):
            raise CacheMiss(_NO_EVENTS)
        if cached_part(self) is not None:
            return before(self, *arguments, **named)
        return getattr(asking(self, host), name)(*arguments, **named)

    return events


def _completion_methods(host: LangChainCache, *, is_strict: bool) -> dict[str, Any]:
    whole, awhole = BaseLLM.generate, BaseLLM.agenerate
    in_chunks, ain_chunks = BaseLLM.stream, BaseLLM.astream

    def asking_us(model: BaseLLM) -> BaseLLM:
        return model if _asks_us(model, host) else model.model_copy(update={"cache": host})

    def generate(self: BaseLLM, *arguments: Any, **named: Any) -> Any:
        return whole(asking_us(self), *arguments, **named)

    async def agenerate(self: BaseLLM, *arguments: Any, **named: Any) -> Any:
        return await awhole(asking_us(self), *arguments, **named)

    def stream(self: BaseLLM, *arguments: Any, **named: Any) -> Iterator[Any]:
        if is_strict and type(self)._stream is not BaseLLM._stream:
            raise CacheMiss(_NO_STREAMS)
        return in_chunks(self, *arguments, **named)

    def astream(self: BaseLLM, *arguments: Any, **named: Any) -> AsyncIterator[Any]:
        has_streams = (type(self)._stream, type(self)._astream) != (BaseLLM._stream, BaseLLM._astream)
        if is_strict and has_streams:
            raise CacheMiss(_NO_STREAMS)
        return ain_chunks(self, *arguments, **named)

    return {"generate": generate, "agenerate": agenerate, "stream": stream, "astream": astream}


_EVENTS = ("_chat_model_stream_v3", "_achat_model_stream_v3")
"""What `stream_events(version="v3")` and its twin come by, in versions that have them."""
_OWN_EVENTS = ("_stream_chat_model_events", "_astream_chat_model_events")
_NO_EVENTS = "this model makes its events itself, and LangChain asks no cache for them: use stream, or invoke"

_NO_STREAMS = (
    "streams of completion models are not recorded, for LangChain asks no cache for them: use invoke, or a"
    " chat model"
)
