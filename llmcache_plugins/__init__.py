"""An asyncio cache for LLM calls on Redis: identical requests cost one provider call.

    from llmcache_plugins import InferenceGateway, ResponseCache

    async with ResponseCache.from_url("redis://localhost") as cache:
        gateway = InferenceGateway(provider, cache)
        answer = await gateway.resolve(query)

Importing this imports no framework, and nothing else of the package: each name brings its module along when
it is first used. A session of pytest that has this installed, and does not use it, does not pay for it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmcache_plugins.cache import Explanation, ResponseCache
    from llmcache_plugins.config import CacheConfig
    from llmcache_plugins.errors import (
        CacheMiss,
        CassetteError,
        ConfigError,
        CorruptEntry,
        EmbeddedServerError,
        EmbeddingFailed,
        InvalidationIncomplete,
        LLMCacheError,
        RepositoryError,
        RepositoryUnavailable,
        SeedingStopped,
        SharedProviderError,
        SignatureError,
        StreamInterrupted,
        UnstorableAnswer,
        WaitTimeout,
    )
    from llmcache_plugins.gateway import InferenceGateway, Provider
    from llmcache_plugins.keys import CacheKey
    from llmcache_plugins.models import Invalidation, Mode, Outcome, Resolution, Usage
    from llmcache_plugins.policy import CachePolicy, PolicyRouter
    from llmcache_plugins.prices import Price, PriceTable
    from llmcache_plugins.repository import ResponseRepository
    from llmcache_plugins.savings import Savings, SavingsRow
    from llmcache_plugins.semantic import SemanticCacheLayer
    from llmcache_plugins.signature import CacheSignatureEngine
    from llmcache_plugins.telemetry import Event, Observer, OpenTelemetry, Stats
    from llmcache_plugins.warming import SeedReport, seed_cache

__all__ = [
    "CacheConfig",
    "CacheKey",
    "CacheMiss",
    "CachePolicy",
    "CacheSignatureEngine",
    "CassetteError",
    "ConfigError",
    "CorruptEntry",
    "EmbeddedServerError",
    "EmbeddingFailed",
    "Event",
    "Explanation",
    "InferenceGateway",
    "Invalidation",
    "InvalidationIncomplete",
    "LLMCacheError",
    "Mode",
    "Observer",
    "OpenTelemetry",
    "Outcome",
    "PolicyRouter",
    "Price",
    "PriceTable",
    "Provider",
    "RepositoryError",
    "RepositoryUnavailable",
    "Resolution",
    "ResponseCache",
    "ResponseRepository",
    "Savings",
    "SavingsRow",
    "SeedReport",
    "SeedingStopped",
    "SemanticCacheLayer",
    "SharedProviderError",
    "SignatureError",
    "Stats",
    "StreamInterrupted",
    "UnstorableAnswer",
    "Usage",
    "WaitTimeout",
    "seed_cache",
]

_HOMES = {
    "cache": (
        "Explanation",
        "ResponseCache",
    ),
    "config": ("CacheConfig",),
    "errors": (
        "CacheMiss",
        "CassetteError",
        "ConfigError",
        "CorruptEntry",
        "EmbeddedServerError",
        "EmbeddingFailed",
        "InvalidationIncomplete",
        "LLMCacheError",
        "RepositoryError",
        "RepositoryUnavailable",
        "SeedingStopped",
        "SharedProviderError",
        "SignatureError",
        "StreamInterrupted",
        "UnstorableAnswer",
        "WaitTimeout",
    ),
    "gateway": (
        "InferenceGateway",
        "Provider",
    ),
    "keys": ("CacheKey",),
    "models": (
        "Invalidation",
        "Mode",
        "Outcome",
        "Resolution",
        "Usage",
    ),
    "policy": (
        "CachePolicy",
        "PolicyRouter",
    ),
    "prices": (
        "Price",
        "PriceTable",
    ),
    "repository": ("ResponseRepository",),
    "savings": (
        "Savings",
        "SavingsRow",
    ),
    "semantic": ("SemanticCacheLayer",),
    "signature": ("CacheSignatureEngine",),
    "telemetry": (
        "Event",
        "Observer",
        "OpenTelemetry",
        "Stats",
    ),
    "warming": (
        "SeedReport",
        "seed_cache",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
