"""What makes two requests equal: the canonical form of a request, and its digest."""

from llmcache_plugins.signature.engine import SCHEME, Anatomy, CacheSignatureEngine, Unsigned
from llmcache_plugins.signature.leaves import Differences, Leaves
from llmcache_plugins.signature.left_out import LEFT_OUT, LEFT_OUT_HEADERS
from llmcache_plugins.signature.normalized import Normalized, normalize, texts_of

__all__ = [
    "LEFT_OUT",
    "LEFT_OUT_HEADERS",
    "SCHEME",
    "Anatomy",
    "CacheSignatureEngine",
    "Differences",
    "Leaves",
    "Normalized",
    "Unsigned",
    "normalize",
    "texts_of",
]
