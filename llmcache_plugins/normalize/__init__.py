"""Rules that strip from a text what changes from call to call and does not change the answer.

The built-in ones are in `normalize.builtin`, which is imported when the first is named: compiling them takes
20 milliseconds, and most programs name none.
"""

from llmcache_plugins.normalize.chain import Normalizer, Normalizers, NormalText, Stripped, has_reserved
from llmcache_plugins.normalize.foreign import Failed

__all__ = [
    "Failed",
    "NormalText",
    "Normalizer",
    "Normalizers",
    "Stripped",
    "has_reserved",
]
