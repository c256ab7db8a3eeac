import asyncio

import litellm

from llmcache_plugins.adapters.litellm import LiteLLMCache

ASKED = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "What is a lease?"}]}


async def ask(what: str, **controls: object) -> None:
    answer = await litellm.acompletion(**ASKED, cache=controls)
    print(f"{what}:", "hit" if answer._hidden_params.get("cache_hit") else "asked the provider")


async def main() -> None:
    async with LiteLLMCache.from_url() as cache:
        litellm.cache = cache
        await ask("kept for an hour", ttl=3600)
        await ask("not older than half of it", **{"s-maxage": 1800})
        await ask("a new one", **{"no-cache": True})
        await ask("not to be kept", namespace="drafts", **{"no-store": True})
        for tenant in ("acme", "globex", "acme"):
            await ask(tenant, tenant=tenant)


asyncio.run(main())
# kept for an hour: asked the provider
# not older than half of it: hit
# a new one: asked the provider
# not to be kept: asked the provider
# acme: asked the provider
# globex: asked the provider
# acme: hit
# Run again within an hour:
# kept for an hour: hit
# not older than half of it: hit
# a new one: asked the provider
# not to be kept: asked the provider
# acme: hit
# globex: hit
# acme: hit
