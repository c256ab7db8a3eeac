from concurrent.futures import ThreadPoolExecutor

import litellm

from llmcache_plugins.adapters.litellm import LiteLLMCache


def ask(question: str) -> str:
    answer = litellm.completion(model="gpt-4o-mini", messages=[{"role": "user", "content": question}])
    return "hit" if answer._hidden_params.get("cache_hit") else "asked the provider"


with LiteLLMCache.from_url() as cache, ThreadPoolExecutor(8) as threads:
    litellm.cache = cache
    told = list(threads.map(ask, ["What is a lease?"] * 8))  # seven wait for the first
    print(told.count("asked the provider"), "asked the provider,", told.count("hit"), "got its answer")
# 1 asked the provider, 7 got its answer
# Run again within an hour: 0 asked the provider, 8 got its answer
