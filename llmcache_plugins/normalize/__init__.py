"""Rules that strip from a text what changes from call to call and does not change the answer."""

from llmcache_plugins.normalize.builtin import BUILTIN, RULES
from llmcache_plugins.normalize.chain import Normalizer, Normalizers, NormalText, Stripped, has_reserved
from llmcache_plugins.normalize.foreign import Failed

__all__ = [
    "BUILTIN",
    "RULES",
    "Failed",
    "NormalText",
    "Normalizer",
    "Normalizers",
    "Stripped",
    "has_reserved",
]
