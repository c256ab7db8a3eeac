"""Vectors of texts from any embedder: checked, shared, remembered, and never in anybody's way."""

from llmcache_plugins.semantic.embedding.queue import Embedding

__all__ = ["Embedding"]
