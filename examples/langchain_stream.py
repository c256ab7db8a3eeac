import asyncio

from langchain_openai import ChatOpenAI

from llmcache_plugins.adapters.langchain import LangChainCache, cached

QUESTION = "What is a lease? Answer in ten sentences."


async def main() -> None:
    async with LangChainCache.from_url() as cache:
        model = cached(ChatOpenAI(model="gpt-4o-mini"), cache)  # set_llm_cache() does nothing for streams

        first, second = model.astream(QUESTION), model.astream(QUESTION)
        begun = [await anext(first), await anext(second)]  # both read while the model still speaks
        print(len(begun), "readers,", cache.cache.in_flight(), "call(s) under way")
        texts = [begun[0].content + "".join([chunk.content async for chunk in first])]
        texts.append(begun[1].content + "".join([chunk.content async for chunk in second]))

        texts += [chunk.content async for chunk in model.astream(QUESTION)]  # stored: one chunk
        print(texts.count(texts[0]), "equal texts,", (await cache.cache.stats()).provider_calls, "call(s)")


asyncio.run(main())
# 2 readers, 1 call(s) under way
# 3 equal texts, 1 call(s)
# Run again within an hour:
# 2 readers, 0 call(s) under way
# 3 equal texts, 0 call(s)
