"""LiteLLM in a session of tests: every call asks the cache, and so the present deck.

A call that says "no-cache", "no-store" or `caching=False` does not say so for the session; in a strict one,
whatever LiteLLM then still would ask a provider raises `CacheMiss`. LiteLLM catches what its cache raises in
some places; so that is done where it decides. Owns which calls these are, and that all is as it was when the
session ends.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import litellm
from litellm.caching.caching_handler import LLMCachingHandler

from llmcache_plugins.adapters.litellm import LiteLLMCache
from llmcache_plugins.errors import CacheMiss
from llmcache_plugins.testing.recording.patching import replaced

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["arranged"]

_CONTROLS = ("no-cache", "no-store")
# The names with an underscore are those of 1.90.
_SYNC = ("sync_get_cache", "_sync_get_cache")
_ASYNC = ("async_get_cache", "_async_get_cache")


def arranged(*, is_strict: bool) -> ExitStack:
    """Arrange it. What is returned ends it."""
    ending = ExitStack()
    host = LiteLLMCache.from_url("redis://recorded")
    place = _Place(host)
    ending.callback(host.close)
    ending.callback(place.give_back)
    place.take()
    initialise = _heeding_nothing(LLMCachingHandler.__init__, place)
    ending.enter_context(replaced(LLMCachingHandler, "__init__", initialise))
    if is_strict:
        for names, made in ((_SYNC, _strict), (_ASYNC, _astrict)):
            name = next(name for name in names if hasattr(LLMCachingHandler, name))
            strict = made(getattr(LLMCachingHandler, name))
            ending.enter_context(replaced(LLMCachingHandler, name, strict))
    return ending


class _Place:
    """`litellm.cache`, which is ours: the application's own of our kind, or the session's."""

    def __init__(self, host: LiteLLMCache) -> None:
        self._host = host
        self._displaced: Any = None

    def take(self) -> None:
        """See to it that a call asks one of ours."""
        if not isinstance(litellm.cache, LiteLLMCache):
            self._displaced, litellm.cache = litellm.cache, self._host

    def give_back(self) -> None:
        """Leave what was there."""
        if litellm.cache is self._host:
            litellm.cache = self._displaced


def _heeding_nothing(init: Callable[..., None], place: _Place) -> Callable[..., None]:
    def initialise(self: Any, *arguments: Any, **named: Any) -> None:
        place.take()
        # The keywords of the very call: LiteLLM reads them again when it asks, and when it stores.
        keywords = named.get("request_kwargs", arguments[1] if len(arguments) > 1 else None)
        if isinstance(keywords, dict):
            _unsay(keywords)
        init(self, *arguments, **named)

    return initialise


def _unsay(keywords: dict[str, Any]) -> None:
    if keywords.get("caching") is False:
        del keywords["caching"]
    said = keywords.get("cache")
    if isinstance(said, dict) and any(said.get(name) for name in _CONTROLS):
        keywords["cache"] = {name: value for name, value in said.items() if name not in _CONTROLS}


def _strict(ask: Callable[..., Any]) -> Callable[..., Any]:
    def get_cache(self: Any, *arguments: Any, **named: Any) -> Any:
        found = ask(self, *arguments, **named)
        _require(found, named)
        return found

    return get_cache


def _astrict(ask: Callable[..., Any]) -> Callable[..., Any]:
    async def get_cache(self: Any, *arguments: Any, **named: Any) -> Any:
        found = await ask(self, *arguments, **named)
        _require(found, named)
        return found

    return get_cache


def _require(found: Any, named: dict[str, Any]) -> None:
    """Raise unless the whole answer was found: for what is missing LiteLLM would ask the provider."""
    part = getattr(found, "final_embedding_cached_response", None)
    if part is not None and not getattr(found, "embedding_all_elements_cache_hit", False):
        raise CacheMiss(_of(named, "has a recorded answer to some of its inputs only"))
    if part is None and getattr(found, "cached_result", None) is None:
        raise CacheMiss(_of(named, "has no recorded answer"))


def _of(named: dict[str, Any], what: str) -> str:
    call = named.get("call_type") or "a call"
    return (
        f"LiteLLM's {call} of {named.get('model')!r} {what}: record it with pytest --llmcache=record, if"
        " calls of this type are cached, and `litellm.cache` does not leave them out"
    )
