"""`LangChainCache`: LangChain's `BaseCache` on a `ResponseCache`.

Owns which of LangChain's signals says that a call has ended. What makes two calls equal is in `keys`, how
answers are kept in `values`; nothing the cache does raises into the application, except `CacheMiss` in mode
"read_only" and a `clear` that was not acknowledged.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Any, Self, Unpack
from weakref import WeakValueDictionary

try:
    from langchain_core.caches import BaseCache
except ImportError as error:
    raise ImportError('LangChainCache needs LangChain: pip install "llmcache-plugins[langchain]"') from error

from llmcache_plugins.adapters.langchain.failures import listen
from llmcache_plugins.adapters.langchain.keyring import KeyRing, LateKey
from llmcache_plugins.adapters.langchain.keys import request_of
from llmcache_plugins.adapters.langchain.shown import shown
from llmcache_plugins.adapters.langchain.values import GenerationsCodec, mark_hit
from llmcache_plugins.adapters.sync_half import SyncHalf
from llmcache_plugins.adapters.under_way import abandon, belongs_here, is_under_way, note
from llmcache_plugins.cache import Errand, ResponseCache, brought
from llmcache_plugins.errors import CacheMiss
from llmcache_plugins.loops import PerLoop
from llmcache_plugins.telemetry import Face

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import TracebackType

    from langchain_core.outputs import Generation

    from llmcache_plugins.config import CacheConfig, CacheSettings
    from llmcache_plugins.keys import CacheKey
    from llmcache_plugins.models import Resolution
    from llmcache_plugins.policy import Chooser
    from llmcache_plugins.prices import Price, PriceTable
    from llmcache_plugins.semantic import SemanticCacheLayer
    from llmcache_plugins.telemetry import Observer

__all__ = ["LangChainCache", "known_cache"]

_log = logging.getLogger("llmcache_plugins")
_CODEC = GenerationsCodec()

LONGEST_LEAD = 120.0
"""Seconds for which others wait for a call that LangChain makes: not every end of one is shown to a cache."""


_MOST_OVERDUE = 1024
_known: WeakValueDictionary[tuple[str, str, str], LangChainCache] = WeakValueDictionary()


def known_cache(address: str, config: CacheConfig) -> LangChainCache | None:
    """Return the cache of this process for a server and a namespace, the youngest of several."""
    return _known.get(_place_of(address, config))


listen()


def _place_of(address: str, config: CacheConfig) -> tuple[str, str, str]:
    return address, config.prefix, config.namespace


class LangChainCache(BaseCache):
    """For `set_llm_cache(...)` and `model(cache=...)`.

        set_llm_cache(LangChainCache.from_url("redis://localhost"))

    Identical calls cost one provider call: later ones hit, concurrent ones wait for the first, in any task,
    thread or process. `zero_usage` sets the usage of hits to zero, for those whose callbacks count it as
    spent. Usable from any thread and any event loop. The `cache` handed in stays the caller's to close.
    """

    # No __len__ and no __bool__: langchain-core 0.3 asks `if llm_cache:`.

    def __init__(self, cache: ResponseCache, *, zero_usage: bool = False) -> None:
        self.cache = cache
        self.zero_usage = zero_usage
        self.sync = SyncHalf(cache)
        self._errands: PerLoop[dict[Any, list[Errand]]] = PerLoop(dict)
        self._overdue: OrderedDict[CacheKey, float] = OrderedDict()
        self._complaints: set[str] = set()
        self._keys = KeyRing(cache)
        if (address := cache.repository.address) is not None:
            _known[_place_of(address, cache.config)] = self

    @classmethod
    def from_url(
        cls,
        url: str | None = None,
        *,
        policy: Chooser | str | None = None,
        semantic: SemanticCacheLayer | None = None,
        prices: Mapping[str, Price] | PriceTable | None = None,
        observers: Iterable[Observer] = (),
        zero_usage: bool = False,
        **settings: Unpack[CacheSettings],
    ) -> Self:
        """Make a cache on a server, or on the embedded one without a URL: see `ResponseCache.from_url`."""
        settings.setdefault("max_lead", LONGEST_LEAD)
        cache = ResponseCache.from_url(
            url, policy=policy, semantic=semantic, prices=prices, observers=observers, **settings
        )
        return cls(cache, zero_usage=zero_usage)

    # -- asynchronous ----------------------------------------------------------------------------------

    async def alookup(self, prompt: str, llm_string: str) -> list[Generation] | None:
        """Return the stored generations, fresh objects each time; None means: call, and then update."""
        if (near := self._at_hand(prompt, llm_string)) is not None:
            return near
        try:
            found = await self._acquire(prompt, llm_string, not is_under_way())
        except asyncio.CancelledError:
            # Of a completion model that looks up one prompt after the other: it will ask for none of them.
            abandon(None)
            raise
        if isinstance(found, Errand):
            note(found)
            # Chat models look up and call in a task for each prompt: its end is the end of the call.
            _abandon_with(asyncio.current_task(), found)
        return self._answer_of(found)

    async def aupdate(self, prompt: str, llm_string: str, return_val: Sequence[Generation]) -> None:
        """Store generations and wake who waits for them."""
        await self._update(prompt, llm_string, list(return_val))

    async def aclear(self, **_kwargs: Any) -> None:
        """Forget every answer of the namespace. Raises `InvalidationIncomplete` when that is not known."""
        await self.cache.clear()

    async def aclose(self) -> None:
        """Close the connections of the running loop, and stop the background thread."""
        await self.cache.aclose()
        await asyncio.to_thread(self.sync.stop)

    # -- synchronous -----------------------------------------------------------------------------------

    def lookup(self, prompt: str, llm_string: str) -> list[Generation] | None:
        """Like `alookup`. In the thread of a running loop it waits for no call, only for a lookup."""
        if (near := self._at_hand(prompt, llm_string)) is not None:
            return near
        return self._answer_of(self.sync.acquire(partial(self._acquire, prompt, llm_string)))

    def update(self, prompt: str, llm_string: str, return_val: Sequence[Generation]) -> None:
        """Like `aupdate`."""
        self.sync.store(self._update(prompt, llm_string, list(return_val)))

    def clear(self, **_kwargs: Any) -> None:
        """Like `aclear`."""
        self.sync.run(self.cache.clear())

    def close(self) -> None:
        """Stop the background thread and close its connections."""
        self.sync.stop()

    # -- inside ----------------------------------------------------------------------------------------

    def _at_hand(self, prompt: str, llm_string: str) -> list[Generation] | None:
        if not self.cache.config.near_cache:
            return None
        try:
            key = self._keys.known(prompt, llm_string)
            found = self.cache.at_hand(key, codec=_CODEC, face=Face.LANGCHAIN) if key is not None else None
            return self._answer_of(found)
        except Exception:  # noqa: BLE001 - whatever it is, the lookup that follows meets it too, and says so
            return None

    async def _acquire(self, prompt: str, llm_string: str, may_wait: bool) -> Resolution | Errand | None:
        try:
            key = self._keys(prompt, llm_string)
            if isinstance(key, LateKey):
                key = await key.made()
            if isinstance(key, str):
                self.complain(f"a call of LangChain is not cached: its model {key}")
                self.cache.bypass(key, face=Face.LANGCHAIN)
                return None
            found = await self.cache.acquire(
                key,
                codec=_CODEC,
                request=partial(_request, prompt, llm_string),
                whole=partial(_whole, prompt, llm_string),
                may_wait=may_wait,
                face=Face.LANGCHAIN,
            )
        except CacheMiss:
            raise
        except Exception as error:  # noqa: BLE001 - a guest in the application's call: whatever it is
            self.complain(f"a lookup for LangChain failed ({type(error).__name__})")
            return None
        if isinstance(found, Errand):
            self._remember(found)
        return found

    async def _update(self, prompt: str, llm_string: str, generations: list[Generation]) -> None:
        try:
            key = self._keys(prompt, llm_string)
            if isinstance(key, str):
                return
            # Before anything is awaited: the application goes on to change its message.
            answer = brought(_CODEC, generations)
            if isinstance(key, LateKey):
                key = await key.made()
                if isinstance(key, str):
                    return
            if errands := self._take(key):
                for errand in errands:
                    # Now: the task that had looked up may have just ended, and the errand end with it.
                    errand.bring(answer)
                await asyncio.gather(*(errand.fulfil(answer) for errand in errands))
            else:
                request = partial(_request, prompt, llm_string)
                await self.cache.put(
                    key,
                    answer,
                    codec=_CODEC,
                    request=request,
                    whole=partial(_whole, prompt, llm_string),
                    was_looked_up=True,
                    asked_at=self._overdue.pop(key, None),
                )
        except Exception as error:  # noqa: BLE001 - the answer is paid for: nothing may stand in its way
            self.complain(f"an answer of LangChain was not stored ({type(error).__name__})")
            abandon(None)  # who waits for it waits in vain

    def _remember(self, errand: Errand) -> None:
        errands = self._errands.current()
        errands.setdefault(errand.key, []).append(errand)
        if errand.ride is not None:
            errand.ride.add_done_callback(lambda _: self._ended(errand))

    def _ended(self, errand: Errand) -> None:
        self._under_way(errand.key)
        if errand.is_overdue:
            self._overdue[errand.key] = errand.asked_at
            if len(self._overdue) > _MOST_OVERDUE:
                self._overdue.popitem(last=False)

    def _take(self, key: Any) -> list[Errand]:
        """Return whom an answer that comes now serves: this context's errand, and those given before it.

        Not those given after it: there may have been an invalidation in between.
        """
        waiting = self._under_way(key)
        own = next((place for place, errand in enumerate(waiting) if belongs_here(errand)), 0)
        return waiting[: own + 1]

    def _under_way(self, key: Any) -> list[Errand]:
        errands = self._errands.current()
        waiting = [errand for errand in errands.pop(key, []) if not errand.is_over]
        if waiting:
            errands[key] = waiting
        return waiting

    def _answer_of(self, found: Resolution | Errand | None) -> list[Generation] | None:
        # LangChain takes an empty list for a hit, and fails on it.
        if found is None or isinstance(found, Errand) or not found.answer:
            return None
        generations: list[Generation] = found.answer
        mark_hit(generations, found, zero_usage=self.zero_usage)
        return generations

    def complain(self, text: str) -> None:
        """Say each thing once."""
        if text not in self._complaints and len(self._complaints) < 100:
            self._complaints.add(text)
            _log.warning("%s", text)

    async def __aenter__(self) -> Self:
        await self.cache.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _request(prompt: str, llm_string: str) -> dict[str, Any]:
    return shown(request_of(prompt, llm_string))


def _whole(prompt: str, llm_string: str) -> dict[str, Any] | None:
    request = request_of(prompt, llm_string)
    # A chat that could not be read is a text of JSON: with all its turns, and no question.
    return None if "prompt" in request and prompt.startswith("[") else request


def _abandon_with(task: asyncio.Task[Any] | None, errand: Errand) -> None:
    """Let an errand end with a task; one that lives on keeps nothing of the errands that have ended."""
    if task is None or errand.ride is None:
        return
    callback = partial(_abandon_after, errand)
    task.add_done_callback(callback)
    errand.ride.add_done_callback(lambda _: task.remove_done_callback(callback))


def _abandon_after(errand: Errand, ended: asyncio.Task[Any]) -> None:
    errand.abandon(None if ended.cancelled() else ended.exception())
