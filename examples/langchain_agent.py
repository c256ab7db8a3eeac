import asyncio

from langchain.agents import create_agent  # LangChain 1.x; before: langgraph.prebuilt, create_react_agent
from langchain_core.globals import set_llm_cache
from langchain_openai import ChatOpenAI

from llmcache_plugins.adapters.langchain import LangChainCache


def look_up(topic: str, limit: int) -> str:
    """Look up at most `limit` notes on a topic."""
    return f"1 of {limit}: a {topic} is a right that ends by itself."


async def main() -> None:
    async with LangChainCache.from_url() as cache:
        set_llm_cache(cache)  # to stream what it says: cached(model, cache)
        agent = create_agent(ChatOpenAI(model="gpt-4o-mini"), [look_up])
        for _ in range(2):  # the tool runs each time; only the model's answers are cached
            state = await agent.ainvoke({"messages": [("user", "Look up what a lease is.")]})
            calls = (await cache.cache.stats()).provider_calls
            print(len(state["messages"]), "messages,", calls, "provider call(s) so far")


asyncio.run(main())
# 4 messages, 2 provider call(s) so far
# 4 messages, 2 provider call(s) so far
# Run again within an hour:
# 4 messages, 0 provider call(s) so far
# 4 messages, 0 provider call(s) so far
