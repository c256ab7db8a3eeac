"""The use case: signature, flight, lookup, lease, call, store. What every face is a thin layer over."""

from llmcache_plugins.cache.errands import Errand, brought
from llmcache_plugins.cache.explanation import Explanation
from llmcache_plugins.cache.options import CallOptions
from llmcache_plugins.cache.response_cache import ResponseCache

__all__ = ["CallOptions", "Errand", "Explanation", "ResponseCache", "brought"]
