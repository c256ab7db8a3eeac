"""What the frameworks' calls save: the same tokens and the same cents as a gateway's."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import litellm
import pytest
from langchain_core.globals import set_llm_cache
from langchain_openai import ChatOpenAI
from litellm_calls import QUIET, quiet  # noqa: F401

from llmcache_plugins import CacheConfig, ResponseRepository
from llmcache_plugins.adapters.langchain import LangChainCache, cached
from llmcache_plugins.adapters.litellm import LiteLLMCache

if TYPE_CHECKING:
    from servers import Server

    from llmcache_plugins.savings import SavingsRow
    from llmcache_plugins.testing.provider_server import ProviderServer

pytestmark = QUIET

MODEL = "gpt-4o-mini"
PATIENT: dict[str, Any] = {"lookup_budget": 10.0, "commit_budget": 10.0, "socket_timeout": 10.0}


async def saved(url: str, namespace: str) -> SavingsRow:
    async with ResponseRepository(url, config=CacheConfig(namespace="stranger")) as repository:
        (row,) = [row for row in (await repository.ledger.read()).rows if row.namespace == namespace]
        return row


def check(row: SavingsRow, provider: ProviderServer, *, spared: int) -> None:
    """Compare with what the provider has billed for its one call, at the public list price."""
    tokens = (provider.input_tokens, provider.output_tokens)
    assert provider.calls == 1
    assert (row.model, row.misses, row.hits + row.coalesced) == (MODEL, 1, spared)
    assert (row.saved_input_tokens, row.saved_output_tokens) == (spared * tokens[0], spared * tokens[1])
    cents = spared * (tokens[0] * 0.15 + tokens[1] * 0.60) / 10_000
    assert round(100 * (row.cost_saved or 0), 6) == round(cents, 6) > 0


@pytest.fixture
def chat(stand_in: ProviderServer) -> ChatOpenAI:
    return ChatOpenAI(model=MODEL, base_url=stand_in.base_url, api_key="none", stream_usage=True)  # type: ignore[arg-type]


async def test_langchain_s_calls(valkey: Server, namespace: str, stand_in: ProviderServer, chat: ChatOpenAI):
    cache = LangChainCache.from_url(valkey.url, namespace=namespace, **PATIENT)
    set_llm_cache(cache)
    try:
        await asyncio.gather(*(chat.ainvoke("how many?") for _ in range(4)))
        await chat.ainvoke("how many?")
        await asyncio.to_thread(chat.invoke, "how many?")
    finally:
        set_llm_cache(None)
        await cache.aclose()
        await cache.cache.aclose()
    check(await saved(valkey.url, namespace), stand_in, spared=5)


async def test_langchain_s_streams(
    valkey: Server, namespace: str, stand_in: ProviderServer, chat: ChatOpenAI
):
    async with LangChainCache.from_url(valkey.url, namespace=namespace, **PATIENT) as cache:
        model = cached(chat, cache)
        for _ in range(3):
            async for _ in model.astream("how many?"):
                pass
    check(await saved(valkey.url, namespace), stand_in, spared=2)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("streams", [False, True])
async def test_litellm_s_calls(valkey: Server, namespace: str, stand_in: ProviderServer, streams: bool):
    cache = LiteLLMCache.from_url(valkey.url, namespace=namespace, **PATIENT)
    litellm.cache = cache

    async def ask() -> None:
        answer = await litellm.acompletion(
            model=f"openai/{MODEL}",
            messages=[{"role": "user", "content": "how many?"}],
            api_base=stand_in.base_url,
            api_key="none",
            caching=True,
            stream=streams,
            **({"stream_options": {"include_usage": True}} if streams else {}),
        )
        if streams:
            async for _ in answer:
                pass

    try:
        for _ in range(3):
            await ask()
            await asyncio.sleep(0)
    finally:
        litellm.cache = None
        await cache.aclose()
        await cache.response_cache.aclose()
    row = await saved(valkey.url, namespace)
    check(row, stand_in, spared=2)
