import asyncio

from llmcache_plugins import InferenceGateway, ResponseCache


async def ask_model(query: str) -> str:  # yours: anything that takes time and money
    await asyncio.sleep(1)
    return f"An answer to {query!r}"


async def main() -> None:
    async with ResponseCache.from_url() as cache:  # no URL: a server of your own, started here
        gateway = InferenceGateway(ask_model, cache)
        answers = await asyncio.gather(*(gateway.resolve("What is a lease?") for _ in range(100)))
        print(len(answers), "answers,", (await cache.stats()).provider_calls, "provider call(s)")


asyncio.run(main())
# 100 answers, 1 provider call(s)
# Run again within an hour: 100 answers, 0 provider call(s)
