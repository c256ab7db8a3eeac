"""`llmcache doctor`: what is wrong with a Redis for this cache, why, and how to fix it."""

from llmcache_plugins.cli.doctor.verb import doctor

__all__ = ["doctor"]
