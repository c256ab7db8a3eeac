"""`LangChainCache`: LangChain's `BaseCache` on a `ResponseCache`.

Owns which of LangChain's signals says that a call has ended, and the synchronous half. What makes two calls
equal is in `keys`, how answers are kept in `values`; nothing the cache does raises into the application,
except `CacheMiss` in mode "read_only" and a `clear` that was not acknowledged.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Self, Unpack

try:
    from langchain_core.caches import BaseCache
    from langchain_core.callbacks import BaseCallbackHandler
    from langchain_core.tracers.context import register_configure_hook
except ImportError as error:
    raise ImportError('LangChainCache needs LangChain: pip install "llmcache-plugins[langchain]"') from error

from llmcache_plugins.adapters.background import BackgroundLoop
from llmcache_plugins.adapters.langchain.keys import bypass_reason, request_of
from llmcache_plugins.adapters.langchain.values import GenerationsCodec, mark_hit
from llmcache_plugins.cache import Errand, ResponseCache
from llmcache_plugins.errors import CacheMiss
from llmcache_plugins.loops import PerLoop, running_loop
from llmcache_plugins.telemetry import Face

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType

    from langchain_core.outputs import Generation

    from llmcache_plugins.config import CacheSettings
    from llmcache_plugins.models import Resolution
    from llmcache_plugins.policy import CachePolicy
    from llmcache_plugins.telemetry import Observer

__all__ = ["LangChainCache"]

_log = logging.getLogger("llmcache_plugins")
_CODEC = GenerationsCodec()

LONGEST_LEAD = 120.0
"""Seconds for which others wait for a call that LangChain makes: not every end of one is shown to a cache."""

_under_way: ContextVar[tuple[Errand, ...]] = ContextVar("llmcache_langchain_errands", default=())
"""The calls that this context was sent to make."""


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
        self._zero_usage = zero_usage
        self._errands: PerLoop[dict[Any, list[Errand]]] = PerLoop(dict)
        self._background = BackgroundLoop(at_end=cache.aclose)
        self._complaints: set[str] = set()

    @classmethod
    def from_url(
        cls,
        url: str | None = None,
        *,
        policy: CachePolicy | None = None,
        observers: Iterable[Observer] = (),
        zero_usage: bool = False,
        **settings: Unpack[CacheSettings],
    ) -> Self:
        """Make a cache on a server, or on the embedded one without a URL: see `ResponseCache.from_url`."""
        settings.setdefault("max_lead", LONGEST_LEAD)
        cache = ResponseCache.from_url(url, policy=policy, observers=observers, **settings)
        return cls(cache, zero_usage=zero_usage)

    # -- asynchronous ----------------------------------------------------------------------------------

    async def alookup(self, prompt: str, llm_string: str) -> list[Generation] | None:
        """Return the stored generations, fresh objects each time; None means: call, and then update."""
        errand, found = await self._acquire(prompt, llm_string, may_wait=not _is_under_way())
        if errand is not None:
            _note(errand)
            # Chat models look up and call in a task for each prompt: its end is the end of the call.
            task = asyncio.current_task()
            if task is not None:
                task.add_done_callback(lambda ended: _abandon_after(errand, ended))
        return found

    async def aupdate(self, prompt: str, llm_string: str, return_val: Sequence[Generation]) -> None:
        """Store generations and wake who waits for them."""
        await self._update(prompt, llm_string, list(return_val))

    async def aclear(self, **_kwargs: Any) -> None:
        """Forget every answer of the namespace. Raises `InvalidationIncomplete` when that is not known."""
        await self.cache.clear()

    async def aclose(self) -> None:
        """Close the connections of the running loop, and stop the background thread."""
        await self.cache.aclose()
        await asyncio.to_thread(self._background.stop)

    # -- synchronous -----------------------------------------------------------------------------------

    def lookup(self, prompt: str, llm_string: str) -> list[Generation] | None:
        """Like `alookup`. In the thread of a running loop it waits for no call, only for a lookup."""
        on_a_loop = running_loop() is not None
        may_wait = not on_a_loop and not _is_under_way()
        looking = self._background.submit(self._acquire(prompt, llm_string, may_wait=may_wait))
        config = self.cache.config
        longest = config.lookup_budget if on_a_loop else config.follow_for
        try:
            errand, found = looking.result(longest + config.connect_timeout)
        except concurrent.futures.TimeoutError:
            looking.add_done_callback(_abandon_late)
            return None
        if errand is not None:
            _note(errand)
        return found

    def update(self, prompt: str, llm_string: str, return_val: Sequence[Generation]) -> None:
        """Like `aupdate`."""
        updating = self._background.submit(self._update(prompt, llm_string, list(return_val)))
        longest = 0.0 if running_loop() is not None else self.cache.config.commit_budget
        with suppress(concurrent.futures.TimeoutError):
            updating.result(longest + self.cache.config.lookup_budget)

    def clear(self, **_kwargs: Any) -> None:
        """Like `aclear`."""
        self._background.submit(self.cache.clear()).result()

    def close(self) -> None:
        """Stop the background thread and close its connections."""
        self._background.stop()

    # -- inside ----------------------------------------------------------------------------------------

    async def _acquire(
        self, prompt: str, llm_string: str, *, may_wait: bool
    ) -> tuple[Errand | None, list[Generation] | None]:
        try:
            if (reason := bypass_reason(llm_string)) is not None:
                self._complain(f"LangChain calls are not cached: {reason}")
                return None, None
            request = request_of(prompt, llm_string)
            found = await self.cache.acquire(request, codec=_CODEC, may_wait=may_wait, face=Face.LANGCHAIN)
        except CacheMiss:
            raise
        except Exception as error:  # noqa: BLE001 - a guest in the application's call: whatever it is
            self._complain(f"a lookup for LangChain failed ({type(error).__name__})")
            return None, None
        if isinstance(found, Errand):
            self._remember(found)
            return found, None
        # LangChain takes an empty list for a hit, and fails on it.
        return None, self._marked(found) if found is not None and found.answer else None

    async def _update(self, prompt: str, llm_string: str, generations: list[Generation]) -> None:
        try:
            if bypass_reason(llm_string) is not None:
                return
            request = request_of(prompt, llm_string)
            # Before anything is awaited: the application goes on to change its message.
            answer = _CODEC.encode(generations)
            errand = self._take(self.cache.key_of(request, codec=_CODEC))
            if errand is not None:
                await errand.fulfil(_CODEC.decode(answer))
            else:
                await self.cache.put(request, _CODEC.decode(answer), codec=_CODEC)
        except Exception as error:  # noqa: BLE001 - the answer is paid for: nothing may stand in its way
            self._complain(f"an answer of LangChain was not stored ({type(error).__name__})")

    def _remember(self, errand: Errand) -> None:
        errands = self._errands.current()
        errands.setdefault(errand.key, []).append(errand)
        if errand.ride is not None:
            errand.ride.add_done_callback(lambda _: self._take(errand.key))

    def _take(self, key: Any) -> Errand | None:
        waiting = self._errands.current().pop(key, [])
        if under_way := [errand for errand in waiting if not errand.is_over]:
            self._errands.current()[key] = under_way
        return under_way[0] if under_way else None

    def _marked(self, resolution: Resolution) -> list[Generation]:
        generations: list[Generation] = resolution.answer
        mark_hit(
            generations,
            outcome=resolution.outcome,
            age=resolution.age,
            cache_status=resolution.cache_status,
            zero_usage=self._zero_usage,
        )
        return generations

    def _complain(self, text: str) -> None:
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


class _Failures(BaseCallbackHandler):
    """Sees the failed calls of completion models and of synchronous ones, whose tasks live on."""

    run_inline = True

    def on_llm_error(self, error: BaseException, **_kwargs: Any) -> None:
        for errand in _under_way.get():
            errand.abandon(error)


register_configure_hook(
    ContextVar("llmcache_langchain_failures", default=_Failures()),  # noqa: B039 - it has no state
    inheritable=False,
)


def _is_under_way() -> bool:
    return any(not errand.is_over for errand in _under_way.get())


def _note(errand: Errand) -> None:
    _under_way.set((*(one for one in _under_way.get() if not one.is_over), errand))


def _abandon_after(errand: Errand, ended: asyncio.Task[Any]) -> None:
    errand.abandon(None if ended.cancelled() else ended.exception())


def _abandon_late(looking: concurrent.futures.Future[tuple[Errand | None, Any]]) -> None:
    if (
        not looking.cancelled()
        and looking.exception() is None
        and (errand := looking.result()[0]) is not None
    ):
        errand.abandon()
