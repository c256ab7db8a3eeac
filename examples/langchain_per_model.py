import asyncio

from langchain_openai import ChatOpenAI

from llmcache_plugins.adapters.langchain import LangChainCache, cached


async def main() -> None:
    async with LangChainCache.from_url() as cache:
        facts = cached(ChatOpenAI(model="gpt-4o-mini", temperature=0), cache, ttl=24 * 3600)
        ideas = ChatOpenAI(model="gpt-4o-mini", temperature=1)  # no cache: another answer each time
        for name, model in (("facts", facts), ("ideas", ideas)):
            answers = [await model.ainvoke("Name a use of leases.") for _ in range(3)]
            hits = sum("llmcache" in answer.response_metadata for answer in answers)
            print(f"{name}: {hits} of {len(answers)} from the cache")


asyncio.run(main())
# facts: 2 of 3 from the cache
# ideas: 0 of 3 from the cache
# Run again within a day:
# facts: 3 of 3 from the cache
# ideas: 0 of 3 from the cache
