"""`llmcache stats`: what the cache has saved, for people and for programs."""

from llmcache_plugins.cli.stats.verb import stats

__all__ = ["stats"]
