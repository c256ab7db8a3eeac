"""What makes two requests equal: the canonical form of a request, and its digest."""

from llmcache_plugins.signature.engine import SCHEME, CacheSignatureEngine
from llmcache_plugins.signature.left_out import LEFT_OUT, LEFT_OUT_HEADERS

__all__ = ["LEFT_OUT", "LEFT_OUT_HEADERS", "SCHEME", "CacheSignatureEngine"]
