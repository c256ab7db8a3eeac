import asyncio

from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from llmcache_plugins.adapters.langchain import LangChainCache, cached


async def main() -> None:
    async with LangChainCache.from_url() as cache:
        model = cached(ChatOpenAI(model="gpt-4o-mini"), cache)

        async def answer(state: MessagesState) -> dict[str, list]:
            return {"messages": [await model.ainvoke(state["messages"])]}

        graph = StateGraph(MessagesState).add_node(answer).add_edge(START, "answer")
        chat = graph.compile(checkpointer=InMemorySaver())
        for user in ("ann", "bob"):  # the same conversation, in two threads
            thread = {"configurable": {"thread_id": user}}
            for said in ("What is a lease?", "And who renews it?"):
                state = await chat.ainvoke({"messages": [("user", said)]}, thread)
            calls = (await cache.cache.stats()).provider_calls
            print(len(state["messages"]), "messages,", calls, "provider call(s) so far")


asyncio.run(main())
# 4 messages, 2 provider call(s) so far
# 4 messages, 2 provider call(s) so far
# Run again within an hour:
# 4 messages, 0 provider call(s) so far
# 4 messages, 0 provider call(s) so far
