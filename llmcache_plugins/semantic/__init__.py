"""Answers to questions that were asked in other words: what is known of texts, and how far it is trusted.

The only home of `numpy`. Knows no cache, no repository and no framework.
"""

try:
    import numpy as _  # noqa: F401
except ImportError as error:
    raise ImportError('the semantic layer needs numpy: pip install "llmcache-plugins[semantic]"') from error

from llmcache_plugins.semantic.layer import SemanticCacheLayer
from llmcache_plugins.semantic.matching import Match, Verdict

__all__ = ["Match", "SemanticCacheLayer", "Verdict"]
