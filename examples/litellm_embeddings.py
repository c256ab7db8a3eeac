import asyncio

import litellm

from llmcache_plugins.adapters.litellm import LiteLLMCache


async def main() -> None:
    async with LiteLLMCache.from_url() as cache:
        litellm.cache = cache
        for texts in (["lease", "lock", "mark"], ["lock", "fence", "lease"]):
            answer = await litellm.aembedding(model="text-embedding-3-small", input=texts)
            known = (await cache.response_cache.stats()).outcomes.get("hit", 0)
            print(len(answer.data), "vectors;", known, "text(s) known so far")
            await asyncio.sleep(1)  # LiteLLM writes when the call has returned


asyncio.run(main())
# 3 vectors; 0 text(s) known so far
# 3 vectors; 2 text(s) known so far
# Run again within an hour:
# 3 vectors; 3 text(s) known so far
# 3 vectors; 6 text(s) known so far
