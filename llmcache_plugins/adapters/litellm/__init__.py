"""LiteLLM: `litellm.cache = LiteLLMCache.from_url(...)`."""

from llmcache_plugins.adapters.litellm.cache import LiteLLMCache

__all__ = ["LiteLLMCache"]
