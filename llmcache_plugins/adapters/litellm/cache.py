"""`LiteLLMCache`: LiteLLM's `Cache` on a `ResponseCache`.

Owns LiteLLM's contract: its methods, its modes, and that nothing the cache does raises into the application,
except `CacheMiss` in mode "read_only" and a `clear` that was not acknowledged. What a call asks is in
`plans`, who waits for whom in `desk`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack

try:
    from litellm.caching.caching import Cache, CacheMode
except ImportError as error:
    raise ImportError('LiteLLMCache needs LiteLLM: pip install "llmcache-plugins[litellm]"') from error

from llmcache_plugins.adapters.litellm.backend import Backend
from llmcache_plugins.adapters.litellm.controls import Rules
from llmcache_plugins.adapters.litellm.desk import Desk
from llmcache_plugins.adapters.litellm.failures import stop_listening
from llmcache_plugins.budget import Budget
from llmcache_plugins.cache import ResponseCache
from llmcache_plugins.errors import CacheMiss, ConfigError, RepositoryError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType

    from llmcache_plugins.cache import Explanation
    from llmcache_plugins.config import CacheSettings
    from llmcache_plugins.policy import Chooser
    from llmcache_plugins.prices import Price, PriceTable
    from llmcache_plugins.semantic import SemanticCacheLayer
    from llmcache_plugins.telemetry import Observer

__all__ = ["LiteLLMCache"]

LONGEST_LEAD = 120.0
"""Seconds for which others wait for a call that LiteLLM makes: not every end of one is shown to a cache."""

CALL_TYPES = (
    "acompletion",
    "completion",
    "atext_completion",
    "text_completion",
    "aembedding",
    "embedding",
    "aresponses",
    "responses",
    "arerank",
    "rerank",
    "atranscription",
    "transcription",
    "anthropic_messages",
    "aanthropic_messages",
)
"""Of those that LiteLLM caches by default in any version, all. Images and speech do not come back as they
were."""

_WHEN = {"default_on": False, "default_off": True}


class LiteLLMCache(Cache):
    """For `litellm.cache = ...`.

        litellm.cache = LiteLLMCache.from_url("redis://localhost")

    Identical calls cost one provider call: later ones hit, concurrent ones wait for the first, in any task,
    thread or process, with or without a stream. `mode="default_off"` caches only calls that say
    `cache={"use-cache": True}`. Behind LiteLLM's proxy each team has answers of its own, else each key,
    unless `isolate` is False. Usable from any thread and any event loop. The `cache` handed in stays the
    caller's to close.
    """

    # Not in vars(): LiteLLM's proxy shows those, and what is in them, to whoever asks for the cache's health.
    __slots__ = ("_desk", "response_cache")

    def __init__(
        self,
        cache: ResponseCache,
        *,
        mode: Literal["default_on", "default_off"] = "default_on",
        supported_call_types: Iterable[str] = CALL_TYPES,
        isolate: bool = True,
    ) -> None:
        if mode not in _WHEN:
            raise ConfigError(f"mode is one of {', '.join(_WHEN)}, not {mode!r}")
        super().__init__(type="local", mode=CacheMode(mode), namespace=cache.config.namespace)  # type: ignore[arg-type]
        self.supported_call_types = list(supported_call_types)  # type: ignore[arg-type]
        self.max_messages = None
        self.cache = Backend(ping=self.ping, close=self.aclose)
        self.response_cache = cache
        rules = Rules(
            namespace=cache.config.namespace,
            secret=cache.config.secret,
            only_if_asked=_WHEN[mode],
            isolate=isolate,
        )
        self._desk = Desk(cache, rules)

    @classmethod
    def from_url(  # type: ignore[misc] # `mode` takes LiteLLM's words too
        cls,
        url: str | None = None,
        *,
        policy: Chooser | str | None = None,
        semantic: SemanticCacheLayer | None = None,
        prices: Mapping[str, Price] | PriceTable | None = None,
        observers: Iterable[Observer] = (),
        mode: str = "default_on",
        supported_call_types: Iterable[str] = CALL_TYPES,
        isolate: bool = True,
        **settings: Unpack[CacheSettings],
    ) -> Self:
        """Make a cache on a server, or on the embedded one without a URL: see `ResponseCache.from_url`.

        `mode` is one of LiteLLM's, "default_on" or "default_off", or one of ours for all calls that do not
        say: "default", "refresh", "read_only", "off".
        """
        settings.setdefault("max_lead", LONGEST_LEAD)
        when: Any = mode
        if mode not in _WHEN:
            settings["mode"], when = mode, "default_on"
        cache = ResponseCache.from_url(
            url, policy=policy, semantic=semantic, prices=prices, observers=observers, **settings
        )
        return cls(cache, mode=when, supported_call_types=supported_call_types, isolate=isolate)

    # -- LiteLLM's contract ----------------------------------------------------------------------------

    def get_cache_key(self, **kwargs: Any) -> str:
        """Return the key of a call, as `_hidden_params["cache_key"]` shows it."""
        preset = self.get_preset_cache_key_from_kwargs(**kwargs)
        return preset if preset is not None else self._desk.key_of(kwargs)

    def get_preset_cache_key_from_kwargs(self, **kwargs: Any) -> str | None:
        """Return the key that LiteLLM has noted for a call."""
        noted = kwargs.get("litellm_params")
        return noted.get("preset_cache_key") if isinstance(noted, dict) else None

    # LiteLLM up to 1.90 says it so.
    _get_preset_cache_key_from_kwargs = get_preset_cache_key_from_kwargs

    async def async_get_cache(self, dynamic_cache_object: Any = None, **kwargs: Any) -> Any:
        """Return the stored answer as LiteLLM reads it; None means: call, and then bring the answer."""
        try:
            return await self._desk.look(kwargs)
        except CacheMiss:
            raise
        except Exception as error:  # noqa: BLE001 - a guest in the application's call: whatever it is
            self._desk.complain(f"a lookup for LiteLLM failed ({type(error).__name__})")
            return None

    def get_cache(self, dynamic_cache_object: Any = None, **kwargs: Any) -> Any:
        """Like `async_get_cache`. In the thread of a running loop it waits for no call, only for a lookup."""
        try:
            return self._desk.look_from_thread(kwargs)
        except CacheMiss:
            raise
        except Exception as error:  # noqa: BLE001 - a guest in the application's call: whatever it is
            self._desk.complain(f"a lookup for LiteLLM failed ({type(error).__name__})")
            return None

    async def async_add_cache(self, result: Any, dynamic_cache_object: Any = None, **kwargs: Any) -> None:
        """Store an answer and wake who waits for it."""
        try:
            await self._desk.bring(result, kwargs)
        except Exception as error:  # noqa: BLE001 - the answer is paid for: nothing may stand in its way
            self._desk.complain(f"an answer of LiteLLM was not stored ({type(error).__name__})")

    async def async_add_cache_pipeline(
        self, result: Any, dynamic_cache_object: Any = None, **kwargs: Any
    ) -> None:
        """Store the embeddings of a list of inputs, each for itself."""
        try:
            await self._desk.bring_list(result, kwargs)
        except Exception as error:  # noqa: BLE001 - the answer is paid for: nothing may stand in its way
            self._desk.complain(f"an answer of LiteLLM was not stored ({type(error).__name__})")

    def add_cache(self, result: Any, **kwargs: Any) -> None:
        """Like `async_add_cache`."""
        try:
            self._desk.bring_from_thread(result, kwargs)
        except Exception as error:  # noqa: BLE001 - the answer is paid for: nothing may stand in its way
            self._desk.complain(f"an answer of LiteLLM was not stored ({type(error).__name__})")

    def should_use_cache(self, **_kwargs: Any) -> bool:
        """Return True: what a call says is heeded where it is looked up."""
        return True

    async def ping(self) -> bool:
        """Return whether the server answers within the lookup budget."""
        try:
            await self.response_cache.repository.size(budget=Budget(self.response_cache.config.lookup_budget))
        except (RepositoryError, ConfigError):
            return False
        return True

    async def disconnect(self) -> None:
        """Like `aclose`."""
        await self.aclose()

    async def delete_cache_keys(self, keys: Any) -> None:
        """Do nothing: LiteLLM's keys are not those of the server."""

    # -- ours ------------------------------------------------------------------------------------------

    async def aclear(self, namespace: str | None = None) -> None:
        """Forget every answer of a namespace. Raises `InvalidationIncomplete` when that is not known."""
        await self.response_cache.clear(namespace)

    def clear(self, namespace: str | None = None) -> None:
        """Like `aclear`."""
        self._desk.sync.run(self.response_cache.clear(namespace))

    async def explain(self, **arguments: Any) -> Explanation:
        """Say why `litellm.acompletion(**arguments)` hits or misses: see `ResponseCache.explain`."""
        return await self._desk.explain(arguments)

    async def aclose(self) -> None:
        """Close the connections of the running loop, and stop the background thread."""
        stop_listening(self._desk.calls)
        await self.response_cache.aclose()
        await asyncio.to_thread(self._desk.sync.stop)

    def close(self) -> None:
        """Stop the background thread and close its connections."""
        stop_listening(self._desk.calls)
        self._desk.sync.stop()

    async def __aenter__(self) -> Self:
        await self.response_cache.__aenter__()
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
