"""`llmcache estimate`: what a cache would have saved, from a log, before a line of code is changed."""

from llmcache_plugins.cli.estimate.verb import estimate

__all__ = ["estimate"]
