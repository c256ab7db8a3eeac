import asyncio

import litellm

from llmcache_plugins.adapters.litellm import LiteLLMCache

QUESTION = [{"role": "user", "content": "What is a lease?"}]


async def main() -> None:
    async with LiteLLMCache.from_url() as cache:  # no URL: a server of your own, started here
        litellm.cache = cache  # for every call, from here on
        calls = (litellm.acompletion(model="gpt-4o-mini", messages=QUESTION) for _ in range(20))
        answers = await asyncio.gather(*calls)
        asked = (await cache.response_cache.stats()).provider_calls
        print(
            len({answer.id for answer in answers}), "answer to", len(answers), "calls,", asked, "of them sent"
        )


asyncio.run(main())
# 1 answer to 20 calls, 1 of them sent
# Run again within an hour: 1 answer to 20 calls, 0 of them sent
