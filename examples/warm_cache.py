import asyncio

from openai import AsyncOpenAI

from llmcache_plugins import InferenceGateway, ResponseCache, seed_cache
from llmcache_plugins.providers import OpenAIProvider


def query(question: str) -> dict:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": question}]}


async def main() -> None:
    questions = [query(f"What is {word}?") for word in ("a lease", "a fence", "a stampede", "a lease")]
    async with AsyncOpenAI() as client, ResponseCache.from_url(policy="batch") as cache:
        gateway = InferenceGateway(OpenAIProvider(client), cache)
        report = await seed_cache(gateway, questions, concurrency=2, requests_per_minute=600)
        print(report.calls, "calls paid,", report.failed, "failed")
        print((await gateway.resolve_detailed(questions[0])).outcome)


asyncio.run(main())
# 3 calls paid, 0 failed
# hit
# Run again within a month: 0 calls paid, 0 failed
# hit
