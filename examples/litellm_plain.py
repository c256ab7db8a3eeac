import asyncio

import litellm

from llmcache_plugins.adapters.litellm import LiteLLMCache

QUESTION = [{"role": "user", "content": "What is a lease?"}]


async def main() -> None:
    async with LiteLLMCache.from_url() as cache:  # no URL: a server of your own, started here
        litellm.cache = cache  # for every call, from here on
        calls = (litellm.acompletion(model="gpt-4o-mini", messages=QUESTION) for _ in range(20))
        answers = await asyncio.gather(*calls)
        stats = await cache.response_cache.stats()
        print(len(answers), "answers,", stats.provider_calls, "provider call(s)")


asyncio.run(main())
# 20 answers, 1 provider call(s)
# Run again within an hour: 20 answers, 0 provider call(s)
