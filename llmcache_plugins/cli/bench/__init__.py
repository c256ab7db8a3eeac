"""`llmcache bench`: a load with repeated questions, with the cache and without."""

from llmcache_plugins.cli.bench.verb import bench

__all__ = ["bench"]
