"""For LiteLLM's proxy: litellm_proxy.yaml names it, and it lies beside that file."""

import os

import litellm
from litellm.integrations.custom_logger import CustomLogger

from llmcache_plugins.adapters.litellm import LiteLLMCache

litellm.cache = LiteLLMCache.from_url(os.environ["LLMCACHE_URL"])  # redis://...

loaded = CustomLogger()  # what the proxy wants of a module it loads; it does nothing
