"""LangChain: `set_llm_cache(LangChainCache.from_url(...))`."""

from llmcache_plugins.adapters.langchain.cache import LangChainCache
from llmcache_plugins.adapters.langchain.model import cached

__all__ = ["LangChainCache", "cached"]
