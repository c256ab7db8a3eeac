"""LangChain: `set_llm_cache(LangChainCache.from_url(...))`."""

from llmcache_plugins.adapters.langchain.cache import LangChainCache

__all__ = ["LangChainCache"]
