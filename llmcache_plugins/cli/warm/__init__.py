"""`llmcache warm`: a file of requests asked and stored, before anybody waits for the answers."""

from llmcache_plugins.cli.warm.verb import warm

__all__ = ["warm"]
