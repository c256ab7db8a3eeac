"""What a pickled model takes along of its cache: where it is and how it is set up, never a credential."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, cast

from llmcache_plugins.adapters.langchain.cache import LangChainCache, known_cache
from llmcache_plugins.errors import ConfigError

if TYPE_CHECKING:
    from llmcache_plugins.cache import CallOptions
    from llmcache_plugins.config import CacheConfig, CacheSettings
    from llmcache_plugins.policy import Chooser

__all__ = ["Recipe", "recipe_of"]

_log = logging.getLogger("llmcache_plugins")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to come by the same cache in another process."""

    address: str
    config: CacheConfig
    policy: Chooser
    zero_usage: bool
    options: CallOptions
    has_secrets: bool
    """Whether a password, a user or a secret was left out."""

    def host(self) -> LangChainCache | None:
        """Return this process's own cache of the same place and namespace, or a new one.

        None, which is logged, where secrets were left out and the process has no cache of its own.
        """
        known = known_cache(self.address, self.config)
        if known is not None:
            return known
        if self.has_secrets:
            _log.warning(
                "a cached model was unpickled without the credentials of its cache, and is not cached: make "
                "LangChainCache.from_url(...) for the same server and namespace in this process first"
            )
            return None
        settings = cast("CacheSettings", asdict(self.config))
        return LangChainCache.from_url(self.address, policy=self.policy, **settings)


def recipe_of(host: LangChainCache, *, zero_usage: bool, options: CallOptions) -> Recipe:
    """Return the recipe of a cache. Raises `ConfigError` for one on a client of the application's."""
    repository, config = host.cache.repository, host.cache.config
    if repository.address is None:
        raise ConfigError("a cache on a Redis client cannot be pickled; make it with from_url(...)")
    return Recipe(
        address=repository.address,
        config=replace(config, secret=None),
        policy=host.cache.policy,
        zero_usage=zero_usage,
        options=options,
        has_secrets=repository.hides_credentials or config.secret is not None,
    )
