"""What the tests of `LiteLLMCache` share: a cache in LiteLLM's place, and calls to the stand-in provider.

Owns how LiteLLM is left as it was found: its lists of callbacks, its clients, its tasks.
"""

from __future__ import annotations

import asyncio
import gc
import os
import warnings
from typing import TYPE_CHECKING, Any

# Without it LiteLLM downloads its price list when it is imported.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
import openai
import pytest
import pytest_asyncio
from waiting import wait_until_async

from llmcache_plugins.adapters.litellm import LiteLLMCache

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from servers import Server

    from llmcache_plugins.models import Outcome
    from llmcache_plugins.testing.provider_server import ProviderServer

    Make = Callable[..., LiteLLMCache]

NOTICES_CUT_STREAMS = hasattr(
    litellm.litellm_core_utils.streaming_handler.CustomStreamWrapper, "_should_fail_on_clean_eof"
)
keeps_streams = pytest.mark.skipif(
    not NOTICES_CUT_STREAMS, reason="this LiteLLM takes half a stream for a whole one: none is kept"
)

__all__ = [
    "NOTICES_CUT_STREAMS",
    "PATIENT",
    "QUIET",
    "Chat",
    "cache",
    "facts",
    "keeps_streams",
    "make",
    "outcomes",
    "quiet",
    "said",
    "text_of",
    "written",
]

PATIENT = {"lookup_budget": 5.0, "commit_budget": 5.0, "socket_timeout": 5.0}
QUIET = [
    # LiteLLM builds validators for typed dicts with read-only items, which pydantic does not enforce.
    pytest.mark.filterwarnings("ignore:Items? .* using the `ReadOnly` qualifier:UserWarning:pydantic"),
    # LiteLLM looks at every attribute of a usage chunk, two deprecated ones of pydantic among them.
    pytest.mark.filterwarnings(
        "ignore:Accessing the 'model_(computed_)?fields' attribute:DeprecationWarning"
    ),
    # LiteLLM leaves connections open that it has made for one call.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Unclosed:ResourceWarning"),
    # LiteLLM logs usage of one kind in a response of another.
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning:pydantic"),
]
_LISTS = (
    "callbacks",
    "failure_callback",
    "input_callback",
    "success_callback",
    "_async_failure_callback",
    "_async_input_callback",
    "_async_success_callback",
)


@pytest_asyncio.fixture
async def quiet(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """LiteLLM as a fresh process has it, and with nothing left behind afterwards."""
    from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER

    monkeypatch.setattr(litellm, "suppress_debug_info", True)
    monkeypatch.setattr(litellm, "cache", None)
    for name in _LISTS:
        monkeypatch.setattr(litellm, name, [])
    yield
    await GLOBAL_LOGGING_WORKER.stop()
    for client in list(litellm.in_memory_llm_clients_cache.cache_dict.values()):
        if isinstance(client, openai.OpenAI):
            client.close()
    await litellm.close_litellm_async_clients()
    litellm.in_memory_llm_clients_cache.flush_cache()
    # Clients that LiteLLM made for one call go when they are collected: now, and in this loop, not later.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    closing = [task for task in asyncio.all_tasks() if "aclose" in repr(task.get_coro())]
    await asyncio.gather(*closing, return_exceptions=True)


@pytest_asyncio.fixture
async def make(valkey: Server, namespace: str, quiet: None) -> AsyncIterator[Make]:
    """Return a maker of caches; the last one made is LiteLLM's."""
    made: list[LiteLLMCache] = []

    def one(**settings: Any) -> LiteLLMCache:
        options = {"namespace": namespace, **PATIENT, **settings}
        made.append(LiteLLMCache.from_url(options.pop("url", valkey.url), **options))
        litellm.cache = made[-1]
        return made[-1]

    yield one
    for cache in made:
        await written(cache)
        await cache.aclose()


@pytest.fixture
def cache(make: Make) -> LiteLLMCache:
    return make()


class Chat:
    """The arguments of a call of the stand-in provider."""

    def __init__(self, stand_in: ProviderServer) -> None:
        self._stand_in = stand_in

    def __call__(self, prompt: str = "Hi", *, model: str = "openai/gpt-4o-mini", **more: Any) -> Any:
        return {**self.to(model=model), "messages": [{"role": "user", "content": prompt}], **more}

    def to(self, *, model: str = "openai/gpt-4o-mini", **more: Any) -> Any:
        return {
            "model": model,
            "api_base": self._stand_in.base_url,
            "api_key": "test",
            "max_retries": 0,
            **more,
        }


@pytest.fixture
def chat(stand_in: ProviderServer) -> Chat:
    return Chat(stand_in)


async def written(cache: LiteLLMCache) -> None:
    """Wait for the writes that LiteLLM begins when a call has returned."""
    await asyncio.sleep(0)
    await wait_until_async(
        lambda: not _writes() and not cache.response_cache.in_flight(), description="the answers are stored"
    )


def _writes() -> list[asyncio.Task[Any]]:
    names = ("cache_write", "async_add_cache", "cache_streaming")
    return [
        task
        for task in asyncio.all_tasks()
        if any(name in getattr(task.get_coro(), "__qualname__", "") for name in names)
    ]


def text_of(answer: Any) -> str:
    """Return what an answer says, whole or in chunks."""
    if isinstance(answer, list):
        return "".join(chunk.choices[0].delta.content or "" for chunk in answer if chunk.choices)
    return str(answer.choices[0].message.content)


def facts(answer: Any) -> Any:
    """Return what an answer tells; older versions of LiteLLM lose details of its usage when it hits."""
    choices = [choice.model_dump() for choice in answer.choices]
    return answer.id, answer.created, answer.model, choices, answer.usage.total_tokens


async def said(stream: Any) -> list[Any]:
    """Return the chunks of a stream."""
    return [chunk async for chunk in stream]


async def outcomes(cache: LiteLLMCache) -> dict[Outcome, int]:
    return dict((await cache.response_cache.stats()).outcomes)
