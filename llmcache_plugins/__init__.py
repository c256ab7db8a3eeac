"""An asyncio cache for LLM calls on Redis: identical requests cost one provider call.

    from llmcache_plugins import InferenceGateway, ResponseCache

    async with ResponseCache.from_url("redis://localhost") as cache:
        gateway = InferenceGateway(provider, cache)
        answer = await gateway.resolve(query)

Importing this imports no framework.
"""

from typing import TYPE_CHECKING, Any

from llmcache_plugins.cache import Explanation, ResponseCache
from llmcache_plugins.config import CacheConfig
from llmcache_plugins.errors import (
    CacheMiss,
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
from llmcache_plugins.signature import CacheSignatureEngine
from llmcache_plugins.telemetry import Event, Observer, OpenTelemetry, Stats
from llmcache_plugins.warming import SeedReport, seed_cache

__all__ = [
    "CacheConfig",
    "CacheKey",
    "CacheMiss",
    "CachePolicy",
    "CacheSignatureEngine",
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

if TYPE_CHECKING:
    from llmcache_plugins.semantic import SemanticCacheLayer


def __getattr__(name: str) -> Any:
    # At its first use: it imports numpy.
    if name == "SemanticCacheLayer":
        from llmcache_plugins.semantic import SemanticCacheLayer

        return SemanticCacheLayer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
