"""LangChain's own tests for caches, on either line of LangChain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from langchain_tests.integration_tests import AsyncCacheTestSuite, SyncCacheTestSuite

from llmcache_plugins.adapters.langchain import LangChainCache

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from servers import Server

# A busy machine may take longer than an application should wait for a cache.
PATIENT = {"lookup_budget": 5.0, "commit_budget": 5.0, "socket_timeout": 5.0}


class TestSync(SyncCacheTestSuite):
    @pytest.fixture
    def cache(self, valkey: Server, namespace: str) -> Iterator[LangChainCache]:
        with LangChainCache.from_url(valkey.url, namespace=namespace, **PATIENT) as cache:
            yield cache


class TestAsync(AsyncCacheTestSuite):
    @pytest.fixture
    async def cache(self, valkey: Server, namespace: str) -> AsyncIterator[LangChainCache]:
        async with LangChainCache.from_url(valkey.url, namespace=namespace, **PATIENT) as cache:
            yield cache
