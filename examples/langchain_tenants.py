import asyncio

from langchain_openai import ChatOpenAI

from llmcache_plugins.adapters.langchain import LangChainCache, cached


async def main() -> None:
    async with LangChainCache.from_url() as cache:
        model = ChatOpenAI(model="gpt-4o-mini")
        for tenant in ("acme", "globex", "acme"):
            own = cached(model, cache, namespace=tenant)  # a namespace is a trust domain
            answer = await own.ainvoke("What is a lease?")
            print(tenant, "hit" if "llmcache" in answer.response_metadata else "asked the provider")


asyncio.run(main())
# acme asked the provider
# globex asked the provider
# acme hit
# Run again within an hour:
# acme hit
# globex hit
# acme hit
