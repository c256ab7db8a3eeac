"""The ways in which an application asks, with a cache or without: one for each face.

Each opens what it needs, a client that counts what it sends among it, and gives a way to ask a question by
its text. Frameworks are imported when their face is opened: that takes seconds.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from llmcache_plugins.cli.load.stage import TIMEOUT, open_client, open_http
from llmcache_plugins.cli.support import CannotRun

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from llmcache_plugins.cache import ResponseCache
    from llmcache_plugins.cli.load.stage import Api, WireCount

    Ask = Callable[[list[Any]], Awaitable[object]]
    Opener = Callable[[Api, WireCount, str, ResponseCache | None], AbstractAsyncContextManager[Ask]]

__all__ = ["FACES", "open_face"]


@asynccontextmanager
async def _gateway(api: Api, wire: WireCount, model: str, cache: ResponseCache | None) -> AsyncIterator[Ask]:
    from llmcache_plugins.gateway import InferenceGateway
    from llmcache_plugins.providers.openai import OpenAIProvider

    async with open_client(api, wire=wire) as client:
        provider = OpenAIProvider(client)
        ask = provider.complete if cache is None else InferenceGateway(provider, cache).resolve
        yield lambda messages: ask({"model": model, "messages": messages})


@asynccontextmanager
async def _langchain(
    api: Api, wire: WireCount, model: str, cache: ResponseCache | None
) -> AsyncIterator[Ask]:
    from langchain_openai import ChatOpenAI
    from pydantic import SecretStr

    from llmcache_plugins.adapters.langchain import LangChainCache

    async with open_http(api, wire=wire) as http:
        chat = ChatOpenAI(
            model=model,
            base_url=api.base_url,
            api_key=SecretStr(api.key),
            http_async_client=http,
            max_retries=api.max_retries,
            timeout=TIMEOUT,
            cache=False if cache is None else LangChainCache(cache),
        )
        yield lambda messages: chat.ainvoke(messages)


@asynccontextmanager
async def _litellm(api: Api, wire: WireCount, model: str, cache: ResponseCache | None) -> AsyncIterator[Ask]:
    from llmcache_plugins.cli.bench.litellm import litellm_with

    async with open_client(api, wire=wire) as client:
        with litellm_with(cache) as complete:
            to_model = {"model": f"openai/{model}", "client": client, "api_base": api.base_url}
            yield lambda messages: complete(messages=messages, api_key=api.key, **to_model)


FACES: dict[str, Opener] = {"gateway": _gateway, "langchain": _langchain, "litellm": _litellm}


def open_face(
    name: str, api: Api, *, wire: WireCount, model: str, cache: ResponseCache | None
) -> AbstractAsyncContextManager[Ask]:
    """Open a face by its name. Raises `CannotRun` for one that there is not, and ImportError."""
    if name not in FACES:
        raise CannotRun(f"there is no face {name!r}; there are {', '.join(FACES)}")
    return FACES[name](api, wire, model, cache)
