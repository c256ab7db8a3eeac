import asyncio

import litellm

from llmcache_plugins.adapters.litellm import LiteLLMCache

ASKED = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "What is a lease?"}]}


async def read() -> str:
    stream = await litellm.acompletion(**ASKED, stream=True)
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


async def main() -> None:
    async with LiteLLMCache.from_url() as cache:
        litellm.cache = cache
        texts = await asyncio.gather(*(read() for _ in range(5)))
        whole = await litellm.acompletion(**ASKED)  # one entry serves streams and whole answers
        texts.append(whole.choices[0].message.content)
        calls = (await cache.response_cache.stats()).provider_calls
        print(len(texts), "readers,", len(set(texts)), "text,", calls, "provider call(s)")


asyncio.run(main())
# 6 readers, 1 text, 1 provider call(s)
# Run again within an hour: 6 readers, 1 text, 0 provider call(s)
