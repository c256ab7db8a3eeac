"""LangChain: a cache for `set_llm_cache(...)`, models that stream from one, and why their calls miss."""

from llmcache_plugins.adapters.langchain.cache import LangChainCache
from llmcache_plugins.adapters.langchain.explaining import explain
from llmcache_plugins.adapters.langchain.model import cached

__all__ = ["LangChainCache", "cached", "explain"]
