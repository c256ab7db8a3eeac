import asyncio

from langchain_core.globals import set_llm_cache
from langchain_openai import ChatOpenAI

from llmcache_plugins.adapters.langchain import LangChainCache


async def main() -> None:
    async with LangChainCache.from_url() as cache:  # no URL: a server of your own, started here
        set_llm_cache(cache)  # every model, from here on
        model = ChatOpenAI(model="gpt-4o-mini")
        answers = await asyncio.gather(*(model.ainvoke("What is a lease?") for _ in range(20)))
        print(len(answers), "answers,", (await cache.cache.stats()).provider_calls, "provider call(s)")


asyncio.run(main())
# 20 answers, 1 provider call(s)
# Run again within an hour: 20 answers, 0 provider call(s)
